"""`curl -N` reads the clock."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from needs import curl
from timing import withheld

from acceptance.world import PATIENCE, Home, started

#: The data of an event of the clock.
EVENT = re.compile(r"data: Current time: (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}) UTC")
KEEP_ALIVE = ": keep-alive-text"
#: How much later than due something may be seen, in seconds; half of what a second ticks. A busy machine
#: adds to it.
LATE = 0.5

CLOCK = "channels: {{clock: {{plugin: clock, path: /events, interval: {interval}}}}}\n"


async def read(home: Home, enough: Callable[[list[str]], bool]) -> tuple[list[tuple[float, str]], float]:
    """The events and comments that ``curl -N`` shows until it is enough, and when, counted from its start.

    And for how long the machine had no time for those who took part, in seconds.
    """
    seen: list[tuple[float, str]] = []
    async with home.server() as server, asyncio.timeout(4 * PATIENCE):
        address = await server.ready()
        loop = asyncio.get_running_loop()
        begun, served, here = loop.time(), withheld(server.process.pid), withheld(os.getpid())
        async with (
            started(curl(), "-sN", f"http://{address}/events", cwd=home.directory) as process,
            aclosing(process.lines()) as lines,
        ):
            async for line in lines:
                if EVENT.fullmatch(line) or line == KEEP_ALIVE:
                    seen.append((loop.time() - begun, line))
                    if enough([line for _, line in seen]):
                        break
            busy = withheld(server.process.pid) - served + withheld(os.getpid()) - here
            return seen, busy + withheld(process.process.pid)


def time_of(event: str) -> datetime:
    """The time that an event tells."""
    match = EVENT.fullmatch(event)
    assert match, event
    return datetime.fromisoformat(match[1]).replace(tzinfo=UTC)


async def test_at_once(home: Home) -> None:
    """The current time is there at once, however long the interval is."""
    home.write(CLOCK.format(interval="1h"))
    ((after, event),), _ = await read(home, bool)
    assert after < PATIENCE
    assert abs((datetime.now(UTC) - time_of(event)).total_seconds()) < PATIENCE


async def test_every_second(home: Home) -> None:
    """The shipped config tells the time every second, and nothing in between."""
    seen, busy = await read(home, lambda lines: len(lines) == 4)
    ticks = [time_of(event).timestamp() for _, event in seen[1:]]
    arrivals = [after for after, _ in seen[1:]]
    for first, second in (*pairwise(ticks), *pairwise(arrivals)):
        assert second - first == pytest.approx(1.0, abs=LATE + busy)


async def test_keep_alive(home: Home) -> None:
    """With ``interval: 5s`` comments fill the seconds between two events."""
    home.write(CLOCK.format(interval="5s"))
    # The first event is for this client, and the server ticks since its start, however long ago that was:
    # it takes as many ticks as have silence between them, three comments of the four at least.
    seen, busy = await read(
        home, lambda lines: lines[-4:-1] == [KEEP_ALIVE] * 3 and EVENT.fullmatch(lines[-1]) is not None
    )
    assert EVENT.fullmatch(seen[0][1])
    *_, first, last = [number for number, (_, line) in enumerate(seen) if EVENT.fullmatch(line)]
    silent = (time_of(seen[last][1]) - time_of(seen[first][1])).total_seconds()
    assert silent < 5.0 + LATE + busy
    # One is left out where an event comes just when it is due.
    assert silent - 1.0 - LATE - busy <= last - first - 1 <= silent + LATE + busy
    for (before, _), (after, _) in pairwise(seen[first : last + 1]):
        assert after - before < 1.0 + LATE + busy
