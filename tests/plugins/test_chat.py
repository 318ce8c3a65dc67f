"""Chat, as clients that others wrote see it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import needs
import pytest
from conftest import Serve, Serving
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol
from wire import install_ws, lines, post, running, soon, stream, text, websocket

CHAT = "channels: {lobby: {plugin: chat, path: /chat, history: 100}}"
#: Who a request is, as its ``?token=`` says.
TOKENS = {
    "tokens.py": """
        from realtime import hookimpl
        from realtime.channel import Identity

        @hookimpl
        def authenticate(request):
            token = request.query.get("token")
            return Identity(name=token) if token else None
    """
}


@pytest.fixture(scope="session")
def ws(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of node's ``ws``."""
    return install_ws(tmp_path_factory)


async def heard(client: ClientConnection, count: int) -> list[str]:
    """The next texts."""
    texts = [await soon(client.recv()) for _ in range(count)]
    return [text if isinstance(text, str) else repr(text) for text in texts]


async def ended(client: ClientConnection) -> tuple[int, str]:
    """The code and the reason of the close, which comes before any message."""
    with pytest.raises(ConnectionClosed) as caught:
        await soon(client.recv())
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


@asynccontextmanager
async def joined(serving: Serving, name: str, path: str = "/chat") -> AsyncIterator[ClientConnection]:
    """A client that has said its name and seen itself join."""
    async with connect(serving.ws(path)) as client:
        await client.send(name)
        assert await heard(client, 1) == [f"{name} joined the chat"]
        yield client


# Who says what


async def test_conversation(serve: Serve) -> None:
    """Joins, messages and leaves come to all in one order, to the newcomer and the sender too."""
    async with serve(CHAT) as serving, joined(serving, "alice") as alice:
        async with joined(serving, "bob") as bob:
            await alice.send("hi")
            assert await heard(bob, 1) == ["alice: hi"]
            await bob.send("hello")
            assert await heard(bob, 1) == ["bob: hello"]
            async with joined(serving, "carol") as carol:
                await carol.send("hey")
                assert await heard(carol, 1) == ["carol: hey"]
                assert await heard(bob, 2) == ["carol joined the chat", "carol: hey"]
            assert await heard(bob, 1) == ["carol left the chat"]
        assert await heard(alice, 7) == [
            "bob joined the chat",
            "alice: hi",
            "bob: hello",
            "carol joined the chat",
            "carol: hey",
            "carol left the chat",
            "bob left the chat",
        ]


async def test_one_order_for_all(serve: Serve) -> None:
    """Ten who talk at once are heard in the same order by everybody."""
    async with serve(CHAT) as serving, AsyncExitStack() as stack:
        clients: list[ClientConnection] = []
        for n in range(10):
            client = await stack.enter_async_context(joined(serving, f"c{n}"))
            for other in clients:
                await heard(other, 1)
            clients.append(client)

        async def talk(n: int) -> None:
            for m in range(20):
                await clients[n].send(f"{n}.{m}")

        await asyncio.gather(*map(talk, range(10)))
        seen = await asyncio.gather(*(heard(client, 200) for client in clients))
    assert all(texts == seen[0] for texts in seen)
    assert sorted(seen[0]) == sorted(f"c{n}: {n}.{m}" for n in range(10) for m in range(20))


async def test_said_between_connecting_and_naming(serve: Serve) -> None:
    """What is said after somebody has connected is delivered when it has named itself, in order."""
    async with (
        serve(CHAT) as serving,
        joined(serving, "alice") as alice,
        connect(serving.ws("/chat")) as bob,
    ):
        await alice.send("one")
        await alice.send("two")
        assert await heard(alice, 2) == ["alice: one", "alice: two"]
        await bob.send("bob")
        assert await heard(bob, 3) == ["alice: one", "alice: two", "bob joined the chat"]


async def test_newcomer_asks_for_history(serve: Serve) -> None:
    """Who asks with ``since`` gets what was said before it came."""
    async with serve(CHAT) as serving, joined(serving, "alice") as alice:
        await alice.send("one")
        await heard(alice, 1)
        async with connect(serving.ws("/chat?since=-1")) as bob:
            await bob.send("bob")
            assert await heard(bob, 2) == ["alice: one", "bob joined the chat"]


