"""What is said to one subscriber alone, and its end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from busdrive import PLAIN, Bed, lagging

from realtime.bus import SWEEP, TOLD
from realtime.message import Message, Position
from realtime.subscriber import MAX_OUTBOX, State
from realtime.topic import TopicOptions


def test_direct_after_published_for_a_live_one() -> None:
    """To a live subscriber: what was published before it comes before it."""
    bed = Bed()
    wire = bed.join()
    bed.publish("1")
    wire.send("direct")
    bed.publish("2")
    bed.idle()
    assert wire.texts == ["1", "direct", "2"]


def test_direct_at_the_head_is_written_at_once() -> None:
    """To a subscriber that has read everything a direct frame waits for no flush."""
    bed = Bed()
    wire = bed.join()
    wire.send("direct")
    assert wire.texts == ["direct"]


def test_direct_waits_for_no_flush() -> None:
    """When send() returns it is written, and before it what was published, where the sink takes them."""
    bed = Bed()
    wire = bed.join()
    bed.idle()
    bed.publish("1")
    wire.send("direct")
    assert wire.texts == ["1", "direct"]


def test_direct_after_published_for_one_behind() -> None:
    """To a newcomer that still replays: the rest of the replay comes first."""
    bed = Bed(TopicOptions(history=100))
    bed.publish(*(f"{number:010000}" for number in range(50)))
    bed.idle()
    wire = bed.join(since="earliest")
    assert len(wire.texts) < 50
    wire.send("direct")
    bed.publish("after")
    bed.idle()
    assert wire.texts[50:] == ["direct", "after"]


def test_direct_after_published_for_a_lagging_one() -> None:
    """To a lagging subscriber: it waits, and comes exactly in its place."""
    bed = Bed()
    wire = lagging(bed)
    wire.send("first direct")
    bed.publish("second unread")
    wire.send("second direct")
    bed.publish("third unread")
    bed.idle()
    wire.drain()
    bed.idle()
    assert wire.texts[1:] == [
        "first unread",
        "first direct",
        "second unread",
        "second direct",
        "third unread",
    ]


def test_direct_survives_a_lap() -> None:
    """What was said to a subscriber that was lapped comes after the gap it belongs to."""
    bed = Bed(TopicOptions(lag=1.0, overflow="skip"))
    wire = lagging(bed)
    wire.send("direct")
    bed.advance(3.0)
    bed.publish("2")
    wire.drain()
    bed.idle()
    assert wire.texts == ["before", "gap 1", "direct", "2"]


def test_direct_to_a_held_one_comes_first() -> None:
    """What is said before ``start()`` comes before everything that waits for it."""
    bed = Bed()
    wire = bed.join(start=False)
    bed.publish("1")
    wire.send("welcome")
    wire.subscriber.start()
    bed.idle()
    assert wire.texts == ["welcome", "1"]


def test_direct_to_a_held_paused_one_waits() -> None:
    """A paused sink is not written to while it is held either; what waits keeps its order."""
    bed = Bed()
    wire = bed.join(start=False)
    wire.pause()
    wire.send("1")
    before = list(wire.writes)
    wire.drain()
    wire.send("2")
    assert (before, wire.texts) == ([], ["1", "2"])


def test_nothing_to_say_to_a_held_one() -> None:
    """One that drains before it begins is written nothing where nothing waits."""
    wire = Bed().join(start=False)
    wire.pause()
    wire.drain()
    assert wire.writes == []


def test_direct_to_a_held_one_overtakes_nothing() -> None:
    """What is said between the draining and the word of it comes after what waits."""
    bed = Bed()
    wire = bed.join(start=False)
    wire.pause()
    wire.send("1")
    wire.paused = False
    wire.send("2")
    wire.drain()
    assert wire.texts == ["1", "2"]


def test_direct_to_a_held_paused_one_survives_the_start() -> None:
    """What waited while held comes before the marker and the messages."""
    bed = Bed(TopicOptions(history=1))
    bed.publish("1")
    wire = bed.join(since=Position("0badcafe", 1), start=False)
    wire.pause()
    wire.send("welcome")
    wire.subscriber.start()
    wire.drain()
    bed.idle()
    assert wire.texts == ["welcome", "reset", "1"]


@pytest.mark.parametrize("start", [True, False], ids=["lagging", "held"])
def test_outbox_is_bounded(start: bool) -> None:
    """Who reads nothing and is told more than MAX_OUTBOX is closed."""
    bed = Bed()
    wire = bed.join(start=start)
    wire.pause()
    for _ in range(MAX_OUTBOX // 1000):
        wire.send("x" * 900)
    before = wire.closed
    for _ in range(20):
        wire.send("x" * 900)
    assert (before, wire.closed) == (None, f"too slow: more than {MAX_OUTBOX} bytes wait to be read")


def test_outbox_that_was_read_is_free_again() -> None:
    """The bound counts what waits, not what has ever waited."""
    bed = Bed()
    wire = bed.join()
    for _ in range(10):
        wire.pause()
        wire.send("x" * (MAX_OUTBOX // 2))
        wire.drain()
        bed.idle()
    assert (wire.closed, len(wire.texts)) == (None, 10)


def test_outbox_counts_once_what_waits_for_another_log() -> None:
    """What was waiting when the topic became another log is no more than it was."""
    bed = Bed()
    wire = bed.join()
    wire.pause()
    wire.send("x" * (MAX_OUTBOX // 2))
    for epoch in "abc":
        bed.topic.restore(Position(epoch, 1), [])
    assert wire.closed is None
    wire.send("x" * (MAX_OUTBOX // 4))
    assert wire.closed is None


def test_pause_is_counted_once() -> None:
    """A sink that says again that it is full lags no more than before."""
    bed = Bed()
    wire = bed.join()
    wire.pause()
    wire.pause()
    assert bed.bus.counters["lags"] == 1


def test_nothing_is_written_after_detach() -> None:
    """Who let go of its place is written to no more."""
    bed = Bed()
    wire = bed.join()
    bed.publish("1")
    wire.subscriber.detach()
    wire.send("direct")
    bed.idle()
    assert wire.writes == []


def test_who_is_gone_drains() -> None:
    """A sink that drains after the end is written nothing of what waited."""
    wire = Bed().join()
    wire.pause()
    wire.send("direct")
    wire.subscriber.detach()
    wire.drain()
    assert (wire.writes, wire.subscriber.state) == ([], State.GONE)


def test_nothing_is_kept_for_who_is_gone() -> None:
    """What is said after the end does not wait for anything."""
    wire = Bed().join()
    wire.subscriber.detach()
    wire.send("direct")
    assert wire.subscriber.next_direct is None


def test_detach_twice() -> None:
    """To let go of what one has let go of is nothing."""
    bed = Bed()
    wire = bed.join()
    wire.subscriber.detach()
    wire.subscriber.detach()
    assert bed.bus.topics == []


def test_start_after_the_end() -> None:
    """Who is gone before it began does not begin."""
    wire = Bed().join(start=False)
    wire.subscriber.detach()
    wire.subscriber.start()
    assert (wire.writes, wire.subscriber.state) == ([], State.GONE)


def test_start_twice() -> None:
    """One that has begun is not told again what it missed."""
    bed = Bed(TopicOptions(history=1))
    bed.publish("1")
    wire = bed.join(since=Position("0badcafe", 1))
    wire.subscriber.start()
    bed.idle()
    assert wire.texts == ["reset", "1"]


def test_position_that_a_form_cannot_tell_of() -> None:
    """Where a form cannot say that something is missing, its subscriber is given up as it begins."""
    bed = Bed(TopicOptions(history=1))
    bed.publish("1")
    wire = bed.join(PLAIN, since=Position("0badcafe", 1))
    assert (wire.writes, wire.closed) == ([], "the position cannot be resumed")


def test_who_begins_in_another_log_is_told_of_that_alone() -> None:
    """What was missed of a log that is no more is not told beside it."""
    bed = Bed(TopicOptions(lag=0.0))
    seen = bed.publish("1")
    bed.join()
    bed.publish("2", "3")
    bed.idle()
    bed.advance(SWEEP)
    wire = bed.join(since=seen, start=False)
    assert wire.subscriber.resumed.outcome == "gap"
    bed.topic.restore(Position("0badcafe", 1), [])
    wire.subscriber.start()
    bed.idle()
    assert wire.texts == ["reset"]


def test_detach_in_the_middle_of_the_first_write() -> None:
    """A sink that is lost while the marker is written gets nothing after it."""
    bed = Bed(TopicOptions(history=1))
    bed.publish("1")
    wire = bed.join(since=Position("0badcafe", 1), start=False)
    wire.on_write = wire.subscriber.detach
    wire.subscriber.start()
    bed.idle()
    assert wire.texts == ["reset"]


def telling(bed: Bed) -> Iterator[None]:
    """Tell everybody, and whoever comes, that the engine is away, turn by turn."""
    notice = Message.of("away", event="realtime:degraded", time=0.0)
    return bed.bus.tell(notice, lasting=True).__await__()


def test_who_comes_while_others_are_told_is_told_once() -> None:
    """A newcomer is told as it begins, and not again by whoever was telling everybody then."""
    bed = Bed()
    there = [bed.join() for _ in range(TOLD)]
    bed.bus.topic("t/2")
    turns = telling(bed)
    next(turns)
    came = [bed.join(topic=name) for name in ("t/1", "t/2", "t/3")]
    assert list(turns) == []
    assert [wire.texts for wire in there + came] == [["away"]] * (TOLD + 3)


def test_who_cannot_be_written_to_is_told_later() -> None:
    """A newcomer whose transport is full at its start is told once it has drained, before all else."""
    bed = Bed(TopicOptions(history=1))
    bed.publish("kept")
    wire = bed.join(since="earliest", start=False)
    assert list(telling(bed)) == []
    wire.pause()
    wire.subscriber.start()
    wire.drain()
    bed.idle()
    assert wire.texts == ["away", "kept"]


def test_form_that_cannot_say_it_is_told_nothing() -> None:
    """Where a form has no words for the host's events there is nothing to write."""
    bed = Bed()
    wire = bed.join(PLAIN)
    assert list(telling(bed)) == []
    assert wire.writes == []
