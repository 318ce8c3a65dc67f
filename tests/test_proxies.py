"""Proxies: whose word about a client counts, and what becomes of it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from conftest import Serve, make
from wire import EVENTS, UPGRADE, Headers, ask, dial, eventually, request, stream

#: A plugin that shows what it sees of a request, in a handler and when it authenticates.
SEEN = {
    "seen.py": """
        from aiohttp import web
        from realtime import Channel, Identity, hookimpl

        class Seen(Channel):
            "Nothing."

        @hookimpl
        def register_channels():
            return {"seen": Seen}

        @hookimpl
        def register_routes(bus):
            async def show(request):
                body = (await request.read()).decode()
                return web.json_response([request.remote, request.scheme, request.host, body])
            return [web.route("*", "/show", show)]

        @hookimpl
        def authenticate(request):
            return Identity(name=f"{request.scheme}://{request.host} {request.remote}")
    """
}
FORWARDED: Headers = [
    ("X-Forwarded-For", "203.0.113.7"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "rt.example"),
]


def config(trusted: str, **settings: str) -> str:
    """A config that trusts these proxies."""
    more = "".join(f", {key}: {value}" for key, value in {"listen": '["127.0.0.1:0"]', **settings}.items())
    return (
        f"server: {{trusted_proxies: {trusted}{more}}}\nplugins: [seen]\n"
        "channels: {seen: {plugin: seen, path: /seen}}"
    )


async def seen(port: int, headers: Headers) -> list[str]:
    """Remote, scheme and host as a plugin's handler sees them."""
    head, body = await ask(port, "/show", headers)
    assert head.status == 200
    return json.loads(body)[:3]  # type: ignore[no-any-return]


# Who is believed


@pytest.mark.parametrize("trusted", ["[127.0.0.1]", "[127.0.0.0/8]", '[10.0.0.1, 127.0.0.1, "::1"]'])
async def test_trusted_proxy(serve: Serve, trusted: str) -> None:
    """What a trusted proxy says of the client's address, scheme and host is what plugins see."""
    async with serve(config(trusted), SEEN) as serving:
        assert await seen(serving.port, FORWARDED) == ["203.0.113.7", "https", "rt.example"]


@pytest.mark.parametrize("trusted", ["[]", "[127.0.0.2]", "[10.0.0.0/8]", "[unix]", '["::1"]'])
async def test_anybody_else(serve: Serve, trusted: str) -> None:
    """From anybody else the headers are ignored."""
    async with serve(config(trusted), SEEN) as serving:
        assert await seen(serving.port, FORWARDED) == ["127.0.0.1", "http", "localhost"]


async def test_ipv6_proxy(serve: Serve) -> None:
    """A proxy may have an IPv6 address."""
    text = config('["::1/128"]', listen='["[::1]:0"]')
    async with (
        serve(text, SEEN) as serving,
        dial(serving.port, request("/show", FORWARDED), host="::1") as wire,
    ):
        assert json.loads((await wire.response())[1])[0] == "203.0.113.7"


@pytest.mark.parametrize(("trusted", "remote"), [("[unix]", "203.0.113.7"), ("[127.0.0.1]", "")])
async def test_unix_socket(tmp_path: Path, trusted: str, remote: str) -> None:
    """The word ``unix`` means the peers of the server's unix sockets."""
    text = config(trusted, listen=f'["unix:{tmp_path}/s.sock"]')
    async with (
        make(tmp_path, text, SEEN),
        dial(0, request("/show", FORWARDED), path=f"{tmp_path}/s.sock") as wire,
    ):
        assert json.loads((await wire.response())[1])[0] == remote


# The address


