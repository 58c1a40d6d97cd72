"""What one turn of the loop sends, sent at its end."""

from __future__ import annotations

import asyncio


class GatheredWrites:
    """Writes of one turn of the loop, to any number of connections, done together at its end.

    A request that goes out wakes its receiver. Where that runs on another core, it answers
    meanwhile. Where this process has one core only, and the others are busy as well, it takes that
    core, for this one request, and gives it back: nearly once for each.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.WriteTransport, bytes]] = []

    def add(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Have `data` written to `transport`, unless it is closed by then."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._write)
        self._waiting.append((transport, data))

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            transport.write(data)
