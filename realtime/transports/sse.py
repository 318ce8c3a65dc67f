"""Server-sent events (HTML standard, section 9.2)."""

from __future__ import annotations

from aiohttp import hdrs, web

from realtime.close_codes import CloseCode, retry
from realtime.encodings import EventStream
from realtime.message import Message
from realtime.transports.negotiation import is_written_out, wants_profile
from realtime.transports.stream import StreamConnection


def is_final_for(request: web.Request) -> bool:
    """Whether the client may be an ``EventSource``, which never comes back from any status but 200.

    It names the type and no profile. All others know what a status says.
    """
    return request.method == hdrs.METH_GET and is_written_out(request, "sse") and not wants_profile(request)


def turned_away(reason: str) -> web.Response:
    """A stream that says why it ends, and when to come back."""
    after = retry(CloseCode.TRY_AGAIN)
    data = {"code": CloseCode.TRY_AGAIN, "reason": reason, "retry": after}
    event = EventStream(chunked=False).encode(Message.of(data, event="realtime:bye", time=0.0))
    headers = {hdrs.CONTENT_TYPE: EventStream.content_type, "X-Accel-Buffering": "no"}
    response = web.Response(body=b"retry: %d\n%s" % (after or 0, event), headers=headers)
    response.force_close()
    return response


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
