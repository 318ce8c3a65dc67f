"""`connect`: lines in, messages out, over every scheme, and every way in which it ends."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from certificates import Authority

from acceptance.board import CONFIG, FILES
from acceptance.world import GREETING, HOST, NAMES, REMOTE, TOKEN, Home, Process, started

#: What a server serves that speaks TLS itself, and one that does not.
PLAIN = """\
channels:
  board: {plugin: board, path: /board, history: 1000}
  lobby: {plugin: chat, path: /chat, history: 1000}
"""
SECURE = "server: {tls: {cert: cert.pem, key: key.pem}}\n" + PLAIN
#: A channel type that is a stream of events only.
EVENTS = """\
from realtime import Channel, hookimpl


class Events(Channel):
    transports = ("sse",)


@hookimpl
def register_channels():
    return {"events": Events}
"""
#: Every scheme.
SCHEMES = ["ws", "wss", "http", "https"]
#: How its messages have positions: over a stream, and over the subprotocol for objects.
POSITIONED = {"http": [], "ws": ["--subprotocol", "realtime.v1.json"]}


@asynccontextmanager
async def reached(home: Home, scheme: str) -> AsyncIterator[tuple[str, list[str]]]:
    """Where a server is reached by a scheme, and what `connect` and `publish` need to trust it."""
    secure = scheme.endswith("s") and scheme != "ws"
    trust = ["--cafile", str(Authority(home.directory).ca)] if secure else []
    home.write(SECURE if secure else PLAIN, FILES)
    async with home.serving() as address:
        yield f"{scheme}://{address}", trust


@pytest.fixture
def board(home: Home) -> Home:
    """A directory with a board that keeps what was said."""
    home.write(CONFIG, FILES)
    return home


async def published(home: Home, address: str, *lines: str) -> list[str]:
    """Publish some lines on the board; their positions."""
    ran = await home.ran("publish", f"http://{address}/board", typed="".join(f"{line}\n" for line in lines))
    assert (ran.code, len(ran.said)) == (0, len(lines)), ran
    return ran.said


def received(said: list[str]) -> list[str]:
    """What was received, without the words before it."""
    assert all(line.startswith("Received: ") for line in said), said
    return [line.removeprefix("Received: ") for line in said]


def objects(said: list[str]) -> list[dict[str, Any]]:
    """What was received with ``--json``."""
    return [json.loads(line) for line in said]


# Lines in, messages out


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_lines_in_and_messages_out(home: Home, scheme: str) -> None:
    """Over every scheme a line that is typed is a message, and comes back as one."""
    async with (
        reached(home, scheme) as (site, trust),
        home.realtime("connect", f"{site}/board", *trust, "--count", "2", together=False) as process,
    ):
        process.type(f"{GREETING}\n")
        await process.line(lambda line: line == f"Received: {GREETING}")
        process.type("and more\n")
        assert await process.ended() == 0
        assert process.said == [f"Received: {GREETING}", "Received: and more"]


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_name(home: Home, scheme: str) -> None:
    """Over every scheme ``--name`` is the name in a chat."""
    async with (
        reached(home, scheme) as (site, trust),
        home.realtime("connect", f"{site}/chat", *trust, "--name", NAMES[0]) as process,
    ):
        await process.line(lambda line: line.startswith("Received: ") and NAMES[0] in line)
        process.type(f"{GREETING}\n")
        if scheme.startswith("ws"):
            await process.line(lambda line: line == f"Received: {NAMES[0]}: {GREETING}")
        else:
            said = await process.line(lambda line: '"text"' in line)
            assert json.loads(said.removeprefix("Received: ")) == {"from": NAMES[0], "text": GREETING}


@pytest.mark.parametrize("scheme", ["wss", "https"])
async def test_a_certificate_that_nobody_trusts(home: Home, scheme: str) -> None:
    """Without ``--cafile`` a certificate of one's own is not trusted, and it says what would help."""
    async with reached(home, scheme) as (site, _):
        ran = await home.ran("connect", f"{site}/board")
    assert (ran.code, ran.said) == (3, [])
    assert "its certificate is not trusted: " in ran.errors
    assert "--cafile FILE" in ran.errors


async def test_what_it_says_itself_is_no_data(board: Home) -> None:
    """Messages go to standard output and its own words to standard error."""
    async with board.serving() as address:
        await published(board, address, GREETING)
        ran = await board.ran("connect", f"ws://{address}/board", "--since", "earliest", "--count", "1")
    assert ran == (0, [f"Received: {GREETING}"], "WebSocket connected\n")


# Where it begins


