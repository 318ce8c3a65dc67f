"""NDJSON: the objects of ``realtime.v1.json``, one a line."""

from __future__ import annotations

from realtime.encodings import Lines
from realtime.transports.stream import StreamConnection


class LinesConnection(StreamConnection):
    """A stream of lines to one client."""

    __slots__ = ()

    form: Lines

    def heartbeat(self) -> bytes:
        """A line."""
        return self.form.wrap(self.say("heartbeat", {}))