async def test_who_only_connected_is_not_announced(serve: Serve) -> None:
    """Somebody who goes without a name was never there."""
    async with serve(CHAT) as serving, joined(serving, "alice") as alice:
        async with connect(serving.ws("/chat")):
            pass
        await alice.send("hi")
        assert await heard(alice, 1) == ["alice: hi"]


@pytest.mark.parametrize("first", [True, False], ids=["as the name", "later"])
async def test_binary(serve: Serve, first: bool) -> None:
    """Binary closes with 1003, and whoever was in leaves."""
    async with serve(CHAT) as serving, joined(serving, "alice") as alice:
        async with connect(serving.ws("/chat")) as bob:
            if not first:
                await bob.send("bob")
                await heard(bob, 1)
            await bob.send(b"bytes")
            assert await ended(bob) == (1003, "the chat takes text only")
        await alice.send("hi")
        expected = [] if first else ["bob joined the chat", "bob left the chat"]
        assert await heard(alice, len(expected) + 1) == [*expected, "alice: hi"]


# Names


@pytest.mark.parametrize(
    "name", ["", " ", "a" * 33, "a\nb", "a\x00", "a\u202eb", "a\u200b", "\ufeff"], ids=repr
)
async def test_bad_name(serve: Serve, name: str) -> None:
    """A name that is empty, too long or not printable closes with 1008."""
    async with serve(CHAT) as serving, connect(serving.ws("/chat")) as client:
        await client.send(name)
        assert await ended(client) == (1008, "a name is 1 to 32 printable characters")


@pytest.mark.parametrize("name", ["a", "a" * 32, "é" * 32, "Ann Bob", "🎉"])
async def test_good_name(serve: Serve, name: str) -> None:
    """A name is up to 32 printable characters; spaces round it are taken off."""
    async with serve(CHAT) as serving, connect(serving.ws("/chat")) as client:
        await client.send(f" {name} ")
        assert await heard(client, 1) == [f"{name} joined the chat"]


async def test_longest_name_is_set(serve: Serve) -> None:
    """``max_name`` is another bound of a name."""
    config = "channels: {lobby: {plugin: chat, path: /chat, max_name: 3}}"
    async with serve(config) as serving, connect(serving.ws("/chat")) as client:
        await client.send("abcd")
        assert await ended(client) == (1008, "a name is 1 to 3 printable characters")


async def test_no_name_in_time(serve: Serve) -> None:
    """Who says no name for ``name_timeout`` is closed with 1008."""
    config = "channels: {lobby: {plugin: chat, path: /chat, name_timeout: 50ms}}"
    async with serve(config) as serving, connect(serving.ws("/chat")) as client:
        assert (await ended(client))[0] == 1008


async def test_name_is_taken(serve: Serve) -> None:
    """A second one of a name is closed with 4509; the holder stays, and nobody saw it."""
    async with serve(CHAT) as serving, joined(serving, "alice") as alice:
        async with connect(serving.ws("/chat")) as other:
            await other.send("alice")
            assert await ended(other) == (4509, "the name alice is taken")
        await alice.send("still me")
        assert await heard(alice, 1) == ["alice: still me"]


async def test_name_is_free_again(serve: Serve) -> None:
    """Who has left takes no name."""
    async with serve(CHAT) as serving, joined(serving, "bob") as bob:
        async with joined(serving, "alice"):
            pass
        async with joined(serving, "alice"):
            assert await heard(bob, 3) == [
                "alice joined the chat",
                "alice left the chat",
                "alice joined the chat",
            ]


async def test_ghost_loses_its_name(serve: Serve) -> None:
    """A holder that answers no ping for two seconds is dropped, and has left before the newcomer joins."""
    loop = asyncio.get_running_loop()
    async with (
        serve(CHAT) as serving,
        joined(serving, "bob") as bob,
        websocket(serving.port, "/chat", text("alice")),  # it never answers
    ):
        assert await heard(bob, 1) == ["alice joined the chat"]
        begun = loop.time()
        async with connect(serving.ws("/chat")) as alice:
            await alice.send("alice")
            seen = ["alice left the chat", "alice joined the chat"]
            assert await heard(alice, 2) == seen
            assert 1.9 < loop.time() - begun < 4
            assert await heard(bob, 2) == seen


