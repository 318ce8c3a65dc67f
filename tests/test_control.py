"""What the host says by itself, on an event stream and with ``realtime.v1.json`` alike."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
from conftest import Serve, Serving
from wire import (
    CLOSE,
    EVENTS,
    PATIENCE,
    PING,
    TEXT,
    UPGRADE,
    Headers,
    Wire,
    dial,
    frame,
    request,
    websocket,
)

from realtime.transports import websocket as websocket_module

V1: Headers = [*UPGRADE, ("Sec-WebSocket-Protocol", "realtime.v1.json")]
FEED = {
    "feed.py": '''
        import asyncio
        from realtime import Channel, hookimpl

        class Feed(Channel):
            """Whatever the test publishes; ``?close=CODE`` closes who comes."""

            def __init__(self, name, settings, bus):
                super().__init__(name, settings, bus)
                self.go = asyncio.Event()
                self.go.set()

            async def on_connect(self, client):
                await self.go.wait()
                if "close" in client.query:
                    why = client.query.get("why", "so").replace("SURROGATE", "\\ud800")
                    await client.close(int(client.query["close"]), why)

            async def on_message(self, client, message):
                pass

        @hookimpl
        def register_channels():
            return {"feed": Feed}
    '''
}
CONFIG = "channels: {feed: {plugin: feed, path: /feed, history: 3}}"
FAST = "channels: {feed: {plugin: feed, path: /feed, keep_alive: 50ms}}"
KINDS = pytest.mark.parametrize("kind", ["sse", "v1"])


class Reader:
    """A client that reads events as objects, whichever way they come."""

    def __init__(self, kind: str, wire: Wire) -> None:
        self.kind = kind
        self.wire = wire

    async def event(self) -> dict[str, Any]:
        """The next event: ``id`` and ``event`` and ``data``; a comment has only ``""``."""
        if self.kind == "v1":
            event = json.loads(await self.wire.text())
            assert isinstance(event.pop("time"), float)
            return dict(event)
        fields: dict[str, Any] = {"event": "message", **await self.wire.event()}
        if "data" in fields and fields["event"] != "message":
            fields["data"] = json.loads(fields["data"])
        return fields


@asynccontextmanager
async def opened(
    serving: Serving, kind: str, query: str = "", headers: Headers = ()
) -> AsyncIterator[Reader]:
    """A client whose headers have been read, and nothing else."""
    opening = request(f"/feed{query}", [*(V1 if kind == "v1" else EVENTS), *headers])
    async with dial(serving.port, opening) as wire:
        assert (await wire.head()).status in (101, 200)
        yield Reader(kind, wire)


# The welcome


@KINDS
async def test_welcome(serve: Serve, kind: str) -> None:
    """The first event says who the client is, where it begins and how long a silence may be."""
    async with serve(CONFIG, FEED) as serving:
        position = await serving.server.bus.publish("feed", "old")
        async with opened(serving, kind) as reader:
            assert await reader.event() == {
                "id": str(position),
                "event": "realtime:welcome",
                "data": {"client": "c1", "channel": "feed", "outcome": "new", "heartbeat": 15.0},
            }


@KINDS
async def test_welcome_comes_before_any_message(serve: Serve, kind: str) -> None:
    """What was published long ago, or while the client was greeted, comes after the welcome."""
    async with serve(CONFIG, FEED) as serving:
        feed: Any = serving.server.channels["feed"]
        await serving.server.bus.publish("feed", "old")
        feed.go.clear()
        async with opened(serving, kind, "?since=-1") as reader:
            assert (await reader.event())["event"] == "realtime:welcome"
            await serving.server.bus.publish("feed", "new")
            feed.go.set()
            assert [(await reader.event())["data"] for _ in range(2)] == ["old", "new"]


@KINDS
async def test_recovered(serve: Serve, kind: str) -> None:
    """Who comes back is told that it gets all it missed, and begins where it was."""
    async with serve(CONFIG, FEED) as serving:
        seen = await serving.server.bus.publish("feed", "a")
        await serving.server.bus.publish("feed", "b")
        async with opened(serving, kind, f"?since={seen}") as reader:
            welcome = await reader.event()
            assert (welcome["id"], welcome["data"]["outcome"]) == (str(seen), "recovered")
            assert (await reader.event())["data"] == "b"


@KINDS
async def test_gap(serve: Serve, kind: str) -> None:
    """After a gap the welcome says how much is missing, and the marker says it again with the position."""
    config = "channels: {feed: {plugin: feed, path: /feed, lag_bytes: 1KiB}}"
    async with serve(config, FEED) as serving:
        bus = serving.server.bus
        seen = await bus.publish("feed", 1)
        for number in range(2, 51):
            await bus.publish("feed", number)
            await asyncio.sleep(0)
        async with opened(serving, kind, f"?since={seen}") as reader:
            welcome, gap, first = [await reader.event() for _ in range(3)]
        missed = welcome["data"]["missed"]
        assert welcome["data"]["outcome"] == "gap"
        assert (gap["event"], gap["data"]) == ("realtime:gap", {"missed": missed})
        assert gap["id"] == f"{bus.topic('feed').epoch}-{missed + 1}"
        assert int(first["data"]) == missed + 2


@KINDS
@pytest.mark.parametrize("since", ["0f0f0f0f-1", "EPOCH-99"])
async def test_reset(serve: Serve, kind: str, since: str) -> None:
    """After a position that means nothing here the welcome and the marker say that it begins anew."""
    async with serve(CONFIG, FEED) as serving:
        await serving.server.bus.publish("feed", "a")
        since = since.replace("EPOCH", serving.server.bus.topic("feed").epoch)
        async with opened(serving, kind, f"?since={since}") as reader:
            welcome, reset, first = [await reader.event() for _ in range(3)]
    assert (welcome["data"]["outcome"], reset["event"]) == ("reset", "realtime:reset")
    assert "missed" not in welcome["data"]
    assert first["data"] == "a"


@KINDS
@pytest.mark.parametrize("outcome", ["gap", "reset"])
async def test_cut_before_the_marker(serve: Serve, kind: str, outcome: str) -> None:
    """Who is closed before the marker came was given no position: it comes back with the one it had."""
    config = "channels: {feed: {plugin: feed, path: /feed, lag_bytes: 1KiB}}"
    async with serve(config, FEED) as serving:
        bus = serving.server.bus
        seen = str(await bus.publish("feed", 1))
        for _ in range(50):
            await bus.publish("feed", "x")
            await asyncio.sleep(0)
        since = seen if outcome == "gap" else "0f0f0f0f-1"
        async with opened(serving, kind, f"?since={since}&close=4000") as reader:
            welcome, bye = await reader.event(), await reader.event()
    assert (welcome["data"]["outcome"], bye["event"]) == (outcome, "realtime:bye")
    assert not {"id"} & {*welcome, *bye}


async def test_last_event_id_by_websocket(serve: Serve) -> None:
    """A program may come back with ``Last-Event-ID`` on a WebSocket, too."""
    async with serve(CONFIG, FEED) as serving:
        seen = await serving.server.bus.publish("feed", "a")
        await serving.server.bus.publish("feed", "b")
        async with opened(serving, "v1", headers=[("Last-Event-ID", str(seen))]) as reader:
            assert (await reader.event())["data"]["outcome"] == "recovered"
            assert (await reader.event())["data"] == "b"


async def test_plain_websocket_is_told_nothing(serve: Serve) -> None:
    """A plain WebSocket has no welcome, no sign of life and no goodbye but its close frame."""
    async with (
        serve(FAST, FEED) as serving,
        opened(serving, "sse") as clock,
        websocket(serving.port, "/feed") as wire,
    ):
        for _ in range(4):  # three periods
            await clock.event()
        await serving.server.bus.publish("feed", "x")
        assert await wire.text() == "x"
        await serving.server.stop()
        assert await wire.close_code() == 1001


# Signs of life


async def test_heartbeat(serve: Serve) -> None:
    """With the subprotocol a silence is broken by a frame with each ``keep_alive``, no more often."""
    loop = asyncio.get_running_loop()
    async with serve(FAST, FEED) as serving:
        begun = loop.time()  # before the silence is
        async with opened(serving, "v1") as reader:
            assert (await reader.event())["data"]["heartbeat"] == 0.05
            for _ in range(4):
                assert await reader.event() == {"event": "realtime:heartbeat", "data": {}}
            assert loop.time() - begun > 0.19


@KINDS
async def test_message_spares_the_heartbeat(serve: Serve, kind: str) -> None:
    """Where messages come, no sign of life does."""
    config = FAST.replace("50ms", "500ms")
    loop = asyncio.get_running_loop()
    said = loop.time()  # before the last that was said
    async with serve(config, FEED) as serving, opened(serving, kind) as reader:
        begun = loop.time()
        await reader.event()
        while loop.time() - begun < 1.0:
            before, said = said, loop.time()
            position = await serving.server.bus.publish("feed", "x")
            while "id" not in (event := await reader.event()):
                assert loop.time() - before > 0.5  # the machine itself was silent for so long
            assert event["id"] == str(position)


async def test_ping_is_no_sign_of_life_for_a_script(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ping, which a browser shows to no script, and a pong do not spare the frame."""
    monkeypatch.setattr(websocket_module, "PING_AFTER", 0.05)
    config = FAST.replace("50ms", "200ms")
    async with serve(config, FEED) as serving, opened(serving, "v1") as reader:
        await reader.event()
        pings = 0
        async with asyncio.timeout(PATIENCE):
            # Where the machine stood still, both are due, and the frame may come before any ping.
            while (got := await reader.wire.frame()).opcode != TEXT or not pings:
                pings += got.opcode == PING
                await reader.wire.send(frame(0xA) + frame(PING))
        assert json.loads(got.payload)["event"] == "realtime:heartbeat"


