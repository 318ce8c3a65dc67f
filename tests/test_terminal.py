"""The clients of the command line: lines in, messages out, and how it ends."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from conftest import FLOODED, Serve
from servers import V1, answering, certificate, closed_port, frame, http, stream, websocket
from websockets.asyncio.server import ServerConnection
from wire import eventually

from realtime import terminal
from realtime.message import Message

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(terminal.__file__).parent.parent),
    "PYTHONDONTWRITEBYTECODE": "1",
}
ECHO = "channels: {echo: {plugin: echo, path: /ws}}"
CHAT = "channels: {chat: {plugin: chat, path: /chat, history: 9}}"
CLOCK = "channels: {clock: {plugin: clock, path: /events, interval: 10ms}}"
#: How long anything may take, in seconds: far more than it does, on a busy machine too.
PATIENCE = 30.0


class Client:
    """A client that runs in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr

    def type(self, text: str | bytes) -> None:
        """Type something."""
        self.stdin.write(text.encode() if isinstance(text, str) else text)

    async def line(self) -> str:
        """The next line of its output."""
        async with asyncio.timeout(PATIENCE):
            return (await self.stdout.readline()).decode()

    async def says(self) -> str:
        """The next line of what else it says."""
        async with asyncio.timeout(PATIENCE):
            return (await self.stderr.readline()).decode()

    async def end(self) -> tuple[int, str, str]:
        """Wait for its end; returns exit code, output and what else it said."""
        async with asyncio.timeout(PATIENCE):
            out, said = await self.stdout.read(), await self.stderr.read()
            return await self.process.wait(), out.decode(), said.decode()


@asynccontextmanager
async def running(*arguments: str, **environment: str) -> AsyncIterator[Client]:
    """``python -m realtime``; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "realtime", *arguments),
        env={**ENVIRONMENT, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    running = Client(process)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def connecting(url: str, *arguments: str, **environment: str) -> AbstractAsyncContextManager[Client]:
    """``python -m realtime connect URL``."""
    return running("connect", url, *arguments, **environment)


async def published(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """Exit code, output and what else was said by ``python -m realtime publish``."""
    async with running("publish", *arguments) as process:
        process.type(stdin)
        process.stdin.close()
        return await process.end()


async def ended(url: str, *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and what else was said by a client that ends by itself."""
    async with connecting(url, *arguments) as connection:
        return await connection.end()


# WebSocket


async def test_echo(serve: Serve) -> None:
    """A line goes out, what comes back is shown; the rest is on standard error."""
    async with serve(ECHO) as serving, connecting(serving.ws("/ws")) as connection:
        assert await connection.says() == "WebSocket connected\n"
        connection.type("Hello, Server!\n")
        assert await connection.line() == "Received: Echo: Hello, Server!\n"
        connection.type("again\r\n\nlast")
        assert await connection.line() == "Received: Echo: again\n"
        assert await connection.line() == "Received: Echo: \n"
        connection.stdin.close()
        assert await connection.line() == "Received: Echo: last\n"


async def test_end_of_input_does_not_end_it(serve: Serve) -> None:
    """When there is nothing more to send it goes on listening."""
    async with serve(ECHO) as serving, connecting(serving.ws("/ws")) as connection:
        connection.stdin.close()
        assert await connection.says() == "WebSocket connected\n"
        echo = serving.server.channels["echo"]
        await echo.publish("echo", "still there?")
        assert await connection.line() == "Received: still there?\n"


async def test_binary_is_shown() -> None:
    """Bytes are shown, those that are no text as escapes."""

    async def handler(server: ServerConnection) -> None:
        await server.send(b"caf\xc3\xa9 \xff")

    async with websocket(handler) as url:
        assert (await ended(url))[:2] == (0, "Received: café \\xff\n")


async def test_text_that_the_terminal_cannot_show() -> None:
    """What the output's encoding does not have is shown as an escape."""

    async def handler(server: ServerConnection) -> None:
        await server.send("café")

    async with websocket(handler) as url, connecting(url, PYTHONIOENCODING="ascii") as connection:
        assert await connection.end() == (
            0,
            "Received: caf\\xe9\n",
            "WebSocket connected\nclosed by the server: 1000 done\n",
        )


