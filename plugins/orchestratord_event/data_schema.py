"""A JSON Schema in a file, by which the data of an event are checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from orchestratord import Attachment, Model
from orchestratord_event.schema_check import SchemaCheck
from orchestratord_event.schema_process import SchemaProcess

PROCESS = SchemaProcess()
"""Where the daemon has data checked."""


@dataclass(frozen=True)
class SchemaFile(Attachment):
    """A JSON Schema, which is made ready when the file is read."""

    inside: ClassVar[bool] = True
    json_schema: ClassVar[Mapping[str, Any]] = {
        **Attachment.json_schema,
        "description": "the path of a JSON Schema, relative to the config folder and in it",
    }

    def __post_init__(self) -> None:
        """Raise ValueError where it is none."""
        _ = self.check

    @cached_property
    def check(self) -> SchemaCheck:
        """What checks data by it; nothing outside of the file is looked at."""
        text = self.content.decode(json.detect_encoding(self.content), "replace")
        return SchemaCheck(self.name, text)


class DataSchema(Model):
    """Where the schema stands."""

    file: SchemaFile
    """The path of a JSON Schema, relative to the config folder; its `$ref` stay in the file."""
