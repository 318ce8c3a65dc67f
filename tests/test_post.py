"""POST: one message, and the answer to it."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import needs
import pytest
from conftest import Serve
from wire import (
    UPGRADE,
    Headers,
    Wire,
    ask,
    dial,
    eventually,
    lines,
    post,
    posting,
    request,
    soon,
    stream,
)

from realtime.transports import post as post_module

BOX = {
    "box.py": '''
        import asyncio
        from realtime import Channel, CloseCode, Identity, Rejected, hookimpl

        class Box(Channel):
            """Publishes what it hears, or does what the event asks for."""

            transports = ("websocket", "sse", "post")

            def __init__(self, name, settings, bus):
                super().__init__(name, settings, bus)
                self.seen = []
                self.heard = []
                self.begun = asyncio.Event()
                self.go = asyncio.Event()
                self.last = None

            async def on_connect(self, client):
                self.seen.append("connect")

            async def on_join(self, client):
                self.seen.append("join")

            async def on_leave(self, client):
                self.seen.append("leave")

            async def on_message(self, client, message):
                self.last = client
                self.heard.append((message.event, message.kind, message.payload))
                if message.event == "tell":
                    listed = len(self.clients) + len(self.bus.topic(client.topic).members)
                    await client.send({"id": client.id, "by": client.transport, "listed": listed,
                                       "query": dict(client.query), "there": await client.ping(),
                                       "who": client.identity and client.identity.name})
                elif message.event == "close":
                    await client.close(int(message.payload), "because")
                elif message.event == "reject":
                    await client.send("first")
                    raise Rejected("not this: é", int(message.payload))
                elif message.event == "both":
                    await client.send("first")
                    await client.send(b"second", event="more")
                    return await self.publish(client.topic, "published")
                elif message.event == "nothing":
                    return None
                elif message.event == "receive":
                    await client.receive()
                elif message.event == "fail":
                    raise {"RuntimeError": RuntimeError, "SystemExit": SystemExit,
                           "CancelledError": asyncio.CancelledError}[message.data]("a bug")
                elif message.event == "much":
                    while not client.closed:
                        await client.send("x" * 1000)
                        self.heard.append("sent")
                elif message.event == "wait":
                    self.begun.set()
                    await self.go.wait()
                    self.heard.append("finished")
                else:
                    return await self.publish(client.topic, message.data, event=message.event)

        @hookimpl
        def authenticate(request):
            token = request.query.get("token")
            return Identity(name=token) if token else None

        @hookimpl
        def register_channels():
            return {"box": Box}
    '''
}
CONFIG = "channels: {box: {plugin: box, path: /box, history: 10, limits: {max_message: 1KiB}}}"
TEXT: Headers = [("Content-Type", "application/x-www-form-urlencoded")]
JSON: Headers = [("Content-Type", "application/json")]
CHUNKED = ("Transfer-Encoding", "chunked")
BYTES: Headers = [("Content-Type", "application/octet-stream")]


async def answer(port: int, path: str, body: bytes = b"", headers: Headers = ()) -> Any:
    """The object that a POST is answered with."""
    head, text = await post(port, path, body, headers)
    assert (head.status, head.headers["content-type"]) == (202, "application/json"), text
    return json.loads(text)


# What is said


async def test_position_is_the_answer(serve: Serve) -> None:
    """A message that was published is answered with 202 and its position, and everybody has it."""
    async with serve(CONFIG, BOX) as serving, stream(serving.port, "/box") as reader:
        head, text = await post(serving.port, "/box", b"hi")
        event = await reader.event()
    assert (head.status, event["data"]) == (202, "hi")
    assert text == f'{{"id":"{event["id"]}"}}'
    assert head.headers["cache-control"] == "no-store"


async def test_nothing_was_published(serve: Serve) -> None:
    """Where the channel publishes nothing the answer is empty."""
    async with serve(CONFIG, BOX) as serving:
        assert await answer(serving.port, "/box?event=nothing") == {}


@pytest.mark.parametrize(
    ("headers", "body", "kind", "payload"),
    [
        (TEXT, b"a=b&c=%20", "text", b"a=b&c=%20"),
        ((), b"hi", "text", b"hi"),
        ((), b"", "text", b""),
        ([("Content-Type", "text/plain; charset=utf-8")], "é".encode(), "text", "é".encode()),
        ([("Content-Type", "nonsense")], b"\x00", "text", b"\x00"),
        (JSON, b' {"a":\n [1, null]} ', "json", b'{"a":[1,null]}'),
        (JSON, b'"hi"', "text", b"hi"),
        ([("Content-Type", "Application/JSON; charset=utf-8")], b"7", "json", b"7"),
        (BYTES, b"\x00\xff", "bytes", b"\x00\xff"),
    ],
)
async def test_content_type_says_what_it_is(
    serve: Serve, headers: Headers, body: bytes, kind: str, payload: bytes
) -> None:
    """JSON and bytes are what says so, everything else is text as it stands."""
    async with serve(CONFIG, BOX) as serving:
        await answer(serving.port, "/box", body, headers)
        box: Any = serving.server.channels["box"]
        assert box.heard == [("message", kind, payload)]


@pytest.mark.parametrize(
    ("headers", "body", "says"),
    [
        (TEXT, b"ab\xff", "not UTF-8: invalid start byte at byte 2"),
        (TEXT, b"\xed\xa0\x80", "not UTF-8"),
        (JSON, b"", "no JSON"),
        (JSON, b'{"a": }', "no JSON: unexpected character, expected a JSON value: line 1 column 7"),
        (JSON, b"[NaN]", "line 1 column 2"),
        (JSON, b"[Infinity]", "line 1 column 2"),
        (JSON, b"1e999", "infinity"),
        (JSON, b"9" * 900, "infinity"),
        (JSON, b'"\\ud800"', "surrogate"),
        (JSON, b'"\xff"', "no JSON"),
        (JSON, b"[" * 1024, "no JSON"),
        (JSON, b"[" * 500 + b"]" * 500, "no JSON"),
        (JSON, b"{}{}", "column 3"),
    ],
)
async def test_body_that_cannot_be_read(
    serve: Serve, headers: Headers, body: bytes, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A body that is not what it says is answered with 400 and what is wrong, and not logged."""
    async with serve(CONFIG, BOX) as serving:
        head, text = await post(serving.port, "/box", body, headers)
        box: Any = serving.server.channels["box"]
        assert box.heard == []
    assert head.status == 400
    assert says in text
    assert "Traceback" not in caplog.text


