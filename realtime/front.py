"""The pages of the server itself: the front page, which tells what is here, and the dashboard.

The front page is for everybody: it says what ``/-/channels`` says. The dashboard is for whom
``server.inspect`` permits; it says nothing itself, and its script asks for the numbers.
"""

from __future__ import annotations

import html
import shlex
from collections.abc import Iterable
from functools import partial
from string import Template

from aiohttp import hdrs, web

from realtime import about
from realtime.about import Asker
from realtime.assembly import Assembly
from realtime.channel import Channel
from realtime.paths import variables
from realtime.transports.page import POLICY, WEB, description

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Vary": "Accept",
    "X-Content-Type-Options": "nosniff",
}
_CHIPS = {"websocket": "WebSocket", "sse": "SSE", "ndjson": "NDJSON", "json": "JSON", "post": "POST"}
#: What a variable of a path may be in a URL, as a browser checks it: one segment, or the rest.
_SEGMENT = r"(?!\.{1,2}(\/|$))[^\/\\*]+"
_REST = rf"{_SEGMENT}(\/{_SEGMENT})*"
_EMPTY = """<div class="card"><p><strong>No channel is configured yet.</strong>
<p>Write one into <code>config.yaml</code> and start the server again:</p>
<pre><code>channels:
  lobby:
    plugin: chat
    path: /chat</code></pre></div>"""


def routes(assembly: Assembly) -> list[web.RouteDef]:
    """What serves them; the files are read now."""
    front = Template((WEB / "front.html").read_text(encoding="utf-8"))
    dashboard = partial(_dashboard, (WEB / "dashboard.html").read_text(encoding="utf-8"))
    return [
        *about.route(assembly, "/-/dashboard", dashboard),
        web.get("/", partial(_front, assembly, front)),
    ]


async def _dashboard(text: str, assembly: Assembly, asker: Asker) -> web.Response:
    """The page, with the status of a refusal for whom it will tell nothing: there one can give a token."""
    status, headers = 200, {**asker.headers, **_HEADERS}
    try:
        about.check(assembly, asker)
    except web.HTTPException as refusal:
        status = refusal.status
    return web.Response(text=text, status=status, content_type="text/html", headers=headers)


async def _front(assembly: Assembly, template: Template, request: web.Request) -> web.Response:
    prefix = request.rel_url.raw_path.removesuffix("/")  # where somebody's application has it
    site = (assembly.config.server.url or f"{request.scheme}://{request.host}") + prefix
    channels = assembly.channels
    if "text/html" not in request.headers.get(hdrs.ACCEPT, ""):
        lines = [f"{name}: {channel.url_on(site)}" for name, channel in channels.items()]
        return web.Response(text="\n".join(["Realtime serves these channels:", "", *lines, ""]))
    cards = "\n".join(
        _card(channel, prefix, site, first=not at) for at, channel in enumerate(channels.values())
    )
    text = template.substitute(
        prefix=html.escape(prefix),
        channels=f'<ul class="cards">\n{cards}\n</ul>' if cards else _EMPTY,
        start="\n".join(_start(list(channels.values()), site)),
    )
    return web.Response(text=text, content_type="text/html", headers=_HEADERS)


def _card(channel: Channel, prefix: str, site: str, *, first: bool) -> str:
    """A channel as an item of a list; a path with variables has a form, which the script makes work.

    The ``first`` one is where to begin.
    """
    path, name = channel.settings.path, html.escape(channel.name)
    where, shown = html.escape(prefix + path), html.escape(path)
    url = html.escape(channel.url_on(site))
    told = html.escape(description(type(channel)))
    kinds = [html.escape(_CHIPS.get(one, one)) for one in channel.transports]
    chips = "".join(f'<li class="tag">{kind}</li>' for kind in kinds)
    button = "button primary" if first else "button"
    title = f'<a href="{where}">{name}</a>'
    go = f'<a class="{button}" href="{where}" aria-label="Open {name}">Open</a>'
    if names := variables(path):
        title = name
        go = (
            f'<form data-path="{where}" hidden>{"".join(_field(one, path) for one in names)}'
            f'<button class="{button}" aria-label="Open {name}">Open</button></form>'
            "<noscript><p>Put a value in place of each name in braces.</p></noscript>"
        )
    return (
        f'<li class="card"><h3>{title}</h3><p class="muted">{told}</p>'
        f'<p class="mono" title="{name}: {url}">{shown}</p>'
        f'<ul class="row" aria-label="Transports">{chips}</ul><div class="go">{go}</div></li>'
    )


def _field(name: str, path: str) -> str:
    rest = f"{{{name}...}}" in path
    pattern, hint = (_REST, "segments, with / between them") if rest else (_SEGMENT, "no / in it")
    example = f"any {name}, or a/b" if rest else f"any {name}"
    return (
        f'<label>{name} <input name="{name}" required maxlength="255" pattern="{html.escape(pattern)}" '
        f'title="{hint}" placeholder="{example}" autocomplete="off" autocapitalize="none" '
        'spellcheck="false"></label>'
    )


def _start(channels: list[Channel], site: str) -> Iterable[str]:
    """The commands, of a channel that takes all three, or each of the first that takes it."""
    talks = [one for one in channels if type(one).on_message is not Channel.on_message]
    whole = [one for one in talks if {"websocket", "sse", "post"}.issubset(one.transports)]
    for transport, title, command, who, some in (
        ("sse", "Watch", "curl -N {}", "", channels),
        ("websocket", "Take part", "python -m realtime connect {}", "ann", talks or channels),
        ("post", "Publish", "python -m realtime publish {} 'hello'", "bob", talks),
    ):
        for channel in [one for one in [*whole, *some] if transport in one.transports][:1]:
            path = channel.settings.path.replace("...}", "}").translate({ord("{"): None, ord("}"): None})
            scheme = site.replace("http", "ws", 1) if transport == "websocket" else site
            text = html.escape(command.format(shlex.quote(scheme + path)))
            if who and channel.settings.presence != "off":
                text += f" <span>--name {who}</span>"  # which is not to be broken
            yield f"<li><h3>{title}</h3><pre><code>{text}</code></pre></li>"
