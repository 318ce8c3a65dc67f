"""The page of a chat, in a browser: who opens the URL is in it, and sees what was missed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import chromium
import pytest
import pytest_asyncio
from chromium import PATIENCE
from conftest import Serve, Serving
from redises import redis_server
from servers import way
from tokenmaker import AUTH, token
from wire import eventually

from realtime.engines import watch
from realtime.message import Message, Position

if TYPE_CHECKING:
    from playwright.async_api import Browser, Locator, Page

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "channels: {lobby: {plugin: chat, path: /chat, history: 1000}}"
LOG = "document.querySelector('.chat-log')"
#: Markup that would run, and characters that would turn the text around it.
HOSTILE = "<img src=x onerror=\"document.title='owned'\">\u202e&amp;"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all of these tests; each has tabs of its own."""
    async with chromium.browser() as one:
        yield one


async def has(locator: Locator, text: str | re.Pattern[str] | Sequence[str]) -> None:
    """Wait until it has this text, or each of these texts."""
    from playwright.async_api import expect

    await expect(locator).to_have_text(text, timeout=PATIENCE * 1000)


def box(page: Page) -> Locator:
    """Where a message is written."""
    return page.get_by_role("textbox", name="Message")


def bubbles(page: Page) -> Locator:
    """What was said, and what is on its way."""
    return page.locator(".chat-bubble")


def people(page: Page) -> Locator:
    """Who is here, each an item of the list."""
    return page.get_by_role("list", name="People").get_by_role("listitem")


async def until(page: Page, condition: str) -> None:
    """Wait until it is true; the page's policy forbids what playwright has for this."""
    look = f"({condition}) ? done() : requestAnimationFrame(look)"
    async with asyncio.timeout(PATIENCE):
        await page.evaluate(f"new Promise(done => {{ const look = () => {look}; look(); }})")


@asynccontextmanager
async def guest(browser: Browser, serving: Serving, name: str, path: str = "/chat") -> AsyncIterator[Page]:
    """A tab of somebody who is in."""
    async with chromium.tab(browser, serving.http(f"{path}?name={name}")) as page:
        await box(page).wait_for()
        yield page


async def say(page: Page, text: str) -> None:
    """Write and send it, as a person would."""
    await box(page).fill(text)
    await box(page).press("Enter")


async def said(serving: Serving, *texts: str, by: str = "bob", topic: str = "lobby") -> None:
    """What somebody says whose page is not looked at."""
    for text in texts:
        await serving.server.channels["lobby"].publish(topic, {"from": by, "text": text})


async def cut(page: Page) -> None:
    """Cut the connection; it stays away until it is told to come back."""
    await page.get_by_role("button", name="Cut my connection").click()
    await page.get_by_text("What you write now is sent when the connection is back.").wait_for()


async def back(page: Page) -> None:
    """Have it come back."""
    await page.get_by_role("button", name="Come back now").click()


# Reading and joining


async def test_who_opens_it_reads_at_once(serve: Serve, browser: Browser) -> None:
    """Before anybody joins, the page shows what is kept and what is said, and is announced to nobody."""
    async with serve(CHAT) as serving:
        await said(serving, "before")
        async with chromium.tab(browser, serving.http("/chat")) as page:
            await has(bubbles(page), ["before"])
            await said(serving, "now")
            await has(bubbles(page), ["before", "now"])
            await has(people(page), ["Nobody has joined yet."])


async def test_name_and_enter_join(serve: Serve, browser: Browser) -> None:
    """A name and Enter, and the person is in, can write at once, and stands in the list."""
    async with serve(CHAT) as serving, chromium.tab(browser, serving.http("/chat")) as page:
        await page.get_by_role("textbox", name="Your name").fill("ann")
        await page.keyboard.press("Enter")
        await page.locator("textarea:focus").wait_for()
        await page.keyboard.type("hello")
        await page.keyboard.press("Enter")
        await has(page.locator(".mine .chat-bubble"), ["hello"])
        await has(people(page), ["Aannyou"])


