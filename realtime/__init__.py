"""Realtime: a realtime server declared in YAML and extended in Python.

What a plugin or an application may use is exported here, and nothing else is promised. The names
are imported when they are first used, so that ``python -m realtime --help`` need not load a web server.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from realtime.version import API_VERSION, __version__

if TYPE_CHECKING:
    from realtime.bus import Bus as Bus
    from realtime.bus import Subscription as Subscription
    from realtime.channel import Channel as Channel
    from realtime.channel import Client as Client
    from realtime.channel import Presence as Presence
    from realtime.client import Backoff as Backoff
    from realtime.client import Connection as Connection
    from realtime.client import connect as connect
    from realtime.close_codes import CloseCode as CloseCode
    from realtime.config import Duration as Duration
    from realtime.config import Secret as Secret
    from realtime.config import Size as Size
    from realtime.errors import BusError as BusError
    from realtime.errors import Closed as Closed
    from realtime.errors import ConfigError as ConfigError
    from realtime.errors import Disconnected as Disconnected
    from realtime.errors import NotConnected as NotConnected
    from realtime.errors import RealtimeError as RealtimeError
    from realtime.errors import Refused as Refused
    from realtime.errors import Rejected as Rejected
    from realtime.errors import StartError as StartError
    from realtime.errors import TooManyTopics as TooManyTopics
    from realtime.errors import Unconfirmed as Unconfirmed
    from realtime.errors import UnknownTopic as UnknownTopic
    from realtime.hookspecs import hookimpl as hookimpl
    from realtime.message import Message as Message
    from realtime.message import Position as Position
    from realtime.message import Since as Since
    from realtime.permissions import Allow as Allow
    from realtime.permissions import Identity as Identity
    from realtime.permissions import Permission as Permission
    from realtime.server import Server as Server
    from realtime.topic import Topic as Topic

_EXPORTS = {
    "bus": "Bus Subscription",
    "channel": "Channel Client Presence",
    "client": "Backoff Connection connect",
    "close_codes": "CloseCode",
    "config": "Duration Secret Size",
    "errors": "BusError Closed ConfigError Disconnected NotConnected RealtimeError Refused Rejected "
    "StartError TooManyTopics Unconfirmed UnknownTopic",
    "hookspecs": "hookimpl",
    "message": "Message Position Since",
    "permissions": "Allow Identity Permission",
    "server": "Server",
    "topic": "Topic",
}
_HOME = {name: module for module, names in _EXPORTS.items() for name in names.split()}

__all__ = ["API_VERSION", "__version__", *_HOME]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'realtime' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"realtime.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
