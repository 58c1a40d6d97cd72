"""README.md as a package index shows it: its links to files lead to the source of it.

hatchling asks for it when the package is built; see `[tool.hatch.metadata.hooks.custom]`. Links are
relative in the repository, so that they hold in a checkout and at each commit.

pip loads this file before it reads which Python the package needs; as `man.py`, older ones can
load it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

ROOT = Path(__file__).parents[2]

_LINK = re.compile(r"(!?)\[([^][]*)\]\((?!https?://|#)([^)\s]+)\)")


def package_readme(text: str, source: str, version: str) -> str:
    """The text with absolute links.

    Args:
        text: of README.md.
        source: the address of the repository, as `[project.urls]` has it.
        version: of the package; what a release links to stays as its tag has it.
    """

    def absolute(link: re.Match[str]) -> str:
        kind = "raw" if link[1] else "blob"
        return f"{link[1]}[{link[2]}]({source}/{kind}/v{version}/{link[3]})"

    return _LINK.sub(absolute, text)


class PackageReadme(MetadataHookInterface):
    """What hatchling calls for `dynamic = ["readme"]`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Put the text into the metadata of the package."""
        text = (ROOT / "README.md").read_text("utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": package_readme(text, metadata["urls"]["Source"], metadata["version"]),
        }
