"""Statements on databases: `type: sql`.

An endpoint of this type has a statement in the place of a request. It goes through the same
lifecycle, with the phases before_execute and after_execute, and waits and is retried the same way.

    declaration         what the YAML declares        checks           what `check` finds
    placeholders        where parameters stand        statement_run    a statement, and its answer
    statement_executor  one attempt                   connection_pool  connections, and deadlines
    sqlite_driver, postgresql_driver                  the databases

An attempt goes from the executor to the pool, to the thread of a connection, to a driver, and back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orchestratord import Config, DaemonSetting, Endpoint, Executor, Gauge, Problem, hookimpl
from orchestratord_sql import checks
from orchestratord_sql.declaration import DATABASES
from orchestratord_sql.statement_executor import SqlExecutor

__all__ = ["DATABASES"]

statements = SqlExecutor()


@hookimpl
def register_daemon_settings() -> Iterable[DaemonSetting[Any]]:
    return (DATABASES,)


@hookimpl
def register_executor() -> Iterable[Executor]:
    return (statements,)


@hookimpl
def register_metrics() -> Iterable[Gauge]:
    meaning = "Connections to the databases of endpoints, also those that wait for a statement."
    return (
        Gauge("sql_connections", meaning, statements.connections, ("database",), workers="sum"),
    )


@hookimpl
def check_endpoint(endpoint: Endpoint, config: Config) -> Iterable[Problem]:
    return checks.problems(endpoint, config)


@hookimpl
def config_adopted(config: Config) -> None:
    statements.adopt(config)
