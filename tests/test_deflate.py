"""Compression: what is agreed on, and messages in both directions, with clients that others wrote."""

from __future__ import annotations

import gc
import json
import os
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import pytest
from conftest import FLOODED, Serve, Serving
from hypothesis import given, strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.typing import Subprotocol
from wire import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    Wire,
    close,
    dial,
    frame,
    install_ws,
    request,
    running,
    soon,
    stream,
    text,
    websocket,
)

from realtime.message import Message
from realtime.transports import connection
from realtime.transports.deflate import Deflated, agree

ECHO = "channels: {echo: {plugin: echo, path: /ws, compress: true}}"
SMALL = "channels: {echo: {plugin: echo, path: /ws, compress: true, limits: {max_message: 1KiB}}}"
V1 = "realtime.v1.json"
AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
OFFER = [("Sec-WebSocket-Extensions", "permessage-deflate")]
#: What is worth compressing.
LONG = "to and fro " * 100
RSV1, END = 0x40, b"\0\0\xff\xff"

#: A channel that shows what it published to everybody, and counts how often it is asked how.
ROOM = {
    "room.py": '''
        from realtime import Channel, hookimpl

        class Room(Channel):
            """Says to everybody what anybody says, and "you said" to who said it."""

            asked = 0

            async def on_message(self, client, message):
                await client.send(["you said", message.data])
                return await self.publish(client.topic, message.data)

            def as_text(self, message):
                self.asked += 1
                return super().as_text(message)

        @hookimpl
        def register_channels():
            return {"room": Room}
    '''
}
ROOMS = "channels: {room: {plugin: room, path: /room, compress: true, history: 100}}"

#: A channel that hears nothing before the test lets it.
SLOW = {
    "slow.py": '''
        import asyncio
        from realtime import Channel, hookimpl

        class Slow(Channel):
            """Waits before it hears anything more."""

            def __init__(self, name, settings, bus):
                super().__init__(name, settings, bus)
                self.go, self.heard = asyncio.Event(), asyncio.Queue()

            async def on_message(self, client, message):
                self.heard.put_nowait(len(message.data))
                await self.go.wait()

        @hookimpl
        def register_channels():
            return {"slow": Slow}
    '''
}


def deflated(data: bytes, level: int = -1, bits: int = 15, memory: int = 8, strategy: int = 0) -> bytes:
    """A message as a client compresses it (RFC 7692, section 7.2.1)."""
    deflater = zlib.compressobj(level, zlib.DEFLATED, -bits, memory, strategy)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)).removesuffix(END)


def compressed(data: bytes, opcode: int = TEXT) -> bytes:
    """Its frame."""
    return frame(opcode, deflated(data), reserved=RSV1)


class Came(NamedTuple):
    """A frame of the server: the bits and the opcode, and what it carries."""

    first: int
    payload: bytes


async def came(wire: Wire) -> Came:
    """The next frame, compressed or not."""
    first, size = await wire.exactly(2)
    if size >= 126:
        size = int.from_bytes(await wire.exactly(2 if size == 126 else 8), "big")
    return Came(first, await wire.exactly(size))


async def inflated(wire: Wire) -> str:
    """The text of the next frame, which must be compressed, and refer to nothing before it."""
    first, payload = await came(wire)
    assert first == 0x80 | RSV1 | TEXT
    return zlib.decompressobj(-15).decompress(payload + END).decode()


@asynccontextmanager
async def compressing(serving: Serving, data: bytes = b"") -> AsyncIterator[Wire]:
    """A client of bytes on an echo, which has agreed to compress."""
    async with websocket(serving.port, "/ws", data, headers=OFFER) as wire:
        yield wire


@asynccontextmanager
async def peak() -> AsyncIterator[list[int]]:
    """How much more memory Python and zlib take, at the most and at the end."""
    gc.collect()
    tracemalloc.start()
    measured: list[int] = []
    try:
        yield measured
        gc.collect()
        now, most = tracemalloc.get_traced_memory()
        measured.extend((most, now))
    finally:
        tracemalloc.stop()


