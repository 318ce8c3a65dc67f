"""The routes of a server: who serves what, and a table that can be replaced while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, NoReturn

from aiohttp import hdrs, web
from aiohttp.web_urldispatcher import AbstractResource, AbstractRoute, ResourceRoute, UrlMappingMatchInfo
from yarl import URL

from realtime.blame import defined, not_the_plugins, refusal
from realtime.paths import shape


class Route(NamedTuple):
    """One route and whose it is: ``channel:lobby``, ``plugin:dice`` or ``server``."""

    owner: str
    definition: web.RouteDef


def conflicts(routes: Iterable[Route]) -> Iterator[tuple[Route, Route]]:
    """The pairs of routes that could serve the same request, the earlier one first."""
    seen: dict[str, list[Route]] = {}
    for route in routes:
        others = seen.setdefault(shape(route.definition.path), [])
        for other in others:
            methods = {route.definition.method, other.definition.method}
            if len(methods) == 1 or hdrs.METH_ANY in methods:
                yield other, route
                break  # one mistake is told once, however many are made alike
        others.append(route)


class RouteTable(AbstractResource):
    """One resource for all routes: aiohttp freezes its router, this one can be given new routes."""

    def __init__(self) -> None:
        super().__init__()
        #: What stands before every path, where the table is a sub-application's.
        self.prefix = ""
        self._dispatcher = web.UrlDispatcher()
        self._unmet = ResourceRoute(hdrs.METH_ANY, _refuse, self, expect_handler=_refuse)

    def replace(self, routes: Iterable[Route]) -> None:
        """Serve these routes from now on; requests under way are not touched."""
        self.use(self.dispatcher(routes))

    def dispatcher(self, routes: Iterable[Route]) -> web.UrlDispatcher:
        """These routes ready to be used; raises what aiohttp does where they cannot be."""
        dispatcher = web.UrlDispatcher()
        dispatcher.add_routes([_contained(route) for route in routes])
        if self.prefix:
            _add_prefix(dispatcher, self.prefix)
        return dispatcher

    def use(self, dispatcher: web.UrlDispatcher) -> None:
        """Serve what is ready."""
        self._dispatcher = dispatcher

    async def resolve(self, request: web.Request) -> tuple[UrlMappingMatchInfo | None, set[str]]:
        """Ask the current routes (``AbstractResource``)."""
        if not request.headers.get(hdrs.EXPECT, "").isascii():  # aiohttp would repeat it, and cannot
            return UrlMappingMatchInfo({}, self._unmet), set()
        match = await self._dispatcher.resolve(request)
        error = match.http_exception
        if error is None:
            return match, set()
        return None, error.allowed_methods if isinstance(error, web.HTTPMethodNotAllowed) else set()

    @property
    def canonical(self) -> str:
        """Where aiohttp looks this resource up: it is asked about every path."""
        return self.prefix or "/"

    def add_prefix(self, prefix: str) -> None:
        """The table stands in a sub-application."""
        self.prefix = prefix + self.prefix
        _add_prefix(self._dispatcher, prefix)

    def url_for(self, **_: str) -> URL:
        """There is no one URL (``AbstractResource``)."""
        raise RuntimeError("the route table has many URLs")

    def get_info(self) -> dict[str, object]:  # type: ignore[override]
        """For aiohttp's own introspection, whose type knows the keys of its own resources only."""
        return {"prefix": self.prefix}

    def raw_match(self, path: str) -> bool:
        """No route is added to this resource by its path."""
        return False

    def __iter__(self) -> Iterator[AbstractRoute]:
        return iter(self._dispatcher.routes())

    def __len__(self) -> int:
        return len(self._dispatcher.routes())


def _contained(route: Route) -> web.RouteDef:
    """The route, whose errors name its owner and end nothing but the request."""
    definition = route.definition

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            response: object = await definition.handler(request)
            if not isinstance(response, web.StreamResponse):
                wrong = f"the handler of {definition.path} returned {response!r}: return a web.Response"
                raise TypeError(f"{wrong}; in {defined(definition.handler)}")
            return response
        except web.HTTPException:
            raise
        except BaseException as error:
            if (refused := refusal(error)) is not None:
                return refused
            if not isinstance(error, Exception):
                # aiohttp tells who reads a body with CancelledError that the server stops.
                if not_the_plugins(error) or isinstance(request.content.exception(), type(error)):
                    raise
                # aiohttp has no answer to it, and SystemExit would end the event loop.
                error = RuntimeError(f"it raised {type(error).__name__}")
            error.add_note(f"in a route of {route.owner}")
            raise error

    return web.RouteDef(definition.method, definition.path, handle, definition.kwargs)


def _add_prefix(dispatcher: web.UrlDispatcher, prefix: str) -> None:
    for resource in list(dispatcher.resources()):
        # The dispatcher looks resources up by how their paths begin.
        dispatcher.unindex_resource(resource)
        resource.add_prefix(prefix)
        dispatcher.index_resource(resource)


async def _refuse(request: web.Request) -> NoReturn:
    raise web.HTTPExpectationFailed(text="the only expectation that is met is 100-continue\n")
