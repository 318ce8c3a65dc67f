"""What is asked of all processes: who answers, and who does not."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from redises import redis_server
from sites import bus_on, site, until

from realtime.engines import inquiry
from realtime.engines.redis import Redis
from realtime.errors import Unavailable


async def answering(topic: str, request: dict[str, object]) -> object:
    """What a process does."""
    return request["do"]


async def test_who_has_no_topic_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those who have the topic answer, and nobody else is waited for."""
    monkeypatch.setattr(inquiry, "ANSWERED_WITHIN", 600.0)
    async with site("redis", tmp_path) as (one, other, _), asyncio.timeout(20):
        one.respond = other.respond = answering
        assert await one.engine.everywhere("room", {"do": 1}) == [1]
        await other.open("room")
        assert await one.engine.everywhere("room", {"do": 2}) == [2, 2]


async def test_who_does_not_answer_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one has nothing to say the others' answers are there, after a while."""
    monkeypatch.setattr(inquiry, "ANSWERED_WITHIN", 0.2)
    async with site("redis", tmp_path) as (one, other, _):

        async def failing(topic: str, request: dict[str, object]) -> None:
            raise RuntimeError("a bug")

        one.respond, other.respond = answering, failing
        await other.open("room")
        assert await one.engine.everywhere("room", {"do": 1}) == [1]


async def test_what_cannot_be_done_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug of a plugin in what is asked of all processes is told where it happens."""
    monkeypatch.setattr(inquiry, "ANSWERED_WITHIN", 0.0)
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:

        async def failing(topic: str, request: dict[str, object]) -> None:
            raise RuntimeError("a bug")

        bus.respond = failing
        await bus.open("room")
        with caplog.at_level(logging.ERROR):
            assert await bus.engine.everywhere("room", {"do": 1}) == []
            await until(lambda: "with 'room' could not be done" in caplog.text)


@pytest.mark.parametrize("how", ["SUBSCRIBE realtime:{room}", "PSUBSCRIBE *"])
async def test_who_only_listens_is_not_waited_for(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who listens to all of it, or is a process that is gone without Redis's knowing, holds nobody up."""
    monkeypatch.setattr(inquiry, "ANSWERED_WITHIN", 600.0)
    async with site("redis", tmp_path) as (one, other, redis):
        assert redis is not None
        one.respond = other.respond = answering
        await other.open("room")
        reader, writer = await asyncio.open_connection("127.0.0.1", redis.port)
        try:
            writer.write(f"{how}\r\n".encode())
            assert await reader.readline()
            await redis.command("ZADD", "realtime:nodes", "1", "gone")
            async with asyncio.timeout(20):
                assert await one.engine.everywhere("room", {"do": 1}) == [1, 1]
        finally:
            writer.close()
            await writer.wait_closed()


async def test_all_are_waited_for_where_nobody_can_say_that_it_is_there(tmp_path: Path) -> None:
    """Where Redis knows of no process, not of the one that asks either, all who listen are waited for."""
    async with site("redis", tmp_path) as (one, other, redis):
        assert redis is not None
        one.respond = other.respond = answering
        await other.open("room")
        await one.open("room")
        await redis.command("CONFIG", "SET", "maxmemory", "1")  # nothing is added
        await redis.command("ZREMRANGEBYSCORE", "realtime:nodes", "-inf", "+inf")
        assert await one.engine.everywhere("room", {"do": 1}) == [1, 1]


@pytest.mark.parametrize(
    "question",
    [
        "",
        "x",
        "[]",
        "[1,2,3]",
        '["a","1",{}]',
        "[1,1,{}]",
        '["a",1,[]]',
        '["a",1,{"do":null}]',
        "{}",
        "[" * 5000,
    ],
)
async def test_question_that_is_none(
    tmp_path: Path, question: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever else asks is told nothing, and nothing breaks."""
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:
        bus.respond = answering
        position = await bus.publish("room", "before")
        channel = "realtime:{room}"
        with caplog.at_level(logging.CRITICAL):
            assert await redis.command("PUBLISH", channel, f"?\n{question}") == "1"
            assert (await bus.publish("room", "after")).offset == position.offset + 1
        assert isinstance(bus.engine, Redis)
        assert bus.engine.counters["ignored"] == ('"do"' not in question)


@pytest.mark.parametrize("answer", ["x", "[]", "[1,2,3]", "{}", "1", '[[1],"a",2]', '[99,"a",1]'])
async def test_answer_that_is_none(tmp_path: Path, answer: str) -> None:
    """Whatever else comes to a process's own channel is ignored, and nothing breaks."""
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:
        await bus.publish("room", "before")
        engine = bus.engine
        assert isinstance(engine, Redis)
        assert await redis.command("PUBLISH", engine.inbox(engine.node), answer) == "1"
        await bus.publish("room", "after")
        await until(lambda: answer.startswith("[99") or engine.counters["ignored"])
        assert engine._hearing.lost == 0


@pytest.mark.parametrize("deaf", ["other", "one"])
async def test_who_is_there_and_does_not_answer(
    tmp_path: Path, deaf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client is not said to be gone where its process, or the one that asks, is deaf for a moment."""
    monkeypatch.setattr(inquiry, "ANSWERED_WITHIN", 0.2)
    monkeypatch.setattr("random.uniform", lambda low, high: 60.0)  # before it connects anew
    async with site("redis", tmp_path) as (one, other, _):
        one.respond = other.respond = answering
        await other.open("room")
        assert isinstance(one.engine, Redis)
        assert isinstance(other.engine, Redis)
        request = {"do": 1, "id": f"{other.engine.node}.c1"}
        assert await one.engine.everywhere("room", request) == [1, 1]
        (one if deaf == "one" else other).engine._hearing.abort("cut")  # type: ignore[attr-defined]
        with pytest.raises(Unavailable, match="the process of that client does not answer"):
            await one.engine.everywhere("room", request)


async def test_who_is_gone_and_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a client whose process is gone all others say that they have it not."""
    monkeypatch.setattr(inquiry, "ANSWERED_WITHIN", 600.0)
    async with site("redis", tmp_path) as (one, other, _), asyncio.timeout(20):
        one.respond = other.respond = answering
        await other.open("room")
        assert await one.engine.everywhere("room", {"do": 0, "id": "0123.c1"}) == [0, 0]


async def test_question_that_is_lost(tmp_path: Path) -> None:
    """Where nobody was asked it is not said that there is nobody."""
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:
        await bus.open("room")
        assert isinstance(bus.engine, Redis)
        redis.pause()
        asking = asyncio.create_task(bus.engine.everywhere("room", {"do": 1}))
        await until(lambda: bus.engine.inquiries._answers)  # type: ignore[attr-defined]
        bus.engine._asking.abort("cut")
        with pytest.raises(Unavailable, match="cut"):
            await asking
        assert not bus.engine.inquiries._answers
        redis.resume()


@pytest.mark.parametrize("take", ["asked", "answered"])
async def test_garbage_is_quoted_in_part(tmp_path: Path, take: str) -> None:
    """However long what came is, few words are made of it."""
    async with redis_server(tmp_path) as redis, bus_on(redis) as bus:
        topic = await bus.open("room")
        assert isinstance(bus.engine, Redis)
        inquiries, garbage = bus.engine.inquiries, b" " * 10_000 + b"1"
        with pytest.raises(ValueError, match=r"^.{60,100}$"):
            inquiries.asked(topic, garbage) if take == "asked" else inquiries.answered(garbage)
