"""``plugins test``: what comes with the server passes, and each mistake is caught by its check."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from command import ENVIRONMENT, run

from realtime import conformance, trial, verdicts
from realtime.transports import connection

HEAD = """\
import asyncio
import json
import threading
import time
from contextlib import asynccontextmanager

from realtime import Channel, Disconnected, Rejected, hookimpl

NAMES = []


class Bad(Channel):
    transports = ("websocket", "sse", "post")

"""
OFFER = """

@hookimpl
def register_channels():
    return {"bad": Bad}
"""


def write(directory: Path, body: str) -> None:
    """The plugin ``bad``, whose channel type has this body."""
    (directory / "plugins").mkdir()
    lines = textwrap.indent(textwrap.dedent(body), "    ")
    (directory / "plugins" / "bad.py").write_text(f"{HEAD}{lines}{OFFER}")


def tried(
    capsys: pytest.CaptureFixture[str], file: Path | None, name: str, *only: str, **options: Any
) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code of a run in this process, and what came of each check."""
    default = {"set": [], "say": [], "query": [], "message": "hello", "headers": []}
    code = verdicts.run(file, name=name, only=only, as_json=True, **{**default, **options})
    checks = json.loads(capsys.readouterr().out)["checks"]
    return code, {verdict["name"]: verdict for verdict in checks}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred clients do for a thousand, and who does not read is cut at once."""
    monkeypatch.setattr(conformance, "JOINS", 100)
    monkeypatch.setattr(conformance, "WAVE", 25)
    monkeypatch.setattr(connection, "CLOSE_GRACE", 0.1)


# What comes with the server


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("echo", {}),
        ("clock", {"set": [("interval", "20ms")]}),
        ("topics", {"message": '{"goal": 1}', "set": [("path", "/topics/{topic...}")]}),
        ("lobby", {"say": ["guest{n}"], "query": [("name", "guest{n}")]}),
        ("chat", {"query": [("name", "guest{n}")], "set": [("path", "/rooms/{room}")]}),
    ],
)
@pytest.mark.usefixtures("few")
@pytest.mark.alone  # a plugin would be blamed for the core that others have
def test_channels_of_the_server(
    capsys: pytest.CaptureFixture[str], name: str, options: dict[str, Any]
) -> None:
    """The channels that come with the server fail in nothing, and nothing is skipped that they serve."""
    code, checks = tried(capsys, None, name, **options)
    assert [verdict for verdict in checks.values() if verdict["status"] == "failed"] == []
    assert code == 0
    skipped = {name for name, verdict in checks.items() if verdict["status"] == "skipped"}
    assert skipped == ({"slow-reader", "oversized", "burst", "idempotency"} if name == "clock" else set())


# What does not

#: The check that is to catch it, what happened, the words of the line where, and the body of the channel.
BAD: dict[str, tuple[str, str, str, str]] = {
    "a task for each client": (
        "churn",
        "1.. tasks are left",
        "await asyncio.sleep(1000)",
        """
        async def on_join(self, client):
            NAMES.append(asyncio.create_task(self.watch()))

        async def watch(self):
            await asyncio.sleep(1000)

        @asynccontextmanager
        async def lifespan(self):
            yield
            for task in NAMES:
                task.cancel()
        """,
    ),
    "clients in a list": (
        "churn",
        "clients that have left are still held, by self.seen",
        "self.seen.append(client)",
        """
        def __init__(self, *args):
            super().__init__(*args)
            self.seen = []

        async def on_join(self, client):
            self.seen.append(client)
        """,
    ),
    "names in a list": (
        "churn",
        "NAMES grew by 50",
        "NAMES.append(client.id)",
        """
        async def on_join(self, client):
            NAMES.append(client.id)
        """,
    ),
    "memory that nobody frees": (
        "churn",
        "what is taken there grew by",
        "",
        """
        async def on_join(self, client):
            self.last = (getattr(self, "last", None), bytearray(4000))
        """,
    ),
    "files that stay open": (
        "churn",
        "descriptors are left",
        "NAMES.append(open(__file__))",
        """
        async def on_join(self, client):
            NAMES.append(open(__file__))

        @asynccontextmanager
        async def lifespan(self):
            yield
            for file in NAMES:
                file.close()
        """,
    ),
    "a leave that raises": (
        "churn",
        "on_join ran 100 times, and on_leave ended 0 times",
        "del self.scores[client.id]",
        """
        scores = {}

        async def on_leave(self, client):
            del self.scores[client.id]
        """,
    ),
    "JSON that is none": (
        "malformed",
        "the channel failed at .*half a JSON",
        "json.loads(message.data)",
        """
        async def on_message(self, client, message):
            await client.send(str(json.loads(message.data)))
        """,
    ),
    "a text that is too long": (
        "oversized",
        "bytes: the client was closed: 1011",
        "raise RuntimeError",
        """
        async def on_message(self, client, message):
            if len(message.data) > 60000:
                raise RuntimeError("too long")
        """,
    ),
    "many at once": (
        "burst",
        ".. of 20 clients were closed: 1011",
        "raise RuntimeError",
        """
        working = 0

        async def on_message(self, client, message):
            if self.working:
                raise RuntimeError("I am busy")
            self.working = 1
            await asyncio.sleep(0.001)
            self.working = 0
        """,
    ),
    "a queue of its own": (
        "slow-reader",
        "KiB were taken there for one client that does not read",
        "",
        """
        async def on_join(self, client):
            client.state.waiting = []

        async def on_message(self, client, message):
            for each in self.clients:
                each.state.waiting.append(message.data * 10)
                if await each.ping(0.001):
                    each.state.waiting.clear()
        """,
    ),
    "waiting for one client": (
        "slow-reader",
        "[0-9]+ of [0-9]+ messages were heard",
        "await each.ping(2)",
        """
        async def on_message(self, client, message):
            for each in list(self.clients):
                await each.ping(2)
        """,
    ),
    "a leave that waits for the client": (
        "half-open",
        "on_leave did not end",
        "await self.gone.wait()",
        """
        gone = asyncio.Event()

        async def on_leave(self, client):
            await self.gone.wait()
        """,
    ),
    "a task for who never joins": (
        "abort",
        "tasks are left",
        "await asyncio.sleep(1000)",
        """
        async def on_connect(self, client):
            NAMES.append(asyncio.create_task(self.watch()))

        async def watch(self):
            await asyncio.sleep(1000)

        @asynccontextmanager
        async def lifespan(self):
            yield
            for task in NAMES:
                task.cancel()
        """,
    ),
    "a name that is never free": (
        "same-name",
        "the name was still taken after its holder had left: .*1008 taken",
        "",
        """
        names = set()

        async def on_connect(self, client):
            name = client.query["name"]
            if name in self.names:
                await client.close(1008, "taken")
            self.names.add(name)
        """,
    ),
    "a name that who goes early keeps": (
        "same-name",
        "gone while it was greeted",
        "",
        """
        names = set()

        async def on_connect(self, client):
            name = client.query["name"]
            if name in self.names:
                await client.close(1008, "taken")
                return
            self.names.add(name)
            client.state.name = name
            await asyncio.sleep(0.01)
            if client.closed:
                raise Disconnected("gone")

        async def on_leave(self, client):
            self.names.discard(client.query["name"])
        """,
    ),
    "a greeting that does not end": (
        "welcome",
        "the client had not joined within",
        "await self.gone.wait()",
        """
        gone = asyncio.Event()

        async def on_connect(self, client):
            await self.gone.wait()
        """,
    ),
    "a join that raises": (
        "welcome",
        "the client was closed: 1011",
        'raise RuntimeError("no")',
        """
        async def on_join(self, client):
            raise RuntimeError("no")
        """,
    ),
    "a lifespan that fails to begin": (
        "starts",
        "RuntimeError: no database",
        "",
        """
        @asynccontextmanager
        async def lifespan(self):
            raise RuntimeError("no database")
            yield
        """,
    ),
    "a lifespan that ends early": (
        "bystander",
        "the lifespan of channel:conformance has ended early",
        "",
        """
        @asynccontextmanager
        async def lifespan(self):
            async with asyncio.timeout(0.01):
                yield
        """,
    ),
    "a lifespan that does not end": (
        "shutdown",
        "the lifespan of channel:conformance did not end in time",
        "await asyncio.Event().wait()",
        """
        @asynccontextmanager
        async def lifespan(self):
            yield
            await asyncio.Event().wait()
        """,
    ),
    "a task that nobody cancels": (
        "shutdown",
        "task 'ticking' runs on after the shutdown",
        "await asyncio.sleep(1000)",
        """
        async def tick(self):
            await asyncio.sleep(1000)

        @asynccontextmanager
        async def lifespan(self):
            NAMES.append(asyncio.create_task(self.tick(), name="ticking"))
            yield
        """,
    ),
    "a loop that is held": (
        "blocking",
        "the event loop (was held|is held now) for",
        "time.sleep(0.3)",
        """
        async def on_message(self, client, message):
            time.sleep(0.3)
        """,
    ),
    "a coroutine that nobody awaits": (
        "leftovers",
        "coroutine 'Channel.publish' was never awaited",
        "self.publish(client.topic",
        """
        async def on_message(self, client, message):
            self.publish(client.topic, message.data)
        """,
    ),
    "a file that nobody closes": (
        "leftovers",
        "unclosed file",
        "",
        """
        async def on_join(self, client):
            open(__file__).read()
        """,
    ),
    "a task that fails": (
        "errors",
        "ZeroDivisionError",
        "1 / 0",
        """
        async def on_join(self, client):
            asyncio.create_task(self.count())

        async def count(self):
            1 / 0
        """,
    ),
}
#: Those in which something never comes to its end: it is not waited for as long as elsewhere.
ENDLESS = ("a leave that waits for the client", "waiting for one client", "a greeting that does not end")
#: What is done where the check itself only looks on.
DOING = {"blocking": "welcome", "leftovers": "welcome", "errors": "welcome", "bystander": "welcome"}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.usefixtures("few")
def test_mistake_is_caught(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    """The check that is meant to catch it fails, with what happened, the plugin's line and a remedy."""
    if what in ENDLESS:
        monkeypatch.setattr(trial, "PATIENCE", 2.0)
        monkeypatch.setattr(trial, "GONE", 2.0)
    monkeypatch.setattr(verdicts, "DRAIN", 1.0)
    check, happened, line, body = BAD[what]
    write(tmp_path, body)
    (tmp_path / "config.yaml").write_text("channels: {}\n")
    code, checks = tried(
        capsys, tmp_path / "config.yaml", "bad", DOING.get(check, check), query=[("name", "n{n}")]
    )
    assert (code, checks[check]["status"]) == (1, "failed")
    findings = checks[check]["findings"]
    assert [one for one in findings if re.search(happened, one["happened"])], findings
    finding = next(one for one in findings if re.search(happened, one["happened"]))
    assert line in finding["place"]
    assert not line or f"{tmp_path}/plugins/bad.py:" in finding["place"]
    assert finding["remedy"] or check in ("bystander", "starts")


