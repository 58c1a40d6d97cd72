from __future__ import annotations

import asyncio
import gc
import time
import weakref
from typing import Any

import pytest
from observed import adopted, created, ended, never_ran, refused, started
from orchestratord_metrics.counters import EVERY, OTHER, Counts, EventCounters, LoopLag, masked

from orchestratord import DaemonEvent, EndpointEvent, EventType, WebhookEvent


def test_a_counter() -> None:
    counts = Counts("things", "Things.", ("endpoint", "kind"))
    for _ in range(3):
        counts.count(("a/b", "call"))
    counts.count(("a/b", "webhook"))
    assert counts.copy() == {("a/b", "call"): [3, 0], ("a/b", "webhook"): [1, 0]}


def test_a_histogram() -> None:
    counts = Counts("seconds", "Seconds.", ("kind",), (0.1, 1))
    for seconds in (0.05, 0.1, 0.5, 7):
        counts.add(("call",), seconds)
    # Up to 0.1, which counts itself in; up to 1; more; and the sum.
    assert counts.copy() == {("call",): [2, 1, 1, 7.65]}


def test_one_without_labels() -> None:
    counts = Counts("seconds", "Seconds.", (), (1,))
    counts.add((), 2)
    counts.forget(set())
    assert counts.copy() == {(): [0, 1, 2]}


def test_too_many_endpoints_are_counted_as_others() -> None:
    counts = Counts("things", "Things.", ("endpoint", "kind"), most=2)
    for name in ("a/1", "a/2", "a/3", "a/4", "a/1"):
        counts.count((name, "call"))
    counts.count(("a/5", "webhook"))
    assert counts.copy() == {
        ("a/1", "call"): [2, 0],
        ("a/2", "call"): [1, 0],
        (OTHER, "call"): [2, 0],
        (OTHER, "webhook"): [1, 0],
    }


def test_too_many_webhooks_of_one_endpoint_are_counted_as_others() -> None:
    counts = Counts("things", "Things.", ("endpoint", "webhook", "status"), most=1)
    for number in range(9):
        counts.count(("subscriptions", f"acme/sub_{number}", "succeeded"))
    assert counts.copy() == {
        ("subscriptions", "acme/sub_0", "succeeded"): [1, 0],
        (OTHER, OTHER, "succeeded"): [8, 0],
    }


def test_endpoints_of_no_file_stay_at_a_reload() -> None:
    counts = Counts("things", "Things.", ("endpoint",))
    for name in ("a/1", "orchestratord", "subscriptions"):
        counts.count((name,))
    counts.forget(set())
    assert set(counts.copy()) == {("orchestratord",), ("subscriptions",)}


def test_what_has_no_endpoint_is_not_bounded() -> None:
    counts = Counts("things", "Things.", ("kind",), most=1)
    counts.count(("call",))
    counts.count(("webhook",))
    assert set(counts.copy()) == {("call",), ("webhook",)}


def test_endpoints_that_are_gone_make_room() -> None:
    counts = Counts("things", "Things.", ("endpoint",), most=2)
    for name in ("a/1", "a/2", "a/3"):
        counts.count((name,))
    counts.forget({"a/2"})
    counts.count(("a/3",))
    assert counts.copy() == {("a/2",): [1, 0], (OTHER,): [1, 0], ("a/3",): [1, 0]}


def test_a_copy_stays_as_it_was() -> None:
    counts = Counts("things", "Things.", ("endpoint",))
    counts.count(("a/1",))
    copy = counts.copy()
    counts.count(("a/1",))
    assert copy == {("a/1",): [1, 0]}


def test_label_sets_that_look_the_same_once_they_are_masked_are_one() -> None:
    found = {("a/hunter2",): [1.0, 0.5], ("a/hunter3",): [2.0, 0.25], ("a/b",): [4.0, 1.0]}
    shown = masked(found, lambda text: "***" if "hunter" in text else text)
    assert shown == {("***",): [3.0, 0.75], ("a/b",): [4.0, 1.0]}


@pytest.fixture
def counters() -> EventCounters:
    return EventCounters()


def numbers(counts: Counts) -> dict[tuple[str, ...], float]:
    """How often, by labels."""
    return {labels: sum(found[:-1]) for labels, found in counts.copy().items()}


