// The dashboard: the numbers of /-/stats as they come, and the connections of /-/clients.
import { make, written } from "./dom.js";
import { bytes, clock, count, duration, NOTHING, Plot, seconds, share } from "./plot.js";
import { connect, RealtimeError } from "./realtime.js";

/** For how many seconds samples are kept and shown. */
const SPAN = 300;
/** After so many milliseconds without a word the numbers are told to be old. */
const STALE = 3500;
/** How often the connections are asked for, in milliseconds, and how many at a time. */
const EVERY = 3000;
const PAGE = 50;
const MOST = 500;
const TOKEN = "realtime-token";
const TRANSPORTS = { websocket: "WebSocket", sse: "SSE", ndjson: "NDJSON" };
/** What connections end with in the course of things. */
const CALM = ["1000", "1001", "1005", "1006", "1012"];
const CODES = {
  1002: "broke the protocol",
  1003: "wrong kind of data",
  1007: "bad data",
  1008: "policy",
  1009: "message too large",
  1011: "a bug of a plugin",
  1013: "too slow, or no room",
  4401: "not authenticated",
  4403: "not allowed, or removed",
  4409: "taken over",
  4509: "name taken",
  4529: "too many messages",
};

const by = (id) => document.getElementById(id);
const put = (node, text) => node.textContent === text || (node.textContent = text);
const rate = (value) => (Number.isFinite(value) ? `${count(value)}/s` : NOTHING);
const sum = (numbers) => Object.values(numbers ?? {}).reduce((all, one) => all + one, 0);
const exact = (value) => value.toLocaleString("en");
const plural = (number, word) => `${exact(number)} ${word}${number === 1 ? "" : "s"}`;

let token = sessionStorage.getItem(TOKEN) ?? undefined;
let samples = [];
let stats; // the last ones, …
let before; // … and those before them, for what is told as a sum
let heard = Date.now(); // when they came
let down; // how the stream was cut

// What is shown of it

const plots = [
  {
    title: "Clients",
    stacked: true,
    whole: true,
    least: 4,
    series: Object.entries(TRANSPORTS).map(([key, name]) => ({ name, value: ({ clients }) => clients?.[key] })),
  },
  {
    title: "Messages in",
    format: rate,
    least: 4,
    series: [
      { name: "received", value: ({ received }) => received },
      { name: "published", value: ({ published }) => published },
    ],
  },
  {
    title: "Messages out",
    format: rate,
    least: 4,
    series: [{ name: "delivered", value: ({ delivered }) => delivered }],
  },
  {
    title: "Delivery lag",
    format: seconds,
    log: 0.001,
    series: [
      { name: "p99", value: ({ delivery_lag }) => delivery_lag?.p99 },
      { name: "p50", value: ({ delivery_lag }) => delivery_lag?.p50 },
    ],
  },
  {
    title: "Event loop lag",
    format: seconds,
    log: 0.001,
    series: [
      { name: "longest", value: ({ loop_lag }) => loop_lag?.max },
      { name: "p50", value: ({ loop_lag }) => loop_lag?.p50 },
    ],
  },
  { title: "Lagging", whole: true, least: 4, series: [{ name: "clients", value: ({ lagging }) => lagging }] },
  { title: "CPU", format: share, least: 0.25, series: [{ name: "of one core", value: ({ cpu }) => cpu }] },
  {
    title: "Memory",
    format: bytes,
    binary: true,
    least: 64 * 2 ** 20,
    series: [{ name: "resident", value: ({ memory_bytes }) => memory_bytes }],
  },
].map((options) => {
  const onpoint = (time) => plots.forEach((plot) => plot.point(time));
  const element = make("figure");
  by("plots").append(element);
  return new Plot(element, { span: SPAN, onpoint, ...options });
});

const tiles = ["Clients", "Messages in", "Published", "Delivered", "Delivery lag, p99", "Loop lag, p99"]
  .concat(["CPU", "Memory", "Lagging", "Server"])
  .map((label) => {
    const [tile, value, more] = [make("div", "tile"), make("dd", "value", NOTHING), make("dd", "more")];
    tile.append(make("dt", "", label), value, more);
    by("tiles").append(tile);
    return { tile, value, more };
  });

