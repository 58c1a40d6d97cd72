"""New tasks on their way into the queue, where they are written durably."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from orchestratord.config.params import check_call, rule_problems
from orchestratord.engine.new.call_partition import partition_of
from orchestratord.engine.new.new_tasks import NewTasks
from orchestratord.errors import Conflict, InvalidParams, InvalidPayload, NotFound, UniqueKeyReused
from orchestratord.model.endpoint import Endpoint
from orchestratord.model.settings import Config
from orchestratord.model.task import Accepted, Effect, Kind, NewTask, QueueRows, Upsert
from orchestratord.plugin.background_service import ROLE
from orchestratord.plugin.long_work import off_loop
from orchestratord.queue.batch import Write
from orchestratord.queue.housekeeping.batch_closing import write_delivery
from orchestratord.queue.operations.effects import enqueue, write_effects
from orchestratord.queue.operations.enqueue_each import enqueue_each
from orchestratord.queue.operations.roles import fenced
from orchestratord.queue.operations.slices import tasks_of, write_slice
from orchestratord.queue.records import Chore, Inserted, StoredEffect
from orchestratord.queue.store import Store
from orchestratord.values.json_body import INLINE_BYTES, is_larger

log = logging.getLogger("orchestratord.worker")

Operation = Callable[[Any], Write[list[Any]]]
"""Makes the operation that writes what it is given: one `Inserted` for each `Insert` among it, or
why that was not written."""


def accepted(inserted: Inserted) -> Accepted:
    """As which one is accepted that is written, or was before."""
    status = "succeeded" if inserted.happened else "pending"
    return Accepted(inserted.id, status, repeated=inserted.duplicate)


class Enqueue:
    """Takes what the API, plugins and the schedules of plugins want written."""

    def __init__(self, store: Store, new_tasks: NewTasks) -> None:
        self._store = store
        self._new_tasks = new_tasks
        self.under_way: set[asyncio.Future[Any]] = set()
        """What is being written at this moment."""

    async def accept(self, tasks: Sequence[NewTask], further: str | None = None) -> list[Inserted]:
        """Write new tasks, all or none. Takes and raises what the operation `enqueue` does."""
        return await self._whole(tasks, partial(enqueue, further=further))

    async def write(
        self, effects: Sequence[Effect], expected: Sequence[Upsert] = (), asked: int = 0
    ) -> list[int]:
        """Write effects in one transaction; the ids of the new tasks, in order. The arguments are
        those of the operation `write_effects`. Raises what it raises."""
        operation = partial(write_effects, expected=expected, asked=asked)
        return [item.id for item in await self._whole(effects, operation)]

    def write_soon(self, effects: Sequence[Effect]) -> None:
        """Write what plugins return of events, which have happened already."""
        self._begin(self._write_soon(effects))

    async def _write_soon(self, effects: Sequence[Effect]) -> None:
        try:
            await self.write(effects)
            self._store.tell("tables")
        except Exception as error:
            log.error("lost %d effects that on_event returned: %s", len(effects), error)

    async def write_by(self, effects: Sequence[Effect], operation: Operation) -> None:
        """Write effects, which may be many, by this operation."""
        await self._written(await self._new_tasks.following(effects), operation)

    async def write_slice(self, chore: Chore) -> None:
        """Write the tasks of a slice, which is a chore's."""
        tasks = await self._store.read(tasks_of(chore))
        written = await self._whole(tasks, partial(write_slice, chore, tasks))
        if made := sum(not item.duplicate for item in written):
            log.info("wrote %d more tasks of a slice", made)

    async def write_batch(self, chore: Chore, delivery: NewTask) -> bool:
        """Write the delivery of a closed batch; False where another daemon has."""
        written = await self._whole([delivery], partial(write_delivery, chore))
        return not written[0].duplicate

    async def accept_each(
        self, calls: Sequence[NewTask], rows: QueueRows | None, keys: Sequence[str]
    ) -> list[Accepted | UniqueKeyReused | None]:
        """Write new calls together, each by itself; what became of each. The arguments are those of
        the operation `enqueue_each`. Raises what it raises; then nothing was written."""
        results = await self._whole(calls, partial(enqueue_each, rows=rows, keys=keys))
        return [accepted(one) if isinstance(one, Inserted) else one for one in results]

    async def _whole(self, effects: Sequence[Effect], operation: Operation) -> list[Any]:
        return await self._written(await self._new_tasks.items(effects), operation)

    async def _written(self, items: Sequence[StoredEffect], operation: Operation) -> list[Any]:
        self._new_tasks.expect(items)
        loop, written = asyncio.get_running_loop(), fenced(operation(items), ROLE.get())
        told: asyncio.Future[list[Any]] = loop.create_future()
        written.about = items, told
        self.under_way.add(told)
        # The worker claims these first, in the transaction that writes them.
        loop.call_soon(self._submit, written)
        return await told

    def _submit(self, operation: Write[list[Any]]) -> None:
        try:
            self._store.check_room(operation)
            self._store.write_told((operation,), self._told)
        except Exception as error:  # its caller waits for it
            operation.error = error
            self._told((operation,))

    def _told(self, operations: Sequence[Write[list[Any]]]) -> None:
        """What became of what was asked for, all of it that was written at once; what follows is
        done although a caller was cancelled."""
        self._begin(self._answer(operations))

    async def _answer(self, operations: Sequence[Write[list[Any]]]) -> None:
        done = [one for one in operations if one.error is None]
        items = [item for one in done for item in one.about[0]]
        inserted = [item for one in done for item in one.result or ()]
        try:  # what was claimed with them is sent before their callers go on
            await self._new_tasks.written(items, inserted)
        except Exception:
            log.exception("cannot follow up %d new tasks", len(inserted))
        for one in operations:
            told: asyncio.Future[list[Any]] = one.about[1]
            self.under_way.discard(told)
            if told.done():
                continue  # its caller was cancelled
            if one.error is not None:
                told.set_exception(one.error)
            else:
                told.set_result(one.result or [])

    def _begin(self, step: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(step)
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)


