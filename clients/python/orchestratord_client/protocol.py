"""What is sent, how answers are read, and when it is sent again: all of it without any I/O.

What takes more than one request is a generator of steps. It yields a `Request`, and is given the
answer or the error that came instead; or it yields a `Pause`. `Client` and `AsyncClient` only carry
the steps out, so that both behave alike.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import ssl
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import httpx

from orchestratord_client.errors import (
    Conflict,
    DaemonUnreachable,
    NotFound,
    Unavailable,
    UnexpectedAnswer,
    WaitTimeout,
    refusal_class,
)
from orchestratord_client.results import Accepted, Event, Subscription, Task, TaskDetail, Tenant

DEFAULT_DEADLINE = 60.0
"""Seconds: a restart takes as long as the old daemon drains (25 s) and the new one starts."""
SYSTEM_SOCKET = "/run/orchestratord/control.sock"

CONNECT_TIMEOUT = 5.0
ANSWER_TIMEOUT = 30.0
SHORTEST_TIMEOUT = 0.1
LONG_POLL = 20.0
"""Seconds for which the daemon is asked to wait for the end of a task; it allows 30."""
SILENCE = 45.0
"""Seconds; on a stream of events the daemon says something every 15."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
LARGEST = 64 << 20
"""Bytes of an answer; a page of tasks has a few MiB."""
LONGEST_LINE = 16 << 20
"""Bytes of a line of the stream of events."""

_USER = re.compile(r"(//|^)[^/?#]*@")

_FINALLY_WRONG = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

Delay = float | str | timedelta
Moment = str | datetime
"""Seconds, or a duration as the daemon writes it: `90s`, `5m`, `2h`, `1d`."""
Value = str | int | datetime | timedelta
FilterValue = Value | Iterable[Value] | None
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    `waits`: seconds that the daemon is asked to wait; `timeout`: those that it may be silent after
    them.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    waits: float = 0.0
    timeout: float = ANSWER_TIMEOUT

    def within(self, seconds: float) -> Request:
        """The same, that takes no longer, or a moment."""
        return replace(self, timeout=min(self.timeout, max(seconds, SHORTEST_TIMEOUT)))

    def options(self) -> dict[str, Any]:
        """The arguments of `httpx.Client.request` and `stream`."""
        # What comes compressed has a size that nobody knows before.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", **self.headers}
        content = None
        if self.body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(self.body, allow_nan=False, separators=(",", ":"))
        return {
            "method": self.method,
            "url": self.path,
            "params": self.query or None,
            "headers": headers,
            "content": content,
            "timeout": httpx.Timeout(
                self.waits + self.timeout, connect=min(self.timeout, CONNECT_TIMEOUT)
            ),
        }


class Pause(NamedTuple):
    """Nothing is sent for so long."""

    seconds: float


Steps = Generator[Request | Pause, httpx.Response | None, T]


