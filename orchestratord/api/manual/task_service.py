"""What people do to one task beside retrying it as it is: a part of the service."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx

from orchestratord.api import answer_documents as answers
from orchestratord.api import serialize
from orchestratord.api.filters import IN_BULK
from orchestratord.engine import task_events
from orchestratord.engine.attempt_in_progress import AttemptResult
from orchestratord.engine.call_tree import begins_run, is_run, run_of
from orchestratord.engine.new.enqueue import callable_endpoint, check_rules, fitted_call
from orchestratord.engine.retry import Decision
from orchestratord.engine.settle.settlement_of import settlement_of
from orchestratord.engine.stored_answer import error_record
from orchestratord.engine.worker import Worker
from orchestratord.errors import Conflict, InvalidParams
from orchestratord.model.event import EventType
from orchestratord.model.outcome import Outcome
from orchestratord.model.task import RESOLVED, Attempt, Kind, Reason, Status, Task
from orchestratord.model.test_case import FakeAnswer
from orchestratord.plugin.executor import Executor, Target
from orchestratord.plugin.host import Reached
from orchestratord.plugin.isolation import HookFault, is_ctrl_c
from orchestratord.plugin.long_work import bounded
from orchestratord.queue.operations import manual, partitions, search
from orchestratord.queue.records import RESOLVE, Bulk, StoredEffect
from orchestratord.simulate.fake_answer import outcome_of

log = logging.getLogger("orchestratord.control")


class TaskService:
    """Retries a task with other parameters, and ends one as a person says."""

    def __init__(self, worker: Worker) -> None:
        self._store = worker.store
        self._worker = worker
        self._host = worker.host
        self._clock = worker.clock

    # -- other parameters ----------------------------------------------------------------------

    async def replace(
        self,
        task_id: int,
        params: Mapping[str, Any],
        text_params: Mapping[str, str],
        *,
        force: bool = False,
    ) -> answers.TaskDocument:
        """Make a call as another one that has ended, with some parameters changed; the new task,
        which is a child of that, and takes its place in an ordered partition.

        Args:
            task_id: the one that is replaced.
            params: those that change, by their names, as JSON values.
            text_params: more of them, as texts that become what the endpoint declares.
            force: also where it has succeeded, or would come out of order.

        Raises:
            NotFound, Conflict, Replaced, Overtaken; InvalidParams also where the new task would be
            of another partition, and that is ordered.
        """
        config = self._worker.placement.config
        old = await self._store.read(search.get(task_id))
        if old.kind != Kind.CALL:
            why = "is a delivery: it sends what was rendered when its event happened"
            raise InvalidParams({"params": f"task {task_id} {why}"})
        old.check_readable()
        endpoint = callable_endpoint(config, old.endpoint_id)
        changed = params.keys() | text_params.keys()
        kept = {name: value for name, value in old.params.items() if name not in changed}
        new = await fitted_call(config, endpoint, {**kept, **params}, text_params)
        await check_rules(config, new)
        new = replace(new, depth=old.depth, scheduled_at=old.scheduled_at, run_id=old.run_id)
        task = await self._store.write(partitions.replace(task_id, new, force=force))
        self._worker.placement.touched(task.key, task.next_try or self._clock.now_ms())
        self._worker.try_now(task.key)
        now = self._clock.now_ms()
        self._host.events.publish(task_events.by_hand(EventType.TASK_CREATED, task, now))
        return serialize.task_json(task, config.redactor)

    # -- how it ended --------------------------------------------------------------------------

    async def resolve(
        self,
        task_id: int,
        status: str,
        *,
        note: str | None = None,
        body: Any = None,
        bulk: Bulk | None = None,
    ) -> answers.TaskDocument:
        """End a task that waits or has failed, as if the answer had come: hooks are told, and what
        follows is written with it. One that has failed and is to stay so only gets its reason.

        Args:
            task_id: which one.
            status: `succeeded` or `failed`.
            note: why, for the timeline of the task.
            body: of the answer, as JSON has it, or a text; None for an empty one.
            bulk: the one that resolves it, if one does; only while its filter names the status.

        Raises:
            NotFound; Replaced; Conflict where it runs, has succeeded or is cancelled; InvalidParams
            where an answer with this body would be no success, or the note holds a secret of the
            configuration, which would be stored.
        """
        redactor = self._worker.placement.config.redactor
        if problems := redactor.problems_in({"note": note}):
            raise InvalidParams(problems)
        task = await self._store.read(search.get(task_id))
        if task.status not in (bulk.filter.status if bulk else IN_BULK[RESOLVE][1]):
            raise Conflict(f"task {task_id} is {task.status}; only pending and failed are resolved")
        config, now = self._worker.placement.config, self._clock.now_ms()
        standing, executor = self._worker.placement.look(task.key)
        target = standing if isinstance(standing, Target) else None
        words = f"{RESOLVED} as {status}{f': {note}' if note else ''}"
        if status == Status.SUCCEEDED:
            outcome = await self._answered(task, executor, target, body)
            decision = Decision(Status.SUCCEEDED, words, Reason.RESOLVED)
        else:
            error = task.last_error or words
            outcome = Outcome("failure", "error", _response(body), error)
            decision = Decision(Status.FAILED, words, Reason.RESOLVED)
        code = outcome.status_code if status == Status.SUCCEEDED else None
        row = Attempt(task.attempts, now, 0.0, code, None, None, words)
        result = AttemptResult(decision, outcome, row)
        if task.status != status:
            result.endpoint = config.endpoints.get(task.endpoint_id)
            if executor is not None and not executor.immediate:
                result.after = executor.phases[1]
            try:
                await self._worker.pipe.hooks.ask(task, result, config)
            except HookFault as fault:
                raise Conflict(f"task {task_id} cannot be resolved yet: {fault}") from fault
        return await self._write(task, result, target, bulk.id if bulk else None)

    async def _answered(
        self, task: Task, executor: Executor | None, target: Target | None, body: Any
    ) -> Outcome:
        """A success with this body, as the executor judges an answer that has it."""
        plain = Outcome("success", 200, _response(body or ""), answered=True)
        if executor is None or target is None:
            return plain
        code = 200 if executor.phases[0] == "before_request" else "ok"
        try:
            task.check_readable()
            request = await bounded(
                task.is_large, executor.prepare, task, target, self._clock.now()
            )
            answer = FakeAnswer.model_validate({"status_code": code, "body": body})
            outcome = await outcome_of(executor, request, task, target, answer)
        except Exception as error:  # an executor may be a plugin's
            if is_ctrl_c(error):
                raise
            log.info("task %s is resolved without its request: %s", task.id, error)
            request, outcome = None, replace(plain, status_code=code)
        after = executor.phases[1]
        if outcome.verdict == "success" and self._host.concerned(after, task.kind, target.endpoint):
            # What is to follow from it may not be found in this body: nothing is to be lost so.
            config = self._worker.placement.config
            reached = Reached(task, target.endpoint, config, outcome, request)
            outcome = await self._host.fold_after(after, reached)
        if outcome.verdict != "success":
            why = outcome.error or f"it is taken for a {outcome.verdict}"
            raise InvalidParams({"body": f"an answer with this body is no success: {why}"})
        return outcome

    async def _write(
        self, task: Task, result: AttemptResult, target: Target | None, bulk_id: int | None
    ) -> answers.TaskDocument:
        pipe, config, now = self._worker.pipe, self._worker.placement.config, self._clock.now_ms()
        items: list[StoredEffect] = []
        if result.effects:
            items = await pipe.new_tasks.items(result.effects, run_id=run_of(task))
        settlement = settlement_of(task, result, config, target, items, now)
        if task.status != settlement.status:
            ends_run = is_run(task, settlement.status, self._host, config)
            settlement.begins_run = begins_run(task, items) or ends_run
        settlement.last_success_at = None
        if task.kind == Kind.CALL and settlement.status == Status.SUCCEEDED:
            settlement.last_success_at = task.started_at  # where it was sent at all
        if settlement.status == Status.FAILED:
            # What the last attempt came to stays; nothing was sent since.
            settlement.status_code = task.last_status_code
            settlement.error = error_record(task.last_error or result.decision.why, config.redactor)
        resolved, inserted = await self._store.write(manual.resolve(settlement, bulk_id))
        if items:
            await pipe.new_tasks.written(items, inserted)
        if settlement.last_success_at is not None:
            await self._worker.learn_last_success()
        self._worker.waiters.finished(task.id)
        if task.status != resolved.status:
            self._host.events.publish(task_events.resolved(settlement))
        return serialize.task_json(resolved, config.redactor)


def _response(body: Any) -> httpx.Response | None:
    if body is None:
        return None
    if isinstance(body, str):
        return httpx.Response(200, content=body.encode())
    return httpx.Response(200, content=json.dumps(body).encode())
