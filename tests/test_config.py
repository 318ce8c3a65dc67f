"""The config: what is read, and every mistake in its place, none of them with a traceback."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings, strategies as st
from pydantic import BaseModel, ValidationError
from tree import checkout

from realtime.channel import Channel, Limits
from realtime.config import (
    BUILT_IN,
    JWT,
    TLS,
    Auth,
    BusSettings,
    Config,
    ServerLimits,
    ServerSettings,
    load,
    parse,
)
from realtime.errors import ConfigError, Problem
from realtime.loader import Plugins
from realtime.source import Source
from realtime.values import Address


def mistakes_of(read: Callable[[], Config]) -> Sequence[Problem]:
    """What is wrong; anything but a config or mistakes is an error of the test."""
    try:
        assert isinstance(read(), Config)
    except ConfigError as error:
        return error.problems
    return ()


def mistakes(text: str, environment: dict[str, str] | None = None) -> list[Problem]:
    """What is wrong with a config; none for one that is right."""
    source = Source("c.yaml", environment=environment or {})
    return parse(text, source).source.problems


# Every mistake in its place; those of the text are in test_source.py


SERVER = "server:\n"
LIMITS = "server:\n  limits:\n"
CHANNEL = "channels:\n  a:\n    plugin: echo\n    path: /a\n"


@pytest.mark.parametrize(
    ("text", "place", "path", "phrase"),
    [
        # Keys
        ("chanels: {}\n", "1:1", "chanels", "unknown key, did you mean 'channels'?"),
        (SERVER + "  lisen: [a:1]\n", "2:3", "server.lisen", "unknown key, did you mean 'listen'?"),
        (
            LIMITS + "    max_mesage: 1KiB\n",
            "3:5",
            "server.limits.max_mesage",
            "unknown key, did you mean 'max_message'?",
        ),
        (LIMITS + "    zebra: 1\n", "3:5", "server.limits.zebra", "unknown key"),
        ('"a\\nb": 1\n', "1:1", r"'a\nb'", "unknown key"),
        ("channels:\n  a b: {}\n", "2:3", "channels.a b", "a channel's name is letters"),
        (f"channels:\n  {'a' * 65}: {{}}\n", "2:3", f"channels.{'a' * 65}", "at most 64"),
        # Wrong types
        ("server: 1\n", "1:9", "server", "expected a section of keys, not 1"),
        ("server:\n  drain 1s\n", "2:3", "server", "expected a section of keys, not 'drain 1s'"),
        ("channels: [echo]\n", "1:11", "channels", "expected a section of keys"),
        ("channels:\n  echo: /ws\n", "2:9", "channels.echo", "expected a section of keys, not '/ws'"),
        ("plugins: dice\n", "1:10", "plugins", "expected a list, not 'dice'"),
        ("plugins: [dice, 7]\n", "1:17", "plugins[1]", "expected text, not 7"),
        (SERVER + "  listen: a:1\n", "2:11", "server.listen", "expected a list, not 'a:1'"),
        (SERVER + "  listen: []\n", "2:11", "server.listen", "expected a list of at least 1 item"),
        (LIMITS + "    topics: many\n", "3:13", "server.limits.topics", "a whole number, not 'many'"),
        (LIMITS + "    topics: '7'\n", "3:13", "server.limits.topics", "expected a whole number, not '7'"),
        (
            LIMITS + "    topics: -1\n",
            "3:13",
            "server.limits.topics",
            "expected a number of at least 0, not -1",
        ),
        (SERVER + "  origins: 3\n", "2:12", "server.origins", "expected same, any or a list such as"),
        (SERVER + "  origins: [a.example]\n", "2:13", "server.origins[0]", "a scheme and a host"),
        (SERVER + "  origins: [any]\n", "2:13", "server.origins[0]", "a scheme and a host"),
        (SERVER + "  origins: ['https://a/']\n", "2:13", "server.origins[0]", "no slash behind"),
        (SERVER + "  origins: ['https://a:x']\n", "2:13", "server.origins[0]", "a scheme and a host"),
        (SERVER + "  origins: ['https://a.*.b']\n", "2:13", "server.origins[0]", "a scheme and a host"),
        (SERVER + "  origins: ['*']\n", "2:13", "server.origins[0]", "a scheme and a host"),
        (SERVER + "  hosts: rt.example\n", "2:10", "server.hosts", "expected a list"),
        (SERVER + "  hosts: ['https://a']\n", "2:11", "server.hosts[0]", "a host, perhaps with a port"),
        (SERVER + "  hosts: ['*.a']\n", "2:11", "server.hosts[0]", "a host, perhaps with a port"),
        (LIMITS + "    max_waiting: 0\n", "3:18", "server.limits.max_waiting", "greater than 0"),
        (SERVER + "  listen: [nohost]\n", "2:12", "server.listen[0]", "expected HOST:PORT,"),
        (SERVER + "  listen: ['unix:']\n", "2:12", "server.listen[0]", "expected HOST:PORT,"),
        (SERVER + "  listen: [a:70000]\n", "2:12", "server.listen[0]", "a port between 0 and 65535"),
        # The traps of YAML 1.1
        (
            SERVER + "  origins: no\n",
            "2:12",
            "server.origins",
            "not 'no' (YAML reads this as true or false; put it in quotes to mean text)",
        ),
        ("plugins: [yes]\n", "1:11", "plugins[0]", "YAML reads this as true or false"),
        (SERVER + "  drain: 2026-01-01\n", "2:10", "server.drain", "YAML reads this as a date"),
        # Durations and sizes
        (SERVER + "  drain: 10\n", "2:10", "server.drain", "a duration such as 500ms, 10s or 5m, not 10"),
        (SERVER + "  drain: 10 s\n", "2:10", "server.drain", "expected a duration such as"),
        (SERVER + "  drain: -1s\n", "2:10", "server.drain", "expected a duration such as"),
        (SERVER + "  drain: .inf\n", "2:10", "server.drain", "expected a duration such as"),
        (SERVER + "  drain: 0s\n", "2:10", "server.drain", "a duration between 1ms and 366d, not '0s'"),
        (SERVER + "  drain: 9999d\n", "2:10", "server.drain", "a duration between 1ms and 366d"),
        (SERVER + "  drain:\n", "2:9", "server.drain", "expected a duration such as"),
        (LIMITS + "    memory: 64KB\n", "3:13", "server.limits.memory", "such as 512B, 64KiB or 1MiB"),
        (LIMITS + "    memory: 1.5MiB\n", "3:13", "server.limits.memory", "expected a size such as"),
        (LIMITS + "    memory: 65536\n", "3:13", "server.limits.memory", "expected a size such as"),
        (LIMITS + "    memory: 0B\n", "3:13", "server.limits.memory", "a size between 1B and 1024GiB"),
        (LIMITS + "    memory: 2000GiB\n", "3:13", "server.limits.memory", "between 1B and 1024GiB"),
        # The top
        ("- a\n", "1:1", "", "the top is a mapping with 'server' and 'channels'"),
        ("hello\n", "1:1", "", "the top is a mapping with 'server' and 'channels'"),
    ],
)
def test_mistake_has_its_place(text: str, place: str, path: str, phrase: str) -> None:
    """A mistake is told once, with file, line, column, path and what is wrong."""
    [problem] = mistakes(text)
    assert (problem.place, problem.path) == (f"c.yaml:{place}", path)
    assert phrase in problem.message


@pytest.mark.parametrize("text", ["", "  \n\n", "# only\n# comments\n", "---\n", "~\n"])
def test_empty_config_says_what_it_needs(text: str) -> None:
    """A config with nothing in it is told what it needs."""
    assert list(map(str, mistakes(text))) == ["c.yaml: it is empty: it needs a section 'channels'"]


def test_all_mistakes_at_once() -> None:
    """Several mistakes are told together."""
    text = "server:\n  drain: x\n  origins: 3\nplugin: []\nchannels: {a: 1, b b: {}}\n"
    assert sorted(problem.path for problem in mistakes(text)) == [
        "channels.a",
        "channels.b b",
        "plugin",
        "server.drain",
        "server.origins",
    ]


def test_mistakes_of_reading_and_of_meaning_at_once() -> None:
    """A duplicate key and a missing variable do not hide an unknown key."""
    text = "plugins: []\nplugins: []\nserver: {drain: '${X}', lisen: []}\n"
    assert {problem.path for problem in mistakes(text)} == {"plugins", "server.drain", "server.lisen"}


def test_place_behind_an_alias_is_where_the_value_stands() -> None:
    """A value that is used by an alias is told where it is written."""
    [problem] = mistakes("plugins: &p [1]\nchannels: {a: {plugin: echo, x: *p}}\n")
    assert str(problem).startswith("c.yaml:1:14: plugins[0]: expected text, not 1")


def test_mistake_in_an_environment_variable_shows_no_value() -> None:
    """What came from the environment may be a secret: the message shows how it is written."""
    [problem] = mistakes(SERVER + "  drain: ${DRAIN}\n", {"DRAIN": "hunter2"})
    assert problem.message.endswith("not '${DRAIN}' (in the environment DRAIN is set)")


def test_directory_of_a_file_is_where_plugins_may_stand(tmp_path: Path) -> None:
    """A config knows its directory, and one that is no file has none."""
    file = tmp_path / "c.yaml"
    file.write_text("channels: {}\n")
    assert (load(file).directory, parse("channels: {}").directory) == (tmp_path, None)


# Values


def test_all_defaults() -> None:
    """A config that says nothing has the defaults."""
    config = parse("channels:\nserver:\n")
    assert (config.server, config.plugins, config.channels) == (ServerSettings(), [], {})


def test_origin_is_compared_without_case() -> None:
    """An origin is kept in lower case, as browsers send it."""
    listed = parse(
        "server: {origins: [same, 'https://App.example', 'https://*.App.example']}"
    ).server.origins
    assert listed == ["same", "https://app.example", "https://*.app.example"]


def test_host_is_compared_without_case() -> None:
    """So is a host."""
    assert parse("server: {hosts: [Rt.Example, '[::1]:8080']}").server.hosts == ["rt.example", "[::1]:8080"]


def test_settings_do_not_change() -> None:
    """Settings are frozen."""
    with pytest.raises(ValidationError, match="frozen"):
        parse("channels: {}").server.drain = 1.0


def test_listening_on_leaves_the_original() -> None:
    """Another value in the server's section makes another config."""
    config = parse("channels: {}")
    before, elsewhere = config.server.listen, [Address("127.0.0.1", 9)]
    changed = config.listening_on(elsewhere)
    assert (changed.server.listen, config.server.listen) == (elsewhere, before)


