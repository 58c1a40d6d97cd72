"""What the end of an attempt means for its lane: its receiver is down, is back, or asks to wait."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from orchestratord.engine.attempt_result import Run
from orchestratord.engine.lanes.breaker import is_down
from orchestratord.engine.lanes.lane_set import Lane, LaneSet
from orchestratord.engine.lanes.throttle import Throttle
from orchestratord.engine.retry_delay import parse_retry_after
from orchestratord.engine.settlement import Claims, error_record
from orchestratord.model.event import BreakerEvent, EventType
from orchestratord.model.outcome import Outcome
from orchestratord.model.task import Reason, Status, Task
from orchestratord.plugin.event_bus import EventBus
from orchestratord.plugin.executor import Target
from orchestratord.values.clock import Clock, rfc3339
from orchestratord.values.durations import format_duration
from orchestratord.values.redact import Redactor

log = logging.getLogger("orchestratord.worker")

RETRY_AFTER_CODES = frozenset({429, 503})
"""Answers whose Retry-After is for all calls, and not only for this one."""


class Feedback:
    """Tells the throttles of lanes how attempts have ended."""

    def __init__(self, lanes: LaneSet, claims: Claims, events: EventBus, clock: Clock) -> None:
        """
        Args:
            lanes: whose throttles they are.
            claims: where a claim is released that may not begin any more.
            events: is told of breakers.
            clock: the time.
        """
        self._lanes = lanes
        self._claims = claims
        self._events = events
        self._clock = clock
        self.turned: Callable[[], None] = lambda: None
        """Called when a lane begins to wait for its receiver, or does so no more."""

    def note(self, run: Run) -> None:
        """An attempt ended, and its slot is not yet free."""
        task, result, lane = run.task, run.result, self._lanes.lanes[run.lane]
        throttle = lane.throttle
        if throttle is None and result is not None and result.decision.status is Status.SUCCEEDED:
            return
        outcome = result.outcome if result is not None else None
        try:
            if (
                result is None
                or outcome is None
                or outcome.status_code is None
                or outcome.final_reason == Reason.REJECTED
            ):
                self._lanes.return_token(run.lane, self._clock.now_ms(), task.id, run.began)
            elif result.request is not None and not result.uncounted:
                self._judge(lane, task, outcome, run.target, run.config.redactor)
            elif throttle is not None and throttle.probe == task.id:
                # It says nothing of the receiver: it was interrupted, or a hook failed at it.
                throttle.probe_over()
                self._lanes.throttle_changed(lane, self._clock.now_ms())
        except Exception:
            # It was sent: whatever goes wrong here must not make it look unsent.
            log.exception("what the end of task %s means for %s is not noted", task.id, run.lane)

    def _judge(
        self, lane: Lane, task: Task, outcome: Outcome, target: Target, redactor: Redactor
    ) -> None:
        now, down = self._clock.now_ms(), is_down(outcome)
        until = _asked(outcome, target, now)
        if lane.throttle is None and not down and until is None:
            return
        throttle = self._lanes.throttle_of(lane, now)
        before, probe = throttle.probes_only(now), throttle.probe == task.id
        if probe:
            throttle.probe_over()
        if down:
            self._down(lane, throttle, probe, error_record(outcome.error, redactor) or "", redactor)
        else:
            self._answered(lane, throttle, redactor)
            if probe:
                throttle.told_until = 0  # it takes something, before the time that it had named
        if until is not None:
            self._wait_until(lane, throttle, until, f"{outcome.status_code} with Retry-After")
        self._changed(lane, throttle, before, now)

    def told_to_wait(self, lane: str, until: int, why: str) -> None:
        """Another daemon was told by the receiver of a lane to wait, until then (milliseconds)."""
        now, found = self._clock.now_ms(), self._lanes.lanes.get(lane)
        if found is None:
            self._lanes.told_to_wait(lane, until, why, now)
            return
        if until <= now or (found.throttle is not None and until <= found.throttle.told_until):
            return
        throttle = self._lanes.throttle_of(found, now)
        before = throttle.probes_only(now)
        throttle.wait_until(until, why, here=False)
        self._changed(found, throttle, before, now)
        self._lanes.wake.set()

    def _changed(self, lane: Lane, throttle: Throttle, before: bool, now: int) -> None:
        """`before`: whether only probes might pass before."""
        self._lanes.throttle_changed(lane, now)
        if throttle.probes_only(now) == before:
            return
        self.turned()
        if not before:
            # What was claimed for the next slots would be sent with them.
            for waiting in self._lanes.take_prefetched_of(lane.name, now):
                self._claims.release_claim_later(waiting)

    def _down(
        self, lane: Lane, throttle: Throttle, probe: bool, why: str, redactor: Redactor
    ) -> None:
        now, breaker = self._clock.now_ms(), throttle.breaker
        if probe and breaker.opened_at is not None:
            breaker.probe_failed(now, why)
        elif breaker.failed(now, why):
            lane.openings += 1
            log.warning(
                "the breaker of %s is open: %d attempts failed, the last with: %s; its tasks wait, "
                "and lose no attempt, while single ones find out whether it is back",
                lane.name, breaker.failures, why,
            )  # fmt: skip
            name = redactor.text(lane.name)
            self._events.publish(
                BreakerEvent(
                    EventType.BREAKER_OPENED, now, name, breaker.failures, why,
                    next_probe=breaker.next_probe,
                )
            )  # fmt: skip

    def _answered(self, lane: Lane, throttle: Throttle, redactor: Redactor) -> None:
        now, breaker = self._clock.now_ms(), throttle.breaker
        opened_at, probes = breaker.opened_at, breaker.probes
        if not breaker.answered(now) or opened_at is None:
            return
        passed = max(now - opened_at, 0)
        log.warning(
            "the breaker of %s is closed again after %s; %d probes had failed",
            lane.name, format_duration(round(passed / 1000, 1)), probes,
        )  # fmt: skip
        name = redactor.text(lane.name)
        self._events.publish(
            BreakerEvent(
                EventType.BREAKER_CLOSED, now, name, probes=probes, opened_at=opened_at,
                duration_ms=float(passed),
            )
        )  # fmt: skip

    def _wait_until(self, lane: Lane, throttle: Throttle, until: int, why: str) -> None:
        now = self._clock.now_ms()
        if throttle.told_until <= now:
            log.info("%s was told to wait (%s): its tasks wait until %s",
                     lane.name, why, rfc3339(until))  # fmt: skip
        throttle.wait_until(until, why)


def _asked(outcome: Outcome, target: Target, now: int) -> int | None:
    """Until when the receiver wants nothing more; None where it does not say."""
    if outcome.status_code not in RETRY_AFTER_CODES or not target.retry.respect_retry_after:
        return None
    seconds = parse_retry_after(outcome.retry_after, now)
    if not seconds:
        return None
    return now + round(min(seconds, target.retry.max_retry_after) * 1000)


def waiting_view(lane: Lane, now: int, redactor: Redactor) -> dict[str, Any] | None:
    """What the other daemons are told of a lane; None where it does not wait for its receiver, or
    has heard of that from them."""
    throttle = lane.throttle
    if throttle is None:
        return None
    breaker, told = None, None
    if throttle.breaker.opened_at is not None:
        breaker = {"since": throttle.breaker.opened_at, "why": redactor.text(throttle.breaker.why)}
    if throttle.told_until > now and throttle.told_here:
        told = {"until": throttle.told_until, "why": throttle.told_why}
    if breaker is None and told is None:
        return None
    # One that is named after a secret is known by nobody.
    return {"lane": redactor.text(lane.name), "breaker": breaker, "retry_after": told}


def lane_view(lane: Lane, now: int) -> dict[str, Any]:
    """What `status` shows of a lane; times in milliseconds."""
    throttle = lane.throttle
    view: dict[str, Any] = {
        "name": lane.name, "in_flight": lane.in_flight, "concurrency": lane.concurrency,
        "due": len(lane.line), "rate": None, "breaker": None, "retry_after": None,
        "openings": lane.openings,
    }  # fmt: skip
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
    return view
