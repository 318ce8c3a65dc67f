"""What ``new-plugin`` writes, under which names, and what it says where it writes nothing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from command import ENVIRONMENT, run

from realtime import API_VERSION, __version__
from realtime.scaffold import LONGEST, checked_name

#: Names with what is derived from them: the module and the class.
DERIVED = [
    ("dice", "realtime_dice", "Dice"),
    ("live-poll", "realtime_live_poll", "LivePoll"),
    ("shared_cursors2", "realtime_shared_cursors2", "SharedCursors2"),
    ("message", "realtime_message", "MessageChannel"),  # the module imports another Message
    ("long-" * 5 + "names", "realtime_" + "long_" * 5 + "names", "Long" * 5 + "Names"),
]


def written(directory: Path, name: str, *options: str) -> Path:
    """The package that the command writes for a name."""
    ended = run(directory, "new-plugin", name, *options)
    assert (ended.returncode, ended.stderr) == (0, "")
    return directory / f"realtime-{name}"


def files(directory: Path) -> dict[str, str]:
    """The text of each file below a directory."""
    found = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_text() for path in found}


# What is written


def test_files(tmp_path: Path) -> None:
    """It is a whole package: metadata, module, types, tests, docs, a config, a workflow."""
    assert set(files(written(tmp_path, "live-poll"))) == {
        ".github/workflows/ci.yml",
        ".gitignore",
        "CHANGELOG.md",
        "README.md",
        "config.yaml",
        "pyproject.toml",
        "src/realtime_live_poll/__init__.py",
        "src/realtime_live_poll/py.typed",
        "tests/conftest.py",
        "tests/test_live_poll.py",
    }


def test_what_comes_next(tmp_path: Path) -> None:
    """It says what to do next, in commands that can be copied."""
    ended = run(tmp_path, "new-plugin", "dice", "--directory", "my dice")
    assert ended.stdout == (
        "wrote my dice: a channel 'dice' that works, and its tests. Go on with\n"
        "  cd 'my dice'\n"
        "  pip install -e '.[test]'\n"
        "  pytest && python -m realtime\n"
    )


def test_in_the_current_directory(tmp_path: Path) -> None:
    """In a fresh clone it writes beside what is there, and nobody has to go anywhere."""
    (tmp_path / "LICENSE").write_text("MIT\n")
    ended = run(tmp_path, "new-plugin", "dice", "--directory", ".")
    assert "  cd " not in ended.stdout
    assert {"LICENSE", "pyproject.toml"} <= set(files(tmp_path))


@pytest.mark.parametrize(("name", "module", "kind"), DERIVED)
def test_names(tmp_path: Path, name: str, module: str, kind: str) -> None:
    """The module and the class are called after the plugin, which offers its channel type by its name."""
    package = written(tmp_path, name)
    project = tomllib.loads((package / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["realtime"] == {name: module}
    source = (package / "src" / module / "__init__.py").read_text()
    assert f"\nclass {kind}(Channel):\n" in source
    assert f'    return {{"{name}": {kind}}}\n' in source
    assert yaml.safe_load((package / "config.yaml").read_text())["channels"]["main"]["plugin"] == name


def test_nothing_of_the_template_is_left(tmp_path: Path) -> None:
    """Nothing in the package is called as in the template."""
    texts = files(written(tmp_path, "dice"))
    for word in ("your-name", "your_name", "YourName", "Your name"):
        assert [path for path, text in texts.items() if word in path + text] == []


def test_versions(tmp_path: Path) -> None:
    """It requires this server or a later one that takes nothing away, and says for which contract it is."""
    package = written(tmp_path, "dice")
    project = tomllib.loads((package / "pyproject.toml").read_text())
    (server,) = project["project"]["dependencies"]
    assert server == f"realtime-channels>={__version__},<0.{int(__version__.split('.')[1]) + 1}"
    assert f"\nAPI_VERSION = {API_VERSION}\n" in (package / "src/realtime_dice/__init__.py").read_text()


@pytest.mark.parametrize("name", [name for name, _, _ in DERIVED])
def test_ruff_finds_nothing(tmp_path: Path, name: str) -> None:
    """With ruff's defaults there is nothing to mend and nothing to format."""
    package = written(tmp_path, name)
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--isolated", "--no-cache"],
            cwd=package,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout


def test_settings_are_explained(tmp_path: Path) -> None:
    """Each setting has a docstring below it, and a row in the README with its default."""
    package = written(tmp_path, "dice")
    tree = ast.parse((package / "src/realtime_dice/__init__.py").read_text())
    (settings,) = (node for node in ast.walk(tree) if getattr(node, "name", "") == "Settings")
    assert isinstance(settings, ast.ClassDef)
    fields, meanings = settings.body[::2], settings.body[1::2]
    for field, meaning in zip(fields, meanings, strict=True):
        assert isinstance(field, ast.AnnAssign)
        assert isinstance(field.target, ast.Name)
        assert isinstance(field.value, ast.Constant)
        assert isinstance(meaning, ast.Expr)
        assert isinstance(meaning.value, ast.Constant)
        row = f"| `{field.target.id}` | `{field.value.value!s}` | {meaning.value.value!s} |\n"
        assert row in (package / "README.md").read_text()


def test_config_names_every_setting(tmp_path: Path) -> None:
    """The config shows every setting with its default, in a comment that can be taken away."""
    package = written(tmp_path, "dice")
    shown = (package / "config.yaml").read_text()
    rows = [row.split("|") for row in (package / "README.md").read_text().splitlines() if "| `" in row]
    assert rows
    for _, key, default, *_ in rows:
        assert f"    # {key.strip(' `')}: {default.strip(' `')}\n" in shown