async def test_joining_shows_nothing_twice(serve: Serve, browser: Browser) -> None:
    """Who reads and then joins goes on where the reading was."""
    async with serve(CHAT) as serving, chromium.tab(browser, serving.http("/chat")) as page:
        await said(serving, "one", "two")
        await has(bubbles(page), ["one", "two"])
        await page.get_by_role("textbox", name="Your name").fill("ann")
        await page.get_by_role("button", name="Join").click()
        await box(page).wait_for()
        await said(serving, "three")
        await has(bubbles(page), ["one", "two", "three"])


async def test_crowd(serve: Serve, browser: Browser) -> None:
    """Thousands who come and go are one line and a list with an end: the page stays alive."""
    async with serve(CHAT) as serving, guest(browser, serving, "ann") as page:
        await said(serving, "before")
        for number in range(4000):
            who = {"client": f"x{number}", "name": f"person {number}"}
            await serving.server.bus.publish("lobby", who, event="realtime:join")
            if number % 4 == 3:
                await serving.server.bus.publish("lobby", who, event="realtime:leave")
        await said(serving, "after")
        await has(bubbles(page), ["before", "after"])
        await has(page.locator(".chat-note").last, re.compile("^[0-9]+ people joined, .* left$"))
        await has(people(page).last, "and 2801 more")
        assert await people(page).count() == 201


async def test_memory_that_makes_no_sense(serve: Serve, browser: Browser) -> None:
    """What the tab remembers of another version of the page keeps nobody out."""
    async with serve(CHAT) as serving, chromium.tab(browser, serving.http("/chat")) as page:
        await page.evaluate("sessionStorage.setItem('realtime unsent /chat', '{oops')")
        await page.goto(serving.http("/chat?name=ann"))
        await box(page).wait_for()


async def test_taken_name_is_told_at_the_field(serve: Serve, browser: Browser) -> None:
    """A name that somebody has is refused where it was typed, and another one can be tried."""
    async with (
        serve(CHAT) as serving,
        guest(browser, serving, "ann"),
        chromium.tab(browser, serving.http("/chat")) as page,
    ):
        name = page.get_by_role("textbox", name="Your name")
        await name.fill("ann")
        await name.press("Enter")
        await has(page.get_by_role("alert"), "The name ann is taken.")
        await page.locator("input:focus[aria-invalid=true]").wait_for()
        await name.fill("bob")
        await name.press("Enter")
        await box(page).wait_for()
        await has(people(page), ["Aann", "Bbobyou"])


async def test_reload_joins_again(serve: Serve, browser: Browser) -> None:
    """After a reload the person is in again, with what was said and what was being written."""
    async with serve(CHAT) as serving, guest(browser, serving, "ann") as page:
        await say(page, "first")
        await has(page.locator(".mine:not(.pending) .chat-bubble"), ["first"])
        await box(page).fill("half a sen")
        await page.reload()
        await box(page).wait_for()
        await has(page.locator(".mine .chat-bubble"), ["first"])
        assert await box(page).input_value() == "half a sen"


async def test_leaving_is_reading_again(serve: Serve, browser: Browser) -> None:
    """Who leaves goes on reading, and is asked for a name; so it is after a reload."""
    async with serve(CHAT) as serving, guest(browser, serving, "ann") as page:
        await page.get_by_role("button", name="Leave").click()
        await has(people(page), ["Nobody has joined yet."])
        await page.reload()
        await page.get_by_role("button", name="Join").wait_for()
        await said(serving, "still here?")
        await has(bubbles(page), ["still here?"])


async def test_room_is_the_title(serve: Serve, browser: Browser) -> None:
    """Where the path has a variable the page is called by its value, and is of that room."""
    rooms = 'channels: {lobby: {plugin: chat, path: "/rooms/{room}"}}'
    async with serve(rooms) as serving, guest(browser, serving, "ann", "/rooms/tea") as page:
        await page.get_by_role("heading", name="tea", exact=True).wait_for()
        await said(serving, "in another room", topic="lobby/coffee")
        await said(serving, "in this room", topic="lobby/tea")
        await has(bubbles(page), ["in this room"])


