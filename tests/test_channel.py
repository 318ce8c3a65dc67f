"""The channel's own behaviour, where a plugin overrides nothing, and the client's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from conftest import Serve
from pydantic import ValidationError
from websockets.asyncio.client import ClientConnection, connect
from wire import eventually

from realtime import Bus, Channel, Client, Message
from realtime.channel import TRANSPORTS
from realtime.permissions import Identity

#: A channel that overrides nothing but how it can be told apart from echo.
SILENT = """\
from realtime import Channel, hookimpl


class Silent(Channel):
    transports = ("websocket", "sse")


@hookimpl
def register_channels():
    return {"silent": Silent}
"""
GREETING = """\
from realtime import Channel, hookimpl


class Greeting(Channel):
    async def on_connect(self, client):
        await client.receive(timeout=0.01)


@hookimpl
def register_channels():
    return {"greeting": Greeting}
"""
CONFIG = """
    channels:
      silent: {plugin: silent, path: /silent}
      rooms: {plugin: silent, path: "/rooms/{room}"}
"""
FILES = {"silent.py": SILENT}


async def until_joined(channel: Channel, count: int) -> list[Client]:
    """The clients of a channel, when there are so many."""
    await eventually(lambda: len(channel.clients) == count)
    return list(channel.clients)


@asynccontextmanager
async def joined(
    serve: Serve, *paths: str
) -> AsyncIterator[tuple[Channel, Sequence[ClientConnection], list[Client]]]:
    """A running channel and clients that have joined it, one after the other."""
    async with serve(CONFIG, FILES) as serving:
        channel = serving.server.channels["rooms" if "/rooms/" in paths[0] else "silent"]
        sockets: list[ClientConnection] = []
        try:
            for path in paths:
                sockets.append(await connect(serving.ws(path)))
                clients = await until_joined(channel, len(sockets))
            yield channel, sockets, clients
        finally:
            for socket in sockets:
                await socket.close()


async def texts(socket: ClientConnection, count: int) -> list[str | bytes]:
    """The next messages of a client."""
    async with asyncio.timeout(5):
        return [await socket.recv() for _ in range(count)]


def settings(**values: Any) -> Channel.Settings:
    """Settings of a channel, with defaults."""
    return Channel.Settings.model_validate({"plugin": "x", "path": "/x", **values})


@pytest.fixture
async def channel() -> Channel:
    """A channel that no server runs."""
    bus = Bus()
    bus.declare("x")
    return Channel("x", settings(), bus)


# The defaults


async def test_message_is_answered_by_nothing(channel: Channel) -> None:
    """A channel that overrides nothing publishes nothing for a message."""
    client: Any = object()
    assert await channel.on_message(client, Message.of("hi", time=0)) is None


@pytest.mark.parametrize(
    ("data", "event", "text"),
    [
        ("hi", "message", "hi"),
        ({"a": [1, "é"]}, "message", '{"a":[1,"é"]}'),
        ("hi", "other", "hi"),
        ({"name": "alice"}, "realtime:join", None),
    ],
)
async def test_as_text(channel: Channel, data: object, event: str, text: str | None) -> None:
    """Text is shown as it is, other data as JSON, events of the host not at all."""
    assert channel.as_text(Message.of(data, event=event, time=0)) == text


async def test_lifespan_is_empty(channel: Channel) -> None:
    """A channel that overrides nothing has a lifespan that does nothing."""
    async with channel.lifespan() as entered:
        assert entered is None


async def test_name_and_bus(channel: Channel) -> None:
    """A channel knows its name, the bus and its settings."""
    assert (channel.name, channel.settings) == ("x", settings())
    await channel.publish("x", "hi")
    assert channel.bus.topic("x").head == 1


def test_transports() -> None:
    """A channel serves every transport, a WebSocket first."""
    assert tuple(Channel.transports) == TRANSPORTS == ("websocket", "sse", "ndjson", "json", "post")


class Greeting(Channel):
    """Asks something of who connects."""

    async def on_connect(self, client: Client) -> None:
        await client.receive()


class Open(Greeting):
    """Says that it can do without."""

    transports = ("websocket", "post")


class Later(Open):
    """Asks again, of who it is open to."""

    async def on_connect(self, client: Client) -> None:
        await super().on_connect(client)


@pytest.mark.parametrize(
    ("kind", "transports"),
    [
        (Greeting, ("websocket", "sse", "ndjson")),
        (Open, ("websocket", "post")),
        (Later, ("websocket", "post")),
        (type("Further", (Greeting,), {}), ("websocket", "sse", "ndjson")),
    ],
)
def test_what_asks_on_connecting_is_passed_by_only_if_it_says_so(
    kind: type[Channel], transports: tuple[str, ...]
) -> None:
    """No POST and no snapshot passes an ``on_connect`` by, unless the type has said that it serves them."""
    assert tuple(kind.transports) == transports


async def test_options_of_the_topics_are_the_settings(channel: Channel) -> None:
    """What the bus keeps is what the settings say."""
    made = settings(history=7, history_age="2s", lag="3s", lag_bytes="4KiB", overflow="skip")
    options = Channel("x", made, channel.bus).topic_options()
    assert (options.history, options.history_age, options.lag, options.lag_bytes, options.overflow) == (
        7,
        2.0,
        3.0,
        4096,
        "skip",
    )


def test_settings_need_a_path() -> None:
    """A channel's path has no default."""
    with pytest.raises(ValidationError, match="path"):
        Channel.Settings.model_validate({"plugin": "x"})


