"""One URL: who may come, what they are answered, and which topic a path names."""

from __future__ import annotations

import json
import unicodedata
from typing import Any
from urllib.parse import quote

import pytest
from conftest import Serve
from wire import EVENTS, UPGRADE, Headers, ask, close, dial, eventually, request, stream, text, websocket

METHODS = ("PUT", "PATCH", "TRACE")
#: Channels of every combination of transports.
KINDS = {
    "both.py": '''
        from realtime import Channel, hookimpl

        class Both(Channel):
            """Says what is published, by whom it may be heard."""

            async def on_message(self, client, message):
                await self.publish(client.topic, message.data)

        class Events(Channel):
            """Server-sent events only."""

            transports = ("sse",)

        class Sockets(Channel):
            """WebSocket only."""

            transports = ("websocket",)

        class Posts(Both):
            """POST only."""

            transports = ("post",)

        @hookimpl
        def register_channels():
            return {"both": Both, "events": Events, "sockets": Sockets, "posts": Posts}
    '''
}
CHANNELS = """
    plugins: [both]
    channels:
      both: {plugin: both, path: /both}
      events: {plugin: events, path: /events}
      sockets: {plugin: sockets, path: /sockets}
      posts: {plugin: posts, path: /posts}
"""
ROOMS = """
    channels:
      rooms: {plugin: both, path: "/rooms/{room}"}
      topics: {plugin: both, path: "/topics/{kind}/{topic...}"}
"""


def server(**settings: str) -> str:
    """A config with one channel and settings of the server."""
    more = "".join(f", {key}: {value}" for key, value in settings.items())
    return f'server: {{listen: ["127.0.0.1:0"]{more}}}\nchannels: {{both: {{plugin: both, path: /both}}}}'


# Origins


async def opens(port: int, host: str, origins: list[str], headers: Headers = EVENTS) -> int:
    """The status that a page of these origins gets from a server that it knows as ``host``."""
    headers = [*headers, *(("Origin", origin) for origin in origins)]
    async with dial(port, request("/both", headers, host=host)) as wire:
        return (await wire.head()).status


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("good.com", "https://good.com"),
        ("good.com", "http://good.com"),
        ("GOOD.com", "https://Good.Com"),
        ("good.com:443", "https://good.com"),
        ("good.com", "https://good.com:443"),
        ("good.com:80", "http://good.com"),
        ("good.com:8080", "http://good.com:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
    ],
)
async def test_same_origin(serve: Serve, host: str, origin: str) -> None:
    """With ``origins: same`` a page of the same host and port may connect."""
    async with serve(server(), KINDS) as serving:
        assert await opens(serving.port, host, [origin]) == 200


async def test_no_origin(serve: Serve) -> None:
    """What is no browser sends no Origin, and may connect."""
    async with serve(server(origins="[https://good.com]"), KINDS) as serving:
        assert await opens(serving.port, "good.com", []) == 200


HOSTILE = [
    "null",
    "",
    "https://good.evil.com",
    "https://good.com.evil.com",
    "https://evilgood.com",
    "https://good.com:444",
    "https://good.com:80",
    "http://good.com:443",
    "https://good.com@evil.com",
    "https://evil.com@good.com",
    "https://user:pw@good.com",
    "https://good.com/",
    "https://good.com/path",
    "https://good.com?x",
    "https://good.com#x",
    "https://good.com\\.evil.com",
    "https://good.com.",
    "https://good.com:",
    "https://good.com:0443",
    "good.com",
    "//good.com",
    "ftp://good.com",
    "file://",
    "https://good.com, https://good.com",
    "https://good.com https://good.com",
    "https://gооd.com",  # noqa: RUF001  # its letters o are Cyrillic
]


@pytest.mark.parametrize("origin", HOSTILE)
@pytest.mark.parametrize("allowed", ["same", "[https://good.com]"])
async def test_hostile_origin(serve: Serve, origin: str, allowed: str) -> None:
    """A page of anywhere else may not connect, whatever it looks like, by no transport."""
    async with serve(server(origins=allowed), KINDS) as serving:
        assert await opens(serving.port, "good.com", [origin]) == 403
        assert await opens(serving.port, "good.com", [origin], UPGRADE) == 403


