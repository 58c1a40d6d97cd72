"""The base of everything that is read from YAML."""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class Described(BaseModel):
    """Base of what a JSON Schema describes: each field by the docstring below it.

    pydantic's `use_attribute_docstrings` reads the source while a class is made, which takes a
    daemon 17 ms of its start. Here it is read when a schema is asked for.
    """

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        made = handler(schema)
        properties = handler.resolve_ref_schema(made).get("properties", {})
        for name, about in descriptions(cls).items():
            field = cls.model_fields[name]
            if field.description is None and (key := field.alias or name) in properties:
                described = {**properties[key], "description": about}
                properties[key] = dict(sorted(described.items()))  # as pydantic has all others
        return made


class Model(Described):
    """Base of everything that is read from YAML: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """What stands below its fields, and those of its bases, by their names."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, Described):
            found |= _docstrings(base)
    return found


@cache
def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """What stands below the fields of a model in its source, by their names; empty where that
    cannot be had."""
    try:
        declared = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):  # the file is gone, or another by now
        return {}
    found: dict[str, str] = {}
    # An upgrade may have put another class at the line where this one was.
    if not (isinstance(declared, ast.ClassDef) and declared.name == model.__name__):
        return found
    for field, below in pairwise(declared.body):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str() as text)),
            ) if name in model.model_fields:
                found[name] = inspect.cleandoc(text)
    return found
