"""What lies ahead: a task's request, a schedule's runs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from orchestratord.model.endpoint import Schedule
from orchestratord.simulate.next_request import upcoming_runs
from orchestratord.testing import Rig
from orchestratord.values.redact import Redactor
from tests.unit.api.control_parts import Parts

HOUR = 3_600_000


async def test_what_a_task_would_send(parts: Parts) -> None:
    body = {"params": {"id": f"a b/{parts.SECRET}"}, "delay": "1h"}
    config = parts.loader.config
    # What is a secret by now was none when the call was made; else it would be refused.
    parts.loader.config = replace(config, redactor=Redactor())
    made = await parts.post("/v1/endpoints/demo/get/calls", body)
    parts.loader.config = config
    answer = await parts.client.get(f"/v1/retries/{made.json()['id']}/request")
    request = answer.json()
    assert answer.status_code == 200
    assert request["method"] == "GET"
    assert request["url"] == f"http://127.0.0.1:{parts.receiver.port}/things/a%20b%2F***"
    assert request["curl"].startswith("curl 'http://127.0.0.1")
    assert parts.SECRET not in answer.text
    assert (await parts.client.get("/v1/retries/99/request")).status_code == 404


async def test_nothing_would_be_sent_for_what_is_no_longer_declared(parts: Parts) -> None:
    [task_id] = await parts.later(1)
    parts.loader.config = Rig(SimpleNamespace()).config()
    answer = await parts.client.get(f"/v1/retries/{task_id}/request")
    assert answer.status_code == 409
    assert "no longer declared" in answer.json()["detail"]


def test_the_next_runs_of_a_schedule() -> None:
    rig = Rig(SimpleNamespace())
    hourly = rig.endpoint("shop/get", schedule=Schedule(every="1h"))
    assert upcoming_runs(hourly, 10 * HOUR + 5, 3) == [11 * HOUR, 12 * HOUR, 13 * HOUR]
    late = rig.endpoint("shop/get", schedule=Schedule(every="1h", splay=600))
    first, second = upcoming_runs(late, 10 * HOUR + 5, 2)
    assert second - first == HOUR
    assert 10 * HOUR + 5 < first <= 11 * HOUR + 600_000
    assert upcoming_runs(rig.endpoint("shop/get"), 0, 3) == []
