"""All open connections of a server: how many there are, who looks after them, and how they end."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from typing import Protocol

from realtime.channel import Channel, Client
from realtime.heartbeat import Beating, Heartbeat
from realtime.transports.takeover import READ

#: The most snapshots that are being sent at once; they are up to a mebibyte each, and further ones wait.
MAX_SNAPSHOTS = 100

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
        #: The thread of the event loop.
        self.thread = threading.get_ident()
        self._all: dict[Open, None] = {}
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
        if not self._all:
            self._empty.set()

    async def close_all(self, code: int, reason: str, grace: float) -> None:
        """Tell every client and wait until all are gone; cut what is not gone in time."""
        for connection in list(self._all):
            connection.close(code, reason)
        try:
            async with asyncio.timeout(grace):
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


def wrong_thread(method: str) -> RuntimeError:
    """What a plugin is told that calls a client's method in a thread of its own."""
    call = f"client.{method}()"
    there = f"asyncio.run_coroutine_threadsafe({call}, loop)"
    return RuntimeError(f"{call} was called from another thread; there it is {there}")


def not_the_plugins(error: BaseException) -> bool:
    """Whether it comes from outside the plugin's code: somebody ends this task, or the process."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    if isinstance(error, GeneratorExit):  # a coroutine that Python ends is run by no task
        return asyncio._get_running_loop() is None or asyncio.current_task() is None
    return isinstance(error, KeyboardInterrupt)
