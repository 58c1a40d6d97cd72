"""The schema: the models make what queues had before, and each version leads to the next."""

from __future__ import annotations

import runpy
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from orchestratord_webhooks.attempt_counts import COUNTS
from peewee import SqliteDatabase

from orchestratord.errors import DatabaseInUse
from orchestratord.model.task import Key, NewTask, Status, Upsert
from orchestratord.queue import schema
from orchestratord.queue.batch import Read
from orchestratord.queue.housekeeping import run_ends
from orchestratord.queue.operations import bulk as bulks
from orchestratord.queue.operations import (
    chores,
    claim,
    effects,
    manual,
    plugin_rows,
    schedules,
    search,
    settle,
)
from orchestratord.queue.records import Insert, Pick, TaskFilter
from orchestratord.queue.store import Store, open_database
from tests.postgres import Postgres

DATA = Path(__file__).parent
HISTORY = "schema_migration"


def dump(path: Path) -> None:
    """Make a file as the version of the baseline left it, with rows of each kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as database:
        database.executescript((DATA / "schema_v15_sqlite.sql").read_text())
    database.close()


def dump_postgres(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as database:
        database.execute((DATA / "schema_v15_postgres.sql").read_bytes())


@pytest.fixture
def new_url(postgres: Postgres) -> Iterator[Any]:
    made: list[str] = []

    def create() -> str:
        made.append(postgres.create())
        return made[-1]

    yield create
    for url in made:
        postgres.drop(url)


def shape(path: Path) -> dict[str, Any]:
    """What each table and index is, however the statement was written that made it, and in which
    order the columns came."""
    database = sqlite3.connect(path)
    found: dict[str, Any] = {}
    rows = database.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
    for kind, name, sql in rows.fetchall():
        if kind == "table":
            columns = database.execute(f"PRAGMA table_xinfo({name})").fetchall()
            assert "COLLATE" not in sql
            columns = {column: tuple(what) for _, column, *what in columns}
            found[name] = (columns, "AUTOINCREMENT" in sql)
        else:
            found[name] = sql
    database.close()
    return found


POSTGRES_SHAPE = """
SELECT c.relname, a.attname, 1,
    format_type(a.atttypid, a.atttypmod), a.attnotnull,
    a.attidentity, pg_get_expr(d.adbin, d.adrelid), l.collname, c.reloptions::text
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
LEFT JOIN pg_collation l ON l.oid = a.attcollation
WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
UNION ALL
SELECT indexname, indexdef, 0, NULL, NULL, NULL, NULL, NULL, NULL
FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT conname, pg_get_constraintdef(oid), 0, NULL, NULL, NULL, NULL, NULL, NULL
FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
UNION ALL
SELECT c.relname, s.seqtypid::regtype::text, 0, s.seqstart::text, NULL, NULL, NULL, NULL, NULL
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid
UNION ALL
SELECT proname, pg_get_functiondef(oid), 0, proacl::text, NULL, NULL, NULL, NULL, NULL
FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL
SELECT relname, relacl::text, -1, NULL, NULL, NULL, NULL, NULL, NULL
FROM pg_class WHERE relname = 'orchestratord_outbox'
ORDER BY 1, 3, 2
"""


def shape_postgres(url: str) -> list[Any]:
    with psycopg.connect(url) as database:
        return database.execute(POSTGRES_SHAPE).fetchall()


def version(path: Path) -> tuple[int, int]:
    database = sqlite3.connect(path)
    [row] = database.execute("SELECT version, compatible_from FROM schema").fetchall()
    database.close()
    return row  # type: ignore[no-any-return]


async def test_a_new_database_has_the_last_version(path: Path, store: Store) -> None:
    assert version(path) == (schema.VERSION, 26)
    assert int(sorted(schema.MIGRATIONS.glob("[0-9]*.py"))[-1].name[:4]) == schema.VERSION


def test_no_later_version_lets_daemons_in_that_an_earlier_one_keeps_out() -> None:
    found = [
        int(runpy.run_path(str(path))["COMPATIBLE_FROM"])
        for path in sorted(schema.MIGRATIONS.glob("[0-9]*.py"))
    ]
    assert found == sorted(found)


async def test_the_models_make_what_queues_had_before(
    path: Path, store: Store, tmp_path: Path
) -> None:
    old = tmp_path / "old.db"
    dump(old)
    await (await Store.open(f"sqlite:///{old}")).close()
    assert shape(old) == shape(path)


async def test_the_models_make_what_queues_on_postgresql_had_before(new_url: Any) -> None:
    old, new = new_url(), new_url()
    dump_postgres(old)
    for url in (old, new):
        await (await Store.open(url)).close()
    assert shape_postgres(old) == shape_postgres(new)


async def test_a_queue_of_before_goes_on(path: Path) -> None:
    dump(path)
    await goes_on(f"sqlite:///{path}")
    assert version(path) == (schema.VERSION, 26)


async def test_a_queue_of_before_goes_on_on_postgresql(new_url: Any) -> None:
    url = new_url()
    dump_postgres(url)
    with psycopg.connect(url, autocommit=True) as database:
        database.execute("UPDATE retry_schedule SET lease_until = 1 WHERE status = 'running'")
    await goes_on(url)


BULKS_OF_23 = """
INSERT INTO bulks (id, filter, wanted, resolution, status, action, highest_id, matched, created_at,
    updated_at, ended_at, untold, owner) VALUES
