"""Clock, as clients that others wrote see it."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime

import needs
import pytest
from conftest import Serve
from websockets.asyncio.client import connect
from wire import EVENTS, Wire, dial, eventually, lines, request, soon, stream

from realtime import bus

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
    async with serve(config(interval="1h")) as serving, stream(serving.port, "/events") as wire:
        before = datetime.now(UTC).timestamp()
        assert abs(parse((await wire.event())["data"]) - before) < 2


async def test_time_at_once_has_no_position(serve: Serve) -> None:
    """The time that only the newcomer gets is no message of the topic; a tick is."""
    async with serve(config(interval="100ms")) as serving, stream(serving.port, "/events") as wire:
        assert list(await wire.event()) == ["data"]
        assert list(await wire.event()) == ["id", "data"]


async def test_every_interval(serve: Serve) -> None:
    """With each ``interval`` there is an event, and the time does not drift."""
    async with serve(config(interval="100ms")) as serving, stream(serving.port, "/events") as wire:
        await wire.event()
        times = [parse((await wire.event())["data"]) for _ in range(8)]
    assert times[-1] - times[0] == pytest.approx(0.7, abs=0.09)
    assert times == sorted(times)


async def test_all_get_the_same_tick(serve: Serve) -> None:
    """One task ticks for everybody: all see the same times, to the microsecond."""
    async with (
        serve(config(interval="100ms")) as serving,
        stream(serving.port, "/events") as one,
        stream(serving.port, "/events") as other,
        connect(serving.ws("/events")) as socket,
    ):
        for wire in (one, other):
            await wire.event()
        await soon(socket.recv())
        ticks = {(await one.event())["data"] for _ in range(4)}
        others = {(await other.event())["data"] for _ in range(4)}
        sockets = {await soon(socket.recv()) for _ in range(4)}
    assert len(ticks & others & sockets) >= 2  # one may have come a tick earlier


async def test_no_task_for_a_client(serve: Serve) -> None:
    """A client of the clock has no more tasks than one of a channel that does nothing by itself."""
    both = config(interval="1h")[:-1] + ", lobby: {plugin: chat, path: /chat}}"
    async with serve(both) as serving:
        counts = [len(asyncio.all_tasks())]
        async with stream(serving.port, "/events"):
            counts.append(len(asyncio.all_tasks()))
            async with stream(serving.port, "/chat"):
                counts.append(len(asyncio.all_tasks()))
    assert counts[1] - counts[0] == counts[2] - counts[1]


async def test_keep_alive_between(serve: Serve) -> None:
    """When ``keep_alive`` passes without an event there is a comment; due together, the event."""
    settings = config(interval="600ms", keep_alive="200ms")
    async with serve(settings) as serving, stream(serving.port, "/events") as wire:
        await wire.event()
        while "data" not in await wire.event():
            pass  # the first tick: from here on the clock and the stream go together
        found = await blocks(wire, 6)
    assert found == ["keep-alive-text", "keep-alive-text", "T"] * 2


async def test_due_together(serve: Serve) -> None:
    """With the defaults' proportion, one second each, there is nothing but events."""
    settings = config(interval="200ms", keep_alive="200ms")
    async with serve(settings) as serving, stream(serving.port, "/events") as wire:
        assert await blocks(wire, 8) == ["T"] * 8


async def test_keep_alive_text(serve: Serve) -> None:
    """The comment's text can be set."""
    settings = config(interval="1h", keep_alive="50ms", keep_alive_text="still here")
    async with serve(settings) as serving, stream(serving.port, "/events") as wire:
        assert await blocks(wire, 3) == ["T", "still here", "still here"]


async def test_seed_to_the_byte(serve: Serve) -> None:
    """An event is a data line, a comment is ``: keep-alive-text``, each with an empty line."""
    settings = config(interval="1h", keep_alive="50ms")
    async with serve(settings) as serving, dial(serving.port, request("/events", EVENTS)) as wire:
        await wire.head()
        await wire.chunk()
        assert re.fullmatch(rf"data: {TIME.pattern}\n\n", await wire.chunk())
        assert await wire.chunk() == ": keep-alive-text\n\n"


async def test_websocket(serve: Serve) -> None:
    """A WebSocket gets the time too, at once and with each tick."""
    async with serve(config(interval="100ms")) as serving, connect(serving.ws("/events")) as client:
        for _ in range(3):
            text = await soon(client.recv())
            assert isinstance(text, str)
            parse(text)


async def test_curl(serve: Serve) -> None:
    """``curl -N`` shows the time at once, and then the ticks."""
    async with serve(config(interval="100ms")) as serving:
        printed = await lines([needs.curl(), "-sN", serving.http("/events")], 11)
    assert printed[0].startswith(": clock: server-sent events")
    times = [parse(line.removeprefix("data: ")) for line in printed if line.startswith("data: Current")]
    assert len(times) >= 2
    assert times == sorted(times)


async def test_resume(serve: Serve) -> None:
    """Who comes back with the last id gets the ticks that it missed, each once."""
    async with serve(config(interval="100ms")) as serving:
        async with stream(serving.port, "/events") as wire, stream(serving.port, "/events") as other:
            await wire.event()
            await other.event()
            seen = await wire.event()
            first = await other.event()
            while first["id"] != seen["id"]:
                first = await other.event()
            expected = [await other.event(), await other.event()]
        async with stream(serving.port, "/events", headers=[("Last-Event-ID", seen["id"])]) as wire:
            events = [await wire.event() for _ in range(3)]
    assert [event for event in events if "id" in event][:2] == expected


async def test_topic_where_nobody_is_goes(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of a path that nobody watches any more does not tick on."""
    monkeypatch.setattr(bus, "SWEEP", 0.05)
    config = "channels: {clock: {plugin: clock, path: '/t/{zone}', interval: 10ms, lag: 100ms}}"
    async with serve(config) as serving:
        async with stream(serving.port, "/t/paris") as wire:
            for _ in range(3):
                await wire.event()
        await eventually(lambda: not serving.server.bus.topics)
