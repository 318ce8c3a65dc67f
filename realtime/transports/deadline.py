"""The deadlines of a connection: ``handler_timeout`` of what a channel does for it, and its token's end.

A message that is dealt with at once costs nothing here. Whatever takes longer leaves the time when it
began, and is looked at when the connection is.
"""

from __future__ import annotations

import asyncio
import math

from realtime.blame import lines, of_task, theirs
from realtime.channel import Channel, Client
from realtime.close_codes import CloseCode
from realtime.heartbeat import SLOT
from realtime.topic import Topic
from realtime.transports.connections import Connections

#: After how long at most it is looked at whether a token is over, in seconds: the clock on the wall can be
#: set while that of the loop goes on.
LOOK_AT_TOKEN = 20.0


class Deadline(asyncio.Protocol):
    """The part of a connection that does not let a method of its channel wait for ever."""

    __slots__ = ("_overdue", "_since")

    channel: Channel
    client: Client
    connections: Connections
    slot: int | None
    topic: Topic
    _loop: asyncio.AbstractEventLoop
    _task: asyncio.Task[None]
    _waiter: asyncio.Future[None] | None

    def __init__(self) -> None:
        self._since = 0.0  # since when a method is at work that did not finish at once
        self._overdue = False  # it is cancelled for that

    def close(self, code: int, reason: str) -> None:
        """Close the connection, with a code and a reason."""
        raise NotImplementedError

    def beat(self, now: float) -> float | None:
        """Look after the connection (``heartbeat.Beating``)."""
        raise NotImplementedError

    def begin_waiting(self) -> None:
        """A method of the channel begins that may take time."""
        self._since = now = self._loop.time()
        due = now + self.channel.settings.handler_timeout
        if self.slot is None or self.slot * SLOT > due:
            self.connections.heartbeat.schedule(self, due)

    def look_at_token(self) -> float:
        """Close the connection of a token that is over; returns in how many seconds to look again."""
        if self.client.identity is None or (expires := self.client.identity.expires) is None:
            return math.inf
        left = expires - self.topic.bus.wall_time()
        if left <= 0:
            self.close(CloseCode.NOT_AUTHENTICATED, "the token has expired, connect with a new one")
        return min(left, LOOK_AT_TOKEN)

    def look_at_work(self, now: float) -> float:
        """Cancel what takes too long; returns when to look at it again."""
        timeout = self.channel.settings.handler_timeout
        waits_for_client, joined = self._waiter is not None, self.client in self.topic.members
        if waits_for_client and joined:
            return now + timeout  # which may be silent for as long as it likes
        if now < self._since + timeout:
            return self._since + timeout
        if waits_for_client:
            self.close(CloseCode.POLICY, f"said nothing within {timeout:g}s (handler_timeout)")
            return now
        places = theirs(of_task(self._task))
        hook, where = (places[0][0].f_code.co_name, lines(places)) if places else ("a method", ["?"])
        self.channel.log.error(
            "%s of %r did not end within %gs (handler_timeout) and is cancelled, in %s; plugin %r: "
            "what takes longer belongs into a task of lifespan()",
            hook,
            self.client,
            timeout,
            where[-1],
            self.channel.settings.plugin,
            extra={"stack": where},
        )
        self._overdue = True
        self.close(CloseCode.BUG, f"the channel took longer than {timeout:g}s (handler_timeout)")
        self._task.cancel()
        return now

    def tell_stuck(self, grace: float) -> None:
        """Log that what the client had begun has not ended so many seconds after its leaving."""
        places = theirs(of_task(self._task))
        where = lines(places) or ["?"]
        self.channel.log.error(
            "what %r had begun did not end within %gs of its leaving and is cancelled, in %s: "
            "let Disconnected out of plugin %r",
            self.client,
            grace,
            where[-1],
            self.channel.settings.plugin,
            extra={"stack": where},
        )

    def was_overdue(self, error: BaseException) -> bool:
        """Whether this is how a method ended that was cancelled for its time; it is over then."""
        overdue = self._overdue and self._task.uncancel() == 0
        return overdue and isinstance(error, asyncio.CancelledError)
