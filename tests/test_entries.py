"""What Redis keeps, byte by byte: keys, entries, and what the scripts do with them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from redises import RedisServer, redis_server
from sites import bus_on, until
from wire import soon

from realtime.engines import entries, feed
from realtime.engines.entries import Change, Entry, Keys
from realtime.engines.resp import Connection, RedisError, Where
from realtime.message import Message, Position
from realtime.topic import TopicOptions

#: As the host makes them: what is said, as text, bytes or JSON.
data = (
    st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
    | st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
        ),
    )
)
names = st.text(st.characters(exclude_categories=["C", "Zl", "Zp", "Zs"]), min_size=1, max_size=60)
times = st.floats(0, 1e10)
nodes = st.text("0123456789abcdef", min_size=8, max_size=8)
numbers = st.integers(1, 2**53)


# Entries


@given(data, names, times, nodes, numbers, st.none() | st.sampled_from("+-"))
def test_entry_comes_back(
    said: Any, event: str, time: float, node: str, number: int, sign: str | None
) -> None:
    """Whatever a message says, it is read as it was written; and so is who comes or goes with it."""
    told = {"client": "c1"} if sign else said
    message = Message.of(told, event=event, time=time)
    change = Change(sign, f"{node}.c1") if sign else None
    assert entries.read(entries.write(node, number, message, change)) == Entry(
        node, number, message, change
    )


@given(nodes, numbers, nodes, numbers)
def test_entry_is_known_by_how_it_begins(node: str, number: int, other: str, another: int) -> None:
    """The token of an entry is how it begins, and how no other does."""
    entry = entries.write(node, number, Message.of("hi", time=1.0))
    assert entry.startswith(entries.token(node, number))
    assert entry.startswith(entries.token(other, another)) is ((other, another) == (node, number))


@given(st.binary() | st.binary().map(lambda more: b'[1,"0a",1,1.0,"message","text"]\n' + more))
def test_bytes_are_an_entry_or_a_value_error(garbage: bytes) -> None:
    """Whatever bytes there are, they are an entry or are refused, and nothing else is raised."""
    with contextlib.suppress(ValueError):
        assert isinstance(entries.read(garbage).message.data, str)


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\n",
        b"hello",
        b"[]\n",
        b"{}\n",
        b"null\nhi",
        b"[" * 100_000 + b"\n",
        b'[2,"0a",1,1.0,"message","text"]\nhi',  # of another version
        b'[1,"0a",1,1.0,"message","text"]',  # cut
        b'[1,"0a",1,1.0,"message"]\nhi',
        b'[1,7,1,1.0,"message","text"]\nhi',
        b'[1,"0a","1",1.0,"message","text"]\nhi',
        b'[1,"0a",1,null,"message","text"]\nhi',
        b'[1,"0a",1,"nan","message","text"]\nhi',
        b'[1,"0a",1,"1.0","message","text"]\nhi',
        b'[1,"0a",1,NaN,"message","text"]\nhi',
        b'[1,"0a",1,-1,"message","text"]\nhi',
        b'[1,"0a",1,1e300,"message","text"]\nhi',
        b'[1,"0a",1,1.0,"message","xml"]\nhi',
        b'[1,"0a",1,1.0,"message",["text"]]\nhi',
        b'[1,"0a",1,1.0,"","text"]\nhi',
        b'[1,"0a",1,1.0,null,"text"]\nhi',
        b'[1,"0a",1,1.0,7,"text"]\nhi',
        b'[1,"0a",1,1.0,"a\\ndata: b","text"]\nhi',  # would forge a line of a stream
        b'[1,"0a",1,1.0,"message","text"]\n\xff',
        b'[1,"0a",1,1.0,"message","json"]\n\xff',
        b'[1,"0a",1,1.0,"message","json"]\n{"a":',
        b'[1,"0a",1,1.0,"message","json"]\n',
        b'[1,"0a",1,1.0,"message","json"]\n' + b"[" * 100_000,
        b'[1,"0a",1,1.0,"message","json","+"]\n{}',
        b'[1,"0a",1,1.0,"message","json","+","c1",1]\n{}',
        b'[1,"0a",1,1.0,"message","json","*","c1"]\n{}',
        b'[1,"0a",1,1.0,"message","json","+",1]\n{}',
        b'[1,"0a",1,1.0,"message","json","+","c1"]\n7',
        b'[1,"0a",1,1.0,"message","text","+","c1"]\nhi',
    ],
    ids=lambda garbage: repr(garbage[-40:]),
)
def test_garbage_is_no_entry(garbage: bytes) -> None:
    """What nobody here wrote is refused with a sentence that shows how it begins."""
    with pytest.raises(ValueError, match="is no entry") as caught:
        entries.read(garbage)
    assert len(str(caught.value)) < 300


def test_leave_that_is_not_told_has_no_data() -> None:
    """Who goes quietly goes with an entry that says no more."""
    entry = entries.write("0a", 1, Message.of(None, time=0.0), Change("-", "c1"))
    assert entries.read(entry).change == Change("-", "c1")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"7",
        b"[]",
        b"[true]",
        b"[true,7]",
        b"\xff",
        b"[1,2,3]",
        b"[true,{}]",
        b'[true,{},1,"2"]',
        b"[1,{},1,2]",
        b"[true,7,1,2]",
        b"[" * 99_999,
    ],
)
def test_garbage_is_no_member(value: bytes) -> None:
    """What a hash has of somebody is what is told, or is refused."""
    with pytest.raises(ValueError, match=r"\w"):
        entries.told(value)


# Keys


TOPICS = ["room", "rooms/a", "rooms/{a}", "rooms/}{", "rooms/}", "rooms/{{{", "rooms/ünï ☃"]


@pytest.mark.parametrize("topic", TOPICS)
async def test_all_of_a_topic_is_in_one_slot(topic: str, tmp_path: Path) -> None:
    """A cluster keeps all keys of a topic together, also of one with braces in its name."""
    keys = Keys.of("realtime", topic)
    async with redis_server(tmp_path, "--cluster-enabled", "yes") as redis, asking(redis) as ask:
        slots = [
            await ask("CLUSTER", "KEYSLOT", key)
            for key in (keys.head, keys.log, keys.here, keys.names, keys.once("}{k"))
        ]
        tag = await ask("CLUSTER", "KEYSLOT", topic.partition("}")[0])
    assert set(slots) == {tag}


def test_keys_of_topics_are_different() -> None:
    """No two topics share a key, whatever is in their names."""
    topics = [*TOPICS, "rooms/a}:log", "rooms/a}:once:k", "rooms/a:head"]
    keys = [key for topic in topics for key in (*Keys.of("r", topic), Keys.of("r", topic).once("k"))]
    assert len(set(keys)) == len(keys)


# Scripts


Ask = Any


@asynccontextmanager
async def asking(redis: RedisServer, pushes: list[Any] | None = None) -> AsyncIterator[Ask]:
    """Asks Redis, and waits for what it says; or has all that is pushed on the channel of the topic."""
    over = asyncio.Event()
    connection = await Connection.open(
        Where.parse(redis.url),
        name="test",
        within=8.0,
        lost=lambda _: over.set(),
        pushed=None if pushes is None else pushes.append,
    )
    if pushes is not None:
        connection.tell("SUBSCRIBE", KEYS.channel)
        await until(lambda: pushes)

    async def ask(*words: bytes | str | int) -> Any:
        return await soon(connection.ask(*words))

    try:
        yield ask
    finally:
        connection.abort("the test is over")
        await soon(over.wait())


KEYS = Keys.of("realtime", "room")
FAR = 10**15  # Redis's clock will never be there


class Log:
    """The scripts, as a process calls them that knows so much of a log."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask

    async def publish(
        self,
        entry: bytes,
        *how: bytes | int,
        fresh: str = "f1",
        epoch: str = "",
        known: int = 0,
        oldest: int = 0,
        until: int = FAR,
        key: bytes = KEYS.here,
        run: str = "r1",
    ) -> Any:
        """What the script answers to a publish."""
        keys = (3, KEYS.head, KEYS.log, key)
        arguments = (run, fresh, epoch, known, oldest, 60_000, until, entry, *(how or (b"",)))
        return await self.ask("EVAL", entries.PUBLISH.text, *keys, *arguments)

    async def sync(
        self,
        *,
        fresh: str = "f2",
        epoch: str = "",
        known: int = 0,
        token: bytes = b"",
        seen: str = "r1",
        run: str = "r1",
        most: int = 100,
        oldest: int = 0,
        whole: int = 0,
    ) -> Any:
        """What the script answers to who looks."""
        keys = (4, KEYS.head, KEYS.log, KEYS.here, KEYS.names)
        arguments = (run, fresh, epoch, known, token, seen, most, 60_000, oldest, whole, 30_000)
        return await self.ask("EVAL", entries.SYNC.text, *keys, *arguments)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    """A log in a Redis of its own."""
    async with redis_server(tmp_path) as redis, asking(redis) as ask:
        yield Log(ask)


