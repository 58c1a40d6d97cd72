"""How attempts end: what the hooks are told, and what is decided where nothing was sent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from orchestratord.engine.attempt_in_progress import AttemptResult
from orchestratord.engine.http_executor import HttpExecutor
from orchestratord.engine.phase_hooks import PhaseHooks
from orchestratord.engine.poison import POISON_AFTER
from orchestratord.engine.retry import AMBIGUOUS, Decision
from orchestratord.model.backoff import Fixed
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.outcome import Outcome
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.model.settings import Config
from orchestratord.model.task import Attempt, Effect, NewTask, Reason, Status, Task
from orchestratord.plugin.executor import Target
from orchestratord.plugin.hook_marks import hookimpl
from orchestratord.testing import START, FakeClock, Rig, answered, task, unanswered

NOW = int(START * 1000)
REQUEST = httpx.Request("GET", "http://h/")
NO_PLANS: Any = SimpleNamespace(in_force=lambda key: None)


class Listener:
    """Writes down what it is told, and wants a task written for each."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.seen: list[dict[str, Any]] = []

    def tell(self, name: str, **seen: Any) -> Iterable[Effect]:
        self.told.append(name)
        self.seen.append(seen)
        return [NewTask("call", "told/it", {"by": name})]

    @hookimpl
    def announce(
        self, phase: str, outcome: Outcome, request: Any, task: Task, endpoint: Endpoint,
        next_try: int | None, config: Config,
    ) -> Iterable[Effect]:  # fmt: skip
        return self.tell(
            f"announce {phase}", outcome=outcome, request=request, task=task, next_try=next_try
        )

    @hookimpl
    def on_success(self, outcome: Outcome, task: Task, endpoint: Endpoint) -> Iterable[Effect]:
        return self.tell("on_success", outcome=outcome, task=task)

    @hookimpl
    def on_retry(
        self, outcome: Outcome, task: Task, endpoint: Endpoint, next_try: int
    ) -> Iterable[Effect]:
        return self.tell("on_retry", outcome=outcome, task=task, next_try=next_try)

    @hookimpl
    def on_final_failure(
        self, outcome: Outcome, task: Task, endpoint: Endpoint | None
    ) -> Iterable[Effect]:
        return self.tell("on_final_failure", outcome=outcome, task=task, endpoint=endpoint)


class Desk:
    """Endings, and a plugin that listens."""

    def __init__(self, **retry: Any) -> None:
        self.teller = Listener()
        rig = Rig(self.teller)
        self.clock = FakeClock()
        self.results = PhaseHooks(rig.host, NO_PLANS, self.clock)
        policy = RetryPolicy.model_validate({"backoff": Fixed(delay=60), "jitter": 0, **retry})
        self.endpoint = rig.endpoint("demo/get", retry=policy)
        self.config = rig.config(self.endpoint)
        self.target = Target(self.endpoint, policy, 30.0, True, "api:demo", 10, ())

    async def tell(
        self, outcome: Outcome, decision: Decision, after: str | None = "after_request"
    ) -> AttemptResult:
        row = Attempt(1, NOW, 5.0, outcome.status_code, outcome.error, decision.delay, decision.why)
        ended = AttemptResult(
            decision, outcome, row, request=REQUEST, after=after, endpoint=self.endpoint
        )
        return await self.results.ask(task(), ended, self.config)

    async def lost(self, known: bool = True, **fields: Any) -> AttemptResult:
        lost, config = task(**fields), self.config
        if not known:
            return await self.results.lost(lost, None, None, config)
        return await self.results.lost(lost, self.endpoint, HttpExecutor(), config)

    @property
    def effects(self) -> list[Effect]:
        """What it wants written for all that it was told, in that order."""
        return [NewTask("call", "told/it", {"by": name}) for name in self.teller.told]


SUCCESS = Decision(Status.SUCCEEDED, "2xx")
RETRY = Decision(Status.PENDING, "fixed 1m", None, NOW + 60_000, 60.0)
FAILURE = Decision(Status.FAILED, "exhausted", Reason.EXHAUSTED)
CANCEL = Decision(Status.CANCELLED, "cancelled while it ran")


