"""WebSocket (RFC 6455): a connection of frames.

Frames are parsed by aiohttp's reader, a C extension. It wants to feed a queue of aiohttp's; the
subclass here hands each frame on at once, which spares a future and a turn of the loop per message.
What it lets pass ``framing.py`` finds before it.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

from aiohttp import WebSocketError, WSMsgType
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader

from realtime.buckets import Bucket
from realtime.channel import Channel
from realtime.close_codes import LOST, CloseCode, End, cut_reason, may_be_sent, retry
from realtime.encodings import CLOSE, PING, PONG, TEXT, DeflatedFrames, Form, JsonFrames, frame
from realtime.envelope import BadEnvelope, Ref, acknowledge, read, refuse
from realtime.errors import Rejected
from realtime.message import Message, Position, heard
from realtime.topic import Topic
from realtime.transports.connection import LEAVE_GRACE, TURN_MESSAGES, Connection
from realtime.transports.connections import TOO_MUCH_UNFINISHED, Connections
from realtime.transports.control import ControlledConnection
from realtime.transports.deflate import NOT_UTF_8, Deflated
from realtime.transports.framing import LATE, TOO_LARGE, Framing
from realtime.transports.takeover import owed

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
_WHOLE = (0x81, 0x82, 0xC1, 0xC2)  # the first byte of a message in one frame, compressed or not
_TEXT, _BINARY, _PING, _CLOSE = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING, WSMsgType.CLOSE
_EXPLAIN = {CloseCode.TOO_BIG: TOO_LARGE, CloseCode.BAD_DATA: NOT_UTF_8}


class WebSocket(Connection):
    """A connection of WebSocket frames, one message a frame."""

    __slots__ = (
        "_framing",
        "_heard_at",
        "_inbound",
        "_max_message",
        "_parsing",
        "_pinged",
        "_pong_waiters",
        "_reader",
        "_said_goodbye",
        "_unparsed",
        "allowance",
        "deaf",
        "pongs",
    )

    def __init__(
        self,
        connections: Connections,
        channel: Channel,
        topic: Topic,
        form: Form,
        max_message: int,
        inbound: Bucket,
    ) -> None:
        super().__init__(connections, channel, topic, form)
        self._inbound = inbound
        #: How many messages more it may send before :meth:`allowed` asks the bucket again.
        self.allowance = 0
        self._max_message = max_message
        frames = _Frames(self)
        # What does not shrink grows: by a bit a byte, if the sender is as clumsy as can be.
        max_deflated = max_message * 9 // 8 + 64
        self._framing = Framing(max_message, max_deflated)
        # The reader refuses a message of its limit or more; ours is the largest that passes.
        self._reader = (
            _DeflatedReader(self, frames, max_message, max_deflated)
            if isinstance(form, DeflatedFrames)
            else WebSocketReader(frames, max_message + 1, False, True)
        )
        self._heard_at = self._loop.time()
        self._pinged = 0.0
        self._pong_waiters: list[asyncio.Future[None]] = []
        #: What the pings carried that are still to be answered.
        self.pongs: list[bytes] = []
        self._unparsed = b""
        self._parsing = False  # in the next turn
        self._said_goodbye = False
        #: Whether the client has said its last.
        self.deaf = False

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        self._heard_at = self._loop.time()
        self._pinged = 0.0
        if self._pong_waiters:
            self._answer_pings_of_ours()
        size = len(data)
        if self._unparsed or size > PIECE:
            self._unparsed += data
            self._parse()
        elif not self.deaf:
            self._budget = TURN_MESSAGES
            # What nearly always comes is one whole frame, masked, and not in the middle of anything: its
            # length tells, less than 126 bytes or written in two.
            second = data[1] if size > 5 else 0
            whole = size - 6 == second - 128 if second < 254 else size - 8 == data[2] << 8 | data[3]
            if whole and second < 255 and data[0] in _WHOLE and not self._framing.begun:
                self._reader.feed_data(data)
            else:
                self._feed(data)
            if self.pongs:
                self.send_pongs()

    def _feed(self, data: bytes) -> None:
        """Hand frames to the reader, as far as nothing is wrong with them."""
        framing, connections = self._framing, self.connections
        before = framing.held
        well = framing.walk(data, self._loop.time())
        asked = framing.held - before
        connections.unfinished += asked
        if well:
            self._reader.feed_data(data[:well])
        if self.deaf:
            return
        if framing.wrong is not None:
            self._hear_end(framing.wrong)
        elif asked > 0 and connections.unfinished > connections.limits.unfinished:
            self._hear_end(End(CloseCode.TRY_AGAIN, TOO_MUCH_UNFINISHED))

    def _parse(self) -> None:
        """Parse what is left in pieces: a quarter of a mebibyte can be forty thousand frames.

        It stops when the client's task does not keep up, and lets others have their turn.
        """
        self._parsing, self._budget = False, TURN_MESSAGES
        for _ in range(PIECES):
            if not self._unparsed or not self._reading or self.deaf:
                break
            piece, self._unparsed = self._unparsed[:PIECE], self._unparsed[PIECE:]
            self._feed(piece)
        self.send_pongs()
        if self.deaf:
            self._unparsed = b""
        if self._unparsed:
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
        if self._framing.begun:
            self._framing.begun = self._loop.time()  # that we did not listen is not the client's fault
        if self._unparsed:
            self._parse_soon()
        else:
            super().read_on()

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is gone; what was said before is still heard."""
        if self._unparsed and not self.deaf:
            self._feed(self._unparsed)
            self._unparsed = b""
        self._hear_no_more()
        super().connection_lost(error)
        self._answer_pings_of_ours()

    def send_pongs(self) -> None:
        """Answer the pings, if what is written is read."""
        if self.pongs and not self.paused and not self.closed:
            self.write(b"".join(frame(PONG, data) for data in self.pongs))
            self.pongs.clear()

    def _answer_pings_of_ours(self) -> None:
        for waiter in self._pong_waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._pong_waiters.clear()

    def allowed(self) -> bool:
        """Whether the client may send this message; else it is closed."""
        if not self.allowance:
            rate = self._inbound.rate
            self.allowance = self._inbound.take(self._loop.time(), rate.portion)
            if not self.allowance:
                most = f"more than {rate.per_second} messages a second (limits.inbound_rate)"
                self.close(CloseCode.TOO_MANY_MESSAGES, most)
                return False
        self.allowance -= 1
        return True

    def control_received(self, kind: WSMsgType, data: Any, extra: Any) -> None:
        """A ping, or a close; a pong has done what it is for by coming."""
        if kind is _PING:
            self.pongs.append(bytes(data))
            del self.pongs[:-MAX_PONGS]
        elif kind is _CLOSE:
            self._said_goodbye = True
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
                self._hear_no_more()
                self.close(error.code, str(error))
                return None
        return item

    def failed(self, code: int, reason: str) -> None:
        """What the client sent breaks the protocol or a limit."""
        self._hear_end(End(code, _EXPLAIN.get(CloseCode(code), reason[:1].lower() + reason[1:])))

    def _hear_no_more(self) -> None:
        """The client has said its last: what is unfinished of it is dropped."""
        if not self.deaf:
            self.deaf = True
            self.connections.unfinished -= self._framing.held
            self._framing.begun = 0.0
            del self._reader

    def _hear_end(self, end: End) -> None:
        self._hear_no_more()
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
        if self._said_goodbye:
            self.hang_up()
        elif self.deaf and self.transport.can_write_eof() and not self.transport.is_closing():
            # Only our side ends, and what still comes is read: it would be answered with a reset, for
            # which many a client drops the close frame that it has not read yet.
            self.transport.write_eof()

    def resume_writing(self) -> None:
        """The transport has drained: the pongs that are owed go first."""
        self.paused = False
        self.send_pongs()
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
        paused, unread = self.paused, owed(self.transport)
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
            return owed(self.transport) < unread or self._loop.time() - self._paused_at < PONG_WITHIN
        return not self.closed

    def look(self, now: float) -> float | None:
        """Ping what has been silent, cut what stays silent."""
        if self.closed:
            return None
        due, whole = self._heard_at + PING_AFTER, math.inf
        if self._framing.begun and self._reading:
            whole = self._framing.due()
            if whole <= now:
                self._hear_end(End(CloseCode.POLICY, LATE))
                return None
        if due > now:
            return min(due, whole)
        if not self._reading:
            return now + PONG_WITHIN  # it is not listened to, so its silence says nothing
        if not self._pinged:
            self._pinged = now
            self.write(frame(PING, b""))
        if now < self._pinged + PONG_WITHIN:  # it may be looked at for something else meanwhile
            return min(self._pinged + PONG_WITHIN, whole)
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
            if connection.allowance:  # as allowed() has it: this is done for every message
                connection.allowance -= 1
            elif not connection.allowed():
                return
            message = heard("text", payload.encode())
        elif kind is _BINARY:
            if not connection.allowed():
                return
            message = heard("bytes", payload)
        else:
            connection.control_received(kind, payload, extra)
            return
        if connection.pongs:
            connection.send_pongs()  # before whatever the message is answered with
        connection.hear(message)

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

    __slots__ = ("_connection", "_fragments", "_kind", "_max_message")

    def __init__(self, connection: WebSocket, frames: _Frames, max_message: int, max_deflated: int) -> None:
        super().__init__(frames, max_deflated + 1, True, True)
        self._connection = connection
        self._max_message = max_message
        self._kind = 0  # the opcode of the message whose fragments are coming
        self._fragments = bytearray()

    def _handle_frame(self, fin: bool, opcode: int, payload: bytes | bytearray, compressed: int) -> None:
        if opcode >= CLOSE:
            super()._handle_frame(fin, opcode, payload, 0)
            return
        self._kind = kind = opcode or self._kind
        self._fragments += payload
        if not fin:
            return
        whole, self._fragments = bytes(self._fragments), bytearray()
        if not compressed:
            if len(whole) > self._max_message:
                raise WebSocketError(CloseCode.TOO_BIG, "")
            super()._handle_frame(True, kind, whole, 0)
        elif not self._connection.deaf and not self._connection.closed and self._connection.allowed():
            self._connection.send_pongs()
            # A little can become a thousand times as much: it is inflated where it is heard, not here.
            self._connection.hear(Deflated("message", "text" if kind == TEXT else "bytes", whole, 0.0))
