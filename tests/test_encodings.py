"""Forms: the bytes of a message, read back by somebody else's parser or by the standard's rules."""

from __future__ import annotations

import base64
import json
import os
import re
import zlib
from collections.abc import Generator, Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import given, strategies as st
from websockets.extensions.base import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame
from websockets.streams import StreamReader

from realtime.encodings import (
    BINARY,
    CLOSE,
    DEFLATE_END,
    MIN_DEFLATE,
    PING,
    PONG,
    TEXT,
    WINDOW_BITS,
    DeflatedFrames,
    EventStream,
    Form,
    JsonFrames,
    PlainFrames,
    frame,
)
from realtime.envelope import write
from realtime.message import Message, Position

Result = TypeVar("Result")

HERE = Position("3f9a01c2", 17)
STREAM = EventStream(chunked=False)
CHUNKED = EventStream(chunked=True)
JSON = JsonFrames()
PLAIN = PlainFrames(lambda message: None if message.event == "hidden" else str(message.data))
DEFLATED = DeflatedFrames(PLAIN)
#: What makes even a short text long enough to be compressed.
LONG = "to and fro " * 100


def message(data: Any, event: str = "message", id: Position | None = None) -> Message:
    return Message.of(data, event=event, time=0.0, id=id)


def parse_frames(data: bytes, extensions: Sequence[Extension] = ()) -> list[Frame]:
    """Every frame in it, as the ``websockets`` library reads them from a server."""
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    frames: list[Frame] = []
    while not finish(reader.at_eof()):
        frames.append(finish(Frame.parse(reader.read_exact, mask=False, extensions=extensions)))
    return frames


def inflate(data: bytes) -> list[bytes]:
    """What a client reads that keeps a window of 4 KiB, and nothing from one message to the next."""
    reader = PerMessageDeflate(True, True, WINDOW_BITS, 15)
    return [bytes(parsed.data) for parsed in parse_frames(data, [reader])]


def finish(steps: Generator[None, None, Result]) -> Result:
    """The result of a parser that has all of its bytes."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: Result = done.value
            return result


def parse_events(stream: bytes) -> list[dict[str, str]]:
    """Every event that a browser would dispatch (HTML standard, section 9.2.6)."""
    events: list[dict[str, str]] = []
    event, data, last = "", "", ""
    for line in re.split(r"\r\n|\n|\r", stream.decode()):
        if not line:
            if data:
                events.append({"event": event or "message", "data": data[:-1], "id": last})
            event, data = "", ""
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            event = value
        elif field == "data":
            data += value + "\n"
        elif field == "id" and "\0" not in value:
            last = value
    return events


def only_event(data: Any, event: str = "message") -> dict[str, str]:
    (parsed,) = parse_events(STREAM.encode(message(data, event, HERE)))
    return parsed


# WebSocket frames


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_frame_of_every_length(opcode: int, size: int) -> None:
    """A frame is read back whole by another implementation, whatever its length takes."""
    (parsed,) = parse_frames(frame(opcode, b"x" * size))
    assert (parsed.fin, parsed.opcode, parsed.data) == (True, opcode, b"x" * size)


@pytest.mark.parametrize(("size", "head"), [(125, 2), (126, 4), (65_535, 4), (65_536, 10)])
def test_frame_length_is_written_shortest(size: int, head: int) -> None:
    """The length takes the fewest bytes, as section 5.2 demands."""
    assert len(frame(BINARY, b"x" * size)) == head + size


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_control_frame(opcode: int) -> None:
    """A control frame of the largest size allowed passes another implementation's checks."""
    (parsed,) = parse_frames(frame(opcode, b"\x03\xe8" + b"x" * 123))
    parsed.check()
    assert parsed.opcode == opcode


def test_frames_can_be_joined() -> None:
    """Joined frames are read back one by one."""
    data = b"".join(PLAIN.encode(message(text)) for text in ("a", "", "b" * 70_000))
    assert [bytes(parsed.data) for parsed in parse_frames(data)] == [b"a", b"", b"b" * 70_000]


def test_plain_text_is_a_text_frame() -> None:
    """Text goes as the channel shows it, in UTF-8."""
    (parsed,) = parse_frames(PLAIN.encode(message("grüß\u2028")))
    assert (parsed.opcode, parsed.data) == (TEXT, "grüß\u2028".encode())


def test_plain_bytes_are_a_binary_frame() -> None:
    """Bytes go as they are, without the channel being asked."""
    (parsed,) = parse_frames(PLAIN.encode(message(b"\0\xff", "hidden")))
    assert (parsed.opcode, parsed.data) == (BINARY, b"\0\xff")


