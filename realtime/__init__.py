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
    from realtime.changes import Change as Change, NeedsRestart as NeedsRestart
    from realtime.channel import (
        Channel as Channel,
        Client as Client,
        Limits as Limits,
        Presence as Presence,
    )
    from realtime.client import Backoff as Backoff, Connection as Connection, connect as connect
    from realtime.close_codes import CloseCode as CloseCode
    from realtime.embedding import SERVER as SERVER, create_app as create_app
    from realtime.engine import Engine as Engine, Holder as Holder, Once as Once
    from realtime.errors import (
        BusError as BusError,
        Closed as Closed,
        ConfigError as ConfigError,
        Disconnected as Disconnected,
        NotConnected as NotConnected,
        RealtimeError as RealtimeError,
        Refused as Refused,
        Rejected as Rejected,
        StartError as StartError,
        TooLarge as TooLarge,
        TooManyTopics as TooManyTopics,
        Unavailable as Unavailable,
        Unconfirmed as Unconfirmed,
        UnknownTopic as UnknownTopic,
    )
    from realtime.hookspecs import hookimpl as hookimpl
    from realtime.message import Message as Message, Position as Position, Since as Since
    from realtime.observing import Observation as Observation, Subscription as Subscription
    from realtime.permissions import Allow as Allow, Identity as Identity, Permission as Permission
    from realtime.proxies import is_local as is_local
    from realtime.server import Server as Server
    from realtime.topic import Overflow as Overflow, Topic as Topic
    from realtime.values import Duration as Duration, Model as Model, Secret as Secret, Size as Size

_EXPORTS = {
    "bus": "Bus",
    "changes": "Change NeedsRestart",
    "channel": "Channel Client Limits Presence",
    "client": "Backoff Connection connect",
    "close_codes": "CloseCode",
    "embedding": "SERVER create_app",
    "engine": "Engine Holder Once",
    "values": "Duration Model Secret Size",
    "errors": "BusError Closed ConfigError Disconnected NotConnected RealtimeError Refused Rejected "
    "StartError TooLarge TooManyTopics Unavailable Unconfirmed UnknownTopic",
    "hookspecs": "hookimpl",
    "message": "Message Position Since",
    "observing": "Observation Subscription",
    "proxies": "is_local",
    "permissions": "Allow Identity Permission",
    "server": "Server",
    "topic": "Overflow Topic",
}
_HOME = {name: module for module, names in _EXPORTS.items() for name in names.split()}

__all__ = ["API_VERSION", "__version__", *_HOME]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'realtime' has no attribute {name!r}")
    return globals().setdefault(name, getattr(importlib.import_module(f"realtime.{home}"), name))


def __dir__() -> list[str]:
    return sorted(__all__)
