"""One publish: when it is done, and what it is told when it cannot be."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from redises import redis_server
from sites import bus_on, data, site, until, wait_for_redis
from timing import now

from realtime.engine import Once
from realtime.engines import redis as engine, watch
from realtime.engines.feed import MAX_GIVEN_UP
from realtime.errors import Rejected, Unavailable


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is given up, but where a test is about that."""
    wait_for_redis(monkeypatch)


async def test_answer_that_is_lost(tmp_path: Path) -> None:
    """What Redis has taken is done although its answer is lost: it comes by the stream."""
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:
        await bus.publish("room", "before")
        assert isinstance(bus.engine, engine.Redis)
        silenced = asyncio.create_task(bus.engine.ask((b"CLIENT", b"REPLY", b"OFF")))
        assert (await bus.publish("room", "unanswered")).offset == 2
        silenced.cancel()


async def test_answer_that_is_lost_with_the_connection(tmp_path: Path) -> None:
    """Nor is it refused when the connection breaks: it comes when it is heard."""
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:
        await bus.open("room")
        assert isinstance(bus.engine, engine.Redis)
        asking, hearing = bus.engine._asking.connection, bus.engine._hearing.connection
        assert asking is not None
        assert hearing is not None
        hearing.pause()
        asking.tell("CLIENT", "REPLY", "OFF")
        publishing = asyncio.create_task(bus.publish("room", "hi"))
        async with asyncio.timeout(20):
            while await redis.command("HGET", "realtime:{room}:head", "offset") != "1":
                pass
        asking.abort("cut")
        await until(lambda: bus.engine._asking.lost)  # type: ignore[attr-defined]
        hearing.resume()
        assert (await publishing).offset == 1


async def test_script_that_is_forgotten(tmp_path: Path) -> None:
    """Redis that has forgotten the scripts is told them again, and nothing is refused."""
    async with site("redis", tmp_path) as (one, _, redis):
        assert redis is not None
        await one.publish("room", "before")
        await redis.command("SCRIPT", "FLUSH")
        assert (await one.publish("room", "after")).offset == 2


async def test_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Redis would do too late it does not do, and that is said."""
    monkeypatch.setattr(engine, "IN_TIME", -30.0)
    async with site("redis", tmp_path) as (one, _, _):
        with pytest.raises(Unavailable, match="Redis was too slow, and has not taken it"):
            await one.publish("room", "late")
        assert data(one.topic("room").history()) == []


async def test_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no answer comes within two seconds it is said that nobody knows."""
    monkeypatch.undo()  # here it is waited no longer than elsewhere,
    monkeypatch.setattr(watch, "ANSWER_WITHIN", 60.0)  # but for the connection
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:
        await bus.open("room")
        redis.pause()
        began = now()
        with pytest.raises(Unavailable, match="whether it has taken this is not known"):
            await bus.publish("room", "hi")
        assert now() - began < 2.5
        wrong: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
        redis.resume()
        await bus.publish("room", "next")
        assert wrong == []  # the answer that comes is of no use any more


async def test_nothing_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not even be asked of Redis in its time is not taken, and that is known."""
    monkeypatch.setattr(engine, "PUBLISH_WITHIN", 0.3)
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:
        await bus.open("room")
        await redis.kill()
        assert isinstance(bus.engine, engine.Redis)
        line = bus.engine._asking
        await until(lambda: line.away)
        with pytest.raises(Unavailable, match=r": it has not taken this$"):
            await bus.publish("room", "hi")


async def test_known_key_with_another_message(tmp_path: Path) -> None:
    """A key that came with another message is refused by who did not publish it."""
    async with site("redis", tmp_path) as (one, other, _):
        await one.publish("room", "hi", once=Once("k", 60.0, "hi"))
        with pytest.raises(Rejected, match="came with another message"):
            await other.publish("room", "ho", once=Once("k", 60.0, "ho"))


async def test_topic_that_goes_meanwhile(tmp_path: Path) -> None:
    """What is taken is done, although nobody has the topic any more."""
    async with site("redis", tmp_path) as (one, _, redis):
        assert redis is not None
        await one.publish("room", "before")
        publishing = asyncio.create_task(one.publish("room", "hi"))
        await asyncio.sleep(0)
        one.forget("room")
        async with asyncio.timeout(20):
            assert (await publishing).offset == 2


async def test_who_gives_up_leaves_nothing(tmp_path: Path) -> None:
    """A publisher that is cancelled is forgotten; its message comes or not, and the next does."""
    async with site("redis", tmp_path) as (one, other, redis):
        assert redis is not None
        topic = await one.open("room")
        publishing = asyncio.create_task(one.publish("room", "hi"))
        await asyncio.sleep(0)
        publishing.cancel()
        await asyncio.wait([publishing])
        assert isinstance(one.engine, engine.Redis)
        assert not one.engine.feed(topic).given_up  # it is for everybody
        await other.publish("room", "next")
        await until(lambda: data(topic.history())[-1:] == ["next"])


async def test_who_is_excluded_from_what_is_given_up(tmp_path: Path) -> None:
    """Whom a message is not for does not get it either when nobody waits for it any more."""
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:
        topic, somebody = await bus.open("room"), object()
        redis.pause()
        publishing = asyncio.create_task(bus.publish("room", "hi", exclude=somebody))
        assert isinstance(bus.engine, engine.Redis)
        feed = bus.engine.feed(topic)
        await until(lambda: feed.pending)
        await asyncio.sleep(0)  # it is sent
        publishing.cancel()
        redis.resume()
        await until(lambda: topic.head == 1)
        assert topic.history()[0].exclude is somebody
        assert not feed.given_up


async def test_what_is_given_up_is_not_kept_for_ever(tmp_path: Path) -> None:
    """Of what was never taken no more is remembered than so much, the newest."""
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:
        assert isinstance(bus.engine, engine.Redis)
        feed = bus.engine.feed(await bus.open("room"))
        redis.pause()
        said = [
            asyncio.create_task(bus.publish("room", "hi", exclude=bus)) for _ in range(2 * MAX_GIVEN_UP)
        ]
        await until(lambda: len(feed.pending) == len(said))
        numbers = list(feed.pending)
        for publishing in said:
            publishing.cancel()
        await asyncio.wait(said)
        assert list(feed.given_up) == numbers[-MAX_GIVEN_UP:]


async def test_who_is_excluded_when_the_log_begins_anew(tmp_path: Path) -> None:
    """Whom the first message of another log is not for is known, too."""
    async with site("redis", tmp_path) as (one, _, redis):
        await one.publish("room", "before")
        assert redis is not None
        await redis.command("FLUSHALL")
        position = await one.publish("room", "hi", exclude=one)
        (message,) = one.topic("room").history()
        assert (message.id, message.exclude) == (position, one)
