"""The page of a channel: what a person's browser gets on the channel's own URL."""

from __future__ import annotations

import html
import inspect
import shlex
from functools import cache
from pathlib import Path
from string import Template

from realtime.channel import Channel

WEB = Path(__file__).parents[1] / "web"

#: Nothing from another host, nothing inline: what a channel is called or says can be no script.
POLICY = (
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@cache
def _template() -> Template:
    return Template((WEB / "channel.html").read_text())


def page(channel: Channel, url: str, prefix: str) -> str:
    """The page as HTML; ``url`` is the channel's, as the browser asked for it.

    ``prefix`` stands before the paths that are the server's own.
    """
    there = shlex.quote(url)
    uses = {
        "websocket": f"python -m realtime connect {there.replace('http', 'ws', 1)}",
        "sse": f"curl -N {there}",
        "ndjson": f"curl -N -H 'Accept: application/x-ndjson' {there}",
        "json": f"curl -H 'Accept: application/json' {there}",
        "post": f"curl -d hi {there}",
    }
    text = {
        "channel": channel.name,
        "prefix": prefix,
        "description": (inspect.getdoc(type(channel)) or "").partition("\n")[0],
        "transports": " ".join(channel.transports),
        "hears": "no" if type(channel).on_message is Channel.on_message else "yes",
        "uses": "\n".join(use for name, use in uses.items() if name in channel.transports),
    }
    return _template().substitute({key: html.escape(value) for key, value in text.items()})