def test_plain_hides_what_the_channel_hides() -> None:
    """What the channel does not show has no bytes at all."""
    assert PLAIN.encode(message("x", "hidden")) == b""


def test_plain_forms_do_not_share_their_encodings() -> None:
    """Two channels may show one message differently, so their keys differ."""
    assert PLAIN.key is not PlainFrames(lambda message: "other").key


# Compressed frames


@pytest.mark.parametrize("data", ["hi", LONG, LONG * 1000, LONG.encode(), os.urandom(5000), ""], ids=len)
def test_deflated_frame_is_read_back(data: str | bytes) -> None:
    """Whatever a message is, another implementation reads it back."""
    assert inflate(DEFLATED.encode(message(data))) == [data.encode() if isinstance(data, str) else data]


@given(st.text(st.characters(codec="utf-8")), st.integers(0, 200))
def test_any_text_can_be_deflated(text: str, times: int) -> None:
    """Any text whatever is read back, however often it is repeated."""
    assert inflate(DEFLATED.encode(message(text * times))) == [(text * times).encode()]


def test_far_repetition_is_not_referred_to() -> None:
    """What is repeated farther away than the window is written again: nobody needs to keep more."""
    noise = os.urandom(2500).hex()
    data = DEFLATED.encode(message(noise * 3))[4:]
    reader = zlib.decompressobj(-WINDOW_BITS)
    text = b""
    while data:  # byte by byte, or zlib would look for it among what it has just given out
        text += reader.decompress(data, 1)
        data = reader.unconsumed_tail
    assert len(text) > 2 * len(noise)
    assert (noise * 3).encode().startswith(text)


def test_end_of_a_message_is_left_out() -> None:
    """What every message would end with is not sent, and it is no end of a stream of deflate."""
    data = DEFLATED.encode(message(LONG))[2:]
    reader = zlib.decompressobj(-zlib.MAX_WBITS)
    reader.decompress(data + DEFLATE_END)
    assert not reader.eof
    assert not data.endswith(DEFLATE_END)


def test_deflated_frames_do_not_refer_to_each_other() -> None:
    """The same message has the same bytes each time, and those can be read by themselves."""
    one, other = DEFLATED.encode(message(LONG)), DEFLATED.encode(message(LONG))
    assert one == other
    assert inflate(one + PLAIN.encode(message("hi")) + other) == [LONG.encode(), b"hi", LONG.encode()]


def test_long_frame_is_deflated() -> None:
    """A long text takes a fraction, and its frame says so."""
    data = DEFLATED.encode(message(LONG))
    assert len(data) < len(LONG) / 10
    assert data[0] == 0xC0 | TEXT


def test_shortest_frame_that_is_deflated() -> None:
    """A frame below the bound goes as it is, however well it would shrink; one at the bound does not."""
    short, long = (message("x" * (MIN_DEFLATE - 4 - less)) for less in (1, 0))
    assert DEFLATED.encode(short) == PLAIN.encode(short)
    assert len(DEFLATED.encode(long)) < 30


@pytest.mark.parametrize("size", [MIN_DEFLATE, 5000, 100_000])
def test_what_does_not_shrink_goes_as_it_is(size: int) -> None:
    """Bytes without any pattern are not compressed."""
    noise = message(os.urandom(size))
    assert DEFLATED.encode(noise) == PLAIN.encode(noise)


def test_deflated_hides_what_the_channel_hides() -> None:
    """What the channel does not show has no bytes at all."""
    assert DEFLATED.encode(message(LONG, "hidden")) == b""


def test_deflated_form_has_a_key_of_its_own() -> None:
    """One encoding serves all who read the form, and is no plain one."""
    assert DEFLATED.key is not PLAIN.key
    assert DEFLATED.key == DEFLATED.key


# Server-sent events


def test_event_stream_of_a_message() -> None:
    """A message is an id, its data, and nothing that goes without saying."""
    assert STREAM.encode(message("hi", id=HERE)) == b"id: 3f9a01c2-17\ndata: hi\n\n"


def test_event_stream_names_the_event() -> None:
    """An event that is not ``message`` is named."""
    assert STREAM.encode(message("hi", "greeting")) == b"event: greeting\ndata: hi\n\n"


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "  two", "\n", "\n\n", "a\nb", "a\n", "\na", "event: forged", "a\nevent: forged",
        "a\n\nevent: forged", "a\nid: 1-1", "a\nretry: 1", ": comment", "data: data", "a:b", "\0", "a\0b",
        "\u2028", "\u2029", "\x85", "\v\f", "\ufeff", "ü" * 1000,
    ],
)  # fmt: skip
def test_text_comes_through_unchanged(text: str) -> None:
    """No text can forge a field, an event or an end, and none is lost."""
    assert only_event(text) == {"event": "message", "data": text, "id": str(HERE)}


