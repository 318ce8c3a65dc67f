"""What is promised is kept: nothing that is recorded goes or changes, and what is new is recorded.

And what is to go is told to those who use it, with the place.
"""

from __future__ import annotations

import re
from pathlib import Path

import pluggy
import pytest
from conftest import make
from contract import differences, facts, read
from test_loader import Write, channel_type, write
from tree import checkout

from realtime import checks, hookspecs, inspection
from realtime.checks import PluginProblem, deprecations
from realtime.exit_codes import ExitCode
from realtime.loader import Plugins

__all__ = ["write"]


@pytest.fixture(scope="module")
def now() -> list[str]:
    """What is promised by the code, and by what it really puts out."""
    return facts()


def test_nothing_that_is_promised_has_gone(now: list[str]) -> None:
    """Every name, argument, key, code and field that is recorded is there, and is what it was."""
    broken, _ = differences(read(), now)
    assert not broken, "\n\n" + "\n\n".join(broken)


def test_what_is_new_is_recorded(now: list[str]) -> None:
    """What is added is promised from then on, so it is recorded."""
    _, new = differences(read(), now)
    assert not new, "\n\n" + "\n\n".join(new)


@pytest.mark.parametrize(
    "kind", ["close", "command", "config", "exit", "frame", "hook", "json", "log", "python", "word"]
)
def test_every_kind_is_recorded(kind: str) -> None:
    """There are facts of each kind that the page names."""
    assert any(fact.startswith(f"{kind} ") for fact in read())


def test_each_fact_stands_once() -> None:
    """A fact stands once, and the file is in order."""
    places = [fact.partition(": ")[0] for fact in read()]
    assert (len(places), read()) == (len(set(places)), sorted(read()))


# What is said of a change

BEFORE = ["python realtime.Bus.publish: async def -> Position", "hook authenticate(request): web.Request"]


def test_removal() -> None:
    """What has gone is named, with what to do."""
    (told,), new = differences(BEFORE, BEFORE[1:])
    assert told.startswith("python realtime.Bus.publish is gone, and somebody uses it. Bring it back")
    assert new == []


def test_renaming() -> None:
    """A new name does not make good for the one that has gone."""
    broken, new = differences(BEFORE, [BEFORE[0], "hook authenticate(asked): web.Request"])
    assert [told.partition(" is ")[0] for told in broken] == ["hook authenticate(request)"]
    assert [told.partition(" is ")[0] for told in new] == ["hook authenticate(asked)"]


def test_change() -> None:
    """What has changed is told with what it was."""
    (told,), _ = differences(BEFORE, [BEFORE[0].replace("async def", "def"), BEFORE[1]])
    assert told.startswith(
        "python realtime.Bus.publish was 'async def -> Position' and is 'def -> Position'"
    )


def test_addition() -> None:
    """What is new breaks nobody, and is to be recorded."""
    broken, new = differences(BEFORE, [*BEFORE, "python realtime.Bus.publish(ttl=): float = 0.0"])
    assert broken == []
    assert new == [
        "python realtime.Bus.publish(ttl=) is new: python tests/contract.py records it, and so promises it"
    ]


def test_new_argument_that_is_required() -> None:
    """An argument that nobody gives yet breaks everybody."""
    (told,), _ = differences(BEFORE, [*BEFORE, "python realtime.Bus.publish(ttl): float, required"])
    assert told.partition(", and ")[0] == "python realtime.Bus.publish(ttl) is new and required"


def test_new_function_with_required_arguments() -> None:
    """Of what is new altogether anything may be required."""
    more = ["python realtime.burn: def -> None", "python realtime.burn(what): str, required"]
    broken, new = differences(BEFORE, [*BEFORE, *more])
    assert (broken, len(new)) == ([], 2)


# The page


def test_page_names_the_version() -> None:
    """The page of compatibility says which version of the API this is."""
    page = (checkout() / "docs" / "compatibility.md").read_text()
    version = next(fact for fact in read() if fact.startswith("API_VERSION: "))
    assert set(re.findall(r"`API_VERSION = (\d+)`", page)) == {version.partition(": ")[2]}


# What is to go

SPECS = '''
from realtime.hookspecs import hookspec

@hookspec(warn_on_impl=DeprecationWarning("use register_new, which may be asynchronous"))
def register_old(bus):
    """Goes."""

@hookspec(warn_on_impl_args={"asked": DeprecationWarning("use request, which is the same")})
def register_half(asked, request):
    """One of its arguments goes."""
'''
OLD = "\n\n@hookimpl\ndef register_old():\n    return None\n"
HALF = "\n\n@hookimpl\ndef register_half(asked):\n    return None\n"


