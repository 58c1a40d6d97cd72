"""Faults that are planted into the product, to see that the checks find them: `--plant NAME`.

A plant replaces something of the product while a universe lasts. A new one is a function here that
says what is wrong with it and does so, with its row in `PLANTS`, and a seed that shows it in
`SHOWN_BY`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

from orchestratord_webhooks.declaration import Webhook

from orchestratord.daemon import daemon as daemon_module
from orchestratord.engine import decisions, feedback, retry, retry_delay
from orchestratord.engine.attempt.pipe import Pipe
from orchestratord.engine.attempt_in_progress import AttemptInProgress
from orchestratord.engine.lanes.breaker import Breaker
from orchestratord.engine.lanes.lane import Lane
from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.engine.lanes.pace import Pace
from orchestratord.engine.lanes.placement import Placement
from orchestratord.engine.lanes.throttle import Throttle
from orchestratord.engine.new import scheduler
from orchestratord.engine.settle.held_claims import Claims
from orchestratord.engine.settle.removed_tasks import RemovedTasks
from orchestratord.engine.worker import Worker
from orchestratord.http.api_client import AttemptClient
from orchestratord.model.task import KEEPS_DOUBT, Status, Task
from orchestratord.queue.batch import Rank, Write, deliver, writes
from orchestratord.queue.connection import ManyRows
from orchestratord.queue.housekeeping import batch_closing, run_ends
from orchestratord.queue.housekeeping.future_times import BroughtBack
from orchestratord.queue.operations import bulk, claim, effects, manual, partitions, settle
from orchestratord.queue.operations.insert import NewRows
from orchestratord.queue.run_counts import RunCounts
from orchestratord.queue.session import Session
from orchestratord.queue.shared_rates import SharedLimits
from orchestratord.queue.sqlite import claim_sqlite
from orchestratord.queue.sqlite.shared_file import Journal
from orchestratord.queue.sqlite.sqlite_database import SqliteFile
from orchestratord.queue.sqlite.turn import Turn
from orchestratord.queue.writer import Writer
from orchestratord.runtime import clock_watch
from orchestratord.runtime.fleet import Fleet
from orchestratord.values import world

Planted = AbstractContextManager[Any]


@contextmanager
def replaced(owner: Any, name: str, other: Any) -> Iterator[None]:
    """Something else in the place of an attribute."""
    before = owner.__dict__[name]
    setattr(owner, name, other)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def several(*planted: Planted) -> Iterator[None]:
    """All of these."""
    with ExitStack() as stack:
        for one in planted:
            stack.enter_context(one)
        yield


def respelled(module: ModuleType, name: str, before: str, after: str) -> Planted:
    """A statement of SQL that says something else."""
    statement = module.__dict__[name]
    text = statement.sql if isinstance(statement, ManyRows) else statement
    assert before in text, f"{name} does not say {before!r} any more"
    text = text.replace(before, after)
    other = ManyRows(text, *statement.types) if isinstance(statement, ManyRows) else text
    return replaced(module, name, other)


# -- claims and leases -----------------------------------------------------------------------------


def take_over_does_nothing() -> Planted:
    """What a dead daemon had claimed is left as it is."""

    async def recover(self: RemovedTasks, held: Any) -> bool:
        return False

    return replaced(RemovedTasks, "recover", recover)


def lock_that_two_hold() -> Planted:
    """A worker writes without its turn, and believes that it has it."""

    def take(self: Turn) -> None:
        self._held = True

    return replaced(Turn, "take", take)


def fence_that_is_not_compared() -> Planted:
    """A late result of the old owner is taken for that of the new one."""
    fence = """
    AND retry_schedule.locked_by = new.column2 AND retry_schedule.claims = new.column3"""
    return several(*(respelled(settle, name, fence, "") for name in ("SUCCEED", "END")))


def lease_that_is_not_renewed() -> Planted:
    """A claim stands for as long as it did when it was made, however long its attempt takes."""

    def renew(held: Collection[int]) -> Write[int]:
        return Write(Rank.CLAIM, lambda session: 0)

    return replaced(claim, "renew", renew)


def start_committed_and_not_sent() -> Planted:
    """What has started and is then not to be sent is forgotten, and not released; so is some of
    what is to be sent."""
    started = Pipe._started

    async def forgets(self: Pipe, attempt: AttemptInProgress) -> Any:
        ready = await started(self, attempt)
        stops = ready == "released" or attempt.task.id % 10 == 0
        return "lost" if stops and not attempt.task.idempotent else ready

    return replaced(Pipe, "_started", forgets)


def cancelled_before_the_first_byte_counts_as_sent() -> Planted:
    """Once its executor is called, an attempt may have been carried out, whatever has left."""
    return replaced(AttemptClient, "has_sent", True)


def settlement_that_is_not_repeated() -> Planted:
    """What the database refuses once is not written any more."""
    insist = Claims._insist

    async def once(self: Claims, task: Any, operation: Any, error: Any = None) -> Any:
        if error is not None:
            return None
        return await insist(self, task, operation)

    return replaced(Claims, "_insist", once)


def drain_that_abandons() -> Planted:
    """A daemon that is to end leaves what is in flight as it is, and releases nothing."""

    async def drain(self: Worker, timeout: float) -> None:
        self.lanes.draining = self.claims.closing = True
        self.lanes.wake.set()

    return replaced(Worker, "drain", drain)


# -- what is written -------------------------------------------------------------------------------


def acknowledged_before_the_commit() -> Planted:
    """Who makes a call is answered before it is on the disk."""
    commit = Writer._commit

    def early(self: Writer, of: Session) -> None:
        new = [one for one in self._in_hand if one.rank == Rank.NEW]
        if new:
            self._call_on_loop(deliver, new)
            world.sleep(0.02)
        commit(self, of)

    return replaced(Writer, "_commit", early)


def sync_that_is_left_out() -> Planted:
    """What workers write is acknowledged while it is in the system's memory alone."""
    return replaced(Journal, "sync", lambda self: None)


