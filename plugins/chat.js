/** The page of a chat: read at once, join with a name, and see what was missed. */

/** The most lines that are shown, and how many of the oldest go when there are more. */
const KEPT = 500;
const GO = 50;
/** Messages of one person within so many seconds stand under one name. */
const TOGETHER = 300;
/** How near to the end, in pixels, a reader follows what comes. */
const NEAR = 48;
/** The most who are named in one line of comings and goings. */
const NAMED = 3;
/** Of how many in such a line it is known who they are, and the most who are listed: a room may be full. */
const FOLLOWED = 200;
const LISTED = 200;
const TONES = 5;

const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long", year: "numeric" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

/** An element with properties, attributes where there is no such property, and children. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

/** A name, which cannot turn the text around it. */
const named = (name) => make("bdi", { className: "chat-name", textContent: name });

function tone(name) {
  let sum = 0;
  for (const letter of name) sum = (sum * 31 + letter.codePointAt(0)) % 9973;
  return String((sum % TONES) + 1);
}

const segmenter = globalThis.Intl.Segmenter && new Intl.Segmenter();

function avatar(name) {
  const [first = "?"] = segmenter ? segmenter.segment(name) : name;
  const letter = (first.segment ?? first).toUpperCase();
  const shown = make("span", { className: "chat-avatar", textContent: letter, "aria-hidden": "true" });
  shown.dataset.tone = tone(name);
  return shown;
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1).replace(/\.$/, "")}.`;

/** `ann`, `ann and bob`, `ann, bob and carl`, or how many they are. */
function people(names, more = 0) {
  if (names.length + more > NAMED) return [`${names.length + more} people`];
  return names.flatMap((name, at) => [["", at === names.length - 1 ? " and " : ", "][Math.min(at, 1)], named(name)]);
}

const count = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;

const lost = (number) => `${count(number, "message")} ${number === 1 ? "was missed and is" : "were missed and are"} no longer kept`;

function span(milliseconds) {
  const seconds = milliseconds / 1000;
  if (seconds < 1) return "a moment";
  if (seconds < 100) return `${Math.round(seconds)} s`;
  return seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

function dayOf(date) {
  const days = Math.round((new Date().setHours(0, 0, 0, 0) - new Date(date).setHours(0, 0, 0, 0)) / 86_400_000);
  return ["Today", "Yesterday"][days] ?? day.format(date);
}

/** Epoch and offset of a position. */
const place = (id) => {
  const at = id?.lastIndexOf("-") ?? -1;
  return at < 0 ? null : { epoch: id.slice(0, at), offset: Number(id.slice(at + 1)) };
};

/** Whether a position is one that comes after another, or of another epoch. */
const after = (id, other) => !other || other.epoch !== id.epoch || id.offset > other.offset;

/** What the tab remembers, also over a reload; a browser may forbid it. */
const memory = {
  key: (what) => `realtime ${what} ${location.pathname}`,
  get(what) {
    try {
      return sessionStorage.getItem(this.key(what)) ?? "";
    } catch {
      return "";
    }
  },
  /** What was not sent; nothing of what another version of this page has left. */
  unsent() {
    try {
      return JSON.parse(this.get("unsent") || "[]").filter(({ text }) => typeof text === "string");
    } catch {
      return [];
    }
  },
  set(what, value) {
    try {
      if (value) sessionStorage.setItem(this.key(what), value);
      else sessionStorage.removeItem(this.key(what));
    } catch {
      // then a reload asks again
    }
  },
};

/** What was said and what happened, the newest last. */
class Log {
  #last = null; // what the next line may be joined to
  #day = "";
  #fresh = 0; // what has come since the last frame, …
  #unread = 0; // … and further down than somebody reads
  #following = true;
  #top = 0; // where it was scrolled to
  #asked = false;

  constructor() {
    this.lines = make("div", { className: "chat-lines" });
    this.outbox = make("div", { className: "chat-outbox", "aria-live": "off" });
    this.empty = make("p", { className: "chat-empty", hidden: true });
    this.scroller = make(
      "div",
      { className: "chat-log", role: "log", "aria-label": "Messages", tabIndex: 0, "aria-busy": "true" },
      this.empty,
      this.lines,
      this.outbox,
    );
    this.more = make("button", { className: "chat-more", type: "button", hidden: true });
    this.more.addEventListener("click", () => {
      this.follow();
      this.scroller.focus();
    });
    this.scroller.addEventListener("scroll", () => this.#look());
    new ResizeObserver(() => this.#scroll()).observe(this.scroller);
    this.element = make("div", { className: "chat-said" }, this.scroller, this.more);
  }

  /** Show the end, and what comes from now on. */
  follow() {
    this.#following = true;
    this.#read();
    this.#scroll();
  }

  /** Who scrolls up stops following; more may have come since this was scrolled to the end. */
  #look() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    if (scrollHeight - scrollTop - clientHeight < NEAR) this.#following = true;
    else if (scrollTop < this.#top - 1) this.#following = false;
    this.#top = scrollTop;
    if (this.#following) this.#read();
  }

  #read() {
    this.#unread = 0;
    this.more.hidden = true;
  }

  /** With the next frame, before which the browser tells whether somebody has scrolled. */
  #scroll() {
    if (this.#asked) return;
    this.#asked = true;
    requestAnimationFrame(() => {
      this.#asked = false;
      if (this.#following) this.#to(this.scroller.scrollHeight);
      else if (this.#fresh) {
        this.#unread += this.#fresh;
        this.more.textContent = `${count(this.#unread, "new message")} ↓`;
        this.more.hidden = false;
      }
      this.#fresh = 0;
    });
  }

  #to(top) {
    this.scroller.scrollTop = top;
    this.#top = this.scroller.scrollTop;
  }

  /** Add a line; nobody who reads further up is moved. */
  #add(line, last = null) {
    this.#last = last;
    this.lines.append(line);
    if (this.lines.childElementCount > KEPT) {
      this.#look();
      const { scrollHeight, scrollTop } = this.scroller;
      for (let gone = 0; gone <= GO; gone += 1) this.lines.firstElementChild.remove();
      this.lines.firstElementChild.classList.add("first");
      this.#to(scrollTop + this.scroller.scrollHeight - scrollHeight);
    }
    this.#scroll();
    return line;
  }

  #today(time) {
    const date = new Date(time * 1000);
    const key = date.toDateString();
    if (key !== this.#day) this.#add(make("p", { className: "chat-day" }, make("span", {}, dayOf(date))));
    this.#day = key;
    return date;
  }

  /** What somebody said; `mine` if I did; `to` whom alone. */
  message({ from, text, to }, time, mine, me) {
    const date = this.#today(time);
    const joins = to === undefined && this.#last?.from === from && time - this.#last.time < TOGETHER;
    const line = make("div", { className: "chat-line" });
    line.classList.toggle("first", !joins);
    line.classList.toggle("mine", mine);
    line.classList.toggle("private", to !== undefined);
    const who = make("div", { className: "chat-who" }, named(from));
    if (to !== undefined) who.append(mine ? " privately to " : " to ", to === me && !mine ? "you alone" : named(to));
    who.append(make("time", { dateTime: date.toISOString(), textContent: clock.format(date) }));
    const bubble = make("div", { className: "chat-bubble", dir: "auto", textContent: text, title: full.format(date) });
    line.append(avatar(from), who, bubble);
    this.#add(line, to === undefined ? { from, time } : null);
    if (!mine) this.#fresh += 1;
    return line;
  }

  /** Somebody came or went; many of these in a row are one line. */
  presence(name, came, time) {
    this.#today(time);
    let last = this.#last;
    if (!last?.people) {
      last = { people: new Map(), more: new Map() };
      this.#add(make("p", { className: "chat-note" }), last);
      last.line = this.lines.lastElementChild;
    }
    const { people: known, more } = last;
    const before = known.get(name);
    if (before || known.size < FOLLOWED) {
      known.delete(name);
      if (came) known.set(name, before ? "came back" : "joined");
      else known.set(name, before === "joined" ? "came and went" : "left");
    } else {
      const verb = came ? "joined" : "left";
      more.set(verb, (more.get(verb) ?? 0) + 1);
    }
    last.asked ??= requestAnimationFrame(() => this.#note(last)); // a crowd is drawn once
    this.#scroll();
  }

  #note(note) {
    note.asked = null;
    const verbs = new Map();
    for (const verb of [...note.people.values(), ...note.more.keys()]) verbs.set(verb, []);
    for (const [who, verb] of note.people) verbs.get(verb).push(who);
    note.line.replaceChildren();
    for (const [verb, names] of verbs) {
      if (note.line.hasChildNodes()) note.line.append(", ");
      note.line.append(...people(names, note.more.get(verb)), ` ${verb}`);
    }
    this.#scroll();
  }

  /** A line across: what became of the stream. */
  divider(text, kind = "chat-mark") {
    return this.#add(make("p", { className: kind }, make("span", {}, text)));
  }
}

