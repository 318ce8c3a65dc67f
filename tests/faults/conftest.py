"""What holds after every fault: the server lives, others notice nothing, and all is as before."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import textwrap
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import wire
from conftest import Serve, Serving
from timing import within
from websockets.asyncio.client import connect

#: How long until everything is as it was, in seconds.
BACK = 10.0

Calm = Callable[..., AbstractAsyncContextManager[Serving]]


@pytest.fixture
def calm(serve: Serve, caplog: pytest.LogCaptureFixture) -> Calm:
    """``async with calm(config, {"dice.py": source}) as serving: ...``, a server that must stay calm.

    ``config`` has the channels, indented as under ``channels:``, or a whole config. A bystander holds a
    WebSocket to an echo of its own throughout. At the end ``/-/live`` answers within a second, the
    bystander is answered, the log has no error and no traceback (but of loggers in ``noisy``), and
    tasks and descriptors are back at their number within ten seconds.
    """

    @asynccontextmanager
    async def start(
        config: str, files: Mapping[str, str] | None = None, *, noisy: Collection[str] = ()
    ) -> AsyncIterator[Serving]:
        config = textwrap.dedent(config)
        if "channels:" not in config:
            config = f"channels:\n{textwrap.indent(config, '  ')}"
        head, _, channels = config.partition("channels:\n")
        config = f"{head}channels:\n  bystander: {{plugin: echo, path: /bystander}}\n{channels}"
        async with AsyncExitStack() as stack:
            serving = await stack.enter_async_context(serve(config, files))
            # Its library answers pings, however long the test takes.
            where: dict[str, Any] = {"host": "127.0.0.1", "port": serving.port}
            bystander = await stack.enter_async_context(
                connect("ws://localhost/bystander", ping_interval=None, **where)
            )
            gc.collect()
            tasks, descriptors = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))
            yield serving
            async with within(1.0):
                assert (await wire.ask(serving.port, "/-/live"))[0].status == 200
            await bystander.send("still here?")
            assert await wire.soon(bystander.recv()) == "Echo: still here?"
            async with asyncio.timeout(BACK):
                while (  # noqa: ASYNC110  # there is no event for it
                    len(asyncio.all_tasks()) > tasks or len(os.listdir("/proc/self/fd")) > descriptors
                ):
                    await asyncio.sleep(0)
            loud = [
                record.getMessage()
                for record in caplog.records
                if (record.levelno >= logging.ERROR or record.exc_info) and record.name not in noisy
            ]
            assert loud == []

    return start
