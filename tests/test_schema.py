"""The schema of a config: what an editor says agrees with what the server says."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field, SecretStr

from realtime.channel import Channel
from realtime.config import BUILT_IN, ServerSettings
from realtime.engine import Engine
from realtime.loader import Plugins
from realtime.permissions import Allow, Permission
from realtime.schema import compose, of_model
from realtime.values import Duration, Model


class Pool(Model):
    """A section inside a section."""

    size: int = 3


class Audit(Model):
    """What is written down, and where."""

    file: str
    pools: Annotated[list[Pool], Field(default_factory=list)]


class Poll(Channel):
    """Ask everybody something."""

    class Settings(Channel.Settings):
        question: str
        """what is asked"""

        closes: Duration = 90.0
        """for how long answers are taken"""

        history: int = 7
        pool: Pool = Pool()
        key: SecretStr | None = None


def first_party() -> dict[str, type[Channel]]:
    """The channel types that come with the server."""
    plugins = Plugins()
    for name in ("chat", "clock", "echo"):
        plugins.load(name)
    return plugins.types


class Shelf(Engine):
    """Keeps the logs on a shelf."""

    class Settings(Model):
        """What a shelf can be set."""

        url: str
        pool: Pool = Pool()


SCHEMA = compose(
    {**first_party(), "poll": Poll},
    {"audit": Audit, "gate": Model},
    {"memory": Engine, "shelf": Shelf},
)
VALIDATOR = Draft202012Validator(SCHEMA)


def fits(text: str) -> bool:
    """Whether an editor would find nothing wrong with a config."""
    return not list(VALIDATOR.iter_errors(yaml.safe_load(text)))


def entry(keys: str, plugin: str = "poll") -> str:
    """A config with one channel that has some keys."""
    return f"channels: {{a: {{plugin: {plugin}, path: /a, {keys}}}}}"


def test_schema_is_one() -> None:
    """It is a JSON Schema of the draft that it names."""
    Draft202012Validator.check_schema(SCHEMA)


def test_built_in_config_fits() -> None:
    """The config that comes with the server fits its schema."""
    assert fits(BUILT_IN.read_text())


@pytest.mark.parametrize(
    "text",
    [
        entry("question: why"),
        entry("question: why, closes: 1.5s, pool: {size: 1}, limits: {max_message: 1KiB}"),
        entry("question: why, closes: '${CLOSES:-1m}', history: '${N}', enabled: '${ON}'"),
        entry("overflow: '${X:-skip}', history: 5", "echo"),
        "server: {listen: ['127.0.0.1:1', '[::1]:1', 'unix:/x'], origins: any, drain: 5m}",
        "server: {origins: ['https://a.example', same, 'https://*.a.example']}\nplugins: [a, b]",
        "server: {hosts: [a.example, 'a.example:1'], limits: {max_waiting: 5}}",
        "plugins: [audit, {plugin: gate}, {plugin: audit, file: x, pools: [{size: '${N}'}]}]",
        "plugins: [{plugin: of_nobody, a: 1}]",
        "bus: {}",
        "bus: {engine: memory}",
        "bus: {engine: shelf, url: x, pool: {size: '${N}'}}",
        "bus: {engine: of_nobody, a: 1}",
        "bus: {engine: '${ENGINE:-memory}', url: x}",
    ],
)
def test_what_is_right_fits(text: str) -> None:
    """What the server takes an editor takes, variables of the environment included."""
    assert fits(text)


@pytest.mark.parametrize(
    "text",
    [
        "chanels: {}",
        "server: {drain: 10}",
        "server: {drain: soon}",
        "server: {origins: some}",
        "server: {hosts: ['https://a.example']}",
        "server: {limits: {max_waiting: 0}}",
        "server: {limits: {memory: 1MB}}",
        "channels: {a: {plugin: zebra, path: /a}}",
        "plugins: [{plugin: audit}]",
        "plugins: [{plugin: audit, file: x, flie: y}]",
        "plugins: [{plugin: audit, file: x, pools: [{sise: 1}]}]",
        "plugins: [{plugin: gate, file: x}]",
        "plugins: [{file: x}]",
        "bus: {engine: shelf}",
        "bus: {engine: shelf, url: 7}",
        "bus: {engine: shelf, url: x, ulr: x}",
        "bus: {engine: shelf, url: x, pool: {sise: 1}}",
        "bus: {engine: memory, url: x}",
        "bus: {url: x}",
        "bus: {engine: 7}",
        "channels: {a: {plugin: echo}}",
        entry(""),
        entry("question: 7"),
        entry("question: why, quest: 1"),
        entry("question: why, pool: {sise: 1}"),
        entry("history: -1", "echo"),
        entry("overflow: drop", "echo"),
        entry("question: why", "echo"),
    ],
)
def test_what_is_wrong_does_not_fit(text: str) -> None:
    """What the server refuses an editor marks."""
    assert not fits(text)


def test_defaults_are_as_they_are_written() -> None:
    """A default stands in the schema as one would write it in YAML."""
    keys = of_model(Poll.Settings)["properties"]
    assert (keys["closes"]["default"], keys["lag_bytes"]["default"], keys["pool"]["default"]) == (
        "90s",
        "4MiB",
        {"size": 3},
    )


def test_keys_say_what_they_mean() -> None:
    """A key's description is the docstring below it; one that is inherited keeps its own."""
    keys = of_model(Poll.Settings)["properties"]
    assert (keys["question"]["description"], keys["history"]["description"]) == (
        "what is asked",
        "how many messages of a topic a newcomer may ask for",
    )


def test_keys_of_a_section_say_what_they_mean() -> None:
    """So does a key of a section that a channel type gives another default."""

    class Rules(Allow):
        publish: Permission = "local"

    class Settings(Channel.Settings):
        allow: Rules = Rules()

    assert of_model(Settings)["$defs"]["Rules"]["properties"]["publish"] == {
        **of_model(Allow)["properties"]["publish"],
        "default": "local",
    }


@pytest.mark.parametrize(
    "model",
    [ServerSettings, *(kind.Settings for kind in first_party().values())],
    ids=lambda m: m.__qualname__,
)
def test_every_key_of_ours_has_a_meaning(model: type[BaseModel]) -> None:
    """Every key that comes with the server says what it means."""

    def silent(schema: dict[str, Any]) -> list[str]:
        return [key for key, value in schema["properties"].items() if not value.get("description")]

    schema = of_model(model)
    assert [silent(schema), *map(silent, schema.get("$defs", {}).values())] == [
        [] for _ in range(1 + len(schema.get("$defs", {})))
    ]
