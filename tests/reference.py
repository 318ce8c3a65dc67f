"""Writes what the reference has from the code: ``python tests/reference.py``.

On the page of the config a table stands behind its comment, ``<!-- keys of server -->``. What a key means
is the docstring below it in its model; its type and its default are those of the JSON Schema that editors
get. The table of metrics stands behind ``<!-- metrics -->`` on the page that is about watching. The page
of the API is written whole, from docstrings and signatures.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import public
from pydantic import BaseModel
from tree import ROOT

from realtime.channel import Channel, Limits
from realtime.config import JWT, TLS, Auth, BusSettings, Document, ServerLimits, ServerSettings
from realtime.loader import Plugins
from realtime.metrics import METRICS
from realtime.permissions import Allow
from realtime.portrait import as_yaml, type_of
from realtime.schema import of_model

PAGE = ROOT / "docs" / "reference" / "config.md"
_TABLE = re.compile(r"(?<=<!-- keys of )([^>]+)( -->\n\n)(?:\|.*\n)*")


def tables() -> dict[str, str]:
    """Every table of the page, by the name in its comment."""
    return {name: table(keys) if keys else "" for name, keys in sections().items()}


def sections() -> dict[str, dict[str, tuple[str, str, str]]]:
    """The keys of every section of the config, by the name that its table has."""
    plugins = Plugins()
    models: dict[str, type[BaseModel]] = {
        "the config": Document,
        "server": ServerSettings,
        "server.limits": ServerLimits,
        "server.tls": TLS,
        "bus": BusSettings,
        "auth": Auth,
        "auth.jwt": JWT,
        "channel": Channel.Settings,
        "channel.allow": Allow,
        "channel.limits": Limits,
    }
    written = {name: keys_of(of_model(model)) for name, model in models.items()}
    for name in ("chat", "clock", "echo"):
        own = keys_of(of_model(plugins.channel_type(name).Settings))
        changed = {key: row for key, row in own.items() if row != written["channel"].get(key)}
        written[f"plugin {name}"] = changed
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


def default_of(value: dict[str, Any]) -> str:
    """A default as one would write it."""
    default = value.get("default")
    if default is None:
        return "none"
    return "`{}`" if type_of(value) == "a section" else f"`{as_yaml(default)}`"


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


# Every metric

WATCH = ROOT / "docs" / "how-to" / "watch.md"


def metered(page: str) -> str:
    """The page with its table of metrics written anew."""
    rows = [
        f"| `{one.name}` | `{one.path}` | {one.kind} | {one.help.removesuffix('.')} |\n" for one in METRICS
    ]
    head = "| metric | in `/-/stats` | is a | meaning |\n|---|---|---|---|\n"
    return re.sub(r"(?<=<!-- metrics -->\n\n)(?:\|.*\n)*", lambda _: head + "".join(rows), page)


# The page of the API

API = PAGE.with_name("api.md")
_INTRODUCTION = """\
# API

<!-- `python tests/reference.py` writes this page from the docstrings; change these. -->

Everything that `realtime` exports, in the words of its docstrings: what you may call, override and read.
What stands here is [promised](../compatibility.md); what a class has beyond it is for the server itself.

