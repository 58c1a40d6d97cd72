"""The daemon's API, spoken as HTTP over its control socket: where that is, requests, events."""

from __future__ import annotations

import errno
import http.client
import json
import os
import socket
import stat
import time
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote, urlencode

from orchestratorctl.exit_codes import CommandError, Lost, NoDaemon, RequestRefused, TimedOut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VARIABLE = "ORCHESTRATORD_SOCKET"
SYSTEM_SOCKET = "/run/orchestratord/control.sock"
SESSIONS = "/run/user"
"""Where a user's session has its folder, also for programs that are not told of it, as in cron."""
LONGEST_PATH = 107
"""Bytes that the kernel takes as the path of a socket."""

CONNECT_TIMEOUT = 5.0
ANSWER_TIMEOUT = 30.0
HINT_TIMEOUT = 2.0
"""For what only helps a person, who waits no longer for it: a completion, a hint, the help."""
# A restart may take as long as the old daemon drains and the new one starts.
AWAY_TIMEOUT = 120.0
AWAY_PAUSE = 0.5
START_PAUSE = 0.05
# The daemon says something at least each quarter of a minute.
SILENCE = 45.0

PAGE = 1000
"""Rows that the daemon gives at once."""
StreamEvent = namedtuple("StreamEvent", ["type", "data"])
"""An event: its type, and the object that tells of it."""

_NAME_ANOTHER = f"Name another socket with --socket PATH or ${VARIABLE}."
_START = (
    "Start the daemon with `systemctl start orchestratord` or `orchestratord run`."
    " If it is starting, add --connect-timeout 30s."
)


def find_socket(option: str | None, environment: Mapping[str, str]) -> str:
    """The path of the control socket.

    Args:
        option: what `--socket` gave.
        environment: the environment's variables.

    Raises:
        NoDaemon: none was named, and none stands in the usual places.
    """
    named = option or environment.get(VARIABLE)
    if named:
        return named
    places = usual_places(environment)
    found: list[str] = []
    closed: list[str] = []
    for place in places:
        try:
            os.stat(place)
        except PermissionError:
            closed.append(place)
        except OSError:
            continue
        else:
            found.append(place)
    if len(found) + len(closed) > 1:
        # What a daemon that was killed has left behind does not hide the one that runs.
        found = [place for place in found if _listens(place)] or closed or found
    if found or closed:
        # Connecting to one that is closed tells whose permission is missing.
        return (found or closed)[0]
    looked = f"{', '.join(places[:-1])} or {places[-1]}"
    raise NoDaemon(f"no daemon: there is no socket at {looked}", [_START, _NAME_ANOTHER])


def usual_places(environment: Mapping[str, str]) -> list[str]:
    """Where a daemon listens whose `control_socket` is not set, the system's own first.

    Args:
        environment: this program's, which may have less than the daemon's, as in cron, or in
            another shell of the same container.
    """
    runtime = environment.get("RUNTIME_DIRECTORY", "").split(":")[0]
    session = environment.get("XDG_RUNTIME_DIR")
    home = environment.get("HOME") or os.path.expanduser("~")
    home = "/" if home == "~" else home  # a user of whom the system knows no home
    places = [
        os.path.join(runtime, "control.sock") if runtime else "",
        SYSTEM_SOCKET,
        os.path.join(session, "orchestratord/control.sock") if session else "",
        f"{SESSIONS}/{os.geteuid()}/orchestratord/control.sock",
        os.path.join(home, ".local/state/orchestratord/control.sock"),
    ]
    return list(dict.fromkeys(filter(None, places)))


def await_socket(option: str | None, environment: Mapping[str, str], seconds: float) -> str:
    """`find_socket`, once a daemon listens there, or `seconds` have passed.

    Args:
        option, environment: as for `find_socket`.
        seconds: to wait at most, for a daemon that may be about to start.

    Raises:
        NoDaemon: as `find_socket`.
    """
    end = time.monotonic() + seconds
    while True:
        late = time.monotonic() >= end
        try:
            path = find_socket(option, environment)
            if late or not _may_start(path):
                return path
        except NoDaemon:
            if late:
                raise
        time.sleep(START_PAUSE)