async def test_publish_gives_the_next_place(log: Log) -> None:
    """The first makes the epoch, and each has the next offset, and is in the stream under it."""
    assert await log.publish(b"a", fresh="e1") == [b"e1", 1]
    assert await log.publish(b"b", fresh="e2") == [b"e1", 2]
    assert await log.ask("XRANGE", KEYS.log, "-", "+") == [[b"1-0", [b"e", b"a"]], [b"2-0", [b"e", b"b"]]]


async def test_publish_that_is_late_does_nothing(log: Log) -> None:
    """What Redis comes to after the process has given it up is not done."""
    assert await log.publish(b"a", until=1) == [b"", 0, b"late"]
    assert await log.ask("KEYS", "*") == []


async def test_publish_once_is_known_again(log: Log) -> None:
    """What was published under a key is answered with its position, and with what was said."""
    once = (b"once", 60_000, b"hi")
    assert await log.publish(b"a", *once, key=KEYS.once("k")) == [b"f1", 1]
    assert await log.publish(b"b", *once, key=KEYS.once("k")) == [b"f1", 1, b"known", b"hi"]


async def test_publish_to_a_log_that_went_back_begins_anew(log: Log) -> None:
    """Who has seen more of an epoch than there is begins another: an offset is never given twice."""
    await log.publish(b"a", fresh="e1")
    assert await log.publish(b"b", fresh="e2", epoch="e1", known=5) == [b"e2", 1]
    assert await log.ask("XRANGE", KEYS.log, "-", "+") == [[b"1-0", [b"e", b"b"]]]


