"""The locks of workers that share a file of SQLite, in the folder `.workers` beside it.

`turn` is held by the worker that writes, and queues the others: SQLite lets them sleep and try
again, which serves them unevenly. Each store has a file of the name of its owner, and its lock for
life: where that can be taken, its process is dead, however it died, and a pid that is used again
says nothing. The kernel gives up the locks of a process that ends. They belong to what was opened,
so a process opens its own after it was forked.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestratord.values import world

TURN = "turn"


class Turn:
    """The lock by which writers take turns. Used by one thread of a process."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._descriptor = _open(path)
        self._held = False

    def take(self) -> None:
        """Wait for our turn, behind those that wait already; nothing where it is ours."""
        if not self._held:
            world.flock(self._descriptor, fcntl.LOCK_EX)
            self._held = True

    def release(self) -> None:
        """It is the next one's, if it was ours."""
        if self._held:
            self._held = False
            world.flock(self._descriptor, fcntl.LOCK_UN)

    @contextmanager
    def ours(self) -> Iterator[None]:
        """It is our turn inside, and not a moment longer."""
        self.take()
        try:
            yield
        finally:
            self.release()

    def close(self) -> None:
        """Release it for good."""
        os.close(self._descriptor)


class Life:
    """The file that says, as long as it is locked, that an owner lives."""

    def __init__(self, folder: Path, owner: str) -> None:
        """Begin it. Raises OSError."""
        self.path = folder / owner
        while True:
            descriptor = _open(self.path)
            world.flock(descriptor, fcntl.LOCK_EX)
            # In the moment in which it was not locked, another may have found and removed it.
            if _is_at(descriptor, self.path):
                break
            os.close(descriptor)
        self._descriptor = descriptor

    def close(self) -> None:
        """End it. What the owner holds from here on is the others' to take."""
        self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


def living(folder: Path) -> list[str]:
    """The owners that live. The files of those that are dead are removed. Raises OSError."""
    names = [name for name in os.listdir(folder) if name != TURN]
    return [name for name in names if _lives(folder / name)]


def _lives(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            # Shared: several that look at once do not take each other for the owner.
            world.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if _is_at(file.fileno(), path):
                path.unlink()
    except BlockingIOError:
        return True
    except FileNotFoundError:  # another has just removed it
        pass
    return False


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
