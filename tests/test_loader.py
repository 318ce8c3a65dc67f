"""The loader: where plugins are found, and what is said about one that cannot be used."""

from __future__ import annotations

import textwrap
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import aiohttp
import pytest
import shelf
from conftest import Serve, make
from wire import ask

from realtime.bus import Bus
from realtime.checks import PluginProblem
from realtime.config import parse
from realtime.engine import Engine
from realtime.errors import ConfigError
from realtime.loader import Plugins, build
from realtime.modules import first_party
from realtime.server import Server
from realtime.source import Source

#: A channel type; what a test wants to have in it is put in its place.
TYPE = """\
from realtime import Channel, Client, Message, hookimpl


class Dice(Channel):
    {body}


@hookimpl
def register_channels():
    return {{"{name}": Dice}}
"""


def channel_type(name: str = "dice", body: str = '"""Dice from a file."""') -> str:
    """The source of a plugin with one channel type."""
    return TYPE.format(name=name, body=textwrap.indent(textwrap.dedent(body), "    ").strip())


Write = Callable[[Mapping[str, str]], Path]
Install = Callable[..., None]
Mistakes = Callable[..., Awaitable[list[str]]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes files into ``plugins/`` beside a config; returns the config's directory."""

    def write(files: Mapping[str, str]) -> Path:
        for name, text in files.items():
            file = tmp_path / "plugins" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(text))
        return tmp_path

    return write


