"""Which web pages may connect, as far as it can be said without a server; see ``test_endpoint``."""

from __future__ import annotations

import pytest

from realtime.origins import origin_allowed, parse_origin


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("https://a.example", ("https", "a.example", "443")),
        ("http://a.example", ("http", "a.example", "80")),
        ("HTTPS://A.Example:8443", ("https", "a.example", "8443")),
        ("http://[::1]:80", ("http", "[::1]", "80")),
    ],
)
def test_origin(text: str, parsed: tuple[str, str, str]) -> None:
    """An origin is a scheme, a host and a port, in lower case, with the port that is not written."""
    assert parse_origin(text) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "a.example",
        "ftp://a.example",
        "https://",
        "https://a.example/",
        "https://*.example",
        "https://a.example:",
        "https://a.example:x",
        "https://[::1",
        "https://u@a.example",
        "https://a.example\\b",
    ],
)
def test_what_is_no_origin(text: str) -> None:
    """Anything else is none, and may not connect unless any may."""
    assert parse_origin(text) is None
    assert not origin_allowed(text, "same", f"https://{text}")
    assert not origin_allowed(text, [text], "https://a.example")
    assert origin_allowed(text, "any", "https://a.example")


def test_scheme_that_is_not_known() -> None:
    """Behind a proxy that does not tell the scheme the host and the port decide."""
    assert origin_allowed("https://a.example", "same", "://a.example")
    assert origin_allowed("http://a.example", "same", "://a.example")
    assert not origin_allowed("https://a.example:8443", "same", "://a.example")
    assert not origin_allowed("http://a.example", "same", "https://a.example")
