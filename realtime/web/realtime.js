/** The client for browsers, by the rules of the Python client; realtime.d.ts says what its names mean. */

const V1 = "realtime.v1.json";
const LOST = 1006;
const CUT = "the connection was lost";
/** After these coming back makes no sense. */
const FINAL = [1000, 1002, 1003, 1007, 1008, 1009];
/** A connection that lasted so many milliseconds forgets the failures before it. */
const STOOD = 10_000;
/** How far is read ahead of an iteration, in characters and some for each message. */
const READ_AHEAD = 4 * 1024 * 1024;
const MESSAGE_COST = 256;
/** After so many WebSockets in a row that did not open where HTTP did, something is in their way. */
const REFUSALS = 2;

export class RealtimeError extends Error {
  constructor(text, facts) {
    super(text);
    Object.assign(this, facts).name = new.target.name;
  }
}

export class Closed extends RealtimeError {
  constructor(code, reason = "", retryAfter = null) {
    super(`${code} ${reason}`.trim(), { code, reason, retryAfter });
  }

  get comesBack() {
    return !FINAL.includes(this.code) && !(this.code >= 4000 && this.code <= 4499);
  }
}

export class Refused extends RealtimeError {
  constructor(reason, status, retryAfter) {
    super(`${status ?? ""} ${reason}`.trim(), { reason, status, retryAfter });
  }

  get comesBack() {
    return [408, 425, 429].includes(this.status) || this.status >= 500;
  }
}

export class NotConnected extends RealtimeError {}
export class Unconfirmed extends RealtimeError {}

/** The wait before connecting again: a random part of the longest, lest thousands of clients come at once. */
export function backoff(failures, code = LOST, advice = null) {
  const wait = Math.random() * Math.min(30_000, 1000 * 2 ** failures);
  let wanted = wait;
  if (advice != null) wanted = Math.min(advice, 300_000) * (1 + Math.random() / 2);
  else if (code === 1001 || code === 1012) wanted = 1000 + 4000 * Math.random();
  return failures ? Math.max(wanted, wait) : wanted; // advice of 0 is no licence to hammer
}

/** Epoch and offset of a position; nothing of what is none. */
function parse(id) {
  const [, epoch, offset] = /^(.+)-(\d+)$/.exec(id) ?? [];
  return epoch && { epoch, offset: Number(offset) };
}

/** A message of `realtime.v1.json`; throws for what is none. */
function decode({ id = null, event, data = null, encoding, time }) {
  if (typeof event !== "string" || (id !== null && !parse(id))) throw new TypeError();
  if (encoding === "base64") data = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  return { id, event, data, time };
}

/** The error of an answer that says no, with what it says. */
async function refusal(response) {
  const text = await response.text().catch(() => "");
  const after = response.headers.get("Retry-After");
  const [line] = (text || response.statusText).trim().split("\n");
  return new Refused(line.slice(0, 300), response.status, /^\d+$/.test(after) ? after * 1000 : null);
}

/** A connection to a channel, over a WebSocket or server-sent events, that comes back when it is cut. */
export class Connection extends EventTarget {
  welcome = {};
  closed = null; // or how it has ended, once and for all
  transport = null; // or over what it stands
  degraded = null; // or why nothing is taken

  #url;
  #options;
  #since; // where to begin, then where to go on
  #queue = []; // read ahead of the iteration, with the size of each
  #size = 0;
  #waiting = []; // for a message or a connection
  #send; // how the connection that stands sends
  #acks = new Map();
  #ref = 0;
  #refusals = 0;
  #servers = 0; // that remember nothing of each other
  #cut; // ends the connection, or the attempt at one, that there is
  #goodbye;
  #stood; // since when it stands
  #heard; // when something was last heard, …
  #silence; // … and how long there may be nothing
  #timer;
  #wake = () => {};
  #life = new AbortController();

