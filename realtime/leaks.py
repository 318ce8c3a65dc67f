"""Leaks: who still holds what should be gone, as far as Python can tell, and at which line of a plugin."""

from __future__ import annotations

import gc
import inspect
import io
import linecache
import re
import socket
import sys
import tracemalloc
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp

from realtime.blame import is_host
from realtime.channel import Channel, Client

#: How many frames are remembered of who has taken memory.
FRAMES = 3
_CONTAINERS = (list, dict, set, deque)
_OURS = tuple(str(Path(str(module.__file__)).parent) for module in (sys.modules["realtime"], aiohttp))


@contextmanager
def traced() -> Iterator[None]:
    """Meanwhile it is known who takes memory, and who opens files."""
    tracemalloc.start(FRAMES)
    try:
        yield
    finally:
        tracemalloc.stop()


def growth(snapshot: tracemalloc.Snapshot) -> dict[str, int]:
    """How many bytes each line of a plugin has taken, and still has, since this was traced.

    What the server or aiohttp keeps on its behalf does not count: these have bounds of their own.
    """
    grown: dict[str, int] = {}
    for statistic in snapshot.statistics("traceback"):
        for one in reversed(statistic.traceback):
            if is_host(one.filename) and one.filename.startswith(_OURS):
                break
            if not is_host(one.filename) and one.filename[:1] != "<":
                place = f"{one.filename}:{one.lineno}"
                grown[place] = grown.get(place, 0) + statistic.size
                break
    return grown


def opened() -> str:
    """The line of a plugin that has opened the most files and sockets that are open, of those traced."""
    lines: Counter[tuple[str, int]] = Counter()
    for one in gc.get_objects():
        kind = type(one)  # a proxy would say another
        is_file = issubclass(kind, io.FileIO) and not one.closed
        if is_file or (issubclass(kind, socket.socket) and one.fileno() >= 0):
            trace = tracemalloc.get_object_traceback(one) or ()
            lines.update([(at.filename, at.lineno) for at in trace if not is_host(at.filename)][-1:])
    file, number = max(lines, key=lines.__getitem__, default=("", 0))
    return f"{file}:{number}: {linecache.getline(file, number).strip()}" if file else ""


def holder(channel: Channel, client: Client) -> tuple[str, str]:
    """What leads to a client, of the containers of a channel, and the line that fills it."""
    for name, root in _containers(channel):
        if _leads(root, client):
            return name, filled(channel, name)
    return "", ""


def sizes(channel: Channel) -> dict[str, int]:
    """How much is in each container of a channel, and in those that are in it."""
    return {
        name: len(root) + sum(len(one) for one in gc.get_referents(root) if isinstance(one, _CONTAINERS))
        for name, root in _containers(channel)
        if getattr(root, "maxlen", None) is None
    }


def filled(channel: Channel, name: str) -> str:
    """The first line that uses a container other than to make it."""
    module = sys.modules[type(channel).__module__]
    source, first = inspect.getsourcelines(module)
    for number, line in enumerate(source, max(first, 1)):
        if re.search(rf"(?<![.\w]){re.escape(name)}(?!\w|:? *=|: )", line):
            return f"{module.__file__}:{number}: {line.strip()}"
    return ""


def _containers(channel: Channel) -> Iterator[tuple[str, Any]]:
    """The attributes of a channel and of its class, and the globals of its module, that hold things."""
    own: dict[str, Any] = {}
    for kind in reversed(type(channel).__mro__):
        own |= vars(kind)
    own |= vars(channel)
    module = vars(sys.modules[type(channel).__module__])
    roots = [(f"self.{name}", value) for name, value in own.items() if name != "_clients"]
    return (
        (name, value)
        for name, value in [*roots, *module.items()]
        if isinstance(value, _CONTAINERS) and "__" not in name
    )


def _leads(root: object, client: Client) -> bool:
    """Whether a container has a client in it, at most three steps down."""
    here: list[Any] = [root]
    for _ in range(3):
        here = [one for each in here for one in gc.get_referents(each)]
        if any(one is client for one in here):
            return True
        here = [one for one in here if isinstance(one, (*_CONTAINERS, SimpleNamespace))][:10_000]
    return False