async def test_two_want_the_name_of_a_ghost(serve: Serve) -> None:
    """Of two who want the name of one that is gone, one gets it."""
    async with serve(CHAT) as serving, websocket(serving.port, "/chat", text("alice")) as ghost:
        assert await ghost.text() == "alice joined the chat"
        async with (
            connect(serving.ws("/chat?since=-1")) as one,
            connect(serving.ws("/chat?since=-1")) as two,
        ):
            await one.send("alice")
            await two.send("alice")
            first = asyncio.create_task(heard(one, 3))
            second = asyncio.create_task(heard(two, 3))
            results = await soon(asyncio.gather(first, second, return_exceptions=True))
            (won,) = [result for result in results if isinstance(result, list)]
            (lost,) = [result for result in results if isinstance(result, ConnectionClosed)]
    assert won == ["alice joined the chat", "alice left the chat", "alice joined the chat"]
    assert lost.rcvd is not None
    assert lost.rcvd.code == 4509


async def test_same_identity_takes_its_name_over(serve: Serve) -> None:
    """Who is known to be the same takes the name from its older connection, which gets 4409."""
    async with (
        serve(f"plugins: [tokens]\n{CHAT}", TOKENS) as serving,
        joined(serving, "bob") as bob,
        joined(serving, "alice", "/chat?token=a") as old,
        connect(serving.ws("/chat?token=a")) as new,
    ):
        await new.send("alice")
        assert (await ended(old))[0] == 4409
        seen = ["alice left the chat", "alice joined the chat"]
        assert await heard(new, 2) == seen
        assert await heard(bob, 3) == ["alice joined the chat", *seen]
        await new.send("me again")
        assert await heard(new, 1) == ["alice: me again"]


async def test_other_identity_does_not(serve: Serve) -> None:
    """Who is known to be somebody else does not take a name over."""
    async with (
        serve(f"plugins: [tokens]\n{CHAT}", TOKENS) as serving,
        joined(serving, "alice", "/chat?token=a"),
        connect(serving.ws("/chat?token=b")) as other,
    ):
        await other.send("alice")
        assert (await ended(other))[0] == 4509


async def test_names_need_not_be_unique(serve: Serve) -> None:
    """With ``unique_names: false`` two can have one name, as in the seed."""
    config = "channels: {lobby: {plugin: chat, path: /chat, unique_names: false}}"
    async with serve(config) as serving, joined(serving, "alice") as one:
        async with joined(serving, "alice") as two:
            await two.send("hi")
            assert await heard(one, 2) == ["alice joined the chat", "alice: hi"]
        assert await heard(one, 1) == ["alice left the chat"]


@pytest.mark.parametrize("protocol", [None, "realtime.v1.json"])
async def test_name_in_the_url(serve: Serve, protocol: str | None) -> None:
    """A WebSocket with ``?name=`` has said its name: its first text is said to everybody."""
    protocols = [Subprotocol(protocol)] if protocol else None
    async with (
        serve(CHAT) as serving,
        joined(serving, "alice") as alice,
        connect(serving.ws("/chat?name=%20bob%20"), subprotocols=protocols) as bob,
    ):
        await bob.send('{"data": "hi"}' if protocol else "hi")
        assert await heard(alice, 2) == ["bob joined the chat", "bob: hi"]


@pytest.mark.parametrize("name", ["", "%20", "a%0Ab", "a" * 33])
async def test_bad_name_in_the_url(serve: Serve, name: str) -> None:
    """A name in the URL has the rules of every name; an empty one is none."""
    async with serve(CHAT) as serving, connect(serving.ws(f"/chat?name={name}")) as client:
        assert await ended(client) == (1008, "a name is 1 to 32 printable characters")


