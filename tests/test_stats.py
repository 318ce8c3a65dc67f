"""The numbers of a server, at once and second by second."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import shelf
from tokenmaker import AUTH, token

from realtime import stats
from realtime.close_codes import CloseCode
from realtime.stats import HISTORY, STREAMS, WARNINGS, quantile
from realtime.testing import Harness, Serve
from realtime.traffic import BOUNDS

CONFIG = """
channels:
  echo: {plugin: echo, path: /ws}
  lobby: {plugin: chat, path: /chat, history: 10}
  topics: {plugin: topics, path: "/topics/{topic...}"}
"""


def read(server: Harness) -> dict[str, object]:
    """All numbers now."""
    return server.server.watching.stats.read()


def channel(server: Harness, name: str) -> dict[str, object]:
    """Those of a channel."""
    channels = read(server)["channels"]
    assert isinstance(channels, dict)
    one = channels[name]
    assert isinstance(one, dict)
    return one


def samples(server: Harness) -> list[dict[str, object]]:
    """What was so in each of the last seconds."""
    return list(server.server.watching.stats.history)


async def test_clients_by_transport(serve: Serve) -> None:
    """Each channel's clients are told by what they came by."""
    async with serve(CONFIG) as server, server.ws("/chat?name=ann"), server.sse("/chat"):
        assert channel(server, "lobby")["clients"] == {"websocket": 1, "sse": 1, "ndjson": 0}


async def test_who_has_gone_is_no_client(serve: Serve) -> None:
    """Who has gone is counted no more among the clients, but among those who came."""
    async with serve(CONFIG) as server:
        async with server.ws("/ws") as client:
            await client.close()
        await server.clock.advance(1.1)
        told = read(server)["connections"]
        assert isinstance(told, dict)
        assert (told["opened"], told["ended"]) == (1, {"1000": 1})
        assert channel(server, "echo")["clients"] == dict.fromkeys(STREAMS, 0)


async def test_kept(serve: Serve) -> None:
    """It is told how many messages a channel keeps in how many topics, and what they take."""
    async with serve(CONFIG) as server:
        for topic in ("a", "b", "b"):
            await server.post(f"/topics/{topic}", "x")
        topics = channel(server, "topics")
    assert (topics["topics"], topics["kept"]) == (2, 3)
    assert topics["kept_bytes"] == 3 * 257


async def test_every_channel_is_there(serve: Serve) -> None:
    """A channel that nobody has used yet has its numbers, too."""
    async with serve(CONFIG) as server:
        told = read(server)["channels"]
        assert isinstance(told, dict)
        assert list(told) == ["echo", "lobby", "topics"]


async def test_engine(serve: Serve) -> None:
    """It is told which engine the bus has, and whether it takes what is published."""
    async with serve(CONFIG) as server:
        told = read(server)["engine"]
    assert told == {"name": "memory", "up": True, "reason": "", "node": "", "counters": {}}


async def test_engine_that_is_away(serve: Serve) -> None:
    """An engine that is away is told with why, and what has happened to it."""
    async with serve(shelf.BUS + CONFIG, shelf.FILES) as server:
        engine: Any = server.bus.engine
        engine.trouble, engine.counters, engine.node = "it is away", Counter(reconnects=3), "5f"
        told = read(server)["engine"]
    lost = {"reconnects": 3}
    assert told == {"name": "shelf", "up": False, "reason": "it is away", "node": "5f", "counters": lost}


async def test_refused_by_reason(serve: Serve) -> None:
    """Who was refused is counted under what refused it."""
    config = CONFIG.replace("history: 10", "history: 10, limits: {max_clients: 0}")
    async with serve(config) as server:
        await server.request("POST", "/chat?name=ann", headers={"Content-Type": "text/plain"})
        told = read(server)["connections"]
        assert isinstance(told, dict)
        assert told["refused"] == {"limits.max_clients": 1}


@pytest.mark.parametrize(
    ("code", "shown"), [(4401, "4401"), (4001, "4xxx"), (3999, "3xxx"), (1006, "1006")]
)
async def test_codes_are_few(serve: Serve, code: int, shown: str) -> None:
    """What plugins and clients close with is without number, and told together."""
    async with serve(CONFIG) as server:
        server.server.connections.ended[code] += 2
        told = read(server)["connections"]
        assert isinstance(told, dict)
        assert told["ended"] == {shown: 2}


def test_own_codes_are_told_apart() -> None:
    """Every code of the server's own is one by itself."""
    assert stats._by_code(dict.fromkeys(CloseCode, 1)) == {str(int(code)): 1 for code in CloseCode}


# Samples


def by_hand(server: Harness) -> Callable[[], tuple[dict[str, Any], float]]:
    """Take a sample now, and none with the seconds; returns what takes the next, and tells of how long."""
    stats = server.server.watching.stats
    assert stats._task is not None
    stats._task.cancel()
    stats._sample()
    begun = stats._before.at

    def sample() -> tuple[dict[str, Any], float]:
        told = stats._sample()
        return told, stats._before.at - begun

    return sample


