"""The deadline of a handler: when it is looked at; what comes of it is in faults/test_broken_plugins.py."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from conftest import Serve
from wire import eventually, soon, text, websocket

from realtime.transports.deadline import Deadline

SLOW = {
    "slow.py": """
        import asyncio
        from realtime import Channel, hookimpl

        class Slow(Channel):
            "Waits when it is told to."

            async def on_join(self, client):
                self.go = asyncio.Event()

            async def on_message(self, client, message):
                if message.data == "wait":
                    await self.go.wait()
                await client.send(message.data)

        @hookimpl
        def register_channels():
            return {"slow": Slow}
    """
}


async def test_message_that_is_dealt_with_at_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that is dealt with where it comes in does not ask for the time."""
    began: list[float] = []
    begin_waiting = Deadline.begin_waiting

    def begins(self: Deadline) -> None:
        begin_waiting(self)
        began.append(self._since)

    monkeypatch.setattr(Deadline, "begin_waiting", begins)
    async with (
        serve("channels: {slow: {plugin: slow, path: /}}", SLOW) as serving,
        websocket(serving.port, "/", text("first")) as client,
    ):
        assert await client.text() == "first"
        began.clear()
        for _ in range(3):
            await client.send(text("quick"))
            assert await client.text() == "quick"
        assert began == []
        await client.send(text("wait"))
        await eventually(lambda: len(began) == 1)
        slow: Any = serving.server.channels["slow"]
        slow.go.set()
        assert await client.text() == "wait"


async def test_long_timeout_asks_for_no_look_of_its_own(serve: Serve) -> None:
    """Where the connection is looked at before the time is over, what waits changes nothing in that."""
    async with (
        serve("channels: {slow: {plugin: slow, path: /}}", SLOW) as serving,
        websocket(serving.port, "/", text("wait")) as client,
    ):
        (connection,) = serving.server.connections._all
        beating: Any = connection
        slot = beating.slot
        await eventually(lambda: beating._since > 0)
        assert beating.slot == slot
        slow: Any = serving.server.channels["slow"]
        slow.go.set()
        assert await soon(client.text()) == "wait"
        await eventually(lambda: beating._since == 0)
        await asyncio.sleep(0)
