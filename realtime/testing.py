"""Tests of a plugin against a real server: switched on with ``pytest_plugins = ["realtime.testing"]``.

The fixture :func:`serve` starts a server from a config in the test; :class:`Harness` has clients that
never wait without end, and a clock that can be moved. A test that fails shows what all of them said.

It needs pytest, which the server does not: nothing of ``realtime`` imports this. (PYTEST_DONT_REWRITE:
a conftest may import from here what it annotates with.)
"""

from __future__ import annotations

import asyncio
import difflib
import itertools
import textwrap
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

import aiohttp
import orjson
import yaml

try:
    import pytest
except ImportError:
    raise ImportError("realtime.testing is a plugin of pytest: pip install pytest") from None

from realtime.blame import is_host
from realtime.bus import Bus
from realtime.changes import Change
from realtime.channel import Channel
from realtime.client import Connection
from realtime.clockwork import Clock
from realtime.config import Config, load, parse
from realtime.envelope import V1_JSON
from realtime.errors import did_you_mean
from realtime.message import Message, Since
from realtime.modules import first_party
from realtime.paths import shape
from realtime.peer import NEVER, Peer
from realtime.server import Server
from realtime.source import Source
from realtime.transcript import WIDTH, BlockedWarning, Expected, Transcript
from realtime.values import Address

__all__ = ["Answer", "BlockedWarning", "Clock", "Harness", "Peer", "Serve"]

