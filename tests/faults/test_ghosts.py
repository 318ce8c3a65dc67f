"""Rows 40 and 56 to 64, and more of their kind: peers that go, vanish, or are there and do nothing."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import wire as client
from conftest import Serve, Serving
from needs import lacks, need
from timing import within
from wire import (
    EVENTS,
    LINES,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    Wire,
    dial,
    eventually,
    flood,
    frame,
    posting,
    request,
    soon,
    stream,
    text,
    websocket,
)

from faults.catalogue import fault
from faults.conftest import Calm
from realtime import door, sockets
from realtime.transports import connection, connections, takeover, websocket as transport

ROOM = "room: {plugin: chat, path: /room}"
#: A channel that counts who comes and goes, and takes its time over what it is told.
COUNTING = {
    "counting.py": """
        import asyncio
        from collections import Counter
        from realtime import Channel, hookimpl

        class Counting(Channel):
            transports = ("websocket", "sse", "ndjson", "post")

            def __init__(self, name, settings, bus):
                super().__init__(name, settings, bus)
                self.seen, self.go = Counter(), asyncio.Event()

            async def on_connect(self, client):
                self.seen["connect"] += 1
                if "greet" in client.query:
                    await client.receive(timeout=5)

            async def on_join(self, client):
                self.seen["join"] += 1

            async def on_message(self, client, message):
                self.seen["message"] += 1
                if message.data == "wait":
                    await self.go.wait()
                elif message.data == "bye":
                    await client.close(1000, "as you wish")

            async def on_leave(self, client):
                self.seen["leave"] += 1

        @hookimpl
        def register_channels():
            return {"counting": Counting}
    """
}
COUNTED = "counting: {plugin: counting, path: /count, lag: 1h, lag_bytes: 64MiB, history: 1000}"


def connected(port: int) -> list[str]:
    """What the kernel has of connections to a port, on the side of the server, but TIME_WAIT."""
    found = []
    for file in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(file).read_text().splitlines()[1:]:
            _, local, remote, state, *_ = line.split()
            if int(local.rpartition(":")[2], 16) == port and state not in ("06", "0A"):
                found.append(f"{remote} {state}")
    return found


# Row 40: however, and whenever, a client goes

WAYS: dict[str, Callable[[Wire], None]] = {
    "FIN": Wire.finish,
    "RST": Wire.reset,
    "FIN of both": lambda wire: wire.socket.close(),
}
#: What has been sent by then, and what the channel has seen of it.
PHASES: dict[str, tuple[bytes, dict[str, int]]] = {
    "in the head": (request("/count", UPGRADE)[:-20], {}),
    "in the greeting": (request("/count?greet", UPGRADE), {"connect": 1}),
    "when it has joined": (request("/count", UPGRADE), {"join": 1}),
    "in a frame": (request("/count", UPGRADE) + text("half")[:-2], {"join": 1}),
    "in a message": (request("/count", UPGRADE) + frame(TEXT, b"half", fin=False), {"join": 1}),
    "while it is heard": (request("/count", UPGRADE) + text("wait"), {"message": 1}),
    "while it is closed": (request("/count", UPGRADE) + text("bye"), {"message": 1}),
    "in a replay": (request("/count?since=earliest", UPGRADE), {"join": 1}),
    "on a stream": (request("/count", EVENTS), {"join": 1}),
    "on lines": (request("/count", LINES), {"join": 1}),
    "in the body of a POST": (posting("/count", b"half")[:-2], {}),
    "while its POST is heard": (posting("/count", b"wait"), {"message": 1}),
}


@fault(40)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("phase", PHASES)
async def test_client_that_goes(
    calm: Calm, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, phase: str, way: str
) -> None:
    """``on_leave`` runs once where ``on_join`` did, and the log has one line of it."""
    # Who does not read is not read from, so its FIN is seen when it is given up.
    monkeypatch.setattr(connection, "STALL", 0.3)
    caplog.set_level("INFO")
    sent, seen = PHASES[phase]
    async with calm(COUNTED, COUNTING) as serving:
        counting: Any = serving.server.channels["counting"]
        if phase == "in a replay":
            for _ in range(100):
                await serving.server.bus.publish("counting", "x" * 50_000)
        async with dial(serving.port, sent, receive_buffer=4096) as wire:
            await eventually(lambda: counting.seen >= Counter(seen))
            WAYS[way](wire)
            counting.go.set()
            await eventually(lambda: counting.seen["leave"] == counting.seen["join"])
            await eventually(lambda: not serving.server.channels["counting"].clients)
        assert counting.seen["join"] <= 1
        left = [one for one in caplog.records if "counting" in one.name and one.levelname == "INFO"]
        assert len(left) <= 1, [one.getMessage() for one in left]
        assert seen.get("join", 0) <= len(left)


@fault(40)
async def test_half_close_is_answered(calm: Calm) -> None:
    """What a client said before its FIN is heard, and its connection is closed in turn."""
    async with calm(COUNTED, COUNTING) as serving, websocket(serving.port, "/count") as wire:
        await wire.send(text("one") + text("two"))
        wire.finish()
        assert await wire.rest() == b""
        counting: Any = serving.server.channels["counting"]
        await eventually(lambda: counting.seen["message"] == 2 and counting.seen["leave"] == 1)


@fault(40)
async def test_post_with_a_key_cut_at_each_byte(calm: Calm) -> None:
    """A POST that is cut anywhere is heard whole or not at all, and once under its key."""
    key = [("Idempotency-Key", "k")]
    whole = posting("/count", b"said", key)
    async with calm(COUNTED, COUNTING) as serving:
        counting: Any = serving.server.channels["counting"]
        for length in range(1, len(whole)):
            async with dial(serving.port, whole[:length]) as wire:
                wire.reset()
        for _ in range(3):
            async with dial(serving.port, whole) as wire:
                wire.reset()
        async with dial(serving.port, whole) as wire:
            assert (await wire.response())[0].status == 202
        assert counting.seen["message"] == 1


# Rows 56 and 57: a peer that vanishes


class Elsewhere:
    """Another machine, as far as the kernel can play one, with a cable that can be pulled."""

    def __init__(self, name: str) -> None:
        self.name = name
        net = f"10.213.{os.getpid() % 256}"
        self.here, self.there = f"{net}.1", f"{net}.2"

    def pull(self) -> None:
        """Pull the cable: nothing arrives any more, and nobody is told."""
        ip("-n", self.name, "link", "set", f"{self.name}b", "down")

    def dial(self, port: int, data: bytes) -> Wire:
        """A connection from there, with the first bytes sent."""
        with open(f"/run/netns/{self.name}") as space:
            if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), 0):  # of this thread alone
                raise OSError(ctypes.get_errno(), "setns")
        sock = socket.create_connection((self.here, port), timeout=5)
        sock.sendall(data)
        sock.setblocking(False)
        return Wire(sock)


def ip(*arguments: str) -> None:
    """Run ``ip``, which must succeed."""
    command = [need("ip", "apt-get install iproute2"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lacks(f"to make a network: {' '.join(arguments)}: {done.stderr.strip()}")


#: No two have one name: the kernel takes its time to forget the first.
NUMBERS = itertools.count(1)


@pytest.fixture
def elsewhere() -> Any:
    """A network namespace; the test is skipped where none can be made."""
    if not sys.platform.startswith("linux") or os.geteuid():
        lacks("root, for a network namespace")
    place = Elsewhere(f"rt{os.getpid() % 10_000}n{next(NUMBERS)}")
    ip("netns", "add", place.name)
    try:
        pair = (f"{place.name}a", "type", "veth", "peer", "name", f"{place.name}b", "netns", place.name)
        ip("link", "add", *pair)
        ip("addr", "add", f"{place.here}/30", "dev", f"{place.name}a")
        ip("link", "set", f"{place.name}a", "up")
        ip("-n", place.name, "addr", "add", f"{place.there}/30", "dev", f"{place.name}b")
        ip("-n", place.name, "link", "set", f"{place.name}b", "up")
        yield place
    finally:
        ip("link", "del", f"{place.name}a")
        ip("netns", "del", place.name)


Told = asyncio.Task[list[str]]


@asynccontextmanager
async def vanished(
    serve: Serve, elsewhere: Elsewhere, data: bytes
) -> AsyncIterator[tuple[Serving, Wire, Told]]:
    """A server with a chat, a WebSocket of bob's to it with what is said there until somebody has left, and
    a client whose cable has been pulled."""
    config = f"server: {{listen: ['0.0.0.0:0']}}\nchannels:\n  {ROOM}"
    async with serve(config) as serving, websocket(serving.port, "/room", text("bob")) as bob:
        assert await bob.text() == "bob joined the chat"
        told = asyncio.create_task(pongs(bob))  # from now on, however long the other takes to come
        loop = asyncio.get_running_loop()
        ghost: asyncio.Future[Wire] = loop.create_future()

        def call() -> None:
            loop.call_soon_threadsafe(ghost.set_result, elsewhere.dial(serving.port, data))

        thread = threading.Thread(target=call)  # its own, for it stays in the other network
        thread.start()
        wire = await soon(ghost)
        thread.join()
        with wire.socket:
            room = serving.server.channels["room"]
            await eventually(lambda: len(room.clients) == 2)
            elsewhere.pull()
            yield serving, bob, told


@fault(56)
async def test_peer_that_vanishes(
    serve: Serve, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that vanishes while idle is gone after the ping and its wait; the room is told, the kernel has
    nothing left of it."""
    monkeypatch.setattr(transport, "PING_AFTER", 0.2)
    monkeypatch.setattr(transport, "PONG_WITHIN", 0.3)
    ghost = request("/room", UPGRADE) + text("ghost")
    async with vanished(serve, elsewhere, ghost) as (serving, _, told):
        assert await soon(told) == ["ghost joined the chat", "ghost left the chat"]
        await eventually(lambda: not [one for one in connected(serving.port) if "0100007F" not in one])


