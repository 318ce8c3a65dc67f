"""`realtime.connect()` in a program of somebody who has the wheel: what it sees when things break."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from acceptance.board import CONFIG, FILES
from acceptance.world import COUNT, GREETING, HOST, PATIENCE, Home, Process, own_address, started

SCHEMES = ["ws", "http"]
#: Leaving takes two seconds at most, and a moment; by a clock that stands still while the program is ready
#: to run and has no core: that time is a busy machine's.
LEAVING = 2.0 + 1.0

#: Prints each message as a line of JSON, and how it ends; a line that is typed is sent, `leave` leaves.
PROGRAM = """\
import asyncio
import json
import sys
import time

import realtime


def say(*what):
    print(json.dumps(what), flush=True)


def now():
    try:
        with open("/proc/thread-self/schedstat") as waited:
            return time.monotonic() - int(waited.read().split()[1]) / 1e9
    except OSError:
        return time.monotonic()


async def read(channel):
    try:
        async for message in channel:
            say(message.event, message.data)
        say("end", None)
    except realtime.RealtimeError as error:
        say(type(error).__name__, str(error), getattr(error, "code", None), error.comes_back)


async def main():
    soon = realtime.Backoff(first=0.2, most=0.5, restart=(0.1, 0.2), advised=0.1)
    async with realtime.connect(sys.argv[1], since="earliest", backoff=soon) as channel:
        say("connected", str(channel.position))
        reading = asyncio.create_task(read(channel))
        loop = asyncio.get_running_loop()
        while (line := await loop.run_in_executor(None, sys.stdin.readline)) not in ("", "leave\\n"):
            say("sent", str(await channel.send(line.rstrip("\\n"))))
        reading.cancel()
        began = now()
    say("left", now() - began)


asyncio.run(main())
"""


@asynccontextmanager
async def program(home: Home, url: str) -> AsyncIterator[Process]:
    """The program, connected to a channel."""
    home.write(CONFIG, {**FILES, "program.py": PROGRAM})
    async with started(home.python, "-W", "error", "program.py", url, cwd=home.directory) as process:
        await said(process, "connected")
        yield process


async def url(server: Process, scheme: str) -> str:
    """The board's URL on a server."""
    return f"{scheme}://{await server.ready()}/board"


async def said(process: Process, event: str, data: Any = None) -> list[Any]:
    """The first line that tells of this event, with this data if it is given."""

    def wanted(line: str) -> bool:
        one = json.loads(line)
        return one[0] == event and data in (None, one[1])

    found: list[Any] = json.loads(await process.line(wanted))
    return found


async def publish(home: Home, address: str, numbers: range) -> None:
    """Publish numbers on the board, each as a text."""
    ran = await home.ran("publish", f"http://{address}/board", typed="".join(f"{n}\n" for n in numbers))
    assert ran.code == 0, ran.errors


def heard(process: Process) -> list[tuple[str, Any]]:
    """The messages that the program has shown, in their order."""
    lines = [json.loads(line) for line in process.said]
    return [(one[0], one[1]) for one in lines if one[0] == "message" or one[0].startswith("realtime:")]


class Relay:
    """Something between a client and a server that can be cut, and put together again."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._writers: list[asyncio.StreamWriter] = []
        self._open = asyncio.Event()
        self._open.set()
        self.waiting = asyncio.Event()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes both ways, unless it is cut."""
        if not self._open.is_set():
            self.waiting.set()
        await self._open.wait()
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self._writers += [writer, far_writer]

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    target.write(data)
            target.close()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    def cut(self) -> None:
        """Cut every connection, and let the next ones wait."""
        self._open.clear()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def mend(self) -> None:
        """Let those that wait go on."""
        self._open.set()


@asynccontextmanager
async def relay(target: str) -> AsyncIterator[tuple[Relay, str]]:
    """A relay to a server, and where it listens."""
    made = Relay(target)
    server = await asyncio.start_server(made.carry, HOST, 0)
    try:
        yield made, f"{HOST}:{server.sockets[0].getsockname()[1]}"
    finally:
        made.mend()
        made.cut()
        server.close()


