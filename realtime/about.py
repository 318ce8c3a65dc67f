"""What the server tells about itself: its channels, at ``/-/channels``.

What a page needs to know of a channel that it wants to use is for everybody, as is the list on ``/``:
where it is and what it takes. What tells about others, how many there are and on which topics, and what
is installed, is for whom ``server.inspect`` permits. The JSON is a contract: keys are only ever added.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import orjson
from aiohttp import hdrs, web

from realtime import auth
from realtime.assembly import Assembly
from realtime.channel import Channel
from realtime.origins import sharing
from realtime.paths import variables
from realtime.permissions import Identity, permitted
from realtime.proxies import is_local
from realtime.stats import by_channel
from realtime.transports.page import description

PATH = "/-/channels"
METHODS = ["GET", "HEAD", "OPTIONS"]


class Asker(NamedTuple):
    """Who asks, and what the answer says beside what it is."""

    request: web.Request
    identity: Identity | None
    #: Whether this one may know of others.
    whole: bool
    headers: dict[str, str]


Answer = Callable[[Assembly, Asker], Awaitable[web.StreamResponse]]


def route(assembly: Assembly, path: str, answer: Answer) -> list[web.RouteDef]:
    """What serves one path of the server's own; a page of another origin asks first (OPTIONS)."""
    handle = partial(_handle, assembly, answer)
    return [web.get(path, handle), web.options(path, handle)]


def routes(assembly: Assembly) -> list[web.RouteDef]:
    """What serves the list of channels."""
    return route(assembly, PATH, _channels)


def check(assembly: Assembly, asker: Asker) -> None:
    """Raises the HTTP error of one who may not know of others."""
    if not asker.whole:
        rule = assembly.config.server.inspect
        text = f"who may see this: {rule} (server.inspect in the config)\n"
        raise auth.refused(text, asker.identity if rule not in ("local", "nobody") else Identity(name=""))


async def _handle(assembly: Assembly, answer: Answer, request: web.Request) -> web.StreamResponse:
    settings = assembly.config.server
    headers = {"Cache-Control": "no-store", "Vary": "Origin", "X-Content-Type-Options": "nosniff"}
    if origin := request.headers.get(hdrs.ORIGIN):
        headers |= sharing(origin, settings.origins, METHODS)
    try:
        auth.check_origin(request, settings.origins, settings.url)
        if request.method == hdrs.METH_OPTIONS:
            return web.Response(status=204, headers={"Allow": ", ".join(METHODS), **headers})
        identity = await assembly.gate.authenticate(request)
        whole = permitted(settings.inspect, identity, local=is_local(request))
        return await answer(assembly, Asker(request, identity, whole, headers))
    except web.HTTPException as error:
        error.headers.update(headers)
        raise


async def _channels(assembly: Assembly, asker: Asker) -> web.Response:
    request = asker.request
    site = assembly.config.server.url or f"{request.scheme}://{request.host}"
    site += request.rel_url.raw_path.removesuffix(PATH)  # where somebody's application has it
    channels = [_shown(channel, site) for channel in assembly.channels.values()]
    if asker.whole:
        _add_what_goes_on(channels, assembly)
    body = orjson.dumps({"whole": asker.whole, "channels": channels})
    return web.Response(body=body, content_type="application/json", headers=asker.headers)


def _add_what_goes_on(shown: list[dict[str, Any]], assembly: Assembly) -> None:
    topics = by_channel(assembly.bus.topics)
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
        "description": description(type(channel)),
        "url": channel.url_on(site),
        "path": settings.path,
        "variables": variables(settings.path),
        "transports": list(channel.transports),
        "methods": channel.methods,
        "presence": settings.presence,
        "allow": settings.allow.model_dump(),
    }
