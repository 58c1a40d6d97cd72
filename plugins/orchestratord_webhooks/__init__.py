"""Webhooks: signed messages to receivers about what happens to calls.

A webhook hangs on a phase and a status code. When a call gets there, `announce` returns a new
task for each webhook that waits for it, and the core writes those in the transaction that records
the phase: no event is lost, and none is told that did not happen. From then on a delivery is a
task like any other, which `Deliveries` carries out.

    declaration         what the YAML declares    announcement   from an event to deliveries
    webhook_templates   the URL, and names        envelope       what a delivery says
    signature           what is signed            delivery       sending it
    health              how each webhook fares    routes         the API
    checks              what `check` finds

An event goes from the announcement to the envelope, a delivery from `delivery` to the receiver, and
how it ended to `health`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from orchestratord import (
    Config,
    Control,
    Delete,
    Endpoint,
    Executor,
    Explanation,
    NewTask,
    Outcome,
    Problem,
    Route,
    Setting,
    Table,
    Task,
    Upsert,
    hookimpl,
    only_for,
)
from orchestratord_webhooks import checks
from orchestratord_webhooks.announcement import Announcer
from orchestratord_webhooks.declaration import WEBHOOKS, Webhook
from orchestratord_webhooks.delivery import Deliveries
from orchestratord_webhooks.health import TABLE, Health
from orchestratord_webhooks.routes import WebhookRoutes

__all__ = ["WEBHOOKS", "Webhook"]

health = Health()
deliveries = Deliveries(health)
announcer = Announcer(health, deliveries.context)


@hookimpl
def register_settings() -> Iterable[Setting[Any]]:
    return (WEBHOOKS,)


@hookimpl
def register_executor() -> Iterable[Executor]:
    return (deliveries,)


@hookimpl
def register_tables() -> Iterable[Table]:
    return (TABLE,)


@hookimpl
def register_routes(control: Control) -> Iterable[Route]:
    return WebhookRoutes(control, health, announcer).all()


@hookimpl
def check_endpoint(endpoint: Endpoint) -> Iterable[Problem]:
    return checks.problems(endpoint)


@hookimpl
def config_adopted(
    config: Config, tables: Mapping[str, list[dict[str, Any]]], elsewhere: Collection[str]
) -> Iterable[Upsert | Delete | None]:
    return health.adopt(config, tables[TABLE.name], elsewhere)


def _declares(kind: str, endpoint: Endpoint) -> bool:
    return kind == "call" and bool(endpoint[WEBHOOKS])


def _delivers(kind: str, endpoint: Endpoint) -> bool:
    return kind == "webhook"


@hookimpl
@only_for(_declares)
def announce(
    phase: str,
    outcome: Outcome | None,
    request: Any,
    task: Task,
    endpoint: Endpoint,
    next_try: int | None,
    config: Config,
) -> Iterable[NewTask]:
    return announcer.announce(phase, outcome, request, task, endpoint, next_try, config)


@hookimpl
@only_for(_declares)
def explain(
    phase: str,
    outcome: Outcome | None,
    request: Any,
    task: Task,
    endpoint: Endpoint,
    next_try: int | None,
    config: Config,
    now: float,
) -> Iterable[Explanation]:
    return announcer.explain(phase, outcome, request, task, endpoint, next_try, config, now)


@hookimpl
@only_for(_delivers)
def on_success(outcome: Outcome, task: Task, endpoint: Endpoint) -> Iterable[Upsert]:
    return health.record(outcome, task, endpoint)


@hookimpl
@only_for(_delivers)
def on_retry(outcome: Outcome, task: Task, endpoint: Endpoint) -> Iterable[Upsert]:
    return health.record(outcome, task, endpoint)


@hookimpl
@only_for(_delivers)
def on_final_failure(outcome: Outcome, task: Task, endpoint: Endpoint | None) -> Iterable[Upsert]:
    return health.record(outcome, task, endpoint)