async def test_large_messages_in_both_directions() -> None:
    """Neither a line nor a message has a limit of the client's."""

    async def handler(server: ServerConnection) -> None:
        await server.send(await server.recv())

    async with websocket(handler) as url, connecting(url) as connection:
        connection.type("x" * 1_000_000 + "\n")
        code, out, _ = await connection.end()
        assert (code, len(out)) == (0, len("Received: \n") + 1_000_000)


async def test_count_ends_it(serve: Serve) -> None:
    """After ``--count`` messages it closes and ends with exit code 0."""
    async with serve(ECHO) as serving, connecting(serving.ws("/ws"), "--count", "2") as connection:
        connection.type("a\nb\nc\n")
        assert await connection.end() == (
            0,
            "Received: Echo: a\nReceived: Echo: b\n",
            "WebSocket connected\n",
        )


async def test_count_closes_with_1000() -> None:
    """After ``--count`` messages the server sees a close with 1000."""
    codes = []

    async def handler(server: ServerConnection) -> None:
        await server.send("one")
        await server.wait_closed()
        codes.append(server.close_code)

    async with websocket(handler) as url:
        assert (await ended(url, "--count", "1"))[0] == 0
    assert codes == [1000]


async def test_name_is_the_first_line(serve: Serve) -> None:
    """``--name`` is sent before any line."""
    arguments = ["--name", "alice", "--count", "2"]
    async with serve(CHAT) as serving, connecting(serving.ws("/chat"), *arguments) as connection:
        connection.type("hi\n")
        _, out, _ = await connection.end()
        assert out == "Received: alice joined the chat\nReceived: alice: hi\n"


async def test_in_a_pipe(serve: Serve) -> None:
    """It can stand in a pipe; when the reader has enough it ends with exit code 0 and no word."""
    # The server does not mind how much comes before the reader of two lines is gone. That is more than a
    # pipe holds, and no more: all that was said is answered before the client's goodbye.
    config = f"channels: {{echo: {{plugin: echo, path: /ws, {FLOODED}}}}}"
    async with serve(config) as serving:
        process = await asyncio.create_subprocess_exec(
            *(
                "sh",
                "-c",
                'yes | head -n 20000 | "$0" -m realtime connect "$1" | head -n 2; echo done',
                sys.executable,
            ),
            serving.ws("/ws"),
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE):
            out, said = await process.communicate()
        assert out.decode() == "Received: Echo: y\n" * 2 + "done\n"
        assert said.decode() == "WebSocket connected\n"


async def test_without_standard_input(serve: Serve) -> None:
    """Without standard input it only listens."""
    async with serve(CLOCK) as serving:
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", 'exec "$0" -m realtime connect "$1" --count 1 <&-', sys.executable),
            serving.ws("/events"),
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE):
            out, said = await process.communicate()
        assert out.startswith(b"Received: Current time: ")
        assert (process.returncode, said) == (0, b"WebSocket connected\n")


async def test_interrupt_closes_with_1000() -> None:
    """Ctrl-C closes with 1000, which the server sees, and ends with exit code 0 and no traceback."""
    codes = []

    async def handler(server: ServerConnection) -> None:
        await server.send("hi")
        await server.wait_closed()
        codes.append(server.close_code)

    async with websocket(handler) as url, connecting(url) as connection:
        assert await connection.line() == "Received: hi\n"
        connection.process.send_signal(signal.SIGINT)
        assert await connection.end() == (0, "", "WebSocket connected\n")
    assert codes == [1000]


