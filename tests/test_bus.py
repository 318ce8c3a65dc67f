"""The bus: topics and their limits, publishing, reading in plugin code, and the one flush."""

from __future__ import annotations

import asyncio
import logging
from typing import Literal

import pytest
from busdrive import LINES, PLAIN, Bed, Lines, Loop, lagging

from realtime.bus import SLICE, SWEEP, TURN_BYTES, Bus, Pace
from realtime.engine import SAYING, Engine, Once
from realtime.errors import BusError, TooLarge, TooManyTopics, Unavailable, UnknownTopic
from realtime.log import OVERHEAD, Resume
from realtime.message import Message, Position
from realtime.observing import Subscription
from realtime.subscriber import State
from realtime.topic import MAX_WRITE, Topic, TopicOptions


@pytest.fixture
async def bus() -> Bus:
    """A bus on the test's own event loop."""
    bus = Bus(wall_time=lambda: 1.5)
    bus.declare("lobby", TopicOptions(history=5))
    return bus


async def take(messages: Subscription, count: int) -> list[Message]:
    """The next messages; they must be there or come at once."""
    async with asyncio.timeout(5):
        return [await anext(messages) for _ in range(count)]


# Topics


def test_unknown_topic_is_refused() -> None:
    """A topic that nothing declares cannot be had."""
    with pytest.raises(
        UnknownTopic,
        match=r"^no channel declares the topic 'zebra'; a topic begins with a channel's name: t$",
    ):
        Bed().bus.topic("zebra")


def test_unknown_topic_suggests_a_name() -> None:
    """A topic that is misspelled is answered with the name that was meant."""
    bed = Bed()
    bed.bus.declare("lobby")
    with pytest.raises(UnknownTopic, match="'loby/a', did you mean 'lobby'"):
        bed.bus.topic("loby/a")


def test_unknown_topic_where_nothing_is_declared() -> None:
    """Where there are no channels no name is suggested, and none promised."""
    with pytest.raises(UnknownTopic, match=r"^no channel declares the topic 'zebra'$"):
        Bus(Loop()).topic("zebra")


def test_declared_name_allows_what_is_below_it() -> None:
    """``rooms`` allows ``rooms/a/b``, with the options of ``rooms``."""
    bed = Bed()
    options = TopicOptions(history=7)
    bed.bus.declare("rooms", options)
    assert bed.bus.topic("rooms/a/b").options is options


def test_topic_goes_by_what_is_declared_now() -> None:
    """What is declared anew holds for the topics that exist."""
    bed = Bed(TopicOptions(history=1))
    bed.publish("1", "2")
    bed.bus.declare("t", TopicOptions(history=2))
    assert [message.data for message in bed.topic.history()] == ["1", "2"]


def test_what_was_forgotten_is_unknown() -> None:
    """Nothing is made any more of what is declared no longer."""
    bed = Bed()
    bed.bus.forget("t")
    with pytest.raises(UnknownTopic):
        bed.bus.topic("t/1")


def test_what_was_never_declared_is_forgotten() -> None:
    """To forget what is unknown is nothing: who undoes a change need not know how far it came."""
    bed = Bed()
    bed.bus.forget("zebra")
    assert bed.bus.topic("t/1") is not None


def test_forgetting_takes_no_other_topic() -> None:
    """A channel whose name begins like that of another is another one."""
    bed = Bed()
    bed.bus.declare("topics")
    bed.publish("x", topic="t/1")
    bed.publish("x", topic="topics/1")
    bed.bus.forget("t")
    assert [topic.name for topic in bed.bus.topics] == ["topics/1"]


def test_topic_is_one_object() -> None:
    """The same name is the same topic for as long as it exists."""
    bed = Bed()
    assert bed.bus.topic("t/1") is bed.bus.topic("t/1")


def test_too_many_topics_are_refused() -> None:
    """When every topic is in use no further one is made, and nobody is evicted for it."""
    bed = Bed(topics=2)
    wires = [bed.join(topic=name) for name in ("t/1", "t/2")]
    with pytest.raises(TooManyTopics, match="2 topics are in use"):
        bed.bus.topic("t/3")
    assert all(wire.closed is None for wire in wires)


def test_idle_topic_gives_its_place() -> None:
    """At the limit a topic where nobody is makes room, whatever its history holds."""
    bed = Bed(topics=2)
    bed.publish("x", topic="t/1")
    bed.join(topic="t/2")
    bed.bus.topic("t/3")
    assert sorted(topic.name for topic in bed.bus.topics) == ["t/2", "t/3"]


def test_first_one_made_gives_its_place() -> None:
    """Of several idle topics the one that was made first goes."""
    bed = Bed(topics=2)
    bed.publish("x", topic="t/1")
    bed.publish("x", topic="t/2")
    bed.bus.topic("t/3")
    assert sorted(topic.name for topic in bed.bus.topics) == ["t/2", "t/3"]


