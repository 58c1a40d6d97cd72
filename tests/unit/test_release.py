"""A version is the same wherever one stands, and the changelog has a chapter of it."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_changelog_begins_with_what_is_unreleased_and_then_this_version() -> None:
    chapters = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert chapters[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(VERSION)} \(\d{{4}}-\d\d-\d\d\)", chapters[1]), chapters[1]


@pytest.mark.parametrize(
    ("path", "pattern", "times"),
    [
        ("clients/python/pyproject.toml", r'^version = "(.*)"$', 1),
        ("deploy/compose.yaml", r"image: orchestratord:(.*)$", 1),
        ("deploy/kubernetes/postgresql/kustomization.yaml", r'newTag: "(.*)"$', 1),
        ("deploy/kubernetes/sqlite/kustomization.yaml", r'newTag: "(.*)"$', 1),
        ("docs/installation.md", r"orchestratord:(\d[\w.]*)", 2),
        ("docs/commands.md", r"^ok    program     orchestratord ([^,]+),", 1),
    ],
)
def test_it_is_the_version_of(path: str, pattern: str, times: int) -> None:
    found = re.findall(pattern, (ROOT / path).read_text(), re.MULTILINE)
    assert found == [VERSION] * times, "scripts/release --prepare writes the version everywhere"


def test_a_new_version_is_prepared_in_all_these_places(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--shared", ROOT, clone], check=True)
    subprocess.run([clone / "scripts" / "release", "--prepare", "97.98.99"], check=True)
    diff = ["git", "-C", clone, "diff", "--name-only"]
    changed = subprocess.run(diff, check=True, capture_output=True, text=True).stdout.split()
    assert set(changed) >= {
        "CHANGELOG.md", "clients/python/pyproject.toml", "deploy/compose.yaml",
        "deploy/kubernetes/postgresql/kustomization.yaml",
        "deploy/kubernetes/sqlite/kustomization.yaml", "docs/commands.md", "docs/fleet.md",
        "docs/installation.md", "docs/openapi.json", "pyproject.toml",
    }  # fmt: skip
    left = f'(orchestratord|version|"version":) "?{re.escape(VERSION)}\\b'
    for path in changed:
        assert path == "CHANGELOG.md" or not re.search(left, (clone / path).read_text()), path
    assert json.loads((clone / "docs/openapi.json").read_text())["info"]["version"] == "97.98.99"
    chapter = re.compile(r"^## Unreleased\n\n## 97\.98\.99 \(", re.MULTILINE)
    assert chapter.search((clone / "CHANGELOG.md").read_text())


def test_what_others_publish_is_pinned_by_its_hash() -> None:
    uses = re.compile(r"uses: (?!\./)\S+@(\S+)")
    workflows = "".join(path.read_text() for path in (ROOT / ".github" / "workflows").iterdir())
    assert len(uses.findall(workflows)) >= 6
    assert all(re.fullmatch(r"[0-9a-f]{40}", found) for found in uses.findall(workflows))
    images = "".join(
        (ROOT / "deploy" / name).read_text() for name in ("compose.yaml", "Containerfile")
    )
    found = re.findall(r"docker\.io/\S+", images)
    assert len(found) == 4
    assert all(re.search(r":[\w.-]+@sha256:[0-9a-f]{64}$", image) for image in found)
