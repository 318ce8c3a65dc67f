"""What travels on the bus: a message, and the position where it stands in its topic."""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple

import orjson

Kind = Literal["text", "json", "bytes"]

#: The longest event name, in bytes of UTF-8: it is repeated in every message.
MAX_EVENT = 255
#: How the names of the host's own events begin; no client may send one.
RESERVED = "realtime:"
NOT_YOURS = f"an event that begins with {RESERVED} is the server's to send"
# Half of what the constructor of a named tuple takes; messages are made all the time.
_new = tuple.__new__
_POSITION = re.compile(r"([0-9a-f]{1,32})-([0-9]{1,18})")


class Position(NamedTuple):
    """Where a message stands in its topic; written ``epoch-offset`` on every wire.

    Offsets of one epoch are consecutive and begin at 1; a topic that is made again has
    another epoch. ``str()`` writes a position, :meth:`parse` reads one.
    """

    #: Names the log that it is in: a topic that is made again has another.
    epoch: str
    #: Which message of that log it is, from 1 on.
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read what ``str()`` wrote. Raises :exc:`ValueError` for anything else."""
        match = _POSITION.fullmatch(text)
        if match is None:
            raise ValueError(f"{text[:60]!r} is no position: they look like 3f9a01c2-17")
        return cls(match[1], int(match[2]))


#: Where a subscriber begins: after a position, at the newest ``-n`` messages, at all that is
#: kept for newcomers, or (``None``) with what is published from now on.
Since = Position | int | Literal["earliest"] | None


def parse_since(text: str) -> Since:
    """Read a ``since``: a position, ``-20``, or ``earliest``. Raises :exc:`ValueError`."""
    if text == "earliest":
        return "earliest"
    if re.fullmatch(r"-[0-9]{1,9}", text):
        return int(text)
    return Position.parse(text)


class Message(NamedTuple):
    """One message. It is encoded when it is made and cannot be changed afterwards.

    The bus makes it of what is published, the host of what a client says. Whoever needs one makes it
    with :meth:`of`; an engine that has kept its fields makes it of these.
    """

    #: What kind of event it is; ``message`` unless it was said.
    event: str
    #: ``"text"``, ``"json"`` or ``"bytes"``.
    kind: Kind
    #: The data as bytes: UTF-8, JSON in UTF-8, or as they were.
    payload: bytes
    #: When it was published, in seconds since 1970; 0 for what a client said.
    time: float
    #: Where it stands in its topic; None until the bus has taken it.
    id: Position | None = None
    #: The one client that is not to see it.
    exclude: object = None

    @classmethod
    def of(
        cls,
        data: Any,
        *,
        event: str = "message",
        time: float,
        id: Position | None = None,
        exclude: object = None,
    ) -> Message:
        """Encode ``data``: ``str`` stays text, bytes stay bytes, anything else becomes JSON.

        Raises :exc:`ValueError` for an event name with control characters (it could forge a
        line of a stream), for text that is no Unicode (a lone surrogate) and for data that is
        no JSON.
        """
        if event != "message":
            _check_event(event)
        kind: Kind
        if isinstance(data, str):
            # A lone surrogate raises UnicodeEncodeError, a ValueError: better here, to the one
            # who publishes it, than in the middle of a fan-out.
            kind, payload = "text", data.encode()
        elif isinstance(data, bytes | bytearray | memoryview):
            kind, payload = "bytes", bytes(data)
        else:
            try:
                kind, payload = "json", orjson.dumps(data)
            except TypeError as error:  # orjson's errors are TypeErrors
                raise ValueError(f"this data is no JSON: {error}") from None
        return _new(cls, (event, kind, payload, time, id, exclude))

    def at(self, position: Position) -> Message:
        """The same message, at its place in a topic."""
        return _new(Message, (*self[:4], position, self.exclude))

    @property
    def data(self) -> Any:
        """The data, decoded anew at each access: to change it changes nobody else's."""
        if self.kind == "text":
            return self.payload.decode()
        if self.kind == "bytes":
            return self.payload
        return orjson.loads(self.payload)


def heard(kind: Kind, payload: bytes) -> Message:
    """A message as it comes in a frame: a text, or bytes."""
    return _new(Message, ("message", kind, payload, 0.0, None, None))


def said(data: Any, *, event: str = "message") -> Message:
    """A message as a client said it; its ``time`` is 0.

    Raises :exc:`ValueError` for what :meth:`Message.of` does, and for an event of the host's own.
    """
    if event.startswith(RESERVED):
        raise ValueError(NOT_YOURS)
    return Message.of(data, event=event, time=0.0)


def _check_event(event: str) -> None:
    if not event or len(event.encode()) > MAX_EVENT or not event.isprintable():
        raise ValueError(f"{event[:60]!r} is no event name: 1 to {MAX_EVENT} bytes of printable characters")
