"""Chat: who says what to whom, by the harness and by clients that others wrote."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import needs
import pytest
from wire import install_ws, lines, running, soon, text, websocket

from realtime import Client, Closed, Message, Position, Refused
from realtime.testing import Harness, Peer, Serve

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


@asynccontextmanager
async def joined(server: Harness, name: str, path: str = "/chat") -> AsyncIterator[Peer[Any]]:
    """A client that has said its name and seen itself join."""
    async with server.ws(path) as client:
        await client.send(name)
        await client.expect(f"{name} joined the chat")
        yield client


# Who says what


async def test_conversation(serve: Serve) -> None:
    """Joins, messages and leaves come to all in one order, to the newcomer and the sender too."""
    async with serve(CHAT) as server, joined(server, "alice") as alice:
        async with joined(server, "bob") as bob:
            await alice.send("hi")
            await bob.expect("alice: hi")
            await bob.send("hello")
            await bob.expect("bob: hello")
            async with joined(server, "carol") as carol:
                await carol.send("hey")
                await carol.expect("carol: hey")
                await bob.expect("carol joined the chat", "carol: hey")
            await bob.expect("carol left the chat")
        await alice.expect(
            "bob joined the chat",
            "alice: hi",
            "bob: hello",
            "carol joined the chat",
            "carol: hey",
            "carol left the chat",
            "bob left the chat",
        )


async def test_one_order_for_all(serve: Serve) -> None:
    """Ten who talk at once are heard in the same order by everybody."""
    async with serve(CHAT) as server, AsyncExitStack() as stack:
        clients: list[Peer[Any]] = []
        for n in range(10):
            client = await stack.enter_async_context(joined(server, f"c{n}"))
            for other in clients:
                await other.receive()
            clients.append(client)

        async def talk(n: int) -> None:
            for m in range(20):
                await clients[n].send(f"{n}.{m}")

        await asyncio.gather(*map(talk, range(10)))
        seen = [[await client.receive() for _ in range(200)] for client in clients]
    assert all(texts == seen[0] for texts in seen)
    assert sorted(seen[0]) == sorted(f"c{n}: {n}.{m}" for n in range(10) for m in range(20))


async def test_said_between_connecting_and_naming(serve: Serve) -> None:
    """What is said after somebody has connected is delivered when it has named itself, in order."""
    async with (
        serve(CHAT) as server,
        joined(server, "alice") as alice,
        server.ws("/chat") as bob,
    ):
        await alice.send("one")
        await alice.send("two")
        await alice.expect("alice: one", "alice: two")
        await bob.send("bob")
        await bob.expect("alice: one", "alice: two", "bob joined the chat")


async def test_newcomer_asks_for_history(serve: Serve) -> None:
    """Who asks with ``since`` gets what was said before it came."""
    async with serve(CHAT) as server, joined(server, "alice") as alice:
        await alice.send("one")
        await alice.expect("alice: one")
        async with server.ws("/chat?since=-1") as bob:
            await bob.send("bob")
            await bob.expect("alice: one", "bob joined the chat")


async def test_who_only_connected_is_not_announced(serve: Serve) -> None:
    """Somebody who goes without a name was never there."""
    async with serve(CHAT) as server, joined(server, "alice") as alice:
        async with server.ws("/chat"):
            pass
        await alice.send("hi")
        await alice.expect("alice: hi")


@pytest.mark.parametrize("first", [True, False], ids=["as the name", "later"])
async def test_binary(serve: Serve, first: bool) -> None:
    """Binary closes with 1003, and whoever was in leaves."""
    async with serve(CHAT) as server, joined(server, "alice") as alice:
        async with server.ws("/chat") as bob:
            if not first:
                await bob.send("bob")
                await bob.expect("bob joined the chat")
            await bob.send(b"bytes")
            assert await bob.closed() == (1003, "the chat takes text only")
        await alice.send("hi")
        expected = [] if first else ["bob joined the chat", "bob left the chat"]
        await alice.expect(*expected, "alice: hi")


# Names


@pytest.mark.parametrize(
    "name", ["", " ", "a" * 33, "a\nb", "a\x00", "a\u202eb", "a\u200b", "\ufeff"], ids=repr
)
async def test_bad_name(serve: Serve, name: str) -> None:
    """A name that is empty, too long or not printable closes with 1008."""
    async with serve(CHAT) as server, server.ws("/chat") as client:
        await client.send(name)
        assert await client.closed() == (1008, "a name is 1 to 32 printable characters")


@pytest.mark.parametrize("name", ["a", "a" * 32, "é" * 32, "Ann Bob", "🎉"])
async def test_good_name(serve: Serve, name: str) -> None:
    """A name is up to 32 printable characters; spaces round it are taken off."""
    async with serve(CHAT) as server, server.ws("/chat") as client:
        await client.send(f" {name} ")
        await client.expect(f"{name} joined the chat")


async def test_longest_name_is_set(serve: Serve) -> None:
    """``max_name`` is another bound of a name."""
    config = "channels: {lobby: {plugin: chat, path: /chat, max_name: 3}}"
    async with serve(config) as server, server.ws("/chat") as client:
        await client.send("abcd")
        assert await client.closed() == (1008, "a name is 1 to 3 printable characters")


async def test_no_name_in_time(serve: Serve) -> None:
    """Who says no name for ``name_timeout`` is closed with 1008."""
    config = "channels: {lobby: {plugin: chat, path: /chat, name_timeout: 1m}}"
    async with serve(config) as server, server.ws("/chat") as client:
        await server.clock.advance(59)
        await client.assert_nothing(within=0)
        await server.clock.advance(1)
        assert await client.closed() == (
            1008,
            "no name came within 60s (name_timeout): the first text is the name",
        )


async def test_name_is_taken(serve: Serve) -> None:
    """A second one of a name is closed with 4509; the holder stays, and nobody saw it."""
    async with serve(CHAT) as server, joined(server, "alice") as alice:
        async with server.ws("/chat") as other:
            await other.send("alice")
            assert await other.closed() == (4509, "the name alice is taken")
        await alice.send("still me")
        await alice.expect("alice: still me")


async def test_name_is_free_again(serve: Serve) -> None:
    """Who has left takes no name."""
    async with serve(CHAT) as server, joined(server, "bob") as bob:
        async with joined(server, "alice"):
            pass
        async with joined(server, "alice"):
            await bob.expect("alice joined the chat", "alice left the chat", "alice joined the chat")


async def test_ghost_loses_its_name(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A holder that answers no ping for two seconds is dropped, and has left before the newcomer joins."""
    assert Client.ping.__defaults__ == (2.0,)
    monkeypatch.setattr(Client.ping, "__defaults__", (20.0,))  # for the real time that goes by, too
    async with (
        serve(CHAT) as server,
        joined(server, "bob") as bob,
        websocket(server.port, "/chat", text("alice")),  # it never answers
    ):
        await bob.expect("alice joined the chat")
        async with server.ws("/chat") as alice:
            await alice.send("alice")
            await server.clock.advance(15)
            await alice.assert_nothing(within=0)
            await server.clock.advance(5)
            await alice.expect("alice left the chat", "alice joined the chat")
            await bob.expect("alice left the chat", "alice joined the chat")


