"""One plugin, as a file beside the config and as an installed package."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from websockets.asyncio.client import connect

from acceptance.world import INSTALLING, MODULE, PLUGIN, Home, environment

SOURCE = f'''\
"""Everyone on the channel sees every roll."""

import random

from realtime import Channel, Client, Message, Position, hookimpl


class Dice(Channel):
    """Roll dice together."""

    class Settings(Channel.Settings):
        sides: int = 6

    settings: Settings

    async def on_message(self, client: Client, message: Message) -> Position | None:
        return await self.publish(client.topic, f"rolled {{random.randint(1, self.settings.sides)}}")


@hookimpl
def register_channels() -> dict[str, type[Channel]]:
    return {{"{PLUGIN}": Dice}}
'''

CONFIG = f"""\
channels:
  game:
    plugin: {PLUGIN}
    path: /game
    sides: 1
"""

PROJECT = f"""\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "realtime-{PLUGIN}"
version = "1.0"

[project.entry-points.realtime]
{PLUGIN} = "somebodys_{MODULE}"

[tool.setuptools]
py-modules = ["somebodys_{MODULE}"]
"""


async def roll(home: Home, path: Sequence[Path] = ()) -> str:
    """What the game of a server answers."""
    async with home.serving(path=path) as address, connect(f"ws://{address}/game") as ws:
        await ws.send("roll")
        return str(await ws.recv())


async def test_file(home: Home) -> None:
    """A file in ``plugins/`` beside the config serves by its name."""
    home.write(CONFIG, {f"plugins/{MODULE}.py": SOURCE})
    assert await roll(home) == "rolled 1"


async def test_installed_package(home: Home) -> None:
    """An installed package with an entry point in group ``realtime`` serves by its name."""
    home.write(CONFIG)
    assert await roll(home, [installed(home.directory)]) == "rolled 1"


async def test_neither(home: Home) -> None:
    """Without the file and without the package there is no such plugin, and it says so."""
    home.write(CONFIG)
    async with home.realtime() as process:
        assert await process.ended() == 1
    assert re.match(rf"config\.yaml:3:13: .*there is no plugin '{re.escape(PLUGIN)}'", process.text)


def installed(directory: Path) -> Path:
    """Install the plugin as a package, into a directory of its own."""
    source, target = directory / "package", directory / "installed"
    source.mkdir()
    (source / "pyproject.toml").write_text(PROJECT)
    (source / f"somebodys_{MODULE}.py").write_text(SOURCE)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target, source]
    subprocess.run(list(map(str, command)), env=environment(), check=True, timeout=INSTALLING)
    return target
