"""Which form a request asks for: tables of headers, and every form over the wire."""

from __future__ import annotations

import time
from itertools import chain, combinations

import pytest
from conftest import Serve
from hypothesis import given, strategies as st
from wire import EVENTS, UPGRADE, Headers, ask, dial, post, request, websocket, without

from realtime.channel import TRANSPORTS
from realtime.transports.negotiation import MAX_ACCEPT, MEDIA_TYPES, STREAMS, accepted, choose

CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
SAFARI = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
AXIOS = "application/json, text/plain, */*"

#: A header; what is answered, the first of these that is served; and what to a script of a page.
TABLE = [
    ("", "sse ndjson json", "json"),
    ("*/*", "sse ndjson json", "json"),
    ("text/event-stream", "sse", "sse"),
    ("application/x-ndjson", "ndjson", "ndjson"),
    ("application/json", "json", "json"),
    ("text/html", "html", "html"),
    (CHROME, "html", "html"),
    (FIREFOX, "html", "html"),
    (SAFARI, "html", "html"),
    (AXIOS, "json sse ndjson", "json"),
    # written out beats a range, whatever their qualities
    ("*/*, application/json;q=0.1", "json sse ndjson", "json"),
    ("application/*, text/event-stream;q=0.001", "sse ndjson json", "sse json"),
    # then the quality
    ("text/event-stream;q=0.8, application/x-ndjson;q=0.9, application/json", "json ndjson sse", None),
    ("application/json;q=0.5, application/x-ndjson;q=0.7, application/json;q=0.9", "json ndjson", None),
    ("application/json;Q=0.1, text/event-stream ; q=0.2", "sse json", None),
    ("text/*;q=0.1, */*;q=0.9", "ndjson json sse html", "json html"),
    ("text/html;q=0.1, */*", "html", "html"),
    # then the order of the table
    ("text/html, application/json, application/x-ndjson, text/event-stream", "sse ndjson json html", None),
    # ranges
    ("text/*", "sse html", "html"),
    ("application/*", "ndjson json", "json"),
    ("image/*, audio/*;q=0.5", "", ""),
    ("a/b, */*", "sse ndjson json", "json"),
    ("*/*;q=0.5, text/*;q=0", "ndjson json", "json"),
    ("*", "", ""),
    # a quality of 0 takes back
    ("text/event-stream;q=0, */*", "ndjson json", "json"),
    ("application/json;q=0, */*", "sse ndjson", ""),
    ("text/event-stream;q=0.000, text/*", "html", "html"),
    ("text/html;q=0, */*;q=0.1", "sse ndjson json", "json"),
    ("*/*;q=0", "", ""),
    ("application/json;q=0", "", ""),
    # however it is written
    ("TEXT/Event-Stream;q=0.9", "sse", "sse"),
    ("\ttext/event-stream  ;  charset=utf-8 ", "sse", "sse"),
    ('text/event-stream;x="a,application/json;q=0";q=0.5, text/html;q=0.4', "sse html", None),
    ('text/event-stream;x="\\",";q=0', "", ""),
    (", ,", "sse ndjson json", "json"),
    # what is wrong counts as little as it can
    ("image/png, text/plain", "", ""),
    ("text / event-stream", "", ""),
    ("text/event-stream/x", "", ""),
    ("application/json;q=2", "json", "json"),
    ("application/json;q=-1, text/html;q=0.9", "json html", None),
    ("application/json;q=nan, text/html;q=0.9", "json html", None),
    ("application/json;q=0.5;;;=, text/html;q=0.6", "html json", None),
    ('text/html;x="open, application/json', "html", "html"),
]
ROWS = [
    (header, order, scripted)
    for header, plain, script in TABLE
    for order, scripted in ((plain, False), (plain if script is None else script, True))
]
#: Every combination of what a type can serve.
SERVED = [*chain.from_iterable(combinations(TRANSPORTS, size) for size in range(1, len(TRANSPORTS) + 1))]
FILES = {
    "kinds.py": '''
        from itertools import chain, combinations
        from realtime import Channel, hookimpl
        from realtime.channel import TRANSPORTS

        class Kind(Channel):
            """Serves some of what can be served."""

            async def on_message(self, client, message):
                return await self.publish(client.topic, message.data)

        @hookimpl
        def register_channels():
            sets = chain.from_iterable(combinations(TRANSPORTS, n) for n in range(1, len(TRANSPORTS) + 1))
            return {"-".join(some): type("Some", (Kind,), {"transports": some}) for some in sets}
    ''',
    "keys.py": """
        from realtime import Identity, hookimpl

        @hookimpl
        def authenticate(request):
            if request.query.get("token") == "bug":
                raise RuntimeError("a bug")
    """,
}
CONFIG = "\n".join(
    [
        "plugins: [kinds, keys]",
        "channels:",
        *(f"  {'-'.join(some)}: {{plugin: {'-'.join(some)}, path: /{'-'.join(some)}}}" for some in SERVED),
        "  rooms: {plugin: sse-post, path: '/rooms/{room}'}",
        "  closed: {plugin: sse-post, path: /closed, allow: {subscribe: authenticated, publish: nobody}}",
        "  full: {plugin: sse-post, path: /full, limits: {max_clients: 0}}",
    ]
)
SCRIPT: Headers = [("Sec-Fetch-Mode", "cors")]


