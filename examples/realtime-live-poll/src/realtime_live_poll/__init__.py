"""Live poll: whoever votes, everybody sees how it stands.

channels:
  polls:
    plugin: live-poll
    path: "/polls/{poll}"
    polls:
      lunch: {question: "Where do we eat?", choices: [pizza, sushi], open_for: 10m}
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from pydantic import Field, field_validator
from realtime import Bus, Channel, Client, Duration, Message, Model, Position, Rejected, hookimpl

#: The version of Realtime's contract with plugins that this is written for.
API_VERSION = 1


class Poll(Model):
    """A question, and what one may answer."""

    question: str
    """what is asked"""

    choices: Annotated[list[str], Field(min_length=2)]
    """what one may vote for"""

    open_for: Duration | None = None
    """for how long after the start of the server; without it, as long as that runs"""


class Ballot:
    """The votes of one poll, each under whoever cast it."""

    def __init__(self, poll: Poll) -> None:
        self.poll = poll
        self.open = True
        self.votes: dict[str, str] = {}
        self.counts = dict.fromkeys(poll.choices, 0)

    def cast(self, voter: str, choice: str | None) -> bool:
        """Count a vote, instead of the one that was there; None: take it back. Whether that changed it."""
        before = self.votes.pop(voter, None)
        if before is not None:
            self.counts[before] -= 1
        if choice is not None:
            self.votes[voter] = choice
            self.counts[choice] += 1
        return choice != before

    def standing(self) -> dict[str, object]:
        """How it stands, as everybody is told."""
        return {"question": self.poll.question, "votes": self.counts, "open": self.open}


class LivePoll(Channel):
    """A poll for each name in the path: who votes, and everybody sees how it stands.

    A newcomer is told how it stands, and everybody with each vote, in an event `standing`. To vote
    is to send one of the choices, as text or as JSON; who votes again changes the vote. A vote is
    that of an identity, and stays. Who has none votes for as long as the connection lasts, so nobody
    votes twice by coming back; a POST has no connection that lasts, so it needs an identity.

    In a browser each poll is a page where people see how it stands, and vote with a click.
    """

    class Settings(Channel.Settings):
        polls: Annotated[dict[str, Poll], Field(min_length=1)]
        """each poll under its name, which stands in the path"""

        @field_validator("path")
        @classmethod
        def has_one_variable(cls, path: str) -> str:
            if path.count("{") != 1 or "...}" in path:
                raise ValueError("expected a path with one variable, such as /polls/{poll}")
            return path

    settings: Settings
    # Not "json": in a snapshot there are recent messages, and of a poll none is kept.
    transports = ("websocket", "sse", "ndjson", "post")
    page = "poll.js"

    def __init__(self, name: str, settings: Settings, bus: Bus) -> None:
        super().__init__(name, settings, bus)
        self.ballots = {f"{name}/{key}": Ballot(poll) for key, poll in settings.polls.items()}

    def ballot(self, client: Client) -> Ballot:
        """What is voted on where a client is."""
        if client.topic not in self.ballots:
            (poll,) = client.variables.values()
            raise Rejected(f"there is no poll {poll!r}", 404)
        return self.ballots[client.topic]

    async def on_connect(self, client: Client) -> None:
        self.ballot(client)

    async def on_join(self, client: Client) -> None:
        await client.send(self.ballot(client).standing(), event="standing")

    async def on_message(self, client: Client, message: Message) -> Position | None:
        ballot = self.ballot(client)
        if not ballot.open:
            raise Rejected("this poll is closed", 409)
        if message.data not in ballot.poll.choices:
            raise Rejected(f"vote for one of these: {', '.join(ballot.poll.choices)}", 422)
        if client.identity:
            voter = f"identity {client.identity.name}"
        elif client.transport == "post":
            raise Rejected("to vote by POST you have to say who you are", 401)
        else:
            voter = f"client {client.id}"
        return await self.tell(client.topic) if ballot.cast(voter, message.data) else None

    async def on_leave(self, client: Client) -> None:
        ballot = self.ballot(client)
        if ballot.open and ballot.cast(f"client {client.id}", None):
            await self.tell(client.topic)

    def as_text(self, message: Message) -> str | None:
        if message.event != "standing":
            return super().as_text(message)
        told = message.data
        votes = ", ".join(f"{choice} {count}" for choice, count in told["votes"].items())
        return f"{told['question']} {votes}{'' if told['open'] else ' (closed)'}"

    async def tell(self, topic: str) -> Position:
        """Tell everybody on the topic how it stands."""
        return await self.publish(topic, self.ballots[topic].standing(), event="standing")

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            closing = [tasks.create_task(self.close(topic)) for topic in self.ballots]
            yield
            for task in closing:
                task.cancel()

    async def close(self, topic: str) -> None:
        """Wait for the end of a poll, if it has one."""
        ballot = self.ballots[topic]
        if ballot.poll.open_for is not None:
            await asyncio.sleep(ballot.poll.open_for)
            ballot.open = False
            await self.tell(topic)


@hookimpl
def register_channels() -> dict[str, type[Channel]]:
    return {"live-poll": LivePoll}
