"""HTTP and the handshake, said wrongly in every way: rows 1 to 24."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
from contextlib import AsyncExitStack, suppress

import pytest
import wire
from conftest import Serving
from timing import within
from wire import KEY, UPGRADE, Headers, dial, request, without

from faults.catalogue import fault
from faults.conftest import Calm
from realtime import door
from realtime.transports import post

#: How many say nothing; as many as are tried at review take descriptors that not every machine has.
SILENT = int(os.environ.get("REALTIME_TEST_SILENT", "400"))
#: How long aiohttp reads on after an answer, so that it is seen, in seconds.
LINGERING = 10.0
CHANNELS = """
    echo: {plugin: echo, path: /ws}
    wall: {plugin: wall, path: /wall}
    rooms: {plugin: wall, path: "/rooms/{room}"}
    rest: {plugin: wall, path: "/rest/{name...}"}
    clock: {plugin: clock, path: /clock}
"""
FILES = {
    "wall.py": '''
        import asyncio
        from realtime import Channel, hookimpl

        class Wall(Channel):
            """Keeps what is said."""

            def __init__(self, *given):
                super().__init__(*given)
                self.go, self.heard = asyncio.Event(), []

            async def on_message(self, client, message):
                self.heard.append(message.data)
                if "slowly" in client.query:
                    await self.go.wait()
                return await self.publish(client.topic, message.data)

        @hookimpl
        def register_channels():
            return {"wall": Wall}
    '''
}
#: A request behind another in the same packet; the wall hears of it if it is run.
SMUGGLED = b"POST /wall HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nsmuggled"


def get(target: bytes = b"/-/live", *headers: bytes, http: bytes = b"HTTP/1.1") -> bytes:
    """A GET, its Host and more headers."""
    return b"\r\n".join([b"GET %s %s" % (target, http), b"Host: localhost", *headers, b"", b""])


def wall(*headers: bytes, body: bytes = b"hi", http: bytes = b"HTTP/1.1") -> bytes:
    """A POST to the wall, as long as its headers say."""
    return b"\r\n".join([b"POST /wall %s" % http, b"Host: localhost", *headers, b"", body])


async def refused(serving: Serving, sent: bytes, *statuses: int) -> None:
    """Such bytes are answered with one of these, and nothing that follows them is read."""
    async with dial(serving.port) as client:
        await tell(client, sent + SMUGGLED)
        head = await client.head()
        rest = await client.rest()
        assert head.status in statuses, (sent[:200], head, rest)
        assert b"HTTP/1." not in rest, (sent[:200], "a second answer")
        assert head.headers.get("connection", "close") == "close", sent[:200]
        assert "server" not in head.headers
        assert heard(serving) == [], sent[:200]


def heard(serving: Serving) -> list[str]:
    """What the wall was told."""
    told: list[str] = serving.server.channels["wall"].heard  # type: ignore[attr-defined]
    return told


async def tell(client: wire.Wire, data: bytes) -> None:
    """Send, to somebody who may hang up before he has heard it all."""
    with suppress(ConnectionError):
        await client.send(data)


HOST: list[bytes] = [
    b"",
    b"Host: localhost\r\nHost: localhost\r\n",
    b"Host: localhost\r\nhost: other\r\n",
    b"Host: a b\r\n",
    b"Host: user@localhost\r\n",
    b"Host: user:password@localhost\r\n",
    b"Host: localhost, other\r\n",
    b"Host: localhost/path\r\n",
    b"Host: localhost:x\r\n",
    b"Host: localhost:123456\r\n",
    b"Host: \xc3\xbc.example\r\n",
    b"Host: \xff\r\n",
    b"Host: [::1\r\n",
    b"Host:\r\n",
]


@fault(1)
async def test_host(calm: Calm) -> None:
    """A request has one Host, a name or an address and perhaps a port."""
    async with calm(CHANNELS, FILES) as serving:
        for hosts in HOST:
            await refused(serving, b"GET /-/live HTTP/1.1\r\n" + hosts + b"\r\n", 400)


CONTENT_LENGTH: list[list[bytes]] = [
    [b"Content-Length: 2", b"Transfer-Encoding: chunked"],
    [b"Transfer-Encoding: chunked", b"Content-Length: 2"],
    [b"Content-Length: 2", b"Content-Length: 2"],
    [b"Content-Length: 2", b"Content-Length: 3"],
    [b"Content-Length: 2, 2"],
    [b"Content-Length: +2"],
    [b"Content-Length: -1"],
    [b"Content-Length: 1_0"],
    [b"Content-Length: 0x2"],
    [b"Content-Length: 2.0"],
    [b"Content-Length: 99999999999999999999"],
    [b"Content-Length:"],
    [b"Content-Length: \xc2\xb2"],
]


@fault(2)
async def test_content_length(calm: Calm) -> None:
    """Where the length of a body is in doubt nothing of it is read, nor what follows."""
    async with calm(CHANNELS, FILES) as serving:
        for headers in CONTENT_LENGTH:
            await refused(serving, wall(*headers), 400)


TRANSFER_ENCODING: list[tuple[bytes, bytes]] = [
    (b"chunked, gzip", b"2\r\nhi\r\n0\r\n\r\n"),
    (b"gzip, chunked", b"2\r\nhi\r\n0\r\n\r\n"),
    (b"chunked, chunked", b"2\r\nhi\r\n0\r\n\r\n"),
    (b"xchunked", b"2\r\nhi\r\n0\r\n\r\n"),
    (b"identity", b"hi"),
    (b"\x0bchunked", b"2\r\nhi\r\n0\r\n\r\n"),
    (b"chunked", b"0x2\r\nhi\r\n0\r\n\r\n"),
    (b"chunked", b"-2\r\nhi\r\n0\r\n\r\n"),
    (b"chunked", b"2 \r\nhi\r\n0\r\n\r\n"),
    (b"chunked", b"11111111111111111\r\nhi\r\n0\r\n\r\n"),
    (b"chunked", b"2;a\nb\r\nhi\r\n0\r\n\r\n"),
    (b"chunked", b"2\nhi\n0\n\n"),
    (b"chunked", b"2\r\nhiXX0\r\n\r\n"),
    (b"chunked", b"2\r\nhi0\r\n\r\n"),
    (b"chunked", b"\r\n0\r\n\r\n"),
    (b"chunked", b"0\r\nX : y\r\n\r\n"),
]


@fault(3)
async def test_transfer_encoding(calm: Calm) -> None:
    """A body is chunked as it ought to be, or not at all."""
    async with calm(CHANNELS, FILES) as serving:
        for coding, body in TRANSFER_ENCODING:
            await refused(serving, wall(b"Transfer-Encoding: " + coding, body=body), 400)


@fault(3)
async def test_transfer_encoding_over_http_1_0(calm: Calm) -> None:
    """HTTP/1.0 knows no chunks, so nobody can say where such a body ends (RFC 9112, section 6.1)."""
    sent = wall(b"Transfer-Encoding: chunked", body=b"2\r\nhi\r\n0\r\n\r\n", http=b"HTTP/1.0")
    async with calm(CHANNELS, FILES) as serving:
        assert (await answer(serving, sent)).status == 400
        assert heard(serving) == []


LINES: list[bytes] = [
    b"GET /-/live HTTP/1.1\nHost: localhost\n\n",
    b"GET /-/live HTTP/1.1\r\nHost: localhost\n\r\n",
    b"GET /-/live HTTP/1.1\rHost: localhost\r\r",
    get(b"/-/live", b"X: a\rb"),
    get(b"/-/live", b"X: a\nb"),
    get(b"/-/live", b"X: a\0b"),
    get(b"/-/live", b"X\0: a"),
    get(b"/-/live", b"X: a\x01b"),
    get(b"/-/live", b"X: a", b" folded"),
    get(b"/-/live", b"X: a", b"\tfolded"),
    get(b"/-/live", b" X: a"),
    get(b"/-/live", b"X : a"),
    get(b"/-/live", b"X\t: a"),
    get(b"/-/live", b": a"),
    get(b"/-/live", b"X"),
    get(b"/-/live", b"X(y): a"),
    get(b"/-/live", b"\xc3\xbc: a"),
    b"GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n",
]


@fault(4)
async def test_lines(calm: Calm) -> None:
    """Lines end in CR LF, and a header is a name, a colon and a value on one of them."""
    async with calm(CHANNELS, FILES) as serving:
        for sent in LINES:
            await refused(serving, sent, 400)


TOO_LONG: list[tuple[bytes, list[int]]] = [
    (get(b"/" + b"x" * 9000), [414]),
    (get(b"/-/live?" + b"x" * 9000), [414]),
    (b"GET /" + b"x" * 100_000, [414]),
    (get(b"/-/live", b"X: " + b"x" * 9000), [431]),
    (get(b"/-/live", b"x" * 9000 + b": x"), [431]),
    (get(b"/-/live", b"X: /" + b"x" * 100_000), [431]),
    (get(b"/-/live", b"Cookie: " + b"x" * 9000), [431]),
    (get(b"/-/live", *[b"X: y"] * 129), [431]),
    (get(b"/-/live", *[b"X-%d: y" % n for n in range(5000)]), [431]),
    (b"A" * 40 + b" /-/live HTTP/1.1\r\nHost: localhost\r\n\r\n", [400, 501]),
    (b"BREW /-/live HTTP/1.1\r\nHost: localhost\r\n\r\n", [400, 501]),
    (b"get /-/live HTTP/1.1\r\nHost: localhost\r\n\r\n", [400, 501]),
    (b"A" * 100_000, [400, 501]),
]


@fault(5)
async def test_too_long(calm: Calm) -> None:
    """What is too long, or too much, is told by its own status."""
    async with calm(CHANNELS, FILES) as serving:
        for sent, statuses in TOO_LONG:
            await refused(serving, sent, *statuses)


@fault(5)
async def test_not_too_long(calm: Calm) -> None:
    """What is just not too long is answered."""
    async with calm(CHANNELS, FILES) as serving:
        for sent in [
            get(b"/-/live?" + b"x" * 8100),
            get(b"/-/live", b"X: " + b"x" * 8100, *[b"X: y"] * 100),
        ]:
            async with dial(serving.port, sent) as client:
                assert (await client.head()).status == 200


OTHER_PROTOCOLS: list[tuple[bytes, list[int]]] = [
    (b"GET /-/live\r\n\r\n", [400, 505]),
    (get(http=b"HTTP/0.9"), [400, 505]),
    (get(http=b"HTTP/1.2"), [400, 505]),
    (get(http=b"HTTP/2.0"), [400, 505]),
    (get(http=b"HTTP/3.0"), [400, 505]),
    (get(http=b"HTTP/9.9"), [400, 505]),
    (get(http=b"HTTP/11"), [400, 505]),
    (get(http=b"HTTP/1.1x"), [400, 505]),
    (get(http=b"HTTP/01.1"), [400, 505]),
    (get(http=b"http/1.1"), [400, 505]),
    (get(http=b"HTCPCP/1.0"), [400, 505]),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400, 505]),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(501), [400]),
    (bytes(1_000_000), [400]),
    (b" " * 1_000_000, [400]),
    (b"\x80" + os.urandom(1_000_000), [400]),
]


@fault(6)
async def test_other_protocols(calm: Calm, caplog: pytest.LogCaptureFixture) -> None:
    """What is not HTTP/1.1 or 1.0 is refused within a second, and the log has a line of it at most."""
    with caplog.at_level(logging.DEBUG, "realtime"):
        async with calm(CHANNELS, FILES) as serving:
            for sent, statuses in OTHER_PROTOCOLS:
                caplog.clear()
                async with within(1.0), dial(serving.port) as client:
                    await tell(client, sent)
                    said = await client.rest()
                assert len(caplog.records) <= 1, sent[:100]
                # What is cut with more to read may lose its answer; then there is none.
                assert not said or int(said.split()[1]) in statuses, (sent[:100], said)
                assert not said or said.startswith((b"HTTP/1.0 ", b"HTTP/1.1 ")), (sent[:100], said)


@fault(6)
async def test_log_of_what_is_no_request(calm: Calm, caplog: pytest.LogCaptureFixture) -> None:
    """At the level that is set by default the log has nothing of it: anybody could fill it."""
    with caplog.at_level(logging.INFO):
        async with calm(CHANNELS, FILES) as serving:
            caplog.clear()
            for sent, _ in OTHER_PROTOCOLS:
                async with dial(serving.port) as client:
                    await tell(client, sent)
                    await client.rest()
            assert caplog.records == []


# The handshake


async def answer(serving: Serving, sent: bytes) -> wire.Head:
    """The head of the answer to such bytes."""
    async with dial(serving.port, sent) as client:
        return await client.head()


@fault(7)
async def test_method_of_a_handshake(calm: Calm) -> None:
    """A WebSocket begins with GET; any other method is told so."""
    async with calm(CHANNELS, FILES) as serving:
        for path in ["/ws", "/wall"]:
            for method in ["POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH"]:
                head = await answer(serving, request(path, UPGRADE, method=method))
                assert head.status == 405
                assert "GET" in head.headers["allow"].split(",")
                assert head.headers["connection"] == "close"


@fault(8)
async def test_handshake_over_http_1_0(calm: Calm) -> None:
    """A WebSocket begins with HTTP/1.1."""
    async with calm(CHANNELS, FILES) as serving:
        assert (await answer(serving, request("/ws", UPGRADE, http="1.0"))).status == 400


KEYS: list[list[str]] = [
    [],
    [""],
    ["c2hvcnQ="],
    [KEY + "AAAA"],
    [KEY[:-2]],
    ["!" * 22 + "=="],
    ["ü" * 22 + "=="],
    [KEY, KEY],
    [f"{KEY}, {KEY}"],
    [KEY.replace("=", "%3d")],
    ["A" * 8000],
]


@fault(9)
async def test_key(calm: Calm) -> None:
    """A handshake has one key, which is 16 bytes in base64."""
    async with calm(CHANNELS, FILES) as serving:
        for keys in KEYS:
            headers = [
                *without(UPGRADE, "Sec-WebSocket-Key"),
                *(("Sec-WebSocket-Key", key) for key in keys),
            ]
            assert (await answer(serving, request("/ws", headers))).status == 400


@fault(9)
async def test_key_of_bytes(calm: Calm) -> None:
    """One that is not even UTF-8 is no key either."""
    async with calm(CHANNELS, FILES) as serving:
        assert (
            await answer(serving, request("/ws", UPGRADE).replace(KEY.encode(), b"\xff" * 24))
        ).status == 400


@fault(10)
async def test_version(calm: Calm) -> None:
    """Another version than 13 is told which there is (RFC 6455, section 4.4)."""
    async with calm(CHANNELS, FILES) as serving:
        for versions in [[], ["0"], ["7"], ["8"], ["12"], ["14"], ["13", "13"], ["13, 8"], ["x"]]:
            headers = [*without(UPGRADE, "Sec-WebSocket-Version")]
            headers += [("Sec-WebSocket-Version", version) for version in versions]
            head = await answer(serving, request("/ws", headers))
            assert (head.status, head.headers["sec-websocket-version"]) == (426, "13")


SPELLING_OF_A_HANDSHAKE: list[tuple[str, str]] = [
    ("keep-alive, Upgrade", "websocket"),
    ("Upgrade", "WebSocket"),
    ("uPgRaDe", "wEbSoCkEt"),
    ("close,upgrade,,", "WEBSOCKET"),
    ("Upgrade", "foo, websocket"),
]


@fault(11)
async def test_spelling_of_a_handshake(calm: Calm) -> None:
    """Tokens are compared whatever their case, and among others."""
    async with calm(CHANNELS, FILES) as serving:
        for connection, upgrade in SPELLING_OF_A_HANDSHAKE:
            headers = [("Upgrade", upgrade), ("Connection", connection), *UPGRADE[2:]]
            head = await answer(serving, request("/ws", headers))
            assert (head.status, head.headers["sec-websocket-accept"]) == (101, wire.ACCEPT)


@fault(12)
@pytest.mark.parametrize("accept", ["*/*", "text/event-stream", "application/json"])
async def test_plain_get(calm: Calm, accept: str) -> None:
    """Whoever asks for something else where there are only WebSockets is told what to do."""
    async with calm(CHANNELS, FILES) as serving:
        head, text = await wire.ask(serving.port, "/ws", [("Accept", accept)])
    assert (head.status, head.headers["upgrade"]) == (426, "websocket")
    assert len(text) < 200


SUBPROTOCOLS: list[tuple[str, str | None]] = [
    ("other", None),
    (",,,", None),
    (" , ,\t,", None),
    (",".join(f"p{n}" for n in range(1000)), None),
    ("," * 8000, None),
    (",".join(["x", "realtime.v1.json", "y"]), "realtime.v1.json"),
    ("REALTIME.V1.JSON", None),
    ("realtime.v1.jsonx", None),
]


@fault(13)
async def test_subprotocols(calm: Calm) -> None:
    """One that is known is taken, none that was not offered is named, and it is quick."""
    async with calm(CHANNELS, FILES) as serving:
        for offered, chosen in SUBPROTOCOLS:
            offer = ("Sec-WebSocket-Protocol", offered)
            async with within(1.0):
                head = await answer(serving, request("/ws", [*UPGRADE, offer]))
            assert (head.status, head.headers.get("sec-websocket-protocol")) == (101, chosen)


EXTENSIONS = [
    "x-webkit-deflate-frame",
    ";;;,=,",
    ", ".join(["permessage-deflate; server_max_window_bits=7"] * 120),
    ", ".join(f"ext-{n}" for n in range(250)),
    "permessage-deflate; server_max_window_bits=8",
    "permessage-deflate; server_max_window_bits=99",
    "permessage-deflate; server_max_window_bits",
    "permessage-deflate; client_max_window_bits=x",
    "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    "permessage-deflate; unknown=1",
    'permessage-deflate; client_max_window_bits="15',
    "permessage-deflate" + ";" * 8000,
]


@fault(14)
@pytest.mark.parametrize("compress", ["true", "false"])
async def test_extensions(calm: Calm, compress: str) -> None:
    """What is garbage is refused or ignored, and nothing is agreed to that was not offered."""
    async with calm(f"echo: {{plugin: echo, path: /ws, compress: {compress}}}") as serving:
        for offered in EXTENSIONS:
            sent = request("/ws", [*UPGRADE, ("Sec-WebSocket-Extensions", offered)])
            async with within(2.0):
                head = await answer(serving, sent)
            assert head.status in (101, 400), offered
            agreed = head.headers.get("sec-websocket-extensions", "")
            assert not agreed or (compress == "true" and agreed.startswith("permessage-deflate;"))
            assert "window_bits=99" not in agreed


BEHIND_A_HANDSHAKE: list[bytes] = [
    request("/ws", [*UPGRADE, ("Content-Length", "5")]) + b"hello" + SMUGGLED,
    request("/ws", [*UPGRADE, ("Content-Length", str(len(SMUGGLED)))]) + SMUGGLED,
    request("/ws", without(UPGRADE, "Sec-WebSocket-Key")) + SMUGGLED,
    request("/nowhere", UPGRADE) + SMUGGLED,
    request("/-/live", UPGRADE) + SMUGGLED,
    request("/wall", UPGRADE, method="POST") + SMUGGLED,
    request("/ws", [*UPGRADE, ("Transfer-Encoding", "chunked")]) + b"0\r\n\r\n" + SMUGGLED,
]


@fault(15)
async def test_behind_a_handshake(calm: Calm) -> None:
    """What follows a handshake, taken or refused, is never run as a request."""
    async with calm(CHANNELS, FILES) as serving:
        for sent in BEHIND_A_HANDSHAKE:
            async with dial(serving.port, sent) as client:
                await client.head()
                await tell(client, wire.close(1000))
                assert b"HTTP/1.1 " not in await client.rest(), sent
                assert heard(serving) == [], sent


@fault(16)
async def test_frames_glued_to_the_handshake(calm: Calm) -> None:
    """Frames that come in one packet with the handshake are heard."""
    sent = request("/ws", UPGRADE) + wire.text("a") + wire.text("b")
    async with calm(CHANNELS, FILES) as serving, dial(serving.port, sent) as client:
        assert (await client.head()).status == 101
        assert [await client.text(), await client.text()] == ["Echo: a", "Echo: b"]


@fault(17)
async def test_handshake_elsewhere(calm: Calm) -> None:
    """A handshake on no channel's path is answered as any request there."""
    async with calm(CHANNELS, FILES) as serving:
        for path, status in [
            ("/nowhere", 404),
            ("/ws/", 404),
            ("/ws/x", 404),
            ("/-/nothing", 404),
            ("/-/live", 200),
        ]:
            assert (await answer(serving, request(path, UPGRADE))).status == status


