"""The page of a channel: what a person's browser gets on the channel's own URL."""

from __future__ import annotations

import html
import inspect
import json
import shlex
from functools import cache
from pathlib import Path
from string import Template

from aiohttp import web

from realtime.channel import Channel

WEB = Path(__file__).parents[1] / "web"

#: Nothing from another host, nothing inline: what a channel is called or says can be no script.
POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@cache
def _template() -> Template:
    return Template((WEB / "channel.html").read_text(encoding="utf-8"))


def description(kind: type[Channel]) -> str:
    """What a channel type says of itself in a line, and no other on its behalf."""
    return inspect.cleandoc(kind.__doc__ or "").partition("\n")[0]


def files(kind: type[Channel]) -> list[Path]:
    """The files of a channel type's own page, by what the type says: a module, and a style for it."""
    name: object = kind.page
    if not isinstance(name, str):  # a plugin may have a method that is called so
        return []
    home = next(each for each in kind.__mro__ if "page" in vars(each))
    try:
        module = Path(inspect.getfile(home)).parent / name
    except (OSError, TypeError):  # it was made by a call, or in a console
        return []
    return [module, module.with_suffix(".css")]


def answer(channel: Channel, url: str, prefix: str, topic: str) -> web.Response:
    """The page; ``url`` is the channel's, as the browser asked for it.

    ``prefix`` stands before the paths that are the server's own.
    """
    settings, kind = channel.settings, type(channel)
    hears = kind.on_message is not Channel.on_message
    # Where people are told of each other they have names, and who posts has to give one.
    post = shlex.quote(f"{url}?name=curl" if settings.presence != "off" else url)
    named = " --name you" if settings.presence != "off" else ""
    there = shlex.quote(url)
    socket = there.replace("http", "ws", 1)
    uses = {
        "websocket": f"# {'talk' if hears else 'watch'}\npython -m realtime connect {socket}{named}",
        "sse": f"# read, as it comes\ncurl -N {there}",
        "ndjson": f"# the same, a JSON object a line\ncurl -N -H 'Accept: application/x-ndjson' {there}",
        "json": f"# what was said last\ncurl -H 'Accept: application/json' {there}",
        "post": f"# say something\ncurl -d hi {post}",
    }
    there_are = {file.suffix: file.name for file in files(kind) if file.is_file()}
    own = {suffix: f"{prefix}/-/pages/{channel.name}/{name}" for suffix, name in there_are.items()}
    facts = {
        "name": channel.name,
        "plugin": settings.plugin,
        "description": description(kind),
        "url": url,
        "path": settings.path,
        "topic": topic,
        "transports": list(channel.transports),
        "hears": hears,
        "presence": settings.presence,
        "module": own.get(".js"),
        "prefix": prefix,
    }
    text = {
        "topic": topic,
        "prefix": prefix,
        "description": facts["description"],
        "uses": "\n\n".join(use for name, use in uses.items() if name in channel.transports),
        "facts": json.dumps(facts),
    }
    told = {key: html.escape(str(value)) for key, value in text.items()}
    style = own.get(".css")
    told["style"] = f'<link rel="stylesheet" href="{html.escape(style)}">' if style else ""
    policy = {"Content-Security-Policy": POLICY}
    return web.Response(text=_template().substitute(told), content_type="text/html", headers=policy)
