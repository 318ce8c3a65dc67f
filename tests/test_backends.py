"""Backends of the page on them: each of its applications for real, beside a server and a reader."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import aiohttp
import httpx
import pytest
from conftest import Serve
from servers import Bytes, closed_port, http
from test_docs import ROOT, Block, blocks
from wire import soon, websocket

PAGE = ROOT / "docs" / "how-to" / "publish-from-a-backend.md"
CONFIG = "channels: {orders: {plugin: topics, path: '/orders/{topic...}', history: 100}}"


def of_the_page(how: str) -> list[Block]:
    """The blocks of the page that are of this kind."""
    return [block for block in blocks(PAGE) if block.how == how]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A directory with the files of the page."""
    for block in of_the_page("file"):
        (tmp_path / block.what).write_text(block.text)
    return tmp_path


def command(word: str) -> str:
    """How the page starts a backend."""
    (text,) = [block.text for block in of_the_page("terminal") if word in block.text]
    return text


@asynccontextmanager
async def started(directory: Path, word: str, realtime: int) -> AsyncIterator[int]:
    """A backend, started as the page says, that publishes at a port; its own port."""
    port = closed_port()
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
        "REALTIME_URL": f"http://127.0.0.1:{realtime}",
    }
    process = await asyncio.create_subprocess_exec(
        *shlex.split(command(word).replace("8000", str(port))),
        cwd=directory,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            while str(port) not in (line := (await process.stdout.readline()).decode()):
                assert line, "it ended"
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await soon(process.communicate())


@pytest.mark.parametrize("name", ["django", "flask", "fastapi"])
async def test_backend(serve: Serve, shop: Path, name: str) -> None:
    """A WebSocket hears of what a backend was asked to do."""
    async with (
        serve(CONFIG) as serving,
        websocket(serving.port, "/orders/7") as wire,
        started(shop, f"shop_{name}", serving.port) as port,
    ):
        head, answer = await asked(port, "/orders/7/ship", b"carrier=DHL")
        assert (head, "shipped" in answer) == (200, True)
        assert json.loads(await wire.text())["shipped by"].lower() == name


async def test_rollback(serve: Serve, shop: Path) -> None:
    """Of what Django has rolled back nobody hears."""
    async with (
        serve(CONFIG) as serving,
        websocket(serving.port, "/orders/7") as wire,
        started(shop, "shop_django", serving.port) as port,
    ):
        assert (await asked(port, "/orders/7/ship", b""))[0] == 500
        await serving.server.bus.publish("orders/7", "the first")
        assert await wire.text() == "the first"


async def asked(port: int, path: str, body: bytes) -> tuple[int, str]:
    """The status and the text of what a backend answers."""
    url, form = f"http://127.0.0.1:{port}{path}", {"Content-Type": "application/x-www-form-urlencoded"}
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=form) as answer:
        return answer.status, await answer.text()


# The functions of the page


@pytest.fixture(params=["live", "shop_fastapi"])
def module(
    request: pytest.FixtureRequest, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    """A module of the page that publishes, imported, and impatient."""
    monkeypatch.syspath_prepend(str(shop))
    names = ("live", "shop_fastapi")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module(request.param)
    sys.modules["live"].PAUSES = (0.01,)  # type: ignore[attr-defined]
    yield module
    for name in names:
        sys.modules.pop(name, None)


async def publish(module: ModuleType, port: int) -> object:
    """Publish as the page does, at a port."""
    module.client.base_url = f"http://127.0.0.1:{port}"
    if module.__name__ == "live":
        try:
            return await asyncio.to_thread(module.publish, "/orders/7", "hi")
        finally:
            module.client.close()
    try:
        return await module.publish("/orders/7", "hi")
    finally:
        await module.client.aclose()


def failing_once(port: int, failure: bytes) -> Bytes:
    """A way to a port on which the first answer is lost, and another comes in its place, or none."""
    failures = [failure]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        (size,) = re.findall(rb"(?i)content-length: (\d+)", head)
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        to_server.write(head + await reader.readexactly(int(size)))
        answer = await from_server.readuntil(b"}")
        writer.write(failures.pop() if failures else answer)
        to_server.close()

    return handle


BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
#: What a proxy says of a server that ended before it had answered.
BROKEN = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("failure", [b"", BUSY, BROKEN], ids=["cut", "503", "502"])
async def test_once(serve: Serve, module: ModuleType, failure: bytes) -> None:
    """A message whose answer was lost is sent again, and heard once."""
    async with serve(CONFIG) as serving, websocket(serving.port, "/orders/7") as wire:
        async with http(failing_once(serving.port, failure)) as address:
            await soon(publish(module, int(address.rpartition(":")[2])))
        await serving.server.bus.publish("orders/7", "the next")
        assert [await wire.text(), await wire.text()] == ["hi", "the next"]


async def test_nobody_is_there(module: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody listens it is told: by the log, or to the background task."""
    if module.__name__ == "live":
        assert await publish(module, closed_port()) is None
        assert "/orders/7 was not published: ConnectError" in caplog.text
    else:
        with pytest.raises(httpx.ConnectError):
            await publish(module, closed_port())


async def test_refused(serve: Serve, module: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    """What is refused is not tried again, and the reason is told."""
    config = CONFIG.replace("history: 100", "allow: {publish: nobody}")
    async with serve(config) as serving:
        if module.__name__ == "live":
            assert await publish(module, serving.port) is None
            assert "who may publish here: nobody" in caplog.text
        else:
            with pytest.raises(httpx.HTTPStatusError, match="403"):
                await publish(module, serving.port)
        assert serving.server.connections.refused["403"] == 1
