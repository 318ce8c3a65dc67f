"""Redis, or Valkey: every process that names the same one has the same topics.

A publish is one script in Redis, which gives the message its place, keeps it and tells every process; the
scripts of one turn of the event loop leave as one write. Each process has two connections: it asks on one,
and what is published comes by the other. Both are tried out every second, from end to end: a connection
that only seems to be there is found out, and replaced. What goes wrong with either costs time, and not
messages: each :class:`Feed` knows how far it has come.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from realtime.bus import Bus
from realtime.engine import Engine, Once
from realtime.engines import entries
from realtime.engines.entries import Change
from realtime.engines.feed import Feed, Pending
from realtime.engines.line import Line
from realtime.engines.resp import Connection, Lost, RedisError, Where
from realtime.errors import StartError, Unavailable
from realtime.hookspecs import hookimpl
from realtime.message import Message, Position
from realtime.topic import Topic
from realtime.values import Model, Secret

log = logging.getLogger("realtime.engine")

#: How long connecting may take at the start, in seconds.
START_WITHIN = 5.0
#: How long a publish may take; when it is sent it says that Redis is not to do it later than a little less.
PUBLISH_WITHIN = 2.0
MARGIN = 0.4
#: How often both connections are tried out, and how long an answer may take, in seconds.
PROBE = 1.0
ANSWER_WITHIN = 2.0
#: So long may Redis be away before anybody is told, in seconds.
TOLERATED = 1.0
#: A process that has said nothing for so long is gone, and all who were here by it, in seconds.
LEASE = 10.0
#: The log of a topic stays so much longer than any message of it is wanted, in seconds, …
STAYS = 600.0
#: … and each process that has the topic says again that it does once in so many looks.
TOUCH = 30
#: What everybody is told while Redis is away.
UNKEPT = "the server cannot keep messages now, so it takes none"
#: How many topics are looked at at once.
LOOKERS = 64


def _url(value: Secret) -> Secret:
    Where.parse(value.get_secret_value())
    return value


class Redis(Engine):
    """The engine ``redis``."""

    class Settings(Model):
        """The section ``bus`` with ``engine: redis``."""

        url: Annotated[Secret, AfterValidator(_url)]
        """where: `redis://USER:PASSWORD@HOST:6379/0`, `rediss://` with TLS, `unix:///PATH?db=0`"""

        prefix: Annotated[str, Field(pattern="[A-Za-z0-9_.-]{1,64}")] = "realtime"
        """what the names of all keys begin with: two sites with other prefixes share nothing"""

    settings: Settings
    shared: ClassVar[bool] = True

    def __init__(self, settings: Settings, bus: Bus) -> None:
        super().__init__(settings, bus)
        self.node = secrets.token_hex(4)
        self.where = Where.parse(settings.url.get_secret_value())
        #: Since the start: reconnects, filled, lost, resets, ignored, late, unanswered.
        self.counters: Counter[str] = Counter()
        #: Which Redis it is; another one after each of its starts, and after a failover.
        self.run_id = ""
        self.lookers = asyncio.Semaphore(LOOKERS)
        self._loop = asyncio.get_running_loop()
        self._feeds: dict[bytes, Feed] = {}  # by their channels
        self._numbers = itertools.count(1)
        name = f"realtime-{self.node}"
        self._asking = Line(self.where, f"{name}-asks", self._ask_on)
        self._hearing = Line(self.where, f"{name}-hears", self._hear_on, self._pushed)
        self._skew = 0.0  # Redis's clock less that of the loop, in seconds
        self._probe_channel = f"{settings.prefix}:probe:{self.node}".encode()
        self._nodes = f"{settings.prefix}:nodes".encode()
        self._heard = asyncio.Event()  # the probe has come back
        self._alone_until = 0.0  # others may be there, and have had no time to say so
        self._told = False
        self._looks = 0
        self._leaving: dict[tuple[str, str], Message | None] = {}  # what could not be said yet
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
                await asyncio.sleep(0.01)
            keepers.append(asyncio.create_task(self._watch(), name="redis: probing"))
            yield
        finally:
            tasks = [*keepers, *self._tasks]
            if self._asking.connection is not None and not self.trouble:
                _forget(self._asking.connection.ask(b"ZREM", self._nodes, self.node))
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for feed in list(self._feeds.values()):
                feed.close()

    def _ask_on(self, connection: Connection) -> None:
        moved, self.run_id = connection.run_id != self.run_id, connection.run_id
        for script in (PUBLISH, SYNC):
            _forget(connection.ask(b"SCRIPT", b"LOAD", script.text))
        self._background(self._begin_asking(connection, moved))

    async def _begin_asking(self, connection: Connection, moved: bool) -> None:
        try:
            await self._synchronize(connection)
        except (Lost, RedisError, TimeoutError) as error:
            connection.abort(str(error) or "no answer")
            return
        if self._asking.away > TOLERATED:
            self._alone_until = self._loop.time() + LEASE
        self._asking.works()
        for feed in list(self._feeds.values()):
            if moved or feed.due:
                feed.check(whole=moved)
        self._say_who_left()

    def _hear_on(self, connection: Connection) -> None:
        connection.tell(b"SUBSCRIBE", self._probe_channel)
        channels = list(self._feeds)
        for start in range(0, len(channels), 1000):
            connection.tell(b"SUBSCRIBE", *channels[start : start + 1000])

    async def _synchronize(self, connection: Connection) -> None:
        """Set one's watch by that of Redis, and say that this process is there."""
        async with asyncio.timeout(ANSWER_WITHIN):
            seconds, micros = await connection.ask(b"TIME")
            self._skew = int(seconds) + int(micros) / 1e6 - self._loop.time()
            await connection.ask(b"ZADD", self._nodes, b"%d" % self._clock(LEASE), self.node)

    def _clock(self, later: float = 0.0) -> int:
        """What Redis's clock says, now or so many seconds later, in milliseconds."""
        return int((self._loop.time() + self._skew + later) * 1000)

    # Whether it is there

    async def _watch(self) -> None:
        while True:
            try:
                await self._probe()
            except (Lost, RedisError, TimeoutError) as error:
                log.debug("the probe of Redis: %s", error)
            self._look()
            await asyncio.sleep(PROBE)

    async def _probe(self) -> None:
        """Whether what is asked is answered, and what is published comes back."""
        asking, hearing = self._asking.connection, self._hearing.connection
        if asking is None or self._asking.away:
            return
        self._heard.clear()
        _forget(asking.ask(b"PUBLISH", self._probe_channel, b""))
        try:
            await self._synchronize(asking)
            alive = await asking.ask(b"ZRANGEBYSCORE", self._nodes, b"%d" % self._clock(), b"+inf")
        except TimeoutError:
            asking.abort(f"Redis has not answered for {ANSWER_WITHIN:g}s")
            return
        self._bury({node.decode() for node in alive})
        if hearing is None:
            return
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                await self._heard.wait()
        except TimeoutError:
            hearing.abort("what is published does not come back")  # nothing, if it was lost meanwhile

    def _look(self) -> None:
        """Once a probe: tell whoever should know, and see to what is left to do."""
        self._looks += 1
        self.counters["reconnects"] = self._asking.lost + self._hearing.lost
        away = [line for line in (self._asking, self._hearing) if line.away > TOLERATED]
        if away:
            if not self.trouble:
                log.error("Redis at %s is away: %s", self.where, away[0].why)
            self.trouble = f"Redis is away: {away[0].why}"
        elif self.trouble and not any(feed.due for feed in self._feeds.values()):
            self.trouble = ""
            log.warning("Redis at %s is back", self.where)
        if bool(self.trouble) is not self._told:
            self._told = bool(self.trouble)
            event, data = ("degraded", {"reason": UNKEPT}) if self._told else ("restored", {})
            notice = Message.of(data, event=f"realtime:{event}", time=self.bus.wall_time())
            self._background(self.bus.tell(notice, self._told))
        if not self._asking.away:
            for number, feed in enumerate(list(self._feeds.values())):
                if feed.due or self._hearing.away or (number + self._looks) % TOUCH == 0:
                    feed.check()
            self._say_who_left()

    def refused(self, error: RedisError) -> None:
        """Redis does not do what it is to do; where another might, or this one later, connect anew."""
        log.warning("Redis at %s answers: %s", self.where, error)
        if error.code in ("READONLY", "LOADING", "MASTERDOWN", "NOAUTH", "CLUSTERDOWN"):
            self._asking.abort(str(error))

    def _background(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # What comes

    def _pushed(self, push: list[Any]) -> bool | None:
        kind, channel, data = push
        feed = self._feeds.get(channel)
        if kind == b"message":
            if feed is None:
                if channel == self._probe_channel:
                    self._heard.set()
                return None
            try:
                feed.pushed(data)
            except ValueError as error:
                self.counters["ignored"] += 1
                if self.counters["ignored"] == 1:
                    log.warning("what was published on %r is ignored: %s (told once)", channel, error)
                return None
            return self.bus.is_full(feed.topic)
        if kind == b"subscribe" and feed is not None:
            feed.check(whole=True)  # whatever was published before it is not coming
        elif kind == b"subscribe" and channel == self._probe_channel:
            self._hearing.works()
        return None

    def begin(self, topic: Topic) -> None:
        feed = Feed(self, topic)
        self._feeds[feed.keys.channel] = feed
        if self._hearing.connection is not None:
            self._hearing.connection.tell(b"SUBSCRIBE", feed.keys.channel)

    def _feed(self, topic: Topic) -> Feed | None:
        return self._feeds.get(entries.Keys.of(self.settings.prefix, topic.name).channel)

    async def open(self, topic: Topic) -> None:
        feed = self._feed(topic)
        if feed is None or topic.opened:
            return
        self._check_there()
        try:
            async with asyncio.timeout(PUBLISH_WITHIN):
                await asyncio.shield(feed.opened)
        except TimeoutError:
            raise Unavailable(f"Redis does not answer{self._reason}") from None

    def _check_there(self) -> None:
        """Raises :exc:`Unavailable` at once where waiting would be of no use."""
        if self._asking.away > TOLERATED:
            raise Unavailable(f"Redis is away: {self._asking.why}")

    @property
    def _reason(self) -> str:
        return f": {self._asking.why}" if self._asking.away and self._asking.why else ""

    def close(self, topic: Topic) -> None:
        feed = self._feed(topic)
        if feed is not None and feed.topic is topic:
            del self._feeds[feed.keys.channel]
            feed.close()
            if self._hearing.connection is not None:
                self._hearing.connection.tell(b"UNSUBSCRIBE", feed.keys.channel)

    # What goes

    async def publish(self, topic: Topic, message: Message, once: Once | None = None) -> Position:
        if not topic.opened:
            await self.open(topic)
        feed = self._feed(topic)
        if feed is None:
            raise Unavailable("the topic has just gone")
        if once is None:
            return await self._put(feed, message)
        window = b"%d" % (once.window * 1000)
        more = (b"once", window, once.said.encode())
        return await self._put(feed, message, feed.keys.once(once.key), more, once=once)

    async def _put(
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
        """Have Redis put a message at the head of a log; returns when it is in the topic."""
        self._check_there()
        number, until = next(self._numbers), self._loop.time() + PUBLISH_WITHIN
        entry = b"" if message is None else entries.write(self.node, number, message, change)
        if about is not None:  # what is told, and is no message
            how = (
                *how,
                *(b"" for _ in range(3 - len(how))),
                entries.write(self.node, number, about, change),
            )
        pending = Pending(message or Message("", "text", b"", 0.0), self._loop.create_future())
        topic = feed.topic
        if message is not None:
            feed.pending[number] = pending
        try:
            async with asyncio.timeout_at(until):
                try:
                    epoch, offset, *word = await self._call(
                        PUBLISH,
                        (feed.keys.head, feed.keys.log, key or feed.keys.here),
                        lambda: (
                            secrets.token_hex(4),
                            topic.epoch if topic.opened else "",
                            topic.head,
                            min(topic.base, topic.head),
                            self._stays(topic),
                            self._clock(until - MARGIN - self._loop.time()),
                            entry,
                            *how,
                        ),
                    )
                except Lost:
                    if message is None:
                        raise Unavailable(f"Redis was lost meanwhile{self._reason}") from None
                    return await asyncio.shield(pending.put)  # if it was taken it comes by the stream
                if word and word[0] == b"late":
                    self.counters["late"] += 1
                    raise Unavailable("Redis was too late for it")
                position = Position(epoch.decode(), offset)
                if word:
                    if once is not None:
                        once.check(word[1].decode())
                    return position
                pending.position = position
                if feed.closed:
                    return position
                feed.heard(position)
                return await asyncio.shield(pending.put)
        except TimeoutError:
            if pending.put.done():  # in this very moment
                return pending.put.result()
            if pending.position is not None:  # it is taken, and comes
                return pending.position
            self.counters["unanswered"] += 1
            raise Unavailable(f"Redis does not answer{self._reason}") from None
        except RedisError as error:
            self.refused(error)
            raise Unavailable(f"Redis does not take it: {error}") from None
        finally:
            feed.pending.pop(number, None)

    def _stays(self, topic: Topic) -> int:
        options = topic.options
        wanted = max(options.lag, options.history_age if options.history else 0.0)
        return int((wanted + STAYS) * 1000)

    async def _call(
        self, script: Script, keys: tuple[bytes, ...], arguments: Callable[[], tuple[Any, ...]]
    ) -> Any:
        """The answer of a script; raises :exc:`Lost` or :exc:`RedisError`."""
        asking = await self._asking.working()
        words = (b"%d" % len(keys), *keys, *arguments())
        try:
            return await asking.ask(b"EVALSHA", script.sha, *words)
        except RedisError as error:
            if error.code != "NOSCRIPT":
                raise
            return await asking.ask(b"EVAL", script.text, *words)

    async def sync(
        self, feed: Feed, epoch: str, known: int, token: bytes, moved: bool, most: int, whole: bool
    ) -> tuple[str, int, list[Any], list[bytes]]:
        """What a log has after an offset, at most so many entries; and who is here, if ``whole``."""
        if self._asking.away:
            raise Lost(self._asking.why)
        topic = feed.topic
        oldest = min(topic.base, topic.head) if topic.opened else 0
        now_epoch, head, found, members = await self._call(
            SYNC,
            (feed.keys.head, feed.keys.log, feed.keys.here),
            lambda: (
                secrets.token_hex(4),
                epoch,
                known,
                token,
                int(moved),
                most,
                self._stays(topic),
                oldest,
                int(whole),
            ),
        )
        return now_epoch.decode(), head, found, members

    # Who is here

    async def arrive(self, topic: Topic, id: str, told: dict[str, Any], joining: Message | None) -> None:
        feed = self._feed(topic)
        if feed is None:
            raise Unavailable("the topic has just gone")
        feed.own[id] = told, joining
        await self._arrive_again(feed, id)

    async def _arrive(self, feed: Feed, id: str) -> None:
        told, joining = feed.own[id]
        about = Message.of(told, time=self.bus.wall_time())
        value = Message.of([joining is not None, told], time=0.0).payload
        how, change = (b"+", id.encode(), value), Change("+", id)
        if joining is not None:
            await self._put(feed, joining, how=how, change=change)
        else:
            await self._put(feed, None, how=how, change=change, about=about)
            feed.topic.here[id] = told

    async def depart(self, topic: Topic, id: str, leaving: Message | None) -> None:
        feed = self._feed(topic)
        if feed is not None:
            feed.own.pop(id, None)
        self._leaving[topic.name, id] = leaving
        await self._depart(topic.name, id)

    async def _depart(self, name: str, id: str) -> None:
        """Say that somebody is gone; if it cannot be said now, it is later."""
        topic, leaving = self.bus.find(name), self._leaving.get((name, id))
        feed = self._feed(topic) if topic is not None else None
        if feed is None:
            return
        how, change = (b"-", id.encode()), Change("-", id)
        about = None if leaving is not None else Message.of(None, time=0.0)
        try:
            await self._put(feed, leaving, how=how, change=change, about=about)
        except Unavailable:
            return
        self._leaving.pop((name, id), None)
        feed.topic.here.pop(id, None)

    def _say_who_left(self) -> None:
        for name, id in list(self._leaving):
            if self.bus.find(name) is None:
                del self._leaving[name, id]  # whoever has the topic next finds out
            else:
                self._background(self._depart(name, id))

    def reconcile(self, feed: Feed) -> None:
        """What Redis has of those who are here by this process is to be what is true."""
        here, name = feed.topic.here, feed.topic.name
        for id in feed.own.keys() - here.keys():
            self._background(self._arrive_again(feed, id))
        for id in here.keys() - feed.own.keys():
            if id.partition(".")[0] == self.node and (name, id) not in self._leaving:
                self._gone(feed, id)

    async def _arrive_again(self, feed: Feed, id: str) -> None:
        try:
            if id in feed.own:
                await self._arrive(feed, id)
        except Unavailable:
            feed.check(whole=True)

    def _gone(self, feed: Feed, id: str) -> None:
        told, leaving = feed.topic.here[id], None
        if id in feed.aloud:
            leaving = Message.of(told, event="realtime:leave", time=self.bus.wall_time())
        self._leaving[feed.topic.name, id] = leaving
        self._background(self._depart(feed.topic.name, id))

    def _bury(self, alive: set[str]) -> None:
        """Those who were here by a process that is gone are gone."""
        if self._loop.time() < self._alone_until:
            return
        for feed in list(self._feeds.values()):
            for id in list(feed.topic.here):
                if id.partition(".")[0] not in alive and (feed.topic.name, id) not in self._leaving:
                    self._gone(feed, id)


class Script:
    """A script, and the name by which Redis knows it."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.sha = hashlib.sha1(text, usedforsecurity=False).hexdigest()


PUBLISH, SYNC = Script(entries.PUBLISH), Script(entries.SYNC)


def _forget(answer: asyncio.Future[Any]) -> None:
    """Nobody waits for this answer."""
    answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())


@hookimpl
def register_engines() -> dict[str, type[Engine]]:
    return {"redis": Redis}
