"""The opening handshake of a WebSocket, seen as bytes."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Serve
from wire import (
    ACCEPT,
    KEY,
    UPGRADE,
    Headers,
    dial,
    request,
    text,
    websocket,
    without,
)

ECHO = "channels: {echo: {plugin: echo, path: /ws}}"


def changed(name: str, *values: str) -> Headers:
    """The headers of a handshake with other values of one of them."""
    return [*without(UPGRADE, name), *((name, value) for value in values)]


async def test_handshake_is_accepted(serve: Serve) -> None:
    """The answer to a right handshake is the one of RFC 6455, and nothing more."""
    async with serve(ECHO) as serving, dial(serving.port, request("/ws", UPGRADE)) as wire:
        head = await wire.head()
    expected = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-accept": ACCEPT}
    assert head.status == 101
    assert {name: value for name, value in head.headers.items() if name != "date"} == expected


async def test_headers_are_read_without_case(serve: Serve) -> None:
    """Tokens of the handshake may be written in any case, among others."""
    headers = [("Upgrade", "h2c, WebSocket"), ("Connection", "keep-alive, upgrade"), *UPGRADE[2:]]
    async with serve(ECHO) as serving, dial(serving.port, request("/ws", headers)) as wire:
        assert (await wire.head()).status == 101


async def test_compression_is_not_agreed_on(serve: Serve) -> None:
    """A client that offers to deflate is not answered that it may."""
    headers = [*UPGRADE, ("Sec-WebSocket-Extensions", "permessage-deflate")]
    async with serve(ECHO) as serving, dial(serving.port, request("/ws", headers)) as wire:
        assert "sec-websocket-extensions" not in (await wire.head()).headers


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        pytest.param(changed("Sec-WebSocket-Key"), "one key", id="no key"),
        pytest.param(changed("Sec-WebSocket-Key", KEY, KEY), "one key", id="two keys"),
        pytest.param(changed("Sec-WebSocket-Key", "c2hvcnQ="), "16 bytes", id="short key"),
        pytest.param(changed("Sec-WebSocket-Key", KEY + "AAAA"), "16 bytes", id="long key"),
        pytest.param(changed("Sec-WebSocket-Key", ""), "one key", id="empty key"),
        pytest.param(changed("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZé=="), "base64", id="no ASCII"),
        pytest.param(changed("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZ!=="), "base64", id="no base64"),
        pytest.param(changed("Connection"), "Connection: Upgrade", id="no Connection"),
        pytest.param(changed("Connection", "close"), "Connection: Upgrade", id="another Connection"),
    ],
)
async def test_wrong_handshake_is_a_bad_request(serve: Serve, headers: Headers, says: str) -> None:
    """A handshake that is wrong is answered with 400 and what is wrong, and the connection ends."""
    async with serve(ECHO) as serving, dial(serving.port, request("/ws", headers)) as wire:
        head, body = await wire.response()
        assert head.status == 400
        assert says in body
        assert await wire.rest() == b""


@pytest.mark.parametrize("versions", [("8",), ("",), ("13", "13"), ()], ids=str)
async def test_other_version_is_told_ours(serve: Serve, versions: tuple[str, ...]) -> None:
    """A handshake of another version is answered with 426 and the version that is spoken."""
    headers = changed("Sec-WebSocket-Version", *versions)
    async with serve(ECHO) as serving, dial(serving.port, request("/ws", headers)) as wire:
        head, body = await wire.response()
    assert (head.status, head.headers["sec-websocket-version"]) == (426, "13")
    assert "version 13" in body


async def test_http_1_0_is_refused(serve: Serve) -> None:
    """A WebSocket cannot begin with HTTP/1.0."""
    async with serve(ECHO) as serving, dial(serving.port, request("/ws", UPGRADE, http="1.0")) as wire:
        head, body = await wire.response()
    assert head.status == 400
    assert "HTTP/1.1" in body


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "OPTIONS"])
async def test_only_get_opens(serve: Serve, method: str) -> None:
    """Another method than GET is answered with 405 and the methods that there are."""
    opening = request("/ws", UPGRADE, method=method)
    async with serve(ECHO) as serving, dial(serving.port, opening) as wire:
        head = await wire.head()
    assert head.status == 405
    assert "GET" in head.headers["allow"].split(",")


V1 = "realtime.v1.json"


@pytest.mark.parametrize(
    "offers", [[V1], [f"chat, {V1}"], ["chat", V1], [f"{V1},chat"], [f"  {V1} ,, x"]], ids=repr
)
async def test_subprotocol_is_selected(serve: Serve, offers: list[str]) -> None:
    """The subprotocol that is spoken is selected among those that are offered."""
    headers = [*UPGRADE, *(("Sec-WebSocket-Protocol", offer) for offer in offers)]
    async with serve(ECHO) as serving, dial(serving.port, request("/ws", headers)) as wire:
        assert (await wire.head()).headers["sec-websocket-protocol"] == V1


@pytest.mark.parametrize("offer", ["", "chat", "realtime.v1.jso", "realtime.v1.json2", "Realtime.v1.json"])
async def test_other_subprotocol_is_not(serve: Serve, offer: str) -> None:
    """Another one is not answered, and the frames are plain."""
    headers = [("Sec-WebSocket-Protocol", offer)]
    async with serve(ECHO) as serving:
        async with dial(serving.port, request("/ws", [*UPGRADE, *headers])) as wire:
            assert "sec-websocket-protocol" not in (await wire.head()).headers
        async with websocket(serving.port, "/ws", text("x"), headers=headers) as wire:
            assert await wire.text() == "Echo: x"


SECRET = {
    "secret.py": '''
        from aiohttp import web
        from realtime import Channel, hookimpl

        class Secret(Channel):
            """Remembers whether a request came."""

            ran = False

            async def handle(self, request):
                self.ran = True
                return web.Response()

            @hookimpl
            def register_routes(self, bus):
                return [web.get("/secret", self.handle)]

        class Events(Channel):
            """No WebSocket."""

            transports = ("sse",)

        @hookimpl
        def register_channels():
            return {"secret": Secret, "events": Events}
    '''
}
SMUGGLING = """
    channels:
      secret: {plugin: secret, path: /}
      events: {plugin: events, path: /events}
      echo: {plugin: echo, path: /ws}
      full: {plugin: echo, path: /full, limits: {max_clients: 0}}
