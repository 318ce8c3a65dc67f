"""Bytes that no client would send: whatever they are, they are answered, or the connection is closed."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote

import orjson
import pytest
import wire
from conftest import FUZZ, LOOP, Serving
from hypothesis import given, strategies as st
from wire import CLOSE, EVENTS, LINES, PONG, UPGRADE, Headers, Wire

import realtime
from faults.catalogue import fault
from faults.conftest import Calm
from faults.mutations import CONFIG, DEFLATE, SEED, V1, Mutation, batch, judge, perform
from realtime.loops import factory

#: How many mutations one server has; then it must be calm.
BATCH = 100

TEXT = st.text(st.characters(codec="utf-8"), max_size=300)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)
DATA = TEXT | VALUES | st.binary(max_size=200)
#: What can stand in a line of a head: all but its end.
LINE = st.lists(
    st.sampled_from([*b"\t !\"#$%&'()*+,-./0159:;<=>?@AZ[\\]^_`az{|}~\x00\x7f\x80\xc3\xa9\xff"]),
    max_size=60,
).map(bytes)
HEADERS = [
    *("Accept", "Origin", "Host", "Last-Event-ID", "Idempotency-Key", "Content-Type", "Content-Length"),
    *("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "Cookie", "Authorization"),
    *("Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"),
    *("Upgrade", "Connection", "Transfer-Encoding", "Content-Encoding", "Expect", "Sec-Fetch-Mode"),
]
#: What parts of such values are made of: a value of these gets farther than noise.
WORDS = st.lists(
    st.sampled_from(
        rb"""text/event-stream */* ;q= 0.5 , " \ http:// localhost : 80 [::1] 203.0.113.7 permessage-deflate
        ; server_max_window_bits= 12 websocket Upgrade chunked realtime.v1.json 3f9a01c2- 99999999999999999
        Bearer application/json charset= gzip 100-continue unix fe80::1%eth0 % = null""".split()
    )
    | st.sampled_from([b" ", b"\t", b"\xff"]),
    max_size=12,
).map(b"".join)


@contextmanager
def running(calm: Calm, config: str) -> Iterator[tuple[asyncio.Runner, Serving]]:
    """A server that must be calm at the end, for tests whose examples take their turns in its loop."""
    with asyncio.Runner(loop_factory=factory(LOOP)) as runner:  # type: ignore[arg-type]
        started = calm(config)
        serving = runner.run(started.__aenter__())
        try:
            yield runner, serving
        finally:
            runner.run(started.__aexit__(None, None, None))


@fault(6)
@fault(42)
@pytest.mark.parametrize("number", range(3 * FUZZ))
async def test_mutations(calm: Calm, number: int) -> None:
    """Valid exchanges, changed and cut in any way, are answered or closed, and never with 500 or 1011."""
    async with calm(CONFIG) as serving:
        await batch(serving.port, SEED, range(number * BATCH, (number + 1) * BATCH))


# Frames

PAYLOADS = st.one_of(
    st.binary(max_size=130),
    TEXT.map(str.encode),
    VALUES.map(lambda data: json.dumps({"data": data, "ref": 1}).encode()),
    st.sampled_from([b"\x03\xe8", b"\x03\xe8\xff", b"\x03", b"\x0f\xa0bye", b"\0\0", b"a" * 70_000, b"{}"]),
)
FRAME = st.builds(
    wire.frame,
    st.sampled_from([0, 1, 1, 2, 8, 9, 10]) | st.integers(0, 15),
    PAYLOADS,
    fin=st.sampled_from([True, True, False]),
    reserved=st.sampled_from([0, 0, 0, 0x40, 0x20, 0x10, 0x70]),
)
SOCKETS: list[tuple[str, Headers]] = [
    ("/ws", UPGRADE),
    ("/z", DEFLATE),
    ("/chat?name=alice", V1),
    ("/topics/a", V1),
    ("/rooms/a", UPGRADE),
]
TOKEN = b"are you there?"


@fault(38)
@pytest.mark.parametrize(("path", "headers"), SOCKETS)
def test_frames(calm: Calm, path: str, headers: Headers) -> None:
    """Whatever frames come, the next ping is answered, or the socket was closed with a code."""
    with running(calm, CONFIG) as (runner, serving):

        async def ends(said: bytes) -> None:
            opening = wire.request(path, headers)
            async with wire.dial(serving.port, opening) as client:
                with suppress(ConnectionError):  # what is too large need not be taken: the answer is there
                    await client.send(said + wire.frame(wire.PING, TOKEN))
                assert (await client.head()).status == 101
                while (first := (await client.exactly(1))[0]) & 0x0F != CLOSE:
                    payload = await rest_of_frame(client)
                    if (first & 0x0F, payload) == (PONG, TOKEN):
                        return
                payload = await rest_of_frame(client)
                assert int.from_bytes(payload[:2], "big") != realtime.CloseCode.BUG or payload in said
                assert len(payload[2:].decode().encode()) <= 123

        @given(st.lists(FRAME, max_size=6).map(b"".join))
        def any_frames(said: bytes) -> None:
            runner.run(ends(said))

        any_frames()


async def rest_of_frame(client: Wire) -> bytes:
    """The payload of a frame whose first byte has been read."""
    size = (await client.exactly(1))[0]
    if size >= 126:
        size = int.from_bytes(await client.exactly(2 if size == 126 else 8), "big")
    return await client.exactly(size)


@fault(42)
def test_bytes_after_a_handshake(calm: Calm) -> None:
    """Whatever bytes follow a handshake, what comes back are whole frames, the last maybe a close."""
    with running(calm, CONFIG) as (runner, serving):

        @given(st.sampled_from(SOCKETS), st.lists(st.binary(max_size=40) | FRAME, max_size=4))
        def any_bytes(where: tuple[str, Headers], said: list[bytes]) -> None:
            mutation = Mutation([wire.request(*where), *said], "wait")
            judge(runner.run(perform(serving.port, mutation)))

        any_bytes()


# Requests


@fault(24)
@pytest.mark.parametrize("path", ["/chat", "/topics/a", "/ws"])
def test_header_values(calm: Calm, path: str) -> None:
    """Whatever the headers are that are looked at, there is an answer, and none of 500."""
    head = "server: {listen: ['127.0.0.1:0'], trusted_proxies: [127.0.0.1]}\nchannels:\n"
    with running(calm, head + textwrap.indent(CONFIG, "  ")) as (runner, serving):

        @given(
            st.sampled_from([b"GET", b"GET", b"POST", b"OPTIONS", b"HEAD", b"DELETE"]),
            st.lists(st.tuples(st.sampled_from(HEADERS), WORDS | LINE), max_size=5),
            st.booleans(),
        )
        def any_values(method: bytes, headers: list[tuple[str, bytes]], upgrade: bool) -> None:
            lines = [b"%s %s HTTP/1.1" % (method, path.encode()), b"Host: localhost"]
            if upgrade:
                lines += [f"{name}: {value}".encode() for name, value in UPGRADE]
            lines += [b"%s: %s" % (name.encode(), value) for name, value in headers]
            said = b"\r\n".join([*lines, b"", b""])
            judge(runner.run(perform(serving.port, Mutation([said], "wait"))))

        any_values()


@fault(19)
@pytest.mark.parametrize("end", ["fin", "rst"])
async def test_gone_before_it_may_go_on(calm: Calm, end: str) -> None:
    """Who has gone before the 100 it waits for is no error of the server's."""
    asked = wire.request("/ws", [("Expect", "100-continue"), ("Content-Length", "5")], method="POST")
    async with calm(CONFIG) as serving:
        for _ in range(10):  # before the server has a turn
            sock = socket.create_connection(("127.0.0.1", serving.port))
            sock.sendall(asked)
            wire.Wire(sock).reset() if end == "rst" else sock.close()
        await wire.ask(serving.port, "/-/live")


def quoted(text: str) -> bytes:
    """A text as it stands in a target."""
    return quote(text, safe="/?&=").encode()


@fault(18)
def test_targets(calm: Calm) -> None:
    """Whatever is asked for, there is an answer, and none of 500; topics have printable names."""
    with running(calm, CONFIG) as (runner, serving):

        @given(
            st.sampled_from(b"/rooms/ /topics/ /topics/a/ /chat? / http://x/ /-/ ?".split()),
            LINE.map(lambda part: part.replace(b" ", b"+")) | TEXT.map(quoted),
            st.sampled_from([EVENTS, LINES, [("Accept", "application/json")], [("Accept", "text/html")]]),
        )
        def any_target(before: bytes, after: bytes, headers: Headers) -> None:
            _, _, rest = wire.request("/", headers).partition(b" / ")
            said = b"GET %s%s %s" % (before, after, rest)
            judge(runner.run(perform(serving.port, Mutation([said], "wait"))))
            assert all(topic.name.isprintable() for topic in serving.server.bus.topics)

        any_target()


# Data, from any way in to every way out


class Readers:
    """A reader of one topic in every form there is; each gives what was published as it came to it."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def publish(self, data: Any) -> dict[str, Any]:
        """Publish by POST, and read it in every form."""
        kind, body = "text/plain", data
        if isinstance(data, bytes):
            kind = "application/octet-stream"
        elif isinstance(data, str):
            body = data.encode()
        else:
            kind, body = "application/json", orjson.dumps(data)
        head, said = await wire.post(self.port, "/topics/a", body, [("Content-Type", kind)])
        assert head.status == 202, said
        id = json.loads(said)["id"]
        epoch, _, offset = id.partition("-")
        since = f"/topics/a?since={epoch}-{int(offset) - 1}"
        found: dict[str, Any] = {}
        for name, headers in (("plain", UPGRADE), ("v1", V1), ("deflated", [*V1, DEFLATE[-1]])):
            async with wire.websocket(self.port, since, headers=headers[len(UPGRADE) :]) as client:
                if name == "plain":
                    found[name] = await client.frame()
                elif name == "v1":
                    assert json.loads(await client.text())["event"] == "realtime:welcome"
                    found[name] = unwrapped(json.loads(await client.text()), id)
        profile = [("Accept", 'text/event-stream;profile="realtime.v1.json"')]
        for name, headers in (("events", EVENTS), ("profile", profile)):
            async with wire.dial(self.port, wire.request(since, headers)) as client:
                assert (await client.head()).status == 200
                await client.event()
                event = await client.event()
                assert event["id"] == id
                found[name] = event["data"]
        found["profile"] = unwrapped(json.loads(found["profile"]), id)
        async with wire.dial(self.port, wire.request(since, LINES)) as client:
            await client.head()
            await client.line()
            found["lines"] = unwrapped(await client.line(), id)
        _, said = await wire.ask(self.port, since, [("Accept", "application/json")])
        found["snapshot"] = unwrapped(json.loads(said)["messages"][-1], id)
        return found


def unwrapped(fields: dict[str, Any], id: str) -> Any:
    """The data in an object of ``realtime.v1.json``."""
    assert fields["id"] == id
    return base64.b64decode(fields["data"]) if "encoding" in fields else fields["data"]


@fault(74)
@fault(99)
def test_data_comes_through(calm: Calm) -> None:
    """Any text, JSON or bytes that is published comes out of every transport as it was."""
    with running(calm, CONFIG) as (runner, serving):
        readers = Readers(serving.port)

        @given(DATA)
        def any_data(data: Any) -> None:
            found = runner.run(readers.publish(data))
            for name in ("v1", "profile", "lines", "snapshot"):
                assert found[name] == data, name
            opcode, payload = found["plain"]
            if isinstance(data, bytes):
                assert (opcode, payload) == (wire.BINARY, data)
                assert json.loads(found["events"]) == {
                    "data": base64.b64encode(data).decode(),
                    "encoding": "base64",
                }
            elif isinstance(data, str):
                assert (opcode, payload) == (wire.TEXT, data.encode())
                assert found["events"] == data.replace("\r\n", "\n").replace("\r", "\n")
            else:
                assert (opcode, json.loads(payload)) == (wire.TEXT, data)
                assert json.loads(found["events"]) == data

        any_data()


def may_be_sent(event: str) -> bool:
    """Whether a client may send an event of that name."""
    return event.isprintable() and not event.startswith("realtime:")


@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_client_gets_what_it_sends(calm: Calm, scheme: str) -> None:
    """Whatever our own client sends, text, JSON or bytes, with any event, it gets back as it was."""
    with running(calm, CONFIG) as (runner, serving):
        channel = realtime.connect(f"{scheme}://127.0.0.1:{serving.port}/topics/a")
        runner.run(channel.__aenter__())

        async def exchange(data: Any, event: str) -> realtime.Message:
            await channel.send(data, event=event)
            return await wire.soon(anext(channel))

        @given(DATA, st.text(min_size=1, max_size=60).filter(may_be_sent))
        def any_data(data: Any, event: str) -> None:
            back = runner.run(exchange(data, event))
            assert (back.data, back.event) == (data, event)

        try:
            any_data()
        finally:
            runner.run(channel.__aexit__(None, None, None))
