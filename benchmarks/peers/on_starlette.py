"""The room and the echo on Starlette and uvicorn, as the documentation of its broadcaster does it.

uvicorn with uvloop and httptools, the fastest of its WebSocket protocols, no compression, no access log. A
queue for each client, so that one that stalls does not stop the room; a loop that sends to each in turn is
as fast, and gather() half as fast. Event streams are those of sse-starlette.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import uvicorn
from broadcaster import Broadcast
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

broadcast = Broadcast("memory://")


async def echo(client: WebSocket) -> None:
    await client.accept()
    async for text in client.iter_text():
        await client.send_text(f"Echo: {text}")


async def chat(client: WebSocket) -> None:
    await client.accept()
    name = await client.receive_text()

    async def receive() -> None:
        async for text in client.iter_text():
            await broadcast.publish("room", f"{name}: {text}")
        tasks.cancel_scope.cancel()

    try:
        async with broadcast.subscribe("room") as texts, anyio.create_task_group() as tasks:
            await broadcast.publish("room", f"{name} joined the chat")
            tasks.start_soon(receive)
            async for event in texts:
                await client.send_text(event.message)
    finally:
        await broadcast.publish("room", f"{name} left the chat")


async def events(request: Request) -> EventSourceResponse:
    async def texts() -> AsyncIterator[str]:
        async with broadcast.subscribe("room") as subscriber:
            async for event in subscriber:
                yield event.message

    return EventSourceResponse(texts())


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    await broadcast.connect()
    yield
    await broadcast.disconnect()


routes = [WebSocketRoute("/ws", echo), WebSocketRoute("/chat", chat), Route("/events", events)]
uvicorn.run(
    Starlette(routes=routes, lifespan=lifespan),
    port=int(sys.argv[1]),
    loop="uvloop",
    http="httptools",
    ws="websockets-sansio",
    ws_per_message_deflate=False,
    access_log=False,
    log_level="warning",
)
