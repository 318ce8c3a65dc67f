"""Topics: what a backend publishes, and who reads it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import needs
import pytest
from conftest import Serve, Serving
from wire import LINES, Headers, Wire, ask, dial, lines, post, request, stream, websocket

TOPICS = 'channels: {topics: {plugin: topics, path: "/topics/{topic...}", history: 3}}'
#: A proxy that is not trusted has handed it on: nobody knows whether it is local.
REMOTE: Headers = [("Via", "1.1 somebody")]
V1: Headers = [("Sec-WebSocket-Protocol", "realtime.v1.json")]


async def reading(wire: Wire) -> dict[str, Any]:
    """The welcome of a stream of lines."""
    assert (await wire.head()).status == 200
    return await wire.line()


async def test_curl(serve: Serve) -> None:
    """``curl -d`` publishes a text as it stands, and is answered with its position."""
    async with serve(TOPICS) as serving, stream(serving.port, "/topics/orders/17") as wire:
        url = serving.http("/topics/orders/17")
        (answer,) = await lines([needs.curl(), "-s", "-w", "\n", "-d", "paid & sent", url], 1)
        assert await wire.event() == {"id": json.loads(answer)["id"], "data": "paid & sent"}


@pytest.mark.parametrize(
    ("kind", "body", "fields"),
    [
        ("application/json", b'{"price": 1.50, "ok": true}', {"data": {"price": 1.5, "ok": True}}),
        ("application/json", b'"text"', {"data": "text"}),
        ("application/json", b"null", {"data": None}),
        ("application/octet-stream", b"\x00\xff", {"data": "AP8=", "encoding": "base64"}),
        ("text/plain", "é\n".encode(), {"data": "é\n"}),
        ("application/x-www-form-urlencoded", b"a=b", {"data": "a=b"}),
        ("text/plain", b"", {"data": ""}),
    ],
)
@pytest.mark.parametrize("event", ["message", "price"])
async def test_as_it_is(serve: Serve, kind: str, body: bytes, fields: dict[str, Any], event: str) -> None:
    """What is published is what is read, of its kind, by the event's name in the URL."""
    async with serve(TOPICS) as serving, dial(serving.port, request("/topics/a", LINES)) as wire:
        await reading(wire)
        head, answer = await post(serving.port, f"/topics/a?event={event}", body, [("Content-Type", kind)])
        line = await wire.line()
    assert head.status == 202
    assert line == {"id": json.loads(answer)["id"], "event": event, **fields, "time": line["time"]}


async def test_topics_do_not_mix(serve: Serve) -> None:
    """What is published to a topic is read there, and not in one above, below or beside it."""
    paths = ["/topics/a", "/topics/a/b", "/topics/b"]
    async with (
        serve(TOPICS) as serving,
        stream(serving.port, paths[0]) as first,
        stream(serving.port, paths[1]) as second,
        stream(serving.port, paths[2]) as third,
    ):
        for path in paths:
            assert (await post(serving.port, path, path.encode()))[0].status == 202
        heard = [(await wire.event())["data"] for wire in (first, second, third)]
    assert heard == paths


async def test_history(serve: Serve) -> None:
    """What was published before anybody read is there for who asks, as stream and as snapshot."""
    async with serve(TOPICS) as serving:
        for number in range(5):
            await post(serving.port, "/topics/a", str(number).encode())
        async with stream(serving.port, "/topics/a?since=earliest") as wire:
            assert [(await wire.event())["data"] for _ in range(3)] == ["2", "3", "4"]
        _, body = await ask(serving.port, "/topics/a", [("Accept", "application/json")])
    assert [message["data"] for message in json.loads(body)["messages"]] == ["2", "3", "4"]


async def test_every_transport_reads(serve: Serve) -> None:
    """A plain WebSocket, one of objects, events and lines read the same."""
    async with (
        serve(TOPICS) as serving,
        websocket(serving.port, "/topics/a") as plain,
        websocket(serving.port, "/topics/a", headers=V1) as objects,
        stream(serving.port, "/topics/a") as events,
        dial(serving.port, request("/topics/a", LINES)) as wire,
    ):
        await objects.text()
        await reading(wire)
        await post(serving.port, "/topics/a", b'{"n":1}', [("Content-Type", "application/json")])
        heard = json.loads(await objects.text())
        assert heard["data"] == {"n": 1}
        assert await wire.line() == heard
        assert await events.event() == {"id": heard["id"], "data": '{"n":1}'}
        assert await plain.text() == '{"n":1}'


# Who may


async def test_to_publish_is_for_the_machine(serve: Serve) -> None:
    """By default everybody reads, and only who is on the machine publishes."""
    async with serve(TOPICS) as serving, stream(serving.port, "/topics/a", headers=REMOTE) as wire:
        head, body = await post(serving.port, "/topics/a", b"forged", REMOTE)
        assert (head.status, "allow.publish" in body) == (403, True)
        assert (await post(serving.port, "/topics/a", b"true"))[0].status == 202
        assert (await wire.event())["data"] == "true"


@pytest.mark.parametrize(
    ("allow", "publish", "read"),
    [
        ("{publish: anyone}", 202, 200),
        ("{publish: nobody}", 403, 200),
        ("{publish: authenticated}", 401, 200),
        ("{subscribe: local}", 403, 403),
        ("{subscribe: authenticated, publish: anyone}", 202, 401),
        ("{kick: nobody}", 403, 200),
    ],
)
async def test_rules(serve: Serve, allow: str, publish: int, read: int) -> None:
    """The config can say otherwise, and what it does not say stays."""
    config = f'channels: {{topics: {{plugin: topics, path: "/topics/{{topic...}}", allow: {allow}}}}}'
    async with serve(config) as serving:
        assert (await post(serving.port, "/topics/a", b"x", REMOTE))[0].status == publish
        asked = request("/topics/a", [*LINES, *REMOTE])
        async with dial(serving.port, asked) as wire:
            assert (await wire.head()).status == read


async def test_reserved_event(serve: Serve) -> None:
    """Nobody publishes an event of the server's own."""
    async with serve(TOPICS) as serving:
        head, body = await post(serving.port, "/topics/a?event=realtime:bye", b"x")
        assert (head.status, "realtime:" in body) == (400, True)
        assert serving.server.bus.find("topics/a") is None


# A reader that stalls


async def burst(serving: Serving, count: int) -> str:
    """Publish many states; returns the last position."""
    position = ""
    for number in range(count):
        data = {"n": number, "is": "x" * 4000}
        position = str(await serving.server.bus.publish("topics/a", data, event="state"))
        await asyncio.sleep(0)  # a turn of its own for each
    return position


async def test_latest(serve: Serve) -> None:
    """With ``overflow: latest`` who stalls is told what it missed, and goes on with the newest.

    So a dashboard that was asleep shows the state as it is, and not how it came to be so.
    """
    settings = "lag_bytes: 64KiB, overflow: latest"
    config = f'channels: {{topics: {{plugin: topics, path: "/topics/{{topic...}}", {settings}}}}}'
    async with (
        serve(config) as serving,
        dial(serving.port, request("/topics/a", LINES), receive_buffer=4096) as wire,
    ):
        await reading(wire)
        last = await burst(serving, 3000)
        read = 0
        while (line := await wire.line())["event"] == "state":
            assert line["data"]["n"] == read
            read += 1
        newest = await wire.line()
    assert (line["event"], line["data"]["missed"]) == ("realtime:gap", 2999 - read)
    assert (newest["data"]["n"], newest["id"]) == (2999, last)
