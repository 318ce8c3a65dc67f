"""Taking aiohttp's place on a transport, and letting go of all that a request took."""

from __future__ import annotations

import asyncio
import gc
import socket
from contextlib import AsyncExitStack

import pytest
from aiohttp import web
from conftest import Serve
from wire import TEXT, Frame, eventually, frame, stream, text, websocket

from realtime.transports.takeover import READ, TCP_USER_TIMEOUT

CONFIG = """
    channels:
      echo: {plugin: echo, path: /ws}
      clock: {plugin: clock, path: /events}
"""


async def test_request_is_let_go_of(serve: Serve) -> None:
    """While a WebSocket is open nothing of the request that began it is left."""
    async with serve(CONFIG) as serving, websocket(serving.port, "/ws") as wire:
        await wire.send(text("a"))
        assert await wire.frame() == Frame(TEXT, b"Echo: a")
        gc.collect()
        assert [one for one in gc.get_objects() if isinstance(one, web.BaseRequest)] == []


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