@pytest.fixture
def install(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a distribution with a module and an entry point in the group ``realtime``."""

    def install(distribution: str, entry_point: str, module: str, source: str) -> None:
        site = tmp_path_factory.mktemp("site")
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        info = site / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[realtime]\n{entry_point} = {module}\n")
        monkeypatch.syspath_prepend(str(site))

    return install


@pytest.fixture
def mistakes(write: Write) -> Mistakes:
    """Starts a server with a config and plugins that cannot be used; returns what it says."""

    async def mistakes(config: str, files: Mapping[str, str] | None = None) -> list[str]:
        directory = write(files or {})
        server = Server(parse(textwrap.dedent(config), Source("c.yaml", directory / "c.yaml")))
        with pytest.raises(ConfigError) as caught:
            await server.start()
        return [str(problem).replace(f"{directory}/", "") for problem in caught.value.problems]

    return mistakes


def problem(directory: Path, name: str) -> str:
    """What is wrong with a plugin, with its paths from the directory of the config."""
    with pytest.raises(PluginProblem) as caught:
        Plugins(directory).load(name)
    return str(caught.value).replace(f"{directory}/", "")


# Found by name


def test_first_party_plugin_is_found() -> None:
    """Without a directory the plugins that come with the server are there."""
    assert Plugins().channel_type("echo").__doc__ == "What a client sends comes back to it."


def test_file_beside_the_config_comes_first(write: Write) -> None:
    """A file beside the config is taken before a first-party plugin of its name."""
    directory = write({"echo.py": channel_type("echo")})
    assert Plugins(directory).channel_type("echo").__doc__ == "Dice from a file."


def test_first_party_comes_before_an_installed_package(install: Install) -> None:
    """A package cannot take the name of a first-party plugin."""
    install("realtime-echo", "echo", "ep_echo", channel_type("echo"))
    assert Plugins().channel_type("echo").__doc__ == "What a client sends comes back to it."


def test_file_beside_the_config_comes_before_an_installed_package(write: Write, install: Install) -> None:
    """A file beside the config is taken before an installed package."""
    install("realtime-dice", "dice", "ep_first", channel_type(body='"""Dice of a package."""'))
    assert Plugins(write({"dice.py": channel_type()})).channel_type("dice").__doc__ == "Dice from a file."


def test_entry_point_is_found(install: Install) -> None:
    """An installed package is found by the name of its entry point."""
    install("realtime-dice", "dice", "ep_dice", channel_type(body='"""Dice of a package."""'))
    assert Plugins().channel_type("dice").__doc__ == "Dice of a package."


def test_package_beside_the_config(write: Write) -> None:
    """A plugin may be a directory with modules that import each other."""
    sides = "from .sides import SIDES\n" + channel_type(body='"""Dice."""\nsides = SIDES')
    directory = write({"dice/__init__.py": sides, "dice/sides.py": "SIDES = 20\n"})
    assert vars(Plugins(directory).channel_type("dice"))["sides"] == 20


def test_file_may_import_its_neighbour(write: Write) -> None:
    """A plugin may import a file beside it that is no plugin."""
    dice = "from .sides import SIDES\n" + channel_type(body='"""Dice."""\nsides = SIDES')
    directory = write({"dice.py": dice, "sides.py": "SIDES = 12\n"})
    assert vars(Plugins(directory).channel_type("dice"))["sides"] == 12


def test_name_with_a_hyphen(write: Write) -> None:
    """The plugin ``loaded-dice`` is the file ``loaded_dice.py``."""
    directory = write({"loaded_dice.py": channel_type("loaded-dice")})
    assert Plugins(directory).channel_type("loaded-dice").__name__ == "Dice"


def test_dataclass_in_a_file(write: Write) -> None:
    """A file's module is known to Python, which dataclasses with late annotations rely on."""
    source = """\
        from __future__ import annotations
        from dataclasses import dataclass, field

        @dataclass
        class Roll:
            sides: int = 6
            seen: list[int] = field(default_factory=list)
    """
    Plugins(write({"dice.py": source})).load("dice")


def test_imported_only_when_named(write: Write) -> None:
    """A plugin that nobody names is not imported."""
    plugins = Plugins(write({"dice.py": channel_type(), "bomb.py": "raise SystemExit"}))
    plugins.load("dice")
    assert plugins.names() == ["plugin:dice"]


def test_imported_once(write: Write) -> None:
    """Named twice, a plugin is the same."""
    plugins = Plugins(write({"dice.py": channel_type()}))
    plugins.load("dice")
    assert plugins.channel_type("dice") is plugins.channel_type("dice")
    assert plugins.names() == ["plugin:dice"]


def test_directory_of_first_party_plugins() -> None:
    """The first-party plugins are where the package says."""
    assert {"echo.py", "chat.py", "clock.py"} <= {file.name for file in first_party().iterdir()}


def test_two_directories_do_not_mix(tmp_path: Path) -> None:
    """Two configs in two directories have each its own plugin of one name."""
    kinds = []
    for name in ("one", "two"):
        file = tmp_path / name / "plugins" / "dice.py"
        file.parent.mkdir(parents=True)
        file.write_text(channel_type(body=f'"""Dice of {name}."""'))
        kinds.append(Plugins(tmp_path / name).channel_type("dice"))
    assert [kind.__doc__ for kind in kinds] == ["Dice of one.", "Dice of two."]


# Not found


def test_unknown_plugin_says_where_it_was_searched(write: Write, install: Install) -> None:
    """A plugin that is not there is told with every place searched."""
    install("realtime-poker", "poker", "ep_poker", "")
    assert problem(write({}), "zebra").splitlines() == [
        "there is no plugin 'zebra'",
        "    searched: plugins (none)",
        f"    searched: {first_party()} (api_keys, chat, clock, echo, topics)",
        "    searched: entry points of group 'realtime' of installed packages (poker, redis)",
    ]


@pytest.mark.parametrize(("wrong", "near"), [("ecko", "echo"), ("dise", "dice"), ("pokre", "poker")])
def test_unknown_plugin_suggests_a_name(write: Write, install: Install, wrong: str, near: str) -> None:
    """A misspelt name is answered with a near one, wherever that plugin is."""
    install("realtime-poker", "poker", "ep_poker", "")
    directory = write({"dice.py": ""})
    assert problem(directory, wrong).startswith(f"there is no plugin '{wrong}', did you mean '{near}'?\n")


def test_two_packages_of_one_name(install: Install) -> None:
    """Two distributions that offer one name are both named; neither is taken."""
    install("realtime-dice", "dice", "ep_one", channel_type())
    install("other-dice", "dice", "ep_two", channel_type())
    with pytest.raises(PluginProblem) as caught:
        Plugins().load("dice")
    assert str(caught.value) == (
        "two installed packages offer a plugin 'dice': "
        "other-dice (ep_two), realtime-dice (ep_one); uninstall one"
    )


@pytest.mark.parametrize("name", ["", "..", "../dice", "a/b", "a b", ".dice", "dice\n", "é"])
def test_name_that_is_none(tmp_path: Path, name: str) -> None:
    """What could leave the directory, or could be no module, is no name of a plugin."""
    assert problem(tmp_path, name).startswith(f"{name!r} is no name of a plugin")


def test_plugin_without_the_type(write: Write) -> None:
    """A plugin that has no channel type of its name says what it offers."""
    plugins = Plugins(write({"dice.py": channel_type("die")}))
    with pytest.raises(PluginProblem) as caught:
        plugins.channel_type("dice")
    said = "the plugin 'dice' offers no channel type of that name; it offers: die\n"
    assert str(caught.value).startswith(said)


def test_plugin_that_is_no_channel(write: Write) -> None:
    """A plugin with other hooks belongs elsewhere."""
    source = "from realtime import hookimpl\n\n@hookimpl\ndef register_services(bus):\n    return []\n"
    plugins = Plugins(write({"gate.py": source}))
    with pytest.raises(PluginProblem, match="the plugin 'gate' is no channel: it belongs under plugins:\n"):
        plugins.channel_type("gate")


# Broken


def test_import_error_has_the_plugins_frames_only(write: Write) -> None:
    """An error at import is told with the plugin's own lines, and none of the host or of Python."""
    source = """\
        import json

        def load():
            return json.loads("x")

        load()
    """
    assert problem(write({"dice.py": source}), "dice").splitlines() == [
        "dice: JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
        "    plugins/dice.py:6: load()",
        '    plugins/dice.py:4: return json.loads("x")',
    ]


def test_syntax_error_has_its_line(write: Write) -> None:
    """A syntax error is told with file, line and text."""
    assert problem(write({"dice.py": "import json\ndef roll(:\n"}), "dice").splitlines() == [
        "dice: SyntaxError: invalid syntax (dice.py, line 2)",
        "    plugins/dice.py:2: def roll(:",
    ]


def test_missing_dependency(write: Write) -> None:
    """A missing module is told with the line that wants it."""
    assert problem(write({"dice.py": "import no_such_module\n"}), "dice").splitlines() == [
        "dice: ModuleNotFoundError: No module named 'no_such_module'; is it installed? "
        "python -m pip install no_such_module",
        "    plugins/dice.py:1: import no_such_module",
    ]


def test_missing_module_of_an_entry_point(install: Install) -> None:
    """An entry point whose module is gone is told."""
    install("realtime-dice", "dice", "ep_gone", "import no_such_module")
    with pytest.raises(
        PluginProblem, match=r"^dice: ModuleNotFoundError: No module named 'no_such_module'"
    ):
        Plugins().load("dice")


@pytest.mark.parametrize("text", ["\0", "# caf\\udce9", "x = (" * 300])
def test_file_that_is_no_python(write: Write, text: str) -> None:
    """A file that Python cannot even read is a problem of the plugin."""
    directory = write({"dice.py": ""})
    raw = text.replace("\\udce9", "\udce9").encode(errors="surrogateescape")
    (directory / "plugins" / "dice.py").write_bytes(raw)
    # ValueError: until Python 3.11.4 that is what a null byte is
    assert problem(directory, "dice").startswith(("dice: SyntaxError: ", "dice: ValueError: "))


def test_system_exit(write: Write) -> None:
    """A plugin that exits at import does not end the server without a word."""
    assert problem(write({"dice.py": "raise SystemExit(3)\n"}), "dice").splitlines() == [
        "dice: SystemExit: 3; a plugin may not end the process: raise an error that says what is wrong",
        "    plugins/dice.py:1: raise SystemExit(3)",
    ]


def test_problem_is_told_again(write: Write) -> None:
    """A broken plugin is not tried twice: it is refused with the same words."""
    plugins = Plugins(write({"dice.py": "raise ValueError('first')\n"}))
    said = []
    for _ in range(2):
        with pytest.raises(PluginProblem) as caught:
            plugins.load("dice")
        said.append(str(caught.value))
    assert said[0] == said[1]


# With a config


async def test_plugins_and_channels_are_registered_in_order(write: Write) -> None:
    """Plugins are ``plugin:NAME`` and channels ``channel:NAME``, in the order of the config."""
    config = """
        plugins: [dice]
        channels:
          b: {plugin: chat, path: /b}
          a: {plugin: dice, path: /a}
          c: {plugin: chat, path: /c}
    """
    source = Source("c.yaml", write({"dice.py": channel_type()}) / "c.yaml")
    plugins, channels, *_ = build(parse(textwrap.dedent(config), source), Bus())
    assert plugins.names() == ["plugin:dice", "plugin:chat", "channel:b", "channel:a", "channel:c"]
    assert list(channels) == ["b", "a", "c"]


async def test_one_plugin_serves_several_channels(serve: Serve) -> None:
    """Two entries of one plugin are two channels with settings of their own."""
    config = """
        channels:
          one: {plugin: clock, path: /one, interval: 1h}
          two: {plugin: clock, path: /two, interval: 2h}
    """
    async with serve(config) as serving:
        one, two = serving.server.channels.values()
        assert type(one) is type(two)
        assert (one.settings.path, two.settings.path) == ("/one", "/two")


async def test_disabled_channel_is_not_loaded(serve: Serve) -> None:
    """A channel that is off needs no plugin."""
    async with serve("channels: {a: {plugin: zebra, path: /a, enabled: false}}") as serving:
        assert serving.server.channels == {}


async def test_two_servers_in_one_process(tmp_path: Path) -> None:
    """Two servers have each its own plugins, channels and bus."""
    answers = []
    servers = []
    for name in ("one", "two"):
        body = f'async def on_message(self, client, message):\n    await client.send("{name}")'
        file = tmp_path / name / "plugins" / "dice.py"
        file.parent.mkdir(parents=True)
        file.write_text(channel_type(body=body))
        config = 'server: {listen: ["127.0.0.1:0"]}\nchannels: {dice: {plugin: dice, path: /dice}}'
        servers.append(Server(parse(config, Source("c.yaml", tmp_path / name / "c.yaml"))))
    async with servers[0], servers[1], aiohttp.ClientSession() as session:
        for server in servers:
            async with session.ws_connect(f"http://{server.addresses[0]}/dice") as ws:
                await ws.send_str("roll")
                answers.append(await ws.receive_str(timeout=5))
    assert answers == ["one", "two"]


async def test_every_broken_plugin_is_told(mistakes: Mistakes) -> None:
    """One broken plugin hides no other, and each is told in its place."""
    config = """
        plugins: [zebra, bad]
        channels:
          a: {plugin: worse, path: /a}
          b: {plugin: bad, path: /b}
          c: {plugin: echo, path: /c, histroy: 1}
    """
    files = {"bad.py": "raise ValueError('bad')\n", "worse.py": "raise ValueError('worse')\n"}
    said = await mistakes(config, files)
    assert [text.splitlines()[0] for text in said] == [
        "c.yaml:2:11: plugins[0]: there is no plugin 'zebra'",
        "c.yaml:2:18: plugins[1]: bad: ValueError: bad",
        "c.yaml:4:15: channels.a.plugin: worse: ValueError: worse",
        "c.yaml:5:15: channels.b.plugin: bad: ValueError: bad",
        "c.yaml:6:31: channels.c.histroy: unknown key, did you mean 'history'?",
    ]


async def test_settings_of_a_strangers_plugin_are_told_in_their_place(mistakes: Mistakes) -> None:
    """What is wrong with the settings of a plugin's own model has file, line and column."""
    body = """\
        class Limits(Channel.Settings):
            sides: int = 6

        class Settings(Channel.Settings):
            sides: int = 6
            faces: list[str] = []
            key: str

        settings: Settings
        """
    config = """
        channels:
          a:
            plugin: dice
            path: dice
            sides: six
            faces: [one, 2]
            side: 6
    """
    assert sorted(await mistakes(config, {"dice.py": channel_type(body=body)})) == [
        "c.yaml:4:5: channels.a: the key 'key' is missing",
        "c.yaml:5:11: channels.a.path: expected a path that begins with a slash, such as /chat, not 'dice'",
        "c.yaml:6:12: channels.a.sides: expected a whole number, not 'six'",
        "c.yaml:7:18: channels.a.faces[1]: expected text, not 2 (YAML reads this as a number; "
        "put it in quotes to mean text)",
        "c.yaml:8:5: channels.a.side: unknown key, did you mean 'sides'?",
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            "{path: /a}",
            "c.yaml:1:15: channels.a: the key 'plugin' is missing: "
            "the channel type: `echo`, `chat`, `clock`, `topics`, or that of a plugin",
        ),
        (
            "{plugin: 7, path: /a}",
            "c.yaml:1:24: channels.a.plugin: expected text, not 7 "
            "(YAML reads this as a number; put it in quotes to mean text)",
        ),
        (
            "{plugin: echo}",
            "c.yaml:1:15: channels.a: the key 'path' is missing: the path of its URL, such as `/chat` or "
            "`/rooms/{room}`",
        ),
        (
            "{plugin: echo, path: /-/a}",
            "c.yaml:1:36: channels.a.path: paths under /-/ are the server's own: '/-/a'",
        ),
        (
            "{plugin: echo, path: '/{a}/{a}'}",
            "c.yaml:1:36: channels.a.path: a variable stands in it twice: '/{a}/{a}'",
        ),
        (
            "{plugin: echo, path: /a, enabled: 'no'}",
            "c.yaml:1:49: channels.a.enabled: expected true or false, not 'no': "
            "write it without the quotes",
        ),
        (
            "{plugin: echo, path: /a, overflow: drop}",
            "c.yaml:1:50: channels.a.overflow: expected 'disconnect', 'skip' or 'latest', not 'drop'",
        ),
        (
            "{plugin: echo, path: /a, limits: {max_client: 1}}",
            "c.yaml:1:49: channels.a.limits.max_client: unknown key, did you mean 'max_clients'?",
        ),
    ],
)
async def test_mistake_in_a_channel(mistakes: Mistakes, entry: str, message: str) -> None:
    """What is wrong with an entry is told in its place."""
    assert await mistakes(f"channels: {{a: {entry}}}\n") == [message]