Other pages explain and show: [Hooks](hooks.md), [Channels and clients](channel.md), [Bus](bus.md),
[Client](client.md), [Config](config.md).
"""
#: The sections of the page: of which modules they have the names, and what else to read.
_SECTIONS = {
    "Channels and clients": ("channel", "[Channels and clients](channel.md) says when each is called."),
    "The bus": (
        "bus engine topic message observing",
        "[Bus](bus.md) says what a topic keeps, and for whom.",
    ),
    "Who may do what": (
        "permissions proxies",
        "[Who may do what](channel.md#who-may-do-what) has an example.",
    ),
    "Settings": ("values config", "[Every channel](config.md#every-channel) lists the keys that all have."),
    "The server": ("server changes embedding", "[In a program](channel.md#in-a-program) has an example."),
    "The client for applications": ("client", "[Client](client.md) says when it comes back, and how."),
    "Ends": ("close_codes", "[Close codes](close-codes.md) says what each means."),
    "Errors": ("errors", "[Errors](channel.md#errors) says when each is raised."),
    "Versions": ("hookspecs version", "[Compatibility](../compatibility.md) says what they promise."),
}


def api() -> str:
    """The whole page."""
    written = [_INTRODUCTION, "## Hooks\n", "A plugin implements those that it wants: [Hooks](hooks.md).\n"]
    for name, hook in public.hooks().items():
        written.append(_entry(f"{name}{_arguments(public.parameters(hook))}{_returns(hook)}"))
        written.append(markdown(inspect.getdoc(hook) or ""))
    every = [(name, value) for name, value in public.names() if not name.startswith("testing.")]
    for title, (modules, see) in _SECTIONS.items():
        written += [f"## {title}\n", f"{see}\n"]
        for name, value in every:
            if public.home(name) in modules.split():
                written += _of(name, value)
    left = [name for name, _ in every if f"\n### `{name}`\n" not in "\n".join(written)]
    assert not left, (
        f"these have no section on the page of the API (_SECTIONS in tests/reference.py): {left}"
    )
    return "\n".join(written)


def _of(name: str, value: object) -> Iterator[str]:
    yield f"### `{name}`\n"
    if name == "connect":
        yield "The same as [`Connection`](#connection).\n"
    elif isinstance(value, type):
        made = public.constructor(value) or []
        if made:
            yield _entry(f"{name}{_arguments(made)}")
        bases = [f"`{base.__name__}`" for base in value.__bases__ if base.__name__ in public.exported()]
        yield markdown(inspect.getdoc(value) or "") + (f"\nA {' and a '.join(bases)}.\n" if bases else "")
        listed = [member for member in public.members(value) if not member.name.startswith("__")]
        attributes = [member for member in listed if member.kind in ("attribute", "property")]
        told = {one.name for one in made}
        attributes = [member for member in attributes if member.doc or member.name not in told]
        if issubclass(value, Enum):
            yield ", ".join(f"`{one.name}` ({one.value})" for one in value) + "\n"
            attributes = [member for member in attributes if member.kind == "property"]
        if attributes:
            yield "\n".join(map(_attribute, attributes)) + "\n"
        for member in listed:
            if member.kind not in ("attribute", "property"):
                yield from _method(member)
    elif inspect.isfunction(value):
        yield _entry(f"{name}{_arguments(public.parameters(value))}{_returns(value)}")
        yield markdown(inspect.getdoc(value) or "")
    else:
        yield markdown(public.constant(name))


def _attribute(member: public.Member) -> str:
    type_ = f": {member.type}" if member.type else ""
    default = f" = {member.default}" if member.default else ""
    told = markdown(member.doc).strip().replace("\n", "\n  ")
    return f"- **`{member.name}{type_}{default}`** {told}".rstrip()


def _method(member: public.Member) -> Iterator[str]:
    if member.kind == "class":
        yield _entry(f"class {member.name}")
    else:
        awaited = "await " if member.kind == "async" else ""
        yield _entry(f"{awaited}{member.name}{_arguments(member.parameters)} -> {member.type}")
    yield markdown(member.doc)


def _entry(signature: str) -> str:
    return f"**`{signature}`**\n"


def _returns(function: Callable[..., Any]) -> str:
    return f" -> {inspect.signature(function).return_annotation}"


def _arguments(parameters: list[inspect.Parameter]) -> str:
    spelled: list[str] = []
    for one in parameters:
        if one.kind is one.KEYWORD_ONLY and not any(word.startswith("*") for word in spelled):
            spelled.append("*")
        spelled.append(public.spell(one))
    return f"({', '.join(spelled)})"


def markdown(doc: str) -> str:
    """A docstring as Markdown: its roles and literals are code, and a block of code is fenced."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", doc)
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    written, code = list[str](), list[str]()
    for line in [*text.splitlines(), ""]:
        if line.startswith("    ") and (code or (written and not written[-1])):
            code += [line[4:]]
        else:
            if code:
                written += ["<!-- not run: from a docstring -->", "```python", *code, "```"]
                code = []
            written.append(re.sub("::$", ":", line))
    return "\n".join(written)


if __name__ == "__main__":
    PAGE.write_text(generated(PAGE.read_text()))
    WATCH.write_text(metered(WATCH.read_text()))
    API.write_text(api())
