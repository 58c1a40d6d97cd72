"""A receiver that counts what is open: a request whose sender has closed its connection is over."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from queue import SimpleQueue

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@dataclass
class OpenRequests:
    """What has come, and how much of it was open at once. Its thread alone writes."""

    delay: float
    """Seconds until a request is answered."""
    port: int = 0
    arrivals: list[float] = field(default_factory=list)
    """When each has come (`time.monotonic`)."""
    counts: list[tuple[float, int, int]] = field(default_factory=list)
    """At each arrival: when it was, how many are open, and how many would be with those that their
    senders have given up."""

    def most_open(self) -> int:
        """The most at once of which no sender has given up."""
        return max((open_ for _, open_, _ in self.counts), default=0)

    def most_counted(self) -> int:
        """The same with those that were given up, until they would have been answered."""
        return max((counted for _, _, counted in self.counts), default=0)

    def most_within(self, seconds: float) -> int:
        """The most arrivals within so many seconds."""
        most = first = 0
        for last, at in enumerate(self.arrivals):
            while self.arrivals[first] <= at - seconds:
                first += 1
            most = max(most, last - first + 1)
        return most

    def _serve(self, listener: socket.socket, ended: SimpleQueue[None]) -> None:
        poll, sockets = select.poll(), {listener.fileno(): listener}
        poll.register(listener, select.POLLIN)
        due: dict[int, float] = {}
        """When the request of each connection is to be answered."""
        given_up: list[float] = []
        while ended.empty():
            wait = min(due.values(), default=time.monotonic() + 0.1) - time.monotonic()
            # All that is known now is looked at before one of it is counted: a sender that has
            # closed a connection may have opened the next one already.
            found = poll.poll(max(min(wait, 0.1), 0) * 1000)
            now, came = time.monotonic(), 0
            for descriptor in [one for one, at in due.items() if at <= now]:
                del due[descriptor]
                _answer(sockets[descriptor])
            for descriptor, _ in found:
                if descriptor == listener.fileno():
                    accepted, _ = listener.accept()
                    accepted.setblocking(False)
                    sockets[accepted.fileno()] = accepted
                    poll.register(accepted, select.POLLIN)
                elif _received(sockets[descriptor]):
                    due[descriptor] = now + self.delay
                    came += 1
                else:
                    poll.unregister(descriptor)
                    sockets.pop(descriptor).close()
                    if (at := due.pop(descriptor, None)) is not None:
                        given_up.append(at)
            given_up = [at for at in given_up if at > now]
            if came:
                self.arrivals += [now] * came
                is_open = sum(not _is_closed(sockets[one]) for one in due)
                self.counts.append((now, is_open, len(due) + len(given_up)))
        for one in sockets.values():
            one.close()


def _received(connection: socket.socket) -> bool:
    """Whether a request has come; a small one comes at once."""
    try:
        return bool(connection.recv(65_536))
    except OSError:
        return False


def _answer(connection: socket.socket) -> None:
    with suppress(OSError):  # where the sender is gone, the next look finds it
        connection.send(ANSWER)


def _is_closed(connection: socket.socket) -> bool:
    """Whether the sender has closed it, by what the kernel knows now."""
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@contextmanager
def open_requests(delay: float) -> Iterator[OpenRequests]:
    """Serve on 127.0.0.1, on a port of its own."""
    ended: SimpleQueue[None] = SimpleQueue()
    with closing(socket.create_server(("127.0.0.1", 0), backlog=1024)) as listener:
        seen = OpenRequests(delay, listener.getsockname()[1])
        thread = threading.Thread(target=seen._serve, args=(listener, ended), daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            ended.put(None)
            thread.join(10)
