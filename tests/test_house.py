"""The house itself: what may know what, what is exported, and that everything has its place."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tree import PACKAGE, PLUGINS, ROOT, checkout

import realtime

TESTS = Path(__file__).parent


def modules() -> dict[str, Path]:
    """The modules of the package, ``bus`` or ``transports.sse``, without the first-party plugins.

    What ``new-plugin`` copies is none of them: it is the beginning of somebody's package.
    """
    others = {PLUGINS, PACKAGE / "templates"}
    files = [file for file in sorted(PACKAGE.rglob("*.py")) if others.isdisjoint(file.parents)]
    return {
        ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): file
        for file in files
    }


MODULES = modules()
NAMES = sorted(MODULES)
PLUGIN_FILES = sorted(PLUGINS.glob("*.py"))
#: What strangers would write.
EXAMPLE_FILES = sorted((ROOT / "examples").glob("*/src/*/*.py"))
#: What keeps the logs of the bus elsewhere, each with what its extra brings.
ENGINES = (
    "engine",
    "engines.entries",
    "engines.feed",
    "engines.inquiry",
    "engines.line",
    "engines.members",
    "engines.pending",
    "engines.redis",
    "engines.resp",
    "engines.watch",
)
#: What knows nothing of sockets, HTTP, YAML or plugins.
INNER = (
    "bus",
    "close_codes",
    "encodings",
    "engine",
    "envelope",
    "errors",
    "log",
    "message",
    "observing",
    "subscriber",
    "topic",
    "traffic",
)
#: What is not the server's.
CLIENTS = ("client", "links", "terminal")
#: What reads a config file, finds its mistakes, and tells what is new in it; a server needs no more of it
#: than what comes out.
CONFIG = ("changes", "config", "source", "values", "wording")
#: What stands guard: who may come in, what is let through, who is told when somebody hangs. A message is
#: followed from client to client without them.
GUARDS = (
    "auth",
    "blame",
    "buckets",
    "door",
    "origins",
    "permissions",
    "proxies",
    "sockets",
    "tls",
    "transports.deadline",
    "transports.framing",
    "transports.idempotency",
    "watchdog",
)
#: What runs a server: the command line, and somebody's application.
COMMANDS = (
    "arguments",
    "cli",
    "embedding",
    "exit_codes",
    "inspection",
    "logs",
    "loops",
    "reloading",
    "serving",
    "token",
)
#: What only the author of a plugin needs: to begin one, to test it, to have it tried, to be told mistakes.
AUTHORS = ("checks", "clockwork", "peer", "remedies", "scaffold", "testing", "transcript")
#: What tries a plugin, as no author does.
TRIALS = ("conformance", "findings", "leaks", "stranger", "trial", "verdicts")
#: What counts, and tells whoever operates the server.
MEASURES = ("metrics", "stats", "traffic", "watching")
#: What tells people and their tools of the server; no message comes by.
SHOWN = ("about", "assets", "front", "portrait", "schema", "transports.page")
#: What other distributions bring, by the name of what is imported.
THIRD_PARTY = {
    "uvloop",
    "aiohttp",
    "hiredis",
    "jwt",
    "orjson",
    "pluggy",
    "pydantic",
    "pydantic_core",
    "yaml",
    "yarl",
    "multidict",
}


def imports(file: Path) -> Iterator[tuple[str, str]]:
    """What a file imports, wherever it does: the module, and the name taken from it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are written in full"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}".removeprefix("realtime.")
                # `from realtime.transports import sse` imports a module.
                if whole in MODULES and str(node.module).startswith("realtime"):
                    yield f"realtime.{whole}", ""
                else:
                    yield str(node.module), alias.name


def own(file: Path) -> set[str]:
    """The modules of the package that a file imports, without the package's name."""
    return {
        module.removeprefix("realtime.")
        for module, _ in imports(file)
        if module.partition(".")[0] == "realtime"
    }


def foreign(file: Path) -> set[str]:
    """What a file imports that is neither ours nor Python's."""
    tops = {module.partition(".")[0] for module, _ in imports(file)}
    return tops - {"realtime", "__future__"} - sys.stdlib_module_names


# Imports point inward


@pytest.mark.parametrize("module", INNER)
def test_inner_modules_know_each_other_only(module: str) -> None:
    """The core of the core imports none but its own kind."""
    assert own(MODULES[module]) <= set(INNER)


