"""The base of values that parse themselves: what pydantic asks of a type, said once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

REFERENCE: Mapping[str, Any] = {"type": "string", "pattern": r"\$\{"}
"""In a JSON Schema: a reference, which stands for a value of any type."""
_TEMPLATE = re.compile(r"\{\{.*\}\}", re.DOTALL)


def template_problem(written: str, remedy: str) -> str | None:
    """What is wrong with a text that takes no template, and looks like one; None for any other.

    Args:
        written: as it stands in the file.
        remedy: where such a thing belongs.
    """
    if _TEMPLATE.search(written):
        return f"takes no template, and is used as it stands; {remedy}"
    return None


class YamlValue:
    """A value of the YAML. A subclass has `parse`, which makes it of what stands there, or raises
    ValueError. One that is made already stays."""

    __slots__ = ()

    json_schema: ClassVar[Mapping[str, Any]] = {}
    """What may stand in the YAML."""
    parse: ClassVar[Any]

    def written(self) -> Any:
        """The value as it would stand in the YAML, or as people may see it."""
        return str(self)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls.parse(value),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value: value.written()
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return dict(cls.json_schema)
