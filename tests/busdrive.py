"""A bus without an event loop: time, turns and sinks are the test's own.

A :class:`Bed` is a bus on a :class:`Loop` that only moves when it is told to; a :class:`Wire` is a
sink that remembers what was written to it and can read it back as a client would.
"""

from __future__ import annotations

import gc
import heapq
import itertools
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Literal, NamedTuple

import orjson

from realtime.bus import SLICE, Bus
from realtime.encodings import EventStream, Form, PlainFrames
from realtime.message import Message, Position, Since
from realtime.subscriber import State, Subscriber
from realtime.topic import Topic, TopicOptions


class Loop:
    """A :class:`realtime.bus.Scheduler` whose clock and turns are moved by hand."""

    def __init__(self) -> None:
        self.clock = 1000.0
        self._ready: deque[Callable[[], object]] = deque()
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self.clock

    def call_soon(self, callback: Callable[[], object], /) -> None:
        self._ready.append(callback)

    def call_later(self, delay: float, callback: Callable[[], object], /) -> None:
        heapq.heappush(self._timers, (self.clock + delay, next(self._order), callback))

    @property
    def busy(self) -> bool:
        """Whether something waits for the next turn."""
        return bool(self._ready)

    def soon(self, seconds: float) -> bool:
        """Whether a timer is due within so many seconds."""
        return bool(self._timers) and self._timers[0][0] <= self.clock + seconds

    def turn(self) -> None:
        """One turn: the timers that are due, and what was ready when it began."""
        while self._timers and self._timers[0][0] <= self.clock:
            self._ready.append(heapq.heappop(self._timers)[2])
        for _ in range(len(self._ready)):
            self._ready.popleft()()

    def idle(self, turns: int = 100_000) -> None:
        """Turn until nothing is ready."""
        for _ in range(turns):
            if not self._ready:
                return
            self.turn()
        raise AssertionError("the loop never came to rest")

    def advance(self, seconds: float) -> None:
        """Let time pass, with every timer at its own time."""
        until = self.clock + seconds
        while self._timers and self._timers[0][0] <= until:
            self.clock = max(self.clock, self._timers[0][0])
            self.turn()
            self.idle()
        self.clock = max(self.clock, until)  # what was written may have taken longer


class Lines(Form):
    """One JSON object a line; it can mark a gap."""

    marks = True
    key = "lines"

    def encode(self, message: Message) -> bytes:
        place = None if message.id is None else str(message.id)
        return orjson.dumps({"id": place, "event": message.event, "data": message.data}) + b"\n"


def shown(message: Message) -> str | None:
    """The plain text of these tests: the position in front, and nothing of ``quiet`` events."""
    return None if message.event == "quiet" else f"{message.id} {message.data}"


LINES = Lines()
PLAIN = PlainFrames(shown)
CHUNKED = EventStream(chunked=True)
UNCHUNKED = EventStream(chunked=False)


class Item(NamedTuple):
    """What a client reads: a message, a marker, or something said to it alone."""

    kind: Literal["message", "gap", "reset", "direct"]
    position: Position | None
    data: str
    missed: int = 0


def read(form: Form, data: bytes) -> list[Item]:
    """Read a write as a client of that form does. Whatever is malformed raises."""
    if form is PLAIN:
        return [_plain(text) for text in _frames(data)]
    if form is LINES:
        return [_line(line) for line in data.splitlines()]
    if form is CHUNKED:
        data = _dechunk(data)
    assert data.endswith(b"\n\n")
    return [_event(block) for block in data[:-2].split(b"\n\n")]


def _item(place: Position | None, event: str, data: Any) -> Item:
    if event == "realtime:gap":
        return Item("gap", place, "", data["missed"])
    if event == "realtime:reset":
        return Item("reset", place, "")
    return Item("message" if place else "direct", place, data)


def _plain(text: str) -> Item:
    place, _, data = text.partition(" ")
    return _item(None if place == "None" else Position.parse(place), "message", data)


def _frames(data: bytes) -> list[str]:
    texts, at = [], 0
    while at < len(data):
        assert data[at] == 0x81
        size, at = data[at + 1], at + 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size, at = int.from_bytes(data[at : at + width], "big"), at + width
        assert at + size <= len(data)
        texts.append(data[at : at + size].decode())
        at += size
    return texts


def _line(line: bytes) -> Item:
    read = orjson.loads(line)
    return _item(Position.parse(read["id"]) if read["id"] else None, read["event"], read["data"])


def _dechunk(data: bytes) -> bytes:
    parts, at = [], 0
    while at < len(data):
        end = data.index(b"\r\n", at)
        size, at = int(data[at:end], 16), end + 2
        assert size, "an empty chunk ends the body"
        parts.append(data[at : at + size])
        assert data[at + size : at + size + 2] == b"\r\n"
        at += size + 2
    return b"".join(parts)


