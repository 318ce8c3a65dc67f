"""Every error that Realtime raises on purpose, and the hint that many of them end with.

RealtimeError
├── ConfigError      the config, or a plugin it names, cannot be used (exit code 1)
├── StartError       the server could not start: port, permission (exit code 3)
├── BusError         the bus cannot do what was asked
│   ├── UnknownTopic     no channel declares such a topic
│   ├── TooManyTopics    the server's limit of topics is reached
│   ├── TooLarge         the message is larger than a topic can hold; it is a Rejected, too
│   └── Unavailable      the engine that keeps the logs is away; it is a Rejected, too
├── Disconnected     the client is gone, so nothing can be received from it
├── Rejected         raised by a channel: it does not take what a client said
├── Closed           connect(): the server has ended the connection, and it is not taken up again
├── NotConnected     connect(): the server cannot be reached, or not in time; nothing was sent
├── Refused          connect(): the server answered, and said no: to a connection or to a message
└── Unconfirmed      connect(): a message was sent, and nothing says whether it has arrived
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus

from realtime.close_codes import CloseCode, comes_back, describe

#: The most that an error shows of what a server says, in characters.
MAX_SHOWN = 300


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


class Rejected(RealtimeError):
    """A channel raises it in ``on_message``: it does not take what the client said, which stays.

    The text is a sentence for the client. ``status`` is that of HTTP, 400 to 599. Where there is no
    way to say it, on a plain WebSocket, the client is closed with ``close_code``; in ``on_connect`` and
    ``on_join`` it always is.
    """

    def __init__(self, sentence: str, status: int = 400) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"{status} is no status of an error: they are 400 to 599")
        self.status = status
        sentence = sentence or "the channel does not take this"
        # A lone surrogate can be said nowhere.
        super().__init__(sentence.encode(errors="replace").decode())

    @property
    def close_code(self) -> CloseCode:
        """The close code that says the same as the status, as far as there is one."""
        codes = {401: CloseCode.NOT_AUTHENTICATED, 403: CloseCode.NOT_ALLOWED, 413: CloseCode.TOO_BIG}
        return codes.get(self.status, CloseCode.TRY_AGAIN if self.status == 503 else CloseCode.POLICY)


class TooLarge(Rejected, BusError):
    """A message that is larger than its topic can hold for readers that fall behind; it is not published.

    Where a client's message asked for it, that is refused with 413 unless the channel does something else.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, 413)


class Unavailable(Rejected, BusError):
    """The engine that keeps the logs is away, so nothing can be published or opened now.

    Where a client's message asked for it, that is refused with 503 unless the channel does something else.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, 503)


class Closed(RealtimeError):
    """The server has ended the connection: ``1013 try again: too slow``.

    ``code`` is a close code (RFC 6455, section 7.4), also where a stream of events has ended; 1005
    when that gave none and 1006 when the connection was lost. ``reason`` is the server's sentence.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        self.code = code
        self.reason = reason
        super().__init__(describe(code, printable(reason, MAX_SHOWN)))

    @property
    def comes_back(self) -> bool:
        """Whether connecting again makes sense."""
        return comes_back(self.code)


class NotConnected(RealtimeError):
    """There is no connection, and within the time allowed there was none; nothing was sent."""


class Refused(RealtimeError):
    """The server answered, and said no: to a connection or to a message.

    ``status`` is that of HTTP, also where a message was refused over a WebSocket; None if there was none.
    ``body`` is the server's text, at most 2,000 bytes of it. ``retry_after`` is when it asks to be asked
    again, in seconds, if it does.
    """

    def __init__(
        self, what: str, status: int | None = None, body: str = "", retry_after: float | None = None
    ) -> None:
        self.status = status
        self.body = body
        self.retry_after = retry_after
        answer = "" if status is None else str(status)
        if status in set(HTTPStatus):
            answer = f"{status} {HTTPStatus(status).phrase}"
        first_line = printable(body.strip().partition("\n")[0].rstrip(), MAX_SHOWN)
        if first_line.replace(":", "") == answer:  # what aiohttp says when nobody said anything
            first_line = ""
        super().__init__(": ".join(filter(None, (what, answer, first_line))))

    @property
    def comes_back(self) -> bool:
        """Whether asking again makes sense: after 408, 425, 429 and 5xx (RFC 9110, section 15)."""
        return self.status is not None and (self.status in (408, 425, 429) or self.status >= 500)


class Unconfirmed(RealtimeError):
    """A message was sent, but the connection or the time ended first: it may have arrived or not."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: the message may have arrived, or not")


def python_escape(character: str) -> str:
    """A character as Python writes it in a text: ``\\x1b``."""
    return ascii(character)[1:-1]


def json_escape(character: str) -> str:
    """A character as JSON can write it in a text: ``\\u001b`` (RFC 8259, section 7)."""
    # No codec, whose file cannot be read any more when the process has no descriptor left.
    return json.dumps(character)[1:-1] if character > "\x1f" else f"\\u{ord(character):04x}"


def printable(text: str, most: int | None = None, escape: Callable[[str], str] = python_escape) -> str:
    """The text with everything escaped that ends a line, drives a terminal or cannot be seen.

    Then it is cut to ``most`` characters.
    """
    shown = text[:most]
    if not shown.isprintable():
        shown = "".join(one if one.isprintable() else escape(one) for one in shown)
    return shown if most is None or len(text) <= most else f"{shown[:most]}…"


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """``, did you mean …?`` with the nearest of some words, or nothing."""
    near = difflib.get_close_matches(word, list(words), 1)
    return f", did you mean {near[0]!r}?" if near else ""
