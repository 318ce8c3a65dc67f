"""What is measured: each workload as options of ``rtload``, and which of its figures are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Who is left out of a workload, by name, and why.
NO_STREAMS = {
    "websockets": "it serves WebSockets only, no event streams",
    "picows": "it serves WebSockets only, no event streams",
}
NO_CROWD = dict.fromkeys(
    ("socketify", "ws", "picows", "websockets", "starlette", "aiohttp"),
    "until ten thousand have joined a room takes fifty million deliveries, and here minutes",
)


@dataclass(frozen=True)
class Figure:
    """One column: where it is in what ``rtload`` says, what it is called and how it is written."""

    key: str
    title: str
    unit: str = "count"  # count | ms | kib | mib | share


@dataclass(frozen=True)
class Table:
    """A table of a workload; the first figure is the one that is compared."""

    title: str
    figures: tuple[Figure, ...]
    less_is_better: bool = False


@dataclass(frozen=True)
class Workload:
    """What a server is asked to do."""

    name: str
    says: str
    mode: str
    path: str
    options: Mapping[str, float]
    quick: Mapping[str, float]
    tables: tuple[Table, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    #: Whether it is measured when no workload is named.
    usual: bool = True
    #: Whether a run compares a server with itself, and not with Realtime.
    alone: bool = False

    def arguments(self, quick: bool, streams_path: str) -> list[str]:
        """The options for ``rtload``."""
        options = {**self.options, **(self.quick if quick else {})}
        found = [f"{name}={value:g}" for name, value in options.items()]
        return [*found, f"streams_path={streams_path}"] if "streams" in options else found


FLOW = (
    Figure("during.per_s", "per second"),
    Figure("during.p50_ms", "p50", "ms"),
    Figure("during.p99_ms", "p99", "ms"),
    Figure("during.p999_ms", "p99.9", "ms"),
    Figure("during.busy", "CPU", "share"),
    Figure("rss_mib", "resident", "mib"),
)
DELIVERIES = (Figure("during.per_cpu_s", "deliveries per CPU second"), *FLOW)
USUAL = {"size": 128, "cpu": 2, "secs": 8, "warm": 0.5}
QUICK = {"cpu": 0.5, "secs": 3, "warm": 0.2}
BUSY = {**USUAL, "conns": 1000, "talkers": 10, "window": 64}

WORKLOADS = (
    Workload(
        "busy",
        "1,000 clients in one room. 10 of them talk, 128 bytes a text, 64 texts on their way.",
        "room",
        "/chat",
        BUSY,
        {**QUICK, "conns": 500},
        (Table("Busy room", DELIVERIES),),
    ),
    Workload(
        "busy10",
        "The same with 10 texts on their way, about one of each who talks.",
        "room",
        "/chat",
        {**BUSY, "window": 10},
        {**QUICK, "conns": 500},
        (Table("Busy room, 10 on their way", DELIVERIES),),
        usual=False,
    ),
    Workload(
        "quiet",
        "500 clients in one room, 128 bytes a text, one text at a time: the next when all have the last.",
        "room",
        "/chat",
        {**USUAL, "conns": 500, "talkers": 10, "window": 1},
        {**QUICK, "conns": 200},
        (Table("Quiet room", DELIVERIES),),
    ),
    Workload(
        "echo",
        "50 clients, each with one text of 128 bytes on its way.",
        "echo",
        "/ws",
        {**USUAL, "conns": 50, "window": 1},
        QUICK,
        (Table("Echo", (Figure("during.per_cpu_s", "echoes per CPU second"), *FLOW)),),
    ),
    Workload(
        "connections",
        "5,000 WebSockets to the echo, 50 handshakes at a time; each is answered once and then idle.",
        "idle",
        "/ws",
        {"conns": 5000},
        {"conns": 2000},
        (
            Table(
                "Connect rate",
                (Figure("per_cpu_s", "handshakes per CPU second"), Figure("per_s", "per second")),
            ),
            Table(
                "Idle memory",
                (
                    Figure("kib_per_client", "resident per idle client", "kib"),
                    Figure("rss_mib", "resident in all", "mib"),
                ),
                less_is_better=True,
            ),
        ),
    ),
    Workload(
        "stalled",
        "The busy room without, with, and again without 50 clients that never read. What the others get"
        " with them is divided by what they get without.",
        "room",
        "/chat",
        # For six seconds first: Realtime keeps five seconds for slow readers, whether there are any or not.
        {**BUSY, "cpu": 1, "secs": 4, "stalled": 50, "settle": 6},
        {**QUICK, "conns": 300, "settle": 1},
        (
            Table(
                "Stalled clients",
                (
                    Figure("stalled.per_s", "deliveries per second, with ÷ without", "share"),
                    Figure("stalled.p99_ms", "p99, with ÷ without", "share"),
                    Figure("stalled.kib", "per stalled client, kernel included", "kib"),
                    Figure("cut", "cut off by the server"),
                    Figure("during.per_s", "per second, with"),
                    Figure("during.p99_ms", "p99, with", "ms"),
                ),
            ),
        ),
        alone=True,
    ),
    Workload(
        "crowd",
        "10,000 clients in one room, 5 texts of 128 bytes a second. The time is that until a text has"
        " reached all of them.",
        "room",
        "/chat",
        {"conns": 10000, "talkers": 10, "size": 128, "rate": 5, "cpu": 1e6, "secs": 12, "warm": 1},
        {"conns": 3000, "secs": 4},
        (
            Table(
                "A crowd",
                (
                    Figure("during.all_p99_ms", "p99 till all have it", "ms"),
                    Figure("during.all_p50_ms", "p50 till all have it", "ms"),
                    Figure("during.p50_ms", "p50 of each", "ms"),
                    Figure("during.per_cpu_s", "deliveries per CPU second"),
                    Figure("during.busy", "CPU", "share"),
                    Figure("rss_mib", "resident", "mib"),
                ),
                less_is_better=True,
            ),
        ),
        left_out=NO_CROWD,
    ),
    Workload(
        "sse",
        "1,000 event streams of a room in which 10 WebSockets talk, 128 bytes a text, 64 on their way.",
        "room",
        "/chat",
        {**BUSY, "conns": 10, "streams": 1000},
        {**QUICK, "streams": 500},
        (Table("Event streams", DELIVERIES),),
        left_out=NO_STREAMS,
    ),
)


def value(said: Mapping[str, Any], key: str) -> float:
    """A figure in what ``rtload`` says, or one that follows from it."""
    section, _, name = key.rpartition(".")
    if section == "stalled":
        if name == "kib":
            return float(said["resident_kib_per_stalled"] + said["kernel_kib_per_stalled"])
        without = (said["before"][name] + said["after"][name]) / 2
        return float(said["during"][name] / without)
    if name == "busy":
        return float(said[section]["cpu"] / said[section]["secs"])
    return float((said[section] if section else said)[name])


def at_its_limit(said: Mapping[str, Any]) -> bool:
    """Whether the load client had no time left, so that it and not the server set the pace."""
    return bool(said.get("during", {}).get("client", 0) > 0.95)
