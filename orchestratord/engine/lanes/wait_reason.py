"""What a task waits for once it is due, or would if it were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.plugin.executor import Standing, Target


@dataclass(frozen=True, slots=True)
class Waiting:
    """What for, and why. Times are milliseconds since the epoch.

    `since` and `until` are None where they are not known; a task that waits for its rate or for a
    probe may have others before it, whose turn it then is at `until`.
    """

    what: Literal["breaker", "retry_after", "rate_limit", "concurrency", "parked"]
    why: str
    lane: str | None = None
    since: int | None = None
    until: int | None = None


def waits(standing: Standing, next_try: int, lanes: LaneSet, now: int) -> Waiting | None:
    """What a pending task waits for beside its `next_try`; None for nothing."""
    if not isinstance(standing, Target):
        return Waiting("parked", standing.why)
    lane = lanes.lanes.get(standing.lane)
    if lane is None:
        return None
    throttle, name, due = lane.throttle, lane.name, next_try <= now
    if throttle is not None:
        until = throttle.opens_at(now)
        if until is not None and until <= (now if due else next_try):
            pass  # by then there is room
        elif throttle.breaker.opened_at is not None:
            why = f"the breaker of {name} is open: {throttle.breaker.why}"
            return Waiting("breaker", why, name, throttle.breaker.opened_at, until)
        elif throttle.told_until > now:
            why = f"{name} was told to wait: {throttle.told_why}"
            return Waiting("retry_after", why, name, None, throttle.told_until)
        elif throttle.window is not None:
            why = f"rate_limit {throttle.window.limit} of {name}"
            return Waiting("rate_limit", why, name, None, until)
    if due and lane.claimed >= lane.concurrency:
        why = f"{name} has {lane.in_flight} of {lane.concurrency} in flight"
        return Waiting("concurrency", why, name)
    if due and lanes.claimed >= lanes.concurrency:
        why = f"the daemon has {lanes.in_flight} of {lanes.concurrency} in flight"
        return Waiting("concurrency", why)
    return None
