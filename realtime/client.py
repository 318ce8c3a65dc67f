"""The client of the command line: ``python -m realtime connect URL``.

Lines of standard input go out, messages come out on standard output; whatever else there is to say
goes to standard error, so that it can stand in a pipe.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading

import aiohttp

from realtime.close_codes import CloseCode

OK, NOT_CONNECTED, CLOSED = 0, 3, 4
#: How long the closing handshake may take after Ctrl-C or ``--count``, in seconds.
CLOSE_TIMEOUT = 2.0


async def connect(url: str, *, name: str | None = None, count: int | None = None) -> int:
    """Connect and copy both ways until the server closes, ``count`` is reached, or Ctrl-C.

    Returns the exit code: 4 when the server closed with an error, 3 when it could not be reached.
    """
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            if url.startswith(("ws://", "wss://")):
                return await _websocket(session, url, name, count)
            if url.startswith(("http://", "https://")):
                return await _events(session, url, count)
            _say(f"{url}: a URL begins with ws://, wss://, http:// or https://")
            return 2
    except aiohttp.WSServerHandshakeError as error:
        _say(f"{url}: no WebSocket: {error.status} {error.message}")
    except aiohttp.ClientError as error:
        _say(f"{url}: {error}")
    return NOT_CONNECTED


async def _websocket(session: aiohttp.ClientSession, url: str, name: str | None, count: int | None) -> int:
    async with session.ws_connect(url, max_msg_size=0, autoping=True, timeout=_close_timeout()) as ws:
        _say("WebSocket connected")
        if name is not None:
            await ws.send_str(name)
        lines = _lines()
        sending = asyncio.create_task(_send(ws, lines))
        try:
            received = 0
            async for message in ws:
                if message.type is aiohttp.WSMsgType.TEXT:
                    _print(message.data)
                elif message.type is aiohttp.WSMsgType.BINARY:
                    _print(message.data.decode(errors="backslashreplace"))
                received += 1
                if received == count:
                    return OK
        finally:
            sending.cancel()
        reason = getattr(ws, "close_reason", None)
        code = ws.close_code
        _say(f"closed by the server: {code}{f' {reason}' if reason else ''}")
        return OK if code in (CloseCode.DONE, CloseCode.SHUTTING_DOWN, CloseCode.RESTARTING) else CLOSED


async def _send(ws: aiohttp.ClientWebSocketResponse, lines: asyncio.Queue[str]) -> None:
    while True:
        await ws.send_str(await lines.get())


async def _events(session: aiohttp.ClientSession, url: str, count: int | None) -> int:
    async with session.get(url, headers={"Accept": "text/event-stream"}) as response:
        if response.status != 200 or response.content_type != "text/event-stream":
            body = (await response.content.read(2000)).decode(errors="replace").strip()
            _say(f"{url}: no stream of events: {response.status} {response.reason}: {body}")
            return NOT_CONNECTED
        _say("stream of events connected")
        data: list[str] = []
        received = 0
        async for raw in response.content:
            line = raw.decode(errors="replace").rstrip("\r\n")
            field, _, value = line.partition(":")
            if field == "data":
                data.append(value.removeprefix(" "))
            elif not line and data:
                _print("\n".join(data))
                data.clear()
                received += 1
                if received == count:
                    return OK
        _say("the stream has ended")
        return OK


def _lines() -> asyncio.Queue[str]:
    """The lines of standard input, as they come."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str] = asyncio.Queue()

    def read() -> None:
        # Bare reads: a thread that waits in sys.stdin would hold its lock when the process ends.
        rest = b""
        while chunk := os.read(0, 65536):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                loop.call_soon_threadsafe(lines.put_nowait, line.decode(errors="replace").rstrip("\r"))
        if rest:
            loop.call_soon_threadsafe(lines.put_nowait, rest.decode(errors="replace"))

    threading.Thread(target=read, daemon=True, name="standard input").start()
    return lines


def _close_timeout() -> aiohttp.ClientWSTimeout:
    return aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT)


def _print(text: str) -> None:
    print(f"Received: {text}", flush=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