async def test_channel_that_cannot_be_made(mistakes: Mistakes) -> None:
    """A channel type whose constructor fails is told with its own lines."""
    body = "def __init__(self, *arguments):\n    raise ValueError('no dice')"
    said = await mistakes("channels: {a: {plugin: dice, path: /a}}", {"dice.py": channel_type(body=body)})
    assert said == [
        "c.yaml:1:15: channels.a: the channel type 'dice' could not be made: ValueError: no dice\n"
        "    plugins/dice.py:6: raise ValueError('no dice')"
    ]


async def test_two_plugins_offer_one_type(mistakes: Mistakes) -> None:
    """Two plugins that offer one channel type are both named."""
    config = "plugins: [one, two]"
    said = await mistakes(config, {"one.py": channel_type(), "two.py": channel_type()})
    assert said == [
        "c.yaml:1:16: plugins[1]: two plugins offer a channel type 'dice': "
        "one (plugins/one.py) and two (plugins/two.py); rename it in one of them"
    ]


# Engines


def test_engine_of_a_plugin(write: Write) -> None:
    """A plugin's engine is found by the name of the plugin, and ``memory`` is there."""
    known = Plugins(write(shelf.FILES))
    assert known.engine("memory") is Engine
    assert known.engine("shelf").__doc__ == "Keeps the logs on a shelf."
    assert known.offered("shelf", known.engines) == ["shelf"]


