"""How many tasks each status has, which is changed in the transaction that changes the tasks.

Each opening of the store has rows of its own, so that no settlement waits for another daemon's: the
sum of all rows is what there is. Those without an owner have what was in rows that are gone.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestratord.model.task import Status
from orchestratord.queue.connection import Connection, ManyRows

ADD = ManyRows(
    """
INSERT OR ROLLBACK INTO task_counts (owner, status, tasks, at) VALUES {rows}
ON CONFLICT (owner, status) DO UPDATE
SET tasks = task_counts.tasks + excluded.tasks, at = excluded.at
""",
    *("text", "text", "bigint", "bigint"),
)

KNOWN = "SELECT status, CAST(sum(tasks) AS bigint) FROM task_counts GROUP BY status"


def add(db: Connection, owner: str, at: int, more: Mapping[str, int]) -> None:
    """Add so many tasks of each status to what `owner` has counted; `at`: milliseconds since the
    epoch. Raises Singly."""
    ADD.run(db, [(owner, status, more[status], at) for status in sorted(more) if more[status]])


def total(db: Connection, statement: str = KNOWN) -> dict[str, int]:
    """How many tasks each status has, by what is counted, or by another statement."""
    return dict.fromkeys(map(str, Status), 0) | dict(db.all(statement))
