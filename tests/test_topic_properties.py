"""One bus, driven at random, against a model of what every client must read.

Whatever happens: no hole without a marker that states exactly the number missed, no double, one
order for all, what is said to one client in its place among what is said to all, never a write to
a paused sink, never a write larger than allowed, and nobody stands still who could go on. The
model shares no code with the bus: it reads the bytes of each wire as a client does.

``REALTIME_PROPERTY_SEEDS=2000`` runs that many random worlds instead of a few.
"""

from __future__ import annotations

import os
import random
from collections import Counter, deque
from collections.abc import Iterable
from typing import ClassVar, Literal, NamedTuple

import pytest
from busdrive import CHUNKED, LINES, PLAIN, UNCHUNKED, Bed, Item, Wire, read
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from realtime.bus import SLICE
from realtime.log import OVERHEAD, Resume
from realtime.message import Position, Since
from realtime.subscriber import State
from realtime.topic import BURST, MAX_WRITE, Topic, TopicOptions

SEEDS = int(os.environ.get("REALTIME_PROPERTY_SEEDS", "30"))
STEPS = 300
#: Room for what a form puts round one write: the head and the end of a chunk.
FRAMING = 16

TOPICS = {
    "plain/1": TopicOptions(),
    "tight/1": TopicOptions(lag=2.0, lag_bytes=300_000),
    "skip/1": TopicOptions(history=5, lag=1.0, lag_bytes=200_000, overflow="skip"),
    "latest/1": TopicOptions(lag=1.5, lag_bytes=200_000, overflow="latest"),
    "past/1": TopicOptions(history=30, history_age=2.0, lag=1.0, lag_bytes=400_000, overflow="skip"),
    "long/1": TopicOptions(history=60, lag=0.1, lag_bytes=50_000),
}
NAMES = list(TOPICS)
FORMS = [PLAIN, LINES, CHUNKED, UNCHUNKED]
OWNERS = [None, "alice", "bob"]
SIZES = [0, 10, 100, 1000, 20_000, 60_000, MAX_WRITE + 10_000]
BOUNDS = [None, 0, 10_000, MAX_WRITE]
COSTS = [0.0, 0.0, SLICE / 20, SLICE / 3]

#: What a suite that means anything has seen happen.
EXERCISED = (
    "lags",
    "laps",
    "laps by bytes of one that replays",
    "read though too old",
    "overruns",
    "joins",
    "joins during a flush",
    "joins held for a while",
    "recovered",
    "gaps on joining",
    "gaps on lapping",
    "resets",
    "refused plain resumes",
    "replayed",
    "direct frames",
    "direct frames while lagging",
    "direct frames while held",
    "excluded",
    "hidden",
    "larger than a write",
    "cut flushes",
    "topics made again",
    "shed",
)

Asked = Literal["nothing", "earliest", "count", "seen", "long ago"]


class Published(NamedTuple):
    data: str
    quiet: bool
    exclude: str | None
    time: float