function showTiles({ now, process, bus, channels, started, time, ready, reasons, version }) {
  const { clients, delivery_lag: lag, loop_lag: loop } = now;
  const shares = [`${count(clients.websocket)} WS`, `${count(clients.sse)} SSE`, `${count(clients.ndjson)} NDJSON`];
  const split = shares.map((text) => text.replaceAll(" ", "\u00a0")); // to be broken between them
  const rows = [
    [exact(sum(clients)), split.join(" · ")],
    [rate(now.received), `${count(total(channels, "received"))} since the start`],
    [rate(now.published), `${count(total(channels, "published"))} since the start`],
    [rate(now.delivered), `${bytes(now.written_bytes)}/s written`],
    [seconds(lag?.p99), `p50 ${seconds(lag?.p50)}`],
    [seconds(loop?.p99), `longest ${seconds(loop?.max)}`],
    [share(now.cpu), `${duration(process.cpu_seconds)} in all`],
    [bytes(now.memory_bytes), `${bytes(bus.bytes)} in ${plural(bus.topics, "topic")}`],
    [count(now.lagging), `of ${plural(sum(clients), "client")}`, now.lagging > 0 && "warn"],
    [ready ? "Ready" : "Not ready", `up ${duration(time - started)}`, ready ? "good" : "bad"],
  ];
  rows.forEach(([value, more, mark], index) => {
    const { tile, value: shown, more: below } = tiles[index];
    put(shown, value);
    put(below, more);
    tile.className = `tile ${mark || ""}`;
  });
  tiles.at(-1).tile.title = `version ${version}`;
  tell(ready ? "" : `The server is not ready: ${reasons.join("; ")}.`, "ready");
}

const total = (channels, key) => Object.values(channels).reduce((all, one) => all + one[key], 0);

/** What each channel did in a second, from two sums; nothing where the server has begun anew. */
function persecond(name, key) {
  const past = before?.started === stats.started && before.channels[name];
  const passed = past && stats.time - before.time;
  return passed > 0 ? (stats.channels[name][key] - past[key]) / passed : NaN;
}

function showZeros({ bus, connections, process }) {
  const ended = Object.entries(connections.ended ?? {}).filter(([code]) => !CALM.includes(code));
  const longest = process.loop_held ? `, ${seconds(process.loop_held_longest_seconds)} at most` : "";
  const rows = [
    ["readers lapped", bus.laps],
    ["messages missed", bus.missed],
    ["overruns", bus.overruns],
    ["shed for want of memory", bus.shed_bytes, bytes],
    ["refused by the bus", bus.refused],
    [`loop held${longest}`, process.loop_held],
    ...Object.entries(connections.refused ?? {}).map(([limit, number]) => [`refused by ${limit}`, number]),
    ...ended.map(([code, number]) => [`ended with ${code}: ${CODES[code] ?? "a code of a channel"}`, number]),
  ];
  if (!sum(connections.refused)) rows.push(["refused by a limit", 0]);
  if (!ended.length) rows.push(["ended for a fault", 0]);
  const nodes = rows.map(([label, number, format = exact]) => {
    const item = make("li", number ? "seen" : "");
    item.append(make("b", "", format(number ?? 0)), ` ${label}`);
    return item;
  });
  by("zeros").replaceChildren(...nodes);
}

/**
 * Rows of a table, each the same element as long as its key is there: what has the focus keeps it.
 * A cell is a text, or `{ text, mark, bar, press }`; the first one heads its row.
 */
function fill(body, rows) {
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
      if (bar !== undefined) node.firstChild.style.setProperty("--share", Math.min(1, bar));
    });
  });
}

const number = (value, mark = "") => ({ text: count(value), mark: `number ${mark}` });
const perSecond = (value) => ({ text: rate(value), mark: "number" });
const lagging = (value) => number(value, value > 0 ? "warn" : "");