async def test_two_want_the_name_of_a_ghost(serve: Serve) -> None:
    """Of two who want the name of one that is gone, one gets it."""
    async with serve(CHAT) as server, websocket(server.port, "/chat", text("alice")) as ghost:
        assert await ghost.text() == "alice joined the chat"
        async with server.ws("/chat", since=-1) as one, server.ws("/chat", since=-1) as two:
            await one.send("alice")
            await two.send("alice")
            await server.clock.advance(2)
            heard = await asyncio.gather(one.receive(), two.receive(), return_exceptions=True)
            (lost,) = (each for each in heard if isinstance(each, Closed))
            winner = one if lost is heard[1] else two
            await winner.expect("alice left the chat", "alice joined the chat")
    assert (lost.code, lost.reason) == (4509, "the name alice is taken")


async def test_same_identity_takes_its_name_over(serve: Serve) -> None:
    """Who is known to be the same takes the name from its older connection, which gets 4409."""
    async with (
        serve(f"plugins: [tokens]\n{CHAT}", TOKENS) as server,
        joined(server, "bob") as bob,
        joined(server, "alice", "/chat?token=a") as old,
        server.ws("/chat?token=a") as new,
    ):
        await new.send("alice")
        assert (await old.closed())[0] == 4409
        seen = ["alice left the chat", "alice joined the chat"]
        await new.expect(*seen)
        await bob.expect("alice joined the chat", *seen)
        await new.send("me again")
        await new.expect("alice: me again")


