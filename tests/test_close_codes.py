"""Close codes: which may be sent, which ask a client to come back, and how a reason is cut."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from realtime.close_codes import (
    BACK_OFF,
    MAX_REASON,
    RELOAD,
    RESTART,
    CloseCode,
    comes_back,
    cut_reason,
    may_be_sent,
    retry,
    retry_after,
)

#: RFC 6455, sections 7.4.1 and 7.4.2, and the codes that IANA has registered since.
TABLE = {
    range(0, 1000): False,  # not used
    range(1000, 1004): True,  # normal, going away, protocol error, unsupported data
    range(1004, 1005): False,  # reserved
    range(1005, 1007): False,  # no status, abnormal: never in a frame
    range(1007, 1012): True,  # bad data, policy, too big, extension, internal error
    range(1012, 1015): True,  # service restart, try again later, bad gateway (IANA)
    range(1015, 1016): False,  # TLS handshake: never in a frame
    range(1016, 3000): False,  # for later versions of the protocol
    range(3000, 4000): True,  # libraries and applications, registered
    range(4000, 5000): True,  # private use
    range(5000, 65_536): False,  # no close codes
}


def test_may_be_sent_is_the_table_of_the_rfc() -> None:
    """Of all 65,536 numbers exactly those of RFC 6455 and IANA may be sent."""
    wrong = [code for codes, allowed in TABLE.items() for code in codes if may_be_sent(code) is not allowed]
    assert (sum(map(len, TABLE)), wrong) == (65_536, [])


@pytest.mark.parametrize("code", CloseCode)
def test_own_codes_may_be_sent(code: CloseCode) -> None:
    """Every code of ours may be put into a close frame."""
    assert may_be_sent(code)


@pytest.mark.parametrize("code", [code for code in CloseCode if code >= 4000])
def test_own_range_says_whether_to_come_back(code: CloseCode) -> None:
    """Of our own codes those from 4500 say come back, and the others do not."""
    assert code.comes_back is (code >= 4500)


def test_who_comes_back() -> None:
    """Of the standard codes a client comes back after these, and stops after the others."""
    assert {code.value for code in CloseCode if code < 4000 and code.comes_back} == {1001, 1011, 1012, 1013}


@pytest.mark.parametrize("code", range(4000, 5000, 99))
def test_codes_of_a_channel_follow_our_range(code: int) -> None:
    """A code that a channel made up says by its number whether to come back."""
    assert comes_back(code) is (code >= 4500)


@pytest.mark.parametrize("code", [*CloseCode, 4000, 4499, 4500, 4999])
def test_who_comes_back_is_told_when(code: int) -> None:
    """There is a time to come back exactly after a code that says to."""
    assert (retry(code) is not None) is comes_back(code)


@pytest.mark.parametrize(
    ("code", "between"),
    [(1001, RESTART), (1012, RELOAD), (1011, BACK_OFF), (4509, BACK_OFF)],
)
def test_time_to_come_back_is_spread(code: int, between: tuple[int, int]) -> None:
    """Of many clients each is given another time, from all of the span."""
    low, high = between
    times = [retry(code) or 0 for _ in range(1000)]
    assert low <= min(times) < low + (high - low) // 10
    assert high - (high - low) // 10 < max(times) <= high


def test_codes_are_numbers() -> None:
    """A code can be used wherever its number can."""
    assert CloseCode.TRY_AGAIN.to_bytes(2, "big") == b"\x03\xf5"


@given(st.text())
def test_reason_fits(reason: str) -> None:
    """A reason of any text fits into a close frame and is UTF-8."""
    cut = cut_reason(reason)
    cut.decode()
    assert len(cut) <= MAX_REASON


@given(st.text(st.characters(codec="utf-8"), max_size=300))
def test_reason_is_cut_between_characters(reason: str) -> None:
    """What is left of a reason is its beginning, and no character more would have fitted."""
    kept = cut_reason(reason).decode()
    assert reason.startswith(kept)
    assert kept == reason or len(reason[: len(kept) + 1].encode()) > MAX_REASON


@pytest.mark.parametrize(
    ("character", "count", "size"),
    [("x", 0, 0), ("x", 123, 123), ("x", 124, 123), ("ä", 62, 122), ("€", 42, 123), ("😀", 31, 120)],
)
def test_reason_at_the_edge(character: str, count: int, size: int) -> None:
    """Characters of two, three and four bytes are kept whole or left out."""
    assert len(cut_reason(character * count)) == size


def test_reason_that_is_no_unicode() -> None:
    """A lone surrogate in a reason does not stop the closing."""
    assert cut_reason("a\ud800b") == b"a?b"


def test_refused_come_back_at_different_times() -> None:
    """What HTTP tells who was refused are whole seconds, and not the same for all."""
    times = {retry_after() for _ in range(100)}
    assert {*map(str, range(2, 9))} >= times
    assert len(times) > 1