function showChannels({ channels, now }) {
  const rows = Object.entries(channels).map(([name, one]) => {
    const part = now.handlers?.[name] ?? 0;
    return [
      name,
      { text: name, press: () => filterBy(name) },
      one.plugin,
      number(sum(one.clients)),
      ...["received", "published", "delivered"].map((key) => perSecond(persecond(name, key))),
      { text: share(part), bar: part, mark: "number share" },
      lagging(one.lagging),
    ];
  });
  fill(by("channels"), rows);
  const select = by("channel");
  const names = Object.keys(channels);
  if ([...select.options].map(({ value }) => value).join() !== ["", ...names].join()) {
    const chosen = select.value;
    select.replaceChildren(new Option("all", ""), ...names.map((name) => new Option(name, name)));
    select.value = names.includes(chosen) ? chosen : "";
  }
}

function showTopics(topics, { bus }) {
  const rows = topics.map(({ topic, clients, id, kept, bytes: size, lagging: slow }) => [
    topic,
    topic,
    number(clients),
    { text: id, mark: "code" },
    number(kept),
    { text: bytes(size), mark: "number" },
    lagging(slow),
  ]);
  fill(by("topics"), rows);
  by("topics").closest(".scroll").hidden = !rows.length;
  by("no-topics").hidden = rows.length > 0;
  put(by("topics-count"), rows.length < bus.topics ? `${rows.length} of ${exact(bus.topics)}` : "");
}

/** The newest first; what is shown already stays, so that only the others are read aloud. */
function showWarnings(warnings) {
  const list = by("warnings");
  const known = new Map([...list.children].map((item) => [item.dataset.key, item]));
  const nodes = [...warnings].reverse().map(({ time, level, logger, message }) => {
    const key = `${time} ${message}`;
    if (known.has(key)) return known.get(key);
    const item = make("li", level);
    const when = make("time", "", clock(time));
    item.dataset.key = key;
    when.dateTime = new Date(time * 1000).toISOString();
    item.append(when, make("b", "", level), make("code", "", logger), make("p", "", message));
    return item;
  });
  for (const item of [...list.children]) if (!nodes.includes(item)) item.remove();
  nodes.forEach((item, index) => {
    if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
  });
  by("no-warnings").hidden = nodes.length > 0;
}

function show() {
  by("numbers").hidden = false;
  if (document.hidden) return;
  showTiles(stats);
  showZeros(stats);
  showChannels(stats);
  showTopics(stats.topics, stats);
  showWarnings(stats.warnings);
}

// The stream

function take({ event, data }) {
  if (event === "history") {
    const first = data[0]?.time ?? Infinity;
    samples = [...samples.filter(({ time }) => time < first), ...data];
  } else if (event === "stats") {
    [before, stats] = [stats, { ...data.stats, topics: data.topics, warnings: data.warnings }];
    samples.push(stats.now);
    const oldest = stats.now.time - SPAN - 10;
    samples = samples.filter(({ time }) => time > oldest);
    heard = Date.now();
    down = undefined;
    show();
    tick();
    if (!before) ask();
  }
}

async function listen() {
  const stream = connect("stats", { transport: "sse", token });
  stream.addEventListener("down", ({ detail }) => {
    down = { ...detail, until: Date.now() + detail.delay };
    tick();
  });
  by("gate").hidden = true;
  try {
    for await (const message of stream) take(message);
    refuse(stream.closed);
  } catch (error) {
    if (!(error instanceof RealtimeError)) throw error;
    refuse(error);
  }
}

/** It has ended, once and for all: with a token it may begin again. */
function refuse(error) {
  const asked = [401, 403].includes(error.status) || error.code === 4401;
  tell(asked ? "" : `The server tells nothing any more: ${error.message}`, "end");
  pill(asked ? "Refused" : "Closed", "closed");
  if (!asked) return;
  const [gate, refused] = [by("gate"), token !== undefined];
  gate.hidden = false;
  by("numbers").hidden = true;
  tell("", "ready");
  by("old").hidden = true;
  put(by("said"), refused ? `This token does not do: ${error.reason}` : `The server says: ${error.reason}`);
  sessionStorage.removeItem(TOKEN);
  by("token").value = "";
  by("token").focus();
}

