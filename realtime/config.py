"""The config: ``config.yaml`` read, checked and typed, with the place of every mistake.

Every mistake is reported at once as ``file:line:column: path: what is wrong``. A channel's own
settings are checked by its type's model, which the loader finds; the place in the file is found
here for both.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    NonNegativeInt,
    Tag,
    ValidationError,
)
from pydantic import Field as PydanticField

from realtime.errors import ConfigError, Problem
from realtime.paths import check_path

#: A config is a page; what is larger than this, in bytes, is something else.
MAX_FILE = 1024 * 1024
#: The most nodes a config may have, as it stands and once its aliases are followed: bounds the
#: time to read it, and an alias bomb.
MAX_NODES = 20_000

BUILT_IN = Path(__file__).with_name("config.yaml")

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]+)(B|KiB|MiB|GiB)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_CHANNEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def _duration(value: object) -> float:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected a duration such as 500ms, 10s or 5m")
    seconds = float(match[1]) * _SECONDS[match[2]]
    if not 0.001 <= seconds <= 366 * 86400:
        raise ValueError("a duration is between 1ms and 366d")
    return seconds


def _size(value: object) -> int:
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected a size such as 512B, 64KiB or 1MiB")
    size = int(match[1]) * _BYTES[match[2]]
    if not 1 <= size <= 1024**4:
        raise ValueError("a size is between 1B and 1024GiB")
    return size


#: A time in seconds, written ``500ms``, ``10s``, ``5m``, ``1h``.
Duration = Annotated[float, BeforeValidator(_duration)]
#: A number of bytes, written ``64KiB``, ``1MiB``.
Size = Annotated[int, BeforeValidator(_size)]
#: The path of a channel, such as ``/chat`` or ``/rooms/{room}``.
ChannelPath = Annotated[str, AfterValidator(check_path)]


class Model(BaseModel):
    """The base of all settings: unknown keys are errors, nothing is converted, nothing changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


@dataclass(frozen=True)
class Address:
    """Where to listen: a host and a port, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return bool(self.path) or self.host in ("localhost", "::1") or self.host.startswith("127.")

    @classmethod
    def parse(cls, text: object) -> Address:
        """Read ``127.0.0.1:8080``, ``[::1]:8080`` or ``unix:/run/realtime.sock``."""
        if isinstance(text, cls):
            return text
        if isinstance(text, str) and text.startswith("unix:") and len(text) > 5:
            return cls(path=text[5:])
        match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/\s]+):([0-9]{1,5})", str(text))
        if match is None or not isinstance(text, str):
            raise ValueError("expected HOST:PORT, [IPV6]:PORT or unix:/PATH")
        port = int(match[2])
        if port > 65535:
            raise ValueError("a port is between 0 and 65535 (0: any that is free)")
        return cls(host=match[1].strip("[]"), port=port)


def _without_doubles(addresses: list[Address]) -> list[Address]:
    for address in addresses:
        if addresses.count(address) > 1 and (address.path or address.port):
            raise ValueError(f"{address} is there twice")
    return addresses


def _origin(value: str) -> str:
    if not re.fullmatch(r"https?://[^/\s?#@*]+", value):
        raise ValueError("an origin is a scheme and a host: https://app.example")
    return value.lower()


def _origins_word(value: object) -> object:
    if value not in ("same", "any"):
        raise ValueError("expected same, any or a list such as [https://app.example]")
    return value


#: Which pages may connect. The tags tell the two apart, so that a mistake is told once.
Origins = Annotated[
    Annotated[Literal["same", "any"], BeforeValidator(_origins_word), Tag("literal[]")]
    | Annotated[list[Annotated[str, AfterValidator(_origin)]], Tag("list[]")],
    Discriminator(lambda value: "list[]" if isinstance(value, list) else "literal[]"),
]


class ServerLimits(Model):
    """Bounds of the whole server; ``max_message`` and ``max_clients`` also of a channel."""

    max_message: Size = 64 * 1024
    max_clients: NonNegativeInt = 20_000
    topics: NonNegativeInt = 10_000
    memory: Size = 256 * 1024 * 1024


class ServerSettings(Model):
    """The ``server`` section."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    listen: Annotated[
        list[Annotated[Address, BeforeValidator(Address.parse)]], AfterValidator(_without_doubles)
    ] = PydanticField(default=[Address("127.0.0.1", 8080)], min_length=1)
    origins: Origins = "same"
    drain: Duration = 10.0
    limits: ServerLimits = ServerLimits()


