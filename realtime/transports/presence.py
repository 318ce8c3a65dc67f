"""Who is here: what the others are told when a client comes and goes, and what a newcomer is told of them.

``topic.here`` changes in the same turn in which the topic gets its event, and the list for a newcomer is
sent in the turn in which it is made. So it is the truth at its place in the stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from realtime.blame import defined
from realtime.channel import Channel, Client
from realtime.message import Message
from realtime.subscriber import MAX_OUTBOX
from realtime.topic import Topic

#: The most members that a newcomer is told of: a room that fills would else cost the square of its size.
MAX_MEMBERS = 200
#: The most bytes of JSON that this may be: half of what may wait for a client that does not read.
MAX_LIST = MAX_OUTBOX // 2


async def arrive(
    channel: Channel, client: Client, topic: Topic, send: Callable[[Message], None] | None
) -> None:
    """A client is in: tell the others of it, and itself of all, unless ``send`` is None: no room for it."""
    aloud = channel.settings.presence == "announce"
    told: Any = None if channel.settings.presence == "off" else channel.member(client)
    if told is not None:
        if not isinstance(told, dict):
            place = defined(type(channel), "member")
            raise TypeError(f"member() returned {told!r}; it is to return a dict or None; in {place}")
        del topic.members[client]  # the newest stands last, whoever was quicker with its on_join
        # As it is now, for its leaving is told in the same words. What cannot stand in a list of members
        # fails here: it would fail every newcomer.
        try:
            told = topic.members[client] = Message.of([[told]], time=0.0).data[0][0]
        except ValueError as error:
            place = defined(type(channel), "member")
            wrong = str(error).replace("this data", "member() returned what")
            raise ValueError(f"{wrong}; in {place}") from None
        await channel.bus.arrive(topic, client.id, told, aloud=aloud)
    if aloud and send is not None:
        send(listing(channel, topic))


def listing(channel: Channel, topic: Topic) -> Message:
    """The newest members of a topic; ``count`` is how many there are, if these are not all."""
    here = channel.members(topic.name)
    shown = here[-MAX_MEMBERS:]
    while True:
        data = {"members": shown, **({"count": len(here)} if len(shown) < len(here) else {})}
        message = Message.of(data, event="realtime:members", time=topic.bus.wall_time())
        if len(message.payload) <= MAX_LIST:
            return message
        shown = shown[(len(shown) + 1) // 2 :]


async def depart(channel: Channel, client: Client, topic: Topic) -> None:
    """A client is gone: tell the others, if they were told that it came."""
    told = topic.members.pop(client, None)
    if told is not None:
        await channel.bus.depart(topic, client.id, told, aloud=channel.settings.presence == "announce")
