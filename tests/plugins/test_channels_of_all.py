"""What a channel may rely on when there are several processes: two servers with one Redis and a plugin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redises import RedisServer, redis_server
from sites import until

from realtime.errors import Unavailable
from realtime.testing import Harness, Serve

CONFIG = """
bus: {{engine: redis, url: "{url}"}}
channels:
  desk: {{plugin: desk, path: "/desk/{{which}}", history: 10, presence: list}}
"""
FILES = {
    "desk.py": """
        from realtime import Channel, hookimpl

        class Desk(Channel):
            def __init__(self, name, settings, bus):
                super().__init__(name, settings, bus)
                self.heard = 0

            async def on_connect(self, client):
                client.name = client.query.get("name")

            transports = ("websocket", "sse", "json", "post")

            async def on_message(self, client, message):
                self.heard += 1
                return await self.publish(client.topic, message.data)

        @hookimpl
        def register_channels():
            return {"desk": Desk}
    """
}


@asynccontextmanager
async def two(serve: Serve, directory: Path) -> AsyncIterator[tuple[Harness, Harness, RedisServer]]:
    """Two servers with one Redis."""
    async with redis_server(directory) as redis:
        config = CONFIG.format(url=redis.url)
        async with serve(config, FILES) as one, serve(config, FILES) as other:
            yield one, other, redis


def said(server: Harness) -> list[object]:
    """What has been said at the first desk, as this process has it."""
    return [message.data for message in server.bus.topic("desk/1").history()]


async def test_ids_name_their_process(serve: Serve, tmp_path: Path) -> None:
    """The id of a client begins with what names its process."""
    async with two(serve, tmp_path) as (one, other, _), one.ws("/desk/1"), other.ws("/desk/1"):
        ids = [client.id for server in (one, other) for client in server.channel("desk").clients]
        assert [each.partition(".")[2] for each in ids] == ["c1", "c1"]
        assert [each.partition(".")[0] for each in ids] == [one.bus.engine.node, other.bus.engine.node]


async def test_clients_are_of_one_process(serve: Serve, tmp_path: Path) -> None:
    """``clients`` are those of this process, ``members`` those of all."""
    async with (
        two(serve, tmp_path) as (one, other, _),
        one.ws("/desk/1?name=a"),
        other.ws("/desk/1?name=b"),
    ):
        channel = one.channel("desk")
        await until(lambda: len(channel.members("desk/1")) == 2)
        assert [client.name for client in channel.clients] == ["a"]
        assert [member["name"] for member in channel.members("desk/1")] == ["a", "b"]


async def test_members_of_a_topic_that_nobody_has_opened(serve: Serve, tmp_path: Path) -> None:
    """On a topic that this process has not opened nobody is known; once it is open, everybody is."""
    async with two(serve, tmp_path) as (one, other, _), other.ws("/desk/1?name=b"):
        await until(lambda: other.channel("desk").members("desk/1"))
        assert one.channel("desk").members("desk/1") == []
        await one.bus.open("desk/1")
        assert [member["name"] for member in one.channel("desk").members("desk/1")] == ["b"]


async def test_kick_with_a_code(serve: Serve, tmp_path: Path) -> None:
    """A client of another process is closed with the code and the reason that are given."""
    async with two(serve, tmp_path) as (one, other, _), one.ws("/desk/1?name=a") as client:
        await until(lambda: one.channel("desk").clients)
        assert await other.channel("desk").kick("desk/1", name="a", code=4500, reason="later") == 1
        assert await client.closed() == (4500, "later")


async def test_send_by_id(serve: Serve, tmp_path: Path) -> None:
    """What is sent by id reaches that client in another process, and nobody else."""
    async with (
        two(serve, tmp_path) as (one, other, _),
        one.ws("/desk/1?name=a") as a,
        one.ws("/desk/1?name=a") as b,
    ):
        await until(lambda: len(one.channel("desk").clients) == 2)
        first = next(iter(one.channel("desk").clients))
        assert await other.channel("desk").send("desk/1", "psst", id=first.id) == 1
        await a.expect("psst")
        await b.assert_nothing()


async def test_ping_by_name(serve: Serve, tmp_path: Path) -> None:
    """A ping by name counts those who are there, in all processes."""
    async with (
        two(serve, tmp_path) as (one, other, _),
        one.ws("/desk/1?name=a"),
        other.ws("/desk/1?name=a"),
    ):
        await until(lambda: one.channel("desk").clients and other.channel("desk").clients)
        assert await one.channel("desk").ping("desk/1", name="a") == 2
        assert await one.channel("desk").ping("desk/1", name="b") == 0


async def test_retry_to_another_process(serve: Serve, tmp_path: Path) -> None:
    """A POST that is sent again is heard there once more, and published once, under the same id."""
    async with two(serve, tmp_path) as (one, other, _):
        key = {"Idempotency-Key": "k"}
        first = await one.post("/desk/1", "hi", headers=key)
        second = await other.post("/desk/1", "hi", headers=key)
        assert (first.status, second.status) == (202, 202)
        assert first.json == second.json
        assert "Idempotency-Replayed" not in second.headers
        assert [getattr(server.channel("desk"), "heard") for server in (one, other)] == [1, 1]  # noqa: B009
        await one.bus.open("desk/1")
        assert said(one) == ["hi"]


async def test_other_message_to_another_process(serve: Serve, tmp_path: Path) -> None:
    """Another message under the key is refused by another process, too."""
    async with two(serve, tmp_path) as (one, other, _):
        key = {"Idempotency-Key": "k"}
        assert (await one.post("/desk/1", "hi", headers=key)).status == 202
        assert (await other.post("/desk/1", "ho", headers=key)).status == 422


async def test_claim_outlives_its_process(serve: Serve, tmp_path: Path) -> None:
    """What a process had that is gone is had still: nobody answers for it, and another can release it."""
    async with redis_server(tmp_path) as redis:
        config = CONFIG.format(url=redis.url)
        async with serve(config, FILES) as one:
            async with serve(config, FILES) as other:
                await other.bus.claim("desk/1", "chair", "gone.c1", "bob")
            holder = await one.bus.holder("desk/1", "chair")
            assert holder is not None
            assert holder.about == "bob"
            assert await one.channel("desk").ping("desk/1", id=holder.id) == 0
            await one.bus.release("desk/1", "chair", holder.id)
            assert (await one.bus.claim("desk/1", "chair", "c1")).id == "c1"


async def test_away_is_unavailable(serve: Serve, tmp_path: Path) -> None:
    """While Redis is away publishing, opening and claiming raise Unavailable; a release does not."""
    async with two(serve, tmp_path) as (one, _, redis):
        await one.bus.open("desk/1")
        await redis.kill()
        with one.expect_error("is away"):
            with pytest.raises(Unavailable):
                await one.bus.publish("desk/1", "hi")
            with pytest.raises(Unavailable):
                await one.bus.open("desk/2")
            with pytest.raises(Unavailable):
                await one.bus.claim("desk/1", "chair", "c1")
            await one.bus.release("desk/1", "chair", "c1")
