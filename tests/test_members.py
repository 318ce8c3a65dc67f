"""Who is here by which process: what cannot be said is said later, and nobody is here for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redises import RedisServer, redis_server
from sites import bus_on, until

from realtime.bus import Bus
from realtime.engines import members as members_module, redis as engine, watch
from realtime.engines.members import Members, _beginning
from realtime.engines.resp import Where
from realtime.errors import Unavailable
from realtime.message import Message
from realtime.topic import Topic

ALICE = {"client": "alice"}


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis is looked at more often than it is elsewhere, and a process is given up sooner."""
    for name, seconds in {"PROBE": 0.05, "ANSWER_WITHIN": 1.0, "TOLERATED": 0.2, "LEASE": 1.0}.items():
        monkeypatch.setattr(watch, name, seconds)


@asynccontextmanager
async def two(directory: Path) -> AsyncIterator[tuple[Bus, Topic, Bus, Topic, RedisServer]]:
    """Two processes that have the topic ``room``."""
    async with redis_server(directory) as redis, bus_on(redis) as one, bus_on(redis) as other:
        yield one, await one.open("room"), other, await other.open("room"), redis


def members_of(bus: Bus) -> Members:
    """What a process knows of who is here."""
    assert isinstance(bus.engine, engine.Redis)
    return bus.engine.members


def node(bus: Bus) -> str:
    """The id of a client of a process."""
    return f"{bus.engine.node}.c1"


@pytest.mark.parametrize("aloud", [True, False], ids=["announce", "list"])
async def test_process_that_is_gone(tmp_path: Path, aloud: bool) -> None:
    """Who was here by a process that has ended without a word is gone, and is told of once."""
    async with redis_server(tmp_path) as redis, bus_on(redis) as one, bus_on(redis) as other:
        topic, there = await one.open("room"), await other.open("room")
        async with bus_on(redis) as third:
            await third.arrive(await third.open("room"), node(third), ALICE, aloud=aloud)
            await until(lambda: topic.here and there.here)
            third.engine.node = "0"  # it says no more that it is there
        await until(lambda: not topic.here and not there.here)
        assert (await one.publish("room", "next")).offset == (3 if aloud else 1)


async def test_nobody_is_gone_who_is_there(tmp_path: Path) -> None:
    """A process that is there keeps its people, however long that takes."""
    async with two(tmp_path) as (one, topic, _, there, _):
        await one.arrive(topic, node(one), ALICE, aloud=True)
        over = one.now() + 2.0
        await until(lambda: one.now() > over)
        assert list(there.here.values()) == [ALICE]


@pytest.mark.parametrize("aloud", [True, False], ids=["announce", "list"])
async def test_who_comes_while_redis_is_away(tmp_path: Path, aloud: bool) -> None:
    """Who comes while nothing can be said is here for all when it can be."""
    async with two(tmp_path) as (one, topic, _, there, redis):
        await redis.stop()
        await until(lambda: one.engine.trouble)
        await one.arrive(topic, node(one), ALICE, aloud=aloud)
        assert not there.here
        await redis.start()
        await until(lambda: list(there.here.values()) == [ALICE])


@pytest.mark.parametrize("aloud", [True, False], ids=["announce", "list"])
async def test_who_goes_while_redis_is_away(tmp_path: Path, aloud: bool) -> None:
    """Who goes while nothing can be said is gone for all when it can be."""
    async with two(tmp_path) as (one, topic, _, there, redis):
        await one.arrive(topic, node(one), ALICE, aloud=aloud)
        await until(lambda: there.here)
        redis.pause()
        await until(lambda: one.engine.trouble)
        await one.depart(topic, node(one), ALICE, aloud=aloud)
        redis.resume()
        await until(lambda: not there.here)


async def full(redis: RedisServer, bus: Bus) -> None:
    """Have Redis take nothing, and the process of a bus know it."""
    await redis.command("CONFIG", "SET", "maxmemory", "1")
    await until(lambda: bus.engine.trouble)


