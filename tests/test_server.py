"""The server: a config made into something that listens, and its orderly end."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import os
import re
import socket
import textwrap
from pathlib import Path
from typing import Any

import pytest
import shelf
from conftest import Serve, make
from servers import closed_port
from timing import within
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from wire import (
    UPGRADE,
    ask,
    close,
    dial,
    eventually,
    post,
    posting,
    request,
    soon,
    stream,
    text,
    websocket,
)

from realtime.errors import ConfigError, StartError
from realtime.transports import connection

ECHO = "channels: {echo: {plugin: echo, path: /ws}}"


async def ready(port: int) -> tuple[int, dict[str, Any]]:
    """What ``/-/ready`` says."""
    head, body = await ask(port, "/-/ready")
    return head.status, json.loads(body)


# Two servers


PLUGIN = """
    from realtime import Channel, hookimpl

    count = 0

    class Mine(Channel):
        "Says whose it is."

        async def on_join(self, client):
            global count
            count += 1
            await client.send(f"WHOSE {count}")
            await self.publish(client.topic, "somebody came")

    @hookimpl
    def register_channels():
        return {"mine": Mine}
"""


async def test_two_servers_in_one_process(tmp_path: Path) -> None:
    """Two servers with different plugins of one name have nothing in common."""
    config = "channels: {mine: {plugin: mine, path: /}}"
    one = make(tmp_path / "one", config, {"mine.py": PLUGIN.replace("WHOSE", "one")})
    other = make(tmp_path / "other", config, {"mine.py": PLUGIN.replace("WHOSE", "other")})
    async with (
        one,
        other,
        websocket(one.addresses[0].port, "/") as first,
        websocket(other.addresses[0].port, "/") as second,
    ):
        assert [await first.text(), await first.text()] == ["one 1", "somebody came"]
        assert [await second.text(), await second.text()] == ["other 1", "somebody came"]
        assert one.bus is not other.bus
        stopping = asyncio.create_task(one.stop())
        assert await first.close_code() == 1001
        await first.send(close(1001))
        await soon(stopping)
        await second.send(text("x"))
        await other.bus.publish("mine", "still here")
        assert await second.text() == "still here"


async def test_server_started_again(tmp_path: Path) -> None:
    """A stopped server's port is free at once, and another can take it."""
    port = closed_port()  # which nobody else is given meanwhile
    for _ in range(2):
        async with (
            make(tmp_path, f'server: {{listen: ["127.0.0.1:{port}"]}}\n{ECHO}') as server,
            websocket(port, "/ws"),
        ):
            assert [address.port for address in server.addresses] == [port]


# What the host serves


async def test_live(serve: Serve) -> None:
    """``/-/live`` answers as long as the process does."""
    async with serve(ECHO) as serving:
        head, body = await ask(serving.port, "/-/live")
    assert (head.status, json.loads(body)) == (200, {"live": True})


async def test_ready(serve: Serve) -> None:
    """``/-/ready`` is green once everything has begun."""
    async with serve(ECHO) as serving:
        assert serving.server.ready
        assert await ready(serving.port) == (200, {"ready": True, "reasons": []})


async def test_front(serve: Serve) -> None:
    """``/`` lists the channels, with the URL by which it was asked."""
    config = "channels: {echo: {plugin: echo, path: /ws}, clock: {plugin: clock, path: '/at/{place}'}}"
    async with serve(config) as serving:
        _, body = await ask(serving.port, "/")
    assert "echo: ws://localhost/ws\n" in body
    assert "clock: http://localhost/at/{place}\n" in body


async def test_front_of_a_server_with_a_url(serve: Serve) -> None:
    """With ``server.url`` the links are of that site, however the request came."""
    config = 'server: {listen: ["127.0.0.1:0"], url: "https://rt.example"}\n' + ECHO
    async with serve(config) as serving:
        _, body = await ask(serving.port, "/")
    assert "echo: wss://rt.example/ws\n" in body


async def test_channel_takes_the_front(serve: Serve) -> None:
    """A channel at ``/`` is served there instead."""
    async with serve("channels: {echo: {plugin: echo, path: /}}") as serving:
        assert (await ask(serving.port, "/"))[0].status == 426


async def test_server_does_not_say_what_it_is(serve: Serve) -> None:
    """No response names the software and its version."""
    async with serve(ECHO) as serving:
        for path in ("/", "/ws", "/nowhere", "/-/live"):
            assert "server" not in (await ask(serving.port, path))[0].headers


