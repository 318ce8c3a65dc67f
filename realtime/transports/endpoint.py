"""One URL, every transport: what a request to a channel gets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from aiohttp import hdrs, web

from realtime.auth import Gate, check_origin
from realtime.blame import defined
from realtime.buckets import Bucket, Buckets, Rate
from realtime.channel import Channel, Client, Link, Transport
from realtime.close_codes import retry_after
from realtime.encodings import TEXT, DeflatedFrames, Form, PlainFrames, frame
from realtime.envelope import V1_JSON
from realtime.errors import Rejected, TooManyTopics, Unavailable, UnknownTopic
from realtime.message import Message, Position, Since, parse_since
from realtime.origins import sharing
from realtime.paths import topic_name, variables
from realtime.permissions import Action, Identity
from realtime.remedies import remedy
from realtime.topic import Topic
from realtime.transports import handshake, negotiation, page, post, websocket
from realtime.transports.connection import Connection
from realtime.transports.connections import Connections, Full
from realtime.transports.idempotency import Answers
from realtime.transports.snapshot import snapshot
from realtime.transports.sse import EventStreamConnection, is_final_for, turned_away
from realtime.transports.stream import StreamConnection, form_of
from realtime.transports.takeover import Opening, cut, take_over

OnMessage = Callable[[Client, Message], Awaitable[Position | None]]

#: How long a snapshot may take, its wait for others included, in seconds.
SNAPSHOT_WITHIN = 30.0

_NO_VARIABLES: Mapping[str, str] = MappingProxyType({})
#: For what somebody must have permission; for all else it is to read.
_ACTIONS: dict[str, Action] = {"post": "publish", "kick": "kick"}

_RELOADED = Full("reloaded", "the config has just been read again, come back")


class Endpoint:
    """Answers every request to one channel's path."""

    def __init__(
        self,
        channel: Channel,
        connections: Connections,
        gate: Gate,
        *,
        origins: str | list[str],
        url: str | None,
        prefix: str,
    ) -> None:
        self._channel = channel
        self._connections = connections
        self._prefix = prefix
        self._variables = variables(channel.settings.path)
        self._now = asyncio.get_running_loop().time
        self._plain = _GuardedFrames(channel)
        self._deflated = DeflatedFrames(self._plain)
        self._answers = Answers(channel)
        #: Whether the channel is served no more: another has its place, or none.
        self.retired = False
        self._inbound = Rate(0, 0)
        self.configure(gate, origins=origins, url=url)

    def configure(self, gate: Gate, *, origins: str | list[str], url: str | None) -> None:
        """Go by this, and by what the limits of the channel and of all connections are now."""
        self._gate = gate
        self._origins = origins
        self._url = url
        own, limits = self._channel.settings.limits, self._connections.limits
        self._max_message = own.max_message or limits.max_message
        inbound = Rate(own.inbound_rate or limits.inbound_rate, own.inbound_burst or limits.inbound_burst)
        if inbound != self._inbound:  # else who has used up what may be said has done so
            self._inbound, self._posting = inbound, Buckets(inbound)

    def succeed(self, other: Endpoint) -> None:
        """Stand where another did: what was answered under a key stays so."""
        self._answers = other._answers.of(self._channel)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Handle one request; of a stream this is the beginning, which then lives by itself."""
        common = {"Vary": "Accept, Sec-Fetch-Mode", "Cache-Control": "no-store"}
        if origin := request.headers.get(hdrs.ORIGIN):
            common["Vary"] += ", Origin"
            common |= sharing(origin, self._origins, self._channel.methods)
        try:
            response = await self._answer(request, common)
        except web.HTTPException as error:
            error.headers.update(common)
            self._connections.refused[getattr(error, "limit", str(error.status))] += 1
            level = logging.INFO if error.status in (401, 403) else logging.DEBUG
            said, remote = (error.text or "").strip(), request.remote or "an unknown address"
            self._channel.log.log(
                level, "%s from %s refused: %d %s", request.method, remote, error.status, said
            )
            if isinstance(error, _Overloaded) and is_final_for(request):
                response = turned_away((error.text or "").strip())
            else:
                raise
        if not response.prepared:
            response.headers.update(common)
        return response

    async def _answer(self, request: web.Request, common: dict[str, str]) -> web.StreamResponse:
        wanted = negotiation.asked(request, self._channel, self._link(request))
        try:
            topic = topic_name(self._channel.name, request.match_info.values(), request.rel_url.raw_path)
            since = _since(request) if wanted in negotiation.READING else None
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from None
        check_origin(request, self._origins, self._url)
        if wanted == "options":
            return web.Response(status=204, headers={"Allow": ", ".join(self._channel.methods)})
        if wanted == "html":
            return page.answer(self._channel, self._link(request), self._prefix, topic)
        response: web.StreamResponse | None = None
        if wanted == "websocket":
            response = handshake.accept(request, compress=self._channel.settings.compress)
        identity = await self._identify(request)
        action, allow = _ACTIONS.get(wanted, "subscribe"), self._channel.settings.allow
        refusal = self._gate.refusal(request, allow, action, identity, topic)
        if refusal := refusal or self._gate.denied(identity, action, topic):
            raise refusal
        if wanted == "kick":
            return await self._kick(request, topic)
        if wanted == "json":
            return await self._snapshot(request, topic, since, common)
        self._check_room(request, wanted, identity)
        if wanted == "post":
            return await self._post(request, topic, identity)
        if response is None:
            # For nginx: hand on each message as it comes.
            headers = {"Content-Type": form_of(request, wanted).content_type, "X-Accel-Buffering": "no"}
            if request.method == hdrs.METH_HEAD:
                return web.Response(headers=headers)
            response = Opening(headers=headers | common)
        gate, opened = self._gate, await self._open(topic, since)
        self._check_retired(gate)
        self._check_full(identity, request.remote or "")  # others may have come meanwhile
        connection = self._connection(request, opened, wanted, response)
        connection.client = self._client(request, connection, topic, wanted, identity)
        if wanted == "websocket":
            refusal = self._gate.refusal(request, allow, "publish", identity, topic)
            if refusal or self._gate.asks:
                connection.on_message = self._asking_first(connection.on_message, refusal)
        await begin(request, connection, response, since, self._introduction(request))
        return response

    async def _identify(self, request: web.Request) -> Identity | None:
        """Who it is, by the rules that hold when that is known."""
        while True:
            gate = self._gate
            identity = await gate.authenticate(request)
            self._check_retired()
            if gate is self._gate:
                return identity

    def _check_retired(self, gate: Gate | None = None) -> None:
        """Raises 503 if what the request was let in by holds no more."""
        if self.retired or gate not in (None, self._gate):
            raise _Overloaded(_RELOADED, 1)

    async def _open(self, name: str, since: Since) -> Topic:
        try:
            return await self._channel.bus.open(name, since)
        except UnknownTopic:  # the channel has gone meanwhile
            raise _Overloaded(_RELOADED, 1) from None
        except TooManyTopics as error:
            raise _Overloaded(Full("server.limits.topics", str(error))) from None
        except Unavailable as error:
            raise _Overloaded(Full("bus.engine", str(error))) from None

    def _connection(
        self, request: web.Request, topic: Topic, transport: Transport, response: web.StreamResponse
    ) -> Connection:
        if transport == "websocket":
            with_json = handshake.wants_json(request)
            kind = websocket.JsonWebSocket if with_json else websocket.WebSocket
            form: Form = websocket.JSON_FRAMES if with_json else self._plain
            if "Sec-WebSocket-Extensions" in response.headers:
                form = websocket.DEFLATED_JSON_FRAMES if with_json else self._deflated
            bucket = Bucket(self._inbound, self._now())
            return kind(self._connections, self._channel, topic, form, self._max_message, bucket)
        streaming = StreamConnection if transport == "ndjson" else EventStreamConnection
        return streaming(self._connections, self._channel, topic, form_of(request, transport))

    def _link(self, request: web.Request) -> str:
        return f"{self._url or f'{request.scheme}://{request.host}'}{request.rel_url.raw_path}"

    def _introduction(self, request: web.Request) -> str:
        if negotiation.is_written_out(request, "sse"):
            return ""
        there = negotiation.forms(self._channel)
        return f"{self._channel.name}: server-sent events. The same URL answers: {there}"

    async def _snapshot(
        self, request: web.Request, topic: str, since: Since, common: dict[str, str]
    ) -> web.Response:
        # What is known here may not be all; others are not to wait for it.
        there = self._channel.bus.engine.shared and await self._open(topic, since)
        try:
            async with self._connections.snapshots, asyncio.timeout(SNAPSHOT_WITHIN):
                async with self._connections.snapshot:
                    await asyncio.sleep(0)  # the next one is for another turn
                    there and await self._open(topic, None)  # at once, unless it has gone meanwhile
                    body = snapshot(self._channel, topic, since)
                response = web.Response(body=body, content_type="application/json", headers=common)
                await response.prepare(request)
                await response.write_eof()
                return response
        except (TimeoutError, ConnectionError):
            if request.transport is not None:
                cut(request.transport)
            return web.Response(status=503)  # to nobody

    async def _post(self, request: web.Request, topic: str, identity: Identity | None) -> web.Response:
        link = post.Post(self._channel, self._max_message)
        client = self._client(request, link, topic, "post", identity)
        self._connections.count(self._channel, client, 1)
        try:
            gate = self._gate
            message = await post.read(request, self._max_message, self._connections)
            self._check_retired(gate)
            with self._connections.answering(self._channel):
                return await self._answers.respond(request, link, client, message)
        finally:
            self._connections.count(self._channel, client, -1)

    def _client(
        self, request: web.Request, link: Link, topic: str, transport: Transport, identity: Identity | None
    ) -> Client:
        values = topic.split("/", len(self._variables))[1:]  # the last may have slashes in it
        return Client(
            link,
            id=self._connections.next_id(),
            topic=topic,
            transport=transport,
            identity=identity,
            query={key: value for key, value in request.query.items() if key not in ("token", "since")},
            remote=request.remote or "",
            variables=dict(zip(self._variables, values, strict=True)) if values else _NO_VARIABLES,
            subprotocol=V1_JSON if transport == "websocket" and handshake.wants_json(request) else "",
        )

    async def _kick(self, request: web.Request, topic: str) -> web.Response:
        id, name = request.query.get("client"), request.query.get("name")
        if not id and not name:
            raise web.HTTPBadRequest(text="say whom to remove with ?client=ID or ?name=NAME\n")
        removed = await self._channel.kick(topic, id=id, name=name, reason=request.query.get("reason", ""))
        if not removed:
            raise web.HTTPNotFound(text=f"there is no {id or name!r} here\n")
        return web.Response(body=b'{"removed":%d}' % removed, content_type="application/json")

    def _asking_first(self, hear: OnMessage, refusal: web.HTTPException | None) -> OnMessage:
        """What hears the messages of a client that may read, and may not publish or not always."""

        async def on_message(client: Client, message: Message) -> Position | None:
            refused = refusal or self._gate.denied(client.identity, "publish", client.topic)
            if refused is not None:
                raise Rejected((refused.text or "").strip(), refused.status)
            return await hear(client, message)

        return on_message

    def _check_full(self, identity: Identity | None, address: str) -> None:
        if full := self._connections.no_room(self._channel, identity, address):
            raise _Overloaded(full)

    def _check_room(self, request: web.Request, wanted: str, identity: Identity | None) -> None:
        """Raises the HTTP error (429, 503) of a limit that another client would break."""
        self._check_full(identity, address := request.remote or "")
        if wanted == "post":
            if wait := self._posting.take(identity.name if identity else (address,), self._now()):
                rate = f"you may send {self._inbound.per_second} messages a second"
                raise _Overloaded(Full("limits.inbound_rate", rate, 429), wait)
        elif request.method != hdrs.METH_HEAD and not self._connections.may_connect():
            raise _Overloaded(Full("server.limits.connect_rate", "too many are connecting at once"))


async def begin(
    request: web.Request,
    connection: Connection,
    response: web.StreamResponse,
    since: Since = None,
    introduction: str = "",
) -> None:
    """Answer a request with a connection, whose client is known, and let it live."""
    connections = connection.connections
    if request.transport is None:
        raise web.HTTPBadRequest  # it has gone while it was authenticated; nobody reads this
    connection.attach(request.transport)
    # The place is held before the handshake is answered: what is published from the moment
    # the client knows of the connection is for it.
    topic, client = connection.topic, connection.client
    connection.subscriber = topic.subscribe(connection, connection.form, client, since)
    connections.add(connection)
    try:
        await response.prepare(request)
        take_over(request, connection, connections.buffer)
        connection.greet(introduction)
        connection.watch()
        connection.live()
    except BaseException as error:
        connection.subscriber.detach()
        connection.transport.abort()
        connections.remove(connection)
        if not isinstance(error, ConnectionError):  # the client went while it was being answered
            raise


class _Overloaded(web.HTTPServiceUnavailable):
    """What a client that broke a limit is told, and when to come back: each another time."""

    def __init__(self, full: Full, wait: int | None = None) -> None:
        self.limit, sentence, status = full
        if "." in self.limit and self.limit not in sentence:
            sentence += f" ({self.limit})"
        super().__init__(text=f"{sentence}\n", headers={hdrs.RETRY_AFTER: str(wait or retry_after())})
        self.set_status(status)
        self.force_close()


class _GuardedFrames(PlainFrames):
    """Plain frames by a channel's ``as_text``, whose bugs are not to stop a flush."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel.as_text)
        self._log, self._plugin = channel.log, channel.settings.plugin
        self._place = defined(type(channel), "as_text")
        self._as_it_is = type(channel).as_text is Channel.as_text

    def encode(self, message: Message) -> bytes:
        if self._as_it_is and message.event == "message" and message.kind != "bytes":
            return frame(TEXT, message.payload)  # what Channel.as_text makes of it
        try:
            return super().encode(message)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._log.exception(
                "a bug of plugin %r: as_text failed, the message is not shown%s; "
                "it returns a str, or None for nothing, in %s",
                self._plugin,
                remedy(error),
                self._place,
            )
            return b""


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
