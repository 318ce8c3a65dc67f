"""The client for browsers, in a browser: the rules of the Python client, and what only a browser does."""

from __future__ import annotations

import asyncio
import json
import random
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chromium
import pytest
import pytest_asyncio
from conftest import Serve
from redises import redis_server
from servers import SEEDS, V1, Handler, closed_port, cutting, frame, http, way, websocket
from tabs import Tab, tab
from websockets.asyncio.server import ServerConnection
from wire import eventually

from realtime.message import Message

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRANSPORTS = ["websocket", "sse"]

ROOM = """
    server: {{listen: ["127.0.0.1:0"], origins: {origins}}}
    channels: {{room: {{plugin: relay, path: /room, {settings}}}}}
"""
RELAY = {
    "relay.py": """
        import base64
        from realtime import Channel, hookimpl

        class Relay(Channel):
            "What is said comes to everybody."

            async def on_message(self, client, message):
                return await self.publish(client.topic, message.data, event=message.event)

        @hookimpl
        def register_channels():
            return {"relay": Relay}
    """
}


def room(settings: str = "history: 1000", origins: str = "same") -> str:
    """The config of a server with one room."""
    return ROOM.format(settings=settings, origins=origins)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all of these tests; each has tabs of its own."""
    async with chromium.browser() as one:
        yield one


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, serve: Serve) -> AsyncIterator[Tab]:
    """A tab on a page of a server with a room; nothing that went wrong in it was left uncaught."""
    async with serve(room(), RELAY) as serving, tab(browser, serving.http("/")) as one:
        yield one
        assert one.uncaught == []


async def forever(server: ServerConnection) -> None:
    """Wait until the client has gone."""
    await server.wait_closed()


def welcome(**facts: Any) -> str:
    """A welcome as a server of its own would say it."""
    return frame("realtime:welcome", {"outcome": "new", **facts}, id="e-0")


def in_turn(*handlers: Handler) -> Handler:
    """A handler that is another one for each connection; the last one stays."""
    left = list(handlers)

    async def handler(server: ServerConnection) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(server)

    return handler


def saying(*frames: str, code: int | None = None, reason: str = "") -> Handler:
    """A handler that sends these; then it closes with the code, or stays."""

    async def handler(server: ServerConnection) -> None:
        for text in frames:
            await server.send(text)
        if code is not None:
            await server.close(code, reason)
        await forever(server)

    return handler


def cut_after(*frames: str) -> Handler:
    """A handler that sends these and breaks the connection when the client has them."""

    async def handler(server: ServerConnection) -> None:
        for text in frames:
            await server.send(text)
        await (await server.ping())
        server.transport.abort()

    return handler


def showing_since(queries: list[str]) -> Handler:
    """A handler that keeps the query and stays."""

    async def handler(server: ServerConnection) -> None:
        assert server.request is not None
        queries.append(server.request.path.partition("?")[2])
        await server.send(welcome())
        await server.send(frame("message", "back"))
        await forever(server)

    return handler


Sent = list[tuple[str, dict[str, str], bytes]]


def events(
    sent: Sent,
    *bodies: str,
    answers: tuple[str, ...] = (),
    ends: asyncio.Event | None = None,
    cuts: asyncio.Event | None = None,
) -> Any:
    """A handler of bytes: each GET gets the next stream, the last stays open; each POST the next answer.

    An answer is a status and a body; without one the connection is cut. ``ends`` and ``cuts``: what a
    stream that is to end waits for, and a connection that is to be cut.
    """
    left, answering = list(bodies), list(answers)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        allowed = (
            "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Headers: *\r\nConnection: close\r\n"
        )
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if first.startswith("OPTIONS"):
            writer.write(f"HTTP/1.1 204 No Content\r\n{allowed}\r\n".encode())
            return
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        sent.append((first.removesuffix(" HTTP/1.1"), headers, body))
        if first.startswith("POST"):
            answer = answering.pop(0)
            if not answer:
                if cuts is not None:
                    await cuts.wait()
                writer.transport.abort()
            status, _, text = answer.partition("\n")
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\n{allowed}\r\n"
            writer.write((head + text).encode())
            return
        kind = 'Content-Type: text/event-stream; profile="realtime.v1.json"\r\n'
        last = len(left) == 1
        writer.write(f"HTTP/1.1 200 OK\r\n{kind}{allowed}\r\n{left[0] if last else left.pop(0)}".encode())
        if last:
            await reader.read()
        elif ends is not None:
            await ends.wait()

    return handle


def event(event: str, data: Any = None, **fields: Any) -> str:
    """A server-sent event of the profile."""
    return f"data: {frame(event, data, **fields)}\n\n"


# Against a real server


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_two_tabs_chat(serve: Serve, browser: Browser, transport: str) -> None:
    """Two tabs see what either says, and the answer to sending says where it stands."""
    config = "channels: {lobby: {plugin: chat, path: /chat, history: 9}}"
    async with (
        serve(config) as serving,
        tab(browser, serving.http("/")) as alice,
        tab(browser, serving.http("/")) as bob,
    ):
        for one, name in ((alice, "alice"), (bob, "bob")):
            await one.open("/chat", transport=transport, name=name)
            await one.take(1)
        positions = [await alice.sent("'hi'"), await bob.sent("'hello'")]
        said = [{"from": "alice", "text": "hi"}, {"from": "bob", "text": "hello"}]
        for one in (alice, bob):
            await one.until("data('channel').at(-1).text === 'hello'")
            log = [message for _, message in await one.log("message") if message["event"] == "message"]
            assert [message["data"] for message in log] == said
            assert [message["id"] for message in log] == positions
            assert await one.run("channel.transport") == transport
            assert one.errors + one.uncaught == []


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_every_kind_of_data(page: Tab, transport: str) -> None:
    """Text, JSON and bytes come as they were sent, with their event, id and time."""
    await page.open("/room", transport=transport)
    sent = ["'hé'", "'{\"a\":1}'", "{a: [1, null]}", "7", "null", "new Uint8Array([0, 255])", "''"]
    positions = [await page.sent(data, options="{event: 'score'}") for data in sent]
    assert await page.take(7) == ["hé", '{"a":1}', {"a": [1, None]}, 7, None, [0, 255], ""]
    for [_, message], position in zip(await page.log("message"), positions, strict=True):
        assert (message["id"], message["event"]) == (position, "score")
        assert message["time"] > 1.7e9


async def test_bytes_of_a_view(page: Tab) -> None:
    """A view of a buffer is what it shows of it, and a buffer is all that it has."""
    await page.open("/room")
    await page.run("window.buffer = new Uint8Array([1, 2, 3, 4]).buffer")
    await page.sent("new Uint8Array(buffer, 1, 2)")
    await page.sent("buffer")
    assert await page.take(2) == [[2, 3], [1, 2, 3, 4]]


async def test_welcome(page: Tab) -> None:
    """The welcome is no message: it says who the client is, and opens the connection."""
    await page.open("/room")
    await page.until("channel.transport")
    assert await page.run("[channel.welcome.channel, channel.welcome.outcome]") == ["room", "new"]
    assert [kind for kind, _ in await page.log()] == ["open"]


async def test_iteration(page: Tab) -> None:
    """A ``for await`` gives every message from the beginning, and ends when it is closed."""
    await page.open("/room")
    for number in range(3):
        await page.sent(str(number))
    script = """(async () => {
        const seen = [];
        for await (const { data } of channel) { seen.push(data); if (data === 2) channel.close(); }
        return seen;
    })()"""
    assert await page.run(script) == [0, 1, 2]


async def test_iteration_goes_on(page: Tab) -> None:
    """An iteration that was left is gone on with by another one."""
    await page.open("/room")
    for number in range(3):
        await page.sent(str(number))
    first = "(async () => { for await (const { data } of channel) return data; })()"
    assert [await page.run(first) for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_resumes_after_a_cut(serve: Serve, browser: Browser, transport: str) -> None:
    """Cut off in the middle, it misses nothing and shows nothing twice."""
    async with (
        serve(room(), RELAY) as serving,
        way(serving.port) as there,
        tab(browser, f"http://127.0.0.1:{there.port}/") as one,
    ):
        channel = serving.server.channels["room"]
        await one.open("/room", transport=transport)
        await one.until("channel.transport")
        for number in range(30):
            await channel.publish("room", number)
            if number % 10 == 5:
                await one.take(number)
                there.cut()
                await channel.publish("room", f"cut {number}")
        got = await one.take(33)
        assert [data for data in got if isinstance(data, int)] == list(range(30))
        assert len(await one.log("message")) == 33
        assert [detail["outcome"] for _, detail in await one.log("open")] == ["new", *["recovered"] * 3]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_drop(page: Tab, transport: str) -> None:
    """Cut off by its own page, it comes back by itself, and has what was said meanwhile."""
    await page.open("/room", transport=transport, more="backoff: () => 1e6")
    await page.sent('"before"')
    await page.take(1)
    await page.run("channel.drop()")
    await page.until("logs.channel.some(([type]) => type === 'down')")
    assert await page.log("down") == [["down", {"code": 1006, "reason": "dropped", "delay": 1_000_000}]]
    await page.open("/room", "other")
    await page.sent('"meanwhile"', "other")
    await page.run("void dispatchEvent(new Event('online'))")
    assert await page.take(2) == ["before", "meanwhile"]
    assert [detail["outcome"] for _, detail in await page.log("open")] == ["new", "recovered"]


async def test_drop_to_a_position(page: Tab) -> None:
    """Where it is told to, it goes on from an earlier position: what came after that comes again."""
    await page.open("/room")
    first = await page.sent('"first"')
    await page.sent('"second"')
    await page.take(2)
    await page.run(f"channel.drop({{ since: {first!r} }})")
    assert await page.take(3) == ["first", "second", "second"]
    assert await page.run("channel.position") != first


async def test_drop_of_what_has_ended(page: Tab) -> None:
    """What is closed is not there to be dropped, and stays closed."""
    await page.open("/room")
    await page.until("channel.transport")
    await page.run("channel.close()")
    await page.run("channel.drop()")
    assert [type for type, _ in await page.log("down", "close")] == ["close"]


async def test_gap_is_shown(serve: Serve, browser: Browser) -> None:
    """What is no longer kept when it comes back is told: a message in its place, and an event."""
    async with (
        serve(room("history: 3, lag: 1ms, lag_bytes: 1KiB, overflow: skip"), RELAY) as serving,
        way(serving.port) as there,
        tab(browser, f"http://127.0.0.1:{there.port}/") as one,
    ):
        channel = serving.server.channels["room"]
        waiting = "backoff: () => 1e6"
        await one.open("/room", more=waiting)
        await one.until("channel.transport")
        await channel.publish("room", "first")
        await one.take(1)
        there.cut()
        await one.until("channel.transport === null")
        for number in range(100):
            await channel.publish("room", f"{number} {'x' * 100}")
        await one.run("dispatchEvent(new Event('online'))")
        await one.until("data('channel').at(-1).startsWith?.('99 ')")
        [_, first], [_, gap], *more = await one.log("message")
        assert (first["data"], gap["event"]) == ("first", "realtime:gap")
        assert gap["data"]["missed"] + len(more) == 100
        assert [detail for _, detail in await one.log("gap")] == [gap]


async def test_restart_is_shown(serve: Serve, browser: Browser) -> None:
    """After a restart of the server, which forgets, a reset is told, and it goes on."""
    async with (
        serve(room(), RELAY) as serving,
        way(serving.port) as there,
        tab(browser, f"http://127.0.0.1:{there.port}/") as one,
    ):
        await one.open("/room")
        await one.until("channel.transport")
        await serving.server.channels["room"].publish("room", "before")
        await one.take(1)
        await serving.server.stop()
        async with serve(room(), RELAY) as again:
            there.to = again.port
            await again.server.channels["room"].publish("room", "after")
            assert await one.take(3) == ["before", {}, "after"]
            assert [detail["event"] for _, detail in await one.log("reset")] == ["realtime:reset"]
            down = [detail for _, detail in await one.log("down")]
            assert (down[0]["code"], down[0]["delay"]) == (1001, 0)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_degraded(serve: Serve, browser: Browser, transport: str) -> None:
    """While the server takes nothing the connection says why, stays, and keeps its position."""
    async with serve(room(), RELAY) as serving, tab(browser, serving.http("/")) as one:
        bus = serving.server.bus
        await one.open("/room", transport=transport)
        await one.until("channel.transport")
        position = await bus.publish("room", "before")
        await bus.tell(
            Message.of({"reason": "no engine"}, event="realtime:degraded", time=1.0), lasting=True
        )
        await one.until("channel.degraded === 'no engine'")
        assert await one.run("[channel.transport, channel.position]") == [transport, str(position)]
        await bus.tell(Message.of({}, event="realtime:restored", time=2.0))
        await one.until("channel.degraded === null")
        assert [type for type, _ in await one.log()] == [
            "open", "message", "degraded", "message", "restored", "message",
        ]  # fmt: skip
        assert await one.take(3) == ["before", {"reason": "no engine"}, {}]


async def test_degraded_until_it_is_cut(serve: Serve, browser: Browser) -> None:
    """Of another connection it holds only if that is told, too."""
    async with (
        serve(room(), RELAY) as serving,
        way(serving.port) as there,
        tab(browser, f"http://127.0.0.1:{there.port}/") as one,
    ):
        bus = serving.server.bus
        await bus.tell(
            Message.of({"reason": "no engine"}, event="realtime:degraded", time=1.0), lasting=True
        )
        await one.open("/room")
        await one.until("channel.degraded === 'no engine'")
        there.cut()
        await one.until("opened() === 2 && channel.degraded === 'no engine'")
        bus.notice = None
        there.cut()
        await one.until("opened() === 3")
        assert await one.run("channel.degraded") is None


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_loss_in_the_middle(serve: Serve, browser: Browser, tmp_path: Path, transport: str) -> None:
    """What an engine has lost is told in the middle of a connection, which goes on in the other log."""
    async with (
        redis_server(tmp_path) as redis,
        serve(f"bus: {{engine: redis, url: '{redis.url}'}}\n{textwrap.dedent(room())}", RELAY) as serving,
        way(serving.port) as there,
        tab(browser, f"http://127.0.0.1:{there.port}/") as one,
    ):
        bus = serving.server.bus
        await one.open("/room", transport=transport)
        await one.until("channel.transport")
        await bus.publish("room", "old")
        await one.take(1)
        await redis.command("FLUSHALL")
        await bus.publish("room", "new")
        assert await one.take(3) == ["old", {}, "new"]
        position = bus.topic("room").position
        assert await one.run("channel.position") == str(position)
        assert [detail["event"] for _, detail in await one.log("reset")] == ["realtime:reset"]
        bus.topic("room").skip(position.offset + 5)
        await one.until("logs.channel.some(([type]) => type === 'gap')")
        assert (await one.log("gap"))[0][1]["data"] == {"missed": 5}
        there.cut()
        await one.until("opened() === 2")
        assert await one.run("channel.welcome.outcome") == "recovered"
        assert await one.log("close") == []


async def test_other_origin(serve: Serve, browser: Browser) -> None:
    """A page of another origin that may connect imports it from the server, and reads and sends."""
    async with (
        serve("channels: {lobby: {plugin: chat, path: /chat}}") as site,
        serve(room(origins=f"['{site.http('')}']"), RELAY) as serving,
        tab(browser, site.http("/"), serving.http("/-/realtime.js")) as one,
    ):
        for transport in TRANSPORTS:
            await one.open(serving.http("/room"), transport, transport=transport)
            await one.until(f"{transport}.transport")
            await one.sent(f"'by {transport}'", transport)
        assert await one.take(2, "websocket") == ["by websocket", "by sse"]
        assert await one.take(1, "sse") == ["by sse"]
        assert one.errors + one.uncaught == []


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_url(serve: Serve, browser: Browser, scheme: str) -> None:
    """A whole URL may have either scheme, parameters, and a fragment, which stays where it is."""
    async with serve(room(), RELAY) as serving, tab(browser, serving.http("/")) as one:
        await one.open(f"{scheme}://{serving.address}/room?name=x#y", since="earliest")
        await one.until("channel.transport === 'websocket'")
        assert one.errors + one.uncaught == []


async def test_no_url(page: Tab) -> None:
    """What is no URL of a channel is a TypeError at once."""
    for url in ("ftp://h/", "http://", "blob:x"):
        script = f"try {{ rt.connect({url!r}); }} catch (error) {{ error.name; }}"
        assert await page.run(f"eval({script!r})") == "TypeError", url


# Refused, and away


@pytest.mark.parametrize("transport", ["auto", "sse"])
async def test_refused(serve: Serve, browser: Browser, transport: str) -> None:
    """A 4xx is final, and tells the server's sentence; the iteration throws it, and so does sending."""
    config = room("allow: {subscribe: authenticated}")
    async with serve(config, RELAY) as serving, tab(browser, serving.http("/")) as one:
        await one.open("/room", transport=transport)
        await one.until("channel.closed")
        [[_, end]] = await one.log()
        assert (end["name"], end["status"]) == ("Refused", 401)
        assert "allow.subscribe" in end["reason"]
        assert await one.run("outcome(channel.next())") == end
        assert await one.sent("'hi'") == end


