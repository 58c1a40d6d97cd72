"""The other side of the demo: the API that is called, and the receiver of its webhooks.

Both are one HTTP server on the loopback. What the API answers is planned: a path's answers one
after the other, and the last one for good.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOLERANCE = 300
"""Seconds that a signature's timestamp may be off."""


@dataclass(frozen=True, slots=True)
class PlannedAnswer:
    """One answer of the API. `stall` is how many seconds it takes to come."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    stall: float = 0.0


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request as it arrived at the API."""

    method: str
    path: str
    key: str | None
    """Its Idempotency-Key."""
    status: int
    """What it was answered."""


@dataclass(frozen=True, slots=True)
class ReceivedDelivery:
    """A webhook as it arrived."""

    path: str
    id: str
    verified: bool
    body: str
    status: int
    """What it was answered."""


class DemoReceiver(ThreadingHTTPServer):
    """Serves until `close`. `requests` and `deliveries` hold what arrived, in order."""

    daemon_threads = True

    def __init__(
        self,
        answers: Mapping[tuple[str, str], Sequence[PlannedAnswer]],
        secrets: Mapping[str, str],
    ) -> None:
        """
        Args:
            answers: (method, path) → its answers; a webhook's path may have some too.
            secrets: the path of a webhook → its secret, `whsec_` and base64.
        """
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = int(self.server_address[1])
        self.requests: list[ReceivedRequest] = []
        self.deliveries: list[ReceivedDelivery] = []
        self.moody = False
        """If true, what would succeed fails now and then, once the plan is over."""
        self._answers = {place: list(planned) for place, planned in answers.items()}
        self._secrets = secrets
        self._chance = random.Random(11)  # noqa: S311  # chance, not a secret
        self._orders: dict[str, int] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def orders(self) -> int:
        """How many orders were created."""
        return len(self._orders)

    def close(self) -> None:
        """Stop serving."""
        self.shutdown()
        self.server_close()
        self._thread.join()

    def answer(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> PlannedAnswer:
        """Decide what a request is answered, and remember it."""
        path = target.partition("?")[0]
        with self._lock:
            planned = self._answers.get((method, path), [])
            if planned:
                answer = planned.pop(0) if len(planned) > 1 else planned[0]
            elif self.moody and self._chance.random() < 0.4:
                answer = PlannedAnswer(503, {"error": "try again later"})
            elif path.startswith("/hooks/"):
                answer = PlannedAnswer(204)
            else:
                answer = PlannedAnswer(200, {"path": path, "ok": True})
            if path.startswith("/hooks/"):
                self.deliveries.append(
                    ReceivedDelivery(
                        path,
                        headers.get("webhook-id", ""),
                        verify(self._secrets.get(path, ""), headers, body),
                        body.decode(errors="replace"),
                        answer.status,
                    )
                )
            else:
                key = headers.get("idempotency-key")
                if method == "POST":
                    answer = self._order(key or str(time.monotonic_ns()), answer)
                self.requests.append(ReceivedRequest(method, target, key, answer.status))
        return answer

    def _order(self, key: str, answer: PlannedAnswer) -> PlannedAnswer:
        """An order is created once for each key, also where its answer comes too late."""
        known = key in self._orders
        number = self._orders.setdefault(key, 5001 + len(self._orders))
        body = {"order": number, "existed": known}
        return PlannedAnswer(200 if known else answer.status, body, answer.headers, answer.stall)


def verify(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether one of the signatures fits, as Standard Webhooks has it.

    Args:
        secret: base64, `whsec_` optional.
        headers: with lower-case names.
        body: as it arrived.
    """
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        if abs(time.time() - int(headers["webhook-timestamp"])) > TOLERANCE:
            return False
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        given = headers["webhook-signature"].split(" ")
    except (KeyError, ValueError):
        return False
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    expected = "v1," + base64.b64encode(digest).decode()
    return any(hmac.compare_digest(expected.encode(), one.encode()) for one in given)


class _Handler(BaseHTTPRequestHandler):
    server: DemoReceiver
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.answer(self.command, self.path, headers, body)
        if answer.stall:
            time.sleep(answer.stall)
        content = b"" if answer.body is None else json.dumps(answer.body).encode()
        try:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if content:
                self.send_header("content-type", "application/json")
            if answer.status != 204:
                self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # the daemon did not wait for it

    do_GET = do_POST = _serve  # noqa: N815  # the base class asks for these names

    def log_message(self, *args: Any) -> None:
        """Nothing: what arrived is shown elsewhere."""