async def test_name_in_the_url_is_taken(serve: Serve) -> None:
    """A name in the URL can be taken, too."""
    async with (
        serve(CHAT) as serving,
        joined(serving, "alice"),
        connect(serving.ws("/chat?name=alice")) as other,
    ):
        assert (await ended(other))[0] == 4509


async def test_objects(serve: Serve) -> None:
    """With the subprotocol the first text is the name, and everything has its position."""
    protocol = Subprotocol("realtime.v1.json")
    async with (
        serve(CHAT) as serving,
        connect(serving.ws("/chat"), subprotocols=[protocol]) as client,
    ):
        for ref, text in enumerate(("alice", "hi")):
            await client.send(json.dumps({"data": text, "ref": ref}))
        events = [json.loads(text) for text in await heard(client, 6)]
        epoch = serving.server.bus.topic("lobby").epoch
    assert [event["event"] for event in events] == [
        "realtime:welcome",
        "realtime:ack",
        "realtime:join",
        "realtime:members",
        "message",
        "realtime:ack",
    ]
    assert [event.get("id") for event in events[1:]] == [
        None,
        f"{epoch}-1",
        None,
        f"{epoch}-2",
        f"{epoch}-2",
    ]
    alice = {"client": events[0]["data"]["client"], "name": "alice"}
    assert [event["data"] for event in events[2:5]] == [
        alice,
        {"members": [alice]},
        {"from": "alice", "text": "hi"},
    ]


# By POST


async def test_post(serve: Serve) -> None:
    """A POST says one thing under its name, and neither joins nor leaves."""
    async with serve(CHAT) as serving, joined(serving, "alice") as alice:
        assert (await post(serving.port, "/chat?name=Bob", b"hi"))[0].status == 202
        await alice.send("hello")
        assert await heard(alice, 2) == ["Bob: hi", "alice: hello"]


@pytest.mark.parametrize("query", ["", "?name=", "?name=%20", "?name=a%0Ab", "?name=" + "a" * 33])
async def test_post_without_a_name(serve: Serve, query: str) -> None:
    """Without a name, or with one that is none, a POST is told what to do."""
    async with serve(CHAT) as serving:
        head, body = await post(serving.port, f"/chat{query}", b"hi")
    assert head.status == 400
    assert body == "say who you are with ?name=…: a name is 1 to 32 printable characters\n"


async def test_post_of_bytes(serve: Serve) -> None:
    """Bytes cannot be said by POST, either."""
    async with serve(CHAT) as serving:
        kind = [("Content-Type", "application/octet-stream")]
        head, body = await post(serving.port, "/chat?name=bob", b"hi", kind)
    assert (head.status, body) == (415, "the chat takes text only\n")


async def test_post_by_identity(serve: Serve) -> None:
    """Who is known posts under the name it is known by, whatever the URL says."""
    async with serve(f"plugins: [tokens]\n{CHAT}", TOKENS) as serving, joined(serving, "alice") as alice:
        await post(serving.port, "/chat?name=x&token=bob", b"hi")
        assert await heard(alice, 1) == ["bob: hi"]


async def test_post_under_the_name_of_somebody_who_is_there(serve: Serve) -> None:
    """A POST speaks for somebody who is in the room only as the same identity, or none as none."""
    async with (
        serve(f"plugins: [tokens]\n{CHAT}", TOKENS) as serving,
        joined(serving, "bob") as bob,
        joined(serving, "alice", "/chat?token=alice"),
    ):
        for query, status in (("name=alice", 409), ("token=alice", 202), ("name=bob", 202)):
            assert (await post(serving.port, f"/chat?{query}", query.encode()))[0].status == status
        assert await heard(bob, 3) == ["alice joined the chat", "alice: token=alice", "bob: name=bob"]


async def test_post_by_curl(serve: Serve) -> None:
    """``curl -d`` with a name in the URL says it."""
    async with serve(CHAT) as serving, joined(serving, "bob") as bob:
        url = serving.http("/chat?name=alice")
        (printed,) = await lines([needs.curl(), "-s", "-w", r"\n", "-d", "hi", url], 1)
        assert json.loads(printed) == {"id": str(serving.server.bus.topic("lobby").position)}
        assert await heard(bob, 1) == ["alice: hi"]


