"""A snapshot: where a channel stands, in one answer."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest
from conftest import Serve, Serving
from wire import Headers, ask, dial, eventually, request, stream, websocket

from realtime import door
from realtime.transports import connections, endpoint, snapshot
from realtime.transports.snapshot import MAX_SNAPSHOT

FEED = {
    "feed.py": '''
        from realtime import Channel, hookimpl

        class Feed(Channel):
            """Whatever the test publishes."""

        class Asking(Channel):
            """Asks who connects."""

            async def on_connect(self, client):
                await client.receive()

        class Open(Asking):
            """Shows where it stands to who was not asked."""

            transports = ("websocket", "json")

        class Fleeting(Channel):
            """Has its client go at the last moment."""

            went = False

            @hookimpl
            def authenticate(self, request):
                if request.path == self.settings.path:
                    self.go()
                    self.went = True

        @hookimpl
        def register_channels():
            return {"feed": Feed, "asking": Asking, "open": Open, "fleeting": Fleeting}
    '''
}
CONFIG = """
    plugins: [feed]
    channels:
      feed: {plugin: feed, path: /feed, history: 3, lag_bytes: 64MiB}
      rooms: {plugin: feed, path: "/rooms/{room}", history: 100000}
      asking: {plugin: asking, path: /asking}
      open: {plugin: open, path: /open}
      fleeting: {plugin: fleeting, path: /fleeting}