async def test_engine_of_a_plugin_that_is_named(write: Write) -> None:
    """What a plugin under ``plugins`` offers is found by its own name."""
    directory = write({"racks.py": shelf.SOURCE})
    server = make(directory, "plugins: [racks]\n" + shelf.BUS + "channels: {}")
    server.load()
    assert type(server.bus.engine).__name__ == "Shelf"


async def test_engine_has_its_settings(write: Write) -> None:
    """An engine is made with what its own model says of the other keys under ``bus``."""
    server = make(write(shelf.FILES), "bus: {engine: shelf, key: x, depth: 5}\nchannels: {}")
    server.load()
    assert server.bus.engine.settings.depth == 5
    assert server.bus.engine.bus is server.bus


@pytest.mark.parametrize("bus", ["", "bus:\n", "bus: {}\n", "bus: {engine: memory}\n"])
async def test_engine_memory(write: Write, bus: str) -> None:
    """Without a word about it the engine is ``memory``."""
    server = make(write({}), f"{bus}channels: {{}}")
    server.load()
    assert type(server.bus.engine) is Engine


@pytest.mark.parametrize(
    ("bus", "wrong"),
    [
        ("{engine: shelf}", "1:6: bus: the key 'key' is missing: what opens it"),
        ("{engine: shelf, kye: x, key: x}", "1:22: bus.kye: unknown key, did you mean 'key'?"),
        (
            "{engine: shelf, key: x, depth: 0}",
            "1:37: bus.depth: expected a number greater than 0, not 0",
        ),
        ("{engine: shelf, key: 7}", "1:27: bus.key: expected text (in quotes, if it looks like a number)"),
        ("{url: x}", "1:6: bus: the key 'engine' is missing: which one these settings are of, such as "),
        ("{engine: memory, url: x}", "1:23: bus.url: unknown key"),
        ("{engin: shelf}", "1:7: bus.engin: unknown key, did you mean 'engine'?"),
        (
            "{engine: memroy}",
            "1:15: bus.engine: there is no engine 'memroy', did you mean 'memory'?\n    se",
        ),
        (
            "{engine: shef}",
            "1:15: bus.engine: there is no engine 'shef', did you mean 'shelf'?\n    searched:",
        ),
        (
            "{engine: chat}",
            "1:15: bus.engine: the plugin 'chat' offers no engine of that name; it offers: none "
            "(a function register_engines, marked @hookimpl, returns them in a dict)",
        ),
        (
            "{engine: other}",
            "1:15: bus.engine: the plugin 'other' offers no engine of that name; it offers: rack",
        ),
    ],
)
async def test_engine_that_is_wrong(mistakes: Mistakes, bus: str, wrong: str) -> None:
    """Every mistake under ``bus`` is told in its place, with what could be meant."""
    files = {**shelf.FILES, "other.py": shelf.SOURCE.replace('"shelf"', '"rack"')}
    [said] = await mistakes(f"bus: {bus}\nchannels: {{}}", files)
    assert said.startswith(f"c.yaml:{wrong}")