async def test_closing_does_not_wait_for_ever() -> None:
    """A server that does not answer the close does not hold it up for long."""
    answer = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %s\r\n\r\n\x81\x02hi"
    )

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        [key] = [
            line[19:] for line in request.split("\r\n") if line.lower().startswith("sec-websocket-key")
        ]
        digest = hashlib.sha1(f"{key.strip()}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        writer.write(answer % base64.b64encode(digest))
        await reader.read()  # and never a word more
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with connecting(url, "--count", "1") as connection:
            assert await connection.line() == "Received: hi\n"
            async with asyncio.timeout(5):
                assert (await connection.end())[0] == 0


# How it is closed


@pytest.mark.parametrize(
    ("code", "reason", "exit_code", "said"),
    [
        (1000, "bye", 0, "1000 done: bye"),
        (1001, "restarting", 0, "1001 shutting down: restarting (connecting again makes sense)"),
        (1012, "", 0, "1012 restarting (connecting again makes sense)"),
        (1003, "text only", 4, "1003 wrong kind: text only (the same again will not help)"),
        (1008, "no name", 4, "1008 policy: no name (the same again will not help)"),
        (1011, "a bug", 4, "1011 bug: a bug (connecting again makes sense)"),
        (1013, "too slow", 4, "1013 try again: too slow (connecting again makes sense)"),
        (4403, "not you", 4, "4403 not allowed: not you (the same again will not help)"),
        (4509, "", 4, "4509 name taken (connecting again makes sense)"),
        (4711, "ours", 4, "4711: ours (connecting again makes sense)"),
        (1008, "\x1b[2J", 4, "1008 policy: \\x1b[2J (the same again will not help)"),
    ],
)
async def test_closed_by_the_server(code: int, reason: str, exit_code: int, said: str) -> None:
    """It says in words how it was closed; the exit code is 4 when that was for an error."""

    async def handler(server: ServerConnection) -> None:
        await server.close(code, reason)

    async with websocket(handler) as url:
        assert await ended(url) == (
            exit_code,
            "",
            f"WebSocket connected\nclosed by the server: {said}\n",
        )


async def test_what_the_channel_refuses(serve: Serve) -> None:
    """A channel's own refusal is said with its reason."""
    async with serve(CHAT) as serving:
        code, _, said = await ended(serving.ws("/chat"), "--name", "x" * 99)
        assert (code, said.splitlines()[1:]) == (
            4,
            [
                "closed by the server: 1008 policy: a name is 1 to 32 printable characters "
                "(the same again will not help)"
            ],
        )


async def test_connection_that_is_lost() -> None:
    """A connection that breaks without a close is exit code 4."""

    async def handler(server: ServerConnection) -> None:
        await server.send("hi")
        server.transport.abort()

    async with websocket(handler) as url:
        code, _, said = await ended(url)
        assert (code, said) == (4, "WebSocket connected\nthe connection was lost\n")


# Cannot connect


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_nobody_there(scheme: str) -> None:
    """A server that is not there is exit code 3 and a line."""
    url = f"{scheme}://127.0.0.1:{closed_port()}/ws"
    assert await ended(url) == (3, "", f"{url}: cannot connect: connection refused\n")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("localhost:8080", "a URL begins with ws://, wss://, http:// or https://"),
        ("ftp://localhost/", "a URL begins with ws://, wss://, http:// or https://"),
        ("", "a URL begins with ws://, wss://, http:// or https://"),
        ("ws://[::1/", "a URL begins with ws://, wss://, http:// or https://"),
        ("ws://h:99999/", "a URL begins with ws://, wss://, http:// or https://"),
        ("ws://", "this is no URL"),
        ("http://", "this is no URL"),
    ],
)
async def test_bad_url(url: str, why: str) -> None:
    """What is no URL is exit code 2 and a line."""
    assert await ended(url) == (2, "", f"{url}: {why}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("connect", "ws://127.0.0.1:1/", "--name", "\udcff"),
        ("connect", "http://127.0.0.1:1/", "--name", "\udcff"),
        ("connect", "ws://127.0.0.1:1/\udcff"),
        ("connect", "ws://127.0.0.1:1/", "--subprotocol", "\udcff"),
        ("publish", "ws://127.0.0.1:1/", "\udcff"),
        ("publish", "http://127.0.0.1:1/", "hi", "--name", "\udcff"),
        ("publish", "http://127.0.0.1:1/", "hi", "--event", "\udcff"),
    ],
    ids=" ".join,
)
async def test_argument_that_is_no_text(arguments: tuple[str, ...]) -> None:
    """An argument whose bytes are not UTF-8 is exit code 2 and a line, and nothing is connected to."""
    async with running(*arguments) as process:
        code, out, said = await process.end()
    assert (code, out, said.count("\n")) == (2, "", 1)
    assert " is not UTF-8: '" in said
    assert "\\udcff'" in said


