"""What a process does once a second to know whether its Redis is there, and takes what is published."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from redises import RedisServer, redis_server
from sites import bus_on, data, until
from wire import soon

from realtime.bus import Bus
from realtime.engine import Once
from realtime.engines import watch
from realtime.engines.entries import Keys
from realtime.engines.feed import PAGE
from realtime.engines.line import Line
from realtime.engines.redis import LOOKERS, Redis
from realtime.engines.resp import Connection, RedisError, Where
from realtime.errors import Unavailable
from realtime.topic import TopicOptions


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis that runs, and has a topic."""
    async with redis_server(tmp_path) as server:
        async with bus_on(server) as bus:
            await bus.publish("room", 1)
        yield server


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks much more often."""
    monkeypatch.setattr(watch, "PROBE", 0.02)
    monkeypatch.setattr(watch, "DOUBTED", 0.2)


def engine(bus: Bus) -> Redis:
    """The engine of a bus."""
    assert isinstance(bus.engine, Redis)
    return bus.engine


async def looks(bus: Bus, times: int = 3) -> None:
    """Returns when it has looked so often."""
    before = engine(bus).watch.looks
    await until(lambda: engine(bus).watch.looks >= before + times)


# What takes nothing


async def fill(redis: RedisServer) -> None:
    """Have it take nothing."""
    await redis.command("CONFIG", "SET", "maxmemory", "1")


async def test_full_redis_is_told(redis: RedisServer) -> None:
    """Nothing can be published then, and that is said as if it were away, with its own words."""
    async with bus_on(redis) as bus:
        await fill(redis)
        await until(lambda: bus.engine.trouble)
        assert bus.engine.trouble.startswith("Redis takes nothing: OOM command not allowed")
        await until(lambda: bus.notice is not None)


async def test_room_again_is_told(redis: RedisServer) -> None:
    """When it takes what is published everybody is told, and nothing has to be done."""
    async with bus_on(redis) as bus:
        await fill(redis)
        await until(lambda: bus.engine.trouble)
        await redis.command("CONFIG", "SET", "maxmemory", "0")
        await until(lambda: not bus.engine.trouble and bus.notice is None)
        await bus.publish("room", 2)


async def test_full_redis_keeps_no_process_from_starting(redis: RedisServer) -> None:
    """What it has can be read by one that is started then."""
    await fill(redis)
    async with bus_on(redis) as bus:
        assert data((await bus.open("room")).history()) == [1]


async def test_full_redis_cuts_nobody_off(redis: RedisServer) -> None:
    """A connection that is lost then is replaced by one that reads."""
    async with bus_on(redis) as bus:
        await fill(redis)
        engine(bus)._asking.abort("for a test")
        await until(lambda: engine(bus)._asking.lost and not engine(bus)._asking.away)


async def test_full_redis_buries_nobody(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who could not say for longer than a lease that it is there is not taken for gone by who is first."""
    monkeypatch.setattr(watch, "LEASE", 2.0)  # some looks take far less
    async with bus_on(redis) as one, bus_on(redis) as other:
        topic = await one.open("room")
        await one.arrive(topic, f"{one.engine.node}.c1", {"client": "c1"}, aloud=True)
        head = topic.head
        await other.open("room")
        await fill(redis)
        await until(lambda: other.engine.trouble)
        over = other.now() + 2.5
        await until(lambda: other.now() > over)
        monkeypatch.setattr(watch, "LEASE", 60.0)  # however long it takes from here
        await looks(other)
        monkeypatch.setattr(
            engine(one).watch, "synchronize", engine(other).watch.synchronize
        )  # one is late
        await redis.command("CONFIG", "SET", "maxmemory", "0")
        await until(lambda: not other.engine.trouble)
        await looks(other)
        assert topic.head == head  # nobody was told to have left


