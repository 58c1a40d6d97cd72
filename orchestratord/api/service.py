"""What can be asked of the daemon: one class, in the words of the API.

The API's routes call it, and so do the routes of plugins, the dashboard among them, to which it is
the `Control` of the public face. What it returns are the API's documents, with secrets masked; what
it raises are the errors of `orchestratord.errors`.
"""

from __future__ import annotations

import asyncio
import heapq
import importlib.metadata
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from orchestratord.api import serialize, status
from orchestratord.api.bodies import ExplainBody, read_body
from orchestratord.api.bulk_runner import BulkRunner
from orchestratord.api.filters import ORDERS, place_text, read_filter, read_id, read_place
from orchestratord.config.params import check_params, exemplary
from orchestratord.engine import task_events
from orchestratord.engine.scheduler import Scheduler
from orchestratord.engine.worker import Worker
from orchestratord.errors import ConfigError, Conflict, InvalidParams, NotFound, OrchestratordError
from orchestratord.model.edit import Declaration, Edit
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.event import EndpointEvent, Event, EventType
from orchestratord.model.settings import Config
from orchestratord.model.task import FINAL, Action, Effect, Kind, NewTask, Status, Task
from orchestratord.plugin.host import Host
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import claim, manual, plugin_rows, search
from orchestratord.queue.records import CANCEL, RETRY, TaskFilter
from orchestratord.queue.store import Store
from orchestratord.runtime.fleet import Fleet
from orchestratord.runtime.reload import Reloader
from orchestratord.simulate.explain import Explainer
from orchestratord.simulate.next_request import request_of, upcoming_runs
from orchestratord.simulate.report import report_json, request_json, with_curl
from orchestratord.simulate.timetable import timetable
from orchestratord.values.clock import Clock, rfc3339

log = logging.getLogger("orchestratord.control")

MAX_BATCH = 10_000
"""Calls that are accepted at once."""
MAX_PAGE = 1_000
"""Tasks of one page of a list."""
MAX_WAIT = 30.0
"""Seconds that a client can be kept waiting for the end of a task."""
MAX_BULKS = 20
"""That are listed, the latest ones."""

IN_BULK = {
    RETRY: ("retried", (Status.PENDING, Status.FAILED, Status.CANCELLED)),
    CANCEL: ("cancelled", (Status.PENDING, Status.RUNNING, Status.FAILED)),
}
"""What a filter may retry or cancel; a task that succeeded is repeated one by one, by force."""

COMMAND = "command"
"""The cause of a reload that was asked for here."""

LOOK_AGAIN = 1.0
"""Seconds until a task whose end is waited for is read again: another process may have ended it,
which is not told here."""

_BREATH = 500
"""Calls of a batch that are checked in one go; what else the loop has to do goes in between."""
_MAX_PROBLEMS = 100
"""Of a batch, that are named."""


class Accepted(NamedTuple):
    """A call that is on disk. `repeated`: its key was used before, and this is the first call."""

    id: int
    status: str
    repeated: bool = False