@pytest.fixture
def board(home: Home) -> Home:
    """A directory with a board that keeps what was said."""
    home.write(CONFIG, FILES)
    return home


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_what_it_sends(board: Home, scheme: str) -> None:
    """What a program sends is confirmed with a position, and comes back to it once."""
    async with board.serving() as address, program(board, f"{scheme}://{address}/board") as process:
        process.type(f"{GREETING}\n")
        assert (await said(process, "sent"))[1] != "None"
        await said(process, "message", GREETING)
        process.type("leave\n")
        assert await process.ended() == 0
        assert heard(process) == [("message", GREETING)]


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_cut(board: Home, scheme: str) -> None:
    """A connection that is cut comes back with what was said meanwhile: each once, in order."""
    async with (
        board.serving() as address,
        relay(address) as (between, near),
        program(board, f"{scheme}://{near}/board") as process,
    ):
        await publish(board, address, range(COUNT))
        await said(process, "message", f"{COUNT - 1}")
        between.cut()
        await publish(board, address, range(COUNT, 2 * COUNT))
        async with asyncio.timeout(PATIENCE):
            await between.waiting.wait()
        between.mend()
        await said(process, "message", f"{2 * COUNT - 1}")
        process.type("leave\n")
        assert await process.ended() == 0
        assert heard(process) == [("message", f"{n}") for n in range(2 * COUNT)]


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_gap(board: Home, scheme: str) -> None:
    """What is no longer kept when it comes back is one gap with its number, before the rest in order."""
    kept = 3
    async with contextlib.AsyncExitStack() as stack:
        board.write(CONFIG.replace("1000", f"{kept}") + "    lag_bytes: 1B\n")
        address = await stack.enter_async_context(board.serving())
        between, near = await stack.enter_async_context(relay(address))
        process = await stack.enter_async_context(program(board, f"{scheme}://{near}/board"))
        await publish(board, address, range(1))
        await said(process, "message", "0")
        between.cut()
        await publish(board, address, range(1, COUNT))
        async with asyncio.timeout(PATIENCE):
            await between.waiting.wait()
        between.mend()
        await said(process, "message", f"{COUNT - 1}")
        rest = [("message", f"{n}") for n in range(COUNT - kept, COUNT)]
        gap = ("realtime:gap", {"missed": COUNT - 1 - kept})
        assert heard(process) == [("message", "0"), gap, *rest]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
async def test_a_restart(board: Home, scheme: str, how: signal.Signals) -> None:
    """When another server is at the same port it says so once, and goes on with all that one has."""
    async with board.server(listen=(own_address(),)) as server:
        address = await server.ready()
        await publish(board, address, range(COUNT))
        async with program(board, f"{scheme}://{address}/board") as process:
            await said(process, "message", f"{COUNT - 1}")
            server.process.send_signal(how)
            await server.ended()
            async with board.server(listen=(address,)):
                await publish(board, address, range(COUNT, 2 * COUNT))
                await said(process, "message", f"{2 * COUNT - 1}")
                process.type("leave\n")
                assert await process.ended() == 0
    messages = [("message", f"{n}") for n in range(2 * COUNT)]
    [(at, marker)] = [(at, one) for at, one in enumerate(heard(process)) if one[0] != "message"]
    assert (at, marker[0]) == (COUNT, "realtime:reset")
    assert heard(process) == [*messages[:COUNT], marker, *messages[COUNT:]]


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_kill_in_the_midst(board: Home, scheme: str) -> None:
    """Killed while others publish, all is in order, once, with a hole only where a reset says so."""
    async with board.server(listen=(own_address(),)) as server:
        address = await server.ready()
        async with program(board, f"{scheme}://{address}/board") as process:
            numbers = "".join(f"{n}\n" for n in range(1, 200 * COUNT))
            async with board.realtime("publish", f"ws://{address}/board") as publisher:
                publisher.type(numbers)
                await said(process, "message", f"{COUNT}")
                await server.killed()
                await publisher.ended()
            async with board.server(listen=(address,)):
                await publish(board, address, range(200 * COUNT, 201 * COUNT))
                await said(process, "message", f"{201 * COUNT - 1}")
                process.type("leave\n")
                assert await process.ended() == 0
    shown = [int(data) if event == "message" else None for event, data in heard(process)]
    assert shown.count(None) == 1
    assert (shown[0], shown[-1]) == (1, 201 * COUNT - 1)
    for before, after in pairwise(shown):
        if before is not None and after is not None:
            assert after == before + 1
    assert shown[shown.index(None) + 1] == 200 * COUNT


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_what_is_sent_meanwhile(board: Home, scheme: str) -> None:
    """What is sent while there is no connection arrives once when it is back."""
    async with (
        board.serving() as address,
        relay(address) as (between, near),
        program(board, f"{scheme}://{near}/board") as process,
    ):
        between.cut()
        async with asyncio.timeout(PATIENCE):
            await between.waiting.wait()
        process.type(f"{GREETING}\n")
        await publish(board, address, range(1))
        between.mend()
        await said(process, "sent")
        await said(process, "message", GREETING)
        assert heard(process) == [("message", "0"), ("message", GREETING)]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("code", [1008, 4403])
