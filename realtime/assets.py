"""What web pages take from the server itself: the client for browsers, and what its pages are made of."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from pathlib import Path

from aiohttp import hdrs, web

from realtime.assembly import Assembly
from realtime.transports.page import WEB, files

_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".ts": "text/typescript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Cache-Control": "no-cache",  # to be kept, and asked about each time
    "Access-Control-Allow-Origin": "*",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}


def routes(assembly: Assembly) -> list[web.RouteDef]:
    """Those of the files of ``web/``, which are read now, and of the files of channels' own pages."""
    own = {
        (channel.name, file.name): file
        for channel in assembly.channels.values()
        for file in files(type(channel))
    }
    shared = {file.name: file.read_bytes() for file in WEB.iterdir() if file.suffix in _TYPES}
    promised = [(name, shared.pop(name)) for name in ("realtime.js", "realtime.d.ts")]
    return [
        *(web.get(f"/-/{name}", partial(_serve, name, body)) for name, body in promised),
        web.get("/-/{file}", partial(_serve_shared, shared)),
        web.get("/-/pages/{channel}/{file}", partial(_serve_page, own)),
    ]


async def _serve_shared(shared: dict[str, bytes], request: web.Request) -> web.Response:
    """What the server's own pages are made of."""
    name = request.match_info["file"]
    if name not in shared:
        raise web.HTTPNotFound
    return await _serve(name, shared[name], request)


async def _serve_page(own: dict[tuple[str, str], Path], request: web.Request) -> web.Response:
    """A file of a plugin, as it is now: who writes one wants to see it."""
    try:
        file = own[request.match_info["channel"], request.match_info["file"]]
        body = await asyncio.to_thread(file.read_bytes)
    except (KeyError, OSError):
        raise web.HTTPNotFound from None
    return await _serve(file.name, body, request)


async def _serve(name: str, body: bytes, request: web.Request) -> web.Response:
    # Weak, for it is the same whether it is compressed or not (RFC 9110, section 8.8.1).
    headers = {**_HEADERS, "Content-Type": _TYPES[Path(name).suffix]}
    headers["ETag"] = f'W/"{hashlib.sha256(body).hexdigest()[:16]}"'
    if name == "realtime.js":
        headers["X-TypeScript-Types"] = "./realtime.d.ts"
    if headers["ETag"] in request.headers.get(hdrs.IF_NONE_MATCH, ""):
        return web.Response(status=304, headers=headers)
    response = web.Response(body=body, headers=headers)
    response.enable_compression()
    return response