# -- where the daemon is -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Address:
    """Where the daemon is: a path of its control socket, or a URL with a token."""

    url: str = field(repr=False)
    """Perhaps with a user and a password, which are shown nowhere."""
    socket: str | None
    token: str | None = field(repr=False)

    @classmethod
    def of(cls, given: str | os.PathLike[str] | None, token: str | None) -> Address:
        """See `Client`. Raises ValueError for a token without a URL, for one that no header can
        carry, and for what is no URL."""
        if token is not None:
            token = header_value(token.strip(), "the token")
        named = os.fspath(given or os.environ.get("ORCHESTRATORD_SOCKET") or SYSTEM_SOCKET)
        if named.lower().startswith(("http://", "https://")):
            try:
                httpx.URL(named)
            except httpx.InvalidURL:  # which it may show whole
                raise ValueError("the address of the daemon is not a URL") from None
            return cls(named, None, token)
        if token is not None:
            raise ValueError(f"a token goes with a URL (http://…); {masked(named)} is a socket")
        return cls("http://localhost", named, None)

    def transport(self, kind: Callable[..., T], tls: ssl.SSLContext | None) -> T:
        """A transport of httpx; `kind` is its class.

        A socket needs no TLS, whose certificates take long to load. No proxy of the environment's
        stands between.
        """
        if self.socket is not None:
            return kind(uds=self.socket, verify=False, trust_env=False)
        verify = tls or self.url.lower().startswith("https:")
        return kind(verify=verify, trust_env=False)

    def headers(self) -> dict[str, str]:
        """What is sent with each request."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    def __str__(self) -> str:
        return masked(self.socket or self.url)


def masked(url: str) -> str:
    """A URL as it may be shown: without its user and password."""
    return _USER.sub(r"\1***@", url)


def header_value(text: str, what: str) -> str:
    """A text that is sent in a header. Raises ValueError, which does not show it."""
    if not isinstance(text, str):
        raise TypeError(f"{what} is a text, not {type(text).__name__}")
    if not (text and text.isascii() and text.isprintable() and text == text.strip()):
        raise ValueError(
            f"{what} is empty, or has a character or a blank at an end that no header can carry"
        )
    return text


def _key(key: str | None) -> dict[str, str]:
    """The header of an Idempotency-Key, of a new one for None."""
    return {"Idempotency-Key": header_value(uuid.uuid4().hex if key is None else key, "the key")}


# -- sending again -------------------------------------------------------------------------------


class Deadline:
    """How long, and after which pauses, a request is sent again while no answer comes.

    Args:
        address: of the daemon, for messages.
        seconds: after so many it is given up.

    Attributes:
        unsure: what was asked may have been done, although no answer said so.
        last: when, by the monotonic clock, nothing is sent again, even if there is time left.
    """

    def __init__(self, address: Address, seconds: float) -> None:
        self._address = address
        self._seconds = seconds
        self.unsure = False
        self.last = math.inf
        self.renew()

    def renew(self) -> None:
        """The daemon is there: what comes next may take as long again."""
        self._end = time.monotonic() + self._seconds
        self._pause = FIRST_PAUSE

    def pause(self, failure: httpx.TransportError | Unavailable | None) -> Pause:
        """How long to wait after this failure (None: the daemon has ended the answer).

        Raises:
            DaemonUnreachable: it is of no use, or has lasted for too long.
            Unavailable: the same, where the daemon says so itself.
        """
        self.unsure = self.unsure or not isinstance(failure, _NOT_SENT)
        left = min(self.left(), self.last - time.monotonic())
        if left <= 0 or _is_final(failure):
            if isinstance(failure, Unavailable):
                raise failure
            raise self.unreachable(failure) from failure
        pause = self._pause * random.uniform(0.5, 1.0)  # noqa: S311  # spreads clients, no secret
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        if isinstance(failure, Unavailable) and failure.retry_after is not None:
            pause = max(pause, failure.retry_after)
        return Pause(min(pause, left))

    def left(self) -> float:
        """Seconds until it is given up."""
        return self._end - time.monotonic()

    def unreachable(self, failure: httpx.TransportError | None) -> DaemonUnreachable:
        """What is raised then."""
        why = "it has ended the answer" if failure is None else masked(str(failure))
        why = why or type(failure).__name__
        refused = isinstance(failure, httpx.ConnectError) and not _is_final(failure)
        if refused and self._address.socket is not None:
            why += "; start it, or name its socket: Client(PATH), or $ORCHESTRATORD_SOCKET"
        return DaemonUnreachable(f"no answer from the daemon at {self._address}: {why}")


def _is_final(failure: Exception | None) -> bool:
    """Whether it would be the same after any pause."""
    if isinstance(failure, _FINALLY_WRONG):
        return True
    cause: BaseException | None = failure
    while cause is not None:
        if isinstance(cause, (PermissionError, ssl.SSLCertVerificationError)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def send(request: Request, deadline: Deadline, *, safe: bool = True) -> Steps[httpx.Response]:
    """Send a request until an answer comes; the answer, which has succeeded.

    Args:
        request: what is sent.
        deadline: how long.
        safe: the request may be done twice. Otherwise it is sent again only where it has not
            reached the daemon.

    Raises:
        DaemonUnreachable: no answer came.
        Refused: the daemon refused it; one of the subclasses.
    """
    while True:
        try:
            answer = yield request.within(deadline.left())
            assert answer is not None
            check(answer)
            return answer
        except httpx.TransportError as error:
            if not (safe or isinstance(error, _NOT_SENT)):
                raise deadline.unreachable(error) from error
            pause = deadline.pause(error)
        except Unavailable as error:
            if not safe:
                raise
            pause = deadline.pause(error)
        yield pause


def check(answer: httpx.Response) -> None:
    """Raises the `Refused` of an answer that has not succeeded, which has to be read before."""
    if answer.is_success:
        return
    try:
        problem = answer.json()
    except (ValueError, RecursionError):
        problem = None
    if not isinstance(problem, dict):
        problem = {}  # of a proxy in between
    status, code = answer.status_code, str(problem.get("code", ""))
    detail = str(problem.get("detail") or answer.reason_phrase)
    after = answer.headers.get("retry-after", "")
    retry_after = float(after) if after.isdecimal() else None
    errors = problem.get("errors")
    errors = [one for one in errors if isinstance(one, dict)] if isinstance(errors, list) else []
    raise refusal_class(status, code)(status, code, detail, errors, retry_after)


def document(answer: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer. Raises UnexpectedAnswer."""
    try:
        found = answer.json()
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _unexpected(answer, "no JSON object")
    return found


