"""A daemon by script: a real HTTP server on a real unix socket, which answers what a test says."""

from __future__ import annotations

import json
import socketserver
import sys
import threading
import time
from email.message import Message
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import httpx

from tests.described_api import check_request

CALLS = "/v1/endpoints/a/b/calls"
NOWHERE = "/v1/x"
"""What tests of the client itself ask for."""
Reply = tuple[int, Any]
# Instead of a reply: the connection is closed without one.
DROP = "drop"


class Request(NamedTuple):
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_: Any) -> None:
        """The client's address is an empty string here, which the default does not expect."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(
            self.command,
            url.path,
            dict(parse_qsl(url.query)),
            {name.lower(): value for name, value in self.headers.items()},
            json.loads(content) if content else None,
        )
        reply = self.server.daemon.reply(request)
        if reply == DROP:
            self.close_connection = True
            return
        status, document = reply
        if status < 400 and request.path != NOWHERE:  # what is refused may be anything
            self.server.daemon.hold_against_description(
                self.command, self.path, self.headers, content
            )
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        kind = "application/json" if status < 400 else "application/problem+json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    request_queue_size = 64
    daemon: Daemon

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone away is part of the play."""


class Daemon:
    """What the scripted daemon answers, and what it was asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[Request] = []
        self.undescribed: list[str] = []
        """What is wrong with them by the description of the API."""
        self._scripts: dict[tuple[str, str], list[Any]] = {}
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def on(self, method: str, path: str, *replies: Any) -> None:
        """Answers in this order, the last one from then on.

        A reply is (status, document), DROP, or a function of the request that gives one.
        """
        self._scripts[method, path] = list(replies)

    def reply(self, request: Request) -> Any:
        with self._lock:
            self.requests.append(request)
            script = self._scripts.get((request.method, request.path))
            if not script:
                return 404, {"title": "Not Found", "status": 404, "detail": "no such thing"}
            reply = script.pop(0) if len(script) > 1 else script[0]
        return reply(request) if callable(reply) else reply

    def hold_against_description(
        self, method: str, target: str, headers: Message, content: bytes
    ) -> None:
        url = f"http://localhost{target}"
        try:
            check_request(httpx.Request(method, url, headers=headers.items(), content=content))
        except AssertionError as error:
            self.undescribed.append(str(error))

    def asked(self, method: str, path: str) -> list[Request]:
        return [r for r in self.requests if (r.method, r.path) == (method, path)]

    def start(self) -> None:
        self._server = _Server(str(self.path), _Handler)
        self._server.daemon = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self._thread.start()

    def leave(self, request: Request) -> str:
        """A reply: nothing listens any more as it hangs up."""
        server = self._server
        assert server is not None
        threading.Thread(target=self.stop).start()
        while server.fileno() >= 0:
            time.sleep(0.001)
        return DROP

    def stop(self) -> None:
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server = None
        self.path.unlink()


def command(daemon: Daemon, *arguments: str) -> list[str]:
    """The command line of a process that speaks to the scripted daemon."""
    return [sys.executable, "-m", "orchestratorctl", "--socket", str(daemon.path), *arguments]


def at(seconds: float) -> str:
    """A time so many seconds from now, as the API writes it."""
    moment = time.time() + seconds
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
    return f"{whole}.{int(moment % 1 * 1000):03d}Z"


def a_task(task_id: int, **changes: Any) -> dict[str, Any]:
    """A task as the API shows it."""
    return {
        "id": task_id,
        "kind": "call",
        "endpoint": "salesforce/getUsers",
        "webhook": None,
        "phase": None,
        "status": "pending",
        "reason": None,
        "attempts": 1,
        "max_attempts": 15,
        "deaths": 0,
        "next_try": at(9000),
        "params": {"id": "007"},
        "parent_id": None,
        "last_status_code": 503,
        "last_error": None,
        "created_at": at(-7300),
        "updated_at": at(-10),
        "finished_at": None,
        **changes,
    }


def a_problem(status: int, detail: str, **members: Any) -> Reply:
    return status, {"type": "about:blank", "title": "T", "status": status, "detail": detail} | (
        members
    )
