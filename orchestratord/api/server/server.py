"""The API over a socket, served in the daemon's own loop.

uvicorn parses HTTP and runs the application; listening, accepting and stopping are done here,
because a unix socket has to have its mode from its first moment, the number of connections is
bounded, and signals belong to the daemon.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import socket
import stat
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from orchestratord.api.server.http_connection import SPARED, ServedConnection
from orchestratord.config.validate.bind_address import parse_bind
from orchestratord.errors import OrchestratordError
from orchestratord.http.egress import Network
from orchestratord.plugin.isolation import words

log = logging.getLogger("orchestratord.control")

MAX_CONNECTIONS = 320
"""Open at once at a port, beside those whose requests wait, so that an ordinary burst finds room,
and a client's pool of 256 below `CROWDED`; another one takes the place of the slowest one that has
no request yet, or waits for a place."""
MAX_LOCAL = 4096
"""Connections at the control socket, where no request is refused: a crowd is to leave room for
probes and an operator's commands. Half of the files that may be open, where those are fewer."""
CROWDED = 0.8
"""The part of all places from which on each peer's address has a share of them."""
SHARE = 0.2
AT_ONCE = 64
"""Connections that are accepted in one turn of the loop."""
FOR_PROBES = 8
"""More of them over TCP, for /healthz and /readyz, where all others are at work."""
BACKLOG = 4096
"""Callers that wait for a place, or for the daemon to start anew; the kernel bounds it, too."""
GRACE = 2.0
"""Seconds that requests under way are given when the server stops."""

SWEEP_EVERY = 1.0
"""Seconds between two looks for peers that neither send nor read."""

_ACCEPT_AGAIN = 1.0
_LOOK_AGAIN = 0.05
"""Seconds after which a new connection is looked at again for which there is no room."""


Application = Callable[[Any, Any, Any], Awaitable[None]]


class Listener:
    """A listening unix socket, with mode 0660 in a folder with mode 0750.

    Only who holds the instance lock may open one: whatever socket is left at `path` is taken for
    a dead daemon's and removed, unless a process answers there.
    """

    def __init__(
        self, path: Path, descriptor: int | None = None, *, activated: bool = False
    ) -> None:
        """Listen at `path`. Raises OrchestratordError, naming `control_socket`, if it cannot.

        Args:
            path: of the socket.
            descriptor: of the socket, where the version before, or the service manager, has left
                one that listens there.
            activated: it is the service manager's: its mode and owner are the unit's, and it stays
                when this is closed.
        """
        self.path = path
        self._identity: tuple[int, int] | None = None
        if descriptor is not None:
            self.socket = socket.socket(fileno=descriptor)
            self.socket.setblocking(False)
            found = self.socket.getsockname()
            if activated:
                if not isinstance(found, str) or Path(found).resolve() != path.resolve():
                    self.socket.close()
                    raise _passed_elsewhere("control_socket", _shown(found), str(path))
                return
            if found == str(path):
                self._identity = _identity(path)
                return
            self.socket.close()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            _make_folder(path.parent)
            _remove_stale(path)
            _bind(self.socket, path)
            self.socket.listen(BACKLOG)
            self._identity = _identity(path)
        except OSError as error:
            self.socket.close()
            remedy = f"let this user write to {path.parent}, or set control_socket"
            raise _cannot_listen(path, error.strerror or str(error), remedy) from error
        except BaseException:
            self.socket.close()
            raise

    def keep(self) -> None:
        """Leave the socket where it is when this is closed: another process goes on listening."""
        self._identity = None

    def close(self) -> None:
        """Stop listening and remove the socket, if it still is this one."""
        self.socket.close()
        if self._identity is None:
            return
        try:
            if _identity(self.path) == self._identity:
                self.path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("cannot remove the control socket %s: %s", self.path, error)


