"""The mistakes of an author: each is tried, and told with the plugin, the place and the remedy."""

from __future__ import annotations

import gc
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import wire
from conftest import make
from mistakes import MISTAKES, PAGE, Mistake, page

from realtime import logs
from realtime.errors import ConfigError
from realtime.transports import connection


def like(says: str) -> re.Pattern[str]:
    """What is said, with ``…`` for anything."""
    return re.compile(".*".join(map(re.escape, says.split("…"))), re.S)


class Told:
    """All that an author is told: errors, answers, the log as it is shown."""

    def __init__(self, log: pytest.LogCaptureFixture) -> None:
        self.answers: list[str] = []
        self._log = log
        self._shown: list[str] = []

    @property
    def text(self) -> str:
        """All of it."""
        new = self._log.records[len(self._shown) :]
        self._shown += [logs.TextLines().format(one) for one in new]
        return "\n".join([*self.answers, *self._shown])

    async def until(self, wanted: re.Pattern[str]) -> None:
        """Wait until it is said; whoever waits in vain sees what was."""
        try:
            await wire.eventually(lambda: wanted.search(self.text) is not None)
        except TimeoutError:
            pytest.fail(f"it does not say {wanted.pattern}\nbut:\n{self.text}")


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Told]:
    """What an author is told; Python's warnings are in the log, as they are of a server."""
    caplog.set_level("INFO")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        logs.capture_warnings()
        try:
            yield Told(caplog)
        finally:
            gc.collect(1)  # the young suffice
            logging.captureWarnings(False)


async def attempt(mistake: Mistake, directory: Path, told: Told) -> None:
    """Do with the plugin what its author would do."""
    wanted = like(mistake.says)
    server = make(directory, mistake.config, {"dice.py": mistake.source, **mistake.files})
    try:
        await server.start()
    except ConfigError as error:
        told.answers.append(str(error))
        return
    try:
        port = server.addresses[0].port
        if mistake.tried in ("text", "leave"):
            async with wire.websocket(port, mistake.path, wire.text("x")):
                if mistake.tried == "text":
                    await told.until(wanted)
                else:
                    await wire.eventually(lambda: bool(server.channels["table"].clients))
            await told.until(wanted)
        elif mistake.tried == "post":
            told.answers.append((await wire.post(port, mistake.path, b"x"))[1])
        elif mistake.tried == "get":
            told.answers.append((await wire.ask(port, mistake.path))[1])
    finally:
        await server.stop()


def place(mistake: Mistake) -> re.Pattern[str]:
    """The line that has the mark: ``dice.py:7``, as tracebacks write it or not, or ``config.yaml:3``."""
    for name, text in ("dice.py", mistake.source), ("config.yaml", mistake.config):
        for number, line in enumerate(text.splitlines(), 1):
            if line.endswith("# here"):
                shift = name == "config.yaml" and "server:" not in text  # the line that make() puts above
                return re.compile(rf"{name}(:|\", line ){number + shift}\b")
    raise AssertionError("no line has the mark")


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: re.sub(r"\W+", "_", mistake.what))
async def test_mistake(
    mistake: Mistake, tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The author is told of it by plugin, place and remedy."""
    monkeypatch.setattr(connection, "LEAVE_GRACE", 0.05)
    await attempt(mistake, tmp_path, told)
    assert like(mistake.says).search(told.text), told.text
    assert place(mistake).search(told.text), told.text
    # A value of the config stands in an entry that names the plugin.
    of_config = "config.yaml" in place(mistake).pattern
    by = r"bus\.engine|channels\.table|plugins\[\d\]" if of_config else r"\bdice\b(?!\.py)"
    assert re.search(by, told.text), told.text


def test_page_has_every_mistake() -> None:
    """The page for authors has each row of the catalogue, and no other."""
    assert PAGE.read_text() == page()
