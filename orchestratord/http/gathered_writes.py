"""What one turn of the loop sends, sent at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class GatheredWrites:
    """Writes of one turn of the loop, to any number of connections, done together at its end.

    A request that goes out wakes its receiver. Where that runs on another core, it answers
    meanwhile. Where this process has one core only, and the others are busy as well, it takes that
    core, for this one request, and gives it back: nearly once for each.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[bytes], None], bytes]] = []

    def add(self, write: Callable[[bytes], None], data: bytes) -> None:
        """Have `write` called with `data` at the end of the turn."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._write)
        self._waiting.append((write, data))

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        for write, data in waiting:
            write(data)
