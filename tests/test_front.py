"""The pages of the server itself: what they say, to whom, and that nobody else can say anything in them."""

from __future__ import annotations

import re
import shlex
from html import unescape

import pytest
from conftest import Serve
from wire import ask

FILES = {
    "kinds.py": '''
        from realtime import Channel, hookimpl

        class Both(Channel):
            """Tells <b>all</b> & "everybody's" $prefix.

            And no more than that.
            """

        class Silent(Channel):
            transports = ("sse",)

        Silent.__doc__ = None

        class Talk(Channel):
            """Is talked to."""

            transports = ("websocket", "post")

            async def on_message(self, client, message):
                """Hear."""

        @hookimpl
        def register_channels():
            return {"both": Both, "silent": Silent, "talk": Talk}
    '''
}
PLUGINS = "plugins: [kinds]\n"
LOBBY = "channels: {lobby: {plugin: chat, path: /chat}}"
ROOMS = 'channels: {rooms: {plugin: chat, path: "/rooms/{room}/{rest...}"}}'
PAGE = [("Accept", "text/html")]


def commands(body: str) -> list[str]:
    """The commands that the page shows."""
    found = re.findall(r"<li><h3>[^<]*</h3><pre><code>(.*?)</code>", body)
    return [unescape(re.sub("</?span>", "", text)) for text in found]


@pytest.mark.parametrize("path", ["/", "/-/dashboard"])
async def test_headers(serve: Serve, path: str) -> None:
    """A page is HTML that runs nothing but the server's own scripts, in no frame, and sends no form."""
    async with serve(LOBBY) as serving:
        head, _ = await ask(serving.port, path, PAGE)
    policy = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    wanted = {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": policy,
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
    }
    assert (head.status, wanted.items() <= head.headers.items()) == (200, True)


@pytest.mark.parametrize("path", ["/", "/-/dashboard"])
async def test_nothing_is_inline(serve: Serve, path: str) -> None:
    """A page obeys its own policy: no script, style or handler stands in it."""
    async with serve(ROOMS) as serving:
        _, body = await ask(serving.port, path, PAGE)
    assert re.findall(r"<script[^>]*>(.*?)</script>", body) == [""]
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", body)


async def test_card(serve: Serve) -> None:
    """A channel has its name, which opens it, what it is, where, and by what it is reached."""
    async with serve(LOBBY) as serving:
        _, body = await ask(serving.port, "/", PAGE)
    assert '<h3><a href="/chat">lobby</a></h3>' in body
    assert "A room: the first text is the name" in body
    assert '<p class="mono" title="lobby: ws://localhost/chat">/chat</p>' in body
    assert re.findall(r'<li class="tag">(\w+)', body) == ["WebSocket", "SSE", "NDJSON", "JSON", "POST"]


async def test_what_a_type_says_is_text(serve: Serve) -> None:
    """The first line of what a type says of itself is shown as it stands."""
    async with serve(f"{PLUGINS}channels: {{both: {{plugin: both, path: /both}}}}", FILES) as serving:
        _, body = await ask(serving.port, "/", PAGE)
    assert "Tells &lt;b&gt;all&lt;/b&gt; &amp; &quot;everybody&#x27;s&quot; $prefix.</p>" in body
    assert "no more than that" not in body


async def test_path_is_text(serve: Serve) -> None:
    """A path with the characters of HTML stays a path, also for the shell."""
    async with serve('channels: {lobby: {plugin: chat, path: "/a\'b<i>&c"}}') as serving:
        _, body = await ask(serving.port, "/", PAGE)
    assert 'href="/a&#x27;b&lt;i&gt;&amp;c"' in body
    assert "<i>" not in body
    assert shlex.split(commands(body)[0])[-1] == "http://localhost/a'b<i>&c"


async def test_path_with_variables(serve: Serve) -> None:
    """A path with variables is no link: it has a field for each, and without JavaScript a sentence."""
    async with serve(ROOMS) as serving:
        _, body = await ask(serving.port, "/", PAGE)
    assert re.findall(r'<input name="(\w+)"', body) == ["room", "rest"]
    assert 'href="/rooms' not in body
    assert '<form data-path="/rooms/{room}/{rest...}" hidden>' in body
    assert "<noscript><p>Put a value in place of each name in braces.</p></noscript>" in body


