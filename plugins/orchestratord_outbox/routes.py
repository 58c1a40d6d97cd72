"""The rows of the outbox over the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from orchestratord import (
    Answer,
    Config,
    NotFound,
    OutboxUnusable,
    RequestBody,
    described,
    parse_json,
    rfc3339,
)
from orchestratord_outbox.outbox_relay import CUT, OutboxRelay, words

if TYPE_CHECKING:  # psycopg is an extra
    from orchestratord_outbox.outbox_connection import ListedRow

MOST = 1_000
"""Rows of a page."""
MAX_ID = (1 << 63) - 1
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class OutboxQuery(RequestBody):
    """Which rows of the outbox."""

    status: Literal["waiting", "refused", ""] = ""
    limit: Annotated[int, Field(ge=1, le=MOST)] = 100
    """Rows of a page."""
    after: Annotated[int, Field(ge=1, le=MAX_ID)] | None = None
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
        asked = OutboxQuery.read({name: text for name, text in query.items() if text})
        if (outbox := self._relay.place()) is None:
            raise NotFound("there is no outbox: the queue is in a file, and `outbox` is not set")
        from orchestratord_outbox.outbox_connection import OutboxConnection

        refused = asked.status == "refused" if asked.status else None
        async with OutboxConnection.connect(outbox.url) as connection:
            found = await connection.rows(asked.limit + 1, asked.after or MAX_ID, refused)
        following = found[asked.limit - 1].id if len(found) > asked.limit else None
        shown = [_row_json(row, self._relay.control.config) for row in found[: asked.limit]]
        return Answer({"outbox": shown, "next": following})


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
