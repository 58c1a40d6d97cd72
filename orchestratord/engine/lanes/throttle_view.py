"""What throttles a scope, as it is shown, told to other daemons, and kept in the queue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestratord.engine.lanes.lane import Lane
from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.engine.lanes.throttle import Throttle
from orchestratord.model.event import BREAKER, OVERLOAD, RETRY_AFTER, StoredThrottle
from orchestratord.values.redact import Redactor

BY_KIND = (BREAKER, RETRY_AFTER, OVERLOAD)


def waiting_view(throttle: Throttle, now: int, redactor: Redactor) -> dict[str, Any] | None:
    """What the other daemons are told of a scope; None where it does not wait."""
    breaker, told = None, None
    if throttle.breaker.opened_at is not None:
        breaker = {"since": throttle.breaker.opened_at, "why": redactor.text(throttle.breaker.why)}
    if throttle.told_until > now and not throttle.told_here:
        told = {"until": throttle.told_until, "why": throttle.told_why}
    if breaker is None and told is None:
        return None
    # A lane's name may hold a secret, as a receiver's host may.
    return {"lane": redactor.text(throttle.name), "breaker": breaker, "retry_after": told}


def rows(throttle: Throttle, now: int, owner: str, redactor: Redactor) -> Iterator[StoredThrottle]:
    """What of a scope the queue keeps, for other daemons and for the next start."""
    name, breaker = redactor.text(throttle.name), throttle.breaker
    if breaker.opened_at is not None:
        why = redactor.text(breaker.why)
        yield StoredThrottle(name, BREAKER, owner, breaker.opened_at, None, why)
    if throttle.told_until > now and not throttle.told_here:
        until, why = throttle.told_until, throttle.told_why
        yield StoredThrottle(name, RETRY_AFTER, "", throttle.told_since, until, why)


def lane_view(lane: Lane, now: int) -> dict[str, Any]:
    """What `status` shows of a lane; times in milliseconds."""
    due = len(lane.line) + len(lane.held) + len(lane.at_share)
    view = {"name": lane.name, "in_flight": lane.in_flight, "concurrency": lane.declared}
    return {**view, "due": due, "openings": lane.openings, **_throttled(lane.throttle, now)}


def scope_views(lanes: LaneSet, now: int) -> list[dict[str, Any]]:
    """What `status` shows of the URLs, endpoints and webhooks that are throttled."""
    found = []
    for throttle in lanes.scopes.by_name.values():
        due = sum(lanes.is_held(key) for key in lanes.scopes.keys(throttle.name))
        view = _throttled(throttle, now)
        if any(view[kind] is not None for kind in BY_KIND):
            found.append({"name": throttle.name, "due": due, **view})
    return found


def _throttled(throttle: Throttle | None, now: int) -> dict[str, Any]:
    view: dict[str, Any] = {"rate": None, "breaker": None, "retry_after": None, "overload": None}
    if throttle is None:
        return view
    if throttle.window is not None:
        free = throttle.window.free(now)
        view["rate"] = {
            "limit": str(throttle.window.limit),
            "times": throttle.window.limit.times,
            "used": throttle.window.used + throttle.window.reserved,
            "next": None if free else throttle.window.next_free(now),
        }
    breaker = throttle.breaker
    if breaker.opened_at is not None:
        view["breaker"] = {
            "state": "half_open" if throttle.probing else "open",
            "since": breaker.opened_at,
            "why": breaker.why,
            "probes": breaker.probes,
            "next_probe": None if throttle.probing else throttle.opens_at(now),
        }
    if throttle.told_until > now:
        view["retry_after"] = {"until": throttle.told_until, "why": throttle.told_why}
    pace = throttle.pace
    if pace is not None and pace.rate is not None:
        view["overload"] = {"since": pace.since, "rate": round(pace.rate, 1)}
    return view
