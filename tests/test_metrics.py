"""The numbers for Prometheus: its own parser reads them, and they are those of ``/-/stats``."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import shelf
from prometheus_client import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from realtime.metrics import CONTENT_TYPE, METRICS, Metric, exposition, found
from realtime.testing import Harness, Serve

CONFIG = """
channels:
  echo: {plugin: echo, path: /ws}
  lobby: {plugin: chat, path: /chat, history: 10}
"""


async def families(server: Harness) -> dict[str, Family]:
    """What Prometheus makes of it, by name."""
    answer = await server.request("GET", "/-/metrics")
    assert answer.status == 200
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The places of all numbers in the JSON; a histogram is one."""
    if isinstance(value, dict) and "buckets" not in value:
        for key, one in value.items():
            yield from leaves(one, (*path, key))
    elif not isinstance(value, str | list):
        yield path


async def test_prometheus_reads_it(serve: Serve) -> None:
    """Its parser finds every metric, of the kind that it is."""
    async with serve(CONFIG) as server:
        read = await families(server)
    assert {name: family.type for name, family in read.items()} == {
        metric.name.removesuffix("_total"): metric.kind for metric in METRICS
    }


async def test_content_type(serve: Serve) -> None:
    """It says in which version of which format it is."""
    async with serve(CONFIG) as server:
        answer = await server.request("GET", "/-/metrics")
    assert answer.headers["Content-Type"] == CONTENT_TYPE


async def test_labels(serve: Serve) -> None:
    """What is of a channel has that as a label."""
    async with serve(CONFIG) as server, server.ws("/chat?name=ann"), server.sse("/chat"):
        read = await families(server)
    clients = {tuple(sample.labels.values()): sample.value for sample in read["realtime_clients"].samples}
    assert clients["lobby", "websocket"] == clients["lobby", "sse"] == 1
    assert clients["echo", "websocket"] == 0


async def test_counter(serve: Serve) -> None:
    """A counter goes up by what has happened."""
    async with serve(CONFIG) as server, server.ws("/ws") as client:
        await client.send("x")
        await client.receive()
        read = await families(server)
    received = {
        sample.labels["channel"]: sample.value for sample in read["realtime_messages_received"].samples
    }
    assert received == {"echo": 1, "lobby": 0}


async def test_engine(serve: Serve) -> None:
    """Prometheus reads whether the engine is there, and what has happened to it."""
    async with serve(shelf.BUS + CONFIG, shelf.FILES) as server:
        engine: Any = server.bus.engine
        engine.trouble, engine.counters = "it is away", Counter(reconnects=3, late=1)
        read = await families(server)
    events = {sample.labels["event"]: sample.value for sample in read["realtime_engine_events"].samples}
    assert events == {"reconnects": 3, "late": 1}
    assert [sample.value for sample in read["realtime_engine_up"].samples] == [0]


async def test_histogram_is_cumulative(serve: Serve) -> None:
    """Each bucket has what those before it have, and the last one is the count."""
    async with serve(CONFIG) as server, server.ws("/chat?name=ann"):
        await server.clock.advance(2.1)
        read = await families(server)
    samples = read["realtime_loop_lag_seconds"].samples
    buckets = [sample.value for sample in samples if sample.name.endswith("_bucket")]
    count = next(sample.value for sample in samples if sample.name.endswith("_count"))
    assert buckets == sorted(buckets)
    assert buckets[-1] == count > 5


async def test_every_number_has_a_metric(serve: Serve) -> None:
    """No number of /-/stats is missing: what is told per second Prometheus reckons itself."""
    async with serve(CONFIG) as server, server.ws("/ws") as client:
        await client.close()
        await server.request("GET", "/nowhere")
        server.server.connections.refused["404"] += 1
        stats = json.loads((await server.request("GET", "/-/stats")).text)
    there = set(leaves({key: value for key, value in stats.items() if key not in ("now", "time")}))
    patterns = [
        re.compile(re.sub(r"\{\w+\}", "[^/]+", metric.path.replace(".", "/"))) for metric in METRICS
    ]
    missing = [path for path in there if not any(one.fullmatch("/".join(path)) for one in patterns)]
    assert sorted(missing) == [("bus", "kept_bytes"), ("bus", "topics")]  # the sums of the channels'


def test_every_metric_has_its_number() -> None:
    """Each is named once, and stands in one place."""
    assert (
        len({metric.name for metric in METRICS}) == len({metric.path for metric in METRICS}) == len(METRICS)
    )


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_conventions(metric: Metric) -> None:
    """Names have their unit and, of a counter, ``_total`` at their end; and each is explained."""
    assert re.fullmatch("(realtime|process)(_[a-z]+)+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.kind != "histogram" or metric.name.endswith("_seconds")
    assert metric.help[0].isupper() or metric.help[0].isdigit()
    assert metric.help.endswith(".")


def test_label_is_escaped() -> None:
    """A quote, a backslash or a line break in a label ends nothing."""
    stats = {"connections": {"refused": {'a"b\\c\nd': 1}}}
    (metric,) = [one for one in METRICS if one.name == "realtime_requests_refused_total"]
    assert list(found(stats, metric.path.split("."))) == [({"reason": 'a"b\\c\nd'}, 1)]


async def test_escaped_label_is_read(serve: Serve) -> None:
    """Prometheus reads such a label as it was."""
    async with serve(CONFIG) as server:
        server.server.connections.refused['a"b\\n\nd'] += 1
        text = exposition(server.server.watching.stats.read())
    read = {family.name: family for family in text_string_to_metric_families(text)}
    (sample,) = read["realtime_requests_refused"].samples
    assert sample.labels == {"reason": 'a"b\\n\nd'}


async def test_series_are_bounded(serve: Serve) -> None:
    """Whatever clients do, there are no more series."""
    async with serve(CONFIG) as server:
        before = (await server.request("GET", "/-/metrics")).text.count("\n")
        for number in range(20):
            async with server.ws(f"/chat?name=user{number}") as client:
                await client.close()
        after = (await server.request("GET", "/-/metrics")).text.count("\n")
    assert after - before <= 1  # that somebody has ended
