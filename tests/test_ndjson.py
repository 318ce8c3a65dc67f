"""NDJSON: an object a line, seen as bytes; what it shares with an event stream is in ``test_stream``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import needs
import pytest
from conftest import Serve, Serving
from wire import (
    BINARY,
    LINES,
    Headers,
    Wire,
    ask,
    dial,
    frame,
    lines,
    request,
    stream,
    text,
    websocket as websocket_of,
)

FEED = {
    "feed.py": '''
        from realtime import Channel, hookimpl

        class Feed(Channel):
            """Whatever the test publishes."""

            async def on_message(self, client, message):
                return await self.publish(client.topic, message.data, event=message.event)

        @hookimpl
        def register_channels():
            return {"feed": Feed}
    '''
}
CONFIG = "channels: {feed: {plugin: feed, path: /feed, history: 3}}"
V1: Headers = [("Sec-WebSocket-Protocol", "realtime.v1.json")]


@asynccontextmanager
async def reading(serving: Serving, path: str = "/feed", headers: Headers = ()) -> AsyncIterator[Wire]:
    """A stream of lines whose head has been read."""
    async with dial(serving.port, request(path, [*LINES, *headers])) as wire:
        head = await wire.head()
        assert (head.status, head.headers["content-type"]) == (200, "application/x-ndjson")
        yield wire


async def publish(serving: Serving, *texts: str) -> str:
    """Publish to the topic ``feed``; returns the last position."""
    position = ""
    for each in texts:
        position = str(await serving.server.bus.publish("feed", each))
        await asyncio.sleep(0)  # a turn of its own for each
    return position


async def test_headers(serve: Serve) -> None:
    """The response is a stream that nobody may keep or hold back."""
    async with serve(CONFIG, FEED) as serving, dial(serving.port, request("/feed", LINES)) as wire:
        head = await wire.head()
    assert head.status == 200
    assert head.headers["content-type"] == "application/x-ndjson"
    assert head.headers["cache-control"] == "no-store"
    assert head.headers["x-accel-buffering"] == "no"
    assert head.headers["transfer-encoding"] == "chunked"


async def test_first_line_is_the_welcome(serve: Serve) -> None:
    """The first line says who the client is, and has the position as its id."""
    async with serve(CONFIG, FEED) as serving:
        position = await publish(serving, "a")
        async with reading(serving) as wire:
            welcome = await wire.line()
    assert welcome == {
        "id": position,
        "event": "realtime:welcome",
        "data": {"client": "c1", "channel": "feed", "outcome": "new", "heartbeat": 15.0},
        "time": welcome["time"],
    }


async def test_client_knows_its_transport(serve: Serve) -> None:
    """A client of lines is one of the channel's, by ``ndjson``."""
    async with serve(CONFIG, FEED) as serving, reading(serving) as wire:
        await wire.line()
        assert [client.transport for client in serving.server.channels["feed"].clients] == ["ndjson"]


@pytest.mark.parametrize(
    ("data", "event", "fields"),
    [
        ("hello", "message", {"data": "hello"}),
        ("a\nb\r\u2028", "message", {"data": "a\nb\r\u2028"}),
        ('"a"', "news", {"data": '"a"'}),
        ({"from": "é", "n": [1, None]}, "message", {"data": {"from": "é", "n": [1, None]}}),
        (7, "message", {"data": 7}),
        (b"\x00\xff\n", "message", {"data": "AP8K", "encoding": "base64"}),
    ],
    ids=repr,
)
async def test_line(serve: Serve, data: object, event: str, fields: dict[str, Any]) -> None:
    """Text, JSON and bytes are told apart; a line in the data is none of the stream."""
    async with serve(CONFIG, FEED) as serving, reading(serving) as wire:
        await wire.line()
        position = await serving.server.bus.publish("feed", data, event=event)
        line = await wire.line()
    assert line == {"id": str(position), "event": event, **fields, "time": line["time"]}


async def test_lines_are_the_objects_of_a_websocket(serve: Serve) -> None:
    """A line is, byte by byte, the frame of ``realtime.v1.json``."""
    async with (
        serve(CONFIG, FEED) as serving,
        reading(serving) as wire,
        websocket_of(serving.port, "/feed", headers=V1) as socket,
    ):
        await wire.line()
        await socket.text()
        for data in ("a\nb", {"x": 1.5}, b"\x00", None):
            await serving.server.bus.publish("feed", data)
            assert await wire.chunk() == await socket.text() + "\n"


