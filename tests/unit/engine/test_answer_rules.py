"""`fail_if`, `retry.if` and `success_if`: in which order, and what becomes of the call."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from orchestratord.engine.answer_rules import AnswerRules
from orchestratord.model.endpoint import SUCCESS
from orchestratord.model.outcome import Outcome
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.values.jmespath_expression import Expression


async def judged(code: int, body: str, when: Any = None, **rules: str) -> Outcome:
    policy = {"when": when} if when is not None else {}
    if "retry" in rules:
        policy["if"] = rules.pop("retry")
    retry = RetryPolicy.model_validate(policy)
    response = httpx.Response(code, content=body)
    outcome = Outcome.from_response(response, success=SUCCESS, when=retry.when)
    found = {name: Expression(text) for name, text in rules.items()}
    return await AnswerRules(retry, **found).judge(outcome)


BUSY, BROKEN, DONE = '{"s": "busy"}', '{"s": "broken"}', '{"s": "done"}'
ALL = {
    "fail_if": "body.s == 'broken'", "retry": "body.s == 'busy'", "success_if": "body.s == 'done'"
}  # fmt: skip


@pytest.mark.parametrize(
    ("code", "body", "verdict", "error"),
    [
        (200, DONE, "success", None),
        (200, BROKEN, "failure", "200, but fail_if holds: body.s == 'broken'"),
        (200, BUSY, "retry", "200, and retry.if holds: body.s == 'busy'"),
        (200, "{}", "failure", "200, but success_if does not hold: body.s == 'done'"),
        (503, BROKEN, "failure", "503, but fail_if holds: body.s == 'broken'"),
        (404, BUSY, "retry", "404, and retry.if holds: body.s == 'busy'"),
        (404, DONE, "failure", "404 Not Found"),
        (503, "no JSON", "retry", "503 Service Unavailable"),
        (200, "no JSON", "failure", "200, but fail_if cannot be told: the body is no JSON"),
    ],
)
async def test_each_answer(code: int, body: str, verdict: str, error: str | None) -> None:
    outcome = await judged(code, body, **ALL)
    assert (outcome.verdict, outcome.error) == (verdict, error)
    final = "fail_if holds" in (error or "")
    assert outcome.final_reason == ("not_retryable" if final else None)


async def test_what_an_answer_wants_tried_again_was_not_carried_out() -> None:
    assert (await judged(500, "{}", retry="body.s == 'busy'")).maybe_done
    assert not (await judged(500, BUSY, retry="body.s == 'busy'")).maybe_done


async def test_fail_if_comes_before_retry_if() -> None:
    outcome = await judged(503, BUSY, fail_if="status_code == `503`", retry="body.s == 'busy'")
    assert outcome.verdict == "failure"


async def test_when_covers_what_success_if_does_not_hold_of() -> None:
    outcome = await judged(200, BUSY, when=[200], success_if="s == 'done'")
    assert outcome.verdict == "retry"


async def test_what_was_lost_is_not_looked_at() -> None:
    lost = Outcome("retry", "error", error="timeout", maybe_done=True)
    rules = AnswerRules(RetryPolicy.model_validate({"if": "`true`"}), Expression("`true`"))
    assert await rules.judge(lost) is lost
