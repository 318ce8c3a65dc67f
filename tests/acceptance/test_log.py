"""The log: what is in it, in either format, and what is not, whatever clients send."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from certificates import Authority
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from needs import curl
from websockets.asyncio.client import connect

from acceptance.board import CONFIG, FILES
from acceptance.world import GREETING, HOST, MODULE, NAMES, PASSWORD, PORT, TOKEN, Home, Process, started

SERVE = ("serve", "--listen", f"{HOST}:{PORT}")
JSON = ("--log-format", "json")
FORMATS = ["text", "json"]
#: What it says before and after it serves, which in the text has no time.
BANNER = re.compile(r"Realtime |  |ready on |stopping; ")
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) +([\w.-]+): (.*)")
#: A reason that pretends to be a line of the log, and wipes the screen; at most 123 bytes.
FORGERY = "bye\r\n2026-01-01T00:00:00.000Z INFO    lobby: forged\u2028forged\x1b[2J\x9b"


def objects(process: Process) -> list[dict[str, Any]]:
    """The lines of a log in JSON, each of which is an object."""
    lines = [json.loads(line) for line in process.said]
    assert all(isinstance(line, dict) for line in lines)
    return lines


async def left(process: Process, client: str = "") -> str:
    """The line about a connection that has ended."""
    return await process.line(lambda line: " left after " in line and client in line)


async def talked(address: str, path: str, *, reason: str = "", code: int = 1000) -> None:
    """A client of the `websockets` library comes, says something, hears it, and closes."""
    async with connect(f"ws://{address}{path}") as ws:
        await ws.send(GREETING)
        while GREETING not in str(await ws.recv()):
            pass
        await ws.close(code, reason)


@pytest.fixture
def board(home: Home) -> Home:
    """A directory with a board and a chat."""
    home.write(f"{CONFIG}  lobby: {{plugin: chat, path: /chat}}\n", FILES)
    return home


# The formats


async def test_every_line_is_json(board: Home) -> None:
    """With ``--log-format json`` every line, the banner too, has a time, a level and a message."""
    async with board.server(*JSON) as process:
        await talked(await process.ready(), "/board")
    for line in objects(process):
        assert datetime.fromisoformat(line["time"]).tzinfo == UTC
        assert line["level"] in ("debug", "info", "warning", "error")
        assert isinstance(line["message"], str)
        assert ("channel" in line) != ("logger" in line)


async def test_the_log_is_no_output(board: Home) -> None:
    """The log goes to standard error, and nothing to standard output."""
    script = f'exec "$0" -m realtime --listen {HOST}:{PORT} >output'
    async with started("bash", "-c", script, board.python, cwd=board.directory) as process:
        await process.ready()
        process.interrupt()
        assert await process.ended() == 0
    assert (board.directory / "output").read_text() == ""


@pytest.mark.parametrize("transport", ["websocket", "sse"])
async def test_a_connection_in_json(board: Home, transport: str) -> None:
    """The line of a connection that has ended has who, where, how, how long, and why, as keys."""
    async with board.server(*JSON) as process:
        address = await process.ready()
        scheme = {"websocket": "ws", "sse": "http"}[transport]
        command = ["connect", f"{scheme}://{address}/chat", "--name", NAMES[0], "--count", "1"]
        assert (await board.ran(*command)).code == 0
        line = json.loads(await left(process))
    assert re.fullmatch("c[0-9]+", line["client"])
    assert {key: line[key] for key in ("channel", "transport", "topic", "name", "remote", "level")} == {
        "channel": "lobby",
        "transport": transport,
        "topic": "lobby",
        "name": NAMES[0],
        "remote": HOST,
        "level": "info",
    }
    assert line["code"] in {"websocket": (1000,), "sse": (1000, 1006)}[transport]
    assert isinstance(line["reason"], str)
    assert 0 <= line["seconds"] < 60


async def test_a_connection_in_text(board: Home) -> None:
    """The same in text is a line for people, with the time, the level and the channel."""
    async with board.server() as process:
        await talked(await process.ready(), f"/chat?name={quote(NAMES[0])}", code=4000, reason="enough")
        line = await left(process)
    match = LINE.fullmatch(line)
    assert match, line
    assert match.group(1, 2) == ("INFO", "lobby")
    words = rf"websocket c[0-9]+ \({re.escape(NAMES[0])}\) from {HOST} left after [0-9.]+s: 4000 enough"
    assert re.fullmatch(words, match[3])


@pytest.mark.parametrize("log_format", FORMATS)
async def test_a_lost_connection(board: Home, log_format: str) -> None:
    """A client that is killed is logged with 1006."""
    async with board.server("--log-format", log_format) as process:
        url = f"ws://{await process.ready()}/chat"
        async with board.realtime("connect", url, "--name", NAMES[0]) as client:
            await client.line(lambda line: line.endswith("joined the chat"))
            await client.killed()
        assert "1006" in await left(process)


async def test_text_is_a_line_each(board: Home) -> None:
    """In text every line but those of the banner has the time, the level and whose it is."""
    async with board.server() as process:
        await talked(await process.ready(), "/board")
    others = [line for line in process.said if not BANNER.match(line)]
    assert others
    assert all(LINE.fullmatch(line) for line in others), others


async def test_the_level(board: Home) -> None:
    """With ``--log-level warning`` nobody is told of who comes and goes."""
    async with board.server("--log-level", "warning") as process:
        await talked(await process.ready(), "/board")
    assert all(BANNER.match(line) for line in process.said), process.text


# What clients send


@pytest.mark.parametrize("log_format", FORMATS)
async def test_a_reason_forges_no_line(board: Home, log_format: str) -> None:
    """A close reason with newlines and escapes stays in its line, and drives no terminal."""
    async with board.server("--log-format", log_format) as process:
        await talked(await process.ready(), f"/chat?name={quote(NAMES[0])}", reason=FORGERY)
        line = await left(process, "bye")
    raw = "\n".join(process.said)
    assert "forged" in line
    assert raw.count("forged") == line.count("forged")
    assert raw.replace("\n", "").isprintable()
    if log_format == "json":
        assert json.loads(line)["reason"] == FORGERY


@pytest.mark.parametrize("log_format", FORMATS)
async def test_a_message_forges_no_line(board: Home, log_format: str) -> None:
    """What clients say is in no line of the log."""
    async with board.server("--log-format", log_format, "--log-level", "debug") as process:
        await talked(await process.ready(), f"/chat?name={quote(NAMES[0])}")
    assert GREETING not in process.text


async def test_rubbish(board: Home) -> None:
    """What is no HTTP at all leaves no traceback in the log, and every line stays JSON."""
    async with board.server(*JSON, "--log-level", "debug") as process:
        address = await process.ready()
        rubbish = "printf 'G\\x1b[2J\\r\\nET /\\x00 HTTP/9.9\\r\\n\\r\\n' >&3; cat <&3 >/dev/null"
        script = f"exec 3<>/dev/tcp/{address.replace(':', '/')}; {rubbish}"
        async with started("bash", "-c", script, cwd=board.directory) as client:
            await client.ended()
        await talked(address, "/board")
    assert objects(process)
    assert "\x1b" not in process.text


# Secrets


@pytest.mark.parametrize("log_format", FORMATS)
@pytest.mark.parametrize("given", ["url", "header"])
async def test_a_token(home: Home, log_format: str, given: str) -> None:
    """A token is nowhere in the log, of whatever level, however it was given and whatever went wrong."""
    home.write(f"plugins: [tokens]\n{CONFIG}  clock: {{plugin: clock, path: /events}}\n", FILES)
    async with home.server("--log-format", log_format, "--log-level", "debug") as process:
        address = await process.ready()
        query = f"?token={TOKEN}" if given == "url" else "?"
        header = [] if given == "url" else ["-H", f"Authorization: Bearer {TOKEN}"]
        for command in (
            ["publish", f"http://{address}/board{query}", GREETING],
            ["publish", f"http://{address}/board{query}", "--event", "realtime:no", GREETING],
            ["publish", f"http://{address}/events{query}", GREETING],
            ["connect", f"ws://{address}/board{query}", "--since=-1", "--count", "1"],
            ["connect", f"ws://{address}/board{query}&since=rubbish"],
            ["connect", f"http://{address}/board{query}", "--since=-1", "--count", "1"],
            ["connect", f"http://{address}/nowhere{query}"],
        ):
            ran = await home.ran(*command, *header)
            assert TOKEN not in ran.errors
        assert (await home.ran("connect", f"ws://{address}/board?token=x{TOKEN}")).code == 3
    assert TOKEN not in process.text


async def test_what_a_plugin_logs_of_a_request(home: Home) -> None:
    """A plugin that logs a URL, or fails with one in its hands, writes no token into the log."""
    source = (
        "from realtime import hookimpl\nimport logging\n\n\n@hookimpl\ndef authenticate(request):\n"
        "    logging.getLogger(__name__).warning('a request: %s %r', request.rel_url, request.headers)\n"
        "    raise RuntimeError(f'{request.url} {dict(request.headers)}')\n"
    )
    home.write(f"plugins: [leaky]\n{CONFIG}", {**FILES, "plugins/leaky.py": source})
    for log_format in FORMATS:
        async with home.realtime(*SERVE, "--log-format", log_format) as process:
            url = f"http://{await process.ready()}/board?token={TOKEN}"
            header = f"Authorization: Bearer {TOKEN}"
            cookie = f"Cookie: session={TOKEN}"
            command = [curl(), "-s", "-H", header, "-H", cookie, url]
            async with started(*command, cwd=home.directory) as client:
                await client.ended()
            assert "authentication failed" in client.text
            await process.line(lambda line: "a request: " in line)
            await process.line(lambda line: "RuntimeError" in line)
            process.interrupt()
            await process.ended()
        assert TOKEN not in process.text


@pytest.mark.parametrize("right", [True, False])
async def test_a_password(home: Home, right: bool) -> None:
    """What opens the key of the certificate is in no log, no command and no mistake that is told."""
    Authority(home.directory)
    key = load_pem_private_key((home.directory / "key.pem").read_bytes(), None)
    sealed = BestAvailableEncryption((PASSWORD if right else f"not{PASSWORD}").encode())
    (home.directory / "sealed.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed)
    )
    tls = f'{{cert: cert.pem, key: sealed.pem, password: "{PASSWORD}"}}'
    home.write(f"server: {{tls: {tls}}}\n{CONFIG}", FILES)
    for command in ("check", "config", "routes", "plugins"):
        for options in ([], ["--json"]):
            ran = await home.ran(command, *options)
            assert PASSWORD not in "\n".join([*ran.said, ran.errors])
    if right:
        async with home.server("--log-level", "debug") as process:
            assert "ready on " in process.text
        assert PASSWORD not in process.text
    else:
        ran = await home.ran("serve", "--log-level", "debug")
        assert (ran.code, "server.tls.password: it does not open the key" in ran.errors) == (1, True)
        assert PASSWORD not in ran.errors


# Plugins


TALKATIVE = """\
import logging

