"""The docs: what they show runs, what they name exists, and what exists they name.

Every fenced block of a page is run, in the page's order, in one directory that is empty at first.
Its language and an HTML comment right above it say how; a reader of the page sees no comment.

``<!-- file: PATH -->``      The block is this file.
``<!-- same: FILE -->``      The block is a copy of this file beside the page.
``<!-- part: FILE -->``      The block stands in this file of the repository, indented or not.
``sh``, ``python``          These commands run and succeed; ``cd`` lasts.
``<!-- fails: CODE -->``     These commands end with this exit code.
``<!-- terminal: NAME -->``  These commands go on running in a terminal of this name. What ran in it
                            before is ended with Ctrl-C.
``<!-- type: NAME -->``      These lines are typed into this terminal.
``<!-- browser: URL -->``    This is pasted into the console of a browser that shows this URL.
``<!-- shows: NAME -->``     The terminal of this name now shows these lines.
``text``                    Without a comment: the output of the block above it.
``<!-- not run: WHY -->``    It is only to be read.

In expected output a number stands for any number, a position such as ``3f9a01c2-17`` for any
position, and ``…`` for anything. What a terminal shows may have other lines in between; a browser's
console shows its lines in any order.

A server listens on a port of its own: each ``8080`` is replaced by it, each ``8000`` by another for
what stands beside it, and each ``6379`` by one for a Redis.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import public
import pytest
from chromium import browser, tab
from command import PLAIN
from needs import curl, redis
from reference import API, WATCH, api, generated, metered, tables
from servers import closed_port
from tree import PLUGINS

import realtime
from realtime import Backoff, Connection
from realtime.bus import Bus
from realtime.channel import Channel, Client
from realtime.checks import HOOKS
from realtime.close_codes import CloseCode
from realtime.config import parse
from realtime.conformance import CHECKS
from realtime.exit_codes import ExitCode
from realtime.loader import build

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
REFERENCE = ROOT / "docs" / "reference"
#: The README has a test file of its own, which runs its blocks.
RUN_HERE = [page for page in PAGES if page.name != "README.md" and "```sh\n" in page.read_text()]
#: How long anything that a page shows may take, in seconds: far more than it does, on a busy machine too,
#: where trying a plugin out takes longest.
PATIENCE = 240.0

_BLOCK = re.compile(
    r"(?:^<!-- (?P<how>[a-z ]+)(?:: (?P<what>[^\n]+?))? -->\n+)?"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_LANGUAGES = {"sh", "text", "python", "yaml", "toml", "js", "ini", "nginx", "dockerfile", "caddyfile"}
_WAYS = {"file", "fails", "terminal", "type", "browser", "shows", "same", "part", "not run"}


def name_of(page: Path) -> str:
    """A page as messages call it."""
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and what the comment above it says."""

    place: str
    language: str
    text: str
    how: str
    what: str


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    source = page.read_text()
    for match in _BLOCK.finditer(source):
        line = source.count("\n", 0, match.start("text"))
        yield Block(
            f"{name_of(page)}:{line}",
            match["language"],
            match["text"],
            match["how"] or "",
            match["what"] or "",
        )


def pattern(line: str) -> re.Pattern[str]:
    """What a line of expected output stands for."""
    parts = re.split(r"([0-9a-f]{8,}-[0-9]+|[0-9]+|…)", line.rstrip())
    spelled = [
        ".*" if part == "…" else "[0-9a-f]{8,}-[0-9]+" if "-" in part else "[0-9]+" for part in parts[1::2]
    ]
    plain = [re.escape(part) for part in parts[::2]]
    return re.compile("".join(a + b for a, b in zip(plain, [*spelled, ""], strict=True)) + r"\s*")


