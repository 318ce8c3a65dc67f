"""When a server that runs reads its config again: at SIGHUP, and for authors when a file changes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from realtime import logs
from realtime.changes import Change, NeedsRestart, changes
from realtime.config import Config
from realtime.errors import ConfigError
from realtime.modules import files_in
from realtime.server import Server

log = logging.getLogger("realtime.server")

#: How often files are looked at, in seconds. An editor may write one in several steps: what has just
#: changed is looked at once more.
LOOK = 0.3


class Reloading:
    """Reads the config again and has the server go by it, or says why not."""

    def __init__(self, read: Callable[[], Config], file: Path | None, *, watching: bool) -> None:
        self.read = read
        self._watching = watching
        self._files = [file.absolute()] if file else []
        # Before anything is read, or what changes while it is would never be seen.
        self._before = _stamps(self.files(None)) if watching else {}
        self._wanted = asyncio.Event()
        self._heard = False
        self._loop: asyncio.AbstractEventLoop | None = None
        # nohup has it ignored: then it is nothing that a terminal says.
        self._had_terminal = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN and _has_terminal()
        signal.signal(signal.SIGHUP, self._hang_up)

    def _hang_up(self, *_: object) -> None:
        if self._had_terminal and not _has_terminal():
            signal.raise_signal(signal.SIGTERM)
        elif self._loop is None:
            self._heard = True  # nothing has been read, or not all: it is read again when it runs
        else:
            self._loop.call_soon_threadsafe(self._wanted.set)

    async def follow(self, server: Server) -> None:
        """Reload the server, which runs, each time that it is wanted.

        Raises :exc:`NeedsRestart` while files are watched; else what cannot be had is only said.
        """
        self._loop = asyncio.get_running_loop()
        if self._heard:
            self._wanted.set()
        watching = asyncio.create_task(self._watch(server), name="watching files")
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                before, reloading = server.assembly, asyncio.create_task(self._reload(server))
                wanted = asyncio.create_task(self._wanted.wait())
                try:
                    await asyncio.wait([reloading, wanted], return_when=asyncio.FIRST_COMPLETED)
                    if server.assembly is before:  # what does not begin is not waited for any longer
                        reloading.cancel()
                    await asyncio.wait([reloading])
                finally:
                    wanted.cancel()
                    reloading.cancel()  # if it is the end; the server undoes what has begun
                after = server.assembly
                if not reloading.cancelled():
                    reloading.result()
                elif before and after and after is not before:  # it gave way before it heard of that
                    _tell(server, changes(before, after, ()))
        finally:
            self._loop = None
            watching.cancel()

    async def _reload(self, server: Server) -> None:
        try:
            config = await asyncio.to_thread(self.read)
            made = await server.reload(config, anew=self._watching)
        except ConfigError as error:
            logs.say(*map(str, error.problems), level=logging.ERROR)
            if self._watching and isinstance(error, NeedsRestart):
                raise
            logs.say("not reloaded: everything goes on as it was", level=logging.ERROR)
        except Exception:
            log.exception("not reloaded")
        else:
            _tell(server, made)

    async def _watch(self, server: Server) -> None:
        if not self._watching:
            return
        # Where a call was made that nobody awaits; it takes time to remember that.
        sys.set_coroutine_origin_tracking_depth(1)
        seen = before = await asyncio.to_thread(_stamps, self.files(server)) | self._before
        while True:
            await asyncio.sleep(LOOK)
            now = await asyncio.to_thread(_stamps, self.files(server))
            if now == seen != before:
                before = now
                self._wanted.set()
            seen = now

    def wait_for_change(self, server: Server | None) -> None:
        """Wait until a file changes; for a server that could not start."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        logs.say("waiting for a change")
        before = _stamps(self.files(server)) | self._before
        while _stamps(self.files(server)) == before:
            time.sleep(LOOK)

    def files(self, server: Server | None) -> list[Path]:
        """What is to be watched: the config, and what plugins are, were or could be."""
        beside = [(file.parent / "plugins") for file in self._files]
        modules = server.plugins.modules.files() if server and server.assembly else []
        return [*self._files, *beside, *modules]


def _tell(server: Server, made: Sequence[Change]) -> None:
    """What has become of each channel."""
    width = max((len(change.name) for change in made), default=0)
    told = (f"  {change.name:{width}}  {change.told}" for change in made)
    logs.say(f"reloaded {server.config.source.name}", *told)


def _stamps(places: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """When files were written, in nanoseconds, and their sizes: to see soon that something has changed."""
    found = {}
    for file in files_in(dict.fromkeys(places)):
        try:
            status = file.stat()
            found[file] = status.st_mtime_ns, status.st_size
        except OSError:
            found[file] = 0, 0
    return found


def _has_terminal() -> bool:
    """Whether the process has a terminal that can still be opened."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
