"""Operational webhooks: what happens in the daemon itself, told to who runs it.

Events are members of a batch as soon as they are told, each once whichever daemons of the queue
have it, and the delivery of a batch is a task like any other. What tells of the database or its
disk is kept in memory until these take it. Never told of are these deliveries themselves.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from orchestratord import (
    OWN_ENDPOINT,
    SAME_MS,
    BatchEntry,
    BatchMember,
    ClosedBatch,
    Config,
    Control,
    Event,
    NewTask,
    OrchestratordError,
    Redactor,
    TaskEvent,
    Unstorable,
)
from orchestratord_webhooks.batches import batch_of_one, delivery, is_elsewhere
from orchestratord_webhooks.envelope import json_text, time_text
from orchestratord_webhooks.operational_webhook import (
    OPERATIONAL_WEBHOOKS,
    PHASE,
    OperationalWebhook,
    find_operational,
    is_observed,
    members_of,
    noise,
)

log = logging.getLogger("orchestratord.webhooks")

MOST_WAITING = 1_000
"""Events that wait for the database to take them."""
AGAIN = 2.0
"""Seconds after which it is asked again."""
AT_ONCE = 100


class OperationalTeller:
    """Has what happens written as members of batches."""

    def __init__(self) -> None:
        self._control: Control | None = None
        self._waiting: deque[BatchMember] = deque()
        self._dropped = 0
        """Events for which there was no room, and of which the log does not say so yet."""
        self._noise: dict[tuple[str, ...], int] = {}
        """When that was last told of which may happen often (milliseconds)."""
        self._writing: asyncio.Task[None] | None = None

    def bind(self, control: Control) -> None:
        """Tell by this daemon from now on."""
        self._control = control
        self._waiting.clear()

    def observe(self, events: Sequence[Event]) -> None:
        """The hook `observe`."""
        if self._control is None:
            return
        try:
            config = self._control.config
        except RuntimeError:  # none is in force yet
            return
        if not config[OPERATIONAL_WEBHOOKS]:
            return
        for event in events:
            if type(event) is TaskEvent:
                continue
            if is_observed(event) and not self._is_repeated(event):
                self._waiting.extend(members_of(event, config))
        self._drop_oldest()
        if self._waiting and (self._writing is None or self._writing.done()):
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        """Until all is written: while the database or its disk is what has failed, later."""
        assert self._control is not None
        most = AT_ONCE
        while self._waiting:
            self._drop_oldest()
            if self._dropped:
                log.error("dropped %d events that wait to be announced", self._dropped)
                self._dropped = 0
            some = [self._waiting.popleft() for _ in range(min(len(self._waiting), most))]
            most = AT_ONCE
            try:
                await self._control.write(some)
            except Exception as error:
                never = isinstance(error, Unstorable) or not isinstance(error, OrchestratordError)
                if not never:
                    log.warning("cannot write operational webhooks yet: %s", error)
                    self._waiting.extendleft(reversed(some))
                    await asyncio.sleep(AGAIN)
                # It would be the same the next time. The others are written without the one.
                elif len(some) > 1:
                    self._waiting.extendleft(reversed(some))
                    most = len(some) // 2
                else:
                    log.exception("dropped an event that cannot be announced: %s", error)

    def _is_repeated(self, event: Event) -> bool:
        """Whether it is one of many, and one about the same was told of lately."""
        about = noise(event)
        if about is None:
            return False
        # Of what seems to be still to come, the clock was set back since.
        lately = {k: at for k, at in self._noise.items() if abs(at - event.at) < SAME_MS}
        self._noise = {about: event.at} | lately
        return about in lately

    def _drop_oldest(self) -> None:
        while len(self._waiting) > MOST_WAITING:
            self._waiting.popleft()
            self._dropped += 1


def operational_delivery(batch: ClosedBatch, config: Config, now: float) -> NewTask | None:
    """The task that tells of a batch of events; None while another daemon may declare its webhook,
    which this one does not."""
    webhook = find_operational(config, batch.webhook)
    if webhook is None and is_elsewhere(batch, now):
        return None
    return _delivery(batch, webhook, config.redactor, now)


def example_delivery(webhook: OperationalWebhook, config: Config, at: float) -> NewTask:
    """The delivery of a batch with one event, which did not happen."""
    reason = next(iter(webhook.events), PHASE)
    event = {"type": reason, "at": time_text(at), "test": True, "text": f"{reason}: an example"}
    entry = BatchEntry(OWN_ENDPOINT, None, reason, None, int(at * 1000), json_text(event))
    return _delivery(batch_of_one(entry, webhook.name, PHASE), webhook, config.redactor, at)


def _delivery(
    batch: ClosedBatch, webhook: OperationalWebhook | None, redactor: Redactor, now: float
) -> NewTask:
    first = [entry for one in batch.first if (entry := _entry(one.detail, redactor))]
    types: Counter[str] = Counter()
    for (_, reason, _), number in batch.counts.items():
        types[reason or ""] += number
    counts = {"type": dict(types.most_common())}
    return delivery(batch, webhook, OWN_ENDPOINT, counts, first, redactor, now)


def _entry(detail: str | None, redactor: Redactor) -> dict[str, Any]:
    try:
        found = json.loads(detail or "{}")
    except (ValueError, RecursionError):
        return {}
    masked: dict[str, Any] = redactor.value(found)
    return masked
