"""The page of a clock, in a browser: it shows what the server said, and nothing of its own."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import chromium
import pytest
import pytest_asyncio
from chromium import PATIENCE
from conftest import Serve, Serving

from realtime.message import Message

if TYPE_CHECKING:
    from playwright.async_api import Browser, Locator, Page

pytestmark = pytest.mark.asyncio(loop_scope="module")

FAST = "channels: {clock: {plugin: clock, path: /events, interval: 50ms}}"
#: One that ticks only when a test says so.
SLOW = FAST.replace("50ms", "1h")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all of these tests; each has a tab of its own."""
    async with chromium.browser() as one:
        yield one


async def has(locator: Locator, text: str | re.Pattern[str]) -> None:
    """Wait until it has this text."""
    from playwright.async_api import expect

    await expect(locator).to_have_text(text, timeout=PATIENCE * 1000)


@asynccontextmanager
async def clock(browser: Browser, serving: Serving) -> AsyncIterator[Page]:
    """A tab that shows the clock, and has the first time."""
    async with chromium.tab(browser, serving.http("/events")) as page:
        await page.get_by_text("UTC", exact=False).first.wait_for()
        yield page


async def tick(serving: Serving, time: str) -> None:
    """The server says this time."""
    await serving.server.channels["clock"].publish("clock", f"Current time: {time} UTC")


async def test_time_is_what_the_server_says(serve: Serve, browser: Browser) -> None:
    """Digits, date and hands are those of the event that came last."""
    async with serve(SLOW) as serving, clock(browser, serving) as page:
        await tick(serving, "2031-03-02 15:04:05.678901")
        await has(page.get_by_role("timer"), "15:04:05.678")
        assert "March 2, 2031" in await page.locator(".clock-date").inner_text()
        hands = page.locator(".clock-hand")
        turned = await hands.evaluate_all("hands => hands.map(({ style }) => style.transform)")
        assert turned == ["rotate(452deg)", "rotate(24.5deg)", "rotate(30deg)"]


async def test_hand_goes_on_over_twelve(serve: Serve, browser: Browser) -> None:
    """From one minute to the next the hand of the seconds makes one step, not a turn back."""
    async with serve(SLOW) as serving, clock(browser, serving) as page:
        await tick(serving, "2031-03-02 23:59:59.000000")
        await has(page.get_by_role("timer"), "23:59:59.000")
        await page.evaluate("""() => {
            const { animate } = Element.prototype;
            Element.prototype.animate = function (turn, ...more) {
              window.turn = turn.map(({ transform }) => transform);
              return animate.call(this, turn, ...more);
            }
        }""")
        await tick(serving, "2031-03-03 00:00:00.000000")
        await has(page.get_by_role("timer"), "00:00:00.000")
        assert await page.evaluate("window.turn") == ["rotate(-6deg)", "rotate(0deg)"]


async def test_what_is_no_time_is_not_shown(serve: Serve, browser: Browser) -> None:
    """Anything else that comes changes nothing."""
    async with serve(SLOW) as serving, clock(browser, serving) as page:
        await tick(serving, "2031-03-02 15:04:05.678901")
        await tick(serving, "<img src=x>")
        await tick(serving, "2031-03-02 15:04:06.678901")
        await has(page.get_by_role("timer"), "15:04:06.678")


async def test_intervals_are_shown(serve: Serve, browser: Browser) -> None:
    """Below is how evenly the ticks come, in a plot that says so in words, too."""
    async with serve(FAST) as serving, clock(browser, serving) as page:
        await page.get_by_role("img", name=re.compile(r"intervals: usually 0\.\d{3} s")).wait_for()
        await has(page.locator(".clock-facts dd").nth(1), re.compile(r"^0\.\d{3} s$"))


async def test_a_cut_is_told_and_is_no_interval(serve: Serve, browser: Browser) -> None:
    """While it is cut the page says that the time is old; the ticks around the cut are no interval."""
    async with serve(SLOW) as serving, clock(browser, serving) as page:
        for second in range(3):
            await tick(serving, f"2031-03-02 15:04:0{second}.000000")
        await page.get_by_role("img", name="The last 2 intervals").wait_for()
        await page.get_by_role("button", name="Cut my connection").click()
        await page.get_by_text("Cut off: this was the last time that came.").wait_for()
        await tick(serving, "2031-03-02 15:04:03.000000")  # it is kept, and comes late
        await page.get_by_role("button", name="Come back now").click()
        await page.get_by_text("Cut off: this was").wait_for(state="detached")
        await tick(serving, "2031-03-02 15:04:09.000000")
        await has(page.get_by_role("timer"), "15:04:09.000")
        await page.get_by_role("img", name="The last 2 intervals").wait_for()


async def test_time_that_stands_still_is_told(serve: Serve, browser: Browser) -> None:
    """While the engine is away the page says that the time is old; that is no interval either."""
    async with serve(SLOW) as serving, clock(browser, serving) as page:
        for second in range(3):
            await tick(serving, f"2031-03-02 15:04:0{second}.000000")
        await page.get_by_role("img", name="The last 2 intervals").wait_for()
        await serving.server.bus.tell(Message.of({"reason": "no"}, event="realtime:degraded", time=1.0))
        await page.get_by_text("On hold: this was the last time that came.").wait_for()
        await serving.server.bus.tell(Message.of({}, event="realtime:restored", time=2.0))
        await page.get_by_text("On hold: this was").wait_for(state="detached")
        for second in range(8, 10):
            await tick(serving, f"2031-03-02 15:04:0{second}.000000")
        await page.get_by_role("img", name="The last 3 intervals").wait_for()