async def test_publish_of_who_knows_another_log_goes_on(log: Log) -> None:
    """How far somebody has seen another epoch says nothing of this one, which goes on and keeps all."""
    for _ in range(250):
        await log.publish(b"a", fresh="e1")
    assert await log.publish(b"b", fresh="e2", epoch="e0", known=500, oldest=240) == [b"e1", 251]
    assert await log.ask("XLEN", KEYS.log) == 251


async def test_log_keeps_what_is_wanted(log: Log) -> None:
    """What is older than the publisher wants goes, a node of the stream at a time."""
    for number in range(1, 301):
        await log.publish(b"x", epoch="f1", known=number - 1, oldest=max(0, number - 10))
    assert 10 <= await log.ask("XLEN", KEYS.log) <= 210


async def test_log_in_which_nobody_speaks_keeps_what_is_wanted(log: Log) -> None:
    """What is older than who looks wants goes, too; and nothing of another log than it knows."""
    for _ in range(300):
        await log.publish(b"x", fresh="e1")
    await log.sync(epoch="e0", known=300, oldest=290)
    assert await log.ask("XLEN", KEYS.log) == 300
    await log.sync(epoch="e1", known=300, token=b"x", oldest=290)
    assert 10 <= await log.ask("XLEN", KEYS.log) <= 200


