"""POSTs with a key: heard once, and answered again as before."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import needs
import pytest
from conftest import Serve
from test_post import BOX, BYTES, CONFIG, JSON
from wire import Head, Headers, Wire, dial, eventually, lines, post, posting, soon, stream

from realtime.transports import idempotency, post as post_module

ROOMS = 'channels: {box: {plugin: box, path: "/box/{room}"}}'


def keyed(key: str = "k", *more: tuple[str, str]) -> Headers:
    """The header of a key, and others."""
    return [("Idempotency-Key", key), *more]


def replayed(head: Head) -> bool:
    """Whether an answer says that it was given before."""
    return head.headers.get("idempotency-replayed") == "true"


async def heard(
    serve: Serve, *requests: tuple[str, bytes, Headers], config: str = CONFIG
) -> tuple[Sequence[Any], Sequence[tuple[Head, str]]]:
    """What the channel heard of some POSTs, one after the other, and how they were answered."""
    async with serve(config, BOX) as serving:
        answers = [await post(serving.port, *request) for request in requests]
        box: Any = serving.server.channels["box"]
        return [payload for _, _, payload in box.heard], answers


# Once


async def test_second_is_answered_as_the_first(serve: Serve) -> None:
    """A message sent again under its key is not heard again; the same answer says that it is one."""
    once = ("/box", b"hi", keyed())
    messages, ((head, text), (again, same)) = await heard(serve, once, once)
    assert messages == [b"hi"]
    assert (head.status, text) == (again.status, same) == (202, text)
    assert "id" in json.loads(text)
    assert [replayed(head), replayed(again)] == [False, True]
    for name in ("content-type", "cache-control", "content-length"):
        assert head.headers[name] == again.headers[name]


async def test_direct_messages_are_answered_again(serve: Serve) -> None:
    """What the channel said to the client alone is in the second answer, too."""
    once = ("/box?event=both", b"", keyed())
    messages, ((_, text), (_, same)) = await heard(serve, once, once)
    assert messages == [b""]
    assert text == same
    assert [message["data"] for message in json.loads(same)["messages"]] == ["first", "c2Vjb25k"]


async def test_without_a_key(serve: Serve) -> None:
    """Without a key every message is heard."""
    messages, answers = await heard(serve, ("/box", b"hi", ()), ("/box", b"hi", ()))
    assert messages == [b"hi", b"hi"]
    assert not any(replayed(head) for head, _ in answers)


async def test_curl_that_tries_again(serve: Serve) -> None:
    """``curl -H 'Idempotency-Key: …'`` says a message once, however often it runs."""
    command = [needs.curl(), "-s", "-w", r"\n", "-d", "hi", "-H", "Idempotency-Key: order-17"]
    async with serve(CONFIG, BOX) as serving:
        printed = [await lines([*command, serving.http("/box")], 1) for _ in range(3)]
        assert serving.server.bus.topic("box").position.offset == 1
    assert printed[0] == printed[1] == printed[2]


@pytest.mark.parametrize(
    ("code", "forgotten"),
    [(1003, False), (4403, False), (1008, False), (4000, False), (1011, True), (1013, True), (4529, True),
     (4509, True)],
)  # fmt: skip
async def test_refusals(serve: Serve, code: int, forgotten: bool) -> None:
    """A refusal is remembered like an answer, but not one after which another attempt makes sense."""
    once = ("/box?event=close", str(code).encode(), keyed())
    messages, (first, second) = await heard(serve, once, once)
    assert len(messages) == 1 + forgotten
    assert (first[0].status, first[1]) == (second[0].status, second[1])
    assert replayed(second[0]) is not forgotten


async def test_bug_is_forgotten(serve: Serve) -> None:
    """A message that met a bug of the channel is heard again."""
    once = ("/box?event=fail", b"RuntimeError", keyed())
    messages, answers = await heard(serve, once, once)
    assert len(messages) == 2
    assert [head.status for head, _ in answers] == [500, 500]


# Who goes before the answer


@pytest.mark.parametrize("way", [Wire.finish, Wire.reset], ids=["FIN", "RST"])
async def test_retry_after_a_cut(serve: Serve, way: Any) -> None:
    """A client that was cut before its answer came gets it with a retry, and nothing is heard twice."""
    once = "/box?event=wait", b"hi", keyed()
    async with serve(CONFIG, BOX) as serving, dial(serving.port, posting(*once)) as wire:
        box: Any = serving.server.channels["box"]
        await soon(box.begun.wait())
        way(wire)
        await post(serving.port, "/box?event=nothing", b"")  # turns in which it is noticed
        box.go.set()
        await eventually(lambda: "finished" in box.heard)
        head, _ = await post(serving.port, *once)
    assert (head.status, replayed(head)) == (202, True)
    assert box.heard.count(("wait", "text", b"hi")) == 1


async def test_retry_while_it_is_heard(serve: Serve) -> None:
    """A retry of a message that is still being heard waits for its answer."""
    once = "/box?event=wait", b"hi", keyed()
    async with AsyncExitStack() as stack:
        serving = await stack.enter_async_context(serve(CONFIG, BOX))
        box: Any = serving.server.channels["box"]
        wires = [await stack.enter_async_context(dial(serving.port, posting(*once)))]
        await soon(box.begun.wait())
        wires += [await stack.enter_async_context(dial(serving.port, posting(*once))) for _ in range(3)]
        await post(serving.port, "/box?event=nothing", b"")  # it overtakes, for nobody waits for it
        box.go.set()
        answers = [await wire.response() for wire in wires]
        assert box.heard.count(("wait", "text", b"hi")) == 1
    assert [(head.status, text) for head, text in answers] == [(202, "{}")] * 4
    assert [replayed(head) for head, _ in answers] == [False, True, True, True]


async def test_retry_keeps_it_going(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What a client has begun that went goes on for as long as its retry waits, and then not for ever."""
    once = "/box?event=wait", b"hi", keyed()
    monkeypatch.setattr(post_module, "LEAVE_GRACE", 0.05)
    async with serve(CONFIG, BOX) as serving:
        box: Any = serving.server.channels["box"]
        open_now = serving.server.connections.open
        async with dial(serving.port, posting(*once)) as first:
            await soon(box.begun.wait())
            async with dial(serving.port, posting(*once)) as second:
                await eventually(lambda: open_now["box"] == 2)
                first.reset()
                await eventually(lambda: open_now["box"] == 1)
                assert "is cancelled" not in caplog.text
                second.reset()
                await eventually(lambda: "is cancelled" in caplog.text)
        box.go.set()
        head, _ = await post(serving.port, *once)
        assert (head.status, replayed(head)) == (202, False)


