"""Which processes hold a file of SQLite: what the kernel lists as their locks.

To try a lock would be to take it, for a moment in which a daemon might want to start.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from contextlib import suppress
from pathlib import Path

_LOCKS = Path("/proc/locks")

# Where SQLite locks what: bytes of the index of its journal, `-shm`.
_WRITING = range(120, 121)
_READING = range(123, 128)


def holder(database: Path) -> int | None:
    """The pid of the daemon that has this database; None where none has, or it cannot be told."""
    return next(_pids(database.with_name(f"{database.name}.lock"), "FLOCK"), None)


def writers(database: Path) -> list[str]:
    """The other processes that are just writing to it, in words, as far as they can be told."""
    return _named(database, _WRITING)


def readers(database: Path) -> list[str]:
    """The other processes that are just reading from it, in words, as far as they can be told."""
    return _named(database, _READING)


def _named(database: Path, places: Container[int]) -> list[str]:
    index = database.with_name(f"{database.name}-shm")
    run = holder(database)  # its workers are children of the process that holds it
    found = {*_pids(index, "POSIX", places)} - {os.getpid()}
    return [_words(pid) for pid in sorted(found) if run is None or _parent(pid) != run]


def _parent(pid: int) -> int | None:
    with suppress(OSError):
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(status.rpartition(")")[2].split()[1])
    return None


def _words(pid: int) -> str:
    with suppress(OSError):
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
        return f"pid {pid} ({name})"
    return f"pid {pid}"


def _pids(path: Path, wanted: str, places: Container[int] | None = None) -> Iterator[int]:
    try:
        inode = str(path.stat().st_ino)
        lines = _LOCKS.read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for line in lines:
        # 1: FLOCK  ADVISORY  WRITE 707 fe:01:1234 0 EOF
        _, kind, _, _, pid, place, first, *_ = [*line.split(), "", "", "", "", "", "", ""]
        if kind != wanted or place.rpartition(":")[2] != inode or not pid.isdigit():
            continue
        if places is None or (first.isdigit() and int(first) in places):
            yield int(pid)