async def test_engine_that_cannot_be_made(mistakes: Mistakes) -> None:
    """An engine whose constructor fails is told with its own lines."""
    files = {"shelf.py": shelf.SOURCE.replace("bus.diary = []", "raise ValueError('no shelf')")}
    [said] = await mistakes(f"{shelf.BUS}channels: {{}}", files)
    assert said.startswith(
        "c.yaml:1:15: bus.engine: the engine 'shelf' could not be made: ValueError: no shelf\n"
        "    plugins/shelf.py:"
    )


async def test_engine_without_its_extra(mistakes: Mistakes) -> None:
    """An engine that wants a package which an extra brings is told with that."""
    files = {"shelf.py": "raise ModuleNotFoundError(\"No module named 'hiredis'\", name='hiredis')"}
    [said] = await mistakes(f"{shelf.BUS}channels: {{}}", files)
    assert said.startswith(
        "c.yaml:1:15: bus.engine: shelf: ModuleNotFoundError: No module named 'hiredis'; "
        "pip install 'realtime-channels[redis]'\n"
    )


async def test_engine_as_a_channel(mistakes: Mistakes) -> None:
    """A channel whose plugin is an engine is told where that belongs."""
    [said] = await mistakes("channels: {a: {plugin: shelf, path: /a}}", shelf.FILES)
    assert "channels.a.plugin: the plugin 'shelf' is no channel: it belongs under bus:" in said


