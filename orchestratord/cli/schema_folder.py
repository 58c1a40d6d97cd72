"""The JSON Schemas beside the configuration, which the first line of each file names.

An editor with a YAML language server completes and checks by them. The folder's name begins with a
dot, so that it is no part of the configuration.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from orchestratord.plugin.registry import Registry

NAME = ".schema"

Kind = Literal["endpoint", "api", "daemon"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def as_text(kind: Kind, registry: Registry) -> str:
    """The schema of one kind of file, with the keys of these plugins."""
    from orchestratord.config.show.json_schema import json_schema

    return json.dumps(json_schema(kind, registry), indent=2) + "\n"


def write(folder: Path, registry: Registry) -> list[Path]:
    """Write all schemas into the config folder, over what was there; the files.

    Raises OSError where that is not possible.
    """
    paths = []
    (folder / NAME).mkdir(exist_ok=True)
    for kind in KINDS:
        path = folder / NAME / f"{kind}.json"
        path.write_text(as_text(kind, registry), encoding="utf-8")
        paths.append(path)
    return paths
