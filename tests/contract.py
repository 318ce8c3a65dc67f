"""Records what is promised: ``python tests/contract.py`` adds to ``contract.txt`` what is new.

A line is a fact: where it is, a colon, what it is there. What goes or changes is not written unless
``API_VERSION`` has grown: whoever relies on it would have to change, too. ``docs/compatibility.md`` is the
same for people.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import logging
import os
import sys
import tempfile
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import aiohttp
import public
import reference
from command import ENVIRONMENT, run
from pydantic import BaseModel
from test_frames import CONFIG as FRAMES, frames, reading

import realtime
from realtime.channel import TRANSPORTS, Transport
from realtime.cli import _parsers
from realtime.close_codes import CloseCode
from realtime.config import parse
from realtime.exit_codes import ExitCode
from realtime.logs import JSONLines
from realtime.message import Kind
from realtime.metrics import METRICS
from realtime.permissions import Action
from realtime.server import Server
from realtime.source import Source
from realtime.topic import Overflow
from realtime.version import API_VERSION

FILE = Path(__file__).with_name("contract.txt")
#: What a fact ends with whom everybody has to give something that nobody was asked for before.
REQUIRED = "required"
HEAD = """\
# What is promised (docs/compatibility.md). `python tests/contract.py` records what is new.
# To take something away, or to change it, needs a new API_VERSION.
"""


class Serving:
    """A server and its port, as the tests of the frames want them."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.port = server.addresses[0].port


def facts() -> list[str]:
    """Everything that is promised now, a line each, in order."""
    with tempfile.TemporaryDirectory() as name:
        found = [
            f"API_VERSION: {API_VERSION}",
            *_python(),
            *_hooks(),
            *_config(),
            *_command_line(),
            *_words(),
            *(f"exit {code.value}: {code.name}" for code in ExitCode),
            *(f"close {code.value}: {code.name}" for code in CloseCode),
            *(f"metric {one.name} ({one.kind}): {' '.join(one.labels) or 'no label'}" for one in METRICS),
            *_of_commands(Path(name)),
            *asyncio.run(_of_a_server()),
        ]
    return sorted(found)


def differences(recorded: Iterable[str], now: Iterable[str]) -> tuple[list[str], list[str]]:
    """What was promised and is not kept, and what is new, in sentences that say what to do."""
    before, after = (dict(fact.split(": ", 1) for fact in some) for some in (recorded, now))
    broken, new = [], []
    version = "raise API_VERSION (realtime/version.py), say it in the CHANGELOG"
    for what, how in before.items():
        if what not in after:
            broken.append(
                f"{what} is gone, and somebody uses it. Bring it back, and deprecate it for a minor "
                f"version first (docs/compatibility.md); then {version}, and run python tests/contract.py"
            )
        elif after[what] != how:
            broken.append(
                f"{what} was {how!r} and is {after[what]!r}. If whatever was right before still is (a "
                f"wider type, another default that nobody notices), change that line of tests/contract.txt "
                f"by hand; else {version}, and run python tests/contract.py"
            )
    for what in after.keys() - before.keys():
        whole = max(what.rpartition("(")[0], what.rpartition(".")[0], key=len)
        known = any(old == whole or old.startswith((f"{whole}(", f"{whole}.")) for old in before)
        if after[what].endswith(REQUIRED) and known:
            broken.append(f"{what} is new and required, and nobody gives it yet: give it a default")
        else:
            new.append(f"{what} is new: python tests/contract.py records it, and so promises it")
    return sorted(broken), sorted(new)


def read() -> list[str]:
    """The facts that are recorded."""
    return [line for line in FILE.read_text().splitlines() if line and not line.startswith("#")]


# What the code says


def _python() -> Iterator[str]:
    for name, value in public.names():
        where = f"python realtime.{name}"
        if name == "connect":
            yield f"{where}: Connection"
        elif inspect.isclass(value):
            bases = [base.__name__ for base in value.__bases__ if base.__name__ in realtime.__all__]
            yield f"{where}: class{' of ' + ', '.join(bases) if bases else ''}"
            made = public.constructor(value)
            yield from _parameters(where, made or [])
            for member in public.members(value):
                yield from _member(f"{where}.{member.name}", member, issubclass(value, BaseModel))
        elif inspect.isfunction(value):
            kind = "async def" if inspect.iscoroutinefunction(value) else "def"
            yield f"{where}: {kind} -> {inspect.signature(value).return_annotation}"
            yield from _parameters(where, public.parameters(value))
        else:
            yield f"{where}: there"


