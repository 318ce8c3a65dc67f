"""Origins: which web pages may connect (RFC 6454; RFC 6455, section 10.2)."""

from __future__ import annotations

import re

#: What a page of another origin may send, and see of an answer, beside what every page may; and how long
#: its browser may remember that, in seconds.
REQUEST_HEADERS = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID"
RESPONSE_HEADERS = "Idempotency-Replayed, Retry-After"
MAX_AGE = "600"
#: How an origin of a list begins that stands for all names of one more label.
WILDCARD = "://*."
#: What a ``Host`` looks like: a name or an address, and perhaps a port.
HOST = re.compile(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")

_ORIGIN = re.compile(r"(https?)://([^/\s?#@*\\:\[\]]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def parse_origin(text: str) -> tuple[str, str, str] | None:
    """Scheme, host and port of an origin, in lower case; None if it is none."""
    match = _ORIGIN.fullmatch(text.lower())
    return match and (match[1], match[2], match[3] or _DEFAULT_PORTS[match[1]])


def origin_allowed(origin: str, allowed: str | list[str], site: str, url: str | None = None) -> bool:
    """Whether a page of this origin may connect: ``any`` may, or ``same``, or those of a list.

    In a list ``same`` may stand as well, and ``https://*.good.example`` for all names of one more label.
    ``same`` compares scheme, host and port with those of the request (``site``) or with the server's
    own (``url``). A request's scheme is not known behind a proxy (``://host``); then the origin's
    only fills in the port that is not written.
    """
    if allowed == "any":
        return True
    parsed = parse_origin(origin)
    if parsed is None:
        return False
    if allowed == "same":
        scheme, _, host = site.partition("://")
        return parsed in (parse_origin(f"{scheme or parsed[0]}://{host}"), parse_origin(url or ""))
    return any(
        origin_allowed(origin, "same", site, url) if item == "same" else _matches(parsed, item)
        for item in allowed
    )


def _matches(parsed: tuple[str, str, str], item: str) -> bool:
    scheme, host, port = parsed
    above = item.replace(WILDCARD, "://", 1)
    if above != item:
        label, _, host = host.partition(".")
        if not label:
            return False
    return (scheme, host, port) == parse_origin(above)


def sharing(origin: str, allowed: str | list[str], methods: list[str]) -> dict[str, str]:
    """The headers that let a page of another origin see an answer (CORS, in the Fetch standard).

    Where any page may, none may with cookies: they are not its own.
    """
    if allowed == "same" or not origin_allowed(origin, allowed, ""):
        return {}
    headers = {
        "Access-Control-Allow-Origin": "*" if allowed == "any" else origin,
        "Access-Control-Allow-Methods": ", ".join(methods),
        "Access-Control-Allow-Headers": REQUEST_HEADERS,
        "Access-Control-Expose-Headers": RESPONSE_HEADERS,
        "Access-Control-Max-Age": MAX_AGE,
    }
    return headers if allowed == "any" else {**headers, "Access-Control-Allow-Credentials": "true"}
