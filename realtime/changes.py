"""What a new config changes: compared with the one that is served, key by key, and told in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import BaseModel

from realtime.channel import Channel
from realtime.close_codes import CloseCode, End
from realtime.config import Config
from realtime.errors import ConfigError, Problem
from realtime.modules import NEEDS_RESTART
from realtime.transports.connections import Open

if TYPE_CHECKING:
    from realtime.assembly import Assembly

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
#: Of the server those by which a client was let in.
GUARDING = frozenset(("origins", "hosts", "trusted_proxies", "url"))
#: What the process has been given at its start, under ``server``.
FIXED = ("listen", "socket_mode", "loop")


class NeedsRestart(ConfigError):
    """The config is right, and has something new that only another process can have."""


class Change(NamedTuple):
    """What becomes of one channel, plugin or section of the config.

    ``keys`` are what is new in it, ``clients`` the connections that are told to come back, or that the
    channel is gone.
    """

    name: str
    what: Literal["unchanged", "applied", "restarted", "new", "gone"]
    keys: tuple[str, ...] = ()
    clients: Sequence[Open] = ()

    def __str__(self) -> str:
        return f"{self.name}: {self.told}"

    @property
    def told(self) -> str:
        """What becomes of it, in words."""
        said: str = self.what
        if self.keys:
            said += f" ({', '.join(self.keys)})"
        if number := len(self.clients):
            some = f"{number} client{'s' * (number > 1)}"
            said += f", {some} {'closed' if self.what == 'gone' else 'told to come back'}"
        return said

    @property
    def end(self) -> End:
        """With what the clients are closed."""
        if self.what == "gone":
            return End(CloseCode.DONE, "the channel is no longer there")
        if self.what == "restarted":
            return End(CloseCode.RESTARTING, "the channel has been restarted, come back")
        return End(CloseCode.RESTARTING, "what the config says of you has changed, come back")


def differences(old: BaseModel, new: BaseModel) -> tuple[str, ...]:
    """The keys whose values differ, with dots between those of a section and its name."""
    return tuple(_differing(old.model_dump(), new.model_dump(), ""))


def stays(old: Channel, kind: type[Channel], settings: BaseModel) -> bool:
    """Whether a channel can go on as it is, with these settings, in the place of one of this type."""
    changed = {key.partition(".")[0] for key in differences(old.settings, settings)}
    return type(old) is kind and changed <= LIVE


def fixed(old: Config, new: Config) -> list[Problem]:
    """What is new and can only be had by another process."""
    before, after = old.server, new.server
    keys = [key for key in FIXED if getattr(before, key) != getattr(after, key)]
    if (before.tls is None) is not (after.tls is None):
        keys.append("tls")
    return [new.source.problem(f"this is new, and {NEEDS_RESTART}", ("server", key)) for key in keys]


def check(problems: Sequence[Problem]) -> None:
    """Raises :exc:`ConfigError` if there are any; :exc:`NeedsRestart` where that is all that is wrong."""
    if problems:
        only = all(NEEDS_RESTART in problem.message for problem in problems)
        raise (NeedsRestart if only else ConfigError)(*problems)


def changes(before: Assembly, after: Assembly, connections: Iterable[Open]) -> list[Change]:
    """What becomes of each channel and section, and of the connections that there are."""
    clients: dict[Channel, list[Open]] = {}
    for connection in connections:
        clients.setdefault(connection.channel, []).append(connection)
    found: list[Change] = []
    found += filter(None, (_section(before, after, name) for name in ("server", "auth")))
    for name in dict.fromkeys((*before.config.plugins, *after.config.plugins)):
        owner = f"plugin:{name}"
        if name not in after.config.plugins:
            found.append(Change(f"plugin {name}", "gone"))
        elif name not in before.config.plugins:
            found.append(Change(f"plugin {name}", "new"))
        elif not after.has(owner, before):
            found.append(Change(f"plugin {name}", "restarted"))
    # Whoever has a token may be nobody now, …
    tokens = differences(before.config.auth, after.config.auth) or not after.gate.believes_what(before.gate)
    # … and anybody somebody, or not allowed.
    server = differences(before.config.server, after.config.server)
    guards = before.guards != after.guards or any(key.partition(".")[0] in GUARDING for key in server)
    for name in dict.fromkeys((*before.channels, *after.channels)):
        old, new = before.channels.get(name), after.channels.get(name)
        theirs = clients.get(old, []) if old is not None else []
        if old is None:
            found.append(Change(name, "new"))
        elif new is None:
            found.append(Change(name, "gone", clients=theirs))
        else:
            keys = differences(old.settings, after.settings[name])
            if old is not new:
                found.append(Change(name, "restarted", keys or ("its plugin",), theirs))
                continue
            told = guards or any(key.partition(".")[0] in TOLD for key in keys)
            back = [one for one in theirs if told or (tokens and one.client.identity is not None)]
            found.append(Change(name, "applied" if keys else "unchanged", keys, back))
    return found


def _section(before: Assembly, after: Assembly, name: str) -> Change | None:
    keys = differences(getattr(before.config, name), getattr(after.config, name))
    return Change(name, "applied", keys) if keys else None


def _differing(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differing(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}"