async def test_no_name_of_a_host() -> None:
    """A host whose name cannot be one is exit code 3 and a line."""
    url = "ws://a..b/"
    assert await ended(url) == (3, "", f"{url}: cannot connect: this can be no name of a host\n")


async def test_path_that_is_not_there(serve: Serve) -> None:
    """A path that nothing serves is said with what the server answers."""
    async with serve(ECHO) as serving:
        for url in (serving.ws("/nowhere"), serving.http("/nowhere")):
            code, out, said = await ended(url)
            assert (code, out, said.count("\n")) == (3, "", 1)
            assert said.startswith(f"{url}: no ")
            assert said.endswith(": 404 Not Found\n")


async def test_channel_without_that_transport(serve: Serve) -> None:
    """The sentence of the server that says what to use is shown."""
    async with serve(ECHO) as serving:
        url = serving.http("/ws")
        assert await ended(url) == (
            3,
            "",
            f"{url}: no stream of events: 426 Upgrade Required: "
            "/ws is a WebSocket; open it with ws://, or send one message by POST\n",
        )


@pytest.mark.parametrize("scheme", ["ws", "http"])
@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_server_of_something_else(scheme: str, answer: bytes) -> None:
    """A server that is none of ours is exit code 3 and a line."""
    async with answering(answer) as address:
        code, out, said = await ended(f"{scheme}://{address}/")
        assert (code, out, said.count("\n")) == (3, "", 1)


async def test_server_that_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A server that accepts and never answers is given up after the time-out."""
    async with answering(b"", then_close=False) as address, asyncio.timeout(PATIENCE):
        codes = [
            await terminal.connect(f"{scheme}://{address}/", timeout=0.05) for scheme in ("ws", "http")
        ]
    assert codes == [3, 3]
    assert capsys.readouterr().err == (
        f"ws://{address}/: no answer within 0.05s\nhttp://{address}/: no answer within 0.05s\n"
    )


# Server-sent events


async def test_events(serve: Serve) -> None:
    """An http:// URL is read as server-sent events."""
    async with serve(CLOCK) as serving:
        code, out, said = await ended(serving.http("/events"), "--count", "3")
        assert (code, said) == (0, "stream of events connected\n")
        assert [line.partition(" 2")[0] for line in out.splitlines()] == ["Received: Current time:"] * 3


async def test_name_of_a_reader(serve: Serve) -> None:
    """On an http:// URL ``--name`` is the parameter of that name."""
    async with serve(CHAT) as serving:
        url = serving.http("/chat?since=earliest")
        _, out, _ = await ended(url, "--name", "alice", "--count", "1")
        assert re.fullmatch(r'Received: {"client":"c\d+","name":"alice"}\n', out)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("data: one\n\ndata: two\n\n", ["one", "two"]),
        ("data: one\r\n\r\ndata: two\r\r:\r", ["one", "two"]),
        ("data:one\ndata: two\n\n", ["one", "two"]),
        (": comment\n\nid: 1\nevent: x\ndata: one\n\n", ["one"]),
        ("data: unfinished", []),
        ("data: " + "x" * 300_000 + "\n\n", ["x" * 300_000]),
        (b"data: caf\xc3\xa9 \xff\n\n", ["café \ufffd"]),
    ],
)
async def test_stream(body: str | bytes, shown: list[str]) -> None:
    """A stream is read by the rules of server-sent events, lines of any length."""
    async with answering(stream(body)) as address:
        code, out, said = await ended(f"http://{address}/")
    assert out.removeprefix("Received: ").replace("Received: ", "").splitlines() == shown
    assert (code, said) == (0, "stream of events connected\nthe stream has ended\n")