def _event(block: bytes) -> Item:
    fields = dict(line.split(": ", 1) for line in block.decode().split("\n"))
    event, data = fields.get("event", "message"), fields["data"]
    place = Position.parse(fields["id"]) if "id" in fields else None
    return _item(place, event, orjson.loads(data) if event.startswith("realtime:") else data)


class Wire:
    """A sink with a client at its other end.

    It pauses itself once it holds more than ``bound`` bytes (None: never), and each write takes
    ``cost`` seconds on the clock of its loop.
    """

    def __init__(self, loop: Loop, form: Form, *, bound: int | None = None, cost: float = 0.0) -> None:
        self.form = form
        self.paused = False
        self.bound = bound
        self.cost = cost
        self.writes: list[bytes] = []
        #: Why the bus gave it up; None while it has not.
        self.closed: str | None = None
        self.on_write: Callable[[], None] | None = None
        self.subscriber: Subscriber
        self._loop = loop
        self._held = 0

    def write(self, data: bytes) -> None:
        assert not self.paused, "written to while paused"
        assert self.closed is None, "written to after it was given up"
        assert data, "an empty write"
        self.writes.append(data)
        self._loop.clock += self.cost
        self._held += len(data)
        if self.bound is not None and self._held > self.bound:
            self.pause()
        if self.on_write is not None:
            self.on_write()

    def overrun(self, reason: str) -> None:
        assert self.closed is None, "given up twice"
        self.closed = reason

    def pause(self) -> None:
        """The client does not read, and the transport is full."""
        self.paused = True
        self.subscriber.pause()

    def drain(self) -> None:
        """The client has read everything that the transport held."""
        self._held = 0
        self.paused = False
        self.subscriber.resume()

    def send(self, text: str) -> None:
        """Say something to this client alone."""
        data = self.form.encode(Message.of(text, event="direct", time=0.0))
        self.subscriber.send(self.form.wrap(data))

    @property
    def items(self) -> list[Item]:
        """All that was written, as its client reads it."""
        return [item for data in self.writes for item in read(self.form, data)]

    @property
    def texts(self) -> list[str]:
        """The same as plain words: the data, or what the marker says."""
        return [
            f"{item.kind} {item.missed}" if item.kind == "gap" else item.data or item.kind
            for item in self.items
        ]


class Bed:
    """A bus on a loop of its own, with one topic called ``t``."""

    def __init__(
        self, options: TopicOptions | None = None, *, topics: int = 100, memory: int = 1 << 30
    ) -> None:
        self.loop = Loop()
        self.bus = Bus(self.loop, topics=topics, memory=memory, wall_time=lambda: 1.5)
        self.bus.declare("t", options)  # and so "t/1", which goes when nobody is there

    @property
    def topic(self) -> Topic:
        return self.bus.topic("t/1")

    def publish(
        self, *data: Any, topic: str = "t/1", event: str = "message", exclude: object = None
    ) -> Position:
        """Publish one after the other, with a turn of the loop wherever the bus wants one."""
        position: Position | None = None
        for one in data:
            publishing = self.bus.publish(topic, one, event=event, exclude=exclude)
            while True:
                try:
                    publishing.send(None)
                except StopIteration as done:
                    position = done.value
                    break
                self.loop.turn()
        assert position is not None, "nothing to publish"
        return position

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine as a task would: up to its first ``sleep(0)`` now, a step each turn."""
        try:
            coroutine.send(None)
        except StopIteration:
            return
        self.loop.call_soon(lambda: self.spawn(coroutine))

    def join(
        self,
        form: Form = LINES,
        *,
        topic: str = "t/1",
        since: Since = None,
        owner: object = None,
        start: bool = True,
        bound: int | None = None,
        cost: float = 0.0,
    ) -> Wire:
        """A new subscriber with a wire of its own."""
        wire = Wire(self.loop, form, bound=bound, cost=cost)
        wire.subscriber = self.bus.topic(topic).subscribe(wire, form, owner, since)
        if start:
            wire.subscriber.start()
        return wire

    def idle(self) -> None:
        """Let the bus finish what it has begun; no time passes but that of its writes and pauses."""
        self.loop.idle()
        while self.loop.soon(2 * SLICE):  # a pause is a slice at the most
            self.loop.advance(2 * SLICE)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.advance(seconds)


def lagging(bed: Bed, form: Form = LINES) -> Wire:
    """A subscriber that was off the fast path since before the next message."""
    wire = bed.join(form)
    bed.publish("before")
    bed.idle()
    wire.pause()
    bed.publish("first unread")
    bed.idle()
    assert wire.subscriber.state is State.LAGGING
    return wire


def numbers(first: int, last: int) -> list[str]:
    """The numbers from the first to the last, as texts."""
    return [str(number) for number in range(first, last + 1)]


def steps(work: Callable[[], object]) -> int:
    """How many lines of Python some work takes."""
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    gc.collect()
    gc.disable()  # what others have left behind would end in the middle, and be counted
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
        gc.enable()
    return count
