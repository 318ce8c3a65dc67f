"""A poll, seen by those who vote and those who watch."""

import pytest
from realtime import ConfigError
from realtime.testing import Serve

CONFIG = """
channels:
  polls:
    plugin: live-poll
    path: "/polls/{poll}"
    polls:
      lunch: {question: "Where?", choices: [pizza, sushi]}
      break: {question: "When?", choices: [now, later], open_for: 10m}
"""
#: Everybody is who they say, for a test.
KNOWS = """
from aiohttp import web
from realtime import Identity, hookimpl

@hookimpl
def authenticate(request: web.Request) -> Identity | None:
    name = request.headers.get("X-Name")
    return Identity(name=name) if name else None
"""


def standing(pizza: int, sushi: int) -> object:
    """What everybody is told about the lunch."""
    return {"question": "Where?", "votes": {"pizza": pizza, "sushi": sushi}, "open": True}


async def test_everybody_sees_a_vote(serve: Serve) -> None:
    """A vote by WebSocket changes what everybody sees, whatever they read by."""
    async with (
        serve(CONFIG) as server,
        server.ws("/polls/lunch") as voter,
        server.sse("/polls/lunch") as watcher,
    ):
        await voter.expect("Where? pizza 0, sushi 0")
        await watcher.expect(standing(0, 0))
        await voter.send("pizza")
        await voter.expect("Where? pizza 1, sushi 0")
        await watcher.expect(standing(1, 0))


async def test_newcomer_is_told_how_it_stands(serve: Serve) -> None:
    """Who comes later sees the votes that were cast before."""
    async with serve(CONFIG) as server, server.ws("/polls/lunch", json=True) as voter:
        await voter.send("sushi")
        async with server.ws("/polls/lunch", json=True) as late:
            told = await late.receive()
            assert (told.event, told.data) == ("standing", standing(0, 1))


async def test_one_vote_each(serve: Serve) -> None:
    """Who votes again changes the vote; the same vote once more is told nobody."""
    async with serve(CONFIG) as server, server.ws("/polls/lunch", json=True) as voter:
        for choice in ("pizza", "pizza", "sushi"):
            await voter.send(choice)
        await voter.expect(standing(0, 0), standing(1, 0), standing(0, 1))


async def test_vote_of_nobody_in_particular_lasts_as_long_as_they_are_there(serve: Serve) -> None:
    """Who is not known and comes back does not vote twice."""
    async with serve(CONFIG) as server, server.ws("/polls/lunch", json=True) as watcher:
        for _ in range(2):
            async with server.ws("/polls/lunch") as voter:
                await voter.send("pizza")
                await watcher.expect(standing(0, 0), standing(1, 0))
        await watcher.expect(standing(0, 0))


async def test_vote_of_an_identity_stays(serve: Serve) -> None:
    """Who is known votes once, by POST and from wherever they come."""
    async with serve(f"plugins: [knows]\n{CONFIG}", {"knows.py": KNOWS}) as server:
        for choice in ("pizza", "sushi"):
            assert (await server.post("/polls/lunch", choice, headers={"X-Name": "alice"})).status == 202
        async with server.sse("/polls/lunch") as watcher:
            await watcher.expect(standing(0, 1))


@pytest.mark.parametrize(
    ("path", "vote", "status", "says"),
    [
        ("/polls/lunch", "burger", 422, "vote for one of these: pizza, sushi"),
        ("/polls/lunch", {"choice": "pizza"}, 422, "vote for one of these"),
        ("/polls/lunch", b"pizza", 422, "vote for one of these"),
        ("/polls/dinner", "pizza", 404, "there is no poll 'dinner'"),
        ("/polls/lunch", "pizza", 401, "you have to say who you are"),
    ],
)
async def test_what_is_no_vote(serve: Serve, path: str, vote: object, status: int, says: str) -> None:
    """What cannot be counted is refused with a sentence."""
    async with serve(CONFIG) as server:
        answer = await server.post(path, vote)
        assert (answer.status, says in answer.text) == (status, True)


async def test_poll_that_is_not_there(serve: Serve) -> None:
    """Who wants to watch a poll that the config does not have is told so."""
    async with serve(CONFIG) as server, server.ws("/polls/dinner") as watcher:
        assert await watcher.closed() == (1008, "there is no poll 'dinner'")


async def test_poll_closes(serve: Serve) -> None:
    """After ``open_for`` everybody is told, and no vote counts."""
    async with serve(CONFIG) as server, server.ws("/polls/break") as voter:
        await voter.send("now")
        await voter.expect("When? now 0, later 0", "When? now 1, later 0")
        await server.clock.advance(600)
        await voter.expect("When? now 1, later 0 (closed)")
        await voter.send("later")
        assert await voter.closed() == (1008, "this poll is closed")


async def test_votes_of_a_closed_poll_stay(serve: Serve) -> None:
    """Who leaves when it is over takes no vote along."""
    async with serve(CONFIG) as server:
        async with server.ws("/polls/break", json=True) as voter:
            await voter.send("now")
            await server.clock.advance(600)
        async with server.sse("/polls/break") as late:
            assert (await late.receive()).data["votes"] == {"now": 1, "later": 0}


async def test_page(serve: Serve) -> None:
    """A person's browser gets a page, which has the poll's own script draw it."""
    async with serve(CONFIG) as server:
        page = await server.request("GET", "/polls/lunch", headers={"Accept": "text/html"})
        script = await server.request("GET", "/-/pages/polls/poll.js")
    assert "/-/pages/polls/poll.js" in page.text
    assert "export default function" in script.text


@pytest.mark.parametrize(
    ("right", "wrong", "where"),
    [
        ("/polls/{poll}", "/polls/{poll...}", r"channels\.polls\.path: expected a path with one variable"),
        ("/polls/{poll}", "/polls", r"channels\.polls\.path: expected a path with one variable"),
        ("[pizza, sushi]", "[pizza]", r"channels\.polls\.polls\.lunch\.choices"),
    ],
)
async def test_mistake_in_the_config(serve: Serve, right: str, wrong: str, where: str) -> None:
    """A mistake is told with its place before anything starts."""
    with pytest.raises(ConfigError, match=where):
        async with serve(CONFIG.replace(right, wrong)):
            pass
