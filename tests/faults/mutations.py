"""Valid exchanges of every kind, what a mutator makes of them, and whether an answer is one.

``REALTIME_FUZZ=100`` tries a hundred times as much, ``REALTIME_FUZZ_SEED=7`` something else. A mutation is
known by the seed and its number: :func:`mutation` makes the same of them again.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import socket
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import NamedTuple

from wire import (
    BINARY,
    CLOSE,
    EVENTS,
    LINES,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    Headers,
    close,
    frame,
    posting,
    request,
    text,
)

from realtime.close_codes import CloseCode, may_be_sent

SEED = os.environ.get("REALTIME_FUZZ_SEED", "1")
#: How long the server may take to end what the client has ended, in seconds.
ENDS = 30.0
#: For so many turns of the loop it says nothing when it has nothing to say.
TURNS = 30

#: Every channel and transport; nothing is told by itself, so that what comes is an answer.
CONFIG = """
ws: {plugin: echo, path: /ws}
z: {plugin: echo, path: /z, compress: true}
chat: {plugin: chat, path: /chat, history: 5}
rooms: {plugin: chat, path: "/rooms/{room}"}
topics: {plugin: topics, path: "/topics/{topic...}", history: 3}
clock: {plugin: clock, path: /events, interval: 1h}
"""

V1: Headers = [*UPGRADE, ("Sec-WebSocket-Protocol", "realtime.v1.json")]
DEFLATE: Headers = [*UPGRADE, ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")]
JSON: Headers = [("Accept", "application/json")]
POSTED: Headers = [("Content-Type", "application/json"), ("Idempotency-Key", '"a key"')]
CHUNKED: Headers = [("Transfer-Encoding", "chunked")]


def squeezed(data: bytes) -> bytes:
    """What a frame of ``permessage-deflate`` has for it."""
    deflater = zlib.compressobj(wbits=-15)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


#: Each in pieces: a request, a frame, a body. Most of what breaks, breaks at the seams.
CORPUS: tuple[tuple[bytes, ...], ...] = (
    (
        request("/ws", UPGRADE),
        text("hello"),
        frame(BINARY, bytes(range(200))),
        frame(PING, b"ping"),
        frame(TEXT, "h\u00e9".encode()[:2], fin=False),
        frame(PONG),
        frame(0, "\u00e9".encode()[1:] + "\U0001f600".encode()),
        close(1000, "bye"),
    ),
    (
        request("/chat?name=alice", V1),
        text('{"data":"hi","ref":1}'),
        text('{"event":"message","data":{"text":"psst","to":"bob"},"ref":"a"}'),
        text('{"data":"aGk=","encoding":"base64","ref":2}'),
        close(3000),
    ),
    (request("/topics/a/b?since=-3", V1), text('{"event":"x","data":[1,2.5,null,"\\u00e9"],"ref":7}')),
    (request("/rooms/caf%C3%A9", UPGRADE), text("bob"), text("hi \U0001f600"), frame(CLOSE)),
    (
        request("/z", DEFLATE),
        frame(TEXT, squeezed(b"hello " * 50), reserved=0x40),
        frame(BINARY, squeezed(bytes(300))[:9], fin=False, reserved=0x40),
        frame(0, squeezed(bytes(300))[9:]),
        text("plain"),
        close(1001),
    ),
    (request("/events", EVENTS),),
    (request("/chat?name=eve", [*EVENTS, ("Last-Event-ID", "3f9a01c2-17")]),),
    (request("/topics/a/b?since=earliest", LINES),),
    (request("/topics/a", [("Accept", 'text/event-stream;profile="realtime.v1.json";q=0.9, */*;q=0.1')]),),
    (request("/events", EVENTS, http="1.0"),),
    (request("/chat?since=-20", JSON),),
    (request("/chat", [("Accept", "text/html"), ("Origin", "http://localhost")]),),
    (posting("/topics/a/b", b"plain text"),),
    (posting("/topics/a/b?event=x", b'{"a":[1,{"b":null}]}', POSTED), posting("/ws", b"again")),
    (posting("/chat?name=carol", b'{"text":"hi"}', POSTED), posting("/chat?name=carol", b"hi", POSTED)),
    (posting("/topics/z", b"\0\xff", [("Content-Type", "application/octet-stream")]),),
    (request("/topics/c", CHUNKED, method="POST"), b"5\r\nhello\r\n", b"6;x=y\r\n world\r\n", b"0\r\n\r\n"),
    (request("/chat?name=alice&reason=so", method="DELETE"), request("/-/ready")),
    (request("/chat", [("Origin", "https://localhost:8080")], method="OPTIONS"),),
    (request("/-/live"), request("/"), request("/-/realtime.js", method="HEAD"), request("/none")),
)

#: What stands at a seam of some protocol, or has broken a parser somewhere.
TOKENS: tuple[bytes, ...] = (
    *(b"\r\n", b"\n", b"\r", b"\0", b"\xff", b" ", b"\t", b":", b",", b";", b'"', b"=", b"?", b"#", b"&"),
    *(b"%00", b"%2f", b"%", b"%ff", b"../", b"//", b"*", b"\\", b"http://x@y:99999/", b"[::1"),
    *(b"-1", b"0", b"+2", b"0x2", b"1e400", b"99999999999999999999", b"NaN", b"earliest", b"-20", b"e-0"),
    *(b"{", b"}", b"[" * 2000, b"\\ud800", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xef\xbb\xbf"),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n"),
    *(b"Upgrade: websocket\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"Host: x\r\n"),
    *(b"Origin: null\r\n", b"Last-Event-ID: \xc3\xa9\r\n", b"Accept: */*;q=0\r\n", b"Via: 1\r\n"),
    *(b"Idempotency-Key: a, b\r\n", b"Sec-WebSocket-Key: AA==\r\n", b"Sec-WebSocket-Version: 8\r\n"),
    *(b"A" * 9000, b"\x81\xfe\xff\xff", b"\x88\x80\0\0\0\0", b"\x89\xff" + b"\xff" * 8, b"\xc0\x80"),
    *(
        b"\x01\x80\0\0\0\0",
        b"\x82\xff\0\0\0\0\0\1\0\1\0\0\0\0",
        b"\x83\x80\0\0\0\0",
        b"\xc1\x80\0\0\0\0",
        b"\x81\x01a",
    ),
)


class Mutation(NamedTuple):
    """What to say, in which segments, and how to end."""

    segments: list[bytes]
    #: ``fin``: say that nothing more is coming; ``wait``: hear what there is before; ``rst``: be gone.
    end: str


def mutation(seed: object, number: int) -> Mutation:
    """The mutation of a number; the same each time."""
    dice = random.Random(f"{seed}/{number}")
    pieces = list(dice.choice(CORPUS))
    for _ in range(min(int(dice.expovariate(0.6)), 6)):
        _mutate(dice, pieces)
    data = b"".join(pieces)
    edges = sorted({0, len(data), *(dice.randint(0, len(data)) for _ in range(dice.choice((0, 0, 1, 5))))})
    segments = [data[start:end] for start, end in pairwise(edges)]
    if dice.random() < 0.15:  # in the middle
        del segments[dice.randint(0, len(segments)) :]
    return Mutation(segments, dice.choice(("fin", "wait", "wait", "wait", "rst")))


def _mutate(dice: random.Random, pieces: list[bytes]) -> None:
    if not pieces:
        return
    at = dice.randrange(len(pieces))
    piece = pieces[at]
    start = dice.randint(0, len(piece))
    end = min(len(piece), start + int(dice.expovariate(0.1)))
    match dice.randrange(10):
        case 0:  # flip
            if start < len(piece):
                flipped = bytes((piece[start] ^ (1 << dice.randrange(8)),))
                pieces[at] = piece[:start] + flipped + piece[start + 1 :]
        case 1:  # cut
            pieces[at] = piece[:start] + piece[end:]
        case 2:  # duplicate
            pieces[at] = piece[:end] + piece[start:end] * dice.choice((1, 2, 50)) + piece[end:]
        case 3 | 4:  # insert
            pieces[at] = piece[:start] + dice.choice(TOKENS) + piece[start:]
        case 5:  # a header, or a byte in a frame's place
            line = piece.find(b"\r\n") + 2
            pieces[at] = piece[:line] + dice.choice(TOKENS) + piece[line:]
        case 6:  # noise
            pieces[at] = piece[:start] + dice.randbytes(dice.randint(1, 40)) + piece[end:]
        case 7:  # splice
            other = dice.choice(dice.choice(CORPUS))
            pieces[at] = piece[:start] + other[dice.randint(0, len(other)) :]
        case 8:  # glue
            pieces[at:at] = dice.choice(CORPUS)[dice.randint(0, 1) :]
        case 9:  # out of order
            pieces.insert(dice.randint(0, len(pieces)), pieces.pop(at))


async def perform(port: int, what: Mutation) -> bytes:
    """Say it, and return what the server said; :exc:`TimeoutError` when it does not come to an end."""
    loop, heard = asyncio.get_running_loop(), bytearray()
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(sock, ("127.0.0.1", port))

        async def say() -> None:
            with suppress(OSError):  # what the server has reset cannot be shut down any more, either
                for segment in what.segments:
                    await loop.sock_sendall(sock, segment)
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                if what.end == "wait":
                    length = -1
                    while length < len(heard):  # until nothing comes for some turns
                        length = len(heard)
                        for _ in range(TURNS):
                            await asyncio.sleep(0)
                if what.end != "rst":
                    sock.shutdown(socket.SHUT_WR)

        async def hear() -> None:
            with suppress(ConnectionError):
                while data := await loop.sock_recv(sock, 65536):
                    heard.extend(data)

        async with asyncio.timeout(ENDS):
            if what.end == "rst":
                await say()
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                await asyncio.gather(say(), hear())
    return bytes(heard)


# Whether it is an answer

#: The version is the request's, whatever it made up: row 6 has what becomes of that.
_STATUS = re.compile(r"HTTP/[0-9]\.[0-9] ([1-5][0-9][0-9]) [ -~]*")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\t -~\x80-\U0010ffff]*)")
_FIELD = re.compile(r"(id|event|data|retry|): [^\r\n]*|")


def judge(said: bytes) -> None:
    """Assert that what a server said are responses, each as it should be; the last may be cut."""
    while said:
        head, whole, said = said.partition(b"\r\n\r\n")
        if not whole:
            return
        first, *lines = head.decode().split("\r\n")
        status = _STATUS.fullmatch(first)
        assert status is not None, first
        assert status[1] != "500", head
        headers = {}
        for line in lines:
            match = _HEADER.fullmatch(line)
            assert match is not None, line
            headers[match[1].lower()] = match[2]
        if status[1] == "101":
            frames(said)
            return
        said = _body(status[1], headers, said)


def _body(status: str, headers: dict[str, str], said: bytes) -> bytes:
    """Judge the body; what comes after it."""
    kind, body, complete = headers.get("content-type", "").partition(";")[0], b"", False
    if status in ("100", "204") or said.startswith(b"HTTP/1."):  # the answer to a HEAD
        return said
    if headers.get("transfer-encoding") == "chunked":
        while said and not complete:
            size, _, said = said.partition(b"\r\n")
            assert re.fullmatch(rb"[0-9a-f]+", size), size
            body += said[: int(size, 16)]
            end, said = said[int(size, 16) :][:2], said[int(size, 16) + 2 :]
            assert end in (b"\r\n", b"\r", b""), end
            complete = size == b"0" and end == b"\r\n"
    elif "content-length" in headers:
        length = int(headers["content-length"])
        body, said, complete = said[:length], said[length:], len(said) >= length
    else:
        body, said = said, b""
    assert b"Traceback" not in body, body
    if kind == "text/event-stream":
        for line in body.decode().split("\n")[:-1]:
            assert _FIELD.fullmatch(line), line
    elif kind == "application/x-ndjson":
        for line in body.decode().split("\n")[:-1]:
            assert "event" in json.loads(line), line
    elif kind == "application/json" and complete and body:
        json.loads(body)
    elif complete:
        body.decode()
    return said


def frames(said: bytes) -> list[tuple[int, bytes]]:
    """Judge the frames of a WebSocket; the last may be cut. Returns them."""
    found: list[tuple[int, bytes]] = []
    while len(said) >= 2:
        assert not found or found[-1][0] != CLOSE, "something after the close frame"
        first, size = said[0], said[1]
        start = 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(said[2:start], "big")
        payload, opcode = said[start : start + size], first & 0x0F
        if len(payload) < size or len(said) < start:
            break
        said = said[start + size :]
        assert first & 0x80, "fragments"
        assert not first & 0x30, "reserved bits"
        assert opcode in (TEXT, BINARY, CLOSE, PING, PONG), opcode
        found.append((opcode, payload))
        if opcode == TEXT and not first & 0x40:
            payload.decode()
        elif opcode == CLOSE:
            code = int.from_bytes(payload[:2], "big")
            assert may_be_sent(code) or code in set(CloseCode), code
            assert code != CloseCode.BUG, payload
            payload[2:].decode()
            assert size <= 125
    return found


async def batch(port: int, seed: object, numbers: Sequence[int], *, at_once: int = 24) -> None:
    """Perform these mutations, many at once, and judge what comes of each."""
    left = list(reversed(numbers))

    async def work() -> None:
        while left:
            number = left.pop()
            what = mutation(seed, number)
            try:
                judge(await perform(port, what))
            except (AssertionError, ValueError, TimeoutError) as error:
                shown = f"{what.end} after {what.segments!r}"[:3000]
                raise AssertionError(f"mutation({seed!r}, {number}): {error!r}: {shown}") from error

    await asyncio.gather(*(work() for _ in range(at_once)))
