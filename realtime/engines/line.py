"""A line to Redis: one connection at a time, and another one whenever that is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from realtime.engines.resp import Connection, Lost, RedisError, Where

#: How long connecting may take each time, in seconds.
CONNECT_WITHIN = 2.0
#: After a connection is lost the next is tried after up to so many seconds, and twice that each time that
#: there is none, …
SOONEST = 0.05
#: … up to this.
LATEST = 2.0
#: The least that a line is away, in seconds.
MOMENT = 1e-6
#: What trying again does not mend, by the first word of Redis.
HOPELESS = ("WRONGPASS", "NOAUTH", "NOPERM")


class Line:
    """Keeps a connection, and knows for how long there has been none that works."""

    def __init__(
        self,
        where: Where,
        name: str,
        use: Callable[[Connection], None],
        pushed: Callable[[list[Any]], bool | None] | None = None,
    ) -> None:
        """``use`` is called with each connection, and says by :meth:`works` that it is of use."""
        self.where, self.name = where, name
        #: The connection, while there is one.
        self.connection: Connection | None = None
        #: Why there was none last, in words.
        self.why = ""
        #: Whether trying again is of no use.
        self.hopeless = False
        #: How many connections were lost.
        self.lost = 0
        self._use, self._pushed = use, pushed
        self._now = asyncio.get_running_loop().time
        self._since: float | None = self._now()
        self._working = asyncio.Event()

    @property
    def away(self) -> float:
        """For how long there has been no connection that works, in seconds; 0: there is one."""
        # Within a turn the clock of an event loop may stand still.
        return 0.0 if self._since is None else max(self._now() - self._since, MOMENT)

    def works(self) -> None:
        """The connection is of use."""
        self._since = None
        self._working.set()

    async def working(self) -> Connection:
        """A connection that works, as soon as there is one."""
        while self.connection is None or self._since is not None:
            await self._working.wait()
        return self.connection

    def be_where(self, connection: Connection) -> None:
        """End at the Redis of another line's: during a failover it may still have the one before."""
        if self.connection is not None and self.connection.run_id != connection.run_id:
            self.abort("another Redis is in its place")

    def abort(self, why: str) -> None:
        """Do without this connection; the next is on its way."""
        if self.connection is not None:
            self.connection.abort(why)

    async def keep(self) -> None:
        """Have a connection, until it is cancelled."""
        wait = SOONEST
        while True:
            gone: asyncio.Future[Lost] = asyncio.get_running_loop().create_future()
            try:
                self.connection = await Connection.open(
                    self.where,
                    name=self.name,
                    within=CONNECT_WITHIN,
                    lost=gone.set_result,
                    pushed=self._pushed,
                )
            except (Lost, RedisError) as error:
                self.why, self.hopeless = str(error), str(error).partition(" ")[0] in HOPELESS
                wait = min(wait * 2, LATEST)
            else:
                self.hopeless = False
                try:
                    self._use(self.connection)
                    self.why = str(await asyncio.shield(gone))
                except asyncio.CancelledError:
                    self.connection.abort("the server ends")
                    await asyncio.wait([gone], timeout=1.0)
                    raise
                wait = SOONEST if self._since is None else min(wait * 2, LATEST)
                self.lost += 1
                self.connection = None
                self._working.clear()
            if self._since is None:
                self._since = self._now()
            await asyncio.sleep(random.uniform(0, wait))  # not all processes at the same moment
