"""What may befall one Redis and the servers that share it, in an order that a seed decides."""

from __future__ import annotations

import asyncio
import math
import random
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any, NamedTuple

import aiohttp
import hiredis
from redises import RedisServer
from servers import closed_port
from timing import withheld

from acceptance.world import HOST, PATIENCE, Home, Process

#: What befalls Redis, and how long it may last, in seconds.
LASTS = {
    "it is killed": (0.0, 1.5),
    "all data are lost": (0.0, 0.5),
    "its connections are cut": (0.1, 1.0),
    "it is paused": (0.1, 3.5),
    "its data go back": (0.2, 0.8),
    "readers are cut all the time": (0.5, 1.5),
    "it is ended": (0.0, 1.0),
    "garbage is published": (0.1, 0.5),
    "its data are flushed": (0.1, 0.2),
    "it is full": (0.2, 1.5),
    "readers are too slow for it": (0.2, 1.0),
    "scripts are forgotten": (0.1, 0.3),
}
KINDS = list(LASTS)
PAUSE, ROLLBACK = "it is paused", "its data go back"
#: Data that were acknowledged are gone then.
LOSSES = ("all data are lost", ROLLBACK, "its data are flushed")
#: Nothing that was acknowledged is lost when it is killed.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
NARROW = "pubsub 64kb 32kb 1"
USUAL = "pubsub 32mb 8mb 60"


async def a_while(seconds: float) -> None:
    """So long does a torment last."""
    over = asyncio.Event()
    timer = asyncio.get_running_loop().call_later(seconds, over.set)
    try:
        await over.wait()
    finally:
        timer.cancel()


class Torment(NamedTuple):
    """One of them: what, how long it lasts, and after which time of peace."""

    kind: str
    lasts: float
    peace: float


class Suffered(NamedTuple):
    """What has befallen them: from when until when, by the clock of the test."""

    kind: str
    begun: float
    ended: float


def torments(dice: random.Random, seed: int, span: float) -> list[Torment]:
    """What befalls Redis in so many seconds: each kind comes first with one of as many seeds in a row.

    Half of the seeds have none that loses data, so that nothing at all may be lost there.
    """
    harmless = [kind for kind in KINDS if kind not in LOSSES]
    kinds = harmless if seed % 2 else KINDS
    plan: list[Torment] = []
    while span > 0:
        kind = dice.choice(kinds) if plan else KINDS[seed % len(KINDS)]
        plan.append(Torment(kind, dice.uniform(*LASTS[kind]), dice.uniform(0.05, 0.6)))
        span -= plan[-1].lasts + plan[-1].peace
    return plan


class Server:
    """One of the servers, on a port of its own that it keeps."""

    def __init__(self, home: Home, name: str) -> None:
        self.home = home
        self.name = name
        self.port = closed_port()
        self._processes: list[Process] = []
        self._stack = AsyncExitStack()
        self._process: Process | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{HOST}:{self.port}"

    @property
    def withheld(self) -> float:
        """For how long the machine has had no time for it, since it was started, in seconds."""
        return withheld(self._process.process.pid) if self._process is not None else 0.0

    async def start(self) -> None:
        """Start it, and again while it finds no Redis; returns when it is ready."""
        async with asyncio.timeout(PATIENCE * 2):
            while True:
                listen = ("--listen", f"{HOST}:{self.port}")
                process = await self._stack.enter_async_context(
                    self.home.realtime("-c", "config.yaml", "serve", *listen)
                )
                self._processes.append(process)
                try:
                    await process.ready(PATIENCE * 2)
                except AssertionError:
                    if await process.ended() != 3:
                        raise
                    await self.gone(process)
                else:
                    self._process = process
                    return

    async def gone(self, process: Process) -> None:
        """It is gone."""
        await self._stack.aclose()
        assert "Traceback" not in process.text, process.text

    async def kill(self) -> None:
        """End it in the middle of what it does."""
        process, self._process = self._process, None
        if process is not None:
            await process.killed()
            await self.gone(process)

    async def close(self) -> None:
        """Leave nothing of it, whatever it is at."""
        await self._stack.aclose()

    async def end(self) -> None:
        """End it in order."""
        process, self._process = self._process, None
        if process is not None:
            process.process.terminate()
            code = await process.ended(PATIENCE)
            await self.gone(process)
            assert code == 0, process.text

    @property
    def story(self) -> str:
        """What it has said of late, but for those who came and went."""
        said = [line for process in self._processes for line in process.said]
        usual = (" left after ", " was answered 503 ")
        return "\n".join([line for line in said if not any(word in line for word in usual)][-40:])


