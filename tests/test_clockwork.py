"""The clock that can be moved: the hours of a server in a moment, and nothing else other than it was."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from wire import soon

from realtime.testing import Clock, Serve

ECHO = "channels: {echo: {plugin: echo, path: /ws}}"
CLOCK = "channels: {clock: {plugin: clock, path: /events, interval: 1h}}"
CHAT = "channels: {lobby: {plugin: chat, path: /chat}}"


async def test_hour(serve: Serve) -> None:
    """A clock with an interval of an hour ticks after an hour, which takes no time."""
    async with serve(CLOCK) as server, server.sse("/events") as stream:
        await stream.receive()
        await stream.assert_nothing(within=0)
        begun = time.monotonic()
        await server.clock.advance(3600)
        message = await stream.receive()
        assert message.data.startswith("Current time: ")
        assert time.monotonic() - begun < 10
        assert message.time - time.time() > 3590


async def test_name_timeout(serve: Serve) -> None:
    """A newcomer to a chat that says no name is closed when its time is over, and not before."""
    async with serve(CHAT) as server, server.ws("/chat") as client:
        await server.clock.advance(9)
        await client.assert_nothing(within=0)
        await server.clock.advance(1)
        code, reason = await client.closed()
        assert (code, reason[:26]) == (1008, "no name came within 10s (n")


async def test_heartbeats_go_on(serve: Serve) -> None:
    """Pings and their answers go on while time moves: who is there stays."""
    async with serve(ECHO) as server, server.ws("/ws") as client:
        await server.clock.advance(200)
        await client.send("hi")
        await client.expect("Echo: hi")


async def test_history_ages(serve: Serve) -> None:
    """History is as old as the clock says."""
    config = "channels: {topics: {plugin: topics, path: '/t/{topic...}', history: 10, history_age: 1h}}"
    async with serve(config) as server:
        await server.bus.publish("topics/a", "old")
        await server.clock.advance(1800)
        await server.bus.publish("topics/a", "new")
        await server.clock.advance(1801)
        async with server.ws("/t/a", since="earliest") as client:
            await client.expect("new")


async def test_timers_in_between(serve: Serve) -> None:
    """Each timer sees its own time, in order."""
    seen: list[float] = []
    async with serve(ECHO) as server:
        loop = asyncio.get_running_loop()
        began = loop.time()

        def tick() -> None:
            seen.append(loop.time() - began)
            loop.call_later(10, tick)

        loop.call_later(10, tick)
        await server.clock.advance(30.5)
    assert [round(at, -1) for at in seen] == [10, 20, 30]


async def test_timers_in_between_after_a_hold(serve: Serve) -> None:
    """What was due before the clock is moved goes on at its times, too."""
    seen: list[float] = []
    async with serve(ECHO) as server:
        loop = asyncio.get_running_loop()

        def tick() -> None:
            seen.append(loop.time())
            loop.call_later(10, tick)

        loop.call_later(0.05, tick)
        threading.Event().wait(0.6)  # the server's own timers are late, too
        await server.clock.advance(30.5)
    assert [round(at - seen[0], -1) for at in seen] == [0, 10, 20, 30]


async def test_asyncio_timeout(serve: Serve) -> None:
    """The time-outs of asyncio go by the clock."""
    async with serve(ECHO) as server:
        sleeping = asyncio.create_task(asyncio.wait_for(asyncio.Event().wait(), 100))
        await asyncio.sleep(0)
        await server.clock.advance(100)
        with pytest.raises(TimeoutError):
            await sleeping


async def test_advance_during_a_wait(serve: Serve) -> None:
    """To move the clock does not end what a client waits for."""
    config = CLOCK.replace("1h", "1m")
    async with serve(config) as server, server.sse("/events") as stream:
        await stream.receive()
        waiting = asyncio.create_task(stream.receive())
        await server.clock.advance(60)
        assert (await waiting).data.startswith("Current time: ")


async def test_clock_is_given_back(serve: Serve) -> None:
    """After the server the loop has its own time, and what still waits does so for what is left."""
    loop = asyncio.get_running_loop()
    async with serve(ECHO) as server:
        waking = asyncio.Event()
        loop.call_later(1000.1, waking.set)
        await server.clock.advance(1000)
        assert loop.time() - time.monotonic() > 900
        assert not waking.is_set()
    assert abs(loop.time() - time.monotonic()) < 100
    await soon(waking.wait())


async def test_timers_can_be_cancelled() -> None:
    """A timer that is cancelled does not fire, and one that has fired can be cancelled."""
    clock, fired = Clock(asyncio.get_running_loop()), list[str]()
    try:
        gone = asyncio.get_running_loop().call_later(1, fired.append, "gone")
        came = asyncio.get_running_loop().call_later(1, fired.append, "came")
        gone.cancel()
        assert (gone.cancelled(), came.cancelled()) == (True, False)
        await clock.advance(2)
        came.cancel()
        with pytest.raises(ValueError, match="forward only"):
            await clock.advance(-1)
    finally:
        clock.restore()
    assert fired == ["came"]
