"""The commands that look and start nothing: what they print, for people and for scripts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import shelf
import yaml
from command import ENVIRONMENT, run
from tree import PLUGINS

from realtime.config import BUILT_IN, load

POLL = '''\
"""Polls, for a test."""
import sys

from realtime import Channel, Duration, Secret, hookimpl

print("somebody prints while it is imported")


class Poll(Channel):
    """Ask everybody something."""

    class Settings(Channel.Settings):
        question: str
        closes: Duration = 90.0
        key: Secret | None = None
        url: str = ""


@hookimpl
def register_channels():
    return {"poll": Poll}
'''
ECHO = "channels: {echo: {plugin: echo, path: /ws}}\n"


def write(directory: Path, config: str, files: Mapping[str, str] | None = None) -> None:
    """A config, and plugins beside it."""
    (directory / "config.yaml").write_text(textwrap.dedent(config))
    for name, text in (files or {}).items():
        (directory / "plugins").mkdir(exist_ok=True)
        (directory / "plugins" / name).write_text(text)


def printed(directory: Path, *arguments: str, **environment: str) -> str:
    """What a command prints that finds nothing wrong."""
    ended = run(directory, *arguments, **environment)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def parsed(directory: Path, *arguments: str, **environment: str) -> Any:
    """The same, as JSON."""
    return json.loads(printed(directory, *arguments, "--json", **environment))


# check


def test_check_of_what_is_right(tmp_path: Path) -> None:
    """A config without a mistake is a line on standard output and exit code 0."""
    write(tmp_path, ECHO)
    ended = run(tmp_path, "check")
    assert (ended.returncode, ended.stdout, ended.stderr) == (
        0,
        "config.yaml: no mistakes; channels: echo\n",
        "",
    )


def test_check_without_a_config(tmp_path: Path) -> None:
    """Without a config it is the built-in one that is checked, and it says so."""
    assert printed(tmp_path, "check").startswith("the built-in config: no mistakes; channels: echo, lobby")


MISTAKES = """\
server: {drain: 10}
plugins: [zebra]
channels:
  a: {plugin: echo, path: /a, colour: red}
  b: {plugin: poll, path: /b}
  c: {plugin: echo, path: /d}
  d: {plugin: echo, path: /d}
