"""Server-sent events (HTML standard, section 9.2)."""

from __future__ import annotations

from realtime.encodings import EventStream
from realtime.transports.stream import StreamConnection


class EventStreamConnection(StreamConnection):
    """A stream of events to one client."""

    __slots__ = ()

    form: EventStream

    def greet(self, introduction: str) -> None:
        """An introduction for people, and the welcome."""
        if introduction:
            self.write(self.form.comment(introduction))
        super().greet(introduction)

    def bye(self, code: int, reason: str, after: int | None) -> bytes:
        """The last event, and when an ``EventSource``, which comes back by itself, is to do so."""
        field = b"" if after is None else b"retry: %d\n" % after
        return field + super().bye(code, reason, after)

    def heartbeat(self) -> bytes:
        """A comment."""
        return self.form.comment(self.channel.settings.keep_alive_text)
