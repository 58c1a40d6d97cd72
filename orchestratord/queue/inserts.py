"""New tasks, and the other things that hooks ask to have written."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from orchestratord.errors import UniqueKeyReused
from orchestratord.queue.database import is_unfit
from orchestratord.queue.records import Insert, Inserted
from orchestratord.queue.rows import json_text, plain, same_json
from orchestratord.queue.session import LEASE_MS, Session
from orchestratord.task import Delete, NewTask, Status, Table, Task, Upsert

log = logging.getLogger("orchestratord.queue")

UNIQUE_KEY_MS = 24 * 3600 * 1000
"""How long an idempotency key counts."""

INSERT = """
INSERT INTO retry_schedule (
    kind, endpoint_id, webhook, phase, status, attempts, max_attempts, next_try, params, payload,
    parent_id, unique_key, locked_by, lease_until, started_at, idempotent, last_error,
    created_at, updated_at, scheduled_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

SAME_KEY = """
SELECT id, params, created_at, next_try FROM retry_schedule WHERE endpoint_id = ? AND unique_key = ?
"""

Effects = Sequence[Insert | Upsert | Delete]


def enqueue(session: Session, inserts: Sequence[Insert]) -> list[Inserted]:
    """Write all of them or none.

    Raises UniqueKeyReused where the idempotency key of one was used for other parameters.
    """
    now = session.now()
    return [_insert(session, insert, now) for insert in inserts]


def apply(session: Session, effects: Effects) -> list[Inserted]:
    """Write what hooks returned, in order; one result for each `Insert` among it.

    What the database will never take is logged and left out: a plugin's mistake must not hold up
    the task that it was made for.
    """
    now = session.now()
    inserted: list[Inserted] = []
    for effect in effects:
        try:
            if isinstance(effect, Insert):
                inserted.append(_insert(session, effect, now))
            elif isinstance(effect, Upsert):
                _upsert(session, effect)
            else:
                _delete(session, effect)
        except Exception as error:
            wrong = isinstance(error, UniqueKeyReused | TypeError | ValueError | RecursionError)
            if not (wrong or is_unfit(error)):
                raise
            what = f"a task of {effect.task.key}" if isinstance(effect, Insert) else effect.table
            log.error("what a plugin wrote is left out (%s): %s", what, error, exc_info=error)
            if isinstance(effect, Insert):
                inserted.append(Inserted(0, effect.task.key, None, None, duplicate=True))
    return inserted


def _insert(session: Session, insert: Insert, now: int) -> Inserted:
    new = insert.task
    if new.unique_key is not None:
        duplicate = _same_key(session, new, now)
        if duplicate is not None:
            return duplicate
    due = now + round(max(new.delay, 0.0) * 1000)
    scheduled_at = due if new.scheduled_at is None else new.scheduled_at
    born = insert.born
    status, owner, lease, started, idempotent = Status.PENDING, None, None, None, True
    if born is not None:
        status, owner, lease = Status.RUNNING, session.owner, now + LEASE_MS
        started, idempotent = now if born.idempotent else None, born.idempotent
    attempts = int(born is not None)
    error, payload = plain(new.error), plain(new.payload)
    id_ = session.db.insert(
        INSERT,
        (
            new.kind, new.endpoint_id, new.webhook, new.phase, status, attempts, new.max_attempts,
            due, json_text(new.params), payload, new.parent_id, new.unique_key, owner, lease,
            started, int(idempotent), error, now, now, scheduled_at,
        ),
    )  # fmt: skip
    session.moved(None, status)
    if born is None:
        return Inserted(id_, new.key, due, None)
    task = Task(
        id=id_, kind=new.kind, endpoint_id=new.endpoint_id, webhook=new.webhook, phase=new.phase,
        status=status, reason=None, attempts=attempts, max_attempts=new.max_attempts,
        next_try=due, params=new.params, payload=payload, parent_id=new.parent_id, created_at=now,
        updated_at=now, scheduled_at=scheduled_at, started_at=started, unique_key=new.unique_key,
        locked_by=owner, idempotent=idempotent, last_error=error,
    )  # fmt: skip
    return Inserted(id_, new.key, None, task)


def _same_key(session: Session, new: NewTask, now: int) -> Inserted | None:
    """The task that has this idempotency key, None where it is free (from now on)."""
    row = session.db.one(SAME_KEY, (new.endpoint_id, new.unique_key))
    if row is None:
        return None
    id_, params, created_at, next_try = row
    if created_at <= now - UNIQUE_KEY_MS:
        session.db.run("UPDATE retry_schedule SET unique_key = NULL WHERE id = ?", (id_,))
        return None
    if not same_json(params, new.params):
        raise UniqueKeyReused(
            f"the idempotency key {new.unique_key!r} was used for task {id_} of {new.endpoint_id}, "
            "with other parameters"
        )
    return Inserted(id_, new.key, next_try, None, duplicate=True)


def _upsert(session: Session, upsert: Upsert) -> None:
    table = _table(session, upsert.table)
    key, values, add = dict(upsert.key), dict(upsert.values), dict(upsert.add)
    update, insert = _statements(table.name, tuple(key), tuple(values), tuple(add))
    _check_columns(table, key, {*values, *add})
    # The update comes first: an insert would fail where the row is there and a column that may not
    # be NULL is not named.
    if update is None:
        # Nothing to set: only make sure that the row is there.
        session.db.run(f"{insert} ON CONFLICT DO NOTHING", tuple(key.values()))
    elif not session.db.run(update, (*values.values(), *add.values(), *key.values())):
        session.db.run(insert, (*key.values(), *values.values(), *add.values()))


def _delete(session: Session, delete: Delete) -> None:
    table, key = _table(session, delete.table), dict(delete.key)
    _check_columns(table, key, set())
    where = " AND ".join(f'"{name}" = ?' for name in key)
    session.db.run(f'DELETE FROM "{table.name}" WHERE {where}', tuple(key.values()))  # noqa: S608  # checked names


@lru_cache(maxsize=256)
def _statements(
    table: str, key: tuple[str, ...], values: tuple[str, ...], add: tuple[str, ...]
) -> tuple[str | None, str]:
    """UPDATE (None where there is nothing to set) and INSERT; the names have been declared."""
    sets = [f'"{name}" = ?' for name in values]
    sets += [f'"{name}" = COALESCE("{name}", 0) + ?' for name in add]
    where = " AND ".join(f'"{name}" = ?' for name in key)
    columns = (*key, *values, *add)
    names = ", ".join(f'"{name}"' for name in columns)
    marks = ", ".join("?" * len(columns))
    update = f'UPDATE "{table}" SET {", ".join(sets)} WHERE {where}' if sets else None  # noqa: S608
    return update, f'INSERT INTO "{table}" ({names}) VALUES ({marks})'  # noqa: S608


def _table(session: Session, name: str) -> Table:
    try:
        return session.tables[name]
    except KeyError:
        raise ValueError(f"no plugin has registered a table {name!r}") from None


def _check_columns(table: Table, key: Mapping[str, Any], others: set[str]) -> None:
    if set(key) != set(table.key):
        raise ValueError(f"the key of {table.name} is {', '.join(table.key)}")
    if unknown := others - set(table.columns):
        raise ValueError(f"{table.name} has no column {', '.join(sorted(unknown))}")
