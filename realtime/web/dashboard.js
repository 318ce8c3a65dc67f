// The dashboard: the numbers of /-/stats, as they come.
import * as connections from "./connections.js";
import { keep, make, token as kept } from "./dom.js";
import { bytes, clock, count, duration, NOTHING, Plot, seconds, share } from "./plot.js";
import { connect, RealtimeError } from "./realtime.js";
import { by, exact, fill, number, plural, put, TRANSPORTS } from "./table.js";

/** For how many seconds samples are kept and shown. */
const SPAN = 300;
/** After so many milliseconds without a word the numbers are told to be old. */
const STALE = 3500;
/** What connections end with in the course of things. */
const CALM = ["1000", "1001", "1005", "1006", "1012"];
/** What they end with by a fault of the server's side: what else they do is a rule that did its work. */
const FAULTS = { 1011: "a bug of a plugin", 1013: "too slow, or no room" };

const rate = (value) => (Number.isFinite(value) ? `${count(value)}/s` : NOTHING);
const sum = (numbers) => Object.values(numbers ?? {}).reduce((all, one) => all + one, 0);

let token = kept();
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
      { name: "p99", value: ({ delivery_lag_seconds }) => delivery_lag_seconds?.p99 },
      { name: "p50", value: ({ delivery_lag_seconds }) => delivery_lag_seconds?.p50 },
    ],
  },
  {
    title: "Event loop lag",
    format: seconds,
    log: 0.001,
    series: [
      { name: "longest", value: ({ loop_lag_seconds }) => loop_lag_seconds?.max },
      { name: "p50", value: ({ loop_lag_seconds }) => loop_lag_seconds?.p50 },
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

const tiles = ["Clients", "Messages in", "Published", "Delivered", "Delivery lag, p99", "Loop lag, longest"]
  .concat(["CPU", "Memory", "Lagging", "Server"])
  .map((label) => {
    const [tile, value, more] = [make("div", "tile"), make("dd", "value", NOTHING), make("dd", "more")];
    tile.append(make("dt", "", label), value, more);
    by("tiles").append(tile);
    return { tile, value, more };
  });

function showTiles({ now, process, bus, channels, started, time, ready, reasons, version }) {
  const { clients, delivery_lag_seconds: lag, loop_lag_seconds: loop } = now;
  const shares = [`${count(clients.websocket)} WS`, `${count(clients.sse)} SSE`, `${count(clients.ndjson)} NDJSON`];
  const split = shares.map((text) => text.replaceAll(" ", "\u00a0")); // to be broken between them
  const rows = [
    [exact(sum(clients)), split.join(" · ")],
    [rate(now.received), `${count(total(channels, "received"))} since the start`],
    [rate(now.published), `${count(total(channels, "published"))} since the start`],
    [rate(now.delivered), `${bytes(now.written_bytes)}/s written`],
    [seconds(lag?.p99), `p50 ${seconds(lag?.p50)}`],
    [seconds(loop?.max), `p50 ${seconds(loop?.p50)}`],
    [share(now.cpu), `${(process.cpu_seconds < 10 ? seconds : duration)(process.cpu_seconds)} in all`],
    [bytes(now.memory_bytes), `${bytes(bus.kept_bytes)} in ${plural(bus.topics, "topic")}`],
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
  tell(ready ? "" : `The server is not ready: ${reasons.join("; ").replace(/\.$/, "")}.`, "ready");
}

const total = (channels, key) => Object.values(channels).reduce((all, one) => all + one[key], 0);

/** What the counters of an engine mean; others are told by their own names, as are those of a plugin's. */
const ENGINE = {
  reconnects: "connections to it lost",
  lost: "messages lost",
  resets: "topics begun anew",
  ignored: "not understood",
  late: "refused, for it was late",
  unanswered: "not answered in time",
};

/** What keeps the messages, if that is not this process itself. */
function showEngine({ engine: { name, up, reason, node, counters } }) {
  const shown = make("b", up ? "good" : "bad", up ? "up" : "down");
  by("engine").hidden = name === "memory";
  const more = up ? ` · ${plural(counters.filled ?? 0, "message")} fetched from its log` : ` · ${reason}`;
  by("engine").replaceChildren(`Engine ${name}: `, shown, node && ` · process ${node}`, more);
}

/** What each channel did in a second, from two sums; nothing where the server has begun anew. */
function ratePer(name, key) {
  const past = before?.started === stats.started && before.channels[name];
  const passed = past && stats.time - before.time;
  return passed > 0 ? (stats.channels[name][key] - past[key]) / passed : NaN;
}

function showZeros({ bus, engine, connections: { ended = {}, refused = {} }, process }) {
  const where = (all, wanted) => Object.entries(all).filter(([key]) => wanted(key));
  const faults = where(ended, (code) => code in FAULTS);
  const limits = where(refused, (key) => key.includes("."));
  const rules = [...where(ended, (code) => !(code in FAULTS || CALM.includes(code))), ...where(refused, (key) => !key.includes("."))];
  const longest = process.loop_holds ? `, ${seconds(process.loop_longest_hold_seconds)} at most` : "";
  const rows = [
    ["readers lapped", bus.laps],
    ["messages missed", bus.missed],
    ["overruns", bus.overruns],
    ["shed for want of memory", bus.shed_bytes, bytes],
    ["refused by the bus", bus.refused],
    [`loop held${longest}`, process.loop_holds],
    ...Object.entries(engine.counters)
      .filter(([key]) => key !== "filled") // which is how it should be
      .map(([key, number]) => [`engine: ${ENGINE[key] ?? key}`, number]),
    ...limits.map(([limit, number]) => [`refused by ${limit}`, number]),
    ...faults.map(([code, number]) => [`ended with ${code}: ${FAULTS[code]}`, number]),
  ];
  if (!limits.length) rows.push(["refused by a limit", 0]);
  if (!faults.length) rows.push(["ended for a fault", 0]);
  const nodes = rows.map(([label, number, format = exact]) => {
    const item = make("li", number ? "seen" : "");
    item.append(make("b", "", format(number ?? 0)), ` ${label}`);
    return item;
  });
  const calm = make("li");
  calm.append(make("b", "", exact(sum(rules.map(([, number]) => number)))), " turned away by a rule, which is no fault");
  by("zeros").replaceChildren(...nodes, calm);
}

const perSecond = (value) => ({ text: rate(value), mark: "number" });
const lagging = (value) => number(value, value > 0 ? "warn" : "");

function showChannels({ channels, now }) {
  const rows = Object.entries(channels).map(([name, one]) => {
    const part = now.handlers?.[name] ?? 0;
    return [
      name,
      { text: name, press: () => connections.of(name) },
      one.plugin,
      number(sum(one.clients)),
      ...["received", "published", "delivered"].map((key) => perSecond(ratePer(name, key))),
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
  const rows = topics.map(({ topic, clients, id, kept, kept_bytes: size, lagging: slow }) => [
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

/** A name that is broken at its dots before anywhere else. */
const dotted = (name) => name.split(/(?<=\.)/).flatMap((part) => [part, make("wbr")]);

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
    item.append(when, make("b", "", level), make("code", "", ...dotted(logger.replace(/^realtime\./, ""))), make("p", "", message));
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
  showEngine(stats);
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
    // The clock of the server may have been set back.
    samples = samples.filter(({ time }) => time > oldest && time <= stats.now.time);
    heard = Date.now();
    down = undefined;
    show();
    tick();
    if (!before) connections.ask();
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
  keep("");
  by("token").value = "";
  by("token").focus();
}

by("gate").addEventListener("submit", (event) => {
  event.preventDefault();
  token = by("token").value.trim();
  keep(token);
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
document.addEventListener("visibilitychange", () => stats && !document.hidden && (show(), tick(), connections.ask()));

connections.start({
  token: () => token,
  time: () => stats?.time,
  // Nobody looks, or there is nobody to ask.
  idle: () => !stats || document.hidden || document.body.classList.contains("stale"),
});
listen();
