"""The page of a channel that has none of its own: what a person sends, and what comes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import chromium
import pytest
import pytest_asyncio
from conftest import Serve
from playwright.async_api import expect

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILES = {
    "kinds.py": '''
        from realtime import Channel, Rejected, hookimpl

        class Room(Channel):
            """What is said comes to everybody."""

            async def on_message(self, client, message):
                if message.data == "no":
                    raise Rejected("this is no word for this room")
                return await self.publish(client.topic, message.data, event=message.event)

        class Named(Room):
            """A room in which who speaks has a name."""

            async def on_message(self, client, message):
                name = client.query.get("name")
                if not name:
                    raise Rejected("say who you are with ?name=…")
                return await self.publish(client.topic, f"{name} says {message.data}")

        class Greeter(Channel):
            """Asks for a name first, so it takes no POST unless it says so."""

            async def on_connect(self, client):
                await client.send("your name?")
                client.name = (await client.receive(timeout=60)).data

            async def on_message(self, client, message):
                return await self.publish(client.topic, f"{client.name} says {message.data}")

        class Posted(Room):
            transports = ("json", "post")

        @hookimpl
        def register_channels():
            return {"room": Room, "named": Named, "greeter": Greeter, "posted": Posted}
    '''
}
CONFIG = """
    server: {listen: ["127.0.0.1:0"]}
    plugins: [kinds]
    channels:
      echo: {plugin: echo, path: /ws}
      room: {plugin: room, path: /room}
      named: {plugin: named, path: /named, presence: list}
      topics: {plugin: topics, path: "/topics/{topic...}"}
      greeter: {plugin: greeter, path: /greeter}
      posted: {plugin: posted, path: /posted}
      silent: {plugin: clock, path: /silent}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all of these tests."""
    async with chromium.browser() as one:
        yield one


async def say(page: Page, text: str) -> None:
    """Type a message and send it; its answer has come at the end."""
    message = page.get_by_role("textbox", name="Message")
    await message.fill(text)
    await message.press("Enter")
    await expect(message).to_have_value("")


async def comes(page: Page, text: str) -> None:
    """Wait until a message has come."""
    await page.locator(".frame.in", has_text=text).wait_for()


@pytest.mark.parametrize(
    ("path", "said", "shown"),
    [
        ("/ws", ["hi"], "messageEcho: hi"),
        ("/topics/jobs/42", ["hi"], "messagehi"),
        ("/greeter", ["bob", "hi"], "messagebob says hi"),
        ("/named?name=ann", ["hi"], "messageann says hi"),
    ],
)
async def test_what_is_sent_is_shown(
    serve: Serve, browser: Browser, path: str, said: list[str], shown: str
) -> None:
    """What a person types and sends comes back, also where the channel takes no POST."""
    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http(path)) as page:
        for text in said:
            await say(page, text)
        await comes(page, shown)


async def test_send_button(serve: Serve, browser: Browser) -> None:
    """The button sends, too; it is then said where the message stands."""
    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/room")) as page:
        await page.get_by_role("textbox", name="Message").fill("hi")
        await page.get_by_role("button", name="Send").click()
        await comes(page, "messagehi")
        position = await page.locator(".frame.in .id").inner_text()
        await page.get_by_text(f"Published as {position}.").wait_for()
        assert await page.locator(".frame.out .id").inner_text() == position


async def test_json_and_event(serve: Serve, browser: Browser) -> None:
    """What is JSON is sent as such, with the event that was chosen."""
    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/room")) as page:
        await page.get_by_label("Format").select_option("JSON")
        await page.get_by_label("Event").fill("score")
        await say(page, '{ "home": 1 }')
        await comes(page, 'score{"home": 1}')


async def test_no_json(serve: Serve, browser: Browser) -> None:
    """What is no JSON is not sent, and stays to be mended."""
    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/room")) as page:
        await page.get_by_label("Format").select_option("JSON")
        message = page.get_by_role("textbox", name="Message")
        await message.fill("{home: 1}")
        await message.press("Enter")
        await page.get_by_text("This is no JSON: ").wait_for()
        await expect(message).to_have_value("{home: 1}")
        assert await message.get_attribute("aria-invalid") == "true"


@pytest.mark.parametrize("over", ["This connection", "A POST"])
async def test_refusal(serve: Serve, browser: Browser, over: str) -> None:
    """What the channel does not take is said in its own words, and stays to be mended."""
    async with serve(CONFIG, FILES) as serving:
        page = await browser.new_page()
        await page.goto(serving.http("/room"))
        await page.get_by_label("Send over").select_option(over)
        message = page.get_by_role("textbox", name="Message")
        await message.fill("no")
        await message.press("Enter")
        await page.get_by_text("Not sent: ").filter(has_text="this is no word for this room").wait_for()
        await expect(message).to_have_value("no")
        await page.close()


async def test_post(serve: Serve, browser: Browser) -> None:
    """A message can go by POST, with its event, and comes over the connection."""
    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/room")) as page:
        await page.get_by_label("Send over").select_option("A POST")
        await page.get_by_label("Event").fill("score")
        await say(page, "1:0")
        await comes(page, "score1:0")
        assert await page.locator(".frame.out .event").inner_text() == "POST score"


async def test_answer_to_a_post(serve: Serve, browser: Browser) -> None:
    """What a channel says to a POST alone is shown as what came in."""
    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/ws")) as page:
        await page.get_by_label("Send over").select_option("A POST")
        await say(page, "hi")
        await comes(page, "messageEcho: hi")


async def test_name(serve: Serve, browser: Browser) -> None:
    """Where people have names, who gives one speaks by it, whichever way."""
    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/named")) as page:
        await expect(page.get_by_role("status")).to_have_text("Live over server-sent events")
        await page.get_by_role("textbox", name="Your name").fill("ann")
        await page.get_by_role("textbox", name="Your name").press("Tab")
        await expect(page.get_by_role("status")).to_have_text("Live over WebSocket")
        for over in ("This connection", "A POST"):
            await page.get_by_label("Send over").select_option(over)
            await say(page, over)
            await comes(page, f"ann says {over}")


async def test_what_is_only_posted_to(serve: Serve, browser: Browser) -> None:
    """A channel that nobody reads is posted to; its page opens no connection."""
    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/posted")) as page:
        await say(page, "hi")
        await page.get_by_text("Published as ").wait_for()
        await expect(page.get_by_role("status")).to_have_text("Not live")
        assert not await page.get_by_role("button", name="Cut my connection").is_visible()


async def test_what_hears_nothing_has_no_form(serve: Serve, browser: Browser) -> None:
    """A channel that does nothing with messages shows them, and no form to send one."""
    silent = """
        from realtime import Channel, hookimpl

        class Silent(Channel):
            async def on_join(self, client):
                await client.send("listen")

        @hookimpl
        def register_channels():
            return {"silent": Silent}
    """
    config = CONFIG.replace("plugin: clock", "plugin: silent")
    files = {**FILES, "silent.py": silent}
    async with serve(config, files) as serving, chromium.tab(browser, serving.http("/silent")) as page:
        await comes(page, "listen")
        await page.get_by_text("This channel takes no messages.").wait_for()
        assert await page.get_by_role("textbox").count() == 0


async def test_nothing_is_not_sent(serve: Serve, browser: Browser) -> None:
    """An empty field is no message, and Shift and Enter begin another line."""
    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/ws")) as page:
        message = page.get_by_role("textbox", name="Message")
        await message.press("Enter")
        await message.press("a")
        await message.press("Shift+Enter")
        await message.press("b")
        await message.press("Enter")
        await page.locator(".frame.in").wait_for()
        assert await page.locator(".frame.in .data").all_inner_texts() == ["Echo: a\nb"]
