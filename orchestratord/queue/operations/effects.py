"""What hooks return and clients bring: new tasks, rows, members of batches."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain, repeat
from typing import Any

from orchestratord.errors import UniqueKeyReused
from orchestratord.model.recurring_rows import RecurringRows, upserts_of
from orchestratord.model.task import BatchMember, Delete, NewChore, Slice, Table, Upsert
from orchestratord.queue.batch import Rank, Write, writes
from orchestratord.queue.connection import Singly
from orchestratord.queue.operations import chores
from orchestratord.queue.operations.insert import SAME_KEY, NewRows, lock_order
from orchestratord.queue.operations.plugin_rows import Upserts, check_row
from orchestratord.queue.records import Chore, Insert, Inserted, StoredEffect, duplicates
from orchestratord.queue.session import Session

log = logging.getLogger("orchestratord.queue")

Effects = Sequence[StoredEffect]
DatedRows = tuple[Sequence[RecurringRows], int]
"""What recurs with a change, and when that was decided."""
_NOTHING: DatedRows = (), 0

NONSENSE = (UniqueKeyReused, TypeError, ValueError, RecursionError)
"""What is raised for what cannot be written, before it is tried."""


def write_effects(
    effects: Effects, expected: Sequence[Upsert] = (), asked: int = 0
) -> Write[list[Inserted]]:
    """Write what hooks returned outside of any task, after what is `asked` for: so many of the
    first ones. One result for each `Insert` among it.

    Raises, with nothing written, Conflict where a row is not as it is `expected`, and what
    `apply_all_effects` does for what is asked for.
    """
    return Write(Rank.HAND, None, _write_effects, (effects, expected, asked))


def _write_effects(
    session: Session, calls: Sequence[tuple[Effects, Sequence[Upsert], int]]
) -> list[list[Inserted]]:
    expected = [row for _, rows, _ in calls for row in rows]
    if expected and len(calls) > 1:
        raise Singly("one of these may write a row that another expects otherwise")
    for row in expected:
        check_row(session, row)
    groups = [part for effects, _, asked in calls for part in (effects[:asked], effects[asked:])]
    results = apply_all_effects(session, groups, asked=range(0, len(groups), 2))
    return [[*one, *told] for one, told in zip(results[::2], results[1::2], strict=True)]


def apply_effects(session: Session, effects: Effects, *, asked: bool = False) -> list[Inserted]:
    """Write what hooks returned, one by one and in order; one result for each `Insert` among it.

    What the database will never take is logged and left out: a plugin's mistake must not hold up
    the task that it was made for. It is raised where it is `asked` for: its caller is told.
    """
    inserted: list[Inserted] = []
    for effect in _in_order(session, effects):
        try:
            with session.db.one_by_one(), session.db.guard():
                inserted += _apply_together(session, [[effect]], asked=(0,) if asked else ())[0]
        except Exception as error:
            if asked or not (isinstance(error, NONSENSE) or session.db.failures.is_unfit(error)):
                raise
            _leave_out(effect, error, inserted)
    return inserted


def apply_all_effects(
    session: Session,
    groups: Sequence[Effects],
    recurring: Sequence[DatedRows] = (),
    *,
    asked: Container[int] = (),
) -> list[list[Inserted]]:
    """What `apply_effects` does, for the effects of several changes, and the `recurring` rows of
    each. `asked`: the places of the groups that are asked for.

    Raises what the database raises for what it does not take: then each has to be looked at, as it
    is where that is written `singly`.
    """
    if session.db.singly:
        dated = recurring or repeat(_NOTHING, len(groups))
        return [
            apply_effects(session, [*upserts_of(rows, at), *group], asked=place in asked)
            for place, (group, (rows, at)) in enumerate(zip(groups, dated, strict=True))
        ]
    return _apply_together(session, groups, recurring, asked=asked)


def _apply_together(
    session: Session,
    groups: Sequence[Effects],
    recurring: Sequence[DatedRows] = (),
    *,
    asked: Container[int] = (),
) -> list[list[Inserted]]:
    effects = list(chain.from_iterable(groups))
    if not effects and not any(rows for rows, _ in recurring):
        return [[] for _ in groups]
    inserts = list(all_inserts(effects)) if Insert in map(type, effects) else []
    lock_order(session, inserts)
    new, upserts = NewRows(session, len(inserts)), Upserts(session)
    results: list[list[Inserted]] = []
    dated = recurring or repeat(_NOTHING, len(groups))
    for place, (group, (rows, at)) in enumerate(zip(groups, dated, strict=True)):
        if rows:
            upserts.recur(rows, at)
        written = _add_all(session, new, upserts, group, asked=place in asked) if group else []
        results.append(written)
    new.flush()
    upserts.flush()
    return results


def _in_order(session: Session, effects: Effects) -> Effects:
    """Effects in the order in which `apply_all_effects` locks: new tasks, members of batches, rows
    table by table, by their keys. Those of one row stay in theirs."""
    if len(effects) < 2 or not session.db.for_update:
        return effects
    members = [effect for effect in effects if isinstance(effect, BatchMember)]
    rows = [effect for effect in effects if isinstance(effect, Upsert | Delete)]
    with suppress(TypeError, KeyError):  # what cannot be a key is left out as it is written
        rows = sorted(rows, key=partial(_place_of, session.tables))
    others = [effect for effect in effects if isinstance(effect, Insert | Slice | NewChore)]
    return [*others, *members, *rows]


def _place_of(tables: Mapping[str, Table], row: Upsert | Delete) -> tuple[Any, ...]:
    return row.table, *(row.key[name] for name in tables[row.table].key)


def _add_all(
    session: Session, new: NewRows, upserts: Upserts, effects: Effects, *, asked: bool = False
) -> list[Inserted]:
    inserted: list[Inserted] = []
    for effect in effects:
        try:
            if isinstance(effect, Upsert):
                upserts.add(effect)
            elif isinstance(effect, Insert):
                inserted.append(add_whole(session, new, upserts, effect))
            elif isinstance(effect, BatchMember):
                upserts.add_member(effect)
            elif isinstance(effect, Slice):
                # Its calls belong to their run already, or that would end before them.
                session.runs.join(effect.run_id, effect.calls)
                chores.add(session, chores.SLICE, effect.name, session.now(), effect.tasks)
            elif isinstance(effect, NewChore):
                chores.add_to_line(session, effect)
            else:
                upserts.delete(effect)
        except NONSENSE as error:
            if asked:
                raise
            _leave_out(effect, error, inserted)
    return inserted


def add_whole(
    session: Session,
    new: NewRows,
    upserts: Upserts,
    insert: Insert,
    *,
    key_is_free: bool = False,
) -> Inserted:
    """One that is written with others, and what follows from it where it is written succeeded.
    `key_is_free` as in `NewRows.add`."""
    inserted = new.add(insert, key_is_free=key_is_free)
    if insert.happened is None or inserted.duplicate:
        return inserted
    effects = insert.happened.effects
    if session.db.singly:
        return replace(inserted, following=apply_effects(session, effects))
    return replace(inserted, following=_add_all(session, new, upserts, effects))


def all_inserts(effects: Effects) -> Iterator[Insert]:
    """The new tasks among these, and those that follow at once from them."""
    for effect in effects:
        if isinstance(effect, Insert):
            yield effect
            if effect.happened is not None:
                yield from all_inserts(effect.happened.effects)


def _leave_out(effect: StoredEffect, error: Exception, inserted: list[Inserted]) -> None:
    if isinstance(effect, Insert):
        what = f"the queue of {effect.task.key}"
        inserted += duplicates([effect])
    else:
        names = {BatchMember: "webhook", Slice: "name", NewChore: "kind"}
        what = getattr(effect, names.get(type(effect), "table"))
    log.error("skipped a plugin's write to %s: %s", what, error, exc_info=error)


@writes(Rank.HAND)
def end_chore(session: Session, chore: Chore, effects: Effects) -> list[Inserted]:
    """A chore is done, and this follows; all are duplicates where another daemon has taken it
    over."""
    return apply_effects(session, effects) if chores.end(session, chore) else duplicates(effects)


# -- New tasks, as clients bring them --------------------------------------------------------------


def enqueue(new: Sequence[Insert], further: str | None = None) -> Write[list[Inserted]]:
    """Write new tasks, all or none of them, and what follows at once from those that are written
    succeeded.

    `further`: of a batch under one idempotency key, the key that one more call of it would have.

    Raises StorageFull, and UniqueKeyReused where an idempotency key of the last 24 hours comes
    back with other parameters, or with a batch of more or fewer calls; with the same ones the first
    task is the answer.
    """
    return Write(Rank.NEW, None, _enqueue_together, (new, further), needs_room=True)


def _enqueue_together(
    session: Session, calls: Sequence[tuple[Sequence[Insert], str | None]]
) -> list[list[Inserted] | Exception]:
    """New tasks, as clients bring them: those of one call are written all or none."""
    inserts = [one for call, _ in calls for one in all_inserts(call)]
    lock_order(session, inserts)
    new, upserts = NewRows(session, len(inserts)), Upserts(session)
    results: list[list[Inserted] | Exception] = []
    for call, further in calls:
        mark = new.mark()
        try:
            made = [add_whole(session, new, upserts, one) for one in call]
            if further is not None:
                _check_batch(session, made, further)
            results.append(made)
        except NONSENSE as error:
            wrote = any(one.task.once is not None or one.happened is not None for one in call)
            if wrote and not session.db.singly:
                raise Singly from error  # what it wrote beside these has to be undone, too
            new.undo(mark)
            results.append(error)
    new.flush()
    upserts.flush()
    return results


def _check_batch(session: Session, made: Sequence[Inserted], further: str) -> None:
    """Raise UniqueKeyReused where the batch before under this key had fewer calls, or more."""
    last = made[-1]
    row = session.db.one(SAME_KEY, (last.key.endpoint_id, further)) if last.duplicate else None
    # A batch whose keys count no longer may have had more calls, too.
    had_more = row is not None and row[0] > last.id
    if had_more or len({one.duplicate for one in made}) > 1:
        raise UniqueKeyReused("the idempotency key was used with a batch of more or fewer calls")
