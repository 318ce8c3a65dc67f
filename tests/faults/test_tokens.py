"""Tokens, forged, over and without the right, and what is open to whom (rows 83, 90 to 96, 100)."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from conftest import make
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tokenmaker import AUTH, NO, SECRET, claims_of, encoded, token, unsigned
from wire import (
    EVENTS,
    LINES,
    UPGRADE,
    Headers,
    ask,
    dial,
    eventually,
    post,
    posting,
    request,
    soon,
    stream,
    text,
    websocket,
)

from faults.catalogue import fault
from faults.conftest import Calm
from realtime import auth
from realtime.buckets import Rate
from realtime.errors import ConfigError
from realtime.logs import TextLines
from realtime.transports import connection, deadline

ROOMS = f"""\
{AUTH}
channels:
  lobby: {{plugin: topics, path: /lobby, allow: {{publish: anyone}}}}
  members: {{plugin: topics, path: /members, allow: {{subscribe: authenticated, publish: 'scope:writer'}}}}
  rooms: {{plugin: topics, path: "/rooms/{{room}}", allow: {{publish: authenticated}}}}
"""
V1: Headers = [("Sec-WebSocket-Protocol", "realtime.v1.json")]
#: Every way to come in: it is authenticated before each, and before a 101.
WAYS = [("GET", EVENTS), ("GET", LINES), ("GET", UPGRADE), ("HEAD", EVENTS), ("POST", ())]
INVALID = 'Bearer error="invalid_token"'


def bearer(made: str) -> Headers:
    """The header that a token comes in."""
    return [("Authorization", f"Bearer {made}")]


def pem(key: Any) -> str:
    """A public key as a text."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(key.public_key().public_bytes(serialization.Encoding.PEM, form).decode())


RSA, EC = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())


def block(public: str, algorithm: str) -> str:
    """A config whose key is a public one."""
    lines = "".join(f"      {line}\n" for line in public.splitlines())
    jwt_ = f"auth:\n  jwt:\n    algorithms: [{algorithm}]\n    key: |\n{lines}"
    return f"{jwt_}channels:\n  lobby: {{plugin: topics, path: /lobby}}\n"


