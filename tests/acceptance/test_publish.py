"""`publish`: messages from a script, over POST and over a WebSocket, and what is refused."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

import pytest
from certificates import Authority

from acceptance.board import CONFIG, FILES
from acceptance.world import COUNT, GREETING, HOST, NAMES, SIZE, TOKEN, Home

SCHEMES = ["ws", "http"]
#: A position: the epoch of a topic, and the number of a message in it.
POSITION = re.compile(r"([0-9a-f]+)-([0-9]+)")


@pytest.fixture
def board(home: Home) -> Home:
    """A directory with a board that keeps what was said."""
    home.write(CONFIG, FILES)
    return home


async def kept(home: Home, url: str, count: int) -> list[dict[str, Any]]:
    """All messages that a channel keeps: there are so many."""
    options = ["--since", "earliest", "--json", "--subprotocol", "realtime.v1.json"]
    ran = await home.ran("connect", url, *options, "--count", str(count))
    assert ran.code == 0, ran.errors
    return [json.loads(line) for line in ran.said]


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_one_message(board: Home, scheme: str) -> None:
    """One message is published as it stands, and its id is all that is printed."""
    async with board.serving() as address:
        ran = await board.ran("publish", f"{scheme}://{address}/board", GREETING)
        [message] = await kept(board, f"ws://{address}/board", 1)
    assert ran == (0, [message["id"]], "")
    assert (message["event"], message["data"]) == ("message", GREETING)


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_line_each(board: Home, scheme: str) -> None:
    """Each line of standard input is a message, the last one without a newline, too; each id comes out."""
    lines = [f"{GREETING} {number}" for number in range(COUNT)] + ["", "last"]
    async with board.serving() as address:
        ran = await board.ran("publish", f"{scheme}://{address}/board", typed="\n".join(lines))
        messages = await kept(board, f"ws://{address}/board", len(lines))
    assert (ran.code, ran.errors) == (0, "")
    assert ran.said == [message["id"] for message in messages]
    assert [message["data"] for message in messages] == lines
    positions = [POSITION.fullmatch(line) for line in ran.said]
    offsets = [int(position[2]) for position in positions if position]
    assert offsets == list(range(offsets[0], offsets[0] + len(lines)))


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_an_id_is_there_at_once(board: Home, scheme: str) -> None:
    """A line is published when it is there, and not when the input ends."""
    async with (
        board.serving() as address,
        board.realtime("publish", f"{scheme}://{address}/board", together=False) as process,
    ):
        process.type("first\n")
        first = await process.line(lambda line: bool(POSITION.fullmatch(line)))
        process.type("second\n")
        await process.line(lambda line: line != first)


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_no_lines(board: Home, scheme: str) -> None:
    """Without a line nothing is published, and that is no error."""
    async with board.serving() as address:
        ran = await board.ran("publish", f"{scheme}://{address}/board")
    assert ran == (0, [], "")


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_an_event(board: Home, scheme: str) -> None:
    """``--event`` names the event."""
    async with board.serving() as address:
        ran = await board.ran("publish", f"{scheme}://{address}/board", GREETING, "--event", "alarm")
        [message] = await kept(board, f"ws://{address}/board", 1)
    assert ran.code == 0, ran.errors
    assert (message["event"], message["data"]) == ("alarm", GREETING)


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_name(home: Home, scheme: str) -> None:
    """``--name`` is who says it in a chat."""
    async with home.serving() as address:
        ran = await home.ran("publish", f"{scheme}://{address}/chat", GREETING, "--name", NAMES[1])
        [position] = ran.said
        count = {"http": 1, "ws": 3}[scheme]  # over a WebSocket one comes, says it, and leaves
        shown = await home.ran(
            "connect", f"http://{address}/chat", "--since=-3", "--count", f"{count}", "--json"
        )
    [said] = [one for one in map(json.loads, shown.said) if one["event"] == "message"]
    assert (ran.code, said["id"]) == (0, position)
    assert said["data"] == {"from": NAMES[1], "text": GREETING}


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_json(board: Home, scheme: str) -> None:
    """With ``--json`` the data is JSON, and without it the same is text."""
    text = json.dumps({"greeting": GREETING, "list": [1, 2.5, None, True]})
    async with board.serving() as address:
        url = f"{scheme}://{address}/board"
        for options in (["--json"], []):
            ran = await board.ran("publish", url, text, *options)
            assert ran.code == 0, ran.errors
        as_json, as_text = await kept(board, f"ws://{address}/board", 2)
    assert (as_json["data"], as_text["data"]) == (json.loads(text), text)


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_no_json(board: Home, scheme: str) -> None:
    """A line that is no JSON ends it with 2, and says how many were published before."""
    async with board.serving() as address:
        ran = await board.ran(
            "publish", f"{scheme}://{address}/board", "--json", typed='1\n"two"\n{no\n4\n'
        )
        await kept(board, f"ws://{address}/board", 2)
    assert (ran.code, len(ran.said)) == (2, 2)
    first, second = ran.errors.splitlines()
    assert first.startswith("'{no' is no JSON: ")
    assert second == "published before it: 2"


@pytest.mark.parametrize("scheme", ["wss", "https"])
async def test_over_tls(home: Home, scheme: str) -> None:
    """Over TLS a certificate of one's own is trusted by ``--cafile``."""
    authority = Authority(home.directory)
    home.write(f"server: {{tls: {{cert: cert.pem, key: key.pem}}}}\n{CONFIG}", FILES)
    async with home.serving() as address:
        ran = await home.ran(
            "publish", f"{scheme}://{address}/board", GREETING, "--cafile", str(authority.ca)
        )
    assert (ran.code, len(ran.said), ran.errors) == (0, 1, "")


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_header(home: Home, scheme: str) -> None:
    """With ``-H`` one shows a token, and without it one is refused, in words and with 4."""
    home.write(f"plugins: [tokens]\n{CONFIG}", FILES)
    async with home.serving() as address:
        command = ["publish", f"{scheme}://{address}/board", GREETING]
        ran = await home.ran(*command, "-H", f"Authorization: Bearer {TOKEN}")
        refused = await home.ran(*command)
    assert (ran.code, len(ran.said)) == (0, 1)
    assert (refused.code, refused.said) == (4, [])
    assert refused.errors.endswith(": 401 Unauthorized: this token is not known\n")


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_reserved_event(board: Home, scheme: str) -> None:
    """An event of the server's own is refused by name, and ends it with an error."""
    async with board.serving() as address:
        ran = await board.ran("publish", f"{scheme}://{address}/board", GREETING, "--event", "realtime:bye")
    assert ran.code != 0
    assert ran.said == []
    assert "realtime:" in ran.errors
    assert "Traceback" not in ran.errors


