"""What stands around every channel's page: its state, cut and back, the wire, use from elsewhere."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import chromium
import pytest
import pytest_asyncio
from conftest import Serve
from tokenmaker import AUTH, token
from wire import ask

import realtime
from realtime.message import Message, Position

if TYPE_CHECKING:
    from playwright.async_api import Browser, Locator, Page

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILES = {
    "kinds.py": '''
        from realtime import Channel, hookimpl

        class Room(Channel):
            """What is said comes to everybody."""

            async def on_message(self, client, message):
                return await self.publish(client.topic, message.data, event=message.event)

        class Drawn(Room):
            page = "drawn.js"

        class Broken(Room):
            page = "broken.js"

        @hookimpl
        def register_channels():
            return {"room": Room, "drawn": Drawn, "broken": Broken}
    ''',
    "drawn.js": """
        export default function (page) {
          page.root.textContent = `drawn: ${page.facts.topic}`;
          page.connect({ since: "earliest" });
          page.say("a notice");
        }
    """,
    "drawn.css": "main { letter-spacing: 3px }",
    "broken.js": "export default function (page) {",
}
CONFIG = """
    server: {listen: ["127.0.0.1:0"]}
    plugins: [kinds]
    channels:
      room: {plugin: room, path: /room, history: 100}
      short: {plugin: room, path: /short, lag: 1ms, lag_bytes: 1KiB, history: 3, overflow: skip}
      drawn: {plugin: drawn, path: /drawn}
      broken: {plugin: broken, path: /broken}
      lobby: {plugin: chat, path: /chat}
      clock: {plugin: clock, path: /events}
      echo: {plugin: echo, path: /ws}
      shut: {plugin: room, path: /shut, allow: {subscribe: nobody}}
      full: {plugin: room, path: /full, limits: {max_clients: 0}}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all of these tests."""
    async with chromium.browser() as one:
        yield one


def button(page: Page, name: str) -> Locator:
    """The button of a name."""
    return page.get_by_role("button", name=name)


async def live(page: Page) -> None:
    """Wait until the page says that it is live."""
    from playwright.async_api import expect

    await expect(page.get_by_role("status")).to_contain_text("Live over ")


@pytest.mark.parametrize(("path", "over"), [("/room", "WebSocket"), ("/events", "WebSocket")])
async def test_status(serve: Serve, browser: Browser, path: str, over: str) -> None:
    """It says that it is live, and over what."""
    from playwright.async_api import expect

    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http(path)) as page:
        await expect(page.get_by_role("status")).to_have_text(f"Live over {over}")


async def test_refused(serve: Serve, browser: Browser) -> None:
    """Whoever may not read is told the server's sentence."""
    from playwright.async_api import expect

    async with serve(CONFIG, FILES) as serving:
        page = await browser.new_page()
        await page.goto(serving.http("/shut"))
        await expect(page.get_by_role("status")).to_contain_text("Closed: who may subscribe here: nobody")
        await expect(button(page, "Cut my connection")).to_be_disabled()
        await page.close()


# Cut, and back


async def test_cut_and_back(serve: Serve, browser: Browser) -> None:
    """Cut, it stays away, counts down, and when it is back says how much it has recovered."""
    from playwright.async_api import expect

    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/room")) as page:
        await live(page)
        await button(page, "Cut my connection").click()
        await expect(page.get_by_role("status")).to_contain_text("back in ")
        for text in ("one", "two"):
            await serving.server.channels["room"].publish("room", text)
        await button(page, "Come back now").click()
        await page.get_by_text("Recovered 2 messages. Nothing was missed.").wait_for()
        # It is said by the clock, and the rows are drawn with the next frame.
        recovered = page.locator(".frame", has_text="recovered").filter(has_text="message")
        await expect(recovered).to_have_count(2)
        await expect(page.locator(".frame", has_text="two")).to_have_count(1)


async def test_back_by_itself(serve: Serve, browser: Browser) -> None:
    """Nobody has to press anything: after some seconds it is back."""
    async with serve(CONFIG, FILES) as serving:
        page = await browser.new_page()
        await page.clock.install()
        await page.goto(serving.http("/room"))
        await live(page)
        await button(page, "Cut my connection").click()
        await button(page, "Come back now").wait_for()
        await page.clock.run_for(11_000)
        await live(page)
        await page.close()


