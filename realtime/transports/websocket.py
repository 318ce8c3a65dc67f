"""WebSocket (RFC 6455): the handshake, and a connection of frames.

Frames are parsed by aiohttp's reader, a C extension. It wants to feed a queue of aiohttp's; the
subclass here hands each frame on at once, which spares a future and a turn of the loop per message.
What aiohttp does not document is used in ``_Frames`` and ``_DeflatedReader`` here, and in ``takeover.py``;
nowhere else.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from typing import Any

from aiohttp import WebSocketError, WSMsgType, web
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader

from realtime.channel import Channel
from realtime.close_codes import LOST, CloseCode, cut_reason, may_be_sent, retry
from realtime.encodings import CLOSE, PING, PONG, TEXT, DeflatedFrames, Form, JsonFrames, frame
from realtime.envelope import V1_JSON, BadEnvelope, Ref, acknowledge, read, refuse
from realtime.errors import Rejected
from realtime.message import Message, Position, heard
from realtime.topic import Topic
from realtime.transports.connection import LEAVE_GRACE, TURN_MESSAGES, Connection, End
from realtime.transports.connections import Connections
from realtime.transports.control import ControlledConnection
from realtime.transports.deflate import Deflated, agree
from realtime.transports.takeover import Opening

#: After so many seconds without a byte from the client it is pinged, …
PING_AFTER = 25.0
#: … and after so many more without an answer it is gone.
PONG_WITHIN = 8.0
#: How many bytes are parsed between two looks at whether the client's task keeps up, …
PIECE = 4096
#: … and how many such pieces in one turn of the event loop.
PIECES = 4
#: The most pongs that are owed at a time; only the latest must be sent (section 5.5.3).
MAX_PONGS = 16

JSON_FRAMES = JsonFrames()
DEFLATED_JSON_FRAMES = DeflatedFrames(JSON_FRAMES)

# To look one up in its class takes longer than to parse a frame.
_TEXT, _BINARY, _PING, _CLOSE = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING, WSMsgType.CLOSE
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_EXPLAIN = {
    CloseCode.TOO_BIG: "the message is larger than limits.max_message allows",
    CloseCode.BAD_DATA: "the text is not UTF-8",
}


def _tokens(request: web.Request, header: str) -> list[str]:
    """The tokens of a header that is a list (RFC 9110, section 5.6.1), in whatever lines it came."""
    return [token.strip() for token in ",".join(request.headers.getall(header, [])).split(",")]


def wants_websocket(request: web.Request) -> bool:
    """Whether the request is an opening handshake, right or wrong."""
    return "websocket" in map(str.lower, _tokens(request, "Upgrade"))


def wants_json(request: web.Request) -> bool:
    """Whether the client offers the subprotocol in which each message is an object of JSON."""
    return V1_JSON in _tokens(request, "Sec-WebSocket-Protocol")


def accept(request: web.Request, *, compress: bool) -> web.StreamResponse:
    """The answer to an opening handshake (RFC 6455, section 4.2).

    It agrees to ``compress`` if the client offers that. Raises an HTTP error that says what is wrong
    with the handshake.
    """
    headers = request.headers
    if request.version != (1, 1):
        raise web.HTTPBadRequest(text="a WebSocket begins with HTTP/1.1\n")
    if "upgrade" not in map(str.lower, _tokens(request, "Connection")):
        raise web.HTTPBadRequest(text="a WebSocket handshake says Connection: Upgrade\n")
    if headers.getall("Sec-WebSocket-Version", []) != ["13"]:
        version = {"Sec-WebSocket-Version": "13"}
        raise web.HTTPUpgradeRequired(text="this server speaks WebSocket version 13\n", headers=version)
    keys = headers.getall("Sec-WebSocket-Key", [])
    try:
        right = len(keys) == 1 and len(base64.b64decode(keys[0].encode("ascii"), validate=True)) == 16
    except (binascii.Error, UnicodeEncodeError):
        right = False
    if not right:
        raise web.HTTPBadRequest(text="a WebSocket handshake has one key of 16 bytes in base64\n")
    digest = hashlib.sha1(keys[0].encode() + _GUID, usedforsecurity=False).digest()
    answer = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": base64.b64encode(digest).decode(),
    }
    if wants_json(request):
        answer["Sec-WebSocket-Protocol"] = V1_JSON
    if compress:
        try:
            agreed = agree(headers.getall("Sec-WebSocket-Extensions", []))
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from None
        if agreed:
            answer["Sec-WebSocket-Extensions"] = agreed
    return Opening(status=101, headers=answer)


class WebSocket(Connection):
    """A connection of WebSocket frames, one message a frame."""

    __slots__ = (
        "_heard_at",
        "_max_message",
        "_parsing",
        "_pinged",
        "_pong_waiters",
        "_pongs",
        "_reader",
        "_unparsed",
        "deaf",
    )

    def __init__(
        self, connections: Connections, channel: Channel, topic: Topic, form: Form, max_message: int
    ) -> None:
        super().__init__(connections, channel, topic, form)
        self._max_message = max_message
        frames = _Frames(self)
        # The reader refuses a message of its limit or more; ours is the largest that passes.
        self._reader = (
            _DeflatedReader(self, frames, max_message)
            if isinstance(form, DeflatedFrames)
            else WebSocketReader(frames, max_message + 1, False, True)
        )
        self._heard_at = self._loop.time()
        self._pinged = 0.0
        self._pong_waiters: list[asyncio.Future[None]] = []
        self._pongs: list[bytes] = []
        self._unparsed = b""
        self._parsing = False  # in the next turn
        #: Whether the client has said its last.
        self.deaf = False

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        self._heard_at = self._loop.time()
        self._pinged = 0.0
        if self._pong_waiters:
            self._answer_pings_of_ours()
        if self._unparsed or len(data) > PIECE:
            self._unparsed += data
            self._parse()
        elif not self.deaf:
            self._budget = TURN_MESSAGES
            self._reader.feed_data(data)
            if self._pongs:
                self._send_pongs()

    def _parse(self) -> None:
        """Parse what is left in pieces: a quarter of a mebibyte can be forty thousand frames.

        It stops when the client's task does not keep up, and lets others have their turn.
        """
        self._parsing, self._budget = False, TURN_MESSAGES
        for _ in range(PIECES):
            if not self._unparsed or not self._reading or self.deaf:
                break
            piece, self._unparsed = self._unparsed[:PIECE], self._unparsed[PIECE:]
            self._reader.feed_data(piece)
        self._send_pongs()
        if self.deaf:
            self._unparsed = b""
        elif self._unparsed:
            self.transport.pause_reading()
            if self._reading:
                self._parse_soon()
        elif self._reading and not self.transport.is_closing():
            self.transport.resume_reading()

    def _parse_soon(self) -> None:
        if not self._parsing:
            self._parsing = True
            self._loop.call_soon(self._parse)

    def read_on(self) -> None:
        """Go on with what the client sends, first with what it has sent already."""
        if self._unparsed:
            self._parse_soon()
        else:
            super().read_on()

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is gone; what was said before is still heard."""
        if self._unparsed and not self.deaf:
            self._reader.feed_data(self._unparsed)
            self._unparsed = b""
        super().connection_lost(error)
        self._answer_pings_of_ours()

    def _send_pongs(self) -> None:
        if self._pongs and not self.paused and not self.closed:
            self.write(b"".join(frame(PONG, data) for data in self._pongs))
            self._pongs.clear()

    def _answer_pings_of_ours(self) -> None:
        for waiter in self._pong_waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._pong_waiters.clear()

    def control_received(self, kind: WSMsgType, data: Any, extra: Any) -> None:
        """A ping, or a close; a pong has done what it is for by coming."""
        if kind is _PING:
            self._pongs.append(bytes(data))
            del self._pongs[:-MAX_PONGS]
        elif kind is _CLOSE:
            code = data or CloseCode.DONE
            if may_be_sent(code):
                self._hear_end(End(code, extra))
            else:
                self._hear_end(End(CloseCode.PROTOCOL_ERROR, f"{code} is no close code"))

    def understand(self, item: Message) -> Message | None:
        """The message in what came, inflated if it is compressed."""
        if type(item) is Deflated:
            try:
                return item.inflate(self._max_message)
            except WebSocketError as error:
                self.deaf = True
                self.close(*_explained(error.code, str(error)))
                return None
        return item

    def failed(self, code: int, reason: str) -> None:
        """What the client sent breaks the protocol or a limit."""
        self._hear_end(_explained(code, reason))

    def _hear_end(self, end: End) -> None:
        self.deaf = True
        if self.closed:
            self.hang_up()  # the answer to our own close frame: the handshake is complete
        else:
            self._queue(end)
            # In its place among the messages; but a handler that hangs does not hold it up.
            self._within(LEAVE_GRACE, lambda: self.close(*end))

    def say_goodbye(self, code: int, reason: str) -> None:
        """The close frame, after which nothing is written (section 5.5.1)."""
        self._answer_pings_of_ours()
        self.write(frame(CLOSE, code.to_bytes(2, "big") + cut_reason(reason)))
        if self.deaf:
            self.hang_up()

    def resume_writing(self) -> None:
        """The transport has drained: the pongs that are owed go first."""
        self.paused = False
        self._send_pongs()
        if not self.paused:
            super().resume_writing()

    async def ping(self, timeout: float) -> bool:
        """Ask the client for a sign of life; any byte from it is one (``channel.Link``).

        No ping reaches a client that has still to read what was written before; there it is a
        sign of life that it reads, or has done so until a moment ago.
        """
        if self.closed:
            return False
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._pong_waiters.append(waiter)
        paused, unsent = self.paused, self.transport.get_write_buffer_size()
        if not paused:
            self.write(frame(PING, b""))
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            if waiter in self._pong_waiters:
                self._pong_waiters.remove(waiter)
            if not (paused and self.paused):
                return paused
            read = self.transport.get_write_buffer_size() < unsent
            return read or self._loop.time() - self._paused_at < PONG_WITHIN
        return not self.closed

    def look(self, now: float) -> float | None:
        """Ping what has been silent, cut what stays silent."""
        if self.closed:
            return None
        due = self._heard_at + PING_AFTER
        if due > now:
            return due
        if not self._reading:
            return now + PONG_WITHIN  # it is not listened to, so its silence says nothing
        if not self._pinged:
            self._pinged = now
            self.write(frame(PING, b""))
        if now < self._pinged + PONG_WITHIN:
            return self._pinged + PONG_WITHIN
        self.outcome = End(LOST, f"answered no ping within {PONG_WITHIN:g}s")
        self.abort()
        return None


