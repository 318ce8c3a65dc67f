"""A real browser: Debian's Chromium, driven by playwright, with no way out but to this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from needs import need

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",
]


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A browser, closed at the end."""
    from playwright.async_api import async_playwright

    chromium = need("chromium", "apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, headless=True, args=OPTIONS)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def tab(browser: Browser, url: str) -> AsyncIterator[Page]:
    """A page of it that shows this URL; at the end its console must have had no errors."""
    errors: list[str] = []
    page = await browser.new_page()
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    await page.goto(url)
    yield page
    await page.close()
    assert not errors, f"the console has errors: {errors}"
