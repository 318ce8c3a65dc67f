"""Who may do what: each rule, for each kind of client, by each way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Serve, make
from pydantic import ValidationError
from wire import (
    EVENTS,
    LINES,
    TEXT,
    UPGRADE,
    Headers,
    ask,
    dial,
    eventually,
    frame,
    post,
    request,
    stream,
    websocket,
)

from realtime.channel import Channel
from realtime.errors import ConfigError
from realtime.permissions import Allow, Identity

#: A token in the URL is a name, and behind a colon its scopes; who sends one is known.
FILES = {
    "board.py": '''
        from realtime import Allow, Channel, Identity, Permission, hookimpl

        class Rules(Allow):
            publish: Permission = "scope:writer"

        class Board(Channel):
            """Says what is said."""

            class Settings(Channel.Settings):
                allow: Rules = Rules()

            async def on_message(self, client, message):
                return await self.publish(client.topic, message.data)

        @hookimpl
        def register_channels():
            return {"board": Board}

        @hookimpl
        def authenticate(request):
            name, _, scopes = request.query.get("token", "").partition(":")
            return Identity(name=name, scopes=frozenset(scopes.split())) if name else None
    '''
}
RULES = ["anyone", "local", "authenticated", "nobody", "scope:admin"]
#: Who asks, by the query of the URL; with ``Via`` it is not known to be local.
STRANGER, KNOWN, ADMIN, OTHER = "", "?token=alice", "?token=alice:x%20admin", "?token=alice:admin2%20Admin"
REMOTE: Headers = [("Via", "1.1 somebody")]
JSON: Headers = [("Accept", "application/json")]


def config(rule: str = "anyone", *, server: str = "", listen: str = "127.0.0.1:0") -> str:
    """A channel with one rule for everything."""
    return "\n".join(
        [
            f'server: {{listen: ["{listen}"]{server}}}',
            "channels:",
            f"  board: {{plugin: board, path: /board, allow: {{{rules(rule)}}}}}",
        ]
    )


def rules(rule: str) -> str:
    """The same rule for each action."""
    return ", ".join(f"{action}: '{rule}'" for action in Allow.model_fields)


def allowed(rule: str, who: str, *, local: bool) -> bool:
    """What the rules say, once more."""
    return {
        "anyone": True,
        "local": local,
        "authenticated": who != STRANGER,
        "nobody": False,
        "scope:admin": who == ADMIN,
    }[rule]


def refusal(rule: str, who: str) -> int:
    """401 where who it is could help, else 403."""
    return 401 if who == STRANGER and rule in ("authenticated", "scope:admin") else 403


each_client = pytest.mark.parametrize("who", [STRANGER, KNOWN, ADMIN, OTHER])
each_rule = pytest.mark.parametrize("rule", RULES)
near_or_far = pytest.mark.parametrize("local", [True, False], ids=["local", "remote"])


# The rules


@each_rule
@each_client
@near_or_far
@pytest.mark.parametrize("action", list(Allow.model_fields))
def test_rule(rule: str, who: str, local: bool, action: str) -> None:
    """Each rule permits whom it names, and speaks of one action only."""
    scopes = frozenset(who.partition(":")[2].split("%20")) - {""}
    identity = Identity(name="alice", scopes=scopes) if who else None
    allow = Allow.model_validate({**dict.fromkeys(Allow.model_fields, "nobody"), action: rule})
    for each in ("subscribe", "publish", "kick"):
        expected = each == action and allowed(rule, who, local=local)
        assert allow.permits(each, identity, local=local) is expected


def test_defaults() -> None:
    """Everybody may read and send; only who is on the machine may remove others."""
    assert Channel.Settings.model_validate({"plugin": "x", "path": "/x"}).allow.model_dump() == {
        "subscribe": "anyone",
        "publish": "anyone",
        "kick": "local",
    }


@pytest.mark.parametrize(
    "rule", ["", "any", "Anyone", "scope:", "scope:a b", "scope:" + "a" * 101, "admin", 1]
)
def test_what_is_no_rule(rule: object) -> None:
    """A rule is one of the words, or a scope that has a name."""
    with pytest.raises(ValidationError):
        Allow.model_validate({"subscribe": rule})


# Over the wire


@each_rule
@each_client
@near_or_far
async def test_subscribe(serve: Serve, rule: str, who: str, local: bool) -> None:
    """``allow.subscribe`` is for all that shows messages: WebSocket, streams, the snapshot, and HEAD."""
    status = 200 if allowed(rule, who, local=local) else refusal(rule, who)
    where = () if local else REMOTE
    async with serve(config(rule), FILES) as serving:
        for method, headers in (
            ("GET", EVENTS),
            ("GET", LINES),
            ("GET", JSON),
            ("GET", UPGRADE),
            ("HEAD", EVENTS),
        ):
            wanted = request(f"/board{who}", [*headers, *where], method=method)
            async with dial(serving.port, wanted) as wire:
                got = await wire.head()
            assert got.status == (101 if headers is UPGRADE and status == 200 else status)
            assert got.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)


@each_rule
@each_client
@near_or_far
async def test_publish(serve: Serve, rule: str, who: str, local: bool) -> None:
    """``allow.publish`` is for a POST, and of one that is refused nothing is heard."""
    permitted = allowed(rule, who, local=local)
    async with serve(config(rule), FILES) as serving:
        head, _ = await post(serving.port, f"/board{who}", b"hi", () if local else REMOTE)
        assert head.status == (202 if permitted else refusal(rule, who))
        assert [topic.head for topic in serving.server.bus.topics] == [1] * permitted


@each_rule
@each_client
@near_or_far
async def test_kick(serve: Serve, rule: str, who: str, local: bool) -> None:
    """``allow.kick`` is for DELETE: who may not is not told either who is there."""
    status = 404 if allowed(rule, who, local=local) else refusal(rule, who)
    async with serve(config(rule), FILES) as serving:
        where = () if local else REMOTE
        path = f"/board{who}{'&' if who else '?'}name=x"
        assert (await ask(serving.port, path, where, method="DELETE"))[0].status == status


@pytest.mark.parametrize(("method", "headers"), [("GET", [("Accept", "text/html")]), ("OPTIONS", ())])
async def test_page_and_preflight_need_nothing(serve: Serve, method: str, headers: Headers) -> None:
    """What shows no message is for everybody: a browser asks for it without a token."""
    async with serve(config("nobody"), FILES) as serving:
        assert (await ask(serving.port, "/board", headers, method=method))[0].status in (200, 204)


async def test_refusal_names_the_rule(serve: Serve) -> None:
    """Who is refused is told the rule, and where it stands."""
    async with serve(config("scope:admin"), FILES) as serving:
        _, body = await ask(serving.port, "/board?token=alice", EVENTS)
    assert body == "who may subscribe here: scope:admin (allow.subscribe in the config)\n"


async def test_refusal_is_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Who is not let in is a line of the log, with the reason."""
    caplog.set_level("INFO")
    async with serve(config("nobody"), FILES) as serving:
        await ask(serving.port, "/board", JSON)
    assert "GET from 127.0.0.1 refused: 403 who may subscribe here: nobody (allow.subscribe" in caplog.text


