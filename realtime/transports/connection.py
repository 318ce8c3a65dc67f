"""A connection: one client's socket, from the end of the handshake to the end.

After the handshake a connection takes the place of aiohttp's own protocol on the transport, and
aiohttp is let go of: bytes come and go without a layer between. What arrives is handed to
``on_message`` at once, and only what that leaves unfinished to the client's one task; the bus writes
joined batches straight to the transport. There is no writing task and no queue of what is to be
written; a transport that holds too much pauses the connection, and the cursor waits.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from threading import get_ident
from time import perf_counter

from realtime.blame import not_the_plugins
from realtime.channel import Channel, Client
from realtime.close_codes import LOST, CloseCode, End
from realtime.eager import Begun, begin, go_on
from realtime.encodings import Form
from realtime.envelope import Ref
from realtime.errors import Disconnected, Rejected, Unavailable
from realtime.heartbeat import SLOT
from realtime.message import Message, Position
from realtime.subscriber import Subscriber
from realtime.topic import Topic
from realtime.transports.connections import STALL, Connections, log_bug, log_end, no_position, wrong_thread
from realtime.transports.deadline import Deadline
from realtime.transports.presence import arrive, depart
from realtime.transports.takeover import cut, limit, owed

#: How many messages of a client wait for its task before reading stops, and where it goes on.
MAX_INBOX = 8
LOW_INBOX = 2
#: After so many messages of one client in one turn of the loop the others have theirs.
TURN_MESSAGES = 32
#: How long a connection that is being closed may take, in seconds; then it is cut.
CLOSE_GRACE = 2.0
#: How long what a client has begun may go on after it is gone, in seconds; ``on_leave`` too.
LEAVE_GRACE = 10.0


class Connection(Deadline):
    """What all streaming transports share: a sink for the bus, and a link for the client."""

    # A connection is most of what an idle client costs, so it has no dictionary.
    __slots__ = (
        "_begun",
        "_budget",
        "_context",
        "_grace",
        "_idle",
        "_inbox",
        "_loop",
        "_lost",
        "_paused_at",
        "_reading",
        "_ref",
        "_task",
        "_unread",
        "_waiter",
        "_working",
        "channel",
        "client",
        "closed",
        "connections",
        "form",
        "on_message",
        "opened_at",
        "outcome",
        "paused",
        "slot",
        "subscriber",
        "topic",
        "transport",
        "write",
    )

    client: Client
    subscriber: Subscriber
    transport: asyncio.Transport
    #: Hands bytes to the transport (``subscriber.Sink``): its own method, for it is called most of all.
    write: Callable[[bytes], None]

    def __init__(self, connections: Connections, channel: Channel, topic: Topic, form: Form) -> None:
        super().__init__()
        self.connections = connections
        self.channel, self.topic, self.form = channel, topic, form
        #: The bus does not write while this is set (``subscriber.Sink``).
        self.paused = False
        #: Whether a close has begun, from whichever side; nothing is written any more.
        self.closed = False
        #: How it ended, for the log: a close code (``LOST``: without one) and the reason.
        self.outcome = End(LOST, "the connection was lost")
        self.slot: int | None = None
        self._loop = asyncio.get_running_loop()
        self.opened_at = self._loop.time()
        self._lost = False
        #: Who hears the messages of this client.
        self.on_message: Callable[[Client, Message], Awaitable[Position | None]] = channel.on_message
        self._paused_at = 0.0
        self._unread = 0  # what the client had still to take at the last look while paused
        # Whoever waits for the client: its task between two messages (idle), or what that is doing.
        self._inbox: list[Message | End] = []
        self._waiter: asyncio.Future[None] | None = None
        self._idle = False
        self._begun: Begun | None = None
        self._budget = 0  # how many messages may still be answered at once in this turn
        self._ref: Ref | None = None  # by what the message taken last is to be answered
        self._reading = True
        self._grace: asyncio.TimerHandle | None = None
        self._working = False  # the task does what the client has begun
        self._task: asyncio.Task[None]
        self._context = contextvars.copy_context()

    # The socket

    def attach(self, transport: asyncio.Transport) -> None:
        """This is the transport of the connection."""
        self.transport = transport
        self.write = transport.write

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""

    def pause_writing(self) -> None:
        """The kernel takes no more: the cursor waits from here on."""
        self.paused = True
        self._paused_at = self._loop.time()
        self._unread = owed(self.transport)
        self.subscriber.pause()
        self._regulate()
        if self.slot is not None and self.slot * SLOT > self._paused_at + STALL:
            self.connections.heartbeat.schedule(self, self._paused_at + STALL)

    def resume_writing(self) -> None:
        """The transport has drained."""
        self.paused = False
        self.subscriber.resume()
        self._wake()
        self._regulate()

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is gone; what was said before is still heard."""
        self._lost = True
        self.subscriber.detach()
        self.closed, self.paused = True, False
        self._inbox.append(self.outcome)
        self._wake()
        self._within(LEAVE_GRACE, self._give_up)

    def _within(self, grace: float, action: Callable[[], None]) -> None:
        if self._grace is not None:
            self._grace.cancel()
        self._grace = self._loop.call_later(grace, action)

    def _give_up(self) -> None:
        if self._working:
            self.tell_stuck(LEAVE_GRACE)
            self._task.cancel()

    def overrun(self, reason: str) -> None:
        """The client was too slow (``subscriber.Sink``)."""
        self.close(CloseCode.TRY_AGAIN, reason)

    def hang_up(self) -> None:
        """Close the socket once all is sent; a second time is nothing."""
        if not self.transport.is_closing():  # asyncio's over TLS could not be aborted after a second close
            self.transport.close()

    def abort(self) -> None:
        """Cut the connection, whatever is unsent."""
        if not self._lost:  # a transport that is gone has no loop to be aborted on
            cut(self.transport)

    def cut(self) -> None:
        """Cut it, and cancel what the client has begun."""
        self.abort()
        if self._working:
            self._task.cancel()

    # The client

    def send(self, message: Message) -> None:
        """Write a message to this client alone, in its place (``channel.Link``)."""
        if get_ident() != self.connections.thread:
            raise wrong_thread("send")
        # A transport that has failed, but not said so yet, would warn of every write.
        if not self.closed and not self.transport.is_closing():
            form = self.form
            if len(message.payload) > self.topic.bus.surely_fits:
                self.topic.bus.check_size(self.topic, message)
            if data := form.encode(message):
                self.topic.traffic.sent += 1
                self.subscriber.send(form.wrap(data))

    def close(self, code: int, reason: str) -> None:
        """Close, with a code and a reason. What the client said and was not heard is dropped."""
        if get_ident() != self.connections.thread:
            raise wrong_thread("close")
        if self.closed:
            return
        self.closed = True
        self.outcome = End(code, reason)
        self.subscriber.detach()
        self._inbox.clear()
        self._inbox.append(self.outcome)
        self._wake()
        self._regulate()
        self._within(CLOSE_GRACE, self.abort)
        self.say_goodbye(code, reason)

    def say_goodbye(self, code: int, reason: str) -> None:
        """Write the end of the stream in this transport's way."""
        raise NotImplementedError

    async def ping(self, timeout: float) -> bool:
        """Whether the client is there, as far as this transport can tell (``channel.Link``)."""
        return not self.closed

    async def receive(self) -> Message:
        """The next message of the client, which is answered with that (``channel.Link``)."""
        try:
            message = await self._take()
        except Disconnected:
            await asyncio.sleep(0)  # who catches it and asks again does not hold the loop
            raise
        self.begin_waiting()  # what it waited for the client was not its own time
        if self._ref is not None:
            self.acknowledge(self._ref, None)
        return message

    def acknowledge(self, ref: Ref, position: Position | None) -> None:
        """Tell the client that it was heard, in a transport where it can ask to be told."""

    def reject(self, ref: Ref | None, rejected: Rejected) -> None:
        """Tell the client that its message is not taken; where that cannot be said, it is closed."""
        self.close(rejected.close_code, str(rejected))

    async def _take(self) -> Message:
        """The next message of the client."""
        self._be_alone()
        while True:
            while not self.has_news:
                await self._wait()
            item = self._inbox[0]
            if isinstance(item, End):  # it stays the end, however often it is asked for
                self.close(*item)
                raise Disconnected(item.reason)
            del self._inbox[0]
            self._regulate()
            message = self.understand(item)
            if message is not None:
                return message

    def _be_alone(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("somebody else is receiving from this client already: one can at a time")

    @property
    def has_news(self) -> bool:
        """Whether something of the client is to be heard.

        A client that does not read what it is sent is not listened to either.
        """
        return bool(self._inbox) and (self.closed or not self.paused)

    async def _wait(self) -> None:
        self._waiter = waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            if self._waiter is waiter:
                self._waiter = None

    def understand(self, item: Message) -> Message | None:
        """The message in what came; None if there is none, which has been answered then."""
        return item

    def hear(self, item: Message) -> None:
        """Something came from the client.

        While the client's task is idle ``on_message`` is called here and now, in the name of that task:
        it spares a future and a turn of the event loop per message. Where it has to wait, or fails, the
        task goes on with it. Never called by a task.
        """
        waiter, traffic = self._waiter, self.topic.traffic
        traffic.received += 1
        if not self._idle or self._budget <= 0 or self.paused or waiter is None or waiter.done():
            self._queue(item)
            if len(self._inbox) >= MAX_INBOX:
                self._regulate()
            return
        self._budget -= 1
        message, ref = self.understand(item), self._ref
        if message is None:
            return
        self._waiter, self._idle = None, False  # on_message may receive() from the client itself
        began = 0.0 if traffic.received % traffic.every else perf_counter()
        result = begin(self._loop, self._task, self._context, self.on_message, self.client, message)
        if began:
            traffic.handler_seconds += traffic.every * (perf_counter() - began)
        if type(result) is Begun:
            self._begun = result
            self.begin_waiting()
        elif result is not None and type(result) is not Position:
            self._begun = Begun(None, no_position(self.channel, result))
        elif ref is not None:
            self.acknowledge(ref, result)
        if self._begun is None and not self._inbox:
            self._waiter, self._idle = waiter, True
        elif not waiter.done():  # else the task was cancelled
            waiter.set_result(None)

    def _queue(self, item: Message | End) -> None:
        self._inbox.append(item)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _regulate(self) -> None:
        """Read from the socket only while the client's task and its own reading keep up."""
        limit = MAX_INBOX if self._reading else LOW_INBOX + 1
        wanted = not self.paused and len(self._inbox) < limit
        if wanted != self._reading and not self.transport.is_closing():
            self._reading = wanted
            if wanted:
                self.read_on()
            else:
                self.transport.pause_reading()

    def read_on(self) -> None:
        """Go on with what the client sends."""
        self.transport.resume_reading()

    def greet(self, introduction: str) -> None:
        """Write what this transport begins with, before anything is delivered."""

    # Signs of life

    def watch(self) -> None:
        """Begin to look after the connection."""
        at = self.beat(self._loop.time())
        if at is not None:
            self.connections.heartbeat.schedule(self, at)

    def beat(self, now: float) -> float | None:
        """Look after the connection; see :class:`Heartbeat`."""
        over = self.look_at_token()
        if over <= 0:
            return None
        if self.paused:
            unread = owed(self.transport)
            if unread < self._unread:  # slow, but it reads
                self._unread, self._paused_at = unread, now
            elif now - self._paused_at >= STALL:
                self.outcome = End(CloseCode.TRY_AGAIN, f"read nothing for {STALL:g}s")
                self.abort()
                return None
        again = self.look(now)
        if again is None:
            return None
        again = min(again, now + over)
        if self._since:
            again = min(again, self.look_at_work(now))
        return min(again, self._paused_at + STALL) if self.paused else again

    def look(self, now: float) -> float | None:
        """What this transport does in silence; returns when to look again."""
        raise NotImplementedError

    # The whole life

    def live(self) -> None:
        """Begin to live, in a task of its own."""
        self._task = self._loop.create_task(self._live(), context=self._context)

    async def _live(self) -> None:
        """From the handshake to the end: connect, join, listen, leave, and go."""
        try:
            limit(self.transport)
            await self._serve()
            self.close(CloseCode.DONE, "")
            while not self._lost:
                await self._wait()
        finally:
            self.abort()
            if self._grace is not None:
                self._grace.cancel()
            (code, reason), seconds = self.outcome, self._loop.time() - self.opened_at
            facts = {"code": int(code), "reason": reason, "seconds": round(seconds, 3)}
            self.connections.ended[code] += 1
            log_end(self.client, self.channel, f"left after {seconds:.1f}s: {code:d} {reason}", facts)
            self.connections.remove(self)

    async def _serve(self) -> None:
        channel, client = self.channel, self.client
        joined, resumed = False, self.subscriber.resumed
        if resumed.lossy and not self.form.marks:
            lost = f"{resumed.missed} messages are" if resumed.missed else "it is"
            self.close(CloseCode.TRY_AGAIN, f"the position cannot be resumed, {lost} no longer kept")
            return
        self._working = True
        try:
            self.begin_waiting()
            try:
                await self.topic.traffic.metered(channel.on_connect(client))
            except TimeoutError:
                self.close(CloseCode.POLICY, "nothing was received in time")
            if self.closed:
                return
            joined = True
            channel.joined(client)
            self.topic.members[client] = None
            self.subscriber.start()
            self.begin_waiting()
            await self.topic.traffic.metered(channel.on_join(client))
            # Whom on_join has closed was never here; who is lost may have said something.
            if self._lost or not self.closed:
                await arrive(channel, client, self.topic, self.send if self.form.marks else None)
            self._since = 0.0
            await self._listen()
        except Disconnected:
            pass
        except Rejected as rejected:  # before it was listened to
            self.close(rejected.close_code, str(rejected))
        except BaseException as error:
            overdue = self.was_overdue(error)
            if not_the_plugins(error):
                raise
            if not overdue:
                log_bug(channel, "closes", client)
            self.close(CloseCode.BUG, "the channel has a bug")
        finally:
            self._working = False
            self._since = 0.0
            self.subscriber.detach()
            if joined:
                await self._leave()

    async def _listen(self) -> None:
        in_a_row, metered = 0, self.topic.traffic.metered
        while True:
            begun, error = self._begun, None
            while begun is None and not self.has_news:
                self._be_alone()
                self._idle = True
                try:
                    await self._wait()
                except asyncio.CancelledError as cancelled:
                    if self._begun is None:
                        raise
                    error = cancelled  # it is for what has begun
                finally:
                    self._idle = False
                begun = self._begun
            self._begun = None
            message: Message | None = None
            try:
                if begun is not None:
                    ref = self._ref
                    position = await metered(go_on(begun, error))
                else:
                    message, ref = await self._take(), self._ref
                    self.begin_waiting()
                    position = await metered(self.on_message(self.client, message))
            except Rejected as rejected:
                self.reject(ref, rejected)
            else:
                if position is not None and type(position) is not Position:
                    raise no_position(self.channel, position)
                if ref is not None:
                    self.acknowledge(ref, position)
            self._since = 0.0
            begun = message = None  # what they hold may be large, and the next message far away
            in_a_row += 1
            if in_a_row == TURN_MESSAGES:
                in_a_row = 0
                await asyncio.sleep(0)  # the other clients have their turn

    async def _leave(self) -> None:
        channel, client = self.channel, self.client
        channel.left(client)
        try:
            async with asyncio.timeout(LEAVE_GRACE):
                await depart(channel, client, self.topic)
                await self.topic.traffic.metered(channel.on_leave(client))
        except TimeoutError:
            channel.log.error("on_leave of %r did not end within %gs", client, LEAVE_GRACE)
        except BaseException as error:
            if not_the_plugins(error):
                raise
            if not isinstance(error, Unavailable):  # while the engine is away it cannot be said
                log_bug(channel, "fails on_leave of", client)
        self.topic.bus.left(self.topic)