async def test_engine_of_a_name_that_is_taken(mistakes: Mistakes) -> None:
    """Who offers another ``memory`` is told that there is one."""
    files = {"one.py": shelf.SOURCE.replace('"shelf"', '"memory"')}
    [said] = await mistakes("plugins: [one]\nchannels: {}", files)
    assert "two plugins offer an engine 'memory': memory (built in) and one (plugins/one.py)" in said


# Routes


async def test_plugin_that_is_there_twice(mistakes: Mistakes) -> None:
    """A plugin stands once under ``plugins``: which settings were meant nobody could tell."""
    source = "from realtime import Model\nclass Plugin:\n    class Settings(Model):\n        a: int = 1\n"
    source += "    def __init__(self, settings):\n        pass\n"
    config = "plugins: [one, {plugin: one, a: 2}]\nchannels: {}\n"
    [said] = await mistakes(config, {"one.py": source})
    assert said.startswith("c.yaml:1:16: plugins[1]: the plugin 'one' is there already")


async def test_two_channels_on_one_path(mistakes: Mistakes) -> None:
    """Two channels on one path are both named, each with its place."""
    config = """
        channels:
          one: {plugin: echo, path: "/rooms/{room}"}
          two: {plugin: chat, path: "/rooms/{name}"}
    """
    [said] = await mistakes(config)
    where = (
        "is already served by channel 'one', as /rooms/{room} (c.yaml:3:29); give one of them another path"
    )
    assert said == f"c.yaml:4:29: channels.two.path: /rooms/{{name}} {where}"


RAW = """\
from aiohttp import web
from realtime import hookimpl

async def handle(request):
    return web.Response(text="raw")

@hookimpl
def register_routes(bus):
    return [web.get("{path}", handle)]
"""


async def test_raw_route(serve: Serve) -> None:
    """A plugin that is no channel may serve a URL of its own."""
    async with (
        serve("plugins: [raw]", {"raw.py": RAW.format(path="/raw")}) as serving,
        aiohttp.ClientSession() as session,
        session.get(serving.http("/raw")) as response,
    ):
        assert await response.text() == "raw"