async def test_who_is_here_is_told_to_who_asks(log: Log) -> None:
    """Who looks only for what was said is not sent everybody who is here."""
    await log.publish(b"a", b"+", b"c1", b"[true,{}]")
    assert (await log.sync(whole=1))[4] == [b"c1", b"[true,{}]"]
    assert (await log.sync())[4] == []


async def test_who_comes_twice_came_once(log: Log) -> None:
    """Who is there already is not announced again."""
    assert await log.publish(b"a", b"+", b"c1", b"[true,{}]") == [b"f1", 1]
    assert await log.publish(b"b", b"+", b"c1", b"[true,{}]") == [b"f1", 1, b"there"]


async def test_who_goes_twice_went_once(log: Log) -> None:
    """Who is not there does not leave."""
    await log.publish(b"a", b"+", b"c1", b"[true,{}]")
    assert await log.publish(b"b", b"-", b"c1") == [b"f1", 2]
    assert await log.publish(b"c", b"-", b"c1") == [b"f1", 2, b"gone"]


async def test_look_makes_the_epoch(log: Log) -> None:
    """Who reads a log before anything was said makes its epoch, so the first publish is no reset."""
    assert await log.sync(fresh="e1") == [b"e1", 0, [], 0, []]
    assert await log.publish(b"a", fresh="e2", epoch="e1") == [b"e1", 1]


async def test_offset_that_is_no_number_is_no_log(log: Log) -> None:
    """A head that somebody else has written is replaced by who looks, and by who publishes."""
    await log.ask("HSET", KEYS.head, "epoch", "e1", "offset", "many")
    assert (await log.sync(fresh="e2"))[:2] == [b"e2", 0]
    await log.ask("HSET", KEYS.head, "epoch", "e1", "offset", "many")
    assert await log.publish(b"a", fresh="e3") == [b"e3", 1]


async def test_look_has_what_came_since(log: Log) -> None:
    """Who knows an offset is given what follows it."""
    for text in (b"a", b"b", b"c"):
        await log.publish(text)
    found = (await log.sync(epoch="f1", known=1, token=b"a"))[2]
    assert found == [[b"2-0", [b"e", b"b"]], [b"3-0", [b"e", b"c"]]]


async def test_look_has_no_more_than_is_asked_for(log: Log) -> None:
    """Of many bytes it has some, says that there are more, and goes on after these until there are not."""
    for number in range(30):
        await log.publish(b"x" * 100, fresh="f1", epoch="f1", known=number)
    seen: list[bytes] = []
    more = 1
    while more:
        _, _, found, more, _ = await log.sync(epoch="f1", known=len(seen), most=1000)
        assert 1 <= len(found) <= 12
        seen += [name for name, _ in found]
    assert seen == [b"%d-0" % offset for offset in range(1, 31)]


@pytest.mark.parametrize(
    ("known", "token", "run", "same"),
    [
        (2, b"b", "r1", True),
        (1, b"a", "r2", True),
        (3, b"c", "r1", False),  # less is there than was seen
        (2, b"c", "r1", False),  # another entry is there than was seen
        (2, b"", "r1", True),  # nothing is known of it
        (2, b"", "r2", True),
        (0, b"", "r2", True),
    ],
)
async def test_look_knows_the_log_again(log: Log, known: int, token: bytes, run: str, same: bool) -> None:
    """It is the same log if what was seen last is where it was; else it begins anew."""
    await log.publish(b"a", fresh="e1")
    await log.publish(b"b")
    epoch, offset, *_ = await log.sync(fresh="e2", epoch="e1", known=known, token=token, run=run)
    assert (epoch, offset) == ((b"e1", 2) if same else (b"e2", 0))