def _unexpected(answer: httpx.Response, what: str) -> UnexpectedAnswer:
    return UnexpectedAnswer(f"{masked(str(answer.url))} answers {what}; it is not orchestratord")


class Content:
    """The content of an answer, piece by piece, which is not decoded and not larger than may be."""

    def __init__(self, answer: httpx.Response) -> None:
        """Raises UnexpectedAnswer where it is compressed, which was not asked for."""
        if answer.headers.get("content-encoding", "identity").lower() != "identity":
            raise _unexpected(answer, "what is compressed")
        self._answer = answer
        self._pieces: list[bytes] = []
        self._left = LARGEST

    def add(self, piece: bytes) -> None:
        """Take the next piece. Raises UnexpectedAnswer."""
        self._left -= len(piece)
        if self._left < 0:
            raise _unexpected(self._answer, f"more than {LARGEST >> 20} MiB")
        self._pieces.append(piece)

    def whole(self) -> httpx.Response:
        """The answer with all of it."""
        one, named = self._answer, ("reason_phrase",)
        return httpx.Response(
            one.status_code,
            headers=[item for item in one.headers.multi_items() if item[0] != "transfer-encoding"],
            content=b"".join(self._pieces),
            request=one.request,
            extensions={name: one.extensions[name] for name in named if name in one.extensions},
        )


def _value(kind: Callable[[Mapping[str, Any]], T], found: Mapping[str, Any]) -> T:
    try:
        return kind(found)
    except (TypeError, ValueError, AttributeError, LookupError, RecursionError) as error:
        raise UnexpectedAnswer(f"the answer is not a {kind.__qualname__}: {error}") from None


# -- what can be asked ---------------------------------------------------------------------------


def call(
    deadline: Deadline,
    endpoint: str,
    params: Mapping[str, Any] | None,
    delay: Delay | None,
    at: Moment | None,
    key: str | None,
) -> Steps[Accepted]:
    """See `Client.call`."""
    body = _body({"params": dict(params or {})}, delay, at)
    answer = yield from send(_call(endpoint, body, key), deadline)
    repeated = answer.status_code == 200
    return _value(Accepted.of, {**document(answer), "repeated": repeated})


def call_many(
    deadline: Deadline,
    endpoint: str,
    batch: Iterable[Mapping[str, Any]],
    delay: Delay | None,
    at: Moment | None,
    key: str | None,
) -> Steps[Sequence[int]]:
    """See `Client.call_many`."""
    body = _body({"batch": [dict(params) for params in batch]}, delay, at)
    answer = yield from send(_call(endpoint, body, key), deadline)
    return _value(_ids, document(answer))


def get(deadline: Deadline, task_id: int) -> Steps[TaskDetail]:
    """See `Client.get`."""
    answer = yield from send(Request("GET", _task(task_id)), deadline)
    return _value(TaskDetail.of, document(answer))


def wait(deadline: Deadline, task_id: int, timeout: float | None) -> Steps[TaskDetail]:
    """See `Client.wait`."""
    began = time.monotonic()
    end = deadline.last = began + (math.inf if timeout is None else timeout)
    while True:
        asked = time.monotonic()
        rest = min(LONG_POLL, max(0.0, end - asked))
        query = {"wait": f"{rest:.3f}"}
        request = Request("GET", _task(task_id), query, waits=rest)
        try:
            answer = yield from send(request, deadline)
        except (DaemonUnreachable, Unavailable) as error:
            if time.monotonic() < end:
                raise
            raise WaitTimeout(task_id, end - began) from error
        task = _value(TaskDetail.of, document(answer))
        if task.ended:
            return task
        deadline.renew()
        now = time.monotonic()
        if now >= end:
            raise WaitTimeout(task_id, end - began)
        if now - asked < rest:
            # Others wait, too many for the daemon: it answered at once.
            yield Pause(min(LONGEST_PAUSE, end - now))


class Page(NamedTuple):
    """Tasks, and where those after them begin; None at the end."""

    tasks: Sequence[Task]
    following: int | str | None


