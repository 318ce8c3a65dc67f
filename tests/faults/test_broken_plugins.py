"""Plugins that fail, hang, block or flood: they cannot hurt their neighbours."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import resource
import signal
import textwrap
import threading
import urllib.parse
from contextlib import suppress
from pathlib import Path

import command
import pytest
import wire
from conftest import Serve, make
from test_serving import Start, start
from timing import now

from faults.catalogue import fault
from faults.conftest import Calm
from realtime import auth, logs, modules
from realtime.errors import ConfigError

__all__ = ["start"]

V1 = "realtime.v1.json"
#: Where the bugs of the channel are logged.
CHANNEL = ("realtime.channel.bad",)
OVERDUE = "the channel took longer than 0.05s (handler_timeout)"
WATCHED = 'server: {listen: ["127.0.0.1:0"], watchdog: 100ms}\nchannels:\n  '
OFFER = """
@hookimpl
def register_channels():
    return {"bad": Bad}
"""


def plugin(body: str, *, head: str = "") -> dict[str, str]:
    """The plugin ``bad``, whose channel type has this body."""
    lines = textwrap.indent(textwrap.dedent(body), "    ")
    head = f"import asyncio\nimport time\nfrom realtime import *\nfrom realtime import hookimpl\n{head}\n"
    return {"bad.py": f"{head}\nclass Bad(Channel):\n{lines}\n{OFFER}"}


def config(more: str = "") -> str:
    """A config with the channel."""
    return f"bad: {{plugin: bad, path: /bad{more}}}\n"


# 111: what cannot be loaded

IMPORTS = {
    "a module that is not there": (
        "import no_such_module",
        "ModuleNotFoundError: No module named 'no_such",
    ),
    "a name that is not there": ("from realtime import Chanel", "ImportError: cannot import name 'Chanel'"),
    "no Python": ("def broken(:\n    pass", "SyntaxError"),
    "an error": ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
    "an exit": ("import sys\nsys.exit(0)", "SystemExit: 0"),
    "no end": ("def f(): f()\nf()", "RecursionError"),
    "an error that cannot be shown": (
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
        "bad: E",
    ),
    "no plugin": ("x = 1", "offers no channel type of that name"),
    "no channel type": (f"from realtime import hookimpl\nBad = dict\n{OFFER}", "is no subclass of Channel"),
    "a hook that is none": (
        "from realtime import hookimpl\n@hookimpl\ndef register_chanels(): pass",
        "register_chanels is no hook, did you mean 'register_channels'?",
    ),
    "an argument that is none": (
        "from realtime import hookimpl\n@hookimpl\ndef register_routes(buss): pass",
        "takes 'buss', which this hook does not have, did you mean 'bus'?",
    ),
    "a hook that raises": (
        "from realtime import hookimpl\n@hookimpl\ndef register_channels(): raise SystemExit",
        "register_channels(): SystemExit",
    ),
    "a method that is none": (
        plugin("async def on_mesage(self, client, message): pass")["bad.py"],
        "on_mesage is no method of a channel, did you mean 'on_message'?",
    ),
    "a channel that cannot be made": (
        plugin("def __init__(self, *args): raise OSError('no device')")["bad.py"],
        "OSError: no device",
    ),
}


@fault(111)
@pytest.mark.parametrize("what", IMPORTS)
async def test_plugin_that_cannot_be_loaded(tmp_path: Path, what: str) -> None:
    """Its problem is told in one place with its own lines only, and so is its neighbour's."""
    source, said = IMPORTS[what]
    text = f"channels:\n  {config()}  other: {{plugin: other, path: /other}}\n"
    server = make(tmp_path, text, {"bad.py": source, "other.py": "raise RuntimeError('the other')"})
    with pytest.raises(ConfigError) as caught:
        server.load()
    first, second = map(str, caught.value.problems)
    assert said in first
    assert first.startswith("config.yaml:")
    assert "bad" in first
    assert "the other" in second
    frames = re.findall(r"\n +(\S+):\d+: ", first)
    assert {Path(frame).parent for frame in frames} <= {tmp_path / "plugins"}


