"""Proxies in front of the server: who is believed about a client, and what is believed.

Of a request from a trusted proxy the headers ``X-Forwarded-For``, ``X-Forwarded-Proto`` and
``X-Forwarded-Host`` count, from anybody else they are nothing but text. Where a header has several
values, in one line or in several, the last was written by the proxy itself; those before it may have
come from the client. ``Forwarded`` (RFC 7239) is not read: few proxies write it, so most would hand on
what a client made up.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from realtime.origins import HOST

Address = IPv4Address | IPv6Address

#: The word for the peers of a unix socket.
UNIX = "unix"

#: Set on a request whose client a trusted proxy has told.
_CLIENT_TOLD = web.RequestKey("realtime_client_told", bool)
#: Set on a request whose scheme a trusted proxy has told.
_SCHEME_TOLD = web.RequestKey("realtime_scheme_told", bool)
#: What proxies call the schemes; some have names of their own for a WebSocket.
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
#: What a proxy writes, trusted or not.
_HANDED_ON = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP", "Forwarded", "Via")
_WITH_PORT = re.compile(r"\[(?P<v6>[^\[\]]+)\](:[0-9]+)?|(?P<v4>[0-9.]+):[0-9]+")


class Proxies:
    """The proxies that ``server.trusted_proxies`` names."""

    def __init__(self, trusted: Iterable[str]) -> None:
        named = set(trusted)
        self._unix = UNIX in named
        self._networks = [ip_network(text) for text in named - {UNIX}]

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Hand a request on as the client made it to the proxy: its address, the scheme and the host."""
        if self._believes(request):
            changes: dict[str, Any] = {}
            if (client := self._client(request.headers.getall("X-Forwarded-For", []))) is not None:
                changes["remote"] = client
            if (scheme := _SCHEMES.get(_last(request, "X-Forwarded-Proto").lower())) is not None:
                changes["scheme"] = scheme
            if HOST.fullmatch(host := _last(request, "X-Forwarded-Host")):
                changes["host"] = host
            if changes:
                request = request.clone(**changes)
                request[_SCHEME_TOLD] = scheme is not None
                request[_CLIENT_TOLD] = client is not None
        return await handler(request)

    def _believes(self, request: web.Request) -> bool:
        if _by_unix(request):
            return self._unix
        peer = _address(request.remote or "")
        return peer is not None and self._trusts(peer)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def _client(self, values: Iterable[str]) -> str | None:
        """The rightmost address that is no trusted proxy's own, else the leftmost; None without any.

        "" when what a trusted proxy has written, or handed on, is no address: then nobody knows.
        """
        client = None
        for hop in reversed([hop.strip() for value in values for hop in value.split(",")]):
            if hop:
                address = _address(hop)
                client = str(address or "")
                if address is None or not self._trusts(address):
                    break
        return client


def site(request: web.Request) -> str:
    """The scheme and host that a request was for, ``https://rt.example``.

    Without the scheme, ``://rt.example``, where a proxy in between may have changed it.
    """
    known = request.scheme == "https" or request.get(_SCHEME_TOLD)
    return f"{request.scheme if known else ''}://{request.host}"


def is_local(request: web.Request) -> bool:
    """Whether the client is on this machine, and no proxy or web page speaks in its name.

    It comes from a loopback address or by a unix socket. Not what somebody has handed on whom the
    config does not trust: to a proxy on this machine everybody would be local. Not a page of another
    origin, though it may connect. And not a page whose name was made to point here (DNS rebinding): such a
    request has that name as its host.
    """
    if request.headers.get(hdrs.ORIGIN, f"http://{request.host}").partition("://")[2] != request.host:
        return False
    if not request.get(_CLIENT_TOLD):
        # nginx, unless it is told otherwise, says nothing of itself, but speaks HTTP/1.0.
        if request.version < (1, 1) or any(header in request.headers for header in _HANDED_ON):
            return False
        if _by_unix(request):
            return True
    by_name = request.host == "localhost" or request.host.startswith("localhost:")
    return _is_loopback(request.remote or "") and (by_name or _is_loopback(request.host))


def _by_unix(request: web.Request) -> bool:
    sock = request.get_extra_info("socket")
    return sock is not None and sock.family == socket.AF_UNIX


def _is_loopback(text: str) -> bool:
    address = _address(text)
    return address is not None and address.is_loopback


def _last(request: web.Request, header: str) -> str:
    return ",".join(request.headers.getall(header, [])).rpartition(",")[2].strip()


def _address(text: str) -> Address | None:
    """An IP address, with or without a port."""
    if match := _WITH_PORT.fullmatch(text):
        text = match["v6"] or match["v4"]
    try:
        address = ip_address(text.partition("%")[0])  # without the interface, which may be any text
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