# In JSON


JSON = [("Content-Type", "application/json")]


@asynccontextmanager
async def objects(serving: Serving, name: str) -> AsyncIterator[ClientConnection]:
    """A client of the subprotocol that has joined and been told who is here."""
    url = serving.ws(f"/chat?name={name}")
    async with connect(url, subprotocols=[Subprotocol("realtime.v1.json")]) as client:
        while json.loads(await soon(client.recv()))["event"] != "realtime:members":
            pass
        yield client


async def answered(client: ClientConnection, data: object) -> list[dict[str, Any]]:
    """What comes up to the answer to a message, without ids and times."""
    await client.send(json.dumps({"data": data, "ref": 1}))
    came: list[dict[str, Any]] = []
    while not came or "ref" not in came[-1]:
        frame = json.loads(await soon(client.recv()))
        came.append({key: value for key, value in frame.items() if key in ("event", "ref", "data")})
    return came


ACK = {"event": "realtime:ack", "ref": 1}


async def test_text_in_json(serve: Serve) -> None:
    """``{"text": "hi"}`` is the text: by objects and by POST."""
    async with (
        serve(CHAT) as serving,
        joined(serving, "bob") as bob,
        objects(serving, "alice") as alice,
    ):
        said = {"from": "alice", "text": "hi"}
        assert await answered(alice, {"text": "hi"}) == [{"event": "message", "data": said}, ACK]
        head, _ = await post(serving.port, "/chat?name=carol", b'{"text": "hello"}', JSON)
        assert head.status == 202
        assert await heard(bob, 3) == ["alice joined the chat", "alice: hi", "carol: hello"]


async def test_to_one_alone(serve: Serve) -> None:
    """What is said to somebody reaches that one and its sender, in order, and nobody else."""
    async with (
        serve(CHAT) as serving,
        joined(serving, "carol") as carol,
        joined(serving, "bob") as plain,
        objects(serving, "alice") as alice,
    ):
        said = {"from": "alice", "text": "psst", "to": "bob"}
        assert await answered(alice, {"text": "psst", "to": "bob"}) == [
            {"event": "direct", "data": said},
            ACK,
        ]
        await answered(alice, "hi")
        assert await heard(plain, 3) == ["alice joined the chat", "alice (to you): psst", "alice: hi"]
        assert await heard(carol, 3) == ["bob joined the chat", "alice joined the chat", "alice: hi"]


async def test_what_is_said_to_one_is_not_kept(serve: Serve) -> None:
    """Nobody gets later what was said to somebody alone."""
    async with serve(CHAT) as serving, joined(serving, "bob"), objects(serving, "alice") as alice:
        head = serving.server.bus.topic("lobby").head
        await answered(alice, {"text": "psst", "to": "bob"})
        assert serving.server.bus.topic("lobby").head == head


async def test_to_oneself(serve: Serve) -> None:
    """What somebody says to itself it gets once."""
    async with serve(CHAT) as serving, objects(serving, "alice") as alice:
        said = {"from": "alice", "text": "note", "to": "alice"}
        answer = await answered(alice, {"text": "note", "to": " alice "})
        assert answer == [{"event": "direct", "data": said}, ACK]


async def test_to_all_of_a_name(serve: Serve) -> None:
    """Where names need not be unique all of that name get it."""
    config = "channels: {lobby: {plugin: chat, path: /chat, unique_names: false}}"
    async with (
        serve(config) as serving,
        joined(serving, "bob") as one,
        joined(serving, "bob") as two,
        objects(serving, "alice") as alice,
    ):
        await answered(alice, {"text": "psst", "to": "bob"})
        assert (await heard(one, 3))[-1] == (await heard(two, 2))[-1] == "alice (to you): psst"


