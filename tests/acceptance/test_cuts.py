"""Connections that are cut at random, a thousand times, on every transport: nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from servers import cutting

from acceptance.world import CUTS, PATIENCE, SEED, Home

#: How a reader asks for the channel, and how it says where it was.
ACCEPT = {
    "events": "text/event-stream",
    "profile": "text/event-stream;profile=realtime.v1.json",
    "lines": "application/x-ndjson",
    "snapshot": "application/json",
}
WAYS = ["websocket", *ACCEPT]
#: Within how many bytes of an answer a connection is cut.
MOST = 4000
READERS = 10

CONFIG = """\
channels:
  topics:
    plugin: topics
    path: "/topics/{{topic...}}"
    history: {history}
    lag: {lag}
    limits: {{inbound_rate: 1000000, inbound_burst: 1000000}}
"""


class Reader:
    """Somebody who reads a topic, each time in another way, and goes on where the last one was cut."""

    def __init__(self, number: int, port: int, session: aiohttp.ClientSession) -> None:
        self.dice = random.Random(f"{SEED} reader {number}")
        self.url = f"http://127.0.0.1:{port}/topics/news"
        self.session = session
        self.id = ""
        #: What came: the numbers of the messages, and how many were said to be missed.
        self.came: list[int] = []
        self.missed = 0
        self.cuts = Counter[str]()

    async def read(self, last: int) -> None:
        """Read until the last message has come."""
        while not (self.came and self.came[-1] == last):
            way = self.dice.choice(WAYS)
            headers, query = {}, {}
            if not self.id:
                query["since"] = "earliest"
            elif self.dice.random() < 0.5:
                query["since"] = self.id
            else:
                headers["Last-Event-ID"] = self.id
            try:
                async for item in getattr(self, f"_{way}", self._stream)(way, headers, query):
                    self._take(item)
                    if self.came and self.came[-1] == last:
                        return
            except (aiohttp.ClientError, ConnectionError, json.JSONDecodeError):
                pass
            self.cuts[way] += 1

    def _take(self, item: dict[str, Any]) -> None:
        if item["event"] == "realtime:gap":
            self.missed += item["data"]["missed"]
        elif item["event"] == "realtime:welcome":
            if item["data"]["outcome"] == "gap":
                assert "id" not in item
                return  # the marker says it again, and brings the position
            assert item["data"]["outcome"] != "reset"
        elif item["event"] == "message":
            self.came.append(int(str(item["data"]).strip()))
        self.id = item.get("id", self.id)

    async def _websocket(
        self, way: str, headers: dict[str, str], query: dict[str, str]
    ) -> AsyncIterator[Any]:
        async with self.session.ws_connect(
            self.url, headers=headers, params=query, protocols=["realtime.v1.json"]
        ) as ws:
            async for frame in ws:
                if frame.type is aiohttp.WSMsgType.TEXT:
                    yield json.loads(frame.data)

    async def _snapshot(
        self, way: str, headers: dict[str, str], query: dict[str, str]
    ) -> AsyncIterator[Any]:
        headers["Accept"] = ACCEPT[way]
        async with self.session.get(self.url, headers=headers, params=query) as response:
            whole = await response.json()
        if whole.get("outcome") == "gap":
            yield {"event": "realtime:gap", "data": whole}
        for item in whole["messages"]:
            yield item
        if whole["id"]:
            self.id = whole["id"]

    async def _stream(self, way: str, headers: dict[str, str], query: dict[str, str]) -> AsyncIterator[Any]:
        headers["Accept"] = ACCEPT[way]
        end = b"\n" if way == "lines" else b"\n\n"
        async with self.session.get(self.url, headers=headers, params=query) as response:
            assert response.status == 200, await response.text()
            rest = b""
            async for part in response.content.iter_any():
                *blocks, rest = (rest + part).split(end)
                for block in blocks:
                    if way == "lines":
                        yield json.loads(block)
                    elif item := _event(block.decode(), way):
                        yield item


def _event(block: str, way: str) -> dict[str, Any] | None:
    fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
    if "data" not in fields:
        return None
    if way == "profile":
        return json.loads(fields["data"])  # type: ignore[no-any-return]
    event = fields.get("event", "message")
    data = json.loads(fields["data"]) if event.startswith("realtime:") else fields["data"]
    return {"event": event, "data": data, **({"id": fields["id"]} if "id" in fields else {})}


async def publish(port: int, session: aiohttp.ClientSession, count: int, cut: int) -> int:
    """Publish the numbers below ``count``, each until it is confirmed; how many attempts were cut."""
    cuts = 0
    for number in range(count):
        while True:
            try:
                async with session.post(
                    f"http://127.0.0.1:{port if number % 3 == 0 else cut}/topics/news",
                    data=f"{number}".ljust(100),
                    headers={"Idempotency-Key": f"{SEED}-{number}"},
                ) as response:
                    assert response.status == 202, await response.text()
                    await response.read()
                break
            except (aiohttp.ClientError, ConnectionError):
                cuts += 1
    return cuts


@pytest.mark.parametrize(
    ("history", "lag"), [(100_000, "1h"), (20, "1ms")], ids=["all kept", "little kept"]
)
async def test_cuts(home: Home, history: int, lag: str) -> None:
    """Readers that change their transport with each cut get every message once, or the number missed."""
    home.write(CONFIG.format(history=history, lag=lag))
    wanted, cuts, total = CUTS, Counter[str](), 0
    async with home.serving() as address:
        port = int(address.rpartition(":")[2])
        async with (
            cutting(port, SEED, MOST) as unsafe,
            cutting(port, SEED + 1, 400) as unsafe_for_posts,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as session,
        ):
            readers = [Reader(number, unsafe, session) for number in range(READERS)]
            count = wanted * MOST // 2 // 200 // READERS + 50
            async with asyncio.timeout(PATIENCE * 30), asyncio.TaskGroup() as tasks:
                publishing = tasks.create_task(publish(port, session, count, unsafe_for_posts))
                for reader in readers:
                    tasks.create_task(reader.read(count - 1))
            for reader in readers:
                cuts += reader.cuts
                assert reader.came == sorted(set(reader.came)), "doubled, or out of order"
                assert len(reader.came) + reader.missed == count
                total += reader.missed
    assert publishing.result() > 0
    assert set(cuts) == set(WAYS)
    assert cuts.total() + publishing.result() >= wanted, cuts
    assert total == 0 or history < count
