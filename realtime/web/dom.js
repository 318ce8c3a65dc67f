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
  return JSON.stringify(data);
}
