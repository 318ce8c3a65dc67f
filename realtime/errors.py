"""Every error that Realtime raises on purpose, and the hint that many of them end with.

RealtimeError
├── ConfigError      the config, or a plugin it names, cannot be used (exit code 1)
├── StartError       the server could not start: port, permission (exit code 3)
├── BusError         the bus cannot do what was asked
│   ├── UnknownTopic     no channel declares such a topic
│   └── TooManyTopics    the server's limit of topics is reached
└── Disconnected     the client is gone, so nothing can be received from it
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


class RealtimeError(Exception):
    """The base of all of them; its text is written for the person who made the mistake."""


@dataclass(frozen=True)
class Problem:
    """One mistake: where it is, the path of the key, and what is wrong.

    ``source`` is the file as the user named it; ``line`` and ``column`` count from 1, and are 0 where
    no place in it is known.
    """

    message: str
    path: str = ""
    source: str = ""
    line: int = 0
    column: int = 0

    @property
    def place(self) -> str:
        """``file:line:column``, as editors and terminals understand it."""
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.path, self.message) if part)


class ConfigError(RealtimeError):
    """Everything that is wrong with a config and with the plugins it names, all at once.

    ``problems`` are in the order of their places.
    """

    def __init__(self, *problems: Problem) -> None:
        self.problems = sorted(dict.fromkeys(problems), key=lambda problem: (problem.line, problem.column))
        super().__init__("\n".join(map(str, self.problems)))


class StartError(RealtimeError):
    """The server could not start, although its config is right."""


class BusError(RealtimeError):
    """The bus cannot do what was asked."""


class UnknownTopic(BusError):
    """No channel declares a topic of this name."""


class TooManyTopics(BusError):
    """``server.limits.topics`` topics exist, and every one of them is in use."""


class Disconnected(RealtimeError):
    """The client is gone: :meth:`Client.receive` has nothing more to return."""


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """``, did you mean …?`` with the nearest of some words, or nothing."""
    near = difflib.get_close_matches(word, list(words), 1)
    return f", did you mean {near[0]!r}?" if near else ""
