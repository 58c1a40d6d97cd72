"""What the end of an attempt means for its scopes: its receiver is down, is back, asks to wait, or
refuses what it is sent.

Each answer speaks of one scope. What fails to connect speaks of the receiver, which is the lane. A
timeout after that, a 5xx, an answer that was lost speak of the endpoint or webhook alone, until the
breakers of all its neighbours are open that were tried of late. A Retry-After with 429 or 503
speaks of the API, or by `retry_after_scope` of the endpoint; that of a delivery of its URL, however
many endpoints share it. The same goes for a 429 and a 503 without it, which the pace counts.

What throttles a scope is in memory, and a copy of it in the table `throttles`, which `fleet` writes
a moment later, never while an attempt waits for it. Should the power fail in between, the next
attempts are answered as these were. A hold by Retry-After is the whole fleet's; a breaker is a
daemon's own, which the next start on its machine begins with; a pace is found anew. What was lifted
stands in the table with its time, and wins over whatever began before.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable

from orchestratord.engine.attempt_in_progress import AttemptInProgress
from orchestratord.engine.lanes import throttle_view
from orchestratord.engine.lanes.breaker import WINDOW_MS, is_down
from orchestratord.engine.lanes.lane import Lane
from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.engine.lanes.pace import Pace
from orchestratord.engine.lanes.throttle import Throttle
from orchestratord.engine.retry_delay import parse_retry_after
from orchestratord.engine.settle.held_claims import Claims
from orchestratord.engine.stored_answer import error_record
from orchestratord.model.endpoint import BreakerRule
from orchestratord.model.event import (
    OVERLOAD,
    RETRY_AFTER,
    BreakerEvent,
    EventType,
    StoredThrottle,
    ThrottleEvent,
)
from orchestratord.model.outcome import Outcome, is_over_quota
from orchestratord.model.task import Key, Reason, Status
from orchestratord.plugin.event_bus import EventBus
from orchestratord.plugin.executor import Target
from orchestratord.values.clock import Clock, rfc3339
from orchestratord.values.durations import format_duration
from orchestratord.values.redact import Redactor

log = logging.getLogger("orchestratord.worker")

TOO_MUCH = frozenset({429, 503})
"""Answers that say so; their Retry-After is for all, and not only for this one."""
_NO_BREAKER = BreakerRule.model_construct(failures=0)
LASTING_MS = 60_000
"""For so long a scope has to have been slowed to be told of."""
MOST_CHANGES = 1_000
"""That wait to be written; there are as many only while the database is away."""


class Feedback:
    """Tells the throttles of scopes how attempts have ended."""

    def __init__(self, lanes: LaneSet, claims: Claims, events: EventBus, clock: Clock) -> None:
        """
        Args:
            lanes: whose throttles they are.
            claims: where a claim is released that may not begin any more.
            events: is told of what begins and ends.
            clock: the time.
        """
        self._lanes = lanes
        self._scopes = lanes.scopes
        self._claims = claims
        self._events = events
        self._clock = clock
        self._redactor = Redactor()
        """That of the attempt which ended last."""
        self.turned = asyncio.Event()
        """Set when a scope begins to be throttled, or is so no more."""
        self.reopened: dict[Key, int] = {}
        """Keys of which tasks come forward that a failure has put off since then: their breaker
        has closed; since 0 where a person wants it."""
        self.lifted: dict[str, int] = {}
        """Scopes that all daemons are to take for free again, and since when."""
        self.changes: deque[BreakerEvent | ThrottleEvent] = deque()
        """What has begun or ended, and is still to be written."""

    # -- an attempt ended ------------------------------------------------------------------------

    def note(self, attempt: AttemptInProgress, now: int) -> None:
        """An attempt has ended `now` (in milliseconds), and its slot is not yet free."""
        result, lane, key = attempt.result, self._lanes.lanes[attempt.lane], attempt.plan.key
        assert result is not None
        task, outcome = attempt.task, result.outcome
        if (
            result.decision.status is Status.SUCCEEDED
            and self._scopes.tried(key, now)
            and lane.throttle is None
            and task.id not in self._scopes.probes
            and (outcome is None or outcome.quota_until is None)
        ):
            return
        try:
            if (
                outcome is None
                or outcome.status_code is None
                or outcome.shortage
                # As egress has it; what a hook rejects may have been sent.
                or (
                    outcome.final_reason == Reason.REJECTED
                    and outcome.status_code == "error"
                    and not outcome.maybe_done
                )
            ):
                self._lanes.return_token(attempt.lane, now, task.id, attempt.began)
            elif result.request is not None and not (attempt.interrupted or outcome.lost):
                self._redactor = attempt.plan.config.redactor
                self._judge(attempt, lane, key, outcome, now)
            else:
                # It says nothing of the receiver: it was interrupted, or a hook failed at it.
                self._lanes.end_probe(attempt.lane, task.id, now)
        except Exception:
            # It was sent: whatever goes wrong here must not make it look unsent.
            log.exception("cannot apply the answer to task %s to %s", task.id, attempt.lane)

    def probes_open_breaker(self, attempt: AttemptInProgress) -> bool:
        """Whether an attempt is the probe of a breaker that is open."""
        probed = self._scopes.probes.get(attempt.task.id, ())
        return any(one.breaker.opened_at is not None for one in probed)

    def _judge(
        self, attempt: AttemptInProgress, lane: Lane, key: Key, outcome: Outcome, now: int
    ) -> None:
        task, target = attempt.task, attempt.plan.target
        refused = outcome.status_code in TOO_MUCH or is_over_quota(outcome)
        down, until = is_down(outcome), _asked(outcome, target, now)
        why = f"{outcome.status_code} with Retry-After"
        if outcome.quota_until is not None:
            until = max(until or 0, outcome.quota_until)
            why = f"{outcome.status_code} with nothing left of its quota"
        served = not (down or refused)
        failed = outcome.verdict != "success"  # else it was noted already
        free = failed and self._scopes.tried(key, now, served=served, down=down)
        probes = self._scopes.probes.get(task.id, [])
        if served and free and lane.throttle is None and not probes and until is None:
            return
        # A reload may have brought its key to another URL meanwhile.
        concerned = self._lanes.throttles(lane, key)
        left = [one for one in probes if one not in concerned]
        before = {id(one): one.probes_only(now) for one in [*concerned, *left]}
        wanted = any(one.probe_by_hand for one in probes)
        self._scopes.probe_over(task.id)
        error = error_record(outcome.error, self._redactor) or ""
        # Only what was served says that it is back.
        self._note_breakers(attempt, lane, outcome, down, probes, probes if served else [], error)
        if served:
            for throttle in probes:
                if throttle.told_until > now:
                    # It takes something, before the time that it had named.
                    self._lift(throttle, now)
            if wanted:
                self.lifted.update((one.name, now) for one in probes)
                self.turned.set()
        if until is not None:
            self._hold(self._scope_of_refusal(lane, key, target, now), until, why, now)
        else:
            self._note_pace(attempt, lane, key, refused=refused, now=now)
        self._changed([*self._lanes.throttles(lane, key), *left], before, now)

    def _changed(self, scopes: Iterable[Throttle], before: dict[int, bool], now: int) -> None:
        """Have these looked at again. `before`: of which only probes might pass."""
        for throttle in scopes:
            turned = throttle.probes_only(now) != before.get(id(throttle), False)
            if turned:
                self.turned.set()
                if throttle.probes_only(now):
                    # What was claimed for the next slots would be sent with them.
                    self._release_prefetched(throttle, now)
            self._lanes.scope_changed(throttle, now)

    def _release_prefetched(self, throttle: Throttle, now: int) -> None:
        keys = set(self._scopes.keys(throttle.name))
        for name in {self._scopes.lane(key) for key in keys}:
            for waiting in self._lanes.take_prefetched_of(name, now, keys):
                self._claims.release_claim_later(waiting)

    # -- breakers --------------------------------------------------------------------------------

    def _note_breakers(
        self,
        attempt: AttemptInProgress,
        lane: Lane,
        outcome: Outcome,
        down: bool,
        probes: list[Throttle],
        served: list[Throttle],
        why: str,
    ) -> None:
        now, plan = self._clock.now_ms(), attempt.plan
        key, rule = plan.key, plan.target.guarded_by.breaker
        # The receiver of deliveries may have webhooks with other rules.
        rule_of_lane = plan.config.guards.breaker if key.webhook else rule
        if not plan.target.lane_breaker:
            rule_of_lane = _NO_BREAKER
        of_lane, own = lane.throttle, self._scopes.by_name.get(key.name)
        for throttle, off in ((of_lane, rule_of_lane.off), (own, rule.off)):
            if throttle is not None and (off or not down):
                self._answered(throttle, served, now)
        if not down or rule.off:
            if down and of_lane is not None and of_lane in probes:
                of_lane.breaker.probe_failed(now, why)
            return
        of_lane = self._lanes.throttle_of(lane, now)
        due = False
        if of_lane.breaker.opened_at is None:
            due = not rule_of_lane.off and of_lane.breaker.count(now, why, rule_of_lane)
            if due and outcome.unreached:
                of_lane.breaker.open(now, now, why)
                self._opened(of_lane, now)
        elif not (outcome.unreached or of_lane.breaker.by_keys):
            self._answered(of_lane, served, now)  # something answers there
        elif of_lane in probes:
            of_lane.breaker.probe_failed(now, why)
        if own is not None and own.breaker.opened_at is not None:
            if own in probes:
                own.breaker.probe_failed(now, why)
            return
        if (outcome.unreached and not rule_of_lane.off) or of_lane.breaker.opened_at is not None:
            return
        own = self._scopes.get(key.name, now)
        own_due = own.breaker.count(now, why, rule)
        opens, together = key if own_due else None, (own_due or due) and not rule_of_lane.off
        if together and self._all_open(lane, now, opens, rule_of_lane):
            of_lane.breaker.open(now, now, why, by_keys=True)
            self._opened(of_lane, now)
        elif own_due:
            own.breaker.open(now, now, why)
            self._opened(own, now)

    def _all_open(self, lane: Lane, now: int, opens: Key | None, rule: BreakerRule) -> bool:
        """Whether the breakers of all keys of a lane are open that were tried of late; that of
        `opens` is about to.

        Those that are tried too rarely for a breaker of their own, and of which nothing was
        answered, count as one: where a hundred webhooks of a host have two deliveries each, its
        host may be down for hours.
        """
        scopes, rare = self._scopes, 0
        for key in scopes.tried_lately(lane.name, now, WINDOW_MS):
            own = scopes.by_name.get(key.name)
            if key == opens or (own is not None and own.breaker.opened_at is not None):
                continue
            if not scopes.tries[key].down or (own is not None and own.breaker.answers(now)):
                return False
            rare += 0 if own is None else own.breaker.failures
        return not rare or rare >= rule.failures

    def _opened(self, throttle: Throttle, now: int) -> None:
        breaker, name = throttle.breaker, throttle.name
        self._end_pace(throttle, now)
        lane = self._lanes.lanes.get(name)
        if lane is not None and lane.throttle is throttle:
            lane.openings += 1
        log.warning(
            "the breaker of %s is open: %d attempts failed, the last with: %s; its tasks wait, "
            "and lose no attempt, while probes find out whether it is back",
            name,
            breaker.failures,
            breaker.why,
        )
        self._publish(
            BreakerEvent(
                EventType.BREAKER_OPENED,
                now,
                self._redactor.text(name),
                breaker.failures,
                breaker.why,
                next_probe=breaker.next_probe,
            )
        )

    def _answered(self, throttle: Throttle, served: list[Throttle], now: int) -> None:
        """`served`: those of which a probe was."""
        breaker = throttle.breaker
        opened_at, failed = breaker.opened_at, breaker.probes
        if not breaker.answered(now) or opened_at is None:
            return
        for key in self._scopes.keys(throttle.name):
            if throttle in served:
                self.reopened[key] = min(breaker.failing_since, self.reopened.get(key, now))
            for other in self._scopes.of.get(key, ()):
                # What its lane was down for may be over there as well.
                other.breaker.next_probe = min(other.breaker.next_probe, now)
        self._closed(throttle, opened_at, failed, now)

    def _closed(self, throttle: Throttle, opened_at: int, probes: int, now: int) -> None:
        passed = max(now - opened_at, 0)
        log.warning(
            "the breaker of %s is closed again after %s; %d probes had failed",
            throttle.name,
            format_duration(round(passed / 1000, 1)),
            probes,
        )
        name = self._redactor.text(throttle.name)
        self._publish(
            BreakerEvent(
                EventType.BREAKER_CLOSED,
                now,
                name,
                probes=probes,
                opened_at=opened_at,
                duration_ms=float(passed),
            )
        )

    # -- what the receiver asks for --------------------------------------------------------------

    def _scope_of_refusal(self, lane: Lane, key: Key, target: Target, now: int) -> Throttle:
        """The throttle of what a refusal speaks of."""
        if key.webhook:
            return self._scopes.get(target.url, now)
        if target.endpoint.api.retry_after_scope == "endpoint":
            return self._scopes.get(key.name, now)
        return self._lanes.throttle_of(lane, now)

    def _hold(self, throttle: Throttle, until: int, why: str, now: int) -> None:
        begins = throttle.told_until <= now
        throttle.end_hold(now)
        if begins:
            self._end_pace(throttle, now)
        throttle.wait_until(until, why, now)
        self.turned.set()
        if begins:
            self._began(throttle, RETRY_AFTER, why, until, now)

    def _note_pace(
        self, attempt: AttemptInProgress, lane: Lane, key: Key, *, refused: bool, now: int
    ) -> None:
        """Tell the paces of an answer, and begin one where it refuses what it is sent."""
        if attempt.plan.target.guarded_by.pace == "off":
            for throttle in self._lanes.throttles(lane, key):
                # It may have been on; at a URL it may still be on for other webhooks.
                if not key.webhook or {*self._scopes.keys(throttle.name)} == {key}:
                    self._end_pace(throttle, now)
            return
        refusing: Throttle | None = None
        if refused:
            refusing = self._scope_of_refusal(lane, key, attempt.plan.target, now)
            if refusing.pace is None and not refusing.probes_only(now):
                refusing.pace = Pace(now, self._scopes.served(refusing.name, now))
        due = self._lanes.is_due(lane.name)
        for throttle in self._lanes.throttles(lane, key):
            pace = throttle.pace
            if pace is None or (refused and throttle is not refusing):
                continue
            if pace.note(now, attempt.began, attempt.task.attempts, refused=refused, due=due):
                self._release_prefetched(throttle, now)

    def _end_pace(self, throttle: Throttle, now: int) -> None:
        if throttle.pace_published is not None:
            self._ended(throttle, OVERLOAD, throttle.pace_published, now)
        throttle.pace, throttle.pace_published = None, None

    def _began(self, throttle: Throttle, cause: str, why: str, until: int | None, now: int) -> None:
        rate = None
        if cause == RETRY_AFTER:
            log.warning(
                "%s was told to wait (%s): its tasks wait until %s",
                throttle.name,
                why,
                rfc3339(until),
            )
        elif throttle.pace is not None and throttle.pace.rate is not None:
            rate = round(throttle.pace.rate, 1)
            log.warning(
                "%s is slowed to %g tasks a second since %s: %s; its rate rises by itself, or by "
                "`orchestratorctl resume %s`",
                throttle.name,
                rate,
                rfc3339(throttle.pace.since),
                why,
                throttle.name,
            )
        name = self._redactor.text(throttle.name)
        self._publish(ThrottleEvent(EventType.THROTTLE_BEGAN, now, name, cause, why, until, rate))

    def _ended(self, throttle: Throttle, cause: str, since: int, now: int) -> None:
        passed = max(now - since, 0)
        lasted = format_duration(round(passed / 1000, 1))
        if cause == RETRY_AFTER:
            log.warning("%s does not wait any longer, after %s", throttle.name, lasted)
        else:
            log.warning("%s is slowed no longer, after %s", throttle.name, lasted)
        name = self._redactor.text(throttle.name)
        self._publish(
            ThrottleEvent(
                EventType.THROTTLE_ENDED, now, name, cause, since=since, duration_ms=float(passed)
            )
        )

    def _publish(self, event: BreakerEvent | ThrottleEvent) -> None:
        self.turned.set()
        if len(self.changes) >= MOST_CHANGES:
            lost = self.changes.popleft()
            log.error(
                "dropped the event %s of %s: more than %d such events wait for the database",
                lost.type,
                lost.lane if isinstance(lost, BreakerEvent) else lost.scope,
                MOST_CHANGES,
            )
        self.changes.append(event)
        self._events.publish(event)

    # -- what time ends --------------------------------------------------------------------------

    def tick(self) -> None:
        """Tell of what has ended by itself; to be called about twice a second."""
        now = self._clock.now_ms()
        for throttle in self._all():
            throttle.end_hold(now)
            if throttle.over is not None:
                since, _ = throttle.over
                throttle.over = None
                self._ended(throttle, RETRY_AFTER, since, now)
            self._publish_pace(throttle, now)
            if throttle.idle(now):
                self._lanes.scope_changed(throttle, now)
        for name, throttle in list(self._scopes.by_name.items()):
            if not self._scopes.keys(name):  # the endpoint is gone, or paused
                self._lift(throttle, now)
                self._scopes.drop(name)

    def _publish_pace(self, throttle: Throttle, now: int) -> None:
        """Tell of a scope that is slowed for long, and that it is so no more."""
        pace = throttle.pace
        if pace is not None and throttle.is_slowed:
            lanes = map(self._scopes.lane, self._scopes.keys(throttle.name))
            if pace.is_idle(now) and not any(map(self._lanes.is_due, lanes)):
                pace.end(now)  # another daemon may have taken the last of it
            elif throttle.pace_published is None and now - pace.since >= LASTING_MS:
                throttle.pace_published = pace.since
                self._began(throttle, OVERLOAD, "it refuses more at a higher rate", None, now)
        elif throttle.pace_published is not None or (pace is not None and pace.is_over(now)):
            self._end_pace(throttle, now)

    def _all(self) -> list[Throttle]:
        lanes = self._lanes.lanes.values()
        found = [lane.throttle for lane in lanes if lane.throttle is not None]
        return [*found, *self._scopes.by_name.values()]

    # -- what others say, and people -------------------------------------------------------------

    def wait_here(self, lane: str, until: int, why: str) -> None:
        """Nothing can be sent to a lane from this machine until then (milliseconds)."""
        now, found = self._clock.now_ms(), self._lanes.lanes[lane]
        if until <= now:
            return
        throttle = self._lanes.throttle_of(found, now)
        if throttle.told_until < until:
            throttle.wait_until(until, why, now, here=True)
            self._release_prefetched(throttle, now)
            self._lanes.throttle_changed(found, now)

    def restore(self, rows: Iterable[StoredThrottle], redactor: Redactor) -> None:
        """What the queue keeps of throttles: what other daemons were told to wait for holds here
        too, and what was known here before a restart."""
        for row in rows:
            if row.until is not None and row.until <= self._clock.now_ms():
                continue
            throttle = self._find(row.name, redactor)
            if throttle is not None and throttle.told_until >= (row.until or 1 << 62):
                continue  # it is known
            if throttle is None:
                self._scopes.keep_for_later(row)
            else:
                self._apply(throttle, row)

    def _apply(self, throttle: Throttle, row: StoredThrottle) -> None:
        now = self._clock.now_ms()
        before = throttle.probes_only(now)
        throttle.restore(row, now)
        if throttle.probes_only(now) and not before:
            self._release_prefetched(throttle, now)
            self.turned.set()
        self._lanes.scope_changed(throttle, now)
        self._lanes.wake.set()

    def knows(self, name: str, redactor: Redactor) -> bool:
        """Whether anything is placed in a scope."""
        return any(self._named(name, redactor))

    def _named(self, name: str, redactor: Redactor) -> list[str]:
        """The lanes that people see by a name, with secrets masked; or what else has it."""
        lanes = [one for one in self._lanes.lanes if name in (one, redactor.text(one))]
        return lanes or ([name] if self._scopes.keys(name) else [])

    def _find(self, name: str, redactor: Redactor) -> Throttle | None:
        """The throttle of a scope; None where nothing is placed there."""
        now = self._clock.now_ms()
        for one in self._named(name, redactor):
            lane = self._lanes.lanes.get(one)
            return self._lanes.throttle_of(lane, now) if lane else self._scopes.get(one, now)
        return None

    def lift(self, name: str, at: int, redactor: Redactor) -> bool:
        """End all that throttles a scope and began until `at`; whether there was anything."""
        self._scopes.later.pop(name, None)
        found = [one for one in self._all() if name in (one.name, redactor.text(one.name))]
        return sum(self._lift(throttle, at) for throttle in found) > 0

    def reopen(self, name: str, redactor: Redactor) -> None:
        """A person wants what failures have put off in a scope to be tried now."""
        for one in self._named(name, redactor):
            self.reopened.update(dict.fromkeys(self._scopes.keys(one), 0))

    def _lift(self, throttle: Throttle, at: int) -> bool:
        now, breaker = self._clock.now_ms(), throttle.breaker
        opened_at, probes, lifted = breaker.opened_at, breaker.probes, False
        if throttle.told_until > 0 and throttle.told_since <= at:
            since, throttle.told_until, throttle.told_since = throttle.told_since, 0, 0
            self._ended(throttle, RETRY_AFTER, since, now)
            lifted = True
        if opened_at is not None and opened_at <= at:
            breaker.answered(now)
            self._closed(throttle, opened_at, probes, now)
            lifted = True
        pace = throttle.pace
        if pace is not None and throttle.is_slowed and pace.since <= at:
            self._end_pace(throttle, now)
            pace.take_back(None, now)
            throttle.pace, lifted = pace, True
        if lifted:
            self._lanes.scope_changed(throttle, now)
            self._lanes.wake.set()
        return lifted

    def rows(self, owner: str, redactor: Redactor) -> list[StoredThrottle]:
        """What the queue is to keep of the throttles here."""
        now = self._clock.now_ms()
        return [row for one in self._all() for row in throttle_view.rows(one, now, owner, redactor)]

    def waiting(self, redactor: Redactor) -> list[dict[str, object]]:
        """The scopes that wait for their receiver, as other daemons show them."""
        now = self._clock.now_ms()
        found = (throttle_view.waiting_view(one, now, redactor) for one in self._all())
        return [view for view in found if view is not None]


def _asked(outcome: Outcome, target: Target, now: int) -> int | None:
    """Until when the receiver wants nothing more; None where it does not say."""
    if outcome.status_code not in TOO_MUCH or not target.retry.respect_retry_after:
        return None
    seconds = parse_retry_after(outcome.retry_after, now)
    if not seconds:
        return None
    return now + round(min(seconds, target.retry.max_retry_after) * 1000)
