"""What can be asked of the daemon: one class, in the words of the API.

The API's routes call it, and so do the routes of plugins, the dashboard among them, to which it is
the `Control` of the public face. What it returns are the API's documents, with secrets masked; what
it raises are the errors of `orchestratord.errors`.
"""

from __future__ import annotations

import asyncio
import heapq
import importlib.metadata
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

from orchestratord.api import answer_documents as answers
from orchestratord.api import daemon_documents, filters, serialize, status
from orchestratord.api.bodies import ExplainBody, check_key, read_body
from orchestratord.api.daemon_documents import (
    BatchMemberDocument,
    BatchPageDocument,
    FailingKeys,
    FailingStatus,
    GroupDocument,
    GroupsDocument,
    MissedDocument,
    ScheduleDocument,
)
from orchestratord.api.manual.bulk_service import BulkService
from orchestratord.api.manual.task_service import TaskService
from orchestratord.api.plugin_pages import contained_pages, contained_status
from orchestratord.api.run_document import RunDocument, RunsDocument, run_document, runs_document
from orchestratord.api.server.handler import Asked, Handler
from orchestratord.api.server.request_body import json_value
from orchestratord.api.slow_look import SlowLook
from orchestratord.config.params import exemplary, rule_problems
from orchestratord.engine import task_events
from orchestratord.engine.new.enqueue import accepted, callable_endpoint, check_rules, fitted_call
from orchestratord.engine.new.scheduler import Scheduler
from orchestratord.engine.worker import Worker
from orchestratord.errors import (
    ConfigError,
    Conflict,
    InvalidParams,
    NotFound,
    OrchestratordError,
    PluginError,
    Problem,
    QueueError,
    Stopping,
    UniqueKeyReused,
)
from orchestratord.model.edit import Declaration, Edit
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.event import EndpointEvent, Event, EventType
from orchestratord.model.settings import Config
from orchestratord.model.storable_text import check_texts
from orchestratord.model.task import (
    FINAL,
    Accepted,
    Action,
    Delete,
    Effect,
    Key,
    NewTask,
    QueueRows,
    Reason,
    Task,
    Upsert,
)
from orchestratord.plugin.executor import Doomed
from orchestratord.plugin.isolation import HookFault, check_sizes, contained
from orchestratord.plugin.long_work import off_loop
from orchestratord.plugin.metric import MetricSamples
from orchestratord.plugin.route import Page
from orchestratord.plugin.served import plugin_metrics
from orchestratord.queue.housekeeping import prune
from orchestratord.queue.operations import chores, claim, manual, plugin_rows, search
from orchestratord.queue.records import RETRY
from orchestratord.queue.reports import backlog, batch_page, failing, grouped
from orchestratord.queue.reports.failing import Failing
from orchestratord.runtime.clock_watch import ClockWatch
from orchestratord.runtime.fleet import Fleet
from orchestratord.runtime.reload import COMMAND, Reloader
from orchestratord.runtime.team import Team
from orchestratord.runtime.upgrade import Upgrade
from orchestratord.simulate.explain import Explainer
from orchestratord.simulate.next_request import repeat_key, request_of, upcoming_runs
from orchestratord.simulate.report import request_json, with_curl
from orchestratord.simulate.timetable import timetable
from orchestratord.values import world
from orchestratord.values.clock import first_try, rfc3339
from orchestratord.values.durations import MAX_DURATION
from orchestratord.values.json_body import INLINE_BYTES, MAX_BATCH
from orchestratord.values.redact import Redactor
from orchestratord.values.suggest import suggest

log = logging.getLogger("orchestratord.control")

T = TypeVar("T")
MAX_WAITING = 64
"""Clients that can be kept waiting at once."""
LOOK_AGAIN = 1.0
"""Seconds until a task that is waited for is read again: another process may have ended it."""
_AT_ONCE = 0.01
"""Seconds for which the calls of a batch are checked, until others have their turn."""
_MAX_PROBLEMS = 100
"""Of a batch, that are named."""


MAX_FAILING = 20
"""Endpoints and webhooks that are named as failing, the latest ones."""
DEFAULT_BY = ("endpoint", "reason", "status_code")
_GONE = (Reason.ENDPOINT_REMOVED, Reason.WEBHOOK_REMOVED)


def _failing(item: failing.FailingKey, redactor: Redactor) -> FailingStatus:
    named = {"endpoint": item.key.endpoint_id, "webhook": item.key.webhook or None}
    return serialize.document(FailingStatus, item, redactor, **redactor.value(named))


