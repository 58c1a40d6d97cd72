"""Migrations: every version that was ever released leads to this one, and to the same tables."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from peewee import SqliteDatabase
from playhouse.schema_diff import diff_models

from orchestratord.errors import DatabaseInUse
from orchestratord.model.task import Key, Status
from orchestratord.queue import schema
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import claim, manual, schedules, search, settle
from orchestratord.queue.records import Pick, TaskFilter
from orchestratord.queue.store import Store

VERSION_1 = Path(__file__).parent / "schema_v1.sql"


def dump(path: Path) -> None:
    """Make a database as the first version left it, with rows of each kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as database:
        database.executescript(VERSION_1.read_text())
    database.close()


def shape(path: Path) -> list[tuple[str, str]]:
    database = sqlite3.connect(path)
    rows = database.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    database.close()
    return sorted(rows)


def version(path: Path) -> tuple[int, int]:
    database = sqlite3.connect(path)
    [row] = database.execute("SELECT version, compatible_from FROM schema").fetchall()
    database.close()
    return row  # type: ignore[no-any-return]


async def test_a_new_database_has_the_last_version(path: Path, store: Store) -> None:
    assert version(path) == (schema.VERSION, 4)
    assert int(sorted(schema.MIGRATIONS.glob("[0-9]*.py"))[-1].name[:4]) == schema.VERSION


async def test_the_migrations_lead_to_the_models(path: Path, tmp_path: Path) -> None:
    await (await Store.open(f"sqlite:///{path}")).close()
    models = list(schema.TABLES)
    migrated = SqliteDatabase(str(path))
    assert not diff_models(migrated, models)
    migrated.close()
    # Indexes that are partial, or hinted at by name, are more than the difference looks at.
    fresh = SqliteDatabase(str(tmp_path / "models.db"))
    with fresh.bind_ctx(models):
        fresh.create_tables(models)
    fresh.close()
    history = "schema_migration"
    assert indexes(path, history) == indexes(tmp_path / "models.db", history)


def indexes(path: Path, without: str) -> list[tuple[str, str]]:
    return [(name, sql) for name, sql in shape(path) if "INDEX" in sql and without not in sql]


async def test_from_version_1(path: Path) -> None:
    dump(path)
    store = await Store.open(f"sqlite:///{path}")
    assert store.instance == "5eed5eed5eed5eed"
    tasks = {task.id: task for task in (await store.read(search.page(TaskFilter(), 10)))[0]}
    assert [tasks[n].status for n in (1, 2, 3, 4)] == ["succeeded", "failed", "running", "pending"]
    assert tasks[2].last_status_code == 503
    assert tasks[1].params == {"id": 7}
    assert await store.read(search.response(1)) == {"status_code": 200, "headers": {}, "body": "ok"}
    [attempt] = await store.read(search.attempts(2))
    assert (attempt.status_code, attempt.delay, attempt.why) == (503, None, "the last attempt")
    assert await store.read(manual.paused()) == {"crm/put"}
    assert await store.read(settle.last_success()) == {"crm/get": 1_800_000_000_000}
    assert await store.read(schedules.slots()) == {"crm/get": ("every 15m", 1_799_999_100_000)}
    [bulk] = await store.read(bulks.running())
    assert (bulk.filter.status, bulk.matched, bulk.cursor) == (("failed",), 4, 1)
    _, [running] = await claim.reclaim(store)
    assert running.id == 3
    claimed = await store.write(claim.claim([Pick(Key("crm/get", "ops"), 5, True, 10**14)]))
    assert [(task.id, task.payload) for task in claimed.tasks] == [(4, '{"a":1}')]
    assert (await store.write(manual.trigger(2))).status == Status.PENDING
    await store.close()
    assert version(path)[0] == schema.VERSION


async def test_before_the_schema_changes_a_copy_is_kept(path: Path) -> None:
    dump(path)
    copy = path.with_name(f"{path.name}.before-schema-{schema.VERSION}")
    await (await Store.open(f"sqlite:///{path}")).close()
    assert version(copy)[0] == 1
    assert shape(copy) != shape(path)
    assert copy.stat().st_mode & 0o777 == 0o640
    kept = copy.read_bytes()
    await (await Store.open(f"sqlite:///{path}")).close()  # nothing is changed any more
    assert copy.read_bytes() == kept
    assert [child.name for child in path.parent.glob("*before*")] == [copy.name]


async def test_version_1_and_a_new_database_have_the_same_shape(
    path: Path, store: Store, tmp_path: Path
) -> None:
    old = tmp_path / "old.db"
    dump(old)
    await (await Store.open(f"sqlite:///{old}")).close()
    assert shape(old) == shape(path)


async def test_opening_again_changes_nothing(path: Path) -> None:
    for _ in range(2):
        await (await Store.open(f"sqlite:///{path}")).close()
    first = shape(path)
    await (await Store.open(f"sqlite:///{path}")).close()
    assert shape(path) == first


@pytest.mark.parametrize(("compatible_from", "refused"), [(schema.VERSION, False), (99, True)])
async def test_a_newer_database_is_refused_only_where_it_must_be(
    path: Path, compatible_from: int, refused: bool
) -> None:
    dump(path)
    await (await Store.open(f"sqlite:///{path}")).close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE schema SET version = 99, compatible_from = ?", (compatible_from,))
        database.execute("INSERT INTO schema_migration (name, applied) VALUES ('0099_later', '')")
        database.execute("ALTER TABLE retry_schedule ADD COLUMN later TEXT")
    database.close()
    before = path.read_bytes()
    if refused:
        with pytest.raises(DatabaseInUse, match=r"has schema 99.*that knows schema 99"):
            await Store.open(f"sqlite:///{path}")
        assert path.read_bytes() == before
    else:
        store = await Store.open(f"sqlite:///{path}")
        assert len((await store.read(search.page(TaskFilter(), 10)))[0]) == 4
        await store.close()
    assert version(path) == (99, compatible_from)


NEXT = """
from orchestratord.queue.schema import stamp

def up(migrator, db):
    db.execute_sql("ALTER TABLE retry_schedule ADD COLUMN colour TEXT")
    {last}
    stamp(db, version={version}, compatible_from={version})
"""


@pytest.fixture
def next_versions(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    for migration in schema.MIGRATIONS.glob("[0-9]*.py"):
        (folder / migration.name).write_text(migration.read_text())
    return folder


def test_a_later_migration_is_applied_once(path: Path, next_versions: Path) -> None:
    later = schema.VERSION + 1
    dump(path)
    (next_versions / f"{later:04}_colour.py").write_text(NEXT.format(version=later, last=""))
    for _ in range(2):
        database = SqliteDatabase(str(path))
        # As the version that brings it would: it knows what it is compatible with.
        if version(path)[0] < later:
            schema.migrate(database, next_versions)
        database.close()
    assert version(path) == (later, later)
    assert "colour" in dict(shape(path))["retry_schedule"]


def test_one_that_fails_leaves_the_version_before(path: Path, next_versions: Path) -> None:
    later = schema.VERSION + 1
    dump(path)
    database = SqliteDatabase(str(path), lock_type="IMMEDIATE")
    schema.migrate(database)
    database.close()
    before = shape(path)
    broken = NEXT.format(version=later, last='raise RuntimeError("half-way")')
    (next_versions / f"{later:04}_colour.py").write_text(broken)
    database = SqliteDatabase(str(path), lock_type="IMMEDIATE")
    with pytest.raises(RuntimeError, match="half-way"):
        schema.migrate(database, next_versions)
    database.close()
    assert version(path)[0] == schema.VERSION
    assert shape(path) == before
