"""The server in Python's development mode, where every warning is an error, with all that clients do."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import wire
from command import ENVIRONMENT
from timing import stopwatch
from wire import EVENTS, LINES, UPGRADE, Headers, request, soon, text

from faults.mutations import CONFIG, SEED, batch

#: How long a callback may hold the loop, in seconds: it is told from a tenth on, but the machine is shared,
#: and what it did not give the server all together is added.
HELD = 1.0
COMPLAINS = re.compile(r"Warning|Traceback|Exception ignored|never (awaited|retrieved)|\bERROR\b|unclosed")
V1 = [("Sec-WebSocket-Protocol", "realtime.v1.json")]
SOCKETS: list[tuple[str, Headers]] = [
    ("/ws", []),
    ("/z", []),
    ("/chat", []),
    ("/rooms/a?name=x", V1),
    ("/topics/a", V1),
]


def complaints(said: str, held: float = HELD) -> list[str]:
    """The lines in which Python, asyncio or the server complain."""
    return [
        line
        for line in said.splitlines()
        if re.search(
            r"Warning|Traceback|Exception ignored|never (awaited|retrieved)|\bERROR\b|unclosed", line
        )
        or ((took := re.search(r"Executing .* took ([0-9.]+) seconds", line)) and float(took[1]) > held)
    ]


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_nothing_to_complain_about(tmp_path: Path, loop: str) -> None:
    """Every transport, every end and a shutdown with everybody there bring no warning and no traceback."""
    channels = CONFIG.replace("\n", "\n  ").replace("1h", "20ms")
    head = f"server: {{listen: ['127.0.0.1:0'], loop: {loop}, drain: 1s}}\nchannels:"
    (tmp_path / "config.yaml").write_text(head + channels)
    with (tmp_path / "said").open("w") as said:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "dev", "-W", "error", "-m", "realtime"),
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
    with stopwatch(process.pid) as watch:
        try:
            found: list[str] = []
            async with asyncio.timeout(40):  # this mode is slow to begin
                while not found and process.returncode is None:
                    await asyncio.sleep(0)
                    found = re.findall(
                        r"^ready on .*:(\d+)$", (tmp_path / "said").read_text(), re.MULTILINE
                    )
            port = int(found[0])
            await batch(port, f"{SEED} warnings", range(150))
            async with AsyncExitStack() as there:
                for path, headers in (
                    ("/ws", []),
                    ("/z", []),
                    ("/rooms/a?name=x", V1),
                    ("/chat", []),
                    ("/topics/a", V1),
                ):
                    client = await there.enter_async_context(wire.websocket(port, path, headers=headers))
                    await client.send(text("hello") * 20)
                for kind in (EVENTS, LINES):
                    for path in ("/events", "/chat", "/topics/a"):
                        await there.enter_async_context(wire.dial(port, request(path, kind)))
                await there.enter_async_context(wire.dial(port, request("/events", EVENTS, http="1.0")))
                await there.enter_async_context(wire.dial(port, wire.posting("/ws", b"half")[:-2]))
                await there.enter_async_context(wire.dial(port, b"GET /chat HT"))
                never_reads = await there.enter_async_context(
                    wire.dial(port, request("/ws", UPGRADE), receive_buffer=4096)
                )
                await wire.flood(never_reads, text("x" * 60_000))
                process.send_signal(signal.SIGTERM)
                assert await soon(process.wait()) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert complaints((tmp_path / "said").read_text(), HELD + watch.withheld) == []
