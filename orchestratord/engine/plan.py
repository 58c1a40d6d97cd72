"""What all attempts of a key are made with, worked out once for each configuration."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestratord.engine.call_tree import listens
from orchestratord.engine.lanes.placement import Placement
from orchestratord.http.api_client import Sender, TargetClient
from orchestratord.model.recurring_rows import RecurringRows
from orchestratord.model.settings import Config
from orchestratord.model.task import Key, Kind, Task
from orchestratord.plugin.executor import Executor, Target
from orchestratord.plugin.hookspecs import ANNOUNCE, PHASES
from orchestratord.plugin.host import Host
from orchestratord.plugin.isolation import is_ctrl_c
from orchestratord.values.status_set import StatusCode


class Recurrence(NamedTuple):
    """What is written with the successes of a key, of which no hook is asked: those that are
    decided from `since` on and before `until`, milliseconds since the epoch."""

    since: int
    until: int
    rows: Sequence[RecurringRows]


MOST_CODES = 8
"""Status codes of the successes of a key for which that is remembered."""


@dataclass(slots=True)
class Plan:
    """What all attempts of a key are made with, while configuration and plugins stay as they are.

    Args:
        key: what its tasks are claimed by.
        target: what the configuration says of it.
        executor: what carries them out.
        config: the configuration in force.
        client: what sends their requests.
        direct: whether an attempt of an idempotent task makes its request and sends it, with
            nothing in between.
        evaluates: whether making it may evaluate expressions.
        decides: whether a hook is to be asked about its answers.
        after: the after_ phase that an attempt reaches; None for none.
        announces: the phases of which hooks are to be told.
        tells_runs: whether they are to be told of the ends of the runs that begin with its tasks.
        answers: by status code what they would say of one more success, where they need not be
            asked for it.
    """

    key: Key
    target: Target
    executor: Executor
    config: Config
    client: TargetClient
    direct: bool
    evaluates: bool
    decides: bool
    after: str | None
    announces: Collection[str]
    tells_runs: bool
    answers: dict[StatusCode, Recurrence] = field(default_factory=dict)


class Plans:
    """The plans of the keys of which attempts are made."""

    def __init__(self, placement: Placement, host: Host, sender: Sender) -> None:
        self._placement = placement
        self._sender = sender
        self._host = host
        self._loaded: object = None
        """What these were made of, besides what the placement knows."""

    def of(self, task: Task) -> Plan | None:
        """The plan for an attempt of a task; None where its key waits, or its tasks fail."""
        plans, loaded = self._placement.plans, self._host.loaded
        if loaded is not self._loaded:
            plans.clear()
            self._loaded = loaded
        plan: Plan | None = plans.get((task.endpoint_id, task.webhook))
        return self._make(task) if plan is None else plan

    def in_force(self, key: Key) -> Plan | None:
        """The plan for the attempts of a key that begin now, if any has."""
        if self._host.loaded is not self._loaded:
            return None
        plan: Plan | None = self._placement.plans.get(key)
        return plan

    def _make(self, task: Task) -> Plan | None:
        key, kind, plans = task.key, task.kind, self._placement.plans
        standing, executor = self._placement.look(key)
        if not isinstance(standing, Target) or executor is None:
            return None
        endpoint, concerned = standing.endpoint, self._host.concerned
        before, after = executor.phases
        announces = {
            phase for phase in PHASES if concerned(ANNOUNCE, kind, endpoint, phase) is not None
        }
        try:
            evaluates = executor.evaluates(standing)
        except BaseException as error:  # an executor is a plugin's, too
            if is_ctrl_c(error):
                raise
            evaluates = True  # what is wrong with it shows as it prepares a request
        plan = plans[key] = Plan(
            key, standing, executor, self._placement.config, self._sender.to(standing),
            direct=standing.idempotent
            and standing.retry.give_up_after is None
            and endpoint.partition is None
            and not (before and (before in announces or concerned(before, kind, endpoint))),
            evaluates=evaluates,
            decides=bool(after) and concerned(after, kind, endpoint) is not None,
            after=None if executor.immediate else after,
            announces=announces,
            tells_runs=kind == Kind.CALL and listens(self._host, endpoint),
        )  # fmt: skip
        return plan
