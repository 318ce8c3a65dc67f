"""Rows 74 to 85: event streams, what is put into them, and how they end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from conftest import Serve
from timing import within
from wire import EVENTS, LINES, Headers, Wire, ask, dial, eventually, post, request, stream

from faults.catalogue import fault
from faults.conftest import Calm
from realtime.transports import connection

NEWS = 'news: {plugin: topics, path: "/news/{topic...}", history: 100}'
JSON: Headers = [("Content-Type", "application/json")]


class Event(NamedTuple):
    """What an ``EventSource`` would dispatch, and the id it would come back with."""

    name: str
    data: str
    id: str


def dispatched(body: str) -> list[Event]:
    """The events of a stream, as the HTML standard's section 9.2.6 reads it, line by line."""
    events: list[Event] = []
    fields, id = {"event": ""}, ""
    data: list[str] = []
    for line in re.split(r"\r\n|\n|\r", body.removeprefix("\ufeff")):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                events.append(Event(fields["event"] or "message", "\n".join(data), id))
            fields, data = {"event": ""}, []
        elif name == "data":
            data.append(value)
        elif name == "id" and "\0" not in value:
            id = value
        elif name == "event":
            fields["event"] = value
    return events


async def until(wire: Wire, end: str) -> str:
    """What a chunked stream brings up to some text."""
    body = ""
    while end not in body:
        body += await wire.chunk()
    return body


# What is put into them


HOSTILE = [
    "a\nb",
    "a\rb",
    "a\r\nb",
    "\n\nevent: forged\ndata: y",
    "\r\revent: forged\rdata: y",
    "\r\n\r\nid: forged\r\n\r\n",
    "x\nretry: 1\n\nid: forged\n\n",
    "a\u2028b\u2029c\x85d\x0be\x0cf",
    "nul \0 and more",
    ": no comment",
    " begins with a space",
    "\ufeffbegins with a mark",
    "\n",
    "\r\n\n\r",
    "data: data: data",
    "5\r\n\r\n0\r\n\r\n",
]
NO_NAMES = ["a\nb", "a\rb", "a\r\nid: 1", "a\0b", "\x1b[31m", "a\x7f", "a\u2028b", "a\x85b"]
NO_IDS = ["unknown", "' OR 1=1 --", "../../etc/passwd", "é", "🎲", "%0d%0aid: 1", "ffffffff-0"]


@fault(74)
@pytest.mark.parametrize("data", HOSTILE)
async def test_data_that_looks_like_fields(calm: Calm, data: str) -> None:
    """Whatever text is published is one event, with the same text but for the kind of its line ends."""
    async with calm(NEWS) as serving, stream(serving.port, "/news/a") as wire:
        _, answer = await post(serving.port, "/news/a", json.dumps(data).encode(), JSON)
        await post(serving.port, "/news/a", b"the end")
        said, end = dispatched(await until(wire, "the end\n\n"))
        assert said == Event("message", re.sub("\r\n|\r", "\n", data), json.loads(answer)["id"])
        assert end.data == "the end"


@fault(74)
@pytest.mark.parametrize("data", HOSTILE)
async def test_data_that_looks_like_lines(calm: Calm, data: str) -> None:
    """In lines of JSON it is one line, and the text as it was."""
    async with calm(NEWS) as serving, dial(serving.port, request("/news/a", LINES)) as wire:
        await wire.head()
        assert (await wire.line())["event"] == "realtime:welcome"
        await post(serving.port, "/news/a", json.dumps(data).encode(), JSON)
        assert (await wire.line())["data"] == data


@fault(75)
@pytest.mark.parametrize(
    "event",
    [*NO_NAMES, "", "x" * 300, "realtime:bye", "realtime:welcome"],
)
async def test_event_that_is_no_name(calm: Calm, event: str) -> None:
    """An event's name with a control character is refused when it is published, and reaches nobody."""
    async with calm(NEWS) as serving, stream(serving.port, "/news/a") as wire:
        head, why = await post(serving.port, f"/news/a?event={quote(event)}", b"x")
        assert (head.status, "event" in why) == (400, True)
        await post(serving.port, "/news/a?event=fine", b"the end")
        assert [event.name for event in dispatched(await until(wire, "the end\n\n"))] == ["fine"]


