"""Reading files that are no YAML but belong to the configuration: bodies, certificates, secrets."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestratord.config.folder import KnownFiles

LARGEST = 16 << 20
"""Bytes that are looked at for a change."""

UNREADABLE = ""
"""The fingerprint of what cannot be read, for whatever reason."""


def placed(name: str, folder: Path, *, inside: bool) -> Path:
    """The path that a name in the YAML stands for, relative to the config folder.

    Raises ValueError where it has to be `inside` that and is not. Links are followed, as those to
    the YAML are: whoever can make one there decides what the daemon does anyway.
    """
    path = PurePath(name)
    if inside and (path.is_absolute() or ".." in path.parts):
        raise ValueError(f"{name!r} leads out of the config folder; name a file in it")
    return folder / path


def read_bytes(path: Path, limit: int) -> bytes:
    """What a file holds. Raises ValueError, which says what is wrong with the path named before."""
    try:
        # Not waiting: the path may be a FIFO that nobody writes to.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("is not a file")
        with os.fdopen(handle, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    finally:
        os.close(handle)
    if len(content) > limit:
        raise ValueError(f"is larger than {limit} bytes")
    return content


def fingerprint(content: bytes) -> str:
    """What changes with the content."""
    return sha256(content).hexdigest()


def fingerprints(paths: Iterable[str], known: KnownFiles) -> dict[str, str]:
    """Of the files as they are now; one is opened again only where it looks changed."""
    return {path: _look(path, known) for path in paths}


def combined(digest: str, found: Mapping[str, str]) -> str:
    """The digest of the folder's own files together with the fingerprints of others."""
    if not found:
        return digest
    joined = "".join(f"{path}\0{mark}\0" for path, mark in sorted(found.items()))
    return sha256(f"{digest}\0{joined}".encode("utf-8", "surrogateescape")).hexdigest()


def _look(path: str, known: KnownFiles) -> str:
    mark = known.get(path)
    if mark is not None:
        return mark.decode()
    try:
        seen = os.stat(path)
        found = fingerprint(read_bytes(Path(path), LARGEST))
    except (OSError, ValueError):
        return UNREADABLE
    known.put(path, seen, found.encode())
    return found
