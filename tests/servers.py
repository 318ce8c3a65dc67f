"""Servers that somebody else wrote, for clients to meet: of WebSockets, of bytes, and a proxy that cuts."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import re
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import needs
from websockets.asyncio.server import ServerConnection, serve as serve_websocket
from websockets.typing import Subprotocol

#: What the dice of random cuts begin with; ``REALTIME_TEST_SEEDS`` says how many there are.
SEEDS = range(int(os.environ.get("REALTIME_TEST_SEEDS", "4")))
V1 = [Subprotocol("realtime.v1.json")]
Handler = Callable[[ServerConnection], Awaitable[None]]
Bytes = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _ports() -> Iterator[int]:
    """Ports that the kernel gives to nobody who asks for any, each process of a run its own.

    Nor does it give any that is ten thousand higher, where a Redis of a cluster listens, too.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    mine = range(12_000 + worker, 22_000, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    first = random.SystemRandom().randrange(len(mine))
    return itertools.cycle([*mine[first:], *mine[:first]])


_PORTS = _ports()


def closed_port() -> int:
    """A port that nobody listens on, and nobody takes by chance: no server, and no connection either.

    One that the kernel has just given, and taken back, it may give to the next who asks while the test
    that has it is about to listen there, or to listen again.
    """
    for port in _PORTS:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


@asynccontextmanager
async def websocket(
    handler: Handler, subprotocols: Sequence[Subprotocol] = (), **options: Any
) -> AsyncIterator[str]:
    """A WebSocket server; gives its URL."""
    async with serve_websocket(
        handler, "127.0.0.1", 0, subprotocols=list(subprotocols) or None, **options
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"{'wss' if options.get('ssl') else 'ws'}://127.0.0.1:{port}/"


def frame(event: str, data: Any = None, **fields: Any) -> str:
    """A frame of ``realtime.v1.json``."""
    return json.dumps({"event": event, "data": data, **fields})


@asynccontextmanager
async def answering(answer: bytes, *, then_close: bool = True) -> AsyncIterator[str]:
    """A server that answers every request with these bytes; gives its address."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if not then_close:
            await reader.read()

    async with http(handle) as address:
        yield address


@asynccontextmanager
async def http(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server of bytes, whose connections end with their handler; gives its address."""
    tasks: set[asyncio.Task[Any]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        writers.append(writer)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await handle(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()  # what it has not sent nobody wants any more


def stream(body: str | bytes) -> bytes:
    """A response that is a stream of events and ends with the connection."""
    text = body.encode() if isinstance(body, str) else body
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + text


@asynccontextmanager
async def cutting(port: int, seed: int, most: int) -> AsyncIterator[int]:
    """A way to a port on which each connection is cut within so many bytes; gives its own port."""
    dice = random.Random(seed)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server, from_server = (other := await asyncio.open_connection("127.0.0.1", port))[1], other[0]

        async def upward() -> None:
            while data := await reader.read(65536):
                to_server.write(data)

        going_up = asyncio.create_task(upward())
        left = dice.randint(1, most)
        try:
            while left > 0 and (data := await from_server.read(65536)):
                writer.write(data[:left])
                left -= len(data)
                await writer.drain()
        finally:
            going_up.cancel()
            to_server.transport.abort()
            if dice.random() < 0.5:
                writer.transport.abort()
            await asyncio.gather(going_up, return_exceptions=True)

    async with http(handle) as address:
        yield int(address.rpartition(":")[2])


class Way:
    """A way to a port, which can be cut, lead elsewhere, or refuse WebSockets as some proxies do."""

    def __init__(self, port: int) -> None:
        self.to = port
        self.port = 0
        self.websockets = True
        #: What it answers to a WebSocket when it refuses them; nothing: it passes the request on without
        #: its wish for one, as a proxy does that was never told of WebSockets.
        self.refusal = "403 Forbidden"
        #: Whether there is a way: without one whoever comes waits.
        self.there = asyncio.Event()
        self.there.set()
        #: The first line of each connection.
        self.came: list[str] = []
        self._open: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Break every connection that there is."""
        for writer in self._open:
            writer.transport.abort()

    def http(self, path: str) -> str:
        """The http:// URL of a path, by this way."""
        return f"http://127.0.0.1:{self.port}{path}"

    async def lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle one connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.came.append(head.decode().partition("\r\n")[0])
        if not self.websockets and b"upgrade: websocket" in head.lower():
            if self.refusal:
                writer.write(f"HTTP/1.1 {self.refusal}\r\nContent-Length: 0\r\n\r\n".encode())
                return
            head = re.sub(rb"(?i)\r\n(upgrade|connection): [^\r]*", b"", head)
        await self.there.wait()
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self.to)
        self._open |= {writer, to_server}
        to_server.write(head)

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                while data := await source.read(65536):
                    target.write(data)
                    await target.drain()
            target.close()

        going_up = asyncio.create_task(pump(reader, to_server))
        try:
            await pump(from_server, writer)
        finally:
            going_up.cancel()
            self._open -= {writer, to_server}
            to_server.transport.abort()
            await asyncio.gather(going_up, return_exceptions=True)


@asynccontextmanager
async def way(port: int) -> AsyncIterator[Way]:
    """A way to a port, whose own is ``port``."""
    one = Way(port)
    async with http(one.lead) as address:
        one.port = int(address.rpartition(":")[2])
        yield one


def certificate(directory: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context with a certificate for 127.0.0.1 that nobody has signed, and its file."""
    openssl = needs.need("openssl", "apt-get install openssl")
    cert, key = directory / "cert.pem", directory / "key.pem"
    request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
    name = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [openssl, *request.split(), *name, "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, cert
