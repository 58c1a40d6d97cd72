"""One HTTP connection: uvicorn's, with bounds on what a peer may send and how long it may take."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import socket
import struct
import sys
import termios
from functools import lru_cache
from typing import Any, NamedTuple

import httptools
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from orchestratord.api.server.guard import OPEN, Headers, with_careful
from orchestratord.api.server.problem_json import Refusal, no_memory
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
KEEP_ALIVE = 5.0
"""Seconds for which a connection waits for another request."""
READ_WITHIN = 120.0
"""Seconds for which a peer may leave its answer unread; it may be a person at a pager."""
SPARED = 1.0
"""Seconds for which a connection that waits for a request is kept, however few places there are."""

_OPEN = frozenset(path.encode() for path in OPEN)


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


@lru_cache(maxsize=256)
def _head_of(status: int, headers: Headers) -> tuple[bytes, dict[bytes, bytes]]:
    """The lines of an answer's head, and its headers. Raises RuntimeError for what is no header."""
    lines = [STATUS_LINE[status]]
    for name, value in headers:
        if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
            raise RuntimeError(f"{name!r}: {value!r} cannot be a header")
        lines.append(b"%s: %s\r\n" % (name, value))
    return b"".join(lines), {name.lower(): value for name, value in headers}


class Exchange(RequestResponseCycle):
    """A request and its answer. Where the answer says how long it is, its head goes out with the
    first piece of the body: a write takes as long as parsing the request."""

    _head = b""
    """What of the answer is still to be written."""

    async def send(self, message: Any) -> None:
        """Send the head of the answer, or a piece of its body."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected or self.response_complete:
            return
        if not self.response_started:
            self._begin(message["status"], (*self.default_headers, *message["headers"]))
            return
        body, ends = message["body"], not message.get("more_body")
        if self.scope["method"] == "HEAD":
            body, self.expected_content_length = b"", 0
        elif self.chunked_encoding:
            body = (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n" * ends
        else:
            self.expected_content_length -= len(body)
        if self.expected_content_length < 0 or (ends and self.expected_content_length):
            raise RuntimeError("the body is not as long as the answer's head says")
        self.transport.write(self._head + body)
        self._head = b""
        if ends:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()

    def _begin(self, status: int, headers: Headers) -> None:
        self.response_started, self.waiting_for_100_continue = True, False
        self._head, said = _head_of(status, headers)
        if b"close" in said.get(b"connection", b"").lower():
            self.keep_alive = False
        elif not self.keep_alive:
            self._head += b"connection: close\r\n"
        self.expected_content_length = int(said.get(b"content-length", 0))
        if b"content-length" in said or self.scope["method"] == "HEAD" or status in (204, 304):
            self._head += b"\r\n"
            return
        self.chunked_encoding = True  # its reader may wait for the head
        self.transport.write(self._head + b"transfer-encoding: chunked\r\n\r\n")
        self._head = b""


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
        target = httptools.parse_url(self.url)
        path, version = target.path, self.parser.get_http_version()
        # As it was sent: what is encoded otherwise is another path, and `%2F` a part of a name.
        self.scope |= {
            "method": self.parser.get_method().decode("ascii"),
            "http_version": version,
            "path": path.decode("ascii"),
            "raw_path": path,
            "query_string": target.query or b"",
        }
        before = self.cycle
        self.cycle = Exchange(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start(self.cycle)
        else:  # it waits for the one before it
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _start(self, exchange: RequestResponseCycle) -> None:
        task = self.loop.create_task(exchange.run_asgi(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

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
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start(self.pipeline.pop()[0])

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
        kept = self.cycle is not None and self._head is None
        return now - self._began > (KEEP_ALIVE if kept else HEAD_WITHIN)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer, if there is a request to answer, and hang up."""
        if self.transport.is_closing():
            return
        self.seat.refused = refusal.code
        answering = self._is_answering()
        begun = self._in_body or self._head is not None or refusal.status != 408
        # An answer that is under way, to this request or to the one before it, cannot be undone.
        if begun and (not answering or (self._in_body and not self.cycle.response_started)):
            answer = refusal.response()
            headers = with_careful((*answer.raw_headers, (b"connection", b"close")))
            head, _ = _head_of(refusal.status, headers)
            self.transport.write(head + b"\r\n" + bytes(answer.body))
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
