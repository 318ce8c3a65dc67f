"""The client for applications: ``async with realtime.connect(URL) as channel``.

One task per connection reads, answers acks, and connects again. It reads ahead of the iterator only
so far, and then no more from the socket: a slow consumer is the server's flow control, not our memory.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl as tls
import uuid
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp

from realtime.close_codes import LOST, RESTARTS, CloseCode
from realtime.envelope import V1_JSON
from realtime.errors import Closed, NotConnected, RealtimeError, Refused, Unconfirmed
from realtime.links import (
    CLOSE_TIMEOUT,
    EVENTS,
    Answer,
    EventSource,
    FairWebSocket,
    Link,
    Unsent,
    WebSocket,
    facts_of,
    not_connected,
    parse_url,
    refused,
    shown,
)
from realtime.message import Message, Position, Since

#: How far is read ahead of the iterator, in bytes of data and so much more for each message, …
READ_AHEAD = 256 * 1024
MESSAGE_COST = 256
#: … and how far while a ``send`` waits for its ack, which comes behind the messages before it.
READ_AHEAD_OF_ACK = 16 * 1024 * 1024
#: How long what is left of the sockets may take to close, in seconds. With ``CLOSE_TIMEOUT`` it is
#: less than the two in which leaving the context ends.
SOCKETS_TIMEOUT = 0.5

#: The events that say that messages were missed; their id is where the stream goes on from.
MARKERS = ("realtime:gap", "realtime:reset")
#: Those that say that the server takes nothing now, and that it does again.
NOTICES = ("realtime:degraded", "realtime:restored")
Headers = Mapping[str, str] | Iterable[tuple[str, str]]
Token = str | Callable[[], str | Awaitable[str]]


@dataclass(frozen=True)
class Backoff:
    """How long to wait before connecting again; all but ``random`` in seconds.

    ``first`` and ``most``: the longest first wait, which doubles with each failure, and where that
    ends: a server that is back is found within half a minute. Each wait is a random part of it (full
    jitter), so that thousands of clients do not come at once. ``restart``: the range after a server
    that shuts down or restarts. ``advised``: the most that the server's own advice is followed; half
    of it is added at random. ``stood``: a connection that lasted so long forgets earlier failures.
    """

    first: float = 1.0
    most: float = 30.0
    restart: tuple[float, float] = (1.0, 5.0)
    advised: float = 300.0
    stood: float = 10.0
    random: Callable[[], float] = random.random

    def delay(self, failures: int, code: int = LOST, advice: float | None = None) -> float:
        """The wait after ``failures`` in a row, a close with ``code`` and the server's advice."""
        backoff = self.random() * min(self.most, self.first * 2.0 ** min(failures, 30))
        if advice is not None:
            wanted = min(advice, self.advised) * (1 + self.random() / 2)
        elif code in RESTARTS:
            low, high = self.restart
            wanted = low + (high - low) * self.random()
        else:
            return backoff
        return max(wanted, backoff) if failures else wanted  # advice of 0 is no licence to hammer


