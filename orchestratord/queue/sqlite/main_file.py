"""Room on the disk for the main file of a database, before the journal may take it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from orchestratord.values import world


class MainFile:
    """The file that the journal is brought into.

    SQLite lets the main file grow after a COMMIT only, when it brings the journal in. Where the
    journal has taken the last of the disk by then, it cannot be brought in, and so never shrinks.
    """

    def __init__(self, path: Path) -> None:
        """`path`: where it is."""
        self._path = path
        self._descriptor: int | None = None

    def reserve(self, size: int) -> None:
        """Have room for `size` bytes of it in all; what it has too much, SQLite takes off again as
        it brings in what was committed.

        Raises OSError, before anything was taken.
        """
        there = os.stat(self._path).st_size
        if size <= there:
            return
        disk = world.statvfs(self._path)
        if size - there > disk.f_bavail * disk.f_frsize:  # of which ext4 would keep what there was
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._descriptor is None:
            # It stays open: closing it would drop the locks that this process has on the file,
            # which are SQLite's.
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        os.posix_fallocate(self._descriptor, there, size - there)

    def close(self) -> None:
        """Close it, after all connections to the database."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
