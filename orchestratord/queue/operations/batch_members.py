"""Members of batches: events that a webhook tells of together, written with their causes."""

from __future__ import annotations

from collections.abc import Sequence

from orchestratord.model.task import BatchMember, Key
from orchestratord.queue.connection import ManyRows
from orchestratord.queue.rows import code_text, plain, worded
from orchestratord.queue.session import Session

IN_FULL = 10
"""Members of a batch of which all is kept that there is to say; of those that happened to no task,
which says it, too, of each."""

OPEN = "SELECT count(*) FROM batch_members WHERE group_key = ? AND batch_id IS NULL"

MEMBERS = ManyRows(
    """
INSERT OR ROLLBACK INTO batch_members
    (group_key, endpoint_id, webhook, phase, task_id, reason, status_code, detail, most, closes_at,
    at, once)
VALUES {rows}
""",
    "text", "text", "text", "text", "bigint", "text", "text", "text", "bigint", "bigint", "bigint",
    "text",
)  # fmt: skip


AGAIN = 120.0
"""Seconds within which what is to be told of once is not told of again."""

NEWEST = """
SELECT reason FROM batch_members WHERE group_key = ? AND once = ? AND at > ?
ORDER BY at DESC, id DESC LIMIT 1
"""


def add_members(session: Session, members: Sequence[BatchMember]) -> None:
    """Write these, in their order. Raises Singly."""
    now, places = session.now(), dict[str, int]()
    rows = []
    for one in members:
        if one.once is not None and _is_there(session, one, now):
            continue
        place = places.get(one.group)
        if place is None:
            [(place,)] = session.db.all(OPEN, (plain(one.group),))
        places[one.group] = place + 1
        # Those beyond `most` are the first ones of the batches that follow.
        in_full = place % one.most < IN_FULL or one.task_id is None
        rows.append((
            plain(one.group), plain(one.endpoint_id), plain(one.webhook), plain(one.phase),
            one.task_id, plain(one.reason), code_text(one.status_code),
            plain(one.detail) if in_full else None, one.most, now + round(one.every * 1000), now,
            plain(one.once),
        ))  # fmt: skip
        if one.once is not None:  # a later one of these may be the same
            MEMBERS.one(session.db, rows.pop())
    if len(rows) == 1:
        MEMBERS.one(session.db, rows[0])
    else:
        MEMBERS.run(session.db, rows)


def _is_there(session: Session, one: BatchMember, now: int) -> bool:
    """Whether the same was the last to be told of it; no other daemon writes it meanwhile."""
    group = plain(one.group) or ""
    session.lock_order((Key(group),))
    since = now - round(AGAIN * 1000)
    newest = session.db.one(NEWEST, (group, plain(one.once), since))
    return newest is not None and worded(newest[0]) == one.reason
