"""Taking aiohttp's place: from the head of a response on the transport is a connection's.

What aiohttp does not document is used in :func:`take_over`, to parse frames in ``websocket.py``, and in
``door.py``; nowhere else in the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from typing import Protocol

from aiohttp import web

#: What a transport may hold before its cursor waits, and where it goes on, in bytes: the rest of a write.
#: uvloop sends at once only what goes over the limit; all else it would keep for the end of the turn,
#: where no clock of ours sees how long that takes.
HIGH_WATER, LOW_WATER = 1, 0
#: The same over TLS, where all that is written is encrypted first and then waits to be sent.
TLS_HIGH_WATER, TLS_LOW_WATER = 128 * 1024, 32 * 1024
#: How much is read at a time, in bytes.
READ = 64 * 1024


class Receiver(Protocol):
    """Who takes over: an ``asyncio.Protocol`` that has its transport already."""

    transport: asyncio.Transport

    def data_received(self, data: bytes, /) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, error: Exception | None, /) -> None: ...


class Opening(web.StreamResponse):
    """The head of a response whose rest is a connection's to write, not aiohttp's."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing: the connection ends what it writes."""


def over_tls(transport: asyncio.Transport) -> bool:
    """Whether what is written to it is encrypted first."""
    return transport.get_extra_info("sslcontext") is not None


def limit(transport: asyncio.Transport) -> None:
    """Set how much the transport may hold, in the turn after the head of the response was written.

    uvloop sends that at the end of its turn; until then the transport would count as full.
    """
    if over_tls(transport):
        transport.set_write_buffer_limits(TLS_HIGH_WATER, TLS_LOW_WATER)
    elif not transport.is_closing():  # uvloop's raises when its client has gone
        transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)


def owed(transport: asyncio.Transport) -> int:
    """How many bytes its client has not taken: those of the transport, and the kernel's where it tells."""
    size, sock = transport.get_write_buffer_size(), transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
            size += struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
    return size


def cut(transport: asyncio.Transport) -> None:
    """End a connection at once, with all that its client has not taken.

    A kernel that is told nothing else would go on for minutes to offer that to a client that never reads.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None and owed(transport):
        with contextlib.suppress(OSError):  # it is gone already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def take_over(request: web.Request, receiver: Receiver, buffer: memoryview) -> None:
    """Make the receiver the protocol of the transport, once the head of the response is written.

    ``buffer``, of :data:`READ` bytes, is where all of a loop's receivers may read to.
    """
    transport = receiver.transport
    # First what came glued to the handshake, then what comes from now on. aiohttp's annotation
    # names its own reader; it calls feed_data and feed_eof.
    http = request.protocol
    http.set_parser(_Tail(receiver))  # type: ignore[arg-type]
    stock = isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)
    protocol = _Reader(receiver, buffer) if stock and not over_tls(transport) else receiver
    # A connection is an asyncio.Protocol; what this module needs to know of one is less.
    transport.set_protocol(protocol)  # type: ignore[arg-type]
    if http.writing_paused:  # the transport has told aiohttp that it is full, and tells it nobody again
        receiver.pause_writing()
    # To aiohttp the connection is gone, and with it all that a request takes to be handled; it
    # would close the transport. The request's own task ends in its own time.
    http.transport = None
    http.connection_lost(None)


class _Reader(asyncio.BufferedProtocol):
    """What asyncio's own transports read by: into one buffer for all.

    For an ``asyncio.Protocol`` they allocate a quarter of a mebibyte at each read, which can take longer
    than all else that is done for a small message.
    """

    __slots__ = ("_buffer", "_receiver")

    def __init__(self, receiver: Receiver, buffer: memoryview) -> None:
        self._receiver = receiver
        self._buffer = buffer

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._receiver.data_received(bytes(self._buffer[:nbytes]))

    def pause_writing(self) -> None:
        self._receiver.pause_writing()

    def resume_writing(self) -> None:
        self._receiver.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiver.connection_lost(exc)


class _Tail:
    """Takes over what aiohttp read beyond the handshake, with the interface of its parsers."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._receiver.data_received(data)
        return False, b""

    def feed_eof(self) -> None:
        """aiohttp's protocol hears of the end of the connection after us."""
