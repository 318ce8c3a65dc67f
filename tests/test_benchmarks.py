"""The benchmarks: that they run, and that their load client sees what a server does wrong."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import needs
import pytest
from command import ENVIRONMENT, run
from servers import websocket
from tree import ROOT
from websockets.asyncio.server import ServerConnection, broadcast

BENCHMARKS = ROOT / "benchmarks"


def bench(
    *arguments: str | Path, script: str = "run.py", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``python benchmarks/run.py ARGUMENTS``, or another script beside it."""
    return subprocess.run(
        [sys.executable, BENCHMARKS / script, *arguments],
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the load client."""
    directory = tmp_path_factory.mktemp("bench")
    gcc = needs.need("gcc", "apt-get install build-essential")
    subprocess.run(
        [gcc, "-O1", "-o", directory / "rtload", BENCHMARKS / "rtload.c"], check=True, timeout=60
    )
    return directory


def port(url: str) -> str:
    """The port in the URL of a server."""
    return url.rpartition(":")[2].strip("/")


async def load(work: Path, url: str, *options: str, mode: str = "echo") -> tuple[int, str, str]:
    """How the load client ends, what it says, and what it complains about."""
    process = await asyncio.create_subprocess_exec(
        work / "rtload",
        *(mode, "127.0.0.1", port(url), "/ws", f"pid={os.getpid()}", *options, "conns=1"),
        *("cpu=0.05", "secs=20"),  # so much work, however long this process has to wait for a core
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, errors = await process.communicate()
    return process.returncode or 0, out.decode(), errors.decode()


# The command


@pytest.mark.parametrize("config", ["config.yaml", "across.yaml"])
def test_config_is_right(config: str) -> None:
    """The config that is measured is one that the server takes."""
    checked = run(ROOT, "check", "-c", str(BENCHMARKS / config))
    assert checked.returncode == 0, checked.stderr


def test_help() -> None:
    """The help shows examples, every workload and every peer."""
    told = bench("--help")
    assert told.returncode == 0
    for part in ("python benchmarks/run.py --quick", "  busy  ", "  crowd  ", "floor, direct, axum, "):
        assert part in told.stdout


def test_help_across() -> None:
    """What measures across processes shows examples, its workloads, and whom it compares with."""
    told = bench("--help", script="across.py")
    assert told.returncode == 0
    for part in ("python benchmarks/across.py --quick", "{room,few}", "{one,memory,socketio,"):
        assert part in told.stdout


def test_across_needs_redis(tmp_path: Path) -> None:
    """Without a redis-server what measures across processes says how to get one."""
    told = bench("--work", tmp_path, "--out", tmp_path, script="across.py", PATH=str(tmp_path))
    assert told.returncode == 1
    assert told.stderr == "across.py: it needs redis-server: apt-get install redis-server\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--peer", "zebra"], "invalid choice: 'zebra'"), (["--env", "zebra"], "NAME=VALUE, not zebra")],
)
def test_usage(arguments: list[str], said: str) -> None:
    """What is typed wrong is exit code 2 and says what."""
    told = bench(*arguments)
    assert told.returncode == 2
    assert said in told.stderr


@pytest.mark.skipif(
    sys.platform != "linux" or (os.cpu_count() or 1) < 2, reason="it needs Linux and two cores"
)
def test_table(work: Path, tmp_path: Path) -> None:
    """A run measures Realtime beside the floor, prints a table, and writes the same for programs."""
    where = ("--work", work, "--out", tmp_path)
    told = bench("--quick", "--workload", "echo", "--peer", "floor", "--no-plots", *where)
    assert told.returncode == 0, told.stderr
    rows = [line.split("|")[1].strip() for line in told.stdout.splitlines() if line.startswith("| ")]
    assert rows == ["", "Realtime", "C floor"]
    echo = json.loads((tmp_path / "results.json").read_text())["workloads"]["echo"]
    assert echo["pairs"] == [["floor", 0, 0]]
    assert {name: len(runs) for name, runs in echo["servers"].items()} == {"realtime": 1, "floor": 1}
    assert all(runs[0]["during"]["per_cpu_s"] > 0 for runs in echo["servers"].values())


def test_readme_has_a_place_for_the_table() -> None:
    """The README has the two comments between which each table is put."""
    text = (BENCHMARKS / "README.md").read_text()
    for place in ("the last table", "the table across processes"):
        assert 0 < text.find(f"<!-- {place} -->") < text.find(f"<!-- the end of {place} -->")


@pytest.mark.skipif(
    sys.platform != "linux" or (os.cpu_count() or 1) < 2, reason="it needs Linux and two cores"
)
def test_table_across(work: Path, tmp_path: Path) -> None:
    """Two processes that Redis joins are measured beside one with its memory."""
    needs.redis()
    options = ("--quick", "--workload", "few", "--with", "memory", "--work", work, "--out", tmp_path)
    told = bench(*options, script="across.py")
    assert told.returncode == 0, told.stderr
    few = json.loads((tmp_path / "across.json").read_text())["workloads"]["few"]
    assert few["pairs"] == [["memory", 0, 0]]
    (joined,), (alone,) = few["servers"]["realtime"], few["servers"]["memory"]
    assert joined["steady"]["other_p50_ms"] > 0
    assert joined["during"]["redis"] > 0 == alone["during"]["redis"]


# The load client


async def test_counts_what_comes_back(work: Path) -> None:
    """What comes back is counted, and a ping in between is answered."""

    async def handle(client: ServerConnection) -> None:
        async for text in client:
            await (await client.ping())
            await client.send(f"Echo: {text!s}")

    async with websocket(handle) as url:
        code, out, errors = await load(work, url)
    assert (code, errors) == (0, "")
    during = json.loads(out)["during"]
    assert during["deliveries"] > 0
    assert 0 < during["p50_ms"] <= during["p99_ms"] <= during["max_ms"]


async def test_loss_is_told(work: Path) -> None:
    """A text that does not come back is an error that says which."""

    async def handle(client: ServerConnection) -> None:
        for number in range(3):
            text = await client.recv()
            if number < 2:
                await client.send(text)
        await client.wait_closed()

    async with websocket(handle) as url:
        code, _, errors = await load(work, url, "patience=3.0")
    assert code == 1
    assert "nothing has come for 3 s, and text 2 has reached 0 of 1 clients" in errors


async def test_double_is_told(work: Path) -> None:
    """A text that comes twice is an error that says which."""

    async def handle(client: ServerConnection) -> None:
        async for text in client:
            await client.send(text)
            await client.send(text)

    async with websocket(handle) as url:
        code, _, errors = await load(work, url)
    assert code == 1
    assert "text 0 came to client 0 once too often" in errors


async def test_close_is_told(work: Path) -> None:
    """A connection that the server closes is an error with the code and the reason."""

    async def handle(client: ServerConnection) -> None:
        await client.close(1013, "too slow")

    async with websocket(handle) as url:
        code, _, errors = await load(work, url)
    assert code == 1
    assert "the server closed client 0: 1013 too slow" in errors


# Across processes


def room() -> Callable[[ServerConnection], Awaitable[None]]:
    """A room: who comes in hears what anybody says."""
    clients: set[ServerConnection] = set()

    async def handle(client: ServerConnection) -> None:
        clients.add(client)
        async for text in client:
            broadcast(clients, text)

    return handle


#: What comes at a rate is measured for a time, in which this process may have to wait for a core.
ACROSS = ("conns=4", "talkers=2", "rate=1000", "window=4", "secs=1.0")


async def test_counts_at_both(work: Path) -> None:
    """What is published at one server is counted at it and at the other, and timed for each."""
    handle = room()
    async with websocket(handle) as here, websocket(handle) as there:
        code, out, errors = await load(work, here, *ACROSS, f"second={port(there)}", mode="across")
    assert (code, errors) == (0, "")
    for phase in (json.loads(out)[name] for name in ("steady", "during")):
        assert phase["deliveries"] > 0
        assert 0 < phase["p50_ms"] <= phase["p99_ms"]
        assert 0 < phase["other_p50_ms"] <= phase["other_p99_ms"]


async def test_loss_at_the_other_is_told(work: Path) -> None:
    """A text that does not come to the clients of the other server is an error that says how far it got."""
    async with websocket(room()) as here, websocket(room()) as there:
        options = (*ACROSS, f"second={port(there)}", "patience=3.0")
        code, _, errors = await load(work, here, *options, mode="across")
    assert code == 1
    assert "has reached 2 of 4 clients" in errors


async def test_speaks_socketio(work: Path) -> None:
    """A client of Socket.IO connects, answers pings, and says and hears events."""
    clients, pongs = set(), 0

    async def handle(client: ServerConnection) -> None:
        nonlocal pongs
        await client.send('0{"sid":"a"}')
        assert await client.recv() == "40"
        clients.add(client)
        await client.send('40{"sid":"c"}')
        await client.send("2")
        async for text in client:
            if text == "3":
                pongs += 1
            else:
                assert isinstance(text, str)
                assert text.startswith('42["m","@')
                broadcast(clients, text)

    async with websocket(handle) as url:
        options = (*ACROSS, f"second={port(url)}", "socketio=1")
        code, out, errors = await load(work, url, *options, mode="across")
    assert (code, errors, pongs) == (0, "", 4)
    assert json.loads(out)["during"]["deliveries"] > 0
