"""Whose it is: where a task or a thread stands, which lines of it are a plugin's, and which errors."""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import aiohttp
import pluggy
import pydantic
from aiohttp import hdrs, web

from realtime.close_codes import retry_after
from realtime.eager import go_on
from realtime.errors import Rejected
from realtime.remedies import described, remedy

#: A frame and the line it is in, the outermost of a stack first.
Place = tuple[FrameType, int]

_PACKAGE = str(Path(__file__).parent)
_HOSTS = (
    _PACKAGE,
    *(str(Path(str(module.__file__)).parent) for module in (aiohttp, pluggy, pydantic)),
    "<",  # what has no file: Python's own, or made by a decorator
)
_STDLIB = sysconfig.get_path("stdlib")


def of_thread(ident: int, depth: int = 0) -> list[Place]:
    """Where a running thread is, without its first ``depth`` frames."""
    frame = sys._current_frames().get(ident)
    return [] if frame is None else list(traceback.walk_stack(frame))[::-1][depth:]


def of_task(task: asyncio.Task[Any]) -> list[Place]:
    """Where a task waits. asyncio itself tells only the outermost of its frames."""
    places: list[Place] = []
    work: Any = task.get_coro()
    while True:
        work = getattr(work, "metered", work)  # what keeps the time of a coroutine is no frame
        kind = next((kind for kind in ("cr", "gi", "ag") if hasattr(work, f"{kind}_frame")), "")
        frame = getattr(work, f"{kind}_frame", None)
        if frame is None:
            return places
        places.append((frame, frame.f_lineno))
        if frame.f_code is go_on.__code__:  # a generator, and what it drives is no part of its stack
            work = frame.f_locals["work"]
        else:
            work = getattr(work, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")


def theirs(places: Iterable[Place]) -> list[Place]:
    """The frames of plugins, and of what they call that is neither ours nor Python's."""
    return [place for place in places if not is_host(place[0].f_code.co_filename)]


def lines(places: Iterable[Place]) -> list[str]:
    """``file:line: source`` of each frame."""
    return _lines(traceback.StackSummary.extract(iter(places)))


def file_of(error: BaseException) -> str:
    """The file of the innermost line of a plugin that led to an error; nothing if none did."""
    places = theirs(traceback.walk_tb(error.__traceback__))
    return places[-1][0].f_code.co_filename if places else ""


def own_frames(error: BaseException) -> str:
    """An error and the lines of the plugin that led to it, without those of the host."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]  # a TaskGroup around it tells nobody anything
    entries = traceback.extract_tb(error.__traceback__)
    told = [
        f"{described(error)}{remedy(error)}",
        *_lines(one for one in entries if not is_host(one.filename)),
    ]
    if isinstance(error, SyntaxError) and error.filename:
        told.append(f"{error.filename}:{error.lineno}: {(error.text or '').strip()}")
    return "\n    ".join(told)


def defined(thing: Any, name: str = "") -> str:
    """``file:line: source`` where a function or a class begins, or an attribute of a class.

    Nothing where nobody knows: what was made by a call has no source.
    """
    try:
        if name and inspect.isclass(thing):
            thing = next(
                k for k in thing.__mro__ if name in {**vars(k), **vars(k).get("__annotations__", {})}
            )
            value = inspect.unwrap(vars(thing).get(name, thing))
            thing, name = (value, "") if inspect.isfunction(value) else (thing, name)
        thing = inspect.unwrap(thing)
        source, first = inspect.getsourcelines(thing)
        file = inspect.getsourcefile(thing)
    except (OSError, TypeError, StopIteration, ValueError):
        return ""
    begins = rf"\s+(class\s+)?{name}\b" if name else r"\s*(async\s+)?(def|class)\b"
    number = next((number for number, line in enumerate(source) if re.match(begins, line)), 0)
    return f"{file}:{first + number}: {source[number].strip()}"


def is_host(file: str) -> bool:
    """Whether a file is ours, what we stand on or Python's own: these tell a plugin's author nothing."""
    if file.startswith(f"{_PACKAGE}/plugins/"):
        return False
    return file.startswith(_HOSTS) or (
        file.startswith(_STDLIB) and "-packages" not in file.removeprefix(_STDLIB)
    )


def not_the_plugins(error: BaseException) -> bool:
    """Whether it comes from outside the plugin's code: somebody ends this task, or the process."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    if isinstance(error, GeneratorExit):  # a coroutine that Python ends is run by no task
        return asyncio._get_running_loop() is None or asyncio.current_task() is None
    return isinstance(error, KeyboardInterrupt)


def refusal(error: BaseException) -> web.Response | None:
    """What a request is answered whose handler was refused something, which is nobody's bug."""
    if not isinstance(error, Rejected):
        return None
    again = {hdrs.RETRY_AFTER: retry_after()} if error.status in (429, 503) else None
    return web.Response(status=error.status, text=f"{error}\n", headers=again)


def _lines(entries: Iterable[traceback.FrameSummary]) -> list[str]:
    return [f"{entry.filename}:{entry.lineno}: {entry.line}" for entry in entries]