async def restarted(log: Log, runs: Sequence[tuple[str, int]]) -> None:
    """Redis is started again and again, each time with the log up to an offset, and keeps nothing of it."""
    for run, offset in runs:
        await log.ask("HSET", KEYS.head, "offset", offset)
        for _ in range(4):
            await log.publish(b"x", run=run)
    await log.ask("DEL", KEYS.log)


@pytest.mark.parametrize(
    ("seen", "known", "same"),
    [
        ("r1", 4, True),  # it was there at all starts since
        ("r1", 5, False),  # what was seen there was taken back
        ("r2", 4, True),
        ("r2", 5, False),
        ("r3", 7, True),
        ("r3", 8, False),
        ("r4", 9, True),  # there has been no start since
        ("r9", 1, False),  # nothing is known of it
        ("", 1, False),
    ],
)
async def test_entry_that_was_trimmed_is_no_loss(log: Log, seen: str, known: int, same: bool) -> None:
    """Where what was seen last is not kept, it is the same log if no start since was before it."""
    await log.publish(b"a", fresh="e1")
    await restarted(log, [("r1", 1), ("r2", 5), ("r3", 4), ("r4", 7)])
    answer = await log.sync(fresh="e2", epoch="e1", known=known, token=b"a", seen=seen, run="r4")
    assert answer[:2] == ([b"e1", 11] if same else [b"e2", 0])


async def test_place_that_is_taken_again_is_no_proof(log: Log) -> None:
    """Where what was seen last is not known, an entry in its place does not make it the same log."""
    for _ in range(2):
        await log.publish(b"a", fresh="e1")
    await log.ask("HSET", KEYS.head, "offset", 1)
    await log.publish(b"b", run="r2")
    assert len(await log.ask("XRANGE", KEYS.log, 2, 2)) == 1
    answer = await log.sync(fresh="e2", epoch="e1", known=2, seen="r1", run="r2")
    assert answer[:2] == [b"e2", 0]


async def test_start_is_noted_by_who_looks(log: Log) -> None:
    """A look is as good as a publish: what it has found in a run the next start does not make doubtful."""
    await log.publish(b"a", fresh="e1")
    await log.ask("DEL", KEYS.log)
    for before, run in itertools.pairwise(["r1", "r2", "r3"]):
        answer = await log.sync(fresh="e2", epoch="e1", known=1, token=b"a", seen=before, run=run)
        assert answer[0] == b"e1"


async def test_full_redis_is_read_after_a_start(log: Log) -> None:
    """What can not be noted, as there is no room for it, keeps nobody from reading."""
    await log.publish(b"a")
    await log.ask("CONFIG", "SET", "maxmemory", 1)
    assert (await log.sync(epoch="f1", run="r2"))[2] == [[b"1-0", [b"e", b"a"]]]


async def test_log_that_begins_anew_has_no_past(log: Log) -> None:
    """What was seen of another log says nothing of this one."""
    await log.publish(b"a", fresh="e1")
    await restarted(log, [("r2", 1)])
    await log.sync(fresh="e2", epoch="e1", known=9, seen="r2", run="r2")
    assert await log.ask("HMGET", KEYS.head, "epoch", "run", "past") == [b"e2", b"r2", b""]


async def test_past_is_bounded(log: Log) -> None:
    """However often Redis is started, a log knows of the last sixteen runs."""
    await log.publish(b"a")
    await restarted(log, [(f"r{number}", 9) for number in range(20)])
    past = await log.ask("HGET", KEYS.head, "past")
    assert past.split() == [b"r%d:9" % number for number in range(18, 2, -1)]