async def test_raw_route_on_a_channels_path(mistakes: Mistakes) -> None:
    """A raw route and a channel on one path are both named."""
    config = """
        plugins: [raw]
        channels:
          echo: {plugin: echo, path: /ws}
    """
    [said] = await mistakes(config, {"raw.py": RAW.format(path="/ws")})
    where = "is already served by plugin 'raw' (c.yaml:2:11); give one of them another path"
    assert said == f"c.yaml:4:30: channels.echo.path: /ws {where}"


async def test_reserved_raw_route(mistakes: Mistakes) -> None:
    """A plugin cannot take what the server keeps for itself."""
    said = await mistakes("plugins: [raw]", {"raw.py": RAW.format(path="/-/live")})
    assert said == [
        "c.yaml:1:11: plugins[0]: plugin 'raw': /-/live: paths under /-/ are the server's own; "
        "choose another\n    plugins/raw.py:4: async def handle(request):"
    ]


async def test_raw_route_that_cannot_be_served(mistakes: Mistakes) -> None:
    """A path that the router does not take is told."""
    [said] = await mistakes("plugins: [raw]", {"raw.py": RAW.format(path="/{raw")})
    assert said.startswith("c.yaml:1:11: plugins[0]: plugin 'raw': '/{raw' cannot be served: ValueError: ")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("return 7", "register_routes(): TypeError: 'int' object is not iterable"),
        ("return [7]", "register_routes() returned 7, which is no web.RouteDef"),
        ("raise ValueError('no')", "raw: register_routes(): ValueError: no\n    plugins/raw.py:4: raise"),
        (
            "yield 1 / 0",
            "register_routes(): ZeroDivisionError: division by zero\n    plugins/raw.py:4: yield",
        ),
    ],
)
async def test_routes_that_are_none(mistakes: Mistakes, answer: str, message: str) -> None:
    """A plugin whose routes cannot be had is told in its place."""
    source = f"from realtime import hookimpl\n@hookimpl\ndef register_routes(bus):\n    {answer}\n"
    [said] = await mistakes("plugins: [raw]", {"raw.py": source})
    assert said.startswith(f"c.yaml:1:11: plugins[0]: plugin 'raw': {message}")


async def test_lifespan_that_cannot_begin(mistakes: Mistakes) -> None:
    """A channel whose lifespan fails at the start is told with its own lines."""
    body = "def lifespan(self):\n    pass"
    config = 'server: {listen: ["127.0.0.1:0"]}\nchannels: {a: {plugin: dice, path: /a}}'
    [said] = await mistakes(config, {"dice.py": channel_type(body=body)})
    where = "c.yaml:2:24: channels.a.plugin: channel 'a' of plugin 'dice'"
    assert said.startswith(f"{where}: its lifespan could not begin: TypeError")


# What a plugin raises


HOSTILE = """\
import asyncio
from pydantic import field_validator
from realtime import Channel, hookimpl


class Odd(BaseException):
    pass


class Mute(Exception):
    def __str__(self):
        raise ValueError


class Dice(Channel):
    class Settings(Channel.Settings):
        sides: int = 6

        @field_validator("sides")
        @classmethod
        def check(cls, value):
            {validator}
            return value

    def __init__(self, name, settings, bus):
        super().__init__(name, settings, bus)
        {init}

    def topic_options(self):
        {options}
        return super().topic_options()

    @hookimpl
    def register_routes(self, bus):
        {routes}
        return super().register_routes(bus)


{top}


@hookimpl
def register_channels():
    return {{"dice": Dice}}
"""
PLACES = ("validator", "init", "options", "routes", "top")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "raised",
    ["SystemExit(0)", "GeneratorExit()", "asyncio.CancelledError()", "Odd()", "Mute()", "KeyError(1)"],
)
async def test_whatever_a_plugin_raises(mistakes: Mistakes, place: str, raised: str) -> None:
    """Whatever a plugin raises, and wherever, is its mistake, and hides no other."""
    parts = dict.fromkeys(PLACES, "pass")
    parts[place] = f"raise {raised}"
    config = "channels:\n  a: {plugin: dice, path: /a, sides: 5}\n  b: {plugin: echo, path: /b, zebra: 1}\n"
    said = await mistakes(config, {"dice.py": HOSTILE.format(**parts)})
    assert len(said) == 2
    assert raised.partition("(")[0].rpartition(".")[2] in said[0]
    assert said[1] == "c.yaml:3:31: channels.b.zebra: unknown key"


