"""Who holds what should be gone: the attribute, how much of it, and the line of the plugin."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace
from typing import Any

from conftest import Serve

from realtime.channel import Channel, Client
from realtime.leaks import filled, growth, holder, opened, sizes, traced

KEEPER = """
from collections import deque

from realtime import Channel, hookimpl

SEEN = []


class Keeper(Channel):
    ids = set()

    def __init__(self, *args):
        super().__init__(*args)
        self.rooms: dict = {}
        self.recent = deque(maxlen=10)

    def keep(self, client):
        self.rooms.setdefault("a", []).append(client)
        self.recent.append(client)
        SEEN.append(1)
        self.ids.add(id(client))

    def take(self):
        return bytearray(100_000)

    def open(self):
        return open(__file__)


@hookimpl
def register_channels():
    return {"keeper": Keeper}
"""
CONFIG = "channels: {keeper: {plugin: keeper, path: /k}}\n"


def somebody() -> Client:
    """A client of nobody."""
    link: Any = SimpleNamespace()
    return Client(
        link, id="c1", topic="keeper", transport="sse", identity=None, query={}, remote="127.0.0.1"
    )


async def test_holder(serve: Serve) -> None:
    """The attribute that leads to a client is named, with the line that fills it."""
    async with serve(CONFIG, {"keeper.py": KEEPER}) as serving:
        keeper: Any = serving.server.channels["keeper"]
        client, other = somebody(), somebody()
        assert holder(keeper, client) == ("", "")
        keeper.keep(client)
        name, place = holder(keeper, client)
        assert name == "self.rooms"
        assert place.endswith('plugins/keeper.py:18: self.rooms.setdefault("a", []).append(client)')
        assert holder(keeper, other) == ("", "")


async def test_sizes(serve: Serve) -> None:
    """What is in a container counts, and in those within; one with a bound of its own does not."""
    async with serve(CONFIG, {"keeper.py": KEEPER}) as serving:
        keeper: Any = serving.server.channels["keeper"]
        keeper.keep(somebody())
        before = sizes(keeper)
        keeper.keep(somebody())
        grown = {name: size - before.get(name, 0) for name, size in sizes(keeper).items()}
        assert {name: size for name, size in grown.items() if size} == {
            "self.ids": 1,
            "self.rooms": 1,
            "SEEN": 1,
        }
        assert filled(keeper, "SEEN").endswith("keeper.py:20: SEEN.append(1)")


async def test_growth(serve: Serve) -> None:
    """What a line of a plugin has taken is told, and nothing of the server's own."""
    async with serve(CONFIG, {"keeper.py": KEEPER}) as serving:
        keeper: Any = serving.server.channels["keeper"]
        tracemalloc.start(3)
        try:
            taken = keeper.take()
            Channel("another", keeper.settings, serving.server.bus)
            ((place, size),) = [
                item for item in growth(tracemalloc.take_snapshot()).items() if "keeper.py" in item[0]
            ]
        finally:
            tracemalloc.stop()
        assert place.endswith("plugins/keeper.py:24")
        assert size >= len(taken)


async def test_opened(serve: Serve) -> None:
    """The line of the plugin that has opened what is open is named, and none when it is closed."""
    async with serve(CONFIG, {"keeper.py": KEEPER}) as serving:
        keeper: Any = serving.server.channels["keeper"]
        with traced():
            with keeper.open():
                assert opened().endswith("plugins/keeper.py:27: return open(__file__)")
            assert opened() == ""


async def test_opened_elsewhere(serve: Serve) -> None:
    """What somebody else has closed, and what was open before, is nobody's."""
    async with serve(CONFIG, {"keeper.py": KEEPER}) as serving:
        keeper: Any = serving.server.channels["keeper"]
        with keeper.open(), traced():
            closed = keeper.open()
            closed.close()
            assert opened() == ""
