"""The command line: what can be typed, and what is said to what cannot."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import ENVIRONMENT, ROOT, run

#: Every command, as the help lists them.
COMMANDS = (
    "serve", "check", "plugins", "routes", "config", "schema", "token", "init", "new-plugin",
    "connect", "publish",
)  # fmt: skip
NO_PLUGINS = ("token", "new-plugin", "connect", "publish")
STUCK = "import sys, threading\nprint('importing', file=sys.stderr, flush=True)\nthreading.Event().wait()\n"

# Usage


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["zebra"], "python -m realtime: 'zebra' is no command\nthere are: serve, check, "),
        (["-c", "no.yaml", "chek"], "'chek' is no command, did you mean 'check'?\nthere are: serve, "),
        (["--zebra"], "python -m realtime serve: there is no option '--zebra'\n"),
        (["plugins", "shwo", "x"], "'shwo' is no command, did you mean 'show'?\nthere are: show, test\n"),
        (["plugins", "show", "x", "--jsno"], "plugins show: there is no option '--jsno', did you mean '--"),
        (["plugins", "show"], "plugins show: the following arguments are required: NAME"),
        (["check", "--jsno"], "check: there is no option '--jsno', did you mean '--json'?\n"),
        (["check", "--jso"], "check: there is no option '--jso', did you mean '--json'?\n"),
        (["--listn=a:1"], "serve: there is no option '--listn', did you mean '--listen'?\n"),
        (["check", "rt.yaml"], "check: there is an argument too many: 'rt.yaml'\n"),
        (["-c"], "argument -c/--config: expected one argument"),
        (["--listen"], "argument --listen: expected one argument"),
        (["--log-level", "wanring"], "'wanring' is no value of --log-level, did you mean 'warning'?"),
        (["--listen", "8080"], "--listen 8080: expected HOST:PORT, [IPV6]:PORT or unix:/PATH"),
        (["--listen", "a:99999"], "--listen a:99999: expected a port between 0 and 65535"),
        (["connect"], "the following arguments are required: URL"),
        (["connect", "ws://127.0.0.1:1/", "--count", "0"], "--count: expected a number from 1, not '0'"),
        (["connect", "ws://127.0.0.1:1/", "--count", "x"], "--count: expected a number from 1, not 'x'"),
    ],
)
def test_usage(tmp_path: Path, arguments: list[str], said: str) -> None:
    """What is typed wrong is exit code 2 and says what."""
    ended = run(tmp_path, *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


# Help


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(tmp_path: Path, option: str) -> None:
    """The help lists the commands and shows examples."""
    ended = run(tmp_path, option)
    assert ended.returncode == 0
    for part in (
        "--version",
        "examples:\n  python -m realtime  ",
        *(f"\n    {name} " for name in COMMANDS),
    ):
        assert part in ended.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(tmp_path: Path, command: str) -> None:
    """The help of a command has an example of it."""
    ended = run(tmp_path, command, "--help")
    assert ended.returncode == 0
    assert re.search(rf"examples?:\n  python -m realtime {command}", ended.stdout)


@pytest.mark.parametrize("command", ["plugins show", "plugins test"])
def test_help_of_a_command_below(tmp_path: Path, command: str) -> None:
    """The help of what is done with one plugin has an example, and fits a terminal of 100 columns."""
    ended = run(tmp_path, *command.split(), "--help")
    assert ended.returncode == 0
    assert re.search(rf"examples?:\n  python -m realtime {command}", ended.stdout)
    assert max(map(len, ended.stdout.splitlines())) <= 100


def test_help_fits_a_terminal(tmp_path: Path) -> None:
    """No line of any help is wider than a terminal of 100 columns."""
    texts = [run(tmp_path, *command, "--help").stdout for command in ([], *([name] for name in COMMANDS))]
    assert [line for text in texts for line in text.splitlines() if len(line) > 100] == []


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in NO_PLUGINS])
def test_ctrl_c_ends_a_command(tmp_path: Path, command: str) -> None:
    """Ctrl-C ends a command while a plugin is imported, with exit code 0 and without a word."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "stuck.py").write_text(STUCK)
    (tmp_path / "config.yaml").write_text("plugins: [stuck]\n")
    arguments = [command, "other.yaml"] if command == "init" else [command]
    process = subprocess.Popen(
        [sys.executable, "-m", "realtime", *arguments],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"importing\n"
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=10)
    finally:
        process.kill()
    assert (process.returncode, said) == (0, b"")


