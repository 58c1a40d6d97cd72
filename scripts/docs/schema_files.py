"""Makes docs/schemas: `python -m scripts.docs`. A test fails where a file is not up to date.

They are what `orchestratord schema` prints where only the plugins are installed that come with it;
the site has them at the address that is their `$id`. `catalog.json` holds the entries for
SchemaStore: names of files that no other program's have.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from orchestratord_scaffold.scaffold import SCHEMA_KINDS

from orchestratord.config.show.json_schema import json_schema
from orchestratord.daemon.bootstrap import open_host
from orchestratord.values import doc_links

FOLDER = Path(__file__).parents[2] / "docs" / "schemas"

_ENDS = ("yaml", "yml", "json")
_MATCHING = {
    "daemon": [f"orchestratord.{end}" for end in _ENDS],
    "api": [f"**/orchestratord/apis/*/api.{end}" for end in _ENDS],
    "endpoint": [f"**/orchestratord/apis/*/endpoints/*.{end}" for end in _ENDS],
}
_WHAT = {
    "daemon": "Settings of the daemon orchestratord",
    "api": "What the endpoints of one API share, for orchestratord",
    "endpoint": "An endpoint that orchestratord calls",
}


def made() -> dict[str, str]:
    """The text of each file, by its name."""
    with tempfile.TemporaryDirectory() as folder:
        host = open_host(Path(folder))
    texts = {
        f"{kind}.json": json.dumps(json_schema(kind, host.registry), ensure_ascii=False)
        for kind in SCHEMA_KINDS
    }
    entries = [
        {
            "name": f"orchestratord {kind}",
            "description": _WHAT[kind],
            "fileMatch": _MATCHING[kind],
            "url": doc_links.schema(kind),
        }
        for kind in SCHEMA_KINDS
    ]
    texts["catalog.json"] = json.dumps(entries, indent=2)
    return {name: f"{text}\n" for name, text in texts.items()}


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in made().items():
        (FOLDER / name).write_text(text)
