"""The room and the echo on picows, as its documentation recommends.

Listeners without coroutines, a payload that is encoded once, uvloop. It serves WebSockets only, so no
event streams.
"""

import sys

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

room: dict["Chat", WSTransport] = {}


def broadcast(text: bytes) -> None:
    for transport in room.values():
        transport.send(WSMsgType.TEXT, text)


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT:
            transport.send(WSMsgType.TEXT, b"Echo: " + frame.get_payload_as_bytes())
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()


class Chat(WSListener):
    name = b""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT:
            text = frame.get_payload_as_bytes()
            if self.name:
                broadcast(self.name + b": " + text)
            else:
                self.name = text
                room[self] = transport
                broadcast(self.name + b" joined the chat")
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if room.pop(self, None):
            broadcast(self.name + b" left the chat")


def listener(request: WSUpgradeRequest) -> WSListener:
    return Echo() if request.path == b"/ws" else Chat()


async def main() -> None:
    server = await ws_create_server(listener, "127.0.0.1", int(sys.argv[1]), enable_auto_ping=True)
    await server.serve_forever()


uvloop.run(main())
