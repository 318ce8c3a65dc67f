"""Signs of life: one timer for everybody, silent peers are pinged and then cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVarTuple, Unpack

import pytest
from conftest import Serve
from timing import now
from websockets.asyncio.client import connect
from wire import PING, PONG, Frame, eventually, frame, soon, stream, text, websocket

from realtime.heartbeat import SLOT, Heartbeat
from realtime.transports import connection, websocket as transport

Ts = TypeVarTuple("Ts")

WATCHED = {
    "watched.py": '''
        import asyncio
        from realtime import Channel, hookimpl

        class Watched(Channel):
            """Tells the test who leaves."""

            def __init__(self, name, settings, bus):
                super().__init__(name, settings, bus)
                self.left_ones = asyncio.Queue()
                self.go = asyncio.Event()

            async def on_message(self, client, message):
                if message.data in ("ping", "ping in vain"):
                    timeout = 5.0 if message.data == "ping" else 0.05
                    await self.publish(client.topic, str(await client.ping(timeout=timeout)))
                else:
                    await self.go.wait()

            async def on_leave(self, client):
                self.left_ones.put_nowait(client)

        @hookimpl
        def register_channels():
            return {"watched": Watched}
    '''
}
CONFIG = "channels: {watched: {plugin: watched, path: /}}"


class Heart:
    """Something to look at: it notes when, and says when next."""

    def __init__(self, again: Callable[[float], float | None] = lambda now: None) -> None:
        self.slot: int | None = None
        self.looks: list[float] = []
        self.again = again

    def beat(self, now: float) -> float | None:
        self.looks.append(now)
        return self.again(now)


class Loop(asyncio.SelectorEventLoop):
    """An event loop that remembers its timers."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[asyncio.TimerHandle] = []

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = super().call_at(when, callback, *args, context=context)
        self.timers.append(timer)
        return timer

    @property
    def pending(self) -> int:
        """How many of them are still to fire."""
        return sum(not timer.cancelled() and timer.when() > self.time() for timer in self.timers)


# The timer


