"""One room that everybody is in at once, each in a way of their own, and all see the same order."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable
from contextlib import AsyncExitStack
from functools import partial

import needs
import pytest
from chromium import browser, tab
from websockets.asyncio.client import connect
from wire import install_ws

from acceptance.world import COUNT, GREETING, NAMES, PATIENCE, Home, started

#: What somebody has seen: who said what.
Seen = list[tuple[str, str]]

LISTEN = """
async () => {
  window.seen = [];
  const events = new EventSource("/chat");
  events.onmessage = (event) => {
    const { from, text } = JSON.parse(event.data);
    window.seen.push([from, text]);
  };
  await new Promise((resolve) => events.addEventListener("realtime:welcome", resolve));
}
"""
LISTEN_WITH_CLIENT = """
async (transport) => {
  const { connect } = await import("/-/realtime.js");
  const seen = (window[transport] = []);
  const room = connect("/chat", { transport, ...(transport === "websocket" && { name: "listener" }) });
  room.addEventListener("message", ({ detail: { event, data } }) => {
    if (event === "message") seen.push([data.from, data.text]);
  });
  await new Promise((resolve) => room.addEventListener("open", resolve));
}
"""


def said_in_plain(texts: Iterable[str]) -> Seen:
    """What plain frames show was said."""
    pairs = (text.partition(": ") for text in texts)
    return [(name, text) for name, colon, text in pairs if colon]


def said_in_objects(lines: Iterable[str]) -> Seen:
    """What was said, in objects, one a line, or in an event stream's lines of data."""
    objects = [json.loads(line.removeprefix("data: ")) for line in lines if "{" in line]
    data = [item.get("data", item) for item in objects]
    return [(item["from"], item["text"]) for item in data if "text" in item]


async def test_one_room_for_all(home: Home, tmp_path_factory: pytest.TempPathFactory) -> None:
    """`websockets`, `ws`, `EventSource`, `curl -N`, lines, the browser's client: one order."""
    first, second, third = NAMES
    node, curl = install_ws(tmp_path_factory), needs.curl()
    async with browser() as chromium, home.serving() as address, AsyncExitStack() as room:
        chat = f"http://{address}/chat"

        async def say(text: str) -> str:
            body = ["--json", json.dumps({"text": text}), f"{chat}?name={third}"]
            async with started(curl, "-s", *body, cwd=home.directory) as process:
                assert await process.ended() == 0
                return str(json.loads(process.text)["id"])

        events, lines = [
            await room.enter_async_context(started(curl, "-sN", *accept, chat, cwd=home.directory))
            for accept in ([], ["-H", "Accept: application/x-ndjson"])
        ]
        for reader in (events, lines):
            await reader.line(lambda line: "realtime:welcome" in line)
        page = await room.enter_async_context(tab(chromium, f"http://{address}/"))
        await page.evaluate(LISTEN)
        for transport in ("websocket", "sse"):
            await page.evaluate(LISTEN_WITH_CLIENT, transport)
        python = await room.enter_async_context(connect(f"ws://{address}/chat"))
        url = f"ws://{address}/chat"
        javascript = await room.enter_async_context(started(*node, url, cwd=home.directory))
        await python.send(first)
        await javascript.line(lambda line: "open" in line)
        javascript.type(json.dumps({"text": second}) + "\n")
        await javascript.line(lambda line: "joined" in line)

        async def talk_in_python() -> None:
            for number in range(COUNT):
                await python.send(f"python {number}")

        async def talk_in_javascript() -> None:
            for number in range(COUNT):
                text = f"javascript {number}"
                javascript.type(json.dumps({"text": text}) + "\n")
                await javascript.line(partial(re.search, f'"{second}: {text}"'))

        async def post() -> list[str]:
            return [await say(f"post {number}") for number in range(COUNT)]

        _, _, ids = await asyncio.gather(talk_in_python(), talk_in_javascript(), post())
        ids.append(await say(GREETING))

        heard: list[str] = []
        async with asyncio.timeout(PATIENCE):
            while f"{third}: {GREETING}" not in heard:
                heard.append(str(await python.recv()))
        for process in (events, lines, javascript):
            await process.line(lambda line: GREETING in line)
        in_the_page = ("seen", "websocket", "sse")
        for name in in_the_page:
            heard_it = "([name, text]) => window[name].some((pair) => pair[1] === text)"
            await page.wait_for_function(heard_it, arg=[name, GREETING])

        seen = said_in_plain(heard)
        frames = [json.loads(line).get("text", "") for line in javascript.said]
        assert said_in_plain(frames) == seen
        assert said_in_objects(events.said) == seen
        assert said_in_objects(lines.said) == seen
        for name in in_the_page:
            assert [tuple(pair) for pair in await page.evaluate(f"window.{name}")] == seen
        for name, what in ((first, "python"), (second, "javascript")):
            assert [text for who, text in seen if who == name] == [f"{what} {n}" for n in range(COUNT)]
        assert [text for who, text in seen if who == third] == [
            *(f"post {n}" for n in range(COUNT)),
            GREETING,
        ]
        objects = [json.loads(line) for line in lines.said]
        said = [item for item in objects if item["event"] == "message"]
        assert [item["id"] for item in said if item["data"]["from"] == third] == ids
