"""The wording: what is said to somebody who knows neither YAML's grammar nor pydantic."""

from __future__ import annotations

from typing import Annotated

import pytest
import yaml
from pydantic import Field, PositiveInt, ValidationError
from test_source import mistakes

from realtime.source import Source
from realtime.values import Duration, Model
from realtime.wording import as_written


class Auction(Model):
    """Settings with bounds of all kinds."""

    colors: list[Annotated[str, Field(pattern="^#[0-9a-f]{6}$")]] = Field([], min_length=1)
    step: PositiveInt = 1
    share: Annotated[float, Field(ge=0, le=0.5)] = 0.5
    even: Annotated[int, Field(multiple_of=2)] = 2
    name: Annotated[str, Field(min_length=1, max_length=3)] = "abc"
    most: list[str] = Field([], max_length=1)
    prices: dict[str, int] = Field({}, min_length=1)
    idle: Annotated[Duration, Field(le=60)] = 60.0
    pair: tuple[int, int] = (1, 2)


def explained(text: str) -> list[str]:
    """What the model has against a text."""
    source = Source("c.yaml", environment={})
    with pytest.raises(ValidationError) as caught:
        Auction.model_validate(source.load(text))
    return [str(problem).partition(": ")[2] for problem in source.explain(caught.value, Auction, ())]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colors: []", "colors: expected a list of at least 1 item, not of 0"),
        ("most: [a, b]", "most: expected a list of at most 1 item, not of 2"),
        ("prices: {}", "prices: expected a section of at least 1 key, not of 0"),
        ("colors: [red]", "colors[0]: expected text of the pattern ^#[0-9a-f]{6}$, not 'red'"),
        ("name: ''", "name: expected text of at least 1 character, not ''"),
        ("name: abcd", "name: expected text of at most 3 characters, not 'abcd'"),
        ("step: -1", "step: expected a number greater than 0, not -1"),
        ("step: 2.5", "step: expected a whole number, not 2.5"),
        ("step: '2'", "step: expected a whole number, not '2': write it without the quotes"),
        ("share: -0.1", "share: expected a number of at least 0, not -0.1"),
        ("share: 2", "share: expected a number of at most 0.5, not 2"),
        ("share: x", "share: expected a number, not 'x'"),
        ("even: 3", "even: expected a multiple of 2, not 3"),
        ("idle: 99s", "idle: expected a number of at most 60, not '99s'"),
        ("idle: 99", "idle: expected a duration such as 500ms, 10s or 5m, not 99"),
        ("pair: [1, 2]", "pair: no value of YAML is a tuple: the plugin's setting is to be a list"),
    ],
)
def test_bounds(text: str, said: str) -> None:
    """What pydantic has against a value is said in the words of a config; a number has no quotes."""
    assert explained(text) == [said]


@pytest.mark.parametrize("value", ["'#ff0000'", "Where?", "'a, b'", "red", "'{room}'", "'yes'", "7"])
def test_list_that_is_suggested_is_right(value: str) -> None:
    """Where a list is wanted, what is to be written instead is a list of what was meant."""
    said = as_written(yaml.compose(value), "expected a list")
    assert yaml.safe_load(said.partition(": write ")[2]) == [yaml.safe_load(value)]


def test_value_that_is_a_comment() -> None:
    """What stands behind a dash or a colon and is a comment is told so."""
    said = "expected text, but nothing is there; '#ff0000' begins a comment: put the text in quotes"
    assert explained("colors:\n  - #ff0000") == [f"colors[0]: {said}"]
    assert explained("name: #ff0000") == [f"name: {said}"]
    assert explained("name: # a note") == ["name: expected text, but nothing is there"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a:\n  colors: [#ff0000, #00ff00]\n  step: 1\n", "2:12"),
        ("a:\n  colors: [red, #ff0000]\n", "2:17"),
        ("a: [#ff0000]\n", "1:5"),
        ("a: {colors: ['#1', #ff0000]}\nb: 1\n", "1:20"),
    ],
)
def test_comment_in_brackets(text: str, place: str) -> None:
    """A bracket whose end is in a comment is told where the comment begins."""
    [problem] = mistakes(text)
    assert str(problem) == f"c.yaml:{place}: '#' begins a comment: put the text in quotes"


def test_comment_behind_an_open_bracket() -> None:
    """A comment that is one is not blamed for a bracket that does not end."""
    [problem] = mistakes("a: [1, 2  # two of them\nb: 3\n")
    assert "the bracket that begins here does not end" in problem.message


@pytest.mark.parametrize(
    ("text", "place"), [("{question: Where?, path: /a}", "1:17"), ("{path: /a, question: ?x}", "1:22")]
)
def test_question_mark(text: str, place: str) -> None:
    """A question mark inside brackets needs quotes, and is told so."""
    [problem] = mistakes(text)
    said = "inside brackets and braces a text with a question mark needs quotes"
    assert str(problem) == f"c.yaml:{place}: {said}"
