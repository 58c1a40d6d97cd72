"""What the end of an attempt means for its lane: its receiver is down, is back, or asks to wait."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from orchestratord.engine.attempt_result import AttemptResult
from orchestratord.engine.lanes.breaker import is_down
from orchestratord.engine.lanes.lane_set import Lane, LaneSet
from orchestratord.engine.lanes.throttle import Throttle
from orchestratord.engine.retry_delay import parse_retry_after
from orchestratord.engine.settlement import error_record
from orchestratord.model.event import BreakerEvent, EventType
from orchestratord.model.outcome import Outcome
from orchestratord.model.task import Reason, Status, Task
from orchestratord.plugin.event_bus import EventBus
from orchestratord.plugin.executor import Target
from orchestratord.values.clock import Clock, rfc3339
from orchestratord.values.durations import format_duration
from orchestratord.values.redact import Redactor

log = logging.getLogger("orchestratord.worker")

PATIENCE = frozenset({429, 503})
"""Answers whose Retry-After is for all calls, and not only for this one."""


class Feedback:
    """Tells the gates of lanes how attempts have ended."""

    def __init__(
        self,
        lanes: LaneSet,
        events: EventBus,
        clock: Clock,
        put_back: Callable[[Task], None],
        turned: Callable[[], None],
    ) -> None:
        """
        Args:
            lanes: whose gates they are.
            events: is told of breakers.
            clock: the time.
            put_back: gives a claim back that did not begin.
            turned: called when a lane begins to wait for its receiver, or does so no more.
        """
        self._lanes = lanes
        self._turned = turned
        self._events = events
        self._clock = clock
        self._put_back = put_back

    def unsent(self, lane: str, task: Task, since: int) -> None:
        """An attempt that began at `since` (milliseconds) ended, and nothing was sent."""
        if self._lanes.lanes[lane].gate is not None:
            self._lanes.gates.unsent(lane, task.id, since, self._clock.now_ms())

    def ended(
        self,
        lane: str,
        task: Task,
        ended: AttemptResult,
        target: Target,
        redactor: Redactor,
        since: int,
    ) -> None:
        """An attempt that began at `since` (milliseconds) ended, and its slot is not yet free."""
        found = self._lanes.lanes[lane]
        if found.gate is None and ended.decision.status is Status.SUCCEEDED:
            return
        outcome = ended.outcome
        try:
            if (
                outcome is None
                or outcome.status_code is None
                or outcome.final_reason == Reason.REJECTED
            ):
                self.unsent(lane, task, since)
            elif ended.request is not None and not ended.give_back:
                self._judge(found, task, outcome, target, redactor)
            elif found.gate is not None and found.gate.probe == task.id:
                # It says nothing of the receiver: it was interrupted, or a hook failed at it.
                found.gate.probe_over()
                self._lanes.gates.changed(found, self._clock.now_ms())
        except Exception:
            # It was sent: whatever goes wrong here must not make it look unsent.
            log.exception("what the end of task %s means for %s is not noted", task.id, lane)

    def _judge(
        self, lane: Lane, task: Task, outcome: Outcome, target: Target, redactor: Redactor
    ) -> None:
        now, down = self._clock.now_ms(), is_down(outcome)
        until = _asked(outcome, target, now)
        if lane.gate is None and not down and until is None:
            return
        gate = self._lanes.gates.of(lane, now)
        shut, probe = gate.shut(now), gate.probe == task.id
        if probe:
            gate.probe_over()
        if down:
            self._down(lane, gate, probe, error_record(outcome.error, redactor) or "", redactor)
        else:
            self._answered(lane, gate, redactor)
            if probe:
                gate.held_until = 0  # it takes something, before the time that it had named
        if until is not None:
            self._hold(lane, gate, until, f"{outcome.status_code} with Retry-After")
        self._changed(lane, gate, shut, now)

    def told(self, lane: str, until: int, why: str) -> None:
        """Another daemon was asked for patience by the receiver of a lane."""
        now, found = self._clock.now_ms(), self._lanes.lanes.get(lane)
        if found is None:
            self._lanes.gates.told(lane, until, why, now)
            return
        if until <= now or (found.gate is not None and until <= found.gate.held_until):
            return
        gate = self._lanes.gates.of(found, now)
        shut = gate.shut(now)
        gate.hold(until, why, here=False)
        self._changed(found, gate, shut, now)

    def _changed(self, lane: Lane, gate: Throttle, shut: bool, now: int) -> None:
        self._lanes.gates.changed(lane, now)
        if gate.shut(now) == shut:
            return
        self._turned()
        if not shut:
            # What was claimed for the next slots would be sent with them.
            for waiting in self._lanes.take_held_of(lane.name, now):
                self._put_back(waiting)

    def _down(self, lane: Lane, gate: Throttle, probe: bool, why: str, redactor: Redactor) -> None:
        now, breaker = self._clock.now_ms(), gate.breaker
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

    def _answered(self, lane: Lane, gate: Throttle, redactor: Redactor) -> None:
        now, opened_at, probes = self._clock.now_ms(), gate.breaker.opened_at, gate.breaker.probes
        if not gate.breaker.answered(now) or opened_at is None:
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

    def _hold(self, lane: Lane, gate: Throttle, until: int, why: str) -> None:
        now = self._clock.now_ms()
        if gate.held_until <= now:
            log.info("%s asks for patience (%s): its tasks wait until %s",
                     lane.name, why, rfc3339(until))  # fmt: skip
        gate.hold(until, why)


def _asked(outcome: Outcome, target: Target, now: int) -> int | None:
    """Until when the receiver wants nothing more; None where it does not say."""
    if outcome.status_code not in PATIENCE or not target.retry.respect_retry_after:
        return None
    seconds = parse_retry_after(outcome.retry_after, now)
    if not seconds:
        return None
    return now + round(min(seconds, target.retry.max_retry_after) * 1000)


def waiting_view(lane: Lane, now: int, redactor: Redactor) -> dict[str, Any] | None:
    """What the other daemons are told of a lane; None where it does not wait for its receiver, or
    has heard of that from them."""
    gate = lane.gate
    if gate is None:
        return None
    breaker, held = None, None
    if gate.breaker.opened_at is not None:
        breaker = {"since": gate.breaker.opened_at, "why": redactor.text(gate.breaker.why)}
    if gate.held_until > now and gate.held_here:
        held = {"until": gate.held_until, "why": gate.held_why}
    if breaker is None and held is None:
        return None
    # One that is named after a secret is known by nobody.
    return {"lane": redactor.text(lane.name), "breaker": breaker, "retry_after": held}


def lane_view(lane: Lane, now: int) -> dict[str, Any]:
    """What `status` shows of a lane; times in milliseconds."""
    gate = lane.gate
    view: dict[str, Any] = {
        "name": lane.name, "in_flight": lane.in_flight, "concurrency": lane.concurrency,
        "due": len(lane.line), "rate": None, "breaker": None, "retry_after": None,
        "openings": lane.openings,
    }  # fmt: skip
    if gate is None:
        return view
    if gate.window is not None:
        free = gate.window.free(now)
        view["rate"] = {
            "limit": str(gate.window.limit),
            "times": gate.window.limit.times,
            "used": gate.window.used + gate.window.reserved,
            "next": None if free else gate.window.next_free(now),
        }
    breaker = gate.breaker
    if breaker.opened_at is not None:
        view["breaker"] = {
            "state": "half_open" if gate.probing else "open",
            "since": breaker.opened_at,
            "why": breaker.why,
            "probes": breaker.probes,
            "next_probe": None if gate.probing else gate.opens_at(now),
        }
    if gate.held_until > now:
        view["retry_after"] = {"until": gate.held_until, "why": gate.held_why}
    return view
