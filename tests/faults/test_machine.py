"""Rows 116 and 117: the process is told to end, killed, or short of what it needs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from command import Running, running
from conftest import Serve
from wire import (
    CLOSE,
    LINES,
    Wire,
    ask,
    close,
    dial,
    eventually,
    flood,
    post,
    posting,
    request,
    soon,
    stream,
    text,
    websocket,
)

from faults.catalogue import fault
from faults.conftest import Calm

#: A channel that does slowly what it is told.
SLOW = '''
import asyncio
from realtime import Channel, hookimpl


class Slow(Channel):
    """What it is told it does, and then it publishes it."""

    async def on_message(self, client, message):
        await asyncio.sleep(0.3)
        return await self.publish(client.topic, message.data)


@hookimpl
def register_channels():
    return {"slow": Slow}
'''
#: A channel whose end hangs wherever it can.
HANGING = '''
import asyncio
import threading
import time
from contextlib import asynccontextmanager
from realtime import Channel, hookimpl


async def stubborn():
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass


class Hanging(Channel):
    """Nothing of it ends."""

    async def on_message(self, client, message):
        if message.data == "spin":
            self.log.info("spinning")
            while True:
                pass
        if message.data == "sleep":
            self.log.info("sleeping")
            time.sleep(3600)
        await stubborn()

    async def on_leave(self, client):
        await stubborn()

    @asynccontextmanager
    async def lifespan(self):
        self.task = asyncio.create_task(stubborn(), name="stubborn")
        threading.Thread(target=threading.Event().wait, name="lasting").start()
        yield
        await stubborn()


@hookimpl
def register_channels():
    return {"hanging": Hanging}
'''


@asynccontextmanager
async def served(
    directory: Path, config: str, *arguments: str, through: tuple[str, ...] = (), **environment: str
) -> AsyncIterator[tuple[Running, int]]:
    """A server in a process of its own that has the plugins above; gives its port, too."""
    (directory / "plugins").mkdir(exist_ok=True)
    for name, source in {"hanging.py": HANGING, "slow.py": SLOW}.items():
        (directory / "plugins" / name).write_text(source)
    (directory / "config.yaml").write_text(config)
    async with running(directory, *arguments, through=through, **environment) as server:
        yield server, int((await server.ready()).rpartition(":")[2])


def drained_in(drain: str, *channels: str) -> str:
    """A config with a drain, and these channels beside an echo."""
    lines = ["echo: {plugin: echo, path: /ws}", *channels]
    server = f"server: {{listen: ['127.0.0.1:0'], drain: {drain}}}\n"
    return f"{server}channels:\n" + "".join(f"  {line}\n" for line in lines)


async def goodbye(wire: Wire) -> int:
    """Read what there is up to the close frame, and answer it; returns the code."""
    while (frame := await wire.frame()).opcode != CLOSE:
        pass
    await wire.send(close(frame.code))
    return frame.code


# Row 116: SIGTERM


@fault(116)
async def test_everything_at_once(tmp_path: Path) -> None:
    """Readers and talkers of every kind, one who never reads and a plugin whose end hangs: 0, in time."""
    config = drained_in(
        "3s",
        "room: {plugin: chat, path: /room, history: 10000}",
        "slow: {plugin: slow, path: /slow}",
        "hanging: {plugin: hanging, path: /hanging}",
    )
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack, served(tmp_path, config) as (server, port):
        enter = stack.enter_async_context
        hanging = await enter(websocket(port, "/hanging", text("hang")))
        never = await enter(websocket(port, "/ws", receive_buffer=4096))
        await flood(never)
        for number in range(300):
            await post(port, "/room?name=backend", f"{number} {'x' * 1000}".encode())
        readers = [await enter(websocket(port, "/room", text(f"reader-{i}"))) for i in range(100)]
        replays = [await enter(websocket(port, "/room?since=earliest", text(f"r{i}"))) for i in range(10)]
        streams = [await enter(stream(port, "/room")) for _ in range(20)]
        lines = await enter(dial(port, request("/room", LINES)))
        key = [("Idempotency-Key", "once")]
        posts = [await enter(dial(port, posting("/slow", b"said", headers))) for headers in ([], key, key)]
        snapshot = await enter(dial(port, request("/room", [("Accept", "application/json")])))
        joining = [await enter(dial(port, request("/room"))) for _ in range(20)]
        begun = loop.time()
        server.process.send_signal(signal.SIGTERM)
        assert {await goodbye(wire) for wire in (*readers, *replays, hanging)} == {1001}
        rests = [(await wire.rest()).decode() for wire in (*streams, lines)]
        assert all("realtime:bye" in rest and rest.endswith("0\r\n\r\n") for rest in rests)
        answers = [json.loads((await wire.response())[1]) for wire in posts]
        assert answers[1] == answers[2] != answers[0]
        assert (await snapshot.head()).status == 200
        del joining
        assert await server.end() == 0
        assert loop.time() - begun < 3
    assert "Traceback" not in server.said
    assert "ended, although this would not: " in server.said
    assert "thread 'lasting'" in server.said


@fault(116)
@pytest.mark.parametrize("wish", ["spin", "sleep"])
async def test_plugin_that_holds_the_loop(tmp_path: Path, wish: str) -> None:
    """A plugin that never gives the event loop back keeps no server from ending, and is named."""
    config = drained_in("1s", "hanging: {plugin: hanging, path: /hanging}")
    async with served(tmp_path, config) as (server, port), websocket(port, "/hanging", text(wish)):
        await server.until(wish)
        assert await server.end(signal.SIGTERM) == 0
    assert "ended, although this would not: on_message in " in server.said
    assert "hanging.py" in server.said


@fault(116)
async def test_second_signal_while_the_loop_is_held(tmp_path: Path) -> None:
    """A second signal ends it at once, though a plugin holds the event loop."""
    config = drained_in("1h", "hanging: {plugin: hanging, path: /hanging}")
    async with served(tmp_path, config) as (server, port), websocket(port, "/hanging", text("spin")):
        await server.until("spinning")
        server.process.send_signal(signal.SIGTERM)
        assert await server.end(signal.SIGINT) == 0


@fault(116)
async def test_killed(tmp_path: Path) -> None:
    """After SIGKILL under load the same config starts again, on the same port and the same socket file."""
    port = free_port()
    config = drained_in("1s").replace("127.0.0.1:0", f"127.0.0.1:{port}', 'unix:{tmp_path}/rt.sock")
    for _ in range(2):
        async with AsyncExitStack() as stack:
            (tmp_path / "config.yaml").write_text(config)
            server = await stack.enter_async_context(running(tmp_path))
            await server.ready()
            never = await stack.enter_async_context(websocket(port, "/ws", receive_buffer=4096))
            await flood(never)
            async with dial(0, request("/-/live"), path=f"{tmp_path}/rt.sock") as wire:
                assert (await wire.response())[0].status == 200
            server.process.kill()
            assert await soon(server.process.wait()) == -signal.SIGKILL


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


@fault(116)
async def test_sigpipe(tmp_path: Path) -> None:
    """SIGPIPE does nothing."""
    async with served(tmp_path, drained_in("1s")) as (server, port):
        server.process.send_signal(signal.SIGPIPE)
        async with websocket(port, "/ws", text("hi")) as wire:
            assert await wire.text() == "Echo: hi"
        assert await server.end(signal.SIGTERM) == 0


SPANS = {
    "spans.py": """
        import asyncio
        from contextlib import asynccontextmanager
        from realtime import Channel, hookimpl

        class Spans(Channel):
            @asynccontextmanager
            async def lifespan(self):
                self.heard, self.go = asyncio.Event(), asyncio.Event()
                yield
                await self.publish(self.name, "farewell")
                await self.go.wait()

            async def on_message(self, client, message):
                self.heard.set()
                await self.go.wait()
                return await self.publish(self.name, message.data)

        @hookimpl
        def register_channels():
            return {"spans": Spans}
    """
}


@fault(116)
async def test_on_open_connections(serve: Serve) -> None:
    """From the signal on ready is red, and a new request on an open connection is 503 and its last."""
    config = "channels: {spans: {plugin: spans, path: /spans}}"
    async with serve(config, SPANS) as serving:
        asked: dict[str, Wire] = {}
        async with AsyncExitStack() as stack:
            for path in ("/", "/spans", "/-/ready", "/nowhere"):
                asked[path] = await stack.enter_async_context(dial(serving.port, request("/-/live")))
                assert (await asked[path].response())[0].status == 200
            spans: Any = serving.server.channels["spans"]
            stopping = asyncio.create_task(serving.server.stop())
            await asyncio.sleep(0)
            for path, wire in asked.items():
                await wire.send(request(path))
                head, body = await wire.response()
                assert (head.status, "shutting down" in body) == (503, True)
                assert path == "/-/ready" or head.headers["connection"] == "close"
            spans.go.set()
            await soon(stopping)


@fault(116)
async def test_posts_under_way(serve: Serve) -> None:
    """A POST that is being heard is answered, and the server waits for it; the goodbye was seen before."""
    config = "channels: {spans: {plugin: spans, path: /spans}}"
    async with (
        serve(config, SPANS) as serving,
        stream(serving.port, "/spans") as events,
        dial(serving.port, posting("/spans", b"said")) as wire,
    ):
        spans: Any = serving.server.channels["spans"]
        await soon(spans.heard.wait())
        stopping = asyncio.create_task(serving.server.stop())
        assert (await events.event())["data"] == "farewell"
        assert not stopping.done()
        spans.go.set()
        head, _ = await wire.response()
        assert head.status == 202
        await soon(stopping)


@fault(116)
async def test_advice_when_to_come_back(serve: Serve) -> None:
    """Each client is told another delay, from one to five seconds, for all would come at once."""
    config = "channels: {room: {plugin: chat, path: /room}}"
    async with serve(config) as serving, AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(stream(serving.port, "/room")) for _ in range(20)]
        await serving.server.stop()
        rests = [(await wire.rest()).decode() for wire in wires]
        delays = [int(delay) for rest in rests for delay in re.findall(r"^retry: (\d+)$", rest, re.MULTILINE)]
    assert len(delays) == len(wires), rests[0]
    assert all(1000 <= delay <= 5000 for delay in delays)
    assert len(set(delays)) > 10


@fault(116)
async def test_join_storm_while_it_drains(serve: Serve) -> None:
    """Those who come while it drains are turned away, and keep it from nothing."""
    config = "channels: {spans: {plugin: spans, path: /spans}}"
    async with serve(config, SPANS) as serving, AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(dial(serving.port)) for _ in range(100)]
        for wire in wires:
            await wire.send(request("/-/live"))
            await wire.response()
        stopping = asyncio.create_task(serving.server.stop())
        await asyncio.sleep(0)
        for wire in wires:
            await wire.send(request("/spans", [("Accept", "text/event-stream")]))
        assert {(await wire.response())[0].status for wire in wires} == {503}
        spans: Any = serving.server.channels["spans"]
        spans.go.set()
        await soon(stopping)
