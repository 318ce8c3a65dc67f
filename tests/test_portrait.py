"""The command ``plugins show``: all that a user needs to know of a plugin, without its source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import shelf
import yaml
from command import run

POLL = '''\
"""Polls: ask everybody something.

With the path `/polls/{poll}` each is a topic of its own.
"""

from typing import Annotated, Literal

from pydantic import Field
from realtime import Channel, Duration, Model, Secret, hookimpl

__version__ = "2.1"
print("somebody prints while it is imported")


class Colours(Model):
    """How it looks."""

    front: str = "black"
    """the colour of the text"""


class Poll(Channel):
    """Ask everybody something.

    Whoever connects is asked.
    """

    class Settings(Channel.Settings):
        question: str
        """what is asked"""

        closes: Duration = 90.0
        """when it is over"""

        kind: Literal["open", "secret"] = "open"
        key: Secret | None = None
        colours: Colours = Colours()
        topics: Annotated[list[str], Field(default_factory=lambda: ["*"])]
        waits: Annotated[list[Duration], Field(default_factory=lambda: [90.0])]

    settings: Settings
    transports = ("sse", "post")


class Show(Channel):
    pass


@hookimpl
def register_channels():
    return {"poll": Poll, "show": Show}


@hookimpl
def authorize(identity, action, topic):
    return None
'''


@pytest.fixture
def polls(tmp_path: Path) -> Path:
    """A directory with a plugin of two channel types."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "poll.py").write_text(POLL)
    return tmp_path


