"""What stands under `then:` in the YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from orchestratord import Duration, Expression, Model, Setting, Text

_EXAMPLE = "body.records[0].Id"


@dataclass(frozen=True, slots=True)
class ParamValue:
    """What a parameter is given: an expression over the answer, or always the same."""

    expression: Expression | None
    constant: Any = None

    @property
    def source(self) -> Any:
        """As it stands in the YAML."""
        return self.constant if self.expression is None else self.expression.source


def _expression(value: Any) -> Expression:
    if isinstance(value, Expression):
        return value
    if isinstance(value, Text) and value.secret:
        raise ValueError(
            "a secret here would be stored in the database; put the reference into the headers, "
            "query or body of the endpoint that is called"
        )
    if isinstance(value, str) and "{{" in value:
        raise ValueError(f"is no template; write JMESPath without braces, such as {_EXAMPLE}")
    return Expression.parse(value)


def _value(value: Any) -> ParamValue:
    if isinstance(value, ParamValue):
        return value
    if value is None or isinstance(value, bool | int | float):
        return ParamValue(None, value)
    if isinstance(value, Mapping | list):
        raise ValueError(
            "write one expression that makes it, such as '{id: body.id, all: body.records[].Id}'"
        )
    return ParamValue(_expression(value))


_SCHEMA = {"description": "JMESPath over the answer; a number, true and false stand for themselves"}

Given = Annotated[
    Any,
    PlainValidator(_value),
    PlainSerializer(lambda value: value.source),
    WithJsonSchema({**_SCHEMA, "type": ["string", "number", "boolean", "null"]}),
]
Over = Annotated[
    Expression,
    PlainValidator(_expression),
    PlainSerializer(lambda expression: expression.source),
    WithJsonSchema({"type": "string", "minLength": 1, "description": "JMESPath over the answer"}),
]


class Then(Model):
    """A call that follows from the end of another one, or of a run."""

    call: Annotated[str, Field(pattern=r"^[^/]+/[^/]+$")]
    """The endpoint that is called, `api/name`."""
    on: Literal["success", "failure", "run_end"] = "success"
    """What it follows from: that the call succeeded (`success`), or failed for good (`failure`); or
    that the run which began with it has ended (`run_end`)."""
    params: Mapping[str, Given] = {}
    """What it is given: JMESPath over the answer. What is null is left out."""
    when: Over | None = None
    """Only where this is neither null, false nor empty."""
    each: Over | None = None
    """One call for each item of this list; `item` is the item in `params` and `when`."""
    delay: Duration | None = None
    """How long after what it follows from the call is due: 5m."""
    at: Over | None = None
    """When the call is due, instead of `delay`: JMESPath that finds a time, such as body.due_at."""
    limit: int | None = Field(None, ge=1, le=100_000)
    """Calls of a chain, one caused by the other, that this may not make longer."""

    @model_validator(mode="after")
    def _check_first_try(self) -> Then:
        if self.delay is not None and self.at is not None:
            raise ValueError("give delay or at, not both")
        return self


THEN: Setting[tuple[Then, ...]] = Setting(
    "then",
    tuple[Then, ...],
    default=(),
    merge="replace",
    description="The calls that follow from its success, its failure, or the end of its run.",
)
"""The key of the YAML; `endpoint[THEN]` reads it."""
