"""What is asked of every process that has a topic, and what they answer.

The question goes out on the channel of the topic, the answers come on that of the process that asks.
Nothing of it is kept: a process that is not there has nothing to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from typing import TYPE_CHECKING, Any

import orjson

from realtime.engines.entries import REQUEST
from realtime.errors import Unavailable

if TYPE_CHECKING:
    from realtime.engines.feed import Feed
    from realtime.engines.redis import Redis
    from realtime.topic import Topic

log = logging.getLogger("realtime.engine")

#: How long the others may take to answer, in seconds: as long as a client that they ping, and then some.
ANSWERED_WITHIN = 4.0


class Inquiries:
    """The questions of this process that are open."""

    def __init__(self, engine: Redis) -> None:
        self._engine = engine
        self._numbers = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._news = asyncio.Event()

    async def ask(self, feed: Feed, request: dict[str, Any]) -> list[Any]:
        """What those answer in time who have the topic; raises :exc:`Unavailable` where nobody is asked.

        And where the process of the client that it is about is there, and does not answer.
        """
        number, engine = next(self._numbers), self._engine
        question = REQUEST + b"\n" + orjson.dumps([engine.node, number, request])
        answers: dict[str, Any] = self._answers.setdefault(number, {})
        there = b"ZRANGEBYSCORE", f"{engine.prefix}:nodes", engine.moment()[0], b"+inf"
        try:
            alive, wanted = await engine.ask(there, (b"PUBLISH", feed.keys.channel, question))
            if engine.node.encode() in alive:  # who listens and is none of these says nothing
                wanted = min(wanted, len(alive))
            with contextlib.suppress(TimeoutError):  # who is not there has nothing to say
                async with asyncio.timeout(ANSWERED_WITHIN):
                    while len(answers) < wanted:
                        self._news.clear()
                        await self._news.wait()
        finally:
            del self._answers[number]
        # Its line, or that of this process, may be away: whether it is there nobody knows.
        if (whose := str(request.get("id")).partition(".")[0]).encode() in alive and whose not in answers:
            raise Unavailable("the process of that client does not answer")
        return [*answers.values()]

    def asked(self, topic: Topic, question: bytes) -> None:
        """A question has come. Raises :exc:`ValueError` for what is none."""
        match orjson.loads(question):
            case [str(node), int(number), dict(request)]:
                self._engine.background(self._answer(topic, node, number, request))
            case _:
                raise ValueError(f"{question[:60]!r} is no question")

    async def _answer(self, topic: Topic, node: str, number: int, request: dict[str, Any]) -> None:
        """Do what a process wants of all, and say what came of it."""
        try:
            answer = await self._engine.bus.respond(topic.name, request)
            said = orjson.dumps([number, self._engine.node, answer])
            await self._engine.ask((b"PUBLISH", self._engine.inbox(node), said))
        except Exception:  # a plugin's, or of whoever else publishes here, or nobody is there any more
            log.exception("what was asked of all processes with %r could not be done", topic.name)

    def answered(self, data: bytes) -> None:
        """An answer has come. Raises :exc:`ValueError` for what is none."""
        match orjson.loads(data):
            case [int(number), str(node), answer]:
                self._answers.get(number, {})[node] = answer
                self._news.set()
            case _:
                raise ValueError(f"{data[:60]!r} is no answer")
