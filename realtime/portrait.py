"""A portrait of a plugin: what its docstrings, its settings and its hooks tell whoever wants to use it."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import yaml
from pydantic import BaseModel

from realtime.channel import Channel
from realtime.checks import HOOKS, PluginProblem, is_marked
from realtime.config import Config
from realtime.loader import Plugins, WantsSettings, guarded
from realtime.modules import Found
from realtime.schema import of_model, settings_of


def find(known: Plugins, wanted: str, config: Config) -> Found:
    """The plugin of a name, or what offers a channel type or an engine of it.

    Raises :exc:`PluginProblem`.
    """
    if not any(found.matches(wanted) for found in known.found):
        wanting = (str(one.get("plugin")) for one in config.channels.values())
        for other in (*config.plugins, config.bus.engine, *wanting):
            with contextlib.suppress(PluginProblem):
                known.load(other)
        kind: type | None = known.types.get(wanted) or known.engines.get(wanted)
        if found := kind and known.source(kind):
            return found
        known.load(wanted)  # which tells where it was looked for
    return next(found for found in known.found if found.matches(wanted))


def of(known: Plugins, found: Found) -> dict[str, Any]:
    """All that is told of a plugin. Raises :exc:`PluginProblem` when it cannot be loaded."""
    module = guarded(found.name, partial(known.modules.get, found.name))
    made = getattr(module, "Plugin", None)
    hooks = vars(made if isinstance(made, type) else module)
    model = settings_of(made)
    with contextlib.suppress(WantsSettings):  # what it is can be told without making it
        known.load(found.name)
    common = [*keys_of(Channel.Settings)]
    types = [
        {
            "name": name,
            "description": inspect.cleandoc(vars(known.types[name]).get("__doc__") or ""),
            "transports": [*known.types[name].transports],
            "settings": [{**row, "common": row in common} for row in keys_of(known.types[name].Settings)],
        }
        for name in known.offered(found.name) or ()
    ]
    shown = {
        "name": found.name,
        "location": found.module,
        "distribution": found.distribution or None,
        "version": found.version or getattr(module, "__version__", None),
        "description": inspect.cleandoc(getattr(module, "__doc__", None) or ""),
        "hooks": [name for name in HOOKS if is_marked(hooks.get(name))],
        "settings": [*keys_of(model)],
        "channel_types": types,
        "engines": [
            {
                "name": name,
                "description": inspect.cleandoc(vars(known.engines[name]).get("__doc__") or ""),
                "settings": [*keys_of(settings_of(known.engines[name]))],
            }
            for name in known.offered(found.name, known.engines) or ()
        ],
    }
    return {**shown, "snippet": "\n".join([*_snippet(shown), ""])}


def lines(shown: dict[str, Any]) -> Iterator[str]:
    """The same for people."""
    yield from _indented(shown["description"], 2)
    yield from ("", f"hooks: {', '.join(shown['hooks'])}")
    yield from _table("settings", shown["settings"])
    for kind in shown["channel_types"]:
        yield from ("", f"channel type {kind['name']}: {', '.join(kind['transports'])}")
        yield from _indented(kind["description"], 2)
        yield from _table("its own settings", [row for row in kind["settings"] if not row["common"]])
        yield from _table("settings of every channel", [row for row in kind["settings"] if row["common"]])
    for engine in shown["engines"]:
        yield from ("", f"engine {engine['name']}")
        yield from _indented(engine["description"], 2)
        yield from _table("its settings", engine["settings"])
    yield from ("", "in the config:", "", *shown["snippet"].splitlines())


def _table(title: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    if rows:
        yield from ("", f"{title}:")
    for row in rows:
        default = "required" if row["required"] else f"default {as_yaml(row['default'])}"
        yield f"  {row['key']}: {row['type'].replace('`', '')}, {default}"
        yield from _indented(row["description"], 6)


def _indented(text: str, by: int) -> Iterator[str]:
    return (f"{' ' * by}{line}".rstrip() for line in text.splitlines())


def _snippet(shown: dict[str, Any]) -> Iterator[str]:
    """What to write into the config: what is required, and what else can be set as comments."""
    for engine in shown["engines"][:1]:
        yield from ("bus:", f"  engine: {engine['name']}")
        yield from (line[2:] for line in _settable(engine["settings"]))
    if shown["engines"] and not shown["channel_types"] and not shown["settings"]:
        return
    if not shown["channel_types"]:
        yield from ("plugins:", f"  - plugin: {shown['name']}", *_settable(shown["settings"]))
        return
    yield "channels:"
    for kind in shown["channel_types"]:
        name = kind["name"]
        yield from (f"  {name}:", f"    plugin: {name}", f"    path: /{name}")
        yield from _settable(row for row in kind["settings"] if not row["common"])


def _settable(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        if row["required"]:
            yield f"    {row['key']}: …  # required: {row['type']}"
        elif "." not in row["key"]:
            yield f"    # {row['key']}: {as_yaml(row['default'])}"


# Settings


def keys_of(model: type[BaseModel]) -> Iterator[dict[str, Any]]:
    """Each key of a model, those of its sections too, as a person is told: type, default and meaning."""
    schema = of_model(model)
    return _keys(schema, schema.get("$defs", {}), "")


def _keys(schema: dict[str, Any], models: dict[str, Any], prefix: str) -> Iterator[dict[str, Any]]:
    for key, value in schema["properties"].items():
        section = models.get(value.get("$ref", "").rpartition("/")[2], {})
        if "properties" in section:
            yield from _keys(section, models, f"{prefix}{key}.")
            continue
        required = key in schema.get("required", ())
        yield {
            "key": prefix + key,
            "type": type_of(value),
            "required": required,
            "default": None if required else value.get("default"),
            "description": value.get("description", ""),
        }


def type_of(value: dict[str, Any]) -> str:
    """A type in words."""
    if "title" in value:
        return str(value["title"])
    if "enum" in value:
        return "one of " + ", ".join(f"`{word}`" for word in value["enum"])
    if options := value.get("anyOf", value.get("oneOf")):
        return ", or ".join(type_of(option) for option in options if option.get("type") != "null")
    match value.get("type"):
        case "array":
            kind = type_of(value["items"])
            return (
                f"a list {kind.removeprefix('one ')}"
                if "enum" in value["items"]
                else f"a list of {_plural(kind)}"
            )
        case "boolean":
            return "true or false"
        case "integer":
            return "a number from 1" if value.get("exclusiveMinimum") == 0 else "a number"
        case "string":
            return "a text"
    return "a section"


def _plural(kind: str) -> str:
    if kind.startswith("one of "):
        return kind.removeprefix("one of ")
    noun = kind.partition(" ")[2]
    return noun + ("es" if noun.endswith("s") else "s")


def as_yaml(value: Any) -> str:
    """A default as one would write it."""
    return yaml.safe_dump(value, default_flow_style=True, width=sys.maxsize).partition("\n")[0]
