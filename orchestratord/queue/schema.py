"""The version of the tables, the way to it from any older one, and the tables of plugins."""

from __future__ import annotations

import logging
import runpy
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import peewee
from peewee import PostgresqlDatabase

from orchestratord.errors import DatabaseInUse, PluginError
from orchestratord.model.task import Table
from orchestratord.queue.database import Database
from orchestratord.queue.models import Fact, SchemaRow
from orchestratord.queue.tables.table_parts import REWRITTEN, PostgresTables
from orchestratord.values import world

log = logging.getLogger("orchestratord.queue")

_COCKROACH = "playhouse.cockroachdb"

BASELINE = 15
"""The oldest schema that can be brought on: that of 1.0.0, and the number of the first
migration."""
VERSION = 26
"""The schema that this code reads and writes: the number of the last one."""

MIGRATIONS = Path(__file__).parent / "migrations"
"""One numbered file a version, for both databases."""

MOVED = "moved"
"""The fact that a queue is now in another database, and in which one."""
HALF = "half moved"
"""The fact that a queue is being moved into this database, and from where, until all is there."""
LEAVING = "leaving"
"""The fact that a move out of this database has begun, until a daemon works on it again."""
NEVER = 1_000_000
"""A version that will not come, for a database that is not to be used any more."""

LOCK_TIMEOUT = "2s"
LOCK_TRIES = 8
"""How often a lock is asked for, where others use the tables that are to change."""

HISTORY = "schema_migration"
"""The table of the steps that a database has taken."""
_STEPS = "steps:"
"""How the name of the fact begins that says how many steps a plugin's table has had."""
_TEXT = PostgresTables.field_types["TEXT"]
_POSTGRES = {"TEXT": _TEXT, "INTEGER": "BIGINT", "REAL": "DOUBLE PRECISION"}
_TYPES = {"TEXT": "TEXT", "INTEGER": "BIGINT", "REAL": "DOUBLE PRECISION"}
"""As PostgreSQL names them for a column."""
_DEFAULTS = {"TEXT": "''", "INTEGER": "0", "REAL": "0.0"}


def prepare(
    database: Database, orm: peewee.Database, declared: Sequence[Table]
) -> dict[str, Table]:
    """Bring a database to the last version, with the tables of plugins; these by their names.

    Nothing is locked where nothing is to be done. Raises DatabaseInUse and PluginError.
    """
    version = version_of(orm)
    if version < VERSION or _lacking(orm, declared):
        with database.alone():
            if 0 < version < VERSION:
                database.back_up(f"before-schema-{VERSION}")
            migrate(orm)
            create_plugin_tables(orm, declared)
    return {table.name: table for table in declared}


def compatible_from() -> int:
    """The oldest schema whose daemons can use a database that this version has brought on."""
    (last,) = MIGRATIONS.glob(f"{VERSION:04}_*.py")
    return int(runpy.run_path(str(last))["COMPATIBLE_FROM"])


def version_of(orm: peewee.Database) -> int:
    """The version of the schema; 0 for an empty database.

    Raises DatabaseInUse where a newer version has changed it so that this one cannot use it, and
    where it is older than the baseline.
    """
    if not orm.table_exists("schema"):
        return 0
    row = SchemaRow.select().bind(orm).first()
    if row is None:
        return 0
    if row.compatible_from == NEVER:
        where = fact(orm, MOVED) or "another database"
        raise DatabaseInUse(f"this queue was moved to {where}: set `database` to that")
    if row.compatible_from > VERSION:
        raise DatabaseInUse(
            f"the database has schema {row.version}, which needs a version of orchestratord "
            f"that knows schema {row.compatible_from}; this one knows {VERSION}"
        )
    if row.version < BASELINE:
        raise DatabaseInUse(
            f"the database has schema {row.version}, from before the first release of "
            f"orchestratord; start orchestratord 1.0.0 on it once, which brings schema 7 or newer "
            f"to {BASELINE}"
        )
    return int(row.version)


def enter(orm: peewee.Database) -> None:
    """A daemon works on it from here on: a move out of it that was broken off cannot go on.

    Raises DatabaseInUse where only a part of a queue is there: its pauses, say, may be missing.
    """
    if (half := fact(orm, HALF)) is not None:
        raise DatabaseInUse(
            f"only a part of the queue in {half} is here: bring the rest with "
            f"`orchestratord move-queue {half} TO`, and start the daemon then"
        )
    Fact.delete().where(Fact.name == LEAVING).bind(orm).execute()


