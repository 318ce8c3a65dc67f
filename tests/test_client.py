"""The client for applications: what it gives, what it does when it is cut, and what it leaves behind."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import random
import re
import ssl
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from conftest import Serve, make
from servers import (
    SEEDS,
    V1,
    Handler,
    answering,
    certificate,
    closed_port,
    cutting,
    frame,
    http,
    stream,
    websocket,
)
from test_post import BOX, CONFIG
from timing import now
from tokenmaker import AUTH, token
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response
from wire import eventually, soon

import realtime
from realtime import Backoff, Closed, Connection, Message, NotConnected, Position, Refused, Unconfirmed
from realtime.errors import RealtimeError

#: A channel for who has a token.
ONLY_KNOWN = "allow: {subscribe: authenticated, publish: authenticated}"
#: Comes back at once.
AT_ONCE = Backoff(first=0.0, restart=(0.0, 0.0), advised=0.0)


class Waits(Backoff):
    """Comes back at once, and keeps what it was to wait for."""

    def __init__(self) -> None:
        object.__setattr__(self, "asked", [])
        object.__setattr__(self, "stood", 10.0)

    asked: list[tuple[int, int, float | None]]

    def delay(self, failures: int, code: int = 1006, advice: float | None = None) -> float:
        self.asked.append((failures, code, advice))
        return 0.0


async def take(connection: Connection, count: int) -> list[Any]:
    """The data of the next messages."""
    return [(await soon(anext(connection))).data for _ in range(count)]


async def forever(server: ServerConnection) -> None:
    """Wait until the client has gone."""
    await server.wait_closed()


def since_of(server: ServerConnection) -> str:
    """The query with which the client came."""
    assert server.request is not None
    return server.request.path.partition("?")[2]


# When to come back


def backoff(luck: float) -> Backoff:
    """The waits of somebody with this luck, from 0 to 1."""
    return Backoff(random=lambda: luck)


@pytest.mark.parametrize(("failures", "longest"), [(0, 1.0), (1, 2.0), (3, 8.0), (9, 30.0), (9999, 30.0)])
def test_waits_double_up_to_a_bound(failures: int, longest: float) -> None:
    """The longest wait doubles with each failure, up to half a minute."""
    assert backoff(1.0).delay(failures) == longest


def test_waits_have_full_jitter() -> None:
    """A wait may be anything from nothing to the longest."""
    assert (backoff(0.0).delay(3), backoff(0.5).delay(3)) == (0.0, 4.0)


@pytest.mark.parametrize("code", [1001, 1012])
def test_restart(code: int) -> None:
    """After a server that shuts down or restarts it is from one to five seconds."""
    assert (backoff(0.0).delay(0, code), backoff(1.0).delay(0, code)) == (1.0, 5.0)


def test_advice() -> None:
    """The server's advice is the least, and half of it is added at random."""
    assert (backoff(0.0).delay(0, 1001, 8.0), backoff(1.0).delay(0, 1001, 8.0)) == (8.0, 12.0)


def test_advice_has_a_bound() -> None:
    """A server cannot send a client away for ever."""
    assert backoff(0.0).delay(0, 1013, 1e12) == 300.0


def test_advice_is_no_licence_to_hammer() -> None:
    """A server that says to come at once, and fails each time, is waited for all the same."""
    assert backoff(1.0).delay(3, 1013, 0.0) == 8.0


# WebSocket, realtime.v1.json


async def test_messages() -> None:
    """A message has event, data, id and time, whatever the data is."""

    async def handler(server: ServerConnection) -> None:
        await server.send(frame("message", "hi", id="e-1", time=12.5))
        await server.send(frame("score", {"goals": [1]}, id="e-2", time=13))
        await server.send(frame("message", "AP8=", encoding="base64", time=14.0))

    async with websocket(handler, V1) as url, realtime.connect(url, reconnect=False) as channel:
        assert [message async for message in channel] == [
            Message("message", "text", b"hi", 12.5, Position("e", 1)),
            Message("score", "json", b'{"goals":[1]}', 13.0, Position("e", 2)),
            Message("message", "bytes", b"\x00\xff", 14.0),
        ]


@pytest.mark.parametrize(
    ("data", "sent"),
    [
        ("hi", {"data": "hi"}),
        (b"\x00\xff", {"data": "AP8=", "encoding": "base64"}),
        ({"a": [1, None]}, {"data": {"a": [1, None]}}),
    ],
)
async def test_send(data: Any, sent: dict[str, Any]) -> None:
    """What is sent has event, data and ref; the ack brings its position."""
    got = []

    async def handler(server: ServerConnection) -> None:
        got.append(json.loads(await server.recv()))
        await server.send(frame("realtime:ack", ref=got[0]["ref"], id="e-7"))
        await forever(server)

    async with websocket(handler, V1) as url, realtime.connect(url) as channel:
        assert await channel.send(data, event="score") == Position("e", 7)
    assert got == [{"event": "score", "ref": 1, **sent}]


async def test_send_that_publishes_nothing() -> None:
    """An ack without an id is None."""

    async def handler(server: ServerConnection) -> None:
        await server.send(frame("realtime:ack", ref=json.loads(await server.recv())["ref"]))
        await forever(server)

    async with websocket(handler, V1) as url, realtime.connect(url) as channel:
        assert await channel.send("hi") is None


async def test_sends_at_once() -> None:
    """Each of several sends gets its own answer, in whatever order they come."""

    async def handler(server: ServerConnection) -> None:
        got = [json.loads(await server.recv()) for _ in range(3)]
        for sent in reversed(got):
            await server.send(frame("realtime:ack", ref=sent["ref"], id=f"e-{sent['data']}"))
        await forever(server)

    async with websocket(handler, V1) as url, realtime.connect(url) as channel:
        answers = await asyncio.gather(*(channel.send(number) for number in (1, 2, 3)))
        assert answers == [Position("e", 1), Position("e", 2), Position("e", 3)]


async def test_refused_message() -> None:
    """An error with its ref raises Refused, with the server's sentence."""

    async def handler(server: ServerConnection) -> None:
        ref = json.loads(await server.recv())["ref"]
        await server.send(frame("realtime:error", {"message": "no such event"}, ref=ref))
        await forever(server)

    async with websocket(handler, V1) as url, realtime.connect(url) as channel:
        with pytest.raises(Refused, match=r"^the message was refused: no such event$"):
            await channel.send("hi")


async def test_rejected_by_the_channel(serve: Serve) -> None:
    """What a channel does not take raises Refused with its status, on either transport; it goes on."""
    async with serve("channels: {chat: {plugin: chat, path: /chat}}") as serving:
        for url, name in ((serving.ws("/chat"), "alice"), (serving.http("/chat"), "bob")):
            async with realtime.connect(url, name=name) as chat:
                with pytest.raises(Refused, match="404 Not Found: there is no 'carol' here") as caught:
                    await chat.send({"text": "psst", "to": "carol"})
                assert (caught.value.status, caught.value.comes_back) == (404, False)
                assert await chat.send("hi") is not None


@pytest.mark.parametrize("status", ["404", None, [1]], ids=repr)
async def test_refusal_with_a_strange_status(status: object) -> None:
    """A status that is no number is none."""

    async def handler(server: ServerConnection) -> None:
        ref = json.loads(await server.recv())["ref"]
        await server.send(frame("realtime:error", {"message": "no", "status": status}, ref=ref))
        await forever(server)

    async with websocket(handler, V1) as url, realtime.connect(url) as channel:
        with pytest.raises(Refused, match=r"^the message was refused: no$") as caught:
            await channel.send("hi")
    assert caught.value.status is None


