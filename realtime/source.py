"""A source: the text of a config, its values, and the place of each of them.

Only safe YAML is read, its size and its aliases are bounded, and what YAML would quietly read
otherwise than it was meant is a mistake. Mistakes are collected, so that all are told at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from realtime.errors import ConfigError, Problem, did_you_mean

#: A config is a page; what is larger than this, in bytes, is something else.
MAX_FILE = 1024 * 1024
#: The most nodes a config may have, as it stands and once its aliases are followed: bounds the
#: time to read it, and an alias bomb.
MAX_NODES = 20_000

#: The keys and indices that lead to a value.
KeyPath = tuple[str | int, ...]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_TAGS = "tag:yaml.org,2002:"
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
#: What YAML 1.1 reads from words that look like text, by the tags of its nodes.
_TRAPS = {f"{_TAGS}bool": "true or false", f"{_TAGS}timestamp": "a date"}
#: Integers of YAML 1.1 that few people mean: sexagesimal 12:30, octal 010.
_MISREAD = re.compile(r"[^:]+:|[+-]?0[0-9_]")


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
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)  # has secrets
    _nodes: int = 0

    # Places

    def problem(self, message: str, path: KeyPath = (), *, key: bool = False) -> Problem:
        """A problem at a path in the document; at its key, or else at its value."""
        _, key_node, value_node = self._follow(path)
        node = key_node if key else value_node
        return Problem(message, _spell(path), self._place(node.start_mark) if node else self.name)

    def explain(self, error: ValidationError, model: type[BaseModel], prefix: KeyPath) -> list[Problem]:
        """The problems behind a model's error, each in its place."""
        problems: dict[Problem, None] = {}
        for item in error.errors():
            kind = item["type"]
            # pydantic's paths have more than keys: the members of a union, and what is missing.
            path, _, node = self._follow((*prefix, *item["loc"]))
            if kind == "extra_forbidden":
                message = "unknown key" + did_you_mean(str(path[-1]), _keys(model, path[len(prefix) : -1]))
            elif kind == "missing":
                message = f"the key {item['loc'][-1]!r} is missing"
            else:
                message = _EXPECTED.get(kind, str(item["msg"]).removeprefix("Value error, "))
                shown = "" if "password" in path else _as_written(node)
                message = message[:1].lower() + message[1:] + shown
            problems[self.problem(message, path, key=kind == "extra_forbidden")] = None
        # What could not even be read is told already.
        told = {problem.path for problem in self.problems}
        return [problem for problem in problems if problem.path not in told]

    def _follow(self, path: KeyPath) -> tuple[KeyPath, yaml.Node | None, yaml.Node | None]:
        """As much of a path as the document has, the node of its last key, and that of its value."""
        found: list[str | int] = []
        key = value = self.root
        for part in path:
            if isinstance(value, yaml.MappingNode):
                pair = next((pair for pair in value.value if pair[0].value == part), None)
            elif isinstance(value, yaml.SequenceNode) and isinstance(part, int) and part < len(value.value):
                pair = (value.value[part],) * 2
            else:
                pair = None
            if pair is not None:
                found.append(part)
                key, value = pair
        return tuple(found), key, value

    def _place(self, mark: yaml.Mark) -> str:
        return f"{self.name}:{mark.line + 1}:{mark.column + 1}"

    def _place_after(self, text: str) -> str:
        return f"{self.name}:{text.count(chr(10)) + 1}:{len(text) - text.rfind(chr(10))}"

    # Values

    def read(self, file: Path) -> str:
        """The text of a file. Raises :exc:`ConfigError` when it cannot be that of a config."""
        try:
            size = file.stat().st_size
            raw = file.read_bytes() if size <= MAX_FILE and file.is_file() else None
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            reason = "not found" if missing else (error.strerror or str(error)).lower()
            raise ConfigError(Problem(reason, place=self.name)) from None
        if raw is None:
            wrong = "this is no config: not a file, or larger than 1 MiB"
            raise ConfigError(Problem(wrong, place=self.name))
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            place = self._place_after(raw[: error.start].decode("utf-8-sig"))
            raise ConfigError(Problem("this byte is not UTF-8", place=place)) from None

    def load(self, text: str) -> Any:
        """The values of a YAML text; what is wrong with it is added to ``problems``."""
        wrong, place = "", self.name
        try:
            loader = _Loader(text)
            try:
                self.root = loader.get_single_node()
                return None if self.root is None else self._value(loader, self.root, (), ())
            finally:
                loader.dispose()
        except yaml.MarkedYAMLError as error:
            wrong, mark = _yaml_problem(error, text)
            place = self._place(mark) if mark else place
        except yaml.reader.ReaderError as error:
            place = self._place_after(text[: error.position])
            wrong = f"the character U+{ord(text[error.position]):04X} is not allowed here"
        except (yaml.YAMLError, ValueError) as error:
            wrong = f"this is no YAML: {str(error).splitlines()[0]}"
        except RecursionError:
            wrong = "it is nested too deeply"
        self.problems.append(Problem(wrong, place=place))
        return None

    def _value(self, loader: _Loader, node: yaml.Node, path: KeyPath, above: tuple[int, ...]) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES or id(node) in above:
            wrong = "with its aliases (&name, *name) followed, it is too large"
            raise yaml.MarkedYAMLError(problem=wrong, problem_mark=node.start_mark)
        above = (*above, id(node))
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAGS}map":
            return self._mapping(loader, node, path, above)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAGS}seq":
            return [self._value(loader, item, (*path, i), above) for i, item in enumerate(node.value)]
        try:
            if not isinstance(node, yaml.ScalarNode):
                raise ValueError
            value = loader.construct_object(node)
        except (yaml.YAMLError, ValueError):
            tag = node.tag.replace(_TAGS, "!!")[:60]
            return self._refuse(f"a value of the kind {tag} is not allowed here", path)
        if type(value) is int and _MISREAD.match(node.value):
            written = f"YAML reads {node.value[:60]} as the number {value}"
            return self._refuse(f"{written}; write that, or put it in quotes to mean text", path)
        if isinstance(value, str):
            return _VARIABLE.sub(lambda match: self._variable(match, path), value)
        return value

    def _mapping(
        self, loader: _Loader, node: yaml.MappingNode, path: KeyPath, above: tuple[int, ...]
    ) -> dict[str, Any]:
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            place, name = self._place(key.start_mark), key.value
            if not isinstance(key, yaml.ScalarNode) or key.tag == f"{_TAGS}merge":
                self.problems.append(Problem("a key is a plain word", _spell(path), place))
            elif name in lines:
                twice = f"the key is there twice, first in line {lines[name]}"
                self.problems.append(Problem(twice, _spell((*path, name)), place))
            else:
                lines[name] = key.start_mark.line + 1
                values[name] = self._value(loader, value, (*path, name), above)
        return values

    def _variable(self, match: re.Match[str], path: KeyPath) -> str:
        default: str | None = match[2]
        value = self.environment.get(match[1], default)
        if value is None:
            hint = f"${{{match[1]}:-default}} gives one"
            self._refuse(f"the environment variable {match[1]} is not set ({hint})", path)
        return value or ""

    def _refuse(self, wrong: str, path: KeyPath) -> None:
        self.problems.append(self.problem(wrong, path))


def _keys(model: type[BaseModel], path: KeyPath) -> Iterable[str]:
    """The keys that a model, or one inside it, knows."""
    found: Any = model
    for part in path:
        info = getattr(found, "model_fields", {}).get(part)
        found = info.annotation if info else None
    return getattr(found, "model_fields", ())


def _as_written(node: yaml.Node | None) -> str:
    """How a value is written; what came from the environment may be a secret and is not shown."""
    if not isinstance(node, yaml.ScalarNode):
        return ""
    shown = f", not {node.value!r}" if len(node.value) <= 60 else ""
    if node.tag in _TRAPS:
        shown += f" (YAML reads this as {_TRAPS[node.tag]}; put it in quotes to mean text)"
    return shown


def _spell(path: KeyPath) -> str:
    text = ""
    for part in path:
        if isinstance(part, str) and not part.isprintable():
            part = repr(part)  # a problem is one line
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


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