class _Document(Model):
    server: ServerSettings = ServerSettings()
    plugins: list[str] = []
    channels: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True)
class Config:
    """A config that has the right shape; channels' own settings are still as they were read."""

    source: Source
    server: ServerSettings
    plugins: list[str]
    channels: dict[str, dict[str, Any]]

    def listening_on(self, addresses: list[Address]) -> Config:
        """The same config, listening elsewhere."""
        return replace(self, server=self.server.model_copy(update={"listen": addresses}))

    @property
    def directory(self) -> Path | None:
        """The directory of the config file, beside which plugins may stand."""
        return self.source.file.parent if self.source.file else None


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, with a bound on what it reads."""

    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="from here on it is too large", problem_mark=mark)
        return super().compose_node(parent, index)


@dataclass
class Source:
    """A YAML text: its values, and where each of them stands."""

    name: str
    file: Path | None = None
    root: yaml.Node | None = None
    problems: list[Problem] = field(default_factory=list)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    _nodes: int = 0

    def problem(self, message: str, path: Iterable[str | int] = (), *, key: bool = False) -> Problem:
        """A problem at a path in the document; at its key, or else at its value."""
        path = tuple(path)
        node = self._find(path, key=key)
        place = self.name
        if node is not None:
            place += f":{node.start_mark.line + 1}:{node.start_mark.column + 1}"
        return Problem(message, _spell(path), place)

    def explain(
        self, error: ValidationError, model: type[BaseModel], prefix: tuple[str, ...]
    ) -> list[Problem]:
        """The problems behind a model's error, each in its place."""
        problems = []
        for item in error.errors():
            # pydantic names the members of a union in the path; they are no keys of the config.
            loc = tuple(part for part in item["loc"] if not _is_union_member(part))
            path = (*prefix, *loc)
            message = str(item["msg"]).removeprefix("Value error, ")
            unknown = item["type"] == "extra_forbidden"
            if unknown:
                message = "unknown key" + did_you_mean(str(loc[-1]), _keys(model, loc[:-1]))
            elif item["type"] == "missing":
                path, loc = path[:-1], loc[:-1]
                message = f"the key {item['loc'][-1]!r} is missing"
            else:
                message = _EXPECTED.get(item["type"], message)
                message = message[:1].lower() + message[1:] + self._as_written(path)
            problems.append(self.problem(message, path, key=unknown))
        # What could not even be read is told already.
        told = {problem.path for problem in self.problems}
        return [problem for problem in dict.fromkeys(problems) if problem.path not in told]

    def _as_written(self, path: tuple[str | int, ...]) -> str:
        node = self._find(path)
        if not isinstance(node, yaml.ScalarNode):
            return ""
        text = node.value
        shown = f", not {text!r}" if len(text) <= 60 else ""
        kind = node.tag.rpartition(":")[2]
        if kind in ("bool", "timestamp"):
            return f"{shown} (YAML reads this as {_KINDS[kind]}; put it in quotes to mean text)"
        return shown

    def _find(self, path: tuple[str | int, ...], *, key: bool = False) -> yaml.Node | None:
        node, last_key = self.root, self.root
        for part in path:
            if isinstance(node, yaml.MappingNode):
                found = [(k, v) for k, v in node.value if k.value == str(part)]
                if not found:
                    break
                last_key, node = found[0]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                last_key = node = node.value[part]
            else:
                break
        return last_key if key else node

    def load(self, text: str) -> Any:
        """The values of a YAML text; what is wrong with it is added to ``problems``."""
        try:
            loader = _Loader(text)
            try:
                self.root = loader.get_single_node()
                return None if self.root is None else self._value(loader, self.root, (), ())
            finally:
                loader.dispose()
        except yaml.MarkedYAMLError as error:
            problem, mark = _yaml_problem(error, text)
            place = f"{self.name}:{mark.line + 1}:{mark.column + 1}" if mark else self.name
            self.problems.append(Problem(problem, place=place))
        except yaml.reader.ReaderError as error:
            before = text[: error.position]
            place = f"{self.name}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
            wrong = f"the character U+{ord(text[error.position]):04X} is not allowed here"
            self.problems.append(Problem(wrong, place=place))
        except (yaml.YAMLError, ValueError) as error:
            self.problems.append(Problem(f"this is no YAML: {str(error).splitlines()[0]}", place=self.name))
        except RecursionError:
            self.problems.append(Problem("it is nested too deeply", place=self.name))
        return None

    def _value(
        self, loader: yaml.SafeLoader, node: yaml.Node, path: tuple[str | int, ...], above: tuple[int, ...]
    ) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES or id(node) in above:
            wrong = "with its aliases (&name, *name) followed, it is too large"
            raise yaml.MarkedYAMLError(problem=wrong, problem_mark=node.start_mark)
        above = (*above, id(node))
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _COLLECTIONS:
            self.problems.append(self._not_allowed(node, path))
            return None
        if isinstance(node, yaml.MappingNode):
            values: dict[str, Any] = {}
            lines: dict[str, int] = {}
            for key, value in node.value:
                place = f"{self.name}:{key.start_mark.line + 1}:{key.start_mark.column + 1}"
                if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                    self.problems.append(Problem("a key is a plain word", _spell(path), place))
                    continue
                name = key.value
                if name in values:
                    first = f"the key is there twice, first in line {lines[name]}"
                    self.problems.append(Problem(first, _spell((*path, name)), place))
                    continue
                lines[name] = key.start_mark.line + 1
                values[name] = self._value(loader, value, (*path, name), above)
            return values
        if isinstance(node, yaml.SequenceNode):
            return [self._value(loader, item, (*path, i), above) for i, item in enumerate(node.value)]
        try:
            scalar = loader.construct_object(node)
        except (yaml.YAMLError, ValueError):
            self.problems.append(self._not_allowed(node, path))
            return None
        if type(scalar) is int and _MISREAD.match(node.value):
            wrong = (
                f"YAML reads {node.value[:60]} as the number {scalar}; write that, or put it in quotes "
                "to mean text"
            )
            self.problems.append(self.problem(wrong, path))
            return None
        return self._expand(scalar, path) if isinstance(scalar, str) else scalar

    def _not_allowed(self, node: yaml.Node, path: tuple[str | int, ...]) -> Problem:
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")[:60]
        return self.problem(f"a value of the kind {tag} is not allowed here", path)

    def _expand(self, text: str, path: tuple[str | int, ...]) -> str:
        def replace(match: re.Match[str]) -> str:
            default: str | None = match[2]
            value = self.environment.get(match[1], default)
            if value is None:
                wrong = (
                    f"the environment variable {match[1]} is not set (${{{match[1]}:-default}} gives one)"
                )
                self.problems.append(self.problem(wrong, path))
                return ""
            return value

        return _VARIABLE.sub(replace, text)


