"""Webhooks: signed messages to receivers about what happens to calls.

A webhook hangs on a phase and a status code. When a call gets there, `announce` returns a new
task for each webhook that waits for it, and the core writes those in the transaction that records
the phase: no event is lost, and none is told that did not happen. From then on a delivery is a
task like any other, which `Deliveries` carries out.

    declaration         what the YAML declares    announcement   from an event to deliveries
    webhook_templates   the URL, and names        envelope       what a delivery says
    event_view          what `when` sees
    signature           what is signed            delivery       sending it
    health              how each webhook fares    routes         the API
    batches             many events, one delivery attempt_counts how many failed lately
    subscribers         what goes to subscriptions
    operational_webhook what orchestratord.yaml declares, and is told of
    operational         having that told
    checks              what `check` finds

An event goes from the announcement to the envelope, a delivery from `delivery` to the receiver, and
how it ended to `health`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from orchestratord import (
    BatchMember,
    ClosedBatch,
    Config,
    Control,
    DaemonSetting,
    Delete,
    Endpoint,
    Event,
    Executor,
    NewTask,
    Outcome,
    Problem,
    Route,
    Service,
    Setting,
    Table,
    Task,
    Upsert,
    hookimpl,
    only_for,
    required,
    world,
)
from orchestratord_webhooks import batches, checks, operational
from orchestratord_webhooks.announcement import Announcer
from orchestratord_webhooks.attempt_counts import COUNTS
from orchestratord_webhooks.declaration import WEBHOOKS, MissedRule, Retry, Webhook
from orchestratord_webhooks.delivery import CONCURRENCY, Deliveries, DeliveryPlan
from orchestratord_webhooks.envelope import time_text
from orchestratord_webhooks.health import MANUALLY, TABLE, Health
from orchestratord_webhooks.operational_webhook import (
    LANE,
    OPERATIONAL_WEBHOOKS,
    members_of,
    of_held_partition,
)
from orchestratord_webhooks.signature import SigningKey
from orchestratord_webhooks.subscribers import Announcement

__all__ = [
    "CONCURRENCY",
    "MANUALLY",
    "WEBHOOKS",
    "Announcement",
    "Deliveries",
    "DeliveryPlan",
    "Health",
    "MissedRule",
    "Retry",
    "SigningKey",
    "Webhook",
    "announcer",
    "time_text",
]
"""What the plugin `subscriptions` builds on."""

health = Health(lambda: deliveries.now(), lambda since: deliveries.skipped_since(since))
deliveries: Deliveries = Deliveries(health)
teller = operational.OperationalTeller()
announcer = Announcer(health, deliveries.context)


@hookimpl
def register_settings() -> Iterable[Setting[Any]]:
    return (WEBHOOKS,)


@hookimpl
def register_daemon_settings() -> Iterable[DaemonSetting[Any]]:
    return (OPERATIONAL_WEBHOOKS,)


@hookimpl
def register_executor() -> Iterable[Executor]:
    return (deliveries,)


@hookimpl
def register_tables() -> Iterable[Table]:
    return TABLE, COUNTS


@hookimpl
def register_routes(control: Control) -> Iterable[Route]:
    from orchestratord_webhooks.routes import WebhookRoutes  # commands need no documents of the API

    teller.bind(control)
    health.bind(control)
    return WebhookRoutes(control, health, announcer).all()


@hookimpl
def register_services(control: Control) -> Iterable[Service]:
    health.begin(control)  # in each worker; only the first one has routes
    return (Service("missed deliveries", partial(health.keep_missed, control)),)


@hookimpl
def check_endpoint(endpoint: Endpoint) -> Iterable[Problem]:
    return checks.problems(endpoint)


@hookimpl
def config_adopted(
    config: Config, tables: Mapping[str, list[dict[str, Any]]], elsewhere: Collection[str]
) -> Iterable[Upsert | Delete | None]:
    return health.adopt(config, tables[TABLE.name], elsewhere)


@only_for(lambda type_: type_.recorded)
@hookimpl
def on_event(event: Event, config: Config) -> Iterable[BatchMember]:
    return members_of(event, config)


@hookimpl
def observe(events: Sequence[Event]) -> None:
    teller.observe(events)
    health.observe(events)


@hookimpl
def batch_closed(batch: ClosedBatch, config: Config) -> Iterable[NewTask]:
    made = None
    if batch.group.startswith(LANE):
        made = operational.operational_delivery(batch, config, world.time())
    elif batch.group.startswith(batches.GROUP):
        made = batches.delivery_of(batch, config, health, world.time())
    return () if made is None else (made,)


def _concerns(kind: str, endpoint: Endpoint) -> bool:
    partition = endpoint.partition
    return kind == "webhook" or (partition is not None and partition.on_failure == "hold")


@hookimpl
@required
@only_for(_concerns)
def on_final_failure(
    outcome: Outcome, task: Task, endpoint: Endpoint | None, config: Config
) -> Iterable[Upsert | BatchMember]:
    # What is told of it is written with it: its event may be lost with the daemon.
    held = of_held_partition(task, deliveries.now(), config)
    return [*held, *health.record_failure(outcome, task, endpoint, config)]


announce, explain, on_run_end = announcer.announce, announcer.explain, announcer.on_run_end
on_success, on_retry = health.record_success, health.record_failure