"""


def test_check_finds_all_at_once(tmp_path: Path) -> None:
    """Mistakes of the file, of plugins, of settings and of routes are told together, in order."""
    write(tmp_path, MISTAKES, {"poll.py": POLL})
    ended = run(tmp_path, "check")
    told = [line for line in ended.stderr.splitlines() if line.startswith("config.yaml:")]
    assert (ended.returncode, [line.split(": ")[:2] for line in told]) == (
        1,
        [
            ["config.yaml:1:17", "server.drain"],
            ["config.yaml:2:11", "plugins[0]"],
            ["config.yaml:4:31", "channels.a.colour"],
            ["config.yaml:5:6", "channels.b"],
            ["config.yaml:7:27", "channels.d.path"],
        ],
    )


def test_serve_tells_the_same(tmp_path: Path) -> None:
    """The server refuses to start with the very words of ``check``."""
    write(tmp_path, MISTAKES, {"poll.py": POLL.replace("print(", "str(")})
    checked, served = run(tmp_path, "check"), run(tmp_path)
    assert (served.returncode, served.stderr) == (1, checked.stderr)


def test_check_for_a_script(tmp_path: Path) -> None:
    """With ``--json`` each mistake is an object, on standard output; nothing else is said."""
    write(tmp_path, "server: {drain: 10}\n")
    ended = run(tmp_path, "check", "--json")
    assert (ended.returncode, ended.stderr, json.loads(ended.stdout)) == (
        1,
        "",
        {
            "ok": False,
            "problems": [
                {
                    "message": "expected a duration such as 500ms, 10s or 5m, not 10",
                    "path": "server.drain",
                    "source": "config.yaml",
                    "line": 1,
                    "column": 17,
                }
            ],
        },
    )


def test_check_for_a_script_of_what_is_right(tmp_path: Path) -> None:
    """With ``--json`` and nothing wrong the list is empty, whatever a plugin prints."""
    write(tmp_path, "channels: {a: {plugin: poll, path: /a, question: why}}\n", {"poll.py": POLL})
    assert parsed(tmp_path, "check") == {"ok": True, "problems": []}


@pytest.mark.parametrize("command", ["check", "plugins", "routes", "config"])
def test_missing_file(tmp_path: Path, command: str) -> None:
    """A config that is not there is a line and exit code 1."""
    ended = run(tmp_path, "-c", "no.yaml", command)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "no.yaml: not found\n")


@pytest.mark.parametrize("command", ["routes", "config"])
def test_what_cannot_be_shown(tmp_path: Path, command: str) -> None:
    """A config with a mistake has no routes and no effective values: its mistakes are told."""
    write(tmp_path, "server: {drain: 10}\n")
    ended = run(tmp_path, command)
    assert (ended.returncode, ended.stdout, ended.stderr.partition(": expected")[0]) == (
        1,
        "",
        "config.yaml:1:17: server.drain",
    )


# plugins


def test_plugins(tmp_path: Path) -> None:
    """Every plugin that could be named is a row: its name, where it is, who uses it, what it is."""
    write(tmp_path, ECHO, {"poll.py": POLL, "echo.py": POLL})
    write(tmp_path, "plugins: [topics]\nchannels: {a: {plugin: poll, path: /a, question: why}}\n")
    rows = printed(tmp_path, "plugins").splitlines()
    assert rows[0].split() == ["NAME", "FROM", "CHANNELS", "ABOUT"]
    assert [" ".join(row.split()) for row in rows[1:]] == [
        "echo plugins/echo.py - Polls, for a test.",
        "poll plugins/poll.py a Polls, for a test.",
        "api_keys built in - API keys: a program that sends a key of the config, as `X-API-Key`, "
        "is who the config says.",
        "chat built in - Chat: the first text is the name, every other is said to everybody in the room.",
        "clock built in - Clock: the time, to everybody at once and then with every interval.",
        "echo built in - hidden by plugins/echo.py",
        "topics built in plugins "
        "Topics: publish and subscribe; whoever reads a topic gets what is published to it, as it is.",
        "redis built in - Redis, or Valkey: every process that names the same one has the same topics.",
    ]


def test_plugins_for_a_script(tmp_path: Path) -> None:
    """With ``--json`` a plugin is an object that says all there is to know without importing it."""
    write(tmp_path, "channels: {a: {plugin: poll, path: /a, question: why}}\n", {"poll.py": POLL})
    rows = {row["name"]: row for row in parsed(tmp_path, "plugins")["plugins"]}
    assert rows["poll"] == {
        "name": "poll",
        "kind": "file",
        "location": str(tmp_path / "plugins" / "poll.py"),
        "distribution": None,
        "version": None,
        "description": "Polls, for a test.",
        "loaded": True,
        "channel_types": ["poll"],
        "engines": [],
        "channels": ["a"],
        "enabled": False,
        "bus": False,
        "hidden_by": None,
        "problem": None,
    }
    assert (rows["clock"]["loaded"], rows["clock"]["location"]) == (False, str(PLUGINS / "clock.py"))


def test_plugins_of_installed_packages(tmp_path: Path) -> None:
    """An installed package is listed with its distribution and version, and is not imported."""
    info = tmp_path / "somebodys_poll-2.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys-poll\nVersion: 2.1\n")
    (info / "entry_points.txt").write_text("[realtime]\npoll = somebodys_poll\n")
    (tmp_path / "somebodys_poll.py").write_text('"""Their polls."""\n1 / 0\n')
    path = os.pathsep.join([str(tmp_path), ENVIRONMENT["PYTHONPATH"]])
    listed = parsed(tmp_path, "plugins", PYTHONPATH=path)["plugins"]
    [row] = [row for row in listed if row["name"] == "poll"]
    assert {key: row[key] for key in ("kind", "distribution", "version", "description", "loaded")} == {
        "kind": "package",
        "distribution": "somebodys-poll",
        "version": "2.1",
        "description": "Their polls.",
        "loaded": False,
    }


def test_plugin_with_an_engine(tmp_path: Path) -> None:
    """A plugin whose engine the bus has is told with it."""
    write(tmp_path, shelf.BUS + ECHO, shelf.FILES)
    [row] = [row for row in parsed(tmp_path, "plugins")["plugins"] if row["name"] == "shelf"]
    told = {key: row[key] for key in ("engines", "bus", "channel_types", "loaded", "enabled")}
    assert told == {
        "engines": ["shelf"],
        "bus": True,
        "channel_types": [],
        "loaded": True,
        "enabled": False,
    }
    lines = [" ".join(line.split()) for line in printed(tmp_path, "plugins").splitlines()]
    assert "shelf plugins/shelf.py bus A shelf, for the logs." in lines


def test_entry_point_of_our_own_is_built_in(tmp_path: Path) -> None:
    """What the distribution of the server itself offers as an entry point comes with the server."""
    info = tmp_path / "ours-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ours\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[realtime]\nshelf = realtime.engine\n")
    path = os.pathsep.join([str(tmp_path), ENVIRONMENT["PYTHONPATH"]])
    lines = [" ".join(line.split()) for line in printed(tmp_path, "plugins", PYTHONPATH=path).splitlines()]
    assert any(line.startswith("shelf built in - What keeps the logs of the bus") for line in lines)


def test_broken_plugin_is_listed(tmp_path: Path) -> None:
    """A plugin that cannot be loaded stands in the list; what is wrong follows, and exit code 1."""
    write(tmp_path, "plugins: [bad]\n", {"bad.py": "1 / 0\n"})
    ended = run(tmp_path, "plugins")
    assert (ended.returncode, "BROKEN" in ended.stdout) == (1, True)
    assert ended.stderr.startswith(
        "config.yaml:1:11: plugins[0]: bad: ZeroDivisionError: division by zero\n"
    )


# routes


def test_routes(tmp_path: Path) -> None:
    """Every path is a row: methods, path as it is written, transports, and whose it is."""
    write(tmp_path, "channels: {rooms: {plugin: chat, path: '/rooms/{room}'}}\n")
    rows = [line.split() for line in printed(tmp_path, "routes").splitlines()]
    assert rows[0] == ["METHODS", "PATH", "TRANSPORTS", "SERVED", "BY"]
    assert rows[1][1:3] == ["/rooms/{room}", "websocket,"]
    assert rows[1][-3:] == ["channel", "rooms", "(chat)"]
    assert {row[1] for row in rows[2:]} >= {"/", "/-/live", "/-/ready"}


def test_routes_for_a_script(tmp_path: Path) -> None:
    """With ``--json`` a route is an object."""
    write(tmp_path, ECHO)
    [row] = [row for row in parsed(tmp_path, "routes")["routes"] if row["owner"] == "channel:echo"]
    assert (row["path"], row["plugin"], "websocket" in row["transports"], "GET" in row["methods"]) == (
        "/ws",
        "echo",
        True,
        True,
    )


def test_raw_routes(tmp_path: Path) -> None:
    """A plugin's own route is listed with its method."""
    source = """\
from aiohttp import web
from realtime import hookimpl

async def answer(request):
    return web.Response()

@hookimpl
def register_routes(bus):
    return [web.put("/raw", answer)]
"""
    write(tmp_path, "plugins: [raw]\n", {"raw.py": source})
    [row] = [row for row in parsed(tmp_path, "routes")["routes"] if row["path"] == "/raw"]
    assert (row["methods"], row["owner"], row["plugin"]) == (["PUT"], "plugin:raw", None)