async def test_other_identity_does_not(serve: Serve) -> None:
    """Who is known to be somebody else does not take a name over."""
    async with (
        serve(f"plugins: [tokens]\n{CHAT}", TOKENS) as server,
        joined(server, "alice", "/chat?token=a"),
        server.ws("/chat?token=b") as other,
    ):
        await other.send("alice")
        assert (await other.closed())[0] == 4509


async def test_names_need_not_be_unique(serve: Serve) -> None:
    """With ``unique_names: false`` two can have one name, as in the seed."""
    config = "channels: {lobby: {plugin: chat, path: /chat, unique_names: false}}"
    async with serve(config) as server, joined(server, "alice") as one:
        async with joined(server, "alice") as two:
            await two.send("hi")
            await one.expect("alice joined the chat", "alice: hi")
        await one.expect("alice left the chat")


@pytest.mark.parametrize("json", [False, True])
async def test_name_in_the_url(serve: Serve, json: bool) -> None:
    """A WebSocket with ``?name=`` has said its name: its first text is said to everybody."""
    path = "/chat?name=%20bob%20"
    async with (
        serve(CHAT) as server,
        joined(server, "alice") as alice,
        server.ws(path, json=True) if json else server.ws(path) as bob,
    ):
        await bob.send("hi")
        await alice.expect("bob joined the chat", "bob: hi")


@pytest.mark.parametrize("name", ["", "%20", "a%0Ab", "a" * 33])
async def test_bad_name_in_the_url(serve: Serve, name: str) -> None:
    """A name in the URL has the rules of every name; an empty one is none."""
    async with serve(CHAT) as server, server.ws(f"/chat?name={name}") as client:
        assert await client.closed() == (1008, "a name is 1 to 32 printable characters")


async def test_name_in_the_url_is_taken(serve: Serve) -> None:
    """A name in the URL can be taken, too."""
    async with (
        serve(CHAT) as server,
        joined(server, "alice"),
        server.ws("/chat?name=alice") as other,
    ):
        assert (await other.closed())[0] == 4509


async def test_objects(serve: Serve) -> None:
    """With the subprotocol the first text is the name, and everything has its position."""
    async with serve(CHAT) as server, server.ws("/chat", json=True) as client:
        assert await client.send("alice") is None
        position = await client.send("hi")
        join, members, message = [await client.receive() for _ in range(3)]
        alice = {"client": client.welcome["client"], "name": "alice"}
        epoch = server.bus.topic("lobby").epoch
    assert (join.event, join.data, join.id) == ("realtime:join", alice, Position(epoch, 1))
    assert (members.event, members.data, members.id) == ("realtime:members", {"members": [alice]}, None)
    assert (message.event, message.data) == ("message", {"from": "alice", "text": "hi"})
    assert message.id == position == Position(epoch, 2)


# By POST


async def test_post(serve: Serve) -> None:
    """A POST says one thing under its name, and neither joins nor leaves."""
    async with serve(CHAT) as server, joined(server, "alice") as alice:
        assert (await server.post("/chat?name=Bob", "hi")).status == 202
        await alice.send("hello")
        await alice.expect("Bob: hi", "alice: hello")


@pytest.mark.parametrize("query", ["", "?name=", "?name=%20", "?name=a%0Ab", "?name=" + "a" * 33])
async def test_post_without_a_name(serve: Serve, query: str) -> None:
    """Without a name, or with one that is none, a POST is told what to do."""
    async with serve(CHAT) as server:
        answer = await server.post(f"/chat{query}", "hi")
    assert answer.status == 400
    assert answer.text == "say who you are with ?name=…: a name is 1 to 32 printable characters\n"


async def test_post_of_bytes(serve: Serve) -> None:
    """Bytes cannot be said by POST, either."""
    async with serve(CHAT) as server:
        answer = await server.post("/chat?name=bob", b"hi")
    assert (answer.status, answer.text) == (415, "the chat takes text only\n")