async def test_refused_websocket(serve: Serve, browser: Browser) -> None:
    """Also where only a WebSocket is wanted, it hears that it is refused, and does not try for ever."""
    async with serve(room(), RELAY) as serving, tab(browser, serving.http("/")) as one:
        await one.open("/nowhere", transport="websocket")
        await one.until("channel.closed")
        assert await one.run("channel.closed.status") == 404


async def test_answer_of_somebody_else(page: Tab) -> None:
    """What answers, but not as a channel does, is refused: it is another server's page."""
    await page.open("/-/live", transport="sse")
    await page.until("channel.closed")
    assert await page.run("[channel.closed.name, channel.closed.status]") == ["Refused", 200]


async def test_long_refusal(page: Tab) -> None:
    """Of what a server says to a refusal the first line is shown, and not all of a long one."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = "HTTP/1.1 404 Not Found\r\nAccess-Control-Allow-Origin: *\r\nConnection: close\r\n\r\n"
        writer.write(f"{head}{'x' * 5000}\n<p>more".encode())

    async with http(handle) as address:
        await page.open(f"http://{address}/", transport="sse")
        await page.until("channel.closed")
    assert await page.run("channel.closed.reason") == "x" * 300


@pytest.mark.parametrize("transport", ["auto", "sse"])
async def test_away_at_first(browser: Browser, serve: Serve, transport: str) -> None:
    """Where nobody is it tries again, and says each time after how long."""
    async with serve(room(origins="any"), RELAY) as serving, tab(browser, serving.http("/")) as one:
        port = closed_port()
        asked = "backoff: (...asked) => { (window.asked ??= []).push(asked); return 100; }"
        await one.open(f"http://127.0.0.1:{port}/room", transport=transport, more=asked)
        await one.until("window.asked?.length > 2")
        assert (await one.run("asked"))[:3] == [[1, 1006, None], [2, 1006, None], [3, 1006, None]]
        assert (await one.log("down"))[0][1]["delay"] == 100
        async with await asyncio.start_server(pipe_to(serving.port), "127.0.0.1", port):
            # Where somebody came between the two of one attempt it is by events.
            await one.until("channel.transport" + " === 'sse'" * (transport == "sse"))
            await one.run("channel.close()")


def pipe_to(port: int) -> Any:
    """A handler that leads to a port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                target.write(data)
            target.close()

        await asyncio.gather(pump(reader, to_server), pump(from_server, writer))

    return handle