  constructor(url, options) {
    super();
    this.#options = {
      transport: "auto",
      timeout: 10_000,
      slack: 10_000,
      backoff,
      WebSocket: globalThis.WebSocket,
      fetch: (...request) => fetch(...request),
      ...options,
    };
    this.#url = new URL(url, globalThis.location?.href);
    this.#url.protocol = this.#url.protocol.replace("ws", "http");
    if (!/^https?:$/.test(this.#url.protocol)) throw new TypeError(`${url}: this is no URL of a channel`);
    this.#since = String(options?.since ?? "");
    const { signal } = this.#life;
    for (const type of ["online", "pageshow"]) globalThis.addEventListener?.(type, this.#look, { signal });
    globalThis.document?.addEventListener("visibilitychange", this.#look, { signal });
    this.#run().catch((error) => this.#end(error)); // of the caller's `backoff`, say
  }

  /** The last position that came: what to give as `since` another time. */
  get position() {
    return parse(this.#since) ? this.#since : null;
  }

  /** Close with 1000, once and for all. */
  close() {
    this.#end(new Closed(1000));
  }

  /** Lose the connection, as if the network had cut it; `since` is where it then goes on. */
  drop({ since = this.#since } = {}) {
    this.#since = String(since);
    this.#cut?.abort(new Closed(LOST, "dropped"));
  }

  /** Send it when there is a connection, and wait for the server's word. */
  async send(data, { event = "message", timeout = this.#options.timeout } = {}) {
    const binary = data instanceof ArrayBuffer || ArrayBuffer.isView(data);
    const bytes = binary && new Uint8Array(data.buffer ?? data, data.byteOffset, data.byteLength);
    const json = bytes ? "" : JSON.stringify(data);
    if (json === undefined) throw new TypeError("what is sent is text, bytes, or what JSON can say");
    const signal = AbortSignal.timeout(timeout);
    let send;
    const late = new Promise((_, reject) => {
      signal.onabort = () => {
        const [Kind, what] = send ? [Unconfirmed, "answer"] : [NotConnected, "connection"];
        reject(new Kind(`no ${what} within ${timeout}ms`));
      };
    });
    late.catch(() => {}); // nobody may be waiting any more
    while (!(send = this.#send)) {
      if (this.closed) throw this.closed;
      await Promise.race([late, this.#news()]);
    }
    return Promise.race([late, send({ event, bytes, json }, signal)]);
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** The next message; after 1000 there is none, and another end is thrown. */
  async next() {
    while (!this.#queue.length) {
      if (this.closed?.code === 1000) return { done: true, value: undefined };
      if (this.closed) throw this.closed;
      await this.#news();
    }
    const [value, size] = this.#queue.shift();
    this.#size -= size;
    return { done: false, value };
  }

  // What comes in

  #news() {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #tell(type, detail) {
    for (const resolve of this.#waiting.splice(0)) resolve();
    this.dispatchEvent(new CustomEvent(type, { detail })); // it reports an error of a listener, and goes on
  }

  #hear(text, cut, transport, send) {
    if (cut.signal.aborted) return; // by whoever heard the one before
    this.#heard = Date.now();
    let fields, message;
    try {
      message = decode((fields = JSON.parse(text)));
    } catch {
      return cut.abort(new Closed(1007, `a frame that is not ${V1}`));
    }
    const { id, event } = message;
    const facts = message.data ?? {};
    if (event === "realtime:welcome") {
      this.#stood = this.#heard;
      facts.time = message.time;
      const { heartbeat, outcome } = facts;
      this.#silence = heartbeat > 0 ? heartbeat * 1000 + this.#options.slack : Infinity;
      this.#look();
      // After a gap or a reset the marker brings the position: who is cut before has to be told again.
      if (id && !/gap|reset/.test(outcome)) this.#since = id;
      if (!/gap|recovered/.test(outcome)) this.#servers += 1;
      this.welcome = facts;
      this.transport = transport;
      this.#send = send;
      this.#tell("open", facts);
    } else if (event === "realtime:bye") {
      const { code, reason, retry } = facts;
      if (code >= 1000 && code <= 4999) this.#goodbye = new Closed(code, reason, retry);
    } else if (fields.ref !== undefined) {
      const { resolve, reject } = this.#acks.get(fields.ref) ?? {};
      this.#acks.delete(fields.ref);
      if (event === "realtime:ack") resolve?.(id);
      else reject?.(new Refused(facts.message, facts.status));
    } else if (event !== "realtime:heartbeat") {
      this.#take(message, text.length);
    }
  }

  #take(message, length) {
    const { id, event } = message;
    const [, told] = /^realtime:(gap|reset|degraded|restored)$/.exec(event) ?? [];
    const [seen, now] = [parse(this.#since), parse(id)];
    const before = now && seen?.epoch === now.epoch && seen.offset >= now.offset;
    if (before && !told) return; // it comes twice
    if (told === "reset") this.#servers += 1; // it has forgotten
    if (told?.endsWith("ed")) this.degraded = message.data.reason ?? null;
    const size = length + MESSAGE_COST;
    if (this.#size + size > READ_AHEAD) {
      // Nobody can stop a browser reading: an iteration that is too slow is told what it missed.
      let missed = 0;
      for (const [{ event, data }] of this.#queue) missed += event === "realtime:gap" ? data.missed : 1;
      const gap = { id: this.position, event: "realtime:gap", data: { missed }, time: Date.now() / 1000 };
      this.#queue = [[gap, 0]];
      this.#size = 0;
    }
    if (id) this.#since = id;
    this.#queue.push([message, size]);
    this.#size += size;
    if (told) this.#tell(told, message);
    this.#tell("message", message);
  }

  // Connecting, and coming back

  async #run() {
    for (let failures = 0; ; ) {
      const end = await this.#attempt();
      if (this.closed) return;
      failures = this.#stood && Date.now() - this.#stood >= STOOD ? 0 : failures + 1;
      const { token } = this.#options;
      const { code = LOST, reason, status = code } = end;
      const renewed = failures < 3 && typeof token === "function" && (status === 401 || status === 4401);
      if (!end.comesBack && !renewed) return this.#end(end);
      const delay = this.#options.backoff(failures, code, end.retryAfter);
      this.#tell("down", { code, reason, delay });
      if (this.closed) return;
      await new Promise((resolve) => {
        this.#wake = resolve;
        this.#timer = setTimeout(resolve, delay);
      });
    }
  }

  /**
   * How a connection ended. Of a WebSocket that does not open a script learns nothing; the same URL asked
   * for events tells: who refuses both says why, who answers neither is away, else that is the way.
   */
  async #attempt() {
    const { transport } = this.#options;
    if (transport === "sse" || this.#refusals >= REFUSALS) return this.#over(this.#events);
    const end = await this.#over(this.#websocket);
    if (this.#stood) this.#refusals = 0;
    if (this.#stood || end.code !== LOST) return end;
    const other = await this.#over(this.#events);
    if (this.#stood) this.#refusals += 1;
    return [405, 406, 426].includes(other.status) ? end : other; // it serves no events
  }

  async #over(open) {
    const cut = (this.#cut = new AbortController());
    const ended = new Promise((_, reject) => {
      cut.signal.onabort = () => reject(cut.signal.reason);
    });
    this.#goodbye = this.#stood = undefined;
    this.#heard = Date.now();
    this.#silence = this.#options.timeout; // until the welcome
    this.#look();
    let end;
    try {
      end = await Promise.race([ended, open.call(this, cut)]);
    } catch (error) {
      end = error instanceof RealtimeError ? error : new Closed(LOST, error.message);
    }
    end = this.#goodbye ?? end;
    clearTimeout(this.#timer);
    this.#cut = this.#send = undefined;
    this.transport = this.degraded = null;
    cut.abort(end);
    // What the server will never take is no question of whether it has arrived.
    const fate = end.comesBack || end.code === 1000 ? new Unconfirmed(CUT) : end;
    for (const { reject } of this.#acks.values()) reject(fate);
    this.#acks.clear();
    return end;
  }

  async #address(fields) {
    const { name, token } = this.#options;
    const url = new URL(this.#url);
    url.hash = "";
    const all = { name, token: typeof token === "function" ? await token() : token, ...fields };
    for (const [key, value] of Object.entries(all)) if (value) url.searchParams.set(key, value);
    return url.href;
  }

  async #websocket(cut) {
    const url = await this.#address({ since: this.#since });
    cut.signal.throwIfAborted();
    const ws = new this.#options.WebSocket(url.replace("http", "ws"), V1);
    cut.signal.addEventListener("abort", () => ws.close(1000));
    const send = ({ event, bytes, json }) =>
      new Promise((resolve, reject) => {
        const ref = (this.#ref += 1);
        this.#acks.set(ref, { resolve, reject });
        const text = bytes && btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
        const data = bytes ? `"${text}","encoding":"base64"` : json;
        ws.send(`{"event":${JSON.stringify(event)},"ref":${ref},"data":${data}}`);
      });
    return new Promise((resolve) => {
      ws.onmessage = ({ data }) => this.#hear(data, cut, "websocket", send);
      ws.onclose = ({ code, reason }) => resolve(new Closed(code, reason));
      ws.onerror = () => {}; // a close follows
    });
  }

  /** Server-sent events, of which each is one line of data that says all. */
  async #events(cut) {
    const asks = this.#options.transport === "websocket"; // only why there is none
    const response = await this.#options.fetch(await this.#address({ since: this.#since }), {
      method: asks ? "HEAD" : "GET",
      headers: { Accept: `text/event-stream;profile=${V1}` },
      cache: "no-store",
      signal: cut.signal,
    });
    const type = response.headers.get("Content-Type") ?? "";
    if (!response.ok || !type.includes(V1)) throw await refusal(response);
    if (asks) throw new Closed(LOST, "no WebSocket can be opened");
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ; ) {
      const { done, value } = await reader.read();
      if (done) return new Closed(1005, "the stream has ended");
      this.#heard = Date.now();
      const lines = value.split("\n");
      lines[0] = rest + lines[0];
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) this.#hear(line.slice(5), cut, "sse", this.#post);
      }
    }
  }

  #post = async ({ event, bytes, json }, signal) => {
    const url = await this.#address({ event: event !== "message" && event });
    const headers = {
      "Content-Type": bytes ? "application/octet-stream" : "application/json",
      "Idempotency-Key": crypto.getRandomValues(new Uint32Array(4)).join("-"),
    };
    const request = { method: "POST", headers, body: bytes || json, redirect: "manual", signal };
    const servers = this.#servers;
    for (let failures = 0; ; failures += 1) {
      let advice;
      try {
        const response = await this.#options.fetch(url, request);
        if (!response.ok) throw await refusal(response);
        const { id = null, messages = [] } = await response.json();
        for (const message of messages) this.#take(decode(message), 0); // said to its sender alone
        return id;
      } catch (error) {
        if (error instanceof Refused && !(failures && error.comesBack)) throw error;
        advice = error.retryAfter;
      }
      // Once more, to a server that knows whether it has heard it.
      await new Promise((resolve) => setTimeout(resolve, this.#options.backoff(failures, LOST, advice)));
      while (!this.#send && !this.closed) await this.#news();
      if (signal.aborted || this.closed || this.#servers > servers) throw new Unconfirmed(CUT);
    }
  };

  // Signs of life

  /** Come back now rather than later; cut what was silent for too long, and look again when it may be. */
  #look = ({ type } = {}) => {
    if (type === "visibilitychange" && document.hidden) return;
    if (type === "online") this.#refusals = 0; // it may be another network
    clearTimeout(this.#timer);
    this.#wake();
    const now = Date.now();
    this.#heard = Math.min(this.#heard, now); // the clock may have gone back
    const left = this.#heard + this.#silence - now;
    if (left > 0) this.#timer = setTimeout(this.#look, Math.min(left, 1e9));
    else this.#cut?.abort(new Closed(LOST, `nothing was heard for ${this.#silence / 1000}s`));
  };

  #end(error) {
    if (this.closed) return;
    this.closed = error;
    this.#life.abort();
    this.#cut?.abort(error);
    clearTimeout(this.#timer);
    this.#wake();
    this.#tell("close", error);
  }
}

/** Open a channel: a `Connection`, which connects by itself. */
export const connect = (url, options) => new Connection(url, options);
