"""Which folders the kernel watches for this process, and which it does not."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_WATCHED = re.compile(r"^inotify wd:\S+ ino:([0-9a-f]+)", re.MULTILINE)


def unwatched(folder: Path) -> list[str]:
    """The folders below one that nothing in this process watches; none where that is not known."""
    inodes = list(_watched())
    folders = list(_folders(str(folder)))
    # Counted first: in an overlay the kernel knows folders by other numbers than we do.
    if not inodes or len(inodes) > len(folders):
        return []
    known = set(inodes)
    return [path for path, inode in folders if inode not in known]


def _watched() -> Iterator[int]:
    """The inodes that are watched."""
    with suppress(OSError), os.scandir("/proc/self/fd") as handles:
        for handle in handles:
            with suppress(OSError):
                if os.readlink(handle) == "anon_inode:inotify":
                    text = Path(f"/proc/self/fdinfo/{handle.name}").read_text()
                    yield from (int(found, 16) for found in _WATCHED.findall(text))


def _folders(folder: str) -> Iterator[tuple[str, int]]:
    for path, names, _ in os.walk(folder):
        for name in names:
            below = f"{path}/{name}"
            with suppress(OSError):
                # A link is not followed: what it leads to is not in the folder.
                if not os.path.islink(below):
                    yield below, os.stat(below).st_ino
