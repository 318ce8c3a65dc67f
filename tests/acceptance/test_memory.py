"""What a client costs: memory, for one that is idle and for one that never reads."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from acceptance.world import CLIENTS, NAMES, PATIENCE, SIZE, Home, Process

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="what a process takes is read from Linux's /proc"
)

HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
PAGE = os.sysconf("SC_PAGE_SIZE")
#: All as it is by default, but that so many may connect at once.
CONFIG = """\
server: {limits: {connect_rate: 100000, connect_burst: 100000}}
channels:
  echo: {plugin: echo, path: /ws}
"""


def resident(server: Process) -> int:
    """The resident memory of a server, in bytes."""
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * PAGE


def in_sockets() -> int:
    """What the kernel holds for all TCP sockets of this machine, in bytes."""
    (line,) = (one for one in Path("/proc/net/sockstat").read_text().splitlines() if one.startswith("TCP:"))
    words = line.split()
    return int(words[words.index("mem") + 1]) * PAGE


async def opened(address: str, path: str, count: int, stack: ExitStack) -> list[socket.socket]:
    """So many WebSockets, of which each has read the answer to its handshake and no more."""
    host, _, port = address.rpartition(":")
    loop, sockets = asyncio.get_running_loop(), []
    for _ in range(count):
        sock = stack.enter_context(socket.socket())
        sock.setblocking(False)
        async with asyncio.timeout(PATIENCE):
            await loop.sock_connect(sock, (host, int(port)))
            await loop.sock_sendall(sock, HANDSHAKE.format(path=path, host=address).encode())
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += await loop.sock_recv(sock, 1)
        assert head.startswith(b"HTTP/1.1 101 "), head
        sockets.append(sock)
    return sockets


async def test_idle_clients_cost_little(home: Home) -> None:
    """A WebSocket that is open and idle costs no more than 16 KB of resident memory."""
    home.write(CONFIG)
    async with home.server() as server:
        address = await server.ready()
        with ExitStack() as stack:
            await opened(address, "/ws", 50, stack)  # what is made once
            before = resident(server)
            await opened(address, "/ws", CLIENTS, stack)
            assert (resident(server) - before) / CLIENTS <= 16_000


@pytest.mark.alone
async def test_clients_that_never_read_cost_little(home: Home) -> None:
    """A client that never reads costs no more than half a mebibyte, what the kernel holds included."""
    stalled = max(CLIENTS // 10, 20)
    async with home.server() as server:
        address = await server.ready()
        with ExitStack() as stack:
            host = f"ws://{address}/chat?name="
            async with connect(f"{host}{NAMES[0]}", max_queue=None) as talker:
                # What the room keeps anyway is there before they come.
                for _ in range(8 * 1024 * 1024 // SIZE):
                    await talker.send("x" * SIZE)
                    async with asyncio.timeout(PATIENCE):
                        while len(await talker.recv()) < SIZE:
                            pass
                before = resident(server) + in_sockets()
                for number in range(stalled):
                    await opened(address, f"/chat?name=stalled{number}", 1, stack)
                for _ in range(2 * 1024 * 1024 // SIZE):
                    await talker.send("x" * SIZE)
                    async with asyncio.timeout(PATIENCE):
                        while len(await talker.recv()) < SIZE:
                            pass
                assert (resident(server) + in_sockets() - before) / stalled <= 512 * 1024
