"""Origins, hosts, files and bodies: rows 86 to 89, 97 to 99."""

from __future__ import annotations

import json

import pytest
import wire
from conftest import Serving
from wire import EVENTS, LINES, UPGRADE, Headers, ask, dial, request

from faults.catalogue import fault
from faults.conftest import Calm

GOOD = "https://good.com"
#: The host by which the client asks that must notice nothing.
BYSTANDER = "localhost"
KINDS = {
    "kinds.py": '''
        from realtime import Channel, Identity, hookimpl

        class Both(Channel):
            """Says what is said."""

            async def on_message(self, client, message):
                return await self.publish(client.topic, message.data, event=message.event)

        @hookimpl
        def register_channels():
            return {"both": Both}

        @hookimpl
        def authenticate(request):
            if (name := request.cookies.get("session")) is not None:
                return Identity(name=name)
    '''
}


def config(**settings: str) -> str:
    """A config with settings of the server; a cookie opens the channel ``members``."""
    more = "".join(f", {key}: {value}" for key, value in settings.items())
    return f"""
        server: {{listen: ["127.0.0.1:0"]{more}}}
        plugins: [kinds]
        channels:
          echo: {{plugin: echo, path: /ws}}
          both: {{plugin: both, path: /both, history: 10}}
          members:
            plugin: both
            path: /members
            allow: {{subscribe: authenticated, publish: authenticated}}
    """


#: What asks for a channel, by a name for people.
WAYS: dict[str, tuple[str, Headers]] = {
    "websocket": ("GET", UPGRADE),
    "sse": ("GET", EVENTS),
    "ndjson": ("GET", LINES),
    "json": ("GET", [("Accept", "application/json")]),
    "post": ("POST", []),
    "kick": ("DELETE", []),
}


async def opens(
    serving: Serving,
    way: str,
    *headers: tuple[str, str],
    path: str = "/both",
    host: str = "good.com",
) -> wire.Head:
    """The head of the answer to one way of asking, with more headers."""
    method, asking = WAYS[way]
    sent = request(path, [*asking, *headers], method=method, host=host)
    async with dial(serving.port, sent) as client:
        return await client.head()


HOSTILE = [
    "http://evil",
    "HTTPS://EVIL.COM",
    "null",
    "",
    " ",
    "https://good.evil.com",
    "https://evilgood.com",
    "https://good.com.evil.com",
    "https://good.com:8443",
    "https://good.com.",
    "https://good.com@evil.com",
    "https://evil.com@good.com",
    "https://good@evil",
    "http://a:99999",
    "https://good.com:99999",
    "https://good.com:-1",
    "https://good.com/",
    "https://good.com#",
    "https://good.com\\evil.com",
    "https://good.com%2eevil.com",
    "https://good.com, https://good.com",
    "https://[::1",
    "https://[good.com]",
    "file://good.com",
    "javascript:alert(1)",
    "https://" + "x" * 8000,
    "https://gооd.com",  # noqa: RUF001  # its letters o are Cyrillic
]


@fault(86)
@pytest.mark.parametrize("allowed", ["same", f"[{GOOD}]", f"[same, '{GOOD}']", f"['https://*.{GOOD[8:]}']"])
async def test_foreign_page(calm: Calm, allowed: str) -> None:
    """A page of another origin is refused before the 101, however it is spelt."""
    async with calm(config(origins=allowed), KINDS) as serving:
        for origin in HOSTILE:
            for way in ("websocket", "sse", "post"):
                assert (await opens(serving, way, ("Origin", origin))).status == 403, (origin, way)


@fault(86)
async def test_two_origins(calm: Calm) -> None:
    """A page has one origin."""
    async with calm(config(), KINDS) as serving:
        for second in (GOOD, "https://evil.com"):
            two = [("Origin", GOOD), ("Origin", second)]
            assert (await opens(serving, "websocket", *two)).status == 403


@fault(86)
async def test_scheme_where_it_is_known(calm: Calm) -> None:
    """A page of the same host by another scheme is refused where the scheme is known."""
    listed = config(origins=f"[{GOOD}]")
    async with calm(listed, KINDS) as serving:
        assert (await opens(serving, "websocket", ("Origin", "http://good.com"))).status == 403


