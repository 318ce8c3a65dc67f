"""The world outside: what a person has who has the wheel, a terminal and a network.

Nothing here imports the package. What a reviewer may want to vary is a constant below, taken from
the environment when it is set there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from servers import closed_port

#: A wheel to test; without it one is built from a fresh copy of the checkout.
WHEEL = os.environ.get("REALTIME_WHEEL", "")
#: The python of an environment that has the wheel; without it a fresh one is made.
PYTHON = os.environ.get("REALTIME_PYTHON", "")
#: Where servers listen; port 0 is any that is free.
HOST = os.environ.get("REALTIME_HOST", "127.0.0.1")
PORT = int(os.environ.get("REALTIME_PORT", "0"))
#: Three who talk, and one who stops reading.
NAMES = os.environ.get("REALTIME_NAMES", "alice,bob,carol").split(",")
STALLED = os.environ.get("REALTIME_STALLED", "mallory")
#: How many messages each of the three says, and the size of those said to the one who stops reading.
#: Together these must be more than the server keeps for a slow reader and the kernel for a socket.
MESSAGES = int(os.environ.get("REALTIME_MESSAGES", "150"))
SIZE = int(os.environ.get("REALTIME_SIZE", "60000"))
#: What a `websockets` client sends to the echo.
GREETING = os.environ.get("REALTIME_GREETING", "Hello, Server!")
#: What is to be seen in no log: a token, and what opens the key of a certificate.
TOKEN = os.environ.get("REALTIME_TOKEN", "t0ken-of-somebody")
PASSWORD = os.environ.get("REALTIME_PASSWORD", "open-sesame-0451")
#: Addresses of which a proxy tells: a client's, and one that a client has made up.
REMOTE = os.environ.get("REALTIME_REMOTE", "203.0.113.7")
FORGED = os.environ.get("REALTIME_FORGED", "198.51.100.66")
#: Another address of this machine than the one where servers listen.
OTHER_HOST = os.environ.get("REALTIME_OTHER_HOST", "127.0.0.2")
#: How the server is reached from outside, as it is told; and a page of somebody else.
SITE = os.environ.get("REALTIME_SITE", "https://rt.example")
FOREIGN = os.environ.get("REALTIME_FOREIGN", "https://evil.example")
#: How many messages are published around an interruption.
COUNT = int(os.environ.get("REALTIME_COUNT", "20"))
#: How often connections are cut at random, and what the dice begin with.
CUTS = int(os.environ.get("REALTIME_CUTS", "1000"))
SEED = int(os.environ.get("REALTIME_SEED", "1"))
#: How many worlds of two servers and one Redis are tormented, the first of them that of the seed above;
#: for how long each, in seconds; and how long a publish may take to be answered then.
SEEDS = int(os.environ.get("REALTIME_SEEDS", "10"))
TORMENT = float(os.environ.get("REALTIME_TORMENT", "5"))
ANSWERED = float(os.environ.get("REALTIME_ANSWERED", "2.5"))
#: How many clients are there of whom the memory is measured.
CLIENTS = int(os.environ.get("REALTIME_CLIENTS", "400"))
#: How many never read, how many do, and how long a shutdown may take then, in seconds.
NEVER_READ = int(os.environ.get("REALTIME_NEVER_READ", "500"))
READERS = int(os.environ.get("REALTIME_READERS", "1200"))
DRAIN = float(os.environ.get("REALTIME_DRAIN", "10"))
#: Who is there while one process after the other is started again: how many read in each way, and publish.
PER_WAY = int(os.environ.get("REALTIME_PER_WAY", "5"))
PUBLISHERS = int(os.environ.get("REALTIME_PUBLISHERS", "4"))
#: Under which path it stands in somebody's application.
PREFIX = os.environ.get("REALTIME_PREFIX", "/rt")
#: The name of a plugin that does not come with the server.
PLUGIN = os.environ.get("REALTIME_PLUGIN", "dice")
#: The file of that plugin.
MODULE = PLUGIN.replace("-", "_")
#: The name of one whose package is written for its author.
NEW_PLUGIN = os.environ.get("REALTIME_NEW_PLUGIN", "live-poll")

#: How long an answer may take, in seconds: far more than it does, on a busy machine too.
PATIENCE = float(os.environ.get("REALTIME_PATIENCE", "30"))
#: How long building, installing and starting may take, in seconds.
INSTALLING = 300.0


def own_address() -> str:
    """Where a server can be started again when it has ended: nobody else is given that port meanwhile."""
    return f"{HOST}:{PORT or closed_port()}"


def environment(path: Sequence[Path] = ()) -> dict[str, str]:
    """The environment of a command: this one, with nothing that leads to the checkout."""
    dropped = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONWARNINGS")
    env = {key: value for key, value in os.environ.items() if key not in dropped}
    if path:
        env["PYTHONPATH"] = os.pathsep.join(map(str, path))
    return env


class Process:
    """A process and the lines that it says: on standard output, and on standard error too if together."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[str] = []
        self._more = asyncio.Condition()
        #: What it has said on standard error, if that is apart.
        self.errors = ""
        self._over = False
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.said.append(line.decode().rstrip("\n"))
            async with self._more:
                self._more.notify_all()
        self._over = True
        async with self._more:
            self._more.notify_all()

    async def lines(self) -> AsyncGenerator[str, None]:
        """The lines from the first on, each as soon as it is there."""
        told = 0
        while True:
            async with self._more:
                while told == len(self.said) and not self._over:
                    await self._more.wait()
            if told == len(self.said):
                return
            yield self.said[told]
            told += 1

    @property
    def text(self) -> str:
        """All that it has said."""
        return "\n".join(self.said)

    def type(self, text: str) -> None:
        """Type something into it."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())

    async def line(self, wanted: Callable[[str], object], within: float = PATIENCE) -> str:
        """The first line that is wanted, as soon as it is there."""
        try:
            async with asyncio.timeout(within), aclosing(self.lines()) as lines:
                async for line in lines:
                    if wanted(line):
                        return line
        except TimeoutError:
            raise AssertionError(f"not said within {within:g}s:\n{self.text}") from None
        raise AssertionError(f"it ended without saying it:\n{self.text}")

    async def ready(self, within: float = PATIENCE) -> str:
        """Where it listens first, once it says that it is ready."""
        return (await self.addresses(within))[0]

    async def addresses(self, within: float = PATIENCE) -> list[str]:
        """Everywhere it listens, once it says that it is ready."""
        said = re.search('ready on ([^"]+)', await self.line(lambda line: "ready on " in line, within))
        assert said
        return said[1].split(", ")

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    async def killed(self) -> None:
        """Kill it, and wait until it is gone."""
        self.process.kill()
        await self.ended()

    async def ended(self, within: float = PATIENCE) -> int:
        """The exit code, once it has ended and everything it said is read."""
        async with asyncio.timeout(within):
            if self.process.stderr is not None:
                self.errors += (await self.process.stderr.read()).decode()
            code = await self.process.wait()
            await self._reading
        return code


@asynccontextmanager
async def started(
    *command: str | Path,
    cwd: Path,
    path: Sequence[Path] = (),
    group: bool = False,
    together: bool = True,
) -> AsyncIterator[Process]:
    """A process, killed at the end if it is still there; ``group``: with all that it has started.

    ``together``: standard error is read as if it were standard output.
    """
    process = Process(
        await asyncio.create_subprocess_exec(
            *map(str, command),
            cwd=cwd,
            env=environment(path),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT if together else asyncio.subprocess.PIPE,
            start_new_session=group,
        )
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            if group:
                os.killpg(process.process.pid, 9)
            elif process.process.returncode is None:
                process.process.kill()
        await process.ended()


class Ran(NamedTuple):
    """What a command has said when it had ended."""

    code: int
    said: list[str]
    errors: str


class Home:
    """A directory with a config, and the environment with the wheel to run it in."""

    def __init__(self, python: Path, directory: Path) -> None:
        self.python = python
        self.directory = directory

    def write(self, config: str, files: Mapping[str, str] | None = None) -> None:
        """Write ``config.yaml``, and other files beside it."""
        for name, text in {"config.yaml": config, **(files or {})}.items():
            (self.directory / name).parent.mkdir(parents=True, exist_ok=True)
            (self.directory / name).write_text(text)

    @asynccontextmanager
    async def realtime(
        self, *arguments: str, path: Sequence[Path] = (), together: bool = True
    ) -> AsyncIterator[Process]:
        """``python -m realtime ARGUMENTS`` in this directory."""
        command: list[str | Path] = [self.python, "-m", "realtime", *arguments]
        async with started(*command, cwd=self.directory, path=path, together=together) as process:
            yield process

    async def ran(self, *arguments: str, typed: str = "") -> Ran:
        """The same until it has ended, with what is typed and then the end of it."""
        async with self.realtime(*arguments, together=False) as process:
            assert process.process.stdin is not None
            process.type(typed)
            process.process.stdin.close()
            return Ran(await process.ended(), process.said, process.errors)

    @asynccontextmanager
    async def server(
        self, *arguments: str, listen: Sequence[str] = (f"{HOST}:{PORT}",), path: Sequence[Path] = ()
    ) -> AsyncIterator[Process]:
        """A server that is ready, and is ended in order unless it is killed before.

        ``listen``: where; nowhere but as the config says if it is empty.
        """
        listening = [word for address in listen for word in ("--listen", address)]
        async with self.realtime("serve", *listening, *arguments, path=path) as process:
            await process.ready()
            yield process
            if process.process.returncode is None:
                process.process.terminate()
            code = await process.ended(INSTALLING)
            assert code in (0, -signal.SIGKILL), process.text
            assert "Traceback" not in process.text, process.text

    @asynccontextmanager
    async def serving(self, *, path: Sequence[Path] = ()) -> AsyncIterator[str]:
        """A server that is ready; gives ``HOST:PORT``, and ends it in order."""
        async with self.server(path=path) as process:
            yield await process.ready()
