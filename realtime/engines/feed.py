"""The copy that this process has of one topic's log in Redis.

A message comes into the topic in one way only: :meth:`Feed.take`, in the order of the offsets. Most come by
the subscription, as they are published. Where that leaves something out, or may have, what is missing is
read from the stream; what is not there either is marked as lost, and a log that is not the same any more
begins anew. So nothing is delivered that Redis does not have, nothing twice, and nothing left out silently.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from realtime.engines import entries, watch
from realtime.engines.entries import SYNC, Change, Entry
from realtime.engines.pending import Pending
from realtime.engines.resp import Lost, RedisError
from realtime.message import Message, Position

if TYPE_CHECKING:
    from realtime.engines.redis import Redis
    from realtime.topic import Topic

log = logging.getLogger("realtime.engine")

#: How many bytes of entries are read from a stream at once, more or less: whatever else is asked waits for
#: what all lookers read at once.
PAGE = 64 * 1024
#: How long a log that has nothing stays when nobody says that it is used, in milliseconds.
EMPTY_STAYS = 120_000
#: After Redis has said where a message stands, so long the subscription may take to bring it, in seconds.
SOON = 0.05
#: Of so many messages that were given up it is known whom they are not for.
MAX_GIVEN_UP = 64


#: The epoch of a log, its head, entries (their names and fields), whether there are more, and who is here.
_Found = tuple[str, int, list[Any], int, list[bytes]]


class Feed:
    """What comes into one topic, and so keeps it a copy of what Redis has."""

    def __init__(self, engine: Redis, topic: Topic) -> None:
        self.topic = topic
        self.keys = entries.Keys.of(engine.prefix, topic.name)
        self.opened = asyncio.get_running_loop().create_future()
        self.closed = False
        #: From which look of the watch on it is touched; not all at the same.
        self.born = engine.watch.looks + hash(self.keys) % watch.TOUCH
        #: What this process has published, by its number.
        self.pending: dict[int, Pending] = {}
        #: What it has not waited for any longer, which may come all the same, and whom it is not for.
        self.given_up: dict[int, object] = {}
        #: The clients of this process who are here: what is told of each, and the message that says so.
        self.own: dict[str, tuple[dict[str, Any], Message | None]] = {}
        #: What those have, by this process, that only one can have.
        self.claims: dict[str, bytes] = {}
        #: Those who are here of whom a message told that they came, so one tells when they go.
        self.aloud: set[str] = set()
        #: Whether the stream is to be looked at, for the topic may lack something.
        self.due = False
        #: Why Redis does not let it be looked at, in its words.
        self.refusal = ""
        self._whole = True
        self._engine = engine
        self._token = b""  # how the entry at the head of the topic begins
        self._seen_on = ""  # in which run of Redis it was last looked at
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._changes: list[tuple[int, Change, Message]] = []  # while it is being looked at

    def close(self) -> None:
        """Nothing comes any more."""
        self.closed = True
        if not self.opened.done():
            self.opened.set_result(None)  # who waits for it looks again
        for pending in self.pending.values():
            if pending.position is not None:
                pending.over()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    # What comes by the subscription

    def pushed(self, data: bytes) -> None:
        """Something was published on the channel. Raises :exc:`ValueError` if it is none of ours."""
        where, _, rest = data.partition(b"\n")
        if where == entries.NOWHERE:
            entry = entries.read(rest)
            if entry.change is not None:
                self._change(entry.change, entry.message, 0)
            return
        if where == entries.REQUEST:
            self._engine.inquiries.asked(self.topic, rest)
            return
        epoch, offset = Position.parse(where.decode())
        topic = self.topic
        if self.due:
            return  # whether it is the next one is seen from the stream, where it is, too
        if not self.opened.done() or epoch != topic.epoch or offset > topic.head + 1:
            self.check(whole=epoch != topic.epoch)
        elif offset == topic.head + 1:
            self.take(entries.read(rest))

    def take(self, entry: Entry) -> None:
        """The next entry: its message comes into the topic, and whoever published it is told."""
        node, number, _, change = entry
        message, pending = self._as_published(entry)
        self._token = entries.token(node, number)
        if change is not None:  # in the same turn as the event that says so
            self._change(change, message, self.topic.head + 1)
        position = self.topic.append(message)
        if pending is not None and not pending.put.done():
            pending.put.set_result(position)

    def _as_published(self, entry: Entry) -> tuple[Message, Pending | None]:
        """The message of an entry, which knows whom it is not for, and who waits for it here."""
        if entry.node != self._engine.node:
            return entry.message, None
        pending = self.pending.pop(entry.number, None)
        if pending is not None and pending.message is not None:
            return pending.message, pending
        return entry.message._replace(exclude=self.given_up.pop(entry.number, None)), pending

    def give_up(self, number: int, exclude: object) -> None:
        """A message is not waited for any more, and not for this one."""
        self.given_up[number] = exclude
        if len(self.given_up) > MAX_GIVEN_UP:
            del self.given_up[next(iter(self.given_up))]

    def _change(self, change: Change, message: Message, offset: int) -> None:
        sign, who = change
        if self._task is not None:
            self._changes.append((offset, change, message))
        if sign == "-":
            self.topic.here.pop(who, None)
            self.aloud.discard(who)
            if who in self.own:  # somebody has thought that we are gone
                self._engine.members.come_back(self, who)
            return
        self.topic.here.pop(who, None)
        self.topic.here[who] = message.data
        if offset:
            self.aloud.add(who)

    # What comes by the stream

    def heard(self, position: Position) -> None:
        """Redis has a message at this position; if it does not come soon, it is fetched."""
        if self._lacks(position) and self._timer is None and not self.closed:
            self._timer = asyncio.get_running_loop().call_later(SOON, self._late)

    def _late(self) -> None:
        self._timer = None
        if any(self._lacks(pending.position) for pending in self.pending.values()):
            self.check()

    def _lacks(self, position: Position | None) -> bool:
        topic = self.topic
        return position is not None and (position.epoch != topic.epoch or position.offset > topic.head)

    def check(self, *, whole: bool = False) -> None:
        """Look soon what the stream has; ``whole``: and who is here."""
        self.due = True
        self._whole = self._whole or whole
        if self._task is None and not self.closed:
            self._task = asyncio.create_task(self._look(), name=f"filling {self.topic.name}")

    async def looked(self) -> bool:
        """Look what the stream has now; whether that was possible."""
        self.check()
        if self._task is not None:
            await asyncio.wait([self._task])
        return self.closed or not self.due

    async def _look(self) -> None:
        try:
            while self.due:
                async with self._engine.lookers:
                    await self._sync()
                self.refusal = ""
        except (Lost, RedisError) as error:
            self.due = self._whole = True  # until there is a connection
            if not isinstance(error, Lost):
                self.refusal = f": {error}"
                self._engine.refused(error)
        finally:
            self._task = None

    async def _sync(self) -> None:
        topic, whole, self._whole = self.topic, self._whole, False
        epoch, known, token = topic.epoch, topic.head, self._token
        self.due = False
        if not self.opened.done():
            epoch, known, token = "", 0, b""
        anew: list[Entry] | None = None  # the entries of another log, while they are read
        while True:
            self._changes.clear()
            asked = whole
            now_epoch, head, found, more, members = await self.found(epoch, known, token, whole)
            if now_epoch != epoch:
                epoch, anew, whole = now_epoch, [], True
                known = _entry(*found[0])[0] - 1 if found else head
            for name, fields in found:
                offset, entry = _entry(name, fields)
                if anew is not None:
                    if offset == known:
                        continue  # somebody has put it beside ours
                    if offset != known + 1 or entry is None:
                        anew.clear()  # what is before a hole is of no use
                    if entry is not None:
                        anew.append(entry)
                    known = offset
                elif offset > topic.head:
                    self._lose(offset - 1)
                    if entry is None:
                        self._lose(offset)
                    else:
                        self._engine.counters["filled"] += 1
                        self.take(entry)
            if not more and asked == whole:
                break
            if anew is None:
                known, token = topic.head, self._token
            else:
                token = b""
            while True:
                await asyncio.sleep(0)  # the flush has its turn, and writes what was filled
                if not topic.bus.is_full(topic):
                    break
        if anew is not None:
            self._begin_anew(Position(epoch, head), anew if known == head else [])
        else:
            self._lose(head)
        if whole:
            self._set_members(members, head)

    async def found(self, epoch: str, known: int, token: bytes, whole: bool) -> _Found:
        """What :data:`SYNC` finds, for one who knows so much of the log."""
        topic, engine = self.topic, self._engine
        asking = await engine.asking()
        wanted = topic.opened and epoch == topic.epoch  # else it may be trimmed by what is of another log
        words = (
            *(b"4", self.keys.head, self.keys.log, self.keys.here, self.keys.names),
            *(asking.run_id, engine.fresh(), epoch, known, token, self._seen_on, PAGE),
            *(engine.stays(topic), engine.oldest(topic) if wanted else 0, int(whole), EMPTY_STAYS),
        )
        try:
            answer = await asking.ask(b"EVALSHA", SYNC.sha, *words)
        except RedisError as error:
            if error.code != "NOSCRIPT":
                raise
            answer = await asking.ask(b"EVAL", SYNC.text, *words)
        self._seen_on = asking.run_id
        now_epoch, *found = answer
        return now_epoch.decode(errors="replace"), *found

    def _lose(self, offset: int) -> None:
        """Nothing up to this offset can come any more."""
        missed = offset - self.topic.head
        if missed > 0:
            self._engine.counters["lost"] += missed
            lost = "messages of %r that are no longer in Redis are lost: %d"
            self._engine.watch.warn(lost, self.topic.name, missed)
            self.topic.skip(offset)
            # Among it may have been who came and went.
            self._token, self.due, self._whole = b"", True, True

    def _begin_anew(self, head: Position, kept: list[Entry]) -> None:
        now = self.topic.bus.wall_time()
        first = not self.opened.done()
        found = [self._as_published(entry) for entry in kept]
        self.topic.restore(head, [(message, max(0.0, now - message.time)) for message, _ in found])
        self._token = entries.token(kept[-1].node, kept[-1].number) if kept else b""
        if first:
            self.opened.set_result(None)
            self.topic.bus.opened(self.topic)
        else:
            self._engine.counters["resets"] += 1
            self._engine.watch.warn("%r is another log in Redis now: it begins anew", self.topic.name)
        for offset, (_, pending) in enumerate(found, head.offset - len(kept) + 1):
            if pending is not None and not pending.put.done():
                pending.put.set_result(Position(head.epoch, offset))

    # Who is here

    def _set_members(self, members: list[bytes], head: int) -> None:
        """Take over who is here, as it was when the log had this head; see to one's own."""
        found: list[tuple[tuple[int, int], str, dict[str, Any]]] = []
        self.aloud.clear()
        for who, value in zip(members[::2], members[1::2], strict=True):
            try:
                aloud, told, moment = entries.told(value)
                found.append((moment, who.decode(), told))
            except ValueError:
                continue  # nobody of ours
            if aloud:
                self.aloud.add(who.decode())
        here, changes = self.topic.here, self._changes[:]
        here.clear()
        here.update((who, told) for _, who, told in sorted(found, key=lambda member: member[:2]))
        for offset, change, message in changes:
            if (not offset or offset > head) and (change.sign == "-" or change.id not in here):
                self._change(change, message, offset)
        self._engine.members.reconcile(self)


def _entry(name: bytes, fields: list[bytes]) -> tuple[int, Entry | None]:
    """The offset of what a stream has, and the entry, if it is one."""
    offset = int(name.partition(b"-")[0])
    try:
        return offset, entries.read(dict(zip(fields[::2], fields[1::2], strict=True))[b"e"])
    except (KeyError, ValueError):
        return offset, None
