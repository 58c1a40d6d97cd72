"""How attempts have ended is written, and what follows from it is done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from orchestratord.engine.attempt_in_progress import AttemptInProgress, AttemptResult
from orchestratord.engine.call_tree import begins_run, has_calls, is_run, run_of
from orchestratord.engine.decisions import Decisions
from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.engine.new.new_tasks import NewTasks
from orchestratord.engine.phase_hooks import PhaseHooks
from orchestratord.engine.settle.held_claims import Claims, WayOut
from orchestratord.engine.settle.published_ends import PublishedEnds, SettledAttempt
from orchestratord.engine.settle.settlement_of import settlement_of
from orchestratord.model.settings import Config
from orchestratord.model.task import Task
from orchestratord.plugin.executor import Target
from orchestratord.plugin.host import Host
from orchestratord.queue.batch import Write
from orchestratord.queue.operations.settle import settle
from orchestratord.queue.records import Settled, Settlement, StoredEffect
from orchestratord.queue.store import Store
from orchestratord.values.clock import Clock

log = logging.getLogger("orchestratord.worker")


class AttemptEnds:
    """Has the ends of attempts written, and learns what became of them."""

    def __init__(
        self,
        store: Store,
        host: Host,
        hooks: PhaseHooks,
        lanes: LaneSet,
        claims: Claims,
        new_tasks: NewTasks,
        published: PublishedEnds,
        clock: Clock,
        decisions: Decisions,
    ) -> None:
        self._store, self._host, self._hooks = store, host, hooks
        self._lanes, self._claims = lanes, claims
        self._new_tasks = new_tasks
        self._published = published
        self._clock = clock
        self._decisions = decisions
        self._loop = asyncio.get_running_loop()
        self._ended: list[Write[Settled]] = []
        """How attempts have ended in this turn of the loop."""

    def write_soon(
        self,
        attempt: AttemptInProgress,
        result: AttemptResult,
        items: Sequence[StoredEffect],
        now: int,
    ) -> None:
        """Have the end of an attempt written; `_ends_told` learns what became of it."""
        plan = attempt.plan
        settlement = settlement_of(attempt.task, result, plan.config, plan.target, items, now)
        if plan.tells_runs or (items and has_calls(items)):
            self._note_run(settlement, plan.config)
        operation = settle(settlement)
        operation.about = attempt, settlement
        if not self._ended:
            self._loop.call_soon(self.write_ended)
        self._ended.append(operation)

    def write_ended(self) -> None:
        """Have it written how attempts have ended in this turn of the loop: the thread that writes
        would have begun a transaction with the first of them."""
        ended, self._ended = self._ended, []
        try:
            self._store.write_told(ended, self._ends_told)
        except Exception as error:  # or their claims would have no way out
            for operation in ended:
                operation.error = error
            self._ends_told(ended)

    def _ends_told(self, operations: Sequence[Write[Settled]]) -> None:
        """What became of the ends of attempts, all those that were written at once."""
        written: list[SettledAttempt] = []
        taken: list[AttemptInProgress] = []
        following: list[tuple[AttemptInProgress, SettledAttempt]] = []
        for operation in operations:
            (attempt, end), error = operation.about, operation.error
            settled = operation.result if error is None else None
            if settled is None or not settled.accepted:
                again = self._loop.create_task(self._settle_again(attempt, end, settled, error))
                self._claims.hand_over(attempt.task.id, attempt.running, again)
            elif settled.inserted:
                following.append((attempt, (end, settled, attempt.result)))
            else:
                written.append((end, settled, attempt.result))
                taken.append(attempt)
        self._claims.told(taken)
        self._lanes.settled(len(taken))
        self._published.publish(written)
        if following:
            task = self._loop.create_task(self._follow_all(following))
            for attempt, _ in following:
                self._claims.hand_over(attempt.task.id, attempt.running, task)

    async def _follow_all(
        self, attempts: Sequence[tuple[AttemptInProgress, SettledAttempt]]
    ) -> WayOut:
        """Do what follows from ends that were written, of all those that have new tasks."""
        running = asyncio.current_task()
        try:
            await self._are_on_disk([attempt for _, attempt in attempts])
        finally:
            self._lanes.settled(len(attempts))
            for attempt, _ in attempts:
                self._claims.gone(attempt.task, running)
        return "settled"

    async def _settle_again(
        self,
        attempt: AttemptInProgress,
        settlement: Settlement,
        settled: Settled | None,
        error: Exception | None,
    ) -> WayOut:
        """Bring an end to disk that was not taken: the database refused it, or a cancel was asked
        for."""
        running, task, result = asyncio.current_task(), attempt.task, attempt.result
        assert result is not None
        try:
            if error is not None:
                settled = await self._claims.settle(settlement, error)
            return await self._follow(
                settlement, settled, result, attempt.plan.config, attempt.plan.target
            )
        except (Exception, asyncio.CancelledError) as again:
            return await self.end_anyway(task, attempt, again)
        finally:
            self._lanes.settled()
            self._claims.gone(task, running)

    async def end_anyway(
        self, task: Task, attempt: AttemptInProgress | None, error: BaseException
    ) -> WayOut:
        """The way out of an attempt that `error` has ended: the daemon stops, or there is a bug."""
        if self._claims.closing:
            return "left"
        if attempt is None or not attempt.sent:
            if not isinstance(error, asyncio.CancelledError):
                log.exception("task %s was not run; it goes back to pending", task.id)
                await asyncio.sleep(1.0)
            return await self._claims.release_claim(task)
        result = attempt.result = self._decisions.unclear(attempt, error)
        plan, now = attempt.plan, self._clock.now_ms()
        return await self.settle(attempt.task, result, plan.config, plan.target, now)

    async def settle(
        self, task: Task, result: AttemptResult, config: Config, target: Target | None, now: int
    ) -> WayOut:
        """Write how an attempt ended `now`, again and again until the database takes it; then do
        what follows from it."""
        items = await self._new_tasks.following(result.effects, run_of(task))
        settlement = settlement_of(task, result, config, target, items, now)
        self._note_run(settlement, config)
        settled = await self._claims.settle(settlement)
        return await self._follow(settlement, settled, result, config, target)

    def _note_run(self, settlement: Settlement, config: Config) -> None:
        """Note where a run begins with a task that ends so."""
        task = settlement.task
        settlement.begins_run = begins_run(task, settlement.effects) or is_run(
            task, settlement.status, self._host, config
        )

    async def _follow(
        self,
        settlement: Settlement,
        settled: Settled | None,
        result: AttemptResult,
        config: Config,
        target: Target | None,
    ) -> WayOut:
        """What follows from an end that was written; None where the daemon ended before."""
        task = settlement.task
        if settled is None:
            return "left"
        if not settled.accepted:
            if settled.cancel_asked:  # there is no retry to tell of
                result = await self._hooks.cancelled(task, result, config)
                return await self.settle(task, result, config, target, self._clock.now_ms())
            log.warning("a late result of task %s is refused: it has another owner now", task.id)
            return "lost"
        await self._are_on_disk([(settlement, settled, result)])
        return "settled"

    async def _are_on_disk(self, attempts: Sequence[SettledAttempt]) -> None:
        """Tell of ends that were written, and of the new tasks that were written with them."""
        try:
            try:
                items = [item for end, *_ in attempts for item in end.effects]
                await self._new_tasks.written(
                    items, [one for _, how, _ in attempts for one in how.inserted]
                )
            finally:
                self._published.publish(attempts)
        except Exception:
            ids = ", ".join(str(end.task.id) for end, *_ in attempts)
            log.exception("cannot follow up the end of task %s", ids)
