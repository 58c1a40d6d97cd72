"""What an editor shows of each key: the key's own text, written for who writes the file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.acceptance.commands.yaml_language_server import PROGRAM, YamlLanguageServer

pytestmark = pytest.mark.slow

SCHEMAS = Path(__file__).parents[3] / "docs" / "schemas"
NAME = "anyName"
"""Stands for a name that the user chooses."""
OURS = re.compile(r"subclass|docstring|pydantic|\bcontext\b|validat|`None`|\bself\b", re.IGNORECASE)
"""Words of those who write the program."""

Path_ = tuple[str | int, ...]


class Key(NamedTuple):
    """A key of a file: the lines above it, its path, and what the schema says of it."""

    head: str
    path: Path_
    text: str

    def __str__(self) -> str:
        return f"{self.head.strip()} {'.'.join(map(str, self.path))}".strip()

    def written(self) -> tuple[str, int]:
        """A file with this key in the last line, and the column of the key there."""
        lines, indent, dash = [], 0, ""
        for part in self.path:
            if part == 0:
                dash = "- "
                continue
            lines.append(f"{' ' * indent}{dash}{part}:")
            column = indent + len(dash)
            indent, dash = column + 2, ""
        return "\n".join(lines), column


def keys_of(
    schema: Any,
    root: dict[str, Any],
    head: str,
    path: Path_ = (),
    within: frozenset[str] = frozenset(),
) -> Iterator[Key]:
    """Every key that a schema has, at any depth, each once on its way down."""
    if not isinstance(schema, dict):
        return
    target = schema.get("$ref", "")
    if target and target not in within:
        definition = root["$defs"][target.rpartition("/")[2]]
        yield from keys_of(definition, root, head, path, within | {target})
    choices = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
    for one in (*choices, schema.get("then"), schema.get("else")):
        yield from keys_of(one, root, head, path, within)
    for name, item in schema.get("properties", {}).items():
        yield Key(head, (*path, name), item.get("description", ""))
        yield from keys_of(item, root, head, (*path, name), within)
    yield from keys_of(schema.get("items"), root, head, (*path, 0), within)
    yield from keys_of(schema.get("additionalProperties"), root, head, (*path, NAME), within)


def keys(file: str) -> list[Key]:
    """The keys of a file, those of an endpoint for each type."""
    schema = json.loads((SCHEMAS / f"{file}.json").read_text())
    if file != "endpoint":
        return list(dict.fromkeys(keys_of(schema, schema, "")))
    found: list[Key] = []
    for name, definition in schema["$defs"].items():
        if name.startswith("type_"):
            head = f"type: {name.removeprefix('type_')}\n"
            found += [key for key in keys_of(definition, schema, head) if key.path != ("type",)]
    return list(dict.fromkeys(found))


@pytest.fixture(scope="module")
def server(program: Callable[[str], str]) -> Iterator[YamlLanguageServer]:
    if not PROGRAM.exists():
        if os.environ.get("CI") == "true":
            pytest.fail("yaml-language-server is not installed, and CI is to test with it")
        pytest.skip("yaml-language-server is not installed")
    with YamlLanguageServer(program("node")) as server:
        yield server


@pytest.mark.parametrize("file", ["endpoint", "api", "daemon"])
def test_each_key_shows_its_own_text(server: YamlLanguageServer, file: str) -> None:
    found = keys(file)
    assert len(found) > 50
    own: dict[str, list[str]] = {}  # of a key of several strategies one for each
    for key in found:
        own.setdefault(str(key), []).append(key.text)
    wrong = {}
    schema = f"# yaml-language-server: $schema={(SCHEMAS / f'{file}.json').as_uri()}\n"
    for key in found:
        below, column = key.written()
        text = f"{schema}{key.head}{below} x\n"
        shown = server.hover(text, text.count("\n") - 1, column + 1)
        said = re.sub(r"\\(.)", r"\1", shown).partition("\n\n")[2]
        if not key.text or not said.startswith(tuple(own[str(key)])):
            wrong[str(key)] = shown
    assert wrong == {}


@pytest.mark.parametrize("file", ["endpoint", "api", "daemon"])
def test_the_texts_are_written_for_users(file: str) -> None:
    texts = {str(key): key.text for key in keys(file)}
    begun = {name: text for name, text in texts.items() if not re.match(r"[A-Z`]", text)}
    assert begun == {}, "each begins a sentence"
    assert {name: text for name, text in texts.items() if not text.endswith((".", "`"))} == {}
    assert {name: text for name, text in texts.items() if OURS.search(text)} == {}
    long = {
        name: text
        for name, text in texts.items()
        if any(len(part.split()) > 30 for part in re.split(r"(?<=[.;])\s", text))
    }
    assert long == {}
