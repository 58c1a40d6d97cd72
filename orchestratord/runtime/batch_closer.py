"""Closes batches when their time has come, and has each told of by one delivery."""

from __future__ import annotations

import logging
import time

from orchestratord.engine.enqueue import Enqueue
from orchestratord.model.settings import Config
from orchestratord.model.task import ClosedBatch, Kind, NewTask
from orchestratord.plugin.host import Host
from orchestratord.queue.housekeeping import batch_closing
from orchestratord.queue.store import Store

log = logging.getLogger("orchestratord.batches")

HOOK = "batch_closed"
AGAIN = 60.0
"""Seconds until the plugins are asked again for the delivery of a batch that none has made."""


class BatchCloser:
    """What a daemon does for batches; of several daemons each does it, and each step is one's."""

    def __init__(self, store: Store, host: Host, enqueue: Enqueue) -> None:
        self._store = store
        self._host = host
        self._enqueue = enqueue
        self._not_before: dict[int, float] = {}
        """Batches that no plugin has made a delivery of, and when they are asked again."""

    async def look(self, config: Config) -> None:
        """Close what is to close now, and have it told of; to be called each second."""
        now = self._store.clock.now_ms()
        found = await self._store.read(batch_closing.find(now))
        if found.ripe:
            for group in found.ripe:
                await self._store.write(batch_closing.close(group))
            found = await self._store.read(batch_closing.find(now))
        for batch in found.closed:
            await self._tell(batch, config)

    async def _tell(self, batch: ClosedBatch, config: Config) -> None:
        if time.monotonic() < self._not_before.get(batch.id, 0.0):
            return
        answers = self._host.ask(HOOK, {"batch": batch, "config": config})
        made = [new for _, found in answers for new in found if _is_delivery(new)]
        if not made:
            self._not_before[batch.id] = time.monotonic() + AGAIN
            log.warning(
                "batch %d of the webhook %s waits: nothing here can tell of it yet",
                batch.id,
                batch.webhook,
            )
            return
        self._not_before.pop(batch.id, None)
        if await self._enqueue.tell_batch(batch.id, made[0]):
            log.info(
                "batch %d of the webhook %s has closed, with %d members",
                batch.id, batch.webhook, batch.members,
            )  # fmt: skip


def _is_delivery(new: object) -> bool:
    return isinstance(new, NewTask) and new.kind == Kind.WEBHOOK and new.unique_key is None