async def test_post_by_identity(serve: Serve) -> None:
    """Who is known posts under the name it is known by, whatever the URL says."""
    async with serve(f"plugins: [tokens]\n{CHAT}", TOKENS) as server, joined(server, "alice") as alice:
        await server.post("/chat?name=x&token=bob", "hi")
        await alice.expect("bob: hi")


async def test_post_under_the_name_of_somebody_who_is_there(serve: Serve) -> None:
    """A POST speaks for somebody who is in the room only as the same identity, or none as none."""
    async with (
        serve(f"plugins: [tokens]\n{CHAT}", TOKENS) as server,
        joined(server, "bob") as bob,
        joined(server, "alice", "/chat?token=alice"),
    ):
        for query, status in (("name=alice", 409), ("token=alice", 202), ("name=bob", 202)):
            assert (await server.post(f"/chat?{query}", query)).status == status
        await bob.expect("alice joined the chat", "alice: token=alice", "bob: name=bob")


async def test_post_under_the_name_of_a_ghost(serve: Serve) -> None:
    """Who has a name and answers no ping, as one of a process that was killed, keeps nobody from it."""
    async with (
        serve(f"plugins: [tokens]\n{CHAT}", TOKENS) as server,
        joined(server, "bob") as bob,
        websocket(server.port, "/chat?token=alice", text("alice")),  # it never answers
    ):
        await bob.expect("alice joined the chat")
        posting = asyncio.create_task(server.post("/chat?name=alice", "hi"))
        await server.clock.advance(2)
        assert (await posting).status == 202


async def test_post_by_curl(serve: Serve) -> None:
    """``curl -d`` with a name in the URL says it."""
    async with serve(CHAT) as server, joined(server, "bob") as bob:
        url = server.url("/chat?name=alice")
        (printed,) = await lines([needs.curl(), "-s", "-w", r"\n", "-d", "hi", url], 1)
        assert json.loads(printed) == {"id": str(server.bus.topic("lobby").position)}
        await bob.expect("alice: hi")


# In JSON


@asynccontextmanager
async def objects(server: Harness, name: str) -> AsyncIterator[Peer[Message]]:
    """A client of the subprotocol that has joined and been told who is here."""
    async with server.ws(f"/chat?name={name}", json=True) as client:
        while (await client.receive()).event != "realtime:members":
            pass
        yield client


async def test_text_in_json(serve: Serve) -> None:
    """``{"text": "hi"}`` is the text: by objects and by POST."""
    async with (
        serve(CHAT) as server,
        joined(server, "bob") as bob,
        objects(server, "alice") as alice,
    ):
        await alice.send({"text": "hi"})
        await alice.expect({"from": "alice", "text": "hi"})
        assert (await server.post("/chat?name=carol", {"text": "hello"})).status == 202
        await bob.expect("alice joined the chat", "alice: hi", "carol: hello")


async def test_to_one_alone(serve: Serve) -> None:
    """What is said to somebody reaches that one and its sender, in order, and nobody else."""
    async with (
        serve(CHAT) as server,
        joined(server, "carol") as carol,
        joined(server, "bob") as plain,
        objects(server, "alice") as alice,
    ):
        await alice.send({"text": "psst", "to": "bob"})
        await alice.send("hi")
        message = await alice.receive()
        assert (message.event, message.data) == ("direct", {"from": "alice", "text": "psst", "to": "bob"})
        await plain.expect("alice joined the chat", "alice (to you): psst", "alice: hi")
        await carol.expect("bob joined the chat", "alice joined the chat", "alice: hi")


async def test_what_is_said_to_one_is_not_kept(serve: Serve) -> None:
    """Nobody gets later what was said to somebody alone."""
    async with serve(CHAT) as server, joined(server, "bob"), objects(server, "alice") as alice:
        head = server.bus.topic("lobby").head
        await alice.send({"text": "psst", "to": "bob"})
        assert server.bus.topic("lobby").head == head


async def test_to_oneself(serve: Serve) -> None:
    """What somebody says to itself it gets once."""
    async with serve(CHAT) as server, objects(server, "alice") as alice:
        await alice.send({"text": "note", "to": " alice "})
        await alice.expect({"from": "alice", "text": "note", "to": "alice"})
        await alice.assert_nothing()


