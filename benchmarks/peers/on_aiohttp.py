"""The room and the echo on plain aiohttp, as its examples do it.

No compression, no access log. The room is a set of WebSockets, to each of which a text is sent in turn.
Event streams are those of aiohttp-sse, each with a queue.
"""

import asyncio
import sys

from aiohttp import WSMsgType, web
from aiohttp_sse import EventSourceResponse, sse_response

room: set[web.WebSocketResponse] = set()
streams: set[asyncio.Queue[str]] = set()


async def broadcast(text: str) -> None:
    for queue in streams:
        queue.put_nowait(text)
    for client in list(room):
        try:
            await client.send_str(text)
        except ConnectionError:
            room.discard(client)


async def echo(request: web.Request) -> web.WebSocketResponse:
    client = web.WebSocketResponse(compress=False, heartbeat=20)
    await client.prepare(request)
    async for message in client:
        if message.type is WSMsgType.TEXT:
            await client.send_str(f"Echo: {message.data}")
    return client


async def chat(request: web.Request) -> web.WebSocketResponse:
    client = web.WebSocketResponse(compress=False, heartbeat=20)
    await client.prepare(request)
    name = await client.receive_str()
    room.add(client)
    await broadcast(f"{name} joined the chat")
    try:
        async for message in client:
            if message.type is WSMsgType.TEXT:
                await broadcast(f"{name}: {message.data}")
    finally:
        room.discard(client)
        await broadcast(f"{name} left the chat")
    return client


async def events(request: web.Request) -> EventSourceResponse:
    queue: asyncio.Queue[str] = asyncio.Queue()
    async with sse_response(request) as stream:
        streams.add(queue)
        try:
            while stream.is_connected():
                await stream.send(await queue.get())
        finally:
            streams.discard(queue)
    return stream


app = web.Application()
app.add_routes([web.get("/ws", echo), web.get("/chat", chat), web.get("/events", events)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
