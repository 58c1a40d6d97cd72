"""One attempt, from top to bottom: `Pipe._run` is the line that it goes along.

    choose → claim → admit to a slot → prepare → before → started? → send → after → decide →
    ask hooks → feedback → release the slot → settle → what follows

The worker chooses and claims. Here a claimed task is admitted to a slot of its lane, and has an
asyncio task of its own until its end is on its way to the disk; `AttemptEnds` does the rest. The
slot is free before its end is on disk: what is not settled yet is the backpressure.

What a step returns says which way out is left. Before the executor is called, that is `NotSent`;
`Sending.send` calls it and returns an `AttemptResult`, which can only be settled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from orchestratord.engine import task_events
from orchestratord.engine.attempt.deadlines import Deadlines
from orchestratord.engine.attempt.decide import Decisions
from orchestratord.engine.attempt.prepare import Preparation
from orchestratord.engine.attempt.send import Sending
from orchestratord.engine.attempt_in_progress import AttemptInProgress
from orchestratord.engine.call_tree import run_of
from orchestratord.engine.feedback import Feedback
from orchestratord.engine.lanes.lane_set import LaneSet
from orchestratord.engine.lanes.placement import Placement
from orchestratord.engine.new.new_tasks import NewTasks
from orchestratord.engine.phase_hooks import PhaseHooks
from orchestratord.engine.plan import Plans
from orchestratord.engine.settle.attempt_ends import AttemptEnds
from orchestratord.engine.settle.held_claims import Claims, WayOut
from orchestratord.engine.settle.published_ends import PublishedEnds
from orchestratord.engine.stats import Stats
from orchestratord.http.api_client import Sender
from orchestratord.model.task import Task
from orchestratord.plugin.host import Host
from orchestratord.queue.store import Store
from orchestratord.values import world
from orchestratord.values.clock import Clock

_deaths = attrgetter("deaths")
PREFETCHED_MS = 1000
"""How long a claimed task waits for a slot before its claim is released."""


class Pipe:
    """Takes claimed tasks, and brings each of them to its end."""

    def __init__(
        self,
        store: Store,
        host: Host,
        sender: Sender,
        lanes: LaneSet,
        placement: Placement,
        claims: Claims,
        stats: Stats,
        clock: Clock,
    ) -> None:
        events = host.events
        self._plans = Plans(placement, host, sender)
        self.hooks = PhaseHooks(host, self._plans, clock)
        self._events = events
        self._lanes, self._claims, self._clock = lanes, claims, clock
        self._loop = asyncio.get_running_loop()
        self.feedback = Feedback(lanes, claims, events, clock)
        self.deadlines = Deadlines(store, lanes)
        running = claims.running
        self.new_tasks = NewTasks(store, host, self.hooks, placement, running, stats, clock)
        self._decisions = Decisions(store, host, self.hooks, self.feedback, clock)
        self._preparation = Preparation(
            store, host, self.hooks, claims, self.new_tasks, self.deadlines, self._decisions, clock
        )
        self._sending = Sending(
            claims, lanes, self.deadlines, self._decisions, self.feedback, clock
        )
        self.published = PublishedEnds(claims, placement, events, stats, clock)
        self.ends = AttemptEnds(
            store, host, self.hooks, lanes, claims, self.new_tasks, self.published, clock,
            self._decisions.unclear,
        )  # fmt: skip

    # -- admit to a slot -----------------------------------------------------------------------

    def start(self, tasks: Sequence[Task], lane: str, now: int) -> None:
        """Run claimed tasks of `lane`, in their order, at once or when the lane has slots."""
        if any(map(_deaths, tasks)) and not self._lanes.draining:
            for task in filter(_deaths, tasks):
                self._claims.poison.admit(task, lane)
                self._lanes.waits_for_turn(lane, task)
            tasks = [task for task in tasks if not task.deaths]
        self._admit(tasks, lane, now)

    async def start_candidate(self) -> None:
        """Run the poison candidate whose turn it is, if there is one."""
        poison = self._claims.poison
        alone = poison.company()
        if alone is not None and await self._claims.note_company(alone):
            poison.end_alone()
        found = poison.take_turn()
        if found is not None:
            task, lane = found
            self._lanes.has_turn(lane, task)
            self._admit((task,), lane, self._clock.now_ms())
        elif self._lanes.held:
            self.release_prefetched(0)

    def release_prefetched(self, longer_than: int = PREFETCHED_MS) -> None:
        """Release the claims that have waited for a slot for so many milliseconds."""
        for task in self._lanes.take_prefetched(self._clock.now_ms(), longer_than):
            self._claims.release_claim_later(task)

    def _admit(self, tasks: Sequence[Task], lane: str, now: int) -> None:
        # What is claimed while the daemon drains goes back.
        admitted = () if self._lanes.draining else self._lanes.admitted(lane, tasks, now)
        if len(admitted) < len(tasks):
            ids = {task.id for task in admitted}
            for task in tasks:
                if task.id not in ids:
                    self._release_claim(task, lane)
        self._launch(self._lanes.begin(lane, admitted, now), lane, now)

    def _release_claim(self, task: Task, lane: str) -> None:
        self._lanes.release_claim(lane, task.key, self._clock.now_ms(), task.id)
        self._claims.release_claim_later(task)

    def _launch(self, tasks: Sequence[Task], lane: str, now: int) -> None:
        """These have slots of their lane since `now`."""
        if self._lanes.lanes[lane].throttle is not None:
            for _ in tasks:
                self._lanes.began(lane, now)
        if self._events.listening:
            self._events.publish_all(task_events.started(tasks, now))
        running, loop = self._claims.running, self._loop
        for task in tasks:
            # `create_task` does no more, and takes a call.
            running[task.id] = asyncio.Task(self._run(task, lane, now), loop=loop)

    def _release_slot(self, task: Task, lane: str, now: int) -> None:
        """It goes to the next one that is prefetched in its lane, or to a claim."""
        following = self._lanes.release_slot(lane, task, now)
        if following is not None:
            self._launch((following,), lane, now)
        self._lanes.wake.set()

    # -- the line ------------------------------------------------------------------------------

    async def _run(self, task: Task, lane: str, began: int) -> WayOut:
        """One attempt of a task that has a slot since `began`."""
        # Its lease may have run out, and it be claimed here again: only the store tells the two.
        running, has_slot, ended = asyncio.current_task(), True, False
        assert running is not None
        attempt: AttemptInProgress | None = None
        preparation = self._preparation
        try:
            attempt = self._begin(task, lane, running, began)
            if attempt is None:  # the configuration changed since it was claimed
                return await self._claims.release_claim(task)
            is_made = preparation.is_made(attempt)
            ready = attempt if is_made else await preparation.prepare(attempt)
            if isinstance(ready, str):
                return ready if ready == "lost" else await self._claims.release_claim(task)
            if isinstance(ready, AttemptInProgress):
                ready = await self._sending.send(ready)
            result = attempt.result = ready
            now = self._clock.now_ms()
            self.feedback.note(attempt, now)
            has_slot = False
            self._lanes.ended()
            self._release_slot(task, lane, now)
            effects, run_id = result.effects, run_of(attempt.task)
            items = await self.new_tasks.items(effects, run_id=run_id) if effects else []
            if self._claims.closing:
                return "left"
            self.ends.write_soon(attempt, result, items, now)
            ended = True
            return "settled"
        except (Exception, asyncio.CancelledError) as error:
            return await self.ends.end_anyway(task, attempt, error)
        finally:
            if has_slot:
                now = self._clock.now_ms()
                if attempt is None or not attempt.sent:
                    self._lanes.return_token(lane, now, task.id, began)
                self._release_slot(task, lane, now)
            elif not ended:
                self._lanes.settled()
            if not ended:
                self._claims.gone(task, running)

    def _begin(
        self, task: Task, lane: str, running: asyncio.Task[Any], began: int
    ) -> AttemptInProgress | None:
        """What the attempt is made with; None where today's configuration has it wait or fail."""
        plan = self._plans.of(task)
        # Its row says that a repeat is safe, which is what counts should the daemon die.
        if plan is None or (task.idempotent and not plan.target.idempotent):
            return None
        counted = self.deadlines.rates.counted_at(task, began)
        early = began < (task.backoff_until or 0)
        return AttemptInProgress(
            task, plan, lane, running, began, world.monotonic(), counted, early
        )
