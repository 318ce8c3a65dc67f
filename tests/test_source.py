"""The source: values, places, and what is wrong with a text whatever it is meant to say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from realtime.errors import ConfigError, Problem
from realtime.source import MAX_FILE, Source
from realtime.values import Model


def mistakes(text: str) -> list[Problem]:
    """What is wrong with a text; none for one that is right."""
    source = Source("c.yaml", environment={})
    source.load(text)
    return source.problems


# Every mistake in its place


SERVER = "server:\n"
LIMITS = "server:\n  limits:\n"
CHANNEL = "channels:\n  a:\n    plugin: echo\n    path: /a\n"


@pytest.mark.parametrize(
    ("text", "place", "path", "phrase"),
    [
        # Keys
        ("server: {}\nserver: {}\n", "2:1", "server", "there twice, first in line 1"),
        (CHANNEL + "    path: /b\n", "5:5", "channels.a.path", "there twice, first in line 4"),
        (CHANNEL + "  a: {plugin: chat}\n", "5:3", "channels.a", "there twice, first in line 2"),
        ("? [a]\n: 1\n", "1:3", "", "a key is a plain word"),
        ("server:\n  <<: {drain: 1s}\n", "2:3", "server", "merging (<<) is not supported"),
        # The traps of YAML 1.1
        (SERVER + "  drain: 12:30\n", "2:10", "server.drain", "reads 12:30 as the number 750; write"),
        (SERVER + "  listen: [12:30]\n", "2:12", "server.listen[0]", "put quotes around a text"),
        (LIMITS + "    topics: 010\n", "3:13", "server.limits.topics", "YAML reads 010 as the number 8"),
        (LIMITS + "    topics: 1:00\n", "3:13", "server.limits.topics", "YAML reads 1:00 as the number 60"),
        (CHANNEL + "    history: 0100\n", "5:14", "channels.a.history", "reads 0100 as the number 64"),
        (LIMITS + f"    topics: {'9' * 5000}\n", "3:13", "server.limits.topics", "!!int is not allowed"),
        # The environment
        (
            SERVER + "  drain: ${DRAIN}\n",
            "2:10",
            "server.drain",
            "the environment variable DRAIN is not set (${DRAIN:-default} gives one)",
        ),
        (CHANNEL + "    key: x${KEY}\n", "5:10", "channels.a.key", "variable KEY is not set"),
        # No YAML
        ("server:\n\tdrain: 1s\n", "2:1", "", "a tab indents here; YAML takes spaces only"),
        ("server:\n  drain: 1s\n\torigins: any\n", "3:1", "", "a tab indents here; YAML takes spaces only"),
        ('server:\n  origins: "same\n', "2:12", "", "the quote that begins here does not end"),
        ("channels:\n  a: {path: '/a}\n", "2:13", "", "the quote that begins here does not end"),
        (
            "server:\n  drain: 1s\n drain: 2s\n",
            "3:2",
            "",
            "the indentation does not fit that of the lines above",
        ),
        ("server: drain: 1s\n", "1:14", "", "a second colon: put the text in quotes"),
        (
            "channels:\n  a: {plugin: chat, path: /rooms/{room}}\n",
            "2:34",
            "",
            'inside braces a value with a {variable} needs quotes: "/rooms/{room}"',
        ),
        ("channels:\n  a: {path: /t/{topic...}, history: 1}\n", "2:16", "", "needs quotes"),
        ("server:\n  listen: [${LISTEN}]\n", "2:13", "", "needs quotes"),
        ("server: *x\n", "1:9", "", "found undefined alias 'x'"),
        (
            "channels:\n  a:\n    plugin:chat\n    path: /a\n",
            "3:11",
            "",
            "a space is missing after the colon",
        ),
        ("channels:\n  lobby\n    plugin: chat\n", "2:3", "", "a colon is missing after 'lobby'"),
        (
            "channels:\n  a:\n    plugin: x\n     path: /a\n",
            "4:10",
            "",
            "indented deeper than",
        ),
        ("channels:\n  a:\n    plugin:\u00a0x\n    path: /a\n", "3:12", "", "a no-break space (U+00A0)"),
        ("server:\n  listen: [a:1\n  drain: 1s\n", "2:11", "", "the bracket that begins here does not end"),
        ("server:\n  listen: [[::1]:80]\n", "2:13", "", "with brackets or colons needs quotes"),
        (
            SERVER + "  drain: ${DRAIN\n",
            "2:10",
            "server.drain",
            "a variable is ${NAME} or ${NAME:-default}",
        ),
        (SERVER + "  drain: ${1}\n", "2:10", "server.drain", "a variable is ${NAME}"),
        ("server: {}\n---\nserver: {}\n", "2:1", "", "a second document begins here (---)"),
        ("server: {}\nplugins: \0\n", "2:10", "", "the character U+0000 is not allowed here"),
        # More than values
        (
            'server: !!python/object/apply:os.system ["exit 1"]\n',
            "1:9",
            "server",
            "a value of the kind !!python/object/apply:os.system is not allowed here",
        ),
        (SERVER + "  drain: !!python/name:os.system\n", "2:10", "server.drain", "!!python/name:os.system"),
        (SERVER + "  drain: !secret x\n", "2:10", "server.drain", "a value of the kind !secret is not"),
        ("server: !secret {}\n", "1:9", "server", "a value of the kind !secret is not allowed here"),
        ("channels: !!set {a}\n", "1:11", "channels", "a value of the kind !!set is not allowed here"),
        ("channels: &a\n  b: *a\n", "1:11", "", "with its aliases (&name, *name) followed"),
    ],
)
def test_mistake_has_its_place(text: str, place: str, path: str, phrase: str) -> None:
    """A mistake is told once, with file, line, column, path and what is wrong."""
    [problem] = mistakes(text)
    assert (problem.place, problem.path) == (f"c.yaml:{place}", path)
    assert phrase in problem.message


class Pool(Model):
    """Settings as a plugin may have them: a union, and models in a list."""

    size: int | str = 1
    path: str
    nodes: list[Model]


def explained(text: str) -> list[str]:
    """What the model has against a text."""
    source = Source("c.yaml", environment={})
    with pytest.raises(ValidationError) as caught:
        Pool.model_validate(source.load(text))
    return list(map(str, source.explain(caught.value, Pool, ())))


def test_members_of_a_union_are_no_keys() -> None:
    """A value of no member of a union is told at its key, without the names of the members."""
    assert explained("path: x\nsize: [1]\nnodes: []\n") == [
        "c.yaml:2:7: size: expected a whole number",
        "c.yaml:2:7: size: expected text",
    ]


def test_missing_key_is_told_where_it_belongs() -> None:
    """What is missing is told at the section that needs it."""
    assert explained("nodes: []\n") == ["c.yaml:1:1: the key 'path' is missing"]


def test_unknown_key_in_a_list() -> None:
    """A key deep inside is told at its own place."""
    assert explained("path: x\nnodes: [{}, {zebra: 1}]\n") == [
        "c.yaml:2:14: nodes[1].zebra: unknown key",
    ]


# Bounds


def test_alias_bomb_is_bounded() -> None:
    """An alias bomb is refused before it grows."""
    lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    [problem] = mistakes("\n".join(["a0: &a0 [x, x]", *lines]))
    assert "with its aliases (&name, *name) followed, it is too large" in problem.message


def test_number_of_values_is_bounded() -> None:
    """A file of very many values is refused where it becomes too many."""
    [problem] = mistakes("plugins:\n" + "- a\n" * 40_000)
    assert problem.message == "from here on it is too large"
    assert re.fullmatch("c.yaml:(19999|20000):3", problem.place)


@pytest.mark.parametrize("opening", ["[", "{", "- ", "? ", "[a: "])
def test_nesting_is_bounded(opening: str) -> None:
    """A hundred thousand brackets are no traceback."""
    [problem] = mistakes(opening * 100_000)
    assert (problem.message, problem.line) == ("it is nested too deeply", 1)


def test_long_line_takes_no_long_time() -> None:
    """What is looked for in a line to explain it does not grow with the square of its length."""
    [problem] = mistakes("a: " * (MAX_FILE // 4))
    assert problem.place == "c.yaml:1:5"


# Files


def failing(file: Path) -> str:
    """What is wrong with a file."""
    with pytest.raises(ConfigError) as caught:
        Source("c.yaml").read(file)
    return str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is said not to be found."""
    assert failing(tmp_path / "c.yaml") == "c.yaml: not found"