# No text whatever ends in a traceback

WORDS = """
    server channels plugins listen limits topics echo /ws 10s 010 12:30 no ~ ${X} ${X:-1} &a *a !!map !x
    << ? : - , [ ] { } ' " | > # % @ --- ... \\ é
"""
SPACES = [" ", ": ", "- ", "\n", "\n  ", "\n    ", ":\n", "\t", "\0", "\x85", "\ud800", "\ufeff"]
SOUP = st.lists(st.sampled_from(WORDS.split() + SPACES), max_size=60).map("".join)


def check(text: str) -> None:
    """A text is a config, or its mistakes are lines that name the file."""
    for problem in mistakes_of(lambda: parse(text, Source("c.yaml", environment={}))):
        assert problem.place.startswith("c.yaml")
        assert problem.message
        assert "\n" not in str(problem)


@given(st.text(max_size=200) | SOUP)
@settings(deadline=None, max_examples=300)
def test_any_text_is_a_config_or_has_mistakes(text: str) -> None:
    """An arbitrary text gives a config or mistakes, nothing else."""
    check(text)


@given(st.data())
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_any_mutation_is_a_config_or_has_mistakes(data: st.DataObject) -> None:
    """A config that somebody's cat walked over gives a config or mistakes, nothing else."""
    text = BUILT_IN.read_text().replace("# ", "", 40)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 20))
        text = text[:at] + data.draw(SOUP) + text[at + cut :]
    check(text)


