"""Server-sent events, seen as bytes."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from conftest import Serve, Serving
from websockets.asyncio.client import connect
from wire import EVENTS, Headers, Wire, ask, dial, request, soon, stream

#: A channel that says whatever the test publishes, and tells who comes and goes.
FEED = {
    "feed.py": '''
        import asyncio
        from realtime import Channel, hookimpl

        class Feed(Channel):
            """Whatever the test publishes."""

            def __init__(self, name, settings, bus):
                super().__init__(name, settings, bus)
                self.seen = asyncio.Queue()

            async def on_connect(self, client):
                self.seen.put_nowait("connect")

            async def on_leave(self, client):
                self.seen.put_nowait("leave")

        @hookimpl
        def register_channels():
            return {"feed": Feed}
    '''
}
CONFIG = "channels: {feed: {plugin: feed, path: /feed, history: 3}}"
PROFILED: Headers = [("Accept", "text/event-stream;profile=realtime.v1.json")]


async def publish(serving: Serving, *texts: str) -> str:
    """Publish to the topic ``feed``; returns the last position."""
    position = ""
    for text in texts:
        position = str(await serving.server.bus.publish("feed", text))
        await asyncio.sleep(0)  # a turn of its own for each
    return position


# The beginning


async def test_headers(serve: Serve) -> None:
    """The response is a stream that nobody may keep, transform or hold back."""
    async with serve(CONFIG, FEED) as serving, dial(serving.port, request("/feed", EVENTS)) as wire:
        head = await wire.head()
    assert head.status == 200
    assert head.headers["content-type"] == "text/event-stream"
    assert head.headers["cache-control"] == "no-store"
    assert head.headers["x-accel-buffering"] == "no"
    assert head.headers["vary"] == "Accept, Sec-Fetch-Mode"
    assert head.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in head.headers
    assert "server" not in head.headers


async def test_first_block_is_the_position(serve: Serve) -> None:
    """A stream begins with the position before any message, for the client to come back with."""
    async with serve(CONFIG, FEED) as serving:
        position = await publish(serving, "a", "b")
        async with dial(serving.port, request("/feed", EVENTS)) as wire:
            await wire.head()
            assert (await wire.chunk()).startswith(f"id: {position}\nevent: realtime:welcome\ndata: {{")


@pytest.mark.parametrize("headers", [(), [("Accept", "*/*")]], ids=["no Accept", "any"])
async def test_stream_that_nobody_asked_for_introduces_itself(serve: Serve, headers: Headers) -> None:
    """Who accepts anything (curl) is told in a comment what the URL can be."""
    async with serve(CONFIG, FEED) as serving, dial(serving.port, request("/feed", headers)) as wire:
        assert (await wire.head()).status == 200
        comment = await wire.chunk()
        assert comment.startswith(": feed: server-sent events")
        assert "WebSocket" in comment
        assert (await wire.chunk()).startswith("id: ")


@pytest.mark.parametrize("accept", ["text/event-stream", "TEXT/Event-Stream;q=0.9", "text/*", "a/b, */*"])
async def test_accepted(serve: Serve, accept: str) -> None:
    """A media type that covers a stream of events gets one."""
    async with (
        serve(CONFIG, FEED) as serving,
        dial(serving.port, request("/feed", [("Accept", accept)])) as wire,
    ):
        assert (await wire.head()).headers["content-type"] == "text/event-stream"


async def test_http_1_0_gets_no_chunks(serve: Serve) -> None:
    """HTTP/1.0 knows no chunks: the body ends with the connection."""
    async with (
        serve(CONFIG, FEED) as serving,
        dial(serving.port, request("/feed", EVENTS, http="1.0")) as wire,
    ):
        head = await wire.head()
        assert "transfer-encoding" not in head.headers
        start = await wire.until(b"\n\n")
        position = await publish(serving, "hello")
        assert start.startswith(f"id: {position.rpartition('-')[0]}-0\nevent: realtime:welcome\n".encode())
        assert await wire.until(b"\n\n") == f"id: {position}\ndata: hello".encode()
        await serving.server.stop()
        assert (await wire.rest()).endswith(b"\n\n")


async def test_head_opens_nothing(serve: Serve) -> None:
    """HEAD gets the headers, and no client begins."""
    async with serve(CONFIG, FEED) as serving:
        async with dial(serving.port, request("/feed", EVENTS, method="HEAD")) as wire:
            head = await wire.head()
            assert (head.status, head.headers["content-type"]) == (200, "text/event-stream")
            await wire.send(request("/-/live"))
            assert (await wire.response())[1] == '{"live": true}'
        feed: Any = serving.server.channels["feed"]
        assert feed.seen.empty()


# Events


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("hello", "hello"),
        ("", ""),
        ("a\nb", "a\nb"),
        ("a\r\nid: x\rb\n", "a\nid: x\nb\n"),
        ({"from": "é"}, '{"from":"é"}'),
        ([], "[]"),
    ],
    ids=repr,
)
async def test_data(serve: Serve, data: object, expected: str) -> None:
    """Text comes as it is, each line a field; anything else as compact JSON."""
    async with serve(CONFIG, FEED) as serving, stream(serving.port, "/feed") as wire:
        position = await serving.server.bus.publish("feed", data)
        assert await wire.event() == {"id": str(position), "data": expected}


async def test_bytes(serve: Serve) -> None:
    """Bytes come in base64, as JSON."""
    async with serve(CONFIG, FEED) as serving, stream(serving.port, "/feed") as wire:
        await serving.server.bus.publish("feed", b"\x00\xff")
        data = json.loads((await wire.event())["data"])
    assert (base64.b64decode(data["data"]), data["encoding"]) == (b"\x00\xff", "base64")


async def test_event_name(serve: Serve) -> None:
    """An event that is no ``message`` is named."""
    async with serve(CONFIG, FEED) as serving, stream(serving.port, "/feed") as wire:
        await serving.server.bus.publish("feed", "x", event="news")
        assert (await wire.event())["event"] == "news"


async def test_one_turn_is_one_chunk(serve: Serve) -> None:
    """What is published in one turn of the loop leaves as one chunk."""
    async with serve(CONFIG, FEED) as serving, stream(serving.port, "/feed") as wire:
        for text in "abc":
            await serving.server.bus.publish("feed", text)
        chunk = await wire.chunk()
    assert [line for line in chunk.split("\n") if line.startswith("data")] == [
        "data: a",
        "data: b",
        "data: c",
    ]


# With the profile realtime.v1.json


@pytest.mark.parametrize(
    ("data", "event", "fields"),
    [
        ("hello", "message", {"data": "hello"}),
        ("a\nb\rdata: c", "message", {"data": "a\nb\rdata: c"}),
        ('{"a":1}', "message", {"data": '{"a":1}'}),
        ({"a": 1}, "news", {"data": {"a": 1}}),
        (b"\x00\xff", "message", {"data": "AP8=", "encoding": "base64"}),
    ],
    ids=repr,
)
async def test_profiled(serve: Serve, data: object, event: str, fields: dict[str, Any]) -> None:
    """With the profile an event is an id and one line of data, the object with all there is to know."""
    async with serve(CONFIG, FEED) as serving, dial(serving.port, request("/feed", PROFILED)) as wire:
        head = await wire.head()
        await wire.event()
        position = str(await serving.server.bus.publish("feed", data, event=event))
        block = await wire.event()
        whole = json.loads(block["data"])
    assert head.headers["content-type"] == 'text/event-stream; profile="realtime.v1.json"'
    assert block == {"id": position, "data": block["data"]}
    assert whole == {"id": position, "event": event, **fields, "time": whole["time"]}


async def test_profiled_welcome(serve: Serve) -> None:
    """The host's own events have no name on a line of their own either."""
    async with serve(CONFIG, FEED) as serving:
        position = await publish(serving, "a")
        async with dial(serving.port, request("/feed", PROFILED)) as wire:
            await wire.head()
            assert (await wire.chunk()).startswith(
                f'id: {position}\ndata: {{"id":"{position}","event":"realtime:welcome","data":{{"client"'
            )