async def test_error_that_answers_nothing() -> None:
    """An error without a ref is a message: it is not lost."""

    async def handler(server: ServerConnection) -> None:
        await server.send(frame("realtime:error", {"message": "what?"}))

    async with websocket(handler, V1) as url, realtime.connect(url, reconnect=False) as channel:
        assert [message.event async for message in channel] == ["realtime:error"]


async def test_welcome() -> None:
    """The welcome is no message: it says who the client is and where the stream begins."""

    async def handler(server: ServerConnection) -> None:
        await server.send(frame("realtime:welcome", {"client": "c7", "outcome": "new"}, id="e-4"))
        await server.send(frame("realtime:heartbeat", {}))
        await server.send(frame("message", "hi"))
        await forever(server)

    async with websocket(handler, V1) as url, realtime.connect(url) as channel:
        assert channel.client_id is None
        assert await take(channel, 1) == ["hi"]
        assert channel.position == Position("e", 4)
        assert channel.welcome["client"] == str(channel.client_id) == "c7"
        assert channel.welcome == {"client": "c7", "outcome": "new"}


async def test_position_is_that_of_the_last_message_taken() -> None:
    """What was read ahead does not count: an application that stops goes on behind what it took."""

    async def handler(server: ServerConnection) -> None:
        await server.send(frame("realtime:welcome", {"outcome": "new"}, id="e-3"))
        for offset in (4, 5, 6):
            await server.send(frame("message", offset, id=f"e-{offset}"))
        await server.send(frame("realtime:ack", ref=json.loads(await server.recv())["ref"]))
        await forever(server)

    async with websocket(handler, V1) as url, realtime.connect(url) as channel:
        await channel.send("they have come")
        seen = [channel.position]
        for _ in range(3):
            await take(channel, 1)
            seen.append(channel.position)
        assert seen == [Position("e", offset) for offset in (3, 4, 5, 6)]


@pytest.mark.parametrize(
    "bad",
    [
        "no JSON",
        "[1]",
        '{"data": "x", "encoding": "base64"}',
        '{"id": 7}',
        '{"event": "realtime:ack", "ref": []}',
    ],
)
async def test_what_is_no_such_frame(bad: str) -> None:
    """A server that says it speaks the subprotocol and does not is told so, and left."""

    async def handler(server: ServerConnection) -> None:
        await server.send(bad)
        await forever(server)

    async with websocket(handler, V1) as url, realtime.connect(url) as channel:
        with pytest.raises(Closed, match=r"^1007 bad data: a frame that is not realtime.v1.json$"):
            await soon(anext(channel))


# WebSocket, plain


async def test_server_without_the_subprotocol() -> None:
    """Frames of any server are messages without an id; to send to it gives None."""
    got: list[str | bytes] = []

    async def handler(server: ServerConnection) -> None:
        for _ in range(3):
            got.append(await server.recv())
            await server.send(got[-1])

    async with websocket(handler) as url, realtime.connect(url) as channel:
        assert channel.subprotocol is None
        assert [await channel.send(data) for data in ("hi", b"\x00", {"a": 1})] == [None] * 3
        assert [(m.event, m.data, m.id) async for m in channel] == [
            ("message", "hi", None),
            ("message", b"\x00", None),
            ("message", '{"a":1}', None),
        ]
    assert got == ["hi", b"\x00", '{"a":1}']


async def test_plain_frames_have_no_event() -> None:
    """An event that plain frames cannot say is an error, and not lost."""
    async with websocket(forever) as url, realtime.connect(url) as channel:
        with pytest.raises(ValueError, match="plain frames have no event, so 'score' cannot be sent"):
            await channel.send("hi", event="score")


async def test_only_plain() -> None:
    """Without subprotocols none is offered, so a server that has it sends plain frames."""

    async def handler(server: ServerConnection) -> None:
        assert server.request is not None
        await server.send(server.request.headers.get("Sec-WebSocket-Protocol", "none"))

    async with websocket(handler) as url, realtime.connect(url, subprotocols=()) as channel:
        assert await take(channel, 1) == ["none"]


# The request


async def test_request() -> None:
    """Name and since are parameters of the URL; headers go with the handshake."""
    seen: list[tuple[str, str]] = []

    async def handler(server: ServerConnection) -> None:
        assert server.request is not None
        seen.append((server.request.path, server.request.headers["X-Token"]))

    async with websocket(handler) as url:
        options = {"name": "alice b", "since": -20, "headers": {"X-Token": "t"}}
        async with realtime.connect(f"{url}chat?a=1", **options) as channel:  # type: ignore[arg-type]
            assert [message async for message in channel] == []
    assert seen == [("/chat?a=1&name=alice+b&since=-20", "t")]


@pytest.mark.parametrize("since", [Position("e", 4), "e-4"])
async def test_since_a_position(since: Position | str) -> None:
    """A position is given as such or as its text; what comes from before it is not shown."""
    queries = []

    async def handler(server: ServerConnection) -> None:
        queries.append(since_of(server))
        await server.send(frame("message", "old", id="e-4"))
        await server.send(frame("message", "new", id="e-5"))
        await forever(server)

    async with websocket(handler, V1) as url, realtime.connect(url, since=since) as channel:
        assert await take(channel, 1) == ["new"]
    assert queries == ["since=e-4"]


@pytest.mark.parametrize("url", ["localhost:80", "ftp://h/", "ws://", "ws://h:99999/", ""])
def test_bad_url(url: str) -> None:
    """What is no URL is a ValueError at once."""
    with pytest.raises(ValueError, match="URL"):
        realtime.connect(url)


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_nobody_there(scheme: str) -> None:
    """A first connection that nobody answers raises NotConnected; no secret of the URL is in it."""
    address = f"127.0.0.1:{closed_port()}/x"
    with pytest.raises(NotConnected) as caught:
        await realtime.connect(f"{scheme}://me:pass@{address}?token=secret").__aenter__()
    assert str(caught.value) == f"{scheme}://{address}: cannot connect: connection refused"


async def test_first_connection_that_is_not_answered() -> None:
    """A server that says nothing is given up after the time-out."""
    async with answering(b"", then_close=False) as address:
        with pytest.raises(NotConnected, match=r": no answer within 0\.05s$"):
            await realtime.connect(f"ws://{address}/", timeout=0.05).__aenter__()


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_refused(scheme: str) -> None:
    """A first connection that is refused raises Refused, with the status and what the server says."""
    answer = (
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 11\r\n\r\nfull \x1b[2J\n\n"
    )
    async with answering(answer) as address:
        with pytest.raises(Refused) as caught:
            await realtime.connect(f"{scheme}://{address}/").__aenter__()
    error = caught.value
    assert (error.status, error.body, error.retry_after) == (503, "full \x1b[2J\n\n", 7.0)
    assert str(error).endswith(": 503 Service Unavailable: full \\x1b[2J")


async def test_self_signed_certificate(tmp_path: Path) -> None:
    """A certificate that is not trusted is told in words; a context says which one is."""
    context, file = certificate(tmp_path)

    async def handler(server: ServerConnection) -> None:
        await server.send("secret")

    async with websocket(handler, ssl=context) as url:
        with pytest.raises(NotConnected, match="certificate is not trusted: self-signed certificate"):
            await realtime.connect(url).__aenter__()
        trusting = ssl.create_default_context(cafile=str(file))
        async with realtime.connect(url, ssl=trusting) as channel:
            assert await take(channel, 1) == ["secret"]


# How it ends


async def test_clean_end() -> None:
    """A server that closes with 1000 ends the iteration, and says why in ``closed``."""

    async def handler(server: ServerConnection) -> None:
        await server.send("last")
        await server.close(1000, "that was all")

    async with websocket(handler) as url, realtime.connect(url) as channel:
        assert [message.data async for message in channel] == ["last"]
        assert channel.closed is not None
        assert (channel.closed.code, channel.closed.reason) == (1000, "that was all")


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 4000, 4401, 4499])
async def test_final_code(code: int) -> None:
    """A code that makes coming back senseless raises Closed, after the messages before it."""
    met = []

    async def handler(server: ServerConnection) -> None:
        met.append(server)
        await server.send("last")
        await server.close(code, "because")

    async with websocket(handler) as url, realtime.connect(url, backoff=AT_ONCE) as channel:
        assert await take(channel, 1) == ["last"]
        with pytest.raises(Closed) as caught:
            await soon(anext(channel))
    assert (caught.value.code, caught.value.reason, caught.value.comes_back) == (code, "because", False)
    assert len(met) == 1


