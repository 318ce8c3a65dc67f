"""Taking aiohttp's place on a transport, and letting go of all that a request took."""

from __future__ import annotations

import asyncio
import gc
import socket
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import WSMsgType, web
from conftest import Serve
from wire import TEXT, UPGRADE, Frame, eventually, frame, request, stream, text, websocket

from realtime.sockets import TCP_USER_TIMEOUT
from realtime.transports.connection import TURN_MESSAGES
from realtime.transports.takeover import HIGH_WATER, LOW_WATER, READ, cut, owed

CONFIG = """
    channels:
      echo: {plugin: echo, path: /ws}
      clock: {plugin: clock, path: /events}
"""


async def test_request_is_let_go_of(serve: Serve) -> None:
    """While a WebSocket is open nothing of the request that began it is left."""

    def requests() -> list[web.BaseRequest]:
        gc.collect()
        return [one for one in gc.get_objects() if isinstance(one, web.BaseRequest)]

    others = requests()  # what tests before have left, if anything, is theirs
    async with serve(CONFIG) as serving, websocket(serving.port, "/ws") as wire:
        await wire.send(text("a"))
        assert await wire.frame() == Frame(TEXT, b"Echo: a")
        assert [one for one in requests() if one not in others] == []


@pytest.mark.parametrize("path", ["/ws", "/events"])
async def test_aiohttp_has_no_connection(serve: Serve, path: str) -> None:
    """To aiohttp a connection ends where ours begins."""
    async with serve(CONFIG) as serving, (websocket if path == "/ws" else stream)(serving.port, path):
        runner = serving.server._runner
        assert runner is not None
        http = runner.server
        assert http is not None
        await eventually(lambda: not http.connections)  # its task ends first


async def test_one_task_a_client(serve: Serve) -> None:
    """A client has one task, and no other is left of its handshake."""
    async with serve(CONFIG) as serving, AsyncExitStack() as clients:
        before = len(asyncio.all_tasks())
        for _ in range(5):
            await clients.enter_async_context(websocket(serving.port, "/ws"))
        await eventually(lambda: len(asyncio.all_tasks()) - before == 5)


async def test_larger_than_a_read(serve: Serve) -> None:
    """What is larger than one read arrives whole."""
    config = f"    server: {{listen: ['127.0.0.1:0'], limits: {{max_message: 1MiB}}}}{CONFIG}"
    async with serve(config) as serving, websocket(serving.port, "/ws") as wire:
        data = bytes(range(256)) * (5 * READ // 256)
        await wire.send(frame(0x2, data))
        assert (await wire.frame()).payload == data


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the option is Linux's")
async def test_kernel_gives_up_on_who_is_gone(serve: Serve) -> None:
    """The kernel is told how long to try to deliver to a peer that acknowledges nothing."""
    async with serve(CONFIG) as serving, websocket(serving.port, "/ws"):
        (client,) = serving.server.channels["echo"].clients
        sock = client._link.transport.get_extra_info("socket")  # type: ignore[attr-defined]
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == TCP_USER_TIMEOUT


@pytest.mark.parametrize("path", ["/ws", "/events"])
async def test_nothing_waits_for_more(serve: Serve, path: str) -> None:
    """What is written leaves at once: the kernel does not wait for more (Nagle)."""
    async with serve(CONFIG) as serving, (websocket if path == "/ws" else stream)(serving.port, path):
        name = "echo" if path == "/ws" else "clock"
        (client,) = serving.server.channels[name].clients
        sock = client._link.transport.get_extra_info("socket")  # type: ignore[attr-defined]
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


@pytest.mark.parametrize("reads", [True, False])
async def test_what_a_client_owes(serve: Serve, reads: bool) -> None:
    """What the client has not taken is counted, the kernel's part too."""
    async with (
        serve(CONFIG) as serving,
        websocket(serving.port, "/ws", receive_buffer=4096) as wire,
    ):
        (client,) = serving.server.channels["echo"].clients
        transport = client._link.transport  # type: ignore[attr-defined]
        transport.write(bytes(2_000_000))
        if reads:
            await wire.exactly(2_000_000)
            await eventually(lambda: owed(transport) == 0)
        else:
            assert 1_000_000 < owed(transport) <= 2_000_000
        cut(transport)
        assert len(await wire.rest()) < 1_000_000


FULL = {
    "full.py": """
        from realtime import hookimpl

        @hookimpl
        def authenticate(request):
            request.transport.write(bytes(16 * 1024 * 1024))
    """
}


async def test_what_aiohttp_has_not_sent_counts(serve: Serve) -> None:
    """A transport that was full for aiohttp is full for us, though it says so only once."""
    async with serve(f"    plugins: [full]{CONFIG}", FULL) as serving:
        with socket.socket() as sock:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", serving.port))
            await loop.sock_sendall(sock, request("/ws", UPGRADE))
            echo = serving.server.channels["echo"]
            await eventually(lambda: len(echo.clients) == 1)
            (client,) = echo.clients
            link: Any = client._link
            assert link.paused


async def test_transport_says_at_once_that_it_is_full(serve: Serve) -> None:
    """A plain transport is full as soon as the kernel does not take a whole write."""
    async with serve(CONFIG) as serving, websocket(serving.port, "/ws"):
        (client,) = serving.server.channels["echo"].clients
        link: Any = client._link
        assert link.transport.get_write_buffer_limits() == (LOW_WATER, HIGH_WATER)


async def test_pongs_may_fill_a_transport(serve: Serve) -> None:
    """A transport that the pongs fill as soon as it has drained stays full."""
    async with serve(CONFIG) as serving, websocket(serving.port, "/ws"):
        (client,) = serving.server.channels["echo"].clients
        link: Any = client._link
        link.pause_writing()
        link.control_received(WSMsgType.PING, b"", "")
        link.write = lambda data: link.pause_writing()
        link.resume_writing()
        assert link.paused


async def test_messages_of_two_reads_keep_their_order(serve: Serve) -> None:
    """What is read while earlier messages wait for their turn comes after them."""
    async with serve(CONFIG) as serving, websocket(serving.port, "/ws") as wire:
        (client,) = serving.server.channels["echo"].clients
        link: Any = client._link
        texts = [f"{number}" for number in range(TURN_MESSAGES + 5)]

        def two_reads() -> None:
            for part in (texts[:-1], texts[-1:]):
                link.data_received(b"".join(map(text, part)))

        asyncio.get_running_loop().call_soon(two_reads)
        assert [await wire.text() for _ in texts] == [f"Echo: {one}" for one in texts]
