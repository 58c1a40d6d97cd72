"""How many tasks each status has, of all tasks, and of those that a bulk has moved and that ended.

They are counted in the transaction that changes the tasks. Each opening of the store has rows of
its own, so that no settlement waits for another daemon's: the sum of all rows is what there is.
Those without an owner have what was in rows that are gone.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestratord.model.task import Status
from orchestratord.queue.connection import Connection, ManyRows

ALL = 0
"""In the place of a bulk: all tasks."""

ADD = ManyRows(
    """
INSERT OR ROLLBACK INTO task_counts (bulk_id, owner, status, tasks, at) VALUES {rows}
ON CONFLICT (bulk_id, owner, status) DO UPDATE
SET tasks = task_counts.tasks + excluded.tasks, at = excluded.at
""",
    *("bigint", "text", "text", "bigint", "bigint"),
)

KNOWN = """
SELECT status, CAST(sum(tasks) AS bigint) FROM task_counts WHERE bulk_id = ? GROUP BY status
"""

Changes = Mapping[tuple[int, str], int]
"""A bulk, or `ALL`, and a status: how many more tasks have it."""


def add(db: Connection, owner: str, at: int, changes: Changes) -> None:
    """Add these to what `owner` has counted; `at`: milliseconds since the epoch. Raises Singly."""
    rows = ((bulk_id, owner, status, changes[bulk_id, status], at) for bulk_id, status in changes)
    ADD.run(db, sorted(row for row in rows if row[3]))


def total(db: Connection, bulk_id: int = ALL) -> dict[str, int]:
    """How many tasks of a bulk, or of all, are counted in each status."""
    return dict.fromkeys(map(str, Status), 0) | dict(db.all(KNOWN, (bulk_id,)))
