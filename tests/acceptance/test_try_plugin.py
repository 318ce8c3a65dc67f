"""One plugin, as its author has it looked at and tried with the installed wheel alone."""

from __future__ import annotations

import json

from acceptance.test_plugins import CONFIG, SOURCE, installed
from acceptance.world import MODULE, PLUGIN, Home

#: How long a whole run may take, in seconds: it is a fraction of that where nothing else goes on.
RUN = 300.0
#: The same plugin, which remembers everybody who ever came.
LEAKY = SOURCE.replace(
    "    async def on_message",
    "    seen = []\n\n"
    "    async def on_join(self, client):\n"
    "        self.seen.append(client)\n\n"
    "    async def on_message",
)


async def test_show(home: Home) -> None:
    """``plugins show`` tells of a package what its docstrings do, and what to write into the config."""
    async with home.realtime("plugins", "show", PLUGIN, path=[installed(home.directory)]) as process:
        assert await process.ended() == 0
    assert process.said[0] == f"{PLUGIN}, realtime-{PLUGIN} 1.0"
    assert "  Everyone on the channel sees every roll." in process.said
    assert "  sides: a number, default 6" in process.said
    assert process.said[-5:] == [
        "channels:",
        f"  {PLUGIN}:",
        f"    plugin: {PLUGIN}",
        f"    path: /{PLUGIN}",
        "    # sides: 6",
    ]


async def test_plugin_that_passes(home: Home) -> None:
    """``plugins test`` finds nothing in a channel of the config that does what it should."""
    home.write(CONFIG, {f"plugins/{MODULE}.py": SOURCE})
    async with home.realtime("plugins", "test", "game") as process:
        assert await process.ended(RUN) == 0, process.text
    assert process.said[0] == f"game: plugin {PLUGIN}, /game, config.yaml"
    assert process.said[-1].startswith("16 ok, 0 failed, 0 skipped; ")


async def test_plugin_that_fails(home: Home) -> None:
    """``plugins test`` tells the mistake of a channel with its line, for people and as JSON."""
    home.write("channels: {}\n", {f"plugins/{MODULE}.py": LEAKY})
    async with home.realtime("plugins", "test", PLUGIN, "--only", "churn") as process:
        assert await process.ended(RUN) == 1, process.text
    place = f"plugins/{MODULE}.py:19: self.seen.append(client)"
    assert any(line.startswith("    place:     /") and line.endswith(place) for line in process.said)
    async with home.realtime("plugins", "test", PLUGIN, "--only", "churn", "--json") as process:
        assert await process.ended(RUN) == 1, process.text
    told = json.loads(process.text)
    (failed,) = [verdict for verdict in told["checks"] if verdict["status"] == "failed"]
    assert (told["ok"], failed["name"], failed["findings"][0]["place"].endswith(place)) == (
        False,
        "churn",
        True,
    )


async def test_ctrl_c(home: Home) -> None:
    """Ctrl-C ends a run in order, without a traceback."""
    async with home.realtime("plugins", "test", "echo") as process:
        await process.line(lambda line: "abort" in line, RUN)
        process.interrupt()
        assert await process.ended(RUN) == 0
    assert "Traceback" not in process.text