def _member(where: str, member: public.Member, field: bool) -> Iterator[str]:
    match member.kind:
        case "async" | "def":
            kind = "async def" if member.kind == "async" else "def"
            yield f"{where}: {kind} -> {member.type}"
            yield from _parameters(where, member.parameters)
        case "attribute":
            need = f", {REQUIRED}" if field and not member.default else ""
            default = f" = {member.default}" if member.default else ""
            yield f"{where}: {member.type or 'there'}{default}{need}"
        case kind:
            yield f"{where}: {member.type or kind}"


def _parameters(where: str, parameters: Iterable[inspect.Parameter]) -> Iterator[str]:
    for one in parameters:
        name, _, rest = public.spell(one).partition(": ")
        given = "=" if one.kind is one.KEYWORD_ONLY else ""
        needed = one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        yield f"{where}({name}{given}): {rest}{f', {REQUIRED}' if needed else ''}"


def _words() -> Iterator[str]:
    every = {"Action": Action, "Kind": Kind, "Overflow": Overflow, "Transport": Transport}
    for name, type_ in every.items():
        yield from (f"word {name} {word}: there" for word in get_args(type_))
    yield from (f"word transports {word}: there" for word in TRANSPORTS)


def _hooks() -> Iterator[str]:
    for name, hook in public.hooks().items():
        yield f"hook {name}: -> {inspect.signature(hook).return_annotation}"
        for one in public.parameters(hook):  # a plugin names those that it wants: none is required
            yield f"hook {name}({one.name}): {one.annotation}"


def _config() -> Iterator[str]:
    for section, keys in reference.sections().items():
        for key, (type_, default, _) in keys.items():
            needed = default == REQUIRED
            path = key if section == "the config" else f"{section}.{key}"
            yield f"config {path}: {type_}, {REQUIRED if needed else f'default {default}'}"


def _command_line() -> Iterator[str]:
    whole, commands = _parsers()
    yield from (f"command {name}: there" for name in commands)
    for name, parser in {"": whole, **commands}.items():
        for action in parser._actions:
            if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
                continue
            takes = "a flag" if action.nargs == 0 else "a value"
            if action.option_strings:
                for option in action.option_strings:
                    yield f"command {f'{name} {option}'.strip()}: {takes}"
            else:
                yield f"command {name} {action.dest.upper()}: {action.nargs or REQUIRED}"


# What comes out


class Shapes:
    """The types of the values in JSON, of all samples of one kind together."""

    def __init__(self) -> None:
        self._types: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, where: str, value: Any, *, any_of: tuple[str, ...] = ()) -> None:
        """Look at a sample; what stands under the keys ``any_of`` may be anything."""
        if any(where.endswith(f" {key}") or where.endswith(f".{key}") for key in any_of):
            self._types[where].add("any")
        elif isinstance(value, dict):
            if not where.endswith((" of", "[]")):
                self._types[where].add("object")
            for key, inner in value.items():
                self.add(
                    f"{where} {key}" if where.endswith(" of") else f"{where}.{key}", inner, any_of=any_of
                )
        elif isinstance(value, list):
            self._types[where].add("list")
            for inner in value:
                self.add(f"{where}[]", inner, any_of=any_of)
        else:
            names = {str: "text", bool: "true or false", int: "number", float: "number"}
            self._types[where].add(names.get(type(value), "null"))

    def facts(self) -> list[str]:
        """A line for each place."""
        return [f"{where}: {', or '.join(sorted(types))}" for where, types in self._types.items()]


def _of_commands(directory: Path) -> list[str]:
    shapes = Shapes()
    info = directory / "site" / "somebodys_poll-2.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys-poll\nVersion: 2.1\n")
    (info / "entry_points.txt").write_text("[realtime]\npoll = somebodys_poll\n")
    (info.parent / "somebodys_poll.py").write_text('"""Polls."""\n')
    (directory / "plugins").mkdir()
    (directory / "plugins" / "clock.py").write_text('"""Hides the one that is built in."""\n')
    (directory / "plugins" / "bad.py").write_text("1 / 0\n")
    good, bad = directory / "good.yaml", directory / "bad.yaml"
    good.write_text("channels: {lobby: {plugin: chat, path: /chat}}\n")
    bad.write_text(
        "plugins: [bad]\nchannels: {lobby: {plugin: chat, path: /chat, histroy: 1}}\nserver: 7\n"
    )
    path = os.pathsep.join([str(info.parent), ENVIRONMENT["PYTHONPATH"]])
    # What is found wrong is told by the file that has something wrong; routes are shown of the other only.
    asked = [("check", bad), ("plugins", bad), ("routes", good), ("config", good)]
    with ThreadPoolExecutor() as pool:
        printed = pool.map(
            lambda one: run(directory, "-c", one[1].name, one[0], "--json", PYTHONPATH=path).stdout, asked
        )
        for (command, _), text in zip(asked, printed, strict=True):
            anything = ("config", "origins") if command == "config" else ()
            shapes.add(f"json of {command} --json, of", json.loads(text), any_of=anything)
    return [fact.replace(", of ", " ") for fact in shapes.facts()]


