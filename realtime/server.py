"""The server: a config made into a running process, and an orderly end of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from functools import partial
from typing import Any, NoReturn

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from realtime import about, assets, front, tls
from realtime.assembly import Assembly, spell
from realtime.buckets import Bucket, Rate
from realtime.bus import Bus
from realtime.changes import Change, changes, check, fixed
from realtime.channel import Channel
from realtime.close_codes import CloseCode, retry_after
from realtime.config import Config, ServerLimits
from realtime.door import Hosts, Http, TurnedAway, Waiting, last, well_formed
from realtime.errors import ConfigError, StartError
from realtime.lifespans import Lifespans
from realtime.loader import Built, Plugins, build, building
from realtime.paths import is_reserved
from realtime.proxies import Proxies
from realtime.routing import Route, RouteTable
from realtime.sockets import ACCEPTS, BACKLOG, address_of, bind, cannot_listen, descriptors
from realtime.transports.connections import Connections
from realtime.transports.handshake import wants_websocket
from realtime.transports.takeover import cut
from realtime.values import Address
from realtime.watchdog import Watchdog
from realtime.watching import Watching

log = logging.getLogger("realtime.server")

#: How long a request that is neither a stream nor a POST may still take at the end, in seconds, twice.
SHUTDOWN = 1.0
#: Until when what may be done with ``server.drain``, in shares of it; the last is for the process.
LIFESPANS, CLIENTS, REQUESTS, ENGINE = 0.5, 0.75, 0.9, 0.94


class Server:
    """A server made from a config: ``async with Server(config): ...``, or start() and stop().

    Nothing is global, so several can run in one process.
    """

    def __init__(self, config: Config) -> None:
        #: What it was made from.
        self.config = config
        #: Whether the sockets are bound, every lifespan has begun and no shutdown has.
        self.ready = False
        #: The bus; there once it is loaded.
        self.bus: Bus
        #: Every connection; there once it is loaded.
        self.connections: Connections
        #: Everything that the config names; there once it is loaded, though something may be wrong with it.
        self.assembly: Assembly | None = None
        #: What it listens on, with the ports that were chosen where the config says 0.
        self.addresses: list[Address] = []
        #: Who serves what; known once it is loaded.
        self.routes: list[Route] = []
        self.lifespans = Lifespans()
        #: That of the bus's engine, which begins before all others and ends after them.
        self.engines = Lifespans()
        #: What notices that the event loop is held; there from the start on, unless it is off.
        self.watchdog: Watchdog | None = None
        #: What it counts, and who watches that; there once it is loaded.
        self.watching: Watching
        self._descriptors: int
        self._telling: Bucket  # how often the log is told that somebody was turned away
        self._waiting: Waiting
        self._table = RouteTable()
        self._around: list[Middleware] = []
        self._reloading = asyncio.Lock()
        self._reloads: dict[asyncio.Task[list[Change]], bool] = {}  # whether each has given way
        self._loaded = False
        self._runner: web.AppRunner | None = None
        self._listeners: list[asyncio.Server] = []
        self._files: list[str] = []

    def load(self) -> None:
        """Load the plugins and make the channels, in the running event loop.

        :meth:`start` does it; who wants to can do it before, for plugins may take their time.
        Raises :exc:`ConfigError` with all that is wrong with the config and its plugins.
        """
        limits, loop = self.config.server.limits, asyncio.get_running_loop()
        self.bus = Bus(loop, topics=limits.topics, memory=limits.memory)
        self._descriptors = descriptors()
        self.connections = Connections(loop, self._limits)
        self._waiting = Waiting(self._limits.max_waiting)
        self._telling = Bucket(Rate(1, 1), loop.time())
        self.watching = Watching(self)
        built, prefix = build(self.config, self.bus), self._table.prefix
        self.assembly = Assembly(self.config, self.bus, self.connections, built, prefix=prefix)
        if self.assembly.problems:
            raise ConfigError(*self.assembly.problems)
        self.bus.respond = self._respond
        for name, options in self.assembly.options.items():
            self.bus.declare(name, options)
        self.routes, dispatcher = self._prepare(self.assembly)
        self._table.use(dispatcher)
        self._guard()
        self._loaded = True

    @property
    def plugins(self) -> Plugins:
        """Every plugin that is registered, and where plugins are found; known once it is loaded."""
        assert self.assembly is not None
        return self.assembly.plugins

    @property
    def channels(self) -> dict[str, Channel]:
        """The channels by their names; known once it is loaded."""
        return self.assembly.channels if self.assembly else {}

    async def start(self) -> None:
        """Load the plugins, bind, begin every lifespan, listen: in this order.

        Raises what :meth:`load` raises, and :exc:`StartError` when it cannot listen. Nothing is
        left running then.
        """
        if not self._loaded:
            self.load()
        settings = self.config.server
        self._runner = web.AppRunner(
            self.application(),
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
            await self.begin()
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
        now, drain = asyncio.get_running_loop().time, self.config.server.drain
        begun = now()
        while self._files:  # before it stops answering: from then on a file may be the next server's
            with contextlib.suppress(OSError):
                os.unlink(self._files.pop())
        for listener in self._listeners:
            listener.close()
        if not self.connections.draining:
            await self.drain()
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
        await self.engines.stop(max(begun + ENGINE * drain - now(), 0.05))
        self.bus.close()
        await self.watching.stats.stop()
        if self.watchdog is not None:
            self.watchdog.stop()

    async def reload(self, config: Config, *, anew: bool = False) -> list[Change]:
        """Go by another config from now on: whole, or not at all.

        Clients of channels that stay as they are notice nothing; those of channels that are made again,
        and those whom other rules concern now, are closed with 1012 and come back. Returns what becomes of
        each channel, when all of it is done. Files of plugins that have changed are imported again, with
        ``anew`` installed packages too.

        Raises :exc:`ConfigError` with all that is wrong with it, and :exc:`NeedsRestart`, one of them, for
        what only another process can have; then everything goes on as it was. So it does when this is
        cancelled, unless the server goes by the new config already: then the rest is still done.
        """
        if not self._loaded or self.connections.draining:
            raise StartError("only a server that runs can be reloaded")
        task = asyncio.create_task(self._reload(config, anew), name="reload")
        self._reloads[task] = False
        task.add_done_callback(self._reloads.pop)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise StartError("the server is shutting down") from None
            if not self._reloads.get(task):
                task.cancel()
                await asyncio.wait([task])
            raise

    async def _reload(self, config: Config, anew: bool) -> list[Change]:
        async with self._reloading:
            before = self.assembly
            assert before is not None
            after = await self._build(config, before, anew)
            fresh = [owner for owner in after.owners if not after.has(owner, before)]
            gone = [owner for owner in before.owners if not after.has(owner, before)]
            leaving = self.lifespans.of(gone)
            topics = after.channels.keys() - before.channels.keys()
            try:
                check([*after.problems, *fixed(before.config, config)])
                for name in topics:
                    self.bus.declare(name, after.options[name])
                await after.begin(self.lifespans, fresh)
                told = changes(before, after, self.connections)
                routes, dispatcher = self._prepare(after)
            except BaseException:
                begun = [one for one in self.lifespans.of(fresh) if one not in leaving]
                await self.lifespans.leave(begun, LIFESPANS * self.config.server.drain)
                for name in topics:
                    self.bus.forget(name)
                after.plugins.modules.undo()
                raise
            self._give_way(after)
            self.routes = routes
            self._table.use(dispatcher)
            if (task := asyncio.current_task()) is not None:
                self._reloads[task] = True
            grace = self.config.server.drain
            ended = [old for name, old in before.channels.items() if after.channels.get(name) is not old]
            ends = {client: change.end for change in told for client in change.clients}
            await self.connections.close_some(ends, ended, (CLIENTS - LIFESPANS) * grace)
            await self.lifespans.leave(leaving, LIFESPANS * grace)
            for name in before.channels.keys() - after.channels.keys():
                self.bus.forget(name)
            after.plugins.settle()
            return told

    async def _build(self, config: Config, before: Assembly, anew: bool) -> Assembly:
        """What a config makes, step by step: clients have their turn in between."""
        built = Built(Plugins(config.directory, before.plugins, anew=anew), {}, {}, {}, [])
        try:
            for _ in building(config, self.bus, built, before.keeps):
                await asyncio.sleep(0)
            prefix = self._table.prefix
            return Assembly(config, self.bus, self.connections, built, before, prefix=prefix)
        except BaseException:
            built.plugins.modules.undo()
            raise

    def _give_way(self, after: Assembly) -> None:
        """Go by it; nothing of this waits, and nothing is to fail."""
        before, self.assembly, self.config = self.assembly, after, after.config
        assert before is not None
        settings = self.config.server
        self.bus.limit(settings.limits.topics, settings.limits.memory)
        self.connections.limit(self._limits)
        self._waiting.most = self._limits.max_waiting
        for name, options in after.options.items():
            self.bus.declare(name, options)
        after.take_over()
        self.watching.take_over()
        self._guard()
        if settings.watchdog != before.config.server.watchdog:
            self._watch()

    # What start() and stop() do beside sockets, for who has sockets of its own

    def application(self) -> web.Application:
        """What answers every request, once it is loaded; others may have it as a sub-application."""
        app = web.Application(middlewares=[well_formed, self._middleware])
        app.router.register_resource(self._table)
        app.on_response_prepare.append(_last_touch)
        return app

    async def begin(self) -> None:
        """Load the plugins, unless it is done, and begin every lifespan. Raises :exc:`ConfigError`."""
        if not self._loaded:
            self.load()
        assert self.assembly is not None
        self._watch()
        self.watching.stats.start()
        await self.assembly.begin(self.engines, [f"engine:{self.config.bus.engine}"])
        self.connections.node = self.bus.engine.node and f"{self.bus.engine.node}."
        await self.assembly.begin(self.lifespans, self.assembly.owners)

    def _watch(self) -> None:
        if self.watchdog is not None:
            self.watchdog.stop()
            self.watchdog = None
        if limit := self.config.server.watchdog:
            owner = lambda module: self.plugins.modules.owner(module)  # noqa: E731
            self.watchdog = Watchdog(asyncio.get_running_loop(), limit, owner)
            self.watchdog.start()

    async def drain(self) -> None:
        """Refuse what still comes, let the lifespans say goodbye, close every client with 1001."""
        self.ready = False
        now, drain = asyncio.get_running_loop().time, self.config.server.drain
        begun = now()
        self.connections.draining = True
        reloads = list(self._reloads)
        for task in reloads:  # what they have begun is ended like the rest
            task.cancel()
        # On connections that are open already it says so, and closes them.
        refused = Route("server", web.route("*", "/{path:.*}", self._refuse))
        own = [route for route in self.routes if is_reserved(route.definition.path)]
        self._table.replace([*own, refused])
        await self.lifespans.stop(LIFESPANS * drain)
        reason = "the server is shutting down, come back soon"
        left = begun + CLIENTS * drain - now()
        await self.connections.close_all(CloseCode.SHUTTING_DOWN, reason, max(left, 0.05))
        self.connections.heartbeat.stop()
        if reloads:
            await asyncio.wait(reloads, timeout=SHUTDOWN)

    @property
    def site(self) -> str:
        """The scheme, host and port of the server, for links; of a unix socket the path."""
        first = self.addresses[0]
        if self.config.server.url is not None:
            return self.config.server.url
        return f"{'https' if self._tls else 'http'}://{first}" if not first.path else f"{first} "

    @property
    def _tls(self) -> ssl.SSLContext | None:
        return self.assembly.tls if self.assembly else None

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    def _accept(self) -> asyncio.Protocol:
        """What speaks with whoever has just connected."""
        http, loop = self._runner.server if self._runner else None, asyncio.get_running_loop()
        # Without a descriptor it could not even be told, and the process could open no file.
        full = http is None or len(http.connections) + len(self.connections) >= self._descriptors
        if http is None or (full and not self._waiting.make_room()):
            if self._telling.take(loop.time()):
                log.warning(
                    "turned away: the process may have no more connections (ulimit -n, LimitNOFILE)"
                )
            return TurnedAway()
        return Http(http, self._waiting, loop, self.connections.patience)

    def _encrypt(self, connection: ssl.SSLObject, *_: object) -> None:
        """The next handshake has the certificate of the config as it is now."""
        if self._tls is not None:
            connection.context = self._tls

    async def _listen(self, sock: socket.socket) -> None:
        """Accept connections, over TLS unless it is a unix socket."""
        if self._tls is not None:
            self._tls.sni_callback = self._encrypt  # called whether or not the client says a name
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

    # What it serves

    @property
    def _limits(self) -> ServerLimits:
        limits = self.config.server.limits
        waiting = min(limits.max_waiting, max(1, self._descriptors // 4))
        most = min(limits.max_clients, max(1, self._descriptors - waiting))
        return limits.model_copy(update={"max_clients": most, "max_waiting": waiting})

    def _prepare(self, assembly: Assembly) -> tuple[list[Route], web.UrlDispatcher]:
        """All that is served by what this one is made of, and what finds it."""
        routes = list(assembly.routes)
        taken = {route.definition.path for route in routes}  # one may have taken the front page
        own = [web.get("/-/live", self._live), web.get("/-/ready", self._ready)]
        own += [*about.routes(assembly), *self.watching.routes(assembly)]
        own += [*assets.routes(assembly), *front.routes(assembly)]
        routes += [Route("server", definition) for definition in own if definition.path not in taken]
        return routes, self._table.dispatcher(routes)

    def _guard(self) -> None:
        """Let in whom the config lets in."""
        settings = self.config.server
        self._around = []
        if settings.hosts:
            self._around.append(Hosts(settings.hosts, settings.url, self._table).middleware)
        if settings.trusted_proxies:
            self._around.append(Proxies(settings.trusted_proxies).middleware)

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        for around in self._around:
            handler = partial(around, handler=handler)
        return await handler(request)

    async def _respond(self, topic: str, request: dict[str, Any]) -> int:
        channel = self.channels.get(topic.partition("/")[0])
        return await channel.respond(topic, request) if channel else 0

    async def _live(self, request: web.Request) -> web.Response:
        return web.json_response({"live": True})

    @property
    def unready(self) -> list[str]:
        """Why ``/-/ready`` says no, in words; empty while it says yes."""
        dead = [*self.engines.dead, *self.lifespans.dead]
        reasons = [f"the lifespan of {spell(owner)} has ended" for owner in dead]
        if trouble := self.bus.engine.trouble:
            reasons.append(f"the engine {self.config.bus.engine}: {trouble}")
        return reasons if self.ready else [*reasons, "shutting down"]

    async def _ready(self, request: web.Request) -> web.Response:
        reasons = self.unready
        return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    async def _refuse(self, request: web.Request) -> NoReturn:
        again = {hdrs.RETRY_AFTER: retry_after()}
        raise last(web.HTTPServiceUnavailable(text="the server is shutting down\n", headers=again))


async def _last_touch(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.popall(hdrs.SERVER, None)
    if response.status != 101 and wants_websocket(request):
        # What follows a handshake that was refused may be frames; it is never read as a request.
        response.force_close()
        response.headers[hdrs.CONNECTION] = "close"
