"""Statements that are carried out as the daemon does it, without a daemon."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from orchestratord_sql.declaration import DATABASES, DatabaseUrl, DeclaredDatabase, SqlSpec
from orchestratord_sql.statement_executor import SqlExecutor

from orchestratord import Config, Endpoint, Expression, Outcome, RetryPolicy, Target
from orchestratord.testing import Answers, Rig, task


class Bench:
    """An executor, and databases for it.

    Args:
        folder: the config folder.
        url: of the database `warehouse`.
    """

    def __init__(self, folder: Path, url: str, *, concurrency: int = 10) -> None:
        import orchestratord_sql

        self.folder = folder
        self.rig = Rig(orchestratord_sql, name="sql")
        self.executor = SqlExecutor()
        self.databases = {
            "warehouse": DeclaredDatabase(url=DatabaseUrl.parse(url), concurrency=concurrency)
        }

    @property
    def config(self) -> Config:
        config = self.rig.config(daemon={DATABASES.key: self.databases})
        return replace(config, folder=self.folder)

    def endpoint(
        self, statement: str, success_if: Expression | None = None, **keys: Any
    ) -> Endpoint:
        spec = SqlSpec(database="warehouse", statement=statement, success_if=success_if)
        keys.setdefault("idempotent", self.executor.default_idempotent(spec))
        retry = RetryPolicy.model_validate({})
        return self.rig.endpoint("shop/do", type="sql", spec=spec, **{"retry": retry, **keys})

    def target(self, statement: str, **keys: Any) -> Target:
        target = self.executor.standing(self.endpoint(statement, **keys), "", self.config)
        assert isinstance(target, Target)
        return target

    async def run(
        self, statement: str, params: Mapping[str, Any] = MappingProxyType({}), **keys: Any
    ) -> Outcome:
        """One attempt of a call."""
        return await self.run_target(self.target(statement, **keys), params)

    async def run_target(self, target: Target, params: Mapping[str, Any]) -> Outcome:
        call = task(endpoint_id="shop/do", params=params)
        prepared = self.executor.prepare(call, target, 0.0)
        return await self.executor.execute(prepared, call, target, Answers())

    def pool(self) -> Any:
        """Of the database that was used."""
        return self.executor._pools["warehouse"][1]


def rows(path: Path, statement: str) -> list[tuple[Any, ...]]:
    """What stands in a database of SQLite."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def script(path: Path, statements: str) -> None:
    """Execute statements on a database of SQLite, which is made where it is not there."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)