async def test_clock_that_is_wrong(serve: Serve, browser: Browser) -> None:
    """A browser whose clock is an hour ahead knows what was recovered, and what came after."""
    async with serve(CONFIG, FILES) as serving:
        page = await browser.new_page()
        await page.clock.install(time=datetime.now(UTC) + timedelta(hours=1))
        await page.goto(serving.http("/room"))
        await live(page)
        await button(page, "Cut my connection").click()
        await button(page, "Come back now").wait_for()
        channel = serving.server.channels["room"]
        await channel.publish("room", "old")
        await button(page, "Come back now").click()
        await live(page)
        await channel.publish("room", "new")
        await page.locator(".frame.in", has_text="new").wait_for()
        rows = await page.locator(".frame.in .what").all_inner_texts()
        assert [row.split() for row in rows] == [["messageoldrecovered"], ["messagenew"]]
        await page.close()


async def test_missed(serve: Serve, browser: Browser) -> None:
    """What the server no longer keeps is said to be missed, with its number."""
    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/short")) as page:
        await live(page)
        channel = serving.server.channels["short"]
        await channel.publish("short", "seen")
        await page.locator(".frame", has_text="seen").wait_for()
        await button(page, "Cut my connection").click()
        await button(page, "Come back now").wait_for()
        for number in range(100):
            await channel.publish("short", f"{number} {'x' * 100}")
        await button(page, "Come back now").click()
        # What is recovered may come bit by bit, and is summed up as often.
        await page.locator(".frame", has_text="99 x").wait_for()
        recovered = await page.locator(".frame .tag").count()
        told = f"{100 - recovered} messages missed, which the server no longer keeps; then {recovered} "
        await page.get_by_text(told).wait_for()


async def test_cut_by_keyboard(serve: Serve, browser: Browser) -> None:
    """Whoever has pressed the one button by keyboard stands on the other."""
    from playwright.async_api import expect

    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/room")) as page:
        await live(page)
        await button(page, "Cut my connection").press("Enter")
        await expect(button(page, "Come back now")).to_be_focused()
        await page.keyboard.press("Enter")
        await live(page)
        await expect(button(page, "Cut my connection")).to_be_focused()


# The wire


async def test_wire(serve: Serve, browser: Browser) -> None:
    """It shows what comes in with its event and position, and the welcome as the server's own."""
    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/room")) as page:
        await live(page)
        position = await serving.server.channels["room"].publish("room", {"a": "<b>"}, event="score")
        row = page.locator(".frame.in")
        await row.wait_for()
        assert await row.locator(".event").inner_text() == "score"
        assert await row.locator(".data").inner_text() == '{"a": "<b>"}'
        assert await row.locator(".id").inner_text() == str(position)
        assert await page.locator(".frame.host .event").inner_text() == "realtime:welcome"


async def test_wire_is_bounded(serve: Serve, browser: Browser) -> None:
    """It keeps the last few hundred rows, however much comes."""
    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/room")) as page:
        await live(page)
        for number in range(500):
            await serving.server.channels["room"].publish("room", f"number {number}")
        await page.locator(".frame", has_text="number 499").wait_for()
        assert await page.locator(".frame").count() == 300


async def test_wire_is_read_at_its_end(serve: Serve, browser: Browser) -> None:
    """Who reads the newest goes on, in a narrower window too; who reads something older is left there."""
    from playwright.async_api import expect

    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/room")) as page:
        await page.set_viewport_size({"width": 1280, "height": 2000})
        await live(page)
        channel = serving.server.channels["room"]
        for number in range(40):
            await channel.publish("room", f"number {number} {'and more ' * 12}")
        last, rows = page.locator(".frame", has_text="number 39 "), page.locator("#rows")
        await expect(last).to_be_in_viewport()
        await page.set_viewport_size({"width": 390, "height": 2000})
        await expect(last).to_be_in_viewport()
        await rows.evaluate("(rows) => rows.scrollTo(0, 0)")
        await expect(page.locator(".frame.host").first).to_be_in_viewport()
        await channel.publish("room", "one more")
        await page.locator(".frame", has_text="one more").wait_for()
        await expect(page.locator(".frame.host").first).to_be_in_viewport()


@pytest.mark.parametrize("touch", [True, False])
async def test_resume_can_be_seen(serve: Serve, browser: Browser, touch: bool) -> None:
    """Where there is no pointer to show it with, the way to resume is seen; else when it has the focus."""
    async with (
        serve(CONFIG, FILES) as serving,
        chromium.tab(browser, serving.http("/room"), has_touch=touch, is_mobile=touch) as page,
    ):
        await live(page)
        await serving.server.channels["room"].publish("room", "hi")
        resume = button(page, "Resume from here")
        opacity = "one => getComputedStyle(one).opacity"
        assert await resume.evaluate(opacity) == ("1" if touch else "0")
        await resume.focus()
        assert await resume.evaluate(opacity) == "1"


