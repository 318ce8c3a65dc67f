"""The engine ``redis``, and everything that can happen to a Redis and to the way to it.

What it does for the bus, whatever the engine, is in ``test_engine.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from command import run, running
from conftest import Serve
from pydantic import SecretStr, ValidationError
from redises import RedisServer, redis_server
from sites import bus_on, data, until, wait_for_redis
from timing import now
from tree import ROOT
from wire import LINES, Wire, ask, dial, post, request, stream

from realtime.bus import Bus
from realtime.engine import Holder, Once
from realtime.engines import entries, line as line_module, redis as redis_module, watch as watch_module
from realtime.engines.pending import Pending
from realtime.engines.redis import Redis
from realtime.engines.resp import Where
from realtime.errors import ConfigError, StartError, Unavailable
from realtime.message import Message
from realtime.topic import TopicOptions

#: All that is said in a test is kept.
ALL = TopicOptions(history=10_000, lag_bytes=64 * 1024 * 1024)
HEAD, LOG = "realtime:{room}:head", "realtime:{room}:log"


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis that runs."""
    async with redis_server(tmp_path) as server:
        yield server


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is given up, but where a test is about that."""
    wait_for_redis(monkeypatch)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """All is looked at much more often, and connections are given up much sooner."""
    monkeypatch.setattr(watch_module, "PROBE", 0.02)
    monkeypatch.setattr(watch_module, "TOLERATED", 0.1)
    monkeypatch.setattr(watch_module, "ANSWER_WITHIN", 0.3)
    monkeypatch.setattr(line_module, "CONNECT_WITHIN", 0.3)
    monkeypatch.setattr(line_module, "LATEST", 0.05)


def engine(bus: Bus) -> Redis:
    """The engine of a bus."""
    assert isinstance(bus.engine, Redis)
    return bus.engine


def resets(*buses: Bus) -> list[int]:
    """How often a log of each began anew."""
    return [engine(bus).counters["resets"] for bus in buses]


async def collect(messages: AsyncIterator[Message], number: int, within: float = 20.0) -> list[Any]:
    """What so many messages say: the data, and of the host's own the event."""
    async with asyncio.timeout(within):
        heard = [await anext(messages) for _ in range(number)]
    return [message.event if message.event != "message" else message.data for message in heard]


async def refused(bus: Bus, said: Any = "refused", topic: str = "room") -> str:
    """Why a publish was refused."""
    with pytest.raises(Unavailable) as caught:
        await bus.publish(topic, said)
    assert caught.value.status == 503
    return str(caught.value)


async def refuses(bus: Bus) -> str:
    """Publish until it is refused, and say why."""
    async with asyncio.timeout(20):
        while True:
            try:
                await bus.publish("room", "before")
            except Unavailable as error:
                return str(error)


async def accepts(bus: Bus, said: Any = "again") -> None:
    """Publish until it is taken."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(Unavailable):
                await bus.publish("room", said)
                return
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def tormented(seconds: float, do: Callable[[], Any]) -> AsyncIterator[None]:
    """Meanwhile something is done again and again."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()

    async def every() -> None:
        while not over.is_set():
            due = loop.time() + seconds
            await do()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await over.wait()

    torment = asyncio.create_task(every())
    try:
        yield
    finally:
        over.set()
        await torment


# At the start


CONFIG = """
channels:
  topics: {plugin: topics, path: "/topics/{topic...}", history: 100}
  lobby: {plugin: chat, path: /chat, history: 100}
"""


def config(redis: RedisServer | str) -> str:
    """A config whose bus is in that Redis."""
    url = redis if isinstance(redis, str) else redis.url
    return f'bus: {{engine: redis, url: "{url}"}}{CONFIG}'


def test_redis_that_is_down_at_the_start_ends_it(tmp_path: Path) -> None:
    """It is waited for five seconds; then it is exit code 3, and one sentence without the password."""
    url = "redis://:s3cret@127.0.0.1:1/0"
    (tmp_path / "config.yaml").write_text(config(url))
    done = run(tmp_path)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith("could not start: ")
    assert "redis://:***@127.0.0.1:1/0" in line
    assert "nothing listens there" in line
    assert "s3cret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


async def test_wrong_password_ends_the_start_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waiting does not mend is not waited for."""
    monkeypatch.setattr(redis_module, "START_WITHIN", 3600.0)
    async with redis_server(tmp_path, "--requirepass", "right") as redis:
        url = f"redis://:wr0ng@127.0.0.1:{redis.port}/0"
        (tmp_path / "config.yaml").write_text(config(url))
        with pytest.raises(StartError, match="WRONGPASS"):
            async with asyncio.timeout(20), bus_on(InAnother(redis, ":wr0ng@")):
                pass
        done = await asyncio.to_thread(run, tmp_path)
        assert done.returncode == 3
    assert "WRONGPASS" in done.stderr
    assert f"redis://:***@127.0.0.1:{redis.port}/0" in done.stderr
    assert "wr0ng" not in done.stdout + done.stderr


async def test_redis_that_comes_during_the_start_is_in_time(redis: RedisServer) -> None:
    """Who is started together with Redis waits for it."""
    await redis.kill()
    starting = asyncio.create_task(redis.start())
    async with bus_on(redis) as bus:
        assert (await bus.publish("room", "hi")).offset == 1
    await starting


@pytest.fixture
def first_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start is over as soon as it is known of a line why it is away, however late that is."""
    hopeless = property(lambda line: bool(line.why), lambda line, _: None)
    monkeypatch.setattr(line_module.Line, "hopeless", hopeless, raising=False)
    monkeypatch.setattr(redis_module, "START_WITHIN", 60.0)