# config

CONFIG = """\
server:
  drain: ${DRAIN:-5s}
channels:
  poll:
    plugin: poll
    path: /poll
    question: 'no'
    key: plain-secret
    url: redis://user:${REDIS_PASSWORD}@somewhere/0
  other:
    plugin: zebra
    enabled: false
"""


def test_config_with_origins(tmp_path: Path) -> None:
    """Each value stands there with where it comes from: a place, the environment, or the default."""
    write(tmp_path, CONFIG, {"poll.py": POLL})
    lines = printed(tmp_path, "config", REDIS_PASSWORD="hunter2").splitlines()
    told = {line.split("  # ")[0].strip(): line.split("  # ")[1] for line in lines if "  # " in line}
    assert told["drain: 5s"] == "config.yaml:2:10, ${DRAIN}"
    assert told["origins: same"] == "default"
    assert told["closes: 90s"] == "default"
    assert told["question: 'no'"] == "config.yaml:7:15"


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_config_shows_no_secret(tmp_path: Path, option: list[str]) -> None:
    """Secrets, and what a variable brings that is called one, are not shown."""
    write(tmp_path, CONFIG, {"poll.py": POLL})
    shown = printed(tmp_path, "config", *option, REDIS_PASSWORD="hunter2")
    assert ("hunter2" in shown, "plain-secret" in shown, "***" in shown) == (False, False, True)


