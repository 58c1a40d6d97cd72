"""Carries out the calls of endpoints with `type: sql`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import httpx

from orchestratord import (
    Config,
    Endpoint,
    Executor,
    Expression,
    InvalidPayload,
    Need,
    Outcome,
    Parked,
    Send,
    Standing,
    Statement,
    Target,
    Task,
    world,
)
from orchestratord_sql.connection_pool import ConnectionPool, Stopped
from orchestratord_sql.declaration import DATABASES, DeclaredDatabase, SqlSpec
from orchestratord_sql.placeholders import reads_only, scan
from orchestratord_sql.statement_run import (
    Driver,
    QueryResult,
    StatementCancelled,
    StatementFailed,
    StatementRun,
    fake_answer,
)

STOPPED = "the daemon was stopped, and the statement cancelled before it was committed"
CLOSING = 1.0
"""Seconds that connections have to be closed when the daemon ends."""
_PROBE = {"sqlite": "SELECT count(*) FROM sqlite_master", "postgresql": "SELECT 1"}
"""What looks into a database; SQLite opens a file before it has seen what is in it."""
_PROBE_TIMEOUT = 5.0
"""Seconds that a database has to answer when `doctor` looks whether it is there."""


@dataclass(frozen=True, slots=True)
class DatabaseTarget:
    """Where the statements of an endpoint are carried out."""

    name: str
    database: DeclaredDatabase
    folder: Path


class SqlExecutor(Executor):
    """One statement, in a transaction of its own, by a connection of the database's pool."""

    kind: ClassVar[str] = "call"
    type: ClassVar[str] = "sql"
    phases: ClassVar[tuple[str, str]] = ("before_execute", "after_execute")
    model: ClassVar[Any] = SqlSpec

    def __init__(self) -> None:
        self._pools: dict[str, tuple[DatabaseTarget, ConnectionPool]] = {}

    def default_idempotent(self, spec: SqlSpec) -> bool:
        """Whether a repeat is safe, where the endpoint does not say: only for what only reads."""
        return reads_only(spec.statement)

    def connections(self) -> dict[tuple[str, ...], float]:
        """How many there are, by the name of the database."""
        return {(name,): pool.connections for name, (_, pool) in self._pools.items()}

    def adopt(self, config: Config) -> None:
        """Close the connections to databases that are not declared any more, or otherwise."""
        databases = config[DATABASES]
        for name, (place, pool) in list(self._pools.items()):
            if databases.get(name) != place.database:
                del self._pools[name]
                pool.retire()

    async def close(self) -> None:
        threads = [item for _, pool in self._pools.values() for item in pool.retire()]
        self._pools.clear()
        ends = world.monotonic() + CLOSING
        for thread in threads:
            await asyncio.to_thread(thread.join, max(ends - world.monotonic(), 0.0))

    def standing(self, endpoint: Endpoint, webhook: str, config: Config) -> Standing:
        name = endpoint.spec.database
        database = config[DATABASES].get(name)
        if database is None:
            return Parked(f"the database {name!r} is not declared")
        return Target(
            endpoint=endpoint,
            retry=endpoint.retry,
            timeout=endpoint.timeout,
            idempotent=endpoint.idempotent,
            lane=f"db:{name}",
            concurrency=database.concurrency,
            egress=(),
            detail=DatabaseTarget(name, database, config.folder),
        )

    def prepare(self, task: Task, target: Target, now: float) -> Statement:
        spec: SqlSpec = target.endpoint.spec
        place: DatabaseTarget = target.detail
        names = scan(spec.statement, place.database.url.dialect).names
        return Statement(place.name, spec.statement, _values(names, task.params))

    async def execute(self, request: Any, task: Task, target: Target, send: Send) -> Outcome:
        statement: Statement = request
        place: DatabaseTarget = target.detail
        scanned = scan(statement.text, place.database.url.dialect)
        # A hook may have changed it.
        if statement.database != place.name:
            return _rejected(f"a hook named the database {statement.database!r} in its place")
        if scanned.problems:
            return _rejected(f"the statement {scanned.problems[0].message}")
        try:
            values = _values(scanned.names, statement.params)
        except InvalidPayload as error:
            return _rejected(str(error))
        result = QueryResult(target.endpoint.api.max_response)
        accept = partial(_judge, result.data, target.endpoint.spec.success_if)
        run = StatementRun(scanned, values, target.timeout, result, accept)
        try:
            await self._pool(place).execute(run)
        except StatementFailed as failure:
            return _failed(failure, target)
        except Stopped as stopped:
            end = stopped.end
            if target.idempotent or (isinstance(end, StatementFailed) and end.maybe_done):
                # The rule for a daemon that stops: back to pending, or a person has to look.
                raise asyncio.CancelledError from None
            running = asyncio.current_task()
            assert running is not None
            running.uncancel()
            if not isinstance(end, StatementFailed) or end.retryable:
                end = StatementFailed(STOPPED, retryable=True)
            return _failed(end, target)
        return Outcome("success", "ok", result.response(), answered=True)

    def pretend(self, request: Any, target: Target, body: Any) -> Outcome:
        statement: Statement = request
        answer = fake_answer(body, reads=reads_only(statement.text))
        try:
            _judge(lambda: answer, target.endpoint.spec.success_if)
        except StatementFailed as failure:
            return _failed(failure, target)
        return Outcome("success", "ok", httpx.Response(200, json=answer), answered=True)

    def needs(self, config: Config) -> Iterator[Need]:
        for name, database in config[DATABASES].items():
            dialect = database.url.dialect
            scanned = scan(_PROBE[dialect], dialect)
            run = StatementRun(scanned, {}, _PROBE_TIMEOUT, QueryResult(1000))
            try:
                connection = _connect(DatabaseTarget(name, database, config.folder), run)
                try:
                    connection.execute(run)
                finally:
                    connection.close()
            except (StatementFailed, StatementCancelled) as failure:
                yield Need(
                    f"the database {name}",
                    getattr(failure, "message", f"it does not answer within {_PROBE_TIMEOUT:g}s"),
                    "its statements fail or wait meanwhile; mend it, or its url under databases",
                )
            else:
                yield Need(f"the database {name} answers")

    def _pool(self, place: DatabaseTarget) -> ConnectionPool:
        known, pool = self._pools.get(place.name, (None, None))
        if pool is None or known != place:
            if pool is not None:
                pool.retire()
            turns = place.database.url.dialect == "sqlite"
            pool = ConnectionPool(place.name, partial(_connect, place), turns=turns)
            self._pools[place.name] = (place, pool)
        return pool


