"""The relay's connection to the outbox: in the queue's PostgreSQL, or in an application's.

It is one of asyncio's, on the daemon's loop: what it asks is small, and no transaction of the queue
waits for it. It keeps nothing in its session but LISTEN, without which a pooler does as well.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import errors as pg

from orchestratord import OrchestratordError, OutboxUnusable, PostgresServer, Unreachable
from orchestratord_outbox.declaration import RowsUnreadable
from orchestratord_outbox.outbox_schema import CHANNEL, MISSING

ANOTHER = (
    "the table orchestratord_outbox is another one, of the same name: rename it, or make the "
    "outbox in a schema of its own with `orchestratord outbox schema --schema NAME | psql …`"
)
LOOK_BYTES = 8 << 20
"""Of parameters that are read at once, about; a single row may have more."""
LARGEST = 64 << 20
"""Bytes of parameters that are not even read: no setting allows so many."""
ANSWER_WITHIN = 30.0
"""Seconds for each statement, which only finds a few rows; others may have locked the table."""

BEGIN: LiteralString = """
BEGIN READ ONLY; SELECT set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)
"""
"""Before `LOOK`, so that it goes along the index of what waits and ends after the first rows: by
its statistics, which lag behind an outbox, PostgreSQL would read and sort all of them."""

LOOK: LiteralString = """
SELECT id, uid::text, left(endpoint, 1000), CASE WHEN size <= $2 THEN params::text END,
    left(key, 300), extract(epoch FROM delay)::float8 - CASE WHEN first_try IS NULL THEN
        (extract(epoch FROM clock_timestamp()) - extract(epoch FROM created_at))::float8 ELSE 0 END,
    first_try
FROM (SELECT NULL::timestamptz AS at) AS lacking, (
    SELECT *, sum(size) OVER (ORDER BY id) AS together FROM (
        SELECT *, octet_length(params::text) AS size FROM (
            SELECT *, sum(pg_column_size(params)) OVER (ORDER BY id) AS stored
            FROM orchestratord_outbox
            WHERE refused_at IS NULL AND coalesce(id = $4, true) AND id <> ALL($5::bigint[])
            ORDER BY id LIMIT $1
        ) AS first WHERE stored - pg_column_size(params) < $3
    ) AS next
) AS waiting, LATERAL (
    SELECT extract(epoch FROM at)::float8 * 1000 AS first_try
    FROM orchestratord_outbox AS own WHERE own.id = waiting.id
) AS timed WHERE together - size < $3 ORDER BY id
"""
"""Whatever is committed, whichever ids it has: one that was drawn early may be committed late. What
is stored is measured first, without being read; the rows whose parameters are read are few then.
In an outbox that was made before there was `at`, that name is the one of `lacking`."""

FIRST: LiteralString = """
SELECT id, uid::text, left(endpoint, 1000), NULL, left(key, 300), extract(epoch FROM delay)::float8
    - (extract(epoch FROM clock_timestamp()) - extract(epoch FROM created_at))::float8, NULL
FROM orchestratord_outbox WHERE refused_at IS NULL ORDER BY id LIMIT 1
"""

REMOVE: LiteralString = """
DELETE FROM orchestratord_outbox WHERE id IN (
    SELECT id FROM orchestratord_outbox
    WHERE id = ANY($1) AND coalesce(refused_at, 'infinity') = 'infinity' FOR UPDATE SKIP LOCKED
) RETURNING id
"""

FREE: LiteralString = """
SELECT id FROM orchestratord_outbox WHERE id = ANY($1) FOR UPDATE SKIP LOCKED
"""

REFUSE: LiteralString = """
UPDATE orchestratord_outbox SET refused_at = now(), reason = $3, problem = $4::jsonb
WHERE id = $1 AND uid = $2::uuid AND refused_at IS NULL RETURNING id
"""

KNOWN: LiteralString = "SELECT uid::text FROM orchestratord_outbox WHERE uid = ANY($1::uuid[])"

FORGET: LiteralString = """
DELETE FROM orchestratord_outbox WHERE id IN (
    SELECT id FROM orchestratord_outbox WHERE refused_at < now() - make_interval(secs => $1)
    ORDER BY refused_at LIMIT 1000
)
"""

COUNT: LiteralString = """
SELECT (SELECT count(*) FROM (SELECT FROM orchestratord_outbox
        WHERE refused_at IS NULL LIMIT 100000) AS waiting),
    (SELECT count(*) FROM (SELECT FROM orchestratord_outbox
        WHERE refused_at IS NOT NULL LIMIT 100000) AS refused)
