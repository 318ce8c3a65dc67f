"""What clients see of an engine that is away: connections stay and are told, and nothing is taken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from conftest import SERVER, Serve, Serving
from redises import RedisServer, redis_server
from test_frames import ASKED, Reader, reading
from wire import TEXT, Wire, ask, dial, frame, request, soon, text, websocket

import realtime
from realtime.config import parse
from realtime.engines import watch

CONFIG = """
    bus: {{engine: redis, url: "{url}"}}
    channels:
      news: {{plugin: topics, path: "/news/{{topic...}}", history: 100}}
      lobby: {{plugin: chat, path: /chat, history: 100, unique_names: false}}
"""
#: How long Redis may take to answer while it is there, in seconds: it may have to wait for a core.
PATIENT = 3.0
#: How a snapshot is asked for.
JSON = [("Accept", "application/json")]
#: The forms that can say it.
SAYING = [form for form in ASKED if form != "plain"]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis is looked at more often than it is elsewhere; one that has no core for a while is not away."""
    for name, seconds in {"PROBE": 0.05, "ANSWER_WITHIN": PATIENT, "TOLERATED": 0.1}.items():
        monkeypatch.setattr(watch, name, seconds)


def pause(redis: RedisServer) -> None:
    """Have it answer nothing, and be given up for that soon."""
    watch.ANSWER_WITHIN = 0.3  # what it was is there again after the test
    redis.pause()


def resume(redis: RedisServer) -> None:
    """Have it go on, however long it then takes."""
    watch.ANSWER_WITHIN = PATIENT
    redis.resume()


@asynccontextmanager
async def site(serve: Serve, directory: Path) -> AsyncIterator[tuple[Serving, RedisServer]]:
    """A server, and the Redis that keeps its logs."""
    async with redis_server(directory) as redis, serve(CONFIG.format(url=redis.url)) as serving:
        await serving.server.bus.publish("news/a", "first")
        yield serving, redis


async def until(serving: Serving, *, away: bool) -> None:
    """Wait until the server has told everybody that its engine is away, or is back."""
    bus = serving.server.bus
    async with asyncio.timeout(20):
        while (bus.notice is None) is away:  # noqa: ASYNC110  # it has no event of its own
            await asyncio.sleep(0)


def told(block: str, form: str) -> dict[str, Any]:
    """The event and the data of a frame, and its id if it has one."""
    if form != "events":
        found: dict[str, Any] = json.loads(block)
        return found
    fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
    return {"event": "message", **fields, "data": fields["data"]}


async def next_of(reader: Reader, form: str) -> dict[str, Any]:
    """What comes next, but no sign of life."""
    return told(await soon(reader.next()), form)


async def test_everybody_is_told(serve: Serve, tmp_path: Path) -> None:
    """Who is there, and who comes, is told once that it is away and once that it is back, in its form."""
    async with site(serve, tmp_path) as (serving, redis), AsyncExitStack() as stack:
        there = {
            form: await stack.enter_async_context(reading(serving, form, "/news/a")) for form in SAYING
        }
        for form, reader in there.items():
            assert (await next_of(reader, form))["event"] == "realtime:welcome"
        pause(redis)
        await until(serving, away=True)
        came = {
            form: await stack.enter_async_context(reading(serving, form, "/news/a?since=-1"))
            for form in SAYING
        }
        for form, reader in came.items():
            assert (await next_of(reader, form))["event"] == "realtime:welcome"
        for readers in (there, came):
            for form, reader in readers.items():
                away = await next_of(reader, form)
                assert (away["event"], "id" in away) == ("realtime:degraded", False)
                assert "reason" in away["data"]
        for form, reader in came.items():
            assert (await next_of(reader, form))["data"] == "first"
        resume(redis)
        await until(serving, away=False)
        await serving.server.bus.publish("news/a", "second")
        for readers in (there, came):
            for form, reader in readers.items():
                back = await next_of(reader, form)
                assert (back["event"], "id" in back) == ("realtime:restored", False)
                assert (await next_of(reader, form))["data"] == "second"


