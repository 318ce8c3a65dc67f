"""A server that goes by a new config: who notices, who comes back, and what a mistake does."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from acceptance.board import BOARD
from acceptance.world import COUNT, GREETING, PATIENCE, Home, Process, started

CONFIG = """
channels:
  still: {plugin: board, path: /still}
  changed: {plugin: board, path: /changed, presence: "off"}
"""
#: A reader in the environment of the wheel: says each message that it is given, whatever comes between.
READER = """
import asyncio, sys
import realtime

async def main():
    async with realtime.connect(sys.argv[1], since="earliest") as messages:
        print("connected", flush=True)
        async for message in messages:
            print(message.event, message.data, flush=True)

asyncio.run(main())
"""


async def hang_up(server: Process, line: str) -> None:
    """Send SIGHUP, and wait until the server says a line of it."""
    server.process.send_signal(signal.SIGHUP)
    await server.line(lambda said: line in said)


async def say(home: Home, address: str, path: str, text: str) -> None:
    """Publish one message."""
    ran = await home.ran("publish", f"http://{address}{path}", text)
    assert ran.code == 0, ran.errors


async def test_who_is_not_meant_notices_nothing(home: Home) -> None:
    """While a channel is restarted again and again, a client of another is sent all, on one connection."""
    home.write(CONFIG, {"plugins/board.py": BOARD})
    async with home.server() as server:
        address = await server.ready()
        async with connect(f"ws://{address}/still") as talker:
            for number in range(COUNT):
                presence = ("list", "announce")[number % 2]
                home.write(CONFIG.replace('"off"', presence))
                server.process.send_signal(signal.SIGHUP)
                await talker.send(f"{GREETING} {number}")
                async with asyncio.timeout(PATIENCE):
                    assert await talker.recv() == f"{GREETING} {number}"
        await server.line(lambda said: "changed  restarted (presence)" in said)


async def test_who_is_restarted_comes_back_and_resumes(home: Home) -> None:
    """Clients of a channel that is restarted are told how many they are, come back, and miss nothing."""
    home.write(CONFIG, {"plugins/board.py": BOARD})
    async with home.server() as server:
        address = await server.ready()
        await say(home, address, "/changed", "before")
        (home.directory / "reader.py").write_text(READER)
        url = f"http://{address}/changed"
        async with started(home.python, "reader.py", url, cwd=home.directory) as reader:
            await reader.line(lambda said: said == "connected")
            home.write(CONFIG.replace('"off"', "list"))
            await hang_up(server, "changed  restarted (presence), 1 client told to come back")
            await say(home, address, "/changed", "meanwhile")
            await reader.line(lambda said: said == "message meanwhile")
            await say(home, address, "/changed", "after")
            await reader.line(lambda said: said == "message after")
            assert [line for line in reader.said if "gap" in line or "reset" in line] == []


async def test_websocket_is_told_why(home: Home) -> None:
    """A WebSocket of a channel that is restarted is closed with 1012."""
    home.write(CONFIG, {"plugins/board.py": BOARD})
    async with home.server() as server:
        address = await server.ready()
        async with connect(f"ws://{address}/changed") as talker:
            home.write(CONFIG.replace('"off"', "list"))
            await hang_up(server, "changed  restarted")
            with pytest.raises(ConnectionClosed) as closed:
                await talker.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012


async def test_mistake_leaves_everything_as_it_was(home: Home) -> None:
    """Whatever is wrong with the new config is told with its place, and nothing has changed."""
    home.write(CONFIG, {"plugins/board.py": BOARD})
    wrong = {
        "path: /still, hystory: 1": "did you mean 'history'?",
        "path: /changed": "is already served by",
        "plugin: bord": "there is no plugin 'bord'",
    }
    async with home.server() as server:
        address = await server.ready()
        async with connect(f"ws://{address}/still") as talker:
            for new, told in wrong.items():
                home.write(CONFIG.replace("plugin: board" if "plugin" in new else "path: /still", new, 1))
                server.process.send_signal(signal.SIGHUP)
                line = await server.line(lambda said, told=told: told in said)  # type: ignore[misc]
                assert line.startswith("config.yaml:")
                await talker.send(GREETING)
                assert await talker.recv() == GREETING


async def test_new_code_of_a_plugin(home: Home) -> None:
    """A plugin's file that has changed is used after SIGHUP, without a restart of the process."""
    home.write(CONFIG, {"plugins/board.py": BOARD})
    async with home.server() as server:
        address = await server.ready()
        home.write(CONFIG, {"plugins/board.py": BOARD.replace("message.data, event", "'new', event")})
        await hang_up(server, "changed  restarted (its plugin)")
        async with connect(f"ws://{address}/still") as talker:
            await talker.send(GREETING)
            assert await talker.recv() == "new"


async def test_author_sees_every_change(home: Home) -> None:
    """With `serve --reload` an author edits, sees mistakes and mends them, with one start of the server."""
    home.write(CONFIG, {"plugins/board.py": BOARD})
    async with home.server("--reload") as server:
        address = await server.ready()
        broken = BOARD.replace("await self.publish", "await self publish")
        home.write(CONFIG, {"plugins/board.py": broken})
        place = f"board.py:{broken[: broken.index('await self publish')].count(chr(10)) + 1}: "
        await server.line(lambda said: place in said)
        home.write(CONFIG, {"plugins/board.py": BOARD.replace("message.data, event", "'mended', event")})
        await server.line(lambda said: "restarted (its plugin)" in said)
        async with connect(f"ws://{address}/still") as talker:
            await talker.send(GREETING)
            assert await talker.recv() == "mended"


async def test_what_needs_a_restart_is_said(home: Home) -> None:
    """Another address to listen on is refused, in its place, and nothing else of that config is taken."""
    config = 'server: {listen: ["127.0.0.1:0"]}\n' + CONFIG
    home.write(config, {"plugins/board.py": BOARD})
    async with home.server(listen=()) as server:
        address = await server.ready()
        home.write(config.replace("127.0.0.1", "localhost").replace("/still", "/moved"))
        await hang_up(server, "config.yaml:1:18: server.listen: this is new, and needs a restart")
        ran = await home.ran("publish", f"http://{address}/still", json.dumps(GREETING))
        assert ran.code == 0