TARGETS: list[tuple[bytes, list[int]]] = [
    (b"GET http://evil.example/-/live", [400]),
    (b"GET http://localhost:81/-/live", [400]),
    (b"GET http://localhost@evil.example/-/live", [400]),
    (b"GET http://evil.example?/-/live", [400]),
    (b"GET http://a:99999/-/live", [400]),
    (b"GET http://[::1/-/live", [400]),
    (b"GET http:///-/live", [400]),
    (b"GET file:///etc/passwd", [400]),
    (b"GET *", [400, 404]),
    (b"OPTIONS *", [200, 404]),
    (b"CONNECT evil.example:443", [400, 404, 405]),
    (b"CONNECT /-/live", [400, 404, 405]),
    (b"GET evil.example:443", [400]),
    (b"GET -/live", [400]),
    (b"GET ?x", [400]),
    (b"GET /%zz", [400, 404]),
    (b"GET /rooms/%zz", [400]),
    (b"GET /%ff", [400, 404]),
    (b"GET /rooms/%ff", [400]),
    (b"GET /\xff", [400]),
    (b"GET /rooms/%00", [400]),
    (b"GET /\0", [400]),
    (b"GET /rooms/%2e%2e", [400]),
    (b"GET /rooms/a%2fb", [400, 404]),
    (b"GET /rest/../-/live", [400]),
    (b"GET /rest/%2e%2e/-/live", [400]),
    (b"GET /-/live#fragment", [400]),
    (b"GET /ws#/-/live", [400]),
    (b"GET //-/live", [404]),
    (b"GET //evil.example/-/live", [404]),
    (b"GET //[", [400, 404]),
    (b"GET /%2d/live/x", [404]),
    (b"GET /./-/live", [404]),
    (b"GET /rest/" + b"%C3" * 2000, [400]),
]


