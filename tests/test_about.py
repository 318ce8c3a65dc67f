"""What the server tells about itself, and to whom."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from conftest import Serve, Serving
from tokenmaker import AUTH, token
from wire import Headers, ask, dial, request, stream, websocket

import realtime

ROOMS = {
    "rooms.py": '''
        """Rooms, for tests."""

        from realtime import Channel, hookimpl

        class Rooms(Channel):
            """A room for each name.

            And more.
            """

            transports = ("sse", "post")

        @hookimpl
        def register_channels():
            return {"rooms": Rooms}
    '''
}
#: Who asks by a proxy that the server trusts is not local, unless its address says so.
STRANGER: Headers = [("X-Forwarded-For", "203.0.113.7")]
PUBLIC = {
    "name",
    "plugin",
    "description",
    "url",
    "path",
    "variables",
    "transports",
    "methods",
    "presence",
    "allow",
}
INSIDE = {"distribution", "version", "clients", "topics"}


def config(server: str = "", more: str = "") -> str:
    """A lobby and rooms behind a proxy."""
    return "\n".join(
        [
            f"server: {{listen: ['127.0.0.1:0'], trusted_proxies: [127.0.0.1]{server}}}",
            more,
            "channels:",
            "  lobby: {plugin: chat, path: /chat, presence: list, allow: {publish: authenticated}}",
            "  rooms: {plugin: rooms, path: '/rooms/{room}/{rest...}'}",
        ]
    )


async def told(serving: Serving, headers: Headers = (), query: str = "") -> dict[str, Any]:
    """What the server tells somebody."""
    head, body = await ask(serving.port, f"/-/channels{query}", headers)
    assert (head.status, head.headers["content-type"]) == (200, "application/json")
    whole = json.loads(body)
    assert isinstance(whole, dict)
    return whole


async def is_told(serving: Serving, headers: Headers = (), query: str = "") -> bool:
    """Whether somebody is told what goes on: all of it, or nothing of it."""
    answer = await told(serving, headers, query)
    wanted = PUBLIC | INSIDE if answer["whole"] else PUBLIC
    assert [set(channel) for channel in answer["channels"]] == [wanted, wanted]
    return bool(answer["whole"])


# What


async def test_channels_in_the_order_of_the_config(serve: Serve) -> None:
    """Each channel is there, in the order of the config."""
    async with serve(config(), ROOMS) as serving:
        assert [channel["name"] for channel in (await told(serving))["channels"]] == ["lobby", "rooms"]


async def test_what_a_page_needs(serve: Serve) -> None:
    """Of each channel everybody learns where it is and what it takes."""
    async with serve(config(), ROOMS) as serving:
        lobby, rooms = (await told(serving, STRANGER))["channels"]
    assert lobby["allow"] == {"subscribe": "anyone", "publish": "authenticated", "kick": "local"}
    assert rooms == {
        "name": "rooms",
        "plugin": "rooms",
        "description": "A room for each name.",
        "url": "http://localhost/rooms/{room}/{rest...}",
        "path": "/rooms/{room}/{rest...}",
        "variables": ["room", "rest"],
        "transports": ["sse", "post"],
        "methods": ["GET", "HEAD", "POST", "DELETE", "OPTIONS"],
        "presence": "off",
        "allow": {"subscribe": "anyone", "publish": "anyone", "kick": "local"},
    }


async def test_url_from_outside(serve: Serve) -> None:
    """The URLs are those by which the server is reached from outside."""
    async with serve(config(", url: 'https://rt.example'"), ROOMS) as serving:
        lobby, rooms = (await told(serving))["channels"]
    assert (lobby["url"], rooms["url"][:25]) == ("wss://rt.example/chat", "https://rt.example/rooms/")


async def test_url_in_an_application() -> None:
    """Where somebody's application has the server under a prefix, the URLs have it, too."""
    app = web.Application()
    channels = {"echo": {"plugin": "echo", "path": "/ws"}}
    app.add_subapp("/rt", realtime.create_app({"server": {"watchdog": "off"}, "channels": channels}))
    async with TestServer(app, host="127.0.0.1") as server:
        assert server.port is not None
        _, body = await ask(server.port, "/rt/-/channels")
    [channel] = json.loads(body)["channels"]
    assert (channel["url"], channel["path"]) == ("ws://localhost/rt/ws", "/ws")


async def test_clients_and_topics(serve: Serve) -> None:
    """Who may is told how many are where, and the position of each topic."""
    async with (
        serve(config(), ROOMS) as serving,
        stream(serving.port, "/rooms/red/1"),
        stream(serving.port, "/rooms/red/1"),
        stream(serving.port, "/rooms/blue/2"),
    ):
        await serving.server.bus.publish("rooms/red/1", "hi")
        lobby, rooms = (await told(serving))["channels"]
        position = str(serving.server.bus.topic("rooms/red/1").position)
    assert (lobby["clients"], lobby["topics"], rooms["clients"]) == (0, [], 3)
    assert rooms["topics"][0] == {"topic": "rooms/red/1", "id": position, "clients": 2}
    assert [topic["topic"] for topic in rooms["topics"]] == ["rooms/red/1", "rooms/blue/2"]


async def test_client_that_has_not_joined(serve: Serve) -> None:
    """Who is still being greeted is not counted, as nowhere else."""
    async with serve(config(), ROOMS) as serving, websocket(serving.port, "/chat"):
        assert (await told(serving))["channels"][0]["clients"] == 0