async def test_profiled_keep_alive(serve: Serve) -> None:
    """In silence there is a comment, as without the profile."""
    config = "channels: {feed: {plugin: feed, path: /feed, keep_alive: 50ms}}"
    async with serve(config, FEED) as serving, dial(serving.port, request("/feed", PROFILED)) as wire:
        await wire.head()
        await wire.event()
        assert await wire.chunk() == ": keep-alive\n\n"


async def test_profiled_goodbye(serve: Serve) -> None:
    """The last event says when to come back to an ``EventSource``, too."""
    async with serve(CONFIG, FEED) as serving, dial(serving.port, request("/feed", PROFILED)) as wire:
        await wire.head()
        await wire.event()
        await serving.server.stop()
        block = await wire.event()
        assert await wire.chunk() == ""
    bye = json.loads(block["data"])
    assert (bye["event"], bye["data"]["code"]) == ("realtime:bye", 1001)
    assert block["retry"] == str(bye["data"]["retry"])


async def test_profile_is_for_who_asks(serve: Serve) -> None:
    """Beside a client with the profile, plain events are as they were."""
    async with (
        serve(CONFIG, FEED) as serving,
        stream(serving.port, "/feed") as plain,
        dial(serving.port, request("/feed", PROFILED)) as profiled,
    ):
        await profiled.head()
        await profiled.event()
        position = str(await serving.server.bus.publish("feed", {"a": 1}, event="news"))
        assert await plain.event() == {"id": position, "event": "news", "data": '{"a":1}'}
        assert json.loads((await profiled.event())["data"])["data"] == {"a": 1}


