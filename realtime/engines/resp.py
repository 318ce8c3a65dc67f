"""A connection to Redis: what is asked in one turn of the event loop leaves as one write.

It speaks the protocol (RESP2) and nothing else: it knows no topic, and does not come back. What it raises
says what is wrong, not with which Redis: whoever reports it knows ``Where``.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Self, cast
from urllib.parse import parse_qs, quote, unquote, urlsplit

import hiredis

from realtime.errors import printable

#: The most that a message which is not whole yet may make us hold, in bytes.
MAX_MESSAGE = 64 * 1024 * 1024

#: What comes without having been asked for, and what answers a subscription, by the first word.
_PUSHES = frozenset(
    [b"pong"]
    + [kind + b"message" for kind in (b"", b"p", b"s")]
    + [kind + what for kind in (b"", b"p", b"s") for what in (b"subscribe", b"unsubscribe")]
)
#: What the reader says when it has no whole message.
_NOTHING = object()


class Lost(ConnectionError):
    """The connection is gone, or was never there; says why."""


class RedisError(Exception):
    """An answer that is an error, in the words of Redis."""

    def __str__(self) -> str:
        return super().__str__().partition(" script: ")[0]  # the rest means something to us only

    @property
    def code(self) -> str:
        """Its first word, as ``OOM`` or ``ERR``; before Redis 7.2 a script has no word for ``NOPERM``."""
        said = str(self)
        return "NOPERM" if "user executing the script can't" in said else said.partition(" ")[0]


@dataclass(frozen=True, slots=True)
class Where:
    """Where a Redis is, from a URL; its string is for people, and without the password."""

    host: str = ""
    port: int = 6379
    path: str = ""
    user: str = ""
    password: str | None = field(default=None, repr=False)
    db: int = 0
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """What a URL says; raises :exc:`ValueError`, which never shows the password."""
        form = "redis://HOST:PORT/DB, rediss:// with TLS, or unix:///PATH?db=DB"
        try:
            url = urlsplit(text)
        except ValueError:  # whose words may show the password
            raise ValueError(f"it is no URL; write {form}") from None
        if url.scheme not in ("redis", "rediss", "unix") or not text.lower().startswith(f"{url.scheme}://"):
            raise ValueError(f"it does not begin with redis://, rediss:// or unix://; write {form}")
        if url.fragment or "#" in text:
            raise ValueError("it has a '#', which a password has as %23")
        user, password = unquote(url.username or ""), url.password
        if user and password is None:
            raise ValueError(f"it has a user without a password; write {url.scheme}://USER:PASSWORD@…")
        query = parse_qs(url.query, keep_blank_values=True)
        if url.scheme == "unix":
            db, path, host, port = query.pop("db", ["0"])[-1], unquote(url.path), "", 0
            if url.hostname or not path.strip("/"):
                raise ValueError("it names no socket; write unix:///PATH, with three slashes")
        else:
            db, path, host = url.path.strip("/") or "0", "", url.hostname or ""
            try:
                port = 6379 if url.port is None else url.port
            except ValueError:
                raise ValueError(
                    "its port is no number from 1 to 65535; a password has '/' as %2F and '?' as %3F"
                ) from None
            if not host or not port:
                raise ValueError(f"it names no {'host' if not host else 'port'}; write {form}")
        if query:
            raise ValueError(f"it has a parameter that is not known; write {form}")
        if not (db.isascii() and db.isdigit()):
            raise ValueError(f"its database is no number; write {form}")
        secret = None if password is None else unquote(password)
        return cls(host, port, path, user, secret, int(db), url.scheme == "rediss")

    @property
    def shown(self) -> str:
        """The URL, with ``***`` for a password."""
        login = "" if self.password is None else f"{quote(self.user, safe='')}:***@"
        if self.path:
            return f"unix://{login}{quote(self.path)}?db={self.db}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{login}{host}:{self.port}/{self.db}"

    def __str__(self) -> str:
        return self.shown


class Connection(asyncio.Protocol):
    """One connection; commands of one turn of the event loop leave as one write, answers come in order."""

    #: What Redis says of itself, as ``INFO`` does.
    info: dict[str, str]
    #: Which process it is: another one after each start.
    run_id = ""
    version = ""

    def __init__(self, pushed: Callable[[list[Any]], bool | None] | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._pushed = pushed
        self._lost: Callable[[Lost], None] | None = None
        self._reader = hiredis.Reader(replyError=RedisError, notEnoughData=_NOTHING)
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._out: list[bytes] = []
        self._queued = 0
        self._connected = False
        self._hint = ""  # why it may hang up on us before we know who is there
        self._why = ""
        self._held = False  # nothing is handed on: we are paused, or it is over
        self._stopped = False  # so the transport reads nothing
        self._turn: asyncio.Handle | None = None  # when the rest of what was read is handed on
        self._partial = 0  # bytes that came since there was a whole message

    @classmethod
    async def open(
        cls,
        where: Where,
        *,
        name: str,
        within: float,
        lost: Callable[[Lost], None],
        pushed: Callable[[list[Any]], bool | None] | None = None,
    ) -> Self:
        """Connect, and be known to Redis as ``name``; raises :exc:`Lost` or :exc:`RedisError`.

        ``lost`` is called once, when a connection that was opened is gone. With ``pushed`` it is one that
        subscribes, by :meth:`tell`: each message and each answer of that kind is handed to it, in order.
        When it returns true the rest waits for the next turn of the event loop.
        """
        opened = cls(pushed)
        try:
            async with asyncio.timeout(within):
                await opened._connect(where)
                await opened._greet(where, name)
        except BaseException as error:
            opened.abort("it was not opened")
            if isinstance(error, OSError | UnicodeError) and not isinstance(error, Lost):
                if isinstance(error, TimeoutError):
                    plain = where.tls and not opened._connected  # the handshake of TLS is not over
                    hint = "; without TLS its URL begins with redis://" if plain else ""
                    raise Lost(f"no answer for {within:g}s{hint}") from None
                raise Lost(_sentence(error, where)) from None
            raise
        opened._lost = lost
        return opened

    async def _connect(self, where: Where) -> None:
        if where.path:
            await self._loop.create_unix_connection(lambda: self, where.path)
            return
        context = _trust(ssl.get_default_verify_paths()) if where.tls else None
        self._hint = "" if where.tls else "; if it wants TLS its URL begins with rediss://"
        await self._loop.create_connection(lambda: self, where.host, where.port, ssl=context)
        # The event loop has set TCP_NODELAY.
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    async def _greet(self, where: Where, name: str) -> None:
        login = [where.user] if where.user else []
        asked = [] if where.password is None else [self.ask("AUTH", *login, where.password)]
        if where.db:
            asked.append(self.ask("SELECT", where.db))
        asked += [self.ask("CLIENT", "SETNAME", name), self.ask("INFO")]
        *_, info = await asyncio.gather(*asked)
        if self._why:
            raise Lost(self._why)
        lines = info.decode(errors="replace").splitlines() if isinstance(info, bytes) else []
        self.info = {key: value for key, colon, value in (line.partition(":") for line in lines) if colon}
        if "redis_version" not in self.info:
            raise Lost("it is no Redis: it does not say its version")
        if self.info.get("loading") == "1":
            raise RedisError("LOADING Redis is loading its data set")
        self._hint, self.run_id, self.version = "", self.info.get("run_id", ""), self.info["redis_version"]

    # What is asked

    def ask(self, *words: bytes | str | int) -> asyncio.Future[Any]:
        """What Redis will answer to a command, or :exc:`RedisError`, or :exc:`Lost`.

        An answer that nobody waits for any more is skipped over when it comes. How long one may take is the
        caller's to bound. A connection that has subscribed is not asked: there answers are pushes.
        """
        answer = self._loop.create_future()
        if self._why:
            _fail(answer, self._why)
        else:
            self.tell(*words)
            self._waiting.append(answer)
        return answer

    def tell(self, *words: bytes | str | int) -> None:
        """Send what pushes answer: SUBSCRIBE and its kind, and PING where something is subscribed."""
        if self._why:
            return
        packed = hiredis.pack_command(words)  # type: ignore[arg-type]  # it is a tuple of any length
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packed)
        self._queued += len(packed)

    def _flush(self) -> None:
        out, self._out, self._queued = self._out, [], 0
        if not self._why:
            self._transport.write(b"".join(out))

    @property
    def backlog(self) -> int:
        """How many bytes wait to be sent, as Redis or the network does not take them."""
        return self._queued + self._transport.get_write_buffer_size()

    # What comes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The event loop has connected."""
        self._transport, self._connected = cast(asyncio.Transport, transport), True

    def data_received(self, data: bytes) -> None:
        """The event loop has read something."""
        if self._why:
            return
        self._partial += len(data)
        self._reader.feed(data)
        if self._turn is None and not self._held:
            self._go_on(data)

    def _go_on(self, data: bytes = b"") -> None:
        """Hand on what has come, as much as goes into one turn."""
        self._turn, rest = None, False
        if self._held:
            return
        try:
            rest = self._hand_on()
        except (hiredis.ProtocolError, MemoryError) as error:
            said = printable(data.decode(errors="replace").partition("\r")[0], 60)
            if self.version:
                self.abort(f"what came is not the protocol of Redis: {str(error) or 'out of memory'}")
            elif data.startswith(b"\x15\x03"):
                self.abort("it wants TLS: its URL begins with rediss://")
            else:
                self.abort(f"it is no Redis: it says {said!r}")
        except BaseException as error:
            self.abort(f"what came could not be taken: {error!r}")
            raise
        if self._why:
            return
        if rest:
            self._turn = self._loop.call_soon(self._go_on)
        self._read(not rest)

    def _hand_on(self) -> bool:
        """Whether something may be left."""
        gets, pushed, waiting = self._reader.gets, self._pushed, self._waiting
        answer = gets()
        if answer is _NOTHING:
            if self._partial > MAX_MESSAGE:
                self.abort(f"Redis sent a message that is larger than {MAX_MESSAGE >> 20} MiB")
            return False
        self._partial = 0
        while answer is not _NOTHING:
            if pushed is not None and type(answer) is list and answer and answer[0] in _PUSHES:
                if pushed(answer) or self._held:
                    return True
            elif not waiting:
                refused = isinstance(answer, RedisError)
                self.abort(f"Redis says: {answer}" if refused else "Redis answered what nobody had asked")
                return False
            else:
                future = waiting.popleft()
                if future.done():
                    pass  # it was cancelled
                elif type(answer) is RedisError:
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
            answer = gets()
        return False

    def _read(self, reading: bool) -> None:
        if self._stopped is reading and not self._why and not self._transport.is_closing():
            self._stopped = not reading
            (self._transport.resume_reading if reading else self._transport.pause_reading)()

    def pause(self) -> None:
        """Hand nothing on, and read nothing; the end of the connection is not noticed meanwhile."""
        self._held = True
        self._read(False)

    def resume(self) -> None:
        """Go on in the next turn, with what was read already."""
        if self._held and not self._why:
            self._held = False
            if self._turn is None:
                self._turn = self._loop.call_soon(self._go_on)

    # The end

    def abort(self, why: str) -> None:
        """End it now: nothing is asked or handed on any more, and what waits is :exc:`Lost` soon."""
        if not self._why:
            self._why, self._held = why, True
            if self._connected:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The event loop has no connection any more."""
        if not self._why:
            broken = f"the connection to Redis broke: {_strerror(exc)}" if exc else ""
            self._why = (broken or "Redis closed the connection") + self._hint
        self._held = True
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            _fail(future, self._why)
        if self._lost is not None:
            self._lost(Lost(self._why))


def _fail(future: asyncio.Future[Any], why: str) -> None:
    if not future.done():
        future.set_exception(Lost(why))
        future.exception()  # whoever does not wait for it is told by ``lost``


def _strerror(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@lru_cache(1)
def _trust(_paths: ssl.DefaultVerifyPaths) -> ssl.SSLContext:
    """Which certificates are believed; reading those of a machine holds the event loop for long."""
    return ssl.create_default_context()


def _sentence(error: OSError | UnicodeError, where: Where) -> str:
    """Why there is no connection."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}; without TLS its URL begins with redis://"
    if isinstance(error, socket.gaierror | UnicodeError):
        return f"the name {printable(where.host, 100)} is not known"
    if isinstance(error, FileNotFoundError):
        return f"there is no socket {where.path}"
    # Where a name has several addresses the event loop has put what it heard of each into one text.
    if isinstance(error, ConnectionRefusedError) or f"Errno {errno.ECONNREFUSED}]" in str(error):
        return "nothing listens there: the connection was refused"
    return f"it cannot be reached: {_strerror(error)}"


def forget(answer: asyncio.Future[Any]) -> None:
    """Nobody waits for this answer."""
    answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
