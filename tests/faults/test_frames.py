"""Frames (rows 25 to 42): whatever a client sends after the 101, it is heard or closed with a code."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
from conftest import FLOODED, Serve
from test_deflate import SLOW, compressed, peak
from wire import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    Frame,
    Headers,
    Wire,
    ask,
    close,
    dial,
    eventually,
    flood,
    frame,
    posting,
    request,
    soon,
    text,
    websocket,
    without,
)

from faults.catalogue import fault
from faults.conftest import Calm
from realtime.close_codes import CloseCode, may_be_sent
from realtime.transports import connection, framing

ECHO = "echo: {plugin: echo, path: /ws}"
FLOODED_ECHO = f"echo: {{plugin: echo, path: /ws, {FLOODED}}}"
LIMITED = "echo: {plugin: echo, path: /ws, compress: true, limits: {max_message: 1KiB}}"
LIMIT = 1024
OFFER = [("Sec-WebSocket-Extensions", "permessage-deflate")]
CONTINUATION, FIN, MASKED = 0x0, 0x80, 0x80
MASK = b"\x0f\x1e\x2d\x3c"

#: A message of 64 KiB.
NOISE = frame(BINARY, os.urandom(65536))

#: A channel that ends a connection in the way that it is told.
ENDER = {
    "ender.py": '''
        from realtime import Channel, hookimpl

        class Ender(Channel):
            """Closes, or fails, as it is told."""

            async def on_message(self, client, message):
                if message.data == "fail":
                    raise RuntimeError("secret" * 100)
                await client.close(4000, message.data)
                await client.send("more")

        @hookimpl
        def register_channels():
            return {"ender": Ender}
    '''
}
ENDING = "ender: {plugin: ender, path: /ws}"


def unmasked(opcode: int, payload: bytes) -> bytes:
    """A frame as only a server may send it."""
    return bytes((FIN | opcode, len(payload))) + payload


def announced(length: int, first: int = FIN | BINARY, size: int = 8) -> bytes:
    """The header of a frame, its length in so many bytes, whether it takes them or not."""
    return bytes((first, MASKED | (126 if size == 2 else 127))) + length.to_bytes(size, "big") + MASK


async def end(wire: Wire) -> Frame:
    """The close frame that comes next, which is the last that comes."""
    last = await last_of(wire)
    with suppress(ConnectionError):
        await wire.send(close(1000))
    assert await wire.rest() == b""
    return last


async def last_of(wire: Wire) -> Frame:
    """The close frame, behind pings and pongs."""
    while (came := await wire.frame()).opcode in (PING, PONG):
        pass
    assert came.opcode == CLOSE, came
    return came


async def answers(port: int, data: bytes) -> Frame:
    """The close frame that an echo answers with, to somebody who sends this after the handshake."""
    async with websocket(port, "/ws") as wire:
        with suppress(ConnectionError):  # what is closed need not take the rest: the answer is there
            await wire.send(data)
        return await end(wire)


#: What RFC 6455 forbids, by the row of the table.
FORBIDDEN: list[tuple[int, str, bytes]] = [
    (25, "text", unmasked(TEXT, b"hi")),
    (25, "binary of 200 bytes", b"\x82\x7e\x00\xc8" + bytes(200)),
    (25, "nothing", unmasked(TEXT, b"")),
    (25, "a ping", unmasked(PING, b"hi")),
    (25, "a close", unmasked(CLOSE, b"\x03\xe8")),
    (25, "a length that reads like a mask's", b"\x81\x7d\x00"),
    (25, "behind a ping", frame(PING, b"a") + unmasked(TEXT, b"hi")),
    (25, "inside a message", frame(TEXT, b"a", fin=False) + b"\x80\x02hi"),
    (25, "the header alone", b"\x81\x7e"),
    *((26, f"bit {bit:#x}", frame(TEXT, b"x", reserved=bit)) for bit in (0x40, 0x20, 0x10, 0x70)),
    *((26, f"bit {bit:#x} of a ping", frame(PING, b"x", reserved=bit)) for bit in (0x40, 0x20, 0x10)),
    *((26, f"opcode {opcode:#x}", frame(opcode, b"x")) for opcode in (3, 4, 5, 6, 7)),
    *((26, f"opcode {opcode:#x}", frame(opcode, b"x")) for opcode in (0xB, 0xC, 0xD, 0xE, 0xF)),
    *((27, f"126 bytes of {opcode:#x}", frame(opcode, bytes(126))) for opcode in (CLOSE, PING, PONG)),
    *((27, f"fragment of {opcode:#x}", frame(opcode, b"", fin=False)) for opcode in (CLOSE, PING, PONG)),
    (27, "64 KiB of a ping", announced(65536, FIN | PING)),
    (28, "a continuation first", frame(CONTINUATION, b"x")),
    (28, "one that is empty", frame(CONTINUATION, b"", fin=False)),
    (28, "one after a message", frame(PING, b"") + frame(CONTINUATION, b"x", fin=False)),
    (28, "text in text", frame(TEXT, b"x", fin=False) + text("y")),
    (28, "text in empty text", frame(TEXT, b"", fin=False) + text("y")),
    (28, "binary in empty text", frame(TEXT, b"", fin=False) + frame(BINARY, b"y")),
    (28, "text in text of two", frame(TEXT, b"", fin=False) + frame(0, b"", fin=False) + frame(TEXT, b"")),
    (28, "text after a ping in text", frame(TEXT, b"", fin=False) + frame(PING) + text("y")),
    (37, "a close of one byte", frame(CLOSE, b"\x03")),
    (42, "a request", request("/", [("Accept", "*/*")])),
    (42, "an empty line", b"\r\n\r\n"),
    (42, "a handshake", request("/ws", without(UPGRADE, "Host"))),
    (42, "TLS", bytes.fromhex("16030100c8010000c40303")),
    (42, "JSON", b'{"event":"message","data":"hi"}'),
    (42, "zeros", bytes(1000)),
    (42, "ones", b"\xff" * 1000),
    (42, "text", "écoute".encode() * 100),
]


@pytest.mark.parametrize(
    "data",
    [pytest.param(data, id=f"{row} {what}", marks=fault(row)) for row, what, data in FORBIDDEN],
)
async def test_forbidden(calm: Calm, data: bytes) -> None:
    """What RFC 6455 forbids is closed with 1002 and a sentence."""
    async with calm(ECHO) as serving, websocket(serving.port, "/ws") as wire:
        await wire.send(data)
        last = await end(wire)
    assert last.code == 1002
    assert last.reason


@fault(25)
@fault(26)
@fault(28)
async def test_what_came_before_is_answered(calm: Calm) -> None:
    """A frame that is forbidden ends the connection in its place: not what was said before it."""
    tried = [unmasked(TEXT, b"x"), frame(3), frame(CONTINUATION, b"x")]
    async with calm(ECHO) as serving:
        for wrong in tried:
            async with websocket(serving.port, "/ws") as wire:
                await wire.send(text("before") + wrong + text("after"))
                assert await wire.text() == "Echo: before"
                assert (await end(wire)).code == 1002


@fault(42)
async def test_bytes_of_every_value(calm: Calm) -> None:
    """Whatever byte garbage begins with, it is closed with 1002."""
    async with calm(ECHO) as serving:
        codes = {(await answers(serving.port, bytes((n,)) + b"\x0d\x0a\x0d")).code for n in range(256)}
    assert codes == {1002}


# Fragments


@fault(29)
@pytest.mark.parametrize("together", [True, False], ids=["together", "one by one"])
async def test_ping_between_fragments(calm: Calm, together: bool) -> None:
    """A ping between fragments is answered before the message, however they arrive, and that is whole."""
    parts = [
        frame(TEXT, b"one ", fin=False),
        frame(PING, b"1"),
        frame(CONTINUATION, b"two ", fin=False),
        frame(PING, b"2"),
        frame(CONTINUATION, b"three"),
    ]
    async with calm(ECHO) as serving, websocket(serving.port, "/ws") as wire:
        for part in [b"".join(parts)] if together else parts:
            await wire.send(part)
        frames = [await wire.frame()]
        while frames[-1].opcode != TEXT:
            frames.append(await wire.frame())
    assert frames[-1].payload == b"Echo: one two three"
    assert frames[-2] == Frame(PONG, b"2")
    assert frames[:-1] in ([Frame(PONG, b"2")], [Frame(PONG, b"1"), Frame(PONG, b"2")])


@fault(29)
async def test_close_between_fragments(calm: Calm) -> None:
    """A close between fragments is answered, and the message was never said."""
    async with calm(ECHO) as serving:
        last = await answers(serving.port, frame(TEXT, b"x", fin=False) + close(1001, "leaving"))
    assert (last.code, last.reason) == (1001, "leaving")


@fault(32)
@pytest.mark.parametrize(
    ("part", "count", "size"),
    [
        pytest.param(b"x", 1_000_000, "64KiB", id="bytes"),
        pytest.param(b"", 2_000_000, "64KiB", id="empty"),
        pytest.param(b"x", 1_000_000, "1MiB", id="large"),
    ],
)
async def test_fragments_without_end(
    calm: Calm, part: bytes, count: int, size: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A message in countless fragments is closed with 1008; it holds neither the loop nor memory."""
    caplog.set_level(logging.INFO)
    config = f"echo: {{plugin: echo, path: /ws, limits: {{max_message: {size}}}}}"
    async with calm(config) as serving, peak() as memory, holding() as held:
        async with websocket(serving.port, "/ws", frame(TEXT, part, fin=False)) as wire:
            batch = frame(CONTINUATION, part, fin=False) * 5000
            with suppress(ConnectionError):
                for _ in range(count // 5000):
                    await wire.send(batch)
            await wire.rest()
        await eventually(lambda: "left after" in caplog.text)
    assert "1008 a message of limits.max_message comes in at most" in caplog.text
    assert max(held) < 0.1
    assert memory[0] < 4_000_000


@asynccontextmanager
async def holding() -> AsyncIterator[list[float]]:
    """How long each turn of the loop takes of the processor, in seconds."""
    turns: list[float] = []

    async def watch() -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            turns.append(time.thread_time() - before)

    task = asyncio.create_task(watch())
    try:
        yield turns
    finally:
        task.cancel()


@fault(32)
async def test_message_in_many_fragments(calm: Calm) -> None:
    """A message of the largest size may come in fragments of sixteen bytes."""
    async with calm(ECHO) as serving, websocket(serving.port, "/ws") as wire:
        part = b"x" * 16
        await wire.send(frame(BINARY, part, fin=False) + frame(CONTINUATION, part, fin=False) * 4094)
        await wire.send(frame(CONTINUATION, part))
        assert await wire.frame() == Frame(BINARY, part * 4096)


# Lengths


@fault(30)
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(announced(2**63), id="2^63"),
        pytest.param(announced(2**64 - 1), id="2^64-1"),
        pytest.param(announced(2**62), id="2^62"),
        pytest.param(announced(2**31), id="2^31"),
        pytest.param(announced(LIMIT + 1), id="limit and 1"),
        pytest.param(announced(LIMIT + 1, size=2), id="limit and 1 in two bytes"),
        pytest.param(frame(BINARY, b"xx", fin=False) + announced(LIMIT - 1, FIN, size=2), id="fragments"),
    ],
)
@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])
async def test_length_is_refused_before_its_payload(calm: Calm, data: bytes, deflate: bool) -> None:
    """A message over the limit is closed with 1009 when its header is there, before any of its payload."""
    async with (
        calm(LIMITED) as serving,
        websocket(serving.port, "/ws", data, headers=OFFER if deflate else ()) as wire,
    ):
        last = await end(wire)
    assert (last.code, "limits.max_message" in last.reason) == (1009, True)


