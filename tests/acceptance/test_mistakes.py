"""Fifty mistakes in a config: all told at once, each in its place, with what was probably meant."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from acceptance.world import MODULE, PLUGIN, Home, environment

#: A plugin that somebody else wrote, with settings of all kinds.
SOURCE = f'''\
"""Somebody's channel type."""
from typing import Literal

from realtime import Channel, Duration, Secret, Size, hookimpl
from realtime.values import Model


class Pool(Model):
    size: int = 1


class Theirs(Channel):
    """Theirs."""

    class Settings(Channel.Settings):
        sides: int = 6
        colour: Literal["red", "green"] = "red"
        title: str = ""
        every: Duration = 1.0
        room: Size = 1024
        weight: float = 1.0
        loud: bool = False
        pool: Pool = Pool()
        pools: list[Pool] = []
        key: Secret | None = None


@hookimpl
def register_channels():
    return {{"{PLUGIN}": Theirs}}
'''

#: One mistake a line: the line, and behind it what is said about it: the column, the path, the words.
MISTAKES = f"""\
sever: 1                             #> 1 sever | unknown key, did you mean 'server'?
server:
  lisen: []                          #> 3 server.lisen | unknown key, did you mean 'listen'?
  listen:
    - 8080                           #> 7 server.listen[0] | expected HOST:PORT, [IPV6]:PORT or unix:/PATH, not 8080
    - localhost                      #> 7 server.listen[1] | expected HOST:PORT
    - 127.0.0.1:70000                #> 7 server.listen[2] | expected a port between 0 and 65535
    - 12:30                          #> 7 server.listen[3] | YAML reads 12:30 as the number 750
    - ${{NO_SUCH_ADDRESS}}              #> 7 server.listen[4] | the environment variable NO_SUCH_ADDRESS is not set
  origins: [app.example]             #> 13 server.origins[0] | expected an origin, a scheme and a host
  drain: 10                          #> 10 server.drain | expected a duration such as 500ms, 10s or 5m, not 10
  drain: 10s                         #> 3 server.drain | the key is there twice, first in line 11
  limits:
    max_message: 64KB                #> 18 server.limits.max_message | expected a size such as
    max_clients: -1                  #> 18 server.limits.max_clients | expected a number of at least 0
    topics: 010                      #> 13 server.limits.topics | YAML reads 010 as the number 8
    memory: 0B                       #> 13 server.limits.memory | expected a size between 1B and 1024GiB
    max_mesage: 1KiB                 #> 5 server.limits.max_mesage | did you mean 'max_message'?
plugins:
  - no-such-plugin                   #> 5 plugins[0] | there is no plugin 'no-such-plugin'
  - no                               #> 5 plugins[1] | expected text, not 'no' (YAML reads this as true or false
channels:
  bad name:                          #> 3 channels.bad name | a channel's name is letters
    plugin: echo
    path: /ok1
  a: /ws                             #> 6 channels.a | expected a section of keys, not '/ws'
  b:
    plugin: ecko                     #> 13 channels.b.plugin | there is no plugin 'ecko', did you mean 'echo'?
    path: nowhere                    #> 11 channels.b.path | expected a path that begins with a slash
    histroy: 1
  c:
    path: /c                         #> 5 channels.c | the key 'plugin' is missing
  d:
    plugin: echo                     #> 5 channels.d | the key 'path' is missing
  e:
    plugin: echo
    path: /-/e                       #> 11 channels.e.path | paths under /-/ are the server's own
    colour: red                      #> 5 channels.e.colour | unknown key
    history: many                    #> 14 channels.e.history | expected a whole number, not 'many'
    lag: .inf                        #> 10 channels.e.lag | expected a duration
    overflow: disconect              #> 15 channels.e.overflow | did you mean 'disconnect'?
    keep_alive_text: 2026-11-24      #> 22 channels.e.keep_alive_text | YAML reads this as a date
    limits: {{max_client: 1}}          #> 14 channels.e.limits.max_client | unknown key, did you mean 'max_clients'?
    enabled: 'yes'                   #> 14 channels.e.enabled | expected true or false, not 'yes'
  f: {{plugin: chat, path: /f, max_name: 0, name_timeout: 1 s}} #> 41 channels.f.max_name | expected a number greater than 0 #> 58 channels.f.name_timeout | expected a duration
  g: {{plugin: clock, path: "/{{x}}/{{x}}"}} #> 28 channels.g.path | a variable stands in it twice
  h: {{plugin: clock, path: "/{{x...}}/y", interval: }} #> 28 channels.h.path | a variable that takes the rest of the path stands last #> 50 channels.h.interval | but nothing is there
  i:
    plugin: {PLUGIN}
    path: /i
    sides: 1e3                       #> 12 channels.i.sides | expected a whole number, not '1e3' (YAML reads this as text)
    colour: gren                     #> 13 channels.i.colour | did you mean 'green'?
    title: 1.10                      #> 12 channels.i.title | expected text, not 1.10 (YAML reads this as a number
    every: 1 minute                  #> 12 channels.i.every | expected a duration
    room: big                        #> 11 channels.i.room | expected a size
    weight: heavy                    #> 13 channels.i.weight | expected a number, not 'heavy'
    loud: 1                          #> 11 channels.i.loud | expected true or false, not 1
    pool: {{sise: 2}}                  #> 12 channels.i.pool.sise | unknown key, did you mean 'size'?
    pools: [{{size: 1}}, {{siz: 2}}]     #> 25 channels.i.pools[1].siz | unknown key, did you mean 'size'?
    key: 12345678                    #> 10 channels.i.key | expected text
    tittle: x                        #> 5 channels.i.tittle | unknown key, did you mean 'title'?
  j: {{plugin: echo, path: /taken}}
  k: {{plugin: chat, path: /taken}}    #> 27 channels.k.path | /taken is already served by channel 'j' (config.yaml:62:27)
  l: {{plugin: echo, path: "/r/{{a}}"}}
  m: {{plugin: echo, path: "/r/{{b}}"}}  #> 27 channels.m.path | already served by channel 'l', as /r/{{a}}
  j: {{plugin: echo, path: /j}}        #> 3 channels.j | the key is there twice, first in line 62
"""


class Told(NamedTuple):
    """What is said about one mistake."""

    place: str
    path: str
    words: str


def config() -> tuple[str, list[Told]]:
    """The config with all the mistakes, and what is to be said about each."""
    lines, told = [], []
    for number, line in enumerate(MISTAKES.splitlines(), 1):
        text, *notes = line.split("#>")
        lines.append(text.rstrip())
        for note in notes:
            place, _, words = note.partition("|")
            column, _, path = place.strip().partition(" ")
            told.append(Told(f"config.yaml:{number}:{column}", path, words.strip()))
    return "\n".join(lines) + "\n", told


async def output(home: Home, *arguments: str) -> tuple[int, list[str]]:
    """The exit code of a command and the lines that it says."""
    async with home.realtime(*arguments) as process:
        code = await process.ended()
    return code, process.said


async def test_fifty_mistakes_have_fifty_places(home: Home) -> None:
    """Every mistake of a config is told in one run, in order, once, in its place, and nothing else."""
    text, told = config()
    assert len(told) >= 50
    home.write(text, {f"plugins/{MODULE}.py": SOURCE})
    code, said = await output(home, "check")
    lines = [line for line in said if not line.startswith("    searched: ")]
    assert code == 1
    assert [tuple(line.split(": ", 2)[:2]) for line in lines] == [(one.place, one.path) for one in told]


@pytest.mark.parametrize("at", range(len(config()[1])), ids=lambda at: config()[1][at].path)
async def test_each_says_what_is_wrong(at: int, said: dict[str, str]) -> None:
    """Each mistake is told with what was expected, as it was written, or with what was meant."""
    place, path, words = config()[1][at]
    assert words in said[f"{place}: {path}"]


@pytest.fixture(scope="module")
def said(python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is said about each mistake, by its place and path."""
    directory = tmp_path_factory.mktemp("mistakes")
    Home(python, directory).write(config()[0], {f"plugins/{MODULE}.py": SOURCE})
    command = [str(python), "-m", "realtime", "check", "--json"]
    ended = subprocess.run(command, cwd=directory, env=environment(), capture_output=True, timeout=60)
    problems = json.loads(ended.stdout)["problems"]
    return {f"{p['source']}:{p['line']}:{p['column']}: {p['path']}": p["message"] for p in problems}


async def test_no_secret_is_told(home: Home) -> None:
    """What stands where a secret belongs is not repeated, however wrong it is."""
    home.write(config()[0], {f"plugins/{MODULE}.py": SOURCE})
    _, said = await output(home, "check")
    assert "12345678" not in "\n".join(said)


async def test_serving_starts_nothing(home: Home) -> None:
    """The server tells the same, and does not even begin to start."""
    home.write(config()[0], {f"plugins/{MODULE}.py": SOURCE})
    assert await output(home) == await output(home, "check")


#: What cannot be read at all: each is the one thing that is told.
UNREADABLE = [
    ("", "config.yaml: it is empty: it needs a section 'channels'"),
    ("# nothing\n", "config.yaml: it is empty: it needs a section 'channels'"),
    ("- a\n- b\n", "config.yaml:1:1: the top is a mapping"),
    ("hello\n", "config.yaml:1:1: the top is a mapping"),
    ("server:\n\tdrain: 1s\n", "config.yaml:2:1: a tab indents here; YAML takes spaces only"),
    ("server:\n  origins: 'same\n", "config.yaml:2:12: the quote that begins here does not end"),
    (
        "channels:\n  a: {plugin: chat, path: /rooms/{room}}\n",
        'config.yaml:2:34: inside braces a value with a {variable} needs quotes: "/rooms/{room}"',
    ),
    ("server: drain: 1s\n", "config.yaml:1:14: a second colon: put the text in quotes"),
    ("server:\n  drain: 1s\n origins: any\n", "config.yaml:3:2: the indentation does not fit"),
    ("server: {}\n---\nserver: {}\n", "config.yaml:2:1: a second document begins here"),
    (
        "server:\n  origins: *\n",
        "config.yaml:2:13: * and & begin aliases and anchors; put the text in quotes",
    ),
    (
        "server:\n  origins: @all\n",
        "config.yaml:2:12: no text begins with this character; put it in quotes",
    ),
    ("server: *nowhere\n", "config.yaml:1:9: found undefined alias 'nowhere'"),
    ("server: !!python/object/apply:os.system [exit 1]\n", "config.yaml:1:9: server: a value of the kind"),
    ("plugins: \0\n", "config.yaml:1:10: the character U+0000 is not allowed here"),
    (
        "a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [{', '.join(['*a'] * 9)}]\n" for n in range(3000)),
        "too large",
    ),
    ("[" * 100_000, "config.yaml:1:51: it is nested too deeply"),
    (b"channels: {caf\xe9: {}}\n", "config.yaml:1:15: this byte is not UTF-8"),
    ("channels: {}\n".encode("utf-16"), "config.yaml: this is UTF-16; save it as UTF-8"),
]


@pytest.mark.parametrize(("text", "line"), UNREADABLE, ids=[line[:60] for _, line in UNREADABLE])
async def test_what_cannot_be_read(home: Home, text: str | bytes, line: str) -> None:
    """What is no YAML, or too much of it, is one line with the place and a hint, and exit code 1."""
    home.write("")
    (home.directory / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    code, said = await output(home, "check")
    assert (code, len(said)) == (1, 1), said
    assert line in said[0]


async def test_missing_file(home: Home) -> None:
    """A file that is not there is one line."""
    assert await output(home, "-c", "nowhere.yaml", "check") == (1, ["nowhere.yaml: not found"])
