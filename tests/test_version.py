"""The version of the distribution, and that of the API for plugins."""

from __future__ import annotations

import ast
import re

from tree import PACKAGE, checkout

import realtime
from realtime.version import API_VERSION, __version__


def test_version_is_a_number() -> None:
    """The version is one that package indexes sort (PEP 440)."""
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc|\.dev)\d+)?", __version__)


def test_version_is_exported() -> None:
    """The package has the same versions as the module."""
    assert (realtime.__version__, realtime.API_VERSION) == (__version__, API_VERSION)


def test_version_is_said_once() -> None:
    """The metadata takes the version from the module, which can be read without running it."""
    assert "version = attr: realtime.version.__version__" in (checkout() / "setup.cfg").read_text()
    tree = ast.parse((PACKAGE / "version.py").read_text())
    values = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert values == {"__version__": __version__, "API_VERSION": API_VERSION}