def test_secret_in_a_url_is_not_shown(tmp_path: Path) -> None:
    """The password of a URL is not shown though it is written out; the rest of it is."""
    config = CONFIG.replace("${REDIS_PASSWORD}", "hunter2")
    write(tmp_path, config, {"poll.py": POLL})
    assert "redis://user:***@somewhere/0" in printed(tmp_path, "config")


def test_config_has_the_engine(tmp_path: Path) -> None:
    """The engine stands there with all that can be set of it, and no secret."""
    write(tmp_path, shelf.BUS + ECHO, shelf.FILES)
    shown = parsed(tmp_path, "config")
    assert shown["config"]["bus"] == {"engine": "shelf", "key": "***", "depth": 3}
    origins = [shown["origins"][f"bus.{key}"] for key in ("engine", "key", "depth")]
    assert origins == ["config.yaml:1:15", "config.yaml:1:27", "default"]


def test_password_of_the_engine_is_not_shown(tmp_path: Path) -> None:
    """The password in the URL of an engine is not shown, wherever it comes from."""
    source = shelf.SOURCE.replace("key: Secret", "key: str")
    write(tmp_path, "bus: {engine: shelf, key: '${REDIS_URL}'}\n" + ECHO, {"shelf.py": source})
    shown = printed(tmp_path, "config", REDIS_URL="redis://user:hunter2@somewhere/0")
    assert "key: redis://user:***@somewhere/0" in shown


def test_config_with_a_value_that_no_config_can_have(tmp_path: Path) -> None:
    """What a plugin's settings have and YAML has not is shown as Python shows it, and secrets are not."""
    settings = "\n        luck: Any = object()\n        word: Secret = SecretStr('hunter2')\n"
    source = POLL.replace(
        "class Settings(Channel.Settings):\n", f"class Settings(Channel.Settings):{settings}"
    )
    source = (
        "from typing import Any\nfrom pydantic import SecretStr\nfrom realtime import Secret\n" + source
    )
    write(tmp_path, CONFIG, {"poll.py": source})
    shown = printed(tmp_path, "config", REDIS_PASSWORD="hunter2")
    assert ("luck: <object object at 0x" in shown, "hunter2" in shown) == (True, False)


def test_config_is_a_config(tmp_path: Path) -> None:
    """What is printed is a config with the same effect."""
    write(tmp_path, BUILT_IN.read_text())
    once = printed(tmp_path, "config")
    (tmp_path / "again.yaml").write_text(once)
    again = printed(tmp_path, "-c", "again.yaml", "config")
    assert yaml.safe_load(again) == yaml.safe_load(once)
    assert load(tmp_path / "again.yaml").server == load(tmp_path / "config.yaml").server


