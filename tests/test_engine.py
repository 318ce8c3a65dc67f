"""Engines: whatever keeps the logs, the bus is the same. Each claim holds for the memory and for Redis.

``one`` and ``other`` are two processes that share the bus; with the engine ``memory`` there is only one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest
from busdrive import Bed
from redises import RedisServer, redis_server
from sites import Site, bus_on, data, site, until

from realtime import engine as engine_module
from realtime.bus import Bus
from realtime.engine import Once
from realtime.engines import redis as redis_module, watch
from realtime.engines.redis import Redis
from realtime.engines.resp import Where
from realtime.errors import Rejected, Unavailable
from realtime.message import Message, Position
from realtime.topic import TopicOptions

Sites = Callable[..., AbstractAsyncContextManager[Site]]


@pytest.fixture(params=["memory", "redis"])
def sites(request: pytest.FixtureRequest, tmp_path: Path) -> Sites:
    """A site for each engine."""
    return partial(site, request.param, tmp_path)


async def read(messages: AsyncIterator[Message], number: int) -> list[Message]:
    """The next so many messages."""
    async with asyncio.timeout(20):
        return [await anext(messages) for _ in range(number)]


# Offsets, epoch, order


async def test_offsets_are_consecutive(sites: Sites) -> None:
    """Whoever publishes, the offsets of a topic are 1, 2, 3, …"""
    async with sites() as (one, other, _):
        positions = [await bus.publish("room", "hi") for bus in (one, other, one, other)]
        assert [position.offset for position in positions] == [1, 2, 3, 4]


async def test_there_is_one_epoch(sites: Sites) -> None:
    """All positions of a topic are of one epoch, wherever they were made."""
    async with sites() as (one, other, _):
        positions = [await bus.publish("room", "hi") for bus in (one, other, one)]
        topic = await other.open("room")
        assert {position.epoch for position in positions} == {topic.epoch}


async def test_topics_have_epochs_of_their_own(sites: Sites) -> None:
    """Two topics are two logs."""
    async with sites(TopicOptions()) as (one, _, _):
        first, second = await one.publish("room/1", "a"), await one.publish("room/2", "b")
        assert (first.offset, second.offset) == (1, 1)
        assert first.epoch != second.epoch


async def test_what_is_published_is_there(sites: Sites) -> None:
    """When publish() returns, the message is in the topic of the one that published."""
    async with sites() as (one, _, _):
        position = await one.publish("room", "hi")
        assert [message.id for message in one.topic("room").history()] == [position]


async def test_order_is_the_same_for_all(sites: Sites) -> None:
    """However many publish at once, everybody reads the same order, and each publisher's own is kept."""
    async with sites() as (one, other, _):
        async with one.subscribe("room") as here, other.subscribe("room") as there:

            async def say(name: str) -> None:
                for number in range(50):
                    await (one if name < "c" else other).publish("room", [name, number])

            await asyncio.gather(*map(say, "abcd"))
            first, second = await read(here, 200), await read(there, 200)
        assert data(first) == data(second)
        for name in "abcd":
            assert [said for said in data(first) if said in [[name, number] for number in range(50)]] == [
                [name, number] for number in range(50)
            ]


async def test_publishing_in_one_turn_keeps_the_order(sites: Sites) -> None:
    """What is published without waiting stands in the order in which it was asked for."""
    async with sites() as (one, other, _):
        positions = await asyncio.gather(*(one.publish("room", number) for number in range(100)))
        assert [position.offset for position in positions] == list(range(1, 101))
        topic = await other.open("room")
        await until(lambda: topic.head == 100)
        assert data(topic.history()) == list(range(100))


@pytest.mark.parametrize(
    "said", ["text", "ünï\ncode", b"\x00\xff\n", {"a": [1, None]}, "", b"", None, 1.5, "x" * 100_000]
)
async def test_messages_come_as_they_are(sites: Sites, said: object) -> None:
    """Text, bytes and JSON come as they were said, with their event and their time."""
    async with sites() as (one, other, _):
        async with other.subscribe("room") as messages:
            position = await one.publish("room", said, event="said")
            (message,) = await read(messages, 1)
        (kept,) = one.topic("room").history()
        assert (message.data, message.event, message.id) == (said, "said", position)
        assert (message.kind, message.time) == (kept.kind, kept.time)


async def test_who_is_excluded_is_known(sites: Sites) -> None:
    """A message knows whom it is not for, where that one is."""
    async with sites() as (one, _, _):
        somebody = object()
        await one.publish("room", "hi", exclude=somebody)
        assert one.topic("room").history()[0].exclude is somebody