def _values(names: tuple[str, ...], params: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the parameters that a statement has. Raises InvalidPayload."""
    missing = [name for name in names if name not in params]
    if missing:
        raise InvalidPayload(f"the statement has :{missing[0]}, and the task no such parameter")
    return {name: _value(params[name]) for name in names}


def _value(value: Any) -> Any:
    """What is bound: a list or a mapping as its JSON."""
    if isinstance(value, list | tuple | dict | Mapping):
        return json.dumps(value, ensure_ascii=False, default=dict)
    return value


def _judge(answer: Callable[[], Any], success_if: Expression | None) -> None:
    """Raise StatementFailed where the answer is not what the endpoint wants."""
    if success_if is None:
        return
    try:
        holds = success_if.holds(answer())
    except ValueError as error:
        raise StatementFailed(
            f"success_if cannot be told: {error}; rolled back", retryable=False
        ) from None
    if not holds:
        words = f"success_if does not hold: {success_if.source}; rolled back"
        raise StatementFailed(words, retryable=False)


def _connect(place: DatabaseTarget, run: StatementRun) -> Driver:
    """Open a connection. A driver is imported when its first statement is executed."""
    url = place.database.url
    if url.dialect == "sqlite":
        from orchestratord_sql.sqlite_driver import SqliteDriver

        return SqliteDriver(url.path(place.folder), run)
    from orchestratord_sql.postgresql_driver import PostgresqlDriver

    return PostgresqlDriver(url.text, run)


def _rejected(error: str) -> Outcome:
    return Outcome("failure", "error", error=error, final_reason="rejected")


def _failed(failure: StatementFailed, target: Target) -> Outcome:
    if failure.shortage:
        what = f"{failure.message} (no file descriptor is left)"
        return Outcome("retry", "error", error=what, shortage=True)
    return Outcome(
        "retry" if failure.retryable and "error" in target.retry.when else "failure",
        "error",
        error=failure.message,
        maybe_done=failure.maybe_done,
        # Where it makes no difference whether `when` covers an error, nothing is said of that.
        final_reason=None if failure.retryable else "not_retryable",
        unreached=failure.unreached,
    )
