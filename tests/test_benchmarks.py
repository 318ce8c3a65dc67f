"""The benchmarks: that they run, and that their load client sees what a server does wrong."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import needs
import pytest
from command import ENVIRONMENT, run
from servers import websocket
from tree import ROOT
from websockets.asyncio.server import ServerConnection

BENCHMARKS = ROOT / "benchmarks"


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run ``python benchmarks/run.py ARGUMENTS``."""
    return subprocess.run(
        [sys.executable, BENCHMARKS / "run.py", *arguments],
        env=ENVIRONMENT,
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


async def load(work: Path, url: str, *options: str) -> tuple[int, str, str]:
    """How the load client ends, what it says, and what it complains about."""
    port = url.rpartition(":")[2].strip("/")
    process = await asyncio.create_subprocess_exec(
        work / "rtload",
        *("echo", "127.0.0.1", port, "/ws", f"pid={os.getpid()}", "conns=1", "secs=0.1", *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, errors = await process.communicate()
    return process.returncode or 0, out.decode(), errors.decode()


# The command


def test_config_is_right() -> None:
    """The config that is measured is one that the server takes."""
    checked = run(ROOT, "check", "-c", str(BENCHMARKS / "config.yaml"))
    assert checked.returncode == 0, checked.stderr


def test_help() -> None:
    """The help shows examples, every workload and every peer."""
    told = bench("--help")
    assert told.returncode == 0
    for part in ("python benchmarks/run.py --quick", "  busy  ", "  crowd  ", "floor, direct, axum, "):
        assert part in told.stdout


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
    """The README has the two comments between which the table is put."""
    text = (BENCHMARKS / "README.md").read_text()
    assert 0 < text.find("<!-- the last table -->") < text.find("<!-- the end of the last table -->")


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
        code, _, errors = await load(work, url, "patience=0.05")
    assert code == 1
    assert "nothing has come for 0.05 s, and text 2 has reached 0 of 1 clients" in errors


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
