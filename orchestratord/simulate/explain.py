"""What an attempt of a call would send, what would become of it, and what would follow.

Nothing is sent, written or remembered. The request comes from the executor, the verdict from its
judgement of a fake answer, the decision from `engine.retry`, and what follows from the hook
`explain`. Of deciding hooks only those are run that are marked `@pure`; what others do is theirs to
say, and they are only named.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, cast

from orchestratord.engine.answer_rules import answer_rules
from orchestratord.engine.call_tree import outcome_of_run
from orchestratord.engine.new.call_partition import with_partition
from orchestratord.engine.retry import Decision
from orchestratord.engine.retry_delay import Fault, base_delay
from orchestratord.errors import Conflict, InvalidPayload, NotFound, Reject
from orchestratord.http.answer_view import AnswerView, look
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.outcome import Outcome
from orchestratord.model.partition_turn import PartitionTurn
from orchestratord.model.settings import Config
from orchestratord.model.task import (
    Explanation,
    Kind,
    NewTask,
    Reason,
    Status,
    Task,
    run_of_one,
    task_made_of,
)
from orchestratord.model.test_case import FakeAnswer
from orchestratord.plugin.executor import Executor, Parked, Standing, Target
from orchestratord.plugin.hookspecs import END_PHASES, RUN_END
from orchestratord.plugin.host import Host, Reached
from orchestratord.plugin.isolation import HookFault, words
from orchestratord.plugin.long_work import bounded
from orchestratord.simulate.fake_answer import outcome_of
from orchestratord.simulate.report import Consequence, Found, Report
from orchestratord.simulate.timetable import decide_within
from orchestratord.values.budget import Budget
from orchestratord.values.clock import Clock
from orchestratord.values.jmespath_expression import Expression
from orchestratord.values.json_body import INLINE_BYTES

HOOK = "explain"
TASK_ID = 0
"""The number of a task that does not exist."""


class Explainer:
    """Answers for one configuration."""

    def __init__(self, host: Host, config: Config, clock: Clock) -> None:
        self._host = host
        self._config = config
        self._clock = clock

    def target(self, endpoint: Endpoint, webhook: str = "") -> tuple[Executor, Target]:
        """What carries out the calls of an endpoint, or the deliveries of one of its webhooks.

        Raises Conflict where nothing would, as things stand.
        """
        kind = Kind.WEBHOOK if webhook else Kind.CALL
        executor = self._host.registry.executor(kind, endpoint.type)
        if executor is None:
            raise Conflict(f"no plugin that is loaded carries out {kind} tasks of {endpoint.id}")
        standing: Standing = executor.standing(endpoint, webhook, self._config)
        if not isinstance(standing, Target):
            waits = "wait" if isinstance(standing, Parked) else "fail"
            raise Conflict(f"its tasks {waits}: {standing.why}")
        return executor, standing

    async def explain(
        self,
        endpoint: Endpoint,
        params: Mapping[str, Any],
        *,
        attempt: int = 1,
        answer: FakeAnswer | None = None,
        phase: str | None = None,
        now: float | None = None,
    ) -> Report:
        """Explain one attempt.

        Args:
            endpoint: what is called.
            params: checked, with defaults filled in.
            attempt: which one it is, from 1.
            answer: what is supposed to come back; None: the attempt is not followed further.
            phase: explain what follows from this one alone, whether it is reached or not.
            now: when it is supposed to happen, in seconds since the epoch; the clock's time.

        Raises Conflict where the endpoint's calls are not carried out at all, as things stand.
        """
        executor, target = self.target(endpoint)
        if executor.immediate and answer is None:
            answer = FakeAnswer(status_code="ok")
        new = NewTask(Kind.CALL, endpoint.id, params, max_attempts=target.retry.max_attempts)
        new = await with_partition(new, self._config)
        notes = [] if new.error is None else [f"such a call is refused: {new.error}"]
        moment, fault = self._clock.now() if now is None else now, _noting(notes)
        # Earlier attempts, if any, were as far apart as the strategy says.
        waited = sum(base_delay(target.retry, n, fault)[0] for n in range(1, attempt))
        task = _running(new, moment, attempt, waited, idempotent=endpoint.idempotent)
        request, outcome = cast("Any", None), cast("Outcome | None", None)
        decision, span = cast("Decision | None", None), cast("tuple[float, float] | None", None)
        try:
            request = await bounded(task.is_large, executor.prepare, task, target, moment)
        except (InvalidPayload, Reject) as error:
            outcome, decision = _unprepared(error)
            reached: tuple[str, ...] = ("on_final_failure",)
        except Exception as error:  # an executor may be a plugin's
            raise Conflict(f"its request cannot be prepared: {words(error)}") from error
        else:
            reached = executor.sending_phases[:1]
            if answer is not None:
                outcome = await outcome_of(executor, request, task, target, answer)
                if not outcome.look:  # no hook sees one
                    at_end = Reached(task, endpoint, self._config, outcome, request)
                    outcome = await self._hooked(executor, at_end, notes)
                decision, span = decide_within(task, target, outcome, moment, fault)
                if not outcome.look:
                    reached = (*executor.sending_phases, END_PHASES[decision.status])
        if outcome is not None and decision is not None:
            task, outcome = _settled(task, outcome, decision)
        asked = (phase,) if phase else reached
        about = _ended(phase, task, outcome, moment) | {"request": request, "endpoint": endpoint}
        large = task.is_large or _is_large(outcome)
        consequences = await bounded(large, self._consequences, asked, task, about, notes)
        return Report(
            endpoint=endpoint,
            task=task,
            target=target,
            request=request,
            hooks=self.impure(endpoint),
            outcome=outcome,
            decision=decision,
            span=span,
            reached=reached,
            asked=asked,
            consequences=consequences,
            expressions=await _found(target, outcome),
            notes=tuple(dict.fromkeys(notes)),
        )

    def impure(self, endpoint: Endpoint) -> dict[str, tuple[str, ...]]:
        """Each phase around the sending of an endpoint's calls → the plugins whose hooks decide in
        the daemon, and are not run here."""
        executor = self._host.registry.executor(Kind.CALL, endpoint.type)
        return {
            phase: tuple(
                hook.plugin
                for hook in self._host.concerned(phase, Kind.CALL, endpoint) or ()
                if not (hook.pure and phase.startswith("after_"))
            )
            for phase in (executor.sending_phases if executor else ())
        }

    # -- within ----------------------------------------------------------------------------

    async def _hooked(self, executor: Executor, reached: Reached, notes: list[str]) -> Outcome:
        """The outcome as those hooks leave it that can be run here."""
        with self._noticing(notes):
            return await self._host.fold_after(executor.phases[1], reached, pure=True)

    def _consequences(
        self, phases: Sequence[str], task: Task, arguments: Mapping[str, Any], notes: list[str]
    ) -> tuple[Consequence, ...]:
        """What plugins say, one entry for each thing: where it happens, else its own phase's."""
        found: dict[tuple[str, str, str], list[tuple[str, Explanation]]] = {}
        for phase in phases:
            about = {**arguments, "phase": phase, "task": task, "config": self._config}
            if phase.startswith("before_"):
                running = replace(task, status=Status.RUNNING, reason=None, next_try=None)
                about |= {"outcome": None, "task": running}
            about["next_try"] = about["task"].next_try
            for plugin, item in self._ask(about, notes):
                found.setdefault((plugin, item.kind, item.name), []).append((phase, item))
        consequences: list[Consequence] = []
        for (plugin, _, _), items in found.items():
            chosen = [item for _, item in items if item.happens]
            if not chosen:
                own = (item for phase, item in items if item.phase == phase)
                chosen = [next(own, items[0][1])]
            consequences += [self._followed(plugin, item, arguments["now"]) for item in chosen]
        return tuple(consequences)

    def _ask(self, arguments: dict[str, Any], notes: list[str]) -> list[tuple[str, Explanation]]:
        answers: list[tuple[str, Explanation]] = []
        with self._noticing(notes):
            for plugin, answer in self._host.ask(HOOK, arguments):
                for item in answer:
                    if isinstance(item, Explanation):
                        answers.append((plugin, item))
                    else:
                        kind = type(item).__name__
                        fault = HookFault(f"returned a {kind} among its explanations")
                        self._host.fault(plugin, HOOK, fault)
        return answers

    @contextmanager
    def _noticing(self, notes: list[str]) -> Iterator[None]:
        """Note what plugins do wrong meanwhile."""
        before = {name: info.faults for name, info in self._host.plugins.items()}
        yield
        for name, info in self._host.plugins.items():
            if info.faults > before.get(name, 0):
                notes.append(f"the plugin {name}: {info.last_fault}")

    def _followed(self, plugin: str, explanation: Explanation, now: float) -> Consequence:
        """With the request that would be sent for it, prepared as the worker would."""
        new = explanation.task
        if not explanation.happens or new is None:
            return Consequence(plugin, explanation)
        try:
            endpoint = self._config.endpoints.get(new.endpoint_id)
            if endpoint is None:
                raise NotFound.of("endpoint", new.endpoint_id)
            executor, target = self.target(endpoint, new.webhook)
            request = executor.prepare(_running(new, now), target, now)
        except (Conflict, NotFound, InvalidPayload, Reject) as error:
            return Consequence(plugin, explanation, error=str(error))
        return Consequence(plugin, explanation, request)