async def test_to_all_of_a_name(serve: Serve) -> None:
    """Where names need not be unique all of that name get it."""
    config = "channels: {lobby: {plugin: chat, path: /chat, unique_names: false}}"
    async with (
        serve(config) as server,
        joined(server, "bob") as one,
        joined(server, "bob") as two,
        objects(server, "alice") as alice,
    ):
        await alice.send({"text": "psst", "to": "bob"})
        await one.expect("bob joined the chat", "alice joined the chat", "alice (to you): psst")
        await two.expect("alice joined the chat", "alice (to you): psst")


async def test_to_one_in_its_room(serve: Serve) -> None:
    """Who is in another room is not here."""
    async with (
        serve('channels: {rooms: {plugin: chat, path: "/rooms/{room}"}}') as server,
        joined(server, "bob", "/rooms/a"),
        joined(server, "bob", "/rooms/b") as bob,
    ):
        said = {"text": "psst", "to": "bob"}
        answer = await server.post("/rooms/c?name=alice", said)
        assert (answer.status, answer.text) == (404, "there is no 'bob' here\n")
        assert (await server.post("/rooms/b?name=alice", said)).status == 202
        await bob.expect("alice (to you): psst")


@pytest.mark.parametrize("name", ["bob", "x" * 32])
async def test_nobody_of_that_name(serve: Serve, name: str) -> None:
    """What is said to nobody is rejected, and the sender stays; a reader without a name has none."""
    async with serve(CHAT) as server, server.sse("/chat"), objects(server, "alice") as alice:
        with pytest.raises(Refused) as caught:
            await alice.send({"text": "psst", "to": name})
        assert (caught.value.status, caught.value.body) == (404, f"there is no {name!r} here")
        assert await alice.send("hi")


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 33])
async def test_name_that_nobody_can_have(serve: Serve, name: str) -> None:
    """A name that is none is nobody's, and is not repeated."""
    async with serve(CHAT) as server:
        answer = await server.post("/chat?name=alice", {"text": "psst", "to": name})
    assert (answer.status, answer.text) == (404, "there is no such name here\n")


@pytest.mark.parametrize(
    "data",
    [[1], 7, None, {}, {"to": "bob"}, {"text": 1}, {"text": "hi", "to": None}, {"text": "hi", "x": 1}],
    ids=json.dumps,
)
async def test_other_json(serve: Serve, data: object) -> None:
    """Any other JSON is rejected with a sentence that says what can be said, and the client stays."""
    sentence = 'say a text, {"text": "hi"}, or {"text": "psst", "to": "bob"}'
    async with serve(CHAT) as server, objects(server, "alice") as alice:
        with pytest.raises(Refused) as caught:
            await alice.send(data)
        assert (caught.value.status, caught.value.body) == (400, sentence)
        assert await alice.send("hi")
        answer = await server.post("/chat?name=bob", data)
    assert (answer.status, answer.text) == (400, f"{sentence}\n")


async def test_post_to_one_alone(serve: Serve) -> None:
    """A POST can say something to somebody alone; the sender's copy is in its answer."""
    async with serve(CHAT) as server, joined(server, "bob") as bob:
        curl = [needs.curl(), "-s", "-w", r"\n", "-H", "Content-Type: application/json"]
        body = '{"to":"bob","text":"psst"}'
        (printed,) = await lines([*curl, "-d", body, server.url("/chat?name=alice")], 1)
        await bob.expect("alice (to you): psst")
    (copy,) = json.loads(printed)["messages"]
    assert (copy["event"], copy["data"]) == ("direct", {"from": "alice", "text": "psst", "to": "bob"})
    assert "id" not in json.loads(printed)


@pytest.mark.parametrize("said", ["/me waves", '{"text": "psst", "to": "bob"}', "@bob hi", ""])
async def test_plain_text_is_plain(serve: Serve, said: str) -> None:
    """On a plain WebSocket, and in a POST of text, whatever a text looks like is said as it stands."""
    async with serve(CHAT) as server, joined(server, "alice") as alice:
        await alice.send(said)
        await server.post("/chat?name=bob", said)
        await alice.expect(f"alice: {said}", f"bob: {said}")