@pytest.mark.parametrize("command", ["evalsha", "hincrby", "xadd"])
async def test_user_that_may_not_publish_is_told(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """What the probe does not need, and a publish does, is seen when that is refused."""
    monkeypatch.setattr(watch, "DOUBTED", 60.0)  # until the next look, however late that is
    async with bus_on(redis) as bus:
        await redis.command("ACL", "SETUSER", "default", f"-{command}")
        with pytest.raises(Unavailable, match=r"NOPERM|user executing the script can't run this"):
            await bus.publish("room", 2)
        await until(lambda: bus.engine.trouble)
        assert "takes nothing: " in bus.engine.trouble


async def test_user_that_may_not_read_is_told(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is one that cannot be told what a topic has."""
    monkeypatch.setattr(watch, "DOUBTED", 60.0)
    async with bus_on(redis) as bus:
        await redis.command("ACL", "SETUSER", "default", "-xrange")
        opening = asyncio.create_task(bus.open("room"))
        await until(lambda: bus.engine.trouble)
        opening.cancel()
        assert "takes nothing: " in bus.engine.trouble


async def test_user_that_may_not_publish_takes_nothing_away(redis: RedisServer) -> None:
    """Whom Redis does not let write leaves the log as it is: all of it, and the place of what is next."""
    async with bus_on(redis) as bus:
        await redis.command("ACL", "SETUSER", "default", "-xadd")
        for _ in range(3):
            with pytest.raises(Unavailable):
                await bus.publish("room", 2)
        await redis.command("ACL", "SETUSER", "default", "+xadd")
        assert (await bus.publish("room", 3)).offset == 2
        async with bus_on(redis) as other:
            assert data((await other.open("room")).history()) == [1, 3]


async def test_head_that_cannot_be_takes_nothing_away(redis: RedisServer) -> None:
    """What Redis refuses for another reason than what is in the place of the log leaves that as it is."""
    async with bus_on(redis) as bus:
        await bus.open("room")
        keys = Keys.of("realtime", "room")
        await redis.command("HSET", keys.head, "offset", f"{10**15}")
        for _ in range(2):
            with pytest.raises(Unavailable, match="Invalid stream ID"):
                await bus.publish("room", 2)
        assert await redis.command("HGET", keys.head, "offset") == f"{10**15}"
        assert await redis.command("XLEN", keys.log) == "1"


async def test_log_that_is_at_its_end_begins_anew(redis: RedisServer) -> None:
    """Nothing can come after what somebody has put at the last place of all: that goes."""
    async with bus_on(redis) as bus:
        await bus.open("room")
        end = f"{2**64 - 1}-{2**64 - 1}"
        assert await redis.command("XADD", Keys.of("realtime", "room").log, end, "e", "garbage") == end
        assert (await bus.publish("room", 2)).offset == 2


async def test_user_that_may_not_remember_says_nothing_twice(redis: RedisServer) -> None:
    """What cannot be known again under its key is not put: it would be with each attempt."""
    async with bus_on(redis) as bus:
        await redis.command("ACL", "SETUSER", "default", "-hset")
        for _ in range(2):
            with pytest.raises(Unavailable):
                await bus.publish("room", 2, once=Once("k", 60.0))
        await redis.command("ACL", "SETUSER", "default", "+hset")
        assert (await bus.publish("room", 2, once=Once("k", 60.0))).offset == 2


@pytest.mark.parametrize(("command", "leaves"), [("hset", False), ("hdel", True)])
async def test_user_that_may_not_change_who_is_here_floods_nobody(
    redis: RedisServer, command: str, leaves: bool
) -> None:
    """Who comes or goes is told once, and not with each attempt to say so."""
    async with bus_on(redis) as bus:
        topic, who = await bus.open("room"), f"{bus.engine.node}.c1"
        if leaves:
            await bus.arrive(topic, who, {"client": "c1"}, aloud=True)
        head = topic.head
        await redis.command("ACL", "SETUSER", "default", f"-{command}")
        if leaves:
            await bus.depart(topic, who, {"client": "c1"}, aloud=True)
        else:
            await bus.arrive(topic, who, {"client": "c1"}, aloud=True)
        await looks(bus, 5)
        await redis.command("ACL", "SETUSER", "default", f"+{command}")
        await until(lambda: topic.head > head)
        assert (await bus.publish("room", 3)).offset == head + 2


@pytest.mark.parametrize("command", ["zadd", "zrangebyscore"])
async def test_user_that_may_not_see_who_is_there_is_told(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """What the probe needs is seen without that anybody publishes."""
    monkeypatch.setattr(watch, "DOUBTED", 60.0)
    async with bus_on(redis) as bus:
        await redis.command("ACL", "SETUSER", "default", f"-{command}")
        await until(lambda: bus.engine.trouble)
        assert f"NOPERM this user has no permissions to run the '{command}' command" in bus.engine.trouble


async def test_user_that_may_not_claim_is_told(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can have a name, that is told, too: a chat lets nobody in."""
    monkeypatch.setattr(watch, "DOUBTED", 60.0)
    async with bus_on(redis) as bus:
        await redis.command("ACL", "SETUSER", "default", "-eval")
        with pytest.raises(Unavailable, match="NOPERM"):
            await bus.claim("room", "alice", "c1")
        await until(lambda: bus.engine.trouble)


@pytest.mark.parametrize("code", ["NOPERM", "OOM", "MISCONF", "NOREPLICAS"])
async def test_publish_that_is_not_taken_is_told(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """What Redis says of a publish is believed, though it takes what the probe wants."""
    monkeypatch.setattr(watch, "DOUBTED", 60.0)
    async with bus_on(redis) as bus:
        engine(bus).refused(RedisError(f"{code} for a test"))
        await until(lambda: bus.engine.trouble)


@pytest.mark.parametrize("code", ["READONLY", "LOADING", "MASTERDOWN", "NOAUTH", "CLUSTERDOWN"])
async def test_redis_that_can_do_nothing_is_left(redis: RedisServer, code: str) -> None:
    """Where another connection may be of more use there is another."""
    async with bus_on(redis) as bus:
        engine(bus).refused(RedisError(f"{code} for a test"))
        await until(lambda: engine(bus)._asking.lost and not engine(bus)._asking.away)


async def test_redis_on_the_edge_is_told_once(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes something now and then is not restored and degraded in turn."""
    monkeypatch.setattr(watch, "DOUBTED", 60.0)
    async with bus_on(redis) as bus:
        await fill(redis)
        await until(lambda: bus.engine.trouble)
        await redis.command("CONFIG", "SET", "maxmemory", "0")
        await looks(bus, 5)
        assert bus.engine.trouble


async def test_too_few_replicas_are_told(redis: RedisServer) -> None:
    """A master that waits for a replica takes nothing either."""
    async with bus_on(redis) as bus:
        await redis.command("CONFIG", "SET", "min-replicas-to-write", "1")
        await until(lambda: bus.engine.trouble)
        assert "NOREPLICAS" in bus.engine.trouble
        with pytest.raises(Unavailable, match="NOREPLICAS"):
            await bus.publish("room", 2)


# Who is there


@pytest.mark.parametrize("slept", [6.0, 60.0])
async def test_machine_that_has_slept_buries_nobody(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, slept: float
) -> None:
    """Where the clock jumps past leases, as after a sleep, who looks first waits for the others."""
    async with bus_on(redis) as one, bus_on(redis) as other:
        topic = await one.open("room")
        await one.arrive(topic, f"{one.engine.node}.c1", {"client": "c1"}, aloud=True)
        head = topic.head
        await other.open("room")
        # The one is late: it says that the other is there.
        monkeypatch.setattr(engine(one).watch, "synchronize", engine(other).watch.synchronize)
        monkeypatch.setattr(engine(other).members, "_spared_until", 0.0)  # it has begun long ago
        monkeypatch.setattr(engine(other).watch, "_there", engine(other).watch.clock(-slept))
        await redis.command("ZADD", "realtime:nodes", "1", one.engine.node)
        await looks(other)
        assert topic.head == head


async def test_who_is_no_longer_known_buries_nobody(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Redis has lost which processes are there, who is the first to say so waits for the others."""
    async with bus_on(redis) as one, bus_on(redis) as other:
        topic = await one.open("room")
        await one.arrive(topic, f"{one.engine.node}.c1", {"client": "c1"}, aloud=True)
        head = topic.head
        await other.open("room")
        monkeypatch.setattr(
            engine(one).watch, "synchronize", engine(other).watch.synchronize
        )  # one is late
        monkeypatch.setattr(engine(other).members, "_spared_until", 0.0)  # it has begun long ago
        await redis.command("DEL", "realtime:nodes")
        await looks(other)
        assert topic.head == head


async def test_server_that_ends_while_redis_is_full_says_so(redis: RedisServer) -> None:
    """It is not among the processes any more: who has gone needs no room."""
    async with bus_on(redis) as bus:
        await fill(redis)
        await until(lambda: bus.engine.trouble)
        node = bus.engine.node
    assert node not in await redis.command("ZRANGE", "realtime:nodes", "0", "-1")


async def test_clock_is_that_of_redis(redis: RedisServer) -> None:
    """To the millisecond, whatever clock the process has."""
    async with bus_on(redis) as bus:
        bus.wall_time = lambda: 0.0
        asking, micros = await engine(bus).asking(), 0
        while micros < 500_000:
            seconds, micros = map(int, await asking.ask(b"TIME"))
        await engine(bus).watch.synchronize(asking)
        assert engine(bus).watch.clock() >= seconds * 1000 + micros // 1000


async def test_moments_are_in_order(redis: RedisServer) -> None:
    """They are by Redis's clock, and of one millisecond each is after the one before."""
    async with bus_on(redis) as bus:
        assert (engine(bus).watch.clock(), 0) < engine(bus).moment() < engine(bus).moment()


# A Redis that is far away


@asynccontextmanager
async def far(redis: RedisServer, delay: float) -> AsyncIterator[RedisServer]:
    """The same Redis, whose answers take so long, in seconds."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, asked = await asyncio.open_connection("127.0.0.1", redis.port)

        def arrive(data: bytes) -> None:
            if not writer.is_closing():
                writer.write(data)

        async def answer() -> None:
            while data := await there.read(65536):
                asyncio.get_running_loop().call_later(delay, arrive, data)

        answering = asyncio.create_task(answer())
        while data := await reader.read(65536):
            asked.write(data)
        asked.close()
        await answering
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        seen = RedisServer(redis.directory)
        seen.port = server.sockets[0].getsockname()[1]
        yield seen


async def test_far_redis_is_there(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that an answer may take is for each of them, and not for all that a look asks for."""
    monkeypatch.setattr(watch, "ANSWER_WITHIN", 0.5)
    async with far(redis, 0.3) as seen, bus_on(seen) as bus:
        looked = asyncio.Event()
        monkeypatch.setattr(engine(bus).members, "bury", lambda alive: looked.set())
        await soon(looked.wait())


def test_whoever_reads_leaves_room_for_an_answer() -> None:
    """What all lookers read at once comes in time on a line of two MiB a second, with what waits behind."""
    assert LOOKERS * PAGE / watch.ANSWER_WITHIN <= 2 * 1024 * 1024


# What the log says


async def test_thousands_of_warnings_are_a_few(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Where every topic is another log some are named, and the rest are counted."""
    async with bus_on(redis) as bus:
        for number in range(30):
            await bus.open(f"room/{number}")
        await redis.command("FLUSHALL")
        await redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: engine(bus).counters["resets"] == 30)
        await looks(bus)
    said = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert sum("it begins anew" in text for text in said) >= watch.WARNINGS
    assert (
        sum("it begins anew" in text for text in said)
        + sum(int(text.split()[2]) for text in said if "more warnings" in text)
        == 30
    )


async def test_redis_that_may_throw_topics_away_is_told(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory that is bounded with another policy than noeviction is a mistake that is seen too late."""
    await redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    await redis.command("CONFIG", "SET", "maxmemory", "100mb")
    async with bus_on(redis):
        pass
    assert "may throw topics away: set maxmemory-policy noeviction" in caplog.text


async def test_redis_that_may_throw_topics_away_is_told_once(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Another connection to the same Redis tells nothing new."""
    await redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    await redis.command("CONFIG", "SET", "maxmemory", "100mb")
    async with bus_on(redis) as bus:
        line = engine(bus)._asking
        line.abort("for a test")
        await until(lambda: line.lost and not line.away)
    assert caplog.text.count("may throw topics away") == 1


@pytest.mark.parametrize(("policy", "memory"), [("allkeys-lru", "0"), ("noeviction", "100mb")])
async def test_redis_that_throws_nothing_away_is_not_told(
    redis: RedisServer, caplog: pytest.LogCaptureFixture, policy: str, memory: str
) -> None:
    """One without a bound throws nothing away, and neither does one that refuses."""
    await redis.command("CONFIG", "SET", "maxmemory-policy", policy)
    await redis.command("CONFIG", "SET", "maxmemory", memory)
    async with bus_on(redis):
        pass
    assert "throw" not in caplog.text


# What is kept for whom


async def test_topic_that_is_used_stays(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has a topic says so, whatever other topics it has."""
    monkeypatch.setattr(watch, "TOUCH", 3)
    async with bus_on(redis) as bus:
        await bus.open("room")
        await redis.command("PEXPIRE", "realtime:{room}:head", "50000")
        await looks(bus, 6)
        assert int(await redis.command("PTTL", "realtime:{room}:head")) > 60_000


async def test_head_is_kept(redis: RedisServer) -> None:
    """The newest message stays in Redis where a process has none: it tells that the log is the same."""
    async with bus_on(redis) as bus:
        topic = await bus.open("room")
        topic.shed(topic.size)
        assert (engine(bus).oldest(topic), topic.head, topic.base) == (1, 1, 2)


@pytest.mark.parametrize(("history", "oldest"), [(0, 1), (100, 0)])
async def test_who_has_no_room_throws_away_nothing_that_is_wanted(
    redis: RedisServer, history: int, oldest: int
) -> None:
    """Neither what it has itself, nor what is history."""
    async with bus_on(redis, TopicOptions(history=history)) as bus:
        topic = await bus.open("room")
        await bus.publish("room", 2)
        assert engine(bus).oldest(topic) == 1
        bus.counters["shed"] = 1
        assert engine(bus).oldest(topic) == oldest


async def test_not_all_topics_are_looked_at_at_once(redis: RedisServer) -> None:
    """Where there are many some wait for the others."""
    async with bus_on(redis) as bus:
        for number in range(65):
            engine(bus).feed(bus.topic(f"room/{number}")).check()
        await until(engine(bus).lookers.locked)


# What is wrong, and is not to make all the rest wrong


async def away(bus: Bus, line: Line) -> Where:
    """Have a line find nobody; where it is to be again."""
    line.where, where = Where.parse("redis://127.0.0.1:1"), line.where
    line.abort("for a test")
    await until(lambda: line.away)
    return where


async def test_look_goes_on_whatever_is_wrong(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in what is done with those who are gone keeps no process from saying that it is there."""
    async with bus_on(redis) as bus:
        members = engine(bus).members
        bury = members.bury

        def failing(alive: set[str]) -> None:
            monkeypatch.setattr(members, "bury", bury)
            raise RuntimeError("a bug")

        monkeypatch.setattr(members, "bury", failing)
        await until(lambda: "a bug" in caplog.text)
        await looks(bus)


async def test_process_that_may_not_say_that_it_is_there_looks(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """What Redis refuses of a probe is no bug: the look is made all the same."""
    async with bus_on(redis) as bus:
        await redis.command("ACL", "SETUSER", "default", "-zadd")
        await looks(bus)
        await redis.command("ACL", "SETUSER", "default", "+zadd")
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("which", ["_asking", "_hearing"])
async def test_line_that_is_away_is_told_once(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, which: str
) -> None:
    """Whichever of them it is; the log has it once, and has no bug."""
    monkeypatch.setattr(watch, "TOLERATED", 0.05)
    async with bus_on(redis) as bus:
        line: Line = getattr(engine(bus), which)
        where = await away(bus, line)
        await until(lambda: bus.engine.trouble)
        await looks(bus, 5)
        line.where = where
        await until(lambda: not bus.engine.trouble)
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1
    assert not any(record.exc_info for record in caplog.records)


async def test_what_is_published_comes_without_the_subscription(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing is heard the stream is read at each look."""
    monkeypatch.setattr(watch, "TOUCH", 10**9)
    async with bus_on(redis) as one, bus_on(redis) as other:
        topic = await one.open("room")
        where = await away(one, engine(one)._hearing)
        await until(lambda: not engine(one).feed(topic).due)
        await other.publish("room", 2)
        await until(lambda: data(topic.history()) == [1, 2])
        engine(one)._hearing.where = where


async def test_who_came_while_nothing_was_heard_is_here(redis: RedisServer) -> None:
    """Of whom no message tells is known as soon as something is heard."""
    async with bus_on(redis) as one, bus_on(redis) as other:
        topic, there = await one.open("room"), await other.open("room")
        where = await away(one, engine(one)._hearing)
        await until(lambda: not engine(one).feed(topic).due)
        await other.arrive(there, f"{other.engine.node}.c1", {"client": "c1"}, aloud=False)
        engine(one)._hearing.where = where
        await until(lambda: topic.here)


async def test_look_that_was_refused_is_made_again(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Redis could not say of a topic is asked again, until it can."""
    monkeypatch.setattr(watch, "TOUCH", 10**9)
    async with bus_on(redis) as bus:
        feed = engine(bus).feed(await bus.open("room"))
        await redis.command("RENAME", "realtime:{room}:head", "kept{room}")
        await redis.command("SET", "realtime:{room}:head", "mine")
        assert not await feed.looked()
        await redis.command("RENAME", "kept{room}", "realtime:{room}:head")
        await until(lambda: not feed.due)
        assert data(bus.topic("room").history()) == [1]


async def test_connection_without_an_answer_is_none(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Redis stands still just when one has connected, that is given up, too."""
    async with bus_on(redis) as bus:
        monkeypatch.setattr(watch, "ANSWER_WITHIN", 0.1)
        line = engine(bus)._asking
        lost = line.lost
        use = line._use

        def pausing(connection: Connection) -> None:
            redis.pause()
            use(connection)

        line._use = pausing
        line.abort("for a test")
        await until(lambda: line.lost >= lost + 2)
        assert line.why == "no answer"
        line._use = use
        redis.resume()
        await until(lambda: not line.away)


async def test_connection_that_is_lost_at_once_is_no_bug(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """One that ends before it is of use is replaced, and the log has no traceback."""
    async with bus_on(redis) as bus:
        line = engine(bus)._asking
        use = line._use

        def cutting(connection: Connection) -> None:
            line._use = use
            use(connection)
            connection.abort("for a test")

        line._use = cutting
        line.abort("for a test")
        await until(lambda: line.lost == 2 and not line.away)
    assert not any(record.exc_info for record in caplog.records)


# As soon as there is a connection


@pytest.fixture
def rare(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks once, and no more."""
    monkeypatch.setattr(watch, "PROBE", 60.0)


@pytest.mark.usefixtures("rare")
async def test_what_is_due_is_looked_at_at_once(redis: RedisServer) -> None:
    """What could not be looked at, or said, before there was one is as soon as there is one."""
    async with bus_on(redis) as one, bus_on(redis) as other:
        topic, there = await one.open("room"), await other.open("room")
        feed, id = engine(one).feed(topic), f"{one.engine.node}.c1"
        await one.arrive(topic, id, {"client": "c1"}, aloud=False)
        await until(lambda: there.here)
        where = await away(one, engine(one)._asking)
        assert not await feed.looked()
        engine(one).members._leaving["room", id] = None
        del feed.own[id]
        engine(one)._asking.where = where
        await until(lambda: not feed.due and not there.here)


@pytest.mark.usefixtures("rare")
async def test_what_was_not_said_is_said_at_once(redis: RedisServer) -> None:
    """Who has left while there was none is seen off as soon as there is one, where nothing else is due."""
    async with bus_on(redis) as one, bus_on(redis) as other:
        topic, there = await one.open("room"), await other.open("room")
        id = f"{one.engine.node}.c1"
        await one.arrive(topic, id, {"client": "c1"}, aloud=False)
        await until(lambda: there.here)
        where = await away(one, engine(one)._asking)
        engine(one).members._leaving["room", id] = None
        engine(one)._asking.where = where
        await until(lambda: not there.here)


@pytest.mark.usefixtures("rare")
async def test_more_topics_than_go_into_one_command(redis: RedisServer) -> None:
    """All are heard of by the next connection, too."""
    async with bus_on(redis) as bus:
        for number in range(1001):
            bus.topic(f"room/{number}")
        line, words = engine(bus)._hearing, ("PUBSUB", "NUMSUB", "realtime:{room/1000}")
        line.abort("for a test")
        await until(lambda: line.lost and not line.away)
        async with asyncio.timeout(20):
            while not (await redis.command(*words)).endswith("1"):
                pass


@pytest.mark.usefixtures("rare")
@pytest.mark.parametrize("tolerated", [0.0, 60.0])
async def test_long_absence_spares_all(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, tolerated: float
) -> None:
    """Where Redis was away, though it is the same, others could not say either that they are there."""
    async with bus_on(redis) as bus:
        spared: list[float] = []
        monkeypatch.setattr(engine(bus).members, "spare", spared.append)
        where = await away(bus, engine(bus)._asking)
        monkeypatch.setattr(watch, "TOLERATED", tolerated)
        engine(bus)._asking.where = where
        await until(lambda: not engine(bus)._asking.away)
        assert bool(spared) is (tolerated == 0.0)


async def test_feeds_end_with_the_engine(redis: RedisServer) -> None:
    """Nothing comes into a topic of an engine that has ended."""
    bus = Bus()
    bus.engine = Redis(Redis.Settings(url=SecretStr(redis.url)), bus)
    bus.declare("room")
    async with bus.engine.lifespan():
        feed = engine(bus).feed(await bus.open("room"))
    assert feed.closed


async def test_what_is_done_beside_ends_with_the_engine(redis: RedisServer) -> None:
    """What an engine has begun is over when it has ended."""
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with bus_on(redis) as bus:
        engine(bus).background(work())
        await asyncio.sleep(0)
    assert ended.is_set()


async def test_refusal_is_logged_once(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """However often Redis says the same."""
    async with bus_on(redis) as bus:
        await fill(redis)
        for _ in range(3):
            with pytest.raises(Unavailable):
                await bus.publish("room", 2)
    assert caplog.text.count("answers: OOM") == 1
