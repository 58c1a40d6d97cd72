"""The version of the tables, the way to it from any older one, and the tables of plugins."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from pathlib import Path

from peewee import Database, SqliteDatabase
from playhouse.migrations import Runner

from orchestratord.errors import DatabaseInUse, PluginError
from orchestratord.queue.models import (
    AttemptRow,
    BulkRow,
    EndpointState,
    Fact,
    RetrySchedule,
    ScheduleSlot,
    SchemaRow,
)
from orchestratord.task import Table

VERSION = 2
"""The schema that this code reads and writes: the number of the last migration."""

MIGRATIONS = Path(__file__).parent / "migrations"
"""One numbered file a version; each ends with a `stamp`."""

TABLES = (RetrySchedule, AttemptRow, EndpointState, ScheduleSlot, BulkRow, Fact, SchemaRow)

_HISTORY = "schema_migration"
_DEFAULTS = {"TEXT": "''", "INTEGER": "0", "REAL": "0.0"}


def migrate(database: Database, folder: Path = MIGRATIONS) -> None:
    """Bring a database, an empty one too, to the last version; each step in its transaction.

    Raises DatabaseInUse where a newer version has changed it so that this one cannot use it.
    """
    if database.table_exists("schema"):
        row = SchemaRow.select().bind(database).first()
        if row is not None and row.compatible_from > VERSION:
            raise DatabaseInUse(
                f"the database has schema {row.version}, which needs a version of orchestratord "
                f"that knows schema {row.compatible_from}; this one knows {VERSION}"
            )
    Runner(database, str(folder), _HISTORY).up()


def stamp(database: Database, *, version: int, compatible_from: int) -> None:
    """Write down which version the schema has now, within the migration that made it so.

    `compatible_from`: the oldest version whose daemons can still use the database.
    """
    values = {"id": 1, "version": version, "compatible_from": compatible_from}
    query = SchemaRow.insert(values).on_conflict(conflict_target=[SchemaRow.id], update=values)
    query.bind(database).execute()


def instance_of(database: Database) -> str:
    """The random name of this queue, made with it and kept in it."""
    with database.atomic():
        row = Fact.select(Fact.value).where(Fact.name == "instance").bind(database).first()
        if row is not None:
            return str(row.value)
        instance = secrets.token_hex(8)
        Fact.insert({"name": "instance", "value": instance}).bind(database).execute()
        return instance


def create_plugin_tables(database: SqliteDatabase, tables: Iterable[Table]) -> dict[str, Table]:
    """Create the tables of plugins and add the columns that they have gained.

    Returns them by name. Raises PluginError for a declaration that is no table.
    """
    found: dict[str, Table] = {}
    for table in tables:
        _check(table)
        with database.atomic():
            if database.table_exists(table.name):
                _add_columns(database, table)
            else:
                columns = [f'"{name}" {kind}' for name, kind in table.columns.items()]
                key = ", ".join(f'"{name}"' for name in table.key)
                body = ", ".join([*columns, f"PRIMARY KEY ({key})"])
                _run(database, f'CREATE TABLE "{table.name}" ({body})')
        found[table.name] = table
    return found


def _add_columns(database: SqliteDatabase, table: Table) -> None:
    there = {column.name for column in database.get_columns(table.name)}
    for name, kind in table.columns.items():
        if name not in there:
            default = ""
            if kind.upper().endswith("NOT NULL"):
                default = f" DEFAULT {_DEFAULTS[kind.split()[0].upper()]}"
            _run(database, f'ALTER TABLE "{table.name}" ADD COLUMN "{name}" {kind}{default}')


def _run(database: Database, sql: str) -> None:
    database.execute_sql(sql)  # type: ignore[no-untyped-call]  # peewee leaves it so


def _check(table: Table) -> None:
    core = {model._meta.table_name for model in TABLES} | {_HISTORY}
    name = table.name.lower()
    wrong = None
    if name.startswith("sqlite_"):
        wrong = "the database keeps such names for itself"
    elif name in core:
        wrong = "the queue has a table of that name"
    if wrong:
        raise PluginError(f"the table {table.name!r} cannot be created: {wrong}")
