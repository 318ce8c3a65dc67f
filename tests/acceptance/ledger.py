"""What was said and what was seen: the claims on a log that several processes share.

A `Witness` follows what one client sees, over its whole life and all its connections. A `Ledger` has
what was said to a topic, and at the end compares what all its witnesses saw. Whatever is not as it should
be raises `Violation`.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

#: So much of what it saw last a witness tells in full.
LATE = 30
#: What the server says of a connection: it has no place in the log.
ASIDE = ("realtime:heartbeat", "realtime:members", "realtime:bye")


class Violation(AssertionError):
    """Something was seen that must not be."""


class Position(NamedTuple):
    """Where a message stands."""

    epoch: str
    offset: int

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read it as it is written on every wire."""
        epoch, _, offset = text.rpartition("-")
        return cls(epoch, int(offset))

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}"


def plain(data: Any) -> Any:
    """Data as they were said: an event stream shows JSON as a text."""
    try:
        return json.loads(data) if isinstance(data, str) else data
    except ValueError:
        return data


@dataclass
class Segment:
    """What a client saw of one epoch, between two marks: without a hole but those it was told of."""

    epoch: str
    start: int
    seen: dict[int, str] = field(default_factory=dict)


class Witness:
    """What one client sees of a topic, over its whole life."""

    def __init__(self, name: str, now: Callable[[], float], kept: bool) -> None:
        """``kept``: the topic keeps all that was said, so a reset begins anew with the first message."""
        self.name = name
        self.kept = kept
        self.cursor: Position | None = None
        self.segments: list[Segment] = []
        self.gaps = self.resets = self.connections = 0
        #: Whether it was told on this connection that the engine is away, and not yet that it is back.
        self.degraded = False
        self._noted: list[str] = []
        self._now = now
        self._asked: Position | None = None
        self._welcome: dict[str, Any] | None = None
        self._marked = True  # the marker that the welcome has promised has come

    def stands_at(self, end: Position) -> bool:
        """Whether it has seen all up to there."""
        return self.cursor is not None and self.cursor.epoch == end.epoch and self.cursor >= end

    def note(self, what: str) -> None:
        """Remember it for people."""
        self._noted.append(f"{self._now():8.3f} {what}")

    def wrong(self, what: str) -> NoReturn:
        """It must not have come to this."""
        self.note(f"<-- {what}")
        raise Violation(f"{self.name}: {what}\nwhat it saw:\n{self.story}")

    @property
    def story(self) -> str:
        """What it saw, for people: of many messages in a row the first and the last, but for the end."""
        told: list[str] = []
        early, late = self._noted[:-LATE], self._noted[-LATE:]
        for message, run in itertools.groupby(early, key=lambda line: " message " in line):
            lines = list(run)
            if message and len(lines) > 5:
                lines[2:-2] = [f"{len(lines) - 4:>12} more"]
            told += lines
        return "\n".join([*told, *late])

    def connects(self, where: str) -> None:
        """It connects, and asks for what follows its cursor if it has one."""
        self.connections += 1
        self._asked, self._welcome, self._marked, self.degraded = self.cursor, None, True, False
        self.note(f"connects to {where} since {self.cursor}")

    def sees(self, item: dict[str, Any]) -> None:
        """It sees an event."""
        event, data = item["event"], item["data"]
        id = Position.parse(item["id"]) if "id" in item else None
        self.note(f"{id or ''!s:>16} {event} {str(data)[:80]}")
        if event in ASIDE:
            return
        if event == "realtime:welcome":
            self._welcomed(data, id)
        elif self._welcome is None:
            self.wrong("an event came before the welcome")
        elif event == "realtime:degraded":
            self.degraded = True
        elif event == "realtime:restored":
            if not self.degraded:
                self.wrong("restored, and it was not told that the engine was away")
            self.degraded = False
        elif event == "realtime:error":
            self.wrong("it said nothing, and is told of an error")
        elif id is None:
            self.wrong("a message without a position")
        elif event == "realtime:gap":
            self._gap(int(data["missed"]), id)
        elif event == "realtime:reset":
            self._reset(id)
        else:
            self._message(f"{event} {json.dumps(plain(data), sort_keys=True)}", id)

    def _welcomed(self, data: dict[str, Any], id: Position | None) -> None:
        if self._welcome is not None:
            self.wrong("a second welcome")
        self._welcome = data
        outcome = data["outcome"]
        if self._asked is None:
            if outcome != "new" or id is None:
                self.wrong("nothing was asked for")
            else:
                self._begin(id)
        elif outcome == "recovered":
            if id != self._asked:
                self.wrong(f"recovered, and not from {self._asked}")
        elif outcome in ("gap", "reset"):
            self._marked = False  # the marker brings the position
            if id is not None:
                self.wrong("a position before the marker")
        else:
            self.wrong("no such outcome")

    def _begin(self, id: Position) -> None:
        self.cursor = id
        self.segments.append(Segment(id.epoch, id.offset))

    def _gap(self, missed: int, id: Position) -> None:
        assert self.cursor is not None
        assert self._welcome is not None
        if not self._marked and (self._welcome["outcome"], self._welcome.get("missed")) != ("gap", missed):
            self.wrong("the welcome said something else")
        if missed < 1 or id != (self.cursor.epoch, self.cursor.offset + missed):
            self.wrong(f"it stood at {self.cursor}, and {missed} missed does not bring it to {id}")
        self.gaps += 1
        self._marked = True
        self.cursor = id

    def _reset(self, id: Position) -> None:
        if self.kept and id.offset:
            self.wrong("a reset does not begin with the first message")
        self.resets += 1
        self._marked = True
        self._begin(id)

    def _message(self, value: str, id: Position) -> None:
        assert self.cursor is not None
        if not self._marked:
            self.wrong("a message before the marker")
        if id != (self.cursor.epoch, self.cursor.offset + 1):
            self.wrong(f"it stood at {self.cursor}, and the next is {id}")
        self.cursor = id
        self.segments[-1].seen[id.offset] = value


