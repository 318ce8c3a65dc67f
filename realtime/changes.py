"""What a new config changes: compared with the one that is served, key by key, and told in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

from realtime.channel import Channel
from realtime.config import Config
from realtime.errors import ConfigError

#: The settings of a channel that its host alone goes by, and looks up when it needs them.
LIVE = frozenset(
    (
        "allow",
        "compress",
        "handler_timeout",
        "history",
        "history_age",
        "idempotency_window",
        "keep_alive",
        "keep_alive_text",
        "lag",
        "lag_bytes",
        "limits",
        "overflow",
    )
)
#: Those of them by which a client was let in, or that it was told: it has to come back.
TOLD = frozenset(("allow", "keep_alive"))
#: What the process has been given at its start, under ``server``.
FIXED = ("listen", "socket_mode", "loop")


class NeedsRestart(ConfigError):
    """The config is right, and has something new that only another process can have."""


class Change(NamedTuple):
    """What becomes of one channel, plugin or section of the config.

    ``keys`` are what is new in it, ``clients`` how many were told to come back, or that it is gone.
    """

    name: str
    what: Literal["unchanged", "applied", "restarted", "new", "gone"]
    keys: tuple[str, ...] = ()
    clients: int = 0

    def __str__(self) -> str:
        return f"{self.name}: {self.told}"

    @property
    def told(self) -> str:
        """What becomes of it, in words."""
        said: str = self.what
        if self.keys:
            said += f" ({', '.join(self.keys)})"
        if self.clients:
            some = f"{self.clients} client{'s' * (self.clients > 1)}"
            said += f", {some} {'closed' if self.what == 'gone' else 'told to come back'}"
        return said


def differences(old: BaseModel, new: BaseModel) -> tuple[str, ...]:
    """The keys whose values differ, with dots between those of a section and its name."""
    return tuple(_differing(old.model_dump(), new.model_dump(), ""))


def stays(old: Channel, new: Channel) -> bool:
    """Whether a channel can go on as it is, with the settings of the one that would take its place."""
    changed = {key.partition(".")[0] for key in differences(old.settings, new.settings)}
    return type(old) is type(new) and changed <= LIVE


def check_fixed(old: Config, new: Config) -> None:
    """Raises :exc:`NeedsRestart` for what can only be had by another process."""
    before, after = old.server, new.server
    fixed = [key for key in FIXED if getattr(before, key) != getattr(after, key)]
    if (before.tls is None) is not (after.tls is None):
        fixed.append("tls")
    wrong = "this is new, and needs a restart of the process"
    if fixed:
        raise NeedsRestart(*(new.source.problem(wrong, ("server", key)) for key in fixed))


def of_channel(old: Channel, new: Channel, settings: Channel.Settings, clients: int) -> Change:
    """What becomes of a channel that was there, and has these settings now; so many are connected."""
    keys = differences(old.settings, settings)
    if old is not new:
        return Change(old.name, "restarted", keys or ("its plugin has changed",), clients)
    if not keys:
        return Change(old.name, "unchanged")
    come_back = any(key.partition(".")[0] in TOLD for key in keys)
    return Change(old.name, "applied", keys, clients if come_back else 0)


def _differing(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differing(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}"
