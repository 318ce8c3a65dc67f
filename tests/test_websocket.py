"""WebSocket: the frames, seen as bytes."""

from __future__ import annotations

import configparser
import gc
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from conftest import FLOODED, Serve, Serving
from packaging.requirements import Requirement
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol
from wire import (
    BINARY,
    PING,
    PONG,
    TEXT,
    Frame,
    Wire,
    close,
    eventually,
    flood,
    frame,
    soon,
    text,
    websocket,
)

from realtime.transports import connection

CLOSE = 0x8
V1 = "realtime.v1.json"
ECHO = "channels: {echo: {plugin: echo, path: /ws}}"
FLOODED_ECHO = f"channels: {{echo: {{plugin: echo, path: /ws, {FLOODED}}}}}"
SMALL = "channels: {echo: {plugin: echo, path: /ws, limits: {max_message: 1KiB}}}"

#: A channel whose handler waits until the test lets it go on.
SLOW = {
    "slow.py": '''
        import asyncio
        from realtime import Channel, hookimpl

        class Slow(Channel):
            """Waits before each answer."""

            def __init__(self, name, settings, bus):
                super().__init__(name, settings, bus)
                self.go = asyncio.Event()
                self.heard = asyncio.Queue()

            async def on_message(self, client, message):
                self.heard.put_nowait(message.data)
                await self.go.wait()
                await client.send(message.data)

        @hookimpl
        def register_channels():
            return {"slow": Slow}
    '''
}

#: A channel that closes who says anything, and does not stop talking then.
CLOSER = {
    "closer.py": '''
        from realtime import Channel, hookimpl

        class Closer(Channel):
            """Closes who says anything."""

            async def on_message(self, client, message):
                await client.close(4000, "enough")
                await client.send("more")
                await self.publish(client.topic, "and more")

        @hookimpl
        def register_channels():
            return {"closer": Closer}
    '''
}


# Frames


async def test_frames_glued_to_the_handshake_are_heard(serve: Serve) -> None:
    """What came in one packet with the handshake is answered."""
    async with serve(ECHO) as serving, websocket(serving.port, "/ws", text("early")) as wire:
        assert await wire.text() == "Echo: early"


async def test_half_a_frame_glued_to_the_handshake_is_put_together(serve: Serve) -> None:
    """A frame that begins in the handshake's packet goes on in the next."""
    whole = text("early")
    async with serve(ECHO) as serving, websocket(serving.port, "/ws", whole[:5]) as wire:
        await wire.send(whole[5:])
        assert await wire.text() == "Echo: early"


async def test_frame_arrives_byte_by_byte(serve: Serve) -> None:
    """A frame is one message, however it is cut on the way."""
    async with serve(ECHO) as serving, websocket(serving.port, "/ws") as wire:
        for byte in text("drop by drop"):
            await wire.send(bytes((byte,)))
        assert await wire.text() == "Echo: drop by drop"


async def test_fragments_with_a_ping_between(serve: Serve) -> None:
    """A ping between the fragments is answered at once, and the message stays whole."""
    async with serve(ECHO) as serving, websocket(serving.port, "/ws") as wire:
        await wire.send(frame(TEXT, b"one ", fin=False) + frame(PING, b"there?"))
        assert await wire.frame() == Frame(PONG, b"there?")
        await wire.send(frame(0, b"two ", fin=False) + frame(0, b"three"))
        assert await wire.text() == "Echo: one two three"


async def test_character_split_between_fragments(serve: Serve) -> None:
    """UTF-8 is checked on the message, not on each fragment."""
    euro = "€".encode()
    async with serve(ECHO) as serving, websocket(serving.port, "/ws") as wire:
        await wire.send(frame(TEXT, euro[:1], fin=False) + frame(0, euro[1:]))
        assert await wire.text() == "Echo: €"


async def test_pong_that_nobody_asked_for(serve: Serve) -> None:
    """An unsolicited pong is no message and no error."""
    async with serve(ECHO) as serving, websocket(serving.port, "/ws") as wire:
        await wire.send(frame(PONG, b"hello") + text("x"))
        assert await wire.text() == "Echo: x"


