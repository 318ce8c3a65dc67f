"""One URL, every transport: what a request to a channel gets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from realtime.channel import Channel, Client, Identity, Link, Transport
from realtime.encodings import BINARY, TEXT, DeflatedFrames, Form, PlainFrames, frame
from realtime.errors import TooManyTopics
from realtime.message import Message, Position, Since, parse_since
from realtime.origins import origin_allowed
from realtime.paths import topic_name
from realtime.proxies import known_scheme
from realtime.transports import post, sse, websocket
from realtime.transports.connection import Connection
from realtime.transports.connections import Connections
from realtime.transports.idempotency import Answers
from realtime.transports.takeover import Opening, take_over

Authenticate = Callable[[web.Request], Awaitable[Identity | None]]


class Endpoint:
    """Answers every request to one channel's path."""

    def __init__(
        self,
        channel: Channel,
        connections: Connections,
        authenticate: Authenticate,
        *,
        origins: str | list[str],
        url: str | None,
        max_message: int,
    ) -> None:
        self._channel = channel
        self._connections = connections
        self._authenticate = authenticate
        self._origins = origins
        self._url = url
        self._max_message = channel.settings.limits.max_message or max_message
        self._plain = _GuardedFrames(channel)
        self._deflated = DeflatedFrames(self._plain)
        self._answers = Answers(channel)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Handle one request; of a stream this is the beginning, which then lives by itself."""
        transport = self._choose(request)
        try:
            name = topic_name(self._channel.name, request.match_info.values(), request.rel_url.raw_path)
            since = None if transport == "post" else _since(request)
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from None
        self._check_origin(request)
        compress = self._channel.settings.compress
        response = websocket.accept(request, compress=compress) if transport == "websocket" else None
        identity = await self._authenticate(request)
        self._check_room()
        if transport == "post":
            return await self._post(request, name, identity)
        if request.method == hdrs.METH_HEAD:  # a WebSocket has none
            return web.Response(headers=self._stream_headers(request))
        try:
            topic = self._channel.bus.topic(name)
        except TooManyTopics as error:
            raise self._overloaded(str(error)) from None

        connection: Connection
        if response is not None:
            with_json = websocket.wants_json(request)
            kind = websocket.JsonWebSocket if with_json else websocket.WebSocket
            form: Form = websocket.JSON_FRAMES if with_json else self._plain
            if "Sec-WebSocket-Extensions" in response.headers:
                form = websocket.DEFLATED_JSON_FRAMES if with_json else self._deflated
            connection = kind(self._connections, self._channel, topic, form, self._max_message)
        else:
            response = Opening(headers=self._stream_headers(request))
            connection = sse.EventStreamConnection(self._connections, self._channel, topic, request)
        connection.client = self._client(request, connection, name, transport, identity)
        if request.transport is None:
            raise web.HTTPBadRequest  # it has gone while it was authenticated; nobody reads this
        connection.attach(request.transport)
        # The place is held before the handshake is answered: what is published from the moment
        # the client knows of the connection is for it.
        connection.subscriber = topic.subscribe(connection, connection.form, connection.client, since)
        self._connections.add(connection)
        try:
            await response.prepare(request)
            take_over(request, connection, self._connections.buffer)
            connection.greet(self._introduction(request))
            connection.watch()
            connection.live()
        except BaseException as error:
            connection.subscriber.detach()
            connection.transport.abort()
            self._connections.remove(connection)
            if not isinstance(error, ConnectionError):  # the client went while it was being answered
                raise
        return response

    async def _post(self, request: web.Request, topic: str, identity: Identity | None) -> web.Response:
        self._connections.open[self._channel.name] += 1
        try:
            message = await post.read(request, self._max_message)
            link = post.Post(self._channel, self._max_message)
            client = self._client(request, link, topic, "post", identity)
            return await self._answers.respond(request, link, client, message)
        finally:
            self._connections.open[self._channel.name] -= 1

    def _client(
        self, request: web.Request, link: Link, topic: str, transport: Transport, identity: Identity | None
    ) -> Client:
        return Client(
            link,
            id=self._connections.next_id(),
            topic=topic,
            transport=transport,
            identity=identity,
            query={key: value for key, value in request.query.items() if key not in ("token", "since")},
            remote=request.remote or "",
        )

    def _choose(self, request: web.Request) -> Transport:
        serves, path, method = self._channel.transports, request.path, request.method
        methods, posts = self._channel.methods, "post" in serves
        if method not in methods:
            how = ["is opened with GET"] * ("GET" in methods) + ["takes messages by POST"] * posts
            raise web.HTTPMethodNotAllowed(method, methods, text=f"{path} {' and '.join(how)}\n")
        if websocket.wants_websocket(request):
            if method != hdrs.METH_GET:
                raise web.HTTPMethodNotAllowed(method, methods, text="a WebSocket begins with GET\n")
            if "websocket" in serves:
                return "websocket"
            link = f"{self._url or f'{request.scheme}://{request.host}'}{request.rel_url.raw_path}"
            raise web.HTTPBadRequest(
                text=f"{path} is no WebSocket but server-sent events: curl -N {link}\n"
            )
        if method == hdrs.METH_POST:
            return "post"
        also = ", or send one message by POST" if posts else ""
        if "sse" not in serves:
            raise web.HTTPUpgradeRequired(
                text=f"{path} is a WebSocket; open it with ws://{also}\n",
                headers={hdrs.UPGRADE: "websocket", hdrs.CONNECTION: "Upgrade"},
            )
        if not _accepts_events(request):
            raise web.HTTPNotAcceptable(
                text=f"{path} serves text/event-stream"
                + (" and WebSocket" if "websocket" in serves else "")
                + f"{also}\n"
            )
        return "sse"

    def _stream_headers(self, request: web.Request) -> dict[str, str]:
        origin = request.headers.get(hdrs.ORIGIN)
        return {**sse.HEADERS, **({hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: origin} if origin else {})}

    def _introduction(self, request: web.Request) -> str:
        if "text/event-stream" in request.headers.get(hdrs.ACCEPT, ""):
            return ""
        others = {"websocket": ", WebSocket (Upgrade: websocket)", "post": ", POST (one message)"}
        more = "".join(text for transport, text in others.items() if transport in self._channel.transports)
        return f"{self._channel.name}: server-sent events. The same URL answers: text/event-stream{more}"

    def _check_origin(self, request: web.Request) -> None:
        sent = request.headers.getall(hdrs.ORIGIN, [])
        own = f"{known_scheme(request) or ''}://{request.host}", self._url
        if sent and not (len(sent) == 1 and origin_allowed(sent[0], self._origins, *own)):
            raise web.HTTPForbidden(
                text=f"a page of {sent[0][:100]!r} may not connect here; "
                "server.origins in the config can allow it\n"
            )

    def _check_room(self) -> None:
        if self._connections.draining:
            raise self._overloaded("the server is shutting down")
        if self._connections.open.total() >= self._connections.max_clients:
            raise self._overloaded("the server is full (server.limits.max_clients)")
        limit = self._channel.settings.limits.max_clients
        if limit is not None and self._connections.open[self._channel.name] >= limit:
            raise self._overloaded("the channel is full (limits.max_clients)")

    def _overloaded(self, text: str) -> web.HTTPException:
        error = web.HTTPServiceUnavailable(text=text + "\n", headers={"Retry-After": post.RETRY_AFTER})
        error.force_close()
        return error


class _GuardedFrames(PlainFrames):
    """Plain frames by a channel's ``as_text``, whose bugs are not to stop a flush."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel.as_text)
        self._log = channel.log
        self._as_it_is = type(channel).as_text is Channel.as_text

    def encode(self, message: Message) -> bytes:
        if message.kind == "bytes":
            return frame(BINARY, message.payload)
        if self._as_it_is and message.event == "message":
            return frame(TEXT, message.payload)  # what Channel.as_text makes of it
        try:
            text = self._as_text(message)
            return b"" if text is None else frame(TEXT, text.encode())
        except KeyboardInterrupt:
            raise
        except BaseException:
            self._log.exception("as_text failed; the message is not shown")
            return b""


def _accepts_events(request: web.Request) -> bool:
    accepted = request.headers.get(hdrs.ACCEPT, "*/*")
    ranges = [part.partition(";")[0].strip().lower() for part in accepted.split(",")]
    return not {"text/event-stream", "text/*", "*/*", ""}.isdisjoint(ranges)


def _since(request: web.Request) -> Since:
    """Where to begin: ``Last-Event-ID`` is a browser's memory, the query's ``since`` a wish.

    The memory goes first: a browser that comes back sends it with the URL it began with.
    """
    memory = request.headers.get("Last-Event-ID")
    if memory:
        try:
            return Position.parse(memory)
        except ValueError:
            return Position("", 0)  # of no epoch: the stream says that it begins anew
    wish = request.query.get("since")
    if wish is None:
        return None
    try:
        return parse_since(wish)
    except ValueError as error:
        raise ValueError(f"since: {error}; -20 asks for the newest 20, earliest for all") from None
