"""The room and the echo on socketify, Python on uWebSockets, as its documentation recommends.

Native publish and subscribe, no compression. Event streams are responses that are written to.
"""

import sys
from typing import Any

from socketify import App, CompressOptions, OpCode

names: dict[Any, str] = {}
streams: set[Any] = set()
settings = {"compression": CompressOptions.DISABLED, "idle_timeout": 60}
app = App()


def broadcast(text: str) -> None:
    app.publish("room", text, OpCode.TEXT)
    for stream in streams:
        stream.write(f"data: {text}\n\n")


def echo(client: Any, text: Any, opcode: OpCode) -> None:
    client.send(f"Echo: {text}" if opcode == OpCode.TEXT else text, opcode)


def upgrade(response: Any, request: Any, context: Any) -> None:
    key = request.get_header("sec-websocket-key")
    protocol = request.get_header("sec-websocket-protocol")
    extensions = request.get_header("sec-websocket-extensions")
    response.upgrade(key, protocol, extensions, context, {"name": ""})


def chat(client: Any, text: Any, opcode: OpCode) -> None:
    user = client.get_user_data()
    if user["name"]:
        broadcast(f"{user['name']}: {text}")
    else:
        user["name"] = text
        client.subscribe("room")
        broadcast(f"{text} joined the chat")


def left(client: Any, code: int, reason: Any) -> None:
    name = client.get_user_data()["name"]
    if name:
        broadcast(f"{name} left the chat")


def events(response: Any, request: Any) -> None:
    response.write_header("Content-Type", "text/event-stream")
    response.on_aborted(lambda stream: streams.discard(stream))
    response.write(": the room\n\n")
    streams.add(response)


app.ws("/ws", {**settings, "message": echo})
app.ws("/chat", {**settings, "upgrade": upgrade, "message": chat, "close": left})
app.get("/events", events)
app.listen({"port": int(sys.argv[1]), "host": "127.0.0.1"})
app.run()
