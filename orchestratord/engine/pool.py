"""Connections that wait for their next request."""

from __future__ import annotations

import asyncio
import ssl
from typing import NamedTuple

from orchestratord.engine.egress import Egress
from orchestratord.engine.wire import Connection
from orchestratord.errors import EgressDenied


class Key(NamedTuple):
    """What a request and a connection must have in common. `ssl_context` is None without TLS."""

    host: str
    port: int
    ssl_context: ssl.SSLContext | None


class Pool:
    """Idle connections, the last one used on top: it is the least likely to have been closed.

    Args:
        limit: how many in all.
        limit_per_key: how many for one key.
        timeout: seconds after which an idle connection is closed.
    """

    def __init__(self, limit: int, limit_per_key: int, timeout: float) -> None:
        self._limit = limit
        self._limit_per_key = limit_per_key
        self._timeout = timeout
        self._idle: dict[Key, list[Connection]] = {}
        self._count = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    def take(self, key: Key, egress: Egress, now: float) -> Connection | None:
        """A connection that is open and silent, and whose address `egress` allows; or None."""
        idle = self._idle.get(key)
        if idle is None:
            return None
        taken: Connection | None = None
        for position in range(len(idle) - 1, -1, -1):
            connection = idle[position]
            if now - connection.idle_since >= self._timeout or not connection.usable():
                connection.close()
            elif _allowed(connection, key, egress):
                taken = connection
            else:
                continue  # kept for those whose rules allow it
            del idle[position]
            self._count -= 1
            if taken is not None:
                break
        if not idle:
            del self._idle[key]
        return taken

    def give(self, key: Key, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        """Keep a connection for another request, or close it where there are enough."""
        idle = self._idle.get(key, [])
        if self._closed or self._count >= self._limit or len(idle) >= self._limit_per_key:
            connection.close()
            return
        connection.idle_since = loop.time()
        idle.append(connection)
        self._idle[key] = idle
        self._count += 1
        if self._sweeper is None:
            self._sweeper = loop.call_later(self._timeout, self._sweep, loop)

    def close(self) -> None:
        """Close what is idle, and keep nothing from now on."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()
        self._count = 0

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for key, idle in list(self._idle.items()):
            kept = []
            for connection in idle:
                if connection.closing or now - connection.idle_since >= self._timeout:
                    connection.close()
                else:
                    kept.append(connection)
            self._count -= len(idle) - len(kept)
            if kept:
                self._idle[key] = kept
            else:
                del self._idle[key]
        again = self._timeout / 2
        self._sweeper = loop.call_later(again, self._sweep, loop) if self._idle else None


def _allowed(connection: Connection, key: Key, egress: Egress) -> bool:
    if connection.egress is egress:  # the usual case: it was checked by these very rules
        return True
    try:
        egress.check(connection.address, key.port, key.host)
    except EgressDenied:
        return False
    connection.egress = egress
    return True