async def test_stream_that_is_cut() -> None:
    """A stream that breaks off in a chunk is exit code 4."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with answering(answer + b"b\r\ndata: one\n\n\r\n5\r\nda") as address:
        assert await ended(f"http://{address}/") == (
            4,
            "Received: one\n",
            "stream of events connected\nthe connection was lost\n",
        )


async def test_interrupt_of_a_stream(serve: Serve) -> None:
    """Ctrl-C ends a stream with exit code 0; the server sees the client leave."""
    async with serve(CLOCK) as serving, connecting(serving.http("/events")) as connection:
        assert (await connection.line()).startswith("Received: Current time: ")
        connection.process.send_signal(signal.SIGINT)
        code, _, said = await connection.end()
        assert (code, said) == (0, "stream of events connected\n")
        await eventually(lambda: not serving.server.channels["clock"].clients)


async def test_lines_are_posted(serve: Serve) -> None:
    """Over http:// each line is a POST; a refusal is said, and it goes on listening."""
    async with serve(CHAT) as serving, connecting(serving.http("/chat")) as connection:
        assert await connection.says() == "stream of events connected\n"
        connection.type("who am I?\n")
        assert await connection.says() == (
            f"{serving.http('/chat')}: the message was refused: 400 Bad Request: "
            "say who you are with ?name=…: a name is 1 to 32 printable characters\n"
        )
        await serving.server.channels["chat"].publish("chat", "still there?")
        assert await connection.line() == 'Received: {"members":[]}\n'
        assert await connection.line() == "Received: still there?\n"


async def test_posted_lines_come_back(serve: Serve) -> None:
    """What is posted by ``--name`` comes back on the stream."""
    async with serve(CHAT) as serving:
        arguments = ["--name", "alice", "--count", "3"]
        async with connecting(serving.http("/chat"), *arguments) as connection:
            connection.type("hi\n")
            code, out, _ = await connection.end()
            assert (code, out.splitlines()[-1]) == (0, 'Received: {"from":"alice","text":"hi"}')


# Options


async def test_headers() -> None:
    """``-H`` sends a header, and may be repeated."""

    async def handler(server: ServerConnection) -> None:
        assert server.request is not None
        await server.send(f"{server.request.headers.get_all('X-A')} {server.request.headers['X-B']}")

    async with websocket(handler) as url:
        options = ("-H", "X-A: 1", "--header", "X-A:2", "-H", "X-B: c d ")
        assert (await ended(url, *options))[:2] == (0, "Received: ['1', '2'] c d\n")


@pytest.mark.parametrize("header", ["no colon", ": value", "a b: c", "X: a\nY: b"])
async def test_bad_header(header: str) -> None:
    """What is no header is exit code 2."""
    code, out, said = await ended("ws://127.0.0.1:1/", "-H", header)
    assert (code, out) == (2, "")
    assert "expected 'Name: value'" in said


async def test_since(serve: Serve) -> None:
    """``--since`` takes a position, the newest N, or all that is kept."""
    async with serve(CHAT) as serving:
        chat = serving.server.channels["chat"]
        positions = [await chat.publish("chat", text) for text in ("one", "two", "three")]
        for since in (str(positions[0]), "-2", "earliest"):
            arguments = ["--since", since, "--count", "2"]
            first = "one" if since == "earliest" else "two"
            _, out, _ = await ended(serving.http("/chat"), *arguments)
            assert out.startswith(f"Received: {first}\n")


async def test_bad_since() -> None:
    """What is no position is exit code 2."""
    code, _, said = await ended("ws://127.0.0.1:1/", "--since", "yesterday")
    assert code == 2
    assert "'yesterday' is no position" in said


async def test_json(serve: Serve) -> None:
    """``--json`` prints the object of each message, whatever the transport."""
    async with serve(CHAT) as serving:
        position = await serving.server.channels["chat"].publish("chat", {"a": 1}, event="score")
        await serving.server.channels["chat"].publish("chat", b"\xff")
        options = ["--json", "--since", "-2", "--count", "2"]
        _, over_sse, _ = await ended(serving.http("/chat"), *options)
        options += ["--name", "al", "--subprotocol", "realtime.v1.json"]
        _, over_v1, _ = await ended(serving.ws("/chat"), *options)
        for out in (over_v1, over_sse):
            score, binary = map(json.loads, out.splitlines())
            assert (score["id"], score["event"], score["data"]) == (str(position), "score", {"a": 1})
            assert (binary["data"], binary["encoding"]) == ("/w==", "base64")


