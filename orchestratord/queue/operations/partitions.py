"""Partitions: which tasks take turns, what holds one, what a manual retry does there, and what
becomes of a task in whose place another one is tried.

Whose turn it is decides `Session.elect`, at the end of each transaction that touched a partition.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace as changed

from orchestratord.errors import Conflict, InvalidParams, NotFound, Overtaken, Replaced
from orchestratord.model.partition_turn import HOLDS, Partition
from orchestratord.model.task import FINAL, LETS_GO, Key, Kind, NewTask, Status, Task
from orchestratord.queue.batch import Rank, long_reads, reads, writes
from orchestratord.queue.connection import (
    BLOCKS,
    BY_BLOCKS,
    BY_HEAD,
    BY_HELD,
    BY_ID,
    BY_ORDERED,
    BY_PARTITION,
    BY_STOPPED,
    FAIR_HEAD,
    LIMITED,
    OF_PARTITION,
    ORDERED,
    STOPPED,
    Connection,
    Row,
)
from orchestratord.queue.operations.insert import insert_one
from orchestratord.queue.operations.search import FAMILY, find_task, replaced_by
from orchestratord.queue.records import Insert, Line
from orchestratord.queue.rows import plain
from orchestratord.queue.session import Session

# ruff: noqa: S608  # what is pasted here are hints and conditions, never values

_OF_LINE = "endpoint_id = ? AND webhook = ? AND partition = ?"

READY_ORDERED = f"SELECT id, status FROM retry_schedule {BY_ORDERED} WHERE {ORDERED} AND {_OF_LINE}"
HEAD = f"SELECT id FROM retry_schedule {BY_HEAD} WHERE {FAIR_HEAD} AND {_OF_LINE}"
RUNNING = f"SELECT id FROM retry_schedule {BY_HEAD} WHERE {LIMITED} AND {_OF_LINE}"
FIRST = f"""
SELECT id, status FROM retry_schedule {BY_BLOCKS} WHERE {BLOCKS} AND {_OF_LINE}
ORDER BY id LIMIT 1
"""

# By their places: what replaces another one has that. One that holds the partition though it has
# not started is replaced by one that is about to.
LATER = f"""
SELECT id FROM retry_schedule {BY_PARTITION}
WHERE {OF_PARTITION} AND id > ? AND endpoint_id = ? AND webhook = ? AND COALESCE(replaces, id) > ?
    AND (attempts > 0 OR deaths > 0 OR (turn_at = {HOLDS} AND held = 0))
ORDER BY id LIMIT 1
"""

ORDERED_ENDED = f"""
SELECT id FROM retry_schedule {BY_ID} WHERE id IN ({{ids}}) AND status NOT IN ('pending', 'running')
    AND (partition_rule < 0 AND status <> 'succeeded' OR replaces IS NOT NULL) ORDER BY id