async def test_retry_of_what_was_cancelled(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry that comes while it is being cancelled is told to come back."""
    slow = {
        "slow.py": """
            import asyncio
            from realtime import Channel, hookimpl

            class Slow(Channel):
                cancelled = asyncio.Event()
                go = asyncio.Event()

                async def on_message(self, client, message):
                    try:
                        await asyncio.Event().wait()
                    finally:
                        self.cancelled.set()
                        await self.go.wait()

            @hookimpl
            def register_channels():
                return {"slow": Slow}
        """
    }
    monkeypatch.setattr(post_module, "LEAVE_GRACE", 0.05)
    once = posting("/slow", b"hi", keyed())
    async with serve("channels: {slow: {plugin: slow, path: /slow}}", slow) as serving:
        channel: Any = serving.server.channels["slow"]
        open_now = serving.server.connections.open
        async with dial(serving.port, once) as wire:
            await eventually(lambda: open_now["slow"] == 1)
            wire.reset()
            await soon(channel.cancelled.wait())
        async with dial(serving.port, once) as wire:
            await eventually(lambda: open_now["slow"] == 1)
            channel.go.set()
            head, text = await wire.response()
    assert (head.status, int(head.headers["retry-after"]) in range(2, 9)) == (503, True)
    assert "cancelled" in text


async def test_retry_holds_a_place(serve: Serve) -> None:
    """Who waits for the answer to the same message counts as a client, like the one that said it."""
    config = "channels: {box: {plugin: box, path: /box, limits: {max_clients: 2}}}"
    once = posting("/box?event=wait", b"hi", keyed())
    async with serve(config, BOX) as serving, dial(serving.port, once), dial(serving.port, once):
        open_now = serving.server.connections.open
        await eventually(lambda: open_now["box"] == 2)
        assert (await post(serving.port, "/box", b""))[0].status == 503
        box: Any = serving.server.channels["box"]
        box.go.set()


# What belongs to a key


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/box", b"ho", ()),
        ("/box?event=score", b"hi", ()),
        ("/box?x=y", b"hi", ()),
        ("/box", b"hi", BYTES),
        ("/box", b"[]", JSON),
    ],
    ids=["body", "event", "query", "kind", "JSON"],
)
async def test_another_message(serve: Serve, path: str, body: bytes, headers: Headers) -> None:
    """Another message under the same key is 422, and not heard."""
    messages, (_, (head, text)) = await heard(
        serve, ("/box", b"hi", keyed()), (path, body, [*keyed(), *headers])
    )
    assert messages == [b"hi"]
    assert head.status == 422
    assert "another message" in text


async def test_another_message_while_one_is_heard(serve: Serve) -> None:
    """So is one that comes before the first is answered."""
    async with (
        serve(CONFIG, BOX) as serving,
        dial(serving.port, posting("/box?event=wait", b"hi", keyed())) as wire,
    ):
        box: Any = serving.server.channels["box"]
        await soon(box.begun.wait())
        assert (await post(serving.port, "/box?event=wait", b"ho", keyed()))[0].status == 422
        box.go.set()
        assert (await wire.head()).status == 202


async def test_same_message_in_other_words(serve: Serve) -> None:
    """White space of JSON, the order of the query and where to begin reading make no other message."""
    messages, answers = await heard(
        serve,
        ("/box?a=1&b=2", b"[1, 2]", [*keyed(), *JSON]),
        ("/box?b=2&a=1&since=-1", b" [1,2]", [*keyed(), *JSON]),
    )
    assert messages == [b"[1,2]"]
    assert [head.status for head, _ in answers] == [202, 202]


async def test_topics_have_keys_of_their_own(serve: Serve) -> None:
    """The same key in another room is another."""
    messages, _ = await heard(
        serve, ("/box/a", b"hi", keyed()), ("/box/b", b"hi", keyed()), ("/box/a", b"hi", keyed()),
        config=ROOMS,
    )  # fmt: skip
    assert messages == [b"hi", b"hi"]


@pytest.mark.parametrize("who", ["token", "name"])
async def test_people_have_keys_of_their_own(serve: Serve, who: str) -> None:
    """The same key of another identity, of another name or of nobody is another."""
    requests = [
        (f"/box{query}", b"hi", keyed()) for query in ("", f"?{who}=al", f"?{who}=bo", f"?{who}=al")
    ]
    messages, answers = await heard(serve, *requests)
    assert messages == [b"hi"] * 3
    assert [replayed(head) for head, _ in answers] == [False, False, False, True]


async def test_nobody_gets_the_answer_before_it_is_known_who(serve: Serve) -> None:
    """A page that may not post does not get the answer of one that may."""
    evil = [*keyed(), ("Origin", "https://evil.com")]
    _, (_, (head, _)) = await heard(serve, ("/box", b"hi", keyed()), ("/box", b"hi", evil))
    assert head.status == 403


async def test_other_channels_have_keys_of_their_own(serve: Serve) -> None:
    """The same key on another channel is another."""
    config = "channels: {a: {plugin: box, path: /a}, b: {plugin: box, path: /b}}"
    async with serve(config, BOX) as serving:
        for path in ("/a", "/b"):
            assert not replayed((await post(serving.port, path, b"hi", keyed()))[0])


# What a key is


@pytest.mark.parametrize(
    ("key", "same"),
    [
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", '"8e03978e-40d5-43dd-bc93-6894a57f9324"'),
        ("!#$%&'()*+-./:;<=>?@[]^_`{|}~", '"!#$%&\'()*+-./:;<=>?@[]^_`{|}~"'),
        ('"a b, \\" \\\\ c"', ' "a b, \\" \\\\ c"\t'),
        ("k" * 255, f'"{"k" * 255}"'),
        ('"' + '\\"' * 255 + '"', '"' + '\\"' * 255 + '"'),
    ],
    ids=["uuid", "signs", "string", "longest", "longest string"],
)
async def test_key(serve: Serve, key: str, same: str) -> None:
    """A key is a word, or a string in quotes, which are no part of it: up to 255 characters."""
    messages, answers = await heard(serve, ("/box", b"hi", keyed(key)), ("/box", b"hi", keyed(same)))
    assert messages == [b"hi"]
    assert [replayed(head) for head, _ in answers] == [False, True]


@pytest.mark.parametrize(
    "key",
    ["", '""', '"', 'a"b', '"a"b"', "a b", "a,b", '"a\\b"', '"a', "é", "k" * 256, f'"{"k" * 256}"'],
)
async def test_key_that_is_none(serve: Serve, key: str) -> None:
    """Anything else is 400 with a sentence, and not heard."""
    messages, ((head, text),) = await heard(serve, ("/box", b"hi", keyed(key)))
    assert (head.status, messages) == (400, [])
    assert (
        text
        == "Idempotency-Key has 1 to 255 printable characters of ASCII, in double quotes or without any\n"
    )


async def test_two_keys(serve: Serve) -> None:
    """Two keys are none."""
    messages, ((head, _),) = await heard(serve, ("/box", b"hi", [*keyed("a"), *keyed("b")]))
    assert (head.status, messages) == (400, [])


# How long, and how many


async def test_window(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the window of the channel is over, the key is free, and what was remembered is let go."""
    config = "channels: {box: {plugin: box, path: /box, idempotency_window: 2m}}"
    async with serve(config, BOX) as serving:
        box: Any = serving.server.channels["box"]
        answers = box._endpoint.__self__._answers
        began = answers._now()
        await post(serving.port, "/box", b"hi", keyed())
        monkeypatch.setattr(answers, "_now", lambda: began + 119.9)
        assert replayed((await post(serving.port, "/box", b"hi", keyed()))[0])
        monkeypatch.setattr(answers, "_now", lambda: began + 130.0)
        await post(serving.port, "/box", b"hi", keyed("other"))
        assert len(answers._answered) == 1
        assert not replayed((await post(serving.port, "/box", b"ho", keyed()))[0])


async def test_no_room(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond the bytes that a channel remembers the oldest are forgotten, and the log says so once."""
    answer = len(b'{"id":"3f9a01c2-1"}') + idempotency.ANSWER_COST
    monkeypatch.setattr(idempotency, "MAX_BYTES", 3 * answer)
    async with serve(CONFIG, BOX) as serving:
        for key in "abcde":
            await post(serving.port, "/box", b"hi", keyed(key))
        again = [replayed((await post(serving.port, "/box", b"hi", keyed(key)))[0]) for key in "edc"]
        assert again == [True, True, True]
        assert not replayed((await post(serving.port, "/box", b"hi", keyed("a")))[0])
    said = [record for record in caplog.records if "more POSTs with a key" in record.message]
    assert [(record.levelname, record.name) for record in said] == [("WARNING", "realtime.channel.box")]


async def test_how_much_is_remembered(serve: Serve) -> None:
    """A channel remembers 8 MiB of answers, and no more."""
    config = CONFIG.replace("1KiB", "64KiB, inbound_rate: 1000, inbound_burst: 1000")
    plugin = {"box.py": BOX["box.py"].replace('send("first")', 'send("x" * 60_000)')}
    async with serve(config, plugin) as serving:
        await post(serving.port, "/box?event=both", b"", keyed())
        gc.collect()
        tracemalloc.start()
        try:
            for number in range(200):
                await post(serving.port, "/box?event=both", b"", keyed(f"{number}"))
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert 6 << 20 < held < 10 << 20
        again = [(await post(serving.port, "/box?event=both", b"", keyed(key)))[0] for key in ("199", "0")]
    assert [replayed(head) for head in again] == [True, False]


async def test_long_answer(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer longer than all that is remembered is not, and then there is room for others as before."""
    monkeypatch.setattr(idempotency, "MAX_BYTES", idempotency.ANSWER_COST + 50)
    long, short = ("/box?event=tell", b"", keyed("long")), ("/box", b"hi", keyed("short"))
    _, answers = await heard(serve, long, long, short, short)
    assert [replayed(head) for head, _ in answers] == [False, False, False, True]


async def test_what_is_heard_is_told_once(serve: Serve) -> None:
    """Those who listen see a message once that was posted three times."""
    async with serve(CONFIG, BOX) as serving, stream(serving.port, "/box") as reader:
        for _ in range(3):
            await post(serving.port, "/box", b"once", keyed())
        await post(serving.port, "/box", b"then", keyed("other"))
        assert [(await reader.event())["data"] for _ in range(2)] == ["once", "then"]


async def test_many_at_once(serve: Serve) -> None:
    """Of a hundred that come at once under one key one is heard, and all get its answer."""
    async with serve(CONFIG, BOX) as serving:
        once = [post(serving.port, "/box", b"hi", keyed()) for _ in range(100)]
        answers = await asyncio.gather(*once)
        assert serving.server.bus.topic("box").position.offset == 1
    assert len({text for _, text in answers}) == 1
    assert sum(replayed(head) for head, _ in answers) == 99
