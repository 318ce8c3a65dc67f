"""Findings: what a check saw go wrong, at which line of the plugin, and what its author can do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple


class Do:
    """Remedies: what an author can do about it."""

    AWAIT = "await what takes long; for what cannot be awaited: await asyncio.to_thread(…)"
    BEAR = "on_leave has to bear whatever state a client is in, and to end by itself"
    BOUND = (
        "publish() and client.send() keep what is needed, within a bound; a queue of your own needs one, "
        "too: asyncio.Queue(maxsize=…), and close who does not keep up"
    )
    CANCEL = "cancel in on_leave what a client has begun; or keep it in a TaskGroup of lifespan()"
    CATCH = "catch what a client may cause; for a message that is not taken: raise Rejected(sentence)"
    CLOSE = "close what was opened: in on_leave if it is for a client, or with a with statement"
    END = "lifespan() must end soon after its yield: cancel its tasks there, and wait for nobody"
    FORGET = "forget in on_leave what belongs to a client; or bound it, as deque(maxlen=…) does"
    FREE = "free it in on_leave, and claim nothing before on_join: who goes earlier never leaves"
    GREET = "if a client says something first, give it: --say TEXT, or --query NAME=VALUE"
    GROUP = "a task of the channel belongs into a TaskGroup in lifespan(), and is cancelled there"
    JOIN = "end and join() a thread after the yield of lifespan(), or begin it with daemon=True"
    LAST = "what lives as long as the channel stands before and after the yield of lifespan()"
    LET_IN = "give its clients what they need: -H 'Authorization: Bearer TOKEN', --query NAME=VALUE"
    LET_THROUGH = "let asyncio.CancelledError through: `except Exception` does, a bare `except` does not"
    LIMIT = "a method waits for what a client that is gone will never do: put asyncio.timeout() around it"
    SEND = "wait for no client while others want something: publish() and client.send() do not"
    WRITE_AWAIT = "write await before it"


class Finding(NamedTuple):
    """What went wrong: what happened, at which line of the plugin, and what its author can do."""

    happened: str
    place: str = ""
    remedy: str = ""


class Trouble(Exception):
    """A check cannot go on; ``finding`` says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.happened)
        self.finding = finding


class Skipped(Exception):
    """A check does not apply to this channel, or cannot be made; the text says why."""


def gathered(findings: Iterable[Finding]) -> list[Finding]:
    """Of findings that are alike the first, with how many there were.

    Alike are those of one place and remedy; where there is no place, those that differ in numbers only.
    """
    alike: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        what = finding.place or re.sub(r"\d+", "", finding.happened)
        alike.setdefault((what, finding.remedy), []).append(finding)
    return [
        one._replace(happened=f"{one.happened} ({1 + len(more)} times)") if more else one
        for one, *more in alike.values()
    ]
