"""The processes of one run together: what is made once for all of them, and what one does alone."""

from __future__ import annotations

import fcntl
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The directory of this name for all processes of the run, in which ``make`` has succeeded."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    directory, made = base / name, base / f"{name}.made"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            directory.mkdir(exist_ok=True)
            make(directory)
            made.touch()
    return directory


@contextmanager
def turn(*, alone: bool) -> Iterator[None]:
    """The time of a test; while one is alone no other test of the run has begun and not ended."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    door, room = _opened("conftest.py"), _opened("once.py")
    fcntl.flock(door, fcntl.LOCK_EX)  # who waits to be alone keeps the door, so that nobody else comes
    fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    fcntl.flock(door, fcntl.LOCK_UN)
    try:
        yield
    finally:
        fcntl.flock(room, fcntl.LOCK_UN)


@functools.cache
def _opened(name: str) -> int:
    """A file that every process has: it is locked, and nothing is written."""
    return os.open(Path(__file__).with_name(name), os.O_RDONLY)
