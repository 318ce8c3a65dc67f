"""Topics: publish and subscribe; whoever reads a topic gets what is published to it, as it is.

With the path `/topics/{topic...}` each topic is a URL of its own, and is there once somebody uses it. A
backend publishes with a POST, a browser reads with `EventSource` or the client of `/-/realtime.js`.
"""

from realtime import Allow, Channel, Client, Message, Permission, Position, hookimpl


class Rules(Allow):
    """Who may use topics: unlike other channels, to publish is for the machine's own programs."""

    publish: Permission = "local"
    """who may send messages: `local`, so that a backend beside the server may, and its browsers may not"""


class Topics(Channel):
    """What is published to a topic, to everybody who reads it."""

    class Settings(Channel.Settings):
        allow: Rules = Rules()
        """who may do what"""

    settings: Settings

    async def on_message(self, client: Client, message: Message) -> Position | None:
        return await self.publish(client.topic, message.data, event=message.event)


@hookimpl
def register_channels() -> dict[str, type[Channel]]:
    return {"topics": Topics}
