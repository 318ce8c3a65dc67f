"""The dashboard, in a browser: what it shows of a server, who is asked for a token, who disconnected."""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import chromium
import pytest
import pytest_asyncio
from conftest import Serve, Serving, make
from redises import redis_server
from servers import closed_port
from tabs import tab
from tokenmaker import AUTH, token
from wire import eventually, frame, websocket

from realtime import stats

if TYPE_CHECKING:
    from playwright.async_api import Browser, Locator, Page

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILES = {
    "clumsy.py": '''
        from realtime import Channel, hookimpl

        class Clumsy(Channel):
            """Fails at what it is told."""

            transports = ("websocket",)

            async def on_message(self, client, message):
                raise ValueError(message.data)

        @hookimpl
        def register_channels():
            return {"clumsy": Clumsy}
    ''',
    "mayfly.py": '''
        import asyncio
        from contextlib import asynccontextmanager

        from realtime import Channel, hookimpl

        class Mayfly(Channel):
            """Its work ends at once."""

            @asynccontextmanager
            async def lifespan(self):
                async def work():
                    raise RuntimeError("that was it")

                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(work())
                    yield

        @hookimpl
        def register_channels():
            return {"mayfly": Mayfly}
    ''',
}
CONFIG = """
    server: {listen: ["127.0.0.1:0"], watchdog: off}
    channels:
      lobby: {plugin: chat, path: /chat, history: 100}
      kept: {plugin: chat, path: "/kept/{room}", allow: {kick: nobody}}
      clumsy: {plugin: clumsy, path: /clumsy}
"""
HOSTILE = "<img src=x onerror=alert(1)>"
#: A detail that is open is looked at again every two seconds: here it is not.
SELDOM = """() => {
  const repeat = window.setInterval;
  window.setInterval = (call, wait) => repeat(call, wait === 2000 ? 2e9 : wait);
}"""


class Watched(NamedTuple):
    """A server, and the page that shows it."""

    serving: Serving
    page: Page

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.serving.port


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all of these tests."""
    async with chromium.browser() as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    """A server for most of them, and one page that shows it; its console had no errors at the end."""
    async with make(tmp_path_factory.mktemp("watched"), CONFIG, FILES) as server:
        serving = Serving(server)
        async with chromium.tab(browser, serving.http("/-/dashboard")) as page:
            await pill(page, "Live").wait_for()
            yield Watched(serving, page)


def pill(page: Page, text: str) -> Locator:
    """What the page says of its own connection."""
    return page.locator("#pill", has_text=re.compile(f"^{text}$"))


def tile(page: Page, label: str) -> Locator:
    """The number of a headline."""
    return page.locator(".tile", has=page.get_by_text(label, exact=True)).locator(".value")


def row(page: Page, table: str, name: str) -> Locator:
    """The row of a table that a name heads."""
    region = page.get_by_role("region", name=table)
    return region.get_by_role("row").filter(has=page.get_by_role("rowheader", name=name, exact=True))


async def cut(page: Page) -> None:
    """Have the client look again at once whether the server is back, rather than after its wait."""
    await page.evaluate("window.dispatchEvent(new Event('online'))")


# What is shown


async def test_clients_are_counted(watched: Watched) -> None:
    """Who connects is in the headline within a second or two, and gone from it afterwards."""
    from playwright.async_api import expect

    async with websocket(watched.port, "/chat?name=ann"), websocket(watched.port, "/kept/tea?name=bob"):
        await expect(tile(watched.page, "Clients")).to_have_text("2")
        await expect(row(watched.page, "Channels", "lobby").get_by_role("cell").nth(1)).to_have_text("1")
    await expect(tile(watched.page, "Clients")).to_have_text("0")


async def test_server_is_ready(watched: Watched) -> None:
    """That the server is ready is said in words."""
    assert await tile(watched.page, "Server").inner_text() == "Ready"


async def test_topics_are_listed(watched: Watched) -> None:
    """A topic has its clients, its position and what it keeps."""
    from playwright.async_api import expect

    async with websocket(watched.port, "/kept/cake?name=ann"):
        one = row(watched.page, "Topics", "kept/cake")
        await expect(one).to_have_text(re.compile(r"^kept/cake1\w+-11\d+ B0$"))


async def test_plots_can_be_read_aloud(watched: Watched) -> None:
    """Each plot says in words what it shows."""
    from playwright.async_api import expect

    plots = watched.page.get_by_role("img", name=re.compile(r"the last \d+ (second|minute)s"))
    await expect(plots).to_have_count(8)  # they are drawn once it is known how wide they are
    named = [await plot.get_attribute("aria-label") or "" for plot in await plots.all()]
    assert [name.partition(",")[0] for name in named] == [
        *("Clients", "Messages in", "Messages out", "Delivery lag"),
        *("Event loop lag", "Lagging", "CPU", "Memory"),
    ]
    assert re.search(r"resident: now [\d.]+ MiB, least [\d.]+ MiB, most [\d.]+ MiB\.$", named[-1])


async def test_what_should_be_zero_is_seen(watched: Watched) -> None:
    """A connection that a plugin's bug has ended is told among what should be zero, and the bug as text."""
    async with websocket(watched.port, "/clumsy") as wire:
        await wire.send(frame(1, HOSTILE.encode()))
        assert await wire.close_code() == 1011
    seen = watched.page.locator(".zeros .seen")
    await seen.filter(has_text="1 ended with 1011: a bug of a plugin").wait_for()
    warning = watched.page.get_by_role("log", name="Last warnings").get_by_role("listitem").first
    await warning.filter(has_text=HOSTILE).wait_for()
    assert not await watched.page.locator("img[src=x]").count()