(11, '{}', '{"text": "a"}', NULL, 'running', 'retry', 9, 4, 1, 1, NULL, 0, 'someone'),
(12, '{}', NULL, '{"wanted": "{\\"of\\": 12}"}', 'paused', 'resolve', 9, 4, 1, 1, NULL, 0, NULL),
(13, '{}', NULL, NULL, 'paused', 'retry', 9, 4, 1, 1, NULL, 1, NULL),
(14, '{}', NULL, NULL, 'finished', 'retry', 9, 4, 1, 1, NULL, 0, NULL),
(15, '{}', NULL, NULL, 'finished', 'retry', 9, 4, 1, 1, 2, 1, NULL),
(16, '{}', NULL, NULL, 'finished', 'retry', 9, 4, 1, 1, 2, 0, NULL)
"""
SLICES_OF_23 = (
    """
CREATE TABLE queue_slices (name TEXT, number BIGINT, tasks TEXT, PRIMARY KEY (name, number))
""",
    """
INSERT INTO queue_slices VALUES ('2-a', 0, '[3]'), ('1-b', 10, '[2]'), ('1-b', 9, '[1]')
""",
    """
INSERT INTO batches (id, first_member, endpoint_id, webhook, phase, opened_at, closed_at, members,
    task_id) VALUES (1, 1, 'a/b', 'ops', 'p', 1, 1, 3, 7), (2, 4, 'a/b', 'ops', 'p', 1, 1, 3, NULL)
""",
)
"""Those that move tasks or wait for their ends, and those that were not told of, go on."""


@pytest.mark.parametrize("on_postgres", [False, True], ids=["sqlite", "postgresql"])
async def test_bulks_of_schema_23_go_on(
    path: Path, new_url: Any, tmp_path: Path, on_postgres: bool
) -> None:
    url = new_url() if on_postgres else f"sqlite:///{path}"
    dump_postgres(url) if on_postgres else dump(path)
    bring(url, tmp_path, 23, BULKS_OF_23, *SLICES_OF_23)
    store = await Store.open(url)
    due = await store.read(chores.due(store.owner, store.clock.now_ms(), (), 9))
    found = [one.subject for one in await store.write(chores.claim(due)) if one.kind == "bulk"]
    assert found[-4:] == ["11", "13", "14", "15"]
    filters = await store.read(Read(lambda db: db.all("SELECT filter FROM bulks WHERE id > 10")))
    batches = Read(lambda db: db.all("SELECT subject FROM chores WHERE kind = 'batch'"))
    assert await store.read(batches) == [("2",)]
    waiting = Read(
        lambda db: db.all("SELECT data FROM chores WHERE kind = 'slice' ORDER BY subject")
    )
    assert await store.read(waiting) == [("[1]",), ("[2]",), ("[3]",)]
    assert filters[:3] == [('{"text": "a"}',), ('{"of": 12}',), ("{}",)]
    await store.close()


RUNS_OF_24 = """
INSERT INTO runs (id, endpoint_id, tasks, open_tasks, succeeded, failed, cancelled, ends, untold,
    created_at, ended_at) VALUES
