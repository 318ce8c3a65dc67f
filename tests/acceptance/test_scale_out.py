"""Two servers, one Redis that is tormented at random, and clients that hop between the servers.

Every message that was acknowledged comes once and in order, or the stream says what it misses. A seed
decides what befalls whom: `REALTIME_SEED` is the first, `REALTIME_SEEDS` how many there are.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from redises import redis_server

from acceptance.ledger import Ledger, Position, Said, Violation, Witness
from acceptance.torments import (
    DURABLE,
    LOSSES,
    PAUSE,
    ROLLBACK,
    Server,
    Torment,
    Tormentor,
    a_while,
    torments,
)
from acceptance.world import ANSWERED, PATIENCE, SEED, SEEDS, TORMENT, Home

log = logging.getLogger(__name__)

CONFIG = """\
server: {{drain: 5s}}
bus: {{engine: redis, url: "{url}"}}
channels:
  kept:
    plugin: topics
    path: "/kept/{{topic...}}"
    history: 100000
    limits: {{inbound_rate: 1000000, inbound_burst: 1000000}}
  passing:
    plugin: topics
    path: /passing
    lag: 1s
    limits: {{inbound_rate: 1000000, inbound_burst: 1000000}}
  lobby:
    plugin: chat
    path: /lobby
    history: 100
    limits: {{inbound_rate: 1000000, inbound_burst: 1000000}}