@given(st.binary(max_size=100))
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_config_or_have_mistakes(tmp_path: Path, data: bytes) -> None:
    """A file of arbitrary bytes gives a config or mistakes, nothing else."""
    file = tmp_path / "c.yaml"
    file.write_bytes(data)
    assert all(problem.place.startswith(str(file)) for problem in mistakes_of(lambda: load(file)))


# The config that comes with the server


def entries() -> dict[str, Any]:
    """config.yaml with every commented key switched on."""
    text = re.sub(r"(?m)^( *)# ( *[a-z_]+:( |$))", r"\1\2", BUILT_IN.read_text())
    values: dict[str, Any] = yaml.safe_load(text)
    return values


def keys(*models: type[BaseModel]) -> set[str]:
    """The keys of some models."""
    return {key for model in models for key in model.model_fields}


def defaults(model: type[BaseModel]) -> dict[str, Any]:
    """The defaults of a model, of the keys that have one."""
    return {
        key: field.get_default() for key, field in model.model_fields.items() if not field.is_required()
    }


def test_built_in_config_is_the_one_at_the_top() -> None:
    """The built-in config is config.yaml to the byte."""
    assert BUILT_IN.read_bytes() == (checkout() / "config.yaml").read_bytes()


def test_built_in_config_serves_three_channels() -> None:
    """The built-in config is right and has echo, chat and clock."""
    config = load()
    assert {name: values["plugin"] for name, values in config.channels.items()} == {
        "echo": "echo",
        "lobby": "chat",
        "clock": "clock",
    }