@fault(111)
def test_exit_code_of_a_broken_plugin(tmp_path: Path) -> None:
    """A plugin that cannot be imported is exit code 1, without a traceback of ours."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "bad.py").write_text("import no_such_module\n")
    (tmp_path / "config.yaml").write_text(f"channels:\n  {config()}")
    for arguments in ((), ("check",)):
        ended = command.run(tmp_path, *arguments)
        assert ended.returncode == 1
        assert "ModuleNotFoundError: No module named 'no_such_module'" in ended.stdout + ended.stderr
        assert "Traceback" not in ended.stdout + ended.stderr


@fault(111)
async def test_import_that_hangs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while the log says which plugin is still being imported, and where that is."""
    monkeypatch.setattr(modules, "SLOW_IMPORT", 0.02)
    there = threading.Event()

    class Later(threading.Timer):
        """It is late when the import has come to its second line, and not before."""

        def run(self) -> None:
            there.wait(8)
            super().run()

    monkeypatch.setattr("threading.Timer", Later)
    monkeypatch.setattr("sys.there", there, raising=False)
    monkeypatch.setattr("sys.wait_for_the_log", threading.Event(), raising=False)
    source = {"bad.py": "import sys\nsys.there.set() or sys.wait_for_the_log.wait(8)\n"}
    server = make(tmp_path, f"channels:\n  {config()}", source)

    class Told(logging.Handler):
        said = ""

        def emit(self, record: logging.LogRecord) -> None:
            self.said = record.getMessage()
            getattr(__import__("sys"), "wait_for_the_log").set()  # noqa: B009  # mypy knows no such thing

    logger, told = logging.getLogger("realtime.loader"), Told()
    logger.addHandler(told)
    try:
        with pytest.raises(ConfigError):
            server.load()
    finally:
        logger.removeHandler(told)
    assert re.search(r"plugin 'bad' is still being imported after .*, in \S+bad.py:2: sys", told.said)


@fault(111)
async def test_import_that_hangs_ends_with_ctrl_c(tmp_path: Path, start: Start) -> None:
    """Ctrl-C ends a server that waits for an import."""
    source = "import sys, time\nprint('importing', file=sys.stderr, flush=True)\ntime.sleep(1000)\n"
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "bad.py").write_text(source)
    (tmp_path / "config.yaml").write_text(f"channels:\n  {config()}")
    async with start() as server:
        await server.until("importing")
        assert await server.end(signal.SIGINT) == 0
    assert "Traceback" not in server.said


# 112: what raises

RAISED = [
    "Exception('no')",
    "RecursionError",
    "MemoryError",
    "SystemExit",
    "SystemExit(3)",
    "asyncio.CancelledError",
    "GeneratorExit",
    "StopIteration",
    "StopAsyncIteration",
    "BaseException",
    "ExceptionGroup('no', [OSError()])",
    "BaseExceptionGroup('no', [SystemExit(), asyncio.CancelledError()])",
    "Unspeakable",
]
HOOKS = ["on_connect", "on_join", "on_message", "on_leave", "member"]
RAISING = """
async def on_connect(self, client):
    await self.go("on_connect", client)

async def on_join(self, client):
    await self.go("on_join", client)

async def on_message(self, client, message):
    await self.go("on_message", client)
    await client.send("heard")

async def on_leave(self, client):
    await self.go("on_leave", client)

def member(self, client):
    if client.query.get("hook") == "member":
        raise eval(client.query["raised"])
    return {}

async def go(self, hook, client):
    if client.query.get("hook") == hook:
        if client.query["when"] == "later":
            await asyncio.sleep(0)
        raise eval(client.query["raised"])

transports = ("websocket", "sse", "post")
"""
UNSPEAKABLE = """
class Unspeakable(Exception):
    def __str__(self):
        raise ValueError
    __repr__ = __str__
"""


def query(**values: str) -> str:
    """A query, encoded."""
    return urllib.parse.urlencode(values)


def tracebacks(caplog: pytest.LogCaptureFixture) -> int:
    """How many errors the log has with a traceback; they are forgotten."""
    count = sum(record.exc_info is not None for record in caplog.records)
    caplog.clear()
    return count


