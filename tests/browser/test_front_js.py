"""The front page, in a browser: variables of a path are filled in, and all is there without JavaScript."""

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

CONFIG = """
    server: {listen: ["127.0.0.1:0"]}
    channels:
      lobby: {plugin: chat, path: /chat}
      rooms: {plugin: chat, path: "/rooms/{room}"}
      topics: {plugin: topics, path: "/topics/{topic...}"}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all of these tests."""
    async with chromium.browser() as one:
        yield one


@pytest.mark.parametrize(
    ("channel", "label", "value", "path"),
    [
        ("rooms", "room", "tea & <b>?", "/rooms/tea%20%26%20%3Cb%3E%3F"),
        ("topics", "topic", "jobs/4 2", "/topics/jobs/4%202"),
    ],
)
async def test_variables_are_filled_in(
    serve: Serve, browser: Browser, channel: str, label: str, value: str, path: str
) -> None:
    """What is typed for a variable becomes a part of the path, and that page opens."""
    async with serve(CONFIG) as serving, chromium.tab(browser, serving.http("/")) as page:
        await page.get_by_label(label, exact=True).fill(value)
        await page.get_by_role("button", name=f"Open {channel}").click()
        await page.wait_for_url(serving.http(path))


@pytest.mark.parametrize("name", ["dataset", "elements", "hidden"])
async def test_variable_of_any_name(serve: Serve, browser: Browser, name: str) -> None:
    """A field hides a property of its form that is called so: a variable may have each such name."""
    text = f"channels: {{rooms: {{plugin: chat, path: '/in/{{{name}}}'}}}}"
    async with serve(text) as serving, chromium.tab(browser, serving.http("/")) as page:
        await page.get_by_label(name, exact=True).fill("tea")
        await page.get_by_role("button", name="Open rooms").click()
        await page.wait_for_url(serving.http("/in/tea"))


@pytest.mark.parametrize(("label", "value"), [("room", "a/b"), ("room", ".."), ("topic", "a//b")])
async def test_what_is_no_value_opens_nothing(
    serve: Serve, browser: Browser, label: str, value: str
) -> None:
    """What the server would refuse as a value is refused in the field already."""
    async with serve(CONFIG) as serving, chromium.tab(browser, serving.http("/")) as page:
        field = page.get_by_label(label, exact=True)
        await field.fill(value)
        await field.press("Enter")
        assert await field.evaluate("field => field.validity.patternMismatch")
        assert page.url == serving.http("/")


async def test_without_javascript(serve: Serve, browser: Browser) -> None:
    """Without JavaScript the channels are there, and instead of a form what to do."""
    context = await browser.new_context(java_script_enabled=False)
    async with serve(CONFIG) as serving:
        page = await context.new_page()
        await page.goto(serving.http("/"))
        assert await page.get_by_role("heading", level=3).all_inner_texts() == [
            *("Watch", "Take part", "Publish"),
            *("lobby", "rooms", "topics"),
        ]
        assert not await page.get_by_role("textbox").count()
        assert await page.locator("noscript p:visible").count() == 2
        await page.get_by_role("link", name="Open lobby").click()
        await page.wait_for_url(serving.http("/chat"))
    await context.close()


async def test_edges(serve: Serve, browser: Browser) -> None:
    """The wordmark, and what is below it, begin at the same place on every page."""
    async with serve(CONFIG) as serving, chromium.tab(browser, serving.http("/")) as page:
        await page.set_viewport_size({"width": 1280, "height": 800})
        edges = []
        for path in ("/", "/chat", "/topics/tea", "/-/dashboard"):
            await page.goto(serving.http(path))
            for found in (page.locator(".wordmark"), page.locator(".page > :visible").first):
                edges.append(await found.evaluate("one => one.getBoundingClientRect().x"))
        assert edges == [32] * 8


async def test_phone(serve: Serve, browser: Browser) -> None:
    """On a phone nothing is wider than the screen."""
    async with serve(CONFIG) as serving, chromium.tab(browser, serving.http("/")) as page:
        await page.set_viewport_size({"width": 390, "height": 800})
        assert await page.evaluate("document.documentElement.scrollWidth") == 390