class Service:
    """One running daemon, for all that look at it and steer it."""

    def __init__(
        self,
        store: Store,
        worker: Worker,
        scheduler: Scheduler,
        reloader: Reloader,
        fleet: Fleet,
        host: Host,
        clock: Clock,
    ) -> None:
        self.bulk_runner = BulkRunner(store, worker, clock, host.events)
        """Has to be run beside the worker."""
        self._store = store
        self._worker = worker
        self._scheduler = scheduler
        self._reloader = reloader
        self._fleet = fleet
        self._host = host
        self._clock = clock
        self._started_at = clock.now_ms()
        self._version = importlib.metadata.version("orchestratord")
        self._pausing = asyncio.Lock()
        self._editing = asyncio.Lock()
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Answer all that wait for the end of a task: the daemon stops."""
        self._closing.set()

    # -- the daemon ----------------------------------------------------------------------------

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._reloader.config

    def unready(self) -> str | None:
        """Why new work would not be taken and carried out now; None where it would."""
        if self._worker.lanes.draining:
            return "the daemon is draining"
        if (why := self._store.health.unreachable) is not None:
            return why
        return None if self._store.health.accepting else "the disk has no room for new work"

    async def status(self, *, all_lanes: bool = False) -> dict[str, Any]:
        """How the daemon is, as `/v1/status` shows it; there only the busiest lanes stand."""
        store, redactor, now = self._store, self.config.redactor, self._clock.now_ms()
        snapshot = status.with_rates(self._worker.snapshot(), await store.read(claim.rates()), now)
        return {
            **status.process_status(self._version, store.instance, self._started_at, now),
            "config": status.config_status(self._reloader),
            "queue": await status.queue_status(store, now),
            **status.worker_status(snapshot, redactor, None if all_lanes else status.MAX_LANES),
            "events_dropped": self._host.events.dropped,
            "database": await status.database_status(store, self._fleet, redactor),
            "daemons": self._fleet.daemons(),
            "plugins": status.plugins_status(self._host.plugins.values(), redactor),
            "paused": sorted(await store.read(manual.paused())),
        }

    def plugins(self) -> list[dict[str, Any]]:
        """All plugins in the order in which they were loaded, those that did not load as well."""
        return [
            serialize.plugin_json(one, self.config.redactor) for one in self._host.plugins.values()
        ]

    async def reload(self, *, diff: bool = False) -> dict[str, Any]:
        """Read the configuration again; with `diff`, name the keys that differ.

        Raises ConfigError where it is refused.
        """
        result = await self._reloader.reload(COMMAND, diff=diff)
        if result.problems:
            raise ConfigError(result.problems)
        return status.reload_json(result, diff=diff)

    # -- tasks ---------------------------------------------------------------------------------

    async def retries(
        self,
        filter: Mapping[str, Any],  # noqa: A002
        *,
        limit: int = 100,
        after: int | str | None = None,
        bounded: bool = False,
        order: str = "newest",
    ) -> dict[str, Any]:
        """A page of tasks and the `next` after which there is more. See `Control.retries`."""
        wanted = read_filter(filter, self._clock.now_ms())
        following: int | str | None
        if order == "ended":
            place = read_place(None if after is None else str(after))
            tasks, last = await self._store.read(search.last_ended(wanted, limit, place))
            following = place_text(last)
        elif order == "newest":
            after_id = read_id(after)
            tasks, following = await self._store.read(
                search.page(wanted, limit, after_id, bounded=bounded)
            )
        else:
            raise InvalidParams({"order": f"must be one of {', '.join(ORDERS)}"})
        shown = [serialize.task_json(task, self.config.redactor) for task in tasks]
        return {"retries": shown, "next": following}

    async def retry(self, task_id: int, wait: float = 0.0) -> dict[str, Any]:
        """One task with its last answer and its attempts. Raises NotFound.

        `wait`: seconds that it may take until the task has ended.
        """
        task = await (self._ended(task_id, wait) if wait else self._store.read(search.get(task_id)))
        response = await self._store.read(search.response(task_id))
        attempts = await self._store.read(search.attempts(task_id))
        waits = self._worker.waits(task)
        return serialize.task_page_json(task, response, attempts, waits, self.config.redactor)

    async def _ended(self, task_id: int, wait: float) -> Task:
        """The task once it has ended, or as it is after `wait` seconds. Raises NotFound."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        closing = loop.create_task(self._closing.wait())
        try:
            while True:
                # Waiting begins before looking, so that what ends in between is not missed.
                rest = max(deadline - loop.time(), 0.0)
                end = loop.create_task(self._worker.waiters.wait(task_id, min(rest, LOOK_AGAIN)))
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

    async def request(self, task_id: int) -> dict[str, Any]:
        """What a task would send as things stand. Raises NotFound, Conflict."""
        task = await self._store.read(search.get(task_id))
        request = request_of(task, self.config, self._host, self._clock)
        return with_curl(request_json(request, self.config.redactor)) or {}

    async def due_next(self, limit: int) -> list[dict[str, Any]]:
        """Whose tasks are due next, and when the first of each is."""
        earliest = await self._store.read(claim.earliest())
        text = self.config.redactor.text
        return [
            {
                "endpoint": text(key.endpoint_id),
                "webhook": text(key.webhook) or None,
                "next_try": rfc3339(next_try),
            }
            for key, next_try in heapq.nsmallest(limit, earliest.items(), key=lambda item: item[1])
        ]

    async def trigger(self, task_id: int, *, force: bool = False) -> dict[str, Any]:
        """Have a task tried now, before what else waits. Raises NotFound, Conflict.

        `force`: also one that succeeded.
        """
        task = await self._store.write(manual.trigger(task_id, force=force))
        if task.next_try is not None:
            self._worker.placement.touched(task.key, task.next_try)
            self._worker.try_now(task.key)
        self.publish(task_events.triggered(task, self._clock.now_ms()))
        return serialize.task_json(task, self.config.redactor)

    async def cancel(self, task_id: int) -> dict[str, Any]:
        """Give a task up; one in flight is not tried again. Raises NotFound, Conflict."""
        before = await self._store.read(search.get(task_id))
        task = await self._store.write(manual.cancel(task_id))
        if task.status in FINAL:
            self._worker.waiters.finished(task_id)
            if before.status != task.status:
                self.publish(task_events.cancelled(task, self._clock.now_ms()))
        return serialize.task_json(task, self.config.redactor)

    # -- many tasks ----------------------------------------------------------------------------

    async def begin_bulk(
        self,
        action: str,
        filter: Mapping[str, Any],  # noqa: A002
        *,
        rate: float | None = None,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Have every task tried, or give every task up, that the filter matches.

        Args:
            action: `RETRY`, of every failed task where the filter names no status; or `CANCEL`, of
                every one that waits.
            filter: by the names of the parameters of `GET /v1/retries`.
            rate: tasks a second at most.
            dry_run: only count them; nothing is written down, and the id of the bulk is 0.

        Raises:
            InvalidParams: the filter is empty, or names what cannot be done in bulk.
        """
        wanted = read_filter(filter, self._clock.now_ms())
        if wanted == TaskFilter():
            raise InvalidParams({"filter": "is empty; name at least one condition"})
        done, allowed = IN_BULK[action]
        if wrong := [item for item in wanted.status if item not in allowed]:
            text = f"{', '.join(wrong)} tasks are not {done} in bulk; {', '.join(allowed)} are"
            raise InvalidParams({"filter.status": text})
        bulk = await bulks.create(self._store, wanted, rate, dry_run, action)
        if not dry_run:
            self.bulk_runner.begin(bulk)
        return serialize.bulk_json(bulk, self.config.redactor)

    async def bulks(self) -> list[dict[str, Any]]:
        """The latest retries and cancels of many, the latest first."""
        found = await self._store.read(bulks.newest(MAX_BULKS))
        return [serialize.bulk_json(bulk, self.config.redactor) for bulk in found]

    async def bulk(self, bulk_id: int) -> dict[str, Any]:
        """A retry or cancel of many. Raises NotFound."""
        return serialize.bulk_json(await self._store.read(bulks.get(bulk_id)), self.config.redactor)

    async def cancel_bulk(self, bulk_id: int) -> dict[str, Any]:
        """Move no more tasks; those that were moved stay so. Raises NotFound."""
        return serialize.bulk_json(
            await self._store.write(bulks.cancel(bulk_id)), self.config.redactor
        )

    # -- endpoints -----------------------------------------------------------------------------

    def declared(self, endpoint_id: str) -> Endpoint:
        """An endpoint of the configuration in force. Raises NotFound."""
        try:
            return self.config.endpoints[endpoint_id]
        except KeyError:
            raise NotFound(f"no endpoint {endpoint_id} is declared") from None

    async def endpoints(self, ids: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """These endpoints, or all of them, as they are declared and stand. Raises NotFound."""
        paused, runs = await self._store.read(manual.paused()), self._scheduler.next_runs()
        return [
            serialize.endpoint_json(one, one.id in paused, runs.get(one.id), self.config.redactor)
            for one in map(self.declared, self.config.endpoints if ids is None else ids)
        ]

    async def endpoint(self, endpoint_id: str) -> dict[str, Any]:
        """One endpoint. Raises NotFound."""
        return (await self.endpoints([endpoint_id]))[0]

    def waits(self, endpoint_id: str) -> list[dict[str, Any]]:
        """What lies between the attempts of a call of which every one fails. Raises NotFound."""
        waits = timetable(self.declared(endpoint_id).retry, lambda strategy, error: None)
        return [asdict(wait) for wait in waits]

    def runs(self, endpoint_id: str, count: int) -> list[str]:
        """The next runs of an endpoint's schedule. Raises NotFound."""
        found = upcoming_runs(self.declared(endpoint_id), self._clock.now_ms(), count)
        return [text for text in map(rfc3339, found) if text is not None]

    async def explain(self, endpoint_id: str, **asked: Any) -> dict[str, Any]:
        """What would follow from an answer, by the configuration in force or by a draft of it.

        Args:
            endpoint_id: whose calls are explained.
            **asked: the keys of an `ExplainBody`.

        Raises:
            InvalidParams, NotFound, Conflict; ConfigError where a draft would be refused.
        """
        body = read_body(ExplainBody, asked)
        answer = body.answer()
        config = self.config
        endpoint = self.declared(endpoint_id)
        if body.draft:
            config = await self._drafted(endpoint_id, body.draft)
            endpoint = config.endpoints[endpoint_id]
        report = await Explainer(self._host, config, self._clock).explain(
            endpoint,
            exemplary(endpoint, body.params),
            attempt=body.attempt,
            answer=answer,
            phase=body.phase,
        )
        return report_json(report, config.redactor.merged(self.config.redactor))

    async def _drafted(self, endpoint_id: str, draft: Mapping[str, Any]) -> Config:
        """The configuration as it would be with another list under one key of an endpoint's file.

        Raises InvalidParams, NotFound, ConfigError.
        """
        if len(draft) != 1:
            raise InvalidParams({"draft": "holds one list"})
        ((key, value),) = draft.items()
        edit = await asyncio.to_thread(
            self._reloader.editor.edit, endpoint_id, key, value, etag="*", dry_run=True
        )
        if edit.config is None:
            raise ConfigError(edit.problems)
        return edit.config

    async def pause(self, endpoint_id: str, paused: bool = True) -> None:
        """Let the calls of an endpoint wait, or go on. Raises NotFound.

        One that is paused can be resumed though it is no longer declared.
        """
        async with self._pausing:
            known = await self._store.read(manual.paused())
            if paused or endpoint_id not in known:
                self.declared(endpoint_id)
            await self._store.write(manual.pause(endpoint_id, paused))
            waiting = await self._fleet.apply_paused()
            self._store.tell("paused")
        if waiting != known:
            type_ = EventType.ENDPOINT_PAUSED if paused else EventType.ENDPOINT_RESUMED
            self.publish(EndpointEvent(type_, self._clock.now_ms(), endpoint_id))

    # -- calling -------------------------------------------------------------------------------

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
        inserted = (await self._worker.enqueue.accept([_call(endpoint, checked, delay, key)]))[0]
        if not inserted.duplicate:
            # It may run already, born with a slot; a caller that is told only now need not care.
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
        problems: dict[str, str] = {}
        for number, params in enumerate(batch):
            try:
                tasks.append(_call(endpoint, check_params(endpoint, params), delay, None))
            except InvalidParams as error:
                problems |= {f"batch.{number}.{name}": why for name, why in error.problems.items()}
                if len(problems) >= _MAX_PROBLEMS:
                    break
            if number % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
        if problems:
            raise InvalidParams(problems)
        return [item.id for item in await self._worker.enqueue.accept(tasks)] if tasks else []

    def _callable(self, endpoint_id: str) -> Endpoint:
        endpoint = self.declared(endpoint_id)
        if not endpoint.enabled:
            raise Conflict(f"{endpoint_id} is disabled (enabled: false)")
        return endpoint

    # -- what was done manually ----------------------------------------------------------------

    async def record(self, who: str, action: Action) -> None:
        """Write down what `who` has done manually."""
        try:
            await self._store.write(manual.record_action(who, action))
        except OrchestratordError as error:
            # It is done: the client is not to think that it is not.
            log.error("cannot write to the action log that %s did %r: %s", who, action.name, error)

    async def actions(self, *, limit: int = 100, after: int | None = None) -> dict[str, Any]:
        """What was done manually, newest first; the number to go on after, None at the end."""
        found = await self._store.read(manual.newest_actions(limit + 1, after))
        following = found[limit - 1].id if len(found) > limit else None
        done = [serialize.done_json(one, self.config.redactor) for one in found[:limit]]
        return {"actions": done, "next": following}

    # -- what plugins keep and tell ------------------------------------------------------------

    async def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of a plugin's table."""
        return await plugin_rows.rows(self._store, table)

    async def write(self, effects: Sequence[Effect]) -> list[int]:
        """Write in one transaction; the ids of the new tasks, in order."""
        ids = await self._worker.enqueue.write(effects)
        self._store.tell("tables")
        return ids

    def publish(self, event: Event) -> None:
        """Tell of what happened, once it is written."""
        self._host.events.publish(event)

    def standing_changed(self, endpoint_id: str) -> None:
        """Look again at where the tasks of an endpoint stand."""
        self._worker.placement.standing_changed(endpoint_id)

    # -- what stands in the files --------------------------------------------------------------

    async def declaration(self, endpoint_id: str, key: str) -> Declaration:
        """What the endpoint's file says under a key that is united by name."""
        return await asyncio.to_thread(self._reloader.editor.declaration, endpoint_id, key)

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
        # No other edit may come between reading a file and writing it.
        async with self._editing:
            edit = await asyncio.to_thread(
                self._reloader.editor.edit, endpoint_id, key, value, etag=etag, dry_run=dry_run
            )
            if dry_run:
                return edit
            if not edit.written:
                return replace(edit, generation=self.config.generation)
            result = await self._reloader.reload(COMMAND)
        generation = result.config.generation
        log.info(
            "%s of %s written to %s by %s, generation %d",
            key,
            endpoint_id,
            edit.declaration.file,
            who or "somebody",
            generation,
            extra={"endpoint": endpoint_id, "caller": who},
        )
        return replace(edit, generation=generation, refused=tuple(result.problems))


def _call(endpoint: Endpoint, params: Mapping[str, Any], delay: float, key: str | None) -> NewTask:
    return NewTask(
        Kind.CALL,
        endpoint.id,
        params,
        delay=delay,
        unique_key=key,
        max_attempts=endpoint.retry.max_attempts,
    )
