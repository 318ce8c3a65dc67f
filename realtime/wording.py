"""The wording of mistakes in a config, for somebody who knows neither YAML's grammar nor pydantic."""

from __future__ import annotations

import re

import yaml
from pydantic_core import ErrorDetails

from realtime.errors import did_you_mean

TAGS = "tag:yaml.org,2002:"
_NO_YAML = "no value of YAML is a {}: the plugin's setting is to be a list"
#: What a YAML author calls the kinds of values and their bounds, by the types of pydantic's errors.
_EXPECTED = {
    "model_type": "expected a section of keys",
    "dict_type": "expected a section of keys",
    "list_type": "expected a list",
    "tuple_type": _NO_YAML.format("tuple"),
    "set_type": _NO_YAML.format("set"),
    "frozen_set_type": _NO_YAML.format("frozenset"),
    "string_type": "expected text",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "finite_number": "expected a number that is not infinite",
    "greater_than": "expected a number greater than {gt}",
    "greater_than_equal": "expected a number of at least {ge}",
    "less_than": "expected a number less than {lt}",
    "less_than_equal": "expected a number of at most {le}",
    "string_pattern_mismatch": "expected text of the pattern {pattern}",
    "string_too_short": "expected text of at least {min_length} {characters}",
    "string_too_long": "expected text of at most {max_length} {characters}",
    "too_short": "expected {many} of at least {min_length} {items}, not of {actual_length}",
    "too_long": "expected {many} of at most {max_length} {items}, not of {actual_length}",
}
#: What YAML 1.1 reads from words that look like text, by the tags of its nodes.
_READ_AS = {
    f"{TAGS}bool": "true or false",
    f"{TAGS}timestamp": "a date",
    f"{TAGS}int": "a number",
    f"{TAGS}float": "a number",
    f"{TAGS}null": "nothing",
}
#: What YAML says of a text, and what that means to somebody who does not know its grammar.
_IN_WORDS = {
    "expected <block end>": "the indentation does not fit that of the lines above",
    "mapping values are not allowed": "a second colon: put the text in quotes, or begin a new line",
    "could not find expected ':'": "a key is followed by a colon and a space",
    "expected a single document": "a second document begins here (---), and a config is one",
    "cannot start any token": "no text begins with this character; put it in quotes",
    "expected the node content": 'a text with brackets or colons needs quotes here: "[::1]:8080"',
    "expected alphabetic or numeric": "* and & begin aliases and anchors; put the text in quotes",
}
_COMMENT = "begins a comment: put the text in quotes"


def wanted(item: ErrorDetails) -> str:
    """What a value is to be, by pydantic's error; ``expected …`` if something else may stand there."""
    facts = {key: f"{one:g}" if type(one) is float else one for key, one in item.get("ctx", {}).items()}
    bound = facts.get("min_length", facts.get("max_length"))
    many, one = ("a section", "key") if facts.get("field_type") == "Dictionary" else ("a list", "item")
    facts |= {"many": many, "items": one if bound == 1 else f"{one}s"}
    facts["characters"] = "character" if bound == 1 else "characters"
    message = str(item["msg"]).removeprefix("Value error, ")
    if words := _EXPECTED.get(item["type"]):
        message = words.format(**facts)
    message = re.sub("^Input should be", "expected", message)
    return message[:1].lower() + message[1:]


def nearest(item: ErrorDetails, value: str) -> str:
    """``, did you mean …?``, where one of some words is expected."""
    words = re.findall("'([^']+)'", item["ctx"]["expected"]) if item["type"] == "literal_error" else ()
    return did_you_mean(value, words)


def as_written(node: yaml.Node | None, message: str) -> str:
    """How a value is written; what came from the environment may be a secret and is not shown."""
    if isinstance(node, yaml.SequenceNode) and message.startswith("expected a section"):
        return ", not a list: begin its parts with a name and a colon, not with a dash"
    if not isinstance(node, yaml.ScalarNode):
        return ""
    value, read_as = node.value, _READ_AS.get(node.tag)
    if not value and read_as:
        return ", but nothing is there" + _after_comment(node.start_mark)
    number = not node.style and read_as == "a number"
    shown = f"{', not' if message.startswith('expected') else ':'} {value if number else repr(value)}"
    if len(value) > 60:
        shown = ""
    if message.startswith("expected a list"):
        return f"{shown}: write {f'[{value}]' if number else _in_flow(value)}" if shown else ""
    plain = {"expected a whole number": "[0-9]+", "expected true or false": "true|false|yes|no|on|off"}
    if node.style and message in plain and re.fullmatch(plain[message], value):
        return f"{shown}: write it without the quotes"
    if message == "expected a whole number" and read_as is None and re.fullmatch("[0-9.]+e[0-9]+", value):
        return f"{shown} (YAML reads this as text)"
    if message.startswith("expected a section"):
        return shown + (" (a key is followed by a colon and a space)" if re.match(r"\w+:\S", value) else "")
    if read_as in ("true or false", "a date") or (read_as and message.startswith("expected text")):
        return f"{shown} (YAML reads this as {read_as}; put it in quotes to mean text)"
    return shown


