"""What is said of all tasks at once: the part of the service that reads it from the table."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

from orchestratord.api import filters
from orchestratord.api.daemon_documents import FailingKeys, FailingStatus
from orchestratord.api.reports.report_documents import (
    BatchMemberDocument,
    BatchPageDocument,
    GroupDocument,
    GroupsDocument,
    MissedDocument,
    ScheduleDocument,
)
from orchestratord.engine.scheduler import Scheduler
from orchestratord.engine.worker import Worker
from orchestratord.errors import InvalidParams
from orchestratord.model.endpoint import OWN_ENDPOINT
from orchestratord.model.task import Key, Reason
from orchestratord.plugin.executor import Doomed
from orchestratord.queue.operations import manual
from orchestratord.queue.operations.schedules import MissedSlots
from orchestratord.queue.reports import backlog, batch_page, failing, grouped
from orchestratord.queue.store import Store
from orchestratord.values.clock import Clock, rfc3339
from orchestratord.values.redact import Redactor
from orchestratord.values.suggest import suggest

MAX_FAILING = 20
"""Endpoints and webhooks that are named as failing, the latest ones."""
DEFAULT_BY = ("endpoint", "reason", "status_code")
_LOOK_WAIT = 1.0
"""Seconds for which that look is waited for."""
_SHARE = 20
"""Who fails is looked up again after so many times the time that the last look took."""
_GONE = (Reason.ENDPOINT_REMOVED, Reason.WEBHOOK_REMOVED)


class ReportService:
    """Reads what is to be said, and masks what is secret."""

    def __init__(self, store: Store, worker: Worker, scheduler: Scheduler, clock: Clock) -> None:
        self._store = store
        self._worker = worker
        self._scheduler = scheduler
        self._clock = clock
        self._failing: list[failing.FailingKey] = []
        self._looking: asyncio.Task[None] | None = None
        self._look_again = 0.0

    @property
    def _redactor(self) -> Redactor:
        return self._worker.placement.config.redactor

    # -- who fails -----------------------------------------------------------------------------

    async def failing(self) -> FailingKeys:
        """The endpoints and webhooks that fail now, the latest failure first, and how many do.

        Where long lists keep it from being looked up, it is what was known before. Raises
        Unreachable.
        """
        if self._looking is None and time.monotonic() >= self._look_again:
            self._looking = asyncio.create_task(self._look())
        if (looking := self._looking) is not None:
            await asyncio.wait((looking,), timeout=_LOOK_WAIT)
            if looking.done():
                self._looking = None if self._looking is looking else self._looking
                # Its thread may be the one for which there is no memory: the rest is still said.
                with suppress(MemoryError, RuntimeError):
                    looking.result()
        found = [item for item in self._failing if self._stands(item.key)]
        webhooks = sum(bool(item.key.webhook) for item in found)
        return {
            "failing": [_failing(item, self._redactor) for item in found[:MAX_FAILING]],
            "failing_counts": {"call": len(found) - webhooks, "webhook": webhooks},
        }

    async def _look(self) -> None:
        began = time.monotonic()
        self._failing = (await self._store.read(failing.failing())).keys
        now = time.monotonic()
        self._look_again = now + (now - began) * _SHARE

    def _stands(self, key: Key) -> bool:
        """Whether the endpoint or webhook is still declared."""
        known = self._worker.placement.config.endpoints
        if key.endpoint_id not in known and key.endpoint_id != OWN_ENDPOINT:
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
        wanted = filters.read_filter(filter, self._clock.now_ms())
        for name in by:
            if name not in grouped.COLUMNS:
                known = ", ".join(grouped.COLUMNS)
                hint = suggest(name, grouped.COLUMNS) or f"; by {known}"
                raise InvalidParams({"by": f"tasks are not grouped by {name!r}{hint}"})
        if not by or len(set(by)) < len(by):
            raise InvalidParams({"by": "names each of what tasks are grouped by once"})
        found = await self._store.read(grouped.grouped(wanted, by))
        mask = self._redactor.value
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
        mask = self._redactor
        return {
            "id": found.id,
            "endpoint": mask.text(found.endpoint_id),
            "webhook": mask.text(found.webhook),
            "phase": found.phase,
            "opened_at": rfc3339(found.opened_at),
            "closed_at": rfc3339(found.closed_at),
            "count": found.total,
            "delivery": found.delivery_id,
            "members": [_member(one, mask) for one in found.members],
            "next": found.next,
        }

    # -- schedules and successes ---------------------------------------------------------------

    async def schedules(self) -> list[ScheduleDocument]:
        """All schedules that are declared, by their endpoints."""
        config, next_runs = self._worker.placement.config, self._scheduler.next_runs()
        runs = await self._store.read(backlog.schedule_runs())
        missed = await self._store.read(backlog.missed_slots())
        paused = await self._store.read(manual.paused())
        found: list[ScheduleDocument] = []
        for name, endpoint in sorted(config.endpoints.items()):
            if endpoint.schedule is None:
                continue
            run = runs.get(name)
            slot = None if run is None or run.task_id is None else run.slot or run.last_slot
            found.append(
                {
                    "endpoint": name,
                    "schedule": self._redactor.value(endpoint.shown.get("schedule")),
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
                    "missed": _missed(missed.get(name)),
                }
            )
        return found

    def last_successes(self) -> dict[str, float]:
        """When each endpoint's last call began that succeeded. See `Control.last_successes`."""
        endpoints = self._worker.placement.config.endpoints
        known = self._worker.stats.last_success
        return {name: at / 1000 for name, at in known.items() if name in endpoints}


def _failing(item: failing.FailingKey, redactor: Redactor) -> FailingStatus:
    return {
        "endpoint": redactor.text(item.key.endpoint_id),
        "webhook": redactor.text(item.key.webhook) or None,
        "failures": item.failures,
        "failed": item.failed,
        "waiting": item.waiting,
        "complete": item.complete,
        "since": rfc3339(item.since),
        "last": rfc3339(item.last),
        "reason": item.reason,
        "status_code": item.status_code,
        "error": item.error and redactor.text(item.error),
    }


def _member(one: batch_page.PageMember, redactor: Redactor) -> BatchMemberDocument:
    event: Any = None
    with suppress(ValueError, RecursionError):  # an edit of the table may have left anything
        event = redactor.value(json.loads(one.detail or "null"))
    return {
        "at": rfc3339(one.at),
        "endpoint": redactor.text(one.endpoint_id),
        "task": one.task_id,
        "reason": one.reason,
        "status_code": one.status_code,
        "event": event if isinstance(event, dict) else None,
    }


def _missed(missed: MissedSlots | None) -> MissedDocument | None:
    if missed is None:
        return None
    return {
        "slots": missed.slots,
        "first": rfc3339(missed.first),
        "last": rfc3339(missed.last),
        "noticed_at": rfc3339(missed.noticed_at),
        "ran": missed.ran,
    }