class Client:
    """One subscriber, and what its client must read next."""

    def __init__(self, world: World, topic: Topic, wire: Wire, owner: str | None, place: int) -> None:
        self.world = world
        self.topic = topic
        self.log = world.logs[topic.epoch]
        self.wire = wire
        self.owner = owner
        #: The offset of the last message it has read or was told that it missed.
        self.place = place
        self.held = True
        #: The marker that must come before any message.
        self.due: Resume | None = None
        if wire.subscriber.resumed.outcome in ("gap", "reset"):
            self.due = wire.subscriber.resumed
        #: What was said to it alone, and the offset after which that belongs (-1: before all).
        self.said: deque[tuple[int, str]] = deque()
        #: Whether it has given the bus a reason to be left behind.
        self.slow = True
        self.head_at_join = topic.head
        #: Whether it has never yet had all that there was to read.
        self.new = True

    def sees(self, offset: int) -> bool:
        published = self.log[offset - 1]
        hidden = published.quiet and self.wire.form is PLAIN
        excluded = published.exclude is not None and published.exclude == self.owner
        self.world.seen["hidden"] += hidden
        self.world.seen["excluded"] += excluded
        return not hidden and not excluded

    def nothing_between(self, low: int, high: int) -> bool:
        """Whether there is nothing for it after one offset up to another."""
        return not any(self.sees(offset) for offset in range(low + 1, high + 1))

    def arrive(self) -> None:
        """Notice that it has had all there is; to be asked before the head moves."""
        self.new = self.new and (self.held or not self.nothing_between(self.place, self.topic.head))

    def may_lose(self, offset: int) -> bool:
        """Whether the log may have given up a message that this client has yet to read.

        From one that has not yet arrived only bytes take anything: those beyond the history.
        """
        if not self.new or self.world.bed.bus.counters["shed"]:
            return True
        self.world.seen["laps by bytes of one that replays"] += 1
        return self.world.beyond(self.topic, offset) > self.topic.options.lag_bytes

    def look(self) -> None:
        """Read what was written since the last look."""
        if self.wire.paused:
            self.slow = True
        if not self.wire.writes:
            return
        writes, self.wire.writes = self.wire.writes, []
        for data in writes:
            items = read(self.wire.form, data)
            assert len(data) <= MAX_WRITE + FRAMING or len(items) == 1, "a write is too large"
            for item in items:
                self.take(item)

    def take(self, item: Item) -> None:
        if item.kind == "direct":
            tag, text = self.said.popleft()
            assert item.data == text, "direct frames out of order"
            assert self.due is None or tag < 0, "direct frame before the marker"
            assert self.nothing_between(self.place, tag), "direct frame too early"
            self.world.seen["direct frames"] += 1
            return
        assert not self.held, "delivered before start()"
        position = item.position
        assert position is not None
        assert position.epoch == self.topic.epoch, "of another epoch"
        if item.kind == "message":
            self.message(position.offset, item.data)
        else:
            self.marker(item, position.offset)
        self.place = position.offset

    def message(self, offset: int, data: str) -> None:
        assert self.due is None, "message before the marker"
        assert offset > self.place, "double"
        assert self.nothing_between(self.place, offset - 1), "hole"
        assert self.sees(offset), "not for this client"
        assert data == self.log[offset - 1].data, "wrong data"
        assert not self.said or self.said[0][0] >= offset, "direct frame too late"
        self.world.seen["replayed"] += offset <= self.head_at_join
        options, age = self.topic.options, self.world.bed.loop.clock - self.log[offset - 1].time
        in_history = self.topic.head - offset < options.history and age <= options.history_age
        self.world.seen["read though too old"] += self.new and age > options.lag + 1 and not in_history
        self.world.seen["larger than a write"] += len(data) > MAX_WRITE

    def marker(self, item: Item, offset: int) -> None:
        due, self.due = self.due, None
        assert not self.said or self.said[0][0] > (self.place if due is None else -1), (
            "direct frame too late"
        )
        if item.kind == "reset":
            assert due == Resume("reset"), "reset out of the blue"
            self.world.seen["resets"] += 1
            return
        assert item.missed > 0, "gap of nothing"
        if due is not None:
            assert due == Resume("gap", item.missed), "another gap than was promised"
            assert offset == self.place + item.missed, "wrong number missed"
            self.world.seen["gaps on joining"] += 1
        else:
            assert self.topic.options.overflow != "disconnect", "should have been closed"
            low = offset - item.missed
            assert low >= self.place, "gap over what was read"
            assert self.nothing_between(self.place, low), "wrong number missed"
            lost = low + 1 if self.topic.options.overflow == "latest" else offset
            assert self.may_lose(lost), "taken from one that replays"
            assert self.slow or self.topic in self.world.flooded, "a healthy client was left behind"
            self.world.seen["gaps on lapping"] += 1

    def check_end(self, reason: str) -> None:
        """Whether it was right to close it."""
        if reason == "the position cannot be resumed":
            assert self.due is not None
            assert self.wire.form is PLAIN
            self.world.seen["refused plain resumes"] += 1
            return
        assert self.slow or self.topic in self.world.flooded, f"a healthy client was closed: {reason}"
        if "bytes wait" not in reason:
            assert self.may_lose(self.place + 1), "taken from one that replays"
            assert self.wire.form is PLAIN or self.topic.options.overflow == "disconnect", "should go on"


