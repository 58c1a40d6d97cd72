"""What is counted as attempts end."""

from __future__ import annotations

from dataclasses import replace

from orchestratord.engine.stats import Stats
from orchestratord.model.task import Attempt
from orchestratord.queue.records import Settlement
from orchestratord.testing import task as a_task

FAILS, WORKS = Attempt(1, 0, 1.0, 503, "busy", None, ""), Attempt(1, 0, 1.0, 200, None, None, "")


def failed(endpoint: str = "a/b", at: int = 1_000, status: str = "pending") -> Settlement:
    task = replace(a_task(), endpoint_id=endpoint, webhook="")
    return Settlement(task, status, at, status_code=503, error="busy", attempt=FAILS)


def succeeded(endpoint: str = "a/b") -> Settlement:
    task = replace(a_task(), endpoint_id=endpoint, webhook="")
    return Settlement(task, "succeeded", 1_000, status_code=200, attempt=WORKS)


def test_rates_over_what_has_passed_so_far() -> None:
    stats = Stats(100.0)
    for _ in range(6):
        stats.count([succeeded()])
    stats.count([failed()])
    stats.count([failed(status="failed")])
    stats.count([failed(status="cancelled")])
    assert stats.rates(102.0) == {
        "succeeded": 3.0, "retried": 0.5, "failed": 0.5, "cancelled": 0.5,
    }  # fmt: skip
    assert stats.rates(100.0)["succeeded"] > 0  # no division by nothing


def test_rates_forget_what_is_long_ago() -> None:
    stats = Stats(0.0)
    for _ in range(100):
        stats.count([succeeded()])
    for half in range(1, 30):
        stats.sample(half / 2)
    assert stats.rates(14.5)["succeeded"] == 0.0
    stats.count([succeeded()])
    assert stats.rates(14.5)["succeeded"] == 0.1


def test_what_was_given_back_or_not_tried_says_nothing() -> None:
    stats = Stats(0.0)
    stats.count([replace_given_back(failed())])
    untried = failed(status="failed")
    untried.attempt = None
    stats.count([untried])
    assert stats.rates(1.0)["failed"] == 1.0
    assert stats.rates(1.0)["retried"] == 0.0


def replace_given_back(settlement: Settlement) -> Settlement:
    settlement.uncounted = True
    return settlement