@pytest.mark.parametrize("code", [1001, 1011, 1013, 4500])
async def test_end_without_reconnecting(code: int) -> None:
    """With ``reconnect=False`` any end but 1000 raises Closed, which says that it could come back."""

    async def handler(server: ServerConnection) -> None:
        await server.close(code, "because")

    async with websocket(handler) as url, realtime.connect(url, reconnect=False) as channel:
        with pytest.raises(Closed) as caught:
            await soon(anext(channel))
    assert (caught.value.code, caught.value.comes_back) == (code, True)


async def test_cut_without_reconnecting() -> None:
    """A connection that breaks without a close is 1006."""

    async def handler(server: ServerConnection) -> None:
        server.transport.abort()

    async with websocket(handler) as url, realtime.connect(url, reconnect=False) as channel:
        with pytest.raises(Closed, match=r"^1006 connection lost$"):
            await soon(anext(channel))


async def test_bye_says_more_than_the_close() -> None:
    """What is said goodbye with is how it ended."""

    async def handler(server: ServerConnection) -> None:
        await server.send(frame("realtime:bye", {"code": 4403, "reason": "not you", "retry": None}))
        server.transport.abort()

    async with websocket(handler, V1) as url, realtime.connect(url) as channel:
        with pytest.raises(Closed, match=r"^4403 not allowed: not you$"):
            await soon(anext(channel))


@pytest.mark.parametrize("code", [-1, 0, True, 999, 5000, 99999999999999, "4403", None])
async def test_bye_whose_code_is_none(code: object) -> None:
    """What cannot be a close code does not say how it ended: the close does."""

    async def handler(server: ServerConnection) -> None:
        await server.send(frame("realtime:bye", {"code": code, "reason": "not you", "retry": None}))
        await server.close(4401, "truly")

    async with websocket(handler, V1) as url, realtime.connect(url) as channel:
        with pytest.raises(Closed, match=r"^4401 not authenticated: truly$"):
            await soon(anext(channel))


async def test_message_that_is_too_large() -> None:
    """A message beyond ``max_message`` is not taken: Closed with 1009."""

    async def handler(server: ServerConnection) -> None:
        await server.send("x" * 1000)
        await server.send("x" * 1001)
        await forever(server)

    async with websocket(handler) as url, realtime.connect(url, max_message=1000) as channel:
        await take(channel, 1)
        with pytest.raises(Closed) as caught:
            await soon(anext(channel))
    assert caught.value.code == 1009


# Coming back


def in_turn(*handlers: Handler) -> Handler:
    """A handler that is another one for each connection; the last one stays."""
    left = list(handlers)

    async def handler(server: ServerConnection) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(server)

    return handler


def cut_after(*frames: str) -> Handler:
    """A handler that sends these and breaks the connection when the client has them."""

    async def handler(server: ServerConnection) -> None:
        for text in frames:
            await server.send(text)
        await (await server.ping())
        server.transport.abort()

    return handler


def showing_since(queries: list[str]) -> Handler:
    """A handler that keeps the query and stays."""

    async def handler(server: ServerConnection) -> None:
        queries.append(since_of(server))
        await server.send(frame("message", "back"))
        await forever(server)

    return handler


async def test_resumes_after_the_last_message() -> None:
    """Cut, it comes back with the position of the last message that came in."""
    queries: list[str] = []
    first = cut_after(frame("message", 1, id="e-1"), frame("message", 2, id="e-2"))
    async with (
        websocket(in_turn(first, showing_since(queries)), V1) as url,
        realtime.connect(url, backoff=AT_ONCE) as channel,
    ):
        assert await take(channel, 3) == [1, 2, "back"]
    assert queries == ["since=e-2"]


async def test_resumes_after_the_welcome() -> None:
    """The position of the welcome counts: nothing that came after it is missed."""
    queries: list[str] = []
    first = cut_after(frame("realtime:welcome", {"outcome": "new"}, id="e-9"))
    async with (
        websocket(in_turn(first, showing_since(queries)), V1) as url,
        realtime.connect(url, since=-5, backoff=AT_ONCE) as channel,
    ):
        assert await take(channel, 1) == ["back"]
    assert queries == ["since=e-9"]


async def test_gap_that_was_not_told() -> None:
    """Cut between a welcome that knows of a gap and its marker, it comes back with what it had."""
    queries: list[str] = []
    first = cut_after(frame("realtime:welcome", {"outcome": "gap", "missed": 5}, id="e-9"))
    async with (
        websocket(in_turn(first, showing_since(queries)), V1) as url,
        realtime.connect(url, since="e-4", backoff=AT_ONCE) as channel,
    ):
        assert await take(channel, 1) == ["back"]
    assert queries == ["since=e-4"]


async def test_asks_again_while_it_has_no_position() -> None:
    """Cut before any position came it begins again where it wanted to begin."""
    queries: list[str] = []
    async with (
        websocket(in_turn(cut_after(), showing_since(queries)), V1) as url,
        realtime.connect(url, since="earliest", backoff=AT_ONCE) as channel,
    ):
        assert await take(channel, 1) == ["back"]
    assert queries == ["since=earliest"]


async def test_what_comes_twice_is_shown_once() -> None:
    """A message of the epoch that is not beyond the last is dropped."""
    first = cut_after(frame("message", 1, id="e-1"), frame("message", 2, id="e-2"))

    async def again(server: ServerConnection) -> None:
        for offset in (1, 2, 3):
            await server.send(frame("message", offset, id=f"e-{offset}"))
        await forever(server)

    async with (
        websocket(in_turn(first, again), V1) as url,
        realtime.connect(url, backoff=AT_ONCE) as channel,
    ):
        assert await take(channel, 3) == [1, 2, 3]


@pytest.mark.parametrize(("marker", "data"), [("realtime:gap", {"missed": 4}), ("realtime:reset", {})])
async def test_loss_is_shown(marker: str, data: dict[str, int]) -> None:
    """A gap and a reset are messages, also where the stream goes back; it goes on behind them."""
    first = cut_after(frame("message", 9, id="e-9"))

    async def lost(server: ServerConnection) -> None:
        await server.send(frame("realtime:welcome", {"outcome": marker[9:]}))
        await server.send(frame(marker, data, id="e-2"))
        await server.send(frame("message", 3, id="e-3"))
        await forever(server)

    async with (
        websocket(in_turn(first, lost), V1) as url,
        realtime.connect(url, backoff=AT_ONCE) as channel,
    ):
        got = [await soon(anext(channel)) for _ in range(3)]
    assert [(m.event, m.data) for m in got] == [("message", 9), (marker, data), ("message", 3)]


async def test_comes_back_to_a_plain_channel() -> None:
    """Where there are no positions it just comes back."""
    queries: list[str] = []
    async with (
        websocket(in_turn(cut_after("one"), showing_since(queries))) as url,
        realtime.connect(url, backoff=AT_ONCE) as channel,
    ):
        assert await take(channel, 2) == ["one", frame("message", "back")]
    assert queries == [""]


