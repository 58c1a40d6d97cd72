"""systemd's part where a socket unit belongs to the service: it listens, and passes the sockets."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from tests.acceptance.daemon import Daemon

ACTIVATE = """
import fcntl, os, sys
found = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in sys.argv[1].split(",")]
for number, descriptor in enumerate(found):
    os.dup2(descriptor, 3 + number, inheritable=True)
    os.close(descriptor)
names = ":".join(["orchestratord.socket"] * len(found))
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(found)), LISTEN_FDNAMES=names)
os.execv(sys.argv[2], sys.argv[2:])
"""


@contextmanager
def passing(daemon: Daemon, sockets: Sequence[socket.socket]) -> Iterator[None]:
    """Pass these sockets to each process of the daemon that is started meanwhile."""
    with ExitStack() as stack:
        for sock in sockets:
            stack.enter_context(sock)
        daemon.passed = [sock.fileno() for sock in sockets]
        numbers = ",".join(map(str, daemon.passed))
        daemon.wrapper = [sys.executable, "-c", ACTIVATE, numbers]
        yield


def unix_socket(path: object) -> socket.socket:
    """A listening one at a path."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen(4096)
    return sock


def tcp_socket() -> socket.socket:
    """A listening one of this machine."""
    sock = socket.socket(socket.AF_INET)
    sock.bind(("127.0.0.1", 0))
    sock.listen(4096)
    return sock