"""

LIST: LiteralString = """
SELECT id, left(endpoint, 1000), CASE WHEN pg_column_size(params) < 1000000
        THEN left(params::text, 4000) ELSE '"too large to be shown"' END,
    left(key, 300), (extract(epoch FROM created_at) * 1000)::bigint,
    (extract(epoch FROM refused_at) * 1000)::bigint, left(reason, 100),
    CASE WHEN pg_column_size(problem) < 100000 THEN problem::text END
FROM orchestratord_outbox WHERE id < $2 AND ($3::boolean IS NULL OR (refused_at IS NOT NULL) = $3)
ORDER BY id DESC LIMIT $1
"""

RIGHTS: LiteralString = """
SELECT count(*) FILTER (WHERE has_table_privilege(oid, 'SELECT')
    AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE')), count(*)
FROM pg_class WHERE oid = to_regclass('orchestratord_outbox')
"""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A row that was committed, and made no task yet."""

    id: int
    uid: str
    endpoint: str
    params: str | None
    """JSON; None where it is larger than `LARGEST`, or was not read."""
    key: str | None
    """Cut where it is longer than any may be."""
    delay: float
    """Seconds until it is due, counted from now; what is past is negative. With `at`: as it stands
    there."""
    at: float | None = None
    """When it is due instead, milliseconds since the epoch."""


@dataclass(frozen=True, slots=True)
class ListedRow:
    """A row as it is shown. Times are milliseconds since the epoch."""

    id: int
    endpoint: str
    params: str
    """JSON, cut after 4,000 characters; where it is very large, a text that says so."""
    key: str | None
    created_at: int
    """When its transaction began."""
    refused_at: int | None
    reason: str | None
    problem: str | None
    """JSON, as the API would have answered; None where it is larger than the relay writes it."""


class OutboxConnection:
    """One connection, used by one task at a time. Its methods raise Unreachable where it is lost,
    and OutboxUnusable where there is no outbox, or the database refuses it."""

    def __init__(self, raw: psycopg.AsyncConnection[Any]) -> None:
        """Use `connect`."""
        self._raw = raw
        self._heard = False
        raw.add_notify_handler(lambda _: setattr(self, "_heard", True))

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str) -> AsyncIterator[OutboxConnection]:
        """Connect to the PostgreSQL at `url`, where the outbox is in the search path."""
        try:
            raw = await psycopg.AsyncConnection.connect(
                PostgresServer(url).conninfo,
                autocommit=True,
                cursor_factory=psycopg.AsyncRawCursor,
                prepare_threshold=None,
            )
        except psycopg.Error as error:
            raise Unreachable(_first_line(error)) from None
        try:
            yield cls(raw)
        finally:
            await raw.close()

    async def listen(self) -> None:
        """Hear of what is committed from now on, where the trigger tells of it; not behind a pooler
        that gives each transaction another session, since that one would not be heard of."""
        [(pid,)] = await self._run("SELECT pg_backend_pid()")
        if pid == self._raw.info.backend_pid:
            await self._run("LISTEN " + CHANNEL)

    async def wait(self, seconds: float) -> None:
        """Wait until something was told, for so long at most."""
        loop, told = asyncio.get_running_loop(), asyncio.Event()
        if not self._heard:
            wire = self._raw.fileno()
            loop.add_reader(wire, told.set)
            try:
                async with asyncio.timeout(seconds):
                    await told.wait()
            except TimeoutError:
                return
            finally:
                loop.remove_reader(wire)
            try:
                self._raw.pgconn.consume_input()
            except psycopg.Error as error:
                raise _named(error) from None
            while self._raw.pgconn.notifies():
                pass
        self._heard = False

    async def look(
        self, limit: int, id_: int | None = None, passed: Collection[int] = ()
    ) -> list[OutboxRow]:
        """The next rows that are committed, in the order of their ids, at most so many; or the one
        with this id, if it waits. `passed`: those to be passed over.

        Raises RowsUnreadable where fewer of them may be read all the same. The connection may be
        closed then.
        """
        try:
            await self._run(BEGIN)
            found = await self._ask(LOOK, limit, LARGEST, LOOK_BYTES, id_, list(passed))
        except TimeoutError:
            raise RowsUnreadable(f"rows were not read in {ANSWER_WITHIN:g} s") from None
        except psycopg.Error as error:
            if _is_lost(error) or isinstance(error, psycopg.ProgrammingError):
                raise _named(error) from None
            raise RowsUnreadable(f"rows cannot be read: {_first_line(error)}") from None
        finally:
            if not self._raw.closed:
                await self._run("ROLLBACK")
        return [OutboxRow(*row) for row in found]

    async def first(self) -> OutboxRow | None:
        """The next row, without its parameters; None where none waits."""
        found = await self._run(FIRST)
        return OutboxRow(*found[0]) if found else None

    async def remove(self, ids: Sequence[int]) -> set[int]:
        """Delete rows whose tasks are on disk; which were not locked by others."""
        return {id_ for (id_,) in await self._run(REMOVE, list(ids))}

    async def free(self, ids: Sequence[int]) -> set[int]:
        """Those of these rows that others have not locked."""
        return {id_ for (id_,) in await self._run(FREE, list(ids))}

    async def refuse(self, id_: int, uid: str, reason: str, problem: dict[str, Any]) -> bool:
        """Mark a row that makes no task: why, in a word and as the API would have answered. False
        where it was marked before, or is gone."""
        text = json.dumps(_without_nul(problem), ensure_ascii=True, default=str)
        return bool(await self._run(REFUSE, id_, uid, reason, text))

    async def known(self, uids: Sequence[str]) -> set[str]:
        """Which of these rows are still there."""
        return {uid for (uid,) in await self._run(KNOWN, list(uids))}

    async def forget(self, seconds: float) -> None:
        """Delete what was refused so long ago, 1,000 rows at most."""
        await self._run(FORGET, seconds)

    async def count(self) -> tuple[int, int]:
        """How many rows wait, and how many were refused; 100,000 stands for more as well."""
        [(waiting, refused)] = await self._run(COUNT)
        return waiting, refused

    async def rows(self, limit: int, before: int, refused: bool | None) -> list[ListedRow]:
        """Rows with ids below `before`, the newest first: those that were refused, those that were
        not, or (None) all."""
        return [ListedRow(*row) for row in await self._run(LIST, limit, before, refused)]

    async def has_queue(self) -> bool:
        """Whether a queue was made here."""
        [(there,)] = await self._run("SELECT to_regclass('retry_schedule') IS NOT NULL")
        return bool(there)

    async def rights(self) -> bool:
        """Whether the relay's user may do all of this. Raises OutboxUnusable."""
        [(allowed, there)] = await self._run(RIGHTS)
        if not there:
            raise OutboxUnusable(MISSING)
        return bool(allowed)

    async def _run(self, statement: LiteralString, *values: Any) -> list[Any]:
        try:
            return await self._ask(statement, *values)
        except TimeoutError:
            raise Unreachable(f"its database did not answer in {ANSWER_WITHIN:g} s") from None
        except psycopg.Error as error:
            raise _named(error) from None

    async def _ask(self, statement: LiteralString, *values: Any) -> list[Any]:
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                cursor = await self._raw.execute(statement, values or None)
                return await cursor.fetchall() if cursor.description else []
        except TimeoutError:
            await self._raw.close()
            raise