(21, 'crm/get', 2, 0, 2, 0, 0, 1, 1, 5, 7), (22, 'crm/get', 2, 0, 2, 0, 0, 1, 0, 5, 7),
(23, 'crm/get', 2, 1, 1, 0, 0, 3, 1, 5, NULL), (24, 'crm/get', 2, 1, 1, 0, 0, 3, 0, 5, NULL)
"""
"""Told or not, and opened again or not."""


@pytest.mark.parametrize("on_postgres", [False, True], ids=["sqlite", "postgresql"])
async def test_ends_of_runs_of_schema_24_are_still_told(
    path: Path, new_url: Any, tmp_path: Path, on_postgres: bool
) -> None:
    url = new_url() if on_postgres else f"sqlite:///{path}"
    dump_postgres(url) if on_postgres else dump(path)
    bring(url, tmp_path, 24, RUNS_OF_24)
    store = await Store.open(url)
    of_runs = Read(lambda db: db.all("SELECT subject, due, at FROM chores WHERE kind = 'run'"))
    assert await store.read(of_runs) == [("21 crm/get", 0, 7)]
    ends = [await store.read(run_ends.row_of(id_)) for id_ in (21, 22, 23, 24)]
    assert [run and run.end for run in ends] == [1, 1, 2, 3]
    await store.close()


BULKS_OF_24 = """
INSERT INTO bulks (id, filter, status, highest_id, matched, moved, created_at, updated_at,
    succeeded, failed, stop_after, stop_at) VALUES
(31, '?', 'running', 9, 9, 7, 1, 5, 3, 2, 3, 3), (32, '?', 'paused', 9, 9, 7, 1, 6, 0, 4, 4, 4)
"""


@pytest.mark.parametrize("on_postgres", [False, True], ids=["sqlite", "postgresql"])
async def test_bulks_of_schema_24_keep_what_they_have_counted(
    path: Path, new_url: Any, tmp_path: Path, on_postgres: bool
) -> None:
    url = new_url() if on_postgres else f"sqlite:///{path}"
    dump_postgres(url) if on_postgres else dump(path)
    bring(url, tmp_path, 24, BULKS_OF_24)
    store = await Store.open(url)
    there = {row.status for row in (await store.read(search.page(TaskFilter(), 10)))[0]}
    assert {name for name, count in (await store.counts()).items() if count} == there
    found = [await store.read(bulks.row_of(id_)) for id_ in (31, 32)]
    assert [(one.status, one.succeeded, one.failed) for one in found] == [
        ("running", 3, 2),
        ("paused", 0, 4),
    ]
    await store.close()


HOURS_OF_25 = (
    """
