"""A coroutine that begins at once, and that a task goes on with where it has to wait.

asyncio starts the work of a task in the next turn of the loop. What a client's message asks for is done
mostly without waiting for anything; so it is begun where the message comes in, in the name of the client's
task, which waits for it meanwhile: ``asyncio.current_task()``, ``asyncio.timeout()`` and context variables
are that task's. (From Python 3.12 on asyncio can do this for a task that is new; here it is one for all
messages.)
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from types import CoroutineType, coroutine
from typing import Any, NamedTuple


class Begun(NamedTuple):
    """What a call has begun and not finished."""

    #: None: it has failed.
    work: Coroutine[Any, Any, Any] | None
    #: What it waits for, as a task sees it (a future or None); or what it has raised.
    state: Any


def begin(
    loop: asyncio.AbstractEventLoop,
    task: asyncio.Task[Any],
    context: Context,
    function: Callable[..., Any],
    *args: object,
) -> Any:
    """Call a function whose result is awaited, and run that to where it waits for the first time.

    It runs in the name of ``task`` of this loop, which must be waiting, and in ``context``. Returns what
    it returned, or a :class:`Begun` for :func:`go_on`; raises nothing that it raised, for the task is to
    hear of it.
    """
    # As asyncio's documentation asks of whoever runs tasks ("Extending", section "Task lifetime support").
    _enter_task(loop, task)
    try:
        work = context.run(function, *args)
        if type(work) is not CoroutineType:
            return Begun(_awaited(work), None)
        waits_for = context.run(work.send, None)
        if waits_for is not None:
            waits_for._asyncio_future_blocking = False  # nobody waits for it until the task does
        return Begun(work, waits_for)
    except StopIteration as done:
        return done.value
    except BaseException as error:
        return Begun(None, error)
    finally:
        _leave_task(loop, task)


@coroutine
def go_on(begun: Begun, error: BaseException | None = None) -> Generator[Any, Any, Any]:
    """What is left of it, to be awaited in its task; ``error`` is raised where it waits."""
    work, state = begun
    if work is None:
        raise state
    while True:
        if error is not None:
            try:
                state = work.throw(error)
            except StopIteration as done:
                return done.value
        if state is not None:
            state._asyncio_future_blocking = True
        try:
            yield state
        except BaseException as thrown:
            error = thrown
        else:
            return (yield from work.__await__())


async def _awaited(work: Any) -> Any:
    return await work