"""


@pytest.mark.parametrize(
    ("opening", "status"),
    [
        pytest.param(request("/ws", changed("Sec-WebSocket-Key")), 400, id="no key"),
        pytest.param(request("/ws", changed("Sec-WebSocket-Version", "8")), 426, id="version"),
        pytest.param(request("/ws", UPGRADE, method="POST"), 405, id="method"),
        pytest.param(request("/ws", UPGRADE, method="HEAD"), 405, id="HEAD"),
        pytest.param(request("/ws?since=x", UPGRADE), 400, id="since"),
        pytest.param(request("/ws", [*UPGRADE, ("Origin", "http://evil")]), 403, id="origin"),
        pytest.param(request("/full", UPGRADE), 503, id="full"),
        pytest.param(request("/nowhere", UPGRADE), 404, id="path"),
        pytest.param(request("/-/live", UPGRADE), 200, id="no WebSocket at all"),
        pytest.param(request("/events", UPGRADE), 400, id="events"),
    ],
)
async def test_what_follows_a_refused_handshake_never_runs(
    serve: Serve, opening: bytes, status: int
) -> None:
    """Bytes that follow a refused handshake may be frames: they are no request."""
    async with serve(SMUGGLING, SECRET) as serving:
        async with dial(serving.port, opening + request("/secret")) as wire:
            assert (await wire.head()).status == status
            await wire.rest()
        secret: Any = serving.server.channels["secret"]
        assert not secret.ran