async def test_sample_of_each_second(serve: Serve) -> None:
    """With every second there is a sample more."""
    async with serve(CONFIG) as server:
        await server.clock.advance(100.5)
        assert len(samples(server)) == pytest.approx(100, abs=2)  # late looks make a second longer


async def test_samples_are_bounded(serve: Serve) -> None:
    """Five minutes of them are kept, and no more."""
    async with serve(CONFIG) as server:
        await server.clock.advance(HISTORY + 5.5)
        assert len(samples(server)) == HISTORY


async def test_rates(serve: Serve) -> None:
    """A sample says how many messages there were in its second."""
    async with serve(CONFIG) as server, server.sse("/topics/a") as one, server.sse("/topics/a") as other:
        sample = by_hand(server)
        for _ in range(5):
            await server.post("/topics/a", "x")
        for client in (one, other):
            await client.expect(*"xxxxx")
        last, seconds = sample()
    got = [round(last[key] * seconds) for key in ("received", "published", "delivered", "sent")]
    assert got == [5, 5, 10, 0]


async def test_rates_of_what_is_gone(serve: Serve) -> None:
    """A channel that a reload has taken away leaves no negative rates."""
    async with serve(CONFIG) as server:
        await server.post("/topics/a", "x")
        await server.clock.advance(1.1)
        await server.reload(CONFIG.replace("  topics", "  # topics"))
        await server.clock.advance(1.1)
        assert samples(server)[-1]["received"] == 0


async def test_rates_of_what_comes_back(serve: Serve) -> None:
    """Nor does one that comes back have in its first second all that it has done before."""
    async with serve(CONFIG) as server:
        await server.post("/topics/a", "x")
        server.server.bus.traffic["topics"].handler_seconds += 5
        await server.reload(CONFIG.replace("  topics", "  # topics"))
        await server.clock.advance(1.1)
        await server.reload(CONFIG)
        await server.clock.advance(1.1)
        last = samples(server)[-1]
    assert (last["received"], last["handlers"]) == (0, {"echo": 0, "lobby": 0, "topics": 0})


async def test_no_delivery_has_no_lag(serve: Serve) -> None:
    """In a second in which nothing was delivered there is no lag to tell."""
    async with serve(CONFIG) as server:
        await server.clock.advance(1.1)
        assert samples(server)[-1]["delivery_lag_seconds"] == {"p50": None, "p99": None}


async def test_lag_of_the_loop(serve: Serve) -> None:
    """How late the loop was in a second is told by the middle and the worst of four looks."""
    async with serve(CONFIG) as server:
        await server.clock.advance(1.1)
        lag = samples(server)[-1]["loop_lag_seconds"]
    assert isinstance(lag, dict)
    assert 0 <= lag["p50"] <= lag["max"] < 1


async def test_share_of_a_channel(serve: Serve) -> None:
    """A sample says for which share of its second each channel's plugin had the loop."""
    async with serve(CONFIG) as server:
        sample = by_hand(server)
        server.bus.traffic["echo"].handler_seconds += 0.25
        await server.clock.advance(1.0)
        last, seconds = sample()
    assert last["handlers"]["echo"] * seconds == pytest.approx(0.25, abs=0.001)


async def test_sampling_ends_with_the_server(serve: Serve) -> None:
    """A server that has stopped samples no more."""
    async with serve(CONFIG) as server:
        task = server.server.watching.stats._task
    assert task is not None
    assert task.cancelled()


# Topics


async def test_largest_topics(serve: Serve) -> None:
    """Of the topics those with the most clients are told, with where they stand."""
    async with serve(CONFIG) as server, server.sse("/topics/b"):
        await server.post("/topics/a", "x")
        await server.post("/topics/b", "x")
        first, second = server.server.watching.stats.topics()
        assert (first["topic"], first["clients"], first["kept"]) == ("topics/b", 1, 1)
        assert re.fullmatch("[0-9a-f]{8}-1", first["id"])
        assert second["topic"] == "topics/a"


async def test_topics_are_bounded(serve: Serve) -> None:
    """However many there are, a page is told of few."""
    async with serve(CONFIG) as server:
        for number in range(stats.TOPICS + 5):
            await server.post(f"/topics/{number}", "x")
        assert len(server.server.watching.stats.topics()) == stats.TOPICS


# Warnings


async def test_warnings(serve: Serve) -> None:
    """The last warnings of the log are kept, as they stand there."""
    async with serve(CONFIG) as server:
        logging.getLogger("realtime.bus").warning("so much: %d", 7)
        last = server.server.watching.stats.warnings.last[-1]
    assert (last["level"], last["logger"], last["message"]) == ("warning", "realtime.bus", "so much: 7")


