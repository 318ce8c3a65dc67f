"""A trial: a real server with one channel, of which everything is seen that its author does not see.

Who comes, joins and leaves, what is logged, which tasks, descriptors and memory are left, and whether the
event loop turns. What is tried is in ``conformance``.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from realtime.blame import lines, of_task, of_thread, theirs
from realtime.channel import Channel, Client
from realtime.errors import Rejected
from realtime.findings import Do, Finding, Trouble
from realtime.message import Message, Position
from realtime.server import Server
from realtime.stranger import TEXT, UPGRADE, Stranger, frame, request

#: How long what is to happen at once may take, in seconds.
PATIENCE = 5.0
#: How long it may take until a client that has gone has left: longer than what it has begun is allowed to.
GONE = 12.0
#: For how long the event loop may be held before the run gives up, in seconds.
HANG = 10.0
#: How late the bystander may be served, in seconds.
LATE = 1.0
#: How long the shutdown may take (``server.drain``), in seconds.
DRAIN = 4.0
ACCEPT = {
    "sse": "text/event-stream",
    "ndjson": "application/x-ndjson",
    "json": "application/json",
}
V1 = {"Sec-WebSocket-Protocol": "realtime.v1.json"}


@dataclass(frozen=True)
class Manners:
    """How a client of this channel behaves; ``{n}`` in a text stands for the number of the client."""

    says: Sequence[str] = ()
    query: Sequence[tuple[str, str]] = ()
    message: str = "hello"
    headers: Mapping[str, str] = field(default_factory=dict)


class Trial:
    """One channel of a server that has been loaded, and is watched from here on."""

    def __init__(self, server: Server, name: str, manners: Manners) -> None:
        self.server = server
        self.channel: Channel = server.channels[name]
        self.manners = manners
        #: How many clients there were; how many have joined, and how often ``on_leave`` was and has ended.
        self.number = 0
        self.joined = self.leaving = self.left = 0
        #: How many messages the channel has been given, is at work on, and has rejected.
        self.heard = self.busy = self.refused = 0
        #: Everybody who ever connected, as far as somebody still knows them.
        self.known: list[weakref.ref[Client]] = []
        self.peers: list[Stranger] = []
        self.log: list[logging.LogRecord] = []
        #: When the event loop turned last; and of the bystander when it asked, how long it waited, whether
        #: it was served at all, and during which check.
        self.turned = time.monotonic()
        self.lateness: list[tuple[float, float, bool, str]] = []
        #: From when to when, and for how many seconds of it, the machine had no time for this process.
        self.stood: list[tuple[float, float, float]] = []
        self.doing = "starts"
        #: What went wrong in this check.
        self.findings: list[Finding] = []
        #: The lines that a finding has named.
        self.told: set[str] = set()
        #: Whose lifespan had ended before the server was stopped.
        self.dead: list[str] = []
        #: What tells people at once of what makes the run slow; see ``blocking``.
        self.tell: Callable[[str], object] = lambda text: None
        self._bystander: asyncio.Task[None] | None = None
        self._threads = threading.enumerate()
        self._watch()

    @property
    def port(self) -> int:
        """Where the server listens."""
        return self.server.addresses[0].port

    def serves(self, transport: str) -> bool:
        """Whether the channel serves a transport."""
        return transport in self.channel.transports

    @property
    def v1(self) -> bool:
        """Whether a message is said as JSON, with ``realtime.v1.json``: it is no text."""
        return not isinstance(as_data(self.manners.message), str)

    @property
    def hears(self) -> bool:
        """Whether the channel does anything with what clients say."""
        return type(self.channel).on_message is not Channel.on_message

    def fail(self, happened: str, place: str = "", remedy: str = "") -> None:
        """The check fails, and goes on."""
        self.findings.append(Finding(happened, place, remedy))

    # What happens to its clients

    def _watch(self) -> None:
        channel: Any = self.channel
        connect, join, hear, leave = (
            getattr(channel, name) for name in ("on_connect", "on_join", "on_message", "on_leave")
        )

        async def on_connect(client: Client) -> None:
            self.known.append(weakref.ref(client))
            await connect(client)

        async def on_join(client: Client) -> None:
            await join(client)
            self.joined += 1

        async def on_message(client: Client, message: Message) -> Position | None:
            self.busy += 1
            try:
                answer: Position | None = await hear(client, message)
                self.heard += 1
                return answer
            except Rejected:
                self.heard += 1
                self.refused += 1
                raise
            finally:
                self.busy -= 1

        async def on_leave(client: Client) -> None:
            self.leaving += 1
            await leave(client)
            self.left += 1

        for method in (on_connect, on_join, on_message, on_leave):
            setattr(channel, method.__name__, method)

    # Clients

    def path(self, number: int, *, since: str = "") -> str:
        """The path and query of a client."""
        path = "/".join(
            "conformance" if segment[:1] == "{" else quote(segment)
            for segment in self.channel.settings.path.split("/")
        )
        pairs = [(name, text.replace("{n}", str(number))) for name, text in self.manners.query]
        pairs += [("since", since)] if since else []
        return f"{path}?{urlencode(pairs)}" if pairs else path

    def opening(self, transport: str, number: int, *, since: str = "") -> bytes:
        """The request by which a client begins."""
        headers = dict(self.manners.headers)
        if transport in ("websocket", "v1"):
            headers |= UPGRADE | (V1 if transport == "v1" else {})
        else:
            headers["Accept"] = ACCEPT[transport]
        return request(self.path(number, since=since), headers)

    def said(self, text: str, *, v1: bool = False) -> bytes:
        """A text as a frame."""
        return frame(TEXT, orjson.dumps({"data": as_data(text)}) if v1 else text.encode())

    def greeting(self, number: int, *, v1: bool = False) -> bytes:
        """All that a client has to say before it joins."""
        texts = (text.replace("{n}", str(number)) for text in self.manners.says)
        return b"".join(self.said(text, v1=v1) for text in texts)

    async def dial(self, data: bytes, *, receive_buffer: int = 0) -> Stranger:
        """A connection that is closed at the end of the check."""
        peer = await Stranger.dial(self.port, data, receive_buffer=receive_buffer)
        self.peers.append(peer)
        return peer

    async def begin(
        self, transport: str, number: int = 0, *, since: str = "", receive_buffer: int = 0
    ) -> Stranger:
        """A client that has connected and said its greeting. It may not have joined yet."""
        if not number:
            self.number += 1
            number = self.number
        opening = self.opening(transport, number, since=since)
        peer = await self.dial(opening, receive_buffer=receive_buffer)
        if not await until(lambda: bool(peer.status) or peer.gone):
            raise Trouble(self.stuck(f"the {transport} request was not answered within {PATIENCE:g}s"))
        wanted = 101 if transport in ("websocket", "v1") else 200
        if peer.status != wanted:
            await until(lambda: peer.whole, 1.0)
            happened = f"the request was answered {peer.status}: {peer.text.strip()[:200]}"
            raise Trouble(Finding(happened, self.last_error(), Do.LET_IN))
        if wanted == 101:
            peer.say(self.greeting(number, v1=transport == "v1"))
        return peer

    async def join(self, transport: str, number: int = 0, **options: Any) -> Stranger:
        """A client that has joined. Raises :exc:`Trouble` when it does not get in."""
        before = self.joined
        peer = await self.begin(transport, number, **options)
        await until(lambda: self.joined > before or peer.end is not None or peer.gone)
        if self.joined == before:
            raise Trouble(self.outside(peer))
        return peer

    def outside(self, peer: Stranger) -> Finding:
        """Why a client did not get in."""
        if peer.end is not None and peer.end[0] != 1011:
            remedy = Do.LET_IN if peer.end[0] in (4401, 4403) else Do.GREET
            return Finding(f"the client was closed before it had joined: {said(peer)}", "", remedy)
        if peer.end is not None:
            return Finding(f"the client was closed: {said(peer)}", self.last_error(), Do.CATCH)
        return self.stuck(f"the client had not joined within {PATIENCE:g}s", Do.GREET)

    def stuck(self, happened: str, remedy: str = "") -> Finding:
        """Something does not end: where the channel is at work."""
        at = [place for place in self.tasks().values() if place]
        return Finding(happened, at[-1] if at else "", remedy)

    async def post(self, text: str, number: int = 1, **headers: str) -> Stranger:
        """The answer to a POST with a text."""
        kind = "text/plain" if isinstance(as_data(text), str) else "application/json"
        more = {"Content-Type": kind, **{name.replace("_", "-"): v for name, v in headers.items()}}
        return await self.answer(
            request(self.path(number), {**self.manners.headers, **more}, method="POST", body=text.encode())
        )

    async def answer(self, asked: bytes) -> Stranger:
        """The whole answer to a request. Raises :exc:`Trouble` when there is none."""
        peer = await self.dial(asked)
        if not await until(lambda: peer.whole) or not peer.status:
            raise Trouble(self.stuck(f"a request was not answered within {PATIENCE:g}s"))
        peer.abort()
        return peer

    async def lasts(self, peer: Stranger) -> bool:
        """Whether a client is still connected once all that it said is heard."""
        await until(lambda: not self.busy or peer.end is not None, 2.0)
        before = peer.pongs
        peer.say(frame(0x9))
        await until(lambda: peer.pongs > before or peer.end is not None or peer.gone)
        return peer.end is None and not peer.gone

    async def calm(self) -> None:
        """Everybody goes; what they had begun must end. Raises :exc:`Trouble` when it does not."""
        for peer in self.peers:
            peer.abort()
        self.peers.clear()
        if not await until(lambda: not self.channel.clients and not len(self.server.connections), GONE):
            left = len(self.channel.clients) or len(self.server.connections)
            raise Trouble(
                self.stuck(
                    f"{left} clients are still there {GONE:g}s after their connections have ended", Do.LIMIT
                )
            )
        for _ in range(10):  # what on_leave has cancelled ends some turns later
            await asyncio.sleep(0)

    # What is left

    def descriptors(self) -> int:
        """How many descriptors the process has."""
        return len(os.listdir("/dev/fd"))

    def tasks(self) -> dict[asyncio.Task[Any], str]:
        """All tasks but ours, each with the line of a plugin in which it waits, if it is in one."""
        ours = asyncio.current_task(), self._bystander
        return {
            task: "".join(lines(theirs(of_task(task))[-1:]))
            for task in asyncio.all_tasks()
            if task not in ours
        }

    def threads(self) -> list[threading.Thread]:
        """The threads for which the end of the process would wait."""
        # Those of asyncio.to_thread are ended with the loop.
        return [
            thread
            for thread in threading.enumerate()
            if not (thread.daemon or thread in self._threads or thread.name.startswith("asyncio_"))
        ]

    def held(self) -> list[Client]:
        """The clients that are gone and that somebody still holds."""
        gc.collect()
        here = set(map(id, self.channel.clients))
        alive = (reference() for reference in self.known)
        return [client for client in alive if client is not None and id(client) not in here]

    def last_error(self) -> str:
        """The plugin's line in the newest error of the log."""
        errors = (record for record in self.log[::-1] if record.levelno >= logging.ERROR)
        return next((place for record in errors if (place := place_of(record))), "")

    @contextmanager
    def observed(self) -> Iterator[None]:
        """The log and the warnings of the process come here meanwhile."""
        depth = sys.get_coroutine_origin_tracking_depth()
        sys.set_coroutine_origin_tracking_depth(3)
        root, level, trial = logging.getLogger(), logging.getLogger().level, self

        class Kept(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                record.doing = trial.doing
                text = record.getMessage() if record.name == "realtime.watchdog" else ""
                if "plugin '" in text and not any(one.name == record.name for one in trial.log):
                    trial.tell(f"{trial.doing}: {text}; meanwhile all waits, so this may take long")
                trial.log.append(record)

        before, root.handlers = root.handlers[:], [Kept(logging.WARNING)]
        root.setLevel(logging.WARNING)
        logging.captureWarnings(True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", ResourceWarning)
            warnings.filterwarnings("always", "coroutine .* was never awaited")
            try:
                yield
            finally:
                sys.set_coroutine_origin_tracking_depth(depth)
                logging.captureWarnings(False)
                root.handlers = before
                root.setLevel(level)

    async def stop(self) -> None:
        """Stop the server; whatever does not end is a finding."""
        await self.leave_beside()
        self.dead = self.server.lifespans.dead
        begun, logged = time.monotonic(), len(self.log)
        stopping = asyncio.create_task(self.server.stop())
        where = ""
        while not stopping.done():
            await asyncio.wait([stopping], timeout=0.2)
            for task in asyncio.all_tasks():
                if task.get_name().startswith("lifespan of "):
                    where = in_generator(task) or where
        await stopping
        took = time.monotonic() - begun
        hung = [record for record in self.log[logged:] if "did not end in time" in record.getMessage()]
        for record in hung:
            self.log.remove(record)
            self.fail(record.getMessage(), where, Do.END)
        if took > DRAIN and not hung:
            self.fail(f"it took {took:.1f}s")
        await until(lambda: not self.tasks(), 0.2)
        left = self.tasks()
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=0.5)
        for task, place in left.items():
            how = "and does not end although it is cancelled" if not task.done() else "after the shutdown"
            remedy = Do.GROUP if task.done() else Do.LET_THROUGH
            self.fail(f"task {task.get_name()!r} runs on {how}", place, remedy)
        for thread in self.threads():
            where = "".join(lines(theirs(of_thread(thread.ident or 0))[-1:]))
            self.fail(f"thread {thread.name!r} runs on", where, Do.JOIN)

    # Who is beside it

    def watch_beside(self) -> None:
        """Begin to be a bystander: somebody who asks the server for a sign, again and again."""
        self._bystander = asyncio.create_task(self._stand_by(), name="bystander")

    async def leave_beside(self) -> None:
        """Be none any more."""
        if self._bystander is not None:
            self._bystander.cancel()
            await asyncio.wait([self._bystander])

    async def _stand_by(self) -> None:
        while True:
            asked, doing = time.monotonic(), self.doing
            peer = await Stranger.dial(self.port, request("/-/live", {"Connection": "close"}))
            await until(lambda: peer.whole, HANG)  # noqa: B023
            late = time.monotonic() - asked
            if late > LATE or peer.status != 200:
                self.lateness.append((asked, late, peer.status == 200, doing))
            peer.abort()
            await asyncio.sleep(0.05)

    def late(self) -> list[tuple[float, str]]:
        """How late the bystander was, without what the machine took, and when: where it was too late."""
        told = []
        for asked, late, served, doing in self.lateness:
            late -= sum(lost for begun, ended, lost in self.stood if begun < asked + late and ended > asked)
            if late > LATE or not served:
                told.append((late, doing))
        return told

    def guard(self, tell: Callable[[Finding], None]) -> threading.Event:
        """A thread that tells what holds the event loop when it is held for good; set it to end that."""
        over, loop, loops = threading.Event(), asyncio.get_running_loop(), threading.get_ident()

        def turn() -> None:
            self.turned = time.monotonic()

        def watch() -> None:
            looked, used = time.monotonic(), time.process_time()
            while not over.wait(0.25):
                # A plugin that waits does not hold this thread, and one that computes uses the processor.
                now, using = time.monotonic(), time.process_time()
                if (stood := now - looked - 0.25 - (using - used)) > 0.1:
                    self.stood.append((looked, now, stood))
                looked, used = now, using
                try:
                    loop.call_soon_threadsafe(turn)
                except RuntimeError:  # it is closed
                    return
                if time.monotonic() - self.turned > HANG:
                    places = of_thread(loops)
                    at = lines((theirs(places) or places)[-1:])
                    tell(
                        Finding(
                            f"the event loop has been held for {HANG:g}s, and nobody is served",
                            "".join(at),
                            Do.AWAIT,
                        )
                    )

        self.turned = time.monotonic()
        threading.Thread(target=watch, name="conformance", daemon=True).start()
        return over


async def until(condition: Callable[[], bool], within: float | None = None) -> bool:
    """Wait for something to become true, by default for :data:`PATIENCE`; whether it did in time."""
    end = time.monotonic() + (PATIENCE if within is None else within)
    while not condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.002)
    return True


def in_generator(task: asyncio.Task[Any]) -> str:
    """The line of an ``@asynccontextmanager`` that a task is leaving: no coroutine leads to its frame."""
    for place, _ in of_task(task):
        generator = getattr(getattr(place.f_locals.get("self"), "gen", None), "ag_frame", None)
        if generator is not None:
            return lines([(generator, generator.f_lineno)])[0]
    return ""


def as_data(text: str) -> Any:
    """What a text stands for: the object or the list that it is in JSON, or itself."""
    if text[:1] in ("{", "["):
        try:
            return orjson.loads(text)
        except ValueError:
            pass
    return text


def said(peer: Stranger) -> str:
    """How a connection has ended, in words."""
    code, reason = peer.end or (0, "")
    return f"{code} {reason}".strip()


def place_of(record: logging.LogRecord) -> str:
    """The plugin's line that a record of the log is about; nothing if it is about none."""
    if record.exc_info and record.exc_info[1] is not None:
        frames = theirs(traceback.walk_tb(record.exc_info[1].__traceback__))
        return "".join(lines(frames[-1:]))
    stack = getattr(record, "stack", ())
    return str(stack[-1]) if stack else ""
