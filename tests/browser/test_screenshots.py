"""What the pages look like: pictures at three widths, light and dark, and what can be said of them.

The pictures are kept in ``build/screenshots``, or where ``REALTIME_SCREENSHOTS`` says.
"""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import accessible
import chromium
import pytest
import pytest_asyncio
from scenes import SCENES, Stage, stage
from tree import ROOT

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = pytest.mark.asyncio(loop_scope="module")

PICTURES = Path(os.environ.get("REALTIME_SCREENSHOTS") or ROOT / "build" / "screenshots")
#: A phone, a tablet, a computer.
SIZES = {"phone": (390, 844), "tablet": (820, 1180), "computer": (1280, 800)}
THEMES = ("light", "dark")
#: What fills the window, whatever its size; the others are photographed down to their end.
FILLING = ("door", "chat", "missed", "client")

# What is wider than the window, or partly beside it, and cannot be scrolled to within something of its own.
_BESIDE = """
() => {
  const scrolls = (element) => {
    for (let at = element; at && at !== document.body; at = at.parentElement) {
      if (getComputedStyle(at).overflowX !== "visible") return true;
    }
    return false;
  };
  const beside = [];
  for (const element of document.body.querySelectorAll("*")) {
    if (!element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
    const { left, right, width, height } = element.getBoundingClientRect();
    if (width < 2 || height < 2 || (left >= -1 && right <= innerWidth + 1)) continue;
    if (!scrolls(element.parentElement)) beside.push([element.outerHTML.slice(0, 80), left, right].join());
  }
  const { scrollWidth } = document.documentElement;
  if (scrollWidth > innerWidth) beside.push(`the page: ${scrollWidth}`);
  return beside;
}
"""
#: How many colours a picture has, of some thousands of its points.
_COLOURS = """
async (picture) => {
  const image = await createImageBitmap(new Blob([Uint8Array.from(atob(picture), (c) => c.charCodeAt(0))]));
  const canvas = new OffscreenCanvas(200, 200).getContext("2d");
  canvas.drawImage(image, 0, 0, 200, 200);
  return new Set(new Uint32Array(canvas.getImageData(0, 0, 200, 200).data.buffer)).size;
}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scenes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """A server with something going on, and a browser to look at it."""
    async with chromium.browser() as browser, stage(browser, tmp_path_factory.mktemp("stage")) as one:
        yield one


async def show(page: Page, size: str, theme: str) -> None:
    """Show a page at a size and in a theme."""
    width, height = SIZES[size]
    await page.set_viewport_size({"width": width, "height": height})
    await page.emulate_media(color_scheme="dark" if theme == "dark" else "light", reduced_motion="reduce")


@pytest.mark.parametrize("scene", SCENES)
async def test_pictures(scenes: Stage, scene: str) -> None:
    """At every width and in both themes there is something to be seen, and nothing beside the window."""
    page = await scenes.page(scene)
    beside = {}
    for size in SIZES:
        for theme in THEMES:
            await show(page, size, theme)
            beside[size] = await page.evaluate(_BESIDE)
            file = PICTURES / f"{scene}-{size}-{theme}.png"
            picture = await page.screenshot(path=file, full_page=scene not in FILLING)
            assert await page.evaluate(_COLOURS, base64.b64encode(picture).decode()) > 10
    assert not any(beside.values()), beside


@pytest.mark.parametrize("scene", SCENES)
async def test_contrast(scenes: Stage, scene: str) -> None:
    """Every text can be read: its contrast is that of WCAG's AA, in both themes."""
    page = await scenes.page(scene)
    found = {}
    for theme in THEMES:
        await show(page, "computer", theme)
        found[theme] = await accessible.faint(page)
    assert not any(found.values()), found


@pytest.mark.parametrize("scene", SCENES)
async def test_names(scenes: Stage, scene: str) -> None:
    """Everything that can be used, or looked for, has a name that a screen reader can say."""
    page = await scenes.page(scene)
    for size in ("phone", "computer"):
        await show(page, size, "light")
        assert await accessible.nameless(page) == []


@pytest.mark.parametrize("scene", SCENES)
async def test_outline(scenes: Stage, scene: str) -> None:
    """A page has a language, a title, one main, one first heading, and none that skips a level."""
    facts = await accessible.outline(await scenes.page(scene))
    assert (facts["lang"], facts["mains"], facts["doubles"]) == ("en", 1, [])
    assert facts["title"]
    assert "user-scalable=no" not in facts["zoom"]
    levels = [level for level, _ in facts["headings"]]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(level <= before + 1 for before, level in pairwise(levels)), facts
