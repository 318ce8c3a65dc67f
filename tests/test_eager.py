"""What a task's work needs, where it has begun outside of the task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from realtime.eager import Begun, begin, go_on

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


class Idler:
    """A task that idles until something has begun, goes on with that, and ends with its result."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.context = copy_context()
        self.woken = self.loop.create_future()
        self.begun: Begun | None = None
        self.result = self.loop.create_future()
        self.task = self.loop.create_task(self.idle(), context=self.context)

    async def idle(self) -> Any:
        error = None
        try:
            await self.woken
        except asyncio.CancelledError as cancelled:
            error = cancelled
        assert self.begun is not None
        return await go_on(self.begun, error)

    def call(self, function: Callable[..., Any], *args: object) -> None:
        """Begin in a callback of the loop, as a protocol does when data comes."""
        self.loop.call_soon(self._call, function, args)

    def _call(self, function: Callable[..., Any], args: tuple[object, ...]) -> None:
        result = begin(self.loop, self.task, self.context, function, *args)
        self.result.set_result(result)
        if isinstance(result, Begun):
            self.begun = result
            if not self.woken.done():
                self.woken.set_result(None)


@pytest.fixture
async def idler() -> Idler:
    """A task that idles."""
    idler = Idler()
    await asyncio.sleep(0)
    return idler


async def dismiss(idler: Idler) -> None:
    """End a task that nothing has begun for."""
    idler.begun = Begun(None, ValueError("enough"))
    idler.woken.set_result(None)
    with pytest.raises(ValueError, match="enough"):
        await idler.task


async def test_what_does_not_wait_is_done_at_once(idler: Idler) -> None:
    """A coroutine that waits for nothing is over when it has begun, and its result is there."""

    async def work(a: int, b: int) -> int:
        return a + b

    idler.call(work, 1, 2)
    assert await idler.result == 3
    await dismiss(idler)


async def test_what_waits_goes_on_in_the_task(idler: Idler) -> None:
    """What has to wait ends in the task."""
    gate = asyncio.Event()

    async def work() -> str:
        await gate.wait()
        await asyncio.sleep(0)
        return "done"

    idler.call(work)
    assert isinstance(await idler.result, Begun)
    gate.set()
    assert await idler.task == "done"


async def test_the_current_task_is_the_one_that_idles(idler: Idler) -> None:
    """Before and after it has waited the work runs in the same task."""

    async def work() -> list[object]:
        before = asyncio.current_task()
        await asyncio.sleep(0)
        return [before, asyncio.current_task()]

    idler.call(work)
    assert await idler.task == [idler.task, idler.task]


async def test_no_task_is_current_afterwards(idler: Idler) -> None:
    """The callback that began the work goes on without a current task."""
    seen: list[object] = []

    async def work() -> None:
        return None

    idler.call(work)
    idler.loop.call_soon(lambda: seen.append(asyncio.current_task()))
    await idler.result
    assert seen == [None]
    await dismiss(idler)


async def test_context_variables_are_the_tasks(idler: Idler) -> None:
    """What is set in a context variable before the wait is there after it, and nowhere else."""

    async def work() -> str:
        WHO.set("work")
        await asyncio.sleep(0)
        return WHO.get()

    idler.call(work)
    assert (await idler.task, WHO.get()) == ("work", "nobody")


async def test_context_of_a_function_that_returns_a_coroutine(idler: Idler) -> None:
    """What a function sets before it returns a coroutine is there in that."""

    async def work() -> str:
        return WHO.get()

    def function() -> Awaitable[str]:
        WHO.set("function")
        return work()

    idler.call(function)
    assert (await idler.result, WHO.get()) == ("function", "nobody")
    await dismiss(idler)


async def test_time_out_strikes(idler: Idler) -> None:
    """``asyncio.timeout`` ends what has begun outside of the task."""

    async def work() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            return "too late"
        return "never"

    idler.call(work)
    assert await idler.task == "too late"


async def test_time_out_that_is_over_already_strikes(idler: Idler) -> None:
    """A time-out of nothing cancels the task before that goes on with the work, which hears of it."""

    async def work() -> str:
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            return "too late"
        return "never"

    idler.call(work)
    assert await idler.task == "too late"


async def test_cancelling_reaches_the_work(idler: Idler) -> None:
    """Who cancels the task cancels the work, which may clean up."""
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    idler.call(work)
    await idler.result
    idler.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await idler.task
    assert cleaned == [True]


async def test_what_is_raised_at_once_is_raised_in_the_task(idler: Idler) -> None:
    """An error before the first wait is the task's."""

    async def work() -> None:
        raise KeyError("at once")

    idler.call(work)
    with pytest.raises(KeyError, match="at once"):
        await idler.task


async def test_what_the_call_raises_is_raised_in_the_task(idler: Idler) -> None:
    """A function that fails before there is anything to await fails the task, not the callback."""

    def work() -> Awaitable[None]:
        raise KeyError("no coroutine")

    idler.call(work)
    with pytest.raises(KeyError, match="no coroutine"):
        await idler.task


async def test_what_is_raised_later_is_raised_in_the_task(idler: Idler) -> None:
    """An error after a wait is the task's."""

    async def work() -> None:
        await asyncio.sleep(0)
        raise KeyError("later")

    idler.call(work)
    with pytest.raises(KeyError, match="later"):
        await idler.task


async def test_any_awaitable_will_do(idler: Idler) -> None:
    """A function may return a future, or whatever else can be awaited."""

    def work() -> Awaitable[str]:
        future = asyncio.get_running_loop().create_future()
        future.set_result("a future's")
        return future

    idler.call(work)
    assert await idler.task == "a future's"


async def test_a_future_may_have_others_who_wait(idler: Idler) -> None:
    """Another task that comes to wait for the same future meanwhile takes it from nobody."""
    gate = asyncio.get_running_loop().create_future()

    async def work() -> str:
        return str(await gate)

    async def other() -> str:
        return str(await gate)

    idler.call(work)
    waiting = asyncio.create_task(other())  # its first step is between ours
    await idler.result
    gate.set_result("open")
    assert [await idler.task, await waiting] == ["open", "open"]