"""
JSON: Headers = [("Accept", "application/json")]


async def seen(serving: Serving, path: str = "/feed", headers: Headers = ()) -> dict[str, Any]:
    """The snapshot."""
    head, body = await ask(serving.port, path, [*JSON, *headers])
    assert (head.status, head.headers["content-type"]) == (200, "application/json")
    whole = json.loads(body)
    assert isinstance(whole, dict)
    return whole


async def publish(serving: Serving, *data: object, topic: str = "feed") -> list[str]:
    """Publish; returns the positions."""
    return [str(await serving.server.bus.publish(topic, each)) for each in data]


def said(whole: dict[str, Any]) -> list[Any]:
    """The data of the messages of a snapshot."""
    return [message["data"] for message in whole["messages"]]


# What it says


async def test_fields(serve: Serve) -> None:
    """It names the channel, the topic, the position, how many are there, and what was said last."""
    async with serve(CONFIG, FEED) as serving, stream(serving.port, "/rooms/a"):
        (position,) = await publish(serving, "hi", topic="rooms/a")
        whole = await seen(serving, "/rooms/a")
        (message,) = whole["messages"]
    expected = {"channel": "rooms", "topic": "rooms/a", "id": position, "clients": 1}
    assert {key: whole[key] for key in expected} == expected
    assert "outcome" not in whole
    assert message == {"id": position, "event": "message", "data": "hi", "time": message["time"]}


async def test_messages_are_those_of_a_newcomer(serve: Serve) -> None:
    """The messages are the history, the oldest first, each as ``realtime.v1.json`` has it."""
    async with serve(CONFIG, FEED) as serving:
        await publish(serving, "a", "b", {"c": 1}, b"\x00")
        messages = (await seen(serving))["messages"]
    assert [(m["data"], m.get("encoding")) for m in messages] == [
        ("b", None),
        ({"c": 1}, None),
        ("AA==", "base64"),
    ]


async def test_nobody_is_there(serve: Serve) -> None:
    """A topic that nobody uses has no position, and is not made by asking."""
    async with serve(CONFIG, FEED) as serving:
        whole = await seen(serving, "/rooms/a")
        assert serving.server.bus.topics == []
    assert (whole["id"], whole["clients"], whole["messages"]) == (None, 0, [])


async def test_nobody_joins(serve: Serve) -> None:
    """Who looks is no client, and is not counted."""
    async with serve(CONFIG, FEED) as serving, websocket(serving.port, "/feed"):
        await eventually(lambda: len(serving.server.channels["feed"].clients) == 1)
        assert [(await seen(serving))["clients"] for _ in range(2)] == [1, 1]


async def test_clients_of_other_topics_do_not_count(serve: Serve) -> None:
    """``clients`` are those of this topic."""
    async with serve(CONFIG, FEED) as serving, stream(serving.port, "/rooms/a"):
        await publish(serving, "x", topic="rooms/b")
        assert (await seen(serving, "/rooms/b"))["clients"] == 0


async def test_head(serve: Serve) -> None:
    """HEAD says how long it is."""
    async with serve(CONFIG, FEED) as serving:
        await publish(serving, "hi")
        head, body = await ask(serving.port, "/feed", JSON, method="HEAD")
        _, whole = await ask(serving.port, "/feed", JSON)
    assert (head.status, head.headers["content-length"], body) == (200, str(len(whole)), "")


# since


@pytest.mark.parametrize(
    ("since", "expected"), [("-2", "de"), ("-3", "cde"), ("-9", "cde"), ("earliest", "cde"), ("-0", "")]
)
async def test_since(serve: Serve, since: str, expected: str) -> None:
    """``since`` asks for the newest few, or for all that a newcomer may have."""
    async with serve(CONFIG, FEED) as serving:
        positions = await publish(serving, *"abcde")
        whole = await seen(serving, f"/feed?since={since}")
    assert said(whole) == [*expected]
    assert (whole["id"], "outcome" in whole) == (positions[-1], False)


@pytest.mark.parametrize("way", ["header", "query"])
async def test_recovered(serve: Serve, way: str) -> None:
    """After a position come all that followed it, more than a newcomer may have."""
    async with serve(CONFIG, FEED) as serving:
        positions = await publish(serving, *"abcdef")
        if way == "header":
            whole = await seen(serving, "/feed", [("Last-Event-ID", positions[0])])
        else:
            whole = await seen(serving, f"/feed?since={positions[0]}")
    assert (said(whole), whole["outcome"], whole["id"]) == ([*"bcdef"], "recovered", positions[-1])


async def test_nothing_new(serve: Serve) -> None:
    """At the newest position there is nothing, and the position is the same."""
    async with serve(CONFIG, FEED) as serving:
        *_, last = await publish(serving, *"ab")
        whole = await seen(serving, f"/feed?since={last}")
    assert (said(whole), whole["outcome"], whole["id"]) == ([], "recovered", last)


async def test_gap(serve: Serve) -> None:
    """What is no longer kept is counted, and the messages go on with the oldest that is."""
    config = "channels: {feed: {plugin: feed, path: /feed, lag_bytes: 1KiB}}"
    async with serve(config, FEED) as serving:
        (first,) = await publish(serving, "0")
        await publish(serving, *map(str, range(1, 50)))
        await eventually(lambda: not serving.server.bus.topic("feed").flushing)
        await publish(serving, "50")
        whole = await seen(serving, f"/feed?since={first}")
    assert (whole["outcome"], whole["missed"] > 0) == ("gap", True)
    assert said(whole) == [str(n) for n in range(1 + whole["missed"], 51)]


@pytest.mark.parametrize("told", ["0f0f0f0f-1", "no position"])
async def test_reset(serve: Serve, told: str) -> None:
    """A position that means nothing here begins anew, with the history."""
    async with serve(CONFIG, FEED) as serving:
        await publish(serving, *"abcde")
        whole = await seen(serving, "/feed", [("Last-Event-ID", told)])
    assert (said(whole), whole["outcome"], "missed" in whole) == ([*"cde"], "reset", False)


async def test_reset_where_nobody_is(serve: Serve) -> None:
    """A position in a topic that is gone is a reset, too."""
    async with serve(CONFIG, FEED) as serving:
        whole = await seen(serving, "/rooms/a?since=0f0f0f0f-1")
    assert (whole["outcome"], whole["id"], whole["messages"]) == ("reset", None, [])


async def test_since_that_is_none(serve: Serve) -> None:
    """A ``since`` that means nothing is 400."""
    async with serve(CONFIG, FEED) as serving:
        head, body = await ask(serving.port, "/feed?since=yesterday", JSON)
    assert head.status == 400
    assert "'yesterday' is no position" in body


# How large it is


async def test_large_history_is_cut(serve: Serve) -> None:
    """Of a history larger than a snapshot may be the newest are in it."""
    async with serve(CONFIG, FEED) as serving:
        positions = await publish(serving, *(f"{n:0100000}" for n in range(20)), topic="rooms/a")
        whole = await seen(serving, "/rooms/a")
    numbers = [int(data[-2:]) for data in said(whole)]
    assert numbers == list(range(20 - len(numbers), 20))
    assert sum(map(len, said(whole))) <= MAX_SNAPSHOT < sum(map(len, said(whole))) + 101_000
    assert whole["id"] == positions[-1]


@pytest.mark.parametrize("since", [None, "earliest", "-9"])
async def test_one_message_always_fits(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, since: str | None
) -> None:
    """A message larger than a snapshot is a snapshot of its own: nobody waits for it for ever."""
    monkeypatch.setattr(snapshot, "MAX_SNAPSHOT", 100)
    async with serve(CONFIG, FEED) as serving:
        first, last = await publish(serving, "small", "x" * 1000)
        assert said(await seen(serving, f"/feed?since={first}")) == ["x" * 1000]
        whole = await seen(serving, f"/feed?since={since}" if since else "/feed")
    assert (said(whole), whole["id"]) == (["x" * 1000], last)


async def test_polling_gets_every_message_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks again with the ``id`` it was given gets all, in order and once, however much came."""
    monkeypatch.setattr(snapshot, "MAX_SNAPSHOT", 2000)
    async with serve(CONFIG, FEED) as serving, stream(serving.port, "/rooms/a"):
        whole = await seen(serving, "/rooms/a")
        heard: list[Any] = []
        number = 0
        for burst in (3, 0, 40, 1, 100, 7, *[0] * 40):
            await publish(serving, *range(number, number + burst), topic="rooms/a")
            number += burst
            whole = await seen(serving, f"/rooms/a?since={whole['id']}")
            assert whole["outcome"] == "recovered"
            heard += said(whole)
    assert heard == list(range(151))


