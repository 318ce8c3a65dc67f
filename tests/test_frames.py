"""Every frame of the reference is what comes over the wire, and what comes over the wire stands there."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from conftest import Serve, Serving
from test_docs import REFERENCE, pattern
from wire import TEXT, Headers, Wire, dial, frame, request, soon, stream, websocket

from realtime.engines.watch import UNKEPT
from realtime.message import Message

CONFIG = """
    channels:
      news: {plugin: topics, path: "/news/{topic...}", history: 2, lag_bytes: 1B, presence: announce}
      quick: {plugin: topics, path: /quick, keep_alive: 50ms}
      clock: {plugin: clock, path: /clock}
"""
#: How a form is asked for; those of which nothing stands here are WebSockets.
ASKED: dict[str, Headers] = {
    "plain": (),
    "v1": [("Sec-WebSocket-Protocol", "realtime.v1.json")],
    "lines": [("Accept", "application/x-ndjson")],
    "profile": [("Accept", "text/event-stream;profile=realtime.v1.json")],
    "events": [("Accept", "text/event-stream")],
}
#: Under which word the page shows it.
SHOWN = {"plain": "Plain WebSocket", "events": "Event stream"}


def shown(word: str) -> dict[str, str]:
    """The frames of the page in one form, by their headings."""
    found = {}
    for section in (REFERENCE / "frames.md").read_text().split("\n## ")[1:]:
        heading, _, rest = section.partition("\n")
        for text in re.findall(rf"^{word}:\n\n```text\n(.*?)\n```$", rest, re.MULTILINE | re.DOTALL):
            found[heading] = text
    return found


class Reader:
    """A client in one form."""

    def __init__(self, wire: Wire, form: str) -> None:
        self.wire = wire
        self._form = form
        self._rest = ""
        self._end = "\n" if form == "lines" else "\n\n"

    async def next(self) -> str:
        """The next frame: of objects these alone, of an event stream the lines of an event."""
        if self._form in ("plain", "v1"):
            return (await self.wire.frame()).payload.decode()
        while self._end not in self._rest:
            self._rest += await self.wire.chunk()
        block, _, self._rest = self._rest.partition(self._end)
        return self._of_profile(block) if self._form == "profile" else block

    def _of_profile(self, block: str) -> str:
        *before, data = block.splitlines()
        if data.startswith(":"):
            return data
        told = json.loads(data.removeprefix("data: "))
        retry = told["data"]["retry"] if told["event"] == "realtime:bye" else None
        wanted = [f"id: {told.get('id')}"] * ("id" in told) + [f"retry: {retry}"] * bool(retry)
        assert before == wanted
        return data.removeprefix("data: ")


@asynccontextmanager
async def reading(serving: Serving, form: str, path: str) -> AsyncIterator[Reader]:
    """A client in a form, whose handshake is over."""
    if form in ("plain", "v1"):
        async with websocket(serving.port, path, headers=ASKED[form]) as wire:
            yield Reader(wire, form)
    else:
        async with dial(serving.port, request(path, ASKED[form])) as wire:
            assert (await wire.head()).status == 200
            yield Reader(wire, form)


async def frames(serving: Serving, form: str) -> dict[str, str]:
    """Every frame that there is in a form, by what the page calls it."""
    bus, seen, marks = serving.server.bus, dict[str, str](), form != "plain"
    async with reading(serving, form, "/news/a") as reader:
        if marks:
            for name in ("The welcome", "Somebody comes", "Who is here"):
                seen[name] = await reader.next()
        first = await bus.publish("news/a", "hi")
        await bus.publish("news/a", "one\ntwo")
        await bus.publish("news/a", {"done": 1}, event="progress")
        for name in ("A message", "A message of several lines", "A message of JSON, with an event"):
            seen[name] = await reader.next()
        if marks:
            await bus.publish("news/a", b"\x00\x01\xff")
            seen["A message of bytes"] = await reader.next()
            async with stream(serving.port, "/news/a"):
                assert "realtime:join" in await reader.next()
            seen["Somebody goes"] = await reader.next()
            for word, data in (("degraded", {"reason": UNKEPT}), ("restored", {})):
                await bus.tell(Message.of(data, event=f"realtime:{word}", time=1.0))
            for name in ("The engine is away", "The engine is back"):
                seen[name] = await reader.next()
        if form == "v1":
            seen["What a client says"] = said = shown("Object")["What a client says"]
            await reader.wire.send(frame(TEXT, said.encode()) + frame(TEXT, b'{"ref":8}'))
            assert "progress" in await reader.next()
            seen["It was heard"], seen["It was not taken"] = await reader.next(), await reader.next()
        if marks:
            [client] = serving.server.channels["news"].clients
            await client.close(1012, "come back")
            seen["The goodbye"] = await reader.next()
    if marks:
        last = bus.topic("news/a").position
        for since, names in (
            (last, ["The welcome back"]),
            (first, ["The welcome after a gap", "The marker of a gap"]),
            ("deadbeef-1", ["The welcome after a reset", "The marker of a reset"]),
        ):
            async with reading(serving, form, f"/news/a?since={since}") as reader:
                for name in names:
                    seen[name] = await reader.next()
        async with reading(serving, form, "/quick") as reader:
            await reader.next()
            seen["A sign of life"] = await reader.next()
    async with reading(serving, form, "/clock") as reader:
        if marks:
            await reader.next()
        seen["A message to one client alone"] = await reader.next()
    return seen


@pytest.mark.parametrize("form", ASKED)
async def test_every_frame(serve: Serve, form: str) -> None:
    """The page shows each frame of a form as it is, and no other."""
    async with serve(CONFIG) as serving:
        seen = await soon(frames(serving, form))
    page = shown(SHOWN.get(form, "Object"))
    if form in ("lines", "profile"):  # on which a client says nothing
        for name in ("What a client says", "It was heard", "It was not taken"):
            del page[name]
    if form == "profile":
        page["A sign of life"] = shown("Event stream")["A sign of life"]
    assert set(seen) == set(page)
    for name, text in page.items():
        lines = text.splitlines(), seen[name].splitlines()
        assert all(pattern(a).fullmatch(b) for a, b in zip(*lines, strict=True)), (name, seen[name])
