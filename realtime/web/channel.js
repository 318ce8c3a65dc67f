/**
 * The shell of a channel's page: it says how the connection is, cuts it and has it come back, shows what
 * goes over the wire, and how the channel is used from elsewhere. What people do on the page is the
 * channel's own module, or tester.js. Either is `export default function (page)`, called once.
 */
import { keep, make, token as kept, written } from "./dom.js";
import { backoff, connect } from "./realtime.js";
import { show } from "./uses.js";

/** How long one that was cut on purpose stays away, in milliseconds. */
const AWAY = 10_000;
/** How many rows the log of the wire keeps, and how much of a message it shows, in characters. */
const ROWS = 300;
const LONGEST = 500;

const [state, root, wire, rows, recover, cut, back, outcome, notice, gate, denial, secret] = [
  "state", "root", "wire", "rows", "recover", "cut", "back", "outcome", "notice", "gate", "denial", "token",
].map((id) => document.getElementById(id));
const facts = JSON.parse(document.body.dataset.facts);
const serves = (transport) => facts.transports.includes(transport);
/** What this tab was given; a token in the URL is meant for this page, and goes before. */
const token = new URL(location.href).searchParams.has("token") ? undefined : kept();

// The page

/** What a module is given. */
const page = {
  facts,
  root,
  /** The connection of now; it is another one after `connect`. */
  connection: null,

  /**
   * Connect, or connect anew with other options: as of realtime.js. By itself it takes a WebSocket where
   * there is one. After "Resume from here" messages come again: they are known by their `id`.
   */
  connect(options = {}) {
    const before = page.connection;
    page.connection = null; // how that ends concerns nobody
    before?.close();
    const connection = connect(location.href, {
      transport: serves("websocket") ? (serves("sse") ? "auto" : "websocket") : "sse",
      backoff: (...why) => {
        const wait = away ?? backoff(...why);
        away = undefined;
        return wait;
      },
      ...(token && { token }),
      ...options,
    });
    page.connection = connection;
    page.options = options;
    follow(connection);
    return connection;
  },

  /** Say one thing by POST, as `name` if that matters; gives its position, or null. */
  async post(data, { event = "message", name = page.options?.name } = {}) {
    const url = new URL(location.href);
    for (const [key, value] of Object.entries({ name, event: event !== "message" && event })) {
      if (value) url.searchParams.set(key, value);
    }
    const row = log("out", `POST ${event}`, data);
    const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
    const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(data) });
    const text = await response.text();
    if (!response.ok) {
      const wrong = text.trim() || response.statusText;
      log("lost", "refused", `${response.status} ${wrong}`);
      offer(response.status, wrong);
      throw new Error(wrong);
    }
    const { id = null, messages = [] } = JSON.parse(text);
    place(row, id);
    for (const { event, data, id } of messages) log("in", event, data, id);
    return id;
  },

  /** Where the channel stands and who is here now, as its URL says it to a script; null if that cannot be had. */
  async snapshot() {
    const url = new URL(location.href);
    url.searchParams.set("since", page.connection?.position ?? ""); // and not all that is kept
    const headers = { Accept: "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
    const response = await fetch(url, { headers, cache: "no-store" });
    return response.ok ? response.json() : null;
  },

  /** Announce a short notice, politely; it is seen for some seconds. */
  say(text) {
    notice.textContent = text;
    clearTimeout(page.said);
    page.said = setTimeout(() => (notice.textContent = ""), 6000);
  },
};

// How the connection is

const OVER = { websocket: "WebSocket", sse: "server-sent events" };
let wanted = false; // whether somebody has cut it here
let away; // how long it stays away, while it was cut on purpose
let due; // when it comes back
let concluding; // the timer of saying so
let counting; // the timer of the countdown to it
let resumed; // the last welcome, whether it `returns`, and the `count` of what it has recovered