@fault(86)
async def test_page_of_the_same_host(calm: Calm) -> None:
    """By default a page of the same host and port may connect, and who is no page."""
    async with calm(config(), KINDS) as serving:
        for headers in ([("Origin", "https://good.com")], [("Origin", "HTTPS://Good.COM")], []):
            assert (await opens(serving, "websocket", *headers)).status == 101


WILD = [
    ("https://app.good.com", 101),
    ("https://APP.good.com", 101),
    ("https://app.good.com:443", 101),
    ("https://good.com", 403),
    ("https://a.b.good.com", 403),
    ("https://.good.com", 403),
    ("https://evilgood.com", 403),
    ("https://app.evilgood.com", 403),
    ("https://good.com.evil", 403),
    ("https://app.good.com.evil", 403),
    ("https://app.good.com.", 403),
    ("https://*.good.com", 403),
    ("https://evil/.good.com", 403),
    ("https://evil#.good.com", 403),
    ("https://evil@app.good.com", 403),
    ("http://app.good.com", 403),
    ("https://app.good.com:8443", 403),
    ("https://dev.other.com:8443", 101),
    ("https://dev.other.com", 403),
    ("https://[::1]", 403),
    ("null", 403),
]


@fault(87)
async def test_wildcard(calm: Calm) -> None:
    """A wildcard stands for one label, of the same scheme and port."""
    listed = "['https://*.good.com', 'https://*.other.com:8443']"
    async with calm(config(origins=listed), KINDS) as serving:
        for origin, status in WILD:
            assert (await opens(serving, "websocket", ("Origin", origin))).status == status, origin


@fault(87)
async def test_same_in_a_list(calm: Calm) -> None:
    """The word stands in a list for the server's own pages."""
    async with calm(config(origins="[same, 'https://*.app.com']"), KINDS) as serving:
        for origin, status in ((GOOD, 101), ("https://a.app.com", 101), ("https://evil.com", 403)):
            assert (await opens(serving, "websocket", ("Origin", origin))).status == status


# Cookies

COOKIE = ("Cookie", "session=alice")


@fault(88)
@pytest.mark.parametrize("allowed", ["same", f"[{GOOD}]"])
async def test_cookie_from_a_foreign_page(calm: Calm, allowed: str) -> None:
    """Whoever's cookie it brings, a foreign page is refused, and may read nothing."""
    async with calm(config(origins=allowed), KINDS) as serving:
        for way in WAYS:
            head = await opens(serving, way, ("Origin", "https://evil.com"), COOKIE, path="/members")
            assert (head.status, "access-control-allow-origin" in head.headers) == (403, False), way


@fault(88)
async def test_cookie_where_any_page_may_connect(calm: Calm) -> None:
    """Where any page may connect none may with a cookie that a browser sent along, nor read with one."""
    async with calm(config(origins="any"), KINDS) as serving:
        for way in WAYS:
            if way == "kick":
                continue  # from elsewhere nobody may
            for origin in ("https://evil.com", "null"):
                head = await opens(serving, way, ("Origin", origin), COOKIE, path="/members")
                assert head.status == 401, way
                assert head.headers["access-control-allow-origin"] == "*"
                assert "access-control-allow-credentials" not in head.headers


@fault(88)
@pytest.mark.parametrize("spelt", ["Cookie", "cookie", "COOKIE"])
async def test_cookie_however_its_header_is_spelt(calm: Calm, spelt: str) -> None:
    """The case of the header, more of them and bytes that are no text make no difference."""
    more = [("Origin", "https://evil.com"), (spelt, "a=b"), (spelt, "session=alice"), ("X", "\udcff")]
    sent = request("/members", [*EVENTS, *more[:-1]])[:-2] + b"X: \xff\r\n\r\n"
    async with calm(config(origins="any"), KINDS) as serving, dial(serving.port, sent) as client:
        assert (await client.head()).status == 401