def page(
    deadline: Deadline, filters: Mapping[str, FilterValue], size: int, after: int | str | None
) -> Steps[Page]:
    """A page of `Client.list`."""
    query = {"limit": str(size), **_query(filters)}
    if after is not None:
        query["after"] = str(after)
    answer = yield from send(Request("GET", "/v1/retries", query), deadline)
    return _value(_page, document(answer))


def retry(deadline: Deadline, task_id: int, force: bool) -> Steps[Task]:
    """See `Client.retry`."""
    body = {"force": True} if force else None
    request = Request("POST", _task(task_id, "/trigger"), body=body)
    try:
        answer = yield from send(request, deadline, safe=not force)
    except Conflict:
        if not deadline.unsure:
            raise
        # An answer got lost, perhaps that of a retry by which it runs now, or has succeeded.
        task = yield from get(deadline, task_id)
        if task.status not in ("running", "succeeded"):
            raise
        return task
    return _value(Task.of, document(answer))


def cancel(deadline: Deadline, task_id: int) -> Steps[Task]:
    """See `Client.cancel`."""
    answer = yield from send(Request("POST", _task(task_id, "/cancel")), deadline)
    return _value(Task.of, document(answer))


# -- tenants, and what they subscribe to -----------------------------------------------------------


def put_tenant(deadline: Deadline, tenant: str, name: str | None) -> Steps[Tenant]:
    """See `Client.put_tenant`."""
    return _asked(deadline, Request("PUT", _path(tenant), body={"name": name}), Tenant.of)


def tenant(deadline: Deadline, tenant_id: str) -> Steps[Tenant]:
    """See `Client.tenant`."""
    return _asked(deadline, Request("GET", _path(tenant_id)), Tenant.of)


def portal(deadline: Deadline, tenant: str) -> Steps[str]:
    """See `Client.portal`."""
    return _asked(deadline, Request("POST", _path(tenant, "portal")), lambda found: found["url"])


def subscribe(
    deadline: Deadline, tenant: str, key: str | None, body: Mapping[str, Any]
) -> Steps[Subscription]:
    """See `Client.subscribe`."""
    request = Request("POST", _path(tenant, "subscriptions"), headers=_key(key), body=body)
    return _asked(deadline, request, Subscription.of)


def subscription(deadline: Deadline, tenant: str, id_: str) -> Steps[Subscription]:
    """See `Client.subscription`."""
    return _asked(deadline, Request("GET", _path(tenant, "subscriptions", id_)), Subscription.of)


def change_subscription(
    deadline: Deadline, tenant: str, id_: str, keys: Mapping[str, Any]
) -> Steps[Subscription]:
    """See `Client.change_subscription`."""
    request = Request("PATCH", _path(tenant, "subscriptions", id_), body=keys)
    return _asked(deadline, request, Subscription.of)


def secret(deadline: Deadline, tenant: str, id_: str) -> Steps[str]:
    """See `Client.secret`."""
    request = Request("GET", _path(tenant, "subscriptions", id_, "secret"))
    return _asked(deadline, request, lambda found: found["secret"])


def rotate_secret(deadline: Deadline, tenant: str, id_: str) -> Steps[str]:
    """See `Client.rotate_secret`."""
    request = Request("POST", _path(tenant, "subscriptions", id_, "rotate"))
    return _asked(deadline, request, lambda found: found["secret"], safe=False)


def test_subscription(deadline: Deadline, tenant: str, id_: str) -> Steps[int]:
    """See `Client.test_subscription`."""
    request = Request("POST", _path(tenant, "subscriptions", id_, "test"))
    return _asked(deadline, request, lambda found: found["id"], safe=False)


def replay_subscription(
    deadline: Deadline, tenant: str, id_: str, body: Mapping[str, Any]
) -> Steps[int]:
    """See `Client.replay_subscription`."""
    request = Request("POST", _path(tenant, "subscriptions", id_, "replay"), body=body)
    return _asked(deadline, request, lambda found: found["matched"], safe=False)


def remove(deadline: Deadline, tenant: str, id_: str | None = None) -> Steps[None]:
    """Remove a tenant, or one of its subscriptions."""
    path = _path(tenant) if id_ is None else _path(tenant, "subscriptions", id_)
    try:
        yield from send(Request("DELETE", path), deadline)
    except NotFound:
        if not deadline.unsure:
            raise  # else an answer got lost, perhaps that of the removal