@pytest.mark.parametrize(
    ("outcome", "decision", "phase"),
    [(answered(200), SUCCESS, "on_success"), (answered(503), RETRY, "on_retry"),
     (unanswered(), RETRY, "on_retry"), (answered(503), FAILURE, "on_final_failure")],
)  # fmt: skip
async def test_each_end_is_told_once(outcome: Outcome, decision: Decision, phase: str) -> None:
    desk = Desk()
    ended = await desk.tell(outcome, decision)
    assert desk.teller.told == ["announce after_request", f"announce {phase}", phase]
    assert ended.effects == desk.effects
    assert (ended.decision, ended.request, ended.after) == (decision, REQUEST, "after_request")
    assert not ended.uncounted
    for seen in desk.teller.seen:
        about = seen["task"]
        assert about == replace(
            task(), status=decision.status, reason=decision.reason, next_try=decision.next_try,
            last_status_code=outcome.status_code, last_error=outcome.error,
        )  # fmt: skip
        assert seen["outcome"].final_reason == decision.reason
        assert seen["outcome"].verdict == outcome.verdict
        assert seen.get("next_try", decision.next_try) == decision.next_try
        assert seen.get("request", REQUEST) is REQUEST


async def test_where_no_answer_was_reached_no_after_phase_is_told() -> None:
    desk = Desk()
    await desk.tell(unanswered(), FAILURE, after=None)
    assert desk.teller.told == ["announce on_final_failure", "on_final_failure"]


async def test_a_cancelled_task_tells_of_its_answer_alone() -> None:
    desk = Desk()
    await desk.tell(answered(503), CANCEL)
    assert desk.teller.told == ["announce after_request"]


async def test_the_outcome_is_the_same_where_its_reason_is() -> None:
    desk = Desk()
    outcome = replace(answered(404), final_reason="not_retryable")
    ended = await desk.tell(outcome, Decision(Status.FAILED, "404", Reason.NOT_RETRYABLE))
    assert ended.outcome is outcome
    succeeded = answered(200)
    assert (await desk.tell(succeeded, SUCCESS)).outcome is succeeded


async def test_who_does_not_listen_costs_nothing() -> None:
    rig = Rig(object())
    endpoint = rig.endpoint()
    ended = AttemptResult(SUCCESS, answered(200), None, request=REQUEST, endpoint=endpoint)
    await PhaseHooks(rig.host, NO_PLANS, FakeClock()).ask(task(), ended, rig.config(endpoint))
    assert (ended.effects, ended.attempt) == ([], None)


# -- what was never sent --------------------------------------------------------------------------


@pytest.mark.parametrize("began", [None, NOW - 250])
async def test_what_fails_unsent(began: int | None) -> None:
    """It is logged as an attempt where one was made; a claim that only failed it does not count."""
    desk = Desk()
    ended = await desk.results.fail(
        task(attempts=3), desk.endpoint, desk.config, Reason.REJECTED, "not on Sundays",
        request=REQUEST, began=began,
    )  # fmt: skip
    assert ended.decision == Decision(Status.FAILED, "rejected", Reason.REJECTED)
    assert ended.uncounted is (began is None)
    row = Attempt(3, NOW - 250, 250.0, None, "not on Sundays", None, "rejected")
    assert ended.attempt == (None if began is None else row)
    assert ended.outcome is not None
    assert (ended.outcome.status_code, ended.outcome.verdict) == (None, "failure")
    assert desk.teller.told == ["announce on_final_failure", "on_final_failure"]
    assert ended.effects == desk.effects
    told = desk.teller.seen[-1]["task"]
    assert (told.status, told.reason, told.last_error) == ("failed", "rejected", "not on Sundays")


async def test_what_has_no_endpoint_any_more_is_told_without_one() -> None:
    desk = Desk()
    ended = await desk.results.fail(
        task(), None, desk.config, Reason.ENDPOINT_REMOVED, "it is not declared any more"
    )
    assert desk.teller.told == ["on_final_failure"]  # no phase of an endpoint is reached
    assert desk.teller.seen[0]["endpoint"] is None
    assert ended.effects == desk.effects


