"""Scenes to be photographed: a server as people use it, with a conversation, jobs, sensors and clients."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import aiohttp
from chromium import PATIENCE, tab
from command import running
from people import Person, person
from servers import Way, way
from websockets.asyncio.client import ClientConnection, connect
from wire import request

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

CONFIG = """
server: {listen: ["127.0.0.1:0"], watchdog: off}
plugins: [greenhouse]
channels:
  lobby: {plugin: chat, path: /chat, history: 100}
  rooms: {plugin: chat, path: "/rooms/{room}", history: 4, lag: 1ms, lag_bytes: 1KiB, overflow: skip}
  clock: {plugin: clock, path: /events}
  echo: {plugin: echo, path: /ws}
  topics: {plugin: topics, path: "/topics/{topic...}", history: 100, allow: {publish: anyone}}
  greenhouse: {plugin: greenhouse, path: "/greenhouse/{bed}", history: 50, lag: 60s, overflow: skip}
"""
#: What makes a moderate load of its own: readings, more and fewer of them.
GREENHOUSE = '''
"""Readings of a greenhouse, bed by bed."""

import asyncio
import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from realtime import Channel, hookimpl

IMAGE = "data:image/jpeg;base64," + "/9j/4AAQSkZJRg" * 1000


class Greenhouse(Channel):
    """Temperature and humidity of a bed, several times a second."""

    transports = ("sse", "websocket", "ndjson", "json")

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            measuring = tasks.create_task(self.measure())
            yield
            measuring.cancel()

    async def measure(self) -> None:
        """Measure in every bed, more often when the sun is out."""
        turn = 0
        while True:
            turn += 1
            await asyncio.sleep(0.05 + 0.03 * math.sin(turn / 40) + random.uniform(0, 0.02))
            for topic in self.topics:
                celsius, humidity = random.gauss(21, 0.4), random.gauss(0.6, 0.02)
                reading = {"celsius": round(celsius, 1), "humidity": round(humidity, 2)}
                await self.publish(topic, reading, event="reading")
                if turn % 15 == 0:
                    await self.publish(topic, IMAGE, event="image")
            if turn == 100:
                self.log.warning("the camera of bed orchids sees nothing: is its lens clean?")


@hookimpl
def register_channels() -> dict[str, type[Channel]]:
    return {"greenhouse": Greenhouse}
'''
BEDS = ["tomatoes", "basil", "orchids", "seedlings"]
#: The same everywhere: how times are written.
LOOKS = {"locale": "en-GB", "timezone_id": "UTC"}
#: Who says what, before somebody is cut off.
TALK = [
    ("Maya", "Morning! The new build is on staging."),
    ("Jonas", "Nice, I'll run the load test against it before lunch."),
    (
        "Priya",
        "Heads-up: the gateway in Frankfurt drops idle connections after 60 s, so expect a few reconnects.",
    ),
    ("Maya", "That should be fine, nothing gets lost over a reconnect any more."),
    ("Олена", "Confirmed from here: I pulled the cable twice and it caught up both times."),
    ("Tomás", "Can somebody send me the link to the dashboard?"),
    ("Jonas", "It's at /-/dashboard on the same host. p99 is at 3 ms right now."),
    ("Tomás", "Perfect, thank you!"),
]
MEANWHILE = [
    ("Priya", "Frankfurt just dropped us again, as announced."),
    ("Jonas", "Load test is running: 10,000 clients, five messages a second."),
    ("Priya", "CPU at 40 %, nobody lagging."),
]
AFTERWARDS = [("Maya", "And I'm back. What did I miss?"), ("Jonas", "Nothing, that's the point.")]
JOBS = [
    ("queued", {"job": 42, "kind": "export", "rows": 18_204}),
    ("started", {"job": 42, "worker": "eu-3"}),
    ("progress", {"job": 42, "done": 0.25}),
    ("progress", {"job": 42, "done": 0.5}),
    ("progress", {"job": 42, "done": 0.75}),
    ("finished", {"job": 42, "seconds": 12.8, "file": "export-2026-11-26.csv"}),
]


class Stage:
    """A server with something going on, a browser, and a way between them that can be cut."""

    def __init__(self, address: str, there: Way, browser: Browser, things: AsyncExitStack) -> None:
        self.address = address
        self.there = there
        self.browser = browser
        self._things = things
        self._http = aiohttp.ClientSession()
        self._tasks: list[asyncio.Task[None]] = []
        self._pages: dict[str, Page] = {}
        things.push_async_callback(self._http.close)

    async def page(self, scene: str) -> Page:
        """The page of a scene, which is made the first time."""
        if scene not in self._pages:
            self._pages[scene] = await getattr(self, scene.replace("-", "_"))()
        return self._pages[scene]

    async def open(self, path: str) -> Page:
        """A page of the server, which stays until the end."""
        return await self._things.enter_async_context(
            tab(self.browser, f"http://{self.address}{path}", **LOOKS)
        )

    async def post(self, path: str, data: object, **headers: str) -> None:
        """Publish something."""
        async with self._http.post(f"http://{self.address}{path}", json=data, headers=headers) as answer:
            assert answer.ok, await answer.text()

    async def say(self, path: str, talk: Sequence[tuple[str, str]]) -> None:
        """Have people say something."""
        for name, text in talk:
            await self.post(f"{path}?name={quote(name)}", {"text": text})

    async def member(self, path: str, name: str) -> None:
        """Somebody who is there until the end."""
        await self.reader(f"{path}?name={quote(name)}")

    async def _connected(self, path: str) -> ClientConnection:
        ws = await connect(f"ws://{self.address}{path}")
        self._things.callback(ws.transport.abort)  # nobody waits for goodbyes
        return ws

    async def reader(self, path: str) -> None:
        """A WebSocket client that reads until the end."""
        ws = await self._connected(path)

        async def read() -> None:
            async for _ in ws:
                pass

        self._background(read())

    async def worker(self, source: str, target: str) -> None:
        """A client that says something wherever it has read something else."""
        readings, results = await self._connected(source), await self._connected(target)

        async def work() -> None:
            async for reading in readings:
                await results.send(f"{len(reading)} characters")
                await results.recv()

        self._background(work())

    async def stream(self, path: str, accept: str, *, reading: bool = True) -> None:
        """A client that reads a stream until the end, or never does."""
        host, _, port = self.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=4096)
        self._things.callback(writer.close)
        writer.write(request(path, [("Accept", accept)], host=self.address))

        async def read() -> None:
            while await reader.read(65536):
                pass

        if reading:
            self._background(read())

    def _background(self, reading: object) -> None:
        assert asyncio.iscoroutine(reading)
        task = asyncio.create_task(reading)

        async def end() -> None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

        self._things.push_async_callback(end)

    async def begin(self) -> None:
        """Let it be used."""
        for name in dict.fromkeys(name for name, _ in TALK if name != "Maya"):
            await self.member("/chat", name)
        for bed in BEDS:
            for _ in range(8):
                await self.reader(f"/greenhouse/{bed}")
            for accept in ["text/event-stream"] * 4 + ["application/x-ndjson"] * 2:
                await self.stream(f"/greenhouse/{bed}", accept)
        await self.member("/rooms/night-shift", "Ada")
        await self.stream("/greenhouse/orchids", "text/event-stream", reading=False)
        for bed in BEDS:
            await self.worker(f"/greenhouse/{bed}", f"/topics/seen/{bed}")
        self._clock = await self.open("/events")

    # The scenes

    async def front(self) -> Page:
        """The front page."""
        return await self.open("/")

    async def door(self) -> Page:
        """The chat, before one is in."""
        page = await self.open("/chat")
        await page.get_by_role("button", name="Join").wait_for()
        return page

    async def chat(self) -> Page:
        """A conversation, in which somebody was cut off and has caught up."""
        maya = await self._things.enter_async_context(
            person(self.browser, self.there.http("/chat"), "Maya", **LOOKS)
        )
        await self.say_as(maya, TALK)
        await self.away(maya, "/chat", MEANWHILE)
        await self.say_as(maya, AFTERWARDS)
        await maya.see(AFTERWARDS[-1][1])
        return maya.page

    async def missed(self) -> Page:
        """A conversation of which more was missed than is kept."""
        room = "/rooms/night-shift"
        lena = await self._things.enter_async_context(
            person(self.browser, self.there.http(room), "Lena", **LOOKS)
        )
        await self.say(room, [("Bo", "Quiet so far.")])
        await lena.see("Quiet so far.")
        talk = [
            ("Bo", f"Round {number}: all doors are locked, nothing to report.") for number in range(1, 13)
        ]
        await self.away(lena, room, talk)
        return lena.page

    async def say_as(self, one: Person, talk: Sequence[tuple[str, str]]) -> None:
        """A conversation, in which one types what is theirs."""
        for name, text in talk:
            if name == one.name:
                await one.say(text)
            else:
                await self.say("/chat", [(name, text)])
            await one.see(text)

    async def away(self, one: Person, path: str, talk: Sequence[tuple[str, str]]) -> None:
        """What is said while one is cut off, who comes back then."""
        self.there.there.clear()
        self.there.cut()
        await self.say(path, talk)
        self.there.there.set()
        await one.see(talk[-1][1])

    async def cut(self) -> Page:
        """A tester that has cut its own connection, and finds no way back yet."""
        page = await self._things.enter_async_context(
            tab(self.browser, self.there.http("/topics/jobs/43"), **LOOKS)
        )
        await page.get_by_role("status").filter(has_text="Live").first.wait_for()
        for event, data in JOBS[:4]:
            await self.post(f"/topics/jobs/43?event={event}", data)
        await page.get_by_text("0.5").first.wait_for()
        self.there.there.clear()
        await page.get_by_role("button", name="Cut my connection").click()
        await page.get_by_role("button", name="Come back now").wait_for()
        return page

    async def clock(self) -> Page:
        """The clock, which was looked at since the beginning."""
        return self._clock

    async def tester(self) -> Page:
        """A topic that jobs are published to, and somebody who tries it."""
        page = await self.open("/topics/jobs/42")
        await page.get_by_role("status").filter(has_text="Live").first.wait_for()
        for event, data in JOBS:
            await self.post(f"/topics/jobs/42?event={event}", data)
        await page.get_by_text("export-2026-11-26.csv").first.wait_for()
        return page

    async def echo(self) -> Page:
        """The echo, which has answered."""
        page = await self.open("/ws")
        one = Person(page, "")
        await one.say("Hello, is anybody there?", json.dumps({"answer": 42}))
        await page.get_by_text("Echo: Hello").first.wait_for()
        return page

    async def dashboard(self) -> Page:
        """The dashboard, after it was used for a while."""
        page = await self.open("/-/dashboard")
        await page.get_by_role("status").filter(has_text="Live").first.wait_for()
        await page.get_by_text("greenhouse/basil").first.wait_for()
        # So that its plots are full.
        await page.get_by_text(re.compile(r"^up (2[2-9] s|[3-9]\d s|\d+ min)")).wait_for()
        return page

    async def client(self) -> Page:
        """The dashboard, where somebody looks at one connection."""
        page = await self.open("/-/dashboard")
        await page.get_by_role("searchbox", name="Search").fill("Jonas")
        row = page.get_by_role("row").filter(has_text="Jonas")
        await row.get_by_role("button").first.click()
        await page.get_by_role("dialog").get_by_text("Jonas").first.wait_for()
        return page


#: All of them, in the order in which they are photographed: the last show what was before.
SCENES = ["front", "door", "chat", "missed", "tester", "echo", "cut", "clock", "dashboard", "client"]


@asynccontextmanager
async def stage(browser: Browser, directory: Path) -> AsyncIterator[Stage]:
    """A server in a process of its own, which is used."""
    (directory / "plugins").mkdir()
    (directory / "plugins" / "greenhouse.py").write_text(GREENHOUSE)
    (directory / "config.yaml").write_text(CONFIG)
    async with running(directory, "serve") as server:
        address = await server.ready()
        async with way(int(address.rpartition(":")[2])) as there, AsyncExitStack() as things:
            one = Stage(address, there, browser, things)
            async with asyncio.timeout(PATIENCE):  # a page is opened, too
                await one.begin()
            yield one
