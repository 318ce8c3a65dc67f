"""People at pages of a chat: what they do, and what they see, by the names that a screen reader says."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from chromium import tab

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

#: What a browser itself says in its console of a WebSocket that is refused, and of a stream that breaks.
REFUSED = r"^WebSocket connection to '[^']+' failed: Error during WebSocket handshake"
BROKEN = r"^Failed to load resource: net::ERR_(INCOMPLETE_CHUNKED_ENCODING|CONNECTION_RESET|EMPTY_RESPONSE)"

#: What says that all was recovered, and that some was missed.
CAUGHT_UP = re.compile(r"caught up|recovered", re.IGNORECASE)
MISSED = re.compile(r"missed", re.IGNORECASE)
#: A page whose connection was cut there has it come back by itself after ten seconds: here it does not.
STAYS = """() => {
  const later = window.setTimeout;
  window.setTimeout = (call, wait, ...more) => later(call, wait === 10_000 ? 2e9 : wait, ...more);
}"""


class Person:
    """Somebody who looks at the page of a channel."""

    def __init__(self, page: Page, name: str) -> None:
        self.page = page
        self.name = name
        self.log = page.get_by_role("log", name="Messages")
        self.people = page.get_by_role("list", name="People")
        self.box = page.get_by_role("textbox", name="Message", exact=True)
        self.status = page.get_by_role("status").first

    async def join(self) -> None:
        """Say the name, and be in."""
        await self.page.get_by_role("textbox", name="Your name").fill(self.name)
        await self.page.get_by_role("button", name="Join").click()
        await self.box.wait_for()

    async def say(self, *texts: str) -> None:
        """Say something; each text is with the server when the next is typed."""
        from playwright.async_api import expect

        for text in texts:
            await self.box.fill(text)
            await self.box.press("Enter")
            await expect(self.box).to_have_value("")

    async def press(self, button: str) -> None:
        """Press a button."""
        await self.page.get_by_role("button", name=button).first.click()

    async def cut(self) -> None:
        """Cut the connection; it stays away until it is told to come back, however long that takes."""
        await self.page.evaluate(STAYS)
        await self.press("Cut my connection")
        await self.page.get_by_role("button", name="Come back now").wait_for()

    async def see(self, *texts: str | re.Pattern[str]) -> None:
        """Wait until all of these are to be seen among the messages."""
        from playwright.async_api import expect

        for text in texts:
            await expect(self.log).to_contain_text(text)

    async def see_people(self, *names: str) -> None:
        """Wait until exactly these are in the list of people."""
        from playwright.async_api import expect

        items = self.people.get_by_role("listitem")
        await expect(items).to_have_count(len(names))
        for name in names:
            await expect(items.filter(has_text=name)).to_have_count(1)

    async def seen(self, pattern: str) -> list[str]:
        """What is to be seen among the messages of this kind, from top to bottom."""
        return re.findall(pattern, await self.log.inner_text())


@asynccontextmanager
async def person(
    browser: Browser, url: str, name: str, forgiven: str = "", **context: Any
) -> AsyncIterator[Person]:
    """Somebody who has come in."""
    async with tab(browser, url, forgiven, **context) as page:
        somebody = Person(page, name)
        await somebody.join()
        yield somebody