def test_one_timer() -> None:
    """However many are to be looked at, at whatever times, one timer waits."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        heartbeat = Heartbeat(loop)
        for n in range(1000):
            heartbeat.schedule(Heart(), loop.time() + 100 + n % 17 - n % 5)
            assert loop.pending == 1

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())


async def test_nobody_is_looked_at_too_early() -> None:
    """A look comes not before its time, and hardly later than the width of a slot."""
    loop = asyncio.get_running_loop()
    heartbeat = Heartbeat(loop)
    begun, measured, late = loop.time(), now(), list[float]()

    def noting(wanted: float) -> Heart:
        """One that notes how late it was looked at, without what others have kept from it."""
        return Heart(lambda _: late.append(now() - measured - wanted))

    hearts = {n * 0.013: noting(n * 0.013) for n in range(20)}
    for wanted, heart in reversed(hearts.items()):
        heartbeat.schedule(heart, begun + wanted)
    await eventually(lambda: all(heart.looks for heart in hearts.values()))
    assert all(heart.looks[0] >= begun + wanted for wanted, heart in hearts.items())
    assert max(late) < SLOT + 0.25  # and what the looks themselves take


async def test_looked_at_once_when_it_wants_no_more() -> None:
    """Who answers None is never looked at again; who answers a time is, then."""
    loop = asyncio.get_running_loop()
    heartbeat = Heartbeat(loop)
    once, often = Heart(), Heart(lambda now: now)
    heartbeat.schedule(once, loop.time())
    heartbeat.schedule(often, loop.time())
    await eventually(lambda: len(often.looks) == 4)
    heartbeat.stop()
    assert len(once.looks) == 1


async def test_look_that_asks_for_now_is_later() -> None:
    """Who wants to be looked at again at once is, in the next slot: the loop goes on."""
    loop = asyncio.get_running_loop()
    heartbeat = Heartbeat(loop)
    eager = Heart(lambda now: 0.0)
    heartbeat.schedule(eager, loop.time())
    await eventually(lambda: len(eager.looks) == 3)
    heartbeat.stop()
    gaps = [later - earlier for earlier, later in zip(eager.looks, eager.looks[1:], strict=False)]
    assert min(gaps) > SLOT / 2


async def test_forgotten() -> None:
    """Who is forgotten is not looked at, the others are."""
    loop = asyncio.get_running_loop()
    heartbeat = Heartbeat(loop)
    gone, there = Heart(), Heart()
    heartbeat.schedule(gone, loop.time())
    heartbeat.schedule(there, loop.time() + SLOT)
    heartbeat.forget(gone)
    heartbeat.forget(gone)
    await eventually(lambda: bool(there.looks))
    assert not gone.looks


async def test_scheduled_again() -> None:
    """The last time asked for counts, alone."""
    loop = asyncio.get_running_loop()
    heartbeat = Heartbeat(loop)
    moved, after = Heart(), Heart()
    at = loop.time() + 3 * SLOT
    heartbeat.schedule(moved, loop.time())
    heartbeat.schedule(moved, at)
    heartbeat.schedule(after, at + SLOT)
    await eventually(lambda: bool(after.looks))
    assert [look >= at for look in moved.looks] == [True]


async def test_many_looks_leave_room_for_others() -> None:
    """A turn of looks that takes long is cut, so that the loop serves the others meanwhile."""
    loop = asyncio.get_running_loop()
    heartbeat = Heartbeat(loop)

    def slow(now: float) -> None:
        until = loop.time() + 0.002
        while loop.time() < until:
            pass

    hearts = [Heart(slow) for _ in range(50)]
    for heart in hearts:
        heartbeat.schedule(heart, loop.time())
    most = seen = 0
    async with asyncio.timeout(5):
        while seen < len(hearts):
            before, seen = seen, sum(len(heart.looks) for heart in hearts)
            most = max(most, seen - before)
            await asyncio.sleep(0)
    assert most < 10


# Clients


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is short, and so is the patience with it."""
    monkeypatch.setattr(transport, "PING_AFTER", 0.1)
    monkeypatch.setattr(transport, "PONG_WITHIN", 0.1)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is short, and who answers has the time that this takes on a busy machine."""
    monkeypatch.setattr(transport, "PING_AFTER", 0.1)
    monkeypatch.setattr(transport, "PONG_WITHIN", 1.0)


@pytest.mark.usefixtures("short")
async def test_silent_client_is_pinged_and_cut(serve: Serve) -> None:
    """A client that answers no ping is cut, and has left."""
    async with serve(CONFIG, WATCHED) as serving, websocket(serving.port, "/") as wire:
        assert await wire.frame() == Frame(PING, b"")
        assert await wire.rest() == b""
        watched: Any = serving.server.channels["watched"]
        await soon(watched.left_ones.get())


async def test_look_for_something_else_is_no_lost_pong(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pinged client that is looked at for another reason has its time to answer all the same."""
    monkeypatch.setattr(transport, "PING_AFTER", 0.05)
    config = "channels: {watched: {plugin: watched, path: /, keep_alive: 100ms}}"
    objects = [("Sec-WebSocket-Protocol", "realtime.v1.json")]
    async with serve(config, WATCHED) as serving, websocket(serving.port, "/", headers=objects) as wire:
        seen = [await wire.frame() for _ in range(4)]  # a welcome, a ping, and two heartbeats
    assert [one.opcode for one in seen].count(PING) == 1


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("sign", [frame(PONG), text("ping"), frame(PING), b"\x81"], ids=repr)
async def test_any_byte_is_a_sign_of_life(serve: Serve, sign: bytes) -> None:
    """A pong keeps a client, and so does anything else that it sends."""
    async with serve(CONFIG, WATCHED) as serving, websocket(serving.port, "/") as wire:
        assert await wire.frame() == Frame(PING, b"")
        await wire.send(sign)
        while (await wire.frame()).opcode != PING:
            pass
        assert serving.server.channels["watched"].clients


