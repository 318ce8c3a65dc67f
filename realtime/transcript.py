"""The transcript of a test: what its clients say and hear, and the server's log.

It keeps what the log says of bugs, too: an error, a plugin that held the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from realtime.clockwork import Clock

#: How much is kept, in lines, and of each line, in characters.
LINES, WIDTH = 200, 300


class BlockedWarning(UserWarning):
    """A plugin held the event loop for longer than ``server.watchdog`` while a test ran."""


class Transcript(logging.Handler):
    """The transcript of a test: what its clients say and hear, and the server's log."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[str] = deque(maxlen=LINES)
        self._left_out = 0
        self._begun = time.monotonic()
        self._depth = 0
        self._level = 0
        self.clock: Clock | None = None
        #: What was logged as an error, those that are expected, and plugins that held the loop.
        self.errors: list[str] = []
        self.expected: list[Expected] = []
        self.blocked: list[str] = []
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def add(self, who: str, what: str) -> None:
        now = time.monotonic() - self._begun + (self.clock.ahead if self.clock else 0.0)
        self._left_out += len(self._lines) == LINES
        more = "…" if len(what) > WIDTH else ""
        self._lines.append(f"{now:9.3f}  {who:16}  {what[:WIDTH]}{more}")

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if record.name == "realtime.watchdog":
            self.blocked.append(record.getMessage())
        if record.levelno >= logging.ERROR:
            for expected in self.expected:
                if expected.words in text:
                    expected.came = True
                    break
            else:
                self.errors.append(text)
        for line in text.splitlines() if record.levelno >= logging.ERROR else [text]:
            self.add("log", line)

    @contextmanager
    def listening(self, loop: asyncio.AbstractEventLoop) -> Iterator[Clock]:
        """While a server runs; the clock of its loop."""
        loggers = [logging.getLogger(name) for name in ("realtime", "aiohttp", "asyncio")]
        watchdog = logging.getLogger("realtime.watchdog")
        if not self._depth:
            self.clock, self._level = Clock(loop, self.add), loggers[0].level
            if loggers[0].getEffectiveLevel() > logging.INFO:
                loggers[0].setLevel(logging.INFO)
            for logger in loggers:
                logger.addHandler(self)
            watchdog.addFilter(_blames)
        assert self.clock is not None
        self._depth += 1
        try:
            yield self.clock
        finally:
            self._depth -= 1
            if not self._depth:
                self.clock.restore()
                self.clock = None
                loggers[0].setLevel(self._level)
                for logger in loggers:
                    logger.removeHandler(self)
                watchdog.removeFilter(_blames)

    def check(self) -> None:
        """What the log says of the plugins is told by the test."""
        __tracebackhide__ = True
        blocked, self.blocked = self.blocked, []
        for text in blocked:
            warnings.warn(text, BlockedWarning, stacklevel=2)
        errors, self.errors = self.errors, []
        missing = [expected.words for expected in self.expected if not expected.came]
        self.expected = []
        if errors:
            raise AssertionError(
                "the server logged an error; a test that wants it says so with expect_error(…):\n\n"
                + "\n".join(errors)
            )
        if missing:
            raise AssertionError(f"the server logged no error with {missing[0]!r}, which was expected")

    def __str__(self) -> str:
        first = [f"({self._left_out} earlier lines are left out)"] if self._left_out else []
        return "\n".join([*first, *self._lines])


def _blames(record: logging.LogRecord) -> bool:
    """Whether the watchdog names a plugin: that a test itself holds the loop is nobody's business."""
    return "plugin " in record.getMessage()


@dataclass
class Expected:
    words: str
    came: bool = False