def commit_that_is_not_synced() -> Planted:
    """The same of a daemon that has the file for itself."""
    return replaced(SqliteFile, "synchronous", "NORMAL")


def acknowledged_and_not_written() -> Planted:
    """Of several calls that are written together the last one is left out."""
    flush = NewRows.flush

    def leave_out(self: NewRows) -> None:
        if len(self._rows) > 2:
            del self._rows[-1]
        flush(self)

    return replaced(NewRows, "flush", leave_out)


def effect_that_is_written_twice() -> Planted:
    """What follows from an attempt that is settled by itself is written twice."""
    apply_all = effects.apply_all_effects

    def apply_twice(of: Session, groups: Sequence[Any], recurring: Sequence[Any] = ()) -> Any:
        if len(groups) == 1:
            apply_all(of, groups)
        return apply_all(of, groups, recurring)

    return replaced(settle, "apply_all_effects", apply_twice)


def effect_that_is_lost() -> Planted:
    """Of several attempts that are settled together, what follows from the last is left out."""
    apply_all = effects.apply_all_effects

    def leave_out(of: Session, groups: Sequence[Any], recurring: Sequence[Any] = ()) -> Any:
        if len(groups) > 1:
            groups = [*groups[:-1], ()]
        return apply_all(of, groups, recurring)

    return replaced(settle, "apply_all_effects", leave_out)


def key_that_is_not_looked_up() -> Planted:
    """The same idempotency key makes another call."""
    add = NewRows.add

    def forget(self: NewRows, new: Any, *, key_is_free: bool = False) -> Any:
        return add(self, replace(new, task=replace(new.task, unique_key=None)))

    return replaced(NewRows, "add", forget)


def retention_that_removes_what_waits() -> Planted:
    """What has waited for long is deleted with what has ended long ago."""
    prune = daemon_module.prune_some

    async def prune_all(store: Any, kept: Any, limit: int) -> int:
        waits = "DELETE FROM retry_schedule WHERE status = 'pending' AND updated_at < ?"

        def delete(of: Session) -> int:
            return of.db.run(waits, (of.now() - 10_000,))

        await store.write(Write(Rank.KEEP, delete))
        return await prune(store, kept, limit)

    return replaced(daemon_module, "prune_some", prune_all)


# -- counts ----------------------------------------------------------------------------------------


def count_off_by_one_after_a_kill() -> Planted:
    """A claim of a dead daemon that goes back is counted as running and as pending."""
    unstarted = Session.unstarted

    def miscount(self: Session, row: Any) -> None:
        unstarted(self, row)
        self.moved(None, Status.RUNNING)

    return replaced(Session, "unstarted", miscount)


def bulk_that_counts_twice() -> Planted:
    """A task that a bulk has moved is counted twice once it has ended."""
    outcome = Session.outcome

    def doubled(self: Session, bulk_id: int | None, status: str, count: int = 1) -> None:
        outcome(self, bulk_id, status, 2 * count)

    return replaced(Session, "outcome", doubled)


