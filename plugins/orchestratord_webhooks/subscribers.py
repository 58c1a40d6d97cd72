"""What a webhook with `subscribers` tells, and how it becomes deliveries: another plugin's part.

The webhooks plugin renders a payload once and says whom it is for. The plugin that knows the
subscriptions of a tenant makes a delivery for each of them that wants it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import isawaitable
from itertools import chain
from typing import Any, cast

from orchestratord import (
    BatchMember,
    InvalidPayload,
    NewChore,
    NewTask,
    Partition,
    Redactor,
    Task,
    TemplateTree,
)
from orchestratord_webhooks.declaration import Webhook
from orchestratord_webhooks.envelope import names_of, payload_of

log = logging.getLogger("orchestratord.webhooks")

Made = NewTask | BatchMember | NewChore


@dataclass(slots=True)
class Announcement:
    """An event as a tenant's subscriptions are told of it; but for `partition`, as JSON has it."""

    endpoint_id: str
    phase: str
    max_attempts: int
    is_json: bool
    tenant: str | None
    """None: it is of no tenant."""
    payload: str | None
    """None where it did not render; `error` says why."""
    error: str | None
    parent_id: int
    partition: Partition | None

    def value(self) -> Any:
        """What a `when` sees of it: the payload, None where there is none."""
        return json.loads(self.payload) if self.is_json and self.payload else self.payload


Deliveries = Sequence[NewTask | NewChore]
ToSubscribers = Callable[[Announcement], Deliveries | Awaitable[Deliveries]]


def announcement(
    webhook: Webhook,
    data: Mapping[str, Any],
    context: Mapping[str, Any],
    at: float,
    redactor: Redactor,
    task: Task,
    wrong: str,
) -> Announcement:
    """What is told of an event. The arguments are those of `Announcer.delivery`."""
    tenant = payload = error = partition = None
    try:
        names = names_of(data, context)
        assert webhook.subscribers is not None
        found = webhook.subscribers.render(names)
        tenant = None if found is None or found == "" else str(found)
        if wrong:
            raise InvalidPayload(wrong)
        if webhook.partition is not None:
            partition = webhook.partition.of(names)
        payload = payload_of(webhook, data, context, at, redactor)
    except InvalidPayload as invalid:
        payload, error = None, redactor.text(str(invalid))
    is_json, most = isinstance(webhook.payload, TemplateTree), webhook.retry.max_attempts
    of_webhook = str(data["endpoint"]), webhook.phase, most, is_json
    return Announcement(*of_webhook, tenant, payload, error, task.id, partition)


def expanded(
    made: Iterable[Made | Announcement], to_subscribers: ToSubscribers | None
) -> list[Made] | Awaitable[list[Made]]:
    """These, with the deliveries to subscriptions in the place of announcements."""
    found: list[Sequence[Made] | Awaitable[Deliveries]] = []
    for one in made:
        if not isinstance(one, Announcement):
            found.append([one])
        elif to_subscribers is None:
            log.warning("no plugin delivers to the subscribers of %s", one.endpoint_id)
        else:
            found.append(to_subscribers(one))
    waits = any(map(isawaitable, found))
    return _awaited(found) if waits else list(chain.from_iterable(cast("Any", found)))


async def _awaited(found: Sequence[Any]) -> list[Made]:
    return [each for one in found for each in (await one if isawaitable(one) else one)]