@pytest.mark.parametrize("event", ["realtime:x", "x"])
async def test_json_is_one_line(event: str) -> None:
    """A message is one line of JSON, however many its sender wrote it in."""
    body = f'event: {event}\ndata: {{"a":\ndata: {{"forged": true}}\ndata: }}\n\n'
    async with answering(stream(body)) as address:
        code, out, _ = await ended(f"http://{address}/", "--json")
    assert (code, out.count("\n")) == (0, 1)
    assert json.loads(out)["event"] == event


async def test_without_standard_error(serve: Serve) -> None:
    """Where standard error is closed, nothing but messages is on standard output."""
    async with serve(ECHO) as serving:
        command = [sys.executable, "-m", "realtime", "connect", serving.ws("/ws"), "--count", "1"]
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", 'exec "$@" 2>&-', "sh", *command),
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE):
            out, _ = await process.communicate(b"hi\n")
    assert out == b"Received: Echo: hi\n"


async def test_subprotocol(serve: Serve) -> None:
    """With ``realtime.v1.json`` a line is sent as data, and messages are shown by theirs."""
    async with serve(ECHO) as serving:
        arguments = ["--subprotocol", "other", "--subprotocol", "realtime.v1.json", "--count", "1"]
        async with connecting(serving.ws("/ws"), *arguments) as connection:
            connection.type("hi\n")
            assert (await connection.end())[:2] == (0, "Received: Echo: hi\n")


async def test_loss_is_told(serve: Serve) -> None:
    """A gap and a reset are said beside the messages; with ``--json`` they stand among them."""
    async with serve(CHAT) as serving:
        await serving.server.channels["chat"].publish("chat", "one")
        options = ["--since", "0ff0ff00-3", "--count", "1"]
        assert await ended(serving.http("/chat"), *options) == (
            0,
            "Received: one\n",
            "stream of events connected\nmessages were missed: nobody knows how many\n",
        )
        _, out, _ = await ended(serving.http("/chat"), *options, "--json")
        assert [json.loads(line)["event"] for line in out.splitlines()] == ["realtime:reset", "message"]


async def test_engine_that_is_away_is_told(serve: Serve) -> None:
    """That the server takes nothing, and that it does again, is said beside the messages."""
    async with serve(CHAT.replace("history", "presence: off, history")) as serving:
        bus = serving.server.bus
        await bus.publish("chat", "one")
        await bus.tell(Message.of({"reason": "nothing is kept"}, event="realtime:degraded", time=1.0), True)
        async with connecting(serving.http("/chat"), "--since", "-1", "--count", "2") as connection:
            assert [await connection.says() for _ in range(2)] == [
                "stream of events connected\n",
                "nothing is kept\n",
            ]
            await bus.tell(Message.of({}, event="realtime:restored", time=2.0))
            assert await connection.says() == "the server takes messages again\n"
            await bus.publish("chat", "two")
            assert (await connection.end())[:2] == (0, "Received: one\nReceived: two\n")


async def test_certificate(tmp_path: Path) -> None:
    """A self-signed certificate is told with what helps, and ``--cafile`` helps."""
    context, file = certificate(tmp_path)

    async def handler(server: ServerConnection) -> None:
        await server.send("secret")

    async with websocket(handler, ssl=context) as url:
        assert await ended(url) == (
            3,
            "",
            f"{url}: cannot connect: its certificate is not trusted: self-signed certificate; "
            "--cafile FILE trusts the certificate in FILE\n",
        )
        assert (await ended(url, "--cafile", str(file)))[:2] == (0, "Received: secret\n")


@pytest.mark.parametrize("command", ["connect", "publish"])
async def test_bad_cafile(command: str, tmp_path: Path) -> None:
    """A file without certificates is exit code 2 and a line."""
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    for file, why in (
        (empty, "it has no certificates in PEM"),
        (tmp_path / "x", "No such file or directory"),
    ):
        async with running(command, "wss://127.0.0.1:1/", "--cafile", str(file)) as process:
            assert await process.end() == (2, "", f"{file}: {why}\n")