@pytest.fixture
def going(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two more hooks: one that goes, and one of which an argument goes."""
    specs: dict[str, object] = {}
    exec(compile(SPECS, hookspecs.__file__, "exec"), specs)
    for name in ("register_old", "register_half"):
        monkeypatch.setattr(hookspecs, name, specs[name], raising=False)
        monkeypatch.setitem(checks.HOOKS, name, specs[name])


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings of the loader."""
    return [
        r.getMessage() for r in caplog.records if (r.name, r.levelname) == ("realtime.loader", "WARNING")
    ]


@pytest.mark.usefixtures("going")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_hook_that_goes(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    """Who implements a hook that goes is told which plugin it is, where, and what to use."""
    directory = write({"dice.py": channel_type() + OLD})
    Plugins(directory).load("dice")
    line = (channel_type() + OLD).splitlines().index("def register_old():")  # the line of its mark
    assert told(caplog) == [
        "plugin 'dice' implements register_old, which is deprecated: "
        f"use register_new, which may be asynchronous ({directory}/plugins/dice.py:{line})"
    ]


@pytest.mark.usefixtures("going")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_argument_that_goes(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    """Who takes an argument that goes is told so."""
    Plugins(write({"dice.py": channel_type() + HALF})).load("dice")
    [sentence] = told(caplog)
    assert sentence.startswith(
        "plugin 'dice' takes the argument 'asked' of register_half, which is deprecated: use request, "
    )


IN_CHANNEL = '''
from realtime import Channel, hookimpl

class Dice(Channel):
    """Dice."""

    @hookimpl
    def register_old(self):
        return None

@hookimpl
def register_channels():
    return {"dice": Dice}
'''
THREE = (
    "channels: {a: {plugin: dice, path: /a}, b: {plugin: dice, path: /b}, c: {plugin: dice, path: /c}}\n"
)


@pytest.mark.usefixtures("going")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_hook_of_a_channel_that_goes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A type that has many channels is told of once, by the name of its plugin."""
    async with make(tmp_path, THREE, {"dice.py": IN_CHANNEL}):
        assert [sentence.partition(",")[0] for sentence in told(caplog)] == [
            "plugin 'dice' implements register_old"
        ]


@pytest.mark.usefixtures("going")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_check_tells_what_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``check`` tells it on standard error, and finds no mistake."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "dice.py").write_text(IN_CHANNEL)
    (tmp_path / "config.yaml").write_text(THREE)
    assert inspection.check(tmp_path / "config.yaml", as_json=False) is ExitCode.OK
    said = capsys.readouterr().err
    assert re.search(
        r"WARNING realtime\.loader: plugin 'dice' implements register_old, which is deprecated", said
    )
    assert said.count("register_old") == 1


@pytest.mark.usefixtures("going")
def test_pytest_tells_what_goes(write: Write) -> None:
    """In the tests of its author it is a ``DeprecationWarning`` at the line of the function."""
    directory = write({"dice.py": channel_type() + OLD})
    with pytest.warns(DeprecationWarning, match="register_old") as warned:
        Plugins(directory).load("dice")
    told = "plugin 'dice' implements register_old, which is deprecated: "
    told += "use register_new, which may be asynchronous"
    assert [(str(one.message), one.filename) for one in warned] == [(told, f"{directory}/plugins/dice.py")]


@pytest.mark.usefixtures("going")
@pytest.mark.filterwarnings("error::DeprecationWarning")
def test_warning_that_is_an_error(write: Write) -> None:
    """Where warnings are errors it stops the start, with the same sentence."""
    with pytest.raises(
        PluginProblem, match="DeprecationWarning: plugin 'dice' implements register_old, which"
    ):
        Plugins(write({"dice.py": channel_type() + OLD})).load("dice")


def test_nothing_goes_now(caplog: pytest.LogCaptureFixture) -> None:
    """No hook of this version goes, so no plugin that comes with it is told anything."""
    plugins = Plugins()
    for found in plugins.found:
        if found.name in ("chat", "clock", "echo", "topics"):
            plugins.load(found.name)
    assert told(caplog) == []


def test_plugin_without_hooks() -> None:
    """Of what is no plugin there is nothing to say."""
    assert deprecations(pluggy.PluginManager("realtime"), object()) == []