# Resuming


async def test_last_event_id_is_recovered(serve: Serve) -> None:
    """A stream goes on behind the event that the client saw last."""
    async with serve(CONFIG, FEED) as serving:
        seen = await publish(serving, "a")
        await publish(serving, "b", "c")
        async with stream(serving.port, "/feed", headers=[("Last-Event-ID", seen)]) as wire:
            assert [(await wire.event())["data"] for _ in "bc"] == ["b", "c"]


async def test_resumed_stream_goes_on_with_what_is_new(serve: Serve) -> None:
    """What was missed and what is new follow each other without a seam."""
    async with serve(CONFIG, FEED) as serving:
        seen = await publish(serving, "a")
        await publish(serving, "b")
        async with stream(serving.port, "/feed", headers=[("Last-Event-ID", seen)]) as wire:
            last = await publish(serving, "c")
            events = [await wire.event(), await wire.event()]
    assert [event["data"] for event in events] == ["b", "c"]
    assert events[1]["id"] == last


async def test_gap_says_how_much_is_missing(serve: Serve) -> None:
    """What is no longer kept is counted, and the stream goes on from the oldest that is."""
    config = "channels: {feed: {plugin: feed, path: /feed, lag_bytes: 1KiB}}"
    async with serve(config, FEED) as serving:
        seen = await publish(serving, "0")
        await publish(serving, *map(str, range(1, 50)))
        async with stream(serving.port, "/feed", headers=[("Last-Event-ID", seen)]) as wire:
            gap = await wire.event()
            missed = json.loads(gap["data"])["missed"]
            assert gap["event"] == "realtime:gap"
            assert 0 < missed < 49
            rest = [await wire.event() for _ in range(49 - missed)]
    assert [int(event["data"]) for event in rest] == list(range(missed + 1, 50))
    assert gap["id"] == f"{seen.partition('-')[0]}-{missed + 1}"