@fault(18)
async def test_targets(calm: Calm) -> None:
    """A target that is none, or of another host, is refused, and none leads round a route."""
    async with calm(CHANNELS, FILES) as serving:
        for line, statuses in TARGETS:
            head = await answer(
                serving, line + b" HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n"
            )
            assert head.status in statuses, (line, head)


@fault(18)
async def test_absolute_target(calm: Calm) -> None:
    """A target that names the host again is answered (RFC 9112, section 3.2.2)."""
    async with calm(CHANNELS, FILES) as serving:
        assert (await answer(serving, get(b"http://LOCALHOST/-/live"))).status == 200


@fault(19)
async def test_expect_continue(calm: Calm) -> None:
    """Whoever waits for leave to send the body gets it."""
    async with calm(CHANNELS, FILES) as serving:
        sent = wall(b"Content-Length: 2", b"Expect: 100-Continue", body=b"")
        async with dial(serving.port, sent) as client:
            assert (await client.head()).status == 100
            await client.send(b"hi")
            assert (await client.head()).status == 202


@fault(19)
async def test_expect_otherwise(calm: Calm) -> None:
    """Another expectation is not met."""
    async with calm(CHANNELS, FILES) as serving:
        for expected in [b"tea", b"100-continue, tea", b"200-ok"]:
            assert (await answer(serving, wall(b"Content-Length: 2", b"Expect: " + expected))).status == 417


