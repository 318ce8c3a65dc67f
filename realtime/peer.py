"""A peer: a client of a channel as a test holds it, which never waits without end."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Generic, TypeVar

from realtime.client import Connection
from realtime.clockwork import Clock
from realtime.envelope import V1_JSON
from realtime.errors import Closed, RealtimeError, Refused
from realtime.links import EventSource
from realtime.message import Message, Position
from realtime.transcript import WIDTH, Transcript

T = TypeVar("T")

#: The time-outs of the client below are not these: ours say what they waited for, and heed no clock.
NEVER = 1e9


class Peer(Generic[T]):
    """A client of a channel, for as long as its context lasts.

    ``receive`` gives what a plain WebSocket gets, a ``str`` or ``bytes``; with ``json=True`` and of
    a stream of events a :class:`realtime.Message`, with ``id``, ``event`` and ``data``. ``timeout`` is in
    seconds, of real time; a :exc:`TimeoutError` says what was waited for and what came before.
    """

    def __init__(
        self,
        name: str,
        connection: Connection,
        plain: bool,
        timeout: float,
        record: Transcript,
        clock: Clock,
    ) -> None:
        self.name = name
        self._connection = connection
        self._plain = plain
        self._timeout = timeout
        self._record = record
        self._clock = clock
        self._came: deque[T] = deque()
        self._taken: deque[str] = deque(maxlen=5)
        self._news = asyncio.Event()
        self._end: RealtimeError | None = None
        self._reading: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<{self.name}>"

    @property
    def welcome(self) -> Mapping[str, Any]:
        """What the server said first: ``client`` (its id), ``channel``, ``outcome`` and others.

        A plain WebSocket is told nothing of the kind.
        """
        return self._connection.welcome

    async def send(
        self, data: Any, *, event: str = "message", timeout: float | None = None
    ) -> Position | None:
        """Send text, bytes or anything that JSON can say; the position, where the server tells it.

        With ``json=True`` it waits for the server's word; :exc:`realtime.Refused` if that is no. The
        client of a stream sends by POST.
        """
        shown = data if event == "message" else f"{event}: {data}"
        self._record.add(self.name, f"> {shown!r}")
        limit = self._timeout if timeout is None else timeout
        sending = self._connection.send(data, event=event, timeout=NEVER)
        return await self._clock.within(sending, limit, f"{self.name}: {shown!r} was not acknowledged")

    async def receive(self, *, timeout: float | None = None) -> T:
        """The next message; :exc:`realtime.Closed` when there is none any more.

        What is the server's own housekeeping is none: the welcome, heartbeats, acks, the goodbye.
        Other events that begin with ``realtime:`` are.
        """
        __tracebackhide__ = True
        if not await self._until(lambda: bool(self._came or self._end), timeout):
            raise TimeoutError(self._nothing("a message", timeout))
        if not self._came:
            raise self._end or Closed(1006)
        message = self._came.popleft()
        self._taken.append(_shown(message))
        return message

    async def expect(self, *values: object, timeout: float | None = None) -> None:
        """The next messages are these, in this order: texts, or the data of messages."""
        __tracebackhide__ = True
        for value in values:
            try:
                message = await self.receive(timeout=timeout)
            except TimeoutError:
                raise TimeoutError(self._nothing(repr(value), timeout)) from None
            except Closed as end:
                raise AssertionError(f"{self.name}: expected {value!r}, but was closed: {end}") from None
            data = message.data if isinstance(message, Message) else message
            if data != value:
                raise AssertionError(f"{self.name}: expected {value!r}, but {_shown(message)} came")

    async def assert_nothing(self, within: float = 0.1) -> None:
        """Nothing came that was not received, nor comes ``within`` so many seconds of real time.

        What was published before would have arrived. To be closed meanwhile is something, too.
        """
        __tracebackhide__ = True
        ended = self._end
        await self._clock.settle()
        await self._until(lambda: bool(self._came) or self._end is not ended, within)
        await self._clock.settle()
        if self._came:
            came = ", ".join(map(_shown, self._came))
            raise AssertionError(f"{self.name}: expected nothing, but this came: {came[:WIDTH]}")
        if self._end is not ended:
            raise AssertionError(f"{self.name}: expected nothing, but was closed: {self._end}")

    async def closed(self, *, timeout: float | None = None) -> tuple[int, str]:
        """Wait for the server to close the connection: the close code and the reason."""
        __tracebackhide__ = True
        if not await self._until(lambda: self._end is not None, timeout):
            raise TimeoutError(self._nothing("the close", timeout))
        if isinstance(self._end, Closed):
            return self._end.code, self._end.reason
        raise self._end or Closed(1006)

    async def close(self) -> None:
        """Close it, with 1000."""
        if self._reading is not None and not self._reading.done():
            self._record.add(self.name, "> close")
            self._reading.cancel()
            await asyncio.wait([self._reading])
            await self._connection.__aexit__(None, None, None)
            self._end = self._end or Closed(1000)

    @asynccontextmanager
    async def _opened(self, nearest: Callable[[], str]) -> AsyncIterator[Peer[T]]:
        """Open it for a while; ``nearest`` says what there is instead, where there is nothing."""
        what = f"{self.name}: the server did not answer"
        async with contextlib.AsyncExitStack() as stack:
            try:
                await self._clock.within(self._connection.__aenter__(), self._timeout, what)
            except RealtimeError as error:
                self._record.add(self.name, f"< {error}")
                if isinstance(error, Refused) and error.status == HTTPStatus.NOT_FOUND:
                    error.args = (f"{error}{nearest()}",)
                raise
            stack.push_async_exit(self._connection)
            self._record.add(self.name, "open")
            link = self._connection._link
            if not self._plain and (not isinstance(link, EventSource) or link._objects):
                if not isinstance(link, EventSource) and self._connection.subprotocol != V1_JSON:
                    raise AssertionError(f"{self.name}: the server does not speak {V1_JSON} here")
                await self._clock.within(
                    self._connection._welcomed.wait(), self._timeout, f"{self.name}: no welcome"
                )
            self._reading = asyncio.create_task(self._read())
            try:
                yield self
            finally:
                self._reading.cancel()
                await asyncio.wait([self._reading])

    async def _read(self) -> None:
        try:
            async for message in self._connection:
                one: Any = message.data if self._plain else message
                self._came.append(one)
                self._record.add(self.name, f"< {_shown(one)}")
                self._news.set()
        except RealtimeError as error:
            self._end = error
        else:
            self._end = self._connection.closed
        self._record.add(self.name, f"< closed: {self._end}")
        self._news.set()

    async def _until(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Whether it became true within so many seconds of real time."""
        until = self._clock.patience() + (self._timeout if timeout is None else timeout)
        while not condition():
            if (left := until - self._clock.patience()) <= 0:
                return False
            self._news.clear()
            with contextlib.suppress(TimeoutError):  # which may come early, by the loop's clock
                async with asyncio.timeout(left):
                    await self._news.wait()
        return True

    def _nothing(self, what: str, timeout: float | None) -> str:
        limit = self._timeout if timeout is None else timeout
        before = f"; before: {', '.join(self._taken)}" if self._taken else "; nor before"
        waiting = f"; not received yet: {', '.join(map(_shown, self._came))}" if self._came else ""
        return f"{self.name}: waited for {what}, and nothing came within {limit:g}s{before}{waiting}"


def _shown(message: object) -> str:
    """A message as people read it."""
    if isinstance(message, Message):
        event = "" if message.event == "message" else f"{message.event} "
        return f"{event}{_shown(message.data)}"
    text = repr(message)
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}…"