@pytest.mark.parametrize("told", ["0f0f0f0f-1", "no position", "-", "-3", "earliest", "é"])
async def test_position_that_means_nothing_is_a_reset(serve: Serve, told: str) -> None:
    """A browser cannot drop its ``Last-Event-ID``: one that means nothing here begins anew."""
    async with serve(CONFIG, FEED) as serving:
        await publish(serving, *"abcde")
        async with stream(serving.port, "/feed", headers=[("Last-Event-ID", told)]) as wire:
            assert (await wire.event())["event"] == "realtime:reset"
            assert [(await wire.event())["data"] for _ in "cde"] == ["c", "d", "e"]


async def test_position_beyond_the_newest_is_a_reset(serve: Serve) -> None:
    """An offset that was never given out is of another life of the topic."""
    async with serve(CONFIG, FEED) as serving:
        epoch = (await publish(serving, "a")).partition("-")[0]
        async with stream(serving.port, "/feed", headers=[("Last-Event-ID", f"{epoch}-2")]) as wire:
            assert (await wire.event())["event"] == "realtime:reset"
            assert (await wire.event())["data"] == "a"


@pytest.mark.parametrize(
    ("since", "expected"), [("-2", "de"), ("-3", "cde"), ("-9", "cde"), ("earliest", "cde")]
)
async def test_since(serve: Serve, since: str, expected: str) -> None:
    """``since`` asks for the newest few, or for all that a newcomer may have."""
    async with serve(CONFIG, FEED) as serving:
        await publish(serving, *"abcde")
        async with stream(serving.port, f"/feed?since={since}") as wire:
            await publish(serving, "f")
            assert [(await wire.event())["data"] for _ in expected + "f"] == [*expected, "f"]


async def test_since_a_position(serve: Serve) -> None:
    """A browser comes back with the ``since`` it began with: its ``Last-Event-ID`` goes first."""
    async with serve(CONFIG, FEED) as serving:
        first = await publish(serving, "a")
        second = await publish(serving, "b")
        await publish(serving, "c")
        headers = [("Last-Event-ID", second)]
        async with stream(serving.port, f"/feed?since={first}", headers=headers) as wire:
            assert (await wire.event())["data"] == "c"


async def test_refused_before_the_gap_is_told(serve: Serve) -> None:
    """Who is refused before a gap was marked is given no position after it."""
    config = "channels: {lobby: {plugin: chat, path: /chat, lag_bytes: 1KiB}}"
    async with serve(config) as serving, connect(serving.ws("/chat")) as alice:
        await alice.send("alice")
        epoch = serving.server.bus.topic("lobby").epoch
        for number in range(50):
            await alice.send(f"{number:0100}")
        while "49" not in str(await alice.recv()):
            pass
        headers = [*EVENTS, ("Last-Event-ID", f"{epoch}-1")]
        async with dial(serving.port, request("/chat?name=alice", headers)) as wire:
            assert (await wire.head()).status == 200
            assert b"id:" not in await wire.rest()


@pytest.mark.parametrize("since", ["", "x", "3", "--3", "-x", "abc-", "Earliest", "-1234567890"])
async def test_since_that_is_none(serve: Serve, since: str) -> None:
    """A ``since`` that means nothing is a mistake of who wrote the URL: 400."""
    async with serve(CONFIG, FEED) as serving:
        head, body = await ask(serving.port, f"/feed?since={since}", EVENTS)
    assert head.status == 400
    assert "position" in body


async def test_newcomer_gets_no_history_unasked(serve: Serve) -> None:
    """Who asks for nothing begins with what is new."""
    async with serve(CONFIG, FEED) as serving:
        await publish(serving, "old")
        async with stream(serving.port, "/feed") as wire:
            await publish(serving, "new")
            assert (await wire.event())["data"] == "new"


# Silence, slowness and the end


