"""The disk of a universe: what is on it for good, how quick and how full it is, what it refuses."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tests.simulation.machine import SimulatedConnection
    from tests.simulation.process import Process
    from tests.simulation.universe import Universe

BLOCK = 4096
BLOCKS = 1 << 20
"""Of the whole disk, which so has 4 GiB."""
FRAME = BLOCK + 24
HEADER = 32
"""Bytes of a frame of SQLite's journal, and of what stands before the first."""
SECTOR = 512
"""Bytes that come to the disk whole, or not at all."""

READING = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
"""Statements that read pages."""

PLENTY, TIGHT, FULL = 0.5, 0.01, 0.0
"""Shares of the disk that are free."""


class Written(NamedTuple):
    """How far SQLite's journal was written, or brought to the disk."""

    salt: bytes
    """Of the journal, which begins anew now and then."""
    frames: int


NOTHING = Written(b"", 0)


class Disk:
    """It keeps what was synced; what was only written is there as long as there is power."""

    def __init__(self, universe: Universe, chance: Random) -> None:
        self._universe = universe
        self._chance = chance
        self._synced = NOTHING
        self._lost: tuple[Written, int] | None = None
        """What the system gave up as it could not be written, from how many frames on."""
        self.recovers = False
        """The power was cut: what SQLite finds then is on the disk."""
        self.errors = 0
        """How often it could not write what it was to sync."""
        self._told: dict[tuple[Process, int], int] = {}
        """Each open file is told once of what could not be written, as Linux does."""
        self.pause: tuple[float, float] | None = None
        """Seconds that a write takes, from and to, while the disk is slow."""
        self.free = PLENTY
        self.free_since = 0.0
        self.refused_at: list[float] = []
        """When it has refused a COMMIT or a statement."""
        self.refuses: str | None = None
        """What it refuses once: to `read`, to `write`, or to `sync`."""

    # -- what is on it -----------------------------------------------------------------------------

    def written(self) -> tuple[Written, int]:
        """How far the journal was written, and how much of it is in the main file."""
        shared = _read(self._universe.path, "-shm", 136)
        if len(shared) == 136:
            numbers = memoryview(shared).cast("I")
            return Written(shared[32:40], numbers[4]), numbers[24]
        journal = self._universe.path.with_name("q.db-wal")
        size = journal.stat().st_size if journal.exists() else 0
        salt = _read(self._universe.path, "-wal", HEADER)[16:24]
        return Written(salt, max(size - HEADER, 0) // FRAME), 0

    def synced(self, written: Written) -> None:
        """So much is on the disk now; nothing new, where the journal has begun anew meanwhile."""
        if written.salt != self.written()[0].salt:
            return
        if written.salt != self._synced.salt or written.frames > self._synced.frames:
            self._synced = written

    def _kept(self) -> tuple[int, int]:
        """Frames of the journal that a power cut leaves for certain, and all that were written."""
        written, moved = self.written()
        frames = self._synced.frames if self._synced.salt == written.salt else 0
        if self._lost is not None and self._lost[0].salt == written.salt:
            last, first = self._lost
            if moved < last.frames:
                frames = min(frames, first)
        return max(frames, moved), written.frames

    def lose_power(self) -> tuple[dict[Path, bytes], str]:
        """Each file as a power cut leaves it, and that in words."""
        path = self._universe.path
        journal = path.with_name("q.db-wal")
        content = journal.read_bytes() if journal.exists() else b""
        frames, written = self._kept()
        length = min(HEADER + frames * FRAME, len(content))
        kept, end = content[:length], content[length:]
        how = self._chance.choice(("lost", "torn", "in pieces", "whole"))
        if how == "lost":
            end = b""
        elif how == "torn":
            end = end[: int(self._chance.random() * (max(written - frames, 0) * FRAME + 1))]
        elif how == "in pieces":
            end = b"".join(
                end[place : place + SECTOR] if self._chance.random() < 0.7 else bytes(SECTOR)
                for place in range(0, min(len(end), (written - frames) * FRAME), SECTOR)
            )
        self._synced, self.recovers = Written(self.written()[0].salt, frames), True
        words = f"{frames} of {written} frames of the journal were synced, the rest is {how}"
        return {path: path.read_bytes(), journal: kept + end}, words

    def recovered(self) -> None:
        """Whoever opens the file first has read the journal to the end of what is whole."""
        shared = _read(self._universe.path, "-shm", 136)
        if shared and shared[12]:
            self.recovers = False
            self.synced(self.written()[0])

    # -- what is asked of it -----------------------------------------------------------------------

    def take_time(self) -> None:
        """A write takes a while, if the disk is slow."""
        if self.pause is not None:
            baton = self._universe.baton
            baton.wait(None, baton.now + self._chance.uniform(*self.pause))

    def commit(self, connection: SimulatedConnection) -> None:
        """Refuse a COMMIT, which SQLite undoes then, where the disk is full or refuses."""
        self.take_time()
        if not connection.process.serves:
            return
        if self.free == FULL and self._chance.random() < 0.6:
            self._refuse(connection, "database or disk is full", sqlite3.SQLITE_FULL)
        if self._takes("write"):
            self._refuse(connection, "disk I/O error", sqlite3.SQLITE_IOERR_WRITE)
        if connection.is_durable and self._takes("sync"):
            self._refuse(connection, "disk I/O error", sqlite3.SQLITE_IOERR_FSYNC)

    def read(self, connection: SimulatedConnection, sql: str) -> None:
        """Refuse a statement what it wants to read. If it writes, SQLite undoes all with it."""
        if connection.process.serves and sql.lstrip().startswith(READING) and self._takes("read"):
            undo = not sql.lstrip().startswith("SELECT")
            self._refuse(connection, "disk I/O error", sqlite3.SQLITE_IOERR_READ, undo)

    def _takes(self, what: str) -> bool:
        if self.refuses != what:
            return False
        self.refuses = None
        return True

    def _refuse(
        self, connection: SimulatedConnection, words: str, code: int, undo: bool = True
    ) -> None:
        self._universe.trace.note(connection.process.name, "is refused by its disk:", words)
        self.refused_at.append(self._universe.baton.now)
        if undo and connection.in_transaction:
            sqlite3.Connection.rollback(connection)
        error = sqlite3.OperationalError(words)
        error.sqlite_errorcode = code
        raise error

    def sync(self, process: Process, descriptor: int) -> None:
        """As fdatasync(2) of the journal. Raises OSError, once for each file that was open as it
        failed; what could not be written is given up then."""
        written, _ = self.written()
        self.take_time()
        open_file = process, descriptor
        self._told.setdefault(open_file, self.errors)
        if process.serves and self._takes("sync"):
            first = self._synced.frames if self._synced.salt == written.salt else 0
            self._lost = written, first
            self.errors += 1
        if self._told[open_file] != self.errors:
            self._told[open_file] = self.errors
            self._universe.trace.note(process.name, "is refused by its disk to sync the journal")
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.synced(written)

    def statvfs(self, path: Any) -> os.statvfs_result:
        """As statvfs(3)."""
        free = int(BLOCKS * self.free)
        return os.statvfs_result((BLOCK, BLOCK, BLOCKS, free, free, 1000, 1000, 1000, 0, 255))


def _read(path: Path, suffix: str, size: int) -> bytes:
    try:
        descriptor = os.open(f"{path}{suffix}", os.O_RDONLY)
    except FileNotFoundError:
        return b""
    try:
        return os.read(descriptor, size)
    finally:
        os.close(descriptor)
