"""The modules of plugins: where they are found, how they are imported, and whether they have changed.

A name is looked for in ``plugins/`` beside the config file, among the first-party plugins, and among the
entry points of group ``realtime`` of the installed packages. What a server has imported it can import
anew when the files have changed, while the old modules go on for whoever still uses them.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import itertools
import linecache
import logging
import operator
import re
import sys
import threading
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from realtime import hookspecs
from realtime.blame import lines, of_thread, theirs
from realtime.checks import PluginProblem, check_api_version, not_installed
from realtime.errors import did_you_mean

log = logging.getLogger("realtime.loader")

#: After so many seconds a plugin that is still being imported is named in the log.
SLOW_IMPORT = 5.0
#: What is said of what is new, and cannot be had by this process.
NEEDS_RESTART = "needs a restart of the process"


_PLUGIN_NAME = re.compile(r"[A-Za-z0-9_]+([.-][A-Za-z0-9_]+)*")
# Each time that something is imported anew it is another package: none is like one before.
_generations = itertools.count(1)


class Found(NamedTuple):
    """A plugin that could be loaded: a file in a directory, or an entry point of a distribution.

    ``module`` is the path of the file, or the entry point's ``package.module:attribute``.
    """

    name: str
    module: str
    directory: Path | None = None
    distribution: str = ""
    version: str = ""

    def matches(self, name: str) -> bool:
        """Whether a config that names ``name`` means this; a file has no hyphens in its name."""
        if self.directory is None:
            return self.name == name
        return self.name.replace("-", "_") == name.replace("-", "_")

    def described(self) -> str:
        """The first line of its docstring, which is read without importing it."""
        if self.directory is not None:
            package = Path(self.module) / "__init__.py"
            file = package if package.is_file() else Path(self.module)
        else:
            try:
                spec = importlib.util.find_spec(self.module.partition(":")[0])
            except (ImportError, ValueError):
                return ""
            file = Path(spec.origin) if spec and spec.origin else Path()
        try:
            return (ast.get_docstring(ast.parse(file.read_bytes())) or "").partition("\n")[0]
        except (OSError, SyntaxError, ValueError):
            return ""

    @property
    def top(self) -> str:
        """The outermost package of an installed one; of one of ours its module, for it is not all of it."""
        module = self.module.partition(":")[0]
        return module if module.startswith("realtime.") else module.partition(".")[0]

    def places(self) -> list[Path]:
        """The files and directories that it is made of, as far as they are its own."""
        if self.directory is not None:
            return [Path(self.module)]
        spec = importlib.util.find_spec(self.top)
        if spec is None:
            return []
        return [Path(place) for place in spec.submodule_search_locations or filter(None, [spec.origin])]


class _Imported(NamedTuple):
    """What was imported: a module or what an entry point names in it, and its files as they were."""

    found: Found
    plugin: object
    files: dict[Path, bytes]


class Modules:
    """Finds and imports the plugins of one server.

    ``directory`` is the one beside which a ``plugins/`` may stand: the config's. What ``before`` has
    imported is imported again only if it has changed: files in a directory of plugins, and with ``anew``
    installed packages too.
    """

    def __init__(
        self, directory: Path | None = None, before: Modules | None = None, *, anew: bool = False
    ) -> None:
        #: Which module or file each plugin is, of those that were looked for.
        self.location: dict[str, str] = {}
        self._directories = [first_party()]
        if directory is not None and (directory / "plugins").resolve() != first_party():
            self._directories.insert(0, directory / "plugins")
        self._beside = directory
        self._before = before
        self._anew = anew
        self._generation = next(_generations) if before else 0
        self._imported: dict[str, _Imported] = {}
        # What was imported of packages, also of those that no config has named since: it is there still.
        self._once: dict[Found, _Imported] = dict(before._once) if before else {}
        for known in before._imported.values() if before else ():
            if known.found.directory is None:
                self._once[known.found] = known
        # The plugin of each module, and of each package installed.
        self._owners: dict[str, str] = dict(before._owners) if before else {}
        self._tops: set[str] = set()  # the packages that are imported here
        self._replaced: dict[str, ModuleType] = {}  # the modules that were in their place
        # The packages that directories were imported as again.
        self._packages: set[str] = set(before._packages) if before else set()

    # Finding

    @cached_property
    def found(self) -> list[Found]:
        """Every plugin that a config could name, without importing any; of one name the first counts."""
        files = [
            Found(path.stem if path.suffix else path.name, str(path), directory=directory)
            for directory in self._directories
            for path in _entries(directory)
            if path.suffix == ".py" or (path / "__init__.py") in _entries(path)
        ]
        points = sorted(entry_points(group=hookspecs.PROJECT), key=lambda point: point.name)
        return files + [
            Found(
                point.name,
                point.value,
                distribution=point.dist.name if point.dist else "?",
                version=point.dist.version if point.dist else "",
            )
            for point in points
        ]

    def _find(self, name: str) -> Found:
        if not _PLUGIN_NAME.fullmatch(name):
            raise PluginProblem(f"{name!r} is no name of a plugin: letters, digits, '_', '-' and '.'")
        found = [candidate for candidate in self.found if candidate.matches(name)]
        if not found:
            raise PluginProblem(f"there is no plugin {name!r}" + self.where(name))
        self.location[name] = found[0].module
        if found[0].directory is None and len(found) > 1:
            owners = ", ".join(sorted(f"{point.distribution} ({point.module})" for point in found))
            raise PluginProblem(f"two installed packages offer a plugin {name!r}: {owners}; uninstall one")
        return found[0]

    def where(self, name: str, engines: Collection[str] = ()) -> str:
        """What could have been meant by a name, and where it was looked for."""
        found = self.found
        places = [("the engines that need no other plugin", [*engines])] if engines else []
        places += [
            (str(directory), [f.name for f in found if f.directory == directory])
            for directory in self._directories
        ]
        installed = f"entry points of group {hookspecs.PROJECT!r} of installed packages"
        places.append((installed, [f.name for f in found if f.directory is None]))
        near = not_installed(name, self._beside) or did_you_mean(name, [*engines, *(f.name for f in found)])
        return near + "".join(
            f"\n    searched: {place} ({', '.join(names) or 'none'})" for place, names in places
        )

    def owner(self, module: str) -> str | None:
        """The plugin that a module belongs to; None if it is none's."""
        while module not in self._owners and "." in module:
            module = module.rpartition(".")[0]
        return self._owners.get(module)

    # Importing

    def get(self, name: str) -> object:
        """The module of a plugin, or what its entry point names. Raises what the import does."""
        first, before = self._find(name), self._before
        if before and (known := before._unchanged(first)):
            self._imported[name] = known
            return known.plugin
        module, _, attribute = first.module.partition(":")
        if first.directory is not None:
            package = _package_for(first.directory, self._generation)
            module, attribute = f"{package}.{first.name}", ""
            if self._generation:
                self._packages.add(package)
        elif any(first.top == other.top for other in self._once):
            if not self._anew:
                wrong = f"has changed since it was imported: that {NEEDS_RESTART}"
                raise PluginProblem(f"the package of the plugin {name!r} {wrong}")
            if first.top not in self._tops:  # another plugin of the same package may have been here
                self._replaced.update(_taken_out({first.top}))
        if first.directory is None and first.top not in sys.modules:
            self._tops.add(first.top)
        importlib.invalidate_caches()
        then = _contents(files_in(first.places()))
        if before:
            _forget_compiled(files_in([first.directory] if first.directory else first.places()))
        check_api_version(name, importlib.util.find_spec(module))
        self._owners[module if first.directory is not None else first.top] = name
        slow = threading.Timer(SLOW_IMPORT, _tell_slow_import, [name, threading.get_ident()])
        slow.daemon = True
        slow.start()
        try:
            plugin: object = importlib.import_module(module)
        finally:
            slow.cancel()
        if first.directory is not None:
            then |= _contents(self._neighbours(first, module.rpartition(".")[0], then))
        plugin = operator.attrgetter(attribute)(plugin) if attribute else plugin
        self._imported[name] = _Imported(first, plugin, then)
        return plugin

    def files(self) -> list[Path]:
        """The files of all plugins that were imported, and the directories where others may be put."""
        return [*self._directories, *(file for known in self._imported.values() for file in known.files)]

    def _unchanged(self, found: Found) -> _Imported | None:
        """What was imported for this plugin, if its files are as they were."""
        for known in (*self._imported.values(), *self._once.values()):
            if known.found == found:
                then = known.files
                same = then == _contents(then) and then.keys() >= set(files_in(found.places()))
                return known if same else None
        return None

    def _neighbours(self, found: Found, package: str, own: Iterable[Path]) -> Iterator[Path]:
        """The other files of its directory that it may have imported: those that have been.

        Of other plugins' files only those whose names stand in its own.
        """
        text = "\n".join(file.read_text(errors="replace") for file in own)
        for name, module in list(sys.modules.items()):
            inside, _, below = name.partition(f"{package}.")
            file = getattr(module, "__file__", None)
            if inside or not below or not file or below.split(".")[0] == found.name:
                continue
            if name not in self._owners or re.search(rf"\b{re.escape(below)}\b", text):
                yield Path(file)

    def undo(self) -> None:
        """What was imported was for nothing: what was before is what others import again."""
        _taken_out(self._tops | self._packages - (self._before._packages if self._before else set()))
        sys.modules.update(self._replaced)
        self._replaced.clear()

    def settle(self) -> None:
        """What was before is used no more; what of it is left, other than what was imported once, goes."""
        self._before = None
        self._replaced.clear()
        names = [getattr(known.plugin, "__name__", "") for known in self._imported.values()]
        unused = self._packages.difference(name.rpartition(".")[0] for name in names)
        for name in _taken_out(unused):
            self._owners.pop(name, None)
        self._packages -= unused


