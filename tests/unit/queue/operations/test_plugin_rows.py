"""What plugins write, gathered: the tables hold what they would hold had each been written in its
turn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from orchestratord.model.task import Delete, Table, Upsert
from orchestratord.queue.batch import Rank, Write
from orchestratord.queue.connection import Connection
from orchestratord.queue.operations import plugin_rows
from orchestratord.queue.operations.effects import apply_all_effects, apply_effects
from orchestratord.queue.operations.plugin_rows import MOST_SHAPES, Upserts
from orchestratord.queue.session import Session
from orchestratord.queue.sqlite.sqlite_database import SqliteConnection
from orchestratord.queue.store import Store

LOOSE = Table(
    "loose", {"a": "TEXT NOT NULL", "n": "INTEGER", "x": "TEXT", "y": "INTEGER"}, ("a", "n")
)
STRICT = Table("strict", {"a": "TEXT NOT NULL", "x": "TEXT NOT NULL", "y": "REAL"}, ("a",))


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(f"sqlite:///{path}", tables=[LOOSE, STRICT])
    yield opened
    await opened.close()


names = st.sampled_from(["one", "two"])
# As plugins may bring them: what looks alike, is stored alike or is not, and what cannot be stored.
numbers = st.sampled_from([1, 2, 1.0, "1", True, None])
values = st.sampled_from([None, "x", "1", 1, 1.5, None, "x", "y", 2, "\udc80", object])
columns = st.dictionaries(st.sampled_from(["x", "y"]), values, max_size=2)
sums = st.dictionaries(st.just("y"), st.sampled_from([1, 2, -1, None, 0.5]), max_size=1)


@st.composite
def effects(draw: st.DrawFn) -> Upsert | Delete:
    table = draw(st.sampled_from(["loose", "loose", "loose", "strict", "none"]))
    key = {"a": draw(names)}
    if table == "loose":
        key["n"] = draw(numbers)
        if draw(st.booleans()):
            key = dict(reversed(key.items()))
    if draw(st.integers(0, 9)) == 0:
        return Delete(table, key)
    new = draw(columns)
    add = draw(sums)
    for name in add:
        new.pop(name, None)
    return Upsert(table, key, new, add)


async def tables(store: Store) -> Any:
    """What they hold, with the types of it."""

    def read(db: Connection) -> list[Any]:
        shown = "quote(a), quote({}), quote(x), quote(y)"
        return [
            db.all(f"SELECT {shown.format(column)} FROM {table} ORDER BY 1, 2, 3, 4")
            for table, column in (("loose", "n"), ("strict", "NULL"))
        ]

    return await store._reader.run(read)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(effects(), max_size=4),
    groups=st.lists(st.lists(effects(), max_size=8), max_size=4),
)
@example(  # what cannot be stored is refused, though another value would take its place
    before=[],
    groups=[[Upsert("strict", {"a": "two"}, {"x": x}, {"y": 1}) for x in ("\udc80", "x")]],
)
@example(  # the first is refused alone, and nothing is added to what it did not write
    before=[],
    groups=[[Upsert("strict", {"a": "one"}, {"x": x}, {"y": 1})] for x in (None, "x")],
)
@example(
    before=[],
    groups=[[Upsert("strict", {"a": "one"}, {"x": x}, {"y": 1}) for x in (None, "x")]],
)
async def test_gathered_is_the_same_as_one_after_the_other(
    store: Store,
    caplog: pytest.LogCaptureFixture,
    before: list[Any],
    groups: list[list[Any]],
) -> None:
    def clear(session: Session) -> None:
        for table in ("loose", "strict"):
            session.db.run(f"DELETE FROM {table}")
        apply_effects(session, before)

    def one_after_the_other(session: Session) -> None:
        for group in groups:
            apply_effects(session, group)

    def gathered(session: Session) -> bool:
        try:
            apply_all_effects(session, groups)
        except Exception:  # whatever it is: then each group is applied alone
            session.db.rollback()
            session.db.begin()
            return False
        return True

    caplog.clear()
    await store._writer.submit(Write(Rank.HAND, clear))
    await store._writer.submit(Write(Rank.HAND, one_after_the_other))
    expected = await tables(store)
    await store._writer.submit(Write(Rank.HAND, clear))
    if await store._writer.submit(Write(Rank.HAND, gathered)):
        event("gathered")
        assert await tables(store) == expected


class Watched:
    """A session's connection that counts what is run on it."""

    singly = False

    def __init__(self, db: Connection) -> None:
        self._db, self.for_update = db, db.for_update
        self.statements: list[str] = []

    def run(self, sql: str, values: Any = ()) -> int:
        self.statements.append(sql)
        return self._db.run(sql, values)

    def many(self, sql: str, types: Any, rows: Any) -> int:
        return SqliteConnection.many(self, sql, types, rows)  # type: ignore[arg-type]


async def statements(store: Store, effects: list[Upsert]) -> list[str]:
    def write(session: Session) -> list[str]:
        watched = Watched(session.db)
        session.db = watched  # type: ignore[assignment]
        try:
            upserts = Upserts(session)
            for effect in effects:
                upserts.add(effect)
            upserts.flush()
        finally:
            session.db = watched._db
        return watched.statements

    return await store._writer.submit(Write(Rank.HAND, write))


async def test_one_row_written_again_and_again_is_written_once(store: Store) -> None:
    row = {"a": "one", "n": 1}
    found = await statements(store, [Upsert("loose", row, {"x": str(n)}) for n in range(100)])
    assert len(found) == 1
    assert found[0].count("(?") == 1
    assert (await plugin_rows.rows(store, "loose"))[0]["x"] == "99"


@pytest.mark.parametrize("other", [{"a": "one", "n": "1"}, {"n": 1, "a": "one"}])
async def test_one_row_under_two_names_keeps_the_order(store: Store, other: dict[str, Any]) -> None:
    row = {"a": "one", "n": 1}
    await statements(
        store, [Upsert("loose", key, {"x": x}) for key, x in ((row, "1"), (other, "2"), (row, "3"))]
    )
    assert [row["x"] for row in await plugin_rows.rows(store, "loose")] == ["3"]


async def test_two_kinds_of_upserts_of_many_rows_are_few_statements(store: Store) -> None:
    mixed = [
        Upsert("loose", {"a": "hook", "n": n}, {"x": "good"} if n % 2 else {}, {"y": 1 - n % 2})
        for n in range(128)
    ]
    assert len(await statements(store, mixed)) == 2
    assert [row["y"] for row in await plugin_rows.rows(store, "loose") if row["n"] % 2 == 0] == [
        1
    ] * 64


async def test_what_is_prepared_is_bounded(store: Store) -> None:
    def write(session: Session) -> int:
        for n in range(2 * MOST_SHAPES):
            table = Table(f"t{n}", {"a": "TEXT"}, ("a",))
            session.tables[table.name] = table  # type: ignore[index]
            Upserts(session).add(Upsert(table.name, {"a": "x"}, {}))
            del session.tables[table.name]  # type: ignore[attr-defined]
        return max(len(session.statements), len(session.gathered))

    assert 0 < await store._writer.submit(Write(Rank.HAND, write)) <= MOST_SHAPES
