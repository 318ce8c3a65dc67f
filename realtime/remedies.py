"""What to do about an error of a plugin: for the mistakes that are made again and again.

Python says what is wrong, and often not what to write instead. Only errors come here, so nothing of it
costs a message anything.
"""

from __future__ import annotations

import importlib
import re
import traceback
from pathlib import Path

from aiohttp import web
from pydantic import PydanticUserError

from realtime.errors import did_you_mean
from realtime.values import Model

_AWAIT = "an 'await' is missing before a call: publish, send, receive, close, ping and kick are awaited"
_LIFESPAN = "the server runs an event loop already: await it in a method, or in lifespan()"
_ONE_OF_ITS_OWN = "'{0}' is the host's own: give yours another name"

#: The kind of error, what its text is like, and the remedy.
_KNOWN: tuple[tuple[type[BaseException], str, str], ...] = (
    (
        ImportError,
        "circular import",
        "two files import each other: move what both need into a third, or import it inside a function",
    ),
    (ImportError, "No module named 'hiredis'", "pip install 'realtime-channels[redis]'"),
    (ImportError, r"No module named '([\w.]+)'", "is it installed? python -m pip install {0}"),
    (SystemExit, "", "a plugin may not end the process: raise an error that says what is wrong"),
    (
        AttributeError,
        r"'types.SimpleNamespace' object has no attribute '(\w+)'",
        "client.state has what was put there: set {0} in on_connect or on_join, for each transport; "
        "else getattr(client.state, '{0}', None)",
    ),
    (
        AttributeError,
        r"^can't set attribute|^property of 'Message' object has no setter",
        "a message cannot be changed: publish another",
    ),
    (AttributeError, r"^property '(clients|topics|methods)' of .* has no setter", _ONE_OF_ITS_OWN),
    (AttributeError, r"^'coroutine' object", _AWAIT),
    (TypeError, "'coroutine' object", _AWAIT),
    (ValueError, "is no JSON: .*coroutine", _AWAIT),
    (
        ValueError,
        "is no JSON: ",
        "JSON has dict with str keys, list, str, numbers, true, false and null",
    ),
    (RuntimeError, r"^asyncio.run\(\) cannot be called", _LIFESPAN),
    (RuntimeError, "event loop is already running", _LIFESPAN),
    (
        RuntimeError,
        "^Unable to generate pydantic-core schema",
        "a setting is of a type that YAML has; what it stands for is made in __init__",
    ),
    (
        AttributeError,
        "^'NoneType' object has no attribute '(name|scopes|expires)'",
        "the identity is None for whom nobody knows",
    ),
    (
        TypeError,
        r"__init__\(\) missing 3 required",
        "the host makes channels: offer the class, not an instance",
    ),
    (
        TypeError,
        r"^Rejected.__init__\(\) missing",
        "the client is told why: raise Rejected(sentence, status)",
    ),
    (TypeError, r"^'RouteDef' object is not iterable", "return a list of them: [web.get(path, handler)]"),
    (
        TypeError,
        "'(_GeneratorContextManager|_AsyncGeneratorContextManager)' object is not iterable",
        "return a list of them",
    ),
    (
        TypeError,
        "asynchronous context manager protocol",
        "it is to be an 'async def' that yields once, marked @asynccontextmanager",
    ),
    (TypeError, "'async for' requires .* got Subscription", "async with bus.subscribe(…) as messages: …"),
    (
        BaseExceptionGroup,
        "in a TaskGroup",
        "a task that fails ends its TaskGroup: catch in it what it can go on after",
    ),
    (RuntimeError, "generator didn't stop", "what is marked @asynccontextmanager yields once, not twice"),
    (
        RuntimeError,
        "generator didn't yield",
        "what is marked @asynccontextmanager yields once, on every way",
    ),
)


def described(error: BaseException) -> str:
    """``KeyError: 'alice'``; what pydantic says of a class at greater length is said shortly."""
    try:
        text = str(error)
    except Exception:  # of what the plugin does wrong this is the least
        return type(error).__name__
    if isinstance(error, PydanticUserError):
        text = text.partition("\n")[0]
        if bare := re.match(r"A non-annotated attribute was detected: `(\w+) = (.*?)`\.", text):
            text = f"the setting {bare[1]!r} has no type: write {bare[1]}: TYPE = {bare[2]}"
    return f"{type(error).__name__}: {text}"


def remedy(error: BaseException) -> str:
    """``; what to do about it``, or nothing."""
    try:
        text = str(error)
    except Exception:  # an error that cannot be shown has no remedy that could be known
        return ""
    if isinstance(error, AttributeError) and error.name and error.obj is not None:
        near = did_you_mean(error.name, [name for name in dir(error.obj) if not name.startswith("_")])
        if near and (isinstance(error.obj, Model) or type(error.obj).__module__.startswith("realtime.")):
            return near
    if isinstance(error, ImportError) and (
        found := re.match("cannot import name '(.*)' from '(.*?)'", text)
    ):
        module = importlib.import_module("realtime") if found[2] == "realtime" else None
        if near := did_you_mean(found[1], dir(module)) if module else "":
            return near
    if isinstance(error, ModuleNotFoundError) and error.name and error.__traceback__:
        files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
        if files[-1].with_name(f"{error.name}.py").is_file():
            return f"; it stands beside the plugin: from . import {error.name}"
    if isinstance(error, web.HTTPException):
        return f"; a client is refused by raise Rejected(sentence, {error.status})"
    for kind, like, what in _KNOWN:
        if isinstance(error, kind) and (match := re.search(like, text)):
            return f"; {what.format(*match.groups())}"
    return ""
