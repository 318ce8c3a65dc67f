"""The transcript: what a failing test shows, and what the server's log says of a passing one."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest
from project import AUTO, run
from puppet import PULLED, PUPPET

from realtime.testing import BlockedWarning, Harness, Serve

ECHO = "channels: {echo: {plugin: echo, path: /ws}}"


async def fail(server: Harness) -> None:
    """The channel has a bug, which its client sees."""
    async with server.ws("/p") as client:
        await client.send("fail")
        assert (await client.closed())[0] == 1011


async def test_error_fails_the_test(serve: Serve) -> None:
    """An error in the log that no test expects fails it, with the traceback."""
    with pytest.raises(AssertionError, match=r"(?s)logged an error.*LookupError: no such string"):
        async with serve(PULLED, PUPPET) as server:
            await fail(server)


async def test_expected_error(serve: Serve) -> None:
    """An error that is expected does not."""
    async with serve(PULLED, PUPPET) as server:
        with server.expect_error("no such string"):
            await fail(server)


async def test_expected_error_that_never_comes(serve: Serve) -> None:
    """An error that is expected has to come."""
    serving = serve(ECHO)
    server = await serving.__aenter__()
    with server.expect_error("boom"):
        pass
    with pytest.raises(AssertionError, match="no error with 'boom'"):
        await serving.__aexit__(None, None, None)


async def test_failure_is_not_covered(serve: Serve) -> None:
    """The test's own failure is told, whatever the log has."""
    serving = serve(PULLED, PUPPET)
    await fail(await serving.__aenter__())
    error = ZeroDivisionError()
    assert not await serving.__aexit__(ZeroDivisionError, error, None)


async def test_plugin_that_blocks(serve: Serve) -> None:
    """A plugin that holds the event loop is warned of, by its line."""
    with pytest.warns(BlockedWarning, match=r"by channel 'puppet', plugin 'puppet', in .*puppet.py:\d+"):
        async with serve(PULLED, PUPPET) as server, server.ws("/p", json=True) as client:
            await client.send("block")


async def test_test_that_blocks(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A test that holds the event loop itself is not."""
    async with serve(ECHO):
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            pass
        await asyncio.sleep(0)
    assert "held" not in caplog.text


async def test_loggers_are_as_before(serve: Serve) -> None:
    """What is done to the loggers ends with the server."""
    logger = logging.getLogger("realtime")
    before = logger.level, logger.handlers[:]
    async with serve(ECHO):
        assert logger.isEnabledFor(logging.INFO)
    assert (logger.level, logger.handlers) == before


# In the report of pytest


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest shows of tests that fail, in a project with a ``plugins/`` of its own."""
    source = '''
        from realtime.testing import Serve

        FAST = "limits: {inbound_burst: 1000}"
        CONFIG = "channels: {puppet: {plugin: puppet, path: /p, %s}}" % FAST


        async def test_silence(serve: Serve) -> None:
            """Fails."""
            async with serve(CONFIG) as server, server.ws("/p") as client:
                await client.send("say")
                await client.expect("said")
                await server.post("/p", "say")
                await client.expect("said")
                await server.clock.advance(60)
                await client.receive(timeout=0.05)


        async def test_error(serve: Serve) -> None:
            """Fails."""
            async with serve(CONFIG) as server, server.ws("/p") as client:
                await client.send("fail")
                await client.closed()


        async def test_much(serve: Serve) -> None:
            """Fails."""
            async with serve(CONFIG) as server, server.ws("/p") as client:
                for number in range(300):
                    await client.send("say")
                    await client.expect("said")
                await client.send("x" * 10_000)
                assert False, "at the end"


        async def test_beside_files(serve: Serve) -> None:
            """Passes."""
            files = {"other.py": '"""Other."""'}
            async with serve("plugins: [other]\\n" + CONFIG, files) as server, server.ws("/p") as client:
                await client.send("say")
                await client.expect("said")
    '''
    directory = tmp_path_factory.mktemp("failing")
    files = {"tests/test_own.py": source, "plugins/puppet.py": PUPPET["puppet.py"]}
    return run(directory, files, *AUTO).stdout


def test_failing(failed: str) -> None:
    """The plugins of the project are found, also beside those of a test; others fail."""
    assert "3 failed, 1 passed" in failed, failed


@pytest.mark.parametrize(
    "line",
    [
        "realtime: seconds, who, > said, < heard",
        "  ws 1 /p           > 'say'\n",
        "  ws 1 /p           < 'said'\n",
        "  http              > POST /p b'say'\n",
        '  http              < 202 \'{"id":"',
        "  clock             > 60s\n",
        "  log               ERROR realtime.channel.puppet: ",
        "  log               LookupError: no such string\n",
        " TimeoutError: ws 1 /p: waited for a message, and nothing came within 0.05s; before: 'said'",
        "    await client.receive(timeout=0.05)\n",
    ],
)
def test_transcript(failed: str, line: str) -> None:
    """A failure shows who said and heard what, what the server logged, and the line of the test."""
    assert line in failed, failed


def test_transcript_is_bounded(failed: str) -> None:
    """A long transcript is shown from its end, and no line is longer than can be read."""
    section = failed.partition("test_much")[2].partition("realtime: seconds")[2].partition("\n_____")[0]
    assert "earlier lines are left out)" in section
    assert section.count("\n") < 210
    assert max(map(len, section.splitlines())) < 400


def test_own_frames_are_left_out(failed: str) -> None:
    """A failure ends in the test's line, and not in the harness."""
    assert "realtime/testing.py" not in failed
