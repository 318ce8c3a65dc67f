"""A server that is watched: how clients of it behave, and what is seen of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from conftest import make

from realtime.findings import Trouble
from realtime.trial import Manners, Trial, as_data, until

GREETER = """
import asyncio
from realtime import Channel, hookimpl


class Greeter(Channel):
    async def on_connect(self, client):
        client.name = (await client.receive()).data

    async def on_message(self, client, message):
        await self.publish(client.topic, [client.name, message.data])


@hookimpl
def register_channels():
    return {"greeter": Greeter}
"""


@asynccontextmanager
async def trial(
    directory: Path, manners: Manners, path: str = "/g", source: str = GREETER
) -> AsyncIterator[Trial]:
    """A trial of a channel that wants to be told a name."""
    config = f'channels: {{g: {{plugin: greeter, path: "{path}"}}}}\n'
    server = make(directory, config, {"greeter.py": source})
    server.load()
    tried = Trial(server, "g", manners)
    async with server:
        yield tried
        await tried.calm()


async def test_clients_behave(tmp_path: Path) -> None:
    """A client says its greeting, with its number, and joins; what it says then is heard."""
    async with trial(tmp_path, Manners(says=["guest{n}"], message="hi")) as tried:
        for transport in ("websocket", "v1"):
            client = await tried.join(transport)
            client.say(tried.said("hi", v1=transport == "v1"))
            assert await tried.lasts(client)
        assert [client.name for client in tried.channel.clients] == ["guest1", "guest2"]
        assert (tried.joined, tried.heard) == (2, 2)
    assert (tried.leaving, tried.left) == (2, 2)


async def test_path_is_filled_in(tmp_path: Path) -> None:
    """Variables of the path have a value, and the query has the number."""
    manners = Manners(query=[("name", "a {n}")])
    async with trial(tmp_path, manners, "/rooms/{room}/{rest...}") as tried:
        assert tried.path(7) == "/rooms/conformance/conformance?name=a+7"
        assert tried.path(7, since="x-1") == "/rooms/conformance/conformance?name=a+7&since=x-1"


async def test_who_does_not_get_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told where the channel waits for a client that has not joined."""
    monkeypatch.setattr("realtime.trial.PATIENCE", 0.1)
    async with trial(tmp_path, Manners()) as tried:
        with pytest.raises(Trouble, match="had not joined") as caught:
            await tried.join("websocket")
    assert caught.value.finding.place.endswith("greeter.py:8: client.name = (await client.receive()).data")
    assert "--say TEXT" in caught.value.finding.remedy


async def test_who_is_not_let_in(tmp_path: Path) -> None:
    """Who is closed for want of a token is told how to give one."""
    refuses = GREETER.replace("client.name = ", "await client.close(4401); client.name = ")
    async with trial(tmp_path, Manners(), source=refuses) as tried:
        with pytest.raises(Trouble, match="before it had joined: 4401") as caught:
            await tried.join("websocket")
    assert "-H 'Authorization: Bearer TOKEN', --query NAME=VALUE" in caught.value.finding.remedy


async def test_what_makes_it_slow_is_told_at_once(tmp_path: Path) -> None:
    """The first time that a plugin holds the event loop somebody is told, while the trial goes on."""
    said: list[str] = []
    async with trial(tmp_path, Manners(says=["x"])) as tried:
        tried.tell = said.append
        with tried.observed():
            for number in range(2):
                watchdog = logging.getLogger("realtime.watchdog")
                watchdog.warning("the event loop was held by plugin 'greeter' %d", number)
    assert said == [
        "starts: the event loop was held by plugin 'greeter' 0; meanwhile all waits, so this may take long"
    ]


async def test_time_that_the_machine_took_is_no_plugins(tmp_path: Path) -> None:
    """Who waits while the machine has no time for the process does not wait for the plugin."""
    async with trial(tmp_path, Manners()) as tried:
        tried.stood = [(9.0, 11.0, 1.2)]
        tried.lateness = [(10.0, 1.3, True, "welcome"), (20.0, 1.3, True, "churn"), (30.0, 0.1, False, "x")]
        assert tried.late() == [(1.3, "churn"), (0.1, "x")]


async def test_log_and_warnings_are_seen(tmp_path: Path) -> None:
    """Meanwhile nothing of the log is shown, all of it is kept, and all is as it was then."""
    async with trial(tmp_path, Manners(says=["x"])) as tried:
        before = logging.getLogger().handlers[:]
        with tried.observed():
            logging.getLogger("somebody").error("oh")
            asyncio.sleep(0)  # type: ignore[unused-coroutine]
        assert [record.name for record in tried.log] == ["somebody", "py.warnings"]
        assert logging.getLogger().handlers == before


async def test_until() -> None:
    """It says whether it became true in time."""
    assert await until(lambda: True)
    assert not await until(lambda: False, 0.001)


@pytest.mark.parametrize(
    ("text", "data"), [("hi", "hi"), ("[1]", [1]), ('{"a": 1}', {"a": 1}), ("{x", "{x"), ("1", "1")]
)
def test_as_data(text: str, data: object) -> None:
    """An object or a list of JSON is one, and everything else is text."""
    assert as_data(text) == data