@fault(88)
@pytest.mark.parametrize("allowed", ["any", "same", f"[{GOOD}]"])
async def test_cookie_from_our_own_page(calm: Calm, allowed: str) -> None:
    """Of the server's own pages, or those of the list, a cookie is believed."""
    async with calm(config(origins=allowed), KINDS) as serving:
        for way, status in (
            ("websocket", 101),
            ("sse", 200),
            ("ndjson", 200),
            ("json", 200),
            ("post", 202),
        ):
            head = await opens(serving, way, ("Origin", GOOD), COOKIE, path="/members")
            assert head.status == status, way


@fault(88)
async def test_cookie_without_an_origin(calm: Calm) -> None:
    """Without an origin a cookie is believed of who reads, as a page reads its own server, and of no other.

    A browser never leaves it out of a handshake, or of what another page has it POST.
    """
    async with calm(config(), KINDS) as serving:
        for way, status in (("websocket", 401), ("post", 401), ("sse", 200), ("json", 200)):
            assert (await opens(serving, way, COOKIE, path="/members")).status == status, way


# Hosts


@fault(89)
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("rt.example", 200),
        ("RT.example", 200),
        ("rt.example:8080", 200),
        ("dev.example:8443", 200),
        ("dev.example", 421),
        ("dev.example:443", 421),
        ("url.example", 200),
        ("evil.com", 421),
        ("127.0.0.1", 421),
        ("localhost.evil.com:8080", 421),
        ("rt.example.evil.com", 421),
        ("evilrt.example", 421),
        ("rt.example.", 421),
        ("[::1]", 421),
    ],
)
async def test_hosts(calm: Calm, host: str, status: int) -> None:
    """Where hosts are named, a request for another is misdirected: its name was made to point here."""
    named = config(hosts=f'[Rt.example, "dev.example:8443", {BYSTANDER}]', url="https://url.example")
    async with calm(named, KINDS) as serving:
        assert (await opens(serving, "json", host=host)).status == status


@fault(89)
async def test_host_of_everything(calm: Calm) -> None:
    """It is so for every way in, for files and for what is not there."""
    async with calm(config(hosts=f"[rt.example, {BYSTANDER}]"), KINDS) as serving:
        for way in WAYS:
            assert (await opens(serving, way, host="evil.com")).status == 421, way
        for path in ("/", "/-/realtime.js", "/nowhere"):
            assert (await opens(serving, "json", path=path, host="evil.com")).status == 421, path


@fault(89)
async def test_probes_know_no_names(calm: Calm) -> None:
    """Whoever looks after the server asks by its address."""
    async with calm(config(hosts=f"[rt.example, {BYSTANDER}]"), KINDS) as serving:
        for path in ("/-/live", "/-/ready"):
            assert (await opens(serving, "json", path=path, host="10.0.0.1")).status == 200


@fault(89)
async def test_no_hosts_named(calm: Calm) -> None:
    """Where none are named the server answers to any."""
    async with calm(config(), KINDS) as serving:
        assert (await opens(serving, "json", host="anything.example")).status == 200


# Files


@fault(97)
async def test_paths_out_of_the_files(calm: Calm) -> None:
    """The files are few and fixed: no path leads out of them, none lists them, and a long one is no bug."""
    paths = [
        "/-/",
        "/-",
        "/-/../config.yaml",
        "/-/..%2fconfig.yaml",
        "/-/%2e%2e/config.yaml",
        "/-/%2e%2e%2fconfig.yaml",
        "/-/..%5cconfig.yaml",
        "/-/..\\config.yaml",
        "/-//etc/passwd",
        "//etc/passwd",
        "/-/realtime.js/",
        "/-/realtime.js/..",
        "/-/realtime.js%00",
        "/-/realtime.js%00.txt",
        "/-/REALTIME.JS",
        "/-/.git/config",
        "/-/" + "x" * 5000,
        "/" + "x" * 5000,
    ]
    async with calm(config(), KINDS) as serving:
        for path in paths:
            assert (await ask(serving.port, path))[0].status in (400, 404, 414), path


