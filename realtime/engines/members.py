"""Who is here, by all processes, and who has what only one can have.

Each topic has a hash of them in Redis. Who comes and goes changes it in the very script that publishes it,
so each process learns of it at the same place in the log. What cannot be said now is said when Redis is
back; and the clients of a process that has gone are seen off by the others, once: a removal tells whether
it was the first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson

from realtime.close_codes import CloseCode
from realtime.engine import Holder
from realtime.engines.entries import CLAIM, RELEASE, Change
from realtime.errors import TooManyTopics, Unavailable, UnknownTopic
from realtime.message import Message

if TYPE_CHECKING:
    from realtime.engines.feed import Feed
    from realtime.engines.redis import Redis
    from realtime.topic import Topic

#: Of what could not be said, so much is tried at once; and if any of it fails, no more until the next look.
AT_ONCE = 100
#: What becomes of who has something that Redis had forgotten, so that another has it now.
LOST = "what only one can have was lost meanwhile, and another has taken it"
TAKEN = {"do": "kick", "name": None, "code": CloseCode.TRY_AGAIN, "reason": LOST}


class Members:
    """Says who is here: the clients of this process until they leave, and nobody of one that is gone."""

    def __init__(self, engine: Redis) -> None:
        self._engine = engine
        # What has not been said yet.
        self._arriving: dict[tuple[Feed, str], None] = {}
        self._leaving: dict[tuple[str, str], Message | None] = {}
        self._releasing: dict[tuple[bytes, str, bytes], None] = {}
        self._claiming: dict[tuple[Feed, str], None] = {}
        self._unsaid: list[tuple[dict[Any, Any], Callable[..., Coroutine[Any, Any, None]]]] = [
            (self._arriving, self._arrive_again),
            (self._leaving, self._depart),
            (self._releasing, self._release),
            (self._claiming, self._claim_again),
        ]
        self._saying = False
        self._spared_until = 0.0

    async def arrive(self, feed: Feed, id: str, told: dict[str, Any], joining: Message | None) -> None:
        """Somebody is here; if it cannot be said now, it is later."""
        feed.own[id] = told, joining
        self._arriving[feed, id] = None
        await self._arrive_again(feed, id)

    async def _arrive(self, feed: Feed, id: str) -> None:
        told, joining = feed.own[id]
        value = Message.of([joining is not None, told, *self._engine.moment()], time=0.0).payload
        how, change = (b"+", id.encode(), value), Change("+", id)
        if joining is not None:
            await self._engine.put(feed, joining, how=how, change=change)
        else:
            about = Message.of(told, time=0.0)
            await self._engine.put(feed, None, how=how, change=change, about=about)
            feed.topic.here[id] = told

    async def depart(self, topic: Topic, id: str, leaving: Message | None) -> None:
        """Somebody is gone; if it cannot be said now, it is later."""
        with contextlib.suppress(Unavailable):  # the topic is no longer there
            self._engine.feed(topic).own.pop(id, None)
        self._leaving[topic.name, id] = leaving
        await self._depart(topic.name, id)

    async def _depart(self, name: str, id: str) -> None:
        leaving = self._leaving.get((name, id))
        how, change = (b"-", id.encode()), Change("-", id)
        about = None if leaving is not None else Message.of(None, time=0.0)
        try:
            topic = await self._engine.bus.open(name)  # it may have gone meanwhile
            await self._engine.put(self._engine.feed(topic), leaving, how=how, change=change, about=about)
        except (Unavailable, TooManyTopics):
            return
        except UnknownTopic:  # there is no such channel any more
            self._leaving.pop((name, id), None)
            return
        self._leaving.pop((name, id), None)
        topic.here.pop(id, None)

    def say_who_left(self) -> None:
        """Say what could not be said: of many, some after the others."""
        if not self._saying and any(unsaid for unsaid, _ in self._unsaid):
            self._saying = True
            self._engine.background(self._say())

    async def _say(self) -> None:
        try:
            for unsaid, say in self._unsaid:
                while some := [*islice(unsaid, AT_ONCE)]:
                    await asyncio.gather(*(say(*what) for what in some))
                    if failed := [what for what in some if what in unsaid]:
                        for what in failed:  # the others come first, next time
                            unsaid[what] = unsaid.pop(what)
                        break
        finally:
            self._saying = False

    def reconcile(self, feed: Feed) -> None:
        """Have Redis know of the clients of this process what is true: who is here, and who is gone."""
        here, name = feed.topic.here, feed.topic.name
        for id in [id for id in feed.own if id not in here]:
            self.come_back(feed, id)
        for id in here.keys() - feed.own.keys():
            if id.partition(".")[0] == self._engine.node and (name, id) not in self._leaving:
                self._gone(feed, id)
        self._claiming.update(((feed, key), None) for key in feed.claims)
        self.say_who_left()

    def come_back(self, feed: Feed, id: str) -> None:
        """Somebody is still here of whom it was said that it is not."""
        self._arriving[feed, id] = None
        self.say_who_left()

    async def _arrive_again(self, feed: Feed, id: str) -> None:
        with contextlib.suppress(Unavailable):  # it stays among them, and is tried again
            if id in feed.own and not feed.closed:
                await self._arrive(feed, id)
            self._arriving.pop((feed, id), None)

    def _gone(self, feed: Feed, id: str) -> None:
        told, leaving = feed.topic.here[id], None
        if id in feed.aloud:
            leaving = Message.of(told, event="realtime:leave", time=self._engine.bus.wall_time())
        self._leaving[feed.topic.name, id] = leaving
        self.say_who_left()

    # Processes that are gone

    def spare(self, seconds: float) -> None:
        """Take no process for gone for so long: Redis was away, and none could say that it is there."""
        self._spared_until = self._engine.bus.now() + seconds

    def bury(self, alive: set[str]) -> None:
        """The clients of all processes but these are gone."""
        if self._engine.bus.now() < self._spared_until:
            return
        for feed in self._engine.feeds:
            for id in list(feed.topic.here):
                if id.partition(".")[0] not in alive and (feed.topic.name, id) not in self._leaving:
                    self._gone(feed, id)

    # What only one can have

    async def claim(self, feed: Feed, key: str, holder: Holder) -> Holder:
        """Who has it: this one from now on, unless another has."""
        value, release = orjson.dumps([*holder]), (feed.keys.names, key, _beginning(holder.id))
        self._releasing.pop(release, None)
        try:
            found = await self._claim(feed, key, value)
        except (Unavailable, asyncio.CancelledError):
            if key not in feed.claims:
                self._releasing[release] = None  # Redis may have taken it all the same
            raise
        if found.id == holder.id:
            feed.claims[key] = value
        return found

    async def _claim(self, feed: Feed, key: str, value: bytes) -> Holder:
        words, garbage = (feed.keys.names, key, value, self._engine.stays(feed.topic)), b""
        while True:
            (kept,) = await self._engine.ask((b"EVAL", CLAIM.text, 1, *words, garbage))
            if (found := _holder(kept)) is not None:
                return found
            garbage = kept  # it is nobody's

    async def holder(self, feed: Feed, key: str) -> Holder | None:
        """Who has it."""
        (kept,) = await self._engine.ask((b"HGET", feed.keys.names, key))
        return _holder(kept)

    async def _claim_again(self, feed: Feed, key: str) -> None:
        with contextlib.suppress(Unavailable):  # it stays among them, and is tried again
            if (mine := _holder(feed.claims.get(key))) is not None:
                found = await self._claim(feed, key, feed.claims[key])
                if found.id != mine.id and key in feed.claims:  # another was quicker
                    await self._engine.bus.respond(feed.topic.name, {**TAKEN, "id": mine.id})
            self._claiming.pop((feed, key), None)

    async def release(self, feed: Feed | None, names: bytes, key: str, id: str) -> None:
        """Nobody has it, if this one had it; if that cannot be said now, it is later."""
        what = names, key, _beginning(id)
        if feed is not None and feed.claims.get(key, b"").startswith(what[2]):
            del feed.claims[key]
        self._releasing[what] = None
        await self._release(*what)

    async def _release(self, *what: Any) -> None:
        with contextlib.suppress(Unavailable):  # it stays among them, and is tried again
            if what in self._releasing:  # else it is claimed again
                await self._engine.ask((b"EVAL", RELEASE.text, 1, *what))
                self._releasing.pop(what, None)


def _beginning(id: str) -> bytes:
    """How the value of a name begins that the client of this id has."""
    return orjson.dumps([id])[:-1] + b","


def _holder(value: bytes | None) -> Holder | None:
    try:
        id, about = orjson.loads(value or b"")
    except (ValueError, TypeError):
        return None  # nobody, or what is none of ours
    return Holder(str(id), str(about))
