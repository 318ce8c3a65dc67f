"""A source: the text of a config, its values, and the place of each of them.

Only safe YAML is read, its size and its aliases are bounded, and what YAML would quietly read
otherwise than it was meant is a mistake. Mistakes are collected, so that all are told at once.
"""

from __future__ import annotations

import codecs
import copy
import functools
import operator
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, SecretStr, ValidationError

from realtime.errors import ConfigError, Problem, did_you_mean
from realtime.wording import TAGS, as_written, nearest, wanted, yaml_problem

#: A config is a page; what is larger than this, in bytes, is something else.
MAX_FILE = 1024 * 1024
#: The most nodes a config may have, as it stands and once its aliases are followed: bounds the
#: time to read it, and an alias bomb.
MAX_NODES = 20_000
#: How deep they may be nested; a config needs five.
MAX_DEPTH = 50

#: The keys and indices that lead to a value.
KeyPath = tuple[str | int, ...]

M = TypeVar("M", bound=BaseModel)

#: Its parts are bounded, for in a text full of openings each would be followed to the end.
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]{0,255})(?::-([^}]{0,1024}))?\}")
#: What no text may have: a half of a character, and what ends one in C.
_UNSPEAKABLE = re.compile("[\0\ud800-\udfff]")
#: Keys and environment variables whose value is a secret by their name.
SECRET_NAME = re.compile("KEY|SECRET|TOKEN|PASS|CREDENTIAL", re.IGNORECASE)
#: How a text from the environment is read where another type is wanted, by pydantic's errors.
_FROM_TEXT: dict[str, tuple[str, Callable[[str], object]]] = {
    "int_type": ("[+-]?[0-9]{1,18}", int),
    "float_type": (r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?", float),
    "bool_type": ("true|false", "true".__eq__),
}
#: Numbers of YAML 1.1 that few people mean: sexagesimal 12:30, octal 010.
_MISREAD = re.compile(r"[^:]+:|[+-]?0[0-9_]")


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, with a bound on what it reads."""

    nodes = depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.nodes += 1
        self.depth += 1
        if self.nodes > MAX_NODES or self.depth > MAX_DEPTH:
            # The types of PyYAML leave this method out.
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            wrong = "from here on it is too large" if self.nodes > MAX_NODES else "it is nested too deeply"
            raise yaml.MarkedYAMLError(problem=wrong, problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


@dataclass
class Source:
    """A YAML text: its values, and where each of them stands."""

    name: str
    file: Path | None = None
    root: yaml.Node | None = field(default=None, repr=False)  # has secrets, too
    problems: list[Problem] = field(default_factory=list)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)  # has secrets
    #: The environment variables that stand in a value.
    variables: dict[KeyPath, tuple[str, ...]] = field(default_factory=dict)
    _nodes: int = 0
    _children: dict[int, dict[str, tuple[yaml.Node, yaml.Node]]] = field(default_factory=dict, repr=False)
    _refused: set[str] = field(default_factory=set)  # the paths of values that could not be read

    # Places

    def problem(self, message: str, path: KeyPath = (), *, key: bool = False) -> Problem:
        """A problem at a path in the document; at its key, or else at its value."""
        _, key_node, value_node = self._follow(path)
        node = key_node if key else value_node
        if path in self.variables and isinstance(value_node, yaml.ScalarNode):
            # What came from the environment may be a secret: it is told as it is written.
            value = re.escape(self._expand(value_node.value, lambda _: None))
            message = (
                re.sub(rf"(?<!\w){value}(?!\w)", lambda _: value_node.value, message) if value else message
            )
        return self._at(node.start_mark if node else None, message, _spell(path))

    def origin(self, path: KeyPath) -> str:
        """Where a value comes from: ``file:line:column`` and the environment, or ``default``."""
        found, _, node = self._follow(path)
        if node is None or found != path:
            return "default"
        names = dict.fromkeys(
            name for place, found in self.variables.items() if place[: len(path)] == path for name in found
        )
        return ", ".join([self._at(node.start_mark, "").place, *(f"${{{name}}}" for name in names)])

    def validate(self, model: type[M], values: Any, prefix: KeyPath = ()) -> M:
        """The values at a path as a model. Raises :exc:`pydantic.ValidationError`, for :meth:`explain`.

        What came from the environment is text; where a number or true or false is wanted, it is read
        as one.
        """
        try:
            return model.model_validate(values)
        except ValidationError as error:
            typed = copy.deepcopy(values)
            changed = False
            for item in error.errors():
                path, _, _ = self._follow((*prefix, *item["loc"]))
                pattern, read = _FROM_TEXT.get(item["type"], ("", str))
                text = item["input"]
                if path in self.variables and isinstance(text, str) and re.fullmatch(pattern, text):
                    *above, last = path[len(prefix) :]
                    functools.reduce(operator.getitem, above, typed)[last] = read(text)
                    changed = True
            if not changed:
                raise
            return model.model_validate(typed)

    def explain(self, error: ValidationError, model: type[BaseModel], prefix: KeyPath) -> list[Problem]:
        """The problems behind a model's error, each in its place."""
        problems: dict[Problem, None] = {}
        for item in error.errors():
            kind = item["type"]
            # pydantic's paths have more than keys: the members of a union, and what is missing.
            path, _, node = self._follow((*prefix, *item["loc"]))
            below = path[len(prefix) :]
            if kind == "extra_forbidden":
                known = [key for inner in _models_at(model, below[:-1]) for key in inner.model_fields]
                message = "unknown key" + did_you_mean(str(path[-1]), known)
            elif kind == "missing":
                message = (
                    f"the key {item['loc'][-1]!r} is missing{_meaning(model, (*below, item['loc'][-1]))}"
                )
            else:
                message = wanted(item)
                if _is_secret(model, below):
                    message += " (in quotes, if it looks like a number)" * (kind == "string_type")
                elif names := self.variables.get(path):
                    message += as_written(node, message) + self._of_environment(names)
                else:
                    message += as_written(node, message)
                    message += nearest(item, str(node.value)) if node is not None else ""
            problems[self.problem(message, path, key=kind == "extra_forbidden")] = None
        # What could not even be read is told already.
        return [problem for problem in problems if problem.path not in self._refused]

    def _follow(self, path: KeyPath) -> tuple[KeyPath, yaml.Node | None, yaml.Node | None]:
        """As much of a path as the document has, the node of its last key, and that of its value."""
        found: list[str | int] = []
        key = value = self.root
        for part in path:
            if isinstance(value, yaml.MappingNode):
                children = self._children.get(id(value))
                if children is None:  # the first of a key that is there twice counts
                    children = {
                        pair[0].value: pair
                        for pair in reversed(value.value)
                        if isinstance(pair[0], yaml.ScalarNode)
                    }
                    self._children[id(value)] = children
                pair = children.get(str(part))
            elif isinstance(value, yaml.SequenceNode) and isinstance(part, int) and part < len(value.value):
                pair = (value.value[part],) * 2
            else:
                pair = None
            if pair is not None:
                found.append(part)
                key, value = pair
        return tuple(found), key, value

    def _at(self, mark: yaml.Mark | None, message: str, path: str = "") -> Problem:
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        return Problem(message, path, self.name, line, column)

    def _after(self, text: str, message: str) -> Problem:
        return Problem(message, "", self.name, text.count("\n") + 1, len(text) - text.rfind("\n"))

    # Values

    def read(self, file: Path) -> str:
        """The text of a file. Raises :exc:`ConfigError` when it cannot be that of a config."""
        try:
            size = file.stat().st_size
            raw = file.read_bytes() if size <= MAX_FILE and file.is_file() else None
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            reason = "not found" if missing else (error.strerror or str(error)).lower()
            raise ConfigError(self._at(None, reason)) from None
        if raw is None:
            raise ConfigError(self._at(None, "this is no config: not a file, or larger than 1 MiB"))
        if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise ConfigError(self._at(None, "this is UTF-16; save it as UTF-8"))
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = raw[: error.start].decode("utf-8-sig")
            raise ConfigError(self._after(before, "this byte is not UTF-8")) from None

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
            wrong, mark = yaml_problem(error, text)
            problem = self._at(mark, wrong)
        except yaml.reader.ReaderError as error:
            wrong = f"the character U+{ord(text[error.position]):04X} is not allowed here"
            problem = self._after(text[: error.position], wrong)
        except (yaml.YAMLError, ValueError) as error:
            problem = self._at(None, f"this is no YAML: {str(error).splitlines()[0]}")
        except RecursionError:
            problem = self._at(None, "it is nested too deeply")
        self.root = None
        self.problems.append(problem)
        return None

    def _value(self, loader: _Loader, node: yaml.Node, path: KeyPath, above: tuple[int, ...]) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES or id(node) in above:
            wrong = "with its aliases (&name, *name) followed, it is too large"
            raise yaml.MarkedYAMLError(problem=wrong, problem_mark=node.start_mark)
        above = (*above, id(node))
        if isinstance(node, yaml.MappingNode) and node.tag == f"{TAGS}map":
            return self._mapping(loader, node, path, above)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{TAGS}seq":
            return [self._value(loader, item, (*path, i), above) for i, item in enumerate(node.value)]
        try:
            if not isinstance(node, yaml.ScalarNode):
                raise ValueError
            value = loader.construct_object(node)
        except Exception:  # PyYAML raises whatever its constructors do: of `!!int ""` an IndexError
            tag = node.tag.replace(TAGS, "!!")[:60]
            return self._refuse(f"a value of the kind {tag} is not allowed here", path)
        if isinstance(value, int) and abs(value) >= 2**63:
            return self._refuse("a number has at most 64 bits", path)
        if type(value) in (int, float) and _MISREAD.match(node.value):
            secret = path and SECRET_NAME.search(str(path[-1]))
            read = "this as a number" if secret else f"{node.value[:60]} as the number {value}"
            return self._refuse(f"YAML reads {read}; write that number, or put quotes around a text", path)
        if isinstance(value, str):
            if "${" in _VARIABLE.sub(" ", value):
                return self._refuse("a variable is ${NAME} or ${NAME:-default}; $${ is no variable", path)
            value = self._expand(value, lambda match: self._unset(match, path), path)
            if unspeakable := _UNSPEAKABLE.search(value):
                return self._refuse(f"the character U+{ord(unspeakable[0]):04X} is not allowed here", path)
        return value

    def _mapping(
        self, loader: _Loader, node: yaml.MappingNode, path: KeyPath, above: tuple[int, ...]
    ) -> dict[str, Any]:
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            name = key.value
            if key.tag == f"{TAGS}merge":
                wrong = "merging (<<) is not supported: write the keys themselves"
                self.problems.append(self._at(key.start_mark, wrong, _spell(path)))
            elif not isinstance(key, yaml.ScalarNode) or _UNSPEAKABLE.search(name):
                self.problems.append(self._at(key.start_mark, "a key is a plain word", _spell(path)))
            elif name in lines:
                twice = f"the key is there twice, first in line {lines[name]}"
                self.problems.append(self._at(key.start_mark, twice, _spell((*path, name))))
            else:
                lines[name] = key.start_mark.line + 1
                values[name] = self._value(loader, value, (*path, name), above)
        return values

    def _expand(
        self, text: str, unset: Callable[[re.Match[str]], object], path: KeyPath | None = None
    ) -> str:
        """The text with its variables filled in; ``unset`` is called for what has no value."""

        def value(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            if path is not None:
                self.variables[path] = (*self.variables.get(path, ()), match[1])
            default: str | None = match[2]
            found = self.environment.get(match[1], default)
            if found is None:
                unset(match)
            return found or ""

        return _VARIABLE.sub(value, text)

    def _of_environment(self, names: Iterable[str]) -> str:
        """What is known of the variables in a value that is wrong, without showing it."""
        found = (name for name in names if name in self.environment)
        told = [f"{name} is set{'' if self.environment[name] else ', but empty'}" for name in found]
        return f" (in the environment {', '.join(told)})" if told else ""

    def _unset(self, match: re.Match[str], path: KeyPath) -> None:
        hint = f"${{{match[1]}:-default}} gives one"
        self._refuse(f"the environment variable {match[1]} is not set ({hint})", path)

    def _refuse(self, wrong: str, path: KeyPath) -> None:
        self.problems.append(self.problem(wrong, path))
        self._refused.add(_spell(path))


def _types_in(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type):
        yield annotation
    for argument in get_args(annotation):
        yield from _types_in(argument)


def _models_at(model: type[BaseModel], path: KeyPath) -> list[type[BaseModel]]:
    """The models that the keys at a path belong to; a union may have several."""
    found = [model]
    for part in path:
        fields = [inner.model_fields[part] for inner in found if part in inner.model_fields]
        # What is no field is an index, or the key of a mapping: the models inside stay the same.
        types = [kind for field in fields for kind in _types_in(field.annotation)]
        found = [kind for kind in types if issubclass(kind, BaseModel)] if fields else found
    return found


def _meaning(model: type[BaseModel], path: KeyPath) -> str:
    """``: what the key is for``, or nothing."""
    fields = (inner.model_fields.get(str(path[-1])) for inner in _models_at(model, path[:-1]))
    described = next((field.description for field in fields if field and field.description), "")
    return f": {described}" if described else ""


def _is_secret(model: type[BaseModel], path: KeyPath) -> bool:
    """Whether a secret stands there, or in the list or mapping there, which no message may show."""
    for end in range(len(path), 0, -1):
        fields = [
            inner.model_fields.get(str(path[end - 1])) for inner in _models_at(model, path[: end - 1])
        ]
        if any(fields):
            return any(field and SecretStr in _types_in(field.annotation) for field in fields)
    return False


def _spell(path: KeyPath) -> str:
    text = ""
    for part in path:
        if isinstance(part, str) and not part.isprintable():
            part = repr(part)  # a problem is one line
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