async def pongs(wire: Wire) -> list[str]:
    """Answer pings until somebody has left; returns what was said."""
    said: list[str] = []
    while not said or not said[-1].endswith("left the chat"):
        got = await wire.frame()
        if got.opcode == PING:
            await wire.send(frame(PONG, got.payload))
        else:
            said.append(got.payload.decode())
    return said


@fault(57)
@pytest.mark.parametrize(
    "opening",
    [request("/room", UPGRADE) + text("ghost"), request("/room?name=ghost", EVENTS)],
    ids=["websocket", "events"],
)
async def test_peer_that_vanishes_with_data_on_its_way(
    serve: Serve, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch, opening: bytes
) -> None:
    """With data on its way it is gone after the kernel's time-out, and its descriptor with it."""
    monkeypatch.setattr(sockets, "TCP_USER_TIMEOUT", 400)
    async with vanished(serve, elsewhere, opening) as (serving, bob, told):
        await bob.send(text("anybody?"))
        assert (await soon(told))[-1] == "ghost left the chat"
        await eventually(lambda: not [one for one in connected(serving.port) if "0100007F" not in one])


#: A client that says its name and is stopped then, as a laptop is that is closed.
STOPPED = """
import os, signal, socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.sendall(bytes.fromhex(sys.argv[2]))
sock.recv(1000)
os.kill(os.getpid(), signal.SIGSTOP)
sock.recv(1)
"""


