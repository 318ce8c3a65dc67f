"""A stranger: a client of bytes that says what no library would say, and goes when no client would.

It reads as the event loop brings it, so that it costs no task, and remembers what came.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Mapping
from typing import cast

from realtime.close_codes import LOST

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
#: The key of RFC 6455, section 1.3: nobody asks for another each time.
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
#: The most that is remembered of what came, in characters, beside the last of it.
MOST = 64 * 1024

_ID = re.compile(r'(?:^id: |"id":")([0-9a-f]{8}-[0-9]+)', re.MULTILINE)
_OUTCOME = re.compile(r'"outcome":"(\w+)"')
_BYE = re.compile(r'"code":([0-9]{4}),"reason":"((?:[^"\\]|\\.)*)"')


def request(path: str, headers: Mapping[str, str], *, method: str = "GET", body: bytes = b"") -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}"] if method == "POST" else []
    return "\r\n".join([*lines, "", ""]).encode() + body


def frame(opcode: int, payload: bytes = b"") -> bytes:
    """One frame of a WebSocket as a client sends it, under a mask that changes nothing."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65536:
        head = bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + bytes(4) + payload


class Stranger(asyncio.Protocol):
    """One connection, and what came over it: an answer of HTTP, a stream, or a WebSocket."""

    def __init__(self) -> None:
        #: The status of the answer, 0 before it came; its body or its frames, and the last of these.
        self.status = 0
        self.text = self.last = ""
        #: Whether the answer has come whole, or the connection is gone.
        self.whole = False
        self.gone = False
        #: How it was ended, as the server said: a close code (``LOST``: it said nothing) and the reason.
        self.end: tuple[int, str] | None = None
        self.pongs = 0
        #: Whether pings are answered.
        self.answering = True
        self.transport: asyncio.Transport
        self._buffer = b""
        self._chunked = False
        self._length = 0

    @classmethod
    async def dial(cls, port: int, data: bytes = b"", *, receive_buffer: int = 0) -> Stranger:
        """Connect to a port of this machine, and say something. Raises :exc:`OSError`."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(sock, ("127.0.0.1", port))
            _, peer = await loop.create_connection(cls, sock=sock)
        except BaseException:
            sock.close()
            raise
        peer.say(data)
        return peer

    def say(self, data: bytes) -> None:
        """Send bytes as they are."""
        if data and not self.gone:
            self.transport.write(data)

    def abort(self) -> None:
        """Be gone, without a goodbye."""
        self.transport.abort()

    @property
    def position(self) -> str:
        """The first position that was told; nothing if none was."""
        match = _ID.search(self.text)
        return match[1] if match else ""

    @property
    def outcome(self) -> str:
        """How the wish to begin somewhere was met, as the welcome says."""
        match = _OUTCOME.search(self.text)
        return match[1] if match else ""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands (``asyncio.Protocol``)."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is of no such class

    def connection_lost(self, error: Exception | None) -> None:
        """It is gone (``asyncio.Protocol``)."""
        bye = None if self.end else _BYE.search(self.last)
        self.end = self.end or ((int(bye[1]), bye[2]) if bye else (LOST, ""))
        self.gone = self.whole = True

    def data_received(self, data: bytes) -> None:
        """Something came (``asyncio.Protocol``)."""
        self._buffer += data
        if not self.status:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            first, *lines = head.decode("latin-1").lower().split("\r\n")
            headers = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
            self.status, self._buffer = int(first.split()[1]), rest
            self._chunked = headers.get("transfer-encoding") == "chunked"
            self._length = int(headers.get("content-length", 0))
        if self.status == 101:
            while self._frame():
                pass
        elif self._chunked:
            while self._chunk():
                pass
        else:
            self._remember(self._buffer)
            self._length -= len(self._buffer)
            self._buffer = b""
            self.whole = self._length <= 0

    def _remember(self, data: bytes) -> None:
        self.last = data.decode(errors="replace")
        if len(self.text) < MOST:
            self.text += self.last

    def _chunk(self) -> bool:
        size, end, rest = self._buffer.partition(b"\r\n")
        if not end or len(rest) < int(size, 16) + 2:
            return False
        length = int(size, 16)
        self._buffer = rest[length + 2 :]
        self.whole = not length  # the last is empty
        if length:
            self._remember(rest[:length])
        return not self.whole

    def _frame(self) -> bool:
        data = self._buffer
        if len(data) < 2:
            return False
        size, at = data[1], 2
        if size >= 126:
            at = 4 if size == 126 else 10
            size = int.from_bytes(data[2:at], "big")
        if len(data) < at + size:
            return False
        opcode, payload, self._buffer = data[0] & 0x0F, data[at : at + size], data[at + size :]
        if opcode == CLOSE:
            self.end = int.from_bytes(payload[:2], "big"), payload[2:].decode(errors="replace")
            self.say(frame(CLOSE, payload[:2]))
        elif opcode == PING and self.answering:
            self.say(frame(PONG, payload))
        elif opcode == PONG:
            self.pongs += 1
        elif opcode in (TEXT, BINARY):
            self._remember(payload + b"\n")
        return True