def test_sections_stand_in_the_config() -> None:
    """config.yaml has every section."""
    assert set(entries()) == {"server", "bus", "auth", "plugins", "channels"}


def test_every_server_key_stands_in_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """config.yaml names every key of the server with its default, or else with an example."""
    monkeypatch.setenv("TLS_PASSWORD", "sesame")
    server = entries()["server"]
    assert (set(server), set(server["limits"])) == (keys(ServerSettings), keys(ServerLimits))
    assert set(server["tls"]) == keys(TLS)
    given = parse(yaml.safe_dump({"server": server})).server
    without = {name for name, field in ServerSettings.model_fields.items() if field.default is None}
    assert all(getattr(given, name) is not None for name in without)
    assert given.model_copy(update=dict.fromkeys(without)) == ServerSettings()


def test_every_key_of_auth_stands_in_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """config.yaml names every key of ``auth`` with its default, or else with an example."""
    monkeypatch.setenv("REALTIME_KEY", "sesame")
    auth = entries()["auth"]
    assert (set(auth), set(auth["jwt"])) == (keys(Auth), keys(JWT))
    given = parse(yaml.safe_dump({"auth": auth, "channels": {}})).auth.jwt
    without = {name: None for name, field in JWT.model_fields.items() if field.default is None}
    assert given is not None
    assert all(getattr(given, name) is not None for name in without)
    assert given.model_copy(update=without) == JWT()


def test_every_channel_key_stands_in_the_config() -> None:
    """config.yaml names every key that all channels have, with its default."""
    entry = entries()["channels"]["echo"]
    assert set(entry) == keys(Channel.Settings)
    given = Channel.Settings.model_validate(entry).model_dump()
    expected = Channel.Settings(plugin="echo", path="/ws").model_dump()
    assert given == expected


def test_every_limit_of_a_channel_stands_in_the_config() -> None:
    """config.yaml says which limits a channel has, beside its ``limits``."""
    [line] = [line for line in BUILT_IN.read_text().splitlines() if "limits: {}" in line]
    assert all(key in line for key in keys(Limits))


