"""The checks of a plugin: what is told of its mistakes before it is used."""

from __future__ import annotations

import re
import sys
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, Field, PositiveInt, SecretStr, create_model
from test_loader import Install, Write, channel_type, install, problem, write

from realtime import hookspecs
from realtime.channel import Channel
from realtime.checks import HOOKS, PluginProblem, check_defaults, check_type
from realtime.loader import Plugins
from realtime.values import Duration, Model, Secret, Size

__all__ = ["install", "write"]


def test_hooks_are_those_of_the_page() -> None:
    """The hooks that a plugin can implement are the functions of hookspecs.py."""
    assert set(HOOKS) == {
        name
        for name, value in vars(hookspecs).items()
        if getattr(value, "__module__", None) == hookspecs.__name__ and callable(value)
    }


HOOK = "from realtime import hookimpl\n\n"


def engine(body: str) -> str:
    """The source of a plugin with an engine."""
    offer = "@hookimpl\ndef register_engines(): return {'dice': Dice}\n"
    return f"from realtime import Engine, hookimpl\n\nclass Dice(Engine):\n    {body}\n\n{offer}"


def test_channel_itself_can_be_offered(write: Write) -> None:
    """``Channel`` as it is, on which clients only read, has nothing wrong."""
    source = "from realtime import Channel, hookimpl\n\n\n"
    source += "@hookimpl\ndef register_channels(): return {'dice': Channel}\n"
    assert Plugins(write({"dice.py": source})).channel_type("dice") is Channel


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            HOOK + "@hookimpl\ndef register_chanels(): ...\n",
            "dice.register_chanels is no hook, did you mean 'register_channels'?",
        ),
        (
            "def register_channels(): ...\n",
            "dice.register_channels has the name of a hook but is not marked",
        ),
        (
            HOOK + "@hookimpl\nasync def register_channels(): ...\n",
            "dice.register_channels is an 'async def', but this hook returns objects, not awaitables",
        ),
        (
            HOOK + "@hookimpl\ndef register_routes(buss): ...\n",
            "dice.register_routes takes 'buss', which this hook does not have, did you mean 'bus'?",
        ),
        (
            HOOK + "@hookimpl\ndef register_services(app): ...\n",
            "dice.register_services takes 'app', which this hook does not have; it has: bus",
        ),
        (HOOK + "@hookimpl\ndef register_channels(x): ...\n", "it has: no arguments"),
        (
            HOOK + "@hookimpl\ndef register_channels(): return ['dice']\n",
            "dice: register_channels() returned ['dice'], not a dict of channel types",
        ),
        (
            HOOK + "@hookimpl\ndef register_channels(): return {'dice': 7}\n",
            "dice: 7, offered as 'dice', is no subclass of Channel",
        ),
        (
            HOOK + "@hookimpl\ndef register_channels(): return {'dice': dict}\n",
            "offered as 'dice', is no subclass of Channel",
        ),
        (
            HOOK + "@hookimpl\ndef register_channels():\n    raise LookupError('no dice')\n",
            "dice: register_channels(): LookupError: no dice\n"
            "    plugins/dice.py:5: raise LookupError('no dice')",
        ),
        (
            HOOK + "@hookimpl\ndef register_engines(): return ['dice']\n",
            "dice: register_engines() returned ['dice'], not a dict of engines",
        ),
        (
            HOOK + "@hookimpl\ndef register_engines(): return {'dice': dict}\n",
            "offered as 'dice', is no subclass of Engine: write class dict(Engine)",
        ),
        (
            engine("def publish(self, topic, message, once=None): ..."),
            "Dice.publish must be an 'async def'",
        ),
        (engine("async def close(self, topic): ..."), "Dice.close must be a plain 'def'"),
        (engine("async def open(self): ..."), "Dice.open takes (self), and is called with (topic)"),
        (
            engine("def __init__(self): ..."),
            "Dice.__init__ takes (self), and is called with (settings, bus)",
        ),
        (engine("async def lifespan(self): yield"), "Dice.lifespan is not marked"),
        (engine("class Settings: ..."), "Dice.Settings is no subclass of Model"),
        (
            channel_type(body="async def on_mesage(self, client, message): ..."),
            "dice: Dice.on_mesage is no method of a channel, did you mean 'on_message'?",
        ),
        (
            channel_type(body="def on_message(self, client, message): ..."),
            "dice: Dice.on_message must be an 'async def'",
        ),
        (
            channel_type(body="async def as_text(self, message): ..."),
            "dice: Dice.as_text must be a plain 'def'",
        ),
        (
            channel_type(body="async def member(self, client): ..."),
            "dice: Dice.member must be a plain 'def'",
        ),
        (
            channel_type(body="transports = ('websockets',)"),
            "dice: Dice.transports has 'websockets', did you mean 'websocket'?; there are websocket, sse",
        ),
        (
            channel_type(body="transports = None"),
            "dice: Dice.transports is None, and is to be a tuple of some of websocket, sse",
        ),
        (
            channel_type(body="page = 'dic.js'"),
            "dice: Dice.page is 'dic.js', and there is no ",
        ),
        (
            channel_type(body="page = '../dice.js'"),
            "dice: Dice.page is '../dice.js', and is to be the name of a file beside the plugin's own",
        ),
        (
            channel_type(body="page = 5"),
            "dice: Dice.page is 5, and is to be the name of a file beside the plugin's own: page = 'ch",
        ),
        (
            channel_type(body="class Settings: ..."),
            "dice: Dice.Settings is no subclass of Channel.Settings",
        ),
        (
            channel_type(body="def register_routes(self, bus): ..."),
            "dice: Dice.register_routes has the name of a hook but is not marked @hookimpl",
        ),
    ],
)
def test_mistake_in_a_plugin(write: Write, source: str, message: str) -> None:
    """What a plugin's author got wrong is told in one sentence that names it."""
    assert message in problem(write({"dice.py": source}), "dice")


