"""How an attempt ended: the decision, told to the hooks, and what they want written with it.

Here are also the ends of what was never sent: refused, expired, removed, lost with a dead daemon.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.engine.lanes.placement import Placement
from orchestratord.engine.poison import POISON_AFTER
from orchestratord.engine.retry import AMBIGUOUS, Decision, succeeded
from orchestratord.engine.run_calls import listens, run_of
from orchestratord.http.api_client import Sender, TargetClient
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.outcome import Outcome
from orchestratord.model.recurring_rows import RecurringRows, upserts_of
from orchestratord.model.settings import Config
from orchestratord.model.task import (
    Attempt,
    Effect,
    Key,
    Kind,
    NewTask,
    Reason,
    Status,
    Task,
    made,
)
from orchestratord.plugin.executor import Executor, Target
from orchestratord.plugin.hookspecs import ANNOUNCE, END_PHASES, PHASES
from orchestratord.plugin.host import Host, Reached
from orchestratord.plugin.isolation import is_ctrl_c
from orchestratord.plugin.long_work import off_loop, seconds_queued
from orchestratord.queue.operations.insert import HAPPENED_CODE
from orchestratord.queue.operations.slices import SLICE, sliced
from orchestratord.queue.shared_rates import postpone
from orchestratord.queue.store import Store
from orchestratord.values import world
from orchestratord.values.clock import Clock
from orchestratord.values.durations import format_duration
from orchestratord.values.rate_limit import MOST_AHEAD, RateWindow
from orchestratord.values.status_set import StatusCode

log = logging.getLogger("orchestratord.attempt")


class Recurrence(NamedTuple):
    """What is written with the successes of a key, of which no hook is asked: those that are
    decided from `since` on and before `until`, milliseconds since the epoch."""

    since: int
    until: int
    rows: Sequence[RecurringRows]


DIED = "the daemon died while this attempt was under way"
UNHELD = "nothing in the daemon held this attempt any more"

MOST_CODES = 8
"""Status codes of the successes of a key for which that is remembered."""


@dataclass(slots=True)
class Plan:
    """What all attempts of a key are made with, while configuration and plugins stay as they are.

    Args:
        key: what its tasks are claimed by.
        target: what the configuration says of it.
        executor: what carries them out.
        config: the configuration in force.
        client: what sends their requests.
        direct: whether an attempt of an idempotent task makes its request and sends it, with
            nothing in between.
        evaluates: whether making it may evaluate expressions.
        decides: whether a hook is to be asked about its answers.
        after: the after_ phase that an attempt reaches; None for none.
        announces: the phases of which hooks are to be told.
        tells: whether hooks are to be told of its successes.
        tells_runs: whether they are to be told of the ends of the runs that begin with its tasks.
        answers: by status code what they would say of one more success, where they need not be
            asked for it.
    """

    key: Key
    target: Target
    executor: Executor
    config: Config
    client: TargetClient
    direct: bool
    evaluates: bool
    decides: bool
    after: str | None
    announces: Collection[str]
    tells: bool
    tells_runs: bool
    answers: dict[StatusCode, Recurrence] = field(default_factory=dict)


class Plans:
    """The plans of the keys of which attempts are made."""

    def __init__(self, placement: Placement, host: Host, sender: Sender) -> None:
        self._placement = placement
        self._sender = sender
        self._host = host
        self._loaded: object = None
        """What these were made of, besides what the placement knows."""

    def of(self, task: Task) -> Plan | None:
        """The plan for an attempt of a task; None where its key waits, or its tasks fail."""
        plans, loaded = self._placement.plans, self._host.loaded
        if loaded is not self._loaded:
            plans.clear()
            self._loaded = loaded
        plan: Plan | None = plans.get((task.endpoint_id, task.webhook))
        return self._make(task) if plan is None else plan

    def in_force(self, key: Key) -> Plan | None:
        """The plan for the attempts of a key that begin now, if any has."""
        if self._host.loaded is not self._loaded:
            return None
        plan: Plan | None = self._placement.plans.get(key)
        return plan

    def _make(self, task: Task) -> Plan | None:
        key, kind, plans = task.key, task.kind, self._placement.plans
        standing, executor = self._placement.look(key)
        if not isinstance(standing, Target) or executor is None:
            return None
        endpoint, concerned = standing.endpoint, self._host.concerned
        before, after = executor.phases
        announces = {
            phase for phase in PHASES if concerned(ANNOUNCE, kind, endpoint, phase) is not None
        }
        try:
            evaluates = executor.evaluates(standing)
        except BaseException as error:  # an executor is a plugin's, too
            if is_ctrl_c(error):
                raise
            evaluates = True  # what is wrong with it shows as it prepares a request
        plan = plans[key] = Plan(
            key, standing, executor, self._placement.config, self._sender.to(standing),
            direct=standing.idempotent
            and standing.retry.give_up_after is None
            and endpoint.partition is None
            and not (before and (before in announces or concerned(before, kind, endpoint))),
            evaluates=evaluates,
            decides=bool(after) and concerned(after, kind, endpoint) is not None,
            after=None if executor.immediate else after,
            announces=announces,
            tells=concerned("on_success", kind, endpoint) is not None,
            tells_runs=kind == Kind.CALL and listens(self._host, endpoint),
        )  # fmt: skip
        return plan


@dataclass(slots=True)
class Run:
    """One attempt under way: what it is made with, as it was when it began, and what it came to.

    Args:
        task: as it was claimed.
        plan: what it is made with.
        lane: whose slot it has.
        running: the asyncio task of the attempt.
        began: when it began, milliseconds since the epoch.
        clock: the same by `world.monotonic`.
        counted: when the rate of its lane counts it; several daemons do so as it is claimed.
        early: it began before the delay was over that the last one which counted has chosen.
        request: what is sent, once it is made.
        sent: when its executor was called, by `world.monotonic`; 0 before.
        took: milliseconds until it was decided when it is tried again; 0 before.
        costly: making it takes too long for the loop.
        interrupted: the daemon stopped before it had ended.
        result: how it ended; None until then.
    """

    task: Task
    plan: Plan
    lane: str
    running: asyncio.Task[Any]
    began: int
    clock: float
    counted: int
    early: bool = False
    request: Any = None
    sent: float = 0.0
    took: float = 0.0
    costly: bool = False
    interrupted: bool = False
    result: AttemptResult | None = None

    def elapsed(self) -> float:
        """Milliseconds since it began."""
        # `round` takes five times as long.
        return int((world.monotonic() - self.clock) * 1_000_000) / 1000

    def reached(self, outcome: Outcome | None) -> Reached:
        """What the hooks see of it; `outcome`: None for its start."""
        plan = self.plan
        endpoint = plan.target.endpoint
        return Reached(self.task, endpoint, plan.config, outcome, self.request, self.running)

    def row(self, outcome: Outcome, decision: Decision) -> Attempt:
        """The row of the attempt, as it ends now."""
        return Attempt(
            self.task.attempts, self.began, self.took or self.elapsed(), outcome.status_code,
            outcome.error,
            decision.delay, decision.why,
        )  # fmt: skip


@dataclass(slots=True)  # not frozen: it is made for each attempt, which takes twice as long then
class AttemptResult:
    """How an attempt ended and what is to be written with it."""

    decision: Decision
    outcome: Outcome | None
    attempt: Attempt | None
    effects: list[Effect] = field(default_factory=list)
    uncounted: bool = False
    """The attempt does not count."""
    deaths: int | None = None
    request: Any = None
    after: str | None = None
    """The after_ phase that was reached, None for none."""
    recurring: Sequence[RecurringRows] = ()
    """What is written besides, as with other successes of the key."""
    endpoint: Endpoint | None = None
    """Whose hooks were asked, and are to be asked again should the task be cancelled meanwhile;
    None for none."""


class ResultTeller:
    """Tells the hooks how attempts end."""

    def __init__(self, host: Host, plans: Plans, clock: Clock) -> None:
        self._host = host
        self._plans = plans
        self._clock = clock

    async def started(self, run: Run) -> Sequence[Effect]:
        """What the hooks want written before the first byte is sent."""
        before = run.plan.executor.phases[0]
        if before not in run.plan.announces:
            return ()
        reached = run.reached(None)
        reached.phase = before
        effects = await self._host.collect(ANNOUNCE, reached)
        return effects if len(effects) <= SLICE else await self._in_slices(effects, run.task)

    async def _in_slices(self, effects: list[Effect], task: Task) -> list[Effect]:
        """The same, where they are more than one transaction should write: with slices of them."""
        return await off_loop(sliced, effects, self._clock.now_ms(), run_of(task))

    async def tell(
        self, reached: Reached, decision: Decision, row: Attempt | None, after: str | None
    ) -> AttemptResult:
        """Collect what the telling hooks want written with the decision.

        Args:
            reached: the attempt as it ended: `outcome` as the hooks left it, `task` as it was
                claimed, `endpoint` as it was when the attempt began (None where it is gone).
            decision: what becomes of the task.
            row: the row of the attempt; None where there was none.
            after: the after_ phase that was reached; None for none.
        """
        host, task, endpoint = self._host, reached.task, reached.endpoint
        outcome, phase = reached.outcome, END_PHASES.get(decision.status)
        assert outcome is not None
        phases = (after, phase) if endpoint is not None else ()
        concerned = partial(host.concerned, ANNOUNCE, task.kind, endpoint)
        announced = [name for name in phases if name is not None and concerned(name)]
        telling = None
        if phase is not None and (endpoint is not None or phase == "on_final_failure"):
            telling = host.concerned(phase, task.kind, endpoint)
        if outcome.final_reason != decision.reason:
            outcome = replace(outcome, final_reason=decision.reason)
        effects: list[Effect] = []
        self._ask_again(task.key, phase)
        if announced or telling:  # as for few calls
            reached.outcome, reached.next_try = outcome, decision.next_try
            reached.task = task.after(
                decision.status, decision.reason, decision.next_try,
                outcome.status_code, outcome.error,
            )  # fmt: skip
            for name in announced:
                reached.phase = name
                effects += await host.collect(ANNOUNCE, reached)
            if telling and phase is not None:
                recurring: list[RecurringRows] | None = [] if phase == "on_success" else None
                effects += await host.collect(phase, reached, recurring)
                effects += upserts_of(recurring or (), self._clock.now_ms())
            if len(effects) > SLICE:
                effects = await self._in_slices(effects, task)
        self._ask_again(task.key, phase)  # what they said meanwhile is from before they were told
        return AttemptResult(
            decision, outcome, row, effects, decision.uncounted, None, reached.request, after,
            endpoint=endpoint,
        )  # fmt: skip

    def _ask_again(self, key: Key, phase: str | None) -> None:
        """Have hooks asked about the next success of a key, where they are told of another end."""
        if phase != "on_success" and (plan := self._plans.in_force(key)) is not None:
            plan.answers = {}

    def succeeded(self, run: Run, outcome: Outcome) -> AttemptResult:
        """What `tell` makes of a success of which no phase is announced, as of most. Where hooks
        are to be told of it and nothing recurs, they are still to be asked: `tell_success`."""
        decision, plan = succeeded(outcome), run.plan
        row = run.row(outcome, decision)
        result = AttemptResult(decision, outcome, row, [], False, None, run.request, plan.after)
        if plan.tells and outcome.error is None:
            known = plan.answers.get(outcome.status_code)
            if (
                known is not None
                and known.since <= self._clock.now_ms() < known.until
                and self._plans.in_force(plan.key) is plan  # its webhook may be gone
            ):
                result.recurring = known.rows
        return result

    async def tell_success(self, run: Run, outcome: Outcome, result: AttemptResult) -> None:
        """Ask the hooks what they want written with a success, and put that into its `result`."""
        decided_at = self._clock.now_ms()
        task, plan = run.task, run.plan
        remembered = plan.answers  # another one, where an attempt ends otherwise meanwhile
        reached = run.reached(outcome)
        reached.task = task.after("succeeded", None, None, outcome.status_code, outcome.error)
        reached.phase = "on_success"
        recurring: list[RecurringRows] = []
        effects = await self._host.collect("on_success", reached, recurring)
        asked = self._host.concerned("on_success", task.kind, plan.target.endpoint) or ()
        if len(recurring) == len(asked) and outcome.error is None:
            if len(remembered) >= MOST_CODES:
                remembered.clear()
            until = min(one.until for one in recurring)
            remembered[outcome.status_code] = Recurrence(decided_at, until, recurring)
            result.recurring = recurring
            return
        effects += upserts_of(recurring, decided_at)
        if len(effects) > SLICE:
            effects = await self._in_slices(effects, task)
        result.effects = effects

    async def happened(
        self,
        new: NewTask,
        id_: int,
        run_id: int | None,
        target: Target,
        executor: Executor,
        config: Config,
    ) -> list[Effect] | None:
        """What the telling hooks want written with a task that needs no attempt, and is going to be
        written as succeeded, in this run; None where a hook finds that it has not."""
        now, endpoint, after = self._clock.now_ms(), target.endpoint, executor.phases[1]
        task = made(
            id=id_, kind=new.kind, endpoint_id=new.endpoint_id, webhook=new.webhook,
            phase=new.phase, status=Status.RUNNING, reason=None, attempts=0,
            max_attempts=new.max_attempts, next_try=None, params=new.params, payload=None,
            parent_id=new.parent_id, created_at=now, updated_at=now,
            scheduled_at=new.scheduled_at or now, depth=new.depth, run_id=run_id,
        )  # fmt: skip
        outcome = Outcome("success", HAPPENED_CODE)
        if self._host.concerned(after, task.kind, endpoint):
            arguments = {
                "outcome": outcome, "request": None, "statement": None, "task": task,
                "endpoint": endpoint, "config": config,
            }  # fmt: skip
            outcome = await self._host.fold(after, "outcome", arguments)
        if outcome.verdict != "success":
            return None
        decision = Decision(Status.SUCCEEDED, "it has happened", None)
        reached = Reached(task, endpoint, config, outcome)
        return (await self.tell(reached, decision, None, None)).effects

    async def lost(
        self,
        task: Task,
        endpoint: Endpoint | None,
        executor: Executor | None,
        config: Config,
        error: str = DIED,
    ) -> AttemptResult:
        """Settle an attempt that had started when its daemon died: it costs a death, no attempt.

        `executor` is None where today's configuration has none for it. `UNHELD` costs no death: the
        daemon lives, and a repeat is not safe.
        """
        now, died = self._clock.now_ms(), error is DIED
        deaths = task.deaths + died
        outcome = Outcome("retry", "error", error=error, maybe_done=True)
        if not task.idempotent:
            decision = Decision(Status.FAILED, AMBIGUOUS, Reason.AMBIGUOUS)
        elif deaths >= POISON_AFTER and task.alone:
            why = f"{deaths} starts ended with the daemon's death, the last one while it ran alone"
            decision = Decision(Status.FAILED, why, Reason.POISONED)
        else:
            # In its former place, before what became due since.
            due = min(task.next_try or now, now)
            decision = Decision(Status.PENDING, "lost with the daemon: again at once", None, due, 0)
        began = task.started_at or now
        row = Attempt(task.attempts, began, 0.0, "error", error, decision.delay, decision.why)
        phase = executor.phases[1] if executor is not None else None
        reached = Reached(task, endpoint, config, outcome)
        result = await self.tell(reached, decision, row, phase)
        result.deaths, result.uncounted = deaths, died
        return result

    async def fail(
        self,
        task: Task,
        endpoint: Endpoint | None,
        config: Config,
        reason: Reason,
        error: str,
        *,
        request: Any = None,
        began: int | None = None,
    ) -> AttemptResult:
        """Fail a task that sent nothing: its status code is null and no after_ phase is reached.

        `began` is given where an attempt was made and is to be logged; without it the claim was
        only made to fail the task, and does not count.
        """
        decision = Decision(Status.FAILED, reason.value, reason)
        row = None
        if began is not None:
            row = Attempt(
                task.attempts, began, float(self._clock.now_ms() - began), None, error, None,
                reason.value)  # fmt: skip
        outcome = Outcome("failure", None, error=error, final_reason=reason)
        reached = Reached(task, endpoint, config, outcome, request)
        result = await self.tell(reached, decision, row, None)
        result.uncounted = began is None
        return result

    async def cancelled(self, task: Task, result: AttemptResult, config: Config) -> AttemptResult:
        """The same end of an attempt, for a task that is cancelled instead of tried again."""
        decision = Decision(Status.CANCELLED, "cancelled while it ran")
        row = result.attempt
        if row is not None:
            row = replace(row, delay=None, why=decision.why)
        if result.endpoint is None or result.outcome is None:
            return replace(result, decision=decision, attempt=row, effects=[])
        reached = Reached(task, result.endpoint, config, result.outcome, result.request)
        told = await self.tell(reached, decision, row, result.after)
        told.uncounted, told.deaths = result.uncounted, result.deaths
        return told


# -- What makes attempts end that do not: their timeout, their lease, the daemon's stop ------------

GRACE = 1.0
"""Seconds over its timeout after which an executor that does not end by itself is cancelled."""
LEASE_MARGIN = 2.0
"""Seconds before a lease may run out at which attempts of ordered partitions end."""
LOOK = 0.5
"""Seconds between two looks at them."""
LOST_SOON = "its lease could not be renewed, and another daemon may send it"


class LeaseGuard:
    """Which attempts of ordered partitions have to end, since their leases could not be renewed:
    another daemon would send the same, and then what comes after it, while this one still sends."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.watched: dict[asyncio.Task[Any], float] = {}
        """Attempts that send, and when they were claimed (`elapsed`)."""
        self.renewed = world.elapsed()
        """When the leases of all claims were last known to be renewed (`elapsed`)."""

    def begin(self, run: Run) -> None:
        """An attempt sends from now on."""
        self.watched[run.running] = self._claimed(run)

    def end(self, attempt: asyncio.Task[Any]) -> None:
        """It sends no more."""
        self.watched.pop(attempt, None)

    def lost(self) -> list[asyncio.Task[Any]]:
        """Those that have to end now."""
        if not self.watched:
            return []
        now = world.elapsed()
        return [one for one, began in self.watched.items() if self._may_be_lost(now, began)]

    def may_be_lost(self, run: Run) -> bool:
        """Whether the lease of an attempt may run out soon."""
        return self._may_be_lost(world.elapsed(), self._claimed(run))

    def _claimed(self, run: Run) -> float:
        """When it was claimed (`elapsed`): it may have waited for the database, for a slot, or for
        its turn since."""
        took = max(self._store.clock.now_ms() - run.task.updated_at, run.elapsed())
        return world.elapsed() - took / 1000

    def _may_be_lost(self, now: float, began: float) -> bool:
        # What a renewal leaves alone has two thirds of its lease left.
        lease = self._store.lease
        sure = lease * 2 / 3 - min(LEASE_MARGIN, lease / 6)
        return self._store.several_daemons and now > max(self.renewed, began) + sure


