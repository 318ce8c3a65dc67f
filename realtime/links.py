"""What carries a client's messages: one connection of one transport, and a POST.

A link ends once. It knows nothing of coming back, of positions or of who takes the messages: that is
``client``, which opens the next one.
"""

from __future__ import annotations

import asyncio
import base64
import codecs
import io
import itertools
import os
import re
import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple, NoReturn

import aiohttp
import orjson
from yarl import URL

from realtime import envelope
from realtime.close_codes import LOST, NO_CODE, CloseCode, may_be_sent
from realtime.envelope import V1_JSON
from realtime.errors import Closed, NotConnected, RealtimeError, Refused, Unconfirmed
from realtime.message import Kind, Message, Position

#: What is asked for where a stream of events is wanted: if it can be had, one of objects.
EVENTS = f'text/event-stream;profile="{V1_JSON}", text/event-stream'
#: How long the closing handshake, or the body of a refusal, may take, in seconds.
CLOSE_TIMEOUT = 1.0
#: After so many frames in a row everything else has its turn.
TURN_FRAMES = 32
#: The most that is read of the body of a refusal, in bytes: it is for a person.
MAX_BODY = 2000
#: The most that is read of the answer to a POST, in bytes: it may bring messages.
MAX_ANSWER = 16 * 1024 * 1024

_BYTES_IN_EVENT = re.compile(rb'\{"data":"([A-Za-z0-9+/]*={0,2})","encoding":"base64"\}')


class Answer(NamedTuple):
    """What the server says to a message: where it stands, and messages for its sender alone."""

    position: Position | None = None
    messages: Sequence[Message] = ()


class Unsent(Unconfirmed):
    """The connection is over, as its reader is about to see: nothing was sent."""


class Link(ABC):
    """One connection of one transport."""

    subprotocol: str | None = None
    #: How it ends, as announced; how long until coming back, in seconds; the longest silence.
    goodbye: Closed | None = None
    retry: float | None = None
    silence: float | None = None
    #: Whose memory it has: two links with the same number, other than 0, lead to a server that knows what
    #: was sent over either, by its key.
    memory = 0

    def said_goodbye(self, facts: Mapping[str, Any]) -> None:
        """The end is announced, with more than the transport itself can say."""
        code, reason, retry = facts.get("code"), facts.get("reason"), facts.get("retry")
        if type(code) is int and 1000 <= code <= 4999:  # true is an int, too
            self.goodbye = Closed(code, reason if isinstance(reason, str) else "")
        if isinstance(retry, int | float) and 0 <= retry < 1e9:  # as a stream's own
            self.retry = retry / 1000

    @abstractmethod
    async def receive(self) -> tuple[Message, str]:
        """The next message, and its id as it was written. Raises :exc:`Closed` at any end."""

    @abstractmethod
    async def send(self, message: Message, key: str) -> Answer:
        """Send it, and wait for what the server says to it; raises :exc:`Unconfirmed` or :exc:`Refused`.

        ``key`` is the message's own: a server can tell by it that it has heard it. A WebSocket sends none.
        """

    @abstractmethod
    async def close(self, end: Closed | None = None) -> None:
        """Close it, or answer the close with which the server has ended it."""


class FairWebSocket(aiohttp.ClientWebSocketResponse[Literal[True]]):
    """aiohttp's WebSocket, which gives the loop a turn now and then, whatever the server sends.

    One read brings up to 131,072 frames, and aiohttp takes them, or waits for the last of them, in one
    turn of the loop: a time-out is not heard meanwhile.
    """

    def __init__(self, reader: Any, *args: Any, **kwargs: Any) -> None:
        # It stands for the queue, of which aiohttp's annotation names the class.
        super().__init__(_Turns(reader), *args, **kwargs)  # type: ignore[arg-type]