def _is_large(outcome: Outcome | None) -> bool:
    response = outcome.response if outcome is not None else None
    return response is not None and len(response.content) > INLINE_BYTES


def _ended(phase: str | None, task: Task, outcome: Outcome | None, now: float) -> dict[str, Any]:
    """How the call ended; or, for the end of a run, that of a call which has no child tasks."""
    if phase != RUN_END or outcome is None:
        return {"outcome": outcome, "run": None, "now": now}
    status = Status.SUCCEEDED if outcome.verdict == "success" else Status.FAILED
    ended = task.after(status, task.reason, None, outcome.status_code, outcome.error)
    run = replace(run_of_one(ended), end=1, ended_at=int(now * 1000))
    return {"outcome": outcome_of_run(run), "run": run, "now": now}


def _noting(notes: list[str]) -> Fault:
    """Keeps the faults of strategies."""

    def note(strategy: str, error: BaseException | str) -> None:
        text = error if isinstance(error, str) else f"raised {words(error)}"
        notes.append(f"the strategy {strategy} {text}")

    return note


def _running(
    new: NewTask, now: float, attempt: int = 1, waited: float = 0.0, *, idempotent: bool = True
) -> Task:
    """A task in this attempt; its first one was `waited` seconds ago."""
    moment, created, rule = int(now * 1000), int((now - waited) * 1000), new.partition
    return task_made_of(
        new,
        TASK_ID,
        created,
        attempts=attempt,
        updated_at=moment,
        started_at=moment,
        idempotent=idempotent,
        last_error=new.error,
        turn=None if rule is None else PartitionTurn(rule.value, rule.rule),
    )


