"""Topics and cursors: what is kept, what is written to whom, and in which order."""

from __future__ import annotations

import gc

import pytest
from busdrive import CHUNKED, LINES, PLAIN, UNCHUNKED, Bed, Wire, lagging, numbers, steps

from realtime.bus import SLICE
from realtime.encodings import Form
from realtime.log import OVERHEAD, Resume
from realtime.message import Message, Position
from realtime.subscriber import State
from realtime.topic import BURST, MAX_BATCHES, MAX_WRITE, Overflow, TopicOptions

#: Room for what a form puts round one write: the head of a chunk.
FRAMING = 16


# What is kept


def test_lag_window_by_time() -> None:
    """What is older than ``lag`` is given up when nobody may ask for it."""
    bed = Bed(TopicOptions(lag=5.0))
    bed.join()
    bed.publish("old")
    bed.advance(4.0)
    bed.publish("young")
    bed.advance(2.5)
    assert (bed.topic.base, bed.topic.head) == (2, 2)


def test_lag_window_is_kept_whole() -> None:
    """What is younger than ``lag`` stays, although no history is asked for."""
    bed = Bed(TopicOptions(lag=5.0))
    bed.publish("x")
    bed.advance(4.5)
    assert bed.topic.base == 1


def test_lag_window_by_bytes() -> None:
    """Once everybody has been served a log holds no more than ``lag_bytes`` and one message."""
    bed = Bed(TopicOptions(lag_bytes=10_000))
    bed.join()
    for _ in range(100):
        bed.publish("x" * 1000)
        bed.idle()
        assert bed.topic.beyond <= 10_000


def test_burst_is_bounded() -> None:
    """While the flush has not come round a log holds at most BURST times ``lag_bytes``."""
    bed = Bed(TopicOptions(lag_bytes=10_000))
    bed.join()
    topic = bed.topic
    for _ in range(100):
        topic.append(Message.of("x" * 1000, time=0.0))
        assert topic.size <= BURST * 10_000


def test_many_publishers_in_one_turn_push_nobody_off() -> None:
    """A burst of more than ``lag_bytes`` in one turn reaches a healthy plain reader whole."""
    bed = Bed(TopicOptions(lag_bytes=100_000))
    wire = bed.join(PLAIN)
    for number in range(25):  # as many tasks, each with one message, before the flush has its turn
        bed.spawn(bed.bus.publish("t/1", f"{number:010000}"))
    bed.idle()
    assert (wire.closed, len(wire.texts)) == (None, 25)


def test_message_larger_than_the_log_is_delivered() -> None:
    """The newest message is kept until it was written, however large it is."""
    bed = Bed(TopicOptions(lag_bytes=1000))
    wire = bed.join(PLAIN)
    bed.publish("x" * 50_000)
    bed.idle()
    assert (wire.closed, len(wire.texts)) == (None, 1)


def test_history_is_on_top_of_the_lag_window() -> None:
    """What newcomers may ask for stays, although it is past the lag window by time and by bytes."""
    bed = Bed(TopicOptions(history=5, lag=1.0, lag_bytes=100))
    bed.publish(*numbers(1, 20))
    bed.advance(60.0)
    assert (bed.topic.base, bed.topic.head) == (16, 20)


def test_lag_bytes_are_counted_beyond_the_history() -> None:
    """A history larger than ``lag_bytes`` leaves the lag window as it is."""
    bed = Bed(TopicOptions(history=20, lag_bytes=3 * (1000 + OVERHEAD)))
    wire = lagging(bed, PLAIN)
    bed.publish(*("x" * 1000 for _ in range(21)))
    bed.idle()
    assert bed.topic.size > 7 * bed.topic.options.lag_bytes
    assert (wire.closed, wire.subscriber.cursor + 1, bed.topic.base) == (None, 2, 1)


def test_lag_window_is_on_top_of_the_history() -> None:
    """A short ``history_age`` takes nothing from the lag window."""
    bed = Bed(TopicOptions(history=5, history_age=1.0, lag=5.0))
    seen = bed.publish("1")
    bed.publish("2")
    bed.advance(3.0)
    assert bed.topic.seek(seen)[1] == Resume("recovered")


def test_history_ages_out() -> None:
    """History older than ``history_age`` is given up."""
    bed = Bed(TopicOptions(history=5, history_age=60.0, lag=1.0))
    bed.join()
    bed.publish(*numbers(1, 5))
    bed.advance(62.0)
    assert bed.topic.history() == []


def test_time_takes_nothing_from_a_held_subscriber() -> None:
    """Who is still being greeted misses nothing, however long that takes."""
    bed = Bed(TopicOptions(lag=5.0))
    wire = bed.join(PLAIN, start=False)
    bed.publish("1", "2")
    bed.advance(600.0)
    wire.subscriber.start()
    bed.idle()
    assert wire.texts == ["1", "2"]