# History, recovery, gaps


async def test_history_is_everybodys(sites: Sites) -> None:
    """Whoever uses a topic first has what was said before."""
    async with sites() as (one, other, _):
        for number in range(5):
            await one.publish("room", number)
        topic = await other.open("room")
        assert data(topic.history()) == [0, 1, 2, 3, 4]


async def test_history_has_its_size(sites: Sites) -> None:
    """A newcomer is given the newest ``history`` messages."""
    async with sites(TopicOptions(history=3)) as (one, other, _):
        for number in range(10):
            await one.publish("room", number)
        topic = await other.open("room")
        assert data(topic.history()) == [7, 8, 9]


async def test_nothing_is_history_that_is_too_old(sites: Sites) -> None:
    """What is older than ``history_age`` is not given to a newcomer."""
    async with sites(TopicOptions(history=10, history_age=0.05, lag=0.01)) as (one, other, _):
        await one.publish("room", "old")
        topic, over = one.topic("room"), one.now() + 0.1
        await until(lambda: one.now() > over)
        assert data(topic.history()) == []
        assert data((await other.open("room")).history()) == []


async def test_position_is_resumed_anywhere(sites: Sites) -> None:
    """A position that one gave, another resumes: what came since is there, and nothing else."""
    async with sites(TopicOptions()) as (one, other, _):
        await one.publish("room", "before")
        position = await one.publish("room", "seen")
        await one.publish("room", "missed")
        async with other.subscribe("room", since=position) as messages:
            await one.publish("room", "next")
            assert data(await read(messages, 2)) == ["missed", "next"]


async def test_other_epoch_is_a_reset(sites: Sites) -> None:
    """A position of another log is told as a reset, and then comes all that a newcomer may ask for."""
    async with sites() as (one, other, _):
        await one.publish("room", "hi")
        async with other.subscribe("room", since=Position("0", 1)) as messages:
            marker, message = await read(messages, 2)
        assert (marker.event, message.data) == ("realtime:reset", "hi")


async def test_offset_that_is_to_come_is_a_reset(sites: Sites) -> None:
    """A position beyond the newest is of no log that there is."""
    async with sites() as (one, other, _):
        position = await one.publish("room", "hi")
        async with other.subscribe("room", since=Position(position.epoch, 7)) as messages:
            assert (await read(messages, 1))[0].event == "realtime:reset"


async def test_what_is_no_longer_kept_is_a_gap(sites: Sites) -> None:
    """Who comes back too late is told how many messages it has missed."""
    async with sites(TopicOptions(history=2, lag=0, lag_bytes=0)) as (one, other, _):
        position = await one.publish("room", 0)
        for number in range(1, 6):
            await one.publish("room", number)
            await asyncio.sleep(0)
        topic = await other.open("room")
        await until(lambda: topic.head == 6)
        other.topic("room").sweep(other.now())
        cursor, resumed = topic.seek(position)
        assert (cursor + 1, resumed.outcome, resumed.missed) == (topic.base, "gap", topic.base - 2)


async def test_what_one_observes_all_publish(sites: Sites) -> None:
    """An observation has what is published anywhere, to topics that come into being, too."""
    async with sites() as (one, other, _):
        async with other.observe("room/*") as messages:
            await other.open("room/7")
            await one.publish("room/7", "hi")
            async with asyncio.timeout(20):
                topic, message = await anext(messages)
        assert (topic, message.data) == ("room/7", "hi")


# Once


async def test_once_is_once(sites: Sites) -> None:
    """What is published under a key is published once, whoever asks for it."""
    async with sites() as (one, other, _):
        once = Once("k", 60.0, "hi")
        first = await one.publish("room", "hi", once=once)
        assert await other.publish("room", "hi", once=once) == first
        topic = await other.open("room")
        await until(lambda: topic.head == 1)
        assert data(topic.history()) == ["hi"]


async def test_key_is_of_a_topic(sites: Sites) -> None:
    """One key in two topics is two keys."""
    async with sites() as (one, _, _):
        once = Once("k", 60.0)
        await one.publish("room/1", "hi", once=once)
        position = await one.publish("room/2", "hi", once=once)
        assert (position, position.offset) == (one.topic("room/2").position, 1)


