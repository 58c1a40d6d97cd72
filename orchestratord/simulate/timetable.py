"""When the attempts of a task follow each other, with the range that jitter makes of each delay."""

from __future__ import annotations

from dataclasses import dataclass

from orchestratord.engine.retry import Decision, decide, decide_look, decide_over_quota
from orchestratord.engine.retry_delay import Fault, base_delay, lengthened
from orchestratord.model.outcome import Outcome, is_over_quota
from orchestratord.model.retry_policy import RetryPolicy
from orchestratord.model.task import Status, Task
from orchestratord.plugin.executor import Target
from orchestratord.values import world


@dataclass(frozen=True, slots=True)
class RetryWait:
    """What lies between two attempts. Durations are seconds.

    Args:
        after: the attempt that failed, from 1.
        delay: before jitter.
        shortest: with the most that jitter takes away.
        longest: with the most that it adds.
        since: from the first attempt to the one that follows, where each fails at once.
        why: how the strategy comes to it, in words.
    """

    after: int
    delay: float
    shortest: float
    longest: float
    since: float
    why: str


def timetable(policy: RetryPolicy, fault: Fault) -> list[RetryWait]:
    """The retry delays of a task of which every attempt fails, up to its last one.

    `fault` is told where the strategy misbehaves. Retry-After is not part of it, since it is not
    known what a receiver will ask for.
    """
    delays: list[RetryWait] = []
    since = 0.0
    for n in range(1, policy.max_attempts):
        delay, why = base_delay(policy, n, fault)
        since += delay
        if policy.give_up_after is not None and since > policy.give_up_after:
            break
        moved = delay * policy.jitter
        shortest, _ = lengthened(delay - moved, n)
        delays.append(RetryWait(n, delay, shortest, delay + moved, since, why))
    return delays


def decide_within(
    task: Task, target: Target, outcome: Outcome, now: float, fault: Fault
) -> tuple[Decision, tuple[float, float] | None]:
    """What becomes of a task after an attempt, with the delay before jitter.

    Beside it the shortest and the longest delay that jitter makes of it, in seconds; None where
    there is none. `now` is in seconds since the epoch.
    """

    def decided(policy: RetryPolicy, chance: world.Random) -> Decision:
        at = int(now * 1000)
        if outcome.look:
            return decide_look(task, policy, target.endpoint.spec.poll, outcome, now=at)
        decision = decide(
            task, policy, target.idempotent, outcome, now=at, chance=chance, fault=fault
        )
        if outcome.decided_by is not None or not is_over_quota(outcome):
            return decision
        until = outcome.quota_until or at
        return decide_over_quota(task, policy, decision, until, now=at, before=0)

    decision = decided(target.retry.model_copy(update={"jitter": 0.0}), _Drawn(0.5))
    if decision.status is not Status.PENDING:
        return decision, None
    patient = target.retry.model_copy(update={"give_up_after": None})
    shortest, longest = (decided(patient, _Drawn(end)).delay or 0.0 for end in (0.0, 1.0))
    return decision, (shortest, longest)


class _Drawn(world.Random):
    """Chance that always falls the same way, from 0 to 1."""

    def __init__(self, value: float) -> None:
        super().__init__(0)
        self._value = value

    def random(self) -> float:
        return self._value
