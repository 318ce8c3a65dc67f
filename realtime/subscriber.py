"""A subscriber: a cursor into a topic, and the sink that its messages are written to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from realtime.encodings import Form
from realtime.log import Resume
from realtime.message import Message

if TYPE_CHECKING:
    from realtime.topic import Topic

#: The most that direct frames may take while a client lags, in bytes; then it is closed.
MAX_OUTBOX = 64 * 1024


class Sink(Protocol):
    """Where a subscriber's bytes go: a connection, as far as the bus knows one."""

    #: Whether it holds more than its bound. When this becomes so, in the middle of a write, it calls
    #: :meth:`Subscriber.pause`; when it has drained, :meth:`Subscriber.resume`.
    paused: bool

    def write(self, data: bytes, /) -> None:
        """Take these bytes, whole. Never called while paused, so never more than one write over."""

    def overrun(self, reason: str) -> None:
        """The subscriber was too slow and has been detached: close the connection (1013)."""


class State(StrEnum):  # its hash is that of a str, and ten times as fast as an Enum's
    """What a subscriber's cursor does."""

    HELD = "held"  # the place is kept, nothing is delivered yet
    LIVE = "live"  # at the head, or one flush behind it
    BEHIND = "behind"  # catching up, a write at a time
    LAGGING = "lagging"  # the sink is paused
    GONE = "gone"


# To look a state up in its class takes as long as all else that is done for one client.
HELD, LIVE, BEHIND, LAGGING, GONE = State


@dataclass(slots=True, eq=False)
class Subscriber:
    """One cursor into a topic, and the sink that its messages are written to.

    A new subscriber is held: its place in the topic is kept, and :meth:`start` begins delivery
    from there.
    """

    topic: Topic
    sink: Sink
    form: Form
    owner: object
    cursor: int
    resumed: Resume
    state: State = HELD
    #: When it was last written to, by the loop's clock, for the keep-alive: by the flush, or by a
    #: connection that has one.
    written_at: float = 0.0
    #: The sink's, at hand.
    write: Callable[[bytes], None] = field(init=False)
    _outbox: list[tuple[int, bytes]] | None = None
    _outbox_size: int = 0

    def __post_init__(self) -> None:
        self.write = self.sink.write

    def start(self) -> None:
        """Deliver from the held place on; what was missed before it is marked first.

        A form without marks cannot say it, so its subscriber is given up.
        """
        if self.state is not HELD:
            return
        topic = self.topic
        if self.resumed.lossy:
            if not self.form.marks:
                topic.overrun(self, "the position cannot be resumed")
                return
            self._wait(self.cursor, topic.mark(self.form, self.resumed, self.cursor))
        if topic.bus.notice is not None:
            self.tell(topic.bus.notice)
        if self.sink.paused:
            topic.lag(self)
            return
        topic.move(self, BEHIND)
        topic.catch_up(self)
        topic.bus.wake(topic)  # the flush forgets what was joined for it

    def send(self, data: bytes) -> None:
        """Write to this subscriber alone, after all that was published before.

        While its sink is paused the data waits; more than :data:`MAX_OUTBOX` of it ends the
        connection.
        """
        state = self.state
        if state is LIVE and self.cursor == self.topic.head:
            self.write(data)
        elif state is HELD:
            # Nothing is delivered before start(), so nothing but direct data comes before this.
            if self._outbox or self.sink.paused:
                self._wait(self.cursor, data)
            else:
                self.write(data)
        elif state is not GONE:
            self._wait(self.topic.head, data)
            if state is LIVE:
                self.topic.move(self, BEHIND)
            while self.state is BEHIND:  # each round writes, until the sink pauses
                self.topic.catch_up(self)
        if self._outbox_size > MAX_OUTBOX and self.state is not GONE:
            self.topic.overrun(self, f"too slow: more than {MAX_OUTBOX} bytes wait to be read")

    def tell(self, message: Message) -> None:
        """Write an event of the host's, where the form can say it."""
        if self.form.marks:
            self.send(self.form.wrap(self.form.encode(message)))

    def pause(self) -> None:
        """The sink is full."""
        if self.state is LIVE or self.state is BEHIND:
            self.topic.lag(self)

    def resume(self) -> None:
        """The sink has drained."""
        if self.state is LAGGING:
            self.topic.move(self, BEHIND)
            self.topic.bus.wake(self.topic)
        elif self.state is HELD and not self.sink.paused:
            data = self.take_direct()
            if data is not None:
                self.write(data)

    def start_over(self, cursor: int) -> None:
        """The topic has become another log: go on at this cursor of it, which is said first."""
        self.cursor = cursor
        waiting, self._outbox, self._outbox_size = self._outbox or (), None, 0
        if self.state is HELD:
            self.resumed = Resume("reset")  # start() says it
        elif self.form.marks:
            self._wait(cursor, self.topic.mark(self.form, Resume("reset"), cursor))
            if self.state is LIVE:
                self.topic.move(self, BEHIND)
        else:
            self.topic.overrun(self, "the topic has begun anew")
        for _, data in waiting:
            self._wait(cursor, data)

    def detach(self) -> None:
        """Let go of the place. Nothing is written any more."""
        if self.state is not GONE:
            self.topic.remove(self)

    def _wait(self, offset: int, data: bytes) -> None:
        if self._outbox is None:
            self._outbox = []
        self._outbox.append((offset, data))
        self._outbox_size += len(data)

    def take_direct(self) -> bytes | None:
        """The direct data whose turn has come at this cursor, joined."""
        outbox = self._outbox
        if not outbox or outbox[0][0] > self.cursor:
            return None
        due = 0
        while due < len(outbox) and outbox[due][0] <= self.cursor:
            due += 1
        data = b"".join(part for _, part in outbox[:due])
        del outbox[:due]
        self._outbox_size -= len(data)
        return data

    @property
    def next_direct(self) -> int | None:
        """The offset after which the first waiting direct data belongs."""
        return self._outbox[0][0] if self._outbox else None
