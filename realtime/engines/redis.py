"""Redis, or Valkey: every process that names the same one has the same topics.

A publish is one script in Redis, which gives the message its place, keeps it and tells every process; the
scripts of one turn of the event loop leave as one write. Each process has two connections: it asks on one,
and what is published comes by the other. One that only seems to be there is found out within seconds, and
replaced. What goes wrong with either costs time, and not messages: each topic knows how far it has come.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from realtime.bus import Bus
from realtime.engine import Engine, Holder, Once
from realtime.engines import entries, watch
from realtime.engines.entries import PUBLISH, SYNC, Change
from realtime.engines.feed import SOON, Feed
from realtime.engines.inquiry import Inquiries
from realtime.engines.line import Line
from realtime.engines.members import Members
from realtime.engines.pending import Pending
from realtime.engines.resp import Connection, Lost, RedisError, Where, forget
from realtime.engines.watch import Watch
from realtime.errors import StartError, TooLarge, Unavailable
from realtime.hookspecs import hookimpl
from realtime.message import Message, Position
from realtime.topic import Topic
from realtime.values import Model, Secret

log = logging.getLogger("realtime.engine")

#: How long connecting may take at the start, in seconds.
START_WITHIN = 5.0
#: How long anything that is asked may take, and all that is asked for one answer; and what is left of that
#: for each, at the least; in seconds.
PUBLISH_WITHIN = 2.0
AT_LEAST = 0.25
#: Redis is not to do it later than after this part of its time.
IN_TIME = 0.8
#: The largest message that goes through Redis, in bytes: several of them make an answer that we still take.
MAX_PAYLOAD = 12 * 1024 * 1024
#: The most that may wait to be sent to Redis, in bytes: what is over is refused at once.
MAX_BACKLOG = 64 * 1024 * 1024
#: The log of a topic stays so much longer than any message of it is wanted, in seconds.
STAYS = 600.0
#: What is counted.
COUNTED = ("reconnects", "filled", "lost", "resets", "ignored", "late", "unanswered")
#: How many topics are looked at at once.
LOOKERS = 64
#: Until when there is to be an answer; empty when it has been given.
_ANSWER: ContextVar[Sequence[float]] = ContextVar("_ANSWER", default=())


def _url(value: Secret) -> Secret:
    Where.parse(value.get_secret_value())
    return value


class Redis(Engine):
    """The engine of many processes."""

    class Settings(Model):
        """The section ``bus``, where its engine is ``redis``."""

        url: Annotated[Secret, AfterValidator(_url)]
        """where: `redis://USER:PASSWORD@HOST:6379/0`, `rediss://` with TLS, `unix:///PATH?db=0`"""

        prefix: Annotated[str, Field(pattern="^[A-Za-z0-9_.-]{1,64}$")] = "realtime"
        """what the names of all keys begin with: two sites with other prefixes share nothing"""

    settings: Settings
    shared: ClassVar[bool] = True

    def __init__(self, settings: Settings, bus: Bus) -> None:
        super().__init__(settings, bus)
        self.node = secrets.token_hex(4)
        self.where = Where.parse(settings.url.get_secret_value())
        #: What the names of keys and channels begin with; channels are the same for all databases.
        self.prefix = f"{settings.prefix}:{self.where.db}" if self.where.db else settings.prefix
        #: Since the start, of :data:`COUNTED`.
        self.counters = Counter(dict.fromkeys(COUNTED, 0))
        #: Which Redis it is; another one after each of its starts, and after a failover.
        self.run_id = ""
        #: Whoever looks at a stream has one of these places.
        self.lookers = asyncio.Semaphore(LOOKERS)
        self._loop = asyncio.get_running_loop()
        self._feeds: dict[bytes, Feed] = {}  # by their channels
        self._numbers = itertools.count(1)
        name = f"realtime-{self.node}"
        self._asking = Line(self.where, f"{name}-asks", self._ask_on)
        self._hearing = Line(self.where, f"{name}-hears", self._hear_on, self._pushed)
        self._inbox = self.inbox(self.node)
        #: What Redis has refused last, in its words.
        self.refusal = ""
        #: Looks after all of that.
        self.watch = Watch(self, self._asking, self._hearing)
        self.members = Members(self)
        self.inquiries = Inquiries(self)
        self._tasks: set[asyncio.Task[Any]] = set()

    # Its life

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        lines = (self._asking, self._hearing)
        keepers = [asyncio.create_task(line.keep(), name=line.name) for line in lines]
        try:
            until = self._loop.time() + START_WITHIN
            while away := [line for line in lines if line.away]:
                if self._loop.time() > until or away[0].hopeless:
                    raise StartError(f"the engine redis at {self.where}: {away[0].why or 'no answer'}")
                await asyncio.sleep(0.01)  # until Redis answers
            keepers.append(asyncio.create_task(self.watch.keep(), name="redis: probing"))
            yield
        finally:
            self.watch.say_bye()
            await asyncio.sleep(0)  # what is asked leaves at the end of a turn
            tasks = [*keepers, *self._tasks]  # what has begun in that turn, too
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for feed in self.feeds:
                feed.close()

    def _ask_on(self, connection: Connection) -> None:
        moved, self.run_id = connection.run_id != self.run_id, connection.run_id
        policy = connection.info.get("maxmemory_policy", "noeviction")
        if moved and policy != "noeviction" and connection.info.get("maxmemory") != "0":
            log.warning("Redis at %s may throw topics away: set maxmemory-policy noeviction", self.where)
        for script in (PUBLISH, SYNC):
            forget(connection.ask(b"SCRIPT", b"LOAD", script.text))
        self._hearing.be_where(connection)
        self.background(self._begin_asking(connection, moved))

    async def _begin_asking(self, connection: Connection, moved: bool) -> None:
        try:
            await self.watch.synchronize(connection)
        except (Lost, RedisError, TimeoutError) as error:
            connection.abort(str(error) or "no answer")
            return
        if moved or self._asking.away > watch.TOLERATED:
            self.members.spare(watch.LEASE)
        self._asking.works()
        for feed in self.feeds:
            if moved or feed.due:
                feed.check(whole=moved)
        self.members.say_who_left()

    def _hear_on(self, connection: Connection) -> None:
        self._asking.be_where(connection)
        connection.tell(b"SUBSCRIBE", self._inbox)
        channels = list(self._feeds)
        for start in range(0, len(channels), 1000):
            connection.tell(b"SUBSCRIBE", *channels[start : start + 1000])

    def moment(self) -> tuple[int, int]:
        """Which of two things was first: between processes by Redis's clock, and in this one by number."""
        return self.watch.clock(), next(self._numbers)

    def refused(self, error: Exception) -> None:
        """Redis does not do what it is to do; where another might, or this one later, connect anew."""
        if not isinstance(error, RedisError):
            return  # it is away, which is known
        if self.refusal != str(error):
            self.refusal = str(error)
            log.warning("Redis at %s answers: %s (told once)", self.where, error)
        if error.code in ("NOPERM", *watch.UNWILLING):
            self.watch.doubt(error)
        if error.code in ("READONLY", "LOADING", "MASTERDOWN", "NOAUTH", "CLUSTERDOWN"):
            self._asking.abort(str(error))

    def inbox(self, node: str) -> bytes:
        """The channel of one process: its probe comes back on it, and what others answer."""
        return f"{self.prefix}:node:{node}".encode()

    def background(self, work: Any) -> None:
        """Do something beside all else; it ends with the server."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # What comes

    def _pushed(self, push: list[Any]) -> bool | None:
        kind, channel, data = push
        feed = self._feeds.get(channel)
        if kind == b"message":
            if feed is None and channel != self._inbox:
                return None
            try:
                if feed is None:
                    if data:
                        self.inquiries.answered(data)
                    else:
                        self.watch.heard.set()
                    return None
                feed.pushed(data)
            except ValueError as error:
                self.counters["ignored"] += 1
                if self.counters["ignored"] == 1:
                    log.warning("what was published on %r is ignored: %s (told once)", channel, error)
                return None
            return self.bus.is_full(feed.topic)
        if kind == b"subscribe" and feed is not None:
            feed.check(whole=True)  # whatever was published before it is not coming
        elif kind == b"subscribe" and channel == self._inbox:
            self._hearing.works()
        return None

    @property
    def feeds(self) -> list[Feed]:
        """Those of all topics that this process has now."""
        return list(self._feeds.values())

    def begin(self, topic: Topic) -> None:
        feed = Feed(self, topic)
        self._feeds[feed.keys.channel] = feed
        if self._hearing.connection is not None:
            self._hearing.connection.tell(b"SUBSCRIBE", feed.keys.channel)

    def feed(self, topic: Topic) -> Feed:
        """What comes into a topic. Raises :exc:`Unavailable` when that has just gone."""
        feed = self._feeds.get(entries.Keys.of(self.prefix, topic.name).channel)
        if feed is None:
            raise Unavailable("the topic has just gone")
        return feed

    async def _opened(self, topic: str) -> Feed:
        return self.feed(await self.bus.open(topic))

    @asynccontextmanager
    async def _looking(self, topic: Topic) -> AsyncIterator[Feed]:
        feed = self.feed(topic)
        self._check_there()
        try:
            async with asyncio.timeout_at(self._until()):
                yield feed
        except TimeoutError:
            wrong = self.reason or feed.refusal
            raise Unavailable(f"Redis does not say what it has of the topic{wrong}") from None

    async def open(self, topic: Topic) -> None:
        if not topic.opened:
            async with self._looking(topic) as feed:
                await asyncio.shield(feed.opened)

    async def catch_up(self, topic: Topic) -> None:
        async with self._looking(topic) as feed:
            await self._asking.working()
            while not await feed.looked():
                await asyncio.sleep(SOON)
                await self._asking.working()

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        until = [self._until()]
        _ANSWER.set(until)
        try:
            yield
        finally:
            until.clear()  # what was begun meanwhile, and goes on, is for no answer

    def _until(self) -> float:
        """Until when to wait, by the clock of the event loop."""
        now = self._loop.time()
        return max(now + AT_LEAST, min([now + PUBLISH_WITHIN, *_ANSWER.get()]))

    def _check_there(self) -> None:
        """Raises :exc:`Unavailable` at once where waiting would be of no use."""
        if self._asking.away > watch.TOLERATED:
            raise Unavailable(f"Redis is away: {self._asking.why}")

    @property
    def reason(self) -> str:
        """Why Redis does not answer, if that is known."""
        return f": {self._asking.why}" if self._asking.away and self._asking.why else ""

    def close(self, topic: Topic) -> None:
        feed = self.feed(topic)
        del self._feeds[feed.keys.channel]
        feed.close()
        if self._hearing.connection is not None:
            self._hearing.connection.tell(b"UNSUBSCRIBE", feed.keys.channel)

    # What goes

    async def publish(self, topic: Topic, message: Message, once: Once | None = None) -> Position:
        if not topic.opened:
            topic = await self.bus.open(topic.name)  # it may go as soon as it is there
        feed = self.feed(topic)
        if once is None:
            return await self.put(feed, message)
        more = (b"once", b"%d" % (once.window * 1000), once.said.encode())
        return await self.put(feed, message, feed.keys.once(once.key), more, once=once)

    async def put(
        self,
        feed: Feed,
        message: Message | None,
        key: bytes = b"",
        how: tuple[bytes, ...] = (b"",),
        *,
        change: Change | None = None,
        once: Once | None = None,
        about: Message | None = None,
    ) -> Position:
        """Have Redis put a message at the head of a log; returns when it is in the topic.

        ``how`` says what else :data:`PUBLISH` does, and ``about`` what it tells if there is no message.
        """
        self._check_there()
        if message is not None and len(message.payload) > MAX_PAYLOAD:
            raise TooLarge(f"a message of {len(message.payload)} bytes is larger than Redis is to carry")
        number, until = next(self._numbers), self._until()
        entry = b"" if message is None else entries.write(self.node, number, message, change)
        if about is not None:
            note = entries.write(self.node, number, about, change)
            how = (*how, *(b"" for _ in range(3 - len(how))), note)
        pending = feed.pending[number] = Pending(self, feed, message, once)
        timer = self._loop.call_at(until, pending.over)
        topic = feed.topic
        try:
            asking = self._asking.connection
            if asking is None or self._asking.away:
                with contextlib.suppress(TimeoutError):  # then it is over
                    async with asyncio.timeout_at(until):
                        asking = await self._asking.working()
            if asking is not None:
                if asking.backlog > MAX_BACKLOG:
                    raise Unavailable("Redis takes less than is published")
                epoch, left = topic.epoch if topic.opened else "", until - self._loop.time()
                words = (
                    *(b"3", feed.keys.head, feed.keys.log, key or feed.keys.here),
                    *(asking.run_id, self.fresh(), epoch, topic.head, self.oldest(topic)),
                    *(self.stays(topic), self.watch.clock(left * IN_TIME), entry, *how),
                )
                pending.ask(asking, words)
            return await pending.put
        finally:
            timer.cancel()
            given_up = feed.pending.pop(number, None)
            if given_up is not None and message is not None and message.exclude is not None:
                feed.give_up(number, message.exclude)

    def fresh(self) -> str:
        """An epoch that no log has had."""
        return f"{self.node}{next(self._numbers):x}"

    async def asking(self) -> Connection:
        """The connection on which one asks; raises :exc:`Lost` while there is none."""
        if self._asking.away:
            raise Lost(self._asking.why)
        return await self._asking.working()

    async def ask(self, *commands: tuple[bytes | str | int, ...]) -> list[Any]:
        """What Redis answers to some commands; raises :exc:`Unavailable`."""
        self._check_there()
        try:
            async with asyncio.timeout_at(self._until()):
                asking = await self._asking.working()
                return await asyncio.gather(*(asking.ask(*command) for command in commands))
        except (Lost, RedisError, TimeoutError) as error:
            self.refused(error)
            raise Unavailable(f"Redis does not take it: {str(error) or 'no answer'}") from None

    def stays(self, topic: Topic) -> int:
        """How long what is kept of a topic stays when nobody says that it is used, in milliseconds."""
        options = topic.options
        wanted = max(options.lag, options.history_age if options.history else 0.0)
        return int((wanted + STAYS) * 1000)

    def oldest(self, topic: Topic) -> int:
        """The offset of the oldest message that anybody wants."""
        oldest = min(topic.base, topic.head)
        if self.bus.counters["shed"]:  # this process keeps less than is wanted: others may have room
            oldest = max(0, min(oldest, topic.head + 1 - topic.options.history))
        return oldest

    # Who is here

    async def arrive(self, topic: Topic, id: str, told: dict[str, Any], joining: Message | None) -> None:
        await self.members.arrive(self.feed(topic), id, told, joining)

    async def depart(self, topic: Topic, id: str, leaving: Message | None) -> None:
        await self.members.depart(topic, id, leaving)

    async def claim(self, topic: str, key: str, holder: Holder) -> Holder:
        return await self.members.claim(await self._opened(topic), key, holder)

    async def holder(self, topic: str, key: str) -> Holder | None:
        return await self.members.holder(await self._opened(topic), key)

    async def release(self, topic: str, key: str, id: str) -> None:
        keys = entries.Keys.of(self.prefix, topic)
        await self.members.release(self._feeds.get(keys.channel), keys.names, key, id)

    async def everywhere(self, topic: str, request: dict[str, Any]) -> list[Any]:
        return await self.inquiries.ask(await self._opened(topic), request)


@hookimpl
def register_engines() -> dict[str, type[Engine]]:
    return {"redis": Redis}
