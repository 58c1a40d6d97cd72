"""What a task waits for once it is due, or would if it were."""

from __future__ import annotations

from dataclasses import dataclass

from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.engine.lanes.throttle import Throttle
from orchestratord.model.task import Key, Status, Task, WaitsFor
from orchestratord.plugin.executor import Standing, Target


@dataclass(frozen=True, slots=True)
class Waiting:
    """What for, and why. Times are milliseconds since the epoch.

    `since` and `until` are None where they are not known; a task that waits for its rate or for a
    probe may have others before it, whose turn it then is at `until`.
    """

    what: WaitsFor
    why: str
    lane: str | None = None
    since: int | None = None
    until: int | None = None
    task: int | None = None
    """Which one has the turn, or holds the partition."""


def wait_reason(
    key: Key, standing: Standing, next_try: int, lanes: LaneSet, now: int
) -> Waiting | None:
    """What a pending task of `key` waits for beside its `next_try`; None for nothing."""
    if not isinstance(standing, Target):
        return Waiting("parked", standing.why)
    lane = lanes.lanes.get(standing.lane)
    if lane is None:
        return None
    due, heeds = next_try <= now, standing.retry.respect_retry_after
    for throttle in lanes.throttles(lane, key):
        found = _throttled(throttle, heeds, now, now if due else next_try)
        if found is not None:
            return found
    name = lane.name
    if due and lane.full_until > now:
        why = f"as many calls of {name} run in all daemons as its global_concurrency allows"
        return Waiting("concurrency", why, name)
    if due and lane.claimed >= lane.concurrency:
        why = f"{name} has {lane.in_flight} of {lane.concurrency} in flight"
        return Waiting("concurrency", why, name)
    if due and key in lane.at_share:
        why = f"its attempts are slow: {name} keeps the other slots for quick ones"
        return Waiting("concurrency", why, name)
    if due and lanes.claimed >= lanes.concurrency:
        why = f"the daemon has {lanes.in_flight} of {lanes.concurrency} in flight"
        return Waiting("concurrency", why)
    return None


def _throttled(throttle: Throttle, heeds: bool, now: int, due: int) -> Waiting | None:
    """What a task that is due at `due` waits for by this throttle."""
    name, until = throttle.name, throttle.opens_at(now, heeds)
    if until is not None and until <= due:
        return None  # by then there is room
    if throttle.breaker.opened_at is not None:
        why = f"the breaker of {name} is open: {throttle.breaker.why}"
        return Waiting("breaker", why, name, throttle.breaker.opened_at, until)
    if throttle.holds(now, heeds):
        why = f"{name} was told to wait: {throttle.told_why}"
        return Waiting("retry_after", why, name, throttle.told_since or None, throttle.told_until)
    pace = throttle.pace
    if pace is not None and pace.rate is not None and not pace.room(now):
        why = f"{name} refuses more at a higher rate: {pace.rate:.3g} tasks a second begin now"
        return Waiting("overload", why, name, pace.since, until)
    if throttle.window is not None:
        why = f"rate_limit {throttle.window.limit} of {name}"
        return Waiting("rate_limit", why, name, None, until)
    return None


def behind(task: Task, other: Task, waiting: Waiting | None) -> Waiting:
    """What a task waits for that is held in its partition.

    Args:
        task: it.
        other: what has the turn there, or holds the partition.
        waiting: what that waits for itself, beside its `next_try`.
    """
    name = f"partition {task.partition!r}"
    if other.status == Status.FAILED:
        why = f"{name} is held by failed task {other.id}: retry or cancel that"
        return Waiting("partition", why, since=other.finished_at, task=other.id)
    why = f"behind task {other.id} of {name}"
    if other.status == Status.RUNNING:
        return Waiting("partition", f"{why}, which is under way", task=other.id)
    if waiting is not None:
        why = f"{why}, which waits: {waiting.why}"
        return Waiting("partition", why, waiting.lane, waiting.since, waiting.until, other.id)
    return Waiting("partition", why, until=other.next_try, task=other.id)
