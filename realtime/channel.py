"""A channel is one entry of the config; a client is one connection to it.

A plugin subclasses :class:`Channel` and overrides what it needs. All of it runs in the server's
one thread: what takes long is awaited, never waited for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field, fields
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, Literal, Protocol, get_args

from aiohttp import web
from pydantic import BeforeValidator, NonNegativeInt, PositiveInt

from realtime.bus import Bus
from realtime.close_codes import CloseCode, may_be_sent
from realtime.hookspecs import hookimpl
from realtime.message import NOT_YOURS, RESERVED, Message, Position
from realtime.paths import route_pattern
from realtime.permissions import Allow, Identity
from realtime.topic import Overflow, TopicOptions
from realtime.values import ChannelPath, Duration, Model, Size

#: What a client comes by.
Transport = Literal["websocket", "sse", "ndjson", "post"]
#: What a channel can serve: these, and a snapshot of where it stands, for which nobody joins.
TRANSPORTS = (*get_args(Transport)[:-1], "json", "post")
#: What is told of who is here. YAML 1.1 reads a bare ``off`` as false.
Presence = Annotated[
    Literal["off", "list", "announce"], BeforeValidator(lambda value: "off" if value is False else value)
]


class Link(Protocol):
    """What a client needs of its connection, on any transport; :class:`Client` says what each does."""

    closed: bool

    def send(self, message: Message) -> None: ...
    def close(self, code: int, reason: str) -> None: ...
    async def receive(self) -> Message: ...
    async def ping(self, timeout: float) -> bool: ...


@dataclass(slots=True, weakref_slot=True, eq=False, repr=False)
class Client:
    """One connection to a channel, whatever its transport.

    The host makes it, and hands it to the channel's methods. It can be kept, and used from anywhere in
    the server's thread: what is sent to one that has gone is sent to nobody.
    """

    _link: Link
    _: KW_ONLY
    #: ``c1``, ``c2``, …, or with several processes ``5f0c21aa.c1``: unique in all of them, and public: to
    #: know it permits nothing.
    id: str
    #: The name of the topic that it is on.
    topic: str
    #: ``"websocket"``, ``"sse"``, ``"ndjson"`` or ``"post"``.
    transport: Transport
    #: Who it is, by its token or an ``authenticate`` hook; None where nobody knows.
    identity: Identity | None
    #: The parameters of its URL, without ``token`` and ``since``.
    query: Mapping[str, str]
    #: The address that it comes from; ``""`` by a unix socket, or if nobody knows.
    remote: str
    #: The values of the variables of the channel's path, as they stand in the name of the topic.
    variables: Mapping[str, str] = field(default_factory=dict)
    #: ``"realtime.v1.json"``, or ``""``: a plain WebSocket, or no WebSocket.
    subprotocol: str = ""
    #: What it is called; the channel's to set.
    name: str | None = None
    #: Whatever the channel wants to remember of it: ``client.state.score = 0``.
    state: SimpleNamespace = field(default_factory=SimpleNamespace)

    def __repr__(self) -> str:
        return f"<Client {self.id} {self.name or '-'} on {self.topic} by {self.transport}>"

    @property
    def closed(self) -> bool:
        """Whether the connection is closed or being closed."""
        return self._link.closed

    async def send(self, data: Any, *, event: str = "message") -> None:
        """Send to this client alone, after all that was published to its topic before.

        Returns at once: it waits for nobody. A client that lets more than 64 KiB of this pile
        up is closed with 1013. To a closed client it does nothing. Raises :exc:`ValueError`
        for data that no message can carry, and :exc:`TooLarge` for more than could be published.
        """
        if event != "message" and event.startswith(RESERVED):
            raise ValueError(NOT_YOURS)
        self._link.send(Message.of(data, event=event, time=time.time()))

    async def receive(self, timeout: float | None = None) -> Message:
        """The next message from the client; for a greeting, in ``on_connect``.

        Raises :exc:`TimeoutError` after ``timeout`` seconds and :exc:`Disconnected` when the
        client has gone; the host knows what to do with either.
        """
        async with asyncio.timeout(timeout):
            return await self._link.receive()

    async def ping(self, timeout: float = 2.0) -> bool:
        """Whether the client is still there: asks it, and waits so many seconds for a sign.

        Server-sent events have no ping; there it says whether the connection stands.
        """
        return await self._link.ping(timeout)

    async def close(self, code: int = CloseCode.DONE, reason: str = "") -> None:
        """Close the connection; ``on_leave`` follows. Returns at once.

        Raises :exc:`ValueError` for a code that no close frame may carry.
        """
        if not (isinstance(code, int) and may_be_sent(code)):
            wrong = f"{code!r} is no close code that may be sent (RFC 6455, section 7.4)"
            raise ValueError(f"{wrong}: take one of CloseCode, or 4000 to 4999")
        # A lone surrogate can be said nowhere.
        self._link.close(code, reason.encode(errors="replace").decode())


class Limits(Model):
    """Limits of a channel; what is not set here is the server's."""

    max_message: Size | None = None
    """the largest message of a client, instead of `server.limits.max_message`"""

    max_clients: NonNegativeInt | None = None
    """the most clients of this channel; further ones get 503. The server's own limit counts beside it"""

    inbound_rate: PositiveInt | None = None
    """how many messages a second a client may send, instead of `server.limits.inbound_rate`"""

    inbound_burst: PositiveInt | None = None
    """how many at once, instead of `server.limits.inbound_burst`"""