class _Turns:
    """The queue of frames, as much of it as aiohttp's WebSocket uses."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._in_a_row = 0
        self.feed_data = queue.feed_data

    async def read(self) -> Any:
        self._in_a_row = (self._in_a_row + 1) % TURN_FRAMES
        if not self._in_a_row:
            await asyncio.sleep(0)  # time-outs and the application have their turn
        return await self._queue.read()


class WebSocket(Link):
    """A WebSocket: plain frames, or with ``realtime.v1.json`` objects, each of which is answered.

    A message without an ack is :exc:`Unconfirmed`. Where frames are plain an event other than
    ``message`` is a :exc:`ValueError`, and sending waits for the socket only.
    """

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self._ws = ws
        self._socket = ws.get_extra_info("socket")
        self._refs = itertools.count(1)
        self._acks: dict[int, asyncio.Future[Position | RealtimeError | None]] = {}
        self.subprotocol = ws.protocol

    async def receive(self) -> tuple[Message, str]:
        while True:
            frame = await self._ws.receive()
            if frame.type is aiohttp.WSMsgType.TEXT:
                if self.subprotocol != V1_JSON:
                    return Message("message", "text", frame.data.encode(), time.time()), ""
                try:
                    fields = orjson.loads(frame.data)
                    if not self._answered(fields):
                        return _message(fields), str(fields.get("id", ""))
                except (ValueError, TypeError, LookupError, AttributeError):
                    raise Closed(CloseCode.BAD_DATA, f"a frame that is not {V1_JSON}") from None
            elif frame.type is aiohttp.WSMsgType.BINARY:
                return Message("message", "bytes", frame.data, time.time()), ""
            elif frame.type is aiohttp.WSMsgType.CLOSE:
                raise Closed(frame.data or CloseCode.DONE, frame.extra or "")
            elif isinstance(frame.data, aiohttp.WebSocketError):
                raise Closed(frame.data.code, str(frame.data))
            else:
                raise Closed(LOST)

    def _answered(self, fields: dict[str, Any]) -> bool:
        """Whether the frame is an answer to what was sent."""
        event, ref = fields.get("event"), fields.get("ref")
        if ref is None or event not in ("realtime:ack", "realtime:error"):
            return False
        waiting = self._acks.get(ref)
        if waiting is not None and not waiting.done():
            if event == "realtime:error":
                said = fields["data"]
                status = said.get("status")
                known = status if isinstance(status, int) else None
                waiting.set_result(Refused("the message was refused", known, str(said["message"])))
            else:
                waiting.set_result(_position(fields))
        return True

    async def send(self, message: Message, key: str) -> Answer:
        if self.subprotocol != V1_JSON and message.event != "message":
            raise ValueError(f"plain frames have no event, so {message.event!r} cannot be sent")
        try:
            if self.subprotocol != V1_JSON:
                if message.kind == "bytes":
                    await self._ws.send_bytes(message.payload)
                else:
                    await self._ws.send_str(message.payload.decode())
                return Answer()
            ref = next(self._refs)
            answer = asyncio.get_running_loop().create_future()
            self._acks[ref] = answer
            try:
                await self._ws.send_str(envelope.ask(message, ref).decode())
                result: Position | RealtimeError | None = await answer
            finally:
                del self._acks[ref]
        except (aiohttp.ClientError, OSError) as error:
            # So aiohttp says that it has written nothing.
            kind = Unsent if "closing transport" in str(error) else Unconfirmed
            raise kind("the connection was lost") from None
        if isinstance(result, RealtimeError):
            raise result
        return Answer(result)

    async def close(self, end: Closed | None = None) -> None:
        what = (
            "the connection has ended"
            if end is None or end.code == LOST
            else f"closed by the server: {end}"
        )
        # What the server will never take is no question of whether it has arrived.
        final = end if end is not None and not end.comes_back and end.code != CloseCode.DONE else None
        for waiting in self._acks.values():
            if not waiting.done():
                waiting.set_result(final or Unconfirmed(what))
        code = CloseCode.DONE if end is None or not may_be_sent(end.code) else end.code
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._ws.close(code=code)
        except TimeoutError:
            pass
        finally:
            if self._socket is not None:
                # By a twin, for what uvloop shows of a socket cannot be shut down.
                with suppress(OSError), _twin(self._socket) as twin:
                    twin.shutdown(socket.SHUT_RDWR)  # unless it is closed already


def _twin(sock: socket.socket) -> socket.socket:
    return socket.fromfd(sock.fileno(), sock.family, sock.type)


class EventSource(Link):
    """A stream of server-sent events (HTML standard, section 9.2); what is sent goes by POST.

    A server of ours is asked for events whose data are objects of ``realtime.v1.json``, as on a WebSocket.
    ``most`` bounds an event that has not ended, in bytes; a larger one is :exc:`Closed` with 1009.
    """

    def __init__(
        self, response: aiohttp.ClientResponse, session: aiohttp.ClientSession, url: URL, most: int
    ) -> None:
        self._response, self._session, self._url, self._most = response, session, url, most
        self._objects = V1_JSON in response.headers.get("Content-Type", "")
        # A line ends with \r\n, \n or \r (HTML standard, section 9.2.5), and may be of any length.
        utf8 = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._decoder = io.IncrementalNewlineDecoder(utf8, True)
        self._part: list[str] = []  # of a line that has not ended
        self._event, self._id, self._data = "", "", list[str]()  # of a block that has not ended
        self._held = 0  # bytes of both
        self._events: deque[tuple[Message, str]] = deque()

    async def receive(self) -> tuple[Message, str]:
        while not self._events:
            try:
                async with asyncio.timeout(self.silence):
                    chunk = await self._response.content.readany()
            except TimeoutError:
                raise Closed(LOST, f"nothing was heard for {self.silence:g}s") from None
            except (aiohttp.ClientError, OSError):
                raise Closed(LOST) from None
            if not chunk:
                raise Closed(NO_CODE, "the stream has ended")
            self._held += len(chunk)
            first, *begun = self._decoder.decode(chunk).split("\n")
            self._part.append(first)
            for part in begun:
                self._line("".join(self._part))
                self._part = [part]
            if self._held > self._most:
                raise Closed(CloseCode.TOO_BIG, f"an event is larger than {self._most} bytes")
        return self._events.popleft()

    def _line(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if self._data:
                self._events.append((self._message("\n".join(self._data)), self._id))
            self._event, self._id, self._data, self._held = "", "", [], 0
        elif name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and value.isprintable():
            self._id = value
        elif name == "retry" and re.fullmatch("[0-9]{1,9}", value):
            self.retry = int(value) / 1000

    def _message(self, data: str) -> Message:
        if not self._objects:
            return _event(self._event, data, self._id)
        try:
            return _message(orjson.loads(data))
        except (ValueError, TypeError, AttributeError):
            raise Closed(CloseCode.BAD_DATA, f"an event that is not {V1_JSON}") from None

    async def send(self, message: Message, key: str) -> Answer:
        return await post(self._session, self._url, message, key)

    async def close(self, end: Closed | None = None) -> None:
        self._response.close()


async def post(session: aiohttp.ClientSession, url: URL, message: Message, key: str = "") -> Answer:
    """Send one message with a POST, under a key if there is one, and take the server's answer to it.

    Raises :exc:`NotConnected` when nothing was sent, :exc:`Refused` for any status but 2xx, and
    :exc:`Unconfirmed` when the connection was lost; how long it may take is the caller's to bound.
    """
    where = shown(url)
    media = {"text": "text/plain; charset=utf-8", "bytes": "application/octet-stream"}
    headers = {"Content-Type": media.get(message.kind, "application/json")}
    if key:
        headers["Idempotency-Key"] = f'"{key}"'
    if message.event != "message":
        url = url.update_query(event=message.event)
    try:
        # A redirect would turn it into a GET.
        request = session.post(url, data=message.payload, headers=headers, allow_redirects=False)
        async with request as response:
            if not 200 <= response.status < 300:
                raise await refused(f"{where}: the message was refused", response)
            body = b""
            while len(body) <= MAX_ANSWER and (chunk := await response.content.readany()):
                body += chunk
    except (aiohttp.ClientConnectorError, UnicodeError) as error:
        not_connected(where, error)
    except (aiohttp.ClientError, OSError):
        raise Unconfirmed("the connection was lost") from None
    try:
        answer = orjson.loads(body)
        return Answer(_position(answer), [_message(fields) for fields in answer.get("messages", ())])
    except (ValueError, TypeError, AttributeError):
        return Answer()  # it is somebody else's server


async def refused(what: str, response: aiohttp.ClientResponse) -> Refused:
    """The error of an answer that says no, with what it says; closes the response."""
    body = b""
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(CLOSE_TIMEOUT):
            body = await response.content.read(MAX_BODY)
    response.close()
    after = response.headers.get("Retry-After", "")
    advice = float(after) if re.fullmatch("[0-9]{1,9}", after) else None
    return Refused(what, response.status, body.decode(errors="replace"), advice)


def _message(fields: dict[str, Any]) -> Message:
    """A message of ``realtime.v1.json``."""
    data, stamp = fields.get("data"), fields.get("time")
    kind: Kind = "text" if isinstance(data, str) else "json"
    payload = data.encode() if isinstance(data, str) else orjson.dumps(data)
    if fields.get("encoding") == "base64":
        kind, payload = "bytes", base64.b64decode(payload, validate=True)
    return Message(
        str(fields.get("event", "message")),
        kind,
        payload,
        float(stamp) if isinstance(stamp, int | float) else time.time(),
        _position(fields),
    )


def _position(fields: dict[str, Any]) -> Position | None:
    return Position.parse(fields["id"]) if "id" in fields else None


def _event(event: str, data: str, id: str) -> Message:
    """A message of a stream: what is JSON there and what is text, only its sender knows."""
    payload = data.encode()
    kind: Kind = "text"
    if event.startswith("realtime:"):
        with suppress(ValueError, TypeError):  # no JSON, or nested too deep to be written
            payload, kind = orjson.dumps(orjson.loads(payload)), "json"
    elif bytes_ := _BYTES_IN_EVENT.fullmatch(payload):
        with suppress(ValueError):
            kind, payload = "bytes", base64.b64decode(bytes_[1], validate=True)
    position = None
    with suppress(ValueError):
        position = Position.parse(id)
    return Message(event or "message", kind, payload, time.time(), position)


def facts_of(message: Message) -> dict[str, Any]:
    """What an event of the server's own says, by name; nothing if it is no object of JSON."""
    data = message.data
    return data if isinstance(data, dict) else {}


