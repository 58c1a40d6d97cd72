"""A JSON Schema for the data of events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from orchestratord_event.data_schema import DataSchema, SchemaFile


@pytest.mark.parametrize(
    ("schema", "data"),
    [
        ({"properties": {"n": {"multipleOf": 0.01}}}, {"n": 10**400}),
        ({"$ref": "#"}, {}),
        ({"properties": {"n": {"type": "string"}}}, {"n": 10**5000}),
    ],
)
def test_what_cannot_be_checked_is_a_problem_of_the_data(
    schema: dict[str, Any], data: dict[str, Any]
) -> None:
    file = SchemaFile("order.json", json.dumps(schema).encode())
    [(name, problem)] = DataSchema(file=file).problems(data).items()
    assert name == "params"
    assert problem.startswith("cannot be held against order.json: ")
    assert len(problem) <= 200
