"""The life of a connection: connect, join, listen, leave, and all the ways it can end."""

from __future__ import annotations

import asyncio
import gc
import os
import re
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from conftest import FLOODED, Serve, Serving
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from wire import (
    EVENTS,
    LINES,
    PATIENCE,
    PING,
    PONG,
    UPGRADE,
    Frame,
    Headers,
    Wire,
    ask,
    close,
    dial,
    eventually,
    flood,
    frame,
    request,
    soon,
    stream,
    text,
    websocket,
)

from realtime.transports import connection

#: A channel that tells the test what happens, and does what a message tells it to.
LIFE = {
    "life.py": '''
        import asyncio
        from realtime import Channel, hookimpl

        class Life(Channel):
            """Does what it is told."""

            def __init__(self, name, settings, bus):
                super().__init__(name, settings, bus)
                self.seen = asyncio.Queue()
                self.go = asyncio.Event()
                self.running = 0

            async def on_connect(self, client):
                self.seen.put_nowait("connect")
                wish = client.query.get("connect")
                if wish == "receive":
                    client.name = (await client.receive(timeout=30)).data
                    if "tell" in client.query:
                        await client.send("on_connect")
                elif wish == "hurry":
                    await client.receive(timeout=0.02)
                elif wish == "close":
                    await client.close(4001, "not you")
                elif wish == "raise":
                    raise RuntimeError("a bug in on_connect")
                elif wish == "wait":
                    await self.hang()

            async def hang(self):
                try:
                    await self.go.wait()
                except asyncio.CancelledError:
                    self.seen.put_nowait("cancelled")
                    raise

            async def on_join(self, client):
                self.seen.put_nowait("join")
                if "tell" in client.query:
                    await client.send("on_join")
                if client.query.get("join") == "raise":
                    raise RuntimeError("a bug in on_join")
                if client.query.get("join") == "close":
                    await client.close(4002, "not here")

            async def on_message(self, client, message):
                self.running += 1
                assert self.running == 1, "on_message is not serial"
                try:
                    await self.do(client, message.data)
                finally:
                    self.running -= 1

            async def do(self, client, wish):
                self.seen.put_nowait(wish)
                if wish == "raise":
                    raise RuntimeError("a bug in on_message")
                if wish == "timeout":
                    raise TimeoutError
                if wish == "exit":
                    raise SystemExit
                if wish == "wait":
                    await self.hang()
                if wish == "cancel":
                    asyncio.current_task().cancel()
                if wish == "yield":
                    await asyncio.sleep(0)
                if wish == "close":
                    await client.close(4003, "go")

            async def on_leave(self, client):
                wish = client.query.get("leave")
                if wish == "wait":
                    await self.hang()
                self.seen.put_nowait("leave")
                if wish == "raise":
                    raise RuntimeError("a bug in on_leave")

        @hookimpl
        def register_channels():
            return {"life": Life}
    '''
}
CONFIG = "channels: {life: {plugin: life, path: /life}}"


async def seen(serving: Serving, count: int) -> list[str]:
    """The next things that have happened in the channel."""
    life: Any = serving.server.channels["life"]
    return [await soon(life.seen.get()) for _ in range(count)]


async def place(serving: Serving) -> None:
    """Return when a channel that takes one client has a place."""
    async with asyncio.timeout(PATIENCE):
        while (await ask(serving.port, "/life", UPGRADE))[0].status == 503:
            pass


def nothing_more(serving: Serving) -> bool:
    """Whether nothing else has happened."""
    life: Any = serving.server.channels["life"]
    empty: bool = life.seen.empty()
    return empty


# Connect, join, leave


async def test_order_of_a_life(serve: Serve) -> None:
    """A client connects, joins, is heard and leaves, each once."""
    async with serve(CONFIG, LIFE) as serving:
        async with websocket(serving.port, "/life", text("a") + text("b") + close(1000)) as wire:
            assert await wire.close_code() == 1000
            await wire.rest()
        await serving.server.stop()
        assert await seen(serving, 5) == ["connect", "join", "a", "b", "leave"]
        assert nothing_more(serving)


async def test_client_is_listed_while_it_is_in(serve: Serve) -> None:
    """``channel.clients`` holds whoever has joined and not left."""
    async with serve(CONFIG, LIFE) as serving:
        channel = serving.server.channels["life"]
        async with websocket(serving.port, "/life?connect=receive") as wire:
            await seen(serving, 1)
            assert not channel.clients
            await wire.send(text("alice"))
            await seen(serving, 1)
            assert [client.name for client in channel.clients] == ["alice"]
        await seen(serving, 1)
        assert not channel.clients


