"""The log on standard error: a line for each event, for people (``text``) or for machines (``json``).

What clients send gets into it: names, close reasons, addresses that a proxy hands on. So a line stays one
line and drives no terminal: whatever cannot be printed is escaped, and the lines of a traceback, and of
what asyncio says, are indented. What looks like a token or a password is left out.

A record's ``fields``, a dict given as ``extra={"fields": {…}}``, become keys of the JSON object; its
``stack``, a list of lines, is shown like a traceback.
"""

from __future__ import annotations

import contextlib
import linecache
import logging
import re
import sys
import traceback
import warnings
from datetime import UTC, datetime
from typing import Any

import orjson

from realtime.errors import json_escape, printable

#: Of errors that are alike, one is shown in so many seconds: a server that has no file descriptor left
#: would tell so for every connection that waits, and a plugin with a bug for every message.
REPEAT = 1.0

_CHANNEL = "realtime.channel."
#: How the loader calls the modules of plugins that are files.
_PLUGIN = re.compile(r"^(realtime\.plugins|realtime_plugins_[0-9a-f]{12}(?:_[0-9]+)?)\.")
_SECRET = re.compile(
    r"""(?ix)
    ( [?&] (?:access_)? token=
    | \b (?:proxy-)? authorization ['"]? \s* [:=,] \s* ['"]? (?: (?:basic|bearer|token) \s+ )?
    | \b bearer \s+ (?=[\w.~+/=-]{16}) )
    [^\s&'"\#@]+
    | ( ://[^/\s:@]*: ) \S+ (?=@)
    | ( :// ) [^/\s:@]+ (?=@)
    | ( \b (?:set-)? cookie ['"]? \s* [:=,] \s* ) [^\n]+
    """
)


def configure(level: str, format: str) -> None:
    """Send the log of this process to standard error: ``level`` and above, in one of the formats."""
    handler = logging.StreamHandler()
    handler.setFormatter(JSONLines() if format == "json" else TextLines())
    handler.addFilter(_Repeats())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    capture_warnings()
    if not sys.warnoptions:
        warnings.simplefilter("default", ResourceWarning)  # what a plugin has opened and left


def capture_warnings() -> None:
    """Python's own warnings, too, are lines of the log, with what is to be done about some."""
    logging.captureWarnings(True)
    warnings.formatwarning = _warning


def say(*lines: str, level: int = logging.INFO) -> None:
    """Tell people something on standard error; where the log is JSON, as lines of it of this level."""
    handlers = [one for one in logging.getLogger().handlers if isinstance(one.formatter, JSONLines)]
    if lines and sys.stderr and not handlers:  # None: it was closed from the start
        with contextlib.suppress(OSError):  # that nobody reads it is no reason not to serve
            print(*lines, sep="\n", file=sys.stderr, flush=True)
    for line in lines:
        grade = logging.WARNING if line.startswith("WARNING: ") else level
        text = line.removeprefix("WARNING: ").strip()
        for handler in handlers:
            handler.handle(logging.LogRecord("realtime", grade, "", 0, text, None, None))


class TextLines(logging.Formatter):
    """``2026-11-23T15:04:05.123Z INFO    lobby: …``, and an indented traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of text, and those of a traceback (``logging.Formatter``)."""
        head = f"{_time(record)} {record.levelname:7} {_name(record)[1]}: {_message(record)}"
        below: list[str] = []
        if record.name == "asyncio":  # Python's own words, each line of which begins with what it tells
            head, *below = head.split("\n")
        trace = [f"    {printable(line)}" for line in (*below, *_trace(record).splitlines())]
        return "\n".join([printable(head), *trace])


class JSONLines(logging.Formatter):
    """An object a line: ``time``, ``level``, ``channel`` or ``logger``, ``message``, the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON (``logging.Formatter``)."""
        key, name = _name(record)
        line: dict[str, Any] = {"time": _time(record), "level": record.levelname.lower(), key: name}
        line["message"] = _message(record)
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            shown = {str(k): redact(v) if isinstance(v, str) else v for k, v in fields.items()}
            line = {**line, **shown, **line}
        if trace := _trace(record):
            line["exception"] = trace
        try:
            text = orjson.dumps(line, default=_spell).decode()
        except Exception:  # a lone surrogate, a number beyond 64 bits, an object that contains itself
            text = orjson.dumps({_spell(k): _spell(v) for k, v in line.items()}).decode()
        return printable(text, escape=json_escape)


