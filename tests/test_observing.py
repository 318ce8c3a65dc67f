"""Observing: plugin code that reads many topics, also those that come into being later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
from busdrive import Bed, steps

from realtime.bus import Bus
from realtime.engine import Engine
from realtime.errors import UnknownTopic
from realtime.message import Message, Position
from realtime.observing import Observation
from realtime.topic import Topic, TopicOptions


@pytest.fixture
async def bus() -> Bus:
    """A bus on the test's own event loop, with a channel that has one topic, and one that has many."""
    bus = Bus(wall_time=lambda: 1.5)
    bus.declare("lobby")
    bus.declare("rooms")
    bus.declare("small", TopicOptions(history=2, lag_bytes=0))
    return bus


async def take(messages: Observation, count: int) -> list[tuple[str, object]]:
    """The next messages, as topic and data; they must be there or come at once."""
    async with asyncio.timeout(5):
        return [(topic, message.data) for topic, message in [await anext(messages) for _ in range(count)]]


def finish(work: Coroutine[Any, Any, object]) -> None:
    """Run what waits for nothing."""
    with pytest.raises(StopIteration):
        work.send(None)


async def rest(messages: Observation) -> list[tuple[str, object]]:
    """All that comes until it ends."""
    async with asyncio.timeout(5):
        return [(topic, message.data) async for topic, message in messages]


async def test_without_patterns_it_is_every_topic(bus: Bus) -> None:
    """Every topic is observed: one that is there from now on, one that comes from its first message."""
    await bus.publish("lobby", "before")
    async with bus.observe() as messages:
        await bus.publish("lobby", 1)
        await bus.publish("rooms/new", 2)
        assert await take(messages, 2) == [("lobby", 1), ("rooms/new", 2)]


@pytest.mark.parametrize(
    ("patterns", "seen"),
    [
        (["lobby"], ["lobby"]),
        (["rooms/*"], ["rooms/a", "rooms/a/b"]),
        (["rooms/a"], ["rooms/a"]),
        (["rooms*"], ["rooms", "rooms/a", "rooms/a/b"]),
        (["*"], ["lobby", "rooms", "rooms/a", "rooms/a/b"]),
        (["lobby", "rooms/*", "rooms/a"], ["lobby", "rooms/a", "rooms/a/b"]),
    ],
)
@pytest.mark.parametrize("there", [True, False])
async def test_patterns(bus: Bus, patterns: list[str], seen: list[str], there: bool) -> None:
    """A pattern is a topic, or with ``*`` the beginning of some, whenever these come; none comes twice."""
    topics = ["lobby", "rooms", "rooms/a", "rooms/a/b"]
    for topic in topics if there else []:
        bus.topic(topic)
    async with bus.observe(*patterns) as messages:
        for topic in topics:
            await bus.publish(topic, "x")
    assert [topic for topic, _ in await rest(messages)] == seen


async def test_observer_waits(bus: Bus) -> None:
    """An observer that has read everything is woken by the next message."""
    async with bus.observe("lobby") as messages:
        reading = asyncio.ensure_future(take(messages, 1))
        await asyncio.sleep(0)
        await bus.publish("lobby", "x")
        assert await reading == [("lobby", "x")]


async def test_order_of_a_topic_is_kept(bus: Bus) -> None:
    """The messages of each topic come in their order, whatever comes in between."""
    async with bus.observe("rooms/*") as messages:
        for number in range(10):
            await bus.publish(f"rooms/{number % 3}", number)
        read = await take(messages, 10)
    for room in range(3):
        assert [data for topic, data in read if topic == f"rooms/{room}"] == list(range(room, 10, 3))


async def test_a_busy_topic_does_not_hold_up_the_others(bus: Bus) -> None:
    """Where several topics have something, each gives one message in turn."""
    async with bus.observe() as messages:
        for number in range(5):
            await bus.publish("lobby", number)
        await bus.publish("rooms/quiet", "hello")
        assert ("rooms/quiet", "hello") in await take(messages, 2)


