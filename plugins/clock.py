"""Clock: the time, to everybody at once and then with every interval.

One task ticks, however many clients there are. Between two ticks the host sends a comment when a
`keep_alive` passes without an event; that keeps proxies from closing a silent stream.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

from realtime import Channel, Client, Duration, Once, Unavailable, hookimpl


def now() -> str:
    """The current time in words."""
    return f"Current time: {datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f} UTC"


class Clock(Channel):
    """The time at once, and then with every interval."""

    class Settings(Channel.Settings):
        interval: Duration = 1.0
        """the time between two events"""

        keep_alive: Duration = 1.0
        keep_alive_text: str = "keep-alive-text"

    settings: Settings
    page = "clock.js"
    transports = ("sse", "websocket", "ndjson", "json")

    async def on_join(self, client: Client) -> None:
        await client.send(now())

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            ticking = tasks.create_task(self.tick())
            yield
            ticking.cancel()

    async def tick(self) -> None:
        """Publish the time with every interval, without drifting."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            interval, once = self.settings.interval, None
            due = max(due + interval, loop.time())
            if self.bus.shared:  # each process ticks in the middle of the same interval, and one is heard
                due = loop.time() + 1.5 * interval - self.bus.wall_time() % interval
            await asyncio.sleep(due - loop.time())  # this is what a clock does
            if self.bus.shared:
                once = Once(f"tick {self.bus.wall_time() // interval}", 10 * interval)
            for topic in self.topics:
                if self.bus.topic(topic).subscribers:  # a topic where nobody is may go
                    with suppress(Unavailable):  # the next tick comes for certain
                        await self.bus.publish(topic, now(), once=once)


@hookimpl
def register_channels() -> dict[str, type[Channel]]:
    return {"clock": Clock}
