"""Closes batches when their time has come, and has each told of by one delivery."""

from __future__ import annotations

import logging

from orchestratord.engine.worker import Worker
from orchestratord.model.task import ClosedBatch, Kind, NewTask
from orchestratord.plugin.executor import Parked
from orchestratord.queue.housekeeping import batch_closing
from orchestratord.queue.operations import effects
from orchestratord.queue.records import Chore

log = logging.getLogger("orchestratord.batches")

HOOK = "batch_closed"
AGAIN = 60.0
"""Seconds until the plugins are asked again for the delivery of a batch that none has made."""


class BatchCloser:
    """What a daemon does for batches; of several daemons each does it, and each step is one's."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._store = worker.store
        self._placement = worker.placement

    async def close(self) -> None:
        """Close what is to close now; to be called each second."""
        closed = True
        while closed:
            ripe = await self._store.read(batch_closing.ripe(self._store.clock.now_ms()))
            closed = any([await self._store.write(batch_closing.close(group)) for group in ripe])

    async def deliver(self, chore: Chore) -> float | None:
        """Have the delivery of a batch made and written: seconds until that is tried again, None
        where it is done."""
        batch = await self._store.read(batch_closing.closed(int(chore.subject)))
        if batch is None:
            await self._store.write(effects.end_chore(chore, ()))
            return None
        why = await self._deliver(chore, batch)
        if why is None:
            return None
        log.warning("batch %d of the webhook %s waits: %s", batch.id, batch.webhook, why)
        return AGAIN

    async def _deliver(self, chore: Chore, batch: ClosedBatch) -> str | None:
        """Why a batch cannot be told of now, if so."""
        answers = self._worker.host.ask(HOOK, {"batch": batch, "config": self._placement.config})
        made = [new for _, found in answers for new in found if _is_delivery(new)]
        if not made:
            return "no webhook here delivers it yet"
        standing = self._placement.of(made[0].key)
        if isinstance(standing, Parked) and not standing.reason:
            return standing.why  # another daemon can, which has its webhook
        if await self._worker.enqueue.write_batch(chore, made[0]):
            closed = batch.id, batch.webhook, batch.members
            log.info("batch %d of the webhook %s has closed, with %d members", *closed)
        return None


def _is_delivery(new: object) -> bool:
    return isinstance(new, NewTask) and new.kind == Kind.WEBHOOK and new.unique_key is None