async def test_without_presence_one_can_join(serve: Serve, browser: Browser) -> None:
    """Where nobody is told who is here there is no list, and all else works."""
    quiet = 'channels: {lobby: {plugin: chat, path: /chat, presence: "off"}}'
    async with serve(quiet) as serving, guest(browser, serving, "ann") as page:
        await say(page, "hello")
        await has(page.locator(".mine:not(.pending) .chat-bubble"), ["hello"])
        assert not await page.get_by_role("list", name="People").count()


async def test_token_is_asked_for(serve: Serve, browser: Browser) -> None:
    """Who may not read without a token is told so, and can bring one; its identity is who one is."""
    config = f"{AUTH}\n{CHAT}".replace(
        "history: 1000", "names: identity, allow: {subscribe: authenticated}"
    )
    async with serve(config) as serving:
        page = await browser.new_page()
        await page.goto(serving.http("/chat"))
        await page.get_by_role("alert").filter(has_text="authenticated").wait_for()
        await page.get_by_label("Token").fill(token())
        async with page.expect_event("domcontentloaded"):
            await page.get_by_role("button", name="Use it").click()
        await say(page, "hello")
        await has(page.locator(".mine:not(.pending) .chat-bubble"), ["hello"])
        await has(people(page), ["Aaliceyou"])
        await page.close()


async def test_who_was_sent_away_is_told(serve: Serve, browser: Browser) -> None:
    """Who is removed reads why, where one can join again."""
    async with serve(CHAT) as serving, guest(browser, serving, "ann") as page:
        await serving.server.channels["lobby"].kick("lobby", name="ann", reason="be nice")
        await has(page.get_by_role("alert"), "You are out: be nice.")
        await page.get_by_role("button", name="Join", exact=True).click()
        await box(page).wait_for()


async def test_who_was_sent_away_still_reads(serve: Serve, browser: Browser) -> None:
    """Who is removed may read what others say, as whoever comes by may, and is no longer one of them."""
    async with (
        serve(CHAT) as serving,
        guest(browser, serving, "ann") as page,
        guest(browser, serving, "bob") as bob,
    ):
        await serving.server.channels["lobby"].kick("lobby", name="ann", reason="be nice")
        await has(page.get_by_role("alert"), "You are out: be nice.")
        await say(bob, "she is gone")
        await has(bubbles(page), ["she is gone"])
        await has(people(page), ["Bbob"])


# What is shown


async def test_two_people_see_each_other(serve: Serve, browser: Browser) -> None:
    """What one says the other sees once, under the name."""
    async with (
        serve(CHAT) as serving,
        guest(browser, serving, "ann") as ann,
        guest(browser, serving, "bob") as bob,
    ):
        await say(ann, "hi bob")
        await say(bob, "hi ann")
        for page in (ann, bob):
            await has(bubbles(page), ["hi bob", "hi ann"])
        await has(bob.locator(".chat-line:not(.mine) .chat-who .chat-name"), ["ann"])
        await has(people(ann), ["Aannyou", "Bbob"])


async def test_hostile_names_and_texts_are_text(serve: Serve, browser: Browser) -> None:
    """Markup in a name or a text is shown as it is, and does nothing."""
    async with serve(CHAT) as serving, guest(browser, serving, "ann") as page:
        await said(serving, HOSTILE, by=HOSTILE)
        await say(page, HOSTILE)
        await has(bubbles(page), [HOSTILE, HOSTILE])
        await has(page.locator(".chat-line:not(.mine) .chat-who bdi"), [HOSTILE])
        assert await page.locator("main img").count() == 0
        assert "owned" not in await page.title()


async def test_messages_of_one_person_stand_together(serve: Serve, browser: Browser) -> None:
    """A name is seen once above what somebody says in a row."""
    async with serve(CHAT) as serving, guest(browser, serving, "ann") as page:
        await said(serving, "one", "two")
        await said(serving, "three", by="carl")
        await has(page.locator(".chat-line.first .chat-bubble"), ["one", "three"])


