"""What is counted of each channel, where it passes."""

from __future__ import annotations

import asyncio

import pytest
from busdrive import PLAIN, Bed, lagging
from conftest import Serve, Serving
from wire import eventually, post, text, websocket

from realtime import topic
from realtime.topic import TopicOptions
from realtime.traffic import BOUNDS, BUSY, SAMPLE, Histogram, Traffic

KINDS = {
    "kinds.py": '''
        import asyncio
        import time

        from realtime import Channel, hookimpl

        def hold():
            until = time.perf_counter() + 0.02
            while time.perf_counter() < until:
                pass

        class Holding(Channel):
            """Holds the loop for 20 ms where it is told to."""

            transports = ("websocket", "post")

            async def on_connect(self, client):
                if client.query.get("at") == "connect":
                    hold()

            async def on_join(self, client):
                if client.query.get("at") == "join":
                    hold()

            async def on_message(self, client, message):
                if client.query.get("at") == "message":
                    hold()
                if client.query.get("at") == "later":
                    await asyncio.sleep(0)
                    hold()
                if client.query.get("at") == "waits":
                    await asyncio.sleep(0.3)
                await client.send("done")

            async def on_leave(self, client):
                if client.query.get("at") == "leave":
                    hold()

        @hookimpl
        def register_channels():
            return {"holding": Holding}
    '''
}
CONFIG = """
    plugins: [kinds]
    channels:
      echo: {plugin: echo, path: /ws}
      topics: {plugin: topics, path: "/topics/{topic...}", allow: {publish: anyone}}
      holding: {plugin: holding, path: /holding}
"""


def traffic(serving: Serving, name: str) -> Traffic:
    """What is counted of a channel."""
    return serving.server.bus.traffic[name]


async def test_received_by_websocket(serve: Serve) -> None:
    """Each message of a WebSocket is counted, also those that wait for the one before."""
    async with serve(CONFIG, KINDS) as serving, websocket(serving.port, "/ws") as client:
        await client.send(b"".join(text(str(number)) for number in range(40)))
        for _ in range(40):
            await client.text()
        assert traffic(serving, "echo").received == 40


async def test_received_by_post(serve: Serve) -> None:
    """So is each POST."""
    async with serve(CONFIG, KINDS) as serving:
        await post(serving.port, "/topics/a", b"x")
        assert traffic(serving, "topics").received == 1


async def test_sent_to_one(serve: Serve) -> None:
    """What goes to one client alone is counted beside what is published."""
    async with serve(CONFIG, KINDS) as serving, websocket(serving.port, "/ws") as client:
        await client.send(text("x"))
        await client.text()
        echo = traffic(serving, "echo")
        assert (echo.sent, echo.published, echo.delivered) == (1, 0, 0)


async def test_topics_of_a_channel_are_counted_together(serve: Serve) -> None:
    """A channel has one counter, however many topics come and go."""
    async with serve(CONFIG, KINDS) as serving:
        for number in range(3):
            await post(serving.port, f"/topics/{number}", b"x")
        assert traffic(serving, "topics").published == 3


def test_delivered_to_each() -> None:
    """A message counts once for each client that it is handed to."""
    bed = Bed()
    for _ in range(20):
        bed.join()
    bed.publish("a")
    bed.publish("b")
    bed.idle()
    assert (bed.bus.traffic["t"].published, bed.bus.traffic["t"].delivered) == (2, 40)


@pytest.mark.parametrize("excluded", [False, True])
def test_not_shown_is_not_delivered(excluded: bool) -> None:
    """What a form does not show is handed to nobody who reads it, whatever goes in the same write."""
    bed = Bed()
    me = object()
    bed.join(PLAIN, owner=me)
    bed.publish("a")
    bed.publish("b", event="quiet")
    if excluded:
        bed.publish("c", exclude=me)
    bed.idle()
    assert bed.bus.traffic["t"].delivered == 1


def test_excluded_is_not_delivered() -> None:
    """Who is not to see a message is not counted among those who had it."""
    bed = Bed()
    me = object()
    bed.join(owner=me)
    bed.join()
    bed.publish("a", exclude=me)
    bed.publish("b")
    bed.idle()
    assert bed.bus.traffic["t"].delivered == 3


def test_replayed_is_delivered() -> None:
    """Who comes later and is given the history has been given it."""
    bed = Bed(TopicOptions(history=3))
    for number in range(5):
        bed.publish(str(number))
    bed.idle()
    bed.join(since="earliest")
    bed.idle()
    assert bed.bus.traffic["t"].delivered == 3


def test_lag_counts_each_client() -> None:
    """Of how long a message took there is one for each client that had it."""
    bed = Bed()
    for _ in range(37):
        bed.join()
    bed.publish("a")
    bed.idle()
    assert sum(bed.bus.delays.counts) == 37


