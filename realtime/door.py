"""The door: what is answered before anybody looks at a request, and who may stand in it.

aiohttp answers 400 to all that it cannot read, with a traceback in the log, and lets some things in that
are no HTTP/1.1. This module relies on ``handle_error``, ``log_exception``, ``finish_response``,
``force_close``, ``_close``, ``_current_request``, ``_messages``, ``_request_count`` and ``_waiter`` of its
``web.RequestHandler``, ``_version`` of its requests and ``_prepare_headers`` of its responses, as they
are in aiohttp 3.14; ``tests/test_door.py`` holds it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Any

from aiohttp import ClientConnectionResetError, HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.http_exceptions import BadStatusLine, HttpProcessingError, InvalidURLError, LineTooLong
from aiohttp.typedefs import Handler

from realtime.close_codes import retry_after
from realtime.origins import HOST
from realtime.routing import RouteTable
from realtime.transports.takeover import cut, owed

#: How long a request's head may take to arrive, and an idle connection stays open, in seconds.
HEAD_TIMEOUT = 10.0
#: The longest target of a request, and the longest header, in bytes. They differ, for it is by its
#: limit that one can tell what aiohttp found too long.
MAX_TARGET, MAX_HEADER = 8190, 8192
#: The most headers of a request.
MAX_HEADERS = 128
#: How old a connection that has said nothing is before it has to make room for others, in seconds.
CROWDED_AFTER = 1.0
#: How long the log is silent after it has said that connections had to, in seconds.
QUIET = 60.0
#: How long a connection that is given up may take to send what it owes, in seconds; then it is cut.
GRACE = 2.0
#: How often those who owe something are looked at, in seconds.
LOOK = 0.5
#: What is asked by address: whoever looks after the server does not know its names.
PROBES = ("/-/live", "/-/ready")


log = logging.getLogger("realtime.http")


@web.middleware
async def well_formed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what aiohttp takes for HTTP/1.1 and is not."""
    if request._version not in (HttpVersion11, HttpVersion10):
        request._version = HttpVersion11  # that of the answer
        raise last(web.HTTPVersionNotSupported(text="this server speaks HTTP/1.1\n"))
    if wrong := _mistake_in(request):
        raise last(web.HTTPBadRequest(text=f"{wrong}\n"))
    return await handler(request)


def _mistake_in(request: web.Request) -> str:
    headers, target = request.headers, request.raw_path
    host = headers.get(hdrs.HOST)
    if host is not None and not HOST.fullmatch(host):
        return "the Host is a name or an address, and perhaps a port"  # RFC 9112, section 3.2
    if "#" in target:
        return "the target has a fragment, which is the client's own"
    if not target.startswith("/") and "://" in target.partition("?")[0]:
        authority = target.partition("://")[2].partition("/")[0].partition("?")[0]
        if authority.lower() != (host or "").lower():  # it would count, and not the Host (section 3.2.2)
            return "the target names another host than the Host does"
    if hdrs.TRANSFER_ENCODING in headers:
        if request.version < HttpVersion11:
            return "HTTP/1.0 knows no Transfer-Encoding"  # section 6.1
        if [coding.strip().lower() for coding in headers.getall(hdrs.TRANSFER_ENCODING)] != ["chunked"]:
            return "the only Transfer-Encoding is chunked"
    return ""


