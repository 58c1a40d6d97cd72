"""What a connection to PostgreSQL does where a statement of its own fails."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from orchestratord.queue.postgres.postgres_database import PostgresConnection, PostgresDatabase
from tests.postgres import Postgres


@pytest.fixture
def database(postgres: Postgres) -> Iterator[PostgresDatabase]:
    url = postgres.create()
    yield PostgresDatabase(url, 90.0)
    postgres.drop(url)


def test_a_look_whose_beginning_fails_leaves_nothing_open(database: PostgresDatabase) -> None:
    db = database.connect(writes=False)
    assert isinstance(db, PostgresConnection)
    usual, db._look = db._look, "BEGIN; SELECT 1 / 0"
    with pytest.raises(psycopg.errors.DivisionByZero), db.look():
        pytest.fail("it has begun")
    db._look = usual
    with db.look():
        assert db.one("SELECT 7") == (7,)
    db.close()


def test_a_transaction_whose_beginning_fails_leaves_nothing_open(
    database: PostgresDatabase,
) -> None:
    db = database.connect(writes=False)
    assert isinstance(db, PostgresConnection)
    usual, db._begin = db._begin, "BEGIN; SELECT 1 / 0"
    with pytest.raises(psycopg.errors.DivisionByZero):
        db.begin()
    db._begin = usual
    db.begin()
    assert db.in_transaction
    db.rollback()
    db.close()