@fault(56)
async def test_client_that_is_stopped(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose process is stopped, whose kernel still acknowledges all, is gone just so."""
    monkeypatch.setattr(transport, "PING_AFTER", 0.2)
    monkeypatch.setattr(transport, "PONG_WITHIN", 0.3)
    config = f"channels:\n  {ROOM}"
    async with serve(config) as serving, websocket(serving.port, "/room", text("bob")) as bob:
        assert await bob.text() == "bob joined the chat"
        opening = (request("/room", UPGRADE) + text("ghost")).hex()
        told = asyncio.create_task(pongs(bob))  # from now on, however long the other takes to come
        program = (sys.executable, "-c", STOPPED, str(serving.port), opening)
        async with client.running(program):
            assert await soon(told) == ["ghost joined the chat", "ghost left the chat"]


@fault(57)
@pytest.mark.parametrize("kind", ["websocket", "json", "events", "lines"])
async def test_client_that_never_reads(serve: Serve, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A client that takes nothing for :data:`STALL` is cut, and the kernel, too, has nothing left of it."""
    monkeypatch.setattr(connection, "STALL", 0.3)
    headers = {
        "websocket": UPGRADE,
        "json": [*UPGRADE, ("Sec-WebSocket-Protocol", "realtime.v1.json")],
        "events": EVENTS,
        "lines": LINES,
    }[kind]
    config = f"channels:\n  {COUNTED}"
    opening = request("/count", headers)
    async with (
        serve(config, COUNTING) as serving,
        dial(serving.port, opening, receive_buffer=4096),
    ):
        counting: Any = serving.server.channels["counting"]
        await eventually(lambda: counting.seen["join"] == 1)
        for _ in range(100):
            await serving.server.bus.publish("counting", "x" * 50_000)
            await asyncio.sleep(0)
        await eventually(lambda: counting.seen["leave"] == 1)
        await eventually(lambda: not connected(serving.port))


#: What is answered by aiohttp, and more than a transport and the kernel hold.
ANSWERED = {
    "post": posting("/ws", b"x" * 500_000),
    "last post": posting("/ws", b"x" * 500_000, [("Connection", "close")]),
    "posts": posting("/ws", b"x" * 100_000) * 20,
    "snapshot": request("/feed/a", [("Accept", "application/json")]),
}


@fault(57)
@pytest.mark.parametrize("sent", ANSWERED.values(), ids=ANSWERED)
@pytest.mark.parametrize("by", ["tcp", "unix"])
async def test_answer_that_is_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Serve, by: str, sent: bytes
) -> None:
    """Who does not take its answer is cut after :data:`STALL`, too, by a unix socket as well."""
    monkeypatch.setattr(connections, "STALL", 0.6)
    monkeypatch.setattr(door, "LOOK", 0.1)
    config = f"""
        server: {{listen: ["127.0.0.1:0", "unix:{tmp_path}/s"], limits: {{max_message: 1MiB}}}}
        channels:
          echo: {{plugin: echo, path: /ws}}
          feed: {{plugin: topics, path: "/feed/{{topic...}}", history: 100}}
    """
    async with serve(config) as serving:
        for _ in range(10):
            await client.post(serving.port, "/feed/a", b"x" * 90_000)
        runner = serving.server._runner
        assert runner is not None
        http = runner.server
        assert http is not None
        path = f"{tmp_path}/s" * (by == "unix")
        await eventually(lambda: not http.connections)  # none of those by which it was published
        async with dial(serving.port, path=path, receive_buffer=4096) as wire:
            sending = asyncio.create_task(wire.send(sent))
            await eventually(lambda: bool(http.connections))
            await eventually(lambda: not http.connections)
            await asyncio.gather(sending, return_exceptions=True)
            assert not connected(serving.port)


