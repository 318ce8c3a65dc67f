"""Why a connection was closed: the one table of WebSocket close codes (RFC 6455, section 7.4).

``docs/reference/close-codes.md`` is the same table for people. From 4000 the codes are ours: 4000 to 4499
are terminal, 4500 to 4999 say come back. A channel's own codes follow that.
"""

from __future__ import annotations

import random
from enum import IntEnum
from typing import NamedTuple


class End(NamedTuple):
    """How a connection ends: a close code and the reason, for people."""

    code: int
    reason: str


class CloseCode(IntEnum):
    """A close code that this server sends."""

    DONE = 1000
    SHUTTING_DOWN = 1001
    PROTOCOL_ERROR = 1002
    WRONG_KIND = 1003
    BAD_DATA = 1007
    POLICY = 1008
    TOO_BIG = 1009
    BUG = 1011
    RESTARTING = 1012
    TRY_AGAIN = 1013
    NOT_AUTHENTICATED = 4401
    NOT_ALLOWED = 4403
    TAKEN_OVER = 4409
    NAME_TAKEN = 4509
    TOO_MANY_MESSAGES = 4529

    @property
    def comes_back(self) -> bool:
        """Whether a client that was closed with this code should connect again."""
        return comes_back(self)


#: What no frame carries, but either side reports: how else a connection can end.
NO_CODE, LOST = 1005, 1006
#: A server that goes and comes back: its clients come back to it, sooner than after anything else.
RESTARTS = (CloseCode.SHUTTING_DOWN, CloseCode.RESTARTING)
_FINAL = {
    CloseCode.DONE,
    CloseCode.PROTOCOL_ERROR,
    CloseCode.WRONG_KIND,
    CloseCode.BAD_DATA,
    CloseCode.POLICY,
    CloseCode.TOO_BIG,
}

#: After how long a client comes back to a server that is shut down, in milliseconds: somewhere
#: between the two, or all of its clients would come at once.
RESTART = (1000, 5000)
#: The same after a part of it was made again, which is there already: what is published meanwhile is to
#: be still kept then.
RELOAD = (200, 2000)
#: The same after anything else: what a client begins with that waits longer each time.
BACK_OFF = (2000, 8000)

_WAITS: dict[int, tuple[int, int]] = {CloseCode.SHUTTING_DOWN: RESTART, CloseCode.RESTARTING: RELOAD}

#: The longest reason, in bytes of UTF-8: a control frame carries 125, two are the code's.
MAX_REASON = 123


def comes_back(code: int) -> bool:
    """Whether a client that was closed with this code, anybody's, should connect again."""
    return code not in _FINAL and not 4000 <= code <= 4499


def describe(code: int, reason: str = "") -> str:
    """A code in words, with the reason if there is one: ``1013 try again: too slow``."""
    words = {NO_CODE: "ended without a code", LOST: "connection lost"}.get(code, "")
    if code in set(CloseCode):
        words = CloseCode(code).name.replace("_", " ").lower()
    return ": ".join(filter(None, (f"{code} {words}".rstrip(), reason)))


def retry(code: int) -> int | None:
    """After how many milliseconds a client that was closed with this code should come back, or None.

    Another number each time, lest all of them come at once.
    """
    if not comes_back(code):
        return None
    return random.randint(*_WAITS.get(code, BACK_OFF))


def retry_after() -> str:
    """The same in HTTP, for who was refused for now (RFC 9110, section 10.2.3): so many seconds."""
    return str(round((retry(CloseCode.TRY_AGAIN) or 0) / 1000))


def may_be_sent(code: int) -> bool:
    """Whether an endpoint may put this code into a close frame (RFC 6455, section 7.4.1-2).

    1004 is reserved; 1005, 1006 and 1015 only report what no frame said; 1016 to 2999 are not
    assigned.
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def cut_reason(reason: str) -> bytes:
    """``reason`` in UTF-8, cut to what fits into a close frame without splitting a character."""
    return reason.encode(errors="replace")[:MAX_REASON].decode(errors="ignore").encode()
