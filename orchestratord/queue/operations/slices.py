"""More new tasks than one transaction should write: the rest waits beside the queue, in slices.

They are written with the change that they follow from, each slice one chore, which becomes tasks in
a transaction of its own. So all of them come to be, each once and in their order.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import MISSING, asdict, fields
from typing import Any

from orchestratord.model.partition_turn import Partition
from orchestratord.model.task import Effect, Kind, NewTask, Slice
from orchestratord.queue.batch import Rank, Write, reads
from orchestratord.queue.connection import Connection
from orchestratord.queue.operations import chores
from orchestratord.queue.operations.effects import apply_all_effects
from orchestratord.queue.records import Chore, Inserted, StoredEffect, duplicates
from orchestratord.queue.session import Session
from orchestratord.values import world

SLICE = 10_000
"""New tasks that are written in one transaction."""


def sliced(
    effects: Sequence[Effect], now: int, run_id: int | None = None
) -> tuple[list[Effect], list[Slice]]:
    """Effects without the new tasks beyond the first `SLICE`, and the slices of these.

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
    slices = []
    for number, start in enumerate(range(0, len(rest), SLICE)):
        tasks = [_written(task, run_id) for task in rest[start : start + SLICE]]
        calls = sum("run_id" in task for task in tasks)
        # Their names are in the order in which they are to be written.
        slices.append(Slice(f"{name}-{number:06}", json.dumps(tasks), run_id, calls))
    return kept, slices


@reads
def tasks_of(db: Connection, chore: Chore) -> list[NewTask]:
    """The tasks of a slice."""
    found = db.one("SELECT data FROM chores WHERE id = ?", (chore.id,))
    return [_read(task) for task in json.loads(found[0])] if found is not None else []


def write_slice(
    chore: Chore, tasks: Sequence[NewTask], items: Sequence[StoredEffect]
) -> Write[list[Inserted]]:
    """Write the tasks of a slice, as `items`; all are duplicates where another daemon has."""
    return Write(Rank.NEW, None, _write_all, (chore, Counter(task.run_id for task in tasks), items))


def _write_all(
    session: Session, several: Sequence[tuple[Chore, Counter[int | None], Sequence[StoredEffect]]]
) -> list[list[Inserted]]:
    results: list[list[Inserted]] = []
    for chore, calls, items in several:
        ours = chores.end(session, chore)
        for run_id, count in calls.items() if ours else ():  # as tasks they count there again
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
