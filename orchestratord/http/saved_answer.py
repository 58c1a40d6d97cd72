"""Answers whose bodies are written to files, piece by piece, as they come.

A body goes to a file of a temporary name, which is renamed once all of it is on disk. The daemon
that writes one holds a lock on it, so that a start tells those that a crash has left.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from orchestratord.values import world

SAVED = "orchestratord.saved_answer"
"""The extension of a request whose answer goes to a `SavedAnswer`."""
_HELD = 1 << 20
"""Bytes that wait to be written; then nothing more is read until they are."""
TEMPORARY = re.compile(r"\.orchestratord-[0-9a-f]{16}\.part")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class SavedAnswer:
    """Where the body of one answer goes.

    Args:
        folder: absolute.
        name: of the file; it replaces another one.
        most: bytes that it may have.
    """

    def __init__(self, folder: str, name: str, most: int) -> None:
        self.most = most
        self.size = 0
        """Bytes that have come."""
        self.error: OSError | None = None
        """Why it cannot be written."""
        self._path = os.path.join(folder, name)
        self._name = name
        self._temporary = f".orchestratord-{world.token_hex(8)}.part"
        self._folder = self._file = -1
        self._hash = hashlib.sha256()
        self._waiting: list[bytes] = []
        self._held = 0
        self._resume: Callable[[], None] = lambda: None
        self._busy: asyncio.Task[Any] | None = None
        self._writing: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Be ready for an answer, from its first byte on. Raises OSError."""
        if self._writing is not None:
            await asyncio.wait((self._writing,))
        await self._apart(self._open)
        self.size, self.error, self._hash = 0, None, hashlib.sha256()

    def take(self, data: bytes, resume: Callable[[], None]) -> bool:
        """Take the next bytes; False where nothing more is to be read until `resume` is called."""
        self.size += len(data)
        self._held += len(data)
        self._waiting.append(data)
        self._resume = resume
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write_all())
        return self._held < _HELD

    async def written(self) -> dict[str, Any]:
        """Wait until all of it is written: its path, size and sha256. Raises OSError."""
        if self._writing is not None:
            await asyncio.wait((self._writing,))
        if self.error is not None:
            raise self.error
        return {"path": self._path, "size": self.size, "sha256": self._hash.hexdigest()}

    async def finish(self) -> dict[str, Any]:
        """Bring it to the disk under its name; returns and raises what `written` does."""
        about = await self.written()
        await self._apart(self._keep)
        return about

    async def close(self) -> None:
        """Remove what was not kept, once no thread writes to it."""
        for task in (self._writing, self._busy):
            if task is not None:
                await asyncio.wait((task,))
                task.exception()
        await asyncio.to_thread(self._remove)

    async def _apart(self, work: Callable[[], None]) -> None:
        # A thread that has begun goes on when its attempt is given up: `close` waits for it.
        self._busy = asyncio.get_running_loop().create_task(asyncio.to_thread(work))
        await asyncio.shield(self._busy)

    async def _write_all(self) -> None:
        while self._waiting:
            pieces, self._waiting = self._waiting, []
            if self.error is None:
                try:
                    await self._apart(partial(self._write, pieces))
                except OSError as error:
                    self.error = error
            self._held -= sum(map(len, pieces))
            self._resume()

    # -- in a thread -------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._file >= 0:
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
            return
        self._folder = os.open(os.path.dirname(self._path), _FOLDER)
        self._file = os.open(self._temporary, _NEW, 0o666, dir_fd=self._folder)
        world.flock(self._file, fcntl.LOCK_EX)

    def _write(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self._hash.update(piece)
            left = memoryview(piece)
            while left:
                left = left[os.write(self._file, left) :]

    def _keep(self) -> None:
        os.fsync(self._file)
        at = self._folder
        os.rename(self._temporary, self._name, src_dir_fd=at, dst_dir_fd=at)
        os.fsync(at)

    def _remove(self) -> None:
        if self._file >= 0:
            with suppress(OSError):  # as where it was kept
                os.unlink(self._temporary, dir_fd=self._folder)
            os.close(self._file)
        if self._folder >= 0:
            os.close(self._folder)


def remove_left(folders: Iterable[str]) -> None:
    """Remove what crashes have left in the folders; what a daemon still writes is locked."""
    for folder in folders:
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if TEMPORARY.fullmatch(entry.name):
                    _remove_unlocked(entry.path)


def _remove_unlocked(path: str) -> None:
    with suppress(OSError):
        file = os.open(path, _OLD)
        try:
            world.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        finally:
            os.close(file)
