"""How it ends under load: many who never read, many who do, within ``server.drain``."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import ExitStack

import pytest
from timing import stopwatch
from websockets.asyncio.client import ClientConnection, connect

from acceptance.world import DRAIN, NEVER_READ, PATIENCE, READERS, Home

HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
STREAM = "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
CONFIG = f"""\
server: {{drain: {DRAIN:g}s}}
channels:
  room: {{plugin: topics, path: /room, lag_bytes: 16MiB}}
"""


def never_reads(address: str, opening: str) -> socket.socket:
    """A connection that asks for all and takes nothing."""
    host, _, port = address.rpartition(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(PATIENCE)
    sock.connect((host.strip("[]"), int(port)))
    sock.sendall(opening.format(path="/room").encode())
    sock.recv(12)  # the status: it is served
    return sock


@pytest.mark.parametrize("opening", [HANDSHAKE, STREAM], ids=["websocket", "events"])
async def test_who_never_reads_keeps_nobody(home: Home, opening: str) -> None:
    """Hundreds who never read keep SIGTERM from nothing: exit code 0 within ``server.drain``."""
    home.write(CONFIG)
    with ExitStack() as stack:
        async with home.server() as process:
            address = await process.ready()
            for _ in range(NEVER_READ):
                stack.enter_context(await asyncio.to_thread(never_reads, address, opening))
            async with connect(f"ws://{address}/room") as talker:
                for _ in range(20):
                    await talker.send("x" * 60_000)
                    await talker.recv()
                watch = stack.enter_context(stopwatch(process.process.pid))
                process.process.send_signal(signal.SIGTERM)
                await talker.wait_closed()
                assert talker.close_code == 1001
            assert await process.ended(DRAIN + PATIENCE) == 0
            assert watch.seconds < DRAIN
    assert "Traceback" not in process.text


async def test_all_are_told(home: Home) -> None:
    """More readers than are told in one batch are all told 1001 and why, and it ends with 0 in time."""
    home.write(CONFIG)
    async with home.server() as process:
        address = await process.ready()
        clients: list[ClientConnection] = []
        for _ in range(0, READERS, 50):
            clients += await asyncio.gather(*(connect(f"ws://{address}/room") for _ in range(50)))
        with stopwatch(process.process.pid) as watch:
            process.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(DRAIN + PATIENCE):
                await asyncio.gather(*(client.wait_closed() for client in clients))
            assert {client.close_code for client in clients} == {1001}
            assert await process.ended(DRAIN + PATIENCE) == 0
            assert watch.seconds < DRAIN
    assert "Traceback" not in process.text
