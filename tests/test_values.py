"""The values of a config: read as they are written, and written as they are read."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest
from hypothesis import given, strategies as st
from pydantic import TypeAdapter, ValidationError

from realtime.values import Address, Duration, Size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("10s", 10),
        ("1.5s", 1.5),
        ("5m", 300),
        ("1h", 3600),
        ("2d", 172800),
        ("366d", 366 * 86400),
    ],
)
def test_duration(text: str, seconds: float) -> None:
    """A duration is seconds."""
    assert TypeAdapter(Duration).validate_python(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("1B", 1), ("64KiB", 65536), ("1MiB", 1 << 20), ("1GiB", 1 << 30), ("1024GiB", 1 << 40)],
)
def test_size(text: str, size: int) -> None:
    """A size is bytes."""
    assert TypeAdapter(Size).validate_python(text) == size


@pytest.mark.parametrize("value", [1, 1.0, True, None, timedelta(1), "", "s", "1", "٣s", "1e3s", "1s\n"])
def test_no_duration(value: object) -> None:
    """What is written differently is no duration."""
    with pytest.raises(ValidationError, match="expected a duration"):
        TypeAdapter(Duration).validate_python(value)


@pytest.mark.parametrize(
    ("text", "address", "local"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080), True),
        ("127.8.8.8:0", Address("127.8.8.8", 0), True),
        ("localhost:80", Address("localhost", 80), True),
        ("[::1]:8080", Address("::1", 8080), True),
        ("unix:/run/r.sock", Address(path="/run/r.sock"), True),
        ("0.0.0.0:8080", Address("0.0.0.0", 8080), False),
        ("[::]:8080", Address("::", 8080), False),
        ("rt.example:65535", Address("rt.example", 65535), False),
    ],
)
def test_address(text: str, address: Address, local: bool) -> None:
    """An address is read, written as it was, and knows whether only this machine reaches it."""
    assert Address.parse(text) == address
    assert (str(address), address.is_local) == (text, local)


@given(st.text(st.sampled_from("0123456789.mshdKiMGB e-+\u0660\u00b2"), max_size=12) | st.text(max_size=12))
def test_any_text_is_a_duration_a_size_or_neither(text: str) -> None:
    """Whatever is written, it is within the bounds, and reads the same when it is written again."""
    for kind, least, most in ((Duration, 0.001, 366 * 86400.0), (Size, 1, 1024**4)):
        adapter: TypeAdapter[float] = TypeAdapter(kind)
        with contextlib.suppress(ValidationError):
            value = adapter.validate_python(text)
            assert least <= value <= most
            again = adapter.validate_python(adapter.dump_python(value, mode="json"))
            assert again == pytest.approx(value, abs=1e-6)