@pytest.mark.parametrize("allowed", ["same", "[https://good.com]"])
async def test_two_origins(serve: Serve, allowed: str) -> None:
    """Two Origin headers are one too many."""
    async with serve(server(origins=allowed), KINDS) as serving:
        assert await opens(serving.port, "good.com", ["https://good.com"] * 2) == 403


async def test_refused_origin_is_told_how_to_allow_it(serve: Serve) -> None:
    """The answer to a foreign page names its origin and the key of the config."""
    async with serve(server(), KINDS) as serving:
        head, body = await ask(serving.port, "/both", [*EVENTS, ("Origin", "https://evil.com")])
    assert head.status == 403
    assert "'https://evil.com'" in body
    assert "server.origins" in body


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://good.com", 200),
        ("https://GOOD.com", 200),
        ("https://good.com:443", 200),
        ("http://good.com", 403),
        ("http://good.com:443", 403),
        ("https://dev.good.com:8443", 200),
        ("https://dev.good.com", 403),
        ("http://plain.com:80", 200),
        ("http://plain.com", 200),
        ("http://other.com", 403),
    ],
)
async def test_listed_origins(serve: Serve, origin: str, status: int) -> None:
    """A list allows those of its scheme, host and port, the default port written or not."""
    listed = '["https://Good.com", "https://dev.good.com:8443", "http://plain.com:80"]'
    async with serve(server(origins=listed), KINDS) as serving:
        assert await opens(serving.port, "other.com", [origin]) == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://rt.example", 200),
        ("https://rt.example:443", 200),
        ("http://rt.example", 403),
        ("https://good.com", 200),
        ("https://evil.com", 403),
    ],
)
async def test_own_origin(serve: Serve, origin: str, status: int) -> None:
    """With ``same`` the pages of ``server.url`` may connect too, whatever the proxy makes of ``Host``."""
    async with serve(server(url="https://rt.example"), KINDS) as serving:
        assert await opens(serving.port, "good.com", [origin]) == status


async def test_own_origin_is_not_in_a_list(serve: Serve) -> None:
    """A list of origins is the whole list."""
    async with serve(server(url="https://rt.example", origins="[https://good.com]"), KINDS) as serving:
        assert await opens(serving.port, "good.com", ["https://rt.example"]) == 403


@pytest.mark.parametrize("origin", ["null", "https://evil.com"])
async def test_any_origin(serve: Serve, origin: str) -> None:
    """With ``origins: any`` every page may connect."""
    async with serve(server(origins="any"), KINDS) as serving:
        assert await opens(serving.port, "good.com", [origin], UPGRADE) == 101


async def test_page_of_an_allowed_origin_may_read(serve: Serve) -> None:
    """The stream says to a browser that this page may read it."""
    headers = [*EVENTS, ("Origin", "https://good.com")]
    async with (
        serve(server(origins="[https://good.com]"), KINDS) as serving,
        dial(serving.port, request("/both", headers)) as wire,
    ):
        assert (await wire.head()).headers["access-control-allow-origin"] == "https://good.com"


# What is answered