class Hosts:
    """The names by which the server is asked for, ``server.hosts``: without a port, at any port."""

    def __init__(self, hosts: Collection[str], url: str | None, table: RouteTable) -> None:
        self._table = table
        # The URL by which it is reached is its own.
        self._hosts = {*hosts, *([url.partition("://")[2]] if url else [])}

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse who asks for another (RFC 9110, section 15.5.20): its name was made to point here."""
        host = request.host.lower()
        named = not self._hosts.isdisjoint((host, re.sub(r":[0-9]*$", "", host)))
        if not named and request.path.removeprefix(self._table.prefix) not in PROBES:
            raise web.HTTPMisdirectedRequest(
                text=f"this server is not known as {host[:100]!r}; server.hosts in the config can name it\n"
            )
        return await handler(request)


class Waiting:
    """The connections without a request, in the order in which they began to wait."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._since: dict[Http, float] = {}
        self._told_at = -QUIET
        self._sent_away = 0

    def add(self, http: Http, now: float) -> None:
        """One waits from now on. Where there are too many, who has waited longest goes.

        In a storm of reconnects many have asked already and are only not read yet: for a moment they may
        be more.
        """
        self._since[http] = now
        while len(self._since) > self.most and now - next(iter(self._since.values())) >= CROWDED_AFTER:
            self.make_room()
        if self._sent_away and now - self._told_at >= QUIET:
            self._told_at = now
            log.warning(
                "%d connections without a request were closed for newer ones: more than %d "
                "(server.limits.max_waiting)",
                self._sent_away,
                self.most,
            )
            self._sent_away = 0

    def make_room(self) -> bool:
        """Close the one that has waited longest; False where none waits."""
        if not self._since:
            return False
        oldest = next(iter(self._since))
        self.remove(oldest)
        oldest.force_close()
        self._sent_away += 1
        return True

    def remove(self, http: Http) -> None:
        """It has a request, or has gone."""
        self._since.pop(http, None)


class Http(web.RequestHandler):
    """A connection of aiohttp's, until a stream takes it over."""

    __slots__ = ("_has_line", "_looking", "_patience", "_taken_at", "_untaken", "_waiting")

    def __init__(
        self,
        server: web.Server,
        waiting: Waiting,
        loop: asyncio.AbstractEventLoop,
        patience: Callable[[], float],
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            logger=log,
            access_log=None,  # type: ignore[arg-type]  # None is none
            keepalive_timeout=HEAD_TIMEOUT,
            max_line_size=MAX_TARGET,
            max_field_size=MAX_HEADER,
            max_headers=MAX_HEADERS,
            auto_decompress=False,  # it would unpack bodies that nobody reads, a thousandfold
        )
        self._waiting = waiting
        self._has_line = False  # of the head that is still to come whole
        # How long a client may take not a byte of an answer that waits for it, in seconds, now.
        self._patience = patience
        self._looking: asyncio.TimerHandle | None = None
        self._untaken, self._taken_at = 0, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has come and is to say a request."""
        super().connection_made(transport)
        self._waiting.add(self, self._loop.time())

    def connection_lost(self, exc: BaseException | None) -> None:
        """It has gone, or a stream has taken it over."""
        self._waiting.remove(self)
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not take what it is answered as fast as it is written."""
        super().pause_writing()
        if self.transport is not None:
            self._watch(self.transport)

    def resume_writing(self) -> None:
        """It has taken most of it."""
        super().resume_writing()
        if self.transport is not None:
            self._watch(self.transport)

    def _watch(self, transport: asyncio.Transport) -> None:
        """See to it that the client takes what is written from now on, or goes."""
        self._untaken, self._taken_at = owed(transport), self._loop.time()
        if self._looking is None:
            self._looking = self._loop.call_later(LOOK, self._look, transport)

    def _look(self, transport: asyncio.Transport) -> None:
        self._looking = None
        if not transport.get_write_buffer_size():
            return
        left, now = owed(transport), self._loop.time()
        if left < self._untaken:
            self._untaken, self._taken_at = left, now
        elif now - self._taken_at >= self._patience():
            cut(transport)
            return
        self._looking = self._loop.call_later(LOOK, self._look, transport)

    def data_received(self, data: bytes) -> None:
        """Bytes of a head, or of a body."""
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._waiting.remove(self)
            self._has_line = False
            # Of chunks that turn out to be broken aiohttp tells whoever reads them nothing.
            broken, request = getattr(self._messages[-1][0], "exc", None), self._current_request
            if broken is not None and request is not None and not request.content.is_eof():
                request.content.set_exception(web.RequestPayloadError(broken.message))
        elif self._waiter is not None or not before:
            self._has_line = self._has_line or b"\n" in data.lstrip()

    async def finish_response(self, *args: Any) -> tuple[web.StreamResponse, bool]:
        """A request is answered: the next one may be long in coming."""
        answered = await super().finish_response(*args)
        if self.transport is not None and self.transport.get_write_buffer_size():
            self._watch(self.transport)  # aiohttp waits for little of it, and for none to close
        if self.transport is not None and not self._messages:  # it is still aiohttp's, with nothing to do
            self._waiting.add(self, self._loop.time())
        return answered

    def force_close(self) -> None:
        """End it; who had begun to say a request is told why."""
        transport = self.transport
        if self._has_line and transport is not None and not transport.is_closing():
            late = _written(HTTPStatus.REQUEST_TIMEOUT, "the head did not come in time")
            # A server that ends reads nothing any more, not even what comes in time.
            transport.write(_unavailable("the server is shutting down") if self._close else late)
        super().force_close()
        if transport is not None and transport.get_write_buffer_size():  # a close waits for its client
            if self._looking is not None:
                self._looking.cancel()
            self._looking = self._loop.call_later(GRACE, cut, transport)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what could not be read, after which the connection is closed."""
        if not isinstance(exc, HttpProcessingError | web.RequestPayloadError):
            return super().handle_error(request, status, exc, message)
        if request.writer.output_size > 0:
            raise ConnectionError("it is answered already")
        status, text = explain(exc)
        log.debug("what %s sent was answered %d: %s", request.remote or "an unknown address", status, text)
        response = _Answer(status=status, text=f"{text}\n")
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """Log what is a bug; that a stranger sends what is no HTTP, or goes too early, is none."""
        theirs = HttpProcessingError | web.RequestPayloadError | ClientConnectionResetError
        if not isinstance(kwargs.get("exc_info"), theirs):
            super().log_exception(*args, **kwargs)


class TurnedAway(asyncio.Protocol):
    """A connection for which there is no descriptor to spare."""

    # A listener of TCP makes no other kind of transport than this, which can write: the type of the
    # protocol allows for all kinds.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Say so, and close it."""
        transport.write(_unavailable("the server is full"))
        transport.close()