def _may_start(path: str) -> bool:
    """Whether nothing listens at a path, and a daemon could."""
    found = _probe(path)
    return found == errno.ENOENT or (found == errno.ECONNREFUSED and is_socket(path))


def _listens(path: str) -> bool:
    return _probe(path) in (0, errno.EAGAIN)  # the latter where its backlog is full


def _probe(path: str) -> int | None:
    """The errno of connecting to a path, 0 for none; None where no socket can have it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            return probe.connect_ex(path)
        except (OSError, ValueError):
            return None


def _unreachable(path: str, error: OSError) -> NoDaemon:
    """Why connecting to `path` failed, in words that say what to do."""
    if isinstance(error, PermissionError):
        return NoDaemon(f"permission denied at {path}", [who_may(path)])
    if error.errno == errno.ECONNREFUSED:
        if is_socket(path):
            why = "no daemon listens there; it has stopped or is about to start"
        else:
            why = "it is not a socket"
    elif error.errno in (errno.ENOENT, errno.ENOTDIR):
        why = "the socket does not exist"
    elif len(os.fsencode(path)) > LONGEST_PATH:
        # Python reports it without an errno.
        why = f"its path is too long: the kernel takes {LONGEST_PATH} bytes"
    else:
        why = (error.strerror or str(error)).lower()
    return NoDaemon(f"no daemon at {path}: {why}", [_START, _NAME_ANOTHER])


def is_socket(path: str | os.PathLike[str]) -> bool:
    """Whether a socket is there; False where this user cannot see it."""
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def who_may(path: str) -> str:
    """What to do about a socket that this user may not use."""
    group = _group_in_charge(path)
    if group is None:
        return "Run the command as the daemon's user or as root."
    return (
        f"The group {group} may use it. Join with `sudo usermod -aG {group} $USER` and log in "
        "again, or run the command as root."
    )


def _group_in_charge(path: str) -> str | None:
    """The group of the socket, or of the nearest folder above it that can be looked at.

    None for the group of root, which is no group to join for this.
    """
    import grp

    path = os.path.abspath(path)
    while True:
        try:
            group = os.stat(path).st_gid
            if group == 0:
                return None
            return grp.getgrgid(group).gr_name
        except KeyError:
            return str(group)
        except PermissionError:
            path = os.path.dirname(path)
        except OSError:
            return None


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


class SocketClient:
    """Sends requests to the daemon at `path`, a connection each.

    Every method raises `NoDaemon` where nothing listens, `TimedOut` where no answer comes in time,
    `Lost` where the daemon goes away before it has answered, and `RequestRefused` where it refuses.
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
        path = f"{target}?{urlencode(given)}" if given else target
        return self.request("GET", path, timeout=timeout)[1]

    def get_list(
        self, target: str, name: str, query: Mapping[str, object], limit: int
    ) -> dict[str, Any]:
        """The document at `target`, its list `name` of as many pages as `limit` needs."""
        items: list[Any] = []
        page: dict[str, Any] = {"next": None}
        while True:
            room = min(limit - len(items), PAGE)
            page = self.get(target, {**query, "limit": room, "after": page["next"]})
            items += (found := page.get(name) or [])
            if page.get("next") is None or len(items) >= limit or not found:
                return {**page, name: items}

    def post(self, target: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What the daemon answers to `body`, or to no body at all."""
        return self.request("POST", target, body)[1]

    def request(
        self,
        method: str,
        target: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = ANSWER_TIMEOUT,
    ) -> tuple[int, dict[str, Any]]:
        """One request; the answer's status and its object, an empty one where it has no body.

        Args:
            method: such as GET or POST.
            target: path and query, percent-encoded.
            body: sent as JSON.
            headers: added to the client's own.
            timeout: seconds that the daemon may be silent.
        """
        sent = {"Accept": "application/json", "Connection": "close", **(headers or {})}
        unsure = [] if method == "GET" else ["It may have carried out the request."]
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
            message = f"the daemon at {self.path} has not answered within {timeout:g} s"
            raise TimedOut(message, unsure) from None
        except (OSError, http.client.HTTPException):
            message = f"the daemon at {self.path} closed the connection before it answered"
            raise Lost(message, unsure) from None
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
            raise Lost(f"the daemon at {self.path} has sent nothing for {SILENCE:g} s") from None
        except (OSError, http.client.HTTPException):
            raise Lost(f"the daemon at {self.path} closed the connection") from None
        finally:
            connection.close()

    def _connect(self, connection: _UnixConnection) -> None:
        try:
            connection.connect()
        except TimeoutError:
            raise NoDaemon(
                f"the daemon at {self.path} accepts no connection; it hangs or has too many"
            ) from None
        except OSError as error:
            raise _unreachable(self.path, error) from None

    def _read(self, status: int, reason: str, content: bytes) -> tuple[int, dict[str, Any]]:
        data: Any
        try:
            data = json.loads(content) if content else {}
        except ValueError:
            data = None
        if 200 <= status < 300:
            if not isinstance(data, dict):
                raise CommandError(f"no orchestratord answers at {self.path}")
            return status, data
        fallback = f"the daemon answered {status} {reason}".rstrip()
        raise RequestRefused(status, data if isinstance(data, dict) else {}, fallback)

    def get_over_restarts(
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
            deadline: when to give up, by the monotonic clock; None: after `AWAY_TIMEOUT`.
            away: called whenever the daemon was not there, before the next try.

        Raises:
            TimedOut: the deadline passed.
        """
        give_up = time.monotonic() + AWAY_TIMEOUT
        while True:
            try:
                return self.get(target, query, timeout)
            except (NoDaemon, Lost, RequestRefused) as failure:
                if isinstance(failure, RequestRefused) and failure.status != 503:
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
    parts = (*endpoint.split("/"), *rest)
    return "/".join(["/v1/endpoints", *(quote(part, safe="") for part in parts)])


def follow(
    client: SocketClient, query: Mapping[str, str], away: Callable[[], None]
) -> Iterator[StreamEvent]:
    """Every event as it happens; where the daemon is gone, waits for it and goes on.

    Args:
        query: which events.
        away: called each time that the daemon is not there.

    Raises:
        NoDaemon: there was no daemon at the beginning, or for two minutes.
    """
    last: str | None = None
    gone: float | None = None
    while True:
        try:
            for number, message in _messages(client.stream("/v1/events", query, last)):
                last, gone = number or last, None
                if message is not None:
                    yield message
            failure: CommandError = Lost(f"the daemon at {client.path} is being stopped")
        except (NoDaemon, Lost, RequestRefused) as failed:
            if last is None or (isinstance(failed, RequestRefused) and failed.status != 503):
                raise
            failure = failed
        now = time.monotonic()
        gone = now if gone is None else gone
        if now - gone >= AWAY_TIMEOUT:
            raise NoDaemon(f"{failure}, and it has not come back")
        away()
        time.sleep(AWAY_PAUSE)


def _messages(lines: Iterator[str]) -> Iterator[tuple[str, StreamEvent | None]]:
    """(Id, event) of each block of a stream; an id alone says where the stream stands."""
    block: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if line and name:
            block[name] = value.removeprefix(" ")
        elif not line and block:
            yield block.get("id", ""), _message(block)
            block = {}


def _message(block: Mapping[str, str]) -> StreamEvent | None:
    try:
        data = json.loads(block.get("data", ""))
    except ValueError:
        return None
    return StreamEvent(block.get("event", ""), data) if isinstance(data, dict) else None
