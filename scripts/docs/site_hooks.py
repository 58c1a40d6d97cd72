"""What the site has beyond Markdown; MkDocs calls these functions by their names.

Pages link to files of the repository by relative paths, which hold in a checkout and where the
source is shown. On the site those that are no pages lead to the source.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

_SOUGHT = {"commands.md", "how-to/ship-the-log.md", "operations.md", "troubleshooting.md"}
"""Pages of those who have a problem now."""
_ASIDE = {"dependencies.md", "explanation/speed.md", "messages.md", "problems.md", "stability.md"}
"""Pages that say a little about everything."""

_LINK = re.compile(r"(?<=\]\()(?!https?://|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
_ROW = re.compile(r"^\|.*$", re.MULTILINE)
_CODE = re.compile(r"(?<!`)`[^`\n]+`(?!`)")


def on_config(config: Any) -> Any:
    """Set the addresses, which pyproject.toml alone has."""
    urls = PROJECT["urls"]
    config["site_url"] = f"{urls['Documentation']}/"
    config["repo_url"] = urls["Source"]
    config["repo_name"] = "Source"
    return config


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Lead links to what is not below docs/ to the source, and mend rows of tables."""
    folder = (ROOT / "docs" / page.file.src_uri).parent

    def led(link: re.Match[str]) -> str:
        target = (folder / link[1]).resolve()
        outside = not target.is_relative_to(ROOT / "docs")
        if not (target.exists() and outside):
            return link[0]
        kind = "tree" if target.is_dir() else "blob"
        place = target.relative_to(ROOT).as_posix()
        return f"{PROJECT['urls']['Source']}/{kind}/main/{place}{link[2] or ''}"

    return _ROW.sub(_with_pipes, _LINK.sub(led, markdown))


def on_page_content(html: str, page: Any, **_: object) -> str:
    """Say how near the top a page stands in the results of the site's search."""
    if page.file.src_uri in _SOUGHT:
        page.meta["search"] = {"boost": 3}
    elif page.file.src_uri in _ASIDE:
        page.meta["search"] = {"boost": 0.3}
    return html


def _with_pipes(row: re.Match[str]) -> str:
    """A row of a table in whose code `|` has no backslash: GitHub wants one, the site shows it."""
    return _CODE.sub(lambda code: code[0].replace("\\|", "|"), row[0])
