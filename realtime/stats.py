"""The numbers of a server: read at once, and sampled with every second for whoever looks later.

What the hot path counts is in ``traffic``, ``bus`` and ``transports.connections``; here it is added up.
``metrics`` and ``watching`` show it.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from realtime.bus import Bus
from realtime.channel import Transport
from realtime.close_codes import LOST, CloseCode
from realtime.logs import redact
from realtime.topic import Topic, TopicOptions
from realtime.traffic import BOUNDS, COUNTED, Histogram
from realtime.version import __version__

if TYPE_CHECKING:
    from realtime.server import Server

#: How often it is looked how late the event loop is, and how many such looks make a sample, in a second.
PROBE, PROBES = 0.25, 4
#: How many samples are kept: five minutes of them.
HISTORY = 300
#: How many warnings are kept, and of how many topics the stream tells.
WARNINGS, TOPICS = 50, 20
#: How much of a warning is kept, in characters.
LONGEST = 1000
#: What clients connect by and stay.
STREAMS: tuple[str, ...] = get_args(Transport)[:-1]
#: Which of the counters of channels a sample has, of all together and per second.
RATES = ("received", "published", "delivered", "sent", "written_bytes")

#: The name of the channel that who watches is on; no config can give it to another.
CHANNEL = "-stats"

_PAGE = resource.getpagesize()


class Totals(NamedTuple):
    """What a sample is the difference of."""

    at: float
    cpu: float
    counted: list[int]
    handlers: dict[str, float]
    delivery_lag: list[int]
    loop_lag: list[int]


class Stats:
    """The numbers of one server, from :meth:`start` to :meth:`stop`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.started = time.time()
        self.loop_lag = Histogram()
        self.warnings = Warnings(logging.WARNING)
        #: What was so in each of the last seconds, the oldest first.
        self.history: deque[dict[str, Any]] = deque(maxlen=HISTORY)
        #: Where the numbers go with every second, for who watches: a bus of their own.
        self.bus = Bus(topics=1, wall_time=server.bus.wall_time)
        self.bus.declare(CHANNEL, TopicOptions(overflow="latest"))
        self._before: Totals
        self._latest = 0.0  # how late the loop was at most since the last sample
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to sample."""
        logging.getLogger().addHandler(self.warnings)
        self._before = self._totals()
        self._task = asyncio.create_task(self._run(), name="stats")

    async def stop(self) -> None:
        """End it."""
        logging.getLogger().removeHandler(self.warnings)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self.bus.close()

    async def _run(self) -> None:
        while True:
            for _ in range(PROBES):
                due = time.perf_counter() + PROBE
                await asyncio.sleep(PROBE)
                late = max(time.perf_counter() - due, 0.0)
                self.loop_lag.add(late)
                self._latest = max(self._latest, late)
            try:
                self.history.append(self._sample())
                await self._tell()
            except Exception:
                logging.getLogger("realtime.stats").exception("the numbers of this second are missing")

    async def _tell(self) -> None:
        """Publish what there is to know, if somebody watches."""
        topic = self.bus.find(CHANNEL)
        if topic is not None and topic.subscribers:
            whole = {"stats": self.read(), "topics": self.topics(), "warnings": list(self.warnings.last)}
            await self.bus.publish(CHANNEL, whole, event="stats")

    # Reading

    def read(self) -> dict[str, Any]:
        """All numbers, as ``/-/stats`` has them. Counters are since the start, times in seconds."""
        server, now = self._server, self._now()
        bus, connections, watchdog = server.bus, server.connections, server.watchdog
        counters = bus.counters
        return {
            "time": time.time(),
            "started": self.started,
            "version": __version__,
            "engine": {
                "name": server.config.bus.engine,
                "up": not bus.engine.trouble,
                "reason": bus.engine.trouble,
                "node": bus.engine.node,
                "counters": dict(getattr(bus.engine, "counters", ())),
            },
            "ready": not server.unready,
            "reasons": server.unready,
            "process": {
                "cpu_seconds": time.process_time(),
                "memory_bytes": memory(),
                "loop_lag_seconds": _told(self.loop_lag),
                "loop_holds": watchdog.holds if watchdog else 0,
                "loop_longest_hold_seconds": watchdog.longest if watchdog else 0.0,
            },
            "bus": {
                "topics": len(bus.topics),
                "kept_bytes": bus.size,
                **{name: counters[name] for name in ("lags", "laps", "missed", "overruns", "refused")},
                "shed_bytes": counters["shed"],
            },
            "connections": {
                "opened": connections.ended.total() + len(connections),
                "ended": _by_code(connections.ended),
                "refused": dict(connections.refused),
                "users": len(connections.users),
                "addresses": len(connections.addresses),
                "unfinished_bytes": connections.unfinished,
            },
            "delivery_lag_seconds": _told(bus.delays),
            "channels": self._channels(),
            "now": now,
        }

    def topics(self) -> list[dict[str, Any]]:
        """Of the topics with the most clients: where they stand, and what they keep."""
        largest = sorted(self._server.bus.topics, key=lambda topic: -len(topic.members))[:TOPICS]
        return [
            {
                "topic": topic.name,
                "channel": topic.name.partition("/")[0],
                "id": str(topic.position),
                "clients": len(topic.members),
                "lagging": len(topic.lagging),
                "kept": kept(topic),
                "kept_bytes": topic.size,
            }
            for topic in largest
        ]

    def _channels(self) -> dict[str, Any]:
        server = self._server
        topics = by_channel(server.bus.topics)
        told = {}
        for name, channel in server.channels.items():
            traffic = server.bus.traffic[name]
            told[name] = {
                "plugin": channel.settings.plugin,
                "clients": {kind: server.connections.streams[name, kind] for kind in STREAMS},
                "lagging": sum(len(topic.lagging) for topic in topics[name]),
                "topics": len(topics[name]),
                "kept": sum(map(kept, topics[name])),
                "kept_bytes": sum(topic.size for topic in topics[name]),
                **{what: getattr(traffic, what) for what in COUNTED},
            }
        return told

    # Samples

    def _now(self) -> dict[str, Any]:
        return self.history[-1] if self.history else self._sample()

    def _totals(self) -> Totals:
        bus = self._server.bus
        all_of_it = bus.traffic.values()  # also of channels that have gone: they may come back
        return Totals(
            bus.now(),
            time.process_time(),
            [sum(getattr(one, what) for one in all_of_it) for what in RATES],
            {name: bus.traffic[name].handler_seconds for name in self._server.channels},
            list(bus.delays.counts),
            list(self.loop_lag.counts),
        )

    def _sample(self) -> dict[str, Any]:
        before, now = self._before, self._totals()
        for traffic in self._server.bus.traffic.values():
            traffic.pace()
        self._before, latest, self._latest = now, self._latest, 0.0
        server, seconds = self._server, max(now.at - before.at, 1e-3)
        rate = [(a - b) / seconds for a, b in zip(now.counted, before.counted, strict=True)]
        delivery = [a - b for a, b in zip(now.delivery_lag, before.delivery_lag, strict=True)]
        loop = [a - b for a, b in zip(now.loop_lag, before.loop_lag, strict=True)]
        # Within its bucket a quantile is a guess, and none is above the most that there was.
        middle = min(quantile(loop, 0.5) or 0.0, latest)
        return {
            "time": time.time(),
            "clients": {
                kind: sum(server.connections.streams[name, kind] for name in server.channels)
                for kind in STREAMS
            },
            **dict(zip(RATES, rate, strict=True)),
            "cpu": (now.cpu - before.cpu) / seconds,
            "memory_bytes": memory(),
            "lagging": sum(len(topic.lagging) for topic in server.bus.topics),
            "topics": len(server.bus.topics),
            "delivery_lag_seconds": {"p50": quantile(delivery, 0.5), "p99": quantile(delivery, 0.99)},
            "loop_lag_seconds": {"p50": middle, "max": latest},
            "handlers": {
                name: round((spent - before.handlers.get(name, spent)) / seconds, 6)
                for name, spent in now.handlers.items()
            },
        }


class Warnings(logging.Handler):
    """The last warnings and errors of the log, as it has them."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.last: deque[dict[str, Any]] = deque(maxlen=WARNINGS)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        message = _said(record.getMessage) or _said(lambda: str(record.msg))  # its arguments may not fit
        error = record.exc_info and record.exc_info[1]
        if error:
            message += f": {type(error).__name__}: {_said(lambda: str(error))}"
        self.last.append(
            {
                "time": record.created,
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": message[:LONGEST],
            }
        )
        if logging.lastResort and self._is_alone(logging.getLogger(record.name)):
            logging.lastResort.handle(record)

    def _is_alone(self, logger: logging.Logger | None) -> bool:
        """Whether nobody else has this: what no handler takes Python itself shows, and still is to."""
        others: list[logging.Handler] = []
        while logger is not None:
            others += logger.handlers
            logger = logger.parent
        return all(type(other) is Warnings for other in others) and others[:1] == [self]


