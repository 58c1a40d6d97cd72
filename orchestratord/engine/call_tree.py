"""Which calls belong to a run: one that nothing caused, and all that follow from it."""

from __future__ import annotations

from collections.abc import Iterable

from orchestratord.model.endpoint import Endpoint
from orchestratord.model.outcome import Outcome
from orchestratord.model.settings import Config
from orchestratord.model.task import FINAL, Kind, NewTask, RunSummary, Slice, Task
from orchestratord.plugin.hookspecs import RUN_END
from orchestratord.plugin.host import Host
from orchestratord.queue.records import Insert, StoredEffect


def run_of(task: Task) -> int | None:
    """The run of the calls that follow from a task; None for a delivery: each begins its own."""
    if task.kind != Kind.CALL:
        return None
    return task.id if task.run_id is None else task.run_id


def begins_run(task: Task, items: Iterable[StoredEffect]) -> bool:
    """Whether a run begins with this task, as calls follow from it and it is in none yet."""
    return task.run_id is None and task.kind == Kind.CALL and has_calls(items)


def is_root(new: NewTask, host: Host, config: Config, items: Iterable[StoredEffect] = ()) -> bool:
    """Whether a run begins with this call as it is accepted: `items`, which follow from it at once,
    has calls; or hooks are to be told how it ends, and it may be cancelled before it is tried."""
    if new.kind != Kind.CALL or new.run_id is not None:
        return False
    endpoint = config.endpoints.get(new.endpoint_id)
    return has_calls(items) or (endpoint is not None and listens(host, endpoint))


def has_calls(items: Iterable[StoredEffect]) -> bool:
    """Whether there are calls among what is written, or among what waits in slices."""
    for item in items:  # a generator for each attempt takes longer
        if isinstance(item, Insert):
            if item.task.kind == Kind.CALL:
                return True
        elif isinstance(item, Slice):
            return True
    return False


def is_run(task: Task, status: str, host: Host, config: Config) -> bool:
    """Whether a task that ends so, without child tasks, is a run all the same: hooks are to be told
    of its end."""
    if task.run_id is not None or task.kind != Kind.CALL or status not in FINAL:
        return False
    endpoint = config.endpoints.get(task.endpoint_id)
    return endpoint is not None and listens(host, endpoint)


def listens(host: Host, endpoint: Endpoint) -> bool:
    """Whether hooks are to be told of the ends of the runs that begin with calls of an endpoint."""
    return host.concerned(RUN_END, Kind.CALL, endpoint) is not None


def outcome_of_run(run: RunSummary) -> Outcome:
    """How a run ended, as hooks and webhooks see it."""
    if run.succeeded == run.tasks:
        return Outcome("success", "ok")
    parts = [(run.failed, "failed"), (run.cancelled, "cancelled")]
    counts = " and ".join(f"{count:,} {what}" for count, what in parts if count)
    return Outcome("failure", "error", error=f"of {run.tasks:,} calls {counts}")
