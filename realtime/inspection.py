"""The commands that look at a config and its plugins and start nothing.

What they find goes to standard output, as a table or as JSON; what is wrong goes to standard error, as
``file:line:column: path: what is wrong``. The JSON is a contract: keys are only ever added.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from realtime import logs, portrait
from realtime.checks import PluginProblem
from realtime.config import BUILT_IN, load
from realtime.errors import ConfigError, Problem
from realtime.exit_codes import ExitCode
from realtime.loader import Plugins, WantsSettings
from realtime.modules import Found, first_party
from realtime.routing import Route
from realtime.schema import compose, of_model, settings_of
from realtime.server import Server
from realtime.source import SECRET_NAME, KeyPath, Source
from realtime.values import Model, as_yaml


def check(file: Path | None, *, as_json: bool) -> ExitCode:
    """Find every mistake in a config and in the plugins that it names."""
    server, problems = _loaded(file)
    if as_json:
        _print_json({"ok": not problems, "problems": [asdict(problem) for problem in problems]})
        return ExitCode.BAD_CONFIG if problems else ExitCode.OK
    if server is not None and not problems:
        names = ", ".join(server.channels) or "none"
        print(f"{server.config.source.name}: no mistakes; channels: {names}")
    return _end(problems)


def plugins(file: Path | None, *, as_json: bool) -> ExitCode:
    """List the plugins that could be named, and the channels that use them."""
    server, problems = _loaded(file)
    if server is None:
        return _end(problems)
    known, config = server.plugins, server.config
    rows: list[dict[str, Any]] = []
    everything, engine = known.found, config.bus.engine
    for found in everything:
        first = next(other for other in everything if other.matches(found.name))
        types = known.offered(found.name) if first is found else None
        engines = known.offered(found.name, known.engines) if first is found else None
        broken = known.broken(found.name) if first is found else None
        used = {
            name: values
            for name, values in config.channels.items()
            if first is found
            and (found.matches(str(values.get("plugin"))) or values.get("plugin") in (types or ()))
        }
        rows.append(
            {
                "name": found.name,
                "kind": _kind(found),
                "location": found.module,
                "distribution": found.distribution or None,
                "version": found.version or None,
                "description": found.described(),
                "loaded": types is not None,
                "channel_types": types,
                "engines": engines,
                "bus": first is found and (found.matches(engine) or engine in (engines or ())),
                "channels": [name for name in used if not config.is_off(name)],
                "enabled": first is found and any(map(found.matches, config.plugins)),
                "hidden_by": None if first is found else first.module,
                "problem": broken,
            }
        )
    if as_json:
        _print_json({"plugins": rows})
    else:
        notes = [
            f"hidden by {_short(row['hidden_by'])}"
            if row["hidden_by"]
            else "BROKEN, see below"
            if row["problem"]
            else row["description"]
            for row in rows
        ]
        _print_table(
            ("NAME", "FROM", "CHANNELS", "ABOUT"),
            [
                (
                    row["name"],
                    _from(row),
                    ", ".join([*row["channels"], *["plugins"] * row["enabled"], *["bus"] * row["bus"]])
                    or "-",
                    note,
                )
                for row, note in zip(rows, notes, strict=True)
            ],
        )
    return _end(problems)


def show(file: Path | None, *, name: str, as_json: bool) -> ExitCode:
    """Tell all that a user needs to know of a plugin, of a channel type, or of a channel's."""
    logs.configure("warning", "text")
    with contextlib.redirect_stdout(sys.stderr):
        try:
            config, known = load(file), Plugins((file.parent if file else Path()).absolute())
            found = portrait.find(known, str(config.channels.get(name, {}).get("plugin", name)), config)
            shown = {"kind": _kind(found), **portrait.of(known, found)}
        except ConfigError as error:
            return _end(error.problems)
        except PluginProblem as problem:
            logs.say(str(problem))
            return ExitCode.BAD_CONFIG
    if as_json:
        _print_json(shown)
    else:
        print(f"{shown['name']}, {_from(shown)}", *portrait.lines(shown), sep="\n")
    return ExitCode.OK