class World:
    """A bus with several topics, the clients of it, and what has happened."""

    def __init__(self, *, memory: int = 1 << 30) -> None:
        self.bed = Bed(memory=memory)
        for name, options in TOPICS.items():
            self.bed.bus.declare(name.partition("/")[0], options)
        self.logs: dict[str, list[Published]] = {}
        self.epochs: dict[str, set[str]] = {name: set() for name in NAMES}
        self.positions: dict[str, list[Position]] = {name: [] for name in NAMES}
        self.clients: list[Client] = []
        #: Where so much was published before the flush came round that it may leave anybody behind.
        self.flooded: set[Topic] = set()
        self.cut: set[Topic] = set()
        self.seen: Counter[str] = Counter()
        self.number = 0

    def topic(self, name: str) -> Topic:
        topic = self.bed.bus.topic(name)
        if topic.epoch not in self.logs:
            self.logs[topic.epoch] = []
            self.epochs[name].add(topic.epoch)
            self.seen["topics made again"] += len(self.epochs[name]) > 1
        return topic

    # What can happen

    def publish(
        self, name: str, size: int, count: int, quiet: bool, exclude: str | None, paced: bool
    ) -> None:
        for _ in range(count):
            topic = self.topic(name)
            self.number += 1
            size = min(size, max(topic.options.lag_bytes, MAX_WRITE) - OVERHEAD)  # a larger one is refused
            data = f"{self.number} ".ljust(size, "x")
            self.check()  # who has arrived shows only before the head moves
            self.logs[topic.epoch].append(Published(data, quiet, exclude, self.bed.loop.clock))
            event = "quiet" if quiet else "message"
            if paced:
                position = self.bed.publish(data, topic=name, event=event, exclude=exclude)
            else:
                self.bed.spawn(self.bed.bus.publish(name, data, event=event, exclude=exclude))
                position = topic.position
            assert position == (topic.epoch, len(self.logs[topic.epoch])), "offsets are not consecutive"
            if self.beyond(topic, topic.base) > (BURST - 1) * topic.options.lag_bytes:
                self.flooded.add(topic)
            self.positions[name].append(position)

    def join(
        self,
        name: str,
        form: int,
        asked: Asked,
        pick: int,
        owner: str | None,
        *,
        hold: bool,
        bound: int | None,
        cost: float,
    ) -> None:
        topic = self.topic(name)
        since: Since = None
        place = topic.head
        if asked == "earliest":
            since = "earliest"
        elif asked == "count":
            since = -(pick % 40)
        elif self.positions[name]:
            known = self.positions[name]
            since = known[-1 - pick % min(len(known), 12)] if asked == "seen" else known[pick % len(known)]
        wire = self.bed.join(
            FORMS[form], topic=name, since=since, owner=owner, start=False, bound=bound, cost=cost
        )
        subscriber = wire.subscriber
        outcome = subscriber.resumed.outcome
        kept = topic.head - topic.base + 1
        if isinstance(since, Position):
            known_epoch = since.epoch == topic.epoch
            assert known_epoch == (outcome != "reset")
            place = since.offset if known_epoch else 0
        elif since is not None:
            asked_for = kept if since == "earliest" else min(kept, -since)
            place = topic.head - min(asked_for, topic.options.history)
            born = self.bed.loop.clock - topic.options.history_age
            while place < topic.head and self.logs[topic.epoch][place].time < born:
                place += 1
        self.seen["joins"] += 1
        self.seen["recovered"] += isinstance(since, Position) and outcome == "recovered"
        self.seen["joins during a flush"] += topic in self.cut and topic.flushing
        client = Client(self, topic, wire, owner, place)
        client.slow = hold or since is not None
        self.clients.append(client)
        if not hold:
            self.start(client)

    def crowd(self, name: str, count: int) -> None:
        """Enough live clients, each slow to write to, for a flush to be cut."""
        for _ in range(count):
            self.join(name, 1, "nothing", 0, None, hold=False, bound=None, cost=SLICE / 8)

    def start(self, client: Client) -> None:
        self.seen["joins held for a while"] += client.topic.head > client.head_at_join
        client.held = False
        client.wire.subscriber.start()

    def stall(self, client: Client) -> None:
        client.wire.pause()
        client.slow = True

    def send(self, client: Client, size: int) -> None:
        self.number += 1
        text = f"direct {self.number} ".ljust(size, "x")
        client.said.append((-1 if client.held else client.topic.head, text))
        self.seen["direct frames while lagging"] += client.wire.subscriber.state is State.LAGGING
        self.seen["direct frames while held"] += client.held
        client.wire.send(text)

    def leave(self, client: Client) -> None:
        client.wire.subscriber.detach()
        self.positions[client.topic.name].append(Position(client.topic.epoch, client.place))
        self.clients.remove(client)

    def come_back(self, client: Client, form: int) -> None:
        """Leave, and resume from what was read last, maybe on another transport."""
        name, owner = client.topic.name, client.owner
        self.leave(client)
        self.join(name, form, "seen", 0, owner, hold=False, bound=None, cost=0.0)

    def empty(self, name: str) -> None:
        """Everybody leaves a topic, and its history ages out."""
        for client in [client for client in self.clients if client.topic.name == name]:
            self.leave(client)
        self.advance(TOPICS[name].history_age + 10 if TOPICS[name].history else 10)

    def turn(self) -> None:
        self.bed.loop.turn()
        self.cut = {topic for topic in self.bed.bus.topics if topic.flushing and self.bed.loop.busy}
        self.seen["cut flushes"] += bool(self.cut)

    def advance(self, seconds: float) -> None:
        self.bed.advance(seconds)
        for client in self.clients:
            client.slow |= client.wire.paused

    def settle(self) -> None:
        """All clients read all they get until nothing moves: then nobody may be behind."""
        self.bed.idle()
        self.check()
        while paused := [client for client in self.clients if client.wire.paused]:
            for client in paused:
                client.wire.drain()
            self.bed.idle()
            self.check()
        for client in self.clients:
            assert not client.said, "a direct frame was forgotten"
            if not client.held:
                assert client.due is None, "a marker was forgotten"
                assert client.nothing_between(client.place, client.topic.head), (
                    "stands still behind the head"
                )
                client.slow = False
        self.flooded.clear()

    def beyond(self, topic: Topic, offset: int) -> int:
        """The bytes from an offset on that are older than the history."""
        older = self.logs[topic.epoch][offset - 1 : max(topic.head - topic.options.history, 0)]
        return sum(len(published.data) + OVERHEAD for published in older)

    # What must always hold

    def check(self) -> None:
        shed = self.bed.bus.counters["shed"]
        if shed > self.seen["shed"]:
            self.flooded.update(self.bed.bus.topics)  # the memory bound may leave anybody behind
            self.seen["shed"] = shed
        for client in list(self.clients):
            client.look()
            if client.wire.closed is not None:
                client.check_end(client.wire.closed)
                self.leave(client)
            client.arrive()
        for name in ("lags", "laps", "overruns"):
            self.seen[name] = self.bed.bus.counters[name]
        for topic in self.bed.bus.topics:
            assert topic.beyond == self.beyond(topic, topic.base), "counted wrong"
        assert self.bed.bus.size == sum(topic.size for topic in self.bed.bus.topics)