@pytest.mark.parametrize("since", ["", "?since=0f-1"])
async def test_what_json_escapes_counts_as_json(serve: Serve, since: str) -> None:
    """The bound is on what is sent: a text may be six times as long there as it was published."""
    async with serve(CONFIG, FEED) as serving:
        await publish(serving, *["\x01" * 10_000] * 100, topic="rooms/a")
        _, body = await ask(serving.port, f"/rooms/a{since}", JSON)
    assert MAX_SNAPSHOT / 2 < len(body) < MAX_SNAPSHOT


# Many of them

#: More than the kernel takes for a client that does not read.
ENDLESS = "x" * 32 * 1024 * 1024


async def test_one_is_made_in_a_turn(serve: Serve) -> None:
    """However many ask at once, everything else has its turn after each: they are milliseconds each."""
    async with serve(CONFIG, FEED) as serving, AsyncExitStack() as stack:

        async def go_on() -> None:
            while True:
                await publish(serving, "x")
                await asyncio.sleep(0)

        wires = [await stack.enter_async_context(dial(serving.port)) for _ in range(20)]
        publishing = asyncio.create_task(go_on())
        for wire in wires:
            wire.socket.sendall(request("/feed", JSON))
        ids = [json.loads((await wire.response())[1])["id"] for wire in wires]
        publishing.cancel()
    assert len(set(ids)) == len(ids)


async def test_client_that_does_not_read_is_cut(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for a snapshot and does not take it keeps it from nobody's memory for long."""
    monkeypatch.setattr(endpoint, "SNAPSHOT_WITHIN", 0.1)
    async with (
        serve(CONFIG, FEED) as serving,
        dial(serving.port, request("/feed", JSON), receive_buffer=4096) as wire,
    ):
        await publish(serving, ENDLESS)
        snapshots = serving.server.connections.snapshots
        await eventually(lambda: snapshots._value < connections.MAX_SNAPSHOTS)
        await eventually(lambda: snapshots._value == connections.MAX_SNAPSHOTS)
        assert len(await wire.rest()) < len(ENDLESS)


async def test_client_that_goes_before_it_is_answered(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that is gone before it can be answered is no error."""
    async with serve(CONFIG, FEED) as serving, dial(serving.port) as wire:
        fleeting: Any = serving.server.channels["fleeting"]
        fleeting.go = wire.reset
        await wire.send(request("/fleeting", JSON))
        await eventually(lambda: fleeting.went)
        await ask(serving.port, "/feed", JSON)
    assert "Traceback" not in caplog.text


async def test_so_many_are_sent_at_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Further ones wait, and take no memory meanwhile, until one has been taken, or its client is gone."""
    monkeypatch.setattr(connections, "MAX_SNAPSHOTS", 1)
    async with serve(CONFIG, FEED) as serving, dial(serving.port, receive_buffer=4096) as first:
        await publish(serving, ENDLESS)
        await first.send(request("/feed", JSON))
        await eventually(serving.server.connections.snapshots.locked)
        async with dial(serving.port, request("/rooms/a", JSON)) as second:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await second.head()
            first.reset()
            assert (await second.head()).status == 200


async def test_all_together_are_bounded(serve: Serve) -> None:
    """Those that are being sent take a hundred mebibytes at the most, whoever asks for them."""
    async with serve(CONFIG, FEED) as serving:
        at_once = serving.server.connections.snapshots._value
    assert at_once * MAX_SNAPSHOT <= 100 << 20


async def test_who_takes_nothing_makes_room(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """While others wait, who takes not a byte of its snapshot is cut long before it would be else."""
    monkeypatch.setattr(connections, "MAX_SNAPSHOTS", 1)
    monkeypatch.setattr(connections, "STALL_WHILE_OTHERS_WAIT", 0.2)
    monkeypatch.setattr(door, "LOOK", 0.1)
    async with serve(CONFIG, FEED) as serving, dial(serving.port, receive_buffer=4096) as first:
        await publish(serving, ENDLESS)
        await first.send(request("/feed", JSON))
        await eventually(serving.server.connections.snapshots.locked)
        assert await seen(serving, "/rooms/a")


# Who serves it


async def test_type_that_asks_does_not_show_itself(serve: Serve) -> None:
    """A type with an ``on_connect`` of its own serves no snapshot, which would pass that by."""
    async with serve(CONFIG, FEED) as serving:
        head, body = await ask(serving.port, "/asking", JSON)
    assert head.status == 406
    assert "application/json" not in body


async def test_type_that_asks_can_show_itself(serve: Serve) -> None:
    """It does if it says so."""
    async with serve(CONFIG, FEED) as serving:
        assert (await seen(serving, "/open"))["channel"] == "open"


async def test_chat_shows_itself(serve: Serve) -> None:
    """A chat serves its snapshot to who has no name."""
    async with serve("channels: {lobby: {plugin: chat, path: /chat}}") as serving:
        assert (await seen(serving, "/chat"))["channel"] == "lobby"
