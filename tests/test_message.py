"""Messages and positions: what they carry, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, strategies as st

from realtime.message import MAX_EVENT, Message, Position, Since, parse_since


def message(data: Any, event: str = "message") -> Message:
    return Message.of(data, event=event, time=0.0)


# Data


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ("x", "text"),
        ("", "text"),
        (b"x", "bytes"),
        (b"", "bytes"),
        ({"a": 1}, "json"),
        (None, "json"),
        (1, "json"),
    ],
)
def test_kind_follows_the_type(data: object, kind: str) -> None:
    """``str`` is text, bytes are bytes, anything else is JSON."""
    assert message(data).kind == kind


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    )
)
def test_data_comes_back(data: object) -> None:
    """What was put in comes out."""
    assert message(data).data == data


@pytest.mark.parametrize("data", [bytearray(b"abc"), memoryview(b"abc"), memoryview(b"aabbcc")[::2]])
def test_all_kinds_of_bytes(data: object) -> None:
    """A buffer of any kind is taken as bytes."""
    assert message(data)[1:3] == ("bytes", bytes(data))  # type: ignore[call-overload]


def test_text_that_looks_like_json_stays_text() -> None:
    """A string is never parsed."""
    assert message('{"a": 1}').data == '{"a": 1}'


def test_later_change_of_the_data_changes_nothing() -> None:
    """Data is encoded when the message is made: to change the original changes nobody's message."""
    data = {"a": [1]}
    made = message(data)
    data["a"].append(2)
    assert made.data == {"a": [1]}


def test_later_change_of_a_buffer_changes_nothing() -> None:
    """The bytes of a message are its own."""
    data = bytearray(b"abc")
    made = message(data)
    data[0] = 0
    assert made.data == b"abc"


def test_change_of_what_was_read_changes_nothing() -> None:
    """Each access to ``data`` decodes anew, so readers cannot disturb each other."""
    made = message({"a": [1]})
    made.data["a"].append(2)
    assert made.data == {"a": [1]}


def test_message_cannot_be_changed() -> None:
    """A message is immutable."""
    with pytest.raises(AttributeError):
        message("x").event = "y"  # type: ignore[misc]


@pytest.mark.parametrize("data", ["\ud800", {"a": "\udfff"}, {"\ud800": 1}, ["\ud800"]])
def test_lone_surrogate_is_refused(data: object) -> None:
    """Text that is no Unicode is the publisher's ValueError, wherever it hides."""
    with pytest.raises(ValueError, match="surrogates"):
        message(data)


@pytest.mark.parametrize("data", [object(), {1: 2}, {"a": {1, 2}}, 2**64, lambda: None])
def test_what_is_no_json_is_refused(data: object) -> None:
    """Data that JSON cannot say is the publisher's ValueError."""
    with pytest.raises(ValueError, match="this data is no JSON"):
        message(data)


def test_circle_is_refused() -> None:
    """Data that contains itself is refused, not followed."""
    data: list[object] = []
    data.append(data)
    with pytest.raises(ValueError, match="this data is no JSON"):
        message(data)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_json_knows_no_nan(number: float) -> None:
    """Not-a-number and the infinities become null, which every JSON parser reads."""
    assert message([number]).payload == b"[null]"


# Event


@pytest.mark.parametrize(
    "event", ["a", "message", "realtime:join", "with space", " lead", "a:b", "ä", "日本", "x" * MAX_EVENT]
)
def test_event_name(event: str) -> None:
    """An event name is any printable text."""
    assert message("x", event).event == event


@pytest.mark.parametrize(
    "event",
    [
        "",
        "a\nb",
        "a\rb",
        "\r\n",
        "\0",
        "a\tb",
        "\x1b[0m",
        "\x7f",
        "\x85",
        "\u2028",
        "\u2029",
        "\u200b",
        "\ufeff",
        "\ud800",
    ],
)
def test_event_name_with_control_characters_is_refused(event: str) -> None:
    """What could forge a line of a stream, or cannot be seen, is no event name."""
    with pytest.raises(ValueError, match=r"no event name|surrogates"):
        message("x", event)


@pytest.mark.parametrize("event", ["x" * (MAX_EVENT + 1), "ä" * 128])
def test_event_name_is_bounded_in_bytes(event: str) -> None:
    """An event name is at most MAX_EVENT bytes of UTF-8."""
    with pytest.raises(ValueError, match="1 to 255 bytes"):
        message("x", event)


def test_refusal_is_short() -> None:
    """The error does not repeat a name of any length."""
    with pytest.raises(ValueError, match="no event name") as caught:
        message("x", "x" * 100_000)
    assert len(str(caught.value)) < 200


# Positions


@given(st.from_regex(r"[0-9a-f]{1,32}", fullmatch=True), st.integers(0, 10**18 - 1))
def test_position_round_trip(epoch: str, offset: int) -> None:
    """What ``str()`` writes ``parse()`` reads."""
    position = Position(epoch, offset)
    assert Position.parse(str(position)) == position


@pytest.mark.parametrize(
    "text",
    [
        "", "-", "3f9a01c2", "3f9a01c2-", "-17", "3F9A-1", "g-1", "3f-1-2", "3f--1", "3f-+1",
        "3f-1.0", "3f-1e3", " 3f-1", "3f-1 ", "3f-1\n", "3f-\u0661", "3f-\u00b2", "3f_1", "a" * 33 + "-1",
        "3f-" + "1" * 19, "earliest", "\0", "3f-0x1",
    ],
)  # fmt: skip
def test_position_rejects(text: str) -> None:
    """Everything else is no position."""
    with pytest.raises(ValueError, match="is no position"):
        Position.parse(text)


def test_position_rejects_briefly() -> None:
    """The error does not repeat text of any length."""
    with pytest.raises(ValueError, match="is no position") as caught:
        Position.parse("x" * 100_000)
    assert len(str(caught.value)) < 200


@given(st.text())
def test_position_rejects_with_value_error_only(text: str) -> None:
    """Whatever a client sends, parsing it ends in a position or in ValueError."""
    try:
        position = Position.parse(text)
    except ValueError:
        return
    assert 0 <= position.offset < 10**18


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("earliest", "earliest"),
        ("-20", -20),
        ("-0", 0),
        ("-999999999", -999999999),
        ("3f-17", Position("3f", 17)),
    ],
)
def test_since(text: str, since: Since) -> None:
    """``since`` is a position, a count with a minus, or ``earliest``."""
    assert parse_since(text) == since


@pytest.mark.parametrize(
    "text", ["", "20", "+20", "--20", "-1000000000", "-2.0", "- 2", "-2\n", "EARLIEST", "latest", "-\u0662"]
)
def test_since_rejects(text: str) -> None:
    """Everything else is refused as a position is."""
    with pytest.raises(ValueError, match="is no position"):
        parse_since(text)
