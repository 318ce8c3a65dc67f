"""The hooks: each has a docstring, a place in the docs, a test, and a plugin that implements it."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from tree import checkout

import realtime
from realtime import hookspecs
from realtime.checks import HOOKS
from realtime.loader import Plugins


def test_the_hooks() -> None:
    """The hooks are these; another comes with a docstring, docs, a test and a plugin."""
    assert sorted(HOOKS) == [
        "authenticate",
        "authorize",
        "register_channels",
        "register_engines",
        "register_routes",
        "register_services",
    ]


@pytest.mark.parametrize("hook", sorted(HOOKS))
def test_hook_has_a_docstring(hook: str) -> None:
    """A hook says what a plugin that implements it is asked for."""
    assert (HOOKS[hook].__doc__ or "").strip()


@pytest.mark.parametrize("hook", sorted(HOOKS))
def test_hook_is_typed(hook: str) -> None:
    """A hook says the types of its arguments and of its answer."""
    signature = inspect.signature(HOOKS[hook])
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty


@pytest.mark.parametrize("hook", sorted(HOOKS))
def test_hook_is_in_the_docs(hook: str) -> None:
    """A hook stands in the docs, by name."""
    assert any(hook in page.read_text() for page in (checkout() / "docs").rglob("*.md"))


@pytest.mark.parametrize("hook", sorted(HOOKS))
def test_hook_has_a_test(hook: str) -> None:
    """A hook is implemented in a test."""
    tests = [file.read_text() for file in Path(__file__).parent.rglob("*.py") if file != Path(__file__)]
    assert any(f"def {hook}(" in text for text in tests)


def test_hooks_are_on_one_page() -> None:
    """Every hook stands in hookspecs.py, and that file is a page."""
    assert {spec.__module__ for spec in HOOKS.values()} == {hookspecs.__name__}
    assert len(inspect.getsource(hookspecs).splitlines()) <= 100


def test_marker_is_exported() -> None:
    """The marker that the package exports is the one that the loader looks for."""

    @realtime.hookimpl
    def register_channels() -> None: ...

    assert hasattr(register_channels, f"{hookspecs.PROJECT}_impl")


def test_managers_are_not_shared() -> None:
    """Each server has a plugin manager of its own, with the same hooks."""
    one, two = Plugins(), Plugins()
    one.load("echo")
    assert (one.names(), two.names()) == (["plugin:echo"], [])