async def test_keep_alive(serve: Serve) -> None:
    """In silence there is a comment each ``keep_alive``; its text cannot forge an event."""
    config = r"""
        channels:
          feed: {plugin: feed, path: /feed, keep_alive: 50ms, keep_alive_text: "still\ndata: here"}
    """
    async with serve(config, FEED) as serving, stream(serving.port, "/feed") as wire:
        assert [await wire.chunk() for _ in range(3)] == [": still\n: data: here\n\n"] * 3


async def test_keep_alive_in_its_time(serve: Serve) -> None:
    """Comments come no more often than ``keep_alive`` says."""
    config = "channels: {feed: {plugin: feed, path: /feed, keep_alive: 100ms}}"
    loop = asyncio.get_running_loop()
    async with serve(config, FEED) as serving:
        begun = loop.time()  # before the silence is
        async with stream(serving.port, "/feed") as wire:
            for _ in range(3):
                assert await wire.chunk() == ": keep-alive\n\n"
            assert loop.time() - begun > 0.29


async def test_slow_reader_is_told_what_it_missed(serve: Serve) -> None:
    """With ``overflow: skip`` a stream that was lapped has a gap marker, and no hole without one."""
    config = "channels: {feed: {plugin: feed, path: /feed, lag_bytes: 64KiB, overflow: skip}}"
    async with serve(config, FEED) as serving, stream(serving.port, "/feed", receive_buffer=4096) as wire:
        for _ in range(3000):
            await publish(serving, "x" * 4000)
        last = await publish(serving, "last")
        expected, gaps = 1, 0
        while True:
            event = await wire.event()
            if event.get("event") == "realtime:gap":
                gaps += 1
                expected += json.loads(event["data"])["missed"]
                assert int(event["id"].partition("-")[2]) == expected - 1
                continue
            assert int(event["id"].partition("-")[2]) == expected
            expected += 1
            if event["id"] == last:
                break
        assert gaps


async def test_slow_reader_is_closed(serve: Serve) -> None:
    """By default a stream that was lapped ends, and its last event says why."""
    config = "channels: {feed: {plugin: feed, path: /feed, lag_bytes: 64KiB}}"
    async with serve(config, FEED) as serving, stream(serving.port, "/feed", receive_buffer=4096) as wire:
        feed: Any = serving.server.channels["feed"]
        assert await soon(feed.seen.get()) == "connect"
        while feed.seen.empty():
            await publish(serving, "x" * 4000)
        body = await wire.rest()
    assert body.endswith(b"\r\n0\r\n\r\n")
    assert b'data: {"code":1013,"reason":"too slow' in body[-200:]


async def test_shutdown_ends_the_stream_cleanly(serve: Serve) -> None:
    """A shutdown ends the body with its last chunk: for the client it is whole."""
    async with serve(CONFIG, FEED) as serving, stream(serving.port, "/feed") as wire:
        await serving.server.stop()
        assert "\nevent: realtime:bye\n" in await wire.chunk()
        assert await wire.chunk() == ""
        assert await wire.rest() == b""


@pytest.mark.parametrize("way", [Wire.finish, Wire.reset], ids=["FIN", "RST"])
async def test_client_that_leaves_is_noticed(serve: Serve, way: Any) -> None:
    """A client that goes has left at once, without anything being written to it."""
    async with serve(CONFIG, FEED) as serving, stream(serving.port, "/feed") as wire:
        feed: Any = serving.server.channels["feed"]
        assert await soon(feed.seen.get()) == "connect"
        way(wire)
        assert await soon(feed.seen.get()) == "leave"


async def test_what_a_client_says_on_a_stream_is_not_heard(serve: Serve) -> None:
    """Requests that follow on the stream's connection are not read as such."""
    async with (
        serve(CONFIG, FEED) as serving,
        dial(serving.port, request("/feed", EVENTS) + request("/-/live")) as wire,
    ):
        await wire.head()
        assert (await wire.chunk()).startswith("id: ")
        await wire.send(request("/-/live") + b"\x00garbage\r\n\r\n")
        await publish(serving, "hello")
        assert (await wire.event())["data"] == "hello"