async def _found(target: Target, outcome: Outcome | None) -> tuple[Found, ...]:
    """What the expressions find that judge an answer by HTTP."""
    if target.endpoint.type != "http" or outcome is None or outcome.response is None:
        return ()
    found: list[Found] = []
    for key, expression in answer_rules(target.endpoint).named():
        try:
            value = await look(outcome.response, partial(_search, expression))
            found.append(Found(key, expression.source, value))
        except ValueError as error:
            found.append(Found(key, expression.source, None, str(error)))
    return tuple(found)


def _search(expression: Expression, document: AnswerView, budget: Budget | None) -> Any:
    # Copied: what the document has read is freed.
    return copy.deepcopy(document.search(expression, budget))


def _unprepared(error: InvalidPayload | Reject) -> tuple[Outcome, Decision]:
    """What becomes of a task whose request cannot be made."""
    reason = Reason.REJECTED if isinstance(error, Reject) else Reason.INVALID_PAYLOAD
    outcome = Outcome("failure", None, error=str(error), final_reason=reason)
    return outcome, Decision(Status.FAILED, reason.value, reason)


def _settled(task: Task, outcome: Outcome, decision: Decision) -> tuple[Task, Outcome]:
    """Both as plugins see them once it is decided."""
    code, error = outcome.status_code, outcome.error
    reason = decision.reason and str(decision.reason)  # as the engine tells it
    settled = task.after(decision.status, reason, decision.next_try, code, error)
    return settled, replace(outcome, final_reason=decision.reason)