@pytest.mark.parametrize(
    ("path", "method", "allowed", "says"),
    [
        *(("/both", method, "GET,HEAD,POST", "GET and takes messages by POST") for method in METHODS),
        *(
            ("/sockets", method, "GET,HEAD", "/sockets is opened with GET\n")
            for method in ["POST", *METHODS]
        ),
        *(("/events", method, "GET,HEAD", "/events is opened with GET\n") for method in ["POST", *METHODS]),
        *(("/posts", method, "POST", "takes messages by POST\n") for method in ["GET", "HEAD", *METHODS]),
    ],
)
async def test_method(serve: Serve, path: str, method: str, allowed: str, says: str) -> None:
    """Another method is answered with those that there are."""
    async with serve(CHANNELS, KINDS) as serving:
        head, body = await ask(serving.port, path, method=method)
    assert head.status == 405
    assert {*head.headers["allow"].replace(" ", "").split(",")} == {
        *allowed.split(","),
        "DELETE",
        "OPTIONS",
    }
    assert says in body or method == "HEAD"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/both", [("Origin", "https://evil.com")], 403),
        ("/both?since=yesterday", [], 400),
        ("/rooms/a%2Fb", [], 400),
        ("/both?token=wrong", [], 401),
    ],
)
async def test_head_is_refused_like_get(serve: Serve, path: str, headers: Headers, status: int) -> None:
    """HEAD is answered with the status that GET would be."""
    keys = {
        "keys.py": """
            from aiohttp import web
            from realtime import hookimpl

            @hookimpl
            def authenticate(request):
                if request.query.get("token"):
                    raise web.HTTPUnauthorized
        """
    }
    config = """
        plugins: [keys]
        channels:
          both: {plugin: both, path: /both}
          rooms: {plugin: both, path: "/rooms/{room}"}
    """
    async with serve(config, {**KINDS, **keys}) as serving:
        for method in ("GET", "HEAD"):
            head = (await ask(serving.port, path, [*EVENTS, *headers], method=method))[0]
            assert head.status == status, method


@pytest.mark.parametrize("accept", ["image/png", "text/html;q=0", "application/xml, text/plain;q=0.5"])
async def test_not_acceptable(serve: Serve, accept: str) -> None:
    """Who accepts nothing that there is gets told what there is."""
    async with serve(CHANNELS, KINDS) as serving:
        head, body = await ask(serving.port, "/both", [("Accept", accept)])
    assert head.status == 406
    assert body == (
        "/both serves text/event-stream, application/x-ndjson, application/json, text/html, "
        "WebSocket (Upgrade: websocket), POST (one message)\n"
    )


async def test_websocket_only(serve: Serve) -> None:
    """A plain request to a WebSocket is answered with 426 and how to open it."""
    async with serve(CHANNELS, KINDS) as serving:
        head, body = await ask(serving.port, "/sockets")
    assert (head.status, head.headers["upgrade"]) == (426, "websocket")
    assert body == "/sockets is a WebSocket; open it with ws://\n"


async def test_events_only(serve: Serve) -> None:
    """A handshake with a stream of events is answered with how to open that."""
    async with serve(CHANNELS, KINDS) as serving:
        head, body = await ask(serving.port, "/events", UPGRADE)
    assert head.status == 400
    assert "curl -N http://localhost/events" in body


async def test_introduction_names_what_there_is(serve: Serve) -> None:
    """A stream that was not asked for by name says what else the URL answers."""
    both = (
        "text/event-stream, application/x-ndjson, application/json, text/html, "
        "WebSocket (Upgrade: websocket), POST (one message)"
    )
    async with serve(CHANNELS, KINDS) as serving:
        for path, there in (("/both", both), ("/events", "text/event-stream, text/html")):
            async with dial(serving.port, request(path)) as wire:
                await wire.head()
                assert (await wire.event())[""].endswith(f"The same URL answers: {there}")


async def test_link_to_events(serve: Serve) -> None:
    """The link in that answer is the server's own URL, and repeats no token."""
    text = CHANNELS.replace(
        "plugins:", 'server: {listen: ["127.0.0.1:0"], url: "https://rt.example"}\n    plugins:'
    )
    async with serve(text, KINDS) as serving:
        _, body = await ask(serving.port, "/events?token=secret", UPGRADE)
    assert body.endswith("curl -N https://rt.example/events\n")


async def test_unknown_path(serve: Serve) -> None:
    """A path that nobody serves is 404."""
    async with serve(CHANNELS, KINDS) as serving:
        assert (await ask(serving.port, "/nowhere"))[0].status == 404


# Removing a client


