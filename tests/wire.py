"""A client of bytes: it says what no library would say, and shows what no library would show."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import needs
import pytest

T = TypeVar("T")

#: How long anything that is to happen may take, in seconds.
PATIENCE = 8.0

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # the key and its answer are those of RFC 6455, section 1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

Headers = Sequence[tuple[str, str]]
UPGRADE: Headers = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", KEY),
)
EVENTS: Headers = (("Accept", "text/event-stream"),)
LINES: Headers = (("Accept", "application/x-ndjson"),)


async def soon(awaitable: Awaitable[T]) -> T:
    """What is awaited, which must come within :data:`PATIENCE`."""
    async with asyncio.timeout(PATIENCE):
        return await awaitable


async def eventually(condition: Callable[[], bool]) -> None:
    """Return in the turn of the loop in which it is true; it must be within :data:`PATIENCE`."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  # for what has no event of its own
            await asyncio.sleep(0)


def request(
    path: str, headers: Headers = (), *, method: str = "GET", http: str = "1.1", host: str = "localhost"
) -> bytes:
    """The bytes of a request without a body."""
    lines = [f"{method} {path} HTTP/{http}", f"Host: {host}", *(f"{name}: {v}" for name, v in headers)]
    return "\r\n".join([*lines, "", ""]).encode()


