"""What is tried against the server, and the right answer: the table behind the tests of this directory.

A test of row 51 is marked ``@fault(51)``; whatever rows have no test, or deviate, the table in
``docs/security.md`` tells.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest


class Fault(NamedTuple):
    """One row: what a client, the network, a file or the machine does, and what comes of it."""

    tried: str
    expected: str
    #: Why the answer is another one than expected; argued in ``docs/security.md``.
    deviates: str = ""


#: The groups, by their name in ``docs/security.md``, and the rows of each by number.
GROUPS: dict[str, dict[int, Fault]] = {
    "HTTP and the handshake": {
        1: Fault("no Host, two, one with a space or userinfo", "400, closed"),
        2: Fault(
            "Content-Length and chunked, doubled, signed, with _, of 20 digits",
            "400; nothing behind it runs",
        ),
        3: Fault("odd transfer codings, malformed chunks", "400, closed"),
        4: Fault("bare LF or CR, NUL, folded lines, space before the colon, no name", "400, closed"),
        5: Fault(
            "a target of 9 KB; a header of 9 KB, 129 headers; a method of 40 letters",
            "414; 431; 400",
        ),
        6: Fault("HTTP/0.9, 1.2, 2.0, a TLS hello, random bytes, zeros", "400 or 505, one line of the log"),
        7: Fault("a handshake by POST, PUT or HEAD", "405 with Allow"),
        8: Fault("a handshake over HTTP/1.0", "400 or 505"),
        9: Fault("no key, a short one, not base64, not ASCII, two", "400"),
        10: Fault("no version, or another than 13", "426, Sec-WebSocket-Version: 13"),
        11: Fault("Connection: keep-alive, Upgrade; odd case", "101"),
        12: Fault("a plain GET where only WebSockets are served", "426, Upgrade: websocket"),
        13: Fault("subprotocols: none known, a thousand, commas only", "none is echoed; quick"),
        14: Fault("extensions: garbage, 250 offers, odd window bits", "only what was offered"),
        15: Fault("a handshake with a body, a refused one followed by a request", "it is never run"),
        16: Fault("frames glued to the handshake", "heard"),
        17: Fault("a handshake on no channel's path, on a plain route", "404, the plain answer"),
        18: Fault("absolute targets, *, CONNECT, bad escapes, fragments, //, NUL", "400 or 404, no 500"),
        19: Fault("Expect: 100-continue, and another", "100, and 417"),
        20: Fault("an upgrade to h2c", "ignored"),
        21: Fault("an extended CONNECT, HTTP/2 over TLS", "400, ALPN http/1.1 only"),
        22: Fault("200 requests at once, 10,000 behind a slow one", "in order, bounded memory"),
        23: Fault("X-Forwarded-For from somebody untrusted", "ignored"),
        24: Fault("CR and LF in values that are echoed", "refused, no 500"),
    },
    "Frames": {
        25: Fault("a frame that is not masked", "1002"),
        26: Fault("reserved bits, reserved opcodes", "1002"),
        27: Fault("control frames over 125 bytes, in fragments", "1002"),
        28: Fault("a continuation first; a new message inside another", "1002"),
        29: Fault("control frames between fragments", "answered at once, the message whole"),
        30: Fault("lengths of 2^63, 2^62, the limit and one", "1009 before the payload is read"),
        31: Fault("messages of the limit, and of one more", "heard; 1009"),
        32: Fault("a million fragments of a byte, two million empty ones", "bounded; 1008"),
        33: Fault("a frame a byte a second", "1008 after half a minute"),
        34: Fault("many connections that each hold all but a byte", "within a budget of the server; 1013"),
        35: Fault("text that is not UTF-8", "1007"),
        36: Fault("a code point split over fragments and segments", "intact"),
        37: Fault("close codes that may not be sent, and those that may", "1002; echoed"),
        38: Fault("what the server closes with", "a code of the table, a short reason"),
        39: Fault("data after close, a second close, no answer to ours", "ignored; gone in 10 s"),
        40: Fault("FIN, RST, half-close, in each phase", "on_leave once, one line, no traceback"),
        41: Fault("binary where only text is taken", "1003"),
        42: Fault("garbage or a request after the 101", "1002"),
        43: Fault("Autobahn's fuzzing client", "no case failed"),
    },
    "Compression": {
        44: Fault("a gibibyte of zeros in a mebibyte", "1009, quick, no memory"),
        45: Fault("bombs in fragments, in the second message", "1009: the limit counts what comes out"),
        46: Fault("corrupt deflate", "1007"),
        47: Fault("RSV1 on continuations and control frames", "1002"),
        48: Fault("ten thousand compressed connections", "a stated budget; off by default"),
        49: Fault("compressed bodies of requests", "415"),
        50: Fault("a secret and a stranger's text in one window", "no window is kept"),
    },
    "Stalls and floods": {
        51: Fault("nothing said; half a request; a byte every 250 ms", "closed in 10 s, 408 after a line"),
        52: Fault("a handshake, and then no greeting", "1008 in 10 s"),
        53: Fault("a body a byte a second", "408 within 30 s"),
        54: Fault("TLS that never begins, renegotiation", "closed in 10 s"),
        55: Fault("5,000 silent connections", "others connect within a second"),
        56: Fault("a peer that vanishes while idle", "gone after the ping and its wait, told to the room"),
        57: Fault(
            "the same with data on its way, or one who takes nothing",
            "gone after 20 or 10 s, from the kernel too",
        ),
        58: Fault("no pongs, but data", "any byte is a sign of life"),
        59: Fault("pongs nobody asked for", "ignored"),
        60: Fault("a hundred thousand pings a second", "bounded"),
        61: Fault("one who never reads in a busy room", "cut, with the reason; the others undisturbed"),
        62: Fault("one who reads half of it", "cut or thinned, as the channel says"),
        63: Fault("a healthy client that pauses a second", "kept"),
        64: Fault("500 who never read, and SIGTERM", "exit within the grace"),
        65: Fault("a message larger than a client may lag", "refused when it is published: 413, 1009"),
        66: Fault("a thousand rooms; ten thousand in one", "the loop held no longer than 50 ms"),
        67: Fault("ten thousand reconnect at once", "spread by jitter and a rate"),
        68: Fault("a client that floods with messages", "closed with 4529, others undisturbed"),
        69: Fault("a backend that floods with POSTs", "429, Retry-After"),
        70: Fault("ten thousand idle clients", "20 KiB each, little CPU"),
        71: Fault(
            "more connections than a user, an address, a channel or the server may have",
            "429 or 503 before the 101",
        ),
        72: Fault("many subscriptions on one connection", "there is one"),
        73: Fault("100,000 rooms, rooms with odd names", "limited, refused, freed"),
    },
    "Event streams": {
        74: Fault("line breaks of every kind in data", "nothing forged"),
        75: Fault("control characters in event or id", "refused when it is published"),
        76: Fault("the headers, the first byte", "nothing buffers, at once"),
        77: Fault("silence", "a comment each 15 s"),
        78: Fault("a reader that leaves", "gone within a second of its FIN"),
        79: Fault("a reader that stops reading", "cut as in 61"),
        80: Fault("any Last-Event-ID", "a gap or a reset, nobody else's data"),
        81: Fault("statuses that end an EventSource for good", "overload is told in a stream that ends"),
        82: Fault("a seventh stream of one browser", "told in the documentation"),
        83: Fault("a token that ends", "the stream ends: realtime:bye with 4401, the last chunk"),
        84: Fault("HEAD, POST and other types on a stream's path", "a stated rule; HEAD opens nothing"),
        85: Fault("SIGTERM", "the last chunk, and when to come back"),
    },
    "Origins, tokens, files, bodies": {
        86: Fault("a page of another origin, however spelt", "403 before the 101"),
        87: Fault("a wildcard's neighbours", "403"),
        88: Fault("cookies from another origin", "no CORS by default, 403, the cookie is not believed"),
        89: Fault("a Host that is not ours", "421 when hosts are named"),
        90: Fault("JWT: alg none, keys swapped, kid, jku, crit", "401, before the 101"),
        91: Fault(
            "JWT: expired, no exp, wrong audience, garbage; a scope is missing",
            "401, invalid_token; 403; a megabyte as any header of that size",
        ),
        92: Fault("a token that ends during the connection", "4401 at once; in 20 s if a clock was set"),
        93: Fault("a token in the query", "in no log"),
        94: Fault("a weak secret", "no start, file:line:column"),
        95: Fault("a topic without the right", "refused, the connection stays"),
        96: Fault("guessing secrets", "constant time; wrong ones 429 after 20, right ones come in"),
        97: Fault("paths out of the files that are served", "400, 404 or 414, no listing"),
        98: Fault("a body of the limit and one byte, however sent", "413, closed"),
        99: Fault("JSON of every malformation", "400 with the place; what is relayed is valid"),
        100: Fault("the host's own pages from elsewhere", "closed by default"),
    },
    "The config": {
        101: Fault("no file, a directory, unreadable, empty", "exit 1, a line"),
        102: Fault("no YAML, not UTF-8, two documents, a list on top", "exit 1, file:line:column"),
        103: Fault("unknown keys", "exit 1, the one that was meant"),
        104: Fault("wrong types, out of range, YAML's traps", "exit 1, what was expected"),
        105: Fault("a key twice", "exit 1, both lines"),
        106: Fault("alias bombs, deep nesting, 50 MB", "exit 1 within a second"),
        107: Fault("tags that run code", "exit 1, nothing run"),
        108: Fault("a variable that is not set, secrets", "exit 1, its name; never shown"),
        109: Fault("two on one route, reserved paths, one name twice", "exit 1, both named"),
        110: Fault("a port in use, no permission, a stale socket", "exit 3, a line"),
    },
    "Plugins": {
        111: Fault("a plugin that cannot be imported, or is none", "exit 1, its own lines"),
        112: Fault("a handler that raises, anything", "that client alone; later plugins are called"),
        113: Fault("a handler that hangs or blocks, a task that dies", "named, with the stack"),
        114: Fault("a plugin that floods, changes messages, publishes from a thread", "limited, told"),
    },
    "The process and the machine": {
        116: Fault(
            "SIGTERM under load, or while a plugin holds the loop",
            "ready red, 1001 in batches, exit 0 in time",
        ),
        117: Fault("no descriptors, no disk, clocks that jump, little memory", "it sheds, and goes on"),
    },
}

FAULTS: dict[int, Fault] = {number: row for rows in GROUPS.values() for number, row in rows.items()}


def fault(number: int) -> pytest.MarkDecorator:
    """Marks a test of a row of the table."""
    assert number in FAULTS
    return pytest.mark.fault(number)
