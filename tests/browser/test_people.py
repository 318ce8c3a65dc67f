"""People at the pages of channels, in a browser: they talk, are cut off, come back, and miss nothing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from urllib.parse import quote

import accessible
import chromium
import pytest
import pytest_asyncio
from conftest import Serve
from people import BROKEN, CAUGHT_UP, MISSED, REFUSED, Person, person
from servers import Way, way
from tokenmaker import AUTH, token

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIG = """
    server: {listen: ["127.0.0.1:0"]}
    channels:
      lobby: {plugin: chat, path: /chat, history: 100}
      echo: {plugin: echo, path: /ws}
      topics: {plugin: topics, path: "/topics/{topic...}", history: 100, allow: {publish: anyone}}
"""
#: A server that forgets at once what it need not keep.
FORGETFUL = """
    server: {listen: ["127.0.0.1:0"]}
    channels: {lobby: {plugin: chat, path: /chat, history: 3, lag: 1ms, lag_bytes: 1KiB, overflow: skip}}
"""
#: What would become of it if somebody's text were taken for HTML, or for a script.
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(2)</script>",
    "</script><script>alert(3)</script>",
    '"><svg onload=alert(4)><evil-element>',
    "javascript:alert(5) &lt;b&gt; &amp; {{7*7}} ${7*7}",
    "\u202egnihtemos siht si \u2066redro",
    "مرحبا بالعالم، كيف حالك؟",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽",
    "é\u0301\u0302\u0303\u0304\u0305\u0306",
    "w" * 300,
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all of these tests; everybody has a window of their own."""
    async with chromium.browser() as one:
        yield one


@pytest_asyncio.fixture(loop_scope="module")
async def there(serve: Serve) -> AsyncIterator[Way]:
    """A way to a server with a chat, an echo and topics."""
    async with serve(CONFIG) as serving, way(serving.port) as one:
        yield one


def numbers(first: int, last: int) -> list[str]:
    """Texts that are found again."""
    return [f"No. {number:03}" for number in range(first, last + 1)]


#: What stands in the fields of a page.
VALUES = "() => [...document.querySelectorAll('input, textarea')].map(({ value }) => value).join()"
RECOVERED = re.compile("recovered 2 messages", re.IGNORECASE)
NUMBER = r"No\. \d{3}"


# Talking


async def test_two_people_chat(there: Way, browser: Browser) -> None:
    """Two people see who is here, who comes and goes, and what either says, in one order."""
    url = there.http("/chat")
    async with person(browser, url, "alice") as alice:
        await alice.see_people("alice")
        async with person(browser, url, "bob") as bob:
            for one in (alice, bob):
                await one.see_people("alice", "bob")
            await alice.see(re.compile("bob joined"))
            await alice.say("No. 001")
            await bob.see("No. 001")
            await bob.say("No. 002", "No. 003")
            await alice.see("No. 003")
            await bob.see("No. 003")
            for one, other in ((alice, bob), (bob, alice)):
                assert await one.seen(NUMBER) == numbers(1, 3)
                assert await one.seen(other.name)
        await alice.see(re.compile("bob left"))
        await alice.see_people("alice")


async def test_history(there: Way, browser: Browser) -> None:
    """Who comes later sees what was said before, once and in order, and who said it."""
    url = there.http("/chat")
    async with person(browser, url, "alice") as alice:
        await alice.say(*numbers(1, 5))
        async with person(browser, url, "bob") as bob:
            await bob.see("No. 005")
            await bob.say("No. 006")
            await bob.see("No. 006")
            assert await bob.seen(NUMBER) == numbers(1, 6)
            assert "alice" in await bob.seen("alice|bob")


async def test_name_taken(there: Way, browser: Browser) -> None:
    """A name that somebody has is refused with that reason, and another one is let in."""
    url = there.http("/chat")
    async with person(browser, url, "alice"), chromium.tab(browser, url) as page:
        other = Person(page, "alice")
        await page.get_by_role("textbox", name="Your name").fill("alice")
        await page.get_by_role("button", name="Join").click()
        await page.get_by_text(re.compile("alice is taken")).first.wait_for()
        other.name = "alicia"
        await other.join()
        await other.see_people("alice", "alicia")


# Coming back


async def lose_and_find(there: Way, cut: Person, other: Person, first: int, last: int) -> None:
    """One is cut off while the other says these numbers, and comes back."""
    there.there.clear()
    there.cut()
    await other.say(*numbers(first, last))
    there.there.set()
    await cut.see(f"No. {last:03}")


