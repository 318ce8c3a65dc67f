"""The values of a config: durations, sizes, addresses and what else is written in a way of its own.

In Python they are numbers and objects, in YAML text; each knows how it is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    SecretStr,
    WithJsonSchema,
)
from pydantic_core import PydanticSerializationError, to_jsonable_python

from realtime.paths import check_path

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

#: How a duration is written.
DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]+)(B|KiB|MiB|GiB)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def read_duration(value: object) -> float:
    """The seconds of ``500ms``, ``10s`` or ``5m``. Raises :exc:`ValueError`."""
    match = DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected a duration such as 500ms, 10s or 5m")
    seconds = float(match[1]) * _SECONDS[match[2]]
    if not 0.001 <= seconds <= 366 * 86400:
        raise ValueError("expected a duration between 1ms and 366d")
    return seconds


def write_duration(seconds: float) -> str:
    """How so many seconds are written."""
    for unit in ("d", "h", "m", "s"):
        if seconds >= _SECONDS[unit] and (seconds / _SECONDS[unit]).is_integer():
            return f"{seconds / _SECONDS[unit]:.0f}{unit}"
    number, unit = (seconds * 1000, "ms") if seconds < 1 else (seconds, "s")
    return f"{number:.6f}".rstrip("0").rstrip(".") + unit


def _size(value: object) -> int:
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected a size such as 512B, 64KiB or 1MiB")
    size = int(match[1]) * _BYTES[match[2]]
    if not 1 <= size <= 1024**4:
        raise ValueError("expected a size between 1B and 1024GiB")
    return size


def _write_size(size: int) -> str:
    unit = next(unit for unit in ("GiB", "MiB", "KiB", "B") if size % _BYTES[unit] == 0)
    return f"{size // _BYTES[unit]}{unit}"


def written(write: Callable[[Any], str], title: str, pattern: str = "") -> tuple[Any, ...]:
    """What the annotation of a type adds that is text in YAML: how it is written there.

    People read the title, editors the pattern.
    """
    schema = {"type": "string", "title": title, **({"pattern": f"^({pattern})$"} if pattern else {})}
    return PlainSerializer(write, return_type=str, when_used="json"), WithJsonSchema(schema)


#: A time in seconds, written ``500ms``, ``10s``, ``5m``, ``1h``.
Duration = Annotated[
    float, BeforeValidator(read_duration), *written(write_duration, "a duration", DURATION.pattern)
]
#: A number of bytes, written ``64KiB``, ``1MiB``.
Size = Annotated[int, BeforeValidator(_size), *written(_write_size, "a size", _SIZE.pattern)]
#: The path of a channel, such as ``/chat`` or ``/rooms/{room}``.
ChannelPath = Annotated[str, AfterValidator(check_path), *written(str, "a path", "/.*")]
#: A text that no log, message or command shows; ``get_secret_value()`` returns it.
Secret = Annotated[SecretStr, PlainSerializer(lambda _: "***", return_type=str, when_used="json")]


class Model(BaseModel):
    """The base of all settings: unknown keys are errors, nothing is converted, nothing changes."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """A key that has another default here means what it means in the model that this is made of."""
        schema = handler(core_schema)
        bases = [base for base in cls.__mro__ if issubclass(base, BaseModel)]
        for key, value in handler.resolve_ref_schema(schema)["properties"].items():
            described = (base.model_fields[key].description for base in bases if key in base.model_fields)
            if meaning := next(filter(None, described), None):
                value["description"] = meaning
        return schema


def as_yaml(settings: Model) -> dict[str, Any]:
    """Settings as they would stand in a config; what cannot stand there, as Python shows it."""
    try:
        return settings.model_dump(mode="json", by_alias=True)
    except PydanticSerializationError:
        shown: dict[str, Any] = to_jsonable_python(settings.model_dump(by_alias=True), fallback=repr)
        return shown


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
        if isinstance(text, str) and text.startswith("unix:") and len(text) > 5:
            return cls(path=text[5:])
        match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/\s]+):([0-9]{1,5})", str(text))
        if match is None or not isinstance(text, str):
            raise ValueError("expected HOST:PORT, [IPV6]:PORT or unix:/PATH")
        port = int(match[2])
        if port > 65535:
            raise ValueError("expected a port between 0 and 65535 (0: any that is free)")
        return cls(host=match[1].strip("[]"), port=port)
