"""Echo: what comes back, by the harness and by clients that others wrote."""

from __future__ import annotations

import json

import needs
import pytest
from websockets.asyncio.client import connect
from wire import install_ws, lines, running, soon

from realtime.testing import Serve

ECHO = "channels: {echo: {plugin: echo, path: /ws}}"


@pytest.fixture(scope="session")
def ws(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of node's ``ws``."""
    return install_ws(tmp_path_factory)


@pytest.mark.parametrize("text", ["Hello, Server!", "", "héllo 🎉", "a\nb", "x" * 65_536])
async def test_text(serve: Serve, text: str) -> None:
    """Text ``x`` comes back as ``Echo: x``."""
    async with serve(ECHO) as server, server.ws("/ws") as client:
        await client.send(text)
        await client.expect(f"Echo: {text}")


@pytest.mark.parametrize("data", [b"", b"\x00\x01\xff", bytes(65_536)], ids=len)
async def test_binary(serve: Serve, data: bytes) -> None:
    """Binary comes back as it was."""
    async with serve(ECHO) as server, server.ws("/ws") as client:
        await client.send(data)
        await client.expect(data)


async def test_order(serve: Serve) -> None:
    """Answers come in the order of what was said, text and binary alike."""
    async with serve(ECHO) as server, server.ws("/ws") as client:
        for n in range(100):
            await client.send(str(n))
            await client.send(bytes((n,)))
        for n in range(100):
            await client.expect(f"Echo: {n}", bytes((n,)))


async def test_fragments(serve: Serve) -> None:
    """A message in fragments comes back as one."""
    async with serve(ECHO) as server, connect(server.url("/ws", "ws")) as client:
        await client.send(["one ", "two ", "three"])
        assert await soon(client.recv()) == "Echo: one two three"


async def test_close(serve: Serve) -> None:
    """A close is answered."""
    async with serve(ECHO) as server, connect(server.url("/ws", "ws")) as client:
        await soon(client.close(1000, "done"))
        assert client.protocol.close_rcvd is not None
        assert client.protocol.close_rcvd.code == 1000


async def test_ping(serve: Serve) -> None:
    """A ping is answered."""
    async with serve(ECHO) as server, connect(server.url("/ws", "ws")) as client:
        await soon(await client.ping(b"there?"))


async def test_two_clients(serve: Serve) -> None:
    """Each client hears itself alone."""
    async with serve(ECHO) as server, server.ws("/ws") as one, server.ws("/ws") as other:
        await one.send("one")
        await one.expect("Echo: one")
        await other.assert_nothing()


async def test_too_big(serve: Serve) -> None:
    """A message over 64 KiB, the default, closes with 1009."""
    async with serve(ECHO) as server, server.ws("/ws") as client:
        await client.send("x" * 65_537)
        assert (await client.closed())[0] == 1009


async def test_node(serve: Serve, ws: list[str]) -> None:
    """node's ``ws`` gets its text, its bytes and its close back."""
    async with serve(ECHO) as server, running([*ws, server.url("/ws", "ws")]) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        printed = [json.loads(await soon(process.stdout.readline()))]
        for command in ({"text": "Hello, Server!"}, {"hex": "0001ff"}, {"close": 1000}):
            process.stdin.write(json.dumps(command).encode() + b"\n")
            printed.append(json.loads(await soon(process.stdout.readline())))
    assert printed == [
        {"open": True},
        {"text": "Echo: Hello, Server!"},
        {"hex": "0001ff"},
        {"close": 1000, "reason": ""},
    ]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("hi", {"data": "Echo: hi"}),
        (b"\x00\xff", {"data": "AP8=", "encoding": "base64"}),
        ([1], {"data": [1]}),
    ],
    ids=["text", "bytes", "json"],
)
async def test_post(serve: Serve, said: object, expected: dict[str, object]) -> None:
    """A POST has its echo in the answer."""
    async with serve(ECHO) as server:
        answer = await server.post("/ws", said)
        (message,) = answer.json["messages"]
        assert answer.status == 202
        assert message == {"event": "message", **expected, "time": message["time"]}


async def test_largest_post(serve: Serve) -> None:
    """The largest message can be sent by POST, too."""
    async with serve(ECHO) as server:
        assert (await server.post("/ws", b"x" * 65_536)).status == 202


async def test_curl_is_told_what_it_is(serve: Serve) -> None:
    """curl is told that this is a WebSocket."""
    async with serve(ECHO) as server:
        assert await lines([needs.curl(), "-sN", server.url("/ws")], 1) == [
            "/ws is a WebSocket; open it with ws://, or send one message by POST"
        ]