@pytest.mark.parametrize("width", [390, 820, 1600])
async def test_width(watched: Watched, width: int) -> None:
    """Nothing is wider than the screen, whichever that is."""
    await watched.page.set_viewport_size({"width": width, "height": 900})
    assert await watched.page.evaluate("document.documentElement.scrollWidth") == width


async def test_names_on_a_phone(watched: Watched) -> None:
    """On a phone a topic's name is there to its end, and its table is no wider than the screen."""
    from playwright.async_api import expect

    page, long = watched.page, "kept/the-one-at-the-far-end-of-the-corridor"
    await page.set_viewport_size({"width": 390, "height": 800})
    async with websocket(watched.port, f"/{long}?name=ann"):
        for one in (row(page, "Topics", long), page.locator("#clients tr", has_text=long)):
            await expect(one).to_be_visible()
            cells = await one.evaluate("one => [...one.cells].map((c) => c.scrollWidth - c.clientWidth)")
            assert max(cells) == 0
            assert await one.evaluate("one => one.closest('.scroll').scrollWidth") < 390


async def test_plots_are_lower_on_a_phone(watched: Watched) -> None:
    """On a phone a plot takes less of the screen, and its axis of time is within it."""
    page = watched.page
    await page.set_viewport_size({"width": 390, "height": 800})
    box = "document.querySelector('.plot svg').viewBox.baseVal.height"
    look = f"{box} === 112 ? done() : requestAnimationFrame(look)"
    await page.evaluate(f"new Promise(done => {{ const look = () => {look}; look(); }})")
    await page.set_viewport_size({"width": 1280, "height": 900})


# Connections


async def test_connections_are_searched(watched: Watched) -> None:
    """A search leaves those that are like it, and says how many they are."""
    from playwright.async_api import expect

    page, found = watched.page, watched.page.locator("#clients tr")
    async with websocket(watched.port, "/chat?name=ann"), websocket(watched.port, "/chat?name=bob"):
        await page.get_by_role("searchbox", name="Search").fill("BO")
        await expect(found).to_have_count(1)
        await expect(found).to_have_text(re.compile(r"^c\d+boblobbyWebSocket127\.0\.0\.1"))
        await expect(page.locator("#clients-count")).to_have_text("1 of 1")
        await page.get_by_label("Search").fill("nobody")
        await page.get_by_text("No connection is like that.").wait_for()
    await page.get_by_label("Search").fill("")


async def test_connections_of_a_channel(watched: Watched) -> None:
    """The name of a channel in its table shows its connections."""
    from playwright.async_api import expect

    page, found = watched.page, watched.page.locator("#clients tr")
    async with websocket(watched.port, "/chat?name=ann"), websocket(watched.port, "/kept/a?name=bob"):
        await row(page, "Channels", "kept").get_by_role("button").click()
        await expect(found).to_have_count(1)
        await expect(found).to_have_text(re.compile(r"^c\d+bobkept/a"))
    await page.locator("#channel").select_option("")


async def test_connections_of_a_state(watched: Watched) -> None:
    """Those that lag are shown by themselves, where there are any."""
    async with websocket(watched.port, "/chat?name=ann"):
        await watched.page.locator("#state").select_option("live")
        await watched.page.get_by_role("cell", name="ann", exact=True).wait_for()
        await watched.page.locator("#state").select_option("lagging")
        await watched.page.get_by_text("No connection is like that.").wait_for()
    await watched.page.locator("#state").select_option("")


async def test_hostile_name_is_text(watched: Watched) -> None:
    """A name with HTML in it is shown as it stands."""
    async with websocket(watched.port, "/chat") as wire:
        await wire.send(frame(1, b"<i>eve</i>"))
        await watched.page.get_by_role("cell", name="<i>eve</i>").wait_for()


