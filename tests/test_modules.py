"""The modules of plugins: what is imported again, and what is not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from test_loader import Install, Write, install, write

from realtime.checks import PluginProblem
from realtime.modules import Found, Modules, files_in

assert install
assert write

#: A plugin that is only a number.
ONE = '"""One."""\nNUMBER = 1\n'


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is imported is compiled and kept, as it is for a server."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)


def number(modules: Modules, name: str = "one") -> object:
    """The number in a plugin, as it is imported now."""
    return vars(modules.get(name))["NUMBER"]


def rewrite(file: Path, text: str) -> None:
    """Write a file within the second in which it was written before, with the same size."""
    before = file.stat()
    file.write_text(text)
    assert file.stat().st_size == before.st_size
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1000))


def test_unchanged_file_is_the_same_module(write: Write) -> None:
    """What has not changed is not imported again."""
    directory = write({"one.py": ONE})
    first = Modules(directory)
    module = first.get("one")
    assert Modules(directory, first).get("one") is module


def test_changed_file_is_imported_again(write: Write) -> None:
    """A file that was written again is another module, also within the same second."""
    directory = write({"one.py": ONE})
    first = Modules(directory)
    assert number(first) == 1
    rewrite(directory / "plugins" / "one.py", ONE.replace("1", "2"))
    assert (number(Modules(directory, first)), number(first)) == (2, 1)


def test_what_is_used_is_left_alone(write: Write) -> None:
    """The module of before is still what it was."""
    directory = write({"one.py": ONE})
    first = Modules(directory)
    module = first.get("one")
    rewrite(directory / "plugins" / "one.py", ONE.replace("1", "2"))
    Modules(directory, first).get("one")
    assert vars(module)["NUMBER"] == 1


@pytest.mark.parametrize("changed", ["helper.py", "one/inner.py"])
def test_helper_that_has_changed(write: Write, changed: str) -> None:
    """A plugin is imported again when a file that it imports has changed."""
    files = {
        "one/__init__.py": "from ..helper import A\nfrom .inner import B\nNUMBER = A + B\n",
        "one/inner.py": "B = 1\n",
        "helper.py": "A = 1\n",
    }
    directory = write(files)
    first = Modules(directory)
    assert number(first) == 2
    file = directory / "plugins" / changed
    rewrite(file, file.read_text().replace("1", "5"))
    assert number(Modules(directory, first)) == 6


def test_other_plugin_that_has_changed(write: Write) -> None:
    """A plugin stays when another that it does not use has changed."""
    directory = write({"one.py": ONE, "two.py": ONE})
    first = Modules(directory)
    two, module = first.get("two"), first.get("one")
    assert two
    rewrite(directory / "plugins" / "two.py", ONE.replace("1", "2"))
    second = Modules(directory, first)
    assert number(second, "two") == 2
    assert second.get("one") is module


def test_plugin_that_another_uses_has_changed(write: Write) -> None:
    """A plugin that is built on another is imported again with it."""
    directory = write({"one.py": ONE, "two.py": "from .one import NUMBER\n"})
    first = Modules(directory)
    assert (number(first), number(first, "two")) == (1, 1)
    rewrite(directory / "plugins" / "one.py", ONE.replace("1", "2"))
    second = Modules(directory, first)
    assert (number(second), number(second, "two")) == (2, 2)


def test_file_that_takes_the_place_of_another(write: Write, install: Install) -> None:
    """A file beside the config comes before the package that was imported."""
    directory = write({})
    install("realtime-one", "one", "realtime_one_a", ONE)
    first = Modules(directory)
    assert number(first) == 1
    write({"one.py": ONE.replace("1", "2")})
    assert number(Modules(directory, first)) == 2


def test_package_that_has_changed(write: Write, install: Install) -> None:
    """A package that has changed needs a restart of the process."""
    install("realtime-one", "one", "realtime_one_b", ONE)
    first = Modules(write({}))
    first.get("one")
    rewrite(Path(str(sys.modules["realtime_one_b"].__file__)), ONE.replace("1", "2"))
    with pytest.raises(PluginProblem, match=r"plugin 'one' has changed .*needs a restart of the process"):
        Modules(write({}), first).get("one")


def test_package_that_was_not_named_meanwhile(write: Write, install: Install) -> None:
    """What was imported once is known to be there, though no config has named it since."""
    install("realtime-one", "one", "realtime_one_e", ONE)
    first = Modules(write({}))
    first.get("one")
    without = Modules(write({}), first)
    without.settle()
    rewrite(Path(str(sys.modules["realtime_one_e"].__file__)), ONE.replace("1", "2"))
    with pytest.raises(PluginProblem, match="needs a restart of the process"):
        Modules(write({}), without).get("one")


def test_package_that_is_imported_anew(write: Write, install: Install) -> None:
    """For authors it is imported again all the same."""
    install("realtime-one", "one", "realtime_one_c", ONE)
    first = Modules(write({}))
    first.get("one")
    rewrite(Path(str(sys.modules["realtime_one_c"].__file__)), ONE.replace("1", "2"))
    assert number(Modules(write({}), first, anew=True)) == 2


def test_package_that_is_broken_now(write: Write, install: Install) -> None:
    """What was imported in vain leaves everything as it was."""
    install("realtime-one", "one", "realtime_one_d", ONE)
    first = Modules(write({}))
    module = first.get("one")
    Path(str(sys.modules["realtime_one_d"].__file__)).write_text("1 / 0\n")
    second = Modules(write({}), first, anew=True)
    with pytest.raises(ZeroDivisionError):
        second.get("one")
    second.undo()
    assert sys.modules["realtime_one_d"] is module


def test_packages_of_before_go(write: Write) -> None:
    """However often a file changes, only the module that is used stays imported."""
    directory = write({"one.py": ONE})
    before = set(sys.modules)
    modules = Modules(directory)
    for value in range(2, 6):
        modules.get("one")
        rewrite(directory / "plugins" / "one.py", ONE.replace("1", str(value)))
        modules = Modules(directory, modules)
        assert number(modules) == value
        modules.settle()
    left = {name for name in set(sys.modules) - before if name.endswith(".one")}
    assert len(left) == 2  # the first, which another server may use, and the last


def test_nothing_is_left_of_what_failed(write: Write) -> None:
    """A module that cannot be imported leaves no package behind."""
    directory = write({"one.py": ONE})
    first = Modules(directory)
    first.get("one")
    before = set(sys.modules)
    (directory / "plugins" / "one.py").write_text("1 / 0\n")
    second = Modules(directory, first)
    with pytest.raises(ZeroDivisionError):
        second.get("one")
    second.undo()
    assert set(sys.modules) == before


def test_owner_of_a_module_of_before(write: Write) -> None:
    """Whose a module is stays known as long as it may run."""
    directory = write({"one.py": ONE})
    first = Modules(directory)
    name = vars(first.get("one"))["__name__"]
    rewrite(directory / "plugins" / "one.py", ONE.replace("1", "2"))
    second = Modules(directory, first)
    second.get("one")
    assert second.owner(name) == "one"


def test_file_that_is_as_it_was(write: Write) -> None:
    """A file that was changed and changed back is the module that it was."""
    directory = write({"one.py": ONE})
    first = Modules(directory)
    module = first.get("one")
    write({"one.py": "1 / 0\n"})
    write({"one.py": ONE})
    assert Modules(directory, first).get("one") is module


def test_files_in_a_directory(tmp_path: Path) -> None:
    """Of a directory every Python file counts, of others the file itself."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("a/b/c.py", "a/d.py", "a/e.txt"):
        (tmp_path / name).write_text("")
    found = files_in([tmp_path / "a", tmp_path / "a" / "e.txt"])
    assert {file.name for file in found} == {"c.py", "d.py", "e.txt"}


def test_description_is_read_without_importing(write: Write) -> None:
    """The first line of a docstring is known of what was never imported."""
    directory = write({"one.py": '"""Is not run."""\n1 / 0\n'})
    found = next(one for one in Modules(directory).found if one.name == "one")
    assert isinstance(found, Found)
    assert found.described() == "Is not run."


def test_module_of_our_own_package() -> None:
    """An entry point of the server's own distribution is the module that it names, and not all of it."""
    found = Found("shelf", "realtime.engine", distribution="realtime-channels")
    assert (found.top, [place.name for place in found.places()]) == ("realtime.engine", ["engine.py"])
