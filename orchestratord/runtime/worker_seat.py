"""The place of one worker process under the supervisor that has forked it.

Both ends speak in small JSON objects over a socket that keeps them apart (SOCK_SEQPACKET). The
supervisor's end is closed by the kernel when it dies: its workers end at once then.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import socket
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from orchestratord.config.folder import Files
from orchestratord.runtime.systemd import SystemdNotifier

log = logging.getLogger("orchestratord.supervisor")

FIRST = 1
"""The worker that serves the API, and does what is done once for all."""

LARGEST = 65_536
"""Bytes of a message."""

BEAT = 2.0
"""Seconds between two signs of life of a worker, at most."""

Message = Mapping[str, Any]


def send(sock: socket.socket, message: Message, *descriptors: int) -> bool:
    """Send a message, with descriptors for the other process; False where it cannot take it."""
    try:
        socket.send_fds(sock, [json.dumps(message).encode()], descriptors)
    except OSError as error:
        log.debug("cannot notify: %s: %s", message, error)
        return False
    return True


def receive(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message and its descriptors; None where the other process has gone.

    Raises BlockingIOError where there is none yet.
    """
    try:
        data, descriptors, _, _ = socket.recv_fds(sock, LARGEST, 1)
    except ConnectionError:
        # It left something unread, of which is told once, before what it had said itself.
        try:
            data, descriptors, _, _ = socket.recv_fds(sock, LARGEST, 1)
        except ConnectionError:
            return None
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return (json.loads(data), descriptors) if data else None


class InForce(NamedTuple):
    """A configuration, as the workers hand it on."""

    generation: int
    adopted_at: int
    """Milliseconds since the epoch."""
    files: Files


class WorkerSeat:
    """The worker's end."""

    def __init__(
        self,
        number: int,
        count: int,
        sock: socket.socket,
        adopted: int | None = None,
        beat: float = BEAT,
    ) -> None:
        """
        Args:
            number: of this worker, from 1.
            count: of all workers.
            sock: leads to the supervisor.
            adopted: a descriptor of the configuration in force, where it is another than at the
                start.
            beat: seconds between two signs of life.
        """
        self.beat = beat
        self.number = number
        self.count = count
        self._adopted = adopted
        self._sock = sock

    @property
    def first(self) -> bool:
        """Whether this is the worker that does what is done once for all."""
        return self.number == FIRST

    def listen(self, heard: Callable[[Message, list[int]], None], left: Callable[[], None]) -> None:
        """Have `heard` called with each message, on the running loop, and `left` once the
        supervisor is gone."""
        loop = asyncio.get_running_loop()
        self._sock.setblocking(False)

        def readable() -> None:
            try:
                found = receive(self._sock)
            except BlockingIOError:
                return
            if found is None:
                loop.remove_reader(self._sock)
                left()
            else:
                heard(*found)

        loop.add_reader(self._sock, readable)

    def notify(self, **message: Any) -> bool:
        """Notify the supervisor; False where it cannot take it."""
        return send(self._sock, message)

    def notify_adopted(self, in_force: InForce) -> None:
        """Have the next workers begin with this configuration."""
        # In memory: no secret is written to a disk.
        with os.fdopen(os.memfd_create("configuration"), "wb") as file:
            pickle.dump(in_force, file, protocol=5)
            file.flush()
            send(self._sock, {"adopted": in_force.generation}, file.fileno())

    def adopted(self) -> InForce | None:
        """The configuration in force, where it is another than at the start."""
        if self._adopted is None:
            return None
        # Others may read it at the same moment, and share the place at which a file is read.
        data, size = b"", os.fstat(self._adopted).st_size
        while len(data) < size:
            data += os.pread(self._adopted, size - len(data), len(data))
        found: InForce = pickle.loads(data)  # noqa: S301  # written by a worker of this run
        return found


class SeatNotifier(SystemdNotifier):
    """What a worker has to say to systemd, by way of the supervisor, who hears signs of life."""

    def __init__(self, seat: WorkerSeat) -> None:
        """`seat`: of the worker."""
        super().__init__(None, 2 * seat.beat)
        self._seat = seat

    @property
    def listening(self) -> bool:
        """As in the class above: there is always a supervisor."""
        return True

    def _send(self, *lines: str, wait: float = 0.0) -> None:
        if lines:
            self._seat.notify(notify="\n".join(lines))


def take_over(descriptor: int) -> socket.socket:
    """The stream socket that came along with a message."""
    sock = socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)
    sock.setblocking(False)
    return sock