async def test_disconnect(watched: Watched) -> None:
    """An operator looks at a connection, disconnects it after a second question, and gives a reason."""
    page = watched.page
    async with (
        websocket(watched.port, "/kept/<b>?name=x"),
        websocket(watched.port, "/chat?name=mallory") as wire,
    ):
        await page.get_by_label("Search").fill("mallory")
        await page.locator("#clients tr", has_text="mallory").get_by_role("button").click()
        dialog = page.get_by_role("dialog", name="mallory")
        await dialog.get_by_text("127.0.0.1").wait_for()
        await dialog.get_by_role("button", name="Disconnect…").click()
        await dialog.get_by_label("Reason").fill("enough of that")
        await dialog.get_by_role("button", name=re.compile(r"^Disconnect c\d+$")).click()
        await dialog.get_by_role("status").filter(has_text="is disconnected.").wait_for()
        while (last := await wire.frame()).opcode != 8:
            pass
    assert (last.code, last.reason) == (4403, "enough of that")
    await dialog.get_by_role("button", name="Close").click()
    await page.get_by_label("Search").fill("")


async def test_disconnect_of_who_has_gone(watched: Watched, browser: Browser) -> None:
    """Who has gone in the meantime is told to have gone."""
    async with tab(browser, f"http://127.0.0.1:{watched.port}/-/dashboard") as one:
        await one.run(f"void ({SELDOM})()")
        async with websocket(watched.port, "/chat?name=ann"):
            await one.page.locator("#clients tr", has_text="ann").get_by_role("button").click()
            await one.page.get_by_role("button", name="Disconnect…").click()
        await eventually(lambda: not watched.serving.server.channels["lobby"].clients)
        await one.page.get_by_role("button", name=re.compile(r"^Disconnect c\d+$")).click()
        await one.page.get_by_text("had gone already.").wait_for()
        assert one.uncaught == []


async def test_detail_has_a_title(watched: Watched) -> None:
    """Who a connection is stands in the title of its detail, and is not told again below."""
    page = watched.page
    async with websocket(watched.port, "/chat?name=zoe"):
        await page.locator("#clients tr", has_text="zoe").get_by_role("button").click()
        dialog = page.get_by_role("dialog", name="zoe (c")
        await dialog.get_by_text("127.0.0.1").wait_for()
        assert (await dialog.get_by_role("term").all_inner_texts())[:3] == ["Identity", "Channel", "Topic"]
        await page.keyboard.press("Escape")


async def test_who_may_not_is_not_asked(watched: Watched) -> None:
    """Where nobody may disconnect anybody there is no button for it."""
    page = watched.page
    async with websocket(watched.port, "/kept/tea?name=ann"):
        await page.locator("#clients tr", has_text="kept/tea").get_by_role("button").click()
        dialog = page.get_by_role("dialog", name="ann")
        await dialog.get_by_text("/kept/tea").wait_for()
        assert not await dialog.get_by_role("button", name="Disconnect").count()
        await page.keyboard.press("Escape")
        await dialog.wait_for(state="hidden")


async def test_page_of_connections(watched: Watched) -> None:
    """Of many connections fifty are shown, and as many more as are asked for."""
    page, found = watched.page, watched.page.locator("#clients tr")
    async with AsyncExitStack() as stack:
        for number in range(60):
            await stack.enter_async_context(websocket(watched.port, f"/kept/room{number}"))
        await page.get_by_text("50 of 60", exact=True).wait_for()
        assert await found.count() == 50
        await page.get_by_role("button", name="Show 10 more").click()
        await page.get_by_text("60 of 60", exact=True).wait_for()
        assert await found.count() == 60


async def test_server_that_is_not_ready(serve: Serve, browser: Browser) -> None:
    """Why a server is not ready is told before anything else."""
    config = "channels: {mayfly: {plugin: mayfly, path: /mayfly}}"
    async with (
        serve(config, FILES) as serving,
        chromium.tab(browser, serving.http("/-/dashboard")) as page,
    ):
        told = "The server is not ready: the lifespan of channel 'mayfly' has ended."
        await page.get_by_role("alert").filter(has_text=told).wait_for()
        assert await tile(page, "Server").inner_text() == "Not ready"


async def test_engine(serve: Serve, browser: Browser, tmp_path: Path) -> None:
    """What keeps the messages is named, and whether it is there, and what has gone wrong with it."""
    from playwright.async_api import expect

    async with (
        redis_server(tmp_path) as redis,
        serve(f"bus: {{engine: redis, url: '{redis.url}'}}\n{textwrap.dedent(CONFIG)}", FILES) as serving,
        chromium.tab(browser, serving.http("/-/dashboard")) as page,
    ):
        await expect(page.locator("#engine")).to_have_text(
            f"Engine redis: up · process {serving.server.bus.engine.node} · 0 messages fetched from its log"
        )
        await redis.kill()
        await expect(page.locator("#engine")).to_contain_text(" · Redis is away: ")
        await expect(page.get_by_role("alert")).to_contain_text(
            "The server is not ready: the engine redis: "
        )
        await page.get_by_role("listitem").filter(has_text="engine: connections to it lost").wait_for()
        assert await tile(page, "Server").inner_text() == "Not ready"