def test_identity_is_a_name() -> None:
    """Two identities of one name are equal."""
    assert Identity(name="alice") == Identity(name="alice") != Identity(name="bob")


# Who is here


async def test_member_is_the_client_and_its_name(serve: Serve) -> None:
    """What is told of a client is its id, and its name if it has one."""
    async with joined(serve, "/silent") as (channel, _, [client]):
        assert channel.member(client) == {"client": client.id}
        client.name = "alice"
        assert channel.member(client) == {"client": client.id, "name": "alice"}


async def test_members_of_a_topic(serve: Serve) -> None:
    """The members are those of one topic, in the order in which they came; without presence none."""
    listed = CONFIG.replace('/rooms/{room}"', '/rooms/{room}", presence: list')
    async with serve(listed, FILES) as serving:
        rooms, silent = serving.server.channels["rooms"], serving.server.channels["silent"]
        async with (
            connect(serving.ws("/rooms/a")),
            connect(serving.ws("/rooms/b")),
            connect(serving.ws("/silent")),
        ):
            await until_joined(silent, 1)
            first, second = await until_joined(rooms, 2)
            async with connect(serving.ws("/rooms/a")):
                await until_joined(rooms, 3)
                third = list(rooms.clients)[-1]
                told = [{"client": client.id} for client in (first, second, third)]
                here = {topic: rooms.members(f"rooms/{topic}") for topic in "abc"}
                assert here == {"a": [told[0], told[2]], "b": [told[1]], "c": []}
                assert silent.members("silent") == []


@pytest.mark.parametrize(
    ("written", "mode"), [("off", "off"), ('"off"', "off"), ("false", "off"), ("list", "list")]
)
async def test_presence_is_off_without_quotes(serve: Serve, written: str, mode: str) -> None:
    """``presence: off`` means what it says, although YAML reads it as false."""
    config = f"channels: {{silent: {{plugin: silent, path: /silent, presence: {written}}}}}"
    async with serve(config, FILES) as serving:
        assert serving.server.channels["silent"].settings.presence == mode


@pytest.mark.parametrize("value", [True, None, "on", "", 0])
def test_presence_that_is_none(value: object) -> None:
    """Nothing else is a kind of presence."""
    with pytest.raises(ValidationError, match="'off', 'list' or 'announce'"):
        settings(presence=value)


# Publishing


async def test_publish_reaches_everybody(serve: Serve) -> None:
    """What a channel publishes reaches all clients of the topic."""
    async with joined(serve, "/silent", "/silent") as (channel, sockets, _):
        await channel.publish("silent", "hi")
        assert [await texts(socket, 1) for socket in sockets] == [["hi"], ["hi"]]