def migrate(orm: peewee.Database, folder: Path | None = None) -> None:
    """Bring a database, an empty one too, to the last version; each step in its transaction.

    Raises DatabaseInUse where a newer version has changed it so that this one cannot use it, and
    where it is older than the baseline.
    """
    runner = _runner(orm, folder or MIGRATIONS)
    bring = runner.up if version_of(orm) else runner.make_tables
    tries = 0
    while True:
        try:
            bring()
            return
        except peewee.OperationalError:
            # A lock that was not to be had: what waited behind us goes first now.
            tries += 1
            if not isinstance(orm, PostgresqlDatabase) or tries == LOCK_TRIES:
                raise
            log.warning("cannot change the schema while others use it; again in %d s", tries)
            world.sleep(tries)


def _runner(orm: peewee.Database, folder: Path) -> Any:
    """What runs migrations, and writes down to which version each has led."""
    # Here, as nearly every start finds the tables made; it takes 4 ms. It would import psycopg for
    # the sake of CockroachDB, which stays as long as the daemon: 10 MiB.
    other: Any = sys.modules.setdefault(_COCKROACH, None)  # type: ignore[arg-type]
    from playhouse.migrations import Runner

    if other is None:
        del sys.modules[_COCKROACH]

    class StampingRunner(Runner):  # type: ignore[misc]  # peewee leaves it untyped
        def make_tables(self) -> None:
            """Make all tables in an empty database, as the models have them now; the migrations
            after the baseline are noted as done."""
            with self.database.atomic():
                migrations = self.migrations()
                self.up(migrations[0].name)
                self.fake()
                _stamp(self.database, migrations[-1].idx, migrations[-1].load())

        def _run(self, name: str, module: Any, direction: str, fake: bool = False) -> None:
            up = module.up

            def stamped(migrator: Any, db: peewee.Database) -> None:
                if isinstance(db, PostgresqlDatabase) and getattr(module, "atomic", True):
                    # Who waits for a lock on a table keeps all others from it that come later: not
                    # for long.
                    _run(db, f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                up(migrator, db)
                _stamp(db, int(name.partition("_")[0]), module)

            module.up = stamped
            super()._run(name, module, direction, fake)

    return StampingRunner(orm, str(folder), HISTORY)


def build_index(orm: peewee.Database, name: str, on: str) -> None:
    """Build an index on a table that may be large, while others read and write it.

    For a migration with `atomic = False`, since it takes several transactions. One that was broken
    off has left an index behind that is no good; it is built anew.

    Args:
        orm: the database.
        name: of the index.
        on: what stands behind `ON`: the table, its columns, and which rows.
    """
    if not isinstance(orm, PostgresqlDatabase):
        _run(orm, f'CREATE INDEX IF NOT EXISTS "{name}" ON {on}')
        return
    broken = f"SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('{name}') AND NOT indisvalid"  # noqa: S608
    if orm.execute_sql(broken).fetchone():  # type: ignore[no-untyped-call]
        _run(orm, f"DROP INDEX CONCURRENTLY {name}")
    _run(orm, f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {on}")


def _stamp(orm: peewee.Database, version: int, migration: Any) -> None:
    """Write down which version the schema has now, within the migration that made it so."""
    values = {"id": 1, "version": version, "compatible_from": migration.COMPATIBLE_FROM}
    query = SchemaRow.insert(values).on_conflict(conflict_target=[SchemaRow.id], update=values)
    query.bind(orm).execute()


def instance_of(orm: peewee.Database) -> str:
    """The random name of this queue, made with it and kept in it."""
    new = {"name": "instance", "value": world.token_hex(8)}
    if (name := fact(orm, "instance")) is None:
        Fact.insert(new).on_conflict_ignore().bind(orm).execute()
        name = fact(orm, "instance")
    return str(name)


def fact(orm: peewee.Database, name: str) -> str | None:
    """A fact about the queue; None where it is not known."""
    row = Fact.select(Fact.value).where(Fact.name == name).bind(orm).first()
    return None if row is None else str(row.value)


def create_plugin_tables(orm: peewee.Database, tables: Iterable[Table]) -> None:
    """Create the tables of plugins, take their steps, and add the columns that they have gained.

    Raises PluginError where a step fails; nothing is changed then.
    """
    with orm.atomic():  # one for all, as the disk is waited for at each commit
        for table in tables:
            if table.steps or table.name in _notes(orm):
                _take_steps(orm, table)
            elif not orm.table_exists(table.name):
                columns = [f'"{name}" {_kind(orm, kind)}' for name, kind in table.columns.items()]
                key = ", ".join(f'"{name}"' for name in table.key)
                body = ", ".join([*columns, f"PRIMARY KEY ({key})"])
                room = f" WITH ({REWRITTEN})" if isinstance(orm, PostgresqlDatabase) else ""
                _run(orm, f'CREATE TABLE "{table.name}" ({body}){room}')
                if table.keep is not None:
                    _run(orm, f'CREATE INDEX "{table.name}_at" ON "{table.name}" ("at")')
            if not orm.table_exists(table.name):
                raise PluginError(f"the steps of the table {table.name!r} do not make it")
            _add_columns(orm, table)
            _check_same(table, orm.get_columns(table.name))


def _take_steps(orm: peewee.Database, table: Table) -> None:
    """Take the steps that are new, and note the last one."""
    done = _steps_taken(orm, table)
    schema = ""
    if isinstance(orm, PostgresqlDatabase):
        [(schema,)] = orm.execute_sql("SELECT quote_ident(current_schema())").fetchall()  # type: ignore[no-untyped-call]
    for number, step in enumerate(table.steps[done:], done + 1):
        try:
            for statement in step.postgres if schema else step.sqlite:
                _run(orm, statement.replace("{schema}", schema))
        except peewee.PeeweeException as error:
            why = str(error).strip().partition("\n")[0]
            raise PluginError(f"step {number} of the table {table.name!r} fails: {why}") from error
    note = {"name": _STEPS + table.name, "value": str(len(table.steps))}
    Fact.insert(note).on_conflict(
        conflict_target=[Fact.name], update={"value": note["value"]}
    ).bind(orm).execute()


def _notes(orm: peewee.Database) -> dict[str, str]:
    """Of each table that has had steps, how many."""
    rows = Fact.select().where(Fact.name.startswith(_STEPS)).bind(orm)
    return {row.name.removeprefix(_STEPS): row.value for row in rows}


def _steps_taken(orm: peewee.Database, table: Table) -> int:
    """The number of the last step. Raises PluginError where its plugin does not know that."""
    known, noted = len(table.steps), _notes(orm).get(table.name)
    taken = int(orm.table_exists(table.name)) if noted is None else int(noted)
    if taken > known:
        raise PluginError(
            f"the table {table.name!r} has had {taken} steps in the database, and its plugin, "
            f"which is older, declares {known}; install the version that took them"
        )
    return taken


def _lacking(orm: peewee.Database, tables: Iterable[Table]) -> bool:
    """Whether a table of a plugin, a column, or a step of one, is not there. Raises PluginError."""
    there, notes = set(orm.get_tables()), _notes(orm)
    for table in tables:
        if table.name not in there or notes.get(table.name, "0") != str(len(table.steps)):
            return True
        found = orm.get_columns(table.name)
        _check_same(table, found)
        if not set(table.columns) <= {column.name for column in found}:
            return True
    return False


def _check_same(table: Table, found: Iterable[Any]) -> None:
    """Raise PluginError where a table is another than its plugin declares: columns that it has
    gained are added, and nothing else is changed."""
    whose = f"the table {table.name!r} is another in the database than its plugin declares it"
    remedy = (
        "install the plugin's former version, rename the table in the database, or let a step of "
        "the table change it"
    )
    key = sorted(column.name for column in found if column.primary_key)
    if key != sorted(table.key):
        raise PluginError(f"{whose}: the key is {key}, and not {sorted(table.key)}; {remedy}")
    for column in found:
        kind = table.columns.get(column.name, "").upper().split()
        if kind and column.data_type.upper() not in (kind[0], _TYPES[kind[0]]):
            raise PluginError(
                f"{whose}: {column.name} is {column.data_type}, and not {kind[0]}; {remedy}"
            )
        needed = not column.null and column.default is None and column.name not in key
        if needed and "NOT" not in kind:
            declared = "without it" if kind else "not at all"
            raise PluginError(
                f"{whose}: {column.name} is NOT NULL, and declared {declared}; {remedy}"
            )


def _kind(orm: peewee.Database, kind: str) -> str:
    """A type of a plugin's column, as the database calls it."""
    if not isinstance(orm, PostgresqlDatabase):
        return kind
    name, *rest = kind.upper().split()
    return " ".join((_POSTGRES[name], *rest))


def _add_columns(database: peewee.Database, table: Table) -> None:
    there = {column.name for column in database.get_columns(table.name)}
    for name, kind in table.columns.items():
        if name not in there:
            default = ""
            if kind.upper().endswith("NOT NULL"):
                default = f" DEFAULT {_DEFAULTS[kind.split()[0].upper()]}"
            typed = _kind(database, kind)
            _run(database, f'ALTER TABLE "{table.name}" ADD COLUMN "{name}" {typed}{default}')


def _run(database: peewee.Database, sql: str) -> None:
    database.execute_sql(sql)  # type: ignore[no-untyped-call]  # peewee leaves it so
