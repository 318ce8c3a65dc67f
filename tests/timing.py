"""Time as a product is to be measured by: without what a busy machine adds to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

#: How long anything may take on the clock on the wall, in seconds: far more than it does.
PATIENCE = 60.0


def now() -> float:
    """A clock that stands still while this thread is ready to run and has no core, in seconds.

    What takes longer by it than a bound is slow, however many others want to run at the same time. Where
    the kernel does not tell how long a thread has waited it is any clock.
    """
    waited = 0.0
    with suppress(OSError):
        waited = int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    return time.monotonic() - waited


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """What is done here takes less than so many seconds, by that clock."""
    begun = now()
    async with asyncio.timeout(PATIENCE):
        yield
    took = now() - begun
    assert took < seconds, f"it took {took:.3g}s"
