"""All connections together: how many there are, and how they end."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import cast

import pytest
from timing import now
from wire import soon

from realtime.channel import Channel, Client
from realtime.config import ServerLimits
from realtime.permissions import Identity
from realtime.transports import connections as module
from realtime.transports.connections import Connections


class Lobby(SimpleNamespace):
    """A channel, as far as connections know one."""

    def __hash__(self) -> int:  # type: ignore[override]  # which has none, for it can be changed
        return id(self)


LOBBY = cast(Channel, Lobby(name="lobby", settings=Channel.Settings(plugin="echo", path="/ws")))
#: Ten clients, two of a user, three of an address, and five at once.
LIMITS = ServerLimits(
    max_clients=10, max_clients_per_user=2, max_clients_per_address=3, connect_rate=1, connect_burst=5
)


def client(name: str = "", remote: str = "") -> Client:
    """A client of some user, or of nobody."""
    identity = Identity(name=name) if name else None
    return cast(Client, SimpleNamespace(identity=identity, remote=remote, transport="sse"))


class Visitor:
    """A connection that goes when it is told to, or only when it is cut."""

    channel = LOBBY
    client = client()
    slot: int | None = None

    def __init__(self, connections: Connections, *, stubborn: bool = False) -> None:
        self.connections = connections
        self.stubborn = stubborn
        self.ends: list[object] = []
        #: When it was told to go.
        self.told = 0.0
        connections.add(self)

    def beat(self, now: float) -> float | None:
        return None

    def close(self, code: int, reason: str) -> None:
        self.ends.append(code)
        self.told = asyncio.get_running_loop().time()
        if not self.stubborn:
            self.connections.remove(self)

    def cut(self) -> None:
        self.ends.append("cut")
        self.connections.remove(self)


@pytest.fixture
async def connections() -> Connections:
    """None yet."""
    return Connections(asyncio.get_running_loop(), LIMITS)


async def test_they_are_counted_by_channel(connections: Connections) -> None:
    """Each channel's connections are counted, until they go."""
    first, _ = Visitor(connections), Visitor(connections)
    connections.remove(first)
    assert (len(connections), connections.open["lobby"]) == (1, 1)


@pytest.mark.parametrize(
    ("there", "comes", "key"),
    [
        ([client()] * 10, client(), "server.limits.max_clients"),
        ([client("alice")] * 2, client("alice"), "server.limits.max_clients_per_user"),
        ([client(remote="1.2.3.4")] * 3, client(remote="1.2.3.4"), "server.limits.max_clients_per_address"),
        ([client("alice")] * 2, client("bob"), None),
        ([client()] * 9, client(), None),
    ],
)
async def test_caps(connections: Connections, there: list[Client], comes: Client, key: str | None) -> None:
    """The server, a user and an address have so many places; who has no name takes none of a user's."""
    for one in there:
        connections.count(LOBBY, one, 1)
    full = connections.no_room(LOBBY, comes.identity, comes.remote)
    assert (full and full[0]) == key


async def test_nothing_is_kept_of_who_has_gone(connections: Connections) -> None:
    """Names and addresses are forgotten with the last connection that has them."""
    for change in (1, 1, -1, -1):
        connections.count(LOBBY, client("alice", "1.2.3.4"), change)
    assert connections.users == connections.addresses == connections.open == {}


async def test_connecting_has_a_rate(connections: Connections) -> None:
    """So many may connect at once, and then no more."""
    assert [connections.may_connect() for _ in range(6)] == [True] * 5 + [False]


async def test_ids_are_never_used_again(connections: Connections) -> None:
    """No two clients of one process have the same id."""
    assert len({connections.next_id() for _ in range(100)}) == 100


async def test_all_are_told(connections: Connections) -> None:
    """A shutdown tells everybody the code, and is over when all have gone."""
    visitors = [Visitor(connections) for _ in range(3)]
    await connections.close_all(1001, "bye", grace=60)
    assert [visitor.ends for visitor in visitors] == [[1001]] * 3


async def test_who_does_not_go_is_cut(connections: Connections, caplog: pytest.LogCaptureFixture) -> None:
    """Who has not gone within the grace is cut, which the log counts."""
    visitor = Visitor(connections, stubborn=True)
    with caplog.at_level(logging.WARNING):
        await connections.close_all(1001, "bye", grace=0.01)
    assert visitor.ends == [1001, "cut"]
    assert "1 connections did not end within 0.01s and are cut" in caplog.text


async def test_a_handful_is_told_at_once(connections: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who fits into one batch is told in one turn: there is no needless wait."""
    monkeypatch.setattr(module, "PAUSE", 3600.0)
    visitors = [Visitor(connections) for _ in range(module.TURN)]
    closing = asyncio.create_task(connections.close_all(1001, "bye", grace=60))
    await asyncio.sleep(0)
    assert all(visitor.ends for visitor in visitors)
    await soon(closing)


async def test_many_are_told_in_batches(connections: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many are told some in a turn, with a pause after each batch; all pauses together are bounded."""
    monkeypatch.setattr(module, "BATCH", 10)
    monkeypatch.setattr(module, "TURN", 5)
    monkeypatch.setattr(module, "PAUSE", 3600.0)
    monkeypatch.setattr(module, "SHARE", 0.02)
    visitors = [Visitor(connections) for _ in range(30)]
    told = [0]
    closing = asyncio.create_task(connections.close_all(1001, "bye", grace=10.0))
    begun = now()
    while not closing.done():
        await asyncio.sleep(0)
        count = sum(bool(visitor.ends) for visitor in visitors)
        if count != told[-1]:
            told.append(count)
    assert now() - begun < 1
    assert told == [0, 5, 10, 15, 20, 25, 30]
    times = [visitor.told for visitor in visitors]
    assert times[10] - times[9] > 0.03
    assert times[20] - times[19] > 0.03


async def test_no_pause_is_long(connections: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the grace, a pause between two batches is short."""
    monkeypatch.setattr(module, "BATCH", 10)
    monkeypatch.setattr(module, "TURN", 5)
    monkeypatch.setattr(module, "PAUSE", 0.01)
    visitors = [Visitor(connections) for _ in range(30)]
    await soon(connections.close_all(1001, "bye", grace=3600))
    assert all(visitor.ends == [1001] for visitor in visitors)


async def test_answers_are_waited_for(connections: Connections) -> None:
    """The end comes after who is being answered has been, whoever else has gone."""
    Visitor(connections)
    with connections.answering(LOBBY):
        closing = asyncio.create_task(connections.close_all(1001, "bye", grace=60))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not closing.done()
    await soon(closing)
