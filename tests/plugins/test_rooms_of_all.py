"""Rooms that span processes: two servers with one Redis are one room for those who are in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redises import RedisServer, redis_server

from realtime.engines.redis import Redis
from realtime.testing import Harness, Peer, Serve

CONFIG = """
bus: {{engine: redis, url: "{url}"}}
channels:
  lobby: {{plugin: chat, path: /chat, history: 100, allow: {{kick: anyone}}}}
  clock: {{plugin: clock, path: /events, interval: {interval}}}
  mine: {{plugin: chat, path: /mine, names: identity}}
"""
TOKENS = {
    "tokens.py": """
        from realtime import Identity, hookimpl

        @hookimpl
        def authenticate(request):
            token = request.query.get("token")
            return Identity(name=token) if token else None
    """
}


@asynccontextmanager
async def two(
    serve: Serve, directory: Path, interval: str = "1h", more: str = ""
) -> AsyncIterator[tuple[Harness, Harness, RedisServer]]:
    """Two servers with one Redis."""
    async with redis_server(directory) as redis:
        config = CONFIG.format(url=redis.url, interval=interval) + more
        files = TOKENS if more else {}
        async with serve(config, files) as one, serve(config, files) as other:
            yield one, other, redis


@asynccontextmanager
async def joined(server: Harness, name: str) -> AsyncIterator[Peer[Any]]:
    """A client that has said its name and seen itself join."""
    async with server.ws("/chat") as client:
        await client.send(name)
        await client.expect(f"{name} joined the chat")
        yield client


async def test_conversation(serve: Serve, tmp_path: Path) -> None:
    """Joins, messages and leaves come to all in one order, wherever they are."""
    async with two(serve, tmp_path) as (one, other, _), joined(one, "alice") as alice:
        async with joined(other, "bob") as bob:
            await alice.expect("bob joined the chat")
            await alice.send("hi")
            await bob.expect("alice: hi")
            await bob.send("hello")
            await alice.expect("alice: hi")
            await alice.expect("bob: hello")
        await alice.expect("bob left the chat")


async def test_name_is_taken_everywhere(serve: Serve, tmp_path: Path) -> None:
    """A name that somebody has on one process cannot be had on another."""
    async with (
        two(serve, tmp_path) as (one, other, _),
        joined(one, "alice"),
        other.ws("/chat") as second,
    ):
        await second.send("alice")
        assert (await second.closed())[0] == 4509


async def test_name_is_free_again_everywhere(serve: Serve, tmp_path: Path) -> None:
    """When who had a name has left, it can be had on another process."""
    async with two(serve, tmp_path) as (one, other, _):
        async with joined(one, "alice"):
            pass
        async with joined(other, "alice"):
            pass


async def test_person_takes_over_its_name(serve: Serve, tmp_path: Path) -> None:
    """The same person's newer connection takes the name over, from whatever process."""
    more = "plugins: [tokens]\n"
    async with two(serve, tmp_path, more=more) as (one, other, _), one.ws("/mine?token=alice") as old:
        await old.expect("alice joined the chat")
        async with other.ws("/mine?token=alice") as new:
            assert (await old.closed())[0] == 4409
            await new.expect("alice left the chat", "alice joined the chat")


async def test_post_by_a_name_that_is_taken(serve: Serve, tmp_path: Path) -> None:
    """Nobody speaks by the name of a person who is on another process."""
    more = "plugins: [tokens]\n"
    async with two(serve, tmp_path, more=more) as (one, other, _), one.ws("/mine?token=alice") as alice:
        await alice.expect("alice joined the chat")
        assert (await other.post("/mine?name=alice", "hi")).status == 409


async def test_whisper(serve: Serve, tmp_path: Path) -> None:
    """A whisper reaches its one, wherever that is, and nobody else."""
    async with (
        two(serve, tmp_path) as (one, other, _),
        joined(one, "alice") as alice,
        joined(other, "bob") as bob,
    ):
        await alice.expect("bob joined the chat")
        await one.post("/chat?name=carol", {"text": "psst", "to": "bob"})
        await bob.expect("carol (to you): psst")
        await alice.assert_nothing()


async def test_whisper_to_nobody(serve: Serve, tmp_path: Path) -> None:
    """Who is on no process cannot be whispered to."""
    async with two(serve, tmp_path) as (one, _, _):
        assert (await one.post("/chat?name=carol", {"text": "psst", "to": "bob"})).status == 404


async def test_who_is_removed_is_removed_everywhere(serve: Serve, tmp_path: Path) -> None:
    """A client is removed by its name on any process."""
    async with two(serve, tmp_path) as (one, other, _), joined(one, "alice") as alice:
        assert await other.server.channels["lobby"].kick("lobby", name="alice") == 1
        assert (await alice.closed())[0] == 4403


async def test_clock_ticks_once(serve: Serve, tmp_path: Path) -> None:
    """However many processes there are, an interval has one tick, and all have the same."""
    async with (
        two(serve, tmp_path, interval="100ms") as (one, other, _),
        one.sse("/events") as first,
        other.sse("/events") as second,
    ):

        async def ticks(client: Peer[Any], until: str = "") -> dict[str, str]:
            found: dict[str, str] = {}
            while until not in found if until else len(found) < 5:
                event = await client.receive()
                if event.id and event.event == "message":
                    found[str(event.id)] = event.data
            return found

        there = await ticks(second)
        here = await ticks(first, until=[*there][-1])  # who was there before has all of them, and more
        assert [*here.items()][-5:] == [*there.items()]


async def test_who_comes_back_from_a_process_that_is_gone(serve: Serve, tmp_path: Path) -> None:
    """Who was on a process that has died has its name at another; that it left is told before it joins."""
    async with two(serve, tmp_path) as (one, other, redis):
        ghost, zoe = "0123.c1", '[true,{"client":"0123.c1","name":"zoe"},1,1]'
        await redis.command("HSET", "realtime:{lobby}:here", ghost, zoe)
        await redis.command("HSET", "realtime:{lobby}:names", "zoe", f'["{ghost}",""]')
        async with joined(one, "alice") as alice, other.ws("/chat") as newcomer:
            await newcomer.send("zoe")
            await alice.expect("zoe left the chat", "zoe joined the chat")


async def test_name_of_who_cannot_be_asked_just_now(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that hears nothing for a moment, as it connects anew, costs nobody there its name."""
    monkeypatch.setattr("random.uniform", lambda low, high: 0.3)
    async with two(serve, tmp_path) as (one, other, _), joined(one, "alice") as alice:
        engine = one.server.bus.engine
        assert isinstance(engine, Redis)
        engine._hearing.abort("so it is here")
        await asyncio.sleep(0)
        async with other.ws("/chat") as second:
            await second.send("alice")
            assert (await second.closed())[0] == 1013  # it is told to come back
        holder = await other.server.bus.holder("lobby", "alice")
        assert holder is not None
        assert holder.id.startswith(engine.node)
        await engine._hearing.working()
        await alice.send("still here")
        await alice.expect("alice: still here")  # and nobody was told that it had left