@pytest.mark.parametrize(
    ("query", "code", "reason"),
    [
        ("connect=close", 4001, "not you"),
        ("connect=hurry", 1008, "nothing was received in time"),
        ("connect=raise", 1011, "the channel has a bug"),
    ],
)
async def test_client_that_never_joins(serve: Serve, query: str, code: int, reason: str) -> None:
    """Who is turned away in ``on_connect`` is told why, and neither joins nor leaves."""
    async with serve(CONFIG, LIFE) as serving:
        async with websocket(serving.port, f"/life?{query}") as wire:
            end = await wire.frame()
            assert (end.code, end.reason) == (code, reason)
            await wire.send(close(code))
            assert await wire.rest() == b""
        await serving.server.stop()
        assert await seen(serving, 1) == ["connect"]
        assert nothing_more(serving)


@pytest.mark.parametrize("way", [Wire.finish, Wire.reset], ids=["FIN", "RST"])
async def test_client_that_goes_in_on_connect(serve: Serve, way: Callable[[Wire], None]) -> None:
    """Who goes while ``on_connect`` waits for it has never been there."""
    async with serve(CONFIG, LIFE) as serving:
        async with websocket(serving.port, "/life?connect=receive") as wire:
            assert await seen(serving, 1) == ["connect"]
            way(wire)
            (topic,) = serving.server.bus.topics
            await eventually(lambda: topic.idle)
        await serving.server.stop()
        assert nothing_more(serving)


@pytest.mark.parametrize(
    ("query", "code"), [("join=raise", 1011), ("join=close", 4002)], ids=["raise", "close"]
)
async def test_on_join_that_ends_it(serve: Serve, query: str, code: int) -> None:
    """Once ``on_join`` has begun ``on_leave`` follows, however it ends."""
    async with serve(CONFIG, LIFE) as serving, websocket(serving.port, f"/life?{query}") as wire:
        assert await wire.close_code() == code
        assert await seen(serving, 3) == ["connect", "join", "leave"]


@pytest.mark.parametrize("way", [Wire.finish, Wire.reset], ids=["FIN", "RST"])
async def test_client_that_goes_without_a_word(serve: Serve, way: Callable[[Wire], None]) -> None:
    """A connection that breaks leaves like any other, once."""
    async with serve(CONFIG, LIFE) as serving:
        async with websocket(serving.port, "/life") as wire:
            assert await seen(serving, 2) == ["connect", "join"]
            way(wire)
            assert await seen(serving, 1) == ["leave"]
        await serving.server.stop()
        assert nothing_more(serving)


async def test_what_was_said_before_fin_is_heard(serve: Serve) -> None:
    """Messages that came before the end of the connection are not lost."""
    async with serve(CONFIG, LIFE) as serving, websocket(serving.port, "/life") as wire:
        await wire.send(b"".join(map(text, "abcdef")))
        wire.finish()
        assert await seen(serving, 9) == ["connect", "join", *"abcdef", "leave"]


@pytest.mark.parametrize("wish", ["raise", "timeout", "exit"])
async def test_bug_in_on_message(serve: Serve, wish: str, caplog: pytest.LogCaptureFixture) -> None:
    """What ``on_message`` raises closes this client with 1011, is logged, and stops nobody else."""
    async with serve(CONFIG, LIFE) as serving, websocket(serving.port, "/life") as other:
        await seen(serving, 2)
        async with websocket(serving.port, "/life", text(wish)) as wire:
            assert await wire.close_code() == 1011
        assert await seen(serving, 4) == ["connect", "join", wish, "leave"]
        await other.send(text("still here"))
        assert await seen(serving, 1) == ["still here"]
    assert "a bug of plugin 'life' closes" in caplog.text


