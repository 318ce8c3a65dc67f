"""Rows 116 and 117: the process is told to end, killed, or short of what it needs."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from command import ENVIRONMENT, Running, running
from conftest import Serve
from needs import lacks, need
from servers import closed_port
from timing import stopwatch
from wire import (
    CLOSE,
    LINES,
    TEXT,
    UPGRADE,
    Wire,
    ask,
    close,
    dial,
    eventually,
    flood,
    frame,
    post,
    posting,
    request,
    soon,
    stream,
    text,
    websocket,
)

from faults.catalogue import fault

#: How many there are who never read.
CROWD = 100
#: A channel that does slowly what it is told.
SLOW = '''
import asyncio
from realtime import Channel, hookimpl


class Slow(Channel):
    """What it is told it does, and then it publishes it."""

    async def on_message(self, client, message):
        await asyncio.sleep(0.3)
        return await self.publish(client.topic, message.data)


@hookimpl
def register_channels():
    return {"slow": Slow}
'''
#: A channel whose end hangs wherever it can.
HANGING = '''
import asyncio
import threading
import time
from contextlib import asynccontextmanager
from realtime import Channel, hookimpl


async def stubborn():
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass


class Hanging(Channel):
    """Nothing of it ends."""

    async def on_message(self, client, message):
        if message.data == "spin":
            self.log.info("spinning")
            while True:
                pass
        if message.data == "sleep":
            self.log.info("sleeping")
            time.sleep(3600)
        await stubborn()

    async def on_leave(self, client):
        await stubborn()

    @asynccontextmanager
    async def lifespan(self):
        self.task = asyncio.create_task(stubborn(), name="stubborn")
        threading.Thread(target=threading.Event().wait, name="lasting").start()
        yield
        await stubborn()


@hookimpl
def register_channels():
    return {"hanging": Hanging}
'''


@asynccontextmanager
async def served(
    directory: Path, config: str, *arguments: str, through: tuple[str, ...] = (), **environment: str
) -> AsyncIterator[tuple[Running, int]]:
    """A server in a process of its own that has the plugins above; gives its port, too."""
    if through:
        need(through[0], "apt-get install util-linux")
    (directory / "plugins").mkdir(exist_ok=True)
    for name, source in {"hanging.py": HANGING, "slow.py": SLOW}.items():
        (directory / "plugins" / name).write_text(source)
    (directory / "config.yaml").write_text(config)
    async with running(directory, *arguments, through=through, **environment) as server:
        yield server, int((await server.ready()).rpartition(":")[2])


def drained_in(drain: str, *channels: str) -> str:
    """A config with a drain, and these channels beside an echo."""
    lines = ["echo: {plugin: echo, path: /ws}", *channels]
    server = f"server: {{listen: ['127.0.0.1:0'], drain: {drain}}}\n"
    return f"{server}channels:\n" + "".join(f"  {line}\n" for line in lines)


async def goodbye(wire: Wire) -> int:
    """Read what there is up to the close frame, and answer it; returns the code."""
    while (frame := await wire.frame()).opcode != CLOSE:
        pass
    await wire.send(close(frame.code))
    return frame.code


# Row 116: SIGTERM


@fault(116)
async def test_everything_at_once(tmp_path: Path) -> None:
    """Readers and talkers of every kind, one who never reads and a plugin whose end hangs: 0, in time."""
    config = drained_in(
        "3s",
        "room: {plugin: chat, path: /room, history: 10000}",
        "slow: {plugin: slow, path: /slow}",
        "hanging: {plugin: hanging, path: /hanging}",
    )
    async with AsyncExitStack() as stack, served(tmp_path, config) as (server, port):
        enter = stack.enter_async_context
        hanging = await enter(websocket(port, "/hanging", text("hang")))
        never = await enter(websocket(port, "/ws", receive_buffer=4096))
        await flood(never)
        for number in range(300):
            await post(port, "/room?name=backend", f"{number} {'x' * 1000}".encode())
        readers = [await enter(websocket(port, "/room", text(f"reader-{i}"))) for i in range(100)]
        replays = [await enter(websocket(port, "/room?since=earliest", text(f"r{i}"))) for i in range(10)]
        streams = [await enter(stream(port, "/room")) for _ in range(20)]
        lines = await enter(dial(port, request("/room", LINES)))
        key = [("Idempotency-Key", "once")]
        posts = [await enter(dial(port, posting("/slow", b"said", headers))) for headers in ([], key, key)]
        snapshot = await enter(dial(port, request("/room", [("Accept", "application/json")])))
        joining = [await enter(dial(port, request("/room"))) for _ in range(20)]
        assert (await ask(port, "/-/live"))[0].status == 200  # so what came before it has come, too
        watch = stack.enter_context(stopwatch(server.process.pid))
        server.process.send_signal(signal.SIGTERM)
        assert {await goodbye(wire) for wire in (*readers, *replays, hanging)} == {1001}
        rests = [(await wire.rest()).decode() for wire in (*streams, lines)]
        assert all("realtime:bye" in rest and rest.endswith("0\r\n\r\n") for rest in rests)
        answers = [json.loads((await wire.response())[1]) for wire in posts]
        assert answers[1] == answers[2] != answers[0]
        assert (await snapshot.head()).status == 200
        del joining
        assert await server.end() == 0
        assert watch.seconds < 3
    assert "Traceback" not in server.said
    assert "ended, although this would not: " in server.said
    assert "thread 'lasting'" in server.said


@fault(64)
async def test_many_who_never_read(tmp_path: Path) -> None:
    """A crowd that never reads what it asked for keeps SIGTERM from nothing."""
    config = drained_in("5s", "room: {plugin: topics, path: /room, lag_bytes: 16MiB}")
    async with served(tmp_path, config) as (process, port), AsyncExitStack() as stack:
        for number in range(CROWD):
            opening = request("/room", UPGRADE if number % 2 else LINES)
            one = await stack.enter_async_context(dial(port, opening, receive_buffer=4096))
            await one.head()
        for _ in range(20):
            assert (await post(port, "/room", b"x" * 60_000))[0].status == 202
        with stopwatch(process.process.pid) as watch:
            assert await process.end(signal.SIGTERM) == 0
            assert watch.seconds < 5
        assert "Traceback" not in process.said


@fault(116)
@pytest.mark.parametrize("wish", ["spin", "sleep"])
async def test_plugin_that_holds_the_loop(tmp_path: Path, wish: str) -> None:
    """A plugin that never gives the event loop back keeps no server from ending, and is named."""
    config = drained_in("1s", "hanging: {plugin: hanging, path: /hanging}")
    async with served(tmp_path, config) as (server, port), websocket(port, "/hanging", text(wish)):
        await server.until(wish)
        assert await server.end(signal.SIGTERM) == 0
    assert re.search(
        r"ended, although this would not: the event loop, in \S+hanging\.py:\d+: ", server.said
    )


@fault(116)
async def test_second_signal_while_the_loop_is_held(tmp_path: Path) -> None:
    """A second signal ends it at once, though a plugin holds the event loop."""
    config = drained_in("1h", "hanging: {plugin: hanging, path: /hanging}")
    async with served(tmp_path, config) as (server, port), websocket(port, "/hanging", text("spin")):
        await server.until("spinning")
        server.process.send_signal(signal.SIGTERM)
        assert await server.end(signal.SIGINT) == 0


@fault(116)
async def test_killed(tmp_path: Path) -> None:
    """After SIGKILL under load the same config starts again, on the same port and the same socket file."""
    port = closed_port()
    config = drained_in("1s").replace("127.0.0.1:0", f"127.0.0.1:{port}', 'unix:{tmp_path}/rt.sock")
    for _ in range(2):
        async with AsyncExitStack() as stack:
            (tmp_path / "config.yaml").write_text(config)
            server = await stack.enter_async_context(running(tmp_path))
            await server.ready()
            never = await stack.enter_async_context(websocket(port, "/ws", receive_buffer=4096))
            await flood(never)
            async with dial(0, request("/-/live"), path=f"{tmp_path}/rt.sock") as wire:
                assert (await wire.response())[0].status == 200
            server.process.kill()
            assert await soon(server.process.wait()) == -signal.SIGKILL


@fault(116)
async def test_sigpipe(tmp_path: Path) -> None:
    """SIGPIPE does nothing."""
    async with served(tmp_path, drained_in("1s")) as (server, port):
        server.process.send_signal(signal.SIGPIPE)
        async with websocket(port, "/ws", text("hi")) as wire:
            assert await wire.text() == "Echo: hi"
        assert await server.end(signal.SIGTERM) == 0


SPANS = {
    "spans.py": """
        import asyncio
        from contextlib import asynccontextmanager
        from realtime import Channel, hookimpl

        class Spans(Channel):
            @asynccontextmanager
            async def lifespan(self):
                self.heard, self.go = asyncio.Event(), asyncio.Event()
                yield
                await self.publish(self.name, "farewell")
                await self.go.wait()

            async def on_message(self, client, message):
                self.heard.set()
                await self.go.wait()
                return await self.publish(self.name, message.data)

        @hookimpl
        def register_channels():
            return {"spans": Spans}
    """
}


@fault(116)
async def test_on_open_connections(serve: Serve) -> None:
    """From the signal on ready is red, and a new request on an open connection is 503 and its last."""
    config = "channels: {spans: {plugin: spans, path: /spans}}"
    async with serve(config, SPANS) as serving:
        asked: dict[str, Wire] = {}
        async with AsyncExitStack() as stack:
            for path in ("/", "/spans", "/-/ready", "/nowhere"):
                asked[path] = await stack.enter_async_context(dial(serving.port, request("/-/live")))
                assert (await asked[path].response())[0].status == 200
            spans: Any = serving.server.channels["spans"]
            stopping = asyncio.create_task(serving.server.stop())
            await asyncio.sleep(0)
            for path, wire in asked.items():
                await wire.send(request(path))
                head, body = await wire.response()
                assert (head.status, "shutting down" in body) == (503, True)
                assert path == "/-/ready" or head.headers["connection"] == "close"
            spans.go.set()
            await soon(stopping)


@fault(116)
async def test_posts_under_way(serve: Serve) -> None:
    """A POST that is being heard is answered, and the server waits for it; the goodbye was seen before."""
    config = "channels: {spans: {plugin: spans, path: /spans}}"
    async with (
        serve(config, SPANS) as serving,
        stream(serving.port, "/spans") as events,
        dial(serving.port, posting("/spans", b"said")) as wire,
    ):
        spans: Any = serving.server.channels["spans"]
        await soon(spans.heard.wait())
        stopping = asyncio.create_task(serving.server.stop())
        assert (await events.event())["data"] == "farewell"
        assert not stopping.done()
        spans.go.set()
        head, _ = await wire.response()
        assert head.status == 202
        await soon(stopping)


@fault(116)
async def test_advice_when_to_come_back(serve: Serve) -> None:
    """Each client is told another delay, from one to five seconds, for all would come at once."""
    config = "channels: {room: {plugin: chat, path: /room}}"
    async with serve(config) as serving, AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(stream(serving.port, "/room")) for _ in range(20)]
        await serving.server.stop()
        rests = [(await wire.rest()).decode() for wire in wires]
        delays = [
            int(delay) for rest in rests for delay in re.findall(r"^retry: (\d+)$", rest, re.MULTILINE)
        ]
    assert len(delays) == len(wires), rests[0]
    assert all(1000 <= delay <= 5000 for delay in delays)
    assert len(set(delays)) > 10


@fault(116)
async def test_join_storm_while_it_drains(serve: Serve) -> None:
    """Those who come while it drains are turned away, and keep it from nothing."""
    config = "channels: {spans: {plugin: spans, path: /spans}}"
    async with serve(config, SPANS) as serving, AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(dial(serving.port)) for _ in range(100)]
        for wire in wires:
            await wire.send(request("/-/live"))
            await wire.response()
        stopping = asyncio.create_task(serving.server.stop())
        await asyncio.sleep(0)
        for wire in wires:
            await wire.send(request("/spans", [("Accept", "text/event-stream")]))
        assert {(await wire.response())[0].status for wire in wires} == {503}
        spans: Any = serving.server.channels["spans"]
        spans.go.set()
        await soon(stopping)


# Row 117: descriptors


async def talks(wire: Wire) -> None:
    """The echo answers on this WebSocket."""
    await wire.send(text("still here?"))
    assert await wire.text() == "Echo: still here?"


async def taken_again(port: int) -> None:
    """A new client is served, as soon as the server has noticed who has gone."""
    async with asyncio.timeout(8):
        while True:
            with suppress(EOFError, ConnectionError):
                async with dial(port, request("/-/live")) as wire:
                    if (await wire.head()).status == 200:
                        return


@fault(117)
@pytest.mark.parametrize("loop", ["asyncio", "auto"])
async def test_few_descriptors(tmp_path: Path, loop: str) -> None:
    """With 64 descriptors a hundred who say nothing make room for each other; who is there is served."""
    config = drained_in("1s").replace("drain", f"loop: {loop}, drain")
    through = ("prlimit", "--nofile=64:64")
    async with served(tmp_path, config, through=through) as (server, port), websocket(port, "/ws") as wire:
        async with AsyncExitStack() as stack:
            silent = [await stack.enter_async_context(dial(port)) for _ in range(100)]
            await talks(wire)
            assert (await silent[0].rest())[:12] in (b"HTTP/1.1 503", b"")  # or libuv has closed it
            await talks(wire)
        await taken_again(port)
        assert await server.end(signal.SIGTERM) == 0
    assert server.said.count("turned away") <= 1
    assert "Traceback" not in server.said


GREEDY = """
import asyncio
import os
from realtime import Channel, hookimpl


