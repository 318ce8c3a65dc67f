"""The harness for authors: as a test uses it here, and as pytest runs it in projects of their own."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from command import ENVIRONMENT
from project import ANYIO, AUTO, CONFTEST, run
from puppet import PULLED, PUPPET
from tree import ROOT

from realtime import ConfigError, Refused
from realtime.testing import Answer, Harness, Peer, Serve

ECHO = "channels: {echo: {plugin: echo, path: /ws}}"
TOPICS = "channels: {topics: {plugin: topics, path: '/t/{topic...}', history: 10}}"
CLOCK = "channels: {clock: {plugin: clock, path: /events, interval: 1h}}"
CHAT = "channels: {lobby: {plugin: chat, path: /chat}}"


# The server


async def test_config_mistake(serve: Serve) -> None:
    """A mistake in the config raises, with its place in the test's text."""
    with pytest.raises(ConfigError) as caught:
        async with serve(
            """
            channels:
              echo: {plugin: ecko, path: /ws}
            """
        ):
            pass
    assert str(caught.value).startswith("config.yaml:3:18: channels.echo.plugin: ")


async def test_config_as_a_dict(serve: Serve) -> None:
    """A config can be a dict."""
    async with serve({"channels": {"echo": {"plugin": "echo", "path": "/e"}}}) as server:
        assert list(server.server.channels) == ["echo"]
        assert server.channel("echo").settings.path == "/e"
        with pytest.raises(LookupError, match="no channel is called 'ecko', did you mean 'echo'"):
            server.channel("ecko")


async def test_config_of_a_file(serve: Serve, tmp_path: Path) -> None:
    """A config can be a file, whose plugins are beside it; it listens on a free port all the same."""
    (tmp_path / "app" / "plugins").mkdir(parents=True)
    (tmp_path / "app" / "plugins" / "puppet.py").write_text(textwrap.dedent(PUPPET["puppet.py"]))
    (tmp_path / "app" / "app.yaml").write_text(f"server: {{listen: ['127.0.0.1:1']}}\n{PULLED}\n")
    async with serve(tmp_path / "app" / "app.yaml") as server, server.ws("/p") as client:
        await client.send("say")
        await client.expect("said")


async def test_other_settings_of_the_server(serve: Serve) -> None:
    """A ``server`` section without ``listen`` listens on a free port, too."""
    async with serve(f"server: {{drain: 2s}}\n{ECHO}") as server:
        assert server.server.config.server.drain == 2
        assert server.url("/ws") == f"http://{server.server.addresses[0]}/ws"
        assert server.server.addresses[0].port not in (0, 8080)


async def test_two_servers(serve: Serve) -> None:
    """Two servers in one test have one clock."""
    async with serve(ECHO) as one, serve(CHAT) as two, two.ws("/chat") as client:
        await one.clock.advance(10)
        assert (await client.closed())[0] == 1008


# Requests


async def test_post(serve: Serve) -> None:
    """A POST sends text, bytes or JSON under an event, and is answered."""
    async with serve(TOPICS) as server, server.sse("/t/a") as stream:
        answer = await server.post("/t/a", {"n": 1}, event="count")
        message = await stream.receive()
        assert (answer.status, answer.json) == (202, {"id": str(message.id)})
        assert (message.event, message.data) == ("count", {"n": 1})
        for data in ("text", b"\x00"):
            await server.post("/t/a", data)
            await stream.expect(data)


async def test_request(serve: Serve) -> None:
    """Any other request is answered, too, with its headers."""
    async with serve(ECHO) as server:
        answer = await server.request("GET", "/-/ready")
        assert (answer.status, answer.json["ready"]) == (200, True)
        assert answer.headers["Content-Type"].startswith("application/json")
        answer = await server.request("GET", "/nowhere")
        assert answer.status == 404
        with pytest.raises(ValueError, match="no JSON: 404"):
            answer.json  # noqa: B018