class RateGuard:
    """Has attempts that begin late, as by a slow disk, count from when they do: what others of
    their lane may begin goes by that."""

    def __init__(self, store: Store, lanes: LaneSet) -> None:
        self._store = store
        self._lanes = lanes
        self.stopping = False
        """The daemon stops: what is not sent yet is not sent."""

    def counted_at(self, task: Task, began: int) -> int:
        """When the rate of its lane counts a task: where others share that, as it is claimed."""
        return task.updated_at if self._store.several_daemons else began

    def late_in(self, run: Run) -> RateWindow | None:
        """Where its rate counts an attempt, if it begins too late for that."""
        throttle = self._lanes.lanes[run.lane].throttle
        window = throttle.window if throttle is not None else None
        if window is None or self._store.clock.now_ms() <= run.counted + window.limit.margin // 2:
            return None
        return window

    async def keep(self, run: Run) -> None:
        """Have one that is late count anew; where others have begun in its place, it waits."""
        granted = 0
        while not self.stopping and (window := self.late_in(run)):
            limit, now = window.limit, self._store.clock.now_ms()
            within = min(2 * granted + limit.margin, MOST_AHEAD)
            if self._store.several_daemons:
                wait = await self._store.write(postpone(run.lane, limit, run.counted, within))
            else:
                wait = window.postpone(run.counted, now, now + within)
            if wait:
                await asyncio.sleep(min(wait / 1000, LOOK))
            else:
                granted, run.counted = within, now + within - limit.margin // 2


