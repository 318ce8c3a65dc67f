"""Compression (rows 44 to 50): what is compressed is bounded by what it becomes, and refers to nothing."""

from __future__ import annotations

import os
import zlib
from contextlib import AsyncExitStack

import pytest
from test_deflate import (
    END,
    FAR,
    LONG,
    OFFER,
    RSV1,
    came,
    compressed,
    compressing,
    deflated,
    inflated,
    peak,
)
from wire import BINARY, CLOSE, PING, PONG, TEXT, UPGRADE, Frame, Wire, dial, frame, request, text

from faults.catalogue import fault
from faults.conftest import Calm
from faults.test_frames import holding

ECHO = "echo: {plugin: echo, path: /ws, compress: true}"
#: One that takes a message of a mebibyte, whatever it becomes.
LARGE = "echo: {plugin: echo, path: /ws, compress: true, limits: {max_message: 2MiB}}"
CONTINUATION = 0x0


def gibibyte() -> bytes:
    """A gibibyte of zeros in one message of a mebibyte."""
    deflater = zlib.compressobj(9, wbits=-15)
    # After a full flush the next mebibyte would come out the same.
    mebibyte = deflater.compress(bytes(2**20)) + deflater.flush(zlib.Z_FULL_FLUSH)
    return (mebibyte * 1024).removesuffix(END)


async def end(wire: Wire) -> Frame:
    """The close frame that comes next, the last that comes."""
    last = await wire.frame()
    assert last.opcode == CLOSE, last
    assert await wire.rest() == b""
    return last


@fault(44)
@pytest.mark.parametrize("config", [ECHO, LARGE], ids=["64KiB", "2MiB"])
@pytest.mark.parametrize("size", [0, 4096], ids=["a frame", "fragments"])
async def test_gibibyte_in_a_mebibyte(calm: Calm, config: str, size: int) -> None:
    """Of a gibibyte no more is inflated than a message may have: neither memory nor time is lost."""
    bomb = gibibyte()
    assert 900_000 < len(bomb) < 1_200_000
    if size:
        parts = [bomb[at : at + size] for at in range(0, len(bomb), size)]
        first = frame(BINARY, parts[0], fin=False, reserved=RSV1)
        data = first + b"".join(frame(CONTINUATION, part, fin=False) for part in parts[1:]) + frame(0)
    else:
        data = frame(BINARY, bomb, reserved=RSV1)
    async with calm(config) as serving, compressing(serving) as wire, peak() as memory, holding() as held:
        for at in range(0, len(data), 65536):
            try:
                await wire.send(data[at : at + 65536])
            except ConnectionError:
                break
        last = await end(wire)
    assert (last.code, "limits.max_message" in last.reason) == (1009, True)
    assert max(held) < 0.1
    assert memory[0] < (3_000_000 if config is ECHO else 12_000_000)


@fault(45)
async def test_bomb_in_fragments(calm: Calm) -> None:
    """A bomb in many fragments is counted as what it becomes."""
    payload = deflated(bytes(20_000_000))
    parts = [payload[at : at + 100] for at in range(0, len(payload), 100)]
    data = frame(TEXT, parts[0], fin=False, reserved=RSV1)
    data += b"".join(frame(CONTINUATION, part, fin=False) for part in parts[1:]) + frame(CONTINUATION)
    async with calm(ECHO) as serving, compressing(serving, data) as wire:
        assert (await end(wire)).code == 1009


@fault(45)
async def test_bomb_in_the_second_message(calm: Calm) -> None:
    """A message after a small one is counted by itself, and no less."""
    async with calm(ECHO) as serving, compressing(serving) as wire:
        await wire.send(compressed(b"small") + compressed(bytes(20_000_000)))
        assert await came(wire) == (0x80 | TEXT, b"Echo: small")
        assert (await end(wire)).code == 1009


@fault(45)
async def test_bombs_that_refer_to_the_message_before(calm: Calm) -> None:
    """What a message before it held is not there to be repeated: that is no compressed message."""
    again = FAR.copy()
    payload = again.compress(LONG.encode()) + again.flush(zlib.Z_SYNC_FLUSH)
    async with calm(ECHO) as serving, compressing(serving) as wire:
        await wire.send(compressed(LONG.encode()) + frame(TEXT, payload[:-4], reserved=RSV1))
        assert await inflated(wire) == f"Echo: {LONG}"
        assert (await end(wire)).code == 1007