async def test_key_is_of_one_message(sites: Sites) -> None:
    """A key that comes with another message is refused, and nothing is published."""
    async with sites() as (one, other, _):
        await one.publish("room", "hi", once=Once("k", 60.0, "hi"))
        with pytest.raises(Rejected, match="came with another message") as caught:
            await other.publish("room", "ho", once=Once("k", 60.0, "ho"))
        assert caught.value.status == 422
        assert data(one.topic("room").history()) == ["hi"]


async def test_key_is_forgotten(sites: Sites) -> None:
    """After its window a key is new."""
    async with sites() as (one, _, _):
        once, published = Once("k", 0.05), await one.publish("room", 1, once=Once("k", 0.05))
        position = published
        async with asyncio.timeout(20):
            while position == published:
                position = await one.publish("room", 2, once=once)
        assert position.offset == 2


# Who is here


def who(bus: Bus, name: str) -> str:
    """The id of somebody who is here by a process."""
    return f"{bus.engine.node}.{name}"


def member(name: str) -> dict[str, object]:
    """What is told of somebody."""
    return {"client": name, "name": name}


async def test_all_know_who_is_here(sites: Sites) -> None:
    """Who arrives anywhere is here for everybody, in the order in which they came."""
    async with sites() as (one, other, _):
        here, there = await one.open("room"), await other.open("room")
        await one.arrive(here, who(one, "a"), member("a"), aloud=True)
        await other.arrive(there, who(other, "b"), member("b"), aloud=True)
        await until(lambda: len(here.here) == len(there.here) == 2)
        assert list(here.here.values()) == list(there.here.values()) == [member("a"), member("b")]


async def test_coming_and_going_is_told(sites: Sites) -> None:
    """Joins and leaves that are told aloud are messages like others, on all processes."""
    async with sites() as (one, other, _):
        topic = await one.open("room")
        async with other.subscribe("room") as messages:
            await one.arrive(topic, who(one, "a"), member("a"), aloud=True)
            await one.depart(topic, who(one, "a"), member("a"), aloud=True)
            told = await read(messages, 2)
        assert [message.event for message in told] == ["realtime:join", "realtime:leave"]
        assert data(told) == [member("a"), member("a")]


async def test_who_comes_quietly_is_no_message(sites: Sites) -> None:
    """Who is only listed is here for everybody, and nothing is published."""
    async with sites() as (one, other, _):
        here, there = await one.open("room"), await other.open("room")
        await one.arrive(here, who(one, "a"), member("a"), aloud=False)
        await until(lambda: list(there.here.values()) == [member("a")])
        await one.depart(here, who(one, "a"), member("a"), aloud=False)
        await until(lambda: not there.here)
        assert (here.head, there.head) == (0, 0)


async def test_newcomer_knows_who_is_here(sites: Sites) -> None:
    """A process that uses a topic for the first time knows who is here."""
    async with sites() as (one, other, _):
        await one.arrive(await one.open("room"), who(one, "a"), member("a"), aloud=True)
        assert list((await other.open("room")).here.values()) == [member("a")]


async def test_who_is_gone_is_gone_once(sites: Sites) -> None:
    """A leave is told once, however often it is said."""
    async with sites() as (one, _, _):
        topic = await one.open("room")
        await one.arrive(topic, who(one, "a"), member("a"), aloud=True)
        await one.depart(topic, who(one, "a"), member("a"), aloud=True)
        await one.depart(topic, who(one, "a"), member("a"), aloud=True)
        assert (await one.publish("room", "next")).offset == 3


async def test_members_change_with_the_message(sites: Sites) -> None:
    """In the turn in which a topic has the event, who is here is what it says."""
    async with sites() as (one, other, _):
        here, there = await one.open("room"), await other.open("room")
        seen: list[tuple[int, int]] = []

        class Looking:
            def set(self) -> None:
                seen.append((there.head, len(there.here)))

        there.readers[Looking()] = None
        await one.arrive(here, who(one, "a"), member("a"), aloud=True)
        await one.depart(here, who(one, "a"), member("a"), aloud=True)
        await until(lambda: there.head == 2)
        assert seen == [(1, 1), (2, 0)]


# What only one can have


async def test_one_has_what_is_claimed(sites: Sites) -> None:
    """Of those who claim the same, anywhere and at once, one has it, and all are told who."""
    async with sites() as (one, other, _):
        told = await asyncio.gather(
            *(
                bus.claim("room", "alice", f"{number}.c", "about")
                for number in range(5)
                for bus in (one, other)
            )
        )
        assert len(set(told)) == 1
        assert await other.holder("room", "alice") == told[0] == (told[0].id, "about")


