"""Realtime inside somebody's aiohttp application, over that application's own sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import ssl
import textwrap
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import shelf
from aiohttp import web
from aiohttp.typedefs import Handler
from certificates import Authority
from pytest_aiohttp import AiohttpClient
from timing import now
from wire import (
    CLOSE,
    EVENTS,
    LINES,
    UPGRADE,
    Wire,
    ask,
    close,
    dial,
    eventually,
    post,
    request,
    soon,
    stream,
    text,
    websocket,
)

import realtime
from realtime.config import Config, parse
from realtime.sockets import TCP_USER_TIMEOUT
from realtime.source import Source

#: What a test does itself holds the event loop, too, so nothing watches that.
SERVER: dict[str, Any] = {"watchdog": "off"}
CONFIG: dict[str, Any] = {
    "server": SERVER,
    "channels": {
        "echo": {"plugin": "echo", "path": "/ws"},
        "news": {"plugin": "topics", "path": "/news/{topic...}", "history": 10},
        "clock": {"plugin": "clock", "path": "/events", "interval": "1h"},
    },
}


async def hello(request: web.Request) -> web.Response:
    """A route of the host's own."""
    return web.Response(text="hello")


def host(config: Any = CONFIG, **options: Any) -> web.Application:
    """An application that has a route of its own, and Realtime under ``/rt``."""
    app = web.Application(**options)
    app[realtime.SERVER] = add(app, "/rt", config)
    app.router.add_get("/hello", hello)
    return app


def add(app: web.Application, prefix: str, config: Any) -> realtime.Server:
    """Add Realtime to an application; its server."""
    rt = realtime.create_app(config)
    app.add_subapp(prefix, rt)
    return rt[realtime.SERVER]


@asynccontextmanager
async def hosting(
    app: web.Application, *, tls: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[int]:
    """The application on a free port, run by aiohttp as it comes."""
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=1.0, **options)
    try:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield runner.addresses[0][1]
    finally:
        await soon(runner.cleanup())


def beside(directory: Path, config: str, plugins: dict[str, str], watchdog: str = "off") -> Config:
    """A config with plugins beside it."""
    (directory / "plugins").mkdir()
    for name, source in plugins.items():
        (directory / "plugins" / name).write_text(textwrap.dedent(source))
    whole = f"server: {{watchdog: {watchdog}, drain: 2s}}\n{textwrap.dedent(config)}"
    return parse(whole, Source("config.yaml", directory / "config.yaml"))


# Transports


@pytest.mark.parametrize("cancelling", [False, True])
async def test_websocket(cancelling: bool) -> None:
    """A WebSocket works under a prefix, whether the host cancels its handlers or not."""
    async with (
        hosting(host(), handler_cancellation=cancelling) as port,
        websocket(port, "/rt/ws", text("glued")) as wire,
    ):
        await wire.send(text("later"))
        assert [await wire.text(), await wire.text()] == ["Echo: glued", "Echo: later"]


@pytest.mark.parametrize("cancelling", [False, True])
async def test_event_stream(cancelling: bool) -> None:
    """An event stream works under a prefix."""
    async with hosting(host(), handler_cancellation=cancelling) as port, stream(port, "/rt/news/a") as wire:
        await post(port, "/rt/news/a", b"hi")
        assert (await wire.event())["data"] == "hi"


async def test_lines() -> None:
    """A stream of lines works under a prefix."""
    async with hosting(host()) as port, dial(port, request("/rt/news/a", LINES)) as wire:
        assert (await wire.head()).status == 200
        assert (await wire.line())["event"] == "realtime:welcome"
        await post(port, "/rt/news/a", b"hi")
        assert (await wire.line())["data"] == "hi"


async def test_snapshot() -> None:
    """A snapshot tells what was posted, under a prefix."""
    async with hosting(host()) as port:
        _, answer = await post(port, "/rt/news/a", b"hi")
        _, body = await ask(port, "/rt/news/a", [("Accept", "application/json")])
    assert [message["id"] for message in json.loads(body)["messages"]] == [json.loads(answer)["id"]]


