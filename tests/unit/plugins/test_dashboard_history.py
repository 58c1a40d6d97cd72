"""What the dashboard remembers of the last day, and the pictures of it."""

from __future__ import annotations

from itertools import pairwise

import orchestratord_dashboard
import pytest
from observed import START, adopted, created, ended, never_ran, refused, started
from orchestratord_dashboard import charts
from orchestratord_dashboard.attempt_history import (
    MAX_ENDPOINTS,
    MINUTE,
    SLICE,
    AttemptHistory,
    TimeBucket,
)

from orchestratord.testing import Rig


class Later:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.at = START / 1000

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Later:
    return Later()


@pytest.fixture
def window(clock: Later) -> AttemptHistory:
    return AttemptHistory(clock)


def test_attempts_are_counted_by_how_they_ended(window: AttemptHistory) -> None:
    window.observe(
        [created(), started(), ended("succeeded"), ended("retried", 503), ended("failed", 422)]
    )
    # What made no attempt, or does not count as one, is no attempt here.
    window.observe([never_ran("expired"), ended("snoozed"), ended("cancelled")])
    last = window.spans(60, 1)[-1]
    assert (last.succeeded, last.retried, last.failed, last.attempts) == (1, 1, 1, 3)


def test_spans_cover_the_time_that_was_asked_for(window: AttemptHistory, clock: Later) -> None:
    window.observe([ended("succeeded")._replace(at=START - n * MINUTE) for n in (62, 61, 14, 1, 0)])
    spans = window.spans(60, 1)
    assert len(spans) == 60
    assert [n for n, span in enumerate(reversed(spans)) if span.attempts] == [0, 1, 14]
    wide = window.spans(24 * 60, 15)
    assert len(wide) == 96
    assert sum(span.attempts for span in wide) == 5
    assert [b.start - a.start for a, b in pairwise(wide)] == [15 * MINUTE] * 95
    clock.at += 86400 + 3600
    assert not any(span.attempts for span in window.spans(24 * 60, 15))


def test_how_long_attempts_took_is_known_to_a_fifth(window: AttemptHistory) -> None:
    for took in (*[10.0] * 90, *[1000.0] * 10):
        window.observe([ended("succeeded", duration_ms=took)])
    last = window.spans(60, 1)[-1]
    assert last.quantile(0.5) == pytest.approx(10, rel=0.2)
    assert last.quantile(0.95) == pytest.approx(1000, rel=0.2)
    assert TimeBucket(0).quantile(0.5) is None
    window.observe([ended("succeeded", duration_ms=1e12)])
    assert window.spans(60, 1)[-1].quantile(1.0) < 1e12


def test_endpoints_are_ranked_by_their_failures_of_the_last_hour(
    window: AttemptHistory, clock: Later
) -> None:
    window.observe([ended("failed", 500, "shop/old")._replace(at=START - 13 * SLICE)])
    window.observe([ended("succeeded"), ended("retried", 503), ended("failed", 500, "shop/bad")])
    window.observe([ended("failed", 500, "shop/bad"), ended("succeeded", 200, "shop/good")])
    records = window.records()
    assert [(one.endpoint, one.failures, one.attempts) for one in records] == [
        ("shop/bad", 2, 2), ("shop/get", 1, 2), ("shop/good", 0, 1),
    ]  # fmt: skip
    assert window.record("shop/bad") == records[0]
    assert window.record("shop/bad").mean == 12.5
    assert window.record("shop/none").mean is None
    assert [one.recovered for one in records] == [False, False, True]
    clock.at += 400
    window.observe([ended("succeeded", 200, "shop/bad")._replace(at=int(clock.at * 1000))])
    assert window.record("shop/bad").recovered
    clock.at += 3700
    assert window.records() == []


def test_memory_is_bounded(window: AttemptHistory) -> None:
    events = [ended("failed", 500, f"shop/{n}") for n in range(MAX_ENDPOINTS + 10)]
    window.observe(events)
    assert len(window.records()) == MAX_ENDPOINTS
    assert window.spans(60, 1)[-1].failed == MAX_ENDPOINTS + 10


def test_a_refused_configuration_is_remembered_until_it_is_mended(window: AttemptHistory) -> None:
    window.observe([refused()])
    assert window.config_error == "bad"
    window.observe([adopted()])
    assert window.config_error is None


def test_observe_fills_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(orchestratord_dashboard, name="dashboard")
    assert {"observe", "register_routes"} <= set(rig.host.plugins["dashboard"].hooks)
    fresh = AttemptHistory(lambda: START / 1000)
    monkeypatch.setattr(orchestratord_dashboard, "history", fresh)
    orchestratord_dashboard.observe([ended("failed")])
    assert fresh.record("shop/get").failures == 1


def test_bars_have_failures_at_their_foot() -> None:
    spans = [TimeBucket(0), TimeBucket(MINUTE, succeeded=3, retried=1, failed=1)]
    picture = charts.throughput(spans, lambda span: str(span.start))
    assert picture.top == 5
    assert [bar.part for bar in picture.bars] == ["failed", "retried", "succeeded"]
    assert picture.bars[0].y + picture.bars[0].height == charts.HEIGHT
    assert picture.bars[-1].y == pytest.approx(0)
    assert all(bar.x >= 50 for bar in picture.bars)
    assert [column.text for column in picture.columns] == ["0", str(MINUTE)]


def test_lines_are_broken_where_nothing_happened() -> None:
    def took(start: int, index: int) -> TimeBucket:
        span = TimeBucket(start, succeeded=1)
        span.took[index] = 1
        return span

    spans = [took(0, 5), took(1, 6), TimeBucket(2), took(3, 5)]
    picture = charts.latency(spans, lambda span: "")
    path = dict(picture.lines)["p50"]
    assert path.count("M") == 2
    assert charts.latency([TimeBucket(0)], lambda span: "").lines == (("p95", ""), ("p50", ""))


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (0.3, 1), (1, 1), (1.1, 2), (3, 5), (7, 10), (10, 10), (2300, 5000)]
)
def test_axes_end_at_round_numbers(value: float, top: float) -> None:
    assert charts.nice(value) == top
