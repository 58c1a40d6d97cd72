"""Refusals: what the API answers instead, as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

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
    Outdated,
    StorageFull,
    Unconditional,
    UniqueKeyReused,
    Unreachable,
)

MEDIA_TYPE = "application/problem+json"

_MEANINGS: tuple[tuple[type[OrchestratordError], int, str], ...] = (
    (NotFound, 404, "not_found"),
    (Conflict, 409, "conflict"),
    (InvalidParams, 422, "invalid_params"),
    (InvalidPayload, 422, "invalid_payload"),
    (UniqueKeyReused, 422, "idempotency_key_reused"),
    (ConfigError, 422, "bad_config"),
    (NotWritable, 403, "not_writable"),
    (Outdated, 412, "outdated"),
    (Unconditional, 428, "if_match_required"),
    (StorageFull, 507, "storage_full"),
    (Unreachable, 503, "database_unreachable"),
)
"""Error → status of the answer and its `code`, the first that fits."""


class Refusal(Exception):
    """A request is not done.

    Args:
        status: of the answer.
        code: a word for programs, such as `not_found`.
        detail: one line for a person.
        errors: what is wrong, one by one, each with `key` and `message` and, for files, its place.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})
        super().__init__(detail)

    @classmethod
    def of(cls, error: OrchestratordError) -> Refusal:
        """What an error of the daemon's means to a client; 500 for one that it should not see."""
        for kind, status, code in _MEANINGS:
            if isinstance(error, kind):
                return cls(status, code, _detail(error), errors=_errors(error))
        return cls(500, "internal", "the daemon could not do it; its log says more")

    def document(self) -> dict[str, Any]:
        """The body of the answer."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
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


def _detail(error: OrchestratordError) -> str:
    if isinstance(error, ConfigError):
        count = len(error.problems)
        what = "1 error" if count == 1 else f"{count} errors"
        return f"the configuration has {what}; the last good one goes on"
    if isinstance(error, InvalidParams):
        count = len(error.problems)
        return "1 parameter does not fit" if count == 1 else f"{count} parameters do not fit"
    return str(error)


def _errors(error: OrchestratordError) -> list[dict[str, Any]]:
    if isinstance(error, ConfigError):
        return problems_json(error.problems)
    if isinstance(error, InvalidParams):
        return [{"key": name, "message": text} for name, text in error.problems.items()]
    return []
