"""What every test can use: a real server on a free port, from a config in the test."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import textwrap
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from aiohttp import web_app
from hypothesis import settings
from once import turn

from realtime import testing
from realtime.config import parse
from realtime.loops import Choice, factory
from realtime.server import Server
from realtime.source import Source

pytest_plugins = ["realtime.testing"]

# A shell that starts the suite in the background has it ignore Ctrl-C, and whatever it starts inherits
# that; a signal that is handled is reset in them instead.
signal.signal(signal.SIGINT, signal.default_int_handler)
# What is asked of this run is not asked of those that its tests start.
os.environ.pop("PYTEST_ADDOPTS", None)


#: How many times as much as usual is tried of what is made up at random; usually it is the same each time.
FUZZ = int(os.environ.get("REALTIME_FUZZ", "1"))
settings.register_profile("realtime", derandomize=FUZZ == 1, max_examples=100 * FUZZ, deadline=None)
settings.load_profile("realtime")

#: The event loop of the suite: that of a server, unless this names another.
LOOP = os.environ.get("REALTIME_TEST_LOOP", "auto")


#: The test files that take longest, of those that would come late.
LONG = ("test_docs.py", "test_terminal.py", "test_conformance.py", "test_packaging.py")

#: Whether pytest itself has failed.
BROKEN: list[bool] = []

#: Where a server listens. What a test does itself holds the event loop, too, so nothing watches that.
SERVER = 'server: {listen: ["127.0.0.1:0"], watchdog: off}\n'


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """All tests run on all cores; those that are named run here, as they do with -n 0 (hook of xdist)."""
    return os.cpu_count() or 1 if config.args_source is config.ArgsSource.TESTPATHS else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first: at the end no core waits for one of them (hook of pytest)."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """What measures the machine does so while no other test runs (hook of pytest)."""
    with turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test has logged reaches the process that reports, whatever is in it (hook of pytest)."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


def pytest_internalerror() -> None:
    """What breaks the run of a worker, xdist shows, and forgets (hook of pytest)."""
    BROKEN.append(True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run that was broken has not passed, whatever came of the tests until then (hook of pytest)."""
    if BROKEN:
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR


def pytest_collection_finish() -> None:
    """What was imported stays: no collection of garbage looks at it again (hook of pytest)."""
    gc.collect()
    gc.freeze()


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that servers run on (hook of pytest-asyncio)."""
    return {LOOP: factory(cast(Choice, LOOP))}


#: For a channel whose clients are to say all that they can, as fast as they can.
FLOODED = "limits: {inbound_rate: 1000000, inbound_burst: 1000000}"


class Serving:
    """A running server and where it listens."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.address = str(server.addresses[0])
        self.port = server.addresses[0].port

    def ws(self, path: str) -> str:
        """The ws:// URL of a path."""
        return f"ws://{self.address}{path}"

    def http(self, path: str) -> str:
        """The http:// URL of a path."""
        return f"http://{self.address}{path}"


Serve = Callable[..., AbstractAsyncContextManager[Serving]]


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """What a command makes of the process's log ends with the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def own_server() -> Iterator[None]:
    """What a test has served ends with it: aiohttp remembers a thousand handlers, and all they hold."""
    yield
    web_app._cached_build_middleware.cache_clear()


@pytest.fixture
def serve(serve: testing.Serve, request: pytest.FixtureRequest, tmp_path: Path) -> Serve | testing.Serve:
    """``async with serve(config, {"dice.py": source}) as serving: ...``

    A test that takes its ``Serve`` from ``realtime.testing`` has that one, as the tests of others have.

    The config is YAML, dedented; without a ``server`` section it listens on a free port. Files go
    into ``plugins/`` beside it, and those with a slash in their name beside the config.
    """
    if getattr(request.module, "Serve", None) is testing.Serve:
        return serve

    @asynccontextmanager
    async def start(config: str, files: Mapping[str, str] | None = None) -> AsyncIterator[Serving]:
        config = textwrap.dedent(config)
        if "server:" not in config:
            config = f"{SERVER}{config}"
        file = tmp_path / "config.yaml"
        file.write_text(config)
        for name, text in (files or {}).items():
            target = tmp_path / (name if "/" in name else f"plugins/{name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(textwrap.dedent(text))
        async with Server(parse(config, Source("config.yaml", file))) as server:
            yield Serving(server)

    return start


def make(directory: Path, config: str, files: Mapping[str, str] | None = None) -> Server:
    """A server that has not begun, with its config and plugins in a directory."""
    for name, source in (files or {}).items():
        (directory / "plugins").mkdir(parents=True, exist_ok=True)
        (directory / "plugins" / name).write_text(textwrap.dedent(source))
    config = textwrap.dedent(config)
    if "server:" not in config:
        config = f"{SERVER}{config}"
    return Server(parse(config, Source("config.yaml", directory / "config.yaml")))