def _taken_out(packages: Collection[str]) -> dict[str, ModuleType]:
    """The modules of some packages, taken out of those that are imported."""
    names = [
        name
        for name in sys.modules
        if any(name == package or name.startswith(f"{package}.") for package in packages)
    ]
    return {name: sys.modules.pop(name) for name in names}


def first_party() -> Path:
    """Where the plugins that come with the server are: inside the package, or beside a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "plugins"
    return installed if installed.is_dir() else package.parent / "plugins"


def _entries(directory: Path) -> list[Path]:
    """What is in a directory; nothing, if it is none or may not be looked at."""
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _package_for(directory: Path, generation: int) -> str:
    """The package that a plugins directory is imported as: one for each, so that two servers
    with different directories do not get each other's modules; and another for each generation."""
    directory = directory.resolve()
    name = "realtime.plugins"
    if generation or directory != first_party():
        name = f"realtime_plugins_{hashlib.sha256(str(directory).encode()).hexdigest()[:12]}"
        name += f"_{generation}" * (generation > 0)
    package = sys.modules.get(name)
    if package is None or list(package.__path__) != [str(directory)]:
        package = sys.modules[name] = ModuleType(name, f"The plugins of {directory}.")
        package.__path__ = [str(directory)]
    return name


def files_in(places: Iterable[Path]) -> Iterator[Path]:
    """Files as they are, and of a directory all Python files in it, however deep."""
    for place in places:
        if place.is_dir():
            with contextlib.suppress(OSError):  # what is there comes and goes
                yield from sorted(place.rglob("*.py"))
        else:
            yield place


def _contents(files: Iterable[Path]) -> dict[Path, bytes]:
    """What stands in files, as a digest: one that was written again as it was has not changed."""
    found = {}
    for file in files:
        try:
            found[file] = hashlib.sha256(file.read_bytes() if file.is_file() else b"").digest()
        except OSError:
            found[file] = b""
    return found


def _forget_compiled(files: Iterable[Path]) -> None:
    """Python compares whole seconds, and within one a file may be written twice."""
    for file in files:
        with contextlib.suppress(OSError):  # whoever may not write there has not written it
            Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
    linecache.checkcache()


def _tell_slow_import(name: str, thread: int) -> None:
    where = "".join(f", in {line}" for line in lines(theirs(of_thread(thread))[-1:]))
    remedy = "; what takes long belongs into lifespan() or register_services()"
    log.warning("plugin %r is still being imported after %gs%s%s", name, SLOW_IMPORT, where, remedy)