@fault(30)
@pytest.mark.parametrize("length", [0, 1, 124, 125, 126, 127, 1000])
async def test_length_in_more_bytes_than_it_takes(calm: Calm, length: int) -> None:
    """A length that is written in more bytes than it takes is read as what it is."""
    payload = bytes(length)
    masked = (MASK * (length // 4 + 1))[:length]
    async with calm(ECHO) as serving, websocket(serving.port, "/ws") as wire:
        for size in (2, 8):
            await wire.send(announced(length, size=size) + masked)
            assert await wire.frame() == Frame(BINARY, payload)


def in_one(data: bytes) -> bytes:
    """A message in one frame."""
    return frame(BINARY, data)


def in_fragments(data: bytes) -> bytes:
    """A message in three."""
    parts = frame(BINARY, data[:1], fin=False), frame(CONTINUATION, data[1:500], fin=False)
    return b"".join(parts) + frame(CONTINUATION, data[500:])


def in_deflate(data: bytes) -> bytes:
    """A compressed message."""
    return compressed(data, BINARY)


def in_deflate_that_grew(data: bytes) -> bytes:
    """A compressed message in fragments, which is longer than it was."""
    stored = zlib.compressobj(0, wbits=-15)
    payload = (stored.compress(data) + stored.flush(zlib.Z_SYNC_FLUSH))[:-4]
    return frame(BINARY, payload[:9], fin=False, reserved=0x40) + frame(CONTINUATION, payload[9:])


@fault(31)
@pytest.mark.parametrize(
    ("way", "headers"),
    [
        pytest.param(in_one, (), id="one frame"),
        pytest.param(in_fragments, (), id="fragments"),
        pytest.param(in_one, OFFER, id="one frame where others deflate"),
        pytest.param(in_fragments, OFFER, id="fragments where others deflate"),
        pytest.param(in_deflate, OFFER, id="deflate"),
        pytest.param(in_deflate_that_grew, OFFER, id="deflate that grew, in fragments"),
    ],
)
async def test_limit_is_exact(calm: Calm, way: Callable[[bytes], bytes], headers: Headers) -> None:
    """A message of the limit is heard, one of a byte more is closed with 1009, however it comes."""
    async with calm(LIMITED) as serving, websocket(serving.port, "/ws", headers=headers) as wire:
        noise = os.urandom(LIMIT + 1)
        await wire.send(way(noise[:-1]))
        assert await wire.frame() == Frame(BINARY, noise[:-1])
        await wire.send(way(noise))
        assert (await end(wire)).code == 1009


# What does not come whole


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message must come within a quarter of a second, and silence is looked into sooner."""
    monkeypatch.setattr(framing, "MESSAGE_WITHIN", 0.25)
    monkeypatch.setattr(framing, "MESSAGE_RATE", 1e9)
    monkeypatch.setattr("realtime.transports.websocket.PING_AFTER", 0.05)


@fault(33)
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("begin", "more"),
    [
        pytest.param(announced(65536), b"x", id="a frame"),
        pytest.param(announced(65536, BINARY) + b"x", b"x", id="a fragment"),
        pytest.param(frame(BINARY, b"x", fin=False), frame(PING), id="fragments, with pings"),
        pytest.param(frame(BINARY, b"", fin=False), b"", id="no more than an empty fragment"),
        pytest.param(b"\x82", b"", id="a byte of a header"),
        pytest.param(announced(65536)[:9], b"", id="half a length"),
        pytest.param(announced(100)[:12], b"", id="half a mask"),
    ],
)
async def test_message_that_does_not_come_whole(calm: Calm, begin: bytes, more: bytes) -> None:
    """A message that takes too long is closed with 1008, whatever comes of it and beside it."""
    async with calm(ECHO) as serving, websocket(serving.port, "/ws", begin) as wire:
        ended = asyncio.create_task(last_of(wire))
        with suppress(ConnectionError):
            while not ended.done():
                await wire.send(more)
                await asyncio.sleep(0)
        last = await ended
    assert (last.code, "did not come whole" in last.reason) == (1008, True)


@fault(33)
@pytest.mark.usefixtures("impatient")
async def test_messages_that_come_whole_go_on(calm: Calm) -> None:
    """Who always has a message under way, a new one each time, is not late with any."""
    async with calm(FLOODED_ECHO) as serving, websocket(serving.port, "/ws") as wire:
        whole, until = text("on and on"), time.monotonic() + 0.6
        await wire.send(whole[:5])
        while time.monotonic() < until:
            await wire.send(whole[5:] + whole[:5])
            while (came := await wire.frame()).opcode == PING:
                await wire.send(b"")
            assert came.payload == b"Echo: on and on"


@fault(33)
@pytest.mark.usefixtures("impatient")
async def test_message_that_is_not_read(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the server does not read, because its channel is slow, nobody is late."""
    monkeypatch.setattr("realtime.transports.websocket.PONG_WITHIN", 0.05)
    monkeypatch.setattr(
        framing, "MESSAGE_WITHIN", 1.0
    )  # what comes later has its time on a busy machine, too
    async with (
        serve("channels: {slow: {plugin: slow, path: /ws}}", SLOW) as serving,
        websocket(serving.port, "/ws", text("x") * 12 + NOISE[:99]) as wire,
    ):
        channel: Any = serving.server.channels["slow"]
        await soon(channel.heard.get())
        await passed(1.2)
        channel.go.set()
        assert [await soon(channel.heard.get()) for _ in range(11)] == [1] * 11
        for _ in range(3):
            await passed(0.05)
            await wire.send(frame(PONG))
        await wire.send(NOISE[99:])
        assert await soon(channel.heard.get()) == 65536


async def passed(seconds: float) -> None:
    """Some time."""
    until = time.monotonic() + seconds
    await eventually(lambda: time.monotonic() > until)


@fault(33)
def test_time_for_a_message() -> None:
    """The time is half a minute, and longer for what is large and comes at some speed."""
    assert framing.MESSAGE_WITHIN <= 30
    slow = framing.Framing(2**20, 2**20)
    slow.walk(announced(2**20) + bytes(2**19), 100.0)
    assert slow.due() == 100.0 + framing.MESSAGE_WITHIN + 2**19 / framing.MESSAGE_RATE


PARTS = frame(BINARY, os.urandom(32768), fin=False) + frame(CONTINUATION, os.urandom(32767), fin=False)
BUDGET = """
    server: {listen: ["127.0.0.1:0"], limits: {unfinished: 512KiB}}
    channels:
      echo: {plugin: echo, path: /ws, compress: true}
"""


@fault(34)
@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])
@pytest.mark.parametrize(
    ("data", "last"),
    [
        pytest.param(NOISE[:-1], NOISE[-1:], id="a frame"),
        pytest.param(PARTS, frame(CONTINUATION), id="fragments"),
    ],
)
async def test_unfinished_messages_of_many(calm: Calm, data: bytes, last: bytes, deflate: bool) -> None:
    """What all clients hold unfinished has a bound; who asks for more is told which, and to come back."""
    headers = OFFER if deflate else ()
    async with calm(BUDGET) as serving, peak() as memory:
        async with AsyncExitStack() as stack:
            wires = [
                await stack.enter_async_context(websocket(serving.port, "/ws", headers=headers))
                for _ in range(30)
            ]
            for wire in wires:
                await wire.send(data)
            ends = [asyncio.create_task(wire.frame()) for wire in wires]
            await eventually(lambda: sum(task.done() for task in ends) >= 22)
            lasts = [task.result() for task in ends if task.done()]
            for task in ends:
                task.cancel()
        async with websocket(serving.port, "/ws", data, headers=headers) as wire:
            await wire.send(last)
            assert (await wire.frame()).opcode == BINARY
    assert len(lasts) == 22  # 30 clients of 64 KiB less a byte, and room for eight
    assert {refused.code for refused in lasts} == {1013}
    assert all("server.limits.unfinished" in refused.reason for refused in lasts)
    assert memory[0] < 8_000_000


