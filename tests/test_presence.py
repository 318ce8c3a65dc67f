"""Presence: who is here, told to everybody, in a list, or not at all."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from conftest import Serve, Serving
from wire import EVENTS, Headers, Wire, close, dial, eventually, request, soon, stream, text, websocket

from realtime.transports import connection, presence, websocket as websocket_module

#: A channel whose clients say in their URL what is to happen.
ROOM = {
    "room.py": '''
        import asyncio
        import json
        from realtime import Channel, hookimpl

        class Room(Channel):
            """Does what the URL says."""

            def __init__(self, name, settings, bus):
                super().__init__(name, settings, bus)
                self.seen = []
                self.heads = []
                self.go = asyncio.Event()

            async def on_connect(self, client):
                client.name = client.query.get("name")
                await self.hop(client.query.get("before", "0"))

            async def hop(self, turns):
                for _ in range(int(turns)):
                    await asyncio.sleep(0)

            async def on_join(self, client):
                await self.hop(client.query.get("hops", "0"))
                if client.query.get("join") == "wait":
                    await self.go.wait()
                self.seen.append("joined")
                client.state.joined = True
                self.heads.append(self.bus.topic(client.topic).head)
                if client.query.get("join") == "raise":
                    raise RuntimeError("a bug in on_join")
                if client.query.get("join") == "close":
                    await client.close(4000, "not here")

            def member(self, client):
                wish = client.query.get("member")
                if wish == "raise":
                    raise RuntimeError("a bug in member")
                if wish == "set":
                    return {1, 2}
                if wish == "bytes":
                    return b"x"
                if wish == "deep":  # JSON, but no member of a list: orjson writes 254 levels
                    return {"client": client.id, "about": json.loads("[" * 253 + "]" * 253)}
                if wish == "none":
                    return None
                if wish == "same":
                    client.state.told = {"client": client.id, "mood": "good"}
                    return client.state.told
                if wish == "long":
                    return {"client": client.id, "about": "x" * 1000}
                return super().member(client)

            def as_text(self, message):
                return "all!" if message.event == "realtime:members" else super().as_text(message)

            async def on_message(self, client, message):
                if message.data == "rename":
                    client.name = "other"
                    client.state.told["mood"] = "bad"
                if message.data == "hang":
                    await asyncio.Event().wait()
                if message.data == "raise":
                    raise RuntimeError("a bug in on_message")
                if message.data == "cancel":
                    asyncio.current_task().cancel()
                    await asyncio.sleep(0)

            async def on_leave(self, client):
                self.seen.append("left")
                self.heads.append(self.bus.topic(client.topic).head)
                if client.query.get("leave") == "raise":
                    raise RuntimeError("a bug in on_leave")

        @hookimpl
        def register_channels():
            return {"room": Room}
    '''
}
V1: Headers = [("Sec-WebSocket-Protocol", "realtime.v1.json")]


def config(mode: str = "announce", more: str = "") -> str:
    """A config with a room."""
    return f"channels: {{room: {{plugin: room, path: /room, presence: {mode}{more}}}}}"


def room(serving: Serving) -> Any:
    """The channel."""
    return serving.server.channels["room"]


@asynccontextmanager
async def watched(serving: Serving) -> AsyncIterator[list[tuple[str, Any]]]:
    """What is published to the room from now on: event and data of each."""
    seen: list[tuple[str, Any]] = []
    entered = asyncio.Event()

    async def watch() -> None:
        async with serving.server.bus.subscribe("room") as messages:
            entered.set()
            async for message in messages:
                seen.append((message.event, message.data))

    watching = asyncio.create_task(watch())
    await soon(entered.wait())
    try:
        yield seen
    finally:
        watching.cancel()


async def until(seen: list[Any], count: int) -> list[Any]:
    """What has been seen, when there is so much."""
    await eventually(lambda: len(seen) >= count)
    return seen


async def told(wire: Wire, protocol: str) -> tuple[str, Any]:
    """The next event of a stream or of a WebSocket of objects, and its data."""
    if protocol == "sse":
        fields = await wire.event()
        data = fields["data"]
        return fields.get("event", "message"), json.loads(data) if data.startswith("{") else data
    fields = json.loads(await wire.text())
    return fields["event"], fields["data"]


@asynccontextmanager
async def member(serving: Serving, protocol: str, query: str = "") -> AsyncIterator[Wire]:
    """Somebody in the room; of objects or events the welcome has been read."""
    path = f"/room?{query}"
    if protocol == "sse":
        async with stream(serving.port, path) as wire:
            yield wire
    else:
        async with websocket(serving.port, path, headers=V1 if protocol == "v1" else ()) as wire:
            if protocol == "v1":
                assert json.loads(await wire.text())["event"] == "realtime:welcome"
            yield wire


class View:
    """Who is here, as a client knows it from its list and from what came after it."""

    def __init__(self) -> None:
        self.here: dict[str, Any] | None = None

    def see(self, event: str, data: Any) -> None:
        """An event; it must fit what is known."""
        if event == "realtime:members":
            self.here = {each["client"]: each for each in data["members"]}
            assert len(self.here) == len(data["members"])
        elif self.here is not None and event == "realtime:join":
            assert data["client"] not in self.here
            self.here[data["client"]] = data
        elif self.here is not None and event == "realtime:leave":
            assert self.here.pop(data["client"]) == data


# Announced


async def test_everybody_is_told_who_comes_and_goes(serve: Serve) -> None:
    """A join is told with the client and its name, the leave in the same words."""
    async with serve(config(), ROOM) as serving, watched(serving) as seen:
        async with member(serving, "plain", "name=alice"):
            await until(seen, 1)
        (client,) = {data["client"] for _, data in await until(seen, 2)}
    alice = {"client": client, "name": "alice"}
    assert seen == [("realtime:join", alice), ("realtime:leave", alice)]


async def test_between_on_join_and_on_leave(serve: Serve) -> None:
    """The join is told after ``on_join``, the leave before ``on_leave``."""
    async with serve(config(), ROOM) as serving, watched(serving) as seen:
        async with member(serving, "plain"):
            await until(seen, 1)
        await eventually(lambda: "left" in room(serving).seen)
    assert room(serving).heads == [0, 2]


@pytest.mark.parametrize("protocol", ["sse", "v1"])
async def test_newcomer_is_told_who_is_here(serve: Serve, protocol: str) -> None:
    """After its own join a newcomer has the list, in which it is the last, and which has no position."""
    async with (
        serve(config(), ROOM) as serving,
        member(serving, "v1", "name=alice") as alice,
    ):
        assert (await told(alice, "v1"))[0] == "realtime:join"
        async with member(serving, protocol, "name=bob") as bob:
            event, itself = await told(bob, protocol)
            assert (event, itself["name"]) == ("realtime:join", "bob")
            answer: dict[str, Any] = (
                await bob.event() if protocol == "sse" else json.loads(await bob.text())
            )
            assert (answer["event"], "id" in answer) == ("realtime:members", False)
            data = json.loads(answer["data"]) if protocol == "sse" else answer["data"]
            assert [each["name"] for each in data["members"]] == ["alice", "bob"]
            assert data == {"members": room(serving).members("room")}


async def test_plain_frames_have_no_room_for_it(serve: Serve) -> None:
    """A plain WebSocket sees nothing of it, unless its channel shows it."""
    async with serve(config(), ROOM) as serving, member(serving, "plain") as wire:
        await eventually(lambda: bool(room(serving).members("room")))
        await serving.server.bus.publish("room", "first")
        assert await wire.text() == "first"


async def test_list_is_in_the_order_of_the_joins(serve: Serve) -> None:
    """Who was told of first stands first, whoever connected first."""
    async with (
        serve(config(), ROOM) as serving,
        member(serving, "plain", "name=slow&join=wait"),
    ):
        await eventually(lambda: bool(room(serving).clients))
        async with member(serving, "plain", "name=quick"):
            await eventually(lambda: len(room(serving).members("room")) == 1)
            room(serving).go.set()
            await eventually(lambda: len(room(serving).members("room")) == 2)
            assert [each["name"] for each in room(serving).members("room")] == ["quick", "slow"]


async def test_list_comes_behind_a_replay(serve: Serve) -> None:
    """Who resumes has the list at its place: behind what was kept, its own join included."""
    async with serve(config(more=", history: 9"), ROOM) as serving, watched(serving) as seen:
        async with member(serving, "plain"):
            await until(seen, 1)
        await until(seen, 2)
        async with member(serving, "sse", "since=earliest&name=bob") as bob:
            events = [await told(bob, "sse") for _ in range(4)]
    assert [event for event, _ in events] == [
        "realtime:join",
        "realtime:leave",
        "realtime:join",
        "realtime:members",
    ]
    assert [each["name"] for each in events[3][1]["members"]] == ["bob"]


async def test_of_whom_nothing_is_told(serve: Serve) -> None:
    """For whom ``member`` returns None nobody is told of, but it is told of the others."""
    async with serve(config(), ROOM) as serving, watched(serving) as seen:
        async with member(serving, "sse", "name=alice"):
            await until(seen, 1)
            async with member(serving, "sse", "member=none") as reader:
                event, data = await told(reader, "sse")
                assert (event, [each["name"] for each in data["members"]]) == (
                    "realtime:members",
                    ["alice"],
                )
        await until(seen, 2)
        await eventually(lambda: room(serving).seen.count("left") == 2)
    assert [event for event, _ in seen] == ["realtime:join", "realtime:leave"]


async def test_leave_has_the_words_of_the_join(serve: Serve) -> None:
    """What is told of a client is what it was when it came, whatever becomes of its name."""
    async with (
        serve(config(), ROOM) as serving,
        watched(serving) as seen,
        member(serving, "plain", "name=alice&member=same") as wire,
    ):
        await wire.send(text("rename") + close(1000))
        await until(seen, 2)
    assert seen[0][1] == seen[1][1]
    assert seen[0][1]["mood"] == "good"


# A large room


async def test_most_members_of_a_list(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more members than a list takes it has the newest, the newcomer included, and their number."""
    monkeypatch.setattr(presence, "MAX_MEMBERS", 3)
    async with serve(config(), ROOM) as serving, AsyncExitStack() as stack:
        for number in range(5):
            wire = await stack.enter_async_context(member(serving, "sse", f"name={number}"))
            assert (await told(wire, "sse"))[0] == "realtime:join"
            event, data = await told(wire, "sse")
            names = [str(each) for each in range(number + 1)]
            assert event == "realtime:members"
            assert [each["name"] for each in data["members"]] == names[-3:]
            assert data.get("count") == (number + 1 if number >= 3 else None)


