"""Two processes behind nginx are started again, one after the other, under load: nobody misses anything."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import needs
import pytest
from proxying import nginx, of_two
from redises import redis_server
from servers import closed_port
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from acceptance.world import PATIENCE, PER_WAY, PUBLISHERS, Home, Process, started

CONFIG = """\
server: {{trusted_proxies: [unix]}}
bus: {{engine: redis, url: "{url}"}}
channels:
  topics:
    plugin: topics
    path: "/topics/{{topic...}}"
    history: 100000
    limits: {{inbound_rate: 1000000, inbound_burst: 1000000}}
"""
V1 = Subprotocol("realtime.v1.json")
#: The message that is published last.
LAST = "the last"
#: The shipped clients, which come back by themselves, when they like: an id and a text a line.
PYTHON_CLIENT = f"""\
import asyncio
import sys

import realtime


async def main():
    async with realtime.connect(sys.argv[1]) as channel:
        print("connected", flush=True)
        async for message in channel:
            print(message.id, message.data, flush=True)
            if message.data == "{LAST}":
                break


asyncio.run(main())
"""
NODE_CLIENT = f"""\
// Node 18 does not have this one, which every browser has.
globalThis.CustomEvent ??= class extends Event {{
  constructor(type, {{ detail }}) {{
    super(type);
    this.detail = detail;
  }}
}};
const {{ connect }} = await import("./realtime.mjs");
const channel = connect(process.argv[2], {{ transport: "sse" }});
channel.addEventListener("open", () => console.log("connected"), {{ once: true }});
for await (const {{ id, data }} of channel) {{
  console.log(id, data);
  if (data === "{LAST}") break;
}}
channel.close();
"""


class Reader:
    """Somebody who comes back at once when the connection ends, and says where it was."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session
        self.id = ""
        #: What came, in its order: the id and the text.
        self.came: list[tuple[str, str]] = []
        #: How often it was welcome.
        self.welcomes = 0
        self.connected = asyncio.Event()

    async def read(self) -> None:
        """Read until the last message has come."""
        while True:
            with contextlib.suppress(OSError, EOFError, aiohttp.ClientError, WebSocketException):
                async for event, id, data in self.stream():
                    if event == "realtime:welcome":
                        assert data["outcome"] == ("recovered" if self.id else "new"), data
                        self.welcomes += 1
                        self.connected.set()
                    else:
                        assert event == "message", (event, data)
                        self.came.append((id, data))
                    self.id = id or self.id
                    if data == LAST:
                        return

    def stream(self) -> AsyncIterator[tuple[str, str, Any]]:
        """The events of one connection, their ids and their data."""
        raise NotImplementedError


class OverWebSocket(Reader):
    """One who reads ``realtime.v1.json``."""

    async def stream(self) -> AsyncIterator[tuple[str, str, Any]]:
        """The events of one connection, their ids and their data."""
        url = self.url.replace("http", "ws", 1) + (f"?since={self.id}" if self.id else "")
        async with connect(url, subprotocols=[V1]) as ws:
            async for frame in ws:
                fields = json.loads(frame)
                if fields["event"] == "realtime:bye":
                    return
                yield fields["event"], fields.get("id", ""), fields["data"]


class OverEvents(Reader):
    """One who reads server-sent events, as an ``EventSource`` does."""

    async def stream(self) -> AsyncIterator[tuple[str, str, Any]]:
        """The events of one connection, their ids and their data."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": self.id} if self.id else {})}
        async with self.session.get(self.url, headers=headers) as response:
            if response.status != 200:
                return
            fields: dict[str, str] = {}
            async for line in response.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                    continue
                event = fields.get("event", "message")
                if event == "realtime:bye":
                    return
                if "data" in fields:
                    own = event.startswith("realtime:")
                    yield event, fields.get("id", ""), json.loads(fields["data"]) if own else fields["data"]
                fields = {}


class Publisher:
    """A backend that publishes one message after the other, each until it is acknowledged."""

    def __init__(self, number: int, url: str, session: aiohttp.ClientSession) -> None:
        self.number = number
        self.url = url
        self.session = session
        #: What was acknowledged: the id and the text.
        self.acknowledged: list[tuple[str, str]] = []
        #: How often it had to try again, by what was wrong.
        self.again: list[str] = []
        self._enough = False
        self._more = asyncio.Event()

    async def publish(self) -> None:
        """Publish until it is enough."""
        while not self._enough:
            await self.say(f"{self.number}: {len(self.acknowledged)}")

    async def say(self, text: str) -> None:
        """Publish one message: under its key it may be sent as often as it takes."""
        headers = {"Idempotency-Key": f"{self.number}-{len(self.acknowledged)}"}
        while True:
            try:
                async with self.session.post(self.url, data=text, headers=headers) as response:
                    if response.status == 202:
                        self.acknowledged.append(((await response.json())["id"], text))
                        self._more.set()
                        return
                    assert response.status in (502, 503, 504), await response.text()
                    self.again.append(str(response.status))
            except (aiohttp.ClientError, OSError) as error:
                self.again.append(type(error).__name__)

    async def goes_on(self) -> None:
        """Wait until a message is acknowledged that was begun after now."""
        for _ in range(2):
            self._more.clear()
            await self._more.wait()

    def stop(self) -> None:
        """Say no more."""
        self._enough = True


class Pair:
    """Two processes, each at its own socket."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._running: dict[int, tuple[AsyncExitStack, Process]] = {}

    async def start(self, number: int) -> None:
        """Start one, and wait until it is ready."""
        stack = AsyncExitStack()
        listen = (f"unix:{self.home.directory}/{number}.sock",)
        self._running[number] = stack, await stack.enter_async_context(self.home.server(listen=listen))

    async def end(self, number: int, how: signal.Signals = signal.SIGTERM) -> None:
        """Send it a signal, and wait until it is gone."""
        stack, process = self._running.pop(number)
        async with stack:
            process.process.send_signal(how)
            await process.ended()