def test_time_is_no_excuse_once_the_held_one_has_started() -> None:
    """What was kept for a held subscriber alone is given up when it has been read."""
    bed = Bed(TopicOptions(lag=5.0))
    wire = bed.join(start=False)
    bed.publish("1", "2")
    bed.advance(600.0)
    wire.subscriber.start()
    bed.advance(2.0)
    assert bed.topic.size == 0


def test_bytes_lap_a_held_subscriber() -> None:
    """A place that is held is no way to hold memory: the bound in bytes counts for it too."""
    bed = Bed(TopicOptions(lag_bytes=10_000, overflow="skip"))
    wire = bed.join(start=False)
    for number in range(20):
        bed.publish(f"{number:01000}")
        bed.idle()
    missed = bed.topic.base - 1
    wire.subscriber.start()
    bed.idle()
    assert missed > 0
    assert wire.texts[0] == f"gap {missed}"


def test_blocked_loop_laps_nobody() -> None:
    """When the loop stood still between two messages, the first is delivered all the same."""
    bed = Bed(TopicOptions(lag=5.0))
    wire = bed.join(PLAIN)
    bed.publish("1")
    bed.loop.clock += 60.0  # a handler that computes
    bed.publish("2")
    bed.idle()
    assert (wire.closed, wire.texts) == (None, ["1", "2"])


# Those who replay


def replaying(bed: Bed, form: Form = PLAIN, count: int = 20) -> Wire:
    """A newcomer to a history of so many messages that takes one of them with each drain."""
    bed.publish(*(str(number).rjust(MAX_WRITE) for number in range(count)))
    bed.idle()
    wire = bed.join(form, since="earliest", bound=0)
    bed.idle()
    assert len(wire.writes) == 1
    return wire


def read_on(bed: Bed, wire: Wire) -> list[int]:
    """What it has read, once it has had everything."""
    while wire.paused:
        wire.drain()
        bed.idle()
    return [int(text) for text in wire.texts]


def test_count_takes_nothing_from_one_that_replays() -> None:
    """Who replays a full history as fast as others publish is not lapped by what they publish."""
    bed = Bed(TopicOptions(history=20, lag=0.0))
    wire = replaying(bed)
    for number in range(20, 60):
        bed.publish(str(number).rjust(MAX_WRITE))
        bed.advance(10.0)
        wire.drain()
        bed.idle()
    assert (read_on(bed, wire), wire.closed) == ([*range(60)], None)


def test_age_takes_nothing_from_one_that_replays() -> None:
    """A replay may take longer than ``history_age``."""
    bed = Bed(TopicOptions(history=20, history_age=60.0, lag=0.0))
    wire = replaying(bed)
    bed.advance(100.0)
    assert read_on(bed, wire) == [*range(20)]


def test_one_that_replays_is_such_until_it_has_had_everything() -> None:
    """What is published during a replay is kept for it too: it is no laggard for having begun late."""
    bed = Bed(TopicOptions(lag=5.0))
    seen = bed.publish("0")
    bed.publish("1".rjust(MAX_WRITE), "2".rjust(MAX_WRITE))
    wire = bed.join(PLAIN, since=seen, bound=0)
    bed.publish(*(str(number).rjust(MAX_WRITE) for number in range(3, 10)))
    for _ in range(5):  # well past the head that it saw when it came
        bed.advance(60.0)
        wire.drain()
        bed.idle()
    assert read_on(bed, wire) == [*range(1, 10)]


def test_one_that_has_replayed_is_a_laggard_like_any_other() -> None:
    """Who has had everything once, and falls behind then, has ``lag`` seconds."""
    bed = Bed(TopicOptions(history=1, history_age=0.0, lag=5.0))
    wire = replaying(bed, count=1)
    read_on(bed, wire)
    wire.pause()
    bed.publish("1")
    bed.advance(7.0)
    assert wire.closed == "too slow: 1 messages behind what is kept (lag, lag_bytes)"


def test_bytes_lap_one_that_replays() -> None:
    """A replay holds no more than the history and ``lag_bytes`` of what is older."""
    bed = Bed(TopicOptions(history=20, lag_bytes=5 * (MAX_WRITE + OVERHEAD)))
    wire = replaying(bed)
    kept = []
    for _ in range(10):
        bed.publish("x" * MAX_WRITE)
        bed.idle()
        kept.append((bed.topic.head - bed.topic.base + 1, wire.closed is None))
    assert kept == [(n, True) for n in range(21, 26)] + [(25, n == 26) for n in range(26, 31)]


def test_what_a_replay_was_kept_for_goes_with_it() -> None:
    """Once nobody replays any more, what only a replay needed is given up with the next sweep."""
    bed = Bed(TopicOptions(history=20, history_age=60.0, lag=0.0))
    wire = replaying(bed)
    bed.advance(100.0)
    held = bed.topic.size
    wire.subscriber.detach()
    bed.advance(1.5)
    assert held > 0
    assert bed.topic.size == 0