@fault(20)
async def test_h2c(calm: Calm) -> None:
    """An offer to go on in HTTP/2 is not taken, and the request answered."""
    async with calm(CHANNELS, FILES) as serving:
        for path in ["/-/live", "/wall"]:
            headers = [
                ("Connection", "Upgrade, HTTP2-Settings"),
                ("Upgrade", "h2c"),
                ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
                ("Accept", "application/json"),
            ]
            head = await answer(serving, request(path, headers))
            assert (head.status, "upgrade" in head.headers) == (200, False)


@fault(21)
async def test_extended_connect(calm: Calm) -> None:
    """The handshake of HTTP/2 (RFC 8441), said in HTTP/1.1, is no handshake."""
    sent = b"CONNECT /ws HTTP/1.1\r\nHost: localhost\r\n:protocol: websocket\r\n\r\n"
    async with calm(CHANNELS, FILES) as serving:
        assert (await answer(serving, sent)).status == 400


# Many at once


@fault(22)
async def test_pipelined(calm: Calm) -> None:
    """Two hundred requests in one packet are answered, in their order."""
    posts = b"".join(wire.posting("/wall", b"%d" % n) for n in range(200))
    async with calm(CHANNELS, FILES) as serving, dial(serving.port, posts) as client:
        places = [json.loads((await client.response())[1])["id"] for _ in range(200)]
    assert [int(place.partition("-")[2]) for place in places] == list(range(1, 201))


