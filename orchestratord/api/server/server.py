"""The API over a socket, served in the daemon's own loop.

uvicorn parses HTTP and runs the application; listening, accepting and stopping are done here,
because a unix socket has to have its mode from its first moment, the number of connections is
bounded, and signals belong to the daemon.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import uvicorn
from uvicorn.server import ServerState

from orchestratord.api.server.http_connection import ServedConnection
from orchestratord.config.validate.bind_address import parse_bind
from orchestratord.errors import ConfigError, OrchestratordError, Problem

log = logging.getLogger("orchestratord.control")

MAX_CONNECTIONS = 64
"""Open at once; further ones wait in the listening socket's backlog."""
BACKLOG = 128
GRACE = 2.0
"""Seconds that requests under way are given when the server stops."""

SWEEP_EVERY = 1.0
"""Seconds between two looks for peers that neither send nor read."""

_KEEP_ALIVE = 5
_ACCEPT_AGAIN = 1.0


Application = Callable[[Any, Any, Any], Awaitable[None]]


class Listener:
    """A listening unix socket, with mode 0660 in a folder with mode 0750.

    Only who holds the instance lock may open one: whatever socket is left at `path` is taken for
    a dead daemon's and removed, unless a process answers there.
    """

    def __init__(self, path: Path) -> None:
        """Listen at `path`. Raises ConfigError, naming `control_socket`, where that cannot be."""
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            _make_folder(path.parent)
            _remove_stale(path)
            _bind(self.socket, path)
            self.socket.listen(BACKLOG)
            self._identity = _identity(path)
        except OSError as error:
            self.socket.close()
            raise _cannot_listen(path, error.strerror or str(error)) from error
        except BaseException:
            self.socket.close()
            raise

    def close(self) -> None:
        """Stop listening and remove the socket, if it still is this one."""
        self.socket.close()
        try:
            if _identity(self.path) == self._identity:
                self.path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("cannot remove the control socket %s: %s", self.path, error)


class Listening(Protocol):
    """A socket that listens, without blocking."""

    socket: socket.socket

    def close(self) -> None:
        """Stop listening."""
        ...


class Server:
    """Serves an ASGI application at a listener; made, started and stopped within one loop."""

    def __init__(self, application: Application, listener: Listening) -> None:
        self._listener = listener
        self._state = ServerState()
        self._config = uvicorn.Config(
            application,
            http=ServedConnection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
            workers=1,
        )
        self._config.load()
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)
        self._chores: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to accept connections."""
        loop = asyncio.get_running_loop()
        self._chores = [loop.create_task(self._accept()), loop.create_task(self._sweep())]

    async def stop(self, grace: float = GRACE) -> None:
        """Accept no more, let what is under way end within `grace` seconds, close the rest."""
        for chore in self._chores:
            chore.cancel()
            await asyncio.wait((chore,))
        self._listener.close()
        for connection in self._connections():
            connection.shutdown()
        if working := list(self._state.tasks):
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

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._places.acquire()
            try:
                sock, _ = await loop.sock_accept(self._listener.socket)
                await loop.connect_accepted_socket(self._connection, sock)
            except OSError as error:  # out of file descriptors, or the peer is gone already
                self._places.release()
                log.warning("cannot accept a connection: %s", error)
                await asyncio.sleep(_ACCEPT_AGAIN)

    def _connection(self) -> asyncio.Protocol:
        return _Counted(self._places, self._config, self._state)

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            for connection in self._connections():
                connection.sweep(loop.time())


class _Counted(ServedConnection):
    """A connection that gives its place back when it is lost."""

    def __init__(
        self, places: asyncio.Semaphore, config: uvicorn.Config, state: ServerState
    ) -> None:
        super().__init__(config, state, {})
        self._places = places

    def connection_lost(self, exc: Exception | None) -> None:
        self._places.release()
        super().connection_lost(exc)


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
        raise _cannot_listen(path, "something that is not a socket stands there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # a full backlog: a process listens
    raise _cannot_listen(path, "another daemon listens there")


def _bind(sock: socket.socket, path: Path) -> None:
    old = os.umask(0o117)
    try:
        sock.bind(str(path))
    finally:
        os.umask(old)


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _cannot_listen(path: Path, why: str) -> ConfigError:
    message = f"cannot listen at {path}: {why}"
    return ConfigError([Problem(message, file="orchestratord.yaml", key="control_socket")])


# -- The listening TCP socket of `http.bind` -------------------------------------------------------


class TcpListener:
    """A listening TCP socket."""

    def __init__(self, bind: str) -> None:
        """Listen at an `http.bind`.

        Raises:
            ConfigError: this user may not listen there.
            OrchestratordError: something else is in the way, such as another program.
        """
        address, port = parse_bind(bind)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        # asyncio has what is accepted send at once only where the protocol is named: else the body
        # of an answer waits until its head is acknowledged, which a client may put off for 40 ms.
        kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
        self.socket = socket.socket(family, kind, socket.IPPROTO_TCP)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind((str(address), port))
            self.socket.listen(BACKLOG)
        except OSError as error:
            self.socket.close()
            message = f"cannot listen at {bind}: {error.strerror or error}"
            if isinstance(error, PermissionError):
                problem = Problem(message, file="orchestratord.yaml", key="http.bind")
                raise ConfigError([problem]) from error
            raise OrchestratordError(f"http.bind: {message}") from error
        self.address, self.port = self.socket.getsockname()[:2]
        """Where it listens, as the system has it."""

    @property
    def url(self) -> str:
        """Where it listens, for people."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}"

    def close(self) -> None:
        """Stop listening."""
        self.socket.close()