@fault(112)
@pytest.mark.parametrize("when", ["now", "later"])
@pytest.mark.parametrize("hook", HOOKS)
async def test_method_that_raises(
    calm: Calm, hook: str, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a method raises, that client is closed with 1011 and there is one traceback."""
    async with calm(config(", presence: list"), plugin(RAISING, head=UNSPEAKABLE)) as serving:
        for raised in RAISED:
            wanted = f"/bad?{query(hook=hook, raised=raised, when=when)}"
            async with wire.websocket(serving.port, wanted) as client:
                if hook in ("on_message", "on_leave"):
                    await client.send(wire.text("x"))
                if hook == "on_leave":
                    assert await client.text() == "heard"
                    await client.send(wire.close(1000))
                assert await client.close_code() == (1000 if hook == "on_leave" else 1011), raised
            await wire.eventually(lambda: not serving.server.channels["bad"].clients)
            await wire.eventually(lambda: bool(caplog.records))
            assert "plugin 'bad'" in caplog.text or hook == "on_leave"
            assert tracebacks(caplog) == 1, raised


@fault(112)
async def test_post_that_raises(calm: Calm, caplog: pytest.LogCaptureFixture) -> None:
    """A POST whose hearing raises anything is 500, and the next one is heard."""
    async with calm(config(), plugin(RAISING, head=UNSPEAKABLE)) as serving:
        for raised in RAISED:
            path = f"/bad?{query(hook='on_message', raised=raised, when='now')}"
            head, body = await wire.post(serving.port, path, b"x")
            assert (head.status, body) == (500, "the channel has a bug\n"), raised
            assert tracebacks(caplog) == 1, raised
        assert (await wire.post(serving.port, "/bad", b"x"))[0].status == 202


ROUTES = """
from aiohttp import web

@hookimpl
def register_routes(bus):
    async def fail(request):
        raise eval(request.query["raised"])
    async def fine(request):
        return web.Response(text="fine")
    return [web.get("/fail", fail), web.get("/fine", fine)]

@hookimpl
def authenticate(request):
    if "authenticate" in request.query:
        raise eval(request.query["raised"])
    async def later():
        if "later" in request.query:
            raise eval(request.query["raised"])
    return later()
"""


@fault(112)
@pytest.mark.parametrize("path", ["/fail?x=", "/t?authenticate", "/t?later"])
async def test_route_or_authentication_that_raises(
    calm: Calm, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a route or ``authenticate`` raises, that request is 500, and the log names the plugin."""
    files = {"bad.py": f"import asyncio\nfrom realtime import hookimpl\n{UNSPEAKABLE}{ROUTES}"}
    async with calm("plugins: [bad]\nchannels:\n  t: {plugin: topics, path: /t}\n", files) as serving:
        for raised in RAISED:
            head, _ = await wire.ask(serving.port, f"{path}&{query(raised=raised)}")
            assert head.status == 500, raised
            assert "plugin 'bad'" in caplog.text or "plugin:bad" in caplog.text
            assert tracebacks(caplog) == 1, raised
        assert (await wire.ask(serving.port, "/fine"))[1] == "fine"


@fault(112)
async def test_later_plugins_are_still_called(serve: Serve) -> None:
    """A service that fails while the server runs takes no other with it."""
    service = """
        from contextlib import asynccontextmanager
        from realtime import hookimpl
        SEEN = []

        @asynccontextmanager
        async def service(bus):
            SEEN.append("in")
            yield
            SEEN.append("out")
            {raises}

        @hookimpl
        def register_services(bus):
            return [service(bus)]
    """
    ends = {"a": "", "b": "raise SystemExit"}
    files = {f"{name}.py": service.format(raises=raises) for name, raises in ends.items()}
    async with serve("plugins: [a, b]", files) as serving:
        modules = [serving.server.plugins.manager.get_plugin(f"plugin:{name}") for name in "ab"]
        assert [module.SEEN for module in modules] == [["in"], ["in"]]  # type: ignore[union-attr]
    assert [module.SEEN for module in modules] == [["in", "out"]] * 2  # type: ignore[union-attr]


@fault(112)
async def test_bug_that_is_met_all_the_time(calm: Calm, caplog: pytest.LogCaptureFixture) -> None:
    """A bug that a thousand messages meet is one traceback a second and place, with their number."""
    repeats, shown = logs._Repeats(), []
    async with calm(config(), plugin(RAISING)) as serving:
        path = f"/bad?{query(hook='on_message', raised='OSError', when='now')}"
        for _ in range(50):
            await wire.post(serving.port, path, b"x")
        records = [record for record in caplog.records if record.exc_info]
        caplog.clear()
    for number, record in enumerate(records):
        record.created = records[0].created + number / 100  # however long it took
    records.append(logging.makeLogRecord({**records[0].__dict__, "created": records[0].created + 1.5}))
    shown = [logs.TextLines().format(record) for record in records if repeats.filter(record)]
    assert len(records) == 51
    assert len(shown) == 2
    assert re.search(r"a bug of plugin 'bad' fails .* \(and \d+ like it before\)", shown[-1])


# 113: what hangs, blocks, dies or does not end

HANGING = """
transports = ("websocket", "sse", "ndjson", "post")

async def on_connect(self, client):
    await self.go("on_connect", client)

async def on_join(self, client):
    await self.go("on_join", client)

async def on_message(self, client, message):
    if message.data == "quick":
        return
    await self.go("on_message", client)

async def on_leave(self, client):
    self.log.info("on_leave ran")

async def go(self, hook, client):
    if client.query.get("hook") == hook:
        await self.hang(client)

async def hang(self, client):
    way = client.query["way"]
    if way == "turn":
        await asyncio.sleep(0)
    if way == "swallow":
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return
    if way == "group":
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(1000))
    await asyncio.Event().wait()
"""


@fault(113)
@pytest.mark.parametrize("way", ["wait", "turn", "swallow", "group"])
@pytest.mark.parametrize("hook", ["on_connect", "on_join", "on_message"])
async def test_method_that_hangs(calm: Calm, hook: str, way: str, caplog: pytest.LogCaptureFixture) -> None:
    """After ``handler_timeout`` its client is closed with 1011, and the log says which method waits."""
    caplog.set_level("INFO")
    async with calm(config(", handler_timeout: 50ms"), plugin(HANGING), noisy=CHANNEL) as serving:
        async with wire.websocket(serving.port, f"/bad?{query(hook=hook, way=way)}") as client:
            if hook == "on_message":
                await client.send(wire.text("x"))
            frame = await client.frame()
            assert (frame.code, frame.reason) == (1011, OVERDUE)
        await wire.eventually(lambda: "left after" in caplog.text)
    told = f"{hook} of <Client c2 - on bad by websocket> did not end within 0.05s (handler_timeout)"
    assert f"{told} and is cancelled, in " in caplog.text
    assert re.search(
        r"bad.py:\d+: (await asyncio.Event\(\).wait|async with asyncio.TaskGroup)", caplog.text
    )
    assert ("on_leave ran" in caplog.text) == (hook != "on_connect")
    assert "Traceback" not in caplog.text


@fault(113)
async def test_stream_whose_join_hangs(calm: Calm, caplog: pytest.LogCaptureFixture) -> None:
    """An event stream is told in its last event."""
    wanted = f"/bad?{query(hook='on_join', way='wait')}"
    async with (
        calm(config(", handler_timeout: 50ms"), plugin(HANGING), noisy=CHANNEL) as serving,
        wire.stream(serving.port, wanted) as reader,
    ):
        bye = await reader.event()
    assert bye["event"] == "realtime:bye"
    assert OVERDUE in bye["data"]


@fault(113)
async def test_post_that_hangs(calm: Calm, caplog: pytest.LogCaptureFixture) -> None:
    """A POST whose hearing hangs is 500 after ``handler_timeout``, and its traceback says where."""
    async with calm(config(", handler_timeout: 50ms"), plugin(HANGING), noisy=CHANNEL) as serving:
        head, body = await wire.post(serving.port, f"/bad?{query(hook='on_message', way='wait')}", b"x")
        assert (head.status, body) == (500, f"{OVERDUE}\n")
    assert "await asyncio.Event().wait()" in caplog.text


@fault(113)
async def test_messages_that_take_long_together(calm: Calm) -> None:
    """The time is that of each message: a client that keeps its channel at work is not closed."""
    slow = """
    async def on_message(self, client, message):
        await asyncio.sleep(0.03)
        await client.send("heard")
    """
    async with (
        calm(config(", handler_timeout: 150ms"), plugin(slow)) as serving,
        wire.websocket(serving.port, "/bad") as client,
    ):
        await client.send(wire.text("x") * 10)
        for _ in range(10):
            assert await client.text() == "heard"


@fault(113)
async def test_silent_client_is_no_hang(calm: Calm) -> None:
    """A method that waits for its client is not at fault: in ``on_connect`` it is closed with 1008."""
    waiting = """
    async def on_connect(self, client):
        if client.query:
            await client.receive()

    async def on_message(self, client, message):
        await client.send("and?")
        await client.send((await client.receive()).data)
    """
    async with (
        calm(config(", handler_timeout: 50ms"), plugin(waiting)) as serving,
        wire.websocket(serving.port, "/bad") as talking,
        wire.websocket(serving.port, "/bad?greet=1") as silent,
    ):
        await talking.send(wire.text("x"))
        assert await talking.text() == "and?"
        frame = await silent.frame()
        assert (frame.code, frame.reason) == (1008, "said nothing within 0.05s (handler_timeout)")
        await talking.send(wire.text("this"))
        assert await talking.text() == "this"


@fault(113)
async def test_authentication_that_hangs(
    calm: Calm, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An ``authenticate`` that does not answer is 500 after a while, and the log names the plugin."""
    monkeypatch.setattr(auth, "AUTHENTICATION", 0.05)
    source = """
    import asyncio
    from realtime import hookimpl

    @hookimpl
    async def authenticate(request):
        if "hang" in request.query:
            await asyncio.Event().wait()
    """
    channels = "plugins: [bad]\nchannels:\n  t: {plugin: topics, path: /t}\n"
    async with calm(channels, {"bad.py": source}, noisy=("realtime.auth",)) as serving:
        assert (await wire.ask(serving.port, "/t?hang=1"))[0].status == 500
    assert "authenticate of plugin 'bad' failed" in caplog.text


BLOCKING = """
async def on_message(self, client, message):
    began = time.monotonic()
    if message.data == "sleep":
        time.sleep(0.2)
    while message.data == "spin" and time.monotonic() < began + 0.2:
        pass
    while message.data == "regex" and time.monotonic() < began + 0.3:
        re.match("(a+)+b", "a" * 20)  # some 0.1s each, and nobody else runs meanwhile
    await client.send(message.data)

def as_text(self, message):
    if message.data == "show":
        time.sleep(0.2)
    return message.data
"""


@fault(113)
@pytest.mark.alone
@pytest.mark.parametrize("way", ["sleep", "spin", "regex", "show"])
async def test_plugin_that_blocks(calm: Calm, way: str, caplog: pytest.LogCaptureFixture) -> None:
    """What holds the event loop is told in one warning: for how long, by which plugin, where."""
    async with calm(WATCHED + config(), plugin(BLOCKING, head="import re")) as serving:
        async with wire.websocket(serving.port, "/bad") as client:
            caplog.clear()
            for _ in range(9):  # a machine that has no time for the watchdog either hears nothing of it
                await client.send(wire.text(way))
                assert await client.text() == way
                with suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await wire.eventually(lambda: "bad.py" in caplog.text)
                    break
        watchdog = serving.server.watchdog
        assert watchdog is not None
        assert watchdog.holds >= 1
        assert watchdog.longest >= 0.15
    records = [record for record in caplog.records if "bad.py" in record.getMessage()]
    assert len(records) == 1 or way == "regex", caplog.text  # of which there may be several
    said = r"the event loop was held for \d\.\d\ds by channel 'bad', plugin 'bad', in \S+bad.py:\d+: "
    if way != "show":
        assert re.match(said, records[0].getMessage())
    assert all("bad.py" in line for line in records[0].__dict__["stack"])


@fault(113)
async def test_background_task_that_dies(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A task of a lifespan's group that dies is told at once, with the channel, and ready turns red."""
    dying = """
    @asynccontextmanager
    async def lifespan(self):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.tick())
            yield

    async def tick(self):
        await asyncio.sleep(0)
        await self.go.wait()
        raise ZeroDivisionError("the tick")

    go = asyncio.Event()
    """
    head = "from contextlib import asynccontextmanager"
    async with serve(f"channels:\n  {config()}", plugin(dying, head=head)) as serving:
        assert (await wire.ask(serving.port, "/-/ready"))[0].status == 200
        serving.server.channels["bad"].go.set()  # type: ignore[attr-defined]
        await wire.eventually(lambda: bool(serving.server.lifespans.dead))
        head_, body = await wire.ask(serving.port, "/-/ready")
        assert (head_.status, "channel 'bad'" in body) == (503, True)
        assert (await wire.ask(serving.port, "/-/live"))[0].status == 200
    assert "the lifespan of channel:bad failed" in caplog.text
    assert "ZeroDivisionError: the tick" in caplog.text


@fault(113)
async def test_task_that_nobody_waits_for(calm: Calm, caplog: pytest.LogCaptureFixture) -> None:
    """A bare task that dies is told when it is forgotten, with the plugin's file."""
    bare = """
    async def on_message(self, client, message):
        asyncio.create_task(self.die(), name="the bare one")
        await asyncio.sleep(0)
        await client.send("sent")

    async def die(self):
        raise ZeroDivisionError
    """
    async with calm(config(), plugin(bare), noisy=("asyncio",)) as serving:
        async with wire.websocket(serving.port, "/bad") as client:
            await client.send(wire.text("x"))
            assert await client.text() == "sent"
        gc.collect()
        assert "Task exception was never retrieved" in caplog.text
        assert "name='the bare one'" in caplog.text
        assert "bad.py" in caplog.text


ENDLESS = """
async def on_join(self, client):
    way = client.query["way"]
    self.task = asyncio.create_task(self.run(way), name="the endless one")
    self.file = open(__file__)

async def run(self, way):
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            if way == "ends":
                raise
"""


@fault(113)
@pytest.mark.parametrize("way", ["ends", "swallows"])
async def test_task_that_does_not_end(tmp_path: Path, start: Start, way: str) -> None:
    """What still runs after the shutdown is named with its place, cancelled, and the exit is on time."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "bad.py").write_text(plugin(ENDLESS)["bad.py"])
    (tmp_path / "config.yaml").write_text(f'server: {{listen: ["127.0.0.1:0"]}}\nchannels:\n  {config()}')
    async with start() as server:
        port = int((await server.ready()).rpartition(":")[2])
        async with wire.stream(port, f"/bad?way={way}"):
            assert await server.end(signal.SIGTERM) == 0
    assert re.search(
        r"task 'the endless one' in \S+bad.py:\d+: await asyncio.sleep\(1000\) runs on", server.said
    )
    ended = "ended, although this would not: task 'the endless one' in "
    assert (ended in server.said) == (way == "swallows")


@fault(113)
async def test_file_that_is_left_open(tmp_path: Path, start: Start) -> None:
    """A file that a plugin opens and forgets is a warning in the log."""
    forgetful = """
    async def on_message(self, client, message):
        open(__file__)
        await client.send("x")
    """
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "bad.py").write_text(plugin(forgetful)["bad.py"])
    (tmp_path / "config.yaml").write_text(f'server: {{listen: ["127.0.0.1:0"]}}\nchannels:\n  {config()}')
    async with start() as server:
        port = int((await server.ready()).rpartition(":")[2])
        async with wire.websocket(port, "/bad", wire.text("x")):
            await server.until("ResourceWarning: unclosed file")


# 114: what floods, and what reaches for what is not its own


@fault(114)
@pytest.mark.parametrize("piece", [16 * 1024, 1024**2, 64 * 1024**2])
async def test_gibibyte_for_one_client(calm: Calm, piece: int, caplog: pytest.LogCaptureFixture) -> None:
    """A plugin that sends a gibibyte to one client is bounded as a client would be."""
    flooding = """
    async def on_message(self, client, message):
        piece = b"x" * int(message.data)
        for _ in range(1024 ** 3 // len(piece)):
            await client.send(piece)
            if client.closed:
                break
    """
    caplog.set_level("INFO")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with calm(config(), plugin(flooding), noisy=CHANNEL) as serving:
        async with wire.websocket(serving.port, "/bad", receive_buffer=4096) as client:
            await client.send(wire.text(str(piece)))
            await wire.eventually(lambda: not serving.server.channels["bad"].clients)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200 * 1024  # in KiB; what the plugin holds itself counts, too
    too_large = "is larger than the 4194304 that lag_bytes allows"
    assert (too_large in caplog.text) == (piece == 64 * 1024**2)


@fault(114)
async def test_publisher_without_an_end(calm: Calm) -> None:
    """A plugin that publishes without an end takes turns: the others are served, the log stays bounded."""
    flooding = """
    async def on_message(self, client, message):
        while not client.closed:
            await self.publish("bad", b"x" * 1024)
    """
    async with calm(config(), plugin(flooding)) as serving:
        async with wire.websocket(serving.port, "/bad", receive_buffer=4096) as client:
            await client.send(wire.text("x"))
            for _ in range(20):
                assert (await wire.ask(serving.port, "/-/live"))[0].status == 200
            assert serving.server.bus.size <= 5 * 4 * 1024**2
            client.reset()
        await wire.eventually(lambda: not serving.server.channels["bad"].clients)


THREADS = """
async def on_message(self, client, message):
    loop = asyncio.get_running_loop()
    ways = {
        "publish": lambda: asyncio.run(self.publish("bad", "x")),
        "bus": lambda: asyncio.run(self.bus.publish("bad", "x")),
        "send": lambda: asyncio.run(client.send("x")),
        "close": lambda: asyncio.run(client.close()),
        "safe": lambda: str(self.bus.publish_threadsafe("bad", "x").result(5)) and "safely",
    }
    try:
        said = await loop.run_in_executor(None, ways[message.data])
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    await client.send(said or "nothing")
"""


@fault(114)
@pytest.mark.parametrize(
    ("way", "said"),
    [
        (
            "publish",
            "BusError: publish() was called from another thread; use bus.publish_threadsafe()",
        ),
        ("bus", "BusError: publish() was called from another thread; use bus.publish_threadsafe()"),
        ("send", "RuntimeError: client.send() was called from another thread; there it is asyncio."),
        (
            "close",
            "RuntimeError: client.close() was called from another thread; there it is asyncio.",
        ),
        ("safe", "safely"),
    ],
)
async def test_call_from_a_thread(calm: Calm, way: str, said: str) -> None:
    """What is called from another thread says so, and what to call there."""
    async with (
        calm(config(), plugin(THREADS)) as serving,
        wire.websocket(serving.port, "/bad", wire.text(way)) as client,
    ):
        while (text := await client.text()) == "x":
            pass
        assert text.startswith(said)


CHANGING = """
async def on_message(self, client, message):
    if message.data == "change":
        said = {"list": [1]}
        await self.publish("bad", said)
        said["list"].append(2)
        return
    for name in ("data", "payload", "event"):
        try:
            setattr(message, name, "changed")
        except AttributeError:
            pass
        else:
            await client.send(f"{name} changed")
    await self.publish("bad", message.data)

def as_text(self, message):
    if message.kind == "json":
        data = message.data
        data["list"].append(3)
    return super().as_text(message)
"""


@fault(114)
async def test_message_that_is_changed_in_place(calm: Calm) -> None:
    """Nobody sees what a plugin does to a message, or to what it was made from, after it was published."""
    async with (
        calm(config(), plugin(CHANGING)) as serving,
        wire.websocket(serving.port, "/bad") as one,
        wire.websocket(serving.port, "/bad", headers=[("Sec-WebSocket-Protocol", V1)]) as other,
    ):
        assert json.loads(await other.text())["event"] == "realtime:welcome"
        await one.send(wire.text("change") + wire.text("text"))
        assert await one.text() == '{"list":[1]}'
        assert await one.text() == "text"
        assert json.loads(await other.text())["data"] == {"list": [1]}
        assert json.loads(await other.text())["data"] == "text"


@fault(114)
async def test_route_that_swallows_everything(serve: Serve) -> None:
    """A raw route that swallows being cancelled neither keeps its connection nor the shutdown."""
    source = """
    import asyncio
    from aiohttp import web
    from realtime import hookimpl

    DONE = asyncio.Event()

    async def swallow(request):
        for _ in range(1000):
            try:
                await DONE.wait()
                return web.Response()
            except BaseException:
                pass

    @hookimpl
    def register_routes(bus):
        return [web.get("/swallow", swallow)]
    """
    began = now()
    async with serve("plugins: [bad]", {"bad.py": source}) as serving:
        done = serving.server.plugins.manager.get_plugin("plugin:bad").DONE  # type: ignore[union-attr]
        async with wire.dial(serving.port, wire.request("/swallow")):
            assert (await wire.ask(serving.port, "/-/live"))[0].status == 200
        stopping = asyncio.create_task(serving.server.stop())
        await wire.soon(stopping)
    assert now() - began < 8
    done.set()
