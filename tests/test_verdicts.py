"""The command ``plugins test``: which channel it tries, how it is told, and how it ends."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from command import PATIENCE, run, running

from realtime import verdicts
from realtime.conformance import CHECKS, Checks

QUIZ = """
from realtime import Channel, hookimpl


class Quiz(Channel):
    class Settings(Channel.Settings):
        answer: str
        points: int = 1

    transports = ("websocket",)

    async def on_message(self, client, message):
        await client.send(self.settings.answer * self.settings.points)


@hookimpl
def register_channels():
    return {"quiz": Quiz}
"""
CONFIG = """\
server: {listen: ["127.0.0.1:1"], hosts: [rt.example], drain: 1h}
channels:
  other: {plugin: no_such, path: /no}
  first: {plugin: quiz, path: /first, answer: yes it is, enabled: false}
  second: {plugin: quiz, path: "/second/{room}", answer: "no"}
"""


@pytest.fixture
def quiz(tmp_path: Path) -> Path:
    """A directory with a plugin whose setting is required."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "quiz.py").write_text(QUIZ)
    return tmp_path


@pytest.mark.parametrize(("name", "channel"), [("quiz", "first"), ("first", "first"), ("second", "second")])
def test_channel_of_the_config(quiz: Path, name: str, channel: str) -> None:
    """A channel is tried with its settings, and the first for a type; the rest of the config is off."""
    (quiz / "config.yaml").write_text(CONFIG)
    ended = run(quiz, "plugins", "test", name, "--only", "welcome", "--json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    told = json.loads(ended.stdout)
    assert (told["ok"], told["channel"], told["plugin"], told["config"]) == (
        True,
        channel,
        "quiz",
        "config.yaml",
    )
    assert set(told) == {"ok", "channel", "plugin", "path", "config", "checks"}
    assert set(told["checks"][0]) == {
        *("name", "expected", "did", "status", "reason", "seconds", "findings"),
    }
    assert [verdict["name"] for verdict in told["checks"]] == [
        "starts",
        "welcome",
        "bystander",
        "blocking",
        "errors",
        "leftovers",
    ]


def test_settings(quiz: Path) -> None:
    """What a type must be told is told with --set, by its name and as YAML."""
    ended = run(
        quiz, "plugins", "test", "quiz", "--set", "answer=42", "--set", "limits.max_message=1KiB", "--json"
    )
    assert "answer: expected text, not 42 (YAML reads this as a number;" in ended.stderr
    ended = run(quiz, "plugins", "test", "quiz", "--set", "answer=x", "--set", "limits.max_message=1KiB",
                "--only", "oversized")  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "ok       oversized" in ended.stdout


def test_settings_that_are_missing(quiz: Path) -> None:
    """A setting that is required and not there is named, and how to give it."""
    ended = run(quiz, "plugins", "test", "quiz")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "channels.conformance: the key 'answer' is missing" in ended.stderr
    assert "--set KEY=VALUE; `python -m realtime plugins show quiz`" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["quizz"], 1, "there is no plugin 'quizz', did you mean 'quiz'?"),
        (["quiz", "--only", "chrun"], 2, "'chrun' is no check, did you mean 'churn'?\nthere are: starts, "),
        (["quiz", "--set", "answer"], 2, "--set: expected NAME=VALUE, not 'answer'"),
        (["quiz", "--ony", "churn"], 2, "plugins test: there is no option '--ony', did you mean '--only'?"),
        (["quiz", "-c", "no.yaml"], 1, "no.yaml: not found"),
        ([], 2, "the following arguments are required: NAME"),
    ],
)
def test_what_cannot_be_tried(quiz: Path, arguments: list[str], code: int, said: str) -> None:
    """It is a line, and nothing is tried."""
    ended = run(quiz, "plugins", "test", *arguments)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert said in ended.stderr


def test_type_of_another_plugin(quiz: Path) -> None:
    """A channel whose type has another name than its plugin is tried, as it would be served."""
    source = QUIZ.replace('{"quiz": Quiz}', '{"quiz": Quiz, "riddle": Quiz}').replace(
        "answer: str", "a: int = 1"
    )
    (quiz / "plugins" / "quiz.py").write_text(source + "\nprint('it prints')\n")
    (quiz / "config.yaml").write_text(
        "channels:\n  quiz: {plugin: quiz, path: /q}\n  riddle: {plugin: riddle, path: /r}\n"
    )
    ended = run(quiz, "plugins", "test", "riddle", "--only", "starts", "--json")
    assert json.loads(ended.stdout)["plugin"] == "riddle"
    assert ended.returncode == 0


LISTENER = """
from contextlib import asynccontextmanager
from realtime import hookimpl


@asynccontextmanager
async def listening(bus):
    async with bus.observe("first/*", "second"):
        await bus.publish("second", "hi")
        yield


@hookimpl
def register_services(bus):
    return [listening(bus)]
"""


