"""Writes the tables of the reference of the config from the models: ``python tests/reference.py``.

A table stands behind its comment, ``<!-- keys of server -->``. What a key means is the docstring below
it in its model; its type and its default are those of the JSON Schema that editors get.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import yaml
from pydantic import BaseModel
from tree import ROOT

from realtime.channel import Channel, Limits
from realtime.config import JWT, TLS, Auth, Document, ServerLimits, ServerSettings
from realtime.loader import Plugins
from realtime.permissions import Allow
from realtime.schema import of_model

PAGE = ROOT / "docs" / "reference" / "config.md"
_TABLE = re.compile(r"(?<=<!-- keys of )([^>]+)( -->\n\n)(?:\|.*\n)*")


def tables() -> dict[str, str]:
    """Every table of the page, by the name in its comment."""
    plugins = Plugins()
    common = keys_of(of_model(Channel.Settings))
    models: dict[str, type[BaseModel]] = {
        "the config": Document,
        "server": ServerSettings,
        "server.limits": ServerLimits,
        "server.tls": TLS,
        "auth": Auth,
        "auth.jwt": JWT,
        "channel": Channel.Settings,
        "channel.allow": Allow,
        "channel.limits": Limits,
    }
    written = {name: table(keys_of(of_model(model))) for name, model in models.items()}
    for name in ("chat", "clock", "echo"):
        own = keys_of(of_model(plugins.channel_type(name).Settings))
        changed = {key: row for key, row in own.items() if row != common.get(key)}
        written[f"plugin {name}"] = table(changed) if changed else ""
    return written


def keys_of(schema: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    """Each key of a model: its type, its default, and what it means."""
    required = schema.get("required", ())
    return {
        key: (
            type_of(value),
            "required" if key in required else default_of(value),
            value["description"],
        )
        for key, value in schema["properties"].items()
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


def default_of(value: dict[str, Any]) -> str:
    """A default as one would write it."""
    default = value.get("default")
    if default is None:
        return "none"
    if type_of(value) == "a section":
        default = {}
    written = yaml.safe_dump(default, default_flow_style=True, width=sys.maxsize).partition("\n")[0]
    return f"`{written}`"


def table(keys: dict[str, tuple[str, str, str]]) -> str:
    """A table in Markdown."""
    head = "| key | type | default | meaning |\n|---|---|---|---|\n"
    return head + "".join(
        f"| `{key}` | {kind} | {default} | {meaning} |\n" for key, (kind, default, meaning) in keys.items()
    )


def generated(page: str) -> str:
    """The page with its tables written anew."""
    written = tables()
    return _TABLE.sub(lambda match: match[1] + match[2] + written[match[1]], page)


if __name__ == "__main__":
    PAGE.write_text(generated(PAGE.read_text()))
