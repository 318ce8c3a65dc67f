"""The clients of the command line: ``python -m realtime connect`` and ``publish``.

What is received, and the ids of what was published, go to standard output; whatever else there is to
say goes to standard error, so that both can stand in a pipe.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import ssl as tls
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import aiohttp
import orjson

from realtime import envelope, logs
from realtime.client import MARKERS, NOTICES, Connection, Headers
from realtime.close_codes import LOST, NO_CODE, RESTARTS, CloseCode
from realtime.envelope import V1_JSON
from realtime.errors import (
    Closed,
    NotConnected,
    RealtimeError,
    Refused,
    Unconfirmed,
    json_escape,
    printable,
)
from realtime.exit_codes import ExitCode
from realtime.links import facts_of, parse_url, post
from realtime.message import Message, Position, Since

#: How long the server may take to answer, in seconds.
TIMEOUT = 10.0
#: With these codes the server has not ended the connection for an error.
_FINE = (CloseCode.DONE, *RESTARTS, NO_CODE)
_NOTHING = "the server took it, and published nothing"
_HINT = {True: "connecting again makes sense", False: "the same again will not help"}

Send = Callable[[Message], Awaitable[Position | None]]


async def connect(
    url: str,
    *,
    name: str | None = None,
    since: Since | str = None,
    count: int | None = None,
    headers: Headers = (),
    subprotocols: Sequence[str] = (),
    as_json: bool = False,
    cafile: str | None = None,
    timeout: float = TIMEOUT,
) -> int:
    """Connect and copy both ways until the server closes, ``count`` is reached, or Ctrl-C.

    Returns the exit code: 2 when the URL or ``cafile`` is none, 3 when it could not connect, 4 when
    the server closed with an error or the connection was lost.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for what the terminal cannot show
    try:
        _check_text(URL=url, name=name, subprotocol="".join(subprotocols))
        websocket = parse_url(url).scheme in ("ws", "wss")
        offered = subprotocols or ([V1_JSON] if as_json else [])  # whose object is asked for
        connection = Connection(
            url,
            # Somebody else's server, and ours where frames are plain, takes it as a line.
            name=None if websocket and V1_JSON not in offered else name,
            since=since,
            headers=headers,
            ssl=trusting(cafile),
            subprotocols=offered,
            reconnect=False,
            timeout=timeout,
        )
    except ValueError as error:
        return _failed(error, ExitCode.USAGE)
    try:
        async with connection:
            _say("WebSocket connected" if websocket else "stream of events connected")
            sending = asyncio.create_task(_copy_input(connection, name, websocket))
            try:
                await _show(connection, count, as_json, websocket)
            finally:
                sending.cancel()
    except Closed as end:
        return _ended(end)
    except RealtimeError as error:
        return _failed(error, ExitCode.NOT_STARTED)
    except BrokenPipeError:
        return ExitCode.OK  # whoever read our output has enough, as `| head -1` has: no error
    except OSError as error:
        _say(f"cannot write what is received: {(error.strerror or str(error)).lower()}")
        return ExitCode.NOT_STARTED
    return ExitCode.OK


async def publish(
    url: str,
    data: str | None = None,
    *,
    event: str = "message",
    name: str | None = None,
    headers: Headers = (),
    as_json: bool = False,
    cafile: str | None = None,
    timeout: float = TIMEOUT,
) -> int:
    """Publish ``data``, or without it each line of standard input, and print the ids it was given.

    ``as_json``: it is JSON, and not text. Returns the exit code: 2 when the URL, ``cafile`` or JSON is
    none, 3 when it could not connect, 4 when the server refused or closed, or did not confirm.
    """
    published: int | None = None
    try:
        _check_text(URL=url, name=name, event=event, DATA=data)
        sender = _posting if parse_url(url).scheme in ("http", "https") else _sending
        async with sender(url, name, headers, trusting(cafile), timeout) as send:
            published = 0
            async for text in _lines() if data is None else _one(data):
                await _publish_one(send, text, event, as_json)
                published += 1
        return ExitCode.OK
    except BrokenPipeError:
        return ExitCode.OK
    except ValueError as error:
        code = _failed(error, ExitCode.USAGE)
    except NotConnected as error:
        code = _failed(error, ExitCode.NOT_STARTED)
    except Closed as end:
        _ended(end)
        code = ExitCode.CLOSED
    except RealtimeError as error:
        code = _failed(error, ExitCode.CLOSED)
    except asyncio.CancelledError:  # Ctrl-C
        _say(f"stopped; published: {published or 0}")
        raise
    if data is None and published is not None:
        _say(f"published before it: {published}")
    return code


