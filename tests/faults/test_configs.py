"""What a config may have wrong: all of it is told, in its place, and nothing is started.

Here each kind has a compact table; ``acceptance/test_mistakes.py`` has fifty mistakes in one file.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import command
import pytest
from conftest import make
from servers import closed_port

from faults.catalogue import fault
from realtime import cli
from realtime.config import load, parse
from realtime.errors import ConfigError, StartError
from realtime.server import Server

ECHO = "channels: {echo: {plugin: echo, path: /ws}}\n"


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code of a command, and all that it says."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        code = cli.main(arguments)
    finally:
        signal.signal(signal.SIGTERM, before)
    return code, "".join(capsys.readouterr())


async def problems(tmp_path: Path, text: str | bytes) -> list[str]:
    """What is wrong with a config, as a server that reads it from a file says it."""
    file = tmp_path / "config.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        config = load(file)
    except ConfigError as error:
        return _short(error, tmp_path)
    return loaded(tmp_path, Server(config))


def loaded(tmp_path: Path, server: Server) -> list[str]:
    """What is wrong once the plugins are loaded, too."""
    with pytest.raises(ConfigError) as caught:
        server.load()
    return _short(caught.value, tmp_path)


def _short(error: ConfigError, tmp_path: Path) -> list[str]:
    return [str(problem).replace(f"{tmp_path}/", "") for problem in error.problems]


# 101: no config


def nothing(file: Path) -> None:
    """No file."""


def directory(file: Path) -> None:
    """A directory."""
    file.mkdir()


def dangling(file: Path) -> None:
    """A link that leads nowhere."""
    file.symlink_to("nowhere.yaml")


def empty(file: Path) -> None:
    """A file of nothing."""
    file.touch()


def comments(file: Path) -> None:
    """A file of comments."""
    file.write_text("# channels:\n#   echo: {}\n")


def no_channels(file: Path) -> None:
    """A file of one word."""
    file.write_text("---\n")


@fault(101)
@pytest.mark.parametrize(
    ("made", "line"),
    [
        (nothing, "config.yaml: not found"),
        (directory, "config.yaml: this is no config: not a file, or larger than 1 MiB"),
        (dangling, "config.yaml: not found"),
        (empty, "config.yaml: it is empty: it needs a section 'channels'"),
        (comments, "config.yaml: it is empty: it needs a section 'channels'"),
        (no_channels, "config.yaml: it is empty: it needs a section 'channels'"),
    ],
)
def test_no_config(
    tmp_path: Path,
    made: Callable[[Path], None],
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A config that is not there, or has nothing in it, is one line and exit code 1, and no traceback."""
    made(tmp_path / "config.yaml")
    monkeypatch.chdir(tmp_path)
    assert said(capsys, "-c", "config.yaml", "check") == (1, f"{line}\n")


@fault(101)
async def test_unreadable(tmp_path: Path) -> None:
    """A config that may not be read is one line and exit code 1."""
    file = tmp_path / "config.yaml"
    file.write_text(ECHO)
    file.chmod(0)
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    with pytest.raises(ConfigError, match="permission denied"):
        load(file)


# 102: no YAML


