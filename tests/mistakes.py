"""The mistakes of an author of plugins: what is written, what is said of it, and what to write instead.

``docs/mistakes.md`` has the same rows: a test compares them, and ``python tests/mistakes.py`` writes the
page. The line that a message is to name, in the
plugin or in the config, has the comment ``# here``. In what is said, ``…`` stands for anything.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

CONFIG = "channels:\n  table: {plugin: dice, path: /dice}\n"
ALONE = "plugins: [dice]\n"
TABLE = "channels:\n  table:\n    plugin: dice\n    path: /dice\n"
PYDANTIC = """
from typing import Annotated
from pydantic import AfterValidator, PositiveInt
from realtime import Duration
"""

#: What is done to a server with the plugin: it is started; a client connects by WebSocket, says ``x`` (and
#: leaves); there is a POST, or a GET; it is stopped.
Tried = Literal["start", "text", "leave", "post", "get", "stop"]


class Mistake(NamedTuple):
    """One row."""

    #: What was written, in words.
    what: str
    #: What is said: in an error at the start, in the log or in an answer. It has the remedy.
    says: str
    #: What to write instead.
    write: str
    #: The file ``plugins/dice.py``.
    source: str
    tried: Tried = "start"
    config: str = CONFIG
    path: str = "/dice"
    #: Other files in ``plugins/``.
    files: Mapping[str, str] = {}


def dice(body: str, *, top: str = "") -> str:
    """A plugin whose channel type has this body."""
    lines = textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")
    return f"{head(top)}class Dice(Channel):\n{lines}\n\n\n{OFFER}"


def hook(source: str) -> str:
    """A plugin that is no channel."""
    return head(source)


def head(source: str) -> str:
    """The imports, and what follows them."""
    return f"{IMPORTS}\n\n{textwrap.dedent(source).strip()}\n\n\n"


ENGINE = "bus:\n  engine: dice\nchannels: {}\n"


def engine(body: str) -> str:
    """A plugin whose engine has this body."""
    lines = textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")
    source = f"from realtime import Engine\n\n\nclass Dice(Engine):\n{lines}\n\n\n"
    return head(f"{source}@hookimpl\ndef register_engines():\n    return {{'dice': Dice}}")


IMPORTS = """\
import asyncio
import time
from contextlib import asynccontextmanager, contextmanager

from aiohttp import web
from realtime import Channel, Identity, Model, Rejected, hookimpl"""
OFFER = """\
@hookimpl
def register_channels():
    return {"dice": Dice}
"""
SERVICES = "@hookimpl\ndef register_services(bus):{here}\n    return {answer}\n"
ROUTES = """
async def roll(request):{handler}
    {does}

@hookimpl
def register_routes(bus):{here}
    return {answer}
