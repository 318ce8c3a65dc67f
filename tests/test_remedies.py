"""Remedies: what is said after an error that authors of plugins make again and again."""

from __future__ import annotations

import pytest

from realtime.remedies import remedy


def test_error_that_nobody_knows() -> None:
    """Of most errors nothing is known, and nothing is said."""
    assert remedy(ValueError("no dice")) == ""


def test_error_that_cannot_be_shown() -> None:
    """An error whose text fails has no remedy, and does no harm."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert remedy(Mute()) == ""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SystemExit(3), "; a plugin may not end the process: raise an error that says what is wrong"),
        (
            ImportError("cannot import name 'Chanel' from 'realtime' (x.py)"),
            ", did you mean 'Channel'?",
        ),
        (ModuleNotFoundError("No module named 'hiredis'"), "; pip install 'realtime-channels[redis]'"),
        (ModuleNotFoundError("No module named 'x.y'"), "; is it installed? python -m pip install x.y"),
    ],
)
def test_error_that_is_known(error: BaseException, said: str) -> None:
    """Of some it is known what to write instead."""
    assert remedy(error) == said
