"""One HTTP connection: uvicorn's, with bounds on what a peer may send and how long it may take."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import socket
import struct
import sys
import termios
from typing import Any, NamedTuple

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from orchestratord.api.server.guard import CAREFUL, OPEN
from orchestratord.api.server.problem_json import MEDIA_TYPE, Refusal, no_memory
from orchestratord.api.server.seat import Seat

log = logging.getLogger("orchestratord.control")

MAX_HEAD = 64 << 10
"""Bytes of a request's line and headers together."""
HEAD_WITHIN = 10.0
"""Seconds from a request's first byte (or the connection's opening) to the end of its headers."""
SILENCE = 10.0
"""Seconds between two pieces of a body."""
BODY_WITHIN = 60.0
"""Seconds for a whole request."""
READ_WITHIN = 120.0
"""Seconds for which a peer may leave its answer unread; it may be a person at a pager."""
SPARED = 1.0
"""Seconds for which a connection that waits for a request is kept, however few places there are."""

_OPEN = frozenset(path.encode() for path in OPEN)
_CAREFUL = "".join(f"{name}: {value}\r\n" for name, value in CAREFUL.items())


class Peer(NamedTuple):
    """The process at the other end of a unix socket, as the kernel names it."""

    pid: int
    uid: int
    gid: int


def peer_of(sock: Any) -> Peer | None:
    """Who connected; None for anything but a unix socket."""
    if sock is None or sock.family != socket.AF_UNIX:
        return None
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return Peer(*struct.unpack("3i", raw))


class ServedConnection(HttpToolsProtocol):
    """Refuses heads that are too large, and hangs up on peers that neither send nor read.

    The server calls `sweep` about once a second. The peer stands in the request's state as
    `peer`, the connection's place as `seat`.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        now = self.loop.time()
        self._began = now
        """When the request that is being read began, or was first waited for."""
        self._received = 0
        """Bytes of it."""
        self._heard = now
        self._head: int | None = None
        """Bytes of the head so far; None between two requests."""
        self._in_body = False
        self._unread_since: float | None = None
        self.seat = Seat()

    # -- what the peer sends ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = peer_of(transport.get_extra_info("socket"))
        self.seat.known = peer is not None
        self.app_state = {**self.app_state, "peer": peer, "seat": self.seat}

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # Methods that it holds of itself are a cycle of asyncio's, from 3.12 on two.
        self.transport._read_ready_cb = None  # type: ignore[attr-defined]
        self.transport._write_ready = None  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        self._received += len(data)
        if self.transport.is_closing():
            return
        is_new = self._head is None and not self._in_body
        if self._head is not None:
            self._head += len(data)
        super().data_received(data)
        if is_new and self._head is not None:
            self._head = len(data)
        if self._head is not None and self._head > MAX_HEAD:
            self._refuse(_head_too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._began = self.loop.time()
        self._head = 0

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        self._head = None
        if self.transport.is_closing():
            return
        if size > MAX_HEAD:
            self._refuse(_head_too_large())
            return
        if self.seat.for_probes and self.url.partition(b"?")[0] not in _OPEN:
            self._refuse(_busy())
            return
        self._in_body = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        self._began = self._heard
        if not self.transport.is_closing():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        self._began = self._heard = self.loop.time()
        self._received = 0
        self.seat.waits = False
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP is answered like any other bad request."""
        error = sys.exception()
        if error is not None and isinstance(error.__context__, MemoryError):
            self._refuse(no_memory())
        else:
            self._refuse(Refusal("bad_request", "this is not a request in HTTP/1.1"))

    def _unsupported_upgrade_warning(self) -> None:
        """No other protocol is spoken here; the request is answered as it stands."""

    # -- what the peer reads ---------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_since = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread_since = None

    # -- how long a peer may take ------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Hang up where the peer has been waited for too long. `now`: the loop's time."""
        if self.transport.is_closing() and self._unread_since is None:
            # Closed with something still unsent: the transport waits until it has been read.
            self._unread_since = now
        if self._unread_since is not None and now - self._unread_since > READ_WITHIN:
            self.transport.abort()
        elif not self.transport.is_closing() and self._is_waited_for() and self._is_late(now):
            self._refuse(Refusal("timeout", "the request did not arrive in time"))

    # -- where there is no room for another one ------------------------------------------------

    def worth(self, now: float) -> tuple[bool, float]:
        """What it is kept by: a client that is known before all others, then by how fast what it
        asks for comes, in bytes a second. `now`: the loop's time."""
        return self.seat.known, (self._received + 1) / max(now - self._began, 1e-6)

    def can_be_shed(self, now: float, spared: float = SPARED) -> bool:
        """Whether no request of a client that is known is lost by hanging up, and it had `spared`
        seconds to send one. `now`: the loop's time."""
        if not self._is_waited_for() or now - self._began < spared:
            return False
        if self.seat.known:
            begun = self._in_body or (self._head is not None and not self.seat.for_probes)
            if begun or self.transport.get_write_buffer_size():
                return False  # it asks, or still reads its answer
        return not _has_unread(self.transport)

    def shed(self) -> None:
        """Hang up, for another one's sake."""
        if self._head is not None or self._in_body:
            self._refuse(_busy())
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _is_waited_for(self) -> bool:
        """Whether it is the peer's turn, and not the daemon's."""
        if self.pipeline:
            return False
        return self._in_body or not self._is_answering()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _is_late(self, now: float) -> bool:
        if self._in_body:
            return now - self._heard > SILENCE or now - self._began > BODY_WITHIN
        return now - self._began > HEAD_WITHIN

    def _refuse(self, refusal: Refusal) -> None:
        """Answer, if there is a request to answer, and hang up."""
        if self.transport.is_closing():
            return
        self.seat.refused = refusal.code
        answering = self._is_answering()
        begun = self._in_body or self._head is not None or refusal.status != 408
        # An answer that is under way, to this request or to the one before it, cannot be undone.
        if begun and (not answering or (self._in_body and not self.cycle.response_started)):
            document = refusal.document()
            body = json.dumps(document).encode()
            own = "".join(f"{name}: {value}\r\n" for name, value in refusal.headers.items())
            head = (
                f"HTTP/1.1 {refusal.status} {document['title']}\r\ncontent-type: {MEDIA_TYPE}\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n{own}{_CAREFUL}\r\n"
            )
            self.transport.write(head.encode() + body)
        if answering:
            # What the handler says from here on has no reader.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


def _has_unread(transport: asyncio.Transport) -> bool:
    """Whether the peer has sent what was not read yet: the loop may have been at something else."""
    number = transport.get_extra_info("socket").fileno()
    return any(fcntl.ioctl(number, termios.FIONREAD, bytes(4)))


def _busy() -> Refusal:
    detail = "there are too many connections; try again in a moment"
    return Refusal("busy", detail, headers={"Retry-After": "1"})


def _head_too_large() -> Refusal:
    return Refusal("head_too_large", f"line and headers are larger than {MAX_HEAD >> 10} KiB")
