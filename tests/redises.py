"""A Redis of a test's own: a real ``redis-server`` on a free port, to be stopped, paused and lied to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import needs
from servers import closed_port

#: How long it may take to begin, in seconds: far more than it does, on a busy machine too.
PATIENCE = 20.0


class RedisServer:
    """One ``redis-server``, which keeps its port when it is started again."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.port = closed_port()
        self.options = options
        self.process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where it is, as a config says it."""
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self, *options: str) -> None:
        """Start it, with more options; returns when it answers."""
        command: list[str | Path] = [needs.redis(), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", self.directory]
        command += ["--save", "", "--appendonly", "no", "--loglevel", "warning", *self.options, *options]
        with (self.directory / "redis.log").open("ab") as said:
            self.process = await asyncio.create_subprocess_exec(*command, stdout=said, stderr=said)
        async with asyncio.timeout(PATIENCE):
            while True:
                assert self.process.returncode is None, (self.directory / "redis.log").read_text()
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    try:
                        writer.write(b"PING\r\n")
                        answer = await reader.readline()
                    finally:
                        writer.close()
                        await writer.wait_closed()
                    if answer and not answer.startswith(b"-LOADING"):
                        return
                await asyncio.sleep(0)

    async def stop(self, number: int = signal.SIGTERM) -> None:
        """End it, orderly or (``SIGKILL``) not; nothing if it is not there."""
        process, self.process = self.process, None
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
            await process.wait()

    async def kill(self) -> None:
        """End it in the middle of what it does."""
        await self.stop(signal.SIGKILL)

    def pause(self) -> None:
        """Have it answer nothing, while its connections stay."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    async def command(self, *words: str | bytes) -> str:
        """What ``redis-cli`` prints of a command."""
        command = [needs.redis_cli(), "-p", str(self.port), *words]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        return said.decode(errors="replace").rstrip("\n")


@asynccontextmanager
async def redis_server(directory: Path, *options: str) -> AsyncIterator[RedisServer]:
    """A Redis that runs, with what its command line may say: ``"--maxmemory", "1mb"``."""
    server = RedisServer(directory, *options)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