@pytest.mark.parametrize("how", ["client={id}", "name=alice", "client={id}&name=nobody"])
async def test_kick(serve: Serve, how: str) -> None:
    """``DELETE`` closes a client by its id or its name, on any transport, with 4403 and the reason."""
    async with serve(CHANNELS, KINDS) as serving, stream(serving.port, "/both") as wire:
        both = serving.server.channels["both"]
        await eventually(lambda: bool(both.clients))
        (client,) = both.clients
        client.name = "alice"
        query = how.format(id=client.id)
        head, body = await ask(serving.port, f"/both?{query}&reason=enough", method="DELETE")
        bye = await wire.event()
    assert (head.status, json.loads(body)) == (200, {"removed": 1})
    assert bye["data"] == '{"code":4403,"reason":"enough","retry":null}'


async def test_kick_from_a_websocket(serve: Serve) -> None:
    """A plain WebSocket is closed with 4403; a reason that is too long is cut for it."""
    async with serve(CHANNELS, KINDS) as serving, websocket(serving.port, "/both") as wire:
        await eventually(lambda: bool(serving.server.channels["both"].clients))
        (client,) = serving.server.channels["both"].clients
        path = f"/both?client={client.id}&reason={'x' * 1000}"
        assert (await ask(serving.port, path, method="DELETE"))[0].status == 200
        frame = await wire.frame()
    assert (frame.code, frame.reason.strip("x…")) == (4403, "")


async def test_kick_in_one_room(serve: Serve) -> None:
    """Of two clients of one name only the one in the URL's room is removed."""
    async with (
        serve(ROOMS, KINDS) as serving,
        websocket(serving.port, "/rooms/a") as a,
        websocket(serving.port, "/rooms/b") as b,
    ):
        rooms = serving.server.channels["rooms"]
        await eventually(lambda: len(rooms.clients) == 2)
        for client in rooms.clients:
            client.name = "alice"
        _, body = await ask(serving.port, "/rooms/%61?name=alice", method="DELETE")
        assert (json.loads(body), await a.close_code()) == ({"removed": 1}, 4403)
        await b.send(text("still here"))
        assert await b.text() == "still here"


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("", 400, "say whom to remove with ?client=ID or ?name=NAME\n"),
        ("?client=&name=", 400, "say whom to remove"),
        ("?reason=enough", 400, "say whom to remove"),
        ("?client=c999", 404, "there is no 'c999' here\n"),
        ("?name=b%0Ab", 404, "there is no 'b\\nb' here\n"),
    ],
)
async def test_kick_of_nobody(serve: Serve, query: str, status: int, says: str) -> None:
    """Who asks for nobody, or for who is not there, is told so, and makes no topic."""
    async with serve(ROOMS, KINDS) as serving:
        head, body = await ask(serving.port, f"/rooms/a{query}", method="DELETE")
        assert (head.status, says in body) == (status, True)
        assert serving.server.bus.topics == []


async def test_kick_from_a_chat(serve: Serve) -> None:
    """Who is removed from a chat has left it, and the others are told."""
    config = "channels: {lobby: {plugin: chat, path: /chat}}"
    async with serve(config) as serving, websocket(serving.port, "/chat") as alice:
        await alice.send(text("alice"))
        assert await alice.text() == "alice joined the chat"
        async with websocket(serving.port, "/chat?name=mallory") as mallory:
            assert await alice.text() == "mallory joined the chat"
            assert (await ask(serving.port, "/chat?name=mallory", method="DELETE"))[0].status == 200
            assert await alice.text() == "mallory left the chat"
            assert await mallory.text() == "mallory joined the chat"
            assert await mallory.close_code() == 4403


# Paths and topics


async def topics(serving: Any, *paths: str) -> list[str]:
    """The topics of streams to these paths."""
    found = []
    for path in paths:
        async with stream(serving.port, path):
            (client,) = [c for ch in serving.server.channels.values() for c in ch.clients]
            found.append(client.topic)
        await eventually(lambda: not any(ch.clients for ch in serving.server.channels.values()))
    return found