class _Repeats(logging.Filter):
    """Lets one of many errors through that are alike: asyncio's, and those of one place in the code."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is shown; it then knows how many were not (``logging.Filter``)."""
        error = record.exc_info[1] if record.exc_info else None
        what: tuple[object, ...] = record.name, str(record.msg).partition("\n")[0][:300]
        if record.name == "asyncio":
            what = *what, repr(error)[:300]
        elif stack := getattr(record, "stack", None):
            what = *what, stack[-1]
        elif error is not None and record.name.startswith("realtime."):
            what = *what, type(error), *_places(error)
        else:
            return True
        shown, left_out = self._seen.get(what, (-REPEAT, 0))
        if 0 <= record.created - shown < REPEAT:  # a clock that is set back shows it
            self._seen[what] = shown, left_out + 1
            return False
        if len(self._seen) > 100:
            self._seen.clear()
        self._seen[what] = record.created, 0
        record.repeats = left_out
        return True


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """As Python writes it, with the remedy where there is one (``warnings.formatwarning``)."""
    from realtime.blame import is_host  # the client's commands have no need of it

    text, _, origin = str(message).partition("\nCoroutine created at")
    if made := re.findall(r'File "(.+)", line (\d+), in ', origin):
        (filename, number), line = next((at for at in made[::-1] if not is_host(at[0])), made[-1]), None
        lineno = int(number)
    if re.fullmatch("coroutine '.*' was never awaited", text):
        text += f": write 'await' before the call{_of_module(filename)}"
        if is_host(filename):  # it was kept in a variable, and given up later than it was made
            text += "; where that is, serve --reload tells"
    source = line or linecache.getline(filename, lineno)
    return f"{filename}:{lineno}: {category.__name__}: {text}: {source.strip()}"


def _of_module(file: str) -> str:
    """The module of a file, as its author knows it."""
    names = [
        name for name, module in list(sys.modules.items()) if getattr(module, "__file__", None) == file
    ]
    return f" in {_PLUGIN.sub('', names[0])!r}" if names else ""


def _places(error: BaseException) -> tuple[tuple[str, int], ...]:
    """The innermost line, and the innermost that is a plugin's."""
    from realtime.blame import is_host  # the client's commands have no need of it

    walked = traceback.walk_tb(error.__traceback__)
    places = [(frame.f_code.co_filename, line) for frame, line in walked]
    return *places[-1:], *[place for place in places if not is_host(place[0])][-1:]


def _time(record: logging.LogRecord) -> str:
    """RFC 3339, in UTC."""
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _name(record: logging.LogRecord) -> tuple[str, str]:
    """What the record is about, and which kind of thing that is."""
    if record.name.startswith(_CHANNEL):
        return "channel", record.name.removeprefix(_CHANNEL)
    return "logger", _PLUGIN.sub("", record.name, count=1)


def _message(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except Exception as error:  # its arguments do not fit: a mistake that is not to cost the line
        text = f"{record.msg} {_spell(record.args)} ({type(error).__name__} in the log call)"
    more = ""
    if record.name == "asyncio" and text.startswith(("Task exception was never", "Task was destroyed")):
        more = f"{_of_frames(record)}; await it, or start it in an asyncio.TaskGroup in lifespan()"
    if repeats := getattr(record, "repeats", 0):
        more += f" (and {repeats} like it before)"
    first, *rest = text.split("\n") if record.name == "asyncio" else [text]
    return redact("\n".join([first + more, *rest]))


def _of_frames(record: logging.LogRecord) -> str:
    """The plugin in whose lines an error was raised, if it was in any."""
    from realtime.blame import file_of

    error = record.exc_info[1] if record.exc_info else None
    file = file_of(error) if error else ""
    return _of_module(file) if file else ""


def _trace(record: logging.LogRecord) -> str:
    parts = [*getattr(record, "stack", ()), record.stack_info or ""]
    if record.exc_info and record.exc_info[0] is not None:
        parts.insert(0, logging.Formatter().formatException(record.exc_info))
    return redact("\n".join(filter(None, parts)))


def redact(text: str) -> str:
    """The text with ``***`` for what looks like a token, a cookie or a password."""
    return _SECRET.sub(lambda match: f"{match[match.lastindex or 0]}***", text)


def _spell(value: object) -> str:
    """Any object as text that can be encoded."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text.encode("utf-8", "backslashreplace").decode()
