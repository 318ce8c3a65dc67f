"""One publish: when it is done, and what it is told when it cannot be."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from redises import redis_server
from sites import bus_on, data, site, until

from realtime.engine import Once
from realtime.engines import redis as engine
from realtime.errors import Rejected, Unavailable


async def test_answer_that_is_lost(tmp_path: Path) -> None:
    """What Redis has taken is done although its answer is lost: it comes by the stream."""
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:
        await bus.publish("room", "before")
        assert isinstance(bus.engine, engine.Redis)
        silenced = asyncio.create_task(bus.engine.ask((b"CLIENT", b"REPLY", b"OFF")))
        assert (await bus.publish("room", "unanswered")).offset == 2
        silenced.cancel()


async def test_script_that_is_forgotten(tmp_path: Path) -> None:
    """Redis that has forgotten the scripts is told them again, and nothing is refused."""
    async with site("redis", tmp_path) as (one, _, redis):
        assert redis is not None
        await one.publish("room", "before")
        await redis.command("SCRIPT", "FLUSH")
        assert (await one.publish("room", "after")).offset == 2


async def test_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Redis would do too late it does not do, and that is said."""
    monkeypatch.setattr(engine, "MARGIN", 60.0)
    async with site("redis", tmp_path) as (one, _, _):
        with pytest.raises(Unavailable, match="Redis was too slow, and has not taken it"):
            await one.publish("room", "late")
        assert data(one.topic("room").history()) == []


async def test_no_answer(tmp_path: Path) -> None:
    """Where no answer comes within two seconds it is said that nobody knows."""
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:
        await bus.open("room")
        redis.pause()
        began = bus.now()
        with pytest.raises(Unavailable, match="whether it has taken this is not known"):
            await bus.publish("room", "hi")
        assert bus.now() - began < 2.5
        redis.resume()


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
        await other.publish("room", "next")
        await until(lambda: data(topic.history())[-1:] == ["next"])
