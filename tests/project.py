"""A project of an author: pytest runs in a process of its own, in a directory of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from command import ENVIRONMENT

AUTO = ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]
ANYIO = ["-p", "no:asyncio", "-p", "no:aiohttp"]
CONFTEST = 'pytest_plugins = ["realtime.testing"]\n'


def run(directory: Path, files: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """Pytest in a project of its own."""
    for name, source in {"conftest.py": CONFTEST, "pytest.ini": "[pytest]\n", **files}.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(textwrap.dedent(source))
    plain = ["-q", "--color=no", "-W", "error", "-p", "no:cacheprovider"]
    # Two that remove what older ones have left, at the same time and place, are a warning to each other.
    own = {"PYTEST_DEBUG_TEMPROOT": str(directory.parent)}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *plain, *options],
        cwd=directory,
        env={**ENVIRONMENT, **own},
        capture_output=True,
        text=True,
        timeout=60,
    )
