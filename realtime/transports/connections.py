"""All open connections of a server: how many there are, who looks after them, and how they end."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import sys
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from realtime.blame import defined
from realtime.buckets import Bucket, Rate
from realtime.channel import Channel, Client
from realtime.close_codes import End
from realtime.heartbeat import Beating, Heartbeat
from realtime.permissions import Identity
from realtime.remedies import remedy
from realtime.transports.takeover import READ

#: The most snapshots that are being sent at once; they are up to a mebibyte each, and further ones wait.
MAX_SNAPSHOTS = 100
#: How long a client that takes not a byte of what is written is kept, in seconds: twice the pause of a
#: healthy one, and less than the kernel's own patience, which gives no reason. While others wait for it
#: to take its snapshot, that pause is all it has.
STALL, STALL_WHILE_OTHERS_WAIT = 10.0, 2.0
#: Why one who has more to say than there is room for is sent away.
TOO_MUCH_UNFINISHED = "all clients' unfinished messages take more than server.limits.unfinished"
#: How many clients a shutdown tells at once, …
BATCH = 1000
#: … how many of them in one turn of the event loop, which then lets the others have theirs, …
TURN = 100
#: … and how long it waits between two batches, in seconds, more or less: a quarter of the grace in all
#: at most. Who is told later comes back later.
PAUSE, SHARE = 0.25, 0.25
#: How often it is looked whether those who were told are gone, in seconds.
GLANCE = 0.02

log = logging.getLogger("realtime.connection")


class Limits(Protocol):
    """What clients may, by the keys of ``server.limits``."""

    max_message: int
    max_clients: int
    inbound_rate: int
    inbound_burst: int
    max_clients_per_user: int | None
    max_clients_per_address: int | None
    connect_rate: int
    connect_burst: int
    unfinished: int


class Full(NamedTuple):
    """Why somebody is refused: the key of the limit, a sentence, and the status.

    That is 429 for what the client itself has too much of, 503 for what there is too much of.
    """

    limit: str
    sentence: str
    status: int = 503


class Open(Beating, Protocol):
    """A connection, as far as all of them together know one."""

    channel: Channel
    client: Client

    def close(self, code: int, reason: str) -> None:
        """Begin to close it, with a code and a reason."""

    def cut(self) -> None:
        """End it at once, and what its client has begun."""


class Connections:
    """All connections of a server, and what they share."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits) -> None:
        self.heartbeat = Heartbeat(loop)
        self._now = loop.time
        self._connect_rate = Rate(0, 0)
        self.limit(limits)
        #: How many bytes of messages that have not come whole all clients together have sent.
        self.unfinished = 0
        self.draining = False
        #: How many clients each channel has, each user, and each address, by their names: connections that
        #: have not joined yet and POSTs are among them.
        self.open: Counter[str] = Counter()
        self.users: Counter[str] = Counter()
        self.addresses: Counter[str] = Counter()
        #: How many streams and WebSockets each channel has by each transport.
        self.streams: Counter[tuple[str, str]] = Counter()
        #: How many were turned away before they began, by the key of the limit or else the status, …
        self.refused: Counter[str] = Counter()
        #: … and how many connections have ended, by the code.
        self.ended: Counter[int] = Counter()
        #: Where every connection reads to: what is read is taken out before anybody else reads.
        self.buffer = memoryview(bytearray(READ))
        #: The snapshots that are being sent, and the one that is being made, which takes some milliseconds.
        self.snapshots, self.snapshot = asyncio.Semaphore(MAX_SNAPSHOTS), asyncio.Lock()
        #: The thread of the event loop.
        self.thread = threading.get_ident()
        self._all: dict[Open, None] = {}
        self._answering: Counter[Channel] = Counter()
        self._ids = 0
        #: What every id begins with, so that no other process has the same.
        self.node = ""
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Open]:
        return iter(list(self._all))

    def limit(self, limits: Limits) -> None:
        """Set the bounds: for whoever comes from now on."""
        self.limits = limits
        connecting = Rate(limits.connect_rate, limits.connect_burst)
        if connecting != self._connect_rate:
            self._connect_rate, self._connecting = connecting, Bucket(connecting, self._now())

    def patience(self) -> float:
        """For how long a client may take nothing of its answer, in seconds."""
        return STALL_WHILE_OTHERS_WAIT if self.snapshots.locked() else STALL

    def next_id(self) -> str:
        """An id for a client: public, unique in this process, no capability."""
        self._ids += 1
        return f"{self.node}c{self._ids}"

    def no_room(self, channel: Channel, identity: Identity | None, address: str) -> Full | None:
        """Why there is no room for another client, if there is none."""
        limits, of_channel = self.limits, channel.settings.limits.max_clients
        of_user, of_address = limits.max_clients_per_user, limits.max_clients_per_address
        if self.draining:
            return Full("draining", "the server is shutting down")
        if self.open.total() >= limits.max_clients:
            return Full("server.limits.max_clients", "the server is full")
        if of_channel is not None and self.open[channel.name] >= of_channel:
            return Full("limits.max_clients", "the channel is full")
        if identity and of_user is not None and self.users[identity.name] >= of_user:
            sentence = f"a user may have {of_user} connections"
            return Full("server.limits.max_clients_per_user", sentence, 429)
        if address and of_address is not None and self.addresses[address] >= of_address:
            sentence = f"an address may have {of_address} connections"
            return Full("server.limits.max_clients_per_address", sentence, 429)
        return None

    def may_connect(self) -> bool:
        """Whether another may connect now: not too many did so in the last second."""
        return self._connecting.take(self._now()) > 0

    def count(self, channel: Channel, client: Client, change: int) -> None:
        """A client comes (1) or goes (-1); who watches the server takes nobody's place."""
        if channel.name.startswith("-"):
            return
        who = client.identity.name if client.identity else ""
        for counter, key in (self.open, channel.name), (self.users, who), (self.addresses, client.remote):
            if key:
                counter[key] += change
                if not counter[key]:  # names and addresses are without number
                    del counter[key]

    def add(self, connection: Open) -> None:
        """A connection begins."""
        self._all[connection] = None
        self.streams[connection.channel.name, connection.client.transport] += 1
        self.count(connection.channel, connection.client, 1)
        self._empty.clear()

    def remove(self, connection: Open) -> None:
        """It is over, ``on_leave`` included."""
        del self._all[connection]
        self.streams[connection.channel.name, connection.client.transport] -= 1
        self.count(connection.channel, connection.client, -1)
        self.heartbeat.forget(connection)
        self._look()

    @contextmanager
    def answering(self, channel: Channel) -> Iterator[None]:
        """While a client that says one thing waits for the channel's answer."""
        self._answering[channel] += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._answering[channel] -= 1
            if not self._answering[channel]:
                del self._answering[channel]
            self._look()

    def _look(self) -> None:
        if not self._all and not self._answering:
            self._empty.set()

    async def close_all(self, code: int, reason: str, grace: float) -> None:
        """Tell every client, in batches, and wait until all are gone and answered.

        What is not gone within ``grace``, in seconds, is cut.
        """
        try:
            async with asyncio.timeout(grace):
                await self._tell(dict.fromkeys(self._all, End(code, reason)), grace)
                await self._empty.wait()
        except TimeoutError:
            self._cut(list(self._all), grace)

    async def close_some(
        self, ends: Mapping[Open, End], channels: Collection[Channel], grace: float
    ) -> None:
        """The same for some, each with its end, and until who POSTs to these channels has an answer."""
        left = list(ends)
        try:
            async with asyncio.timeout(grace):
                await self._tell(ends, grace)
                while left or not self._answering.keys().isdisjoint(channels):
                    await asyncio.sleep(GLANCE)
                    left = [one for one in left if one in self._all]
        except TimeoutError:
            self._cut([one for one in left if one in self._all], grace)

    async def _tell(self, ends: Mapping[Open, End], grace: float) -> None:
        pause = min(PAUSE, SHARE * grace * BATCH / max(len(ends), 1))
        for number, (connection, end) in enumerate(ends.items()):
            if number and number % TURN == 0:
                await asyncio.sleep(0 if number % BATCH else random.uniform(0.5, 1.5) * pause)
            connection.close(*end)

    def _cut(self, those: Collection[Open], grace: float) -> None:
        if those:
            log.warning("%d connections did not end within %gs and are cut", len(those), grace)
        for connection in those:
            connection.cut()


