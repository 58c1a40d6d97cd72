"""A JSON Schema for the data of events."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from orchestratord_event.data_schema import SchemaFile


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
    [(name, problem)] = file.check.problems(data).items()
    assert name == "params"
    assert problem.startswith("cannot be held against order.json: ")
    assert len(problem) <= 200


def ladder(steps: int, ways: int) -> bytes:
    """Definitions of which each refers to the next one in as many ways."""
    names = [f"#/$defs/{step}" for step in range(steps)]
    above = {str(step): {"allOf": [{"$ref": names[step + 1]}] * ways} for step in range(steps - 1)}
    defs = {**above, str(steps - 1): {"type": "object"}}
    return json.dumps({"$ref": names[0], "$defs": defs}).encode()


def test_a_schema_is_looked_through_once_and_not_in_each_way_through_it() -> None:
    began = time.process_time()
    file = SchemaFile("ladder.json", ladder(8, 8))
    assert not file.check.is_surely_good({})  # nor is it followed 8 ** 7 times beside others
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("schema", "quick"),
    [
        (ladder(3, 5), True),
        (ladder(250, 1), False),
        (ladder(1200, 1), False),
        (b'{"properties": {"a": {"$ref": "#/properties/b"}, "b": {"type": "object"}}}', True),
        (b'{"properties": {"a": {"$ref": "#/properties/b"}, "b": {"not": {"$ref": "#"}}}}', False),
        (b'{"$ref": "#/$defs/a", "$defs": {"a": {"items": {"items": {"$ref": "#/$defs/a"}}}}}',
         False),
    ],
)  # fmt: skip
def test_what_is_not_recursive_is_seen_at_once(schema: bytes, quick: bool) -> None:
    assert SchemaFile("some.json", schema).check.is_surely_good({}) == quick
