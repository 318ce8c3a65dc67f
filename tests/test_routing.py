"""Routes: who serves what, and a table that is replaced while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from conftest import Serve
from pytest_aiohttp import AiohttpClient
from wire import dial, soon

from realtime.errors import Rejected, TooLarge, Unavailable
from realtime.routing import Route, RouteTable, conflicts


def says(text: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A handler that answers with a text."""

    async def handle(request: web.Request) -> web.Response:
        return web.Response(text=text + request.match_info.get("rest", ""))

    return handle


def app_with(table: RouteTable) -> web.Application:
    """An application that has nothing but a table."""
    app = web.Application()
    app.router.register_resource(table)
    return app


async def test_table_serves(aiohttp_client: AiohttpClient) -> None:
    """Routes of every shape are served."""
    table = RouteTable()
    routes = [web.get("/", says("root")), web.get("/a/b", says("ab")), web.get("/x/{rest:.*}", says("x:"))]
    table.replace([Route("plugin:x", route) for route in routes])
    client = await aiohttp_client(app_with(table))
    answers = [await (await client.get(path)).text() for path in ("/", "/a/b", "/x/y/z")]
    assert answers == ["root", "ab", "x:y/z"]


@pytest.mark.parametrize("path", [b"/ws", b"/none"])
async def test_odd_expectation(serve: Serve, caplog: pytest.LogCaptureFixture, path: bytes) -> None:
    """An expectation that cannot even be repeated is not met, with 417 and without a traceback."""
    async with serve("channels: {ws: {plugin: echo, path: /ws}}") as serving:
        asked = b"GET %s HTTP/1.1\r\nHost: localhost\r\nExpect: \xff\r\n\r\n" % path
        async with dial(serving.port, asked) as client:
            head, text = await client.response()
    assert (head.status, text, "server" in head.headers) == (
        417,
        "the only expectation that is met is 100-continue\n",
        False,
    )
    assert caplog.records == []


@pytest.mark.parametrize(
    ("error", "status", "again"),
    [(Unavailable("away"), 503, True), (Rejected("too many", 429), 429, True), (TooLarge("x"), 413, False)],
)
async def test_what_is_refused_in_a_route_is_answered(
    aiohttp_client: AiohttpClient, error: Rejected, status: int, again: bool
) -> None:
    """A route that publishes what is not taken answers so, as a POST to a channel does; it is no bug."""

    async def refuse(request: web.Request) -> web.Response:
        raise error

    table = RouteTable()
    table.replace([Route("plugin:x", web.get("/", refuse))])
    client = await aiohttp_client(app_with(table))
    async with client.get("/") as response:
        assert (response.status, await response.text()) == (status, f"{error}\n")
        assert ("Retry-After" in response.headers) is again


async def test_table_is_replaced(aiohttp_client: AiohttpClient) -> None:
    """Other routes are served from one request to the next, on the same connection."""
    table = RouteTable()
    client = await aiohttp_client(app_with(table))
    assert (await client.get("/a")).status == 404
    table.replace([Route("plugin:x", web.get("/a", says("one")))])
    assert await (await client.get("/a")).text() == "one"
    table.replace([Route("plugin:x", web.get("/b", says("two")))])
    assert (await client.get("/a")).status == 404
    assert await (await client.get("/b")).text() == "two"


async def test_request_under_way_is_not_touched(aiohttp_client: AiohttpClient) -> None:
    """A request that was begun with the old routes ends with them."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        begun.set()
        await go.wait()
        return web.Response(text="old")

    table = RouteTable()
    table.replace([Route("plugin:x", web.get("/a", slow))])
    client = await aiohttp_client(app_with(table))
    asking = asyncio.create_task(client.get("/a").__aenter__())
    await soon(begun.wait())
    table.replace([Route("plugin:x", web.get("/a", says("new")))])
    assert await (await client.get("/a")).text() == "new"
    go.set()
    assert await (await soon(asking)).text() == "old"


async def test_wrong_method(aiohttp_client: AiohttpClient) -> None:
    """A path that is there with other methods is 405, with those."""
    table = RouteTable()
    table.replace([Route("plugin:x", web.get("/a", says("")))])
    client = await aiohttp_client(app_with(table))
    response = await client.post("/a")
    assert (response.status, response.headers["Allow"]) == (405, "GET,HEAD")


async def test_table_in_a_sub_application(aiohttp_client: AiohttpClient) -> None:
    """Under a prefix the routes are found below it, those of later tables too."""
    table = RouteTable()
    table.replace([Route("plugin:x", web.get("/a", says("one")))])
    app = web.Application()
    app.add_subapp("/sub", app_with(table))
    client = await aiohttp_client(app)
    assert await (await client.get("/sub/a")).text() == "one"
    table.replace([Route("plugin:x", web.get("/b", says("two")))])
    assert await (await client.get("/sub/b")).text() == "two"
    assert (await client.get("/b")).status == 404


def test_table_can_be_looked_into() -> None:
    """The table lists its routes, as aiohttp's own resources do."""
    table = RouteTable()
    table.replace([Route("plugin:x", web.get("/a", says(""))), Route("plugin:x", web.post("/a", says("")))])
    assert sorted(route.method for route in table) == ["GET", "HEAD", "POST"]
    assert len(table) == 3


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (web.get("/a", says("")), web.get("/a", says(""))),
        (web.route("*", "/a", says("")), web.get("/a", says(""))),
        (web.get("/a", says("")), web.route("*", "/a", says(""))),
        (web.get("/{a}", says("")), web.get("/{b}", says(""))),
        (web.get("/{a:[^/]*}", says("")), web.get("/{a:(?s:.*)}", says(""))),
    ],
    ids=str,
)
def test_conflict(first: web.RouteDef, second: web.RouteDef) -> None:
    """Two routes that could serve one request are named, the earlier first."""
    one, other = Route("channel:a", first), Route("channel:b", second)
    assert list(conflicts([one, other])) == [(one, other)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (web.get("/a", says("")), web.post("/a", says(""))),
        (web.get("/a", says("")), web.get("/b", says(""))),
        (web.get("/a", says("")), web.get("/{a}", says(""))),
    ],
    ids=str,
)
def test_no_conflict(first: web.RouteDef, second: web.RouteDef) -> None:
    """Different paths, and different methods of one path, go together."""
    assert list(conflicts([Route("channel:a", first), Route("channel:b", second)])) == []


def test_many_alike_are_told_once_each() -> None:
    """Of many routes on one path each is told once, with the first."""
    routes = [Route(f"channel:{name}", web.get("/a", says(""))) for name in "abcd"]
    assert list(conflicts(routes)) == [(routes[0], other) for other in routes[1:]]
