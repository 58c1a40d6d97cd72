"""Telling of several events together: the members of a batch, and the one delivery of it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from orchestratord import (
    OWN_ENDPOINT,
    BatchEntry,
    BatchMember,
    ClosedBatch,
    Config,
    Endpoint,
    InvalidPayload,
    NewTask,
    Redactor,
    rfc3339,
)
from orchestratord_webhooks.declaration import Addressed, Webhook, shortened
from orchestratord_webhooks.envelope import MAX_PAYLOAD, checked_size, json_text, narrowed, own_text
from orchestratord_webhooks.health import Health, find
from orchestratord_webhooks.operational_webhook import OperationalWebhook

MOST_COUNTED = 500
"""Endpoints that are counted one by one; those beyond, which have the fewest, are one number."""
OTHERS = "others"
GROUP = "webhook "
"""How the groups of these batches begin."""
LARGEST_DETAIL = MAX_PAYLOAD // 10
"""Bytes of what is kept of a member: a payload has ten of them."""
GONE_AFTER = 60.0
"""Seconds for which a webhook that is not declared here is left to other daemons."""


def group_of(webhook: Webhook, endpoint: Endpoint) -> str:
    """What shares batches: endpoints that have the very same webhook, from api.yaml or `defaults`,
    and may send it to the same addresses."""
    # There may be any number of addresses, and a group is a short text.
    allowed = hashlib.sha256("\n".join(endpoint.api.egress).encode("utf-8", "replace")).hexdigest()
    return shortened(f"{GROUP}{webhook.name} {webhook.fingerprint} {allowed}")


def member_of(webhook: Webhook, endpoint: Endpoint, data: Mapping[str, Any]) -> BatchMember:
    """The member of a batch that an event becomes; `data` as the envelope has it.

    Of what is too large to be one of the first ten, the parameters and the answer are left out.
    """
    assert webhook.batch is not None
    sent = narrowed(webhook, data)
    detail = _detail(sent)
    if detail is None:
        kept = {name: _LEFT_OUT.get(name, value) for name, value in sent.items()}
        detail = _detail({**kept, "truncated": True})
    return BatchMember(
        group=group_of(webhook, endpoint),
        endpoint_id=str(data["endpoint"]),
        webhook=webhook.name,
        phase=webhook.phase,
        every=webhook.batch.every,
        most=webhook.batch.max,
        task_id=data["task_id"],
        reason=data["reason"],
        status_code=data["status_code"],
        detail=detail,
    )


def _detail(data: Mapping[str, Any]) -> str | None:
    """As JSON; None where it is too large, or cannot be that."""
    try:
        text = json_text(data)
    except InvalidPayload:
        return None
    return text if len(text.encode("utf-8", "replace")) <= LARGEST_DETAIL else None


_LEFT_OUT: Mapping[str, Any] = {"params": {}, "request": None, "response": None}


def delivery_of(batch: ClosedBatch, config: Config, health: Health, now: float) -> NewTask | None:
    """The task that tells of a batch; it goes where today's configuration has the webhook.

    Of several endpoints that share the batch, it is one of which the webhook sends today, and is as
    it was. Where none has it, another daemon of the queue may: for a minute, there is none. Then it
    is that of the first endpoint, and fails as what waits for a webhook that is gone.
    """
    best, found = 0, None
    for candidate in dict.fromkeys((batch.endpoint_id, *(name for name, _, _ in batch.counts))):
        endpoint = config.endpoints.get(candidate)
        webhook = find(endpoint, batch.webhook)
        if endpoint is None or webhook is None:
            continue
        sends = webhook.enabled and health.disabled(candidate, webhook.name) is None
        rank = 1 + 2 * sends + (group_of(webhook, endpoint) == batch.group)
        if rank > best:
            best, found = rank, (candidate, webhook)
    if found is None and is_elsewhere(batch, now):
        return None
    endpoint_id, declared = found or (batch.endpoint_id, None)
    return _delivery(batch, declared, endpoint_id, config.redactor, now)


def is_elsewhere(batch: ClosedBatch, now: float) -> bool:
    """Whether a webhook that is not declared here may still be told of the batch by another daemon
    of the queue."""
    return now < batch.closed_at / 1000 + GONE_AFTER


def example_of(
    webhook: Webhook, endpoint: Endpoint, data: Mapping[str, Any], at: float, redactor: Redactor
) -> NewTask:
    """The delivery of a batch with one member, which does not exist."""
    member, milliseconds = member_of(webhook, endpoint, data), int(at * 1000)
    entry = BatchEntry(
        member.endpoint_id, member.task_id, member.reason, member.status_code, milliseconds,
        member.detail,
    )  # fmt: skip
    batch = batch_of_one(entry, webhook.name, webhook.phase)
    return _delivery(batch, webhook, member.endpoint_id, redactor, at)


def batch_of_one(member: BatchEntry, webhook: str, phase: str) -> ClosedBatch:
    """A batch with this member alone, which does not exist."""
    counts = {(member.endpoint_id, member.reason, member.status_code): 1}
    return ClosedBatch(
        0, "", member.endpoint_id, webhook, phase, member.at, member.at, 1, counts, (member,)
    )


def _delivery(
    batch: ClosedBatch, webhook: Webhook | None, endpoint_id: str, redactor: Redactor, now: float
) -> NewTask:
    first = [_entry(batch, one, redactor) for one in batch.first]
    return delivery(batch, webhook, endpoint_id, dict(_counts(batch)), first, redactor, now)


def delivery(
    batch: ClosedBatch,
    webhook: Webhook | OperationalWebhook | None,
    endpoint_id: str,
    counts: Mapping[str, Mapping[str, int]],
    first: list[dict[str, Any]],
    redactor: Redactor,
    now: float,
) -> NewTask:
    """The task that tells of a batch, of which the payload holds as many members as it can.

    Args:
        batch: what is told of.
        webhook: as it is declared today; None where it is not.
        endpoint_id: whose webhook it is.
        counts: how many members there are, by what they have in common.
        first: the first members; what there is no room for goes from its end.
        redactor: knows the secrets that a payload may not hold.
        now: in seconds since the epoch.
    """
    data: dict[str, Any] = {"batch": batch.id, "webhook": batch.webhook}
    if endpoint_id != OWN_ENDPOINT:  # where all have the same one
        data["phase"] = batch.phase
    data |= {
        "count": batch.members,
        "counts": counts,
        "opened_at": rfc3339(batch.opened_at),
        "closed_at": rfc3339(batch.closed_at),
        "filter": {"batch": batch.id},
        "first": first,
    }
    payload, error = None, None
    # The payload of one that is without a batch by now is not made for these names.
    rendered = webhook if webhook is not None and webhook.batch is not None else None
    try:
        payload = _payload(data, rendered, batch, redactor, now)
    except InvalidPayload as invalid:
        error = redactor.text(str(invalid))
    return NewTask(
        kind="webhook",
        endpoint_id=endpoint_id,
        webhook=batch.webhook,
        phase=batch.phase,
        params={"batch": batch.id},
        payload=payload,
        error=error,
        max_attempts=webhook.retry.max_attempts if webhook is not None else 1,
    )


def _payload(
    data: dict[str, Any],
    webhook: Addressed | None,
    batch: ClosedBatch,
    redactor: Redactor,
    now: float,
) -> str:
    """The body: with as many of the first members as there is room for. Raises InvalidPayload where
    a template fails, or there is no room for the rest alone."""
    while True:
        text = _rendered(data, webhook, batch, redactor, now)
        # JSON can name half of a character that takes two; UTF-8 cannot write it.
        encoded = text.encode("utf-8", "replace")
        if len(encoded) <= MAX_PAYLOAD or not data["first"]:
            return checked_size(encoded)
        data["first"].pop()
        data["truncated"] = True


def _rendered(
    data: Mapping[str, Any],
    webhook: Addressed | None,
    batch: ClosedBatch,
    redactor: Redactor,
    now: float,
) -> str:
    if webhook is None or webhook.payload is None:
        timestamp = rfc3339(batch.closed_at)
        return json_text({"type": batch.phase, "timestamp": timestamp, "data": data})
    names = {**data, "now": datetime.fromtimestamp(now, UTC)}
    return own_text(webhook.payload, names, redactor)


def _entry(batch: ClosedBatch, one: BatchEntry, redactor: Redactor) -> dict[str, Any]:
    """A member in full, or what its columns say of it."""
    found: Any = None
    if one.detail is not None:
        try:
            found = json.loads(one.detail)
        except (ValueError, RecursionError):
            found = None
    if not isinstance(found, dict):
        found = {
            "endpoint": one.endpoint_id, "phase": batch.phase, "status_code": one.status_code,
            "task_id": one.task_id, "reason": one.reason, "error": None,
        }  # fmt: skip
    # Secrets may have come up since it was written.
    masked: dict[str, Any] = redactor.data.value({"timestamp": rfc3339(one.at), **found})
    return masked


def _counts(batch: ClosedBatch) -> Iterator[tuple[str, dict[str, int]]]:
    """How many members there are by endpoint, by reason and by status code, the most numerous
    first; those without one are left out."""
    for place, name in enumerate(("endpoint", "reason", "status_code")):
        counted: Counter[str] = Counter()
        for key, number in batch.counts.items():
            if key[place] is not None:
                counted[str(key[place])] += number
        ranked = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
        found = dict(ranked[:MOST_COUNTED])
        if rest := sum(number for _, number in ranked[MOST_COUNTED:]):
            found[OTHERS] = rest
        yield name, found