async def test_resume_on_a_websocket() -> None:
    """A WebSocket resumes by ``?since=``."""
    async with hosting(host()) as port:
        ids = [json.loads((await post(port, "/rt/news/a", said))[1])["id"] for said in (b"1", b"2", b"3")]
        async with websocket(port, f"/rt/news/a?since={ids[0]}") as wire:
            assert [await wire.text(), await wire.text()] == ["2", "3"]


async def test_resume_of_an_event_stream() -> None:
    """An event stream resumes by ``Last-Event-ID``."""
    async with hosting(host()) as port:
        ids = [json.loads((await post(port, "/rt/news/a", said))[1])["id"] for said in (b"1", b"2")]
        async with stream(port, "/rt/news/a", headers=[("Last-Event-ID", ids[0])]) as wire:
            assert (await wire.event())["data"] == "2"


async def test_topic_is_without_the_prefix() -> None:
    """The prefix is no part of a topic's name."""
    app = host()
    async with hosting(app) as port, websocket(port, "/rt/news/a/b") as wire:
        await app[realtime.SERVER].bus.publish("news/a/b", "hi")
        assert await wire.text() == "hi"


async def test_over_tls(tmp_path: Path) -> None:
    """It works over the TLS of the host."""
    authority, context = Authority(tmp_path), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    async with (
        hosting(host(), tls=context) as port,
        realtime.connect(f"wss://localhost:{port}/rt/news/a", ssl=authority.client()) as channel,
    ):
        await channel.send("hi")
        assert (await soon(anext(aiter(channel)))).data == "hi"


async def test_over_a_unix_socket(tmp_path: Path) -> None:
    """It works over a unix socket of the host."""
    runner, path = web.AppRunner(host()), str(tmp_path / "s")
    await runner.setup()
    try:
        await web.UnixSite(runner, path).start()
        async with dial(0, request("/rt/ws", UPGRADE) + text("hi"), path=path) as wire:
            assert (await wire.head()).status == 101
            assert await wire.text() == "Echo: hi"
    finally:
        await soon(runner.cleanup())


async def test_after_another_request() -> None:
    """A WebSocket may begin on a connection that has been used for something else."""
    async with hosting(host()) as port, dial(port, request("/hello")) as wire:
        assert (await wire.response())[1] == "hello"
        await wire.send(request("/rt/ws", UPGRADE))
        assert (await wire.head()).status == 101
        await wire.send(text("hi"))
        assert await wire.text() == "Echo: hi"