async def put_during_looks(bus: Bus, looks: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often Redis is asked to put something while it is looked at so often."""
    assert isinstance(bus.engine, engine.Redis)
    put, counted, looking = bus.engine.put, 0, bus.engine.watch

    async def counting(*words: Any, **more: Any) -> Any:
        nonlocal counted
        counted += 1
        return await put(*words, **more)

    with monkeypatch.context() as patched:
        patched.setattr(bus.engine, "put", counting)
        until_then = looking.looks + looks
        await until(lambda: looking.looks >= until_then)
    return counted


async def test_who_comes_while_redis_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That somebody is here is tried once in a look, and not all the time, until Redis takes it."""
    async with two(tmp_path) as (one, topic, _, there, redis):
        await full(redis, one)
        await one.arrive(topic, node(one), ALICE, aloud=True)
        assert 0 < await put_during_looks(one, 5, monkeypatch) <= 6
        assert not there.here
        await redis.command("CONFIG", "SET", "maxmemory", "0")
        await until(lambda: list(there.here.values()) == [ALICE])


async def test_many_go_while_redis_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many who have gone some are tried at a look; all are gone when Redis takes it, in one of these."""
    monkeypatch.setattr(members_module, "AT_ONCE", 3)
    async with two(tmp_path) as (one, topic, _, there, redis):
        ids = [f"{one.engine.node}.c{number}" for number in range(10)]
        for id in ids:
            await one.arrive(topic, id, {"client": id}, aloud=False)
        await full(redis, one)
        for id in ids:
            await one.depart(topic, id, {"client": id}, aloud=True)
        assert 0 < await put_during_looks(one, 5, monkeypatch) <= 18
        assert len(there.here) == 10
        await redis.command("CONFIG", "SET", "maxmemory", "0")
        await until(lambda: not there.here and not members_of(one)._leaving)


async def test_redis_that_has_lost_everything(tmp_path: Path) -> None:
    """Who is here is here again when Redis has forgotten everybody."""
    async with two(tmp_path) as (one, topic, other, there, redis):
        await one.arrive(topic, node(one), ALICE, aloud=True)
        await other.arrive(there, node(other), {"client": "bob"}, aloud=False)
        await redis.kill()
        await redis.start()
        for one_of in (topic, there):
            await until(lambda one_of=one_of: len(one_of.here) == 2)  # type: ignore[misc]


async def test_who_never_was_here(tmp_path: Path) -> None:
    """What Redis has of somebody who is not here by the process that it names is taken back."""
    async with two(tmp_path) as (one, topic, _, there, redis):
        await redis.command("HSET", "realtime:{room}:here", node(one), '[false,{"client":"ghost"},1,1]')
        await redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        async with asyncio.timeout(20):
            while await redis.command("HLEN", "realtime:{room}:here") != "0":
                pass
        await until(lambda: not there.here and not topic.here)


@pytest.mark.parametrize("value", ["x", "[]", "{}", "[true]", "[true,1]", "[1,2,3]"])
async def test_what_is_no_member(tmp_path: Path, value: str) -> None:
    """What else is in the hash of those who are here is nobody."""
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:
        await redis.command("HSET", "realtime:{room}:here", "x.c1", value)
        assert (await bus.open("room")).here == {}


async def test_name_that_is_given_back_while_redis_is_away(tmp_path: Path) -> None:
    """What is released while nothing can be said can be had when it can be."""
    async with two(tmp_path) as (one, _, other, _, redis):
        await one.claim("room", "alice", "1.a")
        redis.pause()
        await until(lambda: one.engine.trouble and other.engine.trouble)
        await one.release("room", "alice", "1.a")
        redis.resume()
        await until(lambda: not other.engine.trouble)
        async with asyncio.timeout(20):
            while await other.holder("room", "alice") is not None:  # noqa: ASYNC110  # nobody tells us
                await asyncio.sleep(0)


@pytest.mark.parametrize("value", ["x", "7", "[]", '["a"]', "null"])
async def test_value_that_is_no_holder(tmp_path: Path, value: str) -> None:
    """What else stands where a holder would is nobody."""
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:
        await redis.command("HSET", "realtime:{room}:names", "alice", value)
        assert await bus.holder("room", "alice") is None


async def test_who_goes_when_the_topic_goes(tmp_path: Path) -> None:
    """Who goes while nothing can be said is gone for all, though the process has the topic no more."""
    async with redis_server(tmp_path) as redis, bus_on(redis) as one, bus_on(redis) as other:
        topic, there = await one.open("room/1"), await other.open("room/1")
        topic.members["alice"] = there.members["bob"] = None  # so it does not go
        await one.arrive(topic, node(one), ALICE, aloud=False)
        await until(lambda: there.here)
        redis.pause()
        await until(lambda: one.engine.trouble)
        del topic.members["alice"]
        await one.depart(topic, node(one), ALICE, aloud=False)
        one.left(topic)
        assert one.find("room/1") is None
        redis.resume()
        await until(lambda: not there.here)


async def test_who_goes_from_a_channel_that_is_no_more(tmp_path: Path) -> None:
    """Who goes while nothing can be said, from a channel that is no more, is not spoken of for ever."""
    async with two(tmp_path) as (one, topic, _, _, redis):
        await one.arrive(topic, node(one), ALICE, aloud=False)
        redis.pause()
        await until(lambda: one.engine.trouble)
        await one.depart(topic, node(one), ALICE, aloud=False)
        one.forget("room")
        redis.resume()
        await until(lambda: not members_of(one)._leaving)


async def test_look_that_is_wanted_during_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes in the middle of a look at who is here is found, where another is wanted then."""
    async with two(tmp_path) as (one, topic, _, _, redis):
        assert isinstance(one.engine, engine.Redis)
        feed = one.engine.feed(topic)
        found = feed.found
        looked, go_on = asyncio.Event(), asyncio.Event()

        async def slowly(*words: Any) -> Any:
            answer = await found(*words)
            looked.set()
            await go_on.wait()
            return answer

        monkeypatch.setattr(feed, "found", slowly)
        feed.check(whole=True)
        await looked.wait()
        await redis.command("HSET", "realtime:{room}:here", "0.c1", '[false,{"client":"alice"},1,1]')
        monkeypatch.setattr(members_of(one), "bury", lambda alive: None)
        feed.check(whole=True)
        go_on.set()
        await until(lambda: list(topic.here.values()) == [ALICE])


async def test_name_that_redis_has_forgotten(tmp_path: Path) -> None:
    """Who has a name has it still when Redis has forgotten everything; who has given it back has not."""
    async with two(tmp_path) as (one, topic, other, _, redis):
        await one.claim("room", "alice", node(one))
        await one.claim("room", "bob", node(one))
        await one.release("room", "bob", node(one))
        await redis.command("FLUSHALL")
        await one.engine.catch_up(topic)

        async def holder(name: str) -> str:
            return (await other.claim("room", name, node(other))).id

        async with asyncio.timeout(20):
            while await other.holder("room", "alice") is None:  # noqa: ASYNC110  # it has no event of its own
                await asyncio.sleep(0)
        assert await holder("alice") == node(one)
        assert await holder("bob") == node(other)


async def test_name_that_another_was_quicker_to_take(tmp_path: Path) -> None:
    """Who has lost a name, as Redis has forgotten it, goes when another has it: only one has it."""
    async with two(tmp_path) as (one, topic, other, _, redis):
        asked: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()

        async def respond(name: str, request: dict[str, Any]) -> None:
            asked.put_nowait((name, request))

        one.respond = other.respond = respond
        await one.claim("room", "alice", node(one))
        await redis.command("DEL", "realtime:{room}:names")
        await other.claim("room", "alice", node(other))
        assert isinstance(one.engine, engine.Redis)
        one.engine.feed(topic).check(whole=True)
        async with asyncio.timeout(20):
            name, request = await asked.get()
        assert (name, request["do"], request["id"], request["code"]) == ("room", "kick", node(one), 1013)
        assert await one.holder("room", "alice") == (node(other), "")


async def test_processes_are_spared_after_a_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is gone because Redis has begun anew, however soon, and knows of no process."""
    async with two(tmp_path) as (one, topic, other, there, redis):
        await other.arrive(there, node(other), ALICE, aloud=True)
        await until(lambda: topic.here)
        spared: list[float] = []
        monkeypatch.setattr(members_of(one), "spare", spared.append)
        await redis.kill()
        await redis.start()
        await until(lambda: spared)
        assert {*spared} == {watch.LEASE}


async def test_claim_that_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim whose answer does not come in time is nobody's, though Redis has taken it."""
    monkeypatch.setattr(watch, "ANSWER_WITHIN", 60.0)
    async with two(tmp_path) as (one, _, other, _, redis):
        redis.pause()
        with pytest.raises(Unavailable):
            await one.claim("room", "alice", node(one))
        redis.resume()
        id = ""
        async with asyncio.timeout(20):
            while id != node(other):
                id = (await other.claim("room", "alice", node(other))).id


async def test_claim_that_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that is made again, after its answer did not come in time, is one's own."""
    monkeypatch.setattr(watch, "ANSWER_WITHIN", 60.0)
    async with two(tmp_path) as (one, topic, other, _, redis):
        redis.pause()
        with pytest.raises(Unavailable):
            await one.claim("room", "alice", node(one))
        redis.resume()
        await one.claim("room", "alice", node(one))
        members_of(one).say_who_left()
        await one.engine.catch_up(topic)
        assert await other.holder("room", "alice") == (node(one), "")


async def test_nobody_is_buried_who_is_spared(tmp_path: Path) -> None:
    """While processes are spared nobody is gone, whatever Redis knows of them; then who is gone is."""
    async with two(tmp_path) as (one, topic, other, there, _):
        await other.arrive(there, node(other), ALICE, aloud=True)
        await until(lambda: topic.here)
        members_of(one).spare(60.0)
        members_of(one).bury(set())
        assert not members_of(one)._leaving
        members_of(one).spare(0.0)
        members_of(one).bury({one.engine.node, other.engine.node})
        assert not members_of(one)._leaving
        members_of(one).bury({one.engine.node})
        (said,) = members_of(one)._leaving.values()
        members_of(one).bury({one.engine.node})
        assert list(members_of(one)._leaving) == [("room", node(other))]
        assert members_of(one)._leaving["room", node(other)] is said  # as it was the first time


async def test_two_who_claim_what_is_garbage(tmp_path: Path) -> None:
    """Where no holder stands one of all who claim it at once has the name, and all are told who."""
    async with two(tmp_path) as (one, _, other, _, redis):
        await redis.command("HSET", "realtime:{room}:names", "alice", "garbage")
        claims = [bus.claim("room", "alice", f"{number}.c") for number in range(5) for bus in (one, other)]
        async with asyncio.timeout(20):
            assert len(set(await asyncio.gather(*claims))) == 1


async def looked(bus: Bus, topic: Topic) -> None:
    """Look who is here, and do what follows from it."""
    assert isinstance(bus.engine, engine.Redis)
    feed = bus.engine.feed(topic)
    feed.check(whole=True)
    assert await feed.looked()
    await asyncio.gather(*bus.engine._tasks)  # raises what went wrong


async def test_name_that_another_has_meanwhile(tmp_path: Path) -> None:
    """Who had a name before Redis forgot it does not take it from who has it since."""
    async with two(tmp_path) as (one, topic, other, _, redis):
        await one.claim("room", "alice", node(one))
        await redis.command("HSET", "realtime:{room}:names", "alice", f'["{node(other)}",""]')
        await looked(one, topic)
        assert await other.holder("room", "alice") == (node(other), "")


async def test_name_that_another_has_is_not_claimed_again(tmp_path: Path) -> None:
    """Who was told that another has a name does not have it when that one is gone."""
    async with two(tmp_path) as (one, topic, other, _, _):
        await other.claim("room", "alice", node(other))
        await one.claim("room", "alice", node(one))
        await other.release("room", "alice", node(other))
        await looked(one, topic)
        assert await other.holder("room", "alice") is None


async def test_name_that_is_given_back_during_a_look(tmp_path: Path) -> None:
    """Who gives a name back while it is about to be claimed again has it no more."""
    async with two(tmp_path) as (one, topic, other, _, _):
        assert isinstance(one.engine, engine.Redis)
        await one.claim("room", "alice", node(one))
        members_of(one).reconcile(one.engine.feed(topic))
        await one.release("room", "alice", node(one))
        await looked(one, topic)
        assert await other.holder("room", "alice") is None


async def test_name_that_another_client_gives_back(tmp_path: Path) -> None:
    """Only who has a name gives it back: Redis that forgets is told of it again all the same."""
    async with two(tmp_path) as (one, topic, other, _, redis):
        await one.claim("room", "alice", node(one))
        await one.release("room", "alice", f"{one.engine.node}.c2")
        await redis.command("DEL", "realtime:{room}:names")
        await looked(one, topic)
        assert await other.holder("room", "alice") == (node(one), "")


async def test_who_has_gone_does_not_come_back(tmp_path: Path) -> None:
    """Who is gone for good is not said to be here by any later look."""
    async with two(tmp_path) as (one, topic, _, there, _):
        await one.arrive(topic, node(one), ALICE, aloud=False)
        await one.depart(topic, node(one), ALICE, aloud=False)
        await looked(one, topic)
        assert not topic.here
        await until(lambda: not there.here)


async def test_who_comes_quietly_goes_quietly(tmp_path: Path) -> None:
    """Of whom no message told that it came none tells that it goes, by whomever it is seen off."""
    async with two(tmp_path) as (one, topic, other, there, _):
        await one.arrive(topic, node(one), ALICE, aloud=False)
        await until(lambda: there.here)
        await looked(other, there)
        members_of(other).spare(0.0)
        members_of(other).bury({other.engine.node})
        assert list(members_of(other)._leaving.values()) == [None]


@pytest.mark.parametrize("aloud", [True, False], ids=["announce", "list"])
async def test_who_has_come_is_here_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aloud: bool
) -> None:
    """When it is done who has come is here, and who has gone is not, though nothing is heard of it yet."""
    monkeypatch.setattr(engine, "PUBLISH_WITHIN", 60.0)
    async with asyncio.timeout(20), two(tmp_path) as (one, topic, _, _, _):
        assert isinstance(one.engine, engine.Redis)
        assert one.engine._hearing.connection is not None
        one.engine._hearing.connection.pause()
        await one.arrive(topic, node(one), ALICE, aloud=aloud)
        assert list(topic.here.values()) == [ALICE]
        await one.depart(topic, node(one), ALICE, aloud=aloud)
        assert list(topic.here.values()) == []
        assert (members_of(one)._leaving, one.engine.feed(topic).aloud) == ({}, set())