async def test_bug_in_on_leave(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """What ``on_leave`` raises is logged, and the server ends as ever."""
    async with serve(CONFIG, LIFE) as serving:
        async with websocket(serving.port, "/life?leave=raise"):
            pass
        assert await seen(serving, 3) == ["connect", "join", "leave"]
    assert "a bug in on_leave" in caplog.text


# Listening


async def test_on_message_is_serial(serve: Serve) -> None:
    """The messages of a client are handled one after the other, in their order."""
    async with (
        serve(CONFIG, LIFE) as serving,
        websocket(serving.port, "/life", text("yield") * 50 + text("end")),
    ):
        assert await seen(serving, 53) == ["connect", "join", *["yield"] * 50, "end"]


async def test_nothing_is_heard_after_a_task_was_cancelled(serve: Serve) -> None:
    """What cancels its client's task ends that client, whatever came in the same read."""
    async with serve(CONFIG, LIFE) as serving, websocket(serving.port, "/life") as wire:
        await seen(serving, 2)
        await wire.send(text("cancel") + text("yield") + text("late"))
        assert await seen(serving, 2) == ["cancel", "leave"]
        assert nothing_more(serving)


async def test_clients_do_not_wait_for_each_other(serve: Serve) -> None:
    """A handler that waits for one client does not hold up another."""
    files = {"life.py": LIFE["life.py"].replace("assert self.running == 1", "assert True")}
    async with serve(CONFIG, files) as serving, websocket(serving.port, "/life", text("wait")):
        assert await seen(serving, 3) == ["connect", "join", "wait"]
        async with websocket(serving.port, "/life", text("hello")):
            assert await seen(serving, 3) == ["connect", "join", "hello"]
        life: Any = serving.server.channels["life"]
        life.go.set()


async def test_reading_stops_while_on_message_waits(serve: Serve) -> None:
    """A client that talks on while its handler waits is stopped by TCP, not kept in memory."""
    async with serve(CONFIG, LIFE) as serving, websocket(serving.port, "/life", text("wait")) as wire:
        assert await seen(serving, 3) == ["connect", "join", "wait"]
        assert await flood(wire) < 30_000_000  # the kernel's buffers hold some ten
        life: Any = serving.server.channels["life"]
        life.go.set()


async def test_reading_goes_on_afterwards(serve: Serve) -> None:
    """All that a client said meanwhile is heard when its handler goes on."""
    async with serve(CONFIG, LIFE) as serving, websocket(serving.port, "/life", text("wait")) as wire:
        assert await seen(serving, 3) == ["connect", "join", "wait"]
        for n in range(100):
            await wire.send(text(str(n)))
        life: Any = serving.server.channels["life"]
        life.go.set()
        assert await seen(serving, 100) == [str(n) for n in range(100)]


TURNS = {
    "turns.py": '''
        import asyncio
        from contextlib import asynccontextmanager
        from realtime import Channel, hookimpl

        class Turns(Channel):
            """Counts the messages between two turns of the loop."""

            count = most = total = 0

            async def on_message(self, client, message):
                self.count += 1
                self.total += 1
                self.most = max(self.most, self.count)

            @asynccontextmanager
            async def lifespan(self):
                async with asyncio.TaskGroup() as tasks:
                    task = tasks.create_task(self.turn())
                    yield
                    task.cancel()

            async def turn(self):
                while True:
                    self.count = 0
                    await asyncio.sleep(0)

        @hookimpl
        def register_channels():
            return {"turns": Turns}
    '''
}


async def test_talkative_client_takes_turns(serve: Serve) -> None:
    """After 32 messages of one client in a row the rest of the server has its turn."""
    async with (
        serve(f"channels: {{turns: {{plugin: turns, path: /, {FLOODED}}}}}", TURNS) as serving,
        websocket(serving.port, "/", text("x") * 2000),
    ):
        turns: Any = serving.server.channels["turns"]
        await eventually(lambda: turns.total == 2000)
        assert turns.most == 32


async def test_small_read_is_not_all_heard_at_once(serve: Serve) -> None:
    """Of hundreds of messages in one read 32 are heard at once, and as many by the client's task."""
    async with (
        serve(f"channels: {{turns: {{plugin: turns, path: /, {FLOODED}}}}}", TURNS) as serving,
        websocket(serving.port, "/", text("x")) as wire,
    ):
        turns: Any = serving.server.channels["turns"]
        await eventually(lambda: turns.total == 1)
        await wire.send(text("x") * 500)
        await eventually(lambda: turns.total == 501)
        assert turns.most <= 64


# Delivery


async def test_published_while_on_connect_waits(serve: Serve) -> None:
    """What is published between the handshake and the greeting is delivered after it, in order."""
    async with serve(CONFIG, LIFE) as serving, websocket(serving.port, "/life?connect=receive") as wire:
        await seen(serving, 1)
        bus = serving.server.bus
        for n in range(3):
            await bus.publish("life", str(n))
        (topic,) = bus.topics
        assert topic.subscribers == 1
        await wire.send(frame(PING) + text("alice"))
        assert await wire.frame() == Frame(PONG, b"")  # nothing came before
        await seen(serving, 1)
        await bus.publish("life", "3")
        assert [await wire.text() for _ in range(4)] == ["0", "1", "2", "3"]


async def test_what_a_newcomer_is_told(serve: Serve) -> None:
    """What ``on_connect`` sends comes before what was published meanwhile, what ``on_join`` sends after."""
    async with (
        serve(CONFIG, LIFE) as serving,
        websocket(serving.port, "/life?connect=receive&tell=") as wire,
    ):
        await seen(serving, 1)
        await serving.server.bus.publish("life", "meanwhile")
        await wire.send(text("alice"))
        await seen(serving, 1)
        await serving.server.bus.publish("life", "later")
        told = [await wire.text() for _ in range(4)]
        assert told == ["on_connect", "meanwhile", "on_join", "later"]


async def test_direct_frames_keep_their_place(serve: Serve) -> None:
    """What is sent to one client comes after what was published before, and before what came later."""
    async with (
        serve(CONFIG, LIFE) as serving,
        websocket(serving.port, "/life") as wire,
        stream(serving.port, "/life") as events,
    ):
        await seen(serving, 4)
        for n in range(0, 20, 2):
            await serving.server.bus.publish("life", str(n))
            for client in serving.server.channels["life"].clients:
                await client.send(str(n + 1))
        assert [await wire.text() for _ in range(20)] == [str(n) for n in range(20)]
        assert [(await events.event())["data"] for _ in range(20)] == [str(n) for n in range(20)]


async def test_excluded_client(serve: Serve) -> None:
    """Who is excluded from a message does not see it; the others do."""
    async with serve(CONFIG, LIFE) as serving, websocket(serving.port, "/life") as one:
        await seen(serving, 2)
        (client,) = serving.server.channels["life"].clients
        async with websocket(serving.port, "/life") as other:
            await seen(serving, 2)
            for n in range(4):
                await serving.server.bus.publish("life", str(n), exclude=client if n % 2 else None)
            assert [await one.text(), await one.text()] == ["0", "2"]
            assert [await other.text() for _ in range(4)] == ["0", "1", "2", "3"]


async def test_resumed_websocket(serve: Serve) -> None:
    """A plain WebSocket that comes back with a position gets what it missed."""
    async with serve(CONFIG, LIFE) as serving:
        bus = serving.server.bus
        position = await bus.publish("life", "a")
        await bus.publish("life", "b")
        async with websocket(serving.port, f"/life?since={position}") as wire:
            await bus.publish("life", "c")
            assert [await wire.text(), await wire.text()] == ["b", "c"]


@pytest.mark.parametrize("kind", ["gap", "reset"])
async def test_position_that_a_plain_websocket_cannot_be_given(serve: Serve, kind: str) -> None:
    """A plain WebSocket cannot be told of a hole: it is closed with 1013 before any message."""
    config = "channels: {life: {plugin: life, path: /life, lag_bytes: 1KiB, history: 3}}"
    async with serve(config, LIFE) as serving:
        position = await serving.server.bus.publish("life", "0")
        for n in range(50):
            await serving.server.bus.publish("life", str(n))
            await asyncio.sleep(0)
        since = position if kind == "gap" else "0f0f-1"
        async with websocket(serving.port, f"/life?since={since}") as wire:
            end = await wire.frame()
            assert end.code == 1013
            assert "cannot be resumed" in end.reason
            await wire.send(close(1013))
            assert await wire.rest() == b""
        await serving.server.stop()
        assert nothing_more(serving)  # not even on_connect


# The slow


BUSY = "channels: {life: {plugin: life, path: /life, lag_bytes: 256KiB}}"


async def lap(serving: Serving) -> int:
    """Publish until a client has left; returns how many messages."""
    life: Any = serving.server.channels["life"]
    count = 0
    while life.seen.empty():
        await serving.server.bus.publish("life", str(count).rjust(8000))
        await asyncio.sleep(0)
        count += 1
        assert count < 10_000
    assert await seen(serving, 1) == ["leave"]
    return count


async def test_client_that_does_not_read_is_closed(serve: Serve) -> None:
    """A client that reads again finds, behind all it was sent, a close with 1013."""
    async with (
        serve(BUSY, LIFE) as serving,
        websocket(serving.port, "/life", receive_buffer=4096) as wire,
    ):
        await seen(serving, 2)
        await lap(serving)
        expected = 0
        while (got := await wire.frame()).opcode == 1:
            assert int(got.payload) == expected
            expected += 1
        assert got.code == 1013
        assert got.reason.startswith("too slow: ")


async def test_client_that_does_not_read_disturbs_nobody(serve: Serve) -> None:
    """While one client stops reading the others get everything."""
    async with serve(BUSY, LIFE) as serving, connect(serving.ws("/life")) as reader:
        await seen(serving, 2)

        async def read() -> list[int]:
            numbers: list[int] = []
            async for message in reader:
                numbers.append(int(message))
            return numbers

        reading = asyncio.create_task(read())
        async with websocket(serving.port, "/life", receive_buffer=4096):
            await seen(serving, 2)
            count = await lap(serving)
        await serving.server.stop()
        assert await soon(reading) == list(range(count))


async def test_client_that_never_reads_frees_its_descriptor(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket of a client that does not even take its close is given back."""
    monkeypatch.setattr(connection, "CLOSE_GRACE", 0.05)

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async with serve(BUSY, LIFE) as serving:
        gc.collect()  # what others have left is closed before it is counted
        before = descriptors()
        async with websocket(serving.port, "/life", receive_buffer=4096):
            await seen(serving, 2)
            assert descriptors() == before + 2  # both ends are of this process
            await lap(serving)
            await eventually(lambda: descriptors() == before + 1)


async def test_direct_frames_that_nobody_reads(serve: Serve) -> None:
    """More than 64 KiB of direct frames beyond what the transport takes closes with 1013."""
    async with (
        serve(CONFIG, LIFE) as serving,
        websocket(serving.port, "/life", receive_buffer=4096) as wire,
    ):
        await seen(serving, 2)
        (client,) = serving.server.channels["life"].clients
        count = 0
        while not client.closed:
            await client.send("x" * 8000)
            count += 1
            await asyncio.sleep(0)
            assert count < 10_000
        await seen(serving, 1)
        while (got := await wire.frame()).opcode == 1:
            count -= 1
        assert (got.code, count) == (1013, 9)  # eight of them are 64 KiB


async def test_client_that_does_not_read_is_not_heard(serve: Serve) -> None:
    """Who does not take its answers cannot ask for more: its messages wait in its own socket."""
    config = "channels: {echo: {plugin: echo, path: /ws}}"
    async with serve(config) as serving, websocket(serving.port, "/ws", receive_buffer=4096) as wire:
        assert await flood(wire) < 30_000_000
        assert serving.server.channels["echo"].clients  # it is not closed for that


async def test_client_that_asks_faster_than_it_reads(serve: Serve) -> None:
    """Small questions with large answers: the questions wait, and each answer comes in the end."""
    files = {
        "large.py": '''
            from realtime import Channel, hookimpl

            class Large(Channel):
                """Answers at length."""

                async def on_message(self, client, message):
                    await client.send(message.data.ljust(50_000))

            @hookimpl
            def register_channels():
                return {"large": Large}
        '''
    }
    config = f"channels: {{large: {{plugin: large, path: /, {FLOODED}}}}}"
    async with serve(config, files) as serving, websocket(serving.port, "/", receive_buffer=4096) as wire:
        await wire.send(b"".join(text(str(n)) for n in range(500)))
        assert [int(await wire.text()) for _ in range(500)] == list(range(500))


# Gone before it began

FLEETING = {
    "fleeting.py": '''
        from realtime import Channel, hookimpl

        class Fleeting(Channel):
            """Has its client go at the last moment."""

            @hookimpl
            def authenticate(self, request):
                self.go()

        @hookimpl
        def register_channels():
            return {"fleeting": Fleeting}
    '''
}


@pytest.mark.parametrize("headers", [UPGRADE, EVENTS, LINES])
async def test_client_that_goes_before_it_is_answered(
    serve: Serve, headers: Headers, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that is gone when its connection begins to live is no error, and leaves as any other."""
    caplog.set_level("INFO")
    config = "channels: {fleeting: {plugin: fleeting, path: /}}"
    async with serve(config, FLEETING) as serving, dial(serving.port) as wire:
        fleeting: Any = serving.server.channels["fleeting"]
        fleeting.go = wire.reset
        await wire.send(request("/", headers))
        await eventually(lambda: "left after" in caplog.text)
        gc.collect()
    assert "Traceback" not in caplog.text


# The grace


async def test_handler_that_hangs_is_cancelled(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client has begun may go on for a while after it is gone, then it is cancelled."""
    monkeypatch.setattr(connection, "LEAVE_GRACE", 0.05)
    async with serve(CONFIG, LIFE) as serving, websocket(serving.port, "/life", text("wait")) as wire:
        assert await seen(serving, 3) == ["connect", "join", "wait"]
        wire.reset()
        assert await seen(serving, 2) == ["cancelled", "leave"]


async def test_handler_may_end_its_work(serve: Serve) -> None:
    """A handler is not cancelled because its client has gone: it ends what it has begun."""
    async with serve(CONFIG, LIFE) as serving, websocket(serving.port, "/life", text("wait")) as wire:
        assert await seen(serving, 3) == ["connect", "join", "wait"]
        life: Any = serving.server.channels["life"]
        wire.reset()
        await serving.server.bus.publish("life", "x")
        life.go.set()
        assert await seen(serving, 1) == ["leave"]


async def test_on_connect_that_hangs_is_cancelled(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ``on_connect`` that waits for something else is given up when its client has gone."""
    monkeypatch.setattr(connection, "LEAVE_GRACE", 0.05)
    config = f"{CONFIG[:-2]}, limits: {{max_clients: 1}}}}}}"
    async with serve(config, LIFE) as serving:
        async with websocket(serving.port, "/life?connect=wait") as wire:
            assert await seen(serving, 1) == ["connect"]
            wire.reset()
            assert await seen(serving, 1) == ["cancelled"]
        await place(serving)


async def test_on_leave_that_hangs_is_cancelled(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An ``on_leave`` has its time, then its client's place is free."""
    monkeypatch.setattr(connection, "LEAVE_GRACE", 0.05)
    config = f"{CONFIG[:-2]}, limits: {{max_clients: 1}}}}}}"
    async with serve(config, LIFE) as serving:
        async with websocket(serving.port, "/life?leave=wait"):
            assert await seen(serving, 2) == ["connect", "join"]
            assert (await ask(serving.port, "/life"))[0].status == 503
        assert await seen(serving, 1) == ["cancelled"]
        await place(serving)
    assert "on_leave of" in caplog.text


async def test_close_after_the_client_closed(serve: Serve) -> None:
    """A client that the channel has closed is told once."""
    async with serve(CONFIG, LIFE) as serving, connect(serving.ws("/life")) as client:
        await client.send("close")
        with pytest.raises(ConnectionClosed) as caught:
            await soon(client.recv())
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4003, "go")
        assert await seen(serving, 4) == ["connect", "join", "close", "leave"]


# What a client or a plugin does that it should not


BAD = {
    "bad.py": '''
        import asyncio
        import contextlib
        from realtime import Channel, hookimpl

        class Bad(Channel):
            """Does what it is told to do wrong."""

            def as_text(self, message):
                if message.data == "exit":
                    raise SystemExit
                if message.data == "cancel":
                    raise asyncio.CancelledError
                return super().as_text(message)

            async def on_join(self, client):
                if client.query.get("join") == "receive":
                    client.state.listening = asyncio.create_task(self.listen(client))
                    await asyncio.sleep(0)

            async def listen(self, client):
                with contextlib.suppress(Exception):
                    await client.receive()

            async def on_message(self, client, message):
                if message.data == "cancelled":
                    raise asyncio.CancelledError
                if message.data == "twice":
                    listening = asyncio.create_task(client.receive())
                    await asyncio.sleep(0)
                    try:
                        await client.receive()
                    except RuntimeError as error:
                        await client.send(str(error))
                    listening.cancel()
                    return
                if message.data == "code":
                    try:
                        await client.close(1006)
                    except ValueError as error:
                        await client.send(str(error))
                    return
                await self.publish(client.topic, message.data)

        @hookimpl
        def register_channels():
            return {"bad": Bad}
    '''
}
BAD_CONFIG = "channels: {bad: {plugin: bad, path: /bad}}"


@pytest.mark.parametrize("raised", ["exit", "cancel"])
async def test_as_text_that_raises_anything(serve: Serve, raised: str) -> None:
    """Whatever ``as_text`` raises, the message is not shown and the next one is."""
    async with serve(BAD_CONFIG, BAD) as serving, connect(serving.ws("/bad")) as client:
        await client.send(raised)
        await client.send("next")
        assert await soon(client.recv()) == "next"


async def test_cancelled_error_of_the_plugins_own(serve: Serve) -> None:
    """A ``CancelledError`` that nobody asked for is a bug of the channel: 1011."""
    async with serve(BAD_CONFIG, BAD) as serving, connect(serving.ws("/bad")) as client:
        await client.send("cancelled")
        await soon(client.wait_closed())
    assert client.close_code == 1011


async def test_two_receive_at_once(serve: Serve) -> None:
    """Of two that receive from one client the second is told so, and the first goes on."""
    async with serve(BAD_CONFIG, BAD) as serving, connect(serving.ws("/bad")) as client:
        await client.send("twice")
        assert "somebody else is receiving" in str(await soon(client.recv()))


async def test_receive_beside_on_message(serve: Serve) -> None:
    """Who receives in a task of its own and leaves ``on_message`` to the host as well has a bug."""
    async with serve(BAD_CONFIG, BAD) as serving, websocket(serving.port, "/bad?join=receive") as wire:
        assert await wire.close_code() == 1011


async def test_code_that_may_not_be_sent(serve: Serve) -> None:
    """A plugin cannot close with a code that no close frame may carry."""
    async with serve(BAD_CONFIG, BAD) as serving, connect(serving.ws("/bad")) as client:
        await client.send("code")
        assert "1006 is no close code" in str(await soon(client.recv()))


# A long replay


SINCE = "/life?since=earliest"


async def events(wire: Wire) -> list[int]:
    """The numbers in the next chunk of a stream of events."""
    return [int(number) for number in re.findall(r"(?m)^data: +(\d+)$", await wire.chunk())]


async def texts(wire: Wire) -> list[int]:
    """The number in the next text of a WebSocket."""
    return [int(await wire.text())]


class Replay:
    """A long history, published to while it is replayed by readers that take a little at a time."""

    HISTORY, BURST, SIZE = 20_000, 600, 1024
    # Beside the history nothing is kept for longer than a moment, unless somebody replays it.
    KEPT = f"history: {HISTORY}, lag: 1ms, lag_bytes: 1MiB"
    CONFIG = f"channels: {{life: {{plugin: life, path: /life, {KEPT}}}}}"

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.published = 0

    async def publish(self, count: int) -> None:
        """Publish the next numbers, each as a long text."""
        for _ in range(count):
            await self.serving.server.bus.publish("life", str(self.published).rjust(self.SIZE))
            self.published += 1

    async def run(self, readers: int) -> int:
        """Every reader must get everything; returns the most memory that the process had meanwhile.

        Every other one has a WebSocket, the others have a stream of events. In each round a burst is
        published, and each of them reads twice as much.
        """
        first = self.published - self.HISTORY
        end = self.published + self.HISTORY // 4
        most = 0
        async with AsyncExitStack() as stack:
            wires, place = [], [first] * readers
            for n in range(readers):
                opened = (stream, websocket)[n % 2](self.serving.port, SINCE, receive_buffer=65_536)
                wires.append(await stack.enter_async_context(opened))
            while min(place) < end:
                if self.published < end:
                    await self.publish(self.BURST)
                for n, wire in enumerate(wires):
                    enough = min(place[n] + 2 * self.BURST, self.published)
                    while place[n] < enough:
                        got = await (events, texts)[n % 2](wire)
                        assert got == [*range(place[n], place[n] + len(got))]
                        place[n] += len(got)
                most = max(most, resident())
        return most


def resident() -> int:
    """What this process has in memory, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_long_replay_to_slow_readers(serve: Serve) -> None:
    """Slow readers of a long history get all of it, and what comes meanwhile, and cost little memory."""
    async with serve(Replay.CONFIG, LIFE) as serving:
        replay = Replay(serving)
        await replay.publish(replay.HISTORY)
        await replay.run(2)  # each message is kept in both forms from here on, once for all
        before = resident()
        most = await replay.run(8)
        counters = serving.server.bus.counters
        assert counters["lags"] > 8 * 20, "none was slow"
        assert (counters["laps"], counters["overruns"]) == (0, 0)
        # One write of at most 128 KiB each, on either side, while each has 20 MiB to read.
        assert most - before < 8 * 1024 * 1024
