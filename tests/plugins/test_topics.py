"""Topics: what a backend publishes, and who reads it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import needs
import pytest
from wire import LINES, Wire, dial, lines, request

from realtime.testing import Harness, Serve

TOPICS = 'channels: {topics: {plugin: topics, path: "/topics/{topic...}", history: 3}}'
#: A proxy that is not trusted has handed it on: nobody knows whether it is local.
REMOTE = {"Via": "1.1 somebody"}


async def test_curl(serve: Serve) -> None:
    """``curl -d`` publishes a text as it stands, and is answered with its position."""
    async with serve(TOPICS) as server, server.sse("/topics/orders/17") as events:
        url = server.url("/topics/orders/17")
        (answer,) = await lines([needs.curl(), "-s", "-w", "\n", "-d", "paid & sent", url], 1)
        message = await events.receive()
        assert (str(message.id), message.data) == (json.loads(answer)["id"], "paid & sent")


@pytest.mark.parametrize(
    "data", [{"price": 1.5, "ok": True}, ["text"], None, b"\x00\xff", "é\n", ""], ids=repr
)
@pytest.mark.parametrize("event", ["message", "price"])
async def test_as_it_is(serve: Serve, data: object, event: str) -> None:
    """What is published is what is read, of its kind, by the event's name in the URL."""
    async with serve(TOPICS) as server, server.ws("/topics/a", json=True) as client:
        answer = await server.post("/topics/a", data, event=event)
        message = await client.receive()
        assert (answer.status, answer.json) == (202, {"id": str(message.id)})
        assert (message.event, message.data) == (event, data)


@pytest.mark.parametrize(
    ("kind", "body", "data"),
    [
        ("application/json", b'"text"', "text"),
        ("application/json", b'{"price": 1.50}', {"price": 1.5}),
        ("application/x-www-form-urlencoded", b"a=b", "a=b"),
    ],
)
async def test_by_its_type(serve: Serve, kind: str, body: bytes, data: object) -> None:
    """JSON is what it means, and what is of no type that is known is text as it stands."""
    async with serve(TOPICS) as server, server.ws("/topics/a", json=True) as client:
        await server.post("/topics/a", body, headers={"Content-Type": kind})
        await client.expect(data)


async def test_topics_do_not_mix(serve: Serve) -> None:
    """What is published to a topic is read there, and not in one above, below or beside it."""
    async with (
        serve(TOPICS) as server,
        server.sse("/topics/a") as above,
        server.sse("/topics/a/b") as below,
        server.sse("/topics/b") as beside,
    ):
        for path in ("/topics/a", "/topics/a/b", "/topics/b"):
            assert (await server.post(path, path)).status == 202
        await above.expect("/topics/a")
        await below.expect("/topics/a/b")
        await beside.expect("/topics/b")
        for events in (above, below, beside):
            await events.assert_nothing(within=0)


async def test_history(serve: Serve) -> None:
    """What was published before anybody read is there for who asks, as stream and as snapshot."""
    async with serve(TOPICS) as server:
        for number in range(5):
            await server.post("/topics/a", str(number))
        async with server.sse("/topics/a", since="earliest") as events:
            await events.expect("2", "3", "4")
        answer = await server.request("GET", "/topics/a", headers={"Accept": "application/json"})
    assert [message["data"] for message in answer.json["messages"]] == ["2", "3", "4"]


async def test_every_transport_reads(serve: Serve) -> None:
    """A plain WebSocket, one of objects, events and lines read the same."""
    async with (
        serve(TOPICS) as server,
        server.ws("/topics/a") as plain,
        server.ws("/topics/a", json=True) as objects,
        server.sse("/topics/a") as events,
        dial(server.port, request("/topics/a", LINES)) as wire,
    ):
        await reading(wire)
        await server.post("/topics/a", {"n": 1})
        await plain.expect('{"n":1}')
        message = await objects.receive()
        assert message.data == {"n": 1}
        assert await events.receive() == message
        line = await wire.line()
        assert (line["id"], line["data"]) == (str(message.id), {"n": 1})


# Who may


async def test_to_publish_is_for_the_machine(serve: Serve) -> None:
    """By default everybody reads, and only who is on the machine publishes."""
    async with serve(TOPICS) as server, server.sse("/topics/a", headers=REMOTE) as events:
        answer = await server.post("/topics/a", "forged", headers=REMOTE)
        assert (answer.status, "allow.publish" in answer.text) == (403, True)
        assert (await server.post("/topics/a", "true")).status == 202
        await events.expect("true")


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
    async with serve(config) as server:
        assert (await server.post("/topics/a", "x", headers=REMOTE)).status == publish
        asked = {"Accept": "application/json", **REMOTE}
        assert (await server.request("GET", "/topics/a", headers=asked)).status == read


async def test_reserved_event(serve: Serve) -> None:
    """Nobody publishes an event of the server's own."""
    async with serve(TOPICS) as server:
        answer = await server.post("/topics/a", "x", event="realtime:bye")
        assert (answer.status, "realtime:" in answer.text) == (400, True)
        assert server.bus.find("topics/a") is None


# A reader that stalls


async def reading(wire: Wire) -> dict[str, Any]:
    """The welcome of a stream of lines."""
    assert (await wire.head()).status == 200
    return await wire.line()


async def burst(server: Harness, count: int) -> str:
    """Publish many states; returns the last position."""
    position = ""
    for number in range(count):
        data = {"n": number, "is": "x" * 4000}
        position = str(await server.bus.publish("topics/a", data, event="state"))
        await asyncio.sleep(0)  # a turn of its own for each
    return position


async def test_latest(serve: Serve) -> None:
    """With ``overflow: latest`` who stalls is told what it missed, and goes on with the newest.

    So a dashboard that was asleep shows the state as it is, and not how it came to be so.
    """
    settings = "lag_bytes: 64KiB, overflow: latest"
    config = f'channels: {{topics: {{plugin: topics, path: "/topics/{{topic...}}", {settings}}}}}'
    async with (
        serve(config) as server,
        dial(server.port, request("/topics/a", LINES), receive_buffer=4096) as wire,
    ):
        await reading(wire)
        last = await burst(server, 3000)
        read = 0
        while (line := await wire.line())["event"] == "state":
            assert line["data"]["n"] == read
            read += 1
        newest = await wire.line()
    assert (line["event"], line["data"]["missed"]) == ("realtime:gap", 2999 - read)
    assert (newest["data"]["n"], newest["id"]) == (2999, last)