async def test_ping_is_answered_while_the_handler_waits(serve: Serve) -> None:
    """A pong overtakes the channel's own work."""
    async with (
        serve("channels: {slow: {plugin: slow, path: /}}", SLOW) as serving,
        websocket(serving.port, "/", text("x")) as wire,
    ):
        channel: Any = serving.server.channels["slow"]
        await soon(channel.heard.get())
        await wire.send(frame(PING, b"there?"))
        assert await wire.frame() == Frame(PONG, b"there?")
        channel.go.set()
        assert await wire.text() == "x"


async def test_many_messages_in_one_packet(serve: Serve) -> None:
    """A thousand frames that come at once are a thousand messages, in their order."""
    async with serve(FLOODED_ECHO) as serving, websocket(serving.port, "/ws") as wire:
        await wire.send(b"".join(text(str(n)) for n in range(1000)))
        assert [await wire.text() for _ in range(1000)] == [f"Echo: {n}" for n in range(1000)]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536])
async def test_sizes_at_the_edges_of_the_header(serve: Serve, size: int) -> None:
    """Every length of a frame's header is read and written."""
    data = bytes(index % 251 for index in range(size))
    async with serve(ECHO) as serving, websocket(serving.port, "/ws") as wire:
        await wire.send(frame(BINARY, data))
        assert await wire.frame() == Frame(BINARY, data)


async def test_largest_message_is_accepted(serve: Serve) -> None:
    """``max_message`` itself is allowed."""
    async with serve(SMALL) as serving, websocket(serving.port, "/ws") as wire:
        await wire.send(frame(BINARY, b"x" * 1024))
        assert (await wire.frame()).payload == b"x" * 1024


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(TEXT, b"x" * 1025), id="one frame"),
        pytest.param(frame(TEXT, b"x" * 1000, fin=False) + frame(0, b"x" * 25), id="fragments"),
        pytest.param(frame(TEXT, b"x" * 100_000)[:14], id="only announced"),
    ],
)
async def test_larger_message_is_too_big(serve: Serve, data: bytes) -> None:
    """One byte more than ``max_message`` closes with 1009, before it has come."""
    async with serve(SMALL) as serving, websocket(serving.port, "/ws", data) as wire:
        end = await wire.frame()
    assert end.code == 1009
    assert "max_message" in end.reason


async def test_server_has_a_limit_too(serve: Serve) -> None:
    """Where the channel sets none, ``server.limits.max_message`` holds."""
    config = """
        server: {listen: ["127.0.0.1:0"], limits: {max_message: 16B}}
        channels: {echo: {plugin: echo, path: /ws}}
    """
    async with serve(config) as serving, websocket(serving.port, "/ws", text("x" * 17)) as wire:
        assert await wire.close_code() == 1009


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(TEXT, b"\xff"), id="never"),
        pytest.param(frame(TEXT, b"\xe2\x82"), id="cut"),
        pytest.param(frame(TEXT, b"\xed\xa0\x80"), id="surrogate"),
        pytest.param(frame(TEXT, b"\xc0\xaf"), id="overlong"),
        pytest.param(frame(TEXT, b"a", fin=False) + frame(0, b"\xff"), id="fragment"),
        pytest.param(frame(CLOSE, b"\x03\xe8\xff"), id="reason"),
    ],
)
async def test_bad_utf_8(serve: Serve, data: bytes) -> None:
    """Text that is not UTF-8 closes with 1007."""
    async with serve(ECHO) as serving, websocket(serving.port, "/ws", data) as wire:
        assert await wire.close_code() == 1007


@pytest.mark.parametrize(
    "data",
    [
        *(pytest.param(frame(TEXT, b"x", reserved=bit), id=f"bit {bit:x}") for bit in (0x40, 0x20, 0x10)),
        *(pytest.param(frame(opcode, b"x"), id=f"opcode {opcode:x}") for opcode in (3, 7, 0xB, 0xF)),
        pytest.param(frame(0, b"x"), id="nothing to continue"),
        pytest.param(frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), id="fragment not continued"),
        pytest.param(frame(PING, b"x", fin=False), id="ping in fragments"),
        pytest.param(frame(PING, b"x" * 126), id="long ping"),
        pytest.param(frame(CLOSE, b"\x03"), id="half a code"),
    ],
)
async def test_protocol_error(serve: Serve, data: bytes) -> None:
    """What RFC 6455 forbids closes with 1002."""
    async with serve(ECHO) as serving, websocket(serving.port, "/ws", data) as wire:
        assert await wire.close_code() == 1002