CREATE TABLE webhook_attempts (
    endpoint_id TEXT NOT NULL, name TEXT NOT NULL, since BIGINT NOT NULL, until BIGINT,
    attempts BIGINT, failed BIGINT, PRIMARY KEY (endpoint_id, name, since)
)
""",
    "INSERT INTO webhook_attempts VALUES ('crm/get', 'ops', 1, 3, 5, 4), ('a/b', 'x', 2, 4, 6, 0)",
)


@pytest.mark.parametrize("on_postgres", [False, True], ids=["sqlite", "postgresql"])
async def test_attempts_that_schema_25_has_counted_count_on(
    path: Path, new_url: Any, tmp_path: Path, on_postgres: bool
) -> None:
    url = new_url() if on_postgres else f"sqlite:///{path}"
    dump_postgres(url) if on_postgres else dump(path)
    bring(url, tmp_path, 25, *HOURS_OF_25)
    store = await Store.open(url, tables=(COUNTS,))
    counted = {"at": 1, "until": 3, "attempts": 5, "failed": 4, "worker": ""}
    own = {"endpoint_id": "crm/get", "name": "ops", "at": 1, "worker": "w"}
    await store.write(effects.write_effects([Upsert(COUNTS.name, own, {}, {"attempts": 1})]))
    rows = await plugin_rows.rows(store, COUNTS.name, {"name": "ops"})
    assert [(row["attempts"], row["worker"]) for row in rows] == [(5, ""), (1, "w")]
    assert rows[0].items() >= counted.items()
    await store.close()


def bring(url: str, folder: Path, last: int, *then: str) -> None:
    """Bring a queue to an older schema, in which these rows are."""
    for migration in schema.MIGRATIONS.glob("00[0-9][0-9]_*.py"):
        if int(migration.name[:4]) <= last:
            (folder / migration.name).write_text(migration.read_text())
    database = open_database(url)
    connection = database.connect(writes=True)
    with database.models(connection) as orm:
        schema.migrate(orm, folder)
        for statement in then:
            orm.execute_sql(statement)
    connection.close()
    database.close()


async def test_the_index_by_creation_that_was_broken_off_is_the_new_one(
    new_url: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of schema 16; whether it was built, or has taken the place of the one before, already."""
    old, new = new_url(), new_url()
    dump_postgres(old)
    await (await Store.open(new)).close()
    build = schema.build_index

    def ends(orm: Any, name: str, *arguments: Any, **named: Any) -> None:
        build(orm, name, *arguments, **named)
        if "created" in name:
            raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(schema, "build_index", ends)
        with pytest.raises(MemoryError):
            await Store.open(old)
    await (await Store.open(old)).close()
    assert shape_postgres(old) == shape_postgres(new)
    with psycopg.connect(old, autocommit=True) as database:
        database.execute("DELETE FROM schema_migration WHERE name LIKE '0016%'")
        database.execute("UPDATE schema SET version = 15")
    await (await Store.open(old)).close()
    assert shape_postgres(old) == shape_postgres(new)


async def test_a_database_that_isolates_others_more_is_brought_on_too(new_url: Any) -> None:
    """An index that is built waits for each snapshot that is older, the lock's as well."""
    url = new_url()
    dump_postgres(url)
    with psycopg.connect(url, autocommit=True) as database:
        name = database.info.dbname
        for setting in ("default_transaction_isolation = serializable", "lock_timeout = '10s'"):
            database.execute(f"ALTER DATABASE {name} SET {setting}")  # type: ignore[arg-type]
    await (await Store.open(url)).close()


async def test_no_table_of_before_is_rewritten(new_url: Any) -> None:
    """One that holds millions of rows is brought on at once."""
    url = new_url()
    dump_postgres(url)
    with psycopg.connect(url, autocommit=True) as database:
        files = "SELECT relname, relfilenode FROM pg_class WHERE relkind = 'r' ORDER BY relname"
        before = database.execute(files).fetchall()
        await (await Store.open(url)).close()
        assert set(before) <= set(database.execute(files).fetchall())


