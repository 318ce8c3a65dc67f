"""Echo, as clients that others wrote see it."""

from __future__ import annotations

import json

import needs
import pytest
from conftest import Serve
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from wire import install_ws, lines, post, running, soon

ECHO = "channels: {echo: {plugin: echo, path: /ws}}"


@pytest.fixture(scope="session")
def ws(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of node's ``ws``."""
    return install_ws(tmp_path_factory)


@pytest.mark.parametrize("text", ["Hello, Server!", "", "héllo 🎉", "a\nb", "x" * 65_536])
async def test_text(serve: Serve, text: str) -> None:
    """Text ``x`` comes back as ``Echo: x``."""
    async with serve(ECHO) as serving, connect(serving.ws("/ws"), max_size=None) as client:
        await client.send(text)
        assert await soon(client.recv()) == f"Echo: {text}"


@pytest.mark.parametrize("data", [b"", b"\x00\x01\xff", bytes(65_536)], ids=len)
async def test_binary(serve: Serve, data: bytes) -> None:
    """Binary comes back as it was."""
    async with serve(ECHO) as serving, connect(serving.ws("/ws"), max_size=None) as client:
        await client.send(data)
        assert await soon(client.recv()) == data


async def test_order(serve: Serve) -> None:
    """Answers come in the order of what was said, text and binary alike."""
    async with serve(ECHO) as serving, connect(serving.ws("/ws")) as client:
        for n in range(100):
            await client.send(str(n))
            await client.send(bytes((n,)))
        answers = [await soon(client.recv()) for _ in range(200)]
    assert answers == [answer for n in range(100) for answer in (f"Echo: {n}", bytes((n,)))]


async def test_fragments(serve: Serve) -> None:
    """A message in fragments comes back as one."""
    async with serve(ECHO) as serving, connect(serving.ws("/ws")) as client:
        await client.send(["one ", "two ", "three"])
        assert await soon(client.recv()) == "Echo: one two three"


async def test_close(serve: Serve) -> None:
    """A close is answered."""
    async with serve(ECHO) as serving, connect(serving.ws("/ws")) as client:
        await soon(client.close(1000, "done"))
        assert client.protocol.close_rcvd is not None
        assert client.protocol.close_rcvd.code == 1000


async def test_ping(serve: Serve) -> None:
    """A ping is answered."""
    async with serve(ECHO) as serving, connect(serving.ws("/ws")) as client:
        await soon(await client.ping(b"there?"))


async def test_two_clients(serve: Serve) -> None:
    """Each client hears itself alone."""
    async with (
        serve(ECHO) as serving,
        connect(serving.ws("/ws")) as one,
        connect(serving.ws("/ws")) as other,
    ):
        await one.send("one")
        await other.send("other")
        assert await soon(one.recv()) == "Echo: one"
        assert await soon(other.recv()) == "Echo: other"


async def test_too_big(serve: Serve) -> None:
    """A message over 64 KiB, the default, closes with 1009."""
    async with serve(ECHO) as serving, connect(serving.ws("/ws")) as client:
        await client.send("x" * 65_537)
        with pytest.raises(ConnectionClosed) as caught:
            await soon(client.recv())
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009


async def test_node(serve: Serve, ws: list[str]) -> None:
    """node's ``ws`` gets its text, its bytes and its close back."""
    async with serve(ECHO) as serving, running([*ws, serving.ws("/ws")]) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for command in ({"text": "Hello, Server!"}, {"hex": "0001ff"}, {"close": 1000}):
            process.stdin.write(json.dumps(command).encode() + b"\n")
        printed = [json.loads(await soon(process.stdout.readline())) for _ in range(4)]
    assert printed == [
        {"open": True},
        {"text": "Echo: Hello, Server!"},
        {"hex": "0001ff"},
        {"close": 1000, "reason": ""},
    ]


@pytest.mark.parametrize(
    ("kind", "said", "expected"),
    [
        ("text/plain", b"hi", {"data": "Echo: hi"}),
        ("application/octet-stream", b"\x00\xff", {"data": "AP8=", "encoding": "base64"}),
        ("application/json", b"[1]", {"data": [1]}),
    ],
)
async def test_post(serve: Serve, kind: str, said: bytes, expected: dict[str, object]) -> None:
    """A POST has its echo in the answer, of the largest message, too."""
    async with serve(ECHO) as serving:
        head, body = await post(serving.port, "/ws", said, [("Content-Type", kind)])
        (message,) = json.loads(body)["messages"]
        assert (head.status, message) == (202, {"event": "message", **expected, "time": message["time"]})
        assert (await post(serving.port, "/ws", b"x" * 65_536))[0].status == 202


async def test_curl_is_told_what_it_is(serve: Serve) -> None:
    """curl is told that this is a WebSocket."""
    async with serve(ECHO) as serving:
        assert await lines([needs.curl(), "-sN", serving.http("/ws")], 1) == [
            "/ws is a WebSocket; open it with ws://, or send one message by POST"
        ]
