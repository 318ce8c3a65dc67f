"""Somebody has the URL, and a browser: they chat, see recovery, and read the state of the server."""

from __future__ import annotations

import json
import re

import needs
from chromium import browser, tab
from people import CAUGHT_UP, Person
from playwright.async_api import expect

from acceptance.world import COUNT, NAMES, Home, started


async def fetched(home: Home, url: str, *options: str) -> str:
    """What curl shows of a URL."""
    async with started(needs.curl(), "-sf", *options, url, cwd=home.directory) as process:
        assert await process.ended() == 0
        return process.text


def sample(metrics: str, name: str, **labels: str) -> float:
    """The sum of the samples of a metric that have these labels, in the format of Prometheus."""
    found = [
        float(value)
        for sampled, value in re.findall(rf"(?m)^{name}(?:\{{(.*)\}})? (\S+)$", metrics)
        if all(f'{label}="{wanted}"' in sampled for label, wanted in labels.items())
    ]
    assert found, f"no {name} with {labels} in:\n{metrics}"
    return sum(found)


async def test_with_the_url_alone(home: Home) -> None:
    """From the front page two come into the chat, one is cut off and misses nothing, and all is counted."""
    first, second, _ = NAMES
    async with (
        browser() as chromium,
        home.serving() as address,
        tab(chromium, f"http://{address}/") as page,
        tab(chromium, f"http://{address}/") as other,
    ):
        one, two = Person(page, first), Person(other, second)
        for somebody in (one, two):
            await somebody.page.get_by_role("link", name="Open lobby").click()
            await somebody.join()
        for somebody in (one, two):
            await somebody.see_people(first, second)
        await one.say("before")
        await two.see("before")
        await one.cut()
        await two.say(*(f"meanwhile {number}" for number in range(COUNT)))
        await one.press("Come back now")
        await one.see(CAUGHT_UP, f"meanwhile {COUNT - 1}")
        assert await one.seen(r"before|meanwhile \d+") == [
            "before",
            *(f"meanwhile {number}" for number in range(COUNT)),
        ]

        stats = json.loads(await fetched(home, f"http://{address}/-/stats"))
        lobby = stats["channels"]["lobby"]
        assert lobby["clients"] == {"websocket": 2, "sse": 0, "ndjson": 0}
        assert lobby["received"] == COUNT + 1

        metrics = await fetched(home, f"http://{address}/-/metrics")
        assert sample(metrics, "realtime_clients", channel="lobby", transport="websocket") == 2
        assert sample(metrics, "realtime_messages_received_total", channel="lobby") == COUNT + 1

        await page.goto(f"http://{address}/")
        await page.get_by_role("link", name="Dashboard").first.click()
        await expect(page).to_have_title(re.compile("Dashboard"))
        await page.get_by_text("lobby").first.wait_for()
        await page.get_by_text(second).first.wait_for()