async def test_refused_client_opens_nothing(serve: Serve) -> None:
    """Who is refused is no client, and makes no topic."""
    async with serve(config("nobody"), FILES) as serving:
        for headers in (EVENTS, UPGRADE, JSON):
            assert (await ask(serving.port, "/board", headers))[0].status == 403
        assert (serving.server.bus.topics, [*serving.server.channels["board"].clients]) == ([], [])


# Who is local

PROXY = ", trusted_proxies: [127.0.0.1, '::1', unix]"


@pytest.mark.parametrize(
    ("trusted", "host", "headers", "local"),
    [
        ("", "localhost", [], True),
        ("", "localhost:8080", [], True),
        ("", "127.0.0.1:8080", [], True),
        ("", "127.9.9.9", [], True),
        ("", "[::1]:8080", [], True),
        # a page whose name was made to point here
        ("", "evil.example", [], False),
        ("", "localhost.evil.example", [], False),
        ("", "127.0.0.1.evil.example", [], False),
        ("", "203.0.113.7", [], False),
        # a page that may connect, and is somebody else's
        (", origins: any", "localhost:8080", [("Origin", "https://app.example")], False),
        (", origins: any", "localhost:8080", [("Origin", "http://localhost:3000")], False),
        (", origins: any", "localhost:8080", [("Origin", "null")], False),
        (", origins: ['https://app.example']", "localhost", [("Origin", "https://app.example")], False),
        # the server's own
        ("", "localhost:8080", [("Origin", "http://localhost:8080")], True),
        # a proxy that the config does not trust
        ("", "localhost", [("X-Forwarded-For", "127.0.0.1")], False),
        ("", "localhost", [("X-Forwarded-For", "203.0.113.7")], False),
        ("", "localhost", [("X-Forwarded-Proto", "http")], False),
        ("", "localhost", [("X-Forwarded-Host", "localhost")], False),
        ("", "localhost", [("Forwarded", "for=127.0.0.1")], False),
        ("", "localhost", [("X-Real-IP", "127.0.0.1")], False),
        ("", "localhost", [("Via", "1.1 proxy")], False),
        # one that it does
        (PROXY, "localhost", [], True),
        (PROXY, "localhost", [("X-Forwarded-For", "203.0.113.7")], False),
        (PROXY, "localhost", [("X-Forwarded-For", "127.0.0.1")], True),
        (PROXY, "localhost", [("X-Forwarded-For", "127.0.0.1, 203.0.113.7")], False),
        (PROXY, "localhost", [("X-Forwarded-For", "garbage")], False),
        (PROXY, "localhost", [("X-Forwarded-For", "")], False),
        (PROXY, "localhost", [("X-Forwarded-Proto", "https")], False),
        (PROXY, "localhost", [("Via", "1.1 proxy")], False),
        (PROXY, "evil.example", [("X-Forwarded-For", "127.0.0.1")], False),
        (
            PROXY,
            "localhost",
            [("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-Host", "evil.example")],
            False,
        ),
    ],
)
@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0"])
async def test_local(
    serve: Serve, listen: str, trusted: str, host: str, headers: Headers, local: bool
) -> None:
    """Who comes by loopback is local, unless a proxy or a web page may speak in its name."""
    peer = "::1" if "::1" in listen else "127.0.0.1"
    wanted = request("/board", [*JSON, *headers], host=host)
    async with (
        serve(config("local", server=trusted, listen=listen), FILES) as serving,
        dial(serving.port, wanted, host=peer) as wire,
    ):
        assert (await wire.head()).status == (200 if local else 403)


