"""Reading in plugin code: one topic, or many, those that come into being, too."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from realtime.log import Resume
from realtime.message import Message, Since

if TYPE_CHECKING:
    from realtime.bus import Bus
    from realtime.topic import Topic


class Place:
    """Where an observation stands in one topic; it is one of the topic's readers."""

    __slots__ = ("cursor", "due", "end", "epoch", "observation", "topic")

    def __init__(self, observation: Observation, topic: Topic) -> None:
        self.observation = observation
        self.topic = topic
        self.cursor, self.epoch = topic.head, topic.epoch
        self.end = sys.maxsize  # it reads no further
        self.due = False

    def set(self) -> None:
        """The topic has something new."""
        if not self.due:
            self.due = True
            self.observation.come(self)


class Observation:
    """An iterator over the messages of many topics, each with the name of its topic.

    It begins when it is entered. When it is left, what was published until then still comes; then
    it ends. So a service that leaves it before its task has read everything loses nothing.
    """

    def __init__(self, bus: Bus, patterns: Sequence[str]) -> None:
        self._bus = bus
        self._patterns = patterns or ["*"]
        self._due: deque[Place] = deque()  # where there is something to read, one after the other
        self._news = asyncio.Event()
        self._left = False

    async def __aenter__(self) -> Observation:
        for pattern in self._patterns:
            if not pattern or "*" in pattern[:-1]:
                raise ValueError(
                    f"{pattern!r} is no topic such as rooms/blue, nor a beginning such as rooms/*"
                )
            if "*" not in pattern.partition("/")[0]:
                self._bus.options(pattern)
        self._bus.observations[self] = None
        for topic in self._bus.topics:
            if topic.opened:
                self.look_at(topic)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._bus.observations.pop(self, None)
        for topic in self._bus.topics:
            for place in [each for each in topic.readers if isinstance(each, Place)]:
                if place.observation is self:
                    del topic.readers[place]
                    topic.observers -= 1
        for place in self._due:
            place.end = place.topic.head
        self._left = True
        self._news.set()

    def look_at(self, topic: Topic) -> None:
        """A topic is there: whether it is one of these was to be asked once."""
        for pattern in self._patterns:
            if topic.name.startswith(pattern[:-1]) if pattern.endswith("*") else topic.name == pattern:
                topic.readers[Place(self, topic)] = None
                topic.observers += 1
                return

    def come(self, place: Place) -> None:
        """There is something to read at a place."""
        self._due.append(place)
        self._news.set()

    def __aiter__(self) -> Observation:
        return self

    async def __anext__(self) -> tuple[str, Message]:
        while not self._due:
            if self._left:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        place = self._due.popleft()
        topic = place.topic
        if topic.epoch != place.epoch:
            place.epoch = topic.epoch
            place.cursor, _ = topic.seek("earliest")
            message = topic.marker(Resume("reset"), place.cursor)
        elif place.cursor + 1 < topic.base:
            before, place.cursor = place.cursor, min(topic.base - 1, place.end)
            message = topic.marker(Resume("gap", place.cursor - before), place.cursor)
        else:
            place.cursor += 1
            message = topic.entry(place.cursor).message
        place.due = place.cursor < min(topic.head, place.end)
        if place.due:
            self._due.append(place)  # at the end of the line: a busy topic does not hold up the others
        return topic.name, message


class Subscription:
    """The messages of one topic, from the moment it is entered: ``async with``, and ``async for`` in it.

    It waits for what comes, and ends when it is left. Each has its own place: none takes from another.
    """

    def __init__(self, bus: Bus, topic: str, since: Since) -> None:
        self._bus = bus
        self._name = topic
        self._since = since
        self._news = asyncio.Event()
        self._topic: Topic | None = None
        self._cursor, self._epoch = 0, ""
        self._resumed = Resume("new")

    async def __aenter__(self) -> Subscription:
        self._topic = topic = await self._bus.open(self._name, self._since)
        self._cursor, self._resumed = topic.seek(self._since)
        self._epoch = topic.epoch
        topic.readers[self._news] = None
        return self

    async def __aexit__(self, *error: object) -> None:
        topic, self._topic = self._topic, None
        if topic is not None:
            del topic.readers[self._news]
            self._bus.left(topic)
            self._news.set()

    def __aiter__(self) -> Subscription:
        if self._topic is None:
            raise RuntimeError("a subscription is read inside 'async with bus.subscribe(…) as messages'")
        return self

    async def __anext__(self) -> Message:
        resumed, self._resumed = self._resumed, Resume("new")
        while True:
            topic = self._topic
            if topic is None:
                raise StopAsyncIteration
            if topic.epoch != self._epoch:
                self._epoch, resumed = topic.epoch, Resume("reset")
                self._cursor, _ = topic.seek("earliest")
            if resumed.lossy:
                return topic.marker(resumed, self._cursor)
            if self._cursor + 1 < topic.base:
                missed = topic.base - 1 - self._cursor
                self._cursor += missed
                return topic.marker(Resume("gap", missed), self._cursor)
            if self._cursor < topic.head:
                self._cursor += 1
                return topic.entry(self._cursor).message
            self._news.clear()
            await self._news.wait()
