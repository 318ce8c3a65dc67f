"""What is promised, read from the code: the exported names with their members, and what is told of each.

``contract.py`` records it, ``reference.py`` writes the page of the API from it. What a class has that is
not promised stands here, by name: it is for the host.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, NamedTuple

import realtime
from realtime import hookspecs
from realtime.checks import HOOKS
from realtime.values import Model

#: Of these classes the host uses more than is promised; this is what is.
PROMISED = {
    "Bus": "publish publish_threadsafe subscribe observe topic open topics shared claim holder release size"
    " counters wall_time opened tell respond",
    "Topic": "name position epoch history members here opened subscribers size append restore skip",
    "Server": "config ready bus channels addresses load start stop reload",
    "Subscription": "__aenter__ __aexit__ __aiter__ __anext__",
    "Observation": "__aenter__ __aexit__ __aiter__ __anext__",
    "Clock": "advance",
}
#: Of these all is promised but what is for the host.
FOR_THE_HOST = {
    "Channel": "serve_with joined left methods respond url_on",
    "Message": "at",
    "Model": "model_config",
    "Peer": "opened",
}
#: What anybody makes one of, or calls the ``__init__`` of: the rest is made by the host.
MADE = {"Address", "Backoff", "Channel", "Connection", "Position", "Rejected", "Server"}
#: What is promised although it stands in a module of its own.
BESIDES = ("config.load", "config.parse", "values.Address")


class Member(NamedTuple):
    """One attribute or method: its signature or type, and what is told of it."""

    name: str
    #: What it is to whoever calls it: ``async``, ``def``, ``property``, ``attribute``.
    kind: str
    #: Of a method its own; of an attribute its type and default.
    type: str
    default: str
    doc: str
    parameters: list[inspect.Parameter]


def names() -> Iterator[tuple[str, Any]]:
    """Every name that is promised, with its value: ``Bus``, ``config.load``."""
    for name in realtime.__all__:
        yield name, getattr(realtime, name)
    for name in BESIDES:
        module, _, attribute = name.partition(".")
        yield name, getattr(importlib.import_module(f"realtime.{module}"), attribute)
    try:
        testing = importlib.import_module("realtime.testing")
    except ModuleNotFoundError:
        return
    for name in getattr(testing, "__all__", ()):
        yield f"testing.{name}", getattr(testing, name)


def members(kind: type) -> list[Member]:
    """What a class promises, in the order in which it is written, bases of our own included."""
    wanted = PROMISED.get(kind.__name__, "").split()
    not_wanted = FOR_THE_HOST.get(kind.__name__, "").split()
    found: dict[str, Member] = {}
    for base in reversed([base for base in kind.__mro__ if base.__module__.startswith("realtime")]):
        if base is Model and kind is not Model:
            continue
        for name, member in (*_attributes(base), *_methods(base)):
            before = found.get(name)
            told = member.doc or (before.doc if before else "")
            found[name] = member._replace(doc=told, type=member.type or (before.type if before else ""))
    shown = [m for name, m in found.items() if (name in wanted if wanted else not name.startswith("_"))]
    return [member for member in shown if member.name not in not_wanted]


def constructor(kind: type) -> list[inspect.Parameter] | None:
    """What a class is made of, where anybody makes one; None where only the host does."""
    return parameters(kind) if kind.__name__ in MADE else None


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters that a caller gives."""
    every = inspect.signature(function).parameters.values()
    return [one for one in every if one.name not in ("self", "cls") and not one.name.startswith("_")]


def spell(parameter: inspect.Parameter) -> str:
    """A parameter as one writes it: ``since: Since = None``."""
    written = str(getattr(parameter.annotation, "__forward_arg__", parameter.annotation))
    written = "" if parameter.annotation is parameter.empty else f": {_tidy(written)}"
    if parameter.default is not parameter.empty:
        written += f" = {default_of(parameter.default)}"
    many, named = parameter.kind is parameter.VAR_POSITIONAL, parameter.kind is parameter.VAR_KEYWORD
    return f"{'*' * many}{'**' * named}{parameter.name}{written}"


def default_of(value: object) -> str:
    """A default as the source has it, as far as that can be told."""
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    text = repr(value)
    return "…" if text.startswith(("<", "Backoff")) else text.replace("'", '"')