# Receiving


async def _show(connection: Connection, count: int | None, as_json: bool, websocket: bool) -> None:
    """Print what comes. Raises :exc:`Closed` at the end, whatever it is, but not after ``count``."""
    received = 0
    async for message in connection:
        aside = message.event in (*MARKERS, *NOTICES)
        if as_json:
            _print(_object(message, websocket))
        elif message.event in NOTICES:
            _say(str(facts_of(message).get("reason", "the server takes messages again")))
        elif aside:
            _say(f"messages were missed: {facts_of(message).get('missed', 'nobody knows how many')}")
        else:
            _print(f"Received: {message.payload.decode(errors='backslashreplace')}")
        received += not aside
        if received == count:
            return
    raise connection.closed or Closed(CloseCode.DONE)


def _object(message: Message, websocket: bool) -> str:
    """The message as an object of ``realtime.v1.json``, in a line."""
    fields = orjson.loads(envelope.write(message))
    if not websocket:
        # A stream of events does not tell text from JSON, nor when a message was published.
        del fields["time"]
        with contextlib.suppress(ValueError):
            data = orjson.loads(message.payload) if message.kind == "text" else None
            fields["data"] = data if isinstance(data, dict | list) else fields["data"]
    return orjson.dumps(fields).decode()


def _ended(end: Closed) -> int:
    if end.code == NO_CODE:
        _say("the stream has ended")
    elif end.code == LOST:
        _say(f"the connection was lost{f': {end.reason}' if end.reason else ''}")
    else:
        hint = "" if end.code == CloseCode.DONE else f" ({_HINT[end.comes_back]})"
        _say(f"closed by the server: {end}{hint}")
    return ExitCode.OK if end.code in _FINE else ExitCode.CLOSED


# Sending


async def _copy_input(connection: Connection, name: str | None, websocket: bool) -> None:
    plain = websocket and connection.subprotocol != V1_JSON
    try:
        if plain and name is not None:
            await connection.send(name)
        async for line in _lines():
            try:
                await connection.send(line)
            except (Refused, NotConnected, Unconfirmed) as error:
                if plain:
                    return  # it is going, and whoever receives from it says why
                _say(str(error))
    except RealtimeError:
        pass  # likewise


async def _publish_one(send: Send, text: str, event: str, as_json: bool) -> None:
    try:
        data = orjson.loads(text) if as_json else text
    except ValueError as error:
        raise ValueError(f"{text[:60]!r} is no JSON: {error}") from None
    position = await send(Message.of(data, event=event, time=0.0))
    if position is not None:
        print(position, flush=True)


@contextlib.asynccontextmanager
async def _posting(
    url: str, name: str | None, headers: Headers, ssl: tls.SSLContext | None, timeout: float
) -> AsyncIterator[Send]:
    target, connector = parse_url(url, name), aiohttp.TCPConnector(ssl=ssl or True)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def send(message: Message) -> Position | None:
            now = asyncio.get_running_loop().time
            until = now() + timeout
            while True:
                try:
                    async with asyncio.timeout_at(until):
                        position = (await post(session, target, message)).position
                    break
                except TimeoutError:
                    raise Unconfirmed(f"no answer within {timeout:g}s") from None
                except Refused as error:  # too many lines: not taken now, but in a moment
                    wait = error.retry_after
                    if error.status != 429 or wait is None or now() + wait > until:
                        raise
                    await asyncio.sleep(wait)
            if position is None:
                _say(_NOTHING)
            return position

        yield send


