"""All open connections of a server: how many there are, who looks after them, and how they end."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from realtime.channel import Channel, Client
from realtime.heartbeat import Beating, Heartbeat
from realtime.transports.takeover import READ

#: The most snapshots that are being sent at once; they are up to a mebibyte each, and further ones wait.
MAX_SNAPSHOTS = 100
#: How many clients a shutdown tells at once, …
BATCH = 1000
#: … how many of them in one turn of the event loop, which then lets the others have theirs, …
TURN = 100
#: … and how long it waits between two batches, in seconds, more or less: a quarter of the grace in all
#: at most. Who is told later comes back later.
PAUSE, SHARE = 0.25, 0.25

log = logging.getLogger("realtime.connection")


class Open(Beating, Protocol):
    """A connection, as far as all of them together know one."""

    channel: Channel

    def close(self, code: int, reason: str) -> None:
        """Begin to close it, with a code and a reason."""

    def cut(self) -> None:
        """End it at once, and what its client has begun."""


class Connections:
    """All connections of a server, and what they share."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_clients: int) -> None:
        self.heartbeat = Heartbeat(loop)
        self.max_clients = max_clients
        self.draining = False
        #: How many clients each channel has, by its name: connections that have not joined yet
        #: and POSTs are among them.
        self.open: Counter[str] = Counter()
        #: Where every connection reads to: what is read is taken out before anybody else reads.
        self.buffer = memoryview(bytearray(READ))
        #: The snapshots that are being sent, and the one that is being made, which takes some milliseconds.
        self.snapshots, self.snapshot = asyncio.Semaphore(MAX_SNAPSHOTS), asyncio.Lock()
        self._all: dict[Open, None] = {}
        self._answering = 0
        self._ids = 0
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._all)

    def next_id(self) -> str:
        """An id for a client: public, unique in this process, no capability."""
        self._ids += 1
        return f"c{self._ids}"

    def add(self, connection: Open) -> None:
        """A connection begins."""
        self._all[connection] = None
        self.open[connection.channel.name] += 1
        self._empty.clear()

    def remove(self, connection: Open) -> None:
        """It is over, ``on_leave`` included."""
        del self._all[connection]
        self.open[connection.channel.name] -= 1
        self.heartbeat.forget(connection)
        self._look()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """While a client that says one thing waits for its answer."""
        self._answering += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._answering -= 1
            self._look()

    def _look(self) -> None:
        if not self._all and not self._answering:
            self._empty.set()

    async def close_all(self, code: int, reason: str, grace: float) -> None:
        """Tell every client, in batches, and wait until all are gone and answered.

        What is not gone within ``grace``, in seconds, is cut.
        """
        told = list(self._all)
        pause = min(PAUSE, SHARE * grace * BATCH / max(len(told), 1))
        try:
            async with asyncio.timeout(grace):
                for number, connection in enumerate(told):
                    if number and number % TURN == 0:
                        await asyncio.sleep(0 if number % BATCH else random.uniform(0.5, 1.5) * pause)
                    connection.close(code, reason)
                await self._empty.wait()
        except TimeoutError:
            log.warning("%d connections did not end within %gs and are cut", len(self), grace)
            for connection in list(self._all):
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


def not_the_plugins(error: BaseException) -> bool:
    """Whether it comes from outside the plugin's code: somebody ends this task, or the process."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return isinstance(error, KeyboardInterrupt | GeneratorExit)
