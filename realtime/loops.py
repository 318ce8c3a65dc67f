"""The event loop that a server runs on: uvloop where it exists, asyncio's own where not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal

Choice = Literal["auto", "uvloop", "asyncio"]


def chosen(choice: Choice) -> Literal["uvloop", "asyncio"]:
    """Which loop that is here.

    Raises :exc:`ValueError` for uvloop where it is not installed.
    """
    if choice == "asyncio":
        return "asyncio"
    if find_spec("uvloop") is not None:
        return "uvloop"
    if choice == "uvloop":
        raise ValueError("uvloop is not installed here: pip install uvloop, or write auto or asyncio")
    return "asyncio"


def factory(choice: Choice) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes such a loop, for :class:`asyncio.Runner`."""
    if chosen(choice) == "asyncio":
        return asyncio.new_event_loop
    import uvloop

    _fill_standard_streams()
    return uvloop.new_event_loop


def _fill_standard_streams() -> None:
    """Open what is closed of the first three descriptors: libuv aborts when it comes to own one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
