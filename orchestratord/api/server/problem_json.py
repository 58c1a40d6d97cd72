"""Refusals: what the API answers instead, as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from orchestratord.api.serialize import json_bytes, problems_json
from orchestratord.errors import (
    ConfigError,
    Conflict,
    InvalidParams,
    InvalidPayload,
    NotFound,
    NotWritable,
    OrchestratordError,
    OutboxUnusable,
    Outdated,
    Overtaken,
    StorageFull,
    Unconditional,
    UniqueKeyReused,
    Unreachable,
)
from orchestratord.http.connect import nothing_opens

MEDIA_TYPE = "application/problem+json"

PROBLEMS: Mapping[str, tuple[int, str]] = {
    "bad_request": (400, "this is not a request in HTTP/1.1"),
    "bad_json": (400, "the body is not JSON, or says something twice"),
    "bad_form": (400, "the login form is not one"),
    "no_token": (401, "no token is shown"),
    "wrong_token": (401, "the token is not known here"),
    "read_only": (403, "the token is for looking only"),
    "cross_site": (403, "a page of another site sent it"),
    "not_writable": (403, "the daemon cannot write the file"),
    "not_found": (404, "there is no such route, endpoint, task, webhook or bulk"),
    "method_not_allowed": (405, "the route does not take this method"),
    "timeout": (408, "the request did not arrive in time"),
    "conflict": (409, "the state of the task, endpoint or webhook does not allow it"),
    "overtaken": (409, "where tasks are ordered: a later one has started already"),
    "outbox_unusable": (409, "the table of the outbox is missing, or may not be used"),
    "outdated": (412, "the file, or what it inherits, has changed since it was read"),
    "too_large": (413, "the body is larger than 16 MiB"),
    "not_json": (415, "over TCP: the body is not said to be application/json"),
    "not_a_form": (415, "the login form is not said to be one"),
    "unknown_host": (421, "over TCP: `http.hosts` does not name this host"),
    "invalid_params": (422, "something in it does not fit; `errors` names everything"),
    "invalid_payload": (422, "the request or payload cannot be built"),
    "idempotency_key_reused": (422, "the key was used at this endpoint, with other parameters"),
    "bad_config": (422, "the configuration is not good; `errors` names everything"),
    "if_match_required": (428, "If-Match is missing"),
    "head_too_large": (431, "line and headers are larger than 64 KiB"),
    "internal": (500, "the daemon failed; its log says more"),
    "plugin_fault": (500, "a plugin failed; the daemon's log says more"),
    "not_ready": (503, "no new work would be carried out now; `errors` says why"),
    "stopping": (503, "the daemon is being stopped"),
    "busy": (503, "there are too many connections or large bodies; ask again"),
    "too_many_followers": (503, "as many clients as can follow the events do so"),
    "shortage": (503, "the daemon has no file descriptor, or no memory, left for this request"),
    "memory_exhausted": (503, "the daemon has no memory left for this request"),
    "database_unreachable": (503, "the database cannot be reached now"),
    "database_locked": (503, "another program holds the database"),
    "storage_read_only": (503, "the disk cannot be written to"),
    "storage_error": (503, "the disk fails"),
    "database_damaged": (503, "the database is damaged; the daemon ends"),
    "database_gone": (503, "the file of the database is gone; the daemon ends"),
    "fatal": (503, "the daemon ends, for what its log says"),
    "storage_full": (507, "the disk has no room for new work"),
}
"""The `code` of a problem → the status of the answer, and what has happened."""

_CODES: tuple[tuple[type[OrchestratordError], str], ...] = (
    (NotFound, "not_found"),
    (Overtaken, "overtaken"),
    (Conflict, "conflict"),
    (OutboxUnusable, "outbox_unusable"),
    (InvalidParams, "invalid_params"),
    (InvalidPayload, "invalid_payload"),
    (UniqueKeyReused, "idempotency_key_reused"),
    (ConfigError, "bad_config"),
    (NotWritable, "not_writable"),
    (Outdated, "outdated"),
    (Unconditional, "if_match_required"),
    (StorageFull, "storage_full"),
)
"""Error → `code`, the first that fits."""

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
        self.status = PROBLEMS[code][0]
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
        if isinstance(error, OrchestratordError) and (code := code_of(type(error))):
            return cls(code, _detail(error), errors=_errors(error))
        if isinstance(error, Unreachable):
            # A plugin's may have a code of its own.
            code = error.code if error.code in PROBLEMS else "database_unreachable"
            return cls(code, _detail(error))
        if _is_shortage(error):
            return cls(SHORTAGE, _SHORTAGE, headers={"Retry-After": "1"})
        return cls("internal", "the daemon could not do it; its log says more")

    def document(self) -> dict[str, Any]:
        """The body of the answer."""
        document: dict[str, Any] = {
            "type": "about:blank",
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


def code_of(kind: type[OrchestratordError]) -> str | None:
    """The `code` that errors of this kind have in the API; None where it has none of its own."""
    return next((code for known, code in _CODES if issubclass(kind, known)), None)


def _is_shortage(error: BaseException | None) -> bool:
    """Whether an error comes of this, or whatever it comes of, nothing can be opened just now."""
    cause = error
    while cause is not None:
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
    if isinstance(error, InvalidParams):
        count = len(error.problems)
        return "1 parameter does not fit" if count == 1 else f"{count} parameters do not fit"
    return str(error)


def _errors(error: OrchestratordError) -> Sequence[Mapping[str, Any]]:
    if isinstance(error, ConfigError):
        return problems_json(error.problems)
    if isinstance(error, InvalidParams):
        return [{"key": name, "message": text} for name, text in error.problems.items()]
    return []
