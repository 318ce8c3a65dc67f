"""What the server tells about itself: its channels, at ``/-/channels``.

What a page needs to know of a channel that it wants to use is for everybody, as is the list on ``/``:
where it is and what it takes. What tells about others, how many there are and on which topics, and what
is installed, is for whom ``server.inspect`` permits. The JSON is a contract: keys are only ever added.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

import orjson
from aiohttp import hdrs, web

from realtime.assembly import Assembly
from realtime.auth import check_origin
from realtime.channel import Channel
from realtime.origins import sharing
from realtime.paths import variables
from realtime.permissions import permitted
from realtime.proxies import is_local
from realtime.topic import Topic

PATH = "/-/channels"
METHODS = ["GET", "HEAD", "OPTIONS"]


def routes(assembly: Assembly) -> list[web.RouteDef]:
    """What serves it; a page of another origin asks first (OPTIONS)."""
    handle = partial(_handle, assembly)
    return [web.get(PATH, handle), web.options(PATH, handle)]


async def _handle(assembly: Assembly, request: web.Request) -> web.Response:
    settings = assembly.config.server
    headers = {"Cache-Control": "no-store", "Vary": "Origin", "X-Content-Type-Options": "nosniff"}
    if origin := request.headers.get(hdrs.ORIGIN):
        headers |= sharing(origin, settings.origins, METHODS)
    try:
        check_origin(request, settings.origins, settings.url)
        if request.method == hdrs.METH_OPTIONS:
            return web.Response(status=204, headers={"Allow": ", ".join(METHODS), **headers})
        identity = await assembly.gate.authenticate(request)
    except web.HTTPException as error:
        error.headers.update(headers)
        raise
    site = settings.url or f"{request.scheme}://{request.host}"
    site += request.rel_url.raw_path.removesuffix(PATH)  # where somebody's application has it
    channels = [_shown(channel, site) for channel in assembly.channels.values()]
    whole = permitted(settings.inspect, identity, local=is_local(request))
    if whole:
        _add_what_goes_on(channels, assembly)
    body = orjson.dumps({"whole": whole, "channels": channels})
    return web.Response(body=body, content_type="application/json", headers=headers)


def _add_what_goes_on(shown: list[dict[str, Any]], assembly: Assembly) -> None:
    topics: dict[str, list[Topic]] = defaultdict(list)
    for topic in assembly.bus.topics:
        topics[topic.name.partition("/")[0]].append(topic)
    for channel, facts in zip(assembly.channels.values(), shown, strict=True):
        found = assembly.plugins.source(type(channel))
        facts["distribution"] = (found and found.distribution) or None
        facts["version"] = (found and found.version) or None
        facts["clients"] = len(channel.clients)
        facts["topics"] = [
            {"topic": topic.name, "id": str(topic.position), "clients": len(topic.members)}
            for topic in topics[channel.name]
        ]


def _shown(channel: Channel, site: str) -> dict[str, Any]:
    """What is for everybody."""
    settings = channel.settings
    return {
        "name": channel.name,
        "plugin": settings.plugin,
        "description": (type(channel).__doc__ or "").strip().partition("\n")[0],
        "url": channel.url_on(site),
        "path": settings.path,
        "variables": variables(settings.path),
        "transports": list(channel.transports),
        "methods": channel.methods,
        "presence": settings.presence,
        "allow": settings.allow.model_dump(),
    }
