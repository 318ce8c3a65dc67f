"""Peers: what a test's clients receive, and what they say when nothing comes."""

from __future__ import annotations

import pytest
from puppet import PULLED, PUPPET
from wire import eventually

from realtime import Closed, Position, Refused
from realtime.testing import Serve

ECHO = "channels: {echo: {plugin: echo, path: /ws}}"
TOPICS = "channels: {topics: {plugin: topics, path: '/t/{topic...}', history: 10}}"


async def test_plain(serve: Serve) -> None:
    """A plain WebSocket receives text as ``str`` and binary as ``bytes``."""
    async with serve(ECHO) as server, server.ws("/ws") as client:
        await client.send("hi")
        assert await client.receive() == "Echo: hi"
        await client.send(b"\x00")
        await client.expect(b"\x00")


async def test_objects(serve: Serve) -> None:
    """With ``json=True`` a message has id, event and data, the welcome is aside, and an ack is awaited."""
    async with serve(PULLED, PUPPET) as server, server.ws("/p", json=True) as client:
        assert (client.welcome["client"], client.welcome["outcome"]) == ("c1", "new")
        position = await client.send("say")
        message = await client.receive()
        assert (message.id, message.event, message.data) == (position, "message", "said")
        assert isinstance(position, Position)


async def test_refusal(serve: Serve) -> None:
    """What the channel rejects raises where it was sent."""
    async with serve(PULLED, PUPPET) as server, server.ws("/p", json=True) as client:
        with pytest.raises(Refused, match="not today") as caught:
            await client.send("refuse")
        assert caught.value.status == 409


async def test_stream(serve: Serve) -> None:
    """A stream of events receives what was published, from where it asks to."""
    async with serve(TOPICS) as server:
        await server.bus.publish("topics/a", {"n": 1}, event="count")
        async with server.sse("/t/a", since="earliest") as stream:
            message = await stream.receive()
            assert (message.event, message.data, stream.welcome["channel"]) == ("count", {"n": 1}, "topics")


async def test_nothing_after_the_opening_is_missed(serve: Serve) -> None:
    """What is published once a client is open it receives."""
    async with serve(TOPICS) as server, server.ws("/t/a") as plain, server.sse("/t/a") as stream:
        await server.bus.publish("topics/a", "now")
        await plain.expect("now")
        await stream.expect("now")


async def test_handshake_is_refused(serve: Serve) -> None:
    """A refused handshake raises, with the status and the server's sentence."""
    async with serve(ECHO) as server:
        with pytest.raises(Refused, match="may not connect here") as caught:
            async with server.ws("/ws", headers={"Origin": "https://evil.example"}):
                pass
        assert caught.value.status == 403


async def test_json_needs_the_subprotocol(serve: Serve) -> None:
    """``json=True`` on a handler of one's own that knows no subprotocol says so."""
    files = {
        "raw.py": '''
            """Raw."""
            from aiohttp import web
            from realtime import hookimpl

            async def handle(request):
                ws = web.WebSocketResponse()
                await ws.prepare(request)
                await ws.send_str("raw")
                async for _ in ws:
                    pass
                return ws

            @hookimpl
            def register_routes(bus):
                return [web.get("/raw", handle)]
        '''
    }
    async with serve("plugins: [raw]\nchannels: {}", files) as server:
        with pytest.raises(AssertionError, match=r"does not speak realtime\.v1\.json"):
            async with server.ws("/raw", json=True):
                pass
        async with server.ws("/raw") as client:
            await client.expect("raw")


async def test_closed(serve: Serve) -> None:
    """The close of the server has its code and reason; then nothing can be received."""
    async with serve(PULLED, PUPPET) as server, server.ws("/p") as client:
        await client.send("close")
        assert await client.closed() == (4321, "enough")
        with pytest.raises(Closed, match="enough"):
            await client.receive()
        with pytest.raises(AssertionError, match="expected 'x', but was closed: 4321"):
            await client.expect("x")


async def test_close(serve: Serve) -> None:
    """A client that closes has left."""
    async with serve(ECHO) as server, server.ws("/ws") as client:
        await client.close()
        await eventually(lambda: not server.channel("echo").clients)
        assert await client.closed() == (1000, "")


# What does not come


async def test_time_out(serve: Serve) -> None:
    """A time-out says what was waited for, how long, and what came before."""
    async with serve(ECHO) as server, server.ws("/ws") as client:
        await client.send("hi")
        await client.receive()
        with pytest.raises(TimeoutError) as caught:
            await client.expect("more", timeout=0.05)
    assert str(caught.value) == (
        "ws 1 /ws: waited for 'more', and nothing came within 0.05s; before: 'Echo: hi'"
    )


async def test_time_out_of_a_client(serve: Serve) -> None:
    """A client can have a time-out of its own, which its acks have, too."""
    async with (
        serve(PULLED, PUPPET) as server,
        server.ws("/p", json=True, timeout=0.5) as client,  # in which it is to open, too
    ):
        with pytest.raises(TimeoutError, match=r"waited for the close, and nothing came within 0\.5s"):
            await client.closed()
        with pytest.raises(TimeoutError, match=r"'hang' was not acknowledged within 0\.5s"):
            await client.send("hang")


async def test_other_than_expected(serve: Serve) -> None:
    """What came instead is told."""
    async with serve(ECHO) as server, server.ws("/ws") as client:
        await client.send("a")
        with pytest.raises(AssertionError, match="ws 1 /ws: expected 'b', but 'Echo: a' came"):
            await client.expect("b")


async def test_nothing(serve: Serve) -> None:
    """Where nothing comes, ``assert_nothing`` returns."""
    async with serve(TOPICS) as server, server.ws("/t/a") as client:
        await server.bus.publish("topics/b", "elsewhere")
        await client.assert_nothing(within=0.01)


async def test_something(serve: Serve) -> None:
    """What was published before would have arrived, and is shown, however short the window is."""
    async with serve(TOPICS) as server, server.ws("/t/a") as client:
        await server.bus.publish("topics/a", "boo")
        with pytest.raises(AssertionError, match="expected nothing, but this came: 'boo'"):
            await client.assert_nothing(within=0)


async def test_close_is_something(serve: Serve) -> None:
    """A client that is closed has not heard nothing."""
    async with serve(PULLED, PUPPET) as server, server.ws("/p") as client:
        await client.send("close")
        with pytest.raises(AssertionError, match="expected nothing, but was closed: 4321"):
            await client.assert_nothing()