async def test_time_out_of_a_request(serve: Serve) -> None:
    """A request whose answer does not end is a time-out."""
    async with serve(CLOCK) as server:
        with pytest.raises(TimeoutError, match=r"GET /events: no whole answer came within 0\.05s"):
            await server.request("GET", "/events", timeout=0.05)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/tt/a", "404 Not Found, did you mean /t/{topic...}?; there are: /t/{topic...}"),
        ("/far/from/it", "404 Not Found; there are: /t/{topic...}"),
    ],
)
async def test_path_that_nobody_serves(serve: Serve, path: str, said: str) -> None:
    """A client of a path that nobody serves is told those that there are."""
    async with serve(TOPICS) as server:
        for client in (server.ws(path), server.sse(path)):
            with pytest.raises(Refused) as refused:
                await client.__aenter__()
            assert str(refused.value).endswith(said)


# As pytest runs it


#: A conftest may import from the harness before pytest does.
IMPORT = "from realtime.testing import Serve\n"
OWN = """
    import pytest
    from realtime.testing import Serve

    CONFIG = '''
    channels:
      echo: {plugin: echo, path: /ws}
    '''

    %s
    async def test_echo(serve: Serve) -> None:
        async with serve(CONFIG) as server, server.ws("/ws") as client:
            await client.send("hi")
            await client.expect("Echo: hi")
            await server.clock.advance(60)
            await client.assert_nothing(within=0)
"""


@pytest.mark.parametrize(
    ("mark", "options"),
    [
        ("", AUTO),
        ("@pytest.mark.asyncio", ["-o", "asyncio_mode=strict", *AUTO[2:]]),
        ("@pytest.mark.anyio", ANYIO),
    ],
    ids=["auto", "strict", "anyio"],
)
def test_modes(tmp_path: Path, mark: str, options: list[str]) -> None:
    """It works under pytest-asyncio, strict and auto, and under anyio."""
    backend = '@pytest.fixture\ndef anyio_backend():\n    return "asyncio"\n'
    files = {"conftest.py": f"import pytest\n{IMPORT}{CONFTEST}\n{backend}", "test_own.py": OWN % mark}
    done = run(tmp_path, files, *options)
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout


WRONG = """
    from realtime.testing import Serve

    async def test_wrong(serve: Serve) -> None:
        async with serve("channels: {echo: {plugin: echo, path: /ws}}") as server:
            async with server.ws("/sw"):
                pass
"""


@pytest.mark.parametrize(("options", "shown"), [((), False), (("--full-trace",), True)])
def test_traceback_has_the_lines_of_the_test(tmp_path: Path, options: tuple[str, ...], shown: bool) -> None:
    """A test that fails shows its own lines, and those of the harness and of aiohttp if asked."""
    done = run(tmp_path, {"conftest.py": CONFTEST, "test_wrong.py": WRONG}, *AUTO, *options)
    assert '>           async with server.ws("/sw"):' in done.stdout
    files = ("peer.py:", "contextlib.py:", "client.py:")
    assert [file in done.stdout for file in files] == [shown] * 3, done.stdout


def test_trio(tmp_path: Path) -> None:
    """Under trio it says what to do."""
    backend = '@pytest.fixture\ndef anyio_backend():\n    return "trio"\n'
    files = {
        "conftest.py": f"import pytest\n{CONFTEST}\n{backend}",
        "test_own.py": OWN % "@pytest.mark.anyio",
    }
    done = run(tmp_path, files, *ANYIO)
    assert 'let the fixture anyio_backend return "asyncio"' in done.stdout


def test_without_pytest(tmp_path: Path) -> None:
    """Where there is no pytest its name is told, and the server needs none."""
    source = "import sys; sys.modules['pytest'] = None; import realtime.server; import realtime.testing"
    done = subprocess.run([sys.executable, "-c", source], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stderr.endswith("ImportError: realtime.testing is a plugin of pytest: pip install pytest\n")


@pytest.mark.parametrize("kind", [Harness, Peer, Answer])
def test_members_are_documented(kind: type) -> None:
    """Every public name of the harness is in its reference, and says what it does."""
    page = (ROOT / "docs" / "reference" / "testing.md").read_text()
    for name, value in vars(kind).items():
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
            assert re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", page), name
            assert inspect.getdoc(value), name


async def test_reload(serve: Serve) -> None:
    """A test may have its server go by another config, on the port that it has."""
    config = "channels: {echo: {plugin: echo, path: /ws}}"
    async with serve(config) as server:
        changes = await server.reload(config.replace("/ws}", "/ws, history: 3}"))
        assert [str(change) for change in changes] == ["echo: applied (history)"]
        async with server.ws("/ws") as talker:
            await talker.send("a")
            await talker.expect("Echo: a")