@pytest.mark.usefixtures("first_word")
async def test_redis_that_is_paused_at_the_start_ends_it(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes connections and answers nothing is no Redis."""
    monkeypatch.setattr(line_module, "CONNECT_WITHIN", 0.1)
    redis.pause()
    with pytest.raises(StartError, match=r"the engine redis at redis://.*: no answer for 0\.1s"):
        async with bus_on(redis):
            pass


async def test_start_without_time_for_anything_to_go_wrong(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is known yet of what is wrong, the sentence has a reason all the same."""
    monkeypatch.setattr(redis_module, "START_WITHIN", 0.0)
    redis.pause()
    with pytest.raises(StartError, match=r": no answer$"):
        async with bus_on(redis):
            pass


@pytest.mark.parametrize("prefix", ["", "a b", "a{b}", "a\n", "é", "x" * 65])
def test_prefix_that_would_spoil_the_keys_is_a_mistake(prefix: str) -> None:
    """What all keys begin with has no brace, which would be their hash tag, and nothing of the kind."""
    with pytest.raises(ValidationError, match="prefix"):
        Redis.Settings(url=SecretStr("redis://127.0.0.1"), prefix=prefix)


async def test_wrong_url_is_a_mistake_without_its_password(serve: Serve) -> None:
    """It is told where in the config, and the password is not shown."""
    with pytest.raises(ConfigError, match=r"bus\.url") as caught:
        async with serve(config("redis://:s3cret@cache:port/0")):
            pass
    assert "s3cret" not in str(caught.value)


# Killed, restarted, paused


@pytest.mark.usefixtures("quick")
async def test_restart_with_its_data_loses_nothing(tmp_path: Path) -> None:
    """A Redis that keeps its data and is killed: the epoch stays, positions go on, nobody notices."""
    async with (
        redis_server(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as redis,
        bus_on(redis, ALL) as one,
        bus_on(redis, ALL) as other,
        other.subscribe("room") as messages,
    ):
        first = await one.publish("room", 0)
        for number in range(1, 5):
            await one.publish("room", number)
        await redis.kill()
        await redis.start()
        await accepts(one, 5)
        position = await one.publish("room", 6)
        assert (position.epoch, position.offset) == (first.epoch, 7)
        assert await collect(messages, 7) == list(range(7))
        assert resets(one, other) == [0, 0]


@pytest.mark.usefixtures("quick")
async def test_restart_without_its_data_is_a_reset(redis: RedisServer) -> None:
    """A Redis that comes back empty: everybody is told, once, and all goes on from there."""
    async with bus_on(redis) as one, bus_on(redis) as other, other.subscribe("room") as messages:
        first = await one.publish("room", "lost")
        assert await collect(messages, 1) == ["lost"]
        await redis.kill()
        await redis.start()
        await accepts(one, "next")
        position = await one.publish("room", "last")
        assert position.epoch != first.epoch
        assert await collect(messages, 3) == ["realtime:reset", "next", "last"]
        assert resets(one, other) == [1, 1]


@pytest.mark.usefixtures("quick")
async def test_reset_is_told_though_nobody_publishes(redis: RedisServer) -> None:
    """That the log is another is noticed when Redis is back, and not with the next message."""
    async with bus_on(redis) as one, one.subscribe("room") as messages:
        await one.publish("room", "lost")
        assert await collect(messages, 1) == ["lost"]
        await redis.kill()
        await redis.start()
        assert await collect(messages, 1) == ["realtime:reset"]


async def told(wire: Wire, event: str) -> dict[str, str]:
    """The next event of this name; none but this one and what was published comes before it."""
    while (heard := await wire.event()).get("event") != event:
        assert not heard.get("event", "").startswith("realtime:"), heard
    return heard


async def ready(port: int, expected: bool) -> None:
    """Wait until a server says that it is ready, or that it is not."""
    async with asyncio.timeout(20):
        while ((await ask(port, "/-/ready"))[0].status == 200) is not expected:
            pass


async def test_paused_redis_is_told_and_survived(
    redis: RedisServer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Publishing is 503 in two seconds, ready red in five; live is green, who is there stays, and is told.

    What was answered 503 does not appear when Redis goes on. All of it by the real clock.
    """
    monkeypatch.undo()  # it is not waited for longer than it is elsewhere
    async with serve(config(redis)) as serving, stream(serving.port, "/topics/a") as reader:
        port = serving.port
        head, _ = await post(port, "/topics/a", b"before")
        assert head.status == 202
        assert (await reader.event())["data"] == "before"
        bus = serving.server.bus
        looks = engine(bus).watch.looks
        await until(lambda: engine(bus).watch.looks > looks)  # a probe has just been answered
        redis.pause()
        paused = now()
        head, answer = await post(port, "/topics/a", b"refused")
        assert (head.status, int(head.headers["retry-after"]) > 0) == (503, True), answer
        assert now() - paused < 2.2
        await ready(port, False)
        assert now() - paused < 5.0
        assert "Redis is away" in (await ask(port, "/-/ready"))[1]
        assert (await ask(port, "/-/live"))[0].status == 200
        assert "reason" in (await told(reader, "realtime:degraded"))["data"]
        at_once = now()
        assert (await post(port, "/topics/a", b"refused"))[0].status == 503
        assert now() - at_once < 1.0
        redis.resume()
        await told(reader, "realtime:restored")
        await ready(port, True)
        assert (await post(port, "/topics/a", b"after"))[0].status == 202
        heard = await reader.event()
        assert (heard["data"], heard["id"].partition("-")[2]) == ("after", "2")


HASTY = {
    "hasty.py": """
        import asyncio
        from realtime import Channel, hookimpl

        class Hasty(Channel):
            async def on_message(self, client, message):
                self.go_on, some = asyncio.Event(), asyncio.Event()
                self.begun = self.bus.engine._until()
                self.later = asyncio.create_task(self.goes_on())
                asyncio.get_running_loop().call_later(0.01, some.set)
                await some.wait()
                self.during = self.bus.engine._until()

            async def goes_on(self):
                await self.go_on.wait()
                return self.bus.engine._until()

        @hookimpl
        def register_channels():
            return {"hasty": Hasty}
    """
}


async def test_all_of_one_answer_takes_no_longer_than_one_thing(redis: RedisServer, serve: Serve) -> None:
    """Whatever a channel asks of Redis to answer a POST has one time together."""
    async with serve(config(redis) + "  hasty: {plugin: hasty, path: /hasty}", HASTY) as serving:
        assert (await post(serving.port, "/hasty", b"go"))[0].status == 202
        hasty: Any = serving.server.channels["hasty"]
        assert hasty.begun == hasty.during
        hasty.later.cancel()


async def test_what_goes_on_after_an_answer_has_its_own_time(redis: RedisServer, serve: Serve) -> None:
    """What a channel has begun meanwhile, and is not waited for, is not in a hurry for ever."""
    async with serve(config(redis) + "  hasty: {plugin: hasty, path: /hasty}", HASTY) as serving:
        assert (await post(serving.port, "/hasty", b"go"))[0].status == 202
        hasty: Any = serving.server.channels["hasty"]
        hasty.go_on.set()
        assert await hasty.later > hasty.begun


async def test_short_pause_is_nobodys_business(redis: RedisServer) -> None:
    """A Redis that stops for a moment takes what was published meanwhile, and nobody is told."""
    async with bus_on(redis) as one, one.subscribe("room") as messages:
        await one.publish("room", 1)
        redis.pause()
        publishing = asyncio.create_task(one.publish("room", 2))
        resumed = one.now() + 0.5
        await until(lambda: one.now() > resumed)
        redis.resume()
        assert (await publishing).offset == 2
        assert await collect(messages, 2) == [1, 2]
        assert one.engine.trouble == ""
        assert engine(one).counters["reconnects"] == 0


async def test_short_absence_is_nobodys_business(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis that is gone for a moment is told to nobody, and what is published then waits for it."""
    monkeypatch.setattr(watch_module, "TOLERATED", 60.0)  # however long a busy machine makes the moment
    async with bus_on(redis) as one, one.subscribe("room") as messages:
        line = engine(one)._asking
        line.where, where = Where.parse("redis://127.0.0.1:1"), line.where
        line.abort("cut")
        await until(lambda: line.away)
        engine(one).watch._look()
        publishing = asyncio.create_task(one.publish("room", "hi"))
        await asyncio.sleep(0)
        line.where = where
        assert (await publishing).offset == 1
        assert await collect(messages, 1) == ["hi"]
        assert (one.engine.trouble, one.notice) == ("", None)


async def test_flood_while_redis_is_paused_is_bounded(redis: RedisServer) -> None:
    """What waits to be sent has a bound: beyond it publishing is refused at once, until there is room."""
    async with bus_on(redis) as one:
        await one.publish("room", "before")
        redis.pause()
        said = "x" * 200_000
        publishing = [asyncio.create_task(one.publish("room", said)) for _ in range(500)]
        with pytest.raises(Unavailable, match="takes less than is published"):
            await publishing[-1]
        redis.resume()
        done = await asyncio.gather(*publishing, return_exceptions=True)
        taken = [position for position in done if not isinstance(position, BaseException)]
        assert 0 < len(taken) < 400
        assert (await one.publish("room", "after")).offset >= len(taken) + 2


async def test_pause_in_the_middle_of_a_probe_is_noticed(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much of the probe was answered before, none waits for ever."""
    monkeypatch.setattr(watch_module, "PROBE", 0.02)
    monkeypatch.setattr(watch_module, "ANSWER_WITHIN", 0.2)
    async with bus_on(redis) as one:
        synchronize = engine(one).watch.synchronize

        async def pausing(*connection: Any) -> None:
            await synchronize(*connection)
            redis.pause()

        monkeypatch.setattr(engine(one).watch, "synchronize", pausing)
        await until(lambda: engine(one)._asking.away, 5)
        monkeypatch.setattr(engine(one).watch, "synchronize", synchronize)
        redis.resume()
        await accepts(one)


@pytest.mark.usefixtures("quick")
async def test_who_comes_while_redis_is_away(redis: RedisServer, serve: Serve) -> None:
    """A topic that the process has can be joined, and says at once how it is; another is 503."""
    async with serve(config(redis)) as serving:
        port = serving.port
        await post(port, "/topics/a", b"before")
        await redis.kill()
        await ready(port, False)
        async with stream(port, "/topics/a?since=earliest") as reader:
            said = [await reader.event(), await reader.event()]
            assert {event.get("event", event["data"]) for event in said} == {"realtime:degraded", "before"}
        async with dial(port, request("/topics/b", LINES)) as wire:
            head = await wire.head()
            assert (head.status, int(head.headers["retry-after"]) > 0) == (503, True)


@pytest.mark.usefixtures("quick")
async def test_restored_is_told_when_all_is_there(redis: RedisServer) -> None:
    """Redis that is back is told of when what was missed has been read, and not before."""
    async with bus_on(redis) as one:
        await one.publish("room", "before")
        for _ in range(redis_module.LOOKERS):
            await engine(one).lookers.acquire()
        await redis.kill()
        await until(lambda: one.engine.trouble)
        await redis.start()
        lines = (engine(one)._asking, engine(one)._hearing)
        await until(lambda: not any(line.away for line in lines))
        looks = engine(one).watch.looks
        await until(lambda: engine(one).watch.looks > looks + 2)
        assert one.engine.trouble
        for _ in range(redis_module.LOOKERS):
            engine(one).lookers.release()
        await until(lambda: not one.engine.trouble)


# The way to it


async def test_subscriber_that_is_killed_all_the_time_misses_nothing(redis: RedisServer) -> None:
    """With the subscription cut every 150 ms four thousand messages come once, and in order."""
    async with bus_on(redis, ALL) as one, bus_on(redis, ALL) as other:
        async with other.subscribe("room") as messages:
            reading, cut = asyncio.create_task(collect(messages, 4000, 60)), engine(other)._hearing
            async with tormented(0.15, lambda: redis.command("CLIENT", "KILL", "TYPE", "pubsub")):
                for start in range(0, 4000, 20):
                    await until(lambda start=start: cut.lost >= start // 500)  # type: ignore[misc]
                    await asyncio.gather(*(one.publish("room", start + more) for more in range(20)))
                assert await reading == list(range(4000))
        assert cut.lost >= 7
        assert resets(one, other) == [0, 0]


@pytest.mark.usefixtures("quick")
async def test_publisher_that_is_killed_all_the_time_says_it_once(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the other connections cut again and again what is acknowledged is there once, in its order."""
    monkeypatch.setattr(redis_module, "PUBLISH_WITHIN", 0.5)  # so long each waits that did not arrive
    monkeypatch.setattr(redis_module, "AT_LEAST", 0.05)
    async with bus_on(redis, ALL) as one, bus_on(redis, ALL) as other:
        async with other.subscribe("room") as messages:
            taken: list[int] = []
            cut = engine(one)._asking
            async with tormented(0.02, lambda: redis.command("CLIENT", "KILL", "TYPE", "normal")):
                for number in range(150):
                    await until(lambda number=number: cut.lost >= number // 30)  # type: ignore[misc]
                    with contextlib.suppress(Unavailable):
                        await one.publish("room", number)
                        taken.append(number)
            await accepts(one, "end")
            heard: list[Any] = []
            while not heard or heard[-1] != "end":
                heard += await collect(messages, 1)
        assert cut.lost > 3
        assert len(set(map(str, heard))) == len(heard)
        assert [said for said in heard if said in taken] == taken
        assert set(taken) == set(heard) - {"end"}


async def test_publish_whose_answer_was_lost_is_acknowledged(redis: RedisServer) -> None:
    """What Redis has taken is acknowledged by the stream, though the connection has broken before."""
    async with bus_on(redis) as one:
        topic = await one.open("room")
        connection = engine(one)._asking.connection
        assert connection is not None
        connection.tell("CLIENT", "REPLY", "OFF")
        publishing = asyncio.create_task(one.publish("room", "hi"))
        await until(lambda: topic.head == 1)
        assert not publishing.done()
        await redis.command("CLIENT", "KILL", "TYPE", "normal")
        assert await publishing == topic.position
        assert (await one.publish("room", "next")).offset == 2


async def test_publish_that_was_lost_on_its_way_is_refused(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What did not reach Redis before the connection broke is not sent again, and is not acknowledged."""
    monkeypatch.setattr(redis_module, "PUBLISH_WITHIN", 0.5)
    monkeypatch.setattr(redis_module, "AT_LEAST", 0.05)
    async with bus_on(redis) as one:
        await one.open("room")
        connection = engine(one)._asking.connection
        assert connection is not None
        monkeypatch.setattr(connection, "_flush", lambda: None)
        publishing = asyncio.create_task(refused(one))
        await until(lambda: connection.backlog)
        connection.abort("cut")
        assert "not known" in await publishing
        wait_for_redis(monkeypatch)
        assert (await one.publish("room", "next")).offset == 1


async def test_subscription_that_only_seems_to_be_there_is_replaced(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection by which nothing comes any more, and that does not end, is found out and replaced."""
    monkeypatch.setattr(watch_module, "PROBE", 0.02)
    monkeypatch.setattr(watch_module, "ANSWER_WITHIN", 1.0)  # so long a busy Redis may take
    async with bus_on(redis) as one, bus_on(redis) as other, other.subscribe("room") as messages:
        connection = engine(other)._hearing.connection
        assert connection is not None
        connection.pause()
        await one.publish("room", "hi")
        assert await collect(messages, 1) == ["hi"]
        assert engine(other)._hearing.lost == 1
        assert engine(other)._asking.lost == 0


async def test_slow_subscriber_that_redis_cuts_misses_nothing(tmp_path: Path) -> None:
    """Who is cut off as its output buffer is full reads what it has missed from the stream."""
    limit = ("--client-output-buffer-limit", "pubsub 256kb 0 0")
    async with (
        redis_server(tmp_path, *limit) as redis,
        bus_on(redis, ALL) as one,
        bus_on(redis, ALL) as other,
        other.subscribe("room") as messages,
    ):
        said = [f"{number} {'x' * 60_000}" for number in range(200)]
        slow = engine(other)._hearing.connection
        assert slow is not None
        slow.pause()  # more than the kernel holds for it comes meanwhile
        for one_said in said:
            await one.publish("room", one_said)
        assert "realtime" in await redis.command("CLIENT", "LIST", "TYPE", "pubsub")
        slow.resume()
        assert await collect(messages, 200) == said
        assert engine(other)._hearing.lost == 1
        assert resets(one, other) == [0, 0]


async def test_burst_pushes_nobody_off_the_log(redis: RedisServer) -> None:
    """What comes at once by the subscription is handed on no faster than who keeps up can read."""
    options = TopicOptions(lag_bytes=256 * 1024, lag=60)
    async with (
        bus_on(redis, options) as one,
        bus_on(redis, options) as other,
        other.subscribe("room") as messages,
    ):
        connection = engine(other)._hearing.connection
        assert connection is not None
        connection.pause()
        said = [f"{number} {'x' * 10_000}" for number in range(150)]
        for one_said in said:
            await one.publish("room", one_said)
        connection.resume()
        assert await collect(messages, 150) == said
        assert engine(other).counters["filled"] == 0


async def test_password_that_is_changed_is_told_until_it_is_changed_back(redis: RedisServer) -> None:
    """Who is not let in any more says why, and goes on when it is."""
    async with bus_on(redis) as one:
        await one.publish("room", "before")
        await redis.command("CONFIG", "SET", "requirepass", "other")
        for kind in ("normal", "pubsub"):
            await redis.command("-a", "other", "--no-auth-warning", "CLIENT", "KILL", "TYPE", kind)
        await until(lambda: "NOAUTH" in one.engine.trouble)
        assert "NOAUTH" in await refused(one)
        await redis.command("-a", "other", "--no-auth-warning", "CONFIG", "SET", "requirepass", "")
        await accepts(one)
        await until(lambda: not one.engine.trouble)
        assert resets(one) == [0]


# What it has


async def test_full_redis_takes_nothing_and_loses_nothing(redis: RedisServer) -> None:
    """With its memory full publishing is refused with its own words; then it goes on."""
    async with bus_on(redis) as one, one.subscribe("room") as messages:
        await one.publish("room", 1)
        await redis.command("CONFIG", "SET", "maxmemory", "1")
        wrong = await refused(one)
        assert "OOM command not allowed" in wrong
        assert "script" not in wrong  # whose name means nothing to anybody
        await redis.command("CONFIG", "SET", "maxmemory", "0")
        assert (await one.publish("room", 2)).offset == 2
        assert await collect(messages, 2) == [1, 2]


async def test_full_redis_lets_history_be_read(redis: RedisServer) -> None:
    """A process that has not had a topic has it, and its history, also while nothing can be published."""
    async with bus_on(redis) as one, bus_on(redis) as other:
        await one.publish("room", 1)
        await redis.command("CONFIG", "SET", "maxmemory", "1")
        assert data((await other.open("room")).history()) == [1]


@pytest.mark.parametrize(("stale", "code"), [("yes", "READONLY"), ("no", "MASTERDOWN")])
async def test_read_only_redis_is_told(redis: RedisServer, stale: str, code: str) -> None:
    """One that has become a replica takes nothing, and is asked anew, until it is none."""
    async with bus_on(redis) as one:
        await one.publish("room", 1)
        await redis.command("CONFIG", "SET", "replica-serve-stale-data", stale)
        await redis.command("REPLICAOF", "127.0.0.1", "1")
        assert code in await refused(one)
        await until(lambda: engine(one)._asking.lost)
        await redis.command("REPLICAOF", "NO", "ONE")
        await accepts(one, 2)
        assert data(one.topic("room").history()) == [1, 2]


async def run_id(redis: RedisServer) -> str:
    """Which run of Redis it is."""
    info = (await redis.command("INFO")).split()
    return dict(line.split(":", 1) for line in info if ":" in line)["run_id"]


async def go_back(redis: RedisServer, offset: int, newest: int) -> None:
    """What a failover does to a replica that was behind: the epoch stays, and the newest are gone."""
    await redis.command("HSET", HEAD, "offset", str(offset))
    await redis.command("XDEL", LOG, *(f"{gone}-0" for gone in range(offset + 1, newest + 1)))


async def test_offset_that_went_back_is_a_reset(redis: RedisServer) -> None:
    """Data that was lost while the epoch stays is told: a position of it is never given twice."""
    async with bus_on(redis) as one, one.subscribe("room") as messages:
        for number in range(3):
            last = await one.publish("room", number)
        assert await collect(messages, 3) == [0, 1, 2]
        await go_back(redis, 1, 3)
        await redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        assert await collect(messages, 1) == ["realtime:reset"]
        assert (await one.publish("room", 3)).epoch != last.epoch
        assert await collect(messages, 1) == [3]


async def test_offset_that_went_back_is_a_reset_for_who_publishes(redis: RedisServer) -> None:
    """Also where nothing was cut: the first who publishes knows that there was more."""
    async with bus_on(redis) as one, bus_on(redis) as other, other.subscribe("room") as messages:
        for number in range(3):
            last = await one.publish("room", number)
        assert await collect(messages, 3) == [0, 1, 2]
        await go_back(redis, 1, 3)
        assert (await one.publish("room", 3)).epoch != last.epoch
        assert await collect(messages, 2) == ["realtime:reset", 3]


async def test_offset_that_was_given_again_meanwhile_is_a_reset(redis: RedisServer) -> None:
    """Where another has published again beyond what was seen, the entry at the head tells."""
    async with bus_on(redis) as one, one.subscribe("room") as messages:
        for number in range(3):
            await one.publish("room", number)
        assert await collect(messages, 3) == [0, 1, 2]
        connection = engine(one)._hearing.connection
        assert connection is not None
        connection.pause()  # it is cut, as far as it knows
        await go_back(redis, 1, 3)
        async with bus_on(redis) as other:
            for number in range(5):
                await other.publish("room", f"other {number}")
            await redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            connection.abort("cut")
            assert await collect(messages, 1) == ["realtime:reset"]
            await other.publish("room", "next")
            while (await collect(messages, 1)) != ["next"]:
                pass


@pytest.mark.parametrize(
    ("began", "told"), [(5, ("realtime:gap", {"missed": 3})), (4, ("realtime:reset", {}))]
)
async def test_start_says_what_it_has_taken_back(
    tmp_path: Path, began: int, told: tuple[str, dict[str, int]]
) -> None:
    """What was trimmed meanwhile is a gap where the next Redis began with what was seen, else a reset."""
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    async with (
        redis_server(tmp_path / "before") as before,
        redis_server(tmp_path / "after") as after,
        bus_on(before) as one,
        one.subscribe("room") as messages,
    ):
        for number in range(5):
            last = await one.publish("room", number)
        assert await collect(messages, 5) == [0, 1, 2, 3, 4]
        past = f"{await run_id(before)}:{began}"
        head = {"epoch": last.epoch, "offset": "8", "run": await run_id(after), "past": past}
        await after.command("HSET", HEAD, *itertools.chain(*head.items()))
        for line in (engine(one)._asking, engine(one)._hearing):
            line.where = Where.parse(after.url)
        engine(one)._asking.abort("the address is another's")
        async with asyncio.timeout(20):
            message = await anext(messages)
        assert (message.event, message.data) == told


@pytest.mark.usefixtures("quick")
async def test_restart_makes_no_reset_of_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was behind, and finds Redis started again and the log trimmed, says how much is lost."""
    wait_for_redis(monkeypatch)  # or it might be found out before the log is trimmed
    async with (
        redis_server(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as redis,
        bus_on(redis) as one,
        one.subscribe("room") as messages,
    ):
        await one.publish("room", 0)
        assert await collect(messages, 1) == [0]
        connection = engine(one)._hearing.connection
        assert connection is not None
        connection.pause()  # it is cut, as far as it knows
        async with bus_on(redis) as other:
            for number in range(1, 4):
                await other.publish("room", number)
        await redis.command("DEL", LOG)
        for _ in range(2):
            await redis.kill()
            await redis.start()
        assert await collect(messages, 1) == ["realtime:gap"]
        await accepts(one, "next")
        assert await collect(messages, 1) == ["next"]


@pytest.mark.parametrize("first", ["_asking", "_hearing"])
async def test_both_connections_are_to_one_redis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """Where one connection ends at another Redis, behind the same address, so does the other, at once."""
    monkeypatch.setattr(watch_module, "PROBE", 60.0)
    places = tmp_path / "before", tmp_path / "after"
    for place in places:
        place.mkdir()
    async with redis_server(places[0]) as before, redis_server(places[1]) as after, bus_on(before) as one:
        position = await one.publish("room", "lost")
        lines = engine(one)._asking, engine(one)._hearing
        for line in lines:
            line.where = Where.parse(after.url)
        getattr(engine(one), first).abort("the address is another's")
        now = await run_id(after)
        await until(
            lambda: all(
                line.connection and line.connection.run_id == now and not line.away for line in lines
            )
        )
        await until(lambda: one.topic("room").epoch != position.epoch)


async def test_what_comes_with_the_subscription_hides_no_loss(redis: RedisServer) -> None:
    """Between a new subscription and the look at the stream nothing is taken for the next message."""
    async with bus_on(redis) as one, one.subscribe("room") as messages:
        for number in range(3):
            await one.publish("room", number)
        assert await collect(messages, 3) == [0, 1, 2]
        await go_back(redis, 1, 3)
        async with bus_on(redis) as other:
            connection = engine(one)._hearing.connection
            assert connection is not None
            connection.pause()
            for number in range(2):
                await other.publish("room", f"other {number}")  # 2 and 3, which were seen otherwise
            connection.abort("cut")
            await until(lambda: engine(one)._hearing.connection not in (None, connection))
            again = engine(one)._hearing.connection
            assert again is not None
            again.pause()  # so that the subscription and what follows it come in one
            await other.publish("room", "other 2")
            again.resume()
            assert await collect(messages, 1) == ["realtime:reset"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("behind", [False, True], ids=["whole", "behind"])
async def test_failover_to_a_replica(tmp_path: Path, behind: bool) -> None:
    """A replica that has all of it goes on with it; one that was behind is told as another log."""
    for name in ("master", "replica"):
        (tmp_path / name).mkdir()
    async with (
        redis_server(tmp_path / "master", "--repl-diskless-sync-delay", "0") as master,
        redis_server(tmp_path / "replica") as replica,
        bus_on(master) as one,
        one.subscribe("room") as messages,
    ):
        await replica.command("REPLICAOF", "127.0.0.1", str(master.port))
        for number in range(3):
            await one.publish("room", number)
        while await replica.command("HGET", HEAD, "offset") != "3":
            pass
        if behind:
            await replica.command("REPLICAOF", "NO", "ONE")
            await one.publish("room", 3)
        assert await collect(messages, 3 + behind) == list(range(3 + behind))
        for line in (engine(one)._asking, engine(one)._hearing):
            line.where = Where.parse(replica.url)  # as a name says after a failover
        await master.kill()
        await replica.command("REPLICAOF", "NO", "ONE")
        await accepts(one, "next")
        assert await collect(messages, 1 + behind) == [*["realtime:reset"] * behind, "next"]
        assert resets(one) == [int(behind)]


async def test_head_that_is_lost_is_a_reset(redis: RedisServer) -> None:
    """With the head evicted and the stream there, the log begins anew: with nothing in it."""
    async with bus_on(redis) as one, bus_on(redis) as other, other.subscribe("room") as messages:
        first = await one.publish("room", 1)
        assert await collect(messages, 1) == [1]
        await redis.command("DEL", HEAD)
        second = await one.publish("room", 2)
        assert (second.offset, second.epoch != first.epoch) == (1, True)
        assert await collect(messages, 2) == ["realtime:reset", 2]
        assert data(one.topic("room").history()) == [2]


async def test_stream_that_is_lost_is_no_loss_to_who_was_there(redis: RedisServer) -> None:
    """With the stream evicted and the head there, all goes on, and newcomers have what came since."""
    async with bus_on(redis) as one, bus_on(redis) as other, one.subscribe("room") as messages:
        await one.publish("room", 1)
        await redis.command("DEL", LOG)
        await redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        assert (await one.publish("room", 2)).offset == 2
        assert await collect(messages, 2) == [1, 2]
        assert data((await other.open("room")).history()) == [2]
        assert resets(one) == [0]


async def test_flushed_redis_is_a_reset(redis: RedisServer) -> None:
    """After FLUSHALL the next message begins another log, for everybody."""
    async with bus_on(redis) as one, bus_on(redis) as other, other.subscribe("room") as messages:
        await one.publish("room", 1)
        assert await collect(messages, 1) == [1]
        await redis.command("FLUSHALL")
        await one.publish("room", 2)
        assert await collect(messages, 2) == ["realtime:reset", 2]


async def test_scripts_that_are_flushed_are_sent_again(redis: RedisServer) -> None:
    """After SCRIPT FLUSH nothing is lost, doubled or out of order."""
    async with bus_on(redis, ALL) as one:
        for start in range(0, 100, 10):
            await redis.command("SCRIPT", "FLUSH")
            await asyncio.gather(*(one.publish("room", start + more) for more in range(10)))
        assert data(one.topic("room").history()) == list(range(100))


async def test_scripts_are_there_before_they_are_wanted(redis: RedisServer) -> None:
    """Redis has been told the scripts when the first message comes."""
    async with bus_on(redis):
        known = await redis.command("SCRIPT", "EXISTS", entries.PUBLISH.sha, entries.SYNC.sha)
        assert known.split() == ["1", "1"]


async def test_reading_first_is_no_reset(redis: RedisServer) -> None:
    """Who has read an empty topic resumes there: the first message does not begin another log."""
    async with bus_on(redis) as one, bus_on(redis) as other:
        position = (await other.open("room")).position
        await one.publish("room", "first")
        async with other.subscribe("room", since=position) as messages:
            assert await collect(messages, 1) == ["first"]
        assert resets(one, other) == [0, 0]


async def test_topic_that_is_made_again_goes_on(redis: RedisServer) -> None:
    """A process that has dropped a topic has the same one when it uses it again."""
    async with bus_on(redis) as one:
        first = await one.publish("room/1", 1)
        one.forget("room")
        one.declare("room", ALL)
        second = await one.publish("room/1", 2)
        assert (second.epoch, second.offset) == (first.epoch, 2)
        assert data(one.topic("room/1").history()) == [1, 2]


async def test_topic_that_goes_as_soon_as_it_is_there(redis: RedisServer) -> None:
    """What is published to a topic that goes before its publisher has its turn is not refused for that."""
    async with bus_on(redis) as bus:
        publishing = asyncio.create_task(bus.publish("room/1", "hi"))
        await until(lambda: (topic := bus.find("room/1")) and topic.opened)
        bus.left(bus.topic("room/1"))  # as a sweep does
        assert bus.find("room/1") is None
        assert (await publishing).offset == 1


async def test_wrong_clock_of_a_process_is_of_no_account(redis: RedisServer) -> None:
    """A process whose clock is a day off publishes, and has what others publish, as it should."""
    async with bus_on(redis, ALL) as one, bus_on(redis, ALL) as other:
        for bus, days in ((one, -1), (other, 1)):
            bus.wall_time = lambda days=days: time.time() + days * 86400  # type: ignore[misc]
        await one.publish("room", 1)
        await other.publish("room", 2)
        async with one.subscribe("room", since="earliest") as messages:
            assert await collect(messages, 2) == [1, 2]


async def test_every_key_expires(redis: RedisServer) -> None:
    """Whatever is kept goes by itself when nobody wants it any more; none is there for ever."""
    async with bus_on(redis) as one:
        topic = await one.open("room")
        await one.publish("room", 1)
        await one.publish("room", 2, once=Once("k", 60.0))
        await one.arrive(topic, f"{one.engine.node}.c1", {"client": "c1"}, aloud=True)
        await one.claim("room", "alice", f"{one.engine.node}.c1")
        keys = (await redis.command("KEYS", "*")).split()
        assert len(keys) == 6, keys
        endless = [key for key in keys if int(await redis.command("PTTL", key)) < 0]
        assert endless == []


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        (TopicOptions(lag=5000.0), 5000),
        (TopicOptions(lag=5.0, history=1, history_age=7000.0), 7000),
        (TopicOptions(lag=5.0, history=0, history_age=7000.0), 5),
    ],
)
async def test_topic_stays_longer_than_it_is_wanted(
    redis: RedisServer, options: TopicOptions, seconds: int
) -> None:
    """What is kept stays ten minutes longer than the oldest message that anybody may ask for."""
    async with bus_on(redis, options) as one:
        await one.publish("room", 1)
        kept = int(await redis.command("TTL", LOG))
        assert seconds + redis_module.STAYS - 60 < kept <= seconds + redis_module.STAYS


async def test_databases_share_nothing(redis: RedisServer) -> None:
    """Two sites in two databases of one Redis hear nothing of each other, though channels are of all."""
    async with bus_on(redis) as one, bus_on(InAnother(redis)) as other:
        mine, theirs = await one.open("room"), await other.open("room")
        await one.arrive(mine, f"{one.engine.node}.c1", {"client": "c1"}, aloud=False)
        await one.publish("room", "mine")
        await other.publish("room", "theirs")
        assert (data(mine.history()), data(theirs.history())) == (["mine"], ["theirs"])
        assert (len(mine.here), len(theirs.here)) == (1, 0)
        assert (await redis.command("PUBSUB", "NUMSUB", "realtime:{room}")).split() == [
            "realtime:{room}",
            "1",
        ]


class InAnother(RedisServer):
    """Another database of a Redis, as somebody."""

    def __init__(self, redis: RedisServer, login: str = "") -> None:
        super().__init__(redis.directory)
        self.port, self._login = redis.port, login

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://{self._login}127.0.0.1:{self.port}/1"


async def test_one_node_of_a_cluster_does(tmp_path: Path) -> None:
    """All that is asked about a topic is in one slot, also of one with braces in its name."""
    async with redis_server(tmp_path, "--cluster-enabled", "yes") as redis:
        await redis.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        while "cluster_state:ok" not in await redis.command("CLUSTER", "INFO"):
            pass
        async with bus_on(redis) as one, bus_on(redis) as other:
            for name in ("room", "room/a", "room/{b}", "room/}{", "room/}", "room/{{"):
                topic = await one.open(name)
                await one.arrive(topic, f"{one.engine.node}.c1", {"client": "c1"}, aloud=True)
                await one.publish(name, "hi", once=Once("k", 60.0))
                await one.claim(name, "alice", f"{one.engine.node}.c1")
                assert await other.holder(name, "alice") == Holder(f"{one.engine.node}.c1")
                await one.release(name, "alice", f"{one.engine.node}.c1")
                assert data((await other.open(name)).history()) == [{"client": "c1"}, "hi"]
                await one.depart(topic, f"{one.engine.node}.c1", {"client": "c1"}, aloud=True)
                assert (await other.publish(name, "bye")).offset == 4


#: What the docs say that its user in Redis needs.
GUIDE = ROOT / "docs" / "how-to" / "scale-out.md"


async def test_user_needs_no_more_than_it_is_given(redis: RedisServer) -> None:
    """A user of Redis who may do just what the docs say does for all of the engine."""
    (rules,) = re.findall(r"^user realtime on >SECRET (.*)$", GUIDE.read_text(), re.MULTILINE)
    await redis.command("ACL", "SETUSER", "rt", "on", ">pw", *rules.split())

    user = InAnother(redis, "rt:pw@")
    async with bus_on(user) as one, bus_on(user) as other:
        topic = await one.open("room")
        await one.engine.everywhere("room", {"do": "nothing"})
        client = f"{one.engine.node}.c1"
        await one.arrive(topic, client, {"client": "c1"}, aloud=True)
        await one.publish("room", "hi", once=Once("k", 60.0))
        await redis.command("-n", "1", "SET", entries.Keys.of(engine(one).prefix, "room").log, "no stream")
        await one.publish("room", "ho")
        await one.claim("room", "alice", client)
        assert await other.holder("room", "alice") == Holder(client)
        await one.release("room", "alice", client)
        await one.depart(topic, client, {"client": "c1"}, aloud=True)
        await redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        assert (await other.publish("room", "bye")).offset == 5
        one.forget("room")
    log = await redis.command("ACL", "LOG")
    assert log == ""


@pytest.mark.usefixtures("first_word")
async def test_user_that_may_not_is_told(redis: RedisServer) -> None:
    """A user who may not subscribe ends the start with Redis's own words."""
    await redis.command("ACL", "SETUSER", "default", "resetchannels")
    with pytest.raises(StartError, match="NOPERM"):
        async with bus_on(redis):
            pass


# Other processes


LISTED = """
channels:
  topics: {plugin: topics, path: "/topics/{topic...}", presence: announce}
"""


async def test_server_that_is_killed_is_seen_off_once(
    redis: RedisServer, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was here by a process that was killed outright has left for all others, who are told once."""
    monkeypatch.setattr(watch_module, "PROBE", 0.1)
    monkeypatch.setattr(watch_module, "LEASE", 1.0)  # for so long nobody is taken for gone at the start
    bus = f'bus: {{engine: redis, url: "{redis.url}"}}\n'
    directory = tmp_path / "other"
    directory.mkdir()
    (directory / "config.yaml").write_text(f'{bus}server: {{listen: ["127.0.0.1:0"]}}\n{LISTED}')
    async with (
        serve(bus + LISTED) as serving,
        stream(serving.port, "/topics/a") as first,
        stream(serving.port, "/topics/a") as second,
        running(directory) as killed,
    ):
        node = serving.server.bus.engine.node

        async def of_another(reader: Wire, event: str) -> str:
            """The client of another process of whom this event tells."""
            while True:
                heard = await reader.event()
                if heard.get("event") == event and not (
                    who := json.loads(heard["data"])["client"]
                ).startswith(node):
                    return str(who)

        port = int((await killed.ready()).rpartition(":")[2])
        async with stream(port, "/topics/a"):
            gone = await of_another(first, "realtime:join")
            assert await of_another(second, "realtime:join") == gone
            killed.process.kill()
            await killed.process.wait()
        # Its lease is over.
        await redis.command("ZADD", "realtime:nodes", "XX", "1", gone.partition(".")[0])
        for reader in (first, second):
            assert await of_another(reader, "realtime:leave") == gone
        assert (await post(serving.port, "/topics/a", b"next"))[0].status == 202
        assert ((await first.event())["data"], (await second.event())["data"]) == ("next", "next")


@pytest.mark.usefixtures("quick")
async def test_long_outage_buries_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After Redis was away for longer than a lease those who are back first wait for the others."""
    monkeypatch.setattr(watch_module, "LEASE", 60.0)
    keeping = ("--appendonly", "yes", "--appendfsync", "always")
    async with (
        redis_server(tmp_path, *keeping) as redis,
        bus_on(redis, ALL) as one,
        bus_on(redis, ALL) as other,
    ):
        client = f"{other.engine.node}.c1"
        await other.arrive(await other.open("room"), client, {"client": "c1"}, aloud=True)
        here = (await one.open("room")).here
        await redis.kill()
        late = engine(other)._asking
        late.where, where = Where.parse("redis://127.0.0.1:1"), late.where
        await until(lambda: late.away > watch_module.TOLERATED)
        await redis.start()
        await redis.command("ZADD", "realtime:nodes", "XX", "1", other.engine.node)  # its lease is over
        await accepts(one)
        looks = engine(one).watch.looks
        await until(lambda: engine(one).watch.looks > looks + 3)
        late.where = where
        await accepts(other)
        assert list(here.values()) == [{"client": "c1"}]
        heard = one.topic("room").history()
        assert [message.event for message in heard] == ["realtime:join", "message", "message"]


async def test_clocks_of_processes_may_differ(redis: RedisServer) -> None:
    """A message of a process whose clock is behind is there for who resumes on another."""
    async with bus_on(redis, TopicOptions()) as one, bus_on(redis, TopicOptions()) as other:
        one.wall_time = lambda: time.time() - 3600
        seen = await one.publish("room", "seen")
        for number in range(3):
            await one.publish("room", number)
        async with other.subscribe("room", since=seen) as messages:
            assert await collect(messages, 3) == [0, 1, 2]


# Garbage


GARBAGE: list[str | bytes] = [
    "",
    "hello",
    "\n",
    "-\n",
    "-\nhello",
    "?\n",
    "?\nhello",
    "?\n[]",
    "?\n[1,2,3]",
    '?\n["0a",1,{"do":"kick"}]',
    "0a-1",
    "0a-1\nhello",
    "0a-999999999999999999\n",
    "\x00\x01",
    "[" * 10_000,
    '-\n[1,"0a",1,1.0,"message","json","+",1]\n{}',
    '-\n[1,"0a",1,1.0,"message","text"]\nhi',
]


async def test_garbage_on_our_channels_is_ignored(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is published on the channel of a topic, or to a process, nothing comes of it."""
    async with bus_on(redis) as one, one.subscribe("room") as messages:
        first = await one.publish("room", 1)
        for garbage in [*GARBAGE, b"\xff\xfe", f"{first.epoch}-2\nhello".encode(), f"{first}\nhello"]:
            for channel in ("realtime:{room}", f"realtime:node:{one.engine.node}"):
                await redis.command("PUBLISH", channel, garbage)
        second = await one.publish("room", 2)
        assert (second.epoch, second.offset) == (first.epoch, 2)
        assert await collect(messages, 2) == [1, 2]
        assert engine(one).counters["ignored"] >= 10
        assert (engine(one)._hearing.lost, engine(one)._asking.lost) == (0, 0)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) <= 2, [record.getMessage() for record in warnings]
    assert not any(record.exc_info for record in caplog.records)


async def test_garbage_among_the_processes_is_none(redis: RedisServer, quick: None) -> None:
    """What is no process, where these say that they are there, keeps nobody from saying so."""
    await redis.command("ZADD", "realtime:nodes", "+inf", b"\xff")
    async with bus_on(redis) as one:
        looks = engine(one).watch.looks
        await until(lambda: engine(one).watch.looks > looks + 3, within=5.0)


async def test_place_without_an_entry_hides_no_message(redis: RedisServer) -> None:
    """Garbage in the very place of the next message is not that message."""
    async with bus_on(redis) as one, bus_on(redis) as other, other.subscribe("room") as messages:
        first = await one.publish("room", 1)
        for number in range(2, 20):
            await redis.command("PUBLISH", "realtime:{room}", f"{first.epoch}-{number}\ngarbage")
            await one.publish("room", number)
        assert await collect(messages, 19) == list(range(1, 20))


async def test_foreign_entries_in_the_stream_are_no_messages(redis: RedisServer) -> None:
    """What somebody else has put between ours, or behind, does not come, and takes nothing away."""
    async with bus_on(redis) as one, bus_on(redis) as other:
        for number in range(1, 4):
            await one.publish("room", number)
            await redis.command("XADD", LOG, f"{number}-1", "x", "foreign")
        await redis.command("XADD", LOG, "*", "e", "foreign")
        assert data((await other.open("room")).history()) == [1, 2, 3]
        assert (await other.publish("room", 4)).offset == 4
        await until(lambda: one.topic("room").head == 4)
        assert data(one.topic("room").history()) == [1, 2, 3, 4]


@pytest.mark.parametrize("garbage", ["x garbage", "e garbage", 'e [1,"0a",1,1.0,"message","json"]'])
async def test_entry_that_is_garbage_is_a_gap(redis: RedisServer, garbage: str) -> None:
    """Where the stream has something else in the place of a message, that message is told as lost."""
    async with bus_on(redis) as one, bus_on(redis) as other, other.subscribe("room") as messages:
        first = await one.publish("room", 1)
        assert await collect(messages, 1) == [1]
        connection = engine(other)._hearing.connection
        assert connection is not None
        connection.pause()
        await redis.command("HSET", HEAD, "offset", "2")
        await redis.command("XADD", LOG, "2-0", *garbage.split())
        last = await one.publish("room", 3)
        connection.abort("cut")
        assert await collect(messages, 2) == ["realtime:gap", 3]
        assert (last.epoch, last.offset) == (first.epoch, 3)


async def test_hole_in_the_stream_is_a_gap(redis: RedisServer) -> None:
    """What was deleted before it was read is told as lost, by number, and the rest comes."""
    async with bus_on(redis) as one, bus_on(redis) as other, other.subscribe("room") as messages:
        await one.publish("room", 1)
        assert await collect(messages, 1) == [1]
        connection = engine(other)._hearing.connection
        assert connection is not None
        connection.pause()
        for number in range(2, 6):
            await one.publish("room", number)
        await redis.command("XDEL", LOG, "2-0", "3-0")
        connection.abort("cut")
        async with asyncio.timeout(20):
            heard = [await anext(messages) for _ in range(3)]
        assert data(heard) == [{"missed": 2}, 4, 5]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("key", [HEAD, "realtime:{room}:here", "realtime:{room}:names"])
async def test_key_of_another_type_spoils_its_topic_only(
    redis: RedisServer, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A topic one of whose keys is somebody else's is refused, with the reason, until it is not."""
    async with bus_on(redis) as one:
        await one.publish("room/other", 1)
        await redis.command("SET", key, "mine")
        monkeypatch.setattr(redis_module, "PUBLISH_WITHIN", 1.0)  # so long it is tried to open it
        if key == HEAD:
            assert "WRONGTYPE" in await refused(one)
        elif key.endswith("here"):
            with pytest.raises(Unavailable, match="WRONGTYPE"):
                await one.arrive(await one.open("room"), "0a.c1", {"client": "c1"}, aloud=True)
        else:
            with pytest.raises(Unavailable, match="WRONGTYPE"):
                await one.claim("room", "alice", "0a.c1")
        wait_for_redis(monkeypatch)
        assert (await one.publish("room/other", 2)).offset == 2
        await redis.command("DEL", key)
        await accepts(one)


@pytest.mark.usefixtures("quick")
async def test_topic_that_is_spoilt_does_not_keep_the_server_unready(redis: RedisServer) -> None:
    """When Redis is back all is well but for the one topic whose key is somebody else's."""
    async with bus_on(redis) as one:
        await one.publish("room", 1)
        await one.publish("room/spoilt", 1)
        await redis.kill()
        await until(lambda: one.engine.trouble)
        await redis.start()
        await redis.command("SET", "realtime:{room/spoilt}:head", "mine")
        await until(lambda: not one.engine.trouble)
        assert "WRONGTYPE" in await refused(one, topic="room/spoilt")
        await one.publish("room", 2)


async def test_stream_of_another_type_is_made_again(redis: RedisServer) -> None:
    """What is no stream where the stream should be is replaced by what is published, and opened as none."""
    async with bus_on(redis) as one, bus_on(redis) as other:
        await one.publish("room", 1)
        await redis.command("SET", LOG, "mine")
        assert data((await other.open("room")).history()) == []
        assert (await one.publish("room", 2)).offset == 2
        assert data(one.topic("room").history()) == [1, 2]


async def test_head_that_is_no_number_begins_anew(redis: RedisServer) -> None:
    """An offset that is none is no log."""
    async with bus_on(redis) as one:
        first = await one.publish("room", 1)
        await redis.command("HSET", HEAD, "offset", "many")
        await accepts(one, 2)
        assert one.topic("room").epoch != first.epoch


async def test_names_that_are_garbage_are_nobodys(redis: RedisServer) -> None:
    """What is no holder of a name holds none."""
    async with bus_on(redis) as one:
        await one.open("room")
        await redis.command("HSET", "realtime:{room}:names", "alice", "garbage")
        assert await one.holder("room", "alice") is None


async def test_huge_message_on_our_channel_is_survived(redis: RedisServer) -> None:
    """A hundred megabytes that somebody publishes there cost a connection, and not so much memory."""
    async with bus_on(redis) as one, one.subscribe("room") as messages:
        await one.publish("room", 1)
        before = peak(anew=True)
        reader, writer = await asyncio.open_connection("127.0.0.1", redis.port)
        writer.write(b"*3\r\n$7\r\nPUBLISH\r\n$15\r\nrealtime:{room}\r\n$104857600\r\n")
        for _ in range(100):
            writer.write(b"x" * 1024 * 1024)
            await writer.drain()
        writer.write(b"\r\n")
        assert (await reader.readline()).startswith(b":")
        writer.close()
        await writer.wait_closed()
        await until(lambda: engine(one)._hearing.lost == 1)
        assert peak() - before < 200 * 1024
        await one.publish("room", 2)
        assert await collect(messages, 2) == [1, 2]


def peak(*, anew: bool = False) -> int:
    """The most memory that this process has had, in KiB; ``anew``: from now on."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    return int(line.split()[1])


# For long


async def test_thousand_reconnects_leave_nothing(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the connections are lost, there are as many tasks and things as before."""
    monkeypatch.setattr(line_module, "SOONEST", 0.0)
    async with bus_on(redis) as one:
        await one.publish("room", "before")
        lines = (engine(one)._asking, engine(one)._hearing)

        async def again(number: int) -> None:
            for _ in range(number):
                for line in lines:
                    await line.working()
                    line.abort("again")
                    await until(lambda: line.connection is None)  # noqa: B023
            await accepts(one)
            await until(lambda: len(asyncio.all_tasks()) <= tasks)
            gc.collect()

        tasks = len(asyncio.all_tasks())
        await again(20)
        things = len(gc.get_objects())
        await again(480)
        assert len(gc.get_objects()) < things + 300
        assert sum(line.lost for line in lines) == 1000


async def test_nothing_stays_of_what_was_published(redis: RedisServer) -> None:
    """What has been acknowledged or refused is not remembered."""
    async with bus_on(redis, TopicOptions(lag=0, lag_bytes=0)) as one:
        await asyncio.gather(*(one.publish("room", number) for number in range(1000)))
        assert [feed.pending for feed in engine(one).feeds] == [{}]
        gc.collect()
        assert not any(isinstance(thing, Pending) for thing in gc.get_objects())
        connection = engine(one)._asking.connection
        assert connection is not None
        assert len(connection._waiting) <= 5  # the probe's


@pytest.mark.usefixtures("quick")
async def test_server_ends_while_redis_is_away(redis: RedisServer, serve: Serve) -> None:
    """A server that is stopped then waits for nobody."""
    async with serve(config(redis)) as serving:
        await post(serving.port, "/topics/a", b"hi")
        redis.pause()
        await ready(serving.port, False)
        began = now()
    assert now() - began < 3
