"""The opening handshake of a WebSocket (RFC 6455, section 4): who wants one, and the answer."""

from __future__ import annotations

import base64
import binascii
import hashlib

from aiohttp import web

from realtime.envelope import V1_JSON
from realtime.transports.deflate import agree
from realtime.transports.takeover import Opening

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def _tokens(request: web.Request, header: str) -> list[str]:
    """The tokens of a header that is a list (RFC 9110, section 5.6.1), in whatever lines it came."""
    return [token.strip() for token in ",".join(request.headers.getall(header, [])).split(",")]


def wants_websocket(request: web.Request) -> bool:
    """Whether the request is an opening handshake, right or wrong."""
    return "websocket" in map(str.lower, _tokens(request, "Upgrade"))


def wants_json(request: web.Request) -> bool:
    """Whether the client offers the subprotocol in which each message is an object of JSON."""
    return V1_JSON in _tokens(request, "Sec-WebSocket-Protocol")


def accept(request: web.Request, *, compress: bool) -> web.StreamResponse:
    """The answer to an opening handshake (RFC 6455, section 4.2).

    It agrees to ``compress`` if the client offers that. Raises an HTTP error that says what is wrong
    with the handshake.
    """
    headers = request.headers
    if request.version != (1, 1):
        raise web.HTTPBadRequest(text="a WebSocket begins with HTTP/1.1\n")
    if "upgrade" not in map(str.lower, _tokens(request, "Connection")):
        raise web.HTTPBadRequest(text="a WebSocket handshake says Connection: Upgrade\n")
    if headers.getall("Sec-WebSocket-Version", []) != ["13"]:
        version = {"Sec-WebSocket-Version": "13"}
        raise web.HTTPUpgradeRequired(text="this server speaks WebSocket version 13\n", headers=version)
    keys = headers.getall("Sec-WebSocket-Key", [])
    try:
        right = len(keys) == 1 and len(base64.b64decode(keys[0].encode("ascii"), validate=True)) == 16
    except (binascii.Error, UnicodeEncodeError):
        right = False
    if not right:
        raise web.HTTPBadRequest(text="a WebSocket handshake has one key of 16 bytes in base64\n")
    digest = hashlib.sha1(keys[0].encode() + _GUID, usedforsecurity=False).digest()
    answer = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": base64.b64encode(digest).decode(),
    }
    if wants_json(request):
        answer["Sec-WebSocket-Protocol"] = V1_JSON
    if compress:
        try:
            agreed = agree(headers.getall("Sec-WebSocket-Extensions", []))
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from None
        if agreed:
            answer["Sec-WebSocket-Extensions"] = agreed
    return Opening(status=101, headers=answer)