async def test_gap_is_told(bus: Bus) -> None:
    """An observer that was too slow for a topic gets ``realtime:gap`` of this topic, and goes on."""
    async with bus.observe() as messages:
        for number in range(1, 6):
            await bus.publish("small", number)
            await asyncio.sleep(0)  # let the flush run
        topic, message = await anext(messages)
        assert (topic, message.event, message.data) == ("small", "realtime:gap", {"missed": 3})
        assert message.id == Position(bus.topic("small").epoch, 3)
        assert await take(messages, 2) == [("small", 4), ("small", 5)]


async def test_topic_that_went_unread_is_a_gap() -> None:
    """What a topic had when it went is told as missed, and made again it is read from its first message."""
    bus = Bus(topics=1)
    bus.declare("rooms", TopicOptions(history=9))
    async with bus.observe() as messages:
        for topic, data in (("rooms/a", 1), ("rooms/a", 2), ("rooms/b", 3), ("rooms/a", 4)):
            await bus.publish(topic, data)
        read = await take(messages, 3)
    assert read == [("rooms/a", {"missed": 2}), ("rooms/b", {"missed": 1}), ("rooms/a", 4)]


async def test_what_came_before_it_was_left_still_comes(bus: Bus) -> None:
    """When it is left, the iteration goes on to what was published until then, and ends there."""
    async with bus.observe() as messages:
        await bus.publish("lobby", 1)
        await bus.publish("lobby", 2)
    await bus.publish("lobby", 3)
    await bus.publish("rooms/new", 4)
    assert await rest(messages) == [("lobby", 1), ("lobby", 2)]


async def test_gap_after_it_was_left_counts_what_was_before(bus: Bus) -> None:
    """What is given up after it was left is missed as far as it was published before."""
    async with bus.observe() as messages:
        await bus.publish("small", 1)
        await bus.publish("small", 2)
    for number in range(3, 9):
        await bus.publish("small", number)
        await asyncio.sleep(0)
    assert await rest(messages) == [("small", {"missed": 2})]


async def test_observer_ends_when_it_is_left(bus: Bus) -> None:
    """Leaving the block ends the iteration of whoever still waits in it."""
    messages = bus.observe()
    async with messages:
        reading = asyncio.ensure_future(anext(messages, None))
        await asyncio.sleep(0)
    assert await reading is None


async def test_observer_keeps_no_topic() -> None:
    """A topic that is only observed is idle, goes as it would without, and gives its place to another."""
    bus = Bus(topics=1)
    bus.declare("rooms")
    async with bus.observe():
        await bus.publish("rooms/a", 1)
        assert (bus.topic("rooms/a").subscribers, bus.topic("rooms/a").idle) == (0, True)
        await bus.publish("rooms/b", 2)
        assert [topic.name for topic in bus.topics] == ["rooms/b"]


async def test_readers_are_counted_beside_observers(bus: Bus) -> None:
    """Who observes a topic takes nothing from the number of those who read it."""
    async with bus.observe(), bus.subscribe("lobby"), bus.observe("lobby"):
        assert bus.topic("lobby").subscribers == 1


async def test_nothing_is_left_behind(bus: Bus) -> None:
    """Publishing has nobody to tell before somebody observes, nor afterwards, nor when it is others."""
    topic = bus.topic("lobby")
    async with bus.observe("rooms/*"):
        before = dict(topic.readers)
    async with bus.observe(), bus.observe():
        during = len(topic.readers)
    after = (len(topic.readers), topic.observers, len(bus.observations))
    assert (before, during, after) == ({}, 2, (0, 0, 0))


async def test_two_observers_read_for_themselves(bus: Bus) -> None:
    """Each observer is given every message."""
    async with bus.observe() as one, bus.observe("lobby") as two:
        await bus.publish("lobby", 1)
        assert await take(one, 1) == await take(two, 1) == [("lobby", 1)]


@pytest.mark.parametrize("pattern", ["loby", "room/*"])
async def test_unknown_topic(bus: Bus, pattern: str) -> None:
    """A pattern of which no topic can ever be is told when it is entered, with what was meant."""
    with pytest.raises(UnknownTopic, match=r"did you mean '(lobby|rooms)'"):
        async with bus.observe(pattern):
            pass