@fault(75)
async def test_id_is_the_servers(calm: Calm) -> None:
    """No client gives a message its id: what a POST names so changes nothing."""
    async with calm(NEWS) as serving, stream(serving.port, "/news/a") as wire:
        headers = [("Last-Event-ID", "forged"), ("Id", "forged")]
        _, answer = await post(serving.port, "/news/a?id=forged%0Aevent:x", b"the end", headers)
        (event,) = dispatched(await until(wire, "the end\n\n"))
        assert event.id == json.loads(answer)["id"]


# How they begin, and what happens in silence


@fault(76)
@pytest.mark.parametrize("accept", ["text/event-stream", "text/*", "*/*", "text/event-stream, */*;q=0.1"])
async def test_beginning(calm: Calm, accept: str) -> None:
    """The head forbids to store and to buffer, is not compressed, and bytes follow it at once."""
    headers = [("Accept", accept), ("Accept-Encoding", "gzip, br, deflate, zstd")]
    async with calm(NEWS) as serving, dial(serving.port, request("/news/a", headers)) as wire:
        head = await wire.head()
        assert head.status == 200
        assert head.headers["content-type"] == "text/event-stream"  # which is UTF-8 by its standard
        assert head.headers["cache-control"] == "no-store"
        assert head.headers["x-accel-buffering"] == "no"
        assert "content-encoding" not in head.headers
        assert "content-length" not in head.headers
        assert await wire.chunk()


@fault(77)
@pytest.mark.parametrize("headers", [EVENTS, LINES], ids=["events", "lines"])
async def test_silence(calm: Calm, headers: Headers) -> None:
    """A stream on which nothing is said gives a sign of life; by default every fifteen seconds."""
    quick = "quick: {plugin: topics, path: /quick, keep_alive: 50ms}"
    async with calm(f"{NEWS}\n{quick}") as serving, dial(serving.port, request("/quick", headers)) as wire:
        assert serving.server.channels["news"].settings.keep_alive == 15
        await wire.head()
        welcome, *signs = [await wire.chunk() for _ in range(4)]
        assert "welcome" in welcome
        assert all(sign.startswith(":") or "realtime:heartbeat" in sign for sign in signs)


# How they end


@fault(78)
@pytest.mark.parametrize("way", [Wire.finish, Wire.reset, lambda wire: wire.socket.close()])
@pytest.mark.parametrize("headers", [EVENTS, LINES], ids=["events", "lines"])
async def test_reader_that_leaves(calm: Calm, way: Callable[[Wire], None], headers: Headers) -> None:
    """A reader that leaves, with a FIN or a RST, is gone within a second, and so is its subscription."""
    async with calm(NEWS) as serving, dial(serving.port, request("/news/a", headers)) as wire:
        await wire.head()
        await wire.chunk()
        news, topic = serving.server.channels["news"], serving.server.bus.topic("news/a")
        assert topic.subscribers == 1
        way(wire)
        async with within(1):
            await eventually(lambda: not news.clients and not topic.subscribers)


@fault(78)
@pytest.mark.parametrize("headers", [EVENTS, LINES], ids=["events", "lines"])
async def test_reader_that_leaves_in_a_replay(calm: Calm, headers: Headers) -> None:
    """The same in the middle of a long replay."""
    feed = "feed: {plugin: topics, path: /feed, history: 1000, lag_bytes: 64MiB}"
    async with calm(feed) as serving:
        for _ in range(200):
            await serving.server.bus.publish("feed", "x" * 50_000)
        replay = request("/feed?since=earliest", headers)
        async with dial(serving.port, replay, receive_buffer=4096) as wire:
            await wire.head()
            await wire.exactly(10_000)
            assert len(serving.server.channels["feed"].clients) == 1
        async with within(1):
            await eventually(lambda: not serving.server.channels["feed"].clients)


