"""What goes through the topics of one channel, counted where the work is done anyway."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable
from time import perf_counter
from types import CoroutineType, GeneratorType
from typing import Any, TypeVar

T = TypeVar("T")

#: What is counted of a channel, as everybody is told it.
COUNTED = ("received", "published", "delivered", "sent", "writes", "written_bytes", "handler_seconds")

#: Of a channel that hears more than so many messages a second …
BUSY = 1000
#: … one of so many that are dealt with at once is timed: two looks at the clock for each would be a
#: hundredth of what an echo costs. Of any other each is, for one that is slow is not to be overlooked.
SAMPLE = 16
#: The upper bounds of what a histogram tells apart, in seconds.
BOUNDS = (*(digit * 10.0**power for power in range(-5, 1) for digit in (1, 2, 5)), 10.0)


class Histogram:
    """How often something took how long."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        #: How many took up to each of :data:`BOUNDS` and longer than the one before, and how many longer.
        self.counts = [0] * (len(BOUNDS) + 1)
        #: How long all of them took together, in seconds.
        self.sum = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        """So many have taken so long."""
        self.counts[bisect_left(BOUNDS, seconds)] += times
        self.sum += seconds * times


class Traffic:
    """The counters of one channel, since the server began."""

    __slots__ = (
        "_seen",
        "delivered",
        "every",
        "handler_seconds",
        "published",
        "received",
        "sent",
        "writes",
        "written_bytes",
    )

    def __init__(self) -> None:
        #: Messages that clients have sent, and that were published.
        self.received = self.published = 0
        #: Published messages that were handed to clients, for each client one, and those to one alone.
        self.delivered = self.sent = 0
        #: Writes of published messages, and their bytes.
        self.writes = self.written_bytes = 0
        #: For how long its methods that deal with clients have held the event loop, in seconds.
        self.handler_seconds = 0.0
        #: One of how many that are dealt with at once is timed.
        self.every = 1
        self._seen = 0

    def pace(self) -> None:
        """A second is over: time all messages of the next, or one of many where many come."""
        self.every = SAMPLE if self.received - self._seen > BUSY else 1
        self._seen = self.received

    def metered(self, work: Awaitable[T]) -> Awaitable[T]:
        """The same, to be awaited in its place: the time for which it holds the loop is counted."""
        return _Metered(self, work) if type(work) in (CoroutineType, GeneratorType) else work


class _Metered:
    """A coroutine, with a look at the clock before and after each of its steps."""

    __slots__ = ("_traffic", "metered")

    def __init__(self, traffic: Traffic, work: Any) -> None:
        self._traffic = traffic
        self.metered = work  # where whoever asks where a task waits (blame.of_task) finds it

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        began = perf_counter()
        try:
            return self.metered.send(value)
        finally:
            self._traffic.handler_seconds += perf_counter() - began

    def throw(self, *error: Any) -> Any:
        began = perf_counter()
        try:
            return self.metered.throw(*error)
        finally:
            self._traffic.handler_seconds += perf_counter() - began

    def close(self) -> None:
        self.metered.close()