@fault(97)
@pytest.mark.parametrize("ranges", ["bytes=0-99999999999999999999", "bytes=-1", "bytes=9-1", "x"])
async def test_ranges(calm: Calm, ranges: str) -> None:
    """Ranges are not served: a file is sent whole (RFC 9110, section 14.2)."""
    async with calm(config(), KINDS) as serving:
        assert (await ask(serving.port, "/-/realtime.js", [("Range", ranges)]))[0].status == 200


# Bodies


@fault(98)
async def test_body_of_the_limit(calm: Calm) -> None:
    """A body of the limit is taken, with a length and in chunks; none at all is an empty text."""
    async with calm(config(limits="{max_message: 1KiB}"), KINDS) as serving:
        assert (await wire.post(serving.port, "/both", b"x" * 1024))[0].status == 202
        chunked = request("/both", [("Transfer-Encoding", "chunked")], method="POST")
        chunked += b"400\r\n" + b"x" * 1024 + b"\r\n0\r\n\r\n"
        for sent in (chunked, request("/both", method="POST")):
            async with dial(serving.port, sent) as client:
                assert (await client.head()).status == 202


@fault(98)
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([("Content-Length", "1025")], b"x" * 1025),
        ([("Content-Length", "1025")], b""),
        ([("Content-Length", str(2**62))], b"x" * 5000),
        ([("Transfer-Encoding", "chunked")], b"401\r\n" + b"x" * 1025 + b"\r\n0\r\n\r\n"),
        ([("Transfer-Encoding", "chunked")], b"1\r\nx\r\n" * 2000),
        ([("Transfer-Encoding", "chunked")], b"fffffff\r\n" + b"x" * 5000),
    ],
)
async def test_body_over_the_limit(calm: Calm, headers: Headers, body: bytes) -> None:
    """One byte more is refused, however it is sent, and the connection is not used again."""
    async with calm(config(limits="{max_message: 1KiB}"), KINDS) as serving:
        sent = request("/both", headers, method="POST") + body
        async with dial(serving.port, sent) as client:
            head = await client.head()
        assert (head.status, head.headers["connection"]) == (413, "close")


@fault(98)
async def test_lying_length(calm: Calm) -> None:
    """A body is as long as it says: what is behind is no part of it, and what is missing is never heard."""
    async with calm(config(), KINDS) as serving:
        async with dial(serving.port) as client:
            await client.send(request("/both", [("Content-Length", "10")], method="POST") + b"short")
            client.finish()
            await client.rest()
        head, body = await ask(serving.port, "/both", [("Accept", "application/json")])
        assert (head.status, json.loads(body)["messages"]) == (200, [])


#: What is no JSON.
NO_JSON = [
    b"",
    b" ",
    b"{",
    b"[1",
    b'"a',
    b"{]",
    b"[1] x",
    b"{} {}",
    b"1,",
    b"[1,]",
    b'{"a"}',
    b'{"a":1,}',
    b"{a:1}",
    b"{'a':1}",
    b"// x\n1",
    b'"\xff"',
    b'"\xed\xa0\x80"',
    b'"\xc0\x80"',
    b"\xef\xbb\xbf1",
    b"\xff\xfe1\x00",
    b"[" * 30_000,
    b"[" * 30_000 + b"]" * 30_000,
    b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    b"1" * 5000,
    b"-" + b"1" * 5000,
    b"NaN",
    b"[NaN]",
    b"Infinity",
    b"-Infinity",
    b"1e400",
    b"-1e400",
    b'{"a":1e999999999}',
    b'"\\ud800"',
    b'"\\udc00"',
    b'["\\ud800\\ud800"]',
    b'{"\\ud800":1}',
    b'"\\x41"',
    b'"\\u12"',
    b'"a\x00"',
    b'"a\nb"',
    b"01",
    b"+1",
    b".5",
    b"1.",
    b"0x1",
    b"True",
    b"undefined",
    b"\x00",
]
#: What is JSON, and what of it is handed on.
JSON: list[tuple[bytes, str]] = [
    (b"null", "null"),
    (b"true", "true"),
    (b" 1 ", "1"),
    (b"-0", "0"),
    (b"1e3", "1000.0"),
    (b"0.1", "0.1"),
    (b'""', '""'),
    (b'"x"', '"x"'),
    (b"[]", "[]"),
    (b"{}", "{}"),
    (b'{"a":1,"a":2}', '{"a":2}'),
    (b'{"__proto__":{"x":1}}', '{"__proto__":{"x":1}}'),
    (b'{"constructor":null}', '{"constructor":null}'),
    (b"9007199254740993", "9007199254740993"),
    (b"18446744073709551615", "18446744073709551615"),
    (b"18446744073709551616", "1.8446744073709552e+19"),
    (b'"\\u0000\\u2028"', '"\\u0000\u2028"'),
    (b'"\\ud83d\\ude00"', '"\U0001f600"'),
    (b"[" * 200 + b"]" * 200, "[" * 200 + "]" * 200),
]
AS_JSON = [("Content-Type", "application/json")]


