"""Refusals: what the API answers instead, as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from starlette.responses import Response

from orchestratord.api.serialize import json_bytes, problems_json
from orchestratord.errors import ConfigError, InvalidParams, OrchestratordError
from orchestratord.http.connect import nothing_opens
from orchestratord.values import doc_links

MEDIA_TYPE = "application/problem+json"


class RefusalKind(NamedTuple):
    """The meaning of a `code`; docs/problems.md says what to do."""

    status: int
    what: str


PROBLEMS: Mapping[str, RefusalKind] = {
    "bad_request": RefusalKind(400, "this is not an HTTP/1.1 request"),
    "bad_json": RefusalKind(400, "the body is not JSON, or an object has a key twice"),
    "bad_form": RefusalKind(400, "this is not the login form"),
    "no_token": RefusalKind(401, "the request has no token"),
    "wrong_token": RefusalKind(401, "the daemon does not know the token"),
    "read_only": RefusalKind(403, "the token may only read"),
    "cross_site": RefusalKind(403, "a page of another site sent the request"),
    "not_writable": RefusalKind(403, "the daemon cannot write the file"),
    "not_found": RefusalKind(404, "there is no such route, endpoint, task, webhook or bulk"),
    "method_not_allowed": RefusalKind(405, "the route does not take this method"),
    "timeout": RefusalKind(408, "the request did not arrive in time"),
    "conflict": RefusalKind(409, "the state of the task, endpoint or webhook does not allow it"),
    "overtaken": RefusalKind(409, "a later task of its partition has started"),
    "replaced": RefusalKind(409, "a task with other parameters replaces this one"),
    "upgrade_under_way": RefusalKind(409, "a new version of the daemon is about to take over"),
    "outbox_unusable": RefusalKind(
        409, "the outbox's table is missing, or the daemon may not use it"
    ),
    "outdated": RefusalKind(412, "the file, or what it inherits, has changed since it was read"),
    "too_large": RefusalKind(413, "the body is larger than 16 MiB"),
    "not_json": RefusalKind(415, "over TCP: the body's `Content-Type` is not application/json"),
    "not_a_form": RefusalKind(415, "the login form has the wrong `Content-Type`"),
    "unknown_host": RefusalKind(421, "over TCP: `http.hosts` does not name this host"),
    "invalid_params": RefusalKind(422, "some values do not fit; `errors` names each"),
    "schema_too_costly": RefusalKind(
        422, "the check by the endpoint's `schema` takes too long or too much memory"
    ),
    "invalid_payload": RefusalKind(422, "the templates cannot build the request or payload"),
    "idempotency_key_reused": RefusalKind(
        422, "an earlier call at this endpoint used the key with other parameters"
    ),
    "bad_config": RefusalKind(422, "the configuration has errors; `errors` names each"),
    "if_match_required": RefusalKind(428, "If-Match is missing"),
    "head_too_large": RefusalKind(431, "the request line and headers exceed 64 KiB"),
    "internal": RefusalKind(500, "the daemon failed; its log says more"),
    "plugin_fault": RefusalKind(500, "a plugin failed; the daemon's log says more"),
    "not_ready": RefusalKind(503, "the daemon cannot carry out new work now; `errors` says why"),
    "stopping": RefusalKind(503, "the daemon is stopping"),
    "busy": RefusalKind(503, "there are too many connections or large bodies; ask again"),
    "too_many_followers": RefusalKind(503, "too many clients follow the events"),
    "shortage": RefusalKind(
        503, "the daemon has no file descriptor or memory left for this request"
    ),
    "memory_exhausted": RefusalKind(503, "the daemon has no memory left for this request"),
    "database_unreachable": RefusalKind(503, "the daemon cannot reach the database now"),
    "database_locked": RefusalKind(503, "another program holds the database"),
    "storage_read_only": RefusalKind(503, "the daemon cannot write to the disk"),
    "storage_error": RefusalKind(503, "the disk fails"),
    "database_damaged": RefusalKind(503, "the database is damaged; the daemon stops"),
    "database_gone": RefusalKind(503, "the file of the database is gone; the daemon stops"),
    "fatal": RefusalKind(503, "the daemon stops; its log says why"),
    "storage_full": RefusalKind(507, "the disk has no room for new work"),
}
"""The `code` of a problem → the status of the answer, and what has happened."""

# All at once: where no file can be opened any more, an answer has to say so.
_TYPES = {code: doc_links.problem(code) for code in PROBLEMS}
"""The `type` of each problem: the address at which the documentation explains it."""

SHORTAGE = "shortage"
"""The `code` where this daemon lacks what it takes to answer."""
_LACKS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_SHORTAGE = (
    "this daemon has no file descriptor, or no memory, left for it; ask again in a moment, or "
    "raise its limits, which `orchestratord doctor` shows"
)


def title(status: int) -> str:
    """What a status is called, by RFC 9110; the standard library has these names since 3.13."""
    return {413: "Content Too Large", 422: "Unprocessable Content"}.get(
        status, HTTPStatus(status).phrase
    )


class Refusal(Exception):
    """A request is not done.

    Args:
        code: one of `PROBLEMS`, which has its status.
        detail: one line for a person.
        errors: what is wrong, one by one, each with `key` and `message` and, for files, its place.
        headers: of the answer.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = PROBLEMS[code].status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})
        super().__init__(detail)

    @classmethod
    def of(cls, error: Exception) -> Refusal:
        """What an error of the daemon's means to a client; 500 for one that it should not see, but
        503 where this daemon lacks a file descriptor, or memory, for what was asked."""
        if isinstance(error, ConfigError) and nothing_opens():
            return cls(SHORTAGE, _SHORTAGE, headers={"Retry-After": "1"})
        if isinstance(error, OrchestratordError):
            # One of a plugin's may have a code that is none of these.
            known = (getattr(kind, "code", "") for kind in type(error).__mro__)
            if code := next((one for one in (error.code, *known) if one in PROBLEMS), ""):
                return cls(code, _detail(error), errors=_errors(error))
        if _is_shortage(error):
            return cls(SHORTAGE, _SHORTAGE, headers={"Retry-After": "1"})
        return cls("internal", "the daemon could not do it; its log says more")

    def document(self) -> dict[str, Any]:
        """The body of the answer."""
        document: dict[str, Any] = {
            "type": _TYPES[self.code],
            "title": title(self.status),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.errors:
            document["errors"] = list(self.errors)
        return document

    def response(self) -> Response:
        """The answer."""
        return Response(json_bytes(self.document()), self.status, self.headers, MEDIA_TYPE)


def _is_shortage(error: BaseException | None) -> bool:
    """Whether an error comes of this, or whatever it comes of, nothing can be opened just now."""
    cause, seen = error, set[int]()
    while cause is not None and id(cause) not in seen:  # one that was raised again is in a circle
        seen.add(id(cause))
        if isinstance(cause, OSError) and cause.errno in _LACKS:
            return True
        cause = cause.__cause__ or cause.__context__
    return nothing_opens()


def no_memory() -> Refusal:
    """What a request is answered that there is no memory for."""
    detail = "there is no memory for this request now; try again in a moment"
    return Refusal("memory_exhausted", detail, headers={"Retry-After": "1"})


def _detail(error: OrchestratordError) -> str:
    if isinstance(error, ConfigError):
        count = len(error.problems)
        what = "1 error" if count == 1 else f"{count} errors"
        return f"the configuration has {what}; the last good one goes on"
    if type(error) is InvalidParams:
        count = len(error.problems)
        return "1 parameter does not fit" if count == 1 else f"{count} parameters do not fit"
    return str(error)


def _errors(error: OrchestratordError) -> Sequence[Mapping[str, Any]]:
    if isinstance(error, ConfigError):
        return problems_json(error.problems)
    if isinstance(error, InvalidParams):
        return [{"key": name, "message": text} for name, text in error.problems.items()]
    return []
