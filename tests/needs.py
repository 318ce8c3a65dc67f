"""What pip cannot bring: a test that needs it skips with a sentence, or fails when all is required."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest
from once import once


def need(program: str, install: str) -> str:
    """The path of a program; without it the test is skipped, saying how to install it.

    With ``REALTIME_REQUIRE_ALL=1``, as in CI, it fails instead.
    """
    # Debian has the programs of administrators where only root looks for them.
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if path is None:
        lacks(f"{program}: {install}")
    return path


def lacks(what: str) -> NoReturn:
    """Skip the test, or fail it where all is required: it needs what is not there."""
    sentence = f"this test needs {what}"
    if os.environ.get("REALTIME_REQUIRE_ALL") == "1":
        pytest.fail(sentence)
    pytest.skip(sentence)


def node() -> str:
    """The path of node."""
    return need("node", "apt-get install nodejs")


def node_package(factory: pytest.TempPathFactory, package: str) -> Path:
    """The directory in which npm has installed a package of node, ``ws@8``, once."""
    npm = need("npm", "apt-get install npm")

    def install(directory: Path) -> None:
        command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(directory), package]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            lacks(f"node's {package}, which npm could not install: {done.stderr[-300:]}")

    return once(factory, f"node-{package}", install)


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


def redis() -> str:
    """The path of redis-server."""
    return need("redis-server", "apt-get install redis-server")


def redis_cli() -> str:
    """The path of redis-cli."""
    return need("redis-cli", "apt-get install redis-server")
