"""What runs beside the clients: the lifespans of channels, the services of plugins.

Each is entered and left in one task of its own. So a ``TaskGroup`` or a time-out inside it works,
and one that ends early is known by name at once instead of at shutdown.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from realtime.blame import defined, lines
from realtime.remedies import remedy

log = logging.getLogger("realtime.lifespan")

#: After so many seconds a lifespan that has not started yet is named in the log; an engine, which has five
#: to connect, has said by then why it gives up.
SLOW_START = 6.0


class Lifespan(NamedTuple):
    """One that runs: whose it is, and what is set to have it end."""

    owner: str
    task: asyncio.Task[None]
    stop: asyncio.Event
    manager: AbstractAsyncContextManager[object]
    plugin: str

    @property
    def place(self) -> str:
        """Where it is now: of a generator the line, of others where they begin."""
        frame = getattr(getattr(self.manager, "gen", None), "ag_frame", None)
        if frame is None:
            return _place(self.plugin, self.manager)
        return f"; plugin {self.plugin!r} waits in {lines([(frame, frame.f_lineno)])[0]}"


class Lifespans:
    """The running context managers of one server, by the name of their owner."""

    def __init__(self) -> None:
        self._running: list[Lifespan] = []
        self._stopping = False

    @property
    def dead(self) -> list[str]:
        """The owners whose lifespan ended although nobody asked it to."""
        return [one.owner for one in self._running if one.task.done() and not one.stop.is_set()]

    def of(self, owners: Collection[str]) -> list[Lifespan]:
        """Those of some owners that run, in the order in which they began."""
        return [running for running in self._running if running.owner in owners]

    async def start(
        self, owner: str, manager: AbstractAsyncContextManager[object], plugin: str = ""
    ) -> None:
        """Enter a context manager of a plugin; returns when it has been entered, raises what it raises."""
        entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        task = asyncio.create_task(
            self._run(owner, manager, plugin, entered, stop), name=f"lifespan of {owner}"
        )
        running = Lifespan(owner, task, stop, manager, plugin)  # an owner may have several
        self._running.append(running)
        while not entered.done():
            try:
                await asyncio.wait([task, entered], timeout=SLOW_START, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                task.cancel()  # there is no sense in asking one to end that has not begun
                raise
            if task.done():
                break
            if not entered.done():
                log.warning("%s is still starting%s", owner, running.place)
        if not entered.done():
            if running in self._running:  # else it has been left meanwhile
                self._running.remove(running)
            await task
            raise RuntimeError("the lifespan ended before it yielded")

    async def _run(
        self,
        owner: str,
        manager: AbstractAsyncContextManager[object],
        plugin: str,
        entered: asyncio.Future[None],
        stop: asyncio.Event,
    ) -> None:
        failed: BaseException | None = None
        try:
            async with manager:
                entered.set_result(None)
                await stop.wait()
        except (KeyboardInterrupt, asyncio.CancelledError) as error:
            asked = self._stopping or stop.is_set()
            if not entered.done() or asked or isinstance(error, KeyboardInterrupt):
                raise
            failed = error
        except BaseException as error:
            if not entered.done():
                if isinstance(error, Exception):
                    raise
                raise RuntimeError(f"it raised {type(error).__name__}") from error  # or the loop would end
            failed = error
        early = not (self._stopping or stop.is_set())
        if early or failed:
            how = "has ended" if failed is None else f"failed{remedy(failed)}"
            how += ", and it is no longer healthy" if early else ""
            log.error("the lifespan of %s %s%s", owner, how, _place(plugin, manager), exc_info=failed)

    async def stop(self, grace: float) -> None:
        """Leave them all within ``grace`` seconds; see :meth:`leave`."""
        self._stopping = True
        await self.leave(list(self._running), grace)

    async def leave(self, leaving: list[Lifespan], grace: float) -> None:
        """Leave some of them, the last entered first; what does not end in time is cancelled.

        Takes ``grace`` seconds at most.
        """
        deadline = asyncio.get_running_loop().time() + grace
        while leaving:
            one = leaving.pop()
            owner, task, stop = one[:3]
            stop.set()
            # An even share of what is left: one that hangs does not take the time of the others.
            left = max(0.0, deadline - asyncio.get_running_loop().time())
            share = left / (len(leaving) + 1)
            _, pending = await asyncio.wait([task], timeout=0.8 * share)
            if one in self._running:  # else somebody else has left it meanwhile
                self._running.remove(one)
            if pending:
                wrong = "the lifespan of %s did not end in time and is cancelled; cancel what it began%s"
                log.error(wrong, owner, one.place)
                task.cancel()
                await asyncio.wait([task], timeout=0.2 * share)


def _place(plugin: str, manager: AbstractAsyncContextManager[object]) -> str:
    """Whose it is, and where: Python's own errors of a context manager have no line of it."""
    code = getattr(getattr(manager, "gen", None), "ag_code", type(manager))
    return f"; it is of plugin {plugin!r}, in {defined(code)}"
