"""What can be asked of the daemon: one layer, whoever asks.

The API's routes, and whatever else lets people look at the queue and steer it, call these verbs
and add nothing to them but their own clothes. They raise the errors of `orchestratord.errors`.
"""

from __future__ import annotations

import asyncio
import heapq
import importlib.metadata
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestratord.api import status as shown
from orchestratord.api.bulk_runner import BulkRunner
from orchestratord.api.parts import FleetLike, LoaderLike, ReloadLike, SchedulerLike, WorkerLike
from orchestratord.config.params import check_params
from orchestratord.engine import task_events
from orchestratord.engine.lanes.wait_reason import Waiting
from orchestratord.errors import ConfigError, Conflict, InvalidParams, NotFound
from orchestratord.model.edit import Declaration, Edit
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.event import EndpointEvent, Event, EventType
from orchestratord.model.settings import Config
from orchestratord.model.task import (
    FINAL,
    Action,
    Attempt,
    Effect,
    Key,
    Kind,
    NewTask,
    Status,
    Task,
)
from orchestratord.model.test_case import Pretended
from orchestratord.plugin.host import Host
from orchestratord.plugin.registry import PluginInfo
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import claim, manual, plugin_rows, prune, search
from orchestratord.queue.records import CANCEL, RETRY, Bulk, Done, Place, TaskFilter
from orchestratord.queue.store import Store
from orchestratord.simulate.explain import Explainer
from orchestratord.simulate.next_request import request_of, upcoming_runs
from orchestratord.simulate.report import Explained
from orchestratord.simulate.timetable import Wait, timetable
from orchestratord.values.clock import Clock

log = logging.getLogger("orchestratord.control")

MAX_BATCH = 10_000
"""Calls that are accepted at once."""
MAX_PAGE = 1_000
"""Tasks of one page of a list."""
MAX_WAIT = 30.0
"""Seconds that somebody can be kept waiting for the end of a task."""

IN_BULK = {
    RETRY: ("retried", (Status.PENDING, Status.FAILED, Status.CANCELLED)),
    CANCEL: ("cancelled", (Status.PENDING, Status.RUNNING, Status.FAILED)),
}
"""What a filter may retry or cancel; a task that succeeded is repeated one by one, by force."""

COMMAND = "command"
"""The cause of a reload that somebody asked for here."""

_BREATH = 500
"""Calls of a batch that are checked in one go; what else the loop has to do goes in between."""
_MAX_MISTAKES = 100
"""Of a batch, that are named."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A call that is on disk. `repeated`: its key was used before, and this is the first call."""

    id: int
    status: str
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class TaskSlice:
    """One page of a list of tasks, newest first. `next` goes on with it; None where it ends.

    A page of tasks with some text may be short though another one follows.
    """

    tasks: list[Task]
    next: int | None


@dataclass(frozen=True, slots=True)
class TaskPage:
    """All that is known of one task."""

    task: Task
    response: Mapping[str, Any] | None
    attempts: list[Attempt]
    waits: Waiting | None = None
    """What it waits for beside its `next_try`."""


