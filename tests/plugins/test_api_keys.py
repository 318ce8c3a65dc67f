"""The plugin ``api_keys``: who sends a key of the config is who the config says."""

from __future__ import annotations

from pathlib import Path

import command
import pytest
from multidict import CIMultiDict
from tokenmaker import AUTH, token

from realtime import ConfigError
from realtime.testing import Serve

KEY, OTHER = "k3y_9f2c7ab4e01d5836c4f7a1be03d92875", "k3y_0000000000001d5836c4f7a1be03d92875x"
PLUGINS = f"""\
plugins:
  - plugin: api_keys
    keys:
      backend: {{key: {KEY}, scopes: [editor]}}
      reader: {{key: {OTHER}}}
"""
NEWS = "channels: {news: {plugin: topics, path: /news, allow: {publish: 'scope:editor'}}}\n"


def sending(*keys: str) -> CIMultiDict[str]:
    """The headers of a request with these keys."""
    return CIMultiDict(("X-API-Key", key) for key in keys)


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        ((KEY,), 202),
        ((OTHER,), 403),
        ((), 401),
        ((KEY[:-1],), 401),
        ((KEY.upper(),), 401),
        ((KEY, KEY), 401),
        (("",), 401),
        (("é",), 401),
    ],
)
async def test_keys(serve: Serve, keys: tuple[str, ...], status: int) -> None:
    """Each key has the scopes that the config gives it; one that is not there is refused."""
    async with serve(PLUGINS + NEWS) as server:
        assert (await server.request("POST", "/news", data="hi", headers=sending(*keys))).status == status


async def test_wrong_key_is_refused_where_anyone_may_come_in(serve: Serve) -> None:
    """Who brings a wrong key is told so, and is not taken for somebody without one."""
    news = NEWS.replace("'scope:editor'", "anyone")
    async with serve(PLUGINS + news) as server:
        answer = await server.post("/news", "hi", headers=sending("wrong"))
        assert (answer.status, answer.text) == (401, "this X-API-Key is not known\n")
        assert (await server.post("/news", "hi")).status == 202


async def test_beside_tokens(serve: Serve) -> None:
    """Programs come with keys and people with tokens, to one server."""
    async with serve(f"{AUTH}\n{PLUGINS}{NEWS}") as server:
        for headers in (sending(KEY), {"Authorization": f"Bearer {token(scope='editor')}"}):
            assert (await server.post("/news", "hi", headers=headers)).status == 202


async def test_two_servers_have_keys_of_their_own(serve: Serve) -> None:
    """What one server knows is nothing to another in the same process."""
    async with serve(PLUGINS + NEWS) as one, serve(PLUGINS.replace(KEY, KEY[::-1]) + NEWS) as two:
        for server, key, status in ((one, KEY, 202), (two, KEY, 401), (two, KEY[::-1], 202)):
            assert (await server.post("/news", "hi", headers=sending(key))).status == status


@pytest.mark.parametrize("key", ["short", "a" * 40, "1234"])
async def test_weak_key_stops_the_start(serve: Serve, key: str) -> None:
    """A key that can be guessed is a mistake with its place, and is not shown."""
    with pytest.raises(ConfigError) as caught:
        await serve(PLUGINS.replace(KEY, f'"{key}"') + NEWS).__aenter__()
    assert str(caught.value) == (
        "config.yaml:4:22: plugins[0].keys.backend.key: a key has at least 32 characters, and is random"
    )


def test_keys_are_not_shown(tmp_path: Path) -> None:
    """The command ``config`` shows who has a key, and what for, and no key."""
    (tmp_path / "config.yaml").write_text(PLUGINS + NEWS)
    done = command.run(tmp_path, "config")
    assert done.returncode == 0
    assert "backend" in done.stdout
    assert "editor" in done.stdout
    assert KEY not in done.stdout
