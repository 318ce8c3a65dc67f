"""The first command of the README, word for word, in a fresh copy of the checkout."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest
from needs import curl
from tree import checkout, fresh_copy
from websockets.asyncio.client import connect

from acceptance.world import INSTALLING, PATIENCE, started

#: Where the shipped config listens.
ADDRESS = ("127.0.0.1", 8080)


def first_command(readme: str) -> str:
    """The first line of the first block of shell commands."""
    block = re.search(r"^```sh\n(.*?)\n", readme, re.MULTILINE)
    assert block, "the README has no block of shell commands"
    return block[1]


async def test_first_command(tmp_path: Path) -> None:
    """The README's first command serves echo, chat and clock."""
    command = first_command((checkout() / "README.md").read_text())
    try:
        socket.create_server(ADDRESS).close()
    except OSError:
        sentence = "somebody else listens on 127.0.0.1:8080, the port of the shipped config"
        if os.environ.get("REALTIME_REQUIRE_ALL") == "1":
            pytest.fail(sentence)
        pytest.skip(sentence)
    copy = fresh_copy(tmp_path / "copy")
    async with started("bash", "-c", command, cwd=copy, group=True) as process:
        address = await process.ready(INSTALLING)
        assert address == "127.0.0.1:8080"
        async with connect(f"ws://{address}/ws") as echo:
            await echo.send("Hello, Server!")
            assert await echo.recv() == "Echo: Hello, Server!"
        async with connect(f"ws://{address}/chat") as chat:
            await chat.send("alice")
            assert await chat.recv() == "alice joined the chat"
        async with started(curl(), "-sN", f"http://{address}/events", cwd=tmp_path) as clock:
            await clock.line(lambda line: line.startswith("data: Current time: "), PATIENCE)