@pytest.mark.parametrize("path", ["/rt/ws", "/rt/events"])
async def test_host_has_no_connection(path: str) -> None:
    """To the host's server a connection ends where ours begins, so it never waits for it."""
    runner = web.AppRunner(host(), handler_cancellation=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with (websocket if path == "/rt/ws" else stream)(runner.addresses[0][1], path):
            server = runner.server
            assert server is not None
            await eventually(lambda: not server.connections)
    finally:
        await soon(runner.cleanup())


@pytest.mark.parametrize("path", ["/rt/ws", "/rt/events"])
async def test_client_goes(path: str) -> None:
    """Who goes is gone, though the host does not cancel its handlers."""
    app = host()
    async with hosting(app, handler_cancellation=False) as port:
        async with (websocket if path == "/rt/ws" else stream)(port, path):
            channel = app[realtime.SERVER].channels["echo" if path == "/rt/ws" else "clock"]
            await eventually(lambda: len(channel.clients) == 1)
        await eventually(lambda: not channel.clients)


async def test_kernel_is_told() -> None:
    """On the host's sockets, too, the kernel is told how long to try to deliver."""
    app = host()
    async with hosting(app) as port, websocket(port, "/rt/ws"):
        (client,) = app[realtime.SERVER].channels["echo"].clients
        sock = client._link.transport.get_extra_info("socket")  # type: ignore[attr-defined]
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == TCP_USER_TIMEOUT


# Links


async def test_front_page() -> None:
    """The list of channels has the URLs under the prefix."""
    async with hosting(host()) as port:
        _, body = await ask(port, "/rt/")
    assert body.split()[4:] == [
        *("echo:", "ws://localhost/rt/ws"),
        *("news:", "ws://localhost/rt/news/{topic...}"),
        *("clock:", "http://localhost/rt/events"),
    ]


async def test_front_page_in_a_browser() -> None:
    """What the front page links to and takes is under the prefix."""
    async with hosting(host()) as port:
        _, body = await ask(port, "/rt/", [("Accept", "text/html")])
        links = set(re.findall(r' (?:href|src|data-path)="(/[^"]*)"', body))
        dashboard, _ = await ask(port, "/rt/-/dashboard")
    assert {link.startswith("/rt/") for link in links} == {True}
    assert dashboard.status == 200


async def test_page_of_a_channel() -> None:
    """The page of a channel shows its URL under the prefix, and takes its script from there."""
    async with hosting(host()) as port:
        _, body = await ask(port, "/rt/news/a/b", [("Accept", "text/html")])
        assert 'src="/rt/-/channel.js"' in body
        assert "curl -d hi http://localhost/rt/news/a/b" in body
        head, _ = await ask(port, "/rt/-/channel.js")
    assert head.status == 200


async def test_page_of_a_channels_own(tmp_path: Path) -> None:
    """The module of a channel's own page, and its style, are under the prefix, too."""
    source = """
        from realtime import Channel, hookimpl

        class Own(Channel):
            page = "own.js"

        @hookimpl
        def register_channels():
            return {"own": Own}
    """
    files = {"own.py": source, "own.js": "export default () => {};", "own.css": ""}
    config = beside(tmp_path, "channels: {mine: {plugin: own, path: /mine}}", files)
    async with hosting(host(config)) as port:
        _, body = await ask(port, "/rt/mine", [("Accept", "text/html")])
        assert "&quot;/rt/-/pages/mine/own.js&quot;" in body
        assert 'href="/rt/-/pages/mine/own.css"' in body
        assert (await ask(port, "/rt/-/pages/mine/own.js"))[0].status == 200


async def test_refusal_shows_the_prefix() -> None:
    """Who asks in a wrong way is told the URL as it is."""
    async with hosting(host()) as port:
        head, body = await ask(port, "/rt/ws", EVENTS)
    assert (head.status, "/rt/ws" in body) == (426, True)


async def test_client_for_browsers() -> None:
    """The client for browsers is under the prefix, and its types are beside it."""
    async with hosting(host()) as port:
        head, _ = await ask(port, "/rt/-/realtime.js")
        assert head.headers["x-typescript-types"] == "./realtime.d.ts"
        assert (await ask(port, "/rt/-/realtime.d.ts"))[0].status == 200


async def test_public_url() -> None:
    """The prefix stands behind ``server.url``, too."""
    async with hosting(host(CONFIG | {"server": SERVER | {"url": "https://rt.example"}})) as port:
        _, body = await ask(port, "/rt/")
    assert "wss://rt.example/rt/ws" in body


async def test_list_of_channels() -> None:
    """The list of the channels for programs has their URLs under the prefix."""
    async with hosting(host()) as port:
        channels = json.loads((await ask(port, "/rt/-/channels"))[1])["channels"]
    assert [channel["url"] for channel in channels][::2] == [
        "ws://localhost/rt/ws",
        "http://localhost/rt/events",
    ]


async def test_ready() -> None:
    """It is ready under the prefix."""
    async with hosting(host()) as port:
        _, body = await ask(port, "/rt/-/ready")
    assert json.loads(body) == {"ready": True, "reasons": []}


# The host


async def test_routes_of_the_host() -> None:
    """The host's own routes and its other applications answer as before."""
    app, other = host(), web.Application()
    other.router.add_get("/hello", hello)
    app.add_subapp("/other", other)
    async with hosting(app) as port:
        assert [(await ask(port, path))[1] for path in ("/hello", "/other/hello")] == ["hello"] * 2


@pytest.mark.parametrize(("path", "status"), [("/ws", 404), ("/rt", 404), ("/rt/x", 404), ("/rt/-/x", 404)])
async def test_nothing_elsewhere(path: str, status: int) -> None:
    """Realtime answers nothing outside of its prefix, and says that there is nothing else within."""
    async with hosting(host()) as port:
        assert (await ask(port, path))[0].status == status


@web.middleware
async def only_alice(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A middleware of the host's that refuses everybody else."""
    if request.headers.get("X-User") != "alice":
        raise web.HTTPForbidden(text="only alice")
    response = await handler(request)
    response.headers["X-Seen"] = "yes"  # too late for a stream, and no harm
    return response


@pytest.mark.parametrize("headers", [UPGRADE, EVENTS, LINES, [("Accept", "text/html")]])
async def test_middleware_refuses(headers: list[tuple[str, str]]) -> None:
    """A middleware of the host can refuse a request in every form."""
    async with hosting(host(middlewares=[only_alice])) as port:
        head, body = await ask(port, "/rt/news/a", headers)
    assert (head.status, body) == (403, "only alice")


async def test_middleware_refuses_a_post() -> None:
    """A middleware of the host can refuse a POST."""
    async with hosting(host(middlewares=[only_alice])) as port:
        assert (await post(port, "/rt/news/a", b"hi"))[0].status == 403


async def test_middleware_lets_in() -> None:
    """Whom the middleware lets in has a WebSocket."""
    async with (
        hosting(host(middlewares=[only_alice])) as port,
        websocket(port, "/rt/ws", headers=[("X-User", "alice")]) as wire,
    ):
        await wire.send(text("hi"))
        assert await wire.text() == "Echo: hi"


@web.middleware
async def elsewhere(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A middleware of the host's that hands on another request."""
    return await handler(request.clone(remote="203.0.113.7"))


async def test_middleware_hands_on_another() -> None:
    """The request that a middleware of the host hands on is the one that counts."""
    app = host(middlewares=[elsewhere])
    async with hosting(app) as port, websocket(port, "/rt/ws", text("hi")) as wire:
        assert await wire.text() == "Echo: hi"
        (client,) = app[realtime.SERVER].channels["echo"].clients
        assert client.remote == "203.0.113.7"


async def test_limit_of_the_host() -> None:
    """How large a body the host's handlers take is nothing to a channel."""
    async with hosting(host(client_max_size=10)) as port:
        assert (await post(port, "/rt/news/a", b"x" * 1000))[0].status == 202


async def test_signal_of_the_host() -> None:
    """A signal of the host's can add a header to the answer to a handshake."""

    async def add_header(_: web.Request, response: web.StreamResponse) -> None:
        response.headers["X-Shop"] = "7"

    app = host()
    app.on_response_prepare.append(add_header)
    async with hosting(app) as port, dial(port, request("/rt/ws", UPGRADE)) as wire:
        assert (await wire.head()).headers["x-shop"] == "7"


async def test_client_of_aiohttp(aiohttp_client: AiohttpClient) -> None:
    """In a test of the host's aiohttp's own client speaks to it."""
    client = await aiohttp_client(host())
    async with client.ws_connect("/rt/ws") as ws:
        await ws.send_str("hi")
        assert await ws.receive_str(timeout=5) == "Echo: hi"


async def test_bus_in_a_handler() -> None:
    """A handler of the host publishes on the bus."""

    async def order(request: web.Request) -> web.Response:
        bus = request.app[realtime.SERVER].bus
        return web.Response(text=str(await bus.publish("news/orders", {"order": 7}, event="placed")))

    app = host()
    app.router.add_post("/orders", order)
    async with hosting(app) as port, stream(port, "/rt/news/orders") as wire:
        _, position = await post(port, "/orders", b"")
        assert await wire.event() == {"id": position, "event": "placed", "data": '{"order":7}'}


async def test_bus_at_startup_and_shutdown() -> None:
    """The bus is there for what the host does after it at startup, and at shutdown still."""
    positions: list[realtime.Position] = []

    async def publish(app: web.Application) -> None:
        positions.append(await app[realtime.SERVER].bus.publish("news/a", "hi"))

    app = host()
    app.on_startup.append(publish)
    app.on_shutdown.append(publish)
    async with hosting(app):
        pass
    assert [position.offset for position in positions] == [1, 2]


async def test_bus_too_early() -> None:
    """Who wants the bus before the startup is told when it is there."""
    app = host()
    with pytest.raises(AttributeError, match="'bus' of the server is there once"):
        await app[realtime.SERVER].bus.publish("news/a", "hi")


async def test_two_in_one() -> None:
    """Two in one application have channels, topics and clients of their own, though called alike."""
    app = web.Application()
    one, two = add(app, "/one", CONFIG), add(app, "/two", CONFIG)
    async with hosting(app) as port, websocket(port, "/one/news/a"), websocket(port, "/two/news/a") as wire:
        await one.bus.publish("news/a", "of one")
        await two.bus.publish("news/a", "of two")
        assert await wire.text() == "of two"


async def test_in_an_application_in_an_application() -> None:
    """A prefix before the prefix is in the links, too."""
    app = web.Application()
    app.add_subapp("/api", host())
    async with hosting(app) as port, websocket(port, "/api/rt/ws", text("hi")) as wire:
        assert await wire.text() == "Echo: hi"
        assert "ws://localhost/api/rt/ws" in (await ask(port, "/api/rt/"))[1]


async def test_for_a_domain() -> None:
    """It can have a domain instead of a prefix."""
    app = web.Application()
    app.add_domain("localhost", realtime.create_app(CONFIG))
    async with hosting(app) as port, websocket(port, "/ws", text("hi")) as wire:
        assert await wire.text() == "Echo: hi"


async def test_by_itself() -> None:
    """It can be run by itself."""
    async with hosting(realtime.create_app(CONFIG)) as port, websocket(port, "/ws", text("hi")) as wire:
        assert await wire.text() == "Echo: hi"


# What the config says


async def test_config_of_a_path(tmp_path: Path) -> None:
    """The config may be a file, and plugins stand beside it."""
    config = beside(tmp_path, "channels: {}", {"hall.py": HALL})
    (tmp_path / "config.yaml").write_text("channels: {hall: {plugin: hall, path: /hall}}")
    assert config.directory == tmp_path
    async with hosting(realtime.create_app(tmp_path / "config.yaml")) as port:
        assert "/hall" in (await ask(port, "/"))[1]


async def test_every_mistake_at_startup() -> None:
    """What is wrong with the config and its plugins is raised by the startup, all of it."""
    app = host({"channels": {"a": {"plugin": "echo", "paht": "/x"}, "b": {"plugin": "ehco", "path": "/b"}}})
    with pytest.raises(realtime.ConfigError) as caught:
        async with hosting(app):
            pass
    paths = [(problem.path, problem.place) for problem in caught.value.problems]
    assert paths == [
        ("channels.a", "config"),
        ("channels.a.paht", "config"),
        ("channels.b.plugin", "config"),
    ]


def test_file_that_is_not_there(tmp_path: Path) -> None:
    """A file that cannot be read is told at once."""
    with pytest.raises(realtime.ConfigError, match=r"nowhere\.yaml: not found"):
        realtime.create_app(tmp_path / "nowhere.yaml")


def test_text_for_a_path() -> None:
    """Who gives a text instead of a path is told what to do."""
    with pytest.raises(realtime.ConfigError, match=r"realtime\.config\.parse\(text\) reads it"):
        realtime.create_app("channels:\n  echo: {plugin: echo, path: /ws}\n")


def test_mapping_of_something_else() -> None:
    """What no config file could say is told at once."""
    with pytest.raises(realtime.ConfigError, match="nothing that a config file could say"):
        realtime.create_app({"channels": {"echo": object()}})


async def test_unused_settings(caplog: pytest.LogCaptureFixture) -> None:
    """Settings of a listener are not used, and the log says so."""
    server = SERVER | {"listen": ["127.0.0.1:1"], "tls": {"cert": "nowhere.pem"}}
    async with hosting(host(CONFIG | {"server": server})):
        pass
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "config: server.listen, server.tls are not used, the application that Realtime is in listens"
    ]


async def test_nothing_to_say(caplog: pytest.LogCaptureFixture) -> None:
    """Without such settings the log is silent."""
    async with hosting(host()):
        pass
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_reload() -> None:
    """It goes by another config, whatever that says of listeners, and the prefix stays."""
    app = host()
    other = {
        "server": SERVER | {"listen": ["127.0.0.1:1"], "tls": {"cert": "nowhere.pem"}},
        "channels": {"echo": {"plugin": "echo", "path": "/other"}},
    }
    async with hosting(app) as port:
        await app[realtime.SERVER].reload(parse(json.dumps(other)))
        assert (await ask(port, "/rt/ws", UPGRADE))[0].status == 404
        async with websocket(port, "/rt/other", text("hi")) as wire:
            assert await wire.text() == "Echo: hi"


async def test_trusted_proxies(tmp_path: Path) -> None:
    """A trusted proxy is believed about the client."""
    async with hosting(host(CONFIG | {"server": SERVER | {"trusted_proxies": ["127.0.0.1"]}})) as port:
        forwarded = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "rt.example")]
        assert "wss://rt.example/rt/ws" in (await ask(port, "/rt/", forwarded))[1]


