"""A real browser: Debian's Chromium, driven by playwright, with no way out but to this machine."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from needs import need

if TYPE_CHECKING:
    from playwright.async_api import Browser, ConsoleMessage, Dialog, Page

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

#: How long anything in a browser may take, in seconds: far more than it does, on a busy machine too.
PATIENCE = 60.0


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A browser, closed at the end; what is expected of its pages has as long as all else."""
    from playwright.async_api import async_playwright, expect

    expect.set_options(timeout=PATIENCE * 1000)
    chromium = need("chromium", "apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium, headless=True, args=OPTIONS, timeout=PATIENCE * 1000
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def tab(browser: Browser, url: str, forgiven: str = "", **context: Any) -> AsyncIterator[Page]:
    """A page of it, with cookies and storage of its own, that shows this URL.

    At the end it must have asked nobody anything, and its console must have had no errors, which is where
    violations of the content security policy are, too. ``forgiven``: but those in which this is found, a
    regular expression: the browser itself reports a connection that breaks, and no script can prevent it.
    """
    wrong: list[str] = []

    async def dismiss(dialog: Dialog) -> None:
        wrong.append(f"a dialog: {dialog.message}")
        await dialog.dismiss()

    def said(message: ConsoleMessage) -> None:
        if message.type == "error" and not (forgiven and re.search(forgiven, message.text)):
            wrong.append(f"{message.text} ({message.location['url']})")

    page = await browser.new_page(**context)
    page.set_default_timeout(PATIENCE * 1000)
    page.on("console", said)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", dismiss)
    await page.goto(url)
    yield page
    await page.close()
    assert not wrong, f"the console has errors: {wrong}"