async def test_publish_excludes_one(serve: Serve) -> None:
    """The excluded client does not see the message, and sees the next one."""
    async with joined(serve, "/silent", "/silent") as (channel, sockets, clients):
        await channel.publish("silent", "to the other", exclude=clients[0])
        await channel.publish("silent", "to both")
        assert await texts(sockets[0], 1) == ["to both"]
        assert await texts(sockets[1], 2) == ["to the other", "to both"]


async def test_position_is_returned(serve: Serve) -> None:
    """Publishing returns where the message stands."""
    async with joined(serve, "/silent") as (channel, _, _):
        first, second = await channel.publish("silent", 1), await channel.publish("silent", 2)
        assert (first.epoch, first.offset + 1) == (second.epoch, second.offset)


async def test_topics_are_those_of_the_channel(serve: Serve) -> None:
    """A channel's topics are those that exist now, and none of another channel."""
    async with serve(CONFIG, FILES) as serving:
        rooms = serving.server.channels["rooms"]
        assert rooms.topics == []
        async with (
            connect(serving.ws("/rooms/b")),
            connect(serving.ws("/rooms/a")),
            connect(serving.ws("/silent")),
        ):
            await until_joined(rooms, 2)
            assert rooms.topics == ["rooms/b", "rooms/a"]


async def test_clients_are_those_who_are_in(serve: Serve) -> None:
    """A channel's clients are those that joined and have not left, on all its topics."""
    async with joined(serve, "/rooms/a", "/rooms/b") as (channel, sockets, clients):
        assert [client.topic for client in clients] == ["rooms/a", "rooms/b"]
        await sockets[0].close()
        assert await until_joined(channel, 1) == clients[1:]


# Removing


async def ended(socket: ClientConnection) -> tuple[int | None, str | None]:
    """With what a client is closed."""
    async with asyncio.timeout(5):
        await socket.wait_closed()
    return socket.close_code, socket.close_reason


async def test_kick_by_id(serve: Serve) -> None:
    """One client is closed with 4403, and nobody else."""
    async with joined(serve, "/silent", "/silent") as (channel, sockets, clients):
        assert await channel.kick("silent", id=clients[0].id) == 1
        assert await ended(sockets[0]) == (4403, "you were removed from the channel")
        assert await until_joined(channel, 1) == clients[1:]
        await channel.publish("silent", "still here")
        assert await texts(sockets[1], 1) == ["still here"]


async def test_kick_by_name(serve: Serve) -> None:
    """Everybody who has the name is closed, with the reason that is given."""
    async with joined(serve, "/silent", "/silent", "/silent") as (channel, sockets, clients):
        clients[0].name = clients[2].name = "alice"
        assert await channel.kick("silent", name="alice", reason="enough") == 2
        assert [await ended(sockets[n]) for n in (0, 2)] == [(4403, "enough")] * 2
        assert await until_joined(channel, 1) == [clients[1]]


async def test_kick_in_one_topic_only(serve: Serve) -> None:
    """The same name in another room stays, and an id of another room is not found."""
    async with joined(serve, "/rooms/a", "/rooms/b") as (channel, _, clients):
        clients[0].name = clients[1].name = "alice"
        assert await channel.kick("rooms/b", id=clients[0].id) == 0
        assert await channel.kick("rooms/b", name="alice") == 1
        assert await until_joined(channel, 1) == clients[:1]


@pytest.mark.parametrize("whom", [{}, {"id": ""}, {"name": ""}, {"id": "c999"}, {"name": "zoe"}], ids=str)
async def test_kick_of_nobody(serve: Serve, whom: dict[str, str]) -> None:
    """Who is not there is not removed, and nobody is who has no name."""
    async with joined(serve, "/silent") as (channel, _, [client]):
        assert await channel.kick("silent", id=whom.get("id"), name=whom.get("name")) == 0
        assert not client.closed


async def test_kick_is_no_ban(serve: Serve) -> None:
    """Who was removed can come back."""
    async with serve(CONFIG, FILES) as serving:
        channel = serving.server.channels["silent"]
        for _ in range(2):
            async with connect(serving.ws("/silent")) as socket:
                (client,) = await until_joined(channel, 1)
                assert await channel.kick("silent", id=client.id) == 1
                assert (await ended(socket))[0] == 4403
            await until_joined(channel, 0)