def log_end(
    client: Client, channel: Channel, end: str, facts: dict[str, object], level: int = logging.INFO
) -> None:
    """The one line that the log has of a client, at its end; the facts are fields of it in JSON."""
    who = f"{client.id} ({client.name})" if client.name else client.id
    whence = client.remote or "an unknown address"
    fields = {
        "client": client.id,
        "channel": channel.name,
        "transport": client.transport,
        "topic": client.topic,
        "name": client.name,
        "remote": client.remote,
        **facts,
    }
    channel.log.log(
        level, "%s %s from %s %s", client.transport, who, whence, end.rstrip(), extra={"fields": fields}
    )


def log_bug(channel: Channel, what: str, client: Client, more: str = "") -> None:
    """Log the error in hand, a plugin's, with its lines, and the remedy if one is known."""
    error = sys.exc_info()[1]
    about = "" if error is None else remedy(error)
    plugin = channel.settings.plugin
    channel.log.exception("a bug of plugin %r %s %r%s%s", plugin, what, client, more, about)


def no_position(channel: Channel, returned: object) -> TypeError:
    """What is wrong with an ``on_message`` that returned this."""
    how = "return what publish() returned, or None"
    try:
        what = repr(returned)
    except Exception:  # it is told of all the same
        what = object.__repr__(returned)
    if inspect.iscoroutine(returned):
        returned.close()  # or it would warn, of a line of ours, that nobody has awaited it
        what, how = f"the coroutine {returned.__qualname__!r}", "write 'return await …'"
    place = defined(type(channel), "on_message")
    return TypeError(f"on_message returned {what}, which is no Position: {how}; in {place}")


def wrong_thread(method: str) -> RuntimeError:
    """What a plugin is told that calls a client's method in a thread of its own."""
    call = f"client.{method}()"
    there = f"asyncio.run_coroutine_threadsafe({call}, loop)"
    return RuntimeError(f"{call} was called from another thread; there it is {there}")
