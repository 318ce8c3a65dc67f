"""Two processes that share a bus, as far as a bus goes: each with its own copies, all in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic import SecretStr
from redises import RedisServer, redis_server

from realtime.bus import Bus
from realtime.engines import redis as redis_module, watch
from realtime.engines.redis import Redis
from realtime.message import Message
from realtime.topic import TopicOptions

#: What is kept of the topics of these tests, unless they say otherwise.
OPTIONS = TopicOptions(history=100)
#: How long anything may take, in seconds: far more than it does, on a busy machine too.
PATIENCE = 20.0


class Site(NamedTuple):
    """Two buses; with the engine ``memory`` they are one."""

    one: Bus
    other: Bus
    #: The Redis that they share, if they do.
    redis: RedisServer | None = None


@asynccontextmanager
async def bus_on(
    redis: RedisServer, options: TopicOptions = OPTIONS, **settings: str
) -> AsyncIterator[Bus]:
    """A bus that has its logs in a Redis; ``room`` is declared."""
    bus = Bus()
    engine = bus.engine = Redis(Redis.Settings(url=SecretStr(redis.url), **settings), bus)
    bus.declare("room", options)
    async with engine.lifespan():
        yield bus
        bus.close()


@asynccontextmanager
async def site(engine: str, directory: Path, options: TopicOptions = OPTIONS) -> AsyncIterator[Site]:
    """Two that share their topics by this engine."""
    if engine == "memory":
        bus = Bus()
        bus.declare("room", options)
        yield Site(bus, bus)
        bus.close()
        return
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_server(directory))
        one = await stack.enter_async_context(bus_on(redis, options))
        yield Site(one, await stack.enter_async_context(bus_on(redis, options)), redis)


def wait_for_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up nothing that Redis is asked: a busy machine may keep it from answering for seconds."""
    monkeypatch.setattr(redis_module, "PUBLISH_WITHIN", 60.0)
    monkeypatch.setattr(watch, "ANSWER_WITHIN", 60.0)


async def until(true: Callable[[], object], within: float = PATIENCE) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(within):
        while True:
            if true():
                return
            await asyncio.sleep(0)


def data(messages: list[Message]) -> list[object]:
    """What some messages say."""
    return [message.data for message in messages]