def test_directory_is_no_config(tmp_path: Path) -> None:
    """A directory is no config."""
    (tmp_path / "c.yaml").mkdir()
    assert failing(tmp_path / "c.yaml") == "c.yaml: this is no config: not a file, or larger than 1 MiB"


def test_file_of_a_mebibyte_is_read(tmp_path: Path) -> None:
    """The largest file is one of 1 MiB."""
    file = tmp_path / "c.yaml"
    file.write_text("channels: {}\n".ljust(MAX_FILE))
    assert Source("c.yaml").read(file).strip() == "channels: {}"


def test_larger_file_is_refused(tmp_path: Path) -> None:
    """A byte more is no config."""
    file = tmp_path / "c.yaml"
    file.write_text("channels: {}\n".ljust(MAX_FILE + 1))
    assert failing(file) == "c.yaml: this is no config: not a file, or larger than 1 MiB"


def test_not_utf8(tmp_path: Path) -> None:
    """A file in another encoding is told the place of the first byte that is wrong."""
    file = tmp_path / "c.yaml"
    file.write_bytes("server: {}\n# caf\u00e9".encode("latin-1"))
    assert failing(file) == "c.yaml:2:6: this byte is not UTF-8"


def test_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    """A file that an editor began with a byte order mark is read."""
    file = tmp_path / "c.yaml"
    file.write_bytes(b"\xef\xbb\xbfchannels: {}\n")
    assert Source("c.yaml").read(file).strip() == "channels: {}"