@pytest.mark.parametrize("websockets", [True, False], ids=["websocket", "sse"])
async def test_misses_nothing(serve: Serve, browser: Browser, websockets: bool) -> None:
    """One who is cut off has every message once and in order when back, and is told that this is so."""
    async with serve(CONFIG) as serving, way(serving.port) as there:
        there.websockets = websockets
        forgiven = "" if websockets else f"{REFUSED}|{BROKEN}"
        async with (
            person(browser, there.http("/chat"), "alice", forgiven) as alice,
            person(browser, serving.http("/chat"), "bob") as bob,
        ):
            await alice.say("No. 001")
            await bob.see("No. 001")
            await bob.say("No. 002")
            await alice.see("No. 002")
            await lose_and_find(there, alice, bob, 3, 9)
            await alice.see(CAUGHT_UP)
            await lose_and_find(there, alice, bob, 10, 12)
            await alice.say("No. 013")
            for one in (alice, bob):
                await one.see("No. 013")
                assert await one.seen(NUMBER) == numbers(1, 13)
                await one.see_people("alice", "bob")


async def test_missed_is_marked(serve: Serve, browser: Browser) -> None:
    """What is kept no longer is marked in its place: how many were missed, then what is left."""
    async with (
        serve(FORGETFUL) as serving,
        way(serving.port) as there,
        person(browser, there.http("/chat"), "alice") as alice,
        person(browser, serving.http("/chat"), "bob") as bob,
    ):
        await bob.say("No. 001")
        await alice.see("No. 001")
        await lose_and_find(there, alice, bob, 2, 30)
        await alice.see(MISSED)
        first, *rest = await alice.seen(NUMBER)
        assert (first, rest[-1]) == ("No. 001", "No. 030")
        assert rest == numbers(31 - len(rest), 30)
        text = await alice.log.inner_text()
        mark = re.search(MISSED, text)
        assert mark is not None
        assert text.index("No. 001") < mark.start() < text.index(rest[0])


# Without WebSockets


@pytest.mark.parametrize("refusal", ["403 Forbidden", "502 Bad Gateway", ""])
async def test_without_websockets(serve: Serve, browser: Browser, refusal: str) -> None:
    """Where a proxy refuses WebSockets, or knows none, the chat goes on by a stream and POST, both ways."""
    async with serve(CONFIG) as serving, way(serving.port) as there:
        there.websockets, there.refusal = False, refusal
        url = there.http("/chat")
        async with (
            person(browser, url, "alice", REFUSED) as alice,
            person(browser, url, "bob", REFUSED) as bob,
        ):
            for one in (alice, bob):
                await one.see_people("alice", "bob")
            await alice.say("No. 001")
            await bob.see("No. 001")
            await bob.say("No. 002")
            for one in (alice, bob):
                await one.see("No. 002")
                assert await one.seen(NUMBER) == numbers(1, 2)
            clients = serving.server.channels["lobby"].clients
            assert [(client.name, client.transport) for client in clients] == [
                ("alice", "sse"),
                ("bob", "sse"),
            ]


# What people make of it


async def test_hostile_texts(there: Way, browser: Browser) -> None:
    """Whatever somebody says is text, for who says it, who hears it, and who comes later."""
    url = there.http("/chat")
    async with person(browser, url, "alice") as alice, person(browser, url, "bob") as bob:
        await alice.say(*HOSTILE)
        async with person(browser, url, "carol") as carol:
            for one in (alice, bob, carol):
                await one.see(*HOSTILE)
                await nothing_was_made_of_it(one)


async def test_hostile_names(there: Way, browser: Browser) -> None:
    """A name is text in the roster, at its joining, beside what is said, and at its leaving."""
    names = ["<img src=x onerror=alert(1)>", "</script><evil-element>", "غريب", "x" * 32]
    url = there.http("/chat")
    async with person(browser, url, "alice") as alice, chromium.tab(browser, url) as page:
        for name in names:
            one = Person(page, name)
            await one.join()
            await one.say(f"I am {name}")
            for each in (alice, one):
                await each.see_people("alice", name)
                await each.see(f"I am {name}")
                await nothing_was_made_of_it(each)
            await one.press("Leave")
            await alice.see_people("alice")
        await alice.see(*names)
        await nothing_was_made_of_it(alice)


async def test_name_that_is_none(there: Way, browser: Browser) -> None:
    """A name that would turn the writing around it is refused, with the rule."""
    async with chromium.tab(browser, there.http("/chat")) as page:
        await page.get_by_role("textbox", name="Your name").fill("\u202eecila")
        await page.get_by_role("button", name="Join").click()
        await page.get_by_text(re.compile("1 to 32 printable characters")).first.wait_for()


@pytest.mark.parametrize("path", ["/ws", "/topics/%3Cimg%20src=x%20onerror=alert(1)%3E"])
async def test_hostile_texts_in_a_tester(there: Way, browser: Browser, path: str) -> None:
    """Whatever goes over the wire is text on the tester's page, and so is a topic's name."""
    async with chromium.tab(browser, there.http(path)) as page:
        one = Person(page, "")
        await one.say(*HOSTILE[:8])
        for text in HOSTILE[:4]:
            await page.get_by_text(text).first.wait_for()
        await nothing_was_made_of_it(one)


