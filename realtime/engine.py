"""What keeps the logs of the bus: the contract of an engine, and the one that needs nothing.

The bus delivers from its topics. With the engine ``memory`` they are all there is. With one that other
processes have, too, a topic is a copy of what the engine keeps: a message comes into it when the engine
says that it has it, and at the place that the engine says.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from realtime.errors import Rejected
from realtime.message import Message, Position

if TYPE_CHECKING:
    from realtime.bus import Bus
    from realtime.topic import Topic


class Once(NamedTuple):
    """What is to be published once only, however often it is asked for."""

    #: Names it within its topic; at most 255 printable characters.
    key: str
    #: For how long it is remembered, in seconds.
    window: float
    #: Stands for what was said: the same key with another one is a mistake, and is refused (422).
    said: str = ""

    def check(self, said: str) -> None:
        """Raises :exc:`Rejected` if something else was said under the key."""
        if said != self.said:
            raise Rejected(f"the key {self.key!r} came with another message", 422)


class Holder(NamedTuple):
    """Who has something in a topic that only one can have, such as a name; see :meth:`Bus.claim`."""

    #: The client's.
    id: str
    #: What others are to know of it.
    about: str = ""


#: How what is published on behalf of one message of a client is kept from being published twice, when that
#: message comes again, to another process.
SAYING: ContextVar[Iterator[Once] | None] = ContextVar("SAYING")
#: The most keys that the engine ``memory`` remembers; the oldest are forgotten before their time.
MAX_KEYS = 100_000


class Engine:
    """Where the bus keeps its logs; this one keeps them in the process.

    One that other processes share makes each topic a copy of what it keeps: ``topic.restore`` and, for the
    first time, ``bus.opened(topic)``; then ``topic.append`` for each message, ``topic.skip`` over what is
    lost, ``topic.restore`` for another log, ``topic.here`` for who is here, and ``bus.tell`` for what
    everybody is to know of it.

    A plugin offers others by the hook ``register_engines``; one is made for each server, with what the
    config has under ``bus`` and the bus. All of it runs in the server's thread.
    """

    #: Whether other processes can have the same topics.
    shared: ClassVar[bool] = False

    def __init__(self, settings: Any, bus: Bus) -> None:
        self.settings = settings
        self.bus = bus
        #: What the ids of this process's clients begin with, so that no other has the same.
        self.node = ""
        #: Why nothing can be published now, in words; ``""`` while it can.
        self.trouble = ""
        self._holders: dict[tuple[str, str], Holder] = {}
        self._published: OrderedDict[tuple[str, str], tuple[float, str, Position]] = OrderedDict()

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """What lives as long as the server: entered before the channels begin, left when all are gone.

        Raises :exc:`StartError` with a sentence when the engine cannot be reached.
        """
        yield

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """All that is asked of the engine meanwhile is for one answer, which is to come in time."""
        yield

    def begin(self, topic: Topic) -> None:
        """The topic has been made in this process: what the engine keeps of it is to come into it."""

    async def open(self, topic: Topic) -> None:
        """Returns when a topic that has been made has what the engine keeps of it.

        Raises :exc:`Unavailable` if that takes too long.
        """

    async def catch_up(self, topic: Topic) -> None:
        """Returns when a topic has all that the engine has of it now; raises :exc:`Unavailable`, too."""

    def close(self, topic: Topic) -> None:
        """The topic is used no more in this process."""

    async def publish(self, topic: Topic, message: Message, once: Once | None = None) -> Position:
        """Put a message at the head of a topic's log; returns when it is there, and in the topic.

        Raises :exc:`Unavailable` if that is not possible.
        """
        if once is None:
            return topic.append(message)
        name, now, published = (topic.name, once.key), self.bus.now(), self._published
        until, said, position = published.get(name, (now, "", topic.position))
        if until > now:
            once.check(said)
            return position
        while published and (len(published) >= MAX_KEYS or next(iter(published.values()))[0] <= now):
            published.popitem(last=False)
        position = topic.append(message)
        published[name] = now + once.window, once.said, position
        published.move_to_end(name)
        return position

    async def arrive(self, topic: Topic, id: str, told: dict[str, Any], joining: Message | None) -> None:
        """One more is here, of whom this is told; ``joining``, if any, is published in the same moment."""
        topic.here[id] = told
        if joining is not None:
            topic.append(joining)

    async def depart(self, topic: Topic, id: str, leaving: Message | None) -> None:
        """One who has arrived is gone; ``leaving``, if any, is published in the same moment."""
        if topic.here.pop(id, None) is not None and leaving is not None:
            topic.append(leaving)

    async def claim(self, topic: str, key: str, holder: Holder) -> Holder:
        """Who has something in a topic that only one can have: this one from now on, unless another has."""
        return self._holders.setdefault((topic, key), holder)

    async def holder(self, topic: str, key: str) -> Holder | None:
        """Who has it, if anybody has."""
        return self._holders.get((topic, key))

    async def release(self, topic: str, key: str, id: str) -> None:
        """It is to be had again, if the client of this id has it."""
        if (holder := self._holders.get((topic, key))) is not None and holder.id == id:
            del self._holders[topic, key]

    async def everywhere(self, topic: str, request: dict[str, Any]) -> list[Any]:
        """Have every process that has the topic do something; what each answers (:meth:`Bus.respond`)."""
        return [await self.bus.respond(topic, request)]