def report(what: str, seen: Counter[str]) -> None:
    """Say what a run has exercised (shown by ``pytest -s`` and on failure)."""
    print(f"\n{what}:", ", ".join(f"{seen[name]} {name}" for name in EXERCISED))  # noqa: T201


# At random


def run(seed: int) -> Counter[str]:
    """One random world, from its beginning until it has settled."""
    rng = random.Random(seed)
    world = World(memory=1_500_000 if seed % 5 == 0 else 1 << 30)
    names = rng.sample(NAMES, rng.choice([1, 2, len(NAMES)]))  # few topics: more happens to each
    cost = rng.choice([0.0, 0.0, SLICE / 20, SLICE / 8])

    def join() -> None:
        asked: list[Asked] = ["nothing", "nothing", "earliest", "count", "seen", "long ago"]
        world.join(
            rng.choice(names),
            rng.randrange(len(FORMS)),
            rng.choice(asked),
            rng.randrange(1000),
            rng.choice(OWNERS),
            hold=rng.random() < 0.3,
            bound=rng.choice(BOUNDS),
            cost=cost,
        )

    def publish() -> None:
        world.publish(
            rng.choice(names),
            rng.choice(SIZES),
            rng.choice([1, 1, 1, 2, 5, 20]),
            quiet=rng.random() < 0.1,
            exclude=rng.choice([None, None, "alice", "bob"]),
            paced=rng.random() < 0.6,
        )

    def somebody(held: bool = False, paused: bool = False) -> Iterable[Client]:
        choice = [c for c in world.clients if (c.held or not held) and (c.wire.paused or not paused)]
        return rng.sample(choice, min(len(choice), 1))

    actions = [
        ("publish", 30), ("join", 8), ("turn", 20), ("idle", 5), ("stall", 6), ("drain", 10), ("start", 5),
        ("send", 8), ("leave", 2), ("come back", 3), ("crowd", 0.6), ("advance", 4), ("settle", 1),
        ("empty", 0.4),
    ]  # fmt: skip
    for action in rng.choices([name for name, _ in actions], [weight for _, weight in actions], k=STEPS):
        match action:
            case "publish":
                publish()
            case "join":
                join()
            case "turn":
                world.turn()
            case "idle":
                world.bed.idle()
            case "stall":
                for client in somebody():
                    world.stall(client)
            case "drain":
                for client in somebody(paused=True):
                    client.wire.drain()
            case "start":
                for client in somebody(held=True):
                    world.start(client)
            case "send":
                for client in somebody(paused=rng.random() < 0.5):
                    world.send(client, rng.choice([10, 10, 1000, 30_000]))
            case "leave":
                for client in somebody():
                    world.leave(client)
            case "come back":
                for client in somebody():
                    world.come_back(client, rng.randrange(len(FORMS)))
            case "crowd":
                world.crowd(rng.choice(names), 30)
            case "advance":
                world.advance(rng.choice([0.1, 0.5, 1.0, 2.5]))
            case "settle":
                world.settle()
            case "empty":
                world.empty(rng.choice(names))
        world.check()
    for client in world.clients:
        if client.held:
            world.start(client)
    world.settle()
    return world.seen


