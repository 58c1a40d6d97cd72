"""What an import finds in the config folder, and what it writes there.

A line near the top of each file that an import wrote says so, with a digest of all the rest. As
long as the two agree, the file has not been edited, and the next import may write it anew.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import click

from orchestratord.cli.create.scaffold import unwritable
from orchestratord.cli.importing.openapi_operation import ImportedOperation
from orchestratord.cli.opened_config import copy_of, errors_in
from orchestratord.config.edit.write_file import replace
from orchestratord.config.folder import Files
from orchestratord.errors import NotWritable, Problem, StorageFull
from orchestratord.plugin.host import Host

_STAMP = re.compile(rb"^# Imported by orchestratord as ([0-9a-f]{16})[^\n]*\n", re.MULTILINE)
_KEY = re.compile(rb"^# Operation: ([^\n]+)\n", re.MULTILINE)


def stamped(text: str, key: str | None = None) -> str:
    """A file's text with the line that says that it is imported; `key` names its operation."""
    first, rest = text.split("\n", 1)
    about = "" if key is None else f"# Operation: {key}\n"
    whole = f"{first}\n{about}{rest}"
    digest = _digest(whole.encode())
    line = f"# Imported by orchestratord as {digest}; once you edit it, it is left alone."
    return f"{first}\n{line}\n{about}{rest}"


def is_untouched(content: bytes) -> bool:
    """Whether a file is as an import has left it."""
    found = _STAMP.search(content)
    return found is not None and found[1].decode() == _digest(
        content[: found.start()] + content[found.end() :]
    )


def is_imported(content: bytes) -> bool:
    """Whether a file was written by an import, whatever became of it since."""
    return _STAMP.search(content) is not None and _KEY.search(content) is not None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def names_for(operations: Iterable[ImportedOperation], files: Files, api: str) -> dict[str, str]:
    """Operation → the file that it has, or that it gets, below the config folder.

    What was imported before keeps its file, though the document calls the operation something else
    now, or a user has renamed it.
    """
    known: dict[str, str] = {}
    taken: set[str] = set()
    for identity, file in files.endpoints.items():
        if identity.startswith(f"{api}/"):
            taken.add(identity.partition("/")[2].lower())
            if found := _KEY.search(files.contents.get(file, b"")):
                known.setdefault(found[1].decode(errors="replace"), file)
    chosen: dict[str, str] = {}
    for operation in operations:
        if operation.key in known:
            chosen[operation.key] = known[operation.key]
            continue
        name, number = operation.name, 1
        while name.lower() in taken:
            number += 1
            name = f"{operation.name}-{number}"
        taken.add(name.lower())
        chosen[operation.key] = f"apis/{api}/endpoints/{name}.yaml"
    return chosen


Outcomes = dict[str, list[str]]
"""What an import did: the files that are new, renewed, the same, edited or gone. What was edited
since, and what the document has no operation of any more, is left alone."""


def write(folder: Path, files: Files, texts: Mapping[str, str], gone: Iterable[str]) -> Outcomes:
    """Write what is new and renew what has not been edited.

    Args:
        folder: the config folder.
        files: what stands in it.
        texts: file → what is to stand in it, in the order in which they are written.
        gone: files whose operation is no longer there.

    Raises:
        click.ClickException: a file cannot be written.
    """
    done: Outcomes = {"new": [], "renewed": [], "same": [], "edited": [], "gone": [*gone]}
    for file, text in texts.items():
        before, content = files.contents.get(file), text.encode()
        if before is None:
            _create(folder / file, content)
            done["new"].append(file)
        elif before == content:
            done["same"].append(file)
        elif not is_untouched(before):
            done["edited"].append(file)
        else:
            try:
                renewed = replace(folder / file, content, before)
            except (NotWritable, StorageFull) as error:
                raise click.ClickException(str(error)) from None
            done["renewed" if renewed else "edited"].append(file)
    return done


def _create(path: Path, content: bytes) -> None:
    """Write a file that is not there, so that half of it is never read."""
    draft = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        try:
            os.link(draft, path)
        finally:
            draft.unlink()
    except OSError as error:
        raise unwritable(path, error) from None


def errors_of(host: Host, files: Files, texts: Mapping[str, str]) -> list[Problem]:
    """What `check` would say of the new files beside those that are there, tried on a copy."""
    with copy_of(files.contents | {file: text.encode() for file, text in texts.items()}) as folder:
        return [problem for problem in errors_in(folder, host) if problem.file in texts]