@pytest.mark.parametrize("pattern", ["", "*/a", "rooms/*/x", "rooms/**"])
async def test_what_is_no_pattern(bus: Bus, pattern: str) -> None:
    """A ``*`` elsewhere than at the end is told when it is entered: it would match nothing."""
    with pytest.raises(ValueError, match=r"is no topic such as rooms/blue, nor a beginning"):
        async with bus.observe(pattern):
            pass


@pytest.fixture(params=["subscribe", "observe"])
async def reading(
    request: pytest.FixtureRequest, bus: Bus
) -> AsyncIterator[Callable[[], Awaitable[Message]]]:
    """What gives the next message of a topic, after one that was said before it began."""
    await bus.publish("small", "before")
    if request.param == "subscribe":
        async with bus.subscribe("small") as one:
            yield one.__anext__
    else:
        async with bus.observe("small") as many:

            async def read() -> Message:
                return (await many.__anext__())[1]

            yield read


async def test_what_the_engine_has_lost_is_a_gap(
    bus: Bus, reading: Callable[[], Awaitable[Message]]
) -> None:
    """Whoever reads in a plugin is told how many messages the engine has lost, and goes on after them."""
    topic = bus.topic("small")
    topic.skip(4)
    await bus.publish("small", "after")
    async with asyncio.timeout(5):
        gap, after = await reading(), await reading()
    assert (gap.event, gap.data, gap.id) == ("realtime:gap", {"missed": 3}, Position(topic.epoch, 4))
    assert (after.data, after.id) == ("after", Position(topic.epoch, 5))


async def test_another_log_of_the_engine_is_a_reset(
    bus: Bus, reading: Callable[[], Awaitable[Message]]
) -> None:
    """Whoever reads in a plugin is told that there is another log, and then has what that still has."""
    kept = [(Message.of(text, time=1.0), 0.0) for text in ("kept", "kept, too")]
    bus.topic("small").restore(Position("0badcafe", 7), kept)
    async with asyncio.timeout(5):
        said = [await reading() for _ in range(3)]
    assert [message.event for message in said] == ["realtime:reset", "message", "message"]
    assert [message.data for message in said] == [{}, "kept", "kept, too"]
    assert [message.id for message in said] == [Position("0badcafe", offset) for offset in (5, 6, 7)]


class Keeping(Engine):
    """Has kept a message of each topic, but of one that it cannot read."""

    def begin(self, topic: Topic) -> None:
        if topic.name == "rooms/broken":
            raise LookupError("no such file")
        topic.restore(Position("0badcafe", 7), [(Message.of("kept", time=1.0), 0.0)])


async def test_what_an_engine_brings_is_not_new(bus: Bus) -> None:
    """An observer hears what comes from now on, and not what an engine has kept of a topic that is made."""
    bus.engine = Keeping(None, bus)
    async with bus.observe() as messages:
        await bus.publish("rooms/a", "new")
        assert await take(messages, 1) == [("rooms/a", "new")]


async def test_topic_that_cannot_be_begun_is_not_there(bus: Bus) -> None:
    """An engine that fails when a topic is made is asked again, and no empty one stands in its place."""
    bus.engine = Keeping(None, bus)
    for _ in range(2):
        with pytest.raises(LookupError):
            bus.topic("rooms/broken")
    assert bus.topics == []


def test_a_message_costs_the_same_however_many_topics() -> None:
    """To publish and to read a message looks neither at other topics nor at the patterns."""

    def cost(many: int) -> int:
        bed = Bed(topics=1000)
        patterns = [*(f"t/none{number}" for number in range(many)), "t/*"]
        messages = bed.bus.observe(*patterns)
        finish(messages.__aenter__())
        for number in range(many):
            bed.bus.topic(f"t/{number}").append(Message.of("x", time=0.0))
        topic = bed.bus.topic("t/0")

        def work() -> None:
            for _ in range(50):
                topic.append(Message.of("x", time=0.0))
                finish(messages.__anext__())

        return steps(work)

    assert cost(1000) == cost(100)
