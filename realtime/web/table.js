/** What tables of numbers are made of. */
import { make } from "./dom.js";
import { count } from "./plot.js";

export const TRANSPORTS = { websocket: "WebSocket", sse: "SSE", ndjson: "NDJSON" };

export const by = (id) => document.getElementById(id);
export const put = (node, text) => node.textContent === text || (node.textContent = text);
export const exact = (value) => value.toLocaleString("en");
export const plural = (number, word) => `${exact(number)} ${word}${number === 1 ? "" : "s"}`;
/** A cell of a number. */
export const number = (value, mark = "") => ({ text: count(value), mark: `number ${mark}` });

/**
 * Rows of a table, each the same element as long as its key is there: what has the focus keeps it.
 * A cell is a text, or `{ text, mark, bar, press }`; the first one heads its row.
 */
export function fill(body, rows) {
  const keys = new Set(rows.map(([key]) => key));
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  for (const [key, row] of known) if (!keys.has(key)) row.remove();
  rows.forEach(([key, ...cells], index) => {
    const row = known.get(key) ?? make("tr");
    row.dataset.key = key;
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
    cells.forEach((cell, column) => {
      const { text, mark = "", bar, press } = typeof cell === "object" ? cell : { text: cell };
      let node = row.cells[column];
      if (!node) {
        node = make(column ? "td" : "th");
        if (!column) node.scope = "row";
        const inner = make(press ? "button" : "span");
        if (press) Object.assign(inner, { type: "button", className: "link", onclick: press });
        node.append(inner);
        if (bar !== undefined) node.prepend(make("i", "bar"));
        row.append(node);
      }
      if (node.className !== mark) node.className = mark;
      put(node.lastChild, text);
      if (bar === undefined) return;
      node.firstChild.style.setProperty("--share", Math.min(1, bar));
      node.firstChild.classList.toggle("none", bar < 0.005); // there is nothing of it to be seen
    });
  });
}