def _methods(kind: type) -> Iterator[tuple[str, Member]]:
    for name, value in vars(kind).items():
        if name.startswith("_") and name not in PROMISED.get(kind.__name__, "").split():
            continue
        doc = inspect.getdoc(value) or ""
        if isinstance(value, property):
            type_ = str(inspect.signature(value.fget).return_annotation) if value.fget else ""
            yield name, Member(name, "property", type_, "", doc, [])
            continue
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if not inspect.isfunction(function):
            continue
        asynchronous = inspect.iscoroutinefunction(function)
        returned = inspect.signature(function).return_annotation
        given = [] if name.startswith("__") else parameters(function)
        yield name, Member(name, "async" if asynchronous else "def", str(returned), "", doc, given)


def _attributes(kind: type) -> Iterator[tuple[str, Member]]:
    """The attributes that are written in a class or set by its ``__init__``, by the source."""
    lines, _ = inspect.getsourcelines(kind)
    tree = ast.parse(textwrap.dedent("".join(lines))).body[0]
    assert isinstance(tree, ast.ClassDef)
    nested = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    init = next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    types = {one.arg: ast.unparse(one.annotation) for one in _arguments(init) if one.annotation}
    for body, prefix in (tree.body, ""), (init.body if init else [], "self."):
        for number, node in enumerate(body):
            targets: list[ast.expr] = []
            if isinstance(node, ast.AnnAssign):
                targets = [node.target]
            elif isinstance(node, ast.Assign):
                targets = node.targets
            for target in targets:
                written = ast.unparse(target)
                name = written.removeprefix(prefix)
                if not written.startswith(prefix) or not name.isidentifier() or name.startswith("_"):
                    continue
                value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
                if isinstance(node, ast.AnnAssign):
                    type_ = ast.unparse(node.annotation)
                else:  # what is handed on has the type that it came with
                    type_ = types.get(ast.unparse(value), "") if value else ""
                default = ast.unparse(value) if value is not None and not prefix else ""
                doc = _told_below(body, number) or _told_above(lines, node.lineno - 1)
                yield name, Member(name, "attribute", _tidy(type_), _tidy(default), doc, [])
    for name in nested:
        yield name, Member(name, "class", "", "", inspect.getdoc(getattr(kind, name)) or "", [])


def _arguments(function: ast.FunctionDef | None) -> list[ast.arg]:
    return [] if function is None else [*function.args.args, *function.args.kwonlyargs]


def _tidy(text: str) -> str:
    match = re.fullmatch(r"Annotated\[(.+?),.*", text)
    text = match[1] if match else text
    text = re.sub(r"^field\(default_factory=(\w+)\)$", r"\1()", text)
    return (
        text.replace("'", '"').removeprefix("ClassVar[").removesuffix("]" if "ClassVar" in text else "\0")
    )


def _told_below(body: list[ast.stmt], number: int) -> str:
    after = body[number + 1] if number + 1 < len(body) else None
    if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
        return inspect.cleandoc(str(after.value.value))
    return ""


def _told_above(lines: list[str], line: int) -> str:
    above: list[str] = []
    while line and (text := lines[line - 1].strip()).startswith("#"):
        above.insert(0, text)
        line -= 1
    begins = next((n for n, text in enumerate(above) if text.startswith("#:")), len(above))
    return " ".join(text.lstrip("#: ") for text in above[begins:])


def constant(name: str) -> str:
    """What is told of a constant or a type: the comment before it in its module."""
    for module in (importlib.import_module(f"realtime.{home}") for home in ("version", *realtime._EXPORTS)):
        source = inspect.getsource(module)
        if match := re.search(rf"(?m)^((?:#.*\n)+){name} = ", source):
            return " ".join(line.lstrip("#: ") for line in match[1].splitlines())
    raise LookupError(name)


def home(name: str) -> str:
    """The module that an exported name is from."""
    return name.partition(".")[0] if "." in name else realtime._HOME.get(name, "version")


def exported() -> list[str]:
    """The names that ``realtime`` exports."""
    return list(realtime.__all__)


def hooks() -> dict[str, Callable[..., Any]]:
    """Every hook, in the order of their page."""
    order = list(vars(hookspecs))
    return dict(sorted(HOOKS.items(), key=lambda item: order.index(item[0])))
