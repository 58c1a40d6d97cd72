"""The API, spoken as HTTP over the control socket."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote, urlencode

from orchestratorctl.control_socket import unreachable
from orchestratorctl.failures import Failure, Lost, NoDaemon, Problem, TimedOut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CONNECT_TIMEOUT = 5.0
ANSWER_TIMEOUT = 30.0
# A restart may take as long as the old daemon drains and the new one starts.
PATIENCE = 120.0
AWAY_PAUSE = 0.5
# The daemon says something at least each quarter of a minute.
SILENCE = 45.0

Answer = namedtuple("Answer", ["status", "data"])


class _UnixConnection(http.client.HTTPConnection):
    """An HTTP connection whose other end is a path."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._answer_timeout = timeout

    def connect(self) -> None:
        deadline = time.monotonic() + CONNECT_TIMEOUT
        while True:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(CONNECT_TIMEOUT)
            try:
                self.sock.connect(self._path)
                break
            except BlockingIOError:
                # The daemon's backlog is full. A socket with a timeout is told so at once.
                self.sock.close()
                if time.monotonic() > deadline:
                    raise TimeoutError from None
                time.sleep(0.05)
        self.sock.settimeout(self._answer_timeout)


class Client:
    """Sends requests to the daemon at `path`, a connection each.

    Every method raises `NoDaemon` where nobody listens, `TimedOut` where no answer comes in time,
    `Lost` where the daemon goes away before it has answered, and `Problem` where it refuses.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def get(
        self,
        target: str,
        query: Mapping[str, object] | None = None,
        timeout: float = ANSWER_TIMEOUT,
    ) -> dict[str, Any]:
        """The object at `target`; of the query, what is None is left out."""
        given = {key: value for key, value in (query or {}).items() if value is not None}
        data: dict[str, Any] = self.request(
            "GET", f"{target}?{urlencode(given)}" if given else target, timeout=timeout
        ).data
        return data

    def post(self, target: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What the daemon answers to `body`, or to no body at all."""
        data: dict[str, Any] = self.request("POST", target, body).data
        return data

    def request(
        self,
        method: str,
        target: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = ANSWER_TIMEOUT,
    ) -> Answer:
        """One request; the answer's status and its object, an empty one where it has no body.

        Args:
            method: GET or POST.
            target: path and query, percent-encoded.
            body: sent as JSON.
            headers: added to the client's own.
            timeout: seconds that the daemon may be silent.
        """
        sent = {"Accept": "application/json", "Connection": "close", **(headers or {})}
        payload = None
        if body is not None:
            sent["Content-Type"] = "application/json"
            payload = json.dumps(body).encode()
        connection = _UnixConnection(self.path, timeout)
        try:
            self._connect(connection)
            connection.request(method, target, payload, sent)
            response = connection.getresponse()
            return self._read(response.status, response.reason, response.read())
        except TimeoutError:
            raise TimedOut(
                f"the daemon at {self.path} has not answered within {timeout:g} s",
                [] if method == "GET" else ["Whether it did what was asked is not known."],
            ) from None
        except (OSError, http.client.HTTPException):
            raise Lost(
                f"the daemon at {self.path} closed the connection before it had answered",
                [] if method == "GET" else ["Whether it did what was asked is not known."],
            ) from None
        finally:
            connection.close()

    def stream(
        self, target: str, query: Mapping[str, object], last: str | None = None
    ) -> Iterator[str]:
        """The lines of an answer that goes on, each as it comes, until the daemon ends it.

        Args:
            target, query: as for `get`.
            last: the id of the last event that was seen; what came after it is sent, too.
        """
        sent = {"Accept": "text/event-stream", "Connection": "close"}
        if last is not None:
            sent["Last-Event-ID"] = last
        connection = _UnixConnection(self.path, SILENCE)
        try:
            self._connect(connection)
            connection.request("GET", f"{target}?{urlencode(query)}", None, sent)
            response = connection.getresponse()
            if response.status != 200:
                self._read(response.status, response.reason, response.read())
            while line := response.readline():
                yield line.decode(errors="replace").rstrip("\r\n")
        except TimeoutError:
            raise Lost(
                f"nothing was heard of the daemon at {self.path} for {SILENCE:g} s"
            ) from None
        except (OSError, http.client.HTTPException):
            raise Lost(f"the daemon at {self.path} closed the connection") from None
        finally:
            connection.close()

    def _connect(self, connection: _UnixConnection) -> None:
        try:
            connection.connect()
        except TimeoutError:
            raise NoDaemon(
                f"the daemon at {self.path} takes no connection; it hangs or has too many"
            ) from None
        except OSError as error:
            raise unreachable(self.path, error) from None

    def _read(self, status: int, reason: str, content: bytes) -> Answer:
        data: Any
        try:
            data = json.loads(content) if content else {}
        except ValueError:
            data = None
        if 200 <= status < 300:
            if not isinstance(data, dict):
                raise Failure(f"what answers at {self.path} is no orchestratord")
            return Answer(status, data)
        fallback = f"the daemon answered {status} {reason}".rstrip()
        raise Problem(status, data if isinstance(data, dict) else {}, fallback)

    def get_patiently(
        self,
        target: str,
        query: Mapping[str, object] | None = None,
        *,
        timeout: float = ANSWER_TIMEOUT,
        deadline: float | None = None,
        away: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """`get`, going on while the daemon restarts.

        Args:
            target, query, timeout: as for `get`.
            deadline: when to give up, by the monotonic clock; None: after `PATIENCE`.
            away: called whenever the daemon was not there, before the next try.

        Raises:
            TimedOut: the deadline passed.
        """
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                return self.get(target, query, timeout)
            except (NoDaemon, Lost, Problem) as failure:
                if isinstance(failure, Problem) and failure.status != 503:
                    raise
                now = time.monotonic()
                if now >= give_up:
                    raise
                if deadline is not None and now >= deadline:
                    raise TimedOut(str(failure), failure.details) from None
                away()
                time.sleep(AWAY_PAUSE)


def endpoint_path(endpoint: str, *rest: str) -> str:
    """The path of an endpoint given as `API/NAME`, and of what lies below it."""
    return "/".join(
        [
            "/v1/endpoints",
            *(quote(part, safe="") for part in endpoint.split("/")),
            *(quote(part, safe="") for part in rest),
        ]
    )