async def goes_on(url: str) -> None:
    store = await Store.open(url)
    assert store.instance == "5eed5eed5eed5eed"
    tasks = {task.id: task for task in (await store.read(search.page(TaskFilter(), 10)))[0]}
    assert [tasks[n].status for n in (1, 2, 3, 4)] == ["succeeded", "failed", "running", "pending"]
    there = Counter(task.status for task in tasks.values())
    assert Counter(await store.counts()) == there
    assert tasks[2].last_status_code == 503
    assert tasks[1].params == {"id": 7}
    assert (await store.read(search.whole(1))).response == {
        "status_code": 200,
        "headers": {},
        "body": "ok",
    }
    [attempt] = await store.read(search.attempts(2))
    assert (attempt.status_code, attempt.delay, attempt.why) == (503, None, "the last attempt")
    assert await store.read(manual.paused()) == {"crm/put"}
    assert await store.read(settle.last_success()) == {"crm/get": 1_800_000_000_000}
    assert await store.read(schedules.slots()) == {
        "crm/get": schedules.SlotRow("every 15m", 1_799_999_100_000)
    }
    [bulk] = await store.read(bulks.newest(9))
    due = chores.due(store.owner, store.clock.now_ms(), (), 9)
    [chore] = await store.write(chores.claim(await store.read(due)))
    assert (chore.kind, chore.subject) == (bulks.CHORE, str(bulk.id))
    assert (bulk.filter.status, bulk.matched, bulk.cursor) == (("failed",), 4, 1)
    _, [running] = await claim.reclaim(store)
    assert running.id == 3
    claimed = await store.write(claim.claim([Pick(Key("crm/get", "ops"), 5, True, 10**14)]))
    assert [(task.id, task.payload) for task in claimed.tasks] == [(4, '{"a":1}')]
    assert (await store.write(manual.trigger(2))).status == Status.PENDING
    # What they were sent by is what they are sent by.
    assert {task.nonce for task in tasks.values()} == {None}
    new = [Insert(NewTask(kind="call", endpoint_id="a/b"))]
    assert (await store.write(effects.enqueue(new)))[0].id == 5
    assert (await store.read(search.get(5))).nonce
    await store.close()


async def test_before_the_schema_changes_a_copy_is_kept(path: Path, later: Path) -> None:
    dump(path)
    copy = path.with_name(f"{path.name}.before-schema-{schema.VERSION}")
    await (await Store.open(f"sqlite:///{path}")).close()
    assert version(copy)[0] == schema.BASELINE
    assert shape(copy) != shape(path)
    assert copy.stat().st_mode & 0o777 == 0o640
    kept = copy.read_bytes()
    await (await Store.open(f"sqlite:///{path}")).close()  # nothing is changed any more
    assert copy.read_bytes() == kept
    assert [child.name for child in path.parent.glob("*before*")] == [copy.name]


async def test_a_copy_is_of_the_last_change(path: Path) -> None:
    """Who went back to it and worked on, and changes again, would lose what came since."""
    copy = path.with_name(f"{path.name}.before-schema-{schema.VERSION}")

    async def change(attempts: int, version: int = schema.BASELINE) -> int:
        path.unlink(missing_ok=True)
        dump(path)
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE retry_schedule SET attempts = ? WHERE id = 1", (attempts,))
        if version != schema.BASELINE:  # broken off on the way
            with SqliteDatabase(str(path)) as orm:
                runner = schema._runner(orm, schema.MIGRATIONS)
                runner.up(runner.migrations()[version - schema.BASELINE].name)
        await (await Store.open(f"sqlite:///{path}")).close()
        with closing(sqlite3.connect(copy)) as database:
            [(kept,)] = database.execute("SELECT attempts FROM retry_schedule WHERE id = 1")
        return int(kept)

    assert [await change(7), await change(8), await change(9, schema.BASELINE + 2)] == [7, 8, 8]


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


async def test_one_from_before_the_baseline_is_refused(path: Path) -> None:
    dump(path)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE schema SET version = 3, compatible_from = 1")
    database.close()
    before = path.read_bytes()
    with pytest.raises(DatabaseInUse, match=r"has schema 3, from before the first release"):
        await Store.open(f"sqlite:///{path}")
    assert path.read_bytes() == before


