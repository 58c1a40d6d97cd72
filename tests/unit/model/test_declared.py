"""What is read from the source of a model, where that is another one by now."""

from __future__ import annotations

import importlib.util
import linecache
import sys
from pathlib import Path

import pytest

from orchestratord.model.declared import descriptions

SOURCE = '''
from orchestratord.model.declared import Model

class Small(Model):
    size: int = 1
    """How large."""
'''
OTHER = SOURCE.replace("Small", "Large").replace("How", "That of another class: how")


@pytest.mark.parametrize(
    ("text", "found"),
    [(SOURCE, {"size": "How large."}), (OTHER, {}), ("# gone\n" * 20, {}), ("", {})],
)
def test_a_file_that_an_upgrade_has_changed_describes_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, found: dict[str, str]
) -> None:
    path = tmp_path / "small_model.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("small_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "small_model", module)
    spec.loader.exec_module(module)
    path.write_text(text)
    linecache.checkcache(str(path))
    assert descriptions(module.Small) == found
