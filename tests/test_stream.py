"""What the streams share, each claim for each of them: places, gaps, slowness and the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from conftest import Serve, Serving
from wire import Headers, Wire, dial, eventually, request

FEED = {
    "feed.py": '''
        from realtime import Channel, hookimpl

        class Feed(Channel):
            """Whatever the test publishes."""

            async def on_join(self, client):
                await client.send("you are in")

        @hookimpl
        def register_channels():
            return {"feed": Feed}
    '''
}
CONFIG = "channels: {feed: {plugin: feed, path: /feed, history: 3}}"


class Kind(NamedTuple):
    """A kind of stream, and how the object of a message is read from it."""

    accept: str

    async def next(self, wire: Wire) -> dict[str, Any]:
        """The next message, as an object of ``realtime.v1.json``."""
        if "ndjson" in self.accept:
            return await wire.line()
        event = await wire.event()
        while "data" not in event:  # a comment
            event = await wire.event()
        if "profile" in self.accept:
            whole = json.loads(event["data"])
            assert isinstance(whole, dict)
            assert event == ({"id": whole["id"]} if "id" in whole else {}) | {"data": event["data"]}
            return whole
        data = json.loads(event["data"]) if "realtime:" in event.get("event", "") else event["data"]
        place = {"id": event["id"]} if "id" in event else {}
        return {**place, "event": event.get("event", "message"), "data": data}


EVENTS, PROFILED, LINES = KINDS = [
    Kind("text/event-stream"),
    Kind("text/event-stream;profile=realtime.v1.json"),
    Kind("application/x-ndjson"),
]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=["events", "profiled", "lines"])


@asynccontextmanager
async def reading(
    serving: Serving, kind: Kind, path: str = "/feed", headers: Headers = (), receive_buffer: int = 0
) -> AsyncIterator[Wire]:
    """A stream whose head has been read."""
    wanted = request(path, [("Accept", kind.accept), *headers])
    async with dial(serving.port, wanted, receive_buffer=receive_buffer) as wire:
        assert (await wire.head()).status == 200
        yield wire


async def publish(serving: Serving, *texts: str) -> str:
    """Publish to the topic ``feed``; returns the last position."""
    position = ""
    for each in texts:
        position = str(await serving.server.bus.publish("feed", each))
        await asyncio.sleep(0)  # a turn of its own for each
    return position


async def told(wire: Wire, kind: Kind, count: int) -> list[tuple[str, Any]]:
    """The events and data of the next messages."""
    messages = [await kind.next(wire) for _ in range(count)]
    return [(message["event"], message["data"]) for message in messages]


@each_kind
async def test_place_is_held_from_the_answer_on(serve: Serve, kind: Kind) -> None:
    """The welcome has the position from which on nothing is missed."""
    async with serve(CONFIG, FEED) as serving:
        position = await publish(serving, "before")
        async with reading(serving, kind) as wire:
            welcome = await kind.next(wire)
            await publish(serving, "after")
            assert (welcome["event"], welcome["id"]) == ("realtime:welcome", position)
            assert await told(wire, kind, 2) == [("message", "you are in"), ("message", "after")]


@each_kind
async def test_what_is_sent_to_one_has_no_position(serve: Serve, kind: Kind) -> None:
    """A message to this client alone has no id, one of the topic has."""
    async with serve(CONFIG, FEED) as serving, reading(serving, kind) as wire:
        await kind.next(wire)
        await publish(serving, "to all")
        assert ["id" in await kind.next(wire) for _ in range(2)] == [False, True]


@each_kind
@pytest.mark.parametrize("way", ["header", "query"])
async def test_recovered(serve: Serve, kind: Kind, way: str) -> None:
    """A client that comes back gets what it missed, and what is new, without a seam."""
    async with serve(CONFIG, FEED) as serving:
        seen = await publish(serving, "a")
        await publish(serving, "b")
        headers = [("Last-Event-ID", seen)] if way == "header" else []
        path = f"/feed?since={seen}" if way == "query" else "/feed"
        async with reading(serving, kind, path, headers) as wire:
            assert (await kind.next(wire))["data"]["outcome"] == "recovered"
            await publish(serving, "c")
            heard = await told(wire, kind, 3)
    assert [data for _, data in heard if data != "you are in"] == ["b", "c"]


@each_kind
async def test_gap(serve: Serve, kind: Kind) -> None:
    """What is lost is counted in the welcome and where it is missing; the latter has the position."""
    config = "channels: {feed: {plugin: feed, path: /feed, lag_bytes: 1KiB}}"
    async with serve(config, FEED) as serving:
        seen = await publish(serving, "0")
        await publish(serving, *map(str, range(1, 50)))
        async with reading(serving, kind, headers=[("Last-Event-ID", seen)]) as wire:
            welcome, gap, following = [await kind.next(wire) for _ in range(3)]
            assert (welcome["data"]["outcome"], "id" in welcome) == ("gap", False)
            assert gap["event"] == "realtime:gap"
            assert gap["data"]["missed"] == welcome["data"]["missed"]
            assert following["data"] == str(1 + gap["data"]["missed"])


@each_kind
async def test_reset(serve: Serve, kind: Kind) -> None:
    """A position of another life of the topic begins anew, with all that a newcomer may have."""
    async with serve(CONFIG, FEED) as serving:
        await publish(serving, *"abcd")
        async with reading(serving, kind, headers=[("Last-Event-ID", "0f0f0f0f-1")]) as wire:
            welcome, reset = await kind.next(wire), await kind.next(wire)
            assert (welcome["data"]["outcome"], reset["event"]) == ("reset", "realtime:reset")
            assert [data for _, data in await told(wire, kind, 3)] == ["b", "c", "d"]


@each_kind
async def test_slow_reader_is_told_what_it_missed(serve: Serve, kind: Kind) -> None:
    """With ``overflow: skip`` each message is delivered or counted by a gap, and none is both."""
    config = "channels: {feed: {plugin: feed, path: /feed, lag_bytes: 64KiB, overflow: skip}}"
    async with serve(config, FEED) as serving, reading(serving, kind, receive_buffer=4096) as wire:
        await eventually(lambda: bool(serving.server.channels["feed"].clients))
        for _ in range(3000):
            await publish(serving, "x" * 4000)
        last = await publish(serving, "last")
        at, missed, seen = 0, 0, ""
        while seen != last:
            message = await kind.next(wire)
            if "id" in message and message["event"] != "realtime:welcome":
                step = message["data"]["missed"] if message["event"] == "realtime:gap" else 1
                at, seen = at + step, message["id"]
                missed += step if message["event"] == "realtime:gap" else 0
                assert at == int(seen.partition("-")[2])
    assert missed > 0


@each_kind
async def test_slow_reader_is_closed(serve: Serve, kind: Kind) -> None:
    """By default who was lapped is told 1013 last, and the body ends whole."""
    config = "channels: {feed: {plugin: feed, path: /feed, lag_bytes: 64KiB}}"
    async with serve(config, FEED) as serving, reading(serving, kind, receive_buffer=4096) as wire:
        feed = serving.server.channels["feed"]
        await eventually(lambda: bool(feed.clients))
        while feed.clients:
            await publish(serving, "x" * 4000)
        body = await wire.rest()
    assert body.endswith(b"\r\n0\r\n\r\n")
    assert b'{"code":1013,"reason":"too slow' in body[-260:]


@each_kind
async def test_http_1_0_gets_no_chunks(serve: Serve, kind: Kind) -> None:
    """HTTP/1.0 knows no chunks: the body is the messages, and its end that of the connection."""
    wanted = request("/feed", [("Accept", kind.accept)], http="1.0")
    async with serve(CONFIG, FEED) as serving, dial(serving.port, wanted) as wire:
        assert "transfer-encoding" not in (await wire.head()).headers
        assert b"realtime:welcome" in await wire.until(b"\n" if kind is LINES else b"\n\n")
        await serving.server.stop()
        rest = await wire.rest()
    assert b"realtime:bye" in rest
    assert rest.endswith(b"}\n" if kind is LINES else b"}\n\n")


@each_kind
@pytest.mark.parametrize("way", [Wire.finish, Wire.reset], ids=["FIN", "RST"])
async def test_client_that_leaves_is_noticed(serve: Serve, kind: Kind, way: Any) -> None:
    """A client that goes has left at once, without anything being written to it."""
    async with serve(CONFIG, FEED) as serving, reading(serving, kind) as wire:
        feed = serving.server.channels["feed"]
        await eventually(lambda: bool(feed.clients))
        way(wire)
        await eventually(lambda: not feed.clients)


async def test_kinds_share_what_they_read(serve: Serve) -> None:
    """Each kind sees each message, in one order, whatever the others are."""
    async with (
        serve(CONFIG, FEED) as serving,
        reading(serving, EVENTS) as events,
        reading(serving, PROFILED) as profiled,
        reading(serving, LINES) as lines,
    ):
        await eventually(lambda: len(serving.server.channels["feed"].clients) == 3)
        await publish(serving, "a", "b")
        for wire, kind in ((events, EVENTS), (profiled, PROFILED), (lines, LINES)):
            heard = await told(wire, kind, 4)
            assert [data for event, data in heard if event == "message"] == ["you are in", "a", "b"]
