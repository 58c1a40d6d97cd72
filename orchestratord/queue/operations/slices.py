"""More new tasks than one transaction should write: the rest waits beside the queue, in slices.

They are written with the change that they follow from, each slice one row; and each becomes tasks
in a transaction of its own, which deletes the row. So all of them come to be, each once, whenever a
daemon dies, and whichever takes a slice up.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import MISSING, asdict, fields
from typing import Any, NamedTuple

from orchestratord.model.partition_turn import Partition
from orchestratord.model.task import Effect, Kind, NewTask, Table, Upsert
from orchestratord.queue.batch import Rank, Write, reads
from orchestratord.queue.connection import Connection
from orchestratord.queue.operations.effects import SLICES_TABLE, apply_all_effects
from orchestratord.queue.records import Inserted, StoredEffect, duplicates
from orchestratord.queue.session import Session
from orchestratord.values import world

SLICE = 10_000
"""New tasks that are written in one transaction."""

TABLE = Table(
    SLICES_TABLE,
    {
        "name": "TEXT NOT NULL",
        "number": "INTEGER NOT NULL",
        "tasks": "TEXT NOT NULL",
        "run_id": "INTEGER",
        "calls": "INTEGER",
    },
    key=("name", "number"),
)
"""`name` grows with the time and is used once; `tasks` is a JSON list; `calls` of them belong to
the run `run_id`. The table is made as those of plugins are, and is none of theirs."""

_OLDEST = 'SELECT "name", "number", "tasks" FROM "queue_slices" ORDER BY "name", "number" LIMIT 1'
_TAKE = 'DELETE FROM "queue_slices" WHERE "name" = ? AND "number" = ?'


class Slice(NamedTuple):
    """New tasks that wait to be written."""

    name: str
    number: int
    tasks: Sequence[NewTask]

    @property
    def calls(self) -> Counter[int | None]:
        """How many of them belong to which run, and are counted there since it was written."""
        return Counter(task.run_id for task in self.tasks)


def sliced(effects: Sequence[Effect], now: int, run_id: int | None = None) -> list[Effect]:
    """Effects with rows of `TABLE` in the place of all new tasks beyond the first `SLICE`.

    `now`: milliseconds since the epoch. `run_id`: the run that the calls among them belong to.
    """
    kept: list[Effect] = []
    rest: list[NewTask] = []
    room = SLICE
    for effect in effects:
        if isinstance(effect, NewTask):
            room -= 1
            if room < 0:
                rest.append(effect)
                continue
        kept.append(effect)
    name = f"{now:015d}-{world.token_hex(8)}"
    for number, start in enumerate(range(0, len(rest), SLICE)):
        tasks = [_written(task, run_id) for task in rest[start : start + SLICE]]
        calls = sum("run_id" in task for task in tasks)
        values = {"tasks": json.dumps(tasks), "run_id": run_id, "calls": calls}
        kept.append(Upsert(TABLE.name, {"name": name, "number": number}, values))
    return kept


@reads
def oldest_slice(db: Connection) -> Slice | None:
    """The slice that is to become tasks next; None where there is none."""
    row = db.one(_OLDEST)
    if row is None:
        return None
    name, number, tasks = row
    return Slice(name, number, [_read(task) for task in json.loads(tasks)])


def write_slice(found: Slice, items: Sequence[StoredEffect]) -> Write[list[Inserted]]:
    """Write the tasks of a slice, `items`; all are duplicates where another daemon has."""
    return Write(Rank.NEW, None, _write_all, (found, items))


def _write_all(
    session: Session, several: Sequence[tuple[Slice, Sequence[StoredEffect]]]
) -> list[list[Inserted]]:
    results: list[list[Inserted]] = []
    for found, items in several:
        ours = session.db.run(_TAKE, (found.name, found.number)) > 0
        for run_id, count in found.calls.items() if ours else ():  # as tasks they count there again
            session.runs.join(run_id, -count)
        results.append(apply_all_effects(session, [items])[0] if ours else duplicates(items))
    return results


_MAPPINGS = {"params", "asked"}
_DEFAULTS = {
    one.name: one.default if one.default_factory is MISSING else one.default_factory()
    for one in fields(NewTask)
}


def _written(task: NewTask, run_id: int | None) -> dict[str, Any]:
    """What is not as it is by default; a call in its run."""
    found = {name: getattr(task, name) for name in _DEFAULTS}
    changed = {name: value for name, value in found.items() if value != _DEFAULTS[name]}
    for name in _MAPPINGS & changed.keys():
        changed[name] = dict(changed[name])
    if task.partition is not None:
        changed["partition"] = asdict(task.partition)
    if run_id is not None and task.kind == Kind.CALL:
        changed["run_id"] = run_id
    return changed


def _read(written: dict[str, Any]) -> NewTask:
    if partition := written.pop("partition", None):
        written["partition"] = Partition(**partition)
    return NewTask(**written)