class Verbs:
    """The daemon, to whoever may steer it."""

    def __init__(
        self,
        store: Store,
        worker: WorkerLike,
        loader: LoaderLike,
        host: Host,
        clock: Clock,
        scheduler: SchedulerLike,
        fleet: FleetLike | None = None,
    ) -> None:
        self.host = host
        self.bulks = BulkRunner(store, worker, clock, host.events)
        """Has to be run beside the worker."""
        self._store = store
        self._worker = worker
        self._loader = loader
        self._clock = clock
        self._scheduler = scheduler
        self._fleet = fleet
        self._started_at = clock.now_ms()
        self._version = importlib.metadata.version("orchestratord")
        self._pausing = asyncio.Lock()
        self._editing = asyncio.Lock()
        self._vigil = Vigil(store, worker)

    def close(self) -> None:
        """Send away whoever waits for the end of a task."""
        self._vigil.close()

    # -- looking ---------------------------------------------------------------------------

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._loader.config

    @property
    def plugins(self) -> list[PluginInfo]:
        """All plugins, in the order in which they were loaded."""
        return list(self.host.plugins.values())

    @property
    def now(self) -> int:
        """Milliseconds since the epoch."""
        return self._clock.now_ms()

    def unready(self) -> str | None:
        """Why new work would not be taken and carried out now; None where it would."""
        if self._worker.snapshot()["draining"]:
            return "the daemon is draining"
        if (why := self._store.health.unreachable) is not None:
            return why
        return None if self._store.health.accepting else "the disk has no room for new work"

    async def status(self, *, all_lanes: bool = False) -> dict[str, Any]:
        """How the daemon is, as `/v1/status` shows it; there only the busiest lanes stand."""
        store, loader, now = self._store, self._loader, self.now
        redactor = loader.config.redactor
        snapshot = shown.with_rates(self._worker.snapshot(), await store.read(claim.rates()), now)
        return {
            **shown.process_status(self._version, store.instance, self._started_at, now),
            "config": shown.config_status(
                loader.config,
                loader.cause,
                loader.changes,
                loader.last_error,
                loader.restart_required,
            ),
            "queue": await shown.queue_status(store, now),
            **shown.worker_status(snapshot, redactor, None if all_lanes else shown.MAX_LANES),
            "events_dropped": self.host.events.dropped,
            "database": {
                "url": redactor.text(store.url),
                "size": await store.read(prune.size()),
                "accepting": store.health.accepting,
                "unreachable": store.health.unreachable and redactor.text(store.health.unreachable),
                "listening": store.listening,
                "holding_back": list(self._fleet.holding_back) if self._fleet else [],
            },
            "daemons": self._fleet.daemons() if self._fleet else [],
            "plugins": shown.plugins_status(self.plugins, redactor),
            "paused": sorted(await store.read(manual.paused())),
        }

    def endpoint(self, endpoint_id: str) -> Endpoint:
        """A declared endpoint. Raises NotFound."""
        try:
            return self.config.endpoints[endpoint_id]
        except KeyError:
            raise NotFound(f"no endpoint {endpoint_id} is declared") from None

    async def paused(self) -> set[str]:
        """The endpoints whose calls wait until they are resumed."""
        return await self._store.read(manual.paused())

    def next_runs(self) -> Mapping[str, int]:
        """Endpoint → when its schedule calls it next (milliseconds), for those that have one."""
        return self._scheduler.next_runs()

    async def due_next(self, limit: int) -> list[tuple[Key, int]]:
        """Whose tasks are due next, and when the first of each is (milliseconds)."""
        earliest = await self._store.read(claim.earliest())
        return heapq.nsmallest(limit, earliest.items(), key=lambda item: item[1])

    async def tasks(
        self,
        filter_: TaskFilter,
        limit: int = 100,
        after: int | None = None,
        *,
        bounded: bool = False,
    ) -> TaskSlice:
        """Tasks, newest first; those below the id `after` if it is given.

        `bounded`: rather a page that is short than one that takes long to be found.
        """
        return TaskSlice(
            *await self._store.read(search.page(filter_, limit, after, bounded=bounded))
        )

    async def last_ended(
        self, filter_: TaskFilter, limit: int, after: Place | None
    ) -> tuple[list[Task], Place | None]:
        """Tasks that have ended, the last one first, and the place after which there is more."""
        return await self._store.read(search.last_ended(filter_, limit, after))

    async def task(self, task_id: int, wait: float = 0.0) -> TaskPage:
        """One task with its last answer and its attempts. Raises NotFound.

        `wait`: seconds that it may take until the task has ended.
        """
        task = (
            await self._vigil.ended(task_id, wait)
            if wait
            else await self._store.read(search.get(task_id))
        )
        response = await self._store.read(search.response(task_id))
        attempts = await self._store.read(search.attempts(task_id))
        return TaskPage(task, response, attempts, self._worker.waits(task))

    async def request(self, task_id: int) -> Any:
        """What a task would send as things stand. Raises NotFound, Conflict."""
        task = await self._store.read(search.get(task_id))
        return request_of(task, self.config, self.host, self._clock)

    def waits(self, endpoint_id: str) -> list[Wait]:
        """What lies between the attempts of a call of which every one fails. Raises NotFound."""
        return timetable(self.endpoint(endpoint_id).retry, lambda strategy, error: None)

    def upcoming_runs(self, endpoint_id: str, count: int) -> list[int]:
        """The next runs of an endpoint's schedule (milliseconds). Raises NotFound."""
        return upcoming_runs(self.endpoint(endpoint_id), self.now, count)

    async def explain(
        self,
        config: Config,
        endpoint: Endpoint,
        params: Mapping[str, Any],
        *,
        attempt: int = 1,
        answer: Pretended | None = None,
        phase: str | None = None,
    ) -> Explained:
        """What would follow from an answer. See `Explainer.explain`; `config` has the endpoint."""
        explainer = Explainer(self.host, config, self._clock)
        return await explainer.explain(
            endpoint, params, attempt=attempt, answer=answer, phase=phase
        )

    # -- calling ---------------------------------------------------------------------------

    async def call(
        self,
        endpoint_id: str,
        params: Mapping[str, Any],
        *,
        text_params: Mapping[str, str] | None = None,
        delay: float = 0.0,
        key: str | None = None,
    ) -> Accepted:
        """Make a call: it is on disk when this returns.

        Args:
            endpoint_id: `api/name`.
            params: by their names, as JSON values.
            text_params: more of them, as texts that become what the endpoint declares.
            delay: seconds until the first try.
            key: for 24 hours the same key at the same endpoint is the same call.

        Raises:
            NotFound, Conflict (the endpoint is disabled), InvalidParams, UniqueKeyReused,
            StorageFull.
        """
        endpoint = self._callable(endpoint_id)
        texts = text_params or {}
        if twice := params.keys() & texts.keys():
            raise InvalidParams(dict.fromkeys(sorted(twice), "is given twice"))
        checked = check_params(endpoint, params, text=texts)
        inserted = (await self._worker.accept([_call(endpoint, checked, delay, key)]))[0]
        if not inserted.duplicate:
            # It may run already, born with a slot; whoever is told only now need not care.
            return Accepted(inserted.id, Status.PENDING)
        first = await self._store.read(search.get(inserted.id))
        return Accepted(first.id, first.status, repeated=True)

    async def call_batch(
        self, endpoint_id: str, batch: Sequence[Mapping[str, Any]], *, delay: float = 0.0
    ) -> list[int]:
        """Make many calls of one endpoint, all or none; their ids in the order of `batch`.

        Raises what `call` raises; the names in InvalidParams begin with `batch.N.`, N from 0.
        """
        endpoint = self._callable(endpoint_id)
        if len(batch) > MAX_BATCH:
            raise InvalidParams({"batch": f"holds {len(batch)} calls; {MAX_BATCH} are taken"})
        tasks: list[NewTask] = []
        mistakes: dict[str, str] = {}
        for number, params in enumerate(batch):
            try:
                tasks.append(_call(endpoint, check_params(endpoint, params), delay, None))
            except InvalidParams as error:
                mistakes |= {f"batch.{number}.{name}": why for name, why in error.problems.items()}
                if len(mistakes) >= _MAX_MISTAKES:
                    break
            if number % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
        if mistakes:
            raise InvalidParams(mistakes)
        return [item.id for item in await self._worker.accept(tasks)] if tasks else []

    def _callable(self, endpoint_id: str) -> Endpoint:
        endpoint = self.endpoint(endpoint_id)
        if not endpoint.enabled:
            raise Conflict(f"{endpoint_id} is disabled (enabled: false)")
        return endpoint

    # -- steering --------------------------------------------------------------------------

    async def pause(self, endpoint_id: str, paused: bool = True) -> None:
        """Let the calls of an endpoint wait, or go on. Raises NotFound.

        One that is paused can be resumed though it is no longer declared.
        """
        async with self._pausing:
            known = await self._store.read(manual.paused())
            if paused or endpoint_id not in known:
                self.endpoint(endpoint_id)
            await self._store.write(manual.pause(endpoint_id, paused))
            waiting = await self._store.read(manual.paused())
            self._worker.set_paused(waiting)
            self._scheduler.set_paused(waiting)
            self._store.tell("paused")
        if waiting != known:
            type_ = EventType.ENDPOINT_PAUSED if paused else EventType.ENDPOINT_RESUMED
            self.publish(EndpointEvent(type_, self.now, endpoint_id))

    async def trigger(self, task_id: int, *, force: bool = False) -> Task:
        """Have a task tried now, before what else waits. Raises NotFound, Conflict.

        `force`: also one that succeeded.
        """
        task = await self._store.write(manual.trigger(task_id, force=force))
        if task.next_try is not None:
            self._worker.touched(task.key, task.next_try)
            self._worker.try_now(task.key)
        self.publish(task_events.triggered(task, self.now))
        return task

    async def cancel(self, task_id: int) -> Task:
        """Give a task up; one in flight is not tried again. Raises NotFound, Conflict."""
        before = await self._store.read(search.get(task_id))
        task = await self._store.write(manual.cancel(task_id))
        if task.status in FINAL:
            self._worker.finished(task_id)
            if before.status != task.status:
                self.publish(task_events.cancelled(task, self.now))
        return task

    async def trigger_all(
        self, filter_: TaskFilter, *, rate: float | None = None, dry_run: bool = False
    ) -> Bulk:
        """Have every task tried that the filter matches; without a status, every failed one.

        Args:
            rate: tasks a second at most.
            dry_run: only count them; nothing is written down, and the id of the bulk is 0.

        Raises:
            InvalidParams: the filter is empty, or names what cannot be retried in bulk.
        """
        return await self._begin_bulk(RETRY, filter_, rate, dry_run)

    async def cancel_all(
        self, filter_: TaskFilter, *, rate: float | None = None, dry_run: bool = False
    ) -> Bulk:
        """Give every task up that the filter matches; without a status, every one that waits.

        The arguments and what is raised are those of `trigger_all`.
        """
        return await self._begin_bulk(CANCEL, filter_, rate, dry_run)

    async def _begin_bulk(
        self, action: str, filter_: TaskFilter, rate: float | None, dry_run: bool
    ) -> Bulk:
        if filter_ == TaskFilter():
            raise InvalidParams({"filter": "is empty; name at least one condition"})
        words, allowed = IN_BULK[action]
        if wrong := [status for status in filter_.status if status not in allowed]:
            text = f"{', '.join(wrong)} tasks are not {words} in bulk; {', '.join(allowed)} are"
            raise InvalidParams({"filter.status": text})
        bulk = await bulks.create(self._store, filter_, rate, dry_run, action)
        if not dry_run:
            self.bulks.begin(bulk)
        return bulk

    async def latest_bulks(self, limit: int) -> list[Bulk]:
        """Retries and cancels of many, the latest first."""
        return await self._store.read(bulks.newest(limit))

    async def bulk(self, bulk_id: int) -> Bulk:
        """A retry or cancel of many. Raises NotFound."""
        return await self._store.read(bulks.get(bulk_id))

    async def cancel_bulk(self, bulk_id: int) -> Bulk:
        """Move no more tasks; those that were moved stay so. Raises NotFound."""
        return await self._store.write(bulks.cancel(bulk_id))

    async def reload(self, *, diff: bool = False) -> ReloadLike:
        """Read the configuration again; with `diff`, name the keys that differ.

        Raises ConfigError where it is refused.
        """
        reload = await self._loader.reload(COMMAND, diff=diff)
        if reload.problems:
            raise ConfigError(reload.problems)
        return reload

    # -- what people did -------------------------------------------------------------------------

    async def record(self, who: str, action: Action) -> None:
        """Write down what somebody has done by hand."""
        await self._store.write(manual.record_action(who, action))

    async def actions(
        self, limit: int = 100, after: int | None = None
    ) -> tuple[list[Done], int | None]:
        """What people did by hand, newest first; the number to go on after, None at the end."""
        found = await self._store.read(manual.newest_actions(limit + 1, after))
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    # -- for plugins -----------------------------------------------------------------------

    async def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of a plugin's table."""
        return await plugin_rows.rows(self._store, table)

    async def write(self, effects: Sequence[Effect]) -> list[int]:
        """Write in one transaction; the ids of the new tasks, in order."""
        ids = await self._worker.write(effects)
        self._store.tell("tables")
        return ids

    def publish(self, event: Event) -> None:
        """Tell of what happened, once it is written."""
        self.host.events.publish(event)

    async def declaration(self, endpoint_id: str, key: str) -> Declaration:
        """What the endpoint's file says under a key that is united by name."""
        return await asyncio.to_thread(self._loader.editor.declaration, endpoint_id, key)

    async def drafted(self, endpoint_id: str, draft: Mapping[str, Any]) -> Config:
        """The configuration as it would be with other lists in an endpoint's file.

        Args:
            endpoint_id: whose.
            draft: one key that is united by name → its list.

        Raises:
            InvalidParams, NotFound, ConfigError.
        """
        if len(draft) != 1:
            raise InvalidParams({"draft": "holds one list"})
        ((key, value),) = draft.items()
        edit = await asyncio.to_thread(
            self._loader.editor.edit, endpoint_id, key, value, etag="*", dry_run=True
        )
        if edit.config is None:
            raise ConfigError(edit.problems)
        return edit.config

    async def edit(
        self,
        endpoint_id: str,
        key: str,
        value: Any,
        *,
        etag: str | None,
        dry_run: bool = False,
        who: str = "",
    ) -> Edit:
        """Have the endpoint's file say something else under such a key, and take it up."""
        # Between reading a file and writing it, nobody else should.
        async with self._editing:
            edit = await asyncio.to_thread(
                self._loader.editor.edit, endpoint_id, key, value, etag=etag, dry_run=dry_run
            )
            if dry_run:
                return edit
            if not edit.written:
                return replace(edit, generation=self.config.generation)
            reload = await self._loader.reload(COMMAND)
        generation = reload.config.generation
        log.info(
            "%s of %s written to %s by %s, generation %d",
            key,
            endpoint_id,
            edit.declaration.file,
            who or "somebody",
            generation,
            extra={"endpoint": endpoint_id, "caller": who},
        )
        return replace(edit, generation=generation, refused=tuple(reload.problems))

    def standing_changed(self, endpoint_id: str) -> None:
        """Look again at where the tasks of an endpoint stand."""
        self._worker.standing_changed(endpoint_id)