@pytest.mark.parametrize("scheme", POSITIONED)
@pytest.mark.parametrize("since", ["earliest", "-2", "position"])
async def test_since(board: Home, scheme: str, since: str) -> None:
    """``--since`` begins with all that is kept, with the newest N, or after a position seen before."""
    options = POSITIONED[scheme]
    said = ["one", "two", "three", "four"]
    async with board.serving() as address:
        positions = await published(board, address, *said)
        begin = positions[0] if since == "position" else since
        wanted = {"earliest": said, "-2": said[2:], "position": said[1:]}[since]
        ran = await board.ran(
            *("connect", f"{scheme}://{address}/board", f"--since={begin}"),
            *("--count", str(len(wanted)), *options),
        )
    assert (ran.code, received(ran.said)) == (0, wanted), ran.errors


async def test_since_on_plain_frames(board: Home) -> None:
    """A position that was printed by ``publish`` is one to begin after on a plain WebSocket, too."""
    async with board.serving() as address:
        first, *_ = await published(board, address, "one", "two", "three")
        ran = await board.ran("connect", f"ws://{address}/board", "--since", first, "--count", "2")
    assert (ran.code, received(ran.said)) == (0, ["two", "three"])


@pytest.mark.parametrize("scheme", POSITIONED)
async def test_a_position_of_another_server(board: Home, scheme: str) -> None:
    """A position that means nothing here is told as messages missed, before those that are kept."""
    options = POSITIONED[scheme]
    async with board.serving() as address:
        [position] = await published(board, address, "before")
    async with board.serving() as address:
        await published(board, address, "after")
        url = f"{scheme}://{address}/board"
        ran = await board.ran("connect", url, "--since", position, "--count", "1", *options)
        shown = await board.ran("connect", url, "--since", position, "--count", "1", "--json", *options)
    assert (ran.code, received(ran.said)) == (0, ["after"])
    assert "messages were missed" in ran.errors
    assert [one["event"] for one in objects(shown.said)] == ["realtime:reset", "message"]


async def test_a_position_that_plain_frames_cannot_tell_of(board: Home) -> None:
    """On plain frames, which cannot say what was missed, such a position ends it with 1013 and 4."""
    async with board.serving() as address:
        [position] = await published(board, address, "before")
    async with board.serving() as address:
        ran = await board.ran("connect", f"ws://{address}/board", "--since", position)
    assert (ran.code, ran.said) == (4, [])
    assert "closed by the server: 1013 try again: " in ran.errors


async def test_count(board: Home) -> None:
    """``--count`` ends it after so many messages, with others waiting, and the server hears 1000."""
    async with board.server() as server:
        address = await server.ready()
        await published(board, address, "one", "two", "three")
        ran = await board.ran("connect", f"ws://{address}/board", "--since", "earliest", "--count", "2")
        assert (ran.code, received(ran.said)) == (0, ["one", "two"])
        await server.line(lambda line: "board: websocket c" in line and line.endswith("s: 1000"))


# What it sends and shows


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_a_header(home: Home, scheme: str) -> None:
    """``-H`` goes with every request: with a token in it one is let in, and what is typed is, too."""
    home.write(f"plugins: [tokens]\n{CONFIG}", FILES)
    async with home.serving() as address:
        header = f"Authorization: Bearer {TOKEN}"
        url = f"{scheme}://{address}/board"
        async with home.realtime("connect", url, "-H", header, "--count", "1") as process:
            process.type(f"{GREETING}\n")
            await process.line(lambda line: line == f"Received: {GREETING}")
            assert await process.ended() == 0


async def test_json(board: Home) -> None:
    """``--json`` prints each message as an object with its id, event and data, and over ws its time."""
    async with board.serving() as address:
        async with board.realtime("publish", f"http://{address}/board", '{"n": 1}', "--json") as one:
            assert await one.ended() == 0
        [position] = one.said
        for scheme, options in POSITIONED.items():
            ran = await board.ran(
                *("connect", f"{scheme}://{address}/board", "--since", "earliest", "--count", "1"),
                *("--json", *options),
            )
            [shown] = objects(ran.said)
            assert (shown["id"], shown["event"]) == (position, "message")
            assert shown["data"] == {"n": 1}
            assert ("time" in shown) == (scheme in ("ws", "wss"))


async def test_subprotocol(board: Home) -> None:
    """With ``--subprotocol realtime.v1.json`` a line is sent as data, and messages are shown by theirs."""
    async with board.serving() as address:
        command = ["connect", f"ws://{address}/board", *POSITIONED["ws"], "--count", "1"]
        ran = await board.ran(*command, typed=f'{{"data": "{GREETING}"}}\n')
    assert (ran.code, received(ran.said)) == (0, [f'{{"data": "{GREETING}"}}'])


async def test_a_subprotocol_that_nobody_knows(board: Home) -> None:
    """A subprotocol that the server does not know leaves plain frames."""
    async with board.serving() as address:
        command = ["connect", f"ws://{address}/board", "--subprotocol", "mqtt", "--count", "1"]
        ran = await board.ran(*command, typed=f"{GREETING}\n")
    assert (ran.code, received(ran.said)) == (0, [GREETING])