async def test_who_joins_meanwhile_stays(serve: Serve, tmp_path: Path) -> None:
    """Who comes to a room that tells who is here is let in, and that is told when it can be."""
    async with site(serve, tmp_path) as (serving, redis):
        await serving.server.bus.open("lobby")
        pause(redis)
        await until(serving, away=True)
        async with reading(serving, "v1", "/chat?name=ann") as ann:
            seen = [(await next_of(ann, "v1"))["event"] for _ in range(3)]
            assert seen == ["realtime:welcome", "realtime:degraded", "realtime:members"]
            resume(redis)
            seen = [await next_of(ann, "v1") for _ in range(2)]
            joined = next(message for message in seen if message["event"] == "realtime:join")
            assert joined["data"]["name"] == "ann"
            assert {message["event"] for message in seen} == {"realtime:join", "realtime:restored"}


async def test_post_is_refused(serve: Serve, tmp_path: Path) -> None:
    """A POST gets 503, when to ask again, and a sentence; nothing of it is kept."""
    async with site(serve, tmp_path) as (serving, redis):
        await redis.kill()
        await until(serving, away=True)
        headers = [("Content-Type", "text/plain"), ("Content-Length", "4")]
        async with dial(serving.port, request("/news/a", headers, method="POST") + b"lost") as wire:
            head, said = await wire.response()
        assert head.status == 503
        assert int(head.headers["retry-after"]) > 0
        assert said.startswith("Redis is away: ")
        assert [message.data for message in serving.server.bus.topic("news/a").history()] == ["first"]


async def test_message_is_refused(serve: Serve, tmp_path: Path) -> None:
    """What is said over realtime.v1.json is answered with 503, and the connection stays."""
    async with site(serve, tmp_path) as (serving, redis), reading(serving, "v1", "/news/a") as reader:
        await redis.kill()
        await until(serving, away=True)
        for ref in (1, 2):
            await reader.wire.send(frame(TEXT, b'{"data":"lost","ref":%d}' % ref))
        seen = [await next_of(reader, "v1") for _ in range(4)][2:]
        assert [(answer["event"], answer["ref"], answer["data"]["status"]) for answer in seen] == [
            ("realtime:error", 1, 503),
            ("realtime:error", 2, 503),
        ]


async def test_plain_websocket_is_closed_when_it_speaks(serve: Serve, tmp_path: Path) -> None:
    """A plain WebSocket, which cannot be answered, stays until it says something: it gets 1013."""
    async with site(serve, tmp_path) as (serving, redis), websocket(serving.port, "/news/a") as wire:
        await redis.kill()
        await until(serving, away=True)
        await wire.send(text("lost"))
        end = await wire.frame()
        assert end.code == 1013
        assert end.reason.startswith("Redis is away: ")


async def test_topic_that_is_not_there_is_refused(serve: Serve, tmp_path: Path) -> None:
    """Who comes to a topic of which this process has nothing gets 503, and when to come back."""
    async with site(serve, tmp_path) as (serving, redis):
        await redis.kill()
        await until(serving, away=True)
        head, said = await ask(serving.port, "/news/b", ASKED["lines"])
        assert (head.status, said.startswith("Redis is away: ")) == (503, True)
        assert int(head.headers["retry-after"]) > 0


async def test_snapshot_waits_for_no_other_topic(serve: Serve, tmp_path: Path) -> None:
    """While one waits for what Redis has of its topic, one of a topic that is there is answered."""
    async with site(serve, tmp_path) as (serving, redis):
        await redis.command("SET", "realtime:{news/b}:head", "spoilt")
        asking = asyncio.create_task(ask(serving.port, "/news/b", JSON))
        async with asyncio.timeout(20):
            while serving.server.bus.find("news/b") is None:  # noqa: ASYNC110  # it has no event of its own
                await asyncio.sleep(0)
        head, said = await ask(serving.port, "/news/a", JSON)
        assert (head.status, json.loads(said)["messages"][0]["data"]) == (200, "first")
        assert not asking.done()
        head, said = await asking
        assert (head.status, "Redis does not say what it has of the topic" in said) == (503, True)


FAREWELL = '''
"""Farewell: says who goes."""

from realtime import Channel, hookimpl


class Farewell(Channel):
    """Says who goes."""

    async def on_leave(self, client):
        await self.publish(client.topic, "gone")


@hookimpl
def register_channels():
    return {"farewell": Farewell}
'''