"""


def services(answer: str, top: str, here: str = "  # here") -> str:
    """A plugin with services."""
    return hook(textwrap.dedent(top).strip() + "\n\n" + SERVICES.format(answer=answer, here=here))


def routes(answer: str, *, handler: str = "", here: str = "", does: str = "return web.Response()") -> str:
    """A plugin with routes; one of the lines has the mark."""
    return hook(ROUTES.format(answer=answer, handler=handler, here=here, does=does))


GROUPS: dict[str, list[Mistake]] = {
    "The plugin is not loaded": [
        Mistake(
            "another name in the config than the plugin has",
            "there is no plugin 'dise', did you mean 'dice'?",
            "the name of the file, of the package or of the entry point; the message has all that there are",
            dice("pass"),
            config="channels:\n  table:\n    plugin: dise  # here\n    path: /dice\n",
        ),
        Mistake(
            "a package of your own that is not installed",
            "there is no plugin 'rolls': …pyproject.toml offers it, and is not installed: "
            "python -m pip install -e …",
            "install it where the server runs; with `-e` it is what you edit",
            dice("pass"),
            config="plugins: [dice]\nchannels:\n  table:\n    plugin: rolls  # here\n    path: /dice\n",
            files={"../pyproject.toml": "[project.entry-points.realtime]\nrolls = 'rolls'\n"},
        ),
        Mistake(
            "an import of a name that `realtime` does not have",
            "dice: ImportError: cannot import name 'Chanel' from 'realtime' …, did you mean 'Channel'?",
            "a name of the reference; what is not exported is the server's own",
            "from realtime import Chanel  # here\n",
        ),
        Mistake(
            "an import of what is not installed",
            "No module named 'no_such_dice'; is it installed? python -m pip install no_such_dice",
            "install it where the server runs, and name it in the package's `dependencies`",
            "import no_such_dice  # here\n",
        ),
        Mistake(
            "an import of the file next to it as if it were installed",
            "No module named 'faces'; it stands beside the plugin: from . import faces",
            "`from . import faces`",
            "import faces  # here\n",
            files={"faces.py": "SIDES = 6\n"},
        ),
        Mistake(
            "two files that import each other",
            "(most likely due to a circular import) …; two files import each other: "
            "move what both need into a third, or import it inside a function",
            "a third file for what both need",
            "from .faces import SIDES  # here\nNAME = 'dice'\n",
            files={"faces.py": "from .dice import NAME\nSIDES = 6\n"},
        ),
        Mistake(
            "something that is no Python",
            "dice: SyntaxError: expected ':'",
            "what Python says",
            "class Dice  # here\n    pass\n",
        ),
        Mistake(
            "an `API_VERSION` that the server does not have",
            "dice is written for API version 2 of Realtime, which is 1 here; "
            "install a release of one that is for the other",
            "`API_VERSION = 1`, or a release of the server that has the other",
            f"API_VERSION = 2  # here\n{dice('pass')}",
        ),
        Mistake(
            "an `API_VERSION` that is a text",
            "dice: API_VERSION is the text '1' and is to be a number: write API_VERSION = 1",
            "`API_VERSION = 1`, without quotes",
            f"API_VERSION = '1'  # here\n{dice('pass')}",
        ),
        Mistake(
            "`sys.exit` while it is imported",
            "dice: SystemExit: no dice; a plugin may not end the process: raise an error that says what is wrong",
            '`raise RuntimeError("no dice")`',
            'import sys\nsys.exit("no dice")  # here\n',
        ),
        Mistake(
            "`asyncio.run` while it is imported",
            "asyncio.run() cannot be called from a running event loop; the server runs an event loop already: "
            "await it in a method, or in lifespan()",
            "`await` it in `lifespan`",
            "import asyncio\nasyncio.run(asyncio.sleep(0))  # here\n",
        ),
        Mistake(
            "no `register_channels`",
            "the plugin 'dice' offers no channel type of that name; it offers: none "
            "(a function register_channels, marked @hookimpl, returns them in a dict)",
            "`register_channels`, marked, with the class in a `dict`",
            head("class Dice(Channel):\n    pass"),
            config="channels:\n  table: {plugin: dice, path: /dice}  # here\n",
        ),
        Mistake(
            "a channel type of another name than the plugin's",
            "the plugin 'dice' offers no channel type of that name; it offers: cubes",
            "the name of the plugin as one of the keys",
            head("class Dice(Channel):\n    pass")
            + '@hookimpl\ndef register_channels():  # here\n    return {"cubes": Dice}\n',
        ),
        Mistake(
            "a channel type of a name that another plugin has offered",
            "two plugins offer a channel type 'dice': other (…other.py) and dice (…dice.py); "
            "rename it in one of them",
            "a name of its own",
            dice("pass"),
            config="plugins: [other, dice]  # here\n",
            files={"other.py": dice("pass")},
        ),
    ],
    "Hooks": [
        Mistake(
            "a hook misspelt",
            "dice.register_chanels is no hook, did you mean 'register_channels'?",
            "the name of a hook",
            hook("@hookimpl\ndef register_chanels():  # here\n    return {}"),
        ),
        Mistake(
            "a hook without its mark",
            "dice.register_channels has the name of a hook but is not marked @hookimpl; "
            "put @hookimpl above it (from realtime import hookimpl)",
            "`@hookimpl` above it",
            hook("def register_channels():  # here\n    return {}"),
        ),
        Mistake(
            "a hook with the mark of another project",
            "dice.register_channels has the name of a hook but is not marked @hookimpl; "
            "its mark is one of 'dice': from realtime import hookimpl",
            "`from realtime import hookimpl`",
            'import pluggy\nhookimpl = pluggy.HookimplMarker("dice")\n'
            "@hookimpl\ndef register_channels():  # here\n    return {}\n",
        ),
        Mistake(
            "an `async def` hook",
            "dice.register_services is an 'async def', but this hook returns objects, not awaitables; "
            "write 'def', and await in the methods of what it returns",
            "`def`; only `authenticate` may be either",
            hook("@hookimpl\nasync def register_services(bus):  # here\n    return []"),
            config=ALONE,
        ),
        Mistake(
            "an argument that the hook does not have",
            "dice.register_routes takes 'buss', which this hook does not have, did you mean 'bus'?",
            "the arguments of the hook, by their names, or fewer",
            hook("@hookimpl\ndef register_routes(buss):  # here\n    return []"),
            config=ALONE,
        ),
        Mistake(
            "`register_channels` that returns a list",
            "dice: register_channels() returned [<class …Dice'>], not a dict of channel types: "
            'return {"dice": …} with the class',
            '`return {"dice": Dice}`',
            dice("pass").replace('{"dice": Dice}', "[Dice]").replace("channels():", "channels():  # here"),
        ),
        Mistake(
            "`register_channels` without `return`",
            "dice: register_channels() returned None, not a dict of channel types: "
            'return {"dice": …} with the class',
            '`return {"dice": Dice}`',
            hook("@hookimpl\ndef register_channels():  # here\n    {}"),
        ),
        Mistake(
            "a class that is no channel",
            "offered as 'dice', is no subclass of Channel: write class Dice(Channel)",
            "`class Dice(Channel):`",
            head("class Dice:  # here\n    pass") + OFFER,
        ),
        Mistake(
            "an instance instead of the class",
            "dice: register_channels(): TypeError: Channel.__init__() missing 3 required positional arguments: "
            "'name', 'settings', and 'bus'; the host makes channels: offer the class, not an instance",
            "`Dice`, not `Dice()`",
            dice("pass").replace("Dice}", "Dice()}  # here"),
        ),
        Mistake(
            "a method of a channel marked as a hook",
            "dice: Dice.on_message is no hook; a method of a channel is not marked",
            "no mark: only hooks have one",
            dice("@hookimpl\nasync def on_message(self, client, message):  # here\n    pass"),
        ),
        Mistake(
            "`register_routes` overridden in a channel, without its mark",
            "dice: Dice.register_routes has the name of a hook but is not marked @hookimpl; "
            "put @hookimpl above it",
            "`@hookimpl` above it again",
            dice("def register_routes(self, bus):  # here\n    return []"),
        ),
        Mistake(
            "a hook beside the class `Plugin`",
            "dice.register_routes is a hook beside the class Plugin, and would not be called: "
            "make it a method of that",
            "a method of `Plugin`",
            hook("class Plugin:\n    pass\n\n@hookimpl\ndef register_routes(bus):  # here\n    return []"),
            config=ALONE,
        ),
        Mistake(
            "a class `Plugin` without `__init__`",
            "dice: Plugin has no __init__: write def __init__(self, settings)",
            "`def __init__(self, settings):`",
            hook("class Plugin:  # here\n    class Settings(Model):\n        sides: int = 6"),
            config=ALONE,
        ),
        Mistake(
            "an `__init__` of `Plugin` that takes no settings",
            "dice: Plugin.__init__ takes (self), and is called with (settings): too many positional arguments; "
            "write (self, settings)",
            "`def __init__(self, settings):`",
            hook("class Plugin:\n    def __init__(self):  # here\n        pass"),
            config=ALONE,
        ),
        Mistake(
            "settings of `Plugin` that are no model",
            "dice: Plugin.Settings is no subclass of Model: write class Settings(Model)",
            "`class Settings(Model):`",
            hook("class Plugin:\n    class Settings:  # here\n        sides = 6"),
            config=ALONE,
        ),
    ],
    "Engines": [
        Mistake(
            "another name under `bus` than the plugin of the engine has",
            "there is no engine 'dise', did you mean 'dice'?",
            "the name of the plugin, or of an engine of one under `plugins`; the message has all that there are",
            engine("pass"),
            config=ENGINE.replace("dice", "dise  # here"),
        ),
        Mistake(
            "a plugin under `bus` that offers no engine of its name",
            "the plugin 'dice' offers no engine of that name; it offers: none "
            "(a function register_engines, marked @hookimpl, returns them in a dict)",
            "`register_engines`, marked, with the class in a `dict`",
            dice("pass"),
            config=ENGINE.replace("dice", "dice  # here"),
        ),
        Mistake(
            "an engine as the plugin of a channel",
            "the plugin 'dice' is no channel: it belongs under bus:",
            "`engine: dice` under `bus`",
            engine("pass"),
            config=TABLE.replace("plugin: dice", "plugin: dice  # here"),
        ),
        Mistake(
            "a class that is no engine",
            "offered as 'dice', is no subclass of Engine: write class Dice(Engine)",
            "`class Dice(Engine):`",
            engine("pass").replace("Dice(Engine):", "Dice:  # here"),
            config=ENGINE,
        ),
        Mistake(
            "a plain `def` where the bus awaits",
            "dice: Dice.publish must be an 'async def'",
            "`async def publish(self, topic, message, once=None):`",
            engine("def publish(self, topic, message, once=None):  # here\n    ..."),
            config=ENGINE,
        ),
        Mistake(
            "an `__init__` of an engine that does not call that of `Engine`",
            "the engine 'dice' could not be made: __init__ is to begin with super().__init__(settings, bus)",
            "`super().__init__(settings, bus)` first",
            engine("def __init__(self, settings, bus):  # here\n    ..."),
            config=ENGINE,
        ),
        Mistake(
            "an engine that raises when it begins",
            "engine 'dice' of plugin 'dice': its lifespan could not begin: LookupError: no dice",
            "`raise StartError(sentence)` for what is not there yet; else what the error says",
            engine(
                """
                @asynccontextmanager
                async def lifespan(self):
                    raise LookupError("no dice")  # here
                    yield
                """
            ),
            config=ENGINE,
        ),
    ],
    "The class of a channel": [
        Mistake(
            "a plain `def` where the server awaits",
            "dice: Dice.on_message must be an 'async def'",
            "`async def on_message(self, client, message):`",
            dice("def on_message(self, client, message):  # here\n    pass"),
        ),
        Mistake(
            "a method misspelt",
            "dice: Dice.on_messages is no method of a channel, did you mean 'on_message'?",
            "`on_message`",
            dice("async def on_messages(self, client, message):  # here\n    pass"),
        ),
        Mistake(
            "a method of another framework",
            "dice: Dice.on_disconnect is no method of a channel, did you mean 'on_leave'?",
            "`on_leave`",
            dice("async def on_disconnect(self, client):  # here\n    pass"),
        ),
        Mistake(
            "too few arguments",
            "dice: Dice.on_connect takes (self), and is called with (client): "
            "too many positional arguments; write (self, client)",
            "the arguments of the reference; their names are yours",
            dice("async def on_connect(self):  # here\n    pass"),
        ),
        Mistake(
            "too many arguments",
            "dice: Dice.on_leave takes (self, client, code), and is called with (client): "
            "missing a required argument: 'code'; write (self, client)",
            "the arguments of the reference, or a default",
            dice("async def on_leave(self, client, code):  # here\n    pass"),
        ),
        Mistake(
            "`self` forgotten",
            "dice: Dice.on_message takes (client, message), and is called with (client, message): "
            "too many positional arguments; write (self, client, message)",
            "`self` first",
            dice("async def on_message(client, message):  # here\n    pass"),
        ),
        Mistake(
            "an `async def as_text`",
            "dice: Dice.as_text must be a plain 'def'",
            "`def as_text(self, message):`; what it needs is in the message, or at hand",
            dice("async def as_text(self, message):  # here\n    return 'x'"),
        ),
        Mistake(
            "an `async def member`",
            "dice: Dice.member must be a plain 'def'",
            "`def member(self, client):`; what it tells is found out in `on_join`",
            dice("async def member(self, client):  # here\n    return {}"),
        ),
        Mistake(
            "an `async def __init__`",
            "dice: Dice.__init__ must be a plain 'def': what it awaits belongs into lifespan()",
            "`def __init__`, and `lifespan` for what is awaited",
            dice("async def __init__(self, name, settings, bus):  # here\n    pass"),
        ),
        Mistake(
            "an `__init__` with arguments of its own",
            "dice: Dice.__init__ takes (self, sides), and is called with (name, settings, bus): "
            "too many positional arguments; write (self, name, settings, bus)",
            "`def __init__(self, name, settings, bus):`; what is its own stands in `Settings`",
            dice("def __init__(self, sides):  # here\n    self.sides = sides"),
        ),
        Mistake(
            "an `__init__` that does not call that of `Channel`",
            "the channel type 'dice' could not be made: "
            "__init__ is to begin with super().__init__(name, settings, bus)",
            "`super().__init__(name, settings, bus)` first",
            dice("def __init__(self, name, settings, bus):  # here\n    self.rolls = 0"),
        ),
        Mistake(
            "an `__init__` that raises",
            "the channel type 'dice' could not be made: FileNotFoundError: … 'faces.txt'",
            "what the error says: the lines below it are the plugin's",
            dice(
                "def __init__(self, name, settings, bus):\n    super().__init__(name, settings, bus)\n"
                "    self.faces = open('faces.txt').read()  # here"
            ),
        ),
        Mistake(
            "an attribute that the server has already",
            "the channel type 'dice' could not be made: AttributeError: property 'clients' of 'Dice' object "
            "has no setter; 'clients' is the host's own: give yours another name",
            "another name; `self.clients` is who is here",
            dice(
                "def __init__(self, name, settings, bus):\n    super().__init__(name, settings, bus)\n"
                "    self.clients = {}  # here"
            ),
        ),
        Mistake(
            "a method that the server has already",
            "dice: Dice.left is the host's own in every channel: give yours another name",
            "another name",
            dice("def left(self, client):  # here\n    pass"),
        ),
        Mistake(
            "`transports` as a text",
            "dice: Dice.transports is a text, and is to be a tuple: transports = ('websocket',)",
            '`transports = ("websocket",)`, with the comma',
            dice('transports = ("websocket")  # here'),
        ),
        Mistake(
            "a transport that there is not",
            "dice: Dice.transports has 'websockets', did you mean 'websocket'?; "
            "there are websocket, sse, ndjson, json, post",
            "one of those in the message",
            dice('transports = ("websockets", "sse")  # here'),
        ),
        Mistake(
            "a page that there is not",
            "dice: Dice.page is 'dice.js', and there is no …dice.js; write it there, or leave page out",
            "an ES module of this name beside the plugin's own",
            dice('page = "dice.js"  # here'),
        ),
        Mistake(
            "a page in another directory, or none that is a module",
            "dice: Dice.page is 'web/dice.html', and is to be the name of a file beside the plugin's own: "
            "page = 'chat.js'",
            'the module beside it, `page = "dice.js"`',
            dice('page = "web/dice.html"  # here'),
        ),
    ],
    "Settings": [
        Mistake(
            "`Settings` that is no subclass of `Channel.Settings`",
            "dice: Dice.Settings is no subclass of Channel.Settings: write class Settings(Channel.Settings)",
            "`class Settings(Channel.Settings):`",
            dice("class Settings(Model):  # here\n    sides: int = 6"),
        ),
        Mistake(
            "a setting that every channel has already",
            "dice: Dice.Settings.path is a key of every channel, which the host reads: give yours another name",
            "another name",
            dice("class Settings(Channel.Settings):\n    path: int = 6  # here"),
        ),
        Mistake(
            "a setting without a type",
            "dice: PydanticUserError: the setting 'sides' has no type: write sides: TYPE = 6",
            "`sides: int = 6`",
            dice("class Settings(Channel.Settings):  # here\n    sides = 6"),
        ),
        Mistake(
            "a setting of a type that no config can have",
            "dice: PydanticSchemaGenerationError: Unable to generate pydantic-core schema for "
            "<class 'random.Random'>…; a setting is of a type that YAML has; what it stands for is made in __init__",
            "a type that YAML has; make of it what you need in `__init__`",
            dice("class Settings(Channel.Settings):  # here\n    luck: random.Random", top="import random"),
        ),
        Mistake(
            "a section whose class is pydantic's, and not the server's",
            "dice: Dice.Settings.faces would take any key in a Face: write class Face(Model), of realtime",
            "`class Face(Model)`: a section that knows its keys and converts nothing",
            dice(
                "class Settings(Channel.Settings):\n    faces: list[Face] = []",
                top="from pydantic import BaseModel\n\nclass Face(BaseModel):  # here\n    name: str",
            ),
        ),
        Mistake(
            "the default of a duration as a config would have it",
            "dice: Dice.Settings.pause: '30s' is how a config has it; a default is what that means: 30.0",
            "`pause: Duration = 30.0`: a `Duration` is a number of seconds, a `Size` one of bytes",
            dice("class Settings(Channel.Settings):\n    pause: Duration = '30s'  # here", top=PYDANTIC),
        ),
        Mistake(
            "a default beyond the bounds of its setting",
            "dice: Dice.Settings.sides: its default is refused: expected a number greater than 0, not 0",
            "a default that the config could have, too",
            dice("class Settings(Channel.Settings):\n    sides: PositiveInt = 0  # here", top=PYDANTIC),
        ),
        Mistake(
            "a default for a key of every channel that it does not take",
            "dice: Dice.Settings.overflow: its default is refused: expected 'disconnect', 'skip' or 'latest', "
            "not 'skp', did you mean 'skip'?",
            '`overflow: Overflow = "skip"`, and `mypy` tells it, too',
            dice("class Settings(Channel.Settings):\n    overflow: str = 'skp'  # here"),
        ),
        Mistake(
            "a required setting that the config does not have",
            "channels.table: the key 'sides' is missing: how many sides it has",
            "the key, or a default in `Settings`; its docstring stands in the message",
            dice('class Settings(Channel.Settings):\n    sides: int\n    """how many sides it has"""'),
            config="channels:\n  table:\n    plugin: dice  # here\n    path: /dice\n",
        ),
        Mistake(
            "a key in the config that the settings do not have",
            "channels.table.side: unknown key, did you mean 'sides'?",
            "the key that it has",
            dice("class Settings(Channel.Settings):\n    sides: int = 6"),
            config=TABLE + "    side: 6  # here\n",
        ),
        Mistake(
            "a value of the wrong type",
            "channels.table.sides: expected a whole number, not 'six'",
            "a value of the type: nothing is converted",
            dice("class Settings(Channel.Settings):\n    sides: int = 6"),
            config=TABLE + "    sides: six  # here\n",
        ),
        Mistake(
            "a value beyond the bounds of the setting",
            "channels.table.sides: expected a number greater than 0, not -6",
            "a value within the bounds",
            dice("class Settings(Channel.Settings):\n    sides: PositiveInt = 6", top=PYDANTIC),
            config=TABLE + "    sides: -6  # here\n",
        ),
        Mistake(
            "a text that YAML takes for a comment",
            "channels.table.colors[0]: expected text, but nothing is there; '#ff0000' begins a comment: "
            "put the text in quotes",
            '`"#ff0000"`',
            dice("class Settings(Channel.Settings):\n    colors: list[str] = []"),
            config=TABLE + "    colors:\n      - #ff0000  # here\n",
        ),
        Mistake(
            "one text where a list is wanted",
            "channels.table.colors: expected a list, not '#ff0000': write ['#ff0000']",
            "what the message says: it has the quotes that YAML needs",
            dice("class Settings(Channel.Settings):\n    colors: list[str] = []"),
            config=TABLE + "    colors: '#ff0000'  # here\n",
        ),
        Mistake(
            "a validator that raises another error than `ValueError`",
            "channels.table: a validator of the channel type 'dice' is to raise ValueError, and raised another: "
            "KeyError: 'red'",
            '`raise ValueError("expected blue")`',
            dice(
                "class Settings(Channel.Settings):\n    color: Annotated[str, AfterValidator(known)] = 'blue'",
                top=PYDANTIC + "\ndef known(color):\n    return {'blue': color}[color]  # here\n",
            ),
            config=TABLE + "    color: red\n",
        ),
        Mistake(
            "a plugin that wants settings and has none",
            "plugins[0]: the key 'sides' is missing",
            "`{plugin: dice, sides: 6}`",
            hook(
                "class Plugin:\n    class Settings(Model):\n        sides: int\n\n"
                "    def __init__(self, settings):\n        pass"
            ),
            config="plugins: [dice]  # here\n",
        ),
        Mistake(
            "a setting misspelt where it is used",
            "a bug of plugin 'dice' closes <Client …>, did you mean 'sides'?…AttributeError: 'Settings' object has no attribute 'side'",
            "the name of the field",
            dice(
                "class Settings(Channel.Settings):\n    sides: int = 6\n\n"
                "async def on_message(self, client, message):\n"
                "    await client.send(self.settings.side)  # here"
            ),
            "text",
        ),
    ],
    "Lifespan and services": [
        Mistake(
            "`lifespan` without its mark",
            "dice: Dice.lifespan is not marked: put @asynccontextmanager above it",
            "`@asynccontextmanager` above it",
            dice("async def lifespan(self):  # here\n    yield"),
        ),
        Mistake(
            "`lifespan` without a `yield`",
            "dice: Dice.lifespan never yields: it is to be an 'async def' that yields once, "
            "marked @asynccontextmanager",
            "`yield` where the channel is ready; what goes on beside it is a task of a `TaskGroup`",
            dice("@asynccontextmanager\nasync def lifespan(self):  # here\n    await asyncio.sleep(0)"),
        ),
        Mistake(
            "a `lifespan` that is not asynchronous",
            "dice: Dice.lifespan must be an 'async def', marked @asynccontextmanager",
            "`@asynccontextmanager` and `async def`",
            dice("@contextmanager\ndef lifespan(self):  # here\n    yield"),
        ),
        Mistake(
            "a `lifespan` that returns nothing",
            "channel 'table' of plugin 'dice': its lifespan could not begin: TypeError: 'NoneType' object does not support the "
            "asynchronous context manager protocol; it is to be an 'async def' that yields once, "
            "marked @asynccontextmanager",
            "`@asynccontextmanager` and `async def`, with a `yield`",
            dice("def lifespan(self):  # here\n    pass"),
        ),
        Mistake(
            "a `lifespan` that raises before it yields",
            "channel 'table' of plugin 'dice': its lifespan could not begin: LookupError: no dice",
            "what the error says; what may fail for a while is tried again in a task",
            dice(
                "@asynccontextmanager\nasync def lifespan(self):\n"
                "    raise LookupError('no dice')  # here\n    yield"
            ),
        ),
        Mistake(
            "a `lifespan` that does not get to its `yield`",
            "channel 'table' of plugin 'dice': its lifespan could not begin: RuntimeError: generator didn't yield; "
            "what is marked @asynccontextmanager yields once, on every way",
            "a `yield` on every way through it",
            dice(
                "@asynccontextmanager\nasync def lifespan(self):  # here\n"
                "    if self.settings.history:\n        yield"
            ),
        ),
        Mistake(
            "a `lifespan` that yields twice",
            "the lifespan of channel:table failed; what is marked @asynccontextmanager yields once, not twice; "
            "it is of plugin 'dice', in …dice.py:",
            "one `yield`; a loop is a task of a `TaskGroup`",
            dice(
                "@asynccontextmanager\nasync def lifespan(self):  # here\n    for _ in range(2):\n        yield"
            ),
            "stop",
        ),
        Mistake(
            "a task of `lifespan` that ends with an error",
            "the lifespan of channel:table failed; a task that fails ends its TaskGroup: catch in it what it can go on after, "
            "and it is no longer healthy; it is of plugin 'dice', in …dice.py:",
            "a task that catches what it can go on after",
            dice(
                "@asynccontextmanager\nasync def lifespan(self):\n"
                "    async with asyncio.TaskGroup() as tasks:\n"
                "        tasks.create_task(self.roll())\n        yield\n\n"
                "async def roll(self):\n    await asyncio.sleep(0)\n    raise LookupError('no dice')  # here"
            ),
            "text",
        ),
        Mistake(
            "`register_services` that returns one instead of a list",
            "plugin 'dice': its lifespan could not begin: TypeError: '_AsyncGeneratorContextManager' object is not iterable; "
            "return a list of them",
            "`return [rolling(bus)]`",
            services("rolling()", "@asynccontextmanager\nasync def rolling():\n    yield"),
            config=ALONE,
        ),
        Mistake(
            "a service that is not asynchronous",
            "plugin 'dice': its lifespan could not begin: TypeError: '_GeneratorContextManager' object does not "
            "support the asynchronous context manager protocol; it is to be an 'async def' that yields once, "
            "marked @asynccontextmanager",
            "`@asynccontextmanager` and `async def`",
            services("[rolling()]", "@contextmanager\ndef rolling():\n    yield"),
            config=ALONE,
        ),
        Mistake(
            "a service without its mark",
            "plugin 'dice': its lifespan could not begin: TypeError: 'async_generator' object does not support "
            "the asynchronous context manager protocol; it is to be an 'async def' that yields once, "
            "marked @asynccontextmanager",
            "`@asynccontextmanager` above it",
            services("[rolling()]", "async def rolling():\n    yield"),
            config=ALONE,
        ),
        Mistake(
            "`register_services` that raises",
            "dice: register_services(): LookupError: no dice",
            "what the error says; what is awaited or may fail belongs into the service",
            services("[{}['no dice']]", "", "")
            .replace("{}['no dice']]", "no_dice()]  # here")
            .replace("@hookimpl", "def no_dice():\n    raise LookupError('no dice')\n\n\n@hookimpl"),
            config=ALONE,
        ),
    ],
    "Routes": [
        Mistake(
            "a path that is served already",
            "channels.table.path: /dice is already served by plugin 'other' (…); give one of them another path",
            "another path",
            dice("pass"),
            config="plugins: [other]\nchannels:\n  table: {plugin: dice, path: /dice}  # here\n",
            files={"other.py": routes('[web.get("/dice", roll)]')},
        ),
        Mistake(
            "a route of a channel type that two channels serve at one path",
            "channels.other.path: /summary is already served by channel 'table' (…); a route of plugin 'dice' "
            'belongs below the channel\'s own path, as in f"{self.settings.path}/summary"',
            '`f"{self.settings.path}/summary"`',
            dice(
                """
                @hookimpl
                def register_routes(self, bus):
                    return [*super().register_routes(bus), web.get("/summary", self.summary)]

                async def summary(self, request):  # here
                    return web.Response()
                """
            ),
            config=CONFIG + "  other: {plugin: dice, path: /other}\n",
        ),
        Mistake(
            "a path of the server's own",
            "plugin 'dice': /-/roll: paths under /-/ are the server's own; choose another",
            "another path",
            routes('[web.get("/-/roll", roll)]', handler="  # here"),
            config=ALONE,
        ),
        Mistake(
            "a path without its slash",
            "plugin 'dice': 'roll' cannot be served: a path begins with a slash: write '/roll'",
            "`/roll`",
            routes('[web.get("roll", roll)]', handler="  # here"),
            config=ALONE,
        ),
        Mistake(
            "a handler where a route is wanted",
            "plugin 'dice': register_routes() returned <function roll at …>, which is no web.RouteDef: "
            "return a list of web.get(path, handler)",
            '`return [web.get("/roll", roll)]`',
            routes("[roll]", here="  # here"),
            config=ALONE,
        ),
        Mistake(
            "one route instead of a list",
            "plugin 'dice': register_routes(): TypeError: 'RouteDef' object is not iterable; "
            "return a list of them: [web.get(path, handler)]",
            '`return [web.get("/roll", roll)]`',
            routes('web.get("/roll", roll)', here="  # here"),
            config=ALONE,
        ),
        Mistake(
            "a handler that is a plain `def`",
            "plugin 'dice': /roll: its handler must be an 'async def'",
            "`async def roll(request):`",
            routes('[web.get("/roll", roll)]', handler="  # here").replace("async def roll", "def roll"),
            config=ALONE,
        ),
        Mistake(
            "a handler that returns nothing",
            "TypeError: the handler of /roll returned None: return a web.Response; in …dice.py:…in a route of plugin:dice",
            "`return web.Response(text=…)`",
            routes('[web.get("/roll", roll)]', handler="  # here", does="web.Response()"),
            "get",
            ALONE,
            "/roll",
        ),
        Mistake(
            "a handler that raises",
            "Error handling request from …LookupError: no dice…in a route of plugin:dice",
            "what the error says; `raise web.HTTPBadRequest(text=…)` for what is the client's mistake",
            routes('[web.get("/roll", roll)]', does='raise LookupError("no dice")  # here'),
            "get",
            ALONE,
            "/roll",
        ),
    ],
    "Methods, while the server runs": [
        Mistake(
            "an `on_connect` that raises",
            "a bug of plugin 'dice' closes <Client …>…LookupError: no dice",
            "what the error says; `raise Rejected(…)` to send a client away",
            dice("async def on_connect(self, client):\n    raise LookupError('no dice')  # here"),
            "text",
        ),
        Mistake(
            "an `on_join` that raises",
            "a bug of plugin 'dice' closes <Client …>…LookupError: no dice",
            "what the error says",
            dice("async def on_join(self, client):\n    raise LookupError('no dice')  # here"),
            "text",
        ),
        Mistake(
            "an `on_message` that raises",
            "a bug of plugin 'dice' fails <Client …>: the channel has a bug…ValueError: invalid literal for int()",
            "what the error says; `raise Rejected(…)` for what is the client's mistake",
            dice("async def on_message(self, client, message):\n    int(message.data)  # here"),
            "post",
        ),
        Mistake(
            "aiohttp's errors in a method of a channel",
            "a bug of plugin 'dice' fails <Client …>: the channel has a bug; a client is refused by raise Rejected(sentence, 409)"
            "…HTTPConflict: Conflict",
            '`raise Rejected("somebody was faster", 409)`; `web.HTTPConflict` is for handlers of routes',
            dice("async def on_message(self, client, message):\n    raise web.HTTPConflict  # here"),
            "post",
        ),
        Mistake(
            "`raise Rejected` without a sentence",
            "a bug of plugin 'dice' closes <Client …>; the client is told why: raise Rejected(sentence, status)…"
            "TypeError: Rejected.__init__() missing 1 required positional argument: 'sentence'",
            '`raise Rejected("it is not your turn")`',
            dice("async def on_message(self, client, message):\n    raise Rejected  # here"),
            "text",
        ),
        Mistake(
            "an `on_leave` that raises",
            "a bug of plugin 'dice' fails on_leave of <Client …>…LookupError: no dice",
            "what the error says",
            dice("async def on_leave(self, client):\n    raise LookupError('no dice')  # here"),
            "leave",
        ),
        Mistake(
            "what `on_connect` sets, used for a client that it was not called for",
            "client.state has what was put there: set score in on_connect or on_join, for each transport; "
            "else getattr(client.state, 'score', None)",
            "`client.state.score = 0` in `on_connect`, and `getattr` where a POST comes by",
            dice("async def on_message(self, client, message):\n    client.state.score += 1  # here"),
            "post",
        ),
        Mistake(
            "a message that is changed",
            "a bug of plugin 'dice' closes <Client …>; a message cannot be changed: publish another",
            "`await self.publish(client.topic, …)` with what it is to be",
            dice("async def on_message(self, client, message):\n    message.data = 'six'  # here"),
            "text",
        ),
        Mistake(
            "an attribute misspelt",
            "a bug of plugin 'dice' closes <Client …>, did you mean 'topic'?…AttributeError: 'Client' object has no attribute 'topc'",
            "the name that the reference has",
            dice("async def on_message(self, client, message):\n    client.topc  # here"),
            "text",
        ),
        Mistake(
            "`sys.exit` in a method",
            "a bug of plugin 'dice' closes <Client …>; a plugin may not end the process: "
            "raise an error that says what is wrong",
            "an error; who runs the server ends it",
            dice("async def on_message(self, client, message):\n    raise SystemExit  # here"),
            "text",
        ),
        Mistake(
            "`as_text` that returns no text",
            "a bug of plugin 'dice': as_text failed, the message is not shown; "
            "it returns a str, or None for nothing, in …dice.py:",
            "a `str`, or `None`",
            dice(
                "async def on_message(self, client, message):\n    await client.send('six')\n\n"
                "def as_text(self, message):  # here\n    return 6"
            ),
            "text",
        ),
        Mistake(
            "`as_text` that raises",
            "a bug of plugin 'dice': as_text failed, the message is not shown; …LookupError: no dice",
            "what the error says: it is asked about every message, of every event",
            dice(
                "async def on_message(self, client, message):\n    await client.send('six')\n\n"
                "def as_text(self, message):\n    raise LookupError('no dice')  # here"
            ),
            "text",
        ),
        Mistake(
            "`member` that returns no `dict`",
            "TypeError: member() returned 'alice'; it is to return a dict or None; in …dice.py:",
            '`return {"name": "alice"}`, or `None`',
            dice("def member(self, client):  # here\n    return 'alice'"),
            "text",
            "channels:\n  table: {plugin: dice, path: /dice, presence: list}\n",
        ),
        Mistake(
            "`member` that returns what is no JSON",
            "a bug of plugin 'dice' closes <Client …>; JSON has dict with str keys, list, str, numbers, true, false and null…"
            "ValueError: member() returned what is no JSON: …set…; in …dice.py:",
            "what JSON has: lists instead of sets, texts instead of objects",
            dice("def member(self, client):  # here\n    return {'rolls': {1, 2}}"),
            "text",
            "channels:\n  table: {plugin: dice, path: /dice, presence: list}\n",
        ),
        Mistake(
            "what blocks: `time.sleep`, `requests`, a database",
            "the event loop was held for …s by channel 'table', plugin 'dice', in …dice.py:…; "
            "what blocks belongs into await asyncio.to_thread(…)",
            "`await asyncio.to_thread(…)`, or a library for asyncio",
            dice("async def on_message(self, client, message):\n    time.sleep(0.1)  # here"),
            "text",
            "server: {listen: ['127.0.0.1:0'], watchdog: 20ms}\n" + CONFIG,
        ),
        Mistake(
            "a method that does not end",
            "on_message of <Client …> did not end within 0.05s (handler_timeout) and is cancelled, "
            "in …dice.py:…; plugin 'dice': what takes longer belongs into a task of lifespan()",
            "a time-out around what it waits for; what goes on for long in a task of `lifespan`",
            dice("async def on_message(self, client, message):\n    await asyncio.Event().wait()  # here"),
            "text",
            "channels:\n  table: {plugin: dice, path: /dice, handler_timeout: 50ms}\n",
        ),
        Mistake(
            "an error in a task that nobody waits for",
            "Task exception was never retrieved in 'dice'; await it, or start it in an asyncio.TaskGroup "
            "in lifespan()",
            "`tasks.create_task(…)` of a `TaskGroup` in `lifespan`",
            dice(
                "async def on_message(self, client, message):\n    asyncio.create_task(self.roll())\n"
                "    await asyncio.sleep(0)\n\nasync def roll(self):\n"
                "    raise LookupError('no dice')  # here"
            ),
            "text",
        ),
        Mistake(
            "`receive` in `on_message`, where a POST comes by",
            "plugin 'dice' waits for more of a POST, which says one thing: ask client.transport, or leave 'post' "
            "out of its transports, in …dice.py:",
            '`transports = ("websocket", …)` without `"post"`',
            dice("async def on_message(self, client, message):\n    await client.receive()  # here"),
            "post",
        ),
        Mistake(
            "`receive` in two places at once",
            "RuntimeError: somebody else is receiving from this client already: one can at a time",
            "`on_message` for all that it says; `receive` in `on_connect`",
            dice(
                "async def on_message(self, client, message):\n"
                "    await asyncio.gather(client.receive(), client.receive())  # here"
            ),
            "text",
        ),
        Mistake(
            "an `except Exception` that catches `Disconnected`",
            "what <Client …> had begun did not end within …s of its leaving and is cancelled, "
            "in …dice.py:…: let Disconnected out of plugin 'dice'",
            "`except` with the errors that you mean; `Disconnected` ends the method",
            dice(
                """
                async def on_message(self, client, message):
                    while True:
                        try:
                            await client.receive()  # here
                        except Exception:
                            pass
                """
            ),
            "leave",
        ),
    ],
    "What is to be awaited": [
        Mistake(
            "`client.send` without `await`",
            "RuntimeWarning: coroutine 'Client.send' was never awaited: write 'await' before the call in 'dice'",
            "`await client.send(…)`",
            dice("async def on_message(self, client, message):\n    client.send('six')  # here"),
            "text",
        ),
        Mistake(
            "`self.publish` without `await`",
            "RuntimeWarning: coroutine 'Channel.publish' was never awaited: write 'await' before the call in 'dice'",
            "`await self.publish(…)`",
            dice(
                "async def on_message(self, client, message):\n    self.publish(client.topic, 'six')  # here"
            ),
            "text",
        ),
        Mistake(
            "`client.close` without `await`",
            "RuntimeWarning: coroutine 'Client.close' was never awaited: write 'await' before the call in 'dice'",
            "`await client.close(…)`",
            dice("async def on_join(self, client):\n    client.close()  # here"),
            "text",
        ),
        Mistake(
            "`self.kick` without `await`",
            "RuntimeWarning: coroutine 'Channel.kick' was never awaited: write 'await' before the call in 'dice'",
            "`await self.kick(…)`",
            dice("async def on_join(self, client):\n    self.kick(client.topic, id=client.id)  # here"),
            "text",
        ),
        Mistake(
            "`client.receive` without `await`",
            "a bug of plugin 'dice' closes <Client …>; an 'await' is missing before a call: "
            "publish, send, receive, close, ping and kick are awaited",
            "`(await client.receive()).data`",
            dice("async def on_connect(self, client):\n    client.name = client.receive().data  # here"),
            "text",
        ),
        Mistake(
            "`return self.publish(…)` without `await`",
            "TypeError: on_message returned the coroutine 'Channel.publish', which is no Position: "
            "write 'return await …'; in …dice.py:",
            "`return await self.publish(…)`",
            dice(
                "async def on_message(self, client, message):  # here\n"
                "    return self.publish(client.topic, 'six')"
            ),
            "text",
        ),
        Mistake(
            "what is not awaited, published",
            "a bug of plugin 'dice' closes <Client …>; an 'await' is missing before a call: "
            "publish, send, receive, close, ping and kick are awaited…"
            "ValueError: this data is no JSON: Type is not JSON serializable: coroutine",
            "`await` it first",
            dice(
                "async def on_message(self, client, message):\n"
                "    await self.publish(client.topic, [self.roll()])  # here\n\n"
                "async def roll(self):\n    return 6"
            ),
            "text",
        ),
        Mistake(
            "`on_message` that returns something else than a position",
            "TypeError: on_message returned 'six', which is no Position: return what publish() returned, or None; "
            "in …dice.py:",
            '`await client.send("six")` to answer; a position, or nothing, to return',
            dice("async def on_message(self, client, message):  # here\n    return 'six'"),
            "post",
        ),
    ],
    "Publishing and sending": [
        Mistake(
            "a topic that no channel has",
            "UnknownTopic: no channel declares the topic 'tabel', did you mean 'table'?",
            "`client.topic`, or `self.name` and what follows it",
            dice(
                "async def on_message(self, client, message):\n    await self.publish('tabel', 6)  # here"
            ),
            "text",
        ),
        Mistake(
            "data that is no JSON",
            "a bug of plugin 'dice' closes <Client …>; JSON has dict with str keys, list, "
            "str, numbers, true, false and null…ValueError: this data is no JSON: "
            "Type is not JSON serializable: set",
            'a list; `model_dump(mode="json")` of a pydantic model',
            dice("async def on_message(self, client, message):\n    await client.send({6})  # here"),
            "text",
        ),
        Mistake(
            "a long name of an event",
            "is no event name: 1 to 255 bytes of printable characters",
            "a short name; what is long belongs into the data",
            dice(
                "async def on_message(self, client, message):\n    await client.send(6, event='roll' * 99)  # here"
            ),
            "text",
        ),
        Mistake(
            "an event of the server's own",
            "an event that begins with realtime: is the server's to send",
            "a name of your own",
            dice(
                "async def on_message(self, client, message):\n"
                "    await self.publish(client.topic, 6, event='realtime:roll')  # here"
            ),
            "text",
        ),
        Mistake(
            "`publish` in a thread",
            "BusError: publish() was called from another thread; use bus.publish_threadsafe() there",
            "`self.bus.publish_threadsafe(…)`",
            dice(
                "async def on_message(self, client, message):\n    await asyncio.to_thread(self.roll)\n\n"
                "def roll(self):\n    asyncio.run(self.publish('table', 6))  # here"
            ),
            "text",
        ),
        Mistake(
            "`client.send` in a thread",
            "RuntimeError: client.send() was called from another thread; there it is "
            "asyncio.run_coroutine_threadsafe(client.send(), loop)",
            "`asyncio.run_coroutine_threadsafe(client.send(…), loop)`",
            dice(
                "async def on_message(self, client, message):\n    await asyncio.to_thread(self.roll, client)\n\n"
                "def roll(self, client):\n    asyncio.run(client.send(6))  # here"
            ),
            "text",
        ),
        Mistake(
            "a close code that there is not",
            "ValueError: 6 is no close code that may be sent (RFC 6455, section 7.4): "
            "take one of CloseCode, or 4000 to 4999",
            "`CloseCode.POLICY`, or a code of your own from 4000 to 4999",
            dice("async def on_message(self, client, message):\n    await client.close(6)  # here"),
            "text",
        ),
        Mistake(
            "the reason where the close code stands",
            "ValueError: 'bye' is no close code that may be sent (RFC 6455, section 7.4): "
            "take one of CloseCode, or 4000 to 4999",
            '`await client.close(reason="bye")`',
            dice("async def on_message(self, client, message):\n    await client.close('bye')  # here"),
            "text",
        ),
        Mistake(
            "a subscription that is read without `async with`",
            "RuntimeError: a subscription is read inside 'async with bus.subscribe(…) as messages'",
            "`async with bus.subscribe(topic) as messages:`, and the loop in it",
            dice(
                "async def on_message(self, client, message):\n"
                "    async for other in self.bus.subscribe('table'):  # here\n        pass"
            ),
            "text",
        ),
    ],
    "Who may come in": [
        Mistake(
            "`authenticate` that returns a name",
            "authenticate of plugin 'dice' failed; the request is refused…TypeError: it answered 'alice', "
            "which is no Identity: return Identity(name=…) or None; in …dice.py:",
            '`return Identity(name="alice")`',
            dice("pass") + "\n\n@hookimpl\ndef authenticate(request):  # here\n    return 'alice'\n",
            "get",
        ),
        Mistake(
            "`authenticate` that raises",
            "authenticate of plugin 'dice' failed; the request is refused…KeyError: 'token'",
            "`request.query.get(…)`; `raise web.HTTPUnauthorized` to refuse",
            dice("pass")
            + "\n\n@hookimpl\ndef authenticate(request):\n    request.query['token']  # here\n",
            "get",
        ),
        Mistake(
            "`authorize` that returns something else than a `bool`",
            "authorize of plugin 'dice' failed; what was asked for is denied…TypeError: it answered 'yes'; "
            "it is to be True, False or None; in …dice.py:",
            "`True`, `False`, or `None` for no opinion",
            dice("pass") + "\n\n@hookimpl\ndef authorize(identity):  # here\n    return 'yes'\n",
            "get",
        ),
        Mistake(
            "`authorize` that raises",
            "authorize of plugin 'dice' failed; what was asked for is denied; the identity is None for whom nobody "
            "knows…AttributeError: 'NoneType' object has no attribute 'name'",
            "`identity is None` is who has not said who it is",
            dice("pass")
            + "\n\n@hookimpl\ndef authorize(identity):\n    return identity.name == 'alice'  # here\n",
            "get",
        ),
    ],
}

MISTAKES = [mistake for group in GROUPS.values() for mistake in group]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "mistakes.md"


def page() -> str:
    """What the page is to be: its introduction as it is, and a table for each group."""
    parts = [PAGE.read_text().partition("\n## ")[0].rstrip()]
    for title, group in GROUPS.items():
        rows = [f"| {_code(one.says)} | {one.what} | {one.write} |" for one in group]
        parts.append(
            "\n".join([f"## {title}", "", "| you see | what was written | write |", "|---|---|---|", *rows])
        )
    return "\n\n".join(parts) + "\n"


def _code(text: str) -> str:
    """A text as code; a text that has a backtick stands in two."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


if __name__ == "__main__":  # write the page anew
    PAGE.write_text(page())
