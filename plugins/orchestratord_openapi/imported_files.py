"""What an import finds in the config folder, and what it writes there.

A line near the top of each file that an import wrote says so, with a digest of all the rest. As
long as the two agree, the file has not been edited, and the next import may write it anew.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

from orchestratord import ConfigFolder
from orchestratord_openapi.openapi_operation import ImportedOperation

_STAMP = re.compile(rb"^# Imported by orchestratord as ([0-9a-f]{16})[^\n]*\n", re.MULTILINE)
_KEY = re.compile(rb"^# Operation: ([^\n]+)\n", re.MULTILINE)


def stamped(text: str, key: str | None = None) -> str:
    """A file's text with the line that says that it is imported; `key` names its operation."""
    first, rest = text.split("\n", 1)
    about = "" if key is None else f"# Operation: {key}\n"
    digest = _digest(f"{first}\n{about}{rest}".encode())
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


def files_for(
    operations: Iterable[ImportedOperation], folder: ConfigFolder, api: str
) -> dict[str, list[str]]:
    """Operation → the files that it has, or the one that it gets, below the config folder.

    What was imported before keeps its file, though the document calls the operation something else
    now, or a user has renamed it. A user's copies of it are its files, too.
    """
    known: dict[str, list[str]] = {}
    taken: set[str] = set()
    for identity, file in folder.endpoints.items():
        if identity.startswith(f"{api}/"):
            taken.add(identity.partition("/")[2].lower())
            if found := _KEY.search(folder.contents.get(file, b"")):
                known.setdefault(found[1].decode(errors="replace"), []).append(file)
    chosen: dict[str, list[str]] = {}
    for operation in operations:
        if operation.key in known:
            chosen[operation.key] = known[operation.key]
            continue
        name, number = operation.name, 1
        while name.lower() in taken:
            number += 1
            name = f"{operation.name}-{number}"
        taken.add(name.lower())
        chosen[operation.key] = [f"apis/{api}/endpoints/{name}.yaml"]
    return chosen


Outcomes = dict[str, list[str]]
"""What an import did: the files that are new, renewed, the same, edited or gone. What was edited
since, and what the document has no operation of any more, is left alone."""


def write(folder: ConfigFolder, texts: Mapping[str, str], gone: Iterable[str]) -> Outcomes:
    """Write what is new and renew what has not been edited.

    Args:
        folder: the config folder.
        texts: file → what is to stand in it, in the order in which they are written.
        gone: files whose operation is no longer there.

    Raises:
        click.ClickException: a file cannot be written.
    """
    done: Outcomes = {"new": [], "renewed": [], "same": [], "edited": [], "gone": [*gone]}
    for file, text in texts.items():
        before, content = folder.contents.get(file), text.encode()
        if before is None:
            folder.create(file, content)
            done["new"].append(file)
        elif before == content:
            done["same"].append(file)
        elif is_untouched(before) and folder.replace(file, content):
            done["renewed"].append(file)
        else:
            done["edited"].append(file)
    return done