async def test_a_channel_that_takes_none(home: Home) -> None:
    """A channel that takes no POST is a refusal with its status and sentence, and exit code 4."""
    async with home.serving() as address:
        ran = await home.ran("publish", f"http://{address}/events", GREETING)
    said = f"http://{address}/events: the message was refused: 405 Method Not Allowed: /events "
    assert (ran.code, ran.said) == (4, [])
    assert ran.errors.startswith(said)


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_too_big(board: Home, scheme: str) -> None:
    """A message that is too big ends it with 4, and it says how many lines were published before."""
    board.write(CONFIG.replace("limits: {", f"limits: {{max_message: {SIZE}B, "))
    async with board.serving() as address:
        lines = f"one\n{'x' * (SIZE + 1)}\nthree\n"
        ran = await board.ran("publish", f"{scheme}://{address}/board", typed=lines)
        await kept(board, f"ws://{address}/board", 1)
    assert (ran.code, len(ran.said)) == (4, 1)
    assert ran.errors.splitlines()[-1] == "published before it: 1"


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_unreachable(home: Home, scheme: str) -> None:
    """Where nobody listens there is one line that says so, and exit code 3."""
    with socket.socket() as reserved:
        reserved.bind((HOST, 0))  # and nobody listens
        url = f"{scheme}://{HOST}:{reserved.getsockname()[1]}/board"
        ran = await home.ran("publish", url, GREETING)
    assert ran == (3, [], f"{url}: cannot connect: connection refused\n")


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_ctrl_c(board: Home, scheme: str) -> None:
    """Ctrl-C ends it without an error, and it says how many messages were published."""
    async with (
        board.serving() as address,
        board.realtime("publish", f"{scheme}://{address}/board", together=False) as process,
    ):
        process.type("one\ntwo\n")
        first = await process.line(bool)
        await process.line(lambda line: line != first)
        process.interrupt()
        assert await process.ended() == 0
    assert process.errors == "stopped; published: 2\n"
