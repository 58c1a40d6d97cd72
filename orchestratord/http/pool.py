"""Connections that wait for their next request."""

from __future__ import annotations

import asyncio

from orchestratord.errors import EgressDenied
from orchestratord.http.egress import Egress
from orchestratord.http.http1 import Http1Connection
from orchestratord.http.proxy import PoolKey

_MOMENT = 0.002
"""Seconds after an exchange for which a connection is taken to be open and silent without a look at
its socket, which would let all other threads go first. Should the end have come since, the request
fails as one on any connection that is closed at the moment of sending; bytes that nothing asked for
would be taken for its answer, so this is short."""


class IdleConnections:
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
        self._moment = min(_MOMENT, timeout)
        self._idle: dict[PoolKey, list[Http1Connection]] = {}
        self._count = 0
        self._sweeper: asyncio.TimerHandle | None = None

    def take(self, key: PoolKey, egress: Egress, now: float) -> Http1Connection | None:
        """An open connection, to be used at once, whose address `egress` allows; or None."""
        idle = self._idle.get(key)
        if not idle:
            return None
        last = idle[-1]
        # The usual case: it was used a moment ago, and its address checked by these very rules.
        if last.egress is egress and now - last.idle_since < self._moment and not last.is_closing():
            self._count -= 1
            return idle.pop()
        return self._search(idle, key, egress, now)

    def _search(
        self, idle: list[Http1Connection], key: PoolKey, egress: Egress, now: float
    ) -> Http1Connection | None:
        for position in range(len(idle) - 1, -1, -1):
            connection = idle[position]
            is_open = self._is_open(connection, now - connection.idle_since)
            if is_open and not _allowed(connection, key, egress):
                continue  # kept for those whose rules allow it
            del idle[position]
            self._count -= 1
            if is_open:
                return connection
            connection.close()
        return None

    def _is_open(self, connection: Http1Connection, idle_for: float) -> bool:
        """Whether one that has been idle for so many seconds can be used now."""
        if idle_for >= self._timeout:
            return False
        return not connection.is_closing() if idle_for < _MOMENT else connection.usable()

    def give(self, key: PoolKey, connection: Http1Connection, now: float) -> None:
        """Keep a connection for another request, or close it where there are enough."""
        idle = self._idle.get(key)
        if idle is None:
            idle = self._idle[key] = []
        count = self._count
        if count >= self._limit or len(idle) >= self._limit_per_key:
            connection.close()
            return
        connection.idle_since = now
        idle.append(connection)
        self._count = count + 1
        if self._sweeper is None:
            loop = asyncio.get_running_loop()
            self._sweeper = loop.call_later(self._timeout, self._sweep, loop)

    def close(self) -> None:
        """Close what is idle, and keep nothing from now on."""
        self._limit = 0
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for idle in self._idle.values():
            for one in idle:
                one.close()
        self._idle.clear()
        self._count = 0

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for key, idle in list(self._idle.items()):
            kept = []
            for one in idle:
                if one.is_closing() or now - one.idle_since >= self._timeout:
                    one.close()
                else:
                    kept.append(one)
            self._count -= len(idle) - len(kept)
            if kept:
                self._idle[key] = kept
            else:
                del self._idle[key]
        self._sweeper = None
        if self._idle:
            self._sweeper = loop.call_later(self._timeout / 2, self._sweep, loop)


def _allowed(connection: Http1Connection, key: PoolKey, egress: Egress) -> bool:
    if connection.egress is egress:  # the usual case: it was checked by these very rules
        return True
    host, port = key.host, key.port
    try:
        if key.route is not None:
            key.route.check_target(egress, host, port)
            host, port = key.route.proxy.host, key.route.proxy.port
        egress.check(connection.address, port, host)
    except EgressDenied:
        return False
    connection.egress = egress
    return True
