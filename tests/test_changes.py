"""What a new config changes: told key by key, and in words."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from realtime.bus import Bus
from realtime.changes import LIVE, TOLD, Change, NeedsRestart, check, differences, fixed, stays
from realtime.channel import Channel
from realtime.config import parse
from realtime.errors import ConfigError, Problem
from realtime.permissions import Allow


class Own(Channel):
    """A channel with a setting of its own."""

    class Settings(Channel.Settings):
        sides: int = 6


class Inner(BaseModel):
    a: int = 1
    b: int = 2


class Outer(BaseModel):
    inner: Inner = Inner()
    c: int = 3


def own(**settings: object) -> Own:
    """A channel with these settings."""
    values = {"plugin": "own", "path": "/own", **settings}
    return Own("own", Own.Settings.model_validate(values), Bus(FakeLoop()))


class FakeLoop:
    """No loop is needed to compare."""

    def time(self) -> float:
        return 0.0

    def call_soon(self, callback: object, /) -> object: ...
    def call_later(self, delay: float, callback: object, /) -> object: ...


def test_differences_are_named_by_their_paths() -> None:
    """Of a section the keys that differ are named, with dots."""
    assert differences(Outer(), Outer(inner=Inner(b=5), c=4)) == ("inner.b", "c")


@pytest.mark.parametrize("key", ["history", "lag", "handler_timeout", "idempotency_window"])
def test_what_only_the_host_goes_by_is_live(key: str) -> None:
    """A channel goes on where only what the host looks up is new."""
    assert stays(own(), Own, own(**{key: 7 if key == "history" else "7s"}).settings)


@pytest.mark.parametrize("settings", [{"sides": 8}, {"path": "/other"}, {"presence": "list"}])
def test_what_the_channel_may_know_is_not(settings: dict[str, object]) -> None:
    """A channel is made again for a key of its own, its path, and its presence."""
    assert not stays(own(), Own, own(**settings).settings)


def test_another_class_does_not_stay() -> None:
    """A channel whose plugin is another, though it says the same, is made again."""

    class Again(Own):
        pass

    assert not stays(own(), Again, own().settings)


def test_every_live_key_is_a_setting_of_all_channels() -> None:
    """What is live is known of every channel."""
    assert set(Channel.Settings.model_fields) > LIVE > TOLD


def test_rules_of_a_type_are_rules() -> None:
    """What a channel's type says of ``allow`` is compared like the rest."""
    assert differences(Allow(), Allow(publish="local")) == ("publish",)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (Change("lobby", "unchanged"), "lobby: unchanged"),
        (Change("lobby", "applied", ("history", "lag")), "lobby: applied (history, lag)"),
        (Change("lobby", "gone"), "lobby: gone"),
    ],
)
def test_in_words(change: Change, told: str) -> None:
    """A change is a short sentence."""
    assert str(change) == told


@pytest.mark.parametrize(
    "new", ["listen: [127.0.0.1:1]", "socket_mode: '0600'", "loop: asyncio", "tls: {cert: cert.pem}"]
)
def test_what_only_another_process_can_have(new: str) -> None:
    """What the process has from its start is refused, in its place."""
    old = parse("server: {listen: [127.0.0.1:2]}\nchannels: {}\n")
    key, _, value = new.partition(": ")
    rest = "" if key == "listen" else "  listen: [127.0.0.1:2]\n"
    with pytest.raises(NeedsRestart, match=rf"config:2:\d+: server.{key}: .*needs a restart") as caught:
        check(fixed(old, parse(f"server:\n  {key}: {value}\n{rest}channels: {{}}\n")))
    assert isinstance(caught.value, ConfigError)


def test_the_rest_is_no_reason() -> None:
    """Other keys of the server need no other process."""
    new = parse("server: {drain: 3s, watchdog: off, hosts: [a]}\nchannels: {}\n")
    assert fixed(parse("channels: {}\n"), new) == []


def test_what_is_wrong_besides_is_no_restart() -> None:
    """A config with other mistakes is wrong, whatever else it needs."""
    needs = fixed(parse("channels: {}\n"), parse("server: {loop: asyncio}\nchannels: {}\n"))
    with pytest.raises(ConfigError) as caught:
        check([Problem("it is wrong"), *needs])
    assert not isinstance(caught.value, NeedsRestart)
