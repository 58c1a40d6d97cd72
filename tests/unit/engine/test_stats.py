"""What is counted as attempts end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestratord.engine import stats as scoreboard_module
from orchestratord.engine.stats import Stats
from orchestratord.model.task import Attempt, Key
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
    scoreboard = Stats(100.0)
    for _ in range(6):
        scoreboard.ended(succeeded(), "succeeded")
    scoreboard.ended(failed(), "pending")
    scoreboard.ended(failed(status="failed"), "failed")
    scoreboard.ended(failed(), "cancelled")
    assert scoreboard.rates(102.0) == {
        "succeeded": 3.0, "retried": 0.5, "failed": 0.5, "cancelled": 0.5,
    }  # fmt: skip
    assert scoreboard.rates(100.0)["succeeded"] > 0  # no division by nothing


def test_rates_forget_what_is_long_ago() -> None:
    scoreboard = Stats(0.0)
    for _ in range(100):
        scoreboard.ended(succeeded(), "succeeded")
    for half in range(1, 30):
        scoreboard.sample(half / 2)
    assert scoreboard.rates(14.5)["succeeded"] == 0.0
    scoreboard.ended(succeeded(), "succeeded")
    assert scoreboard.rates(14.5)["succeeded"] == 0.1


def test_who_fails_and_for_how_long() -> None:
    scoreboard = Stats(0.0)
    scoreboard.ended(failed(at=1_000), "pending")
    scoreboard.ended(failed(at=3_000), "failed")
    scoreboard.ended(failed("a/c", at=2_000), "pending")
    first, second = scoreboard.failing()
    assert (first.key, first.failures, first.since, first.last) == (Key("a/b"), 2, 1_000, 3_000)
    assert (first.status_code, first.error) == (503, "busy")
    assert second.key == Key("a/c")
    scoreboard.ended(succeeded(), "succeeded")
    assert [item.key for item in scoreboard.failing()] == [Key("a/c")]


def test_what_was_given_back_or_not_tried_says_nothing() -> None:
    scoreboard = Stats(0.0)
    scoreboard.ended(replace_given_back(failed()), "pending")
    untried = failed()
    untried.attempt = None
    scoreboard.ended(untried, "failed")
    assert scoreboard.failing() == []
    assert scoreboard.rates(1.0)["failed"] == 1.0
    assert scoreboard.rates(1.0)["retried"] == 0.0


def replace_given_back(settlement: Settlement) -> Settlement:
    settlement.uncounted = True
    return settlement


def test_not_more_are_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoreboard_module, "MAX_FAILING", 2)
    scoreboard = Stats(0.0)
    for name in ("a/a", "a/b", "a/c"):
        scoreboard.ended(failed(name), "pending")
    assert len(scoreboard.failing()) == 2