def listed(
    deadline: Deadline,
    kind: Callable[[Mapping[str, Any]], T],
    path: Sequence[str],
    after: str | None,
) -> Steps[tuple[list[T], str | None]]:
    """A page of what is at `path` below the tenants, and where the next one begins; None at the
    end."""
    query = {} if after is None else {"after": after}
    name = path[-1] if path else "tenants"
    return _asked(
        deadline,
        Request("GET", _path(*path), query),
        lambda found: ([kind(one) for one in found[name]], found["next"]),
    )


def _path(*parts: str) -> str:
    return "/".join(["/v1/tenants", *(quote(part, safe="") for part in parts)])


def _asked(
    deadline: Deadline,
    request: Request,
    kind: Callable[[Mapping[str, Any]], T],
    *,
    safe: bool = True,
) -> Steps[T]:
    answer = yield from send(request, deadline, safe=safe)
    return _value(kind, document(answer))


class EventStream:
    """Where a client stands in the stream of events.

    Args:
        deadline: how long the daemon may be away.
        filters: which events.
    """

    def __init__(self, deadline: Deadline, filters: Mapping[str, FilterValue]) -> None:
        self._deadline = deadline
        self._query = _query(filters)
        self._last: str | None = None
        self._block: dict[str, str] = {}
        self._line = b""

    def request(self) -> Request:
        """What begins the stream, or goes on where it broke off."""
        headers = {"Accept": "text/event-stream"}
        if self._last is not None:
            headers["Last-Event-ID"] = self._last
        self._block, self._line = {}, b""
        return Request("GET", "/v1/events", self._query, headers, timeout=SILENCE)

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Take a piece of the stream; the events that it completes. Raises UnexpectedAnswer."""
        self._deadline.renew()
        *lines, self._line = (self._line + piece).split(b"\n")
        if len(self._line) > LONGEST_LINE:
            raise UnexpectedAnswer(f"a line of the events has more than {LONGEST_LINE >> 20} MiB")
        for line in lines:
            if (event := self._feed(line.decode(errors="replace").rstrip("\r"))) is not None:
                yield event

    def _feed(self, line: str) -> Event | None:
        name, _, value = line.partition(":")
        if name:
            self._block[name] = value.removeprefix(" ")
            return None
        if line or not self._block:
            return None  # a comment, or the end of one
        block, self._block = self._block, {}
        self._last = block.get("id", self._last)
        if "data" not in block:
            return None
        return _value(_event, block)

    def pause(self, failure: httpx.TransportError | Unavailable | None) -> float:
        """Seconds until it is asked for again. Raises what `Deadline.pause` raises."""
        return self._deadline.pause(failure).seconds


def _call(endpoint: str, body: Mapping[str, Any], key: str | None) -> Request:
    api, _, name = endpoint.partition("/")
    if not name:
        before, _, after = endpoint.rpartition(".")
        remedy = f"; write {before}/{after}" if before and after else ""
        raise ValueError(f"an endpoint is called api/name, which {endpoint!r} is not{remedy}")
    path = f"/v1/endpoints/{quote(api, safe='')}/{quote(name, safe='')}/calls"
    return Request("POST", path, headers=_key(key), body=body)


def _body(body: dict[str, Any], delay: Delay | None, at: Moment | None) -> dict[str, Any]:
    if delay is not None:
        body["delay"] = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if at is not None:
        body["at"] = moment_text(at)
    return body


def moment_text(at: Moment) -> str:
    """A time in RFC 3339. Raises ValueError for a datetime without a time zone."""
    if isinstance(at, str):
        return at
    if at.tzinfo is None:
        raise ValueError("the time has no zone: write datetime.now(UTC), or give it one")
    return at.isoformat()


def _task(task_id: int, rest: str = "") -> str:
    return f"/v1/retries/{int(task_id)}{rest}"


def _query(filters: Mapping[str, FilterValue]) -> dict[str, str]:
    return {name: _words(value) for name, value in filters.items() if value is not None}


def _words(value: Value | Iterable[Value]) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, timedelta):
        return f"{value.total_seconds():.15g}"
    if isinstance(value, (str, int)):
        return str(value)
    return ",".join(map(_words, value))


def _ids(found: Mapping[str, Any]) -> Sequence[int]:
    return [int(one) for one in found["ids"]]


def _page(found: Mapping[str, Any]) -> Page:
    return Page([Task.of(one) for one in found["retries"]], found["next"])


def _event(block: Mapping[str, Any]) -> Event:
    return Event(block.get("event", ""), dict(json.loads(block["data"])))
