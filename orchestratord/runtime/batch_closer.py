"""Closes batches when their time has come, and has each told of by one delivery."""

from __future__ import annotations

import logging

from orchestratord.engine.worker import Worker
from orchestratord.errors import StorageFull, Unreachable
from orchestratord.model.settings import Config
from orchestratord.model.task import ClosedBatch, Kind, NewTask
from orchestratord.plugin.executor import Parked
from orchestratord.queue.housekeeping import batch_closing
from orchestratord.values import world

log = logging.getLogger("orchestratord.batches")

HOOK = "batch_closed"
AGAIN = 60.0
"""Seconds until the plugins are asked again for the delivery of a batch that none has made."""
MOST_ROUNDS = 50
"""Of one look: so many batches of a group are closed, and then told of together with others."""


class BatchCloser:
    """What a daemon does for batches; of several daemons each does it, and each step is one's."""

    def __init__(self, worker: Worker) -> None:
        self._store = worker.store
        self._host = worker.host
        self._enqueue = worker.enqueue
        self._placement = worker.placement
        self._not_before: dict[int, float] = {}
        """Batches that no plugin has made a delivery of, and when they are asked again."""

    async def look(self, config: Config) -> None:
        """Close what is to close now, and have it told of; to be called each second."""
        now = world.monotonic()
        self._not_before = {id_: at for id_, at in self._not_before.items() if at > now}
        for _ in range(MOST_ROUNDS):
            found = await self._store.read(
                batch_closing.find(self._store.clock.now_ms(), frozenset(self._not_before))
            )
            closed = [await self._store.write(batch_closing.close(one)) for one in found.ripe]
            for batch in found.closed:
                await self._try(batch, config)
            if not any(closed) and not found.closed:
                return

    async def _try(self, batch: ClosedBatch, config: Config) -> None:
        try:
            why = await self._deliver(batch, config)
        except (Unreachable, StorageFull):
            raise
        except Exception as error:  # one that cannot be told of holds up no others
            why = str(error) or type(error).__name__
        if why is not None:
            self._not_before[batch.id] = world.monotonic() + AGAIN
            log.warning("batch %d of the webhook %s waits: %s", batch.id, batch.webhook, why)

    async def _deliver(self, batch: ClosedBatch, config: Config) -> str | None:
        """Have its delivery made and written; why that is not done now."""
        answers = self._host.ask(HOOK, {"batch": batch, "config": config})
        made = [new for _, found in answers for new in found if _is_delivery(new)]
        if not made:
            return "no webhook here delivers it yet"
        standing = self._placement.of(made[0].key)
        if isinstance(standing, Parked) and not standing.reason:
            return standing.why  # another daemon can, which has its webhook
        if await self._enqueue.write_batch(batch.id, made[0]):
            closed = batch.id, batch.webhook, batch.members
            log.info("batch %d of the webhook %s has closed, with %d members", *closed)
        return None


def _is_delivery(new: object) -> bool:
    return isinstance(new, NewTask) and new.kind == Kind.WEBHOOK and new.unique_key is None
