"""What the host itself says on a connection: where it begins, that it lives, and why it ends."""

from __future__ import annotations

from typing import Any

from realtime.message import Message, Position
from realtime.subscriber import HELD
from realtime.transports.connection import Connection


class ControlledConnection(Connection):
    """A connection in whose form there is room for events of the host's own."""

    __slots__ = ()

    def say(self, name: str, data: dict[str, Any], id: Position | None = None) -> bytes:
        """An event of the host's own, not wrapped yet."""
        now = self.topic.bus.wall_time()
        return self.form.encode(Message.of(data, event=f"realtime:{name}", time=now, id=id))

    def welcome(self) -> bytes:
        """What comes before any message: who the client is, where it begins, what to expect."""
        resumed = self.subscriber.resumed
        data = {
            "client": self.client.id,
            "channel": self.channel.name,
            "outcome": resumed.outcome,
            "heartbeat": self.channel.settings.keep_alive,
        }
        # After a gap or a reset the marker brings the position: a client that keeps positions
        # and is cut before the marker comes has not been told yet what it missed.
        position = Position(self.topic.epoch, self.subscriber.cursor)
        if resumed.outcome == "gap":
            data["missed"] = resumed.missed
        return self.say("welcome", data, None if resumed.lossy else position)

    def bye(self, code: int, reason: str, after: int | None) -> bytes:
        """What comes last: the close code, why, and after how many milliseconds to come back."""
        return self.say("bye", {"code": code, "reason": reason, "retry": after})

    def greet(self, introduction: str) -> None:
        """The welcome."""
        self.write(self.form.wrap(self.welcome()))

    def send(self, message: Message) -> None:
        """Write a message to this client alone, which is a sign of life, too."""
        self.subscriber.written_at = self._loop.time()
        super().send(message)

    def tell(self, data: bytes) -> None:
        """Write something of the host's own, in its place among the messages; it is a sign of life, too."""
        self.subscriber.written_at = self._loop.time()
        self.subscriber.send(data)

    def watch(self) -> None:
        """Begin to look after the connection, which has just been welcomed."""
        self.subscriber.written_at = self._loop.time()
        super().watch()

    def keep_alive(self, now: float) -> float:
        """Give a sign of life after ``keep_alive`` without one; returns when to look again."""
        period = self.channel.settings.keep_alive
        due = self.subscriber.written_at + period
        if due > now:
            return due
        # Not now, for the delay of each look would add up; but what was slept through is over.
        self.subscriber.written_at = max(due, now - period)
        # An event that is on its way spares it; while the client is greeted none is.
        on_its_way = self.subscriber.cursor != self.topic.head and self.subscriber.state is not HELD
        if not on_its_way and not self.paused:
            self.write(self.heartbeat())
        return self.subscriber.written_at + period

    def heartbeat(self) -> bytes:
        """The sign of life: an event, for a browser shows a WebSocket's pings to no script."""
        return self.form.wrap(self.say("heartbeat", {}))