def test_unknown_topic_takes_no_place() -> None:
    """At the limit nothing goes for a topic that cannot be."""
    bed = Bed(topics=1)
    bed.publish("x", topic="t/1")
    with pytest.raises(UnknownTopic):
        bed.bus.topic("zebra")
    assert bed.bus.find("t/1") is not None


def test_topic_that_is_declared_itself_gives_no_place() -> None:
    """Nor does the topic of a channel without path variables, though nobody is in it."""
    bed = Bed(topics=1)
    bed.publish("x", topic="t")
    with pytest.raises(TooManyTopics):
        bed.bus.topic("t/1")


def test_topic_that_went_gives_no_place_again() -> None:
    """What has gone already is not looked for when there is no room."""
    bed = Bed(topics=1)
    bed.join(topic="t/1").subscriber.detach()
    bed.join(topic="t/2")
    with pytest.raises(TooManyTopics):
        bed.bus.topic("t/3")


def test_engine_knows_of_no_topic_that_found_no_place() -> None:
    """What cannot be made is not begun either: nobody would close it."""
    begun = []

    class Noting(Engine):
        def begin(self, topic: Topic) -> None:
            begun.append(topic.name)

    bed = Bed(topics=1)
    bed.bus.engine = Noting(None, bed.bus)
    bed.join(topic="t/1")
    with pytest.raises(TooManyTopics):
        bed.bus.topic("t/2")
    assert begun == ["t/1"]


def test_refusal_does_not_look_at_every_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for one topic too many again and again does not have all of them looked at each time."""
    bed = Bed(topics=100)
    wires = [bed.join(topic=f"t/{number}") for number in range(100)]
    looks = 0
    idle = Topic.idle

    def look(topic: Topic) -> bool:
        nonlocal looks
        looks += 1
        return bool(idle.__get__(topic))

    monkeypatch.setattr(Topic, "idle", property(look))
    for _ in range(100):
        with pytest.raises(TooManyTopics):
            bed.bus.topic("t/more")
    assert looks <= 100
    bed.publish("x", topic="t/7")
    wires[7].subscriber.detach()
    bed.bus.topic("t/more")
    assert bed.bus.find("t/7") is None


def test_topic_that_gave_its_place_counts_no_more() -> None:
    """What a topic held is free when it goes."""
    bed = Bed(topics=1)
    bed.publish("x" * 1000, topic="t/1")
    bed.bus.topic("t/2")
    assert bed.bus.size == 0


def test_member_keeps_its_topic() -> None:
    """A topic with members is in use although nobody subscribes to it."""
    bed = Bed(topics=1)
    bed.topic.members["alice"] = None
    with pytest.raises(TooManyTopics):
        bed.bus.topic("t/2")


def test_topic_vanishes_with_the_last_subscriber() -> None:
    """A topic where nobody and nothing is left is gone at once."""
    bed = Bed()
    bed.join().subscriber.detach()
    assert bed.bus.topics == []


def test_topic_vanishes_when_its_history_has_aged_out() -> None:
    """What was published stays for who comes back, and then the topic goes too."""
    bed = Bed(TopicOptions(lag=5.0))
    bed.join().subscriber.detach()
    bed.publish("x")
    bed.advance(4.0)
    before = len(bed.bus.topics)
    bed.advance(3.0)
    assert (before, bed.bus.topics, bed.bus.size) == (1, [], 0)


def test_topic_goes_with_what_it_held() -> None:
    """The sweep that finds it empty takes it, not the one after."""
    bed = Bed(TopicOptions(lag=SWEEP / 2))
    bed.publish("x")
    bed.advance(SWEEP)
    assert bed.bus.topics == []


def test_who_leaves_a_topic_that_went_takes_no_other() -> None:
    """A topic that was made again under the same name is not the one that is left."""
    bed = Bed()
    before = bed.join().subscriber
    bed.bus.close()
    bed.bus.topic("t/1")
    before.detach()
    assert bed.bus.find("t/1") is not None


def test_topic_that_was_forgotten_brings_nothing_more() -> None:
    """Who is still there is neither written to nor given up: whoever forgot it closes them."""
    bed = Bed()
    wire = bed.join()
    bed.publish("x")
    bed.bus.forget("t")
    bed.idle()
    assert (wire.writes, wire.closed) == ([], None)


def test_topic_made_again_has_another_epoch() -> None:
    """A position of the topic that went means nothing in the one that came."""
    bed = Bed()
    wire = bed.join()
    epoch = bed.topic.epoch
    wire.subscriber.detach()
    assert bed.topic.epoch != epoch


def test_topic_that_is_declared_itself_stays() -> None:
    """Who comes back to a channel without path variables, however late, has missed nothing."""
    bed = Bed(TopicOptions(lag=1.0))
    position = bed.publish("x", topic="t")
    bed.advance(3600.0)
    assert bed.bus.topic("t").seek(position)[1] == Resume("recovered")


def test_sweeping_starts_again_with_a_new_topic() -> None:
    """After all topics have gone, what is published later ages out as well."""
    bed = Bed()
    for _ in range(3):
        bed.publish("x")
        bed.advance(60.0)
        assert bed.bus.topics == []


def test_topics_are_swept_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many topics are made, there is one sweep for all of them."""
    swept = []
    monkeypatch.setattr(Topic, "sweep", lambda topic, now: swept.append(topic.name))
    bed = Bed()
    wires = [bed.join(topic=f"t/{number}") for number in range(3)]
    bed.advance(2 * SWEEP)
    assert swept == [wire.subscriber.topic.name for wire in wires] * 2