async def test_who_goes_after_the_topic(tmp_path: Path) -> None:
    """Who goes when the process has the topic no more is gone for all, as soon as there is room for it."""
    async with redis_server(tmp_path) as redis, bus_on(redis) as one, bus_on(redis) as other:
        topic, there = await one.open("room/1"), await other.open("room/1")
        there.members["bob"] = None  # so it does not go
        await one.arrive(topic, node(one), ALICE, aloud=False)
        await until(lambda: there.here)
        one.left(topic)
        assert one.find("room/1") is None
        one.limit(0, 1_000_000)
        await one.depart(topic, node(one), ALICE, aloud=False)
        assert list(members_of(one)._leaving) == [("room/1", node(one))]
        one.limit(10, 1_000_000)
        await until(lambda: not there.here)


async def test_what_was_said_meanwhile_is_not_said_again(tmp_path: Path) -> None:
    """Where it has been said who left, before it was to be said again, nothing comes of it."""
    async with two(tmp_path) as (one, topic, _, there, _):
        await one.arrive(topic, node(one), ALICE, aloud=True)
        await one.depart(topic, node(one), ALICE, aloud=True)
        await members_of(one)._depart("room", node(one))
        assert topic.head == 2
        await until(lambda: there.head == 2)


async def test_process_that_ends_is_none_at_once(tmp_path: Path) -> None:
    """One that ends in order says so: nobody waits until its lease is over."""
    async with redis_server(tmp_path) as redis:
        async with bus_on(redis) as bus:
            name = bus.engine.node
            assert await redis.command("ZSCORE", "realtime:nodes", name)
        assert await redis.command("ZSCORE", "realtime:nodes", name) == ""


