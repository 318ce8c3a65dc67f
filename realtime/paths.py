"""The path of a channel, its variables, and the topic that a request to it names.

``/rooms/{room}`` has one variable, a segment of the path; ``/topics/{topic...}`` takes the rest
of it, and stands last. A topic's name is the channel's name and the values, joined by ``/``. Two
requests share a topic exactly when all their values are equal: a value is decoded once and
normalised, and what could make two values look alike is refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote_to_bytes

#: The longest value of a variable, in bytes of UTF-8.
MAX_VALUE = 255
#: What the host keeps for its own URLs.
RESERVED = "/-/"

_VARIABLE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(\.\.\.)?\}")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ENCODED_SLASH = re.compile(r"%2[Ff]")


def check_path(path: str) -> str:
    """A path as the config may give it. Raises :exc:`ValueError` with what is wrong."""
    if not path.startswith("/"):
        raise ValueError("expected a path that begins with a slash, such as /chat")
    if is_reserved(path):
        raise ValueError(f"paths under {RESERVED} are the server's own")
    names = variables(path)
    if len(set(names)) < len(names):
        raise ValueError("a variable stands in it twice")
    *before, last = path.split("/")
    for segment in (*before, last):
        variable = _VARIABLE.fullmatch(segment)
        if variable is None:
            if "{" in segment or "}" in segment:
                raise ValueError(
                    f"a variable is a whole segment, {{name}} or, as the last one, {{name...}}: {segment}"
                )
            if not segment.isprintable() or set(segment) & set(" ?#%\\*"):
                raise ValueError("a character in it cannot stand in a path")
        elif variable[2] and segment is not last:
            raise ValueError("a variable that takes the rest of the path stands last")
    if path != "/" and "" in (*before[1:], last):
        raise ValueError("it has an empty segment")
    if {".", ".."} & {*before, last}:
        raise ValueError("it has a segment . or .., which clients resolve before they ask")
    return path


def variables(path: str) -> list[str]:
    """The names of its variables, in their order."""
    return [match[1] for match in _VARIABLE.finditer(path)]


def is_reserved(path: str) -> bool:
    """Whether a path belongs to the host."""
    return f"{path}/".startswith(RESERVED)


def route_pattern(path: str) -> str:
    """The same path as aiohttp's router spells it. Values are checked later, by :func:`topic_name`."""
    return _VARIABLE.sub(lambda match: f"{{{match[1]}:{'[^/]*' if not match[2] else '(?s:.*)'}}}", path)


def filled(path: str, values: Mapping[str, str]) -> str:
    """The path with the values of its variables, as it stands in a URL."""
    return _VARIABLE.sub(lambda match: quote(values[match[1]], safe="/"), path)


def shape(path: str) -> str:
    """The path without its variables: two routes of one shape could serve the same request."""
    return re.sub(r"\{[^{}]*\}", "{}", path)


def topic_name(channel: str, values: Iterable[str], raw_path: str) -> str:
    """The topic of a request: ``values`` are those of the variables, percent-decoded.

    ``raw_path`` is the path as it came. Raises :exc:`ValueError` with a sentence for the client.
    """
    values = list(values)
    if not values:
        return channel
    if _BAD_ESCAPE.search(raw_path):
        raise ValueError("the path has a % that begins no escape")
    if _ENCODED_SLASH.search(raw_path):
        raise ValueError("the path has an encoded slash (%2F): it could pass for another path")
    try:
        unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        raise ValueError("the path is not UTF-8") from None
    return "/".join([channel, *map(_check_value, values)])


def _check_value(value: str) -> str:
    value = unicodedata.normalize("NFC", value)
    if not 1 <= len(value.encode(errors="replace")) <= MAX_VALUE:
        raise ValueError(f"each variable part of the path takes 1 to {MAX_VALUE} bytes")
    if not value.isprintable() or "\\" in value or "*" in value:
        raise ValueError("the path has a character that no topic may have (control, \\ or *)")
    if any(segment in ("", ".", "..") for segment in value.split("/")):
        raise ValueError("the path has an empty segment, or one that is . or ..")
    return value
