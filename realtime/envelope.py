"""The JSON object that a message travels in, with the subprotocol ``realtime.v1.json``.

The server writes ``{"id": "epoch-offset", "event": "message", "data": …, "time": seconds}``, without
``id`` for what is in no topic; bytes as ``"data": base64, "encoding": "base64"``. A client writes
``{"data": …}``, with ``event``, ``ref`` and ``encoding`` as it likes.
"""

from __future__ import annotations

import base64

import orjson

from realtime.errors import did_you_mean
from realtime.message import Message, Position, said

Ref = str | int

#: The name of the subprotocol.
V1_JSON = "realtime.v1.json"
#: The longest ``ref`` that is a text, in bytes of UTF-8: it is kept, and said again.
MAX_REF = 64
_KEYS = ("event", "data", "encoding", "ref")


class BadEnvelope(ValueError):
    """What a client wrote is no such object; ``ref`` is what it wanted to be answered by."""

    def __init__(self, why: str, ref: Ref | None = None) -> None:
        super().__init__(why)
        self.ref = ref


def write(message: Message) -> bytes:
    """The object of a message, as the server writes it."""
    id = b"" if message.id is None else b'"id":"%s",' % str(message.id).encode()
    return b'{%s%s,"time":%s}' % (id, _body(message), orjson.dumps(message.time))


def ask(message: Message, ref: Ref) -> bytes:
    """The object of a message, as a client writes it that wants to be answered by ``ref``."""
    return b'{%s,"ref":%s}' % (_body(message), orjson.dumps(ref))


def _body(message: Message) -> bytes:
    """What both write. A message's JSON is put in as it is, not read and written again."""
    data = message.payload
    if message.kind == "text":
        data = orjson.dumps(data.decode())
    elif message.kind == "bytes":
        data = b'"%s","encoding":"base64"' % base64.b64encode(data)
    return b'"event":%s,"data":%s' % (orjson.dumps(message.event), data)


def read(text: bytes) -> tuple[Message, Ref | None]:
    """What a client says with such an object, and the ``ref`` by which it wants to be answered.

    Raises :exc:`BadEnvelope`, whose text is a sentence for whoever wrote the client.
    """
    try:
        given = orjson.loads(text)
    except ValueError as error:
        raise BadEnvelope(f"this is no JSON: {error}") from None
    if not isinstance(given, dict):
        raise BadEnvelope('a frame is a JSON object such as {"data": "hi"}')
    ref = given.get("ref")
    if not (ref is None or type(ref) is int or (isinstance(ref, str) and len(ref.encode()) <= MAX_REF)):
        raise BadEnvelope(f"a ref is a whole number of 64 bits, or a text of at most {MAX_REF} bytes")
    try:
        return _read(given), ref
    except ValueError as error:
        raise BadEnvelope(str(error), ref) from None


def _read(given: dict[str, object]) -> Message:
    for key in given:
        if key not in _KEYS:
            hint = did_you_mean(key, _KEYS) or f"; there are {', '.join(_KEYS)}"
            raise ValueError(f"there is no key {key[:60]!r}{hint}")
    if "data" not in given:
        raise ValueError("data is missing")
    data, event = given["data"], given.get("event", "message")
    if not isinstance(event, str):
        raise ValueError("an event is a text")
    if "encoding" in given:
        if given["encoding"] != "base64" or not isinstance(data, str):
            raise ValueError("the only encoding is base64, of data that is a text")
        try:
            data = base64.b64decode(data, validate=True)
        except ValueError as error:
            raise ValueError(f"this data is no base64: {str(error).lower()}") from None
    return said(data, event=event)


def acknowledge(ref: Ref, position: Position | None) -> bytes:
    """The answer to a message that was heard: where what was published for it stands, if anything."""
    answer: dict[str, object] = {"event": "realtime:ack", "ref": ref}
    if position is not None:
        answer["id"] = str(position)
    return orjson.dumps(answer)


def refuse(why: str, ref: Ref | None, status: int = 400) -> bytes:
    """The answer to what is no such object, or is not taken; ``status`` is what HTTP would say."""
    named = {} if ref is None else {"ref": ref}
    return orjson.dumps({"event": "realtime:error", **named, "data": {"message": why, "status": status}})
