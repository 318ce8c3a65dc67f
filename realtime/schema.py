"""The JSON Schema of a config, for editors: the server's settings, and those of every channel type.

JSON Schema, draft 2020-12. An editor that knows it completes keys, shows what they mean, and marks
mistakes while they are made; ``python -m realtime check`` finds more of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticSerializationError, SchemaError, SchemaSerializer, core_schema

from realtime.channel import Channel
from realtime.config import Document

DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: A value may be taken from the environment wherever another is allowed.
_VARIABLE = r"\$\{"


class _Written(GenerateJsonSchema):
    """pydantic's schema, with defaults as they are written in YAML and without titles for keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> dict[str, Any]:
        result = super().default_schema(schema)
        if "default" in result:
            try:
                inner = SchemaSerializer(schema["schema"])
                result["default"] = inner.to_python(self.get_default_value(schema), mode="json")
            except (SchemaError, PydanticSerializationError):
                pass  # of a recursive model: the default stays as it is
        return result


def of_model(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """The schema of one model; the models inside it are in its ``$defs``, each behind the prefix."""
    schema = model.model_json_schema(schema_generator=_Written, ref_template=f"#/$defs/{prefix}{{model}}")
    if "$defs" in schema:
        schema["$defs"] = {f"{prefix}{name}": inner for name, inner in schema["$defs"].items()}
    return schema


def compose(types: Mapping[str, type[Channel]]) -> dict[str, Any]:
    """The schema of a config whose channels may be of these types.

    Raises what pydantic raises for settings that have no schema.
    """
    whole = {"$schema": DIALECT, **of_model(Document), "title": "The config of Realtime"}
    definitions: dict[str, Any] = whole.setdefault("$defs", {})
    rules: list[dict[str, Any]] = []
    for name, kind in sorted(types.items()):
        key = f"plugin.{name}"
        schema = of_model(kind.Settings, f"{key}.")
        definitions |= schema.pop("$defs", {})
        schema |= {"title": key, "description": (kind.__doc__ or "").partition("\n")[0]}
        definitions[key] = schema
        named = {"properties": {"plugin": {"const": name}}, "required": ["plugin"]}
        rules.append({"if": named, "then": {"$ref": f"#/$defs/{key}"}})
    _allow_variables(whole)
    whole["properties"]["channels"]["additionalProperties"] = {
        "type": "object",
        "required": ["plugin", "path"],
        "properties": {"plugin": {"enum": sorted(types), "description": "the channel type"}},
        "allOf": rules,
    }
    return whole


def _allow_variables(node: Any) -> None:
    if isinstance(node, list):
        for item in node:
            _allow_variables(item)
    elif isinstance(node, dict):
        for item in node.values():
            _allow_variables(item)
        if "enum" in node:
            node.pop("type", None)
            node["anyOf"] = [{"enum": node.pop("enum")}, {"type": "string", "pattern": _VARIABLE}]
        elif node.get("type") in ("integer", "number", "boolean"):
            node |= {"type": [node["type"], "string"], "pattern": _VARIABLE}
        elif node.get("type") == "string" and "pattern" in node:
            node["pattern"] += f"|{_VARIABLE}"
