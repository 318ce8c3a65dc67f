"""The log of a topic: offsets, positions, and where a newcomer begins."""

from __future__ import annotations

import pytest
from busdrive import CHUNKED, LINES, PLAIN, UNCHUNKED, Bed, numbers

from realtime.encodings import Form
from realtime.log import OVERHEAD, Resume
from realtime.message import Position, Since
from realtime.topic import TopicOptions

# Offsets


def test_offsets_are_consecutive() -> None:
    """The messages of a topic have the offsets 1, 2, 3 and so on."""
    bed = Bed()
    assert [bed.publish("x").offset for _ in range(5)] == [1, 2, 3, 4, 5]


def test_position_is_that_of_the_newest() -> None:
    """A topic stands where its newest message stands."""
    bed = Bed()
    assert bed.publish("x", "y") == bed.topic.position


def test_id_on_the_wire_is_what_publish_returned() -> None:
    """The id of a message is the position that its publisher was given."""
    bed = Bed()
    wire = bed.join()
    position = bed.publish("x")
    bed.idle()
    assert [item.position for item in wire.items] == [position]


# What it holds


def test_bytes_beyond_the_history() -> None:
    """What is older than the newest ``history`` messages is counted apart."""
    bed = Bed(TopicOptions(history=3))
    beyond = []
    for size in range(1, 6):
        bed.publish("x" * size)
        beyond.append(bed.topic.beyond)
    assert beyond == [0, 0, 0, OVERHEAD + 1, 2 * OVERHEAD + 3]


def test_encoded_forms_count() -> None:
    """What a message is encoded as counts like the message, once for each form, until it is given up."""
    bed = Bed(TopicOptions(history=3))
    for form in (PLAIN, PLAIN, LINES):
        bed.join(form=form)
    bed.publish("x" * 1000)
    bed.idle()
    assert bed.topic.size > 1000 + OVERHEAD + 2 * 1000
    assert bed.bus.size == bed.topic.size < 4 * 1000
    bed.topic.shed(1)
    assert (bed.bus.size, bed.topic.size) == (0, 0)


def test_bytes_beyond_the_history_are_given_up_first() -> None:
    """They count no more once they are given up, and history that follows them changes nothing."""
    bed = Bed(TopicOptions(history=3))
    bed.publish("1", "22", "333", "4444", "55555")
    beyond = []
    for _ in range(3):
        bed.topic.shed(1)
        beyond.append(bed.topic.beyond)
    assert beyond == [OVERHEAD + 2, 0, 0]


# Where a newcomer begins


def test_without_since_begins_at_the_head() -> None:
    """A newcomer that asks for nothing gets what is published from then on."""
    bed = Bed(TopicOptions(history=10))
    bed.publish("old")
    wire = bed.join()
    bed.publish("new")
    bed.idle()
    assert wire.texts == ["new"]


def test_earliest_is_limited_to_the_history() -> None:
    """``earliest`` gives the newest ``history`` messages, although the log keeps more."""
    bed = Bed(TopicOptions(history=3))
    bed.publish(*numbers(1, 10))
    wire = bed.join(since="earliest")
    bed.idle()
    assert wire.texts == ["8", "9", "10"]


@pytest.mark.parametrize(("since", "first"), [(-2, 9), (-50, 8), (0, 11), (5, 11)])
def test_count_is_limited_to_the_history(since: int, first: int) -> None:
    """``-n`` gives the newest n messages, but no more than the history and never less than none."""
    bed = Bed(TopicOptions(history=3))
    bed.publish(*numbers(1, 10))
    wire = bed.join(since=since)
    bed.idle()
    assert wire.texts == numbers(first, 10)


@pytest.mark.parametrize("since", ["earliest", -5, Position("0badcafe", 1)], ids=str)
def test_newcomer_is_given_nothing_too_old(since: Since) -> None:
    """What is older than ``history_age`` no newcomer may ask for, although the log keeps it."""
    bed = Bed(TopicOptions(history=5, history_age=10.0, lag=60.0))
    bed.publish("1", "2")
    bed.advance(8.0)
    bed.publish("3")
    bed.advance(3.0)
    assert (bed.topic.base, bed.topic.seek(since)[0]) == (1, 2)


