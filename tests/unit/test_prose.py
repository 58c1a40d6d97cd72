"""The linter of prose finds what it should."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PAGE = """# What is due is claimed
<!-- made: table -->
A program wrote by which of these rules this sentence is told of.
<!-- end -->
What a plugin wrote is left out. What is the daemon's own time?
`what a key is` names the lane in which
it waits.

| who | what |
|---|---|
| nobody | {many} |

The daemon keeps {many}.
The task is sent again, and the worker is started by systemd.
"""


def findings(page: Path, text: str) -> list[str]:
    """The messages of the linter about a page, behind their lines."""
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text)
    done = subprocess.run(
        [ROOT / "scripts" / "lint-prose", page], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return [
        line.removeprefix(f"{page}:").replace(" [Error/plain-words]", "")
        for line in done.stdout.splitlines()
        if line.startswith(f"{page}:")
    ]


@pytest.mark.skipif(
    shutil.which("npm") is None and "CI" not in os.environ, reason="npm is not here"
)
def test_the_linter_finds_long_sentences_and_foreign_words(tmp_path: Path) -> None:
    text = PAGE.format(many=" ".join(["word"] * 30))
    everywhere = [
        '5:1: "What a plugin wrote is": write a noun, or the actor first',
        '6:32: "in which": write a sentence of its own',
        '11:3: "nobody": write the daemon, the caller, the operator',
        "13:1: a sentence of 33 words; 30 are the most",
    ]
    assert findings(tmp_path / "docs" / "limits.md", text) == everywhere
    passive = ['5:21: "is left": write who does it', '14:10: "is sent": write who does it']
    assert sorted(findings(tmp_path / "docs" / "how-to" / "send.md", text)) == sorted(
        everywhere + passive
    )
