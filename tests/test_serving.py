"""The command ``serve``, run as a person runs it: what it says, where, and how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import aiohttp
import pytest
import shelf
from certificates import Authority
from command import ENVIRONMENT, PATIENCE, Running, run, running

ECHO = "server: {listen: ['127.0.0.1:0']}\nchannels: {echo: {plugin: echo, path: /ws}}\n"
#: A channel whose lifespan does not end, or does not even begin.
STUCK = """\
import asyncio
from contextlib import asynccontextmanager
from realtime import Channel, hookimpl


class Stuck(Channel):
    @asynccontextmanager
    async def lifespan(self):
        print("lifespan", flush=True)
        {body}


@hookimpl
def register_channels():
    return {{"stuck": Stuck}}
"""
LONG = "yield\n        await asyncio.Event().wait()"


Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a server in a directory of its own; it is killed at the end if it still runs."""
    return partial(running, tmp_path)


async def echoed(address: str, text: str) -> str:
    """What an echo channel at an address answers."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://{address}/ws", timeout=aiohttp.ClientWSTimeout(ws_receive=5)) as ws,
    ):
        await ws.send_str(text)
        return await ws.receive_str()


# Serving


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_either_loop(tmp_path: Path, start: Start, loop: str) -> None:
    """Either event loop serves, and the banner names it."""
    (tmp_path / "config.yaml").write_text(ECHO.replace("server: {", f"server: {{loop: {loop}, "))
    async with start() as server:
        address = await server.ready()
        assert (await echoed(address, "a"), f"loop: {loop}\n" in server.said) == ("Echo: a", True)


async def test_without_the_extensions_of_aiohttp(tmp_path: Path, start: Start) -> None:
    """Where aiohttp has no extension in C, its readers in Python serve."""
    (tmp_path / "config.yaml").write_text(ECHO)
    async with start(AIOHTTP_NO_EXTENSIONS="1") as server:
        assert await echoed(await server.ready(), "a") == "Echo: a"


async def test_banner(tmp_path: Path, start: Start) -> None:
    """The banner, on standard error, names version, config, engine and each channel with its URL."""
    (tmp_path / "config.yaml").write_text(ECHO)
    async with start() as server:
        address = await server.ready()
        assert re.fullmatch(
            r"Realtime \d+\.\d+\.\d+, config: config\.yaml, engine: memory, loop: uvloop\n"
            rf"  echo  ws://{address}/ws  What a client sends comes back to it\.\n"
            rf"  in a browser: http://{address}/ and, to watch, http://{address}/-/dashboard\n"
            rf"ready on {address}\n",
            server.said,
        )


async def test_banner_names_the_engine(tmp_path: Path, start: Start) -> None:
    """The banner names the engine of the config, and not what is set of it."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "shelf.py").write_text(shelf.SOURCE)
    (tmp_path / "config.yaml").write_text(shelf.BUS + ECHO)
    async with start() as server:
        await server.ready()
        assert "engine: shelf, loop:" in server.said
        assert "s3cret" not in server.said


async def test_banner_over_tls(tmp_path: Path, start: Start) -> None:
    """With TLS the URLs of the banner are those to use."""
    Authority(tmp_path)
    tls = "tls: {cert: cert.pem, key: key.pem}"
    clock = "clock: {plugin: clock, path: /events}"
    text = ECHO.replace("server: {", "server: {" + tls + ", ").replace("/ws}", "/ws}, " + clock)
    (tmp_path / "config.yaml").write_text(text)
    async with start() as server:
        address = await server.ready()
        assert f"  echo   wss://{address}/ws  " in server.said
        assert f"  clock  https://{address}/events  " in server.said


async def test_banner_with_a_url(tmp_path: Path, start: Start) -> None:
    """With ``server.url`` the banner shows how the channels are reached from outside."""
    (tmp_path / "config.yaml").write_text(ECHO.replace("server: {", "server: {url: 'https://rt.example', "))
    async with start() as server:
        await server.ready()
        assert "  echo  wss://rt.example/ws  " in server.said


async def test_ready_means_ready(tmp_path: Path, start: Start) -> None:
    """From the moment it says ready a client is served."""
    (tmp_path / "config.yaml").write_text(ECHO)
    async with start() as server:
        assert await echoed(await server.ready(), "hi") == "Echo: hi"