@fault(34)
async def test_unfinished_posts_of_many(calm: Calm) -> None:
    """The bodies of POSTs that have not come whole count as well, and what is refused is not kept."""
    whole = posting("/ws", bytes(65_000))
    async with calm(BUDGET) as serving:
        async with AsyncExitStack() as stack:
            wires = [await stack.enter_async_context(dial(serving.port, whole[:-1])) for _ in range(30)]
            answers = [asyncio.create_task(wire.response()) for wire in wires]
            await eventually(lambda: sum(task.done() for task in answers) >= 22)
            told = [task.result() for task in answers if task.done()]
            for task in answers:
                task.cancel()
        assert (await ask(serving.port, "/-/live"))[0].status == 200
        await eventually(lambda: serving.server.connections.unfinished == 0)
    assert len(told) >= 22  # 30 of 65,000 bytes less one, and room for eight
    assert {head.status for head, _ in told} == {503}
    assert all("server.limits.unfinished" in text and "retry-after" in head.headers for head, text in told)


@fault(34)
async def test_what_is_held_is_given_back(calm: Calm) -> None:
    """However an unfinished message ends, its room is free again."""
    part = frame(BINARY, bytes(65_000), fin=False)
    endings = [
        frame(CONTINUATION),
        close(1000),
        unmasked(TEXT, b"x"),
        announced(2**40, FIN),
        frame(CONTINUATION, b"x", fin=False) * 6000,
        b"",
    ]
    async with calm(BUDGET) as serving:
        for ending in endings * 10:
            async with websocket(serving.port, "/ws", part) as wire:
                await wire.send(frame(PING, b"there?"))
                assert await wire.frame() == Frame(PONG, b"there?")
                await wire.send(ending)
                if ending:
                    await wire.frame()


