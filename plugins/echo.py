"""Echo: what a client sends comes back to it, text as `Echo: …`, bytes as they are."""

from realtime import Channel, Client, Message, hookimpl


class Echo(Channel):
    """What a client sends comes back to it."""

    transports = ("websocket", "post")

    async def on_message(self, client: Client, message: Message) -> None:
        if message.kind == "text":
            await client.send(f"Echo: {message.data}")
        else:
            await client.send(message.data)


@hookimpl
def register_channels() -> dict[str, type[Channel]]:
    return {"echo": Echo}
