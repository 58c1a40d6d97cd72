"""Members of batches: events that a webhook tells of together, written with their causes."""

from __future__ import annotations

from collections.abc import Sequence

from orchestratord.model.task import BatchMember, Key
from orchestratord.queue.connection import ManyRows
from orchestratord.queue.rows import code_text, plain
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


TOLD = """
SELECT max(id) FROM batch_members WHERE group_key = ? AND once = ? AND at > ?
"""
MOST_REMEMBERED = 1_000


def add_members(session: Session, members: Sequence[BatchMember]) -> None:
    """Write these, in their order. Raises Singly."""
    # No other daemon writes in these groups then; all at once, and so in one order.
    if groups := {Key(plain(one.group) or "") for one in members if one.once is not None}:
        session.lock_order(groups)
    now, places = session.now(), dict[str, int]()
    rows = []
    for one in members:
        if one.once is not None and _is_there(session, one):
            _note(session, one)
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
            _note(session, one)
    if len(rows) == 1:
        MEMBERS.one(session.db, rows[0])
    else:
        MEMBERS.run(session.db, rows)


def _is_there(session: Session, one: BatchMember) -> bool:
    """Whether the same is told of already."""
    newest = _newest(session, one, one.since)
    if one.since is None or newest is None:
        return newest is not None
    return newest > session.found_told.get(_name(one), 0)


def _newest(session: Session, one: BatchMember, since: int | None) -> int | None:
    row = session.db.one(TOLD, (*_name(one), -1 if since is None else since))
    return None if row is None else row[0]


def _note(session: Session, one: BatchMember) -> None:
    """Remember which member tells of what this daemon has found out for itself. Should that be
    undone, it is one that does not exist, or the same is told of twice."""
    if one.since is not None and (newest := _newest(session, one, None)) is not None:
        if len(session.found_told) >= MOST_REMEMBERED:
            session.found_told.clear()
        session.found_told[_name(one)] = newest


def _name(one: BatchMember) -> tuple[str, str]:
    return plain(one.group) or "", plain(one.once) or ""
