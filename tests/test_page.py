"""The page of a channel: what it says, and that nobody else can say anything in it."""

from __future__ import annotations

import re
import shlex
from html import unescape

import pytest
from conftest import Serve
from wire import ask, dial, request

FILES = {
    "kinds.py": '''
        from realtime import Channel, hookimpl

        class Both(Channel):
            """Tells <b>all</b> & "everybody's" $channel.

            And no more than that.
            """

        class Silent(Channel):
            transports = ("sse",)

        class Sockets(Channel):
            """A WebSocket."""

            transports = ("websocket",)

        Silent.__doc__ = None

        @hookimpl
        def register_channels():
            return {"both": Both, "silent": Silent, "sockets": Sockets}
    '''
}
CONFIG = """
    plugins: [kinds]
    channels:
      both: {plugin: both, path: /both}
      rooms: {plugin: both, path: "/rooms/{room}"}
      silent: {plugin: silent, path: /silent}
      sockets: {plugin: sockets, path: /sockets}
"""
PAGE = [("Accept", "text/html")]


def uses(body: str) -> list[str]:
    """The commands that the page shows."""
    match = re.search(r"(?s)<h2>.*?<pre>(.*?)</pre>", body)
    assert match is not None
    return unescape(match[1]).split("\n")


async def test_headers(serve: Serve) -> None:
    """A page is HTML that runs nothing but the server's own scripts, in no frame, and sends no form."""
    async with serve(CONFIG, FILES) as serving:
        head, _ = await ask(serving.port, "/both", PAGE)
    policy = dict(part.strip().split(" ", 1) for part in head.headers["content-security-policy"].split(";"))
    assert head.headers["content-type"] == "text/html; charset=utf-8"
    assert policy == {
        "default-src": "'self'",
        "img-src": "'self' data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


async def test_nothing_is_inline(serve: Serve) -> None:
    """The page obeys its own policy: no script, style or handler stands in it."""
    async with serve(CONFIG, FILES) as serving:
        _, body = await ask(serving.port, "/both", PAGE)
    assert re.findall(r"<script[^>]*>(.*?)</script>", body) == [""]
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", body)


async def test_what_the_channel_is(serve: Serve) -> None:
    """It says the channel's name and the first line of what its type says, as text."""
    async with serve(CONFIG, FILES) as serving:
        _, body = await ask(serving.port, "/both", PAGE)
    assert "<h1>both</h1>" in body
    assert "<p>Tells &lt;b&gt;all&lt;/b&gt; &amp; &quot;everybody&#x27;s&quot; $channel.</p>" in body
    assert "no more than that" not in body


async def test_type_without_a_description(serve: Serve) -> None:
    """A type that says nothing of itself has a page all the same."""
    async with serve(CONFIG, FILES) as serving:
        head, body = await ask(serving.port, "/silent", PAGE)
    assert (head.status, "<h1>silent</h1>" in body) == (200, True)


@pytest.mark.parametrize(
    ("path", "transports"),
    [
        ("/both", "websocket sse ndjson json post"),
        ("/silent", "sse"),
        ("/sockets", "websocket"),
    ],
)
async def test_transports_for_the_script(serve: Serve, path: str, transports: str) -> None:
    """It tells its script what the channel serves."""
    async with serve(CONFIG, FILES) as serving:
        _, body = await ask(serving.port, path, PAGE)
    assert f'data-transports="{transports}"' in body


@pytest.mark.parametrize(("path", "hears"), [("/ws", "yes"), ("/events", "no")])
async def test_whether_it_hears(serve: Serve, path: str, hears: str) -> None:
    """It tells its script whether the channel does anything with messages."""
    config = "channels: {echo: {plugin: echo, path: /ws}, clock: {plugin: clock, path: /events}}"
    async with serve(config) as serving:
        _, body = await ask(serving.port, path, PAGE)
    assert f'data-hears="{hears}"' in body


async def test_commands(serve: Serve) -> None:
    """It shows how the URL is used from elsewhere, by each way that the channel serves."""
    async with serve(CONFIG, FILES) as serving:
        shown = [
            uses((await ask(serving.port, path, PAGE))[1]) for path in ("/both", "/silent", "/sockets")
        ]
    assert shown == [
        [
            "python -m realtime connect ws://localhost/both",
            "curl -N http://localhost/both",
            "curl -N -H 'Accept: application/x-ndjson' http://localhost/both",
            "curl -H 'Accept: application/json' http://localhost/both",
            "curl -d hi http://localhost/both",
        ],
        ["curl -N http://localhost/silent"],
        ["python -m realtime connect ws://localhost/sockets"],
    ]


async def test_url_is_that_from_outside(serve: Serve) -> None:
    """The commands have ``server.url``."""
    config = f'server: {{listen: ["127.0.0.1:0"], url: "https://rt.example"}}{CONFIG}'.replace(
        "\n    ", "\n"
    )
    async with serve(config, FILES) as serving:
        _, body = await ask(serving.port, "/sockets", PAGE)
    assert uses(body) == ["python -m realtime connect wss://rt.example/sockets"]


@pytest.mark.parametrize(
    "room",
    ["a;id", "$(id)", "`id`", "a'b", "a&b", "|id", "<script>alert(1)", '"><b>', "a%20b", "$x"],
)
async def test_url_is_quoted_for_shell_and_page(serve: Serve, room: str) -> None:
    """Whatever the path is, a command has it as one word, and the page as text."""
    path = f"/rooms/{room}"
    async with serve(CONFIG, FILES) as serving:
        head, body = await ask(serving.port, path, PAGE)
    assert head.status == 200
    assert not re.search(
        r"<(?!/?(html|meta|title|link|script|h1|h2|p|form|input|button|pre|!doctype)\b)", body
    )
    assert body.count("<script") == 1
    for use in uses(body):
        assert shlex.split(use)[-1] in (f"ws://localhost{path}", f"http://localhost{path}")


async def test_host_is_no_text_of_a_stranger(serve: Serve) -> None:
    """What a client calls the server comes into no page unless it looks like a host."""
    async with (
        serve(CONFIG, FILES) as serving,
        dial(serving.port, request("/silent", PAGE, host="<i>;id")) as wire,
    ):
        head, body = await wire.response()
    assert (head.status, "<i>" in body) == (400, False)


async def test_query_is_not_repeated(serve: Serve) -> None:
    """A token in the URL stands nowhere in the page."""
    async with serve(CONFIG, FILES) as serving:
        _, body = await ask(serving.port, "/both?token=secret", PAGE)
    assert "secret" not in body


async def test_head(serve: Serve) -> None:
    """HEAD says how long the page is."""
    async with serve(CONFIG, FILES) as serving:
        head, _ = await ask(serving.port, "/both", PAGE, method="HEAD")
        _, body = await ask(serving.port, "/both", PAGE)
    assert (head.status, head.headers["content-length"]) == (200, str(len(body)))


async def test_page_opens_nothing(serve: Serve) -> None:
    """Who looks at the page is no client, and makes no topic."""
    async with serve(CONFIG, FILES) as serving:
        await ask(serving.port, "/rooms/a", PAGE)
        assert serving.server.bus.topics == []


async def test_page_is_for_who_may_not_read(serve: Serve) -> None:
    """The page tells nothing of what is said, so it is for everybody; its script is then told 401."""
    config = "channels: {lobby: {plugin: chat, path: /chat, allow: {subscribe: authenticated}}}"
    async with serve(config) as serving:
        assert (await ask(serving.port, "/chat", PAGE))[0].status == 200
        assert (await ask(serving.port, "/chat"))[0].status == 401