def test_bus_without_topics_waits_for_nothing() -> None:
    """When all topics have gone there is no timer."""
    bed = Bed()
    bed.join().subscriber.detach()
    bed.advance(SWEEP)
    assert not bed.loop.soon(3600.0)


def test_close_forgets_every_topic() -> None:
    """A bus that is closed holds nothing, whoever was there."""
    bed = Bed()
    bed.join()
    bed.publish("x")
    bed.bus.close()
    assert (bed.bus.topics, bed.bus.size) == ([], 0)


def test_close_with_a_lagging_subscriber() -> None:
    """A bus can be closed although somebody had not read everything."""
    bed = Bed()
    wire = bed.join()
    wire.pause()
    bed.publish("x")
    bed.idle()
    bed.bus.close()
    assert (bed.bus.topics, bed.bus.size) == ([], 0)


# Publishing


def test_publish_returns_the_position() -> None:
    """A publisher learns where its message stands."""
    bed = Bed()
    assert bed.publish("x") == Position(bed.topic.epoch, 1)


def test_publish_stamps_the_time() -> None:
    """A message has the wall time of its publishing."""
    bed = Bed()
    bed.publish("x")
    assert bed.topic.entry(1).message.time == 1.5


def test_publish_refuses_what_no_message_can_carry() -> None:
    """Bad data is the publisher's error, and takes no offset."""
    bed = Bed()
    with pytest.raises(ValueError, match="no JSON"):
        bed.publish({"a": object()})
    assert bed.publish("x").offset == 1


def test_what_no_message_can_carry_makes_no_topic() -> None:
    """Who says nothing that can be said takes no place."""
    bed = Bed()
    with pytest.raises(ValueError, match="no JSON"):
        bed.publish({"a": object()})
    assert bed.bus.topics == []


def test_publish_refuses_an_unknown_topic() -> None:
    """Publishing does not make a topic that nothing declares."""
    with pytest.raises(UnknownTopic):
        Bed().publish("x", topic="zebra")


def test_publish_never_waits_for_a_subscriber() -> None:
    """A publisher goes on although nobody reads."""
    bed = Bed()
    wire = bed.join()
    wire.pause()
    assert bed.publish(*"abc").offset == 3


async def test_publish_from_another_thread_is_refused(bus: Bus) -> None:
    """Another thread is told what to call instead."""
    with pytest.raises(BusError, match="publish_threadsafe"):
        await asyncio.to_thread(asyncio.run, bus.publish("lobby", "x"))


async def test_publish_threadsafe(bus: Bus) -> None:
    """From another thread the future gives the position."""
    position = await asyncio.to_thread(lambda: bus.publish_threadsafe("lobby", "x").result(5))
    assert position == bus.topic("lobby").position


async def test_publish_threadsafe_keeps_the_order(bus: Bus) -> None:
    """What one thread publishes stands in the order in which it was published."""
    futures = await asyncio.to_thread(lambda: [bus.publish_threadsafe("lobby", n) for n in range(100)])
    positions = await asyncio.gather(*map(asyncio.wrap_future, futures))
    assert [position.offset for position in positions] == list(range(1, 101))


async def test_publish_threadsafe_says_all_of_it(bus: Bus) -> None:
    """The event, and whom it is not for, are those that the thread said."""
    await asyncio.wrap_future(bus.publish_threadsafe("lobby", "x", event="bang", exclude=bus))
    (message,) = bus.topic("lobby").history()
    assert (message.event, message.exclude) == ("bang", bus)


async def test_publish_threadsafe_passes_the_error_on(bus: Bus) -> None:
    """The future's error is that of publish()."""
    with pytest.raises(UnknownTopic):
        await asyncio.wrap_future(bus.publish_threadsafe("zebra", "x"))


# Bursts