class Terminal:
    """A command that goes on running, and what it has shown."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._seen = 0
        self.lines: list[str] = []

    async def more(self) -> bool:
        """Wait for its next line; False at its end."""
        assert self._process.stdout is not None
        raw = await self._process.stdout.readline()
        if raw:
            self.lines.append(raw.decode().rstrip("\r\n"))
        return bool(raw)

    async def ready(self) -> str:
        """Wait until it says that it is ready; the port that it listens on."""
        async with asyncio.timeout(PATIENCE):
            while await self.more():
                ready = re.fullmatch(r"ready on .*:(\d+)", self.lines[-1])
                if ready:
                    return ready[1]
        pytest.fail(f"the server ended: {self.lines}")

    async def says(self, word: str) -> None:
        """Wait until one of its lines has this word."""
        async with asyncio.timeout(PATIENCE):
            while await self.more():
                if word in self.lines[-1]:
                    return
        pytest.fail(f"it ended, and had shown: {self.lines}")

    async def shows(self, expected: str, place: str) -> None:
        """Wait until it has shown these lines, in this order, after those that it showed before."""
        before = self._seen
        for wanted in filter(str.strip, expected.splitlines()):
            try:
                async with asyncio.timeout(PATIENCE):
                    while not await self._next(pattern(wanted)):
                        pass
            except (TimeoutError, EOFError):
                pytest.fail(f"{place}: {wanted!r} was not shown, but {self.lines[before:]}")

    async def _next(self, wanted: re.Pattern[str]) -> bool:
        if self._seen == len(self.lines) and not await self.more():
            raise EOFError
        self._seen += 1
        return wanted.fullmatch(self.lines[self._seen - 1]) is not None

    async def type(self, text: str) -> None:
        """Type lines into it."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        await self._process.stdin.drain()

    async def end(self) -> None:
        """Press Ctrl-C unless it has ended, and wait for the end of it."""
        assert self._process.stdin is not None
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGINT)
        self._process.stdin.close()
        try:
            async with asyncio.timeout(PATIENCE):
                while await self.more():
                    pass
                await self._process.wait()
        except TimeoutError:
            os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
            pytest.fail(f"Ctrl-C did not end it; it had shown: {self.lines}")