"""
#: The topic that keeps all that is said.
KEPT = "kept/news"
#: The URL of each topic.
TOPICS = {KEPT: "/kept/news", "passing": "/passing", "lobby": "/lobby"}
#: How a reader asks for a topic.
WAYS = {
    "websocket": "",
    "events": "text/event-stream",
    "profile": "text/event-stream;profile=realtime.v1.json",
    "lines": "application/x-ndjson",
}
#: How many read each topic, and how many publish to all of them.
READERS = 3
PUBLISHERS = 5
#: What is said so much after a pause begins Redis has not taken before, in seconds.
JUST = 0.1
#: How often it is looked at how late the machine is, in seconds.
TICK = 0.02
#: How long a reader may wait for the head of an answer, in seconds: far more than it does.
CONNECTED = 20.0


class World:
    """Two servers, and all who use them."""

    def __init__(self, servers: Sequence[Server], session: aiohttp.ClientSession, seed: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._begun = self._loop.time()
        #: For how long the machine has had no time for this process, in seconds.
        self.withheld = 0.0
        self.servers = servers
        self.session = session
        self.seed = seed
        #: Set when nothing torments anybody any more: who reads stays where it is.
        self.calm = asyncio.Event()
        self.ledgers = {topic: Ledger(topic, kept=topic == KEPT) for topic in TOPICS}

    def now(self) -> float:
        """The time since it began, in seconds."""
        return self._loop.time() - self._begun

    async def begin(self) -> None:
        """The time begins when it is called; watches the machine until it is cancelled."""
        self._begun = self._loop.time()
        while True:
            due = self.now() + TICK
            await a_while(TICK)
            self.withheld += self.now() - due

    def dice(self, whose: str) -> random.Random:
        """The dice of somebody."""
        return random.Random(f"{self.seed} {whose}")


class Reader:
    """Somebody who reads a topic: now from one server and now from the other, each time in another way."""

    def __init__(self, number: int, ledger: Ledger, world: World) -> None:
        self.name = f"reader{number}"
        self.witness = Witness(f"{self.name} of {ledger.topic}", world.now, ledger.kept)
        ledger.witnesses.append(self.witness)
        self.topic = ledger.topic
        self.world = world
        self.dice = world.dice(self.witness.name)
        #: Set when it sees something.
        self.saw = asyncio.Event()

    async def read(self) -> None:
        """Read, until it is cancelled."""
        loop, dice, witness = asyncio.get_running_loop(), self.dice, self.witness
        while True:
            server, way = dice.choice(self.world.servers), dice.choice(list(WAYS))
            stay = dice.choice((0.05, 0.3, 1.0, 2.5)) * dice.uniform(0.5, 1.5)
            away = 1.8 if dice.random() < 0.1 else dice.choice((0.02, 0.05, 0.2))
            headers, query = {"Accept": WAYS[way]} if WAYS[way] else {}, {}
            # In a chat who has a name joins, and others see it; without one a WebSocket is asked for it.
            if dice.random() < 0.3 or way == "websocket":
                query["name"] = f"{self.name}-{witness.connections}"
            if witness.cursor is not None:
                if dice.random() < 0.5:
                    headers["Last-Event-ID"] = str(witness.cursor)
                else:
                    query["since"] = str(witness.cursor)
            witness.connects(f"{server.name} ({way})")
            answered = False
            items = self._items(f"{server.url}{TOPICS[self.topic]}", way, headers, query)
            try:
                async with asyncio.timeout(CONNECTED) as limit:
                    async for item in items:
                        if not answered:
                            answered = True
                            limit.reschedule(None if self.world.calm.is_set() else loop.time() + stay)
                        if item:
                            witness.sees(item)
                            self.saw.set()
                witness.note("the stream has ended")
            except TimeoutError:
                if not answered:
                    witness.wrong(f"no answer within {CONNECTED:g}s")
                witness.note("leaves")
            except (aiohttp.ClientError, OSError) as error:
                witness.note(f"is cut: {error!r:.80}")
            finally:
                await items.aclose()
            await a_while(away)

    async def _items(
        self, url: str, way: str, headers: dict[str, str], query: dict[str, str]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """What comes, and before that nothing, when it has been answered."""
        try:
            if way == "websocket":
                async with self.world.session.ws_connect(
                    url, headers=headers, params=query, protocols=["realtime.v1.json"]
                ) as ws:
                    yield {}
                    async for frame in ws:
                        if frame.type is aiohttp.WSMsgType.TEXT:
                            yield json.loads(frame.data)
                    self.witness.note(f"closed with {ws.close_code}")
                return
            async with self.world.session.get(url, headers=headers, params=query) as response:
                response.raise_for_status()
                yield {}
                end, rest = b"\n" if way == "lines" else b"\n\n", b""
                async for part in response.content.iter_any():
                    *blocks, rest = (rest + part).split(end)
                    for block in blocks:
                        if item := json.loads(block) if way == "lines" else _event(block.decode(), way):
                            yield item
        except aiohttp.ClientResponseError as error:
            if error.status != 503:
                self.witness.wrong(f"is answered {error.status} {error.message}")
            raise

    async def come_to(self, end: Position) -> None:
        """Returns when it has come to the end, and was told that the engine is there."""
        try:
            async with asyncio.timeout(PATIENCE):
                while self.witness.degraded or not self.witness.stands_at(end):
                    self.saw.clear()
                    await self.saw.wait()
        except TimeoutError:
            degraded = ", and was not told that the engine is back" if self.witness.degraded else ""
            self.witness.wrong(f"the end is {end}: it is at {self.witness.cursor}{degraded}")


def _event(block: str, way: str) -> dict[str, Any] | None:
    """An event of an event stream; None for a comment."""
    fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
    if "data" not in fields:
        return None
    if way == "profile":
        return json.loads(fields["data"])  # type: ignore[no-any-return]
    event = fields.get("event", "message")
    data = json.loads(fields["data"]) if event.startswith("realtime:") else fields["data"]
    return {"event": event, "data": data, **({"id": fields["id"]} if "id" in fields else {})}


class Publisher:
    """Somebody who says numbers, a few at once, to any topic, through any server."""

    def __init__(self, number: int, world: World) -> None:
        self.name = f"publisher{number}"
        self.world = world
        self.dice = world.dice(self.name)
        self.number = self.wave = 0
        #: How long it took until the slowest publish was answered.
        self.slowest = 0.0

    async def publish(self) -> None:
        """Publish, until there is calm."""
        while not self.world.calm.is_set():
            self.wave += 1
            topics = [self.dice.choice(list(TOPICS)) for _ in range(self.dice.choice((1, 1, 1, 8)))]
            async with asyncio.TaskGroup() as tasks:
                for topic in topics:
                    tasks.create_task(self.say(topic))
            await a_while(self.dice.uniform(0.0, 0.02))

    async def say(self, topic: str, through: Server | None = None) -> Said:
        """Say the next number: once, or with a key until it is known to be there."""
        self.number += 1
        text = f"{self.name}-{self.number}"
        if self.dice.random() < 0.02:
            text = text.ljust(40_000, "x")
        data = {"from": self.name, "text": text} if topic == "lobby" else text
        said = Said(self.name, self.wave, f"message {json.dumps(data, sort_keys=True)}")
        self.world.ledgers[topic].said[said.value] = said
        keyed = through is not None or self.dice.random() < 0.5
        key = {"Idempotency-Key": f"{self.world.seed}-{self.name}-{self.number}"} if keyed else {}
        while True:
            server = through or self.dice.choice(self.world.servers)
            begun, withheld = self.world.now(), self.world.withheld + server.withheld
            status = await self._post(server, topic, text, key, said)
            more = self.world.withheld + server.withheld - withheld
            took = self.world.now() - begun - max(more, 0.0)  # less: another process is the server now
            self.slowest = max(self.slowest, took)
            if took > ANSWERED:
                what = f"{text[:40]} to {topic} through {server.name} at {begun:.3f}"
                raise Violation(f"{what}: {status} after {took:.1f}s")
            if status == 202:
                return said
            if status is not None:
                said.refused.append((begun, self.world.now(), status, server.name))
                if not key:
                    return said
            await a_while(self.dice.uniform(0.02, 0.2))

    async def _post(
        self, server: Server, topic: str, text: str, key: dict[str, str], said: Said
    ) -> int | None:
        """The status; 0 if there was no answer, None if it was certainly not heard."""
        try:
            async with self.world.session.post(
                f"{server.url}{TOPICS[topic]}",
                params={"name": self.name},
                data=text,
                headers=key,
                timeout=aiohttp.ClientTimeout(total=ANSWERED + PATIENCE),
            ) as response:
                answer = await response.text()
        except aiohttp.ClientConnectorError:
            return None
        except (aiohttp.ClientError, OSError):
            return 0
        if response.status == 202:
            said.acknowledged = Position.parse(json.loads(answer)["id"])
        elif response.status != 503 or "Retry-After" not in response.headers:
            what = f"{text[:40]} to {topic} is answered"
            raise Violation(f"{what} {response.status} {answer} {response.headers}")
        return response.status


async def kept(server: Server, world: World, epoch: str) -> list[Any]:
    """All that a server has of the topic that keeps everything, from the first message on."""
    messages: list[Any] = []
    since = str(Position(epoch, 0))
    while True:
        async with world.session.get(
            f"{server.url}{TOPICS[KEPT]}", params={"since": since}, headers={"Accept": "application/json"}
        ) as response:
            response.raise_for_status()
            page = await response.json()
        messages += [(each["id"], each["event"], each["data"]) for each in page["messages"]]
        if not page["messages"]:
            return messages
        since = page["id"]


async def tormented(world: World, tormentor: Tormentor, plan: Sequence[Torment]) -> dict[str, Position]:
    """Torment them all, and let there be calm; gives the end of each topic, to which all have come."""
    readers = [
        Reader(number, ledger, world) for ledger in world.ledgers.values() for number in range(READERS)
    ]
    publishers = [Publisher(number, world) for number in range(PUBLISHERS)]
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(world.begin())
        reading = [tasks.create_task(reader.read()) for reader in readers]
        publishing = [tasks.create_task(publisher.publish()) for publisher in publishers]
        async with asyncio.TaskGroup() as tormenting:
            tormenting.create_task(tormentor.torment_redis(plan))
            tormenting.create_task(tormentor.torment_servers(TORMENT))
        world.calm.set()
        await tormentor.ready()
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait(publishing)
        ends: dict[str, Position] = {}
        for topic in TOPICS:
            for server in world.servers:
                said = await publishers[0].say(topic, through=server)
                assert said.acknowledged is not None
                ends[topic] = said.acknowledged
        for reader in readers:
            await reader.come_to(ends[reader.topic])
        for task in (watching, *reading):
            task.cancel()
    slowest = max(publisher.slowest for publisher in publishers)
    log.info("seed %d: the slowest publish took %.2fs, %.2fs withheld", world.seed, slowest, world.withheld)
    for ledger in world.ledgers.values():
        log.info("seed %d: %s", world.seed, ledger)
    return ends


async def compare(world: World, tormentor: Tormentor, ends: dict[str, Position]) -> None:
    """Compare what all of them saw, and what both servers have."""
    losses, rollbacks = tormentor.count(*LOSSES), tormentor.count(ROLLBACK)
    for topic, ledger in world.ledgers.items():
        ledger.check(losses, rollbacks, ends[topic])
        for said in ledger.late():
            begun, ended, status, server = said.refused[-1]
            around = tormentor.around(begun, ended, server)
            kinds = {each.kind for each in around}
            log.info("seed %d: %.60s was answered %d and came: %s", world.seed, said.value, status, kinds)
            # What was said just when it began may have been taken, and only not been answered.
            if status == 503 and kinds == {PAUSE} and around[0].begun < begun - JUST:
                raise Violation(f"{said.value} was answered 503 at {ended:.3f} in a mere pause, and came")
    first, second = [await kept(server, world, ends[KEPT].epoch) for server in world.servers]
    if first != second:
        parted = next((pair for pair in zip(first, second, strict=False) if pair[0] != pair[1]), None)
        raise Violation(f"the servers have {len(first)} and {len(second)} messages, and part at {parted}")
    values = {Position.parse(id).offset: f"{event} {json.dumps(data)}" for id, event, data in first}
    for witness, segment in world.ledgers[KEPT].segments:
        if segment.epoch == ends[KEPT].epoch and not segment.seen.items() <= values.items():
            odd = sorted(segment.seen.items() - values.items())[:5]
            witness.wrong(f"it saw what is not in the log: {odd}")


def report(world: World, tormentor: Tormentor, plan: Sequence[Torment], error: Exception) -> str:
    """What whoever looks for the fault wants to know."""
    lines = [
        f"seed {world.seed}, at {world.now():.3f}: {type(error).__name__}: {error}",
        "",
        "what befell them:",
    ]
    lines += [f"{each.begun:8.3f} {each.ended:8.3f} {each.kind}" for each in tormentor.suffered]
    lines += [f"  planned: {each.kind} for {each.lasts:.3f}s after {each.peace:.3f}s" for each in plan]
    for server in world.servers:
        lines += ["", f"server {server.name}, on port {server.port}, said last:", server.story]
    return "\n".join(lines)


@pytest.mark.parametrize("seed", range(SEED, SEED + SEEDS))
async def test_scale_out(home: Home, seed: int) -> None:
    """What was acknowledged comes once and in order, or the stream says what it misses."""
    (home.directory / "redis").mkdir()
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_server(home.directory / "redis", *DURABLE))
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None), connector=aiohttp.TCPConnector(limit=0)
            )
        )
        home.write(CONFIG.format(url=redis.url))
        servers = [Server(home, name) for name in "AB"]
        for server in servers:
            stack.push_async_callback(server.close)
        world = World(servers, session, seed)
        plan = torments(world.dice("torments"), seed, TORMENT)
        tormentor = Tormentor(redis, servers, session, world.dice("tormentor"), world.now)
        try:
            async with asyncio.TaskGroup() as tasks:
                for server in servers:
                    tasks.create_task(server.start())
            ends = await tormented(world, tormentor, plan)
            await compare(world, tormentor, ends)
        except Exception as error:
            cause = error
            while isinstance(cause, ExceptionGroup):
                cause = cause.exceptions[0]
            known = isinstance(cause, AssertionError)
            raise Violation(report(world, tormentor, plan, cause)) from (None if known else cause)
        for server in servers:
            await server.end()