@pytest.fixture(scope="module")
def exercised() -> Counter[str]:
    """Every seed; what they have exercised together."""
    seen: Counter[str] = Counter()
    for seed in range(SEEDS):
        try:
            seen += run(seed)
        except Exception as error:
            error.add_note(f"in the world of seed {seed}")
            raise
    report(f"{SEEDS} random worlds", seen)
    return seen


def test_random_worlds(exercised: Counter[str]) -> None:
    """In random worlds every client reads exactly what the model says."""
    assert exercised["joins"] > SEEDS


# As Hypothesis likes it: what fails is made small


class Drive(RuleBasedStateMachine):
    """The same world, driven by Hypothesis."""

    names = st.sampled_from(NAMES)
    picks = st.integers(0, 50)
    exercised: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @property
    def clients(self) -> list[Client]:
        return self.world.clients

    @rule(
        name=names,
        size=st.sampled_from(SIZES),
        count=st.integers(1, 20),
        quiet=st.booleans(),
        exclude=st.sampled_from(OWNERS),
        paced=st.booleans(),
    )
    def publish(
        self, name: str, size: int, count: int, quiet: bool, exclude: str | None, paced: bool
    ) -> None:
        self.world.publish(name, size, count, quiet, exclude, paced)

    @rule(
        name=names,
        form=st.integers(0, len(FORMS) - 1),
        asked=st.sampled_from(["nothing", "earliest", "count", "seen", "long ago"]),
        pick=picks,
        owner=st.sampled_from(OWNERS),
        hold=st.booleans(),
        bound=st.sampled_from(BOUNDS),
        cost=st.sampled_from(COSTS),
    )
    def join(
        self,
        name: str,
        form: int,
        asked: Asked,
        pick: int,
        owner: str | None,
        hold: bool,
        bound: int | None,
        cost: float,
    ) -> None:
        self.world.join(name, form, asked, pick, owner, hold=hold, bound=bound, cost=cost)

    @rule(name=names)
    def crowd(self, name: str) -> None:
        self.world.crowd(name, 20)

    @precondition(lambda self: self.clients)
    @rule(pick=picks)
    def stall(self, pick: int) -> None:
        self.world.stall(self.clients[pick % len(self.clients)])

    @precondition(lambda self: self.clients)
    @rule(pick=picks)
    def drain(self, pick: int) -> None:
        self.clients[pick % len(self.clients)].wire.drain()

    @precondition(lambda self: any(client.held for client in self.clients))
    @rule(pick=picks)
    def start(self, pick: int) -> None:
        held = [client for client in self.clients if client.held]
        self.world.start(held[pick % len(held)])

    @precondition(lambda self: self.clients)
    @rule(pick=picks, size=st.sampled_from([10, 30_000]))
    def send(self, pick: int, size: int) -> None:
        self.world.send(self.clients[pick % len(self.clients)], size)

    @precondition(lambda self: self.clients)
    @rule(pick=picks)
    def leave(self, pick: int) -> None:
        self.world.leave(self.clients[pick % len(self.clients)])

    @precondition(lambda self: self.clients)
    @rule(pick=picks, form=st.integers(0, len(FORMS) - 1))
    def come_back(self, pick: int, form: int) -> None:
        self.world.come_back(self.clients[pick % len(self.clients)], form)

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0]))
    def advance(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(name=names)
    def empty(self, name: str) -> None:
        self.world.empty(name)

    @rule()
    def turn(self) -> None:
        self.world.turn()

    @rule()
    def settle(self) -> None:
        self.world.settle()

    @invariant()
    def holds(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        for client in self.clients:
            if client.held:
                self.world.start(client)
        self.world.settle()
        Drive.exercised += self.world.seen


def test_driven_by_hypothesis() -> None:
    """No sequence of events that Hypothesis thinks of makes a client read anything else."""
    run_state_machine_as_test(
        Drive,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            database=None,
            derandomize=True,  # the seeds above are where new luck is tried
            suppress_health_check=list(HealthCheck),
        ),
    )
    report("Hypothesis", Drive.exercised)


@pytest.mark.parametrize("what", EXERCISED)
def test_exercised(what: str, exercised: Counter[str]) -> None:
    """The random worlds have seen it happen: a model that is never asked proves nothing."""
    assert exercised[what] > 0
