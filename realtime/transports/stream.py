"""A response that does not end: lines of JSON (NDJSON), and what event streams have in common with them."""

from __future__ import annotations

from functools import cache

from aiohttp import web

from realtime.channel import Channel, Transport
from realtime.close_codes import CloseCode, End, retry
from realtime.encodings import EventStream, Lines, ProfiledEventStream, Stream
from realtime.topic import Topic
from realtime.transports.connections import Connections
from realtime.transports.control import ControlledConnection
from realtime.transports.negotiation import wants_profile


def form_of(request: web.Request, transport: Transport) -> Stream:
    """The form of the stream that a request asks for.

    Over HTTP/1.0, which nginx speaks to what is behind it unless it is told otherwise, it has no chunks.
    """
    kind: type[Stream] = Lines
    if transport == "sse":
        kind = ProfiledEventStream if wants_profile(request) else EventStream
    return _shared(kind, request.version >= (1, 1))


@cache
def _shared(kind: type[Stream], chunked: bool) -> Stream:
    return kind(chunked=chunked)  # one for all, for what they read is joined once


class StreamConnection(ControlledConnection):
    """A stream to one client, which says nothing. Lines of JSON are one as it stands here."""

    __slots__ = ()

    form: Stream

    def __init__(self, connections: Connections, channel: Channel, topic: Topic, form: Stream) -> None:
        super().__init__(connections, channel, topic, form)
        self.outcome = End(CloseCode.DONE, "the client left")

    def say_goodbye(self, code: int, reason: str) -> None:
        """The last event and the last chunk."""
        self.write(self.form.wrap(self.bye(code, reason, retry(code))) + self.form.end)
        self.hang_up()

    def look(self, now: float) -> float | None:
        """Give a sign of life when nothing was sent for ``keep_alive``."""
        return None if self.closed else self.keep_alive(now)