async def test_rooms_are_topics_of_their_own(serve: Serve) -> None:
    """What is said in one room is not heard in another."""
    async with (
        serve(ROOMS, KINDS) as serving,
        websocket(serving.port, "/rooms/a") as a,
        websocket(serving.port, "/rooms/b") as b,
    ):
        await a.send(text("in a"))
        assert await a.text() == "in a"
        await b.send(text("in b"))
        assert await b.text() == "in b"


@pytest.mark.parametrize(
    ("first", "second", "topic"),
    [
        ("/rooms/a", "/rooms/%61", "rooms/a"),
        ("/rooms/caf%C3%A9", "/rooms/cafe%CC%81", "rooms/café"),
        ("/rooms/caf%c3%a9", "/rooms/caf%C3%A9?name=x", "rooms/café"),
        ("/rooms/a+b", "/rooms/a%2Bb", "rooms/a+b"),
        ("/rooms/a%20b", "/rooms/%61%20%62", "rooms/a b"),
        ("/rooms/%2561", "/rooms/%25%36%31", "rooms/%61"),
        ("/rooms/%7Bx%7D", "/rooms/{x}", "rooms/{x}"),
        ("/rooms/a?b", "/rooms/a?c", "rooms/a"),
        ("/topics/x/a/b", "/topics/%78/%61/b", "topics/x/a/b"),
    ],
)
async def test_spellings_of_one_topic(serve: Serve, first: str, second: str, topic: str) -> None:
    """Values that are equal once decoded and normalised are one topic."""
    async with serve(ROOMS, KINDS) as serving:
        assert await topics(serving, first, second) == [topic, topic]


@pytest.mark.parametrize("room", ["A", "%2561", "a%20", "%20a", "%D0%B0", "a;x", "a=b&c", "~", "..."])
async def test_values_that_differ_are_two_topics(serve: Serve, room: str) -> None:
    """Nothing but the spelling is taken away from a value."""
    async with serve(ROOMS, KINDS) as serving:
        one, other = await topics(serving, "/rooms/a", f"/rooms/{room}")
    assert one != other


@pytest.mark.parametrize(
    "path",
    [
        "/rooms/",
        "/rooms/a%2Fb",
        "/rooms/a%2fb",
        "/rooms/%",
        "/rooms/%zz",
        "/rooms/a%2",
        "/rooms/%ff",
        "/rooms/%C3",
        "/rooms/%ED%A0%80",
        "/rooms/%2E%2E",
        "/rooms/..",
        "/rooms/.",
        "/rooms/%2e",
        "/rooms/a%00",
        "/rooms/a%0Ab",
        "/rooms/%7F",
        "/rooms/%E2%80%AE",
        "/rooms/*",
        "/rooms/%2A",
        "/rooms/%5C",
        "/rooms/" + "a" * 256,
        "/rooms/" + "%C3%A9" * 128,
        "/topics/x/",
        "/topics/x//a",
        "/topics/x/a/",
        "/topics/x/a/../b",
        "/topics/x/a/%2e%2e/b",
        "/topics/x/a%2Fb",
        "/topics//a",
    ],
)
async def test_value_that_is_refused(serve: Serve, path: str) -> None:
    """A value that could pass for another, or that nobody could type, is 400 and makes no topic."""
    async with serve(ROOMS, KINDS) as serving:
        for headers in (EVENTS, UPGRADE):
            head, body = await ask(serving.port, path, headers)
            assert head.status == 400
            assert "path" in body
        assert serving.server.bus.topics == []


@pytest.mark.parametrize("value", ["a" * 255, "é" * 127 + "a"])
async def test_longest_value(serve: Serve, value: str) -> None:
    """255 bytes of a value are allowed."""
    async with serve(ROOMS, KINDS) as serving:
        assert await topics(serving, f"/rooms/{quote(value)}") == [f"rooms/{value}"]


async def test_length_counts_once_normalised(serve: Serve) -> None:
    """The length is that of the value as the topic has it."""
    value = unicodedata.normalize("NFD", "é" * 100)  # 300 bytes, 200 as NFC
    async with serve(ROOMS, KINDS) as serving:
        assert await topics(serving, f"/rooms/{quote(value)}") == ["rooms/" + "é" * 100]