async def test_longest_list(serve: Serve) -> None:
    """A list takes at most half of what may wait for a client, however much is told of each member."""
    async with serve(config(), ROOM) as serving, AsyncExitStack() as stack:
        for _ in range(50):
            wire = await stack.enter_async_context(member(serving, "sse", "member=long"))
            event, itself = await told(wire, "sse")
            assert event == "realtime:join"
            event, data = await told(wire, "sse")
            assert len(json.dumps(data)) <= presence.MAX_LIST * 1.1  # these JSON texts have spaces
            assert data["members"][-1] == itself
        assert len(data["members"]) < 50 == data["count"]


async def test_member_larger_than_a_list(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not even one member fits the list is empty, and says how many there are."""
    monkeypatch.setattr(presence, "MAX_LIST", 100)
    async with serve(config(), ROOM) as serving, member(serving, "sse", "member=long") as wire:
        assert (await told(wire, "sse"))[0] == "realtime:join"
        assert await told(wire, "sse") == ("realtime:members", {"members": [], "count": 1})


async def test_thousand_clients_of_which_nobody_is_told(serve: Serve) -> None:
    """With ``presence: list`` a thousand clients come and go without a write or a message."""
    async with serve(config("list"), ROOM) as serving, AsyncExitStack() as stack:
        bus = serving.server.bus
        for number in range(1000):
            wire = await stack.enter_async_context(
                dial(serving.port, request(f"/room?name={number}", EVENTS))
            )
            assert (await wire.head()).status == 200
        await eventually(lambda: len(room(serving).members("room")) == 1000)
        assert [each["name"] for each in room(serving).members("room")][:2] == ["0", "1"]
        await stack.aclose()
        await eventually(lambda: not room(serving).clients)
        assert room(serving).members("room") == []
        assert (bus.topic("room").head, bus.traffic["room"].writes) == (0, 0)


# Not announced


async def test_off(serve: Serve) -> None:
    """With ``presence: off``, which needs no quotes, nothing is told and nobody is listed."""
    async with serve(config("off"), ROOM) as serving, member(serving, "sse", "member=raise") as wire:
        await eventually(lambda: len(room(serving).clients) == 1)
        assert room(serving).members("room") == []
        await serving.server.bus.publish("room", "first")
        assert await told(wire, "sse") == ("message", "first")


async def test_nobody_is_told_by_default(serve: Serve) -> None:
    """Without the setting nothing is told."""
    plain = "channels: {room: {plugin: room, path: /room}}"
    async with serve(plain, ROOM) as serving, member(serving, "sse") as wire:
        await eventually(lambda: len(room(serving).clients) == 1)
        await serving.server.bus.publish("room", "first")
        assert await told(wire, "sse") == ("message", "first")


# However it ends


NOT_IN = ["join=raise", "join=close", *(f"member={wish}" for wish in ("raise", "set", "bytes", "deep"))]


@pytest.mark.parametrize("query", NOT_IN)
async def test_who_did_not_get_in_was_never_here(serve: Serve, query: str) -> None:
    """Whom ``on_join`` or ``member`` fails, or whom ``on_join`` closes, nobody is told of; it leaves."""
    async with serve(config(), ROOM) as serving, watched(serving) as seen:
        async with member(serving, "plain", query) as wire:
            assert await wire.close_code() == (4000 if query == "join=close" else 1011)
        await eventually(lambda: "left" in room(serving).seen)
    assert seen == []


async def closed(serving: Serving, wire: Wire) -> None:
    """The client closes."""
    await wire.send(close(1000))


async def finished(serving: Serving, wire: Wire) -> None:
    """The client says that nothing more is coming, and stays."""
    wire.finish()


async def reset(serving: Serving, wire: Wire) -> None:
    """The client is gone with a RST."""
    wire.reset()


async def garbage(serving: Serving, wire: Wire) -> None:
    """The client breaks the protocol."""
    await wire.send(b"\xff" * 100)


async def kicked(serving: Serving, wire: Wire) -> None:
    """The channel closes it."""
    (client,) = room(serving).clients
    await client.close(4403, "go")


async def too_slow(serving: Serving, wire: Wire) -> None:
    """It reads nothing until the log has left it behind."""
    (client,) = room(serving).clients
    while not client.closed:
        await serving.server.bus.publish("room", "x" * 50_000)
        await asyncio.sleep(0)


async def stopped(serving: Serving, wire: Wire) -> None:
    """The server shuts down."""
    await serving.server.stop()


Way = Callable[[Serving, Wire], Coroutine[Any, Any, None]]


def saying(wish: str) -> Way:
    """It says something that ends it, and goes."""

    async def say(serving: Serving, wire: Wire) -> None:
        await wire.send(text(wish))
        wire.finish()

    say.__name__ = wish
    return say


async def silent(serving: Serving, wire: Wire) -> None:
    """It answers no ping."""


WAYS: list[Way] = [closed, finished, reset, garbage, kicked, too_slow, stopped, silent]
WAYS += [saying("raise"), saying("cancel"), saying("hang"), saying("hello")]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("query", ["", "leave=raise"])
async def test_one_leave_for_each_join(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, way: Way, query: str
) -> None:
    """However a client ends its leave is told once, and nobody is left over."""
    monkeypatch.setattr(connection, "LEAVE_GRACE", 0.05)
    monkeypatch.setattr(connection, "CLOSE_GRACE", 0.05)
    if way is silent:
        monkeypatch.setattr(websocket_module, "PING_AFTER", 0.02)
        monkeypatch.setattr(websocket_module, "PONG_WITHIN", 0.02)
    async with serve(config(more=", lag_bytes: 64KiB"), ROOM) as serving, watched(serving) as seen:
        async with websocket(serving.port, f"/room?{query}", receive_buffer=4096) as wire:
            await until(seen, 1)
            await way(serving, wire)
            await eventually(lambda: "left" in room(serving).seen)
        if way is not stopped:
            await serving.server.stop()
    told = [(event, data) for event, data in seen if event in ("realtime:join", "realtime:leave")]
    assert [event for event, _ in told] == ["realtime:join", "realtime:leave"]
    assert told[0][1] == told[1][1]


@pytest.mark.parametrize("way", [finished, reset, kicked, stopped], ids=lambda way: way.__name__)
async def test_one_leave_for_each_stream(serve: Serve, way: Way) -> None:
    """The same is true of a stream of events."""
    async with serve(config(), ROOM) as serving, watched(serving) as seen:
        async with member(serving, "sse") as wire:
            await until(seen, 1)
            await way(serving, wire)
            await eventually(lambda: "left" in room(serving).seen)
        await serving.server.stop()
    assert [event for event, _ in seen] == ["realtime:join", "realtime:leave"]


async def test_who_says_something_and_goes_was_here(serve: Serve) -> None:
    """Who is gone before ``on_join`` returns, and said something, has come and left."""
    async with serve(config(), ROOM) as serving, watched(serving) as seen:
        async with websocket(serving.port, "/room?hops=100", text("hello")) as wire:
            await eventually(lambda: bool(room(serving).clients))
            wire.reset()
        await until(seen, 2)
    assert [event for event, _ in seen] == ["realtime:join", "realtime:leave"]


@pytest.mark.parametrize("seed", range(6))
async def test_everybody_knows_who_is_here(serve: Serve, seed: int) -> None:
    """Whoever comes and goes, for each who is there its list, the joins and the leaves are the truth."""
    dice = random.Random(seed)
    async with serve(config(more=", history: 20, lag: 1m"), ROOM) as serving, AsyncExitStack() as stack:
        there: dict[str, tuple[str, Wire]] = {}
        for number in range(200):
            deed = dice.random()
            if deed < 0.55 or not there:
                protocol = dice.choice(["plain", "v1", "sse"])
                query = f"name={number}&before={dice.randrange(3)}&hops={dice.randrange(5)}"
                query += dice.choice(["", "", "&member=none"])
                query += dice.choice(["", "", "&since=-5", "&since=earliest"])
                if dice.random() < 0.1:
                    await stack.enter_async_context(member(serving, "plain", f"{query}&join=raise"))
                    continue
                if protocol == "plain":
                    query = query.partition("&since")[0]  # it cannot be told what is missing
                wire = await stack.enter_async_context(member(serving, protocol, query))
                there[str(number)] = protocol, wire
            elif deed < 0.85:
                protocol, wire = there.pop(dice.choice(list(there)))
                await dice.choice([finished, reset, closed if protocol != "sse" else reset])(serving, wire)
            else:
                size = dice.choice([10, 100, 3000])
                await serving.server.bus.publish("room", "x" * size)
                for _ in range(dice.randrange(10)):
                    await asyncio.sleep(0)
        clients = room(serving).clients
        await eventually(
            lambda: (
                {client.name for client in clients if hasattr(client.state, "joined")} == there.keys()
                and len(clients) == len(there)
            )
        )
        truth = {each["client"]: each for each in room(serving).members("room")}
        await serving.server.bus.publish("room", "end")
        for protocol, wire in there.values():
            if protocol == "plain":
                continue
            view = View()
            while (seen := await told(wire, protocol)) != ("message", "end"):
                view.see(*seen)
            assert view.here == truth
