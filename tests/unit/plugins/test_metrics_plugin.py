"""The plugin's hooks, and what importing it costs those who only load it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import orchestratord_metrics
import pytest
from observed import UNLIMITED, created, ended, status
from orchestratord_metrics import MAX_LANES

from orchestratord import Answer, Config, MetricSamples
from orchestratord.testing import Rig


class Control:
    """The daemon as the route sees it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.lanes: list[dict[str, Any]] = []

    async def status(self, *, all_lanes: bool = False) -> dict[str, Any]:
        assert all_lanes
        return status(lanes=self.lanes)

    async def schedules(self) -> list[dict[str, Any]]:
        return []

    def last_successes(self) -> dict[str, float]:
        return {}

    def metrics(self) -> list[MetricSamples]:
        values = {("main",): 2.0, ("hunter2-hunter2",): 1.0}
        return [MetricSamples("gauge", "sql_connections", "How many.", ("database",), values)]


@pytest.fixture
def rig() -> Rig:
    rig = Rig(orchestratord_metrics, name="metrics")
    rig.adopt(rig.config())  # forgets what the last test taught it
    return rig


async def scrape(control: Control) -> Any:
    (route,) = orchestratord_metrics.register_routes(control)  # type: ignore[arg-type]
    assert (route.method, route.path) == ("GET", "/metrics")
    return route.handler


async def test_register_routes_gives_the_scrape(rig: Rig) -> None:
    config = rig.config(rig.endpoint("shop/get"))
    rig.adopt(config)
    orchestratord_metrics.observe([created(), ended("succeeded")])
    answer = await (await scrape(Control(config)))({}, {}, None)
    assert isinstance(answer, Answer)
    assert answer.media_type.startswith("text/plain")
    line = 'orchestratord_tasks_created_total{endpoint="shop/get",kind="call"} 1.0\n'
    assert line in answer.body.decode()
    assert 'orchestratord_sql_connections{database="main"} 2.0\n' in answer.body.decode()


async def test_config_adopted_forgets_endpoints_that_are_gone(rig: Rig) -> None:
    orchestratord_metrics.observe([ended("succeeded")])
    assert orchestratord_metrics.counters.attempts.copy()
    rig.adopt(rig.config(rig.endpoint("shop/other")))
    assert not orchestratord_metrics.counters.attempts.copy()


async def test_the_lanes_that_were_seen_first_keep_their_names(rig: Rig) -> None:
    control = Control(rig.config())
    handler = await scrape(control)
    lane = {"in_flight": 1, "concurrency": 10, "due": 0, **UNLIMITED}
    control.lanes = [{"name": f"api:{n}", **lane} for n in range(MAX_LANES)]
    await handler({}, {}, None)
    control.lanes = [{"name": "api:late", **lane}, *control.lanes]
    text = (await handler({}, {}, None)).body.decode()
    assert f'orchestratord_lane_in_flight{{lane="api:{MAX_LANES - 1}"}} 1.0\n' in text
    assert 'orchestratord_lane_in_flight{lane="other"} 1.0\n' in text
    assert "api:late" not in text


async def test_the_lag_of_the_loop_is_looked_at(rig: Rig) -> None:
    handler = await scrape(Control(rig.config()))
    async with asyncio.timeout(60):
        while "loop_lag_seconds_count 1.0\n" not in (await handler({}, {}, None)).body.decode():
            await asyncio.sleep(0.01)


def test_loading_it_does_not_load_the_client_library() -> None:
    code = "import sys, orchestratord_metrics; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "prometheus_client" not in done.stdout