@fault(57)
async def test_answer_that_is_never_read_before_the_next_request(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who says no other request in time, and still has an answer to take, does not keep its descriptor."""
    monkeypatch.setattr(door, "HEAD_TIMEOUT", 0.2)
    monkeypatch.setattr(door, "GRACE", 0.2)
    config = f"""
        server: {{listen: ["127.0.0.1:0", "unix:{tmp_path}/s"], limits: {{max_message: 1MiB}}}}
        channels: {{echo: {{plugin: echo, path: /ws}}}}
    """
    async with serve(config) as serving:
        runner = serving.server._runner
        assert runner is not None
        http = runner.server
        assert http is not None
        async with dial(serving.port, posting("/ws", b"x" * 240_000), path=f"{tmp_path}/s"):
            await eventually(lambda: bool(http.connections))
            await eventually(lambda: not http.connections)


@fault(57)
async def test_client_that_does_not_take_its_close(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that was given up, and takes no close frame, is gone from the kernel soon after."""
    monkeypatch.setattr(connection, "CLOSE_GRACE", 0.1)
    config = f"channels:\n  {COUNTED.replace('64MiB', '256KiB').replace(', history: 1000', '')}"
    async with serve(config, COUNTING) as serving, websocket(serving.port, "/count", receive_buffer=4096):
        counting: Any = serving.server.channels["counting"]
        await eventually(lambda: counting.seen["join"] == 1)
        while not counting.seen["leave"]:
            await serving.server.bus.publish("counting", "x" * 8000)
            await asyncio.sleep(0)
        await eventually(lambda: not connected(serving.port))


@fault(63)
async def test_client_that_reads_a_little(serve: Serve) -> None:
    """A client that takes some bytes now and then is kept, however slowly the transport drains."""
    config = f"channels:\n  {COUNTED}"
    async with (
        serve(config, COUNTING) as serving,
        websocket(serving.port, "/count", receive_buffer=4096) as wire,
    ):
        counting: Any = serving.server.channels["counting"]
        await eventually(lambda: counting.seen["join"] == 1)
        for _ in range(20):
            await serving.server.bus.publish("counting", "x" * 100_000)
            await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        (served,) = serving.server.connections
        assert isinstance(served, connection.Connection)
        # The clock is the test's: when the kernel passes on that something was read is its own affair.
        now = loop.time()
        for _ in range(20):
            owed = takeover.owed(served.transport)
            while takeover.owed(served.transport) >= owed:
                await soon(loop.sock_recv(wire.socket, 2000))
                await asyncio.sleep(0)
            now += connections.STALL
            assert served.beat(now) is not None
            assert served.paused
        now += connections.STALL
        assert served.beat(now) is None
        await eventually(lambda: counting.seen["leave"] == 1)


# Rows 58 to 60: pings and pongs


@fault(58)
async def test_data_is_a_sign_of_life(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who answers no ping, but sends, is kept: any byte is a sign of life, part of a frame too."""
    monkeypatch.setattr(transport, "PING_AFTER", 0.1)
    monkeypatch.setattr(transport, "PONG_WITHIN", 0.2)
    config = f"channels:\n  {COUNTED}"
    async with serve(config, COUNTING) as serving, websocket(serving.port, "/count") as wire:
        for byte in text("hi"):
            assert (await wire.frame()).opcode == PING
            await wire.send(bytes((byte,)))
        counting: Any = serving.server.channels["counting"]
        await eventually(lambda: counting.seen["message"] == 1)


@fault(59)
@pytest.mark.parametrize("payload", [b"", b"nobody asked", b"\xff" * 125])
async def test_pongs_nobody_asked_for(calm: Calm, payload: bytes) -> None:
    """A pong that answers no ping, or with other bytes, is ignored."""
    async with calm("echo: {plugin: echo, path: /ws}") as serving, websocket(serving.port, "/ws") as wire:
        await wire.send(frame(PONG, payload) * 100 + text("still here?"))
        assert await wire.text() == "Echo: still here?"


@fault(60)
async def test_flood_of_pings_that_reads(calm: Calm) -> None:
    """A hundred thousand pings are answered as fast as they are read, and others are served between."""
    echo = "echo: {plugin: echo, path: /ws}"
    async with calm(echo) as serving, websocket(serving.port, "/ws") as wire:
        loop = asyncio.get_running_loop()
        sending = asyncio.create_task(
            loop.sock_sendall(wire.socket, frame(PING, b"p") * 100_000 + text("end"))
        )
        async with websocket(serving.port, "/ws") as other:
            for _ in range(10):
                async with within(1):
                    await other.send(text("x"))
                    assert await other.text() == "Echo: x"
        while (got := await wire.frame()).opcode == PONG:
            assert got.payload == b"p"
        assert got.payload == b"Echo: end"
        await sending


@fault(60)
async def test_flood_of_pings_that_never_reads(calm: Calm) -> None:
    """Who pings and does not read is not read from either: what it is owed stays small."""
    echo = "echo: {plugin: echo, path: /ws}"
    async with calm(echo) as serving, websocket(serving.port, "/ws", receive_buffer=4096) as wire:
        sent = await flood(wire, frame(PING, b"p" * 125))
        assert sent < 20_000_000
        (member,) = serving.server.channels["echo"].clients
        link: Any = member._link
        assert link.transport.get_write_buffer_size() + sum(map(len, link.pongs)) < 256 * 1024


# More of their kind


@fault(61)
async def test_direct_messages_to_who_does_not_read(calm: Calm) -> None:
    """A flood of messages to one alone, who does not read, ends with that one; others talk on."""
    async with (
        calm(ROOM) as serving,
        websocket(serving.port, "/room", text("slow"), receive_buffer=4096) as slow,
        stream(serving.port, "/room?name=eve") as events,
    ):
        room = serving.server.channels["room"]
        await eventually(lambda: len(room.clients) == 2)
        v1 = [("Sec-WebSocket-Protocol", "realtime.v1.json")]
        async with websocket(serving.port, "/room?name=mallory", headers=v1) as mallory:
            reading = asyncio.create_task(mallory.rest())
            whisper = text('{"event": "message", "data": {"text": "%s", "to": "slow"}}' % ("x" * 8000))
            count = 0
            while any(client.name == "slow" for client in room.clients):
                await mallory.send(whisper)
                count += 1
                assert count < 5000
            body = ""
            while "slow" not in body or "realtime:leave" not in body:
                body += await events.chunk()
            reading.cancel()
        del slow


@fault(67)
async def test_storm_of_joins(calm: Calm) -> None:
    """A thousand who come to one room at once are all in, nobody is cut, and each sees who came last."""
    async with calm(ROOM) as serving, AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(dial(serving.port)) for _ in range(1000)]
        for number, wire in enumerate(wires):
            await wire.send(request("/room", UPGRADE) + text(f"n{number}"))
        room = serving.server.channels["room"]
        async with asyncio.timeout(30):
            while len(room.clients) < len(wires):  # noqa: ASYNC110  # there is no event for it
                await asyncio.sleep(0)
        await serving.server.bus.publish("room", {"from": "host", "text": "the end"})
        for wire in wires[::100]:
            assert (await wire.head()).status == 101
            joined = 0
            while (said := await wire.text()) != "host: the end":
                joined += said.endswith(" joined the chat")
            assert joined >= 1