async def test_claim_is_of_a_topic(sites: Sites) -> None:
    """The same name in another topic is another."""
    async with sites() as (one, other, _):
        assert (await one.claim("room/1", "alice", "1.a")).id == "1.a"
        assert (await other.claim("room/2", "alice", "2.b")).id == "2.b"


async def test_who_has_it_can_claim_it_again(sites: Sites) -> None:
    """A claim of one's own is no other's."""
    async with sites() as (one, _, _):
        assert await one.claim("room", "alice", "1.a") == await one.claim("room", "alice", "1.a")


async def test_what_is_released_can_be_claimed(sites: Sites) -> None:
    """After a release another can have it."""
    async with sites() as (one, other, _):
        await one.claim("room", "alice", "1.a")
        await one.release("room", "alice", "1.a")
        assert await other.holder("room", "alice") is None
        assert (await other.claim("room", "alice", "2.b")).id == "2.b"


async def test_what_nobody_has_is_released(sites: Sites) -> None:
    """To release what nobody has is nothing."""
    async with sites() as (one, _, _):
        await one.release("room", "alice", "1.a")
        assert await one.holder("room", "alice") is None


async def test_only_the_holder_releases(sites: Sites) -> None:
    """Who does not have it cannot give it away."""
    async with sites() as (one, other, _):
        await one.claim("room", "alice", "1.a")
        await other.release("room", "alice", "1.ab")
        await other.release("room", "alice", "2.b")
        assert await other.holder("room", "alice") == ("1.a", "")
        await one.claim("room", "bob", "1.ab")
        await one.release("room", "bob", "1.a")
        assert await other.holder("room", "bob") == ("1.ab", "")


async def test_all_are_asked(sites: Sites) -> None:
    """What is asked of all, every process that has the topic does, and its answer is there."""
    async with sites() as (one, other, _):
        await one.open("room")
        await other.open("room")
        done: list[tuple[object, ...]] = []

        async def respond(bus: Bus, topic: str, request: dict[str, object]) -> int:
            done.append((bus, topic, request))
            return 2

        for bus in (one, other):
            bus.respond = partial(respond, bus)
        answers = await one.engine.everywhere("room", {"do": "it"})
        buses = {id(one), id(other)}
        assert answers == [2] * len(buses)
        assert {id(bus) for bus, *_ in done} == buses
        assert {str(what) for _, *what in done} == {"['room', {'do': 'it'}]"}


async def test_topic_that_goes_while_it_is_caught_up_with(tmp_path: Path) -> None:
    """Who comes with a position to a topic that goes meanwhile is in the one that there is."""
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:
        before = await bus.open("room/1")
        redis.pause()
        opening = asyncio.create_task(bus.open("room/1", Position("0", 1)))
        await asyncio.sleep(0)
        bus.left(before)
        assert bus.find("room/1") is None
        redis.resume()
        topic = await opening
        assert bus.find("room/1") is topic is not before


@pytest.fixture
async def spoilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[RedisServer, Bus]]:
    """A topic that this process has, and of which Redis can say nothing any more."""
    monkeypatch.setattr(redis_module, "PUBLISH_WITHIN", 0.3)
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:
        await bus.publish("room", 1)
        await redis.command("SET", "realtime:{room}:head", "mine")
        yield redis, bus


async def test_topic_that_cannot_be_caught_up_with(spoilt: tuple[RedisServer, Bus]) -> None:
    """Who comes with a position that nobody can tell of is refused, with the reason."""
    _, bus = spoilt
    with pytest.raises(Unavailable, match="does not say what it has of the topic: WRONGTYPE"):
        async with asyncio.timeout(20):
            await bus.open("room", Position("0", 1))


async def test_catching_up_leaves_redis_in_peace(spoilt: tuple[RedisServer, Bus]) -> None:
    """What Redis could not say is asked again now and then, and not all the time."""
    redis, bus = spoilt
    await redis.command("CONFIG", "RESETSTAT")
    with pytest.raises(Unavailable):
        await bus.open("room", Position("0", 1))
    (calls,) = re.findall("evalsha:calls=([0-9]+)", await redis.command("INFO", "commandstats"))
    assert 1 < int(calls) < 20


async def test_caught_up_with_on_another_connection(tmp_path: Path) -> None:
    """A connection that is lost meanwhile costs who comes with a position time, and no more."""
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:
        topic = await bus.open("room")
        redis.pause()
        opening = asyncio.create_task(bus.open("room", Position("0", 1)))
        for _ in range(3):  # it is asked
            await asyncio.sleep(0)
        assert isinstance(bus.engine, Redis)
        bus.engine._asking.abort("for a test")
        redis.resume()
        assert await opening is topic