async def test_hostile_server_does_not_drive_a_terminal() -> None:
    """On a terminal control characters are shown as escapes; in a pipe nothing is changed."""

    async def handler(server: ServerConnection) -> None:
        await server.send("\x1b]0;title\x07 \u202e \x9b2J café\tok")

    async with websocket(handler) as url:
        assert (await ended(url))[1] == "Received: \x1b]0;title\x07 \u202e \x9b2J café\tok\n"
        for option in ([], ["--json"]):
            shown = await on_a_terminal("connect", url, *option)
            assert "\\u001b]0;title" in shown
            assert not set("\x1b\x07\x9b\u202e") & set(shown)


async def on_a_terminal(*arguments: str) -> str:
    """What the command prints to a terminal."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "realtime", *arguments),
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    try:
        async with asyncio.timeout(PATIENCE):
            await process.wait()
        return os.read(ours, 65536).decode()
    finally:
        os.close(ours)


async def test_interrupt_while_connecting() -> None:
    """Ctrl-C ends it with exit code 0 also while it waits for the server's answer."""
    connected = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        connected.set()
        await reader.read()

    async with http(handle) as address, connecting(f"ws://{address}/") as connection:
        await connected.wait()
        connection.process.send_signal(signal.SIGINT)
        assert await connection.end() == (0, "", "")


# publish


async def test_publish_by_post(serve: Serve) -> None:
    """DATA is posted, and its id is all that is printed."""
    async with serve(CHAT) as serving:
        code, out, said = await published(serving.http("/chat"), "hi", "--name", "alice")
        chat = serving.server.bus.topic("chat")
        assert (code, out, said) == (0, f"{chat.position}\n", "")
        assert [message.data for message in chat.history()] == [{"from": "alice", "text": "hi"}]


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_publish_lines(serve: Serve, scheme: str) -> None:
    """Without DATA each line of standard input is published, the last one also if it does not end."""
    async with serve(CHAT) as serving:
        url = f"{scheme}://{serving.address}/chat"
        code, out, said = await published(url, "--name", "alice", stdin="one\n\u00fc\r\nthree")
        said_there = [m for m in serving.server.bus.topic("chat").history() if m.event == "message"]
        assert (code, out.splitlines(), said) == (0, [str(message.id) for message in said_there], "")
        assert [message.data["text"] for message in said_there] == ["one", "ü", "three"]


async def test_publish_json_and_event() -> None:
    """With ``--json`` the data is JSON; ``--event`` names the event."""
    got = []

    async def handler(server: ServerConnection) -> None:
        got.append(json.loads(await server.recv()))
        await server.send(frame("realtime:ack", ref=1, id="e-5"))
        await server.wait_closed()
        got.append(server.close_code)

    async with websocket(handler, V1) as url:
        assert await published(url, '{"goal": 1}', "--json", "--event", "score") == (0, "e-5\n", "")
    assert got == [{"event": "score", "data": {"goal": 1}, "ref": 1}, 1000]


async def test_publish_what_is_no_json() -> None:
    """What is no JSON is exit code 2, and says what was published before it."""
    async with websocket(lambda server: server.wait_closed()) as url:
        code, out, said = await published(url, "--json", stdin='{"a": 1}\n{a}\n')
        assert (code, out) == (2, "")
        assert said.startswith("'{a}' is no JSON: ")
        assert said.endswith("\npublished before it: 1\n")


async def test_publish_to_a_plain_channel() -> None:
    """A server without the subprotocol gets plain frames, the name first, and a close with 1000."""
    got: list[str | bytes | int | None] = []

    async def handler(server: ServerConnection) -> None:
        got.extend([await server.recv(), await server.recv()])
        await server.wait_closed()
        got.append(server.close_code)

    async with websocket(handler) as url:
        assert await published(url, "hi", "--name", "alice") == (0, "", "")
    assert got == ["alice", "hi", 1000]


async def test_publish_among_many_messages() -> None:
    """What a busy channel says meanwhile does not stand in the way."""

    async def handler(server: ServerConnection) -> None:
        async for text in server:
            for _ in range(300):
                await server.send(frame("message", "x" * 100_000))
            await server.send(frame("realtime:ack", ref=json.loads(text)["ref"], id="e-1"))

    async with websocket(handler, V1) as url:
        assert await published(url, stdin="a\nb\n") == (0, "e-1\ne-1\n", "")


