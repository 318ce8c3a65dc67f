"""Stalls and floods: who says too much, reads too little, or comes too often; rows 52 to 73."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
import wire
from conftest import FLOODED, Serving
from timing import now, within

from faults.catalogue import fault
from faults.conftest import Calm
from realtime import BusError, Rejected, TooLarge
from realtime.encodings import JsonFrames
from realtime.loader import Plugins
from realtime.topic import BURST
from realtime.transports import connection
from realtime.transports.websocket import MAX_PONGS

#: How many clients a crowd has. A server and its clients share the descriptors of one process here.
CROWD = int(os.environ.get("REALTIME_CLIENTS", "400"))
V1: wire.Headers = [("Sec-WebSocket-Protocol", "realtime.v1.json")]
DEFLATE: wire.Headers = [("Sec-WebSocket-Extensions", "permessage-deflate")]
#: Whoever says ``?user=alice`` is alice.
WHO = {
    "who.py": '''
        from realtime import Identity, hookimpl

        @hookimpl
        def authenticate(request):
            """Whoever the URL says, without a doubt."""
            return Identity(name=request.query["user"]) if "user" in request.query else None
    '''
}


def limited(limits: str, channels: str, more: str = "") -> str:
    """A config with limits of the server."""
    return f'server: {{listen: ["127.0.0.1:0"], limits: {{{limits}}}}}\n{more}\nchannels:\n{channels}\n'


def refused(serving: Serving) -> Counter[str]:
    """How many were turned away, by the limit."""
    return serving.server.connections.refused


async def closed(one: wire.Wire) -> wire.Frame:
    """The close frame, behind whatever comes before it."""
    while (frame := await one.frame()).opcode != wire.CLOSE:
        pass
    return frame


# Who does not say who it is


@fault(52)
@pytest.mark.parametrize("headers", [(), V1], ids=["plain", "v1"])
async def test_no_greeting(calm: Calm, headers: wire.Headers) -> None:
    """Who says no name in a chat is closed with 1008 and told what it should have done."""
    config = "lobby: {plugin: chat, path: /chat, name_timeout: 100ms}"
    async with calm(config) as serving, wire.websocket(serving.port, "/chat", headers=headers) as one:
        end = await closed(one)
        assert (end.code, "name_timeout" in end.reason) == (1008, True)


@fault(52)
def test_greeting_is_due_in_ten_seconds() -> None:
    """By default a newcomer has ten seconds for its name."""
    settings = Plugins().channel_type("chat").Settings
    assert settings.model_fields["name_timeout"].default <= 10


# Who floods


@fault(60)
async def test_pings_are_answered_by_few_pongs(calm: Calm) -> None:
    """A hundred thousand pings at once take few pongs, and what comes behind them is heard."""
    async with (
        calm("echo: {plugin: echo, path: /ws}") as serving,
        wire.websocket(serving.port, "/ws") as one,
    ):
        sending = asyncio.create_task(one.send(wire.frame(wire.PING, b"x") * 100_000 + wire.text("y")))
        pongs = 0
        while (frame := await one.frame()).opcode == wire.PONG:
            pongs += 1
        await sending
        assert frame.payload == b"Echo: y"
        assert 0 < pongs < 10_000


@fault(60)
async def test_pings_of_who_does_not_read(calm: Calm) -> None:
    """Who pings and reads no pongs is soon not listened to, and no more than a few pongs are owed."""
    async with (
        calm("echo: {plugin: echo, path: /ws}") as serving,
        wire.websocket(serving.port, "/ws", receive_buffer=4096) as one,
    ):
        assert await wire.flood(one, wire.frame(wire.PING, b"x" * 125)) < 40_000_000
        (pinging,) = (one for one in serving.server.connections._all if one.channel.name == "echo")
        assert isinstance(pinging, connection.Connection)
        assert pinging.transport.get_write_buffer_size() < 2 * MAX_PONGS * 130 * 16


def squeezed(text: str) -> bytes:
    """A frame of compressed text (RFC 7692)."""
    deflater = zlib.compressobj(wbits=-15)
    data = deflater.compress(text.encode()) + deflater.flush(zlib.Z_SYNC_FLUSH)
    return wire.frame(wire.TEXT, data[:-4], reserved=0x40)


ECHOES = "quick: {plugin: echo, path: /ws, compress: true}"


@fault(68)
@pytest.mark.parametrize("headers", [(), V1, DEFLATE], ids=["plain", "v1", "deflate"])
async def test_flood_of_messages(
    calm: Calm,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    headers: wire.Headers,
) -> None:
    """Who says fifty thousand things at once is closed with 4529, which names the limit and is logged."""
    monkeypatch.setattr(connection, "CLOSE_GRACE", 0.1)
    caplog.set_level("INFO")
    async with calm(ECHOES) as serving, wire.websocket(serving.port, "/ws", headers=headers) as one:
        flood = (squeezed if headers is DEFLATE else wire.text)('{"data": "%s"}' % ("x" * 90)) * 50_000
        sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(one.socket, flood))
        end = await closed(one)
        assert (end.code, "limits.inbound_rate" in end.reason) == (4529, True)
        sending.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await sending
        await wire.eventually(lambda: serving.server.connections.ended[4529] == 1)
        assert "4529 more than 100 messages a second (limits.inbound_rate)" in caplog.text


@fault(68)
async def test_flood_disturbs_nobody(calm: Calm) -> None:
    """While ten clients flood, another is answered within a second, each time."""
    config = f"quick: {{plugin: echo, path: /ws, {FLOODED}}}\ncalm: {{plugin: echo, path: /calm}}"
    async with calm(config) as serving, AsyncExitStack() as stack:
        loop = asyncio.get_running_loop()
        floods = []
        for _ in range(10):
            one = await stack.enter_async_context(wire.websocket(serving.port, "/ws"))
            flooding = loop.sock_sendall(one.socket, wire.text("x" * 90) * 50_000)
            floods.append(asyncio.create_task(flooding))
        async with wire.websocket(serving.port, "/calm") as other:
            for number in range(50):
                async with within(1.0):
                    await other.send(wire.text(str(number)))
                    assert await other.text() == f"Echo: {number}"
        for task in floods:
            task.cancel()
        await asyncio.gather(*floods, return_exceptions=True)


@fault(68)
async def test_burst_is_heard(calm: Calm) -> None:
    """As much as the burst allows may be said at once, and is answered."""
    async with (
        calm("quick: {plugin: echo, path: /ws}") as serving,
        wire.websocket(serving.port, "/ws", wire.text("x") * 200) as one,
    ):
        assert [await one.text() for _ in range(200)] == ["Echo: x"] * 200


@fault(68)
async def test_channels_have_rates_of_their_own(calm: Calm) -> None:
    """A channel's own limits go before the server's."""
    limits = "limits: {inbound_rate: 1, inbound_burst: 3}"
    async with (
        calm(f"quick: {{plugin: echo, path: /ws, {limits}}}") as serving,
        wire.websocket(serving.port, "/ws", wire.text("x") * 3) as one,
    ):
        assert [await one.text() for _ in range(3)] == ["Echo: x"] * 3
        await one.send(wire.text("x") * 100)  # more than it may again after a pause of any length
        assert (await closed(one)).reason == "more than 1 messages a second (limits.inbound_rate)"


@fault(69)
async def test_flood_of_posts(calm: Calm) -> None:
    """Who posts more than it may is told with 429 when to come back, and by which limit; others are not."""
    config = limited(
        "inbound_rate: 1, inbound_burst: 3", "  echo: {plugin: echo, path: /echo}", "plugins: [who]"
    )
    async with calm(config, WHO) as serving:
        now = asyncio.get_running_loop().time
        began, taken = now(), 0
        async with asyncio.timeout(wire.PATIENCE):
            while (answer := await wire.post(serving.port, "/echo?user=alice", b"x"))[0].status == 202:
                taken += 1
        assert 3 <= taken <= 3 + now() - began
        head, text = answer
        assert head.status == 429
        assert (head.headers["retry-after"], "limits.inbound_rate" in text) == ("1", True)
        for other in ("/echo?user=bob", "/echo"):  # somebody else, and who has only an address
            assert (await wire.post(serving.port, other, b"x"))[0].status == 202
        assert refused(serving)["limits.inbound_rate"] == 1


@fault(69)
async def test_posts_are_taken_again(calm: Calm) -> None:
    """After a while what was refused is taken."""
    config = limited("inbound_rate: 20, inbound_burst: 1", "  echo: {plugin: echo, path: /echo}")
    async with calm(config) as serving:
        statuses: list[int] = []
        async with asyncio.timeout(wire.PATIENCE):
            while 429 not in statuses or statuses[-1] != 202:
                statuses.append((await wire.post(serving.port, "/echo", b"x"))[0].status)
        assert set(statuses) == {202, 429}


# Who does not read, or reads too little


@asynccontextmanager
async def crowd(serving: Serving, paths: list[str], data: bytes = b"") -> AsyncIterator[list[wire.Wire]]:
    """A WebSocket on each of many paths."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(wire.websocket(serving.port, path, data)) for path in paths]


