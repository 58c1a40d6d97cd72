"""A closed loop of requests: over each of many connections the next once the last is answered.

It runs in a process of its own, and says how much of a core it took: what it measures is the
server only as long as that is little.
"""

from __future__ import annotations

import select
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass

Address = str | tuple[str, int]
"""The path of a unix socket, or a host and a port."""
LIMIT = 60.0
"""Seconds without any answer after which it has come to a halt."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of the requests."""

    seconds: float
    """From the first request to the last answer."""
    took: list[float]
    """Seconds from a request to the end of its answer, for each."""
    bodies: list[bytes]
    """Of the answers."""
    core: float
    """The part of one core that the sender took."""
    again: int
    """How often a request was sent once more, over a new connection, as the server had hung up."""


class _Caller:
    """One connection, and the request that is under way on it."""

    def __init__(self, address: Address, request: bytes) -> None:
        self._address = address
        self._request = request
        self.asked = 0.0
        self.connect()

    def connect(self) -> None:
        self._found = b""
        local = isinstance(self._address, str)
        self.sock = socket.socket(socket.AF_UNIX if local else socket.AF_INET)
        self.sock.settimeout(LIMIT)
        self.sock.connect(self._address)

    def ask(self) -> None:
        """Send the next request."""
        self.asked = time.monotonic()
        self.send()

    def send(self) -> None:
        self.sock.sendall(self._request)

    def close(self) -> None:
        self.sock.close()

    def read(self) -> bytes | None:
        """The body of the answer, once all of it has come. Raises OSError where the server hangs
        up, or has no place (503), and RuntimeError for other answers than 202."""
        data = self.sock.recv(65536)
        if not data or data.startswith(b"HTTP/1.1 503 "):
            raise ConnectionResetError
        self._found += data
        head, end, body = self._found.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length: ")[2].split()[0]):
            return None
        if not head.startswith(b"HTTP/1.1 202 "):
            raise RuntimeError(self._found[:500])
        self._found = b""
        return body


def send(address: Address, request: bytes, count: int, connections: int) -> Sent:
    """Send a request `count` times, which is to be answered with 202."""
    with ExitStack() as stack, select.epoll() as poll:
        callers: dict[int, _Caller] = {}

        def watch(caller: _Caller) -> None:
            callers[caller.sock.fileno()] = caller
            poll.register(caller.sock, select.EPOLLIN)

        for _ in range(connections):
            caller = _Caller(address, request)
            stack.callback(caller.close)
            watch(caller)
        took: list[float] = []
        bodies: list[bytes] = []
        again, left = 0, count
        began, spent = time.monotonic(), time.process_time()
        for caller in callers.values():
            caller.ask()
            left -= 1
        while len(bodies) < count:
            if not (ready := poll.poll(LIMIT)):
                raise RuntimeError(f"it came to a halt after {len(bodies)} of {count} answers")
            for number, _ in ready:
                caller = callers[number]
                try:
                    if (body := caller.read()) is None:
                        continue
                    took.append(time.monotonic() - caller.asked)
                    bodies.append(body)
                    if left > 0:
                        left -= 1
                        caller.ask()
                    else:
                        caller.close()
                except OSError:
                    again += 1
                    caller.close()
                    caller.connect()
                    watch(caller)
                    caller.send()
        seconds = time.monotonic() - began
        return Sent(seconds, took, bodies, (time.process_time() - spent) / seconds, again)
