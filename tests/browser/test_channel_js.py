"""The page of a channel, in a browser: it shows and sends on every type, and its console has no errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import chromium
import pytest
import pytest_asyncio
from conftest import Serve

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILES = {
    "kinds.py": '''
        from realtime import Channel, hookimpl

        class Greeter(Channel):
            """Asks for a name first, so it takes no POST unless it says so."""

            async def on_connect(self, client):
                await client.send("your name?")
                client.name = (await client.receive(timeout=60)).data

            async def on_message(self, client, message):
                return await self.publish(client.topic, f"{client.name} says {message.data}")

        @hookimpl
        def register_channels():
            return {"greeter": Greeter}
    '''
}
CONFIG = """
    server: {listen: ["127.0.0.1:0"]}
    plugins: [kinds]
    channels:
      echo: {plugin: echo, path: /ws}
      lobby: {plugin: chat, path: /chat}
      clock: {plugin: clock, path: /events}
      topics: {plugin: topics, path: "/topics/{topic...}"}
      greeter: {plugin: greeter, path: /greeter}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all of these tests."""
    async with chromium.browser() as one:
        yield one


@pytest.mark.parametrize(
    ("path", "said", "shown"),
    [
        ("/ws", ["hi"], "message Echo: hi"),
        ("/chat?name=ann", ["hi"], 'message {"from":"ann","text":"hi"}'),
        ("/topics/jobs/42", ["hi"], "message hi"),
        ("/greeter", ["bob", "hi"], "message bob says hi"),
    ],
)
async def test_what_is_sent_is_shown(
    serve: Serve, browser: Browser, path: str, said: list[str], shown: str
) -> None:
    """What a person types and sends comes back, also where the channel takes no POST."""
    from playwright.async_api import expect

    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http(path)) as page:
        for text in said:
            await page.fill("#text", text)
            await page.press("#text", "Enter")
            await expect(page.locator("#text")).to_have_value("")  # its answer has come
        await page.locator("#log", has_text=shown).wait_for()


async def test_what_hears_nothing_has_no_form(serve: Serve, browser: Browser) -> None:
    """A channel that does nothing with messages shows them, and no form to send one."""
    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/events")) as page:
        await page.locator("#log", has_text="Current time: ").wait_for()
        assert not await page.is_visible("#send")


async def test_nothing_is_not_sent(serve: Serve, browser: Browser) -> None:
    """An empty field is no message."""
    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/ws")) as page:
        await page.get_by_text("Connected.").wait_for()
        await page.press("#text", "Enter")
        await page.fill("#text", "after it")
        await page.press("#text", "Enter")
        await page.locator("#log", has_text="after it").wait_for()
        assert await page.inner_text("#log") == "message Echo: after it\n"
