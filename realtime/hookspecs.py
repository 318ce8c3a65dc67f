"""Every hook of Realtime, on one page.

A plugin is a module (one file beside the config, or an installed package's entry point) with
functions marked ``@hookimpl``. Hooks are synchronous and return objects; whatever is asynchronous
lives in the methods of those objects. The host calls one plugin at a time, in the order of the
config, so a plugin that raises takes nobody with it. Arguments are only ever added to a hook, and
a plugin names only those that it wants.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from aiohttp import web

    from realtime.bus import Bus
    from realtime.channel import Channel
    from realtime.engine import Engine
    from realtime.permissions import Action, Identity

#: The name of the plugin system, of the entry points' group, and of the markers.
PROJECT = "realtime"

hookspec = pluggy.HookspecMarker(PROJECT)
# A specification has no body, hence the ignores: it says what an implementation returns.

#: Marks a plugin's function or a channel's method as the implementation of the hook of its name.
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_channels() -> dict[str, type[Channel]]:  # type: ignore[empty-body]
    """Offer channel types: what ``plugin:`` in a channel's config can name, and its class."""


@hookspec
def register_engines() -> dict[str, type[Engine]]:  # type: ignore[empty-body]
    """Offer engines: what ``engine:`` under ``bus`` in the config can name, and its class.

    One is made for each server, with its settings, what ``Settings`` of its class makes of the other
    keys under ``bus``, and the bus.
    """


@hookspec
def register_routes(bus: Bus) -> Iterable[web.RouteDef]:  # type: ignore[empty-body]
    """Serve URLs. Every ``Channel`` implements this hook: its path, for all its transports.

    Whoever wants a raw aiohttp handler overrides it (marked ``@hookimpl`` again) or implements
    it in a plugin, and returns ``web.RouteDef`` objects such as ``web.get("/x", handler)``. Two
    plugins on one path are an error that names both; paths under ``/-/`` are the host's.
    """


@hookspec
def register_services(bus: Bus) -> Iterable[AbstractAsyncContextManager[object]]:  # type: ignore[empty-body]
    """Run something beside the channels: asynchronous context managers.

    Each is entered before the server is ready and left at shutdown while the streams are still
    open, both in one task of its own, so that a ``TaskGroup`` inside works. One that ends
    early is logged and turns ``/-/ready`` red.
    """


@hookspec
def authenticate(request: web.Request) -> Awaitable[Identity | None] | Identity | None:
    """Say who makes this request, or None for no opinion; the first answer counts.

    It may return an awaitable. Raise ``web.HTTPUnauthorized`` to refuse the request.
    """


@hookspec
def authorize(identity: Identity | None, action: Action, topic: str) -> bool | None:
    """Say whether somebody may ``subscribe``, ``publish`` or ``kick`` on a topic that ``allow`` permits.

    False denies, whatever others say; None is no opinion. It is asked when a client connects, and for
    every message; one that raises denies.
    """
