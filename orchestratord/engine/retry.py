"""May it be tried again, and when: the decision after an attempt, in one place.

The rules, in the order in which they are asked:

1. A success is one.
2. What is not idempotent and may have been carried out is left to a person (`ambiguous`).
3. A failure is final, for the reason it brings or `not_retryable`.
4. No attempt is left: `exhausted`.
5. The delay: the strategy's, at most `max_delay`, then jitter, then the later Retry-After.
6. The next try would lie past `give_up_after`: `expired`.

Where `poll` waits for what is not done yet, none of these is asked, but `decide_look`. What fails
as the probe of an open breaker is asked 1 to 3, and then `decide_probe`. What began before its
delay was over, since a breaker closed, is asked 1 to 3, and then `decide_early`. What is refused
since nothing is left of a `quota` is asked 1 to 3, and then `decide_over_quota`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from orchestratord.engine.retry_delay import Fault, choose_delay, longest, parse_retry_after
from orchestratord.model.outcome import Outcome
from orchestratord.model.poll_rule import PollRule
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.model.task import Kind, Reason, Status, Task
from orchestratord.values import world
from orchestratord.values.durations import format_duration

CALLS_LAST = 86_400.0
"""Seconds for which calls are probes at least, whatever their attempts would take."""
FREE_PROBE = "a probe of an open breaker costs no attempt"
EARLY = "early, since a breaker closed"

Skipped = Callable[[int], int]

AMBIGUOUS = "may have been carried out, and a repeat is not safe: look, then retry manually"


@dataclass(slots=True)  # not frozen: it is made for each attempt, which takes twice as long then
class Decision:
    """What becomes of a task after an attempt. Times are milliseconds since the epoch."""

    status: Status
    why: str
    reason: Reason | None = None
    next_try: int | None = None
    delay: float | None = None
    backed_off: int = 0
    """1: the backoff of a failure that counts puts it off; 2: and it was tried early since."""
    uncounted: bool = False
    """It costs no attempt."""


def decide(
    task: Task,
    policy: RetryPolicy,
    idempotent: bool,
    outcome: Outcome,
    *,
    now: int,
    chance: world.Random,
    fault: Fault,
    skipped: Skipped = lambda since: 0,
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
        skipped: milliseconds since a time that a clock has jumped over.
    """
    if outcome.verdict == "success":
        return succeeded(outcome)
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
    delay, why, backed_off = choose_delay(
        policy, task.attempts, outcome, now=now, chance=chance, fault=fault
    )
    next_try = now + round(delay * 1000)
    deadline = give_up_at(task, policy, skipped)
    if deadline is not None and next_try > deadline:
        limit = format_duration(policy.give_up_after or 0)
        return Decision(Status.FAILED, f"{why}: past give_up_after {limit}", Reason.EXPIRED)
    return Decision(Status.PENDING, _by(outcome, why), None, next_try, delay, backed_off)


SUCCESS = "succeeded"
"""Why there is no further try after a success that no hook has decided."""


_SUCCEEDED = Decision(Status.SUCCEEDED, SUCCESS)


def succeeded(outcome: Outcome) -> Decision:
    """What `decide` says of a success."""
    if outcome.decided_by is None:  # as of most: it is one and the same, as nothing changes it
        return _SUCCEEDED
    return Decision(Status.SUCCEEDED, _by(outcome, SUCCESS))


def decide_look(
    task: Task,
    policy: RetryPolicy,
    poll: PollRule,
    outcome: Outcome,
    *,
    now: int,
    skipped: Skipped = lambda since: 0,
) -> Decision:
    """Of an answer that says that it is not done yet: it costs no attempt, and is asked for again
    after `every`, or its Retry-After, and once more as `for` ends.

    Args:
        task: with the look before.
        policy: says whether a Retry-After counts, and for how long.
        poll: today's.
        outcome: the answer.
        now: milliseconds since the epoch.
        skipped: as in `decide`.
    """
    since = min(task.looked_since or now, now)
    end = since + round(poll.for_ * 1000) + skipped(since)
    if task.looked_since is not None and now >= end:
        why = f"not done {format_duration(poll.for_)} after the first look"
        return Decision(Status.FAILED, why, Reason.EXPIRED)
    next_try = min(now + round(poll.every * 1000), max(end, now))
    asked = parse_retry_after(outcome.retry_after, now) if policy.respect_retry_after else None
    if asked:  # 0, or a time that is past by its clock, would have it asked without a pause
        next_try = now + round(min(asked, policy.max_retry_after) * 1000)
    delay = (next_try - now) / 1000
    why = f"look {task.looks + 1}: not done yet"
    return Decision(Status.PENDING, why, None, next_try, delay, uncounted=True)


