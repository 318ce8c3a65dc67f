"""What the Redis engine keeps, byte by byte: its keys, the entries of its streams, and its scripts.

Of every topic there is a hash (its epoch, and the offset of its newest message), a stream (the entry of
offset 7 has the id ``7-0``), with presence a hash of who is here, and one of what only one can have. Their
names have the topic as their hash tag, so a cluster keeps them together. What is published goes out on the
channel of the topic, as a push: its position, a line break, and its entry.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any, NamedTuple

import orjson

from realtime.message import Message

#: How entries are written; what is written otherwise is by a version that is not this one.
VERSION = 1
#: No message is of a time so far from 1970, in seconds.
NEVER = 1e11
#: In place of the position, in a push that has none: somebody came or went of whom no message tells.
NOWHERE = b"-"
#: In place of the position, in a push that asks every process that has the topic to do something.
REQUEST = b"?"


class Keys(NamedTuple):
    """The names of what is kept of one topic."""

    channel: bytes
    head: bytes
    log: bytes
    here: bytes
    names: bytes

    @classmethod
    @functools.lru_cache(1024)  # asked for with every publish
    def of(cls, prefix: str, topic: str) -> Keys:
        """Those of a topic, which begins with a channel's name: so the tag is never empty."""
        channel = f"{prefix}:{{{topic}}}".encode()
        return cls(channel, *(channel + of for of in (b":head", b":log", b":here", b":names")))

    def once(self, key: str) -> bytes:
        """The name of what remembers that something was published."""
        return self.channel + b":once:" + key.encode()


class Script:
    """A script in Lua, and the name by which Redis knows it when it was loaded."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.sha = hashlib.sha1(text, usedforsecurity=False).hexdigest()


class Change(NamedTuple):
    """Somebody comes (``+``) or goes (``-``)."""

    sign: str
    id: str


class Entry(NamedTuple):
    """A message as it is kept, by whom it was published, and who has come or gone with it."""

    node: str
    number: int
    message: Message
    change: Change | None


def token(node: str, number: int) -> bytes:
    """How an entry begins: no other does."""
    return b'[%d,"%s",%d,' % (VERSION, node.encode(), number)


def write(node: str, number: int, message: Message, change: Change | None = None) -> bytes:
    """An entry: a line of JSON, and the payload as it is."""
    event, kind, payload, time = message[:4]
    more = orjson.dumps([time, event, kind, *(change or ())])
    return token(node, number) + more[1:] + b"\n" + payload


def read(data: bytes) -> Entry:
    """The same back. Raises :exc:`ValueError` for anything else."""
    line, end, payload = data.partition(b"\n")
    try:
        version, node, number, time, event, kind, *change = orjson.loads(line)
        fits = version == VERSION and end and isinstance(node, str) and isinstance(number, int)
        if not (fits and event and event.isprintable() and 0 <= time < NEVER):
            raise ValueError
        said = None
        if kind == "text":
            payload.decode()
        elif kind == "json":
            said = orjson.loads(payload)
        elif kind != "bytes":
            raise ValueError
        message = Message(event, kind, payload, float(time))
        if not change:
            return Entry(node, number, message, None)
        sign, who = change
        if not (isinstance(who, str) and (sign == "-" or (sign == "+" and isinstance(said, dict)))):
            raise ValueError
        return Entry(node, number, message, Change(sign, who))
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{data[:60]!r} is no entry") from None


def told(value: bytes) -> tuple[bool, dict[str, Any], tuple[int, int]]:
    """What a hash has of somebody who is here: whether it was told aloud, what, and when.

    Raises :exc:`ValueError`.
    """
    match orjson.loads(value):
        case [bool(aloud), dict(about), int(moment), int(number)]:
            return aloud, about, (moment, number)
    raise ValueError("no member")


#: How both scripts begin. ``ARGV`` has first in which run of Redis this is, then an epoch for a log that
#: begins now. A run that is new to the log is written down; and for each run before it the least offset at
#: which one after that has found the log: no restart has taken back what was seen up to there. A Redis that
#: is full can still be read.
_HEAD = b"""
local kept = redis.call('HMGET', KEYS[1], 'epoch', 'offset', 'run')
local epoch, offset = kept[1], tonumber(kept[2])
if not offset then epoch, offset = false, 0 end
if epoch and kept[3] ~= ARGV[1] then
  local past = (kept[3] or '') .. ':' .. offset .. ' ' .. (redis.call('HGET', KEYS[1], 'past') or '')
  local runs = {}
  for run, from in string.gmatch(past, '(%w+):(%d+)') do
    if #runs < 16 then runs[#runs + 1] = run .. ':' .. math.min(from, offset) end
  end
  redis.pcall('HSET', KEYS[1], 'run', ARGV[1], 'past', table.concat(runs, ' '))
