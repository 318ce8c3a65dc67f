"""Token buckets: how often something may happen."""

from __future__ import annotations

import pytest

from realtime import buckets as module
from realtime.buckets import Bucket, Buckets, Rate


def test_burst_and_no_more() -> None:
    """After a rest so many go at once as the burst has."""
    bucket = Bucket(Rate(10, 3), now=100.0)
    assert [bucket.take(100.0) for _ in range(5)] == [1, 1, 1, 0, 0]


def test_rate() -> None:
    """What is taken out comes back at the rate."""
    bucket = Bucket(Rate(8, 3), now=100.0)
    bucket.take(100.0, 3)
    assert [bucket.take(100.0 + n / 16) for n in range(1, 7)] == [0, 1, 0, 1, 0, 1]


def test_rest_gives_no_more_than_the_burst() -> None:
    """However long the rest was, no more than the burst has run into it."""
    bucket = Bucket(Rate(10, 3), now=100.0)
    bucket.take(100.0, 3)
    assert bucket.take(1e9, 100) == 3


def test_refusal_costs_nothing() -> None:
    """Who is refused again and again is not kept out for longer."""
    bucket = Bucket(Rate(8, 1), now=100.0)
    assert [bucket.take(100.0 + n / 64) for n in range(9)] == [1, *[0] * 7, 1]


@pytest.mark.parametrize(("rate", "wait"), [(100, 1), (1, 1)])
def test_wait(rate: int, wait: int) -> None:
    """Who is refused is told when there will be one, in whole seconds."""
    bucket = Bucket(Rate(rate, 1), now=100.0)
    bucket.take(100.0)
    assert bucket.wait == wait


@pytest.mark.parametrize(("burst", "portion"), [(1, 1), (15, 1), (200, 12), (1_000_000, 62_500)])
def test_portion_is_a_small_part_of_the_burst(burst: int, portion: int) -> None:
    """What is taken out at a time is no more than a sixteenth of the burst, and never nothing."""
    assert Rate(1, burst).portion == portion


def test_everybody_has_a_bucket() -> None:
    """What one takes is not taken from another."""
    buckets = Buckets(Rate(1, 1))
    assert [buckets.take(who, 100.0) for who in ("alice", "bob", "alice")] == [0, 0, 1]


def test_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many the one that was longest untouched is forgotten, and who is at work is not."""
    monkeypatch.setattr(module, "MAX_BUCKETS", 100)
    buckets = Buckets(Rate(1, 1))
    buckets.take("alice", 100.0)
    for number in range(1000):
        buckets.take(number, 100.0)
        assert buckets.take("alice", 100.0) == 1
    assert len(buckets) == 100
