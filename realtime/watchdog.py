"""The watchdog: a thread that notices when something holds the event loop, and says what.

A plugin that blocks stops the server for everybody, and nothing inside the loop could tell who does. So
a thread asks the loop for a sign four times in each ``server.watchdog``, and looks at its stack when there
is none.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from realtime.blame import Place, lines, of_thread, theirs
from realtime.channel import Channel

log = logging.getLogger("realtime.watchdog")

#: A hold that lasts so many seconds is told before it ends.
LONG = 1.0


class Watchdog:
    """Watches one event loop, from :meth:`start`, which that loop calls, to :meth:`stop`.

    ``limit`` is how long the loop may be held, in seconds; ``owner`` knows which plugin a module is of.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, limit: float, owner: Callable[[str], str | None]
    ) -> None:
        #: How often the loop was held for too long, and for how long at most, in seconds.
        self.holds, self.longest = 0, 0.0
        self._loop = loop
        self._limit = limit
        self._owner = owner
        self._loops = threading.get_ident()
        self._depth = 0  # how many frames the loop itself takes
        self._answered, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="realtime watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._loops = threading.get_ident()
        self._thread.start()

    def stop(self) -> None:
        """End it; the thread is gone in a moment."""
        self._end.set()
        self._answered.set()

    def join(self, timeout: float) -> None:
        """Wait, for so many seconds at most, until the thread is gone: then it has said all it saw."""
        self._thread.join(timeout)

    def _answer(self) -> None:
        frame: FrameType | None = sys._getframe(1)
        self._depth = 0
        while frame is not None:
            self._depth += 1
            frame = frame.f_back
        self._answered.set()

    def _watch(self) -> None:
        period = self._limit / 4
        while not self._end.is_set():
            asked, used = time.monotonic(), time.process_time()
            # An idle loop is in no callback, and need not be woken to say so.
            if not self._depth or of_thread(self._loops, self._depth):
                self._answered.clear()
                try:
                    self._loop.call_soon_threadsafe(self._answer)
                except RuntimeError:  # it is closed
                    return
            if self._end.wait(period):
                return
            late = time.monotonic() - asked
            if late >= self._limit:
                # What holds the interpreter too, as a regular expression does, holds this thread as well.
                # A machine that sleeps does, but takes no time of the processor.
                if time.process_time() - used >= self._limit / 2:
                    self._tell(of_thread(self._loops, self._depth), asked)
            elif not self._answered.is_set():
                self._look(asked, period)

    def _look(self, asked: float, period: float) -> None:
        """The loop is late: find out what holds it."""
        seen: list[Place] = []
        for moment in (asked + self._limit - 2 * period, asked + self._limit - period):
            if self._answered.wait(max(0.0, moment - time.monotonic())):
                return
            before, seen = seen, of_thread(self._loops, self._depth)
        if seen:  # else the machine has no time for us, and the loop waits for it
            self._tell(seen, asked, alone=bool(before) and before[0][0] is seen[0][0])

    def _tell(self, places: list[Place], asked: float, *, alone: bool = True) -> None:
        who = self._blame(places) + ("" if alone else ", among others")
        stack = lines(theirs(places) or places)
        ended = self._answered.wait(max(0.0, asked + LONG - time.monotonic()))
        held = time.monotonic() - asked
        self.holds, self.longest = self.holds + 1, max(self.longest, held)
        log.warning(
            "the event loop %s for %.2fs%s",
            "was held" if ended else "is held now",
            held,
            who,
            extra={"stack": stack, "fields": {"seconds": round(held, 3)}},
        )
        while not self._end.is_set() and not self._answered.wait(LONG):
            pass
        self.longest = max(self.longest, time.monotonic() - asked)

    def _blame(self, places: list[Place]) -> str:
        """Whose it is and where: the innermost frame of a plugin, and the channel that it works for."""
        of_plugin, channels = [], []
        for frame, line in places:
            if owner := self._owner(frame.f_globals.get("__name__", "")):
                of_plugin.append((f"plugin {owner!r}", (frame, line)))
            one = frame.f_locals.get("self")
            channel = one if isinstance(one, Channel) else getattr(one, "channel", None)
            if isinstance(channel, Channel):
                channels.append(f"channel {channel.name!r}, ")
        if of_plugin:
            who, place = of_plugin[-1]
            remedy = "; what blocks belongs into await asyncio.to_thread(…)"
            return f" by {''.join(channels[-1:])}{who}, in {lines([place])[0]}{remedy}"
        if others := theirs(places):
            return f", in {lines(others)[-1]}"
        if places:
            return f" by the server itself, in {lines(places)[-1]}"
        return ""  # it is over, and nothing of it to be seen