def test_replays_do_not_keep_old_history_for_each_other() -> None:
    """However many begin while others replay, history ages out."""
    bed = Bed(TopicOptions(history=20, history_age=60.0, lag=0.0))
    wires = [replaying(bed)]
    for _ in range(10):
        bed.advance(30.0)
        wires.append(bed.join(PLAIN, since="earliest", bound=0))
        wires[-2].subscriber.detach()
    assert [len(wire.writes) for wire in wires] == [1, 1, 1] + [0] * 8
    assert bed.topic.size == 0


def test_publishing_costs_the_same_however_many_replay() -> None:
    """To publish what gives up the oldest message asks none of a thousand who replay."""

    def cost(crowd: int) -> int:
        bed = Bed(TopicOptions(history=100, lag=0.0))
        bed.publish(*("x" * 10_000 for _ in range(100)))
        for _ in range(crowd):
            bed.join(since="earliest", bound=0)
        bed.idle()
        bed.advance(2.0)
        return steps(lambda: [bed.topic.append(Message.of("x", time=0.0)) for _ in range(50)])

    assert cost(1000) == cost(1)


def test_sweep_overlooks_nobody_who_lags() -> None:
    """Whom publishing does not look at, because many lag, is closed by the clock."""
    bed = Bed(TopicOptions(lag=1.0))
    bed.join()  # the topic stays
    for wire in [bed.join() for _ in range(500)]:
        wire.pause()
    bed.publish("1")
    bed.advance(3.0)
    wire = lagging(bed)
    bed.advance(3.0)
    assert (wire.closed is not None, bed.bus.counters["overruns"]) == (True, 501)


def test_end_of_a_topic_overlooks_nobody_who_lags() -> None:
    """The same when the topic goes, which no sweep comes to any more."""
    bed = Bed(TopicOptions(lag=1.0))
    bed.join()
    for wire in [bed.join() for _ in range(500)]:
        wire.pause()
    bed.publish("1")
    bed.advance(2.5)  # by the second sweep they are closed
    wire = lagging(bed)
    bed.bus.close()
    assert wire.closed is not None


def test_giving_up_costs_the_same_however_many_lag() -> None:
    """To leave a thousand behind, each at another place, does not look at all of them for each."""

    def cost(crowd: int) -> int:
        bed = Bed(TopicOptions(lag_bytes=1000 * (1000 + OVERHEAD), overflow="skip"))
        for _ in range(crowd):
            seen = bed.publish("x" * 1000)
            bed.join(since=seen, start=False).pause()
        for subscriber in list(bed.topic.held):
            subscriber.start()
        bed.publish(*("x" * 1000 for _ in range(1000 - crowd)))
        bed.idle()
        assert (bed.topic.base, len(bed.topic.lagging)) == (1, crowd)

        def publish() -> None:
            for _ in range(900):
                bed.publish("x" * 1000)
                bed.idle()

        return steps(publish)

    assert cost(900) < 4 * cost(9)


# One write


def test_turn_leaves_as_one_write() -> None:
    """What is published in one turn is one write to each subscriber."""
    bed = Bed()
    wire = bed.join()
    bed.publish("a", "b", "c")
    bed.idle()
    assert (len(wire.writes), wire.texts) == (1, ["a", "b", "c"])


def test_message_is_encoded_once_for_all() -> None:
    """However many read a form, a message is encoded in it once."""
    encoded = []

    class Counting(type(LINES)):  # type: ignore[misc]
        key = "counting"

        def encode(self, message: Message) -> bytes:
            encoded.append(message.data)
            return bytes(super().encode(message))

    bed = Bed()
    form = Counting()
    for _ in range(10):
        bed.join(form)
    bed.join(Counting())  # another form with the same key
    bed.publish("x")
    bed.idle()
    assert encoded == ["x"]


@pytest.mark.parametrize("form", [PLAIN, LINES, CHUNKED, UNCHUNKED])
def test_joined_writes_are_bounded(form: Form) -> None:
    """Joined messages are cut into writes of at most MAX_WRITE."""
    bed = Bed(TopicOptions(lag_bytes=1 << 30))
    wire = bed.join(form)
    for number in range(100):
        bed.spawn(bed.bus.publish("t/1", f"{number:010000}"))
    bed.idle()
    assert len(wire.texts) == 100
    assert max(map(len, wire.writes)) <= MAX_WRITE + FRAMING


def test_replay_is_bounded() -> None:
    """A newcomer's history is cut into writes of at most MAX_WRITE."""
    bed = Bed(TopicOptions(history=100))
    bed.publish(*(f"{number:010000}" for number in range(100)))
    bed.idle()
    wire = bed.join(since="earliest")
    bed.idle()
    assert len(wire.texts) == 100
    assert max(map(len, wire.writes)) <= MAX_WRITE


def test_direct_frame_does_not_cut_what_others_get() -> None:
    """What is joined early for one client is joined anew for the others when more has come."""
    bed = Bed()
    one, other = bed.join(), bed.join()
    bed.publish("a")
    one.send("direct")
    bed.publish("b")
    bed.idle()
    assert (other.texts, len(other.writes)) == (["a", "b"], 1)