# What ends the process

SWALLOWS = """
async def tick(self):
    while True:
        try:
            await asyncio.sleep(0.01)
        except BaseException:
            pass

@asynccontextmanager
async def lifespan(self):
    async with asyncio.TaskGroup() as tasks:
        ticking = tasks.create_task(self.tick())
        yield
        ticking.cancel()
"""
THREAD = """
@asynccontextmanager
async def lifespan(self):
    threading.Thread(target=threading.Event().wait, name="ticker").start()
    yield
"""


@pytest.mark.parametrize(
    ("body", "happened"),
    [(SWALLOWS, "runs on and does not end although it is cancelled"), (THREAD, "thread 'ticker' runs on")],
)
def test_what_does_not_end(tmp_path: Path, body: str, happened: str) -> None:
    """A task that swallows its cancellation and a thread that goes on are told, and the command ends."""
    write(tmp_path, body)
    ended = run(tmp_path, "plugins", "test", "bad", "--only", "shutdown")
    assert ended.returncode == 1, ended.stderr
    assert happened in ended.stdout


HANGS = """
async def on_message(self, client, message):
    while True:
        pass
"""


def test_loop_that_is_held_for_good(tmp_path: Path) -> None:
    """A channel that never gives the event loop back is told with its line, and the command ends."""
    write(tmp_path, HANGS)
    program = "import realtime.trial, realtime.cli as c; realtime.trial.HANG = 0.5; c.main({!r})"
    ended = subprocess.run(
        [sys.executable, "-c", program.format(["plugins", "test", "bad", "--only", "burst"])],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert ended.returncode == 1, ended.stderr
    assert re.search(r"FAILED +burst", ended.stdout)
    assert re.search(r"place: +\S+/plugins/bad\.py:\d+: (pass|while True:)\n", ended.stdout)
