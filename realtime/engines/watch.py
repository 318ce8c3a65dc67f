"""Whether Redis is there, what its clock says, and what is to be done about it once a second.

Both lines are tried out from end to end: what is asked has to be answered, and what is published has to
come back. In the same breath a process says that it is there, and sees which others are.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from realtime.engines.line import Line
from realtime.engines.resp import Connection, Lost, RedisError, forget
from realtime.message import Message

if TYPE_CHECKING:
    from realtime.engines.redis import Redis

log = logging.getLogger("realtime.engine")

#: How often both lines are tried out, and how long an answer may take, in seconds.
PROBE = 1.0
ANSWER_WITHIN = 2.0
#: So long may Redis be away before anybody is told, in seconds: less than until the next probe.
TOLERATED = 0.8
#: A process that has said nothing for so long is gone, and all who were here by it, in seconds; and so long
#: it is remembered that it was there.
LEASE = 10.0
REMEMBERED = 600.0
#: A process that has a topic says so to Redis, which keeps it, once in so many looks.
TOUCH = 30
#: Of so many topics the log has a warning at each look.
WARNINGS = 10
#: How Redis says that it can be read, and takes nothing: it is full, cannot save, or has too few replicas.
UNWILLING = ("OOM", "MISCONF", "NOREPLICAS")
#: So long after it said so last nobody believes that it takes anything, in seconds: it may be on the edge.
DOUBTED = 3.0
#: What everybody is told while it is away, or takes nothing.
UNKEPT = "the server cannot keep messages now, so it takes none"


class Watch:
    """Looks after the lines of one process, and its place among the others."""

    def __init__(self, engine: Redis, asking: Line, hearing: Line) -> None:
        #: Set when the probe has come back.
        self.heard = asyncio.Event()
        #: How often it has looked.
        self.looks = 0
        self._engine, self._asking, self._hearing = engine, asking, hearing
        self._now = asyncio.get_running_loop().time
        self._nodes = f"{engine.prefix}:nodes".encode()
        self._skew = 0.0  # Redis's clock less that of the event loop, in seconds
        self._there = 0  # when this process has said last that it is there, by Redis's clock
        self._unwilling, self._doubted = "", 0.0  # why Redis takes nothing, in its words, and until when
        self._told = False
        self._warned = 0  # since the last look

    def clock(self, later: float = 0.0) -> int:
        """What Redis's clock says, now or so many seconds later, in milliseconds."""
        return int((self._now() + self._skew + later) * 1000)

    async def synchronize(self, connection: Connection) -> None:
        """Set one's clock by that of Redis, and say that this process is there."""
        async with asyncio.timeout(ANSWER_WITHIN) as limit:
            seconds, micros = await connection.ask(b"TIME")
            limit.reschedule(self._now() + ANSWER_WITHIN)  # for each answer, not for all
            self._skew = int(seconds) + int(micros) / 1e6 - self._now()
            before, self._there = self._there, self.clock()
            try:
                # Redis may have lost who is there.
                forgotten = await connection.ask(b"ZADD", self._nodes, self.clock(LEASE), self._engine.node)
            except RedisError as error:
                if error.code not in UNWILLING:
                    raise
                self.doubt(error)
                forgotten = True  # no process can say that it is there
            # Or a clock was set forward, or the machine has slept.
            if forgotten or self._there - before > LEASE * 500:
                self._engine.members.spare(LEASE)
            forget(connection.ask(b"PEXPIRE", self._nodes, b"%d" % (REMEMBERED * 1000)))
            forget(connection.ask(b"ZREMRANGEBYSCORE", self._nodes, b"-inf", self.clock(-REMEMBERED)))

    def doubt(self, error: RedisError) -> None:
        """Nothing can be published, Redis says: that is to be told."""
        self._unwilling, self._doubted = str(error), self._now() + DOUBTED

    def say_bye(self) -> None:
        """This process is gone."""
        if self._asking.connection is not None and not self._asking.away:
            forget(self._asking.connection.ask(b"ZREM", self._nodes, self._engine.node))

    async def keep(self) -> None:
        """Look, again and again, until it is cancelled."""
        while True:
            try:
                try:
                    await self._probe()
                except (Lost, RedisError, TimeoutError) as error:
                    self._engine.refused(error)
                self._look()
            except Exception:  # whatever it is, this process is still to say that it is there
                log.exception("a look at Redis has failed")
            await asyncio.sleep(PROBE)

    async def _probe(self) -> None:
        """Whether what is asked is answered, and what is published comes back."""
        engine, asking, hearing = self._engine, self._asking.connection, self._hearing.connection
        if asking is None or self._asking.away:
            return
        self.heard.clear()
        forget(asking.ask(b"PUBLISH", engine.inbox(engine.node), b""))
        try:
            await self.synchronize(asking)
            async with asyncio.timeout(ANSWER_WITHIN):
                alive = await asking.ask(b"ZRANGEBYSCORE", self._nodes, b"%d" % self.clock(), b"+inf")
        except TimeoutError:
            asking.abort(f"Redis has not answered for {ANSWER_WITHIN:g}s")
            return
        engine.members.bury({node.decode(errors="replace") for node in alive})
        if hearing is None:
            return
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                await self.heard.wait()
        except TimeoutError:
            hearing.abort("what is published does not come back")  # nothing, if it was lost meanwhile

    def _look(self) -> None:
        """Tell whoever should know, and see to what is left to do."""
        engine, lines = self._engine, (self._asking, self._hearing)
        away = [line for line in lines if line.away > TOLERATED]
        self.looks += 1
        if self._warned > WARNINGS:
            log.warning("… and %d more warnings of topics", self._warned - WARNINGS)
        self._warned = 0
        engine.counters["reconnects"] = sum(line.lost for line in lines)
        wrong = f"takes nothing: {self._unwilling}" if self._now() < self._doubted else ""
        if away:
            wrong = f"is away: {away[0].why}"
        if wrong:
            if not engine.trouble:
                log.error("Redis at %s %s", engine.where, wrong)
            engine.trouble = f"Redis {wrong}"
        elif engine.trouble and not any(feed.due and not feed.refusal for feed in engine.feeds):
            engine.trouble = engine.refusal = ""
            log.warning("Redis at %s is back", engine.where)
        if bool(engine.trouble) is not self._told:
            self._told = bool(engine.trouble)
            event, data = ("degraded", {"reason": UNKEPT}) if self._told else ("restored", {})
            notice = Message.of(data, event=f"realtime:{event}", time=engine.bus.wall_time())
            engine.background(engine.bus.tell(notice, self._told))
        if not self._asking.away:
            for feed in engine.feeds:
                age = self.looks - feed.born
                if feed.due or self._hearing.away or (age > 0 and age % TOUCH == 0):
                    feed.check()
            engine.members.say_who_left()

    def warn(self, text: str, *of: object) -> None:
        """Tell the log of a topic; where there are thousands, of some, and how many there are."""
        self._warned += 1
        if self._warned <= WARNINGS:
            log.warning(text, *of)