async def test_nothing_on_standard_output(tmp_path: Path, start: Start) -> None:
    """What the server says is on standard error alone."""
    (tmp_path / "config.yaml").write_text(ECHO)
    async with start() as server:
        await server.ready()
        await server.end(signal.SIGTERM)
        assert server.process.stdout is not None
        assert await server.process.stdout.read() == b""


async def test_serve_is_the_default_command(tmp_path: Path, start: Start) -> None:
    """``serve`` may be written out, with the options before or after it."""
    (tmp_path / "rt.yaml").write_text(ECHO)
    for arguments in (["-c", "rt.yaml", "serve"], ["serve", "-c", "rt.yaml"], ["--config=rt.yaml"]):
        async with start(*arguments) as server:
            await server.ready()
            assert "config: rt.yaml" in server.said


async def test_built_in_config(start: Start) -> None:
    """Without a config file the built-in one is served, and it says so."""
    async with start("--listen", "127.0.0.1:0") as server:
        await server.ready()
        assert "config: the built-in config" in server.said
        assert [line.split()[0] for line in server.said.splitlines()[1:4]] == ["echo", "lobby", "clock"]


async def test_plugins_beside_the_config(tmp_path: Path, start: Start) -> None:
    """With ``-c`` plugins are looked for beside that file, not where one stands."""
    there = tmp_path / "there"
    (there / "plugins").mkdir(parents=True)
    (there / "plugins" / "stuck.py").write_text(STUCK.format(body="yield"))
    (there / "rt.yaml").write_text(ECHO.replace("echo,", "stuck,"))
    async with start("-c", "there/rt.yaml") as server:
        await server.ready()
        assert "config: there/rt.yaml" in server.said


async def test_listen_instead_of_the_configs(tmp_path: Path, start: Start) -> None:
    """``--listen`` replaces the config's addresses, and may be repeated."""
    (tmp_path / "config.yaml").write_text(ECHO)
    async with start("--listen", "127.0.0.1:0", "--listen", "unix:rt.sock") as server:
        tcp, unix = (await server.ready()).split(", ")
        assert (await echoed(tcp, "hi"), unix) == ("Echo: hi", "unix:rt.sock")
        connector = aiohttp.UnixConnector(str(tmp_path / "rt.sock"))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://localhost/-/ready") as response,
        ):
            assert await response.json() == {"ready": True, "reasons": []}
        await server.end(signal.SIGTERM)
        assert not (tmp_path / "rt.sock").exists()


@pytest.mark.parametrize(
    ("allow", "says"),
    [
        ("{}", "whoever reaches it may read lobby and write to lobby (allow in the config)"),
        ("{publish: authenticated}", "whoever reaches it may read lobby (allow in the config)"),
        ("{subscribe: local}", "whoever reaches it may write to lobby (allow in the config)"),
        ("{subscribe: local, publish: 'scope:x'}", ""),
    ],
)
async def test_warning_when_others_can_reach_what_is_open(
    tmp_path: Path, start: Start, allow: str, says: str
) -> None:
    """Beyond this machine, what anyone may do is warned about before it says ready; and nothing else is."""
    (tmp_path / "config.yaml").write_text(
        f"channels: {{lobby: {{plugin: chat, path: /chat, allow: {allow}}}}}\n"
    )
    async with start("--listen", "0.0.0.0:0") as server:
        address = await server.ready()
        assert (f"WARNING: {address} is open to other machines: {says}\n" in server.said) is bool(says)
        assert ("WARNING" in server.said) is bool(says)


async def test_warning_speaks_of_what_a_channel_hears(tmp_path: Path, start: Start) -> None:
    """A channel that hears nothing is not said to be open to writers."""
    (tmp_path / "config.yaml").write_text("channels: {clock: {plugin: clock, path: /events}}\n")
    async with start("--listen", "0.0.0.0:0") as server:
        await server.ready()
        assert "whoever reaches it may read clock (allow in the config)" in server.said


