"""POST: a client that says one thing and is answered."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, Generic, TypeVar

import orjson
from aiohttp import hdrs, web

from realtime import envelope
from realtime.blame import lines, not_the_plugins, theirs
from realtime.channel import Channel, Client
from realtime.close_codes import CloseCode, End, comes_back, retry_after
from realtime.door import last
from realtime.errors import Disconnected, Rejected, TooManyTopics
from realtime.log import OVERHEAD
from realtime.message import Message, Position, said
from realtime.subscriber import MAX_OUTBOX
from realtime.transports.connection import LEAVE_GRACE
from realtime.transports.connections import TOO_MUCH_UNFINISHED, Connections, log_bug, log_end, no_position

T = TypeVar("T")

#: How long a body may take to come, in seconds. aiohttp then reads for ten more, so that the client can
#: see the answer, and closes.
BODY_TIMEOUT = 20.0

#: What a channel that closes a client means in HTTP. Beside these: 503 for all that say come back, and
#: 400 for the rest.
_STATUS: dict[int, int] = {
    CloseCode.WRONG_KIND: 415,
    CloseCode.POLICY: 403,
    CloseCode.TOO_BIG: 413,
    CloseCode.BUG: 500,
    CloseCode.NOT_AUTHENTICATED: 401,
    CloseCode.NOT_ALLOWED: 403,
    CloseCode.TAKEN_OVER: 409,
    CloseCode.NAME_TAKEN: 409,
    CloseCode.TOO_MANY_MESSAGES: 429,
}


async def read(request: web.Request, max_message: int, connections: Connections) -> Message:
    """What the client says: ``application/json`` is JSON, ``application/octet-stream`` bytes, else text.

    ``max_message`` bounds the body, in bytes, and ``limits.unfinished`` of the ``connections`` all bodies
    that have not come whole. Raises the HTTP error (400, 408, 413, 415, 503) that says why it is not taken.
    """
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            body = await _body(request, max_message, connections)
    except TimeoutError:
        text = f"the body did not come within {BODY_TIMEOUT:g}s\n"
        raise last(web.HTTPRequestTimeout(text=text)) from None
    kind = request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
    event = request.query.get("event", "message")
    try:
        if kind == "application/json":
            return said(orjson.loads(body), event=event)
        return said(body if kind == "application/octet-stream" else body.decode(), event=event)
    except UnicodeDecodeError as error:
        wrong = f"the body is not UTF-8: {error.reason} at byte {error.start}"
    except orjson.JSONDecodeError as error:
        wrong = f"the body is no JSON: {error}"
    except ValueError as error:
        wrong = str(error)
    raise web.HTTPBadRequest(text=f"{wrong}\n")


async def _body(request: web.Request, most: int, connections: Connections) -> bytes:
    if hdrs.CONTENT_ENCODING in request.headers:
        error = web.HTTPUnsupportedMediaType(text="a body is not to be compressed: send it as it is\n")
        error.headers[hdrs.ACCEPT_ENCODING] = "identity"
        raise last(error)
    body, piece = bytearray(), b""
    try:
        if (request.content_length or 0) <= most:
            async for piece in request.content.iter_any():
                body += piece
                connections.unfinished += len(piece)
                if len(body) > most:
                    break
                if connections.unfinished > connections.limits.unfinished and not request.content.is_eof():
                    retry = {hdrs.RETRY_AFTER: retry_after()}
                    raise last(web.HTTPServiceUnavailable(text=f"{TOO_MUCH_UNFINISHED}\n", headers=retry))
            else:
                return bytes(body)
    finally:
        connections.unfinished -= len(body)
        body.clear()  # the traceback of the error, which is the answer, would keep both
        piece = b""
    text = f"the body is larger than the {most} bytes that limits.max_message allows\n"
    raise last(web.HTTPRequestEntityTooLarge(most, text=text))


class Post:
    """The link of a client that says one thing (``channel.Link``)."""

    def __init__(self, channel: Channel, max_message: int) -> None:
        self.closed = False
        self._channel = channel
        self._room = max_message + MAX_OUTBOX  # what is still free for direct messages, in bytes
        self._answers: list[bytes] = []
        self._end = End(CloseCode.DONE, "")
        self._status: int | None = None  # of a Rejected

    def send(self, message: Message) -> None:
        """A message to this client alone goes into the answer."""
        if not self.closed:
            self._room -= len(message.payload) + OVERHEAD
            if self._room < 0:
                self.close(CloseCode.TRY_AGAIN, "the answer is too long")
            else:
                self._answers.append(envelope.write(message))

    def close(self, code: int, reason: str) -> None:
        """The code becomes the status of the answer."""
        if not self.closed:
            self.closed = True
            self._end = End(code, reason)

    async def receive(self) -> Message:
        """There is nothing more."""
        raise Disconnected("a POST says one thing")

    async def ping(self, timeout: float) -> bool:
        """Whether it waits for its answer still."""
        return not self.closed

    async def handle(self, client: Client, message: Message) -> web.Response:
        """Let the channel hear the message; returns the answer. It may finish when the client has gone."""
        return await Hearing(self.hear(client, message), client, self._channel).answer()

    async def hear(self, client: Client, message: Message) -> web.Response:
        """The same, for as long as nobody cancels it."""
        position = await self._hear(client, message)
        self.closed = True
        response = self._response(position)
        # A backend may say thousands of things a second; of those that went well few want to read.
        level = logging.DEBUG if response.status == HTTPStatus.ACCEPTED else logging.INFO
        facts = {"status": response.status, "reason": self._end.reason}
        log_end(client, self._channel, f"was answered {response.status} {self._end.reason}", facts, level)
        return response

    async def _hear(self, client: Client, message: Message) -> Position | None:
        timeout = self._channel.settings.handler_timeout
        traffic = self._channel.bus.traffic[self._channel.name]
        traffic.received += 1
        try:
            async with asyncio.timeout(timeout) as limit, self._channel.bus.engine.answering():
                position = await traffic.metered(self._channel.on_message(client, message))
            if position is not None and type(position) is not Position:
                raise no_position(self._channel, position)
            return position
        except Rejected as rejected:
            self._end, self._status = End(rejected.close_code, str(rejected)), rejected.status
        except Disconnected as error:
            where = lines(theirs(traceback.walk_tb(error.__traceback__)))
            self._channel.log.warning(
                "plugin %r waits for more of a POST, which says one thing: ask client.transport, or leave "
                "'post' out of its transports, in %s",
                self._channel.settings.plugin,
                where[-1] if where else "on_message",
                extra={"stack": where},
            )
            self.close(CloseCode.BAD_DATA, "a POST says one thing, and this channel wants to hear more")
        except TooManyTopics as error:
            self.close(CloseCode.TRY_AGAIN, str(error))
        except BaseException as error:
            if not_the_plugins(error):
                raise
            wrong = "the channel has a bug"
            if limit.expired() and isinstance(error, TimeoutError):
                wrong = f"the channel took longer than {timeout:g}s (handler_timeout)"
            log_bug(self._channel, "fails", client, f": {wrong}")
            self.close(CloseCode.BUG, wrong)
        return None

    def _response(self, position: Position | None) -> web.Response:
        code, reason = self._end
        headers = {hdrs.CACHE_CONTROL: "no-store"}
        if code != CloseCode.DONE:
            status = self._status or _STATUS.get(code, 503 if comes_back(code) else 400)
            if status in (429, 503):
                headers[hdrs.RETRY_AFTER] = retry_after()
            if status == 401:
                headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
            return web.Response(status=status, text=f"{reason or f'closed with {code}'}\n", headers=headers)
        fields = [] if position is None else [b'"id":"%s"' % str(position).encode()]
        if self._answers:
            fields.append(b'"messages":[%s]' % b",".join(self._answers))
        return web.Response(
            status=202, body=b"{%s}" % b",".join(fields), content_type="application/json", headers=headers
        )


class Hearing(Generic[T]):
    """What a channel does with a message: it goes on while somebody waits for its answer, and then some."""

    def __init__(self, hearing: Coroutine[Any, Any, T], client: Client, channel: Channel) -> None:
        self._task = asyncio.create_task(hearing)
        self._client = client
        self._channel = channel
        self._waiting = 0

    async def answer(self) -> T:
        """The answer. Raises the HTTP error 503 when it is cancelled because others went."""
        self._waiting += 1
        try:
            return await asyncio.shield(self._task)
        except asyncio.CancelledError:
            if self._task.cancelled():
                text = "what was begun did not end in time, and was cancelled\n"
                retry = {hdrs.RETRY_AFTER: retry_after()}
                raise web.HTTPServiceUnavailable(text=text, headers=retry) from None
            # The client has gone. What it had begun may finish, as after any other transport.
            await asyncio.wait([self._task], timeout=LEAVE_GRACE)
            raise
        finally:
            self._waiting -= 1
            if not self._waiting and self._task.cancel():
                self._channel.log.error("what %r had begun did not end and is cancelled", self._client)