async def test_file_has_no_distribution(serve: Serve) -> None:
    """A plugin that is a file, or comes with the server, has no distribution of its own."""
    async with serve(config(), ROOMS) as serving:
        for channel in (await told(serving))["channels"]:
            assert (channel["distribution"], channel["version"]) == (None, None)


async def test_nothing_is_kept(serve: Serve) -> None:
    """The answer is of this moment, and another page's is another."""
    async with serve(config(), ROOMS) as serving:
        head, _ = await ask(serving.port, "/-/channels")
    assert (head.headers["cache-control"], head.headers["vary"]) == ("no-store", "Origin")


async def test_other_methods(serve: Serve) -> None:
    """It is there to be read."""
    async with serve(config(), ROOMS) as serving:
        head, _ = await ask(serving.port, "/-/channels", method="DELETE")
    assert (head.status, head.headers["allow"]) == (405, "GET,HEAD,OPTIONS")


# To whom


@pytest.mark.parametrize(
    ("headers", "whole"),
    [
        ((), True),
        ([("X-Forwarded-For", "127.0.0.1")], True),
        (STRANGER, False),
        ([("Via", "1.1 somebody")], False),
        ([("X-Forwarded-Host", "rt.example")], False),
    ],
)
async def test_local(serve: Serve, headers: Headers, whole: bool) -> None:
    """Unless the config says otherwise, what goes on is for who is on the machine."""
    async with serve(config(), ROOMS) as serving:
        assert await is_told(serving, headers) is whole


async def test_page_whose_name_points_here(serve: Serve) -> None:
    """A page whose name was made to point here (DNS rebinding) is not local."""
    wanted = request("/-/channels", host="evil.example")
    async with serve(config(), ROOMS) as serving, dial(serving.port, wanted) as wire:
        _, body = await wire.response()
    assert json.loads(body)["whole"] is False


@pytest.mark.parametrize(
    ("rule", "stranger", "known", "scoped"),
    [
        ("anyone", True, True, True),
        ("local", False, False, False),
        ("authenticated", False, True, True),
        ("scope:ops", False, False, True),
        ("nobody", False, False, False),
    ],
)
async def test_rule(serve: Serve, rule: str, stranger: bool, known: bool, scoped: bool) -> None:
    """``server.inspect`` says who else, in the words of ``allow``."""
    async with serve(config(f", inspect: '{rule}'", AUTH), ROOMS) as serving:
        answers = [
            await is_told(serving, [*STRANGER, *more])
            for more in (
                [],
                [("Authorization", f"Bearer {token()}")],
                [("Authorization", f"Bearer {token(scope='ops')}")],
            )
        ]
    assert answers == [stranger, known, scoped]


async def test_nobody(serve: Serve) -> None:
    """``nobody`` is nobody on the machine either."""
    async with serve(config(", inspect: nobody"), ROOMS) as serving:
        assert not await is_told(serving)


async def test_token_that_is_not_valid(serve: Serve) -> None:
    """Who brings a token that is not valid is told so, and nothing else."""
    async with serve(config(more=AUTH), ROOMS) as serving:
        head, body = await ask(serving.port, "/-/channels?token=a.b.c")
    assert (head.status, head.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')
    assert body == "the token is not valid: it is no JWT\n"


# To which pages

PAGE: Headers = [("Origin", "https://app.example")]


async def test_foreign_page(serve: Serve) -> None:
    """A page that may not connect may not ask either."""
    async with serve(config(), ROOMS) as serving:
        head, _ = await ask(serving.port, "/-/channels", PAGE)
    assert (head.status, head.headers.get("access-control-allow-origin")) == (403, None)


async def test_page_that_may_connect(serve: Serve) -> None:
    """A page of ``server.origins`` may read the list, and is not local, though its browser is."""
    async with serve(config(", origins: ['https://app.example']"), ROOMS) as serving:
        head, body = await ask(serving.port, "/-/channels", PAGE)
    assert head.headers["access-control-allow-origin"] == "https://app.example"
    assert json.loads(body)["whole"] is False


async def test_own_page(serve: Serve) -> None:
    """A page of the server's own is where it is."""
    async with serve(config(), ROOMS) as serving:
        assert await is_told(serving, [("Origin", "http://localhost")])


async def test_preflight(serve: Serve) -> None:
    """A page of another origin may ask with a token."""
    async with serve(config(", origins: any"), ROOMS) as serving:
        head, _ = await ask(serving.port, "/-/channels", PAGE, method="OPTIONS")
    assert (head.status, head.headers["access-control-allow-origin"]) == (204, "*")
    assert "Authorization" in head.headers["access-control-allow-headers"]


async def test_refused_page_with_a_token_can_read_why(serve: Serve) -> None:
    """What is wrong with a token can be read by the page that sent it."""
    async with serve(config(", origins: any", AUTH), ROOMS) as serving:
        head, _ = await ask(serving.port, "/-/channels?token=a.b.c", PAGE)
    assert (head.status, head.headers["access-control-allow-origin"]) == (401, "*")


async def test_package_has_a_version(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a plugin that was installed who may is told the distribution and its version."""
    info = tmp_path / "somebodys_poll-2.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys-poll\nVersion: 2.1\n")
    (info / "entry_points.txt").write_text("[realtime]\npoll = somebodys_poll\n")
    source = textwrap.dedent(ROOMS["rooms.py"]).replace('"rooms"', '"poll"')
    (tmp_path / "somebodys_poll.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    async with serve("channels: {poll: {plugin: poll, path: /poll}}") as serving:
        [channel] = (await told(serving))["channels"]
    assert (channel["distribution"], channel["version"]) == ("somebodys-poll", "2.1")
