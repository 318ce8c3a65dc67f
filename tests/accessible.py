"""What anybody needs of a page, whatever they see it with: names, headings, contrast, a visible focus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.async_api import Page

#: What somebody can do something with.
CONTROLS = {
    "button",
    "checkbox",
    "combobox",
    "link",
    "listbox",
    "menuitem",
    "radio",
    "searchbox",
    "slider",
    "spinbutton",
    "switch",
    "tab",
    "textbox",
    "DisclosureTriangle",
}
#: What somebody looks for, of which there may be several.
PLACES = {"dialog", "img", "log", "navigation", "region", "table", "tabpanel"}

_OUTLINE = """
() => {
  const shown = (element) => element.checkVisibility();
  const headings = [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")].filter(shown);
  const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
  return {
    lang: document.documentElement.lang,
    title: document.title,
    headings: headings.map(({ tagName, textContent }) => [Number(tagName[1]), textContent.trim()]),
    mains: [...document.querySelectorAll("main")].filter(shown).length,
    doubles: ids.filter((id, place) => ids.indexOf(id) !== place),
    zoom: document.querySelector("meta[name=viewport]")?.content ?? "",
  };
}
"""

# The colours are drawn rather than read, so that every notation of them and every opacity counts.
_FAINT = """
() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const draw = (color, alpha = 1) => {
    canvas.globalAlpha = alpha;
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (element, color) => {
    let opacity = 1;
    const under = [];
    for (let at = element; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      opacity *= Number(style.opacity);
      under.unshift(style.backgroundColor);
    }
    let back = draw(matchMedia("(prefers-color-scheme: dark)").matches ? "#121212" : "white");
    for (const color of under) back = draw(color);
    const front = draw(color, opacity);
    const [low, high] = [light(back), light(front)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const faint = [];
  const look = (element, color, text) => {
    const { fontSize, fontWeight } = getComputedStyle(element);
    const big = parseFloat(fontSize) >= (fontWeight >= 700 ? 18.66 : 24);
    const found = contrast(element, color);
    if (found < (big ? 3 : 4.5)) faint.push(`${found.toFixed(2)}: ${text.trim().slice(0, 60)}`);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = texts.nextNode()); ) {
    const element = node.parentElement;
    if (!node.data.trim() || element.closest(":disabled, option")) continue;
    if (!element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
    const style = getComputedStyle(element);
    look(element, element instanceof SVGElement ? style.fill : style.color, node.data);
  }
  for (const field of document.querySelectorAll("input, textarea")) {
    if (field.placeholder && !field.value && !field.disabled && field.checkVisibility()) {
      look(field, getComputedStyle(field, "::placeholder").color, field.placeholder);
    }
  }
  return faint;
}
"""

_FOCUS = """
() => {
  const element = document.activeElement;
  if (!element || element === document.body) return null;
  const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  const label = element.getAttribute("aria-label") ?? element.labels?.[0]?.textContent;
  return {
    what: (label ?? element.textContent).trim(),
    marked: (outlineStyle !== "none" && parseFloat(outlineWidth) > 0) || boxShadow !== "none",
    placed: box.width > 0 && box.height > 0,
  };
}
"""


async def nameless(page: Page) -> list[str]:
    """What of a page can be used or looked for and has no name that a screen reader could say."""
    session = await page.context.new_cdp_session(page)
    tree: list[dict[str, Any]] = (await session.send("Accessibility.getFullAXTree"))["nodes"]
    await session.detach()
    found = []
    for node in tree:
        role = node.get("role", {}).get("value")
        name = str(node.get("name", {}).get("value", "")).strip()
        if not node["ignored"] and role in CONTROLS | PLACES and not name:
            found.append(f"{role} {node.get('description', {}).get('value', '')}".strip())
    return found


async def outline(page: Page) -> dict[str, Any]:
    """Its language, title, headings with their level, how many mains, ids that are there twice."""
    facts: dict[str, Any] = await page.evaluate(_OUTLINE)
    return facts


async def faint(page: Page) -> list[str]:
    """The texts to be seen whose contrast is below 4.5, or 3 where they are big (WCAG 2.2, 1.4.3)."""
    found: list[str] = await page.evaluate(_FAINT)
    return found


async def focused(page: Page) -> dict[str, Any] | None:
    """What has the focus: what it is called, and whether that is marked and is anywhere to be seen."""
    facts: dict[str, Any] | None = await page.evaluate(_FOCUS)
    return facts