def test_version(tmp_path: Path) -> None:
    """The version is a line on standard output."""
    ended = run(tmp_path, "--version")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.fullmatch(r"realtime \d+\.\d+\.\d+\n", ended.stdout)


def test_help_loads_no_server() -> None:
    """The help needs neither aiohttp nor pydantic, so that it is quick."""
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "realtime", "--help"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=20,
    )
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in ended.stderr.splitlines()}
    assert "realtime" in imported
    assert imported.isdisjoint({"aiohttp", "pydantic", "yaml", "pluggy", "orjson"})


def test_another_distribution_of_the_name(tmp_path: Path) -> None:
    """The other distribution with a package ``realtime`` is noticed and told in one line."""
    info = tmp_path / "realtime-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: realtime\nVersion: 2.0\n")
    ended = subprocess.run(
        [sys.executable, "-m", "realtime", "--version"],
        env={**ENVIRONMENT, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch("realtime: the distribution 'realtime' is installed too, .*\n", ended.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        ["URL", "DATA", "--name", "x"],
        ["URL", "--name", "x", "DATA"],
        ["--name", "x", "URL", "DATA"],
        ["URL", "--name", "x", "--", "-DATA"],
        ["URL", "--json", "--event", "e", "1"],
    ],
)
def test_data_stands_anywhere(tmp_path: Path, arguments: list[str]) -> None:
    """What is published may stand before the options and behind them."""
    words = [word.replace("URL", "http://127.0.0.1:9/") for word in arguments]
    ended = run(tmp_path, "publish", *words)
    assert (ended.returncode, "cannot connect" in ended.stderr) == (3, True)


def test_ctrl_c_while_modules_are_imported(tmp_path: Path) -> None:
    """Ctrl-C at the moments of importing ends it with exit code 0, and never with a crash."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'pydantic':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    path = os.pathsep.join([str(tmp_path), ENVIRONMENT["PYTHONPATH"]])
    ended = run(tmp_path, "check", PYTHONPATH=path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


# Where the output goes


def shell(directory: Path, line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of shell; ``realtime`` in it is the command."""
    return subprocess.run(
        ["bash", "-c", line.replace("realtime", '"$0" -m realtime'), sys.executable],
        cwd=directory,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        timeout=20,
    )


@pytest.mark.parametrize("command", ["check", "plugins", "routes", "config", "schema"])
def test_full_disk(tmp_path: Path, command: str) -> None:
    """Output that cannot be written is a line, and no success."""
    ended = shell(tmp_path, f"realtime {command} > /dev/full")
    assert (ended.returncode, ended.stderr) == (3, b"python -m realtime: no space left on device\n")


def test_without_standard_error(tmp_path: Path) -> None:
    """Without standard error nothing of it gets into standard output."""
    (tmp_path / "config.yaml").write_text("server: {drain: 10}\n")
    ended = shell(tmp_path, "realtime check 2>&-")
    assert (ended.returncode, ended.stdout) == (1, b"")


@pytest.mark.parametrize("command", ["plugins", "schema", "config"])
def test_narrow_encoding(tmp_path: Path, command: str) -> None:
    """What the output's encoding cannot say is escaped."""
    ended = shell(tmp_path, f"realtime {command}", PYTHONIOENCODING="ascii")
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_link_that_leads_nowhere(tmp_path: Path) -> None:
    """A config.yaml that is a broken link is no reason to serve something else."""
    (tmp_path / "config.yaml").symlink_to("nowhere.yaml")
    ended = run(tmp_path, "check")
    assert (ended.returncode, ended.stderr) == (1, "config.yaml: not found\n")