async def test_flood_of_comings_is_one_line(serve: Serve, browser: Browser) -> None:
    """Many who come and go in a row take one line."""
    async with serve(CHAT) as serving, guest(browser, serving, "ann") as page:
        chat = serving.server.channels["lobby"]
        for number in range(5):
            member = {"client": f"x{number}", "name": f"guest {number}"}
            await chat.bus.publish("lobby", member, event="realtime:join")
        await chat.bus.publish("lobby", {"client": "x0", "name": "guest 0"}, event="realtime:leave")
        await has(page.locator(".chat-note"), ["4 people joined, guest 0 came and went"])


async def test_day_is_told(serve: Serve, browser: Browser) -> None:
    """The first message of a day has the day above it."""
    async with serve(CHAT) as serving, guest(browser, serving, "ann") as page:
        await said(serving, "one", "two")
        await has(page.locator(".chat-day"), ["Today"])


async def test_a_word_without_end_is_broken(serve: Serve, browser: Browser) -> None:
    """On a telephone nothing is wider than the screen, and the box is on it."""
    async with serve(CHAT) as serving, guest(browser, serving, "ann") as page:
        await page.set_viewport_size({"width": 390, "height": 700})
        await said(serving, "W" * 300, by="V" * 32)
        await say(page, "M" * 300)
        await has(bubbles(page), ["W" * 300, "M" * 300])
        assert await page.evaluate("document.documentElement.scrollWidth") == 390
        await page.evaluate("scrollTo(0, 0)")
        where = await box(page).bounding_box()
        assert where is not None
        assert where["y"] + where["height"] <= 700


async def test_people_are_behind_a_button_on_a_telephone(serve: Serve, browser: Browser) -> None:
    """Where there is no room beside the messages a button opens the list, and Escape closes it."""
    async with serve(CHAT) as serving, guest(browser, serving, "ann") as page:
        await page.set_viewport_size({"width": 390, "height": 700})
        await page.get_by_role("button", name="People 1").press("Enter")
        await page.get_by_role("list", name="People").wait_for()
        await page.keyboard.press("Escape")
        await page.get_by_role("list", name="People").wait_for(state="hidden")


async def test_only_the_last_lines_are_kept(serve: Serve, browser: Browser) -> None:
    """However much is said, the page holds no more than the last five hundred lines."""
    async with serve(CHAT) as serving, guest(browser, serving, "ann") as page:
        await said(serving, *map(str, range(700)))
        await has(bubbles(page).last, "699")
        assert 400 < await page.locator(".chat-lines > *").count() <= 500


async def test_reader_is_not_moved(serve: Serve, browser: Browser) -> None:
    """Who reads further up stays there, is told what is new, and gets to it with a button."""
    async with serve(CHAT) as serving, guest(browser, serving, "ann") as page:
        await said(serving, *[f"{number} " + "word " * 40 for number in range(600)])
        await page.locator(".chat-bubble", has_text="599 ").wait_for()
        await until(page, f"{LOG}.scrollTop + {LOG}.clientHeight >= {LOG}.scrollHeight - 1")
        await page.evaluate(f"{LOG}.scrollTop = {LOG}.scrollHeight / 2")
        place = f"[...{LOG}.querySelectorAll('.chat-bubble')].at(-200).getBoundingClientRect().y"
        before = await page.evaluate(place)
        await said(serving, "new", "newer")
        await page.get_by_role("button", name="2 new messages").wait_for()
        place = place.replace("-200", "-202")
        assert abs(await page.evaluate(place) - before) < 2
        await page.get_by_role("button", name="2 new messages").click()
        await page.get_by_text("newer", exact=True).wait_for()
        await page.get_by_role("button", name="new message").wait_for(state="hidden")


# Recovery