@fault(99)
async def test_what_is_no_json(calm: Calm) -> None:
    """What is no JSON is refused with its place, and nothing of it is handed on."""
    async with calm(config(), KINDS) as serving:
        for body in NO_JSON:
            head, text = await wire.post(serving.port, "/both", body, AS_JSON)
            assert head.status == 400, (body[:50], text)
            assert " column " in text, (body[:50], text)
        _, text = await ask(serving.port, "/both", [("Accept", "application/json")])
        assert json.loads(text)["messages"] == []


@fault(99)
async def test_what_is_nested_too_deep_to_be_handed_on(calm: Calm) -> None:
    """What can be read and not be written again is refused, too."""
    async with calm(config(), KINDS) as serving:
        for depth in (300, 1000):
            head, text = await wire.post(serving.port, "/both", b"[" * depth + b"]" * depth, AS_JSON)
            assert head.status == 400, text


@fault(99)
async def test_what_is_json(calm: Calm) -> None:
    """Any value may stand on top, of a key that is there twice the last counts, and JSON is handed on."""
    async with (
        calm(config(), KINDS) as serving,
        wire.websocket(
            serving.port, "/both", headers=[("Sec-WebSocket-Protocol", "realtime.v1.json")]
        ) as reader,
    ):
        await reader.text()
        for body, data in JSON:
            assert (await wire.post(serving.port, "/both", body, AS_JSON))[0].status == 202, body
            said = await reader.text()
            json.loads(said)
            assert f'"data":{data},' in said


@fault(99)
async def test_frames_that_are_no_json(calm: Calm) -> None:
    """A frame that is no JSON is answered with its place, and the client may go on."""
    v1 = [("Sec-WebSocket-Protocol", "realtime.v1.json")]
    async with (
        calm(config(), KINDS) as serving,
        wire.websocket(serving.port, "/both", headers=v1) as client,
    ):
        await client.text()
        for body in NO_JSON:
            try:
                body.decode()
            except UnicodeDecodeError:
                continue  # no text, see row 35
            await client.send(wire.frame(wire.TEXT, body))
            said = json.loads(await client.text())
            assert (said["event"], said["data"]["status"]) == ("realtime:error", 400), body[:50]
            assert " column " in said["data"]["message"], body[:50]


@fault(99)
async def test_data_of_frames(calm: Calm) -> None:
    """Data of a frame is any JSON, the object about it no other than it ought to be."""
    v1 = [("Sec-WebSocket-Protocol", "realtime.v1.json")]
    async with (
        calm(config(), KINDS) as serving,
        wire.websocket(serving.port, "/both", headers=v1) as client,
    ):
        await client.text()
        for body, data in JSON:
            await client.send(wire.frame(wire.TEXT, b'{"data":%s}' % body))
            assert f'"data":{data},' in await client.text()
        for frame in (
            b"1",
            b"null",
            b"[]",
            b'"x"',
            b"{}",
            b'{"data":1,"__proto__":1}',
            b'{"data":1,"ref":[]}',
        ):
            await client.send(wire.frame(wire.TEXT, frame))
            assert json.loads(await client.text())["event"] == "realtime:error", frame