# The end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signal_ends_it_in_order(tmp_path: Path, start: Start, number: int) -> None:
    """Ctrl-C and SIGTERM end the server with exit code 0; its clients are told with 1001."""
    (tmp_path / "config.yaml").write_text(ECHO)
    async with start() as server, aiohttp.ClientSession() as session:
        address = await server.ready()
        async with session.ws_connect(f"http://{address}/ws") as ws:
            server.process.send_signal(number)
            closing = await ws.receive(timeout=5)
            assert (closing.type, closing.data) == (aiohttp.WSMsgType.CLOSE, 1001)
        assert await server.end() == 0
        assert "Traceback" not in server.said


async def test_second_signal_ends_it_at_once(tmp_path: Path, start: Start) -> None:
    """A second signal ends the server at once, though a lifespan does not end."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "stuck.py").write_text(STUCK.format(body=LONG))
    (tmp_path / "config.yaml").write_text(
        "server: {listen: ['127.0.0.1:0'], drain: 1h}\nchannels: {a: {plugin: stuck, path: /a}}\n"
    )
    async with start() as server:
        await server.ready()
        server.process.send_signal(signal.SIGTERM)
        await server.until("stopping; a second signal stops at once")
        assert await server.end(signal.SIGTERM) == 0


async def test_lifespan_that_does_not_end_is_bounded(tmp_path: Path, start: Start) -> None:
    """One signal is enough: what does not end is cut when ``drain`` is over."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "stuck.py").write_text(STUCK.format(body=LONG))
    (tmp_path / "config.yaml").write_text(
        "server: {listen: ['127.0.0.1:0'], drain: 100ms}\nchannels: {a: {plugin: stuck, path: /a}}\n"
    )
    async with start() as server:
        await server.ready()
        assert await server.end(signal.SIGTERM) == 0
        assert "the lifespan of channel:a did not end in time and is cancelled" in server.said


async def test_task_that_will_not_end(tmp_path: Path, start: Start) -> None:
    """A plugin's task that swallows its cancelling is named, and does not keep the process."""
    body = """
        async def stubborn():
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    pass
        self.task = asyncio.create_task(stubborn(), name="stubborn")
        yield
"""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "stuck.py").write_text(STUCK.format(body=body.strip()))
    (tmp_path / "config.yaml").write_text(ECHO.replace("echo,", "stuck,"))
    async with start() as server:
        await server.ready()
        assert await server.end(signal.SIGTERM) == 0
        assert "ended, although this would not: task 'stubborn'" in server.said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signal_while_a_plugin_is_imported(tmp_path: Path, start: Start, number: int) -> None:
    """A signal ends a server whose plugin takes its time to be imported, with exit code 0."""
    (tmp_path / "plugins").mkdir()
    slow = "import threading\nprint('importing', flush=True)\nthreading.Event().wait()\n"
    (tmp_path / "plugins" / "stuck.py").write_text(slow)
    (tmp_path / "config.yaml").write_text(ECHO.replace("echo,", "stuck,"))
    async with start() as server:
        assert server.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            assert await server.process.stdout.readline() == b"importing\n"
        assert await server.end(number) == 0
        assert server.said == ""


async def test_directory_named_as_the_config(tmp_path: Path, start: Start) -> None:
    """A directory config.yaml, as a container makes of a missing file, is not passed over."""
    (tmp_path / "config.yaml").mkdir()
    async with start() as server:
        assert await server.process.wait() == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signal_while_starting(tmp_path: Path, start: Start, number: int) -> None:
    """A signal ends a server that is not ready yet, with exit code 0."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "stuck.py").write_text(STUCK.format(body="await asyncio.Event().wait(); yield"))
    (tmp_path / "config.yaml").write_text(ECHO.replace("echo,", "stuck,"))
    async with start() as server:
        assert server.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            assert await server.process.stdout.readline() == b"lifespan\n"
        assert await server.end(number) == 0
        assert server.said == ""


async def test_reader_of_its_log_goes_away(tmp_path: Path, start: Start) -> None:
    """When nobody reads standard error any more, it serves on and ends in order."""
    (tmp_path / "config.yaml").write_text(ECHO)
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "realtime"), cwd=tmp_path, env=ENVIRONMENT, stderr=writing
    )
    os.close(writing)
    with os.fdopen(reading) as said:
        line = await asyncio.to_thread(lambda: next(line for line in said if "ready on" in line))
    address = line.split("ready on ")[1].strip()
    assert await echoed(address, "hi") == "Echo: hi"
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        assert await process.wait() == 0


async def test_standard_error_closed_from_the_start(tmp_path: Path) -> None:
    """A server without standard error starts, and ends in order."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "stuck.py").write_text(STUCK.format(body="yield"))
    (tmp_path / "config.yaml").write_text(ECHO.replace("echo,", "stuck,"))
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", 'exec "$0" -m realtime 2>&-', sys.executable),
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert await process.stdout.readline() == b"lifespan\n"
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