async def test_more_segments_than_the_path_has(serve: Serve) -> None:
    """One variable is one segment."""
    async with serve(ROOMS, KINDS) as serving:
        assert (await ask(serving.port, "/rooms/a/b", EVENTS))[0].status == 404


# Room


async def test_server_is_full(serve: Serve) -> None:
    """One client more than ``server.limits.max_clients`` is told to come back, until one leaves."""
    async with serve(server(limits="{max_clients: 1}"), KINDS) as serving:
        async with stream(serving.port, "/both"):
            head, body = await ask(serving.port, "/both", UPGRADE)
            assert head.status == 503
            assert int(head.headers["retry-after"]) in range(2, 9)
            assert "server.limits.max_clients" in body
        await eventually(lambda: not serving.server.channels["both"].clients)
        async with stream(serving.port, "/both"):
            pass


async def test_channel_is_full(serve: Serve) -> None:
    """One client more than the channel's ``max_clients`` is told to come back, the others not."""
    config = """
        channels:
          small: {plugin: both, path: /small, limits: {max_clients: 2}}
          both: {plugin: both, path: /both}
    """
    async with (
        serve(config, KINDS) as serving,
        stream(serving.port, "/small"),
        websocket(serving.port, "/small") as wire,
    ):
        head, body = await ask(serving.port, "/small", UPGRADE)
        assert head.status == 503
        assert int(head.headers["retry-after"]) in range(2, 9)
        assert "limits.max_clients" in body
        async with stream(serving.port, "/both"):
            pass
        await wire.send(close(1000))
        assert await wire.close_code() == 1000
        assert await wire.rest() == b""
        async with websocket(serving.port, "/small"):
            pass


async def test_client_that_has_not_joined_yet_counts(serve: Serve) -> None:
    """Who has connected and not said its name takes a place of the channel."""
    config = "channels: {lobby: {plugin: chat, path: /chat, limits: {max_clients: 1}}}"
    async with serve(config) as serving, websocket(serving.port, "/chat"):
        assert (await ask(serving.port, "/chat", UPGRADE))[0].status == 503


async def test_refused_client_takes_no_place(serve: Serve) -> None:
    """Requests that are refused leave the count as it was."""
    async with serve(server(limits="{max_clients: 1}"), KINDS) as serving:
        for path, headers in [
            ("/both", [*EVENTS, ("Origin", "https://evil.com")]),
            ("/both?since=x", EVENTS),
            ("/both", UPGRADE[:3]),
            ("/both", [("Accept", "image/png")]),
        ]:
            assert (await ask(serving.port, path, headers))[0].status >= 400
        async with stream(serving.port, "/both"):
            pass


async def test_too_many_topics(serve: Serve) -> None:
    """A room more than ``server.limits.topics`` is 503; those that exist can be entered."""
    config = """
        server: {listen: ["127.0.0.1:0"], limits: {topics: 1}}
        channels: {rooms: {plugin: both, path: "/rooms/{room}"}}
    """
    async with serve(config, KINDS) as serving, stream(serving.port, "/rooms/a"):
        head, body = await ask(serving.port, "/rooms/b", UPGRADE)
        assert head.status == 503
        assert int(head.headers["retry-after"]) in range(2, 9)
        assert "server.limits.topics" in body
        async with stream(serving.port, "/rooms/a"):
            pass


# Who it is


AUTHENTICATED = """
    plugins: [{plugins}]
    channels:
      who: {{plugin: who, path: /who}}
"""
WHO = {
    "who.py": '''
        from realtime import Channel, hookimpl

        class Who(Channel):
            """Tells each client who it is."""

            async def on_join(self, client):
                await client.send(client.identity.name if client.identity else "nobody")

        @hookimpl
        def register_channels():
            return {"who": Who}
    ''',
    "early.py": """
        from realtime import hookimpl
        from realtime.channel import Identity

        @hookimpl
        def authenticate(request):
            name = request.query.get("early")
            return Identity(name=name) if name else None
    """,
    "late.py": """
        import asyncio
        from aiohttp import web
        from realtime import hookimpl
        from realtime.channel import Identity

        @hookimpl
        async def authenticate(request):
            await asyncio.sleep(0)
            token = request.query.get("token")
            if token == "expired":
                raise web.HTTPUnauthorized(text="the token is over")
            if token == "bug":
                raise ValueError("a bug")
            return Identity(name=token) if token else None
    """,
}