class Server:
    """Serves an ASGI application at a listener; made, started and stopped within one loop."""

    def __init__(
        self,
        application: Application,
        listener: Listener | TcpListener,
        proxies: Callable[[], Sequence[Network]] | None = None,
    ) -> None:
        """`proxies`: at a plugin's port, the addresses that have no share of the places."""
        self._listener = listener
        self._proxies = proxies
        self._is_local = listener.socket.family == socket.AF_UNIX
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._places = min(MAX_LOCAL, files // 2) if self._is_local else MAX_CONNECTIONS
        self._connecting: set[asyncio.Task[None]] = set()
        self._state = ServerState()
        self._config = uvicorn.Config(
            _in_turns(application),
            ws="none",
            interface="asgi3",
            log_config=None,
            proxy_headers=False,
        )
        self._config.load()
        self._chores: list[asyncio.Task[None]] = []
        self._retired = False
        self._news = asyncio.Event()
        """Set where a connection may wait to be accepted, or none is to be accepted any more."""

    def start(self) -> None:
        """Begin to accept connections."""
        loop = asyncio.get_running_loop()
        steps = self._accept, self._sweep
        self._chores = [loop.create_task(self._keep_on(step)) for step in steps]

    @property
    def listening(self) -> int:
        """The descriptor of the listening socket."""
        return self._listener.socket.fileno()

    async def retire(self) -> None:
        """Accept no more, as another process does so; what is connected may ask once more."""
        self._retired = True
        self._news.set()
        await asyncio.wait(self._chores[:1])  # one that was accepted is served
        self._listener.socket.close()
        self._state.default_headers.append((b"connection", b"close"))

    async def stop(self, grace: float = GRACE) -> None:
        """Accept no more, let what is under way end within `grace` seconds, close the rest."""
        loop = asyncio.get_running_loop()
        end = loop.time() + grace
        while self._retired and self._connections() and loop.time() < end:  # noqa: ASYNC110  # uvicorn tells no one
            await asyncio.sleep(_LOOK_AGAIN)  # they are closed as soon as nothing comes
        for chore in self._chores:
            chore.cancel()
            await asyncio.wait((chore,))
        if not self._retired:
            self._listener.close()
        for connection in self._connections():
            connection.shutdown()
        if working := [*self._connecting, *self._state.tasks]:
            await asyncio.wait(working, timeout=grace)
        if late := list(self._state.tasks):
            for task in late:
                task.cancel()
            await asyncio.wait(late, timeout=grace)
        for connection in self._connections():
            connection.transport.close()
        await asyncio.sleep(0)  # connections are lost in the loop's next round
        for connection in self._connections():
            connection.transport.abort()
        await asyncio.sleep(0)

    def _connections(self) -> list[ServedConnection]:
        return [item for item in self._state.connections if isinstance(item, ServedConnection)]

    async def _keep_on(self, step: Callable[[], Awaitable[None]]) -> None:
        """Begin `step` again where it fails: without it the daemon would go on without an API."""
        while not self._retired:
            try:
                await step()
            except Exception as error:  # out of file descriptors or of memory, for example
                with suppress(MemoryError):
                    log.warning("cannot accept a connection: %s", words(error))
                    await asyncio.sleep(_ACCEPT_AGAIN)

    async def _accept(self) -> None:
        while not self._retired:
            try:
                sock, address = self._listener.socket.accept()
            except BlockingIOError:
                await asyncio.gather(*self._connecting)
                await self._wait_for_connection()
                continue
            sock.setblocking(False)
            proxies = self._proxies() if self._proxies is not None else ()
            peer = None if self._is_local else address[0].removeprefix("::ffff:")
            if peer is not None and any(ip_address(peer) in one for one in proxies):
                peer = None
            try:
                for_probes = await self._make_room(peer)
            except asyncio.CancelledError:
                sock.close()
                raise
            # Made only now: its client's time runs from here on.
            connection = ServedConnection(self._config, self._state, {})
            connection.seat.for_probes, connection.seat.peer = for_probes, peer
            connecting = asyncio.create_task(self._connect(connection, sock))
            self._connecting.add(connecting)
            connecting.add_done_callback(self._connecting.discard)
            # A turn of a busy loop takes long: many are accepted in each, unless places are few.
            if len(self._connecting) >= AT_ONCE or (self._is_crowded() and not self._is_local):
                await asyncio.gather(*self._connecting)

    async def _connect(self, connection: ServedConnection, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: connection, sock)
        except (OSError, MemoryError, asyncio.CancelledError):  # it, or this server, is gone
            sock.close()

    async def _wait_for_connection(self) -> None:
        # Not `sock_accept` of the loop: what it accepts while it is cancelled is lost.
        loop, listening = asyncio.get_running_loop(), self._listener.socket
        self._news.clear()
        loop.add_reader(listening, self._news.set)
        try:
            await self._news.wait()
        finally:
            loop.remove_reader(listening)

    def _is_crowded(self) -> bool:
        taken = len(self._state.connections) + len(self._connecting)
        return taken >= CROWDED * self._places

    async def _make_room(self, peer: str | None) -> bool:
        """Return once there is room for another connection of this peer; whether only for a probe.

        Meanwhile the others wait in the listening socket's backlog. Where places are few, who has
        more than a share of them gives one of its own, and the others' before theirs.
        """
        loop, places = asyncio.get_running_loop(), self._places
        # Who may use the control socket loses no request: there all wait for a place alike. At a
        # plugin's port there is nothing to probe.
        for_probes = 0 if self._is_local or self._proxies is not None else FOR_PROBES
        while True:
            if not self._is_crowded():
                return False
            ordinary = [
                item
                for item in self._connections()
                if not item.seat.waits and not item.transport.is_closing()
            ]
            now, taken = loop.time(), len(ordinary) + len(self._connecting)
            of_peers = Counter(item.seat.peer for item in ordinary if item.seat.peer is not None)
            greedy = {one for one, count in of_peers.items() if count >= SHARE * places}
            if taken < (CROWDED * places if peer in greedy else places):
                return False
            shed = min(
                (
                    item
                    for item in ordinary
                    if (peer not in greedy or item.seat.peer == peer)
                    and item.can_be_shed(now, 0.0 if item.seat.peer in greedy else SPARED)
                ),
                key=lambda item: (item.seat.for_probes, *item.worth(now)),
                default=None,
            )
            spare = for_probes - sum(item.seat.for_probes for item in ordinary)
            if shed is not None and (spare <= 0 or not shed.seat.for_probes):
                shed.shed()
                return shed.seat.for_probes
            if taken < places or spare > 0:
                return taken >= places
            await asyncio.sleep(_LOOK_AGAIN)

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            for connection in self._connections():
                connection.sweep(loop.time())


def _in_turns(application: Application) -> Application:
    """The application, where one request of those that wait, as for the end of a task, begins in a
    turn of the loop: others are answered beside a crowd of them."""
    turn = asyncio.Lock()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if b"wait=" in scope["query_string"]:
            with suppress(asyncio.CancelledError):  # the application says why
                async with turn:
                    await asyncio.sleep(0)
        await application(scope, receive, send)

    return answer


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        _warn_of_others(folder)
        return
    old = os.umask(0o027)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    finally:
        os.umask(old)


def _warn_of_others(folder: Path) -> None:
    """Say so where the folder can be written to by who may not use the socket anyway."""
    status = folder.stat()
    others = stat.S_IWOTH if status.st_gid == os.getegid() else stat.S_IWOTH | stat.S_IWGRP
    if status.st_mode & others:
        log.warning(
            "the control socket's folder %s has mode %04o: other users can put a socket of their "
            "own in its place; take away their right to write",
            folder,
            stat.S_IMODE(status.st_mode),
        )


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        remedy = "remove it, or set control_socket"
        raise _cannot_listen(path, "something that is not a socket stands there", remedy)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # a full backlog: a process listens
    remedy = "stop it, or set control_socket"
    raise _cannot_listen(path, "another daemon listens there", remedy)


def _bind(sock: socket.socket, path: Path) -> None:
    old = os.umask(0o117)
    try:
        sock.bind(str(path))
    finally:
        os.umask(old)


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _shown(found: str | bytes) -> str:
    """The address of a unix socket, for people; an abstract one as units write it."""
    return found if isinstance(found, str) else f"@{found[1:].decode(errors='replace')}"


def _passed_elsewhere(key: str, found: str, wanted: str) -> OrchestratordError:
    return OrchestratordError(
        f"{key}: the service manager listens at {found}, and this is {wanted}: write the same into "
        f"{key} and into ListenStream= of the socket unit"
    )


def _cannot_listen(path: Path, why: str, remedy: str) -> OrchestratordError:
    return OrchestratordError(f"control_socket: cannot listen at {path}: {why}; {remedy}")


# -- The listening TCP sockets of `http.bind` and of ports of plugins -----------------------------

_REMEDIES = {
    errno.EADDRINUSE: "end the program that listens there, or write another port",
    errno.EADDRNOTAVAIL: "write an address of this machine, such as 127.0.0.1",
    errno.EACCES: "write a port from 1024 on, or give the unit CAP_NET_BIND_SERVICE",
}


class TcpListener:
    """A listening TCP socket."""

    def __init__(
        self,
        bind: str,
        descriptor: int | None = None,
        *,
        activated: bool = False,
        key: str = "http.bind",
    ) -> None:
        """Listen at an `http.bind`. Raises OrchestratordError, with what to do, if it cannot.

        Args:
            bind: the address and port.
            descriptor: of the socket, where the version before, or the service manager, has left
                one that listens there.
            activated: it is the service manager's.
            key: of the setting that says where.
        """
        address, port = parse_bind(bind)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        # asyncio has what is accepted send at once only where the protocol is named: else the body
        # of an answer waits until its head is acknowledged, which a client may put off for 40 ms.
        kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
        if descriptor is not None:
            self.socket = socket.socket(family, kind, socket.IPPROTO_TCP, descriptor)
            self.socket.setblocking(False)
            self.address, self.port = self.socket.getsockname()[:2]
            if self.address == str(address) and port in (0, self.port):
                return
            self.socket.close()
            if activated:
                raise _passed_elsewhere(key, self.url, bind)
        self.socket = socket.socket(family, kind, socket.IPPROTO_TCP)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind((str(address), port))
            self.socket.listen(BACKLOG)
        except OSError as error:
            self.socket.close()
            why = error.strerror or str(error)
            remedy = _REMEDIES.get(error.errno or 0, "write another address or port")
            message = f"{key}: cannot listen at {bind}: {why}; {remedy}"
            raise OrchestratordError(message) from error
        self.address, self.port = self.socket.getsockname()[:2]
        """Where it listens, as the system has it."""

    @staticmethod
    def is_at(descriptor: int, bind: str) -> bool:
        """Whether a socket that was left, or passed, listens at an `http.bind`."""
        address, port = parse_bind(bind)
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            found = sock.getsockname()
        return bool(found[0] == str(address)) and port in (0, found[1])

    @property
    def url(self) -> str:
        """Where it listens, for people."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}"

    def close(self) -> None:
        """Stop listening."""
        self.socket.close()
