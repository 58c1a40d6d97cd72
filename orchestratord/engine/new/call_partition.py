"""The partition of a call, as its endpoint's `partition` says when the call is accepted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchestratord.errors import InvalidPayload
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.partition_turn import Partition
from orchestratord.model.settings import Config
from orchestratord.model.task import Kind, NewTask, Task
from orchestratord.plugin.long_work import bounded
from orchestratord.values.json_body import INLINE_BYTES, is_larger


async def partition_of(endpoint: Endpoint, params: Mapping[str, Any]) -> Partition | None:
    """The partition of a call with these parameters; None where the endpoint has no partitions.

    Raises InvalidPayload.
    """
    rule = endpoint.partition
    if rule is None:
        return None
    return await bounded(is_larger(params, INLINE_BYTES), rule.of, {"params": params})


def lacks_partition(task: Task) -> bool:
    """Whether the partition of a call, whose endpoint has partitions, did not render when it was
    accepted (`with_partition`).

    One that was accepted before its endpoint had partitions has none either, and runs without.
    """
    return (
        task.partition is None
        and not task.webhook
        and task.last_error is not None
        and task.last_status_code is None
    )


async def with_partition(task: NewTask, config: Config) -> NewTask:
    """A call that follows from another, or that a plugin makes, with its partition.

    Where that does not render, the task says so and fails at its first attempt: nothing that is to
    follow is lost.
    """
    endpoint = config.endpoints.get(task.endpoint_id)
    if endpoint is None or endpoint.partition is None or task.kind != Kind.CALL:
        return task
    if task.partition is not None:
        return task
    try:
        return replace(task, partition=await partition_of(endpoint, task.params))
    except InvalidPayload as error:
        return replace(task, error=str(error))