class Channel:
    """What a plugin subclasses: one instance for each entry that names it in the config.

    The host makes it with its name, its validated settings and the bus, serves its ``path`` on
    each of its ``transports``, and calls the methods below. The first line of a subclass's
    docstring is its description.
    """

    class Settings(Model):
        """What every channel can set; a channel type adds its own keys in a subclass."""

        plugin: str
        """the channel type: `echo`, `chat`, `clock`, `topics`, or that of a plugin"""

        path: ChannelPath
        """the path of its URL, such as `/chat` or `/rooms/{room}`"""

        enabled: bool = True
        """`false`: as if it were not there"""

        history: NonNegativeInt = TopicOptions.history
        """how many messages of a topic a newcomer may ask for"""

        history_age: Duration = TopicOptions.history_age
        """for how long they are kept"""

        lag: Duration = TopicOptions.lag
        """for how long other messages are kept, for clients that have fallen behind"""

        lag_bytes: Size = TopicOptions.lag_bytes
        """how much of a topic is kept for them, at most"""

        overflow: Overflow = TopicOptions.overflow
        """what happens to a client that has fallen further behind"""

        presence: Presence = "off"
        """who is here: `off` tells nobody, `list` whoever asks, `announce` everybody who comes and goes"""

        keep_alive: Duration = 15.0
        """the silence after which an event stream gets a comment, a `realtime.v1.json` a heartbeat"""

        keep_alive_text: str = "keep-alive"
        """the comment"""

        compress: bool = False
        """`true`: a WebSocket client that offers `permessage-deflate` gets long messages compressed"""

        allow: Allow = Allow()
        """who may do what: `anyone`, `local` (on this machine), `authenticated`, `nobody`, `scope:NAME`"""

        handler_timeout: Duration = 60.0
        """how long `on_connect`, `on_join` or `on_message` may take; then its client is closed with 1011"""

        idempotency_window: Duration = 300.0
        """for how long the answer to a POST with an `Idempotency-Key` is remembered"""

        limits: Limits = Limits()
        """bounds of this channel"""

    #: Which transports it serves, the one people are shown first. A type with an ``on_connect`` of
    #: its own serves ``json`` and ``post`` only if it says so here: for these that is not called.
    transports: ClassVar[Collection[str]] = TRANSPORTS

    #: What people do on the page at its URL: the name of an ES module (``"chat.js"``) that stands beside
    #: the Python module of the type, as may a ``chat.css``. Its default export is a
    #: function, which is given the page to draw on. None: the page has a box to send with.
    page: ClassVar[str | None] = None

    #: Its settings, checked. A subclass annotates it with its own, for type checkers.
    settings: Settings

    def __init__(self, name: str, settings: Settings, bus: Bus) -> None:
        #: Its name in the config, and that of its topic.
        self.name = name
        self.settings = settings
        #: The bus that it shares with everybody.
        self.bus = bus
        #: Its log. ``extra={"fields": {"room": 7}}`` adds keys to the JSON of a line.
        self.log: logging.Logger = logging.getLogger(f"realtime.channel.{name}")
        self._clients: dict[str, Client] = {}
        self._endpoint: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None

    @property
    def clients(self) -> Collection[Client]:
        """The clients of this process that have joined and not left, on all topics of this channel."""
        return self._clients.values()

    @property
    def topics(self) -> list[str]:
        """The names of this channel's topics that exist in this process now."""
        return [topic.name for topic in self.bus.of(self.name)]

    # To override

    async def on_connect(self, client: Client) -> None:
        """A client has connected; nothing is delivered to it before this returns.

        What is published meanwhile waits for it. It may ``await client.receive(timeout=…)`` for
        a greeting, set ``client.name``, or close the client, which then never joins.
        """

    async def on_join(self, client: Client) -> None:
        """The client is in: delivery has begun, and ``on_leave`` will follow for certain."""

    async def on_message(self, client: Client, message: Message) -> Position | None:
        """A client sent a message. Called one after the other for each client.

        Returns the position of what was published for it, if anything was. Raises :exc:`Rejected` for a
        message that it does not take; anything else that it raises closes the client with 1011.
        """
        return None

    async def on_leave(self, client: Client) -> None:
        """A client that had joined is gone; called once, however it ended."""

    def member(self, client: Client) -> dict[str, Any] | None:
        """What is told of a client to those who ask who is here; None: nothing.

        It is asked once, after ``on_join``, unless ``presence`` is ``off``.
        """
        return {"client": client.id, **({"name": client.name} if client.name else {})}

    def as_text(self, message: Message) -> str | None:
        """A message as a plain WebSocket shows it; None: not at all.

        By default text is shown as it is, other data as JSON, and events of the ``realtime:``
        kind not at all. Bytes go as they are, without being asked about.
        """
        if message.event.startswith("realtime:"):
            return None
        return message.payload.decode()

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """What lives as long as the channel: entered before the first client is served.

        Mark it ``@asynccontextmanager``. It is entered and left in one task of its own, so ``TaskGroup``
        and time-outs work in it. It is left at shutdown while the streams are still open, so that it can
        publish a goodbye; ``on_leave`` of those who are connected then follows. When it ends early,
        ``/-/ready`` turns red and the log names the channel.
        """
        yield

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # What on_connect checks would be open to whoever posts; nobody is to find that out later.
        if cls.on_connect is not Channel.on_connect and cls.transports is Channel.transports:
            cls.transports = tuple(name for name in cls.transports if name not in ("json", "post"))

    # To use

    async def publish(
        self, topic: str, data: Any, *, event: str = "message", exclude: Client | None = None
    ) -> Position:
        """Publish to a topic of this channel, usually ``client.topic``; see :meth:`Bus.publish`.

        Raises :exc:`ValueError`, too, for an event that begins with ``realtime:``.
        """
        if event != "message" and event.startswith(RESERVED):
            raise ValueError(NOT_YOURS)
        return await self.bus.publish(topic, data, event=event, exclude=exclude)

    async def kick(
        self,
        topic: str,
        *,
        id: str | None = None,
        name: str | None = None,
        reason: str = "",
        code: int = CloseCode.NOT_ALLOWED,
    ) -> int:
        """Close the clients of a topic that have this id or this name; returns how many there were.

        In whatever process they are. It does not keep them from coming back: that is for ``on_connect``
        to say.
        """
        why = {"code": int(code), "reason": reason or "you were removed from the channel"}
        removed = await self._have("kick", topic, id, name, **why)
        there = self.bus.find(topic)
        if not removed and there and id in there.here:  # by a process that is gone
            await self.bus.depart(there, id, there.here[id], aloud=self.settings.presence == "announce")
        return removed

    async def send(
        self,
        topic: str,
        data: Any,
        *,
        id: str | None = None,
        name: str | None = None,
        event: str = "message",
    ) -> int:
        """Send text or JSON to the clients of a topic that have this id or this name, and to nobody else.

        In whatever process they are; returns how many there were. Raises what :meth:`Client.send` does.
        """
        if event.startswith(RESERVED):
            raise ValueError(NOT_YOURS)
        if Message.of(data, event=event, time=0.0).kind == "bytes":
            raise ValueError("bytes cannot be sent by name: send text or JSON")
        return await self._have("send", topic, id, name, data=data, event=event)

    async def ping(self, topic: str, *, id: str | None = None, name: str | None = None) -> int:
        """How many clients of a topic that have this id or this name are there: see :meth:`Client.ping`."""
        return await self._have("ping", topic, id, name)

    async def _have(self, what: str, topic: str, id: str | None, name: str | None, **more: Any) -> int:
        request = {"do": what, "id": id, "name": name, **more}
        return sum(await self.bus.engine.everywhere(topic, request))

    def members(self, topic: str) -> list[dict[str, Any]]:
        """What is told of those who are on a topic now, in the order in which they came.

        Those of all processes that share the bus. Empty while ``presence`` is ``off``. Raises what
        :meth:`Bus.topic` does.
        """
        return list(self.bus.topic(topic).here.values())

    # For the host

    def serve_with(self, endpoint: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        """What is to answer the requests to :meth:`register_routes`'s path."""
        self._endpoint = endpoint

    @hookimpl
    def register_routes(self, bus: Bus) -> Iterable[web.RouteDef]:
        """The channel's path, for all of its transports."""
        assert self._endpoint is not None
        return [web.route("*", route_pattern(self.settings.path), self._endpoint)]

    async def respond(self, topic: str, request: Mapping[str, Any]) -> int:
        """Do what is asked of some clients, those that are in this process; how many they were."""
        id, name = request["id"], request["name"]
        found = [
            client
            for client in self.clients
            if client.topic == topic and ((id and client.id == id) or (name and client.name == name))
        ]
        match request["do"]:
            case "ping":
                return sum(await asyncio.gather(*(client.ping() for client in found)))
            case "kick":
                for client in found:
                    await client.close(request["code"], request["reason"])
            case "send":
                for client in found:
                    await client.send(request["data"], event=request["event"])
        return len(found)

    def joined(self, client: Client) -> None:
        """The client is one of :attr:`clients` from here on."""
        self._clients[client.id] = client

    def left(self, client: Client) -> None:
        """The client is none of them any more."""
        self._clients.pop(client.id, None)

    @property
    def methods(self) -> list[str]:
        """The methods of HTTP that its path answers."""
        reads, posts = not {"post"}.issuperset(self.transports), "post" in self.transports
        return ["GET", "HEAD"] * reads + ["POST"] * posts + ["DELETE", "OPTIONS"]

    def url_on(self, site: str) -> str:
        """The URL that people are shown, that of the first transport, on a site (``http://host``)."""
        if next(iter(self.transports), "") == "websocket" and site.startswith("http"):
            site = site.replace("http", "ws", 1)
        return site + self.settings.path

    def topic_options(self) -> TopicOptions:
        """What the bus is to keep for this channel's topics: the settings of the options' names."""
        return TopicOptions(
            **{option.name: getattr(self.settings, option.name) for option in fields(TopicOptions)}
        )
