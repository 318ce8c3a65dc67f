"""Everything that a config names, made and put together: plugins, channels, routes, who may come in.

A server serves one assembly after the other: a reload makes the next, which takes over from the one before
what has not changed, and only when all of it is right is it served.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from aiohttp import web

from realtime import auth, tls
from realtime.blame import not_the_plugins, own_frames
from realtime.bus import Bus
from realtime.changes import stays
from realtime.channel import Channel
from realtime.checks import PluginProblem, line_of, mistake_in
from realtime.config import Config
from realtime.engine import Engine
from realtime.errors import ConfigError, Problem, StartError
from realtime.lifespans import Lifespans
from realtime.loader import Built, Plugins, guarded
from realtime.paths import route_pattern
from realtime.routing import Route, conflicts
from realtime.transports.connections import Connections
from realtime.transports.endpoint import Endpoint


class Assembly:
    """What a config makes of a server. What is wrong is in ``problems``; with any it is not to be served.

    ``built`` is what the loader has made of the config; of ``before`` it has the plugins and channels that
    are the same, and whose settings need no other. ``prefix`` is what stands before every path.
    """

    def __init__(
        self,
        config: Config,
        bus: Bus,
        connections: Connections,
        built: Built,
        before: Assembly | None = None,
        *,
        prefix: str = "",
    ) -> None:
        self.config = config
        self.bus = bus
        self._before = before
        self.problems = list(config.source.problems)
        self.tls: ssl.SSLContext | None = None
        if not any(problem.path.startswith("server.tls") for problem in self.problems):
            self.tls, wrong = tls.context(config)
            self.problems.extend(wrong)
        self.plugins: Plugins = built.plugins
        self.channels = built.channels
        #: What the config says of each channel, and what the bus is to keep for it.
        self.settings, self.options = built.settings, built.options
        tokens, wrong = auth.tokens(config)
        self.problems.extend(wrong)
        self.gate = auth.Gate(
            config, tokens, self._callers("authenticate"), self._callers("authorize"), bus
        )
        self.endpoints: dict[str, Endpoint] = {}
        for name, channel in self.channels.items():
            if before is not None and before.channels.get(name) is channel:
                self.endpoints[name] = before.endpoints[name]
                continue
            self.endpoints[name] = Endpoint(
                channel,
                connections,
                self.gate,
                origins=config.server.origins,
                url=config.server.url,
                prefix=prefix,
            )
            channel.serve_with(self.endpoints[name].handle)
        #: What every plugin and channel serves.
        self.routes = self._routes()
        self.problems.extend(built.problems)

    @property
    def owners(self) -> list[str]:
        """Who is here: ``plugin:NAME`` and ``channel:NAME``, in the order of the config."""
        return self.plugins.names()

    def has(self, owner: str, other: Assembly) -> bool:
        """Whether this plugin or channel is the very same in another."""
        mine = self.plugins.manager.get_plugin(owner)
        return mine is not None and mine is other.plugins.manager.get_plugin(owner)

    @property
    def guards(self) -> list[object]:
        """The plugins that say who somebody is, or what that one may do."""
        manager = self.plugins.manager
        return [
            impl.plugin
            for hook in ("authenticate", "authorize")
            for impl in getattr(manager.hook, hook).get_hookimpls()
        ]

    def keeps(self, name: str, kind: type[Channel], settings: Channel.Settings) -> Channel | None:
        """The channel of a name, if it can go on with these settings as one of this type."""
        old = self.channels.get(name)
        return old if old is not None and stays(old, kind, settings) else None

    async def begin(self, lifespans: Lifespans, owners: Collection[str]) -> None:
        """Begin the lifespans and services of these. Raises :exc:`ConfigError` if one cannot begin.

        Of ``engine:NAME`` it is that of the bus's engine, which may raise :exc:`StartError`, too.
        """
        for owner in owners:
            try:
                thing: Channel | Engine | None = self.channels.get(owner.removeprefix("channel:"))
                if owner.startswith("engine:"):
                    thing = self.bus.engine
                if thing is not None:
                    managers = [thing.lifespan()]
                else:
                    managers = list(self.plugins.call(owner, "register_services", bus=self.bus) or ())
                for manager in managers:
                    await lifespans.start(owner, manager, self._plugin_of(owner))
            except PluginProblem as problem:
                raise ConfigError(self.problem(owner, str(problem), "plugin")) from None
            except BaseException as error:
                if not_the_plugins(error) or (thing is self.bus.engine and isinstance(error, StartError)):
                    raise
                wrong = f"its lifespan could not begin: {own_frames(error)}"
                if "\n" not in wrong:  # Python's own errors of a context manager have no line of it
                    of_plugin = self.plugins.line_of_hook(owner, "register_services")
                    wrong += line_of(type(thing), "lifespan") if thing is not None else of_plugin
                if thing is not None:
                    wrong = f"{spell(owner)} of plugin {self._plugin_of(owner)!r}: {wrong}"
                raise ConfigError(self.problem(owner, wrong, "plugin")) from None

    def take_over(self) -> None:
        """It is served from now on: what it has of the one before goes by what the config says now."""
        before, self._before = self._before, None
        assert before is not None
        self.gate.succeed(before.gate)
        settings = self.config.server
        for name, channel in self.channels.items():
            channel.settings = self.settings[name]
            endpoint, old = self.endpoints[name], before.endpoints.get(name)
            if old is not None and old is not endpoint:
                endpoint.succeed(old)
            endpoint.configure(self.gate, origins=settings.origins, url=settings.url)
        for name, endpoint in before.endpoints.items():
            endpoint.retired = self.endpoints.get(name) is not endpoint

    def path_of(self, route: Route) -> str:
        """The path as its owner wrote it."""
        if self._is_of_channel(route):
            return self.channels[route.owner.partition(":")[2]].settings.path
        return route.definition.path

    def problem(self, owner: str, message: str, key: str = "path") -> Problem:
        """What is wrong with a plugin or channel, in its place in the config."""
        kind, _, name = owner.partition(":")
        if kind == "channel":
            return self.config.source.problem(message, ("channels", name, key))
        if kind == "engine":
            return self.config.source.problem(message, ("bus", "engine"))
        where = ("plugins", self.config.plugins.index(name)) if name in self.config.plugins else ()
        return self.config.source.problem(f"{spell(owner)}: {message}", where)

    def _callers(self, hook: str) -> list[tuple[str, Callable[..., list[Any]]]]:
        return [(spell(owner), caller) for owner, caller in self.plugins.callers(hook)]

    def _routes(self) -> list[Route]:
        problems = self.problems
        routes: list[Route] = []
        for owner in self.plugins.names():
            try:  # what is returned may be no list, or a generator that fails
                definitions = guarded("register_routes()", partial(self._routes_of, owner))
            except PluginProblem as problem:
                where = "" if "\n" in str(problem) else self._hook_of_routes(owner)
                problems.append(self.problem(owner, f"{problem}{where}"))
                continue
            for definition in definitions:
                if not isinstance(definition, web.RouteDef):
                    wrong = f"register_routes() returned {definition!r}, which is no web.RouteDef: "
                    wrong += f"return a list of web.get(path, handler){self._hook_of_routes(owner)}"
                    problems.append(self.problem(owner, wrong))
                elif wrong := mistake_in(definition):
                    problems.append(self.problem(owner, wrong))
                else:
                    routes.append(Route(owner, definition))
        for first, second in conflicts(routes):
            path, other = self.path_of(second), self.path_of(first)
            taken = f"{path} is already served by {spell(first.owner)}"
            spelled = f", as {other}" if other != path else ""
            place = self.problem(first.owner, "").place
            wrong = f"{taken}{spelled} ({place}); {self._instead(first, second)}"
            problems.append(self.problem(second.owner, wrong))
        dispatcher = web.UrlDispatcher()
        for route in [] if problems else routes:  # each can be served; can all of them together?
            if wrong := mistake_in(route.definition, dispatcher):
                problems.append(self.problem(route.owner, wrong))
        return routes

    def _instead(self, first: Route, second: Route) -> str:
        """What to do about two routes that meet, and where the handler of a plugin's own is."""
        how, where = "give one of them another path", ""
        if not self._is_of_channel(second):
            where = line_of(second.definition.handler)
            types = {type(self.channels.get(one.owner.removeprefix("channel:"))) for one in (first, second)}
            if len(types) == 1 and first.owner != second.owner and types != {type(None)}:
                below = f'f"{{self.settings.path}}/{second.definition.path.rpartition("/")[2]}"'
                of = self._plugin_of(second.owner)
                how = f"a route of plugin {of!r} belongs below the channel's own path, as in {below}"
        return how + where

    def _is_of_channel(self, route: Route) -> bool:
        """Whether it is the channel's own path, and no route beside it."""
        kind, _, name = route.owner.partition(":")
        own = route_pattern(self.channels[name].settings.path) if kind == "channel" else None
        return route.definition.path == own

    def _plugin_of(self, owner: str) -> str:
        kind, _, name = owner.partition(":")
        if kind == "engine":
            found = self.plugins.source(type(self.bus.engine))
            return found.name if found else name
        return self.settings[name].plugin if kind == "channel" else name

    def _hook_of_routes(self, owner: str) -> str:
        return self.plugins.line_of_hook(owner, "register_routes")

    def _routes_of(self, owner: str) -> list[object]:
        return list(self.plugins.call(owner, "register_routes", bus=self.bus) or ())


def spell(owner: str) -> str:
    """``channel:lobby`` as people read it."""
    kind, _, name = owner.partition(":")
    return f"{kind} {name!r}" if name else owner
