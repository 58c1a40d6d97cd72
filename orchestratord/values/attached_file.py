"""Files that the YAML names, with what they held when it was read.

What a request needs of them is part of the configuration: a file that changes makes a new one, and
one that cannot be used leaves the last good one in force.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from orchestratord.values.secret import Text
from orchestratord.values.yaml_value import YamlValue

Attach = Callable[[str, int, bool], bytes]
"""Reads a file: its name as written, how many bytes it may have, and whether it has to be in the
config folder. Raises ValueError. It comes as validation context, under `attach`."""


@dataclass(frozen=True)
class Attachment(YamlValue):
    """A file. Equal names and contents are equal."""

    name: str
    """As it stands in the YAML."""
    content: bytes = field(repr=False)

    limit: ClassVar[int] = 1_048_576
    """Bytes."""
    inside: ClassVar[bool] = False
    """Whether the file has to be in the config folder."""
    json_schema: ClassVar[Mapping[str, Any]] = {
        "type": "string",
        "minLength": 1,
        "description": "the path of a file",
    }

    @classmethod
    def parse(cls, value: Any, info: ValidationInfo) -> Self:
        """Read the file that a text names. Raises ValueError."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, str) or not value:
            raise ValueError("expected the path of a file")
        attach: Attach | None = (info.context or {}).get("attach")
        if attach is None:
            raise ValueError("files can only be named in a config folder")
        name = value.source if isinstance(value, Text) else value
        return cls(name, attach(str(value), cls.limit, cls.inside))

    def written(self) -> str:
        return self.name

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = super().__get_pydantic_core_schema__(source, handler)
        return core_schema.with_info_plain_validator_function(
            cls.parse, serialization=schema["serialization"]
        )


class BodyFile(Attachment):
    """What is sent as it is."""

    __slots__ = ()

    limit = 16 << 20
    inside = True
    json_schema: ClassVar[Mapping[str, Any]] = {
        **Attachment.json_schema,
        "description": "the path of a file, relative to the config folder and in it",
    }
