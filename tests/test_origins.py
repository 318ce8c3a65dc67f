"""Which web pages may connect, as far as it can be said without a server; see ``test_endpoint``.

And what they may see of the answers (CORS).
"""

from __future__ import annotations

import pytest
from conftest import Serve
from hypothesis import given, strategies as st
from wire import EVENTS, LINES, UPGRADE, Headers, ask, dial, post, request

from realtime.origins import origin_allowed, parse_origin, sharing

FILES = {
    "kinds.py": '''
        from realtime import Channel, hookimpl

        class Both(Channel):
            """Says what is said."""

            async def on_message(self, client, message):
                return await self.publish(client.topic, message.data)

        class Reading(Channel):
            """Is read only."""

            transports = ("sse",)

        @hookimpl
        def register_channels():
            return {"both": Both, "reading": Reading}

        @hookimpl
        def authenticate(request):
            if request.query.get("token") == "bug":
                raise RuntimeError("a bug")
    '''
}
GOOD, EVIL = "https://good.example", "https://evil.example"
PREFLIGHT: Headers = [
    ("Access-Control-Request-Method", "POST"),
    ("Access-Control-Request-Headers", "authorization,content-type,idempotency-key,last-event-id"),
    ("Sec-Fetch-Mode", "cors"),
]


def config(origins: str) -> str:
    """Channels for the pages of these origins."""
    return f"""
        server: {{listen: ["127.0.0.1:0"], origins: {origins}}}
        plugins: [kinds]
        channels:
          both: {{plugin: both, path: /both, allow: {{kick: anyone}}}}
          reading: {{plugin: reading, path: /reading}}
          closed: {{plugin: both, path: /closed, allow: {{subscribe: authenticated, publish: nobody}}}}
    """


def cors(headers: dict[str, str]) -> dict[str, str]:
    """What a response says to a browser about other origins, without the beginning of the names."""
    start = "access-control-"
    return {name.removeprefix(start): value for name, value in headers.items() if name.startswith(start)}


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


@pytest.mark.parametrize("origin", ["https://a.good.example", "https://A.good.example:443"])
def test_wildcard(origin: str) -> None:
    """In a list a star stands for one label."""
    assert origin_allowed(origin, ["https://*.good.example"], "")


@pytest.mark.parametrize(
    "origin", [GOOD, "https://.good.example", "https://a.b.good.example", "https://[::1]"]
)
def test_what_a_wildcard_is_not(origin: str) -> None:
    """Not for none, not for two, and not for an empty one."""
    assert not origin_allowed(origin, ["https://*.good.example"], "")


def test_same_in_a_list() -> None:
    """In a list ``same`` stands for the pages of the server's own, which need no permission to see."""
    assert origin_allowed(GOOD, ["same"], "://good.example")
    assert not origin_allowed(EVIL, ["same"], "://good.example")
    assert sharing(GOOD, ["same"], ["GET"]) == {}


# What a page of another origin may see


@pytest.mark.parametrize("allowed", ["[https://good.example]", "any"])
async def test_preflight(serve: Serve, allowed: str) -> None:
    """A browser that asks for an allowed page is told the methods and headers that the channel takes."""
    async with serve(config(allowed), FILES) as serving:
        head, body = await ask(serving.port, "/both", [("Origin", GOOD), *PREFLIGHT], method="OPTIONS")
    assert (head.status, body) == (204, "")
    told = cors(head.headers)
    assert told["allow-methods"] == head.headers["allow"] == "GET, HEAD, POST, DELETE, OPTIONS"
    assert {name.lower() for name in told["allow-headers"].split(", ")} == {*PREFLIGHT[1][1].split(",")}
    assert told["max-age"] == "600"


async def test_preflight_of_what_is_read_only(serve: Serve) -> None:
    """A method that the channel does not have is not allowed to a page."""
    async with serve(config("any"), FILES) as serving:
        head, _ = await ask(serving.port, "/reading", [("Origin", GOOD), *PREFLIGHT], method="OPTIONS")
    assert cors(head.headers)["allow-methods"] == "GET, HEAD, DELETE, OPTIONS"


@pytest.mark.parametrize(
    ("allowed", "origin", "credentials"),
    [("[https://good.example]", GOOD, "true"), ("any", "*", None)],
    ids=["list", "any"],
)
async def test_credentials(serve: Serve, allowed: str, origin: str, credentials: str | None) -> None:
    """A page of the list is named, and may come with cookies; where any may come, none may with them."""
    async with serve(config(allowed), FILES) as serving:
        for method in ("OPTIONS", "GET"):
            head, _ = await ask(
                serving.port, "/both", [("Origin", GOOD), ("Accept", "application/json")], method=method
            )
            told = cors(head.headers)
            assert (told["allow-origin"], told.get("allow-credentials")) == (origin, credentials)


