"""The object that a message travels in, read and written by another library where that is possible."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, strategies as st

from realtime.envelope import MAX_REF, BadEnvelope, acknowledge, ask, read, refuse, write
from realtime.message import Message, Position

HERE = Position("3f9a01c2", 17)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=10,
)


def written(data: Any, event: str = "message", id: Position | None = HERE) -> dict[str, Any]:
    """The object of a message, as the standard library reads it."""
    value = json.loads(write(Message.of(data, event=event, time=1763900000.25, id=id)))
    assert isinstance(value, dict)
    return value


def refused(given: object) -> str:
    """Why this object is none, or these bytes are none."""
    with pytest.raises(BadEnvelope) as caught:
        read(given if isinstance(given, bytes) else json.dumps(given).encode())
    return str(caught.value)


# Written


def test_message() -> None:
    """A message has its id, event, data and time."""
    assert written("hi", "news") == {
        "id": "3f9a01c2-17",
        "event": "news",
        "data": "hi",
        "time": 1763900000.25,
    }


def test_message_is_compact() -> None:
    """The object has no spaces, and its fields are in one order."""
    message = Message.of({"a": [1, None]}, time=2.0, id=HERE)
    assert write(message) == b'{"id":"3f9a01c2-17","event":"message","data":{"a":[1,null]},"time":2.0}'


def test_direct_message_has_no_id() -> None:
    """What is in no topic has no id."""
    assert "id" not in written("hi", id=None)


@given(JSON)
def test_any_json_comes_through(data: Any) -> None:
    """Any JSON, text included, is read as it was written."""
    assert written(data)["data"] == data


@pytest.mark.parametrize("data", [b"", b"\x00\xff", bytes(range(256))])
def test_bytes_are_base64(data: bytes) -> None:
    """Bytes say that they are base64, and can be had back."""
    value = written(data)
    assert (base64.b64decode(value["data"]), value["encoding"]) == (data, "base64")


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=50))
def test_any_event_comes_through(event: str) -> None:
    """An event name is refused, or read as it was written."""
    try:
        value = written("x", event)
    except ValueError:
        return
    assert value["event"] == event


@given(JSON | st.binary(max_size=50), st.integers(0, 2**53))
def test_what_a_client_asks_is_read(data: Any, ref: int) -> None:
    """What a client writes is the message that the server reads, under its ref."""
    message = Message.of(data, event="news", time=0.0)
    assert read(ask(message, ref)) == (message, ref)


# Read


@pytest.mark.parametrize(
    ("data", "kind", "payload"),
    [
        ("hi", "text", b"hi"),
        ("", "text", b""),
        ({"a": 1, "b": [None]}, "json", b'{"a":1,"b":[null]}'),
        (None, "json", b"null"),
        (7, "json", b"7"),
    ],
    ids=repr,
)
def test_data_decides_what_it_is(data: Any, kind: str, payload: bytes) -> None:
    """A text is text, and anything else is JSON."""
    message, ref = read(json.dumps({"data": data}).encode())
    assert (message.event, message.kind, message.payload, ref) == ("message", kind, payload, None)


def test_base64_is_bytes() -> None:
    """Data that says it is base64 is bytes."""
    message, _ = read(b'{"data": "AP8=", "encoding": "base64"}')
    assert (message.kind, message.payload) == ("bytes", b"\x00\xff")


def test_event() -> None:
    """The event is the one that is named."""
    assert read(b'{"event": "news", "data": 1}')[0].event == "news"


@pytest.mark.parametrize("ref", [0, -1, 2**64 - 1, "", "a", "x" * MAX_REF, "\u00e9" * (MAX_REF // 2)])
def test_ref(ref: object) -> None:
    """A ref is a number or a text, and comes back as it was."""
    assert read(json.dumps({"data": 1, "ref": ref}).encode())[1] == ref


@pytest.mark.parametrize(
    "ref", [True, 1.5, [], {}, 2**64, "x" * (MAX_REF + 1), "\u00e9" * (MAX_REF // 2 + 1)], ids=repr
)
def test_ref_that_is_none(ref: object) -> None:
    """What is no short text and no number of 64 bits is no ref, and is not said again."""
    with pytest.raises(BadEnvelope, match="a ref is") as caught:
        read(json.dumps({"data": 1, "ref": ref}).encode())
    assert caught.value.ref is None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"hi", id="text"),
        pytest.param(b'{"data": 1', id="cut"),
        pytest.param(b'{"data": NaN}', id="NaN"),
        pytest.param(b'{"data": 1e999}', id="infinite"),
        pytest.param(b'{"data": ' + b"9" * 5000 + b"}", id="huge number"),
        pytest.param(b'{"data": "\\ud800"}', id="lone surrogate"),
        pytest.param(b'{"data": ' + b"[" * 30_000, id="deep"),
        pytest.param(b'{"a":' * 30_000, id="deep objects"),
        pytest.param(b'{"data": 1} {"data": 2}', id="two"),
    ],
)
def test_text_that_is_no_json(text: bytes) -> None:
    """Hostile and broken JSON is refused with a sentence."""
    assert refused(text).startswith("this is no JSON")


@pytest.mark.parametrize("given", [1, None, "x", [], [{"data": 1}]])
def test_json_that_is_no_object(given: object) -> None:
    """JSON that is no object is told what a frame is."""
    assert '{"data": "hi"}' in refused(given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "data is missing"),
        ({"event": "x"}, "data is missing"),
        ({"dat": 1}, "no key 'dat', did you mean 'data'"),
        ({"data": 1, "zebra": 2}, "there are event, data, encoding, ref"),
        ({"data": 1, "event": 7}, "an event is a text"),
        ({"data": 1, "event": None}, "an event is a text"),
        ({"data": 1, "event": ""}, "no event name"),
        ({"data": 1, "event": "a\nb"}, "no event name"),
        ({"data": 1, "event": "x" * 256}, "no event name"),
        ({"data": 1, "event": "realtime:ack"}, "is the server's to send"),
        ({"data": "x", "encoding": "hex"}, "the only encoding is base64"),
        ({"data": "x", "encoding": None}, "the only encoding is base64"),
        ({"data": 1, "encoding": "base64"}, "of data that is a text"),
        ({"data": "x", "encoding": "base64"}, "no base64"),
        ({"data": "AP 8=", "encoding": "base64"}, "no base64"),
        ({"data": "\u00e9", "encoding": "base64"}, "no base64"),
    ],
    ids=repr,
)
def test_object_that_is_none(given: dict[str, object], says: str) -> None:
    """An object that is not the one expected is told what is wrong with it, under its ref."""
    assert says in refused(given)
    with pytest.raises(BadEnvelope) as caught:
        read(json.dumps({**given, "ref": 7}).encode())
    assert caught.value.ref == 7


def test_json_that_cannot_be_handed_on() -> None:
    """JSON that can be read, but is too deep to be written again, is refused."""
    assert "no JSON" in refused(b'{"data": ' + b"[" * 500 + b"]" * 500 + b"}")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    """Nothing but the one error leaves the parser."""
    with suppress(BadEnvelope):
        read(text)


# Answered


def test_acknowledgement() -> None:
    """An acknowledgement has the ref, and the position of what was published."""
    assert json.loads(acknowledge(7, HERE)) == {"event": "realtime:ack", "ref": 7, "id": "3f9a01c2-17"}


def test_acknowledgement_of_what_was_not_published() -> None:
    """Where nothing was published there is no id."""
    assert json.loads(acknowledge("a", None)) == {"event": "realtime:ack", "ref": "a"}


@pytest.mark.parametrize(("ref", "said"), [(None, {}), (0, {"ref": 0}), ("", {"ref": ""})])
def test_refusal(ref: int | str | None, said: dict[str, object]) -> None:
    """A refusal has the ref if there was one, and the sentence."""
    assert json.loads(refuse("no", ref)) == {
        "event": "realtime:error",
        **said,
        "data": {"message": "no", "status": 400},
    }


def test_refusal_has_a_status() -> None:
    """A refusal says what kind it is as HTTP would."""
    assert json.loads(refuse("not here", None, 404))["data"] == {"message": "not here", "status": 404}
