"""Autobahn's fuzzing client, whose cases are written for Python 2.7."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

import pytest
from conftest import Serve

from faults.catalogue import fault

#: Which cases: ``core`` are those without compression; ``AUTOBAHN_MODE=full`` runs all 517, for half an
#: hour. ``AUTOBAHN_OUT`` is where the reports go.
MODE = os.environ.get("AUTOBAHN_MODE", "core")
SCRIPT = Path(__file__).parents[1] / "autobahn.sh"
#: How long it may take, in seconds: the suite is installed first, if it is not there.
PATIENCE = {"core": 240.0}.get(MODE, 7200.0)
MIRROR = {
    "mirror.py": '''
        from realtime import Channel, hookimpl

        class Mirror(Channel):
            """Sends everything back as it is."""

            async def on_message(self, client, message):
                await client.send(message.data)

        @hookimpl
        def register_channels():
            return {"mirror": Mirror}
    '''
}
LIMITS = "{max_message: 17MiB, inbound_rate: 1000000, inbound_burst: 1000000}"
CONFIG = f"channels: {{mirror: {{plugin: mirror, path: /ws, compress: true, limits: {LIMITS}}}}}"


@fault(43)
async def test_no_case_fails(serve: Serve, tmp_path: Path) -> None:
    """No case of Autobahn's fails."""
    reports = Path(os.environ.get("AUTOBAHN_OUT", tmp_path / "autobahn"))
    env = {**os.environ, "AUTOBAHN_MODE": MODE, "AUTOBAHN_OUT": str(reports)}
    async with serve(CONFIG, MIRROR) as serving:
        process = await asyncio.create_subprocess_exec(
            str(SCRIPT), serving.ws("/ws"), env=env, stdout=PIPE, stderr=DEVNULL, start_new_session=True
        )
        try:
            async with asyncio.timeout(PATIENCE):
                out, _ = await process.communicate()
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
    report = out.decode().strip()
    if process.returncode == 3:
        # Python 2.7 is in no package archive any more: it is not asked for, even where all else is.
        pytest.skip(f"this test needs Autobahn's suite: {report}")
    assert process.returncode == 0, report
    (reports / "totals.txt").write_text(report)
