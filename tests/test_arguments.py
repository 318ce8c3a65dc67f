"""What may be typed for an option, and what is said to what may not."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from realtime import arguments


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (arguments.count, "12", 12),
        (arguments.pair, "a=b=c", ("a", "b=c")),
        (arguments.pair, "a=", ("a", "")),
        (arguments.ttl, "1h", 3600.0),
        (arguments.plugin, "dice", "dice"),
        (arguments.since, "-20", "-20"),
        (arguments.header, "X-Key:  a: b ", ("X-Key", "a: b")),
    ],
)
def test_what_may_be_typed(read: Callable[[str], object], text: str, value: object) -> None:
    """It is what it stands for."""
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (arguments.count, "0", "expected a number from 1, not '0'"),
        (arguments.pair, "=a", "expected NAME=VALUE, not '=a'"),
        (arguments.pair, "a", "expected NAME=VALUE, not 'a'"),
        (arguments.ttl, "1", "expected a duration such as 500ms, 10s or 5m, not '1'"),
        (arguments.plugin, "d ice", "no name"),
        (arguments.since, "x", "or -20, or earliest"),
        (arguments.header, "a\nb: c", "expected 'Name: value', not"),
    ],
)
def test_what_may_not(read: Callable[[str], object], text: str, said: str) -> None:
    """It is told what is expected."""
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        read(text)
    assert said in str(caught.value)
