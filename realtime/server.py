"""The server: a config made into a running process, and an orderly end of it."""

from __future__ import annotations

import asyncio
import contextlib
import html
import inspect
import logging
import os
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from aiohttp import hdrs, web

from realtime import assets, auth, tls
from realtime.blame import not_the_plugins, own_frames
from realtime.buckets import Bucket, Rate
from realtime.bus import Bus
from realtime.channel import Channel
from realtime.checks import PluginProblem, line_of
from realtime.close_codes import CloseCode, retry_after
from realtime.config import Config
from realtime.door import Hosts, Http, TurnedAway, Waiting, last, well_formed
from realtime.errors import ConfigError, Problem
from realtime.lifespans import Lifespans
from realtime.loader import Plugins, build, guarded
from realtime.paths import is_reserved, route_pattern
from realtime.proxies import Proxies
from realtime.routing import Route, RouteTable, conflicts
from realtime.sockets import ACCEPTS, BACKLOG, address_of, bind, cannot_listen, descriptors
from realtime.transports.connections import Connections
from realtime.transports.endpoint import Endpoint
from realtime.transports.handshake import wants_websocket
from realtime.transports.takeover import cut
from realtime.values import Address
from realtime.watchdog import Watchdog

log = logging.getLogger("realtime.server")

#: How long a request that is neither a stream nor a POST may still take at the end, in seconds, twice.
SHUTDOWN = 1.0
#: Until when what may be done with ``server.drain``, in shares of it; the last is for the process.
LIFESPANS, CLIENTS, REQUESTS = 0.5, 0.75, 0.9