# The client


async def test_client_knows_itself(serve: Serve) -> None:
    """A client has its transport, its topic, its query without tokens, and no name or identity."""
    async with joined(serve, "/rooms/a?color=red&token=secret&since=earliest") as (_, _, [client]):
        assert (client.transport, client.topic, client.name, client.identity) == (
            "websocket",
            "rooms/a",
            None,
            None,
        )
        assert (dict(client.query), client.remote) == ({"color": "red"}, "127.0.0.1")


async def test_client_in_a_log(serve: Serve) -> None:
    """A client is shown with its id, its name, its topic and its transport."""
    async with joined(serve, "/silent") as (_, _, [client]):
        assert repr(client) == f"<Client {client.id} - on silent by websocket>"
        client.name = "alice"
        assert repr(client) == f"<Client {client.id} alice on silent by websocket>"


async def test_ids_differ(serve: Serve) -> None:
    """No two clients have the same id."""
    async with joined(serve, "/silent", "/silent") as (_, _, clients):
        assert clients[0].id != clients[1].id


async def test_state_is_the_channels_own(serve: Serve) -> None:
    """A channel may remember whatever it wants about a client."""
    async with joined(serve, "/silent") as (channel, _, [client]):
        client.state.rolls = 3
        assert [each.state.rolls for each in channel.clients] == [3]


async def test_send_reaches_one(serve: Serve) -> None:
    """What is sent to a client reaches it alone, after what was published before."""
    async with joined(serve, "/silent", "/silent") as (channel, sockets, clients):
        await channel.publish("silent", "first")
        await clients[0].send(b"\x00")
        await clients[0].send({"third": 3})
        await channel.publish("silent", "last")
        assert await texts(sockets[0], 4) == [
            "first",
            b"\x00",
            json.dumps({"third": 3}, separators=(",", ":")),
            "last",
        ]
        assert await texts(sockets[1], 2) == ["first", "last"]


async def test_send_refuses_what_is_no_message(serve: Serve) -> None:
    """Data that no message can carry is refused to the one who sends it."""
    async with joined(serve, "/silent") as (_, _, [client]):
        with pytest.raises(ValueError, match="this data is no JSON"):
            await client.send(object())


async def test_close_has_a_code_and_a_reason(serve: Serve) -> None:
    """The code and the reason of a close reach the client."""
    async with joined(serve, "/silent") as (_, [socket], [client]):
        await client.close(4403, "not you")
        async with asyncio.timeout(5):
            await socket.wait_closed()
        assert (socket.close_code, socket.close_reason) == (4403, "not you")


async def test_closed_at_once(serve: Serve) -> None:
    """A client is closed from the moment its close begins."""
    async with joined(serve, "/silent") as (_, _, [client]):
        assert not client.closed
        await client.close()
        assert client.closed


async def test_send_after_close_does_nothing(serve: Serve) -> None:
    """What is sent to a closed client is dropped without an error."""
    async with joined(serve, "/silent") as (channel, [socket], [client]):
        await client.close(1000, "done")
        await client.send("too late")
        await client.close(4403, "too late")
        async with asyncio.timeout(5):
            await socket.wait_closed()
        assert [message async for message in socket] == []
        assert (socket.close_code, socket.close_reason) == (1000, "done")
        await until_joined(channel, 0)
        await client.send("much too late")


async def test_ping(serve: Serve) -> None:
    """A client that is there answers a ping, one that is closed does not."""
    async with joined(serve, "/silent") as (_, _, [client]):
        assert await client.ping(timeout=5)
        await client.close()
        assert not await client.ping(timeout=5)


async def test_receive_has_a_timeout(serve: Serve) -> None:
    """Who waits for a greeting does not wait longer than it says: the client is closed with 1008."""
    async with serve(
        "channels: {greeting: {plugin: greeting, path: /greeting}}", {"greeting.py": GREETING}
    ) as serving:
        async with connect(serving.ws("/greeting")) as socket, asyncio.timeout(5):
            await socket.wait_closed()
        assert (socket.close_code, socket.close_reason) == (1008, "nothing was received in time")
