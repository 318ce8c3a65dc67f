"""The log: a line is a line, JSON is JSON, and secrets stay where they are."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import resource
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from command import ENVIRONMENT, Running
from wire import close, soon, text, websocket

from realtime import logs

#: What could end a line, drive a terminal, or hide.
NASTY = "\n\r\t\0\x1b[31m\x07\x7f\x85\x9b\u2028\u2029\u202e\u200b\ud800\U000e0001é"


def record(
    message: object = "hello",
    *arguments: object,
    name: str = "realtime.server",
    level: int = logging.INFO,
    error: BaseException | None = None,
    fields: object = None,
) -> logging.LogRecord:
    """A record of the log."""
    trace = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord(name, level, __file__, 1, message, arguments, trace)
    made.created = 1795446245.1234
    if fields is not None:
        made.fields = fields
    return made


def raised(text: str) -> Exception:
    """An error with a traceback."""
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def as_text(made: logging.LogRecord) -> str:
    """A record as text."""
    return logs.TextLines().format(made)


def as_json(made: logging.LogRecord) -> dict[str, Any]:
    """A record as JSON, which must be one printable line of it."""
    line = logs.JSONLines().format(made)
    assert line.isprintable()
    return json.loads(line)  # type: ignore[no-any-return]


class Hostile:
    """An object that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


# Text


def test_line_of_text() -> None:
    """A line has the time in UTC, the level, whose it is and what it says."""
    assert as_text(record("%d left", 3)) == "2026-11-23T15:04:05.123Z INFO    realtime.server: 3 left"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("realtime.channel.lobby", "lobby"),
        ("realtime.channel.a.b", "a.b"),
        ("realtime.plugins.chat", "chat"),
        ("realtime_plugins_0123456789ab.dice", "dice"),
        ("realtime_plugins_0123456789ab.dice.rules", "dice.rules"),
        ("realtime_plugins_0123456789ab_17.dice", "dice"),
        ("realtime_dice", "realtime_dice"),
        ("realtime.server", "realtime.server"),
        ("asyncio", "asyncio"),
    ],
)
def test_name(name: str, shown: str) -> None:
    """A line stands under the name of its channel or plugin, as the config has it."""
    assert f" {shown}: hello" in as_text(record(name=name))


def test_line_stays_a_line() -> None:
    """Nothing in a message ends its line, drives a terminal or hides."""
    line = as_text(record("%s left", NASTY, name=f"realtime.channel.{NASTY}"))
    assert line.isprintable()
    assert r"\n\r\t\x00\x1b[31m\x07\x7f\x85\x9b\u2028\u2029\u202e\u200b\ud800\U000e0001é left" in line


def test_traceback_has_lines_of_its_own() -> None:
    """A traceback follows its line, indented, so that none of it looks like another line."""
    forged = "no\n2026-11-23T15:04:05.123Z INFO    realtime.server: all is well\x1b[2J"
    first, *more = as_text(record(error=raised(forged))).split("\n")
    assert first.endswith("realtime.server: hello")
    assert more[0] == "    Traceback (most recent call last):"
    assert more[-2:] == [
        "    ValueError: no",
        r"    2026-11-23T15:04:05.123Z INFO    realtime.server: all is well\x1b[2J",
    ]


@pytest.mark.parametrize("format", [as_text, lambda made: as_json(made)["message"]], ids=["text", "json"])
def test_wrong_arguments(format: Any) -> None:
    """A log call whose arguments do not fit is shown all the same."""
    assert "%d of %d ('x',) (TypeError in the log call)" in format(record("%d of %d", "x"))


# JSON


def test_line_of_json() -> None:
    """An object has the time in UTC, the level, whose it is and what it says."""
    assert as_json(record("%d left", 3, level=logging.WARNING)) == {
        "time": "2026-11-23T15:04:05.123Z",
        "level": "warning",
        "logger": "realtime.server",
        "message": "3 left",
    }


@pytest.mark.parametrize(
    ("name", "key", "shown"),
    [
        ("realtime.channel.lobby", "channel", "lobby"),
        ("realtime_plugins_0123456789ab.dice", "logger", "dice"),
        ("asyncio", "logger", "asyncio"),
    ],
)
def test_name_in_json(name: str, key: str, shown: str) -> None:
    """What a channel says has its name under ``channel``, all else under ``logger``."""
    assert as_json(record(name=name))[key] == shown