def parse_url(url: str, name: str | None = None) -> URL:
    """A URL that can be connected to, with ``?name=`` if there is one. Raises :exc:`ValueError`."""
    try:
        parsed = URL(url)
    except ValueError:
        parsed = URL()
    if parsed.scheme not in ("ws", "wss", "http", "https"):
        raise ValueError(f"{_shown(url)}: a URL begins with ws://, wss://, http:// or https://")
    if not parsed.host:
        raise ValueError(f"{_shown(url)}: this is no URL")
    return parsed if name is None else parsed.update_query(name=name)


def shown(url: URL) -> str:
    """A URL for an error: without what may be secret in it."""
    return str(url.with_user(None).with_query(None).with_fragment(None))


def _shown(text: str) -> str:
    """The same of what is no URL, where nobody knows what is secret: what may be is left out."""
    match = re.fullmatch(r"([\w+.-]*:?//)?([^?#]*)(.*)", text, re.DOTALL)
    assert match is not None
    scheme, place, more = match.groups("")
    return f"{scheme}…" if "@" in more else scheme + place.rpartition("@")[2]


def not_connected(where: str, error: Exception) -> NoReturn:
    """Raise :exc:`NotConnected` for what aiohttp raised while it connected.

    Of its errors only those that say no more than host and port are a cause: others have the whole URL.
    """
    cause = error if isinstance(error, aiohttp.ClientConnectorError) else None
    raise NotConnected(f"{where}: cannot connect: {why(error)}") from cause


def why(error: Exception) -> str:
    """Why there is no connection, in words."""
    if isinstance(error, UnicodeError) and getattr(error, "encoding", "idna") == "idna":
        return "this can be no name of a host"
    if isinstance(error, aiohttp.InvalidURL | aiohttp.RedirectClientError):  # ours was looked at before
        return "it redirects to what is no URL"
    if isinstance(error, aiohttp.TooManyRedirects):
        return "it redirects too often"
    if isinstance(error, aiohttp.ClientResponseError):
        # What follows the colon is the server's, which may have sent the request back.
        return f"its answer is no HTTP: {error.message.partition(':')[0].lower()}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "there is no such host"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        problem = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
        return f"its certificate is not trusted: {problem}"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return f"no TLS: {(getattr(error.os_error, 'reason', '') or '?').replace('_', ' ').lower()}"
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno:
        return os.strerror(error.os_error.errno).lower()
    text = str(error) or type(error).__name__
    return text[:1].lower() + text[1:]
