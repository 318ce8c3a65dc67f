"""Tabs of a browser in which the client for browsers runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from chromium import PATIENCE

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

#: ``open(name, url, options)`` makes a connection, and ``logs[name]`` has what it dispatches.
_SETUP = """
async (module) => {
  window.rt = await import(module);
  window.logs = {};
  window.open = (name, url, options) => {
    const channel = (window[name] = rt.connect(url, { backoff: () => 0, ...options }));
    const log = (logs[name] = []);
    for (const type of ["open", "message", "gap", "reset", "degraded", "restored", "down", "close"]) {
      channel.addEventListener(type, ({ detail }) => log.push([type, plain(detail)]));
    }
    return channel;
  };
  // Of an error what a test looks at; of bytes a list.
  window.plain = (value) => {
    if (value instanceof Error) {
      const { name, message, code = null, status = null, reason = null } = value;
      return { name, message, code, status, reason };
    }
    if (value?.data instanceof Uint8Array) return { ...value, data: [...value.data] };
    return value;
  };
  window.opened = () => logs.channel.filter(([type]) => type === "open").length;
  window.outcome = (promise) => promise.then((id) => id, plain);
  window.data = (name) => logs[name].filter(([type]) => type === "message").map(([, { data }]) => data);
}
"""


class Tab:
    """A tab that shows a page of a server, in which ``rt`` is the module ``realtime.js``."""

    def __init__(self, page: Page) -> None:
        self.page = page
        #: The errors of its console, where each request is that failed, and what no script has caught.
        self.errors: list[str] = []
        self.uncaught: list[str] = []
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.uncaught.append(str(error)))

    async def open(self, url: str, variable: str = "channel", more: str = "", **options: Any) -> None:
        """Make a connection, a variable of this name; ``more`` are options that are no JSON."""
        await self.run(f"void open({variable!r}, {url!r}, {{...{json.dumps(options)}, {more}}})")

    async def run(self, script: str) -> Any:
        """What an expression gives, or a promise that it is."""
        async with asyncio.timeout(PATIENCE):
            return await self.page.evaluate(script)

    async def until(self, condition: str) -> None:
        """Wait until an expression is true."""
        await self.page.wait_for_function(condition, polling=5, timeout=PATIENCE * 1000)

    async def log(self, *types: str) -> list[Any]:
        """What the connection has dispatched: pairs of type and detail, of these types or of all."""
        log: list[Any] = await self.run("logs.channel")
        return [entry for entry in log if not types or entry[0] in types]

    async def take(self, count: int, variable: str = "channel") -> list[Any]:
        """The data of the first messages of a connection, once there are so many."""
        await self.until(f"data({variable!r}).length >= {count}")
        messages: list[Any] = await self.run(f"data({variable!r})")
        return messages[:count]

    async def sent(self, data: str, variable: str = "channel", options: str = "{}") -> Any:
        """What becomes of sending a value, written in JavaScript: an id, or the facts of an error."""
        return await self.run(f"outcome({variable}.send({data}, {options}))")


@asynccontextmanager
async def tab(browser: Browser, url: str, module: str = "/-/realtime.js") -> AsyncIterator[Tab]:
    """A tab of its own that shows a URL; as a page of somebody else's, so without the policy of ours."""
    context = await browser.new_context(bypass_csp=True)
    try:
        one = Tab(await context.new_page())
        await one.page.goto(url)
        await one.page.evaluate(_SETUP, module)
        yield one
    finally:
        await context.close()
