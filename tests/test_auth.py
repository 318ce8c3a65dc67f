"""Who a client is: where its token comes from, whom it is believed of, and who is asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Serve
from tokenmaker import AUTH, SECRET, claims_of, token
from wire import EVENTS, UPGRADE, Headers, ask, dial, post, request, websocket

from realtime.auth import LATEST, BadToken, identity_of
from realtime.permissions import Identity

WHO = """
    from realtime import Channel, hookimpl

    class Who(Channel):
        async def on_message(self, client, message):
            await client.send(client.identity.name if client.identity else "nobody")

    @hookimpl
    def register_channels():
        return {"who": Who}
"""
FILES = {"who.py": WHO}
CHANNEL = "channels: {who: {plugin: who, path: /who}}\n"
#: A server that its pages know as this.
SITE = "localhost"
OWN: Headers = [("Origin", f"http://{SITE}")]
EVIL: Headers = [("Origin", "https://evil.example")]


def server(origins: str = "same") -> str:
    """A config that believes tokens."""
    return f'server: {{listen: ["127.0.0.1:0"], origins: {origins}}}\n{AUTH}\n{CHANNEL}'


def cookie(name: str = "realtime_token") -> Headers:
    """A token in a cookie."""
    return [("Cookie", f"theme=dark; {name}={token(sub='carol')}")]


def bearer(name: str) -> Headers:
    """A token in the header."""
    return [("Authorization", f"Bearer {token(sub=name)}")]


async def who(port: int, headers: Headers = (), query: str = "") -> str | int:
    """Who the server says that a POST comes from, or with what it is refused."""
    head, body = await post(port, f"/who{query}", b"?", headers)
    return str(json.loads(body)["messages"][0]["data"]) if head.status == 202 else head.status


# Where it comes from


@pytest.mark.parametrize(
    ("headers", "query", "name"),
    [
        ((), "", "nobody"),
        (bearer("alice"), "", "alice"),
        ([("authorization", f"bEARER   {token()}")], "", "alice"),
        ((), f"?token={token(sub='bob')}", "bob"),
        ([*cookie(), *OWN], "", "carol"),
        (bearer("alice"), f"?token={token(sub='bob')}", "alice"),
        ([*cookie(), *OWN], f"?token={token(sub='bob')}", "bob"),
        ([*bearer("alice"), *cookie()], "", "alice"),
        ([("Authorization", "Basic eDp5")], "", "nobody"),
        (cookie("another"), "", "nobody"),
    ],
)
async def test_where_a_token_is_looked_for(serve: Serve, headers: Headers, query: str, name: str) -> None:
    """In the header first, then in the query, then in the cookie."""
    async with serve(server(), FILES) as serving:
        assert await who(serving.port, headers, query) == name


@pytest.mark.parametrize("setting", ["cookie: sid", "cookie: null"])
async def test_name_of_the_cookie(serve: Serve, setting: str) -> None:
    """The cookie is called what the config calls it, or is none."""
    config = server().replace("auth: {", f"auth: {{{setting}, ")
    async with serve(config, FILES) as serving:
        assert await who(serving.port, [*cookie(), *OWN]) == "nobody"
        expected = "carol" if setting == "cookie: sid" else "nobody"
        assert await who(serving.port, [*cookie("sid"), *OWN]) == expected


async def test_without_settings_no_token_is_looked_at(serve: Serve) -> None:
    """Where the config has no ``auth.jwt``, a token is no business of the server's."""
    async with serve(CHANNEL, FILES) as serving:
        assert await who(serving.port, bearer("alice"), "?token=x") == "nobody"


# Cookies


@pytest.mark.parametrize(
    ("origins", "headers", "answer"),
    [
        ("same", OWN, "carol"),
        ("same", [("Referer", f"http://{SITE}/page?x")], "carol"),
        ("same", (), 403),
        ("same", EVIL, 403),
        ("same", [("Referer", "https://evil.example/page")], 403),
        ("same", [("Referer", f"https://evil.example/http://{SITE}/")], 403),
        ("same", [("Referer", "garbage")], 403),
        ("any", EVIL, 403),
        ("any", [("Origin", "null")], 403),
        ("any", OWN, "carol"),
        ("['https://app.example']", [("Origin", "https://app.example")], "carol"),
        ("['https://app.example']", EVIL, 403),
    ],
)
async def test_cookie_is_believed_of_whose_page_it_is(
    serve: Serve, origins: str, headers: Headers, answer: str | int
) -> None:
    """A POST with a cookie comes from a page of the server, or one that the config names."""
    async with serve(server(origins), FILES) as serving:
        assert await who(serving.port, [*cookie(), *headers]) == answer


@pytest.mark.parametrize(
    ("origins", "headers", "status"),
    [("same", OWN, 101), ("same", (), 403), ("any", EVIL, 403), ("any", OWN, 101)],
)
async def test_websocket_by_cookie_says_its_origin(
    serve: Serve, origins: str, headers: Headers, status: int
) -> None:
    """A browser tells the origin of each WebSocket; one by cookie that does not is refused."""
    async with (
        serve(server(origins), FILES) as serving,
        dial(serving.port, request("/who", [*UPGRADE, *cookie(), *headers])) as wire,
    ):
        assert (await wire.head()).status == status


