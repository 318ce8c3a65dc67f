"""Each command of the installed wheel, as a person and as a script use it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from acceptance.test_plugins import CONFIG, SOURCE
from acceptance.world import MODULE, PLUGIN, Home


async def printed(home: Home, *arguments: str) -> str:
    """What a command prints that finds nothing wrong."""
    async with home.realtime(*arguments, together=False) as process:
        code = await process.ended()
    assert code == 0, process.errors
    return process.text


async def parsed(home: Home, *arguments: str) -> Any:
    """The same, as JSON."""
    return json.loads(await printed(home, *arguments, "--json"))


@pytest.fixture
def game(home: Home) -> Home:
    """A directory with a plugin in a file, and a config that uses it."""
    home.write(CONFIG, {f"plugins/{MODULE}.py": SOURCE})
    return home


async def test_check(game: Home) -> None:
    """``check`` says that nothing is wrong, and for whom."""
    assert await printed(game, "check") == "config.yaml: no mistakes; channels: game"
    assert await parsed(game, "check") == {"ok": True, "problems": []}


async def test_check_of_a_mistake(game: Home) -> None:
    """``check`` tells the mistake in a stranger's setting in its place, and ends with 1."""
    game.write(CONFIG.replace("sides", "sidse"))
    async with game.realtime("check") as process:
        assert await process.ended() == 1
    assert process.said == ["config.yaml:5:5: channels.game.sidse: unknown key, did you mean 'sides'?"]


async def test_plugins(game: Home) -> None:
    """``plugins`` lists the stranger's plugin and those that come with the server."""
    listed = {row["name"]: row for row in (await parsed(game, "plugins"))["plugins"]}
    assert listed.keys() >= {MODULE, "chat", "clock", "echo"}
    assert (listed[MODULE]["kind"], listed[MODULE]["channels"]) == ("file", ["game"])
    assert f"plugins/{MODULE}.py" in await printed(game, "plugins")


async def test_routes(game: Home) -> None:
    """``routes`` lists the path of the stranger's channel."""
    [row] = [row for row in (await parsed(game, "routes"))["routes"] if row["owner"] == "channel:game"]
    assert (row["path"], row["plugin"]) == ("/game", PLUGIN)
    assert "/game" in await printed(game, "routes")


async def test_config(game: Home) -> None:
    """``config`` prints every value with its origin, as a config that the server takes again."""
    text = await printed(game, "config")
    assert any(line.split() == ["sides:", "1", "#", "config.yaml:5:12"] for line in text.splitlines())
    game.write(text)
    assert yaml.safe_load(await printed(game, "config")) == yaml.safe_load(text)
    assert (await parsed(game, "config"))["config"]["channels"]["game"]["sides"] == 1


async def test_schema(game: Home) -> None:
    """``schema`` prints a JSON Schema that has the stranger's settings."""
    schema = json.loads(await printed(game, "schema"))
    assert schema["$defs"][f"plugin.{PLUGIN}"]["properties"]["sides"]["default"] == 6


async def test_init(home: Home) -> None:
    """``init`` writes a config with the editor's header; it is right and serves."""
    await printed(home, "init")
    assert (home.directory / "config.yaml").read_text().startswith("# yaml-language-server: $schema=")
    json.loads((home.directory / "config.schema.json").read_text())
    assert "no mistakes" in await printed(home, "check")
    async with home.serving():
        pass


async def test_help_is_enough_to_chat(home: Home) -> None:
    """Somebody who has only ``--help`` chats with themselves from two terminals."""
    lines = [line.strip() for line in (await printed(home, "--help")).splitlines()]
    chats = [line.split()[3:] for line in lines if "/chat --name" in line]
    assert len(chats) == 2
    async with home.serving() as address:
        one, other = ([word.replace("127.0.0.1:8080", address) for word in chat] for chat in chats)
        async with home.realtime(*one) as alice, home.realtime(*other) as bob:
            await alice.line(lambda line: line.endswith("alice joined the chat"))
            await bob.line(lambda line: line.endswith("bob joined the chat"))
            bob.type("hi alice\n")
            assert await alice.line(lambda line: "hi" in line) == "Received: bob: hi alice"
            alice.type("hi bob\n")
            assert await bob.line(lambda line: "hi bob" in line) == "Received: alice: hi bob"
            for process in (alice, bob):
                process.process.send_signal(2)
                assert await process.ended() == 0


@pytest.mark.parametrize("command", ["check", "plugins", "routes", "config", "schema", "connect", "serve"])
async def test_mistyped(home: Home, command: str) -> None:
    """A command that is mistyped is answered with the one that was meant."""
    wrong = command[:-2] + command[-1] + command[-2]
    async with home.realtime(wrong) as process:
        assert await process.ended() == 2
    assert f"did you mean {command!r}?" in process.text