def test_topics_of_other_channels(quiz: Path) -> None:
    """A plugin that observes the topic of another channel, and publishes to it, finds it in a trial."""
    (quiz / "plugins" / "listener.py").write_text(LISTENER)
    (quiz / "config.yaml").write_text(
        f"plugins: [listener]\n{CONFIG}".replace("no_such", "echo").replace(", enabled: false", "")
    )
    ended = run(quiz, "plugins", "test", "other", "--only", "welcome")
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_engine_is_left_alone(quiz: Path) -> None:
    """A channel is tried on its own: with the engine of the config others may be there."""
    (quiz / "config.yaml").write_text(f"bus: {{engine: no_such}}\n{CONFIG}")
    ended = run(quiz, "plugins", "test", "first", "--only", "welcome")
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_plugin_that_is_no_channel(quiz: Path) -> None:
    """It is said how it is tried: with a channel of a config that has it."""
    (quiz / "plugins" / "listener.py").write_text(LISTENER)
    ended = run(quiz, "plugins", "test", "listener")
    assert (ended.returncode, ended.stdout, ended.stderr) == (
        1,
        "",
        "listener is no channel: name a channel of a config that has it under plugins: "
        "(python -m realtime plugins test CHANNEL -c FILE)\n",
    )


def test_what_was_asked_for_is_told_first(quiz: Path) -> None:
    """A name that is mistyped stands before other mistakes of the config."""
    (quiz / "config.yaml").write_text(CONFIG.replace("drain: 1h", "drain: 1"))
    ended = run(quiz, "plugins", "test", "quizz")
    first, *_, last = [line for line in ended.stderr.splitlines() if not line.startswith(" ")]
    assert first == "channels.conformance.plugin: there is no plugin 'quizz', did you mean 'quiz'?"
    assert last.startswith("config.yaml:1:"), ended.stderr


def test_flood(quiz: Path) -> None:
    """What happens again and again at one place is told once, with how often."""
    source = QUIZ.replace("await client", "client")
    (quiz / "plugins" / "quiz.py").write_text(source)
    ended = run(quiz, "plugins", "test", "quiz", "--set", "answer=x", "--only", "burst")
    (happened,) = re.findall("happened: +(coroutine .*)", ended.stdout)
    assert re.fullmatch(r"coroutine 'Client.send' was never awaited \(100[0-9] times\)", happened)


def test_report(quiz: Path) -> None:
    """A check that fails says what was done, what happened, where, and what to do about it."""
    source = QUIZ.replace("await client.send(", "await client.send(1 + ")
    (quiz / "plugins" / "quiz.py").write_text(source)
    ended = run(quiz, "plugins", "test", "quiz", "--set", "answer=x", "--only", "burst")
    assert ended.returncode == 1
    assert re.fullmatch(
        r"conformance: plugin quiz, /conformance, plugins test\n"
        r"ok       starts       .*\n"
        r"FAILED   burst        on_message comes to its end for every message of many, .*\.\n"
        r"    did:       20 clients that say 50 messages each, all at once\n"
        r"    happened:  the client was closed: 1011 the channel has a bug\n"
        r"    place:     \S+/plugins/quiz\.py:13: await client\.send\(1 \+ self.*\n"
        r"    remedy:    catch what a client may cause; .*raise Rejected\(sentence\)\n"
        r"(ok       .*\n){4}"
        r"5 ok, 1 failed, 0 skipped; [0-9.]+s\n",
        ended.stdout,
    ), ended.stdout


def test_channel_that_nobody_gets_into(tmp_path: Path) -> None:
    """Where a greeting is missing that is told once, and what needs a client is skipped."""
    ended = run(tmp_path, "plugins", "test", "chat", "--set", "name_timeout=200ms")
    assert ended.returncode == 1
    assert ended.stdout.count("FAILED") == 1
    assert "no name came within 0.2s" in ended.stdout
    assert "give it: --say TEXT, or --query NAME=VALUE" in ended.stdout
    assert "skipped  churn        no client gets in: see welcome\n" in ended.stdout


def test_client_that_may_not_publish(tmp_path: Path) -> None:
    """What is skipped because clients are not allowed to says how they are let in."""
    options = ("--set", "allow.publish=nobody", "--only", "burst", "--only", "idempotency")
    ended = run(tmp_path, "plugins", "test", "echo", *options)
    assert ended.returncode == 0, ended.stdout
    assert re.findall("(?m)^skipped +([a-z]+) .*; give its clients .* -H .*--query", ended.stdout) == [
        "burst",
        "idempotency",
    ]


def test_time_is_bounded(
    quiz: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that takes too long ends, and says what it was at."""

    async def churn(_: Checks) -> None:
        """It never ends."""
        await asyncio.Event().wait()

    monkeypatch.setitem(CHECKS, "churn", ("nothing", churn))
    monkeypatch.setattr(verdicts, "DEADLINE", 2.0)  # by then it has started
    (quiz / "config.yaml").write_text(CONFIG)
    options: dict[str, Any] = {name: [] for name in ("set", "say", "query", "headers")}
    code = verdicts.run(
        quiz / "config.yaml", name="second", message="x", only=["churn"], as_json=False, **options
    )
    assert code == 1
    said = capsys.readouterr().out
    assert re.search(r"FAILED +churn +The run ends\.\n", said)
    assert "happened:  the run had not ended within 2s\n" in said


async def test_ctrl_c(quiz: Path) -> None:
    """Ctrl-C ends it with exit code 0 and without a traceback."""
    async with running(quiz, "plugins", "test", "quiz", "--set", "answer=x") as test:
        assert test.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while b"abort" not in await test.process.stdout.readline():
                pass
        assert await test.end(signal.SIGINT) == 0
    assert test.said == ""
