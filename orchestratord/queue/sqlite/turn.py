"""The lock by which workers that share a file of SQLite take turns, in the folder `.workers` beside
it.

The worker that writes holds it, and it queues the others: SQLite lets them sleep and try again,
which serves them unevenly. The kernel releases the lock of a process that ends. It belongs to what
was opened, so a process opens its own after it was forked.
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


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
