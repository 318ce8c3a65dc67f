"""A response that does not end, and says nothing but messages: what event streams and lines share."""

from __future__ import annotations

from functools import cache

from aiohttp import web

from realtime.channel import Channel
from realtime.close_codes import CloseCode, retry
from realtime.encodings import Stream
from realtime.topic import Topic
from realtime.transports.connection import End
from realtime.transports.connections import Connections
from realtime.transports.control import ControlledConnection


@cache
def _form(kind: type[Stream], chunked: bool) -> Stream:
    return kind(chunked=chunked)  # one for all, for what they read is joined once


class StreamConnection(ControlledConnection):
    """A stream to one client, which says nothing.

    ``kind`` is the form of the messages; over HTTP/1.0, which nginx speaks to what is behind it unless it
    is told otherwise, it has no chunks.
    """

    __slots__ = ()

    form: Stream

    def __init__(
        self,
        connections: Connections,
        channel: Channel,
        topic: Topic,
        kind: type[Stream],
        request: web.Request,
    ) -> None:
        super().__init__(connections, channel, topic, _form(kind, request.version >= (1, 1)))
        self.outcome = End(CloseCode.DONE, "the client left")

    def greet(self, introduction: str) -> None:
        """The welcome."""
        self.write(self.form.wrap(self.welcome()))

    def say_goodbye(self, code: int, reason: str) -> None:
        """The last event and the last chunk."""
        self.write(self.form.wrap(self.farewell(code, reason, retry(code))) + self.form.end)
        self.hang_up()

    def farewell(self, code: int, reason: str, after: int | None) -> bytes:
        """The last event, in this transport's way."""
        return self.bye(code, reason, after)

    def look(self, now: float) -> float | None:
        """Give a sign of life when nothing was sent for ``keep_alive``."""
        return None if self.closed else self.keep_alive(now)