class Tormentor:
    """Whoever torments a Redis and the servers."""

    def __init__(
        self,
        redis: RedisServer,
        servers: Sequence[Server],
        session: aiohttp.ClientSession,
        dice: random.Random,
        now: Callable[[], float],
    ) -> None:
        self.redis = redis
        self.servers = servers
        self.session = session
        #: What has befallen them; what is still going on has no end yet.
        self.suffered: list[Suffered] = []
        # Each for one who throws them, so that the order in which both do is of no consequence.
        self._dice, self._dice_of_garbage = random.Random(dice.random()), random.Random(dice.random())
        self._now = now
        # While data go back there must be somebody who knows what they were.
        self._turn = asyncio.Lock()

    def count(self, *kinds: str) -> int:
        """How often one of these has been."""
        return sum(each.kind in kinds for each in self.suffered)

    def around(self, begun: float, ended: float, server: str) -> list[Suffered]:
        """What befell Redis, and this server, between two times."""
        others = {each.name for each in self.servers} - {server}
        return [
            each
            for each in self.suffered
            if each.begun < ended
            and begun < each.ended
            and not any(f"server {name} " in each.kind for name in others)
        ]

    @contextmanager
    def _suffering(self, kind: str) -> Iterator[None]:
        """It befalls them meanwhile."""
        going_on = Suffered(kind, self._now(), math.inf)
        self.suffered.append(going_on)
        yield
        self.suffered[self.suffered.index(going_on)] = going_on._replace(ended=self._now())

    async def ready(self) -> None:
        """Returns when all servers are ready."""
        async with asyncio.timeout(PATIENCE):
            for server in self.servers:
                status = 0
                while status != 200:
                    async with self.session.get(f"{server.url}/-/ready") as response:
                        status, why = response.status, await response.text()
                    assert status in (200, 503), why
                    await a_while(0.02)

    # Servers

    async def torment_servers(self, span: float) -> None:
        """Kill one now and then, or end it in order, and start it again."""
        until = self._now() + span
        while (now := self._now()) < until:
            await a_while(min(self._dice.uniform(0.5, 4.0), until - now))
            server, kind = self._dice.choice(self.servers), self._dice.choice(("killed", "ended"))
            async with self._turn:
                with self._suffering(f"server {server.name} is {kind}"):
                    await (server.kill() if kind == "killed" else server.end())
                    await a_while(self._dice.uniform(0.0, 0.3))
                    await server.start()

    # Redis

    async def torment_redis(self, plan: Sequence[Torment]) -> None:
        """Let all of this befall Redis, one after the other."""
        ways = {
            "it is killed": self._killed,
            "it is ended": self._ended,
            PAUSE: self._paused,
            "it is full": self._full,
            "all data are lost": self._lost,
            ROLLBACK: self._back,
            "its data are flushed": self._flushed,
            "its connections are cut": self._cut,
            "readers are cut all the time": self._readers_cut,
            "readers are too slow for it": self._narrow,
            "garbage is published": self._garbage,
            "scripts are forgotten": self._scripts,
        }
        for torment in plan:
            await a_while(torment.peace)
            with self._suffering(torment.kind):
                await ways[torment.kind](torment.lasts)

    async def _killed(self, lasts: float) -> None:
        await self.redis.kill()
        await a_while(lasts)
        await self.redis.start()

    async def _ended(self, lasts: float) -> None:
        await self.redis.stop()
        await a_while(lasts)
        await self.redis.start()

    async def _paused(self, lasts: float) -> None:
        self.redis.pause()
        await a_while(lasts)
        self.redis.resume()

    async def _full(self, lasts: float) -> None:
        await self._ask("CONFIG", "SET", "maxmemory", "1")
        await a_while(lasts)
        await self._ask("CONFIG", "SET", "maxmemory", "0")

    async def _lost(self, lasts: float) -> None:
        await self.redis.kill()
        shutil.rmtree(self.redis.directory / "appendonlydir")
        await a_while(lasts)
        await self.redis.start()

    async def _back(self, lasts: float) -> None:
        async with self._turn:
            await self.ready()
            data, copy = self.redis.directory / "appendonlydir", self.redis.directory / "copy"
            shutil.copytree(data, copy)
            await a_while(lasts)
            await self.redis.kill()
            shutil.rmtree(data)
            copy.rename(data)
            await self.redis.start()
            await self.ready()

    async def _flushed(self, lasts: float) -> None:
        await self._ask("FLUSHALL")
        await a_while(lasts)

    async def _cut(self, lasts: float) -> None:
        await self._ask("CLIENT", "KILL", "TYPE", "normal")
        await a_while(lasts)
        await self._ask("CLIENT", "KILL", "TYPE", "normal")

    async def _readers_cut(self, lasts: float) -> None:
        until = self._now() + lasts
        while self._now() < until:
            await self._ask("CLIENT", "KILL", "TYPE", "pubsub")
            await a_while(0.15)

    async def _narrow(self, lasts: float) -> None:
        await self._ask("CONFIG", "SET", "client-output-buffer-limit", NARROW)
        until = self._now() + lasts
        while self._now() < until:
            for publish, channel in await self._channels():
                await self._ask(publish, channel, b"x" * 100_000)
            await a_while(0.1)
        await self._ask("CONFIG", "SET", "client-output-buffer-limit", USUAL)

    async def _garbage(self, lasts: float) -> None:
        """Bytes of all kinds, and what was published there already, once more."""
        until = self._now() + lasts
        while not (channels := await self._channels()) and self._now() < until:
            await a_while(0.02)
        async with self._published(channels) as published:
            await a_while(lasts)
        for publish, channel in channels:
            pieces = [b"", b"\0", b"garbage", b"{}", b"[]", b"null", b"-1", b"\xff" * 50, b"x" * 1_000_000]
            pieces += [self._dice_of_garbage.randbytes(size * 10) for size in range(1, 20)]
            pieces += [b'{"epoch":"00000000","offset":1}', b"00000000-1", b"1 1 1 1 1"]
            pieces += [what for where, what in published if where == channel][-200:]
            for piece in pieces:
                await self._ask(publish, channel, piece)

    async def _scripts(self, lasts: float) -> None:
        await self._ask("SCRIPT", "FLUSH")
        await a_while(lasts)

    async def _channels(self) -> list[tuple[str, bytes]]:
        """All channels somebody listens on, each with the command that publishes there."""
        usual, sharded = await self._ask("PUBSUB", "CHANNELS"), await self._ask("PUBSUB", "SHARDCHANNELS")
        return [("PUBLISH", name) for name in usual] + [("SPUBLISH", name) for name in sharded]

    @asynccontextmanager
    async def _published(
        self, channels: list[tuple[str, bytes]]
    ) -> AsyncIterator[list[tuple[bytes, bytes]]]:
        """What is published meanwhile: on which channel, and what."""
        published: list[tuple[bytes, bytes]] = []
        reader, writer = await asyncio.open_connection(HOST, self.redis.port)
        for publish, channel in channels:
            subscribe = "SSUBSCRIBE" if publish == "SPUBLISH" else "SUBSCRIBE"
            writer.write(_packed(subscribe, channel))

        async def listen() -> None:
            parser = hiredis.Reader()
            while chunk := await reader.read(65536):
                parser.feed(chunk)
                while (said := parser.gets()) is not False:
                    if said[0] in (b"message", b"smessage"):
                        published.append((said[1], said[2]))

        listening = asyncio.create_task(listen())
        try:
            yield published
        finally:
            await _closed(writer)
            await listening

    async def _ask(self, *words: str | bytes) -> Any:
        """What Redis answers to a command."""
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(HOST, self.redis.port)
            try:
                writer.write(_packed(*words))
                parser = hiredis.Reader()
                while (answer := parser.gets()) is False:
                    parser.feed(await reader.read(65536))
            finally:
                await _closed(writer)
        assert not isinstance(answer, hiredis.ReplyError), (words[:3], answer)
        return answer


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):  # Redis may have gone first
        await writer.wait_closed()


def _packed(*words: str | bytes) -> bytes:
    """A command as Redis wants it."""
    data = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(data) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in data)