async def test_processes_that_are_long_gone_are_forgotten(tmp_path: Path) -> None:
    """What processes there were is not kept for ever, and what processes there are is."""
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:
        await redis.command("ZADD", "realtime:nodes", "1", "0a")
        async with asyncio.timeout(20):
            while await redis.command("ZRANGE", "realtime:nodes", "0", "-1") != bus.engine.node:
                pass
        assert int(await redis.command("PTTL", "realtime:nodes")) > 60_000


async def test_who_comes_while_nothing_can_be_asked(tmp_path: Path) -> None:
    """Who comes while only that connection is away is here for all when it is back."""
    async with two(tmp_path) as (one, topic, _, there, _):
        assert isinstance(one.engine, engine.Redis)
        line = one.engine._asking
        line.where, where = Where.parse("redis://127.0.0.1:1"), line.where
        line.abort("cut")
        await until(lambda: line.away > watch.TOLERATED)
        await one.arrive(topic, node(one), ALICE, aloud=False)
        line.where = where
        await until(lambda: list(there.here.values()) == [ALICE])


async def test_who_comes_while_redis_is_full(tmp_path: Path) -> None:
    """Who comes while Redis takes nothing is here for all when it does."""
    async with two(tmp_path) as (one, topic, _, there, redis):
        await redis.command("CONFIG", "SET", "maxmemory", "1")
        await one.arrive(topic, node(one), ALICE, aloud=True)
        await redis.command("CONFIG", "SET", "maxmemory", "0")
        await until(lambda: list(there.here.values()) == [ALICE])


