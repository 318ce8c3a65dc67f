"""Behind nginx, as the docs have it and as it is: streams, clients that vanish, reloads, restarts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import wire
from conftest import Serving, make
from proxying import nginx, of_the_docs
from servers import closed_port
from wire import EVENTS, LINES, eventually, request, soon, text

import realtime
import realtime.transports.websocket as websocket_module
from faults.catalogue import fault
from faults.conftest import Calm

Behind = tuple[Serving, int]

CONFIG = """
server:
  listen: ["127.0.0.1:0", "unix:{directory}/s.sock"]
  trusted_proxies: [unix, 127.0.0.1]
channels:
  ws: {{plugin: echo, path: /ws}}
  topics: {{plugin: topics, path: "/topics/{{topic...}}", history: 10, allow: {{publish: anyone}}}}
  clock: {{plugin: clock, path: /events, interval: 1h}}
"""
KINDS = pytest.mark.parametrize("site", ["of the docs", "as it is"])


def as_it_is(directory: Path, port: int) -> str:
    """The shortest site there is: HTTP/1.0 to the server, buffers, nothing said about the client."""
    passed = f"proxy_pass http://unix:{directory}/s.sock:;"
    return f"server {{ listen 127.0.0.1:{port}; location / {{ {passed} }} }}"


@pytest.fixture
async def behind(calm: Calm, tmp_path: Path, site: str) -> AsyncIterator[Behind]:
    """A server behind nginx with one of the sites, and nginx's port."""
    port = closed_port()
    text = (of_the_docs if site == "of the docs" else as_it_is)(tmp_path, port)
    async with calm(CONFIG.format(directory=tmp_path)) as serving, nginx(tmp_path, text, port):
        yield serving, port


@asynccontextmanager
async def reading(port: int, path: str, kind: wire.Headers) -> AsyncIterator[wire.Wire]:
    """A stream whose welcome has come."""
    async with wire.dial(port, request(path, kind)) as client:
        assert (await client.head()).status == 200
        assert await said(client, kind)
        yield client


async def said(client: wire.Wire, kind: wire.Headers) -> str:
    """The event that comes next, and its data."""
    if kind is LINES:
        line = await client.line()
        return f"{line['event']} {line['data']}"
    event = await client.event()
    return f"{event.get('event', 'message')} {event.get('data')}"


@KINDS
@pytest.mark.parametrize("kind", [EVENTS, LINES], ids=["events", "lines"])
@fault(76)
async def test_each_as_it_comes(behind: Behind, kind: wire.Headers) -> None:
    """A stream begins at once, and each message comes through before the next is published."""
    serving, port = behind
    async with reading(port, "/topics/a", kind) as client:
        for number in range(3):
            await serving.server.bus.publish("topics/a", f"number {number}")
            assert await said(client, kind) == f"message number {number}"


@KINDS
async def test_post(behind: Behind) -> None:
    """A POST goes through, and under its key it is heard once."""
    serving, port = behind
    key = [("Idempotency-Key", "k")]
    first, second = [await wire.post(port, "/topics/a", b"hi", key) for _ in range(2)]
    assert first[0].status == second[0].status == 202
    assert first[1] == second[1]
    assert serving.server.bus.topic("topics/a").head == 1


@KINDS
@pytest.mark.parametrize("kind", [EVENTS, LINES], ids=["events", "lines"])
@fault(78)
async def test_reader_that_leaves(behind: Behind, kind: wire.Headers) -> None:
    """nginx hands on that a reader has gone."""
    serving, port = behind
    async with reading(port, "/topics/a", kind) as client:
        assert len(serving.server.channels["topics"].clients) == 1
        client.reset()
        await eventually(lambda: not serving.server.channels["topics"].clients)


@pytest.mark.parametrize("site", ["of the docs"])
@fault(40)
async def test_websocket_that_leaves(behind: Behind) -> None:
    """nginx hands on that a WebSocket has gone without a word."""
    serving, port = behind
    async with wire.websocket(port, "/ws", text("hi")) as client:
        assert await client.text() == "Echo: hi"
        client.reset()
        await eventually(lambda: not serving.server.channels["ws"].clients)


