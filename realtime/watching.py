"""Who watches the server: ``/-/stats``, at once or as a stream, ``/-/metrics``, and ``/-/clients``.

All of it is for whom ``server.inspect`` permits. The stream is a channel like any other, on a bus of its
own: it is no topic of the config's, and nobody who observes those sees it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import hdrs, web

from realtime import about
from realtime.about import Asker
from realtime.assembly import Assembly
from realtime.channel import Channel, Client
from realtime.close_codes import CloseCode, retry_after
from realtime.errors import did_you_mean
from realtime.metrics import CONTENT_TYPE, exposition
from realtime.paths import filled
from realtime.stats import CHANNEL, Stats
from realtime.subscriber import State
from realtime.transports.connection import Connection
from realtime.transports.endpoint import begin
from realtime.transports.negotiation import is_written_out
from realtime.transports.sse import EventStreamConnection
from realtime.transports.stream import form_of
from realtime.transports.takeover import Opening, owed

if TYPE_CHECKING:
    from realtime.server import Server

#: How many clients are told of at once, unless somebody asks for fewer, and at most.
PAGE, MAX_PAGE = 50, 500
#: How many may watch at once: the limits of clients are not for them.
WATCHERS = 100
#: How much is told of the last seconds at once, in bytes.
HISTORY_BYTES = 2**20
#: How many are looked at before others have their turn.
TURN = 250
#: How much of a name is told, in characters.
MAX_NAME = 255


class Watching:
    """What a server tells of its numbers and its clients, and to whom."""

    def __init__(self, server: Server) -> None:
        self.stats = Stats(server)
        self._server = server
        settings = Channel.Settings.model_construct(plugin="stats", path="/-/stats")
        self._channel = _Stream(CHANNEL, settings, self.stats)

    def routes(self, assembly: Assembly) -> list[web.RouteDef]:
        """What serves it by the rules of an assembly."""
        answers = {"/-/stats": self._stats, "/-/metrics": self._metrics, "/-/clients": self._clients}
        return [each for path, answer in answers.items() for each in about.route(assembly, path, answer)]

    def take_over(self) -> None:
        """Other rules hold: who watches by those before comes back."""
        for connection in self._server.connections:
            if connection.channel is self._channel:
                connection.close(CloseCode.RESTARTING, "the config has been read again, come back")

    async def _stats(self, assembly: Assembly, asker: Asker) -> web.StreamResponse:
        about.check(assembly, asker)
        if is_written_out(asker.request, "sse"):
            return await self._watch(assembly, asker)
        return _json(asker, self.stats.read())

    async def _metrics(self, assembly: Assembly, asker: Asker) -> web.StreamResponse:
        about.check(assembly, asker)
        headers = {hdrs.CONTENT_TYPE: CONTENT_TYPE, **asker.headers}
        return web.Response(body=exposition(self.stats.read()).encode(), headers=headers)

    async def _clients(self, assembly: Assembly, asker: Asker) -> web.StreamResponse:
        about.check(assembly, asker)
        return _json(asker, await self._found(assembly, asker))

    async def _watch(self, assembly: Assembly, asker: Asker) -> web.StreamResponse:
        request, connections = asker.request, self._server.connections
        if connections.draining or assembly is not self._server.assembly:
            raise web.HTTPServiceUnavailable(text="come back\n", headers={hdrs.RETRY_AFTER: retry_after()})
        if connections.streams[CHANNEL, "sse"] >= WATCHERS:
            text, again = f"{WATCHERS} watch already\n", {hdrs.RETRY_AFTER: retry_after()}
            raise web.HTTPServiceUnavailable(text=text, headers=again)
        form = form_of(request, "sse")
        headers = {hdrs.CONTENT_TYPE: form.content_type, "X-Accel-Buffering": "no", **asker.headers}
        if request.method == hdrs.METH_HEAD:
            return web.Response(headers=headers)
        topic, response = self.stats.bus.topic(CHANNEL), Opening(headers=headers)
        connection = EventStreamConnection(connections, self._channel, topic, form)
        connection.client = Client(
            connection,
            id=connections.next_id(),
            topic=CHANNEL,
            transport="sse",
            identity=asker.identity,
            query={},
            remote=request.remote or "",
        )
        await begin(request, connection, response)
        return response

    async def _found(self, assembly: Assembly, asker: Asker) -> dict[str, Any]:
        query = asker.request.query
        most = query.get("limit", str(PAGE))
        if not re.fullmatch(r"\d{1,9}", most) or (limit := int(most)) > MAX_PAGE:
            raise web.HTTPBadRequest(text=f"limit: a whole number, 0 to {MAX_PAGE}\n")
        for key in query:
            if key not in (known := (*_FACTS, "search", "limit", "token")):
                hint = did_you_mean(key, known)
                raise web.HTTPBadRequest(text=f"{key[:60]}: clients cannot be asked for by this{hint}\n")
        wanted = {key: query[key] for key in _FACTS if key in query}
        states = [state.value for state in State if state is not State.GONE]
        if (state := wanted.get("state", states[0])) not in states:
            hint = did_you_mean(state, states)
            raise web.HTTPBadRequest(text=f"state: there are {', '.join(states)}{hint}\n")
        search, total = query.get("search", "").casefold(), 0
        found: list[dict[str, Any]] = []
        for number, connection in enumerate(list(self._of(assembly)), 1):
            if _matches(connection, wanted, search):
                total += 1
                if len(found) < limit:
                    found.append(self._told(connection, assembly, asker))
            if number % TURN == 0:
                await asyncio.sleep(0)  # there may be many: the clients themselves have their turn
        return {"total": total, "clients": found}

    def _of(self, assembly: Assembly) -> Iterator[Connection]:
        for connection in self._server.connections:
            if isinstance(connection, Connection) and connection.channel.name in assembly.channels:
                yield connection

    def _told(self, connection: Connection, assembly: Assembly, asker: Asker) -> dict[str, Any]:
        client, channel, subscriber = connection.client, connection.channel, connection.subscriber
        topic, bus = connection.topic, connection.topic.bus
        gate, allow = assembly.gate, channel.settings.allow
        refusal = gate.refusal(asker.request, allow, "kick", asker.identity, client.topic)
        return {
            "id": client.id,
            "name": _called(client),
            "identity": client.identity and client.identity.name,
            "channel": channel.name,
            "topic": client.topic,
            "transport": client.transport,
            "subprotocol": client.subprotocol,
            "remote": client.remote,
            "started": bus.wall_time() - (bus.now() - connection.opened_at),
            "position": f"{topic.epoch}-{subscriber.cursor}",
            "behind": topic.head - subscriber.cursor,
            "state": subscriber.state.value,
            "unsent_bytes": owed(connection.transport),
            "url": filled(channel.settings.path, client.variables),
            "kick": not (refusal or gate.denied(asker.identity, "kick", client.topic)),
        }


class _Stream(Channel):
    """The numbers of the server, with every second."""

    transports = ("sse",)

    def __init__(self, name: str, settings: Channel.Settings, stats: Stats) -> None:
        super().__init__(name, settings, stats.bus)
        self._stats = stats

    async def on_join(self, client: Client) -> None:
        samples = list(self._stats.history)
        fits = HISTORY_BYTES // len(orjson.dumps(samples[-1:]))  # of many channels each is long
        await client.send(samples[-max(fits, 1) :], event="history")


#: What clients can be asked for by.
_FACTS: dict[str, Callable[[Connection], str]] = {
    "id": lambda connection: connection.client.id,
    "channel": lambda connection: connection.channel.name,
    "topic": lambda connection: connection.client.topic,
    "state": lambda connection: connection.subscriber.state,
}


def _called(client: Client) -> str | None:
    """Its name: that is the channel's to set, and may be anything."""
    if client.name is None:
        return None
    return str(client.name)[:MAX_NAME].encode("utf-8", "backslashreplace").decode()


def _matches(connection: Connection, wanted: Mapping[str, str], search: str) -> bool:
    if any(_FACTS[key](connection) != value for key, value in wanted.items()):
        return False
    client, identity = connection.client, connection.client.identity
    who = (client.id, _called(client), identity and identity.name, client.remote, client.topic)
    return not search or any(search in each.casefold() for each in who if each)


def _json(asker: Asker, facts: dict[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(facts), content_type="application/json", headers=asker.headers)