async def test_reading_by_cookie_needs_no_origin(serve: Serve) -> None:
    """A browser tells none where a page reads from its own server."""
    config = server().replace("path: /who", "path: /who, allow: {subscribe: authenticated}")
    async with serve(config, FILES) as serving:
        head, _ = await ask(serving.port, "/who", [*EVENTS, *cookie()], method="HEAD")
        assert head.status == 200
        elsewhere = [*EVENTS, *cookie(), ("Referer", "https://evil.example/")]
        assert (await ask(serving.port, "/who", elsewhere, method="HEAD"))[0].status == 403


# Beside plugins

ASKED = """
    from aiohttp import web
    from realtime import Identity, hookimpl

    @hookimpl
    def authenticate(request):
        word = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if word == "refuse":
            raise web.HTTPUnauthorized(text="no\\n")
        if word == "nonsense":
            return "alice"
        return Identity(name="plugin") if word == "plain-word" else None
"""


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        (token(), "alice"),
        ("plain-word", "plugin"),
        ("another-word", 401),
        ("refuse", 401),
        ("nonsense", 500),
        ("a.b.c", 401),
    ],
)
async def test_what_is_no_jwt_may_be_a_plugins(serve: Serve, word: str, answer: str | int) -> None:
    """A token that has not the form of a JWT is shown to plugins; what nobody knows is refused."""
    async with serve(f"plugins: [asked]\n{server()}", {**FILES, "asked.py": ASKED}) as serving:
        assert await who(serving.port, [("Authorization", f"Bearer {word}")]) == answer


async def test_what_a_plugin_answers_must_be_an_identity(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Anything else is a bug of the plugin, which is named."""
    async with serve(f"plugins: [asked]\n{CHANNEL}", {**FILES, "asked.py": ASKED}) as serving:
        assert await who(serving.port, [("Authorization", "Bearer nonsense")]) == 500
    assert "authenticate of plugin 'asked' failed" in caplog.text
    assert "it answered 'alice', which is no Identity" in caplog.text


COROUTINE = """
    import asyncio
    from realtime import hookimpl

    async def later():
        return True

    @hookimpl
    def authorize(identity, action, topic):
        return later()
"""


async def test_authorize_is_asked_and_not_awaited(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A coroutine for an answer denies, and the log names the plugin: nobody would await it."""
    async with serve(f"plugins: [later]\n{CHANNEL}", {**FILES, "later.py": COROUTINE}) as serving:
        assert await who(serving.port) == 401
    assert "authorize of plugin 'later' failed" in caplog.text


ALL = """
    from realtime import hookimpl

    asked = []

    @hookimpl
    def authorize(identity, action, topic):
        asked.append((action, topic))
"""


async def test_what_authorize_is_asked(serve: Serve) -> None:
    """Once for a connection, once for each message, and once for a removal; by the name of the topic."""
    room = "{plugin: topics, path: '/r/{room}', allow: {publish: anyone}}"
    config = f"plugins: [all_]\nchannels: {{rooms: {room}}}\n"
    async with serve(config, {"all_.py": ALL}) as serving, websocket(serving.port, "/r/blue"):
        await ask(serving.port, "/r/blue", [("Accept", "application/json")])
        await post(serving.port, "/r/red", b"hi")
        await ask(serving.port, "/r/blue?name=x", method="DELETE")
        asked = serving.server.plugins.manager.get_plugin("plugin:all_")
        assert asked is not None
        assert asked.asked == [
            ("subscribe", "rooms/blue"),
            ("subscribe", "rooms/blue"),
            ("publish", "rooms/red"),
            ("kick", "rooms/blue"),
        ]


async def test_without_authorize_messages_go_straight_to_the_channel(serve: Serve) -> None:
    """Where no plugin is to be asked, and all may publish, nothing stands in the way of a message."""
    async with serve(CHANNEL, FILES) as serving, websocket(serving.port, "/who"):
        channel = serving.server.channels["who"]
        (client,) = [*serving.server.connections._all]
        assert client.on_message == channel.on_message  # type: ignore[attr-defined]


# The claims


def test_identity_of_claims() -> None:
    """``sub`` is the name, ``scope`` the scopes, and the end comes so much later as clocks may differ."""
    claims = claims_of(scope="a b", subscribe=["x/*"], publish=[])
    assert identity_of(claims, 10.0) == Identity(
        name="alice",
        scopes=frozenset({"a", "b"}),
        expires=claims["exp"] + 10.0,
        subscribe=("x/*",),
        publish=(),
    )


def test_end_is_bounded() -> None:
    """What ends later than any calendar has no other end than the last."""
    assert identity_of(claims_of(exp=10**30), 0.0).expires == LATEST


@pytest.mark.parametrize("scope", [None, True, {"a": 1}, [["a"]]])
def test_what_is_no_scope(scope: object) -> None:
    """Scopes are a text or a list of texts."""
    with pytest.raises(BadToken, match="its scope is no text and no list of texts"):
        identity_of(claims_of(scope=scope), 0.0)


# The rest


async def test_key_from_a_file(serve: Serve) -> None:
    """The key may be in a file beside the config, with a line break at its end."""
    config = server().replace(f"key: {SECRET}", "key_file: keys/secret")
    async with serve(config, {**FILES, "keys/secret": f"{SECRET}\n"}) as serving:
        assert await who(serving.port, bearer("alice")) == "alice"


@pytest.mark.parametrize("arguments", ["--help", "check"])
def test_library_is_loaded_where_it_is_needed(tmp_path: Path, arguments: str) -> None:
    """Without ``auth.jwt`` nobody waits for PyJWT and cryptography to be imported."""
    (tmp_path / "config.yaml").write_text("channels: {}\n")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "realtime", arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "cryptography" not in done.stderr
    assert " jwt" not in done.stderr