def test_everybody_is_given_what_follows_their_own_place() -> None:
    """Who comes back to different places in one turn gets different writes."""
    bed = Bed()
    bed.publish("1", "2", "3")
    bed.idle()
    wires = [bed.join(since=Position(bed.topic.epoch, offset)) for offset in (2, 0, 1)]
    bed.idle()
    assert [wire.texts for wire in wires] == [["3"], ["1", "2", "3"], ["2", "3"]]


def test_larger_message_goes_alone() -> None:
    """One message that is larger than MAX_WRITE is one write, joined with no other."""
    bed = Bed()
    wire = bed.join()
    for data in ("a", "x" * (MAX_WRITE + 1), "b"):
        bed.spawn(bed.bus.publish("t/1", data))
    bed.idle()
    assert [len(write) > MAX_WRITE for write in wire.writes] == [False, True, False]


def test_form_that_shows_nothing_gets_no_write() -> None:
    """A message that a form does not show moves the cursor and writes nothing."""
    bed = Bed()
    wire = bed.join(PLAIN)
    bed.publish("x", event="quiet")
    bed.idle()
    assert (wire.writes, wire.subscriber.cursor) == ([], 1)


def test_joined_writes_are_kept_for_few_places() -> None:
    """Who comes back to as many places as there are messages holds at most MAX_BATCHES writes."""
    assert 0 < len(_writes_kept(settled=False)) <= MAX_BATCHES


def test_joined_writes_are_forgotten() -> None:
    """When everybody has been served no joined write is kept."""
    assert _writes_kept(settled=True) == []


def _writes_kept(settled: bool) -> list[bytes]:
    """What a topic holds of the writes to 400 who came back, each to a place of its own."""
    bed = Bed(TopicOptions(history=500))
    bed.publish(*("x" * 100 for _ in range(500)))
    bed.idle()
    wires = [bed.join(since=Position(bed.topic.epoch, offset)) for offset in range(400)]
    if settled:
        bed.idle()
    written = {id(write) for wire in wires for write in wire.writes if len(write) > 1000}
    assert len(written) == 400
    return [found for found in _referents(bed.topic) if id(found) in written]


def _referents(root: object) -> list[bytes]:
    """Every bytes object that can be reached from a topic, but not by way of its bus."""
    seen: set[int] = set()
    found: list[bytes] = []
    waiting: list[object] = [root]
    while waiting:
        one = waiting.pop()
        if (
            id(one) in seen
            or isinstance(one, type | Wire)
            or type(one).__name__ in ("Bus", "module", "function")
        ):
            continue
        seen.add(id(one))
        if isinstance(one, bytes):
            found.append(one)
        waiting.extend(gc.get_referents(one))
    return found


# Paused and lagging


def test_paused_sink_is_never_written_to() -> None:
    """Nothing at all is written to a paused sink, by whatever way it might come."""
    bed = Bed()
    wire = bed.join()
    bed.publish("1")
    bed.idle()
    wire.pause()
    bed.publish("2")
    wire.send("direct")
    bed.idle()
    bed.advance(3.0)
    assert wire.texts == ["1"]


def test_newcomer_whose_sink_is_paused_waits() -> None:
    """Neither the marker nor the history is written to a newcomer that is paused already."""
    bed = Bed(TopicOptions(history=2))
    bed.publish("1", "2")
    wire = bed.join(since=Position("0badcafe", 1), start=False)
    wire.pause()
    wire.subscriber.start()
    bed.idle()
    before = list(wire.writes)
    wire.drain()
    bed.idle()
    assert (before, wire.texts) == ([], ["reset", "1", "2"])


def test_lagging_subscriber_delays_nobody() -> None:
    """A lagging subscriber delays nobody."""
    bed = Bed()
    lagging(bed)
    other = bed.join()
    bed.publish("x")
    bed.idle()
    assert other.texts == ["x"]


def test_drained_subscriber_catches_up() -> None:
    """Who drains in time reads all that was published meanwhile, in order."""
    bed = Bed()
    wire = lagging(bed)
    bed.publish("second unread")
    bed.idle()
    wire.drain()
    bed.idle()
    assert wire.texts == ["before", "first unread", "second unread"]
    assert wire.subscriber.state is not State.LAGGING


def test_resume_of_one_that_does_not_lag_is_nothing() -> None:
    """A sink that drained before the bus noticed loses and repeats nothing."""
    bed = Bed()
    wire = bed.join()
    bed.publish("1")
    bed.idle()
    wire.pause()
    wire.drain()
    bed.publish("2")
    bed.idle()
    assert wire.texts == ["1", "2"]


