from __future__ import annotations

from typing import Any

import pytest
from observed import adopted, created, ended, never_ran, refused, started
from orchestratord_metrics.counts import Counts
from orchestratord_metrics.tally import Tally

from orchestratord import DaemonEvent, EndpointEvent, EventType, WebhookEvent


@pytest.fixture
def tally() -> Tally:
    return Tally()


def numbers(counts: Counts) -> dict[tuple[str, ...], float]:
    """How often, by labels."""
    return {labels: sum(found[:-1]) for labels, found in counts.copy().items()}


def test_observe_counts_a_call_that_succeeds(tally: Tally) -> None:
    tally.observe([created(), started(), ended("succeeded")])
    assert numbers(tally.created) == {("shop/get", "call"): 1}
    assert numbers(tally.attempts) == {("shop/get", "call", "2xx", "succeeded"): 1}
    assert tally.durations.copy()["shop/get", "call"][-1] == pytest.approx(0.0125)
    assert tally.lateness.copy()[("call",)][-1] == pytest.approx(0.003)
    assert not tally.retries.copy()
    assert not tally.final_failures.copy()
    assert not tally.deliveries.copy()


def test_a_retry_then_a_failure(tally: Tally) -> None:
    tally.observe([ended("retried", 503), ended("failed", 503, reason="exhausted")])
    assert numbers(tally.attempts) == {
        ("shop/get", "call", "5xx", "retried"): 1,
        ("shop/get", "call", "5xx", "failed"): 1,
    }
    assert numbers(tally.retries) == {("shop/get", "call"): 1}
    assert numbers(tally.final_failures) == {("shop/get", "call", "exhausted"): 1}


def test_what_fails_without_an_attempt_is_no_attempt(tally: Tally) -> None:
    tally.observe([never_ran("expired")])
    assert not tally.attempts.copy()
    assert not tally.durations.copy()
    assert numbers(tally.final_failures) == {("shop/get", "call", "expired"): 1}


@pytest.mark.parametrize(
    ("code", "name"),
    [(200, "2xx"), (204, "2xx"), (302, "3xx"), (404, "4xx"), (503, "5xx"), (999, "other"),
     ("error", "error"), ("ok", "ok"), (None, "none")],
)  # fmt: skip
def test_the_class_of_a_status_code(tally: Tally, code: Any, name: str) -> None:
    tally.observe([ended("snoozed", code), ended("snoozed", code)])
    assert numbers(tally.attempts) == {("shop/get", "call", name, "snoozed"): 2}


def test_deliveries_that_have_ended(tally: Tally) -> None:
    tally.observe(
        [
            created(webhook="ops"),
            started(None, webhook="ops"),
            ended("retried", 503, webhook="ops"),
            ended("snoozed", None, webhook="ops"),
            ended("succeeded", webhook="ops"),
            ended("failed", 410, webhook="ops", reason="webhook_disabled"),
            ended("cancelled", 503, webhook="ops"),
        ]
    )
    assert numbers(tally.deliveries) == {
        ("shop/get", "ops", "succeeded"): 1,
        ("shop/get", "ops", "failed"): 1,
        ("shop/get", "ops", "cancelled"): 1,
    }
    assert numbers(tally.final_failures) == {("shop/get", "webhook", "webhook_disabled"): 1}
    assert not tally.lateness.copy()


def test_configurations(tally: Tally) -> None:
    tally.observe([adopted(), refused(), refused()])
    assert numbers(tally.config_changes) == {("adopted",): 1, ("refused",): 2}


def test_all_else_that_happens_is_not_counted(tally: Tally) -> None:
    tally.observe(
        [
            DaemonEvent(EventType.DAEMON_STARTED, 0, "1"),
            EndpointEvent(EventType.ENDPOINT_PAUSED, 0, "shop/get"),
            WebhookEvent(EventType.WEBHOOK_DISABLED, 0, "shop/get", "ops"),
            ended("succeeded")._replace(type=EventType.TASK_TRIGGERED),
        ]
    )
    assert not any(counts.copy() for counts in tally.all())


def test_endpoints_that_are_gone_are_forgotten(tally: Tally) -> None:
    tally.observe([created(), created("shop/old"), ended("failed", 500, "shop/old"), adopted()])
    tally.forget({"shop/get"})
    assert numbers(tally.created) == {("shop/get", "call"): 1}
    assert not tally.attempts.copy()
    assert not tally.durations.copy()
    assert not tally.final_failures.copy()
    assert numbers(tally.config_changes) == {("adopted",): 1}


def test_everything_that_is_counted_is_shown(tally: Tally) -> None:
    counted = {item for item in vars(tally).values() if isinstance(item, Counts)}
    assert set(tally.all()) == counted
