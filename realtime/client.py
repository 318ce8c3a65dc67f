"""The client of the command line: ``python -m realtime connect URL``.

Lines of standard input go out, messages come out on standard output; whatever else there is to say
goes to standard error, so that it can stand in a pipe.
"""

from __future__ import annotations

import asyncio
import codecs
import io
import os
import sys
import threading
from collections.abc import AsyncIterator
from http import HTTPStatus

import aiohttp
import orjson
from yarl import URL

from realtime.close_codes import CloseCode

OK, USAGE, NOT_CONNECTED, CLOSED = 0, 2, 3, 4
#: How long it may take until the server has answered the request, in seconds.
CONNECT_TIMEOUT = 10.0
#: How long the closing handshake may take after Ctrl-C or ``--count``, in seconds.
CLOSE_TIMEOUT = 2.0
#: With these codes the server has not ended the connection for an error.
_FINE = (CloseCode.DONE, CloseCode.SHUTTING_DOWN, CloseCode.RESTARTING)


async def connect(url: str, *, name: str | None = None, count: int | None = None) -> int:
    """Connect and copy both ways until the server closes, ``count`` is reached, or Ctrl-C.

    Returns the exit code: 2 when the URL is none, 3 when it could not be reached, 4 when the
    server closed with an error or the connection was lost.
    """
    try:
        target = URL(url)
    except ValueError:
        target = URL()
    if target.scheme not in ("ws", "wss", "http", "https"):
        _say(f"{url}: a URL begins with ws://, wss://, http:// or https://")
        return USAGE
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for what the terminal cannot show
    timeout = aiohttp.ClientTimeout(total=None)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            if target.scheme in ("ws", "wss"):
                return await _websocket(session, target, name, count)
            return await _events(session, target if name is None else target.update_query(name=name), count)
    except aiohttp.InvalidURL:
        _say(f"{url}: this is no URL")
        return USAGE
    except TimeoutError:
        _say(f"{url}: no answer within {CONNECT_TIMEOUT:g}s")
    except aiohttp.WSServerHandshakeError as error:
        _say(f"{url}: no WebSocket: the server answers {_status(error.status)}")
    except aiohttp.ClientError as error:
        _say(f"{url}: cannot connect: {_why(error)}")
    except BrokenPipeError:
        return OK  # whoever read our output has enough, as `| head -1` has: no error
    except OSError as error:
        _say(f"cannot write what is received: {(error.strerror or str(error)).lower()}")
    return NOT_CONNECTED


async def _websocket(session: aiohttp.ClientSession, url: URL, name: str | None, count: int | None) -> int:
    async with asyncio.timeout(CONNECT_TIMEOUT):
        ws = await session.ws_connect(
            url, max_msg_size=0, timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT)
        )
    async with ws:
        _say("WebSocket connected")
        sending = asyncio.create_task(_send(ws, name))
        try:
            received = 0
            while True:
                message = await ws.receive()
                if message.type is aiohttp.WSMsgType.TEXT:
                    _print(message.data)
                elif message.type is aiohttp.WSMsgType.BINARY:
                    _print(message.data.decode(errors="backslashreplace"))
                else:
                    break
                received += 1
                if received == count:
                    return OK
        finally:
            sending.cancel()
        if message.type is not aiohttp.WSMsgType.CLOSE:
            _say("the connection was lost")
            return CLOSED
        code, reason = message.data or CloseCode.DONE, message.extra
        _say(f"closed by the server: {code}{f' {reason}' if reason else ''}")
        return OK if code in _FINE else CLOSED


async def _send(ws: aiohttp.ClientWebSocketResponse, name: str | None) -> None:
    try:
        if name is not None:
            await ws.send_str(name)
        async for lines in _lines():
            for line in lines:
                await ws.send_str(line)
    except aiohttp.ClientError:
        pass  # the connection is going: whoever receives from it says why


async def _events(session: aiohttp.ClientSession, url: URL, count: int | None) -> int:
    async with asyncio.timeout(CONNECT_TIMEOUT):
        response = await session.get(url, headers={"Accept": "text/event-stream"})
    async with response:
        if response.status != HTTPStatus.OK or response.content_type != "text/event-stream":
            body = (await response.content.read(2000)).decode(errors="replace").strip()
            said = f": {body.splitlines()[0]}" if body else ""
            _say(f"{url}: no stream of events: the server answers {_status(response.status)}{said}")
            return NOT_CONNECTED
        _say("stream of events connected")
        # A line ends with \r\n, \n or \r (HTML standard, section 9.2.5), and may be of any length.
        decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), True)
        event, data = "", list[str]()
        rest, received = "", 0
        try:
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + decoder.decode(chunk)).split("\n")
                for line in lines:
                    field, _, value = line.partition(":")
                    if field == "data":
                        data.append(value.removeprefix(" "))
                    elif field == "event":
                        event = value.removeprefix(" ")
                    elif not line and event == "realtime:bye":
                        bye = orjson.loads("\n".join(data))
                        _say(f"closed by the server: {bye['code']}: {bye['reason']}")
                        return OK if bye["code"] in _FINE else CLOSED
                    elif not line and data:
                        if event != "realtime:welcome":
                            _print("\n".join(data))
                            received += 1
                        event = ""
                        data.clear()
                        if received == count:
                            return OK
        except aiohttp.ClientError:
            _say("the connection was lost")
            return CLOSED
        _say("the stream has ended")
        return OK


async def _lines() -> AsyncIterator[list[str]]:
    """The lines of standard input, as they come; it is read no faster than they are taken."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[list[str]] = asyncio.Queue()
    room = threading.Semaphore(1)

    def put(lines: list[bytes]) -> None:
        room.acquire()
        text = [line.decode(errors="replace").removesuffix("\r") for line in lines]
        loop.call_soon_threadsafe(queue.put_nowait, text)

    def read() -> None:
        # Bare reads: a thread that waits in sys.stdin would hold its lock when the process ends.
        rest = b""
        try:
            while chunk := os.read(0, 65536):
                *whole, rest = (rest + chunk).split(b"\n")
                if whole:
                    put(whole)
            if rest:
                put([rest])
        except (OSError, RuntimeError):
            pass  # no standard input to read from, or the loop has ended meanwhile

    if sys.stdin is not None:  # closed by the caller, its number may be that of a socket
        threading.Thread(target=read, daemon=True, name="standard input").start()
    while True:
        lines = await queue.get()
        room.release()
        yield lines


def _why(error: aiohttp.ClientError) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "there is no such host"
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno:
        return os.strerror(error.os_error.errno).lower()
    return str(error) or type(error).__name__


def _status(code: int) -> str:
    return f"{code} {HTTPStatus(code).phrase}" if code in set(HTTPStatus) else str(code)


def _print(text: str) -> None:
    print(f"Received: {text}", flush=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
