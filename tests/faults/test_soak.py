"""Clients that come and go in every way for a while, after which everything is as it was.

``REALTIME_SOAK=600`` lets it last ten minutes; with ``-o log_cli=true`` it shows the curve.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import statistics
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import wire
from conftest import Serving
from wire import EVENTS, LINES, UPGRADE, eventually, frame, request, text

from faults.conftest import Calm
from faults.mutations import SEED
from realtime.transports import websocket

#: How long clients come and go, in seconds, and how many do at once.
SECONDS = float(os.environ.get("REALTIME_SOAK", "8"))
AT_ONCE = 16
#: By how much the memory may have grown from the second quarter to the last, in MiB: allocators keep some.
GROWTH = 10.0

CONFIG = """
server: {listen: ["127.0.0.1:0"], limits: {topics: 500, inbound_rate: 1000000, inbound_burst: 1000000}}
channels:
  ws: {plugin: echo, path: /ws, idempotency_window: 1s}
  z: {plugin: echo, path: /z, compress: true}
  rooms: {plugin: chat, path: "/rooms/{room}", history: 5, history_age: 1s, lag: 1s, idempotency_window: 1s}
  topics: {plugin: topics, path: "/topics/{topic...}", history: 20, history_age: 1s, lag: 1s}
  clock: {plugin: clock, path: /events, interval: 100ms, history: 5, history_age: 1s, lag: 1s}