async def test_what_came_before_a_protocol_error_is_answered(serve: Serve) -> None:
    """An error ends the connection in its place among the messages."""
    data = text("a") + text("b") + frame(3)
    async with serve(ECHO) as serving, websocket(serving.port, "/ws", data) as wire:
        assert [await wire.text(), await wire.text()] == ["Echo: a", "Echo: b"]
        assert await wire.close_code() == 1002


# The end


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1011, 3000, 3999, 4000, 4999])
async def test_close_is_answered_with_its_code(serve: Serve, code: int) -> None:
    """The code of a close comes back, and the connection ends."""
    async with serve(ECHO) as serving, websocket(serving.port, "/ws", close(code, "bye")) as wire:
        assert await wire.close_code() == code
        assert await wire.rest() == b""


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
async def test_code_that_may_not_be_sent(serve: Serve, code: int) -> None:
    """A close with a code that no endpoint may send is answered with 1002."""
    async with serve(ECHO) as serving, websocket(serving.port, "/ws", close(code)) as wire:
        assert await wire.close_code() == 1002
        assert await wire.rest() == b""


async def test_close_without_a_code(serve: Serve) -> None:
    """A close that says nothing is answered with 1000."""
    async with serve(ECHO) as serving, websocket(serving.port, "/ws", frame(CLOSE)) as wire:
        assert await wire.close_code() == 1000


async def test_what_came_before_a_close_is_answered(serve: Serve) -> None:
    """All that was said before a close is answered before it."""
    data = b"".join(text(str(n)) for n in range(100)) + close(1000)
    async with serve(ECHO) as serving, websocket(serving.port, "/ws", data) as wire:
        assert [await wire.text() for _ in range(100)] == [f"Echo: {n}" for n in range(100)]
        assert await wire.close_code() == 1000


async def test_what_comes_after_a_close_is_not_heard(serve: Serve) -> None:
    """After its close frame a client has nothing to say."""
    data = text("a") + close(1000) + text("b") + frame(PING) + frame(3)
    async with serve(ECHO) as serving, websocket(serving.port, "/ws", data) as wire:
        assert await wire.text() == "Echo: a"
        assert await wire.close_code() == 1000
        assert await wire.rest() == b""


async def test_nothing_is_written_after_a_close(serve: Serve) -> None:
    """Neither what is sent, nor what is published, nor a pong follows the close frame."""
    async with (
        serve("channels: {closer: {plugin: closer, path: /}}", CLOSER) as serving,
        websocket(serving.port, "/", text("x")) as wire,
    ):
        end = await wire.frame()
        assert (end.code, end.reason) == (4000, "enough")
        await serving.server.bus.publish("closer", "still more")
        await wire.send(frame(PING, b"there?") + text("y") + close(4000))
        assert await wire.rest() == b""


