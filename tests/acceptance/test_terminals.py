"""People at real terminals: what they type, what they see, and the keys that end it."""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import pty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from acceptance.board import CONFIG, FILES
from acceptance.world import GREETING, NAMES, PATIENCE, Home, Process, started

CTRL_C, CTRL_D = "\x03", "\x04"


class Terminal:
    """A terminal in which a command runs, and what its screen has shown."""

    def __init__(self, process: Process, keyboard: int) -> None:
        self.process = process
        self.screen = ""
        self._keyboard = keyboard
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # a letter may come in two parts
        self._more = asyncio.Event()
        asyncio.get_running_loop().add_reader(keyboard, self._read)

    def _read(self) -> None:
        self.screen += self._decoder.decode(os.read(self._keyboard, 65536))
        self._more.set()

    def type(self, keys: str) -> None:
        """Press some keys."""
        os.write(self._keyboard, keys.encode())

    async def shows(self, text: str) -> None:
        """Wait until the screen has shown a text."""
        try:
            async with asyncio.timeout(PATIENCE):
                while text not in self.screen:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise AssertionError(f"{text!r} is not on the screen:\n{self.screen}") from None


@asynccontextmanager
async def terminal(home: Home, *arguments: str) -> AsyncIterator[Terminal]:
    """``python -m realtime ARGUMENTS`` in a terminal of its own."""
    keyboard, screen = pty.openpty()
    # The first terminal that a session opens is the one whose keys interrupt it.
    opened = ["sh", "-c", 'exec "$@" <"$0" >"$0" 2>&1', os.ttyname(screen)]
    command = [*opened, str(home.python), "-m", "realtime", *arguments]
    try:
        async with started(*command, cwd=home.directory, group=True) as process:
            yield Terminal(process, keyboard)
    finally:
        asyncio.get_running_loop().remove_reader(keyboard)
        os.close(screen)
        os.close(keyboard)


@asynccontextmanager
async def chatting(home: Home, scheme: str = "ws") -> AsyncIterator[tuple[Terminal, Terminal]]:
    """Two people in a chat, each at a terminal."""
    async with home.serving() as address:
        url = f"{scheme}://{address}/chat"
        async with terminal(home, "connect", url, "--name", NAMES[0]) as one:
            await one.shows(NAMES[0])
            async with terminal(home, "connect", url, "--name", NAMES[1]) as other:
                await one.shows(NAMES[1])
                await other.shows(NAMES[1])
                yield one, other


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_two_people_chat(home: Home, scheme: str) -> None:
    """Two people at two terminals see what each of them says."""
    async with chatting(home, scheme) as (one, other):
        for speaker, name in ((one, NAMES[0]), (other, NAMES[1])):
            speaker.type(f"{GREETING}\n")
            as_json = json.dumps(
                {"from": name, "text": GREETING}, ensure_ascii=False, separators=(",", ":")
            )
            for screen in (one, other):
                await screen.shows(f"Received: {name}: {GREETING}" if scheme == "ws" else as_json)


async def test_ctrl_c(home: Home) -> None:
    """Ctrl-C at a terminal ends it without an error, and the other sees that this one has left."""
    async with chatting(home) as (one, other):
        one.type(CTRL_C)
        assert await one.process.ended() == 0
        await other.shows(f"Received: {NAMES[0]} left the chat")
        assert "Traceback" not in one.screen


async def test_ctrl_d(home: Home) -> None:
    """Ctrl-D ends what is typed, and what others say still comes."""
    async with chatting(home) as (one, other):
        one.type(CTRL_D)
        other.type(f"{GREETING}\n")
        await one.shows(f"Received: {NAMES[1]}: {GREETING}")


async def test_escapes(home: Home) -> None:
    """What would drive the terminal is shown as an escape, and letters of every script as they are."""
    home.write(CONFIG, FILES)
    async with home.serving() as address, terminal(home, "connect", f"ws://{address}/board") as screen:
        await screen.shows("WebSocket connected")
        ran = await home.ran("publish", f"http://{address}/board", "\x1b[2J\x07 héé 你好\u202e\x9b0m.")
        assert ran.code == 0, ran.errors
        await screen.shows(r"Received: \u001b[2J\u0007 héé 你好\u202e\u009b0m.")
        assert "\x1b" not in screen.screen


async def test_a_close_reason_drives_no_terminal(home: Home) -> None:
    """The reason of a close is shown with its control characters as escapes, too."""
    home.write(CONFIG, FILES)
    async with home.serving() as address, terminal(home, "connect", f"ws://{address}/board") as screen:
        await screen.shows("WebSocket connected")
        await home.ran("publish", f"http://{address}/board", "close 4403 \x1b[2Jgo")
        await screen.shows(r"closed by the server: 4403 not allowed: \x1b[2Jgo")
        assert await screen.process.ended() == 4
        assert "\x1b" not in screen.screen


async def test_a_server_at_a_terminal(home: Home) -> None:
    """A server is started at a terminal, and Ctrl-C ends it with a word and without an error."""
    async with terminal(home, "--listen", "127.0.0.1:0") as screen:
        await screen.shows("ready on ")
        screen.type(CTRL_C)
        await screen.shows("stopping")
        assert await screen.process.ended() == 0
        assert "Traceback" not in screen.screen
