"""The watchdog: it notices when the event loop is held, says by what, and costs nothing else."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import make
from wire import PATIENCE, eventually

from realtime import watchdog as module
from realtime.watchdog import Watchdog

#: What it tells depends on how the machine shares its time.
pytestmark = pytest.mark.alone


def threads() -> int:
    """How many watchdogs there are."""
    return sum(thread.name == "realtime watchdog" for thread in threading.enumerate())


def hold(seconds: float) -> None:
    """Hold the event loop."""
    threading.Event().wait(seconds)


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What the watchdogs say."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    module.log.addHandler(handler := Lines())
    yield lines
    module.log.removeHandler(handler)


async def watched(limit: float = 0.1) -> Watchdog:
    """A watchdog of this loop, which has been asked once."""
    dog = Watchdog(asyncio.get_running_loop(), limit, lambda _: None)
    dog.start()
    await eventually(dog._answered.is_set)
    return dog


async def test_hold_is_told_once(told: list[str]) -> None:
    """One hold is one warning, with how long it was and where, and is counted."""
    dog = await watched()
    hold(0.6)
    # A machine that is busy may hold the loop elsewhere.
    await eventually(lambda: any(line.endswith(": threading.Event().wait(seconds)") for line in told))
    dog.stop()
    dog.join(PATIENCE)
    (line,) = (line for line in told if line.endswith(": threading.Event().wait(seconds)"))
    assert dog.holds == len(told)
    assert dog.longest >= 0.5
    assert "the event loop was held for " in line
    assert f"in {__file__}:" in line


async def test_long_hold_is_told_while_it_lasts(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds the loop for long is told before it ends, for it may never do so."""
    monkeypatch.setattr(module, "LONG", 0.2)
    dog = await watched()
    deadline = time.monotonic() + 8
    while not told and time.monotonic() < deadline:
        hold(0.01)
    dog.stop()
    assert "the event loop is held now for " in told[0]


async def test_many_short_ones_are_told_as_such(told: list[str]) -> None:
    """Where no single call is to blame the warning says so."""
    dog = await watched(0.4)  # it looks twice, a tenth of a second apart: no single one takes so long
    loop = asyncio.get_running_loop()
    for _ in range(60):
        loop.call_soon(hold, 0.01)
    await eventually(lambda: bool(told))
    dog.stop()
    assert told[0].endswith(", among others")


async def test_short_hold_is_not_told(told: list[str]) -> None:
    """What holds the loop for less than the limit is nothing."""
    dog = await watched(60.0)
    hold(0.1)
    dog.stop()
    assert dog.holds == 0
    assert told == []


async def test_thread_ends_with_the_server(tmp_path: Path) -> None:
    """Each server has a watchdog of its own, which ends when it does."""
    config = 'server: {listen: ["127.0.0.1:0"], watchdog: 100ms}\nchannels: {}'
    await eventually(lambda: threads() == 0)  # those of other tests are gone in a moment
    async with make(tmp_path, config) as one:
        async with make(tmp_path, config):
            assert threads() == 2
        await eventually(lambda: threads() == 1)
        assert one.watchdog is not None
    await eventually(lambda: threads() == 0)


async def test_off(tmp_path: Path) -> None:
    """``watchdog: off`` has no thread."""
    await eventually(lambda: threads() == 0)
    async with make(tmp_path, 'server: {listen: ["127.0.0.1:0"], watchdog: off}') as server:
        assert (server.watchdog, threads()) == (None, 0)


async def test_loop_that_is_gone() -> None:
    """The thread ends when its loop was closed without a word."""
    await eventually(lambda: threads() == 0)

    async def forget() -> Watchdog:
        return await watched(0.02)

    dog = await asyncio.to_thread(asyncio.run, forget())
    dog._depth = 0  # it looked idle to its last
    await eventually(lambda: threads() == 0)


async def test_idle_server_is_not_woken() -> None:
    """An idle loop is not asked: the thread sees that it does nothing."""
    dog = await watched(0.02)

    def asked() -> bool:
        hold(0.1)  # what was asked before the loop came to rest is answered
        dog._answered.clear()
        hold(0.1)
        return dog._answered.is_set()

    assert not await asyncio.to_thread(asked)
    dog._answered.set()
    dog.stop()
