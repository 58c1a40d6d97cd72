"""Where the tasks of a key stand: run, wait, or fail, and when they fail."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestratord.engine.http_executor import HttpExecutor
from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.engine.lanes.placement import REMOVED_AFTER, Placement, differ
from orchestratord.engine.plan import Plans
from orchestratord.http.api_client import Sender
from orchestratord.http.client import HttpClient
from orchestratord.model.endpoint import Api, Endpoint
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.model.settings import Config, DaemonSettings
from orchestratord.model.task import Key
from orchestratord.plugin.executor import Doomed, Executor, Parked, Target
from orchestratord.plugin.host import Host
from orchestratord.plugin.registry import Registry
from orchestratord.testing import FakeClock
from orchestratord.values.redact import Redactor
from tests.unit.engine.lanes.test_lane_set import claimed

API = Api(name="shop", concurrency=7, egress=("10.0.0.0/8",))
CALL, HOOK = Key("shop/get"), Key("shop/get", "ops")


def endpoint(**fields: Any) -> Endpoint:
    plain = Endpoint(
        id="shop/get", api=API, type="http", spec=None, retry=RetryPolicy(), timeout=30.0,
        idempotent=True)  # fmt: skip
    return replace(plain, **fields)


def config(*endpoints: Endpoint) -> Config:
    return Config(
        Path("/c"), DaemonSettings(), {"shop": API}, {e.id: e for e in endpoints}, Redactor(), "d"
    )


class Deliveries(Executor):
    """Says what it is told to of its webhooks."""

    kind = "webhook"

    def __init__(self) -> None:
        self.says: Any = Parked("nothing said yet")
        self.asked = 0

    def standing(self, endpoint: Endpoint, webhook: str, config: Config) -> Any:
        self.asked += 1
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    def prepare(self, task: Any, target: Any, now: float) -> Any: ...

    async def execute(self, request: Any, task: Any, target: Any, send: Any) -> Any: ...


@pytest.fixture
def deliveries() -> Deliveries:
    return Deliveries()


@pytest.fixture
def placement(deliveries: Deliveries) -> Placement:
    placement = Placement(Registry(executors=[HttpExecutor(), deliveries]), LaneSet(), FakeClock())
    placement.adopt(config(endpoint()))
    return placement


def ripe(placement: Placement, now: float) -> list[tuple[Key, str]]:
    return [(key, doomed.reason) for key, doomed in placement.ripe(now)]


# -- run or wait ----------------------------------------------------------------------------------


def test_a_declared_endpoint_runs_in_the_lane_of_its_api(placement: Placement) -> None:
    target = placement.of(CALL)
    assert isinstance(target, Target)
    assert (target.lane, target.concurrency, target.egress) == ("api:shop", 7, ("10.0.0.0/8",))
    assert isinstance(placement.look(CALL)[1], HttpExecutor)


def test_what_attempts_are_made_with_does_not_outlive_a_reload(placement: Placement) -> None:
    """Though nothing is attempted any more."""
    plans, task = Plans(placement, Host(), Sender(HttpClient())), claimed(1, CALL)
    before = plans.of(task)
    assert before is not None
    assert plans.of(task) is before
    placement.adopt(config(endpoint(timeout=5.0)))
    assert [one for one in gc.get_referrers(before) if isinstance(one, dict)] == []
    after = plans.of(task)
    assert after is not None
    assert after.target.timeout == 5.0


def test_a_disabled_endpoints_calls_wait_and_its_deliveries_go_on(
    placement: Placement, deliveries: Deliveries
) -> None:
    deliveries.says = Parked("asked")
    placement.adopt(config(endpoint(enabled=False)))
    obstacle = placement.obstacle(CALL)
    assert obstacle is not None
    assert obstacle.reason == "endpoint_disabled"
    assert placement.of(CALL) == obstacle
    assert placement.obstacle(HOOK) is None  # it waits, and may do so
    assert placement.of(HOOK) == Parked("asked")


def test_a_paused_endpoints_calls_wait_and_its_deliveries_go_on(
    placement: Placement, deliveries: Deliveries
) -> None:
    deliveries.says = Parked("asked")
    assert placement.set_paused({"shop/get"}) == {"shop/get"}
    placement.forget("shop/get")
    assert placement.of(CALL) == Parked("the endpoint is paused")
    assert placement.of(HOOK) == Parked("asked")
    assert placement.set_paused({"shop/get", "shop/other"}) == {"shop/other"}
    assert placement.set_paused(set()) == {"shop/get", "shop/other"}
    placement.forget(None)
    assert isinstance(placement.of(CALL), Target)


def test_without_its_plugin_a_task_waits() -> None:
    placement = Placement(Registry(), LaneSet(), FakeClock())
    placement.adopt(config(endpoint()))
    for key in (CALL, HOOK):
        assert placement.of(key) == Parked("the plugin that carries it out is not loaded")
        assert placement.look(key)[1] is None
    placement = Placement(Registry(executors=[HttpExecutor()]), LaneSet(), FakeClock())
    placement.adopt(config(endpoint(type="sql")))
    assert isinstance(placement.of(CALL), Parked)


def test_an_answer_is_remembered_until_something_changes(
    placement: Placement, deliveries: Deliveries
) -> None:
    for _ in range(5):
        placement.of(HOOK)
        placement.look(HOOK)[1]
    assert deliveries.asked == 1
    placement.forget("shop/other")
    placement.of(HOOK)
    assert deliveries.asked == 1
    placement.forget("shop/get")
    placement.of(HOOK)
    assert deliveries.asked == 2
    placement.adopt(config(endpoint()))
    placement.of(HOOK)
    assert deliveries.asked == 3


@pytest.mark.parametrize(
    "says", [ValueError("no"), None, "run", 5, Doomed("because", "x"), Target, RecursionError()]
)
def test_an_executor_that_cannot_say_it_lets_its_tasks_wait(
    placement: Placement, deliveries: Deliveries, says: Any, caplog: pytest.LogCaptureFixture
) -> None:
    deliveries.says = says
    standing = placement.of(HOOK)
    assert isinstance(standing, Parked)
    assert "failed" in standing.why
    assert "cannot say where its tasks stand" in caplog.text
    assert isinstance(placement.of(CALL), Target)


# -- fail -----------------------------------------------------------------------------------------


def test_tasks_of_a_removed_endpoint_fail_after_a_minute(placement: Placement) -> None:
    placement.adopt(config())
    for key in (CALL, HOOK):
        standing = placement.of(key)
        assert isinstance(standing, Doomed)
        assert (standing.reason, standing.after) == ("endpoint_removed", REMOVED_AFTER)
        placement.arm(key, 1000.0)
    assert REMOVED_AFTER == 60
    assert ripe(placement, 1059.9) == []
    assert sorted(ripe(placement, 1060)) == [(CALL, "endpoint_removed"), (HOOK, "endpoint_removed")]


def test_arming_it_again_does_not_postpone_it(placement: Placement) -> None:
    placement.adopt(config())
    placement.arm(CALL, 1000.0)
    placement.adopt(config())
    placement.arm(CALL, 1050.0)
    assert ripe(placement, 1060) == [(CALL, "endpoint_removed")]


def test_an_endpoint_that_comes_back_in_time_is_spared(placement: Placement) -> None:
    placement.adopt(config())
    placement.arm(CALL, 1000.0)
    placement.adopt(config(endpoint()))
    placement.arm(CALL, 1030.0)
    assert ripe(placement, 9999) == []
    # Gone again, it has a minute again.
    placement.adopt(config())
    placement.arm(CALL, 1040.0)
    assert ripe(placement, 1099) == []
    assert ripe(placement, 1100) == [(CALL, "endpoint_removed")]


def test_a_key_that_nobody_armed_anew_is_not_failed_when_it_is_back(placement: Placement) -> None:
    placement.adopt(config())
    placement.arm(CALL, 1000.0)
    placement.adopt(config(endpoint()))
    assert ripe(placement, 9999) == []


def test_a_ripe_key_is_given_once_until_it_is_swept(placement: Placement) -> None:
    placement.adopt(config())
    placement.arm(CALL, 0.0)
    assert len(ripe(placement, 100)) == 1
    assert ripe(placement, 100) == []
    placement.swept(CALL, done=False)
    assert len(ripe(placement, 100)) == 1
    placement.swept(CALL, done=True)
    assert ripe(placement, 100) == []
    # A task retried by hand meanwhile is doomed anew.
    placement.arm(CALL, 200.0)
    assert ripe(placement, 259) == []
    assert len(ripe(placement, 260)) == 1


def test_a_task_that_comes_while_its_key_is_swept_is_not_passed_over(placement: Placement) -> None:
    placement.adopt(config())
    placement.arm(CALL, 0.0)
    assert len(ripe(placement, 100)) == 1
    placement.arm(CALL, 101.0)
    assert ripe(placement, 9999) == []
    placement.swept(CALL, done=True)
    assert len(ripe(placement, 9999)) == 1
    placement.swept(CALL, done=True)
    assert ripe(placement, 9999) == []


def test_another_reason_has_a_time_of_its_own(placement: Placement, deliveries: Deliveries) -> None:
    removed = Doomed("webhook_removed", "gone", after=60)
    disabled = Doomed("webhook_disabled", "410", after=0)
    deliveries.says = removed
    placement.arm(HOOK, 1000.0)
    deliveries.says = disabled
    placement.forget("shop/get")
    placement.arm(HOOK, 1010.0)
    assert ripe(placement, 1010) == [(HOOK, "webhook_disabled")]
    placement.swept(HOOK, done=False)
    deliveries.says = removed
    placement.forget("shop/get")
    placement.arm(HOOK, 1020.0)
    assert ripe(placement, 1079) == []
    assert ripe(placement, 1080) == [(HOOK, "webhook_removed")]


def test_a_reload_asks_again_only_of_what_changed(
    placement: Placement, deliveries: Deliveries
) -> None:
    kept, other = endpoint(), endpoint(id="shop/put")
    before = config(kept, other)
    placement.adopt(before)
    other_hook = Key("shop/put", "ops")
    for key in (HOOK, other_hook):
        placement.of(key)
    asked = deliveries.asked
    after = config(kept, replace(other, timeout=5.0))
    changed = differ(before, after)
    placement.adopt(after)
    assert not changed(HOOK)
    assert changed(other_hook)
    for key in (HOOK, other_hook):
        placement.of(key)
    assert deliveries.asked == asked + 1


def test_a_reload_of_the_daemons_settings_asks_again_of_everything(
    placement: Placement, deliveries: Deliveries
) -> None:
    kept = endpoint()
    before = config(kept)
    placement.adopt(before)
    placement.of(HOOK)
    asked = deliveries.asked
    after = replace(config(kept), daemon=DaemonSettings(concurrency=5))
    changed = differ(before, after)
    placement.adopt(after)
    assert changed(HOOK)
    placement.of(HOOK)
    assert deliveries.asked == asked + 1