async def test_what_was_missed_is_marked(serve: Serve, browser: Browser) -> None:
    """After a cut a line says how much was caught up with, and what was written meanwhile has gone."""
    async with serve(CHAT) as serving, guest(browser, serving, "ann") as page:
        await said(serving, "before")
        await has(bubbles(page), ["before"])
        await cut(page)
        await said(serving, "one", "two", "three")
        await say(page, "written while away")
        await has(page.locator(".chat-state"), ["Waiting to be sent…"])
        await back(page)
        await has(bubbles(page), ["before", "one", "two", "three", "written while away"])
        await page.get_by_text("3 messages caught up").wait_for()
        order = await page.locator(".chat-mark, .chat-bubble").all_inner_texts()
        assert order[1].startswith("You were away for ")
        assert await page.locator(".pending").count() == 0


async def test_nothing_missed_is_told(serve: Serve, browser: Browser) -> None:
    """After a cut in which nothing was said the line says that, and own comings and goings are no news."""
    async with serve(CHAT) as serving, guest(browser, serving, "ann") as page:
        await cut(page)
        await back(page)
        await page.locator(".chat-mark", has_text="nothing was missed").wait_for()  # the shell says so, too
        assert await page.locator(".chat-note").count() == 0


async def test_gap_is_told(serve: Serve, browser: Browser) -> None:
    """What is no longer kept is counted."""
    few = CHAT.replace("history: 1000", "history: 3, lag: 1ms, lag_bytes: 1KiB, overflow: skip")
    async with serve(few) as serving, guest(browser, serving, "ann") as page:
        await cut(page)
        await said(serving, *[f"{number} {'x' * 100}" for number in range(100)])
        await back(page)
        await has(bubbles(page).last, f"99 {'x' * 100}")
        marks = await page.locator(".chat-mark.lost").all_inner_texts()
        assert marks[0].endswith(" messages were missed and are no longer kept")
        missed = sum(int(mark.partition(" ")[0]) for mark in marks)
        # Ann's own leaving and coming are counted, too, and not shown.
        assert missed + await bubbles(page).count() in {100, 101, 102}


async def test_new_beginning_is_told(serve: Serve, browser: Browser) -> None:
    """When the server has forgotten everything, the page says so, and keeps what it had."""
    async with (
        serve(CHAT) as first,
        serve(CHAT) as second,
        way(first.port) as there,
        chromium.tab(browser, f"http://127.0.0.1:{there.port}/chat?name=ann") as page,
    ):
        await box(page).wait_for()
        await said(first, "old")
        await has(bubbles(page), ["old"])
        await cut(page)
        there.to = second.port
        await said(second, "new")
        await back(page)
        await has(bubbles(page), ["old", "new"])
        await page.get_by_text("The room began anew").wait_for()


async def test_who_is_here_after_a_loss(serve: Serve, browser: Browser) -> None:
    """When the engine has lost some of what was said while the page was connected, it asks who is here."""
    async with (
        serve(CHAT) as serving,
        guest(browser, serving, "ann") as ann,
        guest(browser, serving, "bob"),
    ):
        await has(people(ann), ["Aannyou", "Bbob"])
        topic = serving.server.bus.topic("lobby")
        carl = Message.of({"client": "c9", "name": "carl"}, event="realtime:join", time=1.0)
        topic.here["c9"] = carl.data
        topic.skip(topic.head + 1)
        await ann.get_by_text("1 message was missed and is no longer kept").wait_for()
        await has(people(ann), ["Aannyou", "Bbob", "Ccarl"])
        del topic.here["c9"]
        topic.restore(Position("0ff0ff00", 3), [])
        await ann.get_by_text("The room began anew").wait_for()
        await has(people(ann), ["Aannyou", "Bbob"])


async def test_other_log_while_it_is_live(serve: Serve, browser: Browser, tmp_path: Path) -> None:
    """When Redis has lost everything the room begins anew, with who is here, and goes on."""
    async with (
        redis_server(tmp_path) as redis,
        serve(f"bus: {{engine: redis, url: '{redis.url}'}}\n{CHAT}") as serving,
        guest(browser, serving, "ann") as ann,
        guest(browser, serving, "bob") as bob,
    ):
        await say(ann, "old")
        await has(bubbles(bob), ["old"])
        await redis.command("FLUSHALL")
        await say(bob, "new")
        await ann.get_by_text("The room began anew").wait_for()
        await has(bubbles(ann), ["old", "new"])
        await say(ann, "newer")
        await has(bubbles(bob), ["old", "new", "newer"])
        for page in (ann, bob):
            await until(page, "document.querySelectorAll('.chat-people li').length === 2")
            await until(page, "!document.querySelector('.pending')")


