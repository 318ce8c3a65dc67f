"""One publish, from when Redis is asked for it until it is in the topic."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from realtime.engine import Once
from realtime.engines.entries import PUBLISH
from realtime.engines.resp import Connection, Lost, RedisError
from realtime.errors import Rejected, Unavailable
from realtime.message import Message, Position

if TYPE_CHECKING:
    from realtime.engines.feed import Feed
    from realtime.engines.redis import Redis


class Pending:
    """What is asked of Redis by :data:`PUBLISH`, and what comes of it.

    A message is done when it has come into the topic, and not when Redis has answered: an answer may be
    lost. Whatever else is done when Redis says so.
    """

    __slots__ = ("_asked", "_engine", "_feed", "_once", "message", "position", "put")

    def __init__(self, engine: Redis, feed: Feed, message: Message | None, once: Once | None) -> None:
        self.message = message
        #: Set when it is done, to where it stands.
        self.put: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        #: Where it stands, once Redis has said so.
        self.position: Position | None = None
        self._engine, self._feed, self._once, self._asked = engine, feed, once, False

    def ask(self, connection: Connection, words: tuple[Any, ...]) -> None:
        """Have Redis do it, with these arguments of the script."""
        self._asked = True
        answer = connection.ask(b"EVALSHA", PUBLISH.sha, *words)
        answer.add_done_callback(partial(self._answered, connection, words))

    def _answered(self, asked: Connection, words: tuple[Any, ...], answer: asyncio.Future[Any]) -> None:
        if self.put.done() or answer.cancelled():
            answer.cancelled() or answer.exception()
            return
        try:
            epoch, offset, *word = answer.result()
        except Lost as lost:
            if self.message is None:  # else, if it was taken, it comes by the stream
                self.put.set_exception(Unavailable(f"Redis was lost meanwhile: {lost}"))
        except RedisError as error:
            if error.code == "NOSCRIPT":
                again = asked.ask(b"EVAL", PUBLISH.text, *words)
                again.add_done_callback(partial(self._answered, asked, words))
                return
            self._engine.refused(error)
            self.put.set_exception(Unavailable(f"Redis does not take it: {error}"))
        else:
            self._told(Position(epoch.decode(errors="replace"), offset), *word)

    def _told(self, position: Position, word: bytes = b"", said: bytes = b"") -> None:
        if word == b"late":
            self._engine.counters["late"] += 1
            self.put.set_exception(Unavailable("Redis was too slow, and has not taken it"))
        elif word == b"known" and self._once is not None:
            try:
                self._once.check(said.decode())
            except Rejected as rejected:
                self.put.set_exception(rejected)
            else:
                self.put.set_result(position)
        elif word or self._feed.closed:
            self.put.set_result(position)
        else:
            self.position = position
            self._feed.heard(position)

    def over(self) -> None:
        """The time is over, or nothing comes into the topic any more."""
        if self.put.done():
            return
        if self.position is not None:  # it is taken, and comes
            self.put.set_result(self.position)
        else:
            self._engine.counters["unanswered"] += 1
            known = "whether it has taken this is not known" if self._asked else "it has not taken this"
            self.put.set_exception(Unavailable(f"Redis does not answer{self._engine.reason}: {known}"))
