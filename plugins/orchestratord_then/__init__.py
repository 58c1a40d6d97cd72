"""`then:` in the YAML: the calls that follow from an answer.

When a call succeeds, JMESPath expressions pick out of its answer what the next calls are given;
these are written in the transaction of its success, so that a call that succeeded has all that
follows from it. Where that cannot be worked out, the call has not succeeded: `after_request` says
so, before anything is written. `on: failure` and `on: run_end` name calls that follow from a
failure, and from the end of the call's run; of these, one that cannot be worked out is logged.

    declaration   what stands in the YAML
    child_tasks   from an answer, as expressions see it, to the child tasks
    checks        what `check` finds
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Any

from orchestratord import (
    INLINE_BYTES,
    INLINE_STEPS,
    Budget,
    Config,
    Endpoint,
    NewTask,
    Outcome,
    Problem,
    RunSummary,
    Setting,
    Task,
    TooCostly,
    hookimpl,
    off_loop,
    only_for,
    pure,
    required,
)
from orchestratord_then import checks
from orchestratord_then.child_tasks import (
    FAILURE,
    RUN_END,
    SUCCESS,
    ChildPlan,
    Impossible,
    concerned_by,
    explain,
)
from orchestratord_then.declaration import THEN, Then

__all__ = ["THEN", "Then", "explain"]

concerned = concerned_by(SUCCESS)

_KEPT = "orchestratord_then"
"""Where an answer keeps the plan that was made of it."""


@hookimpl
def register_settings() -> Iterable[Setting[Any]]:
    return (THEN,)


@hookimpl
def check_endpoint(endpoint: Endpoint, config: Config) -> Iterable[Problem]:
    return checks.problems(endpoint, config)


# Last: what others make of the outcome is what counts.
@hookimpl(trylast=True)
@pure
@only_for(concerned)
def after_request(
    outcome: Outcome, task: Task, endpoint: Endpoint, config: Config
) -> Outcome | Awaitable[Outcome | None] | None:
    """A failure where what is to follow from a success cannot be worked out, else None."""
    if outcome.verdict != "success":
        return None
    try:
        plan = _at_once(outcome, task, endpoint, config)
        if plan is None:
            return _judged(outcome, ChildPlan(outcome, task, endpoint, config))
    except Exception as error:
        return _failure(outcome, error)
    _keep(outcome, plan)
    return None


after_execute = after_request


@hookimpl
@required
@only_for(concerned_by(FAILURE))
def on_final_failure(
    outcome: Outcome, task: Task, endpoint: Endpoint | None, config: Config
) -> Awaitable[Iterable[NewTask]] | None:
    if endpoint is None:
        return None
    return _tasks(ChildPlan(outcome, task, endpoint, config, on=FAILURE))


@hookimpl
@required
@only_for(concerned_by(RUN_END))
def on_run_end(
    run: RunSummary, outcome: Outcome, task: Task, endpoint: Endpoint | None, config: Config
) -> Awaitable[Iterable[NewTask]] | None:
    if endpoint is None:
        return None
    return _tasks(ChildPlan(outcome, task, endpoint, config, on=RUN_END, run=run))


@hookimpl
@required
@only_for(concerned)
def on_success(
    outcome: Outcome, task: Task, endpoint: Endpoint, config: Config
) -> Iterable[NewTask] | Awaitable[Iterable[NewTask]]:
    plan = _kept(outcome, task) or _at_once(outcome, task, endpoint, config)
    if plan is not None:
        return plan.tasks
    return _tasks(ChildPlan(outcome, task, endpoint, config))


async def _judged(outcome: Outcome, plan: ChildPlan) -> Outcome | None:
    try:
        await _off_loop(plan)
    except Exception as error:
        return _failure(outcome, error)
    _keep(outcome, plan)
    return None


async def _tasks(plan: ChildPlan) -> Iterable[NewTask]:
    await _off_loop(plan)
    return plan.tasks


def _at_once(outcome: Outcome, task: Task, endpoint: Endpoint, config: Config) -> ChildPlan | None:
    """The plan, worked out here; None where that would take too long. Raises Impossible."""
    if outcome.response is not None and len(outcome.response.content) > INLINE_BYTES:
        return None
    plan = ChildPlan(outcome, task, endpoint, config, Budget(INLINE_STEPS))
    try:
        plan.work_out()
    except TooCostly:
        return None
    return None if plan.has_rules else plan


async def _off_loop(plan: ChildPlan) -> None:
    """Work the plan out, whatever it costs. Raises Impossible."""
    await off_loop(plan.work_out)
    await plan.check_rules()


def _failure(outcome: Outcome, error: Exception) -> Outcome:
    # Whatever it is: were it passed over, the call would succeed and nothing would follow from it.
    text = str(error) if isinstance(error, Impossible) else f"{type(error).__name__}: {error}"
    return outcome.failure(f"then: {text}" if not isinstance(error, Impossible) else text)


def _keep(outcome: Outcome, plan: ChildPlan) -> None:
    if outcome.response is not None:
        outcome.response.extensions[_KEPT] = plan


def _kept(outcome: Outcome, task: Task) -> ChildPlan | None:
    """The plan that was made when this very answer was judged."""
    if outcome.response is None:
        return None
    plan = outcome.response.extensions.get(_KEPT)
    return plan if isinstance(plan, ChildPlan) and plan.is_of(task) else None
