"""From a name to addresses, without holding up the loop."""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence

Found = Sequence[tuple[int, str]]
"""(address family, address) in the order they are to be tried; an IPv6 zone as `%1` at the end."""

Resolver = Callable[[str, int], Awaitable[Found]]
"""Called with host and port; raises OSError or ValueError where there is no address."""

_Lookup = tuple[str, asyncio.Future[Found]]


class SystemResolver:
    """The system's getaddrinfo in a few threads of its own.

    A name that is being looked up is not looked up a second time beside it: a name server that
    hangs holds one thread for a name, however many requests wait for it. The threads are daemonic,
    so that such a one does not hold up the end of the process either.

    Args:
        threads: how many names are looked up at once; they start as they are needed.
    """

    def __init__(self, threads: int = 16) -> None:
        self._limit = threads
        self._threads = 0
        self._queue: queue.SimpleQueue[_Lookup | None] = queue.SimpleQueue()
        self._under_way: dict[str, asyncio.Future[Found]] = {}

    async def __call__(self, host: str, port: int) -> Found:
        """The addresses of `host`. Every spelling of an address that the system knows is one.

        Raises:
            OSError, ValueError: there is none.
        """
        try:
            return _lookup(host, socket.AI_NUMERICHOST)
        except (OSError, ValueError):
            pass
        future = self._under_way.get(host)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            future.add_done_callback(lambda done: self._settled(host, done))
            self._under_way[host] = future
            self._queue.put((host, future))
            if self._threads < self._limit:
                self._threads += 1
                threading.Thread(target=self._work, name="resolver", daemon=True).start()
        return await asyncio.shield(future)

    def close(self) -> None:
        """Let the threads end; a lookup that is under way is not waited for."""
        for _ in range(self._threads):
            self._queue.put(None)
        self._threads = 0

    def _settled(self, host: str, future: asyncio.Future[Found]) -> None:
        del self._under_way[host]
        if not future.cancelled():
            future.exception()  # everybody who waited for it may have gone

    def _work(self) -> None:
        while (lookup := self._queue.get()) is not None:
            host, future = lookup
            found: Found = ()
            problem: Exception | None = None
            try:
                found = _lookup(host, 0)
            except Exception as error:
                problem = error
            try:
                future.get_loop().call_soon_threadsafe(_settle, future, found, problem)
            except RuntimeError:  # the loop has ended meanwhile
                return


def _settle(future: asyncio.Future[Found], found: Found, problem: Exception | None) -> None:
    if future.done():
        return
    if problem is None:
        future.set_result(found)
    else:
        future.set_exception(problem)


def _lookup(host: str, flags: int) -> Found:
    found: list[tuple[int, str]] = []
    for family, _, _, _, sockaddr in socket.getaddrinfo(
        host, None, type=socket.SOCK_STREAM, flags=flags
    ):
        address = str(sockaddr[0]).partition("%")[0]
        if len(sockaddr) == 4 and sockaddr[3]:
            address = f"{address}%{sockaddr[3]}"
        found.append((family, address))
    return found
