"""What lies ahead: the request of a task's next attempt, the next runs of a schedule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchestratord.errors import Conflict, InvalidPayload, Reject
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.schedule_slots import next_slot, splay_offset
from orchestratord.model.settings import Config
from orchestratord.model.task import Status, Task
from orchestratord.plugin.host import Host
from orchestratord.plugin.isolation import words
from orchestratord.plugin.long_work import bounded
from orchestratord.simulate.explain import Explainer
from orchestratord.values.clock import Clock


async def request_of(task: Task, config: Config, host: Host, clock: Clock) -> Any:
    """What the next attempt of a task would send as things stand; for one that runs, this one.

    What plugins' hooks would still change is not in it, nor what is added while it is sent.
    Raises Conflict where nothing would be sent.
    """
    endpoint = config.endpoints.get(task.endpoint_id)
    if endpoint is None and task.endpoint_id in host.registry.own_endpoints:
        raise Conflict(f"no file declares {task.endpoint_id}, whose requests may be confidential")
    if endpoint is None:
        raise Conflict(f"{task.endpoint_id} is no longer declared")
    executor, target = Explainer(host, config, clock).target(endpoint, task.webhook)
    if executor.immediate:
        raise Conflict(f"{task.endpoint_id} is an event: nothing is sent for it")
    if task.status is not Status.RUNNING:
        task = replace(task, attempts=task.attempts + 1)
    try:
        task.check_readable()
        return await bounded(task.is_large, executor.prepare, task, target, clock.now())
    except (InvalidPayload, Reject) as error:
        raise Conflict(str(error)) from error
    except Exception as error:  # an executor may be a plugin's
        raise Conflict(f"its request cannot be prepared: {words(error)}") from error


def repeat_key(task: Task, config: Config, host: Host) -> str | None:
    """What the receiver of a task tells a repeat by; None where it is told nothing."""
    id_, registry = task.endpoint_id, host.registry
    try:
        endpoint = config.endpoints.get(id_) or registry.own_endpoint(id_, config)
        if endpoint is None or (executor := registry.executor(task.kind, endpoint.type)) is None:
            return None
        return executor.repeat_key(task, endpoint)
    except Exception:  # an executor may be a plugin's
        return None


def upcoming_runs(endpoint: Endpoint, now: int, count: int) -> list[int]:
    """The next runs of an endpoint's schedule, at most `count`; `now` and they in milliseconds."""
    schedule = endpoint.schedule
    if schedule is None:
        return []
    late = round(splay_offset(endpoint.id, schedule.splay) * 1000)
    runs: list[int] = []
    slot = next_slot(schedule, now - late)
    while slot is not None and len(runs) < count:
        runs.append(slot + late)
        slot = next_slot(schedule, slot)
    return runs