async def test_publish_that_is_refused() -> None:
    """A refusal is told with status and body, exit code 4, and what was published before it."""
    answers = [
        b'HTTP/1.1 202 Accepted\r\nContent-Length: 12\r\n\r\n{"id":"e-1"}',
        b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 5\r\n\r\nslow\n",
    ]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(1)
            writer.write(answer)

    async with http(handle) as address:
        assert await published(f"http://{address}/", stdin="a\nb\nc\n") == (
            4,
            "e-1\n",
            f"http://{address}/: the message was refused: 429 Too Many Requests: slow\n"
            "published before it: 1\n",
        )


async def test_publish_faster_than_allowed(serve: Serve) -> None:
    """Lines that are too many for the channel's rate are not lost: each is published when it may be."""
    async with serve(f"{CHAT[:-2]}, limits: {{inbound_rate: 3, inbound_burst: 2}}}}}}") as serving:
        lines = "one\ntwo\nthree\nfour\n"
        code, _, said = await published(serving.http("/chat"), "--name", "alice", stdin=lines)
        assert (code, said) == (0, "")
        said_there = [message.data["text"] for message in serving.server.bus.topic("chat").history()]
        assert said_there == ["one", "two", "three", "four"]


async def test_publish_to_a_server_that_closes(serve: Serve) -> None:
    """A close instead of an ack is told in words, and is exit code 4."""
    async with serve(CHAT) as serving:
        code, out, said = await published(serving.ws("/chat"), "hi", "--name", "x" * 99)
        assert (code, out) == (4, "")
        assert "the message may have arrived, or not" in said or "1008 policy" in said


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_publish_where_nobody_is(scheme: str) -> None:
    """A server that is not there is exit code 3."""
    url = f"{scheme}://127.0.0.1:{closed_port()}/"
    assert await published(url, "hi") == (3, "", f"{url}: cannot connect: connection refused\n")


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_publish_to_what_is_not_there(serve: Serve, scheme: str) -> None:
    """A path that nothing serves is exit code 4, and told with the status."""
    async with serve(ECHO) as serving:
        code, out, said = await published(f"{scheme}://{serving.address}/x", "hi")
        assert (code, out) == (4, "")
        assert said.endswith(": 404 Not Found\n")


async def test_publish_to_no_url() -> None:
    """What is no URL is exit code 2."""
    assert (await published("localhost:8080", "hi"))[0] == 2


async def test_publish_is_interrupted(serve: Serve) -> None:
    """Ctrl-C says how many were published, and ends with exit code 0."""
    async with (
        serve(CHAT) as serving,
        running("publish", serving.http("/chat"), "--name", "al") as process,
    ):
        process.type("one\n")
        await process.line()
        process.process.send_signal(signal.SIGINT)
        assert await process.end() == (0, "", "stopped; published: 1\n")


async def test_publish_in_a_pipe(serve: Serve) -> None:
    """When whoever reads the ids has enough, it ends with exit code 0 and no word."""
    async with serve(CHAT) as serving:
        command = '(yes | "$0" -m realtime publish "$1" --name al; echo "code $?" >&2) | head -n 1'
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", command, sys.executable, serving.http("/chat")),
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE):
            out, said = await process.communicate()
        assert (out.count(b"\n"), said.decode()) == (1, "code 0\n")


async def test_publish_of_what_is_too_large(serve: Serve) -> None:
    """``publish`` says why the server closed for what it was sent."""
    async with serve(CHAT) as serving:
        code, out, said = await published(serving.ws("/chat"), "x" * 70_000, "--name", "al")
    assert (code, out) == (4, "")
    assert said.startswith(
        "closed by the server: 1009 too big: the message is larger than limits.max_message"
    )


async def test_publish_that_is_a_greeting(serve: Serve) -> None:
    """``publish`` says when a message was taken and nothing was published."""
    async with serve(CHAT) as serving:
        _, out, said = await published(serving.ws("/chat"), "hi")
    assert out == ""
    assert said.startswith(
        "the server took it, and published nothing; where the first text is a name, --name"
    )