class Reader:
    """Does what a page says, in an empty directory, as somebody would who follows it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "reader"
        self.directory.mkdir()
        #: Of the server, of what the reader runs beside it, and of a Redis.
        self.port, self.beside, self.redis = (str(closed_port()) for _ in range(3))
        self._terminals: dict[str, Terminal] = {}
        self._open_terminals = AsyncExitStack()
        installed = directory / "installed"
        (directory / ".curlrc").write_text("no-progress-meter\n")
        # What is installed to be edited is found by a file that only a directory for packages may have.
        (directory / "sitecustomize.py").write_text(f"import site\nsite.addsitedir({str(installed)!r})\n")
        self._environment = {
            **PLAIN,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{directory}:{installed}:{Path(realtime.__file__).parent.parent}",
            "CURL_HOME": str(directory),
            "PYTHONUNBUFFERED": "1",
            # Where pytest removes what it has left: two that do so in one place disturb each other.
            "PYTEST_DEBUG_TEMPROOT": str(directory.parent),
            # What is installed by a page goes nowhere else, and comes from no index.
            "PIP_TARGET": str(installed),
            "PIP_UPGRADE": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
        }
        self._output = ""
        self._shown_by: Terminal | None = None
        self._console: list[str] | None = None

    async def end(self) -> None:
        """Close every terminal, the newest first."""
        await self._open_terminals.aclose()

    async def follow(self, page: Path) -> None:
        """Do what the page says, block by block."""
        for block in blocks(page):
            await self.do(block)

    async def do(self, block: Block) -> None:
        """Do what one block says."""
        assert block.language in _LANGUAGES, f"{block.place}: a block of {block.language!r}"
        assert block.how in _WAYS or not block.how, f"{block.place}: <!-- {block.how} --> is not known"
        text = block.text.replace("8080", self.port).replace("8000", self.beside)
        text = text.replace("6379", self.redis)
        if block.language == "sh" and block.how != "not run":
            for program, needed in (("curl", curl), ("redis-server", redis)):
                if program in text:
                    needed()  # without it the test is skipped
        match block.how, block.language:
            case "not run", _:
                pass
            case "same", _:
                page, _, _ = block.place.rpartition(":")
                assert block.text == ((ROOT / page).parent / block.what).read_text(), block.place
            case "part", _:
                folder, _, name = block.what.partition("/")  # a wheel has its plugins elsewhere
                file = PLUGINS / name if folder == "plugins" else ROOT / block.what
                whole = file.read_text()
                indented = {textwrap.indent(block.text, " " * columns) for columns in (0, 4)}
                assert any(part in whole for part in indented), f"{block.place}: not in {block.what}"
            case "file", _:
                file = self.directory / block.what
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
            case "terminal", "sh":
                await self._open(block.what, text, block.place)
            case "type", "text":
                await self._terminals[block.what].type(text)
            case "shows", "text":
                await self._terminals[block.what].shows(text, block.place)
            case "browser", "js":
                await self._browse(block.what.replace("8080", self.port), text, block.place)
            case "", "python":
                await self._run(f"python - <<'END'\n{text}END", 0, block.place)
            case "fails" | "", "sh":
                await self._run(text, int(block.what or 0), block.place)
            case "", "text":
                await self._compare(text, block.place)
            case _:
                pytest.fail(f"{block.place}: nothing says what to do with this block")

    async def _start(self, command: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            "bash",
            "--norc",  # which it would read, as it takes our socket for somebody from the network
            "-ec",
            command,
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches all that the command has started
        )

    async def _open(self, name: str, command: str, place: str) -> None:
        if name in self._terminals:
            await self._terminals.pop(name).end()
        serves = re.search(r"-m realtime( serve --reload)?$", command.rstrip())
        if serves:
            command = f"{command.rstrip()} --listen 127.0.0.1:0"
        terminal = self._terminals[name] = Terminal(await self._start(command))
        self._open_terminals.push_async_callback(terminal.end)
        self._shown_by, self._console = terminal, None
        if serves:
            self.port = await terminal.ready()
        elif self.beside in command and " connect " not in command:
            await terminal.says(self.beside)
        else:  # who reads the page sees what it shows before going on
            async with asyncio.timeout(PATIENCE):
                await terminal.more()

    async def _run(self, commands: str, code: int, place: str) -> None:
        where = self.directory.parent / "where"
        process = await self._start(f"{commands}\npwd > '{where}'")
        try:
            async with asyncio.timeout(PATIENCE):
                output, _ = await process.communicate()
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.communicate()
            pytest.fail(f"{place}: it did not end: {commands}")
        self._output, self._shown_by, self._console = output.decode(), None, None
        assert process.returncode == code, f"{place}: exit code {process.returncode}: {self._output}"
        if code == 0:
            self.directory = Path(where.read_text().strip())

    async def _compare(self, expected: str, place: str) -> None:
        if self._console is not None:
            for line in expected.splitlines():
                found = [shown for shown in self._console if pattern(line).fullmatch(shown)]
                assert found, f"{place}: the console does not show {line!r}: {self._console}"
        elif self._shown_by is not None:
            await self._shown_by.shows(expected, place)
        else:
            wanted, shown = expected.rstrip().splitlines(), self._output.rstrip().splitlines()
            same = len(wanted) == len(shown) and all(
                pattern(line).fullmatch(other) for line, other in zip(wanted, shown, strict=True)
            )
            assert same, f"{place}: expected {wanted}, but it was {shown}"

    async def _browse(self, url: str, script: str, place: str) -> None:
        shown: asyncio.Queue[str] = asyncio.Queue()
        async with browser() as chromium, tab(chromium, url) as page:
            page.on("console", lambda message: shown.put_nowait(message.text))
            # As the console does it: `const` at the top level, and no wrapping function.
            tools = await page.context.new_cdp_session(page)
            result = await tools.send("Runtime.evaluate", {"expression": script, "replMode": True})
            assert "exceptionDetails" not in result, f"{place}: {result}"
            self._console, self._shown_by = [], None
            wanted = self._lines_after(place)
            try:
                async with asyncio.timeout(PATIENCE):
                    while not all(any(p.fullmatch(line) for line in self._console) for p in wanted):
                        self._console.append(await shown.get())
            except TimeoutError:
                pytest.fail(f"{place}: the console shows only {self._console}")

    def _lines_after(self, place: str) -> list[re.Pattern[str]]:
        page, _, _ = place.rpartition(":")
        after = list(blocks(ROOT / page))
        index = next(i for i, block in enumerate(after) if block.place == place)
        return [pattern(line) for line in after[index + 1].text.splitlines()]


@asynccontextmanager
async def reader_in(directory: Path) -> AsyncIterator[Reader]:
    """A reader, and an end to whatever it left running."""
    reader = Reader(directory)
    try:
        yield reader
    finally:
        await reader.end()


def words_in(text: str) -> set[str]:
    """The words of a text that are set as code."""
    return {word for code in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"\w+", code)}


def rows(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    section = f"\n{page.read_text()}".partition(f"\n{heading}\n")[2]
    assert section, f"{name_of(page)} has no {heading!r}"
    table = re.search(r"(?:^\|.*\n)+", re.split(r"\n##? ", section)[0], re.MULTILINE)
    assert table, f"{name_of(page)} has no table under {heading!r}"
    lines = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in table[0].splitlines()]
    return [[cell.strip() for cell in line] for line in lines[2:]]


def slug(heading: str) -> str:
    """The anchor of a heading."""
    plain = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower())
    return plain.strip().replace(" ", "-")


def without_blocks(page: Path) -> str:
    """What a page says outside of its blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


# What the pages show