def test_fields() -> None:
    """The fields of a record are keys of the object, and replace none of its own."""
    shown = as_json(record(fields={"client": "c1", "code": 1000, "message": "forged", "time": 0}))
    assert (shown["client"], shown["code"], shown["message"]) == ("c1", 1000, "hello")
    assert shown["time"].startswith("2026-")


def test_exception() -> None:
    """The traceback is a text in the object."""
    shown = as_json(record(error=raised(NASTY)))
    assert shown["exception"].startswith("Traceback (most recent call last):\n")
    assert "ValueError: \n\r" in shown["exception"]


@pytest.mark.parametrize(
    "value",
    [
        NASTY,
        float("nan"),
        float("inf"),
        10**30,
        {1: 2, (3, 4): {5}},
        object(),
        Hostile(),
        {"deep": Hostile()},
        b"\xff",
        [[[]]] * 3,
        {"\ud800": "\ud800"},
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_is_in_it(value: object) -> None:
    """Whatever a message or a field is, the line is valid JSON."""
    shown = as_json(record("%s", "x", fields={"value": value, NASTY: 1}))
    assert (shown["message"], "value" in shown) == ("x", True)


def test_field_that_contains_itself() -> None:
    """A field that contains itself is shown as Python does."""
    value: list[object] = []
    value.append(value)
    assert as_json(record(fields={"value": value}))["value"] == "[[...]]"


def test_message_that_is_no_text() -> None:
    """A message that cannot be shown does not cost the line."""
    shown = as_json(record("%s came", Hostile()))["message"]
    assert shown == "%s came <tuple> (RuntimeError in the log call)"


# Secrets


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("GET /ws?token=s3cret HTTP/1.1", "GET /ws?token=*** HTTP/1.1"),
        ("GET /ws?name=a&token=s3cret&since=1", "GET /ws?name=a&token=***&since=1"),
        ("/ws?access_token=s3cret", "/ws?access_token=***"),
        ("Authorization: Bearer s3cret", "Authorization: Bearer ***"),
        ("{'Authorization': 'Bearer s3cret'}", "{'Authorization': 'Bearer ***'}"),
        ("('authorization', 'Basic s3cret')", "('authorization', 'Basic ***')"),
        ("authorization=s3cret", "authorization=***"),
        ("Bearer eyJhbGciOiJIUzI1NiJ9.s3cret", "Bearer ***"),
        ("Cookie: a=1; session=s3cret", "Cookie: ***"),
        ("redis://user:s3cret@localhost/0", "redis://user:***@localhost/0"),
        ("redis://user:a&s3cret@localhost/0", "redis://user:***@localhost/0"),
        ("redis://user:a@s3cret@localhost/0", "redis://user:***@localhost/0"),
        ("the bearer token is over", "the bearer token is over"),
        ("alice: token=1", "alice: token=1"),
        ("http://localhost:8080/chat", "http://localhost:8080/chat"),
    ],
)
def test_secrets(message: str, shown: str) -> None:
    """Tokens, credentials and passwords are not shown, in no part of a line, in no format."""
    for part in (record(message), record("x", fields={"x": message}), record(error=raised(message))):
        for line in (as_text(part), json.dumps(as_json(part))):
            assert "s3cret" not in line
    assert as_text(record(message)).endswith(shown)
    assert as_json(record(fields={"x": message}))["x"] == shown


# A server's log

PLUGIN = """
import logging
import warnings
from realtime import Channel, hookimpl

log = logging.getLogger(__name__)


class Loud(Channel):
    "Says what it hears."

    async def on_message(self, client, message):
        self.log.info("heard %s", message.data, extra={"fields": {"heard": message.data}})
        log.warning("heard %s", message.data)
        if message.data == "warn":
            warnings.warn("careful\\nforged", UserWarning)
        if message.data == "bug":
            raise RuntimeError("a bug\\nand more")


@hookimpl
def register_channels():
    return {"loud": Loud}
"""


