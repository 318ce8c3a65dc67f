"""A command as a person runs it: in a process of its own, in a directory of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tree import PACKAGE

ROOT = PACKAGE.parent
#: As at a terminal: under a CI service pytest says more, and what a person reads is what is tested.
PLAIN = {key: value for key, value in os.environ.items() if key not in ("CI", "BUILD_NUMBER")}
ENVIRONMENT = {**PLAIN, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
#: How long anything may take, in seconds: far more than it does, on a busy machine too.
PATIENCE = 60.0


def run(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m realtime ARGUMENTS``, which ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "realtime", *arguments],
        cwd=directory,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


class Running:
    """A server that runs, and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""

    async def until(self, words: str) -> str:
        """Read standard error until a line has these words; returns that line."""
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            while line := (await self.process.stderr.readline()).decode():
                self.said += line
                if words in line:
                    return line
        raise AssertionError(f"it never said {words!r} but:\n{self.said}")

    async def ready(self) -> str:
        """Wait until it is ready; returns the address."""
        return (await self.until("ready on ")).split("ready on ")[1].strip()

    async def end(self, number: int | None = None) -> int:
        """Send a signal, wait for the end; returns the exit code."""
        assert self.process.stderr is not None
        if number is not None:
            self.process.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            self.said += (await self.process.stderr.read()).decode()
            return await self.process.wait()


@asynccontextmanager
async def running(
    directory: Path,
    *arguments: str,
    through: Sequence[str] = (),
    stdin: Any = None,
    **environment: str,
) -> AsyncIterator[Running]:
    """``python -m realtime ARGUMENTS``, which is killed at the end if it still runs.

    ``through``: a command that is given this one to run, such as ``prlimit --nofile=64``.
    """
    process = await asyncio.create_subprocess_exec(
        *(*through, sys.executable, "-m", "realtime", *arguments),
        cwd=directory,
        env={**ENVIRONMENT, **environment},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