from realtime import Channel, hookimpl

log = logging.getLogger(__name__)


class Talkative(Channel):
    async def on_join(self, client):
        self.log.warning("somebody %s", "came", extra={"fields": {"seat": 7}})
        log.warning("the module says so, too")

    async def on_message(self, client, message):
        raise LookupError("a\\nbug")


@hookimpl
def register_channels():
    return {"%s": Talkative}
"""


@pytest.fixture
def talkative(home: Home) -> Home:
    """A directory with a plugin that logs, and has a bug."""
    config = f"channels: {{game: {{plugin: {MODULE}, path: /game}}}}\n"
    home.write(config, {f"plugins/{MODULE}.py": TALKATIVE.replace('%s":', f'{MODULE}":')})
    return home


@pytest.mark.parametrize("log_format", FORMATS)
async def test_the_lines_of_a_channel(talkative: Home, log_format: str) -> None:
    """What a channel logs is under the channel's name, and what its module logs under the plugin's."""
    async with talkative.server("--log-format", log_format) as process:
        address = await process.ready()
        async with connect(f"ws://{address}/game"):
            first = await process.line(lambda line: "somebody came" in line)
            second = await process.line(lambda line: "the module says so, too" in line)
    if log_format == "json":
        said = json.loads(first)
        assert (said["channel"], said["level"], said["message"]) == ("game", "warning", "somebody came")
        assert said["seat"] == 7
        assert json.loads(second)["logger"] == MODULE
    else:
        assert first.endswith("Z WARNING game: somebody came")
        assert second.endswith(f"Z WARNING {MODULE}: the module says so, too")


@pytest.mark.parametrize("log_format", FORMATS)
async def test_a_bug_of_a_channel(talkative: Home, log_format: str) -> None:
    """A bug of a channel is logged with its traceback under the channel's name, and closes with 1011."""
    async with talkative.realtime(*SERVE, "--log-format", log_format) as process:
        address = await process.ready()
        async with connect(f"ws://{address}/game") as ws:
            await ws.send(GREETING)
            await ws.wait_closed()
            assert ws.close_code == 1011
        await left(process)
        process.interrupt()
        assert await process.ended() == 0
    if log_format == "json":
        [error] = [line for line in objects(process) if "exception" in line]
        assert (error["channel"], error["level"]) == ("game", "error")
        assert f"plugins/{MODULE}.py" in error["exception"]
    else:
        others = [line for line in process.said if not BANNER.match(line) and not line.startswith("    ")]
        assert all(LINE.fullmatch(line) for line in others), others
        assert f"plugins/{MODULE}.py" in process.text