# How it ends


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_refused(home: Home, scheme: str) -> None:
    """A connection that is refused says the status and the server's sentence, and ends with 3."""
    home.write(f"plugins: [tokens]\n{CONFIG}", FILES)
    async with home.serving() as address:
        ran = await home.ran("connect", f"{scheme}://{address}/board?token={REMOTE}")
    what = {"ws": "no WebSocket", "http": "no stream of events"}[scheme]
    said = f"{scheme}://{address}/board: {what}: 401 Unauthorized: this token is not known\n"
    assert ran == (3, [], said)


@pytest.mark.parametrize(("path", "status"), [("/nowhere", "404 Not Found"), ("/clock", "400 Bad Request")])
async def test_no_websocket_there(home: Home, path: str, status: str) -> None:
    """A path that is no channel, or a channel that is no WebSocket, is a refusal with its status."""
    home.write("channels: {clock: {plugin: events, path: /clock}}\n", {"plugins/events.py": EVENTS})
    async with home.serving() as address:
        ran = await home.ran("connect", f"ws://{address}{path}")
    assert ran.code == 3
    assert f"no WebSocket: {status}" in ran.errors


@pytest.mark.parametrize("scheme", ["ws", "http"])
@pytest.mark.parametrize(
    ("code", "words", "exits", "again"),
    [
        (1000, "1000 done: enough", 0, None),
        (1001, "1001 shutting down: enough", 0, True),
        (1008, "1008 policy: enough", 4, False),
        (1013, "1013 try again: enough", 4, True),
        (4403, "4403 not allowed: enough", 4, False),
        (4500, "4500: enough", 4, True),
    ],
)
async def test_the_server_closes(
    board: Home, scheme: str, code: int, words: str, exits: int, again: bool | None
) -> None:
    """A server that closes is told in words, with whether to come back; an error ends with 4."""
    async with (
        board.serving() as address,
        board.realtime("connect", f"{scheme}://{address}/board", together=False) as process,
    ):
        process.type("first\n")
        await process.line(lambda line: line == "Received: first")
        ran = await board.ran("publish", f"http://{address}/board", f"close {code} enough")
        assert ran.code == 0, ran.errors
        assert await process.ended() == exits
    hint = {None: "", True: " (connecting again makes sense)", False: " (the same again will not help)"}
    assert process.errors.splitlines()[-1] == f"closed by the server: {words}{hint[again]}"


async def test_a_name_that_is_taken(home: Home) -> None:
    """In a chat the second of one name is told that it is taken, and ends with 4."""
    async with home.serving() as address:
        command = ["connect", f"ws://{address}/chat", "--name", NAMES[0]]
        async with home.realtime(*command) as first:
            await first.line(lambda line: line.endswith("joined the chat"))
            ran = await home.ran(*command)
    assert (ran.code, ran.said) == (4, [])
    assert f"closed by the server: 4509 name taken: the name {NAMES[0]} is taken" in ran.errors


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_the_server_ends(home: Home, scheme: str) -> None:
    """A server that shuts down in order is told as 1001, and is no error."""
    async with home.server() as server:
        url = f"{scheme}://{await server.ready()}/chat"
        async with home.realtime("connect", url, "--name", NAMES[0]) as process:
            await process.line(lambda line: line.startswith("Received: "))
            server.process.terminate()
            await process.line(lambda line: line.startswith("closed by the server: 1001 shutting down: "))
            assert await process.ended() == 0


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_the_server_is_killed(home: Home, scheme: str) -> None:
    """A server that is killed is a lost connection, and exit code 4."""
    async with home.server() as server:
        url = f"{scheme}://{await server.ready()}/chat"
        async with home.realtime("connect", url, "--name", NAMES[0]) as process:
            await process.line(lambda line: line.startswith("Received: "))
            await server.killed()
            await process.line(lambda line: line.startswith("the connection was lost"))
            assert await process.ended() == 4


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_unreachable(home: Home, scheme: str) -> None:
    """Where nobody listens there is one line that says so, and exit code 3."""
    with socket.socket() as reserved:
        reserved.bind((HOST, 0))  # and nobody listens
        url = f"{scheme}://{HOST}:{reserved.getsockname()[1]}/chat"
        ran = await home.ran("connect", url)
    assert ran == (3, [], f"{url}: cannot connect: connection refused\n")


@pytest.mark.parametrize("scheme", ["wss", "https"])
async def test_no_tls_there(board: Home, scheme: str) -> None:
    """A server that speaks no TLS is one line that says so, and exit code 3."""
    async with board.serving() as address:
        ran = await board.ran("connect", f"{scheme}://{address}/board")
    assert (ran.code, ran.said) == (3, [])
    [line] = ran.errors.splitlines()
    assert line.startswith(f"{scheme}://{address}/board: cannot connect: no TLS")


