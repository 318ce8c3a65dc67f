"""A room that spans processes on python-socketio, as its documentation does it: with its manager for Redis.

Without a URL it is one process. aiohttp with uvloop, the fastest of the ways that it has (before
uvicorn, and aiohttp as it is); WebSocket only, no access log. Everybody is in the room that an emit without
one goes to.
"""

import sys

import socketio
import uvloop
from aiohttp import web

manager = socketio.AsyncRedisManager(sys.argv[2]) if len(sys.argv) > 2 else None
server = socketio.AsyncServer(async_mode="aiohttp", transports=["websocket"], client_manager=manager)


@server.event
async def m(sid: str, text: str) -> None:
    await server.emit("m", text)


app = web.Application()
server.attach(app)
web.run_app(
    app,
    host="127.0.0.1",
    port=int(sys.argv[1]),
    access_log=None,
    print=None,
    loop=uvloop.new_event_loop(),
)