async def rounds(serving: Serving, members: list[wire.Wire], count: int) -> float:
    """Publish in rounds of ten messages, each read by all; how long the slowest hundredth took."""
    took = []
    for _ in range(count):
        began = now()
        for _ in range(10):
            await serving.server.bus.publish("busy", "x" * 1024)
        for member in members:
            for _ in range(10):
                assert len(await member.text()) == 1024
        took.append(now() - began)
    return sorted(took)[-max(count // 100, 2)]


@fault(61)
async def test_never_reader_in_a_busy_room(
    calm: Calm, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who never reads is cut with the reason in the log, and is no burden to the others, then or later."""
    monkeypatch.setattr(connection, "CLOSE_GRACE", 0.1)
    caplog.set_level("INFO")
    async with calm("busy: {plugin: topics, path: /busy, lag_bytes: 256KiB}") as serving:
        bus, busy = serving.server.bus, serving.server.channels["busy"]
        async with crowd(serving, ["/busy"] * 20) as members:
            alone = await rounds(serving, members, 50)
            async with wire.websocket(serving.port, "/busy", receive_buffer=4096):
                beside = await rounds(serving, members, 200)
                assert beside < 2 * alone + 1.0
                assert bus.counters["overruns"] == 1
                # Its descriptor, too, although it has closed nothing.
                await wire.eventually(
                    lambda: len(busy.clients) == 20 == serving.server.connections.open["busy"]
                )
            assert "1013 too slow: " in caplog.text
            assert "(lag, lag_bytes)" in caplog.text
            assert bus.topic("busy").beyond <= BURST * 256 * 1024


@fault(62)
@pytest.mark.parametrize("policy", ["disconnect", "skip", "latest"])
async def test_half_slow_reader(calm: Calm, policy: str) -> None:
    """Who reads half of what comes is cut, or told how much it missed, as the channel says."""
    count = 600
    config = f"busy: {{plugin: topics, path: /busy, lag_bytes: 64KiB, overflow: {policy}}}"
    async with calm(config) as serving:
        bus = serving.server.bus
        async with wire.stream(serving.port, "/busy", receive_buffer=4096) as one:
            heard: list[dict[str, str]] = []
            for number in range(count):
                last = await bus.publish("busy", str(number).ljust(8000))
                if number % 2 and not (heard and heard[-1].get("event") == "realtime:bye"):
                    heard.append(await one.event())
                assert bus.topic("busy").beyond <= BURST * 64 * 1024 + 9000
            while heard[-1].get("event") != "realtime:bye" and heard[-1].get("id") != str(last):
                heard.append(await one.event())
        offsets = [int(event["id"].rpartition("-")[2]) for event in heard if "id" in event]
        assert offsets == sorted(offsets)
        gaps = [
            json.loads(event["data"])["missed"] for event in heard if event.get("event") == "realtime:gap"
        ]
        if policy == "disconnect":
            assert json.loads(heard[-1]["data"])["code"] == 1013
        else:
            assert len(heard) - len(gaps) + sum(gaps) == count
            assert gaps
        assert bus.counters["missed"] > 0


TICKING = {
    "ticking.py": '''
        import asyncio
        from contextlib import asynccontextmanager
        from realtime import Channel, hookimpl

        class Ticking(Channel):
            """A kibibyte to everybody, some hundred times a second."""

            @asynccontextmanager
            async def lifespan(self):
                async with asyncio.TaskGroup() as tasks:
                    ticking = tasks.create_task(self.tick())
                    yield
                    ticking.cancel()

            async def tick(self):
                while True:
                    await self.publish(self.name, "x" * 1024)
                    await asyncio.sleep(0.002)

        @hookimpl
        def register_channels():
            return {"ticking": Ticking}
    '''
}


@fault(63)
@pytest.mark.parametrize("headers", [(), V1], ids=["plain", "v1"])
async def test_pause_of_a_second(calm: Calm, headers: wire.Headers) -> None:
    """A client that reads nothing for a second is kept, and then gets all that it has not read."""
    async with (
        calm("ticking: {plugin: ticking, path: /ticks}", TICKING) as serving,
        wire.websocket(serving.port, "/ticks", headers=headers, receive_buffer=4096) as one,
    ):
        await one.frame()
        topic, now = serving.server.bus.topic("ticking"), asyncio.get_running_loop().time
        until, first = now() + 1.0, topic.head
        await wire.eventually(lambda: now() > until and topic.head > first + 100)
        for _ in range(topic.head - first):
            assert len((await one.frame()).payload) >= 1024
        assert serving.server.bus.counters["overruns"] == serving.server.bus.counters["missed"] == 0


# What is too large


BIG = "big: {plugin: fourfold, path: /big, lag_bytes: 256KiB, limits: {max_message: 128KiB}}"
FOURFOLD = {
    "fourfold.py": '''
        from realtime import Channel, hookimpl

        class Fourfold(Channel):
            """Publishes four times as much as it hears, or says it to who said it alone."""

            async def on_message(self, client, message):
                if "alone" in client.query:
                    return await client.send(message.data * 4)
                return await self.publish(client.topic, message.data * 4)

        @hookimpl
        def register_channels():
            return {"fourfold": Fourfold}
    '''
}


@fault(65)
async def test_what_may_be_said_can_be_kept(calm: Calm) -> None:
    """A client's message within ``max_message`` is published, also where ``lag_bytes`` are fewer."""
    config = "big: {plugin: topics, path: /big, lag_bytes: 256KiB, limits: {max_message: 1MiB}}"
    async with calm(config) as serving, wire.stream(serving.port, "/big") as reader:
        head, _ = await wire.post(serving.port, "/big", b"x" * 1_000_000)
        assert head.status == 202
        assert len((await reader.event())["data"]) == 1_000_000


@fault(65)
@pytest.mark.parametrize("path", ["/big", "/big?alone"])
@pytest.mark.parametrize("headers", [(), V1], ids=["plain", "v1"])
async def test_message_that_nobody_could_lag_behind(calm: Calm, headers: wire.Headers, path: str) -> None:
    """It is refused to the one who says it, by the limit's name; who reads the topic stays there."""
    async with (
        calm(BIG, FOURFOLD) as serving,
        wire.stream(serving.port, "/big") as reader,
        wire.websocket(serving.port, path, headers=headers) as one,
    ):
        await one.send(wire.text('{"data": "%s", "ref": 1}' % ("x" * 75_000)))
        if headers:
            await one.text()  # the welcome
            error = json.loads(await one.text())
            assert (error["ref"], error["data"]["status"]) == (1, 413)
            said = error["data"]["message"]
        else:
            end = await closed(one)
            assert end.code == 1009
            said = end.reason
        assert "lag_bytes" in said
        await serving.server.bus.publish("big", "small")
        assert (await reader.event())["data"] == "small"


@fault(65)
async def test_post_that_nobody_could_lag_behind(calm: Calm) -> None:
    """A POST of it is 413, and is counted."""
    async with calm(BIG, FOURFOLD) as serving:
        head, text = await wire.post(serving.port, "/big", b"x" * 75_000)
        assert (head.status, "lag_bytes" in text) == (413, True)
        assert serving.server.bus.counters["refused"] == 1


@fault(65)
async def test_plugin_that_publishes_it(calm: Calm) -> None:
    """The code of a plugin gets an error of the bus; what it says to a client is a refusal."""
    async with calm(BIG, FOURFOLD) as serving:
        with pytest.raises(TooLarge, match="300256 bytes is larger than the 262144 that lag_bytes"):
            await serving.server.bus.publish("big", "x" * 300_000)
    assert issubclass(TooLarge, BusError)
    assert issubclass(TooLarge, Rejected)


# Many


@asynccontextmanager
async def held() -> AsyncIterator[Callable[[], float]]:
    """How long the loop was held by one turn at most, in seconds of the processor."""
    longest, last = 0.0, time.process_time()

    async def look() -> None:
        nonlocal longest, last
        while True:
            now = time.process_time()
            longest, last = max(longest, now - last), now
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    try:
        yield lambda: longest
    finally:
        looking.cancel()


@fault(66)
@pytest.mark.parametrize("path", ["/rooms/one", "/rooms/{number}"], ids=["one room", "many rooms"])
async def test_loop_is_not_held(calm: Calm, path: str) -> None:
    """However many are in a room, or in rooms that all have news, others have their turn meanwhile."""
    config = limited("connect_burst: 100000", '  rooms: {plugin: topics, path: "/rooms/{room}"}')
    async with calm(config) as serving:
        bus = serving.server.bus
        async with crowd(serving, [path.format(number=number) for number in range(CROWD)]) as members:
            gc.collect()
            names = [topic.name for topic in bus.topics if topic.name.startswith("rooms/")]
            writes = bus.traffic["rooms"].writes
            async with held() as longest:
                for _ in range(5):
                    for name in names:
                        await bus.publish(name, "x" * 100)
                    await wire.eventually(lambda: not any(bus.topic(name).flushing for name in names))
                assert longest() < 0.05
            assert bus.traffic["rooms"].writes - writes >= len(members)
            for member in members[:: max(CROWD // 50, 1)]:
                assert await member.text() == "x" * 100


class Sink:
    """A client as far as the bus knows one, whose writes take as long as a socket's."""

    paused = False
    writes = 0

    def write(self, data: bytes) -> None:
        until = time.perf_counter() + 5e-6
        while time.perf_counter() < until:
            pass
        Sink.writes += 1

    def overrun(self, reason: str) -> None:
        raise AssertionError(reason)


@fault(66)
async def test_loop_is_not_held_by_ten_thousand(calm: Calm) -> None:
    """A message to ten thousand in one room leaves in slices, and each gets it."""
    async with calm("room: {plugin: topics, path: /room}") as serving:
        topic = serving.server.bus.topic("room")
        frames = JsonFrames()
        places = [topic.subscribe(Sink(), frames, None) for _ in range(10_000)]
        for place in places:
            place.start()
        await wire.eventually(lambda: len(topic.live) == 10_000)
        gc.collect()
        async with held() as longest:
            before = Sink.writes
            await serving.server.bus.publish("room", "x" * 100)
            await wire.eventually(lambda: Sink.writes - before == 10_000)
            assert longest() < 0.05
        for place in places:
            place.detach()


@fault(67)
@pytest.mark.alone
@pytest.mark.parametrize("headers", [(), V1], ids=["plain", "v1"])
async def test_storm_of_reconnects(calm: Calm, headers: wire.Headers) -> None:
    """Of those who come at once some are told to wait, each another while, and soon all are in."""
    rate, burst = 40, 50  # slow enough that they come faster on a busy machine, too
    count = burst + 40
    config = limited(f"connect_rate: {rate}, connect_burst: {burst}", "  echo: {plugin: echo, path: /ws}")
    async with calm(config) as serving, AsyncExitStack() as stack:
        now = asyncio.get_running_loop().time
        began, advice = now(), Counter[int]()

        async def come() -> float:
            while True:
                async with AsyncExitStack() as trying:  # who is refused keeps no descriptor
                    one = await trying.enter_async_context(
                        wire.dial(serving.port, wire.request("/ws", [*wire.UPGRADE, *headers]))
                    )
                    head = await one.head()
                    if head.status == 101:
                        stack.push_async_exit(trying.pop_all())
                        return now() - began
                    assert head.status == 503
                    said = await one.exactly(int(head.headers["content-length"]))
                assert b"server.limits.connect_rate" in said
                advice[int(head.headers["retry-after"])] += 1

        came = sorted(await asyncio.gather(*(come() for _ in range(count))))
        assert all(number <= burst + rate * at + 1 for number, at in enumerate(came))
        assert came[-1] < 30
        assert len(advice) > 3
        assert set(advice) <= set(range(2, 9))
        assert refused(serving)["server.limits.connect_rate"] == advice.total()


@fault(70)
async def test_idle_clients_have_no_timers(calm: Calm) -> None:
    """A crowd of idle clients has a few timers in all (what one costs: tests/acceptance/test_memory.py)."""

    def timers() -> int:
        gc.collect()
        return sum(type(one).__name__ == "TimerHandle" for one in gc.get_objects())

    config = "echo: {plugin: echo, path: /ws}\nclock: {plugin: clock, path: /events, interval: 1h}"
    async with calm(config) as serving:
        before = timers()
        async with crowd(serving, ["/ws"] * 100), AsyncExitStack() as stack:
            for _ in range(100):
                await stack.enter_async_context(wire.stream(serving.port, "/events"))
            await wire.eventually(lambda: len(serving.server.connections) == 201)
            await wire.eventually(lambda: timers() - before < 20)


async def leave(one: wire.Wire, serving: Serving) -> None:
    await one.send(wire.close(1000))


async def reset(one: wire.Wire, serving: Serving) -> None:
    one.reset()


async def finish(one: wire.Wire, serving: Serving) -> None:
    one.finish()


async def break_off(one: wire.Wire, serving: Serving) -> None:
    await one.send(b"\xff\xff")


async def be_removed(one: wire.Wire, serving: Serving) -> None:
    for client in list(serving.server.channels["echo"].clients):
        await client.close(4403)


CAPS = [
    pytest.param("max_clients: 2", "server.limits.max_clients", 503, id="server"),
    pytest.param("max_clients_per_user: 1", "server.limits.max_clients_per_user", 429, id="user"),
    pytest.param("max_clients_per_address: 2", "server.limits.max_clients_per_address", 429, id="address"),
]


@fault(71)
@pytest.mark.parametrize(("limits", "key", "status"), CAPS)
@pytest.mark.parametrize("way_out", [leave, reset, finish, break_off, be_removed])
async def test_caps(
    calm: Calm,
    monkeypatch: pytest.MonkeyPatch,
    limits: str,
    key: str,
    status: int,
    way_out: Callable[[wire.Wire, Serving], Any],
) -> None:
    """One more than allowed is refused before the 101, until one leaves, in whatever way it does."""
    monkeypatch.setattr(connection, "CLOSE_GRACE", 0.1)
    # The bystander is one, too, but it is no user.
    config = limited(limits, "  echo: {plugin: echo, path: /ws}", "plugins: [who]")
    opening = wire.request("/ws?user=alice", wire.UPGRADE)
    async with calm(config, WHO) as serving:
        async with wire.websocket(serving.port, "/ws?user=alice") as one:
            async with wire.dial(serving.port, opening) as other:
                head, text = await other.response()
                assert (head.status, key in text, "retry-after" in head.headers) == (status, True, True)
            assert refused(serving)[key] == 1
            await way_out(one, serving)
            await wire.eventually(lambda: serving.server.connections.open.total() == 1)
        async with wire.websocket(serving.port, "/ws?user=alice"):
            pass
        await wire.eventually(lambda: serving.server.connections.open.total() == 1)
        assert serving.server.connections.users == {}


@fault(71)
async def test_cap_of_a_user_is_nobody_elses(calm: Calm) -> None:
    """Another user, and who is none, may connect; by default one user may a hundred times."""
    config = limited("max_clients_per_user: 1", "  echo: {plugin: echo, path: /ws}", "plugins: [who]")
    async with (
        calm(config, WHO) as serving,
        wire.websocket(serving.port, "/ws?user=alice"),
        wire.websocket(serving.port, "/ws?user=bob"),
        wire.websocket(serving.port, "/ws"),
        wire.websocket(serving.port, "/ws"),
    ):
        assert serving.server.connections.users == {"alice": 1, "bob": 1}


# Many rooms


SUBSCRIBING: list[dict[str, Any]] = [
    {"event": "subscribe", "data": "rooms/other"},
    {"event": "join", "data": {"topic": "rooms/other"}},
    {"data": "x", "topic": "rooms/other"},
    {"data": "x", "channel": "rooms", "subscribe": ["rooms/other"]},
    {"event": "realtime:subscribe", "data": "rooms/other"},
    {"event": "phx_join", "data": {}, "topic": "rooms/other"},
]


@fault(72)
async def test_one_connection_has_one_topic(calm: Calm) -> None:
    """No frame of ``realtime.v1.json`` makes another subscription, however it asks."""
    async with (
        calm('rooms: {plugin: topics, path: "/rooms/{room}", allow: {publish: anyone}}') as serving,
        wire.websocket(serving.port, "/rooms/one", headers=V1) as one,
    ):
        assert json.loads(await one.text())["event"] == "realtime:welcome"
        for number, fields in enumerate(SUBSCRIBING * 20):
            await one.send(wire.text(json.dumps({**fields, "ref": number})))
            while json.loads(await one.text()).get("ref") != number:
                pass
        bus = serving.server.bus
        assert [topic.name for topic in bus.topics if topic.name.startswith("rooms")] == ["rooms/one"]
        assert bus.topic("rooms/one").subscribers == 1


ODD_ROOMS = [
    ("%00", 400),
    ("a%0Ab", 400),
    ("a%0Db", 400),
    ("a%1Bb", 400),
    ("%7F", 400),
    ("%E2%80%AE", 400),  # it turns the direction of writing
    ("x" * 256, 400),
    ("*", 400),
    ("a*", 400),
    (".", 400),
    ("..", 400),
    ("%2E%2E", 400),
    ("a%2Fb", 400),
    ("a%5Cb", 400),
    ("%FF", 400),
    ("%ED%A0%80", 400),  # half of a surrogate pair
    ("x" * 255, 101),
    ("%F0%9F%8E%B2", 101),
]


@fault(73)
@pytest.mark.parametrize(("name", "status"), ODD_ROOMS)
async def test_odd_rooms(calm: Calm, name: str, status: int) -> None:
    """A name that cannot be seen, or that means something elsewhere, is no room's."""
    async with (
        calm('rooms: {plugin: topics, path: "/rooms/{room}"}') as serving,
        wire.dial(serving.port, wire.request(f"/rooms/{name}", wire.UPGRADE)) as one,
    ):
        assert (await one.head()).status == status


@fault(73)
async def test_name_of_ten_kilobytes(calm: Calm) -> None:
    """A name as long as that is refused."""
    async with (
        calm('rooms: {plugin: topics, path: "/rooms/{room}"}') as serving,
        wire.dial(serving.port, wire.request(f"/rooms/{'x' * 10_240}", wire.UPGRADE)) as one,
    ):
        assert (await one.head()).status in (400, 414)


@fault(73)
async def test_one_name_however_it_is_written(calm: Calm) -> None:
    """Names that are the same to a reader are one room."""
    async with (
        calm('rooms: {plugin: topics, path: "/rooms/{room}"}') as serving,
        wire.websocket(serving.port, "/rooms/caf%C3%A9"),
        wire.websocket(serving.port, "/rooms/cafe%CC%81"),
    ):
        assert serving.server.bus.topic("rooms/café").subscribers == 2


@fault(73)
async def test_rooms_are_limited_and_freed(calm: Calm) -> None:
    """So many rooms as the limit says are in use at once; what is left is free for the next, at once."""
    config = limited(
        "topics: 21", '  rooms: {plugin: topics, path: "/rooms/{room}", allow: {publish: anyone}}'
    )
    async with calm(config) as serving:
        bus = serving.server.bus
        async with crowd(serving, [f"/rooms/{number}" for number in range(20)]):
            for number in range(20, 40):
                head, text = await wire.ask(serving.port, f"/rooms/{number}", wire.UPGRADE)
                assert (head.status, "server.limits.topics" in text) == (503, True)
            assert refused(serving)["server.limits.topics"] == 20
        await wire.eventually(lambda: len(bus.topics) == 1)  # the bystander's
        for number in range(100):
            head, _ = await wire.post(serving.port, f"/rooms/{number}", b"x")
            assert head.status == 202
            assert len(bus.topics) <= 21


@fault(73)
async def test_hundred_thousand_rooms(calm: Calm) -> None:
    """A hundred thousand names that are used once leave no more topics than the limit has."""
    config = limited("topics: 1000", '  rooms: {plugin: topics, path: "/rooms/{room}"}')
    async with calm(config) as serving:
        bus = serving.server.bus
        for number in range(100_000):
            bus.topic(f"rooms/{number}")
        assert len(bus.topics) == 1000