@pytest.mark.parametrize("tolerated", [0.0, 60.0])
@pytest.mark.parametrize(
    ("do", "wrong"),
    [
        (lambda bus: bus.open("room", Position("0", 1)), "Redis does not say what it has of the topic"),
        (lambda bus: bus.open("room/new"), "Redis does not say what it has of the topic"),
        (lambda bus: bus.publish("room", 1), "Redis does not answer"),
        (lambda bus: bus.claim("room", "alice", "1.a"), "Redis does not take it"),
    ],
    ids=["catch up", "open", "publish", "claim"],
)
async def test_whoever_wants_something_of_a_redis_that_is_away_is_told_why(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tolerated: float,
    do: Callable[[Bus], Awaitable[object]],
    wrong: str,
) -> None:
    """At once where it has been away for some time, and else when it has been waited for."""
    monkeypatch.setattr(redis_module, "PUBLISH_WITHIN", 0.1)
    monkeypatch.setattr(watch, "TOLERATED", tolerated)
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:
        await bus.open("room")
        await redis.kill()
        assert isinstance(bus.engine, Redis)
        line = bus.engine._asking
        await until(lambda: line.away)
        with pytest.raises(Unavailable, match=f"{wrong if tolerated else 'Redis is away'}: [a-zA-Z]"):
            async with asyncio.timeout(20):
                await do(bus)


async def test_what_was_wrong_is_not_what_is_wrong(tmp_path: Path) -> None:
    """Of a connection that works nobody is told why there was none before."""
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:
        assert isinstance(bus.engine, Redis)
        line = bus.engine._asking
        line.abort("for a test")
        await until(lambda: line.lost and not line.away)
        assert bus.engine.reason == ""


async def test_topic_that_goes_while_nothing_is_heard(tmp_path: Path) -> None:
    """It goes all the same, and leaves nothing."""
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:
        topic = await bus.open("room/1")
        assert isinstance(bus.engine, Redis)
        line = bus.engine._hearing
        line.where = Where.parse("redis://127.0.0.1:1")
        line.abort("for a test")
        await until(lambda: line.connection is None)
        bus.left(topic)
        assert bus.engine.feeds == []


async def test_last_of_an_answer_has_some_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked when all the time of an answer is over has a moment all the same."""
    monkeypatch.setattr(redis_module, "PUBLISH_WITHIN", 0.0)
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus, bus.engine.answering():
        before = bus.now()
        assert isinstance(bus.engine, Redis)
        assert bus.engine._until() >= before + redis_module.AT_LEAST


async def test_what_comes_of_a_topic_that_is_gone(tmp_path: Path) -> None:
    """It is not heard of any more, and the log is told of no garbage."""
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:
        assert isinstance(bus.engine, Redis)
        assert bus.engine._pushed([b"message", b"realtime:{room/gone}", b"0a-1\nhello"]) is None
        assert bus.engine.counters["ignored"] == 0


# What the memory remembers


def say(bed: Bed, key: str, window: float = 100.0) -> int:
    """Say something once; how many messages the topic has then."""
    bed.spawn(bed.bus.publish("t/1", key, once=Once(key, window)))
    return bed.topic.head


def test_oldest_key_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many keys that are remembered the oldest goes before its time, and no other."""
    monkeypatch.setattr(engine_module, "MAX_KEYS", 2)
    bed = Bed()
    assert [say(bed, key) for key in "abcbca"] == [1, 2, 3, 3, 3, 4]


def test_key_that_came_anew_is_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that was said again after its time is not forgotten as if it were as old as at first."""
    monkeypatch.setattr(engine_module, "MAX_KEYS", 4)
    bed = Bed()
    say(bed, "a")
    say(bed, "b", window=1.0)
    say(bed, "c")
    bed.advance(2.0)
    assert [say(bed, key) for key in "bdefb"] == [4, 5, 6, 7, 7]


def test_keys_whose_time_is_over_take_no_room() -> None:
    """They are given up when another comes."""
    bed = Bed()
    for key in "abc":
        say(bed, key, window=1.0)
    bed.advance(2.0)
    say(bed, "d")
    assert list(bed.bus.engine._published) == [("t/1", "d")]


def test_key_whose_time_is_over_is_said_anew() -> None:
    """After its window what has the same key is another message, whatever it says."""
    bed = Bed()
    say(bed, "a", window=1.0)
    bed.advance(1.0)
    assert say(bed, "a") == 2
