"""A hook, as the service that posts to it and those who watch see it."""

import asyncio
import io
import json

import pytest
from realtime import ConfigError
from realtime.testing import Answer, Harness, Serve

from realtime_webhook import signature_of

SECRET = "0123456789abcdef0123"
CONFIG = f"""
channels:
  builds:
    plugin: webhook
    path: /builds
    hook: /hooks/builds
    secret: {SECRET}
    history: 10
"""


async def hook(server: Harness, body: bytes, secret: str = SECRET, event: str = "") -> Answer:
    """Post to the hook as a service does."""
    headers = {"X-Hub-Signature-256": signature_of(body, secret)}
    if event:
        headers["X-GitHub-Event"] = event
    return await server.request("POST", "/hooks/builds", data=io.BytesIO(body), headers=headers)


async def test_what_is_signed_is_published(serve: Serve) -> None:
    """Everybody sees what the service posts, under its event, with the position that it is answered."""
    async with (
        serve(CONFIG) as server,
        server.sse("/builds") as watcher,
        server.ws("/builds") as person,
    ):
        answer = await hook(server, b'{"passed": true}', event="check_run")
        told = await watcher.receive()
        assert (told.event, told.data) == ("check_run", {"passed": True})
        assert (answer.status, answer.json) == (202, {"id": str(told.id)})
        await person.expect('{"passed":true}')


async def test_what_is_not_signed_is_refused(serve: Serve) -> None:
    """A signature of another secret, of another body, or none: nothing is published."""
    async with serve(CONFIG) as server, server.sse("/builds") as watcher:
        other = {"X-Hub-Signature-256": signature_of(b"{ }", SECRET)}
        wrong = [
            await hook(server, b"{}", secret="another"),
            await server.request("POST", "/hooks/builds", data=b"{}"),
            await server.request("POST", "/hooks/builds", data=b"{}", headers=other),
        ]
        assert [answer.status for answer in wrong] == [403, 403, 403]
        await watcher.assert_nothing()


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'"\\ud800"'])
async def test_what_is_no_json(serve: Serve, body: bytes) -> None:
    """What is signed and no JSON is refused as the service's mistake."""
    async with serve(CONFIG) as server:
        assert (await hook(server, body)).status == 400


@pytest.mark.parametrize("event", ["realtime:bye", "a b", "x" * 101])
async def test_what_is_no_event(serve: Serve, event: str) -> None:
    """No service says what only the server says."""
    async with serve(CONFIG) as server:
        assert (await hook(server, b"{}", event=event)).status == 400


async def test_what_is_too_large(serve: Serve) -> None:
    """What the topic cannot keep for slow readers, and what no request may have, is refused with 413."""
    async with serve(CONFIG + "    lag_bytes: 100KiB\n") as server:
        for size in (200_000, 2_000_000):
            assert (await hook(server, json.dumps("x" * size).encode())).status == 413


async def test_body_that_does_not_come(serve: Serve) -> None:
    """Who begins a body and does not go on is told so after a while, and holds nothing."""
    async with serve(CONFIG) as server:
        address = server.server.addresses[0]
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(b"POST /hooks/builds HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        await writer.drain()
        answering = asyncio.create_task(reader.readline())
        while not answering.done():
            await server.clock.advance(1)
        assert b" 408 " in await answering
        writer.close()
        await writer.wait_closed()


async def test_nobody_else_says_anything(serve: Serve) -> None:
    """The channel's own URL takes no message; what was posted before is there for who asks."""
    async with serve(CONFIG) as server:
        assert (await server.post("/builds", "forged")).status == 405
        await hook(server, b'{"n": 1}')
        snapshot = await server.request("GET", "/builds", headers={"Accept": "application/json"})
        assert [message["data"] for message in snapshot.json["messages"]] == [{"n": 1}]


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        (SECRET, "short", r"channels\.builds\.secret: a secret has at least 16 characters"),
        ("path: /builds", 'path: "/builds/{branch}"', r"channels\.builds\.path: expected a path without"),
        ("/hooks/builds", "hooks", r"channels\.builds\.hook"),
        ("/hooks/builds", "/builds", "is already served by channel 'builds'"),
    ],
)
async def test_mistake_in_the_config(serve: Serve, right: str, wrong: str, says: str) -> None:
    """A mistake is told with its place before anything starts."""
    with pytest.raises(ConfigError, match=says):
        async with serve(CONFIG.replace(right, wrong)):
            pass