def run_that_ends_before_its_last_call() -> Planted:
    """A run has ended as soon as the call that began it has."""
    join = RunCounts.join

    def only_first(self: RunCounts, run_id: int | None, count: int = 1) -> None:
        if run_id in self.begun and run_id not in self.changes:
            join(self, run_id, count)

    return replaced(RunCounts, "join", only_first)


def run_end_that_is_told_twice() -> Planted:
    """What follows from the end of a run is written twice."""
    tell = run_ends.tell.__wrapped__  # type: ignore[attr-defined]

    def twice(of: Session, chore: Any, run: Any, effects: Sequence[Any]) -> Any:
        return tell(of, chore, run, [*effects, *effects])[: len(effects)]

    return replaced(run_ends, "tell", writes(Rank.HAND)(twice))


def batch_member_that_is_told_twice() -> Planted:
    """The last member of a batch is in the next one, too."""
    copy = """
    INSERT INTO batch_members (group_key, endpoint_id, webhook, phase, task_id, reason, status_code,
        detail, most, closes_at, at, once)
    SELECT group_key, endpoint_id, webhook, phase, task_id, reason, status_code, detail, most,
        closes_at, at, once
    FROM batch_members WHERE batch_id = (SELECT max(id) FROM batches WHERE members > 1)
    ORDER BY id DESC LIMIT 1
    """
    close = batch_closing.close.__wrapped__  # type: ignore[attr-defined]

    def close_most(of: Session, group: str) -> bool:
        closed: bool = close(of, group)
        last = of.db.one("SELECT members FROM batches ORDER BY id DESC LIMIT 1")
        if closed and last is not None and last[0] > 1:
            of.db.run(copy)
        return closed

    return replaced(batch_closing, "close", writes(Rank.KEEP)(close_most))


# -- when a task is tried, and whether -------------------------------------------------------------


def brought_forward_before_its_floor() -> Planted:
    """A claim takes what is due within the next second as well."""
    taken = claim_sqlite.in_step

    def ahead(picks: Sequence[Any], found: Any) -> Any:
        return taken([pick._replace(due_before=pick.due_before + 1000) for pick in picks], found)

    return replaced(claim_sqlite, "in_step", ahead)


def look_that_comes_at_once() -> Planted:
    """What is not done yet is asked for again and again."""
    decide_look = decisions.decide_look

    def decide(task: Task, policy: Any, poll: Any, *words: Any, **options: Any) -> retry.Decision:
        hasty = poll.model_copy(update={"every": 0.1})
        return decide_look(task, policy, hasty, *words, **options)

    return replaced(decisions, "decide_look", decide)


def look_that_is_always_the_first() -> Planted:
    """What is not done yet is asked for without an end."""
    return respelled(settle, "LOOK", "COALESCE(looked_since, new.column2)", "new.column2")


def retry_after_that_is_ignored() -> Planted:
    """A receiver that says when to come back is asked before."""
    ignored = replaced(retry_delay, "parse_retry_after", lambda text, now: None)
    return several(ignored, replaced(feedback, "parse_retry_after", lambda text, now: None))


def post_that_is_sent_again() -> Planted:
    """What is not idempotent is tried again though it may have been carried out."""
    decide = decisions.decide

    def dare(task: Any, policy: Any, idempotent: bool, outcome: Any, **how: Any) -> Any:
        return decide(task, policy, True, outcome, **how)

    return replaced(decisions, "decide", dare)


def success_that_nobody_answered() -> Planted:
    """What is lost after it was sent is taken for a success, where a repeat would be safe."""
    decide = decisions.decide

    def believe(task: Any, policy: Any, idempotent: bool, outcome: Any, **how: Any) -> Any:
        if idempotent and outcome.maybe_done and not outcome.answered:
            return retry.succeeded(outcome)
        return decide(task, policy, idempotent, outcome, **how)

    return replaced(decisions, "decide", believe)


def cancel_that_hides_ambiguous() -> Planted:
    """Of a task that may have been carried out, a cancel says that it was not."""
    modules = manual, bulk
    return several(*(respelled(one, "CANCEL", KEEPS_DOUBT, "reason = NULL") for one in modules))


def cancel_that_is_forgotten() -> Planted:
    """A task that was to be cancelled while it ran is tried again."""
    return respelled(settle, "END", "AND (cancel_requested = 0 OR", "AND (true OR")


def slot_that_is_fired_twice() -> Planted:
    """A daemon that starts makes the call of a slot that was made before."""
    return replaced(scheduler, "is_taken", lambda runs, slot: False)