class _Answer(web.Response):
    """An answer to what is no request, so that no application has a last touch to it."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall(hdrs.SERVER, None)


def explain(error: HttpProcessingError | web.RequestPayloadError) -> tuple[int, str]:
    """What aiohttp's parser complains of: a status and a sentence."""
    if isinstance(error, LineTooLong):
        if error.args[1] == MAX_TARGET:
            return 414, f"the target of the request is longer than {MAX_TARGET} bytes"
        return 431, f"a header is longer than {MAX_HEADER} bytes"
    said, *_ = (getattr(error, "message", "") or str(error)).splitlines() or [""]
    if said.startswith("Too many headers"):
        return 431, f"the request has more than {MAX_HEADERS} headers"
    if isinstance(error, BadStatusLine) and "Invalid HTTP version" in error.message:
        return 505, "this server speaks HTTP/1.1"
    if isinstance(error, InvalidURLError):
        said = "the target is no URL"
    # aiohttp's parser in Python leaves in what is no UTF-8.
    shown = said.rstrip(":")[:100].encode(errors="replace").decode()
    return 400, f"this is no HTTP: {shown}"


def _unavailable(text: str) -> bytes:
    again = f"{hdrs.RETRY_AFTER}: {retry_after()}\r\n"
    return _written(HTTPStatus.SERVICE_UNAVAILABLE, text, again)


def _written(status: HTTPStatus, text: str, header: str = "") -> bytes:
    """The last answer to who has not said a request."""
    head = f"HTTP/1.1 {status:d} {status.phrase}\r\nConnection: close\r\nContent-Type: text/plain\r\n"
    return f"{head}{header}Content-Length: {len(text) + 1}\r\n\r\n{text}\n".encode()


def last(error: web.HTTPException) -> web.HTTPException:
    """The same answer, after which the connection is closed: what is left of the request is not wanted."""
    error.force_close()
    return error