async def test_hostile_names_at_the_operators(there: Way, browser: Browser) -> None:
    """On the dashboard what people call themselves, or a topic, is text, in the list and in the detail."""
    name, topic = "<img src=x onerror=alert(1)>", "<evil-element>"
    async with (
        person(browser, there.http("/chat"), name),
        chromium.tab(browser, there.http(f"/topics/{quote(topic)}")),
        chromium.tab(browser, there.http("/-/dashboard")) as page,
    ):
        await page.get_by_text(f"topics/{topic}").first.wait_for()
        row = page.get_by_role("row").filter(has_text=name)
        await row.get_by_role("button").first.click()
        await page.get_by_role("dialog").get_by_text(name).first.wait_for()
        await nothing_was_made_of_it(Person(page, ""))


async def nothing_was_made_of_it(one: Person) -> None:
    """No element came of what people said, and nothing is wider than the window."""
    assert await one.page.locator("[onerror], [onload], [src=x], evil-element, body script").count() == 0
    assert await one.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


async def test_long_words_on_a_phone(there: Way, browser: Browser) -> None:
    """A word of 300 letters and a name of 32 are broken on a phone, rather than wide."""
    phone = {"width": 390, "height": 844}
    async with person(browser, there.http("/chat"), "m" * 32, viewport=phone, has_touch=True) as one:
        await one.say("w" * 300)
        await one.see("w" * 300)
        await nothing_was_made_of_it(one)


# Seeing it recover


async def test_cut_my_connection(there: Way, browser: Browser) -> None:
    """Who cuts the connection sees it gone and, called back, what was said meanwhile, and that it was."""
    url = there.http("/chat")
    async with person(browser, url, "alice") as alice, person(browser, url, "bob") as bob:
        await bob.say("No. 001")
        await alice.see("No. 001")
        await alice.cut()
        await bob.see_people("bob")
        await bob.say("No. 002", "No. 003")
        assert await alice.seen(NUMBER) == numbers(1, 1)
        await alice.press("Come back now")
        await alice.see("No. 003", CAUGHT_UP)
        assert await alice.seen(NUMBER) == numbers(1, 3)
        await alice.see_people("alice", "bob")


async def test_resume_from_here(serve: Serve, browser: Browser) -> None:
    """From any message on the wire one can come back: what came after it comes again, and that is said."""
    from playwright.async_api import expect

    async with serve(CONFIG) as serving, chromium.tab(browser, serving.http("/topics/jobs")) as page:
        wire = page.get_by_role("log").last
        await wire.get_by_text("realtime:welcome").wait_for()
        for text in numbers(1, 4):
            await serving.server.channels["topics"].publish("topics/jobs", text)
        await wire.get_by_text("No. 004").wait_for()
        await page.get_by_role("button", name="Resume from here").nth(1).click()
        await page.get_by_text(RECOVERED).first.wait_for()
        for text, times in zip(numbers(1, 4), (1, 1, 2, 2), strict=True):
            await expect(wire.get_by_text(text)).to_have_count(times)


# What nobody else is to see


async def test_token_is_not_shown(serve: Serve, browser: Browser) -> None:
    """A token in the URL lets its owner in, and is nowhere on the page, nor in what it has to copy."""
    allow = "allow: {subscribe: authenticated, publish: authenticated}"
    config = f"""
        server: {{listen: ["127.0.0.1:0"]}}
        {AUTH}
        channels:
          lobby: {{plugin: chat, path: /chat, names: identity, {allow}}}
          topics: {{plugin: topics, path: "/topics/{{topic...}}", {allow}}}
    """
    secret = token(sub="alice")
    async with serve(config) as serving:
        for path in ("/chat", "/topics/jobs"):
            async with chromium.tab(browser, serving.http(f"{path}?token={secret}")) as page:
                await Person(page, "alice").say("No. 001")
                await page.get_by_text("No. 001").first.wait_for()
                for part in secret.split("."):
                    assert part not in await page.content()
                assert secret not in await page.evaluate(VALUES)


# By the keyboard


async def test_keyboard_alone(there: Way, browser: Browser) -> None:
    """The keyboard alone is enough to come in, to talk, to reach the tools; the focus is to be seen."""
    async with chromium.tab(browser, there.http("/chat")) as page:
        one = Person(page, "alice")
        name = page.get_by_role("textbox", name="Your name")
        await name.wait_for()
        visited = await tab_through(one, "Join")
        assert visited.index("Your name") < visited.index("Join")
        await name.focus()
        await page.keyboard.type("alice")
        await page.keyboard.press("Enter")
        await one.see_people("alice")
        await page.wait_for_function("() => document.activeElement.matches('input, textarea')")
        await page.keyboard.type("No. 001")
        await page.keyboard.press("Enter")
        await one.see("No. 001")
        visited = await tab_through(one, "Cut my connection")
        assert "Send" in visited


async def tab_through(one: Person, last: str) -> list[str]:
    """Press Tab until this has the focus; what had it on the way. Everything must show that it has it."""
    visited: list[str] = []
    for _ in range(60):
        await one.page.keyboard.press("Tab")
        found = await accessible.focused(one.page)
        if not found:
            continue
        assert found["marked"], found
        assert found["placed"], found
        visited.append(found["what"])
        if last in found["what"]:
            return visited
    raise AssertionError(f"no {last!r} is reached by Tab: {visited}")