async def test_engine_that_is_full(serve: Serve, browser: Browser, tmp_path: Path) -> None:
    """An engine that takes nothing is not called away; what it says itself ends with one full stop."""
    from playwright.async_api import expect

    async with (
        redis_server(tmp_path) as redis,
        serve(f"bus: {{engine: redis, url: '{redis.url}'}}\n{textwrap.dedent(CONFIG)}", FILES) as serving,
        chromium.tab(browser, serving.http("/-/dashboard")) as page,
    ):
        await redis.command("CONFIG", "SET", "maxmemory", "1")
        await expect(page.locator("#engine")).to_contain_text(" · Redis takes nothing: ")
        await expect(page.get_by_role("alert")).to_have_text(re.compile(r"[^.]\.$"))


async def test_memory_is_no_news(watched: Watched) -> None:
    """Where the process itself keeps the messages there is nothing to be said of it."""
    assert not await watched.page.locator("#engine").is_visible()


# Whom it shows nothing


async def test_token_is_asked_for(serve: Serve, browser: Browser) -> None:
    """Who may not see the numbers is told so, gives a token, and sees them, also after a reload."""
    config = f"""
    server: {{listen: ["127.0.0.1:0"], watchdog: off, inspect: scope:operator}}
    {AUTH}
    channels: {{lobby: {{plugin: chat, path: /chat}}}}
    """
    async with serve(config) as serving, tab(browser, serving.http("/-/dashboard")) as one:
        page = one.page
        await page.get_by_role("heading", name="The numbers are not for everybody").wait_for()
        assert not await page.locator(".tile").first.is_visible()
        await page.get_by_label("Token").fill(token(scope="reader"))
        await page.get_by_role("button", name="Show the numbers").click()
        await page.get_by_text("This token does not do").wait_for()
        await page.get_by_label("Token").fill(token(scope="operator"))
        await page.get_by_role("button", name="Show the numbers").click()
        await pill(page, "Live").wait_for()
        await page.reload()
        await pill(page, "Live").wait_for()
        await page.get_by_text("Nobody is connected.").wait_for()
        assert one.uncaught == []


# When it is cut


async def test_clock_that_is_set_back(
    serve: Serve, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the server's clock is set back the plots go on from there, and draw nothing beyond their end."""
    clock = SimpleNamespace(time=time.time, perf_counter=time.perf_counter, process_time=time.process_time)
    monkeypatch.setattr(stats, "time", clock)
    async with serve(CONFIG, FILES) as serving:
        history = serving.server.watching.stats.history
        async with chromium.tab(browser, serving.http("/-/dashboard")) as page:
            line = page.locator("#plots .line").first
            await page.locator("#plots .line[d*=L]").first.wait_for(state="attached")
            clock.time = lambda: time.time() - 3600
            await eventually(lambda: history[-1]["time"] < time.time() - 1800)
            async with websocket(serving.port, "/chat?name=ann"):
                await tile(page, "Clients").filter(has_text="1").wait_for()
                drawn = str(await line.get_attribute("d"))
                width = int(await page.locator("#plots svg").first.get_attribute("width") or 0)
    assert max(float(point.split()[0]) for point in re.split("[ML]", drawn)[1:]) <= width


async def test_cut_and_back(browser: Browser, tmp_path: Path) -> None:
    """When the server is away the page says since when, dims the numbers, and goes on when it is back."""
    port = closed_port()
    config = CONFIG.replace("127.0.0.1:0", f"127.0.0.1:{port}")
    first = make(tmp_path, config, FILES)
    await first.start()
    async with tab(browser, f"http://127.0.0.1:{port}/-/dashboard") as one:
        page = one.page
        await pill(page, "Live").wait_for()
        await first.stop()
        await page.get_by_text(re.compile(r"^No data for \d+ s, ")).wait_for()
        assert await page.locator(".tile dd").first.evaluate("one => +getComputedStyle(one).opacity < 1")
        async with make(tmp_path, config, FILES), websocket(port, "/chat?name=ann"):
            await cut(page)
            await pill(page, "Live").wait_for()
            await page.locator("#old").wait_for(state="hidden")
            await tile(page, "Clients").filter(has_text="1").wait_for()
        assert one.uncaught == []
