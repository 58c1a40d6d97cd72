"""Calls that are made in a transaction of the application's own PostgreSQL.

They go through the outbox: the database's function `orchestratord_enqueue`, which
`orchestratord outbox schema` prints. The daemon need not be there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from datetime import timedelta
from typing import Any, LiteralString, Protocol

from orchestratord_client.protocol import Moment, moment_text

_ENQUEUE: LiteralString = (
    "SELECT orchestratord_enqueue(%s, %s::jsonb, key => %s, delay => make_interval(secs => %s))"
)

_ENQUEUE_AT: LiteralString = "SELECT orchestratord_enqueue_at(%s, %s::timestamptz, %s::jsonb, %s)"


class Cursor(Protocol):
    """A cursor of the DB-API."""

    def execute(self, query: LiteralString, params: tuple[Any, ...], /) -> object: ...
    def fetchone(self) -> Any: ...
    def close(self) -> object: ...


class Connection(Protocol):
    """A connection of the DB-API to PostgreSQL, such as psycopg's or psycopg2's."""

    def cursor(self) -> Cursor: ...


class AsyncCursor(Protocol):
    """A cursor of psycopg's AsyncConnection."""

    async def execute(self, query: LiteralString, params: tuple[Any, ...], /) -> object: ...
    async def fetchone(self) -> Any: ...
    async def close(self) -> object: ...


class AsyncConnection(Protocol):
    """psycopg's AsyncConnection."""

    def cursor(self) -> AsyncCursor: ...


def enqueue(
    connection: Connection,
    endpoint: str,
    params: Mapping[str, Any] | None = None,
    *,
    key: str | None = None,
    delay: float | timedelta | None = None,
    at: Moment | None = None,
) -> int:
    """Make a call in the transaction that `connection` is in.

    With its commit the call is due; after a rollback it has never been. What the daemon refuses of
    it, such as parameters that do not fit, is marked in the outbox and raises nothing here.

    Args:
        connection: to the database with the outbox.
        endpoint: `api/name`.
        params: its parameters: what JSON can say.
        key: as of `Client.call`. Left out: none, since the transaction makes it once.
        delay: until the first try: seconds or a timedelta, from the beginning of the transaction.
        at: when the first try is due, instead of `delay`: as of `Client.call`.

    Returns:
        Its id in the outbox, which is not the task's.

    Raises:
        TypeError: `connection` is none, such as a session of SQLAlchemy.

    It also raises what the database's driver raises, as where there is no outbox.
    """
    _check(connection)
    with closing(connection.cursor()) as cursor:
        cursor.execute(*_statement(endpoint, params, key, delay, at))
        return _id(cursor.fetchone())


async def enqueue_async(
    connection: AsyncConnection,
    endpoint: str,
    params: Mapping[str, Any] | None = None,
    *,
    key: str | None = None,
    delay: float | timedelta | None = None,
    at: Moment | None = None,
) -> int:
    """As `enqueue`, for psycopg's AsyncConnection."""
    _check(connection)
    cursor = connection.cursor()
    try:
        await cursor.execute(*_statement(endpoint, params, key, delay, at))
        return _id(await cursor.fetchone())
    finally:
        await cursor.close()


def _check(connection: object) -> None:
    if not hasattr(connection, "cursor"):
        raise TypeError(
            f"enqueue takes a connection of the DB-API, not {type(connection).__name__}; pass"
            " session.connection().connection of SQLAlchemy, or django.db.connection"
        )


def _statement(
    endpoint: str,
    params: Mapping[str, Any] | None,
    key: str | None,
    delay: float | timedelta | None,
    at: Moment | None,
) -> tuple[LiteralString, tuple[Any, ...]]:
    text = json.dumps(dict(params or {}), allow_nan=False)
    if at is None:
        seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
        return _ENQUEUE, (endpoint, text, key, seconds)
    if delay is not None:
        raise ValueError("give delay or at, not both")
    return _ENQUEUE_AT, (endpoint, moment_text(at), text, key)


def _id(row: Any) -> int:
    """The one value of a row, however the connection makes rows."""
    return int(next(iter(row.values())) if isinstance(row, Mapping) else row[0])
