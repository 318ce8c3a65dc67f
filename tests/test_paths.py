"""Paths: what the config may say, and the topic that a request's path names."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from hypothesis import given, strategies as st

from realtime.paths import MAX_VALUE, check_path, is_reserved, route_pattern, shape, topic_name


@pytest.mark.parametrize(
    "path",
    ["/", "/ws", "/a/b/c", "/rooms/{room}", "/{a}/x/{b}", "/topics/{topic...}", "/{all...}", "/é", "/-x"],
)
def test_path(path: str) -> None:
    """Plain segments, variables, and a rest in the last place make a path."""
    assert check_path(path) == path


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("ws", "begins with a slash"),
        ("", "begins with a slash"),
        ("/-/x", "under /-/ are the server's own"),
        ("/-/", "under /-/"),
        ("/-", "under /-/"),
        ("/a//b", "empty segment"),
        ("/a/", "empty segment"),
        ("//", "empty segment"),
        ("/{a}/{a}", "a variable stands in it twice"),
        ("/{a}/{a...}", "a variable stands in it twice"),
        ("/x{a}", "a variable is a whole segment"),
        ("/{a}x", "a variable is a whole segment"),
        ("/{a", "a variable is a whole segment"),
        ("/{}", "a variable is a whole segment"),
        ("/{1a}", "a variable is a whole segment"),
        ("/{a:.*}", "a variable is a whole segment"),
        ("/{a..}", "a variable is a whole segment"),
        ("/{a...}/b", "stands last"),
        ("/{a...}/{b...}", "stands last"),
        ("/a b", "cannot stand in a path"),
        ("/a?b", "cannot stand in a path"),
        ("/a#b", "cannot stand in a path"),
        ("/a%20b", "cannot stand in a path"),
        ("/*", "cannot stand in a path"),
        ("/a\\b", "cannot stand in a path"),
        ("/a\nb", "cannot stand in a path"),
    ],
)
def test_wrong_path(path: str, wrong: str) -> None:
    """What is no path is refused with what is wrong with it."""
    with pytest.raises(ValueError, match=re.escape(wrong)):
        check_path(path)


@pytest.mark.parametrize("path", ["/.", "/..", "/a/../b", "/a/./b"])
def test_path_that_no_client_could_ask_for(path: str) -> None:
    """Clients resolve dots before they ask: a path with them would never be reached."""
    with pytest.raises(ValueError, match="segment"):
        check_path(path)


def test_pattern() -> None:
    """aiohttp's spelling of a variable lets everything through: values are checked later."""
    assert route_pattern("/a/{b}/{c...}") == "/a/{b:[^/]*}/{c:(?s:.*)}"


@pytest.mark.parametrize(
    ("one", "other"), [("/{a}", "/{b}"), ("/{a...}", "/{b}"), ("/x/{a:[0-9]+}", "/x/{b}")]
)
def test_shape(one: str, other: str) -> None:
    """Paths that differ in their variables only could serve the same request."""
    assert shape(one) == shape(other)


def test_topic_without_variables() -> None:
    """A path without variables names one topic, the channel's."""
    assert topic_name("lobby", [], "/chat%2F%") == "lobby"


def test_topic_with_variables() -> None:
    """The values follow the channel's name."""
    assert topic_name("t", ["a", "b/c"], "/a/b/c") == "t/a/b/c"


@given(st.text(max_size=300))
def test_topic_or_a_sentence(value: str) -> None:
    """Whatever a value is, it gives a topic of one bounded, printable name, or a sentence."""
    raw = "/" + quote(value.encode(errors="replace"), safe="")
    name = sentence = ""
    try:
        name = topic_name("c", [value], raw)
    except ValueError as error:
        sentence = str(error)
    if sentence:
        assert "path" in sentence
    else:
        assert name.startswith("c/")
        assert name.isprintable()
        assert len(name.encode()) <= 2 + MAX_VALUE


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_two_values_are_one_topic(one: str, other: str) -> None:
    """A topic's name gives its value back: asked for with it again, it is the same."""
    names = []
    for value in (one, other):
        try:
            names.append(topic_name("c", [value], ""))
        except ValueError:
            return
    assert (names[0] == names[1]) == (names[0][2:] == names[1][2:])
    assert topic_name("c", [names[0][2:]], "") == names[0]


@pytest.mark.parametrize(("path", "reserved"), [("/-/x", True), ("/-", True), ("/-x", False), ("/", False)])
def test_reserved(path: str, reserved: bool) -> None:
    """``/-/`` and what is under it is the host's."""
    assert is_reserved(path) is reserved