async def test_garbage(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """What is no HTTP is answered with 400, without a traceback in the log."""
    async with serve(ECHO) as serving, dial(serving.port, b"\x16\x03\x01 garbage\r\n\r\n") as wire:
        assert (await wire.head()).status == 400
        await wire.rest()
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("path", ["/ws", "/nowhere", "/-/ready"])
async def test_body_that_is_not_what_it_says(
    serve: Serve, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A body that is not encoded as it says is nothing to log, and leaves the connection in order."""
    data = posting(path, b"hi", [("Content-Encoding", "gzip")]) + request("/-/live")
    async with serve(ECHO) as serving, dial(serving.port, data) as wire:
        first = (await wire.response())[0]
        if first.headers.get("connection") != "close":
            assert (await wire.response())[0].status == 200
    assert first.status in (404, 405, 415)
    assert caplog.text == ""


# Routes of plugins


async def test_raw_handler_beside_the_channel(serve: Serve) -> None:
    """A channel that overrides ``register_routes`` serves what it likes, with aiohttp alone."""
    files = {
        "raw.py": '''
            from aiohttp import web
            from realtime import Channel, hookimpl

            class Raw(Channel):
                """A page beside the stream."""

                async def page(self, request):
                    return web.Response(text=f"{len(self.clients)} here")

                @hookimpl
                def register_routes(self, bus):
                    return [*super().register_routes(bus), web.get("/count", self.page)]

            @hookimpl
            def register_channels():
                return {"raw": Raw}
        '''
    }
    async with serve("channels: {raw: {plugin: raw, path: /raw}}", files) as serving:
        assert (await ask(serving.port, "/count"))[1] == "0 here"
        async with stream(serving.port, "/raw"):
            assert (await ask(serving.port, "/count"))[1] == "1 here"


async def test_routes_of_a_plugin_without_channels(serve: Serve) -> None:
    """A plugin that is no channel can serve URLs, and is given the bus."""
    files = {
        "hello.py": """
            from aiohttp import web
            from realtime import hookimpl

            @hookimpl
            def register_routes(bus):
                async def hello(request):
                    return web.Response(text=f"{len(bus.topics)} topics")
                return [web.get("/hello", hello)]
        """
    }
    async with serve("plugins: [hello]\n" + ECHO, files) as serving:
        assert (await ask(serving.port, "/hello"))[1] == "0 topics"


async def test_raw_handler_gets_what_was_sent(serve: Serve) -> None:
    """A body is not decompressed: a little of it could become a gigabyte."""
    files = {
        "size.py": """
            from aiohttp import web
            from realtime import hookimpl

            @hookimpl
            def register_routes(bus):
                async def size(request):
                    return web.Response(text=str(len(await request.read())))
                return [web.post("/size", size)]
        """
    }
    body = gzip.compress(bytes(100_000))
    async with serve("plugins: [size]\n" + ECHO, files) as serving:
        head, text = await post(serving.port, "/size", body, [("Content-Encoding", "gzip")])
    assert (head.status, text) == (200, str(len(body)))


@pytest.mark.parametrize(
    ("routes", "wrong"),
    [
        ('[web.get("/ws", handle)]', "/ws is already served by plugin 'bad'"),
        ('[web.get("/-/x", handle)]', "/-/x: paths under /-/ are the server's own"),
        ("[handle]", "which is no web.RouteDef"),
        ("7", "register_routes(): TypeError"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
async def test_wrong_routes(serve: Serve, routes: str, wrong: str) -> None:
    """Routes that cannot be served are a mistake of a plugin, told by its name before anything runs."""
    files = {
        "bad.py": f"""
            from aiohttp import web
            from realtime import hookimpl

            async def handle(request):
                return web.Response()

            @hookimpl
            def register_routes():
                return {routes}
        """
    }
    with pytest.raises(ConfigError) as caught:
        async with serve("plugins: [bad]\n" + ECHO, files):
            pass
    assert wrong in str(caught.value)
    assert "bad" in str(caught.value)
    assert re.match(r"config\.yaml:\d+:\d+: ", str(caught.value))


# Lifespans and services


def lifespan(body: str) -> dict[str, str]:
    """A plugin file whose channel, ``spans``, has this lifespan."""
    source = '''
from __future__ import annotations
import asyncio
from contextlib import asynccontextmanager
from realtime import Channel, hookimpl

class Spans(Channel):
    """Has a lifespan."""

    def __init__(self, name, settings, bus):
        super().__init__(name, settings, bus)
        self.go = asyncio.Event()

    @asynccontextmanager
    async def lifespan(self):
{body}

@hookimpl
def register_channels():
    return {{"spans": Spans}}
'''
    return {"spans.py": source.format(body=textwrap.indent(textwrap.dedent(body), " " * 8))}


SPANS = "channels: {spans: {plugin: spans, path: /}}"


async def test_lifespan_that_cannot_begin(serve: Serve) -> None:
    """A lifespan that fails at the start is a mistake by the channel's name, with its own lines."""
    with pytest.raises(ConfigError) as caught:
        async with serve(SPANS, lifespan("raise LookupError('no engine')\nyield")):
            pass
    assert "channel 'spans' of plugin 'spans': its lifespan could not begin: LookupError: no engine" in str(
        caught.value
    )
    assert "spans.py:" in str(caught.value)
    assert str(caught.value).startswith("config.yaml:2:")


async def test_nothing_is_left_of_a_start_that_failed(tmp_path: Path) -> None:
    """When one lifespan fails those before it are left, and the port is free."""
    port = closed_port()
    files = {
        "good.py": lifespan("yield\nself.bus.good_left = True")["spans.py"].replace("spans", "good"),
        "spans.py": lifespan("raise LookupError('no')\nyield")["spans.py"],
    }
    server = make(
        tmp_path,
        f"""
        server: {{listen: ["127.0.0.1:{port}"]}}
        channels: {{good: {{plugin: good, path: /good}}, spans: {{plugin: spans, path: /}}}}
        """,
        files,
    )
    with pytest.raises(ConfigError):
        await server.start()
    bus: Any = server.bus
    assert bus.good_left
    assert not server.ready
    socket.create_server(("127.0.0.1", port)).close()


async def test_lifespan_that_ends_early(serve: Serve) -> None:
    """A lifespan that dies turns ``/-/ready`` red by name; the others are served on."""
    body = """
        async def work():
            await self.go.wait()
            raise RuntimeError("the work is over")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(work())
            yield
    """
    config = "channels: {spans: {plugin: spans, path: /}, echo: {plugin: echo, path: /ws}}"
    async with serve(config, lifespan(body)) as serving, websocket(serving.port, "/ws") as wire:
        assert (await ready(serving.port))[0] == 200
        spans: Any = serving.server.channels["spans"]
        spans.go.set()
        await eventually(lambda: bool(serving.server.lifespans.dead))
        reasons = ["the lifespan of channel 'spans' has ended"]
        assert await ready(serving.port) == (503, {"ready": False, "reasons": reasons})
        await wire.send(text("x"))
        assert await wire.text() == "Echo: x"


async def test_nobody_is_served_before_the_lifespans_have_begun(tmp_path: Path) -> None:
    """While a lifespan starts the server is not ready, and a client that connects waits."""
    server = make(tmp_path, SPANS, lifespan("await self.go.wait()\nyield"))
    starting = asyncio.create_task(server.start())
    await eventually(lambda: bool(server.addresses))
    assert (server.ready, starting.done()) == (False, False)
    spans: Any = server.channels["spans"]
    spans.go.set()
    await soon(starting)
    assert server.ready
    await server.stop()


async def test_lifespan_says_goodbye(serve: Serve) -> None:
    """Lifespans are left while the clients are there: what is published then arrives."""
    async with (
        serve(SPANS, lifespan("yield\nawait self.publish('spans', 'goodbye')")) as serving,
        websocket(serving.port, "/") as wire,
        stream(serving.port, "/") as events,
    ):
        await eventually(lambda: len(serving.server.channels["spans"].clients) == 2)
        stopping = asyncio.create_task(serving.server.stop())
        assert await wire.text() == "goodbye"
        assert await wire.close_code() == 1001
        await wire.send(close(1001))
        assert (await events.event())["data"] == "goodbye"
        await soon(stopping)


async def test_services(serve: Serve) -> None:
    """All services of a plugin run from before the server is ready until it stops."""
    files = {
        "services.py": """
            from contextlib import asynccontextmanager
            from realtime import hookimpl

            lines = []

            @asynccontextmanager
            async def service(bus, name):
                lines.append(f"enter {name}")
                bus.lines = lines
                yield
                lines.append(f"leave {name}")

            @hookimpl
            def register_services(bus):
                return [service(bus, "a"), service(bus, "b")]
        """
    }
    async with serve("plugins: [services]\n" + ECHO, files) as serving:
        bus: Any = serving.server.bus
        assert bus.lines == ["enter a", "enter b"]
    assert bus.lines[2:] == ["leave b", "leave a"]


# The engine


async def test_engine_is_there_before_and_after_the_others(serve: Serve) -> None:
    """The engine begins before the channels' lifespans, and ends after them, when all clients are gone."""
    body = "self.bus.diary.append('channel begins')\nyield\nself.bus.diary.append('channel ends')"
    leave = (
        "async def on_leave(self, client):\n        self.bus.diary.append('client leaves')\n\n    @async"
    )
    source = lifespan(body)["spans.py"].replace("@async", leave, 1)
    async with serve(shelf.BUS + SPANS, {**shelf.FILES, "spans.py": source}) as serving:
        bus: Any = serving.server.bus
        async with websocket(serving.port, "/"):
            await eventually(lambda: len(serving.server.channels["spans"].clients) == 1)
            assert bus.diary == ["engine begins", "channel begins"]
            await soon(serving.server.stop())
    assert bus.diary[2:] == ["channel ends", "client leaves", "engine ends"]


async def test_ids_of_clients_have_the_node_in_front(serve: Serve) -> None:
    """Where processes share their topics an id of a client is of one of them."""
    async with (
        serve(shelf.BUS + ECHO, shelf.FILES) as serving,
        websocket(serving.port, "/ws"),
    ):
        await eventually(lambda: len(serving.server.channels["echo"].clients) == 1)
        assert [client.id for client in serving.server.channels["echo"].clients] == ["n1.c1"]


async def test_engine_that_cannot_be_reached(serve: Serve) -> None:
    """An engine that says why it cannot begin stops the start with that sentence."""
    with pytest.raises(StartError, match=r"^the shelf is too deep$"):
        async with serve(shelf.BUS.replace("}", ", depth: 99}") + ECHO, shelf.FILES):
            pass


async def test_engine_that_fails_at_the_start(serve: Serve) -> None:
    """An engine that raises anything else is a mistake where it is chosen, with its own lines."""
    with pytest.raises(ConfigError) as caught:
        async with serve(shelf.BUS.replace("}", ", depth: 98}") + ECHO, shelf.FILES):
            pass
    told = (
        "bus.engine: engine 'shelf' of plugin 'shelf': its lifespan could not begin: LookupError: no shelf"
    )
    assert told in str(caught.value)
    assert "shelf.py:" in str(caught.value)


async def test_engine_that_ends_early(serve: Serve) -> None:
    """An engine whose lifespan dies turns ``/-/ready`` red by name."""
    goes = """
        import asyncio
        self.bus.go = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.fall())
            yield

    async def fall(self):
        await self.bus.go.wait()
        raise LookupError("the shelf has fallen")
"""
    source = shelf.SOURCE.replace("        yield\n", goes)
    async with serve(shelf.BUS + ECHO, {"shelf.py": source}) as serving:
        bus: Any = serving.server.bus
        assert (await ready(serving.port))[0] == 200
        bus.go.set()
        await eventually(lambda: bool(serving.server.engines.dead))
        assert await ready(serving.port) == (
            503,
            {"ready": False, "reasons": ["the lifespan of engine 'shelf' has ended"]},
        )


async def test_engine_in_trouble(serve: Serve) -> None:
    """While an engine says why nothing can be published the server is not ready, and says it, too."""
    async with serve(shelf.BUS + ECHO, shelf.FILES) as serving:
        serving.server.bus.engine.trouble = "it is away since 12:00"
        reasons = ["the engine shelf: it is away since 12:00"]
        assert await ready(serving.port) == (503, {"ready": False, "reasons": reasons})
        serving.server.bus.engine.trouble = ""
        assert (await ready(serving.port))[0] == 200


# Shutdown


async def test_clients_are_told(serve: Serve) -> None:
    """At a shutdown every client is closed with 1001 and a reason, and answers."""
    async with serve(ECHO) as serving, connect(serving.ws("/ws")) as client:
        await serving.server.stop()
        with pytest.raises(ConnectionClosed) as caught:
            await soon(client.recv())
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1001
        assert "shutting down" in caught.value.rcvd.reason


async def test_on_leave_has_run_when_stop_returns(serve: Serve) -> None:
    """``stop()`` returns when every client has left."""
    async with (
        serve("channels: {lobby: {plugin: chat, path: /chat}}") as serving,
        connect(serving.ws("/chat")) as client,
    ):
        await client.send("alice")
        assert await soon(client.recv()) == "alice joined the chat"
        await serving.server.stop()
        assert not serving.server.channels["lobby"].clients


async def test_nobody_new_while_it_stops(serve: Serve) -> None:
    """While the lifespans are left the server is red, and nobody new is taken."""
    # Of the port that it has given up nobody else is to answer, nor the connection be its own other end.
    config = f'server: {{listen: ["127.0.0.1:{closed_port()}"]}}\n{SPANS}'
    async with serve(config, lifespan("yield\nawait self.go.wait()")) as serving:
        async with dial(serving.port, request("/-/live")) as wire:
            await wire.response()
            stopping = asyncio.create_task(serving.server.stop())
            await eventually(lambda: not serving.server.ready)
            await wire.send(request("/-/ready"))
            head, body = await wire.response()
            assert (head.status, json.loads(body)["reasons"]) == (503, ["shutting down"])
            await wire.send(request("/", UPGRADE))
            head, body = await wire.response()
            assert (head.status, body) == (503, "the server is shutting down\n")
            spans: Any = serving.server.channels["spans"]
            spans.go.set()
            await soon(stopping)
        with pytest.raises(ConnectionRefusedError):
            async with dial(serving.port):
                pass


async def test_clients_that_never_answer_are_cut(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """``stop()`` returns after the grace, whatever the clients do not read."""
    monkeypatch.setattr(connection, "CLOSE_GRACE", 0.1)
    config = "channels: {clock: {plugin: clock, path: /}}"
    async with (
        serve(config) as serving,
        websocket(serving.port, "/", receive_buffer=4096),
        stream(serving.port, "/", receive_buffer=4096),
    ):
        for _ in range(100):
            await serving.server.bus.publish("clock", "x" * 20_000)
            await asyncio.sleep(0)
        async with within(2):
            await serving.server.stop()


async def test_drain_is_the_bound(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """``stop()`` takes no longer than ``drain``, though lifespans, clients and handlers hang."""
    config = """
        server: {listen: ["127.0.0.1:0"], drain: 400ms}
        channels: {spans: {plugin: spans, path: /}}
    """
    files = lifespan("yield\nawait self.go.wait()")
    files["spans.py"] = files["spans.py"].replace(
        "    @asynccontextmanager",
        "    async def on_message(self, client, message):\n        await self.go.wait()\n\n"
        "    @asynccontextmanager",
        1,
    )
    async with serve(config, files) as serving, websocket(serving.port, "/", text("x")):
        await eventually(lambda: len(serving.server.channels["spans"].clients) == 1)
        async with within(1):
            await serving.server.stop()
        assert not serving.server.channels["spans"].clients
    assert "did not end in time" in caplog.text


async def test_request_under_way_at_the_end(serve: Serve) -> None:
    """A raw handler that hangs does not keep the server from ending."""
    files = {
        "hang.py": """
            import asyncio
            from aiohttp import web
            from realtime import hookimpl

            @hookimpl
            def register_routes(bus):
                async def hang(request):
                    bus.begun = True
                    await asyncio.Event().wait()
                return [web.get("/hang", hang)]
        """
    }
    config = 'server: {listen: ["127.0.0.1:0"], drain: 200ms}\nplugins: [hang]\n' + ECHO
    async with serve(config, files) as serving, dial(serving.port, request("/hang")) as wire:
        bus: Any = serving.server.bus
        await eventually(lambda: hasattr(bus, "begun"))
        await soon(serving.server.stop())
        await wire.rest()


async def test_no_descriptor_is_left(tmp_path: Path) -> None:
    """A server that has ended holds no descriptor any more."""
    async with make(tmp_path, ECHO) as server, websocket(server.addresses[0].port, "/ws"):
        pass  # what is opened once for the whole process is open now
    gc.collect()  # what tests before have left holds none that could go in the middle
    before = len(os.listdir("/proc/self/fd"))
    async with make(tmp_path, ECHO) as server, websocket(server.addresses[0].port, "/ws"):
        pass
    assert len(os.listdir("/proc/self/fd")) == before


async def test_channel_that_is_off(serve: Serve) -> None:
    """A channel with ``enabled: false`` is not there."""
    config = "channels: {echo: {plugin: echo, path: /ws, enabled: false}}"
    async with serve(config) as serving:
        assert serving.server.channels == {}
        assert (await ask(serving.port, "/ws"))[0].status == 404


async def test_one_plugin_serves_many_channels(serve: Serve) -> None:
    """Two channels of one plugin are two: settings, clients and topics of their own."""
    config = """
        channels:
          one: {plugin: chat, path: /one, max_name: 3}
          two: {plugin: chat, path: /two}
    """
    async with (
        serve(config) as serving,
        websocket(serving.port, "/one", text("ann")) as one,
        websocket(serving.port, "/two", text("anna")) as two,
    ):
        assert await one.text() == "ann joined the chat"
        assert await two.text() == "anna joined the chat"
        await one.send(text("hi"))
        assert await one.text() == "ann: hi"
        await two.send(text("ho"))
        assert await two.text() == "anna: ho"
        async with websocket(serving.port, "/one", text("anna")) as third:
            assert await third.close_code() == 1008
