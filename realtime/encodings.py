"""The forms of a message: how it is written for one kind of connection.

A form is an encoding and a framing. The bus asks a form for the bytes of a message once, keeps
them, joins them with those of its neighbours and writes the result to everybody who reads that
form from the same place.
"""

from __future__ import annotations

import base64
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from struct import Struct

from realtime import envelope
from realtime.message import Message

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
#: The bit in a frame's first byte that says that its payload is compressed (RFC 7692, section 6).
COMPRESSED = 0x40
#: What a compressed message ends with before it is sent, which is left out on the wire (section 7.2.1).
DEFLATE_END = b"\0\0\xff\xff"
#: A shorter frame is not compressed: it would save less than the headers of the packet that it is in.
MIN_DEFLATE = 200
#: How far back what is compressed refers, as a power of two: a client that promised to keep less of a
#: message than the usual 15 can read it, too, and a small state is made in a twelfth of the time.
WINDOW_BITS = 12
_SHORT, _MEDIUM, _LONG = Struct(">BB").pack, Struct(">BBH").pack, Struct(">BBQ").pack
_LINE_END = re.compile(rb"\r\n|\n|\r")


def frame(opcode: int, payload: bytes) -> bytes:
    """One unmasked, unfragmented WebSocket frame (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        return _SHORT(0x80 | opcode, size) + payload
    if size < 65536:
        return _MEDIUM(0x80 | opcode, 126, size) + payload
    return _LONG(0x80 | opcode, 127, size) + payload


def deflate(whole: bytes) -> bytes:
    """The same frame compressed, if that makes it shorter (RFC 7692, section 7.2.1).

    It refers to no other frame, so it can be sent to everybody, and among frames of any kind.
    """
    if len(whole) < MIN_DEFLATE:
        return whole
    head = 4 if whole[1] == 126 else 10
    # Level 1: a level more takes off some hundredths at most, and can take ten times as long.
    deflater = zlib.compressobj(1, wbits=-WINDOW_BITS, memLevel=5)
    data = deflater.compress(memoryview(whole)[head:]) + deflater.flush(zlib.Z_SYNC_FLUSH)
    shorter = frame(COMPRESSED | whole[0], data.removesuffix(DEFLATE_END))
    return shorter if len(shorter) < len(whole) else whole


class Form(ABC):
    """How messages are written on one kind of connection."""

    #: Whether it can say in the stream what was missed. A form that cannot is closed instead.
    marks: bool

    #: Forms with the same key encode alike, so that one encoding serves them all.
    key: Hashable

    @abstractmethod
    def encode(self, message: Message) -> bytes:
        """The bytes of one message; none when this form does not show it."""

    def wrap(self, batch: bytes) -> bytes:
        """What one write of joined messages needs around it."""
        return batch


class PlainFrames(Form):
    """Plain WebSocket: a message's text in a text frame, bytes in a binary one."""

    marks = False

    def __init__(self, as_text: Callable[[Message], str | None]) -> None:
        self.key = self
        self._as_text = as_text

    def encode(self, message: Message) -> bytes:
        if message.kind == "bytes":
            return frame(BINARY, message.payload)
        text = self._as_text(message)
        return b"" if text is None else frame(TEXT, text.encode())


class JsonFrames(Form):
    """WebSocket with the subprotocol ``realtime.v1.json``: each message in an object of JSON."""

    marks = True
    key = envelope.V1_JSON

    def encode(self, message: Message) -> bytes:
        return frame(TEXT, envelope.write(message))


class DeflatedFrames(Form):
    """Either of these, compressed where that pays: each message once, for all who read the form."""

    def __init__(self, frames: PlainFrames | JsonFrames) -> None:
        self.marks = frames.marks
        self.key = self
        self._frames = frames

    def encode(self, message: Message) -> bytes:
        return deflate(self._frames.encode(message))


class Stream(Form):
    """The body of a response that does not end, with or without HTTP/1.1 chunks."""

    marks = True
    #: What the ``Content-Type`` of the response says.
    content_type: str

    def __init__(self, *, chunked: bool) -> None:
        self.key = self.content_type  # chunks are put round what is joined
        self._chunked = chunked

    def wrap(self, batch: bytes) -> bytes:
        # RFC 9112, section 7.1: one chunk round the whole batch.
        return b"%x\r\n%s\r\n" % (len(batch), batch) if self._chunked else batch

    @property
    def end(self) -> bytes:
        """The last chunk of a body; without chunks the end of the connection is the end."""
        return b"0\r\n\r\n" if self._chunked else b""


class Lines(Stream):
    """NDJSON: the objects of ``realtime.v1.json``, one a line."""

    content_type = "application/x-ndjson"

    def encode(self, message: Message) -> bytes:
        return envelope.write(message) + b"\n"


class EventStream(Stream):
    """Server-sent events (HTML standard, section 9.2)."""

    content_type = "text/event-stream"

    def encode(self, message: Message) -> bytes:
        parts = []
        if message.id is not None:
            parts.append(b"id: %s\n" % str(message.id).encode())
        if message.event != "message":
            parts.append(b"event: %s\n" % message.event.encode())
        if message.kind == "bytes":
            lines = [b'{"data":"%s","encoding":"base64"}' % base64.b64encode(message.payload)]
        else:
            # Each line its own field, however it ended: nothing in the data can forge a field.
            lines = _LINE_END.split(message.payload)
        parts.extend(b"data: %s\n" % line for line in lines)
        parts.append(b"\n")
        return b"".join(parts)

    def comment(self, text: str) -> bytes:
        """A comment, ready to be written: clients ignore it, proxies and people see it."""
        lines = _LINE_END.split(text.encode())
        return self.wrap(b"".join(b": %s\n" % line for line in lines) + b"\n")


class ProfiledEventStream(EventStream):
    """Server-sent events whose data are the objects of ``realtime.v1.json``, the event among it.

    So text, JSON and bytes are told apart as on a WebSocket.
    """

    content_type = f'text/event-stream; profile="{envelope.V1_JSON}"'

    def encode(self, message: Message) -> bytes:
        id = b"" if message.id is None else b"id: %s\n" % str(message.id).encode()
        return b"%sdata: %s\n\n" % (id, envelope.write(message))