@fault(78)
async def test_reader_that_stops_reading_in_a_replay(calm: Calm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that takes nothing any more is cut, though nobody publishes anything."""
    monkeypatch.setattr(connection, "STALL", 0.3)
    feed = "feed: {plugin: topics, path: /feed, history: 1000, lag_bytes: 64MiB}"
    async with calm(feed) as serving:
        for _ in range(200):
            await serving.server.bus.publish("feed", "x" * 50_000)
        async with stream(serving.port, "/feed?since=earliest", receive_buffer=4096):
            await eventually(lambda: not serving.server.channels["feed"].clients)


async def asked_from(serving: Any, since: str) -> list[Event]:
    """What a browser gets that comes back with an id."""
    head = [("Last-Event-ID", since)] if since else []
    async with dial(serving.port, request("/news/a", [*EVENTS, *head])) as wire:
        answer = await wire.head()
        assert answer.status == 200, answer
        await post(serving.port, "/news/a", b"the end")
        return dispatched(await until(wire, "the end\n\n"))


@fault(80)
@pytest.mark.parametrize(
    "since",
    [*NO_IDS, "x" * 8000, "9" * 400, "-1", "0", "-", "a-b", "1-1-1", "\t"],
)
async def test_id_that_is_unknown(calm: Calm, since: str) -> None:
    """An id that is none of ours is told as a reset, and all that is kept follows."""
    async with calm(NEWS) as serving:
        await post(serving.port, "/news/a", b"kept")
        await post(serving.port, "/news/b", b"of others")
        welcome, *events = await asked_from(serving, since)
        assert welcome.name == "realtime:welcome"
        if since.strip():
            assert json.loads(welcome.data)["outcome"] == "reset"
            assert [event.name for event in events[:1]] == ["realtime:reset"]
            assert [event.data for event in events[1:]] == ["kept", "the end"]


@fault(80)
async def test_id_of_another_topic(calm: Calm) -> None:
    """An id of another topic brings nothing of that topic."""
    async with calm(NEWS) as serving:
        for _ in range(3):
            _, answer = await post(serving.port, "/news/b", b"of others")
        await post(serving.port, "/news/a", b"kept")
        events = await asked_from(serving, json.loads(answer)["id"])
        assert "of others" not in str(events)
        assert events[-1].data == "the end"


@fault(80)
async def test_id_with_a_line_end(calm: Calm) -> None:
    """A CR or an LF in the header ends it or is refused: it is no part of any answer."""
    async with calm(NEWS) as serving:
        for end in ("\r", "\n"):
            sent = request("/news/a", [*EVENTS, ("Last-Event-ID", f"a{end}Forged: 1")])
            async with dial(serving.port, sent) as wire:
                assert (await wire.head()).status == 400


@fault(84)
@pytest.mark.parametrize(
    ("method", "accept", "status"),
    [
        ("HEAD", "text/event-stream", 200),
        ("HEAD", "application/x-ndjson", 200),
        ("GET", "application/json", 200),
        ("GET", "text/html", 200),
        ("GET", "image/png", 406),
        ("GET", "text/event-stream;q=0", 406),
        ("PUT", "text/event-stream", 405),
        ("PATCH", "text/event-stream", 405),
        ("TRACE", "text/event-stream", 405),
    ],
)
async def test_other_requests(calm: Calm, method: str, accept: str, status: int) -> None:
    """What is no GET of a stream is answered by its rule, and opens none."""
    async with calm(NEWS) as serving:
        head, _ = await ask(serving.port, "/news/a", [("Accept", accept)], method=method)
        assert head.status == status
        assert not serving.server.channels["news"].clients
        if status == 405:
            assert "GET" in head.headers["allow"]


@fault(84)
async def test_post_for_a_stream(calm: Calm) -> None:
    """A POST is a message, whatever it accepts."""
    async with calm(NEWS) as serving:
        head, answer = await post(serving.port, "/news/a", b"x", EVENTS)
        assert (head.status, "id" in json.loads(answer)) == (202, True)


@fault(85)
@pytest.mark.parametrize("http", ["1.1", "1.0"])
@pytest.mark.parametrize("headers", [EVENTS, LINES], ids=["events", "lines"])
async def test_shutdown(serve: Serve, http: str, headers: Headers) -> None:
    """At a shutdown a stream says why and when to come back, and ends as its protocol ends it."""
    async with (
        serve(f"channels:\n  {NEWS}") as serving,
        dial(serving.port, request("/news/a", headers, http=http)) as wire,
    ):
        await wire.head()
        async with within(5):
            await serving.server.stop()
            body = (await wire.rest()).decode()
        assert body.endswith("0\r\n\r\n") == (http == "1.1")
        assert '"code":1001' in body
        (retry,) = re.findall(r'"retry":(\d+)', body)
        assert 1000 <= int(retry) <= 5000
        assert (f"retry: {retry}\n" in body) == (headers == EVENTS)
