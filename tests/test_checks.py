"""The checks of a plugin: what is told of its mistakes before it is used."""

from __future__ import annotations

import sys

import pytest
from test_loader import Install, Write, channel_type, install, problem, write

from realtime import hookspecs
from realtime.channel import Channel
from realtime.checks import HOOKS, PluginProblem
from realtime.loader import Plugins

__all__ = ["install", "write"]


def test_hooks_are_those_of_the_page() -> None:
    """The hooks that a plugin can implement are the functions of hookspecs.py."""
    assert set(HOOKS) == {
        name
        for name, value in vars(hookspecs).items()
        if getattr(value, "__module__", None) == hookspecs.__name__ and callable(value)
    }


HOOK = "from realtime import hookimpl\n\n"


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


def test_authenticate_may_be_async(write: Write) -> None:
    """The one hook that the host awaits may be an ``async def``."""
    source = HOOK + "@hookimpl\nasync def authenticate(request): ...\n"
    Plugins(write({"dice.py": source})).load("dice")


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