def settled(client: ClientConnection) -> str:
    """What a client of ``websockets`` has agreed to."""
    assert client.response is not None
    return client.response.headers.get("Sec-WebSocket-Extensions", "")


# What is agreed on


@pytest.mark.parametrize(
    ("offers", "bits"),
    [
        (["permessage-deflate"], ""),
        (["permessage-deflate; client_max_window_bits"], ""),  # a browser's
        (["permessage-deflate;client_max_window_bits=15 ; server_no_context_takeover"], ""),
        (["permessage-deflate; server_no_context_takeover; client_no_context_takeover"], ""),
        (["permessage-deflate; client_max_window_bits=8"], ""),
        (['permessage-deflate; client_max_window_bits="9"'], ""),
        (["permessage-deflate; server_max_window_bits=15"], "12"),
        (["permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"], "12"),
        (['permessage-deflate; server_max_window_bits = "1\\3"'], "12"),
        (["x-webkit-deflate-frame, permessage-deflate"], ""),
        (["x-other; a=b; c", "permessage-deflate; server_max_window_bits=13"], "12"),
        (["permessage-deflate; server_max_window_bits=10, permessage-deflate"], ""),
        (["permessage-deflate; unknown, permessage-deflate; server_max_window_bits=14"], "12"),
        (["permessage-deflate, permessage-deflate; server_max_window_bits=14"], ""),
        ([", ,\tpermessage-deflate\t,"], ""),
    ],
    ids=repr,
)
def test_offer_is_accepted(offers: list[str], bits: str) -> None:
    """Of several offers the first that can be met is; a window is named if the client named one."""
    assert agree(offers) == AGREED + (f"; server_max_window_bits={bits}" if bits else "")


@pytest.mark.parametrize(
    "offer",
    [
        "",
        ",",
        "permessage-bzip2",
        "Permessage-Deflate",
        "x-webkit-deflate-frame",
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=11",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=012",
        "permessage-deflate; server_max_window_bits=120",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=16",
        "permessage-deflate; client_max_window_bits=x",
        "permessage-deflate; client_no_context_takeover=1",
        "permessage-deflate; server_no_context_takeover=true",
        "permessage-deflate; client_max_window_bits; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; level=9",
        "permessage-deflate; Server_no_context_takeover",
    ],
)
def test_offer_is_declined(offer: str) -> None:
    """An offer that cannot be met, or is none (section 7.1), is as if it had not been made."""
    assert agree([offer]) is None


@pytest.mark.parametrize(
    "offer",
    [
        "permessage deflate",
        "permessage-deflate;",
        "permessage-deflate; ;client_no_context_takeover",
        "permessage-deflate; client_max_window_bits=",
        'permessage-deflate; client_max_window_bits=""',
        'permessage-deflate; client_max_window_bits="15',
        'permessage-deflate; x="a, b"',
        "permessage-deflate; =15",
        "permessage-deflate=1",
        "permessage-deflate, ;",
        "permessage-deflate, (x)",
        "é",
    ],
)
async def test_what_is_no_offer(serve: Serve, offer: str) -> None:
    """What is no list of extensions is refused, as RFC 6455 demands in section 9.1."""
    headers = [*UPGRADE, ("Sec-WebSocket-Extensions", offer)]
    async with serve(ECHO) as serving, dial(serving.port, request("/ws", headers)) as wire:
        head, body = await wire.response()
    assert (head.status, "extension" in body) == (400, True)


@given(st.lists(st.text(st.sampled_from('permssag-dflt;=", \t\\1258_x(')), max_size=3))
def test_any_offer_is_answered_or_refused(offers: list[str]) -> None:
    """Whatever is offered, it is declined, accepted or refused, and nothing else."""
    try:
        answer = agree(offers)
    except ValueError:
        return
    assert answer is None or answer.startswith(AGREED)


