"""What ships: the wheel and the sdist, built from a fresh copy, and every way to install them.

The dependencies are installed once, into a directory that every environment here adds to its path,
so that an installation is one of this package alone.
"""

from __future__ import annotations

import configparser
import os
import queue
import re
import subprocess
import sys
import tarfile
import threading
import venv
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.parser import Parser
from pathlib import Path

import pytest
from tree import checkout, fresh_copy
from websockets.sync.client import connect

#: How long a build or an installation may take, and a server to start or to end, in seconds.
PATIENCE = 180.0
START = 30.0

#: What a clone has that an sdist need not: it is about the repository, not about the project.
NOT_IN_SDIST = (".github/",)


def run(*command: str | Path, cwd: Path, path: Sequence[Path] = (), wrong: bool = False) -> str:
    """Run a command that must succeed, or must fail with exit code 1; returns what it printed."""
    env = environment(path)
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == (1 if wrong else 0), done.stdout
    return done.stdout


def environment(path: Sequence[Path] = ()) -> dict[str, str]:
    """The environment of a command: this one, with nothing that leads to the checkout."""
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    if path:
        env["PYTHONPATH"] = os.pathsep.join(map(str, path))
    return env


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh copy of the checkout, in which nothing was built."""
    checkout()
    return fresh_copy(tmp_path_factory.mktemp("packaging") / "copy")


@pytest.fixture(scope="session")
def sdist(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, built from a fresh copy."""
    return built(copy, "--sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def wheel(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a fresh copy."""
    return built(copy, "--wheel", tmp_path_factory.mktemp("wheel"))


def built(tree: Path, kind: str, target: Path) -> Path:
    """Build from a copy of a tree, so that no build sees what another has left behind."""
    fresh = target / "tree"
    run("cp", "-R", tree, fresh, cwd=target)
    run(sys.executable, "-m", "build", kind, "--outdir", target / "dist", fresh, cwd=target)
    (found,) = (target / "dist").iterdir()
    return found


@pytest.fixture(scope="session")
def dependencies(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what the package requires, and not the package."""
    config = configparser.ConfigParser()
    config.read(copy / "setup.cfg")
    requirements = config["options"]["install_requires"].split("\n")
    target = tmp_path_factory.mktemp("dependencies")
    wanted = [requirement for requirement in requirements if requirement]
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-compile",
        "--target",
        target,
        *wanted,
        cwd=target,
    )
    return target


def fresh_environment(directory: Path, dependencies: Path) -> Path:
    """The python of a fresh virtual environment that has the dependencies only."""
    venv.create(directory, with_pip=False, symlinks=True)
    (site,) = (directory / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    return directory / "bin" / "python"


def install(python: Path, *what: str | Path) -> None:
    """Install into the environment of a python."""
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps")
    run(*pip, *what, cwd=python.parent)


@contextmanager
def serving(python: Path, cwd: Path) -> Iterator[str]:
    """``python -m realtime`` in a directory, on a free port; gives its ws:// address."""
    with subprocess.Popen(
        [python, "-m", "realtime", "--listen", "127.0.0.1:0"],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        said: queue.Queue[str] = queue.Queue()

        def read() -> None:
            assert process.stderr is not None
            for line in process.stderr:
                said.put(line)
            said.put("")

        reader = threading.Thread(target=read)
        reader.start()
        try:
            lines: list[str] = []
            while not (lines and lines[-1].startswith("ready on ")):
                lines.append(said.get(timeout=START))
                assert lines[-1], f"it ended before it was ready: {''.join(lines)}"
            yield "ws://" + lines[-1].removeprefix("ready on ").strip()
            process.terminate()
            assert process.wait(timeout=START) == 0
        finally:
            process.kill()
            reader.join()


def assert_serves(python: Path, cwd: Path) -> None:
    """The shipped config serves its three channels, by the plugins that came with the package."""
    with serving(python, cwd) as address:
        with connect(f"{address}/ws") as echo:
            echo.send("Hello, Server!")
            assert echo.recv(timeout=START) == "Echo: Hello, Server!"
        with connect(f"{address}/chat") as chat:
            chat.send("alice")
            assert chat.recv(timeout=START) == "alice joined the chat"
        with connect(f"{address}/events") as clock:
            assert str(clock.recv(timeout=START)).startswith("Current time: ")


def names(wheel: Path) -> set[str]:
    """The files of a wheel, without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def files(directory: Path) -> set[str]:
    """The files below a directory."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_config_is_one() -> None:
    """The built-in config is the one at the top, byte for byte."""
    root = checkout()
    assert (root / "realtime" / "config.yaml").read_bytes() == (root / "config.yaml").read_bytes()


def test_wheel_has_every_plugin(wheel: Path, copy: Path) -> None:
    """The wheel holds every file of plugins/, as realtime.plugins."""
    shipped = {f"realtime/plugins/{name}" for name in files(copy / "plugins")}
    assert shipped
    assert shipped == {name for name in names(wheel) if name.startswith("realtime/plugins/")}


def test_wheel_has_the_package(wheel: Path, copy: Path) -> None:
    """Beside the plugins the wheel holds every file of realtime/, and nothing else: no tests."""
    package = {f"realtime/{name}" for name in files(copy / "realtime")}
    assert {"realtime/py.typed", "realtime/config.yaml"} <= package
    assert package == {name for name in names(wheel) if not name.startswith("realtime/plugins/")}


def test_wheel_has_the_same_bytes(wheel: Path, copy: Path) -> None:
    """What the wheel holds is byte for byte what the checkout has."""
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name: archive.read(name) for name in names(wheel)}
    places = {name: copy / name.replace("realtime/plugins/", "plugins/") for name in shipped}
    assert shipped == {name: place.read_bytes() for name, place in places.items()}


def test_wheel_metadata(wheel: Path, copy: Path) -> None:
    """The wheel says its name, its licence, the Python it needs and what the README says."""
    with zipfile.ZipFile(wheel) as archive:
        (file,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(file).decode())
        assert any(name.endswith("/licenses/LICENSE") for name in archive.namelist())
    assert (metadata["Name"], metadata["Requires-Python"]) == ("realtime-channels", ">=3.11")
    assert metadata["License-Expression"] == "MIT"
    body = str(metadata.get_payload())
    assert body.strip() == (copy / "README.md").read_text().strip()


def test_version_is_in_the_changelog(wheel: Path, copy: Path) -> None:
    """The version of the wheel has a section in the changelog."""
    version = wheel.name.split("-")[1]
    sections = re.findall(r"^## \[([^\]]+)\]", (copy / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert version in sections or "Unreleased" in sections


def test_sdist_is_the_whole_tree(sdist: Path, copy: Path) -> None:
    """The sdist holds every file of a clone, so that it can be built, tested and read."""
    with tarfile.open(sdist) as archive:
        shipped = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in files(copy) if not name.startswith(NOT_IN_SDIST)} - shipped == set()


def test_sdist_makes_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    """A wheel built from the sdist holds the same bytes as one built from the checkout."""
    run("tar", "xf", sdist, cwd=tmp_path)
    (tree,) = tmp_path.iterdir()
    (tmp_path / "out").mkdir()
    other = built(tree, "--wheel", tmp_path / "out")
    assert other.name == wheel.name
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(other) as second:
        assert contents(first) == contents(second)


def contents(archive: zipfile.ZipFile) -> dict[str, bytes]:
    """What is in a wheel."""
    return {name: archive.read(name) for name in archive.namelist()}


def test_copy_is_fresh(copy: Path) -> None:
    """What these tests build from has no remains of a build, which would be shipped again."""
    assert not {"build", "dist", ".venv", "realtime_channels.egg-info"} & set(os.listdir(copy))


def test_bare_checkout_serves(copy: Path, dependencies: Path, tmp_path: Path) -> None:
    """In a checkout ``python -m realtime`` serves with nothing but the dependencies installed."""
    assert_serves(fresh_environment(tmp_path / "venv", dependencies), copy)


def test_installed_wheel_serves(wheel: Path, dependencies: Path, tmp_path: Path) -> None:
    """An installed wheel serves from a directory that has nothing in it."""
    python = fresh_environment(tmp_path / "venv", dependencies)
    install(python, wheel)
    (tmp_path / "empty").mkdir()
    assert_serves(python, tmp_path / "empty")


def test_installed_sdist_serves(sdist: Path, dependencies: Path, tmp_path: Path) -> None:
    """An installed sdist serves from a directory that has nothing in it."""
    python = fresh_environment(tmp_path / "venv", dependencies)
    install(python, sdist)
    (tmp_path / "empty").mkdir()
    assert_serves(python, tmp_path / "empty")


@pytest.mark.parametrize("mode", ["", "editable_mode=strict", "editable_mode=compat"])
def test_editable_serves(mode: str, copy: Path, dependencies: Path, tmp_path: Path) -> None:
    """Installed with ``pip install -e``, in any mode, it serves from anywhere."""
    python = fresh_environment(tmp_path / "venv", dependencies)
    run("cp", "-R", copy, tmp_path / "tree", cwd=tmp_path)
    install(python, *(["--config-settings", mode] if mode else []), "-e", tmp_path / "tree")
    (tmp_path / "empty").mkdir()
    assert_serves(python, tmp_path / "empty")


def test_console_script(wheel: Path, dependencies: Path, tmp_path: Path) -> None:
    """The wheel brings a command ``realtime``, the same as ``python -m realtime``."""
    python = fresh_environment(tmp_path / "venv", dependencies)
    install(python, wheel)
    command = python.parent / "realtime"
    told = run(command, "--version", cwd=tmp_path)
    assert told == run(python, "-m", "realtime", "--version", cwd=tmp_path)


def test_clash_of_distributions(copy: Path, dependencies: Path, tmp_path: Path) -> None:
    """With the other distribution called ``realtime`` installed, one line says what to do."""
    other = tmp_path / "other"
    (other / "realtime-1.0.dist-info").mkdir(parents=True)
    (other / "realtime-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: realtime\nVersion: 1.0\n"
    )
    python = fresh_environment(tmp_path / "venv", dependencies)
    told = run(python, "-m", "realtime", "--version", cwd=copy, path=[other], wrong=True)
    assert re.fullmatch(r"realtime: the distribution 'realtime' is installed too, .*\n", told)
