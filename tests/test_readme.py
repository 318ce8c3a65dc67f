"""The README: its two commands stand there, and everything in it can be pasted and works."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from test_docs import ROOT, Block, blocks, reader_in

README = ROOT / "README.md"
RUN = "python3 -m venv .venv && . .venv/bin/activate && pip install . && python -m realtime\n"
TEST = "python3 -m venv .venv && . .venv/bin/activate && pip install -e '.[test]' && pytest\n"


@pytest.mark.parametrize("command", [RUN, TEST], ids=["run", "test"])
def test_setup_command(command: str) -> None:
    """The command stands in a block of its own, word for word."""
    assert [block.language for block in blocks(README) if block.text == command] == ["sh"]


def test_only_setup_is_not_run() -> None:
    """The blocks that are not run here are those that make an environment and enter it."""
    skipped = [block.text for block in blocks(README) if block.how == "not run"]
    assert skipped == [RUN, TEST, ". .venv/bin/activate\n"]


async def test_blocks_run(tmp_path: Path) -> None:
    """Every other block does what the README says, in a terminal and in a browser."""
    async with reader_in(tmp_path) as reader:
        shutil.copy(ROOT / "config.yaml", reader.directory)
        # The end of the first command, in an environment that is made already.
        await reader.do(Block("README.md:0", "sh", "python -m realtime\n", "terminal", "server"))
        await reader.follow(README)


def test_plugin_is_short() -> None:
    """The plugin to paste has about fifteen lines."""
    [plugin] = [block.text for block in blocks(README) if block.what == "plugins/dice.py"]
    assert len(plugin.splitlines()) <= 16