def routes(file: Path | None, *, as_json: bool) -> ExitCode:
    """List every path that is served."""
    server, problems = _loaded(file)
    if server is None or problems:
        return _end(problems)
    rows = [_route(server, route) for route in server.routes]
    if as_json:
        _print_json({"routes": rows})
    else:
        _print_table(
            ("METHODS", "PATH", "TRANSPORTS", "SERVED BY"),
            [
                (
                    ",".join(row["methods"]),
                    row["path"],
                    ", ".join(row["transports"]) or "-",
                    row["owner"].replace(":", " ") + (f" ({row['plugin']})" if row["plugin"] else ""),
                )
                for row in rows
            ],
        )
    return ExitCode.OK


def config(file: Path | None, *, as_json: bool) -> ExitCode:
    """Print the effective config and where each value comes from."""
    server, problems = _loaded(file)
    if server is None or problems:
        return _end(problems)
    source = server.config.source
    effective: dict[str, Any] = {
        "server": as_yaml(server.config.server),
        "bus": {"engine": server.config.bus.engine, **as_yaml(server.bus.engine.settings)},
        "auth": as_yaml(server.config.auth),
        "plugins": [
            {"plugin": name, **as_yaml(server.plugins.settings[name])}
            if name in server.plugins.settings
            else name
            for name in server.config.plugins
        ],
        "channels": {
            # One that is off is not validated, so nobody knows what else in it is a secret.
            name: as_yaml(server.channels[name].settings)
            if name in server.channels
            else {**{key: values[key] for key in ("plugin", "path") if key in values}, "enabled": False}
            for name, values in server.config.channels.items()
        },
    }
    hidden = _hide(effective, (), source)
    if as_json:
        origins = {".".join(map(str, path)): source.origin(path) for path, _ in _leaves(hidden, ())}
        _print_json({"config": hidden, "origins": origins})
    else:
        lines = list(_yaml_lines(hidden, (), source))
        width = min(max(len(line) for line, _ in lines), 60)
        for line, origin in lines:
            print(f"{line:{width}}  # {origin}" if origin else line)
    return ExitCode.OK


def schema(file: Path | None) -> ExitCode:
    """Print the JSON Schema of the config with the settings of every installed plugin."""
    whole, left_out = _schema(file.parent if file else Path())
    logs.say(*left_out)
    _print_json(whole)
    return ExitCode.OK


def init(file: Path, *, force: bool) -> ExitCode:
    """Write a commented config, and its schema beside it."""
    if not file.name:
        logs.say(f"{str(file)!r} is no name of a file")
        return ExitCode.USAGE
    schema_file = file.with_name(f"{file.stem}.schema.json")
    header = f"# yaml-language-server: $schema={schema_file.name}\n"
    whole, left_out = _schema(file.parent)
    logs.say(*left_out)
    texts = {
        schema_file: json.dumps(whole, indent=2) + "\n",
        file: header + BUILT_IN.read_text(encoding="utf-8"),
    }
    if not force and (there := [str(path) for path in texts if os.path.lexists(path)]):
        logs.say(f"{' and '.join(there)} is there already; --force replaces it")
        return ExitCode.BAD_CONFIG
    try:
        for path, text in texts.items():
            with path.open("w" if force else "x", encoding="utf-8") as written:
                written.write(text)
    except OSError as error:
        logs.say(f"{error.filename or file} cannot be written: {(error.strerror or str(error)).lower()}")
        return ExitCode.BAD_CONFIG
    option = "" if file == Path("config.yaml") else f" -c {file}"
    print(f"wrote {file}, and {schema_file} for editors; start it with: python -m realtime{option}")
    return ExitCode.OK


# Loading


def _loaded(file: Path | None) -> tuple[Server | None, list[Problem]]:
    """A server that is loaded as far as that is possible, and all that is wrong."""
    logs.configure("warning", "text")
    # What a plugin prints while it is imported is not to stand among the results.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            server = Server(load(file))
        except ConfigError as error:
            return None, error.problems
        try:
            asyncio.run(_load(server))
        except ConfigError as error:
            return server, error.problems
    return server, []


async def _load(server: Server) -> None:
    # A plugin that is being imported holds the event loop, so Ctrl-C interrupts it itself.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    server.load()