@pytest.mark.usefixtures("patient")
async def test_client_that_answers_stays(serve: Serve) -> None:
    """A client of a library is pinged again and again, and stays."""
    time = asyncio.get_running_loop().time
    async with serve(CONFIG, WATCHED) as serving, connect(serving.ws("/")) as client:
        over = time() + 1.3  # by then one that did not answer were cut
        async with websocket(serving.port, "/") as beside:  # it counts the time
            while time() < over:
                assert await beside.frame() == Frame(PING, b"")
                await beside.send(frame(PONG))
        await client.send("ping")
        assert await soon(client.recv()) == "True"


@pytest.mark.usefixtures("short")
async def test_client_whose_handler_waits_is_not_cut(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing is read from a client its silence says nothing."""
    time = asyncio.get_running_loop().time
    async with serve(CONFIG, WATCHED) as serving, websocket(serving.port, "/") as wire:
        await wire.send(text("wait") * 20)
        over = time() + 0.5
        await eventually(lambda: time() > over)
        assert len(serving.server.channels["watched"].clients) == 1
        watched: Any = serving.server.channels["watched"]
        monkeypatch.setattr(transport, "PONG_WITHIN", 1.0)  # for it answers now
        watched.go.set()
        for _ in range(2):  # now it is read from again, and its silence counts
            assert await wire.frame() == Frame(PING, b"")
            await wire.send(frame(PONG))


async def test_client_that_is_not_listened_to_is_looked_at_seldom(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long silent and not read from, a client is looked at again after a while, not in every slot."""
    monkeypatch.setattr(transport, "PING_AFTER", 0.2)
    monkeypatch.setattr(transport, "PONG_WITHIN", 5.0)
    looks: list[float | None] = []
    look = transport.WebSocket.look

    def counted(socket: transport.WebSocket, now: float) -> float | None:
        again = look(socket, now)
        looks.append(None if again is None else again - now)
        return again

    monkeypatch.setattr(transport.WebSocket, "look", counted)
    async with serve(CONFIG, WATCHED) as serving, websocket(serving.port, "/") as wire:
        await wire.send(text("wait") * 20)
        await eventually(lambda: len(looks) > 1)
        assert looks[-1] == 5.0
        watched: Any = serving.server.channels["watched"]
        watched.go.set()


async def test_client_that_takes_nothing_is_cut(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose client takes nothing for :data:`STALL` is cut, although nothing laps it."""
    monkeypatch.setattr(connection, "STALL", 0.1)
    config = "channels: {watched: {plugin: watched, path: /, keep_alive: 50ms, lag: 1h, lag_bytes: 1GiB}}"
    async with serve(config, WATCHED) as serving, stream(serving.port, "/", receive_buffer=4096) as wire:
        for _ in range(100):
            await serving.server.bus.publish("watched", "x" * 100_000)
            await asyncio.sleep(0)
        watched: Any = serving.server.channels["watched"]
        await soon(watched.left_ones.get())
        assert not (await wire.rest()).endswith(b"0\r\n\r\n")


async def test_ping_of_a_client_that_is_there(serve: Serve) -> None:
    """``client.ping()`` is True when the client answers."""
    async with serve(CONFIG, WATCHED) as serving, connect(serving.ws("/")) as client:
        await client.send("ping")
        assert await soon(client.recv()) == "True"


async def test_ping_of_a_client_that_is_not(serve: Serve) -> None:
    """``client.ping()`` is False when the client does not answer in time."""
    async with serve(CONFIG, WATCHED) as serving, websocket(serving.port, "/") as wire:
        await wire.send(text("ping in vain"))
        assert await wire.frame() == Frame(PING, b"")
        assert await wire.text() == "False"


async def test_ping_of_a_stream(serve: Serve) -> None:
    """A stream of events cannot be asked: it is there while it stands."""
    async with serve(CONFIG, WATCHED) as serving, stream(serving.port, "/") as wire:
        (client,) = serving.server.channels["watched"].clients
        assert await client.ping()
        wire.reset()
        watched: Any = serving.server.channels["watched"]
        await soon(watched.left_ones.get())
        assert not await client.ping()