# What cannot be


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("", "c.yaml: it is empty: it needs a section 'channels'\n"),
        ("chanels: {}\n", "c.yaml:1:1: chanels: unknown key, did you mean 'channels'?\n"),
        (
            "server: {drain: 1}\nplugin: []\n",
            "c.yaml:1:17: server.drain: expected a duration such as 500ms, 10s or 5m, not 1\n"
            "c.yaml:2:1: plugin: unknown key, did you mean 'plugins'?\n",
        ),
    ],
)
def test_bad_config(tmp_path: Path, config: str, said: str) -> None:
    """A mistake in the config is exit code 1 and a line."""
    (tmp_path / "c.yaml").write_text(config)
    ended = run(tmp_path, "-c", "c.yaml")
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", said)


@pytest.mark.parametrize("arguments", [["-c", "no.yaml"], ["-cno.yaml"], ["serve", "--config", "no.yaml"]])
def test_missing_config(tmp_path: Path, arguments: list[str]) -> None:
    """A config file that is not there is exit code 1 and a line."""
    ended = run(tmp_path, *arguments)
    assert (ended.returncode, ended.stderr) == (1, "no.yaml: not found\n")


def test_unknown_plugin(tmp_path: Path) -> None:
    """A plugin that is not there is exit code 1, with what was searched and without a traceback."""
    (tmp_path / "config.yaml").write_text("channels: {a: {plugin: ecko, path: /a}}\n")
    ended = run(tmp_path)
    first, *searched = ended.stderr.splitlines()
    wanted = "config.yaml:1:24: channels.a.plugin: there is no plugin 'ecko', did you mean 'echo'?"
    assert (ended.returncode, first) == (1, wanted)
    assert all(line.startswith("    searched: ") for line in searched)


def test_broken_plugin(tmp_path: Path) -> None:
    """A plugin that fails at import is exit code 1 and the plugin's own lines."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "bad.py").write_text("1 / 0\n")
    (tmp_path / "config.yaml").write_text("plugins: [bad]\n")
    ended = run(tmp_path)
    assert (ended.returncode, ended.stderr) == (
        1,
        "config.yaml:1:11: plugins[0]: bad: ZeroDivisionError: division by zero\n"
        f"    {tmp_path}/plugins/bad.py:1: 1 / 0\n",
    )


def test_port_in_use(tmp_path: Path) -> None:
    """A port that is taken is exit code 3 and a line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run(tmp_path, "--listen", address)
    assert (ended.returncode, ended.stderr) == (3, f"could not start: {address} is in use\n")


def test_engine_that_cannot_be_reached(tmp_path: Path) -> None:
    """An engine that cannot be reached is exit code 3 and a line."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "shelf.py").write_text(shelf.SOURCE)
    (tmp_path / "config.yaml").write_text(shelf.BUS.replace("}", ", depth: 99}") + ECHO)
    ended = run(tmp_path)
    assert (ended.returncode, ended.stderr) == (3, "could not start: the shelf is too deep\n")


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("192.0.2.1:80", "is no address of this machine"),
        ("unix:/no/such/directory/rt.sock", "cannot be made: there is no such directory"),
        (f"unix:/tmp/{'a' * 200}", "cannot be listened on: AF_UNIX path too long"),
    ],
)
def test_address_that_cannot_be(tmp_path: Path, address: str, why: str) -> None:
    """An address that cannot be listened on is exit code 3 and a line."""
    ended = run(tmp_path, "--listen", address)
    assert (ended.returncode, ended.stderr) == (3, f"could not start: {address} {why}\n")


def test_nothing_is_left_when_one_address_fails(tmp_path: Path) -> None:
    """When the second address cannot be had, the first one's file does not stay."""
    ended = run(tmp_path, "--listen", "unix:rt.sock", "--listen", "unix:no/rt.sock")
    assert (ended.returncode, list(tmp_path.iterdir())) == (3, [])
