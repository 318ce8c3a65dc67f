"""The command ``serve``: a server in a process of its own, its banner and its signals."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from realtime import logs, loops
from realtime.blame import lines, of_task, of_thread, theirs
from realtime.changes import NeedsRestart
from realtime.channel import Channel
from realtime.config import Config, load
from realtime.errors import ConfigError, StartError
from realtime.exit_codes import ExitCode
from realtime.reloading import Reloading
from realtime.server import Server
from realtime.transports.page import description
from realtime.values import Address
from realtime.version import __version__

log = logging.getLogger("realtime.server")

#: How long what a plugin has left running may take to end after the shutdown, in seconds.
EXIT_GRACE = 1.0
#: When the process is ended in any case, whoever holds the event loop, as a share of ``server.drain``.
LAST = 0.95


def serve(
    file: Path | None, *, listen: Sequence[str], reload: bool, log_level: str, log_format: str
) -> ExitCode:
    """Serve until a signal comes. Returns how it ended; what is wrong is said on standard error.

    SIGHUP has it read its config again; ``reload``: so does whatever changes in it and its plugins.
    """
    logs.configure(log_level, log_format)
    try:
        addresses = [Address.parse(text) for text in listen]
    except ValueError as error:
        logs.say(f"python -m realtime: --listen {' '.join(listen)}: {error}", level=logging.ERROR)
        return ExitCode.USAGE

    def read() -> Config:
        config = load(file)
        return config.listening_on(addresses) if addresses else config

    reloading = Reloading(read, file, watching=reload)
    server: Server | None = None
    try:
        server = Server(read())
        return _serve(server, reloading)
    except NeedsRestart:
        logs.say("restarting")
    except ConfigError as error:
        logs.say(*map(str, error.problems), level=logging.ERROR)
        if not reload:
            return ExitCode.BAD_CONFIG
        reloading.wait_for_change(server)
    except StartError as error:
        logs.say(f"could not start: {error}", level=logging.ERROR)
        return ExitCode.NOT_STARTED
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _serve(server: Server, reloading: Reloading) -> ExitCode:
    try:
        with asyncio.Runner(loop_factory=loops.factory(server.config.server.loop)) as runner:
            return runner.run(_run(server, reloading))
    finally:
        # What was a second signal to the loop is none to the interpreter that ends.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)


async def _run(server: Server, reloading: Reloading) -> ExitCode:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    # A plugin that is being imported holds the event loop, so signals interrupt it themselves.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    server.load()
    asked, stopped = threading.Event(), threading.Event()

    def on_signal(*_: object) -> None:
        if asked.is_set():  # a second signal: at once
            os._exit(ExitCode.OK)
        asked.set()
        loop.call_soon_threadsafe(stop.set)

    # Not the loop's own handlers: a plugin may hold the loop.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    drain = server.config.server.drain
    # It is there from the start, for a signal comes at any time, and then no thread can be begun safely.
    threading.Thread(target=_end, args=(loop, asked, stopped, drain), daemon=True).start()
    starting, stopping = asyncio.create_task(server.start()), asyncio.create_task(stop.wait())
    await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait([starting])
        if starting.cancelled():
            return ExitCode.OK
    starting.result()
    logs.say(*_banner(server))
    following = asyncio.create_task(reloading.follow(server), name="reloading")
    await asyncio.wait([stopping, following], return_when=asyncio.FIRST_COMPLETED)
    following.cancel()
    await asyncio.wait([following])
    logs.say("stopping; a second signal stops at once")
    await server.stop()
    for task in asyncio.all_tasks():
        if theirs(of_task(task)):
            log.warning("%s runs on after the shutdown, and is cancelled", _described(task))
    stopped.set()
    if not following.cancelled():
        following.result()
    return ExitCode.OK


def _end(
    loop: asyncio.AbstractEventLoop, asked: threading.Event, stopped: threading.Event, drain: float
) -> None:
    """End the process in time although a plugin's task or thread does not end, or holds the loop."""
    asked.wait()
    last = time.monotonic() + max(LAST * drain, EXIT_GRACE)
    in_order = stopped.wait(last - time.monotonic())
    threading.Event().wait(min(EXIT_GRACE, last - time.monotonic()))
    # Who reads the log may have stopped, and holds up who writes to it.
    saying = threading.Thread(target=_tell_what_is_left, args=(loop, in_order), daemon=True)
    saying.start()
    saying.join(EXIT_GRACE / 5)
    os._exit(ExitCode.OK)


def _tell_what_is_left(loop: asyncio.AbstractEventLoop, in_order: bool) -> None:
    left = [_described(task) for task in asyncio.all_tasks(loop)]
    main = threading.main_thread()
    left += [
        f"thread {thread.name!r}"
        for thread in threading.enumerate()
        if not thread.daemon and thread is not main
    ]
    if not in_order:
        places = of_thread(main.ident or 0)
        left[:0] = [f"the event loop, in {line}" for line in lines((theirs(places) or places)[-1:])]
    logs.say(f"ended, although this would not: {', '.join(left)}")


def _described(task: asyncio.Task[object]) -> str:
    """A task by its name, and by the line of a plugin where it is."""
    where = lines(theirs(of_task(task))[-1:])
    return f"task {task.get_name()!r}" + "".join(f" in {line}" for line in where)


def _banner(server: Server) -> list[str]:
    lines = [
        f"Realtime {__version__}, config: {server.config.source.name}, "
        f"engine: {server.config.bus.engine}, loop: {loops.chosen(server.config.server.loop)}"
    ]
    width = max(map(len, server.channels), default=0)
    for name, channel in server.channels.items():
        lines.append(f"  {name:{width}}  {channel.url_on(server.site)}  {description(type(channel))}")
    if not server.channels:
        lines.append("  no channel is configured")
    opened = _open_to_anyone(server)
    for address in server.addresses:
        if opened and not address.is_local:
            lines.append(f"WARNING: {address} is open to other machines: {opened}")
    if server.site.startswith("http"):  # a browser opens no unix socket
        lines.append(f"  in a browser: {server.site}/ and, to watch, {server.site}/-/dashboard")
    lines.append(f"ready on {', '.join(map(str, server.addresses))}")
    return lines


def _open_to_anyone(server: Server) -> str:
    """What whoever reaches the server may do; nothing where it is nothing."""
    readable, writable = [], []
    for name, channel in server.channels.items():
        allow, reads = channel.settings.allow, set(channel.transports) - {"post"}
        if allow.subscribe == "anyone" and reads:
            readable.append(name)
        hears = type(channel).on_message is not Channel.on_message and {"websocket", "post"}
        if allow.publish == "anyone" and hears and hears & set(channel.transports):
            writable.append(name)
    may = ("read", readable), ("write to", writable)
    parts = [f"{what} {', '.join(names)}" for what, names in may if names]
    return f"whoever reaches it may {' and '.join(parts)} (allow in the config)" if parts else ""