@pytest.mark.parametrize("module", INNER)
def test_inner_modules_know_no_web(module: str) -> None:
    """The core of the core knows no aiohttp, YAML, pluggy or pydantic."""
    assert foreign(MODULES[module]) <= {"orjson"}


@pytest.mark.parametrize("module", [name for name in NAMES if name.startswith("transports")])
def test_transports_do_not_know_who_runs_them(module: str) -> None:
    """A transport knows no server, command line, loader or config file."""
    assert own(MODULES[module]).isdisjoint(
        {
            "assembly",
            "changes",
            "cli",
            "client",
            "config",
            "embedding",
            "lifespans",
            "loader",
            "modules",
            "reloading",
            "server",
            "serving",
            "source",
        }
    )


@pytest.mark.parametrize(
    "module", [name for name in NAMES if name not in ("", "__init__", "__main__", "cli")]
)
def test_nobody_imports_the_command_line(module: str) -> None:
    """The command line is the outermost: nothing imports it."""
    assert own(MODULES[module]).isdisjoint({"cli", "__main__"})


@pytest.mark.parametrize("file", [*MODULES.values(), *PLUGIN_FILES], ids=lambda file: file.stem)
def test_nobody_imports_a_plugin(file: Path) -> None:
    """Plugins are imported by their name in a config, and by nothing else."""
    assert not [
        module
        for module, name in imports(file)
        if re.match(r"(realtime\.)?plugins\b", module) or (module, name) == ("realtime", "plugins")
    ]


@pytest.mark.parametrize(
    "file", [*PLUGIN_FILES, *EXAMPLE_FILES], ids=lambda file: f"{file.parent.name}-{file.stem}"
)
def test_plugins_know_what_is_exported(file: Path) -> None:
    """A first-party plugin uses nothing that a stranger cannot use, and an example neither."""
    assert own(file) <= {"realtime"}
    assert {name for module, name in imports(file) if module == "realtime"} <= set(realtime.__all__)


@pytest.mark.parametrize("file", [*MODULES.values(), *PLUGIN_FILES], ids=lambda file: file.stem)
def test_dependencies_are_those_of_the_metadata(file: Path) -> None:
    """What is imported is required: yarl and multidict come with aiohttp, pydantic_core with pydantic.

    Pytest is imported where there is a test: a server needs none.
    """
    assert foreign(file) <= THIRD_PARTY | ({"pytest"} if file.stem in AUTHORS else set())


def requirements(of: str) -> set[str]:
    """What an option of the metadata requires, by the name of what is imported."""
    setup = (checkout() / "setup.cfg").read_text()
    required = re.search(rf"(?m)^{of} =\n((?:    .*\n)+)", setup)
    assert required is not None
    imported = {"pyyaml": "yaml", "pyjwt[crypto]": "jwt"}
    first = [line.split()[0].lower() for line in required[1].splitlines()]
    return {imported.get(name, name) for name in first}


def test_requirements_are_used() -> None:
    """What the distribution requires is imported somewhere, and by more than an engine."""
    others = [file for name, file in MODULES.items() if name not in ENGINES]
    used = set().union(*map(foreign, [*others, *PLUGIN_FILES]))
    assert requirements("install_requires") == used - {"yarl", "multidict", "pydantic_core", "pytest"}


def test_extra_of_an_engine_is_used() -> None:
    """What an engine imports, and nothing else does, is what its extra brings."""
    used = set().union(*(foreign(MODULES[name]) for name in ENGINES))
    assert requirements("redis") == used - requirements("install_requires")