async def test_who_is_here_by_another_process_is_its_own_affair(tmp_path: Path) -> None:
    """Who looks sees off nobody who is here by another process."""
    async with two(tmp_path) as (one, topic, other, there, _):
        await other.arrive(there, node(other), ALICE, aloud=True)
        await until(lambda: topic.here)
        await looked(one, topic)
        assert (list(topic.here.values()), topic.head) == ([ALICE], 1)


async def test_who_left_is_told_as_it_was(tmp_path: Path) -> None:
    """That somebody left, which could not be said yet, is said as it was, and not as a look finds it."""
    async with two(tmp_path) as (one, topic, _, _, _):
        assert isinstance(one.engine, engine.Redis)
        await one.arrive(topic, node(one), ALICE, aloud=True)
        one.engine.feed(topic).own.clear()
        left = Message.of(ALICE, event="realtime:leave", time=1.0)
        members_of(one)._leaving["room", node(one)] = left
        await looked(one, topic)
        await until(lambda: topic.head == 2)
        assert topic.history()[-1].time == 1.0


async def test_who_has_gone_meanwhile_does_not_come_back(tmp_path: Path) -> None:
    """Who goes while it is about to be said to be here again is not said to be."""
    async with two(tmp_path) as (one, topic, _, _, redis):
        assert isinstance(one.engine, engine.Redis)
        await one.arrive(topic, node(one), ALICE, aloud=True)
        members_of(one).come_back(one.engine.feed(topic), node(one))
        work = list(one.engine._tasks)
        await one.depart(topic, node(one), ALICE, aloud=True)
        await asyncio.gather(*work)  # raises what went wrong
        assert await redis.command("HLEN", "realtime:{room}:here") == "0"