async def test_silent_client_is_cut(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life of the server are none of the client: it is pinged, and cut, all the same."""
    monkeypatch.setattr(websocket_module, "PING_AFTER", 0.1)
    monkeypatch.setattr(websocket_module, "PONG_WITHIN", 0.1)
    async with serve(FAST, FEED) as serving, opened(serving, "v1") as reader:
        came = await reader.wire.rest()
        assert b"realtime:heartbeat" in came
        assert bytes((0x80 | PING, 0)) in came


@KINDS
async def test_heartbeat_while_it_is_greeted(serve: Serve, kind: str) -> None:
    """A client that is being greeted sees signs of life, although messages wait for it."""
    async with serve(FAST, FEED) as serving:
        feed: Any = serving.server.channels["feed"]
        feed.go.clear()
        async with opened(serving, kind) as reader:
            await reader.event()
            await serving.server.bus.publish("feed", "waits")
            sign = await reader.event()
            assert sign["event"] == "realtime:heartbeat" if kind == "v1" else sign[""] == "keep-alive"
            feed.go.set()


# The goodbye


async def test_bye_on_a_stream(serve: Serve) -> None:
    """A stream ends with an event that says why, and when to come back, for an ``EventSource`` too."""
    async with serve(CONFIG, FEED) as serving, opened(serving, "sse") as reader:
        await reader.event()
        await serving.server.stop()
        bye = await reader.event()
        assert await reader.wire.chunk() == ""
    assert bye["event"] == "realtime:bye"
    assert bye["data"]["code"] == 1001
    assert "shutting down" in bye["data"]["reason"]
    assert 1000 <= bye["data"]["retry"] <= 5000
    assert bye["retry"] == str(bye["data"]["retry"])
    assert "id" not in bye


async def test_bye_before_the_close_frame(serve: Serve) -> None:
    """With the subprotocol the goodbye comes right before the close frame."""
    async with serve(CONFIG, FEED) as serving, opened(serving, "v1") as reader:
        await reader.event()
        await serving.server.stop()
        bye = await reader.event()
        end = await reader.wire.frame()
    assert (bye["event"], bye["data"]["code"], end.opcode, end.code) == ("realtime:bye", 1001, CLOSE, 1001)
    assert 1000 <= bye["data"]["retry"] <= 5000


@KINDS
@pytest.mark.parametrize(("code", "again"), [(1008, False), (4000, False), (1013, True), (4600, True)])
async def test_retry_only_where_it_is_welcome(serve: Serve, kind: str, code: int, again: bool) -> None:
    """Only a code that says come back has a time to do so."""
    async with serve(CONFIG, FEED) as serving, opened(serving, kind, f"?close={code}") as reader:
        await reader.event()
        bye = await reader.event()
    assert (bye["data"]["code"], bye["data"]["reason"]) == (code, "so")
    assert (bye["data"]["retry"] is not None) is again
    assert ("retry" in bye) is (again and kind == "sse")


@KINDS
async def test_reason_forges_nothing(serve: Serve, kind: str) -> None:
    """Whatever the reason is, the goodbye is one event, and the reason can be had back whole."""
    why = "\n\ndata: x\r\n" + "y" * 300
    query = f"?close=4000&why={quote(why)}"
    async with serve(CONFIG, FEED) as serving, opened(serving, kind, query) as reader:
        await reader.event()
        assert (await reader.event())["data"]["reason"] == why


@KINDS
async def test_reason_that_is_no_unicode(serve: Serve, kind: str) -> None:
    """A lone surrogate in a reason does not stop the goodbye."""
    async with (
        serve(CONFIG, FEED) as serving,
        opened(serving, kind, "?close=4000&why=aSURROGATE") as reader,
    ):
        await reader.event()
        assert (await reader.event())["data"]["reason"] == "a?"
