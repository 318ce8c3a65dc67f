"""Who may do what: the identity of a client, and the rules of a channel."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from realtime.values import Model, written

Action = Literal["subscribe", "publish", "kick"]
_RULE = re.compile(r"anyone|local|authenticated|nobody|scope:[!-~]{1,100}")


def _pattern(value: str) -> str:
    if not value or "*" in value[:-1]:
        raise ValueError("expected a topic such as rooms/blue, or the beginning of some: rooms/*")
    return value


#: Names of topics; a ``*`` at the end stands for any rest, slashes too.
Topics = Annotated[tuple[Annotated[str, AfterValidator(_pattern)], ...], Field(strict=False)] | None


class Identity(Model):
    """Who a client is, as its token says, or an ``authenticate`` hook."""

    name: str
    """who it is: a chat takes it as the name"""

    scopes: Annotated[frozenset[str], Field(strict=False)] = frozenset()
    """what it may do, for rules such as ``scope:admin``"""

    expires: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """when it is over, in seconds since 1970: its connections are then closed with 4401"""

    subscribe: Topics = None
    """the topics that it may read, of those that ``allow`` lets it; None: all of them"""

    publish: Topics = None
    """the topics that it may send to, and remove others from; None: all that ``allow`` lets it"""

    def covers(self, action: Action, topic: str) -> bool:
        """Whether it is for this topic at all."""
        patterns = self.subscribe if action == "subscribe" else self.publish
        return patterns is None or any(
            topic.startswith(pattern[:-1]) if pattern.endswith("*") else topic == pattern
            for pattern in patterns
        )


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


def permitted(rule: str, identity: Identity | None, *, local: bool) -> bool:
    """Whether a rule permits somebody: what it is, and whether it is on the server's own machine."""
    if rule.startswith("scope:"):
        return identity is not None and rule.removeprefix("scope:") in identity.scopes
    return (
        rule == "anyone"
        or (rule == "local" and local)
        or (rule == "authenticated" and identity is not None)
    )


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
        return permitted(getattr(self, action), identity, local=local)
