// The page of a channel: shows every message, and sends.
import { connect } from "./realtime.js";

const [form, name, text, state, log] = ["send", "name", "text", "state", "log"].map((id) => document.getElementById(id));
const serves = form.dataset.transports.split(" ");
const byEvents = serves.includes("sse") && (serves.includes("post") || !serves.includes("websocket"));
const transport = byEvents ? "sse" : "websocket";
let connection;

function show(line) {
  log.textContent = `${log.textContent}${line}\n`.slice(-100_000);
}

// A reader needs no name, so it reads by events where a POST can speak for it; what wants a name is told it
// when one is there.
function open() {
  connection?.close();
  connection = connect(location.href, { transport, name: name.value || undefined });
  connection.addEventListener("open", () => (state.textContent = "Connected."));
  connection.addEventListener("down", () => (state.textContent = "Cut off; connecting again."));
  connection.addEventListener("close", ({ detail }) => (state.textContent = `Closed: ${detail.message}`));
  connection.addEventListener("message", ({ detail }) => {
    show(`${detail.event} ${typeof detail.data === "string" ? detail.data : JSON.stringify(detail.data)}`);
  });
}

form.hidden = form.dataset.hears === "no" || !(serves.includes("post") || serves.includes("websocket"));
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await connection.send(text.value);
    text.value = "";
  } catch (error) {
    show(`not sent: ${error.message}`);
  }
});
name.addEventListener("change", open);
open();
