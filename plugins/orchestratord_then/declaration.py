"""What stands under `then:` in the YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

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


_SCHEMA = {"description": "JMESPath over the answer, or a number, true or false"}

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


def _endpoint(value: str) -> str:
    api, _, name = value.partition("/")
    if not api or not name or "/" in name:
        raise ValueError(f"{value!r} does not fit the pattern api/name, such as shop/getOrder")
    return value


class Then(Model):
    """A call that follows the end of another call, or of a run."""

    call: Annotated[
        str,
        AfterValidator(_endpoint),
        WithJsonSchema({"type": "string", "pattern": "^[^/]+/[^/]+$"}),
    ]
    """The endpoint to call, `api/name`."""
    on: Literal["success", "failure", "run_end"] = "success"
    """The cause: the call succeeded (`success`), failed for good (`failure`), or the run that it
    began has ended (`run_end`)."""
    params: Mapping[str, Given] = {}
    """The parameters: JMESPath over the answer. Null leaves one out."""
    when: Over | None = None
    """JMESPath: call only if the result is not null, false or empty."""
    each: Over | None = None
    """JMESPath to a list: one call for each item; `item` is the item in `params` and `when`."""
    delay: Duration | None = None
    """How long after its cause the call is due: 5m."""
    at: Over | None = None
    """JMESPath to the time of the call, instead of `delay`, such as body.due_at."""
    limit: int | None = Field(None, ge=1, le=100_000)
    """The longest chain of calls, each caused by the one before."""

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
    description="The calls that follow its success, its failure, or the end of its run.",
)
"""The key of the YAML; `endpoint[THEN]` reads it."""