@pytest.mark.parametrize(
    ("media", "is_so"),
    [
        ({"media": "print", "color_scheme": "dark"}, "color(body) === 'rgb(22, 26, 34)' && whole(rows)"),
        ({"forced_colors": "active"}, "border(tabs[0]) !== border(tabs[1]) && color(tabs[0]) !== ''"),
        ({"reduced_motion": "reduce"}, "!document.getAnimations().length"),
    ],
)
async def test_media(serve: Serve, browser: Browser, media: dict[str, str], is_so: str) -> None:
    """On paper it is dark and whole; with a reader's own colours the chosen tab is seen; all is still."""
    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/room")) as page:
        await live(page)
        for number in range(40):
            await serving.server.channels["room"].publish("room", f"number {number}")
        await page.locator(".frame", has_text="number 39").wait_for()
        await page.emulate_media(**media)  # type: ignore[arg-type]
        assert await page.evaluate(
            f"""() => {{
                const {{ body }} = document, rows = document.getElementById("rows");
                const tabs = document.querySelectorAll("[role=tab]");
                const color = (one) => getComputedStyle(one).color;
                const border = (one) => getComputedStyle(one).borderBottomColor;
                const whole = (one) => one.scrollHeight <= one.clientHeight + 1;
                return {is_so};
            }}"""
        )


async def test_resume_from_here(serve: Serve, browser: Browser) -> None:
    """From a position on all comes again, and it is said how that was met."""
    from playwright.async_api import expect

    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/room")) as page:
        await live(page)
        for text in ("first", "second", "third"):
            await serving.server.channels["room"].publish("room", text)
        await page.locator(".frame", has_text="third").wait_for()
        await page.locator(".frame", has_text="first").get_by_role("button").click()
        await page.get_by_text("Recovered 2 messages.").wait_for()
        for text, times in (("first", 1), ("second", 2)):  # they are drawn with the next frame
            await expect(page.locator(".frame", has_text=text)).to_have_count(times)


# Pages of a channel's own


async def test_module_draws(serve: Serve, browser: Browser) -> None:
    """A module of the channel's own draws the page and connects it; its style is used."""
    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/drawn")) as page:
        await live(page)
        main = page.get_by_role("main")
        assert await main.inner_text() == "drawn: drawn"
        assert await main.evaluate("main => getComputedStyle(main).letterSpacing") == "3px"
        assert await page.locator("#notice").inner_text() == "a notice"
        assert not await page.locator("#rows").is_visible()


async def test_module_that_is_broken(serve: Serve, browser: Browser) -> None:
    """Of a module that cannot be loaded the page says so."""
    from playwright.async_api import expect

    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/broken")) as page:
        await expect(page.get_by_role("status")).to_contain_text("could not be loaded")


async def test_module_that_connects_again(serve: Serve, browser: Browser) -> None:
    """Of the connection that another one replaces the page says nothing any more."""
    files = {**FILES, "drawn.js": "export default (page) => { page.connect(); page.connect(); };"}
    async with serve(CONFIG, files) as serving, chromium.tab(browser, serving.http("/drawn")) as page:
        await live(page)
        await page.get_by_text("What goes over the wire").click()
        assert await page.locator(".frame .event").all_inner_texts() == ["realtime:welcome"]


# With a token

LOCKED = f"""
    server: {{listen: ["127.0.0.1:0"]}}
    {AUTH}
    plugins: [kinds]
    channels:
      room: {{plugin: room, path: /room, allow: {{subscribe: authenticated, publish: authenticated}}}}
      said: {{plugin: room, path: /said, allow: {{publish: authenticated}}}}
"""


async def give(page: Page, secret: str) -> None:
    """Fill a token in where the page asks for one; it begins anew."""
    await page.get_by_label("Token").fill(secret)
    async with page.expect_event("domcontentloaded"):
        await button(page, "Use it").click()


async def test_token_is_asked_for(serve: Serve, browser: Browser) -> None:
    """Who is refused is asked for a token; a wrong one is told, a right one lets in, everywhere."""
    async with serve(LOCKED, FILES) as serving:
        page = await browser.new_page()
        await page.goto(serving.http("/room"))
        denial = page.get_by_role("alert")
        await denial.filter(has_text="authenticated").wait_for()
        await give(page, token(key="another key, of which nobody knows"))
        await denial.filter(has_text="signature").wait_for()
        await give(page, token())
        await live(page)
        assert not await page.get_by_label("Token").is_visible()
        assert page.url == serving.http("/room")
        await page.goto(serving.http("/said"))
        await page.get_by_role("textbox", name="Message").fill("hi")
        await page.get_by_label("Send over").select_option("A POST")
        await button(page, "Send").click()
        await page.get_by_text("Published as ").wait_for()
        await page.close()