async def test_event(serve: Serve) -> None:
    """``?event=`` names the event."""
    async with serve(CONFIG, BOX) as serving, stream(serving.port, "/box") as reader:
        await answer(serving.port, "/box?event=news%21", b"x")
        assert (await reader.event())["event"] == "news!"


@pytest.mark.parametrize(
    ("event", "says"),
    [("realtime:join", "the server's to send"), ("", "no event name"), ("a%0Ab", "no event name")],
)
async def test_event_that_is_none(serve: Serve, event: str, says: str) -> None:
    """An event of the server's own, or one that could forge a line, is 400."""
    async with serve(CONFIG, BOX) as serving:
        head, text = await post(serving.port, f"/box?event={event}", b"x")
    assert head.status == 400
    assert says in text


async def test_body_in_chunks(serve: Serve) -> None:
    """A body may come in chunks."""
    chunks = request("/box", [CHUNKED], method="POST") + b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"
    async with serve(CONFIG, BOX) as serving, dial(serving.port, chunks) as wire:
        assert (await wire.head()).status == 202
        box: Any = serving.server.channels["box"]
        assert box.heard == [("message", "text", b"ab")]


async def test_chunk_that_is_none(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A body whose chunks are broken does not come in time, and nobody hears it."""
    monkeypatch.setattr(post_module, "BODY_TIMEOUT", 0.1)
    chunks = request("/box", [CHUNKED], method="POST") + b"1\r\na\r\nzz\r\n"
    async with serve(CONFIG, BOX) as serving, dial(serving.port, chunks) as wire:
        assert (await wire.head()).status in (400, 408)
        box: Any = serving.server.channels["box"]
        assert box.heard == []
    assert "Traceback" not in caplog.text


async def test_connection_stays(serve: Serve) -> None:
    """Two messages can be posted on one connection."""
    two = posting("/box", b"a") + posting("/box", b"b")
    async with serve(CONFIG, BOX) as serving, dial(serving.port, two) as wire:
        first, second = (await wire.response())[1], (await wire.response())[1]
    assert first.endswith('-1"}')
    assert second.endswith('-2"}')


async def test_curl(serve: Serve) -> None:
    """``curl -d`` posts a text."""
    curl = [needs.curl(), "-s", "-w", r"\n", "-d", "hi & ho"]
    async with serve(CONFIG, BOX) as serving, stream(serving.port, "/box") as reader:
        (printed,) = await lines([*curl, serving.http("/box")], 1)
        event = await reader.event()
    assert (json.loads(printed), event["data"]) == ({"id": event["id"]}, "hi & ho")


# Who says it


async def test_it_never_was_there(serve: Serve) -> None:
    """Who posts is no client that joins: nobody sees it come or go, and it is in no list."""
    async with serve(CONFIG, BOX) as serving:
        (told,) = (await answer(serving.port, "/box?event=tell&x=y&token=t"))["messages"]
        box: Any = serving.server.channels["box"]
        assert box.seen == []
        assert box.last.closed
        assert not await box.last.ping()
        await box.last.send("too late")
    data = told["data"]
    assert (data["by"], data["listed"], data["there"], data["who"]) == ("post", 0, True, "t")
    assert data["query"] == {"event": "tell", "x": "y"}


async def test_direct_messages_are_in_the_answer(serve: Serve) -> None:
    """What the channel sends to this client alone is in the answer, in order, beside the position."""
    async with serve(CONFIG, BOX) as serving:
        got = await answer(serving.port, "/box?event=both")
        assert got["id"] == str(serving.server.bus.topic("box").position)
    assert [(message["event"], message["data"]) for message in got["messages"]] == [
        ("message", "first"),
        ("more", "c2Vjb25k"),
    ]
    assert not any("id" in message for message in got["messages"])


async def test_direct_messages_are_bounded(serve: Serve) -> None:
    """An answer holds the largest message and 64 KiB; a channel that sends on and on is stopped."""
    async with serve(CONFIG, BOX) as serving:
        head, text = await post(serving.port, "/box?event=much", b"")
        box: Any = serving.server.channels["box"]
        assert box.heard.count("sent") == (1024 + 65_536) // 1256 + 1  # each counts 256 more
    assert (head.status, text) == (503, "the answer is too long\n")


async def test_receive_has_nothing_more(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A channel that wants to hear more is told that there is no more, and so is the client."""
    async with serve(CONFIG, BOX) as serving:
        head, text = await post(serving.port, "/box?event=receive", b"")
    assert head.status == 400
    assert "one thing" in text
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (1000, 202), (1001, 503), (1003, 415), (1007, 400), (1008, 403), (1009, 413), (1011, 500),
        (1012, 503), (1013, 503), (4000, 400), (4401, 401), (4403, 403), (4409, 409), (4499, 400),
        (4509, 409), (4529, 429), (4999, 503),
    ],
)  # fmt: skip
async def test_close_becomes_a_status(serve: Serve, code: int, status: int) -> None:
    """The code that a channel closes with becomes the status, its reason the text."""
    async with serve(CONFIG, BOX) as serving:
        head, text = await post(serving.port, "/box?event=close", str(code).encode())
    assert (head.status, text) == (status, "{}" if status == 202 else "because\n")
    assert ("retry-after" in head.headers) is (status in (429, 503))
    assert ("www-authenticate" in head.headers) is (status == 401)


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 429, 503, 599])
async def test_rejection_has_its_status(
    serve: Serve, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """What a channel does not take is answered with its status and its sentence, and is no bug."""
    async with serve(CONFIG, BOX) as serving:
        head, text = await post(serving.port, "/box?event=reject", str(status).encode())
    assert (head.status, text) == (status, "not this: é\n")
    assert ("retry-after" in head.headers) is (status in (429, 503))
    assert ("www-authenticate" in head.headers) is (status == 401)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("raised", ["RuntimeError", "SystemExit", "CancelledError"])
async def test_bug(serve: Serve, raised: str, caplog: pytest.LogCaptureFixture) -> None:
    """An exception of the channel is a 500, with its traceback in the log of the channel."""
    async with serve(CONFIG, BOX) as serving:
        head, text = await post(serving.port, "/box?event=fail", raised.encode())
        assert (head.status, text) == (500, "the channel has a bug\n")
        assert await answer(serving.port, "/box?event=nothing") == {}
    assert [record.name for record in caplog.records if record.exc_info] == ["realtime.channel.box"]
    assert raised in caplog.text


async def test_foreign_page(serve: Serve) -> None:
    """A page of another origin may not post."""
    async with serve(CONFIG, BOX) as serving:
        head, _ = await post(serving.port, "/box", b"x", [("Origin", "https://evil.com")])
        box: Any = serving.server.channels["box"]
        assert (head.status, box.heard) == (403, [])


async def test_own_page(serve: Serve) -> None:
    """A page of the server's own origin may."""
    async with serve(CONFIG, BOX) as serving:
        assert "id" in await answer(serving.port, "/box", b"x", [("Origin", "http://localhost")])


async def test_handshake_by_post(serve: Serve) -> None:
    """A POST that asks for a WebSocket is neither."""
    async with serve(CONFIG, BOX) as serving:
        head, text = await ask(serving.port, "/box", UPGRADE, method="POST")
    assert (head.status, text) == (405, "a WebSocket begins with GET\n")


async def test_room_is_a_topic(serve: Serve) -> None:
    """A path with variables posts to the room that it names, and only to a name that is one."""
    config = 'channels: {box: {plugin: box, path: "/box/{room}"}}'
    async with serve(config, BOX) as serving, stream(serving.port, "/box/blue") as reader:
        await answer(serving.port, "/box/red", b"1")
        await answer(serving.port, "/box/blue", b"2")
        assert (await reader.event())["data"] == "2"
        assert (await post(serving.port, "/box/a%2Fb", b"3"))[0].status == 400


# How much, and how long


@pytest.mark.parametrize("chunked", [False, True])
async def test_largest_body(serve: Serve, chunked: bool) -> None:
    """``max_message`` is allowed, one byte more is 413, and the connection is closed."""
    async with serve(CONFIG, BOX) as serving:
        for size, status in ((1024, 202), (1025, 413)):
            body = b"x" * size
            data = posting("/box", body)
            if chunked:
                data = request("/box", [CHUNKED], method="POST")
                data += b"%x\r\n%s\r\n0\r\n\r\n" % (size, body)
            async with dial(serving.port, data) as wire:
                head, text = await wire.response()
                assert head.status == status
        assert "limits.max_message" in text
        assert head.headers["connection"] == "close"


async def test_too_large_is_said_before_it_has_come(serve: Serve) -> None:
    """A body that says it is too large is refused before it comes, one that does not as soon as it is."""
    length = [("Content-Length", "1000000000")]
    async with serve(CONFIG, BOX) as serving:
        for headers, body in ((length, b""), ([CHUNKED], b"401\r\n" + b"x" * 1025 + b"\r\n")):
            async with dial(serving.port, request("/box", headers, method="POST") + body) as wire:
                assert (await wire.head()).status == 413


async def test_largest_body_of_the_server(serve: Serve) -> None:
    """Where the channel sets none, ``server.limits.max_message`` holds, also above a mebibyte."""
    config = """
        server: {listen: ["127.0.0.1:0"], limits: {max_message: 3MiB}}
        channels: {box: {plugin: box, path: /box}}
    """
    async with serve(config, BOX) as serving:
        assert (await post(serving.port, "/box", b"x" * 3 * 1024 * 1024))[0].status == 202
        assert (await post(serving.port, "/box", b"x" * (3 * 1024 * 1024 + 1)))[0].status == 413


@pytest.mark.parametrize("way", ["length", "chunked"])
async def test_body_that_never_ends(serve: Serve, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """A body that does not come in time is 408, and the connection is closed."""
    monkeypatch.setattr(post_module, "BODY_TIMEOUT", 0.1)
    header = ("Content-Length", "9") if way == "length" else CHUNKED
    async with (
        serve(CONFIG, BOX) as serving,
        dial(serving.port, request("/box", [header], method="POST")) as wire,
    ):
        head, text = await wire.response()
        assert head.status == 408
        assert "did not come" in text
        assert head.headers["connection"] == "close"


@pytest.mark.parametrize("coding", ["gzip", "identity", "zebra", "deflate, gzip"])
async def test_compressed_body(serve: Serve, coding: str) -> None:
    """A body that says it is encoded is refused, for what it would become has no bound."""
    body = gzip.compress(b"x" * 100_000)
    headers = [("Content-Encoding", coding)]
    async with serve(CONFIG, BOX) as serving:
        head, text = await post(serving.port, "/box", body, headers)
        box: Any = serving.server.channels["box"]
        assert box.heard == []
    assert (head.status, head.headers["accept-encoding"]) == (415, "identity")
    assert "compressed" in text


async def test_server_is_full(serve: Serve) -> None:
    """A full server or channel takes no POST; a POST that waits takes a place and gives it back."""
    for config in (
        'server: {listen: ["127.0.0.1:0"], limits: {max_clients: 1}}\n'
        "channels: {box: {plugin: box, path: /box}}",
        "channels: {box: {plugin: box, path: /box, limits: {max_clients: 1}}}",
    ):
        async with serve(config, BOX) as serving:
            box: Any = serving.server.channels["box"]
            async with dial(serving.port, posting("/box?event=wait", b"")) as wire:
                await soon(box.begun.wait())
                for headers, method in ((UPGRADE, "GET"), ((), "POST")):
                    head, text = await ask(serving.port, "/box", headers, method=method)
                    assert head.status == 503
                    assert int(head.headers["retry-after"]) in range(2, 9)
                    assert "max_clients" in text
                box.go.set()
                assert (await wire.head()).status == 202
            assert "id" in await answer(serving.port, "/box", b"x")


async def test_too_many_topics(serve: Serve) -> None:
    """A message to a room more than ``server.limits.topics`` is 503, and no bug of the channel."""
    config = """
        server: {listen: ["127.0.0.1:0"], limits: {topics: 1}}
        channels: {box: {plugin: box, path: "/box/{room}"}}
    """
    async with serve(config, BOX) as serving, stream(serving.port, "/box/a"):
        head, text = await post(serving.port, "/box/b", b"x")
        assert (head.status, int(head.headers["retry-after"]) in range(2, 9)) == (503, True)
        assert "server.limits.topics" in text


async def test_shutting_down(serve: Serve) -> None:
    """A server that is shutting down takes no POST on a connection that is still open."""
    saying = """
        import asyncio
        from contextlib import asynccontextmanager
        from realtime import Channel, hookimpl

        class Late(Channel):
            ending = asyncio.Event()
            go = asyncio.Event()

            @asynccontextmanager
            async def lifespan(self):
                yield
                self.ending.set()
                await self.go.wait()

        @hookimpl
        def register_channels():
            return {"late": Late}
    """
    config = CONFIG.replace("channels: {", "channels: {late: {plugin: late, path: /late}, ")
    async with serve(config, {**BOX, "late.py": saying}) as serving:
        late: Any = serving.server.channels["late"]
        async with dial(serving.port, posting("/box", b"x")) as wire:
            assert (await wire.response())[0].status == 202
            stopping = asyncio.create_task(serving.server.stop())
            await soon(late.ending.wait())
            await wire.send(posting("/box", b"y"))
            head, text = await wire.response()
            assert (head.status, "retry-after" in head.headers) == (503, True)
            assert "shutting down" in text
            late.go.set()
            await stopping


# Who goes before the answer


@pytest.mark.parametrize("way", [Wire.finish, Wire.reset], ids=["FIN", "RST"])
async def test_what_was_begun_may_finish(serve: Serve, way: Any) -> None:
    """A channel may finish what a client has begun that did not wait for the answer."""
    async with serve(CONFIG, BOX) as serving, dial(serving.port, posting("/box?event=wait", b"")) as wire:
        box: Any = serving.server.channels["box"]
        await soon(box.begun.wait())
        way(wire)
        await asyncio.sleep(0)
        await answer(serving.port, "/box?event=nothing")  # turns in which it could have been cancelled
        box.go.set()
        await eventually(lambda: "finished" in box.heard)


async def test_what_does_not_finish_is_cancelled(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """But not for ever."""
    monkeypatch.setattr(post_module, "LEAVE_GRACE", 0.05)
    async with serve(CONFIG, BOX) as serving, dial(serving.port, posting("/box?event=wait", b"")) as wire:
        box: Any = serving.server.channels["box"]
        await soon(box.begun.wait())
        wire.reset()
        await eventually(lambda: "is cancelled" in caplog.text)


async def test_client_that_goes_while_its_body_comes(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a body takes a place, and when its client goes it is no message and no error."""
    config = "channels: {box: {plugin: box, path: /box, limits: {max_clients: 1}}}"
    half = request("/box", [("Content-Length", "9")], method="POST") + b"half"
    async with serve(config, BOX) as serving:
        async with dial(serving.port, half) as wire:
            while (await post(serving.port, "/box", b""))[0].status != 503:
                pass
            wire.reset()
        while (await post(serving.port, "/box", b"whole"))[0].status != 202:
            pass
        box: Any = serving.server.channels["box"]
        assert b"half" not in [payload for _, _, payload in box.heard]
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
