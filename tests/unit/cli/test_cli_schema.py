"""`schema`: it takes what `check` takes, and refuses what that refuses."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml
from cli_parts import EXAMPLE, run


def schema(file: str) -> dict[str, Any]:
    result = run("schema", file, "--config", EXAMPLE)
    assert result.exit_code == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    jsonschema.Draft202012Validator.check_schema(document)
    return document


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("endpoint", "apis/*/endpoints/*.yaml"),
        ("api", "apis/*/api.yaml"),
        ("daemon", "orchestratord.yaml"),
    ],
)
def test_the_example_fits_the_schema(file: str, pattern: str) -> None:
    validator = jsonschema.Draft202012Validator(schema(file))
    paths = sorted(EXAMPLE.glob(pattern))
    assert paths
    for path in paths:
        validator.validate(yaml.safe_load(path.read_text()))


def test_the_schema_refuses_what_check_refuses() -> None:
    validator = jsonschema.Draft202012Validator(schema("endpoint"))
    assert not validator.is_valid({"path": "/a", "retry": {"max_attempts": "many"}})
    assert not validator.is_valid({"path": "/a", "no_such_key": 1})


def test_the_schema_has_the_keys_of_plugins() -> None:
    assert "webhooks" in json.dumps(schema("endpoint"))
