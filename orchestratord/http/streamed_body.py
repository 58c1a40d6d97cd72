"""Bodies that are read from files, piece by piece, while they are sent."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Sequence
from functools import partial

SENT = "orchestratord.streamed_body"
"""The extension of a request whose body is a `StreamedBody`."""
_PIECE = 262_144
"""Bytes that are read at once."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A pipe is not waited for, and no terminal becomes that of the daemon.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class FileRefused(ValueError):
    """A file that no call may send."""


class OpenedFile:
    """A file from which a body is sent. It is closed where nothing needs it any more: a thread may
    still read from it when its attempt has ended."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._stat = os.fstat(descriptor)
        self.length = self._stat.st_size

    def check(self, most: int) -> None:
        """Raise FileRefused where it is no file, or has more than `most` bytes."""
        if not stat.S_ISREG(self._stat.st_mode):
            raise FileRefused(f"{self.path} is no regular file")
        if self.length > most:
            raise FileRefused(f"{self.path} has {self.length:,} bytes; files.max_file is {most:,}")

    def read(self, offset: int) -> bytes:
        """The next piece. Raises OSError, also where the file has another length by now."""
        piece = os.pread(self._descriptor, min(_PIECE, self.length - offset), offset)
        last = offset + len(piece) == self.length
        if not piece or (last and os.fstat(self._descriptor).st_size != self.length):
            raise OSError(f"{self.path} changed while it was sent")
        return piece

    def __del__(self) -> None:
        os.close(self._descriptor)


def open_file(path: str, folders: Sequence[str], most: int) -> OpenedFile:
    """Open a file in one of the folders to read it; links are followed as long as they stay there.

    Args:
        path: a relative one is below the first folder.
        folders: absolute.
        most: bytes that it may have.

    Raises:
        FileRefused: it is elsewhere, no file, or too large.
        OSError: it cannot be opened.
    """
    try:
        real = os.path.realpath(os.path.join(*folders[:1], path))
    except ValueError:  # a character that no path holds
        raise FileRefused(f"{path!r} is no path") from None
    for folder in folders:
        root = os.path.realpath(folder)
        if os.path.commonpath((root, real)) == root and real != root:
            opened = OpenedFile(path, _open_below(root, os.path.relpath(real, root).split("/")))
            opened.check(most)
            return opened
    raise FileRefused(f"{path!r} is in no folder of files.read")


def _open_below(root: str, names: Sequence[str]) -> int:
    """Open what a path without links leads to; a link put there meanwhile is not followed."""
    folder = os.open(root, _FOLDER)
    try:
        for name in names[:-1]:
            below = os.open(name, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = below
        return os.open(names[-1], _FILE, dir_fd=folder)
    finally:
        os.close(folder)


class StreamedBody:
    """What a request sends in pieces; each sending reads anew.

    Args:
        parts: in their order.
    """

    def __init__(self, parts: Sequence[bytes | OpenedFile]) -> None:
        self._parts = parts
        self.length = sum(len(p) if isinstance(p, bytes) else p.length for p in parts)

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it. Raises OSError where a file cannot be read on, or changes."""
        for part in self._parts:
            if isinstance(part, bytes):
                yield part
                continue
            offset = 0
            while offset < part.length:
                piece = await asyncio.to_thread(partial(part.read, offset))
                offset += len(piece)
                yield piece
