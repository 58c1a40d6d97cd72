from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.mutants.__main__ import MUTANTS, ROOT, judge


def test_the_line_that_is_meant_is_changed() -> None:
    one = replace(MUTANTS[0], before="a", after="b", nth=1)
    assert one.changed("a\nc\na\na") == "a\nc\nb\na"
    assert one.changed("a\nc") is None


def test_each_fault_has_its_line() -> None:
    """Where a line is gone, put another fault in its place, and run `python -m tests.mutants`."""
    gone = [one for one in MUTANTS if one.changed((ROOT / one.file).read_text()) is None]
    assert not gone


def test_a_fault_whose_line_is_gone_is_told_apart(tmp_path: Path) -> None:
    assert (judge(MUTANTS[0], tmp_path) or "").startswith("gone: ")
