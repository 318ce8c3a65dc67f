"""Who watches the server: what it is told, and that nobody else is."""

from __future__ import annotations

import asyncio
import json
import textwrap
import time
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from conftest import Serve, Serving
from tokenmaker import AUTH, token
from wire import PATIENCE, Headers, Wire, ask, dial, eventually, request, soon, stream, text, websocket

import realtime
from realtime import watching
from realtime.config import parse
from realtime.source import Source
from realtime.watching import HISTORY_BYTES, MAX_NAME, MAX_PAGE, PAGE

#: Who asks by a proxy that the server trusts is not local, unless its address says so.
STRANGER: Headers = [("X-Forwarded-For", "203.0.113.7")]
SSE: Headers = [("Accept", "text/event-stream")]
PATHS = ["/-/stats", "/-/metrics", "/-/clients"]


def config(server: str = "", more: str = "") -> str:
    """Channels behind a proxy."""
    return "\n".join(
        [
            f"server: {{listen: ['127.0.0.1:0'], trusted_proxies: [127.0.0.1]{server}}}",
            more,
            "channels:",
            "  echo: {plugin: echo, path: /ws}",
            "  lobby: {plugin: chat, path: /chat}",
            "  rooms: {plugin: chat, path: '/rooms/{room}'}",
        ]
    )


async def clients(serving: Serving, query: str = "", headers: Headers = ()) -> dict[str, Any]:
    """What is told of the clients."""
    head, body = await ask(serving.port, f"/-/clients{query}", headers)
    assert (head.status, head.headers["content-type"]) == (200, "application/json")
    told = json.loads(body)
    assert isinstance(told, dict)
    return told


async def reload(serving: Serving, text: str) -> None:
    """Go by another config."""
    await serving.server.reload(parse(textwrap.dedent(text), Source("config.yaml")))


# To whom


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("accept", [(), SSE])
async def test_not_for_strangers(serve: Serve, path: str, accept: Headers) -> None:
    """Who is elsewhere and nobody is told who may see it; and opens no stream."""
    async with serve(config()) as serving:
        head, body = await ask(serving.port, path, [*STRANGER, *accept])
    assert (head.status, body) == (403, "who may see this: local (server.inspect in the config)\n")


@pytest.mark.parametrize("path", PATHS)
async def test_for_a_token(serve: Serve, path: str) -> None:
    """``server.inspect`` may let in who has a scope, and tells others to come with a token."""
    async with serve(config(", inspect: 'scope:ops'", AUTH)) as serving:
        bearer = [("Authorization", f"Bearer {token(scope='ops')}")]
        wrong = [("Authorization", f"Bearer {token(scope='cook')}")]
        statuses = [
            (await ask(serving.port, path, [*STRANGER, *more]))[0].status for more in ((), wrong, bearer)
        ]
    assert statuses == [401, 403, 200]


@pytest.mark.parametrize("path", PATHS)
async def test_not_for_pages_of_others(serve: Serve, path: str) -> None:
    """A page of another origin is told nothing, though its browser is on this machine."""
    async with serve(config()) as serving:
        head, _ = await ask(serving.port, path, [("Origin", "https://evil.example")])
    assert head.status == 403


