"""Statements on databases: `type: sql`.

An endpoint of this type has a statement in the place of a request. It goes through the same
lifecycle, with the phases before_execute and after_execute, and waits and is retried the same way.

    databases      what stands in orchestratord.yaml     executor   one attempt
    declaration    what stands in an endpoint's file     pool       connections, and deadlines
    placeholders   where its parameters are              session    the thread of a connection
    checks         what `check` finds                    work       what both sides know of it
    answer         rows as JSON                          sqlite, postgresql   the databases
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orchestratord import Config, DaemonSetting, Endpoint, Executor, Problem, hookimpl
from orchestratord_sql import checks
from orchestratord_sql.databases import DATABASES
from orchestratord_sql.executor import SqlExecutor

__all__ = ["DATABASES"]

statements = SqlExecutor()


@hookimpl
def register_daemon_settings() -> Iterable[DaemonSetting[Any]]:
    return (DATABASES,)


@hookimpl
def register_executor() -> Iterable[Executor]:
    return (statements,)


@hookimpl
def check_endpoint(endpoint: Endpoint, config: Config) -> Iterable[Problem]:
    return checks.problems(endpoint, config)


@hookimpl
def config_adopted(config: Config) -> None:
    statements.adopt(config)
