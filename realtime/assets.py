"""What web pages take from the server itself: the client for browsers, its types, the channels' page."""

from __future__ import annotations

import hashlib
from functools import partial

from aiohttp import hdrs, web

from realtime.transports.page import WEB

_SCRIPT = {"Content-Type": "text/javascript; charset=utf-8"}
#: Each file by its name under ``/-/``, and what is said of it beside what is said of all.
_FILES = {
    "realtime.js": _SCRIPT | {"X-TypeScript-Types": "./realtime.d.ts"},
    "realtime.d.ts": {"Content-Type": "text/typescript; charset=utf-8"},
    "channel.js": _SCRIPT,
}
_HEADERS = {
    "Cache-Control": "no-cache",  # to be kept, and asked about each time
    "Access-Control-Allow-Origin": "*",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}


def routes() -> list[web.RouteDef]:
    """A route for each of them; the files are read now."""
    return [
        web.get(f"/-/{name}", partial(_serve, (WEB / name).read_bytes(), _HEADERS | more))
        for name, more in _FILES.items()
    ]


async def _serve(body: bytes, headers: dict[str, str], request: web.Request) -> web.Response:
    # Weak, for it is the same whether it is compressed or not (RFC 9110, section 8.8.1).
    headers = headers | {"ETag": f'W/"{hashlib.sha256(body).hexdigest()[:16]}"'}
    if headers["ETag"] in request.headers.get(hdrs.IF_NONE_MATCH, ""):
        return web.Response(status=304, headers=headers)
    response = web.Response(body=body, headers=headers)
    response.enable_compression()
    return response