async def test_resumed_from_further_back_shows_nothing_twice(serve: Serve, browser: Browser) -> None:
    """What comes again, because somebody goes on from an older message, is known."""
    async with serve(CHAT) as serving, guest(browser, serving, "ann") as page:
        await said(serving, "one", "two")
        await has(bubbles(page), ["one", "two"])
        await page.get_by_text("What goes over the wire").click()
        await page.get_by_role("button", name="Resume from here").first.click()
        await page.locator(".chat-mark", has_text="nothing was missed").wait_for()  # the shell says so, too
        await said(serving, "three")
        await has(bubbles(page), ["one", "two", "three"])


async def test_by_post_nothing_is_twice(serve: Serve, browser: Browser) -> None:
    """Where no WebSocket opens the chat goes on by events and POST, and shows each message once."""
    async with serve(CHAT) as serving, way(serving.port) as there:
        there.websockets = False
        page = await browser.new_page()  # its console tells of the WebSocket
        await page.goto(f"http://127.0.0.1:{there.port}/chat?name=ann")
        await say(page, "one")
        await say(page, "two")
        await has(page.locator(".mine:not(.pending) .chat-bubble"), ["one", "two"])
        assert await page.locator(".pending").count() == 0
        await page.close()


# Writing


async def test_what_was_being_sent_is_not_shown_twice(serve: Serve, browser: Browser) -> None:
    """A message whose answer was lost is said to be doubtful, until what comes after the cut shows it."""
    async with serve(CHAT) as serving, guest(browser, serving, "ann") as page:
        await box(page).fill("on its way")
        await page.get_by_role("button", name="Cut my connection").wait_for()
        await page.evaluate("document.querySelector('.chat-compose').requestSubmit(), cut.click()")
        await page.get_by_text("Cut off while sending: it may not have arrived.").wait_for()
        await back(page)
        await has(page.locator(".mine:not(.pending) .chat-bubble"), ["on its way"])
        assert await bubbles(page).count() == 1


async def test_whisper_is_marked(serve: Serve, browser: Browser) -> None:
    """What is for one person alone is written to the name in the list, and both see that it is private."""
    async with (
        serve(CHAT) as serving,
        guest(browser, serving, "ann") as ann,
        guest(browser, serving, "bob") as bob,
    ):
        await ann.get_by_role("button", name="bob", exact=True).click()
        await say(ann, "psst")
        await has(ann.locator(".private .chat-bubble"), ["psst"])
        await has(bob.locator(".private .chat-who > :not(time)"), ["ann"])
        await ann.keyboard.press("Escape")
        await say(ann, "aloud")
        await has(bob.locator(".chat-line:not(.private) .chat-bubble"), ["aloud"])


async def test_what_is_not_sent_can_be_sent_again(serve: Serve, browser: Browser) -> None:
    """What the channel refuses stays, with the reason and a way to try again, over a reload too."""
    async with serve(CHAT) as serving, guest(browser, serving, "ann") as ann:
        async with guest(browser, serving, "bob"):
            await ann.get_by_role("button", name="bob", exact=True).click()
        await has(people(ann), ["Aannyou"])
        await say(ann, "are you there?")
        await ann.get_by_text("Not sent: there is no 'bob' here.").wait_for()
        await ann.reload()
        await ann.get_by_text("The page was left before it was known to be sent.").wait_for()
        async with guest(browser, serving, "bob") as bob:
            await ann.get_by_role("button", name="Try again").click()
            await has(bubbles(bob), ["are you there?"])
            await ann.locator(".pending").wait_for(state="detached")


