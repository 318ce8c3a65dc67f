"""What an operator does: kill it and start it again, and deploy it as the documentation says."""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from urllib.parse import quote

import pytest
from tree import ROOT, checkout
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from acceptance.board import CONFIG, FILES
from acceptance.world import COUNT, GREETING, NAMES, Home, own_address

HOW_TO = ROOT / "docs" / "how-to"


def parts() -> list[str]:
    """What the deploy page shows of a config: its blocks, and the keys of `server` within a sentence."""
    page = HOW_TO / "deploy.md"
    text = page.read_text() if page.is_file() else ""
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`((?:listen|trusted_proxies): \[[^`]*\])`", text)
    return [*blocks, *(f"server:\n  {keys}\n" for keys in inline)]


CHANNELS = "channels: {lobby: {plugin: chat, path: /chat}}\n"


# Killed, and started again


async def test_started_again(home: Home) -> None:
    """A server that is killed with clients on it starts again at the same port, at once."""
    async with home.server(listen=(own_address(),)) as server:
        address = await server.ready()
        async with connect(f"ws://{address}/chat?name={quote(NAMES[0])}") as ws:
            await ws.recv()
            await server.killed()
            with pytest.raises(ConnectionClosed):
                await ws.recv()
            async with home.server(listen=(address,)) as again:
                assert await again.ready() == address
                async with connect(f"ws://{address}/chat?name={quote(NAMES[0])}") as back:
                    assert await back.recv() == f"{NAMES[0]} joined the chat"


async def test_nothing_is_left_of_a_killed_server(home: Home) -> None:
    """What was said to a server that was killed is gone, and the next one's positions are others."""
    home.write(CONFIG, FILES)
    epochs = set()
    async with home.server(listen=(own_address(),)) as server:
        address = await server.ready()
        ran = await home.ran("publish", f"http://{address}/board", GREETING)
        epochs.add(ran.said[0].partition("-")[0])
        await server.killed()
    async with home.server(listen=(address,)):
        ran = await home.ran("publish", f"http://{address}/board", "another")
        epochs.add(ran.said[0].partition("-")[0])
        ran = await home.ran("connect", f"http://{address}/board", "--since", "earliest", "--count", "1")
        assert ran.said == ["Received: another"]
    assert len(epochs) == 2


async def test_killed_again_and_again(home: Home) -> None:
    """However often it is killed, it is ready again at the same port and the same unix socket."""
    home.write(f'server: {{listen: ["{own_address()}", "unix:s"]}}\n' + CHANNELS)
    listen: tuple[str, ...] = ()
    for _ in range(3):
        async with home.server(listen=listen) as server:
            address, file = await server.addresses()
            listen = (address, file)
            async with connect(f"ws://{address}/chat?name={quote(NAMES[0])}") as ws:
                assert await ws.recv() == f"{NAMES[0]} joined the chat"
                await server.killed()


async def test_nobody_is_lost_at_an_orderly_end(home: Home) -> None:
    """What was published before an orderly end is delivered before the goodbye."""
    home.write(CONFIG, FILES)
    async with home.server() as server:
        address = await server.ready()
        async with connect(f"ws://{address}/board") as ws:
            lines = [f"{GREETING} {number}" for number in range(COUNT)]
            ran = await home.ran("publish", f"http://{address}/board", typed="\n".join(lines))
            assert ran.code == 0, ran.errors
            server.process.terminate()
            for line in lines:
                assert await ws.recv() == line
            with pytest.raises(ConnectionClosed):
                await ws.recv()
            assert ws.close_code == 1001


# As the documentation says


@pytest.mark.parametrize("part", parts(), ids=lambda part: " ".join(part.split())[:60])
async def test_the_deploy_page(home: Home, part: str) -> None:
    """Each part of a config that the deploy page shows is right: ``check`` finds nothing wrong."""
    home.write(textwrap.dedent(part) + CHANNELS)
    ran = await home.ran("check")
    assert ran == (0, ["config.yaml: no mistakes; channels: lobby"], "")


async def test_the_shipped_config(home: Home) -> None:
    """The config at the top of the checkout, which the image has, is right."""
    home.write((checkout() / "config.yaml").read_text())
    assert await home.ran("check") == (0, ["config.yaml: no mistakes; channels: echo, lobby, clock"], "")


async def test_the_unit(home: Home) -> None:
    """The command of the systemd unit is one that is understood, with its own config."""
    checkout()
    unit = (HOW_TO / "realtime.service").read_text()
    found = re.search("^ExecStart=(.*)$", unit, re.MULTILINE)
    assert found
    _, *arguments = shlex.split(found[1])
    assert arguments[:3] == ["-m", "realtime", "-c"]
    home.write(CHANNELS)
    ran = await home.ran("-c", "config.yaml", *arguments[4:], "check")
    assert (ran.code, ran.errors) == (0, "")


async def test_the_image(home: Home) -> None:
    """The command of the image is one that serves, with a log in JSON."""
    checkout()
    dockerfile = (HOW_TO / "Dockerfile").read_text()
    found = re.search(r"^CMD (\[.*\])$", dockerfile, re.MULTILINE)
    assert found
    arguments = [word.replace(":8080", ":0") for word in json.loads(found[1])]
    home.write(CHANNELS)
    async with home.server(*arguments, listen=()) as process:
        port = (await process.ready()).rpartition(":")[2]
        async with connect(f"ws://127.0.0.1:{port}/chat?name={quote(NAMES[0])}") as ws:
            assert await ws.recv() == f"{NAMES[0]} joined the chat"
    assert all(json.loads(line)["message"] for line in process.said)
