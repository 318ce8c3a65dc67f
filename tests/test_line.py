"""A line to Redis: a connection that is had again, and for how long there has been none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redises import RedisServer, redis_server
from sites import until

from realtime.engines import line as line_module
from realtime.engines.line import Line
from realtime.engines.resp import Connection, Where


@asynccontextmanager
async def kept(
    url: str,
    use: Callable[[Connection], None] | None = None,
    pushed: Callable[[list[Any]], bool | None] | None = None,
) -> AsyncIterator[Line]:
    """A line that is kept; each connection is of use, unless ``use`` says otherwise."""
    line = Line(Where.parse(url), "test", use or (lambda _: line.works()), pushed)
    keeping = asyncio.create_task(line.keep())
    try:
        yield line
    finally:
        assert not keeping.done()
        keeping.cancel()
        await asyncio.wait([keeping])
        assert keeping.cancelled()


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis that runs."""
    async with redis_server(tmp_path) as server:
        yield server


async def clients(redis: RedisServer) -> list[str]:
    """The names of who is connected."""
    listed = (await redis.command("CLIENT", "LIST")).splitlines()
    return [field[5:] for one in listed for field in one.split() if field.startswith("name=test")]


async def test_line_has_a_connection(redis: RedisServer) -> None:
    """It connects under its name, and is not away."""
    async with kept(redis.url) as line:
        connection = await line.working()
        assert (line.away, line.lost, line.hopeless) == (0.0, 0, False)
        assert connection is line.connection
        assert await clients(redis) == ["test"]


async def test_line_ends_with_its_task(redis: RedisServer) -> None:
    """When it is kept no more its connection is gone."""
    async with kept(redis.url) as line:
        await line.working()
    while await clients(redis):
        pass


async def test_line_ends_without_a_word(redis: RedisServer) -> None:
    """Nothing goes wrong when the connection ends that it has let go."""
    wrong: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    async with kept(redis.url) as line:
        await line.working()
    for _ in range(3):
        await asyncio.sleep(0)
    assert wrong == []


async def test_connection_that_is_lost_is_had_again(redis: RedisServer) -> None:
    """Another connection takes its place, and it is counted."""
    async with kept(redis.url) as line:
        first = await line.working()
        await redis.command("CLIENT", "KILL", "TYPE", "normal")
        await until(lambda: line.lost == 1 and not line.away)
        assert await line.working() is not first
        assert line.why == "Redis closed the connection"


async def test_connection_that_is_given_up_is_had_again(redis: RedisServer) -> None:
    """Who does not want it any more says why, and has the next."""
    async with kept(redis.url) as line:
        await line.working()
        line.abort("it is too old")
        await until(lambda: line.lost == 1 and not line.away)
        assert line.why == "it is too old"


async def test_line_waits_until_it_works(redis: RedisServer) -> None:
    """A connection that is not of use yet is none: it is away until somebody says otherwise."""
    used: list[Connection] = []
    async with kept(redis.url, used.append) as line:
        waiting = asyncio.create_task(line.working())
        await until(lambda: used)
        assert line.away > 0
        assert not waiting.done()
        late = asyncio.create_task(line.working())  # who comes when there is a connection waits, too
        for _ in range(3):
            await asyncio.sleep(0)
        assert not late.done()
        line.works()
        assert await waiting is await late is used[0]


async def test_line_without_a_connection_is_away_at_once() -> None:
    """There is no moment in which it is not, however coarse the clock."""
    line = Line(Where.parse("redis://127.0.0.1"), "test", lambda _: None)
    now = line._now()
    line._now = lambda: now
    assert line.away > 0


async def test_away_counts_from_the_loss(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """For how long it is away begins with the loss, and not anew with each try."""
    monkeypatch.setattr(line_module, "LATEST", 0.05)
    now = asyncio.get_running_loop().time
    async with kept(redis.url) as line:
        await line.working()
        await redis.kill()
        await until(lambda: line.away)
        seen = now() + 0.3  # it is tried several times meanwhile
        await until(lambda: now() > seen)
        assert line.away >= 0.3
        await redis.start()
        await until(lambda: not line.away)


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The longest that each wait from now on might be; none of them takes any time."""
    waits: list[float] = []

    def waiting(least: float, most: float) -> float:
        waits.append(most)
        return least

    monkeypatch.setattr("random.uniform", waiting)
    return waits


async def test_each_wait_is_longer_up_to_a_bound(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next try comes the later the more have failed, yet never later than the bound."""
    waits = recorded(monkeypatch)
    await redis.kill()
    async with kept(redis.url):
        await until(lambda: len(waits) > 8)
    assert waits[:8] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]


async def test_wait_is_short_again_after_a_connection(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that was lost is had again soon, however long it took to get."""
    monkeypatch.setattr(line_module, "LATEST", 0.01)
    await redis.kill()
    async with kept(redis.url) as line:
        await until(lambda: "refused" in line.why)
        await redis.start()
        await line.working()
        monkeypatch.setattr(line_module, "LATEST", 1000.0)
        waits = recorded(monkeypatch)
        await redis.command("CLIENT", "KILL", "TYPE", "normal")
        await until(lambda: waits)
        assert waits == [line_module.SOONEST]


async def test_wait_grows_where_no_connection_is_of_use(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis that takes connections, none of which is of use, is not asked without a pause."""
    waits = recorded(monkeypatch)
    async with kept(redis.url, lambda connection: connection.abort("of no use")):
        await until(lambda: len(waits) > 4)
    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]


async def test_wrong_password_is_hopeless(tmp_path: Path) -> None:
    """What trying again does not mend is known, and tried again all the same."""
    async with redis_server(tmp_path, "--requirepass", "right") as redis:
        url = f"redis://:wrong@127.0.0.1:{redis.port}"
        async with kept(url) as line:
            await until(lambda: line.hopeless)
            assert line.why.startswith("WRONGPASS")
            await redis.command("-a", "right", "--no-auth-warning", "CONFIG", "SET", "requirepass", "wrong")
            await until(lambda: not line.hopeless)
            assert line.away == 0


async def test_redis_that_is_not_there_is_not_hopeless(redis: RedisServer) -> None:
    """It may yet be started."""
    await redis.kill()
    async with kept(redis.url) as line:
        await until(lambda: line.why)
        assert not line.hopeless


async def test_redis_that_does_not_answer_is_given_up(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is made but never answered is no connection."""
    monkeypatch.setattr(line_module, "CONNECT_WITHIN", 0.05)
    redis.pause()
    async with kept(redis.url) as line:
        await until(lambda: line.why)
        assert line.why == "no answer for 0.05s"
        redis.resume()
        await until(lambda: not line.away)


async def test_line_ends_while_it_waits(redis: RedisServer) -> None:
    """It can be ended while it connects, or waits to."""
    redis.pause()
    async with kept(redis.url):
        await asyncio.sleep(0)
    await redis.kill()
    async with kept(redis.url) as line:
        await until(lambda: line.why)


async def test_only_one_connection_at_a_time(redis: RedisServer) -> None:
    """However often it is lost, there is one."""
    async with kept(redis.url) as line:
        for number in range(1, 21):
            await line.working()
            line.abort("again")
            await until(lambda number=number: line.lost == number and not line.away)  # type: ignore[misc]
        while len(await clients(redis)) > 1:
            pass
        assert await clients(redis) == ["test"]