@pytest.mark.parametrize("module", [name for name in NAMES if name not in ENGINES])
def test_engines_are_imported_when_they_are_chosen(module: str) -> None:
    """No module imports an engine as it is imported itself."""
    at_once = ast.parse(MODULES[module].read_text()).body
    names = {
        f"{getattr(node, 'module', '')}.{alias.name}"
        for node in at_once
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert [name for name in names if "realtime.engines" in name] == []


# What is exported


@pytest.mark.parametrize("name", realtime.__all__)
def test_exported_name_is_explained(name: str) -> None:
    """Every exported name can be imported and says what it is."""
    value = getattr(realtime, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert (value.__doc__ or "").strip()
    else:  # a constant or a type: a comment for people before it, in the module of its own
        sources = [file.read_text() for file in MODULES.values()]
        assert any(re.search(rf"(?m)^#: .*(\n#.*)*\n{name} = ", source) for source in sources)


@pytest.mark.parametrize(
    "name", [name for name in realtime.__all__ if inspect.isclass(getattr(realtime, name))]
)
def test_methods_are_explained(name: str) -> None:
    """Every public method of an exported class says what it does."""
    kind = getattr(realtime, name)
    silent = [
        attribute
        for attribute, value in vars(kind).items()
        if not attribute.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, property | classmethod))
        and not (inspect.getdoc(value) or "").strip()
    ]
    assert silent == []


def test_exported_names_are_listed() -> None:
    """``dir(realtime)`` has the exported names, and no other name is one."""
    assert dir(realtime) == sorted(realtime.__all__)
    with pytest.raises(AttributeError, match="module 'realtime' has no attribute 'zebra'"):
        realtime.zebra  # noqa: B018


def test_exports_are_typed() -> None:
    """Type checkers see the names that are imported on first use."""
    source = (PACKAGE / "__init__.py").read_text()
    typed = set(re.findall(r"\b(\w+) as \1\b", source))
    assert typed == set(realtime.__all__) - {"API_VERSION", "__version__"}
    assert (PACKAGE / "py.typed").exists()


# Everything has its place


@pytest.mark.parametrize("module", NAMES)
def test_module_can_be_imported(module: str) -> None:
    """Every module can be imported by itself and says what it is about."""
    if module == "__main__":
        source = ast.parse(MODULES[module].read_text())
        assert ast.get_docstring(source)
        return
    name = "realtime" if module == "__init__" else f"realtime.{module}"
    assert (importlib.import_module(name).__doc__ or "").strip()


@pytest.mark.parametrize("file", PLUGIN_FILES, ids=lambda file: file.stem)
def test_plugin_is_explained(file: Path) -> None:
    """A first-party plugin says what it is about."""
    assert ast.get_docstring(ast.parse(file.read_text()))


@pytest.mark.parametrize("module", [name for name in NAMES if not name.startswith("__")])
def test_module_has_its_tests(module: str) -> None:
    """The tests of a module are in the file of its name."""
    package, _, name = module.rpartition(".")
    if (PACKAGE / package / name).is_dir():
        return  # a package has the tests of its modules
    assert (TESTS / f"test_{name}.py").is_file()


@pytest.mark.parametrize("file", PLUGIN_FILES, ids=lambda file: file.stem)
def test_plugin_has_its_tests(file: Path) -> None:
    """The tests of a first-party plugin are in the file of its name."""
    assert (TESTS / "plugins" / f"test_{file.stem}.py").is_file()


def lines(file: Path) -> int:
    """How long a file is."""
    return len(file.read_text().splitlines())


@pytest.mark.parametrize("module", NAMES)
def test_no_module_ate_the_project(module: str) -> None:
    """No module is longer than can be read in one go."""
    assert lines(MODULES[module]) <= 500


def lines_of_code(file: Path) -> int:
    """How many lines of a file are code: not blank, no comment, no docstring."""
    source = file.read_text()
    prose = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    return sum(
        1
        for number, line in enumerate(source.splitlines(), 1)
        if line.strip() and not line.strip().startswith("#") and number not in prose
    )


def test_core_is_read_in_an_afternoon() -> None:
    """The bus, the fan-out, the transports and the plugins' host stay under 5,000 lines of code."""
    others = AUTHORS + CLIENTS + COMMANDS + CONFIG + ENGINES + GUARDS + MEASURES + SHOWN + TRIALS
    assert sum(lines_of_code(file) for name, file in MODULES.items() if name not in others) < 5000


def test_guards_are_read_in_an_hour() -> None:
    """What stands guard stays under 1,500 lines of code."""
    assert sum(lines_of_code(MODULES[name]) for name in GUARDS) < 1500


def test_engines_are_read_in_an_hour() -> None:
    """What keeps the logs stays under 1,600 lines of code."""
    assert sum(lines_of_code(MODULES[name]) for name in ENGINES) < 1600


def test_config_is_read_in_an_hour() -> None:
    """What reads a config stays under 900 lines of code."""
    assert sum(lines_of_code(MODULES[name]) for name in CONFIG) < 900