end
"""

#: Put one entry at the head, and tell everybody.
#:
#: ``KEYS``: head, log, and what ``how`` is about. ``ARGV``: as above; the epoch, offset and oldest offset
#: that the process knows; for how long the log stays without anybody (ms); when it is too late (Redis's
#: clock, ms); the entry; how; and two more for that: ``once`` (for how long it is remembered, what was
#: said), ``+`` (id, what is told), ``-`` (id), or nothing.
#:
#: A log whose head is before what somebody has seen of it has lost something: it begins anew. What is in
#: the place of a stream, or past its head, goes; nothing goes for any other refusal. Who may not
#: do what follows the message puts none: it would be put again with each attempt. The answer is the
#: epoch, the offset, and a word where no message was put: ``late``; ``known``, and what was said;
#: ``there`` and ``gone`` for one who had come or gone already; ``quiet`` where there was none to put.
PUBLISH = Script(
    b"""
local now = redis.call('TIME')
if now[1] * 1000 + now[2] / 1000 > tonumber(ARGV[7]) then return {'', 0, 'late'} end
"""
    + _HEAD
    + b"""
local how = ARGV[9]
if how == 'once' then
  local known = redis.call('HMGET', KEYS[3], 'epoch', 'offset', 'said')
  if known[1] then return {known[1], tonumber(known[2]), 'known', known[3]} end
elseif how == '-' and redis.call('HEXISTS', KEYS[3], ARGV[10]) == 0 then
  return {epoch or '', offset, 'gone'}
elseif how == '+' and redis.call('HEXISTS', KEYS[3], ARGV[10]) == 1 then
  return {epoch or '', offset, 'there'}
end
if ARGV[8] ~= '' then
  local oldest = 0
  if not epoch or (epoch == ARGV[3] and offset < tonumber(ARGV[4])) then
    epoch, offset = ARGV[2], 0
    redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', 0, 'run', ARGV[1], 'past', '')
    redis.call('DEL', KEYS[2])
  elseif epoch == ARGV[3] then
    oldest = ARGV[5]
  end
  if how ~= '' then redis.call('HSET', KEYS[1], 'epoch', epoch) redis.call('HDEL', KEYS[1], '') end
  offset = redis.call('HINCRBY', KEYS[1], 'offset', 1)
  local add = {'XADD', KEYS[2], 'MINID', '~', oldest, offset .. '-0', 'e', ARGV[8]}
  local wrong = redis.pcall(unpack(add)).err
  if wrong and (wrong:find('WRONGTYPE') or wrong:find('smaller') or wrong:find('exhausted')) then
    redis.call('DEL', KEYS[2])
    redis.call(unpack(add))
  elseif wrong then
    redis.call('HINCRBY', KEYS[1], 'offset', -1)
    return redis.error_reply(wrong)
  end
  if wrong or offset == 1 then
    redis.call('PEXPIRE', KEYS[1], ARGV[6])
    redis.call('PEXPIRE', KEYS[2], ARGV[6])
  end
end
local channel = string.sub(KEYS[1], 1, -6)
if how == '+' then
  redis.call('HSET', KEYS[3], ARGV[10], ARGV[11])
  redis.call('PEXPIRE', KEYS[3], ARGV[6])
elseif how == '-' then
  redis.call('HDEL', KEYS[3], ARGV[10])