class Greedy(Channel):
    taken = []

    async def on_message(self, client, message):
        if message.data == "take":
            try:
                while True:
                    self.taken.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                pass
        while message.data == "give" and self.taken:
            os.close(self.taken.pop())
        await client.send("done")


@hookimpl
def register_channels():
    return {"greedy": Greedy}
"""


@fault(117)
@pytest.mark.parametrize("loop", ["asyncio", "auto"])
async def test_no_descriptor_left(tmp_path: Path, loop: str) -> None:
    """With no descriptor left who is there is served, the log has a line a second, and then it goes on."""
    config = drained_in("1s", "greedy: {plugin: greedy, path: /greedy}").replace(
        "drain", f"loop: {loop}, drain"
    )
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "greedy.py").write_text(GREEDY)
    through = ("prlimit", "--nofile=128:128")
    begun = asyncio.get_running_loop().time()
    async with (
        served(tmp_path, config, through=through) as (server, port),
        websocket(port, "/ws") as wire,
        websocket(port, "/greedy", text("take")) as greedy,
    ):
        assert await greedy.text() == "done"
        async with AsyncExitStack() as stack:
            for _ in range(50):
                await stack.enter_async_context(dial(port))
            for _ in range(100):
                await talks(wire)
            if loop == "asyncio":  # libuv closes them, and says nothing
                again = await server.until("like it before")
                assert int(again.rpartition("(and ")[2].split()[0]) < 200
        await greedy.send(text("give"))
        assert await greedy.text() == "done"
        await taken_again(port)
        assert await server.end(signal.SIGTERM) == 0
    seconds = asyncio.get_running_loop().time() - begun
    assert "Logging error" not in server.said
    assert sum("system resource" in line for line in server.said.splitlines()) <= seconds + 1


# Row 117: memory


def resident(pid: int) -> int:
    """The resident memory of a process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@fault(117)