@pytest.mark.parametrize(
    ("frames", "code", "waited"),
    [
        ([], 1001, (1, 1001, None)),
        ([], 4509, (1, 4509, None)),
        ([frame("realtime:bye", {"code": 1012, "reason": "x", "retry": 1500})], 1001, (1, 1012, 1.5)),
        ([frame("realtime:bye", {"code": 1012, "reason": "x", "retry": None})], 1001, (1, 1012, None)),
        ([frame("realtime:bye", {"code": 1012, "reason": "x", "retry": 1e300})], 1001, (1, 1012, None)),
    ],
)
async def test_advice_of_the_server(
    frames: list[str], code: int, waited: tuple[int, int, float | None]
) -> None:
    """It waits by the code, and by what the goodbye advises."""

    async def first(server: ServerConnection) -> None:
        for text in frames:
            await server.send(text)
        await server.close(code)

    waits = Waits()
    async with (
        websocket(in_turn(first, showing_since([])), V1) as url,
        realtime.connect(url, backoff=waits) as channel,
    ):
        assert await take(channel, 1) == ["back"]
    assert waits.asked == [waited]


async def refused_later(
    *answers: tuple[HTTPStatus, dict[str, str]], waits: Backoff | None = None
) -> list[Any]:
    """What comes from a server that cuts, and then answers with these before it accepts again."""
    left: list[tuple[HTTPStatus, dict[str, str]] | None] = [None, *answers]

    def look(server: ServerConnection, request: Request) -> Response | None:
        answer = left.pop(0) if left else None
        if answer is None:
            return None
        response = server.respond(answer[0], "not now\n")
        response.headers.update(answer[1])
        return response

    handlers = in_turn(cut_after(), showing_since([]))
    async with (
        websocket(handlers, V1, process_request=look) as url,
        realtime.connect(url, backoff=waits) as channel,
    ):
        return await take(channel, 1)


async def test_refused_for_now() -> None:
    """Once connected, 5xx and the like are tried again, after what Retry-After says."""
    waits = Waits()
    answers = [
        (HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "7"}),
        (HTTPStatus.TOO_MANY_REQUESTS, {}),
        (HTTPStatus.BAD_GATEWAY, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}),
    ]
    assert await refused_later(*answers, waits=waits) == ["back"]
    assert waits.asked == [(1, 1006, None), (2, 1006, 7.0), (3, 1006, None), (4, 1006, None)]


async def test_message_too_many(serve: Serve) -> None:
    """A POST over the rate was not taken, and says when to send it again; the connection stays."""
    config = "channels: {echo: {plugin: topics, path: /t, limits: {inbound_rate: 2, inbound_burst: 1}}}"
    async with serve(config) as serving, Connection(serving.http("/t")) as channel:
        refused, sent = list[Refused](), 0
        while sent < 3:
            try:
                await channel.send(f"message {sent}")
                sent += 1
            except Refused as error:
                refused.append(error)
        assert {(error.status, error.retry_after, error.comes_back) for error in refused} == {
            (429, 1.0, True)
        }
        assert await take(channel, 3) == ["message 0", "message 1", "message 2"]


async def test_too_many_messages_over_a_websocket(serve: Serve) -> None:
    """Closed with 4529 it comes back; what the server had not confirmed is Unconfirmed."""
    config = "channels: {echo: {plugin: topics, path: /t, limits: {inbound_rate: 20, inbound_burst: 5}}}"
    waits = Waits()
    async with serve(config) as serving, Connection(serving.ws("/t"), backoff=waits) as channel:
        sent = await asyncio.gather(*(channel.send(str(n)) for n in range(50)), return_exceptions=True)
        assert {type(one) for one in sent} <= {Position, Unconfirmed, Refused}
        assert Unconfirmed in map(type, sent)
        assert await channel.send("back") is not None
    assert waits.asked[0][1] == 4529


@pytest.mark.parametrize("status", [HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND])
async def test_refused_for_good(status: HTTPStatus) -> None:
    """Another 4xx when it comes back is final: Refused."""
    with pytest.raises(Refused) as caught:
        await refused_later((status, {}))
    assert (caught.value.status, caught.value.body) == (status, "not now\n")


async def test_redirect_to_no_host_when_it_comes_back() -> None:
    """Once connected, a server that sends it to no host is asked again, like one that is away."""
    nowhere = (HTTPStatus.FOUND, {"Location": "http://a..b/"})
    assert await soon(refused_later(nowhere, waits=Waits())) == ["back"]


async def test_server_that_is_away_for_a_while() -> None:
    """Once connected, a server that is not there is tried again."""
    port = closed_port()
    waits = Waits()
    listening = asyncio.Event()

    async def come_back() -> Any:
        await eventually(lambda: len(waits.asked) > 2)
        return await asyncio.start_server(handle, "127.0.0.1", port)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(stream("data: back\n\n" if listening.is_set() else "data: first\n\n"))
        listening.set()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", port)
    async with realtime.connect(f"http://127.0.0.1:{port}/", backoff=waits) as channel:
        server.close()
        assert await take(channel, 1) == ["first"]
        async with await come_back():
            assert await take(channel, 1) == ["back"]


async def test_vanished_server_is_noticed() -> None:
    """A WebSocket of which nothing is heard is pinged, cut, and opened again."""

    async def vanish(server: ServerConnection) -> None:
        server.transport.pause_reading()
        await forever(server)

    async with (
        websocket(in_turn(vanish, showing_since([])), V1, ping_interval=None, close_timeout=0.1) as url,
        realtime.connect(url, backoff=AT_ONCE, ping=0.1) as channel,
    ):
        assert await take(channel, 1) == ["back"]


# Sending while it is cut


async def test_send_waits_for_the_connection() -> None:
    """What is sent while it is away goes out when it is back."""
    gone, sent = asyncio.Event(), []

    async def echo(server: ServerConnection) -> None:
        sent.append(await server.recv())
        await server.send("got it")
        await forever(server)

    class Patient(Waits):
        def delay(self, failures: int, code: int = 1006, advice: float | None = None) -> float:
            gone.set()
            return 0.02

    async with (
        websocket(in_turn(cut_after(), echo)) as url,
        realtime.connect(url, backoff=Patient()) as channel,
    ):
        await soon(gone.wait())
        assert channel.subprotocol is None
        await channel.send("late")
        assert await take(channel, 1) == ["got it"]
    assert sent == ["late"]


async def test_send_does_not_wait_for_ever() -> None:
    """When it is not back in time NotConnected says that nothing was sent."""
    slow = Backoff(first=1000.0, random=lambda: 1.0)
    async with websocket(cut_after(), V1) as url, realtime.connect(url, backoff=slow) as channel:
        await eventually(lambda: channel.subprotocol is None)
        with pytest.raises(NotConnected, match=r": not connected within 0\.01s$"):
            await channel.send("hi", timeout=0.01)


async def test_send_that_is_cut() -> None:
    """Cut before its ack, it may have arrived or not, and the error says so."""

    async def handler(server: ServerConnection) -> None:
        await server.recv()
        server.transport.abort()

    async with websocket(handler, V1) as url, realtime.connect(url, reconnect=False) as channel:
        with pytest.raises(Unconfirmed, match=r"the message may have arrived, or not$"):
            await channel.send("hi")


async def test_send_that_is_not_answered() -> None:
    """Without an ack in time it may have arrived or not."""
    async with websocket(forever, V1) as url, realtime.connect(url) as channel:
        with pytest.raises(Unconfirmed, match=r"^no answer within 0\.01s: the message may have"):
            await channel.send("hi", timeout=0.01)


