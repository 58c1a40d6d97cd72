"""A batch that has closed, and its members: also those of which its delivery had no room."""

from __future__ import annotations

from typing import NamedTuple

from orchestratord.errors import NotFound
from orchestratord.queue.batch import long_reads
from orchestratord.queue.connection import Connection
from orchestratord.queue.rows import code_of, worded
from orchestratord.values.status_set import StatusCode

BATCH = """
SELECT id, endpoint_id, webhook, phase, opened_at, closed_at, members, task_id FROM batches
WHERE id = ?
"""
MEMBERS = """
SELECT id, at, endpoint_id, task_id, reason, status_code, CASE WHEN task_id IS NULL THEN detail END
FROM batch_members WHERE batch_id = ? AND id > ? ORDER BY id LIMIT ?
"""


class PageMember(NamedTuple):
    """A member of a batch; times are milliseconds since the epoch."""

    id: int
    at: int
    endpoint: str
    task: int | None
    reason: str | None
    status_code: StatusCode
    detail: str | None
    """All that there is to say of it, as JSON; None where that is its task."""


class BatchPage(NamedTuple):
    """A batch, and some of its members in the order in which they were written."""

    id: int
    endpoint: str
    webhook: str
    phase: str
    opened_at: int
    closed_at: int
    total: int
    """Of all members; those that are kept no more, too."""
    delivery: int | None
    """The task that tells of it, once it is written."""
    members: list[PageMember]
    next: int | None
    """What to go on after; None where there are no more."""


@long_reads
def batch_page(db: Connection, batch_id: int, limit: int, after: int) -> BatchPage:
    """A batch with up to `limit` members that come `after` the id of one. Raises NotFound."""
    row = db.one(BATCH, (batch_id,))
    if row is None:
        raise NotFound.of("batch", batch_id)
    id_, endpoint_id, webhook, phase, opened_at, closed_at, count, delivery = row
    found = [
        PageMember(
            member, at, worded(endpoint) or "", task, worded(reason), code_of(code), worded(detail)
        )
        for member, at, endpoint, task, reason, code, detail in db.all(
            MEMBERS, (batch_id, after, limit + 1)
        )
    ]
    return BatchPage(
        id_, worded(endpoint_id) or "", worded(webhook) or "", phase, opened_at, closed_at, count,
        delivery or None, found[:limit], found[limit - 1].id if len(found) > limit else None,
    )  # fmt: skip
