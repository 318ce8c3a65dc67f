"""The config read again by a process: at SIGHUP, and when files change."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest
import wire
from command import ENVIRONMENT, Running, running
from test_modules import rewrite
from wire import soon, websocket

from realtime.changes import Change
from realtime.config import Config, parse
from realtime.reloading import Reloading
from realtime.server import Server
from realtime.source import Source

CONFIG = "server: {listen: ['127.0.0.1:0']}\nchannels: {echo: {plugin: echo, path: /ws}}\n"
MORE = CONFIG.replace("}}", "}, more: {plugin: echo, path: /more}}")
WORD = """
from realtime import Channel, hookimpl

class Word(Channel):
    async def on_connect(self, client):
        await client.send("one")

@hookimpl
def register_channels():
    return {"word": Word}
"""
WORDS = CONFIG.replace("plugin: echo", "plugin: word")

Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a server in a directory with a config; it is killed at the end if it still runs."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    return partial(running, tmp_path)


async def word(address: str) -> str:
    """What the channel says to a newcomer."""
    async with websocket(int(address.rpartition(":")[2]), "/ws") as newcomer:
        return await newcomer.text()


async def test_hangup_reads_the_config_again(tmp_path: Path, start: Start) -> None:
    """SIGHUP has the server go by its config as it is now, and say what that changes."""
    async with start() as server:
        await server.ready()
        (tmp_path / "config.yaml").write_text(MORE)
        server.process.send_signal(signal.SIGHUP)
        await server.until("more  new")
        assert "reloaded config.yaml\n  echo  unchanged\n" in server.said
        assert await server.end(signal.SIGTERM) == 0


async def test_hangup_with_a_mistake(tmp_path: Path, start: Start) -> None:
    """A mistake is told with its place, and clients notice nothing."""
    async with start() as server:
        address = await server.ready()
        async with websocket(int(address.rpartition(":")[2]), "/ws") as talker:
            (tmp_path / "config.yaml").write_text(CONFIG.replace("path", "paht"))
            server.process.send_signal(signal.SIGHUP)
            await server.until("not reloaded: everything goes on as it was")
            await talker.send(wire.text("hi"))
            assert await talker.text() == "Echo: hi"
        assert "config.yaml:2:" in server.said
        assert "did you mean 'path'?" in server.said


async def test_config_that_is_gone(tmp_path: Path, start: Start) -> None:
    """A config that cannot be read is a mistake like others."""
    async with start() as server:
        await server.ready()
        (tmp_path / "config.yaml").unlink()
        server.process.send_signal(signal.SIGHUP)
        await server.until("not reloaded")
        assert await server.end(signal.SIGTERM) == 0


async def test_listen_of_the_command_line_stays(tmp_path: Path, start: Start) -> None:
    """``--listen`` goes before the config at each reading."""
    async with start("--listen", "127.0.0.1:0") as server:
        await server.ready()
        (tmp_path / "config.yaml").write_text(MORE.replace(":0", ":1"))
        server.process.send_signal(signal.SIGHUP)
        await server.until("more  new")


async def test_hangups_in_a_row(tmp_path: Path, start: Start) -> None:
    """Many signals are no harm: the last config is the one that is served."""
    async with start() as server:
        await server.ready()
        for number in range(20):
            (tmp_path / "config.yaml").write_text(MORE.replace("more", f"more{number}"))
            server.process.send_signal(signal.SIGHUP)
        await server.until("more19  new")


async def test_hangup_while_it_starts(tmp_path: Path, start: Start) -> None:
    """A signal that comes before the server is ready is heard when it is."""
    slow = WORD.replace("class Word", "import os, signal; os.kill(os.getpid(), signal.SIGHUP)\nclass Word")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "word.py").write_text(slow)
    (tmp_path / "config.yaml").write_text(WORDS)
    async with start() as server:
        await server.ready()
        await server.until("echo  unchanged")


async def test_terminal_that_is_closed_ends_it(tmp_path: Path, start: Start) -> None:
    """To who closes the terminal SIGHUP is the end, as ever."""
    ours, theirs = pty.openpty()
    async with start(through=("setsid", "--ctty", "--wait"), stdin=theirs) as server:
        await server.ready()
        os.close(theirs)
        os.close(ours)
        await server.until("stopping")
        assert await soon(server.process.wait()) == 0


async def test_nohup(tmp_path: Path, start: Start) -> None:
    """Under nohup SIGHUP is never the end of a terminal, but a wish."""
    async with start(through=("nohup",)) as server:
        await server.ready()
        (tmp_path / "config.yaml").write_text(MORE)
        server.process.send_signal(signal.SIGHUP)
        await server.until("more  new")


# For authors


async def test_change_of_the_config_is_seen(tmp_path: Path, start: Start) -> None:
    """With ``--reload`` the config is read again when it has changed."""
    async with start("serve", "--reload") as server:
        await server.ready()
        (tmp_path / "config.yaml").write_text(MORE)
        await server.until("more  new")


async def test_change_of_a_plugin_is_seen(tmp_path: Path, start: Start) -> None:
    """With ``--reload`` a plugin that was saved again is used at once."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "word.py").write_text(WORD)
    (tmp_path / "config.yaml").write_text(WORDS)
    async with start("serve", "--reload") as server:
        address = await server.ready()
        assert await word(address) == "one"
        rewrite(tmp_path / "plugins" / "word.py", WORD.replace("one", "two"))
        await server.until("restarted (its plugin)")
        assert await word(address) == "two"


