"""What comes into a topic from its log in Redis: once, in order, and with what is missing marked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redises import RedisServer, redis_server
from sites import bus_on, data, site, until
from timing import now

from realtime.bus import Bus
from realtime.engines import entries, feed as feed_module, redis as redis_module
from realtime.engines.feed import Feed
from realtime.engines.redis import MAX_PAYLOAD, Redis
from realtime.engines.resp import Connection
from realtime.errors import TooLarge
from realtime.message import Message
from realtime.topic import TopicOptions

#: All that is said in a test is kept.
ALL = TopicOptions(history=10_000)
CHANNEL, HEAD, LOG = "realtime:{room}", "realtime:{room}:head", "realtime:{room}:log"


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis that runs."""
    async with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
async def one(redis: RedisServer) -> AsyncIterator[Bus]:
    """A process that has the topic ``room``."""
    async with bus_on(redis, ALL) as bus:
        await bus.open("room")
        yield bus


@pytest.fixture
async def other(redis: RedisServer) -> AsyncIterator[Bus]:
    """Another one."""
    async with bus_on(redis, ALL) as bus:
        await bus.open("room")
        yield bus


def engine(bus: Bus) -> Redis:
    """The engine of a bus."""
    assert isinstance(bus.engine, Redis)
    return bus.engine


def feed(bus: Bus) -> Feed:
    """What comes into the topic ``room`` of a bus."""
    return engine(bus).feed(bus.topic("room"))


def hearing(bus: Bus) -> Connection:
    """The connection by which a bus has what is published."""
    connection = engine(bus)._hearing.connection
    assert connection is not None
    return connection


async def say(bus: Bus, *said: object) -> None:
    """Publish, one after the other."""
    for text in said:
        await bus.publish("room", text)


def heard(bus: Bus) -> list[object]:
    """What is in the topic."""
    return data(bus.topic("room").history())


# What comes by the subscription


async def test_what_is_pushed_comes_without_looking(one: Bus, other: Bus) -> None:
    """As long as nothing is missing the stream is not read."""
    await say(one, *range(10))
    await until(lambda: other.topic("room").head == 10)
    assert engine(other).counters["filled"] == 0
    assert heard(other) == list(range(10))


async def test_push_that_comes_again_is_nothing_new(redis: RedisServer, one: Bus, other: Bus) -> None:
    """What is published on the channel a second time does not come a second time."""
    await say(one, 1, 2)
    entry = entries.write(one.engine.node, 1, Message.of(1, time=1.0))
    epoch = one.topic("room").epoch.encode()
    for offset in (b"1", b"2", b"0"):
        await redis.command("PUBLISH", CHANNEL, epoch + b"-" + offset + b"\n" + entry)
    await say(one, 3)
    await until(lambda: other.topic("room").head == 3)
    assert heard(other) == [1, 2, 3]


async def test_push_of_another_log_is_looked_into(redis: RedisServer, one: Bus) -> None:
    """A position of an epoch that is not the topic's has the stream read, and is not believed."""
    await say(one, 1)
    entry = entries.write("0a", 1, Message.of("forged", time=1.0))
    await redis.command("PUBLISH", CHANNEL, b"0a-2\n" + entry)
    await redis.command("PUBLISH", CHANNEL, one.topic("room").epoch.encode() + b"-7\n" + entry)
    await say(one, 2)
    assert heard(one) == [1, 2]
    assert engine(one).counters["resets"] == 0


async def test_jump_is_filled(one: Bus, other: Bus) -> None:
    """What the subscription has left out is read from the stream, and comes before what follows."""
    connection = hearing(other)
    pushed = connection._pushed
    assert pushed is not None
    connection._pushed = lambda push: None if push[2].endswith(b"\n2") else pushed(push)
    await say(one, 1, 2, 3)
    await until(lambda: other.topic("room").head == 3)
    assert heard(other) == [1, 2, 3]
    assert engine(other).counters["filled"] >= 1
    assert engine(other).counters["lost"] == 0