#: How long whatever a test waits for may take, in seconds, unless it says otherwise; and the start.
TIMEOUT, START = 5.0, 30.0
#: Where a server of a test listens, and how long its shutdown may take.
ANYWHERE, DRAIN = [Address("127.0.0.1", 0)], 2.0
_TRANSCRIPT = pytest.StashKey[Transcript]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the transcript to the report of a test that failed; its traceback has the lines of the test."""
    record = item.stash.get(_TRANSCRIPT, None)
    if record is not None and call.excinfo is not None and not item.config.getoption("fulltrace", False):
        _leave_own_lines(call.excinfo.value)
        call.excinfo = pytest.ExceptionInfo.from_exception(call.excinfo.value)
    report = yield
    if report.failed and record is not None and (text := str(record)):
        report.sections.append(("realtime: seconds, who, > said, < heard", text))
    return report


def _leave_own_lines(error: BaseException) -> None:
    """Take the lines of the host out of a traceback; with ``--full-trace`` pytest shows them all."""
    entries, trace = [], error.__traceback__
    while trace is not None:
        if not is_host(trace.tb_frame.f_code.co_filename):
            entries.append(trace)
        trace = trace.tb_next
    for one, following in zip(entries, [*entries[1:], None], strict=True):
        one.tb_next = following
    error.__traceback__ = entries[0] if entries else error.__traceback__


@dataclass(frozen=True)
class Answer:
    """The answer to a request."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        """The text read as JSON; :exc:`ValueError` where it is none."""
        try:
            return orjson.loads(self.text)
        except ValueError:
            raise ValueError(f"no JSON: {self.status} {self.text[:WIDTH]!r}") from None


class Harness:
    """A running server, and what a test does with it."""

    def __init__(
        self,
        server: Server,
        clock: Clock,
        record: Transcript,
        timeout: float,
        read: Callable[[str | Mapping[str, Any] | Path, Mapping[str, str]], Config],
    ) -> None:
        self.server = server
        self._read = read
        self.clock = clock
        self._record = record
        self._timeout = timeout
        self._numbers = itertools.count(1)
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None), cookie_jar=aiohttp.DummyCookieJar()
        )

    @property
    def bus(self) -> Bus:
        """The bus of the server."""
        return self.server.bus

    def channel(self, name: str) -> Channel:
        """The channel of that name."""
        channels = self.server.channels
        if name not in channels:
            raise LookupError(f"no channel is called {name!r}{did_you_mean(name, channels)}")
        return channels[name]

    async def reload(
        self, config: str | Mapping[str, Any] | Path, files: Mapping[str, str] | None = None
    ) -> list[Change]:
        """Have the server go by another config, as SIGHUP does; see :meth:`Server.reload`."""
        again = self._read(config, files or {}).listening_on(self.server.config.server.listen)
        return await self.clock.within(self.server.reload(again), START, "the server was not reloaded")

    @property
    def port(self) -> int:
        """The port where it listens."""
        return self.server.addresses[0].port

    def url(self, path: str, scheme: Literal["http", "ws"] = "http") -> str:
        """The URL of a path: ``http://…``, or ``ws://…``; with ``server.tls`` ``https://`` and ``wss://``."""
        tls = "s" if self.server.config.server.tls else ""
        return f"{scheme}{tls}://{self.server.addresses[0]}{path}"

    @overload
    def ws(
        self,
        path: str,
        *,
        json: Literal[True],
        headers: Mapping[str, str] | None = None,
        since: Since | str = None,
        timeout: float | None = None,
    ) -> AbstractAsyncContextManager[Peer[Message]]: ...
    @overload
    def ws(
        self,
        path: str,
        *,
        json: Literal[False] = False,
        headers: Mapping[str, str] | None = None,
        since: Since | str = None,
        timeout: float | None = None,
    ) -> AbstractAsyncContextManager[Peer[Any]]: ...
    def ws(
        self,
        path: str,
        *,
        json: bool = False,
        headers: Mapping[str, str] | None = None,
        since: Since | str = None,
        timeout: float | None = None,
    ) -> AbstractAsyncContextManager[Peer[Any]]:
        """A WebSocket: plain, or of the subprotocol ``realtime.v1.json``.

        What is published after it is open it gets. :exc:`realtime.Refused` when the server says no.
        """
        url, protocols = self.url(path, "ws"), (V1_JSON,) if json else ()
        return self._peer("ws", path, url, protocols, headers, since, timeout, plain=not json)

    def sse(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        since: Since | str = None,
        timeout: float | None = None,
    ) -> AbstractAsyncContextManager[Peer[Message]]:
        """A stream of server-sent events."""
        return self._peer("sse", path, self.url(path), (), headers, since, timeout, plain=False)

    def _peer(
        self,
        kind: str,
        path: str,
        url: str,
        protocols: tuple[str, ...],
        headers: Mapping[str, str] | None,
        since: Since | str,
        timeout: float | None,
        *,
        plain: bool,
    ) -> AbstractAsyncContextManager[Peer[Any]]:
        connection = Connection(
            url,
            since=since,
            headers=headers or {},
            subprotocols=protocols,
            reconnect=False,
            timeout=NEVER,
            ping=NEVER,
            slack=NEVER,
        )
        paths = [channel.settings.path for channel in self.server.channels.values()]
        name = f"{kind} {next(self._numbers)} {path.partition('?')[0]}"
        limit = self._timeout if timeout is None else timeout
        peer: Peer[Any] = Peer(name, connection, plain, limit, self._record, self.clock)
        return peer._opened(partial(_nearest, path.partition("?")[0], paths))

    async def post(
        self,
        path: str,
        data: Any,
        *,
        event: str = "message",
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """POST a message: text and bytes as they are, anything else as JSON."""
        message = Message.of(data, event=event, time=0.0)
        media = {"text": "text/plain; charset=utf-8", "bytes": "application/octet-stream"}
        return await self.request(
            "POST",
            path,
            data=message.payload,
            params={} if event == "message" else {"event": event},
            headers={"Content-Type": media.get(message.kind, "application/json"), **(headers or {})},
            timeout=timeout,
        )

    async def request(
        self, method: str, path: str, *, timeout: float | None = None, **options: Any
    ) -> Answer:
        """Any request, and its answer: the options are those of aiohttp's ``session.request``."""
        what = f"{method} {path}"
        shown = options.get("data", options.get("json"))
        self._record.add("http", f"> {what}" + ("" if shown is None else f" {shown!r}"))
        options = {"allow_redirects": False, **options}
        asking = self._ask(method, path, options)
        limit = self._timeout if timeout is None else timeout
        answer = await self.clock.within(asking, limit, f"{what}: no whole answer came")
        self._record.add("http", f"< {answer.status} {answer.text!r}")
        return answer

    async def _ask(self, method: str, path: str, options: dict[str, Any]) -> Answer:
        async with self._session.request(method, self.url(path), **options) as response:
            return Answer(response.status, await response.text(), response.headers)

    @contextmanager
    def expect_error(self, words: str) -> Iterator[None]:
        """An error with these words, in its text or its traceback, comes from here on and is wanted.

        Any other error in the server's log fails the test, and so does it if this never comes.
        """
        self._record.expected.append(Expected(words))
        yield


def _nearest(path: str, paths: Iterable[str]) -> str:
    """What to ask instead of a path that nobody serves."""
    shapes = {shape(one): one for one in paths}
    near = [f", did you mean {shapes[one]}?" for one in difflib.get_close_matches(path, shapes, 1)]
    return f"{''.join(near)}; there are: {', '.join(shapes.values()) or 'none'}"


class Serve:
    """What the fixture ``serve`` is: ``async with serve(config) as server: ...``

    ``config`` is YAML, which is dedented, or a dict; or the path of a file. Without ``server.listen``, and
    of a file always, it listens on a free port of 127.0.0.1. :exc:`realtime.ConfigError` says what is wrong
    with it, with file, line and column.

    ``files``: sources by their names, dedented, to stand in ``plugins/`` beside the config; with a slash in
    its name beside the config itself. The ``plugins/`` of the project, in pytest's rootdir or where it was
    started, are found, too.
    """

    def __init__(self, directory: Path, project: Path, record: Transcript) -> None:
        self._directory = directory
        self._project = project
        self._record = record

    @asynccontextmanager
    async def __call__(
        self,
        config: str | Mapping[str, Any] | Path,
        files: Mapping[str, str] | None = None,
        *,
        timeout: float = TIMEOUT,
    ) -> AsyncIterator[Harness]:
        """Start a server; it is stopped at the end. ``timeout`` is that of its clients, in seconds."""
        __tracebackhide__ = True
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "the server of realtime.testing needs asyncio, and no asyncio loop runs here; with anyio "
                'let the fixture anyio_backend return "asyncio", with pytest-asyncio mark the test'
            ) from None
        server = Server(self._config(config, files or {}))
        with self._record.listening(loop) as clock:
            server.load()
            server.bus.wall_time = clock.wall_time
            await clock.within(server.start(), START, "the server did not start")
            harness = Harness(server, clock, self._record, timeout, self._config)
            try:
                yield harness
            finally:
                await harness._session.close()
                await server.stop()
                if server.watchdog is not None:
                    server.watchdog.join(1.0)
        if self._record.clock is None:  # no other server of the test runs on
            self._record.check()

    def _config(self, config: str | Mapping[str, Any] | Path, files: Mapping[str, str]) -> Config:
        if isinstance(config, Path):
            return self._for_a_test(load(config).listening_on(ANYWHERE))
        text = textwrap.dedent(config) if isinstance(config, str) else yaml.safe_dump(dict(config))
        directory, own = self._directory, self._project / "plugins"
        (directory / "config.yaml").write_text(text)
        for name, source in files.items():
            target = directory / (name if "/" in name else f"plugins/{name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(textwrap.dedent(source))
        if own.is_dir() and own.resolve() != first_party():
            if not files:
                directory = self._project  # so they are shown, and stopped in, where they are
            else:
                for file in own.iterdir():
                    target = directory / "plugins" / file.name
                    if file.suffix in ("", ".py") and not target.exists():
                        target.parent.mkdir(exist_ok=True)
                        target.symlink_to(file)
        parsed = parse(text, Source("config.yaml", directory / "config.yaml"))
        if parsed.source.origin(("server", "listen")) == "default":
            parsed = parsed.listening_on(ANYWHERE)
        return self._for_a_test(parsed)

    def _for_a_test(self, config: Config) -> Config:
        """A test that has failed is not to wait for what does not end."""
        if config.source.origin(("server", "drain")) != "default":
            return config
        return replace(config, server=config.server.model_copy(update={"drain": DRAIN}))


@pytest.fixture
def serve(tmp_path: Path, request: pytest.FixtureRequest) -> Serve:
    """Start a real server from a config in the test: ``async with serve(config) as server: ...``"""
    record = request.node.stash[_TRANSCRIPT] = Transcript()
    roots = request.config.rootpath, request.config.invocation_params.dir
    project = next((root for root in roots if (root / "plugins").is_dir()), roots[0])
    return Serve(tmp_path, project, record)