async def test_little_memory(tmp_path: Path) -> None:
    """Under 512 MB, never-readers, unfinished messages and bombs at once are shed, and others served."""
    config = drained_in("1s", "room: {plugin: chat, path: /room, compress: true}")
    half = b"\x81\xfe\xff\xff" + bytes(4) + b"x" * 60_000  # of a message of 65,535 bytes
    bomb = zlib.compressobj(wbits=-15)
    zeros = bomb.compress(bytes(64 * 1024 * 1024)) + bomb.flush(zlib.Z_SYNC_FLUSH)
    deflate = [("Sec-WebSocket-Extensions", "permessage-deflate")]
    through = ("prlimit", f"--as={512 * 1024 * 1024}")
    async with (
        served(tmp_path, config, through=through) as (server, port),
        websocket(port, "/ws") as wire,
        AsyncExitStack() as stack,
    ):
        enter = stack.enter_async_context
        for number in range(50):
            await enter(websocket(port, "/room", text(f"never-{number}"), receive_buffer=4096))
            await enter(websocket(port, "/ws", half))
        talker = await enter(websocket(port, "/room?name=talker"))
        for _ in range(10):
            bombed = await enter(websocket(port, "/room", headers=deflate))
            await bombed.send(frame(TEXT, zeros[:-4][:60_000], reserved=0x40))
        sending = asyncio.create_task(flood(talker, text("x" * 60_000)))
        for _ in range(20):
            await talks(wire)
        await soon(sending)
        assert (await ask(port, "/-/live"))[0].status == 200
        assert resident(server.process.pid) < 300 * 1024 * 1024
        assert await server.end(signal.SIGTERM) == 0
    assert "MemoryError" not in server.said
    assert "Traceback" not in server.said


