"""The rig that plugin authors test with, tried on plugins as they would write them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from orchestratord import (
    Backoff,
    Config,
    Duration,
    Endpoint,
    NewTask,
    Outcome,
    PluginError,
    Problem,
    Reject,
    SendError,
    Setting,
    Snooze,
    Table,
    Task,
    Upsert,
    hookimpl,
)
from orchestratord.testing import START, Answers, FakeClock, Rig, answered, chance, task, unanswered

LIMIT: Setting[int] = Setting("limit", int, default=3, merge="replace")


class Fibonacci(Backoff):
    delay: Duration = 1.0

    def seconds(self, n: int) -> float:
        a, b = 0, 1
        for _ in range(n):
            a, b = b, a + b
        return a * self.delay


class Plugin:
    @hookimpl
    def register_settings(self) -> Iterable[Setting[Any]]:
        return (LIMIT,)

    @hookimpl
    def register_backoff(self) -> dict[str, type[Backoff]]:
        return {"fibonacci": Fibonacci}

    @hookimpl
    def register_tables(self) -> Iterable[Table]:
        return (Table("seen", {"endpoint_id": "TEXT", "count": "INTEGER"}, key=("endpoint_id",)),)

    @hookimpl
    def check_endpoint(self, endpoint: Endpoint) -> Iterable[Problem]:
        if endpoint[LIMIT] > 10:
            yield Problem("too many", key="limit")

    @hookimpl
    def config_adopted(self, config: Config, tables: dict[str, Any]) -> list[Upsert]:
        known = {row["endpoint_id"] for row in tables["seen"]}
        return [Upsert("seen", {"endpoint_id": name}, {}) for name in {*config.endpoints} - known]

    @hookimpl
    def before_request(self, request: httpx.Request, task: Task) -> httpx.Request | None:
        if task.params.get("refuse"):
            raise Reject("refused")
        if task.params.get("later"):
            raise Snooze(30)
        request.headers["x-task"] = str(task.id)
        return request

    @hookimpl
    async def after_request(self, outcome: Outcome, task: Task) -> Outcome | None:
        await asyncio.sleep(0)
        if task.params.get("hang"):
            raise RuntimeError("broken")
        if outcome.response is not None and b"error" in outcome.response.content:
            return outcome.failure("the body says error")
        return None

    @hookimpl
    def announce(self, phase: str, task: Task) -> list[Upsert]:
        return [Upsert("seen", {"endpoint_id": task.endpoint_id}, {}, add={"count": 1})]

    @hookimpl
    def on_success(self, task: Task, endpoint: Endpoint) -> list[NewTask]:
        return [NewTask("call", endpoint.id, params=task.params)]


@pytest.fixture
def rig() -> Rig:
    return Rig(Plugin())


def test_keys_strategies_and_checks(rig: Rig) -> None:
    endpoint = rig.endpoint("shop/getOrder", limit="12", timeout=5.0)
    assert (endpoint[LIMIT], endpoint.timeout, endpoint.api.name) == (12, 5, "shop")
    assert [problem.key for problem in rig.check(endpoint)] == ["limit"]
    assert rig.endpoint()[LIMIT] == 3
    assert rig.check(rig.endpoint()) == []
    with pytest.raises(ValidationError):
        rig.endpoint(limit="many")
    assert [rig.backoff("fibonacci", delay="2s").seconds(n) for n in range(1, 6)] == [
        2, 2, 4, 6, 10
    ]  # fmt: skip


def test_an_adopted_configuration(rig: Rig) -> None:
    config = rig.config(rig.endpoint("a/b"), rig.endpoint("a/c"), secrets=["hunter22"])
    assert config.redactor.text("hunter22!") == "***!"
    assert len(rig.adopt(config)) == 2
    (upsert,) = rig.adopt(config, {"seen": [{"endpoint_id": "a/b", "count": 1}]})
    assert upsert.key == {"endpoint_id": "a/c"}


async def test_deciding(rig: Rig) -> None:
    request = httpx.Request("GET", "https://api.example.com/")
    assert (await rig.before(request, task=task(id=9))).headers["x-task"] == "9"
    with pytest.raises(Reject, match="refused"):
        await rig.before(request, task=task(params={"refuse": True}))
    with pytest.raises(Snooze):
        await rig.before(request, task=task(params={"later": True}))
    assert (await rig.after(answered(200, json={"error": 1}))).verdict == "failure"
    assert (await rig.after(answered(200, json={"ok": 1}))).verdict == "success"
    assert (await rig.after(unanswered())).verdict == "retry"


async def test_telling(rig: Rig) -> None:
    endpoint = rig.endpoint("shop/getOrder")
    effects = await rig.tell("on_success", answered(200), endpoint=endpoint)
    assert [type(effect) for effect in effects] == [Upsert, NewTask]
    assert len(await rig.tell("after_request", answered(200), endpoint=endpoint)) == 1


async def test_a_fault_fails_the_test_once(rig: Rig) -> None:
    with pytest.raises(PluginError, match=r"plugin plugin: after_request.*broken"):
        await rig.after(answered(200), task=task(params={"hang": True}))
    assert (await rig.after(answered(200))).verdict == "success"


def test_a_plugin_that_cannot_be_loaded() -> None:
    def broken() -> None:
        raise OSError("no licence")

    with pytest.raises(PluginError, match="no licence"):
        Rig(SimpleNamespace(register_settings=hookimpl(broken)))


def test_outcomes() -> None:
    assert [answered(code).verdict for code in (200, 503, 404)] == ["success", "retry", "failure"]
    assert answered(429, headers={"Retry-After": "7"}).retry_after == "7"
    assert unanswered("reset", sent=True).maybe_done
    assert not unanswered().maybe_done


async def test_scripted_answers() -> None:
    send = Answers(503, httpx.Response(200, text="hi"), SendError("x", kind="dns", sent=False))
    request = httpx.Request("GET", "https://api.example.com/")
    assert (await send(request)).status_code == 503
    response = await send(request)
    assert (response.text, response.request) == ("hi", request)
    with pytest.raises(SendError):
        await send(request)
    with pytest.raises(AssertionError, match="one request more"):
        await send(request)
    assert len(send.requests) == 4


def test_time_and_chance() -> None:
    clock = FakeClock()
    assert clock.now() == START
    clock.turn(1.5)
    assert clock.now_ms() == int((START + 1.5) * 1000)
    assert [chance(7).random() for _ in range(3)] == [chance(7).random()] * 3
    assert chance(1).random() != chance(2).random()
