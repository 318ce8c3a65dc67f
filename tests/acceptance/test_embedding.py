"""Realtime in somebody's aiohttp application, which has the wheel and says nothing else of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.request import Request, urlopen

import pytest
from servers import closed_port
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from acceptance.world import GREETING, HOST, PATIENCE, PREFIX, Home, Process, started

CONFIG = "channels: {news: {plugin: topics, path: '/news/{topic...}', history: 10}}\n"

#: Its own route publishes; `serving` is said when it listens.
APP = """\
import sys

from aiohttp import web

import realtime


async def tell(request: web.Request) -> web.Response:
    bus = request.app[realtime.SERVER].bus
    return web.Response(text=str(await bus.publish("news/today", await request.text())))


async def main() -> web.Application:
    app = web.Application()
    app.router.add_post("/tell", tell)
    live = realtime.create_app("config.yaml")
    app.add_subapp(sys.argv[1], live)
    app[realtime.SERVER] = live[realtime.SERVER]
    return app


def serving(text: str) -> None:
    print(text, flush=True)


web.run_app(main(), host=sys.argv[2], port=int(sys.argv[3]), print=serving)
"""


@asynccontextmanager
async def running(home: Home, config: str = CONFIG) -> AsyncIterator[tuple[str, Process]]:
    """The application, and where it listens."""
    home.write(config, {"app.py": APP})
    port = closed_port()
    async with started(home.python, "app.py", PREFIX, HOST, str(port), cwd=home.directory) as process:
        yield f"{HOST}:{port}", process


async def listening(process: Process) -> None:
    """Wait until it listens."""
    await process.line(lambda line: "Running on" in line)


def ask(url: str, body: str | None = None) -> str:
    """What a program that has only Python is answered."""
    request = Request(url, data=None if body is None else body.encode())
    with urlopen(request, timeout=PATIENCE) as answer:
        text: str = answer.read().decode()
    return text


async def test_a_handler_publishes(home: Home) -> None:
    """What a handler of the application publishes comes to a WebSocket under the prefix."""
    async with running(home) as (address, process):
        await listening(process)
        async with connect(f"ws://{address}{PREFIX}/news/today") as ws:
            position = await asyncio.to_thread(ask, f"http://{address}/tell", GREETING)
            assert await ws.recv() == GREETING
        url = f"ws://{address}{PREFIX}/news/today?since={position.rpartition('-')[0]}-0"
        async with connect(url) as again:
            assert await again.recv() == GREETING


async def test_the_list_of_channels(home: Home) -> None:
    """The URLs that people and programs are told have the prefix."""
    async with running(home) as (address, process):
        await listening(process)
        page = await asyncio.to_thread(ask, f"http://{address}{PREFIX}/")
        told = json.loads(await asyncio.to_thread(ask, f"http://{address}{PREFIX}/-/channels"))
    url = f"ws://{address}{PREFIX}/news/{{topic...}}"
    assert (url in page, [channel["url"] for channel in told["channels"]]) == (True, [url])


async def test_the_end(home: Home) -> None:
    """When the application is ended its clients are told to come back, and it ends in order."""
    async with running(home) as (address, process):
        await listening(process)
        async with connect(f"ws://{address}{PREFIX}/news/today") as ws:
            process.process.terminate()
            with pytest.raises(ConnectionClosed) as closed:
                await ws.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        assert await process.ended() == 0
    assert "Traceback" not in process.text


async def test_mistakes(home: Home) -> None:
    """Every mistake in its config is told where it stands, and the application does not start."""
    async with running(home, CONFIG.replace("history", "histroy").replace("path", "pth")) as (_, process):
        assert await process.ended() == 1
    assert "config.yaml:1:" in process.text
    assert "channels.news.histroy: unknown key, did you mean 'history'?" in process.text
    assert "channels.news.pth: unknown key, did you mean 'path'?" in process.text