class JsonWebSocket(ControlledConnection, WebSocket):
    """A WebSocket with the subprotocol ``realtime.v1.json``."""

    __slots__ = ()

    def say_goodbye(self, code: int, reason: str) -> None:
        """The last event, and the close frame."""
        self.write(self.bye(code, reason, retry(code)))
        super().say_goodbye(code, reason)

    def look(self, now: float) -> float | None:
        """Ping the client in its silence, and give it a sign of life in ours."""
        again = super().look(now)
        return None if again is None else min(again, self.keep_alive(now))

    def understand(self, item: Message) -> Message | None:
        """What the object in a frame says, and by what it is to be answered."""
        self._ref = None
        came = super().understand(item)
        if came is None or came.kind == "bytes":
            return came
        # Here and not when it came: it is answered in its place, and to a client that does
        # not read the answers nothing more is listened.
        try:
            message, self._ref = read(came.payload)
        except BadEnvelope as error:
            self.tell(frame(TEXT, refuse(str(error), error.ref)))
            return None
        return message

    def acknowledge(self, ref: Ref, position: Position | None) -> None:
        """Tell the client that it was heard."""
        self.tell(frame(TEXT, acknowledge(ref, position)))

    def reject(self, ref: Ref | None, rejected: Rejected) -> None:
        """Tell the client that its message is not taken."""
        self.tell(frame(TEXT, refuse(str(rejected), ref, rejected.status)))