#: What a YAML author calls the kinds of values, by the types of pydantic's errors.
_EXPECTED = {
    "model_type": "expected a section of keys",
    "dict_type": "expected a section of keys",
    "list_type": "expected a list",
    "string_type": "expected text",
    "int_type": "expected a whole number",
    "bool_type": "expected true or false",
    "too_short": "the list has too few items",
}
_KINDS = {"bool": "true or false", "timestamp": "a date"}
_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
#: Integers of YAML 1.1 that few people mean: sexagesimal 12:30, octal 010.
_MISREAD = re.compile(r"[^:]+:|[+-]?0[0-9_]")


def load(file: Path | None = None) -> Config:
    """Read a config file, or the built-in one. Raises :exc:`ConfigError` with every problem."""
    source = Source(_shown(file), file.absolute()) if file else Source("the built-in config")
    path = file or BUILT_IN
    try:
        size = path.stat().st_size
        raw = path.read_bytes() if size <= MAX_FILE and path.is_file() else None
    except OSError as error:
        raise ConfigError(Problem(_os_reason(error), place=source.name)) from None
    if raw is None:
        raise ConfigError(Problem("this is no config: not a file, or larger than 1 MiB", place=source.name))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig")
        place = f"{source.name}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
        raise ConfigError(Problem("this byte is not UTF-8", place=place)) from None
    return parse(text, source)


