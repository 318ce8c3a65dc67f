"""Which event loop a server runs on."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import get_args

import pytest

from realtime.loops import Choice, chosen, factory


@pytest.fixture
def without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine for which uvloop does not exist."""
    monkeypatch.setattr("realtime.loops.find_spec", lambda name: None)


def test_uvloop_is_the_default() -> None:
    """A plain installation runs on uvloop, where there is one."""
    assert chosen("auto") == ("uvloop" if importlib.util.find_spec("uvloop") else "asyncio")


@pytest.mark.usefixtures("without_uvloop")
def test_asyncio_where_there_is_no_uvloop() -> None:
    """Where uvloop does not exist asyncio's own loop serves."""
    assert chosen("auto") == "asyncio"


@pytest.mark.usefixtures("without_uvloop")
def test_who_wants_uvloop_is_told_that_it_is_missing() -> None:
    """Who asks for uvloop does not get another loop without a word."""
    with pytest.raises(ValueError, match="uvloop is not installed here: pip install uvloop, or write auto"):
        chosen("uvloop")


@pytest.mark.parametrize("choice", get_args(Choice))
def test_factory_makes_what_is_chosen(choice: Choice) -> None:
    """What makes the loop makes the one that was chosen."""
    loop = factory(choice)()
    try:
        assert type(loop).__module__.startswith(chosen(choice))
        assert isinstance(loop, asyncio.AbstractEventLoop)
    finally:
        loop.close()
