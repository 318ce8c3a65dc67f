"""The bus: every topic of the server, and the one flush that delivers to all of them.

Plugins publish to it and read from it; connections attach a sink to a topic. It knows nothing
of sockets, HTTP or plugins. All of it runs in one thread, that of its event loop.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, Protocol

from realtime.engine import SAYING, Engine, Holder, Once
from realtime.errors import BusError, TooLarge, TooManyTopics, UnknownTopic, did_you_mean
from realtime.log import OVERHEAD
from realtime.message import Message, Position, Since
from realtime.observing import Observation, Subscription
from realtime.topic import MAX_WRITE, Topic, TopicOptions
from realtime.traffic import Histogram, Traffic

log = logging.getLogger("realtime.bus")

#: How long one slice of a flush may hold the event loop, in seconds.
SLICE = 0.010
#: After so many bytes published and not yet flushed, a publisher lets the flush run before it goes
#: on: a burst then becomes several writes instead of pushing healthy readers off the log.
TURN_BYTES = 512 * 1024
#: After so many flushes that carried one message each, at most, a pause is tried anew.
MAX_PATIENCE = 32
#: How many are told something in one turn of the event loop.
TOLD = 100
#: How often topics are looked at for what has aged out, in seconds.
SWEEP = 1.0


class Scheduler(Protocol):
    """What the bus needs of an event loop; an asyncio loop is one."""

    def time(self) -> float: ...
    def call_soon(self, callback: Callable[[], object], /) -> object: ...
    def call_later(self, delay: float, callback: Callable[[], object], /) -> object: ...


async def _nothing(topic: str, request: dict[str, Any]) -> None:
    """Nobody is here."""


class Pace:
    """When the next flush may begin, by the loop's clock.

    After a flush that took a while the next one waits as long, at most a slice, so that a storm gathers
    and leaves as few writes: a thousand joins, ten people talking at once. Where one message comes at
    a time waiting would gain nothing. So a pause is made after a flush that carried more messages than
    topics, and after others now and then, ever more seldom, to see whether one gathers something.
    """

    __slots__ = ("_left", "_patience", "until")

    def __init__(self) -> None:
        self.until = 0.0
        self._patience = self._left = 1

    def flushed(self, began: float, ended: float, gathered: bool) -> None:
        """A flush is over; ``gathered``: it carried more than one message of a topic."""
        self._left -= 1
        if gathered:
            self._patience = self._left = 1
        elif self._left <= 0:
            self._patience = self._left = min(self._patience * 2, MAX_PATIENCE)
        else:
            self.until = 0.0
            return
        self.until = ended + min(ended - began, SLICE)


class Bus:
    """The one object that all plugins share: ``self.bus`` of a channel, ``bus`` of a hook, ``server.bus``.

    All of it is for the server's own thread, but ``publish_threadsafe``.
    """

    def __init__(
        self,
        loop: Scheduler | None = None,
        *,
        topics: int = 10_000,
        memory: int = 256 * 1024 * 1024,
        wall_time: Callable[[], float] = time.time,
    ) -> None:
        """``topics`` is the most topics that may exist at once, ``memory`` the most bytes that all
        their logs may hold together."""
        self._loop: Scheduler = loop or asyncio.get_running_loop()
        self.now = self._loop.time
        #: The time by which messages are stamped, in seconds since 1970; in a test that of its clock.
        self.wall_time = wall_time
        #: What the logs of all topics hold, in bytes.
        self.size: int = 0
        #: yields, lags, laps, missed, overruns, refused, shed (bytes): since the start.
        self.counters: Counter[str] = Counter()
        #: What has gone through the topics of each channel, by its name.
        self.traffic: defaultdict[str, Traffic] = defaultdict(Traffic)
        #: How long published messages took to be handed to each client.
        self.delays = Histogram()
        #: What keeps the logs.
        self.engine = Engine(None, self)
        #: For engines: does in this process what is asked of all; see :meth:`Engine.everywhere`.
        self.respond: Callable[[str, dict[str, Any]], Awaitable[Any]] = _nothing
        self._thread = threading.get_ident()
        self.limit(topics, memory)
        self._declared: dict[str, TopicOptions] = {}
        self._topics: dict[str, Topic] = {}
        # Topics that may be idle, the one that was made first before the others.
        self._vacant: dict[Topic, None] = {}
        #: What whoever comes is told of the engine.
        self.notice: Message | None = None
        #: Who is to know of every topic that comes into being.
        self.observations: dict[Observation, None] = {}
        self._dirty: dict[Topic, None] = {}
        self._scheduled = False
        self._waiting = False  # for the end of a pause
        self._pace = Pace()
        self._published = 0  # messages since the last flush
        self._sweeping = False
        self._unflushed = 0  # bytes published that the flush has not brought to everybody

    def limit(self, topics: int, memory: int) -> None:
        """Set the bounds; what is beyond them goes when next something comes."""
        self._max_topics = topics
        self._max_size = memory
        #: A message with more bytes than these is for :meth:`check_size` to look at.
        self.surely_fits = min(MAX_WRITE, memory) - OVERHEAD

    # Topics

    def declare(self, name: str, options: TopicOptions | None = None) -> None:
        """Allow the topic ``name`` and every ``name/…``. The host does it for each channel.

        Those that exist already keep from now on what the options say.
        """
        options = options or TopicOptions()
        if self._declared.get(name) != options:
            self._declared[name] = options
            for topic in self.of(name):
                topic.keep(options)

    def forget(self, name: str) -> None:
        """Allow no more what was declared; its topics are dropped, and with them what they kept."""
        self._declared.pop(name, None)
        for topic in self.of(name):
            self._drop(topic)

    def of(self, name: str) -> list[Topic]:
        """The topics that exist of what is declared by this name."""
        return [topic for topic in self._topics.values() if topic.name.partition("/")[0] == name]

    def options(self, name: str) -> TopicOptions:
        """What is declared for the topic of that name. Raises :exc:`UnknownTopic` when nothing is."""
        root = name.partition("/")[0]
        options = self._declared.get(root)
        if options is None:
            hint = did_you_mean(root, self._declared)
            if not hint and self._declared:
                hint = f"; a topic begins with a channel's name: {', '.join(self._declared)}"
            raise UnknownTopic(f"no channel declares the topic {name!r}{hint}")
        return options

    def topic(self, name: str) -> Topic:
        """The topic of that name, made on first use.

        One that was just made, of which an engine keeps something, has that after :meth:`open`.
        Raises :exc:`UnknownTopic` when nothing declares it, :exc:`TooManyTopics` at the limit.
        """
        topic = self._topics.get(name)
        return topic if topic is not None else self._make(name)

    async def open(self, name: str, since: Since = None) -> Topic:
        """The same, with what the engine keeps of it, as far as somebody has seen who comes with ``since``.

        Raises :exc:`Unavailable`, too, when the engine does not say within two seconds.
        """
        while not (topic := self.topic(name)).opened:
            await self.engine.open(topic)
        if isinstance(since, Position) and (since.epoch != topic.epoch or since.offset > topic.head):
            await self.engine.catch_up(topic)  # another process may know what this one does not yet
        return topic if self.find(name) is topic else await self.open(name, since)  # it went meanwhile

    def opened(self, topic: Topic) -> None:
        """For engines: the topic has what is kept of it, so what comes from now on is new."""
        topic.opened = True
        for observation in self.observations:
            observation.look_at(topic)

    def find(self, name: str) -> Topic | None:
        """The topic of that name if it exists; nothing is made."""
        return self._topics.get(name)

    @property
    def topics(self) -> list[Topic]:
        """All topics that exist now."""
        return list(self._topics.values())

    def _make(self, name: str) -> Topic:
        topic = Topic(self, name, self.options(name))
        if len(self._topics) >= self._max_topics:
            self._make_room()
        self.engine.begin(topic)  # first: what is in it then is not new, and one that fails is not there
        self._topics[name] = topic
        if name not in self._declared:
            self._vacant[topic] = None
        self._keep_sweeping()
        if not self.engine.shared:
            self.opened(topic)
        return topic

    def _make_room(self) -> None:
        """Nobody is evicted: only a topic where nobody is gives its place."""
        while self._vacant:  # each is asked once until it is left again, however often somebody comes
            topic = next(iter(self._vacant))
            del self._vacant[topic]
            if topic.idle:
                self._drop(topic)
                return
        raise TooManyTopics(f"{self._max_topics} topics are in use; server.limits.topics allows no more")

    def _drop(self, topic: Topic) -> None:
        # First, for to shed may close the last one who lags, who then is said to have left.
        del self._topics[topic.name]
        self._dirty.pop(topic, None)
        self._vacant.pop(topic, None)
        topic.shed(topic.size)
        self.engine.close(topic)

    def left(self, topic: Topic) -> None:
        """Somebody left this topic: it goes when nobody and nothing is in it.

        The topic of a channel without path variables stays, and with it its positions: there
        are no more of them than channels.
        """
        vacant = topic.idle and topic.name not in self._declared
        if vacant and self._topics.get(topic.name) is topic:
            if topic.size:
                self._vacant[topic] = None
            else:
                self._drop(topic)

    def _keep_sweeping(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP, self._sweep)

    def close(self) -> None:
        """Forget every topic; what is published afterwards makes new ones."""
        for topic in self.topics:
            self._drop(topic)

    def _sweep(self) -> None:
        now = self.now()
        for topic in self.topics:
            topic.sweep(now)
            self.left(topic)
        if self.size > self._max_size:  # by what was encoded for those who read it
            self._shed()
        self._sweeping = False
        if self._topics:
            self._keep_sweeping()

    # Publishing

    async def publish(
        self,
        topic: str,
        data: Any,
        *,
        event: str = "message",
        exclude: object = None,
        once: Once | None = None,
    ) -> Position:
        """Publish to a topic; returns when the message has its position.

        Never waits for a subscriber. ``exclude`` is the one client that is not to see it. What was
        published ``once`` already is not again: the position is that of then.
        Raises :exc:`ValueError` for data or an event name that no message can carry,
        :exc:`TooLarge` for what the topic cannot hold, :exc:`BusError` for one that cannot be, and
        :exc:`Unavailable` when the engine does not take it within two seconds.
        """
        if threading.get_ident() != self._thread:
            raise BusError("publish() was called from another thread; use bus.publish_threadsafe() there")
        message = Message.of(data, event=event, time=self.wall_time(), exclude=exclude)
        log_of_topic = self.topic(topic)
        if len(message.payload) > self.surely_fits:
            self.check_size(log_of_topic, message)
        engine = self.engine
        if once is None and engine.shared and (saying := SAYING.get(None)) is not None:
            once = next(saying, None)
        position = await engine.publish(log_of_topic, message, once)
        log_of_topic.traffic.published += 1
        if self.is_full(log_of_topic):
            await self._yield()
        return position

    async def arrive(self, topic: Topic, id: str, told: dict[str, Any], *, aloud: bool) -> None:
        """Somebody is here, of whom this is told; ``aloud``: everybody is told at once."""
        joining = self._of_the_host(topic, told, "realtime:join") if aloud else None
        await self.engine.arrive(topic, id, told, joining)
        topic.traffic.published += aloud
        if self.is_full(topic):
            await self._yield()

    async def depart(self, topic: Topic, id: str, told: dict[str, Any], *, aloud: bool) -> None:
        """The same one is gone."""
        leaving = self._of_the_host(topic, told, "realtime:leave") if aloud else None
        await self.engine.depart(topic, id, leaving)
        topic.traffic.published += aloud
        if self.is_full(topic):
            await self._yield()

    async def _yield(self) -> None:
        self.counters["yields"] += 1
        await asyncio.sleep(0)  # waits for no subscriber: the flush has its turn

    def _of_the_host(self, topic: Topic, data: Any, event: str) -> Message:
        message = Message.of(data, event=event, time=self.wall_time())
        self.check_size(topic, message)
        return message

    @property
    def shared(self) -> bool:
        """Whether other processes have the same topics."""
        return self.engine.shared

    async def claim(self, topic: str, key: str, id: str, about: str = "") -> Holder:
        """Who has something in a topic that only one can have, such as a name or a seat.

        That is the client of this ``id`` from now on, of whom others are told ``about``, unless another
        has it; until :meth:`release`. Raises what :meth:`open` does.
        """
        return await self.engine.claim(topic, key, Holder(id, about))

    async def holder(self, topic: str, key: str) -> Holder | None:
        """Who has it, if anybody has."""
        return await self.engine.holder(topic, key)

    async def release(self, topic: str, key: str, id: str) -> None:
        """It is to be had again, if the client of this id has it."""
        await self.engine.release(topic, key, id)

    def took(self, topic: Topic, size: int) -> None:
        """A topic has one more message, of so many bytes."""
        self._published += 1
        self._unflushed += size
        if self.size > self._max_size:
            self._shed()
        if self._waiting and self.is_full(topic):  # there is enough to be written
            self._waiting = False
            self._loop.call_soon(self._flush)

    def is_full(self, topic: Topic) -> bool:
        """Whether the flush is to have its turn before this topic is given more."""
        return self._unflushed > min(TURN_BYTES, topic.options.lag_bytes // 4)

    def check_size(self, topic: Topic, message: Message) -> None:
        """Refuse what would push off the log whoever does not take it at once, or all else there is.

        Raises :exc:`TooLarge`.
        """
        size = len(message.payload) + OVERHEAD  # as the log counts
        lag_bytes = max(topic.options.lag_bytes, MAX_WRITE)
        most, key = min((lag_bytes, "lag_bytes"), (self._max_size, "server.limits.memory"))
        if size > most:
            self.counters["refused"] += 1
            raise TooLarge(f"a message of {size} bytes is larger than the {most} that {key} allows")

    def publish_threadsafe(
        self, topic: str, data: Any, *, event: str = "message", exclude: object = None
    ) -> Future[Position]:
        """Publish from another thread; the future's result is the position.

        The bus must run on an asyncio loop, as it does in a server.
        """
        assert isinstance(self._loop, asyncio.AbstractEventLoop)
        publishing = self.publish(topic, data, event=event, exclude=exclude)
        return asyncio.run_coroutine_threadsafe(publishing, self._loop)

    def _shed(self) -> None:
        """All logs together are over the bound: the largest give up their oldest tenth."""
        wanted = self.size - int(self._max_size * 0.9)
        for topic in sorted(self._topics.values(), key=lambda topic: topic.size, reverse=True):
            freed = topic.shed(min(wanted, topic.size // 2))
            self.counters["shed"] += freed
            wanted -= freed
            if wanted <= 0:
                break
        log.warning(
            "the topics' logs hold more than server.limits.memory (%d bytes): "
            "gave up the oldest messages of the largest",
            self._max_size,
        )

    # Delivery

    def wake(self, topic: Topic) -> None:
        """A topic has something to write: it is flushed at the end of this turn, or of a pause."""
        self._dirty[topic] = None
        if not self._scheduled:
            self._scheduled = True
            pause = self._pace.until - self.now()
            if pause > 0:
                self._waiting = True
                self._loop.call_later(pause, self._flush)
            else:
                self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = self._waiting = False
        began = self.now()
        deadline = began + SLICE
        messages, self._published = self._published, 0
        topics = 0
        try:
            for topic in list(self._dirty):
                if topic not in self._dirty:
                    continue  # what was just written made it go
                del self._dirty[topic]
                topics += 1
                if not topic.flush(deadline):
                    self.wake(topic)  # at the end of the line: the others come first
                if self.now() > deadline:
                    break
        finally:  # one topic's error is not to stop the others
            self._pace.flushed(began, self.now(), messages > topics)
            if self._dirty and not self._scheduled:
                self._scheduled = True
                self._loop.call_soon(self._flush)
            # Not while a pass is cut: a publisher that went on at full speed through all of its
            # slices would lap those whom it has not come to.
            if not any(topic.flushing for topic in self._dirty):
                self._unflushed = 0

    async def tell(self, message: Message, lasting: bool = False) -> None:
        """For engines: send an event, such as ``realtime:degraded``, to everybody whose form can say it.

        ``lasting``: to whoever comes until another is told, too.
        """
        self.notice = message if lasting else None
        # Whoever begins from here on is told by start(), and is not to be told twice.
        everybody = [one for topic in self.topics for one in (*topic.live, *topic.behind, *topic.lagging)]
        for told, subscriber in enumerate(everybody, 1):
            subscriber.tell(message)
            if told % TOLD == 0:
                await asyncio.sleep(0)  # the others have their turn

    # Reading

    def subscribe(self, topic: str, since: Since = None) -> Subscription:
        """Read a topic in plugin code::

            async with bus.subscribe("lobby") as messages:
                async for message in messages:
                    print(message.data)

        A reader that was left behind gets a ``realtime:gap`` message whose data says how many
        it missed, and goes on; ``realtime:reset`` says that the topic has begun anew. Raises what
        :meth:`open` does when it is entered.
        """
        return Subscription(self, topic, since)

    def observe(self, *patterns: str) -> Observation:
        """Read many topics in plugin code, also those that come into being later::

            async with bus.observe("lobby", "rooms/*") as messages:
                async for topic, message in messages:
                    print(topic, message.data)

        A ``*`` at the end of a pattern stands for anything; without patterns it is all topics. The
        messages of one topic come in their order, and a gap is told as to a :meth:`subscribe`. Raises
        :exc:`UnknownTopic` and :exc:`ValueError` when it is entered.
        """
        return Observation(self, patterns)