@asynccontextmanager
async def started(
    directory: Path, *arguments: str, loop: str = "auto", **limits: int
) -> AsyncIterator[Running]:
    """A server with a channel that logs what it hears."""
    (directory / "plugins").mkdir()
    (directory / "plugins" / "loud.py").write_text(PLUGIN)
    (directory / "config.yaml").write_text(
        f"server: {{listen: ['127.0.0.1:0'], trusted_proxies: [127.0.0.1], loop: {loop}}}\n"
        "channels: {lobby: {plugin: loud, path: /}}\n"
    )

    def limit() -> None:
        if limits:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limits["files"],) * 2)

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "realtime", *arguments),
        cwd=directory,
        env=ENVIRONMENT,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=limit,
    )
    running = Running(process)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def talk(port: int) -> None:
    """A client that says nasty things, and why it leaves."""
    headers = [("X-Forwarded-For", "203.0.113.7")]
    async with websocket(port, "/?token=s3cret", headers=headers) as wire:
        await wire.send(text("hi\n2026 forged\x1b[31m"))
        await wire.send(close(4000, "bye\nforged"))
        await wire.rest()


async def test_log_as_json(tmp_path: Path) -> None:
    """With ``--log-format json`` all that the server says is an object a line, with fields."""
    async with started(tmp_path, "--log-format", "json") as server:
        ready = json.loads(await server.until("ready on "))
        await talk(int(ready["message"].rpartition(":")[2]))
        await server.until("left after")
        assert await server.end(signal.SIGTERM) == 0
        lines = [json.loads(line) for line in server.said.splitlines()]
    heard, plugins, left = lines[4:7]
    assert (heard["channel"], heard["heard"]) == ("lobby", "hi\n2026 forged\x1b[31m")
    assert (plugins["logger"], plugins["level"]) == ("loud", "warning")
    seconds = left.pop("seconds")
    assert 0 <= seconds < 8
    del left["time"], left["message"]
    assert left == {
        "level": "info",
        "channel": "lobby",
        "client": "c1",
        "transport": "websocket",
        "topic": "lobby",
        "name": None,
        "remote": "203.0.113.7",
        "code": 4000,
        "reason": "bye\nforged",
    }
    assert "s3cret" not in server.said


async def test_log_as_text(tmp_path: Path) -> None:
    """In the text that is the default a client's words forge no line."""
    async with started(tmp_path) as server:
        await talk(int((await server.ready()).rpartition(":")[2]))
        await server.until("left after")
        lines = server.said.splitlines()[4:]
    assert [re.sub(r"^\S+Z | after [0-9.]+s", "", line) for line in lines] == [
        r"INFO    lobby: heard hi\n2026 forged\x1b[31m",
        r"WARNING loud: heard hi\n2026 forged\x1b[31m",
        r"INFO    lobby: websocket c1 from 203.0.113.7 left: 4000 bye\nforged",
    ]


async def test_warnings_of_python(tmp_path: Path) -> None:
    """What Python warns of, in a plugin's code, is a line of the log too."""
    async with started(tmp_path, "--log-format", "json") as server:
        ready = json.loads(await server.until("ready on "))
        async with websocket(int(ready["message"].rpartition(":")[2]), "/", text("warn")):
            line = json.loads(await server.until("careful"))
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")
    assert "UserWarning: careful\nforged" in line["message"]


async def test_level(tmp_path: Path) -> None:
    """``--log-level`` says from which level on there is a log; that it is ready is said in any case."""
    async with started(tmp_path, "--log-level", "error", "--log-format", "json") as server:
        ready = json.loads(await server.until("ready on "))
        port = int(ready["message"].rpartition(":")[2])
        await talk(port)
        async with websocket(port, "/", text("bug")) as wire:
            assert await wire.close_code() == 1011
        line = json.loads(await server.until("a bug"))
    assert (line["level"], line["channel"]) == ("error", "lobby")
    assert line["exception"].endswith("RuntimeError: a bug\nand more")
    assert server.said.count("\n") == 5  # the banner has four


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_no_file_descriptor_left(tmp_path: Path, loop: str) -> None:
    """Where there is room for nobody more those who wait make room for each other; a client is served."""
    async with started(tmp_path, loop=loop, files=48) as server:
        port = int((await server.ready()).rpartition(":")[2])
        async with websocket(port, "/") as wire:
            with ExitStack() as stack:
                crowd = [stack.enter_context(socket.socket()) for _ in range(80)]
                for sock in crowd:
                    sock.connect(("127.0.0.1", port))
                await soon(asyncio.get_running_loop().run_in_executor(None, crowd[0].recv, 1))
                for word in ("a", "b"):
                    await wire.send(text(word))
                    await server.until(f"WARNING loud: heard {word}")
            await wire.send(close(1000))
            await server.until("left after")
        assert "Traceback" not in server.said


