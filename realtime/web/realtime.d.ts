/** The types of `realtime.js`. */

/** A message of a channel. */
export interface Message<Data = any> {
  /** The position, to give as `since` another time; `null` for a message to this client alone. */
  readonly id: string | null;
  /** `message`, a name of the channel's own, or one of the server's, such as `realtime:join`. */
  readonly event: string;
  /** What was published: a text, bytes as a `Uint8Array`, or any other JSON. */
  readonly data: Data;
  /** When it was published, in seconds since 1970. */
  readonly time: number;
}

/** What the server says of a new connection. */
export interface Welcome {
  readonly client?: string;
  readonly channel?: string;
  readonly outcome?: "new" | "recovered" | "gap" | "reset";
  readonly missed?: number;
  /** The longest silence, in seconds. */
  readonly heartbeat?: number;
  /** When it was said, by the server's clock: what was published before was recovered. */
  readonly time?: number;
  readonly [fact: string]: unknown;
}

/** A cut, and when it will be tried again, in milliseconds. */
export interface Down {
  readonly code: number;
  readonly reason: string;
  readonly delay: number;
}

/** What is dispatched, by its type; each is a `CustomEvent` with this `detail`. */
export interface Details<Data = any> {
  open: Welcome;
  message: Message<Data>;
  gap: Message<{ missed: number }>;
  reset: Message;
  degraded: Message<{ reason: string }>;
  restored: Message;
  down: Down;
  close: Closed | Refused;
}

/** Who is told: a function, or an object that handles events. */
export type Listener<Detail> =
  | ((event: CustomEvent<Detail>) => void)
  | { handleEvent(event: CustomEvent<Detail>): void };

/** What can be sent: a text, bytes, or anything else that JSON can say. */
export type Sendable = string | ArrayBuffer | ArrayBufferView | number | boolean | object | null;

export interface Options {
  /** The name, in a chat: the parameter `?name=`. */
  name?: string;
  /** Where to begin: a position, `-20` for the newest 20, `"earliest"`. */
  since?: string | number;
  /** `"auto"`: a WebSocket, or server-sent events and POST where none can be opened. */
  transport?: "auto" | "websocket" | "sse";
  /** The parameter `?token=`; a function is asked before each connection and each POST. */
  token?: string | (() => string | Promise<string>);
  /** How long connecting or sending may take, in milliseconds; 10,000 by default. */
  timeout?: number;
  /** How many milliseconds the heartbeat may be late; 10,000 by default. */
  slack?: number;
  /** When to come back: `backoff` by default. */
  backoff?: typeof backoff;
  /** Instead of the global ones: for node, or to send cookies to another origin. */
  WebSocket?: new (url: string, protocol: string) => any;
  fetch?: (url: string, init: any) => Promise<any>;
}

/** Opens a channel: a connection that connects by itself, and comes back when it is cut. */
export function connect<Data = any>(url: string | URL, options?: Options): Connection<Data>;

export class Connection<Data = any> extends EventTarget implements AsyncIterableIterator<Message<Data>> {
  constructor(url: string | URL, options?: Options);
  /** What the server's welcome says; empty before it has come. */
  readonly welcome: Welcome;
  /** How it has ended, once and for all; `null` while it has not. */
  readonly closed: Closed | Refused | null;
  /** What it runs over; `null` while there is no connection. */
  readonly transport: "websocket" | "sse" | null;
  /** Why the server takes no messages now, in a sentence; `null` while it does, and without a connection. */
  readonly degraded: string | null;
  /** The last position that came; `null` where there is none. */
  readonly position: string | null;
  /**
   * Sends, and waits for the server's word: the position of what was published for it, or `null`.
   *
   * Rejects with `NotConnected`, `Unconfirmed`, `Refused` or `Closed`, and `TypeError` for what is no data.
   */
  send(data: Sendable, options?: { event?: string; timeout?: number }): Promise<string | null>;
  /**
   * Loses the connection, as if the network had cut it: to see that nothing is missed. It comes back by itself,
   * after the last message that came, or where `since` says, so that messages come again.
   */
  drop(options?: { since?: string | number }): void;
  /** Closes with 1000, once and for all. */
  close(): void;
  next(): Promise<IteratorResult<Message<Data>, undefined>>;
  [Symbol.asyncIterator](): this;
  addEventListener<Type extends keyof Details>(
    type: Type,
    listener: Listener<Details<Data>[Type]> | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<Type extends keyof Details>(
    type: Type,
    listener: Listener<Details<Data>[Type]> | null,
    options?: boolean | EventListenerOptions,
  ): void;
}

/** The wait before connecting again, in milliseconds: after so many failures, a code, and advice. */
export function backoff(failures: number, code?: number, advice?: number | null): number;

/** The base of all errors. */
export class RealtimeError extends Error {}

/** The connection has ended. */
export class Closed extends RealtimeError {
  constructor(code: number, reason?: string, retryAfter?: number | null);
  /** A close code. */
  readonly code: number;
  /** The server's sentence, if there is one. */
  readonly reason: string;
  /** Whether connecting again makes sense. */
  readonly comesBack: boolean;
  /** After how many milliseconds the server asks to come back. */
  readonly retryAfter: number | null;
  readonly status?: undefined;
}

/** The server said no, to a connection or to a message. */
export class Refused extends RealtimeError {
  constructor(reason: string, status?: number, retryAfter?: number | null);
  /** The server's sentence. */
  readonly reason: string;
  /** That of HTTP, or what it would be for a message over a WebSocket. */
  readonly status?: number;
  /** Whether asking again makes sense. */
  readonly comesBack: boolean;
  readonly retryAfter?: number | null;
  readonly code?: undefined;
}

/** There was no connection in time; nothing was sent. */
export class NotConnected extends RealtimeError {}

/** A message was sent, but the connection or the time ended first: it may have arrived or not. */
export class Unconfirmed extends RealtimeError {}