class Deadlines:
    """Attempts that are being prepared or sent, and when they have to end."""

    def __init__(self, store: Store, lanes: LaneSet) -> None:
        self.leases = LeaseGuard(store)
        self.rates = RateGuard(store, lanes)
        self.stopping = False
        """The daemon stops, and waits no longer."""
        self.sending: dict[asyncio.Task[Any], Run] = {}
        """Attempts whose request is under way."""
        self.preparing: set[asyncio.Task[Any]] = set()
        """Attempts in the hands of before_ hooks, which may take their time."""
        self.overdue: dict[asyncio.Task[Any], str] = {}
        """Attempts that were cancelled since they did not end in time, and why that is wrong."""

    def begin(self, run: Run) -> None:
        """An attempt sends from now on, for as long as its timeout says."""
        run.sent = world.monotonic()
        self.sending[run.running] = run
        if (task := run.task).turn is not None and task.ordered:
            self.leases.begin(run)

    def end(self, attempt: asyncio.Task[Any]) -> None:
        """It sends no more, whatever it made of a cancel."""
        del self.sending[attempt]
        if self.leases.watched:
            self.leases.end(attempt)
        if self.overdue and self.overdue.pop(attempt, None) is not None:
            attempt.uncancel()

    def interrupt(self) -> None:
        """The daemon stops and waits no longer: end what is under way, begin nothing.

        An attempt that is under way ends by the rule for a daemon that stops; the claim of one that
        has sent nothing is released.
        """
        self.stopping = self.rates.stopping = True
        for attempt in [*self.sending, *self.preparing]:
            attempt.cancel()

    async def watch(self) -> None:
        """Call `expire` until cancelled: whatever the worker waits for, as for the database."""
        while True:
            await asyncio.sleep(LOOK)
            try:
                self.expire(world.monotonic())
            except Exception:
                log.exception("cannot check the deadlines of attempts; again in %gs", LOOK)

    def expire(self, now: float) -> None:
        """End what its executor did not end in time; to be called about once a second.

        A deadline for each attempt of its own would cost more than the rest of its bookkeeping;
        the client keeps the exact one. `now` is of `world.monotonic`.
        """
        for attempt, run in list(self.sending.items()):
            began, allowed = run.sent, run.plan.target.timeout + GRACE
            if now <= began + allowed or attempt in self.overdue:
                continue
            # Its answer is there: looking into it may take as long again, once it is its turn.
            queued = seconds_queued(attempt)
            if queued is not None and now <= began + queued + 2 * allowed:
                continue
            allowed_words = format_duration(allowed - GRACE)
            self.overdue[attempt] = f"the executor did not end within {allowed_words}"
            attempt.cancel()
        for attempt in self.leases.lost():
            if attempt not in self.overdue:
                self.overdue[attempt] = LOST_SOON
                attempt.cancel()
