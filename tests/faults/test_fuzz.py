"""Bytes that no client would send: whatever they are, they are answered, or the connection is closed."""

from __future__ import annotations

import pytest
from conftest import FUZZ

from faults.catalogue import fault
from faults.conftest import Calm
from faults.mutations import CONFIG, SEED, batch

#: How many mutations one server has; then it must be calm.
BATCH = 100


@fault(6)
@fault(42)
@pytest.mark.parametrize("number", range(3 * FUZZ))
async def test_mutations(calm: Calm, number: int) -> None:
    """Valid exchanges, changed and cut in any way, are answered or closed, and never with 500 or 1011."""
    async with calm(CONFIG) as serving:
        await batch(serving.port, SEED, range(number * BATCH, (number + 1) * BATCH))
