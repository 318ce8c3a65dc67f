"""A snapshot: where a channel stands and what was said last, in one JSON object that ends."""

from __future__ import annotations

from itertools import accumulate, takewhile

import orjson

from realtime import envelope
from realtime.channel import Channel
from realtime.log import OVERHEAD
from realtime.message import Message, Position, Since

#: The most that the messages of a snapshot take, in bytes of JSON, in which a text can be six times as
#: long, and as many more for each as the log counts; one always fits.
MAX_SNAPSHOT = 1024 * 1024


def snapshot(channel: Channel, name: str, since: Since) -> bytes:
    """The object: ``channel``, ``topic``, ``id``, ``clients``, ``messages``, and ``members`` with presence.

    ``messages`` are the newest that a newcomer may ask for. ``id`` is the position that they reach, None
    of a topic that nobody uses. After a position they are what follows it, from the oldest on, ``outcome``
    says how that was met, and ``missed`` how many are lost.
    """
    topic, resumes = channel.bus.find(name), isinstance(since, Position)
    facts: dict[str, object] = {"channel": channel.name, "topic": name, "id": None, "clients": 0}
    messages: list[Message] = []
    if topic is not None:
        messages = topic.history("earliest" if since is None else since)
        messages = _first(messages) if resumes else _first(messages[::-1])[::-1]
        facts["id"] = str(messages[-1].id if messages else topic.position)
        facts["clients"] = len(topic.members)
        if channel.settings.presence != "off":
            facts["members"] = channel.members(name)
    if resumes:
        resumed = topic.seek(since)[1] if topic else None
        facts["outcome"] = resumed.outcome if resumed else "reset"
        if resumed and resumed.outcome == "gap":
            facts["missed"] = resumed.missed
    return b'%s,"messages":[%s]}' % (orjson.dumps(facts)[:-1], b",".join(map(envelope.write, messages)))


def _first(messages: list[Message]) -> list[Message]:
    sizes = accumulate(len(envelope.write(message)) + OVERHEAD for message in messages)
    return messages[: max(1, sum(1 for _ in takewhile(MAX_SNAPSHOT.__ge__, sizes)))]