# Text


@fault(35)
@pytest.mark.parametrize(
    ("data", "codes"),
    [
        *(
            pytest.param(data, {1007}, id=what)
            for what, data in [
                ("no byte of UTF-8", frame(TEXT, b"\xff")),
                ("cut", frame(TEXT, b"\xe2\x82")),
                ("a continuation alone", frame(TEXT, b"\x80")),
                ("a surrogate", frame(TEXT, b"\xed\xa0\x80")),
                ("a pair of them", frame(TEXT, b"\xed\xa0\xbd\xed\xb8\x80")),
                ("overlong", frame(TEXT, b"\xc0\xaf")),
                ("overlong NUL", frame(TEXT, b"\xe0\x80\x80")),
                ("over U+10FFFF", frame(TEXT, b"\xf4\x90\x80\x80")),
                ("five bytes", frame(TEXT, b"\xf8\x88\x80\x80\x80")),
                ("in the last fragment", frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"\xff")),
                ("long", frame(TEXT, b"a" * 10_000 + b"\xc3")),
                ("a reason", frame(CLOSE, b"\x03\xe8\xff")),
                ("a reason that is cut", frame(CLOSE, b"\x03\xe8\xe2\x82")),
            ]
        )
    ],
)
async def test_text_that_is_not_utf_8(calm: Calm, data: bytes, codes: set[int]) -> None:
    """Text that is not UTF-8, in a message or as the reason of a close, is closed with 1007."""
    async with calm(ECHO) as serving:
        assert (await answers(serving.port, data)).code in codes