async def test_engine_that_is_away_loses_no_text(
    serve: Serve, browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written while nothing is taken is refused with the reason, or waits, and goes when it can."""
    for name, seconds in {"PROBE": 0.05, "ANSWER_WITHIN": 0.3, "TOLERATED": 3600.0}.items():
        monkeypatch.setattr(watch, name, seconds)
    async with (
        redis_server(tmp_path) as redis,
        serve(f"bus: {{engine: redis, url: '{redis.url}'}}\n{CHAT}") as serving,
        guest(browser, serving, "ann") as page,
    ):
        redis.pause()
        await say(page, "too early")
        await page.locator(".chat-state", has_text=re.compile("Sending…|Not sent")).wait_for()
        monkeypatch.setattr(watch, "TOLERATED", 0.1)  # nobody is told before that is on its way
        await page.get_by_text("What you write now is sent when it takes them again.").wait_for()
        await say(page, "late")
        await page.get_by_text("Not sent: Redis does not answer").wait_for()
        await has(page.locator(".pending .chat-bubble"), ["too early", "late"])
        redis.resume()
        await has(page.locator(".mine:not(.pending) .chat-bubble"), ["late"])
        await page.get_by_role("button", name="Try again").click()
        await has(page.locator(".mine:not(.pending) .chat-bubble"), ["late", "too early"])
        assert await page.locator(".pending, .chat-hint:visible").count() == 0


async def test_reason_ends_with_one_full_stop(
    serve: Serve, browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Redis itself says, which is a sentence, is told as one."""
    monkeypatch.setattr(watch, "PROBE", 60.0)  # nobody looks, so that it is refused and does not wait
    async with (
        redis_server(tmp_path) as redis,
        serve(f"bus: {{engine: redis, url: '{redis.url}'}}\n{CHAT}") as serving,
        guest(browser, serving, "ann") as page,
    ):
        await redis.command("CONFIG", "SET", "maxmemory", "1")
        await say(page, "one too many")
        await has(page.locator(".chat-fate"), re.compile(r"^Not sent: .*'maxmemory'\. Try againDiscard$"))


async def test_joining_while_the_engine_is_away(
    serve: Serve, browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes while no name can be had is told why, and is in when one can."""
    for name, seconds in {"PROBE": 0.05, "ANSWER_WITHIN": 0.3, "TOLERATED": 0.1}.items():
        monkeypatch.setattr(watch, name, seconds)
    async with (
        redis_server(tmp_path) as redis,
        serve(f"bus: {{engine: redis, url: '{redis.url}'}}\n{CHAT}") as serving,
    ):
        bus = serving.server.bus
        await bus.open("lobby")
        redis.pause()
        await eventually(lambda: bus.notice is not None)
        async with chromium.tab(browser, serving.http("/chat?name=ann")) as page:
            await page.get_by_role("alert").filter(has_text="Redis is away: ").wait_for()
            redis.resume()
            await eventually(lambda: bus.notice is None)
            await page.evaluate("dispatchEvent(new Event('online'))")
            await box(page).wait_for()
            assert await page.get_by_role("alert").filter(has_text="Redis").count() == 0


async def test_too_long_a_message_is_given_back(serve: Serve, browser: Browser) -> None:
    """A message that is too long stays where it was written, and the person stays in."""
    small = CHAT.replace("history: 1000", "limits: {max_message: 1KiB}")
    async with serve(small) as serving, guest(browser, serving, "ann") as page:
        await say(page, "x" * 2000)
        await page.get_by_text("Not sent: it is too long.").wait_for()
        await say(page, "shorter")
        await has(page.locator(".mine:not(.pending) .chat-bubble"), ["shorter"])


async def test_shift_and_enter_is_a_new_line(serve: Serve, browser: Browser) -> None:
    """A message can have several lines, which are shown; one of nothing is not sent."""
    async with serve(CHAT) as serving, guest(browser, serving, "ann") as page:
        await say(page, "   ")
        await box(page).fill("one")
        await box(page).press("Shift+Enter")
        await page.keyboard.type("two")
        await page.keyboard.press("Enter")
        await has(bubbles(page), ["one\ntwo"])
        assert await box(page).input_value() == ""