def test_plugins_are_read_as_documentation() -> None:
    """A first-party plugin is one file, of less than 200 lines of code."""
    assert max(map(lines_of_code, PLUGIN_FILES)) < 200


def test_examples_are_read_as_documentation() -> None:
    """An example has at most 150 lines of code."""
    by_example: dict[Path, int] = {}
    for file in EXAMPLE_FILES:
        by_example[file.parent] = by_example.get(file.parent, 0) + lines_of_code(file)
    assert max(by_example.values()) <= 150


def test_commands_are_read_in_an_hour() -> None:
    """What is done with the server, from outside, stays under 1,400 lines of code."""
    assert sum(lines_of_code(MODULES[name]) for name in COMMANDS) < 1400


def test_tools_for_authors_are_read_in_an_hour() -> None:
    """What authors of plugins are given stays under 1,500 lines of code."""
    assert sum(lines_of_code(MODULES[name]) for name in AUTHORS if name in MODULES) < 1500


def test_trials_are_read_in_an_hour() -> None:
    """What tries a plugin stays under 1,300 lines of code."""
    assert sum(lines_of_code(MODULES[name]) for name in TRIALS) < 1300


def test_measures_are_read_in_an_hour() -> None:
    """What counts, and shows what was counted, stays under 600 lines of code."""
    assert sum(lines_of_code(MODULES[name]) for name in MEASURES) < 600


def test_what_is_shown_is_read_in_an_hour() -> None:
    """What tells of the server stays under 800 lines of code."""
    assert sum(lines_of_code(MODULES[name]) for name in SHOWN) < 800


def test_clients_are_read_in_an_hour() -> None:
    """The clients, for applications and of the command line, stay under 1,000 lines of code."""
    assert sum(lines_of_code(MODULES[name]) for name in CLIENTS) < 1000


@pytest.mark.parametrize("module", [name for name in NAMES if name not in ("__init__", "cli")])
def test_server_does_not_know_the_clients(module: str) -> None:
    """The server knows none of its clients."""
    assert module in CLIENTS + AUTHORS or own(MODULES[module]).isdisjoint(CLIENTS)


@pytest.mark.parametrize("file", sorted(TESTS.rglob("test_*.py")), ids=lambda file: file.stem)
def test_tests_make_a_claim(file: Path) -> None:
    """Every test begins with the sentence that it shows."""
    silent = [
        node.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not (ast.get_docstring(node) or "").strip()
    ]
    assert silent == []


@pytest.mark.parametrize("file", sorted(TESTS.rglob("*.py")), ids=lambda file: file.stem)
def test_tests_do_not_sleep(file: Path) -> None:
    """A test waits for what it waits for, not for a while."""
    sleeping = [
        node.lineno
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("time.sleep", "asyncio.sleep")
        and ast.unparse(node.args[0]) != "0"
    ]
    assert sleeping == []


def test_nothing_is_left_to_do() -> None:
    """No file says that it is not finished."""
    words = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK"]))
    folders = [checkout() / name for name in ("realtime", "plugins", "tests", "docs", "examples")]
    files = [
        file for folder in folders for file in folder.rglob("*") if file.suffix in (".py", ".md", ".yaml")
    ]
    files += [file for file in ROOT.iterdir() if file.is_file() and file.suffix != ".pyc"]
    assert [str(file) for file in files if words.search(file.read_text(errors="replace"))] == []


def test_changelog_has_a_place_for_what_comes() -> None:
    """The changelog has a section for what is not released yet, and it is not empty."""
    text = (checkout() / "CHANGELOG.md").read_text()
    unreleased = re.search(r"(?ms)^## \[Unreleased\]\n(.*?)(^## |\Z)", text)
    assert unreleased is not None
    assert re.search(r"(?m)^### (Added|Changed|Deprecated|Removed|Fixed|Security)\n\n- ", unreleased[1])


@pytest.mark.parametrize("command", ["python -m realtime", "pip install .", "pytest"])
def test_readme_has_the_commands(command: str) -> None:
    """The README says how to run the server and its tests."""
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```", (checkout() / "README.md").read_text())
    assert any(re.search(rf"(^|&& ){re.escape(command)}( |\n|$)", block, re.M) for block in blocks)