@pytest.mark.parametrize(
    ("trusted", "host", "headers", "local"),
    [
        ("", "localhost", [], True),
        ("", "anything", [], True),
        ("", "localhost", [("X-Forwarded-For", "127.0.0.1")], False),
        (PROXY, "localhost", [], True),
        (PROXY, "localhost", [("X-Forwarded-For", "203.0.113.7")], False),
        (PROXY, "localhost", [("X-Forwarded-For", "127.0.0.1")], True),
        (PROXY, "evil.example", [("X-Forwarded-For", "127.0.0.1")], False),
    ],
)
async def test_local_by_a_unix_socket(
    serve: Serve, tmp_path: Path, trusted: str, host: str, headers: Headers, local: bool
) -> None:
    """Who comes by a unix socket itself is local, whatever it calls the server: no page comes that way."""
    path = tmp_path / "s"
    async with (
        serve(config("local", server=trusted, listen=f"unix:{path}"), FILES),
        dial(0, request("/board", [*JSON, *headers], host=host), path=str(path)) as wire,
    ):
        assert (await wire.head()).status == (200 if local else 403)


# The config


async def test_rule_leaves_the_others(serve: Serve) -> None:
    """What a config sets of ``allow`` leaves the other rules at the type's own defaults."""
    text = "channels: {board: {plugin: board, path: /board, allow: {kick: nobody}}}"
    async with serve(text, FILES) as serving:
        assert serving.server.channels["board"].settings.allow.model_dump() == {
            "subscribe": "anyone",
            "publish": "scope:writer",
            "kick": "nobody",
        }


