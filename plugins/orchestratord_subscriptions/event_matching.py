"""Which subscriptions an event matches, by what tenants have written into `when`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from orchestratord_webhooks import Announcement

from orchestratord import Budget, NewTask, Partition, TooCostly, world
from orchestratord_subscriptions.declaration import ENDPOINT
from orchestratord_subscriptions.subscription import MOST_STEPS, Subscription

PIECE = 0.005
"""Seconds of evaluating filters, the first time of reading them, after which others go on."""
COSTLY = f"its when took more than {MOST_STEPS:,} steps"
Verdict = bool | str | None
"""Whether an event matches, or why that cannot be known; None where it costs too much."""


def announced(data: str) -> tuple[Announcement, Any]:
    """The event of a chore, and what a `when` sees of it."""
    event = json.loads(data)
    partition = event.pop("partition")
    told = Announcement(**event, partition=partition and Partition(**partition))
    return told, told.value()


def verdict_of(one: Subscription, payload: Any, budget: Budget) -> bool | str:
    """The verdict on one; without a payload all match. Raises TooCostly."""
    if one.condition is None or payload is None:
        return True
    try:
        return one.when.holds(payload, budget)
    except TooCostly:
        raise
    except ValueError as error:
        return f"when: {error}"


def verdicts_of(wanted: Sequence[Subscription], payload: Any) -> list[Verdict]:
    """Those on the first of these."""
    until, found = world.monotonic() + PIECE, list[Verdict]()
    for one in wanted:
        try:
            found.append(verdict_of(one, payload, Budget(MOST_STEPS)))
        except TooCostly:
            found.append(None)
        if world.monotonic() >= until:
            break
    return found


def delivery_of(told: Announcement, one: Subscription, verdict: bool | str) -> NewTask:
    """The delivery of an event to a subscription that it matches, or of which that is not known."""
    error = verdict if isinstance(verdict, str) else None
    return NewTask(
        kind="webhook",
        endpoint_id=ENDPOINT,
        webhook=one.name,
        phase=told.phase,
        params={"event": told.endpoint_id},
        payload=None if error else told.payload,
        error=error or told.error,
        parent_id=told.parent_id,
        max_attempts=told.max_attempts,
        partition=told.partition,
    )