def _explained(code: int, reason: str) -> End:
    return End(code, _EXPLAIN.get(CloseCode(code), reason[:1].lower() + reason[1:]))


class _Frames(WebSocketDataQueue):
    """What aiohttp's reader feeds: it hands each frame to the connection.

    Of the reader and of this class Realtime relies on the constructor, ``feed_data`` and
    ``set_exception``, as they are in aiohttp 3.14; ``tests/test_websocket.py`` holds it.
    """

    __slots__ = ("_connection",)

    _size = _limit = 0  # nothing waits here

    def __init__(self, connection: WebSocket) -> None:
        # Not the base's, which makes a queue.
        self._connection = connection

    def feed_data(self, data: Any, size: int) -> None:
        """A frame, or a message put together from several."""
        kind, payload, extra = data
        connection = self._connection
        if connection.deaf or (connection.closed and kind is not _CLOSE):
            return
        if kind is _TEXT:
            connection.hear(heard("text", payload.encode()))
        elif kind is _BINARY:
            connection.hear(heard("bytes", payload))
        else:
            connection.control_received(kind, payload, extra)

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        code = getattr(exc, "code", None)
        if code is None:  # not the client's fault, but a frame that was lost ends the connection
            raise exc
        self._connection.failed(int(code), str(exc))


class _DeflatedReader(WebSocketReader):
    """The reader where compression was agreed on: it leaves what is compressed as it is.

    aiohttp's own would inflate at once what may have to wait, keep 40 KiB for the next message, and
    raise zlib's errors. Of it Realtime relies on ``_handle_frame``, too, to which every frame comes.
    """

    __slots__ = ("_connection", "_fragments", "_kind", "_max_deflated", "_max_message")

    def __init__(self, connection: WebSocket, frames: _Frames, max_message: int) -> None:
        # What does not shrink grows: by a bit a byte, if the sender is as clumsy as can be.
        self._max_deflated = max_message * 9 // 8 + 64
        super().__init__(frames, self._max_deflated + 1, True, True)
        self._connection = connection
        self._max_message = max_message
        self._kind = 0  # the opcode of the message whose fragments are coming
        self._fragments = bytearray()

    def _handle_frame(self, fin: bool, opcode: int, payload: bytes | bytearray, compressed: int) -> None:
        if opcode >= CLOSE:
            super()._handle_frame(fin, opcode, payload, 0)
            return
        if bool(opcode) is bool(self._kind):
            raise WebSocketError(CloseCode.PROTOCOL_ERROR, "a fragment is out of its place")
        self._kind = kind = opcode or self._kind
        self._fragments += payload
        if len(self._fragments) > (self._max_deflated if compressed else self._max_message):
            raise WebSocketError(CloseCode.TOO_BIG, "")
        if not fin:
            return
        whole, self._fragments, self._kind = bytes(self._fragments), bytearray(), 0
        if not compressed:
            super()._handle_frame(True, kind, whole, 0)
        elif not self._connection.deaf and not self._connection.closed:
            # A little can become a thousand times as much: it is inflated where it is heard, not here.
            self._connection.hear(Deflated("message", "text" if kind == TEXT else "bytes", whole, 0.0))
