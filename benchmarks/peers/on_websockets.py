"""The room and the echo on websockets, as its documentation recommends.

Fan-out with `broadcast()`, no compression, uvloop. It serves WebSockets only, so no event streams.
"""

import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

room: set[ServerConnection] = set()


async def echo(client: ServerConnection) -> None:
    async for text in client:
        await client.send(f"Echo: {text}")


async def chat(client: ServerConnection) -> None:
    name = await client.recv()
    room.add(client)
    broadcast(room, f"{name} joined the chat")
    try:
        async for text in client:
            broadcast(room, f"{name}: {text}")
    finally:
        room.discard(client)
        broadcast(room, f"{name} left the chat")


async def route(client: ServerConnection) -> None:
    assert client.request is not None
    await (echo if client.request.path == "/ws" else chat)(client)


async def main() -> None:
    async with serve(route, "127.0.0.1", int(sys.argv[1]), compression=None) as server:
        await server.serve_forever()


uvloop.run(main())