async def test_overloaded(page: Tab) -> None:
    """Refused for now, it comes back after what Retry-After says."""
    sent: Sent = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if sent:
            return await events(sent, event("realtime:welcome", {}))(reader, writer)  # type: ignore[no-any-return]
        await reader.readuntil(b"\r\n\r\n")
        sent.append(("", {}, b""))
        head = "Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: Retry-After\r\n"
        writer.write(f"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\n{head}Content-Length: 4\r\n\r\nfull".encode())

    async with http(handle) as address:
        asked = "backoff: (...asked) => { window.asked ??= asked; return 0; }"
        await page.open(f"http://{address}/", transport="sse", more=asked)
        await page.until("channel.transport")
    assert (await page.run("asked"))[2] == 7000
    assert (await page.log("down"))[0][1]["reason"] == "full"


# A proxy that refuses WebSockets


async def test_falls_back_to_events(serve: Serve, browser: Browser) -> None:
    """Where a WebSocket is refused and HTTP works, it reads events and sends by POST."""
    async with serve(room(), RELAY) as serving, way(serving.port) as there:
        there.websockets = False
        async with tab(browser, f"http://127.0.0.1:{there.port}/") as one:
            await one.open("/room")
            await one.until("channel.transport === 'sse'")
            await one.sent("{a: 1}")
            assert await one.take(1) == [{"a": 1}]
            assert [kind for kind, _ in await one.log()] == ["open", "message"]