# The environment


def test_environment() -> None:
    """A variable is filled in, its default where it is not set, more than one in a value."""
    source = Source("c.yaml", environment={"A": "1"})
    values = source.load("['${A}-${B:-b}', '${C:-}', '${A:-a}', $A]")
    assert (values, source.problems) == (["1-b", "", "1", "$A"], [])


# What a value must not be


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ('!!int ""', "a value of the kind !!int is not allowed here"),
        ('!!float ""', "a value of the kind !!float is not allowed here"),
        ("!!bool x", "a value of the kind !!bool is not allowed here"),
        ("!!timestamp x", "a value of the kind !!timestamp is not allowed here"),
        ('"\\ud800"', "the character U+D800 is not allowed here"),
        ('"a\\0b"', "the character U+0000 is not allowed here"),
        ("0x" + "f" * 5000, "a number has at most 64 bits"),
        ("0" + "7" * 9000, "a number has at most 64 bits"),
        ("9223372036854775808", "a number has at most 64 bits"),
    ],
)
def test_value_that_cannot_be(value: str, wrong: str) -> None:
    """A value that nothing could take is a mistake in its place, and hides no other."""
    told = mistakes(f"a: {value}\nb: !x y\n")
    assert [(problem.place, problem.message) for problem in told] == [
        ("c.yaml:1:4", wrong),
        ("c.yaml:2:4", "a value of the kind !x is not allowed here"),
    ]


def test_key_that_cannot_be() -> None:
    """A key with half a character is told in its place."""
    [problem] = mistakes('"\\ud800": 1\n')
    assert str(problem) == "c.yaml:1:1: a key is a plain word"


def test_variables_without_an_end_take_no_time() -> None:
    """A text full of openings of variables is read in one go."""
    source = Source("c.yaml", environment={})
    assert source.load("'" + "${A:-" * 20_000 + "'") is None
    assert [problem.place for problem in source.problems] == ["c.yaml:1:1"]


@pytest.mark.parametrize(("size", "mistakes"), [(1024, 0), (1025, 1)])
def test_default_of_a_variable_is_bounded(size: int, mistakes: int) -> None:
    """The default of a variable has at most 1,024 characters."""
    source = Source("c.yaml", environment={})
    source.load("'${A:-" + "x" * size + "}'")
    assert len(source.problems) == mistakes


def test_misread_secret_is_not_told() -> None:
    """A number that YAML misreads is not shown where the key speaks of a secret."""
    [problem] = mistakes("password: 0123456\n")
    assert "0123456" not in problem.message
    assert "42798" not in problem.message


class Safe(Model):
    """Settings with secrets in all kinds of places."""

    keys: list[SecretStr] | None = None
    more: dict[str, SecretStr] | None = None


@pytest.mark.parametrize("text", ["keys: [12345678]", "more: {a: 12345678}", "keys: 12345678"])
def test_secret_in_a_list_is_not_told(text: str) -> None:
    """A secret that is wrong is not shown, in a list or a mapping either."""
    source = Source("c.yaml", environment={})
    with pytest.raises(ValidationError) as caught:
        Safe.model_validate(source.load(text))
    [problem] = source.explain(caught.value, Safe, ())
    assert "12345678" not in problem.message


def test_doubled_dollar_is_one() -> None:
    """``$${`` is the text ``${``."""
    assert Source("c.yaml", environment={}).load("'$${A}'") == "${A}"


def test_what_a_variable_brings_is_not_read_again() -> None:
    """Dollars and braces in the value of a variable are what they are."""
    source = Source("c.yaml", environment={"A": "$${B} ${C}"})
    assert (source.load("'${A}'"), source.problems) == ("$${B} ${C}", [])
