"""Framing: where a client stands in its frames, however they are cut on the way."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from wire import BINARY, CLOSE, PING, TEXT, frame

from realtime.close_codes import CloseCode
from realtime.transports.framing import FRAGMENT, FRAGMENTS, TOO_LARGE, Framing

LIMIT = 70_000


def framing(limit: int = LIMIT) -> Framing:
    """What follows a client that may send as much compressed as not."""
    return Framing(limit, limit)


def rests(one: Framing) -> bool:
    """Whether nothing is unfinished."""
    return (one.begun, one.held, one.wrong) == (0.0, 0, None)


#: Messages, whole and in fragments, with control frames among them.
FRAMES = st.lists(
    st.one_of(
        st.builds(lambda size: [frame(TEXT, bytes(size))], st.sampled_from([0, 1, 125, 126, 200])),
        st.builds(lambda size: [frame(PING, bytes(size))], st.integers(0, 125)),
        st.builds(
            lambda sizes: [
                frame(BINARY, bytes(sizes[0]), fin=False),
                *(frame(0, bytes(size), fin=False) for size in sizes),
                frame(PING),
                frame(0),
            ],
            st.lists(st.integers(0, 300), min_size=1, max_size=4),
        ),
    ),
    max_size=5,
).map(lambda messages: b"".join(part for message in messages for part in message))


@given(FRAMES, st.lists(st.integers(1, 500), min_size=1, max_size=30))
def test_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    """Whatever is allowed may be read, in whatever pieces it comes, and nothing is left over."""
    one, at = framing(), 0
    for index in range(len(data) + 1):
        piece = data[at : at + cuts[index % len(cuts)]]
        assert one.walk(piece, 1.0) == len(piece)
        at += len(piece)
        if at == len(data):
            break
    assert rests(one)


@given(FRAMES, st.binary(max_size=40), st.integers(1, 20))
def test_where_it_goes_wrong(data: bytes, more: bytes, size: int) -> None:
    """What is before a frame that is not masked may be read, and the same however it is cut."""
    whole = data + b"\x81\x05hello" + more
    assert framing().walk(whole, 1.0) == len(data)
    one, read = framing(), 0
    for at in range(0, len(whole), size):
        read += one.walk(whole[at : at + size], 1.0)
        if one.wrong is not None:
            break
    # A header that has begun is no harm: its first byte may have been read.
    assert len(data) <= read <= len(data) + 1
    assert one.wrong == (CloseCode.PROTOCOL_ERROR, "a client masks its frames")


def test_what_is_held() -> None:
    """What has come of a message is counted, without its headers, until it is whole."""
    one = framing()
    one.walk(frame(BINARY, bytes(100), fin=False), 1.0)
    assert one.held == 100
    one.walk(frame(0, bytes(200))[:58], 2.0)
    assert one.held == 150
    one.walk(frame(0, bytes(200))[58:], 3.0)
    assert rests(one)


def test_when_it_began() -> None:
    """A message has begun with its first byte, whatever comes between its fragments."""
    one, message = framing(), frame(BINARY, bytes(10), fin=False)
    for now, byte in enumerate(message + frame(PING), 5):
        one.walk(bytes((byte,)), float(now))
        assert one.begun == 5.0
    one.walk(frame(0), 99.0)
    assert one.begun == 0.0
    one.walk(frame(TEXT, b"whole") + message[:1], 100.0)
    assert one.begun == 100.0
    one.walk(message[1:] + frame(0) + message[:1], 200.0)
    assert one.begun == 200.0


def test_time_is_for_what_has_come() -> None:
    """Who sends fast enough has time for all of it, and who does not has not."""
    slow, fast = framing(2**30), framing(2**30)
    header = frame(BINARY, bytes(2**20))
    slow.walk(header[:20], 1.0)
    fast.walk(header[: 2**19], 1.0)
    assert slow.due() == pytest.approx(31, abs=0.01)
    assert fast.due() == pytest.approx(31 + 32, abs=0.01)


@pytest.mark.parametrize("limit", [1, 1024, LIMIT])
def test_number_of_fragments(limit: int) -> None:
    """A message has so many fragments as its largest size may need, and no more; each message anew."""
    most = FRAGMENTS + limit // FRAGMENT
    one = framing(limit)
    for _ in range(2):
        data = frame(BINARY, fin=False) + frame(0, fin=False) * (most - 2) + frame(PING) * 9 + frame(0)
        assert one.walk(data, 1.0) == len(data)
        assert rests(one)
    data = frame(BINARY, fin=False) + frame(0, fin=False) * (most - 1)
    assert one.walk(data + frame(0), 1.0) == len(data)
    assert one.wrong is not None
    assert one.wrong[0] is CloseCode.POLICY


@pytest.mark.parametrize("reserved", [0, 0x40], ids=["as it is", "compressed"])
def test_size_of_a_message(reserved: int) -> None:
    """What is compressed may be a little larger than what is not."""
    limit = 120 if reserved else 100
    for length, code in ((limit, None), (limit + 1, CloseCode.TOO_BIG)):
        one = Framing(100, 120)
        one.walk(frame(BINARY, bytes(60), fin=False, reserved=reserved), 1.0)
        one.walk(frame(0, bytes(length - 60))[:6], 1.0)
        assert one.wrong == (None if code is None else (code, TOO_LARGE))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(0, b"x"), "there is nothing to continue"),
        (frame(TEXT, fin=False) + frame(TEXT), "a message began inside another"),
        (frame(PING, reserved=0x40), "a control frame is not compressed"),
        (frame(CLOSE, reserved=0x40), "a control frame is not compressed"),
    ],
)
def test_what_is_wrong(data: bytes, reason: str) -> None:
    """What is wrong is said in a sentence."""
    one = framing()
    one.walk(data, 1.0)
    assert one.wrong == (CloseCode.PROTOCOL_ERROR, reason)
