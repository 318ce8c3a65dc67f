"""The JSON Schema of a config, for editors: the settings of the server, of channel types and of plugins.

JSON Schema, draft 2020-12. An editor that knows it completes keys, shows what they mean, and marks
mistakes while they are made; ``python -m realtime check`` finds more of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticSerializationError, SchemaError, SchemaSerializer, core_schema

from realtime.channel import Channel
from realtime.config import Document
from realtime.engine import Engine
from realtime.values import Model

DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: A value may be taken from the environment wherever another is allowed.
_VARIABLE = r"\$\{"


class _Written(GenerateJsonSchema):
    """pydantic's schema, with defaults as they are written in YAML and without titles for keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> dict[str, Any]:
        result = super().default_schema(schema)
        if "default_factory" in schema and not schema.get("default_factory_takes_data"):
            with contextlib.suppress(Exception):  # of the plugin's own
                made: Any = schema["default_factory"]
                result["default"] = made()
                schema = {**schema, "default": result["default"]}
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


def settings_of(kind: object) -> type[Model]:
    """The model of what a plugin's class ``Plugin``, or an engine, can be set."""
    model = getattr(kind, "Settings", None)
    return model if isinstance(model, type) and issubclass(model, Model) else Model


def compose(
    types: Mapping[str, type[Channel]],
    plugins: Mapping[str, type[Model]] | None = None,
    engines: Mapping[str, type[Engine]] | None = None,
) -> dict[str, Any]:
    """The schema of a config whose channels may be of these types, with plugins that have these settings.

    Its engine is one of ``engines``, or of a plugin that nobody knows.

    Raises what pydantic raises for settings that have no schema.
    """
    whole = {"$schema": DIALECT, **of_model(Document), "title": "The config of Realtime"}
    definitions: dict[str, Any] = whole.setdefault("$defs", {})

    def rule(
        key: str, name: str, model: type[Model], about: str | None, by: str = "plugin"
    ) -> dict[str, Any]:
        schema = of_model(model, f"{key}.")
        definitions.update(schema.pop("$defs", {}))
        schema["properties"] = {by: {"type": "string"}, **schema.get("properties", {})}
        definitions[key] = {**schema, "title": key, "description": (about or "").partition("\n")[0]}
        named = {"type": "object", "properties": {by: {"const": name}}, "required": [by]}
        if name == "memory" and by == "engine":
            del named["required"]  # which it is where none is chosen
        return {"if": named, "then": {"$ref": f"#/$defs/{key}"}}

    rules = [
        rule(f"plugin.{name}", name, kind.Settings, kind.__doc__) for name, kind in sorted(types.items())
    ]
    beside = [
        rule(f"plugins.{name}", name, model, model.__doc__ if model is not Model else "")
        for name, model in sorted((plugins or {}).items())
    ]
    beneath = [
        rule(f"engine.{name}", name, settings_of(kind), kind.__doc__, "engine")
        for name, kind in sorted((engines or {"memory": Engine}).items())
    ]
    _allow_variables(whole)
    engine = definitions["BusSettings"]["properties"]["engine"]
    engine["anyOf"] = [{"enum": sorted(engines or ["memory"])}, {"type": engine.pop("type")}]
    definitions["BusSettings"]["allOf"] = beneath
    _, entry = whole["properties"]["plugins"]["items"]["anyOf"]
    names = {"anyOf": [{"enum": sorted(plugins or ())}, {"type": "string"}], "description": "the plugin"}
    entry |= {"properties": {"plugin": names}, "allOf": beside}
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
