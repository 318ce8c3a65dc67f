"""How it ends: exit codes, and mistakes told in a line."""

from __future__ import annotations

import asyncio
import signal
import socket

import pytest
from websockets.asyncio.client import connect

from acceptance.world import HOST, PATIENCE, PORT, Home

#: A channel whose end takes longer than anybody waits.
SLOW = '''\
"""A channel that does not want to end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from realtime import Channel, hookimpl


class Slow(Channel):
    """It does not want to end."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        yield
        await asyncio.Event().wait()


@hookimpl
def register_channels() -> dict[str, type[Channel]]:
    return {"slow": Slow}
'''


async def test_port_in_use(home: Home) -> None:
    """A port that somebody has is one line and exit code 3."""
    with socket.create_server((HOST, 0)) as taken:
        address = f"{HOST}:{taken.getsockname()[1]}"
        async with home.realtime("--listen", address) as process:
            assert await process.ended() == 3
    assert process.said == [f"could not start: {address} is in use"]


async def test_unknown_plugin(home: Home) -> None:
    """An unknown plugin is exit code 1, with the place, a suggestion and where was looked."""
    home.write("channels:\n  mirror:\n    plugin: ecko\n    path: /mirror\n")
    async with home.realtime() as process:
        assert await process.ended() == 1
    first, *places = process.said
    assert first == (
        "config.yaml:3:13: channels.mirror.plugin: there is no plugin 'ecko', did you mean 'echo'?"
    )
    assert places
    assert all(line.startswith("    searched: ") for line in places)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            "channels: {echo: {plugin: echo, path: /ws, colour: red}}",
            ":1:44: channels.echo.colour: unknown key",
        ),
        ("server: {drain: soon}", ":1:17: server.drain: expected a duration such as"),
        ("channels: [", ":1:"),
        ("", ": it is empty"),
    ],
)
async def test_bad_config(home: Home, config: str, said: str) -> None:
    """A bad config is one line with the place, and exit code 1."""
    home.write(config)
    async with home.realtime() as process:
        assert await process.ended() == 1
    (line,) = process.said
    assert line.startswith(f"config.yaml{said}")


async def test_config_that_is_not_there(home: Home) -> None:
    """A config file that is not there is one line and exit code 1."""
    async with home.realtime("-c", "other.yaml") as process:
        assert await process.ended() == 1
    assert process.said == ["other.yaml: not found"]


@pytest.mark.parametrize("arguments", [["frobnicate"], ["--colour"], ["serve", "--listen", "nowhere"]])
async def test_usage(home: Home, arguments: list[str]) -> None:
    """An unknown command, an unknown option and a wrong value are exit code 2, without a traceback."""
    async with home.realtime(*arguments) as process:
        assert await process.ended() == 2
    assert arguments[-1] in process.text
    assert "Traceback" not in process.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal(home: Home, number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C tell every client 1001 and end with exit code 0."""
    async with home.realtime("--listen", f"{HOST}:{PORT}") as process:
        address = await process.ready()
        async with connect(f"ws://{address}/ws") as ws:
            process.process.send_signal(number)
            await ws.wait_closed()
            assert ws.close_code == 1001
        assert await process.ended() == 0
    assert "Traceback" not in process.text


async def test_second_signal(home: Home) -> None:
    """A second signal ends it at once, whatever the first one waits for."""
    home.write(
        "server: {drain: 1h}\nchannels: {slow: {plugin: slow, path: /slow}}\n", {"plugins/slow.py": SLOW}
    )
    async with home.realtime("--listen", f"{HOST}:{PORT}") as process:
        await process.ready()
        process.process.terminate()
        await process.line(lambda line: line.startswith("stopping"))
        process.process.terminate()
        begun = asyncio.get_running_loop().time()
        assert await process.ended() == 0
    assert asyncio.get_running_loop().time() - begun < PATIENCE