@fault(46)
@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"\xff" * 4, id="no block"),
        pytest.param(b"\x07", id="a reserved block"),
        pytest.param(os.urandom(1000), id="noise"),
        pytest.param(bytes.fromhex("000500 0000") + b"Hello", id="a length that is not its complement"),
        pytest.param(deflated(LONG.encode())[:-5], id="cut"),
        pytest.param(
            bytes((deflated(os.urandom(300))[0] ^ 0x06,)) + deflated(os.urandom(300))[1:], id="bit"
        ),
        pytest.param(zlib.compress(LONG.encode()), id="zlib's format"),
        pytest.param(zlib.compress(LONG.encode(), wbits=31), id="gzip's format"),
        pytest.param(LONG.encode(), id="nothing compressed at all"),
    ],
)
async def test_what_cannot_be_inflated(calm: Calm, payload: bytes) -> None:
    """What is no compressed message closes with 1007, and is nothing to the log."""
    async with calm(ECHO) as serving, compressing(serving) as wire:
        await wire.send(frame(BINARY, payload, reserved=RSV1))
        last = await end(wire)
    assert (last.code, last.reason) == (1007, "what is compressed cannot be inflated")


@fault(47)
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(
            frame(TEXT, b"", fin=False, reserved=RSV1) + frame(0, b"", reserved=RSV1), id="deflated"
        ),
        pytest.param(frame(TEXT, b"x", fin=False) + frame(0, b"x", reserved=RSV1), id="a continuation"),
        pytest.param(frame(PING, b"x", reserved=RSV1), id="a ping"),
        pytest.param(frame(PONG, b"", reserved=RSV1), id="a pong"),
        pytest.param(frame(CLOSE, b"\x03\xe8", reserved=RSV1), id="a close"),
        pytest.param(frame(TEXT, b"x", fin=False) + frame(PING, b"", reserved=RSV1), id="a ping in text"),
    ],
)
@pytest.mark.parametrize("agreed", [True, False], ids=["agreed", "not agreed"])
async def test_bit_where_it_may_not_be(calm: Calm, data: bytes, agreed: bool) -> None:
    """The bit that says compressed is only for the first frame of a message."""
    headers = [*UPGRADE, *(OFFER if agreed else ())]
    async with calm(ECHO) as serving, dial(serving.port, request("/ws", headers) + data) as wire:
        assert ("sec-websocket-extensions" in (await wire.head()).headers) is agreed
        assert (await end(wire)).code == 1002


@fault(48)
async def test_nothing_is_compressed_by_default(calm: Calm) -> None:
    """Who does not ask for it in the config has no compression, whatever clients offer."""
    headers = [*UPGRADE, *OFFER]
    async with (
        calm("echo: {plugin: echo, path: /ws}") as serving,
        dial(serving.port, request("/ws", headers) + text(LONG)) as wire,
    ):
        assert "sec-websocket-extensions" not in (await wire.head()).headers
        assert await wire.text() == f"Echo: {LONG}"


@fault(48)
@fault(50)
@pytest.mark.parametrize("offer", ["", "; client_max_window_bits", "; server_max_window_bits=15"])
async def test_no_window_is_kept(calm: Calm, offer: str) -> None:
    """Both sides are held to forget each message, whether the client asked for that or not."""
    headers = [*UPGRADE, ("Sec-WebSocket-Extensions", f"permessage-deflate{offer}")]
    async with calm(ECHO) as serving, dial(serving.port, request("/ws", headers)) as wire:
        answer = (await wire.head()).headers["sec-websocket-extensions"].split("; ")
    assert {"server_no_context_takeover", "client_no_context_takeover"} <= set(answer)


@fault(48)
async def test_memory_of_compressed_connections(calm: Calm) -> None:
    """A connection that has compressed takes less than 16 KiB, that of the client's side included."""
    async with calm(ECHO) as serving, AsyncExitStack() as stack, peak() as memory:
        for _ in range(50):
            wire = await stack.enter_async_context(compressing(serving))
            await wire.send(compressed(LONG.encode()))
            assert await inflated(wire) == f"Echo: {LONG}"
    assert memory[1] < 50 * 16 * 1024


@fault(50)
async def test_secret_and_a_guess_in_two_messages(calm: Calm) -> None:
    """How long a compressed message is tells nothing of the one before it."""
    secret = os.urandom(300).hex()
    async with calm(ECHO) as serving, compressing(serving) as wire:
        lengths = []
        for before in (secret, os.urandom(300).hex()):
            await wire.send(text(before))
            await came(wire)
            await wire.send(text(secret))
            first, payload = await came(wire)
            assert first & RSV1
            lengths.append(len(payload))
            assert zlib.decompressobj(-15).decompress(payload + END) == f"Echo: {secret}".encode()
    assert lengths[0] == lengths[1]
