"""A connected socket: resolve a name once, check its addresses, connect to what was checked."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Sequence

from orchestratord.errors import EgressDenied, SendError, SendErrorKind
from orchestratord.http.egress import Egress
from orchestratord.http.tls import reason
from orchestratord.values import world

Found = Sequence[tuple[int, str]]
"""(address family, address) in the order they are to be tried; an IPv6 zone as `%1` at the end."""

Resolver = Callable[[str, int], Awaitable[Found]]
"""Called with host and port; raises OSError or ValueError where there is no address."""

SHORTAGES = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL, errno.EAGAIN}
)
"""What says of this machine that it lacks something, and nothing of the peer."""

_Lookup = tuple[str, asyncio.Future[Found]]


async def connect(
    host: str, port: int, *, resolver: Resolver, egress: Egress, deadline: float
) -> tuple[socket.socket, str]:
    """Connect to a name.

    Its addresses are tried in turn, those that egress denies left out; each gets an equal share of
    the time that is left, so that a silent one does not use up the others'.

    Args:
        host: a name or an address.
        port: the port.
        resolver: asked once.
        egress: the rules.
        deadline: the loop's time at which the connection has to stand.

    Returns:
        The socket, and the address that it is connected to.

    Raises:
        EgressDenied: no address of the name is allowed.
        SendError: of kind dns, connect or timeout.
    """
    loop = asyncio.get_running_loop()
    addresses = await _resolve(host, port, resolver, deadline)
    allowed: list[tuple[int, str]] = []
    denied: EgressDenied | None = None
    for family, address in addresses:
        try:
            egress.check(address, port, host)
        except EgressDenied as error:
            denied = denied or error
        else:
            allowed.append((family, address))
    failure: SendError = denied or _failure("dns", f"{host} has no address")
    for position, (family, address) in enumerate(allowed):
        now = loop.time()
        until = now + (deadline - now) / (len(allowed) - position)
        try:
            return await _connect_socket(loop, family, address, port, until), address
        except SendError as error:
            failure = error
    try:
        raise failure
    finally:
        del failure, denied  # they hold this frame: a cycle, with all that waits for the connection


async def _resolve(host: str, port: int, resolver: Resolver, deadline: float) -> Found:
    try:
        async with asyncio.timeout_at(deadline) as limit:
            return await resolver(host, port)
    except (OSError, ValueError) as error:  # TimeoutError is an OSError
        if limit.expired():
            raise _failure("timeout", f"{host} could not be resolved in time") from None
        what = f"{host} cannot be resolved: {reason(error)}"
        # The system's resolver has other words for that.
        raise _failure("dns", what, is_shortage(error) or nothing_opens()) from error


async def _connect_socket(
    loop: asyncio.AbstractEventLoop, family: int, address: str, port: int, until: float
) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        what = f"no connection to {address_text(address, port)}: {reason(error)}"
        raise _failure("connect", what, is_shortage(error)) from error
    try:
        sock.setblocking(False)
        async with asyncio.timeout_at(until) as limit:
            await loop.sock_connect(sock, _sockaddr(family, address, port))
        if sock.getsockname() == sock.getpeername():
            # Where nothing listens on a port that the system also hands out to clients, a socket
            # can be given that very port and connect to itself; it would be its own answer.
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    except OSError as error:
        sock.close()
        if limit.expired():
            what = f"no connection to {address_text(address, port)} in time"
            raise _failure("timeout", what) from None
        what = f"no connection to {address_text(address, port)}: {reason(error)}"
        # Where IPv6 is switched off, there is no address that such a connection could come from.
        ours = is_shortage(error) and not (
            error.errno == errno.EADDRNOTAVAIL and family == socket.AF_INET6
        )
        # Each receiver has all local ports for itself.
        only = ours and error.errno == errno.EADDRNOTAVAIL
        raise _failure("connect", what, ours, receiver_only=only) from error
    except BaseException:
        sock.close()
        raise
    return sock


def _sockaddr(family: int, address: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    if family == socket.AF_INET:
        return address, port
    bare, _, zone = address.partition("%")
    if not zone:
        return bare, port, 0, 0
    return bare, port, 0, int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)


def address_text(address: str, port: int) -> str:
    """Address and port as one writes them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def is_shortage(error: Exception) -> bool:
    """Whether this machine lacks a descriptor, memory or a port."""
    if isinstance(error, socket.gaierror):  # its numbers are others
        return error.errno == socket.EAI_MEMORY
    return isinstance(error, OSError) and error.errno in SHORTAGES


def nothing_opens() -> bool:
    """Whether no descriptor is left at this moment."""
    try:
        socket.socket().close()
    except OSError as error:
        return is_shortage(error)
    return False


def _failure(kind: SendErrorKind, message: str, shortage: bool = False, **more: bool) -> SendError:
    return SendError(message, kind=kind, sent=False, shortage=shortage, **more)


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
        self._queue: world.SimpleQueue[_Lookup | None] = world.SimpleQueue()
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
            if self._threads < self._limit:
                self._begin_thread()
            future = asyncio.get_running_loop().create_future()
            future.add_done_callback(lambda done: self._settled(host, done))
            self._under_way[host] = future
            self._queue.put((host, future))
        return await asyncio.shield(future)

    def close(self) -> None:
        """Let the threads end; a lookup that is under way is not waited for."""
        for _ in range(self._threads):
            self._queue.put(None)
        self._threads = 0

    def _begin_thread(self) -> None:
        try:
            world.Thread(target=self._work, name="resolver", daemon=True).start()
        except RuntimeError:  # the machine has no room for another one
            if not self._threads:
                raise OSError(errno.EAGAIN, "no thread can be started") from None
        else:
            self._threads += 1

    def _settled(self, host: str, future: asyncio.Future[Found]) -> None:
        del self._under_way[host]
        if not future.cancelled():
            future.exception()  # all that waited for it may have gone

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