@fault(102)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("channels:\n\techo: {}\n", "config.yaml:2:1: a tab indents here; YAML takes spaces only"),
        ("channels: 'echo\n", "config.yaml:1:11: the quote that begins here does not end"),
        ("a:b\n", "config.yaml:1:1: the top is a mapping with 'server' and 'channels'"),
        ("a:b\nc: d\n", "config.yaml:"),
        ("channels: {echo: {plugin: echo\n", "config.yaml:"),
        ("channels: [\n", "config.yaml:"),
        ("channels: }\n", "config.yaml:1:11: "),
        (b"channels: {caf\xe9: {}}\n", "config.yaml:1:15: this byte is not UTF-8"),
        (b"\xff\xfec\0h\0", "config.yaml: this is UTF-16; save it as UTF-8"),
        ("channels: \0\n", "config.yaml:1:11: the character U+0000 is not allowed here"),
        ("channels: {}\n---\nchannels: {}\n", "config.yaml:2:1: a second document begins here"),
        ("- channels\n", "config.yaml:1:1: the top is a mapping with 'server' and 'channels'"),
        ("42\n", "config.yaml:1:1: the top is a mapping with 'server' and 'channels'"),
        ("? [a, b]\n: c\n", "config.yaml:1:3: "),
        ("%YAML 9.9\n---\n{}\n", "config.yaml:1:"),
        ("channels: @x\n", "config.yaml:1:11: no text begins with this character"),
    ],
)
async def test_no_yaml(tmp_path: Path, text: str | bytes, said: str) -> None:
    """What is no YAML, or another kind of it, is told with its line and column, at once and alone."""
    (told,) = await problems(tmp_path, text)
    assert told.startswith(said)


# 103: unknown keys


@fault(103)
@pytest.mark.parametrize(
    ("text", "place", "meant"),
    [
        ("chanels: {}\n", "1:1: chanels", "channels"),
        ("server: {drian: 1s}\n", "1:10: server.drian", "drain"),
        ("server: {limits: {max_mesage: 1KiB}}\n", "1:19: server.limits.max_mesage", "max_message"),
        ("server: {watch_dog: 1s}\n", "1:10: server.watch_dog", "watchdog"),
        ("channels: {a: {plugin: echo, path: /, histroy: 1}}\n", "1:39: channels.a.histroy", "history"),
        ("channels: {a: {plugin: chat, path: /, max_nam: 1}}\n", "1:39: channels.a.max_nam", "max_name"),
        ("channels: {a: {plugin: echo, path: /, allow: {publsh: anyone}}}\n", "1:47: ", "publish"),
        ("channels: {a: {plugin: echo, path: /, limits: {max_client: 1}}}\n", "1:48: ", "max_clients"),
        (
            "channels: {a: {plugin: echo, path: /, handlertimeout: 1s}}\n",
            "1:39: channels.a.handlertimeout",
            "handler_timeout",
        ),
    ],
)
async def test_unknown_key(tmp_path: Path, text: str, place: str, meant: str) -> None:
    """A key that there is not is told with the one that was meant, however deep it stands."""
    (told,) = await problems(tmp_path, text)
    assert told.startswith(f"config.yaml:{place}")
    assert told.endswith(f"unknown key, did you mean {meant!r}?")


# 104: wrong values


@fault(104)
@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("listen", "127.0.0.1:8080", "expected a list, not '127.0.0.1:8080'"),
        ("listen", "[]", "at least 1 item"),
        ("listen", "[127.0.0.1:70000]", "expected a port between 0 and 65535"),
        ("listen", "[8080]", "expected HOST:PORT, [IPV6]:PORT or unix:/PATH"),
        ("listen", "[22:22]", "YAML reads 22:22 as the number 1342"),
        ("listen", "[true]", "expected HOST:PORT"),
        ("listen", "['127.0.0.1:-1']", "expected HOST:PORT"),
        ("listen", "['127.0.0.1:8080.0']", "expected HOST:PORT"),
        ("drain", "-1s", "expected a duration such as 500ms, 10s or 5m"),
        ("drain", "10", "expected a duration such as 500ms, 10s or 5m"),
        ("drain", "0s", "expected a duration between 1ms and 366d"),
        ("drain", "1e9s", "expected a duration such as"),
        ("drain", ".inf", "expected a duration"),
        ("drain", ".nan", "expected a duration"),
        ("drain", "2026-11-26", "YAML reads this as a date"),
        ("drain", "", "but nothing is there"),
        ("watchdog", "1ms", "expected off, or a duration from 20ms on"),
        ("watchdog", "on", "expected off, or a duration from 20ms on"),
        ("watchdog", "0.1", "expected off, or a duration from 20ms on"),
        ("origins", "no", "expected same, any or a list"),
        ("socket_mode", "660", "expected a mode in quotes"),
        ("limits", "7", "expected a section of keys, not 7"),
        ("limits", "{topics: 010}", "YAML reads 010 as the number 8"),
        ("limits", "{topics: 1e3}", "expected a whole number, not '1e3'"),
        ("limits", "{topics: 10.0}", "a whole number"),
        ("limits", "{topics: true}", "expected a whole number, not 'true'"),
        ("limits", "{topics: .inf}", "a whole number"),
        ("limits", "{topics: -1}", "expected a number of at least 0"),
        ("limits", "{memory: 1GB}", "expected a size such as 512B, 64KiB or 1MiB"),
    ],
)
async def test_wrong_value(tmp_path: Path, key: str, value: str, said: str) -> None:
    """A value that cannot be is told in its place with what was expected, and how YAML has read it."""
    (told,) = await problems(tmp_path, f"server: {{{key}: {value}}}\n")
    assert re.match(rf"config.yaml:1:\d+: server.{key}\S*: ", told)
    assert said in told