"""

NEXT_HELD = f"""
SELECT endpoint_id, webhook, partition, turn_at FROM retry_schedule {BY_HELD}
WHERE held = 1 AND (endpoint_id, webhook, partition, turn_at) > (?, ?, ?, ?)
ORDER BY endpoint_id, webhook, partition, turn_at LIMIT 1
"""

# -- Manual retries --------------------------------------------------------------------------------


def ask_for_turn(session: Session, task: Task, *, force: bool) -> bool:
    """Have a task that is retried manually go first in its partition; whether it is held for now.

    In an ordered one it has its own place, or that of the task that it replaces. In another it
    takes the place of the one whose turn it is, unless as many run as may. Raises Overtaken, unless
    `force` is given, and Conflict.
    """
    if task.replaces is not None and task.status != Status.PENDING:
        keep_place(session, task, force=force)
    if task.partition is None:
        return False
    line = Line.of(task)
    session.touch(task)
    if line.ordered:
        if task.status == Status.PENDING:
            return task.held
        if not force:
            check_order(session, task, task)
        return True
    # Locked before the partition is: who claims it has it locked, and locks the partition then.
    heads = session.db.all(f"{HEAD}{session.db.for_update}", line[:3])
    if task.partition_limit:
        session.lock_lines([line])
        running = session.db.all(RUNNING, line[:3])
        if len(running) >= task.partition_limit:
            return True
    back = [id_ for (id_,) in heads if id_ != task.id]
    if back:
        session.step_back(back)
    return False


def overtaken(session: Session, ids: Collection[int], statuses: Collection[str]) -> set[int]:
    """Those of these that have ended, and after which a later one of their ordered partition has
    started; and replacements whose partition does not wait for them now. It waits for the others
    that have one of these statuses from here on: they have to be tried."""
    statement = ORDERED_ENDED.format(ids=", ".join("?" * len(ids)))
    found = {id_ for (id_,) in session.db.all(statement, list(ids))}
    for task in [find_task(session.db, id_) for id_ in sorted(found)]:
        with suppress(Conflict):
            if task.replaces is None:
                check_order(session, task, task)
            elif task.status in statuses:
                keep_place(session, task, force=task.status == Status.SUCCEEDED)
            found.remove(task.id)
    return found


def check_order(session: Session, task: Task, place: Task) -> None:
    """Raise Overtaken where one behind this place in its ordered partition has started; none does
    from here on."""
    line = Line.of(place)
    ready(session, line)
    values = line.partition, place.id, line.endpoint_id, line.webhook, place.id
    if (by := session.db.value(LATER, values)) is not None:
        raise Overtaken(task.id, by)


def place_of(session: Session, task: Task) -> Task:
    """The task whose place another one has: the one that it replaces, else itself."""
    with suppress(NotFound):  # an older version may have deleted it
        return find_task(session.db, task.replaces or task.id)
    return task


def keep_place(session: Session, task: Task, *, force: bool) -> None:
    """Have the ordered partition in which a task has its place wait for it.

    Nothing happens where that is in no order. Raises Overtaken, unless `force` is given, and
    Conflict where another task of the partition runs, or is before it there.
    """
    place = place_of(session, task)
    if not place.ordered:
        return
    if not force:
        check_order(session, task, place)
    found = ready(session, Line.of(place))
    first = session.db.one(FIRST, Line.of(place)[:3])
    if Status.RUNNING in found.values() or (first is not None and first[0] < place.id):
        why = "is running, or goes before it; ask again"
        raise Conflict(f"another task of the partition of task {task.id} {why}")
    if found:
        session.step_back(list(found))
    session.db.run("UPDATE retry_schedule SET turn_at = ? WHERE id = ?", (HOLDS, place.id))


def ready(session: Session, line: Line) -> dict[int, str]:
    """The one of an ordered line that has its turn, or runs, with its status; none does from here
    on unless it is elected."""
    return dict(session.db.all(f"{READY_ORDERED}{session.db.for_update}", line[:3]))


# -- What holds what -------------------------------------------------------------------------------


@reads
def holder(db: Connection, task: Task) -> int | None:
    """The task that a held one waits for: it has the turn, runs, or has failed and holds the
    partition. None for nothing, also where its turn comes at this moment."""
    if not task.held or task.partition is None:
        return None
    line = task.endpoint_id, task.webhook, task.partition
    row = db.one(FIRST, line) if task.ordered else db.one(HEAD, line) or db.one(RUNNING, line)
    if task.ordered and row is not None and row[0] == task.id:
        # Only a later one that was sent by force, or that runs still, is before it.
        row = db.one(READY_ORDERED, line)
    return None if row is None else replaced_by(db, row[:1]).get(row[0], int(row[0]))


STOPPED_KEYS = f"""
SELECT DISTINCT endpoint_id, webhook FROM retry_schedule {BY_STOPPED}
WHERE {STOPPED}
"""
RELEASE_PARTITIONS = f"""
UPDATE retry_schedule SET turn_at = 0, updated_at = ?
WHERE id IN (
    SELECT id FROM retry_schedule {BY_STOPPED}
    WHERE {STOPPED} AND endpoint_id = ? AND webhook = ? ORDER BY partition LIMIT ?
) AND turn_at + 0 = 1 AND held + 0 = 0 AND status || '' = 'failed'
RETURNING partition
"""
"""PostgreSQL would go through the whole table without the order, and through the index of stopped
ones for each of the rows that were found, were they not asked in another way whether they still
are."""
RELEASED_AT_ONCE = 500


@long_reads
def stopped_keys(db: Connection) -> list[Key]:
    """Of what there are partitions that a failed task holds."""
    return [Key(*row) for row in db.all(STOPPED_KEYS)]


@writes(Rank.KEEP)
def release_partitions(session: Session, key: Key) -> int:
    """Have failed tasks of a key, which is gone, hold their partitions no longer: what waits behind
    them is to fail as well. How many did; some hundreds at a time."""
    rows = session.db.all(RELEASE_PARTITIONS, (session.now(), *key, RELEASED_AT_ONCE))
    for (partition,) in rows:
        session.touch_line(Line(*key, partition, True), 0)
    return len(rows)


MOST = 100_000
"""Partitions that are gone through at most."""


@long_reads
def stuck(db: Connection) -> list[Line]:
    """Lines in which tasks are held though none has its turn: those who had to elect were ended by
    a crash of their machine. It goes through all lines."""
    found: dict[Line, None] = {}
    for endpoint_id, webhook, partition, turn_at in _held_lines(db):
        line = Line(endpoint_id, webhook, partition, turn_at > 0)
        if line in found:
            continue
        if line.ordered:
            first = None if db.one(READY_ORDERED, line[:3]) else db.one(FIRST, line[:3])
            waits = first is not None and first[1] == Status.PENDING
        else:
            waits = not (db.one(HEAD, line[:3]) or db.one(RUNNING, line[:3]))
        if waits:
            found[line] = None
    return list(found)


def _held_lines(db: Connection) -> Iterator[Row]:
    """One row after the other, each behind the one before: one look into an index for each."""
    place: Row = ("", "", "", -1)
    for _ in range(MOST):
        if (found := db.one(NEXT_HELD, place)) is None:
            return
        yield (place := found)


@writes(Rank.KEEP)
def touch(session: Session, lines: Sequence[Line]) -> None:
    """Have these lines looked at, whose turn it is there."""
    session.touched.update(dict.fromkeys(lines, True))


# -- Tasks that are made of others, with other parameters ------------------------------------------

# Of a task and what replaces it, one is carried out. Until the replacement has succeeded or was
# cancelled, the task is left alone, also once the replacement has failed: that is retried then.
# Once it has succeeded, the task is cancelled as `replaced`. A replacement may be replaced itself.
#
# In an ordered partition each takes the place of the task that it replaces. That one holds the
# partition meanwhile; its replacement is in no line, and goes at once. Once it has succeeded, the
# next one of the partition has its turn. `replaces` names the task whose place it is, `parent_id`
# the one that it was made of.

LOCK = f"SELECT id FROM retry_schedule {BY_ID} WHERE id IN ({{ids}}) ORDER BY id"
LOCKED = 10_000
"""Tasks that one statement locks."""

REPLACED = f"""
UPDATE retry_schedule {BY_ID}
SET status = 'cancelled', reason = 'replaced', finished_at = ?, updated_at = ? WHERE id = ?
"""


def lock_tasks(session: Session, tasks: Collection[int]) -> None:
    """Lock the rows of these tasks in the order of their ids, where other daemons may, too."""
    ids = sorted(tasks) if session.db.for_update else ()
    for first in range(0, len(ids), LOCKED):
        some = ids[first : first + LOCKED]
        marks = ", ".join("?" * len(some))
        session.db.all(LOCK.format(ids=marks) + session.db.for_update, some)


def find_locked(session: Session, task_id: int) -> Task:
    """A task that is to be changed, and with it what it replaces. Raises NotFound."""
    session.runs.write_roots(session.db)
    replaced = find_task(session.db, task_id).replaces if session.db.for_update else None
    if replaced is not None:
        lock_tasks(session, (task_id, replaced))
    return find_task(session.db, task_id, session.db.for_update)


def check_free(session: Session, task: Task, *, retries: bool = False) -> None:
    """Raise Replaced where another task is carried out in the place of this one, or was.

    `retries`: this one is to be tried, so that no other may be under way.
    """
    if (by := replaced_by(session.db, (task.id,), retries=retries).get(task.id)) is not None:
        raise Replaced(task.id, by)


def give_place(
    session: Session, task_id: int, place: int | None, status: str, reason: str | None
) -> None:
    """A task has ended so, and what it replaces, the task `place`, follows.

    That holds its partition no more, unless the rule of the partition has it wait for a person
    then. After a success it is over, and so is all else that replaces it: they are cancelled, and
    nothing is told of it. What waits again is left alone.
    """
    if place is None or status not in FINAL:
        return
    held = reason not in LETS_GO if status == Status.FAILED else status == Status.CANCELLED
    session.release_place(place, held=held)
    rows = session.db.all(FAMILY.format(ids="?"), (task_id,)) if status == Status.SUCCEEDED else ()
    for *_, id_, was, run_id, bulk_id in rows:
        if was in (Status.FAILED, Status.CANCELLED):
            session.db.run(REPLACED, (session.now(), session.now(), id_))
            session.moved(was, Status.CANCELLED)
            session.runs.move(run_id, was, Status.CANCELLED)
            session.outcome(bulk_id, was, -1)


@writes(Rank.HAND)
def replace(session: Session, task_id: int, new: NewTask, *, force: bool = False) -> Task:
    """Write `new`, made of a task that has ended with other parameters; the new task.

    It goes before what waits in the partition of the other, where that is ordered. `force`: also
    where the task has succeeded, or a later one of its ordered partition has started. Raises
    NotFound, Conflict, Replaced and Overtaken; and InvalidParams where it would be of another
    partition, which is ordered.
    """
    task = find_locked(session, task_id)
    if task.status in (Status.PENDING, Status.RUNNING):
        hint = f"cancel it first: orchestratorctl cancel {task_id}"
        raise Conflict(f"task {task_id} is {task.status} and may be sent as it is; {hint}")
    check_free(session, task, retries=True)
    if task.status == Status.SUCCEEDED and not force:
        raise Conflict(f"task {task_id} has succeeded; it runs again only with force")
    place, partition = place_of(session, task), new.partition
    if partition is not None:
        if place.ordered and plain(partition.value) != place.partition:
            why = "would be another one, and the order is that of the partition of the task"
            raise InvalidParams({"partition": f"{why}; cancel it, and make a new call"})
        # It takes a place, and has no turn of its own.
        partition = Partition(partition.value, partition.concurrency)
    keep_place(session, task, force=force)
    run_id = task.run_id
    if run_id is None and task.kind == Kind.CALL:
        run_id = task.id
        session.runs.begin(run_id, task.endpoint_id, task.created_at)
        session.runs.move(run_id, Status.PENDING, task.status)
    insert = Insert(changed(new, parent_id=task_id, partition=partition), run_id=run_id)
    inserted = insert_one(session, insert)
    values = place.id, inserted.id
    session.db.run("UPDATE retry_schedule SET replaces = ? WHERE id = ?", values)
    return find_task(session.db, inserted.id)
