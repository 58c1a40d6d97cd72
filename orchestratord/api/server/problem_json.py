"""Refusals: what the API answers instead, as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

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
    Replaced,
    SchemaTooCostly,
    Stopping,
    StorageFull,
    Unconditional,
    UniqueKeyReused,
    Unreachable,
    UpgradeUnderWay,
)
from orchestratord.http.connect import nothing_opens
from orchestratord.values import doc_links

MEDIA_TYPE = "application/problem+json"


class RefusalKind(NamedTuple):
    """What a `code` stands for. `remedy` is Markdown, as the page of it in the docs has it."""

    status: int
    what: str
    remedy: str


PROBLEMS: Mapping[str, RefusalKind] = {
    "bad_request": RefusalKind(
        400,
        "this is not a request in HTTP/1.1",
        "Send HTTP/1.1: one `Host`, one length, no line that is folded. A proxy in between "
        "may have to be told so.",
    ),
    "bad_json": RefusalKind(
        400,
        "the body is not JSON, or says something twice",
        "Look at the place that `detail` names. A key that stands twice in one object is an "
        "error too.",
    ),
    "bad_form": RefusalKind(
        400,
        "the login form is not one",
        "Log in by the form that the dashboard shows; programs send `Authorization: Bearer TOKEN`.",
    ),
    "no_token": RefusalKind(
        401,
        "no token is shown",
        "Send `Authorization: Bearer TOKEN`, with a token of `http.token` or `http.read_token`.",
    ),
    "wrong_token": RefusalKind(
        401,
        "the token is not known here",
        "Look at what `http.token` of orchestratord.yaml refers to: it may have been rotated.",
    ),
    "read_only": RefusalKind(
        403,
        "the token is for looking only",
        "Use a token of `http.token`; those of `http.read_token` change nothing.",
    ),
    "cross_site": RefusalKind(
        403,
        "a page of another site sent it",
        "Let the page ask a server of its own, which has the token: browsers are not to write"
        " here for other sites.",
    ),
    "not_writable": RefusalKind(
        403,
        "the daemon cannot write the file",
        "Let the daemon's user write the file that `detail` names, or change it where it "
        "comes from, such as a ConfigMap.",
    ),
    "not_found": RefusalKind(
        404,
        "there is no such route, endpoint, task, webhook or bulk",
        "Look for the name or id: `orchestratorctl endpoints`, `orchestratorctl list`. Tasks "
        "that have ended are deleted after `retention`.",
    ),
    "method_not_allowed": RefusalKind(
        405,
        "the route does not take this method",
        "Use a method that the header `Allow` names.",
    ),
    "timeout": RefusalKind(
        408,
        "the request did not arrive in time",
        "Send the request again, faster: it was too slow, or the network lost a part.",
    ),
    "conflict": RefusalKind(
        409,
        "the state of the task, endpoint or webhook does not allow it",
        "Read `detail`, which says what the state is: a task that runs or has succeeded, an "
        "endpoint with `enabled: false`.",
    ),
    "overtaken": RefusalKind(
        409,
        "a later task of its partition has started already",
        "Look whether what came later stands on its own; if the order does not matter here, "
        "retry with `force`.",
    ),
    "replaced": RefusalKind(
        409,
        "the task is replaced by another one, made of it with other parameters",
        "Retry or cancel the task that `detail` names. Once that is cancelled, this one is free.",
    ),
    "upgrade_under_way": RefusalKind(
        409,
        "a new version of the daemon is about to take over",
        "Wait until it has, or has failed: the log says which, and `upgrade_failed` of "
        "`/v1/status` why. After two minutes another upgrade may be asked for.",
    ),
    "outbox_unusable": RefusalKind(
        409,
        "the table of the outbox is missing, or may not be used",
        "Make the table by `orchestratord outbox schema --apply`, or grant the daemon's user "
        "what `detail` says.",
    ),
    "outdated": RefusalKind(
        412,
        "the file, or what it inherits, has changed since it was read",
        "Read it again, apply your change to what is there now, and send that with its `ETag`.",
    ),
    "too_large": RefusalKind(
        413,
        "the body is larger than 16 MiB",
        "Split the batch, or send large data to where the endpoint can fetch them.",
    ),
    "not_json": RefusalKind(
        415,
        "over TCP: the body is not said to be application/json",
        "Send `Content-Type: application/json`.",
    ),
    "not_a_form": RefusalKind(
        415,
        "the login form is not said to be one",
        "Log in by the form that the dashboard shows.",
    ),
    "unknown_host": RefusalKind(
        421,
        "over TCP: `http.hosts` does not name this host",
        "Add the name in your address bar to `http.hosts`, with its port where it has one.",
    ),
    "invalid_params": RefusalKind(
        422,
        "something in it does not fit; `errors` names everything",
        "Correct what `errors` names: `orchestratord config show ENDPOINT` has the declared "
        "`params`.",
    ),
    "schema_too_costly": RefusalKind(
        422,
        "to check the data by the endpoint's `schema` takes too long, or too much memory",
        "Look for what the schema makes costly: a pattern with a repetition in a repetition, an "
        "`anyOf` that leads back to itself. Send large batches in smaller parts.",
    ),
    "invalid_payload": RefusalKind(
        422,
        "the request or payload cannot be built",
        "Look with `orchestratord explain ENDPOINT` at what the templates make of these params.",
    ),
    "idempotency_key_reused": RefusalKind(
        422,
        "the key was used at this endpoint, with other parameters",
        "Use a key of its own for each call that is another one. If it is the same one, its "
        "params must not change.",
    ),
    "bad_config": RefusalKind(
        422,
        "the configuration is not good; `errors` names everything",
        "Correct what `errors` names, with file and line; `orchestratord check` says the same.",
    ),
    "if_match_required": RefusalKind(
        428,
        "If-Match is missing",
        "Read the webhooks first, and send their `ETag` as `If-Match`.",
    ),
    "head_too_large": RefusalKind(
        431,
        "line and headers are larger than 64 KiB",
        "Send fewer or shorter headers and cookies.",
    ),
    "internal": RefusalKind(
        500,
        "the daemon failed; its log says more",
        "Look into the log at that moment: it has the traceback. It is a bug; please report it.",
    ),
    "plugin_fault": RefusalKind(
        500,
        "a plugin failed; the daemon's log says more",
        "Look into the log at that moment: it names the plugin. Its author can help.",
    ),
    "not_ready": RefusalKind(
        503,
        "no new work would be carried out now; `errors` says why",
        "Look up each `key` of `errors` in [troubleshooting](troubleshooting.md#by-code).",
    ),
    "stopping": RefusalKind(
        503,
        "the daemon is being stopped",
        "Ask again in a moment: systemd or the orchestrator starts it again. Where it ends "
        "for good, nothing was lost.",
    ),
    "busy": RefusalKind(
        503,
        "there are too many connections or large bodies; ask again",
        "Ask again after `Retry-After`. Keep connections open and use them again, and send "
        "batches.",
    ),
    "too_many_followers": RefusalKind(
        503,
        "as many clients as can follow the events do so",
        "End followers that are not needed (`orchestratorctl events`, open dashboards), or "
        "share one.",
    ),
    "shortage": RefusalKind(
        503,
        "the daemon has no file descriptor, or no memory, left for this request",
        "Raise `LimitNOFILE=` and `MemoryMax=` of the unit; `orchestratord doctor` shows what"
        " they are.",
    ),
    "memory_exhausted": RefusalKind(
        503,
        "the daemon has no memory left for this request",
        "Raise `MemoryMax=`, or lower `concurrency` and `max_response`.",
    ),
    "database_unreachable": RefusalKind(
        503,
        "the database cannot be reached now",
        "Look at the PostgreSQL server and the way to it; the daemon goes on as soon as it is"
        " back.",
    ),
    "database_locked": RefusalKind(
        503,
        "another program holds the database",
        "End the program whose pid `detail` names: a backup by `cp`, or a `sqlite3` with an "
        "open transaction.",
    ),
    "storage_read_only": RefusalKind(
        503,
        "the disk cannot be written to",
        "Make the file and its file system writable for the daemon's user.",
    ),
    "storage_error": RefusalKind(
        503,
        "the disk fails",
        "Look into the kernel's log (`dmesg`) before anything else, and copy what you can.",
    ),
    "database_damaged": RefusalKind(
        503,
        "the database is damaged; the daemon ends",
        "Stop the daemon, keep a copy, and restore a [backup](operations.md#backups).",
    ),
    "database_gone": RefusalKind(
        503,
        "the file of the database is gone; the daemon ends",
        "Put the file back, if you have moved it. The next start uses what is there.",
    ),
    "fatal": RefusalKind(
        503,
        "the daemon ends, for what its log says",
        "Look at the log's last lines. Under systemd it is started again, and goes on with "
        "what was under way.",
    ),
    "storage_full": RefusalKind(
        507,
        "the disk has no room for new work",
        "Make room on the disk, then shorten `retention`; to delete tasks frees nothing at once.",
    ),
}
"""The `code` of a problem → the status of the answer, what has happened, and what to do."""

# All at once: where no file can be opened any more, an answer has to say so.
_TYPES = {code: doc_links.problem(code) for code in PROBLEMS}

_CODES: tuple[tuple[type[OrchestratordError], str], ...] = (
    (NotFound, "not_found"),
    (Overtaken, "overtaken"),
    (Replaced, "replaced"),
    (UpgradeUnderWay, "upgrade_under_way"),
    (Conflict, "conflict"),
    (OutboxUnusable, "outbox_unusable"),
    (SchemaTooCostly, "schema_too_costly"),
    (InvalidParams, "invalid_params"),
    (InvalidPayload, "invalid_payload"),
    (UniqueKeyReused, "idempotency_key_reused"),
    (ConfigError, "bad_config"),
    (NotWritable, "not_writable"),
    (Outdated, "outdated"),
    (Unconditional, "if_match_required"),
    (StorageFull, "storage_full"),
    (Stopping, "stopping"),
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


def type_of(code: str) -> str:
    """The `type` of a problem: the address at which the documentation explains it."""
    return _TYPES[code]


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
            "type": type_of(self.code),
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