function tell(kind, text, more = "") {
  state.dataset.state = kind;
  state.title = `${text}${more}`;
  const rest = make("span", "", more);
  rest.ariaHidden = "true"; // a countdown is not read out, second by second
  state.replaceChildren(make("span", "", text), rest);
  // Whoever pressed the one button can press the other.
  const pressed = [cut, back].includes(document.activeElement);
  cut.disabled = !["live", "held"].includes(kind);
  cut.hidden = kind === "down";
  back.hidden = !cut.hidden;
  if (pressed) (cut.hidden ? back : cut).focus();
}

function follow(connection) {
  const now = () => page.connection === connection;
  tell("busy", "Connecting…");
  connection.addEventListener("open", ({ detail }) => {
    if (!now()) return;
    tell("live", `Live over ${OVER[connection.transport]}`);
    const { time, ...said } = detail;
    log("host", "realtime:welcome", said, null, time);
    resumed = { ...detail, returns: Boolean(due), count: 0 };
    due = undefined;
    if (resumed.returns) remark("Back again; what was said meanwhile is coming.");
    conclude();
  });
  connection.addEventListener("degraded", ({ detail }) => {
    if (!now()) return;
    tell("held", facts.hears ? "Live, read only" : "Live, on hold");
    const why = sentence(detail.data.reason);
    page.say(why);
    remark(`${why} You stay connected, and what is said when it takes them again comes by itself.`, "warn");
  });
  connection.addEventListener("restored", () => {
    if (!now()) return;
    tell("live", `Live over ${OVER[connection.transport]}`);
    page.say("The server takes messages again.");
    remark("The server takes messages again.", "good");
  });
  for (const type of ["gap", "reset"]) {
    connection.addEventListener(type, ({ detail: { data } }) => {
      if (!now()) return;
      // The first one is what the welcome has told already.
      if (resumed.outcome !== type || resumed.told) remark(LOST[type](data), "warn");
      resumed.told = true;
    });
  }
  connection.addEventListener("message", ({ detail: { event, data, id, time } }) => {
    if (!now()) return;
    const own = event.startsWith("realtime:");
    const row = log(own ? "host" : "in", event, data, id, time);
    if (own || !id || !resumed.returns || time >= resumed.time) return;
    resumed.count += 1;
    conclude();
    row.querySelector(".what").append(make("span", "tag", "recovered"));
  });
  connection.addEventListener("down", ({ detail: { code, reason, delay } }) => {
    if (!now()) return;
    log("lost", "cut", `${code} ${reason}`);
    if (!resumed) remark(`${sentence(reason || "The server does not answer")} It is tried again by itself.`, "warn");
    else if (!wanted) remark("The connection is lost. It comes back by itself, and goes on where it was cut.");
    wanted = false;
    due = Date.now() + delay;
    count();
  });
  connection.addEventListener("close", ({ detail }) => {
    if (!now()) return;
    tell("closed", `Closed: ${detail.reason || detail.message}`);
    log("lost", "closed", detail.message);
    offer(detail.status ?? detail.code, detail.reason);
  });
  const send = connection.send.bind(connection);
  connection.send = async (data, options) => {
    const row = log("out", options?.event ?? "message", data);
    try {
      const id = await send(data, options);
      place(row, id);
      return id;
    } catch (error) {
      log("lost", "not sent", error.message);
      offer(error.status, error.reason);
      throw error;
    }
  };
}

/** Whom the server refuses may have a token for it. */
function offer(status, why) {
  if (![401, 403, 4401].includes(status)) return;
  if (status !== 403 && token) keep(""); // it is no good anywhere
  denial.textContent = why;
  if (!gate.hidden) return;
  gate.hidden = false;
  secret.focus();
}

// The page begins anew, as who has it.
gate.onsubmit = (submitted) => {
  submitted.preventDefault();
  keep(secret.value.trim());
  const url = new URL(location.href);
  url.searchParams.delete("token");
  history.replaceState(null, "", url);
  location.reload();
};

