"""What is said of an attempt that nobody makes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from explain_parts import GET, Shop, rules

from orchestratord import (
    Backoff,
    Config,
    Endpoint,
    Executor,
    Explanation,
    NewTask,
    Outcome,
    Standing,
    Target,
    Task,
    hookimpl,
    only_for,
    pure,
)
from orchestratord.errors import Conflict
from orchestratord.model.task import Reason, Status
from orchestratord.simulate.report import Report


def happening(report: Report, kind: str) -> list[str]:
    """The names of what follows of one kind."""
    found = (item.explanation for item in report.consequences)
    return [item.name for item in found if item.happens and item.kind == kind]


async def test_the_request_as_it_would_go_out(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    report = await shop.explain()
    request = shop.json(report)["request"]
    assert (request["method"], request["url"]) == ("GET", "https://shop.example.com/v1/orders/7")
    assert request["headers"]["Host"] == "shop.example.com"
    assert request["headers"]["Authorization"] == "***"
    assert request["body"] is None
    assert isinstance(report.request, httpx.Request)
    assert report.request.headers["authorization"] == "Bearer hunter22-token"


async def test_without_an_answer_only_the_request_and_its_phase(tmp_path: Path) -> None:
    report = await Shop(tmp_path).explain()
    assert (report.outcome, report.decision, report.span) == (None, None, None)
    assert report.reached == ("before_request",)
    assert happening(report, "webhook") == ["asked"]


async def test_a_success(tmp_path: Path) -> None:
    report = await Shop(tmp_path).explain(answer=200)
    assert report.decision is not None
    assert report.decision.status is Status.SUCCEEDED
    assert report.reached == ("before_request", "after_request", "on_success")
    assert sorted(happening(report, "webhook")) == ["asked", "read"]


async def test_a_retry_with_its_delay(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    report = await shop.explain(answer=503, attempt=2)
    decision = report.decision
    assert decision is not None
    assert (decision.status, decision.delay) == (Status.PENDING, 20.0)
    assert decision.why == "exponential 10s·2^1=20s"
    assert report.span == pytest.approx((18.0, 22.0))
    assert decision.next_try == shop.clock.now_ms() + 20_000
    assert report.task.next_try == decision.next_try
    assert report.reached[-1] == "on_retry"


async def test_retry_after_counts(tmp_path: Path) -> None:
    answer = {"status_code": 503, "headers": {"Retry-After": "60"}}
    report = await Shop(tmp_path).explain(answer=answer)
    assert report.decision is not None
    assert report.decision.delay == 60.0
    assert report.span == (60.0, 60.0)
    assert "Retry-After 1m won" in report.decision.why


@pytest.mark.parametrize(
    ("name", "answer", "attempt", "reason"),
    [
        ("get", {"status_code": 404}, 1, Reason.NOT_RETRYABLE),
        ("get", {"status_code": 503}, 4, Reason.EXHAUSTED),
        ("get", {"error": "egress"}, 1, Reason.REJECTED),
        ("get", {"error": "timeout"}, 1, None),
        ("post", {"error": "timeout"}, 1, Reason.AMBIGUOUS),
        ("post", {"status_code": "error"}, 1, Reason.AMBIGUOUS),
        ("post", {"error": "connect"}, 1, None),
        ("post", {"status_code": 502}, 1, Reason.AMBIGUOUS),
        ("post", {"status_code": 503}, 1, None),
    ],
)
async def test_what_becomes_of_it(
    tmp_path: Path, name: str, answer: dict[str, Any], attempt: int, reason: Reason | None
) -> None:
    params = {"id": 7} if name == "get" else {"item": "hat"}
    report = await Shop(tmp_path).explain(name, params, answer=answer, attempt=attempt)
    assert report.decision is not None
    assert report.decision.reason is reason
    status = Status.PENDING if reason is None else Status.FAILED
    assert report.decision.status is report.task.status is status


async def test_give_up_after_counts_from_the_first_attempt(tmp_path: Path) -> None:
    shop = Shop(tmp_path, get="path: /x\nretry: {give_up_after: 1m}\n")
    # 10s + 20s have passed before the third; 40s more would be too late.
    second = await shop.explain(params={}, answer=503, attempt=2)
    third = await shop.explain(params={}, answer=503, attempt=3)
    assert second.decision is not None
    assert second.decision.status is Status.PENDING
    assert third.decision is not None
    assert third.decision.reason is Reason.EXPIRED


async def test_each_webhook_and_the_rule_that_decided(tmp_path: Path) -> None:
    assert rules(await Shop(tmp_path).explain(answer=200)) == {
        "ops": (False, "status_code 5xx,error does not cover 200"),
        "read": (True, "phase is on_success, any status code"),
        "late": (False, "phase is on_retry"),
        "lost": (False, "phase is on_final_failure"),
        "asked": (True, "phase is before_request, any status code"),
        "off": (False, "disabled in the YAML"),
    }


async def test_one_phase_alone(tmp_path: Path) -> None:
    report = await Shop(tmp_path).explain(answer=503, phase="on_success")
    assert report.asked == ("on_success",)
    assert "on_success" not in report.reached
    assert happening(report, "webhook") == ["read"]
    assert rules(report)["ops"] == (False, "phase is after_request")


async def test_what_a_webhook_would_send(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    document = shop.json(await shop.explain(answer=503))
    (ops,) = (item for item in document["consequences"] if item["name"] == "ops")
    request = ops["request"]
    assert (request["method"], request["url"]) == ("POST", "https://ops.example.com/hook")
    assert request["headers"]["x-key"] == "***"
    assert request["added"] == ["webhook-id", "webhook-timestamp", "webhook-signature"]
    assert json.loads(request["body"]) == {"text": "shop/get: 503"}
    assert (ops["kind"], ops["plugin"], ops["error"]) == ("webhook", "webhooks", None)
    (late,) = (item for item in document["consequences"] if item["name"] == "late")
    assert late["request"]["added"] == ["webhook-id", "webhook-timestamp"]
    envelope = json.loads(late["request"]["body"])
    assert envelope["data"]["next_try"] == "2027-01-15T08:00:10.000Z"
    assert envelope["timestamp"] == "2027-01-15T08:00:00.000Z"
    assert "hunter22" not in json.dumps(document)


async def test_a_url_of_a_webhook_is_rendered(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    document = shop.json(await shop.explain(answer=200))
    (read,) = (item for item in document["consequences"] if item["name"] == "read")
    assert read["request"]["url"] == "https://hooks.example.com/7"


async def test_a_payload_that_does_not_render(tmp_path: Path) -> None:
    hook = "{name: bad, phase: on_success, url: 'https://a.test/', payload: '{{ params.none }}'}"
    shop = Shop(tmp_path, get=f"path: /x\nwebhooks:\n  - {hook}\n")
    document = shop.json(await shop.explain(params={}, answer=200))
    (bad,) = (item for item in document["consequences"] if item["name"] == "bad")
    assert bad["happens"] is True
    assert bad["request"] is None
    assert "there is no 'none'" in bad["error"]


async def test_a_request_that_cannot_be_made(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    report = await shop.explain(params={}, answer=200)
    assert report.reached == ("on_final_failure",)
    assert report.decision is not None
    assert report.decision.reason is Reason.INVALID_PAYLOAD
    assert happening(report, "webhook") == ["lost"]
    document = shop.json(report)
    assert document["request"] is None
    assert document["status_code"] is None
    assert "there is no 'id'" in document["error"]


async def test_now_is_the_clocks_or_what_is_given(tmp_path: Path) -> None:
    shop = Shop(tmp_path, get="path: /x\nheaders: {X-Now: '{{ now }}'}\n")
    report = await shop.explain(params={})
    assert report.request.headers["x-now"] == "2027-01-15T08:00:00.000Z"
    report = await shop.explain(params={}, now=0.0)
    assert report.request.headers["x-now"] == "1970-01-01T00:00:00.000Z"


async def test_an_answers_body_and_headers_reach_the_payload(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    answer = {"status_code": 200, "headers": {"X-A": "b"}, "body": {"ä": 1}}
    document = shop.json(await shop.explain(answer=answer))
    (read,) = (item for item in document["consequences"] if item["name"] == "read")
    response = json.loads(read["request"]["body"])["data"]["response"]
    assert response["body"] == '{"ä": 1}'
    assert response["headers"]["X-A".lower()] == "b"
    assert response["headers"]["content-type"] == "application/json"


async def test_an_encoding_that_is_only_said_harms_nothing(tmp_path: Path) -> None:
    answer = {"status_code": 200, "headers": {"Content-Encoding": "gzip"}, "body": "plain"}
    report = await Shop(tmp_path).explain(answer=answer)
    assert report.outcome is not None
    assert report.outcome.response is not None
    assert report.outcome.response.text == "plain"


# -- plugins -------------------------------------------------------------------------------------


class Deciding:
    """Hooks that would change everything, if anybody ran them."""

    @hookimpl
    def before_request(self, request: httpx.Request) -> httpx.Request:
        raise AssertionError("this hook is not run")

    @hookimpl
    def after_request(self, outcome: Outcome) -> Outcome:
        raise AssertionError("this hook is not run")


async def test_deciding_hooks_are_named_and_not_run(tmp_path: Path) -> None:
    report = await Shop(tmp_path, Deciding()).explain(answer=200)
    assert dict(report.hooks) == {
        "before_request": ("plugin1",),
        "after_request": ("plugin1",),
    }
    assert report.notes == ()


class Following:
    """Calls another endpoint after each success."""

    @hookimpl
    def explain(self, phase: str) -> Iterable[Explanation]:
        new = NewTask("call", "shop/post", {"item": "hat"})
        happens = phase == "on_success"
        yield Explanation("call", "shop/post", "on_success", happens, "always", new)


class Judge:
    """Says by `@pure` that it only looks."""

    @hookimpl
    @pure
    def after_request(self, outcome: Outcome, config: Config) -> Outcome | None:
        assert config.endpoints
        response = outcome.response
        bad = response is not None and b"ERROR" in response.content
        return outcome.failure("it says ERROR") if bad else None


async def test_hooks_that_only_look_are_run(tmp_path: Path) -> None:
    shop = Shop(tmp_path, Judge())
    report = await shop.explain(answer={"status_code": 200, "body": "ERROR 17"})
    assert report.decision is not None
    assert (report.decision.status, report.decision.reason) == ("failed", "not_retryable")
    assert report.hooks == {"before_request": (), "after_request": ()}
    assert report.reached == ("before_request", "after_request", "on_final_failure")
    fine = await shop.explain(answer={"status_code": 200, "body": "fine"})
    assert fine.decision is not None
    assert fine.decision.status == "succeeded"


class Elsewhere:
    """Decides about other endpoints."""

    @hookimpl
    @only_for(lambda kind, endpoint: endpoint.id == "shop/other")
    def before_request(self) -> None: ...


async def test_plugins_that_would_not_be_asked_are_not_named(tmp_path: Path) -> None:
    report = await Shop(tmp_path, Elsewhere()).explain(answer=200)
    assert report.hooks == {"before_request": (), "after_request": ()}


async def test_what_a_plugin_says_of_its_own_tasks(tmp_path: Path) -> None:
    shop = Shop(tmp_path, Following())
    document = shop.json(await shop.explain(answer=200))
    (call,) = (item for item in document["consequences"] if item["kind"] == "call")
    assert (call["plugin"], call["name"], call["happens"]) == ("plugin1", "shop/post", True)
    assert call["request"]["method"] == "POST"
    assert json.loads(call["request"]["body"]) == {"item": "hat"}
    document = shop.json(await shop.explain(answer=404))
    (call,) = (item for item in document["consequences"] if item["kind"] == "call")
    assert (call["happens"], call["request"]) == (False, None)


class Faulty:
    @hookimpl
    def explain(self, phase: str) -> Any:
        if phase == "before_request":
            raise RuntimeError("no idea")
        return ["nonsense"]


async def test_a_fault_is_a_note_and_harms_nobody_else(tmp_path: Path) -> None:
    shop = Shop(tmp_path, Faulty())
    report = await shop.explain(answer=200)
    assert report.notes == (
        "the plugin plugin1: explain: RuntimeError: no idea",
        "the plugin plugin1: explain: returned a str among its explanations",
    )
    assert sorted(happening(report, "webhook")) == ["asked", "read"]


class Hopeless(Backoff):
    def seconds(self, n: int) -> float:
        raise RuntimeError("no idea")


class HopelessPlugin:
    @hookimpl
    def register_backoff(self) -> dict[str, type[Backoff]]:
        return {"hopeless": Hopeless}


async def test_a_fault_of_a_strategy_is_a_note(tmp_path: Path) -> None:
    get = "path: /x\nretry: {backoff: hopeless}\n"
    shop = Shop(tmp_path, HopelessPlugin(), get=get)
    report = await shop.explain(params={}, answer=503)
    assert report.notes == ("the strategy hopeless raised RuntimeError: no idea",)
    assert report.decision is not None
    assert report.decision.delay == 5.0


class Echo(Executor):
    """Carries out calls of a type of its own, and no longer without being asked."""

    type: ClassVar[str] = "echo"
    phases: ClassVar[tuple[str, str]] = ("before_execute", "after_execute")

    def standing(self, endpoint: Endpoint, webhook: str, config: Config) -> Standing:
        return Target(endpoint, endpoint.retry, 1.0, endpoint.idempotent, "echo", 1, ())

    def prepare(self, task: Task, target: Target, now: float) -> Any:
        if task.params["id"] == 13:
            raise RuntimeError("no luck")
        return f"echo {task.params['id']} hunter22-token"

    async def execute(self, request: Any, task: Task, target: Target, send: Any) -> Outcome:
        raise AssertionError("nothing is carried out")


class EchoPlugin:
    @hookimpl
    def register_executor(self) -> Iterable[Executor]:
        return [Echo()]


ECHO = "type: echo\nidempotent: true\nparams: {id: {}}\n"


@pytest.mark.parametrize(
    ("answer", "idempotent", "phase"),
    [
        ({"status_code": "ok"}, True, "on_success"),
        ({"status_code": "error"}, True, "on_retry"),
        ({"status_code": "error"}, False, "on_final_failure"),
        ({"error": "connect"}, False, "on_retry"),
    ],
)
async def test_what_is_not_sent_is_not_carried_out_either(
    tmp_path: Path, answer: dict[str, Any], idempotent: bool, phase: str
) -> None:
    text = ECHO.replace("true", str(idempotent).lower())
    shop = Shop(tmp_path, EchoPlugin(), get=text)
    report = await shop.explain(answer=answer)
    assert report.reached == ("before_execute", "after_execute", phase)
    assert shop.json(report)["request"] == {"statement": "echo 7 ***"}


async def test_an_executor_that_fails_is_named(tmp_path: Path) -> None:
    shop = Shop(tmp_path, EchoPlugin(), get=ECHO)
    with pytest.raises(Conflict, match="its request cannot be prepared: RuntimeError: no luck"):
        await shop.explain(params={"id": 13})


async def test_nothing_is_told_of_a_type_that_nobody_carries_out(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.host.registry.executors.clear()
    with pytest.raises(Conflict, match="no plugin that is loaded carries out call tasks"):
        await shop.explain()


async def test_a_webhook_that_is_switched_off_has_no_target(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    endpoint = shop.config.endpoints["shop/get"]
    executor, target = shop.explainer.target(endpoint, "late")
    assert executor.kind == "webhook"
    assert target.retry.max_attempts == 10
    with pytest.raises(Conflict, match="its tasks wait: the webhook off is switched off"):
        shop.explainer.target(endpoint, "off")


async def test_a_look_is_followed_by_nothing(tmp_path: Path) -> None:
    text = f"{GET.rstrip()}\n    poll: {{until: body.state == 'done', for: 3s, every: 5s}}\n"
    report = await Shop(tmp_path, get=text).explain(answer={"status_code": 200, "body": {}})
    assert report.decision is not None
    assert (report.decision.why, report.decision.delay) == ("look 1: not done yet", 3.0)
    assert report.span == (3.0, 3.0)
    assert report.reached == ("before_request",)
    assert happening(report, "webhook") == ["asked"]
