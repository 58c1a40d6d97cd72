"""Events whose data a JSON Schema checks: one by one over many connections, and in batches.

Each is on disk when it is answered. The senders are a process of their own beside the daemon.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from bench.environment.daemon import BATCH, daemon
from bench.results.figures import Figure

CONNECTIONS = 32
PATH = "/v1/endpoints/bench/ordered/calls"
LINE = {
    "type": "object",
    "required": ["sku", "count"],
    "properties": {"sku": {"type": "string"}, "count": {"type": "integer", "minimum": 1}},
}
SCHEMA = {
    "type": "object",
    "required": ["id", "lines"],
    "properties": {
        "id": {"type": "integer"},
        "currency": {"enum": ["EUR", "USD"]},
        "email": {"type": "string", "pattern": "^[^@]+@[^@]+$"},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
    },
    "$defs": {"line": LINE},
    "additionalProperties": False,
}
SMALL = {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}
SCHEMAS = {"four keys and two lines": SCHEMA, "one key": SMALL}


def measure(home: Path, count: int) -> Iterator[Figure]:
    """Make `count` events for each schema and way."""
    for number, (what, schema) in enumerate(SCHEMAS.items()):
        with daemon(home / str(number), log={"level": "warning"}) as made:
            made.api("bench", "http://127.0.0.1/")
            made.write("schemas/order.json", json.dumps(schema))
            event = {"type": "event", "schema": {"file": "schemas/order.json"}}
            made.write("apis/bench/endpoints/ordered.yaml", event)
            made.start()
            made.call("bench/ordered", None, **_event(0))
            with ProcessPoolExecutor(1) as pool:
                for size in (1, BATCH):
                    ways = "one by one" if size == 1 else f"in batches of {BATCH:,}"
                    bodies = pool.submit(_send, str(made.socket), count, size)
                    what_ = f"events accepted {ways}, by a schema of {what}"
                    yield Figure(what_, count / bodies.result(), "/s")
            made.stop()


def _event(number: int) -> dict[str, object]:
    lines = [{"sku": "a-1", "count": 1}, {"sku": "b-2", "count": 12}]
    return {"id": number, "currency": "EUR", "email": "someone@shop.example", "lines": lines}


def _send(path: str, count: int, size: int) -> float:
    """Seconds for so many events, `size` in each request: one in each connection at a time."""
    requests = [_request(first, size) for first in range(0, count, size)]
    socks = [socket.socket(socket.AF_UNIX) for _ in range(CONNECTIONS if size == 1 else 1)]
    for sock in socks:
        sock.connect(path)
    began = time.monotonic()
    while requests:
        busy = [(sock, requests.pop()) for sock in socks[: len(requests)]]
        for sock, request in busy:
            sock.sendall(request)
        for sock, _ in busy:
            _answer(sock)
    took = time.monotonic() - began
    for sock in socks:
        sock.close()
    return took


def _request(first: int, size: int) -> bytes:
    events = [_event(first + number) for number in range(size)]
    body = json.dumps({"params": events[0]} if size == 1 else {"batch": events}).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _answer(sock: socket.socket) -> None:
    """Read a whole answer, head and body, which may come apart. Raises RuntimeError."""
    found = b""
    while b"\r\n\r\n" not in found:
        found += sock.recv(65536)
    head, _, body = found.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 202 "):
        raise RuntimeError(found[:500])
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += sock.recv(65536)