by("gate").addEventListener("submit", (event) => {
  event.preventDefault();
  token = by("token").value.trim();
  sessionStorage.setItem(TOKEN, token);
  pill("Connecting", "busy");
  listen();
});

const notices = {}; // what is to be told, by what it is about
function tell(text, about) {
  notices[about] = text;
  const all = Object.values(notices).filter(Boolean).join(" ");
  put(by("banner"), all);
  by("banner").hidden = !all;
}

function pill(text, state) {
  put(by("pill"), text);
  by("pill").dataset.state = state;
}

/** The plots move on, and what is old is told to be. */
function tick() {
  if (notices.end || !by("gate").hidden || (!stats && !down)) return;
  const silent = Date.now() - heard;
  const stale = silent > STALE || down !== undefined;
  document.body.classList.toggle("stale", stale);
  by("old").hidden = !stale;
  if (stale) {
    const wait = Math.ceil(((down?.until ?? 0) - Date.now()) / 1000);
    const what = wait > 1 ? `trying again in ${wait} s` : "reconnecting";
    put(by("old"), `No data for ${duration(silent / 1000)}, ${what}.`);
  }
  pill(stale ? "Cut" : "Live", stale ? "down" : "live");
  if (!stats || document.hidden) return;
  const now = stats.now.time + (stale ? silent / 1000 : 0);
  for (const plot of plots) plot.draw(samples, now);
}
setInterval(() => Date.now() - heard > 1500 && tick(), 1000);
document.addEventListener("visibilitychange", () => stats && !document.hidden && (show(), tick(), ask()));

// Connections

const FILTERS = ["search", "channel", "state"];
let limit = PAGE;
let asking; // what is under way; a later question is the one that counts
const headers = () => (token === undefined ? {} : { Authorization: `Bearer ${token}` });

const why = async (response) => (await response.text()).trim() || `status ${response.status}`;

async function get(url, signal) {
  const response = await fetch(url, { headers: headers(), cache: "no-store", signal });
  if (!response.ok) throw new Error(await why(response));
  return response.json();
}

async function ask() {
  if (!stats || document.hidden || document.body.classList.contains("stale")) return;
  asking?.abort();
  const mine = (asking = new AbortController());
  const query = new URLSearchParams({ limit });
  for (const key of FILTERS) if (by(key).value.trim()) query.set(key, by(key).value.trim());
  try {
    showClients(await get(`clients?${query}`, mine.signal));
    by("clients-error").hidden = true;
  } catch (error) {
    if (mine.signal.aborted) return;
    put(by("clients-error"), `The connections could not be had: ${error.message}`);
    by("clients-error").hidden = false;
  }
}

const since = (client) => duration(Math.max(0, (stats?.time ?? Date.now() / 1000) - client.since));

function showClients({ total: all, clients }) {
  const rows = clients.map((client) => [
    client.id,
    { text: client.id, press: () => open(client.id) },
    client.name ?? client.identity ?? NOTHING,
    client.topic,
    TRANSPORTS[client.transport] ?? client.transport,
    { text: client.remote ?? NOTHING, mark: "code" },
    since(client),
    number(client.behind),
    { text: client.state, mark: client.state === "lagging" ? "warn" : "" },
  ]);
  fill(by("clients"), rows);
  by("clients").closest(".scroll").hidden = !rows.length;
  const filtered = FILTERS.some((key) => by(key).value.trim());
  put(by("clients-count"), all ? `${exact(rows.length)} of ${exact(all)}` : "");
  put(by("no-clients"), filtered ? "No connection is like that." : "Nobody is connected.");
  by("no-clients").hidden = rows.length > 0;
  by("more").hidden = rows.length >= all || limit >= MOST;
}

let typing;
function asked() {
  clearTimeout(typing);
  limit = PAGE;
  typing = setTimeout(ask, 200);
}
for (const key of FILTERS) by(key).addEventListener("input", asked);
by("filter").addEventListener("submit", (event) => event.preventDefault());
by("more").addEventListener("click", () => {
  limit += PAGE;
  ask();
});
setInterval(ask, EVERY);