class Connection:
    """A connection to a channel, over WebSocket or server-sent events, that comes back when it is cut.

    It is a context manager, and an async iterator of :class:`Message`. Entering it connects; the first
    attempt that fails raises :exc:`Refused` or :exc:`NotConnected`. The iteration ends when the server
    closes with 1000, and raises :exc:`Closed`, or :exc:`Refused` by a server to which it came back,
    when coming back makes no sense. Leaving it closes with 1000, within two seconds.

    - ``url``: ``ws://``, ``wss://``, ``http://`` or ``https://``; ``name`` is added as ``?name=``.
    - ``since``: where to begin: a position, its text, ``-20`` for the newest 20, ``"earliest"``.
    - ``token``: sent as ``Authorization: Bearer``, to this host alone: a text, or a function that gives it
      or an awaitable of it. A function is called before each request, and once more after 401 or 4401.
    - ``headers``: sent with every request. ``ssl``: whom to trust, an :class:`ssl.SSLContext`.
    - ``subprotocols``: what a WebSocket offers; ``()`` asks for plain frames.
    - ``reconnect``: False raises :exc:`Closed` at every end but 1000. ``backoff``: when to reconnect.
    - ``timeout``: how long connecting, or sending, may take, in seconds.
    - ``ping``: after so many seconds of silence a WebSocket is pinged, and cut after half as many more.
      ``slack``: so many seconds the heartbeat of a stream of events may be late.
    - ``max_message``: the largest message that is taken, in bytes; a larger one is :exc:`Closed` 1009.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str | None = None,
        since: Since | str = None,
        token: Token | None = None,
        headers: Headers = (),
        ssl: tls.SSLContext | None = None,
        subprotocols: Sequence[str] = (V1_JSON,),
        reconnect: bool = True,
        backoff: Backoff | None = None,
        timeout: float = 10.0,
        ping: float = 25.0,
        slack: float = 10.0,
        max_message: int = 64 * 1024 * 1024,
    ) -> None:
        """Raises :exc:`ValueError` when the URL is none."""
        self._url = parse_url(url, name)
        self._where = shown(self._url)
        self._token = token
        self._headers = headers
        self._ssl = ssl
        self._subprotocols = subprotocols
        self._reconnect = reconnect
        self._backoff = backoff or Backoff()
        self._timeout = timeout
        self._ping = ping
        self._slack = slack
        self._max_message = max_message
        #: What the server said of the connection: ``client``, ``channel``, ``outcome`` and others.
        self.welcome: Mapping[str, Any] = {}
        #: How the connection has ended, once and for all; None while it has not.
        self.closed: Closed | None = None
        self._since = "" if since is None else str(since)
        self._seen: Position | None = None  # how far messages have come in, …
        with suppress(ValueError):
            self._seen = Position.parse(self._since)
        self._taken = self._seen  # … and how far they have gone out
        self._resume = ""  # the id to come back with; anybody's, over server-sent events
        self._buffer: deque[Message] = deque()
        self._size = 0
        self._sending = 0
        self._link: Link | None = None
        self._error: RealtimeError | None = None
        self._memory = 0  # of how many servers that remember nothing of each other there was a welcome
        self._arrived, self._room, self._linked = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._welcomed = asyncio.Event()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._room.set()

    @property
    def position(self) -> Position | None:
        """Where the messages that were taken end: what to give as ``since`` another time."""
        return self._taken if self._buffer else self._seen

    @property
    def client_id(self) -> str | None:
        """What the server calls this client; None where it says nothing of the kind."""
        client = self.welcome.get("client")
        return client if isinstance(client, str) else None

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the server selected; None for plain frames, and without a connection."""
        return self._link.subprotocol if self._link else None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(socket_factory=self._socket, ssl=self._ssl or True),
            headers=self._headers,
            # What is compressed on the way waits on the way.
            skip_auto_headers=("Accept-Encoding",),
            timeout=aiohttp.ClientTimeout(total=None),
            middlewares=(self._look_at_answer,),
            ws_response_class=FairWebSocket,
        )
        try:
            self._set_link(await self._open())
        except BaseException:
            await self._close_session()
            raise
        self._task = asyncio.create_task(self._run(), name=f"connection to {self._where}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        link, self._reconnect = self._link, False
        self._end(Closed(CloseCode.DONE))
        try:
            if link is not None:
                await link.close()
        finally:
            self._task.cancel()
            try:
                await asyncio.wait([self._task])
            finally:
                await self._close_session()

    def __aiter__(self) -> AsyncIterator[Message]:
        """Itself: the messages from now on, each once."""
        return self

    async def __anext__(self) -> Message:
        """The next message."""
        while not self._buffer:
            if self._error is not None:
                raise self._error
            if self.closed is not None:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        message = self._buffer.popleft()
        self._size -= len(message.payload) + MESSAGE_COST
        self._taken = message.id or self._taken
        self._look_for_room()
        return message

    async def send(
        self, data: Any, *, event: str = "message", timeout: float | None = None
    ) -> Position | None:
        """Send text, bytes, or anything that JSON can say; the position, where the server tells it.

        Waits for the connection to be back, and for the server's word, ``timeout`` seconds at most.
        Plain WebSocket frames have no event, no word and no position; JSON goes as text.

        Raises :exc:`NotConnected` when nothing was sent, :exc:`Unconfirmed` when it may have arrived or
        not, :exc:`Refused` when the server said no, :exc:`Closed` when the connection has ended, and
        :exc:`ValueError` for what cannot be sent.
        """
        message = Message.of(data, event=event, time=0.0)
        limit = self._timeout if timeout is None else timeout
        link: Link | None = None
        try:
            async with asyncio.timeout(limit):
                self._sending += 1
                self._look_for_room()
                try:
                    while True:
                        link = await self._link_that_stands()
                        try:
                            position, messages = await self._deliver(link, message)
                            break
                        except Unsent:
                            if self._link is link:
                                self._set_link(None)
                            link = None
                finally:
                    self._sending -= 1
                    self._look_for_room()
        except TimeoutError:
            if link is None:
                raise NotConnected(f"{self._where}: not connected within {limit:g}s") from None
            raise Unconfirmed(f"no answer within {limit:g}s") from None
        for answer in messages:
            self._take(answer, "")
        return position

    async def _link_that_stands(self) -> Link:
        while self._link is None:
            if self._error is not None or self.closed is not None:
                raise self._error or self.closed or Closed(LOST)
            await self._linked.wait()
        return self._link

    async def _deliver(self, link: Link, message: Message) -> Answer:
        """Send it; over HTTP, when the answer is lost, again under its key to a server that can know that.

        Nothing of a foreign server says so, and one that has begun anew has forgotten it.
        """
        key, memory, failures = uuid.uuid4().hex, 0, 0
        lost: Unconfirmed | None = None
        while True:
            advice, known = None, link.memory
            try:
                return await link.send(message, key)
            except Unconfirmed as error:
                lost, memory = error, memory or known or link.memory
            except (NotConnected, Refused) as error:
                if lost is None or (isinstance(error, Refused) and not error.comes_back):
                    raise
                advice = error.retry_after if isinstance(error, Refused) else None
            if not memory:
                raise lost
            await asyncio.sleep(self._backoff.delay(failures, LOST, advice))  # spares the server
            await self._welcomed.wait()
            if self._link is None or self._link.memory != memory:
                raise lost
            link, failures = self._link, failures + 1

    # What comes in

    async def _run(self) -> None:
        failures, loop = 0, asyncio.get_running_loop()
        try:
            while (link := self._link) is not None:
                began = loop.time()
                end = await self._read(link)
                self._set_link(None)
                await link.close(end)
                code, advice = end.code, link.retry
                failures = 0 if loop.time() - began >= self._backoff.stood else failures + 1
                renewed = failures < 3 and end.code == CloseCode.NOT_AUTHENTICATED and callable(self._token)
                tried = False
                while self._link is None:
                    if not (self._reconnect and (end.comes_back or renewed)):
                        self._end(end)
                        return
                    await asyncio.sleep(self._backoff.delay(failures, code, advice))  # as above
                    try:
                        self._set_link(await self._open())
                    except NotConnected:
                        code, advice, failures = LOST, None, failures + 1
                    except Refused as error:
                        # A token that was got before the server looked at it may just have ended.
                        again = error.status == 401 and callable(self._token) and not tried
                        tried = tried or again
                        if not (error.comes_back or again):
                            self._end(error)
                            return
                        code, advice, failures = LOST, error.retry_after, failures + 1
        except Exception as bug:  # whoever iterates is to hear of it, and not to wait for ever
            self._end(RealtimeError(f"{self._where}: {bug!r}"))
            raise

    async def _read(self, link: Link) -> Closed:
        """Take what comes until it ends; how it did."""
        try:
            while True:
                await self._room.wait()
                message, id = await link.receive()
                if message.event == "realtime:welcome":
                    self._greeted(link, message)
                elif message.event == "realtime:bye":
                    link.said_goodbye(facts_of(message))
                elif message.event != "realtime:heartbeat":
                    if message.event == "realtime:reset":  # what it knew of messages may be lost, too
                        self._remember(link, anew=True)
                    self._take(message, id)
        except Closed as end:
            return link.goodbye or end

    def _greeted(self, link: Link, message: Message) -> None:
        self.welcome = facts = facts_of(message)
        # The first, or a server that does not know the position: it may be another.
        self._remember(link, anew=facts.get("outcome") not in ("recovered", "gap"))
        self._welcomed.set()
        heartbeat = facts.get("heartbeat")
        if isinstance(heartbeat, int | float) and heartbeat > 0:
            link.silence = heartbeat + self._slack
        # After a gap or a reset the marker brings the position: if it is cut before that, the next
        # connection has to say again what was missed.
        if message.id is not None and facts.get("outcome") not in ("gap", "reset"):
            self._seen, self._resume = message.id, str(message.id)

    def _remember(self, link: Link, *, anew: bool) -> None:
        self._memory += anew
        if isinstance(link, EventSource):
            link.memory = self._memory

    def _take(self, message: Message, id: str) -> None:
        seen, position = self._seen, message.id
        if position is not None:
            if (
                message.event not in MARKERS
                and seen is not None
                and (position.epoch == seen.epoch and position.offset <= seen.offset)
            ):
                return  # it has come before
            self._seen = position
        self._resume = id or self._resume
        if not self._buffer:
            self._taken = seen
        self._buffer.append(message)
        self._size += len(message.payload) + MESSAGE_COST
        self._arrived.set()
        self._look_for_room()

    def _look_for_room(self) -> None:
        if self._size < (READ_AHEAD_OF_ACK if self._sending else READ_AHEAD):
            self._room.set()
        else:
            self._room.clear()

    # Connecting and ending

    async def _open(self) -> Link:
        websocket = self._url.scheme in ("ws", "wss")
        url, headers = self._url, {}
        if self._resume and not websocket:
            headers["Last-Event-ID"] = self._resume
        elif since := self._resume or self._since:
            url = url.update_query(since=since)
        try:
            async with asyncio.timeout(self._timeout):
                if websocket:
                    return WebSocket(
                        await self._session.ws_connect(
                            url,
                            protocols=self._subprotocols,
                            headers=headers,
                            autoclose=False,
                            heartbeat=self._ping,
                            max_msg_size=self._max_message + 1,  # it refuses a message of its limit
                            timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT),
                        )
                    )
                headers["Accept"] = EVENTS
                response = await self._session.get(url, headers=headers)
                if response.status != 200 or response.content_type != "text/event-stream":
                    raise await refused(f"{self._where}: no stream of events", response)
                return EventSource(response, self._session, self._url, self._max_message)
        except TimeoutError:
            raise NotConnected(f"{self._where}: no answer within {self._timeout:g}s") from None
        except aiohttp.WSServerHandshakeError as error:
            what = f"{self._where}: no WebSocket"
            if error.status == 101:
                raise NotConnected(f"{what}: {error.message[:1].lower()}{error.message[1:]}") from None
            raise Refused(what, error.status) from None
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            not_connected(self._where, error)

    async def _look_at_answer(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if self._token is not None and (request.url.host, request.url.port) == (
            self._url.host,
            self._url.port,
        ):
            token = self._token if isinstance(self._token, str) else self._token()
            given = token if isinstance(token, str) else await token
            request.headers["Authorization"] = f"Bearer {given}"
        # aiohttp's own error of a refused handshake has lost the body.
        response = await handler(request)
        if response.status >= 400 and "Upgrade" in request.headers:
            raise await refused(f"{self._where}: no WebSocket", response)
        return response

    def _socket(self, info: tuple[Any, ...]) -> socket.socket:
        made = socket.socket(*info[:3])
        self._sockets.add(made)
        return made

    def _set_link(self, link: Link | None) -> None:
        self._link = link
        self._welcomed.clear()
        if link is None:
            self._linked.clear()
        else:
            self._linked.set()

    def _end(self, error: RealtimeError) -> None:
        if self.closed is None and self._error is None:
            self.closed = error if isinstance(error, Closed) else None
            if not (isinstance(error, Closed) and error.code == CloseCode.DONE):
                self._error = error
        self._set_link(None)
        self._linked.set()  # whoever waits for a connection is to see that there will be none
        self._welcomed.set()
        self._arrived.set()

    async def _close_session(self) -> None:
        for left in self._sockets:
            # A transport that closes waits for its buffer, for ever when the peer does not read.
            with suppress(OSError):  # it is closed already
                left.shutdown(socket.SHUT_RDWR)
        with suppress(TimeoutError):
            async with asyncio.timeout(SOCKETS_TIMEOUT):
                await self._session.close()


#: ``connect(URL)`` reads better where it is called; the class is the same.
connect = Connection