async def test_name_that_one_has_is_not_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim of what one has already, whose answer does not come in time, takes nothing away."""
    async with two(tmp_path) as (one, topic, _, _, redis):
        assert isinstance(one.engine, engine.Redis)
        await one.claim("room", "alice", node(one))
        monkeypatch.setattr(engine, "PUBLISH_WITHIN", 0.1)
        redis.pause()
        with pytest.raises(Unavailable):
            await one.claim("room", "alice", node(one))
        await members_of(one)._claim_again(one.engine.feed(topic), "alice")  # nor can that be said
        redis.resume()
        assert not members_of(one)._releasing


async def test_claim_of_who_has_left_meanwhile(tmp_path: Path) -> None:
    """A claim that is not waited for any more is nobody's, though Redis has taken it."""
    async with two(tmp_path) as (one, _, other, _, _):
        assert isinstance(one.engine, engine.Redis)
        claiming = asyncio.create_task(one.claim("room", "alice", node(one)))
        await asyncio.sleep(0)  # it is asked
        claiming.cancel()
        await asyncio.wait([claiming])
        assert claiming.cancelled()
        assert members_of(one)._releasing
        await until(lambda: not members_of(one)._releasing)
        assert await other.holder("room", "alice") is None


async def test_name_that_is_claimed_while_it_is_to_be_released(tmp_path: Path) -> None:
    """Who claims a name that was about to be given back has it."""
    async with two(tmp_path) as (one, _, other, _, _):
        assert isinstance(one.engine, engine.Redis)
        members_of(one)._releasing[(b"realtime:{room}:names", "alice", _beginning(node(one)))] = None
        members_of(one).say_who_left()
        await asyncio.sleep(0)  # it is about to be said
        work = list(one.engine._tasks)
        await one.claim("room", "alice", node(one))
        await asyncio.wait(work)
        assert await other.holder("room", "alice") == (node(one), "")


