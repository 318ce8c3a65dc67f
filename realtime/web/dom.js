/** The little that all of the server's pages need to draw. */

/** An element with a class, and with texts or other elements in it. */
export function make(tag, className = "", ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content);
  return element;
}

/** The data of a message, as text. */
export function written(data) {
  if (typeof data === "string") return data;
  if (data instanceof Uint8Array) return `${data.length} bytes`;
  // One line, with spaces at which it may be broken; within a text JSON has no line breaks.
  return JSON.stringify(data, null, 1).replace(/(?<=[[{])\n *|\n *(?=[\]}])/g, "").replace(/\n */g, " ");
}

const TOKEN = "realtime-token";

/** The token of this tab, which all pages of the server share, or `undefined`; a browser may forbid to keep one. */
export function token() {
  try {
    return sessionStorage.getItem(TOKEN) ?? undefined;
  } catch {
    return undefined;
  }
}

/** Keep a token until the tab is closed; nothing forgets it. */
export function keep(text) {
  if (text) sessionStorage.setItem(TOKEN, text);
  else sessionStorage.removeItem(TOKEN);
}