def _schema(directory: Path) -> tuple[dict[str, Any], list[str]]:
    """The schema with every plugin that can be loaded, and a sentence for each that cannot."""
    known = Plugins(directory.absolute())
    left_out: list[str] = []
    plugins: dict[str, type[Model]] = {}

    def has_schema(name: str, model: type[Model]) -> bool:
        try:
            of_model(model)
        except Exception as error:  # of a type of the plugin's own, whatever its schema raises
            left_out.append(f"left out: plugin {name!r}: its settings have no schema: {error}")
            return False
        return True

    with contextlib.redirect_stdout(sys.stderr):
        for found in known.found:
            try:
                known.load(found.name)
            except WantsSettings:
                pass  # which only a config has; it offers no channels without them
            except PluginProblem as problem:
                # Nobody misses what an extra is for who has not asked for that.
                if _kind(found) != "built-in":
                    left_out.append(f"left out: plugin {found.name!r}: {problem}")
                continue
            model = settings_of(getattr(known.modules.get(found.name), "Plugin", None))
            if has_schema(found.name, model):
                plugins[found.name] = model
        types = {name: kind for name, kind in known.types.items() if has_schema(name, kind.Settings)}
        engines = {
            name: kind for name, kind in known.engines.items() if has_schema(name, settings_of(kind))
        }
    return compose(types, plugins, engines), list(dict.fromkeys(left_out))


# Showing


def _kind(found: Found) -> str:
    if found.directory is None:
        return "built-in" if found.module.startswith("realtime.") else "package"
    return "built-in" if found.directory.resolve() == first_party() else "file"


def _from(row: dict[str, Any]) -> str:
    if row["kind"] == "package":
        return f"{row['distribution']} {row['version']}"
    return "built in" if row["kind"] == "built-in" else _short(row["location"])


def _short(location: str) -> str:
    """A path as it is seen from here, if it is below."""
    path = Path(location)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else location


def _route(server: Server, route: Route) -> dict[str, Any]:
    kind, _, name = route.owner.partition(":")
    assert server.assembly is not None
    path, method = server.assembly.path_of(route), route.definition.method
    channel = server.channels.get(name) if kind == "channel" else None
    if channel is None or method != "*":
        return {"methods": [method], "path": path, "transports": [], "owner": route.owner, "plugin": None}
    return {
        "methods": channel.methods,
        "path": path,
        "transports": list(channel.transports),
        "owner": route.owner,
        "plugin": channel.settings.plugin,
    }


def _hide(value: Any, path: KeyPath, source: Source) -> Any:
    """The value without what is nobody's business."""
    if any(map(SECRET_NAME.search, source.variables.get(path, ()))):
        return "***"
    if isinstance(value, dict):
        return {key: _hide(inner, (*path, key), source) for key, inner in value.items()}
    if isinstance(value, list):
        return [_hide(inner, (*path, index), source) for index, inner in enumerate(value)]
    return logs.redact(value) if isinstance(value, str) else value


def _leaves(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    """Every value that is no section, with its path; a list counts as one value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif path:
        yield path, value


def _yaml_lines(value: dict[str, Any], path: KeyPath, source: Source) -> Iterator[tuple[str, str]]:
    indent = "  " * len(path)
    for key, inner in value.items():
        written = yaml.safe_dump(key, width=sys.maxsize).partition("\n")[0]
        if isinstance(inner, dict) and inner:
            yield f"{indent}{written}:", ""
            yield from _yaml_lines(inner, (*path, key), source)
        else:
            text = yaml.safe_dump(inner, default_flow_style=True, allow_unicode=True, width=sys.maxsize)
            text = text.removesuffix("...\n").rstrip()
            # JSON is YAML, and has line ends only where they are wanted.
            text = json.dumps(inner, ensure_ascii=False) if "\n" in text else text
            yield f"{indent}{written}: {text}", source.origin((*path, key))


def _print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _end(problems: Sequence[Problem]) -> ExitCode:
    logs.say(*map(str, problems))
    return ExitCode.BAD_CONFIG if problems else ExitCode.OK