@pytest.mark.parametrize(
    ("fields", "status", "reason", "why"),
    [
        ({}, "pending", None, "lost with the daemon: again at once"),
        ({"idempotent": False}, "failed", Reason.AMBIGUOUS, AMBIGUOUS),
        ({"deaths": POISON_AFTER - 2}, "pending", None, "lost with the daemon: again at once"),
        ({"deaths": POISON_AFTER - 1, "alone": True}, "failed", Reason.POISONED,
         "3 starts ended with the daemon's death, the last one while it ran alone"),
        ({"deaths": POISON_AFTER + 4}, "pending", None, "lost with the daemon: again at once"),
        ({"deaths": POISON_AFTER - 2, "alone": True}, "pending", None,
         "lost with the daemon: again at once"),
        ({"deaths": POISON_AFTER - 1, "alone": True, "idempotent": False}, "failed",
         Reason.AMBIGUOUS, AMBIGUOUS),
        ({"attempts": 15}, "pending", None, "lost with the daemon: again at once"),
    ],
)  # fmt: skip
async def test_what_was_lost_with_a_daemon(
    fields: dict[str, Any], status: str, reason: Reason | None, why: str
) -> None:
    desk = Desk(max_attempts=15)
    ended = await desk.lost(started_at=NOW - 900, **fields)
    assert (ended.decision.status, ended.decision.reason) == (status, reason)
    assert ended.deaths == fields.get("deaths", 0) + 1
    assert ended.uncounted  # what an answer or an error ends costs an attempt
    assert ended.attempt is not None
    assert ended.attempt.why == why
    assert (ended.attempt.started_at, ended.attempt.status_code) == (NOW - 900, "error")
    if status == "pending":
        assert (ended.decision.next_try, ended.attempt.delay) == (NOW, 0)
    phase = "on_retry" if status == "pending" else "on_final_failure"
    assert desk.teller.told == ["announce after_request", f"announce {phase}", phase]


async def test_what_was_lost_goes_back_to_its_place() -> None:
    """Before what became due since; a clock that was ahead holds it up no longer."""
    desk = Desk()
    for due, back in ((NOW - 5_000, NOW - 5_000), (NOW + 5_000, NOW), (None, NOW)):
        assert (await desk.lost(next_try=due)).decision.next_try == back


async def test_what_was_lost_and_is_declared_no_more() -> None:
    desk = Desk()
    ended = await desk.lost(known=False)
    assert ended.decision.status == "pending"
    assert ended.attempt is not None
    assert ended.attempt.started_at == NOW  # when it began is not known
    assert desk.teller.told == []
    ended = await desk.lost(known=False, deaths=POISON_AFTER - 1, alone=True)
    assert ended.decision.reason == Reason.POISONED
    assert desk.teller.told == ["on_final_failure"]


# -- cancelled instead of tried again -------------------------------------------------------------


async def test_a_cancel_takes_the_place_of_the_next_try() -> None:
    desk = Desk()
    ended = replace(await desk.tell(answered(503), RETRY), deaths=2)
    desk.teller.told.clear()
    cancelled = await desk.results.cancelled(task(), ended, desk.config)
    assert cancelled.decision == CANCEL
    assert cancelled.outcome is not None
    assert cancelled.outcome.status_code == 503
    assert desk.teller.told == ["announce after_request"]  # and on_retry was for nothing
    assert cancelled.effects == desk.effects
    told = desk.teller.seen[-1]["task"]
    assert (told.status, told.next_try) == ("cancelled", None)
    assert ended.attempt is not None
    assert cancelled.attempt == replace(ended.attempt, delay=None, why=CANCEL.why)
    assert (cancelled.deaths, cancelled.uncounted, cancelled.request) == (2, False, REQUEST)


async def test_a_cancel_of_what_was_not_sent_or_is_declared_no_more() -> None:
    desk = Desk()
    snoozed = AttemptResult(RETRY, None, None, uncounted=True)
    cancelled = await desk.results.cancelled(task(), snoozed, desk.config)
    assert (cancelled.decision, cancelled.uncounted, cancelled.effects) == (CANCEL, True, [])
    ended = await desk.tell(answered(503), RETRY)
    desk.teller.told.clear()
    gone = replace(ended, endpoint=None)
    cancelled = await desk.results.cancelled(task(), gone, desk.config)
    assert (cancelled.decision, cancelled.effects, desk.teller.told) == (CANCEL, [], [])
