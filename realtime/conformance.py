"""The checks of ``python -m realtime plugins test``: what no author does to a channel.

Each is a method of :class:`Checks`: its docstring is what is expected, ``did`` is what is done. One that
fails says what happened, at which line of the plugin, and what its author can do about it.
"""

from __future__ import annotations

import asyncio
import gc
import linecache
import logging
import random
import re
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

from realtime.blame import is_host
from realtime.findings import Do, Skipped, Trouble
from realtime.leaks import filled, growth, holder, opened, sizes, traced
from realtime.stranger import BINARY, TEXT, Stranger, frame, request
from realtime.trial import DRAIN, PATIENCE, Trial, place_of, said, until

#: How many clients come and go, and how many of them at a time.
JOINS, WAVE = 1000, 50
#: What may be left of them: tasks and descriptors, clients that are held, bytes at a line of a plugin.
FEW, FEW_CLIENTS, FEW_BYTES = 10, 20, 64 * JOINS
#: How much a line of a plugin may take for one client that reads nothing, in bytes.
BACKLOG = 512 * 1024
#: How long a channel that is slow but goes on is waited for, in seconds.
SLOW = 15.0

#: What is said that nobody expects. None of it is larger than ``limits.max_message``.
GARBAGE: dict[str, bytes] = {
    "an empty text": b"",
    "half a JSON": b'{"text": ',
    "an empty list": b"[]",
    "null": b"null",
    "a number": b"1e999",
    "a long number": b"9" * 5000,
    "an object without keys": b"{}",
    "an object of other types": b'{"text": 5, "to": [], "type": {}, "id": null, "event": "message"}',
    "deep nesting": b"[" * 5000 + b"]" * 5000,
    "a NUL": b"a\0b",
    "half a character": b'"\\ud800"',
    "an event of the server's": b'{"event": "realtime:join", "data": {}}',
    "an event without data": b'{"event": "message"}',
    "what turns text around": "\u202e\ufeff\u2028 e\u0301".encode(),
    "random bytes": random.Random(1).randbytes(200),
}
KINDS = (
    "application/json",
    "text/plain; charset=utf-16",
    "application/octet-stream",
    "nonsense",
)


Method = Callable[["Checks"], Awaitable[None]]
CHECKS: dict[str, tuple[str, Method]] = {}


def check(did: str) -> Callable[[Method], Method]:
    """A method is a check; ``did`` is what it does."""

    def add(method: Method) -> Method:
        CHECKS[getattr(method, "__name__", "").replace("_", "-")] = did, method
        return method

    return add


