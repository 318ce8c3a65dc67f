"""Server-sent events (HTML standard, section 9.2): a response that does not end."""

from __future__ import annotations

from aiohttp import web

from realtime.channel import Channel
from realtime.close_codes import CloseCode, retry
from realtime.encodings import EventStream
from realtime.topic import Topic
from realtime.transports.connection import End
from realtime.transports.connections import Connections
from realtime.transports.control import ControlledConnection

CHUNKED = EventStream(chunked=True)
#: For HTTP/1.0, which nginx speaks to what is behind it unless it is told otherwise.
UNCHUNKED = EventStream(chunked=False)

HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "Vary": "Accept, Sec-Fetch-Mode",
    "X-Accel-Buffering": "no",  # nginx: hand on each event as it comes
}


class EventStreamConnection(ControlledConnection):
    """A stream of events to one client, which says nothing."""

    __slots__ = ()

    form: EventStream

    def __init__(
        self, connections: Connections, channel: Channel, topic: Topic, request: web.Request
    ) -> None:
        super().__init__(connections, channel, topic, CHUNKED if request.version >= (1, 1) else UNCHUNKED)
        self.outcome = End(CloseCode.DONE, "the client left")

    def greet(self, introduction: str) -> None:
        """An introduction for people, and the welcome."""
        if introduction:
            self.write(self.form.comment(introduction))
        self.write(self.form.wrap(self.welcome()))

    def say_goodbye(self, code: int, reason: str) -> None:
        """The last event and the last chunk; an ``EventSource`` comes back by itself."""
        after = retry(code)
        field = b"" if after is None else b"retry: %d\n" % after
        self.write(self.form.wrap(field + self.bye(code, reason, after)) + self.form.end)
        self.hang_up()

    def look(self, now: float) -> float | None:
        """Send a comment when nothing was sent for ``keep_alive``."""
        return None if self.closed else self.keep_alive(now)

    def heartbeat(self) -> bytes:
        """A comment."""
        return self.form.comment(self.channel.settings.keep_alive_text)