@asynccontextmanager
async def pair(home: Home) -> AsyncIterator[Pair]:
    """Two processes that are ready."""
    two = Pair(home)
    try:
        await asyncio.gather(two.start(1), two.start(2))
        yield two
    finally:
        await asyncio.gather(*map(two.end, list(two._running)))


@asynccontextmanager
async def shipped(home: Home, url: str, session: aiohttp.ClientSession) -> AsyncIterator[list[Process]]:
    """The clients that come with the server, in processes of their own, connected."""
    async with session.get(f"{url.partition('/topics')[0]}/-/realtime.js") as response:
        script = await response.text()
    for name, text in {"py": PYTHON_CLIENT, "mjs": NODE_CLIENT}.items():
        (home.directory / f"client.{name}").write_text(text)
    (home.directory / "realtime.mjs").write_text(script)
    async with AsyncExitStack() as stack:
        commands: list[tuple[str | Path, ...]] = [
            (home.python, "client.py", url.replace("http", "ws", 1)),
            (home.python, "client.py", url),
            (needs.node(), "client.mjs", url),
        ]
        running = [
            await stack.enter_async_context(started(*command, cwd=home.directory)) for command in commands
        ]
        await asyncio.gather(*(one.line("connected".__eq__) for one in running))
        yield running


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["in order", "killed"])
async def test_rolling_restart(home: Home, how: signal.Signals) -> None:
    """Each process is ended and started again under load: all get what was acknowledged, once, in order."""
    port = closed_port()
    url = f"http://127.0.0.1:{port}/topics/news"
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_server(home.directory))
        home.write(CONFIG.format(url=redis.url))
        two = await stack.enter_async_context(pair(home))
        await stack.enter_async_context(nginx(home.directory, of_two(home.directory, port), port))
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(None), connector=aiohttp.TCPConnector(limit=0)
            )
        )
        readers = [kind(url, session) for _ in range(PER_WAY) for kind in (OverWebSocket, OverEvents)]
        publishers = [Publisher(number, url, session) for number in range(PUBLISHERS)]
        clients = await stack.enter_async_context(shipped(home, url, session))
        async with asyncio.timeout(PATIENCE * 6), asyncio.TaskGroup() as tasks:
            for reader in readers:
                tasks.create_task(reader.read())
            await asyncio.gather(*(reader.connected.wait() for reader in readers))
            publishing = [tasks.create_task(publisher.publish()) for publisher in publishers]
            for number in (1, 2):
                await asyncio.gather(*(publisher.goes_on() for publisher in publishers))
                await two.end(number, how)
                await asyncio.gather(*(publisher.goes_on() for publisher in publishers))
                await two.start(number)
            await asyncio.gather(*(publisher.goes_on() for publisher in publishers))
            for publisher in publishers:
                publisher.stop()
            await asyncio.gather(*publishing)
            await publishers[0].say(LAST)
            for client in clients:
                await client.ended(PATIENCE * 3)
    acknowledged = sorted(
        (said for publisher in publishers for said in publisher.acknowledged),
        key=lambda said: int(said[0].rpartition("-")[2]),
    )
    for reader in readers:
        assert reader.came == acknowledged
    for client in clients:
        _, *lines = client.said
        assert lines == [" ".join(said) for said in acknowledged]
    assert min(reader.welcomes for reader in readers) > 1
