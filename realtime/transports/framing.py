"""Where a client stands in its frames (RFC 6455, section 5.2), from their headers alone.

aiohttp's reader unmasks frames and puts messages together. What it lets pass is found here, before it
sees it: frames that are not masked, a message inside another, fragments without end, and a message
that does not come whole.
"""

from __future__ import annotations

from realtime.close_codes import CloseCode, End

#: How long a message may take to come whole, in seconds: from its first byte, …
MESSAGE_WITHIN = 30.0
#: … and a second more for each so many bytes of it that have come.
MESSAGE_RATE = 16 * 1024
#: How many fragments a message may have, …
FRAGMENTS = 1024
#: … and one more for each so many bytes that it may have.
FRAGMENT = 16

LATE = f"a message did not come whole within {MESSAGE_WITHIN:g}s and a second for each 16KiB of it"
TOO_LARGE = "the message is larger than limits.max_message allows"
#: The control frames, which may come between the fragments of a message, begin here.
_CONTROL = 0x8
_FIN, _RSV1, _MASK, _OPCODE = 0x80, 0x40, 0x80, 0x0F


class Framing:
    """Follows the frames of one client."""

    __slots__ = (
        "_fragments",
        "_head",
        "_left",
        "_limit",
        "_max_deflated",
        "_max_message",
        "_open",
        "_size",
        "begun",
        "held",
        "wrong",
    )

    def __init__(self, max_message: int, max_deflated: int) -> None:
        self._max_message = max_message
        self._max_deflated = max_deflated
        #: When what is unfinished began, a message or a frame, in the loop's time; 0.0: nothing is.
        self.begun = 0.0
        #: How many bytes of an unfinished message have come.
        self.held = 0
        #: What ends the connection.
        self.wrong: End | None = None
        self._head = b""  # the beginning of a header
        self._left = 0  # of a frame, its mask included
        self._open = False  # a fragment came that was not the last
        self._size = 0  # of the message, as far as it is announced
        self._limit = max_message  # of the message, as it comes
        self._fragments = 0

    def walk(self, data: bytes, now: float) -> int:
        """Go on over what came; returns how much of it a reader may have.

        That is all of it, or what is before the frame that is ``wrong``.
        """
        before = len(self._head)
        if before:
            data, self._head = self._head + data, b""
        size, at, anew = len(data), self._left, False
        while at < size:
            start = at
            if not self._open:
                anew, self._size = start >= before, 0
            at += 2
            if at <= size:
                first, second = data[start], data[start + 1]
                self._check(first, second)
                length = second & 0x7F
                if length > 125:
                    more = 2 if length == 126 else 8
                    at += more
                    length = int.from_bytes(data[at - more : at], "big")
                if at <= size and self.wrong is None and first & _OPCODE < _CONTROL:
                    self._count(first, length)
                if self.wrong is not None:
                    return max(0, start - before)
            if at > size:
                self._head, at = data[start:], size
                break
            at += 4 + length
        self._left = at - size
        if self._open or self._left or self._head:
            if anew:
                self.begun = now
            self.held = max(0, self._size - self._left)
        else:
            self.begun, self.held = 0.0, 0
        return size - before

    def due(self) -> float:
        """By when what is unfinished must have come whole, in the loop's time."""
        return self.begun + MESSAGE_WITHIN + self.held / MESSAGE_RATE

    def _check(self, first: int, second: int) -> None:
        """Whether a frame may begin like this; what else is forbidden aiohttp's reader finds."""
        opcode = first & _OPCODE
        if not second & _MASK:
            self._refuse("a client masks its frames")
        elif opcode >= _CONTROL:
            if first & _RSV1:
                self._refuse("a control frame is not compressed")
        elif self._open is bool(opcode):
            self._refuse("a message began inside another" if opcode else "there is nothing to continue")

    def _refuse(self, reason: str, code: CloseCode = CloseCode.PROTOCOL_ERROR) -> None:
        self.wrong = End(code, reason)

    def _count(self, first: int, length: int) -> None:
        """Count a frame of a message, whose payload has still to come."""
        if first & _OPCODE:
            self._fragments = 0
            self._limit = self._max_deflated if first & _RSV1 else self._max_message
        self._size += length
        self._fragments += 1
        self._open = not first & _FIN
        most = FRAGMENTS + self._max_message // FRAGMENT
        if self._size > self._limit:
            self._refuse(TOO_LARGE, CloseCode.TOO_BIG)
        elif self._fragments > most:
            reason = f"a message of limits.max_message comes in at most {most} fragments"
            self._refuse(reason, CloseCode.POLICY)