async def test_to_one_in_its_room(serve: Serve) -> None:
    """Who is in another room is not here."""
    async with (
        serve('channels: {rooms: {plugin: chat, path: "/rooms/{room}"}}') as serving,
        joined(serving, "bob", "/rooms/a"),
        joined(serving, "bob", "/rooms/b") as bob,
    ):
        body = b'{"text": "psst", "to": "bob"}'
        head, text = await post(serving.port, "/rooms/c?name=alice", body, JSON)
        assert (head.status, text) == (404, "there is no 'bob' here\n")
        assert (await post(serving.port, "/rooms/b?name=alice", body, JSON))[0].status == 202
        assert await heard(bob, 1) == ["alice (to you): psst"]


@pytest.mark.parametrize("name", ["bob", "x" * 32])
async def test_nobody_of_that_name(serve: Serve, name: str) -> None:
    """What is said to nobody is rejected, and the sender stays; a reader without a name has none."""
    async with (
        serve(CHAT) as serving,
        stream(serving.port, "/chat"),
        objects(serving, "alice") as alice,
    ):
        data = {"message": f"there is no {name!r} here", "status": 404}
        expected = [{"event": "realtime:error", "ref": 1, "data": data}]
        assert await answered(alice, {"text": "psst", "to": name}) == expected
        assert (await answered(alice, "hi"))[-1] == ACK


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 33])
async def test_name_that_nobody_can_have(serve: Serve, name: str) -> None:
    """A name that is none is nobody's, and is not repeated."""
    async with serve(CHAT) as serving:
        body = json.dumps({"text": "psst", "to": name}).encode()
        head, text = await post(serving.port, "/chat?name=alice", body, JSON)
    assert (head.status, text) == (404, "there is no such name here\n")


@pytest.mark.parametrize(
    "data",
    [[1], 7, None, {}, {"to": "bob"}, {"text": 1}, {"text": "hi", "to": None}, {"text": "hi", "x": 1}],
    ids=json.dumps,
)
async def test_other_json(serve: Serve, data: object) -> None:
    """Any other JSON is rejected with a sentence that says what can be said, and the client stays."""
    sentence = 'say a text, {"text": "hi"}, or {"text": "psst", "to": "bob"}'
    async with serve(CHAT) as serving, objects(serving, "alice") as alice:
        error = {"event": "realtime:error", "ref": 1, "data": {"message": sentence, "status": 400}}
        assert await answered(alice, data) == [error]
        assert (await answered(alice, "hi"))[-1] == ACK
        head, text = await post(serving.port, "/chat?name=bob", json.dumps(data).encode(), JSON)
    assert (head.status, text) == (400, f"{sentence}\n")


async def test_post_to_one_alone(serve: Serve) -> None:
    """A POST can say something to somebody alone; the sender's copy is in its answer."""
    async with serve(CHAT) as serving, joined(serving, "bob") as bob:
        curl = [needs.curl(), "-s", "-w", r"\n", "-H", "Content-Type: application/json"]
        body = '{"to":"bob","text":"psst"}'
        (printed,) = await lines([*curl, "-d", body, serving.http("/chat?name=alice")], 1)
        assert await heard(bob, 1) == ["alice (to you): psst"]
    (copy,) = json.loads(printed)["messages"]
    assert (copy["event"], copy["data"]) == ("direct", {"from": "alice", "text": "psst", "to": "bob"})
    assert "id" not in json.loads(printed)


@pytest.mark.parametrize("said", ["/me waves", '{"text": "psst", "to": "bob"}', "@bob hi", ""])
async def test_plain_text_is_plain(serve: Serve, said: str) -> None:
    """On a plain WebSocket, and in a POST of text, whatever a text looks like is said as it stands."""
    async with serve(CHAT) as serving, joined(serving, "alice") as alice:
        await alice.send(said)
        await post(serving.port, "/chat?name=bob", said.encode())
        assert await heard(alice, 2) == [f"alice: {said}", f"bob: {said}"]


# Who is here


