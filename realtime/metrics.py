"""The same numbers for Prometheus, in its text format (version 0.0.4).

Each metric is named with its place in the JSON of ``/-/stats``, in which ``{channel}`` stands for every
key there, and for the value of a label. So both have the same, and no label has more values than the
config, or this server, has words for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

#: What the answer is.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metric(NamedTuple):
    """One metric: what it is, its name, where its value stands, and what people are told of it."""

    #: ``counter``, ``gauge`` or ``histogram``.
    kind: str
    name: str
    path: str
    help: str

    @property
    def labels(self) -> list[str]:
        """The names of its labels."""
        return re.findall(r"{(\w+)}", self.path)


#: Two lines for each: its kind, its name and where it stands; and what people are told of it.
_TABLE = """
gauge     process_start_time_seconds started
    When the server began, since 1970.
counter   process_cpu_seconds_total process.cpu_seconds
    Time of the processor that it has used.
gauge     process_resident_memory_bytes process.memory_bytes
    What the process has in memory.
gauge     realtime_ready ready
    1 while /-/ready says yes.
gauge     realtime_engine_up engine.up
    1 while the engine of the bus takes what is published.
counter   realtime_engine_events_total engine.counters.{event}
    What has happened to the engine, by what; memory has none.
histogram realtime_loop_lag_seconds process.loop_lag_seconds
    How late the event loop is, looked at four times a second.
counter   realtime_loop_holds_total process.loop_holds
    How often something held the event loop for longer than server.watchdog.
gauge     realtime_loop_longest_hold_seconds process.loop_longest_hold_seconds
    For how long at most.
gauge     realtime_clients channels.{channel}.clients.{transport}
    Connections that are open.
gauge     realtime_lagging_clients channels.{channel}.lagging
    Clients that do not keep up at this moment.
gauge     realtime_topics channels.{channel}.topics
    Topics that there are.
gauge     realtime_kept_messages channels.{channel}.kept
    Messages that are kept, for newcomers and for who lags.
gauge     realtime_kept_bytes channels.{channel}.kept_bytes
    What these take; all together server.limits.memory at most.
counter   realtime_messages_received_total channels.{channel}.received
    Messages that clients have sent.
counter   realtime_messages_published_total channels.{channel}.published
    Messages that were published.
counter   realtime_messages_delivered_total channels.{channel}.delivered
    Published messages handed to clients, for each client one.
counter   realtime_messages_sent_total channels.{channel}.sent
    Messages to one client alone.
counter   realtime_writes_total channels.{channel}.writes
    Writes of published messages; one has many of them.
counter   realtime_written_bytes_total channels.{channel}.written_bytes
    The bytes of these.
counter   realtime_handler_seconds_total channels.{channel}.handler_seconds
    For how long the plugin's methods that deal with clients have held the event loop.
histogram realtime_delivery_lag_seconds delivery_lag_seconds
    How long a published message took to be handed to a client.
counter   realtime_connections_opened_total connections.opened
    Connections that have begun.
counter   realtime_connections_ended_total connections.ended.{code}
    Connections that have ended, by close code; those of plugins together.
counter   realtime_requests_refused_total connections.refused.{reason}
    Requests to channels that were refused, by the limit or the status.
gauge     realtime_users connections.users
    Different identities that are connected.
gauge     realtime_addresses connections.addresses
    Different addresses that are connected.
gauge     realtime_unfinished_bytes connections.unfinished_bytes
    What messages take that have not come whole.
counter   realtime_lags_total bus.lags
    How often a client began to lag.
counter   realtime_laps_total bus.laps
    How often one was left behind by what is kept.
counter   realtime_messages_missed_total bus.missed
    Messages that these have missed, each of them told.
counter   realtime_overruns_total bus.overruns
    Clients that were closed for being too slow.
counter   realtime_messages_refused_total bus.refused
    Messages too large to be published.
counter   realtime_shed_bytes_total bus.shed_bytes
    What was given up because server.limits.memory was reached.
"""


def _read(table: str) -> Iterator[Metric]:
    lines = iter(table.strip().splitlines())
    for line, text in zip(lines, lines, strict=True):
        kind, name, path = line.split()
        yield Metric(kind, name, path, text.strip())


METRICS = tuple(_read(_TABLE))


def exposition(stats: dict[str, Any]) -> str:
    """What Prometheus reads, of what :meth:`Stats.read` says."""
    lines: list[str] = []
    for kind, name, path, text in METRICS:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        for labels, value in found(stats, path.split(".")):
            if kind != "histogram":
                lines.append(f"{name}{_spelled(labels)} {_number(value)}")
                continue
            for bound, count in value["buckets"].items():
                lines.append(f"{name}_bucket{_spelled({**labels, 'le': bound})} {count}")
            lines.append(f"{name}_sum{_spelled(labels)} {_number(value['sum'])}")
            lines.append(f"{name}_count{_spelled(labels)} {value['count']}")
    return "\n".join([*lines, ""])


def found(value: Any, path: list[str]) -> Iterator[tuple[dict[str, str], Any]]:
    """The values at a place, each with its labels."""
    if not path:
        yield {}, value
        return
    key, *rest = path
    label = key[1:-1] if key.startswith("{") else ""
    for name in value if label else [key]:
        for labels, one in found(value[name], rest):
            yield {**({label: name} if label else {}), **labels}, one


def _spelled(labels: dict[str, str]) -> str:
    spelled = [f'{name}="{_escaped(value)}"' for name, value in labels.items()]
    return f"{{{','.join(spelled)}}}" if spelled else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return repr(int(value) if isinstance(value, bool) else value)