@pytest.mark.parametrize("server_bits", [None, 12, 13, 15])
@pytest.mark.parametrize("client_bits", [None, True, 9, 15])
@pytest.mark.parametrize(("server", "client"), [(False, False), (True, False), (False, True), (True, True)])
async def test_others_agree_to_the_answer(
    serve: Serve, server_bits: int | None, client_bits: int | None, server: bool, client: bool
) -> None:
    """Whatever another implementation offers, it takes the answer, and each understands the other."""
    offer = ClientPerMessageDeflateFactory(server, client, server_bits, client_bits)
    noise = os.urandom(5000).hex() * 2  # repeated within 15 bits, beyond 12
    async with (
        serve(ECHO) as serving,
        connect(serving.ws("/ws"), extensions=[offer], compression=None) as other,
    ):
        assert settled(other) == AGREED + ("; server_max_window_bits=12" if server_bits else "")
        for said in (LONG, "short", noise):
            await other.send(said)
            assert await soon(other.recv()) == f"Echo: {said}"


@pytest.mark.parametrize("bits", [9, 10, 11])
async def test_smaller_window_goes_without(serve: Serve, bits: int) -> None:
    """A client that keeps less than is referred to gets everything uncompressed."""
    offer = ClientPerMessageDeflateFactory(server_max_window_bits=bits)
    async with (
        serve(ECHO) as serving,
        connect(serving.ws("/ws"), extensions=[offer], compression=None) as client,
    ):
        assert settled(client) == ""
        await client.send(LONG)
        assert await soon(client.recv()) == f"Echo: {LONG}"


async def test_nobody_is_answered_unasked(serve: Serve) -> None:
    """A client that does not offer it is not answered, and nothing is compressed."""
    async with serve(ECHO) as serving:
        async with dial(serving.port, request("/ws", UPGRADE)) as wire:
            assert "sec-websocket-extensions" not in (await wire.head()).headers
        async with websocket(serving.port, "/ws", text(LONG)) as wire:
            assert await wire.text() == f"Echo: {LONG}"


# Messages of the server


async def test_messages_are_compressed(serve: Serve) -> None:
    """A long message is a compressed frame, a short one is not; each can be read by itself."""
    async with serve(ECHO) as serving, compressing(serving) as wire:
        await wire.send(text(LONG) + text("short") + text(LONG))
        assert await inflated(wire) == f"Echo: {LONG}"
        assert await came(wire) == Came(0x80 | TEXT, b"Echo: short")
        assert await inflated(wire) == f"Echo: {LONG}"


async def test_control_frames_are_not_compressed(serve: Serve) -> None:
    """A pong and a close frame go as they are, however long."""
    async with serve(ECHO) as serving, compressing(serving) as wire:
        await wire.send(frame(PING, b"x" * 125) + frame(CLOSE, b"\x03\xe8" + b"x" * 123))
        assert await came(wire) == Came(0x80 | PONG, b"x" * 125)
        assert await came(wire) == Came(0x80 | CLOSE, b"\x03\xe8" + b"x" * 123)


async def test_message_is_encoded_once(serve: Serve) -> None:
    """However many clients there are, a message is written once for all those that compress."""
    async with serve(ROOMS, ROOM) as serving, AsyncExitStack() as stack:
        room: Any = serving.server.channels["room"]
        wires = [
            await stack.enter_async_context(websocket(serving.port, "/room", headers=OFFER))
            for _ in range(10)
        ]
        await serving.server.bus.publish("room", LONG)
        frames = [await came(wire) for wire in wires]
    assert len(set(frames)) == 1
    assert frames[0].first == 0x80 | RSV1 | TEXT
    assert room.asked == 1


