"""Moving a queue from a file of SQLite into a PostgreSQL, in steps that can be taken up again.

Each step is a transaction of the target's that writes some rows and how far it has come, so nothing
is written twice and nothing left out, wherever it is broken off. The file is locked meanwhile; at
the end it is marked as moved, and no daemon opens it any more. Until then no daemon works on the
target; one that works on the file again ends the move, as no row is looked at a second time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from orchestratord.errors import DatabaseInUse, QueueError
from orchestratord.model.task import Table
from orchestratord.queue import facts, schema
from orchestratord.queue.connection import Connection
from orchestratord.queue.database import Database
from orchestratord.queue.housekeeping.failing_told import TOLD
from orchestratord.queue.housekeeping.undeclared import REMOVED
from orchestratord.queue.models import TABLES, DaemonRow, Fact, RetrySchedule, SchemaRow
from orchestratord.queue.operations.plugin_rows import types_of
from orchestratord.queue.operations.schedules import MISSED
from orchestratord.queue.postgres.claim_postgres import CLOCK
from orchestratord.queue.schema import HALF, LEAVING, MOVED, NEVER
from orchestratord.queue.sqlite.sqlite_database import SqliteFile
from orchestratord.queue.store import open_database
from orchestratord.values import world

# ruff: noqa: S608  # what is pasted here are names of tables and columns, never values

PAGE = 500
"""Rows in one transaction at most, …"""
PAGE_BYTES = 8 << 20
"""… and about so many bytes."""

MODELS = [one for one in TABLES if one not in (DaemonRow, Fact, SchemaRow)]
"""What is moved; daemons are not, nor what each database keeps of itself."""
FACTS = (REMOVED, TOLD, MISSED)
"""How the names of the facts begin that are of the queue, and not of its database."""

_TYPES = {"TEXT": "text", "DOUBLE": "float8"}
"""Of the columns that hold no whole numbers, by peewee's names."""

STATE = "move"
"""The name under which the target keeps how far it has come."""

TABLES_THERE = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
LAST_ID = "SELECT seq FROM sqlite_sequence WHERE name = ?"
AT_WORK = f"SELECT host, pid FROM daemons WHERE lease_until > ({CLOCK}) LIMIT 1"


@dataclass(frozen=True, slots=True)
class _Part:
    """A table to be moved."""

    name: str
    columns: Mapping[str, str]
    """With their types."""
    numbered: bool
    """Whether its ids are the database's."""


def move(
    source_url: str,
    target_url: str,
    tables: Iterable[Table],
    moved: Callable[[str, int, int], None] = lambda table, done, of: None,
) -> int:
    """Move everything; the number of tasks that were moved, this time or before.

    Args:
        source_url: `sqlite:////absolute/path`; no daemon may have it.
        target_url: `postgresql://…`; empty, or where an earlier move was broken off.
        tables: those of plugins.
        moved: told of each step: the table, its rows so far, and how many there are.

    Raises:
        DatabaseInUse: a daemon has the source, it was moved before, or daemons work on the target.
        QueueError: the target has rows of its own, the source was used since an earlier move was
            broken off, or one of the two cannot be opened.
    """
    declared = tuple(tables)
    source, target = open_database(source_url), open_database(target_url)
    if not isinstance(source, SqliteFile) or isinstance(target, SqliteFile):
        raise QueueError("a queue moves from sqlite:///… to postgresql://…")
    if not source.path.exists():
        raise QueueError(f"there is no {source.path}")
    source.open()
    try:
        with (
            closing(_ready(target, declared)) as new,
            closing(_source(source, declared, new, target.shown)) as old,
        ):
            try:
                return _move(old, new, _parts(declared), source.shown, target.shown, moved)
            except (*target.failures.errors, *source.failures.errors) as error:
                of_target = isinstance(error, target.failures.errors)
                raise (target if of_target else source).failures.named(error) from error
    finally:
        source.close()


def _source(source: Database, declared: Sequence[Table], new: Connection, shown: str) -> Connection:
    """The source, also where all of it was moved and only the last word on that is missing."""
    try:
        return _ready(source, declared)
    except DatabaseInUse:
        if facts.get(new, HALF) is None:
            raise
        old = source.connect(writes=True)
        if facts.get(old, MOVED) != shown:
            old.close()
            raise
        return old


def _ready(database: Database, declared: Sequence[Table]) -> Connection:
    connection = database.connect(writes=True)
    try:
        with database.models(connection) as orm:
            schema.prepare(database, orm, declared)
    except BaseException:
        connection.close()
        raise
    return connection


def _parts(declared: Sequence[Table]) -> list[_Part]:
    parts = []
    for model in MODELS:
        fields = model._meta.sorted_fields
        columns = {field.column_name: _TYPES.get(field.field_type, "bigint") for field in fields}
        parts.append(_Part(model._meta.table_name, columns, fields[0].column_name == "id"))
    for table in declared:
        types = types_of(table, list(table.columns))
        parts.append(_Part(table.name, dict(zip(table.columns, types, strict=True)), False))
    return parts