def run_statements(url: str, text: str) -> None:
    """Run statements in one transaction, in the PostgreSQL at `url`. Raises OutboxUnusable."""
    try:
        with psycopg.connect(PostgresServer(url).conninfo) as raw:
            raw.execute(text.encode())
    except psycopg.Error as error:
        raise OutboxUnusable(_first_line(error)) from None


def _is_lost(error: psycopg.Error) -> bool:
    """Whether the connection is gone, or the server does not want it."""
    if isinstance(error, psycopg.OperationalError):
        return error.sqlstate is None or error.sqlstate[:3] == "57P" or error.sqlstate[:2] == "08"
    return isinstance(error, pg.ReadOnlySqlTransaction | pg.IdleInTransactionSessionTimeout)


def _named(error: psycopg.Error) -> OrchestratordError:
    if isinstance(error, pg.UndefinedTable):
        return OutboxUnusable(MISSING)
    if isinstance(error, pg.UndefinedColumn):
        return OutboxUnusable(f"{ANOTHER} ({_first_line(error)})")
    if _is_lost(error):
        return Unreachable(_first_line(error))
    return OutboxUnusable(_first_line(error))


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _without_nul(value: Any) -> Any:
    """A JSON-like value without what PostgreSQL cannot hold in jsonb."""
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, dict):
        return {_without_nul(name): _without_nul(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nul(item) for item in value]
    return value