async def test_tries_a_websocket_twice(serve: Serve, browser: Browser) -> None:
    """After two refusals in a row it asks for no WebSocket any more, until the network is another one."""
    async with serve(room(), RELAY) as serving, way(serving.port) as there:
        there.websockets = False
        async with tab(browser, f"http://127.0.0.1:{there.port}/") as one:
            await one.open("/room")
            for opened in range(1, 5):
                await one.until(f"channel.transport && opened() === {opened}")
                there.cut()
            await one.until("opened() === 5")
            there.websockets = True
            assert len([text for text in one.errors if text.startswith("WebSocket")]) == 2
            await one.run("dispatchEvent(new Event('online'))")
            there.cut()
            await one.until("channel.transport === 'websocket'")


async def test_refusals_in_a_row(serve: Serve, browser: Browser) -> None:
    """A WebSocket that stood in between shows that there is nothing in the way of one."""
    async with (
        serve(room(), RELAY) as serving,
        way(serving.port) as there,
        tab(browser, f"http://127.0.0.1:{there.port}/") as one,
    ):
        await one.open("/room")
        await one.until("channel.transport === 'websocket'")  # one that is cut before that is a refusal
        for number, over in enumerate(["sse", "websocket"] * 3, 1):
            there.websockets = over == "websocket"
            there.cut()
            await one.until(f"opened() > {number} && channel.transport === '{over}'")


async def test_channel_without_events(serve: Serve, browser: Browser) -> None:
    """A channel that serves no events is not gone because its WebSocket could not be opened once."""
    config = "channels: {echo: {plugin: echo, path: /ws}}"
    async with (
        serve(config) as serving,
        way(serving.port) as there,
        tab(browser, f"http://127.0.0.1:{there.port}/") as one,
    ):
        there.websockets = False
        await one.open("/ws", more="backoff: () => 100")
        await one.until("logs.channel.filter(([type]) => type === 'down').length >= 2")
        there.websockets = True
        await one.until("channel.transport === 'websocket'")


# How it ends


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1007, 1008, 1009, 4000, 4401, 4403, 4499])
async def test_final_code(page: Tab, code: int) -> None:
    """A code that makes coming back senseless ends it, with the reason."""
    met: list[int] = []

    async def handler(server: ServerConnection) -> None:
        met.append(code)
        await saying(welcome(), code=code, reason="because")(server)

    async with websocket(handler, V1) as url:
        await page.open(url)
        await page.until("channel.closed")
    [_, [kind, end]] = await page.log()
    assert (kind, end["name"], end["code"], end["reason"]) == ("close", "Closed", code, "because")
    assert len(met) == 1
    ended = await page.run("outcome(channel.next())")
    assert ended == ({"done": True, "value": None} if code == 1000 else end)


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 4500, 4509])
async def test_code_after_which_it_comes_back(page: Tab, code: int) -> None:
    """After every other code it comes back."""
    async with websocket(in_turn(saying(welcome(), code=code), showing_since([])), V1) as url:
        await page.open(url)
        assert await page.take(1) == ["back"]
    assert (await page.log("down"))[0][1]["code"] == code


async def test_goodbye_says_more_than_the_close(page: Tab) -> None:
    """What is said goodbye with is how it ended, and its advice is followed."""
    bye = frame("realtime:bye", {"code": 1012, "reason": "new version", "retry": 1500})
    asked = "backoff: (...asked) => { window.asked ??= asked; return 0; }"
    async with websocket(in_turn(saying(welcome(), bye, code=1001), showing_since([])), V1) as url:
        await page.open(url, more=asked)
        await page.take(1)
    assert await page.run("asked") == [1, 1012, 1500]
    assert (await page.log("down"))[0][1]["reason"] == "new version"


@pytest.mark.parametrize(
    "bad",
    ["no JSON", "[1]", "null", '{"event":"x","data":"%","encoding":"base64"}', '{"event":"x","id":7}'],
)
async def test_what_is_no_such_frame(page: Tab, bad: str) -> None:
    """A server that says it speaks the subprotocol and does not is left."""
    async with websocket(saying(welcome(), bad), V1) as url:
        await page.open(url)
        await page.until("channel.closed")
    assert await page.run("channel.closed.message") == "1007 a frame that is not realtime.v1.json"