def parse(text: str, source: Source | None = None) -> Config:
    """Read a config from a text. Raises :exc:`ConfigError` with every problem."""
    source = source or Source("config")
    values = source.load(text)
    if values is None and not source.problems:
        source.problems.append(Problem("it is empty: it needs a section 'channels'", place=source.name))
    elif not source.problems and not isinstance(values, dict):
        source.problems.append(source.problem("the top is a mapping with 'server' and 'channels'"))
    document = _Document()
    if isinstance(values, dict):
        # `channels:` with nothing under it is an empty section, not a mistake.
        values = {
            key: {} if value is None and key in ("server", "channels") else value
            for key, value in values.items()
        }
        try:
            document = _Document.model_validate(values)
        except ValidationError as error:
            source.problems.extend(source.explain(error, _Document, ()))
        for name in document.channels:
            if not _CHANNEL_NAME.fullmatch(name):
                wrong = "a channel's name is letters, digits, '-', '_' and '.', at most 64"
                source.problems.append(source.problem(wrong, ("channels", name), key=True))
    if source.problems:
        raise ConfigError(*source.problems)
    return Config(source, document.server, document.plugins, document.channels)


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """``, did you mean …?`` with the nearest of some words, or nothing."""
    near = difflib.get_close_matches(word, list(words), 1)
    return f", did you mean {near[0]!r}?" if near else ""


def _keys(model: type[BaseModel], loc: tuple[str | int, ...]) -> Iterator[str]:
    found: Any = model
    for part in loc:
        info = (
            found.model_fields.get(str(part))
            if isinstance(found, type) and issubclass(found, BaseModel)
            else None
        )
        found = info.annotation if info else None
    if isinstance(found, type) and issubclass(found, BaseModel):
        yield from found.model_fields


def _is_union_member(part: str | int) -> bool:
    return isinstance(part, str) and bool(re.match(r"(literal|list|constrained-str|function-\w+)\[", part))


def _spell(path: Iterable[str | int]) -> str:
    text = ""
    for part in path:
        if isinstance(part, str) and not part.isprintable():
            part = repr(part)  # a problem is one line
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _shown(file: Path) -> str:
    return str(file)


def _os_reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "not found"
    return (error.strerror or str(error)).lower()


def _yaml_problem(error: yaml.MarkedYAMLError, text: str) -> tuple[str, yaml.Mark | None]:
    """What is wrong with the YAML, for somebody who does not know its grammar, and where."""
    problem, context, mark = str(error.problem), error.context or "", error.problem_mark
    if "quoted scalar" in context and "end of stream" in problem:
        return "the quote that begins here does not end", error.context_mark
    if context and not context.startswith("while"):
        problem = f"{context}, {problem}"
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if mark:
        line = line[max(mark.column - 200, 0) : mark.column + 200]
    if "\t" in line and "token" in problem:
        return "a tab indents here; YAML takes spaces only", mark
    if re.search(r"[:\[,]\s*[^\"'\s][^\"']*\{\w+(\.\.\.)?\}", line):
        return f'{problem}; inside braces a value with a {{variable}} needs quotes: "/rooms/{{room}}"', mark
    return problem, mark
