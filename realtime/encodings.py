"""The forms of a message: how it is written for one kind of connection.

A form is an encoding and a framing. The bus asks a form for the bytes of a message once, keeps
them, joins them with those of its neighbours and writes the result to everybody who reads that
form from the same place.
"""

from __future__ import annotations

import base64
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from struct import Struct
from typing import ClassVar

from realtime import envelope
from realtime.message import Message

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
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


class Form(ABC):
    """How messages are written on one kind of connection."""

    #: Whether it can say in the stream what was missed. A form that cannot is closed instead.
    marks: ClassVar[bool]

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


class EventStream(Form):
    """Server-sent events (HTML standard, section 9.2), with or without HTTP/1.1 chunks."""

    marks = True
    key = "text/event-stream"

    def __init__(self, *, chunked: bool) -> None:
        self._chunked = chunked

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

    def wrap(self, batch: bytes) -> bytes:
        # RFC 9112, section 7.1: one chunk round the whole batch.
        return b"%x\r\n%s\r\n" % (len(batch), batch) if self._chunked else batch

    @property
    def end(self) -> bytes:
        """The last chunk of a body; without chunks the end of the connection is the end."""
        return b"0\r\n\r\n" if self._chunked else b""
