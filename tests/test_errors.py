"""The errors: one tree, and the text of a problem."""

from __future__ import annotations

import pytest

from realtime import errors
from realtime.errors import (
    BusError,
    ConfigError,
    Disconnected,
    Problem,
    RealtimeError,
    Rejected,
    StartError,
    TooLarge,
    TooManyTopics,
    UnknownTopic,
    did_you_mean,
    json_escape,
    printable,
)


def test_tree_is_drawn() -> None:
    """The docstring draws every error under its base."""
    drawn = errors.__doc__ or ""
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert name in drawn
            assert kind.__doc__


def test_rejected_without_a_sentence() -> None:
    """Whoever is refused is told so, though the channel has no word for it."""
    assert str(Rejected("", 409)) == "the channel does not take this"


@pytest.mark.parametrize("kind", [ConfigError, StartError, BusError, Disconnected, Rejected])
def test_one_base(kind: type[Exception]) -> None:
    """Whoever catches RealtimeError catches every one of them."""
    assert issubclass(kind, RealtimeError)


@pytest.mark.parametrize("kind", [UnknownTopic, TooManyTopics, TooLarge])
def test_errors_of_the_bus(kind: type[Exception]) -> None:
    """Whoever catches BusError catches what the bus raises about topics."""
    assert issubclass(kind, BusError)


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("wrong", "a.b", "c.yaml", 1, 2), "c.yaml:1:2: a.b: wrong"),
        (Problem("wrong", "", "c.yaml", 1, 2), "c.yaml:1:2: wrong"),
        (Problem("wrong", "", "c.yaml"), "c.yaml: wrong"),
        (Problem("wrong"), "wrong"),
    ],
)
def test_problem_is_a_line(problem: Problem, text: str) -> None:
    """A problem is place, path and message, as far as they are known."""
    assert str(problem) == text


def test_config_error_is_all_of_its_problems() -> None:
    """The text of a ConfigError has a line for each problem, in order."""
    error = ConfigError(Problem("first"), Problem("second"))
    assert (str(error), [problem.message for problem in error.problems]) == (
        "first\nsecond",
        ["first", "second"],
    )


@pytest.mark.parametrize(
    ("status", "code"), [(401, 4401), (403, 4403), (413, 1009), (400, 1008), (599, 1008)]
)
def test_rejection_has_a_close_code(status: int, code: int) -> None:
    """What is rejected where only a close can say so has a code that says the same."""
    assert Rejected("no", status).close_code == code


def test_rejection_is_a_bad_request_by_default() -> None:
    """Without a status a rejection says that what was said is wrong."""
    assert (str(Rejected("no")), Rejected("no").status) == ("no", 400)


@pytest.mark.parametrize("status", [0, 202, 399, 600, 4401])
def test_rejection_with_a_status_that_is_no_error(status: int) -> None:
    """A status that is no error's is refused, a close code too."""
    with pytest.raises(ValueError, match="they are 400 to 599"):
        Rejected("no", status)


def test_rejection_can_be_said_everywhere() -> None:
    """Half of a character, which no transport could carry, is replaced."""
    assert str(Rejected("no \ud800")) == "no ?"


def test_far_words_are_not_suggested() -> None:
    """Only a word that is near is suggested."""
    assert (did_you_mean("zebra", ["listen"]), did_you_mean("lisen", ["listen"])) == (
        "",
        ", did you mean 'listen'?",
    )


def test_what_cannot_be_printed_is_escaped() -> None:
    """A line of a stranger stays one line, drives no terminal, and is cut only if that is wanted."""
    assert printable("é\n\x1b\x7f\u202e") == "é\\n\\x1b\\x7f\\u202e"
    assert printable("é\n\x1b\x7f😀\U000e0001", escape=json_escape) == (
        "é\\u000a\\u001b\\u007f😀\\udb40\\udc01"
    )
    assert (printable("x" * 301, 300), printable("x" * 300, 300)) == ("x" * 300 + "…", "x" * 300)
    assert printable("\n\n\n", 2) == "\\n…"
