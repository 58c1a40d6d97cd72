"""The keys of an endpoint with `type: sql`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from orchestratord import Expression, Model, Text

_TEMPLATE = re.compile(r"\{\{\s*(?:params|task|now)\b")


def _bound(value: Any) -> Any:
    if isinstance(value, Text) and value.secret:
        raise ValueError("a secret has no place in a statement, which the database may log")
    if isinstance(value, str) and _TEMPLATE.search(value):
        raise ValueError("takes no template: write :name, and the parameter is bound")
    return value


class SqlSpec(Model):
    """The keys of an endpoint with `type: sql`."""

    database: str
    """Which of the `databases` in orchestratord.yaml."""
    statement: Annotated[
        str,
        BeforeValidator(_bound),
        WithJsonSchema(
            {"type": "string", "description": "one statement; :name stands for a parameter"}
        ),
    ]
    """One statement, in which `:name` stands for a parameter."""
    success_if: Expression | None = None
    """JMESPath over the answer; where it does not hold, the statement is rolled back."""
