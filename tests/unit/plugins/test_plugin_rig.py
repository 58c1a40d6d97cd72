"""The rig that plugin authors test with, tried on plugins as they would write them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from orchestratord import (
    Accepted,
    Answer,
    Backoff,
    Caller,
    Config,
    DaemonEvent,
    Delete,
    Duration,
    Endpoint,
    Event,
    EventType,
    NewTask,
    NotFound,
    Outcome,
    Page,
    PageVisit,
    Param,
    PluginError,
    PortHandler,
    PortRequest,
    Problem,
    Reject,
    Route,
    SendError,
    Service,
    Setting,
    Snooze,
    StatusPart,
    Table,
    Task,
    Upsert,
    hookimpl,
)
from orchestratord.testing import (
    START,
    Answers,
    FakeClock,
    FakeControl,
    Rig,
    answered,
    chance,
    task,
    unanswered,
)

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


class Beside:
    """What a plugin does beside the phases."""

    def __init__(self) -> None:
        self.seen: list[Event] = []
        self.ran = ""

    @hookimpl
    def observe(self, events: Any) -> None:
        self.seen += events

    @hookimpl
    def register_tables(self) -> list[Table]:
        return [Table("seen", {"name": "TEXT NOT NULL", "n": "INTEGER"}, key=("name",))]

    @hookimpl
    def on_event(self, event: Event) -> list[Upsert]:
        return [Upsert("seen", {"name": str(event.type)}, {}, {"n": 1})]

    @hookimpl
    def batch_closed(self, batch: Any) -> list[NewTask]:
        return [NewTask("webhook", batch.endpoint_id, webhook="w", payload="{}")]

    @hookimpl
    def register_routes(self, control: Any) -> list[Route]:
        async def one(path: Any, query: Any, body: Any, caller: Caller) -> Answer:
            """Note the name."""
            await control.write([Upsert("seen", {"name": path["name"]}, {"n": 1}, {})])
            return Answer({"rows": await control.rows("seen"), "asked": [query, body, caller.name]})

        return [Route("POST", "/v1/x/{name}", one, caller=True)]

    @hookimpl
    def register_ports(self, control: Any) -> list[PortHandler]:
        async def ring(request: PortRequest) -> Answer:
            once = Upsert("seen", {"name": request.path}, {"n": 1}, {})
            return Answer({"id": await control.accept("house/rung", {"at": 1}, once)})

        def admit(request: PortRequest) -> Any:
            return 9 if request.method == "POST" else Answer({}, 405)

        return [PortHandler("bell", admit, ring)]

    @hookimpl
    def register_pages(self, control: Any) -> list[Page]:
        async def show(visit: PageVisit) -> str:
            return f"{visit.path['id']} {visit.caller.writes}"

        return [Page("/x/{id}", "X", show)]

    @hookimpl
    def register_services(self, control: Any) -> list[Service]:
        async def run(stop: asyncio.Event) -> None:
            self.ran = "runs"
            control.publish(EVENT)
            assert await control.status() is None
            await stop.wait()
            self.ran = "ended"

        return [Service("s", run)]


EVENT = DaemonEvent(EventType.DAEMON_STARTED, 1, "1.0")


async def test_what_is_beside_the_phases() -> None:
    plugin = Beside()
    rig = Rig(plugin)
    control = FakeControl(rig.config())
    rig.observe(EVENT)
    assert plugin.seen == [EVENT]
    assert rig.record(EVENT) == [Upsert("seen", {"name": "daemon.started"}, {}, {"n": 1})]
    batch: Any = SimpleNamespace(endpoint_id="a/b")
    assert rig.closed(batch)[0].endpoint_id == "a/b"
    answer = await rig.request("POST", "/v1/x/one", control, {"b": 1}, q="2")
    assert answer.body == {
        "rows": [{"name": "one", "n": 1}],
        "asked": [{"q": "2"}, {"b": 1}, "test"],
    }
    with pytest.raises(PluginError, match="no route answers GET /v1/x/one"):
        await rig.request("GET", "/v1/x/one", control)
    assert await rig.visit("/x/7", control, writes=False) == "7 False"
    with pytest.raises(PluginError, match="there is no page /y"):
        await rig.visit("/y", control)
    async with rig.services(control):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert plugin.ran == "runs"
    assert (plugin.ran, control.published) == ("ended", [EVENT])


async def test_a_port_and_what_was_accepted() -> None:
    rig = Rig(Beside())
    control = FakeControl(rig.config())
    ring = PortRequest("POST", "/ring", (), (), "", b"ding")
    assert (await rig.send("bell", ring, control)).body == {"id": 1}
    assert (await rig.send("bell", ring, control)).body == {"id": None}
    assert control.accepted == [("house/rung", {"at": 1})]
    assert (await rig.send("bell", replace(ring, method="GET"), control)).status == 405
    with pytest.raises(PluginError, match="no handler answers at horn"):
        await rig.send("horn", ring, control)


async def test_rows_of_a_control_that_stands_in() -> None:
    control = FakeControl(Rig(object()).config())
    await control.write([Upsert("t", {"a": 1}, {"b": 2}, {"n": 1}), NewTask("call", "x/y")])
    await control.write([Upsert("t", {"a": 1}, {}, {"n": 2}), Upsert("t", {"a": 2}, {}, {})])
    assert await control.rows("t", {"a": 1}) == [{"a": 1, "b": 2, "n": 3}]
    await control.write([Delete("t", {"a": 1}), Delete("t", {"a": 9})])
    assert await control.rows("t") == [{"a": 2}]
    with pytest.raises(AttributeError, match="Control has no statsu"):
        control.statsu  # noqa: B018


def test_check_config_and_the_status_in_a_rig() -> None:
    class Plugin:
        @hookimpl
        def register_status(self, control: Any) -> list[StatusPart]:
            return [StatusPart("mine", lambda: len(control.config.endpoints))]

        @hookimpl
        def check_config(self, config: Config) -> list[Problem]:
            return [] if config.endpoints else [Problem("nothing is called", key="defaults")]

    rig = Rig(Plugin())
    assert rig.status(FakeControl(rig.config(rig.endpoint()))) == {"mine": 1}
    assert [problem.message for problem in rig.check_config(rig.config())] == ["nothing is called"]


async def test_calls_of_rows_with_a_control_that_stands_in() -> None:
    rig = Rig(object())
    control = FakeControl(rig.config(rig.endpoint("x/y", params={"n": Param(type="integer")})))
    call = await control.checked_call("x/y", b'{"n": 1}', delay=5)
    assert (call.params, call.delay) == ({"n": 1}, 5)
    with pytest.raises(NotFound):
        await control.checked_call("x/none", {})
    noted = replace(call, once=Upsert("t", {"a": 1}, {}))
    first, plain, again = await control.accept_each([noted, call, noted])
    assert (first, plain, again) == (Accepted(1, "pending"), Accepted(2, "pending"), None)
    await control.write([Upsert("t", {"a": n}, {"b": -n}) for n in (2, 3)], [EVENT])
    assert (control.recorded, control.published) == ([EVENT], [])
    found = await control.rows("t", {}, order="a", limit=2)
    assert [row["a"] for row in found] == [1, 2]
    control.begin_trouble("x_failing", "away")
    assert control.troubles == {"x_failing": "away"}
    control.end_trouble("x_failing")
    assert control.troubles == {}