def test_observe_counts_a_call_that_succeeds(counters: EventCounters) -> None:
    counters.observe([created(), started(), ended("succeeded")])
    assert numbers(counters.created) == {("shop/get", "call"): 1}
    assert numbers(counters.attempts) == {("shop/get", "call", "2xx", "succeeded"): 1}
    assert counters.durations.copy()["shop/get", "call"][-1] == pytest.approx(0.0125)
    assert counters.lateness.copy()[("call",)][-1] == pytest.approx(0.003)
    assert not counters.retries.copy()
    assert not counters.final_failures.copy()
    assert not counters.deliveries.copy()


def test_a_retry_then_a_failure(counters: EventCounters) -> None:
    counters.observe([ended("retried", 503), ended("failed", 503, reason="exhausted")])
    assert numbers(counters.attempts) == {
        ("shop/get", "call", "5xx", "retried"): 1,
        ("shop/get", "call", "5xx", "failed"): 1,
    }
    assert numbers(counters.retries) == {("shop/get", "call"): 1}
    assert numbers(counters.final_failures) == {("shop/get", "call", "exhausted"): 1}


def test_what_fails_without_an_attempt_is_no_attempt(counters: EventCounters) -> None:
    counters.observe([never_ran("expired")])
    assert not counters.attempts.copy()
    assert not counters.durations.copy()
    assert numbers(counters.final_failures) == {("shop/get", "call", "expired"): 1}


@pytest.mark.parametrize(
    ("code", "name"),
    [(200, "2xx"), (204, "2xx"), (302, "3xx"), (404, "4xx"), (503, "5xx"), (999, "other"),
     ("error", "error"), ("ok", "ok"), (None, "none")],
)  # fmt: skip
def test_the_class_of_a_status_code(counters: EventCounters, code: Any, name: str) -> None:
    counters.observe([ended("snoozed", code), ended("snoozed", code)])
    assert numbers(counters.attempts) == {("shop/get", "call", name, "snoozed"): 2}


def test_deliveries_that_have_ended(counters: EventCounters) -> None:
    counters.observe(
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
    assert numbers(counters.deliveries) == {
        ("shop/get", "ops", "succeeded"): 1,
        ("shop/get", "ops", "failed"): 1,
        ("shop/get", "ops", "cancelled"): 1,
    }
    assert numbers(counters.final_failures) == {("shop/get", "webhook", "webhook_disabled"): 1}
    assert not counters.lateness.copy()


def test_configurations(counters: EventCounters) -> None:
    counters.observe([adopted(), refused(), refused()])
    assert numbers(counters.config_changes) == {("adopted",): 1, ("refused",): 2}


def test_all_else_that_happens_is_not_counted(counters: EventCounters) -> None:
    counters.observe(
        [
            DaemonEvent(EventType.DAEMON_STARTED, 0, "1"),
            EndpointEvent(EventType.ENDPOINT_PAUSED, 0, "shop/get"),
            WebhookEvent(EventType.WEBHOOK_DISABLED, 0, "shop/get", "ops"),
            ended("succeeded")._replace(type=EventType.TASK_TRIGGERED),
        ]
    )
    assert not any(counts.copy() for counts in counters.all())


def test_endpoints_that_are_gone_are_forgotten(counters: EventCounters) -> None:
    counters.observe([created(), created("shop/old"), ended("failed", 500, "shop/old"), adopted()])
    counters.forget({"shop/get"})
    assert numbers(counters.created) == {("shop/get", "call"): 1}
    assert not counters.attempts.copy()
    assert not counters.durations.copy()
    assert not counters.final_failures.copy()
    assert numbers(counters.config_changes) == {("adopted",): 1}
    counters.observe([ended("failed", 500, "shop/old")])  # one in flight ends after that
    assert list(counters.durations.copy()) == [("shop/old", "call")]
    assert numbers(counters.attempts) == {("shop/old", "call", "5xx", "failed"): 1}


def test_everything_that_is_counted_is_shown(counters: EventCounters) -> None:
    counted = {item for item in vars(counters).values() if isinstance(item, Counts)}
    assert set(counters.all()) == counted


async def test_a_loop_that_is_held_up_is_late() -> None:
    lag = LoopLag(asyncio.get_running_loop())
    assert not lag.found.copy()
    time.sleep(EVERY + 0.3)
    await asyncio.sleep(0.01)
    found = lag.found.copy()[()]
    assert sum(found[:-1]) == 1
    assert found[-1] > 0.299  # two clocks


async def test_the_timer_does_not_keep_it() -> None:
    lag = LoopLag(asyncio.get_running_loop())
    gone = weakref.ref(lag)
    del lag
    gc.collect()
    assert gone() is None