async def test_room_is_mixed(serve: Serve) -> None:
    """Clients with and without compression, and streams of events, see the same."""
    async with (
        serve(ROOMS, ROOM) as serving,
        connect(serving.ws("/room")) as one,
        connect(serving.ws("/room"), compression=None) as other,
        connect(serving.ws("/room"), subprotocols=[Subprotocol(V1)]) as third,
        stream(serving.port, "/room") as events,
    ):
        assert (settled(one), settled(other), settled(third)) == (AGREED, "", AGREED)
        await soon(third.recv())  # its welcome
        for n in range(20):
            await serving.server.bus.publish("room", f"{n} {LONG}")
        expected = [f"{n} {LONG}" for n in range(20)]
        assert [await soon(one.recv()) for _ in range(20)] == expected
        assert [await soon(other.recv()) for _ in range(20)] == expected
        assert [json.loads(await soon(third.recv()))["data"] for _ in range(20)] == expected
        assert [(await events.event())["data"] for _ in range(20)] == expected


async def test_direct_message_is_compressed(serve: Serve) -> None:
    """What is sent to one client alone is compressed, too, and stands among what is published."""
    async with serve(ROOMS, ROOM) as serving, websocket(serving.port, "/room", headers=OFFER) as wire:
        await wire.send(text(LONG))
        assert json.loads(await inflated(wire)) == ["you said", LONG]
        assert await inflated(wire) == LONG


async def test_resumed_stream_is_compressed(serve: Serve) -> None:
    """A client that comes back with its position gets what it missed, compressed."""
    headers = [*OFFER, ("Sec-WebSocket-Protocol", V1)]
    async with serve(ROOMS, ROOM) as serving:
        bus = serving.server.bus
        place = await bus.publish("room", "seen")
        for n in range(3):
            await bus.publish("room", f"{n} {LONG}")
        async with websocket(serving.port, f"/room?since={place}", headers=headers) as wire:
            welcome = json.loads((await came(wire)).payload)
            missed = [json.loads(await inflated(wire)) for _ in range(3)]
    assert welcome["data"]["outcome"] == "recovered"
    assert [message["data"] for message in missed] == [f"{n} {LONG}" for n in range(3)]
    assert missed[0]["id"] == f"{place.epoch}-{place.offset + 1}"


# Messages of the client


@pytest.mark.parametrize(
    ("payload", "heard"),
    [
        pytest.param("f248cdc9c90700", b"Hello", id="fixed codes"),
        pytest.param("000500faff48656c6c6f00", b"Hello", id="stored"),
        pytest.param("f348cdc9c9070000", b"Hello", id="an end of its own"),
        pytest.param("f348cdc9c90700", b"Hello", id="such an end and nothing after it"),
        pytest.param("f248050000 00ffffcac9c90700", b"Hello", id="two blocks"),
        pytest.param("00", b"", id="nothing"),
        pytest.param("", b"", id="nothing at all"),
    ],
)
async def test_examples_of_the_rfc(serve: Serve, payload: str, heard: bytes) -> None:
    """What RFC 7692 shows in section 7.2.3 is understood."""
    data = frame(BINARY, bytes.fromhex(payload), reserved=RSV1)
    async with serve(ECHO) as serving, compressing(serving, data) as wire:
        assert await came(wire) == Came(0x80 | BINARY, heard)


@given(
    st.binary(max_size=5000),
    st.integers(1, 3),
    st.integers(0, 9),
    st.integers(9, 15),
    st.integers(1, 9),
    st.sampled_from([zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED]),
)
def test_whatever_a_client_has_compressed(
    data: bytes, times: int, level: int, bits: int, memory: int, strategy: int
) -> None:
    """However a client compresses, its message is read, and a limit of its size holds it."""
    payload = deflated(data * times, level, bits, memory, strategy)
    message = Deflated("message", "bytes", payload, 0.0)
    assert message.inflate(len(data) * times) == Message("message", "bytes", data * times, 0.0)


def test_whole_window() -> None:
    """A client may refer as far back as the format allows."""
    data = os.urandom(20_000) * 3
    assert len(deflated(data)) < 30_000
    assert Deflated("message", "bytes", deflated(data), 0.0).inflate(60_000).payload == data


