"""The output of commands in the docs is what they write today."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.docs import outputs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_they_are_what_the_commands_write() -> None:
    seen = 0
    for path in outputs.PAGES:
        page = path.read_text()
        seen += page.count("\n$ orchestrator")
        assert outputs.remade(page) == page, "run: python -m scripts.docs"
    assert seen >= 25


def test_no_console_block_is_left_out() -> None:
    for path in [*outputs.PAGES, *ROOT.glob("*.md")]:
        page = path.read_text()
        carried_out = len(outputs._BLOCK.findall(page)) if path in outputs.PAGES else 0
        assert page.count("```console") == carried_out, path.name


def test_only_the_output_is_made_anew() -> None:
    page = (
        "before\n```console\n$ orchestratord check x\nold\n\nolder\n$ sed x\n$ cat\nold\n```\n"
        "after\n```text\nx\n```\n"
    )
    renewed = outputs.renewed(page, lambda command, before: f"{command}, {len(before)}\n")
    assert renewed == page.replace("old\n\nolder\n", "orchestratord check x, 11\n").replace(
        "$ sed x\n$ cat\nold\n", "$ sed x\nsed x, 0\n$ cat\ncat, 4\n"
    )


def test_times_and_numbers_make_no_difference() -> None:
    one = "ID  TOOK\n 3  930ms\nat 2026-11-24T22:00:00.123Z, instance a1b2, 2m3s"
    two = "ID   TOOK\n13   1.2s\nat 2027-01-01T00:00:00.000Z, instance 77ff, 4s"
    assert outputs.shape(one) == outputs.shape(two)
    assert outputs.shape(one) != outputs.shape(one.replace("TOOK", "WHEN"))
