"""Compression (``permessage-deflate``, RFC 7692): what is agreed on, and what a client has compressed.

No message refers to another, in neither direction: what is published is compressed once for everybody
(``encodings.DeflatedFrames``), and a connection keeps nothing for the next message.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

from aiohttp import WebSocketError

from realtime.close_codes import CloseCode
from realtime.encodings import DEFLATE_END, WINDOW_BITS
from realtime.message import Message, heard
from realtime.transports.framing import TOO_LARGE

NOT_UTF_8 = "the text is not UTF-8"
_ANSWER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
_BITS = f"server_max_window_bits={WINDOW_BITS}"
#: What may be said of each parameter (section 7.1); an offer of anything else is declined. That of a
#: window smaller than ours is, too: what is compressed for everybody is not for this client.
_PARAMETERS = {
    "server_no_context_takeover": "",
    "client_no_context_takeover": "",
    "server_max_window_bits": f"1[{WINDOW_BITS % 10}-5]",
    "client_max_window_bits": "|[89]|1[0-5]",
}
_CHARACTER = r"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_PARAMETER = re.compile(
    rf"""[ \t]*({_CHARACTER}+)[ \t]*(?:=[ \t]*({_CHARACTER}+|"(?:\\?{_CHARACTER})+")[ \t]*)?"""
)


def agree(headers: Iterable[str]) -> str | None:
    """The answer to what ``Sec-WebSocket-Extensions`` offers, or None.

    Raises :exc:`ValueError` for what is no list of extensions (RFC 6455, section 9.1).
    """
    answers = []
    # Even what is quoted is a token, so a comma or a semicolon is always one.
    for offer in ",".join(headers).split(","):
        if offer.strip(" \t"):
            (name, value), *parameters = map(_parameter, offer.split(";"))
            if value:
                raise ValueError(f"{name[:60]!r} has a value, and is an extension")
            if name == "permessage-deflate" and _acceptable(parameters):
                sized = any(name == "server_max_window_bits" for name, _ in parameters)
                answers.append(f"{_ANSWER}; {_BITS}" if sized else _ANSWER)
    return answers[0] if answers else None


def _parameter(text: str) -> tuple[str, str]:
    match = _PARAMETER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:60]!r} is no extension of WebSocket, and no parameter of one")
    return match[1], re.sub(r'["\\]', "", match[2] or "")


def _acceptable(parameters: list[tuple[str, str]]) -> bool:
    names = {name for name, _ in parameters}
    return len(names) == len(parameters) and all(
        name in _PARAMETERS and re.fullmatch(_PARAMETERS[name], value) for name, value in parameters
    )


class Deflated(Message):
    """A message of a client as it came: compressed, however much that may become."""

    __slots__ = ()

    def inflate(self, limit: int) -> Message:
        """The message. Raises :exc:`WebSocketError` for one that breaks the protocol or the limit."""
        if not self.payload:
            return heard(self.kind, b"")
        inflater, whole = zlib.decompressobj(-zlib.MAX_WBITS), True
        try:
            data = inflater.decompress(self.payload + DEFLATE_END, limit + 1)
            # What ends in the middle of a block would take our end for some of its own data. An empty last
            # block tells: only where a block may begin does it end the stream.
            if len(data) <= limit and not inflater.eof:
                data += inflater.decompress(b"\x03\0")
                whole = inflater.eof
        except zlib.error:
            whole = False
        # A sender without a sync flush ends the last block instead, and begins an empty one (7.2.3.4).
        if not whole or inflater.unused_data not in (b"", DEFLATE_END, b"\0" + DEFLATE_END):
            raise WebSocketError(CloseCode.BAD_DATA, "what is compressed cannot be inflated")
        if len(data) > limit:
            raise WebSocketError(CloseCode.TOO_BIG, TOO_LARGE)
        if self.kind == "text":
            try:
                data.decode()
            except UnicodeDecodeError:
                raise WebSocketError(CloseCode.BAD_DATA, NOT_UTF_8) from None
        return heard(self.kind, data)
