"""A topic is a log; a subscriber is a cursor.

A topic keeps its newest messages in one log. A subscriber is an integer into it: the offset of
the last message it was given. Live delivery, replay after a reconnect and a slow reader are one
code path: the cursor moves, or it waits, or the log has left it behind and it is told how much
it missed. There is no queue, no task and no future per subscriber.

What was published since the last flush leaves as one write per subscriber, joined once for all
who read the same form from the same place. Whoever still owes its transport more than the bound
is off that path (lagging) until the transport has drained, and costs the others nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from realtime.encodings import Form
from realtime.log import OVERHEAD, Log, Resume
from realtime.message import Message, Position, Since
from realtime.subscriber import BEHIND, GONE, HELD, LAGGING, LIVE, Sink, State, Subscriber

if TYPE_CHECKING:
    from realtime.bus import Bus

#: The most that one write hands to a transport, in bytes (one larger message goes alone).
#: Without a bound, a hundred stalled clients and one busy turn cost a gigabyte.
MAX_WRITE = 128 * 1024
#: How many times ``lag_bytes`` a log may hold while the flush has not come to everybody: what
#: nobody could have read yet is nobody's lag.
BURST = 4
#: The most joined writes that a topic keeps for others who stand at the same place. Without a
#: bound, a thousand clients that come back to a thousand places hold a write of each.
MAX_BATCHES = 64
#: How many subscribers are written to between two looks at the clock.
_STRIDE = 16
#: At most so many lagging subscribers are looked at, on average, for each message that is given up.
_LOOK = 64

#: What happens to a client that the log has left behind: it is closed, told how much it missed, or given
#: only the newest message.
Overflow = Literal["disconnect", "skip", "latest"]


@dataclass(frozen=True)
class TopicOptions:
    """What a topic keeps, and what happens to a reader that it has left behind.

    ``history`` is how many messages a newcomer may ask for, kept for ``history_age`` seconds.
    ``lag`` seconds, at most ``lag_bytes`` beyond the history, are kept for readers that fell behind;
    for newcomers, until they have read up to the head, so many bytes however long that takes.
    """

    history: int = 0
    history_age: float = 3600.0
    lag: float = 5.0
    lag_bytes: int = 4 * 1024 * 1024
    overflow: Overflow = "disconnect"

    def holding(self, largest: int) -> TopicOptions:
        """The same, for messages of up to so many bytes: what may be said may be kept for who lags."""
        fits = largest + OVERHEAD
        return replace(self, lag_bytes=fits) if fits > max(self.lag_bytes, MAX_WRITE + OVERHEAD) else self


class Reader(Protocol):
    """What a topic tells that it has something new; an ``asyncio.Event`` is one."""

    def set(self) -> None: ...


class _Batch(NamedTuple):
    data: bytes
    end: int
    excluded: frozenset[int]  # the id() of each, for what is no key of a set can be excluded too
    messages: int  # how many of them the form shows


class Topic(Log):
    """A named log of messages, and everybody who reads it."""

    def __init__(self, bus: Bus, name: str, options: TopicOptions) -> None:
        super().__init__(options.history)
        self.bus = bus
        #: Its name: that of its channel, and the values of the path variables, joined by ``/``.
        self.name = name
        self.options = options
        #: What is counted of its channel.
        self.traffic = bus.traffic[name.partition("/")[0]]
        #: Who is here in this process, as the plugin that owns the topic sees it: any hashable, in order,
        #: each with what is told of it (JSON), or None where nothing is.
        self.members: dict[Any, dict[str, Any] | None] = {}
        #: What is told of everybody who is here, in all processes that share the bus, by their ids.
        self.here: dict[str, dict[str, Any]] = {}
        #: Whether it has what the engine keeps of it.
        self.opened = not bus.engine.shared
        # Subscribers by state; dicts, because they keep order and forget in constant time.
        self.live: dict[Subscriber, None] = {}
        self.behind: dict[Subscriber, None] = {}
        self.lagging: dict[Subscriber, None] = {}
        self.held: dict[Subscriber, None] = {}
        self._in = {
            HELD: self.held,
            LIVE: self.live,
            BEHIND: self.behind,
            LAGGING: self.lagging,
        }
        #: Those who have not been live yet: they are greeted, or they replay.
        self.newcomers: dict[Subscriber, None] = {}
        #: Plugin code that reads at its own pace: what is set when there is something new.
        self.readers: dict[Reader, None] = {}
        #: How many of them are here only because they look at many topics, and keep none.
        self.observers = 0
        self._slowest: float = math.inf  # no lagging cursor stands before this offset
        self._torn = range(0)  # whose cursor is one of these was left behind by the engine
        self._look = 0  # nor is that looked at anew before the oldest message kept is this
        # No newcomer, nor anyone behind, stands before this offset. Cursors only go forward, so it stays
        # true, and needs to be found anew, for which all are asked, only now and then.
        self._floor: float = math.inf
        self._batches: dict[tuple[Form, int], _Batch] = {}
        self._pass: Iterator[Subscriber] | None = None  # the live ones still to be visited
        self._pass_since = 0.0
        self._stale = False  # somebody live may stand before the head, …
        self._stale_since = 0.0  # … since then, as perf_counter() has it: the loop's clock may be coarse

    def keep(self, options: TopicOptions) -> None:
        """Keep from now on what these options say."""
        self.options = options
        self.reach(options.history)

    # What there is to know

    @property
    def subscribers(self) -> int:
        """How many subscribers and readers it has, without those who observe it among others."""
        written_to = len(self.live) + len(self.behind) + len(self.lagging) + len(self.held)
        return written_to + len(self.readers) - self.observers

    @property
    def idle(self) -> bool:
        """Whether nobody is here, or is waiting for what the engine has of it."""
        return self.opened and not (self.subscribers or self.members)

    @property
    def flushing(self) -> bool:
        """Whether the flush has still to come to live subscribers."""
        return self._stale or self._pass is not None

    def history(self, since: Since = "earliest") -> list[Message]:
        """The messages kept after ``since``; by default all that a newcomer may ask for."""
        cursor, _ = self.seek(since)
        return [self.entry(offset).message for offset in range(cursor + 1, self.head + 1)]

    def seek(self, since: Since) -> tuple[int, Resume]:
        """The cursor of a subscriber that wants to begin at ``since``, and how that was met."""
        # By age too: one who replays keeps what has aged out, but not for the next one to begin with.
        return self.find(since, self.bus.now() - self.options.history_age)

    # The log

    def append(self, message: Message) -> Position:
        """For engines: take a message, which gets the next offset and goes to everybody who is here.

        Whoever has something to say calls :meth:`Bus.publish`.
        """
        now, bus = self.bus.now(), self.bus
        entry = self.add(message, now)
        bus.size += entry.size
        self._batches.clear()
        self.evict(now)
        if not self._stale:
            self._stale = True  # after evict(): this message alone is no burst
            self._stale_since = perf_counter()
        for reader in self.readers:
            reader.set()
        bus.wake(self)
        bus.took(self, entry.size)
        return self.position

    def restore(self, position: Position, kept: Iterable[tuple[Message, float]]) -> None:
        """For engines: become another log, whose newest messages these are, each with its age in seconds.

        The oldest is first, and the last one stands at ``position``: each is given the offset after that
        of the one before. Whoever is here already is told so, and goes on with all of it that a newcomer
        may ask for.
        """
        now, kept = self.bus.now(), list(kept)
        self.go_on(Position(position.epoch, position.offset - len(kept)))
        stamp = -math.inf
        for message, age in kept:
            stamp = max(stamp, now - age)  # the clocks of processes differ
            self.bus.size += self.add(message, stamp).size
        cursor, _ = self.seek("earliest")
        self._slowest, self._floor, self._torn, self._look = cursor, cursor, range(0), 0
        for subscriber in [*self.live, *self.behind, *self.lagging, *self.held]:
            subscriber.start_over(cursor)
        self.evict(now)
        self.bus.wake(self)

    def skip(self, offset: int) -> None:
        """For engines: go on after an offset. What was before it, and has not come, is lost."""
        # Where nothing has gone since more was lost, those whom that has left behind are as blameless.
        torn = range(self._torn.start if self._torn.stop == self.base - 1 else self.base - 1, offset)
        self.go_on(Position(self.epoch, offset))
        self._torn, self._look, self._slowest = torn, 0, torn.start
        self._leave_behind()
        self.bus.wake(self)

    def go_on(self, position: Position) -> None:
        """Hold nothing, and go on after a position."""
        self.bus.size -= self.size
        self.begin(position)
        self._batches.clear()
        self._pass, self._stale, self._stale_since = None, True, perf_counter()
        for reader in self.readers:
            reader.set()

    def grow(self, size: int) -> None:
        """It, and so the bus, holds so many bytes more."""
        self.size += size
        self.bus.size += size

    def evict(self, now: float) -> None:
        """Give up what neither the history nor the lag window needs."""
        options = self.options
        lag_bytes = options.lag_bytes * (BURST if self.flushing else 1)
        while self.base <= self.head:
            # The newest stays, however large it is: nobody has had a chance to read it.
            if self.beyond <= lag_bytes or self.base == self.head:
                age = now - self.entry(self.base).stamp
                in_history = self.head - self.base < options.history and age <= options.history_age
                if in_history or age <= options.lag or self._needed:
                    break
            self.bus.size -= self.forget_oldest()
        self._leave_behind()

    def sweep(self, now: float) -> None:
        """The same, and look anew who stands where. Called now and then: it asks everybody who replays."""
        waited_for = chain(self.newcomers, self.behind)
        self._floor = min((subscriber.cursor for subscriber in waited_for), default=math.inf)
        self._look = 0
        self.evict(now)

    def shed(self, bytes_wanted: int) -> int:
        """Give up the oldest messages, whoever wants them, until so much is free."""
        before = self.size
        self._look = 0  # it is much at once, or the end of the topic
        while self.base <= self.head and before - self.size < bytes_wanted:
            self.bus.size -= self.forget_oldest()
        self._leave_behind()
        return before - self.size

    @property
    def _needed(self) -> bool:
        # Time alone takes the oldest message neither from a newcomer, who is greeted or replays as fast
        # as its line allows, nor from one that the flush has not come to: none of them has fallen behind.
        # And the newest not from one that lags, if that is all it is to have.
        latest = self.options.overflow == "latest" and self.base == self.head and bool(self.lagging)
        return latest or self.flushing or self._floor < self.base

    def _leave_behind(self) -> None:
        """Close the lagging ones that the log has just left behind, where that is the policy."""
        if self._slowest + 1 >= self.base or self.base < self._look:
            return
        # Where many lag, each at another place, to look after every message would cost all of them for
        # each. Whom that overlooks is found when it drains, or by the next sweep.
        self._look = self.base + len(self.lagging) // _LOOK
        self._slowest = math.inf
        for subscriber in list(self.lagging):
            if subscriber.cursor + 1 >= self.base:
                self._slowest = min(self._slowest, subscriber.cursor)
            elif not self._forgives(subscriber):
                self._lapped(subscriber)

    # Subscribers

    def subscribe(self, sink: Sink, form: Form, owner: object, since: Since = None) -> Subscriber:
        """Hold a place in the topic for a sink; ``start()`` of what is returned delivers."""
        cursor, resumed = self.seek(since)
        subscriber = Subscriber(self, sink, form, owner, cursor, resumed)
        self.held[subscriber] = self.newcomers[subscriber] = None
        self._floor = min(self._floor, cursor)
        return subscriber

    def move(self, subscriber: Subscriber, state: State) -> None:
        """Change what a subscriber does; it becomes the last of those who do the same."""
        del self._in[subscriber.state][subscriber]
        subscriber.state = state
        if state is not GONE:
            self._in[state][subscriber] = None
        if state is BEHIND:
            self._floor = min(self._floor, subscriber.cursor)
        elif state is not LAGGING:  # live, or gone
            self.newcomers.pop(subscriber, None)

    def remove(self, subscriber: Subscriber) -> None:
        """Forget a subscriber, whatever it was doing."""
        self.move(subscriber, GONE)
        self.bus.left(self)

    def overrun(self, subscriber: Subscriber, reason: str) -> None:
        """Give a subscriber up: its connection is to be closed."""
        self.bus.counters["overruns"] += 1
        self.remove(subscriber)
        subscriber.sink.overrun(reason)

    def marker(self, resumed: Resume, cursor: int) -> Message:
        """The event that says what was missed; its id is where the stream goes on from."""
        return Message.of(
            {"missed": resumed.missed} if resumed.outcome == "gap" else {},
            event=f"realtime:{resumed.outcome}",
            time=self.bus.wall_time(),
            id=Position(self.epoch, cursor),
        )

    def mark(self, form: Form, resumed: Resume, cursor: int) -> bytes:
        """The same in a form that can say it."""
        return form.wrap(form.encode(self.marker(resumed, cursor)))

    # Delivery

    def flush(self, deadline: float) -> bool:
        """Write what is due until the deadline. False: there is more to do."""
        # Those who replay get at most half of the slice, so that the live ones never wait for them.
        half = (self.bus.now() + deadline) / 2
        for subscriber in list(self.behind):
            if subscriber.state is BEHIND:
                self.catch_up(subscriber)
                if self.bus.now() > half:
                    break
        while self._pass is not None or self._stale:
            if self._pass is None:
                self._stale = False
                self._pass, self._pass_since = iter(list(self.live)), self._stale_since
            if not self._continue_pass(self._pass, deadline):
                return False
            self._pass = None
            if self._stale and self.bus.now() > deadline:
                return False
        if self.behind:
            return False
        self._batches.clear()  # everybody has been served
        return True

    def _continue_pass(self, subscribers: Iterator[Subscriber], deadline: float) -> bool:
        """Bring the live ones to the head, one write each. False: the time is over."""
        now, head = self.bus.now, self.head
        began = now()
        form: Form | None = None
        start = end = -1
        data = b""
        excluded: frozenset[int] = frozenset()
        shown = writes = size = delivered = 0
        try:
            for subscriber in subscribers:
                if subscriber.state is not LIVE:
                    continue
                if subscriber.cursor != start or subscriber.form is not form:
                    if subscriber.cursor == head:
                        continue
                    if subscriber.cursor + 1 < self.base:
                        self._lapped(subscriber)
                        continue
                    start, form = subscriber.cursor, subscriber.form
                    data, end, excluded, shown = self._join(form, start)
                    if end < head:
                        self._stale = True
                subscriber.cursor = end
                own, messages = data, shown
                if excluded and id(subscriber.owner) in excluded:
                    own, messages = self._private(subscriber, start, end)
                if own:
                    writes += 1
                    size += len(own)
                    delivered += messages
                    subscriber.written_at = began
                    subscriber.write(own)
                    if writes % _STRIDE == 0:
                        self.bus.delays.add(perf_counter() - self._pass_since, _STRIDE)
                        if now() > deadline:
                            return False
        finally:
            if writes % _STRIDE:
                self.bus.delays.add(perf_counter() - self._pass_since, writes % _STRIDE)
            self._count(writes, size, delivered)
        return True

    def catch_up(self, subscriber: Subscriber) -> None:
        """One write to a subscriber that is behind; it joins the live ones at the head."""
        direct = subscriber.take_direct()
        if direct is not None:
            self._write(subscriber, direct)
        elif subscriber.cursor + 1 < self.base:
            self._lapped(subscriber)
        elif subscriber.cursor < self.head:
            self._step(subscriber)
        if subscriber.state is not BEHIND:
            return
        if subscriber.cursor == self.head and subscriber.next_direct is None:
            self.move(subscriber, LIVE)
        else:
            self.move(subscriber, BEHIND)  # to the end of the line
            self.bus.wake(self)

    def _step(self, subscriber: Subscriber) -> None:
        start = subscriber.cursor
        if subscriber not in self.newcomers:  # what they replay was for others in its time
            self.bus.delays.add(self.bus.now() - self.entry(start + 1).stamp)
        data, end, excluded, messages = self._join(subscriber.form, start)
        stop = subscriber.next_direct
        if (stop is not None and stop < end) or (excluded and id(subscriber.owner) in excluded):
            end = end if stop is None else min(stop, end)
            data, messages = self._private(subscriber, start, end)
        subscriber.cursor = end
        self._write(subscriber, data, messages)

    def _join(self, form: Form, start: int) -> _Batch:
        """What follows ``start`` in this form, up to the head or :data:`MAX_WRITE`."""
        batch = self._batches.get((form, start))
        if batch is not None:
            return batch
        frames: list[bytes] = []
        excluded: set[int] = set()
        size, end = 0, start
        while end < self.head:
            entry = self.entry(end + 1)
            frame = self.frame(entry, form)
            if size and size + len(frame) > MAX_WRITE:
                break
            frames.append(frame)
            size += len(frame)
            end += 1
            if entry.message.exclude is not None:
                excluded.add(id(entry.message.exclude))
        data = form.wrap(b"".join(frames)) if size else b""
        if len(self._batches) >= MAX_BATCHES:
            self._batches.clear()
        batch = self._batches[form, start] = _Batch(data, end, frozenset(excluded), sum(map(bool, frames)))
        return batch

    def _private(self, subscriber: Subscriber, start: int, end: int) -> tuple[bytes, int]:
        """The same for one subscriber, without what it is not to see; and how many messages that is."""
        entries = (self.entry(offset) for offset in range(start + 1, end + 1))
        form, owner = subscriber.form, subscriber.owner
        frames = [self.frame(e, form) for e in entries if e.message.exclude is not owner or owner is None]
        data = b"".join(frames)
        return form.wrap(data) if data else b"", sum(map(bool, frames))

    def _write(self, subscriber: Subscriber, data: bytes, messages: int = 0) -> None:
        if data:  # else all of it is excluded, or not shown in this form
            if messages:
                self._count(1, len(data), messages)
            subscriber.written_at = self.bus.now()
            subscriber.write(data)

    def _count(self, writes: int, size: int, messages: int) -> None:
        traffic = self.traffic
        traffic.writes += writes
        traffic.written_bytes += size
        traffic.delivered += messages

    def lag(self, subscriber: Subscriber) -> None:
        """Its sink is full: it is off the fast path until that has drained."""
        self.move(subscriber, LAGGING)
        self.bus.counters["lags"] += 1
        self._slowest = min(self._slowest, subscriber.cursor)
        self._leave_behind()

    def _forgives(self, subscriber: Subscriber) -> bool:
        kept_up = subscriber.cursor in self._torn
        return subscriber.form.marks and (kept_up or self.options.overflow != "disconnect")

    def _lapped(self, subscriber: Subscriber) -> None:
        """The log has left this cursor behind: close it, or mark the gap and go on."""
        missed = self.base - 1 - subscriber.cursor
        self.bus.counters["laps"] += 1
        if not self._forgives(subscriber):
            self.bus.counters["missed"] += missed
            wrong = f"too slow: {missed} messages behind what is kept (lag, lag_bytes)"
            lost = f"{missed} messages were lost on their way"
            self.overrun(subscriber, lost if subscriber.cursor in self._torn else wrong)
            return
        cursor = self.base - 1
        if self.options.overflow == "latest":
            cursor = max(cursor, self.head - 1)
        missed = cursor - subscriber.cursor
        self.bus.counters["missed"] += missed
        subscriber.cursor = cursor
        if not self._stale:
            self._stale, self._stale_since = True, perf_counter()
        self._write(subscriber, self.mark(subscriber.form, Resume("gap", missed), cursor))