@pytest.mark.parametrize(
    ("plugins", "query", "name"),
    [
        ("early", "", "nobody"),
        ("early", "?early=alice", "alice"),
        ("late", "?token=bob", "bob"),
        ("early, late", "?token=bob", "bob"),
        ("early, late", "?token=bob&early=alice", "alice"),
        ("late, early", "?token=bob&early=alice", "bob"),
    ],
)
async def test_first_answer_says_who_it_is(serve: Serve, plugins: str, query: str, name: str) -> None:
    """Of the plugins that authenticate, awaited or not, the first with an answer counts."""
    async with (
        serve(AUTHENTICATED.format(plugins=plugins), WHO) as serving,
        websocket(serving.port, f"/who{query}") as wire,
    ):
        assert await wire.text() == name


async def test_plugin_refuses(serve: Serve) -> None:
    """A plugin can refuse a request, with its own words."""
    async with serve(AUTHENTICATED.format(plugins="late"), WHO) as serving:
        head, body = await ask(serving.port, "/who?token=expired", EVENTS)
    assert (head.status, body) == (401, "the token is over")


async def test_bug_in_a_plugin_lets_nobody_in(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A plugin that fails denies, and the log says why."""
    async with serve(AUTHENTICATED.format(plugins="late"), WHO) as serving:
        assert (await ask(serving.port, "/who?token=bug", EVENTS))[0].status == 500
    assert "a bug" in caplog.text


async def test_token_is_not_handed_on(serve: Serve) -> None:
    """The channel sees the parameters of the URL, but not the token."""
    files = {
        "who.py": WHO["who.py"].replace(
            "client.identity.name if client.identity else", "str(client.query) +"
        )
    }
    async with (
        serve(AUTHENTICATED.format(plugins=""), files) as serving,
        websocket(serving.port, "/who?token=secret&since=-1&x=y") as wire,
    ):
        assert await wire.text() == "{'x': 'y'}nobody"


SEEN = """
from realtime import Channel, hookimpl

class Seen(Channel):
    async def on_connect(self, client):
        await client.send({"variables": dict(client.variables), "subprotocol": client.subprotocol})

@hookimpl
def register_channels():
    return {"seen": Seen}
"""


@pytest.mark.parametrize(
    ("path", "asked", "variables"),
    [
        ("/seen", "/seen", {}),
        ("/seen/{a}", "/seen/x%20y", {"a": "x y"}),
        ("/{a}/seen/{b...}", "/e\u0301/seen/x/y", {"a": "é", "b": "x/y"}),
    ],
)
async def test_client_knows_the_values_of_its_path(
    serve: Serve, path: str, asked: str, variables: dict[str, str]
) -> None:
    """A channel need not take the name of the topic apart."""
    config = f"channels: {{s: {{plugin: seen, path: '{path}'}}}}"
    async with (
        serve(config, {"seen.py": SEEN}) as serving,
        websocket(serving.port, quote(asked, "/%")) as one,
    ):
        assert json.loads(await one.text()) == {"variables": variables, "subprotocol": ""}


async def test_client_knows_its_subprotocol(serve: Serve) -> None:
    """A channel can tell a plain WebSocket from one with objects."""
    config = "channels: {s: {plugin: seen, path: /seen}}"
    headers = [("Sec-WebSocket-Protocol", "realtime.v1.json")]
    async with (
        serve(config, {"seen.py": SEEN}) as serving,
        websocket(serving.port, "/seen", headers=headers) as one,
    ):
        assert "realtime:welcome" in await one.text()
        assert json.loads(await one.text())["data"]["subprotocol"] == "realtime.v1.json"