@pytest.mark.parametrize("path", PATHS)
async def test_head_and_options(serve: Serve, path: str) -> None:
    """HEAD and OPTIONS are answered as elsewhere, and nothing is to be kept."""
    async with serve(config()) as serving:
        head, body = await ask(serving.port, path, method="HEAD")
        options, _ = await ask(serving.port, path, method="OPTIONS")
    assert (head.status, body, head.headers["cache-control"]) == (200, "", "no-store")
    assert (options.status, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS")


async def test_head_of_the_stream(serve: Serve) -> None:
    """HEAD of the stream opens none."""
    async with serve(config()) as serving:
        head, _ = await ask(serving.port, "/-/stats", SSE, method="HEAD")
        assert head.headers["content-type"].startswith("text/event-stream")
        assert len(serving.server.connections) == 0


# The stream


async def event(wire: Wire, name: str) -> Any:
    """The data of the next event of this name; others come with every second."""
    async with asyncio.timeout(PATIENCE):
        while (one := await wire.event())["event"] != name:
            pass
    return json.loads(one["data"])


async def test_stream(serve: Serve) -> None:
    """It begins with what was so before, and goes on with every second."""
    async with serve(config()) as serving, stream(serving.port, "/-/stats") as wire:
        assert await event(wire, "history") == []
        told = await event(wire, "stats")
    assert set(told) == {"stats", "topics", "warnings"}
    assert told["stats"]["channels"]["echo"]["plugin"] == "echo"


async def test_history_first(serve: Serve) -> None:
    """Who comes later sees at once what was so in the last seconds."""
    async with serve(config()) as serving:
        await eventually(lambda: len(serving.server.watching.stats.history) > 0)
        async with stream(serving.port, "/-/stats") as wire:
            sample, *_ = await event(wire, "history")
    assert sample["clients"] == {"websocket": 0, "sse": 0, "ndjson": 0}


async def test_history_is_bounded(serve: Serve) -> None:
    """Of many channels each second is long: the newest are told, as many as one message may have."""
    async with serve(config()) as serving:
        history = serving.server.watching.stats.history
        await eventually(lambda: len(history) > 0)
        history.extend(history[0] | {"time": at, "handlers": {"x" * 20_000: 0}} for at in range(300))
        async with stream(serving.port, "/-/stats") as wire:
            told = await event(wire, "history")
    assert 10 < len(told) <= HISTORY_BYTES / 20_000
    assert told[0]["time"] > 200


async def test_who_watches_is_no_client(serve: Serve) -> None:
    """It is not counted among those whom it watches, nor told of."""
    async with serve(config()) as serving, stream(serving.port, "/-/stats") as wire:
        told = await event(wire, "stats")
        assert told["stats"]["now"]["clients"]["sse"] == 0
        assert (await clients(serving))["total"] == 0


async def test_nobody_observes_it(serve: Serve) -> None:
    """A plugin that observes all topics sees none of it, and no topic of the bus is taken."""
    async with serve(config()) as serving:
        bus = serving.server.bus
        async with stream(serving.port, "/-/stats") as wire, bus.observe() as messages:
            await event(wire, "stats")
            assert bus.topics == []
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await anext(aiter(messages))


async def test_full_server_lets_in_who_watches(serve: Serve) -> None:
    """Who wants to see why a server is full can."""
    async with (
        serve(config(", limits: {max_clients: 1}")) as serving,
        websocket(serving.port, "/ws"),
        stream(serving.port, "/-/stats") as wire,
    ):
        told = await event(wire, "stats")
    assert told["stats"]["now"]["clients"]["websocket"] == 1


async def test_who_watches_takes_nobodys_place(serve: Serve) -> None:
    """Who watches is none of the clients that there may be, in all, of a user or of an address."""
    limits = "limits: {max_clients: 1, max_clients_per_address: 1}"
    async with (
        serve(config(f", {limits}")) as serving,
        stream(serving.port, "/-/stats"),
        websocket(serving.port, "/ws") as wire,
    ):
        await wire.send(text("hi"))
        assert await wire.text() == "Echo: hi"


async def test_watchers_are_bounded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have a limit of their own, for each is told much."""
    monkeypatch.setattr(watching, "WATCHERS", 1)
    async with serve(config()) as serving, stream(serving.port, "/-/stats"):
        head, body = await ask(serving.port, "/-/stats", SSE)
    assert (head.status, body) == (503, "1 watch already\n")


async def test_reload_asks_anew(serve: Serve) -> None:
    """After a reload other rules may hold, so who watches comes back, and may be turned away."""
    async with serve(config()) as serving, stream(serving.port, "/-/stats") as wire:
        await event(wire, "history")
        await reload(serving, config(", inspect: nobody"))
        assert (await event(wire, "realtime:bye"))["code"] == 1012
        assert (await ask(serving.port, "/-/stats", SSE))[0].status == 403


SLOW = {
    "slow.py": """
        import asyncio

        from realtime import Identity, hookimpl

        asked, let = asyncio.Event(), asyncio.Event()

        @hookimpl
        async def authenticate(request):
            asked.set()
            await let.wait()
            return Identity(name="ann")
    """
}


@pytest.mark.parametrize("meanwhile", ["reload", "shutdown"])
async def test_who_is_let_in_too_late(serve: Serve, meanwhile: str) -> None:
    """Who was let in by rules that hold no more is not let in, nor by a server that is ending."""
    text = config(", inspect: authenticated", "plugins: [slow]")
    async with serve(text, SLOW) as serving, dial(serving.port, request("/-/stats", SSE)) as wire:
        slow: Any = serving.server.plugins.manager.get_plugin("plugin:slow")
        await soon(slow.asked.wait())
        if meanwhile == "reload":
            await reload(serving, text.replace("authenticated", "nobody").replace("[slow]", "[]"))
        else:
            serving.server.connections.draining = True
        slow.let.set()
        head, _ = await wire.response()
        serving.server.connections.draining = False
    assert head.status == 503


async def test_shutdown_tells_who_watches(serve: Serve) -> None:
    """A shutdown closes the stream as it does others."""
    async with serve(config()) as serving, stream(serving.port, "/-/stats") as wire:
        await event(wire, "history")
        stopping = asyncio.create_task(serving.server.stop())
        assert (await event(wire, "realtime:bye"))["code"] == 1001
        await stopping


async def test_nothing_of_it_is_left(serve: Serve) -> None:
    """When the server has ended its stream keeps no topic, which keeps a timer, which keeps the server."""
    async with serve(config()) as serving, stream(serving.port, "/-/stats") as wire:
        await event(wire, "history")
    assert serving.server.watching.stats.bus.topics == []


async def test_expired_token_ends_it(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream ends with the token that it was opened with."""
    text = config(", inspect: authenticated", AUTH)
    async with serve(text) as serving:
        # By a clock of the test: it stands a moment before the end, and then behind it.
        ends, clock = int(time.time()) + 30, [0.0]
        for bus in (serving.server.bus, serving.server.watching.stats.bus):
            monkeypatch.setattr(bus, "wall_time", lambda: ends - 0.2 + clock[0])
        path = f"/-/stats?token={token(exp=ends)}"
        async with stream(serving.port, path, headers=STRANGER) as wire:
            clock[0] = 1.0
            assert (await event(wire, "realtime:bye"))["code"] == 4401


async def test_under_a_prefix() -> None:
    """In somebody's application it is under that one's prefix."""
    app = web.Application()
    app.add_subapp("/rt", realtime.create_app({"channels": {"echo": {"plugin": "echo", "path": "/ws"}}}))
    async with TestServer(app) as server:
        assert server.port is not None
        head, body = await ask(server.port, "/rt/-/stats")
    assert (head.status, list(json.loads(body)["channels"])) == (200, ["echo"])


# Clients


async def test_client(serve: Serve) -> None:
    """Of each client it is told who it is, where it stands and what it still has to read."""
    async with serve(config()) as serving, websocket(serving.port, "/rooms/a%20b?name=ann") as wire:
        await wire.text()
        (one,) = (await clients(serving))["clients"]
    assert one.pop("started") == pytest.approx(serving.server.bus.wall_time(), abs=5)
    assert one.pop("position").endswith("-1")
    assert one == {
        "id": "c1",
        "name": "ann",
        "identity": None,
        "channel": "rooms",
        "topic": "rooms/a b",
        "transport": "websocket",
        "subprotocol": "",
        "remote": "127.0.0.1",
        "behind": 0,
        "state": "live",
        "unsent_bytes": 0,
        "url": "/rooms/a%20b",
        "kick": True,
    }


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["ann", "bob", None]),
        ("?channel=rooms", ["bob"]),
        ("?state=lagging", []),
        ("?state=live&channel=rooms", ["bob"]),
        ("?topic=rooms/a", ["bob"]),
        ("?id=c1", ["ann"]),
        ("?search=BO", ["bob"]),
        ("?search=c3", [None]),
        ("?search=127.0", ["ann", "bob", None]),
        ("?channel=lobby&search=bob", []),
        ("?limit=1", ["ann"]),
        ("?limit=0", []),
    ],
)
async def test_clients_are_found(serve: Serve, query: str, found: list[str | None]) -> None:
    """They can be asked for by channel, topic, id, and what stands in their names and addresses."""
    async with (
        serve(config()) as serving,
        websocket(serving.port, "/chat?name=ann"),
        websocket(serving.port, "/rooms/a?name=bob"),
        websocket(serving.port, "/ws"),
    ):
        await eventually(lambda: len(serving.server.channels["rooms"].clients) == 1)
        told = await clients(serving, query)
    assert [one["name"] for one in told["clients"]] == found