def _call(endpoint: Endpoint, params: Mapping[str, Any], delay: float, key: str | None) -> NewTask:
    return NewTask(
        Kind.CALL,
        endpoint.id,
        params,
        delay=delay,
        unique_key=key,
        max_attempts=endpoint.retry.max_attempts,
    )


# -- Waiting for the end of a task, on behalf of whoever asked -------------------------------------

LOOK_AGAIN = 1.0
"""Seconds; not everything that ends is told of: another process may have ended it."""


class Vigil:
    """Waits for the ends of tasks until it is closed."""

    def __init__(self, store: Store, worker: WorkerLike) -> None:
        self._store = store
        self._worker = worker
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Send everybody away."""
        self._closing.set()

    async def ended(self, task_id: int, wait: float) -> Task:
        """The task once it has ended, or as it is after `wait` seconds. Raises NotFound."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        closing = loop.create_task(self._closing.wait())
        try:
            while True:
                # Waiting begins before looking, so that what ends in between is not missed.
                rest = max(deadline - loop.time(), 0.0)
                end = loop.create_task(self._worker.wait_final(task_id, min(rest, LOOK_AGAIN)))
                try:
                    await asyncio.sleep(0)
                    task = await self._store.read(search.get(task_id))
                    if task.status in FINAL or rest == 0 or self._closing.is_set():
                        return task
                    await asyncio.wait((end, closing), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    end.cancel()
        finally:
            closing.cancel()
