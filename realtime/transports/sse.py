"""Server-sent events (HTML standard, section 9.2): a response that does not end."""

from __future__ import annotations

from aiohttp import web

from realtime.channel import Channel
from realtime.close_codes import CloseCode
from realtime.encodings import EventStream
from realtime.topic import Topic
from realtime.transports.connection import Connection, Connections, End

CHUNKED = EventStream(chunked=True)
#: For HTTP/1.0, which nginx speaks to what is behind it unless it is told otherwise.
UNCHUNKED = EventStream(chunked=False)

HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "Vary": "Accept, Sec-Fetch-Mode",
    "X-Accel-Buffering": "no",  # nginx: hand on each event as it comes
}


class EventStreamConnection(Connection):
    """A stream of events to one client, which says nothing."""

    form: EventStream

    def __init__(
        self, connections: Connections, channel: Channel, topic: Topic, request: web.Request
    ) -> None:
        super().__init__(connections, channel, topic, CHUNKED if request.version >= (1, 1) else UNCHUNKED)
        self._written_at = self._loop.time()
        self.outcome = End(CloseCode.DONE, "the client left")

    def greet(self, introduction: str) -> None:
        """The first block: an introduction for people, and the position the stream begins at."""
        if introduction:
            self.write(self.form.comment(introduction))
        # After a gap or a reset the marker brings the position: a client that is refused before it
        # comes has not been told yet what it missed.
        if self.subscriber.resumed.outcome in ("new", "recovered"):
            position = f"id: {self.topic.epoch}-{self.subscriber.cursor}\n\n"
            self.write(self.form.wrap(position.encode()))

    def say_goodbye(self, code: int, reason: str) -> None:
        """The last chunk; a client that wants to come back does so by itself."""
        self.write(self.form.comment(f"closed with {code}: {reason}") + self.form.end)
        self.hang_up()

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport, and remember when."""
        self._written_at = self._loop.time()
        super().write(data)

    def look(self, now: float) -> float | None:
        """Send a comment when nothing was sent for ``keep_alive``."""
        if self.closed:
            return None
        settings = self.channel.settings
        due = self._written_at + settings.keep_alive
        if due > now:
            return due
        # Not now, for the delay of each look would add up; but what was slept through is over.
        self._written_at = max(due, now - settings.keep_alive)
        # An event that is on its way spares the comment.
        if self.subscriber.cursor == self.topic.head and not self.paused:
            super().write(self.form.comment(settings.keep_alive_text))
        return self._written_at + settings.keep_alive
