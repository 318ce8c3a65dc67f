"""A plugin package to begin with: what ``new-plugin`` writes, and under which names it may.

The templates are a package that works as it stands, for a plugin ``your-name``. What is written is a
copy of it with another name.
"""

from __future__ import annotations

import keyword
import os
import re
import shlex
from pathlib import Path

import realtime
from realtime import logs
from realtime.exit_codes import ExitCode

TEMPLATES = Path(__file__).parent / "templates"
#: The distribution, and so the directory, is called this and then as the plugin.
PREFIX = "realtime-"
#: So long that no line of a template gets too long by it.
LONGEST = 30

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
#: What YAML takes for true, false or nothing, where it is not quoted.
_NO_TEXT = {"false", "no", "null", "off", "on", "true", "yes"}


def checked_name(name: str) -> str:
    """The name, if a plugin can have it. Raises :exc:`ValueError` with what is wrong with it."""
    short = re.sub(r"^realtime[-_]", "", name)
    if not _NAME.fullmatch(name):
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name)
        likely = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
        meant = f": write {likely!r}" if _NAME.fullmatch(likely) else ""
        rule = "a lower-case letter, then such letters and digits, with single '-' or '_' between them"
        raise ValueError(f"{name!r} is no name for a plugin, which is {rule}{meant}")
    if len(name) > LONGEST:
        raise ValueError(f"{name!r} has {len(name)} characters, and may have {LONGEST}")
    if short != name:
        raise ValueError(f"leave out {name.removesuffix(short)!r}: the package is called so by itself")
    if keyword.iskeyword(name) or keyword.iskeyword(_class(name)):
        raise ValueError(f"{name!r} is a keyword of Python's, which can name neither module nor class")
    if name in _NO_TEXT:
        raise ValueError(f"{name!r} is no text in a config: YAML reads it as a value of its own")
    if name == "channels":
        raise ValueError("the package would be called 'realtime-channels', as the server itself is")
    return name


def new_plugin(name: str, *, directory: Path | None, force: bool) -> ExitCode:
    """Write the package of a plugin of this name; ``force``: although there is one of the name."""
    from realtime.modules import Modules, first_party

    target = directory or Path(PREFIX + name)
    found = [other for other in Modules(Path().absolute()).found if _alike(other.name) == _alike(name)]
    # A file beside the config is the author's own, who is about to make a package of it.
    own = [other for other in found if other.directory not in (None, first_party())]
    if (others := [other for other in found if other not in own]) and not force:
        other = others[0]
        means = f"a config that says 'plugin: {name}' means that"
        if not other.matches(name):
            means = f"of {other.name!r} and {name!r} nobody knows which is which"
        owner = other.distribution or "the server"
        logs.say(
            f"there is a plugin {other.name!r} already: {other.module}, of {owner}",
            f"{means}; choose another name, or say --force",
        )
        return ExitCode.BAD_CONFIG
    files = {target / _renamed(path, name): text for path, text in _templates().items()}
    if there := [str(path) for path in files if os.path.lexists(path)]:
        more = f" and {len(there) - 3} files more" if len(there) > 3 else ""
        logs.say(
            f"nothing was written: there is {', '.join(there[:3])}{more}",
            "remove what is there, or choose another directory with --directory DIR",
        )
        return ExitCode.BAD_CONFIG
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as written:
            written.write(_renamed(text, name))
    print(f"wrote {target}: a channel {name!r} that works, and its tests. Go on with")
    if target.absolute() != Path.cwd():
        print(f"  cd {shlex.quote(str(target))}")
    print("  pip install -e '.[test]'\n  pytest && python -m realtime")
    if own and own[0].matches(name):
        file = Path(own[0].module).relative_to(Path.cwd())
        print(f"{file} is what a config beside it means by {name!r}, while it is there")
    return ExitCode.OK


def _templates() -> dict[str, str]:
    """The text of each template by its path."""
    return {
        path.relative_to(TEMPLATES).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(TEMPLATES.rglob("*"))
        if path.is_file() and path.parent.name != "__pycache__"  # pip compiles what it installs
    }


def _renamed(text: str, name: str) -> str:
    """A text or a path of the templates for the plugin of this name."""
    words = re.split("[-_]", name)
    for placeholder, value in {
        "your-name": name,
        "your_name": _module(name),
        "YourName": _class(name),
        "Your name": " ".join([words[0].capitalize(), *words[1:]]),
        ">=0.0.0,<1": f">={realtime.__version__},<{_next_version()}",
    }.items():
        text = text.replace(placeholder, value)
    return text


def _next_version() -> str:
    """The next version of the server that may take away what plugins use."""
    major, minor = map(int, re.findall("[0-9]+", realtime.__version__)[:2])
    return str(major + 1) if major else f"0.{minor + 1}"


def _module(name: str) -> str:
    return name.replace("-", "_")


def _alike(name: str) -> str:
    """The same for all names that differ in case, or in '-' and '_', only."""
    return name.replace("-", "_").lower()


def _class(name: str) -> str:
    camel = "".join(word[0].upper() + word[1:] for word in re.split("[-_]", name))
    # What the module imports has its name already.
    return f"{camel}Channel" if camel in (*realtime.__all__, "PositiveInt") else camel