@pytest.mark.parametrize("page", RUN_HERE, ids=name_of)
async def test_blocks_run(page: Path, tmp_path: Path) -> None:
    """Every block of a page does what the page says."""
    async with reader_in(tmp_path) as reader:
        await reader.follow(page)


def test_python_is_typed(tmp_path: Path) -> None:
    """Every Python block passes ``mypy --strict``."""
    places: dict[str, str] = {}
    for page in PAGES:
        for block in blocks(page):
            if block.language == "python" and block.how not in ("not run", "part"):
                file = tmp_path / f"block_{len(places)}.py"
                file.write_text(block.text)
                places[file.name] = block.place
                if block.how == "file" and "/" not in block.what:  # others of the page import it
                    (tmp_path / block.what).write_text(block.text)
    package = Path(realtime.__file__).parent.parent
    environment = dict(os.environ)
    if package.name != "site-packages":  # mypy finds what is installed by itself
        environment["MYPYPATH"] = str(package)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file=", *places],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    output = re.sub(r"^block_\d+\.py", lambda name: places[name[0]], done.stdout, flags=re.MULTILINE)
    assert done.returncode == 0, output + done.stderr


async def test_config_example() -> None:
    """The examples of the page of the config are configs that a server takes."""
    examples = [block for block in blocks(REFERENCE / "config.md") if block.language == "yaml"]
    built = [build(parse(example.text), Bus()) for example in examples]
    assert built
    assert all(one.channels and not one.problems for one in built)