async def test_what_is_taken_but_does_not_come_is_fetched(
    one: Bus, other: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publish does not wait for the subscription longer than a moment."""
    monkeypatch.setattr(feed_module, "SOON", 0.01)
    hearing(one).pause()
    began = now()
    assert (await one.publish("room", "hi")).offset == 1
    assert now() - began < 1.0
    assert heard(one) == ["hi"]
    assert engine(one).counters["filled"] == 1
    assert other.topic("room").epoch == one.topic("room").epoch


async def test_what_comes_before_the_look_waits_for_it(redis: RedisServer, one: Bus, other: Bus) -> None:
    """Once it is to be looked at the stream nothing is taken from the subscription."""
    await say(one, 1)
    await until(lambda: other.topic("room").head == 1)
    for _ in range(redis_module.LOOKERS):
        await engine(other).lookers.acquire()
    feed(other).check()
    await say(one, 2, 3)
    assert heard(other) == [1]
    for _ in range(redis_module.LOOKERS):
        engine(other).lookers.release()
    await until(lambda: other.topic("room").head == 3)
    assert heard(other) == [1, 2, 3]


# What comes by the stream


async def test_long_stream_is_read_in_pages(
    redis: RedisServer, one: Bus, other: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much is missing, it is read in parts, whole and in order, by newcomers, too."""
    monkeypatch.setattr(feed_module, "PAGE", 7)
    hearing(other).pause()
    await say(one, *range(100))
    hearing(other).abort("cut")
    await until(lambda: other.topic("room").head == 100)
    assert heard(other) == list(range(100))
    async with bus_on(redis, ALL) as third:
        await third.open("room")
        assert heard(third) == list(range(100))


async def test_log_that_grows_while_it_is_read_is_read_to_its_end(
    redis: RedisServer, one: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is published between two parts comes, too, once."""
    monkeypatch.setattr(feed_module, "PAGE", 3)
    await say(one, *range(50))
    async with bus_on(redis, ALL) as third:
        opening = asyncio.create_task(third.open("room"))
        await say(one, *range(50, 100))
        await opening
        await until(lambda: third.topic("room").head == 100)
        assert heard(third) == list(range(100))


async def test_page_of_foreign_entries_is_passed_over(
    redis: RedisServer, one: Bus, other: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are beside one of ours, the reading comes to its end."""
    monkeypatch.setattr(feed_module, "PAGE", 3)
    hearing(other).pause()
    await say(one, 1)
    for number in range(1, 9):
        await redis.command("XADD", LOG, f"1-{number}", "x", "foreign")
    await say(one, 2, 3)
    hearing(other).abort("cut")
    await until(lambda: other.topic("room").head == 3)
    assert heard(other) == [1, 2, 3]
    async with bus_on(redis, ALL) as third:
        await third.open("room")
        assert heard(third) == [1, 2, 3]


async def test_newcomer_has_what_is_after_a_hole(redis: RedisServer, one: Bus) -> None:
    """Where a message is gone from the middle a newcomer has what follows: no history has holes."""
    await say(one, *range(1, 7))
    await redis.command("XDEL", LOG, "4-0")
    async with bus_on(redis, ALL) as third:
        topic = await third.open("room")
        assert data(topic.history()) == [5, 6]
        assert (topic.base, topic.head) == (5, 6)


async def test_newcomer_of_a_log_without_its_end_has_no_history(redis: RedisServer, one: Bus) -> None:
    """Where the newest is gone there is no history, and what comes has the right place."""
    await say(one, 1, 2, 3)
    await redis.command("XDEL", LOG, "3-0")
    async with bus_on(redis, ALL) as third:
        topic = await third.open("room")
        assert (data(topic.history()), topic.head) == ([], 3)
        assert (await third.publish("room", 4)).offset == 4


async def test_what_is_lost_is_counted(redis: RedisServer, one: Bus, other: Bus) -> None:
    """What is neither pushed nor in the stream is passed over, and counted."""
    hearing(other).pause()
    await say(one, *range(1, 6))
    await redis.command("XTRIM", LOG, "MINID", "4")
    hearing(other).abort("cut")
    await until(lambda: other.topic("room").head == 5)
    assert heard(other) == [4, 5]
    assert engine(other).counters["lost"] == 3


async def test_look_tells_whether_it_was_possible(redis: RedisServer, one: Bus) -> None:
    """Who looks knows whether the topic has all that there is."""
    assert await feed(one).looked()
    await redis.kill()
    assert not await feed(one).looked()
    await redis.start()


async def test_look_that_redis_refuses_is_made_again(redis: RedisServer, one: Bus) -> None:
    """A key of another type keeps what is there, and the next look finds all when it is gone."""
    await say(one, 1)
    epoch = one.topic("room").epoch
    await redis.command("RENAME", HEAD, "kept{room}")
    await redis.command("SET", HEAD, "mine")
    assert not await feed(one).looked()
    assert "WRONGTYPE" in feed(one).refusal
    await redis.command("RENAME", "kept{room}", HEAD)
    assert await feed(one).looked()
    assert (heard(one), one.topic("room").epoch) == ([1], epoch)


async def test_no_more_than_so_many_look_at_once(redis: RedisServer, one: Bus) -> None:
    """Where thousands of topics are to be looked at they take turns."""
    sync, looking, most = engine(one).sync, 0, 0

    async def counting(*arguments: object) -> object:
        nonlocal looking, most
        looking += 1
        most = max(most, looking)
        try:
            return await sync(*arguments)  # type: ignore[arg-type]
        finally:
            looking -= 1

    engine(one).sync = counting  # type: ignore[method-assign,assignment]
    await asyncio.gather(*(one.open(f"room/{number}") for number in range(300)))
    assert 1 < most <= redis_module.LOOKERS


# Its end


async def test_feed_that_is_closed_leaves_nothing(one: Bus) -> None:
    """A topic that goes while it is looked at leaves no task and no timer."""
    gone = feed(one)
    gone.check()
    await asyncio.sleep(0)  # it has begun
    gone.heard(one.topic("room").position._replace(offset=7))
    task, timer = gone._task, gone._timer
    assert task is not None
    assert timer is not None
    one.forget("room")
    await asyncio.wait([task])
    assert timer.cancelled()
    assert task.cancelled()
    gone.check()
    assert gone._task is None


async def test_feed_subscribes_and_unsubscribes(redis: RedisServer, one: Bus) -> None:
    """A topic that goes is subscribed no more."""

    async def subscribers() -> str:
        return (await redis.command("PUBSUB", "NUMSUB", CHANNEL)).splitlines()[-1]

    assert (await subscribers()).endswith("1")
    one.forget("room")
    while not (await subscribers()).endswith("0"):
        pass


# Who is here


async def test_who_comes_while_it_is_looked_is_here(redis: RedisServer, one: Bus, other: Bus) -> None:
    """Whoever arrives between the look and its answer is neither forgotten nor doubled."""
    clients = [f"{one.engine.node}.c{number}" for number in range(30)]
    for number, client in enumerate(clients):
        feed(other).check(whole=True)
        aloud = bool(number % 2)
        await one.arrive(one.topic("room"), client, {"client": client}, aloud=aloud)
    await until(lambda: len(other.topic("room").here) == 30)
    assert [told["client"] for told in other.topic("room").here.values()] == clients
    for number, client in enumerate(clients):
        feed(other).check(whole=True)
        aloud = bool(number % 2)
        await one.depart(one.topic("room"), client, {"client": client}, aloud=aloud)
    await until(lambda: not other.topic("room").here)
    await until(lambda: not feed(other)._task)
    assert other.topic("room").here == {}


async def test_garbage_among_the_members_hides_nobody(redis: RedisServer, one: Bus) -> None:
    """Who is here is known, whatever else stands beside them."""
    client = f"{one.engine.node}.c1"
    await one.arrive(one.topic("room"), client, {"client": "c1"}, aloud=True)
    for garbage in ("hello", "[]", "7", "[true,7,1,1]"):
        await redis.command("HSET", "realtime:{room}:here", f"0a.{garbage}", garbage)
    await redis.command("HSET", "realtime:{room}:here", b"\xff", '[true,{"client":"ghost"},1,1]')
    async with bus_on(redis, ALL) as third:
        assert (await third.open("room")).here == {client: {"client": "c1"}}


async def test_newcomers_first_look_knows_who_is_here(redis: RedisServer, one: Bus, other: Bus) -> None:
    """Who opens a topic knows in that moment those who are here, in the order in which they came."""
    await redis.command("CONFIG", "SET", "hash-max-listpack-entries", "16")
    for number in range(200):  # more than Redis keeps in order
        bus = (one, other)[number % 2]
        client = f"{bus.engine.node}.c{number}"
        await bus.arrive(bus.topic("room"), client, {"client": number}, aloud=number % 3 == 0)
    async with bus_on(redis, ALL) as third:
        here = list((await third.open("room")).here.values())
        assert [told["client"] for told in here if told["client"] % 2 == 0] == list(range(0, 200, 2))
        assert [told["client"] for told in here if told["client"] % 2] == list(range(1, 200, 2))


# Much at once


@pytest.mark.parametrize("large", [100, 300_000], ids=["many", "large"])
async def test_log_is_opened_in_parts(tmp_path: Path, large: int) -> None:
    """A long log, or one of large messages, comes whole into a process that begins to use it."""
    number = 3000 if large == 100 else 40
    options = TopicOptions(history=5000, lag_bytes=64 * 1024 * 1024)
    async with site("redis", tmp_path, options) as (one, other, _):
        said = [f"{count} {'x' * large}" for count in range(number)]
        await asyncio.gather(*(one.publish("room", text) for text in said))
        assert data((await other.open("room")).history()) == said


async def test_much_is_filled_in_parts(tmp_path: Path) -> None:
    """What a process has missed while it could not hear comes whole, and nobody is left behind by it."""
    options = TopicOptions(history=5000)
    async with site("redis", tmp_path, options) as (one, other, redis):
        assert redis is not None
        async with other.subscribe("room") as messages:
            await redis.command("ACL", "SETUSER", "default", "resetchannels")
            await redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            said = [f"{count} {'x' * 10_000}" for count in range(600)]
            publishing = asyncio.gather(*(one.publish("room", text) for text in said))
            await redis.command("ACL", "SETUSER", "default", "allchannels")
            await publishing
            async with asyncio.timeout(20):
                assert [(await anext(messages)).data for _ in said] == said


async def test_message_that_is_too_large(tmp_path: Path) -> None:
    """A message that would make too large an answer is refused, and nothing is left of it."""
    options = TopicOptions(lag_bytes=64 * 1024 * 1024)
    async with site("redis", tmp_path, options) as (one, _, _):
        with pytest.raises(TooLarge):
            await one.publish("room", "x" * (MAX_PAYLOAD + 1))
        assert (await one.publish("room", "x" * MAX_PAYLOAD)).offset == 1