def _in_flow(value: str) -> str:
    """A list of this text, in quotes where YAML would misread it."""
    return yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=1000).strip()


def _after_comment(mark: yaml.Mark) -> str:
    """What to say where nothing is, for the text is a comment."""
    found = re.match(r"[ \t]*(#[^\s\0#][^\s\0]*)", (mark.buffer or "")[mark.pointer : mark.pointer + 200])
    return f"; {found[1][:60]!r} {_COMMENT}" if found else ""


def _comment_in_brackets(lines: list[str], last: int) -> tuple[int, int] | None:
    """The row and column of a comment that takes the end of what a bracket before it begins."""
    for row in range(min(last, len(lines) - 1), -1, -1):
        # What is in quotes is put out of sight, at its length.
        line = re.sub(r"\"[^\"]*\"|'[^']*'", lambda match: "x" * len(match[0]), lines[row][:1000])
        found = re.search(r"(?:^|[\s\[{,])#", line)
        if found and re.search(r"[\]}]", line[found.end() :]):
            before = line[: found.end()]
            if sum(map(before.count, "[{")) > sum(map(before.count, "]}")):
                return row, found.end() - 1
    return None


def yaml_problem(error: yaml.MarkedYAMLError, text: str) -> tuple[str, yaml.Mark | None]:
    """What is wrong with the YAML, for somebody who does not know its grammar, and where."""
    problem, context, mark = str(error.problem), error.context or "", error.problem_mark
    if "quoted scalar" in context and "end of stream" in problem:
        return "the quote that begins here does not end", error.context_mark
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if mark:
        line = line[max(mark.column - 200, 0) : mark.column + 200]
    if "\t" in line and "token" in problem:
        return "a tab indents here; YAML takes spaces only", mark
    said = f"{context}, {problem}" if context and not context.startswith("while") else problem
    said = next((words for phrase, words in _IN_WORDS.items() if phrase in said), said)
    if re.search(r"[:\[,]\s*[^\"'\s][^\"']*\{\w+(\.\.\.)?\}", line):
        said = 'inside braces a value with a {variable} needs quotes: "/rooms/{room}"'
    elif "while parsing a flow" in context and "'?'" in problem:
        return "inside brackets and braces a text with a question mark needs quotes", mark
    elif mark and "while parsing a flow" in context and (place := _comment_in_brackets(lines, mark.line)):
        return f"'#' {_COMMENT}", yaml.Mark(mark.name, 0, *place, None, 0)
    elif "while parsing a flow" in context and "expected ',' or" in problem:
        return "the bracket that begins here does not end, or lacks a comma", error.context_mark
    elif mark and "mapping values" in problem and line[: mark.column].count(":") == 0:
        return _before(lines, mark) or (said, mark)
    return said, mark


def _before(lines: list[str], mark: yaml.Mark) -> tuple[str, yaml.Mark] | None:
    """A key that YAML takes for the rest of the text before it: what is wrong there, and where."""
    number = next((n for n in range(mark.line - 1, -1, -1) if lines[n].partition("#")[0].strip()), None)
    if number is None:
        return None
    line = lines[number].partition("#")[0].rstrip()
    indent = len(line) - len(line.lstrip(" "))

    def there(column: int, row: int = number) -> yaml.Mark:
        return yaml.Mark(mark.name, 0, row, column, None, 0)

    for row in (number, mark.line):
        if "\u00a0" in lines[row]:
            wrong = "a no-break space (U+00A0); YAML takes plain spaces only"
            return wrong, there(lines[row].index("\u00a0"), row)
    if glued := re.fullmatch(r"\s*[\w.-]+:(?=[^\s:])\S.*", line):
        return "a space is missing after the colon", there(glued[0].index(":"))
    if ":" not in line:
        return f"a colon is missing after {line.strip()[:60]!r}", there(indent)
    if len(lines[mark.line]) - len(lines[mark.line].lstrip(" ")) > indent:
        return "this line is indented deeper than the one above", mark
    return None