@fault(104)
@pytest.mark.parametrize("value", ["off", "false", "'off'", "20ms", "1s"])
def test_watchdog_that_can_be(value: str) -> None:
    """The watchdog is off or has a duration; YAML may read ``off`` as false."""
    config = parse(f"server: {{watchdog: {value}}}\n{ECHO}")
    assert config.source.problems == []
    assert (config.server.watchdog > 0) == value.endswith("s")


# 105: the same key twice


@fault(105)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server: {}\nserver: {}\n", "config.yaml:2:1: server: the key is there twice, first in line 1"),
        (
            "server:\n  drain: 1s\n  drain: 2s\n",
            "config.yaml:3:3: server.drain: the key is there twice, first in line 2",
        ),
        (
            "channels:\n  a: {plugin: echo, path: /}\n  a: {plugin: echo, path: /b}\n",
            "config.yaml:3:3: channels.a: the key is there twice, first in line 2",
        ),
        (
            "channels:\n  a: {plugin: echo,\n    path: /, path: /b}\n",
            "config.yaml:3:14: channels.a.path: ",
        ),
        ('server:\n  "drain": 1s\n  drain: 1s\n', "config.yaml:3:3: server.drain: the key is there twice"),
    ],
)
async def test_key_twice(tmp_path: Path, text: str, said: str) -> None:
    """A key that stands twice is told with both lines."""
    (told,) = await problems(tmp_path, text)
    assert told.startswith(said)


# 106: too much of it

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"k{n}: &k{n}\n  <<: [{', '.join([f'*k{n - 1}' if n else '*a'] * 9)}]\n  y{n}: 1\n" for n in range(2000)
)


@fault(106)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "too large"),
        (MERGES, ""),
        ("a: &a [*a]\n", ""),
        ("&a a: *a\n", ""),
        ("a: &a {<<: *a}\n", ""),
        ("[" * 100_000, "nested too deeply"),
        ("{" * 100_000, "nested too deeply"),
        ("- " * 100_000, "nested too deeply"),
        ("a: " + "1" * 900_000 + "\n", "a value of the kind !!int is not allowed"),
        ("a: [" + "x," * 400_000 + "]\n", "too large"),
        ("a: '" + "${" * 400_000 + "'\n", "a variable is ${NAME}"),
        ("#" * (50 * 1024 * 1024), "larger than"),
    ],
    ids=["aliases", "merges", "itself", "key", "merge of itself", "[", "{", "-", "1", "x", "${", "50 MB"],
)
async def test_too_much(tmp_path: Path, text: str, said: str) -> None:
    """What would take all memory or all day is refused in little of both."""
    text = text or "x"
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    told = await problems(tmp_path, text)
    assert time.process_time() - began < 3  # about a tenth of that, on a machine that has time
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size < 100 * 1024
    assert told
    assert said in told[0]
    assert all(len(line) < 500 for line in told)


# 107: tags