def without(headers: Headers, name: str) -> Headers:
    """The headers but one."""
    return [header for header in headers if header[0] != name]


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0) -> bytes:
    """One frame as a client sends it, masked."""
    size = len(payload)
    first = (0x80 if fin else 0) | reserved | opcode
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65536:
        head = bytes((first, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0x80 | 127)) + size.to_bytes(8, "big")
    mask = b"\x0f\x1e\x2d\x3c"
    repeated = (mask * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
    return head + mask + masked


def text(data: str) -> bytes:
    """A frame of text."""
    return frame(TEXT, data.encode())


def close(code: int, reason: str = "") -> bytes:
    """A close frame."""
    return frame(CLOSE, code.to_bytes(2, "big") + reason.encode())


class Frame(NamedTuple):
    """A frame of the server."""

    opcode: int
    payload: bytes

    @property
    def code(self) -> int:
        """The code of a close frame."""
        assert self.opcode == CLOSE, self
        return int.from_bytes(self.payload[:2], "big")

    @property
    def reason(self) -> str:
        """The reason of a close frame."""
        assert self.opcode == CLOSE, self
        return self.payload[2:].decode()


class Head(NamedTuple):
    """The head of a response; the names of headers are in lower case."""

    status: int
    headers: dict[str, str]


class Wire:
    """A connected socket. Nothing is read from it before it is asked for."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._buffer = b""

    async def send(self, data: bytes) -> None:
        """Send it all."""
        await soon(asyncio.get_running_loop().sock_sendall(self.socket, data))

    async def _more(self) -> None:
        try:
            data = await soon(asyncio.get_running_loop().sock_recv(self.socket, 65536))
        except ConnectionError:  # a connection that was cut may be reset
            data = b""
        if not data:
            raise EOFError(self._buffer)
        self._buffer += data

    async def exactly(self, size: int) -> bytes:
        """So many bytes; :exc:`EOFError` when there are not."""
        while len(self._buffer) < size:
            await self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    async def until(self, end: bytes) -> bytes:
        """The bytes before ``end``, which is swallowed."""
        while end not in self._buffer:
            await self._more()
        data, _, self._buffer = self._buffer.partition(end)
        return data

    async def rest(self) -> bytes:
        """All bytes until the server closes the connection."""
        try:
            while True:
                await self._more()
        except EOFError:
            data, self._buffer = self._buffer, b""
            return data

    async def head(self) -> Head:
        """The head of a response."""
        first, *lines = (await self.until(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return Head(int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs})

    async def response(self) -> tuple[Head, str]:
        """A whole response that says how long it is."""
        head = await self.head()
        return head, (await self.exactly(int(head.headers["content-length"]))).decode()

    async def frame(self) -> Frame:
        """The next frame, which must be whole and unmasked."""
        first, second = await self.exactly(2)
        assert first & 0xF0 == 0x80, f"fin and reserved bits: {first:08b}"
        size = second
        if size >= 126:
            size = int.from_bytes(await self.exactly(2 if size == 126 else 8), "big")
        return Frame(first & 0x0F, await self.exactly(size))

    async def text(self) -> str:
        """The next frame, which must be text."""
        frame = await self.frame()
        assert frame.opcode == TEXT, frame
        return frame.payload.decode()

    async def close_code(self) -> int:
        """The code of the next frame, which must be a close frame."""
        return (await self.frame()).code

    async def chunk(self) -> str:
        """The next chunk of a chunked body; an empty one is the last."""
        size = int(await self.until(b"\r\n"), 16)
        data = await self.exactly(size)
        assert await self.exactly(2) == b"\r\n"
        return data.decode()

    async def event(self) -> dict[str, str]:
        """The next event of a chunked stream, by field; comments are under ``""``."""
        fields: dict[str, str] = {}
        while "\n\n" not in self._events:
            chunk = await self.chunk()
            if not chunk:
                raise EOFError
            self._events += chunk
        block, _, self._events = self._events.partition("\n\n")
        for line in block.split("\n"):
            name, _, value = line.partition(": ")
            fields[name.rstrip(":")] = f"{fields[name]}\n{value}" if name in fields else value
        return fields

    async def line(self) -> dict[str, Any]:
        """The object in the next line of a chunked stream of lines."""
        while "\n" not in self._events:
            chunk = await self.chunk()
            if not chunk:
                raise EOFError
            self._events += chunk
        line, _, self._events = self._events.partition("\n")
        whole = json.loads(line)
        assert isinstance(whole, dict)
        return whole

    _events = ""

    def finish(self) -> None:
        """Send FIN: nothing more is coming."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Be gone with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


@asynccontextmanager
async def dial(
    port: int, data: bytes = b"", *, host: str = "127.0.0.1", path: str = "", receive_buffer: int = 0
) -> AsyncIterator[Wire]:
    """A connection to a port, or to the unix socket at ``path``, with the first bytes sent."""
    family = socket.AF_UNIX if path else socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await soon(asyncio.get_running_loop().sock_connect(sock, path or (host, port)))
        wire = Wire(sock)
        await wire.send(data)
        yield wire


@asynccontextmanager
async def websocket(
    port: int,
    path: str,
    data: bytes = b"",
    *,
    headers: Headers = (),
    host: str = "127.0.0.1",
    receive_buffer: int = 0,
) -> AsyncIterator[Wire]:
    """A WebSocket whose handshake is done; ``data`` came glued to it."""
    opening = request(path, [*UPGRADE, *headers]) + data
    async with dial(port, opening, host=host, receive_buffer=receive_buffer) as wire:
        head = await wire.head()
        assert head.status == 101, head
        yield wire


@asynccontextmanager
async def stream(
    port: int, path: str, *, headers: Headers = (), receive_buffer: int = 0
) -> AsyncIterator[Wire]:
    """A stream of events whose headers and welcome have been read."""
    async with dial(port, request(path, [*EVENTS, *headers]), receive_buffer=receive_buffer) as wire:
        head = await wire.head()
        assert head.status == 200, (head, await wire.rest())
        assert (await wire.event())["event"] == "realtime:welcome"
        yield wire


async def flood(wire: Wire, message: bytes = b"") -> int:
    """Send until nothing more is taken, at most 90 MB; returns how many bytes were."""
    data, sent = message or frame(BINARY, b"x" * 60_000), 0
    data *= 60_000 // len(data) + 1
    loop = asyncio.get_running_loop()
    try:
        while sent < 90_000_000:
            async with asyncio.timeout(0.3):
                await loop.sock_sendall(wire.socket, data)
            sent += len(data)
    except TimeoutError:
        pass
    return sent


async def ask(port: int, path: str, headers: Headers = (), *, method: str = "GET") -> tuple[Head, str]:
    """The response to one request on a connection of its own."""
    async with dial(port, request(path, headers, method=method)) as wire:
        head = await wire.head()
        size = 0 if method == "HEAD" else int(head.headers.get("content-length", 0))
        return head, (await wire.exactly(size)).decode()


def posting(path: str, body: bytes, headers: Headers = ()) -> bytes:
    """The bytes of a POST."""
    return request(path, [*headers, ("Content-Length", str(len(body)))], method="POST") + body


async def post(port: int, path: str, body: bytes, headers: Headers = ()) -> tuple[Head, str]:
    """The answer to a POST on a connection of its own."""
    async with dial(port, posting(path, body, headers)) as wire:
        return await wire.response()


async def lines(program: Iterable[str], count: int, stdin: Iterable[str] = ()) -> list[str]:
    """The first lines that a program prints, having been given some on its standard input."""
    async with running(program) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in stdin:
            process.stdin.write(line.encode() + b"\n")
        read = process.stdout.readline
        return [(await soon(read())).decode().rstrip("\n") for _ in range(count)]


@asynccontextmanager
async def running(program: Iterable[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program with pipes, ended at the end."""
    process = await asyncio.create_subprocess_exec(
        *program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await soon(process.communicate())


def install_ws(factory: pytest.TempPathFactory) -> list[str]:
    """The command of a WebSocket client made of node and its package ``ws``, installed once.

    It reads a JSON object a line, ``{"text": …}``, ``{"hex": …}`` or ``{"close": code}``, does
    it, and prints such objects for what comes.
    """
    node = needs.node()
    directory = needs.node_package(factory, "ws@8")
    script = directory / "ws.cjs"
    script.write_text((Path(__file__).parent / "clients" / "ws.cjs").read_text())
    return [node, str(script)]