async def test_call_that_nobody_awaits(tmp_path: Path, start: Start) -> None:
    """With ``--reload`` the line of a call that was kept, and never awaited, is told."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "word.py").write_text(WORD.replace("await", "kept ="))
    (tmp_path / "config.yaml").write_text(WORDS)
    async with start("serve", "--reload") as server:
        async with websocket(int((await server.ready()).rpartition(":")[2]), "/ws"):
            pass
        await server.until("was never awaited")
    assert (
        "word.py:6: RuntimeWarning: coroutine 'Client.send' was never awaited: write 'await'" in server.said
    )


async def test_mistake_in_a_plugin_is_shown(tmp_path: Path, start: Start) -> None:
    """A plugin with a mistake is told, and what was before goes on until it is mended."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "word.py").write_text(WORD)
    (tmp_path / "config.yaml").write_text(WORDS)
    async with start("serve", "--reload") as server:
        address = await server.ready()
        (tmp_path / "plugins" / "word.py").write_text(WORD.replace("class", "clas"))
        await server.until("not reloaded")
        assert "word.py:4" in server.said
        assert await word(address) == "one"
        (tmp_path / "plugins" / "word.py").write_text(WORD.replace("one", "three"))
        await server.until("restarted (its plugin)")
        assert await word(address) == "three"


async def test_mistake_at_the_start_is_waited_out(tmp_path: Path, start: Start) -> None:
    """With ``--reload`` a server that cannot start waits until the mistake is mended."""
    (tmp_path / "config.yaml").write_text(CONFIG.replace("path", "paht"))
    async with start("serve", "--reload") as server:
        await server.until("waiting for a change")
        (tmp_path / "config.yaml").write_text(CONFIG)
        await server.ready()


async def test_waiting_is_ended_by_a_signal(tmp_path: Path, start: Start) -> None:
    """Ctrl-C ends it also while it waits for a mistake to be mended."""
    (tmp_path / "config.yaml").write_text(CONFIG.replace("path", "paht"))
    async with start("serve", "--reload") as server:
        await server.until("waiting for a change")
        assert await server.end(signal.SIGINT) == 0


async def test_restarts_itself(tmp_path: Path, start: Start) -> None:
    """With ``--reload`` what needs another process gets one."""
    async with start("serve", "--reload") as server:
        before = await server.ready()
        (tmp_path / "config.yaml").write_text(CONFIG.replace("127.0.0.1", "localhost"))
        await server.until("restarting")
        assert await server.ready() != before
        assert await server.end(signal.SIGTERM) == 0


async def test_hangup_while_it_ends(tmp_path: Path, start: Start) -> None:
    """SIGHUP does not end a server another way that is ending, however late it comes."""
    async with start() as server:
        await server.ready()
        server.process.send_signal(signal.SIGTERM)
        while server.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                server.process.send_signal(signal.SIGHUP)
            await asyncio.wait([asyncio.create_task(server.process.wait())], timeout=0.002)
        assert server.process.returncode == 0


async def test_hangup_while_it_waits_for_a_change(tmp_path: Path, start: Start) -> None:
    """A server that waits for a mistake to be mended heeds no SIGHUP, and waits on."""
    (tmp_path / "config.yaml").write_text(CONFIG.replace("path", "paht"))
    async with start("serve", "--reload") as server:
        await server.until("waiting for a change")
        server.process.send_signal(signal.SIGHUP)
        (tmp_path / "config.yaml").write_text(CONFIG)
        await server.ready()


async def test_hangup_before_anything_is_imported(tmp_path: Path, start: Start) -> None:
    """SIGHUP does not end a server that has hardly begun."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'realtime.serving':\n"
        "            os.kill(os.getpid(), signal.SIGHUP)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    async with start(PYTHONPATH=f"{tmp_path}:{ENVIRONMENT['PYTHONPATH']}") as server:
        await server.ready()


async def test_lifespan_that_does_not_begin_gives_way(tmp_path: Path, start: Start) -> None:
    """With ``--reload`` a plugin that never begins is given up as soon as it is mended."""
    stuck = WORD.replace(
        "class Word(Channel):\n",
        "import asyncio\nfrom contextlib import asynccontextmanager\n\nclass Word(Channel):\n"
        "    @asynccontextmanager\n    async def lifespan(self):\n"
        "        await asyncio.Event().wait()\n        yield\n\n",
    )
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "word.py").write_text(WORD)
    (tmp_path / "config.yaml").write_text(WORDS)
    async with start("serve", "--reload") as server:
        address = await server.ready()
        (tmp_path / "plugins" / "word.py").write_text(stuck)
        await server.until("is still starting; plugin 'word' waits in ")
        (tmp_path / "plugins" / "word.py").write_text(WORD.replace("one", "two"))
        await server.until("restarted (its plugin)")
        assert await word(address) == "two"


class _Interrupted(Server):
    """One that is told to give a reload up in the moment in which it has gone by it."""

    async def reload(self, config: Config, *, anew: bool = False) -> list[Change]:
        await super().reload(config, anew=anew)
        raise asyncio.CancelledError


async def test_reload_given_up_too_late_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server goes by is told, also where another reload was wanted just then."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # it is this process's own
    reloading = Reloading(lambda: parse(MORE, Source("c.yaml")), None, watching=False)
    async with _Interrupted(parse(CONFIG, Source("c.yaml"))) as server:
        following = asyncio.create_task(reloading.follow(server))
        reloading._wanted.set()
        await wire.eventually(lambda: "more" in server.channels)
        await wire.eventually(lambda: "more  new" in capfd.readouterr().err)
        following.cancel()
