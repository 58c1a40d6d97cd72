from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutants.__main__ import MUTANTS, ROOT, judge


def test_the_line_that_is_meant_is_changed() -> None:
    one = replace(MUTANTS[0], before="a", after="b", nth=1)
    assert one.changed("a\nc\na\na") == "a\nc\nb\na"
    assert one.changed("a\nc") is None


def test_a_fault_whose_line_is_gone_is_told_apart(tmp_path: Path) -> None:
    assert (judge(MUTANTS[0], tmp_path) or "").startswith("gone: ")


@pytest.mark.slow
def test_faults_are_found() -> None:
    command = [sys.executable, "-m", "tests.mutants", "--only", "0:3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "3 faults, 3 found\n"), done.stderr
