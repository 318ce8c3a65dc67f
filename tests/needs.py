"""What pip cannot bring: a test that needs it skips with a sentence, or fails when all is required."""

from __future__ import annotations

import os
import shutil

import pytest


def need(program: str, install: str) -> str:
    """The path of a program; without it the test is skipped, saying how to install it.

    With ``REALTIME_REQUIRE_ALL=1``, as in CI, it fails instead.
    """
    path = shutil.which(program)
    if path is not None:
        return path
    sentence = f"this test needs {program}: {install}"
    if os.environ.get("REALTIME_REQUIRE_ALL") == "1":
        pytest.fail(sentence)
    pytest.skip(sentence)


def node() -> str:
    """The path of node."""
    return need("node", "apt-get install nodejs")


def curl() -> str:
    """The path of curl."""
    return need("curl", "apt-get install curl")
