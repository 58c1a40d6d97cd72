"""The man pages: made from the documentation, and without a complaint of the programs for them."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.docs import man

ROOT = Path(__file__).parents[2]


def program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def test_pip_of_an_older_python_gets_to_say_which_is_needed() -> None:
    """It loads the build hook first, and the constraints."""
    text = (ROOT / "scripts" / "docs" / "man.py").read_text()
    tree = ast.parse(text, feature_version=(3, 8))
    imported = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    names = {alias.name for node in imported for alias in node.names}
    assert not names & {"UTC", "Self", "StrEnum", "tomllib"}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or "; python_version " in line, line


@pytest.fixture(params=sorted(man.PAGES))
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    path.write_text(man.page(request.param, "1.2.3"))
    return path


def shown(path: Path) -> str:
    """As a reader sees it, without the words' being broken at the ends of lines."""
    done = subprocess.run(
        [program("groff"), "-man", "-ww", "-Kutf8", "-Tutf8", "-P-cbou", "-rLL=500n", "-rHY=0",
         str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


def test_groff_has_no_complaint(page: Path) -> None:
    text = shown(page)
    assert "1.2.3" in text
    assert re.findall(r"^\S.*", text, re.MULTILINE)[1:4] == ["NAME", "SYNOPSIS", "DESCRIPTION"]


def test_mandoc_has_no_complaint(page: Path) -> None:
    done = subprocess.run(
        [program("mandoc"), "-Tlint", "-Wwarning", str(page)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_a_page_has_all_that_its_chapter_has(tmp_path: Path) -> None:
    path = tmp_path / "orchestratorctl.1"
    path.write_text(man.page(path.name, "1"))
    text = shown(path)
    chapter = (ROOT / "docs" / "commands.md").read_text().partition("\n## orchestratorctl\n")[2]
    chapter = chapter.partition("\n## ")[0]
    found = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", chapter)
    words = [code.replace("\\|", "|") for code in found]
    assert len(words) > 30
    flat = " ".join(text.split())
    assert [word for word in words if " ".join(word.split()) not in flat] == []


def test_what_looks_like_a_request_is_text() -> None:
    tokens = man._MARKDOWN.parse(
        "A line.\n.SH is `.TH` and \\*\n'quoted' `--a'b`\n\n    .code \\n\n    'more\n"
    )
    assert list(man._Roff(tokens, 1).lines()) == [
        "A line.",
        "\\&.SH is \\fB.TH\\fR and *",
        "\\&'quoted' \\fB\\-\\-a\\(aqb\\fR",
        ".PP",
        ".RS 4",
        ".EX",
        "\\&.code \\en",
        "\\(aqmore",
        ".EE",
        ".RE",
    ]


def test_what_a_page_cannot_hold_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        list(man._Roff(man._MARKDOWN.parse("1. one\n"), 1).lines())
    with pytest.raises(ValueError, match="cannot hold image"):
        list(man._Roff(man._MARKDOWN.parse("![a](b)"), 1).lines())