/** Who is here, by the id of each client. */
class Roster {
  #members = new Map();
  #beyond = 0; // of whom only the number is known
  #opened = false;
  #asked = false;
  #heard; // since it was asked for anew
  known = false;

  constructor(pick) {
    this.pick = pick;
    this.list = make("ul", { "aria-label": "People", className: "chat-list" });
    this.number = make("span", { className: "chat-count" });
    this.element = make(
      "aside",
      { className: "chat-people", id: "chat-people", hidden: true },
      make("h2", {}, "People ", this.number),
      this.list,
    );
    this.button = make("button", { className: "chat-toggle", type: "button", hidden: true });
    this.button.setAttribute("aria-controls", "chat-people");
    this.button.addEventListener("click", () => this.open(!this.#opened));
    for (const element of [this.element, this.button]) {
      element.addEventListener("keydown", ({ key }) => {
        if (key !== "Escape" || !this.#opened) return;
        this.open(false);
        this.button.focus();
      });
    }
    this.open(false);
  }

  /** Show it where there is no room beside the messages. */
  open(shown) {
    this.#opened = shown;
    this.button.setAttribute("aria-expanded", String(shown));
    this.element.classList.toggle("open", shown);
  }

  reset({ members, count: all = members.length }) {
    const named = members.filter(({ name }) => typeof name === "string"); // a subclass may tell of others
    this.#members = new Map(named.map(({ client, name }) => [client, name]));
    this.#beyond = all - members.length;
    this.known = true;
    this.#heard = undefined;
  }

  /** Ask who is here: some of who came and went were missed. */
  async ask(snapshot) {
    const heard = (this.#heard = []);
    const facts = await snapshot().catch(() => null);
    if (!this.known || this.#heard !== heard || !facts?.members) return;
    this.reset(facts);
    for (const change of heard) change(); // as it may not be in what was asked for
    this.draw(this.me);
  }

  join({ client, name }) {
    this.#heard?.push(() => this.#members.set(client, name));
    this.#members.set(client, name);
  }

  leave({ client }) {
    this.#heard?.push(() => this.#members.delete(client));
    if (!this.#members.delete(client) && this.#beyond > 0) this.#beyond -= 1;
  }

  name(client) {
    return this.#members.get(client);
  }

  /** Show it with the next frame, however many come and go until then. */
  draw(me) {
    this.me = me;
    if (!this.known || this.#asked) return;
    this.#asked = true;
    requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    const { me } = this;
    this.#asked = false;
    const times = new Map();
    for (const name of this.#members.values()) times.set(name, (times.get(name) ?? 0) + 1);
    const all = String(this.#members.size + this.#beyond);
    const listed = [...times].slice(0, LISTED);
    const more = listed.reduce((left, [, many]) => left - many, this.#members.size + this.#beyond);
    this.number.textContent = all;
    this.button.replaceChildren("People ", make("span", { className: "chat-count" }, all));
    this.element.hidden = this.button.hidden = false;
    const focused = this.list.contains(document.activeElement) && document.activeElement.dataset.name;
    this.list.replaceChildren(...listed.map(([name, many]) => this.#entry(name, many, me)));
    if (more) this.list.append(make("li", { className: "chat-hint" }, `and ${more} more`));
    if (!times.size) this.list.append(make("li", { className: "chat-hint" }, "Nobody has joined yet."));
    if (focused) [...this.list.querySelectorAll("button")].find(({ dataset }) => dataset.name === focused)?.focus();
  }

  #entry(name, many, me) {
    const inside = [avatar(name), named(name)];
    if (many > 1) inside.push(make("span", { className: "chat-tag" }, `×${many}`));
    if (name === me) inside.push(make("span", { className: "chat-tag" }, "you"));
    if (me === null || name === me) return make("li", {}, make("span", { className: "chat-person" }, ...inside));
    const button = make("button", { className: "chat-person", type: "button" }, ...inside);
    button.title = `Write to ${name} alone`;
    button.dataset.name = name;
    button.addEventListener("click", () => this.pick(name));
    return make("li", {}, button);
  }
}

/** What was written here and has not come back yet: it waits, goes, and fails one by one. */
class Outbox {
  #waiting = [];
  #shown = new Set();
  #going = false;
  connection = null;

  constructor(log) {
    this.log = log;
    for (const item of memory.unsent()) {
      this.#fail(this.#show(item), "The page was left before it was known to be sent");
    }
  }

  add(text, to) {
    this.#waiting.push(this.#show({ text, to }));
    this.log.follow();
    this.go();
  }

  #show(item) {
    item.state = make("span", { className: "chat-state", textContent: "Waiting to be sent…" });
    const bubble = make("div", { className: "chat-bubble", dir: "auto", textContent: item.text });
    item.line = make("div", { className: "chat-line mine pending" }, bubble, make("div", { className: "chat-fate" }, item.state));
    if (item.to !== undefined) {
      item.line.classList.add("private", "first");
      item.line.prepend(make("div", { className: "chat-who" }, "privately to ", named(item.to)));
    }
    this.#shown.add(item);
    this.log.outbox.append(item.line);
    this.#keep();
    return item;
  }

  #keep() {
    const unsent = [...this.#shown].map(({ text, to, sent, after }) => ({ text, to, sent, after }));
    memory.set("unsent", unsent.length ? JSON.stringify(unsent) : "");
  }

  #done(item) {
    item.line.remove();
    this.#shown.delete(item);
    this.#keep();
  }

  #fail(item, reason) {
    item.line.classList.add("failed");
    item.state.setAttribute("role", "alert");
    item.state.textContent = `${reason.replace(/\.$/, "")}. `;
    const again = make("button", { type: "button", className: "chat-link" }, "Try again");
    again.addEventListener("click", () => {
      this.#done(item);
      this.add(item.text, item.to);
    });
    const drop = make("button", { type: "button", className: "chat-link" }, "Discard");
    drop.addEventListener("click", () => this.#done(item));
    item.state.append(again, drop);
    if (!item.line.isConnected) {
      this.#shown.add(item);
      this.log.outbox.append(item.line);
      this.#keep();
    }
  }

  /** A message of mine has come: it may be one of these, whose answer has not come yet. */
  arrived({ text, to }, at) {
    for (const item of this.#shown) {
      if (!item.sent || item.text !== text || item.to !== to) continue;
      if (!at || after(at, item.after)) return this.#done(item);
    }
  }

  /** All up to this place has come. */
  passed(at) {
    for (const item of this.#shown) if (item.at && !after(item.at, at)) this.#done(item);
  }

  /** Send what waits, in the order in which it was written, while there is a connection to send it by. */
  async go(connection = this.connection) {
    this.connection = connection;
    if (this.#going) return;
    this.#going = true;
    while (this.connection?.transport && this.connection.degraded === null && this.#waiting.length) {
      const item = this.#waiting.shift();
      ({ connection } = this);
      item.sent = true;
      item.after = place(connection.position);
      this.#keep();
      item.state.textContent = "Sending…";
      try {
        item.at = place(await connection.send(item.to === undefined ? item.text : { text: item.text, to: item.to }));
        item.state.textContent = "Sent"; // over a stream the message itself may come after the answer
        this.passed(place(connection.position));
      } catch (error) {
        if (!this.#shown.has(item) && error.name === "Unconfirmed") continue; // it has come, the answer has not
        this.#fail(item, this.#why(error));
      }
    }
    this.#going = false;
  }

  #why(error) {
    if (error.name === "Unconfirmed") return "Cut off while sending: it may not have arrived";
    if (error.code === 1009 || error.status === 413) return "Not sent: it is too long";
    return `Not sent: ${error.reason || error.message}`;
  }
}

export default function chat(page) {
  const { facts } = page;
  // A topic is the channel's name, and then the values of the variables in its path.
  const room = facts.topic?.slice(facts.name.length + 1) || facts.name;
  const url = new URL(location.href);
  const title = document.title;

  let connection = null;
  let position = "earliest";
  let seen = null; // the place of the last message that was shown
  let me = null;
  let wanted = ""; // the name that is being asked for
  let failure = null; // why the last attempt to join failed
  let stood = false; // whether this connection has been there before
  let away = null; // since when, while it is cut
  let back = null; // what is caught up with after a cut
  let mark = null; // the last such line, and how long it tells of
  let quiet; // a timer, for a channel that tells nobody who is here
  let unseen = 0;
  let barred = false; // from reading, too

  // What there is to see

  const log = new Log();
  const roster = new Roster((name) => whisper(name));
  const outbox = new Outbox(log);

  const self = make("span", { className: "chat-self", hidden: true });
  const leave = make("button", { type: "button", className: "chat-quiet", hidden: true }, "Leave");
  const heading = make("h2", { className: "chat-title", dir: "auto", textContent: room });
  const bar = make("div", { className: "chat-bar" }, heading, self, leave, roster.button);

  const name = make("input", { id: "chat-name", autocomplete: "nickname", required: true, maxLength: 200, dir: "auto" });
  name.setAttribute("aria-describedby", "chat-wrong");
  name.spellcheck = false;
  const enter = make("button", { className: "primary" }, "Join");
  const wrong = make("p", { id: "chat-wrong", className: "chat-wrong", role: "alert" });
  const join = make(
    "form",
    { className: "chat-join" },
    make("label", { htmlFor: "chat-name" }, "Your name"),
    make("div", { className: "chat-row" }, name, enter),
    wrong,
  );

  const text = make("textarea", { rows: 1, "aria-label": "Message", dir: "auto", enterKeyHint: "send" });
  const send = make("button", { className: "primary" }, "Send");
  const whom = make("p", { className: "chat-whom", hidden: true });
  const hint = make("p", { className: "chat-hint", hidden: true });
  const compose = make(
    "form",
    { className: "chat-compose", hidden: true },
    whom,
    make("div", { className: "chat-row" }, text, send),
    hint,
  );
  let to; // whom alone what is written is for

  page.root.append(
    make(
      "section",
      { className: "chat", "aria-label": room },
      bar,
      make("div", { className: "chat-main" }, log.element, roster.element),
      make("div", { className: "chat-foot" }, join, compose),
    ),
  );

  /** Show what fits: who is in writes, others are asked for a name. */
  function draw() {
    const focused = join.contains(document.activeElement);
    compose.hidden = self.hidden = me === null;
    leave.hidden = me === null || !wanted; // who has an identity is in without a name
    join.hidden = me !== null || barred;
    self.title = me === null ? "" : `You are ${me}`;
    self.replaceChildren(...(me === null ? [] : [avatar(me), named(me)]));
    text.placeholder = me === null ? "" : `Message as ${me}`;
    wrong.textContent = failure ?? "";
    name.setAttribute("aria-invalid", String(Boolean(failure)));
    enter.textContent = wanted && me === null ? "Joining…" : "Join";
    roster.draw(me);
    grow();
    if (focused && me !== null) text.focus();
  }

  function whisper(name) {
    to = name;
    whom.hidden = name === undefined;
    whom.replaceChildren();
    if (name !== undefined) {
      const stop = make("button", { type: "button", className: "chat-link" }, "To everybody");
      stop.addEventListener("click", () => whisper(undefined));
      whom.append("To ", named(name), " alone. ", stop);
      roster.open(false);
    }
    text.focus();
  }

  // The connection

  /** Read, or be in with a name; whatever was shown before is gone on from. */
  function connect(asName) {
    position = connection?.position ?? position;
    wanted = asName;
    me = null;
    barred = false;
    const before = connection;
    connection = null; // what the old one still says is no matter
    const transport = asName ? "auto" : "sse";
    attach(page.connect({ transport, since: position, ...(asName && { name: asName }) }), before);
  }

  function attach(one) {
    connection = one;
    outbox.connection = null; // until the person is in
    away = back = null;
    stood = false;
    const listen = (type, hear) => {
      one.addEventListener(type, ({ detail }) => {
        if (one === connection) hear(detail);
      });
    };
    listen("open", opened);
    listen("message", hear);
    listen("degraded", ({ data }) => advise(`${sentence(data.reason)} What you write now is sent when it takes them again.`));
    listen("restored", () => {
      advise("");
      outbox.go();
    });
    listen("down", down);
    listen("close", ended);
  }

  /** Say what becomes of what is written now. */
  function advise(words) {
    hint.textContent = words;
    hint.hidden = !words;
  }

  function opened({ outcome }) {
    roster.known = false;
    advise("");
    if (stood && away !== null) back = { line: null, messages: 0, lossy: outcome !== "recovered", time: Date.now() - away };
    away = null;
    stood = true;
    if (facts.presence !== "announce") {
      if (wanted) entered(wanted);
      settleSoon();
    }
  }

  /** Everything that was said before is here. */
  function settle() {
    clearTimeout(quiet);
    if (back) marked();
    back = null;
    if (seen) outbox.passed(seen);
    if (me !== null) outbox.go(connection);
    log.scroller.setAttribute("aria-busy", "false");
    log.empty.textContent = me === null ? "Nothing has been said yet. Join, and say hello." : "Nothing has been said yet. Say hello.";
    log.empty.hidden = log.lines.childElementCount > 0;
    draw();
  }

  function settleSoon() {
    clearTimeout(quiet);
    quiet = setTimeout(settle, 250);
  }

  function entered(asName) {
    if (me === asName) return;
    me = asName;
    failure = null;
    if (wanted) memory.set("name", (wanted = me));
    draw();
  }

  /** The line above what was caught up with. */
  function marked() {
    if (!back.line) {
      if (mark && log.lines.lastElementChild === mark.line) {
        back.time += mark.time;
        mark.line.remove();
      }
      back.line = log.divider("");
      mark = back;
    }
    const found = back.messages ? ` — ${count(back.messages, "message")} caught up` : back.lossy ? "" : " — nothing was missed";
    back.line.firstElementChild.textContent = `You were away for ${span(back.time)}${found}`;
  }

  function hear({ id, event, data, time }) {
    const at = place(id);
    const known = at && !after(at, seen);
    if (at && !known) seen = at;
    switch (event) {
      case "realtime:members":
        roster.reset(data);
        if (roster.name(connection.welcome.client) !== undefined) entered(roster.name(connection.welcome.client));
        settle();
        return;
      case "realtime:join":
      case "realtime:leave":
        presence(event === "realtime:join", data, time, known);
        return;
      case "realtime:gap":
        if (!known) log.divider(lost(data.missed), "chat-mark lost");
        if (roster.known) roster.ask(page.snapshot);
        return;
      case "realtime:reset":
        log.divider("The room began anew: what was said before is no longer kept", "chat-mark lost");
        if (roster.known) roster.ask(page.snapshot);
        return;
      case "message":
      case "direct":
        if (!known && typeof data?.from === "string" && typeof data.text === "string") said(data, at, time);
    }
  }

  function presence(came, member, time, known) {
    if (typeof member?.name !== "string") return;
    if (came) roster.join(member);
    else roster.leave(member);
    if (came && member.client === connection.welcome.client) entered(member.name);
    else if (!known && member.name !== (me ?? wanted)) {
      if (back) marked();
      log.presence(member.name, came, time);
      log.empty.hidden = true;
    }
    if (roster.known) roster.draw(me);
    if (facts.presence !== "announce") settleSoon();
  }

  function said(data, at, time) {
    const mine = data.from === (me ?? wanted);
    if (back) {
      back.messages += 1;
      marked();
    }
    if (mine) outbox.arrived(data, at);
    log.message(data, time, mine, me ?? wanted);
    log.empty.hidden = true;
    if (document.hidden && !mine) document.title = `(${(unseen += 1)}) ${title}`;
    if (facts.presence !== "announce") settleSoon();
  }

  function down({ code, reason }) {
    away ??= Date.now();
    if (back) settle();
    outbox.connection = null;
    advise("Cut off. What you write now is sent when the connection is back.");
    // It comes back from these by itself, but somebody else has the name.
    if (wanted && (code === 4509 || code === 409)) refuse(reason);
    // A name cannot be had just now: it is asked for again.
    else if (wanted && me === null && code === 1013 && reason) {
      failure = sentence(reason);
      draw();
    }
  }

  /** It has ended for good: say why, and read on without a name if that can be. */
  function ended({ code, status, reason }) {
    if (code === 1000) return; // by whoever closed it here
    const was = me;
    if (code === 1009 && was !== null) return connect(was); // only that message was too long
    const why = reason || `The connection ended with ${status ?? code}`;
    const denied = [401, 403, 4401].includes(status ?? code);
    if (wanted && !denied) refuse(was === null ? why : `You are out: ${why}`);
    else if (denied) {
      // The page asks for a token then.
      me = null;
      barred = true;
      log.empty.textContent = "This room is not open to everybody.";
      log.empty.hidden = log.lines.childElementCount > 0;
      draw();
    } else {
      // A reader who was sent away does not come back by itself: it would go on and on.
      me = null;
      failure = sentence(why);
      log.scroller.setAttribute("aria-busy", "false");
      draw();
    }
  }

  function refuse(reason) {
    const again = wanted;
    memory.set("name", "");
    connect("");
    failure = sentence(reason);
    name.value = again;
    draw();
    name.select();
  }

  // What a person does

  join.addEventListener("submit", (event) => {
    event.preventDefault();
    const asked = name.value.trim().normalize("NFC");
    if (!asked) return;
    failure = null;
    connect(asked);
    draw();
  });

  leave.addEventListener("click", () => {
    memory.set("name", "");
    name.value = me;
    connect("");
    draw();
    name.focus();
  });

  function grow() {
    text.style.height = "auto";
    text.style.height = `${text.scrollHeight + text.offsetHeight - text.clientHeight}px`;
  }

  text.addEventListener("input", () => {
    memory.set("draft", text.value);
    grow();
  });

  text.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && to !== undefined) whisper(undefined);
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    compose.requestSubmit();
  });

  compose.addEventListener("submit", (event) => {
    event.preventDefault();
    const words = text.value.trimEnd();
    text.focus();
    if (!words.trim()) return;
    text.value = "";
    memory.set("draft", "");
    grow();
    outbox.add(words, to);
  });

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    unseen = 0;
    document.title = title;
  });

  text.value = memory.get("draft");
  name.value = url.searchParams.get("name") ?? memory.get("name");
  url.searchParams.delete("name"); // it is asked for as any other, and may be taken
  history.replaceState(null, "", url);
  connect(name.value);
  draw();
}
