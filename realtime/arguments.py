"""What may be typed for an option: each function takes the text, and says what is wrong with it.

What one needs is imported when it runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import re


def count(text: str) -> int:
    """A number from 1."""
    if not re.fullmatch("[0-9]{1,18}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, not {text!r}")
    return int(text)


def pair(text: str) -> tuple[str, str]:
    """``NAME=VALUE``, as the two."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, not {text!r}")
    return name, value


def ttl(text: str) -> float:
    """A duration, in seconds."""
    from realtime.values import read_duration

    try:
        return read_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, not {text!r}") from None


def plugin(text: str) -> str:
    """The name of a plugin that is to be written."""
    from realtime.scaffold import checked_name

    try:
        return checked_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def since(text: str) -> str:
    """Where to begin, as it was typed."""
    from realtime.message import parse_since

    try:
        parse_since(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; or -20, or earliest") from None
    return text


def header(text: str) -> tuple[str, str]:
    """``NAME: VALUE``, as the two."""
    name, colon, value = text.partition(":")
    # Anything else could forge another header (RFC 9110, section 5).
    if not (colon and re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) and value.isprintable()):
        raise argparse.ArgumentTypeError(f"expected 'Name: value', not {text!r}")
    return name, value.strip()
