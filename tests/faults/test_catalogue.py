"""The table of faults itself: every row is tried, and the documentation tells how many hold."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from faults.catalogue import FAULTS, GROUPS

HERE = Path(__file__).parent
#: Where a row may be shown: here, and where it is black box or what it is about has tests of its own.
FILES = [*HERE.glob("test_*.py"), HERE.parent / "test_tls.py"]
#: Rows from which nothing may deviate: stuck clients, a busy room, forged events, foreign pages, tokens.
NEVER = {56, 61, 64, 74, 86, 90, 116}


def rows(marks: Any) -> Iterator[int]:
    """The rows of the table that marks are about, those of a parametrized test's cases too."""
    for mark in marks:
        if mark.name == "fault":
            yield mark.args[0]
        elif mark.name == "parametrize":
            for case in mark.args[1]:
                yield from rows(getattr(case, "marks", ()))


@cache
def tried() -> frozenset[int]:
    """The rows that have a test."""
    found: set[int] = set()
    for file in FILES:
        module = importlib.import_module(".".join(file.relative_to(HERE.parent).with_suffix("").parts))
        tests = [value for name, value in vars(module).items() if name.startswith("test_")]
        for test in [module, *tests]:
            marks = getattr(test, "pytestmark", [])
            found.update(rows(marks if isinstance(marks, list) else [marks]))
    return frozenset(found)


@pytest.mark.parametrize("row", FAULTS)
def test_row_is_tried(row: int) -> None:
    """Every row of the table has a test."""
    assert row in tried()


def test_deviations_are_few() -> None:
    """At most three rows deviate, and none of those that matter most."""
    deviating = {row for row, fault in FAULTS.items() if fault.deviates}
    assert len(deviating) <= 3
    assert not deviating & NEVER


def test_documentation_counts_them() -> None:
    """The table in the page on security is that of the rows and their tests."""
    page = (HERE.parents[1] / "docs" / "security.md").read_text()
    told = {
        match[1].strip(): tuple(map(int, match[2].split("|")))
        for match in re.finditer(r"^\| ([A-Z][^|]+) \| ([0-9]+ \| [0-9]+ \| [0-9]+) \|$", page, re.M)
    }
    counted: dict[str, tuple[int, ...]] = {}
    for group, faults in GROUPS.items():
        deviate = sum(1 for fault in faults.values() if fault.deviates)
        trials = len(tried() & set(faults))
        counted[group] = trials, trials - deviate, deviate
    counted["All"] = tuple(map(sum, zip(*counted.values(), strict=True)))
    assert told == counted
