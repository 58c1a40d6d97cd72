"""Subscriptions: receivers that come and go at run time, each of a tenant.

A webhook with `subscribers` names a tenant; each of its subscriptions that wants the event gets a
delivery, which is a task like any other.

    declaration           what the YAML declares       subscription          a row, and its tables
    derived_secret        secrets of the key           subscription_index    which ones there are
    subscription_health   how each fares               subscription_delivery sending
    tenant_service        what can be done with them   routes                the API
    subscription_documents what the API says           checks                what `check` finds
    tenant_verbs          those of orchestratorctl     tenant_page           that of the dashboard

An announcement of the webhooks plugin goes to the index, which makes deliveries; the executor sends
them, and how they ended goes to the health.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from orchestratord_webhooks import announcer

from orchestratord import (
    Config,
    Control,
    Counter,
    DaemonSetting,
    Delete,
    Endpoint,
    Event,
    Executor,
    Outcome,
    Page,
    Problem,
    RecurringRows,
    Route,
    Service,
    Setting,
    Table,
    Task,
    Upsert,
    VerbRow,
    hookimpl,
    only_for,
)
from orchestratord_subscriptions import checks
from orchestratord_subscriptions.declaration import ENDPOINT, PUBLIC, SUBSCRIPTIONS
from orchestratord_subscriptions.routes import SubscriptionRoutes
from orchestratord_subscriptions.subscription import (
    CHANGES,
    REQUESTS,
    SUBSCRIPTION_ROWS,
    TENANTS,
)
from orchestratord_subscriptions.subscription_delivery import SubscriptionDeliveries
from orchestratord_subscriptions.subscription_health import SubscriptionHealth
from orchestratord_subscriptions.subscription_index import UNADDRESSED, SubscriptionIndex
from orchestratord_subscriptions.tenant_page import tenant_page
from orchestratord_subscriptions.tenant_service import TenantService
from orchestratord_subscriptions.tenant_verbs import VERBS

__all__ = ["PUBLIC", "SUBSCRIPTIONS"]

health = SubscriptionHealth(lambda: executor.now(), lambda since: executor.skipped_since(since))
index = SubscriptionIndex(health)
executor: SubscriptionDeliveries = SubscriptionDeliveries(index)
announcer.to_subscribers = index.deliveries


@hookimpl
def register_settings() -> Iterable[Setting[Any]]:
    return (PUBLIC,)


@hookimpl
def register_daemon_settings() -> Iterable[DaemonSetting[Any]]:
    return (SUBSCRIPTIONS,)


@hookimpl
def register_executor() -> Iterable[Executor]:
    return (executor,)


@hookimpl
def register_tables() -> Iterable[Table]:
    return TENANTS, SUBSCRIPTION_ROWS, CHANGES, REQUESTS


@hookimpl
def register_metrics() -> Iterable[Counter]:
    return (UNADDRESSED,)


@hookimpl
def register_routes(control: Control) -> Iterable[Route]:
    index.bind(control)
    health.bind(control)
    return SubscriptionRoutes(TenantService(control, index)).all()


@hookimpl
def register_services(control: Control) -> Iterable[Service]:
    index.bind(control)  # in each worker; only the first one has routes
    return (
        Service("subscriptions", index.follow, where="each"),
        Service("missed by subscriptions", partial(health.keep_missed, control)),
    )


@hookimpl
def register_pages(control: Control) -> Iterable[Page]:
    if control.config[SUBSCRIPTIONS] is None:
        return ()
    return (tenant_page(TenantService(control, index)),)


@hookimpl
def check_endpoint(endpoint: Endpoint, config: Config) -> Iterable[Problem]:
    return checks.problems(endpoint, config)


@hookimpl
def config_adopted() -> None:
    index.forget_events()


@hookimpl
def observe(events: Sequence[Event]) -> None:
    health.observe(events)


@hookimpl
def register_verbs() -> Iterable[VerbRow]:
    return VERBS


def _mine(kind: str, endpoint: Endpoint) -> bool:
    return endpoint.id == ENDPOINT


@hookimpl
@only_for(_mine)
def on_success(outcome: Outcome, task: Task) -> list[Upsert | Delete] | RecurringRows:
    return health.record_success(outcome, task)


@hookimpl
@only_for(_mine)
def on_retry(outcome: Outcome, task: Task, endpoint: Endpoint, config: Config) -> list[Any]:
    return health.record_failure(outcome, task, endpoint, config)


@hookimpl
@only_for(_mine)
def on_final_failure(
    outcome: Outcome, task: Task, endpoint: Endpoint | None, config: Config
) -> list[Any]:
    return health.record_failure(outcome, task, endpoint, config)
