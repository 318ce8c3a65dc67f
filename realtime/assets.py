"""What web pages take from the server itself: the client for browsers, its types, the channels' page."""

from __future__ import annotations

import hashlib
from pathlib import Path

from aiohttp import ETag, hdrs, web

WEB = Path(__file__).parent / "web"

_SCRIPT = "text/javascript"
#: Each file by its name under ``/-/``, with its type and what else is said of it.
_FILES = {
    "realtime.js": (_SCRIPT, {"X-TypeScript-Types": "/-/realtime.d.ts"}),
    "realtime.d.ts": ("text/typescript", {}),
    "channel.js": (_SCRIPT, {}),
}
_HEADERS = {
    hdrs.CACHE_CONTROL: "no-cache",  # to be kept, and asked about each time
    hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*",
    hdrs.VARY: hdrs.ACCEPT_ENCODING,
    "X-Content-Type-Options": "nosniff",
}


def routes() -> list[web.RouteDef]:
    """A route for each of them; the files are read now."""
    return [web.get(f"/-/{name}", _Asset(name, *facts).handle) for name, facts in _FILES.items()]


class _Asset:
    """One file."""

    def __init__(self, name: str, content_type: str, headers: dict[str, str]) -> None:
        self._body = (WEB / name).read_bytes()
        self._type = content_type
        self._headers = {**_HEADERS, **headers}
        # Weak, for it is the same whether it is compressed or not (RFC 9110, section 8.8.1).
        self._tag = ETag(hashlib.sha256(self._body).hexdigest()[:16], is_weak=True)

    async def handle(self, request: web.Request) -> web.Response:
        known = any(tag.value in (self._tag.value, "*") for tag in request.if_none_match or ())
        response = web.Response(status=304 if known else 200, headers=self._headers)
        response.etag = self._tag
        if not known:
            response.body, response.content_type, response.charset = self._body, self._type, "utf-8"
            response.enable_compression()
        return response
