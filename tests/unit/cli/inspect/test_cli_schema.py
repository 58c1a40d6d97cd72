"""`schema`: it takes what `check` takes, and refuses what that refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import jsonschema_rs
import pytest
import yaml

from scripts.docs import schema_files
from tests.unit.cli.cli_parts import EXAMPLE, run


def schema(file: str) -> dict[str, Any]:
    result = run("schema", file, "--config", EXAMPLE)
    assert result.exit_code == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    jsonschema_rs.meta.validate(document)
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


def keys_of(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each key that a schema describes, by its path, and what is said of it."""
    if isinstance(node, dict):
        for name, inner in node.get("properties", {}).items():
            yield f"{path}.{name}", inner
        for name, inner in node.items():
            yield from keys_of(inner, path if name == "properties" else f"{path}.{name}")
    elif isinstance(node, list):
        for inner in node:
            yield from keys_of(inner, path)


@pytest.mark.parametrize("file", ["endpoint", "api", "daemon"])
def test_an_editor_shows_a_sentence_for_every_key(file: str) -> None:
    """What a key is for, and not only what form its value has."""
    document = schema(file)
    found = dict(keys_of(document))
    assert len(found) > 40
    for path, key in found.items():
        if "type" in path.split(".")[-1] and "if" in path.split("."):
            continue  # a condition, which no editor shows
        target = document["$defs"].get(key.get("$ref", "").rpartition("/")[2], {})
        about = key.get("description") or target.get("description")
        assert about is not None, path
        assert re.fullmatch(r"[A-Z`](?s:.*)\.", about), (path, about)
        named = {"a", "an", "the", *path.rpartition(".")[2].lower().split("_")}
        said = set(re.findall(r"[a-z]+", about.lower()))
        assert len(said - named - {f"{word}s" for word in named}) >= 2, (path, about)


@pytest.mark.slow
def test_what_the_site_has_is_what_the_command_prints(tmp_path: Path) -> None:
    assert run("schema", "--write", "--config", tmp_path).exit_code == 0
    for name, text in schema_files.made().items():
        assert (schema_files.FOLDER / name).read_text() == text, "run: python -m scripts.docs"
        if name != "catalog.json":
            written = json.loads((tmp_path / ".schema" / name).read_text())
            assert written == json.loads(text)
    for entry in json.loads((schema_files.FOLDER / "catalog.json").read_text()):
        assert entry["url"] == schema(entry["name"].split()[1])["$id"]
        assert all("orchestratord" in pattern for pattern in entry["fileMatch"])