def turns_of(bed: Bed, data: str, count: int) -> int:
    """How many times a publisher of so many messages lets the loop go on."""
    turns = 0
    for _ in range(count):
        publishing = bed.bus.publish("t/1", data)
        try:
            while True:
                publishing.send(None)
                turns += 1
                bed.loop.turn()
        except StopIteration:
            pass
    return turns


def test_small_turns_are_not_paced() -> None:
    """Who publishes little goes on without letting the loop turn."""
    assert turns_of(Bed(), "x" * 100, 100) == 0


def test_burst_lets_the_flush_run() -> None:
    """After TURN_BYTES in one turn a publisher lets the flush run."""
    assert turns_of(Bed(), "x" * (TURN_BYTES // 4), 9) == 2


def test_turns_for_the_flush_are_counted() -> None:
    """How often a publisher let the flush run is in the counters."""
    bed = Bed()
    turns = turns_of(bed, "x" * (TURN_BYTES // 4), 9)
    assert bed.bus.counters["yields"] == turns > 0


@pytest.mark.parametrize("which", ["arrive", "depart"])
def test_burst_of_comings_and_goings_lets_the_flush_run(which: Literal["arrive", "depart"]) -> None:
    """Who comes with much that is told of it, or goes, lets the flush run as a publisher does."""
    bed = Bed()
    told = {"name": "x" * (TURN_BYTES // 4)}
    bed.topic.here.update((str(number), told) for number in range(8))
    for number in range(8):
        bed.spawn(getattr(bed.bus, which)(bed.topic, str(number), told, aloud=True))
    assert bed.bus.counters["yields"] > 0


@pytest.mark.parametrize("aloud", [True, False])
@pytest.mark.parametrize("which", ["arrive", "depart"])
def test_only_what_is_said_aloud_is_published(which: Literal["arrive", "depart"], aloud: bool) -> None:
    """Who comes and goes without a word counts for no message."""
    bed = Bed()
    topic = bed.topic
    topic.here["c1"] = {}
    bed.spawn(getattr(bed.bus, which)(topic, "c1", {}, aloud=aloud))
    assert (topic.traffic.published, topic.head) == (aloud, aloud)


def test_pacing_follows_a_small_log() -> None:
    """Where the log is small the pace is a quarter of it."""
    assert turns_of(Bed(TopicOptions(lag_bytes=40_000)), "x" * 6000, 8) == 4


def test_tiny_messages_are_paced_as_the_log_counts_them() -> None:
    """A burst of empty messages fills the log too, so it is paced like one."""
    assert turns_of(Bed(), "", 10 * TURN_BYTES // OVERHEAD) >= 9


@pytest.mark.parametrize("size", [0, 100, 65_536])
def test_burst_does_not_push_healthy_readers_off(size: int) -> None:
    """A burst of many times the log reaches a reader that keeps up, whole."""
    data = "x" * size
    bed = Bed(TopicOptions(lag_bytes=1024 * 1024))
    wire = bed.join(PLAIN)
    count = 10 * 1024 * 1024 // (size + OVERHEAD)
    bed.publish(*([data] * count))
    bed.idle()
    assert (wire.closed, wire.subscriber.cursor) == (None, count)


# Memory


def test_memory_bound_sheds() -> None:
    """All logs together never hold more than ``memory``."""
    bed = Bed(TopicOptions(history=1000), memory=100_000)
    sizes = []
    for number in range(200):
        bed.publish("x" * 1000, topic=f"t/{number % 7}")
        sizes.append(bed.bus.size)
    assert 80_000 < max(sizes) <= 100_000


def test_shedding_takes_from_the_largest() -> None:
    """A quiet topic keeps its history while a loud one next to it is cut."""
    bed = Bed(TopicOptions(history=1000), memory=100_000)
    bed.publish("quiet", topic="t/quiet")
    bed.publish(*(["x" * 1000] * 200), topic="t/loud")
    assert len(bed.bus.topic("t/quiet").history()) == 1


def test_shedding_takes_the_oldest() -> None:
    """What is left of a log that was cut is its newest part, without a hole."""
    bed = Bed(TopicOptions(history=1000), memory=100_000)
    bed.publish(*(f"{number:01000}" for number in range(200)))
    kept = [int(message.data) for message in bed.topic.history()]
    assert kept == list(range(200 - len(kept), 200))


def test_shedding_takes_a_tenth() -> None:
    """The bound takes no more at once, and no less: the next message does not meet it again."""
    bed = Bed(TopicOptions(history=1000), memory=100_000)
    sizes = []
    for _ in range(200):
        bed.publish("x" * 1000)
        sizes.append(bed.bus.size)
    assert 88_000 < min(sizes[100:]) <= 90_000


def test_shedding_empties_no_topic() -> None:
    """Where all hold the same, no one gives up all of it for the others."""
    bed = Bed(TopicOptions(history=1000), memory=110_000)
    for number in range(100):
        bed.publish("x" * 1000, topic=f"t/{number % 10}")
    assert bed.bus.counters["shed"]
    assert all(topic.history() for topic in bed.bus.topics)


def test_shedding_takes_from_those_who_replay() -> None:
    """A replay is no way to hold memory: the bound of all logs counts for it too."""
    bed = Bed(TopicOptions(history=1000), memory=100_000)
    bed.publish(*(["x" * 1000] * 50))
    wire = bed.join(since="earliest", start=False)
    bed.publish(*(["x" * 1000] * 200))
    assert bed.bus.size <= 100_000
    wire.subscriber.start()
    assert wire.closed is not None


def test_shedding_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What the bound took is in the counters and in the log."""
    bed = Bed(TopicOptions(history=1000), memory=100_000)
    with caplog.at_level(logging.WARNING, "realtime.bus"):
        bed.publish(*(["x" * 1000] * 100))
    assert bed.bus.counters["shed"] > 0
    assert "server.limits.memory (100000 bytes)" in caplog.text


# Reading


async def test_reader_gets_what_is_published(bus: Bus) -> None:
    """Plugin code reads the messages in order, from the moment it enters."""
    await bus.publish("lobby", "before")
    async with bus.subscribe("lobby") as messages:
        await bus.publish("lobby", {"a": 1})
        await bus.publish("lobby", b"b", event="bang")
        read = await take(messages, 2)
    assert [(message.event, message.data) for message in read] == [("message", {"a": 1}), ("bang", b"b")]


async def test_reader_waits(bus: Bus) -> None:
    """A reader that has read everything is woken by the next message."""
    async with bus.subscribe("lobby") as messages:
        reading = asyncio.ensure_future(take(messages, 1))
        await asyncio.sleep(0)
        await bus.publish("lobby", "x")
        assert [message.data for message in await reading] == ["x"]


async def test_reader_reads_since_a_position(bus: Bus) -> None:
    """With ``since`` a reader begins after that position."""
    seen = await bus.publish("lobby", "1")
    await bus.publish("lobby", "2")
    async with bus.subscribe("lobby", since=seen) as messages:
        assert [message.data for message in await take(messages, 1)] == ["2"]


async def test_reader_reads_the_history(bus: Bus) -> None:
    """``earliest`` begins with all that is kept for newcomers."""
    for number in range(10):
        await bus.publish("lobby", number)
    async with bus.subscribe("lobby", since="earliest") as messages:
        assert [message.data for message in await take(messages, 5)] == [5, 6, 7, 8, 9]


async def test_reader_of_another_epoch_is_told(bus: Bus) -> None:
    """A position of another epoch begins with ``realtime:reset``."""
    await bus.publish("lobby", "1")
    async with bus.subscribe("lobby", since=Position("0badcafe", 9)) as messages:
        assert [message.event for message in await take(messages, 2)] == ["realtime:reset", "message"]


async def test_reader_that_resumes_too_late_is_told(bus: Bus) -> None:
    """A position that is no longer kept begins with ``realtime:gap`` and the number missed."""
    bus.declare("small", TopicOptions(history=2, lag_bytes=0))
    seen = await bus.publish("small", 1)
    for number in range(2, 6):
        await bus.publish("small", number)
        await asyncio.sleep(0)  # let the flush run
    async with bus.subscribe("small", since=seen) as messages:
        read = await take(messages, 3)
    assert [message.data for message in read] == [{"missed": 2}, 4, 5]


async def test_reader_that_was_left_behind_is_told(bus: Bus) -> None:
    """A reader that was too slow gets ``realtime:gap`` with the number missed, and goes on."""
    bus.declare("small", TopicOptions(history=2, lag_bytes=0))
    async with bus.subscribe("small") as messages:
        for number in range(1, 6):
            await bus.publish("small", number)
            await asyncio.sleep(0)
        read = await take(messages, 3)
    assert [(message.event, message.data) for message in read] == [
        ("realtime:gap", {"missed": 3}),
        ("message", 4),
        ("message", 5),
    ]


async def test_reader_ends_when_it_is_left(bus: Bus) -> None:
    """Leaving the block ends the iteration of whoever still waits in it."""
    messages = bus.subscribe("lobby")
    async with messages:
        reading = asyncio.ensure_future(anext(messages, None))
        await asyncio.sleep(0)
    assert await reading is None


async def test_reader_keeps_its_topic(bus: Bus) -> None:
    """A topic lives while somebody reads it, and goes when the last one leaves."""
    async with bus.subscribe("lobby/1"):
        subscribers = bus.topic("lobby/1").subscribers
    assert (subscribers, bus.topics) == (1, [])


async def test_reader_of_an_unknown_topic(bus: Bus) -> None:
    """A reader of what nothing declares is told so when it enters."""
    with pytest.raises(UnknownTopic, match="did you mean 'lobby'"):
        async with bus.subscribe("loby"):
            pass


async def test_bus_runs_on_asyncio(bus: Bus) -> None:
    """Without a scheduler the bus runs on the running loop, and writes at the end of the turn."""
    written = asyncio.Event()

    class Sink:
        paused = False

        def write(self, data: bytes) -> None:
            assert b"hello" in data
            written.set()

        def overrun(self, reason: str) -> None:
            raise AssertionError(reason)

    bus.topic("lobby").subscribe(Sink(), LINES, None).start()
    await bus.publish("lobby", "hello")
    async with asyncio.timeout(5):
        await written.wait()


# The flush


def test_what_is_encoded_is_bounded() -> None:
    """A replay in another form that takes the logs over the bound makes them give up their oldest."""
    bed = Bed(TopicOptions(history=100), memory=200_000)
    bed.publish(*["x" * 1000] * 100)
    for form in (PLAIN, LINES):
        bed.join(form=form, since="earliest")
    bed.idle()
    assert bed.bus.size > 200_000
    bed.advance(SWEEP)
    assert bed.bus.size <= 200_000


@pytest.mark.parametrize(
    ("lag_bytes", "memory", "most", "key"),
    [
        (1000, 1 << 30, MAX_WRITE, "lag_bytes"),
        (1 << 20, 1 << 30, 1 << 20, "lag_bytes"),
        (1 << 20, 10_000, 10_000, "server.limits.memory"),
    ],
)
async def test_message_that_no_topic_can_hold(lag_bytes: int, memory: int, most: int, key: str) -> None:
    """It is refused when it is published, by the name of the limit, and counted; the largest is not."""
    bus = Bus(memory=memory)
    bus.declare("t", TopicOptions(lag_bytes=lag_bytes, history=1))
    await bus.publish("t", "x" * (most - OVERHEAD))
    with pytest.raises(TooLarge, match=rf"than the {most} that {key} allows"):
        await bus.publish("t", "x" * (most - OVERHEAD + 1))
    assert bus.counters["refused"] == 1
    assert bus.topic("t").head == 1


def test_backlog_does_not_starve_another_topic() -> None:
    """While one topic has much to write, a message in another waits no longer than two slices."""
    bed = Bed(TopicOptions(lag_bytes=1 << 30, history=1000))
    for _ in range(500):
        bed.join(topic="t/loud", cost=SLICE / 10)
    bed.publish(*(["x" * 100_000] * 20), topic="t/loud")
    quiet = bed.join(topic="t/quiet")
    bed.publish("hello", topic="t/quiet")
    began = bed.loop.clock
    while not quiet.writes:
        bed.loop.turn()
    assert bed.loop.clock - began < 4 * SLICE
    assert bed.bus.topic("t/loud").flushing


def test_loud_topics_take_turns() -> None:
    """Several topics with much to write are served one after the other, not one to its end."""
    bed = Bed()
    crowds = {
        name: [bed.join(topic=name, cost=SLICE / 10) for _ in range(200)] for name in ("t/1", "t/2", "t/3")
    }
    for name in crowds:
        bed.publish("x", topic=name)
    for _ in range(6):
        bed.loop.turn()
    assert all(0 < sum(len(wire.writes) for wire in crowd) < 200 for crowd in crowds.values())


def test_many_topics_are_cut_into_slices() -> None:
    """Many topics with a little to write each hold the loop no longer than one with much."""
    bed = Bed()
    for name in (f"t/{number}" for number in range(50)):
        for _ in range(5):
            bed.join(topic=name, cost=SLICE / 10)
        bed.publish("x", topic=name)
    began = bed.loop.clock
    bed.loop.turn()
    assert bed.loop.clock - began < 2 * SLICE


def test_cut_flush_goes_on_once() -> None:
    """What is published before it goes on asks for no other one beside it."""
    bed = Bed()
    for name in (f"t/{number}" for number in range(50)):
        for _ in range(5):
            bed.join(topic=name, cost=SLICE / 10)
        bed.publish("x", topic=name)
    bed.loop.turn()
    bed.publish("y", topic="t/0")
    assert (bed.loop.busy, bed.loop.soon(2 * SLICE)) == (True, False)


def test_error_in_one_topic_stops_no_other() -> None:
    """When a form raises, the other topics are written all the same."""

    class Broken(Lines):
        key = "broken"

        def encode(self, message: Message) -> bytes:
            raise ZeroDivisionError

    bed = Bed()
    bed.join(Broken(), topic="t/broken")
    wire = bed.join(topic="t/fine")
    bed.publish("x", topic="t/broken")
    bed.publish("x", topic="t/fine")
    with pytest.raises(ZeroDivisionError):
        bed.idle()
    bed.idle()
    assert wire.texts == ["x"]


def test_write_that_ends_another_topic() -> None:
    """A topic that gives its place in the middle of a flush does not break the flush."""
    bed = Bed(topics=3)
    first, second, third = (bed.join(topic=name) for name in ("t/1", "t/2", "t/3"))
    for name in ("t/1", "t/2", "t/3"):
        bed.publish("x", topic=name)

    def make_room() -> None:
        second.subscriber.detach()
        bed.bus.topic("t/4")

    first.on_write = make_room
    bed.idle()
    assert (first.texts, second.texts, third.texts) == (["x"], [], ["x"])


def test_writes_are_counted() -> None:
    """The counters say how many writes and bytes went out."""
    bed = Bed()
    wires = [bed.join() for _ in range(3)]
    bed.publish("x")
    bed.idle()
    traffic = bed.bus.traffic["t"]
    assert (traffic.writes, traffic.written_bytes) == (3, sum(len(wire.writes[0]) for wire in wires))


def test_quiet_bus_does_nothing() -> None:
    """When everything is written the bus asks for no further turn."""
    bed = Bed()
    bed.join()
    bed.publish("x")
    bed.idle()
    assert not bed.loop.busy


def test_two_buses_know_nothing_of_each_other() -> None:
    """Nothing is global: two buses in one process share no topic."""
    one, other = Bed(), Bed()
    wire = other.join()
    one.publish("x")
    other.idle()
    assert wire.writes == []


# What is asked of an engine


class Noting(Engine):
    """One that others share, and that remembers what it was asked."""

    shared = True

    def __init__(self, bus: Bus) -> None:
        super().__init__(None, bus)
        self.caught_up: list[Topic] = []
        self.closed: list[str] = []
        self.once: list[Once | None] = []

    def begin(self, topic: Topic) -> None:
        self.bus.opened(topic)

    async def catch_up(self, topic: Topic) -> None:
        self.caught_up.append(topic)
        if len(self.caught_up) == 1:
            self.bus.left(topic)

    def close(self, topic: Topic) -> None:
        self.closed.append(topic.name)

    async def publish(self, topic: Topic, message: Message, once: Once | None = None) -> Position:
        if message.data == "refused":
            raise Unavailable("not now")
        self.once.append(once)
        return topic.append(message)


@pytest.fixture
def noting(bus: Bus) -> Noting:
    """The engine of the bus."""
    engine = bus.engine = Noting(bus)
    return engine


@pytest.mark.parametrize(("other", "ahead", "asked"), [(False, 0, 0), (False, 1, 1), (True, 0, 1)])
async def test_engine_is_asked_where_somebody_has_seen_more(
    bus: Bus, noting: Noting, other: bool, ahead: int, asked: int
) -> None:
    """Who comes with a position that is not known here may be ahead; with another nothing is asked."""
    epoch, offset = await bus.publish("lobby", "x")
    await bus.open("lobby", Position("0badcafe" if other else epoch, offset + ahead))
    assert len(noting.caught_up) == asked


async def test_topic_that_goes_while_it_is_caught_up_with(bus: Bus, noting: Noting) -> None:
    """Who opens it is given the one that there is then."""
    topic = await bus.open("lobby/1", Position("0badcafe", 1))
    assert bus.find("lobby/1") is topic
    assert noting.closed == ["lobby/1"]


async def test_what_is_refused_counts_for_no_message(bus: Bus, noting: Noting) -> None:
    """What the engine did not take was not published."""
    with pytest.raises(Unavailable):
        await bus.publish("lobby", "refused")
    assert bus.topic("lobby").traffic.published == 0


async def test_what_is_said_for_a_client_has_its_keys(bus: Bus, noting: Noting) -> None:
    """What a handler publishes has the next one each, but where it says one itself, while there are any."""
    first, own, second = (Once(key, 1.0) for key in "abc")
    token = SAYING.set(iter([first, second]))
    try:
        for once in (None, own, None, None):
            await bus.publish("lobby", "x", once=once)
    finally:
        SAYING.reset(token)
    assert noting.once == [first, own, second, None]


async def test_what_is_said_in_one_process_needs_no_keys(bus: Bus) -> None:
    """The memory remembers none of a client's: its process knows what it has answered."""
    token = SAYING.set(iter([Once("a", 1.0)]))
    try:
        await bus.publish("lobby", "x")
    finally:
        SAYING.reset(token)
    assert not bus.engine._published


def test_who_is_told_too_much_of_does_not_come() -> None:
    """Where what is told of somebody is more than the topic can hold, nobody is here."""
    bed = Bed()
    told = {"name": "x" * bed.topic.options.lag_bytes}
    with pytest.raises(TooLarge):
        bed.spawn(bed.bus.arrive(bed.topic, "c1", told, aloud=True))
    assert bed.topic.here == {}


# What everybody is told


def test_who_replays_is_told() -> None:
    """Who is still catching up is told as everybody is, after what was there before."""
    bed = Bed(TopicOptions(history=100))
    bed.publish(*["x" * 10_000] * 50)
    bed.idle()
    wire = bed.join(since="earliest")
    assert wire.subscriber.state is State.BEHIND
    bed.spawn(bed.bus.tell(Message.of("told", event="realtime:restored", time=0.0)))
    bed.idle()
    assert wire.texts[50:] == ["told"]


def test_who_lags_is_told() -> None:
    """Who cannot be written to is told once it can, after what it had not read."""
    bed = Bed()
    wire = lagging(bed)
    bed.spawn(bed.bus.tell(Message.of("told", event="realtime:restored", time=0.0)))
    wire.drain()
    bed.idle()
    assert wire.texts == ["before", "first unread", "told"]


def test_who_comes_later_is_not_told_of_what_is_over() -> None:
    """A newcomer is told what lasts, and nothing else."""
    bed = Bed()
    bed.spawn(bed.bus.tell(Message.of("told", event="realtime:restored", time=0.0)))
    wire = bed.join()
    bed.idle()
    assert wire.texts == []


# The pace of flushes


def pauses(*gathered: bool) -> list[bool]:
    """Whether there is a pause after each of some flushes that took a millisecond."""
    pace, now, paused = Pace(), 0.0, []
    for one in gathered:
        pace.flushed(now, now + 0.001, one)
        paused.append(pace.until > now + 0.001)
        now += 1.0
    return paused


def test_storm_is_paced() -> None:
    """After each flush that carried more than one message there is a pause."""
    assert pauses(*[True] * 5) == [True] * 5


def test_quiet_room_is_seldom_paced() -> None:
    """Where one message comes at a time a pause is tried ever more seldom, at last after 32 flushes."""
    paused = pauses(*[False] * 100)
    tries = [number for number, pause in enumerate(paused, 1) if pause]
    assert tries == [1, 3, 7, 15, 31, 63, 95]


def test_storm_in_a_quiet_room_is_paced_at_once() -> None:
    """One flush that has gathered something is enough for the pauses to come back."""
    assert pauses(*[False] * 40, True, True, False) == [*pauses(*[False] * 40), True, True, True]


def test_pause_is_as_long_as_the_flush() -> None:
    """The next flush begins no sooner after the last than that took."""
    pace = Pace()
    pace.flushed(5.0, 5.004, True)
    assert pace.until == pytest.approx(5.008)


def test_pause_is_no_longer_than_a_slice() -> None:
    """A flush that held the loop for long holds back the next for a slice at the most."""
    pace = Pace()
    pace.flushed(5.0, 6.0, True)
    assert pace.until == 6.0 + SLICE


def test_what_is_published_in_a_pause_leaves_together() -> None:
    """Messages of a pause are one write for each reader."""
    bed = Bed()
    wire = bed.join(cost=0.001)
    bed.publish("1", "2")
    bed.loop.idle()
    bed.publish("3")
    bed.loop.idle()
    bed.publish("4")
    bed.loop.idle()
    assert wire.texts == ["1", "2"]
    bed.advance(SLICE)
    assert (wire.texts, len(wire.writes)) == (["1", "2", "3", "4"], 2)


def test_room_that_comes_to_life_is_paced() -> None:
    """Where one came at a time, several that leave in one flush are followed by a pause."""
    bed = Bed()
    wire = bed.join(cost=0.001)
    for number in range(4):
        bed.publish(number)
        bed.idle()
    bed.publish("a", "b")
    bed.loop.idle()
    bed.publish("c")
    bed.loop.idle()
    assert wire.texts[4:] == ["a", "b"]


def test_quiet_room_is_written_to_at_once() -> None:
    """A flush that carried one message is followed by no pause but where one is tried."""
    bed = Bed()
    wire = bed.join(cost=0.001)
    bed.publish("0")
    bed.idle()
    bed.advance(SWEEP)
    for text in "12":
        bed.publish(text)
        bed.loop.idle()
    assert wire.texts == ["0", "1", "2"]


def test_pause_that_was_ended_is_over() -> None:
    """After a flush that came before the end of a pause, the rest of it is not waited for."""
    pace = Pace()
    pace.flushed(5.0, 5.004, False)
    pace.flushed(5.001, 5.002, False)
    assert pace.until <= 5.002


def test_publisher_with_much_to_say_ends_a_pause() -> None:
    """A pause ends when so much waits that it would push readers off the log."""
    bed = Bed()
    wire = bed.join(cost=0.001)
    bed.publish("1", "2")
    bed.loop.idle()
    bed.publish(*["x" * 100_000] * 8)
    assert len(wire.texts) >= 6