@pytest.mark.parametrize(("path", "status"), [("/rt/", 421), ("/rt/-/ready", 200), ("/hello", 200)])
async def test_hosts(path: str, status: int) -> None:
    """``server.hosts`` holds for Realtime alone, and not for those who look after it."""
    async with hosting(host(CONFIG | {"server": SERVER | {"hosts": ["rt.example"]}})) as port:
        assert (await ask(port, path))[0].status == status


BLOCKER = """
    import time
    from realtime import Channel, hookimpl

    class Blocker(Channel):
        "Blocks, until somebody has named it."
        async def on_message(self, client, message):
            enough = time.monotonic() + 8
            while not self.named() and time.monotonic() < enough:
                time.sleep(0.2)
            await client.send("done")

    @hookimpl
    def register_channels():
        return {"blocker": Blocker}
"""


async def test_watchdog(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A plugin that holds the host's event loop is named in the log."""
    channels = "channels: {b: {plugin: blocker, path: /b}}"
    config = beside(tmp_path, channels, {"blocker.py": BLOCKER}, watchdog="50ms")
    app = host(config)
    async with hosting(app) as port, websocket(port, "/rt/b") as wire:
        blocker: Any = app[realtime.SERVER].channels["b"]
        blocker.named = lambda: "by channel 'b', plugin 'blocker'" in caplog.text
        await wire.send(text("hi"))
        assert await wire.text() == "done"
        assert blocker.named()


# The end


HALL = """
    import asyncio
    from contextlib import asynccontextmanager
    from realtime import Channel, hookimpl

    class Hall(Channel):
        "Says hello and goodbye."
        @asynccontextmanager
        async def lifespan(self):
            yield
            await self.publish(self.name, "goodbye")

        async def on_message(self, client, message):
            self.heard = message.data
            await asyncio.sleep(0.05)
            return await self.publish(client.topic, message.data)

    @hookimpl
    def register_channels():
        return {"hall": Hall}
"""
HALLS = "channels: {hall: {plugin: hall, path: /hall}}"


async def until_closed(wire: Wire) -> tuple[int, int]:
    """Read to the end, and answer it: how many texts came, and the code."""
    texts = 0
    while (one := await wire.frame()).opcode != CLOSE:
        texts += 1
    await wire.send(close(one.code))
    return texts, one.code


async def test_goodbye_on_a_websocket(tmp_path: Path) -> None:
    """At shutdown a client hears what lifespans say, and is closed with 1001."""
    async with AsyncExitStack() as client:
        async with hosting(host(beside(tmp_path, HALLS, {"hall.py": HALL}))) as port:
            wire = await client.enter_async_context(websocket(port, "/rt/hall"))
            reading = asyncio.create_task(until_closed(wire))
        assert await reading == (1, 1001)


async def test_goodbye_of_an_event_stream(tmp_path: Path) -> None:
    """At shutdown an event stream is told to come back."""
    async with AsyncExitStack() as client:
        async with hosting(host(beside(tmp_path, HALLS, {"hall.py": HALL}))) as port:
            wire = await client.enter_async_context(stream(port, "/rt/hall"))
        assert (await wire.event())["data"] == "goodbye"
        assert json.loads((await wire.event())["data"])["code"] == 1001


async def test_post_under_way(tmp_path: Path) -> None:
    """A POST that is being answered at shutdown is answered."""
    app = host(beside(tmp_path, HALLS, {"hall.py": HALL}))
    async with hosting(app) as port:
        channel = app[realtime.SERVER].channels["hall"]
        posting = asyncio.create_task(post(port, "/rt/hall", b"hi"))
        await eventually(lambda: hasattr(channel, "heard"))
    assert (await posting)[0].status == 202


async def test_shutdown_under_load() -> None:
    """In a burst who reads is closed with 1001, and who never reads does not hold up the end."""
    app = host(CONFIG | {"server": SERVER | {"drain": "1s"}})
    async with AsyncExitStack() as clients:
        async with hosting(app) as port:
            wires = [await clients.enter_async_context(websocket(port, "/rt/news/a")) for _ in range(20)]
            for _ in range(5):
                deaf = websocket(port, "/rt/news/a", receive_buffer=4096)
                await clients.enter_async_context(deaf)
            reading = [asyncio.create_task(until_closed(wire)) for wire in wires]
            for _ in range(20):
                await app[realtime.SERVER].bus.publish("news/a", "x" * 50_000)
            begun = now()
        assert now() - begun < 2.0
        assert [code for _, code in await asyncio.gather(*reading)] == [1001] * 20


async def test_refuses_while_it_ends() -> None:
    """While the host shuts down, whoever still asks is answered 503."""
    app = host()
    async with hosting(app) as port:
        await app[realtime.SERVER].drain()
        assert (await ask(port, "/rt/ws", UPGRADE))[0].status == 503
        assert json.loads((await ask(port, "/rt/-/ready"))[1])["reasons"] == ["shutting down"]


async def test_nothing_is_left_of_a_failed_start(tmp_path: Path) -> None:
    """When a lifespan cannot begin, those that have are left, and the startup fails."""
    (tmp_path / "left").mkdir()
    failing = """
        from contextlib import asynccontextmanager
        from pathlib import Path
        from realtime import Channel, hookimpl

        class Failing(Channel):
            "Fails, if it is called so."
            @asynccontextmanager
            async def lifespan(self):
                if self.name == "bad":
                    raise OSError("no database")
                yield
                (Path(__file__).parent.parent / "left" / self.name).touch()

        @hookimpl
        def register_channels():
            return {"failing": Failing}
    """
    channels = "channels: {good: {plugin: failing, path: /g}, bad: {plugin: failing, path: /b}}"
    with pytest.raises(realtime.ConfigError, match="no database"):
        async with hosting(host(beside(tmp_path, channels, {"failing.py": failing}))):
            pass
    assert [file.name for file in (tmp_path / "left").iterdir()] == ["good"]


async def test_fails_to_start_after_it() -> None:
    """When its application fails to start after it, everything is given back."""
    app = realtime.create_app(CONFIG)
    before = asyncio.all_tasks()

    async def fail(_: web.Application) -> None:
        raise OSError("no database")

    app.on_startup.append(fail)
    with pytest.raises(OSError, match="no database"):
        async with hosting(app):
            pass
    assert asyncio.all_tasks() == before


async def test_once() -> None:
    """An application that was started before says what to do instead."""
    app = host()
    async with hosting(app):
        pass
    with pytest.raises(RuntimeError, match="create_app makes another one"):
        async with hosting(app):
            pass


async def test_frame_after_the_handshake_was_refused() -> None:
    """What follows a handshake that the host's middleware refused is not read as a request."""
    hidden = request("/hello")
    async with hosting(host()) as port, dial(port, request("/rt/none", UPGRADE) + hidden) as wire:
        assert (await wire.head()).status == 404
        assert b"hello" not in await wire.rest()


async def test_engine(tmp_path: Path) -> None:
    """The engine of the config lives from the application's startup to its cleanup."""
    config = beside(tmp_path, f"{shelf.BUS}channels: {{echo: {{plugin: echo, path: /ws}}}}", shelf.FILES)
    app = host(config)
    async with hosting(app) as port, websocket(port, "/rt/ws"):
        bus: Any = app[realtime.SERVER].bus
        assert bus.diary == ["engine begins"]
    assert bus.diary == ["engine begins", "engine ends"]