def test_config_for_a_script(tmp_path: Path) -> None:
    """With ``--json`` there are the values, and the origins by the path of the key."""
    write(tmp_path, "channels: {echo: {plugin: echo, path: /ws, history: '${N:-3}'}}\n")
    shown = parsed(tmp_path, "config")
    assert shown["config"]["channels"]["echo"]["history"] == 3
    assert shown["origins"]["channels.echo.history"] == "config.yaml:1:53, ${N}"
    assert shown["origins"]["server.listen"] == "default"


# schema and init


def test_schema_has_every_installed_plugin(tmp_path: Path) -> None:
    """Each plugin that is found is in the schema, whether a config names it or not."""
    write(tmp_path, "", {"poll.py": POLL})
    schema = json.loads(printed(tmp_path, "schema"))
    assert {"plugin.poll", "plugin.chat", "plugin.echo", "plugin.clock"} <= schema["$defs"].keys()


def test_schema_has_settings_under_plugins(tmp_path: Path) -> None:
    """What a plugin is told under ``plugins`` is in the schema, too."""
    definitions = json.loads(printed(tmp_path, "schema"))["$defs"]
    assert definitions["plugins.api_keys"]["required"] == ["keys"]
    assert [*definitions["plugins.echo"]["properties"]] == ["plugin"]


def test_schema_has_every_engine(tmp_path: Path) -> None:
    """The engine of each plugin that is found is in the schema, with what can be set of it."""
    write(tmp_path, "", shelf.FILES)
    definitions = json.loads(printed(tmp_path, "schema"))["$defs"]
    assert definitions["engine.shelf"]["required"] == ["key"]
    assert {"memory", "shelf"} <= set(
        definitions["BusSettings"]["properties"]["engine"]["anyOf"][0]["enum"]
    )


def test_schema_leaves_out_what_is_broken(tmp_path: Path) -> None:
    """A plugin that cannot be loaded is told on standard error and left out; the rest is there."""
    write(tmp_path, "", {"bad.py": "1 / 0\n"})
    ended = run(tmp_path, "schema")
    assert ended.stderr.startswith("left out: plugin 'bad': bad: ZeroDivisionError: division by zero\n")
    assert "plugin.chat" in json.loads(ended.stdout)["$defs"]


def test_schema_without_an_extra(tmp_path: Path) -> None:
    """A plugin of the server itself that wants what is not installed is left out without a word."""
    info = tmp_path / "ours-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ours\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[realtime]\nshelf = realtime.shelf\n")
    path = os.pathsep.join([str(tmp_path), ENVIRONMENT["PYTHONPATH"]])
    ended = run(tmp_path, "schema", PYTHONPATH=path)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_schema_leaves_out_settings_without_one(tmp_path: Path) -> None:
    """Settings that have no JSON Schema are told and left out."""
    odd = POLL.replace("question: str", "question: object.__class__ | None = None").replace(
        "class Settings(Channel.Settings):",
        "class Settings(Channel.Settings):\n        model_config = {'arbitrary_types_allowed': True}\n"
        "        odd: memoryview | None = None",
    )
    write(tmp_path, "", {"odd.py": odd})
    ended = run(tmp_path, "schema")
    assert ended.returncode == 0
    assert "left out: plugin 'poll': its settings have no schema: " in ended.stderr
    assert "plugin.poll" not in json.loads(ended.stdout)["$defs"]


def test_init(tmp_path: Path) -> None:
    """It writes a commented config that is right, with a header for editors and the schema beside it."""
    printed(tmp_path, "init")
    first, rest = (tmp_path / "config.yaml").read_text().split("\n", 1)
    assert first == "# yaml-language-server: $schema=config.schema.json"
    assert rest == BUILT_IN.read_text()
    assert "plugin.chat" in json.loads((tmp_path / "config.schema.json").read_text())["$defs"]
    assert "no mistakes" in printed(tmp_path, "check")


def test_init_says_how_to_go_on(tmp_path: Path) -> None:
    """It says what it has written and how to start the server with it."""
    assert printed(tmp_path, "init", "rt.yaml") == (
        "wrote rt.yaml, and rt.schema.json for editors; start it with: python -m realtime -c rt.yaml\n"
    )


