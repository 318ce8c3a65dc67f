"""Time as a product is to be measured by: without what a busy machine adds to it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

#: How long anything may take on the clock on the wall, in seconds: far more than it does.
PATIENCE = 60.0
#: How often it is looked at how long another process had to wait, in seconds.
LOOK = 0.02


def now() -> float:
    """A clock that stands still while this thread is ready to run and has no core, in seconds.

    What takes longer by it than a bound is slow, however many others want to run at the same time. Where
    the kernel does not tell how long a thread has waited it is any clock.
    """
    return time.monotonic() - _waited(Path("/proc/thread-self"))


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """What is done here takes less than so many seconds, by that clock."""
    begun = now()
    async with asyncio.timeout(PATIENCE):
        yield
    took = now() - begun
    assert took < seconds, f"it took {took:.3g}s"


def withheld(pid: int) -> float:
    """How long a process was ready to run and had no core until now, all its threads; 0 if it is gone."""
    with suppress(OSError):
        return sum(map(_waited, Path(f"/proc/{pid}/task").iterdir()))
    return 0.0


class Stopwatch:
    """How long something takes that another process does, until that is gone."""

    def __init__(self, pid: int) -> None:
        self._begun, self._before, self._pid = now(), withheld(pid), pid
        #: How long it had to wait for a core until now, in seconds.
        self.withheld = 0.0
        self.stopped = threading.Event()

    def look(self) -> None:
        """Look again and again how long it had to wait, until it is stopped."""
        while not self.stopped.wait(LOOK):
            self.withheld = max(self.withheld, withheld(self._pid) - self._before)

    @property
    def seconds(self) -> float:
        """The seconds since then in which neither this process nor that one had to wait for a core."""
        return now() - self._begun - self.withheld


@contextmanager
def stopwatch(pid: int) -> Iterator[Stopwatch]:
    """Measure the time of a process from now on."""
    watch = Stopwatch(pid)
    looking = threading.Thread(target=watch.look)
    looking.start()
    try:
        yield watch
    finally:
        watch.stopped.set()
        looking.join()


def _waited(task: Path) -> float:
    """How long a thread was ready to run and had no core, in seconds."""
    with suppress(OSError):
        return int((task / "schedstat").read_text().split()[1]) / 1e9
    return 0.0