# Who is here


@pytest.mark.parametrize("mode", ["off", "list"])
async def test_chat_that_announces_nobody(serve: Serve, mode: str) -> None:
    """With another ``presence`` nobody sees who comes and goes; a name is given up all the same."""
    config = f"channels: {{lobby: {{plugin: chat, path: /chat, presence: {mode}}}}}"
    async with serve(config) as server, server.ws("/chat") as alice:
        chat = server.channel("lobby")
        await alice.send("alice")
        for _ in range(2):
            async with server.ws("/chat") as bob:
                await bob.send("bob")
                await bob.send("hi")
                await bob.expect("bob: hi")
                names = [member["name"] for member in chat.members("lobby")]
                assert names == (["alice", "bob"] if mode == "list" else [])
        await alice.expect("bob: hi", "bob: hi")


# Rooms


async def test_rooms(serve: Serve) -> None:
    """With a path variable each room has its own messages and its own names."""
    async with (
        serve('channels: {rooms: {plugin: chat, path: "/rooms/{room}"}}') as server,
        joined(server, "alice", "/rooms/a") as a,
        joined(server, "alice", "/rooms/b") as b,
    ):
        await a.send("in a")
        await b.send("in b")
        await a.expect("alice: in a")
        await b.expect("alice: in b")


# Others


async def test_stream_sees_the_same(serve: Serve) -> None:
    """A stream of events has each message with its fields."""
    async with serve(CHAT) as server, server.sse("/chat") as events:
        async with joined(server, "alice") as alice:
            await alice.send("hi")
            here, join, message = [await events.receive() for _ in range(3)]
            (member,) = (one for one in server.channel("lobby").clients if one.name == "alice")
        leave = await events.receive()
    told = {"client": member.id, "name": "alice"}
    assert (here.event, here.data) == ("realtime:members", {"members": []})
    assert (join.event, join.data) == ("realtime:join", told)
    assert message.data == {"from": "alice", "text": "hi"}
    assert (leave.event, leave.data) == ("realtime:leave", told)


async def test_reader_without_a_name(serve: Serve) -> None:
    """A stream without a name just reads: nobody is told of it."""
    async with serve(CHAT) as server, joined(server, "alice") as alice:
        async with server.sse("/chat"):
            pass
        await alice.send("hi")
        await alice.expect("alice: hi")


async def test_reader_with_a_name(serve: Serve) -> None:
    """A stream with ``?name=`` is there like anybody."""
    async with serve(CHAT) as server, joined(server, "alice") as alice:
        async with server.sse("/chat?name=bob") as events:
            assert (await events.receive()).data["name"] == "bob"
        await alice.expect("bob joined the chat", "bob left the chat")


async def test_node_and_curl(serve: Serve, ws: list[str]) -> None:
    """node's ``ws`` talks, ``curl -N`` reads, and both see what everybody sees."""
    curl = [needs.curl(), "-sN", "-H", "Accept: text/event-stream"]
    async with (
        serve(CHAT) as server,
        running([*curl, server.url("/chat")]) as reader,
        joined(server, "alice") as alice,
        running([*ws, server.url("/chat", "ws")]) as node,
    ):
        assert node.stdin is not None
        assert node.stdout is not None
        assert reader.stdout is not None
        assert await soon(reader.stdout.readline())  # it has come: what is said from here on it reads
        printed = [json.loads(await soon(node.stdout.readline()))]
        for command in ({"text": "nora"}, {"text": "hi from node"}, {"close": 1000}):
            node.stdin.write(json.dumps(command).encode() + b"\n")
            printed.append(json.loads(await soon(node.stdout.readline())))
        assert printed == [
            {"open": True},
            {"text": "nora joined the chat"},
            {"text": "nora: hi from node"},
            {"close": 1000, "reason": ""},
        ]
        await alice.expect("nora joined the chat", "nora: hi from node", "nora left the chat")
        read: list[str] = []
        while not read or '"nora"' not in read[-1] or "text" not in read[-1]:
            read.append((await soon(reader.stdout.readline())).decode().strip())
        assert read[-1] == 'data: {"from":"nora","text":"hi from node"}'