async def test_close(page: Tab) -> None:
    """Closing it tells the server 1000, ends the iteration, and is final."""
    codes: list[int | None] = []

    async def handler(server: ServerConnection) -> None:
        await server.send(welcome())
        await forever(server)
        codes.append(server.close_code)

    async with websocket(handler, V1) as url:
        await page.open(url)
        await page.until("channel.transport")
        await page.run("void (window.next = channel.next())")
        await page.run("channel.close()")
        assert (await page.run("next"))["done"]
        await eventually(lambda: codes == [1000])
    assert [kind for kind, _ in await page.log()] == ["open", "close"]
    assert (await page.sent("'hi'"))["code"] == 1000


async def test_close_while_it_hears(page: Tab) -> None:
    """Whoever closes it while a message is heard hears no more."""
    body = event("realtime:welcome", {}) + "".join(event("message", number) for number in range(9))
    async with http(events([], body, "")) as address:
        opening = f"open('channel', 'http://{address}/', {{ transport: 'sse' }})"
        await page.run(f"void {opening}.addEventListener('message', () => channel.close())")
        await page.until("channel.closed")
        await page.run("new Promise(requestAnimationFrame)")
    assert await page.take(1) == await page.run("data('channel')") == [0]


async def test_close_while_it_waits(page: Tab) -> None:
    """It can be closed while it is away."""
    async with websocket(cut_after(welcome()), V1) as url:
        await page.open(url, more="backoff: () => 1e6")
        await page.until("logs.channel.at(-1)?.[0] === 'down'")
        await page.run("channel.close()")
        assert (await page.run("channel.next()"))["done"]


async def test_error_of_a_listener(browser: Browser, serve: Serve) -> None:
    """A listener that throws is shown in the console, and hurts nobody else."""
    async with serve(room(), RELAY) as serving, tab(browser, serving.http("/")) as one:
        await one.open("/room")
        await one.run("channel.addEventListener('message', () => { throw new Error('oops'); })")
        await one.sent("1")
        await one.sent("2")
        assert await one.take(2) == [1, 2]
        assert one.uncaught == ["oops", "oops"]


async def test_error_of_a_backoff(page: Tab) -> None:
    """A function of the application's that fails ends it, and everybody hears of it."""
    async with websocket(cut_after(welcome()), V1) as url:
        await page.open(url, more="backoff: () => { throw new Error('oops'); }")
        await page.until("channel.closed")
    assert (await page.run("outcome(channel.next())"))["message"] == "oops"


# Coming back

TABLE = [
    # luck, failures, code, advice, wait
    (1.0, 0, 1006, None, 1000),
    (1.0, 3, 1006, None, 8000),
    (1.0, 9999, 1006, None, 30_000),
    (0.5, 3, 1006, None, 4000),
    (0.0, 0, 1001, None, 1000),
    (1.0, 0, 1012, None, 5000),
    (0.0, 0, 1001, 8000, 8000),
    (1.0, 0, 1001, 8000, 12_000),
    (0.0, 0, 1013, 1e12, 300_000),
    (1.0, 3, 1013, 0, 8000),
]


async def test_backoff(page: Tab) -> None:
    """It waits as the Python client does: full jitter, advice, and a bound to both."""
    script = "(({ luck, asked }) => { Math.random = () => luck; return rt.backoff(...asked); })"
    for luck, failures, code, advice, wait in TABLE:
        argument = json.dumps({"luck": luck, "asked": [failures, code, advice]})
        assert await page.run(f"{script}({argument})") == wait


@pytest.mark.parametrize(("lasted", "failures"), [(9_999, 1), (10_000, 0)])
async def test_connection_that_stood(page: Tab, lasted: int, failures: int) -> None:
    """A connection that lasted for ten seconds forgets the failures before it."""
    asked = "backoff: (...asked) => { window.asked ??= asked; return 0; }"
    leave = asyncio.Event()

    async def handler(server: ServerConnection) -> None:
        await server.send(welcome())
        await leave.wait()
        server.transport.abort()

    async with websocket(in_turn(handler, showing_since([])), V1) as url:
        await page.run("void (Date.now = () => 1e12)")  # the time goes on when it is told to
        await page.open(url, more=asked)
        await page.until("channel.transport")
        await page.run(f"void (Date.now = () => 1e12 + {lasted})")
        leave.set()
        await page.take(1)
    assert (await page.run("asked"))[0] == failures


async def test_resumes_after_the_last_message(page: Tab) -> None:
    """It comes back with the position of the last message, or of the welcome; before one, as it began."""
    queries: list[str] = []
    handlers = in_turn(
        cut_after(frame("realtime:welcome", {"outcome": "gap", "missed": 5}, id="e-9")),
        showing_since(queries),
    )
    async with websocket(handlers, V1) as url:
        await page.open(url, since=-5)
        assert await page.take(1) == ["back"]
    async with websocket(in_turn(cut_after(welcome()), showing_since(queries)), V1) as url:
        await page.open(url, since="earliest")
        assert await page.take(1) == ["back"]
    last = cut_after(welcome(), frame("message", 1, id="e-1"), frame("message", 2, id="e-2"))
    async with websocket(in_turn(last, showing_since(queries)), V1) as url:
        await page.open(url)
        assert await page.take(3) == [1, 2, "back"]
        assert await page.run("channel.position") == "e-0"
    assert queries == ["since=-5", "since=e-0", "since=e-2"]


async def test_what_comes_twice_is_shown_once(page: Tab) -> None:
    """A message of the epoch that is not beyond the last is dropped, a marker is not."""
    frames = [frame("message", number, id=f"e-{number}") for number in (1, 2, 1, 2, 3)]
    gap = frame("realtime:gap", {"missed": 1}, id="e-2")
    async with websocket(saying(welcome(), *frames, gap, frame("message", 3, id="e-3")), V1) as url:
        await page.open(url)
        assert await page.take(5) == [1, 2, 3, {"missed": 1}, 3]


@pytest.mark.parametrize(
    "wake", ["dispatchEvent(new Event('online'))", "document.dispatchEvent(new Event('visibilitychange'))"]
)
async def test_comes_back_when_it_may_be_worth_it(page: Tab, wake: str) -> None:
    """When the network is back, or the tab is looked at, it waits no longer."""
    async with websocket(in_turn(cut_after(welcome()), showing_since([])), V1) as url:
        await page.open(url, more="backoff: () => 1e6")
        await page.until("logs.channel.at(-1)?.[0] === 'down'")
        await page.run(wake)
        assert await page.take(1) == ["back"]