def decide_probe(
    task: Task, policy: RetryPolicy, decision: Decision, *, now: int, first: int, fault: Fault
) -> Decision:
    """Of a probe that has failed while the breaker is open: it costs no attempt, until
    `give_up_after` has passed, or without one the time that all attempts would have taken; a dead
    receiver ends its tasks too.

    Args:
        task: the task.
        policy: today's retry policy.
        decision: what `decide` says of a failure that counts.
        now: milliseconds since the epoch.
        first: when the first attempt began; with `give_up_after`, what that counts from.
        fault: told where the strategy misbehaves.
    """
    if not _counts(decision):
        return decision
    limit, reason = longest(policy, policy.max_attempts + task.granted, fault), Reason.EXHAUSTED
    if policy.give_up_after is not None:
        limit, reason = policy.give_up_after, Reason.EXPIRED
    elif task.kind == Kind.CALL:
        limit = max(limit, CALLS_LAST)
    if now - first > limit * 1000:
        passed = format_duration(round(limit))
        return Decision(Status.FAILED, f"the breaker is open, and {passed} have passed", reason)
    return Decision(Status.PENDING, FREE_PROBE, None, now, 0.0, uncounted=True)


OVER_QUOTA = "nothing is left of the quota"
MOST_OVER_QUOTA = 10
"""Refusals of one task in a row, for want of a quota, that cost no attempt."""


def decide_over_quota(
    task: Task,
    policy: RetryPolicy,
    decision: Decision,
    until: int,
    *,
    now: int,
    before: int,
    skipped: Skipped = lambda since: 0,
) -> Decision:
    """Of a refusal since nothing was left of the API's quota: it costs no attempt, and is tried
    again when there is more.

    Args:
        task: the task.
        policy: today's retry policy.
        decision: what `decide` says of a failure that counts.
        until: when there is more, milliseconds, as `now`.
        now: milliseconds since the epoch.
        before: how many such refusals came right before.
        skipped: as in `decide`.
    """
    if not _counts(decision) or decision.uncounted or before >= MOST_OVER_QUOTA:
        return decision
    deadline = give_up_at(task, policy, skipped)
    if deadline is not None and until > deadline:
        limit = format_duration(policy.give_up_after or 0)
        why = f"{OVER_QUOTA}, and there is more past give_up_after {limit}"
        return Decision(Status.FAILED, why, Reason.EXPIRED)
    why = f"{OVER_QUOTA}: costs no attempt, and is tried again when there is more"
    return Decision(Status.PENDING, why, None, until, (until - now) / 1000, uncounted=True)


def decide_early(decision: Decision, backoff_until: int) -> Decision:
    """Of an attempt that began before `backoff_until`, when the delay is over that the one before
    has chosen: a failure that counts costs nothing, and the task waits until then."""
    if _counts(decision):
        why = f"{EARLY}: costs no attempt, and waits as before"
        # Retry-After, or a hook, may ask for longer than the backoff has chosen.
        until = max(backoff_until, 0 if decision.backed_off else decision.next_try or 0)
        return Decision(Status.PENDING, why, None, until, None, 2, uncounted=True)
    return replace(decision, why=f"{decision.why}; {EARLY}")


def _counts(decision: Decision) -> bool:
    """Whether a failure costs one of the attempts that there are."""
    ends_of_time = Reason.EXHAUSTED, Reason.EXPIRED
    return decision.status is Status.PENDING or decision.reason in ends_of_time


def last_one(task: Task, allowed: int) -> str:
    """Why there is no further try, in words."""
    return f"attempt {task.attempts} of {allowed} was the last"


def give_up_from(task: Task) -> int:
    """From when on `give_up_after` counts, milliseconds since the epoch: its acceptance, or when it
    was to be made first, if that is later; the last manual retry; and in an ordered partition when
    its turn came."""
    again_at = max(0 if task.turn is None else task.first_at or 0, task.retried_at or 0)
    return again_at or max(task.created_at, task.scheduled_at)


def give_up_at(task: Task, policy: RetryPolicy, skipped: Skipped = lambda since: 0) -> int | None:
    """When the task expires, milliseconds; None where it never does. `skipped` as in `decide`."""
    if policy.give_up_after is None:
        return None
    since = give_up_from(task)
    return since + round(policy.give_up_after * 1000) + skipped(since)


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
