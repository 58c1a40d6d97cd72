"""A receiver that does what it is told, in threads of its own, and writes down what reached it."""

from __future__ import annotations

import contextlib
import gzip
import random
import re
import select
import socket
import ssl
import struct
import threading
import time
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

import h11

ID = re.compile(rb"id-[0-9a-f]{8}")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SIZES = (0, 1, 2, 100, 1024, 65_535, 65_536, 65_537)
RESET = struct.pack("ii", 1, 0)
NO_ANSWERS = (
    b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
    b"\x15\x03\x01\x00\x02\x02\x16",
    b"<html>hello</html>\r\n\r\n",
    b"HTTP/1.1 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
)


class Said(NamedTuple):
    """What a client has to make of an answer."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    content: bytes


@dataclass
class Plan:
    """What is done about one request.

    `reads`: how many bytes of it are read before the answer begins, None for all. `sends`: of the
    answer, None for all. `end`: keep, close, reset, half (closed for writing; what still comes is
    written down), hold. `said`: what a client has to make of it; None for an error. `clean`:
    whether the connection can carry another request. `rest`: what is sent unasked, after `pause`.
    """

    wire: bytes = b""
    reads: int | None = None
    sends: int | None = None
    cuts: tuple[int, ...] = ()
    pause: float = 0.0
    end: str = "keep"
    said: Said | None = None
    clean: bool = True
    rest: bytes = b""
    slow: bool = False
    until_close: bool = False
    name: str = ""


IGNORED = Plan(end="close", clean=False, name="ignored")
"""For what comes on a connection that the receiver has done with."""


BUSY = Said(503, ((b"Content-Length", b"4"),), b"busy")
"""What is said at once where a receiver is rude."""


@dataclass
class Arrival:
    """A request as it came, at its place on its connection. `whole` is False where it broke off."""

    id: str
    connection: int
    place: int
    plan: Plan
    raw: bytes = b""
    whole: bool = False


def answer(chance: random.Random, method: str) -> tuple[bytes, Said, bool, bool]:
    """An answer as it goes over the wire, what it says, whether the connection can go on, and
    whether it ends with it."""
    if chance.random() < 0.5:  # the same ones again and again, of the same length
        body = chance.choice((b"ok", b"no", b"hm"))
        status = chance.choice((200, 200, 200, 201, 503))
        wire = b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\n" % status
        said = Said(status, ((b"Content-Length", b"2"),), b"" if method == "HEAD" else body)
        return wire + (b"" if method == "HEAD" else body), said, True, False
    status = chance.choice((200, 200, 201, 204, 304, 400, 404, 410, 413, 429, 500, 502, 503))
    bare = method == "HEAD" or status in (204, 304)
    fields = [(b"X-%d" % chance.randrange(3), b"v%d" % n) for n in range(chance.randrange(5))]
    if chance.random() < 0.05:
        fields.append((b"X-Large", b"y" * chance.randrange(3000, 60_000)))
    content = b"" if bare else chance.randbytes(chance.choice(_SIZES))
    sent, coding = content, chance.choice((None, None, b"gzip", b"deflate"))
    if coding is not None:
        fields.append((b"Content-Encoding", coding))
        if not bare:
            sent = gzip.compress(content) if coding == b"gzip" else zlib.compress(content)
    framing = "none" if status == 204 else chance.choice(("length", "length", "chunked", "close"))
    version, clean = b"1.1", True
    if framing == "length":
        fields.append((b"Content-Length", b"%d" % (len(sent) if not bare else 5)))
        body = sent
    elif framing == "chunked":
        fields.append((b"Transfer-Encoding", b"chunked"))
        body = _chunked(chance, sent)
    else:
        body = sent
        if framing == "close" and status != 304:
            clean = False
            version = chance.choice((b"1.1", b"1.0"))
    if clean and chance.random() < 0.1:
        fields.append((b"Connection", chance.choice((b"close", b"Keep-Alive, Close"))))
        clean = False
    chance.shuffle(fields)
    head = b"HTTP/%b %d Some Words\r\n" % (version, status)
    head += b"".join(b"%b: %b\r\n" % pair for pair in fields) + b"\r\n"
    for _ in range(chance.choice((0, 0, 0, 1, 2))):
        head = (
            chance.choice((b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 X\r\nA: b\r\n\r\n"))
            + head
        )
    wire = head + (b"" if bare else body)
    said = Said(status, tuple(fields), content)
    _checked(method, wire, said, framing == "close" and not bare)
    return wire, said, clean, framing == "close" and not bare


def _chunked(chance: random.Random, body: bytes) -> bytes:
    pieces, rest = [], body
    while rest:
        size = chance.choice((1, 7, 1000, 70_000)) if len(pieces) < 20 else len(rest)
        piece, rest = rest[:size], rest[size:]
        pieces.append(b"%x%b\r\n%b\r\n" % (len(piece), chance.choice((b"", b";a=b")), piece))
    trailers = chance.choice((b"", b"", b"X-Trailer: 1\r\nX-More: 2\r\n"))
    return b"".join(pieces) + b"0\r\n" + trailers + b"\r\n"


def _checked(method: str, wire: bytes, said: Said, until_close: bool) -> None:
    """h11 reads the same from it."""
    peer = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    peer.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    peer.send(h11.EndOfMessage())
    peer.receive_data(wire)
    if until_close:
        peer.receive_data(b"")
    got: list[object] = []
    while not got or not isinstance(got[-1], h11.EndOfMessage):
        got.append(peer.next_event())
    [head] = [event for event in got if isinstance(event, h11.Response)]
    body = b"".join(bytes(event.data) for event in got if isinstance(event, h11.Data))
    codings = [value for name, value in said.headers if name == b"Content-Encoding"]
    if codings and body:
        body = zlib.decompress(body, 47)
    assert (head.status_code, tuple(head.headers.raw_items()), body) == said


@dataclass
class Receiver:
    """Listens at `port`; at `slow_port` with little room for what is not read; and at `rude_port`,
    where it hangs up, or speaks, at once."""

    host: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None
    plans: dict[str, list[Plan]] = field(default_factory=dict)
    arrivals: dict[str, list[Arrival]] = field(default_factory=lambda: defaultdict(list))
    wrong: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._connections = 0
        self._threads: set[threading.Thread] = set()
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listening = [self._listen(family, room) for room in (None, 4096, None)]
        ports = [one.getsockname()[1] for one in self._listening]
        self.port, self.slow_port, self.rude_port = ports

    def _listen(self, family: socket.AddressFamily, room: int | None) -> socket.socket:
        listening = socket.socket(family)
        if room is not None:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        listening.bind((self.host, 0))
        listening.listen(512)
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()
        return listening

    def close(self) -> None:
        """Hang up on all, and wait for the threads."""
        for listening in self._listening:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()
        for thread in list(self._threads):
            thread.join(10)

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.add(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with self._lock:
            self._connections += 1
            number = self._connections
        try:
            with contextlib.suppress(OSError):
                sock.settimeout(300)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                rude = sock.getsockname()[1] == self.rude_port
                if rude and number % 3 == 0:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    return
                if self.tls is not None:
                    sock = self.tls.wrap_socket(sock, server_side=True)
                _Conversation(self, sock, number, rude).run()
        finally:
            sock.close()
            self._threads.discard(threading.current_thread())

    def take(self, request_id: str, connection: int, place: int, done: bool) -> Arrival:
        """Note that a request begins to arrive."""
        with self._lock:
            waiting = self.plans.get(request_id)
            if done or waiting is None:
                plan = IGNORED
            else:
                plan = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            arrival = Arrival(request_id, connection, place, plan)
            self.arrivals[request_id].append(arrival)
            self.counted[plan.name] += 1
            return arrival


class _Conversation:
    """One connection."""

    def __init__(self, receiver: Receiver, sock: socket.socket, number: int, rude: bool) -> None:
        self._receiver = receiver
        self._sock = sock
        self._number = number
        self._got = b""
        self._done = rude
        """Whatever comes now is not answered."""

    def run(self) -> None:
        if self._done:
            self._sock.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy")
            self._sock.shutdown(socket.SHUT_WR)
        place = 0
        while self._read_until_head():
            found = ID.search(self._got)
            if found is None:
                self._receiver.wrong.append(f"a request without an id: {self._got[:200]!r}")
                return
            arrival = self._receiver.take(found[0].decode(), self._number, place, self._done)
            try:
                going_on = self._act(arrival)
            finally:
                arrival.raw = self._got[: self._length()]
                arrival.whole = len(self._got) >= self._length()
            if not going_on:
                return
            self._got = self._got[self._length() :]
            place += 1

    def _length(self) -> int:
        head = self._got.partition(b"\r\n\r\n")[0]
        length = _LENGTH.search(head)
        return len(head) + 4 + (int(length[1]) if length else 0)

    def _more(self, slow: bool = False) -> bool:
        data = self._sock.recv(2048 if slow else 65_536)
        self._got += data
        if slow:
            time.sleep(0.0005)
        return bool(data)

    def _read_until_head(self) -> bool:
        while b"\r\n\r\n" not in self._got:
            if not self._more():
                return False
        return True

    def _act(self, arrival: Arrival) -> bool:
        plan, length = arrival.plan, self._length()
        while len(self._got) < (length if plan.reads is None else min(plan.reads, length)):
            if not self._more(plan.slow):
                return False
        if plan is IGNORED:
            return True
        wire = plan.wire if plan.sends is None else plan.wire[: plan.sends]
        begin = 0
        for cut in (*plan.cuts, len(wire)):
            self._sock.sendall(wire[begin:cut])
            begin = cut
            if plan.cuts and plan.pause:
                time.sleep(plan.pause)
        if plan.end == "reset":
            time.sleep(plan.pause)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            return False
        if plan.end == "close":
            time.sleep(plan.pause)
            return False
        if plan.end == "hold":
            while self._more():
                pass
            return False
        if plan.rest or plan.end == "half":
            time.sleep(plan.pause)
            if plan.rest:
                self._sock.sendall(plan.rest)
            else:
                self._sock.shutdown(socket.SHUT_WR)
            self._done = True
        while len(self._got) < length:  # what was answered early is read to its end
            if not self._more(plan.slow):
                return False
        if not plan.clean and not self._done and self._hears_more(length):
            self._receiver.wrong.append(f"used again after {plan.name}: {plan.wire[:200]!r}")
        return True

    def _hears_more(self, length: int) -> bool:
        """Whether a further request comes, where none may."""
        while len(self._got) <= length:
            if not select.select([self._sock], [], [], 0.3)[0]:
                return False
            if not self._more():
                return False
        return True