"""

log = logging.getLogger("soak")
V1 = ("Sec-WebSocket-Protocol", "realtime.v1.json")


class Churn:
    """What clients do, one way of it each time it is called."""

    def __init__(self, serving: Serving) -> None:
        self.port = serving.port
        self.dice = random.Random(SEED)
        self.done = 0
        self.curve: list[float] = []
        self.ways: list[Callable[[], Awaitable[None]]] = [
            self.echo,
            self.abort,
            self.half_close,
            self.refused,
            self.chat,
            self.chat,
            self.post,
            self.keyed,
            self.replay,
            self.lines,
            self.odd_room,
            self.snapshot,
            self.never_reads,
        ]

    async def run(self, seconds: float) -> None:
        """Come and go for so long, and look at the memory forty times."""
        now = asyncio.get_running_loop().time
        began = now()

        async def client() -> None:
            while now() < began + seconds:
                with suppress(EOFError, ConnectionError):
                    await self.dice.choice(self.ways)()
                self.done += 1
                if now() > began + seconds * len(self.curve) / 40:
                    self.curve.append(resident())
                    log.warning("%4.0fs %8d clients %7.1f MiB", now() - began, self.done, self.curve[-1])

        await asyncio.gather(*(client() for _ in range(AT_ONCE)))

    def room(self) -> str:
        return f"/rooms/{self.dice.randrange(300)}"

    async def echo(self) -> None:
        """Connect, talk, and close."""
        headers = [("Sec-WebSocket-Extensions", "permessage-deflate")] * self.dice.randrange(2)
        async with wire.websocket(self.port, self.dice.choice(["/ws", "/z"]), headers=headers) as client:
            await client.send(text("x" * self.dice.randrange(3000)) + frame(wire.PING) + wire.close(1000))
            with suppress(EOFError):
                while True:
                    await client.exactly(1)

    async def abort(self) -> None:
        """Be gone with a RST while answers are under way."""
        async with wire.websocket(self.port, "/ws", text("x" * 5000) * self.dice.randrange(20)) as client:
            client.reset()

    async def half_close(self) -> None:
        """Say that nothing more is coming, maybe in the middle of a frame."""
        sent = text("bob") + text("hi there")
        async with wire.websocket(self.port, self.room(), sent[: self.dice.randrange(len(sent))]) as client:
            client.finish()
            await client.rest()

    async def refused(self) -> None:
        """Ask for what is not given."""
        bad = self.dice.choice(
            [
                request("/ws", [*UPGRADE, ("Origin", "http://evil.example")]),
                request("/ws", wire.without(UPGRADE, "Sec-WebSocket-Key")),
                request("/rooms/a%2Fb", EVENTS),
                request("/topics/x?since=y", LINES),
                request("/none"),
                b"nonsense\r\n\r\n",
            ]
        )
        async with wire.dial(self.port, bad) as client:
            assert (await client.head()).status >= 400
            if self.dice.random() < 0.5:
                client.reset()

    async def chat(self) -> None:
        """Come into a room, say something, and go: announced, half announced, or cut."""
        name, room = f"n{self.dice.randrange(100)}", self.room()
        async with wire.websocket(self.port, f"{room}?name={name}&since=-3", headers=[V1]) as client:
            for number in range(self.dice.randrange(4)):
                await client.send(text(f'{{"data":"hi","ref":{number}}}'))
                await client.frame()
            if self.dice.random() < 0.5:
                await client.send(wire.close(1000))
                await client.rest()
            elif self.dice.random() < 0.5:
                client.reset()

    async def post(self) -> None:
        """Publish to a topic, sometimes half."""
        data = wire.posting(f"/topics/t{self.dice.randrange(50)}", b"x" * self.dice.randrange(20_000))
        if self.dice.random() < 0.2:
            data = data[: self.dice.randrange(len(data))]
        async with wire.dial(self.port, data) as client:
            client.finish()
            await client.rest()

    async def keyed(self) -> None:
        """Send one message twice under its key, at the same time."""
        key = [("Idempotency-Key", str(self.dice.random()))]
        twice = (wire.post(self.port, "/ws", b"hi", key) for _ in range(2))
        assert [head.status for head, _ in await asyncio.gather(*twice)] == [202, 202]

    async def replay(self) -> None:
        """Read a stream from somewhere, and go."""
        path = self.dice.choice([self.room(), "/events", f"/topics/t{self.dice.randrange(50)}"])
        since = [("Last-Event-ID", f"{self.dice.randrange(1 << 32):x}-{self.dice.randrange(9)}")]
        async with wire.stream(
            self.port, f"{path}?since=earliest", headers=since[: self.dice.randrange(2)]
        ) as client:
            if self.dice.random() < 0.3:
                client.reset()

    async def lines(self) -> None:
        """Read lines, and say that nothing more is coming."""
        async with wire.dial(self.port, request("/events?since=-5", LINES)) as client:
            await client.head()
            await client.line()
            client.finish()
            await client.rest()

    async def odd_room(self) -> None:
        """Ask for a room whose name is anything, once."""
        name = "".join(f"%{byte:02x}" for byte in self.dice.randbytes(self.dice.randint(1, 5)))
        async with wire.dial(self.port, request(f"/rooms/{name}", EVENTS)) as client:
            await client.head()

    async def snapshot(self) -> None:
        """Ask where it stands."""
        head, _ = await wire.ask(self.port, self.room(), [("Accept", "application/json")])
        assert head.status in (200, 503), head

    async def never_reads(self) -> None:
        """Ask for more than one takes, and go without having read it."""
        async with wire.websocket(self.port, "/ws", receive_buffer=4096) as client:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.send(text("x" * 50_000) * 10)
            if self.dice.random() < 0.5:
                client.reset()


def resident() -> float:
    """What this process holds, in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def test_all_is_as_before(calm: Calm, monkeypatch: pytest.MonkeyPatch) -> None:
    """When everybody has gone nothing is left of them: no topic, no message, no count, no memory."""
    monkeypatch.setattr(websocket, "PING_AFTER", SECONDS + 60)  # the bystander listens only at the end
    async with calm(CONFIG) as serving:
        server, churn = serving.server, Churn(serving)
        connections, before = server.connections, set(server.channels)
        await churn.run(SECONDS)
        log.warning("%d clients in %gs", churn.done, SECONDS)
        await eventually(lambda: connections.open.total() == len(connections) == 1)  # the bystander
        await eventually(lambda: {topic.name for topic in server.bus.topics} <= before)
        assert not [topic for topic in server.bus.topics if topic.members and topic.name != "bystander"]
        others = [topic for topic in server.bus.topics if topic.name != "clock"]
        await eventually(lambda: {topic.size for topic in others} == {0})
        assert server.bus.size == sum(topic.size for topic in server.bus.topics)
        assert sum(len(channel.clients) for channel in server.channels.values()) == 1
        gc.collect()
        quarter = len(churn.curve) // 4
        second, last = churn.curve[quarter : 2 * quarter], churn.curve[-quarter:]
        growth = statistics.median(last) - statistics.median(second)
        assert growth < GROWTH, churn.curve