def callable_endpoint(config: Config, endpoint_id: str) -> Endpoint:
    """An endpoint that takes calls. Raises NotFound, and Conflict where it is disabled."""
    endpoint = config.endpoints.get(endpoint_id)
    if endpoint is None:
        raise NotFound.of("endpoint", endpoint_id)
    if not endpoint.enabled:
        raise Conflict(f"{endpoint_id} is disabled (enabled: false)")
    return endpoint


BOTH = "is beside delay: give one of the two"


async def check_rules(config: Config, call: NewTask) -> None:
    """Raise InvalidParams for a call that `rule_problems` finds wrong, and SchemaTooCostly."""
    [problems] = await rule_problems(config, [call])
    if problems:
        raise InvalidParams(problems)


async def fitted_call(
    config: Config,
    endpoint: Endpoint,
    params: Mapping[str, Any],
    texts: Mapping[str, str] = MappingProxyType({}),
    *,
    delay: float = 0.0,
    at: int | None = None,
    key: str | None = None,
) -> NewTask:
    """A task that calls an endpoint, before `rule_problems`, which is asked of many at once.

    What is large is checked beside the loop.

    Args:
        config: what `endpoint` is of.
        params: by their names, as JSON values.
        texts: more of them, as texts that become what the endpoint declares.
        delay: seconds until the first try.
        at: when that is due instead, milliseconds since the epoch.
        key: its idempotency key.

    Raises what `check_call` raises, and InvalidParams where it has no partition, or would hold up
    an ordered one.
    """
    if delay > 0 and at is not None:
        raise InvalidParams({"at": BOTH})
    if is_larger({**params, **texts} if texts else params, INLINE_BYTES):
        checked = await off_loop(check_call, config, endpoint, params, texts, key)
    else:
        checked = check_call(config, endpoint, params, texts, key)
    # A repeat is told by what was sent: the defaults may have changed since.
    asked = {name: checked[name] for name in (*params, *texts)} if key is not None else None
    partition = None
    if (rule := endpoint.partition) is not None:
        if (delay > 0 or at is not None) and rule.ordered:
            why = f"the calls of {endpoint.id} are ordered, and a delayed one would hold up"
            key = "delay" if at is None else "at"
            raise InvalidParams({key: f"{why} those behind it; leave it out"})
        try:
            partition = await partition_of(endpoint, checked)
        except InvalidPayload as error:
            raise InvalidParams({"partition": str(error).removeprefix("partition: ")}) from None
    return NewTask(
        Kind.CALL,
        endpoint.id,
        checked,
        delay=delay,
        at=at,
        unique_key=key,
        max_attempts=endpoint.retry.max_attempts,
        asked=asked,
        partition=partition,
    )
