"""What runs beside the clients: entered and left in one task, known by name when it dies."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from timing import within
from wire import eventually, soon

from realtime import lifespans
from realtime.lifespans import Lifespans


class Diary:
    """Makes lifespans that note what becomes of them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @asynccontextmanager
    async def lifespan(self, name: str) -> AsyncIterator[None]:
        self.lines.append(f"enter {name}")
        yield
        self.lines.append(f"leave {name}")


async def test_order() -> None:
    """They are left in the opposite order to that of their entering."""
    running, diary = Lifespans(), Diary()
    for name in "abc":
        await running.start(name, diary.lifespan(name))
    await running.stop(5.0)
    assert diary.lines == ["enter a", "enter b", "enter c", "leave c", "leave b", "leave a"]


async def test_several_of_one_owner() -> None:
    """One owner may have several; all of them are left."""
    running, diary = Lifespans(), Diary()
    for name in "abc":
        await running.start("plugin:x", diary.lifespan(name))
    await running.stop(5.0)
    assert diary.lines[3:] == ["leave c", "leave b", "leave a"]


async def test_one_task() -> None:
    """A lifespan is entered and left in one task of its own."""
    tasks: list[asyncio.Task[object] | None] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        tasks.append(asyncio.current_task())
        yield
        tasks.append(asyncio.current_task())

    running = Lifespans()
    await running.start("x", lifespan())
    await running.stop(5.0)
    assert tasks[0] is tasks[1]
    assert tasks[0] is not asyncio.current_task()


async def test_task_group() -> None:
    """A TaskGroup round the ``yield`` works, and what runs in it ends with it."""
    ended: list[str] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("work")

        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(work())
            await asyncio.sleep(0)
            yield
            task.cancel()
        ended.append("lifespan")

    running = Lifespans()
    await running.start("x", lifespan())
    await running.stop(5.0)
    assert ended == ["work", "lifespan"]


async def test_started_when_entered() -> None:
    """``start()`` returns when the lifespan has been entered, not before."""
    go, entered = asyncio.Event(), False

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        nonlocal entered
        await go.wait()
        entered = True
        yield

    running = Lifespans()
    starting = asyncio.create_task(running.start("x", lifespan()))
    await asyncio.sleep(0)
    assert not starting.done()
    go.set()
    await soon(starting)
    assert entered
    await running.stop(5.0)


async def test_failure_at_the_start() -> None:
    """``start()`` raises what the lifespan raises before it yields."""

    engines: dict[str, str] = {}

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[str]:
        yield engines["none"]

    running = Lifespans()
    with pytest.raises(KeyError, match="none"):
        await running.start("x", lifespan())
    assert running.dead == []
    await running.stop(5.0)


async def test_slow_start_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A lifespan that takes long to start is named in the log, and waited for."""
    monkeypatch.setattr(lifespans, "SLOW_START", 0.02)
    go = asyncio.Event()

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        await go.wait()
        yield

    running = Lifespans()
    starting = asyncio.create_task(running.start("channel:slow", lifespan()))
    await eventually(lambda: "channel:slow is still starting" in caplog.text)
    go.set()
    await soon(starting)
    await running.stop(5.0)


@pytest.mark.parametrize("error", [ValueError("broke"), None], ids=repr)
async def test_early_end(error: Exception | None, caplog: pytest.LogCaptureFixture) -> None:
    """A lifespan whose work ends early is dead by name, and the log says why."""
    die = asyncio.Event()

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async def work() -> None:
            await die.wait()
            raise error or ValueError("ended")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(work())
            yield

    running = Lifespans()
    await running.start("channel:x", lifespan())
    assert running.dead == []
    die.set()
    await eventually(lambda: running.dead == ["channel:x"])
    await running.stop(5.0)
    assert str(error or "ended") in caplog.text


async def test_failure_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """A lifespan that fails while it is left is logged, and the others are left all the same."""

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        yield
        raise ValueError("no goodbye")

    running, diary = Lifespans(), Diary()
    await running.start("first", diary.lifespan("first"))
    await running.start("x", lifespan())
    await running.stop(5.0)
    assert diary.lines == ["enter first", "leave first"]
    assert "no goodbye" in caplog.text
    assert running.dead == []


async def test_end_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    """A lifespan that does not end within the grace is cancelled; the others are left."""
    ended = False

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        nonlocal ended
        yield
        try:
            await asyncio.Event().wait()
        finally:
            ended = True

    running, diary = Lifespans(), Diary()
    await running.start("first", diary.lifespan("first"))
    await running.start("channel:hangs", lifespan())
    await soon(running.stop(0.05))
    assert ended
    assert diary.lines == ["enter first", "leave first"]
    assert "channel:hangs did not end in time" in caplog.text


async def test_end_that_hangs_takes_nobody_elses_time() -> None:
    """Another that needs some turns of the loop to end is not cancelled for the one that hangs."""
    diary = Diary()

    @asynccontextmanager
    async def unhurried() -> AsyncIterator[None]:
        yield
        for _ in range(5):
            await asyncio.sleep(0)
        diary.lines.append("said goodbye")

    @asynccontextmanager
    async def hanging() -> AsyncIterator[None]:
        yield
        await asyncio.Event().wait()

    running = Lifespans()
    await running.start("unhurried", unhurried())
    await running.start("hanging", hanging())
    await soon(running.stop(0.2))
    assert diary.lines == ["said goodbye"]


async def test_many_that_never_end() -> None:
    """However many swallow their cancelling, all together take no longer than the grace."""

    @asynccontextmanager
    async def stubborn() -> AsyncIterator[None]:
        yield
        while not over.is_set():
            with suppress(asyncio.CancelledError):
                await over.wait()

    over, running = asyncio.Event(), Lifespans()
    for number in range(10):
        await running.start(f"stubborn-{number}", stubborn())
    async with within(1):
        await running.stop(0.2)
    over.set()
    await asyncio.sleep(0)


async def test_exit_at_the_start() -> None:
    """A lifespan that wants to end the process is an error like any other."""

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        sys.exit(3)
        yield  # type: ignore[unreachable]  # it makes it a generator

    running = Lifespans()
    with pytest.raises(RuntimeError, match="it raised SystemExit"):
        await running.start("a", lifespan())