@fault(36)
async def test_character_in_pieces(calm: Calm) -> None:
    """A character may be split anywhere, between fragments and between packets."""
    said = "κόσμε €𐍈"
    data = said.encode()
    async with calm(ECHO) as serving, websocket(serving.port, "/ws") as wire:
        for cut in range(1, len(data)):
            await wire.send(frame(TEXT, data[:cut], fin=False) + frame(CONTINUATION, data[cut:]))
            assert await wire.text() == f"Echo: {said}"
        for byte in frame(TEXT, data[:3], fin=False) + frame(CONTINUATION, data[3:]):
            await wire.send(bytes((byte,)))
        assert await wire.text() == f"Echo: {said}"


# The end


@fault(37)
async def test_codes_of_a_close(calm: Calm) -> None:
    """A close is answered with its own code if that may be sent, and with 1002 if not."""
    echoed = [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999]
    wrong = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 32768, 65535]
    async with calm(ECHO) as serving:
        answered = {code: (await answers(serving.port, close(code))).code for code in [*echoed, *wrong]}
        empty = await answers(serving.port, frame(CLOSE))
    assert answered == {code: code for code in echoed} | dict.fromkeys(wrong, 1002)
    assert empty.code == 1000


@fault(37)
async def test_reason_of_a_close(calm: Calm) -> None:
    """A close of 125 bytes is answered with its reason."""
    async with calm(ECHO) as serving:
        last = await answers(serving.port, close(4321, "é" * 61 + "e"))
    assert (last.code, last.reason) == (4321, "é" * 61 + "e")