@fault(22)
async def test_pipelined_behind_a_slow_one(calm: Calm) -> None:
    """Of ten thousand behind one that is not done most stay with who sent them, and cost no memory."""
    one = get(b"/-/live", b"X: " + b"x" * 8000)
    async with calm(CHANNELS, FILES) as serving, dial(serving.port) as client:
        await client.send(wire.posting("/wall?slowly=1", b"hi"))
        assert await wire.flood(client, one) < 10_000 * len(one) / 4
        serving.server.channels["wall"].go.set()  # type: ignore[attr-defined]
        assert [(await client.response())[0].status for _ in range(50)] == [202] + [200] * 49


@fault(23)
async def test_made_up_address(calm: Calm, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is believed about where he comes from whom the config does not trust."""
    names = ("X-Forwarded-For", "X-Real-IP", "Forwarded", "Client-IP", "True-Client-IP")
    headers = [(name, "for=6.6.6.6" if name == "Forwarded" else "6.6.6.6") for name in names]
    with caplog.at_level(logging.INFO, "realtime"):
        async with (
            calm(CHANNELS, FILES) as serving,
            wire.websocket(serving.port, "/ws", headers=headers) as client,
        ):
            await client.send(wire.close(1000))
            await client.rest()
            await wire.eventually(lambda: any("from 127.0.0.1" in text for text in caplog.messages))
    assert "6.6.6.6" not in caplog.text


HEADER_INJECTION: list[tuple[str, Headers]] = [
    ("/rooms/a%0d%0aX-Evil:%20yes", ()),
    ("/rest/%0d%0aX-Evil:%20yes", ()),
    ("/nowhere/%0d%0aX-Evil:%20yes", ()),
    ("/wall?since=%0d%0aX-Evil:%20yes", ()),
    ("/wall?event=%0d%0aX-Evil:%20yes", ()),
    ("/wall?name=%0d%0aX-Evil:%20yes", ()),
    ("/wall", [("Last-Event-ID", "%0d%0aX-Evil: yes")]),
    ("/wall", [("Idempotency-Key", "%0d%0aX-Evil: yes")]),
    ("/wall", [("Origin", "http://localhost%0d%0aX-Evil: yes")]),
    ("/wall", [("X-Request-ID", "\u560d\u560aX-Evil: yes")]),
    ("/ws", [*UPGRADE, ("Sec-WebSocket-Protocol", "%0d%0aX-Evil: yes")]),
]


@fault(24)
async def test_header_injection(calm: Calm) -> None:
    """Line breaks in what is said make no header of the answer, and no bug."""
    async with calm(CHANNELS, FILES) as serving:
        for method in ["GET", "POST", "HEAD", "DELETE"]:
            for path, headers in HEADER_INJECTION:
                head = await answer(
                    serving, request(path, [("Accept", "application/json"), *headers], method=method)
                )
                assert (head.status < 500, "x-evil" in head.headers) == (True, False), path


# Stalls: rows 49, 51, 53 and 55; row 54 is in ``test_tls``


@fault(49)
async def test_compressed_bodies(calm: Calm) -> None:
    """A body is sent as it is: what is compressed, once or twice, is not unpacked."""
    bomb = gzip.compress(bytes(10_000_000))
    async with calm(CHANNELS, FILES) as serving:
        for coding in (
            "gzip",
            "deflate",
            "br",
            "zstd",
            "gzip, gzip",
            "x-gzip",
            "identity, gzip",
            "GZIP",
            "",
        ):
            head, _ = await wire.post(serving.port, "/wall", bomb, [("Content-Encoding", coding)])
            assert (head.status, head.headers["connection"]) == (415, "close"), coding
        assert heard(serving) == []


@fault(51)
@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"", None),
        (b"GET /-/li", None),
        (b"\r\n\r\n", None),
        (b"GET /-/live HTTP/1.1\r\n", 408),
        (b"GET /-/live HTTP/1.1\r\nHost: localhost\r\nX: y", 408),
        (get(), 200),
    ],
)
async def test_half_a_head(
    calm: Calm, monkeypatch: pytest.MonkeyPatch, said: bytes, status: int | None
) -> None:
    """Who does not say a whole request is closed in time, and told so when the line has come."""
    monkeypatch.setattr(door, "HEAD_TIMEOUT", 0.2)
    async with calm(CHANNELS, FILES) as serving, dial(serving.port, said) as client:
        answered = await client.rest()
        assert answered.count(b"HTTP/1.1") == (status is not None)
        assert (int(answered.split()[1]) if answered else None) == status


@fault(51)
@pytest.mark.parametrize("before", [b"", get()], ids=["at once", "later"])
async def test_dripping_head(calm: Calm, monkeypatch: pytest.MonkeyPatch, before: bytes) -> None:
    """A byte now and then does not prolong it, neither in the first request nor in a later one."""
    monkeypatch.setattr(door, "HEAD_TIMEOUT", 0.3)
    async with calm(CHANNELS, FILES) as serving, dial(serving.port) as client:
        if before:
            await client.send(before)
            await client.response()
        await client.send(b"GET /-/live HTTP/1.1\r\nX: ")
        assert (await dripping(client, b"x")).status == 408


async def dripping(client: wire.Wire, drop: bytes) -> wire.Head:
    """The head of the answer to who says a little now and then, which must come within two seconds."""
    async with within(2.0):
        reading = asyncio.ensure_future(client.head())
        while not (await asyncio.wait([reading], timeout=0.02))[0]:
            await tell(client, drop)
        return reading.result()


@fault(51)
def test_time_for_a_head() -> None:
    """As it is shipped a head has ten seconds."""
    assert door.HEAD_TIMEOUT <= 10.0


@fault(53)
async def test_dripping_body(calm: Calm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not come in time is answered with 408, however it drips."""
    monkeypatch.setattr(post, "BODY_TIMEOUT", 0.3)
    async with calm(CHANNELS, FILES) as serving:
        for framing, drop in (
            (b"Content-Length: 1000", b"x"),
            (b"Transfer-Encoding: chunked", b"1\r\nx\r\n"),
        ):
            async with dial(serving.port, wall(framing, body=b"")) as client:
                head = await dripping(client, drop)
                assert (head.status, head.headers["connection"]) == (408, "close")
        assert heard(serving) == []


@fault(53)
def test_time_for_a_body() -> None:
    """As it is shipped the answer comes, and the connection goes, within half a minute."""
    assert post.BODY_TIMEOUT + LINGERING <= 30.0


@fault(55)
async def test_silent_crowd(
    calm: Calm, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However many say nothing, others connect within a second, and who waits longest makes room."""
    monkeypatch.setattr(door, "CROWDED_AFTER", 0.0)
    limited = f"""
        server: {{listen: ["127.0.0.1:0"], limits: {{max_waiting: {SILENT // 4}}}}}
        channels:
          echo: {{plugin: echo, path: /ws}}
    """
    async with calm(limited) as serving, AsyncExitStack() as crowd:
        client = await crowd.enter_async_context(wire.websocket(serving.port, "/ws"))
        silent = [await crowd.enter_async_context(dial(serving.port)) for _ in range(SILENT)]
        async with within(1.0), wire.websocket(serving.port, "/ws") as another:
            await another.send(wire.text("hi"))
            assert await another.text() == "Echo: hi"
        assert await silent[0].rest() == b""
        await silent[-1].send(get())
        assert (await silent[-1].head()).status == 200
        await client.send(wire.text("still here"))
        assert await client.text() == "Echo: still here"
        warned = [text for text in caplog.messages if "server.limits.max_waiting" in text]
        assert len(warned) == 1