async def test_warnings_have_no_secrets(serve: Serve) -> None:
    """A token that a plugin has logged is hidden here as in the log."""
    async with serve(CONFIG + AUTH) as server:
        logging.getLogger("plugin").warning("refused ?token=%s", token())
        last = server.server.watching.stats.warnings.last[-1]
    assert last["message"] == "refused ?token=***"


async def test_warnings_are_bounded(serve: Serve) -> None:
    """A flood of them leaves the newest, and a long one its beginning."""
    async with serve(CONFIG) as server:
        for number in range(WARNINGS + 5):
            logging.getLogger("plugin").warning("%d %s", number, "x" * 10_000)
        last = server.server.watching.stats.warnings.last
        assert len(last) == WARNINGS
        assert (last[0]["message"][:2], len(last[0]["message"])) == ("5 ", 1000)


async def test_warning_that_does_not_fit(serve: Serve) -> None:
    """A log call whose arguments are wrong costs nothing but its arguments."""
    handler = stats.Warnings(logging.WARNING)
    handler.emit(logging.LogRecord("plugin", logging.WARNING, "p.py", 1, "%d apples", ("many",), None))
    assert handler.last[-1]["message"] == "%d apples"


async def test_error_says_which(serve: Serve) -> None:
    """Of an error that was logged with its traceback it is told which one it was."""
    handler = stats.Warnings(logging.WARNING)
    error = LookupError("no such room")
    handler.emit(
        logging.LogRecord("plugin", logging.ERROR, "p.py", 1, "it failed", (), (LookupError, error, None))
    )
    assert handler.last[-1]["message"] == "it failed: LookupError: no such room"


class Mute(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise ValueError("nothing to say")


async def test_warning_without_text() -> None:
    """What cannot be shown as text is no error of who logs it."""
    handler, error = stats.Warnings(logging.WARNING), (Mute, Mute(), None)
    handler.emit(logging.LogRecord("plugin", logging.WARNING, "p.py", 1, Mute(), (), None))
    handler.emit(logging.LogRecord("plugin", logging.ERROR, "p.py", 1, "it failed", (), error))
    assert [one["message"] for one in handler.last] == ["", "it failed: Mute: "]


async def test_warning_that_cannot_be_encoded(serve: Serve) -> None:
    """What no JSON can say is spelled out, and the stream goes on."""
    async with serve(CONFIG) as server:
        logging.getLogger("plugin").warning("\udcff")
        last = server.server.watching.stats.warnings.last[-1]
    assert last["message"] == "\\udcff"


def test_log_that_is_not_configured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Python shows of a log without handlers it shows still, once, however many servers there are."""
    handlers = [stats.Warnings(logging.WARNING), stats.Warnings(logging.WARNING)]
    monkeypatch.setattr(logging.getLogger(), "handlers", handlers)
    logging.getLogger("theirs.of_the_host").warning("look here")
    assert capsys.readouterr().err == "look here\n"


def test_log_of_somebodys_own(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody's own handler takes is shown by that alone."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [stats.Warnings(logging.WARNING)])
    monkeypatch.setattr(logging.getLogger("theirs"), "handlers", [logging.NullHandler()])
    logging.getLogger("theirs.of_the_host").warning("look here")
    assert capsys.readouterr().err == ""


async def test_log_is_left_alone(serve: Serve) -> None:
    """When the server has ended nothing of it stands in the log."""
    async with serve(CONFIG) as server:
        handler = server.server.watching.stats.warnings
        assert handler in logging.getLogger().handlers
    assert handler not in logging.getLogger().handlers


# Quantiles


def histogram(*pairs: tuple[int, int]) -> list[int]:
    """So many at each of these indexes."""
    counts = [0] * (len(BOUNDS) + 1)
    for index, count in pairs:
        counts[index] = count
    return counts


@pytest.mark.parametrize(
    ("counts", "share", "wanted"),
    [
        (histogram(), 0.5, None),
        (histogram((0, 10)), 0.5, BOUNDS[0] / 2),
        (histogram((3, 100)), 0.5, (BOUNDS[2] + BOUNDS[3]) / 2),
        (histogram((3, 100)), 1.0, BOUNDS[3]),
        (histogram((3, 98), (6, 2)), 0.99, (BOUNDS[5] + BOUNDS[6]) / 2),
        (histogram((len(BOUNDS), 5)), 0.5, BOUNDS[-1]),
        (histogram((0, 1), (len(BOUNDS), 5)), 0.99, BOUNDS[-1]),
    ],
)
def test_quantile(counts: list[int], share: float, wanted: float | None) -> None:
    """Between two bounds what was counted is spread evenly; beyond the last nothing is known."""
    assert quantile(counts, share) == (wanted if wanted is None else pytest.approx(wanted))


def test_memory_is_that_of_the_process() -> None:
    """What is told of the memory is that of a Python with this package in it."""
    assert 10 * 2**20 < stats.memory() < 10 * 2**30
