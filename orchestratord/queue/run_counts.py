"""How many calls of each run have ended how: gathered in a transaction, and written once.

All daemons change the row of a large run, and wait for each other there. So it is changed once in a
transaction, just before COMMIT, and several are in the order of their ids, against deadlocks. Which
settlement is the last of a run only its row can tell: the transaction that brings `open_tasks` to 0
adds the chore that tells of the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestratord.model.task import Status, Task
from orchestratord.queue.connection import BY_ID, Connection, ManyRows

# ruff: noqa: S608  # what is pasted here are hints and columns, never values

CHORE = "run"
"""The kind of chore that tells of the end of a run."""
SUBJECT = "CAST(runs.id AS TEXT) || ' ' || runs.endpoint_id"
"""What it is about: the run, and whose hooks are told."""
UNTOLD = f"EXISTS (SELECT 1 FROM chores WHERE kind = '{CHORE}' AND subject = {SUBJECT})"
"""Whether the last end of a run is still to be told."""

ROOT = ManyRows(
    f"""
UPDATE OR ROLLBACK retry_schedule {BY_ID} SET run_id = new.column1
FROM (VALUES {{rows}}) AS new WHERE id = new.column1
""",
    "bigint",
)

COUNT = ManyRows(
    """
UPDATE OR ROLLBACK runs
SET tasks = tasks + new.column2, succeeded = succeeded + new.column3,
    failed = failed + new.column4, cancelled = cancelled + new.column5,
    open_tasks = open_tasks + new.column6,
    ended_at = CASE WHEN open_tasks + new.column6 > 0 THEN NULL ELSE ended_at END
FROM (VALUES {rows}) AS new WHERE runs.id = new.column1
""",
    *("bigint",) * 6,
)

# A statement of its own: one that had to wait for a row knows chores only as they were before.
END = ManyRows(
    f"""
UPDATE OR ROLLBACK runs
SET ends = ends + CASE WHEN {UNTOLD} THEN 0 ELSE 1 END, ended_at = new.column2
FROM (VALUES {{rows}}) AS new WHERE runs.id = new.column1 AND open_tasks = 0
""",
    *("bigint",) * 2,
)
"""One that is opened again before its end was told ends once: nothing was told of it."""

# None conflicts with another daemon's: the row of its run is locked.
TELL = ManyRows(
    f"""
INSERT OR ROLLBACK INTO chores (kind, subject, due, at)
SELECT '{CHORE}', {SUBJECT}, new.column2, new.column2
FROM (VALUES {{rows}}) AS new JOIN runs ON runs.id = new.column1
WHERE open_tasks = 0 AND NOT {UNTOLD}
""",
    *("bigint",) * 2,
)

BEGIN = ManyRows(
    """
INSERT OR ROLLBACK INTO runs (id, tasks, succeeded, failed, cancelled, open_tasks, created_at,
    endpoint_id, ends)
SELECT new.*, 0 FROM (VALUES {rows}) AS new WHERE 1 = 1 ON CONFLICT (id) DO NOTHING
""",
    *("bigint",) * 7,
    "text",
)

_PLACES = {Status.SUCCEEDED.value: 1, Status.FAILED.value: 2, Status.CANCELLED.value: 3}
_OPEN = 4


@dataclass(slots=True)
class RunCounts:
    """What one transaction changes in the counts of runs."""

    changes: dict[int, list[int]] = field(default_factory=dict)
    """By run: how many more of its tasks there are, have succeeded, failed, were cancelled, and are
    open."""
    begun: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Runs of which a row may not be there yet: the endpoint, and when its first call was made."""
    roots: set[int] = field(default_factory=set)
    """Calls whose rows do not say yet that they have a run."""
    again: set[int] = field(default_factory=set)
    """Runs that end again if they had ended, since a call of them has ended in another way now."""

    def join(self, run_id: int | None, count: int = 1) -> None:
        """So many calls belong to it from now on, and have not ended; nothing for None."""
        if run_id is not None:
            change = self._of(run_id)
            change[0] += count
            change[_OPEN] += count

    def move(self, run_id: int | None, source: str, target: str, count: int = 1) -> None:
        """So many of its calls have changed their status; nothing for None."""
        if run_id is None or source == target:
            return
        before, after = _PLACES.get(source, _OPEN), _PLACES.get(target, _OPEN)
        if before != after:
            change = self._of(run_id)
            change[before] -= count
            change[after] += count

    def resolve(self, run_id: int | None, source: str, target: str) -> None:
        """A person has said how one of its calls ended; nothing for None."""
        self.move(run_id, source, target)
        if run_id is not None and source != target and source in _PLACES and target in _PLACES:
            self.again.add(run_id)

    def begin(self, root: int, endpoint_id: str, created_at: int, *, has_row: bool = True) -> None:
        """A run begins with this call, which has not ended. `has_row`: of the call there is one,
        which does not say so yet."""
        self.begun[root] = endpoint_id, created_at
        if has_row:
            self.roots.add(root)
        self.join(root)

    def settled(self, task: Task, status: str, *, begins: bool) -> None:
        """A call that ran has this status now; `begins`: it is the first of its run, and is counted
        in none yet."""
        if task.run_id is not None:
            self.move(task.run_id, Status.RUNNING, status)
        elif begins:
            self.begin(task.id, task.endpoint_id, task.created_at)
            self.move(task.id, Status.RUNNING, status)

    def __copy__(self) -> RunCounts:
        """What there is by now, for when something that comes is undone."""
        changes = {run_id: list(change) for run_id, change in self.changes.items()}
        return RunCounts(changes, dict(self.begun), set(self.roots), set(self.again))

    def write(self, db: Connection, now: int) -> bool:
        """Write it; `now` in milliseconds since the epoch. Whether the end of a run is to be told.
        Raises Singly."""
        if not self.changes:
            return False
        self.write_roots(db)
        counts, begins, may_end = [], [], []
        for run_id, change in sorted(self.changes.items()):
            if run_id in self.begun:
                endpoint_id, created_at = self.begun[run_id]
                begins.append((run_id, *change, created_at, endpoint_id))
                ends = change[_OPEN] == 0
            elif any(change):
                counts.append((run_id, *change))
                ends = change[_OPEN] < 0 or run_id in self.again
            else:
                continue
            if ends:
                may_end.append((run_id, now))
        BEGIN.run(db, begins)  # no other transaction sees these
        COUNT.run(db, counts)
        return END.run(db, may_end) > 0 and TELL.run(db, may_end) > 0

    def write_roots(self, db: Connection) -> None:
        """Have the rows of calls that began a run say so, before these are read. Raises Singly."""
        ROOT.run(db, [(root,) for root in sorted(self.roots)])
        self.roots.clear()

    def _of(self, run_id: int) -> list[int]:
        found = self.changes.get(run_id)
        if found is None:
            found = self.changes[run_id] = [0, 0, 0, 0, 0]
        return found
