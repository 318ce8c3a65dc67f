/** The connections of /-/clients, each of them in detail, and how one is ended. */
import { make, written } from "./dom.js";
import { bytes, duration, NOTHING } from "./plot.js";
import { by, exact, fill, number, plural, put, TRANSPORTS } from "./table.js";

/** How often the connections are asked for, in milliseconds, and how many at a time. */
const EVERY = 3000;
const PAGE = 50;
const MOST = 500;

const FILTERS = ["search", "channel", "state"];
let limit = PAGE;
let asking; // what is under way; a later question is the one that counts
let server; // what the dashboard tells of it
const headers = () => (server.token() === undefined ? {} : { Authorization: `Bearer ${server.token()}` });

/** Show them from now on; `given` has the token, the server's time, and whether there is no use in asking. */
export function start(given) {
  server = given;
  setInterval(ask, EVERY);
}

const why = async (response) => (await response.text()).trim() || `status ${response.status}`;

async function get(url, signal) {
  const response = await fetch(url, { headers: headers(), cache: "no-store", signal });
  if (!response.ok) throw new Error(await why(response));
  return response.json();
}

/** Show them as they are now. */
export async function ask() {
  if (server.idle()) return;
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

const since = (time) => duration(Math.max(0, (server.time() ?? Date.now() / 1000) - time));

function showClients({ total: all, clients }) {
  const rows = clients.map((client) => [
    client.id,
    { text: client.id, press: () => open(client.id) },
    client.name ?? client.identity ?? NOTHING,
    client.topic,
    TRANSPORTS[client.transport] ?? client.transport,
    { text: client.remote ?? NOTHING, mark: "code" },
    since(client.started),
    number(client.behind),
    { text: client.state, mark: ["behind", "lagging"].includes(client.state) ? "warn" : "" },
  ]);
  fill(by("clients"), rows);
  by("clients").closest(".scroll").hidden = !rows.length;
  const filtered = FILTERS.some((key) => by(key).value.trim());
  put(by("clients-count"), all ? `${exact(rows.length)} of ${exact(all)}` : "");
  put(by("no-clients"), filtered ? "No connection is like that." : "Nobody is connected.");
  by("no-clients").hidden = rows.length > 0;
  put(by("more"), `Show ${Math.min(PAGE, all - rows.length)} more`);
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

/** Show those of a channel. */
export function of(name) {
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
  identity: "Identity",
  channel: "Channel",
  topic: "Topic",
  transport: "Transport",
  subprotocol: "Subprotocol",
  remote: "Address",
  started: "Connected",
  state: "State",
  position: "Position",
  behind: "Behind",
  unsent_bytes: "Unsent",
  url: "URL",
};
const SAID = {
  transport: (name) => TRANSPORTS[name] ?? name,
  started: (time) => `${new Date(time * 1000).toLocaleString()}, for ${since(time)}`,
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
  const { kick, id, name, ...rest } = client;
  put(by("detail-title"), name ? `${name} (${id})` : id);
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
