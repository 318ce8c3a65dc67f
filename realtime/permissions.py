"""Who may do what: the identity of a client, and the rules of a channel."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator

from realtime.config import Model, written

Action = Literal["subscribe", "publish", "kick"]
_RULE = re.compile(r"anyone|local|authenticated|nobody|scope:[!-~]{1,100}")


class Identity(Model):
    """Who a client is, as an ``authenticate`` hook found out."""

    name: str
    """who it is: a chat takes it as the name"""

    scopes: frozenset[str] = frozenset()
    """what it may do, for rules such as ``scope:admin``"""


def _rule(value: str) -> str:
    if not _RULE.fullmatch(value):
        raise ValueError("expected anyone, local, authenticated, nobody or scope:NAME")
    return value


#: Who may do something: ``anyone``; ``local``, who is on the server's machine; ``authenticated``;
#: ``nobody``; ``scope:NAME``, whose identity has this scope.
Permission = Annotated[
    str,
    AfterValidator(_rule),
    *written(str, "anyone, local, authenticated, nobody or scope:NAME", _RULE.pattern),
]


class Allow(Model):
    """Who may use a channel, and how."""

    subscribe: Permission = "anyone"
    """who may read: by WebSocket, stream or snapshot"""

    publish: Permission = "anyone"
    """who may send messages"""

    kick: Permission = "local"
    """who may close other clients, by `DELETE`"""

    def permits(self, action: Action, identity: Identity | None, *, local: bool) -> bool:
        """Whether a client may do it: what it is, and whether it is on the server's own machine."""
        rule: str = getattr(self, action)
        if rule.startswith("scope:"):
            return identity is not None and rule.removeprefix("scope:") in identity.scopes
        return (
            rule == "anyone"
            or (rule == "local" and local)
            or (rule == "authenticated" and identity is not None)
        )
