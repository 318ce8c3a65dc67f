"""What is written down of what clients say."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from realtime import ConfigError
from realtime.testing import Serve


def config(file: Path, topics: str = "") -> str:
    """A server with two channels, and their audit."""
    return f"""
plugins:
  - {{plugin: audit, file: {file}{topics}}}
channels:
  lobby: {{plugin: topics, path: /lobby}}
  rooms: {{plugin: topics, path: "/rooms/{{room}}"}}
"""


def written(file: Path) -> list[dict[str, Any]]:
    """What is in the file."""
    return [json.loads(line) for line in file.read_text().splitlines()]


async def test_what_is_said_is_written_down(serve: Serve, tmp_path: Path) -> None:
    """Each message is a line: where, as what, when, and as what kind of data."""
    file = tmp_path / "audit.jsonl"
    async with serve(config(file)) as server:
        ids = [
            (await server.post("/lobby", "ünïcode\nhi", event="note")).json["id"],
            (await server.post("/rooms/new", {"a": [1, None]})).json["id"],
            (await server.post("/lobby", b"\xff")).json["id"],
        ]
    lines = written(file)
    assert all(line.pop("time") > 1.7e9 for line in lines)
    assert lines == [
        {"topic": "lobby", "id": ids[0], "event": "note", "data": "ünïcode\nhi"},
        {"topic": "rooms/new", "id": ids[1], "event": "message", "data": {"a": [1, None]}},
        {"topic": "lobby", "id": ids[2], "event": "message", "data": "/w==", "encoding": "base64"},
    ]


async def test_only_what_is_wanted(serve: Serve, tmp_path: Path) -> None:
    """With ``topics`` only these are written down."""
    file = tmp_path / "audit.jsonl"
    async with serve(config(file, ", topics: [rooms/*]")) as server:
        await server.post("/lobby", "one")
        await server.post("/rooms/a", "two")
    assert [line["data"] for line in written(file)] == ["two"]


async def test_nothing_is_lost_at_the_end(serve: Serve, tmp_path: Path) -> None:
    """What was published right before the shutdown is there, in its order."""
    file = tmp_path / "audit.jsonl"
    async with serve(config(file)) as server:
        for number in range(500):
            await server.bus.publish("rooms/a", number)
    assert [line["data"] for line in written(file)] == list(range(500))


async def test_file_goes_on(serve: Serve, tmp_path: Path) -> None:
    """A server that starts again adds to the file."""
    file = tmp_path / "audit.jsonl"
    for word in ("one", "two"):
        async with serve(config(file)) as server:
            await server.post("/lobby", word)
    assert [line["data"] for line in written(file)] == ["one", "two"]


async def test_what_was_missed_is_written_down(serve: Serve, tmp_path: Path) -> None:
    """Where more is said at once than may be kept, the audit says how much it missed."""
    file = tmp_path / "audit.jsonl"
    async with serve(f"server: {{limits: {{memory: 100KiB}}}}{config(file)}") as server:
        for _ in range(20):
            await server.bus.publish("lobby", "x" * 10_000)
        await server.bus.publish("lobby", "after")
    first, *lines = written(file)
    assert first["event"] == "realtime:gap"
    assert lines[-1]["data"] == "after"
    assert first["data"]["missed"] + len(lines) == 21


async def test_disk_that_fails_is_no_secret(serve: Serve, tmp_path: Path) -> None:
    """When the file cannot be written the server goes on, and its readiness says why it is red."""
    async with serve(config(Path("/dev/full"))) as server:
        with server.expect_error("No space left on device"):
            await server.post("/lobby", "x")
            async with asyncio.timeout(5):
                while (ready := await server.request("GET", "/-/ready")).status == 200:
                    pass
        assert "audit" in ready.text
        assert (await server.post("/lobby", "x")).status == 202


@pytest.mark.parametrize(
    ("file", "topics", "says"),
    [
        ("/nowhere/audit.jsonl", "", "No such file or directory"),
        ("audit.jsonl", ", topics: [loby]", "did you mean 'lobby'"),
        ("audit.jsonl", ", topics: []", r"plugins\[0\]\.topics"),
    ],
)
async def test_mistake_in_the_config(
    serve: Serve, tmp_path: Path, file: str, topics: str, says: str
) -> None:
    """What cannot be written, and topics that cannot be, stop the start and are told."""
    with pytest.raises(ConfigError, match=says):
        async with serve(config(tmp_path / file, topics)):
            pass