@pytest.mark.parametrize(
    ("values", "remote"),
    [
        (["203.0.113.7"], "203.0.113.7"),
        (["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        (["127.0.0.1, 203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7, 10.1.2.3"], "203.0.113.7"),
        (["198.51.100.1, 203.0.113.7, 10.1.2.3,10.4.5.6"], "203.0.113.7"),
        (["198.51.100.1", "203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7", "10.1.2.3"], "203.0.113.7"),
        (["10.9.9.9, 10.1.2.3"], "10.9.9.9"),
        (["127.0.0.1"], "127.0.0.1"),
        (["203.0.113.7:4711"], "203.0.113.7"),
        (["2001:db8::7"], "2001:db8::7"),
        (["[2001:db8::7]"], "2001:db8::7"),
        (["[2001:DB8::7]:4711"], "2001:db8::7"),
        (["fe80::7%eth0"], "fe80::7"),
        (["::ffff:203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7, ::ffff:10.1.2.3"], "203.0.113.7"),
        (["203.0.113.7,"], "203.0.113.7"),
        ([""], "127.0.0.1"),
        ([","], "127.0.0.1"),
        ([], "127.0.0.1"),
    ],
)
async def test_address(serve: Serve, values: list[str], remote: str) -> None:
    """The client is the rightmost address that is no trusted proxy's, or else the leftmost."""
    async with serve(config("[127.0.0.1, 10.0.0.0/8]"), SEEN) as serving:
        headers = [("X-Forwarded-For", value) for value in values]
        assert (await seen(serving.port, headers))[0] == remote


@pytest.mark.parametrize(
    "value",
    [
        "unknown",
        "_hidden",
        "203.0.113",
        "203.0.113.256",
        "203.0.113.7.8",
        "for=203.0.113.7",
        "[203.0.113.7",
        "[]:80",
        "203.0.113.7:port",
        "203.0.113.7 203.0.113.8",
        "01.2.3.4",
        "évil",
        "9" * 8000,
        "203.0.113.7, nonsense",
        "203.0.113.7, nonsense, 10.1.2.3",
    ],
)
async def test_no_address(serve: Serve, value: str) -> None:
    """When what a trusted proxy hands on is no address nobody knows it: it is not the proxy's own."""
    async with serve(config("[127.0.0.1, 10.0.0.0/8]"), SEEN) as serving:
        assert (await seen(serving.port, [("X-Forwarded-For", value)]))[0] == ""


async def test_many_addresses(serve: Serve) -> None:
    """A long list is one request's work."""
    async with serve(config("[127.0.0.1, 10.0.0.0/8]"), SEEN) as serving:
        headers = [("X-Forwarded-For", ", ".join(["10.1.2.3"] * 700))] * 20
        assert (await seen(serving.port, headers))[0] == "10.1.2.3"


# Scheme and host


@pytest.mark.parametrize(
    ("values", "scheme"),
    [
        (["https"], "https"),
        (["HTTPS"], "https"),
        (["http"], "http"),
        (["wss"], "https"),
        (["http, https"], "https"),
        (["https", "http"], "http"),
        (["ftp"], "http"),
        ([""], "http"),
        (["https;"], "http"),
    ],
)
async def test_scheme(serve: Serve, values: list[str], scheme: str) -> None:
    """The scheme is the proxy's own word, the last; what is no scheme is ignored."""
    async with serve(config("[127.0.0.1]"), SEEN) as serving:
        headers = [("X-Forwarded-Proto", value) for value in values]
        assert (await seen(serving.port, headers))[1] == scheme


@pytest.mark.parametrize(
    ("values", "host"),
    [
        (["rt.example"], "rt.example"),
        (["rt.example:8443"], "rt.example:8443"),
        (["[2001:db8::7]:8443"], "[2001:db8::7]:8443"),
        (["evil.example, rt.example"], "rt.example"),
        (["evil.example", "rt.example"], "rt.example"),
        ([""], "localhost"),
        (["rt.example/path"], "localhost"),
        (["user@rt.example"], "localhost"),
        (["rt example"], "localhost"),
        (["rt.example:http"], "localhost"),
        (["<script>"], "localhost"),
    ],
)
async def test_host(serve: Serve, values: list[str], host: str) -> None:
    """The host is the proxy's own word, the last; what is no host is ignored."""
    async with serve(config("[127.0.0.1]"), SEEN) as serving:
        headers = [("X-Forwarded-Host", value) for value in values]
        assert (await seen(serving.port, headers))[2] == host


async def test_forwarded_is_not_read(serve: Serve) -> None:
    """The header of RFC 7239 counts for nothing, even from a trusted proxy."""
    headers = [("Forwarded", "for=203.0.113.7;proto=https;host=rt.example")]
    async with serve(config("[127.0.0.1]"), SEEN) as serving:
        assert await seen(serving.port, headers) == ["127.0.0.1", "http", "localhost"]


# What it is good for


async def test_client_and_identity(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A channel's client, the hook ``authenticate`` and the log have the client's own address."""
    caplog.set_level(logging.INFO)
    async with serve(config("[127.0.0.1]"), SEEN) as serving:
        async with stream(serving.port, "/seen", headers=FORWARDED):
            (client,) = serving.server.channels["seen"].clients
            assert client.remote == "203.0.113.7"
            assert client.identity is not None
            assert client.identity.name == "https://rt.example 203.0.113.7"
        await eventually(lambda: "from 203.0.113.7 left" in caplog.text)


async def test_links(serve: Serve) -> None:
    """The front page has the URLs by which the client came."""
    async with serve(config("[127.0.0.1]"), SEEN) as serving:
        assert "seen: wss://rt.example/seen\n" in (await ask(serving.port, "/", FORWARDED))[1]


async def test_body(serve: Serve) -> None:
    """The body of a request is there for the handler."""
    async with serve(config("[127.0.0.1]"), SEEN) as serving:
        head = request("/show", [*FORWARDED, ("Content-Length", "5")], method="POST")
        async with dial(serving.port, head + b"hello") as wire:
            assert json.loads((await wire.response())[1])[3] == "hello"


async def opens(serving: Any, origin: str, *headers: tuple[str, str]) -> int:
    """The status that a page of an origin gets."""
    async with dial(serving.port, request("/seen", [*EVENTS, ("Origin", origin), *headers])) as wire:
        return (await wire.head()).status


HTTPS, HTTP = ("X-Forwarded-Proto", "https"), ("X-Forwarded-Proto", "http")
RT = ("X-Forwarded-Host", "rt.example")


@pytest.mark.parametrize(
    ("origin", "headers", "status"),
    [
        ("https://localhost", [HTTPS], 200),
        ("http://localhost", [HTTPS], 403),
        ("http://localhost:443", [HTTPS], 403),
        ("http://localhost", [HTTP], 200),
        ("https://localhost", [HTTP], 403),
        ("https://localhost", [], 200),
        ("http://localhost", [], 200),
        ("https://rt.example", [HTTPS, RT], 200),
        ("https://localhost", [HTTPS, RT], 403),
        ("https://rt.example", [RT], 200),
        ("https://evil.example", [HTTPS, RT], 403),
    ],
)
async def test_same_origin(serve: Serve, origin: str, headers: list[tuple[str, str]], status: int) -> None:
    """``same`` is scheme, host and port as the trusted proxy tells them; an untold scheme is any."""
    async with serve(config("[127.0.0.1]"), SEEN) as serving:
        assert await opens(serving, origin, *headers) == status


async def test_origin_from_anybody_else(serve: Serve) -> None:
    """Who is no trusted proxy cannot make itself the same origin."""
    async with serve(config("[10.0.0.1]"), SEEN) as serving:
        assert await opens(serving, "https://evil.example", ("X-Forwarded-Host", "evil.example")) == 403


async def test_websocket(serve: Serve) -> None:
    """A WebSocket through a proxy is as any other."""
    headers = [*UPGRADE, *FORWARDED, ("Origin", "https://rt.example")]
    async with (
        serve(config("[127.0.0.1]"), SEEN) as serving,
        dial(serving.port, request("/seen", headers)) as wire,
    ):
        assert (await wire.head()).status == 101
        await eventually(lambda: bool(serving.server.channels["seen"].clients))
        (client,) = serving.server.channels["seen"].clients
        assert (client.remote, client.transport) == ("203.0.113.7", "websocket")