def saying(accept: str, *, scripted: bool) -> Headers:
    """The headers of such a request."""
    return [*([("Accept", accept)] if accept else []), *(SCRIPT if scripted else [])]


def expected(serves: tuple[str, ...], order: str) -> tuple[int, str]:
    """The status and the media type of the answer, of a refusal the media type of its sentence."""
    if serves == ("post",):
        return 405, "text/plain; charset=utf-8"
    for form in order.split():
        if form in serves:
            return 200, next(kind for name, kind in MEDIA_TYPES.items() if name == form)
        if form == "html":
            return 200, "text/html; charset=utf-8"
    only_websocket = "websocket" in serves and not {"sse", "ndjson"} & {*serves}
    return 426 if only_websocket else 406, "text/plain; charset=utf-8"


# The header


@pytest.mark.parametrize(("header", "order", "scripted"), ROWS)
def test_choice(header: str, order: str, scripted: bool) -> None:
    """Of what is served the first in the header's order is chosen; a page is always served."""
    for some in SERVED:
        there = [form for form in order.split() if form in (*some, "html")]
        assert choose(header, (*some, "html"), scripted=scripted) == next(iter(there), None), some


@pytest.mark.parametrize(
    ("header", "items"),
    [
        ("", []),
        ("a/b", [("a/b", 1.0, {})]),
        ("A/B;Q=0.25;X=Y", [("a/b", 0.25, {"x": "Y"})]),
        ('a/b;x="1, 2;q=0", c/d;q=1.000', [("a/b", 1.0, {"x": "1, 2;q=0"}), ("c/d", 1.0, {})]),
        ("a/b;q=0.1234, c/d;q=.5, e/f;q=1.1", [("a/b", 1.0, {}), ("c/d", 1.0, {}), ("e/f", 1.0, {})]),
        (" , a/b , ,", [("a/b", 1.0, {})]),
        (";q=0.5", []),
        ('a/b;x="c, d/e', [("a/b", 1.0, {"x": ""})]),
    ],
)
def test_items(header: str, items: list[tuple[str, float, dict[str, str]]]) -> None:
    """An item is a type in lower case, a quality and its parameters; commas in quotes part nothing."""
    assert [tuple(item) for item in accepted(header)] == items


