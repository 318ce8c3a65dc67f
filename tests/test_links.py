"""One connection of one transport: how a stream of events is read, and what an error is in words."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import traceback
from itertools import pairwise

import aiohttp
import pytest
from hypothesis import given, settings, strategies as st
from servers import V1, answering, http, stream, websocket
from websockets.asyncio.server import ServerConnection
from wire import soon
from yarl import URL

import realtime
from realtime.links import parse_url, post, shown
from realtime.message import Message

# The rules of server-sent events


async def read(*chunks: bytes) -> list[tuple[str, str, str]]:
    """Event, data and id of each message of a stream that comes in these pieces."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(stream(""))
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(0)

    got: list[tuple[str, str, str]] = []
    async with (
        http(handle) as address,
        realtime.connect(f"http://{address}/", reconnect=False) as channel,
    ):
        with contextlib.suppress(realtime.Closed):
            async for message in channel:
                got.append((message.event, message.payload.decode(), str(message.id or "")))
        assert str(channel.closed) == "1005 ended without a code: the stream has ended"
    return got


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        ("data: one\n\ndata: two\n\n", [("message", "one", ""), ("message", "two", "")]),
        ("data: one\r\n\r\ndata: two\r\r:\r", [("message", "one", ""), ("message", "two", "")]),
        ("data:one\ndata:  two\ndata\n\n", [("message", "one\n two\n", "")]),
        ("\ufeffdata: one\n\n", [("message", "one", "")]),
        (": comment\n\nid: e-1\nevent: x\ndata: one\nother: y\n\n", [("x", "one", "e-1")]),
        ("event: x\n\ndata: one\n\n", [("message", "one", "")]),
        ("id: e-1\ndata: one\n\ndata: two\n\n", [("message", "one", "e-1"), ("message", "two", "")]),
        ("id: \0\ndata: one\n\n", [("message", "one", "")]),
        ("data: unfinished", []),
        ("retry: soon\n\ndata: one\n\n", [("message", "one", "")]),
        ("event: realtime:x\ndata: no JSON\n\n", [("realtime:x", "no JSON", "")]),
        ('event: realtime:x\ndata: {"a":\ndata: 1}\n\n', [("realtime:x", '{"a":1}', "")]),
        (
            f"event: realtime:x\ndata: {'[' * 500}{']' * 500}\n\n",
            [("realtime:x", "[" * 500 + "]" * 500, "")],
        ),
    ],
)
async def test_stream(body: str, messages: list[tuple[str, str, str]]) -> None:
    """A stream is read by the rules of server-sent events."""
    assert await read(body.encode()) == messages


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 90), max_size=4))
def test_stream_in_any_pieces(cuts: list[int]) -> None:
    """It does not matter in what pieces a stream comes."""
    body = "id: e-1\r\ndata: h\xe9\r\ndata: \u20ac\r\n\r\nevent: x\rdata: two\r\rdata: 3\n\n".encode()
    edges = [0, *sorted(cut for cut in cuts if cut < len(body)), len(body)]
    chunks = [body[start:end] for start, end in pairwise(edges)]
    assert asyncio.run(read(*chunks)) == [
        ("message", "h\xe9\n\u20ac", "e-1"),
        ("x", "two", ""),
        ("message", "3", ""),
    ]


PROFILE = b'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; profile="realtime.v1.json"\r\n\r\n'


# Anything at all

PIECES = ["data", ":", " ", "\n", "\r", "id", "event", "retry", "0", "\ufeff", "realtime:", "bye", "hi"]
KEYS = ["data", "id", "event", "encoding", "time", "ref", "code", "retry", "messages", "outcome", "client"]
EVENTS = [
    "realtime:bye",
    "realtime:welcome",
    "realtime:ack",
    "realtime:error",
    "realtime:gap",
    "realtime:reset",
]
VALUES = [
    "e-1",
    "hi",
    "aGk=",
    "base64",
    "",
    0,
    1000,
    -1,
    1e300,
    2**63,
    True,
    None,
    [],
    {},
    {"message": "x"},
]
OBJECT = st.recursive(
    st.sampled_from(VALUES),
    lambda inner: st.dictionaries(st.sampled_from(KEYS), inner | st.sampled_from(EVENTS)) | st.lists(inner),
    max_leaves=12,
).map(lambda data: json.dumps(data).encode())
SOUP = st.lists(st.sampled_from(PIECES), max_size=30).map(lambda parts: "".join(parts).encode())
STREAM = st.lists(SOUP | OBJECT.map(lambda data: b"data: %s\n\n" % data)).map(b"".join)


async def take(url: str) -> None:
    """Read all that there is; only errors of ours may come of it."""
    with contextlib.suppress(realtime.RealtimeError):
        async with realtime.connect(url, reconnect=False, timeout=2.0) as channel:
            async for message in channel:
                assert (message.data, str(message.id or "")) is not None


@given(STREAM | st.binary(max_size=200), st.booleans())
def test_any_stream_is_read(body: bytes, objects: bool) -> None:
    """Whatever a stream of events brings, it is messages or an end, and no other error."""

    async def read() -> None:
        async with answering((PROFILE if objects else stream("")) + body) as address:
            await soon(take(f"http://{address}/"))

    asyncio.run(read())


@given(st.lists(OBJECT | st.binary(max_size=60), max_size=4))
def test_any_frames_are_read(said: list[bytes]) -> None:
    """Whatever objects a WebSocket brings, it is messages or an end, and no other error."""

    async def handle(socket: ServerConnection) -> None:
        for text in said:
            await socket.send(text, text=True)

    async def read() -> None:
        async with websocket(handle, V1) as url:
            await soon(take(url))

    asyncio.run(read())