async def test_log_that_has_nothing_goes_soon(log: Log) -> None:
    """Whoever asks for what there is not leaves next to nothing; with a message it stays."""
    await log.sync()
    assert await log.ask("PTTL", KEYS.head) <= 30_000
    await log.publish(b"a")
    assert await log.ask("PTTL", KEYS.head) > 30_000


async def test_log_that_is_looked_at_stays(log: Log) -> None:
    """Who looks at a log that has something keeps it."""
    await log.publish(b"a")
    await log.ask("PEXPIRE", KEYS.head, 1000)
    await log.sync()
    assert await log.ask("PTTL", KEYS.head) > 30_000


async def test_look_ignores_what_is_beyond_the_head(log: Log) -> None:
    """What somebody else put into the stream, where no message of ours is, is not read."""
    await log.publish(b"a")
    await log.publish(b"b")
    await log.ask("XADD", KEYS.log, "*", "e", "foreign")
    assert [name for name, _ in (await log.sync(epoch="f1", known=1, token=b"a"))[2]] == [b"2-0"]
    assert [name for name, _ in (await log.sync())[2]] == [b"1-0", b"2-0"]


async def test_publish_goes_on_where_somebody_else_wrote(log: Log) -> None:
    """A stream that takes our entry no more, as somebody else has put a later one in, begins anew."""
    await log.publish(b"a")
    await log.ask("XADD", KEYS.log, "*", "e", "foreign")
    assert await log.publish(b"b") == [b"f1", 2]
    assert await log.ask("XRANGE", KEYS.log, "-", "+") == [[b"2-0", [b"e", b"b"]]]


async def test_every_key_expires(log: Log) -> None:
    """Whatever a script makes goes by itself, also where it had to be made a second time."""
    await log.publish(b"a", b"+", b"c1", b"[true,{}]")
    await log.publish(b"b", b"once", 60_000, b"", key=KEYS.once("k"))
    await log.ask("DEL", KEYS.log)
    await log.ask("SET", KEYS.log, "no stream")
    await log.publish(b"c")
    names = await log.ask("KEYS", "*")
    assert len(names) == 4
    assert all([await log.ask("PTTL", name) > 0 for name in names])


async def kept_for_ever(log: Log) -> set[bytes]:
    """Which keys do not go by themselves."""
    return {name for name in await log.ask("KEYS", "*") if await log.ask("PTTL", name) < 0}


async def test_each_key_of_a_publish_expires(log: Log) -> None:
    """None of what one publish makes is there for ever, though nobody ever looks."""
    await log.publish(b"a")
    assert await kept_for_ever(log) == set()
    await log.publish(b"", b"+", b"c1", b"[false,{}]", b"about")
    assert await kept_for_ever(log) == set()
    await log.publish(b"b", b"once", 60_000, b"", key=KEYS.once("k"))
    assert await kept_for_ever(log) == set()
    assert len(await log.ask("KEYS", "*")) == 4


async def test_log_that_begins_anew_expires(log: Log) -> None:
    """Where what there was is gone, what takes its place goes by itself, too."""
    await log.publish(b"a", fresh="e1")
    await log.ask("DEL", KEYS.head)
    await log.publish(b"b", fresh="e2")
    assert await kept_for_ever(log) == set()


async def test_who_looks_has_all_stay_as_long(log: Log) -> None:
    """Every key of a topic stays so long after each look: none goes while it is used, none is for ever."""
    await log.publish(b"a", b"+", b"c1", b"[true,{}]")
    await log.ask("HSET", KEYS.names, "alice", "c1")
    keys = KEYS.head, KEYS.log, KEYS.here, KEYS.names
    for key in keys:
        await log.ask("PERSIST", key)
    assert await kept_for_ever(log) == set(keys)
    await log.sync(epoch="f1", known=1, token=b"a")
    assert await kept_for_ever(log) == set()