async def refused(port: int, headers: Headers, path: str = "/lobby") -> list[tuple[int, str | None]]:
    """What each way in is answered."""
    answers = []
    for method, more in WAYS:
        async with dial(port, request(path, [*more, *headers], method=method)) as wire:
            head = await wire.head()
        answers.append((head.status, head.headers.get("www-authenticate")))
    return answers


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told that there were too many attempts, but by the tests of that."""
    monkeypatch.setattr(auth, "FAILURES", Rate(per_second=1, burst=1000))


# Forgeries


def forgeries() -> Iterator[tuple[str, str]]:
    """Tokens that somebody has made who has not the key, and what is tried with each."""
    claims = claims_of()
    for name in ("none", "NoNe", "nOnE", "NONE", ""):
        yield f"alg {name!r}, no signature", f"{unsigned(claims, {'alg': name})}."
        yield f"alg {name!r}, a signature", token({"alg": name})
    yield "no alg", f"{unsigned(claims, {'typ': 'JWT'})}.x"
    yield "alg no text", f"{unsigned(claims, {'alg': ['HS256']})}.x"
    yield "another alg of the family", token({"alg": "HS512"})
    yield "another key", token(key="another key, which nobody knows!")
    yield "an empty key", token(key="")
    for kid in ("../../../../dev/null", "https://evil.example/key", "' OR '1'='1", "\0", "x" * 2000):
        yield f"kid {kid[:20]!r} for an empty key", token({"kid": kid}, key="")
    for name in ("jku", "x5u"):
        yield name, token({name: "http://127.0.0.1:9/keys"}, key="evil")
    yield "jwk", token({"jwk": {"kty": "oct", "k": encoded(b"evil")}}, key="evil")
    yield "crit", token({"crit": ["exp"]})
    yield "crit of what is unknown", token({"crit": ["x"], "x": 1})
    yield "b64", token({"b64": False, "crit": ["b64"]})
    yield "crit that PyJWT understands", token({"b64": True, "crit": ["b64"]})
    yield "kid is a number", token({"kid": 1})
    yield "RS256 where HS256 is pinned", jwt.encode(claims, RSA, "RS256")
    yield "ES256 where HS256 is pinned", jwt.encode(claims, EC, "ES256")


@fault(90)
@pytest.mark.parametrize("forged", [made for _, made in forgeries()], ids=[name for name, _ in forgeries()])
async def test_forged_token_is_refused_everywhere(calm: Calm, forged: str) -> None:
    """Who has not the key is refused by every way in, where anyone may come in, too, and before a 101."""
    async with calm(ROOMS) as serving:
        assert await refused(serving.port, bearer(forged)) == [(401, INVALID)] * len(WAYS)


@fault(90)
@pytest.mark.parametrize(("private", "algorithm"), [(RSA, "RS256"), (EC, "ES256")], ids=["RSA", "EC"])
async def test_public_key_is_no_secret(calm: Calm, private: Any, algorithm: str) -> None:
    """The public key as the secret of HS256 makes no token; the private one does."""
    public = pem(private)
    signed = jwt.encode(claims_of(), private, algorithm)
    async with calm(block(public, algorithm)) as serving:
        for swapped in (public, public.strip(), public + "\n"):
            assert (await ask(serving.port, "/lobby", bearer(token(key=swapped))))[0].status == 401
        assert (await ask(serving.port, "/lobby", [*bearer(signed), *EVENTS], method="HEAD"))[
            0
        ].status == 200


@fault(90)
@pytest.mark.parametrize(
    "header", [{"kid": "../x"}, {"kid": "http://evil"}, {"jku": "http://127.0.0.1:9"}, {"x5u": "file:///x"}]
)
async def test_what_a_token_says_of_its_key_is_nothing(calm: Calm, header: dict[str, str]) -> None:
    """A token that the key of the config has signed is right, wherever it says that its key is."""
    async with (
        calm(ROOMS) as serving,
        websocket(serving.port, "/members", headers=[*V1, *bearer(token(header))]) as wire,
    ):
        assert json.loads(await wire.text())["event"] == "realtime:welcome"


def doubled() -> Iterator[tuple[str, str, Headers]]:
    """More tokens than one, or not quite one: what it is, the query, and the headers."""
    right = token()
    yield "two headers", "", [*bearer(right), *bearer(right)]
    yield "two headers, one of another kind", "", [("Authorization", "Basic eDp4"), *bearer(right)]
    yield "Bearer twice", "", [("Authorization", f"Bearer Bearer {right}")]
    yield "two tokens", "", [("Authorization", f"Bearer {right} {right}")]
    yield "with a comma", "", [("Authorization", f"Bearer {right},{right}")]
    yield "Bearer alone", "", [("Authorization", "Bearer")]
    yield "an empty one", "", [("Authorization", "Bearer ")]
    yield "an empty one in the query", "?token=", []
    yield "two in the query", f"?token={right}&token={right}", []
    yield "a cookie that is empty", "", [("Cookie", "realtime_token=")]


@fault(91)
@pytest.mark.parametrize(
    ("query", "headers"), [row[1:] for row in doubled()], ids=[row[0] for row in doubled()]
)
async def test_one_token(calm: Calm, query: str, headers: Headers) -> None:
    """A request brings one token, or it is refused."""
    async with calm(ROOMS) as serving:
        answers = await refused(serving.port, headers, f"/lobby{query}")
        # A POST with a cookie is refused for the cookie's sake.
        assert {answer for answer in answers if answer[0] != 403} == {(401, INVALID)}


NOW = time.time()
WRONG: dict[str, tuple[str, str]] = {
    "expired": (token(exp=int(NOW) - 60), "it has expired"),
    "no exp": (token(exp=NO), "it has no exp"),
    "exp is null": (token(exp=None), "it has no exp"),
    "exp is text": (token(exp="soon"), "it is no JWT"),
    "exp is a list": (token(exp=[int(NOW) + 60]), "it is no JWT"),
    "exp is infinite": (token(exp=float("inf")), "it is no JWT"),
    "exp is no number": (token(exp=float("nan")), "it is no JWT"),
    "exp is far below": (token(exp=-(10**30)), "it has expired"),
    "nbf in the future": (token(nbf=int(NOW) + 80_000), "it is not valid yet"),
    "iat in the future": (token(iat=int(NOW) + 80_000), "it is not valid yet"),
    "no aud": (token(aud=NO), "it has no aud"),
    "aud of another": (token(aud="other"), "its aud is not auth.jwt.audience"),
    "aud is nearly right": (token(aud="realtime2"), "its aud is not auth.jwt.audience"),
    "aud is a list": (token(aud=["realtime"]), "its aud is not auth.jwt.audience"),
    "aud is a list of others": (token(aud=["a", "b"]), "its aud is not auth.jwt.audience"),
    "aud is a number": (token(aud=1), "its aud is not auth.jwt.audience"),
    "no sub": (token(sub=NO), "it has no sub"),
    "sub is a number": (token(sub=7), "its sub is no text"),
    "sub is a list": (token(sub=["alice"]), "its sub is no text"),
    "sub is empty": (token(sub=""), "its sub is not 1 to 255 bytes of printable text"),
    "sub is long": (token(sub="é" * 128), "its sub is not 1 to 255 bytes of printable text"),
    "sub has a line break": (token(sub="a\nb"), "its sub is not 1 to 255 bytes of printable text"),
    "sub has half a character": (token(sub="\ud800"), "its sub is not 1 to 255 bytes of printable text"),
    "scope is a number": (token(scope=5), "its scope is no text and no list of texts"),
    "scope has a number": (token(scope=["a", 5]), "its scope is no text and no list of texts"),
    "topics are a text": (token(subscribe="rooms/*"), "its subscribe is no list of topics such as rooms/*"),
    "a star inside": (token(publish=["*/blue"]), "its publish is no list of topics such as rooms/*"),
    "an empty topic": (token(subscribe=[""]), "its subscribe is no list of topics such as rooms/*"),
    "the claims are a list": (
        f"{(head := unsigned([1], {'alg': 'HS256'}))}."
        f"{encoded(hmac.digest(SECRET.encode(), head.encode(), 'sha256'))}",
        "it is no JWT",
    ),
    "nested deeply": (
        f"{(deep := unsigned('[' * 3000, {'alg': 'HS256'}))}."
        f"{encoded(hmac.digest(SECRET.encode(), deep.encode(), 'sha256'))}",
        "it is no JWT",
    ),
    "41 bytes": ("x" * 41, "it is no JWT"),
    "41 bytes in three parts": ("x" * 13 + "." + "y" * 13 + "." + "z" * 13, "it is no JWT"),
    "dots": ("..", "it is no JWT"),
    "four parts": (token() + ".x", "it is no JWT"),
    "not base64": ("é.é.é", "it is no JWT"),
    "a part is missing": (token().rpartition(".")[0], "it is no JWT"),
    "8 KB less the rest": ("x" * 7000, "it is no JWT"),
}


@fault(91)
@pytest.mark.parametrize(("made", "why"), WRONG.values(), ids=WRONG)
async def test_wrong_token_is_refused_with_the_reason(calm: Calm, made: str, why: str) -> None:
    """A token that is over, for others or malformed is refused with 401, and a person learns why."""
    async with calm(ROOMS) as serving:
        head, body = await ask(serving.port, "/lobby", [*EVENTS, *bearer(made)])
        assert (head.status, head.headers["www-authenticate"]) == (401, INVALID)
        assert body == f"the token is not valid: {why}\n"


@fault(91)
@pytest.mark.parametrize("where", ["header", "query"])
async def test_huge_token_is_no_request(calm: Calm, where: str) -> None:
    """A token of a megabyte is more than the head of a request may have; nobody looks at it."""
    huge = "x" * 1_000_000
    head = request(f"/lobby?token={huge}") if where == "query" else request("/lobby", bearer(huge))
    async with calm(ROOMS) as serving, dial(serving.port) as wire:
        sending = asyncio.ensure_future(wire.send(head))
        status = (await wire.head()).status
        await asyncio.gather(sending, return_exceptions=True)
        assert status in (400, 414, 431)


@fault(91)
@pytest.mark.parametrize("issuer", [NO, "https://evil.example", ["https://app.example"], 5])
async def test_wrong_issuer(calm: Calm, issuer: object) -> None:
    """Where the config names an issuer, a token of another one, or of none, is refused."""
    config = ROOMS.replace("leeway", "issuer: 'https://app.example', leeway")
    async with calm(config) as serving:
        for made, status in ((token(iss=issuer), 401), (token(iss="https://app.example"), 200)):
            head, _ = await ask(serving.port, "/lobby", [*EVENTS, *bearer(made)], method="HEAD")
            assert head.status == status


@fault(91)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_missing_scope(calm: Calm, method: str) -> None:
    """Who is known, and has not the scope, is refused with 403; with it, it is let in."""
    config = ROOMS.replace("subscribe: authenticated", "subscribe: 'scope:writer'")
    async with calm(config) as serving:
        for scope, status in (("reader", 403), ("writers", 403), ("x writer", 202), (["writer"], 202)):
            headers = bearer(token(scope=scope))
            if method == "POST":
                head, _ = await post(serving.port, "/members", b"hi", headers)
                assert head.status == status
            else:
                head, _ = await ask(serving.port, "/members", [*EVENTS, *headers], method="HEAD")
                assert head.status == (200 if status == 202 else 403)


@fault(91)
@pytest.mark.parametrize("end", [1e30, 10**30, 10**400, 253_402_300_800, 1e18])
async def test_end_beyond_all_clocks(calm: Calm, end: float) -> None:
    """A token whose end no clock can say lasts, and breaks no timer."""
    async with (
        calm(ROOMS) as serving,
        websocket(serving.port, "/rooms/blue", headers=bearer(token(exp=end))) as wire,
    ):
        await wire.send(text("hi"))
        assert await wire.text() == "hi"


# The end of a token


@fault(83)
@fault(92)
@pytest.mark.parametrize("way", ["websocket", "v1", "sse", "ndjson"])
async def test_connection_ends_with_its_token(
    calm: Calm, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """When the token is over, so is the connection: with 4401, and the reason."""
    over = (4401, "the token has expired, connect with a new one")
    async with calm(ROOMS) as serving:
        # By a clock of the test: it stands a second before the end, and then a moment behind it.
        ends, clock = int(time.time()) + 30, [0.0]
        monkeypatch.setattr(serving.server.bus, "wall_time", lambda: ends - 0.2 + clock[0])
        headers = bearer(token(exp=ends))
        if way in ("websocket", "v1"):
            more = V1 if way == "v1" else ()
            async with websocket(serving.port, "/members", headers=[*headers, *more]) as wire:
                if way == "v1":
                    assert json.loads(await wire.text())["event"] == "realtime:welcome"
                clock[0] = 1.0
                if way == "v1":
                    bye = json.loads(await wire.text())
                    assert (bye["event"], bye["data"]["code"], bye["data"]["retry"]) == (
                        "realtime:bye",
                        4401,
                        None,
                    )
                close = await wire.frame()
                assert (close.code, close.reason) == over
        elif way == "sse":
            async with stream(serving.port, "/members", headers=headers) as wire:
                clock[0] = 1.0
                bye = json.loads((await wire.event())["data"])
                assert (bye["code"], bye["reason"]) == over
                assert await wire.chunk() == ""
        else:
            async with dial(serving.port, request("/members", [*LINES, *headers])) as wire:
                await wire.head()
                assert (await wire.line())["event"] == "realtime:welcome"
                clock[0] = 1.0
                assert (await wire.line())["data"]["code"] == 4401
                assert await wire.chunk() == ""


@fault(92)
async def test_clock_that_is_set_ends_it_too(calm: Calm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of an hour is over when the clock on the wall is set an hour on, without a restart."""
    monkeypatch.setattr(deadline, "LOOK_AT_TOKEN", 0.1)
    async with (
        calm(ROOMS) as serving,
        websocket(serving.port, "/members", headers=bearer(token(exp=int(time.time()) + 3600))) as wire,
    ):
        monkeypatch.setattr(serving.server.bus, "wall_time", lambda: time.time() + 3700)
        assert (await wire.frame()).code == 4401


