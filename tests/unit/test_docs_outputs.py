"""The output of commands in the docs is what they write today."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def outputs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_outputs", ROOT / "docs" / "outputs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_they_are_what_the_commands_write(outputs: ModuleType) -> None:
    seen = 0
    for path in outputs.PAGES:
        page = path.read_text()
        seen += page.count("```console\n$ orchestratord ")
        assert outputs.remade(page) == page, "run: python docs/outputs.py"
    assert seen >= 7


def test_only_the_output_is_made_anew(outputs: ModuleType) -> None:
    page = (
        "before\n```console\n$ orchestratord check x\nold\n\nolder\n```\nafter\n```text\nx\n```\n"
    )
    renewed = outputs.renewed(page, lambda arguments: f"new of {arguments}\n")
    assert renewed == page.replace("old\n\nolder\n", "new of check x\n")