# Row 117: where it runs


async def works(port: int, *, host: str = "127.0.0.1") -> None:
    """A WebSocket, a stream, a POST with a key and a page are served."""
    async with websocket(port, "/room", text("zoë"), host=host) as wire:
        assert await wire.text() == "zoë joined the chat"
        key = [("Idempotency-Key", "k")]
        async with dial(port, posting("/room?name=bob", "grüße".encode(), key), host=host) as other:
            assert (await other.response())[0].status == 202
        assert await wire.text() == "bob: grüße"
    async with dial(port, request("/room", [("Accept", "text/event-stream")]), host=host) as events:
        assert (await events.head()).status == 200
    async with dial(port, request("/room", [("Accept", "text/html")]), host=host) as page:
        assert (await page.head()).status == 200


def in_namespace(*command: str) -> tuple[str, ...]:
    """A command of util-linux that runs another; the test is skipped where the kernel does not let it."""
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        lacks(f"{command[0]} to be allowed: it needs root or user namespaces")
    return command


PLACES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "read-only file system": (
        ("unshare", "--mount", "sh", "-c", 'mount -o remount,bind,ro / && exec "$@"', "sh"),
        {},
    ),
    "not root": (("unshare", "--user", "--map-user=1000"), {}),
    "no HOME": (("env", "-u", "HOME", "-u", "USER", "-u", "LOGNAME"), {}),
    "no asserts, no docstrings": ((), {"PYTHONOPTIMIZE": "2"}),
    "another language": ((), {"LC_ALL": "C", "LANG": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}),
    "another time zone": ((), {"TZ": "Pacific/Chatham"}),
    "warnings are errors": ((), {"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error"}),
}