async def test_compressed_and_other_messages_in_turn(serve: Serve) -> None:
    """What is compressed and what is not may follow each other, text and bytes."""
    data = compressed(b"a") + text("b") + compressed(b"c", BINARY) + frame(BINARY, b"d") + compressed(b"e")
    async with serve(ECHO) as serving, compressing(serving, data) as wire:
        heard = [(await came(wire)).payload for _ in range(5)]
    assert heard == [b"Echo: a", b"Echo: b", b"c", b"d", b"Echo: e"]


async def test_compressed_message_in_fragments(serve: Serve) -> None:
    """A compressed message may come in fragments, one of them empty, with a ping between."""
    payload = deflated(b"one two three")
    parts = [payload[:1], b"", payload[1:5], payload[5:]]
    async with serve(ECHO) as serving, compressing(serving) as wire:
        await wire.send(frame(TEXT, parts[0], fin=False, reserved=RSV1) + frame(0, parts[1], fin=False))
        await wire.send(frame(PING, b"there?") + frame(0, parts[2], fin=False))
        assert await came(wire) == Came(0x80 | PONG, b"there?")
        await wire.send(frame(0, parts[3]) + text("x"))
        assert (await came(wire)).payload == b"Echo: one two three"
        assert (await came(wire)).payload == b"Echo: x"


async def test_other_message_in_fragments(serve: Serve) -> None:
    """Where compression was agreed on, a message that is not compressed may come in fragments, too."""
    data = frame(TEXT, b"", fin=False) + frame(0, b"one ", fin=False) + frame(0, b"two")
    async with serve(ECHO) as serving, compressing(serving, data) as wire:
        assert (await came(wire)).payload == b"Echo: one two"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(TEXT, b"x", fin=False, reserved=RSV1) + frame(0, b"y", reserved=RSV1), id="bit"),
        pytest.param(frame(0, b"x", reserved=RSV1), id="nothing to continue"),
        pytest.param(frame(0, b"x"), id="nothing to continue, uncompressed"),
        pytest.param(frame(TEXT, b"", fin=False, reserved=RSV1) + text("y"), id="text in fragments"),
        pytest.param(frame(TEXT, b"", fin=False) + text("y"), id="text in empty fragments"),
        pytest.param(frame(TEXT, b"x", reserved=0x20), id="second bit"),
        pytest.param(frame(PING, b"x", fin=False), id="ping in fragments"),
    ],
)
async def test_protocol_error(serve: Serve, data: bytes) -> None:
    """Only the first frame of a message says that it is compressed; all else that is forbidden stays so."""
    async with serve(ECHO) as serving, compressing(serving, data) as wire:
        assert await wire.close_code() == 1002


async def test_compressed_though_not_agreed_on(serve: Serve) -> None:
    """A client that did not offer it may not compress, whatever the channel would do."""
    async with serve(ECHO) as serving, websocket(serving.port, "/ws", compressed(b"x")) as wire:
        assert await wire.close_code() == 1002


