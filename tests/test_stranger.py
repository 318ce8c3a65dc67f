"""A client of bytes: what it understands of what a server says, and how it goes."""

from __future__ import annotations

import pytest
from conftest import Serve

from realtime.stranger import BINARY, PING, TEXT, UPGRADE, Stranger, frame, request
from realtime.trial import until

CONFIG = """
channels:
  echo: {plugin: echo, path: /ws}
  clock: {plugin: clock, path: /events, interval: 1h}
"""


@pytest.mark.parametrize("size", [0, 1, 125, 126, 60_000])
async def test_websocket(serve: Serve, size: int) -> None:
    """Frames of every length are said and understood."""
    async with serve(CONFIG) as serving:
        client = await Stranger.dial(serving.port, request("/ws", UPGRADE) + frame(BINARY, b"x" * size))
        assert await until(lambda: bool(client.last))
        assert (client.status, client.last) == (101, "x" * size + "\n")
        client.abort()


async def test_ping_and_close(serve: Serve) -> None:
    """A pong is counted, and a close frame is remembered with its code and reason."""
    async with serve(CONFIG) as serving:
        client = await Stranger.dial(serving.port, request("/ws", UPGRADE) + frame(PING))
        assert await until(lambda: client.pongs == 1)
        client.say(frame(TEXT, b"\xff"))
        assert await until(lambda: client.gone)
        assert client.end is not None
        assert client.end[0] == 1007
        client.say(b"more")  # to nobody


async def test_stream(serve: Serve) -> None:
    """A stream's welcome is read: where it stands, and how the resume was met."""
    async with serve(CONFIG) as serving:
        client = await Stranger.dial(serving.port, request("/events", {"Accept": "text/event-stream"}))
        assert await until(lambda: bool(client.outcome))
        assert (client.status, client.outcome, client.whole) == (200, "new", False)
        assert client.position.endswith("-0")
        client.abort()


async def test_answer(serve: Serve) -> None:
    """An answer is whole when its length has come."""
    async with serve(CONFIG) as serving:
        client = await Stranger.dial(serving.port, request("/-/live", {}))
        assert await until(lambda: client.whole)
        assert (client.status, client.text, client.gone) == (200, '{"live": true}', False)
        client.abort()


async def test_goodbye_of_a_stream(serve: Serve) -> None:
    """A stream that ends tells why."""
    async with serve(CONFIG) as serving:
        client = await Stranger.dial(serving.port, request("/events", {"Accept": "application/x-ndjson"}))
        assert await until(lambda: bool(client.outcome))
    assert await until(lambda: client.gone)
    assert client.end == (1001, "the server is shutting down, come back soon")