/** The countdown to coming back. */
function count() {
  clearTimeout(counting);
  if (!due || page.connection.closed) return;
  const seconds = Math.max(0, Math.ceil((due - Date.now()) / 1000));
  if (!page.connection.transport) tell("down", "Cut", seconds ? ` · back in ${seconds} s` : " · coming back…");
  counting = setTimeout(count, 250);
}

/** Say what came of coming back, once all that was kept has come. */
function conclude() {
  clearTimeout(concluding);
  if (resumed.returns) concluding = setTimeout(summarise, 300, resumed);
}

const many = (number) => `${number} message${number === 1 ? "" : "s"}`;
const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1).replace(/\.$/, "")}.`;
/** What is said of a loss in the middle of a connection. */
const LOST = {
  gap: ({ missed }) => `${many(missed)} missed, which the server has lost.`,
  reset: () => "The server has lost what was said before, and has begun anew.",
};

function summarise({ outcome: how, missed, count }) {
  const text = {
    recovered: count ? `Recovered ${many(count)}. Nothing was missed.` : "Nothing was said meanwhile, so nothing was missed.",
    gap: `${many(missed)} missed, which the server no longer keeps; then ${many(count)} recovered.`,
    reset: `The server has begun anew; what it keeps came: ${many(count)}.`,
  }[how] ?? "Connected again.";
  remark(text, how === "recovered" ? "good" : "warn");
}

function remark(text, tone = "muted") {
  outcome.className = `small ${tone}`;
  outcome.textContent = text;
}

cut.onclick = () => {
  away = AWAY;
  wanted = true;
  remark("You are cut off. What is said now, you will have when you are back.");
  page.connection.drop();
};

// As when the network is back: connections that wait come at once.
back.onclick = () => dispatchEvent(new Event("online"));

// What goes over the wire

const clock = new Intl.DateTimeFormat([], { timeStyle: "medium", hourCycle: "h23" });

function log(way, event, data, id, time = Date.now() / 1000) {
  const at = new Date(time * 1000);
  const when = make("time", "", clock.format(at));
  when.dateTime = at.toISOString();
  const sign = make("span", "way", { in: "↓", out: "↑", host: "•", lost: "×" }[way]);
  sign.title = { in: "in", out: "out", host: "from the server itself", lost: "the connection" }[way];
  sign.ariaLabel = sign.title;
  sign.role = "img";
  const text = written(data);
  const shown = text.length > LONGEST ? `${text.slice(0, LONGEST)}… (${text.length} characters)` : text;
  const what = make("span", "what", make("span", "event", event), make("span", "data", shown));
  const row = make("div", `frame ${way}`, sign, when, what);
  place(row, id);
  if (!fresh.length) requestAnimationFrame(draw);
  if (fresh.push(row) > ROWS) fresh.shift();
  return row;
}

const fresh = []; // rows that are not shown yet: a burst is drawn once

function draw() {
  rows.querySelector(".empty")?.remove();
  rows.append(...fresh.splice(0));
  while (rows.childElementCount > ROWS) rows.firstElementChild.remove();
  end();
}

// Its end stays in view, unless somebody has scrolled up: when rows come, and when the window changes its width.
let following = true;
const end = () => following && (rows.scrollTop = rows.scrollHeight);
rows.onscroll = () => (following = rows.scrollTop + rows.clientHeight >= rows.scrollHeight - 40);
new ResizeObserver(end).observe(rows);
wire.ontoggle = end;

/** Where a message stands, and the way to go on from there. */
function place(row, id) {
  if (!id || !row) return;
  const button = make("button", "small", "Resume from here");
  button.onclick = () => {
    away = 0;
    wanted = true;
    page.connection.drop({ since: id });
  };
  row.append(make("span", "place", button, make("span", "id", id)));
}

// Begin

wire.hidden = false;
recover.hidden = !(serves("websocket") || serves("sse"));
show(facts);
wire.open = !facts.module;
import(facts.module ?? "./tester.js").then(
  ({ default: begin }) => begin(page),
  (error) => tell("closed", `Closed: the page of this channel could not be loaded (${error.message})`),
);