FAR = zlib.compressobj(wbits=-15)
FAR.compress(LONG.encode())
FAR.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"\xff\xff\xff\xff", id="garbage"),
        pytest.param(b"\x07", id="no such block"),
        pytest.param(FAR.compress(LONG.encode()) + FAR.flush(zlib.Z_SYNC_FLUSH), id="what was before"),
        pytest.param(bytes.fromhex("f348cdc9c90700") + b"more", id="more after the end"),
        pytest.param(bytes.fromhex("f348cdc9c90700") * 2, id="two ends"),
        pytest.param(bytes.fromhex("006400 9bff") + b"ten bytes.", id="the begin of a block"),
        pytest.param(zlib.compress(LONG.encode() * 9, wbits=-15)[:-9], id="cut in a block"),
        pytest.param(bytes.fromhex("f348cdc9c9070000") + END, id="an end and what is left out"),
    ],
)
async def test_what_cannot_be_inflated(
    serve: Serve, payload: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no compressed message closes with 1007, in its place, at once, and is nothing to the log."""
    monkeypatch.setattr(connection, "CLOSE_GRACE", 60)
    data = text("before") + frame(TEXT, payload, reserved=RSV1) + text("after")
    async with serve(ECHO) as serving, compressing(serving, data) as wire:
        assert await wire.text() == "Echo: before"
        end = await wire.frame()
        assert await wire.rest() == b""
    assert (end.code, end.reason) == (1007, "what is compressed cannot be inflated")
    assert "Traceback" not in caplog.text


async def test_compressed_text_is_utf_8(serve: Serve) -> None:
    """Compressed text that is not UTF-8 closes with 1007."""
    data = compressed(b"\xff")
    async with serve(ECHO) as serving, compressing(serving, data) as wire:
        end = await wire.frame()
    assert (end.code, end.reason) == (1007, "the text is not UTF-8")


async def test_what_comes_after_a_close_is_not_heard(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressed messages, too, do not keep the answer to a close from being heard."""
    monkeypatch.setattr(connection, "CLOSE_GRACE", 60)
    config = "channels: {lobby: {plugin: chat, path: /ws, compress: true}}"
    async with serve(config) as serving, compressing(serving, text("\n")) as wire:
        assert await wire.close_code() == 1008
        await wire.send(compressed(os.urandom(1000), BINARY) * 20 + close(1008))
        assert await wire.rest() == b""


# Limits


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(compressed(b"x" * 1024, BINARY), id="a little that becomes much"),
        pytest.param(frame(BINARY, deflated(os.urandom(1024), 0, memory=1), reserved=RSV1), id="grown"),
        pytest.param(frame(BINARY, b"x" * 1024), id="uncompressed"),
        pytest.param(frame(BINARY, b"x" * 1000, fin=False) + frame(0, b"x" * 24), id="fragments"),
    ],
)
async def test_largest_message_is_accepted(serve: Serve, data: bytes) -> None:
    """``max_message`` itself is allowed, also of what grows when it is compressed."""
    async with serve(SMALL) as serving, compressing(serving) as wire:
        await wire.send(data + frame(BINARY, b"next"))
        first, payload = await came(wire)
        if first & RSV1:
            payload = zlib.decompressobj(-15).decompress(payload + END)
        assert len(payload) == 1024
        assert (await came(wire)).payload == b"next"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(compressed(b"x" * 1025), id="inflated"),
        pytest.param(compressed(os.urandom(1025), BINARY), id="grown"),
        pytest.param(frame(TEXT, b"x" * 1025), id="uncompressed"),
        pytest.param(frame(TEXT, b"x" * 1000, fin=False) + frame(0, b"x" * 25), id="fragments"),
        pytest.param(frame(TEXT, b"x" * 100_000, reserved=RSV1)[:14], id="only announced"),
        pytest.param(
            frame(TEXT, b"\0" * 1000, fin=False, reserved=RSV1) + frame(0, b"\0" * 1000, fin=False),
            id="compressed fragments without an end",
        ),
    ],
)
async def test_larger_message_is_too_big(serve: Serve, data: bytes) -> None:
    """One byte more than ``max_message`` closes with 1009, whatever it takes compressed."""
    async with serve(SMALL) as serving, compressing(serving) as wire:
        await wire.send(data)
        end = await wire.frame()
    assert end.code == 1009
    assert "max_message" in end.reason


async def test_bomb_does_not_go_off(serve: Serve) -> None:
    """Of seventy megabytes in one frame no more is inflated than a message may have."""
    bomb = compressed(bytes(70_000_000))
    async with serve(ECHO) as serving, compressing(serving) as wire, peak() as memory:
        await wire.send(bomb)
        assert await wire.close_code() == 1009
    assert memory[0] < 2_000_000