@contextlib.asynccontextmanager
async def _sending(
    url: str, name: str | None, headers: Headers, ssl: tls.SSLContext | None, timeout: float
) -> AsyncIterator[Send]:
    connection = Connection(url, name=name, headers=headers, ssl=ssl, reconnect=False, timeout=timeout)

    async def drain() -> None:  # acks come behind the channel's messages
        with contextlib.suppress(RealtimeError):
            async for _ in connection:
                pass

    async with connection:
        if name is not None and connection.subprotocol != V1_JSON:
            await connection.send(name)
        draining = asyncio.create_task(drain())

        async def send(message: Message) -> Position | None:
            position = await connection.send(message.data, event=message.event)
            if position is None and connection.subprotocol == V1_JSON:
                _say(_NOTHING if name else f"{_NOTHING}; where the first text is a name, --name gives it")
            return position

        try:
            yield send
        finally:
            draining.cancel()


async def _one(data: str) -> AsyncIterator[str]:
    yield data


async def _lines() -> AsyncIterator[str]:
    """The lines of standard input, as they come; it is read no faster than they are taken."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[list[bytes] | None] = asyncio.Queue()
    room = threading.Semaphore(1)

    def put(lines: list[bytes] | None) -> None:
        room.acquire()
        loop.call_soon_threadsafe(queue.put_nowait, lines)

    def read() -> None:
        # Bare reads: a thread that waits in sys.stdin would hold its lock when the process ends.
        rest = b""
        try:
            with contextlib.suppress(OSError):  # no standard input to read from
                while chunk := os.read(0, 65536):
                    *whole, rest = (rest + chunk).split(b"\n")
                    if whole:
                        put(whole)
            if rest:
                put([rest])
            put(None)
        except RuntimeError:
            pass  # the loop has ended meanwhile

    if sys.stdin is not None:  # closed by the caller, its number may be that of a socket
        threading.Thread(target=read, daemon=True, name="standard input").start()
    else:
        queue.put_nowait(None)
    while (lines := await queue.get()) is not None:
        room.release()
        for line in lines:
            yield line.decode(errors="replace").removesuffix("\r")


# What is said


def _check_text(**given: str | None) -> None:
    """Raise :exc:`ValueError` for an argument that was no text, of which some would be lost on the way."""
    for what, text in given.items():
        try:
            (text or "").encode()
        except UnicodeEncodeError:
            raise ValueError(f"the {what} is not UTF-8: {text!a:.60}") from None


def trusting(cafile: str | None) -> tls.SSLContext | None:
    """Whom to trust: what stands in this file. Raises :exc:`ValueError`."""
    if cafile is None:
        return None
    try:
        return tls.create_default_context(cafile=cafile)
    except OSError as error:  # ssl.SSLError is one
        what = "it has no certificates in PEM" if isinstance(error, tls.SSLError) else error.strerror
        raise ValueError(f"{cafile}: {what}") from None


def _failed(error: Exception, code: int) -> int:
    hint = ""
    if isinstance(error.__cause__, aiohttp.ClientConnectorCertificateError):
        hint = "; --cafile FILE trusts the certificate in FILE"
    _say(f"{error}{hint}")
    return code


def _print(text: str) -> None:
    if sys.stdout is not None and sys.stdout.isatty():
        # A stranger's escape sequences would drive the terminal. In JSON these are JSON's escapes.
        text = re.sub(r"[^ -~\n\t]+", lambda part: printable(part[0], escape=json_escape), text)
    print(text, flush=True)


def _say(text: str) -> None:
    logs.say(printable(text, 2000))