elseif how == 'once' then
  redis.call('HSET', KEYS[3], 'epoch', epoch, 'offset', offset, 'said', ARGV[11])
  redis.call('PEXPIRE', KEYS[3], ARGV[10])
end
if ARGV[8] ~= '' then
  redis.call('PUBLISH', channel, epoch .. '-' .. offset .. '\\n' .. ARGV[8])
  return {epoch, offset}
end
redis.call('PUBLISH', channel, '-\\n' .. ARGV[12])
return {epoch or '', offset, 'quiet'}
"""
)

#: What a log has after an offset, whether it is still the same log, and who is here.
#:
#: ``KEYS``: head, log, here, names. ``ARGV``: as above; the epoch and offset that the process knows, the
#: beginning of its entry there, in which run of Redis that was; how many bytes of entries at most (one
#: always goes), for how long the log stays, the oldest offset that is wanted, whether members are, and for
#: how long a log stays that has nothing: whoever asks for what there is not is not to fill Redis.
#:
#: It is the same log if that entry is where it was; and where it is no longer kept, if no run since has
#: begun before it.
#:
#: The answer is the epoch, the offset, the entries (id and fields), whether there are more of them (``1``),
#: and the members (id, what is told, …).
SYNC = Script(
    _HEAD
    + b"""
local known, seen = tonumber(ARGV[4]), ARGV[6]
local kind = redis.call('TYPE', KEYS[2]).ok
if kind ~= 'stream' and kind ~= 'none' then redis.call('DEL', KEYS[2]) end
local same = epoch and epoch == ARGV[3]
if same and offset < known then
  epoch = false
elseif same and known > 0 then
  local at = ARGV[5] ~= '' and redis.call('XRANGE', KEYS[2], known, known)[1]
  if at then
    same = string.sub(at[2][2], 1, #ARGV[5]) == ARGV[5]
  elseif seen ~= ARGV[1] then
    local past = ' ' .. (redis.call('HGET', KEYS[1], 'past') or '')
    same = known <= tonumber(string.match(past, ' ' .. seen .. ':(%d+)') or 0)
  end
  if not same then epoch = false end
end
if not epoch then
  epoch, offset, same = ARGV[2], 0, false
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', 0, 'run', ARGV[1], 'past', '')
  redis.call('DEL', KEYS[2])
end
local entries, more, size, from = {}, 0, 0, '-'
if same then
  from = known + 1
  redis.call('XTRIM', KEYS[2], 'MINID', '~', ARGV[9])
end
while not same or known < offset do
  local some = redis.call('XRANGE', KEYS[2], from, offset, 'COUNT', 4)
  for _, entry in ipairs(some) do
    entries[#entries + 1] = entry
    for _, field in ipairs(entry[2]) do size = size + #field end
    from = '(' .. entry[1]
  end
  if #some < 4 then break end
  if size >= tonumber(ARGV[7]) then more = 1 break end
end
redis.call('PEXPIRE', KEYS[1], offset > 0 and ARGV[8] or ARGV[11])
redis.call('PEXPIRE', KEYS[2], ARGV[8])
local here = {}
if ARGV[10] == '1' then
  here = redis.call('HGETALL', KEYS[3])
end
redis.call('PEXPIRE', KEYS[3], ARGV[8])
redis.call('PEXPIRE', KEYS[4], ARGV[8])
return {epoch, offset, entries, more, here}
"""
)

#: Have a name, unless somebody has it. ``KEYS``: names. ``ARGV``: the name, its value, for how long the
#: names stay, and a value that is nobody's. The answer is the value that it has.
CLAIM = Script(b"""
local kept = redis.call('HGET', KEYS[1], ARGV[1])
if not kept or kept == ARGV[4] then
  kept = ARGV[2]
  redis.call('HSET', KEYS[1], ARGV[1], kept)
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return kept
""")

#: Give a name back, if this one has it. ``KEYS``: names. ``ARGV``: the name, the beginning of its value.
RELEASE = Script(b"""
local holder = redis.call('HGET', KEYS[1], ARGV[1])
if holder and string.sub(holder, 1, #ARGV[2]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
""")
