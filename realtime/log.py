"""A log of messages with consecutive offsets, of which the oldest are given up."""

from __future__ import annotations

import secrets
from bisect import bisect_left
from typing import Literal, NamedTuple

from realtime.encodings import Form
from realtime.message import Message, Position, Since

#: What a message counts for in the log beside its bytes: the objects around it, roughly.
OVERHEAD = 256


class Resume(NamedTuple):
    """How a request to begin at some place was met.

    ``outcome`` is ``new`` (nothing was asked for), ``recovered``, ``gap`` (``missed`` messages
    are lost) or ``reset`` (the position is of another epoch).
    """

    outcome: Literal["new", "recovered", "gap", "reset"]
    missed: int = 0

    @property
    def lossy(self) -> bool:
        """Whether something may be missing, which the stream has to say before it goes on."""
        return self.outcome in ("gap", "reset")


class Entry:
    """A message in the log, when it came, and its bytes in each form that somebody reads."""

    __slots__ = ("encoded", "frames", "message", "size", "stamp")

    def __init__(self, message: Message, stamp: float) -> None:
        self.message = message
        self.stamp = stamp
        self.size = len(message.payload) + OVERHEAD
        #: Its bytes in each form that somebody reads, and how many these are. Pairs in a tuple: nearly
        #: always there is one, and a dict would weigh more than it.
        self.frames: tuple[tuple[object, bytes], ...] = ()
        self.encoded = 0


def _stamp(entry: Entry | None) -> float:
    assert entry is not None
    return entry.stamp


class Log:
    """The messages of one topic, from offset ``base`` to offset ``head``.

    The newest ``history`` of them are what newcomers may ask for.
    """

    def __init__(self, history: int) -> None:
        self._history = history
        #: Names this log: another one with the same offsets has another epoch.
        self.epoch = secrets.token_hex(4)
        #: The offset of the newest message, and of the oldest that is kept (head + 1: none is).
        self.head = 0
        self.base = 1
        #: What it holds, in bytes: payloads, :data:`OVERHEAD` for each, and what they are encoded as.
        self.size = 0
        #: The part of it that is older than the newest ``history`` messages, without what these are
        #: encoded as: how far one may lag is not to depend on who else reads.
        self.beyond = 0
        self._entries: list[Entry | None] = []
        self._dead = 0  # entries at the front that are given up

    @property
    def position(self) -> Position:
        """Where the topic stands: the position of its newest message."""
        return Position(self.epoch, self.head)

    def entry(self, offset: int) -> Entry:
        """The entry at an offset that is kept."""
        entry = self._entries[offset - self.base + self._dead]
        assert entry is not None
        return entry

    def frame(self, entry: Entry, form: Form) -> bytes:
        """The message of an entry in a form, encoded at the first call."""
        key = form.key
        for known, data in entry.frames:
            if known is key:
                return data
        data = form.encode(entry.message)
        entry.frames += ((key, data),)
        entry.encoded += len(data)
        self.grow(len(data))
        return data

    def grow(self, size: int) -> None:
        """It holds so many bytes more."""
        self.size += size

    def find(self, since: Since, born: float) -> tuple[int, Resume]:
        """The cursor of a reader that wants to begin at ``since``, and how that was met.

        A newcomer may ask for the newest ``history`` messages that came when the clock said ``born``
        or later; a position for all that is kept.
        """
        older = bisect_left(self._entries, born, lo=self._dead, key=_stamp) - self._dead
        oldest = max(self.base - 1 + older, self.head - self._history)
        if since is None:
            return self.head, Resume("new")
        if since == "earliest":
            return oldest, Resume("recovered")
        if isinstance(since, int):
            return max(oldest, self.head + min(since, 0)), Resume("recovered")
        if since.epoch != self.epoch or since.offset > self.head:
            return oldest, Resume("reset")
        missed = self.base - 1 - since.offset
        if missed > 0:
            return self.base - 1, Resume("gap", missed)
        return since.offset, Resume("recovered")

    def reach(self, history: int) -> None:
        """Newcomers may ask for so many messages from now on, of those that are still kept."""
        self._history = history
        older = range(self.base, self.head - history + 1)
        self.beyond = sum(self.entry(offset).size for offset in older)

    def begin(self, position: Position) -> None:
        """Hold nothing, and go on after a position."""
        self.epoch, self.head = position
        self.base = self.head + 1
        self.size = self.beyond = self._dead = 0
        self._entries.clear()

    def add(self, message: Message, now: float) -> Entry:
        """Put a message at the head."""
        self.head += 1
        entry = Entry(message.at(Position(self.epoch, self.head)), now)
        self._entries.append(entry)
        self.size += entry.size
        past = self.head - self._history  # the youngest that is history no more
        if past >= self.base:
            self.beyond += self.entry(past).size
        return entry

    def forget_oldest(self) -> int:
        """Give up the oldest message; returns how many bytes that frees."""
        oldest = self.entry(self.base)
        size = oldest.size + oldest.encoded
        self.size -= size
        if self.base <= self.head - self._history:
            self.beyond -= oldest.size
        self._entries[self._dead] = None
        self._dead += 1
        self.base += 1
        if self._dead > 64 and self._dead * 2 > len(self._entries):
            del self._entries[: self._dead]
            self._dead = 0
        return size
