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
    """A route for each file of ``web/``, which is read now, and one for those of channels' own pages."""
    own = {
        (channel.name, file.name): file
        for channel in assembly.channels.values()
        for file in files(type(channel))
    }
    shared = [file for file in sorted(WEB.iterdir()) if file.suffix in _TYPES]
    return [
        *(web.get(f"/-/{file.name}", partial(_serve, file.name, file.read_bytes())) for file in shared),
        web.get("/-/pages/{channel}/{file}", partial(_serve_page, own)),
    ]


async def _serve_page(own: dict[tuple[str, str], Path], request: web.Request) -> web.Response:
    """A file of a plugin, as it is now: who writes one wants to see it."""
    file = own.get((request.match_info["channel"], request.match_info["file"]))
    try:
        body = await asyncio.to_thread(file.read_bytes) if file else None
    except OSError:
        body = None
    if file is None or body is None:
        raise web.HTTPNotFound(text="no channel has such a page\n")
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