@pytest.mark.parametrize("site", ["of the docs"])
@fault(56)
async def test_websocket_that_is_silent(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pings go through nginx: a client that vanished behind it without a FIN is cut, and nginx lets go."""
    monkeypatch.setattr(websocket_module, "PING_AFTER", 0.1)
    monkeypatch.setattr(websocket_module, "PONG_WITHIN", 0.1)
    serving, port = behind
    async with wire.websocket(port, "/ws") as client:
        await eventually(lambda: len(serving.server.channels["ws"].clients) == 0)
        assert (await client.frame()).opcode == wire.PING
        assert await client.rest() == b""


@pytest.mark.parametrize("site", ["of the docs"])
@fault(23)
async def test_only_a_trusted_proxy_tells_the_address(behind: Behind) -> None:
    """Somebody else who asks the server directly is not believed."""
    serving, _ = behind
    forged = [*EVENTS, ("X-Forwarded-For", "203.0.113.7")]
    reader, writer = await asyncio.open_connection("127.0.0.1", serving.port, local_addr=("127.0.0.2", 0))
    writer.write(request("/events", forged))
    await soon(reader.readuntil(b"\r\n\r\n"))
    (client,) = serving.server.channels["clock"].clients
    writer.close()
    assert client.remote == "127.0.0.2"


@pytest.mark.parametrize("site", ["as it is"])
async def test_nginx_that_tells_nothing_is_nobody_local(behind: Behind) -> None:
    """Who comes by an nginx that says nothing about its clients is no program of this machine."""
    _, port = behind
    head, body = await wire.post(port, "/topics/a", b"hi")
    kicked, _ = await wire.ask(port, "/topics/a?client=c1", method="DELETE")
    assert head.status == 202, body
    assert kicked.status in (401, 403)


@pytest.mark.parametrize("site", ["of the docs"])
async def test_reload(behind: Behind, tmp_path: Path) -> None:
    """nginx can be reloaded while streams are open: they go on, and new ones are served by the new site."""
    serving, port = behind
    config = tmp_path / "nginx" / "site.conf"
    async with wire.websocket(port, "/ws") as client, reading(port, "/topics/a", EVENTS) as stream:
        more = "location /new { return 204; }\nlocation / {"
        config.write_text(config.read_text().replace("location / {", more))
        os.kill(int((tmp_path / "nginx" / "pid").read_text()), signal.SIGHUP)
        async with asyncio.timeout(wire.PATIENCE):
            while (await wire.ask(port, "/new"))[0].status != 204:
                pass
        await client.send(text("still"))
        assert await client.text() == "Echo: still"
        await serving.server.bus.publish("topics/a", "there")
        assert await said(stream, EVENTS) == "message there"
        async with wire.websocket(port, "/ws", text("new")) as another:
            assert await another.text() == "Echo: new"


@pytest.mark.parametrize(
    ("scheme", "site"), [("http", "of the docs"), ("http", "as it is"), ("ws", "of the docs")]
)
async def test_restart(tmp_path: Path, scheme: str, site: str) -> None:
    """Clients come back through nginx to a server that was restarted, and miss nothing that is kept."""
    port, config = closed_port(), CONFIG.format(directory=tmp_path)
    text = (of_the_docs if site == "of the docs" else as_it_is)(tmp_path, port)
    backoff = realtime.Backoff(first=0.05, most=0.1, restart=(0.0, 0.05), advised=0.05)
    async with nginx(tmp_path, text, port), make(tmp_path, config) as server:
        client = realtime.connect(f"{scheme}://127.0.0.1:{port}/topics/a", backoff=backoff)
        async with client as messages:
            await server.bus.publish("topics/a", "before")
            assert (await soon(anext(messages))).data == "before"
            await server.stop()
            assert (await wire.ask(port, "/topics/a", EVENTS))[0].status == 502
            async with make(tmp_path, config) as again:
                await again.bus.publish("topics/a", "after")
                heard = []
                while "after" not in heard:
                    heard.append((await soon(anext(messages))).data)


@KINDS
@fault(85)
async def test_end_of_a_stream(tmp_path: Path, site: str) -> None:
    """A server that stops ends its streams, and nginx hands on the last event and when to come back."""
    port = closed_port()
    sites = of_the_docs if site == "of the docs" else as_it_is
    async with (
        nginx(tmp_path, sites(tmp_path, port), port),
        make(tmp_path, CONFIG.format(directory=tmp_path)) as server,
        reading(port, "/topics/a", EVENTS) as client,
    ):
        await server.stop()
        last = await client.event()
        assert await client.chunk() == ""
        assert (json.loads(last["data"])["code"], 1000 <= int(last["retry"]) <= 5000) == (1001, True)