ODD = {
    "odd.py": """
        from realtime import Channel, hookimpl

        class Odd(Channel):
            \"\"\"Names its clients as no channel should.\"\"\"

            async def on_connect(self, client):
                names = {"number": 5, "object": Channel, "lone": "a\\udcffb", "long": "x" * 10_000}
                client.name = names[client.query["kind"]]

        @hookimpl
        def register_channels():
            return {"odd": Odd}
    """
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("number", "5"),
        ("object", "<class 'realtime.channel.Channel'>"),
        ("lone", r"a\udcffb"),
        ("long", "x" * MAX_NAME),
    ],
)
async def test_odd_names(serve: Serve, kind: str, name: str) -> None:
    """Whatever a channel has called a client, all can be asked for and searched."""
    text = "plugins: [odd]\nchannels: {odd: {plugin: odd, path: /odd}}"
    async with serve(text, ODD) as serving, websocket(serving.port, f"/odd?kind={kind}"):
        await eventually(lambda: len(serving.server.channels["odd"].clients) == 1)
        told = await clients(serving, f"?search={name[:1]}")
    assert [one["name"] for one in told["clients"]] == [name]


async def test_total_is_of_all(serve: Serve) -> None:
    """It is told how many there are, however few are shown."""
    async with (
        serve(config()) as serving,
        websocket(serving.port, "/ws"),
        websocket(serving.port, "/ws"),
    ):
        assert (await clients(serving, "?limit=1"))["total"] == 2