def test_pauses_again_while_catching_up() -> None:
    """Catching up goes a write at a time, and stops whenever the sink is full."""
    bed = Bed(TopicOptions(lag_bytes=1 << 30))
    wire = bed.join(bound=MAX_WRITE // 2)
    for number in range(100):
        bed.spawn(bed.bus.publish("t/1", f"{number:010000}"))
    bed.idle()
    for _ in range(20):
        assert len(wire.writes) == 0 or len(wire.writes[-1]) <= MAX_WRITE
        wire.drain()
        bed.idle()
    assert len(wire.texts) == 100


# Lapped


@pytest.mark.parametrize(("overflow", "missed"), [("disconnect", 2), ("skip", 2), ("latest", 1)])
def test_plain_form_is_closed_when_lapped(overflow: Overflow, missed: int) -> None:
    """A form without marks is closed whatever the policy, and told how far behind it was."""
    bed = Bed(TopicOptions(lag=1.0, overflow=overflow))
    wire = lagging(bed, PLAIN)
    bed.publish("second unread")
    bed.idle()
    bed.advance(3.0)
    assert wire.closed == f"too slow: {missed} messages behind what is kept (lag, lag_bytes)"


def test_disconnect_closes_a_form_with_marks() -> None:
    """Under ``disconnect`` a lapped subscriber is closed although it could be told."""
    bed = Bed(TopicOptions(lag=1.0, overflow="disconnect"))
    wire = lagging(bed)
    bed.advance(3.0)
    assert wire.closed is not None


def test_disconnect_happens_without_a_publisher() -> None:
    """A lapped subscriber is closed by the clock alone and then counts no more."""
    bed = Bed(TopicOptions(lag=1.0))
    lagging(bed)
    bed.advance(3.0)
    assert (bed.bus.counters["overruns"], bed.bus.topics) == (1, [])


def test_skip_marks_the_gap_and_goes_on() -> None:
    """Under ``skip`` a lapped subscriber is told what it missed and reads on from the oldest kept."""
    bed = Bed(TopicOptions(lag=1.0, overflow="skip"))
    wire = lagging(bed)
    bed.publish("second unread")
    bed.idle()
    bed.advance(3.0)
    bed.publish("3", "4")
    wire.drain()
    bed.idle()
    assert wire.texts == ["before", "gap 2", "3", "4"]


def test_latest_gives_only_the_newest() -> None:
    """Under ``latest`` a lapped subscriber is told what it missed and reads the newest alone."""
    bed = Bed(TopicOptions(lag=1.0, overflow="latest"))
    wire = lagging(bed)
    bed.advance(3.0)
    bed.publish("2", "3", "4")
    wire.drain()
    bed.idle()
    assert wire.texts == ["before", "gap 3", "4"]


def test_latest_keeps_the_newest_for_who_lags() -> None:
    """Under ``latest`` time does not take the one message that a lagging subscriber is to have."""
    bed = Bed(TopicOptions(lag=1.0, overflow="latest"))
    wire = lagging(bed)
    bed.publish("newest")
    bed.idle()
    bed.advance(3.0)
    wire.drain()
    bed.idle()
    assert wire.texts == ["before", "gap 1", "newest"]


def test_latest_keeps_nothing_when_nobody_lags() -> None:
    """Under ``latest`` the newest goes with its time where all have read it."""
    bed = Bed(TopicOptions(lag=1.0, overflow="latest"))
    wire = lagging(bed)
    wire.drain()
    bed.idle()
    bed.advance(3.0)
    assert bed.topic.size == 0


def test_lapped_by_bytes() -> None:
    """A lagging subscriber does not make the log grow past ``lag_bytes``: it is left behind."""
    bed = Bed(TopicOptions(lag_bytes=10_000))
    wire = lagging(bed)
    for _ in range(20):
        bed.publish("x" * 1000)
        bed.idle()
    assert wire.closed is not None
    assert bed.topic.size <= 10_000


def test_missed_messages_are_counted() -> None:
    """What is skipped is in the counters."""
    bed = Bed(TopicOptions(lag=1.0, overflow="skip"))
    wire = lagging(bed)
    bed.advance(3.0)
    wire.drain()
    bed.idle()
    assert (bed.bus.counters["laps"], bed.bus.counters["missed"]) == (1, 1)


# Exclude


def test_excluded_one_does_not_see_it() -> None:
    """The excluded client reads what is before and after, everybody else all."""
    bed = Bed()
    alice, bob = bed.join(owner="alice"), bed.join(owner="bob")
    bed.publish("1")
    bed.publish("2", exclude="alice")
    bed.publish("3")
    bed.idle()
    assert (alice.texts, bob.texts) == (["1", "3"], ["1", "2", "3"])


def test_exclude_leaves_no_gap() -> None:
    """To the excluded client nothing is missing: no marker, and its cursor moves on."""
    bed = Bed()
    alice = bed.join(CHUNKED, owner="alice")
    bed.publish("1", exclude="alice")
    bed.idle()
    assert (alice.writes, alice.subscriber.cursor) == ([], 1)


def test_exclude_none_excludes_nobody() -> None:
    """A subscriber without an owner sees everything."""
    bed = Bed()
    wire = bed.join(owner=None)
    bed.publish("1", exclude=None)
    bed.publish("2", exclude="alice")
    bed.idle()
    assert wire.texts == ["1", "2"]


def test_exclude_holds_in_a_replay() -> None:
    """Who comes back with a position is not shown what it was excluded from."""
    bed = Bed()
    seen = bed.publish("1")
    bed.publish("2", exclude="alice")
    bed.publish("3")
    wire = bed.join(owner="alice", since=seen)
    bed.idle()
    assert wire.texts == ["3"]


def test_exclude_takes_what_cannot_be_hashed() -> None:
    """Any object can be excluded, a mutable one too."""
    bed = Bed()
    alice: list[str] = ["alice"]
    wire, other = bed.join(owner=alice), bed.join(owner=["alice"])
    bed.publish("1", exclude=alice)
    bed.idle()
    assert (wire.texts, other.texts) == ([], ["1"])


# Slices


def test_flush_is_cut_into_slices() -> None:
    """A flush gives the loop back after SLICE seconds, and goes on in the next turn."""
    bed = Bed()
    wires = [bed.join(cost=SLICE / 10) for _ in range(100)]
    bed.publish("x")
    began = bed.loop.clock
    bed.loop.turn()
    assert bed.loop.clock - began < 3 * SLICE
    bed.idle()
    assert all(wire.texts == ["x"] for wire in wires)


def test_few_with_much_to_read_are_cut_too() -> None:
    """The clock is also looked at when few subscribers have many writes each before them."""
    bed = Bed(TopicOptions(lag_bytes=1 << 30))
    for _ in range(5):
        bed.join(cost=SLICE / 10)
    for _ in range(100):
        bed.spawn(bed.bus.publish("t/1", "x" * MAX_WRITE))
    began = bed.loop.clock
    bed.loop.turn()
    assert bed.loop.clock - began < 3 * SLICE


def test_order_holds_across_slices() -> None:
    """What is published while a flush is cut comes after what the flush was about, for all."""
    bed = Bed()
    wires = [bed.join(cost=SLICE / 10) for _ in range(100)]
    bed.publish("1")
    bed.loop.turn()
    bed.publish("2")
    bed.loop.turn()
    bed.publish("3")
    bed.idle()
    assert all(wire.texts == ["1", "2", "3"] for wire in wires)


def test_joining_a_cut_flush() -> None:
    """Who joins in the middle of a flush gets neither its message nor misses the next."""
    bed = Bed()
    for _ in range(100):
        bed.join(cost=SLICE / 10)
    bed.publish("1")
    bed.loop.turn()
    assert bed.topic.flushing
    wire = bed.join()
    bed.publish("2")
    bed.idle()
    assert wire.texts == ["2"]


def test_time_takes_nothing_that_a_cut_flush_still_has_to_bring() -> None:
    """A flush that takes longer than ``lag`` laps nobody."""
    bed = Bed(TopicOptions(lag=1.0))
    wires = [bed.join(PLAIN, cost=0.1) for _ in range(100)]
    bed.publish("1")
    bed.loop.turn()
    bed.advance(3.0)  # the sweep comes by while the flush is cut
    bed.publish("2")
    bed.idle()
    assert all(wire.texts == ["1", "2"] for wire in wires)


def test_time_takes_nothing_from_one_that_replays() -> None:
    """A replay in which the server takes longer than ``lag`` has no gap."""
    bed = Bed(TopicOptions(lag=1.0))
    seen = bed.publish(*("x" * 100_000 for _ in range(4)))._replace(offset=0)
    bed.idle()
    crowd = [bed.join(since=seen, cost=0.1) for _ in range(40)]
    while bed.loop.busy:
        bed.loop.turn()
    assert bed.loop.clock > 1010.0
    assert all(len(wire.texts) == 4 for wire in crowd)


def test_time_takes_nothing_from_one_that_has_drained() -> None:
    """Who lagged, and reads again, misses nothing because the server takes its time."""
    bed = Bed(TopicOptions(lag=5.0))
    crowd = [bed.join(PLAIN, cost=0.1) for _ in range(40)]
    for wire in crowd:
        wire.pause()
    bed.publish(*(str(number).rjust(100_000) for number in range(4)))
    bed.idle()
    for wire in crowd:
        wire.drain()
    bed.idle()
    assert bed.loop.clock > 1010.0
    assert [len(wire.texts) for wire in crowd] == [4] * 40


def test_time_takes_nothing_from_one_that_drains_between_two_sweeps() -> None:
    """Who drained in time keeps its place also when the next message comes before its turn."""
    bed = Bed(TopicOptions(lag=0.2))
    wire = bed.join(PLAIN)
    bed.advance(1.2)  # a sweep, then none for a while
    wire.pause()
    bed.publish("1")
    bed.idle()
    bed.advance(0.5)
    wire.drain()
    bed.publish("2")
    bed.idle()
    assert (wire.closed, wire.texts) == (None, ["1", "2"])


def test_newcomers_do_not_starve_live_ones() -> None:
    """A crowd that replays takes at most half a slice from those who are live."""
    bed = Bed(TopicOptions(history=1000, lag_bytes=1 << 30))
    bed.publish(*("x" * 100_000 for _ in range(100)))
    bed.idle()
    live = bed.join()
    for _ in range(100):
        bed.join(since="earliest", cost=SLICE / 10)
    bed.publish("now")
    began = bed.loop.clock
    waited: list[float] = []
    live.on_write = lambda: waited.append(bed.loop.clock - began)
    bed.loop.turn()
    assert (len(waited), max(waited) < 0.75 * SLICE) == (1, True)


def test_crowd_of_newcomers_is_served_in_turn() -> None:
    """Of those who replay nobody is finished before the others have had their turn."""
    bed = Bed(TopicOptions(history=1000, lag_bytes=1 << 30))
    bed.publish(*("x" * 100_000 for _ in range(10)))
    bed.idle()
    crowd = [bed.join(since="earliest", cost=SLICE / 4) for _ in range(20)]
    while bed.loop.busy:
        bed.loop.turn()
        counts = [len(wire.writes) for wire in crowd]
        assert max(counts) - min(counts) <= 1


def test_healthy_reader_keeps_its_place_in_a_long_flush() -> None:
    """A publisher at full speed laps nobody whom a cut flush has not come to."""
    bed = Bed(TopicOptions(lag_bytes=200_000))
    wires = [bed.join(PLAIN, cost=SLICE / 5) for _ in range(200)]
    bed.publish(*("x" * 1000 for _ in range(2000)))
    bed.idle()
    assert [wire.closed for wire in wires] == [None] * 200


# Who is here


def test_subscribers_are_counted_in_every_state() -> None:
    """Held, live, replaying and lagging subscribers all count, those who left do not."""
    bed = Bed(TopicOptions(history=100, lag_bytes=1 << 30))
    lagging(bed)
    bed.publish(*("x" * 100_000 for _ in range(5)))
    bed.join()
    bed.join(start=False)
    bed.join(since="earliest")
    bed.join().subscriber.detach()
    assert bed.topic.subscribers == 4


def test_message_counts_with_what_is_around_it() -> None:
    """The size of a log is that of its messages and OVERHEAD for each."""
    bed = Bed()
    bed.publish("123", "4567")
    assert bed.topic.size == bed.bus.size == 7 + 2 * OVERHEAD


# A copy of a log that is kept elsewhere


def kept(*texts: str) -> list[tuple[Message, float]]:
    """What an engine has of a log, each message a second old."""
    return [(Message.of(text, time=0.5), 1.0) for text in texts]


@pytest.mark.parametrize("bound", [None, 1], ids=["live", "lagging"])
def test_what_is_lost_is_a_gap(bound: int | None) -> None:
    """Whoever had all until then is told how many messages are lost, and goes on; nobody is closed."""
    bed = Bed()
    wire = bed.join(bound=bound)
    bed.publish("1")
    bed.idle()
    bed.topic.skip(5)
    bed.publish("6")
    bed.idle()
    while wire.paused:
        wire.drain()
        bed.idle()
    assert wire.texts == ["1", "gap 4", "6"]
    assert wire.items[1].position == Position(bed.topic.epoch, 5)


def test_what_is_lost_is_told_though_nobody_publishes() -> None:
    """Who is here is told of the gap at once."""
    bed = Bed()
    wire = bed.join()
    bed.idle()
    bed.topic.skip(5)
    bed.idle()
    assert wire.texts == ["gap 5"]


@pytest.mark.parametrize("between", [[], ["x"]])
def test_what_is_lost_twice_before_it_is_told_closes_nobody(between: list[str]) -> None:
    """Who has not been told yet of what is lost when more of it is lost is told of all, and goes on."""
    bed = Bed()
    wire = bed.join()
    bed.publish("1")
    bed.idle()
    bed.topic.skip(3)
    for text in between:
        bed.publish(text)
    bed.topic.skip(5)
    bed.publish("6")
    bed.idle()
    assert wire.texts == ["1", "gap 4", "6"]


def test_what_is_lost_closes_a_form_without_marks() -> None:
    """A form that cannot say that messages are lost ends, with a reason that says it."""
    bed = Bed()
    wire = bed.join(PLAIN)
    bed.topic.skip(3)
    bed.idle()
    assert wire.closed == "3 messages were lost on their way"


def test_who_lags_is_not_forgiven_for_ever() -> None:
    """Who falls behind after messages were lost is closed as ever."""
    bed = Bed(TopicOptions(lag=0, lag_bytes=0))
    bed.topic.skip(3)
    wire = lagging(bed)
    for number in range(20):
        bed.publish(str(number))
        bed.idle()
    assert wire.closed is not None
    assert wire.closed.startswith("too slow")


def test_who_begins_is_not_closed_by_what_is_lost() -> None:
    """A newcomer whose place is held goes on after what is lost, and is told."""
    bed = Bed(TopicOptions(history=10))
    bed.publish("1")
    wire = bed.join(since="earliest", start=False)
    bed.topic.skip(4)
    wire.subscriber.start()
    bed.publish("5")
    bed.idle()
    assert wire.texts == ["gap 4", "5"]


@pytest.mark.parametrize("bound", [None, 1], ids=["live", "lagging"])
def test_another_log_is_a_reset(bound: int | None) -> None:
    """Whoever is here is told that the topic is another log, and has all that a newcomer may ask for."""
    bed = Bed(TopicOptions(history=2))
    wire = bed.join(bound=bound)
    bed.publish("old")
    bed.idle()
    bed.topic.restore(Position("e", 7), kept("5", "6", "7"))
    bed.publish("8")
    bed.idle()
    while wire.paused:
        wire.drain()
        bed.idle()
    assert wire.texts == ["old", "reset", "6", "7", "8"]
    assert [item.position for item in wire.items[1:]] == [Position("e", offset) for offset in (5, 6, 7, 8)]


def test_another_log_closes_a_form_without_marks() -> None:
    """A form that cannot say so ends."""
    bed = Bed()
    wire = bed.join(PLAIN)
    bed.topic.restore(Position("e", 7), [])
    assert wire.closed == "the topic has begun anew"


def test_who_begins_is_told_of_another_log() -> None:
    """A newcomer whose place was held in the old log begins with the reset."""
    bed = Bed(TopicOptions(history=2))
    bed.publish("old")
    wire = bed.join(since=-1, start=False)
    bed.topic.restore(Position("e", 1), kept("new"))
    wire.subscriber.start()
    bed.idle()
    assert wire.texts == ["reset", "new"]


def test_direct_frames_come_after_a_reset() -> None:
    """What waits for a client that does not read comes after it was told of the other log."""
    bed = Bed()
    wire = lagging(bed)
    wire.send("to you")
    bed.topic.restore(Position("e", 0), [])
    wire.drain()
    bed.idle()
    assert wire.texts == ["before", "reset", "to you"]


def test_what_is_kept_has_its_age() -> None:
    """What an engine has kept for longer than the history may be is not given to newcomers."""
    bed = Bed(TopicOptions(history=9, history_age=5.0, lag=0.0))
    old = [(Message.of("old", time=0.5), 60.0)]
    bed.topic.restore(Position("e", 2), [*old, *kept("new")])
    assert [message.data for message in bed.topic.history()] == ["new"]


def test_clocks_of_who_published_may_differ() -> None:
    """What seems to be older than the message before it is as young as that."""
    bed = Bed(TopicOptions(history=9, history_age=5.0))
    bed.topic.restore(Position("e", 2), [*kept("new"), (Message.of("next", time=0.5), 60.0)])
    assert [message.data for message in bed.topic.history()] == ["new", "next"]


def test_nobody_is_forgiven_in_another_log() -> None:
    """What was lost of the log before is no excuse, nor does its length hide who falls behind."""
    bed = Bed(TopicOptions(lag=0, lag_bytes=0))
    bed.topic.skip(50)
    wire = lagging(bed)
    bed.topic.restore(Position("e", 0), [])
    for number in range(20):
        bed.publish(str(number))
        bed.idle()
    assert wire.closed is not None
    assert wire.closed.startswith("too slow")


def test_another_log_is_kept_for_newcomers() -> None:
    """Whose place was held in the log before is not left behind by the one that there is."""
    bed = Bed(TopicOptions(history=2, lag=0.0))
    bed.publish(*"abcdefgh")
    wire = bed.join(start=False)
    bed.topic.restore(Position("e", 2), kept("1", "2"))
    for text in "345":
        bed.idle()
        bed.publish(text)
    wire.subscriber.start()
    bed.idle()
    assert wire.texts == ["reset", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize("state", [State.LIVE, State.BEHIND])
def test_another_log_is_told_though_nobody_publishes(state: State) -> None:
    """Whoever is here is told at once, who is still reading what there was before, too."""
    bed = Bed(TopicOptions(history=9))
    bed.publish(*("x" * 100_000 for _ in range(3)))
    bed.idle()
    wire = bed.join(since="earliest" if state is State.BEHIND else None)
    assert wire.subscriber.state is state
    if state is State.LIVE:
        bed.idle()  # nothing is due any more
    bed.topic.restore(Position("e", 0), [])
    bed.idle()
    assert wire.texts[-1:] == ["reset"]


def test_another_log_is_counted() -> None:
    """The bus knows what its topics hold when one has become another log, and when it is gone."""
    bed = Bed(TopicOptions(history=9))
    bed.publish(*"abc")
    bed.topic.restore(Position("e", 2), kept("1", "2"))
    assert bed.bus.size == bed.topic.size > 0
    bed.topic.skip(9)
    assert bed.bus.size == bed.topic.size == 0
