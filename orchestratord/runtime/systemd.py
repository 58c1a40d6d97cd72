"""Telling systemd how the daemon is: ready, reloading, stopping, a status line, and alive; and the
sockets at which it listens for the daemon.

The protocol of the first is one datagram of `NAME=value` lines to the socket that
`$NOTIFY_SOCKET` names. Outside of systemd the variable is missing, and nothing is sent.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from typing import NamedTuple

from orchestratord.errors import OrchestratordError

log = logging.getLogger("orchestratord.notify")

_SEND_TIMEOUT = 1.0
"""Seconds that a change of state may wait for a full socket; a status line never waits."""


class SystemdNotifier:
    """The service manager's socket, or none.

    Nothing here raises: a message that cannot be sent is logged, and the daemon goes on.
    """

    def __init__(self, address: str | None, watchdog: float | None = None) -> None:
        """
        Args:
            address: a path, `@name` for an abstract socket, or None where nothing listens.
            watchdog: seconds within which the service manager wants to hear `watchdog()`.
        """
        # The kernel begins the name of an abstract socket with a zero.
        self._address = "\0" + address[1:] if address and address[0] == "@" else address or None
        self.watchdog_timeout = watchdog
        """Seconds; None where no watchdog waits. Half of it is a good interval."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> SystemdNotifier:
        """What `$NOTIFY_SOCKET`, `$WATCHDOG_USEC` and `$WATCHDOG_PID` say."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls(None)
        return cls(address, _watchdog(environ))

    @property
    def listening(self) -> bool:
        """True where a service manager was named."""
        return self._address is not None

    def ready(self, status: str = "") -> None:
        """The daemon serves: after its start, and again after each reload."""
        self._send("READY=1", *_status(status), wait=_SEND_TIMEOUT)

    def reloading(self, status: str = "") -> None:
        """A reload begins; `ready` ends it, however it went."""
        # The service manager compares this with its own clock: an older READY does not count.
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", *_status(status), wait=_SEND_TIMEOUT)

    def draining(self, *, upgrades: bool) -> None:
        """The daemon drains, and will end or, where it `upgrades`, go on as the new version."""
        if upgrades:
            self.reloading("draining, to go on as the new version")
        else:
            self._send("STOPPING=1", *_status("draining"), wait=_SEND_TIMEOUT)

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(*_status(text))

    def watchdog(self) -> None:
        """The daemon is alive. Call it only where the parts that matter have answered."""
        self._send("WATCHDOG=1")

    def pass_on(self, lines: str) -> None:
        """What a worker process has to say, line by line."""
        self._send(*lines.split("\n"), wait=_SEND_TIMEOUT)

    def _send(self, *lines: str, wait: float = 0.0) -> None:
        if self._address is None or not lines:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(wait)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.warning("cannot send the service manager %s: %s", lines[0], error)


def _status(text: str) -> tuple[str, ...]:
    # A line break would begin another field.
    return (f"STATUS={' '.join(text.split())}",) if text.strip() else ()


def _watchdog(environ: Mapping[str, str]) -> float | None:
    microseconds, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if pid and pid != str(os.getpid()):
        return None
    if not (microseconds.isascii() and microseconds.isdigit() and int(microseconds) > 0):
        return None
    return int(microseconds) / 1_000_000


# -- The sockets of a socket unit ------------------------------------------------------------------

_FIRST = 3
"""The first descriptor that is passed."""
_REMEDY = "mend the socket unit (systemctl cat orchestratord.socket), or end it"


class PassedSockets(NamedTuple):
    """Descriptors of listening sockets that the service manager keeps, before and after this
    process."""

    control: int | None = None
    tcp: tuple[int, ...] = ()


def passed_sockets(environ: MutableMapping[str, str] = os.environ) -> PassedSockets:
    """The sockets that `$LISTEN_FDS` says were passed to this process; they are passed to no other.

    Which is which goes by its family, since a unit gives all of its sockets one name; those for TCP
    are told apart by where they listen.
    Raises OrchestratordError where one is none that the daemon listens at.
    """
    pid, count, names = (
        environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    )
    if pid != str(os.getpid()) or not (count.isascii() and count.isdecimal()):
        return PassedSockets()
    control: int | None = None
    tcp: list[int] = []
    for number, descriptor in enumerate(range(_FIRST, _FIRST + int(count))):
        name = (names.split(":")[number : number + 1] or [""])[0] or "without a name"
        if _kind(descriptor, name) == "tcp":
            tcp.append(descriptor)
        elif control is None:
            control = descriptor
        else:
            raise OrchestratordError(
                f"the service manager passes a second unix socket ({name}), and the daemon listens "
                f"at one: {_REMEDY}"
            )
    return PassedSockets(control, tuple(tcp))


def _kind(descriptor: int, name: str) -> str:
    """Which of the `PassedSockets` a descriptor is; no child inherits it. Raises as above."""
    try:
        os.set_inheritable(descriptor, False)
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            family, type_ = sock.family, sock.type
            listens = bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError as error:
        raise OrchestratordError(
            f"descriptor {descriptor} ({name}), which the service manager passes, is no socket "
            f"({error.strerror}): {_REMEDY}"
        ) from error
    kinds = {socket.AF_UNIX: "control", socket.AF_INET: "tcp", socket.AF_INET6: "tcp"}
    if type_ != socket.SOCK_STREAM or not listens or family not in kinds:
        raise OrchestratordError(
            f"the socket {name}, which the service manager passes, is none that listens for "
            f"connections: write it as ListenStream=, without Accept=yes"
        )
    return kinds[family]
