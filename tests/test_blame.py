"""Whose it is: where a task or a thread stands, which lines of it are a plugin's, and which errors."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import pluggy
import pytest

from realtime import blame, bus
from realtime.eager import begin, go_on
from realtime.traffic import Traffic


async def inner() -> None:
    """What waits."""
    await asyncio.Event().wait()


async def outer() -> None:
    """What waits for what waits."""
    await inner()


async def generator() -> None:
    """What goes through an asynchronous generator."""

    async def items() -> AsyncIterator[int]:
        yield 1
        await inner()

    async for _ in items():
        pass


def names(places: list[blame.Place]) -> list[str]:
    """The functions of a stack."""
    return [frame.f_code.co_name for frame, _ in places]


async def stack_of(task: asyncio.Task[None]) -> list[blame.Place]:
    """The stack of a task that has begun to wait; it is cancelled."""
    await asyncio.sleep(0)
    places = blame.of_task(task)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return places


async def test_task_that_waits() -> None:
    """The whole stack of a task is told, down to the line that waits."""
    places = await stack_of(asyncio.create_task(outer()))
    assert names(places) == ["outer", "inner", "wait"]
    assert blame.lines(blame.theirs(places))[-1].endswith(": await asyncio.Event().wait()")


async def test_task_that_waits_for_what_is_metered() -> None:
    """What keeps the time of a coroutine hides nothing of its stack."""

    async def timed() -> None:
        await Traffic().metered(outer())

    assert names(await stack_of(asyncio.create_task(timed()))) == ["timed", "outer", "inner", "wait"]


async def test_task_that_waits_in_a_generator() -> None:
    """Where asyncio shows no more, the stack ends."""
    assert names(await stack_of(asyncio.create_task(generator())))[:1] == ["generator"]


async def test_task_that_goes_on_with_what_was_begun() -> None:
    """What was begun elsewhere is part of the stack of the task that goes on with it."""
    loop = asyncio.get_running_loop()

    async def live() -> None:
        begun = await started
        await go_on(begun)

    started = loop.create_future()
    task = asyncio.create_task(live())
    await asyncio.sleep(0)
    context = contextvars.copy_context()
    loop.call_soon(lambda: started.set_result(begin(loop, task, context, outer)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert names(await stack_of(task)) == ["live", "go_on", "outer", "inner", "wait"]


async def test_task_that_is_done() -> None:
    """A task that is done is nowhere."""
    task = asyncio.create_task(asyncio.sleep(0))
    await task
    assert blame.of_task(task) == []


def test_thread() -> None:
    """The stack of a thread, without the frames that are known."""
    places = blame.of_thread(threading.get_ident())
    assert names(places)[-2:] == ["test_thread", "of_thread"]
    assert blame.of_thread(threading.get_ident(), len(places)) == []


def test_thread_that_is_gone() -> None:
    """A thread that is gone is nowhere."""
    assert blame.of_thread(1) == []


@pytest.mark.parametrize("module", [asyncio, aiohttp, pluggy, bus, threading])
def test_host(module: object) -> None:
    """What is ours, aiohttp's, pluggy's or Python's is not a plugin's."""
    assert blame.is_host(str(module.__file__))  # type: ignore[attr-defined]


@pytest.mark.parametrize("file", [__file__, pytest.__file__, "/srv/plugins/dice.py"])
def test_not_host(file: str) -> None:
    """All else is: plugins, and what they bring."""
    assert not blame.is_host(file)


def test_own_frames() -> None:
    """Of an error the lines are told that are not the host's."""
    try:
        asyncio.run(None)  # type: ignore[arg-type]
    except ValueError as error:
        first, line = blame.own_frames(error).split("\n")
    assert first.startswith("ValueError: a coroutine was expected")
    assert line.startswith(f"    {__file__}:")


async def test_own_frames_in_a_group() -> None:
    """Of an error in a ``TaskGroup`` the error is told, and not that there is a group."""
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup():
            raise LookupError("no engine")
    assert blame.own_frames(caught.value).startswith(f"LookupError: no engine\n    {__file__}:")


@pytest.mark.parametrize(
    ("error", "outside"),
    [(KeyboardInterrupt(), True), (GeneratorExit(), True), (SystemExit(), False), (ValueError(), False)],
    ids=repr,
)
def test_whose_error_it_is(error: BaseException, outside: bool) -> None:
    """What ends the process or the task is not the plugin's; all else is."""
    assert blame.not_the_plugins(error) is outside


async def test_cancelled_error_that_nobody_asked_for() -> None:
    """A plugin's own ``CancelledError`` is the plugin's, unlike that of a task that is cancelled."""
    assert not blame.not_the_plugins(asyncio.CancelledError())
