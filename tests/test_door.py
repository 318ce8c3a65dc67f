"""What is answered before anybody looks at a request; what strangers try is in ``faults/test_http.py``."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack

import pytest
import wire
from aiohttp import web
from conftest import Serve
from wire import dial, eventually, request

from realtime import door, server

CONFIG = """
    server: {listen: ["127.0.0.1:0"], limits: {max_waiting: 2}}
    plugins: [raw]
    channels:
      echo: {plugin: echo, path: /ws}
      clock: {plugin: clock, path: /clock}
"""
FILES = {
    "raw.py": """
        import asyncio
        from aiohttp import web
        from realtime import hookimpl

        async def bug(request):
            raise RuntimeError("a bug")

        async def slow(request):
            await asyncio.Event().wait()

        async def body(request):
            return web.Response(text=str(len(await request.read())))

        @hookimpl
        def register_routes(bus):
            return [web.get("/bug", bug), web.get("/slow", slow), web.post("/body", body)]
    """
}
LIVE = request("/-/live")


def test_what_aiohttp_does_not_document() -> None:
    """What is used of aiohttp beside its documentation is there."""
    used = (
        "handle_error",
        "log_exception",
        "finish_response",
        "force_close",
        "close",
        "_current_request",
        "_messages",
        "_request_count",
        "_waiter",
    )
    assert [name for name in used if not hasattr(web.RequestHandler, name)] == []
    assert "_version" in web.BaseRequest.ATTRS
    assert hasattr(web.StreamResponse, "_prepare_headers")


async def test_bug(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A bug of a handler is answered with 500 and logged with its traceback."""
    async with serve(CONFIG, FILES) as serving:
        assert (await wire.ask(serving.port, "/bug"))[0].status == 500
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], RuntimeError)


async def test_malformed_body(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A body that turns out to be malformed while a plugin reads it is refused, and no bug of its."""
    headers = [("Transfer-Encoding", "chunked"), ("Expect", "100-continue")]
    sent = request("/body", headers, method="POST")
    async with serve(CONFIG, FILES) as serving, dial(serving.port, sent) as client:
        assert (await client.head()).status == 100
        await client.send(b"2\r\nhi\r\n")
        await client.send(b"garbage\r\n")
        assert (await client.head()).status == 400
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_second_request(serve: Serve) -> None:
    """A connection is kept for further requests."""
    async with serve(CONFIG, FILES) as serving, dial(serving.port) as client:
        for _ in range(3):
            await client.send(LIVE)
            assert (await client.response())[0].status == 200


# Connections without a request


async def test_streams_and_requests_do_not_wait(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a stream nor a request that is being answered makes room for those who say nothing."""
    monkeypatch.setattr(door, "CROWDED_AFTER", 0.0)
    async with (
        serve(CONFIG, FILES) as serving,
        wire.websocket(serving.port, "/ws") as socket,
        wire.stream(serving.port, "/clock") as stream,
        dial(serving.port, LIVE + request("/slow")) as slow,
        AsyncExitStack() as crowd,
    ):
        await slow.response()
        silent = [await crowd.enter_async_context(dial(serving.port)) for _ in range(10)]
        assert await silent[0].rest() == b""
        await socket.send(wire.text("hi"))
        assert await socket.text() == "Echo: hi"
        assert "Current time" in (await stream.event())["data"]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await slow.exactly(1)


async def test_who_has_been_answered_waits_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is kept for a next request is one without a request."""
    monkeypatch.setattr(door, "CROWDED_AFTER", 0.0)
    async with serve(CONFIG, FILES) as serving, dial(serving.port, LIVE) as first:
        await first.response()
        async with dial(serving.port, LIVE), dial(serving.port, LIVE):
            assert await first.rest() == b""


async def test_who_has_just_come_may_stay(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a moment there may be more: in a storm of reconnects many are only not read yet."""
    monkeypatch.setattr(door, "CROWDED_AFTER", 60.0)
    async with serve(CONFIG, FILES) as serving, AsyncExitStack() as crowd:
        silent = [await crowd.enter_async_context(dial(serving.port)) for _ in range(10)]
        for client in silent:
            await client.send(LIVE)
            assert (await client.response())[0].status == 200


async def test_descriptors(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """But never so many that there are no descriptors left to accept others with."""
    monkeypatch.setattr(door, "CROWDED_AFTER", 60.0)
    monkeypatch.setattr(server, "descriptors", lambda: 8)
    async with serve(CONFIG, FILES) as serving, AsyncExitStack() as crowd:
        silent = [await crowd.enter_async_context(dial(serving.port)) for _ in range(10)]
        for client in silent[:2]:
            assert await client.rest() == b""
        await silent[-1].send(LIVE)
        assert (await silent[-1].response())[0].status == 200


async def test_log_of_a_crowd(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says once in a while which limit strikes, and how often it did."""
    monkeypatch.setattr(door, "CROWDED_AFTER", 0.0)
    async with serve(CONFIG, FILES) as serving, AsyncExitStack() as crowd:
        silent = [await crowd.enter_async_context(dial(serving.port)) for _ in range(5)]
        await silent[2].rest()
        monkeypatch.setattr(door, "QUIET", 0.0)
        last = [await crowd.enter_async_context(dial(serving.port)) for _ in range(3)]
        await last[0].rest()
    counts = [text.split()[0] for text in caplog.messages if "server.limits.max_waiting" in text]
    assert counts == ["1", "3", "1", "1"]


@pytest.mark.parametrize("head", [LIVE[:-4], LIVE], ids=["some", "all"])
async def test_request_that_comes_as_the_server_ends(serve: Serve, head: bytes) -> None:
    """What comes when nothing is read any more is not called late: another server may answer it."""
    async with serve(CONFIG, FILES) as serving, dial(serving.port, LIVE) as client:
        await client.response()
        assert serving.server._runner is not None
        assert serving.server._runner.server is not None
        (http,) = serving.server._runner.server.connections
        assert isinstance(http, door.Http)
        http._close = True  # as the server's end begins for it, and it waits for no request any more
        await client.send(head)
        await eventually(lambda: http._has_line)
        http.force_close()
        answer, text = await client.response()
        assert (answer.status, text) == (503, "the server is shutting down\n")
        assert int(answer.headers["retry-after"]) > 0