class _Ends(logging.Handler):
    """What the log says of connections that have ended, as JSON."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self._shapes = shapes
        self.setFormatter(JSONLines())

    def emit(self, record: logging.LogRecord) -> None:
        """Look at the fields (``logging.Handler``)."""
        line = json.loads(self.format(record))
        if "client" in line:
            self._shapes.add("log of a connection, of", line)


async def _of_a_server() -> list[str]:
    shapes = Shapes()
    log, ends = logging.getLogger("realtime"), _Ends(shapes)
    level = log.level
    log.addHandler(ends)
    log.setLevel("INFO")
    text = (
        textwrap.dedent(FRAMES) + "  lobby: {plugin: chat, path: /chat, history: 9, presence: announce}\n"
    )
    text += "  echo: {plugin: echo, path: /ws}\n"
    config = parse(f"server: {{listen: ['127.0.0.1:0'], watchdog: off}}\n{text}", Source("config.yaml"))
    try:
        async with Server(config) as server, aiohttp.ClientSession() as session:
            serving: Any = Serving(server)
            for frame in (await frames(serving, "v1")).values():
                _look(shapes, json.loads(frame))
            site = f"http://127.0.0.1:{serving.port}"
            async with reading(serving, "v1", "/chat?name=alice") as reader:
                while "realtime:members" not in await reader.next():  # she is in
                    pass
                async with session.get(f"{site}/-/clients?search=alice") as answer:
                    either = ("clients[].identity", "clients[].name")
                    shapes.add("json of /-/clients, of", await answer.json(), any_of=either)
                async with session.get(f"{site}/-/stats") as answer:
                    told = await answer.json()
                told["channels"], told["now"]["handlers"] = (
                    {"NAME": told["channels"]["lobby"]},
                    {"NAME": 0.0},
                )
                told["connections"] |= {"ended": {"CODE": 1}, "refused": {"REASON": 1}}
                for histogram in (told["process"]["loop_lag_seconds"], told["delivery_lag_seconds"]):
                    histogram["buckets"] = {"BOUND": 1}
                shapes.add("json of /-/stats, of", told, any_of=("p50", "p99"))
                log.warning("something")
                stats = server.watching.stats
                event = {"stats": {}, "topics": stats.topics(), "warnings": list(stats.warnings.last)}
                shapes.add("json of an event stats, of", event)
                for what, method, path in (
                    ("a POST", "POST", "/chat?name=bob"),
                    ("a POST", "POST", "/ws"),
                    ("the snapshot", "GET", "/chat"),
                    ("the snapshot", "GET", "/chat?since=deadbeef-1"),
                    ("the snapshot", "GET", "/news/x"),
                    ("/-/channels", "GET", "/-/channels"),
                    ("/-/live", "GET", "/-/live"),
                    ("/-/ready", "GET", "/-/ready"),
                    ("DELETE", "DELETE", "/chat?name=alice"),
                ):
                    said = "hi" if method == "POST" else None
                    headers = {"Accept": "application/json"}
                    async with session.request(method, site + path, headers=headers, data=said) as answer:
                        anything = ("members[]", "messages[].data")
                        shapes.add(f"json of {what}, of", await answer.json(), any_of=anything)
                while "realtime:bye" not in (frame := await reader.next()):
                    pass
                _look(shapes, json.loads(frame))
    finally:
        log.removeHandler(ends)
        log.setLevel(level)
    return [fact.replace(", of ", " ") for fact in shapes.facts()]


def _look(shapes: Shapes, frame: dict[str, Any]) -> None:
    event = frame.get("event", "message")
    own = event.startswith("realtime:")
    any_of = ("members[]",) if own and event not in ("realtime:join", "realtime:leave") else ("data",)
    shapes.add(f"frame of {event if own else 'a message'}, of", frame, any_of=any_of)


def main() -> int:
    """Record what is new; refuse to record what would break somebody."""
    recorded, now = read() if FILE.exists() else [], facts()
    broken, new = differences(recorded, now)
    if broken and f"API_VERSION: {API_VERSION}" in recorded:
        sys.stderr.write("\n\n".join([*broken, ""]))
        return 1
    FILE.write_text(HEAD + "".join(f"{fact}\n" for fact in now))
    sys.stdout.write(f"{len(now)} facts, {len(new)} of them new: {FILE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