@dataclass
class Said:
    """A message that somebody published, once or again and again under one key."""

    publisher: str
    wave: int  # what the publisher says at once; the next wave is said when it knows of all of these
    value: str  # as a witness sees it
    acknowledged: Position | None = None
    #: When it was said in vain, from when to when, the answer (503, or 0 if there was none), and by whom.
    refused: list[tuple[float, float, int, str]] = field(default_factory=list)


class Ledger:
    """What was said to a topic, and what its witnesses saw of it."""

    def __init__(self, topic: str, kept: bool) -> None:
        self.topic = topic
        self.kept = kept
        #: By what a witness sees of it.
        self.said: dict[str, Said] = {}
        self.witnesses: list[Witness] = []

    def __str__(self) -> str:
        acknowledged = sum(said.acknowledged is not None for said in self.said.values())
        seen = sum(len(segment.seen) for _, segment in self.segments)
        told = f"{self.topic}: {len(self.said)} said, {acknowledged} acknowledged, {seen} seen"
        counts = ((each.connections, each.gaps, each.resets) for each in self.witnesses)
        connections, gaps, resets = map(sum, zip(*counts, strict=True))
        return f"{told} on {connections} connections, {gaps} gaps, {resets} resets"

    def wrong(self, what: str, *witnesses: Witness) -> NoReturn:
        """It must not have come to this."""
        stories = "".join(f"\n{each.name} last saw:\n" + each.story for each in witnesses)
        raise Violation(f"{self.topic}: {what}{stories}")

    @property
    def segments(self) -> list[tuple[Witness, Segment]]:
        """All that was seen."""
        return [(witness, segment) for witness in self.witnesses for segment in witness.segments]

    def check(self, losses: int, rollbacks: int, end: Position) -> None:
        """All witnesses have come to the end.

        ``losses``: how often data of Redis were lost, ``rollbacks``: how often of these they went back to
        what they were before, so that positions may have been given a second time.
        """
        self._agree(rollbacks)
        places: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for (epoch, _offset), values in self._values().items():
            for value in values:
                if value.startswith("message "):
                    if value not in self.said:
                        self.wrong(f"nobody said {value}")
                    places[value][epoch] += 1
        for value, epochs in places.items():
            if not losses and len(epochs) > 1:
                self.wrong(f"{value} is in two epochs: {epochs}")
            if max(epochs.values()) > 1 + rollbacks:
                self.wrong(f"{value} is in the log twice: {self._where(value)}")
        if not rollbacks:
            self._in_order()
            self._acknowledged(end)
        for witness in self.witnesses:
            if witness.resets > losses:
                self.wrong(f"{witness.name}: {witness.resets} resets for {losses} losses", witness)
            if self.kept and witness.gaps:
                self.wrong(f"{witness.name}: a gap, and everything is kept", witness)

    def _values(self) -> dict[tuple[str, int], set[str]]:
        values: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
        for _, segment in self.segments:
            for offset, value in segment.seen.items():
                values[segment.epoch, offset].add(value)
        return values

    def _where(self, wanted: str) -> str:
        return "; ".join(
            f"{segment.epoch}-{offset} by {witness.name}"
            for witness, segment in self.segments
            for offset, value in segment.seen.items()
            if value == wanted
        )

    def _agree(self, rollbacks: int) -> None:
        """What any two saw of one epoch is the same; where it went back, up to there and never again."""
        for (one, first), (other, second) in itertools.combinations(self.segments, 2):
            if first.epoch != second.epoch or first.seen == second.seen:
                continue
            parted = None
            for offset in sorted(first.seen.keys() & second.seen.keys()):
                if first.seen[offset] != second.seen[offset]:
                    parted = offset if parted is None else parted
                    if not rollbacks:
                        two = f"{first.seen[offset]} and {second.seen[offset]}"
                        self.wrong(f"two messages at {first.epoch}-{offset}: {two}", one, other)
                elif parted is not None:
                    at = f"{first.epoch}-{parted}, and not at {first.epoch}-{offset}"
                    self.wrong(f"{one.name} and {other.name} saw another message at {at}", one, other)

    def _in_order(self) -> None:
        """What a publisher said later, knowing of all before it, stands behind."""
        heads: dict[tuple[str, str], tuple[int, int]] = {}
        for said in sorted(self.said.values(), key=lambda said: said.wave):
            if said.acknowledged is not None:
                epoch, offset = said.acknowledged
                wave, head = heads.get((said.publisher, epoch), (0, 0))
                if wave < said.wave and offset <= head:
                    self.wrong(f"{said.value} was said later, and stands at {said.acknowledged}")
                heads[said.publisher, epoch] = (said.wave, max(head, offset))

    def _acknowledged(self, end: Position) -> None:
        """What was acknowledged stands where it was said to, and was seen by all who were there."""
        acknowledged: defaultdict[str, dict[int, str]] = defaultdict(dict)
        for said in self.said.values():
            if said.acknowledged is not None:
                epoch, offset = said.acknowledged
                if offset in acknowledged[epoch]:
                    two = f"{said.value} and {acknowledged[epoch][offset]}"
                    self.wrong(f"two messages were acknowledged as {said.acknowledged}: {two}")
                acknowledged[epoch][offset] = said.value
        if beyond := [offset for offset in acknowledged[end.epoch] if offset > end.offset]:
            self.wrong(f"acknowledged, and beyond the end {end}: {beyond}")
        for witness, segment in self.segments:
            for offset, value in acknowledged[segment.epoch].items():
                saw = segment.seen.get(offset, value)
                if saw != value:
                    place = f"{value} was acknowledged as {segment.epoch}-{offset}"
                    self.wrong(f"{place}, where {witness.name} saw {saw}", witness)
                if self.kept and segment.epoch == end.epoch and segment.start < offset not in segment.seen:
                    self.wrong(f"{value} at {segment.epoch}-{offset} never came to {witness.name}", witness)

    def late(self) -> list[Said]:
        """What is in the log, though whoever said it was answered 503 or not at all."""
        seen = {value for _, segment in self.segments for value in segment.seen.values()}
        return [said for said in self.said.values() if said.acknowledged is None and said.value in seen]
