"""The exit codes: one table, which scripts rely on."""

from __future__ import annotations

from realtime.exit_codes import ExitCode


def test_exit_codes() -> None:
    """The numbers are a contract."""
    assert {code.name: code.value for code in ExitCode} == {
        "OK": 0,
        "BAD_CONFIG": 1,
        "USAGE": 2,
        "NOT_STARTED": 3,
        "CLOSED": 4,
    }
