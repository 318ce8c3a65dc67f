"""Realtime inside somebody's aiohttp application."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import yaml
from aiohttp import web

from realtime.changes import Change
from realtime.config import Config, ServerSettings, load, parse
from realtime.errors import ConfigError, Problem
from realtime.server import Server
from realtime.sockets import tune
from realtime.source import Source

log = logging.getLogger("realtime.server")

#: Where the server of an application of :func:`create_app` is: ``app[realtime.SERVER].bus``.
SERVER = web.AppKey("SERVER", Server)

#: What of the ``server`` section is for whoever listens.
_NOT_OURS = {"listen", "tls", "socket_mode", "loop"}


def create_app(config: Config | Mapping[str, Any] | str | os.PathLike[str]) -> web.Application:
    """Realtime as an aiohttp application, to be added to another or run by itself.

    ``app.add_subapp("/rt", create_app("config.yaml"))`` serves each channel under ``/rt``;
    ``web.run_app(create_app("config.yaml"))`` nothing else. ``config`` is the path of a config file, a
    mapping of what one would say, or a :class:`realtime.config.Config`.

    Startup loads the plugins and begins their lifespans, shutdown closes every client with 1001 within
    ``server.drain``, cleanup gives everything back. The :class:`Server` is ``app[realtime.SERVER]``; its
    ``bus`` and ``channels`` are there from startup on. An application is started once.

    Raises :exc:`ConfigError` when the file cannot be read; whatever else is wrong with the config or its
    plugins is raised at once, as one :exc:`ConfigError`, by the startup.
    """
    config = _read(config)
    ignored = sorted(config.server.model_fields_set & _NOT_OURS)
    server = _Embedded(_without_listeners(config))
    app = server.application()
    app[SERVER] = server
    started = False

    async def running(_: web.Application) -> AsyncIterator[None]:
        nonlocal started
        if started:
            raise RuntimeError("this application has been started before; create_app makes another one")
        started = True
        if ignored:
            log.warning(
                "%s: %s not used, the application that Realtime is in listens",
                config.source.name,
                f"{', '.join(f'server.{key}' for key in ignored)} {'are' if ignored[1:] else 'is'}",
            )
        try:
            await server.begin()
            server.ready = True
            yield
        finally:
            await server.stop()

    async def shut_down(_: web.Application) -> None:
        await server.drain()

    app.cleanup_ctx.append(running)
    app.on_shutdown.append(shut_down)
    app.on_response_prepare.append(_tune)
    return app


class _Embedded(Server):
    def __getattr__(self, name: str) -> NoReturn:
        there = "once the application has started (a cleanup_ctx begins before that)"
        raise AttributeError(f"{name!r} of the server is there {there}")

    async def reload(self, config: Config, *, anew: bool = False) -> list[Change]:
        return await super().reload(_without_listeners(config), anew=anew)


def _without_listeners(config: Config) -> Config:
    """The same config, without what cannot be had: a certificate need not even be there."""
    unused = {key: ServerSettings.model_fields[key].get_default() for key in _NOT_OURS}
    return replace(config, server=config.server.model_copy(update=unused))


class _Mapping(Source):
    """What was never a text has no lines."""

    def _at(self, mark: yaml.Mark | None, message: str, path: str = "") -> Problem:
        return super()._at(None, message, path)


def _read(config: Config | Mapping[str, Any] | str | os.PathLike[str]) -> Config:
    if isinstance(config, Config):
        return config
    if isinstance(config, Mapping):
        try:
            text = yaml.safe_dump(dict(config), sort_keys=False)
        except yaml.YAMLError as error:
            wrong = f"this is nothing that a config file could say: {error.args[-1]!r}"
            raise ConfigError(Problem(wrong, "", "config")) from None
        return parse(text, _Mapping("config"))
    if isinstance(config, str) and "\n" in config:
        wrong = "this is the text of a config, and not its path: realtime.config.parse(text) reads it"
        raise ConfigError(Problem(wrong, "", "config"))
    return load(Path(config))


async def _tune(request: web.Request, response: web.StreamResponse) -> None:
    # The host's sockets are as aiohttp makes them.
    sock = request.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):  # its client has gone
            tune(sock)