def test_lag_of_a_slow_client() -> None:
    """What a client has late is counted as late as that."""
    bed = Bed()
    wire = lagging(bed)
    bed.publish("late")
    bed.idle()
    before = list(bed.bus.delays.counts)
    bed.advance(3.0)
    wire.drain()
    bed.idle()
    more = [now - then for now, then in zip(bed.bus.delays.counts, before, strict=True)]
    assert [BOUNDS[index] for index, count in enumerate(more) if count] == [5.0]


def test_history_is_no_lag() -> None:
    """What a newcomer replays was said before it came: that is nobody's lag."""
    bed = Bed(TopicOptions(history=3))
    bed.publish("a")
    bed.advance(1.0)
    assert bed.join(since="earliest").texts == ["a"]
    assert sum(bed.bus.delays.counts) == 0


@pytest.mark.parametrize("at", ["connect", "join", "message", "later", "leave"])
async def test_time_of_a_plugin(serve: Serve, at: str) -> None:
    """The time for which a plugin's method holds the loop is its channel's, wherever it waits before."""
    async with serve(CONFIG, KINDS) as serving:
        async with websocket(serving.port, f"/holding?at={at}") as client:
            await client.send(text("x"))
            await client.text()
        await eventually(lambda: not serving.server.channels["holding"].clients)
        assert traffic(serving, "holding").handler_seconds >= 0.02


async def test_time_of_many_messages(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is dealt with at once where much is, a part is timed, and stands for all of it."""
    monkeypatch.setattr(Traffic, "pace", lambda _: None)  # the end of a second would have all of it timed
    async with serve(CONFIG, KINDS) as serving, websocket(serving.port, "/holding?at=message") as client:
        traffic(serving, "holding").every = SAMPLE
        for _ in range(SAMPLE):
            await client.send(text("x"))
            await client.text()
        assert traffic(serving, "holding").handler_seconds >= 0.02 * SAMPLE


def test_pace() -> None:
    """Where few messages come each is timed; where many came in the last second, one of some."""
    traffic, seen = Traffic(), []
    for received in (BUSY, BUSY + 1, 0):
        traffic.received += received
        traffic.pace()
        seen.append(traffic.every)
    assert seen == [1, SAMPLE, 1]


async def test_time_of_a_post(serve: Serve) -> None:
    """What a POST has a plugin do counts, too."""
    async with serve(CONFIG, KINDS) as serving:
        await post(serving.port, "/holding?at=message", b"x")
        assert traffic(serving, "holding").handler_seconds >= 0.02


async def test_waiting_is_no_time(serve: Serve) -> None:
    """While a plugin waits, others have the loop: that does not count."""
    async with serve(CONFIG, KINDS) as serving, websocket(serving.port, "/holding?at=waits") as client:
        await client.send(text("x"))
        await client.text()
        assert traffic(serving, "holding").handler_seconds < 0.25


def test_lag_begins_with_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """That a newcomer was left behind says nothing of how long others waited for the next message."""
    bed = Bed(TopicOptions(lag_bytes=1000, overflow="skip"))
    monkeypatch.setattr(topic, "perf_counter", bed.loop.time)
    bed.join()
    late = bed.join(start=False)
    for _ in range(20):
        bed.publish("x" * 500)
        bed.idle()
    bed.advance(100)
    late.subscriber.start()
    bed.publish("now")
    bed.idle()
    assert late.texts[0] == "gap 19"
    assert bed.bus.delays.sum < 1


async def test_metered_hands_on() -> None:
    """What is metered gives and raises what it would without that."""

    async def work(wrong: bool) -> str:
        await asyncio.sleep(0)
        if wrong:
            raise LookupError("wrong")
        return "right"

    traffic = Traffic()
    assert await traffic.metered(work(wrong=False)) == "right"
    with pytest.raises(LookupError, match="wrong"):
        await traffic.metered(work(wrong=True))


async def test_metered_is_cancelled() -> None:
    """A time-out reaches what is metered, where it waits."""
    ended = []

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(True)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await Traffic().metered(work())
    assert ended == [True]


@pytest.mark.parametrize(
    ("seconds", "bound"), [(0.0, BOUNDS[0]), (BOUNDS[3], BOUNDS[3]), (0.0011, 0.002), (10.0, 10.0)]
)
def test_histogram_bounds_are_inclusive(seconds: float, bound: float) -> None:
    """What takes just as long as a bound is within it (Prometheus' ``le``)."""
    histogram = Histogram()
    histogram.add(seconds)
    assert BOUNDS[histogram.counts.index(1)] == bound


def test_histogram_beyond() -> None:
    """What takes longer than all bounds is counted apart from them."""
    histogram = Histogram()
    histogram.add(11.0, 3)
    assert (histogram.counts[-1], histogram.sum) == (3, 33.0)