@fault(117)
@pytest.mark.parametrize("place", PLACES)
async def test_where_it_runs(tmp_path: Path, place: str) -> None:
    """It starts, serves and ends in order, without a word too many."""
    through, environment = PLACES[place]
    config = drained_in("1s", "room: {plugin: chat, path: /room}")
    if through:
        in_namespace(*through)
    async with served(tmp_path, config, through=through, **environment) as (server, port):
        await works(port)
        assert await server.end(signal.SIGTERM) == 0
    assert "Traceback" not in server.said
    assert "Warning" not in server.said


@fault(117)
async def test_ipv6_only(tmp_path: Path) -> None:
    """It serves where there is nothing but IPv6."""
    config = drained_in("1s", "room: {plugin: chat, path: /room}").replace("127.0.0.1", "[::1]")
    async with served(tmp_path, config) as (server, port):
        await works(port, host="::1")
        assert await server.end(signal.SIGTERM) == 0


@fault(117)
@pytest.mark.parametrize("where", ["2>/dev/full", ">/dev/full 2>&1", ">&-", "2>&-", "<&- >&- 2>&-"])
async def test_log_that_cannot_be_written(tmp_path: Path, where: str) -> None:
    """With a full disk for its log, or its streams closed, it serves, and ends with 0."""
    port = closed_port()
    config = drained_in("1s", "room: {plugin: chat, path: /room}").replace(":0", f":{port}", 1)
    (tmp_path / "config.yaml").write_text(config)
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f'exec "$0" -m realtime {where}', sys.executable),
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    async with dial(port, request("/-/live")) as wire:
                        assert (await wire.head()).status == 200
                    break
                except ConnectionRefusedError:
                    await asyncio.sleep(0)
        await works(port)
        process.terminate()
        assert await soon(process.wait()) == 0
    finally:
        if process.returncode is None:
            process.kill()


