"""Files that a command writes for a beginning: from templates, and the JSON Schemas beside them.

The first line of each file of a configuration names its schema; an editor with a YAML language
server completes and checks by it. The schemas' folder begins with a dot, so that it is no part of
the configuration.
"""

from __future__ import annotations

import grp
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args

import click

from orchestratord import unwritable

TEMPLATES = Path(__file__).parent / "templates"

SERVICE = "orchestratord"
"""The group of the system's service."""

SCHEMA_FOLDER = ".schema"

SchemaKind = Literal["endpoint", "api", "daemon"]
SCHEMA_KINDS: tuple[SchemaKind, ...] = get_args(SchemaKind)


def template(file: str, **values: str) -> str:
    """The text of a template, with each `@KEY@` replaced by its value.

    Args:
        file: its path, below `templates`.
        values: by key, in lower case.
    """
    text = (TEMPLATES / file).read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key.upper()}@", value)
    return text


def make_empty(folder: Path) -> None:
    """Make a folder. Raises ClickException where there is one already that holds something.

    One of root's is the service's to read, if that is installed, as what is made in it will be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(entry.name != ".git" for entry in folder.iterdir()):
            raise click.ClickException(f"{folder} is not empty; name a new folder, or an empty one")
        if os.geteuid() == 0 and folder.stat().st_gid == 0:
            with suppress(KeyError):  # there is no such group
                os.chown(folder, -1, grp.getgrnam(SERVICE).gr_gid)
                folder.chmod(0o2750)
    except OSError as error:
        raise unwritable(folder, error) from None


def write_new(path: Path, text: str, *, secret: bool = False) -> None:
    """Write a file that is not there yet, and say so. Raises ClickException.

    A secret is one that only the user may read, and the group of the folder if it is another.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opener = _open_secret if secret else None
        with open(path, "x", encoding="utf-8", opener=opener) as file:
            file.write(text)
    except FileExistsError:
        raise click.ClickException(f"{path} is there already") from None
    except OSError as error:
        raise unwritable(path, error) from None
    click.echo(f"wrote {path}")


def _open_secret(path: str, flags: int) -> int:
    """Opens for the user alone, or for the folder's group: a folder of root's for the daemon's
    group is made so that the daemon can read what is in it."""
    group = Path(path).parent.stat().st_gid
    handle = os.open(path, flags, 0o600)
    if group not in (0, os.getegid()):
        os.fchown(handle, -1, group)
        os.fchmod(handle, 0o640)
    return handle


def schema_text(kind: SchemaKind, registry: Any) -> str:
    """The schema of one kind of file, with the keys of these plugins."""
    from orchestratord import json_schema

    return json.dumps(json_schema(kind, registry), indent=2) + "\n"


def write_schemas(folder: Path, registry: Any) -> None:
    """Write all schemas into the config folder, over what was there. Raises ClickException."""
    paths = {kind: folder / SCHEMA_FOLDER / f"{kind}.json" for kind in SCHEMA_KINDS}
    try:
        (folder / SCHEMA_FOLDER).mkdir(exist_ok=True)
        for kind, path in paths.items():
            path.write_text(schema_text(kind, registry), encoding="utf-8")
    except OSError as error:
        raise unwritable(folder / SCHEMA_FOLDER, error) from None
    for path in paths.values():
        click.echo(f"wrote {path}")
