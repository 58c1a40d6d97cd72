"""The rows of the outbox over the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from orchestratord import (
    Answer,
    Config,
    InvalidParams,
    NotFound,
    OutboxUnusable,
    described,
    parse_json,
    rfc3339,
    suggest,
)
from orchestratord_outbox.outbox_relay import CUT, OutboxRelay, words

if TYPE_CHECKING:  # psycopg is an extra
    from orchestratord_outbox.outbox_connection import ListedRow

MOST = 1_000
"""Rows of a page."""
MAX_ID = (1 << 63) - 1
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class OutboxQuery(TypedDict, total=False):
    """Which rows of the outbox."""

    status: Annotated[str, Field(json_schema_extra={"enum": ["waiting", "refused"]})]
    limit: Annotated[int, Field(ge=1, le=MOST)]
    """Rows of a page; 100 by default."""
    after: Annotated[int, Field(ge=1, le=MAX_ID)]
    """The `next` of the page before."""


@with_config(
    ConfigDict(
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [
                {
                    "id": 6,
                    "endpoint": "shop/sendOrder",
                    "status": "refused",
                    "reason": "invalid_params",
                    "error": 'id: expected a whole number, not "x"',
                    "problem": {"code": "invalid_params", "status": 422},
                    "key": "order-8",
                    "params": '{"id": "x"}',
                    "created_at": "2026-11-24T22:00:00.000Z",
                    "refused_at": "2026-11-24T22:00:00.090Z",
                }
            ]
        },
    )
)
class OutboxRowDocument(TypedDict):
    """An outbox row without a task."""

    id: int
    endpoint: str
    status: Literal["waiting", "refused"]
    reason: str | None
    error: str | None
    """The problem in one line."""
    problem: Any
    """The refusal that the API would answer."""
    key: str | None
    params: str
    """JSON, cut after 4,000 characters."""
    created_at: Time
    refused_at: Time | None


class OutboxDocument(TypedDict):
    """A page of rows of the outbox."""

    outbox: list[OutboxRowDocument]
    next: int | None
    """The `after` of the next page; null at the end."""


class OutboxRoutes:
    """The handlers."""

    def __init__(self, relay: OutboxRelay) -> None:
        self._relay = relay

    @described(
        query=OutboxQuery, answers={200: OutboxDocument}, problems=[NotFound, OutboxUnusable]
    )
    async def outbox(self, path: Mapping[str, str], query: Mapping[str, str], body: Any) -> Answer:
        """List rows of the outbox."""
        known = tuple(OutboxQuery.__annotations__)
        if unknown := [name for name in query if name not in known]:
            text = "there is no such parameter"
            raise InvalidParams({name: f"{text}{suggest(name, known)}" for name in unknown})
        limit, before = _number(query, "limit", MOST) or 100, _number(query, "after", MAX_ID)
        status = query.get("status") or None
        if status not in (None, "waiting", "refused"):
            raise InvalidParams({"status": "must be waiting or refused"})
        if (outbox := self._relay.place()) is None:
            raise NotFound("there is no outbox: the queue is in a file, and `outbox` is not set")
        from orchestratord_outbox.outbox_connection import OutboxConnection

        refused = None if status is None else status == "refused"
        async with OutboxConnection.connect(outbox.url) as connection:
            found = await connection.rows(limit + 1, before or MAX_ID, refused)
        following = found[limit - 1].id if len(found) > limit else None
        shown = [_row_json(row, self._relay.control.config) for row in found[:limit]]
        return Answer({"outbox": shown, "next": following})


def _number(query: Mapping[str, str], name: str, most: int) -> int | None:
    text = query.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:20]) <= most):
        raise InvalidParams({name: f"must be a whole number from 1 to {most}"})
    return int(text)


def _row_json(row: ListedRow, config: Config) -> OutboxRowDocument:
    text = config.redactor.text
    problem, error = None, None
    try:
        if row.problem is not None:
            problem = parse_json(row.problem)
            error = words(problem)
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
        problem = None  # the row's owner has written something else
    return {
        "id": row.id,
        "endpoint": text(row.endpoint)[:CUT],
        "status": "waiting" if row.refused_at is None else "refused",
        "reason": row.reason,
        "error": None if error is None else text(error),
        "problem": problem,
        "key": None if row.key is None else text(row.key),
        "params": text(row.params),
        "created_at": rfc3339(row.created_at),
        "refused_at": rfc3339(row.refused_at),
    }
