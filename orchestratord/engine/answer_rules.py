"""What an answer says beyond its status code: `fail_if`, `retry.if`, `poll`, `success_if`.

They are asked in this order, of an answer that came; what cannot be told, such as of a body that is
no JSON, is not true, and no success then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from orchestratord.http.answer_view import AnswerView, look
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.outcome import Outcome
from orchestratord.model.poll_rule import PollRule
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.values.budget import Budget, TooCostly
from orchestratord.values.jmespath_expression import Expression


@dataclass(frozen=True, slots=True)
class AnswerRules:
    """The expressions that judge the answers of an endpoint or a webhook.

    Args:
        retry: with its `if` and `when`.
        fail_if: true is a final failure, whatever the status code.
        success_if: has to be true for a success, too.
        poll: what is waited for.
    """

    retry: RetryPolicy
    fail_if: Expression | None = None
    success_if: Expression | None = None
    poll: PollRule | None = None

    async def judge(self, outcome: Outcome) -> Outcome:
        """The outcome of an answer, which its status code alone has judged so far."""
        wanted = outcome.verdict == "success" and (self.success_if or self.poll)
        if outcome.response is None or not (wanted or self.fail_if or self.retry.if_):
            return outcome
        return await look(outcome.response, lambda *asked: self._judged(outcome, *asked))

    def named(self) -> Iterator[tuple[str, Expression]]:
        """Those that there are, by their keys in the YAML."""
        for name, expression in (
            ("fail_if", self.fail_if),
            ("retry.if", self.retry.if_),
            ("poll.fail_if", None if self.poll is None else self.poll.fail_if),
            ("poll.until", None if self.poll is None else self.poll.until),
            ("success_if", self.success_if),
        ):
            if expression is not None:
                yield name, expression

    def _judged(self, outcome: Outcome, document: AnswerView, budget: Budget | None) -> Outcome:
        code, why = outcome.status_code, ""
        for name, expression in self.named():
            if name not in ("fail_if", "retry.if") and outcome.verdict != "success":
                break
            try:
                holds = document.holds(expression, budget)
            except ValueError as error:
                if budget is not None and isinstance(error, TooCostly):
                    raise
                why = why or f"{name} cannot be told: {error}"
                continue
            said = f"{name} holds: {expression.source}"
            if holds and name in ("fail_if", "poll.fail_if"):
                failed = replace(outcome, verdict="failure", final_reason="not_retryable")
                # The answer itself says what became of the call, a 500 too: it is not ambiguous.
                return replace(failed, maybe_done=False, error=f"{code}, but {said}")
            if holds and name == "retry.if":  # it says itself that it was not done
                return replace(
                    outcome, verdict="retry", maybe_done=False, error=f"{code}, and {said}"
                )
            if not holds and name in ("poll.until", "success_if"):
                unfulfilled = f"{name} does not hold: {expression.source}"
                if name == "poll.until" and not why:
                    waits = replace(outcome, verdict="retry", look=True)
                    return replace(waits, error=f"{code}, but {unfulfilled}")
                why = why or unfulfilled
        if not why or outcome.verdict != "success":
            return outcome
        again = code in self.retry.when
        return replace(outcome, verdict="retry" if again else "failure", error=f"{code}, but {why}")


def answer_rules(endpoint: Endpoint) -> AnswerRules:
    """The expressions that judge the answers of an endpoint of `type: http`."""
    spec = endpoint.spec
    return AnswerRules(endpoint.retry, spec.fail_if, spec.success_if, spec.poll)