async def test_hidden_tab_waits(page: Tab) -> None:
    """A tab that is hidden is no reason to come back."""
    async with websocket(in_turn(cut_after(welcome()), showing_since([])), V1) as url:
        await page.open(url, more="backoff: () => 1e6")
        await page.until("logs.channel.at(-1)?.[0] === 'down'")
        await page.run(
            "void Object.defineProperty(document, 'hidden', { value: true, configurable: true })"
        )
        await page.run("document.dispatchEvent(new Event('visibilitychange'))")
        await page.run("new Promise((resolve) => setTimeout(resolve, 50))")
        assert await page.run("channel.transport") is None


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_silence_is_noticed(page: Tab, transport: str) -> None:
    """A connection that was promised a heartbeat and hears nothing for longer is opened again."""
    silent = welcome(heartbeat=0.02)
    if transport == "websocket":
        server = websocket(in_turn(saying(silent), showing_since([])), V1, close_timeout=0.1)
    else:
        server = http(quiet(f"data: {silent}\n\n"))
    async with server as where:
        url = where if transport == "websocket" else f"http://{where}/"
        await page.open(url, transport=transport, slack=30)
        assert await page.take(1) == ["back"]
        down = (await page.log("down"))[0][1]
    assert (down["code"], down["reason"]) == (1006, "nothing was heard for 0.05s")


def quiet(first: str) -> Any:
    """A handler of bytes whose first stream begins, and says nothing more; the next ones are open."""
    back = event("realtime:welcome", {}) + event("message", "back")
    return events([], first, back, ends=asyncio.Event())


#: How a connection is made of which ``heard`` counts what comes, heartbeats too.
HEARING = """
  WebSocket: class extends WebSocket {
    constructor(...how) {
      super(...how);
      this.addEventListener("message", () => (heard += 1));
    }
  },
  fetch: async (...what) => {
    const response = await fetch(...what);
    const transform = (chunk, stream) => {
      heard += 1;
      stream.enqueue(chunk);
    };
    return new Response(response.body.pipeThrough(new TransformStream({ transform })), response);
  },
"""


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_heartbeat_is_a_sign_of_life(serve: Serve, browser: Browser, transport: str) -> None:
    """While there are heartbeats a quiet connection stands."""
    async with (
        serve(room("keep_alive: 50ms"), RELAY) as serving,
        tab(browser, serving.http("/")) as one,
    ):
        await one.run("void (window.heard = 0)")
        await one.open("/room", transport=transport, more=HEARING)
        await one.until("channel.transport")
        # Ten seconds of silence are too many: of the clock of the page, which goes on when it is told to.
        for _ in range(3):
            await one.run("void (Date.now = ((now) => () => now() + 9_000)(Date.now))")
            await one.until(f"heard >= {await one.run('heard')} + 2")
            await one.run("dispatchEvent(new Event('pageshow'))")  # it looks how long there was nothing
        assert [kind for kind, _ in await one.log()] == ["open"]


async def test_silence_while_it_slept(page: Tab) -> None:
    """A machine that wakes from its sleep does not wait for the time that it has slept through."""
    async with websocket(in_turn(saying(welcome(heartbeat=30)), showing_since([])), V1) as url:
        await page.open(url)
        await page.until("channel.transport")
        await page.run("void (Date.now = ((now) => () => now() + 3_600_000)(Date.now))")
        await page.run("dispatchEvent(new Event('pageshow'))")
        assert await page.take(1) == ["back"]


async def test_silence_after_the_clock_went_back(page: Tab) -> None:
    """A clock that is set back does not make it wait for so much longer."""
    async with websocket(in_turn(saying(welcome(heartbeat=0.1)), showing_since([])), V1) as url:
        back = "() => { Date.now = ((now) => () => now() - 3_600_000)(Date.now); }"
        opening = f"open('channel', {url!r}, {{ slack: 0 }})"
        await page.run(f"void {opening}.addEventListener('open', {back}, {{ once: true }})")
        assert await page.take(1) == ["back"]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_server_that_accepts_and_says_nothing(page: Tab, transport: str) -> None:
    """A connection that is not welcomed in time is given up, and tried again."""
    if transport == "websocket":
        server = websocket(in_turn(forever, showing_since([])), V1, close_timeout=0.1)
    else:
        server = http(quiet(": nothing\n\n"))
    async with server as where:
        url = where if transport == "websocket" else f"http://{where}/"
        await page.open(url, transport=transport, timeout=300)
        assert await page.take(1) == ["back"]


# Tokens


async def test_token(page: Tab) -> None:
    """A token is a parameter of the URL; a function is asked for a new one when it is not good any more."""
    queries: list[str] = []

    async def handler(server: ServerConnection) -> None:
        assert server.request is not None
        queries.append(server.request.path.partition("?")[2])
        code = 4401 if len(queries) == 1 else None
        await saying(welcome(), code=code)(server)

    async with websocket(handler, V1) as url:
        await page.open(url, more="token: async () => `t${(window.asked = (window.asked ?? 0) + 1)}`")
        await page.until("opened() === 2")
    assert queries == ["token=t1", "token=t2&since=e-0"]


async def test_token_that_is_never_good(page: Tab) -> None:
    """A token that is refused again and again is not asked for for ever."""
    async with websocket(saying(welcome(), code=4401), V1) as url:
        await page.open(url, more="token: () => 'bad'")
        await page.until("channel.closed")
        assert len(await page.log("open")) == 3


async def test_token_that_does_not_come(page: Tab) -> None:
    """A function that never gives a token takes no longer than connecting may, and it can be closed."""
    await page.open("/room", more="token: () => new Promise(() => {})", timeout=50)
    await page.until("logs.channel.filter(([type]) => type === 'down').length >= 2")
    await page.run("channel.close()")
    assert (await page.run("channel.next()"))["done"]


# Sending


async def test_send_waits_for_the_connection(page: Tab) -> None:
    """What is sent while it is away goes out once, when it is back."""
    got: list[Any] = []

    async def back(server: ServerConnection) -> None:
        await server.send(welcome())
        got.append(json.loads(await server.recv()))
        await server.send(frame("realtime:ack", ref=got[0]["ref"], id="e-7"))
        await forever(server)

    async with websocket(in_turn(cut_after(welcome()), back), V1) as url:
        await page.open(url, more="backoff: () => 1e6")
        await page.until("logs.channel.at(-1)?.[0] === 'down'")
        await page.run("void (window.sending = outcome(channel.send('late')))")
        await page.run("dispatchEvent(new Event('online'))")
        assert await page.run("sending") == "e-7"
    assert [one["data"] for one in got] == ["late"]


