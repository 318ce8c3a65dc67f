"""A response that does not end: lines of JSON (NDJSON), and what event streams have in common with them."""

from __future__ import annotations

from realtime.channel import Channel
from realtime.close_codes import CloseCode, retry
from realtime.encodings import Stream
from realtime.topic import Topic
from realtime.transports.connection import End
from realtime.transports.connections import Connections
from realtime.transports.control import ControlledConnection


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