class Server:
    """A server made from a config: ``async with Server(config): ...``, or start() and stop().

    Nothing is global, so several can run in one process.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        #: Whether the sockets are bound, every lifespan has begun and no shutdown has.
        self.ready = False
        self.bus: Bus
        self.channels: dict[str, Channel] = {}
        #: What it listens on, with the ports that were chosen where the config says 0.
        self.addresses: list[Address] = []
        #: Who serves what; known once it is loaded.
        self.routes: list[Route] = []
        #: Every plugin that is registered, and where plugins are found; known once it is loaded.
        self.plugins: Plugins
        self.lifespans = Lifespans()
        #: What notices that the event loop is held; there from the start on, unless it is off.
        self.watchdog: Watchdog | None = None
        self._gate: auth.Gate
        self._connections: Connections
        self._descriptors: int
        self._telling: Bucket  # how often the log is told that somebody was turned away
        self._waiting: Waiting
        self._table = RouteTable()
        self._loaded = False
        self._tls: ssl.SSLContext | None = None
        self._runner: web.AppRunner | None = None
        self._listeners: list[asyncio.Server] = []
        self._files: list[str] = []

    def load(self) -> None:
        """Load the plugins and make the channels, in the running event loop.

        :meth:`start` does it; who wants to can do it before, for plugins may take their time.
        Raises :exc:`ConfigError` with all that is wrong with the config and its plugins.
        """
        limits, loop = self.config.server.limits, asyncio.get_running_loop()
        problems = list(self.config.source.problems)
        if not any(problem.path.startswith("server.tls") for problem in problems):
            self._tls, wrong = tls.context(self.config)
            problems.extend(wrong)
        self.bus = Bus(loop, topics=limits.topics, memory=limits.memory)
        self._descriptors = descriptors()
        waiting = min(limits.max_waiting, max(1, self._descriptors // 4))
        most = max(1, min(limits.max_clients, self._descriptors - waiting))
        self._connections = Connections(loop, limits.model_copy(update={"max_clients": most}))
        self._waiting = Waiting(waiting)
        self._telling = Bucket(Rate(1, 1), loop.time())
        self.plugins, self.channels, more = build(self.config, self.bus)
        tokens, wrong = auth.tokens(self.config)
        problems.extend(wrong)
        self._gate = auth.Gate(
            self.config,
            tokens,
            self._callers("authenticate"),
            self._callers("authorize"),
            self.bus,
        )
        self.routes = self._routes(problems)
        problems.extend(more)
        if problems:
            raise ConfigError(*problems)
        self._table.replace(self.routes)
        self._loaded = True

    async def start(self) -> None:
        """Load the plugins, bind, begin every lifespan, listen: in this order.

        Raises what :meth:`load` raises, and :exc:`StartError` when it cannot listen. Nothing is
        left running then.
        """
        if not self._loaded:
            self.load()
        settings = self.config.server
        if settings.watchdog:
            self.watchdog = Watchdog(asyncio.get_running_loop(), settings.watchdog, self.plugins.owner)
            self.watchdog.start()
        app = web.Application(middlewares=[well_formed])
        if settings.trusted_proxies:
            app.middlewares.append(Proxies(settings.trusted_proxies).middleware)
        if settings.hosts:
            app.middlewares.append(Hosts(settings.hosts, settings.url).middleware)
        app.router.register_resource(self._table)
        app.on_response_prepare.append(_last_touch)
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            handler_cancellation=True,
            shutdown_timeout=SHUTDOWN,
        )
        sockets: list[socket.socket] = []
        try:
            for address in settings.listen:
                bound = bind(address, settings.socket_mode)
                sockets.extend(bound)
                self._files.extend(filter(None, [address.path]))
                self.addresses.extend(map(address_of, bound))
            await self._runner.setup()
            await self._begin_lifespans()
            for sock in sockets:
                try:
                    await self._listen(sock)
                except OSError as error:  # somebody else began to listen since it was bound
                    raise cannot_listen(address_of(sock), error) from None
        except BaseException:
            await self.stop()
            for sock in sockets:
                sock.close()
            raise
        self.ready = True

    async def stop(self) -> None:
        """Stop accepting, let the lifespans say goodbye, close every client with 1001, end.

        Takes less than ``server.drain``: what has not gone by then is cut.
        """
        if not self._loaded:
            return
        self.ready = False
        now, drain = asyncio.get_running_loop().time, self.config.server.drain
        begun = now()
        self._connections.draining = True
        # On connections that are open already it says so, and closes them.
        refused = Route("server", web.route("*", "/{path:.*}", self._refuse))
        own = [route for route in self.routes if is_reserved(route.definition.path)]
        self._table.replace([*own, refused])
        while self._files:  # before it stops answering: from then on a file may be the next server's
            with contextlib.suppress(OSError):
                os.unlink(self._files.pop())
        for listener in self._listeners:
            listener.close()
        await self.lifespans.stop(LIFESPANS * drain)
        reason = "the server is shutting down, come back soon"
        left = begun + CLIENTS * drain - now()
        await self._connections.close_all(CloseCode.SHUTTING_DOWN, reason, max(left, 0.05))
        self._connections.heartbeat.stop()
        if self._runner is not None:
            http, transports = self._runner.server, []
            if http is not None:
                transports = [connection.transport for connection in http.connections]
                for connection in http.connections:
                    connection.close()  # at once where no request is under way, for which it would wait
                # Handlers that are left. aiohttp waits twice so long before it cuts them.
                left = begun + REQUESTS * drain - now()
                await http.shutdown(min(max(left, 0.1) / 2, SHUTDOWN))
            await self._runner.cleanup()
            for transport in filter(None, transports):
                cut(transport)  # over TLS a close waits for the client's answer
            await asyncio.sleep(0)  # the transports that were cut say so in the next turn
        self.bus.close()
        if self.watchdog is not None:
            self.watchdog.stop()

    @property
    def site(self) -> str:
        """The scheme, host and port of the server, for links; of a unix socket the path."""
        first = self.addresses[0]
        if self.config.server.url is not None:
            return self.config.server.url
        return f"{'https' if self._tls else 'http'}://{first}" if not first.path else f"{first} "

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    def _accept(self) -> asyncio.Protocol:
        """What speaks with whoever has just connected."""
        http, loop = self._runner.server if self._runner else None, asyncio.get_running_loop()
        # Without a descriptor it could not even be told, and the process could open no file.
        full = http is None or len(http.connections) + len(self._connections) >= self._descriptors
        if http is None or (full and not self._waiting.make_room()):
            if self._telling.take(loop.time()):
                log.warning(
                    "turned away: the process may have no more connections (ulimit -n, LimitNOFILE)"
                )
            return TurnedAway()
        return Http(http, self._waiting, loop, self._connections.patience)

    async def _listen(self, sock: socket.socket) -> None:
        """Accept connections, over TLS unless it is a unix socket."""
        # Not aiohttp's sites: these leave a client a whole minute for its handshake.
        loop, over_tls = asyncio.get_running_loop(), self._tls and sock.family != socket.AF_UNIX
        listener = await loop.create_server(
            self._accept,
            sock=sock,
            # Who makes room is gone two turns later: these must not take all that is spare meanwhile.
            backlog=max(1, min(ACCEPTS, self._descriptors // 8)),
            ssl=self._tls if over_tls else None,
            ssl_handshake_timeout=tls.HANDSHAKE if over_tls else None,
            ssl_shutdown_timeout=tls.SHUTDOWN if over_tls else None,
        )
        sock.listen(BACKLOG)
        self._listeners.append(listener)

    def _callers(self, hook: str) -> list[tuple[str, Callable[..., list[Any]]]]:
        return [(_spell(owner), caller) for owner, caller in self.plugins.callers(hook)]

    # Routes

    def _routes(self, problems: list[Problem]) -> list[Route]:
        """What every plugin and channel serves; what is wrong with it is added to the problems."""
        settings = self.config.server
        for channel in self.channels.values():
            channel.serve_with(
                Endpoint(
                    channel,
                    self._connections,
                    self._gate,
                    origins=settings.origins,
                    url=settings.url,
                ).handle
            )
        routes: list[Route] = []
        for owner in self.plugins.names():
            try:  # what is returned may be no list, or a generator that fails
                definitions = guarded("register_routes()", partial(self._routes_of, owner))
            except PluginProblem as problem:
                where = "" if "\n" in str(problem) else self._hook_of_routes(owner)
                problems.append(self._problem(owner, f"{problem}{where}"))
                continue
            for definition in definitions:
                if not isinstance(definition, web.RouteDef):
                    wrong = f"register_routes() returned {definition!r}, which is no web.RouteDef: "
                    wrong += f"return a list of web.get(path, handler){self._hook_of_routes(owner)}"
                    problems.append(self._problem(owner, wrong))
                elif wrong := _mistake_in(definition):
                    problems.append(self._problem(owner, wrong))
                else:
                    routes.append(Route(owner, definition))
        for first, second in conflicts(routes):
            path, other = self.path_of(second), self.path_of(first)
            taken = f"{path} is already served by {_spell(first.owner)}"
            spelled = f", as {other}" if other != path else ""
            place = self._problem(first.owner, "").place
            problems.append(
                self._problem(second.owner, f"{taken}{spelled} ({place}); give one of them another path")
            )
        if not any(route.definition.path == "/" for route in routes):
            routes.append(Route("server", web.get("/", self._front)))
        own = web.get("/-/live", self._live), web.get("/-/ready", self._ready), *assets.routes()
        return routes + [Route("server", definition) for definition in own]

    def _hook_of_routes(self, owner: str) -> str:
        return self.plugins.line_of_hook(owner, "register_routes")

    def _routes_of(self, owner: str) -> list[object]:
        return list(self.plugins.call(owner, "register_routes", bus=self.bus) or ())

    def path_of(self, route: Route) -> str:
        """The path as its owner wrote it."""
        kind, _, name = route.owner.partition(":")
        if kind == "channel" and route.definition.path == route_pattern(self.channels[name].settings.path):
            return self.channels[name].settings.path
        return route.definition.path

    def _problem(self, owner: str, message: str) -> Problem:
        kind, _, name = owner.partition(":")
        if kind == "channel":
            return self.config.source.problem(message, ("channels", name, "path"))
        where = ("plugins", self.config.plugins.index(name)) if name in self.config.plugins else ()
        return self.config.source.problem(f"{_spell(owner)}: {message}", where)

    async def _front(self, request: web.Request) -> web.Response:
        site = self.config.server.url or f"{request.scheme}://{request.host}"
        lines = [f"{name}: {channel.url_on(site)}" for name, channel in self.channels.items()]
        text = "\n".join(["Realtime serves these channels:", "", *lines, ""])
        if "text/html" not in request.headers.get(hdrs.ACCEPT, ""):
            return web.Response(text=text)
        # A browser asks for an icon unless the page has one, and shows an error for its 404.
        page = '<!doctype html><title>Realtime</title><link rel="icon" href="data:,"><pre>%s</pre>'
        return web.Response(text=page % html.escape(text), content_type="text/html")

    async def _live(self, request: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def _ready(self, request: web.Request) -> web.Response:
        reasons = [f"the lifespan of {_spell(owner)} has ended" for owner in self.lifespans.dead]
        if not self.ready:
            reasons.append("shutting down")
        return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    async def _refuse(self, request: web.Request) -> NoReturn:
        again = {hdrs.RETRY_AFTER: retry_after()}
        raise last(web.HTTPServiceUnavailable(text="the server is shutting down\n", headers=again))

    # Sockets and lifespans

    async def _begin_lifespans(self) -> None:
        for owner in self.plugins.names():
            try:
                if owner.startswith("channel:"):
                    managers = [self.channels[owner.partition(":")[2]].lifespan()]
                else:
                    managers = list(self.plugins.call(owner, "register_services", bus=self.bus) or ())
                for manager in managers:
                    await self.lifespans.start(owner, manager)
            except PluginProblem as problem:
                raise ConfigError(self._problem(owner, str(problem))) from None
            except BaseException as error:
                if not_the_plugins(error):
                    raise
                wrong = f"its lifespan could not begin: {own_frames(error)}"
                if "\n" not in wrong:  # Python's own errors of a context manager have no line of it
                    channel = self.channels.get(owner.removeprefix("channel:"))
                    of_plugin = self.plugins.line_of_hook(owner, "register_services")
                    wrong += line_of(type(channel), "lifespan") if channel else of_plugin
                raise ConfigError(self._problem(owner, f"{_spell(owner)}: {wrong}")) from None


def _mistake_in(definition: web.RouteDef) -> str:
    """Why a plugin's route cannot be served; nothing if it can."""
    if is_reserved(definition.path):
        where = line_of(definition.handler)
        return f"{definition.path}: paths under /-/ are the server's own; choose another{where}"
    handler = definition.handler
    if inspect.isfunction(handler) and not inspect.iscoroutinefunction(handler):
        return f"{definition.path}: its handler must be an 'async def'{line_of(handler)}"
    try:
        web.UrlDispatcher().add_routes([definition])
    except Exception as error:
        return f"{definition.path!r} cannot be served: {own_frames(error)}{line_of(definition.handler)}"
    return ""


async def _last_touch(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.popall(hdrs.SERVER, None)
    if response.status != 101 and wants_websocket(request):
        # What follows a handshake that was refused may be frames; it is never read as a request.
        response.force_close()
        response.headers[hdrs.CONNECTION] = "close"


def _spell(owner: str) -> str:
    """``channel:lobby`` as people read it."""
    kind, _, name = owner.partition(":")
    return f"{kind} {name!r}" if name else owner