async def test_send_does_not_wait_for_ever(page: Tab) -> None:
    """When there is no connection in time the error says that nothing was sent."""
    async with websocket(cut_after(welcome()), V1) as url:
        await page.open(url, more="backoff: () => 1e6")
        await page.until("logs.channel.at(-1)?.[0] === 'down'")
        error = await page.sent("'hi'", options="{ timeout: 10 }")
    assert (error["name"], error["message"]) == ("NotConnected", "no connection within 10ms")


async def test_send_that_is_cut(page: Tab) -> None:
    """Cut before its ack, it is not sent again: it may have arrived or not, and the error says so."""
    got: list[Any] = []

    async def handler(server: ServerConnection) -> None:
        await server.send(welcome())
        got.append(await server.recv())
        server.transport.abort()

    async with websocket(handler, V1) as url:
        await page.open(url)
        error = await page.sent("'hi'")
        await page.until("opened() === 2")
    assert (error["name"], error["message"]) == ("Unconfirmed", "the connection was lost")
    assert len(got) == 1


async def test_send_that_is_not_answered(page: Tab) -> None:
    """Without an ack in time it may have arrived or not."""
    async with websocket(saying(welcome()), V1) as url:
        await page.open(url)
        await page.until("channel.transport")  # the time of a send begins before it is connected
        error = await page.sent("'hi'", options="{ timeout: 30 }")
    assert (error["name"], error["message"]) == ("Unconfirmed", "no answer within 30ms")


async def test_send_that_is_refused(page: Tab) -> None:
    """An error with its ref rejects it with the server's sentence, and the connection stays."""

    async def handler(server: ServerConnection) -> None:
        await server.send(welcome())
        ref = json.loads(await server.recv())["ref"]
        await server.send(frame("realtime:error", {"message": "no such event", "status": 404}, ref=ref))
        await forever(server)

    async with websocket(handler, V1) as url:
        await page.open(url)
        error = await page.sent("'hi'")
        assert (error["name"], error["status"], error["reason"]) == ("Refused", 404, "no such event")
        assert [kind for kind, _ in await page.log()] == ["open"]


async def test_send_of_what_is_never_taken(serve: Serve, browser: Browser) -> None:
    """What the server closes for is what the very send is rejected with."""
    config = "channels: {lobby: {plugin: chat, path: /chat}}"
    async with serve(config) as serving, tab(browser, serving.http("/")) as one:
        await one.open("/chat", name="alice", transport="websocket")
        error = await one.sent("new Uint8Array(3)")
        assert (error["name"], error["code"]) == ("Closed", 1003)


@pytest.mark.parametrize("data", ["undefined", "() => 1", "10n", "Symbol()"])
async def test_what_cannot_be_sent(page: Tab, data: str) -> None:
    """What is no text, bytes or JSON is a TypeError, and nothing is sent."""
    await page.open("/room")
    assert (await page.sent(data))["name"] == "TypeError"
    await page.sent("'hi'")
    assert await page.take(1) == ["hi"]


async def test_sends_at_once(page: Tab) -> None:
    """Each of several sends gets its own answer."""

    async def handler(server: ServerConnection) -> None:
        await server.send(welcome())
        got = [json.loads(await server.recv()) for _ in range(3)]
        for sent in reversed(got):
            await server.send(frame("realtime:ack", ref=sent["ref"], id=f"e-{sent['data']}"))
        await forever(server)

    async with websocket(handler, V1) as url:
        await page.open(url)
        answers = await page.run("Promise.all([1, 2, 3].map((number) => channel.send(number)))")
    assert answers == ["e-1", "e-2", "e-3"]


async def test_post_that_is_cut_is_sent_again(page: Tab) -> None:
    """A POST that a cut has left without an answer goes out again with its key, so that it counts once."""
    sent: Sent = []
    answers = ("", "", '202 Accepted\n{"id":"e-8"}', '202 Accepted\n{"id":"e-9"}')
    async with http(events(sent, event("realtime:welcome", {}), answers=answers)) as address:
        await page.open(f"http://{address}/chat", transport="sse", name="al")
        assert await page.sent("{a: 1}", options="{event: 'score'}") == "e-8"
        assert await page.sent("'next'") == "e-9"
    posts = [(first, headers["idempotency-key"], body) for first, headers, body in sent[1:]]
    assert [(first, body) for first, _, body in posts] == [
        *[("POST /chat?name=al&event=score", b'{"a":1}')] * 3,
        ("POST /chat?name=al", b'"next"'),
    ]
    keys = [key for _, key, _ in posts]
    assert len(set(keys[:3])) == 1
    assert keys[3] != keys[0]


async def test_post_that_another_server_would_hear_anew(page: Tab) -> None:
    """A POST without an answer is not sent again to a server that has begun anew: that knows no key."""
    sent: Sent = []
    began = event("realtime:welcome", {"outcome": "new"})
    anew = event("realtime:welcome", {"outcome": "reset"})
    ends, cuts = asyncio.Event(), asyncio.Event()
    async with http(events(sent, began, anew, answers=("",), ends=ends, cuts=cuts)) as address:
        await page.open(f"http://{address}/", transport="sse")
        await page.run("void (window.sending = outcome(channel.send('hi')))")
        await eventually(lambda: sent[-1:] != [] and sent[-1][0].startswith("POST"))
        ends.set()
        await page.until("opened() === 2")
        cuts.set()
        error = await page.run("sending")
    assert (error["name"], error["message"]) == ("Unconfirmed", "the connection was lost")
    assert [first for first, _, _ in sent if first.startswith("POST")] == ["POST /"]


async def test_post_that_is_refused_for_now(page: Tab) -> None:
    """Sent again, it may be refused for now; then it is sent again, as the server asks."""
    sent: Sent = []
    answers = ("", "503 Busy\nfull", '202 Accepted\n{"id":"e-8"}')
    async with http(events(sent, event("realtime:welcome", {}), answers=answers)) as address:
        await page.open(f"http://{address}/", transport="sse")
        assert await page.sent("'hi'") == "e-8"
    assert len(sent) == 4


