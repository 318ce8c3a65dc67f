"""The page of a channel: what it says, and that nobody else can say anything in it."""

from __future__ import annotations

import json
import re
import shlex
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

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
    """The commands that the page shows, without what they are for."""
    match = re.search(r'(?s)<pre id="curl"[^>]*>(.*?)</pre>', body)
    assert match is not None
    return [line for line in unescape(match[1]).split("\n") if line and not line.startswith("#")]


class Elements(HTMLParser):
    """The elements of a page, with their attributes, as a browser sees them."""

    def __init__(self, body: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(body)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def facts(body: str) -> Any:
    """What the page tells its script."""
    (found,) = (more for tag, more in Elements(body).seen if tag == "body")
    return json.loads(found["data-facts"] or "")


async def test_headers(serve: Serve) -> None:
    """A page is HTML that runs nothing but the server's own scripts, in no frame, and sends no form."""
    async with serve(CONFIG, FILES) as serving:
        head, _ = await ask(serving.port, "/both", PAGE)
    policy = dict(part.strip().split(" ", 1) for part in head.headers["content-security-policy"].split(";"))
    assert head.headers["content-type"] == "text/html; charset=utf-8"
    assert policy == {
        "default-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


async def test_nothing_is_inline(serve: Serve) -> None:
    """The page obeys its own policy: no script, style or handler stands in it."""
    async with serve(CONFIG, FILES) as serving:
        _, body = await ask(serving.port, "/both", PAGE)
    assert re.findall(r"<script[^>]*>(.*?)</script>", body) == [""]
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|data:", body)


async def test_all_that_it_loads_is_there(serve: Serve) -> None:
    """Its script, its styles and its icon are the server's own, and are served."""
    async with serve(CONFIG, FILES) as serving:
        _, body = await ask(serving.port, "/both", PAGE)
        loaded = [
            str(more.get("src") or more.get("href"))
            for tag, more in Elements(body).seen
            if tag in ("script", "link", "img")
        ]
        heads = [(await ask(serving.port, path))[0] for path in loaded]
    assert {"/-/channel.js", "/-/page.css", "/-/channel.css", "/-/icon.svg"} == set(loaded)
    assert {head.status for head in heads} == {200}


async def test_what_the_channel_is(serve: Serve) -> None:
    """It says the channel's name and the first line of what its type says, as text."""
    async with serve(CONFIG, FILES) as serving:
        _, body = await ask(serving.port, "/both", PAGE)
    assert ">both</h1>" in body
    assert ">Tells &lt;b&gt;all&lt;/b&gt; &amp; &quot;everybody&#x27;s&quot; $channel.</p>" in body
    assert "no more than that" not in body


async def test_type_without_a_description(serve: Serve) -> None:
    """A type that says nothing of itself has a page all the same, and nothing is said on its behalf."""
    async with serve(CONFIG, FILES) as serving:
        head, body = await ask(serving.port, "/silent", PAGE)
    assert (head.status, ">silent</h1>" in body) == (200, True)
    assert '<p id="about"></p>' in body


async def test_facts(serve: Serve) -> None:
    """It tells its script all that there is to know of the channel, and of the topic of this URL."""
    async with serve(CONFIG, FILES) as serving:
        _, body = await ask(serving.port, "/rooms/red", PAGE)
    assert facts(body) == {
        "name": "rooms",
        "plugin": "both",
        "description": """Tells <b>all</b> & "everybody's" $channel.""",
        "url": "http://localhost/rooms/red",
        "path": "/rooms/{room}",
        "topic": "rooms/red",
        "transports": ["websocket", "sse", "ndjson", "json", "post"],
        "hears": False,
        "presence": "off",
        "module": None,
        "prefix": "",
    }


async def test_facts_of_another_transport(serve: Serve) -> None:
    """Of a channel that serves less it tells less."""
    async with serve(CONFIG, FILES) as serving:
        _, body = await ask(serving.port, "/silent", PAGE)
    assert facts(body)["transports"] == ["sse"]


@pytest.mark.parametrize(("path", "hears"), [("/ws", True), ("/events", False)])
async def test_whether_it_hears(serve: Serve, path: str, hears: bool) -> None:
    """It tells its script whether the channel does anything with messages."""
    config = "channels: {echo: {plugin: echo, path: /ws}, clock: {plugin: clock, path: /events}}"
    async with serve(config) as serving:
        _, body = await ask(serving.port, path, PAGE)
    assert facts(body)["hears"] is hears


async def test_topic_is_its_title(serve: Serve) -> None:
    """Of several pages of one channel each says which it is."""
    async with serve(CONFIG, FILES) as serving:
        _, body = await ask(serving.port, "/rooms/red", PAGE)
    assert ">rooms/red</h1>" in body
    assert "<title>rooms/red · Realtime</title>" in body


# A page of its own

OWN = {
    "own.py": """
        from realtime import Channel, hookimpl

        class Own(Channel):
            page = "own.js"

        @hookimpl
        def register_channels():
            return {"own": Own}
    """,
    "own.js": "export default () => {};",
}
OWN_CONFIG = "channels: {mine: {plugin: own, path: /mine}}"


async def test_module_of_its_own(serve: Serve) -> None:
    """A type that has a module says where it is; it has no style where none stands beside it."""
    async with serve(OWN_CONFIG, OWN) as serving:
        _, body = await ask(serving.port, "/mine", PAGE)
    assert facts(body)["module"] == "/-/pages/mine/own.js"
    assert "/-/pages/" not in "".join(re.findall("<link[^>]*>", body))


async def test_style_of_its_own(serve: Serve) -> None:
    """A style beside the module is loaded with the page."""
    async with serve(OWN_CONFIG, {**OWN, "own.css": "p { margin: 0 }"}) as serving:
        _, body = await ask(serving.port, "/mine", PAGE)
    assert '<link rel="stylesheet" href="/-/pages/mine/own.css">' in body


async def test_module_that_has_gone(serve: Serve, tmp_path: Path) -> None:
    """Where the module is no longer there the page is that of every channel, whatever else is beside it."""
    async with serve(OWN_CONFIG, OWN | {"own.css": "p {}"}) as serving:
        (tmp_path / "plugins/own.js").unlink()
        _, body = await ask(serving.port, "/mine", PAGE)
    assert facts(body)["module"] is None


async def test_page_of_a_base(serve: Serve) -> None:
    """A type has the page of the one that it is made from, which stands beside that one."""
    derived = """
        from realtime import Channel, hookimpl
        from .own import Own

        class Derived(Own):
            pass

        @hookimpl
        def register_channels():
            return {"derived": Derived}
    """
    config = "channels: {mine: {plugin: derived, path: /mine}}"
    async with serve(config, {**OWN, "derived.py": derived}) as serving:
        _, body = await ask(serving.port, "/mine", PAGE)
    assert facts(body)["module"] == "/-/pages/mine/own.js"


async def test_method_that_is_called_so(serve: Serve) -> None:
    """A type that has a method of the name ``page`` for itself has none of its own."""
    method = """
        from realtime import Channel, hookimpl

        class Own(Channel):
            def page(self):
                return "mine"

        @hookimpl
        def register_channels():
            return {"own": Own}
    """
    async with serve(OWN_CONFIG, {"own.py": method}) as serving:
        _, body = await ask(serving.port, "/mine", PAGE)
    assert facts(body)["module"] is None


# From elsewhere


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


async def test_name_of_who_posts(serve: Serve) -> None:
    """Where people are told of each other, who talks or posts gives a name; nobody else does."""
    config = "channels: {lobby: {plugin: chat, path: /chat}}"
    async with serve(config) as serving:
        _, body = await ask(serving.port, "/chat", PAGE)
    assert [use for use in uses(body) if "name" in use] == [
        "python -m realtime connect ws://localhost/chat --name you",
        "curl -d hi 'http://localhost/chat?name=curl'",
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
        _, plain = await ask(serving.port, "/rooms/plain", PAGE)
    assert head.status == 200
    assert [tag for tag, _ in Elements(body).seen] == [tag for tag, _ in Elements(plain).seen]
    assert facts(body)["url"] == f"http://localhost{path}"
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
    assert (head.status, head.headers["content-length"]) == (200, str(len(body.encode())))


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