async def test_module_that_hides_its_names(mistakes: Mistakes) -> None:
    """A module whose names cannot be asked for is told with its own lines."""
    [said] = await mistakes("plugins: [dice]\n", {"dice.py": "def __dir__():\n    return 1 / 0\n"})
    assert said.startswith("c.yaml:1:11: plugins[0]: dice: ZeroDivisionError: division by zero")


async def test_entry_that_may_not_be_looked_at(write: Write) -> None:
    """A directory among the plugins that cannot be read hides none of the others."""
    directory = write({"dice.py": channel_type(), "private/__init__.py": ""})
    (directory / "plugins" / "private").chmod(0)
    (directory / "plugins" / "loop").symlink_to("loop")
    assert "dice" in [found.name for found in Plugins(directory).found]


def test_file_with_a_hyphen(write: Write) -> None:
    """A file may be called as the config calls it, or with an underline."""
    assert Plugins(write({"my-dice.py": channel_type("my-dice")})).channel_type("my-dice")


async def test_switched_off_from_the_environment(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel that a variable switches off is as if it were not there, whatever else it says."""
    monkeypatch.setenv("DICE", "false")
    config = """
        channels:
          a: {plugin: nowhere, path: /a, enabled: "${DICE}"}
          b: {plugin: echo, path: /b}
    """
    async with serve(config) as serving:
        assert list(serving.server.channels) == ["b"]


async def test_name_of_a_plugin_from_the_environment(
    mistakes: Mistakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a variable brought is told as it is written."""
    monkeypatch.setenv("WHICH", "hunter2")
    [said] = await mistakes("plugins: ['${WHICH}']\n")
    assert said.startswith("c.yaml:1:11: plugins[0]: there is no plugin '${WHICH}'\n")


# Plugins with settings

GREETER = """
    from aiohttp import web
    from realtime import Model, hookimpl

    class Plugin:
        class Settings(Model):
            greeting: str = "hello"

        def __init__(self, settings):
            self.settings = settings

        @hookimpl
        def register_routes(self, bus):
            async def greet(request):
                return web.Response(text=self.settings.greeting)

            return [web.get("/greet", greet)]
"""


@pytest.mark.parametrize(
    ("entry", "greeting"),
    [("greeter", "hello"), ("{plugin: greeter}", "hello"), ("{plugin: greeter, greeting: hi}", "hi")],
)
async def test_plugin_with_settings(serve: Serve, entry: str, greeting: str) -> None:
    """A class ``Plugin`` is made with its settings, and its methods are the hooks."""
    async with serve(f"plugins: [{entry}]\nchannels: {{}}\n", {"greeter.py": GREETER}) as serving:
        assert (await ask(serving.port, "/greet"))[1] == greeting


@pytest.mark.parametrize(
    ("source", "entry", "says"),
    [
        (
            GREETER,
            "{plugin: greeter, greting: hi}",
            "plugins[0].greting: unknown key, did you mean 'greeting'?",
        ),
        (GREETER, "{plugin: greeter, greeting: 5}", "plugins[0].greeting: expected text, not 5"),
        (
            GREETER,
            "{greeting: hi}",
            "plugins[0]: expected the name of a plugin, or its settings with the key",
        ),
        (GREETER, "5", "plugins[0]: expected text, not 5"),
        ("X = 1", "{plugin: greeter, greeting: hi}", "plugins[0].greeting: unknown key"),
        (
            "class Plugin:\n    Settings = int",
            "greeter",
            "greeter: Plugin.Settings is no subclass of Model",
        ),
        (
            GREETER + "\n    @hookimpl\n    def authenticate(request): ...\n",
            "greeter",
            "greeter.authenticate is a hook beside the class Plugin, and would not be called",
        ),
    ],
)
async def test_mistake_in_the_settings_of_a_plugin(
    tmp_path: Path, source: str, entry: str, says: str
) -> None:
    """What is wrong with the settings of a plugin is told in its place."""
    with pytest.raises(ConfigError) as caught:
        await make(tmp_path, f"plugins: [{entry}]\nchannels: {{}}\n", {"greeter.py": source}).start()
    (problem,) = map(str, caught.value.problems)
    assert problem.startswith("config.yaml:2:")
    assert says in problem


async def test_plugin_that_wants_settings_says_so(tmp_path: Path) -> None:
    """A plugin that is named where it can have none, and wants some, says where they are to stand."""
    source = GREETER.replace(' = "hello"', "")
    with pytest.raises(ConfigError, match="it wants settings: let it stand under 'plugins'"):
        await make(tmp_path, "channels: {a: {plugin: greeter, path: /a}}\n", {"greeter.py": source}).start()