async def test_repeats_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of errors of asyncio that are alike one is shown in a second; the next says how many there were."""
    repeats = logs._Repeats()
    shown = []
    for moment, message in [(0, "a"), (0.5, "a"), (0.5, "b"), (0.9, "a"), (1.1, "a"), (9, "a"), (5, "a")]:
        made = record(f"{message}\nsocket: {moment}", name="asyncio")
        made.created = float(moment)
        if repeats.filter(made):
            shown.append(as_text(made).split("asyncio: ")[1])
    assert shown == [
        "a\n    socket: 0",
        "b\n    socket: 0.5",
        "a (and 2 like it before)\n    socket: 1.1",
        "a\n    socket: 9",
        "a\n    socket: 5",
    ]


def test_lines_of_asyncio() -> None:
    """What asyncio says in lines is shown in lines, which are indented and escaped; others say one."""
    said = "Task was destroyed but it is pending!\ntask: <Task 'x\x1b'>\r2026 forged"
    first, *more = as_text(record(said, name="asyncio")).split("\n")
    assert first.endswith("it is pending!; await it, or start it in an asyncio.TaskGroup in lifespan()")
    assert more == [r"    task: <Task 'x\x1b'>\r2026 forged"]
    assert as_text(record("a\nb", name="py.warnings")).endswith(r"py.warnings: a\nb")


def test_plugins_may_repeat_themselves() -> None:
    """What channels and plugins say is all shown."""
    repeats = logs._Repeats()
    assert all(repeats.filter(record(name="realtime.channel.lobby")) for _ in range(3))


def test_bugs_of_one_place_are_alike() -> None:
    """Of tracebacks from one place one is shown in a second, whatever they say."""
    repeats = logs._Repeats()

    def shown(error: Exception, moment: float = 0.0) -> bool:
        made = record("a bug fails %r", moment, name="realtime.channel.lobby", error=error)
        made.created = moment
        return repeats.filter(made)

    assert shown(raised("one"))
    assert not shown(raised("two"), 0.9)
    with pytest.raises(ValueError, match="elsewhere") as elsewhere:
        int("elsewhere")
    assert shown(elsewhere.value)
    assert shown(raised("one"), 1.5)


def test_stack() -> None:
    """A record's stack is shown like a traceback, and what has one is alike if its innermost line is."""
    repeats = logs._Repeats()
    held = record("held for %.1fs", 0.2)
    held.stack = ["outer.py:1: f()", "inner.py:2: sleep()"]
    assert as_text(held).split("\n")[1:] == ["    outer.py:1: f()", "    inner.py:2: sleep()"]
    assert as_json(held)["exception"] == "outer.py:1: f()\ninner.py:2: sleep()"
    assert repeats.filter(held)
    assert not repeats.filter(held)
    held.stack = ["outer.py:1: f()", "inner.py:3: spin()"]
    assert repeats.filter(held)


def test_repeats_are_bounded() -> None:
    """Of errors that are all different not every one is remembered."""
    repeats = logs._Repeats()
    assert all(repeats.filter(record(f"error {number}", name="asyncio")) for number in range(1000))
    assert len(repeats._seen) <= 101


@pytest.mark.parametrize("form", ["text", "json"])
def test_log_of_the_process_has_no_repeats(form: str) -> None:
    """A process whose log is set up shows one of many errors that are alike, in either format."""
    program = f"""
        import logging
        from realtime import logs
        logs.configure("info", "{form}")
        for _ in range(50):
            logging.getLogger("asyncio").error("socket.accept() out of system resource")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert done.stderr.count("socket.accept()") == 1
