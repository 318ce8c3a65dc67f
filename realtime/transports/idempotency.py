"""Idempotent POSTs: a message that is sent again under its key is heard once, and answered as before.

The header is that of draft-ietf-httpapi-idempotency-key-header. What was answered is remembered in this
process, for the channel's ``idempotency_window``; what was published for it, where the bus keeps its logs.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from realtime.channel import Channel, Client
from realtime.engine import SAYING, Once
from realtime.message import Message
from realtime.transports.connections import log_end
from realtime.transports.post import Hearing, Post

HEADER = "Idempotency-Key"
#: What an answer has that was given before.
REPLAYED = "Idempotency-Replayed", "true"
#: How much a channel remembers, in bytes: what was answered, and so much more for each answer. These are
#: 11,000 of the usual ones; beyond it the oldest are forgotten before their time.
MAX_BYTES = 8 * 1024 * 1024
ANSWER_COST = 700
#: Answers that another attempt may change: too early, too often, a name that is taken. So may any 5xx.
_NOT_FINAL = (408, 409, 425, 429)

# A bare word, or the string of RFC 9651 (section 3.3.3) that the draft asks for; not what may be a list.
_WORD = re.compile(r"[!#-+\--~]{1,255}")
_STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\]){1,255})"')


@dataclass(frozen=True, slots=True)
class _AtWork:
    """A message that is being heard."""

    said: bytes
    hearing: Hearing[_Answered]


@dataclass(frozen=True, slots=True)
class _Answered:
    """The answer to a message, and until when it is remembered, by the loop's clock."""

    said: bytes
    until: float
    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...]

    def response(self, *more: tuple[str, str]) -> web.Response:
        """The answer, to be sent once, with more headers."""
        return web.Response(status=self.status, body=self.body, headers=[*self.headers, *more])


class Answers:
    """What the POSTs to a channel that came with a key were answered, and those that are being heard."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._now = asyncio.get_running_loop().time
        self._at_work: dict[bytes, _AtWork] = {}
        # All are kept for the same time, so the first is the first to go.
        self._answered: OrderedDict[bytes, _Answered] = OrderedDict()
        self._room = MAX_BYTES
        self._warned = False

    def of(self, channel: Channel) -> Answers:
        """The same answers, and from now on those of another channel that stands in the place of this."""
        self._channel = channel
        return self

    async def respond(
        self, request: web.Request, link: Post, client: Client, message: Message
    ) -> web.Response:
        """Let the channel hear the message, unless it has heard it under the key of the request.

        A message that is still being heard is waited for. Raises the HTTP error of a key that is none
        (400), or that came with another message (422).
        """
        sent = request.headers.getall(HEADER, ())
        if not sent:
            return await link.handle(client, message)
        who = client.identity and client.identity.name
        # As digests they all have one size, whatever a client makes up.
        scope = _digest(client.topic, who, client.query.get("name"), _key(sent))
        query = sorted(client.query.items())
        said = _digest(message.event, message.kind, query, data=message.payload)
        self._forget()
        known = self._answered.get(scope) or self._at_work.get(scope)
        if known is None:
            hearing = Hearing(self._hear(scope, said, link, client, message), client, self._channel)
            self._at_work[scope] = _AtWork(said, hearing)
            return (await hearing.answer()).response()
        if known.said != said:
            text = f"this {HEADER} came with another message; each message needs a key of its own\n"
            raise web.HTTPUnprocessableEntity(text=text)
        answer = await known.hearing.answer() if isinstance(known, _AtWork) else known
        log_end(client, self._channel, f"was answered {answer.status} as before", {"status": answer.status})
        return answer.response(REPLAYED)

    async def _hear(
        self, scope: bytes, said: bytes, link: Post, client: Client, message: Message
    ) -> _Answered:
        window = self._channel.settings.idempotency_window
        # Another process that hears the message again, after this has gone, publishes nothing anew.
        saying = (Once(f"{scope.hex()}-{number}", window, said.hex()) for number in itertools.count())
        SAYING.set(saying)
        try:
            response = await link.hear(client, message)
        finally:
            saying.close()  # a task that on_message has begun goes on without it
            del self._at_work[scope]
        body, until = response.body, self._now() + window
        assert isinstance(body, bytes)
        answer = _Answered(said, until, response.status, body, tuple(response.headers.items()))
        if answer.status < 500 and answer.status not in _NOT_FINAL:
            self._answered[scope] = answer
            self._room -= len(body) + ANSWER_COST
            self._forget()
        return answer

    def _forget(self) -> None:
        """Forget what is over, and the oldest of what there is no room for."""
        now = self._now()
        while self._answered:
            scope, oldest = next(iter(self._answered.items()))
            if oldest.until > now and self._room >= 0:
                return
            if oldest.until > now and not self._warned:
                self._warned = True
                self._channel.log.warning(
                    "more POSTs with a key than can be remembered: the oldest answers are forgotten before "
                    "idempotency_window is over (told once)"
                )
            del self._answered[scope]
            self._room += len(oldest.body) + ANSWER_COST


def _key(sent: Sequence[str]) -> str:
    """The key without its quotes. Raises the HTTP error that says what it must be."""
    value = ",".join(sent).strip(" \t")
    if _WORD.fullmatch(value):
        return value
    if string := _STRING.fullmatch(value):
        return re.sub(r"\\(.)", r"\1", string[1])
    text = f"{HEADER} has 1 to 255 printable characters of ASCII, in double quotes or without any\n"
    raise web.HTTPBadRequest(text=text)


def _digest(*parts: object, data: bytes = b"") -> bytes:
    return hashlib.blake2b(ascii(parts).encode() + data, digest_size=16).digest()