async def test_what_waits_is_not_inflated(serve: Serve) -> None:
    """Messages that the channel has not come to wait as small as they came, and are heard whole."""
    config = f"channels: {{slow: {{plugin: slow, path: /ws, compress: true, {FLOODED}}}}}"
    size, count = 65_536, 500
    flood = compressed(bytes(size), BINARY) * count
    async with serve(config, SLOW) as serving, compressing(serving) as wire:
        channel: Any = serving.server.channels["slow"]
        async with peak() as memory:
            await wire.send(flood)
            assert await soon(channel.heard.get()) == size
        channel.go.set()
        assert [await soon(channel.heard.get()) for _ in range(count - 1)] == [size] * (count - 1)
    assert memory[0] < 1_000_000


async def test_nothing_is_kept_between_messages(serve: Serve) -> None:
    """A connection keeps no window, whatever was compressed on it in both directions."""
    async with serve(ECHO) as serving, AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(compressing(serving)) for _ in range(20)]
        async with peak() as memory:
            for wire in wires:
                await wire.send(compressed(LONG.encode()))
                assert await inflated(wire) == f"Echo: {LONG}"
    assert memory[1] < 20 * 4096


# Clients that others wrote


async def test_node(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> None:
    """node's ``ws``, which offers it by itself, compresses and is understood, and understands."""
    ws = install_ws(tmp_path_factory)
    long = LONG * 10  # it compresses nothing below a kibibyte
    async with serve(ECHO) as serving, running([*ws, serving.ws("/ws")]) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for command in ({"text": long}, {"text": "short"}, {"hex": "00ff" * 1000}):
            process.stdin.write(json.dumps(command).encode() + b"\n")
        printed = [json.loads(await soon(process.stdout.readline())) for _ in range(4)]
        process.stdin.write(b'{"close": 1000}\n')  # what is answered after that it may not show
        printed.append(json.loads(await soon(process.stdout.readline())))
    assert printed == [
        {"open": True, "extensions": "permessage-deflate"},
        {"text": f"Echo: {long}"},
        {"text": "Echo: short"},
        {"hex": "00ff" * 1000},
        {"close": 1000, "reason": ""},
    ]


async def test_websockets(serve: Serve) -> None:
    """``websockets``, which offers it by itself, and compresses whatever it sends."""
    async with serve(ECHO) as serving, connect(serving.ws("/ws")) as client:
        assert settled(client) == AGREED
        for said in ("", "short", LONG, "é" * 30_000, os.urandom(65_536), [LONG, LONG]):
            await client.send(said)
            whole = "".join(said) if isinstance(said, list) else said
            expected = f"Echo: {whole}" if isinstance(whole, str) else whole
            assert await soon(client.recv()) == expected


async def test_aiohttp(serve: Serve) -> None:
    """aiohttp's own client, which keeps to what was agreed on."""
    async with (
        serve(ECHO) as serving,
        aiohttp.ClientSession() as session,
        session.ws_connect(serving.ws("/ws"), compress=15) as client,
    ):
        assert client.compress == 15
        for said in (LONG, "short", LONG):
            await client.send_str(said)
            assert await soon(client.receive_str()) == f"Echo: {said}"


async def test_objects(serve: Serve) -> None:
    """With ``realtime.v1.json``, too, both sides compress, and acknowledgements stand between."""
    async with (
        serve(ROOMS, ROOM) as serving,
        connect(serving.ws("/room"), subprotocols=[Subprotocol(V1)]) as client,
    ):
        assert (settled(client), client.subprotocol) == (AGREED, V1)
        await client.send(json.dumps({"data": LONG, "ref": 1}))
        heard = [json.loads(await soon(client.recv())) for _ in range(4)]
    assert [message["event"] for message in heard] == [
        "realtime:welcome", "message", "message", "realtime:ack",
    ]  # fmt: skip
    assert (heard[1]["data"], heard[2]["data"]) == (["you said", LONG], LONG)
