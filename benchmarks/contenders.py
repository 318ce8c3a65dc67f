"""Who is measured: Realtime, variants of it, and the peers, each with what it takes to set it up."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PEERS = HERE / "peers"
CONFIG = HERE / "config.yaml"
#: The name of the server that all others are compared with.
OURS = "realtime"
#: How long an installation or a build may take, in seconds.
PATIENCE = 900


class Missing(Exception):
    """It cannot be measured; the text says why."""


@dataclass(frozen=True)
class Contender:
    """A server that can be started."""

    name: str
    title: str
    #: The command; ``{port}`` stands for the port.
    command: Sequence[str]
    #: What it is made of, by name, and of which version.
    versions: Mapping[str, str]
    environment: Mapping[str, str] = field(default_factory=dict)
    #: Where the room can be read as an event stream.
    streams: str = "/events"

    def made_of(self) -> dict[str, str]:
        """Its versions, and the environment that it is given, without paths of this machine."""
        shown = {name: text for name, text in self.environment.items() if not name.endswith("PATH")}
        return {**self.versions, **shown}


def tell(text: str) -> None:
    """Say what is going on."""
    print(text, file=sys.stderr, flush=True)


def run(*command: str | Path, cwd: Path = HERE, env: Mapping[str, str] | None = None) -> str:
    """What a command printed; :class:`Missing` with its last lines when it fails."""
    try:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{shlex.join(map(str, command))}: {error}") from None
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise Missing(f"{Path(command[0]).name} failed: {last}")
    return done.stdout


def need(program: str, install: str) -> str:
    """The path of a program that has to be there."""
    path = shutil.which(program)
    if path is None:
        raise Missing(f"it needs {program}: {install}")
    return path


# What is compiled


def compiled(work: Path, source: Path) -> Path:
    """The program that a C file becomes; compiled when the file is newer."""
    program = work / source.stem
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        tell(f"compiling {source.name}")
        gcc = need("gcc", "apt-get install build-essential")
        run(gcc, "-O2", "-o", program, source)
    return program


def floor(work: Path, mode: str = "batch") -> Contender:
    program = compiled(work, PEERS / "floor.c")
    version = run(need("gcc", "apt-get install build-essential"), "-dumpfullversion").strip()
    name, title = ("floor", "C floor") if mode == "batch" else ("direct", "C floor, a send() a text")
    return Contender(name, title, [str(program), "{port}", mode], {"gcc": version})


def direct(work: Path) -> Contender:
    return floor(work, "direct")


def axum(work: Path) -> Contender:
    cargo = need("cargo", "install Rust")
    tree, target = work / "axum", work / "axum-target"
    # A copy, so that what cargo writes beside its manifest is not in the checkout.
    shutil.copytree(PEERS / "axum", tree, dirs_exist_ok=True)
    tell("building axum, which takes a minute the first time")
    run(cargo, "build", "--release", "--quiet", "--target-dir", target, cwd=tree)
    lock = (tree / "Cargo.lock").read_text()
    versions = {
        name: re.findall(rf'name = "{name}"\nversion = "([^"]+)"', lock)[0]
        for name in ("axum", "tokio", "hyper", "tokio-tungstenite")
    }
    versions["rustc"] = run(need("rustc", "install Rust"), "--version").split()[1]
    return Contender("axum", "axum", [str(target / "release" / "on-axum"), "{port}"], versions)


def ws(work: Path) -> Contender:
    node, npm = need("node", "apt-get install nodejs"), need("npm", "apt-get install npm")
    modules = work / "node" / "node_modules"
    packages = ("ws", "bufferutil")
    if not all((modules / package / "package.json").exists() for package in packages):
        tell("installing ws")
        (work / "node").mkdir(parents=True, exist_ok=True)
        run(npm, "install", "--prefix", work / "node", "--no-audit", "--no-fund", *packages)
    versions = {
        package: json.loads((modules / package / "package.json").read_text())["version"]
        for package in packages
    }
    versions["node"] = run(node, "--version").strip().removeprefix("v")
    environment = {"NODE_PATH": str(modules), "NODE_ENV": "production"}
    return Contender("ws", "node ws", [node, str(PEERS / "on_ws.cjs"), "{port}"], versions, environment)


# What pip installs

_VERSIONS = """
import importlib.metadata, json, platform, sys
found = {name: importlib.metadata.version(name) for name in sys.argv[1:]}
print(json.dumps({**found, "Python": platform.python_version()}))
"""


def environment(work: Path) -> Path:
    """The python of an environment for the peers and the plots."""
    python = work / "venv" / "bin" / "python"
    if not python.exists():
        tell("making an environment for the Python peers")
        venv.create(work / "venv", with_pip=True, symlinks=True)
    return python


def installed(work: Path, *packages: str) -> tuple[Path, dict[str, str]]:
    """The python that has these packages, and their versions."""
    python = environment(work)
    for attempt in ("look", "install"):
        try:
            return python, json.loads(run(python, "-c", _VERSIONS, *packages))
        except Missing:
            if attempt == "install":
                raise
            tell(f"installing {', '.join(packages)}")
            quiet = ("--quiet", "--disable-pip-version-check")
            run(python, "-m", "pip", "install", *quiet, *packages)
    raise AssertionError


def on_python(name: str, title: str, *packages: str) -> Callable[[Path], Contender]:
    """A peer in Python, by the packages that it needs."""

    def make(work: Path) -> Contender:
        python, versions = installed(work, *packages)
        return Contender(name, title, [str(python), str(PEERS / f"on_{name}.py"), "{port}"], versions)

    return make


#: Every peer by its name, and how it is set up.
ALL: dict[str, Callable[[Path], Contender]] = {
    "floor": floor,
    "direct": direct,
    "axum": axum,
    "socketify": on_python("socketify", "socketify (uWebSockets)", "socketify"),
    "ws": ws,
    "picows": on_python("picows", "picows", "picows", "aiofastnet", "uvloop"),
    "websockets": on_python("websockets", "websockets", "websockets", "uvloop"),
    "starlette": on_python(
        "starlette",
        "Starlette on uvicorn",
        *("starlette", "uvicorn", "websockets", "httptools", "uvloop", "broadcaster", "sse-starlette"),
    ),
    "aiohttp": on_python("aiohttp", "plain aiohttp", "aiohttp", "aiohttp-sse"),
}
#: Those that are measured when no peer is named.
USUAL = tuple(name for name in ALL if name != "direct")


# Realtime

_ABOUT = """
import importlib.metadata, json, pathlib, platform, realtime
found = {}
for name in ("aiohttp", "orjson", "pydantic", "uvloop"):
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps({"realtime": realtime.__version__, "Python": platform.python_version(), **found}))
print(pathlib.Path(realtime.__file__).parent)
"""


def realtime(
    python: str,
    variables: Mapping[str, str],
    config: Path = CONFIG,
    name: str = OURS,
    title: str = "Realtime",
) -> Contender:
    """The server of this project: that of this checkout, unless ``PYTHONPATH`` leads to another."""
    path = shutil.which(os.path.expanduser(python))
    if path is None:
        raise Missing(f"there is no {python}")
    # Not resolved: a link in an environment is that environment's python.
    python = os.path.abspath(path)
    # Servers are not started where the variable was written.
    variables = {**variables, "PYTHONPATH": os.path.abspath(variables.get("PYTHONPATH", ROOT))}
    versions, package = run(python, "-c", _ABOUT, env=variables).strip().splitlines()
    tell(f"{title} is that in {package}")
    found = json.loads(versions)
    if shutil.which("git"):
        with suppress(Missing):  # installed, and in no repository
            found["commit"] = run("git", "describe", "--always", "--dirty", cwd=Path(package)).strip()
    command = [python, "-m", "realtime", "-c", str(config), "--listen", "127.0.0.1:{port}"]
    run(python, "-m", "realtime", "check", "-c", config, env=variables)
    return Contender(name, title, command, found, variables, streams="/chat")


def variant(spec: str, python: str, variables: Mapping[str, str], config: Path) -> Contender:
    """Another Realtime, by what is other than with ours.

    Its words are a python, a config (``*.yaml``), or ``NAME=VALUE`` for the environment.
    """
    variables = dict(variables)
    for word in shlex.split(spec):
        variable, equals, text = word.partition("=")
        if equals and re.fullmatch(r"\w+", variable):
            variables[variable] = text
        elif word.endswith((".yaml", ".yml")):
            config = Path(word).resolve()
        else:
            python = word
    return realtime(python, variables, config, name=spec, title=f"Realtime, {spec}")


def whole_config(server: Contender) -> str:
    """The config of a Realtime with every value, and where each comes from."""
    python, config = server.command[0], server.command[4]
    said = run(python, "-m", "realtime", "config", "-c", config, env=server.environment)
    return said.replace(config, Path(config).name)