async def test_same_origin_needs_no_permission(serve: Serve) -> None:
    """With ``same`` a page of the server's own is answered, and no other is told that it may see it."""
    async with serve(config("same"), FILES) as serving:
        for method, status in (("OPTIONS", 204), ("GET", 200)):
            headers = [("Origin", "http://localhost"), ("Accept", "application/json")]
            head, _ = await ask(serving.port, "/both", headers, method=method)
            assert (head.status, cors(head.headers)) == (status, {})


async def test_who_is_no_page_is_told_nothing(serve: Serve) -> None:
    """Without an Origin there is nothing to say to a browser."""
    async with serve(config("any"), FILES) as serving:
        head, _ = await ask(serving.port, "/both", [("Accept", "application/json")])
    assert (cors(head.headers), head.headers["vary"]) == ({}, "Accept, Sec-Fetch-Mode")


@pytest.mark.parametrize("allowed", ["same", "[https://good.example]"])
@pytest.mark.parametrize("method", ["OPTIONS", "GET", "HEAD", "POST", "DELETE"])
async def test_foreign_page_sees_nothing(serve: Serve, allowed: str, method: str) -> None:
    """A page of anywhere else is refused, cannot read even that, and what it says is not heard."""
    async with serve(config(allowed), FILES) as serving:
        head, _ = await ask(serving.port, "/both", [("Origin", EVIL), *PREFLIGHT], method=method)
        assert (head.status, cors(head.headers)) == (403, {})
        assert serving.server.bus.topics == []


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/both", EVENTS, 200),
        ("GET", "/both", LINES, 200),
        ("HEAD", "/both", EVENTS, 200),
        ("GET", "/both?since=x", EVENTS, 400),
        ("DELETE", "/both", (), 400),
        ("GET", "/closed", EVENTS, 401),
        ("DELETE", "/both?client=c9", (), 404),
        ("PUT", "/both", (), 405),
        ("GET", "/both", [("Accept", "image/png")], 406),
        ("GET", "/reading", UPGRADE, 400),
        ("GET", "/both?token=bug", EVENTS, 500),
    ],
)
async def test_allowed_page_can_read_why(
    serve: Serve, method: str, path: str, headers: Headers, status: int
) -> None:
    """An allowed page sees every answer, refusals too, and with it what it may retry."""
    asked = request(path, [("Origin", GOOD), *headers], method=method)
    async with serve(config("[https://good.example]"), FILES) as serving, dial(serving.port, asked) as wire:
        head = await wire.head()
    assert (head.status, cors(head.headers).get("allow-origin")) == (status, GOOD)
    assert "Retry-After" in cors(head.headers)["expose-headers"]
    assert head.headers["vary"] == "Accept, Sec-Fetch-Mode, Origin"


@pytest.mark.parametrize(("path", "status"), [("/both", 202), ("/both?event=", 400), ("/closed", 403)])
async def test_allowed_page_can_read_the_answer_to_a_post(serve: Serve, path: str, status: int) -> None:
    """The same of what a POST is answered."""
    async with serve(config("[https://good.example]"), FILES) as serving:
        head, _ = await post(serving.port, path, b"hi", [("Origin", GOOD)])
    assert (head.status, cors(head.headers).get("allow-origin")) == (status, GOOD)


@pytest.mark.parametrize(
    "origin", ["null", "https://good.example.evil.example", "https://good.example:444", ""]
)
def test_only_who_may_connect_may_see(origin: str) -> None:
    """What is not in the list is not named in an answer."""
    assert sharing(origin, [GOOD], ["GET"]) == {}


# Anything at all

PARTS = [
    "http",
    "https",
    "://",
    "good.example",
    ":",
    "443",
    "8443",
    "/",
    "@",
    "[::1]",
    ".",
    "null",
    " ",
    "\u0130",
]
ORIGINS = st.text() | st.lists(st.sampled_from(PARTS), max_size=8).map("".join)


@given(ORIGINS)
def test_only_its_own_spelling_is_the_same(origin: str) -> None:
    """Whatever an origin is, it is the site's only if it is that, in whatever case, maybe with the port."""
    allowed = origin_allowed(origin, "same", "https://good.example")
    assert allowed == (origin.lower() in ("https://good.example", "https://good.example:443"))


@given(ORIGINS, ORIGINS)
def test_any_two_are_compared(origin: str, site: str) -> None:
    """Whatever origin and site are, there is an answer, and headers only for who may connect."""
    origin_allowed(origin, "same", site)
    assert not sharing(origin, ["https://good.example"], ["GET"]) or parse_origin(origin) == (
        "https",
        "good.example",
        "443",
    )
