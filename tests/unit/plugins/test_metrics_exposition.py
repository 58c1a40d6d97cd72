from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from observed import UNLIMITED, created, ended, started, status
from orchestratord_metrics import MEDIA_TYPE, exposition
from orchestratord_metrics.counters import EventCounters
from orchestratord_metrics.exposition import Exposition
from prometheus_client import parser
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from orchestratord.testing import Rig

SECRET = "hunter2-hunter2"


def samples(
    tally: EventCounters | None = None, named: Sequence[str] = ("api:shop",), /, **changes: Any
) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(name, labels) → value, as a parser of the format finds them."""
    rig = Rig(object())
    config = rig.config(rig.endpoint("shop/get"), secrets=[SECRET])
    counts = tally.all() if tally is not None else ()
    text = Exposition(counts, config, status(**changes), named).text().decode()
    found = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"{key} stands there twice"
            found[key] = sample.value
    return found


def value(found: dict[Any, float], name: str, **labels: str) -> float:
    return found[f"orchestratord_{name}", tuple(sorted(labels.items()))]


def test_the_media_type_is_the_text_formats() -> None:
    assert MEDIA_TYPE == CONTENT_TYPE_PLAIN_0_0_4


def test_the_queue() -> None:
    found = samples()
    assert value(found, "tasks", status="pending") == 5
    assert value(found, "tasks", status="cancelled") == 0
    assert value(found, "due_tasks") == 3
    assert value(found, "oldest_due_age_seconds") == 1.5
    assert value(found, "held_partitions") == 2
    assert value(found, "held_tasks") == 4
    assert value(found, "failing", kind="call") == 2
    assert value(found, "failing", kind="webhook") == 1
    empty = samples(queue={**status()["queue"], "due": 0, "oldest_due_age": None})
    assert value(empty, "oldest_due_age_seconds") == 0


def test_last_successes_and_schedules() -> None:
    at = "2026-11-24T22:00:00.500Z"
    daily = {
        "endpoint": "shop/daily", "last_success_at": at, "last_run": at, "next_run": at,
        "missed": {"noticed_at": at},
    }  # fmt: skip
    never = {**dict.fromkeys(daily), "endpoint": f"shop/{SECRET}"}
    rig = Rig(object())
    config = rig.config(secrets=[SECRET])
    successes = {"shop/get": 5.25, "shop/daily": 7.0}
    text = Exposition((), config, status(), (), [daily, never], successes).text().decode()
    name = "orchestratord_endpoint_last_success_timestamp_seconds"
    assert f'{name}{{endpoint="shop/get"}} 5.25\n' in text
    assert f'{name}{{endpoint="shop/daily"}} 7.0\n' in text
    for name in ("last_success", "last_run", "next_run", "missed"):
        line = f'orchestratord_schedule_{name}_timestamp_seconds{{endpoint="shop/daily"}} '
        assert float(text.partition(line)[2].partition("\n")[0]) == 1795557600.5
    assert "shop/***" not in text
    assert SECRET not in text


def test_counters_and_histograms() -> None:
    tally = EventCounters()
    tally.observe([created(), started(20), ended("succeeded", duration_ms=30), ended("retried")])
    found = samples(tally)
    of_task = {"endpoint": "shop/get", "kind": "call"}
    assert value(found, "tasks_created_total", **of_task) == 1
    assert value(found, "attempts_total", **of_task, status_class="2xx", outcome="succeeded") == 1
    duration = "attempt_duration_seconds"
    assert value(found, f"{duration}_bucket", **of_task, le="0.025") == 1
    assert value(found, f"{duration}_bucket", **of_task, le="0.05") == 2
    assert value(found, f"{duration}_bucket", **of_task, le="+Inf") == 2
    assert value(found, f"{duration}_count", **of_task) == 2
    assert value(found, f"{duration}_sum", **of_task) == pytest.approx(0.0425)


def test_the_configuration() -> None:
    found = samples()
    assert value(found, "endpoints") == 1
    assert value(found, "paused_endpoints") == 1
    assert value(found, "config_refused") == 0
    assert value(samples(config={"error": {"at": "…"}}), "config_refused") == 1


def test_the_daemon() -> None:
    found = samples()
    assert value(found, "plugin_faults_total", plugin="webhooks") == 4
    assert value(found, "events_dropped_total") == 9
    assert value(found, "unheld_claims_total") == 2
    assert value(found, "database_size_bytes") == 4096
    assert value(found, "accepting") == 1
    assert value(found, "database_held_back") == 1
    assert value(found, "ready") == 1
    locked = {"ready": False, "troubles": [{"code": "database_locked", "why": "by pid 7"}]}
    assert value(samples(health=locked), "ready") == 0
    assert value(samples(health=locked), "trouble", code="database_locked") == 1
    assert value(found, "draining") == 0
    (build,) = [labels for name, labels in found if name == "orchestratord_build_info"]
    assert dict(build)["version"] == "1.2.3"


def test_lanes_that_are_not_named_are_added_up() -> None:
    names = ("api:a", "api:b", "api:c")
    lanes: list[dict[str, Any]] = [
        {"name": name, "in_flight": 2, "concurrency": 10, "due": 0, **UNLIMITED} for name in names
    ]
    lanes[0] |= {"breaker": {"state": "open"}, "openings": 3}
    lanes[0] |= {"overload": {"since": "…", "rate": 12.5}}
    lanes[1] |= {"rate": {"limit": "100/min", "times": 100, "used": 37, "next": None}}
    found = samples(None, ["api:b"], lanes=lanes)
    assert value(found, "lane_breaker_open", lane="api:b") == 0
    assert value(found, "lane_breaker_open", lane="other") == 1
    assert value(found, "lane_breaker_openings_total", lane="other") == 3
    assert value(found, "lane_pace", lane="other") == 12.5
    assert ("orchestratord_lane_pace", (("lane", "api:b"),)) not in found
    assert value(found, "throttled", cause="overload") == 1
    assert value(found, "lane_rate_limit", lane="api:b") == 100
    assert value(found, "lane_rate_used", lane="api:b") == 37
    assert ("orchestratord_lane_rate_used", (("lane", "other"),)) not in found
    assert value(found, "lane_in_flight", lane="api:b") == 2
    assert value(found, "lane_in_flight", lane="other") == 4
    assert value(found, "lane_concurrency", lane="other") == 20


def test_no_label_holds_a_secret() -> None:
    tally = EventCounters()
    webhooks = [f"after-{SECRET}.example.com", "after-***.example.com"]
    tally.observe([ended("succeeded", webhook=webhook) for webhook in webhooks])
    found = samples(tally)
    assert SECRET not in str(found)
    labels = {"endpoint": "shop/get", "webhook": webhooks[1], "status": "succeeded"}
    assert value(found, "deliveries_total", **labels) == 2


def test_labels_are_escaped() -> None:
    tally = EventCounters()
    tally.observe([ended("succeeded", webhook='a"b\\c\nd')])
    found = samples(tally)
    labels = {"endpoint": "shop/get", "webhook": 'a"b\\c\nd', "status": "succeeded"}
    assert value(found, "deliveries_total", **labels) == 1


def test_the_process() -> None:
    found = {family.name: family.samples[0].value for family in exposition.process_families()}
    assert found["process_resident_memory_bytes"] > 1 << 20
    assert found["process_virtual_memory_bytes"] >= found["process_resident_memory_bytes"]
    assert found["process_open_fds"] >= 3
    assert found["process_max_fds"] > found["process_open_fds"]
    assert found["process_cpu_seconds"] > 0
    assert math.isfinite(found["process_start_time_seconds"])