def _move(
    old: Connection,
    new: Connection,
    parts: Sequence[_Part],
    source: str,
    target: str,
    moved: Callable[[str, int, int], None],
) -> int:
    known = {part.name for part in parts} | {one._meta.table_name for one in TABLES}
    others = sorted({name for (name,) in old.all(TABLES_THERE)} - {*known, schema.HISTORY})
    if left := [name for name in others if old.one(f'SELECT 1 FROM "{name}" LIMIT 1')]:
        raise QueueError(
            f"{source} has rows in {', '.join(left)}, which no plugin that is loaded declares: "
            "load it, or, if you do not need them, delete these rows"
        )
    state = _begin(old, new, parts, source)
    for part in parts:
        total = old.value(f'SELECT count(*) FROM "{part.name}"')
        last, done = state["tables"].get(part.name, (0, 0))
        while page := _page(old, part, last):
            last, done = page[-1][0], done + len(page)
            state["tables"][part.name] = (last, done)
            new.begin()
            types = list(part.columns.values())
            new.many(_insert(part), types, [_row(part, values) for _, *values in page])
            facts.put(new, STATE, json.dumps(state))
            new.commit()
            moved(part.name, done, total)
    old.begin()
    facts.put(old, MOVED, target)
    old.run("UPDATE schema SET compatible_from = ?", (NEVER,))
    old.commit()
    new.begin()
    facts.forget(new, HALF)
    for prefix in FACTS:
        for name in facts.beginning_with(new, prefix):  # of one who worked there once
            facts.forget(new, prefix + name)
        for name, value in facts.beginning_with(old, prefix).items():
            facts.put(new, prefix + name, value)
    new.commit()
    return int(state["tables"].get(RetrySchedule._meta.table_name, (0, 0))[1])


def _begin(old: Connection, new: Connection, parts: Sequence[_Part], source: str) -> dict[str, Any]:
    """How far an earlier move came; or, for the first one, the target made ready for it."""
    instance, known = facts.get(old, "instance"), facts.get(new, STATE)
    if known is not None:
        state: dict[str, Any] = json.loads(known)
        if state["from"] != instance:
            raise QueueError("another queue was moved to this database before")
        if state.get("token") != facts.get(old, LEAVING):
            raise QueueError(
                f"{source} was used since this move was broken off, and what was done there is "
                f"missing here: move it into an empty database"
            )
        return state
    if (daemon := new.one(AT_WORK)) is not None:
        raise DatabaseInUse(
            f"a daemon works on the target, pid {daemon[1]} on {daemon[0]}: stop it first; one "
            f"that was killed is given up when its lease has run out"
        )
    if full := [part.name for part in parts if new.one(f'SELECT 1 FROM "{part.name}" LIMIT 1')]:
        raise QueueError(
            f"the target has rows of its own: move into an empty database, or, if you do not need "
            f"them, delete them there with TRUNCATE {', '.join(full)}"
        )
    token = world.token_hex(8)
    old.begin()
    facts.put(old, LEAVING, token)
    old.commit()
    state = {"from": instance, "token": token, "tables": {}}
    new.begin()
    for part in parts:
        # Tasks that are made there meanwhile get ids behind these.
        if part.numbered and (last := old.value(LAST_ID, (part.name,))):
            new.one(f"SELECT setval('{part.name}_id_seq', ?::bigint)", (last,))
    assert instance is not None  # it is made with the queue
    facts.put(new, "instance", instance)
    facts.put(new, HALF, source)
    facts.put(new, STATE, json.dumps(state))
    new.commit()
    return state


def _page(old: Connection, part: _Part, last: int) -> list[tuple[Any, ...]]:
    """The next rows of a table, each behind its rowid."""
    # Others may have written bytes into a column of text, which is none of theirs for PostgreSQL.
    columns = ", ".join(
        f'CAST("{name}" AS TEXT)' if kind == "text" else f'"{name}"'
        for name, kind in part.columns.items()
    )
    select = f'SELECT rowid, {columns} FROM "{part.name}" WHERE rowid > ? ORDER BY rowid LIMIT ?'
    rows = old.all(select, (last, PAGE))
    size = 0
    for number, row in enumerate(rows):
        size += sum(len(value) for value in row if isinstance(value, str))
        if size > PAGE_BYTES:
            return rows[: number + 1]
    return rows


def _insert(part: _Part) -> str:
    columns = ", ".join(f'"{name}"' for name in part.columns)
    return f'INSERT INTO "{part.name}" ({columns}) VALUES {{rows}}'


def _row(part: _Part, values: Sequence[Any]) -> list[Any]:
    """A row as the target holds it. Its daemon is dead: what it held can be taken over at once."""
    found = dict(zip(part.columns, values, strict=True))
    if found.get("lease_until"):
        found["lease_until"] = int(world.time() * 1000)
    # As `plain` writes it; older versions did not.
    return [
        value.replace("\0", "\U0010ffff0") if isinstance(value, str) else value
        for value in found.values()
    ]
