"""May it be tried again, and when: the decision after an attempt, in one place.

The rules, in the order in which they are asked:

1. A success is one.
2. What is not idempotent and may have been carried out is left to a person (`ambiguous`).
3. A failure is final, for the reason it brings or `not_retryable`.
4. No attempt is left: `exhausted`.
5. The delay: the strategy's, at most `max_delay`, then jitter, then the later Retry-After.
6. The next try would lie past `give_up_after`: `expired`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from random import Random

from orchestratord.endpoint import RetryPolicy
from orchestratord.message import Outcome
from orchestratord.task import Reason, Status, Task
from orchestratord.values import format_duration

FALLBACK_DELAY = 5.0
"""Seconds, where a strategy raises."""

AMBIGUOUS = "may have been carried out, and a repeat is not safe: look, then retry by hand"

Fault = Callable[[str, BaseException | str], None]
"""Told of a strategy's fault: its name, and what it did."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a task after an attempt. Times are milliseconds since the epoch."""

    status: Status
    why: str
    reason: Reason | None = None
    next_try: int | None = None
    delay: float | None = None


def decide(
    task: Task,
    policy: RetryPolicy,
    idempotent: bool,
    outcome: Outcome,
    *,
    now: int,
    chance: Random,
    fault: Fault,
) -> Decision:
    """Apply the rules above.

    Args:
        task: the task with this attempt counted in `attempts`.
        policy: today's retry policy.
        idempotent: as it was when the attempt was claimed.
        outcome: as the hooks left it.
        now: milliseconds since the epoch.
        chance: where jitter is drawn from.
        fault: told where the strategy misbehaves.
    """
    if outcome.verdict == "success":
        return Decision(Status.SUCCEEDED, _by(outcome, "succeeded"))
    if not idempotent and outcome.maybe_done and outcome.decided_by is None:
        covered = outcome.answered and policy.covers(outcome.status_code)
        if not covered:
            return Decision(Status.FAILED, AMBIGUOUS, Reason.AMBIGUOUS)
    if outcome.verdict == "failure":
        reason = _reason(outcome.final_reason)
        return Decision(Status.FAILED, _by(outcome, _final_words(outcome, reason)), reason)
    allowed = policy.max_attempts + task.granted
    if task.attempts >= allowed:
        return Decision(Status.FAILED, last_one(task, allowed), Reason.EXHAUSTED)
    delay, why = choose_delay(policy, task.attempts, outcome, now=now, chance=chance, fault=fault)
    next_try = now + round(delay * 1000)
    deadline = give_up_at(task, policy)
    if deadline is not None and next_try > deadline:
        limit = format_duration(policy.give_up_after or 0)
        return Decision(
            Status.FAILED, f"{why}: past give_up_after {limit}", Reason.EXPIRED, delay=None
        )
    return Decision(Status.PENDING, _by(outcome, why), None, next_try, delay)


def last_one(task: Task, allowed: int) -> str:
    """Why there is no further try, in words."""
    return f"attempt {task.attempts} of {allowed} was the last"


def give_up_at(task: Task, policy: RetryPolicy) -> int | None:
    """When the task expires, milliseconds; None where it never does."""
    if policy.give_up_after is None:
        return None
    return (task.retried_at or task.created_at) + round(policy.give_up_after * 1000)


def choose_delay(
    policy: RetryPolicy, n: int, outcome: Outcome, *, now: int, chance: Random, fault: Fault
) -> tuple[float, str]:
    """Seconds until the next try after `n` failed attempts, and in words how they came about."""
    if outcome.delay is not None:
        delay = _bounded(outcome.delay, policy.max_delay)
        if delay is None:
            fault(outcome.decided_by or "?", f"asked for a delay of {outcome.delay!r}")
        else:
            return delay, f"{format_duration(delay)} as {outcome.decided_by or 'a hook'} said"
    delay, why = base_delay(policy, n, fault)
    if policy.jitter:
        moved = delay * policy.jitter * (2 * chance.random() - 1)
        delay += moved
        sign = "−" if moved < 0 else "+"
        why += f", jitter {sign}{_about(abs(moved))}"
    asked = parse_retry_after(outcome.retry_after, now) if policy.respect_retry_after else None
    if asked is not None:
        bounded = min(asked, policy.max_retry_after)
        said = f"Retry-After {_about(bounded)}"
        if bounded < asked:
            said += " (max_retry_after)"
        if bounded > delay:
            return bounded, f"{why}, {said} won"
        why += f", {said} is earlier"
    return delay, why


def base_delay(policy: RetryPolicy, n: int, fault: Fault) -> tuple[float, str]:
    """The strategy's delay in seconds, at most `max_delay`, and in words. Never raises."""
    strategy = policy.backoff
    try:
        said = strategy.seconds(n)
        delay = _bounded(said, policy.max_delay)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin's strategy may raise anything
        fault(strategy.name, error)
        delay = min(FALLBACK_DELAY, policy.max_delay)
        return delay, f"{strategy.name} failed, {format_duration(delay)} instead"
    if delay is None:
        fault(strategy.name, f"returned {said!r} as a delay")
        delay = min(FALLBACK_DELAY, policy.max_delay)
        return delay, f"{strategy.name} returned {said!r}, {format_duration(delay)} instead"
    try:
        why = str(strategy.explain(n))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        fault(strategy.name, error)
        why = f"{strategy.name} {format_duration(delay)}"
    if said < 0:
        why += ", at least 0s"
    elif delay < said:
        why += f", max_delay {format_duration(policy.max_delay)}"
    return delay, why


def parse_retry_after(text: str | None, now: int) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3): a number or a date; None if neither.

    A receiver can write anything there; what is negative is 0, what is too large is infinite.
    """
    if text is None:
        return None
    text = text.strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
            # Two of the three forms that a date may have do not write down that it is UTC.
            date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
            seconds = date.timestamp() - now / 1000
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
    return None if math.isnan(seconds) else max(seconds, 0.0)


def _about(seconds: float) -> str:
    """Short enough to read: tenths of a second, below one second milliseconds."""
    return format_duration(round(seconds, 1 if seconds >= 1 else 3))


def _bounded(seconds: object, longest: float) -> float | None:
    # A whole number may be larger than any float, and is compared all the same.
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds != seconds:
        return None
    return float(min(max(seconds, 0.0), longest))


def _reason(text: str | None) -> Reason:
    try:
        return Reason(text) if text else Reason.NOT_RETRYABLE
    except ValueError:
        return Reason.NOT_RETRYABLE


def _final_words(outcome: Outcome, reason: Reason) -> str:
    if reason is Reason.NOT_RETRYABLE and not (outcome.decided_by or outcome.final_reason):
        return f"retry.when does not cover {outcome.status_code}"
    return reason.value


def _by(outcome: Outcome, words: str) -> str:
    return f"{words} (decided by {outcome.decided_by})" if outcome.decided_by else words
