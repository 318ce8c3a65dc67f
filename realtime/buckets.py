"""How often something may happen: token buckets (a rate, and a burst on top of it)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

#: The most buckets that a table keeps. Beyond it the one that was longest untouched is forgotten, which
#: helps nobody who is not at work from so many names or addresses.
MAX_BUCKETS = 10_000


class Rate(NamedTuple):
    """So many in a second for ever, and so many at once after a rest."""

    per_second: int
    burst: int

    @property
    def portion(self) -> int:
        """How many may be taken out at a time by whom a look at the clock for each would cost too much.

        What is left of a portion after a rest comes on top of the burst, so it is a small part of that.
        """
        return max(self.burst // 16, 1)


class Bucket:
    """One token bucket. It has no timer: what has run into it is reckoned when somebody takes."""

    __slots__ = ("_at", "_tokens", "rate")

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self._tokens = float(rate.burst)
        self._at = now

    def take(self, now: float, most: int = 1) -> int:
        """Take as many as there are, up to ``most``; returns how many. ``now`` is in seconds."""
        per_second, burst = self.rate
        self._tokens = min(burst, self._tokens + (now - self._at) * per_second)
        self._at = now
        taken = min(int(self._tokens), most)
        self._tokens -= taken
        return taken

    @property
    def wait(self) -> int:
        """How long one who was refused should wait, in whole seconds."""
        return max(math.ceil((1 - self._tokens) / self.rate.per_second), 1)


class Buckets:
    """A bucket for each of many: at most :data:`MAX_BUCKETS`."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._buckets: OrderedDict[Hashable, Bucket] = OrderedDict()

    def take(self, who: Hashable, now: float) -> int:
        """Take one of somebody's; 0 if there was one, else after how many seconds to come back."""
        bucket = self._buckets.get(who)
        if bucket is None:
            bucket = self._buckets[who] = Bucket(self._rate, now)
            if len(self._buckets) > MAX_BUCKETS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(who)
        return 0 if bucket.take(now) else bucket.wait

    def __len__(self) -> int:
        return len(self._buckets)
