"""A small engine that a plugin offers, for the tests of what is around an engine."""

from __future__ import annotations

SOURCE = '''
"""A shelf, for the logs."""

from contextlib import asynccontextmanager

from pydantic import PositiveInt
from realtime import Engine, Model, Secret, StartError, hookimpl


class Shelf(Engine):
    """Keeps the logs on a shelf."""

    class Settings(Model):
        """What a shelf can be set."""

        key: Secret
        """what opens it"""

        depth: PositiveInt = 3
        """how deep it is"""

    def __init__(self, settings, bus):
        super().__init__(settings, bus)
        bus.diary = []

    @asynccontextmanager
    async def lifespan(self):
        self.bus.diary.append("engine begins")
        if self.settings.depth == 99:
            raise StartError("the shelf is too deep")
        if self.settings.depth == 98:
            raise LookupError("no shelf")
        self.node = "n1"
        yield
        self.bus.diary.append("engine ends")


@hookimpl
def register_engines():
    return {"shelf": Shelf}
'''
FILES = {"shelf.py": SOURCE}
BUS = "bus: {engine: shelf, key: s3cret}\n"