@pytest.mark.parametrize(("channel", "plugin"), [("echo", "echo"), ("lobby", "chat"), ("clock", "clock")])
def test_every_key_of_a_plugin_stands_in_the_config(channel: str, plugin: str) -> None:
    """config.yaml names the keys that a plugin adds or whose default it changes, with its defaults."""
    model = Plugins().channel_type(plugin).Settings
    common = defaults(Channel.Settings)
    own = {key: value for key, value in defaults(model).items() if common.get(key, common) != value}
    given = model.model_validate(entries()["channels"][channel])
    assert {key: getattr(given, key) for key in own} == own
    assert own.keys() <= entries()["channels"][channel].keys()


def test_engine_is_memory_unless_another_is_chosen() -> None:
    """Without a section ``bus``, and with an empty one, the engine is ``memory``."""
    for text in ("channels: {}", "bus:\nchannels: {}", "bus: {}\nchannels: {}"):
        assert parse(text).bus == BusSettings(engine="memory")


def test_settings_of_the_engine_are_beside_its_name() -> None:
    """What else stands under ``bus`` is kept for the engine, with what comes from the environment."""
    source = Source("config", environment={"URL": "redis://u:hunter2@h"})
    config = parse("bus: {engine: redis, url: '${URL}', prefix: a}\nchannels: {}", source)
    assert (config.bus.engine, config.bus.model_extra) == (
        "redis",
        {"url": "redis://u:hunter2@h", "prefix": "a"},
    )


def test_settings_of_the_engine_are_not_shown() -> None:
    """An engine may have secrets: no config that is shown, for instance in an error, has them."""
    assert "hunter2" not in repr(parse("bus: {engine: redis, url: 'redis://u:hunter2@h'}\nchannels: {}"))


@pytest.mark.parametrize(
    ("bus", "path", "wrong"),
    [
        ("{engine: 5}", "bus.engine", "expected text, not 5"),
        ("[redis]", "bus", "expected a section of keys, not a list"),
        ("redis", "bus", "expected a section of keys"),
        ("{url: 'redis://h'}", "bus", "the key 'engine' is missing"),
    ],
)
def test_engine_that_has_no_name(bus: str, path: str, wrong: str) -> None:
    """The name of an engine is a text, in a section."""
    [problem] = mistakes(f"bus: {bus}\nchannels: {{}}")
    assert problem.path == path
    assert problem.message.startswith(wrong)


def test_address_that_is_there_twice() -> None:
    """An address can be listened on once."""
    [problem] = mistakes("server: {listen: ['127.0.0.1:8080', '127.0.0.1:8080']}")
    assert (problem.path, problem.message) == ("server.listen", "127.0.0.1:8080 is there twice")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (
            "server: {trusted_proxies: [proxy.example]}",
            "1:28: server.trusted_proxies[0]: expected an address, a network such as 10.0.0.0/8, or unix, "
            "not 'proxy.example'",
        ),
        (
            "server: {trusted_proxies: [unix, 10.0.0.1/8]}",
            "1:34: server.trusted_proxies[1]: expected 10.0.0.0/8, a network by its first "
            "address, not '10.0.0.1/8'",
        ),
        ("server: {trusted_proxies: unix}", "1:27: server.trusted_proxies: expected a list, not 'unix'"),
        ('server: {trusted_proxies: ["::1/129"]}', "server.trusted_proxies[0]: expected an address"),
        ("server: {url: rt.example}", "1:15: server.url: expected https://HOST or http://HOST"),
        ('server: {url: "https://rt.example/rt"}', "server.url: expected https://HOST"),
        ('server: {url: "wss://rt.example"}', "server.url: expected https://HOST"),
        ('server: {url: "https://rt.example:0"}', "server.url: expected https://HOST"),
        ('server: {url: "https://rt.example:65536"}', "server.url: expected https://HOST"),
        ('server: {url: "https://user@rt.example"}', "server.url: expected https://HOST"),
        ('server: {url: ""}', "server.url: expected https://HOST"),
    ],
)
def test_proxies_and_url_that_are_none(text: str, wrong: str) -> None:
    """A proxy that is no address and a URL that is no site are mistakes in their place."""
    (problem,) = mistakes(text)
    assert wrong in str(problem)


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("https://rt.example", "https://rt.example"),
        ("HTTP://RT.example:8080/", "http://rt.example:8080"),
        ("https://[2001:DB8::7]:8443", "https://[2001:db8::7]:8443"),
    ],
)
def test_url(written: str, url: str) -> None:
    """The server's URL is a scheme and a host, with a port if it is another than the usual."""
    assert parse(f"server: {{url: '{written}'}}").server.url == url


