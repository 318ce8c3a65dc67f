"""A clock that can be moved: the time of an event loop, of any kind, for tests.

It replaces ``time``, ``call_at`` and ``call_later`` of one loop until it is restored. Time goes on as it
does, and jumps when it is told to.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

#: So many turns of the loop without anything to do, and all that was begun has arrived. The second is for
#: when something was going on: what it wrote has yet to come out of a socket.
QUIET, QUIET_AFTER, MOST_TURNS = 3, 6, 2000


class Clock:
    """The time of the test's event loop, which :meth:`advance` moves on.

    ``loop.time()``, ``asyncio.sleep``, ``asyncio.timeout`` and all the server does go by it, and so do the
    times of messages. What a plugin takes from ``time`` or ``datetime`` does not.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, note: Callable[[str, str], None] | None = None
    ) -> None:
        self._loop = loop
        self._note = note
        #: How far it was moved, in seconds.
        self.ahead = 0.0
        self._advancing = 0
        self._since = self._spent = 0.0  # real time that moving it takes, which is nobody's patience
        self._timers: dict[int, _Timer] = {}
        self._time, self._call_at, self._call_later = loop.time, loop.call_at, loop.call_later
        # asyncio's own loops ask loop.time() when their timers are due; others have a clock of their own.
        self.asks = isinstance(loop, asyncio.BaseEventLoop)
        for name in ("time", "call_at", "call_later"):
            setattr(loop, name, getattr(self, name))

    def restore(self) -> None:
        """Give the loop its own time back; what still waits does so for what is left."""
        for name in ("time", "call_at", "call_later"):
            delattr(self._loop, name)
        if self.asks and self.ahead:
            for timer in list(self._timers.values()):
                timer.arm(self.ahead)

    def time(self) -> float:
        """The time of the loop, in seconds."""
        return self._time() + self.ahead

    def patience(self) -> float:
        """The time by which a test waits, in seconds: the real one, without that of :meth:`advance`."""
        return (self._since if self._advancing else time.monotonic()) - self._spent

    def wall_time(self) -> float:
        """The time of day that messages have, in seconds since 1970."""
        return time.time() + self.ahead

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """The loop's own, by this clock."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """The loop's own, by this clock."""
        return _Timer(self, self._loop, when, callback, args, context)

    async def advance(self, seconds: float) -> None:
        """Move on, without waiting, by way of every timer in between, each at its time.

        After each the loop runs until it has nothing to do, so that what was sent has arrived. For
        threads and other processes it does not wait.
        """
        if seconds < 0:
            raise ValueError("time goes forward only")
        if self._note is not None:
            self._note("clock", f"> {seconds:g}s")
        self._since = self._since if self._advancing else time.monotonic()
        self._advancing += 1
        try:
            await self.settle()  # what was due before goes first, and goes on at its times
            await self._go_to(self.time() + seconds)
        finally:
            self._advancing -= 1
            if not self._advancing:
                self._spent += time.monotonic() - self._since

    async def _go_to(self, target: float) -> None:
        while True:
            now = self.time()
            due = min((at for timer in self._timers.values() if (at := timer.when()) > now), default=target)
            self.ahead += max(0.0, min(due, target) - now)
            if not self.asks:
                for timer in list(self._timers.values()):
                    timer.arm()
            await self.settle()
            if due >= target:
                return

    async def within(self, waiting: Awaitable[T], seconds: float, what: str) -> T:
        """Its result, within so many seconds of :meth:`patience`; :exc:`TimeoutError` says what was not."""
        __tracebackhide__ = True
        task, until = asyncio.ensure_future(waiting), self.patience() + seconds
        try:
            while not task.done():
                if (left := until - self.patience()) <= 0:
                    raise TimeoutError(f"{what} within {seconds:g}s")
                await asyncio.wait([task], timeout=left)  # which may end early, by the loop's clock
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    async def settle(self) -> None:
        """Let the loop run until nothing goes on in it but timers."""
        call_soon, calls, quiet, enough = self._loop.call_soon, 0, 0, QUIET

        def counted(
            callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
        ) -> asyncio.Handle:
            nonlocal calls
            calls += 1
            return call_soon(callback, *args, context=context)

        # No loop says whether it has work; what it is given to do can be counted. A type has no word for
        # a method that is another one for a while.
        self._loop.call_soon = counted  # type: ignore[assignment, method-assign]
        try:
            for _ in range(MOST_TURNS):
                before = calls
                await asyncio.sleep(0)  # is one itself
                if calls > before + 1:
                    quiet, enough = 0, QUIET_AFTER
                else:
                    quiet += 1
                if quiet >= enough:
                    return
        finally:
            del self._loop.call_soon

    def _arm(self, timer: _Timer, behind: float) -> asyncio.TimerHandle:
        if self.asks:
            return self._call_at(timer.when() - behind, timer.fire, context=timer.context)
        left = max(0.0, timer.when() - self.time())
        return self._call_later(left, timer.fire, context=timer.context)


class _Timer(asyncio.TimerHandle):
    """A timer by a :class:`Clock`."""

    def __init__(
        self,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self._clock, self._do, self._with = clock, callback, args
        self.context = context or contextvars.copy_context()
        self._real = clock._arm(self, 0.0)
        clock._timers[id(self)] = self

    def arm(self, behind: float = 0.0) -> None:
        """Anew, now that the time is another."""
        self._real.cancel()
        self._real = self._clock._arm(self, behind)

    def fire(self) -> None:
        """It is time."""
        self._clock._timers.pop(id(self), None)
        self._do(*self._with)

    def cancel(self) -> None:
        self._clock._timers.pop(id(self), None)
        self._real.cancel()
        asyncio.Handle.cancel(self)