async def test_heartbeat(serve: Serve) -> None:
    """In silence there is an object each ``keep_alive``, without an id."""
    config = "channels: {feed: {plugin: feed, path: /feed, keep_alive: 50ms}}"
    async with serve(config, FEED) as serving, reading(serving) as wire:
        await wire.line()
        beat = await wire.line()
        assert beat == {"event": "realtime:heartbeat", "data": {}, "time": beat["time"]}
        assert (await wire.line())["event"] == "realtime:heartbeat"


async def test_bye_is_the_last_line(serve: Serve) -> None:
    """A shutdown ends with why, when to come back, and the last chunk."""
    async with serve(CONFIG, FEED) as serving, reading(serving) as wire:
        await wire.line()
        await serving.server.stop()
        bye = await wire.line()
        assert await wire.chunk() == ""
        assert await wire.rest() == b""
    assert (bye["event"], bye["data"]["code"]) == ("realtime:bye", 1001)
    assert 1000 <= bye["data"]["retry"] <= 5000


async def test_http_1_0_gets_no_chunks(serve: Serve) -> None:
    """HTTP/1.0 knows no chunks: there are lines, and the end of the connection."""
    async with (
        serve(CONFIG, FEED) as serving,
        dial(serving.port, request("/feed", LINES, http="1.0")) as wire,
    ):
        assert "transfer-encoding" not in (await wire.head()).headers
        assert json.loads(await wire.until(b"\n"))["event"] == "realtime:welcome"
        await publish(serving, "hello")
        assert json.loads(await wire.until(b"\n"))["data"] == "hello"
        await serving.server.stop()
        assert json.loads(await wire.rest())["event"] == "realtime:bye"


async def test_kicked(serve: Serve) -> None:
    """Who is closed by the channel is told with which code, and not to come back."""
    async with serve(CONFIG, FEED) as serving, reading(serving) as wire:
        client = (await wire.line())["data"]["client"]
        assert (await ask(serving.port, f"/feed?client={client}", method="DELETE"))[0].status == 200
        bye = (await wire.line())["data"]
        assert await wire.chunk() == ""
    assert bye == {"code": 4403, "reason": "you were removed from the channel", "retry": None}


async def test_resumes_what_another_transport_began(serve: Serve) -> None:
    """A position of an event stream is one of lines, and of a WebSocket."""
    async with serve(CONFIG, FEED) as serving:
        async with stream(serving.port, "/feed") as events:
            await publish(serving, "a")
            seen = (await events.event())["id"]
        await publish(serving, "b")
        async with reading(serving, headers=[("Last-Event-ID", seen)]) as wire:
            assert (await wire.line())["data"]["outcome"] == "recovered"
            line = await wire.line()
            assert line["data"] == "b"
        await publish(serving, "c")
        async with websocket_of(serving.port, f"/feed?since={line['id']}") as socket:
            assert await socket.text() == "c"


async def test_bytes_go_in_and_out(serve: Serve) -> None:
    """What a WebSocket sends as bytes, lines show as bytes, and no text can pass for them."""
    async with (
        serve(CONFIG, FEED) as serving,
        reading(serving) as wire,
        websocket_of(serving.port, "/feed") as socket,
    ):
        await wire.line()
        await socket.send(frame(BINARY, b"\x00\xff") + text("AP8="))
        sent, said = await wire.line(), await wire.line()
    assert (sent["data"], sent["encoding"]) == (said["data"], "base64") == ("AP8=", "base64")
    assert "encoding" not in said


async def test_name_of_a_chat(serve: Serve) -> None:
    """A chat takes the name of a reader of lines from its URL, and announces it."""
    async with (
        serve("channels: {lobby: {plugin: chat, path: /chat}}") as serving,
        reading(serving, "/chat?name=alice") as wire,
    ):
        events = [await wire.line(), await wire.line()]
    assert [event["event"] for event in events] == ["realtime:welcome", "realtime:join"]
    assert events[1]["data"]["name"] == "alice"


async def test_curl(serve: Serve) -> None:
    """curl prints a line as it comes."""
    async with serve(CONFIG, FEED) as serving:
        await publish(serving, "a", "b")
        url = serving.http("/feed?since=-2")
        printed = await lines([needs.curl(), "-sN", "-H", "Accept: application/x-ndjson", url], 3)
    assert [json.loads(line)["data"] for line in printed][1:] == ["a", "b"]
