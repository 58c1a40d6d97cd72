"""What hooks return, written with the change that caused it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from orchestratord.errors import UniqueKeyReused
from orchestratord.queue.inserts import NewRows, insert_one
from orchestratord.queue.records import Insert, Inserted
from orchestratord.queue.session import Session
from orchestratord.queue.upserts import Upserts, delete, upsert
from orchestratord.task import Delete, Upsert

log = logging.getLogger("orchestratord.queue")

Effects = Sequence[Insert | Upsert | Delete]

NONSENSE = (UniqueKeyReused, TypeError, ValueError, RecursionError)
"""What is raised for what cannot be written, before it is tried."""


def apply(session: Session, effects: Effects) -> list[Inserted]:
    """Write what hooks returned, in order; one result for each `Insert` among it.

    What the database will never take is logged and left out: a plugin's mistake must not hold up
    the task that it was made for.
    """
    now = session.now()
    inserted: list[Inserted] = []
    for effect in effects:
        try:
            with session.db.guard():
                if isinstance(effect, Insert):
                    inserted.append(insert_one(session, effect, now))
                elif isinstance(effect, Upsert):
                    upsert(session, effect)
                else:
                    delete(session, effect)
        except Exception as error:
            if not (isinstance(error, NONSENSE) or session.db.failures.is_unfit(error)):
                raise
            _leave_out(effect, error, inserted)
    return inserted


def apply_all(session: Session, groups: Sequence[Effects]) -> list[list[Inserted]]:
    """What `apply` does, for the effects of several changes.

    Raises what the database raises for what it does not take: then `apply` has to look at each.
    """
    if not any(groups):
        return [[] for _ in groups]
    expected = sum(isinstance(effect, Insert) for effects in groups for effect in effects)
    new, upserts = NewRows(session, expected), Upserts(session)
    results: list[list[Inserted]] = []
    for effects in groups:
        inserted: list[Inserted] = []
        for effect in effects:
            try:
                if isinstance(effect, Insert):
                    inserted.append(new.add(effect))
                elif isinstance(effect, Upsert):
                    upserts.add(effect)
                else:
                    upserts.flush()
                    delete(session, effect)
            except NONSENSE as error:
                _leave_out(effect, error, inserted)
        results.append(inserted)
    new.flush()
    upserts.flush()
    return results


def _leave_out(
    effect: Insert | Upsert | Delete, error: Exception, inserted: list[Inserted]
) -> None:
    what = f"a task of {effect.task.key}" if isinstance(effect, Insert) else effect.table
    log.error("what a plugin wrote is left out (%s): %s", what, error, exc_info=error)
    if isinstance(effect, Insert):
        inserted.append(Inserted(0, effect.task.key, None, None, duplicate=True))