@pytest.mark.parametrize(
    ("allow", "says"),
    [
        ("{publish: me}", "channels.board.allow.publish: expected anyone, local, authenticated, nobody or"),
        ("{publish: no}", "channels.board.allow.publish: "),
        ("{reed: anyone}", "channels.board.allow.reed: "),
        ("anyone", "channels.board.allow: "),
    ],
)
async def test_rule_that_is_none_is_told_with_its_place(tmp_path: Path, allow: str, says: str) -> None:
    """A rule that is none is a mistake of the config, at its line."""
    text = f"""\
        channels:
          board:
            plugin: board
            path: /board
            allow: {allow}
    """
    with pytest.raises(ConfigError) as caught:
        async with make(tmp_path, text, FILES):
            pass
    (problem,) = str(caught.value).splitlines()
    assert says in problem
    assert "config.yaml:6:" in problem


# Two at once


async def test_who_may_read_may_not_write(serve: Serve) -> None:
    """A backend of the machine writes, and everybody reads."""
    text = "channels: {board: {plugin: board, path: /board, allow: {publish: local}}}"
    async with serve(text, FILES) as serving, stream(serving.port, "/board", headers=REMOTE) as wire:
        assert (await post(serving.port, "/board", b"from afar", REMOTE))[0].status == 403
        assert (await post(serving.port, "/board", b"from here"))[0].status == 202
        assert (await wire.event())["data"] == "from here"


V1: Headers = [("Sec-WebSocket-Protocol", "realtime.v1.json")]


@pytest.mark.parametrize(("rule", "who", "status"), [("local", KNOWN, 403), ("scope:admin", STRANGER, 401)])
async def test_who_may_not_publish_is_told_by_its_ref(
    serve: Serve, rule: str, who: str, status: int
) -> None:
    """Each message of a WebSocket is answered with an error, and the connection stays: it may read."""
    text = f"channels: {{board: {{plugin: board, path: /board, allow: {{publish: '{rule}'}}}}}}"
    async with (
        serve(text, FILES) as serving,
        websocket(serving.port, f"/board{who}", headers=[*REMOTE, *V1]) as wire,
    ):
        assert json.loads(await wire.text())["event"] == "realtime:welcome"
        for ref in (1, 2):
            await wire.send(frame(TEXT, b'{"data":"hi","ref":%d}' % ref))
            error = json.loads(await wire.text())
            assert (error["event"], error["ref"], error["data"]["status"]) == (
                "realtime:error",
                ref,
                status,
            )
        await serving.server.bus.publish("board", "news")
        assert json.loads(await wire.text())["data"] == "news"
        assert serving.server.bus.topic("board").head == 1


@pytest.mark.parametrize(("rule", "code"), [("local", 4403), ("authenticated", 4401)])
async def test_who_may_not_publish_in_plain_is_closed(serve: Serve, rule: str, code: int) -> None:
    """A plain WebSocket has no room for an error, so it is closed with a code that says the same."""
    text = f"channels: {{board: {{plugin: board, path: /board, allow: {{publish: {rule}}}}}}}"
    async with (
        serve(text, FILES) as serving,
        websocket(serving.port, "/board", headers=REMOTE) as wire,
    ):
        await wire.send(frame(TEXT, b"hi"))
        close = await wire.frame()
        assert (close.code, close.reason) == (
            code,
            f"who may publish here: {rule} (allow.publish in the config)",
        )
        assert serving.server.bus.topic("board").head == 0


async def test_http_1_0_is_not_local(serve: Serve) -> None:
    """What nginx hands on, unless it is told otherwise, has no header of it, but is HTTP/1.0."""
    async with (
        serve(config("local"), FILES) as serving,
        dial(serving.port, request("/board", JSON, http="1.0")) as wire,
    ):
        assert (await wire.head()).status == 403


async def test_permission_is_asked_before_there_is_room(serve: Serve) -> None:
    """Who may not enter does not learn that it is full."""
    one = "limits: {max_clients: 1}, allow: {subscribe: local}"
    text = f"channels: {{board: {{plugin: board, path: /board, {one}}}}}"
    async with serve(text, FILES) as serving, websocket(serving.port, "/board"):
        await eventually(lambda: bool(serving.server.channels["board"].clients))
        assert (await ask(serving.port, "/board", [*EVENTS, *REMOTE]))[0].status == 403