@given(OBJECT | st.binary(max_size=60), st.sampled_from([200, 202, 204, 302, 400, 503]))
def test_any_answer_is_taken(body: bytes, status: int) -> None:
    """Whatever a message is answered with, it is an answer or an error of ours."""
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nRetry-After: \r\n\r\n".encode()

    async def send() -> None:
        async with answering(head + body) as address, aiohttp.ClientSession() as session:
            with contextlib.suppress(realtime.RealtimeError):
                answer = await soon(post(session, URL(f"http://{address}/"), Message.of("hi", time=0.0)))
                assert all(isinstance(message, Message) for message in answer.messages)

    asyncio.run(send())


@pytest.mark.parametrize("data", ["hi", "[]", '{"id": "x"}', '{"data": "?", "encoding": "base64"}'])
async def test_event_that_is_no_object(data: str) -> None:
    """A stream that says its events are objects, and brings something else, is closed with 1007."""
    async with (
        answering(PROFILE + f"data: {data}\n\n".encode()) as address,
        realtime.connect(f"http://{address}/", reconnect=False) as channel,
    ):
        with pytest.raises(realtime.Closed) as closed:
            await anext(channel)
    assert closed.value.code == 1007


async def test_event_that_is_too_large() -> None:
    """An event beyond ``max_message`` is not gathered: Closed with 1009."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(stream("data: fits\n\ndata: "))
        while True:
            writer.write(b"x" * 1000)
            await writer.drain()

    async with (
        http(handle) as address,
        realtime.connect(f"http://{address}/", max_message=10_000) as channel,
    ):
        assert (await soon(anext(channel))).data == "fits"
        with pytest.raises(realtime.Closed, match=r"^1009 too big: an event is larger than 10000 bytes$"):
            await soon(anext(channel))


# What is said


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_server_of_something_else(scheme: str, answer: bytes) -> None:
    """A server of something else is an error of ours, and one line."""
    async with answering(answer) as address:
        with pytest.raises(realtime.RealtimeError) as caught:
            await realtime.connect(f"{scheme}://{address}/").__aenter__()
    assert str(caught.value).count("\n") == 0


async def test_no_such_host() -> None:
    """A host that does not exist is told as such."""
    with pytest.raises(realtime.NotConnected, match=r"^ws://nowhere\.invalid/: cannot connect: "):
        await realtime.connect("ws://nowhere.invalid/").__aenter__()


async def test_no_tls() -> None:
    """A server without TLS is told in words."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with http(handle) as address:
        with pytest.raises(realtime.NotConnected, match=r": cannot connect: no TLS: "):
            await realtime.connect(f"wss://{address}/").__aenter__()


def test_what_is_secret_is_not_shown() -> None:
    """A URL in an error has no password, query or fragment."""
    assert shown(parse_url("wss://me:pass@h:1/a%20b?token=x#y")) == "wss://h:1/a%20b"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("wss//me:S3CR3T@h/x?token=S3CR3T", "wss//h/x"),
        ("me:S3CR3T@h", "h"),
        ("ws:/me:S3CR3T@h/", "h/"),
        ("ws://me:S3/CR3T@h:x/#S3CR3T", "ws://h:x/"),
        ("ws://me:S3?CR3T@h/", "ws://…"),
        ("http://[::1?token=S3CR3T", "http://[::1"),
        ("ws://?token=S3CR3T", "ws://"),
    ],
)
def test_what_may_be_secret_is_not_shown(url: str, shown: str) -> None:
    """The error for what is no URL has none of it either."""
    with pytest.raises(ValueError, match=f"^{re.escape(shown)}: [at]"):
        parse_url(url)


def redirect(location: str) -> bytes:
    """A redirect."""
    return f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "its answer is no HTTP: bad status line"),
        (b"HTTP/1.1 200 OK\r\nA\0: ", "its answer is no HTTP: invalid header token"),
        (b"HTTP/1.1 400 X\r\nTransfer-Encoding: chunked\r\n\r\n", "invalid character in chunk size"),
        (redirect("http://[::1?token=S3CR3T"), "it redirects to what is no URL"),
        (redirect("ftp://h/?token=S3CR3T"), "it redirects to what is no URL"),
        (redirect("http:///?token=S3CR3T"), "it redirects to what is no URL"),
        (redirect("/?token=S3CR3T"), "it redirects too often"),
    ],
)
@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_error_has_no_secrets(scheme: str, answer: bytes, why: str) -> None:
    """Whatever a server answers, be it the request itself: no password and no token is in the traceback."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            asked = await reader.readuntil(b"\r\n\r\n")
            writer.write(answer + (b"" if answer.endswith(b"\r\n\r\n") and b"302" in answer else asked))

    secret = "S3CR3T"
    async with http(handle) as address:
        with pytest.raises(realtime.NotConnected, match=rf"/x: cannot connect: .*{why}$") as caught:
            await soon(
                realtime.connect(f"{scheme}://{secret}:{secret}@{address}/x?t={secret}").__aenter__()
            )
    assert secret not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("host", ["a..b", "a" * 64])
@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_no_name_of_a_host(scheme: str, host: str) -> None:
    """A host whose name cannot be one is NotConnected, given or redirected to."""
    async with answering(redirect(f"http://{host}/")) as address:
        for place in (host, address):
            with pytest.raises(realtime.NotConnected, match=r"connect: this can be no name of a host$"):
                await realtime.connect(f"{scheme}://{place}/").__aenter__()