async def test_a_close_for_good(board: Home, scheme: str, code: int) -> None:
    """A close after which coming back makes no sense raises, with the code and the server's reason."""
    async with board.serving() as address, program(board, f"{scheme}://{address}/board") as process:
        ran = await board.ran("publish", f"http://{address}/board", f"close {code} you know why")
        assert ran.code == 0, ran.errors
        _, text, given, comes_back = await said(process, "Closed")
        assert (given, comes_back) == (code, False)
        assert text.startswith(f"{code} ")
        assert text.endswith(": you know why")


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_close_that_is_none_for_good(board: Home, scheme: str) -> None:
    """A close after which coming back makes sense is not even shown: nothing is missed."""
    async with board.serving() as address, program(board, f"{scheme}://{address}/board") as process:
        for number, code in enumerate((1012, 1013, 4500)):
            await publish(board, address, range(number, number + 1))
            await said(process, "message", f"{number}")
            await board.ran("publish", f"http://{address}/board", f"close {code} come back")
        await publish(board, address, range(3, 4))
        await said(process, "message", "3")
        assert heard(process) == [("message", f"{n}") for n in range(4)]


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_close_that_is_done(board: Home, scheme: str) -> None:
    """A server that closes with 1000 ends the iteration, without an error."""
    async with board.serving() as address, program(board, f"{scheme}://{address}/board") as process:
        await board.ran("publish", f"http://{address}/board", "close 1000 done")
        await said(process, "end")


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_leaving(board: Home, scheme: str) -> None:
    """Leaving the context is quick, and the server sees that the client has gone."""
    async with board.server() as server:
        async with program(board, f"{scheme}://{await server.ready()}/board") as process:
            process.type("leave\n")
            assert (await said(process, "left"))[1] < LEAVING
            assert await process.ended() == 0
        line = await server.line(lambda line: " left after " in line)
        assert scheme != "ws" or line.endswith("s: 1000")


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_leaving_a_server_that_hangs(board: Home, scheme: str) -> None:
    """Leaving is as quick when the server does nothing any more."""
    async with board.server() as server, program(board, await url(server, scheme)) as process:
        server.process.send_signal(signal.SIGSTOP)
        process.type("leave\n")
        assert (await said(process, "left"))[1] < LEAVING
        assert await process.ended() == 0
        server.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_leaving_while_it_is_away(board: Home, scheme: str) -> None:
    """Leaving is as quick when the server has gone and it is waiting to come back."""
    async with (
        board.server(listen=(own_address(),)) as server,
        program(board, await url(server, scheme)) as process,
    ):
        await server.killed()
        process.type("leave\n")
        assert (await said(process, "left"))[1] < LEAVING
        assert await process.ended() == 0


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_server_that_is_not_there(board: Home, scheme: str) -> None:
    """A server that was never there raises at once, in words, and is not waited for."""
    board.write(CONFIG, {"program.py": PROGRAM})
    async with board.server(listen=(own_address(),)) as server:
        address = await server.ready()
    where = f"{scheme}://{address}/board"
    async with started(board.python, "program.py", where, cwd=board.directory) as process:
        assert await process.ended() == 1
    assert f"NotConnected: {where}: cannot connect: connection refused" in process.text
