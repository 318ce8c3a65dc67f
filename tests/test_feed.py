"""What comes into a topic from its log in Redis: once, in order, and with what is missing marked."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redises import RedisServer, redis_server
from sites import bus_on, data, site, until, wait_for_redis
from timing import now

from realtime.bus import Bus
from realtime.engines import entries, feed as feed_module, redis as redis_module
from realtime.engines.feed import Feed
from realtime.engines.redis import MAX_PAYLOAD, Redis
from realtime.engines.resp import Connection
from realtime.errors import TooLarge, UnknownTopic
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


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is given up, but where a test is about that."""
    wait_for_redis(monkeypatch)


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


async def test_what_another_says_is_not_ones_own(
    one: Bus, other: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message is known by who has published it, and not by its number alone."""
    connection = engine(one)._asking.connection
    assert connection is not None
    monkeypatch.setattr(connection, "_flush", lambda: None)  # what is asked does not leave
    publishing = asyncio.create_task(one.publish("room", "mine"))
    await until(lambda: feed(one).pending)
    (number,) = feed(one).pending
    engine(other)._numbers = itertools.count(number)
    await other.publish("room", "another's")
    await until(lambda: one.topic("room").head == 1)
    assert heard(one) == ["another's"]
    assert not publishing.done()
    publishing.cancel()


async def test_what_comes_when_it_is_over_comes(one: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that comes in the very turn in which it is given up comes all the same, once."""
    monkeypatch.setattr(feed_module, "SOON", 60.0)
    hearing(one).pause()
    publishing = asyncio.create_task(one.publish("room", "hi"))
    await until(lambda: [pending.position for pending in feed(one).pending.values()] not in ([], [None]))
    ((number, pending),) = feed(one).pending.items()
    assert pending.message is not None
    entry = entries.write(one.engine.node, number, pending.message)
    pending.over()
    pending.over()  # nor is it given up twice
    feed(one).pushed(b"%s\n%s" % (str(pending.position).encode(), entry))
    assert (await publishing).offset == 1
    hearing(one).resume()
    await one.publish("room", "next")
    assert heard(one) == ["hi", "next"]


async def test_what_is_taken_in_another_log_is_fetched(redis: RedisServer, one: Bus) -> None:
    """Nor is it longer where the log has begun anew, and its offsets are before those that there were."""
    await say(one, 1, 2, 3)
    epoch = one.topic("room").epoch
    hearing(one).pause()
    await redis.command("FLUSHALL")
    async with asyncio.timeout(20):
        assert (await one.publish("room", "hi")).offset == 1
    assert heard(one) == ["hi"]
    assert one.topic("room").epoch != epoch


async def test_one_look_is_enough(redis: RedisServer, one: Bus) -> None:
    """However often a look is wanted before it begins there is one, for all that was wanted."""
    await redis.command("HSET", "realtime:{room}:here", "0a.c1", '[false,{"client":"alice"},1,1]')
    looks = feed(one)
    looks.check(whole=True)
    task = looks._task
    looks.check()
    assert looks._task is task
    assert await looks.looked()
    assert here(one) == ["alice"]


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


async def spoil(redis: RedisServer, bus: Bus) -> None:
    """Have garbage in the place of the next message."""
    offset = bus.topic("room").head + 1
    await redis.command("HSET", HEAD, "offset", str(offset))
    await redis.command("XADD", LOG, f"{offset}-0", "e", "garbage")


async def test_newcomer_has_what_is_after_garbage(redis: RedisServer, one: Bus) -> None:
    """Garbage in the place of a message is a hole."""
    await say(one, 1)
    await spoil(redis, one)
    await say(one, 3, 4)
    async with bus_on(redis, ALL) as third:
        topic = await third.open("room")
        assert (data(topic.history()), topic.base, topic.head) == ([3, 4], 3, 4)


async def test_garbage_at_the_head_is_lost_once(redis: RedisServer, one: Bus) -> None:
    """Where garbage is the newest it is passed over, and the log is the same ever after."""
    await say(one, 1)
    await spoil(redis, one)
    for _ in range(2):
        assert await feed(one).looked()
    assert (one.topic("room").head, engine(one).counters["lost"]) == (2, 1)
    assert engine(one).counters["resets"] == 0


async def test_who_came_and_went_with_what_is_lost_is_known(redis: RedisServer, one: Bus) -> None:
    """Where what told who came cannot be read, as by another version, it is seen who is here."""
    await redis.command("HSET", f"{CHANNEL}:here", "0123.c1", '[true,{"client":"0123.c1"},1,1]')
    await spoil(redis, one)
    await say(one, 2)
    await until(lambda: [*one.topic("room").here] == ["0123.c1"])


async def test_page_of_garbage_is_passed_over(
    redis: RedisServer, one: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many messages are garbage, the reading comes to its end."""
    monkeypatch.setattr(feed_module, "PAGE", 3)
    await say(one, 1)
    await redis.command("HSET", HEAD, "offset", "9")
    for offset in range(2, 10):
        await redis.command("XADD", LOG, f"{offset}-0", "e", "garbage")
    async with asyncio.timeout(20):
        assert await feed(one).looked()
    assert (one.topic("room").head, engine(one).counters["lost"]) == (9, 8)


async def test_what_is_lost_at_the_end_is_lost(redis: RedisServer, one: Bus, other: Bus) -> None:
    """Where the newest are gone from the stream the next message has its place all the same."""
    hearing(other).pause()
    await say(one, 1, 2, 3)
    await redis.command("DEL", LOG)
    assert await feed(other).looked()
    assert (other.topic("room").head, engine(other).counters["lost"]) == (3, 3)


async def test_look_of_a_redis_that_forgot_the_script(redis: RedisServer, one: Bus) -> None:
    """It is told the script again."""
    await redis.command("SCRIPT", "FLUSH")
    assert await feed(one).looked()


async def test_message_of_a_clock_that_is_ahead_is_of_now(redis: RedisServer, one: Bus) -> None:
    """For a newcomer no message is of a time that is to come: none is kept for longer than the others."""
    one.wall_time = lambda: time.time() + 3600
    await say(one, 1)
    async with bus_on(redis, ALL) as third:
        topic = await third.open("room")
        assert topic.entry(1).stamp <= third.now()


async def test_look_tells_whether_it_was_possible(redis: RedisServer, one: Bus) -> None:
    """Who looks knows whether the topic has all that there is."""
    assert await feed(one).looked()
    await redis.kill()
    assert not await feed(one).looked()
    assert feed(one).refusal == ""  # Redis has not said a word
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
    await redis.command("HSET", "realtime:{room}:here", "0a.c1", '[false,{"client":"alice"},1,1]')
    assert await feed(one).looked()
    assert (heard(one), one.topic("room").epoch, feed(one).refusal) == ([1], epoch, "")
    assert here(one) == ["alice"]  # it may have been missed


async def test_look_that_another_redis_might_do(redis: RedisServer, one: Bus) -> None:
    """Where a look is refused by what has become a replica, one is connected anew."""
    await redis.command("REPLICAOF", "127.0.0.1", "1")
    assert not await feed(one).looked()
    assert "READONLY" in feed(one).refusal
    await until(lambda: engine(one)._asking.lost)
    await redis.command("REPLICAOF", "NO", "ONE")


async def test_look_that_is_wanted_during_a_look_is_made(one: Bus) -> None:
    """What is to be looked at while that is done is looked at once more, at once."""
    async with looking(one):
        feed(one).check()
    assert not feed(one).due


async def test_no_more_than_so_many_look_at_once(one: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where thousands of topics are to be looked at they take turns."""
    found, looking, most = Feed.found, 0, 0

    async def counting(*arguments: Any) -> object:
        nonlocal looking, most
        looking += 1
        most = max(most, looking)
        try:
            return await found(*arguments)
        finally:
            looking -= 1

    monkeypatch.setattr(Feed, "found", counting)
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
    gone.heard(one.topic("room").position._replace(offset=8))
    assert gone._timer is timer
    assert task is not None
    assert timer is not None
    one.forget("room")
    await asyncio.wait([task])
    assert timer.cancelled()
    assert task.cancelled()
    assert await gone.looked()  # nothing is missing there
    assert gone._task is None


async def test_topic_that_goes_keeps_nobody_waiting(redis: RedisServer, one: Bus) -> None:
    """Who waits for what Redis has of a topic that goes meanwhile is told so, and at once."""
    redis.pause()
    opening = asyncio.create_task(one.open("room/1"))
    await asyncio.sleep(0)
    one.forget("room")
    with pytest.raises(UnknownTopic):
        await opening
    redis.resume()


async def test_what_is_taken_of_a_topic_that_goes_is_done(
    one: Bus, other: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publish that Redis has taken does not wait to come into a topic that is no more."""
    monkeypatch.setattr(feed_module, "SOON", 60.0)
    hearing(one).pause()
    publishing = asyncio.create_task(one.publish("room", "hi"))
    await until(lambda: [pending.position for pending in feed(one).pending.values()] not in ([], [None]))
    one.forget("room")
    async with asyncio.timeout(20):
        assert (await publishing).offset == 1
    await until(lambda: heard(other) == ["hi"])


async def test_feed_subscribes_and_unsubscribes(redis: RedisServer, one: Bus) -> None:
    """Every topic is subscribed, by another connection again; one that goes is no more."""
    await one.open("room/1")

    async def subscribed(room: bool, first: bool) -> None:
        wanted = [CHANNEL, str(int(room)), "realtime:{room/1}", str(int(first))]
        async with asyncio.timeout(20):
            while (await redis.command("PUBSUB", "NUMSUB", *wanted[::2])).splitlines() != wanted:
                pass

    await subscribed(True, True)
    cut = hearing(one)
    cut.abort("cut")
    await until(lambda: engine(one)._hearing.connection not in (None, cut))
    await subscribed(True, True)
    one.left(one.topic("room/1"))
    await subscribed(True, False)
    one.forget("room")
    await subscribed(False, False)


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


@asynccontextmanager
async def looking(bus: Bus, meanwhile: Awaitable[object] | None = None) -> AsyncIterator[None]:
    """A look at who is here: ``meanwhile`` is done before Redis is asked, the rest when it has answered."""
    looks, found = feed(bus), feed(bus).found
    answered, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(*words: Any) -> Any:
        if meanwhile is not None:
            await meanwhile
        answer = await found(*words)
        answered.set()
        await go_on.wait()
        return answer

    looks.found = slowly  # type: ignore[method-assign,assignment]
    try:
        looks.check(whole=True)
        await answered.wait()
        yield
    finally:
        looks.found = found  # type: ignore[method-assign]
        go_on.set()
    await until(lambda: looks._task is None)


def here(bus: Bus) -> list[object]:
    """Who is here, in order."""
    return [told["client"] for told in bus.topic("room").here.values()]


async def come(bus: Bus, name: str, *, aloud: bool = True) -> None:
    """Somebody of this name comes."""
    await bus.arrive(bus.topic("room"), f"{bus.engine.node}.{name}", {"client": name}, aloud=aloud)


async def go(bus: Bus, name: str, *, aloud: bool = True) -> None:
    """The same goes."""
    await bus.depart(bus.topic("room"), f"{bus.engine.node}.{name}", {"client": name}, aloud=aloud)


@pytest.mark.parametrize("aloud", [True, False], ids=["announce", "list"])
async def test_who_came_after_the_look_is_here(one: Bus, other: Bus, aloud: bool) -> None:
    """Who came when Redis had answered, and was heard of before the answer is taken over, is here."""
    async with looking(other):
        await come(one, "alice", aloud=aloud)
        await until(lambda: here(other) == ["alice"])
    assert here(other) == ["alice"]


@pytest.mark.parametrize("aloud", [True, False], ids=["announce", "list"])
async def test_who_went_after_the_look_is_gone(one: Bus, other: Bus, aloud: bool) -> None:
    """Who went when Redis had answered, and was heard of before the answer is taken over, is gone."""
    await come(one, "alice", aloud=aloud)
    await until(lambda: here(other) == ["alice"])
    async with looking(other):
        await go(one, "alice", aloud=aloud)
        await until(lambda: here(other) == [])
    assert here(other) == []


async def test_who_came_before_the_answer_keeps_its_place(one: Bus, other: Bus) -> None:
    """What Redis has taken into account is not done again: the order is that in which they came."""

    async def before() -> None:
        await come(one, "alice", aloud=False)
        await come(one, "bob")
        await until(lambda: here(other) == ["alice", "bob"])

    async with looking(other, before()):
        pass
    assert here(other) == ["alice", "bob"]


async def test_who_came_back_before_the_answer_keeps_its_place(one: Bus, other: Bus) -> None:
    """Nor is it done again that somebody went who has come again since."""
    await come(one, "alice")

    async def before() -> None:
        await go(one, "alice")
        await come(one, "alice")
        await come(one, "bob")
        await until(lambda: here(other) == ["alice", "bob"])

    async with looking(other, before()):
        pass
    assert here(other) == ["alice", "bob"]


async def test_newcomer_knows_who_came_aloud(redis: RedisServer, one: Bus) -> None:
    """Of whom a message told that it came, one is to tell that it goes, and of no other."""
    await come(one, "alice")
    await come(one, "bob", aloud=False)
    async with bus_on(redis, ALL) as third:
        await third.open("room")
        assert feed(third).aloud == {f"{one.engine.node}.alice"}
        await redis.command("DEL", "realtime:{room}:here")
        feed(third).check(whole=True)
        assert await feed(third).looked()
        assert feed(third).aloud == set()


async def test_another_log_has_others_who_are_here(redis: RedisServer, one: Bus) -> None:
    """Where it is found in passing that the log is another, who is here is asked, too."""
    await say(one, 1)
    await redis.command("DEL", HEAD)
    await redis.command("HSET", "realtime:{room}:here", "0a.c1", '[false,{"client":"alice"},1,1]')
    assert await feed(one).looked()
    assert here(one) == ["alice"]


async def test_order_is_that_in_which_it_was_said(one: Bus, other: Bus) -> None:
    """Who comes by this process is here at once, and behind those who came before when that is heard."""
    hearing(one).pause()
    await come(other, "alice", aloud=False)
    await come(one, "bob", aloud=False)
    assert here(one) == ["bob"]
    hearing(one).resume()
    await until(lambda: here(one) == ["alice", "bob"])


async def test_who_is_said_to_be_gone_comes_back(one: Bus, other: Bus) -> None:
    """Who is here by a process that another takes for gone is here again, and all are told so."""
    await come(one, "alice")
    await until(lambda: here(other) == ["alice"])
    engine(other).members.spare(0.0)
    engine(other).members.bury({other.engine.node})
    told = ["realtime:join", "realtime:leave", "realtime:join"]
    await until(lambda: [message.event for message in other.topic("room").history()] == told)
    assert here(other) == ["alice"]


async def test_what_came_during_another_look_is_not_done_again(one: Bus, other: Bus) -> None:
    """Who came during one look, and has gone since, does not come back with the next."""
    async with looking(other):
        await come(one, "alice", aloud=False)
        await until(lambda: here(other) == ["alice"])
    await go(one, "alice", aloud=False)
    await until(lambda: here(other) == [])
    async with looking(other):
        pass
    assert here(other) == []


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


async def test_page_of_the_largest_messages_is_read(tmp_path: Path) -> None:
    """So many as are read at once, each as large as may be, make an answer that is taken."""
    options = TopicOptions(history=10, lag_bytes=64 * 1024 * 1024)
    async with site("redis", tmp_path, options) as (one, other, _):
        for _ in range(4):
            await one.publish("room", b"x" * MAX_PAYLOAD)
        assert len((await other.open("room")).history()) == 4
        assert engine(other)._asking.lost == 0