@fault(117)
async def test_log_that_nobody_reads(tmp_path: Path) -> None:
    """Whoever reads its log may stop: it waits for that, but a signal ends it in time all the same."""
    port = closed_port()
    (tmp_path / "config.yaml").write_text(drained_in("1s").replace(":0", f":{port}", 1))
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "realtime"), cwd=tmp_path, env=ENVIRONMENT, stderr=writing
    )
    try:
        said = b""
        while b"ready on" not in said:
            said += await asyncio.to_thread(os.read, reading, 4096)
        async with AsyncExitStack() as stack:
            for _ in range(100):
                wire = await stack.enter_async_context(dial(port))
                await wire.send(request("/ws", UPGRADE) + close(1000))
            # The log is full when the pipe takes nothing more.
            await eventually(lambda: not select.select([], [writing], [], 0)[1])
            process.terminate()
            assert await soon(process.wait()) == 0
    finally:
        if process.returncode is None:
            process.kill()
        os.close(reading)
        os.close(writing)


# Row 117: clocks


@fault(117)
@pytest.mark.parametrize("jump", [3600, -3600, 86_400, -86_400])
async def test_clock_that_jumps(serve: Serve, monkeypatch: pytest.MonkeyPatch, jump: int) -> None:
    """When the clock is set, nobody is cut, nothing is forgotten or comes early: only times change."""
    config = """
        channels:
          clock: {plugin: clock, path: /clock, interval: 20ms}
          room: {plugin: chat, path: /room, history: 10}
    """
    key = [("Idempotency-Key", "once")]
    async with (
        serve(config) as serving,
        websocket(serving.port, "/room", text("alice")) as wire,
        stream(serving.port, "/clock") as ticks,
    ):
        assert await wire.text() == "alice joined the chat"
        _, first = await post(serving.port, "/room?name=bob", b"hi", key)
        assert await wire.text() == "bob: hi"
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + jump)
        monkeypatch.setattr(serving.server.bus, "wall_time", time.time)
        assert (await post(serving.port, "/room?name=bob", b"hi", key))[1] == first
        for _ in range(5):
            await ticks.event()
        _, body = await post(serving.port, "/room?name=bob", b"later")
        assert await wire.text() == "bob: later"
        position = json.loads(first)["id"]
        headers = [("Accept", "application/json")]
        _, snapshot = await ask(serving.port, f"/room?since={position}", headers)
        said = json.loads(snapshot)["messages"]
        assert [one["id"] for one in said] == [json.loads(body)["id"]]
        monkeypatch.undo()