def clock_whose_times_stay() -> Planted:
    """What was written by a clock that was ahead waits until it is there."""

    async def leave(store: Any) -> BroughtBack:
        return BroughtBack()

    return replaced(clock_watch, "bring_back", leave)


# -- lanes -----------------------------------------------------------------------------------------


def slot_that_is_not_given_back() -> Planted:
    """An attempt that is not the first one keeps the slot of its lane."""
    release = LaneSet.release_slot

    def keep(self: LaneSet, lane: str, task: Any, now: int) -> Any:
        return release(self, lane, task, now) if task.attempts < 2 else None

    return replaced(LaneSet, "release_slot", keep)


def token_that_is_not_given_back() -> Planted:
    """A claim that is released keeps its part of the rate of its lane."""
    return replaced(Throttle, "return_token", lambda self, count, now, since=None: None)


def one_more_than_its_concurrency() -> Planted:
    """A lane has one slot more than it may have."""
    free = Lane.free

    def one_more(self: Lane) -> int:
        assert free.fget is not None
        return int(free.fget(self)) + 1

    def begin(self: LaneSet, lane: Lane) -> int:
        return free_slots(self, lane) + 1

    free_slots = LaneSet._free_slots
    more = replaced(LaneSet, "_free_slots", begin)
    return several(more, replaced(Lane, "free", property(one_more)))


def rate_that_a_restart_forgets() -> Planted:
    """What began before a start does not count for the rate of its lane."""

    async def nothing(self: Worker) -> dict[str, Any]:
        return {}

    return replaced(Worker, "_past", nothing)


def breaker_that_never_closes() -> Planted:
    """Whatever is answered, only probes may pass."""
    answered = Breaker.answered

    def stay(self: Breaker, now: int) -> bool:
        return answered(self, now) if self.opened_at is None else False

    return replaced(Breaker, "answered", stay)


def pace_that_crawls() -> Planted:
    """A lane that refuses is slowed, and is never let go."""
    cut_to, set_, end = Pace._cut_to, Pace._set, Pace.end

    def crawl(self: Pace, served: float, share: float, now: int) -> None:
        cut_to(self, served, share, now)
        self.rate = min(served, 0.1)

    def lower(self: Pace, rate: float | None, now: int) -> None:
        if self.rate is None or (rate is not None and rate < self.rate):
            set_(self, rate, now)

    def go_on(self: Pace, now: int) -> None:
        rate = getattr(self, "rate", None)
        end(self, now)
        self.rate = rate

    crawls = replaced(Pace, "_cut_to", crawl)
    return several(crawls, replaced(Pace, "_set", lower), replaced(Pace, "end", go_on))


# -- configuration, people -------------------------------------------------------------------------


def reload_that_drops_what_waits() -> Planted:
    """Of what is placed anew, it is forgotten that tasks of it wait, and the look that finds what
    others have queued does not find them."""
    park = LaneSet.park

    def forget(self: LaneSet, key: Any) -> None:
        park(self, key)
        self._parked[key] = 1 << 62

    async def look(self: Fleet) -> None:
        pass

    return several(replaced(LaneSet, "park", forget), replaced(Fleet, "_queue", look))


def paused_endpoint_that_is_called() -> Planted:
    """The calls of a paused endpoint go out."""

    def ignore(self: Placement, paused: set[str]) -> frozenset[str]:
        return frozenset()

    return replaced(Placement, "set_paused", ignore)


def delivery_of_another_phase() -> Planted:
    """Who asks for a final failure is told of each retry, too."""
    obstacle = Webhook.obstacle

    def any_failure(self: Webhook, phase: str, status_code: Any) -> Any:
        asks = self.phase == "on_final_failure" and phase == "on_retry"
        return obstacle(self, "on_final_failure" if asks else phase, status_code)

    return replaced(Webhook, "obstacle", any_failure)


def correction_that_loses_its_place() -> Planted:
    """What waits behind a task of an ordered partition goes on before the task that replaces it."""
    replace_ = partitions.replace.__wrapped__  # type: ignore[attr-defined]

    def let_go(of: Session, task_id: int, new: Any, *, force: bool = False) -> Any:
        task = replace_(of, task_id, new, force=force)
        of.release_place(task.replaces, held=False)
        return task

    return replaced(partitions, "replace", writes(Rank.HAND)(let_go))


def order_that_is_not_kept() -> Planted:
    """In an ordered partition it is the turn of the newest."""
    last = "ORDER BY id DESC LIMIT 1"
    return respelled(claim_sqlite, "ORDERED_TURNS", "ORDER BY id LIMIT 1", last)


