"""Readers that stop, and an EventSource that would never come back; rows 79, 81, 82."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest
import wire
from tree import checkout

from faults.catalogue import fault
from faults.conftest import Calm
from realtime.transports import connection

# Readers that stop, and overload


@fault(79)
@pytest.mark.parametrize("accept", [wire.EVENTS, wire.LINES], ids=["events", "lines"])
async def test_reader_that_stops(
    calm: Calm,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    accept: wire.Headers,
) -> None:
    """Who has stopped reading is cut when the log has left it behind, and others get all."""
    monkeypatch.setattr(connection, "CLOSE_GRACE", 0.1)
    caplog.set_level("INFO")
    opening = wire.request("/busy", accept)
    async with (
        calm("busy: {plugin: topics, path: /busy, lag_bytes: 64KiB}") as serving,
        wire.stream(serving.port, "/busy") as other,
        wire.dial(serving.port, opening, receive_buffer=4096) as one,
    ):
        assert (await one.head()).status == 200
        for number in range(500):
            await serving.server.bus.publish("busy", str(number).ljust(8000))
            assert (await other.event())["data"].strip() == str(number)
        assert serving.server.bus.counters["overruns"] == 1
        await wire.eventually(lambda: serving.server.connections.open["busy"] == 1)
        assert "1013 too slow: " in caplog.text


@fault(79)
async def test_reader_that_takes_nothing(
    calm: Calm, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has read nothing for a while is cut, although the log has not left it behind."""
    monkeypatch.setattr(connection, "STALL", 0.2)
    caplog.set_level("INFO")
    async with (
        calm("busy: {plugin: topics, path: /busy, keep_alive: 100ms, history: 1000}") as serving,
        wire.stream(serving.port, "/busy", receive_buffer=4096),
    ):
        for _ in range(100):
            await serving.server.bus.publish("busy", "x" * 30_000)
        await wire.eventually(lambda: serving.server.connections.open["busy"] == 0)
        assert "1013 read nothing for 0.2s" in caplog.text


FULL = "busy: {plugin: topics, path: /busy, limits: {max_clients: 0}}"
#: A config without room, and the limit that says so.
OVERLOADS = [
    pytest.param(FULL, "limits.max_clients", id="channel"),
    pytest.param("max_clients: 1", "server.limits.max_clients", id="server"),
    pytest.param("topics: 1", "server.limits.topics", id="topics"),
    pytest.param("connect_rate: 1, connect_burst: 1", "server.limits.connect_rate", id="rate"),
    pytest.param("max_clients_per_address: 1", "server.limits.max_clients_per_address", id="address"),
]


def crowded(config: str) -> str:
    """A config in which the bystander has taken what there is."""
    if "plugin" in config:
        return config
    listen = 'listen: ["127.0.0.1:0"]'
    return (
        f"server: {{{listen}, limits: {{{config}}}}}\nchannels:\n  busy: {{plugin: topics, path: /busy}}\n"
    )


@fault(81)
@pytest.mark.parametrize(("config", "key"), OVERLOADS)
async def test_overload_is_told_in_the_stream(calm: Calm, config: str, key: str) -> None:
    """An EventSource, to which any status but 200 is final, is told why and when to come back."""
    async with calm(crowded(config)) as serving:
        asked = [*wire.EVENTS, ("Cache-Control", "no-cache"), ("Sec-Fetch-Mode", "cors")]
        async with asyncio.timeout(wire.PATIENCE):
            while not (answer := await wire.ask(serving.port, "/busy", asked))[1]:
                assert key.endswith("rate")  # whoever comes a second after the one before may come in
        head, body = answer
        assert (head.status, head.headers["content-type"]) == (200, "text/event-stream")
        assert head.headers["cache-control"] == "no-store"
        assert head.headers["connection"] == "close"
        retry, event, data, *end = body.split("\n")
        said = json.loads(data.removeprefix("data: "))
        assert (event, said["code"], key in said["reason"], end) == (
            "event: realtime:bye",
            1013,
            True,
            ["", ""],
        )
        assert retry == f"retry: {said['retry']}"
        assert 2000 <= said["retry"] <= 8000
        assert serving.server.connections.refused[key] == 1


@fault(81)
async def test_they_are_told_to_come_back_at_different_times(calm: Calm) -> None:
    """No two of those who are turned away together have to come back together."""
    async with calm(FULL) as serving:
        bodies = [(await wire.ask(serving.port, "/busy", wire.EVENTS))[1] for _ in range(20)]
        assert len(Counter(body.split("\n")[0] for body in bodies)) > 10


@fault(81)
async def test_shutdown_is_told_in_the_stream(calm: Calm) -> None:
    """Who comes while the server shuts down is told so."""
    async with calm("busy: {plugin: topics, path: /busy}") as serving:
        serving.server.connections.draining = True
        head, body = await wire.ask(serving.port, "/busy", wire.EVENTS)
        assert (head.status, "the server is shutting down" in body) == (200, True)
        serving.server.connections.draining = False


PROFILE: wire.Headers = [("Accept", "text/event-stream;profile=realtime.v1.json")]
CLIENTS = [
    pytest.param(wire.LINES, "GET", id="lines"),
    pytest.param(PROFILE, "GET", id="profile"),
    pytest.param(wire.UPGRADE, "GET", id="websocket"),
    pytest.param((), "GET", id="any"),
    pytest.param((), "POST", id="post"),
    pytest.param(wire.EVENTS, "HEAD", id="head"),
]


@fault(81)
@pytest.mark.parametrize(("headers", "method"), CLIENTS)
async def test_others_get_the_status(calm: Calm, headers: wire.Headers, method: str) -> None:
    """A client that is no EventSource knows what 503 means, and gets it with Retry-After."""
    async with calm(FULL) as serving:
        head, _ = await wire.ask(serving.port, "/busy", headers, method=method)
        assert (head.status, int(head.headers["retry-after"]) in range(2, 9)) == (503, True)


@fault(81)
@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/nowhere", (), 404),
        ("/busy?since=x", (), 400),
        ("/busy", [("Origin", "https://evil.example")], 403),
        ("/closed", (), 403),
    ],
)
async def test_final_statuses_stay(calm: Calm, path: str, headers: wire.Headers, status: int) -> None:
    """What coming back cannot change is told by the status, after which an EventSource stops."""
    config = """
        busy: {plugin: topics, path: /busy}
        closed: {plugin: topics, path: /closed, allow: {subscribe: nobody}}
    """
    async with calm(config) as serving:
        assert (await wire.ask(serving.port, path, [*wire.EVENTS, *headers]))[0].status == status


@fault(82)
@pytest.mark.parametrize("page", ["how-to/deploy.md", "reference/transports.md", "reference/browser.md"])
def test_six_connections_are_documented(page: str) -> None:
    """Where one would look it says that a browser has six connections, and that HTTP/2 has more."""
    text = (checkout() / "docs" / page).read_text()
    assert "six" in text
    assert "HTTP/2" in text


@fault(82)
def test_the_proxy_of_the_documentation_speaks_http_2() -> None:
    """The example for nginx has HTTP/2; Caddy has it by itself."""
    assert "ssl http2;" in (checkout() / "docs" / "how-to" / "nginx.conf").read_text()