def test_page_of_a_type_without_a_file() -> None:
    """A type that was made in no file, in a console say, has nothing beside it: that is told, too."""
    kind = type("Made", (Channel,), {"page": "made.js", "__module__": "nowhere"})
    with pytest.raises(PluginProblem, match="and the class was made in no file"):
        check_type("made", kind)


def test_page_that_is_not_there(write: Write) -> None:
    """Of a page that is not there it says where it was looked for, what may be meant, and who says so."""
    source = channel_type(body="page = 'dic.js'")
    said = problem(write({"dice.py": source, "dice.js": ""}), "dice")
    assert said.startswith(
        "dice: Dice.page is 'dic.js', and there is no plugins/dic.js, did you mean 'dice.js'?"
    )
    assert re.search(r"\n    plugins/dice\.py:\d+: page = 'dic\.js'$", said)


def test_authenticate_may_be_async(write: Write) -> None:
    """The one hook that the host awaits may be an ``async def``."""
    source = HOOK + "@hookimpl\nasync def authenticate(request): ...\n"
    Plugins(write({"dice.py": source})).load("dice")


# The defaults of settings


def settings(kind: Any, default: object, name: str = "rolls") -> type[Model]:
    """Settings with this default."""
    fields: dict[str, Any] = {name: (kind, default)}
    return create_model("Settings", __base__=Channel.Settings, **fields)