@pytest.mark.parametrize("status", ["400 Bad Request", "503 Busy"])
async def test_post_that_is_refused(page: Tab, status: str) -> None:
    """An answer other than 2xx is final for a message of which nothing was lost: it is not sent again."""
    sent: Sent = []
    handle = events(sent, event("realtime:welcome", {}), answers=(f"{status}\nsay who\n",))
    async with http(handle) as address:
        await page.open(f"http://{address}/", transport="sse")
        error = await page.sent("'hi'")
    assert (error["name"], error["status"], error["reason"]) == ("Refused", int(status[:3]), "say who")
    assert len(sent) == 2


async def test_post_that_never_arrives(page: Tab) -> None:
    """A POST that no answer comes to in time may have arrived or not."""
    handle = events([], event("realtime:welcome", {}), answers=("",) * 99)
    async with http(handle) as address:
        await page.open(f"http://{address}/", transport="sse", more="backoff: () => 20")
        await page.until("channel.transport")  # the time of a send begins before it is connected
        error = await page.sent("'hi'", options="{ timeout: 200 }")
    assert (error["name"], error["message"]) == ("Unconfirmed", "no answer within 200ms")


async def test_post_that_brings_messages(page: Tab) -> None:
    """What a channel says to the sender alone comes with the others."""
    answer = '202 Accepted\n{"messages":[{"event":"message","data":"Echo: hi","time":1.0}]}'
    async with http(events([], event("realtime:welcome", {}), answers=(answer,))) as address:
        await page.open(f"http://{address}/", transport="sse")
        assert await page.sent("'hi'") is None
        assert await page.take(1) == ["Echo: hi"]


# A slow iteration


async def test_iteration_that_is_too_slow(page: Tab) -> None:
    """Only so much is read ahead of an iteration; what it has missed then is told, and counted."""
    count, text = 200, "x" * 50_000

    async def handler(server: ServerConnection) -> None:
        await server.send(welcome())
        for number in range(1, count + 1):
            await server.send(frame("message", f"{number} {text}", id=f"e-{number}"))
        await forever(server)

    async with websocket(handler, V1) as url:
        await page.open(url)
        await page.take(count)
        script = """(async () => {
            const seen = [];
            for await (const { id, event, data } of channel) {
                seen.push([id, event, data.missed ?? Number(data.split(" ")[0])]);
                if (id === "e-200") return seen;
            }
        })()"""
        [id, event, missed], *rest = await page.run(script)
    assert (event, id) == ("realtime:gap", f"e-{missed}")
    assert [number for _, _, number in rest] == list(range(missed + 1, count + 1))
    assert sum(50_256 for _ in rest) <= 4 * 1024 * 1024


# Random cuts


async def publish_while_read(channel: Any, one: Tab, texts: list[str]) -> None:
    """Publish texts, a few at a time, while the tab reads."""
    for number, text in enumerate(texts):
        await channel.publish("room", text)
        if number % 10 == 9:
            await one.run("data('channel').length")


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("seed", SEEDS)
async def test_every_message_once_and_in_order(
    serve: Serve, browser: Browser, seed: int, transport: str
) -> None:
    """Cut at random, at any byte, while messages flow, it gives each of them once and in order."""
    count = 300
    async with (
        serve(room(origins="any"), RELAY) as serving,
        cutting(serving.port, seed, 6000) as port,
        tab(browser, serving.http("/")) as one,
    ):
        await one.open(f"http://127.0.0.1:{port}/room", transport=transport, since="earliest")
        texts = [f"{number} {'x' * (number % 50)}" for number in range(count)]
        await publish_while_read(serving.server.channels["room"], one, texts)
        assert await one.take(count) == texts
        assert len(await one.log("down")) > 2


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("seed", SEEDS)
async def test_every_loss_is_told(serve: Serve, browser: Browser, seed: int, transport: str) -> None:
    """Where the server keeps too little for that, what is missing is exactly what the gaps tell."""
    count, dice = 300, random.Random(seed)
    config = room("history: 3, lag: 1ms, lag_bytes: 1KiB, overflow: skip", "any")
    async with (
        serve(config, RELAY) as serving,
        cutting(serving.port, seed, 6000) as port,
        tab(browser, serving.http("/")) as one,
    ):
        await one.open(f"http://127.0.0.1:{port}/room", transport=transport, since="earliest")
        texts = [f"{number} {'x' * dice.randint(0, 50)}" for number in range(count)]
        channel = serving.server.channels["room"]
        await publish_while_read(channel, one, texts[:200])
        await one.until("data('channel').length")
        # In one turn more than passes before a cut, and than is kept: so something is lost for certain.
        for number in range(200, 240):
            await channel.publish("room", f"{number} {'x' * 500}")
        await publish_while_read(channel, one, texts[240:])
        await one.until(f"data('channel').at(-1)?.startsWith?.('{count - 1} ')")
        lost, expected = 0, None  # until there is a position nothing is promised
        for data in await one.run("data('channel')"):
            if isinstance(data, dict):
                lost += data["missed"]
                expected = None if expected is None else expected + data["missed"]
            else:
                number = int(data.split()[0])
                assert expected in (None, number)
                expected = number + 1
    assert lost > 0


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("seed", SEEDS)
async def test_every_send_is_heard_once_at_most(
    serve: Serve, browser: Browser, seed: int, transport: str
) -> None:
    """Cut at random while it sends, what was confirmed is there once, and nothing is there twice."""
    count = 100
    async with (
        serve(room(origins="any"), RELAY) as serving,
        cutting(serving.port, seed, 3000) as port,
        tab(browser, serving.http("/")) as one,
    ):
        await one.open(f"http://127.0.0.1:{port}/room", transport=transport)
        script = """(async () => {
            const ends = [];
            for (let number = 0; number < %d; number += 1) ends.push(await outcome(channel.send(number)));
            return ends;
        })()"""
        ends = await one.run(script % count)
        there = [(str(message.id), message.data) for message in serving.server.bus.topic("room").history()]
    heard = [number for _, number in there]
    assert heard == sorted(set(heard))
    confirmed = {(id, number) for number, id in enumerate(ends) if isinstance(id, str)}
    assert {end["name"] for end in ends if isinstance(end, dict)} <= {"Unconfirmed"}
    assert confirmed <= set(there)
    assert len(confirmed) > count / 2
    assert transport == "websocket" or len(confirmed) == count