def test_init_leaves_what_is_there(tmp_path: Path) -> None:
    """A config that is there is not touched, unless it is told to."""
    write(tmp_path, ECHO)
    ended = run(tmp_path, "init")
    assert (ended.returncode, ended.stderr, (tmp_path / "config.yaml").read_text()) == (
        1,
        "config.yaml is there already; --force replaces it\n",
        ECHO,
    )
    printed(tmp_path, "init", "--force")
    assert (tmp_path / "config.yaml").read_text() != ECHO


def test_init_where_nothing_can_be_written(tmp_path: Path) -> None:
    """A directory that is not there is a line and exit code 1."""
    ended = run(tmp_path, "init", "no/config.yaml")
    assert (ended.returncode, ended.stderr) == (
        1,
        "no/config.schema.json cannot be written: no such file or directory\n",
    )


def test_output_into_a_pipe_that_closes(tmp_path: Path) -> None:
    """Whoever reads only the first line of the output causes no error."""
    ended = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$0" -m realtime schema | head -n 1', sys.executable],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "{\n", "")


@pytest.mark.parametrize("command", ["check", "publish ftp://h x"])
def test_without_standard_error(tmp_path: Path, command: str) -> None:
    """What is to be said on a standard error that is closed does not get among the results."""
    write(tmp_path, "channels: {a: {plugin: zebra, path: /a}}")
    ended = subprocess.run(
        ["bash", "-c", f'"$0" -m realtime {command} 2>&-', sys.executable],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=20,
    )
    assert (ended.returncode, ended.stdout) == (2 if "publish" in command else 1, "")


def test_config_hides_whatever_a_secret_variable_brings(tmp_path: Path) -> None:
    """A variable that is called a secret is hidden whatever the key makes of it."""
    source = POLL.replace("question: str", "question: int")
    config = "channels: {a: {plugin: poll, path: /a, question: '${DOOR_PASS}'}}\n"
    write(tmp_path, config, {"poll.py": source})
    assert "4242" not in printed(tmp_path, "config", DOOR_PASS="4242")


def test_config_hides_what_is_off(tmp_path: Path) -> None:
    """Of a channel that is off nobody knows what is a secret, so little of it is shown."""
    write(tmp_path, "channels: {a: {plugin: poll, path: /a, enabled: false, key: hunter2}}\n")
    shown = parsed(tmp_path, "config")["config"]["channels"]["a"]
    assert shown == {"plugin": "poll", "path": "/a", "enabled": False}


def test_config_with_several_lines(tmp_path: Path) -> None:
    """A text of several lines is printed so that it can be read again."""
    write(tmp_path, 'channels: {a: {plugin: echo, path: /a, keep_alive_text: "a\\nb: c"}}\n')
    assert yaml.safe_load(printed(tmp_path, "config"))["channels"]["a"]["keep_alive_text"] == "a\nb: c"


def test_init_leaves_a_schema_that_is_there(tmp_path: Path) -> None:
    """A file in the place of the schema is not touched either, nor what a link there leads to."""
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "k.schema.json").symlink_to("precious")
    ended = run(tmp_path, "init", "k.yaml")
    assert (ended.returncode, ended.stderr) == (1, "k.schema.json is there already; --force replaces it\n")
    assert ((tmp_path / "precious").read_text(), (tmp_path / "k.yaml").exists()) == ("mine", False)


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_init_of_no_name(tmp_path: Path, name: str) -> None:
    """What is no name of a file is told."""
    ended = run(tmp_path, "init", name)
    assert (ended.returncode, ended.stderr.endswith("is no name of a file\n")) == (2, True)


def test_schema_beside_a_plugin_that_ends_the_process(tmp_path: Path) -> None:
    """A plugin that wants to end the process is left out like any other that is broken."""
    write(tmp_path, "", {"bad.py": "class Odd(BaseException): pass\nraise Odd\n"})
    ended = run(tmp_path, "schema")
    assert (ended.returncode, "left out: plugin 'bad'" in ended.stderr) == (0, True)