async def test_send_after_the_end() -> None:
    """After the end it raises how it ended."""

    async def handler(server: ServerConnection) -> None:
        await server.close(4403, "not you")

    async with websocket(handler, V1) as url, realtime.connect(url) as channel:
        with pytest.raises(Closed):
            await soon(anext(channel))
        with pytest.raises(Closed, match="4403 not allowed: not you"):
            await channel.send("hi")


async def test_send_that_is_cancelled() -> None:
    """A send that is cancelled leaves nothing behind: the next one gets its own answer."""

    async def handler(server: ServerConnection) -> None:
        refs = [json.loads(await server.recv())["ref"] for _ in range(2)]
        for ref in refs:
            await server.send(frame("realtime:ack", ref=ref, id=f"e-{ref}"))
        await forever(server)

    async with websocket(handler, V1) as url, realtime.connect(url) as channel:
        sending = asyncio.create_task(channel.send("one"))
        await asyncio.sleep(0)
        sending.cancel()
        await asyncio.wait([sending])
        assert sending.cancelled()
        assert await channel.send("two") == Position("e", 2)


@pytest.mark.parametrize("data", ["\ud800", {1, 2}, object()])
async def test_what_cannot_be_sent(data: Any) -> None:
    """What is no text, bytes or JSON is a ValueError."""
    async with websocket(forever) as url, realtime.connect(url) as channel:
        with pytest.raises(ValueError, match=r"JSON|surrogates"):
            await channel.send(data)


# A slow consumer


async def test_slow_consumer_is_the_servers_flow_control() -> None:
    """Nobody takes anything: after some read-ahead nothing more is read from the socket."""
    sent, stalled = 0, asyncio.Event()

    async def handler(server: ServerConnection) -> None:
        nonlocal sent
        with contextlib.suppress(TimeoutError):
            while sent < 100_000_000:
                async with asyncio.timeout(0.3):
                    await server.send(b"x" * 60_000)
                sent += 60_000
        stalled.set()

    async with websocket(handler, close_timeout=0.1) as url, realtime.connect(url) as channel:
        await soon(stalled.wait())
        assert await take(channel, 1) == [b"x" * 60_000]
    assert sent < 40_000_000


async def test_ack_behind_messages() -> None:
    """A send gets its ack although nobody takes the messages before it, and none of them is lost."""

    async def handler(server: ServerConnection) -> None:
        ref = json.loads(await server.recv())["ref"]
        for _ in range(100):
            await server.send(frame("message", "x" * 10_000))
        await server.send(frame("realtime:ack", ref=ref, id="e-1"))
        await forever(server)

    async with websocket(handler, V1) as url, realtime.connect(url) as channel:
        assert await channel.send("hi") == Position("e", 1)
        assert len("".join(await take(channel, 100))) == 1_000_000


# Leaving


async def test_leaving_closes_with_1000() -> None:
    """The server sees a close with 1000."""
    codes = []

    async def handler(server: ServerConnection) -> None:
        await server.wait_closed()
        codes.append(server.close_code)

    async with websocket(handler) as url, realtime.connect(url):
        pass
    assert codes == [1000]


async def test_leaving_ends_the_iteration() -> None:
    """Whoever iterates elsewhere when it is left comes to the end."""
    async with websocket(forever) as url:
        async with realtime.connect(url) as channel:
            taking = asyncio.create_task(anext(channel, "the end"))
            await asyncio.sleep(0)
        assert await soon(taking) == "the end"
        with pytest.raises(Closed, match=r"^1000 done$"):
            await channel.send("hi")


async def test_nothing_is_left() -> None:
    """No task is left, and no socket: the server sees each connection end."""
    closed = []

    async def handler(server: ServerConnection) -> None:
        await server.send("hi")
        await server.wait_closed()
        closed.append(server)

    async with websocket(handler) as url:
        before = asyncio.all_tasks()
        for _ in range(3):
            async with realtime.connect(url) as channel:
                await take(channel, 1)
        await eventually(lambda: len(closed) == 3)
        await eventually(lambda: asyncio.all_tasks() <= before)


@pytest.mark.parametrize("rude", ["never answers", "never reads"])
async def test_leaving_whatever_the_server_does(rude: str) -> None:
    """Two seconds are enough to leave a server that ignores the close or does not read."""

    async def handler(server: ServerConnection) -> None:
        server.transport.pause_reading()
        await forever(server)

    async with websocket(handler, ping_interval=None, close_timeout=0.1) as url:
        async with realtime.connect(url) as channel:
            if rude == "never reads":
                with contextlib.suppress(Unconfirmed):
                    while True:
                        await channel.send(b"x" * 100_000, timeout=0.2)
            began = now()
        assert now() - began < 2.0