@fault(92)
async def test_client_that_reads_nothing_is_cut(calm: Calm, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a token is no question of whether its client reads."""
    monkeypatch.setattr(deadline, "LOOK_AT_TOKEN", 0.1)
    monkeypatch.setattr(connection, "CLOSE_GRACE", 0.2)
    async with (
        calm(ROOMS) as serving,
        websocket(serving.port, "/members", headers=bearer(token()), receive_buffer=4096),
    ):
        members = serving.server.channels["members"]
        await eventually(lambda: bool(members.clients))
        for _ in range(50):
            await serving.server.bus.publish("members", "x" * 60_000)
            await asyncio.sleep(0)
        monkeypatch.setattr(serving.server.bus, "wall_time", lambda: time.time() + 3600)
        await eventually(lambda: not members.clients)


@fault(92)
async def test_identity_of_a_plugin_ends_too(calm: Calm, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a plugin says of an identity's end holds as well."""
    plugin = """
        import time
        from realtime import Identity, hookimpl

        @hookimpl
        def authenticate(request):
            return Identity(name="alice", expires=time.time() + float(request.query.get("left", 60)))
    """
    config = "plugins: [who]\nchannels:\n  lobby: {plugin: topics, path: /lobby}\n"
    async with calm(config, {"who.py": plugin}) as serving:
        assert (await ask(serving.port, "/lobby?left=-1", EVENTS))[0].status == 401
        monkeypatch.setattr(deadline, "LOOK_AT_TOKEN", 0.1)
        async with websocket(serving.port, "/lobby?left=60") as wire:
            monkeypatch.setattr(serving.server.bus, "wall_time", lambda: time.time() + 61)
            assert (await wire.frame()).code == 4401


# Tokens in logs


@fault(93)
async def test_token_is_in_no_line_of_the_log(
    calm: Calm, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is done with a token in the URL, no logger of the process is given it, at any level."""
    plugin = """
        from realtime import Channel, hookimpl

        class Board(Channel):
            async def on_message(self, client, message):
                self.log.info("%r says %s, query %s", client, message.data, dict(client.query))
                if message.data == "bug":
                    raise RuntimeError("a bug")

        @hookimpl
        def register_channels():
            return {"board": Board}
    """
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    monkeypatch.setattr(asyncio.get_running_loop(), "slow_callback_duration", 0.0)
    config = f"{AUTH}\nchannels:\n  board: {{plugin: board, path: /board}}\n"
    right, wrong = token(), token(key="not the key")
    async with calm(config, {"board.py": plugin}, noisy=("realtime.channel.board", "asyncio")) as serving:
        for made in (right, wrong):
            path = f"/board?token={made}"
            for method, headers in (*WAYS, ("GET", [("Accept", "text/html")]), ("DELETE", ()), ("PUT", ())):
                async with dial(serving.port, request(path, headers, method=method)) as wire:
                    await wire.head()
            for body in (b"hi", b"bug"):
                await post(serving.port, path, body)
            for bad in (
                request(path, [("Bad Name", "x")]),
                request(path, http="9.9"),
                request(path).replace(b"GET", b"G\x00T"),
                posting(path, b"\xff"),
                request(f"/nowhere?token={made}"),
            ):
                async with dial(serving.port, bad) as wire:
                    await wire.head()
        async with websocket(serving.port, f"/board?token={right}") as wire:
            await wire.send(text("bug"))
            assert (await wire.frame()).code == 1011
    shown = [TextLines().format(record) for record in caplog.records]
    said = [f"{record.getMessage()} {record.__dict__.get('fields')}" for record in caplog.records]
    assert any("refused: 401" in line for line in said)
    for made in (right, wrong):
        assert not [line for line in (*shown, *said) if made in line or made.rpartition(".")[2] in line]


# Weak secrets

RANDOM = "9f2c7ab4e01d5836c4f7a1be03d92875e6b1"


@fault(94)
@pytest.mark.parametrize(
    ("key", "algorithms", "says"),
    [
        ('""', "HS256", "a secret for HS256 has at least 32 bytes"),
        ("changeme", "HS256", "a secret for HS256 has at least 32 bytes"),
        (RANDOM[:31], "HS256", "a secret for HS256 has at least 32 bytes"),
        (RANDOM, "HS384", "a secret for HS384 has at least 48 bytes"),
        (RANDOM, "HS256, HS512", "a secret for HS256 has at least 64 bytes"),
        ("changeme" * 4, "HS256", "this secret can be guessed"),
        ("'!ChangeThisMercureHubJWTSecretKey!'", "HS256", "this secret can be guessed"),
        ("your-256-bit-secret-your-256-bit-secret", "HS256", "this secret can be guessed"),
        ("a-string-secret-at-least-256-bits-long", "HS256", "this secret can be guessed"),
        ("'12345678901234567890123456789012'", "HS256", "this secret can be guessed"),
        ("a" * 40, "HS256", "this secret can be guessed"),
        ("ab12" * 10, "HS256", "this secret can be guessed"),
        ("'0110100110010110100101100110100110010110'", "HS256", "this secret can be guessed"),
        (RANDOM[:20] * 2, "HS256", "this secret can be guessed"),
        ("My-Password-Is-Long-Enough-For-This", "HS256", "this secret can be guessed"),
        (json.dumps(pem(RSA)), "HS256", "this is a public key or a certificate, and HS256 takes a secret"),
        ("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQ", "HS256", "this is a public key or a certificate"),
        (RANDOM, "RS256", "this is no public key for RS256"),
        (json.dumps(pem(EC)), "RS256", "this is no public key for RS256"),
        (json.dumps(pem(RSA)), "ES256", "this is no public key for ES256"),
        (json.dumps(pem(EC)), "ES384", "this is no public key for ES384"),
        (
            json.dumps(pem(rsa.generate_private_key(65537, 1024))),
            "RS256",
            "the key has 1024 bits; RS256 takes one of at least 2048",
        ),
        ('"-----BEGIN PRIVATE KEY-----\\nx"', "RS256", "this is a private key"),
        ('"-----BEGIN CERTIFICATE-----\\nx"', "RS256", "this is a certificate"),
    ],
)
async def test_weak_key_stops_the_start(tmp_path: Path, key: str, algorithms: str, says: str) -> None:
    """A key that can be guessed, or is of another kind, is a mistake with its place; nothing starts."""
    config = (
        f"auth:\n  jwt:\n    algorithms: [{algorithms}]\n    key: {key}\n"
        "channels: {a: {plugin: echo, path: /a}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        async with make(tmp_path, config):
            pass
    (problem,) = caught.value.problems
    assert (problem.path, problem.line, problem.column) == ("auth.jwt.key", 5, 10)
    assert problem.message.startswith(says)
    plain = key.strip("'\"")
    assert not plain or plain not in problem.message


@fault(94)
@pytest.mark.parametrize(
    ("settings", "path", "says"),
    [
        ("{}", "auth.jwt", "it has either a key or a key_file"),
        (f"{{key: {RANDOM}, key_file: x}}", "auth.jwt", "it has either a key or a key_file"),
        ("{key_file: nowhere.pem}", "auth.jwt.key_file", "nowhere.pem: no such file or directory"),
        ("{key_file: .}", "auth.jwt.key_file", ".: is a directory"),
        (f"{{key: {RANDOM}, algorithms: [none]}}", "auth.jwt.algorithms[0]", "expected "),
        (f"{{key: {RANDOM}, algorithms: []}}", "auth.jwt.algorithms", "expected algorithms of one family"),
        (f"{{key: {RANDOM}, algorithms: [HS256, RS256]}}", "auth.jwt.algorithms", "expected algorithms of"),
        (f"{{key: {RANDOM}, leeway: 61s}}", "auth.jwt.leeway", "expected a duration of at most 1m"),
        (f"{{key: {RANDOM}, audience: ''}}", "auth.jwt.audience", ""),
        (f"{{key: {RANDOM}, secret: x}}", "auth.jwt.secret", "unknown key"),
        ("{key: 1234567890}", "auth.jwt.key", ""),
    ],
)
async def test_settings_that_would_let_others_in(
    tmp_path: Path, settings: str, path: str, says: str
) -> None:
    """What is wrong with the settings of tokens is told in its place, and nothing starts."""
    with pytest.raises(ConfigError) as caught:
        async with make(tmp_path, f"auth: {{jwt: {settings}}}\nchannels: {{}}\n"):
            pass
    (problem,) = caught.value.problems
    assert (problem.path, problem.line) == (path, 2)
    assert problem.message.startswith(says)
    assert RANDOM not in problem.message


# Topics without the right


@fault(95)
@pytest.mark.parametrize("topics", [["rooms/blue"], ["rooms/b*"], ["lobby", "rooms/blue"]])
async def test_claims_narrow_what_may_be_read(calm: Calm, topics: list[str]) -> None:
    """A token for some topics opens these, and no others."""
    async with calm(ROOMS) as serving:
        headers = bearer(token(subscribe=topics))
        for path, status in (("/rooms/blue", 200), ("/rooms/red", 403), ("/rooms/Blue", 403)):
            for more in (EVENTS, LINES):
                head, _ = await ask(serving.port, path, [*more, *headers], method="HEAD")
                assert head.status == status
            async with dial(serving.port, request(path, [*UPGRADE, *headers])) as wire:
                assert (await wire.head()).status == (101 if status == 200 else 403)


@fault(95)
@pytest.mark.parametrize(
    ("patterns", "topic", "covered"),
    [
        (None, "rooms/blue", True),
        ([], "rooms/blue", False),
        (["*"], "rooms/blue", True),
        (["rooms/*"], "rooms/blue", True),
        (["rooms/*"], "rooms/blue/deep", True),
        (["rooms/*"], "rooms", False),
        (["rooms/*"], "rooms2/blue", False),
        (["rooms"], "rooms/blue", False),
        (["rooms/blue"], "rooms/blue2", False),
        (["a", "rooms/bl*"], "rooms/blue", True),
    ],
)
def test_what_a_pattern_covers(patterns: list[str] | None, topic: str, covered: bool) -> None:
    """A topic is covered by its own name, or by a beginning of it with a star behind."""
    identity = auth.identity_of(claims_of(**({} if patterns is None else {"publish": patterns})), 0.0)
    assert identity.covers("publish", topic) is covered
    assert identity.covers("kick", topic) is covered
    assert identity.covers("subscribe", topic)


@fault(95)
async def test_each_message_without_the_right_is_refused(calm: Calm) -> None:
    """Who may read, and not publish, is told so for each message, and stays."""
    async with (
        calm(ROOMS) as serving,
        websocket(
            serving.port, "/rooms/blue", headers=[*V1, *bearer(token(publish=["rooms/red"]))]
        ) as wire,
    ):
        assert json.loads(await wire.text())["event"] == "realtime:welcome"
        for ref in (1, 2):
            await wire.send(text(f'{{"data":"hi","ref":{ref}}}'))
            error = json.loads(await wire.text())
            assert (error["event"], error["ref"], error["data"]["status"]) == ("realtime:error", ref, 403)
        await serving.server.bus.publish("rooms/blue", "news")
        assert json.loads(await wire.text())["data"] == "news"


RIGHTS = """
    from realtime import hookimpl

    muted = set()
    asked = []

    @hookimpl
    def authorize(identity, action, topic):
        asked.append((identity.name if identity else None, action, topic))
        if topic == "rooms/bug":
            raise LookupError("a bug of the plugin")
        if topic == "rooms/odd":
            return "yes"
        if topic == "rooms/closed" or (action == "publish" and identity and identity.name in muted):
            return False
"""


def rights(serving: Any) -> Any:
    """The module of the plugin above."""
    return serving.server.plugins.manager.get_plugin("plugin:rights")


@fault(95)
async def test_right_that_is_taken_away_is_gone_with_the_next_message(calm: Calm) -> None:
    """Each message is authorised, not only the connection: who is muted meanwhile is refused, and stays."""
    async with (
        calm(f"plugins: [rights]\n{ROOMS}", {"rights.py": RIGHTS}) as serving,
        websocket(serving.port, "/rooms/blue", headers=[*V1, *bearer(token())]) as wire,
    ):
        assert json.loads(await wire.text())["event"] == "realtime:welcome"
        for muted, event in ((False, "realtime:ack"), (True, "realtime:error"), (False, "realtime:ack")):
            getattr(rights(serving).muted, "add" if muted else "discard")("alice")
            await wire.send(text('{"data":"hi","ref":1}'))
            events = [json.loads(await wire.text())["event"] for _ in range(1 if muted else 2)]
            assert event in events
        assert rights(serving).asked[-4:] == [
            ("alice", "subscribe", "rooms/blue"),
            *[("alice", "publish", "rooms/blue")] * 3,
        ]


@fault(95)
@pytest.mark.parametrize("room", ["closed", "bug", "odd"])
async def test_plugin_denies(calm: Calm, caplog: pytest.LogCaptureFixture, room: str) -> None:
    """One False denies; so does a plugin that raises or answers nonsense, which is logged with its name."""
    async with calm(
        f"plugins: [rights]\n{ROOMS}", {"rights.py": RIGHTS}, noisy=["realtime.auth"]
    ) as serving:
        answers = await refused(serving.port, bearer(token()), f"/rooms/{room}")
        assert answers == [(403, None)] * len(WAYS)
        assert ("authorize of plugin 'rights' failed" in caplog.text) is (room != "closed")


@fault(95)
async def test_plugin_cannot_allow_what_the_config_does_not(calm: Calm) -> None:
    """A plugin only narrows: its True opens nothing that ``allow`` has closed."""
    yes = "from realtime import hookimpl\n\n@hookimpl\ndef authorize():\n    return True\n"
    async with calm(f"plugins: [yes_]\n{ROOMS}", {"yes_.py": yes}) as serving:
        assert (await post(serving.port, "/members", b"hi", bearer(token())))[0].status == 403
        assert (await post(serving.port, "/rooms/blue", b"hi", bearer(token())))[0].status == 202


# Guessing


@fault(96)
async def test_guesses_are_counted_by_address(calm: Calm, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many wrong tokens of one address the answer is 429, and when to come back."""
    monkeypatch.setattr(auth, "FAILURES", Rate(per_second=1, burst=5))
    async with calm(ROOMS) as serving:
        stands = serving.server.bus.now()  # or a guess may be allowed again meanwhile
        monkeypatch.setattr(serving.server.bus, "now", lambda: stands)
        guesses = [
            (await ask(serving.port, "/lobby", [*EVENTS, *bearer(token(key=f"guess {number}"))]))[0]
            for number in range(20)
        ]
        assert [guess.status for guess in guesses[:5]] == [401] * 5
        assert {guess.status for guess in guesses[-5:]} == {429}
        assert int(guesses[-1].headers["retry-after"]) >= 1
        # What is right, and what brings nothing, still comes in: behind one address there may be an office.
        for headers in (bearer(token()), ()):
            head, _ = await ask(serving.port, "/lobby", [*EVENTS, *headers], method="HEAD")
            assert head.status == 200


@fault(96)
async def test_guesses_of_one_address_are_not_anothers(calm: Calm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another address begins anew; who claims to be one without being believed does not."""
    monkeypatch.setattr(auth, "FAILURES", Rate(per_second=1, burst=1))
    wrong = [*EVENTS, *bearer("a.b.c")]
    server = 'server: {listen: ["127.0.0.1:0"], trusted_proxies: [127.0.0.1]}\n'
    for prefix, status in ((server, 401), ("", 429)):
        async with calm(prefix + ROOMS) as serving:
            stands = serving.server.bus.now()
            monkeypatch.setattr(serving.server.bus, "now", lambda stands=stands: stands)
            got = [
                (await ask(serving.port, "/lobby", [*wrong, ("X-Forwarded-For", f"203.0.113.{number}")]))[0]
                for number in range(4)
            ]
            assert got[-1].status == status


@fault(96)
async def test_guesses_take_bounded_memory(calm: Calm, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many addresses are remembered, however many guess."""
    from realtime import buckets as module

    monkeypatch.setattr(module, "MAX_BUCKETS", 10)
    buckets = module.Buckets(auth.FAILURES)
    for number in range(1000):
        buckets.take(f"203.0.113.{number}", 0.0)
    assert len(buckets) == 10


@fault(96)
async def test_secrets_are_compared_in_constant_time(calm: Calm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signatures and keys are compared by what takes the same time wherever they differ."""
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def watched(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    keys = f"plugins: [{{plugin: api_keys, keys: {{a: {{key: {RANDOM}}}, b: {{key: {RANDOM[::-1]}}}}}}}]\n"
    async with calm(keys + ROOMS) as serving:
        await ask(serving.port, "/lobby", [*EVENTS, *bearer(token(key="guess"))])
        assert len(compared) == 1
        await ask(serving.port, "/lobby", [*EVENTS, ("X-API-Key", "guess")])
        assert [known for known, _ in compared[1:]] == [RANDOM.encode(), RANDOM[::-1].encode()]


@fault(96)
async def test_who_is_unknown_and_who_is_wrong_are_answered_alike(calm: Calm) -> None:
    """From the answer to a guess nobody learns who exists."""
    async with calm(ROOMS) as serving:
        answers = {
            (await ask(serving.port, "/lobby", [*EVENTS, *bearer(token(key="guess", sub=name))]))[1]
            for name in ("alice", "nobody", "root")
        }
        assert answers == {"the token is not valid: its signature is wrong\n"}


# The host's own pages


@fault(100)
async def test_own_pages_tell_strangers_of_nobody(calm: Calm) -> None:
    """What the host serves under ``/-/`` to anybody tells of the server, and not of its clients."""
    far: Headers = [("Via", "1.1 somebody")]
    async with (
        calm(ROOMS) as serving,
        websocket(serving.port, "/members", headers=bearer(token(sub="alice"))),
    ):
        await eventually(lambda: bool(serving.server.channels["members"].clients))
        own = [route.definition for route in serving.server.routes if route.owner == "server"]
        for path in (one.path for one in own if one.method == "GET"):
            head, body = await soon(ask(serving.port, path, far))
            assert head.status in (200, 401, 403) or (head.status, "{" in path) == (404, True)
            assert "alice" not in body
            assert head.status != 200 or '"clients"' not in body
        for path in (
            "/-/stats",
            "/-/metrics",
            "/-/dashboard",
            "/-/",
            "/-/admin",
            "/-/debug",
        ):
            assert (await ask(serving.port, path, far))[0].status in (401, 403, 404)