HOSTILE = ['"', '\\"', '",', ",", '";a="', ';a="\\"', "; ", ";a=", ";q=0", " ", "a", "\\", '"\\', "*/*,"]


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("start", ["", '"', "a/b;", 'a/b;x="', 'a/b;x="\\'])
def test_hostile_header_takes_no_quadratic_time(start: str, piece: str) -> None:
    """64 KiB of anything, as several lines of a header can be, are read in a moment.

    Looking for the end of each quote would take some forty seconds.
    """
    header = start + piece * (65_536 // len(piece))
    begun = time.process_time()
    choose(header, MEDIA_TYPES, scripted=False)
    assert time.process_time() - begun < 2


# Over the wire


async def test_header_of_a_megabyte_does_not_hold_the_server(serve: Serve) -> None:
    """Of ``Accept``, in however many lines, only the beginning is read: a megabyte would take seconds."""
    lines = [("Accept", "*/*," * 2000)] * 120
    async with serve(CONFIG, FILES) as serving:
        begun = time.process_time()
        head, _ = await ask(serving.port, f"/{'-'.join(SERVED[-1])}", [*lines, ("Accept", "text/html")])
        assert time.process_time() - begun < 0.3
    assert head.headers["content-type"] != "text/html; charset=utf-8"


@pytest.mark.parametrize(("header", "order", "scripted"), [*ROWS[:24], *ROWS[-6:]])
async def test_answer(serve: Serve, header: str, order: str, scripted: bool) -> None:
    """A type answers with what the table says of what it serves, else with 405, 406 or 426."""
    async with serve(CONFIG, FILES) as serving:
        for some in SERVED:
            path = f"/{'-'.join(some)}"
            async with dial(serving.port, request(path, saying(header, scripted=scripted))) as wire:
                head = await wire.head()
            assert (head.status, head.headers["content-type"]) == expected(some, order), path


@pytest.mark.parametrize("header", ["", "application/x-ndjson", "application/json", CHROME, "image/png"])
@pytest.mark.parametrize("scripted", [False, True])
async def test_head(serve: Serve, header: str, scripted: bool) -> None:
    """HEAD is answered with the status and the type that GET is, and makes no client and no topic."""
    headers = saying(header, scripted=scripted)
    async with serve(CONFIG, FILES) as serving:
        heads = [
            (await ask(serving.port, f"/{'-'.join(some)}", headers, method="HEAD"))[0] for some in SERVED
        ]
        assert serving.server.bus.topics == []
        assert not any(channel.clients for channel in serving.server.channels.values())
        for some, head in zip(SERVED, heads, strict=True):
            async with dial(serving.port, request(f"/{'-'.join(some)}", headers)) as wire:
                got = await wire.head()
            assert (head.status, head.headers["content-type"]) == (got.status, got.headers["content-type"])


async def test_lines_of_a_header_are_one(serve: Serve) -> None:
    """Several Accept headers are one list."""
    headers = [
        ("Accept", "text/plain"),
        ("Accept", "application/json;q=0.5"),
        ("Accept", "text/html;q=0.1"),
    ]
    async with serve(CONFIG, FILES) as serving:
        head, _ = await ask(serving.port, "/sse-json", headers)
    assert head.headers["content-type"] == "application/json"


@pytest.mark.parametrize("mode", ["cors", "navigate", "no-cors", "same-origin"])
async def test_websocket_asks_by_its_upgrade(serve: Serve, mode: str) -> None:
    """A handshake is a WebSocket whatever else it accepts."""
    headers = [("Accept", "application/json"), ("Sec-Fetch-Mode", mode)]
    async with serve(CONFIG, FILES) as serving, websocket(serving.port, "/websocket-json", headers=headers):
        pass


@pytest.mark.parametrize("some", [some for some in SERVED if "websocket" not in some and some != ("post",)])
async def test_no_websocket(serve: Serve, some: tuple[str, ...]) -> None:
    """A handshake with what is no WebSocket is 400, and told what there is."""
    async with serve(CONFIG, FILES) as serving:
        head, body = await ask(serving.port, f"/{'-'.join(some)}", UPGRADE)
    assert head.status == 400
    assert body.startswith(f"/{'-'.join(some)} is no WebSocket but serves ")
    assert [kind for name, kind in MEDIA_TYPES.items() if name in some] == [
        kind for name, kind in MEDIA_TYPES.items() if kind in body and name != "html"
    ]


@pytest.mark.parametrize(
    ("path", "accept", "status", "says"),
    [
        ("/websocket", "", 426, "/websocket is a WebSocket; open it with ws://\n"),
        (
            "/websocket-post",
            "text/event-stream",
            426,
            "/websocket-post is a WebSocket; open it with ws://, or send one message by POST\n",
        ),
        ("/sse", "application/json", 406, "/sse serves text/event-stream, text/html\n"),
        (
            "/json-post",
            "image/png",
            406,
            "/json-post serves application/json, text/html, POST (one message)\n",
        ),
        (
            "/websocket-ndjson",
            "text/event-stream",
            406,
            "/websocket-ndjson serves application/x-ndjson, text/html, WebSocket (Upgrade: websocket)\n",
        ),
        ("/post", "", 405, "/post takes messages by POST\n"),
    ],
)
async def test_refusal_says_what_to_use(
    serve: Serve, path: str, accept: str, status: int, says: str
) -> None:
    """A form that is not served is refused with a sentence that names those that are."""
    async with serve(CONFIG, FILES) as serving:
        head, body = await ask(serving.port, path, saying(accept, scripted=False))
    assert (head.status, body) == (status, says)


@pytest.mark.parametrize(
    ("accept", "profiled"),
    [
        ("text/event-stream;profile=realtime.v1.json", True),
        ('text/event-stream; Profile="realtime.v1.json"; q=0.5', True),
        ("application/json;q=0.1, text/event-stream;profile=realtime.v1.json", True),
        ("text/event-stream;profile=realtime.v2.json", False),
        ("text/event-stream", False),
        ("*/*;profile=realtime.v1.json", False),
        ("text/event-stream, application/json;profile=realtime.v1.json", False),
    ],
)
async def test_profile(serve: Serve, accept: str, profiled: bool) -> None:
    """Events are objects if the event stream is asked for with their profile, and by name."""
    async with serve(CONFIG, FILES) as serving:
        head, _ = await ask(serving.port, "/sse-post", [("Accept", accept)], method="HEAD")
    assert head.headers["content-type"] == (
        'text/event-stream; profile="realtime.v1.json"' if profiled else "text/event-stream"
    )


# What all answers have


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/sse", EVENTS, 200),
        ("HEAD", "/sse", EVENTS, 200),
        ("GET", "/sse", [("Accept", "text/html")], 200),
        ("GET", "/ndjson", [("Accept", "application/x-ndjson")], 200),
        ("GET", "/json", [("Accept", "application/json")], 200),
        ("OPTIONS", "/sse", (), 204),
        ("GET", "/sse?since=yesterday", EVENTS, 400),
        ("GET", "/rooms/a%2Fb", EVENTS, 400),
        ("GET", "/sse", UPGRADE, 400),
        ("GET", "/websocket", without(UPGRADE, "Sec-WebSocket-Key"), 400),
        ("DELETE", "/sse", (), 400),
        ("GET", "/closed", EVENTS, 401),
        ("GET", "/sse", [*EVENTS, ("Origin", "https://evil.example")], 403),
        ("DELETE", "/sse?name=x", (), 404),
        ("PUT", "/sse", (), 405),
        ("GET", "/post", (), 405),
        ("GET", "/sse", [("Accept", "image/png")], 406),
        ("GET", "/websocket", (), 426),
        ("GET", "/sse?token=bug", EVENTS, 500),
        ("GET", "/full", EVENTS, 200),  # a stream that says so
        ("HEAD", "/full", EVENTS, 503),
    ],
)
async def test_every_answer_depends_on_what_was_asked(
    serve: Serve, method: str, path: str, headers: Headers, status: int
) -> None:
    """Nobody may keep an answer, and it depends on ``Accept`` and ``Sec-Fetch-Mode``, whatever it is."""
    async with (
        serve(CONFIG, FILES) as serving,
        dial(serving.port, request(path, headers, method=method)) as w,
    ):
        head = await w.head()
    assert head.status == status
    assert head.headers["vary"].startswith("Accept, Sec-Fetch-Mode")
    assert head.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/post", (), 202),
        ("/post?event=realtime:join", (), 400),
        ("/closed", (), 403),
        ("/sse", (), 405),
        ("/post", [("Content-Encoding", "gzip")], 415),
    ],
)
async def test_answer_to_a_post_is_nobodys_to_keep(
    serve: Serve, path: str, headers: Headers, status: int
) -> None:
    """The same of what a POST is answered."""
    async with serve(CONFIG, FILES) as serving:
        head, _ = await post(serving.port, path, b"hi", headers)
    assert (head.status, head.headers["vary"]) == (status, "Accept, Sec-Fetch-Mode")
    assert head.headers["cache-control"] == "no-store"


# Anything at all

SOUP = st.lists(
    st.sampled_from(
        ["text/event-stream", "*/*", "text/html", "q", "=", ";", ",", '"', "\\", "0.5", " ", "1", "x"]
    )
).map("".join)


@given(st.text() | SOUP, st.sets(st.sampled_from(sorted(MEDIA_TYPES))), st.booleans())
def test_any_header_is_a_choice_or_none(header: str, serves: set[str], scripted: bool) -> None:
    """Whatever the header is, the choice is among what is served; no range gives a script a stream."""
    chosen = choose(header, serves, scripted=scripted)
    assert chosen is None or chosen in serves
    if scripted and chosen in STREAMS:
        assert MEDIA_TYPES[chosen] in [item.type for item in accepted(header)]


@given(
    st.lists(st.sampled_from(['"', "\\", ";", ",", "a=", '="', " ", ";a=", "q=0"]), min_size=1, max_size=4)
)
def test_no_header_takes_long(part: list[str]) -> None:
    """Whatever is repeated, a header of the longest that is read is taken apart at once."""
    began = time.process_time()
    list(accepted(("".join(part) * MAX_ACCEPT)[:MAX_ACCEPT]))
    assert time.process_time() - began < 0.5
