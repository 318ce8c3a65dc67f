"""Clock: hours of it in a moment, and its stream to the byte."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime

import needs
import pytest
from wire import EVENTS, Wire, dial, lines, request, stream

from realtime import Position
from realtime.testing import Serve

TIME = re.compile(r"Current time: (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}) UTC")


def config(**settings: str) -> str:
    """A clock with settings."""
    more = "".join(f", {key}: {value}" for key, value in settings.items())
    return f"channels: {{clock: {{plugin: clock, path: /events{more}}}}}"


def parse(text: str) -> float:
    """The time that an event says, in seconds."""
    match = TIME.fullmatch(text)
    assert match is not None, text
    return datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC).timestamp()


async def blocks(wire: Wire, count: int) -> list[str]:
    """What comes, ``T`` for the time and the text of each comment."""
    found = []
    for _ in range(count):
        event = await wire.event()
        found.append("T" if "data" in event else event[""])
    return found


async def test_time_at_once(serve: Serve) -> None:
    """A newcomer gets the time at once, whatever the interval."""
    before = datetime.now(UTC).timestamp()
    async with serve(config(interval="1h")) as server, server.sse("/events") as events:
        told = parse((await events.receive()).data)
    assert before <= told <= datetime.now(UTC).timestamp()


async def test_time_at_once_has_no_position(serve: Serve) -> None:
    """The time that only the newcomer gets is no message of the topic; a tick is."""
    async with serve(config(interval="1m")) as server, server.sse("/events") as events:
        assert (await events.receive()).id is None
        await server.clock.advance(60)
        assert (await events.receive()).id is not None


async def test_every_interval(serve: Serve) -> None:
    """With each ``interval`` there is an event, and the time does not drift."""
    async with serve(config(interval="1m")) as server, server.sse("/events") as events:
        await events.receive()
        await server.clock.advance(600)
        times = [(await events.receive()).time for _ in range(10)]
        await events.assert_nothing(within=0)
    assert times[-1] - times[0] == pytest.approx(540, abs=1)
    assert times == sorted(times)


MOODY = """
from realtime import Engine, Unavailable, hookimpl


class Moody(Engine):
    calls = 0

    async def publish(self, topic, message, once=None):
        self.calls += 1
        if self.calls < 3:
            raise Unavailable("not now")
        return await super().publish(topic, message, once)


@hookimpl
def register_engines():
    return {"moody": Moody}
"""


async def test_goes_on_when_the_engine_is_back(serve: Serve) -> None:
    """A time that the engine does not take is left out, and the clock goes on."""
    with_engine = "bus: {engine: moody}\n" + config(interval="1m")
    async with serve(with_engine, {"moody.py": MOODY}) as server, server.sse("/events") as events:
        await events.receive()
        await server.clock.advance(180)
        parse((await events.receive()).data)
        await events.assert_nothing(within=0)


async def test_all_get_the_same_tick(serve: Serve) -> None:
    """One task ticks for everybody: all see the same time, to the microsecond."""
    async with (
        serve(config(interval="1m")) as server,
        server.sse("/events") as one,
        server.sse("/events") as other,
        server.ws("/events") as socket,
    ):
        for client in (one, other, socket):
            await client.receive()
        await server.clock.advance(60)
        text = await socket.receive()
        parse(text)
        await one.expect(text)
        await other.expect(text)


async def test_no_task_for_a_client(serve: Serve) -> None:
    """A client of the clock has no more tasks than one of a channel that does nothing by itself."""
    both = config(interval="1h")[:-1] + ", lobby: {plugin: chat, path: /chat}}"
    async with serve(both) as server:
        counts = [len(asyncio.all_tasks())]
        async with server.sse("/events"):
            counts.append(len(asyncio.all_tasks()))
            async with server.sse("/chat"):
                counts.append(len(asyncio.all_tasks()))
    assert counts[1] - counts[0] == counts[2] - counts[1]


async def test_keep_alive_between(serve: Serve) -> None:
    """When ``keep_alive`` passes without an event there is a comment; due together, the event."""
    settings = config(interval="3s", keep_alive="1s")
    async with serve(settings) as server, stream(server.port, "/events") as wire:
        await wire.event()
        await server.clock.advance(20)
        while "data" not in await wire.event():
            pass  # the first tick: from here on the clock and the stream go together
        found = await blocks(wire, 6)
    assert found == ["keep-alive-text", "keep-alive-text", "T"] * 2


async def test_due_together(serve: Serve) -> None:
    """With the defaults, one second each, there is nothing but events."""
    async with serve(config()) as server, stream(server.port, "/events") as wire:
        await server.clock.advance(8)
        assert await blocks(wire, 8) == ["T"] * 8


async def test_keep_alive_text(serve: Serve) -> None:
    """The comment's text can be set."""
    settings = config(interval="1h", keep_alive_text="still here")
    async with serve(settings) as server, stream(server.port, "/events") as wire:
        await server.clock.advance(3)
        assert await blocks(wire, 3) == ["T", "still here", "still here"]


async def test_seed_to_the_byte(serve: Serve) -> None:
    """An event is a data line, a comment is ``: keep-alive-text``, each with an empty line."""
    async with (
        serve(config(interval="1h")) as server,
        dial(server.port, request("/events", EVENTS)) as wire,
    ):
        await wire.head()
        await wire.chunk()
        assert re.fullmatch(rf"data: {TIME.pattern}\n\n", await wire.chunk())
        await server.clock.advance(1)
        assert await wire.chunk() == ": keep-alive-text\n\n"


async def test_websocket(serve: Serve) -> None:
    """A WebSocket gets the time too, at once and with each tick."""
    async with serve(config(interval="1m")) as server, server.ws("/events") as client:
        await server.clock.advance(120)
        for _ in range(3):
            parse(await client.receive())


async def test_curl(serve: Serve) -> None:
    """``curl -N`` shows the time at once, and then the ticks."""
    async with serve(config(interval="100ms")) as server:
        printed = await lines([needs.curl(), "-sN", server.url("/events")], 11)
    assert printed[0].startswith(": clock: server-sent events")
    times = [parse(line.removeprefix("data: ")) for line in printed if line.startswith("data: Current")]
    assert len(times) >= 2
    assert times == sorted(times)


async def test_resume(serve: Serve) -> None:
    """Who comes back with the last id gets the ticks that it missed, each once."""
    async with serve(config(interval="1m", history="10")) as server:
        async with server.sse("/events") as events:
            await events.receive()
            await server.clock.advance(60)
            seen = await events.receive()
        async with server.sse("/events"):
            await server.clock.advance(120)  # it ticks for those who are there
        async with server.sse("/events", since=seen.id) as events:
            ids = [message.id for _ in range(3) if (message := await events.receive()).id]
    assert seen.id is not None
    assert ids == [Position(seen.id.epoch, seen.id.offset + n) for n in (1, 2)]


async def test_topic_where_nobody_is_goes(serve: Serve) -> None:
    """The clock of a path that nobody watches any more does not tick on."""
    config = "channels: {clock: {plugin: clock, path: '/t/{zone}', lag: 5s}}"
    async with serve(config) as server:
        async with server.sse("/t/paris"):
            await server.clock.advance(3)
            assert server.bus.topics
        await server.clock.advance(8)
        assert not server.bus.topics
