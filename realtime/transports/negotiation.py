"""Content negotiation: which form a request to a channel's URL asks for (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Literal, NamedTuple

from aiohttp import hdrs, web

from realtime.channel import Channel
from realtime.envelope import V1_JSON
from realtime.transports.handshake import wants_websocket

Form = Literal["sse", "ndjson", "json", "html"]
Asked = Form | Literal["websocket", "post", "kick", "options"]

#: What ``GET`` can be answered with; of two that are asked for alike the first is taken.
MEDIA_TYPES: dict[Form, str] = {
    "sse": "text/event-stream",
    "ndjson": "application/x-ndjson",
    "json": "application/json",
    "html": "text/html",
}
#: What would keep a script waiting that wants the whole answer.
STREAMS = ("sse", "ndjson")
#: How much of ``Accept`` is read, in characters: browsers send some hundred.
MAX_ACCEPT = 4096
#: What has a beginning, for which a client can ask.
READING = (*STREAMS, "websocket", "json")

_BY_METHOD: dict[str, Asked] = {
    hdrs.METH_POST: "post",
    hdrs.METH_DELETE: "kick",
    hdrs.METH_OPTIONS: "options",
}

# A quote that is not closed matches, too: else the end of each of thousands would be looked for.
_ITEM = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*"?)+')
_PARAMETER = re.compile(r';\s*([^\s;="]+)\s*=\s*(?:"((?:\\.|[^"\\])*)"|([^\s;"]*))')
_QUALITY = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


class Accepted(NamedTuple):
    """A media type, or a range of them, that a client takes."""

    type: str
    quality: float
    parameters: Mapping[str, str]


def accepted(header: str) -> Iterator[Accepted]:
    """The items of an ``Accept`` header; what is none is left out."""
    for item in _ITEM.findall(header):
        kind, _, rest = item.partition(";")
        found = {name.lower(): quoted or bare for name, quoted, bare in _PARAMETER.findall(f";{rest}")}
        quality = found.pop("q", "1")
        if kind.strip():
            yield Accepted(
                kind.strip().lower(), float(quality) if _QUALITY.fullmatch(quality) else 1.0, found
            )


def choose(header: str, serves: Collection[str], *, scripted: bool) -> Form | None:
    """Which of what a channel serves is asked for by an ``Accept`` header, or None.

    A type that is written out beats a range, then the quality decides, then the order of
    :data:`MEDIA_TYPES`. ``*/*`` never means the page; and from a script of a web page (``scripted``) no
    range means a stream, for whose end it would wait.
    """
    items = list(accepted(header)) or [Accepted("*/*", 1.0, {})]
    best: tuple[bool, float] = (False, 0.0)
    chosen: Form | None = None
    for name, kind in MEDIA_TYPES.items():
        written = [item.quality for item in items if item.type == kind]
        ranges = [f"{kind.partition('/')[0]}/*", *(["*/*"] * (name != "html"))]
        if scripted and name in STREAMS:
            ranges = []
        by_range = [item.quality for wide in ranges for item in items if item.type == wide]
        rank = (True, max(written)) if written else (False, (by_range or [0.0])[0])
        if name in serves and rank[1] > 0 and rank > best:
            best, chosen = rank, name
    return chosen


def asked(request: web.Request, channel: Channel, link: str) -> Asked:
    """What a request to a channel's URL, the ``link``, asks for.

    Raises the HTTP error (400, 405, 406, 426) whose sentence says what to ask for instead.
    """
    serves, path, method, methods = channel.transports, request.path, request.method, channel.methods
    posts = ", or send one message by POST" * ("post" in serves)
    if method not in methods:
        how = ["is opened with GET"] * ("GET" in methods) + ["takes messages by POST"] * bool(posts)
        raise web.HTTPMethodNotAllowed(method, methods, text=f"{path} {' and '.join(how)}\n")
    if wants_websocket(request):
        if method != hdrs.METH_GET:
            raise web.HTTPMethodNotAllowed(method, methods, text="a WebSocket begins with GET\n")
        if "websocket" in serves:
            return "websocket"
        raise web.HTTPBadRequest(
            text=f"{path} is no WebSocket but serves {forms(channel)}: curl -N {link}\n"
        )
    if method in _BY_METHOD:
        return _BY_METHOD[method]
    chosen = choose(_accept(request), [*serves, "html"], scripted="Sec-Fetch-Mode" in request.headers)
    if chosen is not None:
        return chosen
    if "websocket" in serves and not {"sse", "ndjson"} & set(serves):
        raise web.HTTPUpgradeRequired(
            text=f"{path} is a WebSocket; open it with ws://{posts}\n",
            headers={hdrs.UPGRADE: "websocket", hdrs.CONNECTION: "Upgrade"},
        )
    raise web.HTTPNotAcceptable(text=f"{path} serves {forms(channel)}\n")


def forms(channel: Channel) -> str:
    """All that a channel's URL answers with, for people."""
    others = ("websocket", "WebSocket (Upgrade: websocket)"), ("post", "POST (one message)")
    there = *channel.transports, "html"
    return ", ".join(text for name, text in (*MEDIA_TYPES.items(), *others) if name in there)


def wants_profile(request: web.Request) -> bool:
    """Whether a client wants events whose data are the objects of ``realtime.v1.json``."""
    return any(
        item.type == MEDIA_TYPES["sse"] and item.quality > 0 and item.parameters.get("profile") == V1_JSON
        for item in accepted(_accept(request))
    )


def is_written_out(request: web.Request, form: Form) -> bool:
    """Whether a client names the type itself, and not a range that it is in."""
    return any(item.type == MEDIA_TYPES[form] for item in accepted(_accept(request)))


def _accept(request: web.Request) -> str:
    # aiohttp lets a megabyte of it through, which would take seconds to take apart.
    return ",".join(request.headers.getall(hdrs.ACCEPT, []))[:MAX_ACCEPT]
