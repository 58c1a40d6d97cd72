"""Many tasks retried, cancelled or resolved: a part of the service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchestratord.api import answer_documents as answers
from orchestratord.api import filters, serialize
from orchestratord.api.manual.bulk_runner import BulkRunner
from orchestratord.engine.worker import Worker
from orchestratord.errors import InvalidParams
from orchestratord.model.event import EventType
from orchestratord.model.task import Key
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.records import RETRY
from orchestratord.queue.reports.grouped import grouped
from orchestratord.values.redact import Redactor

MAX_BULKS = 20
"""That are listed."""
EXAMPLES = 5
"""Tasks that a dry run names."""


class BulkService:
    """Begins bulks, steers them, and says how they go."""

    def __init__(self, worker: Worker) -> None:
        self.runner = BulkRunner(worker)
        """Takes the steps of the chores of bulks."""
        self._store = worker.store
        self._worker = worker

    @property
    def _redactor(self) -> Redactor:
        return self._worker.placement.config.redactor

    async def begin(
        self,
        action: str,
        filter: Mapping[str, Any],  # noqa: A002
        *,
        rate: float | None = None,
        dry_run: bool = False,
        include_ambiguous: bool = False,
        stop_after: int = 0,
        force: bool = False,
        resolution: Mapping[str, Any] | None = None,
    ) -> answers.SurveyDocument | answers.BegunBulk:
        """Have every task tried, given up or ended that the filter matches.

        Args:
            action: `RETRY` or `RESOLVE`, of every failed task where the filter names no status; or
                `CANCEL`, of every one that waits.
            filter: by the names of the parameters of `GET /v1/retries`.
            rate: tasks a second at most.
            dry_run: only count them; nothing is written down.
            include_ambiguous: retry also what failed for one of `DOUBTFUL`; they are left out else,
                unless the filter names reasons, or the tasks themselves.
            stop_after: failures after which the bulk pauses; 0 for never.
            force: repeat what has succeeded too, where the filter says so.
            resolution: of `RESOLVE`, as in `Bulk`.

        Returns:
            `matched`, the `bulk` (its id; None for a dry run), what is `left_out` by reason, and
            for a dry run the `counts` by reason and endpoint, with `examples`.

        Raises:
            InvalidParams: the filter is empty, names what cannot be done in bulk, or it or the note
                holds a secret of the configuration, which would be stored.
        """
        wanted = filters.read_bulk_filter(
            action,
            filter,
            self._worker.clock.now_ms(),
            self._worker.host.registry.own_endpoints,
            include_ambiguous=include_ambiguous,
            force=force,
        )
        told = {f"filter.{name}": filter[name] for name in filter.keys() - {"id", "parent", "bulk"}}
        told["note"] = (resolution or {}).get("note")
        if not dry_run and (problems := self._redactor.problems_in(told)):
            raise InvalidParams(problems)
        survey = await self._store.read(bulks.survey(wanted))
        if dry_run:
            examples = await self._store.read(bulks.examples(survey, EXAMPLES))
            if action == RETRY:
                survey = await self._to_send(survey)
            return serialize.survey_json(survey, examples, self._redactor)
        bulk = await self._store.write(bulks.create(action, survey, rate, stop_after, resolution))
        self.runner.publish(EventType.BULK_BEGAN, bulk)
        return {"matched": bulk.matched, "bulk": bulk.id, "left_out": dict(survey.left_out)}

    async def _to_send(self, survey: bulks.Survey) -> bulks.Survey:
        """Without those of keys whose tasks a retry skips, such as those of disabled webhooks."""
        counts, left_out = Counter(survey.counts), Counter(survey.left_out)
        found = await self._store.read(grouped(survey.filter, ("reason", "endpoint", "webhook")))
        for (reason, endpoint, webhook), tasks in found.groups:
            if obstacle := self.runner.obstacle(Key(endpoint, webhook or "")):
                counts[reason, endpoint] -= tasks
                left_out[obstacle] += tasks
        return replace(survey, counts=+counts, left_out=left_out)

    async def newest(self) -> list[answers.BulkDocument]:
        """The latest ones, the latest first."""
        found = await self._store.read(bulks.newest(MAX_BULKS))
        return [serialize.bulk_json(bulk, self._redactor) for bulk in found]

    async def get(self, bulk_id: int) -> answers.BulkDocument:
        """One of them. Raises NotFound."""
        return serialize.bulk_json(await self._store.read(bulks.get(bulk_id)), self._redactor)

    async def cancel(self, bulk_id: int) -> answers.BulkDocument:
        """Move no more tasks; those that were moved stay so. Raises NotFound."""
        before = await self._store.read(bulks.row_of(bulk_id))
        bulk = await self._store.write(bulks.cancel(bulk_id))
        if bulk.status != before.status:
            self.runner.publish(EventType.BULK_CANCELLED, bulk)
        return await self.get(bulk_id)

    async def resume(self, bulk_id: int) -> answers.BulkDocument:
        """Have one that has paused go on. Raises NotFound, Conflict."""
        bulk = await self._store.write(bulks.resume(bulk_id))
        self.runner.publish(EventType.BULK_RESUMED, bulk)
        return await self.get(bulk_id)
