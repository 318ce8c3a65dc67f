"""A client of the `websockets` library talks to the echo."""

from __future__ import annotations

import os

import pytest
from websockets.asyncio.client import connect

from acceptance.world import GREETING, PATIENCE, SIZE, Home


async def test_text(home: Home) -> None:
    """The shipped config answers a text with ``Echo: `` and the text."""
    async with home.serving() as address, connect(f"ws://{address}/ws", open_timeout=PATIENCE) as ws:
        await ws.send(GREETING)
        assert await ws.recv() == f"Echo: {GREETING}"


@pytest.mark.parametrize("size", [0, 1, SIZE])
async def test_bytes(home: Home, size: int) -> None:
    """Bytes come back as they were."""
    sent = os.urandom(size)
    async with home.serving() as address, connect(f"ws://{address}/ws", open_timeout=PATIENCE) as ws:
        await ws.send(sent)
        assert await ws.recv() == sent