async def test_leaving_is_no_bug(serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What a channel would say when a client has left is not said, and that is no bug of the channel."""
    config = f"{CONFIG}      bye: {{{{plugin: farewell, path: /bye}}}}\n"
    async with redis_server(tmp_path) as redis:
        async with serve(config.format(url=redis.url), {"farewell.py": FAREWELL}) as serving:
            async with websocket(serving.port, "/bye"):
                await redis.kill()
                await until(serving, away=True)
            async with asyncio.timeout(20):
                while serving.server.channels["bye"].clients:  # noqa: ASYNC110  # it has no event of its own
                    await asyncio.sleep(0)
        assert [record.message for record in caplog.records if "bug" in record.message] == []


# The client for applications


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_python_client(serve: Serve, tmp_path: Path, scheme: str) -> None:
    """It is told, keeps its position, and what it sends meanwhile is refused with 503."""
    async with site(serve, tmp_path) as (serving, redis):
        url = serving.ws("/news/a") if scheme == "ws" else serving.http("/news/a")
        async with realtime.connect(url, since="earliest") as channel:
            first = await soon(anext(channel))
            pause(redis)
            assert (await soon(anext(channel))).event == "realtime:degraded"
            assert channel.position == first.id
            with pytest.raises(realtime.Refused) as refused:
                await channel.send("lost")
            assert (refused.value.status, refused.value.comes_back) == (503, True)
            resume(redis)
            assert (await soon(anext(channel))).event == "realtime:restored"
            assert await channel.send("second") == (await soon(anext(channel))).id


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_python_client_in_another_log(serve: Serve, tmp_path: Path, scheme: str) -> None:
    """A reset in the middle of a connection is told, and its position is that of the other log."""
    async with site(serve, tmp_path) as (serving, redis):
        url = serving.ws("/news/a") if scheme == "ws" else serving.http("/news/a")
        async with realtime.connect(url, since="earliest") as channel:
            assert (await soon(anext(channel))).data == "first"
            await redis.command("FLUSHALL")
            position = await serving.server.bus.publish("news/a", "new")
            reset, new = [await soon(anext(channel)) for _ in range(2)]
            assert (reset.event, new.data) == ("realtime:reset", "new")
            assert channel.position == new.id == position
            assert reset.id is not None
            assert reset.id.epoch == position.epoch


# What changes while a topic is waited for


async def waiting(serving: Serving, path: str, stack: AsyncExitStack) -> Wire:
    """Somebody who has asked for a topic of which the server has nothing yet."""
    name = f"news/{path.rpartition('/')[2]}"
    wire = await stack.enter_async_context(dial(serving.port, request(path, ASKED["lines"])))
    async with asyncio.timeout(20):
        while serving.server.bus.find(name) is None:  # noqa: ASYNC110  # it has no event of its own
            await asyncio.sleep(0)
    return wire


@pytest.mark.parametrize("changed", ["news", "more"], ids=["made again", "gone"])
async def test_reload_while_a_topic_is_waited_for(serve: Serve, tmp_path: Path, changed: str) -> None:
    """Who was let in by a config that holds no more is to come back, and not in a channel that is gone."""
    async with site(serve, tmp_path) as (serving, redis), AsyncExitStack() as stack:
        redis.pause()
        wire = await waiting(serving, "/news/b", stack)
        config = f"{SERVER}{dedent(CONFIG.format(url=redis.url))}"
        config = config.replace("history: 100}", "history: 50}", 1).replace("news:", f"{changed}:")
        await serving.server.reload(parse(config))
        redis.resume()
        head, said = await wire.response()
        assert (head.status, "the config has just been read again" in said) == (503, True)


async def test_limit_while_topics_are_waited_for(serve: Serve, tmp_path: Path) -> None:
    """Of those who wait for a topic no more are let in than there is room for."""
    limited = CONFIG.replace("history: 100}}\n", "history: 100, limits: {{max_clients: 1}}}}\n", 1)
    async with redis_server(tmp_path) as redis, AsyncExitStack() as stack:
        serving = await stack.enter_async_context(serve(limited.format(url=redis.url)))
        redis.pause()
        wires = [await waiting(serving, path, stack) for path in ("/news/b", "/news/c")]
        redis.resume()
        heads = [await soon(wire.head()) for wire in wires]
        assert sorted(head.status for head in heads) == [200, 503]
