"""What a check saw go wrong: told once for each place, however often it happened there."""

from __future__ import annotations

import pytest

from realtime.findings import Do, Finding, gathered


@pytest.mark.parametrize(
    ("findings", "told"),
    [
        (
            [Finding(f"task 'Task-{n}' runs on", "p.py:1: x", Do.GROUP) for n in range(7, 10)],
            [Finding("task 'Task-7' runs on (3 times)", "p.py:1: x", Do.GROUP)],
        ),
        (
            [Finding(f"KeyError: '{word}'", "p.py:1: x", Do.CATCH) for word in ("a", "b")],
            [Finding("KeyError: 'a' (2 times)", "p.py:1: x", Do.CATCH)],
        ),
        (
            [Finding(f"{n} bytes are left", "", Do.CLOSE) for n in (5, 7)],
            [Finding("5 bytes are left (2 times)", "", Do.CLOSE)],
        ),
    ],
    ids=["place", "another error there", "no place"],
)
def test_alike(findings: list[Finding], told: list[Finding]) -> None:
    """What happened again and again at one place is one finding that says how often."""
    assert gathered(findings) == told


def test_not_alike() -> None:
    """Another place, another remedy, and other words where there is no place, are findings of their own."""
    findings = [
        Finding("it is left", "p.py:1: x", Do.CLOSE),
        Finding("it is left", "p.py:2: x", Do.CLOSE),
        Finding("it is left", "p.py:1: x", Do.GROUP),
        Finding("it is left", "", Do.CLOSE),
        Finding("it is late", "", Do.CLOSE),
    ]
    assert gathered(findings) == findings
