"""Your name: what a client says is said to everybody on the channel."""

from pydantic import PositiveInt
from realtime import Channel, Client, Message, Position, Rejected, hookimpl

#: The version of Realtime's contract with plugins that this is written for.
API_VERSION = 1


class YourName(Channel):
    """What one says, everybody sees.

    A newcomer is welcomed. What a client says is published with its name in front:
    that of its identity, or else its id. It has to be text, and no longer than
    `max_length`; anything else is refused with a sentence.
    """

    class Settings(Channel.Settings):
        welcome: str = "Welcome!"
        """what a newcomer is told; `""`: nothing"""

        max_length: PositiveInt = 500
        """the longest text that may be said, in characters"""

    settings: Settings

    async def on_join(self, client: Client) -> None:
        if self.settings.welcome:
            await client.send(self.settings.welcome)

    async def on_message(self, client: Client, message: Message) -> Position | None:
        longest = self.settings.max_length
        if message.kind != "text":
            raise Rejected("only text can be said here", 415)
        if len(message.data) > longest:
            raise Rejected(f"at most {longest} characters can be said at once", 413)
        name = client.identity.name if client.identity else client.id
        return await self.publish(client.topic, f"{name}: {message.data}")


@hookimpl
def register_channels() -> dict[str, type[Channel]]:
    return {"your-name": YourName}
