"""Chat: the first text is the name, every other is said to everybody in the room.

A message is `{"from": "alice", "text": "hi"}`, with `realtime:join` and `realtime:leave` for who
comes and goes; a plain WebSocket sees them as `alice: hi`, `alice joined the chat` and
`alice left the chat`. With a path such as `/rooms/{room}` every room is a topic of its own.

Who can send JSON may say `{"text": "hi"}`, too, and `{"text": "psst", "to": "bob"}` to bob alone.
"""

import asyncio
from typing import Any, Literal
from unicodedata import normalize

from pydantic import PositiveInt

from realtime import (
    Bus,
    Channel,
    Client,
    CloseCode,
    Duration,
    Message,
    Position,
    Presence,
    Rejected,
    hookimpl,
)


class Chat(Channel):
    """A room: the first text is the name, every other is said to everybody."""

    class Settings(Channel.Settings):
        presence: Presence = "announce"

        unique_names: bool = True
        """a name is refused (4509) while its holder in the room answers a ping within two seconds"""

        name_timeout: Duration = 10.0
        """how long a newcomer may take to say its name; then it is closed with 1008"""

        names: Literal["said", "identity"] = "said"
        """`identity`: a WebSocket client that has an identity is called so, and not asked for a name"""

        max_name: PositiveInt = 32
        """the longest name, in characters"""

    settings: Settings
    page = "chat.js"
    transports = ("websocket", "sse", "ndjson", "json", "post")

    def __init__(self, name: str, settings: Settings, bus: Bus) -> None:
        super().__init__(name, settings, bus)
        self.holders: dict[tuple[str, str], Client] = {}  # by room and name

    async def on_connect(self, client: Client) -> None:
        if client.transport != "websocket" or (client.identity and self.settings.names == "identity"):
            name = self.given_name(client)
            if not name:
                return  # a reader without a name just reads
        elif "name" in client.query:
            name = client.query["name"]
        else:
            try:
                greeting = await client.receive(timeout=self.settings.name_timeout)
            except TimeoutError:
                waited = f"{self.settings.name_timeout:g}s"
                await client.close(
                    CloseCode.POLICY,
                    f"no name came within {waited} (name_timeout): the first text is the name",
                )
                return
            if greeting.kind != "text":
                await client.close(CloseCode.WRONG_KIND, "the chat takes text only")
                return
            name = greeting.data
        name = self.checked(name)
        if not name:
            await client.close(CloseCode.POLICY, self.rule)
        elif self.settings.unique_names and not await self.claim(client, name):
            await client.close(CloseCode.NAME_TAKEN, f"the name {name} is taken")
        else:
            client.name = name

    @property
    def rule(self) -> str:
        """What a name is."""
        return f"a name is 1 to {self.settings.max_name} printable characters"

    def given_name(self, client: Client) -> str:
        """The name of a client that has not sent it."""
        return client.identity.name if client.identity else client.query.get("name", "")

    def checked(self, name: str) -> str:
        """The name as it is used; nothing if it is none."""
        name = normalize("NFC", name.strip())  # one name however its accents are encoded
        return name if name.isprintable() and len(name) <= self.settings.max_name else ""

    async def claim(self, client: Client, name: str) -> bool:
        """Whether the client may have the name; a holder that is no longer there loses it.

        Nothing is awaited between its yes and `on_join`, so nobody else can be told yes meanwhile.
        """
        while holder := self.holders.get((client.topic, name)):
            if client.identity and self.person(client) == self.person(holder):
                await holder.close(CloseCode.TAKEN_OVER, "your newer connection has taken your name")
            elif await holder.ping(timeout=2.0):
                return False
            else:
                await holder.close(CloseCode.TRY_AGAIN, "you did not answer, and your name was wanted")
            await holder.state.left.wait()  # its leaving is announced before the newcomer's joining
        return True

    def person(self, client: Client) -> str | None:
        """Who it is, whatever token it came with; None if nobody knows."""
        return client.identity.name if client.identity else None

    async def on_join(self, client: Client) -> None:
        if client.name:
            client.state.left = asyncio.Event()
            self.holders[client.topic, client.name] = client

    def member(self, client: Client) -> dict[str, Any] | None:
        return super().member(client) if client.name else None  # of who just reads nobody is told

    async def on_message(self, client: Client, message: Message) -> Position | None:
        if message.kind == "bytes":
            await client.close(CloseCode.WRONG_KIND, "the chat takes text only")
            return None
        if client.transport == "post":
            self.introduce(client)
        match message.data:
            case str(text):
                pass
            case {"text": str(text), **more} if not more:
                pass
            case {"text": str(text), "to": str(name), **more} if not more:
                await self.whisper(client, self.checked(name), text)
                return None
            case _:
                raise Rejected('say a text, {"text": "hi"}, or {"text": "psst", "to": "bob"}')
        return await self.publish(client.topic, {"from": client.name, "text": text})

    def introduce(self, client: Client) -> None:
        """Give a POST, which has neither connected nor joined, the name that it speaks by."""
        name = client.name = self.checked(self.given_name(client))
        holder = self.holders.get((client.topic, name))
        if not name:
            raise Rejected(f"say who you are with ?name=…: {self.rule}")
        if self.settings.unique_names and holder and self.person(holder) != self.person(client):
            raise Rejected(f"the name {name} is taken", 409)

    async def whisper(self, client: Client, name: str, text: str) -> None:
        """Send a text to those of one name alone, and to the one who says it."""
        members = self.bus.topic(client.topic).members
        there = [member for member in members if member.name == name]
        if not there:
            raise Rejected(f"there is no {name!r} here" if name else "there is no such name here", 404)
        for each in dict.fromkeys((*there, client)):
            await each.send({"from": client.name, "text": text, "to": name}, event="direct")

    async def on_leave(self, client: Client) -> None:
        if client.name:
            if self.holders.get((client.topic, client.name)) is client:
                del self.holders[client.topic, client.name]
            client.state.left.set()

    def as_text(self, message: Message) -> str | None:
        if message.kind != "json":
            return super().as_text(message)
        data = message.data
        if message.event == "realtime:join":
            return f"{data['name']} joined the chat"
        if message.event == "realtime:leave":
            return f"{data['name']} left the chat"
        whom = " (to you)" if message.event == "direct" else ""
        return f"{data['from']}{whom}: {data['text']}"


@hookimpl
def register_channels() -> dict[str, type[Channel]]:
    return {"chat": Chat}