def _member(one: batch_page.PageMember, redactor: Redactor) -> BatchMemberDocument:
    event: Any = None
    with suppress(ValueError, RecursionError):  # an edit of the table may have left anything
        event = redactor.data.value(json.loads(one.detail or "null"))
    shown = event if isinstance(event, dict) else None
    return serialize.document(BatchMemberDocument, one, redactor, event=shown)


class Service:
    """One running daemon, for all that look at it and steer it."""

    def __init__(
        self,
        worker: Worker,
        scheduler: Scheduler,
        reloader: Reloader,
        fleet: Fleet,
        clock_watch: ClockWatch,
        team: Team,
        upgrade: Upgrade,
    ) -> None:
        self._worker, self._scheduler = worker, scheduler
        self._store, self._host, self._clock = worker.store, worker.host, worker.clock
        self.own_endpoints = worker.host.registry.own_endpoints
        self._failing = SlowLook(self._store, Failing([], False))
        self._no_failures = SlowLook[dict[str, int]](self._store)
        self._due = SlowLook[backlog.DueTasks](self._store)
        self.many = BulkService(worker)
        self.one = TaskService(worker)
        self._reloader = reloader
        self._fleet = fleet
        self._clock_watch, self._team, self._upgrade = clock_watch, team, upgrade
        self.routes: Mapping[tuple[str, str], Handler] = {}
        """What answers at each method and path of the API, where it is served."""
        self._status_parts: list[tuple[str, Callable[[], Any]]] | None = None
        self._started_at = worker.clock.now_ms()
        self._version = importlib.metadata.version("orchestratord")
        self._pausing, self._editing = asyncio.Lock(), asyncio.Lock()
        self._closing, self._waiting = asyncio.Event(), 0
        self._asking = asyncio.Lock()
        """Of those who may not wait, one after the other: a crowd leaves the others time."""

    def close(self) -> None:
        """Answer all that wait for the end of a task: the daemon stops."""
        self._closing.set()

    # -- the daemon ----------------------------------------------------------------------------

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._reloader.config

    def troubles(self) -> list[daemon_documents.TroubleDocument]:
        """Why new work would not be taken and carried out now; nothing where it would."""
        others = [*self._team.troubles(), *self._fleet.troubles()]
        found = self._store.health, self.config.redactor, others
        return status.troubles_status(*found, draining=self._worker.lanes.draining)

    async def status(self, *, all_lanes: bool = False) -> daemon_documents.StatusDocument:
        """How the daemon is, as `/v1/status` shows it; there only the busiest lanes stand."""
        store, redactor, now = self._store, self.config.redactor, self._clock.now_ms()
        all_workers = await self._team.snapshot(self._worker.snapshot())
        rates = await claim.rates(store, status.lanes_by_day(all_workers))
        snapshot = status.with_rates(all_workers, rates, now)
        no_failures = await self._no_failures.latest(failing.no_failures())
        counts = {**await store.counts(), **no_failures}
        due = await self._due.latest(backlog.due_tasks(now, status.MAX_PARTITIONS))
        return {
            "version": self._version,
            "pid": self._fleet.pid,
            "workers": self._team.count,
            "instance": store.instance,
            "started_at": rfc3339(self._started_at),
            "uptime": max(now - self._started_at, 0) / 1000,
            "health": {"ready": not (troubles := self.troubles()), "troubles": troubles},
            "config": status.config_status(self._reloader),
            "queue": status.queue_status(counts, due, now, redactor),
            **status.worker_status(snapshot, redactor, None if all_lanes else status.MAX_LANES),
            **await self.failing(),
            "events_dropped": snapshot["events_dropped"],
            "unheld_claims": snapshot["unheld_claims"],
            "upgrade_failed": self._upgrade.failure,
            "database": await status.database_status(store, self._fleet, redactor),
            "daemons": cast("list[daemon_documents.DaemonStatus]", self._fleet.daemons()),
            "clock": cast("daemon_documents.ClockStatus", self._clock_watch.status()),
            "outbox": None,
            "plugins": [
                serialize.plugin_status(one, redactor) for one in self._host.plugins.values()
            ],
            "paused": sorted(await store.read(manual.paused())),
            "stuck_chores": [
                serialize.document(daemon_documents.StuckChore, one, redactor)
                for one in await store.read(chores.stuck())
            ],
            **self._of_plugins(),  # type: ignore[typeddict-item]  # keys that no document has
        }

    def _of_plugins(self) -> dict[str, Any]:
        """What plugins say of themselves in the status, by their keys."""
        if self._status_parts is None:
            self._status_parts = list(contained_status(self._host, self))
        return {key: read() for key, read in self._status_parts}

    def plugins(self) -> list[daemon_documents.PluginDocument]:
        """All plugins in the order in which they were loaded, those that did not load as well."""
        verbs, redactor = self._host.registry.verbs, self.config.redactor
        return [
            serialize.plugin_json(one, redactor, verbs.get(one.name, ()))
            for one in self._host.plugins.values()
        ]

    async def reload(
        self,
        *,
        diff: bool = False,
        accept_removals: bool = False,
        dry_run: bool = False,
        folder: str | None = None,
    ) -> daemon_documents.ReloadDocument:
        """Read the configuration again.

        Args:
            diff: name the keys that differ; where nothing has changed since, those that the
                generation in force has changed.
            accept_removals: accept the removal of most endpoints that tasks wait for.
            dry_run: only tell what it would come to.
            folder: then, read in the place of the daemon's own.

        Raises:
            ConfigError: it is refused.
        """
        examined = Path(folder) if folder else self._reloader.folder
        result = await self._reloader.reload(
            COMMAND, accept_removals=accept_removals, examined=examined if dry_run else None
        )
        if result.problems:
            raise ConfigError(result.problems)
        if diff and not (result.changed or dry_run):
            last = self._reloader
            result = replace(result, changes=last.changes, differences=tuple(last.differences))
        return status.reload_json(result, diff=diff)

    async def upgrade(self) -> daemon_documents.UpgradeDocument:
        """Go on as the version that is installed by now. Raises Conflict where it cannot start, or
        another one is under way."""
        return cast("daemon_documents.UpgradeDocument", await self._upgrade.begin())

    # -- tasks ---------------------------------------------------------------------------------

    async def retries(
        self,
        filter: Mapping[str, Any],  # noqa: A002
        *,
        limit: int = 100,
        after: int | str | None = None,
        bounded: bool = False,
        order: str = "newest",
    ) -> answers.TasksDocument:
        """A page of tasks and the `next` after which there is more. See `Control.retries`."""
        wanted = filters.read_filter(filter, self._clock.now_ms(), self.own_endpoints)
        following: int | str | None
        if order == "ended":
            place = filters.read_place(None if after is None else str(after))
            found = search.last_ended(wanted, limit, place)
            shown, last = await self._store.read(found.map(self._listed))
            following = filters.place_text(last)
        elif order == "newest":
            after_id = filters.read_number(after, "after", filters.MAX_ID)
            page = search.page(wanted, limit, after_id, bounded=bounded)
            shown, following = await self._store.read(page.map(self._listed))
        else:
            raise InvalidParams({"order": f"must be one of {', '.join(filters.ORDERS)}"})
        return {"retries": shown, "next": following}

    def _listed(self, page: tuple[Sequence[Task], T]) -> tuple[list[answers.TaskDocument], T]:
        """A page as it is shown; made on the reading thread."""
        tasks, following = page
        return [serialize.task_json(task, self.config.redactor) for task in tasks], following

    async def retry(self, task_id: int, wait: float = 0.0) -> answers.TaskPageDocument:
        """One task with its last answer and its attempts. Raises NotFound.

        `wait`: seconds that it may take until the task has ended; while `MAX_WAITING` wait already,
        it is told as it is.
        """
        if wait and self._waiting >= MAX_WAITING:
            async with self._asking:
                return await self.retry(task_id)
        if wait:
            self._waiting += 1
            try:
                await self._ended(task_id, wait)
            finally:
                self._waiting -= 1
        redactor = self.config.redactor

        def shown(found: search.WholeTask) -> tuple[Task, answers.TaskPageDocument]:
            return found.task, serialize.task_page_json(*found, redactor)

        task, page = await self._store.read(search.whole(task_id).map(shown))
        reason = await self._worker.wait_reason(task)
        if reason is not None:
            page["waits"] = serialize.document(
                answers.WaitDocument, reason, redactor, **{"for": reason.what}
            )
        page["idempotency_key"] = repeat_key(task, self.config, self._host)
        return page

    async def _ended(self, task_id: int, wait: float) -> None:
        """Return once the task has ended, or after `wait` seconds. Raises NotFound."""
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
                        return
                    await asyncio.wait((end, closing), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    end.cancel()
        finally:
            closing.cancel()

    async def request(self, task_id: int) -> answers.RequestDocument:
        """What a task would send as things stand. Raises NotFound, Conflict."""
        task = await self._store.read(search.get(task_id))
        request = await request_of(task, self.config, self._host, self._clock)
        found = with_curl(request_json(request, self.config.redactor)) or {}
        return cast("answers.RequestDocument", found)

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

    async def trigger(self, task_id: int, *, force: bool = False) -> answers.TaskDocument:
        """Have a task tried now, before what else waits.

        `force`: also one that succeeded. Raises NotFound, Replaced, Overtaken, and Conflict, also
        where it would only wait or fail again, since its endpoint or webhook is gone or disabled.
        """
        asked = await self._store.read(search.get(task_id))
        if obstacle := self._worker.placement.obstacle(asked.key):
            raise Conflict(f"task {task_id} would not be sent: {obstacle.why}")
        task = await self._store.write(manual.trigger(task_id, force=force))
        if task.next_try is not None:
            self._worker.placement.touched(task.key, task.next_try)
            self._worker.try_now(task.key)
        now = self._clock.now_ms()
        self.publish(task_events.by_hand(EventType.TASK_TRIGGERED, task, now))
        return serialize.task_json(task, self.config.redactor)

    async def cancel(self, task_id: int) -> answers.TaskDocument:
        """Give a task up; one in flight is not tried again. Raises NotFound, Conflict, Replaced."""
        before = await self._store.read(search.get(task_id))
        task = await self._store.write(manual.cancel(task_id))
        if task.status in FINAL:
            self._worker.waiters.finished(task_id)
            if before.status != task.status:
                now = self._clock.now_ms()
                self.publish(task_events.by_hand(EventType.TASK_CANCELLED, task, now))
        return serialize.task_json(task, self.config.redactor)

    async def run(self, run_id: int, limit: int = 100) -> RunDocument:
        """A run, with up to `limit` of its tasks. Raises NotFound."""
        return await run_document(self._store, run_id, limit, self.config.redactor)

    async def newest_runs(
        self, *, limit: int = 100, after: int | None = None, status: str | None = None
    ) -> RunsDocument:
        """A page of runs, the newest first, below the id `after`."""
        redactor = self.config.redactor
        return await runs_document(self._store, limit, after or filters.MAX_ID, status, redactor)

    async def bulks(self) -> list[answers.BulkDocument]:
        """The latest bulks, the latest first."""
        return await self.many.newest()

    async def bulk(self, bulk_id: int) -> answers.BulkDocument:
        """A bulk. Raises NotFound."""
        return await self.many.get(bulk_id)

    # -- endpoints -----------------------------------------------------------------------------

    def declared(self, endpoint_id: str) -> Endpoint:
        """An endpoint of the configuration in force. Raises NotFound."""
        try:
            return self.config.endpoints[endpoint_id]
        except KeyError:
            raise NotFound.of("endpoint", endpoint_id) from None

    async def endpoints(self, ids: Iterable[str] | None = None) -> list[answers.EndpointDocument]:
        """These endpoints, or all of them, as they are declared and stand. Raises NotFound."""
        paused, runs = await self._store.read(manual.paused()), self._scheduler.next_runs()
        return [
            serialize.endpoint_json(one, one.id in paused, runs.get(one.id), self.config.redactor)
            for one in map(self.declared, self.config.endpoints if ids is None else ids)
        ]

    async def endpoint(self, endpoint_id: str) -> answers.EndpointDocument:
        """One endpoint. Raises NotFound."""
        return (await self.endpoints([endpoint_id]))[0]

    def waits(self, endpoint_id: str) -> list[dict[str, Any]]:
        """What lies between the attempts of a call of which every one fails. Raises NotFound."""
        delays = timetable(self.declared(endpoint_id).retry, lambda strategy, error: None)
        return [asdict(delay) for delay in delays]

    def runs(self, endpoint_id: str, count: int) -> list[str]:
        """The next runs of an endpoint's schedule. Raises NotFound."""
        found = upcoming_runs(self.declared(endpoint_id), self._clock.now_ms(), count)
        return [text for text in map(rfc3339, found) if text is not None]

    async def explain(self, endpoint_id: str, **asked: Any) -> answers.ExplanationDocument:
        """What would follow from an answer, by the configuration in force or by a draft of it.

        Args:
            endpoint_id: whose calls are explained.
            **asked: the keys of an `ExplainBody`.

        Raises:
            InvalidParams, NotFound, Conflict; ConfigError where a draft would be refused.
        """
        config, endpoint = self.config, self.declared(endpoint_id)
        immediate = self._host.registry.is_immediate(endpoint.type)
        body = read_body(ExplainBody, {"status_code": "ok", **asked} if immediate else asked)
        answer = body.answer()
        if body.draft:
            config = await self._drafted(endpoint_id, body.draft)
            endpoint = config.endpoints[endpoint_id]
        params = exemplary(endpoint, body.params, config.daemon.max_params)
        [problems] = await rule_problems(config, [NewTask("call", endpoint_id, params)])
        if problems:
            raise InvalidParams(problems)
        report = await Explainer(self._host, config, self._clock).explain(
            endpoint,
            params,
            attempt=body.attempt,
            answer=answer,
            phase=body.phase,
        )
        shown = report.document(config.redactor.merged(self.config.redactor))
        return cast("answers.ExplanationDocument", shown)

    async def _drafted(self, endpoint_id: str, draft: Mapping[str, Any]) -> Config:
        """The configuration as it would be with another list under one key of an endpoint's file.

        Raises InvalidParams, NotFound, ConfigError.
        """
        if len(draft) != 1:
            raise InvalidParams({"draft": "holds one list"})
        ((key, value),) = draft.items()
        edit = await self._edited(endpoint_id, key, value, etag="*", dry_run=True)
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

    async def lift(self, name: str, *, known: bool = False) -> bool:
        """Close the breaker of a scope, and end its waiting and its slower pace, for all daemons.

        Args:
            name: a lane (`api:shop`, `hooks.example.com:443`), the URL of deliveries as `status`
                shows it, `api/name`, or `api/name#webhook`.
            known: something has this name.

        Returns:
            Whether there was anything of it.

        Raises:
            NotFound: nothing has this name.
        """
        lifted = await self._fleet.throttles.lift(name)
        if not (lifted or known or self._is_scope(name)):
            raise NotFound.of("lane, URL, endpoint or webhook", name)
        return lifted

    def _is_scope(self, name: str) -> bool:
        config = self._worker.placement.config
        kind, _, rest = name.partition(":")
        return (
            name.partition("#")[0] in config.endpoints
            or (kind == "api" and rest in config.apis)
            or self._worker.feedback.knows(name, config.redactor)
        )

    # -- calling -------------------------------------------------------------------------------

    async def call(
        self,
        endpoint_id: str,
        params: Mapping[str, Any],
        *,
        text_params: Mapping[str, str] | None = None,
        delay: float = 0.0,
        at: int | None = None,
        key: str | None = None,
        once: Upsert | None = None,
    ) -> Accepted:
        """Make a call: it is on disk when this returns.

        Args:
            endpoint_id: `api/name`.
            params: by their names, as JSON values.
            text_params: more of them, as texts that become what the endpoint declares.
            delay: seconds until the first try.
            at: when that is due instead, milliseconds since the epoch.
            key: for 24 hours the same key at the same endpoint is the same call.
            once: see `Control.accept`; the id is 0 where it is there already.

        Raises:
            NotFound, Conflict (the endpoint is disabled), InvalidParams (also where a secret of
            the configuration would be stored), UniqueKeyReused, StorageFull.
        """
        texts = text_params or {}
        if twice := params.keys() & texts.keys():
            raise InvalidParams(dict.fromkeys(sorted(twice), "is given twice"))
        endpoint = callable_endpoint(self.config, endpoint_id)
        new = await fitted_call(self.config, endpoint, params, texts, delay=delay, at=at, key=key)
        await check_rules(self.config, new)
        [inserted] = await self._worker.enqueue.accept([replace(new, once=once) if once else new])
        if not inserted.duplicate or once is not None:
            return accepted(inserted)._replace(repeated=False)  # it may run already
        first = await self._store.read(search.get(inserted.id))
        return Accepted(first.id, first.status, repeated=True)

    async def call_batch(
        self,
        endpoint_id: str,
        batch: Sequence[Mapping[str, Any]],
        *,
        delay: float = 0.0,
        at: int | None = None,
        key: str | None = None,
    ) -> tuple[list[int], bool]:
        """Make many calls of one endpoint, all or none.

        `delay`, `at` and `key` are as of `call`; each call has a key of its own, this and its
        number. Returns their ids in the order of `batch`, and whether all had been made before.
        Raises what `call` raises; the names in InvalidParams begin with `batch.N.`, N from 0.
        """
        endpoint = callable_endpoint(self.config, endpoint_id)
        if len(batch) > MAX_BATCH:
            raise InvalidParams({"batch": f"holds {len(batch)} calls; {MAX_BATCH} are taken"})
        tasks: list[NewTask] = []
        problems: dict[str, str] = {}
        breathed = world.monotonic()
        for number, params in enumerate(batch):
            its_key = None if key is None else f"{key}/{number}"
            try:
                tasks.append(
                    await fitted_call(
                        self.config, endpoint, params, delay=delay, at=at, key=its_key
                    )
                )
            except InvalidParams as error:
                problems |= {f"batch.{number}.{name}": why for name, why in error.problems.items()}
                if len(problems) >= _MAX_PROBLEMS:
                    break
            if world.monotonic() - breathed > _AT_ONCE:
                await asyncio.sleep(0)
                breathed = world.monotonic()
        for number, wrong in enumerate([] if problems else await rule_problems(self.config, tasks)):
            problems |= {f"batch.{number}.{name}": why for name, why in wrong.items()}
        if problems:
            raise InvalidParams(problems)
        further = None if key is None else f"{key}/{len(batch)}"
        inserted = await self._worker.enqueue.accept(tasks, further) if tasks else []
        repeated = bool(inserted) and all(item.duplicate for item in inserted)
        return [item.id for item in inserted], repeated

    async def accept(
        self, endpoint_id: str, params: Mapping[str, Any], once: Upsert | None = None
    ) -> int | None:
        """Make a call of a plugin's; its id, None where the row `once` is there already."""
        return (await self.call(endpoint_id, params, once=once)).id or None

    async def checked_call(
        self,
        endpoint_id: str,
        params: Mapping[str, Any] | bytes,
        *,
        delay: float = 0.0,
        at: float | None = None,
        key: str | None = None,
    ) -> NewTask:
        """A call of a plugin's, checked and not made. See `Control.checked_call`."""
        if not delay <= MAX_DURATION:
            raise InvalidParams({"delay": "is more than ten years"})
        try:
            due = None if at is None else first_try(at)
        except ValueError as error:
            raise InvalidParams({"at": str(error)}) from None
        check_key(key, "key")
        if isinstance(params, bytes):
            large = len(params) > INLINE_BYTES
            params = await off_loop(json_value, params) if large else json_value(params)
        if not isinstance(params, Mapping):
            raise InvalidParams({"params": "expected a JSON object"})
        endpoint = callable_endpoint(self.config, endpoint_id)
        return await fitted_call(self.config, endpoint, params, delay=delay, at=due, key=key)

    async def accept_each(
        self, calls: Sequence[NewTask], rows: QueueRows | None = None, keys: Sequence[str] = ()
    ) -> list[Accepted | UniqueKeyReused | None]:
        """Make calls of a plugin's together, each by itself. See `Control.accept_each`."""
        return await self._worker.enqueue.accept_each(calls, rows, keys)

    async def waiting(self, endpoint_id: str, most: int) -> int:
        """How many calls of an endpoint wait, counted up to `most`."""
        return await self._store.read(search.waiting(endpoint_id, most))

    async def outbox(
        self, *, limit: int = 100, after: int | None = None, refused: bool | None = None
    ) -> Mapping[str, Any]:
        """A page of the outbox's rows, and the `next` after which there is more. See `Control`."""
        if (handler := self.routes.get(("GET", "/v1/outbox"))) is None:
            raise NotFound("no plugin that is loaded has an outbox")
        status = "" if refused is None else "refused" if refused else "waiting"
        query = {"limit": str(limit), "after": str(after or ""), "status": status}
        found: Mapping[str, Any] = (await handler(Asked({}, query, None, {}))).body
        return found

    # -- what was done manually ----------------------------------------------------------------

    async def record(self, who: str, action: Action) -> None:
        """Write down what `who` has done manually."""
        try:
            await self._store.write(manual.record_action(who, action))
        except OrchestratordError as error:
            # It is done: the client is not to think that it is not.
            log.error("cannot write to the action log that %s did %r: %s", who, action.name, error)

    async def actions(self, *, limit: int = 100, after: int | None = None) -> answers.ActionLog:
        """What was done manually, newest first; the number to go on after, None at the end."""
        found = await self._store.read(manual.newest_actions(limit + 1, after))
        following = found[limit - 1].id if len(found) > limit else None
        done = [serialize.done_json(one, self.config.redactor) for one in found[:limit]]
        return {"actions": done, "next": following}

    # -- what plugins keep and tell ------------------------------------------------------------

    async def rows(
        self,
        table: str,
        where: Mapping[str, Any] = MappingProxyType({}),
        *,
        after: Mapping[str, Any] = MappingProxyType({}),
        order: str | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """The rows of a plugin's table. See `Control.rows`. Raises InvalidParams."""
        check_texts({**where, **after})
        return await plugin_rows.rows(self._store, table, where, after, order, limit)

    async def write(
        self,
        effects: Sequence[Effect],
        events: Sequence[Event] = (),
        expected: Sequence[Upsert] = (),
    ) -> list[int]:
        """Write in one transaction, with what `on_event` returns of `events`; the ids of the new
        tasks among `effects`, in order. See `Control`. Raises HookFault for what is larger than
        what a hook may return, InvalidParams for a text of a row that cannot be stored, and for
        whatever else of `effects` is not written what the database says."""
        check_sizes(effects, self.config.daemon.max_params)
        for one in effects:
            if isinstance(one, Upsert):
                check_texts({**one.key, **one.values})
        config, now = self._worker.placement.config, self._clock.now_ms() / 1000
        told = (self._host.record(event, config, now) for event in events)
        whole = [*effects, *chain.from_iterable(told)]
        ids = await self._worker.enqueue.write(whole, expected, len(effects))
        tables = self._host.registry.tables
        changed = (tables.get(one.table) for one in whole if isinstance(one, Upsert | Delete))
        if any(table is not None and table.adopted for table in changed):
            self._store.tell("tables")
        return ids[: sum(isinstance(effect, NewTask) for effect in effects)]

    def ago(self, seconds: float) -> int:
        """The time so many seconds ago. See `Control.ago`."""
        return self._clock.before(seconds)

    def begin_trouble(self, code: str, why: str) -> None:
        """The daemon cannot do all of its work. See `Control.begin_trouble`."""
        self._store.health.begin(code, self.config.redactor.text(why))

    def end_trouble(self, code: str) -> None:
        """It can again."""
        self._store.health.end(code)

    async def trim(
        self, reason: str, keeps: Callable[[str, str], tuple[float, int] | None]
    ) -> Mapping[tuple[str, str], int]:
        """Delete the oldest deliveries that failed for a reason. See `Control.trim`."""
        deleted = await prune.trim(self._store, reason, lambda key: keeps(*key))
        return {(key.endpoint_id, key.webhook): count for key, count in deleted.items()}

    async def retry_all(
        self,
        filter: Mapping[str, Any],  # noqa: A002
        *,
        force: bool = False,
    ) -> answers.SurveyDocument | answers.BegunBulk:
        """Have all tasks tried that a filter matches. See `Control`."""
        return await self.many.begin(RETRY, filter, force=force)

    def publish(self, event: Event) -> None:
        """Tell of what happened, once it is written."""
        self._host.events.publish(event)

    def standing_changed(self, endpoint_id: str, webhook: str | None = None) -> None:
        """Look again at where the tasks of an endpoint, or of one webhook, stand."""
        self._worker.placement.standing_changed(endpoint_id, webhook)

    # -- what stands in the files --------------------------------------------------------------

    async def declaration(self, endpoint_id: str, key: str) -> Declaration:
        """What the endpoint's file says under a key that is united by name."""
        editor = self._host.registry.editor[1]
        return await self._asked(Declaration, editor.declaration, endpoint_id, key)

    async def _edited(self, endpoint_id: str, key: str, value: Any, **how: Any) -> Edit:
        editor = self._host.registry.editor[1]
        return await self._asked(Edit, editor.edit, endpoint_id, key, value, **how)

    async def _asked(
        self, kind: type[T], function: Callable[..., T], endpoint_id: str, *about: Any, **how: Any
    ) -> T:
        """Have the plugin that edits files do something with an endpoint's, in a thread."""
        file = await asyncio.to_thread(self._reloader.endpoint_file, endpoint_id)
        fault, found = await contained(asyncio.to_thread(function, file, *about, **how))
        if fault is None and not isinstance(found, kind):
            fault = HookFault(f"returned {type(found).__name__}, which is no {kind.__name__}")
        if fault is None:
            return cast("T", found)
        if isinstance(fault, OrchestratordError):
            raise fault
        plugin = self._host.registry.editor[0]
        self._host.fault(plugin, "register_editor", fault)
        raise PluginError(f"the plugin {plugin} failed; the daemon's log says more") from fault

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
            if not dry_run:
                self._reloader.insist()
            edit = await self._edited(endpoint_id, key, value, etag=etag, dry_run=dry_run)
            if dry_run:
                return edit
            if not edit.written:
                return replace(edit, generation=self.config.generation)
            refused: tuple[Problem, ...] = ()
            try:
                refused = (await self._reloader.reload(COMMAND)).problems
            except (Stopping, QueueError) as error:  # the next look takes it up
                refused = (Problem(f"it is written, but not in force yet: {error}"),)
        generation = self.config.generation
        log.info(
            "%s of %s written to %s by %s, generation %d",
            key, endpoint_id, edit.declaration.file, who or "a plugin", generation,
            extra={"endpoint": endpoint_id, "caller": who},
        )  # fmt: skip
        return replace(edit, generation=generation, refused=refused)

    # -- who fails -----------------------------------------------------------------------------

    async def failing(self) -> FailingKeys:
        """The endpoints and webhooks that fail now, the latest failure first, and how many do.

        Where long lists keep it from being looked up, it is what was known before. Raises
        Unreachable.
        """
        looked = await self._failing.latest(failing.failing())
        found = [item for item in looked.keys if self._stands(item.key)]
        webhooks = sum(bool(item.key.webhook) for item in found)
        return {
            "failing": [_failing(item, self.config.redactor) for item in found[:MAX_FAILING]],
            "failing_counts": {"call": len(found) - webhooks, "webhook": webhooks},
        }

    def _stands(self, key: Key) -> bool:
        """Whether the endpoint or webhook is still declared."""
        known = self._worker.placement.config.endpoints
        if key.endpoint_id not in known and key.endpoint_id not in self.own_endpoints:
            return False
        standing = self._worker.placement.of(key)
        return not (isinstance(standing, Doomed) and standing.reason in _GONE)

    # -- what there is -------------------------------------------------------------------------

    async def grouped(
        self,
        filter: Mapping[str, Any],  # noqa: A002
        by: Sequence[str] = DEFAULT_BY,
    ) -> GroupsDocument:
        """How many tasks there are of each group. See `Control.grouped`."""
        wanted = filters.read_filter(filter, self._clock.now_ms(), self.own_endpoints)
        for name in by:
            if name not in grouped.COLUMNS:
                known = ", ".join(grouped.COLUMNS)
                hint = suggest(name, grouped.COLUMNS) or f"; by {known}"
                raise InvalidParams({"by": f"tasks are not grouped by {name!r}{hint}"})
        if not by or len(set(by)) < len(by):
            raise InvalidParams({"by": "names each grouping once"})
        found = await self._store.read(grouped.grouped(wanted, by))
        mask = self.config.redactor.value
        groups = [
            {**dict(zip(by, map(mask, group.values), strict=True)), "tasks": group.tasks}
            for group in found.groups
        ]
        return {"groups": cast("list[GroupDocument]", groups), "complete": found.complete}

    async def backlog(self, keys: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
        """What waits of endpoints and webhooks. See `Control.backlog`."""
        found = await self._store.read(backlog.backlog([Key(*key) for key in keys]))
        return [{"waiting": item.tasks, "oldest": rfc3339(item.oldest)} for item in found.values()]

    async def batch(self, batch_id: int, limit: int = 100, after: int = 0) -> BatchPageDocument:
        """What a batch tells of. See `Control.batch`."""
        found = await self._store.read(batch_page.batch_page(batch_id, limit, after))
        mask = self.config.redactor
        return serialize.document(
            BatchPageDocument,
            found,
            mask,
            count=found.total,
            members=[_member(one, mask) for one in found.members],
        )

    # -- what plugins bring for others -----------------------------------------------------------

    def metrics(self) -> list[MetricSamples]:
        """What plugins count and measure, as it is now."""
        return list(plugin_metrics(self._host))

    def pages(self) -> list[Page]:
        """The pages that plugins have beside those of the dashboard."""
        return list(contained_pages(self._host, self))

    # -- schedules and successes ---------------------------------------------------------------

    async def schedules(self) -> list[ScheduleDocument]:
        """All schedules that are declared, by their endpoints."""
        config, next_runs = self._worker.placement.config, self._scheduler.next_runs()
        runs = await self._store.read(backlog.schedule_runs())
        missed = await self._store.read(backlog.missed_slots())
        paused, redactor = await self._store.read(manual.paused()), self.config.redactor
        found: list[ScheduleDocument] = []
        for name, endpoint in sorted(config.endpoints.items()):
            if endpoint.schedule is None:
                continue
            run, late = runs.get(name), missed.get(name)
            slot = None if run is None or run.task_id is None else run.slot or run.last_slot
            found.append(
                {
                    "endpoint": name,
                    "schedule": redactor.value(endpoint.shown.get("schedule")),
                    "enabled": endpoint.enabled,
                    "paused": name in paused,
                    "next_run": rfc3339(next_runs.get(name)),
                    "last_run": rfc3339(slot),
                    "task": run and run.task_id,
                    "status": run and run.status,
                    "reason": run and run.reason,
                    "status_code": run and run.status_code,
                    "finished_at": rfc3339(run and run.finished_at),
                    "last_success_at": rfc3339(self._worker.stats.last_success.get(name)),
                    "missed": late and serialize.document(MissedDocument, late, redactor),
                }
            )
        return found

    def last_successes(self) -> dict[str, float]:
        """When each endpoint's last call began that succeeded. See `Control.last_successes`."""
        endpoints = self._worker.placement.config.endpoints
        known = self._worker.stats.last_success
        return {name: at / 1000 for name, at in known.items() if name in endpoints}