async def test_close_that_is_not_answered(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not answer a close is cut off after the grace."""
    monkeypatch.setattr(connection, "CLOSE_GRACE", 0.05)
    async with (
        serve("channels: {closer: {plugin: closer, path: /}}", CLOSER) as serving,
        websocket(serving.port, "/", text("x")) as wire,
    ):
        assert await wire.close_code() == 4000
        assert await wire.rest() == b""


async def test_who_is_still_sending_sees_the_close(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows a message that is too big is taken, so its client can read why it is closed."""
    monkeypatch.setattr(connection, "CLOSE_GRACE", 60.0)  # however long it takes to send it all
    async with serve(SMALL) as serving, websocket(serving.port, "/ws") as wire:
        await wire.send(frame(BINARY, bytes(20_000_000)) + text("x") * 10_000)
        assert await wire.close_code() == 1009
        await wire.send(close(1009))
        assert await wire.rest() == b""


async def test_unfinished_message_is_let_go_of(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client had begun to say takes no memory while the end of its connection is waited for."""
    monkeypatch.setattr(connection, "CLOSE_GRACE", 60.0)
    config = "channels: {echo: {plugin: echo, path: /ws, limits: {max_message: 8MiB}}}"
    async with serve(config) as serving, websocket(serving.port, "/ws") as wire:
        tracemalloc.start()
        try:
            await wire.send(frame(BINARY, bytes(4 << 20), fin=False) + frame(3))
            assert await wire.close_code() == 1002
            gc.collect()
            held, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert held < 1 << 20 < 4 << 20 < most


async def test_who_only_sends_is_cut(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that broke the protocol and does not end is cut off after the grace."""
    monkeypatch.setattr(connection, "CLOSE_GRACE", 0.05)

    async def go_on(wire: Wire) -> None:
        while True:
            await flood(wire)

    async with serve(SMALL) as serving, websocket(serving.port, "/ws", frame(3)) as wire:
        with pytest.raises(ConnectionError):
            await go_on(wire)


async def test_close_of_a_client_whose_handler_hangs(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that does not end does not keep a close from being answered."""
    monkeypatch.setattr("realtime.transports.websocket.LEAVE_GRACE", 0.05)
    monkeypatch.setattr(connection, "LEAVE_GRACE", 0.05)
    async with (
        serve("channels: {slow: {plugin: slow, path: /}}", SLOW) as serving,
        websocket(serving.port, "/", text("x") + close(1000)) as wire,
    ):
        assert await wire.close_code() == 1000
        assert await wire.rest() == b""
        await eventually(lambda: not serving.server.channels["slow"].clients)


async def test_long_reason_is_cut_between_characters(serve: Serve) -> None:
    """A close frame carries at most 123 bytes of a reason, whole characters."""
    files = {"closer.py": CLOSER["closer.py"].replace('"enough"', '"é" * 100')}
    async with (
        serve("channels: {closer: {plugin: closer, path: /}}", files) as serving,
        websocket(serving.port, "/", text("x")) as wire,
    ):
        assert (await wire.frame()).reason == "é" * 61


# The subprotocol

#: A channel that publishes what it hears, says what that was, and does what an event asks for.
TALK = {
    "talk.py": '''
        import asyncio
        from realtime import Channel, Rejected, hookimpl

        class Talk(Channel):
            """Publishes what it hears."""

            async def on_connect(self, client):
                if "greeting" in client.query:
                    client.name = (await client.receive()).data
                if "reject" in client.query:
                    raise Rejected("not you", int(client.query["reject"]))

            async def on_join(self, client):
                if "later" in client.query:
                    raise Rejected("not now", int(client.query["later"]))

            async def on_message(self, client, message):
                if message.event == "quiet":
                    return None
                if message.event == "ask":
                    await client.send("and?")
                    return await self.publish(client.topic, (await client.receive()).data)
                if message.event == "fail":
                    raise RuntimeError
                if message.event == "reject":
                    raise Rejected("not this", message.data)
                if message.event == "reject later":
                    await asyncio.sleep(0)
                    raise Rejected("not this", message.data)
                if message.event == "reject after":
                    await client.receive()
                    raise Rejected("not this", message.data)
                if message.data == "reject":
                    raise Rejected("not this \\udc80" + 200 * "é", int(client.query["with"]))
                if message.event == "what":
                    await client.send([message.event, message.kind, message.payload.decode()])
                    return None
                return await self.publish(client.topic, message.data, event=message.event)

        @hookimpl
        def register_channels():
            return {"talk": Talk}
    '''
}
TALKING = "channels: {talk: {plugin: talk, path: /talk}}"


class Json:
    """A client of the subprotocol, made of somebody else's library."""

    def __init__(self, client: ClientConnection) -> None:
        self.client = client

    async def say(self, data: object = "x", **fields: object) -> None:
        """Send an object."""
        await self.client.send(json.dumps({"data": data, **fields}))

    async def hear(self) -> dict[str, Any]:
        """The next object, without its time."""
        value = json.loads(await soon(self.client.recv()))
        value.pop("time", None)
        return dict(value)

    async def answer(self) -> str:
        """The sentence of the error that comes next."""
        value = await self.hear()
        assert value["event"] == "realtime:error", value
        return str(value["data"]["message"])


@asynccontextmanager
async def talking(serving: Serving, query: str = "") -> AsyncIterator[Json]:
    """Such a client, welcomed."""
    async with connect(serving.ws(f"/talk{query}"), subprotocols=[Subprotocol(V1)]) as client:
        assert client.subprotocol == V1
        talker = Json(client)
        assert (await talker.hear())["event"] == "realtime:welcome"
        yield talker


def position(serving: Serving, offset: int) -> str:
    """The position of a message of the channel."""
    return f"{serving.server.bus.topic('talk').epoch}-{offset}"


async def test_messages_are_objects(serve: Serve) -> None:
    """What is published comes with its position and event, whatever its data is."""
    async with serve(TALKING, TALK) as serving, talking(serving) as client:
        bus = serving.server.bus
        for data in ("hi", {"a": [1]}, b"\x00\xff"):
            await bus.publish("talk", data, event="news")
        assert [await client.hear() for _ in range(3)] == [
            {"id": position(serving, 1), "event": "news", "data": "hi"},
            {"id": position(serving, 2), "event": "news", "data": {"a": [1]}},
            {"id": position(serving, 3), "event": "news", "data": "AP8=", "encoding": "base64"},
        ]


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ({"data": "hi"}, ["text", "hi"]),
        ({"data": {"a": 1}}, ["json", '{"a":1}']),
        ({"data": "aGk=", "encoding": "base64"}, ["bytes", "hi"]),
    ],
    ids=repr,
)
async def test_what_a_plugin_hears(serve: Serve, said: dict[str, Any], heard: list[str]) -> None:
    """A plugin hears the event, and text, JSON or bytes, as if no object had been round it."""
    async with serve(TALKING, TALK) as serving, talking(serving) as client:
        await client.say(event="what", **said)
        assert await client.hear() == {"event": "message", "data": ["what", *heard]}


async def test_binary_frame_is_bytes(serve: Serve) -> None:
    """A binary frame is bytes, and no object is looked for in it."""
    async with serve(TALKING, TALK) as serving, talking(serving) as client:
        await client.client.send(b'{"data": 1}')
        heard = await client.hear()
    assert (heard["data"], heard["encoding"]) == ("eyJkYXRhIjogMX0=", "base64")


@pytest.mark.parametrize("ref", [7, "a"])
async def test_acknowledgement_follows_the_message(serve: Serve, ref: int | str) -> None:
    """Who sends a ref is told the position, after everything up to it."""
    async with serve(TALKING, TALK) as serving, talking(serving) as client:
        await client.say("hi", ref=ref)
        place = position(serving, 1)
        assert await client.hear() == {"id": place, "event": "message", "data": "hi"}
        assert await client.hear() == {"event": "realtime:ack", "ref": ref, "id": place}


async def test_acknowledgement_without_a_position(serve: Serve) -> None:
    """Where nothing was published the acknowledgement says that it was heard."""
    async with serve(TALKING, TALK) as serving, talking(serving) as client:
        await client.say(event="quiet", ref=1)
        assert await client.hear() == {"event": "realtime:ack", "ref": 1}


async def test_nothing_is_acknowledged_unasked(serve: Serve) -> None:
    """Without a ref there is no answer."""
    async with serve(TALKING, TALK) as serving, talking(serving) as client:
        await client.say(event="quiet", ref=1)
        await client.say(event="quiet")
        await client.say(event="quiet", ref=2)
        await client.client.send(b"bytes")
        await client.say(event="quiet", ref=3)
        answers = [await client.hear() for _ in range(4)]
    assert [answer.get("ref") for answer in answers] == [1, 2, None, 3]


async def test_what_receive_takes_is_acknowledged(serve: Serve) -> None:
    """A greeting that the plugin took is acknowledged, without a position."""
    async with serve(TALKING, TALK) as serving, talking(serving, "?greeting") as client:
        await client.say("alice", ref="name")
        assert await client.hear() == {"event": "realtime:ack", "ref": "name"}
        (member,) = serving.server.channels["talk"].clients
        assert member.name == "alice"


async def test_each_ref_is_answered_once(serve: Serve) -> None:
    """A plugin that receives while it hears a message has both acknowledged, each under its own ref."""
    async with serve(TALKING, TALK) as serving, talking(serving) as client:
        await client.say(event="ask", ref="first")
        assert (await client.hear())["data"] == "and?"
        await client.say("this", ref="second")
        assert await client.hear() == {"event": "realtime:ack", "ref": "second"}
        assert (await client.hear())["data"] == "this"
        assert await client.hear() == {"event": "realtime:ack", "ref": "first", "id": position(serving, 1)}


async def test_error_leaves_the_connection(serve: Serve) -> None:
    """A frame that cannot be read is answered in its place, and the next is heard."""
    async with serve(TALKING, TALK) as serving, talking(serving) as client:
        await client.say(event="quiet", ref=1)
        await client.client.send("hi")
        await client.say(event="realtime:join", ref=2)
        await client.say(event="quiet", ref=3)
        assert (await client.hear())["ref"] == 1
        assert "no JSON" in await client.answer()
        refused = await client.hear()
        assert (refused["event"], refused["ref"]) == ("realtime:error", 2)
        assert (await client.hear())["ref"] == 3


@pytest.mark.parametrize(
    "said",
    ["[" * 60_000, '{"data":' * 8_000, '{"data": 1e999}', '{"data": "\\ud800"}', '{"data": NaN}'],
    ids=len,
)
async def test_hostile_json(serve: Serve, said: str, caplog: pytest.LogCaptureFixture) -> None:
    """Hostile JSON is answered with a sentence, and is nothing to the log."""
    async with serve(TALKING, TALK) as serving, talking(serving) as client:
        await client.client.send(said)
        assert "no JSON" in await client.answer()
        await client.say(event="quiet", ref=1)
        assert (await client.hear())["ref"] == 1
    assert "Traceback" not in caplog.text


async def test_greeting_that_cannot_be_read(serve: Serve) -> None:
    """A greeting, too, can be said again after an error."""
    async with serve(TALKING, TALK) as serving, talking(serving, "?greeting") as client:
        await client.client.send("alice")
        assert "no JSON" in await client.answer()
        await client.say("alice", ref=1)
        assert (await client.hear())["ref"] == 1


async def test_bug_is_not_acknowledged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A message that the plugin failed on is not acknowledged: the goodbye says why."""
    async with serve(TALKING, TALK) as serving, talking(serving) as client:
        await client.say(event="fail", ref=1)
        bye = await client.hear()
    assert (bye["event"], bye["data"]["code"]) == ("realtime:bye", 1011)
    assert "RuntimeError" in caplog.text


@pytest.mark.parametrize("event", ["reject", "reject later"])
async def test_rejection_is_answered(serve: Serve, event: str, caplog: pytest.LogCaptureFixture) -> None:
    """What a channel does not take is answered in its place; the client stays, and no bug is logged."""
    async with serve(TALKING, TALK) as serving, talking(serving) as client:
        await client.say(event="quiet", ref=1)
        await client.say(404, event=event, ref=2)
        await client.say(409, event=event)
        await client.say(event="quiet", ref=3)
        answers = [await client.hear() for _ in range(4)]
    assert answers == [
        {"event": "realtime:ack", "ref": 1},
        {"event": "realtime:error", "ref": 2, "data": {"message": "not this", "status": 404}},
        {"event": "realtime:error", "data": {"message": "not this", "status": 409}},
        {"event": "realtime:ack", "ref": 3},
    ]
    assert "bug" not in caplog.text


async def test_rejection_has_the_ref_of_its_message(serve: Serve) -> None:
    """Whatever a channel received meanwhile, the answer is to the message that was rejected."""
    async with serve(TALKING, TALK) as serving, talking(serving) as client:
        await client.say(400, event="reject after", ref=1)
        await client.say("meanwhile", ref=2)
        answers = [await client.hear() for _ in range(2)]
    assert [(answer["event"], answer["ref"]) for answer in answers] == [
        ("realtime:ack", 2),
        ("realtime:error", 1),
    ]


@pytest.mark.parametrize("event", ["reject", "reject later"])
async def test_many_rejections_keep_their_order(serve: Serve, event: str) -> None:
    """However much is rejected, each answer comes in its turn."""
    async with serve(TALKING, TALK) as serving, talking(serving) as client:
        for ref in range(200):
            await client.say(400, event="quiet" if ref % 3 else event, ref=ref)
        assert [(await client.hear())["ref"] for _ in range(200)] == list(range(200))


async def test_status_that_is_no_error(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A channel that rejects with a status of success has a bug."""
    async with serve(TALKING, TALK) as serving, talking(serving) as client:
        await client.say(202, event="reject", ref=1)
        assert (await client.hear())["data"]["code"] == 1011
    assert "202 is no status of an error" in caplog.text


@pytest.mark.parametrize(
    ("status", "code"), [(401, 4401), (403, 4403), (400, 1008), (404, 1008), (503, 1013)]
)
async def test_rejection_closes_plain_frames(
    serve: Serve, status: int, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A plain WebSocket, in which it cannot be said, is closed with the sentence as the reason."""
    async with (
        serve(TALKING, TALK) as serving,
        websocket(serving.port, f"/talk?with={status}", text("hi")) as wire,
    ):
        assert await wire.text() == "hi"
        await wire.send(text("reject") + text("later"))
        end = await wire.frame()
        assert (end.code, end.reason) == (code, "not this ?" + 56 * "é")
        await wire.send(close(code))
        assert await wire.rest() == b""
        assert serving.server.bus.topic("talk").head == 1
    assert "bug" not in caplog.text


@pytest.mark.parametrize(("query", "reason"), [("reject", "not you"), ("later", "not now")])
@pytest.mark.parametrize("protocol", [None, V1])
async def test_rejected_before_it_is_heard(
    serve: Serve, query: str, reason: str, protocol: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Who is rejected in ``on_connect`` or ``on_join`` is closed, on any transport."""
    protocols = [Subprotocol(protocol)] if protocol else None
    async with (
        serve(TALKING, TALK) as serving,
        connect(serving.ws(f"/talk?{query}=403"), subprotocols=protocols) as client,
    ):
        await soon(client.wait_closed())
    assert (client.close_code, client.close_reason) == (4403, reason)
    assert "bug" not in caplog.text


async def test_flood_of_nonsense_is_answered_as_it_is_read(serve: Serve) -> None:
    """Who sends nonsense and reads no answers is not listened to: the answers do not pile up."""
    async with (
        serve(f"channels: {{talk: {{plugin: talk, path: /talk, {FLOODED}}}}}", TALK) as serving,
        websocket(
            serving.port, "/talk", headers=[("Sec-WebSocket-Protocol", V1)], receive_buffer=4096
        ) as wire,
        talking(serving) as other,
    ):
        assert await flood(wire, text("x" * 200)) < 20_000_000
        await other.say(event="quiet", ref=1)
        assert (await other.hear())["ref"] == 1


async def test_lapped_reader_is_told(serve: Serve) -> None:
    """With ``overflow: skip`` a reader that was lapped has a gap marker, and no hole without one."""
    config = "channels: {talk: {plugin: talk, path: /talk, lag_bytes: 64KiB, overflow: skip}}"
    headers = [("Sec-WebSocket-Protocol", V1)]
    async with (
        serve(config, TALK) as serving,
        websocket(serving.port, "/talk", headers=headers, receive_buffer=4096) as wire,
    ):
        assert json.loads(await wire.text())["event"] == "realtime:welcome"
        for _ in range(3000):
            await serving.server.bus.publish("talk", "x" * 4000)
        await serving.server.bus.publish("talk", "last")
        expected, gaps, event = 1, 0, {"data": ""}
        while event["data"] != "last":
            event = json.loads(await wire.text())
            offset = int(event["id"].partition("-")[2])
            if event["event"] == "realtime:gap":
                gaps += 1
                expected += event["data"]["missed"]
                assert offset == expected - 1
            else:
                assert offset == expected
                expected += 1
    assert gaps


async def test_resumed_after_an_acknowledgement(serve: Serve) -> None:
    """The position of an acknowledgement can be come back with: nothing up to it is missing."""
    async with serve(TALKING, TALK) as serving:
        async with talking(serving) as client:
            await client.say("one", ref=1)
            await client.hear()
            place = (await client.hear())["id"]
        await serving.server.bus.publish("talk", "two")
        async with talking(serving, f"?since={place}") as client:
            assert (await client.hear())["data"] == "two"


# What is used of aiohttp


def test_range_of_aiohttp() -> None:
    """The reader's interface is not documented: only versions that were tried are allowed."""
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parent.parent / "setup.cfg")
    lines = setup["options"]["install_requires"].split("\n")
    (wanted,) = (Requirement(line) for line in lines if line.startswith("aiohttp"))
    assert str(wanted.specifier) == "<3.15,>=3.14.3"
    assert wanted.specifier.contains(aiohttp.__version__)


async def test_reader_hands_on_every_kind_of_frame(serve: Serve) -> None:
    """From one packet the reader gives text, bytes, a ping, fragments and the close, in order."""
    data = b"".join(
        [
            text("a"),
            frame(BINARY, b"\x00\xff"),
            frame(TEXT, b"b", fin=False),
            frame(0, b"c"),
            frame(PING, b"p"),
            close(4321, "reason"),
        ]
    )
    async with serve(ECHO) as serving, websocket(serving.port, "/ws") as wire:
        await wire.send(data)
        frames = [await wire.frame() for _ in range(5)]
    assert [f.payload for f in frames[:3]] == [b"Echo: a", b"\x00\xff", b"Echo: bc"]
    assert frames[3] == Frame(PONG, b"p")
    assert (frames[4].code, frames[4].reason) == (4321, "reason")


# Floods


async def test_flood_of_pings_is_answered_in_few_writes(serve: Serve) -> None:
    """Of the pings that come together only the latest few are answered, the newest among them."""
    async with serve(ECHO) as serving, websocket(serving.port, "/ws") as wire:
        pings = [frame(PING, b"%d" % number) for number in range(10_000)]
        await wire.send(b"".join(pings) + frame(TEXT, b"end"))
        answered = []
        while b"9999" not in answered or b"Echo: end" not in answered:
            answered.append((await wire.frame()).payload)
    assert len(answered) < 5000


async def test_flood_of_frames_waits_in_bytes(serve: Serve) -> None:
    """Tiny frames that come together are parsed no faster than the client's task hears them."""
    async with serve(FLOODED_ECHO) as serving, websocket(serving.port, "/ws") as wire:
        await wire.send(b"".join(frame(TEXT, b"%d" % number) for number in range(20_000)))
        heard = [(await wire.frame())[1] for _ in range(20_000)]
    assert heard == [b"Echo: %d" % number for number in range(20_000)]


async def test_flood_becomes_few_messages(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tiny frames that come together few become messages before the client's task wants them."""
    heard = 0

    def hear(self: connection.Connection, item: Any) -> None:
        nonlocal heard
        heard += 1
        original(self, item)

    original = connection.Connection.hear
    monkeypatch.setattr(connection, "LEAVE_GRACE", 0.1)
    monkeypatch.setattr(connection.Connection, "hear", hear)
    waiting = """
        import asyncio
        from realtime import Channel, hookimpl

        class Waiting(Channel):
            async def on_message(self, client, message):
                await asyncio.Event().wait()

        @hookimpl
        def register_channels():
            return {"waiting": Waiting}
    """
    config = f"""
        channels:
          waiting: {{plugin: waiting, path: /waiting, {FLOODED}}}
          echo: {{plugin: echo, path: /ws}}
    """
    async with (
        serve(config, {"waiting.py": waiting}) as serving,
        websocket(serving.port, "/waiting") as wire,
        websocket(serving.port, "/ws") as other,
    ):
        await wire.send(frame(TEXT, b"x") * 30_000)
        for _ in range(50):  # turns of the loop, in which it could go on
            await other.send(frame(TEXT, b"y"))
            await other.frame()
        assert heard < 3_000


async def test_flood_before_the_end_is_heard(serve: Serve) -> None:
    """What was said before the socket was lost is heard, however much came together."""
    config = f"channels: {{lobby: {{plugin: chat, path: /chat, {FLOODED}}}}}"
    async with serve(config) as serving, connect(serving.ws("/chat"), max_queue=None) as alice:
        await alice.send("alice")
        async with websocket(serving.port, "/chat") as wire:
            said = [b"bob", *(b"%d" % number for number in range(5_000))]
            await wire.send(b"".join(frame(TEXT, text) for text in said))
        last = ""
        while last != "bob left the chat":
            before, last = last, str(await soon(alice.recv()))
        assert before == "bob: 4999"
