"""What pip cannot bring: a test that needs it skips with a sentence, or fails when all is required."""

from __future__ import annotations

import os
import shutil

import pytest


def need(program: str, install: str) -> str:
    """The path of a program; without it the test is skipped, saying how to install it.

    With ``REALTIME_REQUIRE_ALL=1``, as in CI, it fails instead.
    """
    # Debian has the programs of administrators where only root looks for them.
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin")
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


def nginx() -> str:
    """The path of nginx."""
    return need("nginx", "apt-get install nginx-light")


def caddy() -> str:
    """The path of Caddy."""
    return need("caddy", "apt-get install caddy")


def systemd_analyze() -> str:
    """The path of systemd-analyze."""
    return need("systemd-analyze", "apt-get install systemd")


def openssl() -> str:
    """The path of openssl."""
    return need("openssl", "apt-get install openssl")
