"""The schema changes on PostgreSQL while daemons of the version before work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from orchestratord.queue import schema
from orchestratord.queue.store import open_database
from tests.postgres import Postgres

INDEX = """
from orchestratord.queue.schema import build_index
COMPATIBLE_FROM = 4
atomic = False

def up(migrator, db):
    build_index(db, "later", "retry_schedule (updated_at) WHERE status = 'failed'")
"""

COLUMN = """
COMPATIBLE_FROM = 4

def up(migrator, db):
    db.execute_sql("ALTER TABLE retry_schedule ADD COLUMN colour text")
"""


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    made = postgres.create()
    yield made
    postgres.drop(made)


@pytest.fixture
async def busy(unopened: Callable[[], Any]) -> AsyncIterator[Any]:
    """A daemon's queue, in which something is written all the time."""
    queue = unopened()
    await queue.open()
    queue.longest = 0.0

    async def work() -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await queue.add()
            for task in await queue.claim():
                await queue.settle(task)
            queue.longest = max(queue.longest, loop.time() - began)

    working = asyncio.create_task(work())
    yield queue
    assert not working.done()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await queue.store.close()


@pytest.fixture
def upgrade(url: str, tmp_path: Path) -> Callable[[str], Any]:
    """Has a daemon of a later version change the schema; in a thread."""

    def change(source: str) -> None:
        for migration in schema.MIGRATIONS.glob("[0-9]*.py"):
            (tmp_path / migration.name).write_text(migration.read_text())
        later = schema.VERSION + 1
        (tmp_path / f"{later:04}_later.py").write_text(source)
        database = open_database(url)
        connection = database.connect(writes=True)
        with database.models(connection) as orm, database.alone():
            schema.migrate(orm, tmp_path)
        connection.close()

    return lambda source: asyncio.to_thread(change, source)


async def test_an_index_is_built_while_others_write(
    busy: Any, upgrade: Callable[[str], Any], url: str
) -> None:
    with psycopg.connect(url, autocommit=True) as person:
        while person.execute("SELECT count(*) < 2 FROM retry_schedule").fetchone() == (True,):
            await asyncio.sleep(0.01)
        # What a build leaves behind that was broken off.
        with pytest.raises(psycopg.errors.UniqueViolation):
            person.execute("CREATE UNIQUE INDEX CONCURRENTLY later ON retry_schedule (kind)")
        assert not valid(person)
        await upgrade(INDEX)
        assert valid(person)
        [definition] = person.execute("SELECT pg_get_indexdef('later'::regclass)").fetchone() or ()
    assert "updated_at" in definition
    assert busy.longest < 1
    await (await busy.store.open(url)).close()  # one of this version still starts


def valid(person: psycopg.Connection[Any]) -> bool:
    row = person.execute(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'later'::regclass"
    ).fetchone()
    return row is not None and bool(row[0])


async def test_a_table_that_is_in_use_is_not_waited_for_for_long(
    busy: Any, upgrade: Callable[[str], Any], url: str, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(schema, "LOCK_TIMEOUT", "200ms")
    with psycopg.connect(url) as report:
        report.execute("SELECT count(*) FROM retry_schedule")
        with caplog.at_level(logging.WARNING):
            changing = asyncio.create_task(upgrade(COLUMN))
            async with asyncio.timeout(60):
                while "cannot change the schema while others use it" not in caplog.text:
                    await asyncio.sleep(0.02)
    await changing
    assert busy.run("SELECT colour FROM retry_schedule LIMIT 1") == [{"colour": None}]
    assert 0.2 < busy.longest < 1
