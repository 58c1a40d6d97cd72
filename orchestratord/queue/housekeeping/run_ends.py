"""Runs as they stand, and the ends of runs, each told once by its chore.

The chore is added with the last settlement of a run's calls, whatever becomes of the daemon then.
What its hooks return is written as it ends, where no other daemon was quicker and the run was not
opened again meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from orchestratord.errors import NotFound
from orchestratord.model.task import Kind, RunError, RunSummary, Task, run_of_one
from orchestratord.queue.batch import Rank, long_reads, reads, writes
from orchestratord.queue.connection import BY_PARENT, BY_RUN, BY_RUNNING, Connection
from orchestratord.queue.operations import chores
from orchestratord.queue.operations.effects import apply_effects
from orchestratord.queue.operations.search import find_task, listed
from orchestratord.queue.records import Chore, Inserted, StoredEffect, duplicates
from orchestratord.queue.rows import code_of, worded
from orchestratord.queue.session import Session

# ruff: noqa: S608  # what is pasted here are columns and hints, never values

FIRST_ERRORS = 10

_RUN = "id, endpoint_id, tasks, succeeded, failed, cancelled, ends, created_at, ended_at"

ONE = f"SELECT {_RUN} FROM runs WHERE id = ?"

TAKE_BACK = "UPDATE runs SET ends = ends - 1 WHERE id = ? AND open_tasks > 0"

FAILED = f"""
SELECT endpoint_id, count(*) FROM retry_schedule {BY_RUN}
WHERE run_id = ? AND status || '' = 'failed'
GROUP BY endpoint_id ORDER BY count(*) DESC, endpoint_id
"""

FIRST = f"""
SELECT id, endpoint_id, reason, last_status_code, last_error FROM retry_schedule {BY_RUN}
WHERE run_id = ? AND status || '' = 'failed' ORDER BY finished_at, id LIMIT {FIRST_ERRORS}
"""

RUNNING = f"""
SELECT count(*) FROM retry_schedule {BY_RUNNING} WHERE status = 'running' AND run_id = ?
"""

OLDEST = f"SELECT id FROM retry_schedule {BY_RUN} WHERE run_id = ? ORDER BY id LIMIT ?"

DELIVERIES = f"""
SELECT id FROM retry_schedule {BY_PARENT} WHERE parent_id IN ({{marks}}) AND webhook <> ''
ORDER BY id LIMIT ?
"""

NEWEST = f"SELECT {_RUN} FROM runs WHERE id < ? AND {{which}} ORDER BY id DESC LIMIT ?"

WHICH = {None: "1 = 1", "running": "open_tasks > 0", "ended": "open_tasks = 0"}
"""Which runs are listed, by their status."""


@reads
def row_of(db: Connection, run_id: int) -> RunSummary | None:
    """A run without its errors; None where it is gone."""
    row = db.one(ONE, (run_id,))
    return None if row is None else RunSummary(*row)


@long_reads
def with_errors(db: Connection, run: RunSummary) -> RunSummary:
    """A run with what failed in it, as far as that is still kept."""
    if not run.failed:
        return run
    errors = tuple(
        RunError(id_, endpoint, reason, code_of(code), worded(error))
        for id_, endpoint, reason, code, error in db.all(FIRST, (run.id,))
    )
    endpoints: dict[str, int] = dict(db.all(FAILED, (run.id,)))
    return replace(run, failed_endpoints=endpoints, first_errors=errors)


@long_reads
def get_run(db: Connection, run_id: int) -> RunSummary:
    """A run as it stands, with what failed in it. Raises NotFound.

    A call that nothing caused and that has no child tasks is a run of one.
    """
    row = db.one(ONE, (run_id,))
    if row is not None:
        return with_errors(RunSummary(*row)).look(db)
    try:
        root = find_task(db, run_id)
    except NotFound:
        root = None
    if root is None or root.kind != Kind.CALL or root.run_id not in (None, run_id):
        raise NotFound.of("run", run_id)
    return run_of_one(root)


@reads
def running_in(db: Connection, run_id: int) -> int:
    """How many calls of a run are running."""
    return int(db.value(RUNNING, (run_id,)))


@long_reads
def tasks_of_run(db: Connection, run_id: int, limit: int) -> list[Task]:
    """The first tasks of a run, in the order of their ids, as lists show them: a task comes behind
    the one that it follows from."""
    ids = [id_ for (id_,) in db.all(OLDEST, (run_id, limit))]
    return listed(db, ids) or listed(db, [run_id])


@long_reads
def deliveries_of(db: Connection, ids: Sequence[int], limit: int) -> list[Task]:
    """The first deliveries that these calls caused, in the order of their ids, as lists show
    them."""
    sql = DELIVERIES.format(marks=", ".join("?" * len(ids)))
    found = db.all(sql, (*ids, limit)) if ids else ()  # retention may have deleted all calls
    return listed(db, [id_ for (id_,) in found])


@long_reads
def newest_runs(db: Connection, limit: int, before: int, status: str | None) -> list[RunSummary]:
    """Up to `limit` runs below the id `before`, newest first, without their errors; `status` is of
    `WHICH`."""
    rows = db.all(NEWEST.format(which=WHICH[status]), (before, limit))
    return [RunSummary(*row) for row in rows]


def subject_of(chore: Chore) -> tuple[int, str]:
    """The run of a chore that tells of an end, and its endpoint."""
    run_id, _, endpoint_id = chore.subject.partition(" ")
    return int(run_id), endpoint_id


@writes(Rank.HAND)
def tell(
    session: Session, chore: Chore, seen: RunSummary, effects: Sequence[StoredEffect]
) -> list[Inserted]:
    """End the chore of a run's end with what its hooks returned; all are duplicates, and nothing is
    written, where it was told before or the run is not as it was `seen`, without its errors."""
    row = session.db.one(ONE + session.db.for_update, (seen.id,))
    if row is not None and RunSummary(*row) == seen and chores.end(session, chore):
        return apply_effects(session, effects)
    return duplicates(effects)


@writes(Rank.HAND)
def take_back(session: Session, chore: Chore) -> None:
    """There is no end to tell: the run was opened again, and has not ended, or is gone."""
    run_id, _ = subject_of(chore)
    row = session.db.one(ONE + session.db.for_update, (run_id,))
    if (row is None or RunSummary(*row).open) and chores.end(session, chore):
        session.db.run(TAKE_BACK, (run_id,))
