"""Looking at a database from outside without changing it: who holds it, and is it whole?"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from orchestratord.queue.schema import VERSION

_LOCKS = Path("/proc/locks")
_LISTED = 5
"""Faults of a database that are listed; one is enough to be worried."""


def holder(database: Path) -> int | None:
    """The pid of the daemon that has this database; None where none has, or it cannot be told.

    The kernel's list of locks is read. To try the lock would be to take it, for a moment in which a
    daemon might want to start.
    """
    lock = database.with_name(database.name + ".lock")
    try:
        inode = str(lock.stat().st_ino)
        lines = _LOCKS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        # 1: FLOCK  ADVISORY  WRITE 707 fe:01:1234 0 EOF
        _, kind, _, _, pid, place, *_ = [*line.split(), "", "", "", "", "", ""]
        if kind == "FLOCK" and place.rpartition(":")[2] == inode and pid.isdigit():
            return int(pid)
    return None


def faults(database: Path, seconds: float) -> list[str] | None:
    """What is wrong within the file, nothing for a good one; None where it took too long to see.

    Args:
        database: an existing file.
        seconds: how long to look.
    """
    deadline = time.monotonic() + seconds
    try:
        with closing(_open(database)) as connection:
            connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
            rows = connection.execute(f"PRAGMA quick_check({_LISTED})").fetchall()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return None
        return [str(error)]
    except sqlite3.Error as error:
        return [str(error)]
    return [] if rows == [("ok",)] else [str(row[0]) for row in rows]


def too_new(database: Path) -> int | None:
    """The schema that a daemon has to know to use this database, where this version does not."""
    try:
        with closing(_open(database)) as connection:
            row = connection.execute("SELECT compatible_from FROM schema WHERE id = 1").fetchone()
    except sqlite3.Error:
        return None  # a file without tables is a new one, and what is broken is told by `faults`
    return int(row[0]) if row is not None and row[0] > VERSION else None


def _open(database: Path) -> sqlite3.Connection:
    path = f"file:{quote(str(database))}?mode=ro"
    # Without a journal beside it the file is all there is, and nobody has it open. A reader would
    # make a journal, though it needs none.
    if not database.with_name(database.name + "-wal").exists():
        path += "&immutable=1"
    return sqlite3.connect(path, uri=True, timeout=1.0)
