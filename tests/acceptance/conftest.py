"""The wheel, and a fresh environment that has it and what it requires: once for all the scripts."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest
from once import once
from tree import checkout, fresh_copy

from acceptance.world import INSTALLING, PYTHON, WHEEL, Home, environment


def run(*command: str | Path) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(
        list(map(str, command)),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALLING,
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of a fresh environment: nothing but the wheel, with all engines, is installed there."""
    if PYTHON:
        return Path(PYTHON)

    def make(place: Path) -> None:
        wheel = Path(WHEEL)
        if not WHEEL:
            checkout()
            run(sys.executable, "-m", "build", "--wheel", "-o", place, fresh_copy(place / "copy"))
            (wheel,) = place.glob("*.whl")
        venv.create(place / "venv", with_pip=False, symlinks=True)
        made = place / "venv" / "bin" / "python"
        run(sys.executable, "-m", "pip", "--python", made, "install", "-q", f"{wheel}[redis]")

    return once(tmp_path_factory, "acceptance", make) / "venv" / "bin" / "python"


@pytest.fixture
def home(python: Path, tmp_path: Path) -> Home:
    """An empty directory to serve from, with the environment that has the wheel."""
    return Home(python, tmp_path)
