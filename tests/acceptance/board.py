"""A channel type and an authentication that somebody else wrote: what the other scripts talk to.

The board shows everybody what anybody says, on every transport. `close CODE REASON` closes everybody.
"""

from __future__ import annotations

from acceptance.world import NAMES, TOKEN

BOARD = '''\
"""Board: everybody sees what anybody says."""

from realtime import Channel, Client, Message, Position, hookimpl


class Board(Channel):
    """Everybody sees what anybody says."""

    async def on_message(self, client: Client, message: Message) -> Position | None:
        if message.kind == "text" and message.data.startswith("close "):
            _, code, reason = message.data.split(" ", 2)
            for other in list(self.clients):
                await other.close(int(code), reason)
            return None
        self.log.info("somebody says %d bytes", len(message.payload))
        return await self.publish(client.topic, message.data, event=message.event)


@hookimpl
def register_channels() -> dict[str, type[Channel]]:
    return {"board": Board}
'''

TOKENS = f'''\
"""Tokens: who has the token is let in, and nobody else."""

from aiohttp import web
from realtime import Identity, hookimpl


@hookimpl
def authenticate(request: web.Request) -> Identity:
    given = request.query.get("token") or request.headers.get("Authorization", "").removeprefix("Bearer ")
    if given != {TOKEN!r}:
        raise web.HTTPUnauthorized(text="this token is not known\\n")
    return Identity(name={NAMES[0]!r})
'''

#: The files of both.
FILES = {"plugins/board.py": BOARD, "plugins/tokens.py": TOKENS}

#: A board that keeps what was said, as much as anybody says.
CONFIG = """\
channels:
  board:
    plugin: board
    path: /board
    history: 1000
    limits: {inbound_rate: 1000000, inbound_burst: 1000000}
"""