def failure_that_does_not_hold() -> Planted:
    """An ordered partition goes on behind a failure that a person has to look at."""
    return replaced(Task, "holds_after", lambda self, status, reason: False)


def partition_over_its_limit() -> Planted:
    """Of a partition with a limit as many run as there are slots."""
    return respelled(claim_sqlite, "FAIR_TURNS", "SELECT count(*)", "SELECT 0 * count(*)")


def limit_that_each_counts_alone() -> Planted:
    """Each of two daemons has the rate and the `global_concurrency` of both."""
    return replaced(SharedLimits, "bounded", lambda self, picks: picks)


PLANTS: dict[str, Callable[[], Planted]] = {
    plant.__name__.replace("_", "-"): plant
    for plant in (
        take_over_does_nothing,
        lock_that_two_hold,
        fence_that_is_not_compared,
        lease_that_is_not_renewed,
        start_committed_and_not_sent,
        cancelled_before_the_first_byte_counts_as_sent,
        settlement_that_is_not_repeated,
        drain_that_abandons,
        acknowledged_before_the_commit,
        sync_that_is_left_out,
        commit_that_is_not_synced,
        acknowledged_and_not_written,
        effect_that_is_written_twice,
        effect_that_is_lost,
        key_that_is_not_looked_up,
        retention_that_removes_what_waits,
        count_off_by_one_after_a_kill,
        bulk_that_counts_twice,
        run_that_ends_before_its_last_call,
        run_end_that_is_told_twice,
        batch_member_that_is_told_twice,
        brought_forward_before_its_floor,
        look_that_comes_at_once,
        look_that_is_always_the_first,
        retry_after_that_is_ignored,
        post_that_is_sent_again,
        success_that_nobody_answered,
        cancel_that_hides_ambiguous,
        cancel_that_is_forgotten,
        slot_that_is_fired_twice,
        clock_whose_times_stay,
        slot_that_is_not_given_back,
        token_that_is_not_given_back,
        one_more_than_its_concurrency,
        rate_that_a_restart_forgets,
        breaker_that_never_closes,
        pace_that_crawls,
        reload_that_drops_what_waits,
        paused_endpoint_that_is_called,
        delivery_of_another_phase,
        correction_that_loses_its_place,
        order_that_is_not_kept,
        failure_that_does_not_hold,
        partition_over_its_limit,
        limit_that_each_counts_alone,
    )
}
"""Each by the name that `--plant` takes."""

SHOWN_BY: dict[str, int] = {
    "acknowledged-and-not-written": 1,
    "acknowledged-before-the-commit": 4,
    "batch-member-that-is-told-twice": 9,
    "breaker-that-never-closes": 37,
    "brought-forward-before-its-floor": 26,
    "bulk-that-counts-twice": 7,
    "cancel-that-hides-ambiguous": 15,
    "cancelled-before-the-first-byte-counts-as-sent": 20,
    "cancel-that-is-forgotten": 7,
    "clock-whose-times-stay": 18,
    "commit-that-is-not-synced": 4,
    "correction-that-loses-its-place": 67,
    "count-off-by-one-after-a-kill": 5,
    "delivery-of-another-phase": 23,
    "drain-that-abandons": 17,
    "effect-that-is-lost": 9,
    "effect-that-is-written-twice": 1,
    "failure-that-does-not-hold": 67,
    "fence-that-is-not-compared": 87,
    "key-that-is-not-looked-up": 5,
    "lease-that-is-not-renewed": 87,
    "limit-that-each-counts-alone": 19,
    "lock-that-two-hold": 8,
    "look-that-comes-at-once": 4,
    "look-that-is-always-the-first": 9,
    "one-more-than-its-concurrency": 2,
    "order-that-is-not-kept": 27,
    "pace-that-crawls": 3,
    "partition-over-its-limit": 38,
    "paused-endpoint-that-is-called": 6,
    "post-that-is-sent-again": 22,
    "rate-that-a-restart-forgets": 122,
    "reload-that-drops-what-waits": 49,
    "retention-that-removes-what-waits": 1,
    "retry-after-that-is-ignored": 21,
    "run-end-that-is-told-twice": 2,
    "run-that-ends-before-its-last-call": 6,
    "settlement-that-is-not-repeated": 59,
    "slot-that-is-fired-twice": 8,
    "slot-that-is-not-given-back": 1,
    "start-committed-and-not-sent": 2,
    "success-that-nobody-answered": 3,
    "sync-that-is-left-out": 19,
    "take-over-does-nothing": 3,
    "token-that-is-not-given-back": 7,
}
"""A seed that shows each, and what it shows; none shows anything without its plant."""