async def test_one_of_a_checkout_from_before_goes_by_the_first_release(path: Path) -> None:
    dump(path)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE schema SET version = 14, compatible_from = 13")
    database.close()
    with pytest.raises(DatabaseInUse, match=r"schema 14.* start orchestratord 1\.0\.0 .* once"):
        await Store.open(f"sqlite:///{path}")


NEXT = """
from peewee import SQL, TextField

COMPATIBLE_FROM = {version}

def up(migrator, db):
    colour = TextField(constraints=[SQL("DEFAULT 'red'")])
    migrator.migrate(migrator.add_column("retry_schedule", "colour", colour, allow_not_null=True))
    {last}
"""


@pytest.fixture
def next_versions(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    for migration in schema.MIGRATIONS.glob("[0-9]*.py"):
        (folder / migration.name).write_text(migration.read_text())
    return folder


@pytest.fixture
def later(next_versions: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the version after this one would have; the folder of its migrations."""
    after = schema.VERSION + 1
    (next_versions / f"{after:04}_colour.py").write_text(NEXT.format(version=after, last=""))
    monkeypatch.setattr(schema, "VERSION", after)
    monkeypatch.setattr(schema, "MIGRATIONS", next_versions)
    return next_versions


async def test_a_later_migration_is_applied_once(path: Path, later: Path) -> None:
    dump(path)
    for _ in range(2):
        await (await Store.open(f"sqlite:///{path}")).close()
    assert version(path) == (schema.VERSION, schema.VERSION)
    columns, _ = shape(path)["retry_schedule"]
    assert columns["colour"][:3] == ("TEXT", 1, "'red'")


async def test_a_later_migration_on_postgresql(new_url: Any, later: Path) -> None:
    url = new_url()
    dump_postgres(url)
    for _ in range(2):
        await (await Store.open(url)).close()
    [colour] = [row for row in shape_postgres(url) if row[1] == "colour"]
    assert colour[3:8] == ("text", True, "", "'red'::text", "C")


async def test_an_empty_database_does_not_go_through_later_migrations(
    path: Path, later: Path, tmp_path: Path
) -> None:
    """It has at once what the models have, which is what those lead to."""
    await (await Store.open(f"sqlite:///{path}")).close()
    assert version(path) == (schema.VERSION, schema.VERSION)
    columns, _ = shape(path)["retry_schedule"]
    assert "colour" not in columns
    with sqlite3.connect(path) as database:
        names = database.execute(f"SELECT name FROM {HISTORY} ORDER BY id").fetchall()
    database.close()
    assert [name for (name,) in names] == sorted(file.stem for file in later.glob("[0-9]*.py"))


def test_one_that_fails_leaves_the_version_before(path: Path, next_versions: Path) -> None:
    after = schema.VERSION + 1
    dump(path)
    database = SqliteDatabase(str(path), lock_type="IMMEDIATE")
    schema.migrate(database)
    before = shape(path)
    broken = NEXT.format(version=after, last='raise RuntimeError("half-way")')
    (next_versions / f"{after:04}_colour.py").write_text(broken)
    with pytest.raises(RuntimeError, match="half-way"):
        schema.migrate(database, next_versions)
    database.close()
    assert version(path)[0] == schema.VERSION
    assert shape(path) == before


def test_an_empty_database_that_fails_stays_empty(path: Path, next_versions: Path) -> None:
    baseline = sorted(next_versions.glob("[0-9]*.py"))[0]
    baseline.write_text(baseline.read_text() + '    raise RuntimeError("half-way")\n')
    path.parent.mkdir()
    database = SqliteDatabase(str(path), lock_type="IMMEDIATE")
    with pytest.raises(RuntimeError, match="half-way"):
        schema.migrate(database, next_versions)
    database.close()
    assert not shape(path)