@pytest.mark.parametrize("mode", ["off", "list"])
async def test_chat_that_announces_nobody(serve: Serve, mode: str) -> None:
    """With another ``presence`` nobody sees who comes and goes; a name is given up all the same."""
    config = f"channels: {{lobby: {{plugin: chat, path: /chat, presence: {mode}}}}}"
    async with serve(config) as serving, connect(serving.ws("/chat")) as alice:
        chat = serving.server.channels["lobby"]
        await alice.send("alice")
        for _ in range(2):
            async with connect(serving.ws("/chat")) as bob:
                await bob.send("bob")
                await bob.send("hi")
                assert await heard(bob, 1) == ["bob: hi"]
                names = [member["name"] for member in chat.members("lobby")]
                assert names == (["alice", "bob"] if mode == "list" else [])
        assert await heard(alice, 2) == ["bob: hi", "bob: hi"]


# Rooms


async def test_rooms(serve: Serve) -> None:
    """With a path variable each room has its own messages and its own names."""
    async with (
        serve('channels: {rooms: {plugin: chat, path: "/rooms/{room}"}}') as serving,
        joined(serving, "alice", "/rooms/a") as a,
        joined(serving, "alice", "/rooms/b") as b,
    ):
        await a.send("in a")
        await b.send("in b")
        assert await heard(a, 1) == ["alice: in a"]
        assert await heard(b, 1) == ["alice: in b"]


# Others


async def test_stream_sees_the_same(serve: Serve) -> None:
    """A stream of events has each message with its fields, by the same positions."""
    async with serve(CHAT) as serving, stream(serving.port, "/chat") as events:
        async with joined(serving, "alice") as alice:
            await alice.send("hi")
            (member,) = (c for c in serving.server.channels["lobby"].clients if c.name == "alice")
            here, join, message = [await events.event() for _ in range(3)]
        leave = await events.event()
    told = {"client": member.id, "name": "alice"}
    assert (here["event"], json.loads(here["data"])) == ("realtime:members", {"members": []})
    assert (join["event"], json.loads(join["data"])) == ("realtime:join", told)
    assert json.loads(message["data"]) == {"from": "alice", "text": "hi"}
    assert (leave["event"], json.loads(leave["data"])) == ("realtime:leave", told)


async def test_reader_without_a_name(serve: Serve) -> None:
    """A stream without a name just reads: nobody is told of it."""
    async with serve(CHAT) as serving, joined(serving, "alice") as alice:
        async with stream(serving.port, "/chat"):
            pass
        await alice.send("hi")
        assert await heard(alice, 1) == ["alice: hi"]


async def test_reader_with_a_name(serve: Serve) -> None:
    """A stream with ``?name=`` is there like anybody."""
    async with serve(CHAT) as serving, joined(serving, "alice") as alice:
        async with stream(serving.port, "/chat?name=bob") as events:
            assert json.loads((await events.event())["data"])["name"] == "bob"
        assert await heard(alice, 2) == ["bob joined the chat", "bob left the chat"]


async def test_node_and_curl(serve: Serve, ws: list[str]) -> None:
    """node's ``ws`` talks, ``curl -N`` reads, and both see what everybody sees."""
    curl = [needs.curl(), "-sN", "-H", "Accept: text/event-stream"]
    async with (
        serve(CHAT) as serving,
        running([*curl, serving.http("/chat")]) as reader,
        joined(serving, "alice") as alice,
        running([*ws, serving.ws("/chat")]) as node,
    ):
        assert node.stdin is not None
        assert node.stdout is not None
        assert reader.stdout is not None
        printed = []
        for command in ({"text": "nora"}, {"text": "hi from node"}, {"close": 1000}):
            node.stdin.write(json.dumps(command).encode() + b"\n")
            printed.append(json.loads(await soon(node.stdout.readline())))
        printed.append(json.loads(await soon(node.stdout.readline())))
        assert printed == [
            {"open": True},
            {"text": "nora joined the chat"},
            {"text": "nora: hi from node"},
            {"close": 1000, "reason": ""},
        ]
        assert await heard(alice, 3) == ["nora joined the chat", "nora: hi from node", "nora left the chat"]
        read: list[str] = []
        while not read or '"nora"' not in read[-1] or "text" not in read[-1]:
            read.append((await soon(reader.stdout.readline())).decode().strip())
        assert read[-1] == 'data: {"from":"nora","text":"hi from node"}'
