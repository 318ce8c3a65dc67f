"""Plots, in a browser: their axes, lines and gaps, the second that is looked at, and what is read aloud."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import chromium
import pytest
import pytest_asyncio
from conftest import Serving, make
from tabs import Tab, tab

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: A plot of two series, of samples that it is given; ``paths()`` are its lines, with a run for each M.
SETUP = """
  const element = document.createElement("figure");
  document.body.replaceChildren(element);
  window.looked = [];
  window.plot = new plots.Plot(element, {
    title: "Messages",
    series: [
      { name: "in", value: (sample) => sample.in },
      { name: "out", value: (sample) => sample.out },
    ],
    onpoint: (time) => looked.push(time),
    ...options,
  });
  window.paths = () => [...element.querySelectorAll(".line")].map((path) => path.getAttribute("d") ?? "");
  window.texts = (selector) => [...element.querySelectorAll(selector)].map((node) => node.textContent);
  window.picture = element.querySelector("svg");
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all of these tests."""
    async with chromium.browser() as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tab]:
    """A tab for all of them, with the module as ``plots``; nothing that went wrong was left uncaught."""
    config = "channels: {echo: {plugin: echo, path: /ws}}"
    async with (
        make(tmp_path_factory.mktemp("plot"), config) as server,
        tab(browser, Serving(server).http("/-/live")) as one,
    ):
        await one.run("import('/-/plot.js').then((module) => void (window.plots = module))")
        yield one
        assert one.uncaught == []


async def drawn(page: Tab, samples: list[Any], now: float, options: str = "{}") -> None:
    """Make a plot and have it show the samples, each a time and the two values."""
    rows = [dict(zip(("time", "in", "out"), sample, strict=True)) for sample in samples]
    await page.page.evaluate(
        f"([rows, now]) => {{ const options = {options}; {SETUP} plot.draw(rows, now); }}", [rows, now]
    )
    await page.until("texts('.grid text').length > 0")


@pytest.mark.parametrize(
    ("call", "written"),
    [
        ("count(0)", "0"),
        ("count(0.4)", "0.4"),
        ("count(999)", "999"),
        ("count(999.6)", "1.00 k"),
        ("count(1234)", "1.23 k"),
        ("count(45678901)", "45.7 M"),
        ("bytes(0)", "0 B"),
        ("bytes(1023)", "1023 B"),
        ("bytes(340 * 2 ** 20)", "340 MiB"),
        ("bytes(1.5 * 2 ** 30)", "1.50 GiB"),
        ("seconds(0)", "0 ms"),
        ("seconds(0.0008)", "0.80 ms"),
        ("seconds(0.0123)", "12.3 ms"),
        ("seconds(2.5)", "2.50 s"),
        ("seconds(0.000001)", "< 0.01 ms"),
        ("share(0.123)", "12 %"),
        ("share(0.0123)", "1.2 %"),
        ("share(0.000412)", "0.041 %"),
        ("share(0.0000001)", "< 0.001 %"),
        ("duration(59)", "59 s"),
        ("duration(3661)", "1 h 1 min"),
        ("duration(93784)", "1 d 2 h"),
        ("count(null)", "\u2013"),
        ("seconds(undefined)", "\u2013"),
    ],
)
async def test_number_is_written(page: Tab, call: str, written: str) -> None:
    """A number has the digits that count, and a unit of the SI."""
    assert await page.run(f"plots.{call}") == written


@pytest.mark.parametrize(
    ("call", "lines"),
    [
        ("ticks(7)", [0, 2, 4, 6, 8]),
        ("ticks(95)", [0, 20, 40, 60, 80, 100]),
        ("ticks(0, { least: 4, whole: true })", [0, 1, 2, 3, 4]),
        ("ticks(2, { whole: true })", [0, 1, 2]),
        ("ticks(340, { binary: true })", [0, 128, 256, 384]),
        ("decades([0.003, 0.02], 0.001)", [0.001, 0.01, 0.1]),
        ("decades([5, 20000], 1)", [1, 10, 100, 1000, 10000, 100000]),
    ],
)
async def test_axis_has_round_numbers(page: Tab, call: str, lines: list[float]) -> None:
    """The lines of an axis are at round numbers that hold everything, and they are few."""
    assert await page.run(f"plots.{call}") == pytest.approx(lines)


async def test_axis_is_labelled(page: Tab) -> None:
    """An axis has its numbers, with no digits but those that count, and the minutes."""
    await drawn(page, [(700, 10, 1500), (1000, 10, 1500), (1001, 10, 1900)], 1001)
    labels = await page.run("texts('.grid text')")
    assert labels[:5] == ["0", "500", "1 k", "1.5 k", "2 k"]
    assert all(len(label) == 5 and label[2] == ":" for label in labels[5:])


@pytest.mark.parametrize(
    ("first", "said", "part"), [(990, "20 seconds", 0.5), (940, "60 seconds", 0), (790, "4 minutes", 0)]
)
async def test_window_grows(page: Tab, first: int, said: str, part: float) -> None:
    """Shown is what there is, and twenty seconds at least: what has just begun fills its plot."""
    await drawn(page, [(first, 1, 2), (1000, 1, 2)], 1000)
    assert f", the last {said}." in await page.run("picture.getAttribute('aria-label')")
    x, width = await page.run(
        "[Number(/M([\\d.]+)/.exec(paths()[0])[1]), Number(picture.getAttribute('width'))]"
    )
    assert x == pytest.approx(52 + part * (width - 52 - 6), abs=0.1)


async def test_logarithmic_axis_says_what_is_below(page: Tab) -> None:
    """What is far less than usual is no reason for further decades: it lies at the end, which says so."""
    await drawn(page, [(100, 0.002, 0), (101, 0.03, 0.00001)], 101, "{ log: 0.001, format: plots.seconds }")
    assert (await page.run("texts('.grid text')"))[:4] == ["\u2264 0.1 ms", "1 ms", "10 ms", "100 ms"]


async def test_gap_stays_a_gap(page: Tab) -> None:
    """Seconds without data, or without a value, are no line: it goes on after them."""
    seconds = [(time, 1, None if time == 110 else 2) for time in range(100, 121) if not 103 < time < 107]
    await drawn(page, seconds, 120)
    assert await page.run("paths().map((path) => path.split('M').length - 1)") == [2, 3]


async def test_one_second_alone_is_a_dot(page: Tab) -> None:
    """A second with nothing around it can be seen all the same."""
    await drawn(page, [(100, 5, None)], 100)
    assert [path.endswith("h0") for path in await page.run("paths()")] == [True, False]


async def test_stack_is_piled_up(page: Tab) -> None:
    """What is stacked is drawn upon each other, and the axis holds the sum."""
    await drawn(page, [(100, 30, 60), (101, 30, 60)], 101, "{ stacked: true }")
    assert (await page.run("texts('.grid text')"))[5] == "100"
    lower, upper = [float(path.split()[1].partition("L")[0]) for path in await page.run("paths()")]
    bottom = 150 - 20
    assert bottom - upper == pytest.approx(3 * (bottom - lower), abs=0.5)


async def test_legend_has_the_newest(page: Tab) -> None:
    """Without a second that is looked at the newest values are told."""
    await drawn(page, [(100, 1, 2), (101, 1500, None)], 101)
    assert await page.run("texts('.legend b')") == ["1.50 k", "\u2013"]


async def test_pointer_shows_a_second(page: Tab) -> None:
    """The pointer shows the values of the second it is at, and the time; elsewhere the newest again."""
    await drawn(page, [(100, 1, 2), (250, 3, 4), (400, 5, 6)], 400, "{ span: 300 }")
    box = await page.page.locator("figure svg").last.bounding_box()
    assert box is not None
    await page.page.mouse.move(box["x"] + 52 + (box["width"] - 58) / 2, box["y"] + 50)
    assert await page.run("[texts('.legend b'), texts('.when')[0].length, looked.at(-1)]") == [
        ["3", "4"],
        8,
        250,
    ]
    assert await page.run("texts('.cross *').length") == 3
    await page.page.mouse.move(box["x"] + 10, box["y"] + 400)
    assert await page.run("[texts('.legend b'), texts('.when')[0], looked.at(-1)]") == [
        ["5", "6"],
        "",
        None,
    ]


async def test_pointer_in_a_gap(page: Tab) -> None:
    """Where there was no data the pointer shows none, rather than what is elsewhere."""
    await drawn(page, [(100, 1, 2), (400, 5, 6)], 400)
    await page.run("plot.point(250)")
    assert await page.run("[texts('.legend b'), texts('.cross *').length]") == [["\u2013", "\u2013"], 1]


async def test_keys_show_a_second(page: Tab) -> None:
    """With the keyboard one goes through the seconds, and each is read aloud."""
    await drawn(page, [(100, 1, 2), (101, 3, 4), (102, 5, 6)], 102)
    await page.run("picture.focus()")
    told = []
    for key in ("ArrowLeft", "ArrowLeft", "ArrowRight", "Home"):
        await page.page.keyboard.press(key)
        told.append(await page.run("texts('[aria-live]')[0].split(': ')[1]"))
    assert told == ["in 5, out 6", "in 3, out 4", "in 5, out 6", "in 1, out 2"]
    await page.page.keyboard.press("Escape")
    assert await page.run("[looked.at(-1), texts('.cross *').length]") == [None, 0]


async def test_text_alternative(page: Tab) -> None:
    """Who does not see the plot is told the newest, the least and the most."""
    await drawn(page, [(100, 1, None), (101, 9, None), (102, 4, None)], 102)
    assert await page.run("[picture.getAttribute('role'), picture.getAttribute('aria-label')]") == [
        "img",
        "Messages, the last 20 seconds. in: now 4, least 1, most 9. out: no data.",
    ]


async def test_no_data(page: Tab) -> None:
    """A plot of nothing has axes and no line."""
    await drawn(page, [], 100, "{ log: 0.001, format: plots.seconds }")
    assert await page.run("[paths(), texts('.grid text').slice(0, 3)]") == [
        ["", ""],
        ["1 ms", "10 ms", "100 ms"],
    ]


async def test_hostile_title(page: Tab) -> None:
    """A name with HTML in it is shown as text."""
    await drawn(page, [(100, 1, 2)], 100, "{ title: '<img src=x>' }")
    assert await page.run("[texts('h3')[0], picture.parentNode.querySelector('img')]") == [
        "<img src=x>",
        None,
    ]
