"""`fail_if`, `retry.if` and `success_if`: in which order, and what becomes of the call."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from orchestratord.engine.answer_rules import AnswerRules
from orchestratord.model.endpoint import SUCCESS
from orchestratord.model.outcome import Outcome
from orchestratord.model.poll_rule import PollRule
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.values.jmespath_expression import Expression


async def judged(
    code: int, body: str, when: Any = None, poll: dict[str, str] | None = None, **rules: str
) -> Outcome:
    policy = {"when": when} if when is not None else {}
    if "retry" in rules:
        policy["if"] = rules.pop("retry")
    retry = RetryPolicy.model_validate(policy)
    response = httpx.Response(code, content=body)
    outcome = Outcome.from_response(response, success=SUCCESS, when=retry.when)
    found = {name: Expression(text) for name, text in rules.items()}
    waits = None if poll is None else PollRule.model_validate(poll)
    return await AnswerRules(retry, **found, poll=waits).judge(outcome)


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


async def test_what_an_answer_calls_failed_is_not_ambiguous() -> None:
    assert (await judged(500, BUSY, fail_if="body.s == 'broken'")).maybe_done
    assert not (await judged(500, BROKEN, fail_if="body.s == 'broken'")).maybe_done
    # The look says it, too.
    polled = await judged(200, BROKEN, poll=POLL)
    assert (polled.maybe_done, polled.final_reason) == (False, "not_retryable")


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


POLL = {"until": "body.s == 'done'", "fail_if": "body.s == 'broken'"}


@pytest.mark.parametrize(
    ("code", "body", "verdict", "look", "error"),
    [
        (200, DONE, "success", False, None),
        (200, BUSY, "retry", True, "200, but poll.until does not hold: body.s == 'done'"),
        (200, BROKEN, "failure", False, "200, but poll.fail_if holds: body.s == 'broken'"),
        (503, BUSY, "retry", False, "503 Service Unavailable"),
        (404, BUSY, "failure", False, "404 Not Found"),
        (200, "no JSON", "failure", False,
         "200, but poll.fail_if cannot be told: the body is no JSON"),
    ],
)  # fmt: skip
async def test_what_is_not_done_yet(
    code: int, body: str, verdict: str, look: bool, error: str | None
) -> None:
    outcome = await judged(code, body, poll=POLL)
    assert (outcome.verdict, outcome.look, outcome.error) == (verdict, look, error)


async def test_success_if_is_asked_of_what_is_done() -> None:
    outcome = await judged(200, DONE, poll=POLL, success_if="body.rows")
    assert (outcome.verdict, outcome.look) == ("failure", False)


async def test_what_is_to_be_tried_again_is_no_look() -> None:
    outcome = await judged(200, BUSY, poll=POLL, retry="body.s == 'busy'")
    assert (outcome.verdict, outcome.look) == ("retry", False)


async def test_what_a_hook_decides_is_no_look() -> None:
    """As of the one that follows the end of `for`."""
    outcome = await judged(200, BUSY, poll=POLL)
    for decided in (outcome.success(), outcome.retry(), outcome.failure()):
        assert not decided.look
