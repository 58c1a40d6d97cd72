"""One statement over many rows: the same as one row after the other, in few statements."""

from __future__ import annotations

from typing import Any

import pytest

from orchestratord.queue.batch import Rank, Write
from orchestratord.queue.connection import ManyRows, Singly
from orchestratord.queue.session import Session
from orchestratord.queue.sqlite.sqlite_database import MOST, SIXTEENTHS
from orchestratord.queue.store import Store

INSERT = ManyRows("INSERT OR ROLLBACK INTO meta (name, value) VALUES {rows}", "text", "text")
UPDATE = ManyRows(
    "UPDATE meta SET value = new.column2 FROM (VALUES {rows}) AS new WHERE name = new.column1",
    "text",
    "text",
)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 100, MOST - 1, MOST, MOST + 1, 2 * MOST + 77])
async def test_any_number_of_rows(store: Store, count: int) -> None:
    rows = [(f"name {n:04}", str(n)) for n in range(count)]

    def write(session: Session) -> tuple[int, int]:
        inserted = INSERT.run(session.db, rows)
        return inserted, UPDATE.run(session.db, [(name, value * 2) for name, value in rows])

    assert await store._writer.submit(Write(Rank.NEW, write)) == (count, count)
    found = await store._reader.run(
        lambda db: db.all("SELECT name, value FROM meta WHERE name LIKE 'name %' ORDER BY rowid")
    )
    assert found == [(name, value * 2) for name, value in rows]


async def test_rows_that_are_not_there_are_not_counted(store: Store) -> None:
    rows = [("instance", "x"), ("nobody", "x"), ("nobody else", "x")]
    assert await store._writer.submit(Write(Rank.NEW, lambda s: UPDATE.run(s.db, rows))) == 1


async def test_a_few_statements_are_all_that_are_prepared(store: Store) -> None:
    seen: list[str] = []
    each: list[int] = []

    def write(session: Session) -> None:
        db = session.db
        original = db.run
        db.run = lambda sql, values: (seen.append(sql), len(values) // 2)[1]  # type: ignore[method-assign,assignment]
        for count in range(600):
            before = len(seen)
            assert INSERT.run(db, [("a", "b")] * count) == count
            each.append(len(seen) - before)
        db.run = original  # type: ignore[method-assign]

    await store._writer.submit(Write(Rank.NEW, write))
    assert len(set(seen)) == 34
    assert max(each[:SIXTEENTHS]) == 2, "rows of a usual transaction"
    assert max(each) == 5


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", ""), ("b", ""), ("a", "")], "UNIQUE constraint failed"),
        ([("a", ""), ("b", object())], "type 'object' is not supported"),
        ([("a", ""), ("b", 2**70)], "too large"),
        ([("a", ""), ("b", "\udc80")], "surrogates not allowed"),
    ],
)
async def test_one_that_is_not_taken_is_told(store: Store, rows: list[Any], message: str) -> None:
    def write(session: Session) -> Exception | None:
        try:
            INSERT.run(session.db, rows)
        except Singly as error:
            session.db.rollback()
            session.db.begin()
            return error
        return None

    with pytest.raises(Singly, match=message):
        raise await store._writer.submit(Write(Rank.NEW, write)) or ValueError