@pytest.mark.parametrize("doing", ["listening", "leaving"])
async def test_flood(doing: str) -> None:
    """However many frames a server sends at once, everything else has its turn in between."""
    count, frames = 0, 50_000

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = asked.partition("Sec-WebSocket-Key: ")[2].partition("\r")[0]
        accept = base64.b64encode(
            hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        )
        writer.write(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        writer.write(b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        kind, end = (b"\x89", b"\x81\x03end") if doing == "listening" else (b"\x81", b"\x88\x02\x03\xe8")
        writer.write((kind + b"\0") * frames + end)  # pings, or empty texts
        await reader.read()

    async def turns() -> None:
        nonlocal count
        while True:
            count += 1
            await asyncio.sleep(0)

    async with http(handle) as address:
        async with realtime.connect(f"ws://{address}/", subprotocols=()) as channel:
            counting = asyncio.create_task(turns())
            if doing == "listening":
                assert await take(channel, 1) == ["end"]
        counting.cancel()
    assert count > frames / 100


async def test_cancelled_while_connecting() -> None:
    """To be cancelled while it connects leaves nothing open."""
    async with answering(b"", then_close=False) as address:
        before = asyncio.all_tasks()
        entering = asyncio.create_task(realtime.connect(f"ws://{address}/").__aenter__())
        for _ in range(20):
            await asyncio.sleep(0)
        entering.cancel()
        await asyncio.wait([entering])
        assert entering.cancelled()
        assert {task for task in asyncio.all_tasks() if "connection" in task.get_name()} <= before


async def test_left_while_it_is_away() -> None:
    """It can be left while it waits to come back."""
    async with (
        websocket(cut_after(frame("message", 1)), V1) as url,
        realtime.connect(url, backoff=Backoff(first=1000.0)) as channel,
    ):
        assert await take(channel, 1) == [1]


# Server-sent events


Sent = list[tuple[str, dict[str, str], bytes]]


def events(sent: Sent, *bodies: str, status: str = "202 Accepted", answer: str = '{"id":"e-8"}') -> Any:
    """A handler of bytes: each GET gets the next body, the last stays open; each POST the answer."""
    left = list(bodies)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            sent.append((first.removesuffix(" HTTP/1.1"), headers, body))
            if first.startswith("GET"):
                writer.write(stream(left.pop(0)))
                if not left:
                    await reader.read()
                return
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(answer)}\r\n\r\n"
            writer.write((head + answer).encode())

    return handle


async def test_events() -> None:
    """A stream of events gives the same messages; its welcome and bye are none."""
    body = (
        'id: e-1\nevent: realtime:welcome\ndata: {"client":"c","outcome":"new","heartbeat":30}\n\n'
        "id: e-2\ndata: one\ndata: two\n\n: comment\n\n"
        'event: realtime:gap\nid: e-4\ndata: {"missed":2}\n\n'
        'data: {"data":"AP8=","encoding":"base64"}\n\ndata: {"a":1}\n\n'
        'event: realtime:bye\ndata: {"code":1000,"reason":"","retry":null}\n\n'
    )
    async with http(events([], body, "")) as address, realtime.connect(f"http://{address}/") as channel:
        got = [(m.event, m.data, m.id) async for m in channel]
        assert (channel.client_id, channel.position) == ("c", Position("e", 4))
    assert got == [
        ("message", "one\ntwo", Position("e", 2)),
        ("realtime:gap", {"missed": 2}, Position("e", 4)),
        ("message", b"\x00\xff", None),
        ("message", '{"a":1}', None),
    ]


async def test_events_are_resumed() -> None:
    """Cut, a stream is asked for with Last-Event-ID, whatever the server's ids look like."""
    sent: Sent = []
    bodies = ["id: e-2\ndata: 1\n\n", "id: any thing\ndata: 2\n\n", "data: 3\n\n"]
    async with (
        http(events(sent, *bodies)) as address,
        realtime.connect(f"http://{address}/?a=b", since=-9, backoff=AT_ONCE) as channel,
    ):
        assert await take(channel, 3) == ["1", "2", "3"]
    assert [(first, headers.get("last-event-id")) for first, headers, _ in sent] == [
        ("GET /?a=b&since=-9", None),
        ("GET /?a=b", "e-2"),
        ("GET /?a=b", "any thing"),
    ]


async def test_retry_of_a_stream() -> None:
    """A stream's ``retry:`` says when to come back."""
    waits = Waits()
    async with (
        http(events([], "retry: 2500\n\n", "data: back\n\n")) as address,
        realtime.connect(f"http://{address}/", backoff=waits) as channel,
    ):
        assert await take(channel, 1) == ["back"]
    assert waits.asked == [(1, 1005, 2.5)]


async def test_silent_stream_is_noticed() -> None:
    """A stream that has promised a heartbeat and is silent for longer is opened again."""
    sent: Sent = []
    welcome = 'event: realtime:welcome\nid: e-3\ndata: {"outcome":"new","heartbeat":0.02}\n\n'

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        sent.append((head, {}, b""))
        writer.write(stream(welcome if len(sent) == 1 else "data: back\n\n"))
        await reader.read()

    async with (
        http(handle) as address,
        realtime.connect(f"http://{address}/", backoff=AT_ONCE, slack=0.02) as channel,
    ):
        assert await take(channel, 1) == ["back"]
    assert "Last-Event-ID: e-3" in sent[1][0]


@pytest.mark.parametrize(
    ("data", "kind", "body"),
    [
        ("hé", "text/plain; charset=utf-8", "hé".encode()),
        (b"\x00\xff", "application/octet-stream", b"\x00\xff"),
        ({"a": 1}, "application/json", b'{"a":1}'),
    ],
)
async def test_send_is_a_post(data: Any, kind: str, body: bytes) -> None:
    """Over HTTP a message is sent with a POST to the same URL, whose answer brings its position."""
    sent: Sent = []
    async with http(events(sent, "")) as address:
        url = f"http://{address}/chat?a=b"
        async with realtime.connect(url, name="al", headers=[("X-Token", "t")]) as channel:
            assert await channel.send(data, event="score") == Position("e", 8)
    first, headers, got = sent[-1]
    assert (first, headers["content-type"], got) == ("POST /chat?a=b&name=al&event=score", kind, body)
    assert [request[1]["x-token"] for request in sent] == ["t", "t"]


@pytest.mark.parametrize("answer", ["", "{}", "[]", "hello", '{"id":7}'])
async def test_post_without_a_position(answer: str) -> None:
    """A server that tells no position, or is somebody else's, gives None."""
    async with (
        http(events([], "", answer=answer)) as address,
        realtime.connect(f"http://{address}/") as channel,
    ):
        assert await channel.send("hi") is None


async def test_post_that_brings_messages() -> None:
    """What a channel says to the sender alone comes with the others."""
    answer = '{"messages":[{"event":"message","data":"Echo: hi","time":1.0}]}'
    async with (
        http(events([], "", answer=answer)) as address,
        realtime.connect(f"http://{address}/") as channel,
    ):
        await channel.send("hi")
        assert await take(channel, 1) == ["Echo: hi"]


@pytest.mark.parametrize("status", ["303 See Other", "400 Bad Request", "503 Service Unavailable"])
async def test_post_that_is_refused(status: str) -> None:
    """An answer other than 2xx raises Refused, with status and body."""
    async with (
        http(events([], "", status=status, answer="say who\n")) as address,
        realtime.connect(f"http://{address}/") as channel,
    ):
        with pytest.raises(Refused, match=f": the message was refused: {status}: say who$"):
            await channel.send("hi")


async def test_post_that_is_cut() -> None:
    """A POST whose answer does not come may have arrived or not; a foreign server is not asked again."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET"):
            writer.write(stream(""))
            await reader.read()
        heads.append(head)

    heads: list[bytes] = []
    async with http(handle) as address, realtime.connect(f"http://{address}/") as channel:
        with pytest.raises(
            Unconfirmed, match=r"^the connection was lost: the message may have arrived, or"
        ):
            await channel.send("hi")
        assert len(heads) == 1


class Losing:
    """A way to a server on which the answers to the first POSTs are lost, after the server has given them.

    ``streams``: what is lost with them. ``then``: the port to which it leads afterwards.
    """

    def __init__(self, port: int, *, lost: int = 1, streams: bool = False, then: int = 0) -> None:
        self.port, self.lost, self.then = port, lost, then
        self.with_streams = streams
        self.streams: list[asyncio.StreamWriter] = []
        self.keys: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = re.search(rb"(?i)content-length: ([0-9]+)", head)
        body = await reader.readexactly(int(size[1]) if size else 0)
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            to_server.write(head + body)
            if head.startswith(b"POST"):
                key = re.search(rb'(?i)idempotency-key: "([!-~]+)"', head)
                assert key is not None
                self.keys.append(key[1].decode())
                if len(self.keys) <= self.lost:
                    await from_server.readuntil(b"\r\n\r\n")
                    self.port = self.then or self.port
                    for stream in self.streams if self.with_streams else ():
                        stream.transport.abort()
                    return
            else:
                self.streams.append(writer)
            while data := await from_server.read(65536):
                writer.write(data)
        finally:
            to_server.transport.abort()


@pytest.mark.parametrize("streams", [False, True], ids=["POST", "POST and stream"])
async def test_lost_answer(serve: Serve, streams: bool) -> None:
    """A message whose answer is lost is sent again under its key, and was heard once."""
    async with serve(CONFIG, BOX) as serving:
        losing = Losing(serving.port, lost=2, streams=streams)
        async with (
            http(losing) as address,
            realtime.connect(f"http://{address}/box", backoff=AT_ONCE) as channel,
        ):
            await eventually(lambda: channel.client_id is not None)
            position = await channel.send("hi")
            assert await take(channel, 1) == ["hi"]
            assert position == channel.position == serving.server.bus.topic("box").position
        assert (len(losing.keys), len(set(losing.keys))) == (3, 1)
        box: Any = serving.server.channels["box"]
        assert len(box.heard) == 1


async def test_lost_ack() -> None:
    """Over a WebSocket, which sends no key, nothing is sent again."""
    sent: list[str | bytes] = []

    async def handler(server: ServerConnection) -> None:
        outcome = "recovered" if "since" in since_of(server) else "new"
        await server.send(frame("realtime:welcome", {"client": "c", "outcome": outcome}, id="e-1"))
        sent.append(await server.recv())
        server.transport.abort()

    async with websocket(handler, V1) as url, realtime.connect(url, backoff=AT_ONCE) as channel:
        await eventually(lambda: channel.client_id is not None)
        with pytest.raises(Unconfirmed):
            await channel.send("hi")
        with pytest.raises(Unconfirmed):
            await channel.send("ho")
    assert [json.loads(text)["data"] for text in sent] == ["hi", "ho"]


async def test_each_message_has_its_key(serve: Serve) -> None:
    """Two messages that say the same are two."""
    async with serve(CONFIG, BOX) as serving, realtime.connect(serving.http("/box")) as channel:
        first, second = await channel.send("hi"), await channel.send("hi")
    assert first != second


async def test_lost_answer_of_a_server_that_is_gone(serve: Serve, tmp_path: Path) -> None:
    """What one server may have heard is not sent to another, which cannot know it."""
    other = make(tmp_path / "other", CONFIG, BOX)
    async with serve(CONFIG, BOX) as serving, other:
        losing = Losing(serving.port, streams=True, then=other.addresses[0].port)
        async with (
            http(losing) as address,
            realtime.connect(f"http://{address}/box", backoff=AT_ONCE) as channel,
        ):
            await eventually(lambda: channel.client_id is not None)
            with pytest.raises(Unconfirmed, match=r"the connection was lost: the message may have arrived"):
                await channel.send("hi")
            await channel.send("ho")
        box: Any = other.channels["box"]
        assert [payload for _, _, payload in box.heard] == [b"ho"]


async def test_lost_answer_and_no_time(serve: Serve) -> None:
    """What is not answered in the time there is stays unconfirmed."""
    async with (
        serve(CONFIG, BOX) as serving,
        http(Losing(serving.port, lost=10**9)) as address,
        realtime.connect(f"http://{address}/box", backoff=AT_ONCE) as channel,
    ):
        await eventually(lambda: channel.client_id is not None)
        with pytest.raises(Unconfirmed, match=r"no answer within 0\.2s: the message may have arrived"):
            await channel.send("hi", timeout=0.2)
        box: Any = serving.server.channels["box"]
        assert len(box.heard) == 1


async def test_lost_answer_and_leaving(serve: Serve) -> None:
    """Whoever leaves while an answer is asked for again does not wait for it."""
    async with serve(CONFIG, BOX) as serving, http(Losing(serving.port, lost=10**9)) as address:
        async with realtime.connect(f"http://{address}/box", backoff=AT_ONCE, timeout=99.0) as channel:
            await eventually(lambda: channel.client_id is not None)
            sending = asyncio.create_task(channel.send("hi"))
            await asyncio.sleep(0)
        with pytest.raises(Unconfirmed):
            await soon(sending)


@pytest.mark.parametrize("final", [False, True])
async def test_lost_answer_and_a_refusal(final: bool) -> None:
    """A server that is busy when it is asked again is asked once more, and one that says no is heard."""
    welcome = 'event: realtime:welcome\nid: e-1\ndata: {"client":"c","outcome":"new"}\n\n'
    posts = 0
    waits = Waits()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal posts
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET"):
            writer.write(stream(welcome))
            await reader.read()
        await reader.readexactly(2)
        posts += 1
        if posts == 2:
            status = "422 Unprocessable Content" if final else "503 Service Unavailable\r\nRetry-After: 5"
            # The connection ends behind it: who is not told so may send the next into it.
            answer = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            writer.write(answer.encode())
        elif posts == 3:
            writer.write(b'HTTP/1.1 202 Accepted\r\nContent-Length: 12\r\n\r\n{"id":"e-8"}')

    async with http(handle) as address, realtime.connect(f"http://{address}/", backoff=waits) as channel:
        await eventually(lambda: channel.client_id is not None)
        if final:
            with pytest.raises(Refused, match="422"):
                await channel.send("hi")
        else:
            assert await channel.send("hi") == Position("e", 8)
            assert waits.asked == [(0, 1006, None), (1, 1006, 5.0)]


async def test_lost_answer_and_a_reset() -> None:
    """What was heard before the server lost what it knew is not sent again: it may not know that it was."""
    posts = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal posts
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET"):
            writer.write(stream('event: realtime:welcome\nid: e-1\ndata: {"outcome":"new"}\n\n'))
            await soon(posted.wait())
            writer.write(b"event: realtime:reset\nid: f-0\ndata: {}\n\n")
            await reader.read()
            return
        posts += 1
        posted.set()
        await eventually(lambda: channel.position == Position("f", 0))

    posted = asyncio.Event()
    async with http(handle) as address, realtime.connect(f"http://{address}/", backoff=AT_ONCE) as channel:
        await eventually(lambda: channel.position == Position("e", 1))
        with pytest.raises(Unconfirmed):
            await channel.send("hi")
    assert posts == 1


async def test_slow_consumer_of_events() -> None:
    """Of a stream that nobody takes from no more is read than the bound."""
    written = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(stream(""))
        with contextlib.suppress(TimeoutError):
            while written < 100_000_000:
                writer.write(b"data: %s\n\n" % (b"x" * 60_000))
                async with asyncio.timeout(0.3):
                    await writer.drain()
                written += 60_000
        stalled.set()

    stalled = asyncio.Event()
    async with http(handle) as address, realtime.connect(f"http://{address}/") as channel:
        await soon(stalled.wait())
        assert await take(channel, 1) == ["x" * 60_000]
    assert written < 40_000_000


# A bug of ours


async def test_whoever_iterates_hears_of_a_bug() -> None:
    """What should not happen in the task that reads ends the iteration with an error."""

    class Broken(Backoff):
        def delay(self, failures: int, code: int = 1006, advice: float | None = None) -> float:
            raise ZeroDivisionError("oops")

    async with websocket(cut_after()) as url, realtime.connect(url, backoff=Broken()) as channel:
        with pytest.raises(RealtimeError, match="oops"):
            await soon(anext(channel))


# Against a real server


ROOM = "channels: {{room: {{plugin: relay, path: /room, {settings}}}}}"
RELAY = {
    "relay.py": """
        from realtime import Channel, hookimpl

        class Relay(Channel):
            "What is said comes to everybody."

            async def on_message(self, client, message):
                return await self.publish(client.topic, message.data)

        @hookimpl
        def register_channels():
            return {"relay": Relay}
    """
}


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_what_is_sent_comes_back(serve: Serve, scheme: str) -> None:
    """What is sent stands where its answer says, on either transport, and nothing but it comes."""
    async with (
        serve(ROOM.format(settings="history: 9"), RELAY) as serving,
        realtime.connect(f"{scheme}://{serving.address}/room") as channel,
    ):
        positions = [await channel.send(data) for data in ("hi", b"\x00", {"a": [1]})]
        got = [await soon(anext(channel)) for _ in positions]
        assert [message.id for message in got] == positions
        assert [message.data for message in got] == ["hi", b"\x00", {"a": [1]}]
        assert channel.position == positions[-1]
        assert channel.welcome["channel"] == "room"
        assert channel.client_id in [client.id for client in serving.server.channels["room"].clients]


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_server_that_shuts_down(serve: Serve, scheme: str) -> None:
    """A server that shuts down says when to come back, and that is followed."""
    waits = Waits()
    async with serve(ROOM.format(settings="history: 9"), RELAY) as serving:
        channel = realtime.connect(f"{scheme}://{serving.address}/room", backoff=waits)
        async with channel:
            await channel.send("hi")
            assert await take(channel, 1) == ["hi"]
            await serving.server.stop()
            await eventually(lambda: len(waits.asked) > 1)
    failures, code, advice = waits.asked[0]
    assert (failures, code) == (1, 1001)
    assert advice is not None
    assert 1.0 <= advice <= 5.0


@pytest.mark.parametrize(("first", "then"), [("ws", "http"), ("http", "ws")])
async def test_goes_on_over_the_other_transport(serve: Serve, first: str, then: str) -> None:
    """A position of one transport is where to begin on the other."""
    async with serve(ROOM.format(settings="history: 9"), RELAY) as serving:
        async with realtime.connect(f"{first}://{serving.address}/room") as channel:
            for number in range(3):
                await channel.send(f"{number}")
            await take(channel, 2)
            position = channel.position
        async with realtime.connect(f"{then}://{serving.address}/room", since=position) as channel:
            assert await take(channel, 1) == ["2"]


async def test_chat_by_its_name(serve: Serve) -> None:
    """``name`` introduces a client to a chat on either transport."""
    async with (
        serve("channels: {chat: {plugin: chat, path: /chat, history: 9}}") as serving,
        realtime.connect(serving.ws("/chat"), name="alice") as alice,
        realtime.connect(serving.http("/chat"), name="bob") as bob,
    ):
        await alice.send("hi")
        await bob.send("hello")
        said = [{"from": "alice", "text": "hi"}, {"from": "bob", "text": "hello"}]
        got = [data for data in await take(alice, 5) if "text" in data]
        assert got == said


@pytest.mark.parametrize("scheme", ["ws", "http"])
@pytest.mark.parametrize("seed", SEEDS)
async def test_every_message_once_and_in_order(serve: Serve, seed: int, scheme: str) -> None:
    """Cut at random while messages flow, it gives each of them once and in order."""
    count, history = 300, "history: 1000"
    async with (
        serve(ROOM.format(settings=history), RELAY) as serving,
        cutting(serving.port, seed, 4000) as port,
    ):
        room = serving.server.channels["room"]
        url = f"{scheme}://127.0.0.1:{port}/room"
        async with realtime.connect(url, since="earliest", backoff=AT_ONCE) as channel:

            async def publish() -> None:
                for number in range(count):
                    await room.publish("room", f"{number} {'x' * (number % 50)}")
                    await asyncio.sleep(0)

            publishing = asyncio.create_task(publish())
            got = [int(text.split()[0]) for text in await take(channel, count)]
            await publishing
    assert got == list(range(count))


@pytest.mark.parametrize("scheme", ["ws", "http"])
@pytest.mark.parametrize("seed", SEEDS)
async def test_every_loss_is_told(serve: Serve, seed: int, scheme: str) -> None:
    """Where the server keeps too little for that, what is missing is exactly what the gaps tell."""
    count, dice = 300, random.Random(seed)
    settings = "history: 3, lag: 1ms, lag_bytes: 1KiB, overflow: skip"
    async with (
        serve(ROOM.format(settings=settings), RELAY) as serving,
        cutting(serving.port, seed, 4000) as port,
    ):
        room = serving.server.channels["room"]
        url = f"{scheme}://127.0.0.1:{port}/room"
        async with realtime.connect(url, since="earliest", backoff=AT_ONCE) as channel:

            async def publish() -> None:
                for number in range(200):
                    await room.publish("room", f"{number} {'x' * dice.randint(0, 50)}")
                    await asyncio.sleep(0)
                await soon(some.wait())
                # In one turn more than passes before a cut, and than is kept: something is lost for sure.
                for number in range(200, 240):
                    await room.publish("room", f"{number} {'x' * 500}")
                for number in range(240, count):
                    await room.publish("room", f"{number} {'x' * dice.randint(0, 50)}")
                    await asyncio.sleep(0)

            some = asyncio.Event()
            publishing = asyncio.create_task(publish())
            number, lost = -1, 0
            expected: int | None = None  # until there is a position nothing is promised
            while number < count - 1:
                message = await soon(anext(channel))
                some.set()
                if message.event == "realtime:gap":
                    lost += message.data["missed"]
                    expected = None if expected is None else expected + message.data["missed"]
                else:
                    number = int(message.data.split()[0])
                    assert expected in (None, number)
                    expected = number + 1
            await publishing
    assert lost > 0


@pytest.mark.parametrize("scheme", ["ws", "http"])
@pytest.mark.parametrize("seed", SEEDS)
async def test_every_send_is_heard_once_at_most(serve: Serve, seed: int, scheme: str) -> None:
    """Cut at random while it sends, what was confirmed is there once, and nothing is there twice."""
    count = 100
    async with (
        serve(ROOM.format(settings="history: 1000"), RELAY) as serving,
        cutting(serving.port, seed, 2000) as port,
        realtime.connect(f"{scheme}://127.0.0.1:{port}/room", backoff=AT_ONCE) as channel,
    ):
        confirmed = []
        for number in range(count):
            with contextlib.suppress(Unconfirmed):
                confirmed.append((await channel.send(number), number))
        there = [(message.id, message.data) for message in serving.server.bus.topic("room").history()]
    heard = [number for _, number in there]
    assert heard == sorted(set(heard))
    assert set(confirmed) <= set(there)
    assert len(confirmed) > count / 2


async def test_message_that_is_never_taken(serve: Serve) -> None:
    """What the server closes for is raised by the very send, with the code and the reason."""
    async with (
        serve("channels: {chat: {plugin: chat, path: /chat}}") as serving,
        realtime.connect(serving.ws("/chat"), name="alice") as chat,
    ):
        with pytest.raises(Closed, match="1003 wrong kind: the chat takes text only"):
            await chat.send(b"bytes")


# Tokens


def authorized_as(server: ServerConnection) -> str | None:
    """The header that a client came with."""
    assert server.request is not None
    return server.request.headers.get("Authorization")


async def test_token_is_sent_in_the_header(serve: Serve) -> None:
    """A token goes with every request: of a WebSocket, of a stream, and of a POST."""
    config = f"{AUTH}\nchannels: {{room: {{plugin: topics, path: /room, {ONLY_KNOWN}}}}}\n"
    async with serve(config) as serving:
        for url in (serving.ws("/room"), serving.http("/room")):
            async with realtime.connect(url, token=token()) as channel:
                await channel.send("hi")
                assert await take(channel, 1) == ["hi"]
            with pytest.raises(Refused) as caught:
                async with realtime.connect(url):
                    pass
            assert caught.value.status == 401


async def test_token_that_is_over_is_got_anew() -> None:
    """After 4401 a function is asked for another token; a text is the end."""
    came: list[str | None] = []

    async def handler(server: ServerConnection) -> None:
        came.append(authorized_as(server))
        if len(came) == 1:
            await server.close(4401, "the token has expired")
        await server.send(frame("message", "hi"))
        await server.wait_closed()

    tokens = iter(["one", "two"])

    async def fresh() -> str:
        return next(tokens)

    async with (
        websocket(handler, V1) as url,
        realtime.connect(url, token=fresh, backoff=AT_ONCE) as channel,
    ):
        assert await take(channel, 1) == ["hi"]
    assert came == ["Bearer one", "Bearer two"]
    came.clear()
    async with websocket(handler, V1) as url, realtime.connect(url, token="one") as channel:
        with pytest.raises(Closed, match="4401"):
            await soon(anext(channel))
    assert came == ["Bearer one"]


async def test_server_that_believes_no_token_is_not_asked_for_ever() -> None:
    """Who is told 4401 three times in a row gives up."""
    came = 0

    async def handler(server: ServerConnection) -> None:
        nonlocal came
        came += 1
        await server.close(4401, "no")

    async with (
        websocket(handler, V1) as url,
        realtime.connect(url, token=lambda: "x", backoff=AT_ONCE) as channel,
    ):
        with pytest.raises(Closed, match="4401"):
            await soon(anext(channel))
    assert came == 3


async def test_token_is_not_handed_to_another_host() -> None:
    """A redirect to somewhere else is followed without the token."""
    heads: list[bytes] = []

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    async with http(other) as elsewhere:
        moved = f"HTTP/1.1 302 Found\r\nLocation: http://{elsewhere}/\r\nContent-Length: 0\r\n\r\n"
        async with answering(moved.encode()) as address:
            with pytest.raises(Refused):
                async with realtime.connect(f"http://{address}/", token="s3cret"):
                    pass
    assert len(heads) == 1
    assert b"s3cret" not in heads[0]
