"""Tasks that end without being run: those of what is no longer declared, of a dead daemon, and of
claims that stand in the store while nothing here holds them.

A folder that is away for a minute, or that belongs to another queue, reads like a configuration
without endpoints: what takes away most of what tasks wait for is refused, unless it is meant.

Tasks that fail are claimed, go through the hooks and are settled like all others, so that their
`on_final_failure` is called as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

from orchestratord.engine.lanes.placement import FOREVER, Placement
from orchestratord.engine.phase_hooks import DIED, UNHELD, PhaseHooks
from orchestratord.engine.settle.attempt_ends import AttemptEnds
from orchestratord.engine.settle.held_claims import Claims, WayOut
from orchestratord.errors import Conflict, NotFound, Problem
from orchestratord.model.task import Key, Reason, Task
from orchestratord.plugin.executor import Doomed, Target
from orchestratord.plugin.isolation import HookFault
from orchestratord.queue.housekeeping import undeclared
from orchestratord.queue.operations import claim, manual, partitions, search
from orchestratord.queue.records import Pick
from orchestratord.queue.store import Store
from orchestratord.values import world
from orchestratord.values.clock import Clock

log = logging.getLogger("orchestratord.worker")

BATCH = 50
"""Tasks of a doomed key that are failed at a time."""

TURNS = 10
"""Doomed keys whose tasks are failed at the same time: the tasks are in memory meanwhile, and an
API that is removed takes all its endpoints along."""

JUDGE_EACH = 10.0
"""Seconds between two looks whether tasks may fail whose endpoints were left to other daemons."""

RELOAD = "orchestratorctl reload --accept-removals"
"""How a person says that it is meant."""

NAMED = 20
"""Endpoints that are named at most."""


def at_start(database: str) -> str:
    """How a person says so at a start, also where two folders share a database by default.

    `database`: its URL, without a password.
    """
    return (
        "orchestratord run --accept-removals; or, if this folder is another one's, set `database`: "
        f"the tasks are those of {database}"
    )


def refusal(
    waiting: Mapping[str, int], declared: Collection[str], remedy: str
) -> tuple[Problem, ...]:
    """Why a configuration is refused; nothing where it is not.

    Args:
        waiting: endpoint → how many tasks wait; of those that were declared until now.
        declared: the endpoints of the configuration. It is refused where it lacks more than half
            of those that tasks wait for.
        remedy: the command that accepts it.
    """
    lacking = [name for name in waiting if name not in declared]
    if 2 * len(lacking) <= len(waiting):
        return ()
    named = _named({name: waiting[name] for name in lacking})
    which = f"{len(lacking):,} of the {len(waiting):,} endpoints with tasks waiting are not"
    if len(lacking) == len(waiting):
        which = "none of the endpoints with tasks waiting is"
    text = f"{which} declared: {named}; their tasks would fail. To accept that: {remedy}"
    return (Problem(text, file="apis"),)


def _named(counts: Mapping[str, int]) -> str:
    """Those with the most first, each with its number."""
    most = sorted(counts, key=lambda name: (-counts[name], name))
    named = ", ".join(f"{name} ({counts[name]:,})" for name in most[:NAMED])
    return f"{named} and {len(most) - NAMED:,} more" if len(most) > NAMED else named


class RemovedTasks:
    """Fails what is doomed, and settles what a dead daemon had under way."""

    def __init__(
        self,
        store: Store,
        placement: Placement,
        hooks: PhaseHooks,
        claims: Claims,
        ends: AttemptEnds,
        clock: Clock,
    ) -> None:
        self._store = store
        self._clock = clock
        self._placement = placement
        self._hooks = hooks
        self._claims, self._ends = claims, ends
        self._sweeps: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(TURNS)
        self.at_work: set[int] = set()
        """The tasks that are taken over or failed at this moment."""
        self._refused: tuple[int, tuple[Problem, ...]] | None = None
        self._judging = asyncio.Lock()
        self._judged_until = 0.0
        """Until when that is good enough (`world.monotonic`)."""
        self._left: Collection[str] = ()
        """The endpoints that no daemon declares any more, and whose removal was not judged yet."""
        self._failed: Counter[str] = Counter()
        """How many tasks have failed, by why, and were not told of."""
        self._unheld: dict[tuple[int, int], float] = {}
        """Claims of ours that nothing here holds, and since when that is seen (`elapsed`)."""
        self.unheld = 0
        """How many of them were ended."""

    @property
    def refused(self) -> tuple[int, tuple[Problem, ...]] | None:
        """Since when (milliseconds) and why the tasks of endpoints that no daemon declares wait and
        do not fail; None where it is not so."""
        gone = any(isinstance(self._placement.of(Key(name)), Doomed) for name in self._left)
        return self._refused if gone else None

    def sweep(self, now: float) -> None:
        """Begin to fail the tasks of keys that have been doomed for long enough."""
        if self._refused and world.monotonic() < self._judged_until:
            return
        for key, _ in self._placement.ripe(now):
            self._begin(self._fail_all(key))

    def _begin(self, step: Coroutine[Any, Any, None]) -> None:
        sweep = asyncio.get_running_loop().create_task(step)
        self._sweeps.add(sweep)
        sweep.add_done_callback(self._ended)

    def stop(self) -> None:
        """The daemon stops: what is not failed yet is failed by the next one."""
        for sweep in list(self._sweeps):
            sweep.cancel()

    async def recover(self, ours: Collection[int] = ()) -> bool:
        """Take over what dead daemons had claimed: claims are released, started attempts settled,
        and partitions of which none has its turn go on.

        `ours`: what is claimed here. Returns whether there was anything.
        """
        unstarted = lost = 0
        while True:
            count, tasks = await claim.reclaim(self._store, {*ours, *self.at_work})
            unstarted += count
            lost += len(tasks)
            if not count and not tasks:
                break
            self.at_work.update(task.id for task in tasks)
            try:
                await asyncio.gather(*(self._lost(task) for task in tasks))
            finally:
                self.at_work.difference_update(task.id for task in tasks)
        if unstarted or lost:
            await self.mend_partitions()
            log.warning(
                "took over from a dead daemon: %d claims went back, %d attempts were under way",
                unstarted,
                lost,
            )
        return bool(unstarted or lost)

    async def end_unheld(self, held: Callable[[], Collection[int]]) -> None:
        """End claims of ours that run in the store, and of which nothing here knows: after a COMMIT
        that was not answered, or a bug. To be called at each renewal of the leases.

        `held`: what is claimed here. What was written a moment ago is not known here yet, but is a
        quarter of the lease later.
        """
        store, now = self._store, world.elapsed()
        found = await store.read(claim.unheld(store.owner, held()))
        self._unheld = {one: self._unheld.get(one, now) for one in found}
        if found:  # other daemons would take it for a dead one's
            await store.write(claim.renew([task_id for task_id, _ in found]))
        for (task_id, claims), since in list(self._unheld.items()):
            if now - since >= store.lease / 4:
                task = await store.read(search.get(task_id))
                same = (task.locked_by, task.claims) == (store.owner, claims)
                if same and task_id not in held():  # it may have been told meanwhile
                    self._begin(self._end_unheld(task))

    async def _end_unheld(self, task: Task) -> None:
        self.at_work.add(task.id)
        try:
            if task.idempotent or task.started_at is None:
                way = await self._claims.release_claim(task)
            else:
                way = await self._lost(task, UNHELD)
            self.unheld += 1
            log.warning("task %s was running, and nothing here held it: %s", task.id, way)
        finally:
            self.at_work.discard(task.id)

    async def mend_partitions(self) -> None:
        """Have partitions go on in which none has its turn: who had to say whose it is has died; or
        what holds them is of an endpoint or webhook that is gone."""
        for key in await self._store.read(partitions.stopped_keys()):
            self._placement.place(key)
        if stuck := await self._store.read(partitions.stuck()):
            await self._store.write(partitions.touch(stuck))

    async def _lost(self, task: Task, error: str = DIED) -> WayOut:
        config = self._placement.config
        standing, executor = self._placement.look(task.key)
        target = standing if isinstance(standing, Target) else None
        endpoint = config.endpoints.get(task.endpoint_id)
        try:
            result = await self._hooks.lost(task, endpoint, executor, config, error)
        except HookFault:
            return "left"  # `end_unheld` finds it
        return await self._ends.settle(task, result, config, target, self._clock.now_ms())

    async def _fail_all(self, key: Key) -> None:
        done = False
        try:
            if await self._is_refused(key):
                return
            while not done:
                async with self._turns:
                    some = await self._store.write(partitions.release_partitions(key)) > 0
                    some = await self._fail_some(key) or some
                done = not some or not isinstance(self._placement.of(key), Doomed)
        except Exception as error:
            if not isinstance(error, HookFault):  # that is logged already
                log.exception("cannot fail the tasks of %s %s yet", *key)
            await asyncio.sleep(1.0)
        finally:
            self._placement.swept(key, done=done)

    def _ended(self, sweep: asyncio.Task[None]) -> None:
        self._sweeps.discard(sweep)
        if self._failed and not self._sweeps:
            failed, self._failed = self._failed, Counter()
            log.warning("%d waiting tasks have failed: %s", failed.total(), _named(failed))

    async def _is_refused(self, key: Key) -> bool:
        """Whether the tasks of an endpoint that was left to other daemons have to wait.

        Each start and each reload was judged when it came; but a daemon that is replaced by one
        without an endpoint had others that declared it, until those were replaced as well.
        """
        if key.endpoint_id not in self._placement.left:
            return False
        async with self._judging:
            if world.monotonic() >= self._judged_until:
                declared = self._placement.config.endpoints
                waiting = await self._store.write(undeclared.at_stake())
                self._left = waiting.keys() - declared.keys()
                problems = refusal(waiting, declared, RELOAD)
                if not problems:
                    await self._store.write(undeclared.accept(self._left, declared))
                    self._refused = None
                else:
                    if self._refused is None:
                        log.error("kept tasks whose endpoints no daemon declares: %s", problems[0])
                    since = self._refused[0] if self._refused else self._clock.now_ms()
                    self._refused = since, problems
                self._judged_until = world.monotonic() + JUDGE_EACH
        return self._refused is not None and key.endpoint_id in self._left

    async def _fail_some(self, key: Key) -> bool:
        """Fail the next tasks of a key; False where there is none left."""
        pick = Pick(key, BATCH, idempotent=False, due_before=FOREVER)
        tasks = (await self._store.write(claim.claim([pick]))).tasks
        self.at_work.update(task.id for task in tasks)
        _, executor = self._placement.look(key)
        try:
            if tasks and executor is not None:
                await self._hooks.look_again(executor, key)
            failed = await self._fail_these(key, tasks)
            if failed and executor is not None:
                # Who has another daemon send what was missed may not have seen these among that.
                await self._hooks.look_again(executor, key)
                for task in () if isinstance(self._placement.of(key), Doomed) else failed:
                    with suppress(Conflict, NotFound):  # another has done something with it
                        again = await self._store.write(manual.trigger(task.id))
                        self._placement.touched(again.key, again.next_try or 0)
        except Exception:
            for task in tasks:  # those that have ended are no claims any more
                self._claims.release_claim_later(task)
            raise
        finally:
            self.at_work.difference_update(task.id for task in tasks)
        return bool(tasks)

    async def _fail_these(self, key: Key, tasks: Sequence[Task]) -> list[Task]:
        """Those that have failed."""
        failed = []
        for task in tasks:
            # What was gone may be back by now.
            standing, config = self._placement.of(key), self._placement.config
            if not isinstance(standing, Doomed):
                await self._claims.release_claim(task)
                continue
            reason = Reason(standing.reason)
            endpoint = config.endpoints.get(key.endpoint_id)
            result = await self._hooks.fail(task, endpoint, config, reason, standing.why)
            await self._ends.settle(task, result, config, None, self._clock.now_ms())
            # Of a disabled webhook only what had been tried: it goes on missing what happens.
            if reason != Reason.WEBHOOK_DISABLED or task.attempts > 1:
                self._failed[standing.why] += 1
            failed.append(task)
        return failed
