"""One timer for every connection: who wants to be looked at, and when.

A timer per connection is expensive with ten thousand of them. Here they share slots of a twentieth
of a second, and one timer waits for the earliest slot.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from typing import Protocol

#: The width of a slot, in seconds: nobody is looked at earlier than asked, nor much later.
SLOT = 0.05
#: How long a turn of looks may hold the event loop, in seconds.
SLICE = 0.010


class Beating(Protocol):
    """Something with a heart to look at."""

    slot: int | None

    def beat(self, now: float) -> float | None:
        """Do what is due; returns when to look again (in the loop's time), None for never."""


class Heartbeat:
    """Calls ``beat()`` of everything that was scheduled, when its time has come."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, dict[Beating, None]] = {}
        self._order: list[int] = []
        self._timer: asyncio.TimerHandle | None = None

    def schedule(self, beating: Beating, at: float) -> None:
        """Look at it at this time (of the loop's clock), instead of any time asked for before."""
        self.forget(beating)
        slot = math.ceil(at / SLOT)
        group = self._slots.get(slot)
        if group is None:
            group = self._slots[slot] = {}
            heapq.heappush(self._order, slot)
            if self._order[0] == slot:
                self._arm()
        group[beating] = None
        beating.slot = slot

    def forget(self, beating: Beating) -> None:
        """Never look at it again."""
        if beating.slot is not None:
            self._slots.get(beating.slot, {}).pop(beating, None)
            beating.slot = None

    def stop(self) -> None:
        """Forget everything."""
        if self._timer is not None:
            self._timer.cancel()
        self._slots.clear()
        self._order.clear()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._order:
            # One turn after the timer: a task that wakes at the same time publishes first, and
            # what is published spares the sign of life.
            self._timer = self._loop.call_at(
                self._order[0] * SLOT, lambda: self._loop.call_soon(self._turn)
            )

    def _turn(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._order and self._order[0] * SLOT <= now:
            slot = self._order[0]
            group = self._slots.get(slot, {})
            while group:
                beating, _ = group.popitem()
                beating.slot = None
                again = beating.beat(now)
                if again is not None:
                    self.schedule(beating, max(again, now + SLOT))
                if self._loop.time() - now > SLICE:
                    self._loop.call_soon(self._turn)
                    return
            heapq.heappop(self._order)
            self._slots.pop(slot, None)
        self._arm()
