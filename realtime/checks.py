"""What is checked of a plugin before it is used, so that a mistake is told where it was made.

Nothing here runs a plugin's code: its source is read, and its classes and functions are looked at.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import inspect
import re
from collections.abc import Callable
from typing import Any

import pluggy

from realtime import hookspecs
from realtime.channel import TRANSPORTS, Channel
from realtime.errors import did_you_mean
from realtime.version import API_VERSION

#: The methods of a channel that the host awaits.
_AWAITED = ("on_connect", "on_join", "on_message", "on_leave")

HOOKS: dict[str, Callable[..., Any]] = {
    name: spec for name, spec in vars(hookspecs).items() if hasattr(spec, f"{hookspecs.PROJECT}_spec")
}


class PluginProblem(Exception):
    """What is wrong with one plugin, for the person who wrote or enabled it."""

    def __init__(self, text: str) -> None:
        # The package that a plugins directory is imported as has a name of ours only.
        super().__init__(re.sub(r"\brealtime_plugins_[0-9a-f]{12}\.", "", text))


def check_api_version(name: str, spec: importlib.machinery.ModuleSpec | None) -> None:
    """Refuse a plugin for another API before any of it runs: its source is read, not executed."""
    loader = spec.loader if spec else None
    source = (
        loader.get_source(spec.name) if spec and isinstance(loader, importlib.abc.InspectLoader) else None
    )
    if not source:
        return
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError):
        return  # the import says it better
    for node in body:
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        else:
            continue
        if any(isinstance(target, ast.Name) and target.id == "API_VERSION" for target in targets):
            wanted = node.value.value if isinstance(node.value, ast.Constant) else None
            if wanted != API_VERSION:
                raise PluginProblem(
                    f"{name} is written for API version {wanted!r} of Realtime, which is {API_VERSION} here"
                )


def check_type(label: str, kind: type[Channel]) -> None:
    """Refuse a channel type with a method that nobody would call, or that would be called wrongly."""
    check_hooks(label, kind)
    if not (isinstance(kind.Settings, type) and issubclass(kind.Settings, Channel.Settings)):
        raise PluginProblem(f"{label}.Settings is no subclass of Channel.Settings")
    if unknown := set(kind.transports) - set(TRANSPORTS):
        there = ", ".join(TRANSPORTS)
        raise PluginProblem(f"{label}.transports has {unknown.pop()!r}; there are {there}")
    for name in vars(kind):
        near = did_you_mean(name, _AWAITED) if name.startswith("on_") and name not in _AWAITED else ""
        if near:  # nobody would ever call it
            raise PluginProblem(f"{label}.{name} is no method of a channel{near}")
    for method in _AWAITED:
        if not inspect.iscoroutinefunction(getattr(kind, method)):
            raise PluginProblem(f"{label}.{method} must be an 'async def'")
    for method in ("as_text", "member"):
        if inspect.iscoroutinefunction(getattr(kind, method)):
            raise PluginProblem(f"{label}.{method} must be a plain 'def'")


def check_hooks(label: str, plugin: object) -> None:
    """Tell what pluggy leaves silent: hooks misspelt, unmarked, asynchronous, with wrong arguments."""
    for name in dir(plugin):
        function = inspect.getattr_static(plugin, name, None)
        marked = getattr(function, f"{hookspecs.PROJECT}_impl", None)
        if not inspect.isfunction(function) or (marked is None and name not in HOOKS):
            continue
        if marked is None:
            raise PluginProblem(f"{label}.{name} has the name of a hook but is not marked @hookimpl")
        hook = marked.get("specname") or name
        if hook not in HOOKS:
            raise PluginProblem(f"{label}.{name} is no hook{did_you_mean(hook, HOOKS)}")
        if inspect.iscoroutinefunction(function) and hook != "authenticate":
            raise PluginProblem(
                f"{label}.{name} is an 'async def', but this hook returns objects, not awaitables"
            )
        known = set(inspect.signature(HOOKS[hook]).parameters)
        for argument in inspect.signature(function).parameters:
            if argument not in known and argument != "self":
                raise PluginProblem(
                    f"{label}.{name} takes {argument!r}, which this hook does not have"
                    + (did_you_mean(argument, known) or f"; it has: {', '.join(known) or 'no arguments'}")
                )


def deprecations(manager: pluggy.PluginManager, plugin: object) -> list[tuple[str, str, int]]:
    """Each hook, and each argument of one, that a plugin still uses and that will go: what, file and line.

    What is to be used instead is the warning in its specification: ``warn_on_impl``, or one of
    ``warn_on_impl_args``.
    """
    told = []
    for caller in manager.get_hookcallers(plugin) or ():
        spec = caller.spec
        for implementation in caller.get_hookimpls():
            if spec is None or implementation.plugin is not plugin:
                continue
            uses: list[tuple[str, object]] = [(f"implements {caller.name}", spec.warn_on_impl)]
            for argument in (*implementation.argnames, *implementation.kwargnames):
                instead = (spec.warn_on_impl_args or {}).get(argument)
                uses.append((f"takes the argument {argument!r} of {caller.name}", instead))
            code = inspect.unwrap(implementation.function).__code__
            place = code.co_filename, code.co_firstlineno
            told += [(f"{use}, which is deprecated: {instead}", *place) for use, instead in uses if instead]
    return told


def is_marked(value: object) -> bool:
    """Whether it is a function marked ``@hookimpl``."""
    return inspect.isfunction(value) and hasattr(value, f"{hookspecs.PROJECT}_impl")