async def test_clients_wait_for_no_question(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """While many are looked at, the event loop has its turns."""
    monkeypatch.setattr(watching, "TURN", 1)
    turns: list[int] = []
    async with serve(config()) as serving, websocket(serving.port, "/ws"), websocket(serving.port, "/ws"):
        matches = watching._matches

        def looked(*args: Any) -> bool:
            asyncio.get_running_loop().call_soon(turns.append, len(turns))
            seen.append(len(turns))
            return matches(*args)

        seen: list[int] = []
        monkeypatch.setattr(watching, "_matches", looked)
        assert (await clients(serving))["total"] == 2
    assert seen == [0, 1]


@pytest.mark.parametrize("limit", ["many", "-1", "1e3", "501", f"{'0' * 9}501", "0" * 5000])
async def test_limit_is_a_number(serve: Serve, limit: str) -> None:
    """Any other is an error that says so."""
    async with serve(config()) as serving:
        head, body = await ask(serving.port, f"/-/clients?limit={limit}")
    assert (head.status, body) == (400, f"limit: a whole number, 0 to {MAX_PAGE}\n")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("chanel=lobby", "chanel: clients cannot be asked for by this, did you mean 'channel'?\n"),
        ("state=laging", "state: there are held, live, behind, lagging, did you mean 'lagging'?\n"),
    ],
)
async def test_wrong_question_has_no_answer(serve: Serve, query: str, said: str) -> None:
    """What is written wrong does not look as if nobody were there."""
    async with serve(config()) as serving:
        head, body = await ask(serving.port, f"/-/clients?{query}")
    assert (head.status, body) == (400, said)


def test_page_is_bounded() -> None:
    """What is told at once is bounded."""
    assert PAGE <= MAX_PAGE <= 1000


async def test_who_may_not_kick_is_told_so(serve: Serve) -> None:
    """For each client it is said whether this one may close it, by the rules of its channel."""
    text = config(", inspect: anyone").replace("path: /ws", "path: /ws, allow: {kick: anyone}")
    async with serve(text) as serving, websocket(serving.port, "/ws"), stream(serving.port, "/chat"):
        told = await clients(serving, headers=STRANGER)
    assert [(one["channel"], one["kick"]) for one in told["clients"]] == [("echo", True), ("lobby", False)]


async def test_client_is_closed_by_its_url(serve: Serve) -> None:
    """What is told of a client is what it takes to close it."""
    async with serve(config()) as serving, websocket(serving.port, "/rooms/a%20b?name=ann") as wire:
        await wire.text()
        (one,) = (await clients(serving))["clients"]
        async with dial(
            serving.port, request(f"{one['url']}?client={one['id']}", method="DELETE")
        ) as operator:
            assert (await operator.response())[1] == '{"removed":1}'
        assert await wire.close_code() == 4403