# What the pages name


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "examples").rglob("*.md"))], ids=name_of)
def test_links(page: Path) -> None:
    """Every relative link leads to a file, and its anchor to a heading of it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name_of(page)}: there is no {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", without_blocks(file), re.MULTILINE)
            assert anchor in map(slug, headings), f"{name_of(page)}: {target} has no such heading"


def test_index_lists_the_pages() -> None:
    """The index links to every page of the docs."""
    index = ROOT / "docs" / "index.md"
    linked = {
        (index.parent / link).resolve() for link in re.findall(r"\]\(([^)#\s]+)\)", index.read_text())
    }
    assert {page for page in PAGES if "docs" in page.parts and page != index} <= linked


@pytest.mark.parametrize("hook", sorted(HOOKS))
def test_hooks_are_documented(hook: str) -> None:
    """The page of the hooks has a heading for each hook, which names its arguments."""
    arguments = ", ".join(HOOKS[hook].__code__.co_varnames[: HOOKS[hook].__code__.co_argcount])
    assert f"\n## `{hook}({arguments})`\n" in (REFERENCE / "hooks.md").read_text()


def test_hooks_of_the_page_exist() -> None:
    """Each heading of the page of the hooks that looks like a hook is one."""
    named = re.findall(r"^## `(\w+)\(", (REFERENCE / "hooks.md").read_text(), re.MULTILINE)
    assert set(named) == set(HOOKS)


@pytest.mark.parametrize("name", realtime.__all__)
def test_public_names_are_documented(name: str) -> None:
    """The reference names everything that ``realtime`` exports."""
    assert any(name in words_in(page.read_text()) for page in REFERENCE.glob("*.md"))


@pytest.mark.parametrize("kind", [Channel, Client], ids=lambda kind: kind.__name__)
def test_members_are_documented(kind: type) -> None:
    """The page of the channel names each public attribute and method of Channel and Client."""
    members = {name for name in vars(kind) if not name.startswith("_")}
    members -= {"joined", "left", "methods", "respond", "serve_with", "url_on"}  # the host calls these
    assert members <= words_in((REFERENCE / "channel.md").read_text())


def test_bus_is_documented() -> None:
    """The page of the bus names what plugins may use of the bus, a topic and a message."""
    used = {"publish", "publish_threadsafe", "subscribe", "observe", "topic", "topics", "size", "counters"}
    used |= {"position", "history", "members", "subscribers", "epoch", "offset", "parse"}
    used |= {"event", "kind", "data", "payload", "time", "id", "exclude"}
    used |= {"open", "once", "shared", "claim", "holder", "release", "here", "opened", "about"}
    assert used <= words_in((REFERENCE / "bus.md").read_text())


def test_client_is_documented() -> None:
    """The page of the client names each parameter, attribute and error, and the default of each."""
    page = REFERENCE / "client.md"
    parameters = inspect.signature(Connection.__init__).parameters
    assert [row[0].strip("`") for row in rows(page, "## `connect(url, …)`")] == list(parameters)[1:]
    fields = {field.name for field in dataclasses.fields(Backoff)}
    attributes = {name for name in vars(Connection("ws://h")) if not name.startswith("_")}
    attributes |= {name for name in vars(Connection) if not name.startswith("_")}
    errors = {"code", "reason", "status", "body", "retry_after", "comes_back"}
    assert fields | attributes | errors <= words_in(page.read_text())


# The config


def test_config_is_documented_from_its_models() -> None:
    """The tables of the page of the config are those that ``tests/reference.py`` writes from the models."""
    page = REFERENCE / "config.md"
    assert page.read_text() == generated(page.read_text()), "python tests/reference.py writes them anew"


def test_every_metric_is_documented() -> None:
    """The table of metrics is that which ``tests/reference.py`` writes from the code."""
    assert WATCH.read_text() == metered(WATCH.read_text()), "python tests/reference.py writes it anew"


def test_every_model_has_its_table() -> None:
    """Every model of the config has its table on the page."""
    named = set(re.findall("<!-- keys of (.+) -->", (REFERENCE / "config.md").read_text()))
    assert named == {name for name, table in tables().items() if table}


def test_api_is_documented_from_its_docstrings() -> None:
    """The page of the API is what ``tests/reference.py`` writes from docstrings and signatures."""
    assert API.read_text() == api(), "python tests/reference.py writes it anew"


@pytest.mark.parametrize("name", [name for name, _ in public.names() if "." not in name])
def test_api_has_every_name(name: str) -> None:
    """Every exported name has its heading on the page of the API, and something is said of it."""
    section = API.read_text().partition(f"\n### `{name}`\n")[2].partition("\n### ")[0]
    assert re.search(r"(?m)^[A-Z_].*\.$", section)


# The command line


def run_help(*command: str) -> str:
    """What ``--help`` of a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "realtime", *command, "--help"],
        env={**os.environ, "PYTHONPATH": str(Path(realtime.__file__).parent.parent), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout


def options(text: str) -> set[str]:
    """The long options that a text names."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) - {"--help"}


def test_commands_are_documented() -> None:
    """The page of the command line has a section for each command of ``--help``, and no other."""
    listed = set(re.findall(r"^    ([a-z-]+) ", run_help(), re.MULTILINE))
    page = (REFERENCE / "command-line.md").read_text()
    assert set(re.findall(r"^## `([a-z-]+)\b", page, re.MULTILINE)) == listed


@pytest.mark.parametrize("command", re.findall(r"^    ([a-z-]+) ", run_help(), re.MULTILINE))
def test_options_are_documented(command: str) -> None:
    """A command's section has a row for each option of its ``--help``, and no other."""
    text = run_help(command).partition("\nexample")[0]
    page = (REFERENCE / "command-line.md").read_text()
    heading = re.search(rf"^## `{command}\b.*$", page, re.MULTILINE)
    assert heading
    named = {
        option for row in rows(REFERENCE / "command-line.md", heading[0]) for option in options(row[0])
    }
    assert named == options(text)


@pytest.mark.parametrize("command", ["plugins show", "plugins test"])
def test_options_below_a_command_are_documented(command: str) -> None:
    """What is done with one plugin has a row for each option of its ``--help``, and no other."""
    text = run_help(*command.split()).partition("\nexample")[0]
    found = rows(REFERENCE / "command-line.md", f"### `{command} NAME`")
    assert {option for row in found for option in options(row[0])} == options(text)


def test_checks_are_documented() -> None:
    """The table of the checks of ``plugins test`` has each of them, in order."""
    table = rows(ROOT / "docs" / "how-to" / "check-a-plugin.md", "## What is done")
    named = [name for row in table for name in re.findall("`([a-z-]+)`", row[0])]
    assert named == ["starts", *CHECKS]


def test_exit_codes_are_documented() -> None:
    """The table of the exit codes has each of them once."""
    named = [int(row[0].strip("`")) for row in rows(REFERENCE / "command-line.md", "## Exit codes")]
    assert named == list(ExitCode)


# The close codes


def test_close_codes_are_documented() -> None:
    """The table of the close codes has each code, under its name, in order."""
    table = rows(REFERENCE / "close-codes.md", "# Close codes")
    assert [(int(row[0]), row[1].strip("`")) for row in table] == [
        (code.value, code.name) for code in CloseCode
    ]


def test_close_codes_say_who_comes_back() -> None:
    """The table says that a client reconnects exactly where the code says that it comes back."""
    table = rows(REFERENCE / "close-codes.md", "# Close codes")
    said = {int(row[0]): row[-1].startswith("reconnects") for row in table}
    assert said == {code.value: code.comes_back for code in CloseCode}