def shown(directory: Path, *arguments: str) -> Any:
    """What is told of a plugin, as JSON."""
    ended = run(directory, "plugins", "show", *arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_what_is_told(polls: Path) -> None:
    """Where it is from, its version, the whole of its docstring, and its hooks."""
    told = shown(polls, "poll")
    about = "Polls: ask everybody something.\n\nWith the path `/polls/{poll}` each is a topic of its own."
    assert told["location"] == str(polls / "plugins" / "poll.py")
    assert (told["name"], told["kind"], told["version"], told["description"], told["hooks"]) == (
        "poll",
        "file",
        "2.1",
        about,
        ["register_channels", "authorize"],
    )


def test_channel_types(polls: Path) -> None:
    """Each channel type has its docstring and its transports; a docstring of its own, or none."""
    poll, show = shown(polls, "poll")["channel_types"]
    assert (poll["name"], poll["description"], poll["transports"]) == (
        "poll",
        "Ask everybody something.\n\nWhoever connects is asked.",
        ["sse", "post"],
    )
    assert (show["name"], show["description"]) == ("show", "")
    assert all(row["common"] for row in show["settings"])


def test_settings(polls: Path) -> None:
    """Each setting has its type, its default as it is written, and the docstring below it."""
    rows = {row["key"]: row for row in shown(polls, "poll")["channel_types"][0]["settings"]}
    assert {key for key, row in rows.items() if not row["common"]} == {
        "question",
        "closes",
        "kind",
        "key",
        "colours.front",
        "topics",
        "waits",
    }
    told = {key: tuple(rows[key].values())[1:] for key in ("question", "closes", "kind", "colours.front")}
    assert told == {
        "question": ("a text", True, None, "what is asked", False),
        "closes": ("a duration", False, "90s", "when it is over", False),
        "kind": ("one of `open`, `secret`", False, "open", "", False),
        "colours.front": ("a text", False, "black", "the colour of the text", False),
    }
    assert rows["limits.max_message"]["common"]


def test_default_that_is_made(polls: Path) -> None:
    """A default that a function makes is told as it would be written, and so it is in what is pasted."""
    told = shown(polls, "poll")
    rows = {row["key"]: row for row in told["channel_types"][0]["settings"]}
    assert (rows["topics"]["default"], rows["waits"]["default"]) == (["*"], ["90s"])
    assert "    # topics: ['*']\n    # waits: [90s]\n" in told["snippet"]


def test_snippet_is_a_config(polls: Path) -> None:
    """What it says to write into the config is one, once what is required is filled in."""
    snippet = shown(polls, "poll")["snippet"]
    (polls / "config.yaml").write_text(snippet.replace("…", "why"))
    assert yaml.safe_load(snippet)["channels"]["poll"] == {
        "plugin": "poll",
        "path": "/poll",
        "question": "…",
    }
    assert "    # closes: 90s\n" in snippet
    assert run(polls, "check").returncode == 0


def test_for_people(polls: Path) -> None:
    """The same is told as text, with what is required and every default."""
    ended = run(polls, "plugins", "show", "poll")
    assert ended.returncode == 0
    assert ended.stdout.startswith(
        "poll, plugins/poll.py\n  Polls: ask everybody something.\n\n  With the path"
    )
    for line in (
        "hooks: register_channels, authorize",
        "channel type poll: sse, post",
        "  question: a text, required\n      what is asked",
        "  closes: a duration, default 90s\n      when it is over",
        "  kind: one of open, secret, default open",
        "in the config:\n\nchannels:\n  poll:\n    plugin: poll",
    ):
        assert f"\n{line}\n" in ended.stdout
    assert "somebody prints" not in ended.stdout


@pytest.mark.parametrize("name", ["show", "vote"])
def test_by_another_name(polls: Path, name: str) -> None:
    """A channel type of the plugin, and a channel of the config, lead to the plugin."""
    (polls / "config.yaml").write_text(
        "plugins: [poll]\nchannels: {vote: {plugin: poll, path: /vote, question: why}}\n"
    )
    assert shown(polls, name)["name"] == "poll"


def test_plugin_without_channels(tmp_path: Path) -> None:
    """A plugin that must be given settings is told without them, and belongs under plugins."""
    told = shown(tmp_path, "api_keys")
    assert (told["channel_types"], told["hooks"]) == ([], ["authenticate"])
    assert told["settings"] == [
        {
            "key": "keys",
            "type": "a section",
            "required": True,
            "default": None,
            "description": "each key under the name of who has it",
        }
    ]
    assert told["snippet"] == "plugins:\n  - plugin: api_keys\n    keys: …  # required: a section\n"


@pytest.mark.parametrize("name", ["shelf", "racks"])
def test_engine(tmp_path: Path, name: str) -> None:
    """An engine is told with what can be set of it, by the name of its plugin or its own."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "racks.py").write_text(shelf.SOURCE)
    (tmp_path / "config.yaml").write_text(f"plugins: [racks]\n{shelf.BUS}channels: {{}}\n")
    told = shown(tmp_path, name)
    [engine] = told["engines"]
    assert (told["name"], told["hooks"]) == ("racks", ["register_engines"])
    assert (engine["name"], engine["description"]) == ("shelf", "Keeps the logs on a shelf.")
    assert [row["key"] for row in engine["settings"]] == ["key", "depth"]
    assert told["snippet"] == "bus:\n  engine: shelf\n  key: …  # required: a text\n  # depth: 3\n"


def test_engine_for_people(tmp_path: Path) -> None:
    """An engine is told as text, too."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "shelf.py").write_text(shelf.SOURCE)
    ended = run(tmp_path, "plugins", "show", "shelf")
    for line in (
        "engine shelf\n  Keeps the logs on a shelf.",
        "its settings:\n  key: a text, required\n      what opens it",
        "in the config:\n\nbus:\n  engine: shelf",
    ):
        assert f"\n{line}\n" in ended.stdout


def test_plugin_that_is_not_there(polls: Path) -> None:
    """It is told what was probably meant and where it was looked for."""
    ended = run(polls, "plugins", "show", "pol")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "there is no plugin 'pol', did you mean 'poll'?\n    searched: " in ended.stderr


def test_plugin_that_is_broken(polls: Path) -> None:
    """It is told with its own lines."""
    (polls / "plugins" / "poll.py").write_text("1 / 0\n")
    ended = run(polls, "plugins", "show", "poll")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "ZeroDivisionError: division by zero\n    " in ended.stderr
    assert "Traceback" not in ended.stderr