def _said(what: Callable[[], str]) -> str:
    """What anybody's object says, without secrets, as text that can be encoded; nothing if it fails."""
    try:
        return redact(what()[: 4 * LONGEST]).encode("utf-8", "backslashreplace").decode()
    except Exception:
        return ""


def by_channel(topics: Iterable[Topic]) -> defaultdict[str, list[Topic]]:
    """Topics by the name of the channel that they are of."""
    found: defaultdict[str, list[Topic]] = defaultdict(list)
    for topic in topics:
        found[topic.name.partition("/")[0]].append(topic)
    return found


def kept(topic: Topic) -> int:
    """How many messages a topic keeps."""
    return topic.head - topic.base + 1


def memory() -> int:
    """What the process has in memory now, in bytes; where that cannot be told, the most that it had."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def quantile(counts: Sequence[int], share: float) -> float | None:
    """The time, in seconds, within which a share of what a histogram counted was done; None of nothing.

    What falls between two of its :data:`BOUNDS` is taken to be spread evenly.
    """
    wanted, seen = share * sum(counts), 0
    if not wanted:
        return None
    for index, count in enumerate(counts):
        if count and seen + count >= wanted:
            if index == len(BOUNDS):
                break
            low = BOUNDS[index - 1] if index else 0.0
            return low + (BOUNDS[index] - low) * (wanted - seen) / count
        seen += count
    return BOUNDS[-1]


def _told(histogram: Histogram) -> dict[str, Any]:
    buckets, seen = {}, 0
    for bound, count in zip((*BOUNDS, None), histogram.counts, strict=True):
        seen += count
        buckets["+Inf" if bound is None else f"{bound:g}"] = seen
    return {"count": seen, "sum": histogram.sum, "buckets": buckets}


def _by_code(ended: dict[int, int]) -> dict[str, int]:
    """By the codes of the server; what plugins and clients say beside them is without number."""
    told: dict[str, int] = defaultdict(int)
    for code, number in ended.items():
        known = code in {*CloseCode, LOST}
        told[str(int(code)) if known else f"{code // 1000}xxx"] += number
    return told