def test_workflow(tmp_path: Path) -> None:
    """CI tests, checks the types, tries the channel, and tests the wheel."""
    workflow = yaml.safe_load((written(tmp_path, "live-poll") / ".github/workflows/ci.yml").read_text())
    steps = {name: [step.get("run") for step in job["steps"]] for name, job in workflow["jobs"].items()}
    assert {"pytest", "mypy", "python -m realtime plugins test live-poll"} <= set(steps["test"])
    assert {"pipx run build", "rm -r src && pytest"} <= set(steps["wheel"])


# What is not written


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("live poll", "is no name for a plugin, which is a lower-case letter, .*: write 'live-poll'"),
        ("live--poll", ": write 'live-poll'$"),
        ("poll!", ": write 'poll'$"),
        ("2048", "is no name for a plugin, which is a lower-case letter, then .* them$"),
        ("dicé", "is no name for a plugin"),
        ("Auction_X", "is no name for a plugin, .*: write 'auction-x'$"),
        ("LivePoll", ": write 'live-poll'$"),
        ("../dice", ": write 'dice'$"),
        ("", "'' is no name for a plugin"),
        ("d" * (LONGEST + 1), f"has {LONGEST + 1} characters, and may have {LONGEST}"),
        ("class", "'class' is a keyword of Python's"),
        ("true", "'true' is a keyword of Python's"),
        ("off", "'off' is no text in a config"),
        ("realtime-dice", "leave out 'realtime-': the package is called so by itself"),
        ("channels", "would be called 'realtime-channels', as the server itself is"),
    ],
)
def test_wrong_names(name: str, said: str) -> None:
    """A name that a plugin cannot have is refused, and it is said why."""
    with pytest.raises(ValueError, match=said):
        checked_name(name)


def test_wrong_name_is_usage(tmp_path: Path) -> None:
    """On the command line such a name is exit code 2, and nothing is written."""
    ended = run(tmp_path, "new-plugin", "live poll")
    assert (ended.returncode, list(tmp_path.iterdir())) == (2, [])
    assert ended.stderr.startswith("python -m realtime new-plugin: argument NAME: 'live poll' is no name")


def test_name_of_a_plugin_that_comes_with_the_server(tmp_path: Path) -> None:
    """A name that a plugin of the server has is refused: a config would mean that one."""
    ended = run(tmp_path, "new-plugin", "chat")
    assert (ended.returncode, list(tmp_path.iterdir())) == (1, [])
    first, second = ended.stderr.splitlines()
    assert first.startswith("there is a plugin 'chat' already: ")
    assert second == "a config that says 'plugin: chat' means that; choose another name, or say --force"


def test_name_of_an_installed_plugin(tmp_path: Path) -> None:
    """A name that an installed package has is refused with the name of that."""
    info = tmp_path / "path" / "somebodys_dice-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys-dice\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[realtime]\ndice = somebodys_dice\n")
    path = os.pathsep.join([str(tmp_path / "path"), ENVIRONMENT["PYTHONPATH"]])
    ended = run(tmp_path, "new-plugin", "dice", PYTHONPATH=path)
    assert ended.returncode == 1
    assert "there is a plugin 'dice' already: somebodys_dice, of somebodys-dice\n" in ended.stderr


def test_name_like_that_of_another(tmp_path: Path) -> None:
    """A name that differs from another plugin's only in case, or in ``-`` and ``_``, is refused."""
    info = tmp_path / "path" / "somebodys_poll-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys-poll\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[realtime]\nLive_Poll = somebodys_poll\n")
    path = os.pathsep.join([str(tmp_path / "path"), ENVIRONMENT["PYTHONPATH"]])
    ended = run(tmp_path, "new-plugin", "live-poll", PYTHONPATH=path)
    assert ended.returncode == 1
    first, second = ended.stderr.splitlines()
    assert first == "there is a plugin 'Live_Poll' already: somebodys_poll, of somebodys-poll"
    assert second.startswith("of 'Live_Poll' and 'live-poll' nobody knows which is which; choose another")


def test_force(tmp_path: Path) -> None:
    """With ``--force`` it is written although another plugin has the name."""
    assert (written(tmp_path, "chat", "--force") / "src/realtime_chat/__init__.py").is_file()


def test_own_file_becomes_a_package(tmp_path: Path) -> None:
    """A file in ``plugins/`` is the author's own: a package of its name is written, and it is told
    which of the two a config means."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "live_poll.py").write_text("")
    ended = run(tmp_path, "new-plugin", "live-poll")
    assert ended.returncode == 0
    told = "plugins/live_poll.py is what a config beside it means by 'live-poll', while it is there"
    assert ended.stdout.splitlines()[-1] == told


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """What is there stays as it is, is named, and nothing is written beside it."""
    (tmp_path / "realtime-dice").mkdir()
    (tmp_path / "realtime-dice" / "README.md").write_text("mine\n")
    ended = run(tmp_path, "new-plugin", "dice", "--force")
    assert (ended.returncode, files(tmp_path)) == (1, {"realtime-dice/README.md": "mine\n"})
    assert ended.stderr.startswith("nothing was written: there is realtime-dice/README.md\n")


def test_twice(tmp_path: Path) -> None:
    """Called twice it names some of what is there, and how much more there is."""
    written(tmp_path, "dice")
    ended = run(tmp_path, "new-plugin", "dice")
    assert ended.returncode == 1
    assert "realtime-dice/.gitignore, realtime-dice/CHANGELOG.md and 7 files more\n" in ended.stderr


def test_no_directory(tmp_path: Path) -> None:
    """A directory that cannot be made is a line that names it."""
    (tmp_path / "realtime-dice").write_text("a file\n")
    ended = run(tmp_path, "new-plugin", "dice")
    assert (ended.returncode, "Traceback" in ended.stderr) == (3, False)
    assert "realtime-dice" in ended.stderr