async def test_name_that_nobody_has_is_not_claimed_again(tmp_path: Path) -> None:
    """What has been given back already is given back, and no more is to be done."""
    async with two(tmp_path) as (one, topic, other, _, _):
        assert isinstance(one.engine, engine.Redis)
        await one.claim("room", "alice", node(one))
        await one.release("room", "alice", node(one))
        assert not members_of(one)._releasing
        await members_of(one)._claim_again(one.engine.feed(topic), "alice")
        assert await other.holder("room", "alice") is None


async def test_who_comes_quietly_as_the_connection_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what no message tells it is known at once that it may be lost, and it is said again."""
    monkeypatch.setattr(engine, "PUBLISH_WITHIN", 60.0)
    async with asyncio.timeout(20), two(tmp_path) as (one, topic, _, there, _):
        assert isinstance(one.engine, engine.Redis)
        connection = one.engine._asking.connection
        assert connection is not None
        monkeypatch.setattr(connection, "_flush", lambda: None)  # what is asked does not leave
        arriving = asyncio.create_task(one.arrive(topic, node(one), ALICE, aloud=False))
        await until(lambda: one.engine.feed(topic).pending)  # type: ignore[attr-defined]
        connection.abort("cut")
        await arriving
        await until(lambda: there.here)


async def test_full_redis_is_not_asked_without_a_pause(tmp_path: Path) -> None:
    """Who comes while Redis takes nothing is said to be here once a look, and not as fast as it answers."""
    async with two(tmp_path) as (one, topic, _, _, redis):
        await redis.command("CONFIG", "SET", "maxmemory", "1")
        await one.arrive(topic, node(one), ALICE, aloud=True)
        await redis.command("CONFIG", "RESETSTAT")
        assert isinstance(one.engine, engine.Redis)
        looks = one.engine.watch.looks
        await until(lambda: one.engine.watch.looks > looks + 5)  # type: ignore[attr-defined]
        asked = (await redis.command("INFO", "commandstats")).partition("cmdstat_evalsha:calls=")[2]
        # It may take long to ask how often: by then there were more looks.
        assert int(asked.partition(",")[0] or 0) < 16 * (one.engine.watch.looks - looks)


async def test_name_that_is_claimed_again_goes_by_itself(tmp_path: Path) -> None:
    """What Redis is told again, after it has forgotten it, is not there for ever."""
    async with two(tmp_path) as (one, topic, _, _, redis):
        await one.claim("room", "alice", node(one))
        await redis.command("DEL", "realtime:{room}:names")
        await looked(one, topic)
        assert int(await redis.command("PTTL", "realtime:{room}:names")) > 0
