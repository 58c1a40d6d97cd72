"""Subscriptions: receivers that come and go at run time, each of a tenant.

A webhook with `subscribers` names a tenant; each of its subscriptions that wants the event gets a
delivery, which is a task like any other.

    declaration           what the YAML declares       subscription          a row, and its tables
    derived_secret        secrets of the key           subscription_index    which ones there are
    subscription_health   how each fares               subscription_delivery sending
    tenant_rows           changing the rows            routes                the API
    subscription_documents what the API says           checks                what `check` finds
    sent_deliveries       what a tenant sees of them   portal_port           pages for tenants
    portal_token          who may open them            tenant_api            all that is served
    tenant_verbs          those of orchestratorctl     tenant_page           that of the dashboard
    key_census            for doctor               event_matching        what a `when` lets through

An announcement of the webhooks plugin goes to the index, which makes deliveries, or the chore of a
matching that does; the executor sends them, and how they ended goes to the health.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from orchestratord_webhooks import announcer

from orchestratord import (
    Check,
    ChoreStep,
    Config,
    Control,
    Counter,
    DaemonSetting,
    Endpoint,
    Event,
    Executor,
    Outcome,
    Page,
    PortHandler,
    RecurringRows,
    Route,
    Service,
    Setting,
    StatusPart,
    Table,
    Task,
    Upsert,
    VerbRow,
    hookimpl,
    only_for,
)
from orchestratord_subscriptions.checks import check_config, check_endpoint
from orchestratord_subscriptions.declaration import ENDPOINT, PUBLIC, SUBSCRIPTIONS
from orchestratord_subscriptions.key_census import look
from orchestratord_subscriptions.subscription import CHANGES, LINKS, SUBSCRIPTION_ROWS, TENANTS
from orchestratord_subscriptions.subscription_delivery import SubscriptionDeliveries
from orchestratord_subscriptions.subscription_health import SubscriptionHealth
from orchestratord_subscriptions.subscription_index import (
    CHORE,
    TOO_COSTLY,
    UNADDRESSED,
    SubscriptionIndex,
)
from orchestratord_subscriptions.tenant_verbs import VERBS

__all__ = ["PUBLIC", "SUBSCRIPTIONS", "check_config", "check_endpoint"]

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
    return TENANTS, SUBSCRIPTION_ROWS, CHANGES, LINKS


@hookimpl
def register_metrics() -> Iterable[Counter]:
    return UNADDRESSED, TOO_COSTLY


@hookimpl
def register_chores() -> Mapping[str, ChoreStep]:
    return {CHORE: index.match}


@hookimpl
def register_routes(control: Control) -> Iterable[Route]:
    from orchestratord_subscriptions.tenant_api import ROUTES  # commands do not need it

    health.bind(control)
    index.bind(control)
    return ROUTES


@hookimpl
def register_ports(control: Control) -> Iterable[PortHandler]:
    from orchestratord_subscriptions.tenant_api import portal

    index.bind(control)  # in each worker; only the first one has routes
    return (PortHandler("subscriptions.portal", portal.admit, portal.answer),)


@hookimpl
def register_services(control: Control) -> Iterable[Service]:
    health.begin(control)
    index.bind(control)
    return (
        Service("subscriptions", index.follow, where="each"),
        Service("missed by subscriptions", partial(health.keep_missed, control)),
    )


@hookimpl
def register_status(control: Control) -> Iterable[StatusPart]:
    return (StatusPart(SUBSCRIPTIONS.key, lambda: index.census.counts),)


@hookimpl
def register_checks() -> Iterable[Check]:
    return (Check("subscriptions", look),)


@hookimpl
def register_pages(control: Control) -> Iterable[Page]:
    from orchestratord_subscriptions.tenant_api import page

    return (page,)


@hookimpl
def config_adopted() -> None:
    index.forget_events()


@hookimpl
def observe(events: Sequence[Event]) -> None:
    health.observe(events)


@hookimpl
def register_verbs() -> Iterable[VerbRow]:
    return VERBS


_of_mine = only_for(lambda kind, endpoint: endpoint.id == ENDPOINT)


@hookimpl
@_of_mine
def on_success(outcome: Outcome, task: Task) -> Sequence[Upsert] | RecurringRows:
    return health.record_success(outcome, task)


@hookimpl
@_of_mine
def on_retry(outcome: Outcome, task: Task, endpoint: Endpoint | None, config: Config) -> list[Any]:
    return health.record_failure(outcome, task, endpoint, config)


on_final_failure = on_retry
