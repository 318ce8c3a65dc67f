"""What ``new-plugin`` writes, as its author and its users meet it: installed, tested, served."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from acceptance.world import INSTALLING, NEW_PLUGIN, Home, environment


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints that must succeed."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALLING,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def package(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The package, in an environment where it is installed as it says itself.

    The environment is one of its own, and has the server by way of the one that all share.
    """
    place = tmp_path_factory.mktemp("author")
    said = run(python, "-m", "realtime", "new-plugin", NEW_PLUGIN, cwd=place)
    assert "\n  pip install -e '.[test]'\n" in said
    directory = place / f"realtime-{NEW_PLUGIN}"
    where = "import pathlib, realtime; print(pathlib.Path(realtime.__file__).parent.parent)"
    venv.create(place / "venv", with_pip=False, symlinks=True)
    (site,) = (place / "venv" / "lib").glob("python*/site-packages")
    (site / "server.pth").write_text(run(python, "-c", where, cwd=place))
    made = place / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", made, "install", "-q", "-e", ".[test]", cwd=directory)
    return Home(made, directory)


def test_its_tests_pass(package: Home) -> None:
    """The tests that come with it pass, without a warning."""
    said = run(package.python, "-W", "error", "-m", "pytest", "-q", cwd=package.directory)
    assert re.fullmatch(r"\d+ passed in \S+", said.splitlines()[-1])


def test_its_types_are_strict(package: Home) -> None:
    """With the strictest of mypy there is nothing to find in the plugin and its tests."""
    said = run(package.python, "-m", "mypy", "--strict", "src", "tests", cwd=package.directory)
    assert said == "Success: no issues found in 3 source files\n"


def test_its_workflow_passes(package: Home) -> None:
    """Each step of its workflow for CI that does not install passes, with its conformance run."""
    steps = (package.directory / ".github/workflows/ci.yml").read_text().partition("\n  wheel:")[0]
    commands = [step for step in re.findall("- run: (.*)", steps) if not step.startswith("pip ")]
    assert f"python -m realtime plugins test {NEW_PLUGIN}" in commands
    path = f"PATH={package.python.parent}:$PATH"
    for command in commands:
        run("bash", "--norc", "-ec", f"export {path}; {command}", cwd=package.directory)


async def test_clients_see_what_its_readme_says(package: Home) -> None:
    """A client is told what the README says: the welcome, and then what is said, with a name in front."""
    readme = (package.directory / "README.md").read_text()
    said = re.search(r"is told `(.+)`\. When it sends `(.+)`, everybody is told `(.+)`:", readme)
    assert said
    welcome, sent, published = said.groups()
    async with package.serving() as address, connect(f"ws://{address}/{NEW_PLUGIN}") as ws:
        assert await ws.recv() == welcome
        await ws.send(sent)
        assert await ws.recv() == published


async def test_it_is_listed(package: Home) -> None:
    """The server lists it with its package, its version, and what it is about."""
    listed = json.loads("\n".join((await package.ran("plugins", "--json")).said))["plugins"]
    (row,) = (row for row in listed if row["name"] == NEW_PLUGIN)
    assert (row["kind"], row["version"], row["channels"]) == ("package", "0.1.0", ["main"])
    assert row["description"].endswith(": what a client says is said to everybody on the channel.")


async def test_its_settings_are_in_the_schema(package: Home) -> None:
    """Editors are told what its settings mean: the docstrings below them."""
    schema = json.loads("\n".join((await package.ran("schema")).said))
    settings = schema["$defs"][f"plugin.{NEW_PLUGIN}"]["properties"]
    assert settings["max_length"]["description"] == "the longest text that may be said, in characters"


def test_its_wheel_is_whole(package: Home, tmp_path: Path) -> None:
    """Its wheel has the module and says that it is typed, and has no tests."""
    run(sys.executable, "-m", "build", "--wheel", "-o", tmp_path, ".", cwd=package.directory)
    (wheel,) = tmp_path.glob("*.whl")
    module = f"realtime_{NEW_PLUGIN.replace('-', '_').lower()}"
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == {f"{module}/__init__.py", f"{module}/py.typed"}


async def test_the_server_has_no_trace_of_it(home: Home) -> None:
    """Where it is not installed there is no such plugin: nothing of it is in the server."""
    listed = json.loads("\n".join((await home.ran("plugins", "--json")).said))["plugins"]
    assert NEW_PLUGIN not in [row["name"] for row in listed]
