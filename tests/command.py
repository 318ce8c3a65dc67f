"""A command as a person runs it: in a process of its own, in a directory of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tree import PACKAGE

ROOT = PACKAGE.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def run(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m realtime ARGUMENTS``, which ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "realtime", *arguments],
        cwd=directory,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=20,
    )