@fault(107)
@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.mkdir [made]",
        "!!python/object/new:os.mkdir [made]",
        "!!python/name:os.mkdir ",
        "!!python/module:os ",
        "!!binary aGk=",
        "!!set {a, b}",
        "!Ref x",
        "!!nothing x",
        "!<tag:yaml.org,2002:python/object/apply:os.mkdir> [made]",
    ],
)
async def test_tag(tmp_path: Path, tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a tag asks for is refused in its place, and nothing is run."""
    monkeypatch.chdir(tmp_path)
    told = await problems(tmp_path, f"server:\n  drain: {tag}\n")
    assert told[0].startswith("config.yaml:2:10: server.drain: ")
    assert len(told) == 1
    assert not (tmp_path / "made").exists()


# 108: the environment


@fault(108)
async def test_variable_that_is_not_set(tmp_path: Path) -> None:
    """A variable that is not set is told by its name, in its place."""
    assert await problems(tmp_path, "server: {url: '${NO_SUCH_URL}'}\n") == [
        "config.yaml:1:15: server.url: the environment variable NO_SUCH_URL is not set "
        "(${NO_SUCH_URL:-default} gives one)"
    ]


SECRET = "s3cret-0123456789"
KEYED = '''
from realtime import Channel, Secret, hookimpl

class Keyed(Channel):
    """Has a key."""

    class Settings(Channel.Settings):
        key: Secret
        size: int = 1

@hookimpl
def register_channels():
    return {"keyed": Keyed}
'''


@fault(108)
@pytest.mark.parametrize("arguments", [("check",), ("config",), ("config", "--json"), ("routes",)])
@pytest.mark.parametrize(
    "more", ["size: 1", "size: big", "sise: 1", "size: '${API_KEY}'", f"path: '{SECRET}'"]
)
def test_secret(
    tmp_path: Path,
    arguments: tuple[str, ...],
    more: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No command shows a secret, whether it stands in the config or in the environment."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "keyed.py").write_text(KEYED)
    (tmp_path / "config.yaml").write_text(
        'server: {listen: ["127.0.0.1:0"], tls: {cert: no.pem, password: "${API_KEY}"}}\n'
        f"channels:\n  k: {{plugin: keyed, path: /k, key: {SECRET}}}\n"
        f'  l: {{plugin: keyed, path: "/l", key: "${{API_KEY}}", {more}}}\n'
    )
    monkeypatch.setenv("API_KEY", SECRET)
    _, shown = said(capsys, "-c", str(tmp_path / "config.yaml"), *arguments)
    assert shown
    assert "Traceback" not in shown
    if more.startswith("path"):  # a path is none, and it is there twice; the other key is
        assert shown.count(SECRET) <= 1
    else:
        assert SECRET not in shown


# 109: two of a kind

ROUTE = """
from aiohttp import web
from realtime import hookimpl

async def answer(request):
    return web.Response()

@hookimpl
def register_routes(bus):
    return [web.{method}("{path}", answer)]
"""


@fault(109)
@pytest.mark.parametrize(
    ("plugins", "channels", "said"),
    [
        (
            {},
            {"a": "/x", "b": "/x"},
            "channels.b.path: /x is already served by channel 'a' (config.yaml:4:27)",
        ),
        ({}, {"a": "/{x}", "b": "/{y}"}, "/{y} is already served by channel 'a', as /{x}"),
        ({"one": ("get", "/x")}, {"a": "/x"}, "/x is already served by plugin 'one'"),
        (
            {"one": ("get", "/x"), "two": ("get", "/x")},
            {},
            "plugin 'two': /x is already served by plugin 'one'",
        ),
        ({"one": ("get", "/-/x")}, {}, "plugin 'one': /-/x: paths under /-/ are the server's own"),
        ({"one": ("get", "/-/live")}, {}, "plugin 'one': /-/live: paths under /-/ are the server's own"),
        ({}, {"a": "/-/x"}, "channels.a.path: paths under /-/ are the server's own"),
        ({"one": ("get", "x")}, {}, "plugin 'one': 'x' cannot be served: a path begins with a slash"),
        ({"one": ("get", "/{x")}, {}, "plugin 'one': '/{x' cannot be served: ValueError"),
    ],
)
async def test_two_of_a_kind(
    tmp_path: Path, plugins: dict[str, tuple[str, str]], channels: dict[str, str], said: str
) -> None:
    """Two plugins on one path are both named, in their places, and the server's paths are its own."""
    text = f"plugins: [{', '.join(plugins)}]\nchannels:\n"
    text += "".join(f'  {name}: {{plugin: echo, path: "{path}"}}\n' for name, path in channels.items())
    files = {f"{name}.py": ROUTE.format(method=m, path=path) for name, (m, path) in plugins.items()}
    server = make(tmp_path, text, files)
    (told,) = loaded(tmp_path, server)
    assert said in told


@fault(109)
async def test_two_types_of_one_name(tmp_path: Path) -> None:
    """Two plugins that offer a channel type of one name are both named."""
    files = {f"{name}.py": KEYED for name in ("one", "two")}
    server = make(tmp_path, "plugins: [one, two]\n" + ECHO, files)
    (told,) = loaded(tmp_path, server)
    assert told.startswith("config.yaml:")
    assert "two plugins offer a channel type 'keyed': one (" in told
    assert " and two (" in told


# 110: where it cannot listen


@fault(110)
def test_port_in_use_is_a_line(tmp_path: Path) -> None:
    """A port that is taken is one line and exit code 3."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        (tmp_path / "config.yaml").write_text(f"server: {{listen: ['{address}']}}\n{ECHO}")
        ended = command.run(tmp_path)
    assert (ended.returncode, ended.stderr) == (3, f"could not start: {address} is in use\n")


async def cannot(tmp_path: Path, *listen: str) -> str:
    """Why a server cannot listen there."""
    server = make(tmp_path, f"server: {{listen: {list(listen)}}}\n{ECHO}")
    with pytest.raises(StartError) as caught:
        await server.start()
    return str(caught.value)


@fault(110)
@pytest.mark.parametrize(
    "address",
    ["203.0.113.7:8080", "no-such-host.invalid:8080", "[2001:db8::1]:8080", "unix:nowhere/x.sock"],
)
async def test_address_that_is_not_ours(tmp_path: Path, address: str) -> None:
    """An address that this machine does not have is one line that has it."""
    said = await cannot(tmp_path, address)
    assert address.removeprefix("unix:") in said
    assert "\n" not in said


def unprivileged() -> int:
    """The first port that everybody may have."""
    return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())


@fault(110)
async def test_port_that_only_root_may_have(tmp_path: Path) -> None:
    """A port that may not be had is one line with a way out."""
    least = unprivileged()
    if os.geteuid() == 0 or least < 2:
        pytest.skip("this user may have every port")
    assert "permission" in await cannot(tmp_path, f"127.0.0.1:{least - 1}")


@fault(110)
async def test_unix_socket_that_was_left_over(tmp_path: Path) -> None:
    """The socket of a server that was killed is taken; one that is served, and other files, are not."""
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "a.sock"))
    left.close()
    async with make(tmp_path, f"server: {{listen: ['unix:a.sock']}}\n{ECHO}"):
        assert "in use" in await cannot(tmp_path, "unix:a.sock")
    (tmp_path / "b.sock").write_text("mine")
    await cannot(tmp_path, "unix:b.sock")
    assert (tmp_path / "b.sock").read_text() == "mine"


@fault(110)
async def test_nothing_is_left_half_bound(tmp_path: Path) -> None:
    """Where one of two addresses cannot be had, the other one is free again."""
    port = closed_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        await cannot(tmp_path, f"127.0.0.1:{port}", f"127.0.0.1:{taken.getsockname()[1]}")
    async with make(tmp_path, f"server: {{listen: ['127.0.0.1:{port}']}}\n{ECHO}"):
        pass