async def test_commands(serve: Serve) -> None:
    """The commands are of one channel that takes all three, so that they show each other."""
    channels = "clock: {plugin: clock, path: /events}, lobby: {plugin: chat, path: '/rooms/{room}'}"
    async with serve(f"channels: {{{channels}}}") as serving:
        _, body = await ask(serving.port, "/", PAGE)
    assert commands(body) == [
        "curl -N http://localhost/rooms/room",
        "python -m realtime connect ws://localhost/rooms/room --name ann",
        "python -m realtime publish http://localhost/rooms/room 'hello' --name bob",
    ]


async def test_commands_of_several_channels(serve: Serve) -> None:
    """Where no channel takes all three, each is of one that takes it."""
    channels = "silent: {plugin: silent, path: /silent}, talk: {plugin: talk, path: /talk}"
    async with serve(f"{PLUGINS}channels: {{{channels}}}", FILES) as serving:
        _, body = await ask(serving.port, "/", PAGE)
    assert commands(body) == [
        "curl -N http://localhost/silent",
        "python -m realtime connect ws://localhost/talk",
        "python -m realtime publish http://localhost/talk 'hello'",
    ]


async def test_url_is_that_from_outside(serve: Serve) -> None:
    """The commands have ``server.url``."""
    config = f'server: {{listen: ["127.0.0.1:0"], url: "https://rt.example"}}\n{LOBBY}'
    async with serve(config) as serving:
        _, body = await ask(serving.port, "/", PAGE)
    assert commands(body)[1] == "python -m realtime connect wss://rt.example/chat --name ann"


async def test_no_channel(serve: Serve) -> None:
    """A server without channels says how one is made, and has no commands to show."""
    async with serve("channels: {}") as serving:
        _, body = await ask(serving.port, "/", PAGE)
    assert "No channel is configured yet." in body
    assert (commands(body), "plugin: chat" in body) == ([], True)


async def test_where_else_to_look(serve: Serve) -> None:
    """It links to the dashboard, the channels and the metrics, and each is there."""
    async with serve(LOBBY) as serving:
        _, body = await ask(serving.port, "/", PAGE)
        links = sorted(set(re.findall(r'<a[^>]* href="(/-/[^"]*)"', body)))
        answers = [(await ask(serving.port, link))[0].status for link in links]
    assert (links, answers) == (["/-/channels", "/-/dashboard", "/-/metrics"], [200, 200, 200])


async def test_channel_takes_the_front_page(serve: Serve) -> None:
    """A browser that asks for ``/`` gets the page of the channel that has it."""
    async with serve("channels: {lobby: {plugin: chat, path: /}}") as serving:
        _, body = await ask(serving.port, "/", PAGE)
    assert ("data-facts" in body, "From a terminal" in body) == (True, False)


async def test_query_is_not_repeated(serve: Serve) -> None:
    """A token in the URL stands nowhere in the page."""
    async with serve(LOBBY) as serving:
        _, body = await ask(serving.port, "/?token=secret", PAGE)
    assert "secret" not in body


async def test_dashboard_tells_nothing_itself(serve: Serve) -> None:
    """The page of the dashboard has no number in it, nor the name of a channel, for whomever it is."""
    config = f'server: {{listen: ["127.0.0.1:0"], inspect: nobody}}\n{LOBBY}'
    async with serve(config) as serving:
        head, body = await ask(serving.port, "/-/dashboard", PAGE)
    assert (head.status, "lobby" in body) == (403, False)


async def test_dashboard_is_not_for_strangers(serve: Serve) -> None:
    """Whom ``server.inspect`` does not permit is told so by the status, on a page that takes a token."""
    config = f'server: {{listen: ["127.0.0.1:0"], inspect: "scope:ops"}}\n{LOBBY}'
    async with serve(config) as serving:
        head, body = await ask(serving.port, "/-/dashboard")
    assert (head.status, head.headers["content-type"]) == (401, "text/html; charset=utf-8")
    assert "dashboard.js" in body