def test_position_is_recovered_from_the_lag_window() -> None:
    """A reconnect is only a long lag: without any history it loses nothing."""
    bed = Bed(TopicOptions(history=0))
    seen = bed.publish("1")
    bed.publish("2", "3")
    wire = bed.join(since=seen)
    bed.idle()
    assert (wire.subscriber.resumed, wire.texts) == (Resume("recovered"), ["2", "3"])


def test_position_of_the_head_is_recovered() -> None:
    """Who has seen everything resumes with nothing missed."""
    bed = Bed()
    assert bed.topic.seek(bed.publish("1")) == (1, Resume("recovered"))


def test_gap_states_the_exact_number() -> None:
    """A resume that begins before what is kept is told how many messages it missed."""
    bed = Bed(TopicOptions(history=4, lag=0.0))
    seen = bed.publish("1")
    bed.publish(*numbers(2, 10))
    bed.advance(1.0)
    wire = bed.join(since=seen)
    bed.idle()
    assert wire.texts == ["gap 5", *numbers(7, 10)]


def test_gap_marker_is_positioned_before_the_oldest_kept() -> None:
    """The id of a gap marker is where the stream goes on from."""
    bed = Bed(TopicOptions(history=4, lag=0.0))
    seen = bed.publish("1")
    bed.publish(*numbers(2, 10))
    bed.advance(1.0)
    wire = bed.join(since=seen)
    assert wire.items[0].position == Position(seen.epoch, 6)


@pytest.mark.parametrize("form", [LINES, CHUNKED, UNCHUNKED])
def test_reset_on_another_epoch(form: Form) -> None:
    """A position of another epoch begins with a reset and then all of the history."""
    bed = Bed(TopicOptions(history=2))
    bed.publish(*numbers(1, 5))
    wire = bed.join(form, since=Position("0badcafe", 3))
    bed.idle()
    assert wire.texts == ["reset", "4", "5"]


def test_reset_beyond_the_head() -> None:
    """An offset that was never given is of no use: a reset."""
    bed = Bed(TopicOptions(history=2))
    seen = bed.publish("1")
    assert bed.topic.seek(Position(seen.epoch, 2))[1] == Resume("reset")


@pytest.mark.parametrize("epoch", ["0badcafe", None], ids=["reset", "gap"])
def test_plain_form_is_closed_when_it_cannot_resume(epoch: str | None) -> None:
    """A form without marks is closed rather than begun with a hole nobody speaks of."""
    bed = Bed(TopicOptions(history=2, lag=0.0))
    bed.publish(*numbers(1, 5))
    bed.advance(1.0)
    wire = bed.join(PLAIN, since=Position(epoch or bed.topic.epoch, 1))
    assert (wire.closed, wire.writes) == ("the position cannot be resumed", [])


def test_history_after_a_position() -> None:
    """``history(since)`` are the messages kept after it."""
    bed = Bed(TopicOptions(history=2))
    bed.publish("1")
    seen = bed.publish("2")
    bed.publish("3", "4", "5")
    assert [message.data for message in bed.topic.history(seen)] == ["3", "4", "5"]


def test_history_is_what_newcomers_may_ask_for() -> None:
    """``history()`` is limited as ``earliest`` is."""
    bed = Bed(TopicOptions(history=2))
    bed.publish(*numbers(1, 5))
    assert [message.data for message in bed.topic.history()] == ["4", "5"]


def test_reset_when_the_topic_was_made_again() -> None:
    """A topic that went and came again has another epoch, so an old position is a reset."""
    bed = Bed(TopicOptions(lag=1.0))
    seen = bed.publish("1")
    bed.advance(10.0)
    assert bed.topic.seek(seen)[1] == Resume("reset")
