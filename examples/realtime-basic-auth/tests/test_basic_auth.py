"""Names and passwords, as those who have them use them."""

import base64
import io

import pytest
from realtime import ConfigError, Refused
from realtime.testing import Serve

from realtime_basic_auth import hashed
from realtime_basic_auth.__main__ import main

PASSWORD = "corréct horse"
CONFIG = f"""
plugins:
  - plugin: basic-auth
    users:
      alice: {{password: "{hashed(PASSWORD)}", scopes: [editor]}}
channels:
  news:
    plugin: topics
    path: /news
    allow: {{publish: scope:editor}}
  members:
    plugin: topics
    path: /members
    allow: {{subscribe: authenticated, publish: authenticated}}
"""


def basic(text: str) -> dict[str, str]:
    """The header with a name and a password."""
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


async def test_who_is_known_comes_in(serve: Serve) -> None:
    """With the password, a WebSocket is opened and a POST is taken: for alice, with her scopes."""
    alice = basic(f"alice:{PASSWORD}")
    async with serve(CONFIG) as server, server.ws("/members", headers=alice) as reader:
        assert (await server.post("/members", "hi", headers=alice)).status == 202
        await reader.expect("hi")
        assert (await server.post("/news", "hi", headers=alice)).status == 202


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (f"alice:{PASSWORD}!", "this name and password are not known"),
        (f"bob:{PASSWORD}", "this name and password are not known"),
        ("alice:", "this name and password are not known"),
        ("alice", "this is no name and password"),
    ],
)
async def test_who_is_not_known_is_refused(serve: Serve, sent: str, says: str) -> None:
    """With anything else the answer is 401, and says how to come in; also where anyone may."""
    async with serve(CONFIG) as server:
        answer = await server.request("GET", "/news", headers=basic(sent))
        assert (answer.status, answer.text) == (401, f"{says}\n")
        assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")


@pytest.mark.parametrize("header", ["Basic %%%", "Basic", "Basic /w=="])
async def test_what_is_no_header(serve: Serve, header: str) -> None:
    """What cannot be read is refused, and is no bug."""
    async with serve(CONFIG) as server:
        answer = await server.post("/members", "hi", headers={"Authorization": header})
        assert (answer.status, answer.text) == (401, "this is no name and password\n")


async def test_who_says_nothing_is_left_to_others(serve: Serve) -> None:
    """Without the header it is for the channel to say what anyone may; so with one of another kind."""
    async with serve(CONFIG) as server, server.sse("/news"):
        with pytest.raises(Refused):
            async with server.ws("/members"):
                pass
        other = {"Authorization": "Bearer x", "Accept": "application/json"}
        assert (await server.request("GET", "/news", headers=other)).status == 200


async def test_password_in_the_clear_is_a_mistake(serve: Serve) -> None:
    """What is not hashed is told with its place, without being shown."""
    with pytest.raises(
        ConfigError, match=r"plugins\[0\]\.users\.alice\.password: this is not hashed"
    ) as told:
        async with serve(CONFIG.replace("scrypt:", "secret:")):
            pass
    assert "secret:" not in str(told.value)


def test_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """``python -m realtime_basic_auth`` prints a password of standard input as the config has it."""
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))
    main()
    printed = capsys.readouterr().out
    assert printed == f"{hashed(PASSWORD, bytes.fromhex(printed.split(':')[1]))}\n"


def test_short_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short password is not hashed."""
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    with pytest.raises(SystemExit, match="at least 8 characters"):
        main()