@pytest.mark.parametrize("end", ["\r", "\r\n"])
@pytest.mark.parametrize(
    "text", ["a{}b", "{}", "a{}", "{}b", "a{0}{0}b", "a{0}event: forged{0}{0}data: forged{0}{0}"]
)
def test_every_line_end_is_a_line_end(text: str, end: str) -> None:
    """A carriage return forges nothing either; a browser sees it as a line feed."""
    assert only_event(text.format(end))["data"] == text.format("\n")


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_is_one_event(text: str) -> None:
    """Any text whatever is one event with that text."""
    assert only_event(text)["data"] == re.sub(r"\r\n|\r", "\n", text)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=50))
def test_any_event_name_that_is_taken_comes_through(event: str) -> None:
    """An event name is refused, or read back as it was."""
    try:
        made = message("x", event, HERE)
    except ValueError:
        return
    assert [parsed["event"] for parsed in parse_events(STREAM.encode(made))] == [event]


def test_json_is_one_line() -> None:
    """Data that is no text is compact JSON, line ends escaped."""
    assert STREAM.encode(message({"a": "x\ny", "b": [1, None]})) == b'data: {"a":"x\\ny","b":[1,null]}\n\n'


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\0\xff\r\nevent: x"])
def test_bytes_are_base64(data: bytes) -> None:
    """Bytes are told apart from everything else and can be had back."""
    parsed = json.loads(only_event(data)["data"])
    assert parsed == {"data": base64.b64encode(data).decode(), "encoding": "base64"}


def test_events_can_be_joined() -> None:
    """Joined events are read back one by one."""
    stream = b"".join(STREAM.encode(message(text)) for text in ("a", "", "b\n"))
    assert [parsed["data"] for parsed in parse_events(stream)] == ["a", "", "b\n"]


@pytest.mark.parametrize("size", [1, 15, 16, 4096, 131_072])
def test_batch_is_one_chunk(size: int) -> None:
    """With chunks a batch is one chunk, its length in hexadecimal (RFC 9112, section 7.1)."""
    length, rest = CHUNKED.wrap(b"x" * size).split(b"\r\n", 1)
    assert (int(length, 16), rest) == (size, b"x" * size + b"\r\n")


def test_batch_without_chunks_is_bare() -> None:
    """Without chunks nothing is put round a batch."""
    assert STREAM.wrap(b"abc") == b"abc"


def test_end_of_a_chunked_body() -> None:
    """The last chunk is empty; without chunks there is nothing to say."""
    assert (CHUNKED.end, STREAM.end) == (b"0\r\n\r\n", b"")


def test_chunks_share_the_encoding() -> None:
    """With and without chunks a message is encoded once."""
    assert CHUNKED.key is STREAM.key


@pytest.mark.parametrize(
    "text", ["keep-alive", "", "a\nb", "a\r\nevent: forged\r\n\r\n", "data: x\n\ndata: y"]
)
def test_comment_is_no_event(text: str) -> None:
    """Whatever a comment says, a browser hears nothing and the event after it is whole."""
    stream = STREAM.comment(text) + STREAM.encode(message("x"))
    assert [parsed["data"] for parsed in parse_events(stream)] == ["x"]


def test_comment_is_a_chunk() -> None:
    """A comment is ready to be written on a chunked stream."""
    assert CHUNKED.comment("hi") == b"6\r\n: hi\n\n\r\n"


@pytest.mark.parametrize(
    ("form", "marks"),
    [
        (PLAIN, False),
        (DEFLATED, False),
        (STREAM, True),
        (CHUNKED, True),
        (JSON, True),
        (DeflatedFrames(JSON), True),
    ],
)
def test_who_can_mark_a_gap(form: Form, marks: bool) -> None:
    """Event streams and frames of JSON can say what was missed, compressed or not; plain frames cannot."""
    assert form.marks is marks


@pytest.mark.parametrize("data", ["hi", {"a": 1}, b"\x00\xff", None])
def test_json_frames_are_text(data: Any) -> None:
    """With the subprotocol every message, bytes too, is one frame of text with its object."""
    (read,) = parse_frames(JSON.encode(message(data, id=HERE)))
    assert read.opcode == TEXT
    assert read.data == write(message(data, id=HERE))
