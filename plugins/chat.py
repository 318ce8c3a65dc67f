"""Chat: the first text is the name, every other is said to everybody in the room.

A message is `{"from": "alice", "text": "hi"}`, with `realtime:join` and `realtime:leave` for who
comes and goes; a plain WebSocket sees them as `alice: hi`, `alice joined the chat` and
`alice left the chat`. With a path such as `/rooms/{room}` every room is a topic of its own.

Who can send JSON may say `{"text": "hi"}`, too, and `{"text": "psst", "to": "bob"}` to bob alone.
"""

import asyncio
from collections import Counter
from typing import Any, Literal
from unicodedata import normalize

from pydantic import PositiveInt

from realtime import (
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

#: How long whoever loses a name may take to leave, before it is asked for again, in seconds.
LEAVING = 0.05
#: So often a holder that no process knows is asked for: it may be about to join.
ASKED = 20


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
        elif client.closed:
            await self.give_back(client, name)
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

        The holder gives the name back when its leaving has been announced, in whatever process it is.
        """
        topic, person, asked = client.topic, self.person(client), Counter[str]()
        while (holder := await self.bus.claim(topic, name, client.id, person)).id != client.id:
            if person and person == holder.about:
                code, reason = CloseCode.TAKEN_OVER, "your newer connection has taken your name"
            elif await self.ping(topic, id=holder.id):
                return False
            else:
                code, reason = CloseCode.TRY_AGAIN, "you did not answer, and your name was wanted"
            if not await self.kick(topic, id=holder.id, code=code, reason=reason):
                asked[holder.id] += 1
                if asked[holder.id] == ASKED:
                    await self.bus.release(topic, name, holder.id)
            await asyncio.sleep(LEAVING)  # by another process nobody tells us that it has left
        return True

    def person(self, client: Client) -> str:
        """Who it is, whatever token it came with; nothing if nobody knows."""
        return client.identity.name if client.identity else ""

    async def give_back(self, client: Client, name: str) -> None:
        """Somebody else can have the name."""
        if self.settings.unique_names:
            await self.bus.release(client.topic, name, client.id)

    def member(self, client: Client) -> dict[str, Any] | None:
        return super().member(client) if client.name else None  # of who just reads nobody is told

    async def on_message(self, client: Client, message: Message) -> Position | None:
        if message.kind == "bytes":
            await client.close(CloseCode.WRONG_KIND, "the chat takes text only")
            return None
        if client.transport == "post":
            await self.introduce(client)
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

    async def introduce(self, client: Client) -> None:
        """Give a POST, which has neither connected nor joined, the name that it speaks by."""
        name = client.name = self.checked(self.given_name(client))
        if not name:
            raise Rejected(f"say who you are with ?name=…: {self.rule}")
        holder = await self.bus.holder(client.topic, name) if self.settings.unique_names else None
        if holder and holder.about != self.person(client) and await self.ping(client.topic, id=holder.id):
            raise Rejected(f"the name {name} is taken", 409)

    async def whisper(self, client: Client, name: str, text: str) -> None:
        """Send a text to those of one name alone, and to the one who says it."""
        said = {"from": client.name, "text": text, "to": name}
        if not name or not await self.send(client.topic, said, name=name, event="direct"):
            raise Rejected(f"there is no {name!r} here" if name else "there is no such name here", 404)
        if client.name != name or client.transport == "post":  # else it has it
            await client.send(said, event="direct")

    async def on_leave(self, client: Client) -> None:
        if client.name:
            await self.give_back(client, client.name)

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