async def test_who_claims_has_the_names_stay(log: Log) -> None:
    """The names of a topic go by themselves, and not before the last claim says."""
    claim = entries.CLAIM.text, 1, KEYS.names
    assert await log.ask("EVAL", *claim, "alice", "c1", 1_000, "") == b"c1"
    assert 0 < await log.ask("PTTL", KEYS.names) <= 1_000
    assert await log.ask("EVAL", *claim, "alice", "c2", 60_000, "") == b"c1"
    assert 1_000 < await log.ask("PTTL", KEYS.names) <= 60_000


async def test_claim_replaces_what_it_has_seen_and_nothing_else(log: Log) -> None:
    """Of two who find the same garbage in the place of a name one has it, and the other is told who."""
    await log.ask("HSET", KEYS.names, "alice", "garbage")
    claim = entries.CLAIM.text, 1, KEYS.names, "alice"
    assert await log.ask("EVAL", *claim, "c1", 60_000, "") == b"garbage"
    assert await log.ask("EVAL", *claim, "c1", 60_000, "garbage") == b"c1"
    assert await log.ask("EVAL", *claim, "c2", 60_000, "garbage") == b"c1"


@pytest.mark.parametrize("key", [KEYS.head, KEYS.here])
async def test_key_of_another_type_is_an_error(log: Log, key: bytes) -> None:
    """What is no hash of ours stays what it is, and nothing is put."""
    await log.ask("SET", key, "mine")
    with pytest.raises(RedisError, match="WRONGTYPE"):
        await log.publish(b"a", b"+", b"c1", b"[true,{}]")
    assert await log.ask("GET", key) == b"mine"
    assert await log.ask("EXISTS", KEYS.log) == 0


async def test_publish_is_told_with_its_place(tmp_path: Path) -> None:
    """What goes out on the channel of the topic is the position, and the entry; a change has no place."""
    pushes: list[Any] = []
    async with redis_server(tmp_path) as redis, asking(redis) as ask, asking(redis, pushes) as _:
        log = Log(ask)
        await log.publish(b"a")
        await log.publish(b"", b"+", b"c1", b"[false,{}]", b"about")
        await until(lambda: len(pushes) == 3)
    where, _, entry = pushes[1][2].partition(b"\n")
    assert (pushes[1][1], Position.parse(where.decode()), entry) == (KEYS.channel, Position("f1", 1), b"a")
    assert pushes[2][2] == entries.NOWHERE + b"\nabout"


async def test_other_log_is_not_trimmed_by_what_was_known_of_this(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read in several goes of a log that is new is kept, however far the old one had come."""
    monkeypatch.setattr(feed, "PAGE", 1000)
    few, many = TopicOptions(lag=0, lag_bytes=0), TopicOptions(history=1000)
    async with (
        redis_server(tmp_path) as redis,
        bus_on(redis, few) as one,
        bus_on(redis, many, prefix="other") as other,
    ):
        for _ in range(10):
            await asyncio.gather(*(one.publish("room", "old") for _ in range(100)))
        await asyncio.gather(*(other.publish("room", "new") for _ in range(500)))
        for key in (":head", ":log"):
            await redis.command("RENAME", f"other:{{room}}{key}", f"realtime:{{room}}{key}")
        topic = one.topic("room")
        await one.engine.catch_up(topic)
        assert topic.head == 500
        assert await redis.command("XLEN", "realtime:{room}:log") == "500"


async def test_who_has_no_room_takes_nothing_from_others(tmp_path: Path) -> None:
    """A process that gave up messages for want of memory leaves in Redis what others may ask for."""
    options = TopicOptions(history=400)
    async with (
        redis_server(tmp_path) as redis,
        bus_on(redis, options) as one,
        bus_on(redis, options) as other,
    ):
        one.limit(10, 20_000)
        await asyncio.gather(*(one.publish("room", number) for number in range(500)))
        assert len(one.topic("room").history()) < 100
        await one.engine.catch_up(one.topic("room"))
        assert len((await other.open("room")).history()) == 400