class Checks(Trial):
    """A trial, and everything that is tried."""

    def needs(self, *transports: str) -> str:
        """The first of these transports that is served. Raises :exc:`Skipped` if none is."""
        for transport in transports:
            if self.serves(transport):
                return transport
        raise Skipped(f"it serves no {' and no '.join(transports)}")

    def wants_to_hear(self) -> None:
        """Skip the check if the channel does nothing with messages."""
        if not self.hears:
            raise Skipped("it has no on_message")

    @check("one client of each transport, and a second that goes on where the first stood")
    async def welcome(self) -> None:
        """A client of each transport gets in, is told where it stands, and can resume."""
        for transport in ("websocket", "sse", "ndjson"):
            if not self.serves(transport):
                continue
            if transport == "websocket":
                await self.join("websocket")
                transport = "v1"
            first = await self.join(transport)
            await until(lambda: bool(first.position))  # noqa: B023  # awaited in its turn
            second = await self.join(transport, since=first.position)
            await until(lambda: bool(second.outcome))  # noqa: B023  # awaited in its turn
            if second.outcome != "recovered":
                self.fail(f"{transport}: resuming from {first.position!r} was {second.outcome!r}")
        if self.serves("json"):
            answer = await self.answer(self.opening("json", 1))
            if answer.status != 200:
                remedy = Do.LET_IN if answer.status in (401, 403) else ""
                self.fail(f"the snapshot was answered {answer.status}: {answer.text.strip()}", "", remedy)
        if self.serves("post"):
            answer = await self.post(self.manners.message)
            if answer.status >= 500:
                self.fail(f"a POST was answered {answer.status}", self.last_error(), Do.CATCH)

    @check(
        "clients that go before the first byte, in the middle of the handshake, of a frame and of a body"
    )
    async def abort(self) -> None:
        """A client may go at any moment, and nothing of it is left."""
        tasks, descriptors = self.tasks(), self.descriptors()
        openings = [self.opening(name, 1) for name in ("websocket", "sse", "ndjson") if self.serves(name)]
        body = request(self.path(1), self.manners.headers, method="POST", body=b"x" * 100)[:-90]
        half = frame(TEXT, b"x" * 100)[:20]
        pieces = [b"", openings[0][:30] if openings else b"", body, *openings]
        if self.serves("websocket"):
            pieces += [openings[0] + half, openings[0] + self.greeting(1)[:3]]
            pieces += [openings[0] + self.greeting(1), openings[0] + self.greeting(1) + half]
        with traced():
            for piece in pieces * 5:
                peer = await self.dial(piece)
                await asyncio.sleep(random.random() / 500)  # it goes at any moment
                peer.abort()
            await self.calm()
            await until(lambda: self.descriptors() <= descriptors and len(self.tasks()) <= len(tasks), 2.0)
            self._compare(tasks, descriptors, 2)

    def _compare(self, tasks: dict[asyncio.Task[Any], str], descriptors: int, few: int) -> None:
        left = {task: place for task, place in self.tasks().items() if task not in tasks}
        for place in dict.fromkeys(left.values()):
            count = list(left.values()).count(place)
            if count > few:
                self.fail(f"{count} tasks are left that were not there before", place, Do.CANCEL)
        if self.descriptors() > descriptors + few:
            more = self.descriptors() - descriptors
            self.fail(f"{more} descriptors are left that were not there before", opened(), Do.CLOSE)

    @check("a WebSocket that answers no ping; the server's clock is put forward")
    async def half_open(self) -> None:
        """A client that is gone without a word is noticed, and leaves."""
        self.needs("websocket")
        peer = await self.join("websocket")
        client = self.known[-1]()
        if not await self.lasts(peer) or client is None:  # else all that it said is heard
            raise Skipped(f"the channel closes a client that says nothing: {said(peer)}")
        peer.answering = False
        link: Any = client._link
        now = asyncio.get_running_loop().time()
        for later in (26.0, 26.0 + 9.0):
            link.beat(now + later)
            await asyncio.sleep(0)  # what that asks for is written
        del client, link
        if not await until(lambda: peer.gone):
            self.fail("it was still connected after its time")
        if not await until(lambda: self.leaving == self.left and not self.channel.clients):
            raise Trouble(self.stuck("on_leave did not end when it was cut", Do.LIMIT))

    @check("one that never reads, and another that says 300 messages of a kilobyte meanwhile")
    async def slow_reader(self) -> None:
        """Who does not read delays nobody, and costs no more than a bound."""
        self.needs("websocket")
        self.wants_to_hear()
        talker, text = await self.talker()
        begun, before = time.monotonic(), self.heard
        talker.say(self.said(text, v1=self.v1) * 10)
        await until(lambda: self.heard >= before + 10 or talker.gone)
        alone = (time.monotonic() - begun) / 10
        count = max(20, min(300, int(2.0 / alone)))
        slow = await self.join("websocket", receive_buffer=4096)
        slow.transport.pause_reading()
        before = self.heard
        with traced():
            for _ in range(count // 20):
                talker.say(self.said(text, v1=self.v1) * 20)
                await asyncio.sleep(0.01)  # others have their turns in between
            count -= count % 20
            within = max(PATIENCE, 5 * alone * count)
            heard = await until(lambda: self.heard >= before + count or talker.gone, within)
            grown = growth(tracemalloc.take_snapshot())
        for place, size in grown.items():
            if size > BACKLOG:
                wrong = f"{size // 1024} KiB were taken there for one client that does not read"
                self.fail(wrong, place, Do.BOUND)
        if talker.end is not None:
            self.fail(f"who spoke was closed: {said(talker)}", self.last_error(), Do.CATCH)
        elif not heard:
            happened = f"{self.heard - before} of {count} messages were heard in time"
            self.findings.append(self.stuck(happened, Do.SEND))

    async def talker(self) -> tuple[Stranger, str]:
        """A client that can be heard, and what it may say: padded to a kilobyte where that is taken.

        Raises :exc:`Skipped` when the channel does not take what it says.
        """
        text = self.manners.message
        for tried in (text, text if self.v1 else f"{text} {'.' * 1000}"):
            peer = await self.join("v1" if self.v1 else "websocket")
            refused = self.refused
            peer.say(self.said(tried, v1=self.v1))
            if await self.lasts(peer) and self.refused == refused:
                text = tried
                continue
            if peer.end and peer.end[0] == 1011:
                raise Trouble(self.outside(peer))
            if tried is self.manners.message:
                denied = peer.end and peer.end[0] in (4401, 4403)
                how = Do.LET_IN if denied else "give one that is: --message TEXT"
                raise Skipped(f"its message is not taken, {said(peer) or 'rejected'}; {how}")
            peer = await self.join("websocket")
        return peer, text

    @check(f"{JOINS} clients in waves of {WAVE}; half of them go without a goodbye")
    async def churn(self) -> None:
        """Tasks, descriptors and memory are what they were, and on_leave ran once for each on_join."""
        transport = self.needs("websocket", "sse", "ndjson")
        for _ in range(2):
            await self._wave(transport)  # what is made once for all is there now
        await self.calm()
        tasks, descriptors, known = self.tasks(), self.descriptors(), len(self.held())
        counted = self.joined, self.left
        for _ in range(JOINS // WAVE // 2):
            await self._wave(transport)
        amounts = sizes(self.channel)
        with traced():
            for _ in range(JOINS // WAVE // 2):
                await self._wave(transport)
            await self.calm()
            held = self.held()
            grown = growth(tracemalloc.take_snapshot())
            self._compare(tasks, descriptors, FEW)
        joins, leaves = self.joined - counted[0], self.left - counted[1]
        if leaves < joins:
            wrong = f"on_join ran {joins} times, and on_leave ended {leaves} times"
            self.fail(wrong, self.last_error(), Do.BEAR)
        if len(held) - known > FEW_CLIENTS:
            name, place = holder(self.channel, held[-1])
            who = f", by {name}" if name else ""
            self.fail(f"{len(held) - known} clients that have left are still held{who}", place, Do.FORGET)
        for name, amount in sizes(self.channel).items():
            more = amount - amounts.get(name, 0)
            if more > JOINS // 4 and not any(f"by {name}" in finding.happened for finding in self.findings):
                wrong = f"{name} grew by {more} with the last {JOINS // 2} clients, which have all left"
                self.fail(wrong, filled(self.channel, name), Do.FORGET)
        for place, size in grown.items():
            if size > FEW_BYTES and not self.findings:
                wrong = f"what is taken there grew by {size} bytes with the last {JOINS // 2} clients"
                self.fail(wrong, place, Do.FORGET)

    async def _wave(self, transport: str) -> None:
        before = self.joined
        peers = [await self.begin(transport) for _ in range(WAVE)]
        await until(lambda: self.joined >= before + WAVE or any(peer.gone for peer in peers))
        if self.joined < before + WAVE:
            bad = next((peer for peer in peers if peer.end), peers[-1])
            raise Trouble(self.outside(bad))
        for number, peer in enumerate(peers):
            if number % 2 and transport == "websocket":
                peer.say(frame(0x8, b"\x03\xe8"))
            else:
                peer.abort()
        if not await until(lambda: self.leaving >= self.joined or not self.channel.clients):
            raise Trouble(self.stuck("clients had not left in time when they were gone", Do.LIMIT))
        for peer in peers:
            peer.abort()
            self.peers.remove(peer)

    @check("what nobody expects, as a greeting, as a message, and as a POST of each content type")
    async def malformed(self) -> None:
        """Whatever a client says, it is answered or refused, and never a bug."""
        bad: dict[str, dict[str, str]] = {}

        def note(what: str, how: str) -> None:
            bad.setdefault(self.last_error(), {}).setdefault(what, f"{what} {how}".strip())

        for what, data in GARBAGE.items():
            if self.serves("websocket") and self.hears:
                for transport, opcode in (("websocket", TEXT), ("websocket", BINARY), ("v1", TEXT)):
                    peer = await self.join(transport)
                    peer.say(frame(opcode, data))
                    if not await self.lasts(peer) and peer.end and peer.end[0] == 1011:
                        note(what, "as binary" if opcode == BINARY else "")
                    peer.abort()
                if self.manners.says:
                    self.number += 1
                    peer = await self.dial(self.opening("websocket", self.number) + frame(TEXT, data))
                    await until(lambda: peer.end is not None, 0.02)  # noqa: B023  # awaited in its turn
                    if peer.end and peer.end[0] == 1011:
                        note(what, "as a greeting")
                    peer.abort()
            for kind in KINDS if self.serves("post") else ():
                headers = {**self.manners.headers, "Content-Type": kind}
                peer = await self.answer(request(self.path(1), headers, method="POST", body=data))
                if peer.status == 500:
                    note(what, f"in a POST of {kind}")
        for place, whats in bad.items():
            more = f", and {len(whats) - 3} others" if len(whats) > 3 else ""
            self.fail(f"the channel failed at {', '.join([*whats.values()][:3])}{more}", place, Do.CATCH)

    @check("a message as large as limits.max_message allows, and one that is a byte larger")
    async def oversized(self) -> None:
        """The largest message is heard or refused, a larger one is refused, and neither is a bug."""
        self.wants_to_hear()
        most = self.channel.settings.limits.max_message or self.server.config.server.limits.max_message
        if self.serves("websocket"):
            for size in (most, most + 1):
                peer = await self.join("websocket")
                peer.say(frame(TEXT, b"x" * size))
                if not await self.lasts(peer) and (peer.end or (0,))[0] in (1011, 1006):
                    wrong = f"{size} bytes: the client was closed: {said(peer)}"
                    self.fail(wrong, self.last_error(), Do.CATCH)
                peer.abort()
        for size in (most, most + 1) if self.serves("post") else ():
            peer = await self.post("x" * size)
            if peer.status >= 500:
                self.fail(f"{size} bytes: a POST was answered {peer.status}", self.last_error(), Do.CATCH)

    @check("20 clients that say 50 messages each, all at once")
    async def burst(self) -> None:
        """on_message comes to its end for every message of many, and nobody is closed for a bug."""
        self.needs("websocket")
        self.wants_to_hear()
        await self.talker()
        peers = [await self.join("v1" if self.v1 else "websocket") for _ in range(20)]
        target, last = self.heard + 1000, 0
        for peer in peers:
            peer.say(self.said(self.manners.message, v1=self.v1) * 50)
        end = time.monotonic() + SLOW
        while last < self.heard < target and time.monotonic() < end and not any(p.gone for p in peers):
            last = self.heard  # a channel may be slow, but goes on
            await until(lambda: self.heard >= target or any(peer.gone for peer in peers))
        ended = [peer for peer in peers if peer.end and peer.end[0] in (1011, 1006, 1013)]
        if ended:
            self.fail(
                f"{len(ended)} of 20 clients were closed: {said(ended[0])}", self.last_error(), Do.CATCH
            )
        elif last == self.heard < target:
            heard = self.heard + 1000 - target
            self.findings.append(
                self.stuck(f"{heard} of 1000 messages were heard, and then no more", Do.LIMIT)
            )

    @check("two clients of one name; when both have gone, a third; and some that go while greeted")
    async def same_name(self) -> None:
        """Who has another's name gets in or is refused, and a name is free when its holder has gone."""
        self.needs("websocket")
        self.number += 1
        number = self.number
        await self.join("websocket", number)
        second = await self.begin("websocket", number)
        await until(lambda: second.end is not None or self.joined == self.left + 2, 1.0)
        if second.end and second.end[0] == 1011:
            self.fail(f"the second was closed: {said(second)}", self.last_error(), Do.CATCH)
        await self.calm()
        for when in ("after its holder had left", "after its holder had gone while it was greeted"):
            try:
                await self.join("websocket", number)
            except Trouble as trouble:
                wrong = f"the name was still taken {when}: {trouble.finding.happened}"
                self.fail(wrong, trouble.finding.place, Do.FREE)
            await self.calm()
            for _ in range(5):
                begun = len(self.known)
                peer = await self.dial(self.opening("websocket", number) + self.greeting(number))
                await until(lambda: len(self.known) > begun, 1.0)  # noqa: B023  # awaited in its turn
                peer.abort()
            await self.calm()

    @check("the same POST twice under one Idempotency-Key")
    async def idempotency(self) -> None:
        """on_message runs once for both, and they are answered alike."""
        self.needs("post")
        self.wants_to_hear()
        self.number += 1
        before, number = self.heard, self.number
        first, second = [
            await self.post(self.manners.message, number, Idempotency_Key="conformance") for _ in range(2)
        ]
        if first.status >= 500:
            self.fail(f"the first was answered {first.status}", self.last_error(), Do.CATCH)
        elif first.status >= 400:
            how = f"; {Do.LET_IN}" if first.status in (401, 403) else ""
            raise Skipped(f"the POST was refused: {first.status} {first.text.strip()[:100]}{how}")
        elif (first.status, first.text, 1) != (second.status, second.text, self.heard - before):
            heard, text = self.heard - before, second.text.strip()
            self.fail(f"it was heard {heard} times, and then answered {second.status} {text[:100]}")

    @check(f"a shutdown (server.drain {DRAIN:g}s) with 50 clients, of whom some talk and one does not read")
    async def shutdown(self) -> None:
        """It ends in order within server.drain, and leaves no task and no thread behind."""
        transport = next((name for name in ("websocket", "sse", "ndjson") if self.serves(name)), "")
        peers = [
            await self.join(transport, receive_buffer=0 if n else 4096)
            for n in range(50 if transport else 0)
        ]
        for peer in peers[:1]:
            peer.transport.pause_reading()
        if self.hears and transport == "websocket":
            for peer in peers[1:20]:
                peer.say(self.said(self.manners.message) * 20)
        await self.stop()

    # What holds all along

    @check("a client that asks for /-/live all the while, on connections of its own")
    async def bystander(self) -> None:
        """Others are served at once all along, and /-/ready is never red."""
        for late, doing in self.late()[:3]:
            self.fail(f"it waited {late:.1f}s while {doing!r} was tried")
        for owner in self.dead:
            self.fail(f"the lifespan of {owner} has ended early", self.last_error(), Do.LAST)

    @check("the server's watchdog looked on")
    async def blocking(self) -> None:
        """The event loop is never held by the plugin."""
        for record in self._records("realtime.watchdog"):
            text = record.getMessage()
            where = re.search(r"(?s) by (?:channel .*?, )?plugin .*?, in (.*)", text)
            if where and ", among others" not in text:
                place = where[1].partition("; what blocks")[0].strip()
                self.fail(text.partition(" by ")[0], place, Do.AWAIT)

    @check("the log was read")
    async def errors(self) -> None:
        """No error is in the log but those of the checks that failed: what a client does is no bug."""
        for record in self._records(""):
            if record.levelno < logging.ERROR and not record.exc_info:
                continue
            if place_of(record) in self.told:
                continue  # the check where it was seen has failed
            text, error = record.getMessage().partition("\n")[0], record.exc_info and record.exc_info[1]
            shown = f"{type(error).__name__}: {error} ({text})" if error else text
            self.fail(shown, place_of(record), Do.CATCH)

    @check("Python's warnings were read")
    async def leftovers(self) -> None:
        """Every coroutine is awaited, and what was opened is closed."""
        gc.collect()
        for record in self._records("py.warnings"):
            found = re.match(r"(.+?):(\d+): (?:ResourceWarning|RuntimeWarning): (.*)", record.getMessage())
            if found:
                file, number, text = found.groups()
                source = linecache.getline(file, int(number)).strip()
                place = "" if is_host(file) else f"{file}:{number}: {source}"
                remedy = Do.WRITE_AWAIT if "never awaited" in text else Do.CLOSE
                self.fail(text.partition(": write 'await'")[0].removesuffix(f": {source}"), place, remedy)

    def _records(self, logger: str) -> list[logging.LogRecord]:
        return [record for record in self.log if record.name.startswith(logger)]


#: What is looked at when all else is over.
AT_LAST = ("bystander", "blocking", "errors", "leftovers")