@fault(38)
def test_codes_of_ours() -> None:
    """The codes of the server are among those that may be sent, and its own begin at 4400."""
    assert all(may_be_sent(code) for code in CloseCode)
    assert {int(code) for code in CloseCode if code >= 3000} == {4401, 4403, 4409, 4509, 4529}


@fault(38)
async def test_bug_of_a_channel(calm: Calm) -> None:
    """A bug of a channel closes with 1011, and tells the client nothing of it."""
    async with calm(ENDING, ENDER, noisy=["realtime.channel.ender"]) as serving:
        last = await answers(serving.port, text("fail"))
    assert last.code == 1011
    assert "secret" not in last.reason


@fault(38)
@pytest.mark.parametrize("reason", ["é" * 200, "€" * 50, "x" * 1000, "a\r\nb", "𐍈" * 31], ids=ascii)
async def test_reason_of_ours(calm: Calm, reason: str) -> None:
    """A reason is what fits of it into a close frame, in whole characters."""
    async with calm(ENDING, ENDER) as serving:
        last = await answers(serving.port, text(reason))
    assert last.code == 4000
    assert reason.startswith(last.reason)
    assert min(len(reason.encode()), 120) <= len(last.reason.encode()) <= 123


@fault(39)
@pytest.mark.parametrize(
    "more",
    [
        pytest.param(text("x"), id="a message"),
        pytest.param(close(4001), id="a second close"),
        pytest.param(frame(PING, b"x"), id="a ping"),
        pytest.param(frame(3) + b"garbage", id="garbage"),
        pytest.param(text("x") * 50_000, id="much"),
    ],
)
async def test_what_comes_after_a_close(calm: Calm, more: bytes) -> None:
    """What follows a close is not heard, whatever it is."""
    async with calm(ECHO) as serving:
        assert (await answers(serving.port, close(4000) + more)).code == 4000