async def test_no_url(home: Home) -> None:
    """What is no URL is one line, and exit code 2."""
    ran = await home.ran("connect", f"{HOST}/chat")
    assert (ran.code, ran.said) == (2, [])
    assert ran.errors == f"{HOST}/chat: a URL begins with ws://, wss://, http:// or https://\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_ctrl_c(home: Home, number: signal.Signals) -> None:
    """Ctrl-C, or SIGTERM, ends it with 0 and without a word, and the server logs a close with 1000."""
    async with home.server() as server:
        url = f"ws://{await server.ready()}/chat"
        async with home.realtime("connect", url, "--name", NAMES[0], together=False) as process:
            await process.line(lambda line: line.endswith("joined the chat"))
            process.process.send_signal(number)
            assert await process.ended() == 0
        assert process.errors == "WebSocket connected\n"
        await server.line(lambda line: f"({NAMES[0]})" in line and line.endswith("s: 1000"))


async def test_ctrl_c_of_a_stream(home: Home) -> None:
    """Ctrl-C ends a stream of events with 0 and without a word, and the server notices."""
    async with home.server() as server:
        url = f"http://{await server.ready()}/chat"
        async with home.realtime("connect", url, "--name", NAMES[0], together=False) as process:
            await process.line(lambda line: line.startswith("Received: "))
            process.interrupt()
            assert await process.ended() == 0
        assert process.errors == "stream of events connected\n"
        await server.line(lambda line: "lobby: sse c" in line and " left after " in line)


# In pipes


@asynccontextmanager
async def shell(home: Home, script: str, *arguments: str) -> AsyncIterator[Process]:
    """A line of shell; ``realtime`` in it is the command, ``$1`` and so on are the arguments."""
    whole = f'set -o pipefail; realtime() {{ "$0" -m realtime "$@"; }}; {script}'
    command = ["bash", "-c", whole, str(home.python), *arguments]
    async with started(*command, cwd=home.directory, group=True) as process:
        yield process


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_head(home: Home, scheme: str) -> None:
    """``| head -1`` shows the first message and ends all of the pipe without an error."""
    async with home.serving() as address:
        pipe = 'realtime connect "$1" 2>errors | head -1'
        async with shell(home, pipe, f"{scheme}://{address}/events") as process:
            assert await process.ended() == 0, process.text
    [line] = process.said
    assert line.startswith("Received: Current time: ")
    [said] = (home.directory / "errors").read_text().splitlines()
    assert said.endswith(" connected")


async def test_input_from_a_file(home: Home) -> None:
    """A file is sent to its last line, which has no newline, and its end ends nothing."""
    (home.directory / "lines").write_text("one\ntwo\n\nlast")
    line = 'realtime connect "$1" --count 4 <lines 2>errors'
    async with home.serving() as address, shell(home, line, f"ws://{address}/ws") as process:
        assert await process.ended() == 0
    assert received(process.said) == ["Echo: one", "Echo: two", "Echo: ", "Echo: last"]


async def test_windows_lines(home: Home) -> None:
    """A carriage return at the end of a line is no part of it."""
    async with home.serving() as address:
        ran = await home.ran("connect", f"ws://{address}/ws", "--count", "2", typed="one\r\ntwo\r\n")
    assert received(ran.said) == ["Echo: one", "Echo: two"]


@pytest.mark.parametrize("closing", ["</dev/null", "<&-"])
async def test_without_input(board: Home, closing: str) -> None:
    """Without anything to read from it still shows what comes."""
    async with board.serving() as address:
        line = f'realtime connect "$1" --since earliest --count 1 {closing} 2>errors'
        async with shell(board, line, f"ws://{address}/board") as process:
            await published(board, address, GREETING)
            assert await process.ended() == 0
    assert received(process.said) == [GREETING]


async def test_output_that_is_full(home: Home) -> None:
    """Where what is received cannot be written it says so, and is no traceback."""
    async with home.serving() as address:
        line = 'realtime connect "$1" --count 1 >/dev/full'
        async with shell(home, line, f"http://{address}/events") as process:
            assert await process.ended() == 3
    assert process.said[1:] == ["cannot write what is received: no space left on device"]


async def test_many_lines(board: Home) -> None:
    """Lines that come faster than they can be sent all arrive, in order."""
    lines = [f"{GREETING} {number}" for number in range(1000)]
    async with board.serving() as address:
        command = ["connect", f"ws://{address}/board", "--count", str(len(lines))]
        ran = await board.ran(*command, typed="\n".join(lines))
    assert (ran.code, received(ran.said)) == (0, lines)
