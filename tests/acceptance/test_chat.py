"""Three clients of the `websockets` library talk in a room, and a fourth stops reading."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from acceptance.world import MESSAGES, NAMES, PATIENCE, SIZE, STALLED, Home


class Member:
    """Somebody in the room, and everything they have heard."""

    def __init__(self, name: str, ws: ClientConnection) -> None:
        self.name = name
        self.heard: list[str] = []
        self._ws = ws
        self._known: set[str] = set()
        self._more = asyncio.Condition()

    async def read(self) -> None:
        """Hear everything until the connection ends."""
        async for text in self._ws:
            async with self._more:
                self.heard.append(str(text))
                self._known.add(str(text))
                self._more.notify_all()

    async def hears(self, text: str, within: float = PATIENCE) -> None:
        """Wait until a text was heard."""
        async with asyncio.timeout(within), self._more:
            await self._more.wait_for(lambda: text in self._known)

    async def says(self, text: str) -> None:
        """Say something."""
        await self._ws.send(text)

    async def leaves(self) -> None:
        """Close the connection."""
        await self._ws.close()


@asynccontextmanager
async def member(address: str, name: str) -> AsyncIterator[Member]:
    """Somebody who has come into the room."""
    async with connect(f"ws://{address}/chat") as ws:
        somebody = Member(name, ws)
        reading = asyncio.create_task(somebody.read())
        await somebody.says(name)
        await somebody.hears(f"{name} joined the chat")
        yield somebody
        await ws.close()
        await reading


async def test_one_order(home: Home) -> None:
    """Three clients see joins, messages and leaves, all of them, in one order."""
    async with home.serving() as address, AsyncExitStack() as room:
        first, *others = [await room.enter_async_context(member(address, name)) for name in NAMES]

        async def talk(somebody: Member) -> None:
            for number in range(MESSAGES):
                await somebody.says(f"this is {number}")

        await asyncio.gather(*map(talk, (first, *others)))
        last = f"this is {MESSAGES - 1}"
        for somebody in (first, *others):
            for name in NAMES:
                await somebody.hears(f"{name}: {last}")
        for somebody in others:
            await somebody.leaves()
            await first.hears(f"{somebody.name} left the chat")

    said = [f"this is {number}" for number in range(MESSAGES)]
    joins, leaves = len(NAMES), len(others)
    assert first.heard[:joins] == [f"{name} joined the chat" for name in NAMES]
    assert len(first.heard) == joins + joins * MESSAGES + leaves
    for name in NAMES:
        assert [t for t in first.heard if t.startswith(f"{name}: ")] == [f"{name}: {t}" for t in said]
    assert first.heard[-leaves:] == [f"{somebody.name} left the chat" for somebody in others]
    for place, somebody in enumerate(others):
        # From their own joining to the leaving of the one before them.
        assert somebody.heard == first.heard[place + 1 : len(first.heard) - leaves + place]


async def test_one_stops_reading(home: Home) -> None:
    """One who stops reading is closed with 1013, and the three hear everything, in one order."""
    with socket.socket() as small:
        # What the kernel would take in its place is no part of the claim.
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        async with home.serving() as address, AsyncExitStack() as room:
            three = [await room.enter_async_context(member(address, name)) for name in NAMES]
            small.setblocking(False)
            host, _, port = address.rpartition(":")
            await asyncio.get_running_loop().sock_connect(small, (host, int(port)))
            stalled = await room.enter_async_context(
                connect(f"ws://{address}/chat", sock=small, max_queue=1, ping_interval=None)
            )
            await stalled.send(STALLED)
            for somebody in three:
                await somebody.hears(f"{STALLED} joined the chat")

            async def talk(somebody: Member) -> None:
                # One at a time: nobody but the one who does not read may fall behind.
                for number in range(MESSAGES):
                    text = f"{number}:".ljust(SIZE, "x")
                    await somebody.says(text)
                    await somebody.hears(f"{somebody.name}: {text}")

            async def read_again() -> None:
                # Once it is out it reads, in time for the close frame that is behind the rest.
                await three[0].hears(f"{STALLED} left the chat", MESSAGES * PATIENCE)
                with contextlib.suppress(ConnectionClosed):
                    async for _ in stalled:
                        pass

            await asyncio.gather(read_again(), *map(talk, three))
            for somebody in three:
                for other in three:
                    last = f"{MESSAGES - 1}:".ljust(SIZE, "x")
                    await somebody.hears(f"{other.name}: {last}")
            heard = [somebody.heard[-(len(NAMES) * MESSAGES + 2) :] for somebody in three]
    assert (stalled.close_code, bool(stalled.close_reason)) == (1013, True)
    assert heard[0] == heard[1] == heard[2]
    assert len({*heard[0]}) == len(NAMES) * MESSAGES + 2