@fault(39)
@pytest.mark.parametrize(
    "more",
    [
        pytest.param(text("x"), id="a message"),
        pytest.param(frame(PING, b"x"), id="a ping"),
        pytest.param(frame(3), id="garbage"),
        pytest.param(close(1000), id="its own close"),
    ],
)
async def test_what_comes_after_our_close(calm: Calm, more: bytes) -> None:
    """What comes after our close is not answered; with the client's own the connection ends."""
    async with calm(ENDING, ENDER) as serving, websocket(serving.port, "/ws", text("bye")) as wire:
        assert await wire.close_code() == 4000
        await wire.send(more + close(4000))
        assert await wire.rest() == b""


@fault(39)
async def test_close_that_is_not_answered(calm: Calm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our close that nobody answers ends after a grace, and what comes then is reset."""
    assert connection.CLOSE_GRACE <= 10
    monkeypatch.setattr(connection, "CLOSE_GRACE", 0.05)
    async with calm(ENDING, ENDER) as serving, websocket(serving.port, "/ws", text("bye")) as wire:
        assert await wire.close_code() == 4000
        assert await wire.rest() == b""
        with pytest.raises(ConnectionError):
            await flood(wire, text("still here"))


@fault(41)
async def test_binary_where_text_is_taken(calm: Calm) -> None:
    """Bytes to a chat close with 1003."""
    async with (
        calm("lobby: {plugin: chat, path: /chat}") as serving,
        websocket(serving.port, "/chat", text("alice")) as wire,
    ):
        await wire.text()
        await wire.send(frame(BINARY, b"\0"))
        assert (await end(wire)).code == 1003