async def test_token_is_forgotten(serve: Serve, browser: Browser) -> None:
    """Whose token is no good any more goes on without one where none is needed."""
    async with serve(LOCKED, FILES) as serving:
        page = await browser.new_page()
        await page.goto(serving.http("/room"))
        await give(page, "nonsense")
        await page.get_by_role("alert").filter(has_text="token").wait_for()
        await page.goto(serving.http("/said"))
        await live(page)
        await page.close()


@pytest.mark.parametrize("way", ["This connection", "A POST"])
async def test_token_to_publish(serve: Serve, browser: Browser, way: str) -> None:
    """Who may read, but not say anything, is asked for a token when a message is refused."""
    async with serve(LOCKED, FILES) as serving:
        page = await browser.new_page()
        await page.goto(serving.http("/said"))
        await live(page)
        await page.get_by_label("Send over").select_option(way)
        for what in ("Not sent: ", "Published as "):
            await page.get_by_role("textbox", name="Message").fill("hi")
            await button(page, "Send").click()
            await page.get_by_text(what).wait_for()
            if what == "Not sent: ":
                await give(page, token())
                await live(page)
                await page.get_by_label("Send over").select_option(way)
        await page.close()


async def test_token_that_expires(serve: Serve, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a token expires another one is asked for, which takes the place of the one in the URL."""
    async with serve(LOCKED, FILES) as serving:
        # By a clock of the test: it stands a moment before the end until the page is there.
        ends, clock = int(time.time()) + 30, [0.0]
        monkeypatch.setattr(serving.server.bus, "wall_time", lambda: ends - 0.2 + clock[0])
        page = await browser.new_page()
        await page.goto(serving.http(f"/room?token={token(exp=ends)}"))
        await live(page)
        clock[0] = 1.0
        await page.get_by_role("alert").filter(has_text="expired").wait_for()
        await give(page, token())
        await live(page)
        assert page.url == serving.http("/room")
        await page.close()


# From elsewhere


async def shown(page: Page, language: str) -> str:
    """What the tab of a language has."""
    await page.get_by_role("tab", name=language).click()
    return await page.get_by_role("tabpanel").inner_text()


@pytest.mark.parametrize("path", ["/room", "/chat", "/ws", "/events"])
async def test_javascript_works(serve: Serve, browser: Browser, path: str) -> None:
    """What is to be copied runs in a page, and prints what comes."""
    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http(path)) as page:
        program = await shown(page, "JavaScript")
        context = await browser.new_context(bypass_csp=True)
        other = await context.new_page()
        await other.goto(serving.http("/"))
        async with other.expect_console_message(lambda said: said.text.startswith("message ")) as said:
            await other.add_script_tag(content=program, type="module")
        text = (await said.value).text
        assert "hi" in text or "Current time: " in text or path == "/chat"
        await context.close()


@pytest.mark.parametrize("path", ["/room", "/chat", "/ws", "/events"])
async def test_python_works(serve: Serve, browser: Browser, tmp_path: Path, path: str) -> None:
    """What is to be copied runs, and prints what comes."""
    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http(path)) as page:
        program = await shown(page, "Python")
        root = Path(realtime.__file__).parents[1]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", "-c", program),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        assert process.stdout is not None
        async with asyncio.timeout(chromium.PATIENCE):  # it has to start, too
            while not (line := await process.stdout.readline()).startswith(b"message "):
                assert line
        assert b"hi" in line or b"Current time: " in line
        process.kill()
        await process.wait()


async def test_tabs_by_keyboard(serve: Serve, browser: Browser) -> None:
    """The arrows go from tab to tab, and around."""
    from playwright.async_api import expect

    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/room")) as page:
        await page.get_by_role("tab", name="Shell").focus()
        for key, name in (("ArrowRight", "JavaScript"), ("ArrowLeft", "Shell"), ("ArrowLeft", "Python")):
            await page.keyboard.press(key)
            await expect(page.get_by_role("tab", name=name)).to_be_focused()
            assert await page.get_by_role("tab", selected=True).inner_text() == name


async def test_copy(serve: Serve, browser: Browser) -> None:
    """What is shown is copied."""
    async with serve(CONFIG, FILES) as serving:
        context = await browser.new_context(permissions=["clipboard-read", "clipboard-write"])
        page = await context.new_page()
        await page.goto(serving.http("/room"))
        program = await page.get_by_role("tabpanel").inner_text()
        await button(page, "Copy").click()
        await button(page, "Copied").wait_for()
        assert await page.evaluate("navigator.clipboard.readText()") == program
        await context.close()


async def test_without_scripts(serve: Serve, browser: Browser) -> None:
    """Who has no JavaScript reads what the channel is, and how to use it with curl."""
    async with serve(CONFIG, FILES) as serving:
        context = await browser.new_context(java_script_enabled=False)
        page = await context.new_page()
        await page.goto(serving.http("/room"))
        assert await page.get_by_text("What is said comes to everybody.").is_visible()
        assert await page.get_by_text(f"curl -d hi {serving.http('/room')}").is_visible()
        assert await page.get_by_role("status").inner_text() == "Not live"
        assert not await button(page, "Cut my connection").is_visible()
        await context.close()


async def test_page_of_a_channel_is_no_stranger(serve: Serve) -> None:
    """The page is served to whom the channel's list is: to see it nobody needs a token."""
    async with serve(CONFIG, FILES) as serving:
        head, _ = await ask(serving.port, "/shut", [("Accept", "text/html")])
    assert head.status == 200


async def test_loss_is_remarked(serve: Serve, browser: Browser) -> None:
    """Where it was recovered is not said any more of a connection that has been lost since."""
    from playwright.async_api import expect

    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/room")) as page:
        await page.get_by_text("Live over WebSocket").wait_for()
        for connection in serving.server.connections:
            connection.cut()
        await expect(page.locator("#outcome")).to_contain_text("The connection is lost")


async def test_who_is_not_in_yet_is_told_why(serve: Serve, browser: Browser) -> None:
    """Of a connection that never stood it is said why there is none, and not that it is lost."""
    from playwright.async_api import expect

    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/full"), "503") as page:
        why = "The channel is full (limits.max_clients)."
        await expect(page.locator("#outcome")).to_have_text(f"{why} It is tried again by itself.")


# An engine that is away


def away(reason: str = "nothing is kept now") -> Message:
    """What everybody is told while the engine is away."""
    return Message.of({"reason": reason}, event="realtime:degraded", time=1.0)


async def test_engine_that_is_away(serve: Serve, browser: Browser) -> None:
    """Who is connected stays so, and is told that nothing is taken, and why; then that it is again."""
    from playwright.async_api import expect

    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/room")) as page:
        await live(page)
        bus = serving.server.bus
        await bus.tell(away(), lasting=True)
        await expect(page.get_by_role("status")).to_have_text("Live, read only")
        await expect(page.locator("#notice")).to_have_text("Nothing is kept now.")
        await expect(page.locator("#outcome")).to_contain_text("Nothing is kept now. You stay connected")
        assert await button(page, "Cut my connection").is_enabled()
        await bus.tell(Message.of({}, event="realtime:restored", time=2.0))
        await expect(page.get_by_role("status")).to_have_text("Live over WebSocket")
        await expect(page.locator("#outcome")).to_have_text("The server takes messages again.")


async def test_channel_that_only_speaks_is_on_hold(serve: Serve, browser: Browser) -> None:
    """Where nobody has anything to say, it is not called read only."""
    from playwright.async_api import expect

    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/events")) as page:
        await live(page)
        await serving.server.bus.tell(away(), lasting=True)
        await expect(page.get_by_role("status")).to_have_text("Live, on hold")


async def test_page_that_is_opened_while_the_engine_is_away(serve: Serve, browser: Browser) -> None:
    """Who comes meanwhile is told, too."""
    from playwright.async_api import expect

    async with serve(CONFIG, FILES) as serving:
        await serving.server.bus.tell(away(), lasting=True)
        async with chromium.tab(browser, serving.http("/room")) as page:
            await expect(page.get_by_role("status")).to_have_text("Live, read only")


async def test_loss_while_it_is_live(serve: Serve, browser: Browser) -> None:
    """What an engine has lost is said while the connection stands, and not again when it comes back."""
    from playwright.async_api import expect

    async with serve(CONFIG, FILES) as serving, chromium.tab(browser, serving.http("/room")) as page:
        await live(page)
        topic, outcome = serving.server.bus.topic("room"), page.locator("#outcome")
        topic.skip(topic.head + 7)
        await expect(outcome).to_have_text("7 messages missed, which the server has lost.")
        topic.restore(Position("0ff0ff00", 3), [])
        await expect(outcome).to_contain_text("The server has lost what was said before")
        await button(page, "Cut my connection").click()
        await button(page, "Come back now").click()
        await expect(outcome).to_have_text("Nothing was said meanwhile, so nothing was missed.")
