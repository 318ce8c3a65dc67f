"""Audit: what is said on topics is written down, one JSON object a line.

plugins:
  - {plugin: audit, file: audit.jsonl, topics: [lobby, rooms/*]}

It stands before other plugins: it then begins before them, and ends after them.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, BinaryIO

from pydantic import Field
from realtime import Bus, Message, Model, Observation, hookimpl

#: The version of Realtime's contract with plugins that this is written for.
API_VERSION = 1
#: How many lines may wait for the disk. While more come the topics keep them, as for any slow reader.
WAITING = 10_000


def line_of(topic: str, message: Message) -> bytes:
    """A message as it is written down."""
    fields = {"time": message.time, "topic": topic, "id": str(message.id), "event": message.event}
    if message.kind == "bytes":
        data = {"data": base64.b64encode(message.payload).decode(), "encoding": "base64"}
    else:
        data = {"data": message.data}
    return json.dumps({**fields, **data}, ensure_ascii=False).encode() + b"\n"


class Plugin:
    """Writes down what is said."""

    class Settings(Model):
        file: str
        """the file, to whose end lines are added"""

        topics: Annotated[list[str], Field(min_length=1, default_factory=lambda: ["*"])]
        """which topics; a `*` at the end of one stands for anything"""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @hookimpl
    def register_services(self, bus: Bus) -> Iterable[AbstractAsyncContextManager[None]]:
        return [self.running(bus)]

    @asynccontextmanager
    async def running(self, bus: Bus) -> AsyncIterator[None]:
        """Write as long as the server runs; a file that cannot be opened stops its start."""
        lines: asyncio.Queue[bytes] = asyncio.Queue(WAITING)
        with await asyncio.to_thread(open, self.settings.file, "ab") as file:
            # Left the other way round: the reading task comes to the end of what there is, then both end.
            async with asyncio.TaskGroup() as tasks, bus.observe(*self.settings.topics) as messages:
                tasks.create_task(self.read(messages, lines))
                tasks.create_task(self.write(lines, file))
                yield

    async def read(self, messages: Observation, lines: asyncio.Queue[bytes]) -> None:
        """Take what is published, and what was missed, for that comes as a message, too."""
        async for topic, message in messages:
            await lines.put(line_of(topic, message))
        await lines.put(b"")

    async def write(self, lines: asyncio.Queue[bytes], file: BinaryIO) -> None:
        """Write what has gathered, in a thread, for a disk may be slow. An error ends the service."""
        more = True
        while more:
            batch = [await lines.get()]
            while not lines.empty():
                batch.append(lines.get_nowait())
            more = batch[-1] != b""
            await asyncio.to_thread(self.append, file, b"".join(batch))

    def append(self, file: BinaryIO, data: bytes) -> None:
        """Hand it to the system at once, so that it is there even if the process is killed."""
        file.write(data)
        file.flush()