def test_password_is_not_shown() -> None:
    """A password that is no text is a mistake, but not one that shows it."""
    (problem,) = mistakes("server: {tls: {cert: c, password: 4711}}")
    assert str(problem) == (
        "c.yaml:1:35: server.tls.password: expected text (in quotes, if it looks like a number)"
    )


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ("0660", "server.socket_mode: YAML reads 0660 as the number 432"),
        ("660", 'server.socket_mode: expected a mode in quotes such as "0660", not 660'),
        ('"0680"', 'server.socket_mode: expected a mode in quotes such as "0660"'),
        ('"4777"', 'server.socket_mode: expected a mode in quotes such as "0660"'),
        ('"u=rw"', 'server.socket_mode: expected a mode in quotes such as "0660"'),
    ],
)
def test_mode_that_is_none(written: str, wrong: str) -> None:
    """The mode of a unix socket is text of octal digits, as chmod has it."""
    (problem,) = mistakes(f"server: {{socket_mode: {written}}}")
    assert wrong in str(problem)


@pytest.mark.parametrize(("written", "mode"), [("0600", 0o600), ("666", 0o666), ("0000", 0)])
def test_mode(written: str, mode: int) -> None:
    """The zero in front may be left out."""
    assert parse(f'server: {{socket_mode: "{written}"}}').server.socket_mode == mode


def test_unix_socket_is_beside_the_config(tmp_path: Path) -> None:
    """The path of a unix socket is relative to the config file, like every path in it."""
    source = Source("c.yaml", tmp_path / "c.yaml")
    listen = parse("server: {listen: ['unix:run/a.sock', 'unix:/b.sock']}", source).server.listen
    assert [address.path for address in listen] == [f"{tmp_path}/run/a.sock", "/b.sock"]


def test_path_that_is_too_long() -> None:
    """The path of a unix socket has at most 107 bytes; it is told in its place."""
    listen = [f"unix:/{'a' * 106}", f"unix:/{'a' * 107}", f"unix:/{'é' * 53}", f"unix:/{'é' * 54}"]
    found = mistakes(yaml.safe_dump({"server": {"listen": listen}}))
    assert [problem.path for problem in found] == ["server.listen[1]", "server.listen[3]"]
    assert "the path of a unix socket has at most 107 bytes" in str(found[0])
    assert found[0].place == "c.yaml:4:5"


def test_path_that_is_too_long_with_its_directory(tmp_path: Path) -> None:
    """The directory of the config counts."""
    source = Source("c.yaml", tmp_path / ("d" * 100) / "c.yaml")
    (problem,) = parse("server: {listen: ['unix:a.sock']}", source).source.problems
    assert "at most 107 bytes" in str(problem)


def test_config_does_not_show_itself() -> None:
    """The representation of a config has no values of channels, where secrets are."""
    config = parse("channels: {a: {plugin: echo, path: /a, token: hunter2}}")
    assert "hunter2" not in repr(config)


def test_address_of_the_other_kind() -> None:
    """An IPv4 address in IPv6 clothes would match nobody, and is told."""
    [problem] = mistakes("server: {trusted_proxies: ['::ffff:127.0.0.1']}")
    assert problem.message.startswith("expected 127.0.0.1: an IPv4 address is written as such")