function filterBy(name) {
  by("filter").reset();
  by("channel").value = name;
  asked();
  by("clients-title").scrollIntoView();
  by("channel").focus({ preventScroll: true });
}

// One of them

const detail = by("detail");
let chosen; // as it was last told
const FIELDS = {
  id: "Client",
  name: "Name",
  identity: "Identity",
  channel: "Channel",
  topic: "Topic",
  transport: "Transport",
  subprotocol: "Subprotocol",
  remote: "Address",
  since: "Connected",
  state: "State",
  position: "Position",
  behind: "Behind",
  unsent_bytes: "Unsent",
  url: "URL",
};
const SAID = {
  transport: (name) => TRANSPORTS[name] ?? name,
  since: (time) => `${new Date(time * 1000).toLocaleString()}, for ${since({ since: time })}`,
  behind: (number) => plural(number, "message"),
  unsent_bytes: bytes,
};

async function look() {
  try {
    const answer = await get(`clients?${new URLSearchParams({ id: chosen.id })}`);
    if (answer.clients.length) showDetail(answer.clients[0]);
    else gone();
  } catch (error) {
    say(`It could not be looked at: ${error.message}`, "bad");
  }
}

function showDetail(client) {
  chosen = client;
  put(by("detail-title"), client.name ? `${client.name} (${client.id})` : client.id);
  const { kick, ...rest } = client;
  const keys = [...Object.keys(FIELDS), ...Object.keys(rest).filter((key) => !(key in FIELDS))];
  const list = by("fields");
  keys.forEach((key, index) => {
    if (!list.children[index]) {
      const pair = make("div");
      pair.append(make("dt"), make("dd"));
      list.append(pair);
    }
    const [term, value] = list.children[index].children;
    const told = rest[key];
    put(term, FIELDS[key] ?? key);
    const nothing = told == null || told === "";
    put(value, nothing ? NOTHING : (SAID[key]?.(told) ?? written(told)));
  });
  by("disconnect").hidden = !kick || !by("confirm").hidden;
}

function gone() {
  by("disconnect").hidden = by("confirm").hidden = true;
  if (by("outcome").hidden) say("It is not connected any more.");
}

function say(text, mark = "") {
  put(by("outcome"), text);
  by("outcome").className = `notice ${mark}`;
  by("outcome").hidden = !text;
}

let looking;
function open(id) {
  chosen = { id };
  say("");
  by("confirm").hidden = true;
  by("fields").replaceChildren();
  put(by("detail-title"), id);
  by("disconnect").hidden = true;
  detail.showModal();
  look();
  looking = setInterval(() => by("outcome").hidden && look(), 2000);
}

detail.addEventListener("close", () => clearInterval(looking));
by("shut").addEventListener("click", () => detail.close());
detail.addEventListener("click", ({ target }) => target === detail && detail.close()); // beside it
by("disconnect").addEventListener("click", () => {
  by("disconnect").hidden = true;
  by("confirm").hidden = false;
  put(by("sure"), `Disconnect ${chosen.id}`);
  by("reason").value = "";
  by("reason").focus();
});
by("keep").addEventListener("click", () => {
  by("confirm").hidden = true;
  by("disconnect").hidden = false;
  by("disconnect").focus();
});
by("confirm").addEventListener("submit", async (event) => {
  event.preventDefault();
  const url = new URL(`../${chosen.url.slice(1)}`, location.href); // where the server has it, under whatever
  url.searchParams.set("client", chosen.id);
  if (by("reason").value.trim()) url.searchParams.set("reason", by("reason").value.trim());
  by("sure").disabled = true;
  try {
    const response = await fetch(url, { method: "DELETE", headers: headers() });
    if (!response.ok && response.status !== 404) throw new Error(await why(response));
    say(response.ok ? `${chosen.id} is disconnected.` : `${chosen.id} had gone already.`, response.ok ? "good" : "");
    gone();
    ask();
  } catch (error) {
    say(`${chosen.id} is still there: ${error.message}`, "bad");
  }
  by("sure").disabled = false;
  by("shut").focus();
});

listen();