class Face(Model):
    """A section of settings."""

    dots: int = 6


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        (Duration, 10.0),
        (Duration, 10),
        (Duration | None, None),
        (list[Duration], [1.0]),
        (Size, 1024),
        (Secret, SecretStr("x")),
        (Annotated[Secret, Field(min_length=16)], SecretStr("x" * 16)),
        (Face, Face()),
        (dict[str, Face], {"six": Face()}),
        (tuple[int, int], (1, 2)),
        (date, date(2026, 11, 23)),
        (Path, Path("x")),
        (Literal["a", "b"], "b"),
        (int | str, "a"),
        (float, 6),
        (Annotated[int, AfterValidator(lambda number: number + 1)], 1),
        (Annotated[str, AfterValidator(str.lower)], "ABC"),
        (Annotated[str, AfterValidator({}.__getitem__)], "fails for whoever it asks"),
        (Annotated[int, Field(validate_default=True)], "pydantic looks at it"),
        (Any, object()),
    ],
)
def test_default_that_is_right(kind: Any, default: object) -> None:
    """A default that a config can have is let through, and so is what no YAML could write."""
    check_defaults("Dice.Settings", settings(kind, default))


@pytest.mark.parametrize(
    ("kind", "default", "said"),
    [
        (Duration, "30s", "'30s' is how a config has it; a default is what that means: 30.0"),
        (Size, "1KiB", "'1KiB' is how a config has it; a default is what that means: 1024"),
        (list[Duration], ["5s"], "['5s'] is how a config has it; a default is what that means: [5.0]"),
        (Secret, "x", "'x' is how a config has it; a default is what that means: SecretStr('**********')"),
        (Duration, None, "its default is refused: expected a duration such as 500ms, 10s or 5m, not None"),
        (
            Annotated[Duration, Field(le=60)],
            99,
            "its default is refused: expected a number of at most 60, not 99",
        ),
        (
            list[Annotated[str, Field(pattern="^#")]],
            ["#1", "orange"],
            "its default is refused at [1]: expected text of the pattern ^#, not 'orange'",
        ),
        (PositiveInt, 0, "its default is refused: expected a number greater than 0, not 0"),
        (int, "6", "its default is refused: expected a whole number, not '6'"),
        (int, None, "its default is refused: expected a whole number, not None"),
    ],
)
def test_default_that_is_wrong(kind: Any, default: object, said: str) -> None:
    """A default that its setting could not have is told, with what it is to be."""
    with pytest.raises(PluginProblem) as caught:
        check_defaults("Dice.Settings", settings(kind, default))
    assert str(caught.value).partition("\n")[0] == f"Dice.Settings.rolls: {said}"


def test_default_of_a_plugin_that_is_no_channel(write: Write) -> None:
    """The settings of a class ``Plugin`` are looked at, too, and the line is named."""
    source = "from realtime import Duration, Model\n\n\nclass Plugin:\n    class Settings(Model):\n"
    source += "        pause: Duration = '1m'\n\n    def __init__(self, settings): ...\n"
    said = problem(write({"dice.py": source}), "dice")
    assert said.startswith("dice: Plugin.Settings.pause: '1m' is how a config has it; ")
    assert said.endswith("60.0\n    plugins/dice.py:6: pause: Duration = '1m'")


# The version of the API


@pytest.mark.parametrize("line", ["API_VERSION = 99", "API_VERSION: int = 99", "OTHER = API_VERSION = 99"])
def test_newer_api_is_refused_before_it_runs(write: Write, line: str) -> None:
    """A plugin for another API is refused, and nothing of it is executed."""
    directory = write({"dice.py": f"raise SystemExit('it ran')\n{line}\n"})
    said = "dice is written for API version 99 of Realtime, which is 1 here; install a release of one "
    assert problem(directory, "dice") == f"{said}that is for the other\n    plugins/dice.py:2: {line}"


def test_newer_api_of_a_package_is_refused_before_it_runs(install: Install) -> None:
    """The same holds for an installed package."""
    install("realtime-dice", "dice", "ep_new", "raise SystemExit('it ran')\nAPI_VERSION = 99\n")
    with pytest.raises(PluginProblem, match=r"^dice is written for API version 99 of Realtime"):
        Plugins().load("dice")
    assert "ep_new" not in sys.modules


def test_this_api_is_accepted(write: Write) -> None:
    """A plugin for this API is loaded."""
    Plugins(write({"dice.py": "API_VERSION = 1\n" + channel_type()})).load("dice")
